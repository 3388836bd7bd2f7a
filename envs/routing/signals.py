"""What routers know of the instances: signals that may be late, prefixes believed to be held, and a predicted TTFT."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from schedrl.devices.serving_time import iteration_s
from schedrl.envs.routing.prefix_cache import available
from schedrl.kernels import inner, inner_inlined

if TYPE_CHECKING:
    from schedrl.envs.routing.state import State

__all__ = ["know", "refresh_signals"]

# Tokens of the one answer that is taken as seen at the start.
_PRIOR_OUTPUT = 256.0


@inner
def _read(state: State, b: int, i: int) -> None:
    """Read an instance's signals now."""
    queued, running = state.queued[b, i], state.running_count[b, i]
    signal = state.signal[b, i]
    signal[0], signal[1] = queued, running
    signal[2], signal[3] = state.pending[b, i], state.pending_pairs[b, i]
    signal[4] = state.context[b, i]
    shared = state.cache_tokens[b, i] < 0
    signal[5] = state.used[b, i] + (state.cached[b, i] - state.evictable[b, i] if shared else 0)
    signal[6] = available(state, b, i)
    signal[7] = state.queued_tokens[b, i]
    signal[8] = 0.0
    if queued > 0:
        head = state.queue[b, i, 0]
        signal[8] = state.prompt[b, head] + state.generated[b, head]


@inner
def refresh_signals(state: State, b: int, moment: float) -> None:
    """Read the signals at the last multiple of the refresh interval before a moment, unless they were."""
    if moment == np.inf:
        return
    read = np.floor(moment / state.refresh[b]) * state.refresh[b]
    if read <= state.signal_time[b]:
        return
    state.signal_time[b] = read
    for i in range(state.fleet[b]):
        _read(state, b, i)
        state.sent[b, i], state.sent_tokens[b, i] = 0, 0.0


@inner_inlined
def _believed(state: State, b: int, u: int, i: int) -> bool:
    """Return whether an instance held a block when the signals were read."""
    if state.refresh[b] == 0.0:
        return bool(state.refs[b, u, i] >= 0)
    seen = state.signal_time[b]
    # A block that left and came back since counts as absent, as only its last visit is recorded.
    return bool(state.inserted[b, u, i] <= seen and (state.refs[b, u, i] >= 0 or state.evicted[b, u, i] > seen))


@inner
def _find_hits(state: State, b: int, r: int) -> None:
    """Find how much of a prompt each instance is believed to hold."""
    first, size = state.block_start[b, r], state.block_tokens[b]
    most = min(state.block_start[b, r + 1] - first, (state.prompt[b, r] - 1) // size)
    for i in range(state.fleet[b]):
        state.hits[b, i] = 0
    alive, k = state.fleet[b], 0
    while alive > 0 and k < most:
        u = state.block[b, first + k]
        alive = 0
        for i in range(state.fleet[b]):
            if state.hits[b, i] == k * size and _believed(state, b, u, i):
                state.hits[b, i] += size
                alive += 1
        k += 1


@inner
def _predict(state: State, b: int, i: int, tokens: float, pairs: float) -> float:
    """Return the seconds until what is pending and so many tokens more are computed, beside what decodes now."""
    decoding = min(state.signal[b, i, 1], state.token_budget[b, i] - 1.0)
    chunk = state.token_budget[b, i] - decoding
    if tokens <= 0.0:
        return 0.0
    iterations = np.ceil(tokens / chunk)
    each = tokens / iterations
    context = state.signal[b, i, 4]
    seconds = iteration_s(
        state.costs[b, i], int(each + decoding), int(decoding) + 1, context + decoding, pairs / iterations + context
    )
    return float(iterations * seconds)


@inner_inlined
def _memory_wait(state: State, b: int, i: int) -> float:
    """Return the seconds until running requests have freed the memory that waiting ones and the one at hand need.

    A running request is taken to have half a mean answer left, by the answers seen so far.
    """
    signal, r = state.signal[b, i], state.current[b]
    lacking = signal[7] + state.sent_tokens[b, i] + state.prompt[b, r] - signal[6]
    running = int(signal[1])
    if lacking <= 0.0 or running == 0:
        return 0.0
    context = max(signal[4], 1.0)
    token = iteration_s(state.costs[b, i], running, running, context, context)
    output = (state.output_seen[b] + _PRIOR_OUTPUT) / (state.finished[b] + 1.0)
    return float(lacking / context * 0.5 * output * token)


@inner
def know(state: State, b: int, r: int) -> None:
    """Fill what a router knows about the request at hand."""
    if state.refresh[b] == 0.0:
        for i in range(state.fleet[b]):
            _read(state, b, i)
            state.sent[b, i], state.sent_tokens[b, i] = 0, 0.0
        state.signal_time[b] = state.now[b]
    _find_hits(state, b, r)
    moved = state.current_kind[b] == 1
    for i in range(state.fleet[b]):
        fits = state.role[b, i] == 2 if moved else state.fits[b, r, i]
        state.allowed[b, i] = fits and state.ready[b, i] <= state.now[b] < state.retire[b, i]
        hit = state.hits[b, i]
        own = float(state.prompt[b, r] - hit)
        tokens = state.signal[b, i, 2] + (1.0 if moved else own)
        pairs = state.signal[b, i, 3] + (0.0 if moved else own * (hit + 0.5 * own))
        state.predicted[b, i] = _predict(state, b, i, tokens, pairs)
        state.backlog[b, i] = _predict(state, b, i, state.signal[b, i, 2], state.signal[b, i, 3])
        state.memory_wait[b, i] = _memory_wait(state, b, i)
        sent = state.sent_tokens[b, i]
        forecast = (
            _predict(state, b, i, tokens + sent, pairs + 0.5 * sent * sent) if sent > 0.0 else state.predicted[b, i]
        )
        state.forecast[b, i] = forecast + state.memory_wait[b, i]
