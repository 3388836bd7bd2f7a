from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from schedrl.errors import ConfigError
from schedrl.plotting.gantt import Arrow, Event, GanttChart, Mark, gantt_fragment, gantt_svg, save_gantt

SVG = "{http://www.w3.org/2000/svg}"


def chart(bars: int = 4, **changes: object) -> GanttChart:
    fields: dict[str, object] = {
        "title": "A & B <chart>",
        "lanes": ("first", "second"),
        "groups": ("red", "green", "blue"),
        "lane": np.arange(bars, dtype=np.int32) % 2,
        "start": np.arange(bars, dtype=np.float64) * 10,
        "length": np.full(bars, 10.0),
        "group": np.arange(bars, dtype=np.int32) % 3,
        "label": tuple(f"t{k}" for k in range(bars)),
        "marks": (Mark(time=bars * 10.0, label="end"),),
    }
    return GanttChart(**{**fields, **changes})  # type: ignore[arg-type]  # the fields above have the right types


def bars_of(root: ElementTree.Element) -> list[ElementTree.Element]:
    return root.findall(f".//{SVG}g[@class='bars']/{SVG}rect")


def test_svg_is_xml_with_bars_in_proportion() -> None:
    root = ElementTree.fromstring(gantt_svg(chart()))
    bars = bars_of(root)
    plot = root.find(f".//{SVG}svg[@class='plot']")
    assert plot is not None
    width = float(plot.attrib["width"])
    assert [float(bar.attrib["x"]) for bar in bars] == pytest.approx([0, width / 4, width / 2, 3 * width / 4], abs=0.01)
    assert [float(bar.attrib["width"]) for bar in bars] == pytest.approx([width / 4] * 4, abs=0.01)
    assert [bar.attrib["y"] for bar in bars] == ["1", "23", "1", "23"]
    assert bars[0].attrib["fill"] == bars[3].attrib["fill"] != bars[1].attrib["fill"]
    titles = [bar.findtext(f"{SVG}title") for bar in bars]
    assert titles[1] == "green · t1 · second · 10 to 20 (10)"


def test_zero_length_bars_stay_visible() -> None:
    root = ElementTree.fromstring(gantt_svg(chart(2, length=np.array([0.0, 5.0]))))
    assert all(float(bar.attrib["width"]) > 0 for bar in bars_of(root))


def test_an_empty_chart_is_drawn() -> None:
    empty = chart(0, start=np.zeros(0), length=np.zeros(0), marks=())
    assert bars_of(ElementTree.fromstring(gantt_svg(empty))) == []


def test_fragment_is_self_contained_and_small_for_2000_bars() -> None:
    fragment = gantt_fragment(chart(2000))
    assert len(re.findall(r"<rect [^>]*data-g=", fragment)) == 2000
    assert not re.search(r"https?://", fragment)
    assert len(fragment) < 400_000
    assert "A &amp; B &lt;chart&gt;" in fragment


def test_arrows_run_from_lane_to_lane_at_their_times() -> None:
    arrow = Arrow(source=0, target=1, start=10.0, end=20.0)
    root = ElementTree.fromstring(gantt_svg(chart(2, arrows=(arrow,))))
    plot = root.find(f".//{SVG}svg[@class='plot']")
    paths = root.findall(f".//{SVG}g[@class='arrows']/{SVG}path")
    assert plot is not None and len(paths) == 1
    width = float(plot.attrib["width"])
    x0, y0, x1, y1 = map(float, paths[0].attrib["data-a"].split())
    # Few lanes are drawn 34 units high; arrows end a quarter of that off the middle, towards each other.
    assert (x0, x1) == pytest.approx((width / 2, width), abs=0.1) and (y0, y1) == (25.5, 42.5)
    assert paths[0].attrib["data-e"] == "0 1"
    assert paths[0].attrib["d"].startswith(f"M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}L")


def test_arrows_upwards_and_within_a_lane() -> None:
    arrows = (Arrow(source=1, target=0, start=0.0, end=1.0), Arrow(source=0, target=2, start=0.0, end=1.0))
    svg = gantt_svg(chart(4, arrows=arrows))
    heights = [tuple(map(float, data.split()))[1::2] for data in re.findall(r'data-a="([^"]*)"', svg)]
    assert heights == [(42.5, 25.5), (17.0, 17.0)]


def test_events_take_the_colour_of_their_group_and_count_for_the_span() -> None:
    events = (Event(time=5.0, group=1, label="job <1> enters"), Event(time=80.0, group=0, label="late"))
    root = ElementTree.fromstring(gantt_svg(chart(4, events=events)))
    marks = root.findall(f".//{SVG}g[@class='events']/{SVG}path")
    assert [mark.attrib["fill"] for mark in marks] == [bars_of(root)[k].attrib["fill"] for k in (1, 0)]
    assert marks[0].findtext(f"{SVG}title") == "job <1> enters"
    assert root.attrib["data-high"] == "80.0"


def test_a_legend_wraps_and_makes_the_picture_taller() -> None:
    def height(svg: str) -> float:
        return float(ElementTree.fromstring(svg).attrib["viewBox"].split()[3])

    plain, short = gantt_svg(chart()), gantt_svg(chart(legend=True))
    assert height(short) == height(plain) + 18 and "green</text>" in short and "green</text>" not in plain
    long = chart(legend=True, groups=tuple(f"a long name of a group {k}" for k in range(10)))
    assert height(gantt_svg(long)) == height(plain) + 36


@pytest.mark.parametrize("suffix", [".svg", ".html", ".png"])
def test_each_suffix_writes_its_format(tmp_path: Path, suffix: str) -> None:
    if suffix == ".png":
        pytest.importorskip("matplotlib")
    path = tmp_path / "new" / f"chart{suffix}"
    arrow = Arrow(source=0, target=1, start=0.0, end=10.0)
    save_gantt(chart(arrows=(arrow,), events=(Event(time=1.0, group=0, label="e"),), legend=True), path)
    start = path.read_bytes()[:15]
    assert start.startswith({".svg": b"<svg", ".html": b"<!doctype html>", ".png": b"\x89PNG"}[suffix])
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_bad_charts_and_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unequal lengths \[3, 4\]"):
        chart(4, label=("a", "b", "c"))
    with pytest.raises(ConfigError, match="field lane: expected 0 to 1"):
        chart(2, lane=np.array([0, 2], dtype=np.int32))
    with pytest.raises(ConfigError, match="field arrows: expected 0 to 1"):
        chart(2, arrows=(Arrow(source=0, target=2, start=0.0, end=1.0),))
    with pytest.raises(ConfigError, match="field events: expected 0 to 2"):
        chart(2, events=(Event(time=0.0, group=3, label=""),))
    with pytest.raises(ConfigError, match=r"suffix '.pdf' is not a picture format"):
        save_gantt(chart(), tmp_path / "chart.pdf")
