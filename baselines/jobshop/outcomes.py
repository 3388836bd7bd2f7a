"""What every job-shop method does at its end: judge the schedule against the trivial bound and report it."""

from __future__ import annotations

import time

import numpy as np

from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule, objectives
from schedrl.schedulers import Result, Status

__all__ = ["load_bound", "makespan", "outcome"]


def load_bound(instance: JobShopInstance) -> int:
    """Return the larger of the longest job and the largest machine load, in the instance's time unit."""
    job = np.zeros(instance.jobs, dtype=np.int64)
    machine = np.zeros(instance.machines, dtype=np.int64)
    np.add.at(job, instance.job, instance.duration)
    np.add.at(machine, instance.machine, instance.duration)
    return int(max(job.max(), machine.max()))


def makespan(instance: JobShopInstance, schedule: Schedule) -> int:
    """Return the end of the last operation."""
    return int(objectives(instance, schedule)["makespan"])


def outcome(
    instance: JobShopInstance,
    schedule: Schedule,
    *,
    started: float,
    decisions: int = 0,
    lower_bound: int | None = None,
) -> Result:
    """Return the result of a feasible schedule; ``started`` is a ``time.perf_counter`` reading.

    The status is optimal when the makespan meets ``lower_bound``, by default the load bound.
    """
    bound = load_bound(instance) if lower_bound is None else lower_bound
    objective = makespan(instance, schedule)
    status: Status = "optimal" if objective <= bound else "feasible"
    return Result(
        solution=schedule,
        objective=float(objective),
        status=status,
        runtime_s=time.perf_counter() - started,
        lower_bound=float(bound),
        decisions=decisions,
    )
