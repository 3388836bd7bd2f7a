"""What an expert cache offers at a decision: experts that may leave, or absent ones that may come ahead of need."""

from __future__ import annotations

from schedrl.envs.moe.cache_observation import chance
from schedrl.envs.moe.cache_state import State
from schedrl.kernels import inner_inlined

__all__ = ["can_bring", "may_leave", "offer_evictions", "offer_loads"]


@inner_inlined
def may_leave(state: State, b: int, expert: int) -> bool:
    """Whether a resident expert is neither needed by the request nor brought ahead of need during it."""
    free: bool = state.last_use[b, expert] != state.step[b] and state.fresh[b, expert] != state.step[b]
    return free


@inner_inlined
def _keep_best(state: State, b: int, first: int, count: int, expert: int, score: float, window: int) -> int:
    """Insert an expert among the offers from slot ``first`` on, lowest score and then number first."""
    i = count
    while i > first:
        other = state.score[b, i - 1]
        if other < score or (other == score and state.offered[b, i - 1] < expert):
            break
        if i < window:
            state.offered[b, i], state.score[b, i] = state.offered[b, i - 1], other
        i -= 1
    if i < window:
        state.offered[b, i], state.score[b, i] = expert, score
    if count < window:
        return count + 1
    state.hidden[b] += 1
    return count


@inner_inlined
def offer_evictions(state: State, b: int, window: int) -> None:
    """Offer the experts that may leave, least recently used first."""
    count = 0
    state.hidden[b] = 0
    for i in range(state.residents[b]):
        expert = state.resident[b, i]
        if may_leave(state, b, expert):
            count = _keep_best(state, b, 0, count, expert, float(state.last_use[b, expert]), window)
    state.candidates[b] = count


@inner_inlined
def offer_loads(state: State, b: int, window: int) -> None:
    """Offer to load nothing, and the absent experts of the next request's layer, the likeliest first."""
    r, experts = state.step[b], state.experts[b]
    base = state.layer[b, r + 1] * experts
    state.offered[b, 0] = -1
    state.hidden[b] = 0
    count = 1
    for expert in range(base, base + experts):
        if state.place[b, expert] < 0:
            count = _keep_best(state, b, 1, count, expert, -chance(state, b, r, expert), window)
    state.candidates[b] = count


@inner_inlined
def can_bring(state: State, b: int) -> bool:
    """Whether the channel is free during the computation and memory has a place for another expert."""
    r = state.step[b]
    if r + 1 >= state.steps[b] or max(state.channel[b], state.start[b]) >= state.start[b] + state.duration[b, r]:
        return False
    if state.residents[b] < state.places[b]:
        return True
    for i in range(state.residents[b]):  # noqa: SIM110  # compiled code has no generators
        if may_leave(state, b, state.resident[b, i]):
            return True
    return False
