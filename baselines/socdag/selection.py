"""How list-scheduling heuristics choose: by a fixed sequence, among all pairs, with a look ahead, or by energy.

A value counts as better only if it is smaller; ties go to the lowest device, unless the rule says otherwise, and
between tasks to the one that stands first in the given sequence.
"""

from __future__ import annotations

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.baselines.socdag.list_scheduling import (
    State,
    begin_job,
    data_ready,
    earliest_start,
    end_job,
    place,
    ready_tasks,
    settle,
    take,
    take_first,
    withdraw,
)
from schedrl.kernels import inner, kernel

__all__ = [
    "BY_FINISH",
    "BY_START",
    "DYNAMIC_LEVEL",
    "EARLIEST_START",
    "IMAGINARY_MAKESPAN",
    "LARGEST_FINISH",
    "LARGEST_SUFFERAGE",
    "SMALLEST_FINISH",
    "by_energy_delay",
    "by_pair",
    "by_sequence",
    "with_lookahead",
]

BY_FINISH, BY_START = 0, 1
SMALLEST_FINISH, LARGEST_FINISH, LARGEST_SUFFERAGE, EARLIEST_START, DYNAMIC_LEVEL, IMAGINARY_MAKESPAN = range(6)


@kernel
def by_sequence(state: State, position: I32, bias: F64, pinned: I32, rule: int) -> None:
    """Place the ready task that stands first; its device minimises the finish plus ``bias``, or the start.

    Args:
        state: filled with the plan.
        position: (N,) of each task in the sequence.
        bias: (N, D) added to the finish.
        pinned: (N,) device that a task has to go to, -1 for a free choice.
        rule: ``BY_FINISH`` or ``BY_START``.
    """
    for j in range(len(state.release)):
        begin_job(state, j)
        while ready_tasks(state) > 0:
            t = take_first(state, position)
            chosen, best, chosen_start = -1, np.inf, 0.0
            for q in range(state.duration.shape[1]):
                duration = state.duration[t, q]
                if np.isinf(duration) or (pinned[t] >= 0 and pinned[t] != q):
                    continue
                start = earliest_start(state, q, data_ready(state, t, q, state.entry[j]), duration)
                value = start if rule == BY_START else start + duration + bias[t, q]
                if chosen < 0 or value < best:
                    chosen, best, chosen_start = q, value, start
            place(state, t, chosen, chosen_start, state.duration[t, chosen])
        end_job(state, j)


@kernel
def by_pair(state: State, position: I32, level: F64, rule: int, score: F64, chosen: I32, at: F64) -> None:
    """Place, of all ready tasks, the one with the best value on its best device.

    Args:
        state: filled with the plan.
        position: (N,) of each task in the sequence that breaks ties.
        level: (N, D) what ``DYNAMIC_LEVEL`` adds to a pair, and the best imaginary level of ``IMAGINARY_MAKESPAN``.
        rule: one of the constants of this module.
        score: (D,) scratch.
        chosen: (N,) scratch, the best device of each task.
        at: (N,) scratch, its start there.
    """
    for j in range(len(state.release)):
        begin_job(state, j)
        while ready_tasks(state) > 0:
            best, best_value = -1, np.inf
            for k in range(ready_tasks(state)):
                t = state.ready[k]
                value = _assess(state, t, state.entry[j], level, rule, score, chosen, at)
                tie = value == best_value and position[t] < position[state.ready[best]]
                if best < 0 or value < best_value or tie:
                    best, best_value = k, value
            t = take(state, best)
            place(state, t, chosen[t], at[t], state.duration[t, chosen[t]])
        end_job(state, j)


@inner
def _assess(state: State, t: int, entry: float, level: F64, rule: int, score: F64, chosen: I32, at: F64) -> float:
    """Choose a task's device and return the value, smaller is better, with which it competes against other tasks.

    Of equal earliest starts the one with the smaller finish wins.
    """
    devices = state.duration.shape[1]
    crowd = max(ready_tasks(state) / devices - 1.0, 0.0)
    first, second, finish = np.inf, np.inf, np.inf
    supported = 0
    chosen[t] = -1
    for q in range(devices):
        duration = state.duration[t, q]
        if np.isinf(duration):
            continue
        start = earliest_start(state, q, data_ready(state, t, q, entry), duration)
        value = start + duration
        if rule == EARLIEST_START:
            value = start
        elif rule == DYNAMIC_LEVEL:
            value = start - level[t, q]
        elif rule == IMAGINARY_MAKESPAN:
            value = start + level[t, q]
            score[supported] = value
            value += duration * crowd
        supported += 1
        tie = rule == EARLIEST_START and value == first and start + duration < finish
        if chosen[t] < 0 or value < first or tie:
            first, second = value, first
            chosen[t], at[t], finish = q, start, start + duration
        else:
            second = min(second, value)
    if rule == LARGEST_FINISH:
        return -first
    if rule == LARGEST_SUFFERAGE:
        return first - second
    if rule == IMAGINARY_MAKESPAN:
        return -_kth_smallest(score, supported, min(ready_tasks(state), supported))
    return first


@inner
def _kth_smallest(values: F64, count: int, k: int) -> float:
    """Return the k-th smallest, from 1, of the first values, and sort these."""
    for i in range(1, count):
        value, hole = values[i], i
        while hole > 0 and values[hole - 1] > value:
            values[hole] = values[hole - 1]
            hole -= 1
        values[hole] = value
    return float(values[k - 1])


@kernel
def with_lookahead(state: State, position: I32, children: I32, link_copy: F64) -> None:
    """Place the ready task that stands first where its children can finish first.

    For each device the task is put there, then its children in sequence on the devices where they finish first, as
    far as their inputs are known; the device with the smallest last finish of a child wins, for a task without
    children that with the smallest finish; ties go to the smaller finish of the task itself.

    Args:
        state: filled with the plan.
        position: (N,) of each task in the sequence.
        children: (N,) scratch.
        link_copy: (D, D) scratch.
    """
    for j in range(len(state.release)):
        begin_job(state, j)
        entry = state.entry[j]
        while ready_tasks(state) > 0:
            t = take_first(state, position)
            count = _children(state, t, position, children)
            chosen, chosen_start, best, best_end = -1, 0.0, np.inf, np.inf
            for q in range(state.duration.shape[1]):
                duration = state.duration[t, q]
                if np.isinf(duration):
                    continue
                start = earliest_start(state, q, data_ready(state, t, q, entry), duration)
                _copy(state.link_free, link_copy, state.contention)
                settle(state, t, q, start, duration)
                value = start + duration if count == 0 else _last_child(state, children, count, entry)
                withdraw(state, t)
                _copy(link_copy, state.link_free, state.contention)
                if chosen < 0 or value < best or (value == best and start + duration < best_end):
                    chosen, chosen_start, best, best_end = q, start, value, start + duration
            place(state, t, chosen, chosen_start, state.duration[t, chosen])
        end_job(state, j)


@inner
def _children(state: State, t: int, position: I32, children: I32) -> int:
    """Fill in a task's successors in sequence and return how many there are."""
    count = 0
    for k in range(state.successor_offset[t], state.successor_offset[t + 1]):
        child, hole = state.target[state.successor_edge[k]], count
        while hole > 0 and position[children[hole - 1]] > position[child]:
            children[hole] = children[hole - 1]
            hole -= 1
        children[hole] = child
        count += 1
    return count


@inner
def _last_child(state: State, children: I32, count: int, entry: float) -> float:
    """Return the last finish of the children when placed one after another, and take them back."""
    last = 0.0
    for k in range(count):
        child, chosen, chosen_start, finish = children[k], -1, 0.0, np.inf
        for q in range(state.duration.shape[1]):
            duration = state.duration[child, q]
            if np.isinf(duration):
                continue
            start = earliest_start(state, q, data_ready(state, child, q, entry), duration)
            if chosen < 0 or start + duration < finish:
                chosen, chosen_start, finish = q, start, start + duration
        settle(state, child, chosen, chosen_start, state.duration[child, chosen])
        last = max(last, finish)
    for k in range(count):
        withdraw(state, children[k])
    return last


@inner
def _copy(source: F64, target: F64, needed: bool) -> None:
    if needed:
        for u in range(len(source)):
            for v in range(len(source)):
                target[u, v] = source[u, v]


@kernel
def by_energy_delay(
    state: State, position: I32, full_speed: F64, speed: F64, power: F64, points: I32, relative: bool
) -> None:
    """Place the ready task that stands first at the device and operating point with the least energy-delay product.

    Args:
        state: filled with the plan.
        position: (N,) of each task in the sequence.
        full_speed: (N, D) durations at full speed.
        speed: (D, K) of each operating point against full speed.
        power: (D, K) watts.
        points: (D,) number of operating points.
        relative: count the delay from the task's earliest start anywhere instead of its start there.
    """
    for j in range(len(state.release)):
        begin_job(state, j)
        while ready_tasks(state) > 0:
            t = take_first(state, position)
            q, k, start = _least_energy_delay(state, t, state.entry[j], full_speed, speed, power, points, relative)
            state.point[t] = k
            place(state, t, q, start, _slowed(state, full_speed[t, q], speed[q, k]))
        end_job(state, j)


@inner
def _slowed(state: State, duration: float, speed: float) -> float:
    slowed = duration / speed
    return np.ceil(slowed - 1e-9) if state.whole_units else slowed


@inner
def _least_energy_delay(
    state: State, t: int, entry: float, full_speed: F64, speed: F64, power: F64, points: I32, relative: bool
) -> tuple[int, int, float]:
    """Return device, operating point and start; ties go to the earlier finish."""
    origin = np.inf
    for q in range(len(points)):
        if relative and np.isfinite(full_speed[t, q]):
            ready = data_ready(state, t, q, entry)
            for k in range(points[q]):
                duration = _slowed(state, full_speed[t, q], speed[q, k])
                origin = min(origin, earliest_start(state, q, ready, duration))
    chosen, point, chosen_start, best, best_end = -1, 0, 0.0, np.inf, np.inf
    for q in range(len(points)):
        if np.isinf(full_speed[t, q]):
            continue
        ready = data_ready(state, t, q, entry)
        for k in range(points[q]):
            duration = _slowed(state, full_speed[t, q], speed[q, k])
            start = earliest_start(state, q, ready, duration)
            delay = start + duration - (origin if relative else start)
            value = delay * delay * power[q, k]
            if chosen < 0 or value < best or (value == best and start + duration < best_end):
                chosen, point, chosen_start, best, best_end = q, k, start, value, start + duration
    return chosen, point, chosen_start
