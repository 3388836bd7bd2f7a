"""The time of operations and the copies that hide behind them, kept up to date while buffers move.

All copies share the slow layer's bus and are served first come, first served. Measured in seconds of supply instead
of seconds of time, that is a single server: a copy that starts after operation s is there at ``served[s + 1]`` and due
at ``served[end]``, where ``served[t]`` is the supply of the operations before t.
"""

from __future__ import annotations

from schedrl.envs.memmap import segment_columns as at
from schedrl.envs.memmap.segment_state import AllocatorState
from schedrl.kernels import inner, inner_inlined

__all__ = ["add_copy", "copy_fits", "copy_s", "move_access", "refresh_service", "remove_copies", "service_holds"]

# Rounding of long sums is no lateness; the judge allows ten times as much.
_ROUNDING = 1e-10


@inner
def _refresh_op(s: AllocatorState, b: int, t: int) -> None:
    """Recompute latency and supply of an operation from the bytes it moves."""
    layers = s.number[b, at.LAYERS]
    slow_s = (
        s.moved[b, at.NOW, t, 0, 0] / s.rate[b, at.READ, 0] + s.moved[b, at.NOW, t, 0, 1] / s.rate[b, at.WRITTEN, 0]
    )
    slow = s.moved[b, at.NOW, t, 0, 0] + s.moved[b, at.NOW, t, 0, 1]
    memory_s, total = slow_s, slow
    for m in range(1, layers):
        memory_s = memory_s + s.moved[b, at.NOW, t, m, 0] / s.rate[b, at.READ, m]
        memory_s = memory_s + s.moved[b, at.NOW, t, m, 1] / s.rate[b, at.WRITTEN, m]
        total += s.moved[b, at.NOW, t, m, 0] + s.moved[b, at.NOW, t, m, 1]
    share = min(s.constant[b, at.OVERHEAD], slow) / max(total, 1)
    latency = max(s.time[b, at.COMPUTE, t], memory_s + share * s.time[b, at.COMPUTE, t])
    before = s.time[b, at.LATENCY, t]
    s.time[b, at.LATENCY, t] = s.time[b, at.TRIPS, t] * latency
    s.constant[b, at.SAVED] += before - s.time[b, at.LATENCY, t]
    if s.number[b, at.BY_ELAPSED] == 0:
        s.time[b, at.SUPPLY, t] = s.time[b, at.TRIPS, t] * (latency - slow_s)
        if t < s.number[b, at.STALE]:
            s.number[b, at.STALE] = t


@inner_inlined
def move_access(s: AllocatorState, b: int, k: int, layer: int) -> None:
    """Let a layer serve an access."""
    t, way = s.access[b, at.OP, k], 1 if s.access[b, at.WRITE, k] else 0
    s.moved[b, at.NOW, t, s.access[b, at.SERVED_BY, k], way] -= s.access[b, at.BYTES, k]
    s.moved[b, at.NOW, t, layer, way] += s.access[b, at.BYTES, k]
    s.access[b, at.SERVED_BY, k] = layer
    _refresh_op(s, b, t)


@inner
def refresh_service(s: AllocatorState, b: int) -> None:
    """Bring the sums of supply, and the ends of copies, up to date with the operations."""
    ops, stale = s.number[b, at.OPS], s.number[b, at.STALE]
    if stale >= ops:
        return
    for t in range(stale, ops):
        s.time[b, at.SERVED, t + 1] = s.time[b, at.SERVED, t] + s.time[b, at.SUPPLY, t]
    s.number[b, at.STALE] = ops
    before = 0.0
    for i in range(s.number[b, at.COPIED]):
        c = s.record[b, at.QUEUE, i]
        before = max(before, s.time[b, at.SERVED, s.copy[b, c, at.START] + 1]) + s.seconds[b, at.DEMAND, c]
        s.seconds[b, at.FINISH, i] = before


@inner_inlined
def copy_s(s: AllocatorState, b: int, buffer: int, inward: int) -> float:
    """Return the seconds of the slow layer's bus that a copy takes."""
    seconds: float = s.buffer[b, at.SIZE, buffer] / (s.rate[b, at.READ, 0] if inward == 1 else s.rate[b, at.WRITTEN, 0])
    return seconds


@inner_inlined
def _place_in_queue(s: AllocatorState, b: int, start: int) -> int:
    """Return the number of copies that start no later."""
    left, right = 0, s.number[b, at.COPIED]
    while left < right:
        middle = (left + right) // 2
        if s.copy[b, s.record[b, at.QUEUE, middle], at.START] <= start:
            left = middle + 1
        else:
            right = middle
    return left


@inner
def copy_fits(s: AllocatorState, b: int, inward: int, demand: float, start: int, end: int) -> bool:
    """Whether one more copy, and all those it delays, are done in time and not too many are under way."""
    slack = _ROUNDING * s.time[b, at.SERVED, s.number[b, at.OPS]]
    if s.time[b, at.SERVED, start + 1] + demand > s.time[b, at.SERVED, end] + slack:
        return False
    for t in range(start + 1, end):
        if s.op[b, at.UNDER_WAY + inward, t] >= s.number[b, at.MOST_UNDER_WAY]:
            return False
    place = _place_in_queue(s, b, start)
    finish = s.time[b, at.SERVED, start + 1]
    if place > 0:
        finish = max(finish, s.seconds[b, at.FINISH, place - 1])
    finish += demand
    if finish > s.time[b, at.SERVED, end] + slack:
        return False
    for i in range(place, s.number[b, at.COPIED]):
        c = s.record[b, at.QUEUE, i]
        there = s.time[b, at.SERVED, s.copy[b, c, at.START] + 1]
        if finish <= there:
            break
        finish += s.seconds[b, at.DEMAND, c]
        if finish > s.time[b, at.SERVED, s.copy[b, c, at.END]] + slack:
            return False
    return True


@inner
def add_copy(s: AllocatorState, b: int, buffer: int, inward: int, layer: int, start: int, end: int) -> None:
    """Commit a copy."""
    c, place = s.number[b, at.COPIED], _place_in_queue(s, b, start)
    s.copy[b, c, at.BUFFER], s.copy[b, c, at.INWARD], s.copy[b, c, at.COPY_LAYER] = buffer, inward, layer
    s.copy[b, c, at.START], s.copy[b, c, at.END] = start, end
    s.seconds[b, at.DEMAND, c] = copy_s(s, b, buffer, inward)
    for i in range(c, place, -1):
        s.record[b, at.QUEUE, i] = s.record[b, at.QUEUE, i - 1]
    s.record[b, at.QUEUE, place] = c
    s.number[b, at.COPIED] += 1
    for t in range(start + 1, end):
        s.op[b, at.UNDER_WAY + inward, t] += 1
    before = s.seconds[b, at.FINISH, place - 1] if place > 0 else 0.0
    for i in range(place, c + 1):
        c = s.record[b, at.QUEUE, i]
        before = max(before, s.time[b, at.SERVED, s.copy[b, c, at.START] + 1]) + s.seconds[b, at.DEMAND, c]
        s.seconds[b, at.FINISH, i] = before


@inner
def remove_copies(s: AllocatorState, b: int, since: int) -> None:
    """Take back all copies from row ``since`` on; ends of the others are recomputed when they are next needed."""
    if s.number[b, at.COPIED] == since:
        return
    kept = 0
    for i in range(s.number[b, at.COPIED]):
        c = s.record[b, at.QUEUE, i]
        if c < since:
            s.record[b, at.QUEUE, kept] = c
            kept += 1
        else:
            for t in range(s.copy[b, c, at.START] + 1, s.copy[b, c, at.END]):
                s.op[b, at.UNDER_WAY + s.copy[b, c, at.INWARD], t] -= 1
    s.number[b, at.COPIED] = kept
    s.number[b, at.STALE] = 0


@inner
def service_holds(s: AllocatorState, b: int) -> bool:
    """Whether every copy is done in time, which moving accesses into fast layers could only harm with overheads."""
    s.number[b, at.STALE] = 0
    refresh_service(s, b)
    slack = 5.0 * _ROUNDING * s.time[b, at.SERVED, s.number[b, at.OPS]]
    for i in range(s.number[b, at.COPIED]):
        if s.seconds[b, at.FINISH, i] > s.time[b, at.SERVED, s.copy[b, s.record[b, at.QUEUE, i], at.END]] + slack:
            return False
    return True
