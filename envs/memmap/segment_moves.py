"""What may become of one access of a buffer in a partial plan: the segments of XLA's memory-space assignment.

After ``algorithm.cc`` and ``prefetch_interval_picker.cc``: a buffer stays in a fast layer from one use to the next (no
copy), or is fetched by a prefetch whose start is sought outwards from the preferred one, or is read from the slow
layer. A value that exists in fast memory only is evicted before its first slow use.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schedrl.envs.memmap import segment_columns as at
from schedrl.envs.memmap.copy_service import add_copy, copy_fits, copy_s, move_access, refresh_service
from schedrl.envs.memmap.free_chunks import add_residence, blocked_from, find_chunk
from schedrl.envs.memmap.segment_state import AllocatorState
from schedrl.kernels import inlined, inner, inner_inlined

__all__ = ["AGAIN", "DONE", "FAILED", "evict", "fetch_again", "place_access"]

# Earlier starts that a prefetch tries once all later ones have failed, as in XLA.
_EARLIER = 100
DONE, AGAIN, FAILED = 0, 1, 2
# Answers of the segment functions besides residences, which are >= 0.
_NOT_FAST, _STUCK = -1, -2
# Arguments of numpy's type: numba compiles a function anew for each plain number it is called with.
_OUTWARD: Any = np.int64(0)
_INWARD: Any = np.int64(1)
_NONE: Any = np.int64(-1)


@inner_inlined
def _elapsed(s: AllocatorState, b: int, start: int, end: int) -> float:
    """Return the seconds of the operations between two, all slow."""
    seconds: float = s.time[b, at.ELAPSED, end] - s.time[b, at.ELAPSED, start + 1] if end > start else 0.0
    return seconds


@inlined
def _next(s: AllocatorState, b: int, k: int) -> int:
    """Return the next access of the same buffer, -1 for none."""
    n = s.access[b, at.SLOT, k] + 1
    return -1 if n == s.buffer[b, at.FIRST_ACCESS, s.access[b, at.BUFFER_OF, k] + 1] else s.access[b, at.BY_BUFFER, n]


@inner_inlined
def _bound_to_slow(s: AllocatorState, b: int, k: int) -> bool:
    g = s.access[b, at.GROUP, k]
    if s.access[b, at.ACCESS_FORCED, k] == 1:
        return True
    forced: bool = g >= 0 and (s.group[b, at.GROUP_FORCED, g] == 1 or s.group[b, at.GROUP_OFFSET, g] == at.SLOW)
    return forced


@inner_inlined
def _too_long(s: AllocatorState, b: int, layer: int, start: int, end: int) -> bool:
    """Whether a buffer may not wait in a fast layer between two operations: others could use the room."""
    too_long: bool = s.number[b, at.LAST_LOOK] == 0 and _elapsed(s, b, start, end) >= s.rate[b, at.LONGEST, layer]
    return too_long


@inner
def _look_ahead(s: AllocatorState, b: int, k: int, layer: int, first: int) -> int:
    """Return the offset free from ``first`` to access k and from there for the most uses in a row, -1 for none."""
    buffer = s.access[b, at.BUFFER_OF, k]
    slot, size = s.access[b, at.SLOT, k], s.buffer[b, at.SIZE, buffer]
    longest = slot
    while longest + 1 < s.buffer[b, at.FIRST_ACCESS, buffer + 1]:
        t = s.access[b, at.OP, s.access[b, at.BY_BUFFER, longest]]
        if (
            _elapsed(s, b, t, s.access[b, at.OP, s.access[b, at.BY_BUFFER, longest + 1]])
            >= s.rate[b, at.LONGEST, layer]
        ):
            break
        longest += 1
    best, middle = -1, longest
    while slot <= longest:
        offset = find_chunk(s, b, layer, size, first, s.access[b, at.OP, s.access[b, at.BY_BUFFER, middle]])
        if offset >= 0:
            best, slot = offset, middle + 1
        else:
            longest = middle - 1
        # The whole row first, then halves: most are free to the end or not at all.
        middle = (slot + longest) // 2
    return best


@inner
def _produce(s: AllocatorState, b: int, k: int, layer: int, pinned: int) -> int:
    """Let a result be written to a fast layer, where it stays until its first use; return its residence."""
    t, buffer, following = s.access[b, at.OP, k], s.access[b, at.BUFFER_OF, k], _next(s, b, k)
    last = t
    if following < 0:
        if s.buffer[b, at.OUTPUT, buffer]:
            return _NOT_FAST
    else:
        last = s.access[b, at.OP, following]
        if _bound_to_slow(s, b, following) or _too_long(s, b, layer, t, last):
            return _NOT_FAST
    if pinned >= 0:
        free = blocked_from(s, b, layer, buffer, pinned, t, s.access[b, at.GROUP, k]) > last
        offset = pinned if free else -1
    else:
        offset = _look_ahead(s, b, k if following < 0 else following, layer, t)
    if offset < 0:
        s.number[b, at.NO_ROOM] = 1
        return _NOT_FAST
    return add_residence(s, b, buffer, layer, offset, t, t)


@inner
def _stay(s: AllocatorState, b: int, k: int, layer: int, pinned: int) -> int:
    """Let a buffer stay where it is until an access; return its residence."""
    t, buffer = s.access[b, at.OP, k], s.access[b, at.BUFFER_OF, k]
    r: int = s.buffer[b, at.HERE, buffer]
    offset, last = s.residence[b, r, at.OFFSET], s.residence[b, r, at.LAST]
    if pinned >= 0 and offset != pinned:
        return _NOT_FAST
    if last >= t:
        return r
    if _too_long(s, b, layer, last, t):
        return _NOT_FAST
    if blocked_from(s, b, layer, buffer, offset, last + 1, _NONE) <= t:
        s.number[b, at.NO_ROOM] = 1
        return _NOT_FAST
    s.residence[b, r, at.LAST] = t
    return r


@inner
def evict(s: AllocatorState, b: int, buffer: int, before: int, layer: int, retry: int) -> bool:
    """Copy a buffer that was produced in a fast layer back, to be valid before an operation."""
    r = s.buffer[b, at.HERE, buffer]
    if r < 0:
        return False
    first = s.access[b, at.OP, s.access[b, at.BY_BUFFER, s.buffer[b, at.FIRST_ACCESS, buffer]]]
    demand, last = copy_s(s, b, buffer, _OUTWARD), s.residence[b, r, at.LAST]
    preferred = s.constant[b, at.PREFERRED] * demand * (1 + 2 * retry)
    end = first + 1
    while end < before and _elapsed(s, b, first, end) < preferred:
        end += 1
    most = min(before, blocked_from(s, b, layer, buffer, s.residence[b, r, at.OFFSET], last + 1, _NONE))
    end = max(min(end, most), last + 1)
    refresh_service(s, b)
    # Where the preferred end leaves the bus too little time, the next one that does.
    while end <= most and not copy_fits(s, b, _OUTWARD, demand, first, end):
        end += 1
    if end > most:
        return False
    add_copy(s, b, buffer, _OUTWARD, layer, first, end)
    s.residence[b, r, at.LAST] = max(last, end - 1)
    s.residence[b, r, at.COPIES] += 1
    s.buffer[b, at.HELD_UNTIL, buffer] = s.residence[b, r, at.LAST]
    s.buffer[b, at.VALID_FROM, buffer] = end
    s.buffer[b, at.HERE, buffer] = -1
    return True


@inner
def _last_start(s: AllocatorState, b: int, end: int, low: int, high: int, seconds: float) -> int:
    """Return the last start from ``low`` to ``high`` that lies at least some seconds before ``end``, or low - 1."""
    left, right = low - 1, high
    while left < right:
        middle = (left + right + 1) // 2
        if _elapsed(s, b, middle, end) >= seconds:
            left = middle
        else:
            right = middle - 1
    return left


@inner
def _prefetch(s: AllocatorState, b: int, k: int, layer: int, pinned: int) -> int:
    """Copy a buffer into a fast layer in time for an access; return its residence."""
    t, buffer = s.access[b, at.OP, k], s.access[b, at.BUFFER_OF, k]
    demand = copy_s(s, b, buffer, _INWARD)
    earliest = max(s.buffer[b, at.VALID_FROM, buffer] - 1, s.buffer[b, at.HELD_UNTIL, buffer])
    latest = _last_start(s, b, t, earliest, t - 1, s.constant[b, at.LEAST] * demand - s.seconds[b, at.SAVING, k])
    # The first start whose time in fast memory is not too long.
    while earliest <= latest and _too_long(s, b, layer, earliest, t):
        earliest += 1
    if earliest > latest:
        return _NOT_FAST
    preferred = s.constant[b, at.PREFERRED] * demand
    up = max(earliest, _last_start(s, b, t, earliest, latest, preferred))
    if up < latest and preferred - _elapsed(s, b, up + 1, t) < _elapsed(s, b, up, t) - preferred:
        up += 1
    down, tries, later = up - 1, _EARLIER, True
    refresh_service(s, b)
    while up <= latest or (down >= earliest and tries > 0):
        if up <= latest and (later or down < earliest):
            start = up
            up += 1
        else:
            start = down
            down -= 1
            if up > latest:
                tries -= 1
        later = not later
        if not copy_fits(s, b, _INWARD, demand, start, t):
            continue
        if pinned >= 0:
            offset = pinned if blocked_from(s, b, layer, buffer, pinned, start + 1, _NONE) > t else -1
        else:
            offset = _look_ahead(s, b, k, layer, start + 1)
        if offset < 0:
            # What is not free from here on is not free from any earlier start on either.
            s.number[b, at.NO_ROOM] = 1
            earliest = max(earliest, start + 1)
            continue
        add_copy(s, b, buffer, _INWARD, layer, start, t)
        r = add_residence(s, b, buffer, layer, offset, start + 1, t)
        s.residence[b, r, at.COPIES] = 1
        return r
    return _NOT_FAST


@inner
def _fast(s: AllocatorState, b: int, k: int, layer: int, pinned: int, retry: int) -> int:
    """Serve an access from a fast layer; return the residence, ``_NOT_FAST``, or ``_STUCK`` if an eviction failed."""
    t, buffer = s.access[b, at.OP, k], s.access[b, at.BUFFER_OF, k]
    if s.buffer[b, at.SIZE, buffer] > s.room[b, at.CAPACITY, layer]:
        return _NOT_FAST
    if s.access[b, at.WRITE, k] == 1:
        return _produce(s, b, k, layer, pinned)
    if s.buffer[b, at.HERE, buffer] >= 0:
        r = _stay(s, b, k, layer, pinned)
        if r >= 0:
            return r
    if s.buffer[b, at.VALID_FROM, buffer] > t and not evict(s, b, buffer, t, layer, retry):
        return _STUCK
    return _prefetch(s, b, k, layer, pinned)


@inner
def place_access(s: AllocatorState, b: int, k: int, layer: int, retry: int) -> int:
    """Decide the layer of one access."""
    t, buffer, g = s.access[b, at.OP, k], s.access[b, at.BUFFER_OF, k], s.access[b, at.GROUP, k]
    pinned = s.group[b, at.GROUP_OFFSET, g] if g >= 0 else at.UNDECIDED
    r = _NOT_FAST
    if not _bound_to_slow(s, b, k):
        r = _fast(s, b, k, layer, pinned, retry)
        if r == _STUCK:
            return FAILED
    if s.access[b, at.WRITE, k] == 0:
        # Only a use that stays slow for want of room counts, not one that is served another way in the end.
        if r < 0 and s.number[b, at.NO_ROOM] == 1:
            s.number[b, at.CROWDED] = 1
        s.number[b, at.NO_ROOM] = 0
    if r >= 0:
        move_access(s, b, k, layer)
        s.access[b, at.RESIDENCE_OF, k] = r
        s.residence[b, r, at.USED] += s.access[b, at.BYTES, k]
        s.buffer[b, at.HERE, buffer], s.buffer[b, at.HELD_UNTIL, buffer] = r, s.residence[b, r, at.LAST]
        if g >= 0:
            s.group[b, at.GROUP_OFFSET, g] = s.residence[b, r, at.OFFSET]
        return DONE
    if pinned >= 0:
        s.group[b, at.GROUP_FORCED, g] = 1
        return AGAIN
    if g >= 0:
        s.group[b, at.GROUP_OFFSET, g] = at.SLOW
    if s.access[b, at.WRITE, k]:
        s.buffer[b, at.VALID_FROM, buffer] = t + 1
    elif s.buffer[b, at.VALID_FROM, buffer] > t and not evict(s, b, buffer, t, layer, retry):
        return FAILED
    s.buffer[b, at.HERE, buffer] = -1
    return DONE


@inner
def fetch_again(s: AllocatorState, b: int, k: int, layer: int) -> None:
    """Try once more to serve a slow read from a fast layer, without touching what is there."""
    slot, buffer = s.access[b, at.SLOT, k], s.access[b, at.BUFFER_OF, k]
    s.buffer[b, at.HERE, buffer], s.buffer[b, at.HELD_UNTIL, buffer] = -1, -1
    if slot > s.buffer[b, at.FIRST_ACCESS, buffer]:
        r = s.access[b, at.RESIDENCE_OF, s.access[b, at.BY_BUFFER, slot - 1]]
        if r >= 0:
            s.buffer[b, at.HERE, buffer], s.buffer[b, at.HELD_UNTIL, buffer] = r, s.residence[b, r, at.LAST]
    r = _NOT_FAST
    if s.buffer[b, at.HERE, buffer] >= 0:
        r = _stay(s, b, k, layer, _NONE)
    if r < 0:
        r = _prefetch(s, b, k, layer, _NONE)
    if r >= 0:
        move_access(s, b, k, layer)
        s.access[b, at.RESIDENCE_OF, k] = r
        s.residence[b, r, at.USED] += s.access[b, at.BYTES, k]
