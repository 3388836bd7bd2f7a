"""Kernels that write the current decision of every row: candidate nodes, their features, and the context."""

from __future__ import annotations

from schedrl.arrays import F32, I32
from schedrl.envs.memmap.advice import advantage, follows_hint
from schedrl.envs.memmap.choices import COPY, DROP
from schedrl.envs.memmap.space import keeping_value
from schedrl.envs.memmap.state import State
from schedrl.envs.memmap.supply import bus_of, current_op, hidden_before
from schedrl.kernels import inlined, inner_inlined, kernel

_SOON, _LATER = 8, 16


@inlined
def _bounded(value: float) -> float:
    return value / (1.0 + abs(value))


@inlined
def _ratio(part: float, whole: float) -> float:
    return min(max(part / whole, 0.0), 1.0) if whole > 0.0 else 0.0


@inner_inlined
def _latency_with(state: State, b: int, t: int, access: int, layer: int) -> float:
    """Return one operation's latency were an undecided access served by a fast layer."""
    moved, way = state.access_bytes[b, access], 1 if state.access_write[b, access] else 0
    slow = state.moved[b, t, 0, 0] + state.moved[b, t, 0, 1]
    memory = state.moved[b, t, 0, 0] / state.read_rate[b, 0] + state.moved[b, t, 0, 1] / state.write_rate[b, 0]
    total = slow
    for number in range(1, state.layers[b]):
        memory += state.moved[b, t, number, 0] / state.read_rate[b, number]
        memory += state.moved[b, t, number, 1] / state.write_rate[b, number]
        total += state.moved[b, t, number, 0] + state.moved[b, t, number, 1]
    if way == 1:
        memory += moved / state.write_rate[b, layer] - moved / state.write_rate[b, 0]
    else:
        memory += moved / state.read_rate[b, layer] - moved / state.read_rate[b, 0]
    share = min(state.overhead_window[b], slow - moved) / max(total, 1)
    found: float = max(state.compute[b, t], memory + share * state.compute[b, t])
    return found


@inner_inlined
def _write_candidate(state: State, b: int, slot: int, mean: float, out: F32) -> None:
    access = state.position[b]
    buffer, t = state.access_buffer[b, access], state.access_op[b, access]
    kind, layer = state.candidate[b, slot, 0], state.candidate[b, slot, 1]
    start, end = state.candidate[b, slot, 3], state.candidate[b, slot, 4]
    size = state.size[b, buffer]
    capacity = state.capacity[b, max(layer, 1)]
    copying = size / state.read_rate[b, 0]
    out[0] = 1.0 if kind != COPY and kind != DROP else 0.0
    out[1] = 1.0 if kind == COPY else 0.0
    out[2] = 1.0 if kind == DROP else 0.0
    out[3] = 1.0 if state.access_write[b, access] else 0.0
    out[4] = layer / (state.layers[b] - 1)
    better = advantage(state, b, slot)
    if layer > 0:
        saved = state.latency[b, t] - _latency_with(state, b, t, access, layer)
        out[5] = _ratio(saved, state.latency[b, t])
        out[6] = _bounded(max(saved, 0.0) * state.trips[b, t] / mean)
        out[7] = _bounded(better / mean)
        out[8] = _bounded(4.0 * better / copying)
        out[9] = _bounded(state.displaced[b, slot] / mean)
        out[10] = _bounded(4.0 * (better - state.displaced[b, slot]) / copying)
        out[12] = _ratio(state.candidate[b, slot, 2], capacity)
        following = state.next_access[b, access]
        if following >= 0:
            then = state.access_op[b, following]
            rent = size * (state.held[b, layer, then + 1] - state.held[b, layer, t + 1])
            gain = state.gain[b, following, layer]
            out[16] = _bounded(rent / gain) if gain > 0.0 else 1.0
    out[11] = _ratio(size, capacity)
    if start < end:
        hidden = hidden_before(bus_of(state), b, end) - hidden_before(bus_of(state), b, start + 1)
        out[13] = _bounded((end - start - 1) / 8.0)
        out[14] = _ratio(copying, hidden)
        out[17] = 1.0 if kind == DROP or state.access_write[b, access] else 0.0
    out[15] = _bounded(copying / mean)
    out[18] = 1.0 if follows_hint(state, b, slot) else 0.0


@inner_inlined
def _use_of_layer(state: State, b: int, t: int) -> tuple[float, float]:
    """Return shares of the first fast layer at an operation that are not taken, and that later uses are kept in."""
    taken, kept = 0.0, 0.0
    for i in range(state.ordered[b, 1]):
        r = state.order[b, 1, i]
        size = state.size[b, state.residence[b, r, 0]]
        if state.residence[b, r, 3] <= t <= state.residence[b, r, 4]:
            taken += size
        elif keeping_value(state, b, r) > 0.0:
            kept += size
    return 1.0 - _ratio(taken, state.capacity[b, 1]), _ratio(kept, state.capacity[b, 1])


@inner_inlined
def _write_context(state: State, b: int, mean: float, out: F32) -> None:
    access = state.position[b]
    buffer, t = state.access_buffer[b, access], current_op(bus_of(state), b)
    ops, here = state.ops[b], state.here[b, buffer]
    size, capacity = state.size[b, buffer], state.capacity[b, 1]
    out[0] = access / state.accesses[b]
    out[1] = _ratio(state.saved[b], state.slow_latency[b])
    out[2] = capacity / (state.total_size[b] + capacity)
    out[3] = _ratio(state.read_rate[b, 0], state.read_rate[b, 1])
    free, kept = _use_of_layer(state, b, t)
    out[4], out[5] = free, kept
    copies = state.copies[b]
    if copies > 0:
        last = state.queue[b, copies - 1]
        done = hidden_before(bus_of(state), b, t) - hidden_before(bus_of(state), b, min(state.copy[b, last, 3] + 1, t))
        out[6] = _bounded(max(0.0, state.pending[b, copies - 1] + state.demand[b, last] - done) / mean)
    soon, later = min(ops, t + _SOON), min(ops, t + _LATER)
    idle = hidden_before(bus_of(state), b, soon) - hidden_before(bus_of(state), b, t)
    out[7] = _bounded(max(idle, 0.0) / (_SOON * mean))
    out[8] = _bounded((state.held[b, 1, t + 1] - state.held[b, 1, t]) * capacity / mean)
    out[9] = _bounded((state.held[b, 1, later] - state.held[b, 1, t]) * capacity / (max(later - t, 1) * mean))
    out[10] = _ratio(state.compute[b, t], state.latency[b, t])
    out[11] = _bounded(state.latency[b, t] * state.trips[b, t] / mean)
    out[12] = 1.0 if state.access_write[b, access] else 0.0
    following = state.next_access[b, access]
    out[13] = 1.0
    if following >= 0:
        out[13] = _bounded((state.access_op[b, following] - t) / 16.0)
    out[14] = (state.access_op[b, state.final_access[b, access]] - t) / ops
    out[15] = _bounded(state.accesses_left[b, access] / 2.0)
    out[16] = 1.0 if state.output[b, buffer] else 0.0
    out[17] = 1.0 if state.valid_from[b, buffer] <= t else 0.0
    out[18] = 1.0 if here >= 0 and state.lost_by[b, here] < 0 else 0.0
    out[19] = _bounded(state.worth[b, buffer] / mean)
    relaxed = state.cost[b, access, 0] - state.cost[b, access, 1]
    out[20] = _bounded(4.0 * relaxed * state.read_rate[b, 0] / size)
    out[21] = 1.0 if state.access_group[b, access] >= 0 else 0.0
    out[22] = _bounded(state.backups[b] / 8.0)
    out[23] = 1.0 if state.hint[b, access] > 0 else 0.0
    out[24] = 1.0 if state.hold[b, access] else 0.0


@kernel
def write_decisions(state: State, nodes: I32, features: F32, context: F32, count: I32) -> None:
    """Fill the decision of every row; slots beyond the candidates are zero."""
    for b in range(len(count)):
        features[b, :, :] = 0.0
        nodes[b, :, :] = 0
        context[b, :] = 0.0
        count[b] = state.candidates[b]
        if count[b] == 0:
            continue
        access = state.position[b]
        mean = max(state.slow_latency[b] / state.ops[b], 1e-300)
        for slot in range(count[b]):
            nodes[b, slot, 0] = state.access_op[b, access]
            nodes[b, slot, 1] = state.ops[b] + state.access_buffer[b, access]
            _write_candidate(state, b, slot, mean, features[b, slot])
        _write_context(state, b, mean, context[b])
