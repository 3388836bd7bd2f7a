"""The placement game's clock: seconds of a whole plan over the scored windows, and of an even load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schedrl.arrays import F64
from schedrl.envs.moe.layer_time import Hardware, home_layer_s, migration_layer_s, slot_tokens

if TYPE_CHECKING:
    from schedrl.envs.moe.placement_state import State
from schedrl.kernels import inner

__all__ = ["even_total_s", "plan_total_s"]

# Units stay positive where nothing takes time.
_LEAST_LAYER_S = 1e-6


@inner
def plan_total_s(hw: Hardware, state: State, b: int) -> float:
    """Return the seconds of a row's complete plan: all forward passes of the scored windows, and its migration."""
    slots, seconds, moves = state.slots[b], 0.0, 0.0
    for layer in range(state.layers[b]):
        if state.has_initial[b]:
            moves += migration_layer_s(
                hw, b, state.initial[b, layer], state.plan[b, layer], state.device[b], slots,
                state.holders[b], state.scratch[b],
            )  # fmt: skip
        for window in range(state.windows[b]):
            total = slot_tokens(
                state.scored[b, window, layer], state.plan[b, layer], slots, state.copies[b], state.tokens[b]
            )
            if state.path[b]:
                seconds += _path_layer_s(hw, state, b, window, layer)
            else:
                seconds += home_layer_s(hw, b, state.tokens[b], state.device[b], slots, total, state.scratch[b])
    total_s: float = seconds * state.iterations[b] + moves
    return total_s


@inner
def even_total_s(hw: Hardware, state: State, b: int) -> float:
    """Return the seconds of the scored windows with every slot equally loaded, without migration; more than 0."""
    slots, seconds = state.slots[b], 0.0
    for layer in range(state.layers[b]):
        for window in range(state.windows[b]):
            total = 0.0
            for expert in range(state.experts[b]):
                total += state.scored[b, window, layer, expert]
            for p in range(slots):
                state.tokens[b, p] = total / slots
            if state.path[b]:
                seconds += _busiest_s(hw, state, b) + hw.overhead_s[b]
                if layer > 0:
                    _even_volumes(hw, b, total / hw.top_k[b], state.scratch[b])
                    seconds += _exchange_s(hw, b, state.scratch[b])
            else:
                seconds += home_layer_s(hw, b, state.tokens[b], state.device[b], slots, total, state.scratch[b])
    total_s: float = max(seconds, _LEAST_LAYER_S * state.layers[b] * state.windows[b]) * state.iterations[b]
    return total_s


@inner
def _busiest_s(hw: Hardware, state: State, b: int) -> float:
    """Return the seconds of the busiest device at the slots' current tokens."""
    busy = state.scratch[b, 0]
    for d in range(hw.devices[b]):
        busy[d] = 0.0
    longest = 0.0
    for p in range(state.slots[b]):
        d, load = state.device[b, p], state.tokens[b, p]
        if load > 0.0:
            busy[d] += max(load * hw.token_s[b, d], hw.weight_s[b, d])
            longest = max(longest, busy[d])
    return longest


@inner
def _path_layer_s(hw: Hardware, state: State, b: int, window: int, layer: int) -> float:
    """Return the seconds of a layer where tokens stay on their path, at the slots' current tokens.

    ``copies`` holds the replicas of the layer's experts.
    """
    seconds: float = _busiest_s(hw, state, b) + hw.overhead_s[b]
    if layer > 0:
        _leave(hw, state, b, window, layer)
        _arrive(hw, state, b, layer)
        seconds += _exchange_s(hw, b, state.scratch[b])
    return seconds


@inner
def _leave(hw: Hardware, state: State, b: int, window: int, layer: int) -> None:
    """Write tokens that go from every device to each expert of ``layer``."""
    experts, before = state.experts[b], state.copies_before[b]
    before[:] = 0
    for d in range(hw.devices[b]):
        for expert in range(experts):
            state.flow[b, d, expert] = 0.0
    for p in range(state.slots[b]):
        before[state.plan[b, layer - 1, p]] += 1
    for p in range(state.slots[b]):
        source, d = state.plan[b, layer - 1, p], state.device[b, p]
        load = state.scored[b, window, layer - 1, source] / before[source] / hw.top_k[b]
        if load > 0.0:
            for expert in range(experts):
                state.flow[b, d, expert] += load * state.transitions[b, layer - 1, source, expert]


@inner
def _arrive(hw: Hardware, state: State, b: int, layer: int) -> None:
    """Write tokens in and out of every device, inside and between nodes, to rows 1 to 4 of the scratch."""
    scratch, devices = state.scratch[b], hw.devices[b]
    for k in range(1, 5):
        for d in range(devices):
            scratch[k, d] = 0.0
    for p in range(state.slots[b]):
        expert, target = state.plan[b, layer, p], state.device[b, p]
        for d in range(devices):
            if d != target:
                volume = state.flow[b, d, expert] / state.copies[b, expert]
                network = 1 if hw.node[b, d] == hw.node[b, target] else 3
                scratch[network, target] += volume
                scratch[network + 1, d] += volume


@inner
def _even_volumes(hw: Hardware, b: int, tokens: float, scratch: F64) -> None:
    """Write the same volumes as ``_arrive`` for tokens that go evenly from every device to every device."""
    devices = hw.devices[b]
    for d in range(devices):
        share, mates = tokens / devices / devices, hw.mates[b, d]
        scratch[1, d] = scratch[2, d] = share * (mates - 1)
        scratch[3, d] = scratch[4, d] = share * (devices - mates)


@inner
def _exchange_s(hw: Hardware, b: int, scratch: F64) -> float:
    """Return the seconds of a dispatch of the volumes in rows 1 to 4 of the scratch."""
    intra, inter = 0.0, 0.0
    for d in range(hw.devices[b]):
        intra = max(intra, max(scratch[1, d], scratch[2, d]) * hw.intra_s[b, 0, d])
        inter = max(inter, max(scratch[3, d], scratch[4, d]) * hw.inter_s[b, 0, d])
    longest = 0.0
    if intra > 0.0:
        longest = hw.intra_latency_s[b, 0] + intra
    if inter > 0.0:
        longest = max(longest, hw.inter_latency_s[b, 0] + inter)
    return longest
