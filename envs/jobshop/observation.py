"""What a job-shop policy sees: features of operations and machines, of candidates, and of the whole state.

All features are ratios bounded to [-1, 1], so that a policy trained on small instances reads large ones.
``x / (1 + |x|)`` bounds what has no natural limit. Times count from the earliest start among the candidates,
so that a half-finished instance looks like a fresh one (residual scheduling, Ho et al. 2023).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from schedrl.arrays import F32, I32, I64
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.graphs import Feature, FeatureTable, StaticGraph
from schedrl.kernels import inner_inlined, kernel

if TYPE_CHECKING:
    from schedrl.envs.jobshop.state import State

__all__ = ["FEATURES", "static_graph", "write_decisions"]


def _ratio(name: str, why: str, low: float = 0.0) -> Feature:
    return Feature(name=name, unit="1", low=low, high=1.0, why=why)


_NODE = (
    _ratio("is_machine", "tells machine nodes from operation nodes"),
    _ratio("duration", "operation: duration against the instance mean, squashed; machine: mean of its operations"),
    _ratio("duration_share", "operation: share of its job's work; machine: share of all work"),
    _ratio("head", "work before the operation in its job, against the initial bound"),
    _ratio("tail", "work after the operation in its job, against the initial bound"),
    _ratio("job_work", "work of the whole job against the initial bound: long jobs are critical"),
    _ratio("machine_work", "load of the machine against the initial bound: loaded machines are critical"),
    _ratio("position", "position of the operation in its job, 0 first to 1 last"),
)
_CANDIDATE = (
    _ratio("duration", "duration against the instance mean, squashed (SPT)"),
    _ratio("duration_share", "duration over the job's remaining work, the SPT/TWKR index"),
    _ratio("duration_share_rank", "the same, scaled to 0..1 over the candidates of the decision"),
    _ratio("duration_rank", "duration scaled to 0..1 over the candidates"),
    _ratio("remaining_rank", "remaining work scaled to 0..1 over the candidates (MWKR)"),
    _ratio("remaining", "remaining work against the time left to the lower bound: 1 is a critical job"),
    _ratio("slack", "how long the job could wait before it raises the bound, against the time left"),
    _ratio("start_delay", "idle time caused against the earliest candidate, in mean durations, squashed"),
    _ratio("start_delay_share", "the same, against the window up to the earliest completion"),
    _ratio("completion_delay", "completion after the earliest possible completion, squashed"),
    _ratio("waiting", "time since the job became ready, in mean durations, squashed (FIFO)"),
    _ratio("machine_idle", "idle time left on the machine before the start, squashed"),
    _ratio("operations_share", "remaining operations of the job against the machines, squashed (MOPNR)"),
    _ratio("remaining_against_mean", "remaining work against the mean of all unfinished jobs, squashed"),
    _ratio("duration_against_job", "duration against the mean duration of the job's remaining operations, squashed"),
    _ratio("next_duration", "duration of the job's next operation against the instance mean, squashed"),
    _ratio("next_machine_wait", "when the next machine becomes free after this completion, squashed; < 0: idle", -1.0),
    _ratio("next_queue", "work queued at the next machine in mean durations, squashed (work in next queue)"),
    _ratio("next_machine_load", "undispatched work of the next machine against the time left"),
    _ratio("next_machine_slack", "slack of the next machine against the time left", -1.0),
    _ratio("bound_increase", "how far choosing this candidate raises the lower bound, in mean durations, squashed"),
    _ratio("delays_others", "where the longest job it delays would end, against the bound", -1.0),
    _ratio("last", "whether this is the job's last operation"),
    _ratio("progress", "share of the job's work already dispatched"),
    _ratio("tail", "work after this operation against the time left"),
    _ratio("machine_remaining", "undispatched work of its machine against the time left"),
)
_CONTEXT = (
    _ratio("progress", "share of operations dispatched"),
    _ratio("candidates", "number of candidates, squashed"),
    _ratio("bound_growth", "growth of the lower bound since the start, in units of the initial bound"),
    _ratio("time_left", "time from the earliest start to the lower bound, against the bound"),
    _ratio("machine_load", "undispatched work of the deciding machine against the time left"),
    _ratio("machine_slack", "slack of the deciding machine against the time left", -1.0),
    _ratio("machine_operations", "undispatched operations of the deciding machine against all jobs"),
    _ratio("unfinished_jobs", "share of jobs unfinished"),
    _ratio("jobs_per_machine", "unfinished jobs against machines, squashed"),
    _ratio("mean_machine_load", "mean undispatched work of the machines against the time left"),
    _ratio("mean_job_load", "mean remaining work of the unfinished jobs against the time left"),
    _ratio("max_machine_load", "largest undispatched work of a machine against the time left"),
    _ratio("window", "earliest completion after the earliest start, in mean durations, squashed"),
    _ratio("queue_share", "candidates against unfinished jobs"),
)
FEATURES = FeatureTable(
    node=_NODE,
    edge_types=("predecessor", "successor", "operation-to-machine", "machine-to-operation"),
    edge=(),
    candidate_nodes=("operation", "machine"),
    candidate=_CANDIDATE,
    context=_CONTEXT,
)


def static_graph(instance: JobShopInstance) -> StaticGraph:
    """Return the graph of an instance: operation nodes in flat order, then one node per machine.

    Job successors are linked both ways; operations meet on their machine's node, which keeps the number of
    edges linear in operations where the classic disjunctive cliques are quadratic.
    """
    n, machines = instance.operations, instance.machines
    first = instance.job_offset[:-1][instance.job]
    work = np.bincount(instance.job, instance.duration, instance.jobs)[instance.job]
    before = np.concatenate([[0], np.cumsum(instance.duration)])
    head = (before[:-1] - before[first]).astype(np.float64)
    load = np.bincount(instance.machine, instance.duration, machines)
    visits = np.maximum(np.bincount(instance.machine, minlength=machines), 1)
    bound = max(work.max(), load.max(), 1.0)
    mean = max(float(instance.duration.mean()), 1e-9)
    length = np.diff(instance.job_offset)[instance.job]
    features = np.zeros((n + machines, len(_NODE)), dtype=np.float32)
    features[:n, 1] = instance.duration / (instance.duration + mean)
    features[:n, 2] = instance.duration / np.maximum(work, 1)
    features[:n, 3] = head / bound
    features[:n, 4] = (work - head - instance.duration) / bound
    features[:n, 5] = work / bound
    features[:n, 6] = load[instance.machine] / bound
    features[:n, 7] = (np.arange(n) - first) / np.maximum(length - 1, 1)
    features[n:, 0] = 1.0
    features[n:, 1] = (load / visits) / (load / visits + mean)
    features[n:, 2] = load / max(load.sum(), 1.0)
    features[n:, 6] = load / bound
    follows = np.flatnonzero(instance.job[1:] == instance.job[:-1]).astype(np.int32)
    operation = np.arange(n, dtype=np.int32)
    machine_node = instance.machine + np.int32(n)
    edges = [(follows, follows + 1), (follows + 1, follows), (operation, machine_node), (machine_node, operation)]
    return StaticGraph(
        node_features=features,
        edge_index=np.concatenate([np.stack(edge) for edge in edges], axis=1).astype(np.int32),
        edge_type=np.repeat(np.arange(4, dtype=np.int8), [len(source) for source, _ in edges]),
        edge_features=np.zeros((2 * len(follows) + 2 * n, 0), dtype=np.float32),
    )


@inner_inlined
def _squash(value: float) -> float:
    return value / (1.0 + abs(value))


@inner_inlined
def _clip(value: float, low: float) -> float:
    return min(max(value, low), 1.0)


@inner_inlined
def _scaled(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.0


@kernel
def write_decisions(
    state: State, candidates: I32, candidate_features: F32, context: F32, count: I32, scratch: I64
) -> None:
    """Write the decision of every row; unused slots read zero. ``scratch`` is (3, M)."""
    for b in range(len(count)):
        # ``count`` still tells how many slots the last decision filled.
        candidates[b, state.candidates[b] : count[b]] = 0
        candidate_features[b, state.candidates[b] : count[b]] = 0.0
        count[b] = state.candidates[b]
        _write_decision(state, b, candidates[b], candidate_features[b], context[b], scratch)


@inner_inlined
def _write_decision(state: State, b: int, nodes: I32, features: F32, context: F32, scratch: I64) -> None:
    """Write the decision of row b into (C, 2) node ids, (C, Fc) candidate features and (Fg,) context.

    ``scratch`` is (3, M): queued work, and the two longest remainders among the candidates of each machine.
    """
    if state.candidates[b] == 0:
        context[:] = 0.0
        context[0] = 1.0
        return
    machines = state.machines[b]
    queue, longest, second = scratch[0], scratch[1], scratch[2]
    queue[:machines] = 0
    longest[:machines] = -1
    second[:machines] = -1
    unfinished, remaining_sum = 0, 0
    for j in range(state.jobs[b]):
        operation = state.next_operation[b, j]
        if operation < state.job_offset[b, j + 1]:
            unfinished += 1
            remaining_sum += state.job_remaining[b, j]
            queue[state.machine[b, operation]] += state.duration[b, operation]
    origin = state.horizon_start[b]
    left = float(max(state.lower_bound[b] - origin, 1))
    ranges = _candidate_ranges(state, b, longest, second)
    mean_remaining = max(remaining_sum / unfinished, 1e-9)
    for c in range(state.candidates[b]):
        _write_candidate(state, b, c, nodes[c], features[c], scratch, ranges, left, mean_remaining)
    _write_context(state, b, context, left, unfinished, remaining_sum)


@inner_inlined
def _candidate_ranges(
    state: State, b: int, longest: I64, second: I64
) -> tuple[float, float, float, float, float, float]:
    """Return (low, high) of duration share, duration and remaining work; fill the longest remainders."""
    share_low, share_high = np.inf, -np.inf
    duration_low, duration_high = np.inf, -np.inf
    remaining_low, remaining_high = np.inf, -np.inf
    for c in range(state.candidates[b]):
        j = state.candidate_job[b, c]
        operation = state.next_operation[b, j]
        machine = state.machine[b, operation]
        remaining = state.job_remaining[b, j]
        duration = float(state.duration[b, operation])
        share = duration / max(remaining, 1)
        share_low, share_high = min(share_low, share), max(share_high, share)
        duration_low, duration_high = min(duration_low, duration), max(duration_high, duration)
        remaining_low, remaining_high = min(remaining_low, float(remaining)), max(remaining_high, float(remaining))
        if remaining > longest[machine]:
            second[machine] = longest[machine]
            longest[machine] = remaining
        elif remaining > second[machine]:
            second[machine] = remaining
    return share_low, share_high, duration_low, duration_high, remaining_low, remaining_high


@inner_inlined
def _write_candidate(
    state: State,
    b: int,
    c: int,
    nodes: I32,
    out: F32,
    scratch: I64,
    ranges: tuple[float, float, float, float, float, float],
    left: float,
    mean_remaining: float,
) -> None:
    j = state.candidate_job[b, c]
    operation = state.next_operation[b, j]
    machine = state.machine[b, operation]
    mean = state.mean_duration[b]
    bound = state.lower_bound[b]
    start = state.candidate_start[b, c]
    duration = float(state.duration[b, operation])
    end = start + state.duration[b, operation]
    remaining = state.job_remaining[b, j]
    operations = state.job_offset[b, j + 1] - operation
    share = duration / max(remaining, 1)
    wait = start - state.horizon_start[b]
    nodes[0] = operation
    nodes[1] = state.operations[b] + machine
    out[0] = _squash(duration / mean)
    out[1] = share
    out[2] = _scaled(share, ranges[0], ranges[1])
    out[3] = _scaled(duration, ranges[2], ranges[3])
    out[4] = _scaled(float(remaining), ranges[4], ranges[5])
    out[5] = _clip(remaining / left, 0.0)
    out[6] = _clip((bound - start - remaining) / left, 0.0)
    out[7] = _squash(wait / mean)
    out[8] = _clip(wait / max(state.earliest_completion[b] - state.horizon_start[b], 1), 0.0)
    out[9] = _squash(max(end - state.earliest_completion[b], 0) / mean)
    out[10] = _squash((start - state.job_ready[b, j]) / mean)
    out[11] = _squash(max(start - state.machine_free[b, machine], 0) / mean)
    out[12] = _squash(operations / state.machines[b])
    out[13] = _squash(remaining / mean_remaining)
    out[14] = _squash(duration * operations / max(remaining, 1))
    _write_next_machine(state, b, operation, end, out, scratch[0], left, operations > 1)
    # The longest other job queued on this machine can end no earlier than this operation's end + its remainder.
    other = scratch[1, machine]
    if other == remaining:
        other = scratch[2, machine]
    raised = end + state.machine_remaining[b, machine] - state.duration[b, operation]
    if other >= 0:
        raised = max(raised, end + other)
        out[21] = _clip((end + other - bound) / left, -1.0)
    else:
        out[21] = -1.0
    out[20] = _squash(max(max(raised, start + remaining) - bound, 0) / mean)
    out[22] = 1.0 if operations == 1 else 0.0
    out[23] = 1.0 - remaining / max(state.job_work[b, j], 1)
    out[24] = _clip((remaining - duration) / left, 0.0)
    out[25] = _clip(state.machine_remaining[b, machine] / left, 0.0)


@inner_inlined
def _write_next_machine(
    state: State, b: int, operation: int, end: int, out: F32, queue: I64, left: float, exists: bool
) -> None:
    if not exists:
        out[15:20] = 0.0
        return
    mean = state.mean_duration[b]
    following = operation + 1
    machine = state.machine[b, following]
    free = state.machine_free[b, machine]
    load = state.machine_remaining[b, machine]
    out[15] = _squash(state.duration[b, following] / mean)
    out[16] = _squash((free - end) / mean)
    out[17] = _squash(queue[machine] / mean)
    out[18] = _clip(load / left, 0.0)
    out[19] = _clip((state.lower_bound[b] - max(free, end) - load) / left, -1.0)


@inner_inlined
def _write_context(state: State, b: int, out: F32, left: float, unfinished: int, remaining_sum: int) -> None:
    first = state.candidate_job[b, 0]
    machine = state.machine[b, state.next_operation[b, first]]
    bound = state.lower_bound[b]
    load = state.machine_remaining[b, machine]
    load_sum, load_max = 0, 0
    for m in range(state.machines[b]):
        load_sum += state.machine_remaining[b, m]
        load_max = max(load_max, state.machine_remaining[b, m])
    out[0] = state.dispatched[b] / state.operations[b]
    out[1] = _squash((state.candidates[b] - 1) / 4.0)
    out[2] = _clip((bound - state.initial_bound[b]) / state.initial_bound[b], 0.0)
    out[3] = _clip(left / max(bound, 1), 0.0)
    out[4] = _clip(load / left, 0.0)
    out[5] = _clip((bound - state.horizon_start[b] - load) / left, -1.0)
    out[6] = _clip(state.machine_undispatched[b, machine] / state.jobs[b], 0.0)
    out[7] = unfinished / state.jobs[b]
    out[8] = _squash(unfinished / state.machines[b])
    out[9] = _clip(load_sum / (state.machines[b] * left), 0.0)
    out[10] = _clip(remaining_sum / (unfinished * left), 0.0)
    out[11] = _clip(load_max / left, 0.0)
    out[12] = _squash(max(state.earliest_completion[b] - state.horizon_start[b], 0) / state.mean_duration[b])
    out[13] = state.candidates[b] / unfinished
