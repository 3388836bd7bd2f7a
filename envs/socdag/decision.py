"""The kernels that write what a policy sees at a decision; ``observation.py`` names and explains every column."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from schedrl.arrays import F32, F64, I32
from schedrl.envs.socdag.placement import ONLINE, PLAN, earliest_gap, expected_duration, row_of
from schedrl.envs.socdag.state import Room, State
from schedrl.envs.socdag.tables import transfer
from schedrl.kernels import inner, inner_inlined, kernel

__all__ = ["Scratch", "make_scratch", "write_decisions"]


class Scratch(NamedTuple):
    """Memory of one decision."""

    ahead: F64  # (C,) last child's earliest finish
    ahead_path: F64  # (C,) last child's earliest finish plus tail
    low: F64  # (C, 7) least value over the candidates of the same task: see _LOW
    high: F64  # (C, 4)
    rivals: F64  # (D,) offered tasks that are fastest on the device's type


def make_scratch(room: Room) -> Scratch:
    """Return memory for one decision of the given sizes."""
    return Scratch(
        ahead=np.zeros(room.slots),
        ahead_path=np.zeros(room.slots),
        low=np.zeros((room.slots, 7)),
        high=np.zeros((room.slots, 4)),
        rivals=np.zeros(room.devices),
    )


# Columns of Scratch.low; the first four are also those of Scratch.high.
_FINISH, _PATH, _AHEAD, _AHEAD_PATH, _START, _ENERGY, _COST = 0, 1, 2, 3, 4, 5, 6


@inner_inlined
def _squash(value: float) -> float:
    return value / (1.0 + abs(value))


@inner_inlined
def _clip(value: float, low: float) -> float:
    return min(max(value, low), 1.0)


@inner_inlined
def _scaled(value: float, low: float, high: float) -> float:
    return _clip((value - low) / (high - low), 0.0) if high > low else 0.0


@kernel
def write_decisions(
    state: State, candidates: I32, candidate_features: F32, context: F32, count: I32, scratch: Scratch, mode: int
) -> None:
    """Write the decision of every row; unused slots read zero."""
    for b in range(len(count)):
        # ``count`` still tells how many slots the last decision filled.
        candidates[b, state.candidates[b] : count[b]] = 0
        candidate_features[b, state.candidates[b] : count[b]] = 0.0
        count[b] = state.candidates[b]
        if state.candidates[b] == 0:
            context[b, :] = 0.0
            context[b, 0] = 1.0
            continue
        origin, first_finish, top_rank, pairs = _survey(state, b, scratch, mode)
        for c in range(pairs):
            candidates[b, c, 0] = row_of(state, b, state.candidate_task[b, c])
            candidates[b, c, 1] = state.rows[b] + state.candidate_device[b, c]
            _write_candidate(state, b, c, candidate_features[b, c], scratch, mode, origin, first_finish, top_rank)
        until = _expected_event(state, b) / state.unit[b] if mode == ONLINE else 0.0
        if pairs < state.candidates[b]:
            candidates[b, pairs, :] = state.rows[b] + state.devices[b]
            candidate_features[b, pairs, :] = 0.0
            candidate_features[b, pairs, 0] = 1.0
            candidate_features[b, pairs, 14] = _squash(until)
        _write_context(state, b, context[b], mode, origin, until)


@inner
def _look_ahead(state: State, b: int, slot: int, scratch: Scratch, mode: int) -> None:
    """Fill when the last child could finish, each child alone on its best device, if this candidate is chosen."""
    task, device = state.candidate_task[b, slot], state.candidate_device[b, slot]
    job = state.task_job[b, task]
    shift = state.job_first[b, job] - state.job_row[b, job]
    row = task - shift
    end = state.candidate_finish[b, slot]
    ahead, ahead_path = end, end
    for e in range(state.successor_offset[b, row], state.successor_offset[b, row + 1]):
        child = state.successor[b, e]
        soonest, soonest_path = np.inf, np.inf
        for q in range(state.devices[b]):
            if not np.isfinite(state.duration[b, child, q]):
                continue
            ready = end + transfer(state.links[b], state.successor_bytes[b, e], device, q, state.whole_units[b])
            for other in range(state.predecessor_offset[b, child], state.predecessor_offset[b, child + 1]):
                source = state.predecessor[b, other] + shift
                origin = state.device[b, source]
                if origin >= 0:
                    cost = transfer(state.links[b], state.predecessor_bytes[b, other], origin, q, state.whole_units[b])
                    ready = max(ready, _known_finish(state, b, source, mode) + cost)
            if mode == PLAN:
                start = earliest_gap(state, b, q, ready, state.duration[b, child, q])
            else:
                start = max(ready, state.free[b, q])
            finish = start + state.duration[b, child, q]
            soonest = min(soonest, finish)
            soonest_path = min(soonest_path, finish + state.tail[b, child, q])
        ahead, ahead_path = max(ahead, soonest), max(ahead_path, soonest_path)
    scratch.ahead[slot], scratch.ahead_path[slot] = ahead, ahead_path


@inner_inlined
def _known_finish(state: State, b: int, task: int, mode: int) -> float:
    """Return the end of a placed task as far as it can be known: the true one only if it has passed."""
    finish = state.finish[b, task]
    if mode == PLAN or finish <= state.now[b]:
        return float(finish)
    device = state.device[b, task]
    expected = expected_duration(state, b, row_of(state, b, task), device, state.point[b, task])
    # A queued task starts no earlier than its inputs arrive; what runs before it is in the device's own queue.
    begin = state.start[b, task] if state.start[b, task] <= state.now[b] else max(state.arrival[b, task], state.now[b])
    return float(max(begin + expected, state.now[b]))


@inner_inlined
def _survey(state: State, b: int, scratch: Scratch, mode: int) -> tuple[float, float, float, int]:
    """Fill the scratch; return earliest start, earliest finish, largest rank, and the number of pairs."""
    pairs = state.candidates[b]
    if state.candidate_task[b, pairs - 1] < 0:
        pairs -= 1
    origin, first_finish, top_rank = np.inf, np.inf, 0.0
    for d in range(state.devices[b]):
        scratch.rivals[d] = 0.0
    c = 0
    while c < pairs:
        task = state.candidate_task[b, c]
        row = row_of(state, b, task)
        stop = c
        scratch.low[c, :] = np.inf
        scratch.high[c, :] = -np.inf
        while stop < pairs and state.candidate_task[b, stop] == task:
            _look_ahead(state, b, stop, scratch, mode)
            _widen(state, b, stop, c, row, scratch)
            stop += 1
        for k in range(c + 1, stop):
            for column in range(7):
                scratch.low[k, column] = scratch.low[c, column]
            for column in range(4):
                scratch.high[k, column] = scratch.high[c, column]
        for d in range(state.devices[b]):
            if state.duration[b, row, d] <= state.least_duration[b, row]:
                scratch.rivals[d] += 1.0
        origin = min(origin, scratch.low[c, _START])
        first_finish = min(first_finish, scratch.low[c, _FINISH])
        top_rank = max(top_rank, state.upward_rank[b, row])
        c = stop
    return origin, first_finish, top_rank, pairs


@inner_inlined
def _widen(state: State, b: int, slot: int, first: int, row: int, scratch: Scratch) -> None:
    device, finish = state.candidate_device[b, slot], state.candidate_finish[b, slot]
    duration = finish - state.candidate_start[b, slot]
    path = finish + state.tail[b, row, device]
    low, high = scratch.low[first], scratch.high[first]
    low[_FINISH], high[_FINISH] = min(low[_FINISH], finish), max(high[_FINISH], finish)
    low[_PATH], high[_PATH] = min(low[_PATH], path), max(high[_PATH], path)
    low[_AHEAD], high[_AHEAD] = min(low[_AHEAD], scratch.ahead[slot]), max(high[_AHEAD], scratch.ahead[slot])
    low[_AHEAD_PATH] = min(low[_AHEAD_PATH], scratch.ahead_path[slot])
    high[_AHEAD_PATH] = max(high[_AHEAD_PATH], scratch.ahead_path[slot])
    low[_START] = min(low[_START], state.candidate_start[b, slot])
    low[_ENERGY] = min(low[_ENERGY], duration * state.power[b, device, state.candidate_point[b, slot]])
    low[_COST] = min(low[_COST], duration * state.price[b, device])


@inner_inlined
def _write_candidate(
    state: State,
    b: int,
    c: int,
    out: F32,
    scratch: Scratch,
    mode: int,
    origin: float,
    first_finish: float,
    top_rank: float,
) -> None:
    task, device = state.candidate_task[b, c], state.candidate_device[b, c]
    row, job = row_of(state, b, task), state.task_job[b, task]
    unit, bound, entry = state.unit[b], max(state.job_bound[b, job], 1e-12), state.entry[b, job]
    start, finish = state.candidate_start[b, c], state.candidate_finish[b, c]
    duration, path = finish - start, finish + state.tail[b, row, device]
    due = entry + state.latency[b, job]
    left = max(due - origin, 0.05 * bound)
    low, high = scratch.low[c], scratch.high[c]
    rank = state.upward_rank[b, row]
    children = state.successor_offset[b, row + 1] - state.successor_offset[b, row]
    out[0] = 0.0
    out[1] = _squash(duration / unit)
    out[2] = _clip(1.0 - state.least_duration[b, row] / duration, 0.0) if duration > 0.0 else 0.0
    out[3] = _squash((finish - state.best_finish[b, c]) / unit)
    out[4] = _scaled(finish, low[_FINISH], high[_FINISH])
    out[5] = _squash((path - state.best_path[b, c]) / unit)
    out[6] = _scaled(path, low[_PATH], high[_PATH])
    out[7] = _squash((scratch.ahead[c] - low[_AHEAD]) / unit)
    out[8] = _scaled(scratch.ahead[c], low[_AHEAD], high[_AHEAD])
    out[9] = _squash((scratch.ahead_path[c] - low[_AHEAD_PATH]) / unit)
    out[10] = _scaled(scratch.ahead_path[c], low[_AHEAD_PATH], high[_AHEAD_PATH])
    out[11] = _squash((finish - first_finish) / unit)
    out[12] = _clip((path - due) / left, -1.0)
    out[13] = _clip((scratch.ahead_path[c] - due) / left, -1.0)
    out[14] = _squash((start - origin) / unit)
    out[15] = _squash(max(start - state.free[b, device], 0.0) / unit)
    out[16] = _squash(_data_wait(state, b, task, c) / unit)
    out[17] = _clip((top_rank - rank) / max(top_rank, 1e-12), 0.0)
    out[18] = _clip(rank / left, 0.0)
    out[19] = state.downward_rank[b, row] / max(state.downward_rank[b, row] + rank, 1e-12)
    out[20] = 1.0 if rank >= top_rank else 0.0
    out[21] = _squash(max(state.free[b, device] - origin, 0.0) / unit)
    out[22] = _clip((state.free[b, device] - origin) / left, 0.0)
    out[23] = _local_share(state, b, row, task, device)
    out[24] = children / (children + 3.0)
    out[25] = _released_share(state, b, row, task, children)
    out[26] = _squash(state.mean_out[b, row] / unit)
    out[27] = _squash(max(origin - entry, 0.0) / bound) if mode == ONLINE else 0.0
    out[28] = _clip(1.0 - state.job_work_left[b, job] / max(state.job_work[b, job], 1e-12), 0.0)
    out[29] = _squash(_older_jobs(state, b, job) / 2.0)
    deadline = entry + state.deadline[b, job]
    out[30] = _clip((deadline - path) / bound, -1.0) if np.isfinite(deadline) else 1.0
    energy = duration * state.power[b, device, state.candidate_point[b, c]]
    cost = duration * state.price[b, device]
    out[31] = 1.0 - low[_ENERGY] / energy if energy > 0.0 else 0.0
    out[32] = 1.0 - low[_COST] / cost if cost > 0.0 else 0.0
    out[33] = 1.0 if start < state.free[b, device] else 0.0
    own = 1.0 if state.duration[b, row, device] <= state.least_duration[b, row] else 0.0
    out[34] = _squash((scratch.rivals[device] - own) / 2.0)
    out[35] = _squash((start - low[_START]) / unit)


@inner_inlined
def _data_wait(state: State, b: int, task: int, slot: int) -> float:
    job = state.task_job[b, task]
    shift = state.job_first[b, job] - state.job_row[b, job]
    last = state.entry[b, job]
    for e in range(state.predecessor_offset[b, task - shift], state.predecessor_offset[b, task - shift + 1]):
        last = max(last, state.finish[b, state.predecessor[b, e] + shift])
    return float(max(state.candidate_arrival[b, slot] - last, 0.0))


@inner_inlined
def _local_share(state: State, b: int, row: int, task: int, device: int) -> float:
    total, local = 0.0, 0.0
    for e in range(state.predecessor_offset[b, row], state.predecessor_offset[b, row + 1]):
        size = state.predecessor_bytes[b, e]
        total += size
        origin = state.device[b, state.predecessor[b, e] + task - row]
        if state.device_unit[b, origin] == state.device_unit[b, device]:
            local += size
    return local / total if total > 0.0 else 1.0


@inner_inlined
def _released_share(state: State, b: int, row: int, task: int, children: int) -> float:
    released = 0
    for e in range(state.successor_offset[b, row], state.successor_offset[b, row + 1]):
        if state.missing[b, state.successor[b, e] + task - row] == 1:
            released += 1
    return released / children if children > 0 else 0.0


@inner_inlined
def _older_jobs(state: State, b: int, job: int) -> float:
    older = 0
    if state.jobs[b] > 1:
        for other in range(job - 1, -1, -1):
            if state.job_left[b, other] > 0:
                older += 1
            elif job - other > 64:
                break
    return float(older)


@inner_inlined
def _expected_event(state: State, b: int) -> float:
    """Return the expected time until a running task ends, 0 when one is overdue; entries are not foreseen."""
    soonest = np.inf
    for device in range(state.devices[b]):
        if state.head[b, device] < state.length[b, device]:
            task = state.sequence[b, device, state.head[b, device]]
            expected = expected_duration(state, b, row_of(state, b, task), device, state.point[b, task])
            begin = state.start[b, task] if state.running[b, device] else state.arrival[b, task]
            soonest = min(soonest, max(begin + expected - state.now[b], 0.0))
    return soonest if np.isfinite(soonest) else 0.0


@inner_inlined
def _write_context(state: State, b: int, out: F32, mode: int, origin: float, until: float) -> None:
    devices = state.devices[b]
    busiest, laziest, total, idle, work = 0.0, np.inf, 0.0, 0, 0.0
    for d in range(devices):
        queue = max(state.free[b, d] - origin, 0.0)
        busiest, laziest, total = max(busiest, queue), min(laziest, queue), total + queue
        if state.free[b, d] <= origin:
            idle += 1
    due, oldest = 0.0, -1
    for job in range(max(0, state.entered[b] - 64), state.entered[b]):
        if state.job_left[b, job] > 0:
            oldest = job if oldest < 0 else oldest
            due = max(due, state.entry[b, job] + state.latency[b, job])
            work += state.job_work_left[b, job]
    bound = state.scale[b]
    left = max(due - origin, 0.05 * bound)
    mean_out = 0.0
    for row in range(state.rows[b]):
        mean_out += state.mean_out[b, row]
    mean_out /= state.rows[b]
    offered = min(state.readies[b], state.candidates[b])
    out[0] = state.placed[b] / state.tasks[b]
    out[1] = _squash((state.candidates[b] - 1) / 8.0)
    out[2] = _squash(state.readies[b] / devices)
    out[3] = _squash(max(state.potential[b], 0.0))
    out[4] = _squash(left / bound)
    out[5] = _squash(state.job_work[b, max(oldest, 0)] / (devices * max(state.job_bound[b, max(oldest, 0)], 1e-12)))
    out[6] = mean_out / state.unit[b] if state.unit[b] > 0.0 else 0.0
    out[6] = _clip(out[6], 0.0)
    out[7] = _squash(state.sigma[b])
    out[8] = _squash(state.inside[b] / 4.0) if mode == ONLINE else 0.0
    out[9] = _squash(total / devices / bound)
    out[10] = _squash(busiest / bound)
    out[11] = _squash(laziest / bound)
    out[12] = _squash(work / (devices * left))
    out[13] = 1.0 - offered / state.readies[b] if state.readies[b] > 0 else 0.0
    out[14] = state.preference[b, 0]
    out[15] = state.preference[b, 1]
    out[16] = state.preference[b, 2]
    out[17] = _clip(state.inside[b] / state.cap[b], 0.0) if state.cap[b] > 0 else 0.0
    out[18] = idle / devices
    out[19] = 1.0 if mode == ONLINE else 0.0
    out[20] = _squash(until)
    out[21] = devices / (devices + 8.0)
