"""What every SoC DAG method does at its end: judge the schedule against the cheap bound and report it."""

from __future__ import annotations

import time

from schedrl.envs.socdag.bounds import fast_bound
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.solution import DagSchedule, objectives
from schedrl.schedulers import Result, Status

__all__ = ["latency", "outcome"]

# Both sides are sums of rounded numbers, added in another order.
_TOLERANCE = 1e-9


def latency(instance: SocDagInstance, schedule: DagSchedule) -> float:
    """Return the mean time units from a job's entry to its end."""
    return objectives(instance, schedule)["latency"]


def outcome(
    instance: SocDagInstance,
    schedule: DagSchedule,
    *,
    started: float,
    decisions: int = 0,
    lower_bound: float | None = None,
) -> Result:
    """Return the result of a feasible schedule; ``started`` is a ``time.perf_counter`` reading.

    The status is optimal when the latency meets ``lower_bound``, by default the placement-aware critical path.
    """
    bound = fast_bound(instance) if lower_bound is None else lower_bound
    objective = latency(instance, schedule)
    status: Status = "optimal" if objective <= bound * (1.0 + _TOLERANCE) else "feasible"
    return Result(
        solution=schedule,
        objective=objective,
        status=status,
        runtime_s=time.perf_counter() - started,
        lower_bound=bound,
        decisions=decisions,
    )
