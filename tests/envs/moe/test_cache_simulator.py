"""The expert-cache game against the checker, plain search, and hand-worked cases."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.envs.moe.cache_bounds import cache_bounds
from schedrl.envs.moe.cache_generators import CACHE_GENERATORS, arbitrary_cache, mixtral_decode
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.envs.moe.cache_observation import FEATURES, most_edges, static_graph
from schedrl.envs.moe.cache_simulator import CacheSimulator
from schedrl.envs.moe.cache_solution import cache_objectives, check_cache
from schedrl.envs.moe.cache_state import BRING, CLOSE, DEMAND, MAKE_ROOM
from schedrl.errors import ConfigError
from schedrl.graphs import DecisionBatch
from tests.envs.moe.small_caches import SEEDS, cache_of, caches, least_decode_time


def step(simulator: CacheSimulator, slot: int, row: int = 0) -> tuple[float, bool]:
    action = np.full(simulator.batch, -1, dtype=np.int32)
    action[row] = slot
    reward, done = np.zeros(simulator.batch, dtype=np.float32), np.zeros(simulator.batch, dtype=np.bool_)
    simulator.step(action, reward, done)
    return float(reward[row]), bool(done[row])


def play(simulator: CacheSimulator, rng: np.random.Generator) -> Iterator[float]:
    while not simulator.finished(0):
        yield step(simulator, int(rng.integers(simulator.state.candidates[0])))[0]


def decision(simulator: CacheSimulator, row: int = 0) -> tuple[int, list[int]]:
    """Return the kind of the current decision and the experts on offer."""
    state = simulator.state
    return int(state.phase[row]), state.offered[row, : state.candidates[row]].tolist()


@given(caches(), st.integers(2, 6), st.booleans(), st.booleans(), SEEDS)
def test_random_play_passes_the_checker(
    instance: ExpertCacheInstance, window: int, prefetch: bool, skip_forced: bool, seed: int
) -> None:
    simulator = CacheSimulator([instance], 1, window=window, prefetch=prefetch, skip_forced=skip_forced)
    assert simulator.state.candidates[0] >= 1, "every episode has a decision"
    earned = list(play(simulator, np.random.default_rng(seed)))
    schedule = simulator.solution(0)
    assert check_cache(instance, schedule) == []
    found = cache_objectives(instance, schedule)
    assert simulator.objective(0) == pytest.approx(found["decode_time"], rel=1e-9)
    assert int(simulator.state.hits[0]) / int(simulator.state.needs[0]) == pytest.approx(found["hit_rate"])
    unit = cache_bounds(instance)[0].value
    assert unit <= found["decode_time"] * (1 + 1e-9)
    # Rewards have single precision, of which only the last one's error is left.
    returned = (float(instance.duration_s.sum()) - found["decode_time"]) / unit
    assert sum(earned) == pytest.approx(returned, rel=1e-6, abs=1e-6)
    assert all(reward <= 1e-6 for reward in earned), "the bound never falls"


@given(caches(), st.booleans(), SEEDS)
def test_following_a_game_repeats_it(instance: ExpertCacheInstance, prefetch: bool, seed: int) -> None:
    simulator = CacheSimulator([instance], 1, window=16, prefetch=prefetch)
    for _ in play(simulator, np.random.default_rng(seed)):
        pass
    schedule = simulator.solution(0)
    simulator.load(0, instance)
    while not simulator.finished(0):
        slot = simulator.follow(0, schedule)
        assert 0 <= slot < simulator.state.candidates[0]
        step(simulator, slot)
    assert simulator.solution(0) == schedule


@given(caches(), caches(), SEEDS)
def test_any_schedule_of_the_instance_can_be_followed(
    instance: ExpertCacheInstance, other: ExpertCacheInstance, seed: int
) -> None:
    """A schedule that only loads on demand is followed by a game that may load ahead, with the same loads."""
    plain = CacheSimulator([instance], 1, window=16, prefetch=False)
    for _ in play(plain, np.random.default_rng(seed)):
        pass
    simulator = CacheSimulator([other], 1, window=16)
    simulator.load(0, instance)
    while not simulator.finished(0):
        step(simulator, simulator.follow(0, plain.solution(0)))
    assert simulator.solution(0) == plain.solution(0)


def least_by_game(simulator: CacheSimulator) -> float:
    """Return the least decode time over all action sequences, by depth-first search."""
    if simulator.finished(0):
        return simulator.objective(0)
    saved, best = simulator.snapshot(), np.inf
    for slot in range(int(simulator.state.candidates[0])):
        step(simulator, slot)
        best = min(best, least_by_game(simulator))
        simulator.restore(saved)
    return best


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_bound_optimum_and_best_game_are_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers = int(rng.integers(1, 3))
    rows = [sorted(rng.choice(2, int(rng.integers(1, 3)), replace=False).tolist()) for _ in range(5)]
    instance = cache_of(
        rows,
        capacity=int(rng.integers(2, 4)),
        layers=layers,
        experts=2,
        compute_s=rng.integers(1, 4, size=layers).astype(np.float64),
        expert_bytes=float(rng.integers(1, 4)),
        initial=rng.permutation(2 * layers)[: int(rng.integers(0, 3))],
    )
    optimum, best = least_decode_time(instance), least_by_game(CacheSimulator([instance], 1))
    assert cache_bounds(instance)[0].value <= optimum * (1 + 1e-9)
    assert optimum <= best * (1 + 1e-9)
    # Later layers than the next are out of the game's reach, so that only one layer's games reach the optimum.
    if layers == 1 and instance.load_s >= instance.compute_s[0]:
        assert best <= optimum + instance.load_s


def test_worked_example_without_loads_ahead() -> None:
    # Loads of 2 s, computations of 1 s, room for two of four experts.
    instance = cache_of([[0], [1], [2], [0], [1]], capacity=2)
    simulator = CacheSimulator([instance], 1, prefetch=False)
    # Experts 0 and 1 find free places; for 2 one of them must leave at 6 s, least recently used first.
    assert decision(simulator) == (DEMAND, [0, 1])
    assert int(simulator.state.incoming[0]) == 2 and float(simulator.state.known[0]) == 6.0
    # Expert 1 leaves and 0 is a hit; for 1 at 10 s one of the others must leave.
    reward, done = step(simulator, 1)
    assert decision(simulator) == (DEMAND, [2, 0]) and not done
    unit = cache_bounds(instance)[0].value
    assert unit == pytest.approx(9.0)  # four loads, and the last computation
    # Known by then: waits of 2 s for each of four loads.
    assert reward == pytest.approx(-8.0 / unit)
    # Of the first reward only rounding is left.
    assert step(simulator, 0) == (pytest.approx(0.0, abs=1e-6), True)
    schedule = simulator.solution(0)
    assert schedule.load_expert.tolist() == [0, 1, 2, 1]
    assert schedule.evict_expert.tolist() == [-1, -1, 1, 2]
    assert schedule.load_start_s.tolist() == [0.0, 3.0, 6.0, 10.0]
    assert schedule.compute_start_s.tolist() == [2.0, 5.0, 8.0, 9.0, 12.0]
    assert simulator.objective(0) == 13.0


def test_worked_example_with_loads_ahead() -> None:
    # Two layers of two experts each: 0, 1 and 2, 3; room for two; computations of 3 s, loads of 2 s.
    instance = cache_of(
        [[0], [1], [1]], capacity=2, layers=2, experts=2, compute_s=np.array([3.0, 3.0]), initial=np.array([0, 1])
    )
    assert instance.needed.tolist() == [[0], [3], [1]]
    simulator = CacheSimulator([instance], 1, skip_forced=False)
    # Request 0 is computed from 0 s; nothing is known of layer 1.
    assert decision(simulator) == (BRING, [-1, 2, 3])
    assert step(simulator, 2) == (0.0, False)
    # Expert 0 is in use, so that 1 is the only one that may leave.
    assert decision(simulator) == (MAKE_ROOM, [1])
    assert step(simulator, 0) == (0.0, False)
    # The channel is free from 2 s, but what just came must stay, and 0 is in use: request 1 is computed from 3 s.
    assert float(simulator.state.start[0]) == 3.0
    assert decision(simulator) == (BRING, [-1, 1]), "expert 0 is there and 1 is absent"
    step(simulator, 1)
    assert decision(simulator) == (MAKE_ROOM, [0])
    reward, done = step(simulator, 0)
    assert (reward, done) == (0.0, True), "nothing ever waits"
    assert simulator.objective(0) == 9.0 == cache_bounds(instance)[0].value
    assert simulator.solution(0).load_start_s.tolist() == [0.0, 3.0]
    assert cache_objectives(instance, simulator.solution(0))["hit_rate"] == 1.0


def test_a_wrong_load_ahead_delays_the_right_one() -> None:
    instance = cache_of([[0], [1]], capacity=3, layers=2, initial=np.array([0]))
    simulator = CacheSimulator([instance], 1)
    assert decision(simulator) == (BRING, [-1, 4, 5, 6, 7])
    saved = simulator.snapshot()
    for slot, end in ((0, 4.0), (1, 5.0), (2, 3.0)):
        simulator.restore(saved)
        step(simulator, slot)
        while not simulator.finished(0):
            step(simulator, 0)
        assert simulator.objective(0) == end
        assert check_cache(instance, simulator.solution(0)) == []


def test_queues_are_in_order_of_heat() -> None:
    # Room for three: 3 was needed twice and 1 once before both are gone, for the request that needs both again.
    instance = cache_of([[3], [3], [1], [0, 2], [1, 3]], capacity=2)
    simulator = CacheSimulator([instance], 1, prefetch=False)
    while not simulator.finished(0):
        step(simulator, 0)
    assert simulator.solution(0).load_expert.tolist() == [3, 1, 0, 2, 3, 1]


def test_an_episode_without_choices_has_one_decision() -> None:
    instance = cache_of([[0], [0]], capacity=1)
    for skip_forced in (True, False):
        simulator = CacheSimulator([instance], 1, skip_forced=skip_forced)
        assert decision(simulator) == (CLOSE, [-1])
        reward, done = step(simulator, 0)
        assert done and reward == pytest.approx(-2.0 / 4.0)
        assert simulator.objective(0) == 4.0


def test_invalid_and_negative_actions_change_nothing() -> None:
    simulator = CacheSimulator([mixtral_decode(np.random.default_rng(0))], 1, window=4)
    step(simulator, 0)
    before = decision(simulator)
    assert step(simulator, -1) == (0.0, False)
    assert (decision(simulator), int(simulator.invalid[0])) == (before, 0)
    assert step(simulator, 4) == (0.0, False)
    assert len(before[1]) <= 4
    assert (decision(simulator), int(simulator.invalid[0])) == (before, 1)
    assert simulator.invalid_limit.tolist() == [256]


def test_snapshots_continue_bit_for_bit() -> None:
    simulator = CacheSimulator([make(np.random.default_rng(1)) for make in CACHE_GENERATORS.values()], 3)

    def run(seed: int) -> list[bytes]:
        rng, seen = np.random.default_rng(seed), []
        now = DecisionBatch.allocate(3, simulator.slots, FEATURES)
        reward, done = np.zeros(3, dtype=np.float32), np.zeros(3, dtype=np.bool_)
        for _ in range(40):
            simulator.observe(now)
            seen.append(now.candidate_features.tobytes() + now.context.tobytes() + reward.tobytes())
            action = np.where(now.count > 0, rng.random(3) * now.count, -1).astype(np.int32)
            simulator.step(action, reward, done)
        return seen

    run(0)
    saved = simulator.snapshot()
    first = run(1)
    run(2)
    simulator.restore(saved)
    assert run(1) == first


def test_larger_instances_get_room() -> None:
    small, large = arbitrary_cache(np.random.default_rng(3)), mixtral_decode(np.random.default_rng(0), tokens=4)
    simulator = CacheSimulator([small], 2)
    simulator.load(1, large)
    alone = CacheSimulator([large], 1)
    assert decision(simulator, 0) == decision(CacheSimulator([small], 1))
    while not simulator.finished(1):
        assert decision(simulator, 1) == decision(alone)
        step(simulator, 1, 1)
        step(alone, 1)
    assert simulator.solution(1) == alone.solution(0)
    # A small instance after the large one leaves nothing of it behind.
    simulator.load(1, small)
    assert decision(simulator, 1) == decision(simulator, 0)


@given(caches(), st.integers(2, 5), SEEDS)
def test_features_are_within_their_bounds(instance: ExpertCacheInstance, window: int, seed: int) -> None:
    simulator = CacheSimulator([instance], 1, window=window)
    now = DecisionBatch.allocate(1, window, FEATURES)
    bounds = {
        kind: (np.array([f.low for f in table]), np.array([f.high for f in table]))
        for kind, table in (("candidate", FEATURES.candidate), ("context", FEATURES.context), ("node", FEATURES.node))
    }
    graph, nodes = static_graph(instance), instance.total + instance.layers
    assert graph.node_features.shape == (nodes, len(FEATURES.node))
    assert ((bounds["node"][0] <= graph.node_features) & (graph.node_features <= bounds["node"][1])).all()
    assert graph.edge_index.shape[1] == most_edges(instance) == len(graph.edge_type)
    assert graph.edge_index.min() >= 0 and graph.edge_index.max() < nodes
    rng = np.random.default_rng(seed)
    while not simulator.finished(0):
        simulator.observe(now)
        count = int(now.count[0])
        offered = decision(simulator)[1]
        shown = now.candidates[0, :count, 0].tolist()
        assert [node if node < instance.total else -1 for node in shown] == offered
        for kind, values in (("candidate", now.candidate_features[0]), ("context", now.context[0])):
            low, high = bounds[kind]
            outside = (values < low - 1e-6) | (values > high + 1e-6) | ~np.isfinite(values)
            assert not outside.any(), [getattr(FEATURES, kind)[k].name for k in np.argwhere(outside)[:, -1]]
        assert not now.candidate_features[0, count:].any()
        step(simulator, int(rng.integers(count)))
    simulator.observe(now)
    assert now.count[0] == 0 and not now.context.any()


@given(caches(requests=8), SEEDS)
def test_what_is_seen_does_not_depend_on_later_requests(instance: ExpertCacheInstance, seed: int) -> None:
    rng = np.random.default_rng(seed)
    known = int(rng.integers(1, instance.steps + 1))
    requests = np.array(instance.requests)
    for row in requests[known:]:
        row[row >= 0] = rng.permutation(instance.experts)[: int((row >= 0).sum())]
    pair = [CacheSimulator([one], 1) for one in (instance, dataclasses.replace(instance, requests=requests))]
    views = [DecisionBatch.allocate(1, 32, FEATURES) for _ in pair]
    while True:
        if any(simulator.finished(0) or simulator.state.step[0] >= known for simulator in pair):
            break
        for simulator, view in zip(pair, views, strict=True):
            simulator.observe(view)
        for field in ("candidates", "candidate_features", "context", "count"):
            np.testing.assert_array_equal(getattr(views[0], field), getattr(views[1], field))
        slot = int(rng.integers(views[0].count[0]))
        for simulator in pair:
            step(simulator, slot)


def test_features_of_a_worked_example() -> None:
    # One layer, experts 0 1 0 2: after 0 came 1, and after 1 came 0.
    instance = cache_of([[0], [1], [0], [2]], capacity=2, compute_s=np.array([2.0]))
    simulator = CacheSimulator([instance], 1, window=4)
    while decision(simulator)[0] != BRING or simulator.state.step[0] < 2:
        step(simulator, 0)
    # Request 2 has found 0 resident; 2 and 3 are absent and never followed 0.
    assert decision(simulator) == (BRING, [-1, 2, 3])
    now = DecisionBatch.allocate(1, 4, FEATURES)
    simulator.observe(now)
    names = [feature.name for feature in FEATURES.candidate]
    second = dict(zip(names, now.candidate_features[0, 1].tolist(), strict=True))
    recent = 0.25 * 0.875**3
    chance = recent / 2.0  # one observation of what followed 0, and the average
    wait = 1.0 + (1.0 - chance) / recent
    assert second == pytest.approx(
        {
            **dict.fromkeys(names, 0.0),
            "bring": 1.0,
            "age": 1.0,
            "visits since": 1.0,
            "recent": recent,
            "distance": 1.0,
            "chance": chance,
            "chance among candidates": 1.0,
            "wait": wait / (wait + 1.0),
            "affinity": chance - recent,
            "next": 1.0,
            "crowd": 0.5,
        },
        abs=1e-6,
    )
    assert now.candidates[0, :3, 0].tolist() == [4, 2, 3], "no load is the node of the layer"
    context = dict(zip([feature.name for feature in FEATURES.context], now.context[0].tolist(), strict=True))
    assert context == pytest.approx(
        {
            **dict.fromkeys(context, 0.0),
            "bring": 1.0,
            "progress": 0.5,
            "load": 0.5,
            "next load": 0.5,
            "window": 0.5,
            "in time": 1.0,
            "capacity": 0.5,
            "width": 0.25,
            "hits": 1 / 3,
            "stall": 0.5,
            "on the way": 0.5,
            "candidates": 0.75,
        },
        abs=1e-6,
    )


def test_bad_options_and_instances_are_named() -> None:
    instance: Any = cache_of([[0]], capacity=1)
    with pytest.raises(ConfigError, match=r"^window: 1, expected an integer of at least 2$"):
        CacheSimulator([instance], 1, window=1)

    class Placement:
        name = "p"

    other: Any = Placement()
    with pytest.raises(ConfigError, match=r"^instance p: the expert-cache game plays request traces, not placements$"):
        CacheSimulator([other], 1)
    with pytest.raises(ConfigError, match=r"^instance p: the expert-cache game plays request traces, not placements$"):
        CacheSimulator([instance], 1).load(0, other)


def test_two_hundred_decisions_of_64_rows_take_seconds_at_most() -> None:
    simulator = CacheSimulator([mixtral_decode(np.random.default_rng(k)) for k in range(8)], 64)
    now = DecisionBatch.allocate(64, simulator.slots, FEATURES)
    reward, done = np.zeros(64, dtype=np.float32), np.zeros(64, dtype=np.bool_)
    started = time.perf_counter()
    for _ in range(200):
        simulator.observe(now)
        simulator.step(np.where(now.count > 0, 0, -1).astype(np.int32), reward, done)
    # 12,800 decisions; generous, for machines that are busy.
    assert time.perf_counter() - started < 5.0
