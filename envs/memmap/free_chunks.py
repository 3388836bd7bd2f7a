"""Free bytes of fast layers over time: best fit among the residences of a partial plan, and repacking them.

Best fit as in XLA's ``GlobalDecreasingSizeBestFitHeap``: of the gaps that are free throughout an interval of time, the
smallest one that is large enough, of equal ones the lowest; the room above all residences is taken last.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schedrl.envs.memmap import segment_columns as at
from schedrl.envs.memmap.segment_state import AllocatorState
from schedrl.kernels import inlined, inner, inner_inlined

__all__ = ["add_residence", "blocked_from", "find_chunk", "remove_residences", "repack"]

_UNLIMITED = 2**62
# Of numpy's type: numba compiles a function anew for each plain number it is called with.
_ZERO: Any = np.int64(0)


@inner_inlined
def _aligned(position: int, alignment: int) -> int:
    return position if alignment == 1 else -(-position // alignment) * alignment


@inner
def find_chunk(s: AllocatorState, b: int, layer: int, size: int, first: int, last: int) -> int:
    """Return the best-fitting offset that is free from operation ``first`` to ``last``, -1 for none."""
    best, least, position = -1, _UNLIMITED, 0
    alignment = s.room[b, at.ALIGNMENT, layer]
    for n in range(s.number[b, at.RESIDENCES]):
        r = s.record[b, at.BY_OFFSET, n]
        if (
            s.residence[b, r, at.FIRST] > last
            or s.residence[b, r, at.LAST] < first
            or s.residence[b, r, at.LAYER] != layer
        ):
            continue
        room = s.residence[b, r, at.OFFSET] - position
        if size <= room < least:
            best, least = position, room
        position = max(position, _aligned(s.residence[b, r, at.TOP], alignment))
    if best < 0 and position + size <= s.room[b, at.CAPACITY, layer]:
        best = position
    return best


@inlined
def _hands_over(s: AllocatorState, b: int, r: int, group: int, t: int) -> bool:
    """Whether a residence ends at an operation that accesses its buffer in an alias group."""
    if s.residence[b, r, at.LAST] == t:
        for k in range(s.op[b, at.OP_ACCESS, t], s.op[b, at.OP_ACCESS, t + 1]):
            if s.access[b, at.GROUP, k] == group and s.access[b, at.BUFFER_OF, k] == s.residence[b, r, at.BUFFER]:
                return True
    return False


@inner
def blocked_from(s: AllocatorState, b: int, layer: int, buffer: int, offset: int, first: int, group: int) -> int:
    """Return the first operation from ``first`` on at which another residence uses a buffer's bytes at an offset.

    Args:
        s: the arrays.
        b: row.
        layer: fast layer.
        buffer: the buffer.
        offset: its offset; one that does not fit into the layer is blocked at once.
        first: the first operation of interest.
        group: alias group in which another buffer may hand over its bytes at ``first``, -1 for none.
    """
    until: int = s.number[b, at.OPS]
    top = offset + s.buffer[b, at.SIZE, buffer]
    if top > s.room[b, at.CAPACITY, layer]:
        return first
    for n in range(s.number[b, at.RESIDENCES]):
        r = s.record[b, at.BY_OFFSET, n]
        if s.residence[b, r, at.OFFSET] >= top:
            break
        if (
            s.residence[b, r, at.TOP] <= offset
            or s.residence[b, r, at.LAST] < first
            or s.residence[b, r, at.LAYER] != layer
        ):
            continue
        if s.residence[b, r, at.FIRST] >= until:
            continue
        same_place = s.residence[b, r, at.OFFSET] == offset and s.residence[b, r, at.BUFFER] != buffer
        if group >= 0 and same_place and _hands_over(s, b, r, group, first):
            continue
        until = max(s.residence[b, r, at.FIRST], first)
    return until


@inner
def _insert(s: AllocatorState, b: int, r: int, count: int) -> None:
    """Put a residence among ``count`` others by its offset."""
    n = count
    while n > 0 and s.residence[b, s.record[b, at.BY_OFFSET, n - 1], at.OFFSET] > s.residence[b, r, at.OFFSET]:
        s.record[b, at.BY_OFFSET, n] = s.record[b, at.BY_OFFSET, n - 1]
        n -= 1
    s.record[b, at.BY_OFFSET, n] = r


@inner
def add_residence(s: AllocatorState, b: int, buffer: int, layer: int, offset: int, first: int, last: int) -> int:
    """Commit a residence and return its row."""
    r: int = s.number[b, at.RESIDENCES]
    s.residence[b, r, at.BUFFER], s.residence[b, r, at.LAYER], s.residence[b, r, at.OFFSET] = buffer, layer, offset
    s.residence[b, r, at.FIRST], s.residence[b, r, at.LAST] = first, last
    s.residence[b, r, at.COPIES], s.residence[b, r, at.USED] = 0, 0
    s.residence[b, r, at.TOP] = offset + s.buffer[b, at.SIZE, buffer]
    _insert(s, b, r, r)
    s.number[b, at.RESIDENCES] = r + 1
    return r


@inner
def remove_residences(s: AllocatorState, b: int, since: int) -> None:
    """Take back all residences from row ``since`` on."""
    kept = 0
    for n in range(s.number[b, at.RESIDENCES]):
        r = s.record[b, at.BY_OFFSET, n]
        if r < since:
            s.record[b, at.BY_OFFSET, kept] = r
            kept += 1
    s.number[b, at.RESIDENCES] = since


@inner
def repack(s: AllocatorState, b: int, layer: int) -> bool:
    """Move all residences of a layer to new offsets, the largest first or, if that does not fit, the longest first.

    Residences that serve one alias group move together. Where neither order fits into the layer, all stay in place.

    Returns:
        Whether they moved.
    """
    for r in range(s.number[b, at.RESIDENCES]):
        s.record[b, at.OLD_OFFSET, r] = s.residence[b, r, at.OFFSET]
    _bundle(s, b)
    for by_duration in range(2):
        if _pack(s, b, layer, by_duration == 0):
            _sort(s, b)
            return True
    for r in range(s.number[b, at.RESIDENCES]):
        s.residence[b, r, at.OFFSET] = s.record[b, at.OLD_OFFSET, r]
        s.residence[b, r, at.TOP] = s.record[b, at.OLD_OFFSET, r] + s.buffer[b, at.SIZE, s.residence[b, r, at.BUFFER]]
    _sort(s, b)
    return False


@inner
def _bundle(s: AllocatorState, b: int) -> None:
    """Link residences that serve one alias group: ``bundle[0]`` is the first of each chain, ``bundle[1]`` the next."""
    for r in range(s.number[b, at.RESIDENCES]):
        s.record[b, at.CHAIN_HEAD, r], s.record[b, at.CHAIN_NEXT, r] = r, -1
    for g in range(s.number[b, at.GROUPS]):
        s.group[b, at.GROUP_OFFSET, g] = -1
    for k in range(s.number[b, at.ACCESSES]):
        g, r = s.access[b, at.GROUP, k], s.access[b, at.RESIDENCE_OF, k]
        if g < 0 or r < 0:
            continue
        if s.group[b, at.GROUP_OFFSET, g] < 0:
            s.group[b, at.GROUP_OFFSET, g] = r
            continue
        one, two = s.record[b, at.CHAIN_HEAD, s.group[b, at.GROUP_OFFSET, g]], s.record[b, at.CHAIN_HEAD, r]
        if one == two:
            continue
        end = one
        while s.record[b, at.CHAIN_NEXT, end] >= 0:
            end = s.record[b, at.CHAIN_NEXT, end]
        s.record[b, at.CHAIN_NEXT, end] = two
        while two >= 0:
            s.record[b, at.CHAIN_HEAD, two] = one
            two = s.record[b, at.CHAIN_NEXT, two]


@inner_inlined
def _size_and_duration(s: AllocatorState, b: int, head: int) -> tuple[int, int]:
    """Return the most bytes and the operations of a chain."""
    size, duration, r = 0, 0, head
    while r >= 0:
        size = max(size, s.buffer[b, at.SIZE, s.residence[b, r, at.BUFFER]])
        duration += s.residence[b, r, at.LAST] - s.residence[b, r, at.FIRST] + 1
        r = s.record[b, at.CHAIN_NEXT, r]
    return size, duration


@inner
def _pack(s: AllocatorState, b: int, layer: int, by_size: bool) -> bool:
    """Place all chains of a layer by best fit; return whether they fit."""
    chains = 0
    for r in range(s.number[b, at.RESIDENCES]):
        if s.record[b, at.CHAIN_HEAD, r] != r or s.residence[b, r, at.LAYER] != layer:
            continue
        size, duration = _size_and_duration(s, b, r)
        n = chains
        while n > 0:
            other_size, other_duration = _size_and_duration(s, b, s.record[b, at.CHAIN_ORDER, n - 1])
            larger, longer = size > other_size, duration > other_duration
            if (size == other_size and by_size) or (duration == other_duration and not by_size):
                before = longer or larger
            else:
                before = larger if by_size else longer
            if not before:
                break
            s.record[b, at.CHAIN_ORDER, n] = s.record[b, at.CHAIN_ORDER, n - 1]
            n -= 1
        s.record[b, at.CHAIN_ORDER, n] = r
        chains += 1
    count = _ZERO
    for n in range(chains):
        r = s.record[b, at.CHAIN_ORDER, n]
        size, _ = _size_and_duration(s, b, r)
        offset = _chain_chunk(s, b, layer, r, size, count)
        if offset < 0:
            return False
        while r >= 0:
            s.residence[b, r, at.OFFSET] = offset
            s.residence[b, r, at.TOP] = offset + s.buffer[b, at.SIZE, s.residence[b, r, at.BUFFER]]
            _insert(s, b, r, count)
            count += 1
            r = s.record[b, at.CHAIN_NEXT, r]
    return True


@inner
def _chain_chunk(s: AllocatorState, b: int, layer: int, head: int, size: int, count: int) -> int:
    """Return the best-fitting offset for a chain among the first ``count`` residences by offset, -1 for none."""
    best, least, position = -1, _UNLIMITED, 0
    for n in range(count):
        other = s.record[b, at.BY_OFFSET, n]
        r, meets = head, False
        while r >= 0 and not meets:
            meets = (
                s.residence[b, other, at.FIRST] <= s.residence[b, r, at.LAST]
                and s.residence[b, r, at.FIRST] <= s.residence[b, other, at.LAST]
            )
            r = s.record[b, at.CHAIN_NEXT, r]
        if not meets:
            continue
        room = s.residence[b, other, at.OFFSET] - position
        if size <= room < least:
            best, least = position, room
        position = max(position, _aligned(s.residence[b, other, at.TOP], s.room[b, at.ALIGNMENT, layer]))
    if best < 0 and position + size <= s.room[b, at.CAPACITY, layer]:
        best = position
    return best


@inner
def _sort(s: AllocatorState, b: int) -> None:
    """Restore the order of all residences by offset."""
    for r in range(s.number[b, at.RESIDENCES]):
        _insert(s, b, r, r)
