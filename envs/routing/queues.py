"""Two binary heaps: the requests that wait at an instance, by rank and then order, and the requests' next events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schedrl.kernels import inner, inner_inlined

if TYPE_CHECKING:
    from schedrl.envs.routing.state import State

__all__ = ["pop_event", "pop_waiting", "push_event", "push_waiting", "take_waiting"]


@inner_inlined
def _goes_first(state: State, b: int, r: int, other: int) -> bool:
    # Requests that gave up their memory have orders below 0 and go before all ranks.
    again, other_again = state.order[b, r] < 0, state.order[b, other] < 0
    if again != other_again:
        return bool(again)
    if not again and state.rank[b, r] != state.rank[b, other]:
        return bool(state.rank[b, r] < state.rank[b, other])
    return bool(state.order[b, r] < state.order[b, other])


@inner_inlined
def _tokens(state: State, b: int, r: int) -> float:
    return float(state.prompt[b, r] + state.generated[b, r])


@inner_inlined
def _rise(state: State, b: int, i: int, at: int) -> None:
    r = state.queue[b, i, at]
    while at > 0 and _goes_first(state, b, r, state.queue[b, i, (at - 1) // 2]):
        state.queue[b, i, at] = state.queue[b, i, (at - 1) // 2]
        at = (at - 1) // 2
    state.queue[b, i, at] = r


@inner_inlined
def _sink(state: State, b: int, i: int, at: int) -> None:
    r, count = state.queue[b, i, at], state.queued[b, i]
    while 2 * at + 1 < count:
        child = 2 * at + 1
        if child + 1 < count and _goes_first(state, b, state.queue[b, i, child + 1], state.queue[b, i, child]):
            child += 1
        if not _goes_first(state, b, state.queue[b, i, child], r):
            break
        state.queue[b, i, at] = state.queue[b, i, child]
        at = child
    state.queue[b, i, at] = r


@inner
def push_waiting(state: State, b: int, i: int, r: int) -> None:
    """Let a request wait at an instance."""
    at = state.queued[b, i]
    state.queue[b, i, at] = r
    state.queued[b, i] += 1
    state.queued_tokens[b, i] += _tokens(state, b, r)
    _rise(state, b, i, at)


@inner
def take_waiting(state: State, b: int, i: int, at: int) -> None:
    """Take the request at a position of the heap out of it."""
    state.queued_tokens[b, i] -= _tokens(state, b, state.queue[b, i, at])
    state.queued[b, i] -= 1
    last = state.queued[b, i]
    if at < last:
        state.queue[b, i, at] = state.queue[b, i, last]
        _rise(state, b, i, at)
        _sink(state, b, i, at)


@inner
def pop_waiting(state: State, b: int, i: int) -> None:
    """Take the first waiting request out."""
    take_waiting(state, b, i, 0)


@inner_inlined
def _sooner(state: State, b: int, r: int, other: int) -> bool:
    if state.event_time[b, r] != state.event_time[b, other]:
        return bool(state.event_time[b, r] < state.event_time[b, other])
    return r < other


@inner
def push_event(state: State, b: int, r: int, moment: float, kind: int) -> None:
    """Note when a request, which has no other event, needs attention again, and why."""
    state.event_time[b, r], state.event_kind[b, r] = moment, kind
    at = state.events[b]
    state.events[b] += 1
    while at > 0 and _sooner(state, b, r, state.event[b, (at - 1) // 2]):
        state.event[b, at] = state.event[b, (at - 1) // 2]
        at = (at - 1) // 2
    state.event[b, at] = r


@inner
def pop_event(state: State, b: int) -> int:
    """Return the request with the soonest event, and take it out."""
    soonest = state.event[b, 0]
    state.events[b] -= 1
    count = state.events[b]
    r, at = state.event[b, count], 0
    while 2 * at + 1 < count:
        child = 2 * at + 1
        if child + 1 < count and _sooner(state, b, state.event[b, child + 1], state.event[b, child]):
            child += 1
        if not _sooner(state, b, state.event[b, child], r):
            break
        state.event[b, at] = state.event[b, child]
        at = child
    if count > 0:
        state.event[b, at] = r
    return int(soonest)
