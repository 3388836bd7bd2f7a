from __future__ import annotations

from pathlib import Path

import pytest

from schedrl.errors import ConfigError
from schedrl.plotting.curves import curve_chart, read_curve

CSV = "decisions,seconds,gap,loss\n0,0.0,0.4,\n100,1.5,,0.3\n200,3.0,0.25,0.2\n"


def test_blank_values_and_an_unfinished_last_line_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "first-run" / "curve.csv"
    path.parent.mkdir()
    path.write_text(CSV + "300,4.5,0.1")
    line = read_curve(path)
    assert (line.label, line.x.tolist(), line.y.tolist()) == ("first-run", [0, 200], [0.4, 0.25])
    assert read_curve(path, x="seconds", y="loss").x.tolist() == [1.5, 3.0]


def test_several_runs_share_one_chart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(CSV)
    chart = curve_chart({"first": tmp_path / "one", "second": tmp_path / "two"}, x="seconds")
    assert [line.label for line in chart.lines] == ["first", "second"]
    assert (chart.x_label, chart.y_label) == ("training time, s", "validation gap")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("decisions,loss\n1,2\n", "curve.csv:1: no column 'gap'; expected one of decisions, loss"),
        ("decisions,gap\n1,low\n", "curve.csv:2: field decisions or gap: not a number"),
        ("decisions,gap\n1,\n", "curve.csv: no row with both"),
        ("", "curve.csv:1: no column 'decisions'"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "curve.csv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_curve(tmp_path / "curve.csv")
    with pytest.raises(ConfigError, match="cannot read the learning curve"):
        read_curve(tmp_path / "absent.csv")
