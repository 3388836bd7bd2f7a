"""Empirical distributions: the share of a sample at or below each value."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from schedrl.arrays import F64
from schedrl.plotting.lines import Line, LineChart
from schedrl.plotting.profile import profile_shares

__all__ = ["distribution_chart"]

# More steps than this cannot be told apart at the width of a page.
_MOST_STEPS = 500


def distribution_chart(
    samples: Mapping[str, F64], *, x_label: str, y_label: str = "share", title: str = "Distribution"
) -> LineChart:
    """Return one stepped curve per sample; ``samples`` maps a legend text to (S,) finite values.

    A sample of more than 500 distinct values is drawn at 501 evenly spaced quantiles.

    Raises:
        ConfigError: no sample, or an empty one.
    """
    drawn = {label: np.asarray(values, dtype=np.float64) for label, values in samples.items()}
    filled = [values for values in drawn.values() if len(values)]
    low, high = (min(v.min() for v in filled), max(v.max() for v in filled)) if filled else (0.0, 0.0)
    lines = []
    for label, values in drawn.items():
        points = np.unique(values)
        if len(points) > _MOST_STEPS:
            points = np.quantile(values, np.linspace(0.0, 1.0, _MOST_STEPS + 1))
        shares = profile_shares(values, len(values), points)
        # Every curve runs from the lowest value of all, at share 0, to the highest, at share 1.
        x = np.concatenate([[low], points, [high]]) if len(values) else points
        y = np.concatenate([[0.0], shares, [1.0]]) if len(values) else shares
        lines.append(Line(label=label, x=x, y=y))
    return LineChart(
        title=title, x_label=x_label, y_label=y_label, lines=tuple(lines), stepped=True, y_range=(0.0, 1.0)
    )
