"""Placement of buffers one after another at offsets that earlier ones leave free: the kernels of all offset packers.

The placed byte ranges stand in one list sorted by their first byte, as in the arena of TensorFlow Lite. A buffer is
placed in one sweep over that list, so N buffers take O(N^2) steps and O(N) memory however many of them conflict.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from schedrl.arrays import I32, I64
from schedrl.envs.memmap.packing import OffsetPackingInstance
from schedrl.kernel_arguments import by_reference
from schedrl.kernels import inner, inner_inlined, kernel

__all__ = [
    "BEST_FIT",
    "FIRST_FIT",
    "FITS",
    "LOWEST_FIRST",
    "STACK",
    "TOO_HIGH",
    "Fitting",
    "empty",
    "fit",
    "load_prefix",
    "lowest_free",
    "new_fitting",
    "place",
    "place_lowest_first",
    "smallest_gap",
]

FIRST_FIT, BEST_FIT, STACK, LOWEST_FIRST = range(4)
FITS = {"first": FIRST_FIT, "best": BEST_FIT, "stack": STACK, "lowest": LOWEST_FIRST}
TOO_HIGH = 2**62
"""the peak of a placement that was given up"""


@by_reference
class Fitting(NamedTuple):
    """A packing instance as flat arrays, and the placement under way; R live byte ranges of N buffers."""

    start: I64  # (R,) first instant of each live range, grouped by buffer
    end: I64  # (R,) first instant after it
    low: I64  # (R,) first live byte, relative to the buffer's offset
    high: I64  # (R,) first byte after
    first: I32  # (N + 1,) ranges of buffer b: first[b]:first[b + 1]
    size: I64  # (N,) bytes
    alignment: I64  # (N,)
    fixed: I64  # (N,) given offset, -1 where free
    offset: I64  # (N,) offset in the placement
    placed_start: I64  # (R,) placed ranges by their first byte
    placed_end: I64  # (R,)
    placed_low: I64  # (R,) first byte in memory
    placed_high: I64  # (R,) first byte after
    placed_range: I32  # (R,) index of the range
    placed: I64  # (1,) number of placed ranges
    waiting: I32  # (N,) scratch: buffers still to place
    floor: I64  # (N,) scratch: least offset above all placed conflicting buffers


def new_fitting(instance: OffsetPackingInstance) -> Fitting:
    """Return the arrays of an instance, with nothing placed."""
    start, end, low, high, buffer = instance.live
    assert instance.alignment is not None and instance.fixed_offset is not None
    ranges, buffers = len(start), instance.buffers
    return Fitting(
        start=start.copy(),
        end=end.copy(),
        low=low.copy(),
        high=high.copy(),
        first=np.searchsorted(buffer, np.arange(buffers + 1)).astype(np.int32),
        size=instance.size.copy(),
        alignment=instance.alignment.copy(),
        fixed=instance.fixed_offset.copy(),
        offset=np.zeros(buffers, np.int64),
        placed_start=np.zeros(ranges, np.int64),
        placed_end=np.zeros(ranges, np.int64),
        placed_low=np.zeros(ranges, np.int64),
        placed_high=np.zeros(ranges, np.int64),
        placed_range=np.zeros(ranges, np.int32),
        placed=np.zeros(1, np.int64),
        waiting=np.zeros(buffers, np.int32),
        floor=np.zeros(buffers, np.int64),
    )


def fit(fitting: Fitting, order: I32, rule: int) -> int:
    """Place every buffer anew and return the peak in bytes; the offsets are in ``fitting.offset``.

    Args:
        fitting: the instance.
        order: (N,) buffers in the order of placement; those with a given offset go before all others.
        rule: ``FIRST_FIT`` takes the lowest free offset, ``BEST_FIT`` the smallest gap between placed buffers that
            is large enough, or else the top, ``STACK`` the lowest offset above all conflicting buffers.
            ``LOWEST_FIRST`` is first fit that always places the buffer with the lowest such offset next, of equal
            ones the first in the order.
    """
    empty(fitting)
    if rule == LOWEST_FIRST:
        return int(place_lowest_first(fitting, order))
    return int(place(fitting, order, 0, rule, TOO_HIGH))


@inner_inlined
def _aligned(position: int, alignment: int) -> int:
    """Return the least multiple of ``alignment`` from ``position`` on."""
    if alignment == 1:
        return position
    return -(-position // alignment) * alignment


@kernel
def empty(f: Fitting) -> None:
    """Remove all buffers, then place those whose offset is given."""
    f.placed[0] = 0
    for b in range(len(f.size)):
        if f.fixed[b] >= 0:
            _insert(f, b, f.fixed[b])


@kernel
def load_prefix(f: Fitting, sequence: I32, owner: I32, place_of: I32, offset: I64, since: int) -> None:
    """Set the placement to the first buffers of another one.

    Args:
        f: where to place them.
        sequence: (R,) all ranges of that placement by their first byte in memory.
        owner: (R,) buffer of each range.
        place_of: (N,) index of each buffer in the order of placement, negative for those whose offset is given.
        offset: (N,) offsets of that placement.
        since: buffers with this index or a later one are left out.
    """
    count = 0
    for k in range(len(sequence)):
        r = sequence[k]
        b = owner[r]
        if place_of[b] < since:
            f.placed_start[count] = f.start[r]
            f.placed_end[count] = f.end[r]
            f.placed_low[count] = offset[b] + f.low[r]
            f.placed_high[count] = offset[b] + f.high[r]
            f.placed_range[count] = r
            f.offset[b] = offset[b]
            count += 1
    f.placed[0] = count


@inner
def _insert(f: Fitting, b: int, offset: int) -> None:
    """Place a buffer at an offset."""
    f.offset[b] = offset
    for r in range(f.first[b], f.first[b + 1]):
        low = offset + f.low[r]
        left, right = 0, f.placed[0]
        while left < right:
            middle = (left + right) // 2
            if f.placed_low[middle] <= low:
                left = middle + 1
            else:
                right = middle
        for k in range(f.placed[0], left, -1):
            f.placed_start[k] = f.placed_start[k - 1]
        for k in range(f.placed[0], left, -1):
            f.placed_end[k] = f.placed_end[k - 1]
        for k in range(f.placed[0], left, -1):
            f.placed_low[k] = f.placed_low[k - 1]
        for k in range(f.placed[0], left, -1):
            f.placed_high[k] = f.placed_high[k - 1]
        for k in range(f.placed[0], left, -1):
            f.placed_range[k] = f.placed_range[k - 1]
        f.placed_start[left], f.placed_end[left] = f.start[r], f.end[r]
        f.placed_low[left], f.placed_high[left] = low, offset + f.high[r]
        f.placed_range[left] = r
        f.placed[0] += 1


@kernel
def lowest_free(f: Fitting, b: int, position: int) -> int:
    """Return the least offset from ``position`` on at which a buffer overlaps no placed one."""
    first, last, alignment = f.first[b], f.first[b + 1], f.alignment[b]
    position = _aligned(position, alignment)
    moved = True
    while moved:
        moved = False
        for k in range(f.placed[0]):
            if f.placed_low[k] >= position + f.size[b]:
                break
            for r in range(first, last):
                meets = f.placed_start[k] < f.end[r] and f.start[r] < f.placed_end[k]
                if meets and f.placed_low[k] < position + f.high[r] and position + f.low[r] < f.placed_high[k]:
                    position = _aligned(f.placed_high[k] - f.low[r], alignment)
                    # One range meets the placed ones in order of height; of several, another may now meet one below.
                    moved = last - first > 1
    return position


@kernel
def smallest_gap(f: Fitting, b: int) -> int:
    """Return the lowest offset of the gap that leaves least room above the buffer, the top if it fits into none."""
    best, least, position = -1, TOO_HIGH, lowest_free(f, b, 0)
    first, last = f.first[b], f.first[b + 1]
    while True:
        room = TOO_HIGH
        for k in range(f.placed[0]):
            if f.placed_low[k] - position >= room + f.size[b]:
                break
            for r in range(first, last):
                above = f.placed_low[k] - f.high[r] - position
                if 0 <= above < room and f.placed_start[k] < f.end[r] and f.start[r] < f.placed_end[k]:
                    room = above
        if room == TOO_HIGH:
            break
        if room < least:
            best, least = position, room
        position = lowest_free(f, b, position + room + 1)
    return position if best < 0 else best


@inner
def _smallest_gap_of_one(f: Fitting, b: int) -> int:
    """Return what ``smallest_gap`` does, for a buffer of one range, in one sweep."""
    best, least, position = -1, TOO_HIGH, 0
    r, alignment = f.first[b], f.alignment[b]
    start, end, low, high = f.start[r], f.end[r], f.low[r], f.high[r]
    for k in range(f.placed[0]):
        if f.placed_start[k] < end and start < f.placed_end[k]:
            room = f.placed_low[k] - high - position
            if 0 <= room < least:
                best, least = position, room
                if room == 0:
                    break
            if f.placed_high[k] - low > position:
                position = _aligned(f.placed_high[k] - low, alignment)
    return position if best < 0 else best


@inner
def _top(f: Fitting, b: int) -> int:
    """Return the least offset above all placed buffers that a buffer conflicts with."""
    position = 0
    for k in range(f.placed[0]):
        for r in range(f.first[b], f.first[b + 1]):
            if f.placed_start[k] < f.end[r] and f.start[r] < f.placed_end[k]:
                position = max(position, f.placed_high[k] - f.low[r])
    return _aligned(position, f.alignment[b])


@kernel
def place(f: Fitting, order: I32, since: int, rule: int, limit: int) -> int:
    """Place the buffers of an order from index ``since`` on.

    Returns:
        The peak of all placed buffers, ``TOO_HIGH`` as soon as it exceeds ``limit``; buffers whose offset is given
        count, but are not placed here.
    """
    peak = 0
    for k in range(f.placed[0]):
        peak = max(peak, f.placed_high[k])
    # A range that is not live up to its buffer's end ends below the buffer.
    for b in range(len(f.size)):
        if f.fixed[b] >= 0:
            peak = max(peak, f.fixed[b] + f.size[b])
    for k in range(since):
        peak = max(peak, f.offset[order[k]] + f.size[order[k]])
    for k in range(since, len(order)):
        b = order[k]
        if f.fixed[b] >= 0:
            continue
        if rule == FIRST_FIT:
            offset = lowest_free(f, b, 0)
        elif rule == STACK:
            offset = _top(f, b)
        elif f.first[b + 1] - f.first[b] == 1:
            offset = _smallest_gap_of_one(f, b)
        else:
            offset = smallest_gap(f, b)
        peak = max(peak, offset + f.size[b])
        if peak > limit:
            return TOO_HIGH
        _insert(f, b, offset)
    return peak


@inner
def _raise_floors(f: Fitting, c: int, waiting: int) -> None:
    """Raise the floors of waiting buffers that conflict with a newly placed one above it."""
    for n in range(waiting):
        b = f.waiting[n]
        for r in range(f.first[b], f.first[b + 1]):
            for q in range(f.first[c], f.first[c + 1]):
                if f.start[q] < f.end[r] and f.start[r] < f.end[q]:
                    floor = f.offset[c] + f.high[q] - f.low[r]
                    if floor > f.floor[b]:
                        f.floor[b] = _aligned(floor, f.alignment[b])


@kernel
def place_lowest_first(f: Fitting, order: I32) -> int:
    """Place, again and again, the buffer whose least offset above all conflicting ones is the lowest of all.

    Holes are never filled: this builds the heights in the canonical order of MiniMalloc (Moffitt, ASPLOS 2023).

    Returns:
        The peak in bytes. The list of placed ranges holds those with a given offset only.
    """
    peak, waiting = 0, 0
    for k in range(len(order)):
        b = order[k]
        f.floor[b] = 0
        if f.fixed[b] >= 0:
            peak = max(peak, f.fixed[b] + f.size[b])
        else:
            f.floor[b] = lowest_free(f, b, 0)
            f.waiting[waiting] = b
            waiting += 1
    while waiting > 0:
        chosen = 0
        for n in range(1, waiting):
            if f.floor[f.waiting[n]] < f.floor[f.waiting[chosen]]:
                chosen = n
        b = f.waiting[chosen]
        offset = lowest_free(f, b, f.floor[b])
        if offset > f.floor[b]:
            f.floor[b] = offset
            continue
        for n in range(chosen, waiting - 1):
            f.waiting[n] = f.waiting[n + 1]
        waiting -= 1
        f.offset[b] = offset
        peak = max(peak, offset + f.size[b])
        _raise_floors(f, b, waiting)
    return peak
