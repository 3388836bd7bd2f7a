"""What a policy sees of the offset-packing game: features of candidates and of the state, and the static graph.

All features are ratios, of bytes per bound on the peak and of times per span of time, so that a policy trained on
small instances reads large ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from schedrl.arrays import F32, I32, I64
from schedrl.envs.memmap.packing import OffsetPackingInstance, max_live
from schedrl.graphs import Feature, FeatureTable, StaticGraph
from schedrl.kernels import inner_inlined, kernel

if TYPE_CHECKING:
    from schedrl.envs.memmap.packing_state import State

__all__ = ["EDGE_TYPES", "FEATURES", "most_edges", "static_graph", "write_decisions"]

EDGE_TYPES = ("begins at", "begin of", "last begin before", "ends after", "next begin", "previous begin")


def _share(name: str, why: str) -> Feature:
    return Feature(name=name, unit="ratio", low=0.0, high=1.0, why=why)


def _signed(name: str, why: str) -> Feature:
    return Feature(name=name, unit="ratio", low=-1.0, high=1.0, why=why)


# "per bound" divides bytes by the bound on the peak of every completion. Sections are times of maximal live sets; the
# pressure of one is the byte that its buffers reach in every completion.
FEATURES = FeatureTable(
    node=(
        _share("buffer", "the node is a buffer, otherwise an instant at which one begins"),
        _share("size", "buffer size per most bytes live at once"),
        _share("begin", "time of the instant, or of the buffer's begin, per span of time"),
        _share("duration", "lifetime per span of time"),
        _share("live", "bytes live at the instant, or at the buffer's begin, per most"),
        _share("overlaps", "share of the buffers that are live at the instant, or at some time of the buffer"),
        _share("fixed", "the buffer's offset is given"),
    ),
    edge_types=EDGE_TYPES,
    edge=(),
    candidate_nodes=("buffer",),
    candidate=(
        _share("size", "size per most bytes live at once"),
        _share("size among candidates", "size per largest candidate"),
        _share("duration", "lifetime per span of time"),
        _share("begin", "begin of the lifetime per span of time"),
        _share("end", "end of the lifetime per span of time"),
        _share("area", "size times lifetime per that of all unplaced buffers"),
        _share("offset", "lowest feasible offset per bound"),
        _share("height", "how far the offset lies above the lowest of all, per bound"),
        _share("top", "end at that offset per bound"),
        _share("overshoot", "how far it ends above the least end of an unplaced buffer, per bound"),
        _signed("slack", "bytes from what the fullest section reaches with the buffer next to the bound, per bound"),
        _signed("mean slack", "the same, mean over the buffer's sections"),
        _share("pressure", "highest pressure of the buffer's sections per bound"),
        _share("void", "bytes left empty below the buffer, mean over its sections, per bound"),
        _signed("step before", "how far placed bytes just before the lifetime rise above the buffer, per bound"),
        _signed("step after", "the same just after it"),
        _share("level", "sides on which the buffer ends level with what is placed"),
        _share("conflicts", "share of the unplaced buffers that are live at the same time"),
        _share("share", "size per unplaced bytes of the fullest section"),
    ),
    context=(
        _share("progress", "placed buffers per buffers"),
        _share("live", "most bytes live at once per bound"),
        _share("peak", "peak so far per bound"),
        _share("lowest", "lowest offset of an unplaced buffer per bound"),
        _share("depth", "bytes between that and the least end, per bound"),
        _share("candidates", "candidates per window"),
        _share("hidden", "share of the unplaced buffers that only the window keeps from being candidates"),
        _share("area", "size times lifetime of unplaced buffers, per all"),
        _share("mean pressure", "mean pressure of the sections per bound"),
        _share("critical", "share of the sections whose pressure is the bound"),
        _share("placed", "mean height of the placed bytes of the sections per bound"),
        _share("waste", "mean bytes that are lost in the sections, per bound"),
        _share("largest", "size of the largest candidate per most bytes live at once"),
    ),
)


@kernel
def write_decisions(state: State, candidates: I32, candidate_features: F32, context: F32, count: I32) -> None:
    """Fill the current decision of every row; slots beyond ``count`` and finished rows are zero."""
    for b in range(len(count)):
        valid = state.candidates[b]
        count[b] = valid
        largest = 1
        for slot in range(valid):
            largest = max(largest, state.size[b, state.order[b, slot]])
        for slot in range(candidates.shape[1]):
            candidates[b, slot, 0] = 0
            candidate_features[b, slot, :] = 0.0
            if slot < valid:
                buffer = state.order[b, slot]
                candidates[b, slot, 0] = state.number[b, buffer]
                _write_candidate(state, b, buffer, largest, candidate_features[b, slot])
        context[b, :] = 0.0
        if valid > 0:
            _write_context(state, b, largest, candidates.shape[1], context[b])


@inner_inlined
def _clipped(value: float) -> float:
    return min(max(value, -1.0), 1.0)


@inner_inlined
def _write_candidate(state: State, b: int, buffer: int, largest: int, out: F32) -> None:
    size, lowest, bound = state.size[b, buffer], state.lowest[b, buffer], float(state.bound[b])
    first, last, end = state.first[b, buffer], state.last[b, buffer], lowest + size
    most, total, pressure, below = size, 0, end, 0
    for section in range(first, last):
        unplaced = max(state.left_bytes[b, section], size)
        most = max(most, unplaced)
        total += unplaced
        pressure = max(pressure, state.pressure[b, section])
        below += max(lowest - state.top[b, section], 0)
    spanned = max(last - first, 1)
    out[0] = min(size / state.unit[b], 1.0)
    out[1] = size / largest
    out[2] = state.end[b, buffer] - state.begin[b, buffer]
    out[3] = state.begin[b, buffer]
    out[4] = state.end[b, buffer]
    out[5] = min(state.area[b, buffer] / max(state.area_left[b], 1e-12), 1.0)
    out[6] = lowest / bound
    out[7] = (lowest - state.lowest[b, state.order[b, 0]]) / bound
    out[8] = end / bound
    out[9] = (end - state.least_end[b]) / bound
    out[10] = _clipped((bound - lowest - most) / bound)
    out[11] = _clipped((bound - lowest - max(total / spanned, float(size))) / bound)
    out[12] = pressure / bound
    out[13] = below / spanned / bound
    if first > 0:
        step = state.top[b, first - 1] - end
        out[14] = _clipped(step / bound)
        out[16] += 0.5 if step == 0 else 0.0
    if last < state.sections[b]:
        step = state.top[b, last] - end
        out[15] = _clipped(step / bound)
        out[16] += 0.5 if step == 0 else 0.0
    out[17] = state.conflicts[b, buffer] / state.left[b]
    out[18] = size / most


@inner_inlined
def _write_context(state: State, b: int, largest: int, window: int, out: F32) -> None:
    bound, left, sections = float(state.bound[b]), state.left[b], state.sections[b]
    pressure, critical, top, live = 0, 0, 0, 0
    for section in range(sections):
        pressure += state.pressure[b, section]
        critical += state.pressure[b, section] == state.bound[b]
        top += state.top[b, section]
        live += state.live_bytes[b, section]
    hidden = state.candidates[b]
    while hidden < left and state.lowest[b, state.order[b, hidden]] < state.least_end[b]:
        hidden += 1
    lowest = state.lowest[b, state.order[b, 0]]
    out[0] = 1.0 - left / state.buffers[b]
    out[1] = state.unit[b] / bound
    out[2] = state.peak[b] / bound
    out[3] = lowest / bound
    out[4] = (state.least_end[b] - lowest) / bound
    out[5] = state.candidates[b] / window
    out[6] = (hidden - state.candidates[b]) / left
    out[7] = min(max(state.area_left[b], 0.0), 1.0)
    out[8] = pressure / sections / bound
    out[9] = critical / sections
    out[10] = top / sections / bound
    out[11] = max(pressure - live, 0) / sections / bound
    out[12] = min(largest / state.unit[b], 1.0)


def static_graph(instance: OffsetPackingInstance) -> StaticGraph:
    """Return the graph of an instance: N buffers, then the N instants at which they begin in order of time.

    Equal instants stay apart, so that all instances of N buffers have 2 N nodes and ``most_edges`` edges.
    """
    count = instance.buffers
    order = np.argsort(instance.lower, kind="stable")
    begins = np.empty(count, dtype=np.int64)
    begins[order] = np.arange(count)
    # Every buffer begins before it ends, so that there is a last begin before its end.
    before_end = np.searchsorted(instance.lower[order], instance.upper) - 1
    buffers, instants = np.arange(count), np.arange(count) + count
    pairs = (
        (buffers, begins + count),
        (begins + count, buffers),
        (buffers, before_end + count),
        (before_end + count, buffers),
        (instants[:-1], instants[1:]),
        (instants[1:], instants[:-1]),
    )
    edges = [np.stack(pair) for pair in pairs]
    return StaticGraph(
        node_features=_node_features(instance, order),
        edge_index=np.concatenate(edges, axis=1).astype(np.int32),
        edge_type=np.repeat(np.arange(len(pairs), dtype=np.int8), [edge.shape[1] for edge in edges]),
        edge_features=np.zeros((sum(edge.shape[1] for edge in edges), 0), dtype=np.float32),
    )


def most_edges(instance: OffsetPackingInstance) -> int:
    """Return the edges of every instance with as many buffers."""
    return 4 * instance.buffers + 2 * (instance.buffers - 1)


def _node_features(instance: OffsetPackingInstance, order: I64) -> F32:
    assert instance.fixed_offset is not None
    count, lower, upper = instance.buffers, instance.lower, instance.upper
    horizon, unit = int(upper.max() - lower.min()), max(max_live(instance), 1)
    start, end, low, high, _ = instance.live
    live = _before(start, high - low, lower, "right") - _before(end, high - low, lower, "right")
    alive = np.searchsorted(np.sort(lower), lower, side="right") - np.searchsorted(np.sort(upper), lower, side="right")
    beside = np.searchsorted(np.sort(lower), upper) - np.searchsorted(np.sort(upper), lower, side="right")
    begin = (lower - lower.min()) / horizon
    table = np.zeros((2 * count, len(FEATURES.node)))
    table[:count, 0] = 1.0
    table[:count, 1] = instance.size / unit
    table[:, 2] = np.concatenate([begin, begin[order]])
    table[:count, 3] = (upper - lower) / horizon
    table[:, 4] = np.concatenate([live, live[order]]) / unit
    table[:, 5] = np.concatenate([beside, alive[order]]) / count
    table[:count, 6] = instance.fixed_offset >= 0
    return np.clip(table, 0.0, 1.0).astype(np.float32)


def _before(time: I64, amount: I64, instants: I64, side: str) -> I64:
    """Return the sum of the amounts whose time is before, or with ``side`` right at, each instant."""
    order = np.argsort(time)
    total = np.concatenate([[0], np.cumsum(amount[order])])
    return np.asarray(total[np.searchsorted(time[order], instants, side=side)])  # type: ignore[call-overload]
