"""What can be done with a layer before a window: keep it, change a few slots, or place it anew; and what that promises.

Everything here looks at windows that are over, and nothing else.
"""

from __future__ import annotations

from schedrl.arrays import F64, I32
from schedrl.envs.moe.balancing import Scratch, plan_layer
from schedrl.envs.moe.layer_time import home_layer_s, migration_layer_s, slot_tokens
from schedrl.envs.moe.rebalance_changes import begin_changes, change_once, end_changes
from schedrl.envs.moe.rebalance_state import State, Work
from schedrl.envs.moe.relabelling import rearrange
from schedrl.kernels import inner, inner_inlined

__all__ = ["make_options", "write_forecasts"]

_LATEST, _RECENT, _SAFE = 0, 1, 3
# A window is like the latest one when the total variation between their loads is less than this; it lies between
# the variation from window to window and that from domain to domain (ScalpeLB's gate).
_GATE = 0.2
# What a window's age takes from its weight.
_DECAY = 0.85
# Standard deviations that the safe forecast adds (FlashLB's z).
_MARGIN = 0.674
_SWAPS = 24


@inner_inlined
def _total(state: State, b: int, window: int, layer: int) -> float:
    total = 0.0
    for e in range(state.experts[b]):
        total += state.loads[b, window, layer, e]
    return total


@inner_inlined
def _variation(state: State, b: int, window: int, other: int, layer: int) -> float:
    """Return the total variation between a layer's loads in two windows, 0 to 1."""
    here, there, apart = _total(state, b, window, layer), _total(state, b, other, layer), 0.0
    if here <= 0.0 or there <= 0.0:
        return 1.0 if here != there else 0.0
    for e in range(state.experts[b]):
        apart += abs(state.loads[b, window, layer, e] / here - state.loads[b, other, layer, e] / there)
    return 0.5 * apart


@inner
def write_forecasts(state: State, b: int) -> None:
    """Write the forecasts of the layer at hand from the windows that are over, and how far those vary."""
    layer, known, experts = state.layer[b], state.planned[b] + state.plan[b], state.experts[b]
    latest, forecast = known - 1, state.forecast[b]
    total = _total(state, b, latest, layer)
    for e in range(experts):
        forecast[_LATEST, e] = state.loads[b, latest, layer, e]
        for k in range(1, 4):
            forecast[k, e] = 0.0
    weight, sum_of_weights, like, switches = 1.0, 0.0, 0, 0
    for age in range(known):
        window = latest - age
        own = _total(state, b, window, layer)
        scale = total / own if own > 0.0 else 0.0
        near = _variation(state, b, window, latest, layer) < _GATE
        switches += window > 0 and _variation(state, b, window, window - 1, layer) >= _GATE
        if near:
            like += 1
            sum_of_weights += weight
        for e in range(experts):
            load = state.loads[b, window, layer, e] * scale
            forecast[2, e] += load / known
            if near:
                forecast[_RECENT, e] += weight * load
                forecast[_SAFE, e] += weight * load * load
        weight *= _DECAY
    for e in range(experts):
        mean = forecast[_RECENT, e] / sum_of_weights
        spread = max(forecast[_SAFE, e] / sum_of_weights - mean * mean, 0.0)
        forecast[_RECENT, e] = mean
        forecast[_SAFE, e] = mean + _MARGIN * spread**0.5
    state.distance[b, 0] = _variation(state, b, latest, latest - 1, layer) if known > 1 else 0.0
    state.distance[b, 1] = _variation(state, b, latest, latest - 2, layer) if known > 2 else 0.0
    state.distance[b, 2] = like / known
    state.distance[b, 3] = switches / known


@inner
def make_options(state: State, work: Work, b: int) -> None:
    """List the options of the layer at hand with what each costs and promises; keeping it comes first."""
    layer, slots = state.layer[b], state.slots[b]
    now = state.placement[b, layer]
    state.candidates[b] = 0
    for p in range(slots):
        work.placement[p] = now[p]
    _list_option(state, work, b, 0)
    _list_changes(state, work, b)
    for kind, forecast in ((5, _LATEST), (6, _RECENT), (7, _SAFE)):
        _place_anew(state, work, b, state.forecast[b, forecast])
        _list_option(state, work, b, kind)


@inner
def _list_changes(state: State, work: Work, b: int) -> None:
    """List the placements after a few changes, each the best one for the recent forecast."""
    slots, loads, listed = state.slots[b], state.forecast[b, _RECENT], 0
    device = state.device[b]
    begin_changes(work.hardware, b, loads, work.placement, device, slots, work.replicas, work.busy, work.held)
    for made in range(1, 25):
        more = change_once(work.hardware, b, loads, work.placement, device, slots, work.replicas, work.busy, work.held)
        if more:
            listed = made
        kind = 1 if made == 1 else 2 if made == 3 else 3 if made == 8 else 4 if made == 24 else 0
        if not more:
            # What is left of the search is listed once, under the number of changes that allows it.
            kind = 2 if listed < 3 else 3 if listed < 8 else 4
            if listed not in (0, 1, 3, 8):
                _list_option(state, work, b, kind)
            break
        if kind > 0:
            _list_option(state, work, b, kind)
    end_changes(work.placement, device, slots, work.held)


@inner_inlined
def _cut(work: Work, experts: int, slots: int, devices: int) -> Scratch:
    """Return the balancing kernels' memory for a layer of these sizes."""
    memory = work.balancing
    return Scratch(
        memory.share[:experts],
        memory.order[:experts],
        memory.merged[:experts],
        memory.held[:experts],
        memory.slots[:slots],
        memory.load[:devices],
        memory.fill[:devices],
        memory.mark[:devices],
        memory.queue[:devices],
        memory.parent[:devices],
        memory.moved[:devices],
        memory.cost[:devices, :devices],
        memory.match[:devices],
        memory.potential[:, : devices + 1],
        memory.path[:, : devices + 1],
    )


@inner
def _place_anew(state: State, work: Work, b: int, forecast: F64) -> None:
    """Write into ``work.placement`` a placement for a forecast that moves as little as its balance allows."""
    experts, slots, devices = state.experts[b], state.slots[b], state.devices[b]
    memory = _cut(work, experts, slots, devices)
    loads, replicas, placement = forecast[:experts], work.replicas[:experts], work.placement[:slots]
    first, speed = state.first_slot[b, : devices + 1], work.hardware.token_s[b, :devices]
    now = state.placement[b, state.layer[b], :slots]
    plan_layer(loads, first, speed, _SWAPS, replicas, placement, memory)
    rearrange(now, placement, first, speed, work.hardware.node[b, :devices], 0, memory)


@inner
def _list_option(state: State, work: Work, b: int, kind: int) -> None:
    """Append ``work.placement`` to the options, unless it moves nothing and something else does so already."""
    c, slots, layer = state.candidates[b], state.slots[b], state.layer[b]
    device, now = state.device[b], state.placement[b, layer]
    move_s = migration_layer_s(work.hardware, b, now, work.placement, device, slots, work.holds, work.times)
    moved = work.times[4, 0]
    if moved == 0.0 and _same_replicas(now, work.placement, slots) and c > 0:
        return
    option: I32 = state.option[b, c]
    for p in range(slots):
        option[p] = work.placement[p]
    state.kind[b, c], state.moved[b, c] = kind, moved
    state.move_s[b, c] = 0.0 if state.free_start[b] and state.plan[b] == 0 else move_s
    for k in range(4):
        loads = state.forecast[b, k, : state.experts[b]]
        total = slot_tokens(loads, option, slots, work.replicas[: state.experts[b]], work.tokens)
        state.predicted_s[b, c, k] = home_layer_s(work.hardware, b, work.tokens, device, slots, total, work.times)
        if k == _LATEST:
            longest, mean = 0.0, 0.0
            for d in range(state.devices[b]):
                longest = max(longest, work.times[0, d])
                mean += work.times[0, d] / state.devices[b]
            state.peak[b, c] = longest / mean if mean > 0.0 else 1.0
    state.candidates[b] = c + 1


@inner_inlined
def _same_replicas(old: I32, new: I32, slots: int) -> bool:
    same = True
    for p in range(slots):
        same = same and old[p] == new[p]
    return same
