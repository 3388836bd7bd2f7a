from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from schedrl.errors import ConfigError
from schedrl.plotting.lines import Line, LineChart, line_size
from schedrl.plotting.panels import PanelChart, panel_svg, save_panels

SVG = "{http://www.w3.org/2000/svg}"


def panel(title: str, lines: int) -> LineChart:
    x = np.array([0.0, 1.0])
    return LineChart(
        title=title, x_label="x", y_label="y", lines=tuple(Line(label=str(k), x=x, y=x + k) for k in range(lines))
    )


CHART = PanelChart(title="A & B", panels=(panel("first", 5), panel("second", 1)))


def test_panels_stand_below_one_another() -> None:
    root = ElementTree.fromstring(panel_svg(CHART))
    first, second = root.findall(f"{SVG}svg")
    # 300 units, 18 per row of two legend entries and 6 below.
    assert [line_size(chart)[1] for chart in CHART.panels] == [360, 324]
    assert (float(first.attrib["y"]), float(second.attrib["y"])) == (0, 370)
    assert root.attrib["viewBox"] == "0 0 720 694"
    assert [inner.attrib["viewBox"] for inner in root.findall(f"{SVG}svg/{SVG}svg")] == ["0 0 720 360", "0 0 720 324"]


@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<svg"), (".png", b"\x89PNG"), (".html", b"<!doctype")])
def test_files_are_written_by_suffix(tmp_path: Path, suffix: str, start: bytes) -> None:
    if suffix == ".png":
        pytest.importorskip("matplotlib")
    save_panels(CHART, tmp_path / f"p{suffix}")
    assert (tmp_path / f"p{suffix}").read_bytes().startswith(start)


def test_no_panel_is_refused() -> None:
    with pytest.raises(ConfigError, match="field panels: empty"):
        PanelChart(title="T", panels=())
