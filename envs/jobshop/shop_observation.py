"""What a policy sees of a shop: its machines, each start that is possible now, and the state as a whole.

All of it is known on the shop floor at that moment: durations as expected, no job before its release where jobs are not
announced, no outage before it begins. Ratios "x per x and y" are x / (x + y), which grows from 0 to 1 as x does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from schedrl.arrays import F32, F64, I32
from schedrl.envs.jobshop.shop import NO_DUE_DATE, ShopInstance
from schedrl.envs.jobshop.shop_events import is_down, unfinished
from schedrl.envs.jobshop.shop_state import NEVER
from schedrl.graphs import Feature, FeatureTable, StaticGraph
from schedrl.kernels import inner, inner_inlined, kernel

if TYPE_CHECKING:
    from schedrl.envs.jobshop.shop_state import State

__all__ = ["FEATURES", "static_graph", "write_decisions"]


def _ratio(name: str, why: str, low: float = 0.0) -> Feature:
    return Feature(name=name, unit="ratio", low=low, high=1.0, why=why)


FEATURES = FeatureTable(
    node=(
        _ratio("machine", "the node is a machine, otherwise the shop"),
        _ratio("able", "share of the announced operations that it can do"),
        _ratio("load", "work that only it can do against the largest such load of a machine, as announced"),
        _ratio("duration", "mean duration of what it can do per that and the instance mean, as announced"),
        _ratio("speed", "mean of the fastest mode's duration over its own, for what it can do, as announced"),
        _ratio("size", "machines per those and 10"),
    ),
    edge_types=("has", "stands in"),
    edge=(),
    candidate_nodes=("machine",),
    candidate=(
        _ratio("wait", "nothing starts until the next event"),
        _ratio("duration", "duration per that and the mean; of waiting, the time to the next expected event"),
        _ratio("duration share", "duration over the job's remaining work, the SPT/TWKR index"),
        _ratio("duration share scale", "the same, from 0 to 1 over the candidates"),
        _ratio("duration scale", "duration from 0 to 1 over the candidates (SPT)"),
        _ratio("remaining scale", "remaining work from 0 to 1 over the candidates (MWKR)"),
        _ratio("remaining", "remaining work against the most of any job that is known"),
        _ratio("remaining to mean", "remaining work per that and the mean of the jobs known"),
        _ratio("speed", "duration of the operation's fastest mode over that of this one"),
        _ratio("later than best", "completion after the earliest expected over all modes, per that and the mean"),
        _ratio("best mode", "no mode of the operation is expected to complete earlier"),
        _ratio("setup", "time until it can start per that and the mean duration"),
        _ratio("waiting", "time since the job became ready per that and the mean duration (FIFO)"),
        _ratio("age", "time since release per that and the job's remaining work"),
        _ratio("operations left", "operations of the job left per those and 8 (MOPNR)"),
        _ratio("machine load", "work that only this machine can do against the largest load"),
        _ratio("machine criticality", "the same per that and the most remaining work of a job"),
        _ratio("competitors", "other candidates on the machine per those and 4"),
        _ratio("choices", "other candidates of the job per those and 4"),
        _ratio("alternatives", "other modes of the operation per those and 4"),
        _ratio("next duration", "least duration of the job's next operation per that and the mean"),
        _ratio("next wait", "time from completion until a machine for the next operation is free; < 0: idle", -1.0),
        _ratio("last", "the job's last operation"),
        _ratio("slack", "time to the due date beyond remaining work against the mean work of jobs; 1 without", -1.0),
        _ratio("late", "the job can no longer be in time"),
        _ratio("weight", "weight per that and the mean weight of the jobs known"),
        _ratio("urgency", "exp(-slack over twice the mean duration), as in ATC"),
        _ratio("weight per duration", "weight over duration per that and the ratio of their means (WSPT)"),
        _ratio("weight per remaining", "weight over remaining work per that and the ratio of their means"),
        _ratio("unblocks", "ready jobs that need the machine which the job would leave, per those and 2"),
        _ratio("blocked", "the job stays on a machine that it does not need any more"),
        _ratio("delays others", "when the longest other candidate of the machine could end against the horizon", -1.0),
        _ratio("loses", "time lost against starting the fastest mode now, per that and the mean duration"),
    ),
    context=(
        _ratio("progress", "operations started of those known"),
        _ratio("candidates", "candidates per those and 8"),
        _ratio("wait", "waiting is possible"),
        _ratio("jobs", "unfinished jobs known per those and the machines"),
        _ratio("idle", "share of the machines idle and up"),
        _ratio("down", "share of the machines down"),
        _ratio("blocked", "share of the machines held by jobs that are ready to leave"),
        _ratio("makespan weight", "of the objective"),
        _ratio("tardiness weight", "of the objective"),
        _ratio("flow weight", "of the objective"),
        _ratio("blocking", "jobs stay on their machines"),
        _ratio("no swap", "cycles of jobs are deadlocks"),
        _ratio("late", "share of the jobs known that can no longer be in time"),
        _ratio("announced", "all jobs are known beforehand"),
        _ratio("longest job", "mean remaining work of the jobs known over the most"),
        _ratio("bottleneck", "most remaining work of a job over that and the largest machine load"),
    ),
)
_NEVER, _NO_DUE_DATE = NEVER, NO_DUE_DATE
# Places of the figures of a decision: sums over the jobs known, and ranges over the candidates.
_KNOWN, _SUM, _MOST, _WEIGHTS, _LATE, _LOAD, _EVENT = 0, 1, 2, 3, 4, 5, 6
_SHARE_LOW, _SHARE_HIGH, _SHORT, _LONG, _REST_LOW, _REST_HIGH, _READY = 7, 8, 9, 10, 11, 12, 13


def static_graph(instance: ShopInstance) -> StaticGraph:
    """Return the machines and the shop as a graph, with an edge each way; unannounced jobs leave no trace in it."""
    count = instance.machines
    features = np.zeros((count + 1, len(FEATURES.node)), dtype=np.float32)
    features[:count, 0] = 1.0
    features[:, 5] = count / (count + 10.0)
    if instance.announced:
        machine, duration = instance.machine, instance.duration.astype(np.float64)
        least = instance.least_duration[instance.mode_operation]
        able = np.bincount(machine, minlength=count)
        fixed = np.diff(instance.mode_offset)[instance.mode_operation] == 1
        load = np.bincount(machine[fixed], duration[fixed], count)
        mean = np.bincount(machine, duration, count) / np.maximum(able, 1)
        ratio = np.where(duration > 0.0, least / np.maximum(duration, 1e-9), 1.0)
        features[:count, 1] = able / instance.operations
        features[:count, 2] = load / max(float(load.max()), 1.0)
        features[:count, 3] = mean / (mean + max(float(instance.least_duration.mean()), 1e-9))
        features[:count, 4] = np.bincount(machine, ratio, count) / np.maximum(able, 1)
    machines, shop = np.arange(count), np.full(count, count)
    return StaticGraph(
        node_features=features,
        edge_index=np.stack([np.append(machines, shop), np.append(shop, machines)]).astype(np.int32),
        edge_type=np.repeat([0, 1], count).astype(np.int8),
        edge_features=np.zeros((2 * count, 0), dtype=np.float32),
    )


@inner_inlined
def _per(x: float, y: float) -> float:
    return x / (x + y) if x > 0.0 else 0.0


@inner_inlined
def _known(state: State, b: int, j: int) -> bool:
    return bool(state.announced[b] or state.release[b, j] <= state.now[b])


@inner_inlined
def _slack(state: State, b: int, j: int) -> float:
    return float(state.due[b, j] - max(state.now[b], state.release[b, j]) - state.remaining[b, j])


@inner_inlined
def _scaled(x: float, low: float, high: float) -> float:
    return (x - low) / (high - low) if high > low else 0.5


@inner_inlined
def _duration_share(state: State, b: int, slot: int) -> float:
    p, rest = state.duration[b, state.candidate_mode[b, slot]], state.remaining[b, state.candidate_job[b, slot]]
    return min(float(p / rest), 1.0) if rest > 0 else 1.0


@inner_inlined
def _widen(figures: F64, low: int, value: float) -> None:
    """Widen a range, whose upper end follows its lower one, to a value."""
    figures[low], figures[low + 1] = min(figures[low], value), max(figures[low + 1], value)


@inner
def _survey(state: State, b: int, figures: F64) -> None:
    """Sum up the jobs known and find the ranges over the candidates."""
    now = state.now[b]
    figures[:] = 0.0
    event = float(_NEVER)
    for j in range(state.jobs[b]):
        if not _known(state, b, j):
            continue
        if state.ready[b, j] > now:
            event = min(event, max(float(state.expected[b, j]), now + 1.0))
        if unfinished(state, b, j):
            figures[_KNOWN] += 1.0
            figures[_SUM] += state.remaining[b, j]
            figures[_MOST] = max(figures[_MOST], state.remaining[b, j])
            figures[_WEIGHTS] += state.weight[b, j]
            figures[_LATE] += state.due[b, j] < _NO_DUE_DATE and _slack(state, b, j) < 0.0
            figures[_READY] += state.held[b, j] >= 0 and state.ready[b, j] <= now
    if state.announced[b]:
        for m in range(state.machines[b]):
            figures[_LOAD] = max(figures[_LOAD], state.load[b, m])
    figures[_EVENT] = 0.0 if event >= _NEVER else event - now
    figures[_SHARE_LOW] = figures[_SHORT] = figures[_REST_LOW] = np.inf
    for slot in range(state.candidates[b]):
        j = state.candidate_job[b, slot]
        if j >= 0:
            share, p = _duration_share(state, b, slot), float(state.duration[b, state.candidate_mode[b, slot]])
            rest = float(state.remaining[b, j])
            figures[_SHARE_LOW], figures[_SHARE_HIGH] = (
                min(figures[_SHARE_LOW], share),
                max(figures[_SHARE_HIGH], share),
            )
            figures[_SHORT], figures[_LONG] = min(figures[_SHORT], p), max(figures[_LONG], p)
            figures[_REST_LOW], figures[_REST_HIGH] = min(figures[_REST_LOW], rest), max(figures[_REST_HIGH], rest)


@inner
def _expected_free(state: State, b: int, m: int) -> float:
    """Return when a machine is expected to be free, now if it is."""
    now = float(state.now[b])
    if is_down(state, b, m, state.now[b]) >= 0:
        return float(now + state.mean_duration[b])
    return now if state.free[b, m] <= state.now[b] else max(float(state.expected_free[b, m]), now + 1.0)


@inner
def _earliest(state: State, b: int, o: int, after: float) -> float:
    """Return the earliest expected start of an operation over its modes, setups left out."""
    best = np.inf
    for k in range(state.mode_offset[b, o], state.mode_offset[b, o + 1]):
        best = min(best, max(after, _expected_free(state, b, state.machine[b, k])))
    return best


@inner
def _write_dates(state: State, b: int, j: int, p: float, figures: F64, out: F32) -> None:
    known, weight, rest = figures[_KNOWN], state.weight[b, j], float(state.remaining[b, j])
    mean_weight, mean_rest = max(figures[_WEIGHTS] / known, 1e-9), max(figures[_SUM] / known, 1e-9)
    out[23], out[26] = 1.0, 0.0
    if state.due[b, j] < _NO_DUE_DATE:
        slack = _slack(state, b, j)
        out[23] = slack / (abs(slack) + mean_rest)
        out[24] = slack < 0.0
        out[26] = np.exp(-max(slack, 0.0) / (2.0 * state.mean_duration[b]))
    out[25] = _per(weight, mean_weight)
    out[27] = _per(weight / max(p, 1e-9), mean_weight / state.mean_duration[b])
    out[28] = _per(weight / max(rest, 1e-9), mean_weight / mean_rest)


@inner
def _write_rivals(state: State, b: int, slot: int, p: float, figures: F64, out: F32) -> None:
    """Fill what a candidate means for others."""
    j, k = state.candidate_job[b, slot], state.candidate_mode[b, slot]
    m, now = state.machine[b, k], state.now[b]
    rivals = others = longest = unblocks = 0.0
    for other in range(state.candidates[b]):
        i = state.candidate_job[b, other]
        if i < 0 or other == slot:
            continue
        others += i == j
        if i != j and state.machine[b, state.candidate_mode[b, other]] == m:
            rivals += 1.0
            longest = max(longest, float(state.remaining[b, i]))
    held = state.held[b, j]
    if held >= 0:
        for i in range(state.jobs[b]):
            if i != j and state.ready[b, i] <= now and unfinished(state, b, i):
                o = state.next_operation[b, i]
                unblocks += state.machine[b, state.mode_offset[b, o]] == held
        out[30] = held != m
    out[17], out[18], out[29] = _per(rivals, 4.0), _per(others, 4.0), _per(unblocks, 2.0)
    horizon = max(figures[_MOST], figures[_LOAD], 1e-9)
    end = state.candidate_start[b, slot] - now + p + longest
    out[31] = min(max((end - horizon) / horizon, -1.0), 1.0) if rivals > 0.0 else -1.0


@inner
def _write_candidate(state: State, b: int, slot: int, figures: F64, out: F32) -> None:
    j, k = state.candidate_job[b, slot], state.candidate_mode[b, slot]
    o, m, now, mean = state.next_operation[b, j], state.machine[b, k], state.now[b], state.mean_duration[b]
    p, rest, start = float(state.duration[b, k]), float(state.remaining[b, j]), float(state.candidate_start[b, slot])
    least = float(state.least[b, o])
    out[1] = _per(p, mean)
    share = _duration_share(state, b, slot)
    out[2], out[3] = share, _scaled(share, figures[_SHARE_LOW], figures[_SHARE_HIGH])
    out[4] = _scaled(p, figures[_SHORT], figures[_LONG])
    out[5] = _scaled(rest, figures[_REST_LOW], figures[_REST_HIGH])
    out[6] = rest / max(figures[_MOST], 1e-9)
    out[7] = _per(rest, figures[_SUM] / figures[_KNOWN])
    out[8] = least / p if p > 0.0 else 1.0
    best = np.inf
    for other in range(state.mode_offset[b, o], state.mode_offset[b, o + 1]):
        free = start if other == k else _expected_free(state, b, state.machine[b, other])
        best = min(best, max(free, float(now)) + state.duration[b, other])
    out[9] = _per(start + p - best, mean)
    out[10] = start + p <= best
    out[11] = _per(start - now, mean)
    out[12] = _per(float(now - state.ready[b, j]), mean)
    out[13] = _per(float(now - state.release[b, j]), max(rest, 1e-9))
    left = float(state.job_offset[b, j + 1] - o)
    out[14] = _per(left, 8.0)
    if state.announced[b]:
        out[15] = state.load[b, m] / max(figures[_LOAD], 1e-9)
        out[16] = _per(float(state.load[b, m]), max(figures[_MOST], 1e-9))
    out[19] = _per(float(state.mode_offset[b, o + 1] - state.mode_offset[b, o] - 1), 4.0)
    if left > 1.0:
        out[20] = _per(float(state.least[b, o + 1]), mean)
        wait = _earliest(state, b, o + 1, float(now)) - (start + p)
        out[21] = wait / (abs(wait) + mean)
    else:
        out[22] = 1.0
    out[32] = _per(start - now + p - least, mean)
    _write_dates(state, b, j, p, figures, out)
    _write_rivals(state, b, slot, p, figures, out)


@inner
def _write_context(state: State, b: int, figures: F64, out: F32) -> None:
    machines, known = state.machines[b], figures[_KNOWN]
    left = started = idle = down = 0.0
    for j in range(state.jobs[b]):
        if _known(state, b, j):
            left += state.job_offset[b, j + 1] - state.next_operation[b, j]
            started += state.next_operation[b, j] - state.job_offset[b, j]
    for m in range(machines):
        broken = is_down(state, b, m, state.now[b]) >= 0
        down += broken
        idle += not broken and state.free[b, m] <= state.now[b]
    weights = state.objective[b]
    total = weights[0] + weights[1] + weights[2]
    out[0] = started / max(started + left, 1.0)
    out[1] = _per(float(state.candidates[b]), 8.0)
    out[2] = state.candidate_job[b, state.candidates[b] - 1] < 0
    out[3] = _per(known, float(machines))
    out[4], out[5], out[6] = idle / machines, down / machines, min(figures[_READY] / machines, 1.0)
    out[7], out[8], out[9] = weights[0] / total, weights[1] / total, weights[2] / total
    out[10], out[11], out[13] = state.blocking[b] != 0, state.blocking[b] == 2, state.announced[b]
    out[12] = figures[_LATE] / max(known, 1.0)
    out[14] = figures[_SUM] / max(known * figures[_MOST], 1e-9)
    out[15] = _per(figures[_MOST], max(figures[_LOAD], 1e-9))


@kernel
def write_decisions(state: State, candidates: I32, features: F32, context: F32, count: I32) -> None:
    """Fill the decision arrays of all rows; see ``FEATURES``."""
    features[:] = 0.0
    context[:] = 0.0
    candidates[:] = 0
    for b in range(len(count)):
        count[b] = state.candidates[b]
        if count[b] == 0:
            continue
        figures = state.figures[b]
        _survey(state, b, figures)
        for slot in range(count[b]):
            if state.candidate_job[b, slot] < 0:
                candidates[b, slot, 0] = state.machines[b]
                features[b, slot, 0] = 1.0
                features[b, slot, 1] = _per(figures[_EVENT], state.mean_duration[b])
                continue
            candidates[b, slot, 0] = state.machine[b, state.candidate_mode[b, slot]]
            _write_candidate(state, b, slot, figures, features[b, slot])
        _write_context(state, b, figures, context[b])
