"""Offsets in a fast layer: which bytes are free over some operations, and whom a placement displaces."""

from __future__ import annotations

from typing import NamedTuple

from schedrl.arrays import F64, I8, I32, I64, Bool
from schedrl.envs.memmap.state import BEST, HIGHEST, LIFETIME, LOWEST, PLANNED, State
from schedrl.kernels import inlined, inner, inner_inlined, kernel

FREE, KEPT, TAKEN = 0, 1, 2
# A buffer whose last use is at most this many operations away goes to the top of the memory, others to the bottom.
_SHORT = 4


class Space(NamedTuple):
    """The arrays of a ``State`` that offsets need; kernels that take these alone compile much faster."""

    access_buffer: I32
    access_group: I32
    access_op: I32
    alignment: I64
    capacity: I64
    displaced: F64
    final_access: I32
    gain: F64
    here: I32
    hint: I8
    hint_place: I64
    hold: Bool
    layers: I32
    loss: F64
    lost_by: I32
    mark: I8
    next_access: I32
    op_offset: I32
    ops: I32
    order: I32
    ordered: I32
    output: Bool
    position: I32
    residence: I64
    residences: I32
    size: I64
    touched: I32
    valid_from: I32


@inlined
def space_of(state: State) -> Space:
    """Return the arrays of a state that offsets need."""
    return Space(
        state.access_buffer,
        state.access_group,
        state.access_op,
        state.alignment,
        state.capacity,
        state.displaced,
        state.final_access,
        state.gain,
        state.here,
        state.hint,
        state.hint_place,
        state.hold,
        state.layers,
        state.loss,
        state.lost_by,
        state.mark,
        state.next_access,
        state.op_offset,
        state.ops,
        state.order,
        state.ordered,
        state.output,
        state.position,
        state.residence,
        state.residences,
        state.size,
        state.touched,
        state.valid_from,
    )


@inner_inlined
def keeping_value(space: Space, b: int, residence: int) -> float:
    """Return the priced seconds that keeping a residence for its buffer's next use saves; 0 when not worth a place."""
    buffer, layer = space.residence[b, residence, 0], space.residence[b, residence, 1]
    if space.here[b, buffer] != residence or space.lost_by[b, residence] >= 0:
        return 0.0
    if not space.hold[b, space.touched[b, buffer]]:
        return 0.0
    found: float = max(0.0, space.gain[b, space.next_access[b, space.touched[b, buffer]], layer])
    return found


@inner_inlined
def is_dirty(space: Space, b: int, residence: int) -> bool:
    """Whether a residence holds the only valid copy of a buffer that is still needed."""
    buffer = space.residence[b, residence, 0]
    if space.here[b, buffer] != residence or space.lost_by[b, residence] >= 0:
        return False
    if space.valid_from[b, buffer] <= space.ops[b]:
        return False
    found: bool = space.output[b, buffer] or space.next_access[b, space.touched[b, buffer]] >= 0
    return found


@inner_inlined
def _partners(space: Space, b: int, one: int, two: int, t: int) -> bool:
    """Whether two buffers hand over one place to each other at an operation, as members of an alias group."""
    for a in range(space.op_offset[b, t], space.op_offset[b, t + 1]):
        if space.access_buffer[b, a] == one and space.access_group[b, a] >= 0:
            for c in range(space.op_offset[b, t], space.op_offset[b, t + 1]):
                if space.access_buffer[b, c] == two and space.access_group[b, c] == space.access_group[b, a]:
                    return True
    return False


@kernel
def place_is_free(space: Space, b: int, buffer: int, layer: int, offset: int, first: int, last: int) -> bool:
    """Whether a place is free from ``first`` to ``last``, but for a member of its alias group that hands it over."""
    top = offset + space.size[b, buffer]
    if top > space.capacity[b, layer]:
        return False
    for i in range(space.ordered[b, layer]):
        r = space.order[b, layer, i]
        low = space.residence[b, r, 2]
        if low >= top:
            return True
        other = space.residence[b, r, 0]
        if low + space.size[b, other] <= offset:
            continue
        if space.residence[b, r, 4] >= first and space.residence[b, r, 3] <= last:
            hands_over = low == offset and space.residence[b, r, 4] == first
            if not (hands_over and _partners(space, b, buffer, other, first)):
                return False
    return True


@kernel
def _mark(space: Space, b: int, layer: int, first: int, last: int, masked: bool) -> None:
    for i in range(space.ordered[b, layer]):
        r = space.order[b, layer, i]
        space.loss[b, i] = 0.0
        if (space.residence[b, r, 4] >= first and space.residence[b, r, 3] <= last) or (
            masked and is_dirty(space, b, r)
        ):
            space.mark[b, i] = TAKEN
        else:
            value = keeping_value(space, b, r)
            space.mark[b, i] = KEPT if value > 0.0 else FREE
            space.loss[b, i] = value


@inner
def _gap_offset(space: Space, b: int, layer: int, size: int, least: int, fit: int) -> int:
    """Return an offset in a gap between entries marked ``least`` or more, -1 when none is large enough."""
    align = space.alignment[b, layer]
    top, found, tightest = 0, -1, 0
    count = space.ordered[b, layer]
    for i in range(count + 1):
        low = space.capacity[b, layer]
        if i < count:
            if space.mark[b, i] < least:
                continue
            low = space.residence[b, space.order[b, layer, i], 2]
        start = (top + align - 1) // align * align
        if low - start >= size and (found < 0 or fit == HIGHEST or (fit == BEST and low - start < tightest)):
            found = (low - size) // align * align if fit == HIGHEST else start
            tightest = low - start
            if fit == LOWEST:
                return int(found)
        if i < count:
            top = max(top, low + space.size[b, space.residence[b, space.order[b, layer, i], 0]])
    return int(found)


@inner_inlined
def _loss_at(space: Space, b: int, layer: int, offset: int, top: int) -> float:
    """Return the seconds lost by placing bytes there; infinite when they are taken."""
    total = 0.0
    for i in range(space.ordered[b, layer]):
        r = space.order[b, layer, i]
        low = space.residence[b, r, 2]
        if low >= top:
            break
        if low + space.size[b, space.residence[b, r, 0]] > offset and space.mark[b, i] > FREE:
            if space.mark[b, i] == TAKEN:
                return 1e300
            total += space.loss[b, i]
    return total


@inner
def _cheapest_offset(space: Space, b: int, layer: int, size: int, slot: int) -> int:
    """Return the offset that displaces least, at the bottom or on top of some residence; -1 when all are taken."""
    align = space.alignment[b, layer]
    found, least = -1, 1e299
    for i in range(-1, space.ordered[b, layer]):
        offset = 0
        if i >= 0:
            r = space.order[b, layer, i]
            if space.mark[b, i] == FREE:
                continue
            offset = space.residence[b, r, 2] + space.size[b, space.residence[b, r, 0]]
            offset = (offset + align - 1) // align * align
        if offset + size > space.capacity[b, layer]:
            continue
        loss = _loss_at(space, b, layer, offset, offset + size)
        if loss < least:
            found, least = offset, loss
    space.displaced[b, slot] = least if found >= 0 else 0.0
    return found


@kernel
def find_offset(
    space: Space, b: int, buffer: int, layer: int, first: int, last: int, fit: int, masked: bool, slot: int
) -> int:
    """Return an offset that is free over some operations, -1 when there is none; fills ``displaced`` of the slot.

    Places that others are worth keeping at are used only when there is no other, and then those that cost least.
    """
    size = space.size[b, buffer]
    space.displaced[b, slot] = 0.0
    if size > space.capacity[b, layer]:
        return -1
    _mark(space, b, layer, first, last, masked)
    if fit == LIFETIME:
        final = space.access_op[b, space.final_access[b, space.position[b]]]
        fit = HIGHEST if final - last <= _SHORT else LOWEST
    if fit == PLANNED:
        fit = BEST
        planned = space.hint_place[b, space.position[b]]
        if planned >= 0 and layer == space.hint[b, space.position[b]]:
            loss = _loss_at(space, b, layer, planned, planned + size)
            if loss < 1e299:
                space.displaced[b, slot] = loss
                found: int = planned
                return found
    offset = _gap_offset(space, b, layer, size, KEPT, fit)
    if offset < 0:
        offset = _cheapest_offset(space, b, layer, size, slot)
    return offset


@kernel
def add_to_order(space: Space, b: int, residence: int) -> None:
    """Insert a residence among its layer's by offset."""
    layer, offset = space.residence[b, residence, 1], space.residence[b, residence, 2]
    i = space.ordered[b, layer]
    while i > 0 and space.residence[b, space.order[b, layer, i - 1], 2] > offset:
        space.order[b, layer, i] = space.order[b, layer, i - 1]
        i -= 1
    space.order[b, layer, i] = residence
    space.ordered[b, layer] += 1


@inlined
def matters(space: Space, b: int, residence: int, oldest: int) -> bool:
    """Whether a residence can still be in the way, or be extended, when windows begin at ``oldest`` or later."""
    buffer = space.residence[b, residence, 0]
    if space.residence[b, residence, 4] >= oldest:
        return True
    if space.here[b, buffer] != residence or space.lost_by[b, residence] >= 0:
        return False
    found: bool = space.output[b, buffer] or space.next_access[b, space.touched[b, buffer]] >= 0
    return found


@kernel
def displace(space: Space, b: int, residence: int) -> None:
    """Record for all residences at the place of a new one that its access has displaced them."""
    layer, offset = space.residence[b, residence, 1], space.residence[b, residence, 2]
    top = offset + space.size[b, space.residence[b, residence, 0]]
    for i in range(space.ordered[b, layer]):
        r = space.order[b, layer, i]
        low = space.residence[b, r, 2]
        if low >= top:
            break
        if low + space.size[b, space.residence[b, r, 0]] > offset and space.lost_by[b, r] < 0:
            space.lost_by[b, r] = space.position[b]


@inner
def forget_old(space: Space, b: int, oldest: int) -> None:
    """Drop what no longer matters from the lists."""
    for layer in range(1, space.layers[b]):
        kept = 0
        for i in range(space.ordered[b, layer]):
            if matters(space, b, space.order[b, layer, i], oldest):
                space.order[b, layer, kept] = space.order[b, layer, i]
                kept += 1
        space.ordered[b, layer] = kept


@kernel
def order_anew(space: Space, b: int, oldest: int) -> None:
    """Build the lists from all residences, after some were taken back."""
    space.ordered[b, :] = 0
    for r in range(space.residences[b]):
        if matters(space, b, r, oldest):
            add_to_order(space, b, r)
