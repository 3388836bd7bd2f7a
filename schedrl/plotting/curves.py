"""Learning curves from the CSV files that training runs write."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from schedrl.errors import ConfigError
from schedrl.plotting.lines import Line, LineChart

__all__ = ["curve_chart", "read_curve"]

_AXIS_TITLES = {"seconds": "training time, s", "gap": "validation gap"}


def read_curve(path: Path, *, x: str = "decisions", y: str = "gap", label: str | None = None) -> Line:
    """Read two columns of a run's CSV as a line; rows where either is blank are skipped.

    The legend text defaults to the name of the run's folder. A last line without its newline is ignored,
    because a running or killed training may not have finished it.

    Raises:
        ConfigError: no such file or column, no complete row, or a value that is not a number.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the learning curve: {error.strerror}") from None
    rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    for column in (x, y):
        if column not in (rows.fieldnames or ()):
            raise ConfigError(f"{path}:1: no column {column!r}; expected one of {', '.join(rows.fieldnames or ())}")
    points: list[tuple[float, float]] = []
    for row in rows:
        if row[x] and row[y]:
            try:
                points.append((float(row[x]), float(row[y])))
            except ValueError:
                raise ConfigError(f"{path}:{rows.line_num}: field {x} or {y}: not a number") from None
    if not points:
        raise ConfigError(f"{path}: no row with both {x!r} and {y!r}")
    xs, ys = np.array(points, dtype=np.float64).T
    return Line(label=label or path.resolve().parent.name, x=xs, y=ys)


def curve_chart(
    runs: Mapping[str, Path], *, x: str = "decisions", y: str = "gap", title: str = "Learning curve"
) -> LineChart:
    """Return one line per run; ``runs`` maps a legend text to the run's CSV.

    Raises:
        ConfigError: no run, or a run whose CSV ``read_curve`` refuses.
    """
    return LineChart(
        title=title,
        x_label=_AXIS_TITLES.get(x, x),
        y_label=_AXIS_TITLES.get(y, y),
        lines=tuple(read_curve(path, x=x, y=y, label=label) for label, path in runs.items()),
    )
