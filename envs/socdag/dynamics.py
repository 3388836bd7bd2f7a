"""The kernels that move a row from decision to decision, for planning and for event-driven execution.

Plan mode builds a schedule of expected times, job by job at their entries: a task can be placed once its
predecessors are, in the first gap that fits. Online mode runs the jobs: a task can be placed once its predecessors
have ended and joins the queue of its device, which runs what was placed first among the tasks whose inputs have
arrived; time moves to the next end of a task, arrival of an input or entry of a job, never in ticks.
"""

from __future__ import annotations

import numpy as np

from schedrl.arrays import F32, I32, Bool
from schedrl.envs.socdag.placement import (
    ONLINE,
    PLAN,
    complete_job,
    data_ready,
    earliest_gap,
    enter,
    expected_duration,
    place,
    planned_entry,
    release_successors,
    row_of,
    true_duration,
)
from schedrl.envs.socdag.state import Options, State
from schedrl.kernels import inlined, inner, inner_inlined, kernel

__all__ = ["advance", "reset_row", "step_rows"]


@inlined
def _next_entry(state: State, b: int) -> float:
    """Return when the next job enters if nothing ends before, inf when it has to wait for that."""
    job = state.entered[b]
    if job == state.jobs[b]:
        return np.inf
    if state.cap[b] == 0:
        return float(state.release[b, job])
    if state.inside[b] >= state.cap[b]:
        return np.inf
    if job == 0:
        return float(state.release[b, 0])
    due = state.entry[b, job - 1] + (state.release[b, job] - state.release[b, job - 1])
    return float(max(state.now[b], due))


@inner_inlined
def _raise_potential(state: State, b: int) -> None:
    """Recompute what rewards are differences of: a sum over jobs, in units of each objective's least value."""
    for k in range(state.readies[b]):
        # Waiting costs at once what it cannot win back.
        task = state.ready[b, k]
        row, job = row_of(state, b, task), state.task_job[b, task]
        least = state.now[b] + state.least_path[b, row] - state.entry[b, job]
        state.latency[b, job] = max(state.latency[b, job], least)
    latency = 0.0
    for job in range(state.entered[b]):
        latency += (state.latency[b, job] - state.job_bound[b, job]) / state.scale[b]
    if state.jobs[b] == 1 and state.sigma[b] == 0.0 and state.finished[b] < state.tasks[b]:
        # No completion ends before the remaining work is spread evenly; exact for single jobs only.
        spread = (state.work[b] / state.devices[b] - state.job_bound[b, 0]) / state.scale[b]
        latency = max(latency, spread)
    energy = state.energy[b] / state.energy_least[b] if state.energy_least[b] > 0.0 else 0.0
    cost = state.cost[b] / state.cost_least[b] if state.cost_least[b] > 0.0 else 0.0
    weights = state.preference[b]
    state.potential[b] = weights[0] * latency + state.jobs[b] * (weights[1] * energy + weights[2] * cost)


@inlined
def _start_next(state: State, b: int, device: int) -> None:
    """Start, on an idle device, the task placed first among those whose inputs are there.

    A task that waits for its inputs does not hold up those behind it (DS3's executable queue).
    """
    now, head = state.now[b], state.head[b, device]
    for k in range(head, state.length[b, device]):
        task = state.sequence[b, device, k]
        if state.arrival[b, task] <= now:
            for position in range(k, head, -1):
                state.sequence[b, device, position] = state.sequence[b, device, position - 1]
            state.sequence[b, device, head] = task
            row = row_of(state, b, task)
            expected = expected_duration(state, b, row, device, state.point[b, task])
            state.start[b, task] = now
            state.finish[b, task] = now + true_duration(state, b, task, expected)
            state.running[b, device] = True
            return


@inner
def _process_events(state: State, b: int) -> None:
    """End and start every task and let every job enter whose time has come, until nothing more happens now."""
    now = state.now[b]
    again = True
    while again:
        again = False
        for device in range(state.devices[b]):
            if state.head[b, device] == state.length[b, device]:
                continue
            if not state.running[b, device]:
                _start_next(state, b, device)
            task = state.sequence[b, device, state.head[b, device]]
            if state.running[b, device] and state.finish[b, task] <= now:
                state.running[b, device] = False
                state.head[b, device] += 1
                state.finished[b] += 1
                job = state.task_job[b, task]
                state.job_left[b, job] -= 1
                if state.job_left[b, job] == 0:
                    complete_job(state, b, job)
                release_successors(state, b, task, ONLINE)
                again = True
        while _next_entry(state, b) <= now:
            enter(state, b, state.entered[b], now, ONLINE)
            again = True


@inlined
def _next_event(state: State, b: int) -> float:
    """Return when the next task ends, job enters, or input arrives at an idle device that waits for it."""
    time = _next_entry(state, b)
    for device in range(state.devices[b]):
        head = state.head[b, device]
        if state.running[b, device]:
            time = min(time, state.finish[b, state.sequence[b, device, head]])
        else:
            for k in range(head, state.length[b, device]):
                time = min(time, state.arrival[b, state.sequence[b, device, k]])
    return time


@inner_inlined
def _estimate_free(state: State, b: int) -> None:
    """Fill ``free`` with what can be known now: running tasks end as expected, or now when overdue."""
    now = state.now[b]
    for device in range(state.devices[b]):
        free = now
        for k in range(state.head[b, device], state.length[b, device]):
            task = state.sequence[b, device, k]
            expected = expected_duration(state, b, row_of(state, b, task), device, state.point[b, task])
            if state.start[b, task] <= now:
                free = max(now, state.start[b, task] + expected)
            else:
                free = max(free, state.arrival[b, task]) + expected
        state.free[b, device] = free


@inner_inlined
def _find_candidates(state: State, b: int, options: Options) -> None:
    """List the pairs of the first ``window`` ready tasks and, of each device type, the device that ends them first.

    Devices of a type differ only in their queues and in what is stored on them, so the others are dominated. Equal
    ends go to the device that would idle least.
    """
    count = 0
    for k in range(min(state.readies[b], options.window)):
        task = state.ready[b, k]
        row = row_of(state, b, task)
        begun, best_finish, best_path = count, np.inf, np.inf
        first = 0
        while first < state.devices[b]:
            kind = state.device_type[b, first]
            last = first
            while last < state.devices[b] and state.device_type[b, last] == kind:
                last += 1
            if np.isfinite(state.duration[b, row, first]):
                points = state.points[b, first] if options.scaling else 1
                for point in range(points):
                    _best_of_type(state, b, task, first, last, point, options.mode, False, count)
                    finish = state.candidate_finish[b, count]
                    best_finish = min(best_finish, finish)
                    best_path = min(best_path, finish + state.tail[b, row, first])
                    if options.idle_only and not _idle(state, b, state.candidate_device[b, count]):
                        _best_of_type(state, b, task, first, last, point, options.mode, True, count)
                    if np.isfinite(state.candidate_finish[b, count]):
                        count += 1
            first = last
        for slot in range(begun, count):
            state.best_finish[b, slot] = best_finish
            state.best_path[b, slot] = best_path
    state.candidates[b] = count


@inlined
def _idle(state: State, b: int, device: int) -> bool:
    """Whether a device could start a task now: it runs none, and at most one waits on it for its inputs."""
    queued = state.length[b, device] - state.head[b, device]
    return not state.running[b, device] and queued < 2


@inner
def _best_of_type(
    state: State, b: int, task: int, first: int, last: int, point: int, mode: int, idle_only: bool, slot: int
) -> None:
    duration = expected_duration(state, b, row_of(state, b, task), first, point)
    best_idle = 0.0
    state.candidate_finish[b, slot] = np.inf
    for device in range(first, last):
        if idle_only and not _idle(state, b, device):
            continue
        ready = data_ready(state, b, task, device, mode, False)
        if mode == PLAN:
            start = earliest_gap(state, b, device, ready, duration)
        else:
            start = max(max(state.free[b, device], ready), state.now[b])
        idle = start - state.free[b, device]
        finish = start + duration
        better = finish < state.candidate_finish[b, slot]
        if better or (finish == state.candidate_finish[b, slot] and idle < best_idle):
            best_idle = idle
            state.candidate_task[b, slot], state.candidate_device[b, slot] = task, device
            state.candidate_point[b, slot], state.candidate_arrival[b, slot] = point, ready
            state.candidate_start[b, slot], state.candidate_finish[b, slot] = start, finish


@kernel
def advance(state: State, b: int, options: Options, keep: int) -> None:
    """Move a row to its next decision, or to its end with no candidates.

    With ``skip_forced``, single candidates are placed at once, except the last ``keep`` tasks.
    """
    mode = options.mode
    while True:
        if mode == ONLINE:
            _process_events(state, b)
        state.next_event[b] = _next_event(state, b) if mode == ONLINE else np.inf
        state.candidates[b] = 0
        if state.readies[b] > 0 and not state.waiting[b]:
            if mode == ONLINE:
                _estimate_free(state, b)
            _find_candidates(state, b, options)
        if state.candidates[b] > 0:
            # Nothing in progress, nothing to wait for but jobs that nobody can foresee.
            if options.wait and state.placed[b] > state.finished[b]:
                state.candidate_task[b, state.candidates[b]] = -1
                state.candidates[b] += 1
            forced = options.skip_forced and state.candidates[b] == 1 and state.placed[b] < state.tasks[b] - keep
            if not forced:
                return
            place(state, b, 0, mode)
        elif mode == PLAN or not np.isfinite(state.next_event[b]):
            return
        else:
            state.now[b] = state.next_event[b]
            state.waiting[b] = False


@kernel
def reset_row(state: State, b: int, options: Options) -> None:
    """Start an episode of the instance whose static arrays are in the row."""
    state.now[b], state.waiting[b] = 0.0, False
    state.placed[b], state.finished[b], state.invalid[b], state.readies[b] = 0, 0, 0, 0
    state.entered[b], state.inside[b] = 0, 0
    state.energy[b], state.cost[b] = 0.0, 0.0
    state.length[b, :], state.head[b, :], state.free[b, :] = 0, 0, 0.0
    state.running[b, :] = False
    state.link_free[b, :, :] = 0.0
    state.work[b] = 0.0
    for job in range(state.jobs[b]):
        state.latency[b, job] = state.job_bound[b, job]
        state.job_left[b, job] = state.job_first[b, job + 1] - state.job_first[b, job]
        state.work[b] += state.job_work[b, job]
        for task in range(state.job_first[b, job], state.job_first[b, job + 1]):
            row = row_of(state, b, task)
            state.device[b, task] = -1
            state.missing[b, task] = state.predecessor_offset[b, row + 1] - state.predecessor_offset[b, row]
    if options.mode == PLAN:
        enter(state, b, 0, planned_entry(state, b), PLAN)
    # One task stays, so that every episode has a decision.
    advance(state, b, options, 1)
    # The potential stays at its initial value, so that the first reward pays for the forced moves too.
    state.potential[b] = 0.0


@kernel
def step_rows(state: State, action: I32, reward: F32, done: Bool, options: Options) -> None:
    """Place one candidate per row, or wait; reward is minus the rise of the potential."""
    for b in range(len(action)):
        reward[b] = 0.0
        slot = action[b]
        if slot >= state.candidates[b]:
            state.invalid[b] += 1
        elif slot >= 0:
            before = state.potential[b]
            if state.candidate_task[b, slot] < 0:
                state.waiting[b] = True
            else:
                place(state, b, slot, options.mode)
            advance(state, b, options, 0)
            _raise_potential(state, b)
            reward[b] = before - state.potential[b]
        done[b] = state.finished[b] == state.tasks[b]
