"""Which requests could move where: the candidates of the migration game, and what is known of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.envs.routing.signals import know
from schedrl.kernel_arguments import by_reference
from schedrl.kernels import inner, inner_inlined

if TYPE_CHECKING:
    from schedrl.envs.routing.state import State

__all__ = ["MOST_MOVES_OF_ONE", "SLOTS", "Offers", "allocate_offers", "list_offers"]

# Sources are the instances with the longest backlogs; each offers three of its waiting requests and the two decoding
# ones admitted last, which would be the first to be preempted; each of these can go to two instances.
_SOURCES, _WAITING, _DECODING, _TARGETS = 3, 3, 2, 2
SLOTS = 2 + _SOURCES * (_WAITING + _DECODING) * _TARGETS
"""candidate slots: none, and most pairs of request and target; one is spare"""
MOST_MOVES_OF_ONE = 4
"""most moves of one request, so that none goes round for ever"""
_QUEUED, _ADMITTED = 1, 2
_BEGINS = -2
"""no request is at hand, though not all are finished"""


@by_reference
class Offers(NamedTuple):
    """Arrays of the migration game beside those of the fleet. Times are seconds."""

    candidates: I32  # (B,) how many there are, the first of which is to move nothing
    request: I32  # (B, C) request of each, -1 for none
    source: I32  # (B, C) instance where it is
    target: I32  # (B, C) instance where it would go
    stay_s: F64  # (B, C) expected until its first token if it stays, 0 if it has it
    move_s: F64  # (B, C) likewise if it moves, what moving takes included
    stay_hit: F64  # (B, C) share of its prompt that the source is believed to hold
    move_hit: F64  # (B, C) likewise the target
    source_rank: I32  # (B, I) instances by backlog, longest first
    made: I32  # (B,) moves since the period began
    tick: F64  # (B,) when the next period begins
    moved: I32  # (B, R) moves of each request
    log_request: I32  # (B, 4 R) requests moved, in order of time
    log_target: I32  # (B, 4 R)
    log_time: F64  # (B, 4 R)
    log_after: I32  # (B, 4 R) requests that had joined a queue before
    logged: I32  # (B,)


def allocate_offers(batch: int, requests: int, fleet: int) -> Offers:
    """Return zeroed arrays for ``batch`` rows."""
    shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(("candidates", "made", "tick", "logged"), ()),
        **dict.fromkeys(("request", "source", "target", "stay_s", "move_s", "stay_hit", "move_hit"), (SLOTS,)),
        **dict.fromkeys(("log_request", "log_target", "log_time", "log_after"), (MOST_MOVES_OF_ONE * requests,)),
        "source_rank": (fleet,),
        "moved": (requests,),
    }
    floats = ("stay_s", "move_s", "stay_hit", "move_hit", "tick", "log_time")
    return Offers(
        **{
            name: np.zeros((batch, *shapes[name]), dtype=np.float64 if name in floats else np.int32)
            for name in Offers._fields
        }
    )


@inner_inlined
def _movable(state: State, offers: Offers, b: int, r: int) -> bool:
    """Return whether a request waits or decodes, and may move once more."""
    if state.target[b, r] >= 0 or offers.moved[b, r] >= MOST_MOVES_OF_ONE:
        return False
    decodes = state.status[b, r] == _ADMITTED and state.first_token[b, r] >= 0.0 and state.due[b, r] == 0.0
    return bool(state.status[b, r] == _QUEUED or decodes)


@inner
def _rank_sources(state: State, offers: Offers, b: int) -> None:
    """Order the instances by backlog, then by the share of memory in use."""
    rank = offers.source_rank[b]
    for i in range(state.fleet[b]):
        k = i
        used = state.signal[b, i, 5] / state.kv_tokens[b, i]
        while k > 0:
            j = rank[k - 1]
            longer = state.backlog[b, i] > state.backlog[b, j]
            fuller = state.backlog[b, i] == state.backlog[b, j] and used > state.signal[b, j, 5] / state.kv_tokens[b, j]
            if not (longer or fuller):
                break
            rank[k] = j
            k -= 1
        rank[k] = i


@inner_inlined
def _transfer_s(state: State, b: int, r: int) -> float:
    """Return the seconds until the keys and values of a request are at another instance."""
    return float(state.link_latency[b] + state.kv_transfer_s[b] * state.computed[b, r])


@inner_inlined
def _look_at(state: State, b: int, r: int) -> None:
    """Fill what is known of the instances as if a request were new and at hand."""
    state.current[b], state.current_kind[b] = r, 0
    know(state, b, r)


@inner
def _offer(state: State, offers: Offers, b: int, r: int, i: int) -> None:
    """List the best targets of a request of an instance: soonest first token, or most room if it has that."""
    waits = state.first_token[b, r] < 0.0
    _look_at(state, b, r)
    chosen = -1
    for _ in range(_TARGETS):
        best, least = -1, np.inf
        for j in range(state.fleet[b]):
            other = j != i and j != chosen
            if not other or not state.allowed[b, j] or (not waits and state.role[b, j] != 0):
                continue
            score = state.predicted[b, j] if waits else -state.signal[b, j, 6] / state.kv_tokens[b, j]
            if score < least:
                best, least = j, score
        if best < 0 or offers.candidates[b] >= SLOTS:
            return
        k = offers.candidates[b]
        offers.request[b, k], offers.source[b, k], offers.target[b, k] = r, i, best
        transfer = _transfer_s(state, b, r)
        offers.stay_s[b, k] = state.backlog[b, i] if waits else 0.0
        offers.move_s[b, k] = transfer + (state.predicted[b, best] if waits else state.downtime[b])
        offers.stay_hit[b, k] = state.hits[b, i] / state.prompt[b, r]
        offers.move_hit[b, k] = state.hits[b, best] / state.prompt[b, r]
        offers.candidates[b] = k + 1
        chosen = best


@inner
def list_offers(state: State, offers: Offers, b: int) -> None:
    """List the candidates of a row: none, then pairs of request and target, those of the longest backlog first."""
    offers.candidates[b] = 1
    offers.request[b, 0] = offers.source[b, 0] = offers.target[b, 0] = -1
    if state.fleet[b] < 2:
        return
    # Backlogs do not depend on the request, so any will do. Of the type of the numbers in arrays, for which these
    # kernels are compiled anyway.
    some: Any = np.int32(0)
    _look_at(state, b, some)
    _rank_sources(state, offers, b)
    for k in range(min(_SOURCES, state.fleet[b])):
        i = offers.source_rank[b, k]
        if state.role[b, i] == 2:
            continue
        waiting = min(state.queued[b, i], _WAITING)
        for place in range(waiting):
            # The first of the queue, one from the middle, and one of the last.
            at = place * (state.queued[b, i] - 1) // max(waiting - 1, 1)
            r = state.queue[b, i, at]
            if _movable(state, offers, b, r):
                _offer(state, offers, b, r, i)
        found = 0
        for back in range(state.running_count[b, i]):
            r = state.running[b, i, state.running_count[b, i] - 1 - back]
            if found < _DECODING and _movable(state, offers, b, r):
                _offer(state, offers, b, r, i)
                found += 1
    state.current[b] = _BEGINS
