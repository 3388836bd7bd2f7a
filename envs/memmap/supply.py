"""Copies on the slow layer's bus: what time hides them, who waits for whom, and where another one still fits."""

from __future__ import annotations

from typing import NamedTuple

from schedrl.arrays import F64, I32, I64
from schedrl.envs.memmap.state import AS_PLANNED, EARLIEST, PREFERRED, State
from schedrl.kernels import inlined, inner, inner_inlined, kernel

# Attempts to begin a copy earlier, when the latest begin would delay other copies too much.
_ATTEMPTS = 8


class Bus(NamedTuple):
    """The arrays of a ``State`` that copies need; kernels that take these alone compile much faster."""

    access_op: I32
    accesses: I32
    base_supply: F64
    copies: I32
    copy: I64
    copy_latest: I32
    copy_residence: I32
    demand: F64
    here: I32
    hint_start: I64
    ops: I32
    outstanding: I32
    pending: F64
    position: I32
    queue: I32
    read_rate: F64
    residence: I64
    size: I64
    supply: F64
    touched: I32
    under_way: I32
    valid_from: I32
    write_rate: F64


@inlined
def bus_of(state: State) -> Bus:
    """Return the arrays of a state that copies need."""
    return Bus(
        state.access_op,
        state.accesses,
        state.base_supply,
        state.copies,
        state.copy,
        state.copy_latest,
        state.copy_residence,
        state.demand,
        state.here,
        state.hint_start,
        state.ops,
        state.outstanding,
        state.pending,
        state.position,
        state.queue,
        state.read_rate,
        state.residence,
        state.size,
        state.supply,
        state.touched,
        state.under_way,
        state.valid_from,
        state.write_rate,
    )


@inner_inlined
def current_op(bus: Bus, b: int) -> int:
    """Return the operation of the next access; the number of operations once all are decided."""
    if bus.position[b] == bus.accesses[b]:
        return int(bus.ops[b])
    return int(bus.access_op[b, bus.position[b]])


@inner_inlined
def hidden_before(bus: Bus, b: int, t: int) -> float:
    """Return the seconds of copying that operations before ``t`` hide, undecided ones counted as all slow."""
    current = current_op(bus, b)
    if t <= current:
        return float(bus.supply[b, t])
    return float(bus.supply[b, current] + bus.base_supply[b, t] - bus.base_supply[b, current])


@inner_inlined
def _ahead(bus: Bus, b: int, place: int, start: int) -> float:
    """Return the seconds of copying still to do for the queue's first ``place`` entries when ``start`` is over."""
    if place == 0:
        return 0.0
    copy = bus.queue[b, place - 1]
    done = hidden_before(bus, b, start + 1) - hidden_before(bus, b, bus.copy[b, copy, 3] + 1)
    found: float = max(0.0, bus.pending[b, place - 1] + bus.demand[b, copy] - done)
    return found


@inlined
def _place(bus: Bus, b: int, start: int) -> int:
    """Return how many copies in the queue start at or before ``start``."""
    place = bus.copies[b]
    while place > 0 and bus.copy[b, bus.queue[b, place - 1], 3] > start:
        place -= 1
    found: int = place
    return found


@kernel
def fits_queue(bus: Bus, b: int, start: int, end: int, demand: float) -> bool:
    """Whether a copy between two operations is done in time, and delays no other copy beyond its end."""
    place = _place(bus, b, start)
    ahead = _ahead(bus, b, place, start)
    if ahead + demand > hidden_before(bus, b, end) - hidden_before(bus, b, start + 1):
        return False
    work, since = ahead + demand, start
    for i in range(place, bus.copies[b]):
        copy = bus.queue[b, i]
        begin = bus.copy[b, copy, 3]
        waiting = max(0.0, work - hidden_before(bus, b, begin + 1) + hidden_before(bus, b, since + 1))
        if waiting <= bus.pending[b, i]:
            return True
        work = waiting + bus.demand[b, copy]
        if work > hidden_before(bus, b, bus.copy[b, copy, 4]) - hidden_before(bus, b, begin + 1):
            return False
        since = begin
    return True


@inner_inlined
def _few_under_way(bus: Bus, b: int, inward: int, start: int, end: int) -> bool:
    for t in range(start + 1, end):  # noqa: SIM110  # a generator, which numba lacks
        if bus.under_way[b, inward, t] >= bus.outstanding[b]:
            return False
    return True


@kernel
def copy_start(bus: Bus, b: int, inward: int, earliest: int, end: int, demand: float, window: int) -> int:
    """Return after which operation a copy that must be done before ``end`` can begin; -2 when it cannot.

    ``AS_PLANNED`` is where the hint begins it, if it can; ``JUST_IN_TIME`` the latest such operation;
    ``PREFERRED`` the latest that hides twice the copy, as XLA prefers; ``EARLIEST`` the first.
    """
    if window == AS_PLANNED:
        planned = bus.hint_start[b, min(bus.position[b], bus.accesses[b] - 1)]
        fits = planned >= earliest and planned < end - 1 and _few_under_way(bus, b, inward, planned, end)
        if fits and fits_queue(bus, b, planned, end, demand):
            return int(planned)
    until = hidden_before(bus, b, end)
    wanted = 2.0 * demand if window == PREFERRED else demand
    fallback = -2
    attempts = 0
    start = end - 1
    while start >= earliest:
        hidden = until - hidden_before(bus, b, start + 1)
        if hidden >= demand and (hidden >= wanted or start == earliest) and (window != EARLIEST or start == earliest):
            if _few_under_way(bus, b, inward, start, end) and fits_queue(bus, b, start, end, demand):
                return start
            attempts += 1
            if attempts >= _ATTEMPTS:
                return fallback
        start -= 1
    return fallback


@kernel
def copy_end(bus: Bus, b: int, start: int, latest: int, demand: float) -> int:
    """Return before which operation an outward copy that begins after ``start`` is first done; -2 when never."""
    ahead = _ahead(bus, b, _place(bus, b, start), start)
    wanted = hidden_before(bus, b, start + 1) + ahead + demand
    if hidden_before(bus, b, latest) < wanted:
        return -2
    low, end = start + 1, latest
    while low < end:
        middle = (low + end) // 2
        if hidden_before(bus, b, middle) >= wanted:
            end = middle
        else:
            low = middle + 1
    if _few_under_way(bus, b, 0, start, end) and fits_queue(bus, b, start, end, demand):
        return end
    return -2


@kernel
def add_copy(bus: Bus, b: int, buffer: int, inward: int, layer: int, start: int, end: int) -> None:
    """Append a copy and let the queue know."""
    copy, rate = bus.copies[b], bus.read_rate[b, 0] if inward == 1 else bus.write_rate[b, 0]
    place = _place(bus, b, start)
    ahead = _ahead(bus, b, place, start)
    bus.copy[b, copy, 0] = buffer
    bus.copy[b, copy, 1] = inward
    bus.copy[b, copy, 2] = layer
    bus.copy[b, copy, 3] = start
    bus.copy[b, copy, 4] = end
    bus.copy_latest[b, copy] = end
    bus.copy_residence[b, copy] = bus.here[b, buffer]
    bus.demand[b, copy] = bus.size[b, buffer] / rate
    for i in range(copy, place, -1):
        bus.queue[b, i] = bus.queue[b, i - 1]
        bus.pending[b, i] = bus.pending[b, i - 1]
    bus.queue[b, place] = copy
    bus.pending[b, place] = ahead
    bus.copies[b] = copy + 1
    for i in range(place + 1, copy + 1):
        waiting = _ahead(bus, b, i, bus.copy[b, bus.queue[b, i], 3])
        if waiting <= bus.pending[b, i]:
            break
        bus.pending[b, i] = waiting
    for t in range(start + 1, end):
        bus.under_way[b, inward, t] += 1


# At most this many copies can be under way, in both directions together.
_MOST_UNDER_WAY = 80


@inner
def finish_outward(bus: Bus, b: int, now: int) -> None:
    """End copies back that are done before operation ``now``, sooner than undecided operations let one promise.

    Their ends were promised with undecided accesses counted as slow; the bus has been idle for longer since.
    """
    for i in range(max(0, bus.copies[b] - _MOST_UNDER_WAY), bus.copies[b]):
        copy = bus.queue[b, i]
        start, end = bus.copy[b, copy, 3], bus.copy[b, copy, 4]
        if end <= now:
            continue
        bus.pending[b, i] = _ahead(bus, b, i, start)
        if bus.copy[b, copy, 1] == 1:
            continue
        if bus.pending[b, i] + bus.demand[b, copy] <= bus.supply[b, now] - bus.supply[b, start + 1]:
            for t in range(now, end):
                bus.under_way[b, 0, t] -= 1
            residence, buffer = bus.copy_residence[b, copy], bus.copy[b, copy, 0]
            used = bus.access_op[b, bus.touched[b, buffer]] if bus.here[b, buffer] == residence else now - 1
            bus.copy[b, copy, 4] = now
            bus.residence[b, residence, 4] = max(used, now - 1)
            bus.valid_from[b, buffer] = now


@inner
def unfinish_outward(bus: Bus, b: int, now: int) -> None:
    """After decisions were taken back, undo what ``finish_outward`` did for operations that are open again."""
    for copy in range(bus.copies[b]):
        end, latest = bus.copy[b, copy, 4], bus.copy_latest[b, copy]
        if bus.copy[b, copy, 1] == 1 or end <= now or end == latest:
            continue
        for t in range(end, latest):
            bus.under_way[b, 0, t] += 1
        residence = bus.copy_residence[b, copy]
        bus.copy[b, copy, 4] = latest
        bus.residence[b, residence, 4] = max(bus.residence[b, residence, 4], latest - 1)
        bus.valid_from[b, bus.copy[b, copy, 0]] = latest


@kernel
def remove_last_copy(bus: Bus, b: int) -> None:
    """Take back the copy added last; ``recount_queue`` must follow."""
    copy = bus.copies[b] - 1
    place = 0
    while bus.queue[b, place] != copy:
        place += 1
    for i in range(place, copy):
        bus.queue[b, i] = bus.queue[b, i + 1]
    for t in range(bus.copy[b, copy, 3] + 1, bus.copy[b, copy, 4]):
        bus.under_way[b, bus.copy[b, copy, 1], t] -= 1
    bus.copies[b] = copy


@kernel
def recount_queue(bus: Bus, b: int) -> None:
    """Compute anew what each copy waits for."""
    for i in range(bus.copies[b]):
        bus.pending[b, i] = _ahead(bus, b, i, bus.copy[b, bus.queue[b, i], 3])
