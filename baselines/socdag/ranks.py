"""Task priorities of list scheduling, all from expected durations at the fastest operating point.

Mean durations run over the processing elements that support a task, mean transfer times over ordered pairs of
different devices. What a table calls a transfer to another device is that mean; with a shared memory it is due on
the same device too, between the sides of one device never.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from schedrl.arrays import F64, I32, Bool
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.tables import Tables, build_tables, mean_link
from schedrl.kernels import kernel

__all__ = [
    "best_imaginary_level",
    "downward_rank",
    "mean_duration",
    "median_duration",
    "of_tasks",
    "optimistic_cost_table",
    "sequence_by",
    "static_level",
    "upward_rank",
]

_Number = TypeVar("_Number", bound=np.generic)


def upward_rank(instance: SocDagInstance) -> F64:
    """Return (N,) rank_u in time units (Topcuoglu, Hariri and Wu 2002).

    The mean duration of a task plus the longest mean path behind it, transfers included.
    """
    return of_tasks(instance, build_tables(instance).upward_rank)


def downward_rank(instance: SocDagInstance) -> F64:
    """Return (N,) rank_d in time units (Topcuoglu, Hariri and Wu 2002): the longest mean path before a task."""
    return of_tasks(instance, build_tables(instance).downward_rank)


def mean_duration(instance: SocDagInstance) -> F64:
    """Return (N,) mean time units over the processing elements that support a task."""
    return of_tasks(instance, build_tables(instance).mean_duration)


def static_level(instance: SocDagInstance) -> F64:
    """Return (N,) static levels in time units: the longest path of median durations from a task, included, to an exit.

    Transfers do not count (Sih and Lee 1993).
    """
    tables = build_tables(instance)
    level = np.zeros(len(tables.duration))
    order = _order(instance, tables)
    _level_kernel(order, _median(tables.duration), tables.successor_offset, tables.successor, level)
    return of_tasks(instance, level)


def median_duration(instance: SocDagInstance) -> F64:
    """Return (N,) median time units over the processing elements that support a task."""
    return of_tasks(instance, _median(build_tables(instance).duration))


def optimistic_cost_table(instance: SocDagInstance) -> F64:
    """Return (N, D) PEFT's OCT in time units (Arabnejad and Barbosa 2014).

    ``OCT(t, p)``, 0 for exit tasks, is the longest over the successors j of the shortest over devices q of
    ``OCT(j, q) + w(j, q) +`` the mean transfer time if q is another device than p.
    """
    return _device_levels(instance, with_own=False)


def best_imaginary_level(instance: SocDagInstance) -> F64:
    """Return (N, D) BIL in time units (Oh and Ha 1996), inf where a device does not support a task.

    ``BIL(t, p)`` is ``w(t, p)`` plus the longest over the successors j of the smaller of ``BIL(j, p)`` and the
    least ``BIL(j, q)`` on another device plus the mean transfer time.
    """
    return _device_levels(instance, with_own=True)


def sequence_by(instance: SocDagInstance, priority: F64) -> I32:
    """Return (N,) the position of every task when sorted by falling priority within its job.

    Priorities within a billionth of the job's largest are equal, because they are sums of rounded means; ties go
    to the task that stands first in breadth-first topological order: entry tasks by number, then tasks in the order
    in which their last predecessor leaves this queue, those of one predecessor in the order of the edge list.
    """
    flat = instance.flat
    largest = np.maximum.reduceat(np.abs(priority), instance.job_offset[:-1])
    quantum = np.where(largest > 0, largest, 1.0) * 1e-9
    coarse = np.round(priority / quantum[flat.job])
    position = np.empty(instance.tasks, np.int32)
    position[np.lexsort((_breadth_first(instance), -coarse, flat.job))] = np.arange(instance.tasks, dtype=np.int32)
    return position


def of_tasks(instance: SocDagInstance, rows: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """Return (N, ...) the values of all jobs' tasks, given (T, ...) those of the stacked job templates' tasks."""
    start = np.cumsum([0, *(graph.tasks for graph in instance.graphs)])
    shift = start[instance.job_graph] - instance.job_offset[:-1]
    values: npt.NDArray[_Number] = rows[np.arange(instance.tasks) + shift[instance.flat.job]]
    return values


def _breadth_first(instance: SocDagInstance) -> I32:
    """Return (N,) positions that order each job's tasks breadth first."""
    tables = build_tables(instance)
    rows = len(tables.duration)
    queue, place = np.empty(rows, np.int32), np.empty(rows, np.int32)
    missing = np.diff(tables.predecessor_offset).astype(np.int32)
    _breadth_kernel(missing, tables.successor_offset, tables.successor, queue, place)
    return of_tasks(instance, place)


def _order(instance: SocDagInstance, tables: Tables) -> I32:
    parts = [g.topological_order + start for g, start in zip(instance.graphs, tables.graph_offset, strict=False)]
    return np.concatenate(parts).astype(np.int32)


def _median(duration: F64) -> F64:
    with np.errstate(invalid="ignore"):
        median: F64 = np.nanmedian(np.where(np.isfinite(duration), duration, np.nan), axis=1)
    return median


def _device_levels(instance: SocDagInstance, *, with_own: bool) -> F64:
    tables = build_tables(instance)
    latency, per_byte = mean_link(instance)
    cost = np.where(tables.successor_bytes > 0, latency + tables.successor_bytes * per_byte, 0.0)
    unit = instance.device_unit
    apart = unit[:, None] != unit[None, :]
    if instance.platform.memory is not None:
        apart = np.ones_like(apart)
    duration = np.ascontiguousarray(tables.duration)
    level = np.zeros(duration.shape)
    order = _order(instance, tables)
    _device_kernel(order, duration, apart, tables.successor_offset, tables.successor, cost, level, with_own)
    return of_tasks(instance, level)


@kernel
def _breadth_kernel(missing: I32, offset: I32, successor: I32, queue: I32, place: I32) -> None:
    """Fill positions; templates share the queue, which leaves the order within each as it is."""
    count = 0
    for t in range(len(missing)):
        if missing[t] == 0:
            queue[count] = t
            count += 1
    done = 0
    while done < count:
        t = queue[done]
        place[t] = done
        done += 1
        for e in range(offset[t], offset[t + 1]):
            missing[successor[e]] -= 1
            if missing[successor[e]] == 0:
                queue[count] = successor[e]
                count += 1


@kernel
def _level_kernel(order: I32, duration: F64, offset: I32, successor: I32, level: F64) -> None:
    for k in range(len(order) - 1, -1, -1):
        t = order[k]
        longest = 0.0
        for e in range(offset[t], offset[t + 1]):
            longest = max(longest, level[successor[e]])
        level[t] = duration[t] + longest


@kernel
def _device_kernel(
    order: I32, duration: F64, apart: Bool, offset: I32, successor: I32, cost: F64, level: F64, with_own: bool
) -> None:
    """Fill OCT, or BIL if a level includes its task's own duration."""
    devices = duration.shape[1]
    for k in range(len(order) - 1, -1, -1):
        t = order[k]
        for p in range(devices):
            longest = 0.0
            for e in range(offset[t], offset[t + 1]):
                j = successor[e]
                shortest = np.inf
                for q in range(devices):
                    behind = level[j, q] if with_own else level[j, q] + duration[j, q]
                    shortest = min(shortest, behind + cost[e] if apart[p, q] else behind)
                longest = max(longest, shortest)
            level[t, p] = longest + duration[t, p] if with_own else longest
