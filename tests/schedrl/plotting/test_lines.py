from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from schedrl.errors import ConfigError
from schedrl.plotting.lines import Line, LineChart, line_svg, save_lines


def chart(*, stepped: bool = False, count: int = 2) -> LineChart:
    lines = tuple(
        Line(label=f"run <{k}>", x=np.array([0.0, 1.0, 2.0]), y=np.array([0.0, 1.0, 0.5]) + k) for k in range(count)
    )
    return LineChart(title="T", x_label="x", y_label="y", lines=lines, stepped=stepped)


def curves(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    paths = (path for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("fill") == "none")
    return [path.attrib["d"] for path in paths][::2]  # every curve is followed by its legend stroke


def test_points_fill_the_axes() -> None:
    first, second = curves(line_svg(chart()))
    # 58 to 706 across and 256 up to 34, for x in [0, 2] and y in [0, 2].
    assert first == "M58.0 256.0L382.0 145.0L706.0 200.5"
    assert second == "M58.0 145.0L382.0 34.0L706.0 89.5"


def test_stepped_lines_hold_their_value() -> None:
    assert curves(line_svg(chart(stepped=True)))[0] == "M58.0 256.0H382.0V145.0H706.0V200.5"


def test_lines_beyond_the_seven_hues_are_dashed() -> None:
    assert line_svg(chart(count=7)).count("stroke-dasharray") == 0
    assert line_svg(chart(count=8)).count("stroke-dasharray") == 2  # the curve and its legend


def test_stacked_areas_add_up_and_the_top_one_is_drawn_first() -> None:
    x = np.array([0.0, 1.0, 2.0])
    lines = (Line(label="low", x=x, y=np.array([1.0, 2.0, 2.0])), Line(label="high", x=x, y=np.array([1.0, 0.0, 0.0])))
    stacked = LineChart(title="T", x_label="x", y_label="y", lines=lines, stepped=True, stacked=True)
    assert [height.tolist() for height in stacked.heights] == [[1, 2, 2], [2, 2, 2]]
    assert stacked.ranges == (0.0, 2.0, 0.0, 2.0)
    root = ElementTree.fromstring(line_svg(stacked))
    areas = [
        path.attrib["d"] for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("fill", "")[:1] == "#"
    ]
    assert areas == [
        "M58.0 34.0H382.0V34.0H706.0V34.0V256H58.0Z",
        "M58.0 145.0H382.0V34.0H706.0V34.0V256H58.0Z",
    ]
    with pytest.raises(ConfigError, match="line 'high': stacked lines need the same x values"):
        LineChart(
            title="T",
            x_label="x",
            y_label="y",
            lines=(lines[0], Line(label="high", x=x + 1, y=x)),
            stacked=True,
        )


@pytest.mark.parametrize("suffix", [".svg", ".png", ".html"])
@pytest.mark.parametrize("stacked", [False, True])
def test_files_are_written_by_suffix(tmp_path: Path, suffix: str, stacked: bool) -> None:
    if suffix == ".png":
        pytest.importorskip("matplotlib")
    save_lines(replace(chart(stepped=True), stacked=stacked), tmp_path / f"c{suffix}")
    start = {".svg": b"<svg", ".png": b"\x89PNG", ".html": b"<!do"}
    assert (tmp_path / f"c{suffix}").read_bytes()[:4] == start[suffix]
    with pytest.raises(ConfigError, match=r"suffix '.gif' is not a picture format"):
        save_lines(chart(), tmp_path / "c.gif")


def test_unequal_lengths_are_refused() -> None:
    line = Line(label="odd", x=np.zeros(2), y=np.zeros(3))
    with pytest.raises(ConfigError, match="line 'odd': 2 x and 3 y values"):
        LineChart(title="T", x_label="x", y_label="y", lines=(line,))
