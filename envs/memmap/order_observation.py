"""What a policy sees of the order game: features of the buffers to place next, and of the whole state.

Nodes and edges are those of the mapping game (``observation.static_graph``). A candidate stands for a cluster: one
buffer, or several that alias groups connect, shown by the first of them and its first operation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from schedrl.arrays import F32, F64, I32, I64
from schedrl.envs.memmap import observation
from schedrl.envs.memmap import segment_columns as at
from schedrl.envs.memmap.segment_state import AllocatorState
from schedrl.graphs import Feature, FeatureTable
from schedrl.kernels import inlined, inner, inner_inlined, kernel

__all__ = ["FEATURES", "Scratch", "make_scratch", "write_orders"]


def _share(name: str, why: str) -> Feature:
    return Feature(name=name, unit="1", low=0.0, high=1.0, why=why)


# "bounded" is x / (1 + x), and "per operation" divides by the mean latency of an operation without fast memory.
FEATURES = FeatureTable(
    node=observation.FEATURES.node,
    edge_types=observation.FEATURES.edge_types,
    edge=observation.FEATURES.edge,
    candidate_nodes=observation.FEATURES.candidate_nodes,
    candidate=(
        _share("rank", "place in XLA's order, per number of clusters"),
        _share("slot", "place among the candidates, per window"),
        _share("size", "bytes of all its buffers per those and the first fast capacity"),
        _share("life", "operations from the first to the last access, per number of operations"),
        _share("uses", "number of accesses, bounded"),
        _share("input", "share of its buffers that are inputs or parameters"),
        _share("output", "whether one of its buffers is an output, which has to be copied back"),
        _share("joined", "whether alias groups join several buffers"),
        _share("gain", "seconds that its accesses could save now, one at a time, per operation, bounded"),
        _share("gain left", "the same per all that could be saved by all accesses at the start"),
        _share("density", "the same per byte and second of its life, against the mean over the program, bounded"),
        _share("bound", "share of its bytes that operations move which are bound by memory now"),
        _share("fits", "whether a chunk is free throughout its life"),
        _share("least room", "fewest free bytes during its life, per capacity"),
        _share("mean room", "mean free bytes during its life, per capacity"),
        _share("pressure", "bytes of unplaced buffers alive, mean over its life, per those and the capacity"),
        _share("copy load", "copy time per copy time and bus time left in the operations before its first use"),
        _share("wait", "longest wait between two uses against the longest that XLA allows, bounded"),
    ),
    context=(
        _share("progress", "placed per number of clusters"),
        _share("candidates", "candidates per window"),
        _share("saved", "latency saved so far, per latency without fast memory"),
        _share("capacity", "first fast capacity per size of all buffers and capacity"),
        _share("bandwidth", "slow per fast bandwidth and slow bandwidth"),
        _share("room", "mean free bytes per capacity"),
        _share("pressure", "bytes of unplaced buffers alive, mean, per those and the capacity"),
        _share("copies", "copy time committed per bus time that the program leaves idle and copy time"),
        _share("memory bound", "share of the latency of operations that are bound by memory now"),
        _share("repacks", "repacks left, per most; 0 where none are allowed"),
        _share("elapsed", "whether copies may use the whole duration of operations"),
    ),
)
_CANDIDATE, _CONTEXT = len(FEATURES.candidate), len(FEATURES.context)
# Operations before a first use whose idle bus time a copy could use.
_WINDOW = 16


class Scratch(NamedTuple):
    """Profiles of one row over its operations."""

    free: F64  # (T,) free bytes of the first fast layer
    pressure: F64  # (T,) bytes of unplaced buffers alive


def make_scratch(ops: int) -> Scratch:
    """Return scratch space for programs of so many operations."""
    return Scratch(free=np.zeros(ops), pressure=np.zeros(ops))


@inlined
def _bounded(value: float) -> float:
    bounded: float = value / (1.0 + value) if value > 0 else 0.0
    return bounded


@inner
def _profiles(s: AllocatorState, b: int, scratch: Scratch) -> None:
    """Fill the profiles of a row."""
    ops, capacity = s.number[b, at.OPS], s.room[b, at.CAPACITY, 1]
    for t in range(ops):
        scratch.free[t], scratch.pressure[t] = 0.0, 0.0
    # First the changes at each operation, then their sums.
    for r in range(s.number[b, at.RESIDENCES]):
        if s.residence[b, r, at.LAYER] == 1:
            size = s.residence[b, r, at.TOP] - s.residence[b, r, at.OFFSET]
            scratch.free[s.residence[b, r, at.FIRST]] -= size
            if s.residence[b, r, at.LAST] + 1 < ops:
                scratch.free[s.residence[b, r, at.LAST] + 1] += size
    for c in range(s.number[b, at.CLUSTERS]):
        if s.cluster[b, at.PLACED, c] > 0:
            continue
        for n in range(s.cluster[b, at.CLUSTER_ACCESS, c], s.cluster[b, at.CLUSTER_ACCESS, c + 1]):
            buffer = s.access[b, at.BUFFER_OF, s.access[b, at.BY_CLUSTER, n]]
            if s.access[b, at.SLOT, s.access[b, at.BY_CLUSTER, n]] == s.buffer[b, at.FIRST_ACCESS, buffer]:
                last = s.access[b, at.BY_BUFFER, s.buffer[b, at.FIRST_ACCESS, buffer + 1] - 1]
                scratch.pressure[s.access[b, at.OP, s.access[b, at.BY_CLUSTER, n]]] += s.buffer[b, at.SIZE, buffer]
                if s.access[b, at.OP, last] + 1 < ops:
                    scratch.pressure[s.access[b, at.OP, last] + 1] -= s.buffer[b, at.SIZE, buffer]
    held, alive = 0.0, 0.0
    for t in range(ops):
        held -= scratch.free[t]
        alive += scratch.pressure[t]
        # Two buffers that hand over their place at an operation count twice there.
        scratch.free[t], scratch.pressure[t] = max(capacity - held, 0.0), alive


@inner_inlined
def _gain_now(s: AllocatorState, b: int, k: int) -> float:
    """Return the seconds by which a slow access would shorten its operation in the first fast layer."""
    t = s.access[b, at.OP, k]
    rate = at.WRITTEN if s.access[b, at.WRITE, k] == 1 else at.READ
    own = s.access[b, at.BYTES, k] * (1.0 / s.rate[b, rate, 0] - 1.0 / s.rate[b, rate, 1])
    excess = s.time[b, at.LATENCY, t] - s.time[b, at.TRIPS, t] * s.time[b, at.COMPUTE, t]
    shorter: float = max(min(s.time[b, at.TRIPS, t] * own, excess), 0.0)
    return shorter


@inner
def _write_candidate(s: AllocatorState, b: int, c: int, scratch: Scratch, nodes: I32, out: F32) -> None:
    """Fill the features of one cluster and its nodes."""
    begin, end = s.cluster[b, at.CLUSTER_ACCESS, c], s.cluster[b, at.CLUSTER_ACCESS, c + 1]
    ops, capacity = s.number[b, at.OPS], s.room[b, at.CAPACITY, 1]
    first_access = s.access[b, at.BY_CLUSTER, begin]
    first = s.access[b, at.OP, first_access]
    last = s.access[b, at.OP, s.access[b, at.BY_CLUSTER, end - 1]]
    size, demand, buffers, inputs, output, gain, moved, bound, wait = 0.0, 0.0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0
    for n in range(begin, end):
        k = s.access[b, at.BY_CLUSTER, n]
        t, buffer = s.access[b, at.OP, k], s.access[b, at.BUFFER_OF, k]
        if s.access[b, at.SLOT, k] == s.buffer[b, at.FIRST_ACCESS, buffer]:
            buffers += 1
            size += s.buffer[b, at.SIZE, buffer]
            if s.access[b, at.WRITE, k] == 0:
                inputs += 1
                demand += s.buffer[b, at.SIZE, buffer] / s.rate[b, at.READ, 0]
            output = max(output, s.buffer[b, at.OUTPUT, buffer])
        else:
            before = s.access[b, at.BY_BUFFER, s.access[b, at.SLOT, k] - 1]
            wait = max(wait, s.time[b, at.ELAPSED, t] - s.time[b, at.ELAPSED, s.access[b, at.OP, before]])
        gain += _gain_now(s, b, k)
        moved += s.access[b, at.BYTES, k]
        if s.time[b, at.LATENCY, t] > s.time[b, at.TRIPS, t] * s.time[b, at.COMPUTE, t]:
            bound += s.access[b, at.BYTES, k]
    least, room, pressure, idle = float(capacity), 0.0, 0.0, 0.0
    for t in range(first, last + 1):
        least = min(least, scratch.free[t])
        room += scratch.free[t]
        pressure += scratch.pressure[t]
    for t in range(max(first - _WINDOW, 0), first):
        idle += s.time[b, at.SUPPLY, t]
    life = last - first + 1
    slow_s = s.constant[b, at.SLOW_LATENCY]
    life_s = s.time[b, at.ELAPSED, last + 1] - s.time[b, at.ELAPSED, first]
    nodes[0], nodes[1] = first, ops + s.access[b, at.BUFFER_OF, first_access]
    out[0] = c / s.number[b, at.CLUSTERS]
    out[2] = size / (size + capacity)
    out[3] = life / ops
    out[4] = (end - begin) / (end - begin + 4.0)
    out[5] = inputs / buffers
    out[6] = output
    out[7] = 1.0 if buffers > 1 else 0.0
    out[8] = _bounded(gain * ops / slow_s)
    out[9] = min(gain / max(s.constant[b, at.SAVEABLE], 1e-300), 1.0)
    out[10] = _bounded(gain / max(size * life_s, 1e-300) * capacity)
    out[11] = bound / max(moved, 1.0)
    out[12] = 1.0 if least >= size else 0.0
    out[13] = least / capacity
    out[14] = room / life / capacity
    out[15] = pressure / (pressure + life * capacity)
    out[16] = demand / max(demand + idle, 1e-300)
    out[17] = _bounded(wait / s.rate[b, at.LONGEST, 1])


@inner
def _write_context(s: AllocatorState, b: int, scratch: Scratch, out: F32) -> None:
    ops, capacity = s.number[b, at.OPS], s.room[b, at.CAPACITY, 1]
    size, room, pressure, bound, total, idle, copied = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for n in range(s.number[b, at.BUFFERS]):
        size += s.buffer[b, at.SIZE, n]
    for t in range(ops):
        room += scratch.free[t]
        pressure += scratch.pressure[t]
        total += s.time[b, at.LATENCY, t]
        idle += s.time[b, at.SUPPLY, t]
        if s.time[b, at.LATENCY, t] > s.time[b, at.TRIPS, t] * s.time[b, at.COMPUTE, t]:
            bound += s.time[b, at.LATENCY, t]
    for n in range(s.number[b, at.COPIED]):
        copied += s.seconds[b, at.DEMAND, n]
    out[0] = s.number[b, at.PLACEMENTS] / s.number[b, at.CLUSTERS]
    out[2] = min(max(s.constant[b, at.SAVED] / s.constant[b, at.SLOW_LATENCY], 0.0), 1.0)
    out[3] = capacity / (size + capacity)
    out[4] = s.rate[b, at.READ, 0] / (s.rate[b, at.READ, 0] + s.rate[b, at.READ, 1])
    out[5] = room / ops / capacity
    out[6] = pressure / (pressure + ops * capacity)
    out[7] = copied / max(copied + idle, 1e-300)
    out[8] = bound / max(total, 1e-300)
    out[9] = (s.number[b, at.MOST_REPACKS] - s.number[b, at.REPACKS]) / max(s.number[b, at.MOST_REPACKS], 1)
    out[10] = s.number[b, at.BY_ELAPSED]


@kernel
def write_orders(
    s: AllocatorState,
    candidate: I64,
    count: I64,
    scratch: Scratch,
    nodes: I32,
    features: F32,
    context: F32,
    counts: I32,
) -> None:
    """Fill the current decision of every row; slots beyond its count are zero.

    Args:
        s: the arrays.
        candidate: (B, C) clusters offered.
        count: (B,) how many.
        scratch: profiles of one row.
        nodes: (B, C, 2) filled.
        features: (B, C, Fc) filled.
        context: (B, Fg) filled.
        counts: (B,) filled.
    """
    for b in range(len(count)):
        counts[b] = count[b]
        for f in range(_CONTEXT):
            context[b, f] = 0.0
        for slot in range(candidate.shape[1]):
            nodes[b, slot, 0], nodes[b, slot, 1] = 0, 0
            for f in range(_CANDIDATE):
                features[b, slot, f] = 0.0
        if count[b] == 0:
            continue
        _profiles(s, b, scratch)
        _write_context(s, b, scratch, context[b])
        context[b, 1] = count[b] / candidate.shape[1]
        for slot in range(count[b]):
            _write_candidate(s, b, candidate[b, slot], scratch, nodes[b, slot], features[b, slot])
            features[b, slot, 1] = slot / candidate.shape[1]
