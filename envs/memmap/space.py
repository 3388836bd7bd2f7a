"""Offsets in a fast layer: which bytes are free over some operations, and whom a placement displaces."""

from __future__ import annotations

from schedrl.envs.memmap.state import BEST, HIGHEST, LIFETIME, LOWEST, PLANNED, State
from schedrl.kernels import inlined, inner, inner_inlined, kernel

FREE, KEPT, TAKEN = 0, 1, 2
# A buffer whose last use is at most this many operations away goes to the top of the memory, others to the bottom.
_SHORT = 4


@inner_inlined
def keeping_value(state: State, b: int, residence: int) -> float:
    """Return the priced seconds that keeping a residence for its buffer's next use saves; 0 when not worth a place."""
    buffer, layer = state.residence[b, residence, 0], state.residence[b, residence, 1]
    if state.here[b, buffer] != residence or state.lost_by[b, residence] >= 0:
        return 0.0
    if not state.hold[b, state.touched[b, buffer]]:
        return 0.0
    found: float = max(0.0, state.gain[b, state.next_access[b, state.touched[b, buffer]], layer])
    return found


@inner_inlined
def is_dirty(state: State, b: int, residence: int) -> bool:
    """Whether a residence holds the only valid copy of a buffer that is still needed."""
    buffer = state.residence[b, residence, 0]
    if state.here[b, buffer] != residence or state.lost_by[b, residence] >= 0:
        return False
    if state.valid_from[b, buffer] <= state.ops[b]:
        return False
    found: bool = state.output[b, buffer] or state.next_access[b, state.touched[b, buffer]] >= 0
    return found


@inner_inlined
def _partners(state: State, b: int, one: int, two: int, t: int) -> bool:
    """Whether two buffers hand over one place to each other at an operation, as members of an alias group."""
    for a in range(state.op_offset[b, t], state.op_offset[b, t + 1]):
        if state.access_buffer[b, a] == one and state.access_group[b, a] >= 0:
            for c in range(state.op_offset[b, t], state.op_offset[b, t + 1]):
                if state.access_buffer[b, c] == two and state.access_group[b, c] == state.access_group[b, a]:
                    return True
    return False


@kernel
def place_is_free(state: State, b: int, buffer: int, layer: int, offset: int, first: int, last: int) -> bool:
    """Whether a place is free from ``first`` to ``last``, but for a member of its alias group that hands it over."""
    top = offset + state.size[b, buffer]
    if top > state.capacity[b, layer]:
        return False
    for i in range(state.ordered[b, layer]):
        r = state.order[b, layer, i]
        low = state.residence[b, r, 2]
        if low >= top:
            return True
        other = state.residence[b, r, 0]
        if low + state.size[b, other] <= offset:
            continue
        if state.residence[b, r, 4] >= first and state.residence[b, r, 3] <= last:
            hands_over = low == offset and state.residence[b, r, 4] == first
            if not (hands_over and _partners(state, b, buffer, other, first)):
                return False
    return True


@kernel
def _mark(state: State, b: int, layer: int, first: int, last: int, masked: bool) -> None:
    for i in range(state.ordered[b, layer]):
        r = state.order[b, layer, i]
        state.loss[b, i] = 0.0
        if (state.residence[b, r, 4] >= first and state.residence[b, r, 3] <= last) or (
            masked and is_dirty(state, b, r)
        ):
            state.mark[b, i] = TAKEN
        else:
            value = keeping_value(state, b, r)
            state.mark[b, i] = KEPT if value > 0.0 else FREE
            state.loss[b, i] = value


@inner
def _gap_offset(state: State, b: int, layer: int, size: int, least: int, fit: int) -> int:
    """Return an offset in a gap between entries marked ``least`` or more, -1 when none is large enough."""
    align = state.alignment[b, layer]
    top, found, tightest = 0, -1, 0
    count = state.ordered[b, layer]
    for i in range(count + 1):
        low = state.capacity[b, layer]
        if i < count:
            if state.mark[b, i] < least:
                continue
            low = state.residence[b, state.order[b, layer, i], 2]
        start = (top + align - 1) // align * align
        if low - start >= size and (found < 0 or fit == HIGHEST or (fit == BEST and low - start < tightest)):
            found = (low - size) // align * align if fit == HIGHEST else start
            tightest = low - start
            if fit == LOWEST:
                return int(found)
        if i < count:
            top = max(top, low + state.size[b, state.residence[b, state.order[b, layer, i], 0]])
    return int(found)


@inner_inlined
def _loss_at(state: State, b: int, layer: int, offset: int, top: int) -> float:
    """Return the seconds lost by placing bytes there; infinite when they are taken."""
    total = 0.0
    for i in range(state.ordered[b, layer]):
        r = state.order[b, layer, i]
        low = state.residence[b, r, 2]
        if low >= top:
            break
        if low + state.size[b, state.residence[b, r, 0]] > offset and state.mark[b, i] > FREE:
            if state.mark[b, i] == TAKEN:
                return 1e300
            total += state.loss[b, i]
    return total


@inner
def _cheapest_offset(state: State, b: int, layer: int, size: int, slot: int) -> int:
    """Return the offset that displaces least, at the bottom or on top of some residence; -1 when all are taken."""
    align = state.alignment[b, layer]
    found, least = -1, 1e299
    for i in range(-1, state.ordered[b, layer]):
        offset = 0
        if i >= 0:
            r = state.order[b, layer, i]
            if state.mark[b, i] == FREE:
                continue
            offset = state.residence[b, r, 2] + state.size[b, state.residence[b, r, 0]]
            offset = (offset + align - 1) // align * align
        if offset + size > state.capacity[b, layer]:
            continue
        loss = _loss_at(state, b, layer, offset, offset + size)
        if loss < least:
            found, least = offset, loss
    state.displaced[b, slot] = least if found >= 0 else 0.0
    return found


@kernel
def find_offset(
    state: State, b: int, buffer: int, layer: int, first: int, last: int, fit: int, masked: bool, slot: int
) -> int:
    """Return an offset that is free over some operations, -1 when there is none; fills ``displaced`` of the slot.

    Places that others are worth keeping at are used only when there is no other, and then those that cost least.
    """
    size = state.size[b, buffer]
    state.displaced[b, slot] = 0.0
    if size > state.capacity[b, layer]:
        return -1
    _mark(state, b, layer, first, last, masked)
    if fit == LIFETIME:
        final = state.access_op[b, state.final_access[b, state.position[b]]]
        fit = HIGHEST if final - last <= _SHORT else LOWEST
    if fit == PLANNED:
        fit = BEST
        planned = state.hint_place[b, state.position[b]]
        if planned >= 0 and layer == state.hint[b, state.position[b]]:
            loss = _loss_at(state, b, layer, planned, planned + size)
            if loss < 1e299:
                state.displaced[b, slot] = loss
                found: int = planned
                return found
    offset = _gap_offset(state, b, layer, size, KEPT, fit)
    if offset < 0:
        offset = _cheapest_offset(state, b, layer, size, slot)
    return offset


@kernel
def add_to_order(state: State, b: int, residence: int) -> None:
    """Insert a residence among its layer's by offset."""
    layer, offset = state.residence[b, residence, 1], state.residence[b, residence, 2]
    i = state.ordered[b, layer]
    while i > 0 and state.residence[b, state.order[b, layer, i - 1], 2] > offset:
        state.order[b, layer, i] = state.order[b, layer, i - 1]
        i -= 1
    state.order[b, layer, i] = residence
    state.ordered[b, layer] += 1


@inlined
def matters(state: State, b: int, residence: int, oldest: int) -> bool:
    """Whether a residence can still be in the way, or be extended, when windows begin at ``oldest`` or later."""
    buffer = state.residence[b, residence, 0]
    if state.residence[b, residence, 4] >= oldest:
        return True
    if state.here[b, buffer] != residence or state.lost_by[b, residence] >= 0:
        return False
    found: bool = state.output[b, buffer] or state.next_access[b, state.touched[b, buffer]] >= 0
    return found


@kernel
def displace(state: State, b: int, residence: int) -> None:
    """Record for all residences at the place of a new one that its access has displaced them."""
    layer, offset = state.residence[b, residence, 1], state.residence[b, residence, 2]
    top = offset + state.size[b, state.residence[b, residence, 0]]
    for i in range(state.ordered[b, layer]):
        r = state.order[b, layer, i]
        low = state.residence[b, r, 2]
        if low >= top:
            break
        if low + state.size[b, state.residence[b, r, 0]] > offset and state.lost_by[b, r] < 0:
            state.lost_by[b, r] = state.position[b]


@inner
def forget_old(state: State, b: int, oldest: int) -> None:
    """Drop what no longer matters from the lists."""
    for layer in range(1, state.layers[b]):
        kept = 0
        for i in range(state.ordered[b, layer]):
            if matters(state, b, state.order[b, layer, i], oldest):
                state.order[b, layer, kept] = state.order[b, layer, i]
                kept += 1
        state.ordered[b, layer] = kept


@kernel
def order_anew(state: State, b: int, oldest: int) -> None:
    """Build the lists from all residences, after some were taken back."""
    state.ordered[b, :] = 0
    for r in range(state.residences[b]):
        if matters(state, b, r, oldest):
            add_to_order(state, b, r)
