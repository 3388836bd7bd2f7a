"""Prefix caches of serving instances: which blocks each holds, and that the least recently used leave first.

A block is used by running requests, or idle in a list from the one used longest ago to the newest. Where prefixes share
the memory, only idle blocks can leave; a cache of its own keeps copies, all of them in the list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schedrl.kernels import inner, inner_inlined

if TYPE_CHECKING:
    from schedrl.envs.routing.state import State

__all__ = ["acquire", "available", "find", "make_room", "release", "share"]


@inner_inlined
def _take_out(state: State, b: int, i: int, u: int) -> None:
    older, newer = state.older[b, u + 1, i], state.newer[b, u + 1, i]
    state.newer[b, older, i] = newer
    state.older[b, newer, i] = older


@inner_inlined
def _put_in(state: State, b: int, i: int, u: int) -> None:
    """Make a block the newest of the list, which begins and ends at position 0; block u is at u + 1."""
    newest = state.older[b, 0, i]
    state.newer[b, newest, i] = u + 1
    state.older[b, u + 1, i] = newest
    state.newer[b, u + 1, i] = 0
    state.older[b, 0, i] = u + 1


@inner_inlined
def _evict(state: State, b: int, i: int) -> None:
    """Let the block that was used longest ago leave."""
    u = state.newer[b, 0, i] - 1
    _take_out(state, b, i, u)
    state.refs[b, u, i] = -1
    state.cached[b, i] -= state.block_tokens[b]
    state.evictable[b, i] -= state.block_tokens[b]
    if state.refresh[b] > 0.0:
        state.evicted[b, u, i] = state.now[b]


@inner_inlined
def available(state: State, b: int, i: int) -> int:
    """Return how many more tokens the memory can take, idle prefixes out of it."""
    free = state.kv_tokens[b, i] - state.used[b, i]
    if state.cache_tokens[b, i] < 0:
        free -= state.cached[b, i] - state.evictable[b, i]
    return int(free)


@inner
def make_room(state: State, b: int, i: int, tokens: int) -> None:
    """Take tokens of memory, which must be ``available``, and let idle prefixes leave for them."""
    state.used[b, i] += tokens
    if state.cache_tokens[b, i] >= 0:
        state.peak[b, i] = max(state.peak[b, i], state.used[b, i])
        return
    while state.used[b, i] + state.cached[b, i] > state.kv_tokens[b, i] and state.evictable[b, i] > 0:
        _evict(state, b, i)
    state.peak[b, i] = max(state.peak[b, i], state.used[b, i] + state.cached[b, i])


@inner
def find(state: State, b: int, i: int, r: int, target: int) -> int:
    """Return how many leading blocks of a request an instance holds, short of the last of ``target`` tokens."""
    first = state.block_start[b, r]
    most = min(state.block_start[b, r + 1] - first, (target - 1) // state.block_tokens[b])
    k = 0
    while k < most and state.refs[b, state.block[b, first + k], i] >= 0:
        k += 1
    return k


@inner
def acquire(state: State, b: int, i: int, r: int, count: int) -> None:
    """Use the leading blocks of a request, all of which are there."""
    first, own = state.block_start[b, r], state.cache_tokens[b, i] >= 0
    for k in range(count - 1, -1, -1):
        u = state.block[b, first + k]
        if own or state.refs[b, u, i] == 0:
            _take_out(state, b, i, u)
        if own:
            _put_in(state, b, i, u)
            continue
        if state.refs[b, u, i] == 0:
            state.evictable[b, i] -= state.block_tokens[b]
        state.refs[b, u, i] += 1
    state.held[b, r] = count


@inner_inlined
def _keep(state: State, b: int, i: int, r: int, u: int) -> None:
    """Turn a block that a request has just computed into one that others can use."""
    size, present = state.block_tokens[b], state.refs[b, u, i] >= 0
    if state.cache_tokens[b, i] >= 0:
        if present:
            _take_out(state, b, i, u)
        else:
            state.refs[b, u, i] = 0
            state.cached[b, i] += size
            state.evictable[b, i] += size
        _put_in(state, b, i, u)
        while state.cached[b, i] > state.cache_tokens[b, i]:
            _evict(state, b, i)
    else:
        state.used[b, i] -= size
        if not present:
            state.refs[b, u, i] = 0
            state.cached[b, i] += size
        elif state.refs[b, u, i] == 0:
            _take_out(state, b, i, u)
            state.evictable[b, i] -= size
        state.refs[b, u, i] += 1
    if not present and state.refresh[b] > 0.0:
        state.inserted[b, u, i] = state.now[b]
    state.held[b, r] += 1


@inner
def share(state: State, b: int, i: int, r: int, tokens: int) -> None:
    """Share the blocks that are complete once ``tokens`` tokens of a request are computed."""
    first = state.block_start[b, r]
    count = min(state.block_start[b, r + 1] - first, tokens // state.block_tokens[b])
    while state.held[b, r] < count:
        _keep(state, b, i, r, state.block[b, first + state.held[b, r]])


@inner
def release(state: State, b: int, i: int, r: int) -> None:
    """Let go of the blocks of a request; the last of them is the first to be evicted."""
    first, own = state.block_start[b, r], state.cache_tokens[b, i] >= 0
    for k in range(state.held[b, r] - 1, -1, -1):
        u = state.block[b, first + k]
        if own:
            if state.refs[b, u, i] >= 0:
                _take_out(state, b, i, u)
                _put_in(state, b, i, u)
            continue
        state.refs[b, u, i] -= 1
        if state.refs[b, u, i] == 0:
            _put_in(state, b, i, u)
            state.evictable[b, i] += state.block_tokens[b]
    state.held[b, r] = 0
