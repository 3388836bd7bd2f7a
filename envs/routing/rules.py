"""Simple routing rules inside the simulator: they drive whole episodes at full speed, or games that learn else.

Each takes what routers know (``schedrl.envs.routing.signals``); the first of equal instances is chosen. The forms that
know speeds count seconds where the plain ones count tokens or requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from schedrl.kernels import inner, inner_inlined

if TYPE_CHECKING:
    from schedrl.envs.routing.state import State

__all__ = ["RULES", "choose"]

# Name, and the number that kernels know it by.
RULES: dict[str, int] = {
    "random": 0,
    "round-robin": 1,
    "least-outstanding": 2,
    "least-pending": 3,
    "power-of-two": 4,
    "min-ttft": 5,
    "affinity": 6,
    "least-pending-time": 7,
    "affinity-time": 8,
    "min-forecast": 9,
}


@inner_inlined
def _draw(state: State, b: int, below: int) -> int:
    """Return a random number below a bound (splitmix64, Steele, Lea and Flood 2014)."""
    state.random[b] += np.uint64(0x9E3779B97F4A7C15)
    z = state.random[b]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return int(np.int64((z >> np.uint64(33)) % np.uint64(below)))


@inner_inlined
def _score(state: State, b: int, i: int, rule: int) -> float:
    """Return the main figure that a rule minimises."""
    if rule == 2:
        return float(state.inflight[b, i])
    if rule == 3:
        return float(state.signal[b, i, 2] + state.sent_tokens[b, i])
    if rule == 5:
        return float(state.predicted[b, i])
    if rule == 9:
        return float(state.forecast[b, i])
    if rule in (6, 8):
        return -float(state.hits[b, i])
    return float(state.backlog[b, i])


@inner_inlined
def _tie(state: State, b: int, i: int, rule: int) -> float:
    return float(state.backlog[b, i] if rule == 8 else state.signal[b, i, 2] + state.sent_tokens[b, i])


@inner
def choose(state: State, b: int, rule: int) -> int:
    """Return the slot of the instance that a rule chooses for the request at hand; rules never hold."""
    count = state.candidates[b]
    if state.offered[b, count - 1] < 0:
        count -= 1
    if rule == 0:
        return _draw(state, b, count)
    if rule == 1:
        state.turn[b] += 1
        return int((state.turn[b] - 1) % count)
    if rule == 4:
        first = _draw(state, b, count)
        second = (first + 1 + _draw(state, b, count - 1)) % count if count > 1 else first
        one, other = state.offered[b, first], state.offered[b, second]
        return first if state.inflight[b, one] <= state.inflight[b, other] else second
    best = 0
    for slot in range(1, count):
        i, j = state.offered[b, slot], state.offered[b, best]
        score, least = _score(state, b, i, rule), _score(state, b, j, rule)
        if score < least or (score == least and _tie(state, b, i, rule) < _tie(state, b, j, rule)):
            best = slot
    return best
