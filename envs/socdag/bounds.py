"""Lower bounds on the mean job latency; the cheap one takes microseconds, CP-SAT's comes from its scheduler.

All of them use true durations at the fastest operating point, so that they hold for the schedule as realised under
noise. A job's latency counts from its entry, and work before it only delays it, so the mean over jobs of a bound for
each job alone is a bound. A job may be dropped after its deadline, which then counts as its latency at least: no
job's bound exceeds its deadline.
"""

from __future__ import annotations

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.tables import transfer
from schedrl.families import Bound
from schedrl.kernels import kernel

__all__ = ["bounds", "fast_bound", "optimistic_heads", "optimistic_tails"]


def fast_bound(instance: SocDagInstance) -> float:
    """Return the mean over jobs of the placement-aware critical path, in time units.

    Task t on device p is followed by at least ``E(t, p) = w(t, p) + max_j min_q (c(p, q) + E(j, q))`` over its
    successors j, so a job takes at least ``max_t min_p E(t, p)``.
    """
    duration = _supported(instance, instance.true_duration)
    return _mean(instance, (_tails(instance, duration) + duration).min(axis=1))


def optimistic_tails(instance: SocDagInstance, duration: F64 | None = None) -> F64:
    """Return (N, D) the least time units between the end of a task on a device and the end of its job.

    Each successor may go to its best device, whatever the others need: ``max_j min_q (c(p, q) + E(j, q))``.

    Args:
        instance: the jobs and their platform.
        duration: (N, D) time units, inf where unsupported; the expected ones by default, because true ones are
            hidden from schedulers and policies.
    """
    duration = instance.flat.duration if duration is None else duration
    return _on_devices(instance, _tails(instance, _of_types(instance, duration)))


def optimistic_heads(instance: SocDagInstance, duration: F64 | None = None) -> F64:
    """Return (N, D) the least time units from the entry of a job to the start of a task on a device.

    The mirror image of ``optimistic_tails``, with the same arguments.
    """
    duration = instance.flat.duration if duration is None else duration
    return _on_devices(instance, _heads(instance, _of_types(instance, duration)))


def bounds(instance: SocDagInstance) -> list[Bound]:
    """Return lower bounds on the mean job latency in time units, largest first."""
    duration = _supported(instance, instance.true_duration)
    fastest = np.ascontiguousarray(duration.min(axis=1, keepdims=True))
    chain = _tails(instance, fastest, np.zeros((4, 1, 1)))
    tail = _tails(instance, duration) + duration
    through = _heads(instance, duration) + tail
    each = "mean over jobs of " if instance.jobs > 1 else ""
    found = [
        Bound(
            name="critical-path",
            value=_mean(instance, (chain + fastest)[:, 0]),
            why=f"{each}the longest chain, every task on its fastest device and all transfers free",
        ),
        Bound(
            name="placement-critical-path",
            value=_mean(instance, tail.min(axis=1)),
            why=f"{each}the longest chain, every task on the device that suits it and its transfers best",
        ),
        Bound(
            name="through-task",
            value=_mean(instance, through.min(axis=1)),
            why=f"{each}the longest chain through any one task, whose device is the same before and after it",
        ),
    ]
    if instance.jobs == 1:
        found.append(
            Bound(
                name="area",
                value=_until_deadline(instance, np.array([_area(instance, duration)])),
                why="all work spread over the devices, divisible and free to run at any time (linear program)",
            )
        )
    return sorted(found, key=lambda bound: -bound.value)


def _mean(instance: SocDagInstance, length: F64) -> float:
    """Return the mean over jobs of the largest of (N,) chain lengths in each."""
    return _until_deadline(instance, np.maximum.reduceat(length, instance.job_offset[:-1]))


def _until_deadline(instance: SocDagInstance, latency: F64) -> float:
    assert instance.deadline is not None
    return float(np.minimum(latency, instance.deadline).mean())


def _first_of_type(instance: SocDagInstance) -> I32:
    """Return (P,) one device of each type: all of a type have the same best chains before and after a task."""
    return np.flatnonzero(np.diff(instance.device_type, prepend=-1)).astype(np.int32)


def _of_types(instance: SocDagInstance, duration: F64) -> F64:
    return np.ascontiguousarray(duration[:, _first_of_type(instance)])


def _on_devices(instance: SocDagInstance, values: F64) -> F64:
    return np.ascontiguousarray(values[:, instance.device_type])


def _supported(instance: SocDagInstance, duration: F64) -> F64:
    """Return durations (N, P) by type, inf where a type does not support a task whatever its noise."""
    supported = np.isfinite(_of_types(instance, instance.flat.duration))
    return np.where(supported, _of_types(instance, duration), np.inf)


def _tails(instance: SocDagInstance, duration: F64, links: F64 | None = None) -> F64:
    """Return (N, P) the least time after a task on a device type."""
    links = _type_links(instance) if links is None else links
    flat, tail = instance.flat, np.zeros_like(duration)
    _tail_kernel(
        flat.order,
        flat.successor_offset,
        flat.successor_edge,
        flat.edge,
        flat.edge_bytes,
        duration,
        links,
        instance.whole_units,
        tail,
    )
    return tail


def _heads(instance: SocDagInstance, duration: F64) -> F64:
    """Return (N, P) the least time before a task on a device type."""
    flat, head = instance.flat, np.zeros_like(duration)
    _head_kernel(
        flat.order,
        flat.predecessor_offset,
        flat.predecessor_edge,
        flat.edge,
        flat.edge_bytes,
        duration,
        _type_links(instance),
        instance.whole_units,
        head,
    )
    return head


def _type_links(instance: SocDagInstance) -> F64:
    """Return (4, P, P) link tables between types; staying on a device is never slower than leaving for its like."""
    first = _first_of_type(instance)
    return np.ascontiguousarray(instance.links[:, first[:, None], first[None, :]])


@kernel
def _tail_kernel(
    order: I32,
    offset: I32,
    incident: I32,
    edge: I32,
    size: F64,
    duration: F64,
    links: F64,
    whole_units: bool,
    tail: F64,
) -> None:
    """Fill ``tail`` (N, P) from zeros; ``order`` is topological."""
    types = duration.shape[1]
    for step in range(len(order)):
        t = order[len(order) - 1 - step]
        for k in range(offset[t], offset[t + 1]):
            e = incident[k]
            j = edge[e, 1]
            for p in range(types):
                least = np.inf
                for q in range(types):
                    after = transfer(links, size[e], p, q, whole_units) + duration[j, q] + tail[j, q]
                    least = min(least, after)
                tail[t, p] = max(tail[t, p], least)


@kernel
def _head_kernel(
    order: I32,
    offset: I32,
    incident: I32,
    edge: I32,
    size: F64,
    duration: F64,
    links: F64,
    whole_units: bool,
    head: F64,
) -> None:
    """Fill ``head`` (N, P) from zeros; ``order`` is topological."""
    types = duration.shape[1]
    for t in order:
        for k in range(offset[t], offset[t + 1]):
            e = incident[k]
            i = edge[e, 0]
            for p in range(types):
                least = np.inf
                for q in range(types):
                    before = head[i, q] + duration[i, q] + transfer(links, size[e], q, p, whole_units)
                    least = min(least, before)
                head[t, p] = max(head[t, p], least)


def _area(instance: SocDagInstance, duration: F64) -> float:
    """Return the least makespan of divisible work, ``duration`` (N, P) by type, from the prices of its dual.

    For any prices y >= 0 of a time unit on each device type, with the prices of all devices summing to 1, the
    makespan is at least ``sum_t min_p y_p w(t, p)``: so the value holds whatever the solver's tolerance.
    """
    from ortools.linear_solver import pywraplp

    devices = np.bincount(instance.device_type)
    solver = pywraplp.Solver.CreateSolver("GLOP")
    infinity = solver.infinity()
    price = [solver.NumVar(0.0, infinity, "") for _ in devices]
    scale = float(duration[np.isfinite(duration)].max()) or 1.0
    total = solver.Constraint(1.0, 1.0)
    for variable, count in zip(price, devices.tolist(), strict=True):
        total.SetCoefficient(variable, count)
    objective = solver.Objective()
    objective.SetMaximization()
    # Tasks of one kind have the same row; one variable for all of them keeps the program small.
    rows, repeated = np.unique(duration, axis=0, return_counts=True)
    for row, count in zip(rows.tolist(), repeated.tolist(), strict=True):
        work = solver.NumVar(0.0, infinity, "")
        objective.SetCoefficient(work, count)
        for variable, taken in zip(price, row, strict=True):
            if np.isfinite(taken):
                least = solver.Constraint(0.0, infinity)
                least.SetCoefficient(variable, taken / scale)
                least.SetCoefficient(work, -1.0)
    uniform = np.full(len(devices), 1.0 / len(instance.device_type))
    if solver.Solve() != pywraplp.Solver.OPTIMAL:
        return _priced(duration, uniform)
    found = np.maximum([variable.solution_value() for variable in price], 0.0)
    return max(_priced(duration, uniform), _priced(duration, found / (found @ devices)))


def _priced(duration: F64, price: F64) -> float:
    cost = np.where(np.isfinite(duration), duration, 0.0) * price
    return float(np.where(np.isfinite(duration), cost, np.inf).min(axis=1).sum())
