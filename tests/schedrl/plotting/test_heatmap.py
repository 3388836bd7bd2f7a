from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedrl.errors import ConfigError
from schedrl.plotting.heatmap import Heatmap, HeatmapChart, heatmap_svg, save_heatmap, scale_colour

SVG = "{http://www.w3.org/2000/svg}"
CHART = HeatmapChart(
    title="A & B",
    panels=(
        Heatmap(title="left", values=np.array([[0.0, 1.0, 1.0], [2.0, np.nan, 4.0]])),
        Heatmap(title="right", values=np.ones((2, 3))),
    ),
    x_label="device",
    y_label="layer",
    value_label="load",
    breaks=(2,),
)


def cells(svg: str, panel: int) -> dict[str, str]:
    """Return the path of cells by colour."""
    root = ElementTree.fromstring(svg)
    groups = [group for group in root.iter(f"{SVG}g") if group.find(f"{SVG}path[@fill]") is not None]
    return {path.attrib["fill"]: path.attrib["d"] for path in groups[panel].iter(f"{SVG}path")}


def test_panels_share_one_scale() -> None:
    assert CHART.scale == (0.0, 4.0)
    assert CHART.fractions(np.array([0.0, 1.0, 4.0])).tolist() == [0, 0.25, 1]
    assert replace(CHART, gamma=0.5).fractions(np.array([0.0, 1.0, 4.0])).tolist() == [0, 0.5, 1]
    left, right = (cells(heatmap_svg(CHART), panel) for panel in (0, 1))
    assert set(left) == {"#F3F4F5", *(scale_colour(place) for place in (0, 0.25, 0.5, 1))}
    assert set(right) == {scale_colour(0.25)}
    # Two neighbours of one value are one box; each row of the other panel is one.
    assert left[scale_colour(0.25)].count("M") == 1
    assert right[scale_colour(0.25)].count("M") == 2


def test_a_centre_is_in_the_middle_of_the_scale() -> None:
    centred = replace(CHART, centre=1.0)
    assert centred.fractions(np.array([0.0, 0.5, 1.0, 2.5, 4.0])).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert scale_colour(0.5, diverging=True) in cells(heatmap_svg(centred), 1)
    texts = [text.text for text in ElementTree.fromstring(heatmap_svg(centred)).iter(f"{SVG}text")]
    assert {"A & B", "left", "right", "device", "layer", "load", "0", "1", "4"} <= set(texts)


def test_equal_values_have_a_scale() -> None:
    assert replace(CHART, panels=CHART.panels[1:]).scale == (1.0, 2.0)
    blank = replace(CHART, panels=(Heatmap(title="blank", values=np.full((2, 3), np.nan)),))
    assert blank.scale == (0.0, 1.0)
    assert set(cells(heatmap_svg(blank), 0)) == {"#F3F4F5"}


def test_thousands_of_cells_stay_small() -> None:
    values = np.random.default_rng(0).random((58, 32))
    svg = heatmap_svg(replace(CHART, panels=(Heatmap(title="", values=values),), breaks=()))
    assert len(svg) < 80_000


@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<svg"), (".png", b"\x89PNG"), (".html", b"<!doctype")])
def test_files_are_written_by_suffix(tmp_path: Path, suffix: str, start: bytes) -> None:
    if suffix == ".png":
        pytest.importorskip("matplotlib")
    for chart in (CHART, replace(CHART, centre=1.0, rows=("a", "b"), panels=CHART.panels[:1])):
        save_heatmap(chart, tmp_path / f"h{suffix}")
        assert (tmp_path / f"h{suffix}").read_bytes().startswith(start)
    with pytest.raises(ConfigError, match=r"'.pdf' is not a picture format"):
        save_heatmap(CHART, tmp_path / "h.pdf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"panels": ()}, "heatmap 'A & B': field panels: empty, expected at least one"),
        ({"panels": (*CHART.panels, Heatmap(title="", values=np.ones((1, 3))))}, r"shapes \[\(1, 3\), \(2, 3\)\]"),
        ({"panels": (Heatmap(title="", values=np.ones((0, 3))),)}, "expected one of rows and columns"),
        ({"rows": ("a",)}, "field rows: 1 names for 2 rows"),
        ({"gamma": 0.0}, "field gamma: 0.0, expected a positive number"),
    ],
)
def test_bad_charts_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(CHART, **change)
