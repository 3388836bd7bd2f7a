"""XLA-style placement of one buffer, or all buffers that alias groups connect, into a partial memory plan.

After the outer loop of XLA's memory-space assignment (``algorithm.cc``): the uses of a buffer are served one after
another; a failed eviction takes the whole placement back and tries with a wider window; a use that found no room has
all of the layer packed anew; copies that are hardly used are given up. What differs from XLA is listed in
``schedrl.baselines.memmap.xla``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schedrl.arrays import I64
from schedrl.envs.memmap import segment_columns as at
from schedrl.envs.memmap.copy_service import move_access, remove_copies, service_holds
from schedrl.envs.memmap.free_chunks import remove_residences, repack
from schedrl.envs.memmap.segment_moves import DONE, FAILED, evict, fetch_again, place_access
from schedrl.envs.memmap.segment_state import AllocatorState
from schedrl.kernels import inner, kernel

__all__ = ["place_all", "place_cluster", "place_whole", "reset_row"]

# Arguments of numpy's type: numba compiles a function anew for each plain number it is called with.
_ZERO: Any = np.int64(0)
_ONE: Any = np.int64(1)


@kernel
def reset_row(s: AllocatorState, b: int) -> None:
    """Take everything back: all accesses slow, nothing placed."""
    ops, accesses, buffers = s.number[b, at.OPS], s.number[b, at.ACCESSES], s.number[b, at.BUFFERS]
    for i in range(at.RESIDENCES, at.INVALID + 1):
        s.number[b, i] = 0
    s.constant[b, at.SAVED], s.constant[b, at.CARRY] = 0.0, 0.0
    for t in range(ops):
        s.time[b, at.LATENCY, t], s.time[b, at.SUPPLY, t] = s.time[b, at.BASE_LATENCY, t], s.time[b, at.BASE_SUPPLY, t]
        for m in range(s.number[b, at.LAYERS]):
            s.moved[b, at.NOW, t, m, 0] = s.moved[b, at.ALL_SLOW, t, m, 0]
            s.moved[b, at.NOW, t, m, 1] = s.moved[b, at.ALL_SLOW, t, m, 1]
    for t in range(ops + 1):
        s.op[b, at.UNDER_WAY, t], s.op[b, at.UNDER_WAY + 1, t] = 0, 0
    for k in range(accesses):
        s.access[b, at.SERVED_BY, k], s.access[b, at.RESIDENCE_OF, k] = 0, -1
        s.access[b, at.ACCESS_FORCED, k] = 0
    for n in range(buffers):
        s.buffer[b, at.HERE, n], s.buffer[b, at.HELD_UNTIL, n] = -1, -1
        first = s.buffer[b, at.FIRST_ACCESS, n]
        used = s.buffer[b, at.FIRST_ACCESS, n + 1] > first
        defined = used and s.access[b, at.WRITE, s.access[b, at.BY_BUFFER, first]] == 1
        s.buffer[b, at.VALID_FROM, n] = ops + 1 if defined else 0
    for g in range(s.number[b, at.GROUPS]):
        s.group[b, at.GROUP_OFFSET, g] = at.UNDECIDED
        s.group[b, at.GROUP_FORCED, g] = 0
    for c in range(s.number[b, at.CLUSTERS]):
        s.cluster[b, at.PLACED, c] = 0


@inner
def _undo(s: AllocatorState, b: int, c: int, residences: int, copies: int) -> None:
    """Take a cluster's placement back."""
    remove_residences(s, b, residences)
    remove_copies(s, b, copies)
    ops = s.number[b, at.OPS]
    for n in range(s.cluster[b, at.CLUSTER_ACCESS, c], s.cluster[b, at.CLUSTER_ACCESS, c + 1]):
        k = s.access[b, at.BY_CLUSTER, n]
        buffer, g = s.access[b, at.BUFFER_OF, k], s.access[b, at.GROUP, k]
        if s.access[b, at.SERVED_BY, k] > 0:
            move_access(s, b, k, _ZERO)
            s.access[b, at.RESIDENCE_OF, k] = -1
        s.buffer[b, at.HERE, buffer], s.buffer[b, at.HELD_UNTIL, buffer] = -1, -1
        defined = s.access[b, at.WRITE, s.access[b, at.BY_BUFFER, s.buffer[b, at.FIRST_ACCESS, buffer]]]
        s.buffer[b, at.VALID_FROM, buffer] = ops + 1 if defined else 0
        if g >= 0:
            s.group[b, at.GROUP_OFFSET, g] = at.UNDECIDED


@inner
def _attempt(s: AllocatorState, b: int, c: int, layer: int, retry: int) -> int:
    """Place a cluster's accesses in order of time, and evict its outputs."""
    ops = s.number[b, at.OPS]
    for n in range(s.cluster[b, at.CLUSTER_ACCESS, c], s.cluster[b, at.CLUSTER_ACCESS, c + 1]):
        answer = place_access(s, b, s.access[b, at.BY_CLUSTER, n], layer, retry)
        if answer != DONE:
            return answer
    for n in range(s.cluster[b, at.CLUSTER_ACCESS, c], s.cluster[b, at.CLUSTER_ACCESS, c + 1]):
        buffer = s.access[b, at.BUFFER_OF, s.access[b, at.BY_CLUSTER, n]]
        if (
            s.buffer[b, at.OUTPUT, buffer]
            and s.buffer[b, at.VALID_FROM, buffer] > ops
            and not evict(s, b, buffer, ops, layer, retry)
        ):
            return FAILED
    if s.constant[b, at.OVERHEAD] > 0 and not service_holds(s, b):
        return FAILED
    return DONE


@inner
def _bind_inefficient(s: AllocatorState, b: int, c: int, residences: int) -> bool:
    """Bind accesses to the slow layer whose residences copy much more than they use; return whether there are any."""
    found = False
    for n in range(s.cluster[b, at.CLUSTER_ACCESS, c], s.cluster[b, at.CLUSTER_ACCESS, c + 1]):
        k = s.access[b, at.BY_CLUSTER, n]
        r = s.access[b, at.RESIDENCE_OF, k]
        if r >= residences:
            copied = s.residence[b, r, at.COPIES] * s.buffer[b, at.SIZE, s.access[b, at.BUFFER_OF, k]]
            if s.constant[b, at.RATIO] * copied > s.residence[b, r, at.USED]:
                s.access[b, at.ACCESS_FORCED, k], found = 1, True
    return found


@inner
def _place_in(s: AllocatorState, b: int, c: int, layer: int) -> None:
    """Place a cluster in one fast layer as far as possible."""
    residences, copies = s.number[b, at.RESIDENCES], s.number[b, at.COPIED]
    _undo(s, b, c, residences, copies)
    for n in range(s.cluster[b, at.CLUSTER_ACCESS, c], s.cluster[b, at.CLUSTER_ACCESS, c + 1]):
        k = s.access[b, at.BY_CLUSTER, n]
        s.access[b, at.ACCESS_FORCED, k] = 0
        if s.access[b, at.GROUP, k] >= 0:
            s.group[b, at.GROUP_FORCED, s.access[b, at.GROUP, k]] = 0
    retry, repacked = _ZERO, False
    while retry < s.number[b, at.RETRIES]:
        s.number[b, at.NO_ROOM], s.number[b, at.CROWDED] = 0, 0
        answer = _attempt(s, b, c, layer, retry)
        crowded = s.number[b, at.CROWDED] == 1 and s.number[b, at.REPACKS] < s.number[b, at.MOST_REPACKS]
        if answer == DONE and (repacked or not crowded) and not _bind_inefficient(s, b, c, residences):
            return
        _undo(s, b, c, residences, copies)
        if answer == FAILED:
            retry += 1
        elif answer == DONE and crowded and not repacked:
            s.number[b, at.REPACKS] += 1
            repacked = True
            repack(s, b, layer)


@inner
def _fetch_slow(s: AllocatorState, b: int, c: int, layer: int) -> None:
    """Try once more to serve the slow reads of a cluster from a fast layer."""
    for n in range(s.cluster[b, at.CLUSTER_ACCESS, c], s.cluster[b, at.CLUSTER_ACCESS, c + 1]):
        k = s.access[b, at.BY_CLUSTER, n]
        slow = s.access[b, at.SERVED_BY, k] == 0 and s.access[b, at.WRITE, k] == 0
        wasteful = (
            s.constant[b, at.RATIO] * s.buffer[b, at.SIZE, s.access[b, at.BUFFER_OF, k]] > s.access[b, at.BYTES, k]
        )
        if slow and s.access[b, at.GROUP, k] < 0 and not wasteful:
            fetch_again(s, b, k, layer)


@inner
def _slow_and_fast(s: AllocatorState, b: int, c: int) -> tuple[bool, bool]:
    """Return whether a cluster has slow and fast accesses."""
    slow, fast = False, False
    for n in range(s.cluster[b, at.CLUSTER_ACCESS, c], s.cluster[b, at.CLUSTER_ACCESS, c + 1]):
        if s.access[b, at.SERVED_BY, s.access[b, at.BY_CLUSTER, n]] > 0:
            fast = True
        else:
            slow = True
    return slow, fast


@inner
def _second_look(s: AllocatorState, b: int) -> None:
    """Try again what is slow, now that fast accesses leave the bus more idle time and nobody else waits for room."""
    s.number[b, at.LAST_LOOK], s.number[b, at.REPACKS] = 1, 0
    for c in range(s.number[b, at.CLUSTERS]):
        slow, fast = _slow_and_fast(s, b, c)
        if slow and fast:
            _fetch_slow(s, b, c, s.cluster[b, at.PLACED, c])
        elif slow:
            _place_in(s, b, c, s.cluster[b, at.PLACED, c])


@inner
def place_cluster(s: AllocatorState, b: int, c: int) -> float:
    """Place a cluster in the fast layer where that saves most; return the seconds saved."""
    residences, copies = s.number[b, at.RESIDENCES], s.number[b, at.COPIED]
    before, best, chosen = s.constant[b, at.SAVED], 0.0, _ONE
    layers = s.number[b, at.LAYERS]
    for layer in range(_ONE, layers):
        if layers == 2:
            break
        _place_in(s, b, c, layer)
        saved = s.constant[b, at.SAVED] - before
        _undo(s, b, c, residences, copies)
        s.constant[b, at.SAVED] = before
        if saved > best:
            best, chosen = saved, layer
    _place_in(s, b, c, chosen)
    s.cluster[b, at.PLACED, c] = chosen
    s.number[b, at.PLACEMENTS] += 1
    if (
        s.number[b, at.PLACEMENTS] == s.number[b, at.CLUSTERS]
        and s.number[b, at.LOOKS_TWICE] == 1
        and s.constant[b, at.OVERHEAD] == 0
    ):
        _second_look(s, b)
    saved_s: float = s.constant[b, at.SAVED] - before
    return saved_s


@kernel
def place_whole(s: AllocatorState, b: int, c: int) -> float:
    """Place a cluster for its whole life in the first fast layer that takes all of it, or leave it slow.

    Returns:
        The seconds saved.
    """
    residences, copies, before = s.number[b, at.RESIDENCES], s.number[b, at.COPIED], s.constant[b, at.SAVED]
    s.number[b, at.LAST_LOOK] = 1
    s.cluster[b, at.PLACED, c] = 1
    s.number[b, at.PLACEMENTS] += 1
    for layer in range(_ONE, s.number[b, at.LAYERS]):
        whole = _attempt(s, b, c, layer, _ZERO) == DONE
        buffers = 0
        for n in range(s.cluster[b, at.CLUSTER_ACCESS, c], s.cluster[b, at.CLUSTER_ACCESS, c + 1]):
            k = s.access[b, at.BY_CLUSTER, n]
            whole = whole and s.access[b, at.SERVED_BY, k] == layer
            if s.access[b, at.SLOT, k] == s.buffer[b, at.FIRST_ACCESS, s.access[b, at.BUFFER_OF, k]]:
                buffers += 1
        if whole and s.number[b, at.RESIDENCES] - residences == buffers:
            saved_s: float = s.constant[b, at.SAVED] - before
            return saved_s
        _undo(s, b, c, residences, copies)
    return 0.0


@kernel
def place_all(s: AllocatorState, b: int, order: I64) -> float:
    """Place all clusters anew in an order (C,); return the seconds saved against the all-slow program."""
    reset_row(s, b)
    for i in range(len(order)):
        place_cluster(s, b, order[i])
    saved: float = s.constant[b, at.SAVED]
    return saved
