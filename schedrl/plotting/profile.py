"""Performance profiles: the share of instances that a method solves to within each gap.

Dolan and More, "Benchmarking optimization software with performance profiles", 2002, drawn over the gap to a
reference value instead of over the ratio to the best method, so that a curve does not depend on its rivals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from schedrl.arrays import F64
from schedrl.plotting.lines import Line, LineChart

__all__ = ["profile_chart", "profile_shares"]


def profile_shares(gaps: F64, total: int, thresholds: F64) -> F64:
    """Return (T,) the share of ``total`` instances whose gap is at most each threshold.

    ``gaps`` holds one gap per solved instance; an unsolved instance counts in ``total`` only.
    """
    counts: F64 = np.searchsorted(np.sort(gaps), thresholds, side="right").astype(np.float64)
    return counts / max(total, 1)


def profile_chart(gaps: Mapping[str, Sequence[float]], total: int, *, title: str = "Performance profile") -> LineChart:
    """Return the chart of one stepped curve per method over gaps in percent, up to the largest gap of any.

    ``gaps`` maps a method to one gap (a fraction, not percent) per solved instance, ``total`` counts all instances.

    Raises:
        ConfigError: no method at all.
    """
    top = max([0.01, *(gap for values in gaps.values() for gap in values)])
    lines = []
    for method, values in gaps.items():
        points = np.unique(np.concatenate([[0.0, top], np.asarray(values, dtype=np.float64)]))
        points = points[points >= 0]
        shares = profile_shares(np.asarray(values, dtype=np.float64), total, points)
        lines.append(Line(label=method, x=100 * points, y=shares))
    return LineChart(
        title=title,
        x_label="gap to the reference, %",
        y_label="share of instances within the gap",
        lines=tuple(lines),
        stepped=True,
        y_range=(0.0, 1.0),
    )
