"""The primal integral of Berthold (2013): how good a search's best solution was, on average over its time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from schedrl.errors import ConfigError

__all__ = ["primal_gap", "primal_integral"]


def primal_gap(objective: float, reference: float) -> float:
    """Return the gap in [0, 1] between an objective and the best known one, for minimisation or maximisation.

    ``|objective - reference| / max(|objective|, |reference|)``; 0 when both are 0, 1 when their signs differ or the
    objective is not finite (Berthold 2013, section 2).
    """
    if objective == reference:
        return 0.0
    if not math.isfinite(objective) or objective * reference < 0:
        return 1.0
    return abs(objective - reference) / max(abs(objective), abs(reference))


def primal_integral(trace: Sequence[tuple[float, float]], *, reference: float, until: float) -> float:
    """Return the mean primal gap over the time from 0 to ``until``, between 0 and 1.

    Berthold's integral divided by the length of its interval, so that limits compare. The gap is 1 before the first
    solution.

    Args:
        trace: (seconds, objective) of each incumbent, in order of time; those after ``until`` do not count.
        reference: the optimal or best known objective.
        until: seconds.

    Raises:
        ConfigError: ``until`` is not positive and finite, or the trace runs backwards or begins before 0.
    """
    if not (until > 0.0 and math.isfinite(until)):
        raise ConfigError(f"option until: {until}, expected a positive number of seconds")
    area, gap, since = 0.0, 1.0, 0.0
    for second, objective in trace:
        if not second >= since:
            raise ConfigError(f"trace: {second} s follows {since} s, expected times in order from 0 s")
        if second >= until:
            break
        area += gap * (second - since)
        gap, since = primal_gap(objective, reference), second
    return (area + gap * (until - since)) / until
