"""The kernels that place a task: what it takes, when its inputs arrive, and what it sets free."""

from __future__ import annotations

import numpy as np

from schedrl.envs.socdag.instance import LEAST_NOISE_FACTOR
from schedrl.envs.socdag.state import State
from schedrl.envs.socdag.tables import transfer
from schedrl.kernels import inlined, inner, inner_inlined, kernel

__all__ = [
    "ONLINE",
    "PLAN",
    "complete_job",
    "data_ready",
    "earliest_gap",
    "enter",
    "expected_duration",
    "place",
    "planned_entry",
    "release_successors",
    "row_of",
    "true_duration",
]

ONLINE, PLAN = 0, 1


@inlined
def row_of(state: State, b: int, task: int) -> int:
    """Return the template row of a task."""
    job = state.task_job[b, task]
    return int(state.job_row[b, job] + task - state.job_first[b, job])


@inner_inlined
def expected_duration(state: State, b: int, row: int, device: int, point: int) -> float:
    """Return the expected time units of a task on a device at an operating point."""
    duration = state.base[b, row, device] / state.speed[b, device, point]
    return float(np.ceil(duration - 1e-9)) if state.whole_units[b] else float(duration)


@inlined
def true_duration(state: State, b: int, task: int, expected: float) -> float:
    """Return what a task takes when it is expected to take ``expected``; see ``SocDagInstance.realised``."""
    sigma = state.sigma[b]
    if sigma == 0.0:
        return expected
    factor = 1.0 + sigma * state.draw[b, task]
    if state.whole_units[b]:
        return max(np.rint(expected * factor), 1.0) if expected > 0.0 else 0.0
    return float(expected * max(factor, LEAST_NOISE_FACTOR))


@kernel
def data_ready(state: State, b: int, task: int, device: int, mode: int, commit: bool) -> float:
    """Return when a task's job has entered and its inputs are at ``device``.

    Under contention transfers queue at the links; ``commit`` books them.
    """
    job = state.task_job[b, task]
    base = state.job_row[b, job]
    shift = state.job_first[b, job] - base
    row = task - shift
    ready = state.entry[b, job]
    contention, whole = state.contention[b], state.whole_units[b]
    links = state.links[b]
    first = state.predecessor_offset[b, row]
    for e in range(first, state.predecessor_offset[b, row + 1]):
        source = state.predecessor[b, e] + shift
        origin = state.device[b, source]
        begin = state.finish[b, source]
        cost = transfer(links, state.predecessor_bytes[b, e], origin, device, whole)
        if contention and cost > 0.0:
            unit, target = state.device_unit[b, origin], state.device_unit[b, device]
            begin = max(begin, state.link_free[b, unit, target])
            if mode == ONLINE:
                begin = max(begin, state.now[b])
            for earlier in range(e - first):
                if state.arrivals[b, earlier, 0] == unit:
                    begin = max(begin, state.arrivals[b, earlier, 1])
            state.arrivals[b, e - first, 0] = unit
            state.arrivals[b, e - first, 1] = begin + cost
            if commit:
                state.transfer[b, state.job_edge[b, job] + state.predecessor_edge[b, e]] = begin
        elif contention:
            state.arrivals[b, e - first, 0] = -1.0
            if commit:
                state.transfer[b, state.job_edge[b, job] + state.predecessor_edge[b, e]] = begin
        ready = max(ready, begin + cost)
    if contention and commit:
        target = state.device_unit[b, device]
        for k in range(state.predecessor_offset[b, row + 1] - first):
            unit = int(state.arrivals[b, k, 0])
            if unit >= 0:
                state.link_free[b, unit, target] = max(state.link_free[b, unit, target], state.arrivals[b, k, 1])
    return float(ready)


@inner_inlined
def earliest_gap(state: State, b: int, device: int, ready: float, duration: float) -> float:
    """Return the earliest start at or after ``ready`` in a gap of the device's sequence."""
    time = ready
    for k in range(state.length[b, device]):
        other = state.sequence[b, device, k]
        if time + duration <= state.start[b, other]:
            return time
        time = max(time, state.finish[b, other])
    return time


@inner_inlined
def _insert(state: State, b: int, task: int, device: int) -> None:
    """Put a task into its device's sequence by start, tasks of no time before what starts with them."""
    position = state.length[b, device]
    while position > 0 and state.start[b, state.sequence[b, device, position - 1]] >= state.finish[b, task]:
        state.sequence[b, device, position] = state.sequence[b, device, position - 1]
        position -= 1
    state.sequence[b, device, position] = task
    state.length[b, device] += 1


@inlined
def _offer(state: State, b: int, task: int, mode: int) -> None:
    """Add a task to the ready list: jobs in order of entry when online, then by upward rank."""
    rank = state.upward_rank[b, row_of(state, b, task)]
    job = state.task_job[b, task]
    position = state.readies[b]
    while position > 0:
        other = state.ready[b, position - 1]
        other_job = state.task_job[b, other]
        if mode == ONLINE and other_job != job:
            if other_job < job:
                break
        elif state.upward_rank[b, row_of(state, b, other)] >= rank:
            break
        state.ready[b, position] = other
        position -= 1
    state.ready[b, position] = task
    state.readies[b] += 1


@inner_inlined
def _withdraw(state: State, b: int, task: int) -> None:
    position = 0
    while state.ready[b, position] != task:
        position += 1
    for k in range(position, state.readies[b] - 1):
        state.ready[b, k] = state.ready[b, k + 1]
    state.readies[b] -= 1


@inner
def release_successors(state: State, b: int, task: int, mode: int) -> None:
    """Offer the tasks that waited for this one only."""
    job = state.task_job[b, task]
    shift = state.job_first[b, job] - state.job_row[b, job]
    row = task - shift
    for e in range(state.successor_offset[b, row], state.successor_offset[b, row + 1]):
        target = state.successor[b, e] + shift
        state.missing[b, target] -= 1
        if state.missing[b, target] == 0:
            _offer(state, b, target, mode)


@inner_inlined
def enter(state: State, b: int, job: int, time: float, mode: int) -> None:
    """Let a job enter and offer its first tasks."""
    state.entry[b, job] = time
    state.latency[b, job] = state.job_bound[b, job]
    state.job_work_left[b, job] = state.job_work[b, job]
    state.entered[b] += 1
    state.inside[b] += 1
    for task in range(state.job_first[b, job], state.job_first[b, job + 1]):
        if state.missing[b, task] == 0:
            _offer(state, b, task, mode)


@kernel
def place(state: State, b: int, slot: int, mode: int) -> None:
    """Commit a candidate: book its device, and its links under contention."""
    task, device, point = state.candidate_task[b, slot], state.candidate_device[b, slot], state.candidate_point[b, slot]
    row, job = row_of(state, b, task), state.task_job[b, task]
    expected = expected_duration(state, b, row, device, point)
    arrival = (
        data_ready(state, b, task, device, mode, True) if state.contention[b] else state.candidate_arrival[b, slot]
    )
    state.device[b, task], state.point[b, task], state.arrival[b, task] = device, point, arrival
    estimate = state.candidate_finish[b, slot]
    if mode == PLAN:
        state.start[b, task] = state.candidate_start[b, slot]
        state.finish[b, task] = estimate
        _insert(state, b, task, device)
        state.free[b, device] = max(state.free[b, device], estimate)
    else:
        # Started by the next look at the devices, which happens before time moves.
        state.start[b, task], state.finish[b, task] = np.inf, np.inf
        state.sequence[b, device, state.length[b, device]] = task
        state.length[b, device] += 1
    _withdraw(state, b, task)
    state.placed[b] += 1
    state.job_work_left[b, job] -= state.least_duration[b, row]
    state.latency[b, job] = max(state.latency[b, job], estimate + state.tail[b, row, device] - state.entry[b, job])
    state.work[b] += expected - state.least_duration[b, row]
    state.energy[b] += expected * state.power[b, device, point]
    state.cost[b] += expected * state.price[b, device]
    if mode == PLAN:
        state.finished[b] += 1
        state.job_left[b, job] -= 1
        release_successors(state, b, task, mode)
        if state.job_left[b, job] == 0:
            complete_job(state, b, job)
            if state.entered[b] < state.jobs[b]:
                enter(state, b, state.entered[b], planned_entry(state, b), mode)


@inner_inlined
def planned_entry(state: State, b: int) -> float:
    """Return when the next job enters, if the jobs before it end as planned."""
    job, cap = state.entered[b], state.cap[b]
    if job == 0 or cap == 0:
        return float(state.release[b, job])
    entry = state.entry[b, job - 1] + (state.release[b, job] - state.release[b, job - 1])
    if job >= cap:
        # Fewer than cap jobs are inside once the cap-th latest departure has happened.
        for k in range(job):
            departure = state.entry[b, k] + state.latency[b, k]
            later, as_late = 0, 0
            for other in range(job):
                other_departure = state.entry[b, other] + state.latency[b, other]
                later += other_departure > departure
                as_late += other_departure >= departure
            if later < cap <= as_late:
                entry = max(entry, departure)
    return float(entry)


@inner_inlined
def complete_job(state: State, b: int, job: int) -> None:
    """Replace the estimate of a job's latency by what it came to, and let the job leave."""
    last = 0.0
    for task in range(state.job_first[b, job], state.job_first[b, job + 1]):
        last = max(last, state.finish[b, task])
    state.latency[b, job] = last - state.entry[b, job]
    state.inside[b] -= 1
