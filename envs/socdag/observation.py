"""What a SoC DAG policy sees: features of tasks and devices, of candidates, and of the whole state.

All features are ratios bounded to [-1, 1], so that a policy trained on small instances reads large ones. The
indices of the classical heuristics are among them: earliest finish and upward rank (HEFT; Topcuoglu et al. 2002),
finish plus optimistic tail (PEFT; Arabnejad and Barbosa 2014), and the children's earliest finish (Lookahead;
Bittencourt et al. 2010), so that each is within reach of a policy that weighs one feature.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schedrl.arrays import F32
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.graphs import Feature, FeatureTable, StaticGraph

__all__ = ["FEATURES", "most_edges", "static_graph"]


def _ratio(name: str, why: str, low: float = 0.0) -> Feature:
    return Feature(name=name, unit="1", low=low, high=1.0, why=why)


_NODE = (
    _ratio("is_device", "tells device nodes from task nodes"),
    _ratio("is_wait", "the node of the action to wait"),
    _ratio("duration", "task: mean duration against the mean of all tasks, squashed"),
    _ratio("least_duration", "task: least against mean duration"),
    _ratio("unlikeness", "task: spread of its durations against the largest"),
    _ratio("upward_rank", "task: upward rank against the largest of its job"),
    _ratio("downward_rank", "task: downward rank against the largest upward rank of its job"),
    _ratio("least_tail", "task: least time to the end of its job against the job's bound"),
    _ratio("inputs", "task: incoming edges, squashed"),
    _ratio("outputs", "task: outgoing edges, squashed"),
    _ratio("output_time", "task: mean transfer time of an output against the mean duration, squashed"),
    _ratio("supported", "task: share of devices that support it; device: share of tasks it supports"),
    _ratio("speed", "device: mean over its tasks of least duration against its own"),
    _ratio("fastest_for", "device: share of tasks for which it is among the fastest"),
    _ratio("remoteness", "device: mean transfer time of a mean edge to others against the mean duration, squashed"),
    _ratio("peers", "device: share of devices of its type"),
    _ratio("power", "device: power against the highest of all devices"),
    _ratio("price", "device: price against the highest of all devices"),
)
_CANDIDATE = (
    _ratio("wait", "let the moment pass until the next end or entry"),
    _ratio("duration", "expected duration against mean duration plus mean transfer, squashed"),
    _ratio("slowness", "1 - least duration of the task / duration here: 0 on the fastest device"),
    _ratio("finish_gap", "finish after the task's earliest finish on any device, squashed (HEFT's placement)"),
    _ratio("finish_scaled", "finish scaled to 0..1 over the task's devices"),
    _ratio("path_gap", "finish plus optimistic tail after the least over the devices, squashed (PEFT's placement)"),
    _ratio("path_scaled", "the same, scaled to 0..1"),
    _ratio("ahead_gap", "last child's earliest finish after the least of the task's devices, squashed (Lookahead)"),
    _ratio("ahead_scaled", "the same, scaled to 0..1"),
    _ratio("ahead_path_gap", "last child's earliest finish plus its tail after the least, squashed"),
    _ratio("ahead_path_scaled", "the same, scaled to 0..1"),
    _ratio("finish_after_first", "finish after the earliest finish of all candidates, squashed (Min-Min)"),
    _ratio("path_against_bound", "finish plus tail above the job's bound, against the time left: > 0 raises it", -1.0),
    _ratio("ahead_against_bound", "children's finish plus tail above the job's bound, against the time left", -1.0),
    _ratio("start_after_first", "start after the earliest of all candidates, squashed; waiting: until the next end"),
    _ratio("idle", "idle time left on the device before the start, squashed"),
    _ratio("data_wait", "time from the last input's end to its arrival here, squashed"),
    _ratio("rank_gap", "upward rank below the largest among the candidates (HEFT's order)"),
    _ratio("rank_against_left", "upward rank against the time left to the job's bound"),
    _ratio("depth", "downward rank against the sum of both ranks"),
    _ratio("first_by_rank", "whether no candidate has a larger upward rank"),
    _ratio("queue", "when the device is free after the earliest start of all candidates, squashed"),
    _ratio("queue_against_left", "the same against the time left to the job's bound"),
    _ratio("local_inputs", "share of the input bytes that are already on the device"),
    _ratio("children", "outgoing edges, squashed"),
    _ratio("releases", "share of the children that wait for this task only"),
    _ratio("output_time", "mean transfer time of an output, squashed"),
    _ratio("age", "time since the job entered against the job's bound, squashed"),
    _ratio("job_progress", "share of the job's least work that is placed"),
    _ratio("older_jobs", "jobs inside that entered before this one, squashed"),
    _ratio("slack", "time to the deadline left by finish plus tail, against the job's bound; 1 without deadline", -1.0),
    _ratio("energy", "1 - least energy of the task over its candidates / energy here"),
    _ratio("cost", "1 - least cost of the task over its candidates / cost here"),
    _ratio("inserted", "whether the task goes into a gap between others"),
    _ratio("rivals", "other offered tasks that run fastest on this device type, squashed"),
    _ratio("start_gap", "start after the task's earliest start on any device, squashed"),
)
_CONTEXT = (
    _ratio("progress", "share of tasks placed"),
    _ratio("candidates", "number of candidates, squashed"),
    _ratio("ready", "ready tasks per device, squashed"),
    _ratio("growth", "growth of the objective's estimate since the start, in units of the bound, squashed"),
    _ratio("time_left", "time from the earliest start to the first job's bound, against the bound, squashed"),
    _ratio("parallelism", "least work over devices times critical path, squashed"),
    _ratio("communication", "mean transfer time against mean transfer time plus mean duration"),
    _ratio("noise", "noise sigma, squashed"),
    _ratio("jobs_inside", "jobs inside, squashed"),
    _ratio("queue_mean", "mean time until devices are free against the bound, squashed"),
    _ratio("queue_most", "largest time until a device is free against the bound, squashed"),
    _ratio("queue_least", "least time until a device is free against the bound, squashed"),
    _ratio("work_left", "unplaced work of the jobs inside per device against the time left, squashed"),
    _ratio(
        "hidden",
        "1 - min(ready tasks, candidates) / ready tasks, 0 unless more are ready than candidates offered",
    ),
    _ratio("latency_weight", "preference for latency"),
    _ratio("energy_weight", "preference for energy"),
    _ratio("cost_weight", "preference for cost"),
    _ratio("fullness", "jobs inside against the admission cap, 0 without cap"),
    _ratio("idle_devices", "share of devices with nothing to do"),
    _ratio("online", "whether time passes while deciding"),
    _ratio("next_event", "expected time until the next end against mean duration plus mean transfer, squashed"),
    _ratio("devices", "number of devices, squashed"),
)
FEATURES = FeatureTable(
    node=_NODE,
    edge_types=(
        "predecessor",
        "successor",
        "runs-fast-on",
        "runs-fast",
        "runs-slow-on",
        "runs-slow",
    ),
    edge=(),
    candidate_nodes=("task", "device"),
    candidate=_CANDIDATE,
    context=_CONTEXT,
)
# A device is fast for a task when it takes at most this much longer than the fastest.
_FAST = 1.25


def static_graph(instance: SocDagInstance) -> StaticGraph:
    """Return the graph of an instance: the templates' tasks, then one node per device, then the node of waiting.

    A stream of many jobs has the nodes of its few templates. Precedence and support are typed edges both ways.
    """
    tables, devices = instance.tables, instance.devices
    rows = len(tables.duration)
    features = np.zeros((rows + devices + 1, len(_NODE)), dtype=np.float32)
    _task_features(instance, features[:rows])
    _device_features(instance, features[rows : rows + devices])
    features[-1, 1] = 1.0
    target = np.repeat(np.arange(rows), np.diff(tables.predecessor_offset))
    task, device = np.nonzero(np.isfinite(tables.duration))
    fast = tables.duration[task, device] <= _FAST * tables.least_duration[task]
    pairs: list[tuple[Any, Any]] = [(tables.predecessor, target), (target, tables.predecessor)]
    for chosen in (fast, ~fast):
        pairs += [(task[chosen], rows + device[chosen]), (rows + device[chosen], task[chosen])]
    edges = np.concatenate([np.stack(pair) for pair in pairs], axis=1).astype(np.int32)
    return StaticGraph(
        node_features=features,
        edge_index=edges,
        edge_type=np.repeat(np.arange(len(pairs), dtype=np.int8), [len(source) for source, _ in pairs]),
        edge_features=np.zeros((edges.shape[1], 0), dtype=np.float32),
    )


def most_edges(instance: SocDagInstance) -> int:
    """Return the most edges of a static graph with as many tasks and devices: every pair of them, both ways."""
    tasks = [graph.tasks for graph in instance.graphs]
    return sum(count * (count - 1) for count in tasks) + 2 * sum(tasks) * instance.devices


def _task_features(instance: SocDagInstance, out: F32) -> None:
    tables = instance.tables
    finite = np.isfinite(tables.duration)
    largest = np.where(finite, tables.duration, 0.0).max(axis=1)
    mean = max(float(tables.mean_duration.mean()), 1e-12)
    graph = np.repeat(np.arange(len(instance.graphs)), np.diff(tables.graph_offset))
    rank = np.maximum.reduceat(tables.upward_rank, tables.graph_offset[:-1])[graph]
    rank, bound = np.maximum(rank, 1e-12), np.maximum(tables.graph_bound[graph], 1e-12)
    inputs, outputs = np.diff(tables.predecessor_offset), np.diff(tables.successor_offset)
    out[:, 2] = tables.mean_duration / (tables.mean_duration + mean)
    out[:, 3] = tables.least_duration / np.maximum(tables.mean_duration, 1e-12)
    out[:, 4] = 1.0 - tables.least_duration / np.maximum(largest, 1e-12)
    out[:, 5] = tables.upward_rank / rank
    out[:, 6] = tables.downward_rank / rank
    out[:, 7] = np.where(finite, tables.tail, np.inf).min(axis=1) / bound
    out[:, 8] = inputs / (inputs + 3.0)
    out[:, 9] = outputs / (outputs + 3.0)
    out[:, 10] = tables.mean_out / (tables.mean_out + mean)
    out[:, 11] = finite.mean(axis=1)
    np.clip(out, 0.0, 1.0, out=out)


def _device_features(instance: SocDagInstance, out: F32) -> None:
    tables, kinds = instance.tables, instance.platform.devices
    finite = np.isfinite(tables.duration)
    ratio = np.where(finite, tables.least_duration[:, None] / np.maximum(tables.duration, 1e-12), 0.0)
    mean = max(float(tables.mean_duration.mean()), 1e-12)
    out[:, 0] = 1.0
    out[:, 11] = finite.mean(axis=0)
    out[:, 12] = ratio.sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
    out[:, 13] = (ratio >= 1.0 / _FAST).mean(axis=0)
    size = tables.predecessor_bytes
    if size.size:
        links = instance.links
        away = (links[0] + links[2] + size.mean() * (links[1] + links[3])).mean(axis=1)
        out[:, 14] = away / (away + mean)
    out[:, 15] = np.bincount(instance.device_type)[instance.device_type] / instance.devices
    power = instance.operating_points[1][:, 0]
    price = np.array([kinds[kind].price_usd_per_h or 0.0 for kind in instance.device_type])
    out[:, 16] = power / max(float(power.max()), 1e-12)
    out[:, 17] = price / max(float(price.max()), 1e-12)
    np.clip(out, 0.0, 1.0, out=out)
