"""What is computed once per instance from expected durations: ranks, optimistic tails and means, per template task.

Rows are the tasks of all job templates, graph after graph, so that a stream of a thousand jobs needs the tables of
its few templates only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

from schedrl.arrays import F64, I32
from schedrl.kernel_arguments import by_reference
from schedrl.kernels import inlined

if TYPE_CHECKING:
    from schedrl.envs.socdag.instance import SocDagInstance

__all__ = ["Tables", "build_tables", "mean_link", "ranks", "transfer"]


@by_reference
class Tables(NamedTuple):
    """Static figures of the stacked templates (T rows) and of their edges (E rows)."""

    graph_offset: I32  # (K + 1,) first row of each template
    duration: F64  # (T, D) expected time units at the fastest point, inf where unsupported
    mean_duration: F64  # (T,) over the devices that support the task
    least_duration: F64  # (T,)
    upward_rank: F64  # (T,) HEFT's rank_u: mean duration plus the longest mean path behind the task
    downward_rank: F64  # (T,) HEFT's rank_d: the longest mean path before the task
    tail: F64  # (T, D) least time from the end of the task on a device to the end of its job, devices never busy
    predecessor_offset: I32  # (T + 1,)
    predecessor: I32  # (E,) row of the source
    predecessor_bytes: F64  # (E,)
    predecessor_edge: I32  # (E,) edge number in the stacked edge list
    successor_offset: I32  # (T + 1,)
    successor: I32  # (E,)
    successor_bytes: F64  # (E,)
    mean_out: F64  # (T,) mean transfer time of the task's outgoing edges, by mean latency and bandwidth
    graph_bound: F64  # (K,) placement-aware critical path of each template


@inlined
def transfer(links: F64, size: float, p: int, q: int, whole_units: bool) -> float:
    """Return the time that ``size`` bytes take from processing element p to q, both hops."""
    if size <= 0.0:
        return 0.0
    first = links[0, p, q] + size * links[1, p, q]
    second = links[2, p, q] + size * links[3, p, q]
    if whole_units:
        return float(np.floor(first + 1e-9) + np.floor(second + 1e-9))
    return float(first + second)


def build_tables(instance: SocDagInstance) -> Tables:
    """Return the tables of an instance; only expected durations enter."""
    graphs = instance.graphs
    offset = np.cumsum([0, *(graph.tasks for graph in graphs)], dtype=np.int32)
    duration = np.concatenate([graph.duration for graph in graphs])[:, instance.device_type]
    duration = duration / instance.operating_points[0][:, 0]
    if instance.whole_units:
        duration = np.ceil(duration - 1e-9)
    supported = np.isfinite(duration)
    mean = np.where(supported, duration, 0.0).sum(axis=1) / supported.sum(axis=1)
    source, target, size, order = _stacked_edges(graphs, offset)
    latency, per_byte = mean_link(instance)
    mean_cost = np.where(size > 0, latency + size * per_byte, 0.0)
    into, out_of = np.argsort(target, kind="stable"), np.argsort(source, kind="stable")
    tasks = len(duration)
    in_offset = np.concatenate([[0], np.cumsum(np.bincount(target, minlength=tasks))]).astype(np.int32)
    out_offset = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=tasks))]).astype(np.int32)
    incoming, outgoing = (source[into], mean_cost[into]), (target[out_of], mean_cost[out_of])
    upward, downward = ranks(order, mean, in_offset, *incoming, out_offset, *outgoing)
    tail = np.zeros_like(duration)
    _tails(order, duration, instance.links, instance.whole_units, out_offset, target[out_of], size[out_of], tail)
    whole = np.where(supported, duration + tail, np.inf).min(axis=1)
    return Tables(
        graph_offset=offset,
        duration=duration,
        mean_duration=mean,
        least_duration=duration.min(axis=1),
        upward_rank=upward,
        downward_rank=downward,
        tail=tail,
        predecessor_offset=in_offset,
        predecessor=source[into].astype(np.int32),
        predecessor_bytes=size[into],
        predecessor_edge=into.astype(np.int32),
        successor_offset=out_offset,
        successor=target[out_of].astype(np.int32),
        successor_bytes=size[out_of],
        mean_out=np.bincount(source, mean_cost, tasks) / np.maximum(np.bincount(source, minlength=tasks), 1),
        graph_bound=np.maximum.reduceat(whole, offset[:-1]),
    )


def mean_link(instance: SocDagInstance) -> tuple[float, float]:
    """Return mean latency and time per byte at the mean bandwidth, over ordered pairs of different devices.

    Both hops together; with one device nothing is ever transferred and both are 0 (Topcuoglu et al. 2002, eq. 3).
    """
    unit = instance.device_unit
    apart = unit[:, None] != unit[None, :]
    if instance.platform.memory is not None:
        apart = np.ones_like(apart)
    if not apart.any() or not instance.links.any():
        return 0.0, 0.0
    latency = float(instance.links[0][apart].mean() + instance.links[2][apart].mean())
    per_byte = 0.0
    for hop in (1, 3):
        cost = instance.links[hop][apart]
        if cost.any():
            per_byte += 1.0 / float((1.0 / cost).mean())
    return latency, per_byte


def _stacked_edges(graphs: Any, offset: I32) -> tuple[I32, I32, F64, I32]:
    source = np.concatenate([graph.edge[:, 0] + shift for graph, shift in zip(graphs, offset, strict=False)])
    target = np.concatenate([graph.edge[:, 1] + shift for graph, shift in zip(graphs, offset, strict=False)])
    size = np.concatenate([graph.edge_bytes for graph in graphs])
    order = np.concatenate([graph.topological_order + shift for graph, shift in zip(graphs, offset, strict=False)])
    return source.astype(np.int32), target.astype(np.int32), size, order.astype(np.int32)


@njit(cache=True)
def ranks(
    order: I32, mean: F64, in_offset: I32, source: I32, in_cost: F64, out_offset: I32, target: I32, out_cost: F64
) -> tuple[F64, F64]:
    """Return HEFT's upward and downward ranks (T,) from mean durations and mean transfer times."""
    upward, downward = np.zeros(len(order)), np.zeros(len(order))
    for t in order[::-1]:
        longest = 0.0
        for e in range(out_offset[t], out_offset[t + 1]):
            longest = max(longest, out_cost[e] + upward[target[e]])
        upward[t] = mean[t] + longest
    for t in order:
        for e in range(in_offset[t], in_offset[t + 1]):
            downward[t] = max(downward[t], downward[source[e]] + mean[source[e]] + in_cost[e])
    return upward, downward


@njit(cache=True, error_model="numpy")
def _tails(
    order: I32, duration: F64, links: F64, whole_units: bool, out_offset: I32, target: I32, size: F64, tail: F64
) -> None:
    devices = duration.shape[1]
    for t in order[::-1]:
        for p in range(devices):
            if not np.isfinite(duration[t, p]):
                continue
            longest = 0.0
            for e in range(out_offset[t], out_offset[t + 1]):
                child, shortest = target[e], np.inf
                for q in range(devices):
                    if np.isfinite(duration[child, q]):
                        cost = transfer(links, size[e], p, q, whole_units)
                        shortest = min(shortest, cost + duration[child, q] + tail[child, q])
                longest = max(longest, shortest)
            tail[t, p] = longest
