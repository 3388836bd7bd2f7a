"""Continuous batching, iteration by iteration, after vLLM's scheduler (v1).

Running requests go first: each that decodes gets one token of the budget, one whose prompt is computed in part gets
what is left, and a request that finds no memory has the one admitted last give up its own and start again (recompute).
Then waiting requests are admitted in order while budget, memory and places last; the first that does not fit ends it.

With pages of one token, iterations in which nothing but decoding happens are planned together up to the next that ends
a request: their times are an arithmetic series. A plan is cut short at the iteration in which a request arrives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from schedrl.devices.serving_time import CONTEXT, PAIR, iteration_s
from schedrl.envs.routing.outcomes import count_finish, count_first_token
from schedrl.envs.routing.prefix_cache import acquire, available, find, make_room, release, share
from schedrl.envs.routing.queues import pop_waiting, push_event, push_waiting
from schedrl.kernels import inner, inner_inlined

if TYPE_CHECKING:
    from schedrl.envs.routing.state import State

__all__ = ["commit", "find_next_finish", "give_up_memory", "plan", "shorten"]

_NEVER = 2**31 - 1
_HANDED_OVER, _LANDS = 1, 3
_QUEUED, _ADMITTED, _AWAY, _DONE = 1, 2, 3, 4


@inner_inlined
def _pages(tokens: int, page: int) -> int:
    """Return the tokens of the pages that hold so many."""
    return (tokens + page - 1) // page * page


@inner_inlined
def _growth(state: State, b: int, i: int, page: int) -> int:
    """Return the tokens of memory that one more iteration of all decoding requests takes."""
    if page == 1:
        return int(state.decoding[b, i])
    need = 0
    for k in range(state.running_count[b, i]):
        r = state.running[b, i, k]
        if r != state.partial[b, i]:
            done = state.computed[b, r] + state.ticks[b, i] - state.tick_zero[b, r]
            need += page if done % page == 0 else 0
    return need


@inner
def _owe(state: State, b: int, i: int, r: int, tokens: float, pairs: float) -> None:
    """Set what of a request's prompt the instance has yet to compute."""
    state.pending[b, i] += tokens - state.due[b, r]
    state.pending_pairs[b, i] += pairs - state.due_pairs[b, r]
    state.due[b, r], state.due_pairs[b, r] = tokens, pairs


@inner
def give_up_memory(state: State, b: int, i: int, r: int, page: int) -> None:
    """Let a request's memory go that it no longer needs at an instance; its prefix stays behind."""
    shared = state.cache_tokens[b, i] < 0
    state.used[b, i] -= _pages(state.computed[b, r], page) - (state.held[b, r] * state.block_tokens[b] if shared else 0)
    release(state, b, i, r)


@inner
def _stop_last(state: State, b: int, i: int, page: int) -> None:
    """Have the request admitted last give up its memory and wait at the front to be computed again."""
    state.running_count[b, i] -= 1
    r = state.running[b, i, state.running_count[b, i]]
    done = state.computed[b, r]
    if r == state.partial[b, i]:
        state.partial[b, i] = -1
    else:
        passed = state.ticks[b, i] - state.tick_zero[b, r]
        done += passed
        state.generated[b, r] += passed
        state.decoding[b, i] -= 1
        state.context[b, i] -= done
        find_next_finish(state, b, i)
    state.computed[b, r] = done
    give_up_memory(state, b, i, r, page)
    state.computed[b, r] = 0
    state.status[b, r] = _QUEUED
    state.preemptions[b, r] += 1
    target = state.prompt[b, r] + state.generated[b, r]
    _owe(state, b, i, r, float(target), 0.5 * target * target)
    state.recalls[b] -= 1
    state.order[b, r] = state.recalls[b]
    state.moved_in[b, r] = False
    push_waiting(state, b, i, r)


@inner
def find_next_finish(state: State, b: int, i: int) -> None:
    """Find the tick at which the next decoding request is finished."""
    first = _NEVER
    for k in range(state.running_count[b, i]):
        r = state.running[b, i, k]
        if r != state.partial[b, i]:
            first = min(first, state.tick_zero[b, r] + state.output[b, r] - state.generated[b, r])
    state.next_finish[b, i] = first


@inner
def _admit(state: State, b: int, i: int, budget: int, page: int) -> int:
    """Admit the first waiting request if it fits, and return how many of its tokens are computed now, else 0."""
    r = state.queue[b, i, 0]
    target = state.prompt[b, r] + state.generated[b, r]
    size, shared = state.block_tokens[b], state.cache_tokens[b, i] < 0
    if state.moved_in[b, r]:
        need, tokens = _pages(target, page), 1
        if available(state, b, i) < need:
            return 0
        make_room(state, b, i, need)
        state.computed[b, r] = target - 1
    else:
        count = find(state, b, i, r, target)
        done = count * size
        tokens = min(target - done, budget)
        need, idle = _pages(done + tokens, page) - (done if shared else 0), 0
        if shared:
            first = state.block_start[b, r]
            for k in range(count):
                idle += size if state.refs[b, state.block[b, first + k], i] == 0 else 0
        if available(state, b, i) - idle < need:
            return 0
        acquire(state, b, i, r, count)
        make_room(state, b, i, need)
        state.computed[b, r] = done
        if state.hit[b, r] < 0:
            state.hit[b, r] = done
        left = float(target - done)
        _owe(state, b, i, r, left, left * (done + 0.5 * left))
        if done + tokens < target:
            state.partial[b, i] = r
    pop_waiting(state, b, i)
    state.status[b, r] = _ADMITTED
    state.tick_zero[b, r] = state.ticks[b, i]
    state.running[b, i, state.running_count[b, i]] = r
    state.running_count[b, i] += 1
    return tokens


@inner_inlined
def _continue_partial(state: State, b: int, i: int, budget: int, page: int) -> tuple[int, bool]:
    """Return the tokens of the prompt in part that are computed now, and whether it had to stop."""
    r = state.partial[b, i]
    done = state.computed[b, r]
    tokens = min(state.prompt[b, r] + state.generated[b, r] - done, budget)
    need = _pages(done + tokens, page) - _pages(done, page)
    if need > available(state, b, i):
        _stop_last(state, b, i, page)
        return 0, True
    make_room(state, b, i, need)
    return tokens, False


@inner
def plan(state: State, b: int, i: int, page: int) -> None:
    """Compose the next iteration from ``clock`` on, or go idle."""
    stopped = False
    need = _growth(state, b, i, page)
    while need > available(state, b, i):
        _stop_last(state, b, i, page)
        need, stopped = _growth(state, b, i, page), True
    make_room(state, b, i, need)
    decoding = state.decoding[b, i]
    tokens, sequences = decoding, decoding
    context, pairs = state.context[b, i] + decoding, state.context[b, i] + 0.5 * decoding
    budget, items = state.token_budget[b, i], 0
    if state.partial[b, i] >= 0 and tokens < budget:
        r = state.partial[b, i]
        now, ended = _continue_partial(state, b, i, budget - tokens, page)
        stopped = stopped or ended
        if now > 0:
            state.item[b, i, items], state.item_tokens[b, i, items] = r, now
            items += 1
    places = min(state.max_sequences[b, i], state.running.shape[2])
    for k in range(items):
        tokens += state.item_tokens[b, i, k]
    while not stopped and state.queued[b, i] > 0 and tokens < budget and state.running_count[b, i] < places:
        r = state.queue[b, i, 0]
        now = _admit(state, b, i, budget - tokens, page)
        if now == 0:
            break
        state.item[b, i, items], state.item_tokens[b, i, items] = r, now
        items += 1
        tokens += now
    for k in range(items):
        now, done = state.item_tokens[b, i, k], state.computed[b, state.item[b, i, k]]
        sequences += 1
        context += done + now
        pairs += now * (done + 0.5 * now)
    state.items[b, i] = items
    if tokens == 0:
        state.end[b, i] = np.inf
        return
    first = iteration_s(state.costs[b, i], tokens, sequences, context, pairs)
    # A request that has just stopped may come back with the next iteration.
    jump = items == 0 and page == 1 and not stopped
    if jump:
        # The memory of planned iterations is taken when it is known how many of them there were.
        state.used[b, i] -= need
    _set_plan(state, b, i, first, jump)


@inner_inlined
def _free_for_decoding(state: State, b: int, i: int) -> int:
    """Return the memory that decoding can take before anything else may change."""
    waits = state.queued[b, i] > 0 and state.running_count[b, i] < state.max_sequences[b, i]
    if waits and state.cache_tokens[b, i] < 0:
        r = state.queue[b, i, 0]
        if not state.moved_in[b, r] and find(state, b, i, r, state.prompt[b, r] + state.generated[b, r]) > 0:
            # Once a prefix leaves that the first of the queue would use, its first chunk needs less memory.
            return int(state.kv_tokens[b, i] - state.used[b, i] - state.cached[b, i])
    return available(state, b, i)


@inner_inlined
def _set_plan(state: State, b: int, i: int, first: float, jump: bool) -> None:
    decoding = state.decoding[b, i]
    growth, ticks = (state.costs[b, i, CONTEXT] + state.costs[b, i, PAIR]) * decoding, 1
    if jump:
        ticks = min(state.next_finish[b, i] - state.ticks[b, i], _free_for_decoding(state, b, i) // decoding)
    state.plan_first[b, i], state.plan_growth[b, i] = first, growth
    state.plan_ticks[b, i], state.plan_jump[b, i] = ticks, jump
    state.end[b, i] = state.clock[b, i] + ticks * first + growth * (0.5 * ticks * (ticks - 1))


@inner
def shorten(state: State, b: int, i: int, moment: float) -> None:
    """End a plan of several iterations with the one that is under way at a moment, or begins then."""
    if not state.plan_jump[b, i] or state.plan_ticks[b, i] == 1 or state.end[b, i] <= moment:
        return
    first, growth, passed = state.plan_first[b, i], state.plan_growth[b, i], moment - state.clock[b, i]
    half = first - 0.5 * growth
    guess = int(2.0 * passed / (half + np.sqrt(half * half + 2.0 * growth * passed))) if passed > 0.0 else 1
    ticks = max(guess, 1)
    while ticks > 1 and (ticks - 1) * first + growth * (0.5 * (ticks - 1) * (ticks - 2)) > passed:
        ticks -= 1
    while ticks * first + growth * (0.5 * ticks * (ticks - 1)) <= passed:
        ticks += 1
    ticks = min(ticks, state.plan_ticks[b, i])
    state.plan_ticks[b, i] = ticks
    state.end[b, i] = state.clock[b, i] + ticks * first + growth * (0.5 * ticks * (ticks - 1))


@inner
def _end_request(state: State, b: int, i: int, r: int, done: int, page: int) -> None:
    """Let a finished request go; the blocks of its answer stay behind."""
    state.computed[b, r] = done
    share(state, b, i, r, done)
    give_up_memory(state, b, i, r, page)
    state.status[b, r] = _DONE
    state.finish[b, r] = state.end[b, i]
    state.finished[b] += 1
    state.output_seen[b] += state.output[b, r]
    state.inflight[b, i] -= 1
    count_finish(state, b, r)


@inner
def _compute_prompts(state: State, b: int, i: int, page: int) -> bool:
    """Do what the planned iteration does for prompts, and return whether any got its first or next token."""
    changed = False
    for k in range(state.items[b, i]):
        r, now = state.item[b, i, k], state.item_tokens[b, i, k]
        done = state.computed[b, r] + now
        state.computed[b, r] = done
        share(state, b, i, r, done)
        left = max(state.due[b, r] - now, 0.0)
        _owe(state, b, i, r, left, left * (done + 0.5 * left))
        if done < state.prompt[b, r] + state.generated[b, r]:
            continue
        changed = True
        _owe(state, b, i, r, 0.0, 0.0)
        if r == state.partial[b, i]:
            state.partial[b, i] = -1
        state.generated[b, r] += 1
        state.tick_zero[b, r] = state.ticks[b, i]
        state.decoding[b, i] += 1
        state.context[b, i] += done
        if state.first_token[b, r] < 0.0:
            state.first_token[b, r] = state.end[b, i]
            count_first_token(state, b, r)
    return changed


@inner
def _end_requests(state: State, b: int, i: int, page: int) -> None:
    """Take out the requests that have all their tokens, and those that go on elsewhere."""
    kept = 0
    for k in range(state.running_count[b, i]):
        r = state.running[b, i, k]
        passed = state.ticks[b, i] - state.tick_zero[b, r]
        ends = r != state.partial[b, i] and state.generated[b, r] + passed >= state.output[b, r]
        leaves = r != state.partial[b, i] and (state.role[b, i] == 1 or state.copied[b, r])
        if not ends and not leaves:
            state.running[b, i, kept] = r
            kept += 1
            continue
        done = state.computed[b, r] + passed
        state.decoding[b, i] -= 1
        state.context[b, i] -= done
        if ends:
            _end_request(state, b, i, r, done, page)
        else:
            _leave(state, b, i, r, page)
    state.running_count[b, i] = kept
    state.leaving[b, i] = 0


@inner_inlined
def _leave(state: State, b: int, i: int, r: int, page: int) -> None:
    """Send a request that decodes on to another instance."""
    passed = state.ticks[b, i] - state.tick_zero[b, r]
    state.computed[b, r] += passed
    state.generated[b, r] += passed
    state.status[b, r] = _AWAY
    if state.copied[b, r]:
        give_up_memory(state, b, i, r, page)
        push_event(state, b, r, state.end[b, i] + state.downtime[b], _LANDS)
    else:
        # Its memory stays taken until the keys and values are there.
        transfer = state.link_latency[b] + state.kv_transfer_s[b] * state.computed[b, r]
        push_event(state, b, r, state.end[b, i] + transfer, _HANDED_OVER)


@inner
def commit(state: State, b: int, i: int, page: int) -> None:
    """Do what the planned iterations do, up to their end."""
    state.now[b] = state.end[b, i]
    ticks, decoding = state.plan_ticks[b, i], state.decoding[b, i]
    if state.plan_jump[b, i]:
        make_room(state, b, i, ticks * decoding)
    state.ticks[b, i] += ticks
    state.context[b, i] += float(ticks) * decoding
    state.busy[b, i] += state.end[b, i] - state.clock[b, i]
    changed = _compute_prompts(state, b, i, page)
    if changed or state.leaving[b, i] > 0 or state.ticks[b, i] >= state.next_finish[b, i]:
        _end_requests(state, b, i, page)
        find_next_finish(state, b, i)
    state.clock[b, i] = state.end[b, i]
