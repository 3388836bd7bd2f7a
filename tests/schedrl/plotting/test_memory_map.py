from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedrl.errors import ConfigError
from schedrl.plotting.memory_map import Level, MapPanel, MemoryChart, map_svg, nice_sizes, save_map
from schedrl.plotting.palette import colour

SVG = "{http://www.w3.org/2000/svg}"


def panel(count: int = 3, **changes: Any) -> MapPanel:
    """Return a staircase of rectangles, each of 2 by 4, within 100."""
    fields: dict[str, Any] = {
        "title": "cache & <store>",
        "start": np.arange(count, dtype=np.float64),
        "length": np.full(count, 2.0),
        "low": 4.0 * np.arange(count),
        "height": np.full(count, 4.0),
        "group": np.arange(count, dtype=np.int32) % 2,
        "hatch": np.zeros(count, dtype=np.int32),
        "label": tuple(f"a long name {k}" for k in range(count)),
        "note": tuple(f"rectangle <{k}>" for k in range(count)),
        "top": 16.0,
    }
    return MapPanel(**(fields | changes))


def chart(*panels: MapPanel, **changes: Any) -> MemoryChart:
    fields: dict[str, Any] = {"title": "map", "panels": panels or (panel(),), "groups": ("even", "odd"), "span": (0, 4)}
    return MemoryChart(**(fields | changes))


def rectangles(root: ElementTree.Element) -> list[ElementTree.Element]:
    return root.findall(f".//{SVG}g[@class='bars']/{SVG}rect")


def texts(root: ElementTree.Element) -> list[str | None]:
    return [node.text for node in root.iter(f"{SVG}text")]


def test_rectangles_are_in_proportion_with_offset_zero_below() -> None:
    root = ElementTree.fromstring(map_svg(chart()))
    plot = root.find(f".//{SVG}svg[@class='plot']")
    assert plot is not None
    width, height = float(plot.attrib["width"]), float(plot.attrib["height"])
    found = rectangles(root)
    sides = [[float(node.attrib[side]) for side in ("x", "y", "width", "height")] for node in found]
    assert sides == [
        pytest.approx([k * width / 4, height - (k + 1) * height / 4, width / 2, height / 4], abs=0.01) for k in range(3)
    ]
    assert [node.attrib["fill"] for node in found] == [colour(0), colour(1), colour(0)]
    assert found[1].findtext(f"{SVG}title") == "rectangle <1>"
    assert {"map", "cache & <store>", "even", "odd", "a long name 2", "12", "16"} <= set(texts(root))


def test_hatched_parts_have_a_pattern_and_no_label() -> None:
    drawn = chart(panel(hatch=np.array([0, 1, 2], dtype=np.int32)), hatches=("", "in", ""))
    root = ElementTree.fromstring(map_svg(drawn))
    assert [node.attrib["fill"] for node in rectangles(root)][1:] == ["url(#schedrl-rising)", "url(#schedrl-falling)"]
    patterns = {node.attrib["id"] for node in root.iter(f"{SVG}pattern")}
    assert patterns == {"schedrl-rising", "schedrl-falling"}
    assert "a long name 0" in texts(root) and "a long name 1" not in texts(root)
    assert "in" in texts(root)  # in the legend, where an unnamed hatch is not


def test_labels_are_cut_to_fit_and_left_out_where_they_cannot() -> None:
    narrow = panel(length=np.array([2.0, 0.2, 0.01]))
    assert [text for text in texts(ElementTree.fromstring(map_svg(chart(narrow)))) if text and text[:2] == "a "] == [
        "a long name 0",
        "a lon…",
    ]
    low = ElementTree.fromstring(map_svg(chart(panel(height=np.full(3, 0.1)))))
    # On a page a low rectangle must not be labelled either, however far it is zoomed.
    assert not any(text and text[:2] == "a " for text in texts(low))
    assert [node.attrib["data-l"] for node in rectangles(low)] == [""] * 3


def test_levels_and_a_second_scale_are_written() -> None:
    levels = (Level(value=8.0, label="half <full>"),)
    clock = np.array([0.0, 0.25, 1.5, 12.345678, 13.0])
    root = ElementTree.fromstring(map_svg(chart(panel(levels=levels), clock=clock, clock_label="ms", span=(0.0, 4.0))))
    assert {"half <full>", "time (below: ms)", "0.25", "1.5", "12.35", "13"} <= set(texts(root))


def test_several_panels_are_stacked_and_pages_have_a_picture_each(tmp_path: Path) -> None:
    several = chart(panel(), panel(0), panel(2))
    root = ElementTree.fromstring(map_svg(several))
    assert [float(node.attrib["y"]) for node in root] == sorted(float(node.attrib["y"]) for node in root)
    assert len(rectangles(root)) == 5
    save_map(several, tmp_path / "map.html")
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert page.count('class="schedrl-gantt"') == 3 and "<script>" in page
    assert not re.search(r"https?://", page)


@pytest.mark.parametrize("panels", [1, 2])
def test_matplotlib_draws_the_same(tmp_path: Path, panels: int) -> None:
    pytest.importorskip("matplotlib")
    from schedrl.plotting.memory_map import map_figure

    hatched = panel(hatch=np.array([0, 1, 2], dtype=np.int32), levels=(Level(value=8.0, label="half"),))
    drawn = chart(*[hatched] * panels, clock=np.arange(5.0), clock_label="ms", hatches=("", "in", "out"))
    figure = map_figure(drawn)
    assert len(figure.axes) == panels
    axes = figure.axes[0]
    assert axes.get_xlim() == (0, 4) and axes.get_ylim() == (0, 16)
    assert [text.get_text() for text in axes.texts] == ["a long name 0", "half"]
    assert [len(collection.get_paths()) for collection in axes.collections] == [1, 1, 1]
    assert axes.get_xticklabels()[-1].get_text() == "4\n4"
    save_map(drawn, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_a_thousand_rectangles_stay_small() -> None:
    assert len(map_svg(chart(panel(1000, top=4000.0), span=(0, 1001)))) < 400_000


@pytest.mark.parametrize(
    ("top", "sizes"),
    [(16.0, [0, 2, 4, 6, 8, 10, 12, 14, 16]), (48.0, [0, 8, 16, 24, 32, 40, 48]), (1.06, [0, 0.25, 0.5, 0.75, 1])],
)
def test_offsets_are_marked_at_multiples_of_a_power_of_two(top: float, sizes: list[float]) -> None:
    assert nice_sizes(top) == sizes


def test_bad_charts_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"arrays of unequal lengths \[3, 3, 3, 3, 3, 3, 1, 3\]"):
        panel(label=("a",))
    with pytest.raises(ConfigError, match="field hatch: expected 0 to 2"):
        panel(hatch=np.array([0, 0, 3], dtype=np.int32))
    with pytest.raises(ConfigError, match=r"field top: 0.0, expected a positive offset"):
        panel(top=0.0)
    with pytest.raises(ConfigError, match="field group: expected 0 to 0"):
        chart(groups=("one",))
    with pytest.raises(ConfigError, match="field panels: empty"):
        MemoryChart(title="map", panels=(), groups=(), span=(0, 1))
    with pytest.raises(ConfigError, match=r"field span: \(0, 0\)"):
        chart(span=(0, 0))
    with pytest.raises(ConfigError, match=r"field span: \(0, 4\), expected more, within the clock"):
        chart(clock=np.zeros(4))
