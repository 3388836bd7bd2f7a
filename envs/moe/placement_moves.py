"""Moves of the placement game: which devices a replica may go to, and what placing it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schedrl.envs.moe.layer_time import Hardware

if TYPE_CHECKING:
    from schedrl.envs.moe.placement_state import State
from schedrl.kernels import inner, inner_inlined

__all__ = ["begin_layer", "offer", "place"]


@inner_inlined
def _replica_s(hw: Hardware, state: State, b: int, d: int) -> float:
    """Return the seconds of one replica of the expert in hand on a device, by the forecast."""
    layer = state.layer[b]
    expert = state.sequence[b, layer, state.position[b]]
    load = state.forecast[b, layer, expert] / state.replicas[b, layer, expert]
    return max(load * hw.token_s[b, d], hw.weight_s[b, d]) if load > 0.0 else 0.0


@inner
def begin_layer(hw: Hardware, state: State, b: int) -> None:
    """Empty all devices for the current layer, and take its first expert in hand."""
    layer, devices = state.layer[b], hw.devices[b]
    for d in range(devices):
        state.busy[b, d], state.free[b, d] = 0.0, state.first_slot[b, d + 1] - state.first_slot[b, d]
        state.node_busy[b, d], state.node_free[b, d] = 0.0, state.node_slots[b, d]
        state.fetched[b, 0, d] = state.fetched[b, 1, d] = 0
        state.later[b, d + 1] = 0
    state.peak_s[b], state.position[b] = 0.0, 0
    total = 0.0
    for expert in range(state.experts[b]):
        total += state.forecast[b, layer, expert]
        for k in range(1, devices + 1):
            state.later[b, k] += min(state.replicas[b, layer, expert], k)
    state.layer_tokens[b] = state.tokens_left[b] = total
    _begin_expert(hw, state, b)


@inner
def _begin_expert(hw: Hardware, state: State, b: int) -> None:
    """Take the expert at ``position`` in hand: where it was at the start, and where its tokens come from."""
    layer, devices = state.layer[b], hw.devices[b]
    expert = state.sequence[b, layer, state.position[b]]
    state.placed[b] = 0
    for d in range(devices):
        state.holding[b, d] = state.resident[b, d] = state.near[b, d] = False
        state.incoming[b, d] = state.node_incoming[b, d] = 0.0
        state.later[b, d + 1] -= min(state.replicas[b, layer, expert], d + 1)
    if state.has_initial[b]:
        for p in range(state.slots[b]):
            if state.initial[b, layer, p] == expert:
                d = state.device[b, p]
                state.resident[b, d] = state.near[b, hw.node[b, d]] = True
    if state.has_sources[b] and layer > 0:
        for k in range(state.source.shape[3]):
            source, share = state.source[b, layer, expert, k], state.source_share[b, layer, expert, k]
            if source >= 0 and share > 0.0:
                for d in range(devices):
                    state.incoming[b, d] += share * state.held[b, source, d]
        for d in range(devices):
            state.node_incoming[b, hw.node[b, d]] += state.incoming[b, d]


@inner
def place(hw: Hardware, state: State, b: int, d: int) -> None:
    """Give the replica in hand to a device, and go on to the next replica, expert or layer."""
    layer, node = state.layer[b], hw.node[b, d]
    expert = state.sequence[b, layer, state.position[b]]
    seconds = _replica_s(hw, state, b, d)
    state.content[b, state.first_slot[b, d + 1] - state.free[b, d]] = expert
    state.free[b, d] -= 1
    state.node_free[b, node] -= 1
    if state.has_initial[b] and not state.resident[b, d] and not state.holding[b, d]:
        state.fetched[b, 0 if state.near[b, node] else 1, d] += 1
    state.holding[b, d] = True
    state.busy[b, d] += seconds
    state.node_busy[b, node] += seconds
    state.peak_s[b] = max(state.peak_s[b], state.busy[b, d])
    state.tokens_left[b] -= state.forecast[b, layer, expert] / state.replicas[b, layer, expert]
    state.placed[b] += 1
    state.left[b] -= 1
    if state.placed[b] == state.replicas[b, layer, expert]:
        state.position[b] += 1
        if state.position[b] < state.experts[b]:
            _begin_expert(hw, state, b)
        else:
            _end_layer(hw, state, b)


@inner
def _end_layer(hw: Hardware, state: State, b: int) -> None:
    """Give slots to the experts of every device, note what the layer costs, and begin the next."""
    layer, moves_s, moved = state.layer[b], 0.0, 0
    for d in range(hw.devices[b]):
        _fill_slots(state, b, layer, state.first_slot[b, d], state.first_slot[b, d + 1])
        moves_s = max(moves_s, state.fetched[b, 0, d] * hw.intra_move_s[b, d])
        moves_s = max(moves_s, state.fetched[b, 1, d] * hw.inter_move_s[b, d])
        moved += state.fetched[b, 0, d] + state.fetched[b, 1, d]
    excess = max(state.peak_s[b] - state.ideal_s[b, layer], 0.0)
    state.spent_s[b] += excess * state.iterations[b] * state.windows[b]
    if moved > 0:
        state.spent_s[b] += moves_s + hw.sync_s[b]
    if state.has_sources[b]:
        for expert in range(state.experts[b]):
            for d in range(hw.devices[b]):
                state.held[b, expert, d] = 0.0
        for p in range(state.slots[b]):
            expert = state.plan[b, layer, p]
            state.held[b, expert, state.device[b, p]] += 1.0 / state.replicas[b, layer, expert]
    state.layer[b] += 1
    if state.layer[b] < state.layers[b]:
        begin_layer(hw, state, b)


@inner_inlined
def _fill_slots(state: State, b: int, layer: int, first: int, last: int) -> None:
    """Give a device's slots to its experts: those that it held at the start keep theirs, the rest come in order."""
    for p in range(first, last):
        state.plan[b, layer, p] = -1
        if state.has_initial[b]:
            for k in range(first, last):
                if state.content[b, k] == state.initial[b, layer, p]:
                    state.plan[b, layer, p] = state.content[b, k]
                    state.content[b, k] = -1
                    break
    k = first
    for p in range(first, last):
        if state.plan[b, layer, p] < 0:
            while state.content[b, k] < 0:
                k += 1
            state.plan[b, layer, p] = state.content[b, k]
            k += 1


@inner
def _leads_on(state: State, b: int, chosen: int, wanted: int, most: int) -> bool:
    """Whether all replicas can still be placed apart once one goes to a device with ``chosen`` free slots.

    Its ``wanted`` sister replicas go where most slots are free, at most ``most``: if they fit anywhere, they do there.
    The rest fits exactly when the k freest devices have no more slots than the other experts can use on k devices
    (Gale 1957, Ryser 1957); only ends of runs of equal devices matter.
    """
    devices, slots, moved, free = 0, 0, 0, most
    while free > 0:
        apart = state.tally[b, 0, free] - (1 if free == chosen else 0)
        taken = min(wanted, apart)
        here = state.tally[b, 1, free] + apart - taken + moved + (1 if free == chosen - 1 else 0)
        wanted -= taken
        moved = taken
        devices += here
        slots += here * free
        if here > 0 and slots > state.later[b, devices]:
            return False
        free -= 1
    return wanted == 0


@inner
def _least_free(hw: Hardware, state: State, b: int) -> int:
    """Return the fewest free slots that a device must have to get the replica in hand; 0 where experts may meet."""
    devices, layer = hw.devices[b], state.layer[b]
    if not state.strict[b]:
        return 0
    if state.later[b, 1] == state.later[b, devices]:
        return 1
    most = 0
    for d in range(devices):
        most = max(most, state.free[b, d])
    for free in range(most + 1):
        state.tally[b, 0, free] = state.tally[b, 1, free] = 0
    for d in range(devices):
        state.tally[b, 1 if state.holding[b, d] else 0, state.free[b, d]] += 1
    expert = state.sequence[b, layer, state.position[b]]
    wanted = state.replicas[b, layer, expert] - state.placed[b] - 1
    for free in range(1, most + 1):
        if state.tally[b, 0, free] > 0 and _leads_on(state, b, free, wanted, most):
            return free
    return 1


@inner_inlined
def _is_first_of_equals(hw: Hardware, state: State, b: int, d: int, found: int) -> bool:
    """Whether no device among the ``found`` empty ones is as good as this empty one in all that follows."""
    node = hw.node[b, d]
    unused = state.node_free[b, node] == state.node_slots[b, node]
    for k in range(found):
        other = state.empties[b, k]
        if state.kind[b, other] == state.kind[b, d] and state.resident[b, other] == state.resident[b, d]:
            home = hw.node[b, other]
            if home == node:
                return False
            equal = unused and state.node_free[b, home] == state.node_slots[b, home]
            if equal and state.near[b, home] == state.near[b, node]:
                return False
    return True


@inner_inlined
def _insert(state: State, b: int, d: int, seconds: float, count: int, window: int) -> int:
    """Insert a device among the best so far and return their number: those of the start first, then by seconds."""
    k = count
    if count == window:
        last = state.option[b, window - 1]
        better = seconds < state.option_s[b, window - 1]
        if state.resident[b, d] != state.resident[b, last]:
            better = state.resident[b, d]
        if not better:
            return count
        k = window - 1
    while k > 0:
        other = state.option[b, k - 1]
        ahead = seconds < state.option_s[b, k - 1]
        if state.resident[b, d] != state.resident[b, other]:
            ahead = state.resident[b, d]
        if not ahead:
            break
        state.option[b, k], state.option_s[b, k] = other, state.option_s[b, k - 1]
        k -= 1
    state.option[b, k], state.option_s[b, k] = d, seconds
    return min(count + 1, window)


@inner_inlined
def _sort(state: State, b: int, count: int) -> None:
    """Order the options by seconds, then device."""
    for i in range(1, count):
        d, seconds, k = state.option[b, i], state.option_s[b, i], i
        while k > 0:
            gap = state.option_s[b, k - 1] - seconds
            if gap < 0.0 or (gap == 0.0 and state.option[b, k - 1] < d):
                break
            state.option[b, k], state.option_s[b, k] = state.option[b, k - 1], state.option_s[b, k - 1]
            k -= 1
        state.option[b, k], state.option_s[b, k] = d, seconds


@inner
def _collect(hw: Hardware, state: State, b: int, window: int, least: int, meet: bool) -> int:
    """Write the options with at least ``least`` free slots, and with ``meet`` also those that hold the expert."""
    # Where tokens stay on their path, devices already differ in what they hold of the layer before.
    count, empty, merges = 0, 0, not state.path[b] or state.layer[b] == 0
    for d in range(hw.devices[b]):
        free = state.free[b, d]
        if free == 0 or free < least or (state.holding[b, d] and not meet):
            continue
        if merges and free == state.first_slot[b, d + 1] - state.first_slot[b, d]:
            if not _is_first_of_equals(hw, state, b, d, empty):
                continue
            state.empties[b, empty] = d
            empty += 1
        count = _insert(state, b, d, state.busy[b, d] + _replica_s(hw, state, b, d), count, window)
    return count


@inner
def offer(hw: Hardware, state: State, b: int, window: int) -> None:
    """Offer the devices on which the replica in hand would be done first, with those that held it at the start."""
    count = _collect(hw, state, b, window, _least_free(hw, state, b), False)
    if count == 0:
        # Some device has more slots than there are experts.
        count = _collect(hw, state, b, window, 0, True)
    _sort(state, b, count)
    state.candidates[b] = count
