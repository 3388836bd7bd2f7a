from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import slow_latency_s
from schedrl.envs.memmap.order_simulator import OrderSimulator
from schedrl.envs.memmap.placement_order import clusters_of
from schedrl.envs.memmap.plan_check import check_plan, plan_objectives
from schedrl.envs.memmap.segment_allocator import place_all
from schedrl.envs.memmap.segment_state import Constants, allocate, plan_of, room_of, write_program
from schedrl.errors import ConfigError
from schedrl.graphs import DecisionBatch

sys.path.insert(0, str(Path(__file__).parent))
from small_programs import NEEDS_DATA, V4I_16, random_program, traced


class Player:
    """Plays a simulator to the end and sums its rewards."""

    def __init__(self, simulator: OrderSimulator) -> None:
        self.simulator = simulator
        self.decision = DecisionBatch.allocate(simulator.batch, simulator.slots, simulator.features)
        self.reward = np.zeros(simulator.batch, dtype=np.float32)
        self.done = np.array([simulator.finished(row) for row in range(simulator.batch)])
        self.total = np.zeros(simulator.batch)

    def step(self, choice: np.ndarray) -> None:
        action = np.where(self.done, -1, choice).astype(np.int32)
        self.simulator.step(action, self.reward, self.done)
        self.total += self.reward

    def play(self, rng: np.random.Generator | None = None) -> None:
        """Play random slots, or always the first."""
        while not self.done.all():
            self.simulator.observe(self.decision)
            count = self.decision.count
            np.testing.assert_array_equal(count > 0, ~self.done)
            self.step((rng.random(len(count)) * count).astype(np.int32) if rng else np.zeros_like(count))


def programs(seed: int, count: int = 3) -> list[MemoryMapInstance]:
    rng = np.random.default_rng(seed)
    return [random_program(rng) for _ in range(count)]


@given(seed=st.integers(0, 2**32 - 1))
def test_random_play_gives_valid_plans_and_returns_are_the_latency_saved(seed: int) -> None:
    rng, instances = np.random.default_rng(seed), programs(seed)
    negligible = float(rng.choice([0.0, 0.05, 0.9]))
    player = Player(OrderSimulator(instances, 6, window=int(rng.integers(1, 8)), negligible=negligible))
    player.play(rng)
    for row in range(6):
        instance, plan = instances[row % 3], player.simulator.solution(row)
        assert check_plan(instance, plan) == []
        latency = plan_objectives(instance, plan)["latency"]
        assert player.simulator.objective(row) == latency
        slow = slow_latency_s(instance)
        # The last reward is rounded to single precision.
        assert player.total[row] == pytest.approx((slow - latency) / slow, abs=1e-7)


@given(seed=st.integers(0, 2**32 - 1))
def test_observations_are_bounded_and_name_nodes_of_the_graph(seed: int) -> None:
    instances = programs(seed)
    player = Player(OrderSimulator(instances, 3, window=4))
    rng = np.random.default_rng(seed)
    while not player.done.all():
        player.simulator.observe(player.decision)
        decision = player.decision
        for values in (decision.candidate_features, decision.context):
            assert np.isfinite(values).all()
            assert values.min() >= 0.0 and values.max() <= 1.0
        for row in np.flatnonzero(~player.done):
            count, instance = decision.count[row], instances[row]
            assert not decision.candidate_features[row, count:].any()
            op, buffer = decision.candidates[row, :count].T
            assert (op < instance.ops).all() and (buffer >= instance.ops).all()
            assert (buffer < instance.ops + instance.buffers).all()
        player.step((rng.random(3) * decision.count).astype(np.int32))


@given(seed=st.integers(0, 2**32 - 1))
def test_the_first_slot_plays_the_order_of_xla(seed: int) -> None:
    instance = programs(seed, 1)[0]
    player = Player(OrderSimulator([instance], 1))
    player.play()
    state = allocate(1, room_of([instance]))
    write_program(state, 0, instance, Constants())
    place_all(state, 0, np.arange(clusters_of(instance).count))
    assert player.simulator.solution(0) == plan_of(state, 0)


@NEEDS_DATA
def test_gpt2_in_the_order_of_xla() -> None:
    player = Player(OrderSimulator([traced("gpt2_infer_b4_t512", V4I_16)], 1))
    player.play()
    assert 1e3 * player.simulator.objective(0) == pytest.approx(7.243, abs=0.0005)
    assert player.total[0] == pytest.approx(1.0 - 7.242904 / 8.603262, abs=1e-6)


def test_following_an_order_places_it_when_the_window_shows_all() -> None:
    instance = random_program(np.random.default_rng(11), ops=12)
    count = clusters_of(instance).count
    order = np.random.default_rng(2).permutation(count)
    rank = np.argsort(order)
    simulator = OrderSimulator([instance], 1, window=count)
    player = Player(simulator)
    while not player.done.all():
        player.step(np.array([simulator.follow_order(0, rank)]))
    state = allocate(1, room_of([instance]))
    write_program(state, 0, instance, Constants())
    place_all(state, 0, order)
    assert simulator.solution(0) == plan_of(state, 0)


def test_following_a_plan_prefers_what_it_serves_fast() -> None:
    instance = random_program(np.random.default_rng(11), ops=12)
    simulator = OrderSimulator([instance], 1, window=4)
    player = Player(simulator)
    player.play()
    plan = simulator.solution(0)
    simulator.load(0, instance)
    offered = clusters_of(instance)
    shares = [
        float((plan.access_layer[offered.access[offered.first[c] : offered.first[c + 1]]] > 0).mean()) for c in range(4)
    ]
    assert shares[simulator.follow(0, plan)] == max(shares)


def test_invalid_and_negative_actions_change_nothing() -> None:
    instance = programs(4, 1)[0]
    simulator = OrderSimulator([instance], 2, window=2)
    player = Player(simulator)
    player.step(np.array([7, -1]))
    assert simulator.invalid.tolist() == [1, 0]
    assert player.reward.tolist() == [0.0, 0.0] and not player.done.any()
    assert simulator.invalid_limit.tolist() == [clusters_of(instance).count] * 2
    player.play()
    assert simulator.solution(0) == simulator.solution(1)


def test_a_snapshot_continues_bit_for_bit() -> None:
    instances = programs(9)
    simulator = OrderSimulator(instances, 3, window=3)
    player = Player(simulator)
    player.step(np.array([1, 0, 1]))
    kept, done, before = simulator.snapshot(), player.done.copy(), player.total.copy()
    player.play(np.random.default_rng(0))
    expected, total = [simulator.solution(row) for row in range(3)], player.total.copy()
    other = OrderSimulator(instances, 3, window=3)
    other.restore(kept)
    again = Player(other)
    again.done = done
    again.play(np.random.default_rng(0))
    assert [other.solution(row) for row in range(3)] == expected
    np.testing.assert_allclose(before + again.total, total, rtol=0, atol=1e-12)


def test_larger_programs_make_room_without_disturbing_other_rows() -> None:
    small, large = random_program(np.random.default_rng(0), ops=2), random_program(np.random.default_rng(1), ops=30)
    simulator = OrderSimulator([small], 2)
    simulator.load(1, large)
    player = Player(simulator)
    player.play()
    alone = Player(OrderSimulator([small], 1))
    alone.play()
    assert simulator.solution(0) == alone.simulator.solution(0)
    assert check_plan(large, simulator.solution(1)) == []


def test_negligible_buffers_are_placed_without_asking() -> None:
    instance = random_program(np.random.default_rng(6), ops=20)
    asked = []
    for negligible in (0.0, 0.02, 0.99):
        player = Player(OrderSimulator([instance], 1, negligible=negligible))
        steps = 0
        while not player.done.all():
            player.step(np.array([0]))
            steps += 1
        asked.append(steps)
    assert asked[0] == clusters_of(instance).count > asked[1] > asked[2] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window: 0, expected an integer of at least 1"),
        ({"negligible": 1.0}, "negligible: 1.0, expected 0 up to below 1"),
    ],
)
def test_bad_options_are_one_line_errors(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OrderSimulator(programs(0, 1), 1, **options)  # type: ignore[arg-type]
