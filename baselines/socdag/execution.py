"""Execution of a plan: the devices, the sequence of tasks on each, and what then happens with true durations."""

from __future__ import annotations

import heapq
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from schedrl.arrays import F64, I32, Bool
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.solution import DagSchedule
from schedrl.errors import SolutionError
from schedrl.kernels import inlined

__all__ = ["chosen_duration", "execute", "transfer_times"]


class _Replay(NamedTuple):
    """What a replay reads, its state, and the schedule that it fills."""

    device: I32  # (N,) -1 for dropped tasks
    duration: F64  # (N,) true time units on the chosen device
    job: I32  # (N,)
    source: I32  # (E,)
    target: I32  # (E,)
    cost: F64  # (E,) time units of each transfer
    link: I32  # (E,) queue of links in which the transfer waits, -1 for none
    successor_offset: I32  # (N + 1,)
    successor_edge: I32  # (E,)
    queue_offset: I32  # (D + 1,)
    queue: I32  # (N,) tasks of each device in their sequence
    link_offset: I32  # (L + 1,)
    link_queue: I32  # (E,) transfers of each link in their sequence
    release: F64  # (J,)
    tasks_left: I32  # (J,) tasks that still have to end; none for a dropped job
    inputs_left: I32  # (N,) inputs that have no arrival time yet
    ready: F64  # (N,) latest arrival of an input
    device_next: I32  # (D,) position in the queue
    device_free: F64  # (D,)
    link_next: I32  # (L,)
    link_free: F64  # (L,)
    end: F64  # (N,) -1 until it is known
    ended: Bool  # (N,)
    start: F64  # (N,)
    entry: F64  # (J,)
    transfer: F64  # (E,)


def execute(
    instance: SocDagInstance,
    device: I32,
    order: I32,
    *,
    point: I32 | None = None,
    transfer_order: I32 | None = None,
) -> DagSchedule:
    """Return what happens when a plan runs with the tasks' true durations.

    Every device runs its tasks in the sequence in which they stand in ``order``. A task starts as soon as the task
    before it on the device has ended, its job has entered and its inputs have arrived. Jobs enter by the release
    times and the admission limit, given the true departures. Under contention every link serves its transfers in
    the sequence of ``transfer_order``. An order sorted by planned start never blocks.

    Args:
        instance: the instance.
        device: (N,) processing element of each task, -1 for the tasks of dropped jobs.
        order: the tasks that run, each once; dropped tasks in it are passed over.
        point: (N,) operating point of each task, by default the fastest.
        transfer_order: (E,) edges as links serve them; by default those of a task that stands earlier in ``order``
            go first, and those of one task in the sequence of the edge list.

    Raises:
        SolutionError: a device that does not exist or does not support the task, an operating point that does not
            exist, an order that is no permutation, or one whose tasks wait for each other.
    """
    device = _devices(instance, device)
    order = _permutation(order, instance.tasks, "order", np.flatnonzero(device >= 0))
    order = order[device[order] >= 0]
    duration = chosen_duration(instance, device, point)
    if transfer_order is not None:
        edges = len(instance.flat.edge)
        transfer_order = _permutation(transfer_order, edges, "transfer_order", np.arange(edges))
    replay = _prepare(instance, device, order, instance.realised(duration), transfer_order)
    ended = _run(replay, instance.admission_cap)
    if ended < len(order):
        stuck = next(t for t in order.tolist() if replay.end[t] < 0)
        raise SolutionError(
            f"field order: {instance.task_label(stuck)} never starts, the order makes tasks wait in a ring"
        )
    contention = instance.communication == "contention"
    return DagSchedule(
        device=device,
        start=replay.start,
        entry=replay.entry,
        point=point,
        transfer=replay.transfer if contention else None,
    )


def chosen_duration(instance: SocDagInstance, device: I32, point: I32 | None = None) -> F64:
    """Return (N,) expected time units of each task on its device at its operating point, 0 for dropped tasks.

    Raises:
        SolutionError: an operating point that the device does not have.
    """
    ran = np.flatnonzero(device >= 0)
    duration = np.zeros(instance.tasks)
    if point is None:
        duration[ran] = instance.flat.duration[ran, device[ran]]
        return duration
    speed, _, count = instance.operating_points
    point = np.asarray(point)
    if point.shape != (instance.tasks,) or point.dtype.kind not in "iu":
        raise SolutionError(f"field point: {point.dtype} of shape {point.shape}, expected {instance.tasks} integers")
    if (bad := ran[(point[ran] < 0) | (point[ran] >= count[device[ran]])]).size:
        task = int(bad[0])
        raise SolutionError(
            f"field point: {instance.task_label(task)} runs at operating point {point[task]}, "
            f"expected 0 to {count[device[task]] - 1}"
        )
    full_speed = np.concatenate([instance.graphs[k].duration for k in instance.job_graph])
    duration[ran] = full_speed[ran, instance.device_type[device[ran]]] / speed[device[ran], point[ran]]
    return np.ceil(duration - 1e-9) if instance.whole_units else duration


def transfer_times(instance: SocDagInstance, device: I32) -> F64:
    """Return (E,) time units that each edge's data travel between the devices of its tasks, 0 if one is dropped."""
    flat = instance.flat
    source, target = device[flat.edge[:, 0]], device[flat.edge[:, 1]]
    moves = (flat.edge_bytes > 0) & (source >= 0) & (target >= 0)
    cost = np.zeros(len(flat.edge))
    p, q, size = source[moves], target[moves], flat.edge_bytes[moves]
    for hop in (0, 2):
        taken = instance.links[hop, p, q] + size * instance.links[hop + 1, p, q]
        cost[moves] += np.floor(taken + 1e-9) if instance.whole_units else taken
    return cost


def _devices(instance: SocDagInstance, device: Any) -> I32:
    values = np.asarray(device)
    if values.shape != (instance.tasks,) or values.dtype.kind not in "iu":
        raise SolutionError(f"field device: {values.dtype} of shape {values.shape}, expected {instance.tasks} integers")
    if (bad := np.flatnonzero((values < -1) | (values >= instance.devices))).size:
        raise SolutionError(
            f"field device: {instance.task_label(int(bad[0]))} runs on {values[bad[0]]}, "
            f"expected 0 to {instance.devices - 1}, or -1 if dropped"
        )
    ran = np.flatnonzero(values >= 0)
    if (bad := ran[~np.isfinite(instance.flat.duration[ran, values[ran]])]).size:
        task = int(bad[0])
        raise SolutionError(
            f"field device: {instance.device_names[values[task]]} does not support {instance.task_label(task)}"
        )
    return values.astype(np.int32)


def _permutation(order: Any, size: int, field: str, needed: Any) -> I32:
    values = np.asarray(order)
    integers = values.ndim == 1 and values.dtype.kind in "iu"
    if not integers or ((values < 0) | (values >= size)).any() or len(np.unique(values)) < len(values):
        raise SolutionError(f"field {field}: expected different numbers from 0 to {size - 1}")
    if (missing := np.setdiff1d(needed, values, assume_unique=True)).size:
        raise SolutionError(f"field {field}: {missing[0]} is missing")
    return values.astype(np.int32)


def _prepare(instance: SocDagInstance, device: I32, order: I32, duration: F64, transfer_order: I32 | None) -> _Replay:
    flat, ran = instance.flat, device >= 0
    tasks, edges, devices = instance.tasks, len(flat.edge), instance.devices
    cost = transfer_times(instance, device)
    queue_offset, queue = _queues(device[order], order, devices)
    link, links = np.full(edges, -1, np.int32), 0
    if instance.communication == "contention":
        links, link = _links(instance, device, cost > 0)
        if transfer_order is None:
            position = np.zeros(tasks, np.int64)
            position[order] = np.arange(len(order))
            transfer_order = np.argsort(position[flat.edge[:, 1]], kind="stable").astype(np.int32)
        served = transfer_order[link[transfer_order] >= 0]
    else:
        served = np.zeros(0, np.int32)
    link_offset, link_queue = _queues(link[served], served, links)
    return _Replay(
        device=device,
        duration=duration,
        job=flat.job,
        source=np.ascontiguousarray(flat.edge[:, 0]),
        target=np.ascontiguousarray(flat.edge[:, 1]),
        cost=cost,
        link=link,
        successor_offset=flat.successor_offset,
        successor_edge=flat.successor_edge,
        queue_offset=queue_offset,
        queue=queue,
        link_offset=link_offset,
        link_queue=link_queue,
        release=instance.release_time,
        tasks_left=np.bincount(flat.job[ran], minlength=instance.jobs).astype(np.int32),
        inputs_left=np.bincount(flat.edge[ran[flat.edge].all(axis=1), 1], minlength=tasks).astype(np.int32),
        ready=np.zeros(tasks),
        device_next=queue_offset[:-1].copy(),
        device_free=np.zeros(devices),
        link_next=link_offset[:-1].copy(),
        link_free=np.zeros(links),
        end=np.full(tasks, -1.0),
        ended=np.zeros(tasks, np.bool_),
        start=np.zeros(tasks),
        entry=np.full(instance.jobs, -1.0),
        transfer=np.zeros(edges),
    )


def _queues(queue_of: I32, members: I32, queues: int) -> tuple[I32, I32]:
    """Return members grouped by queue, in their given sequence, and where each queue begins."""
    offset = np.concatenate([[0], np.cumsum(np.bincount(queue_of, minlength=queues))]).astype(np.int32)
    return offset, members[np.argsort(queue_of, kind="stable")]


def _links(instance: SocDagInstance, device: I32, moves: Bool) -> tuple[int, I32]:
    """Return the number of links in use and (E,) the link of each transfer, -1 where nothing moves."""
    link = np.full(len(moves), -1, np.int32)
    unit = instance.device_unit[device[instance.flat.edge[moves]]]
    pair = unit[:, 0].astype(np.int64) * instance.devices + unit[:, 1]
    used, link[moves] = np.unique(pair, return_inverse=True)
    return len(used), link


@njit(cache=True)
def _run(replay: _Replay, cap: int) -> int:
    """Fill the schedule and return how many tasks ended.

    Ends are taken in order of time, because which departure lets the next job in depends on it; all other times
    follow as soon as what they wait for is known.
    """
    jobs = len(replay.release)
    departure = np.zeros(jobs)
    entered, departed, dropped, ended = 0, 0, 0, 0
    running = [(0.0, 0)]
    running.pop()
    while True:
        before = entered
        while entered < jobs and (cap == 0 or entered < cap + dropped + departed):
            _enter(replay, entered, cap, departure, dropped)
            dropped += replay.tasks_left[entered] == 0
            entered += 1
        if entered > before:
            for d in range(len(replay.device_next)):
                _start(replay, d, running)
        if not running:
            return ended
        now, task = heapq.heappop(running)
        ended += 1
        replay.tasks_left[replay.job[task]] -= 1
        if replay.tasks_left[replay.job[task]] == 0:
            departure[departed] = now
            departed += 1
        _send(replay, task, running)


@inlined
def _enter(replay: _Replay, j: int, cap: int, departure: F64, dropped: int) -> None:
    time = replay.release[j]
    if cap > 0 and j > 0:
        time = replay.entry[j - 1] + (replay.release[j] - replay.release[j - 1])
        # Fewer than cap of the j jobs before are inside once all but cap - 1 of them have left.
        if j >= cap + dropped:
            time = max(time, departure[j - cap - dropped])
    replay.entry[j] = time


@njit(cache=True)
def _start(replay: _Replay, d: int, running: list[tuple[float, int]]) -> None:
    """Fix the start of the tasks at the head of a device's queue whose entry and inputs are known."""
    while replay.device_next[d] < replay.queue_offset[d + 1]:
        task = replay.queue[replay.device_next[d]]
        entry = replay.entry[replay.job[task]]
        if entry < 0 or replay.inputs_left[task] > 0:
            return
        start = max(replay.device_free[d], max(entry, replay.ready[task]))
        replay.start[task] = start
        replay.end[task] = start + replay.duration[task]
        replay.device_free[d] = replay.end[task]
        replay.device_next[d] += 1
        heapq.heappush(running, (float(replay.end[task]), int(np.int64(task))))


@njit(cache=True)
def _send(replay: _Replay, task: int, running: list[tuple[float, int]]) -> None:
    """Move the outputs of a task that ended."""
    replay.ended[task] = True
    for k in range(replay.successor_offset[task], replay.successor_offset[task + 1]):
        edge = replay.successor_edge[k]
        if replay.link[edge] < 0:
            replay.transfer[edge] = replay.end[task]
            _arrive(replay, edge, running)
        else:
            _serve(replay, replay.link[edge], running)


@njit(cache=True)
def _serve(replay: _Replay, link: int, running: list[tuple[float, int]]) -> None:
    """Fix the start of the transfers at the head of a link's queue whose data exist."""
    while replay.link_next[link] < replay.link_offset[link + 1]:
        edge = replay.link_queue[replay.link_next[link]]
        if not replay.ended[replay.source[edge]]:
            return
        replay.transfer[edge] = max(replay.link_free[link], replay.end[replay.source[edge]])
        replay.link_free[link] = replay.transfer[edge] + replay.cost[edge]
        replay.link_next[link] += 1
        _arrive(replay, edge, running)


@njit(cache=True)
def _arrive(replay: _Replay, edge: int, running: list[tuple[float, int]]) -> None:
    target = replay.target[edge]
    replay.ready[target] = max(replay.ready[target], replay.transfer[edge] + replay.cost[edge])
    replay.inputs_left[target] -= 1
    if replay.inputs_left[target] == 0 and replay.device[target] >= 0:
        _start(replay, replay.device[target], running)
