"""Lower bounds on the makespan that take microseconds to milliseconds; CP-SAT's comes from its scheduler."""

from __future__ import annotations

import heapq

import numpy as np
from numba import njit

from schedrl.arrays import I64
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.families import Bound

__all__ = ["bounds", "heads_and_tails"]


def bounds(instance: JobShopInstance) -> list[Bound]:
    """Return three lower bounds on the makespan; the last is at least as large as the other two.

    They relax ever less: one job alone; one machine that works without a break between the shortest time
    before and the shortest time after its operations; one machine whose operations become available, may be
    interrupted, and have to be followed by the rest of their jobs.
    """
    head, tail = heads_and_tails(instance)
    length = head + instance.duration + tail
    longest = int(length.argmax())
    # A machine's operations in order of availability, which Jackson's schedule needs and the load allows.
    order = np.lexsort((head, instance.machine))
    machine, duration = instance.machine[order], instance.duration[order]
    start = np.flatnonzero(np.diff(machine, prepend=-1))
    load = (
        np.minimum.reduceat(head[order], start)
        + np.add.reduceat(duration, start)
        + np.minimum.reduceat(tail[order], start)
    )
    busiest = int(load.argmax())
    preemptive = _preemptive_bounds(np.append(start, len(order)), head[order], duration, tail[order])
    hardest = int(preemptive.argmax())
    return [
        Bound(
            name="longest-job",
            value=float(length[longest]),
            why=f"job {instance.job[longest]} alone takes this long",
        ),
        Bound(
            name="machine-load",
            value=float(load[busiest]),
            why=f"shortest head, total work and shortest tail of machine {machine[start[busiest]]} (Taillard 1993)",
        ),
        Bound(
            name="one-machine-preemptive",
            value=float(preemptive[hardest]),
            why=f"optimal preemptive schedule of machine {machine[start[hardest]]} with heads and tails, by Jackson's "
            "rule (Carlier, EJOR 11 (1982) 42-47)",
        ),
    ]


def heads_and_tails(instance: JobShopInstance) -> tuple[I64, I64]:
    """Return (N,) work before and (N,) work after each operation in its job."""
    before = np.concatenate([[0], np.cumsum(instance.duration)])
    first, last = instance.job_offset[instance.job], instance.job_offset[instance.job + 1]
    position = np.arange(instance.operations)
    return before[position] - before[first], before[last] - before[position + 1]


@njit(cache=True)
def _preemptive_bounds(start: I64, head: I64, duration: I64, tail: I64) -> I64:
    """Return for each machine the largest end plus tail in Jackson's preemptive schedule.

    Machine i owns operations ``start[i]:start[i + 1]``, ordered by head. At any time the available operation
    with the longest tail runs.
    """
    remaining = duration.copy()
    best = np.zeros(len(start) - 1, dtype=np.int64)
    for machine in range(len(start) - 1):
        coming, stop = start[machine], start[machine + 1]
        now = head[coming]
        # Negated tails, because the heap yields its smallest.
        available = [(-tail[coming], coming)]
        coming += 1
        while available or coming < stop:
            if not available:
                now = max(now, head[coming])
            while coming < stop and head[coming] <= now:
                heapq.heappush(available, (-tail[coming], coming))
                coming += 1
            running = available[0][1]
            step = remaining[running]
            if coming < stop:
                step = min(step, head[coming] - now)
            now += step
            remaining[running] -= step
            if remaining[running] == 0:
                heapq.heappop(available)
                best[machine] = max(best[machine], now + tail[running])
    return best
