"""What happens in a shop: operations start and end, machines fail, jobs arrive, and jobs that block each other swap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schedrl.envs.jobshop.shop_state import NEVER
from schedrl.kernels import inner, inner_inlined

if TYPE_CHECKING:
    from schedrl.envs.jobshop.shop_state import State

__all__ = ["estimate_objective", "is_down", "next_event", "rotate", "safe_to_start", "start_mode", "unfinished"]

_NEVER = NEVER
_SWAP = 1


@inner_inlined
def unfinished(state: State, b: int, j: int) -> bool:
    """Whether a job has operations that have not started."""
    return bool(state.next_operation[b, j] < state.job_offset[b, j + 1])


@inner_inlined
def is_down(state: State, b: int, m: int, moment: int) -> int:
    """Return when the machine's outage at a moment ends, -1 if it is up."""
    for k in range(state.outage_offset[b, m], state.outage_offset[b, m + 1]):
        if state.outage_start[b, k] > moment:
            return -1
        if moment < state.outage_end[b, k]:
            return int(state.outage_end[b, k])
    return -1


@inner_inlined
def _end_of(state: State, b: int, m: int, start: int, duration: int) -> int:
    """Return when work ends that pauses while its machine is down."""
    end = start + duration
    for k in range(state.outage_offset[b, m], state.outage_offset[b, m + 1]):
        if state.outage_end[b, k] <= start:
            continue
        if state.outage_start[b, k] >= end:
            break
        end += state.outage_end[b, k] - state.outage_start[b, k]
    return end


@inner
def next_event(state: State, b: int) -> int:
    """Return the next moment at which an operation ends, a job arrives or a machine is repaired; NEVER if none is left.

    Only what can open a choice counts: ends of jobs with work left or of machines that others could use.
    """
    now, soonest = state.now[b], _NEVER
    for j in range(state.jobs[b]):
        if state.ready[b, j] > now and unfinished(state, b, j):
            soonest = min(soonest, state.ready[b, j])
    for m in range(state.machines[b]):
        if now < state.free[b, m] < _NEVER:
            soonest = min(soonest, state.free[b, m])
        end = is_down(state, b, m, now)
        if end >= 0:
            soonest = min(soonest, end)
    return soonest


@inner
def start_mode(state: State, b: int, j: int, k: int, start: int) -> None:
    """Start a job's next operation in a mode at a moment, or once its machine is repaired if that is later."""
    o, m = state.next_operation[b, j], state.machine[b, k]
    repaired = is_down(state, b, m, start)
    if repaired >= 0:
        start = repaired
    end = _end_of(state, b, m, start, state.actual[b, k])
    state.start[b, o], state.mode[b, o] = start, k - state.mode_offset[b, o]
    state.next_operation[b, j] = o + 1
    state.ready[b, j], state.expected[b, j] = end, start + state.duration[b, k]
    state.remaining[b, j] -= state.least[b, o]
    if state.mode_offset[b, o + 1] - state.mode_offset[b, o] == 1:
        state.load[b, m] -= state.duration[b, k]
    state.expected_free[b, m] = start + state.duration[b, k]
    state.last_family[b, m] = state.family[b, o]
    before = state.held[b, j]
    if before >= 0 and before != m:
        state.holder[b, before], state.free[b, before] = -1, start
    stays = state.blocking[b] != 0 and unfinished(state, b, j)
    state.held[b, j] = m if stays else -1
    state.holder[b, m] = j if stays else -1
    state.free[b, m] = _NEVER if stays else end
    state.started[b] += 1


@inner_inlined
def _waits_for(state: State, b: int, j: int) -> int:
    """Return the machine that a job which is ready waits for, -1 if it does not wait or the machine is down."""
    if state.held[b, j] < 0 or state.ready[b, j] > state.now[b] or not unfinished(state, b, j):
        return -1
    m = state.machine[b, state.mode_offset[b, state.next_operation[b, j]]]
    return -1 if is_down(state, b, m, state.now[b]) >= 0 else int(m)


@inner
def rotate(state: State, b: int) -> bool:
    """Move the jobs of one cycle in which each waits for the machine of the next; return whether there was one."""
    for first in range(state.jobs[b]):
        j, length = first, 0
        while length < state.jobs[b]:
            m = _waits_for(state, b, j)
            if m < 0 or state.holder[b, m] < 0:
                break
            state.mark[b, length] = j
            length += 1
            j = state.holder[b, m]
            if j == first and length == 1:
                # It goes on where it is, which is offered as any start.
                break
            if j == first:
                _move_all(state, b, length)
                return True
    return False


@inner
def _move_all(state: State, b: int, length: int) -> None:
    now = state.now[b]
    for index in range(length):
        j = state.mark[b, index]
        # Each leaves before any enters, so that no machine is freed by the one that comes.
        state.held[b, j] = -1
    for index in range(length):
        j = state.mark[b, index]
        k = state.mode_offset[b, state.next_operation[b, j]]
        start_mode(state, b, j, k, now)


@inner
def safe_to_start(state: State, b: int, j: int, m: int) -> bool:
    """Whether all jobs on machines can still leave one after another once a job is on a machine: no deadlock ahead.

    As the banker's algorithm (Dijkstra 1965): a job can leave if no machine of its remaining operations is held by
    another that has not left. Whoever starts keeps the shop in such states, so that it never locks.
    """
    jobs = state.jobs[b]
    for other in range(jobs):
        state.mark[b, other] = 0 if state.held[b, other] >= 0 or other == j else 1
    progress = True
    while progress:
        progress = False
        for other in range(jobs):
            if state.mark[b, other] == 0 and _can_leave(state, b, other, j, m):
                state.mark[b, other] = 1
                progress = True
    stuck = 0
    for other in range(jobs):
        stuck += state.mark[b, other] == 0
    return stuck == 0


@inner
def _can_leave(state: State, b: int, other: int, j: int, m: int) -> bool:
    """Whether a job's way out is free of jobs that have not left, with job j on machine m instead of where it is."""
    first = state.next_operation[b, other] + (1 if other == j else 0)
    own = m if other == j else state.held[b, other]
    for o in range(first, state.job_offset[b, other + 1]):
        needed = state.machine[b, state.mode_offset[b, o]]
        if needed == own:
            continue
        if needed == m and state.mark[b, j] == 0 and other != j:
            return False
        holder = state.holder[b, needed]
        if holder >= 0 and holder != other and holder != j and state.mark[b, holder] == 0:
            return False
    return True


@inner
def estimate_objective(state: State, b: int) -> float:
    """Return the objective if no job had to wait any more and no machine stood idle; at the end, the objective."""
    now, makespan, late, flow = state.now[b], 0.0, 0.0, 0.0
    for j in range(state.jobs[b]):
        end = float(state.ready[b, j])
        if unfinished(state, b, j):
            end = max(end, float(now)) + state.remaining[b, j]
        makespan = max(makespan, end)
        late += state.weight[b, j] * max(0.0, end - state.due[b, j])
        flow += state.weight[b, j] * (end - state.release[b, j])
    for m in range(state.machines[b]):
        if state.load[b, m] > 0:
            free = now if state.free[b, m] == _NEVER else max(state.free[b, m], now)
            makespan = max(makespan, float(free + state.load[b, m]))
    weights = state.objective[b]
    return float(weights[0] * makespan + weights[1] * late + weights[2] * flow)
