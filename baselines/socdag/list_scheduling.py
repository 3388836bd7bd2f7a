"""List scheduling: the kernels that place one task after another, and the state they share.

Jobs are planned one after another in order of entry, each completely when it enters: later jobs may use gaps that
earlier ones left, but nothing moves. A job's entry follows from the planned departures of the jobs before it. Under
link contention the inputs of a placed task are appended to the queues of their links in the order of the edge list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.baselines.socdag.execution import execute
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.solution import DagSchedule
from schedrl.envs.socdag.tables import transfer
from schedrl.kernels import inlined, inner, inner_inlined, kernel

__all__ = [
    "Plan",
    "State",
    "begin_job",
    "data_ready",
    "earliest_start",
    "end_job",
    "follow",
    "new_plan",
    "new_state",
    "place",
    "ready_tasks",
    "settle",
    "take",
    "take_first",
    "withdraw",
]

_PLACED, _READY = 0, 1


class State(NamedTuple):
    """An instance with expected durations, and the plan so far."""

    job_offset: I32  # (J + 1,)
    release: F64  # (J,)
    duration: F64  # (N, D) inf where unsupported
    source: I32  # (E,)
    target: I32  # (E,)
    size: F64  # (E,) bytes
    predecessor_offset: I32  # (N + 1,)
    predecessor_edge: I32  # (E,)
    successor_offset: I32  # (N + 1,)
    successor_edge: I32  # (E,)
    links: F64  # (4, D, D)
    unit: I32  # (D,) physical device
    whole_units: bool
    contention: bool
    insertion: bool  # whether a task may go into a gap between others, or only behind all of them
    admission_cap: int
    device: I32  # (N,) -1 until placed
    point: I32  # (N,) operating point
    start: F64  # (N,)
    end: F64  # (N,)
    transfer: F64  # (E,)
    entry: F64  # (J,)
    placed: I32  # (N,) tasks in the order of placement
    counts: I32  # (2,) of placed and of ready tasks
    slot: I32  # (D, N) tasks of each device by start, then end
    slots: I32  # (D,)
    link_free: F64  # (D, D) by physical devices
    trial_free: F64  # (D,) when the links to one device are free while its inputs are tried
    ready: I32  # (N,) tasks of the job at hand whose predecessors are placed
    missing: I32  # (N,) predecessors not placed yet
    latest: F64  # (admission_cap,) rising: the latest departures so far


def new_state(instance: SocDagInstance, *, insertion: bool) -> State:
    """Return the state of an instance before anything is placed."""
    flat, tasks, devices = instance.flat, instance.tasks, instance.devices
    edges = len(flat.edge)
    return State(
        job_offset=instance.job_offset,
        release=instance.release_time,
        duration=np.ascontiguousarray(flat.duration),
        source=np.ascontiguousarray(flat.edge[:, 0]),
        target=np.ascontiguousarray(flat.edge[:, 1]),
        size=flat.edge_bytes,
        predecessor_offset=flat.predecessor_offset,
        predecessor_edge=flat.predecessor_edge,
        successor_offset=flat.successor_offset,
        successor_edge=flat.successor_edge,
        links=instance.links,
        unit=instance.device_unit,
        whole_units=instance.whole_units,
        contention=instance.communication == "contention",
        insertion=insertion,
        admission_cap=instance.admission_cap,
        device=np.full(tasks, -1, np.int32),
        point=np.zeros(tasks, np.int32),
        start=np.zeros(tasks),
        end=np.zeros(tasks),
        transfer=np.zeros(edges),
        entry=np.zeros(instance.jobs),
        placed=np.zeros(tasks, np.int32),
        counts=np.zeros(2, np.int32),
        slot=np.empty((devices, tasks), np.int32),
        slots=np.zeros(devices, np.int32),
        link_free=np.zeros((devices, devices)),
        trial_free=np.zeros(devices),
        ready=np.empty(tasks, np.int32),
        missing=np.diff(flat.predecessor_offset).astype(np.int32),
        latest=np.full(max(instance.admission_cap, 1), -np.inf),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """A complete plan under expected durations, in time units."""

    device: I32  # (N,)
    point: I32  # (N,) operating point
    start: F64  # (N,)
    end: F64  # (N,)
    entry: F64  # (J,)
    transfer: F64  # (E,) start of each transfer
    order: I32  # (N,) by start, then end, then placement: sources before their targets
    transfer_order: I32  # (E,) as links serve them
    latency: float  # mean over jobs from entry to end


def new_plan(instance: SocDagInstance, state: State) -> Plan:
    """Return the plan in a state in which all tasks are placed."""
    position = np.empty(instance.tasks, np.int32)
    position[state.placed] = np.arange(instance.tasks, dtype=np.int32)
    last = np.maximum.reduceat(state.end, instance.job_offset[:-1])
    return Plan(
        device=state.device,
        point=state.point,
        start=state.start,
        end=state.end,
        entry=state.entry,
        transfer=state.transfer,
        order=np.lexsort((position, state.end, state.start)).astype(np.int32),
        transfer_order=np.argsort(position[state.target], kind="stable").astype(np.int32),
        latency=float((last - state.entry).mean()),
    )


def follow(instance: SocDagInstance, plan: Plan) -> DagSchedule:
    """Return what happens when a plan is executed; without noise that is the plan itself."""
    if instance.noise_sigma:
        return execute(instance, plan.device, plan.order, point=plan.point, transfer_order=plan.transfer_order)
    contention = instance.communication == "contention"
    return DagSchedule(
        device=plan.device,
        start=plan.start,
        entry=plan.entry,
        point=plan.point,
        transfer=plan.transfer if contention else None,
    )


@kernel
def begin_job(state: State, j: int) -> None:
    """Fix when a job enters and make its first tasks ready."""
    time = state.release[j]
    if state.admission_cap > 0 and j > 0:
        # With fewer jobs than the limit so far, the least of the latest departures is still minus infinity.
        time = max(state.entry[j - 1] + (state.release[j] - state.release[j - 1]), state.latest[0])
    state.entry[j] = time
    state.counts[_READY] = 0
    for t in range(state.job_offset[j], state.job_offset[j + 1]):
        if state.missing[t] == 0:
            _make_ready(state, t)


@inner
def end_job(state: State, j: int) -> None:
    """Note when a job departs, once all of its tasks are placed."""
    if state.admission_cap == 0:
        return
    departure = state.end[state.job_offset[j]]
    for t in range(state.job_offset[j], state.job_offset[j + 1]):
        departure = max(departure, state.end[t])
    if departure <= state.latest[0]:
        return
    k = 1
    while k < len(state.latest) and state.latest[k] < departure:
        state.latest[k - 1] = state.latest[k]
        k += 1
    state.latest[k - 1] = departure


@inner_inlined
def _make_ready(state: State, t: int) -> None:
    state.ready[state.counts[_READY]] = t
    state.counts[_READY] += 1


@kernel
def take_first(state: State, position: I32) -> int:
    """Remove and return the ready task that stands first in a sequence."""
    best = 0
    for k in range(1, state.counts[_READY]):
        if position[state.ready[k]] < position[state.ready[best]]:
            best = k
    return take(state, best)


@kernel
def take(state: State, k: int) -> int:
    """Remove and return the ready task in slot ``k``."""
    t = int(state.ready[k])
    state.counts[_READY] -= 1
    state.ready[k] = state.ready[state.counts[_READY]]
    return t


@inlined
def ready_tasks(state: State) -> int:
    """Return how many tasks are ready."""
    return int(state.counts[_READY])


@kernel
def data_ready(state: State, t: int, q: int, entry: float) -> float:
    """Return when the inputs of a task have arrived at device ``q``, as far as its predecessors are placed."""
    time = entry
    to = state.unit[q]
    begin, stop = state.predecessor_offset[t], state.predecessor_offset[t + 1]
    if state.contention:
        for k in range(begin, stop):
            p = state.device[state.source[state.predecessor_edge[k]]]
            if p >= 0:
                state.trial_free[state.unit[p]] = state.link_free[state.unit[p], to]
    for k in range(begin, stop):
        edge = state.predecessor_edge[k]
        p = state.device[state.source[edge]]
        if p < 0:
            continue
        arrival = state.end[state.source[edge]]
        cost = transfer(state.links, state.size[edge], p, q, state.whole_units)
        if state.contention and cost > 0.0:
            arrival = max(arrival, state.trial_free[state.unit[p]])
            state.trial_free[state.unit[p]] = arrival + cost
        time = max(time, arrival + cost)
    return time


@kernel
def earliest_start(state: State, q: int, ready: float, duration: float) -> float:
    """Return when device ``q`` can begin a task that is ready at ``ready``, in a gap or at the end of its plan."""
    count = state.slots[q]
    if not state.insertion:
        return max(ready, state.end[state.slot[q, count - 1]]) if count > 0 else ready
    low, high = 0, count  # the first task that ends after ``ready``
    while low < high:
        middle = (low + high) // 2
        if state.end[state.slot[q, middle]] > ready:
            high = middle
        else:
            low = middle + 1
    time = ready
    for k in range(low, count):
        other = state.slot[q, k]
        if time + duration <= state.start[other]:
            return time
        time = max(time, state.end[other])
    return time


@kernel
def place(state: State, t: int, q: int, start: float, duration: float) -> None:
    """Put a task on a device, reserve the links that its inputs take, and make ready what only waited for it."""
    settle(state, t, q, start, duration)
    state.placed[state.counts[_PLACED]] = t
    state.counts[_PLACED] += 1
    for k in range(state.successor_offset[t], state.successor_offset[t + 1]):
        successor = state.target[state.successor_edge[k]]
        state.missing[successor] -= 1
        if state.missing[successor] == 0:
            _make_ready(state, successor)


@kernel
def settle(state: State, t: int, q: int, start: float, duration: float) -> None:
    """Put a task on a device and reserve the links that its inputs take; ``withdraw`` takes the task back."""
    for k in range(state.predecessor_offset[t], state.predecessor_offset[t + 1]):
        edge = state.predecessor_edge[k]
        p = state.device[state.source[edge]]
        if p < 0:
            continue
        state.transfer[edge] = state.end[state.source[edge]]
        if state.contention:
            cost = transfer(state.links, state.size[edge], p, q, state.whole_units)
            if cost > 0.0:
                u, v = state.unit[p], state.unit[q]
                state.transfer[edge] = max(state.transfer[edge], state.link_free[u, v])
                state.link_free[u, v] = state.transfer[edge] + cost
    end = start + duration
    state.device[t], state.start[t], state.end[t] = q, start, end
    k = state.slots[q]
    while k > 0:
        other = state.slot[q, k - 1]
        if state.start[other] < start or (state.start[other] == start and state.end[other] <= end):
            break
        state.slot[q, k] = other
        k -= 1
    state.slot[q, k] = t
    state.slots[q] += 1


@kernel
def withdraw(state: State, t: int) -> None:
    """Undo ``settle`` but for the links."""
    q = state.device[t]
    count = state.slots[q]
    k = count - 1
    while state.slot[q, k] != t:
        k -= 1
    for later in range(k, count - 1):
        state.slot[q, later] = state.slot[q, later + 1]
    state.slots[q] = count - 1
    state.device[t] = -1
