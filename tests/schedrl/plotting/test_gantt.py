from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from schedrl.errors import ConfigError
from schedrl.plotting.gantt import GanttChart, Mark, gantt_fragment, gantt_svg, save_gantt

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


@pytest.mark.parametrize("suffix", [".svg", ".html", ".png"])
def test_each_suffix_writes_its_format(tmp_path: Path, suffix: str) -> None:
    if suffix == ".png":
        pytest.importorskip("matplotlib")
    path = tmp_path / "new" / f"chart{suffix}"
    save_gantt(chart(), path)
    start = path.read_bytes()[:15]
    assert start.startswith({".svg": b"<svg", ".html": b"<!doctype html>", ".png": b"\x89PNG"}[suffix])
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_bad_charts_and_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unequal lengths \[3, 4\]"):
        chart(4, label=("a", "b", "c"))
    with pytest.raises(ConfigError, match="field lane: expected 0 to 1"):
        chart(2, lane=np.array([0, 2], dtype=np.int32))
    with pytest.raises(ConfigError, match=r"suffix '.pdf' is not a picture format"):
        save_gantt(chart(), tmp_path / "chart.pdf")
