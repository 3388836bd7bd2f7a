"""Continuous batching seen from inside: what instances hold at every decision of random games."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.state import ADMITTED, DONE, QUEUED, State
from tests.envs.routing.small_fleets import SEEDS, play, random_instance, server_of, workload_of


def _computed(state: State, r: int, i: int) -> int:
    """Return the tokens of a running request with keys and values, at the last iteration that is done."""
    decodes = state.due[0, r] == 0.0
    return int(state.computed[0, r] + (state.ticks[0, i] - state.tick_zero[0, r]) * decodes)


def _holder(state: State, r: int) -> int:
    return int(state.decode_where[0, r] if state.decode_where[0, r] >= 0 else state.where[0, r])


def check_batches(state: State) -> None:
    """Check running requests, queues and counts of every instance against the requests themselves."""
    for i in range(int(state.fleet[0])):
        running = state.running[0, i, : state.running_count[0, i]].tolist()
        queue = state.queue[0, i, : state.queued[0, i]].tolist()
        assert len(set(running)) == len(running) <= state.max_sequences[0, i]
        assert {int(state.status[0, r]) for r in running} <= {ADMITTED}
        assert {int(state.status[0, r]) for r in queue} <= {QUEUED}
        assert all(_holder(state, r) == i for r in running + queue)
        tokens = [int(state.prompt[0, r] + state.generated[0, r]) for r in queue]
        assert state.queued_tokens[0, i] == sum(tokens)
        items = state.item[0, i, : state.items[0, i]].tolist() if np.isfinite(state.end[0, i]) else []
        decoding = [r for r in running if r not in items and r != state.partial[0, i]]
        assert state.decoding[0, i] == len(decoding)
        assert state.context[0, i] == sum(_computed(state, r, i) for r in decoding)
        due = [float(state.due[0, r]) for r in running + queue]
        assert state.pending[0, i] == pytest.approx(sum(due), abs=1e-6)
        planned = len(decoding) + int(state.item_tokens[0, i, : len(items)].sum())
        assert planned <= state.token_budget[0, i]


@given(SEEDS, st.booleans(), st.booleans())
def test_counts_agree_with_requests_at_every_decision(seed: int, exact: bool, moves: bool) -> None:
    instance = random_instance(seed)
    state = play(instance, seed, exact=exact, moves=moves, watch=check_batches).state
    for name in ("running_count", "queued", "decoding", "context", "queued_tokens", "used", "inflight"):
        assert not getattr(state, name)[0].any(), f"{name} is back at 0 when all is served"
    assert np.abs(state.pending[0]).max() < 1e-6 and np.abs(state.pending_pairs[0]).max() < 1e-3
    assert (state.status[0] == DONE).all() and np.isinf(state.end[0]).all()


@given(SEEDS, st.booleans(), st.booleans())
def test_tokens_are_conserved(seed: int, exact: bool, moves: bool) -> None:
    """Every request that was served has all tokens of its answer, and keys and values of all but the last."""
    instance = random_instance(seed)
    simulator = play(instance, seed, exact=exact, moves=moves)
    state, plan = simulator.state, simulator.solution(0)
    served = plan.instance >= 0
    kept = instance.prompt_tokens + instance.output_tokens - 1
    np.testing.assert_array_equal(state.computed[0][served], kept[served])
    assert (plan.finish_s[served] >= plan.first_token_s[served]).all()
    assert (plan.first_token_s[served] > plan.dispatch_s[served]).all()
    one = served & (instance.output_tokens == 1)
    np.testing.assert_array_equal(plan.finish_s[one], plan.first_token_s[one])
    assert (plan.hit_tokens[served] < instance.prompt_tokens[served]).all()
    assert (plan.hit_tokens[served] % instance.block_tokens == 0).all()
    assert (plan.first_token_s[~served] == -1.0).all() and (plan.finish_s[~served] == -1.0).all()


@given(SEEDS, st.booleans())
def test_no_instance_works_longer_than_the_game(seed: int, exact: bool) -> None:
    instance = random_instance(seed)
    plan = play(instance, seed, exact=exact).solution(0)
    last = max(float(plan.finish_s.max()), 0.0)
    assert (plan.busy_s <= last - np.minimum([s.ready_s for s in instance.fleet], last) + 1e-9).all()


def test_a_prompt_that_stops_tries_again_at_once() -> None:
    # 20 of 44 tokens decode; the prompt of 26 gets 3 a second. When memory runs out it starts again, until it fits.
    fleet = [server_of(kv_tokens=44, token_budget=4, max_sequences=2)]
    instance = workload_of([(0.0, 4, 24), (0.5, 26, 2)], fleet)
    simulator = Simulator([instance], 1)
    while not simulator.finished(0):
        simulator.send(0)
    plan = simulator.solution(0)
    # After k iterations beside the other's decoding 4 + k and 3 k tokens are taken, so 26 come at 10 s: no stop yet.
    assert plan.first_token_s.tolist() == [1.0, 10.0]
    tight = workload_of([(0.0, 20, 8), (0.5, 26, 2)], fleet)
    simulator.load(0, tight)
    while not simulator.finished(0):
        simulator.send(0)
    # The first prompt takes five seconds. From 5 s on 20 + k and 3 k tokens are taken: after the sixth iteration, at
    # 11 s, the next three do not fit beside one more of the other. It stops, the other ends at 12 s, and 26 tokens at 4
    # a second follow.
    plan = simulator.solution(0)
    assert plan.preemptions.tolist() == [0, 1]
    assert plan.first_token_s.tolist() == [5.0, 19.0]
