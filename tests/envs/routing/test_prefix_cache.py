"""Prefix caches: lists, uses and memory agree at every decision of random games, and hits follow the definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.state import State
from tests.envs.routing.small_fleets import SEEDS, play, random_instance, server_of, workload_of


def _listed(state: State, i: int) -> list[int]:
    """Return the blocks of an instance's list, the one used longest ago first, having followed it both ways."""
    forward, backward = [], []
    at = int(state.newer[0, 0, i])
    while at:
        forward.append(at - 1)
        at = int(state.newer[0, at, i])
    at = int(state.older[0, 0, i])
    while at:
        backward.append(at - 1)
        at = int(state.older[0, at, i])
    assert forward == backward[::-1]
    return forward


def check_caches(state: State) -> None:
    """Check the memory and cache of every instance."""
    size = int(state.block_tokens[0])
    for i in range(int(state.fleet[0])):
        refs = state.refs[0, :, i]
        held, listed, shared = refs >= 0, _listed(state, i), state.cache_tokens[0, i] < 0
        idle = (refs == 0) if shared else held
        assert sorted(listed) == np.flatnonzero(idle).tolist()
        assert state.cached[0, i] == size * held.sum()
        assert state.evictable[0, i] == size * idle.sum()
        assert state.used[0, i] >= 0
        if shared:
            assert state.used[0, i] + state.cached[0, i] <= state.kv_tokens[0, i]
        else:
            assert state.used[0, i] <= state.kv_tokens[0, i]
            assert state.cached[0, i] <= state.cache_tokens[0, i]
        assert state.peak[0, i] <= state.kv_tokens[0, i]


@given(SEEDS, st.booleans(), st.booleans())
def test_memory_and_caches_agree_at_every_decision(seed: int, exact: bool, moves: bool) -> None:
    instance = random_instance(seed)
    state = play(instance, seed, exact=exact, moves=moves, watch=check_caches).state
    check_caches(state)
    for i, serving in enumerate(instance.fleet):
        if serving.cache_tokens < 0:
            assert (state.refs[0, :, i] <= 0).all(), "nobody uses a block any more"


@given(SEEDS)
def test_uses_are_those_of_running_requests(seed: int) -> None:
    def watch(state: State) -> None:
        for i in range(int(state.fleet[0])):
            if state.cache_tokens[0, i] >= 0:
                continue
            uses = np.zeros(state.refs.shape[1], dtype=np.int64)
            for r in state.running[0, i, : state.running_count[0, i]].tolist():
                first = int(state.block_start[0, r])
                uses[state.block[0, first : first + state.held[0, r]]] += 1
            busy = state.refs[0, :, i] > 0
            if (state.role[0] == 0).all():
                np.testing.assert_array_equal(state.refs[0, busy, i], uses[busy])
                assert not uses[~busy].any()

    play(random_instance(seed), seed, watch=watch)


def test_requests_that_run_together_share_what_one_of_them_computed() -> None:
    # Both compute the block, the second as it came before the first was done; then they share it, in 16 tokens of 100.
    fleet = [server_of(kv_tokens=100, token_budget=16, max_sequences=2)]
    instance = workload_of([(0.0, 16, 9), (0.5, 16, 9)], fleet, [[0], [0]])
    simulator = Simulator([instance], 1)
    simulator.send(0)
    assert not simulator.send(0, 3.5)
    state = simulator.state
    assert int(state.hit[0, 1]) == 0, "its last token must be computed, and with it the block"
    assert (int(state.refs[0, 0, 0]), int(state.cached[0, 0])) == (2, 16)


def test_a_cache_without_room_keeps_nothing() -> None:
    instance = workload_of([(0.0, 40, 1), (5.0, 40, 1)], [server_of(cache_tokens=15)], [[0, 1], [0, 1]])
    simulator = Simulator([instance], 1)
    simulator.send(0)
    simulator.send(0)
    assert simulator.solution(0).hit_tokens.tolist() == [0, 0]
