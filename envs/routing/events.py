"""From one decision of a router to the next: instances' iterations and requests' arrivals in order of time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from schedrl.envs.routing.engine import commit, give_up_memory, plan, shorten
from schedrl.envs.routing.outcomes import expect, refuse
from schedrl.envs.routing.prefix_cache import find
from schedrl.envs.routing.queues import pop_event, push_event, push_waiting, take_waiting
from schedrl.envs.routing.signals import refresh_signals
from schedrl.envs.routing.state import LATELY
from schedrl.kernels import inner, inner_inlined

if TYPE_CHECKING:
    from schedrl.envs.routing.state import State

__all__ = ["go_on", "hold_back", "move", "send", "turn_away"]

_ARRIVES, _HANDED_OVER, _COPIED, _LANDS = 0, 1, 2, 3
_QUEUED, _ADMITTED, _AWAY, _DONE = 1, 2, 3, 4
# Of the type of the numbers in arrays: engines would be compiled again for instances of another.
_NOBODY: Any = np.int32(-1)


@inner_inlined
def _next_arrival(state: State, b: int) -> float:
    """Return the time of the next event of a request, inf if there is none."""
    soonest = np.inf
    if state.arrived[b] < state.initial_count[b]:
        soonest = state.arrival[b, state.initial[b, state.arrived[b]]]
    if state.events[b] > 0:
        soonest = min(soonest, state.event_time[b, state.event[b, 0]])
    return soonest


@inner_inlined
def _take_arrival(state: State, b: int, moment: float) -> tuple[int, int]:
    """Return the request whose event comes at a moment, and the kind of the event; later ones of a program go first."""
    if state.events[b] > 0 and state.event_time[b, state.event[b, 0]] <= moment:
        r = pop_event(state, b)
        return r, int(state.event_kind[b, r])
    r = int(state.initial[b, state.arrived[b]])
    state.arrived[b] += 1
    return r, _ARRIVES


@inner
def _enqueue(state: State, b: int, r: int, i: int, page: int) -> None:
    """Let a request wait at an instance, which looks at it when its iteration ends."""
    state.status[b, r] = _QUEUED
    state.arrivals[b] += 1
    state.order[b, r] = state.arrivals[b]
    target = state.prompt[b, r] + state.generated[b, r]
    if not state.moved_in[b, r]:
        done = find(state, b, i, r, target) * state.block_tokens[b]
        tokens = float(target - done)
        state.due[b, r], state.due_pairs[b, r] = tokens, tokens * (done + 0.5 * tokens)
        state.pending[b, i] += tokens
        state.pending_pairs[b, i] += state.due_pairs[b, r]
    push_waiting(state, b, i, r)
    if state.end[b, i] == np.inf:
        state.clock[b, i] = max(state.now[b], state.ready[b, i])
        plan(state, b, i, page)
    else:
        shorten(state, b, i, state.now[b])


@inner
def _remember(state: State, b: int, r: int, expected_ttft: float) -> None:
    """Keep what a router knows of the requests that it sent: how long they were, and how many it gave up."""
    held = 0
    for i in range(state.fleet[b]):
        held = max(held, state.hits[b, i])
    state.lately[b, state.dispatched[b] % LATELY] = state.prompt[b, r] - held
    state.dispatched[b] += 1
    state.given_up[b] += expected_ttft > state.ttft_slo[b]


@inner
def send(state: State, b: int, r: int, i: int, page: int) -> None:
    """Send the request at hand to an instance; keys and values come with one that is handed over."""
    state.sent[b, i] += 1
    state.inflight[b, i] += 1
    if state.current_kind[b] == _HANDED_OVER:
        state.decode_where[b, r] = i
    else:
        state.where[b, r] = i
        state.dispatch[b, r] = state.now[b]
        state.sent_tokens[b, i] += state.prompt[b, r] - state.hits[b, i]
        _remember(state, b, r, state.now[b] + state.forecast[b, i] - state.arrival[b, r])
        expect(state, b, r, state.now[b] + state.forecast[b, i])
    _enqueue(state, b, r, i, page)


@inner_inlined
def turn_away(state: State, b: int, r: int) -> None:
    """Refuse the request at hand."""
    state.status[b, r] = _DONE
    state.dispatch[b, r] = state.now[b]
    refuse(state, b, r)


@inner_inlined
def hold_back(state: State, b: int, r: int, moment: float) -> None:
    """Keep the request at hand at the router and ask again at a moment."""
    state.held_back[b, r] += 1
    push_event(state, b, r, moment, state.current_kind[b])


@inner_inlined
def holder(state: State, b: int, r: int) -> int:
    """Return the instance that has a request now."""
    return int(state.decode_where[b, r] if state.decode_where[b, r] >= 0 else state.where[b, r])


@inner_inlined
def _decodes(state: State, b: int, r: int) -> bool:
    """Return whether a request has its first token and nothing that must be computed again."""
    return bool(state.status[b, r] == _ADMITTED and state.first_token[b, r] >= 0.0 and state.due[b, r] == 0.0)


@inner
def move(state: State, b: int, r: int, j: int, page: int) -> bool:
    """Move a request to another instance: at once if it waits, once its keys and values are copied if it decodes.

    A request whose prompt is under way stays, as does one that is moving already; the other instance must take requests
    now. Those handed over stay where they are. Returns whether it moves.
    """
    i = holder(state, b, r)
    if state.target[b, r] >= 0 or i == j or state.role[b, i] == 2 or not state.fits[b, r, j]:
        return False
    if not state.ready[b, j] <= state.now[b] < state.retire[b, j]:
        return False
    if state.status[b, r] == _QUEUED:
        at = 0
        while state.queue[b, i, at] != r:
            at += 1
        take_waiting(state, b, i, at)
        # The next in the queue may come in with the next iteration.
        shorten(state, b, i, state.now[b])
        state.pending[b, i] -= state.due[b, r]
        state.pending_pairs[b, i] -= state.due_pairs[b, r]
        state.due[b, r], state.due_pairs[b, r] = 0.0, 0.0
        state.status[b, r] = _AWAY
        transfer = state.link_latency[b] + state.kv_transfer_s[b] * state.computed[b, r]
        push_event(state, b, r, state.now[b] + transfer, _LANDS)
    elif _decodes(state, b, r):
        shorten(state, b, i, state.now[b])
        # The last of the planned iterations is under way, those before it are done.
        tokens = state.computed[b, r] + state.ticks[b, i] - state.tick_zero[b, r] + state.plan_ticks[b, i] - 1
        push_event(state, b, r, state.now[b] + state.link_latency[b] + state.kv_transfer_s[b] * tokens, _COPIED)
    else:
        return False
    state.target[b, r] = j
    return True


@inner
def _copied(state: State, b: int, r: int) -> None:
    """Let a request leave with the end of the iteration under way, if it still decodes."""
    i = holder(state, b, r)
    if not _decodes(state, b, r):
        state.target[b, r] = -1
        return
    state.copied[b, r] = True
    state.moved_in[b, r] = True
    state.leaving[b, i] += 1
    shorten(state, b, i, state.now[b])


@inner
def _land(state: State, b: int, r: int, page: int) -> None:
    """Let a request that moved wait at its new instance."""
    i, j = holder(state, b, r), state.target[b, r]
    state.inflight[b, i] -= 1
    state.inflight[b, j] += 1
    state.decode_where[b, r] = j
    state.target[b, r] = -1
    state.copied[b, r] = False
    _enqueue(state, b, r, j, page)


@inner
def _hand_over(state: State, b: int, r: int, page: int) -> None:
    """Free the memory that a request had where its prompt was computed."""
    i = holder(state, b, r)
    state.moved_in[b, r] = True
    give_up_memory(state, b, i, r, page)
    state.inflight[b, i] -= 1
    if state.end[b, i] == np.inf and state.queued[b, i] > 0:
        state.clock[b, i] = state.now[b]
        plan(state, b, i, page)


@inner
def go_on(state: State, b: int, page: int, until: float) -> bool:
    """Go on to the next request that a router has to send, and return whether there is one; stop at a moment, too."""
    while True:
        first, soonest = _NOBODY, np.inf
        for i in range(state.fleet[b]):
            if state.end[b, i] < soonest:
                first, soonest = i, state.end[b, i]
        arrival = _next_arrival(state, b)
        moment = min(soonest, arrival)
        if state.refresh[b] > 0.0:
            refresh_signals(state, b, min(moment, until))
        if moment > until or moment == np.inf:
            state.now[b] = min(until, state.now[b]) if moment == np.inf else until
            state.current[b] = -1
            return False
        if soonest <= arrival:
            commit(state, b, first, page)
            plan(state, b, first, page)
            continue
        state.now[b] = arrival
        r, kind = _take_arrival(state, b, arrival)
        if kind == _COPIED:
            _copied(state, b, r)
        elif kind == _LANDS:
            _land(state, b, r, page)
        else:
            if kind == _HANDED_OVER and not state.moved_in[b, r]:
                _hand_over(state, b, r, page)
            state.current[b], state.current_kind[b] = r, kind
            return True
