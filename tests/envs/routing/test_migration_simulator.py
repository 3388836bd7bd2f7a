"""The migration game: plans that hold, features in range, moves by hand, and teachers that can be followed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.migration_offers import MOST_MOVES_OF_ONE, SLOTS
from schedrl.envs.routing.migration_simulator import MigrationSimulator
from schedrl.envs.routing.replay import check
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.solution import objectives
from schedrl.errors import ConfigError, UnknownNameError
from schedrl.graphs import DecisionBatch
from tests.envs.routing.small_fleets import SEEDS, random_instance, server_of, workload_of

# Two servers that compute 64 tokens in each iteration of a second; the round robin puts both long prompts on the first.
UNEVEN = workload_of(
    [(0.0, 640, 2), (0.0, 10, 2), (0.0, 64, 2), (0.0, 10, 2)], [server_of("a"), server_of("b")], link_latency_s=0.25
)


def play(
    simulator: MigrationSimulator, rng: np.random.Generator | None, teacher: object = None
) -> tuple[float, list[int]]:
    """Play row 0 to its end at random, or as a plan says, or without moves; return the sum of rewards, and actions."""
    reward, done, total, actions = np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.bool_), 0.0, []
    while not simulator.finished(0):
        assert 1 <= simulator.offers.candidates[0] <= SLOTS
        action = 0 if rng is None else int(rng.integers(simulator.offers.candidates[0]))
        if teacher is not None:
            action = simulator.follow(0, teacher)  # type: ignore[arg-type]
        actions.append(action)
        simulator.step(np.array([action], dtype=np.int32), reward, done)
        total += float(reward[0])
        assert len(actions) < 100_000, "the game goes on for ever"
    assert done[0] == bool(actions)
    return total, actions


@given(SEEDS, st.booleans())
@settings(max_examples=60, deadline=None)
def test_random_moves_make_valid_plans_and_rewards_add_up(seed: int, exact: bool) -> None:
    instance, rng = random_instance(seed), np.random.default_rng(seed)
    simulator = MigrationSimulator([instance], 1, rule="round-robin", period_s=0.05, exact=exact)
    total, actions = play(simulator, rng)
    plan = simulator.solution(0)
    assert check(instance, plan) == []
    values = objectives(instance, plan)
    assert simulator.objective(0) == pytest.approx(values["penalty"], rel=1e-9)
    if actions:
        assert -total == pytest.approx(values["penalty"], rel=1e-5, abs=1e-6)
    assert np.bincount(plan.move_request, minlength=instance.requests).max() <= MOST_MOVES_OF_ONE
    assert simulator.invalid[0] == 0


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_without_moves_it_is_the_rule(seed: int) -> None:
    instance = random_instance(seed)
    game, plain = MigrationSimulator([instance], 1, rule="least-outstanding"), Simulator([instance], 1)
    play(game, None)
    plain.play_rule("least-outstanding")
    assert game.solution(0) == plain.solution(0)


def test_a_waiting_request_moves_by_hand() -> None:
    simulator = MigrationSimulator([UNEVEN], 1, rule="round-robin", period_s=1.0)
    offers, count = simulator.offers, int(simulator.offers.candidates[0])
    listed = np.stack([offers.request[0, :count], offers.source[0, :count], offers.target[0, :count]], axis=1)
    assert listed.tolist() == [[-1, -1, -1], [2, 0, 1], [3, 1, 0]]
    # At the first server 704 tokens are pending, 63 an iteration beside the one that runs; at the other 20 and its 64.
    assert (offers.stay_s[0, 1], offers.move_s[0, 1]) == pytest.approx((12.0, 2.25))
    reward, done = np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.bool_)
    simulator.step(np.array([1], dtype=np.int32), reward, done)
    play(simulator, None)
    plan = simulator.solution(0)
    assert check(UNEVEN, plan) == []
    assert plan.instance.tolist() == [0, 1, 0, 1]
    assert plan.decode_instance.tolist() == [-1, -1, 1, -1]
    assert (plan.move_request.tolist(), plan.move_target.tolist(), plan.move_s.tolist()) == ([2], [1], [0.0])
    # It lands in the other server's first iteration and has its first token with the second or third, not the twelfth.
    assert plan.first_token_s[2] <= 3.0
    stayed = MigrationSimulator([UNEVEN], 1, rule="round-robin", period_s=1.0)
    play(stayed, None)
    assert stayed.solution(0).first_token_s[2] == pytest.approx(12.0)


def test_a_plan_can_be_followed() -> None:
    for seed in range(8):
        instance = random_instance(seed, requests=24)
        first = MigrationSimulator([instance], 1, rule="round-robin", period_s=0.1)
        play(first, np.random.default_rng(seed))
        plan = first.solution(0)
        second = MigrationSimulator([instance], 1, rule="round-robin", period_s=0.1)
        play(second, None, teacher=plan)
        assert second.solution(0) == plan


def test_features_are_in_range_and_their_nodes_exist() -> None:
    table = MigrationSimulator.features
    for seed in range(6):
        instance = random_instance(seed, requests=24)
        simulator = MigrationSimulator([instance], 1, rule="round-robin", period_s=0.05)
        batch = DecisionBatch.allocate(1, SLOTS, table)
        rng = np.random.default_rng(seed)
        reward, done = np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.bool_)
        while not simulator.finished(0):
            simulator.observe(batch)
            count = int(batch.count[0])
            assert batch.candidate_features.min() >= 0.0
            assert batch.candidate_features.max() <= 1.0
            assert batch.context.min() >= 0.0
            assert batch.context.max() <= 1.0
            assert (batch.candidate_features[0, count:] == 0.0).all()
            assert batch.candidates[0, 0].tolist() == [len(instance.fleet)] * 2
            assert (batch.candidates[0, 1:count, 0] != batch.candidates[0, 1:count, 1]).all()
            assert (batch.candidates[0, 1:count] < len(instance.fleet)).all()
            simulator.step(np.array([rng.integers(count)], dtype=np.int32), reward, done)


def test_rows_of_different_sizes_do_not_disturb_one_another() -> None:
    instances = [random_instance(seed, requests=4 + 6 * seed) for seed in range(4)]
    together = MigrationSimulator(instances[:1], 4, rule="round-robin", period_s=0.1)
    for row, instance in enumerate(instances):
        together.load(row, instance)
    reward, done = np.zeros(4, dtype=np.float32), np.zeros(4, dtype=np.bool_)
    while not all(together.finished(row) for row in range(4)):
        last = np.where([together.finished(row) for row in range(4)], -1, together.offers.candidates - 1)
        together.step(last.astype(np.int32), reward, done)
    for row, instance in enumerate(instances):
        alone = MigrationSimulator([instance], 1, rule="round-robin", period_s=0.1)
        one, ended = np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.bool_)
        while not alone.finished(0):
            alone.step((alone.offers.candidates - 1).astype(np.int32), one, ended)
        assert alone.solution(0) == together.solution(row)


def test_a_snapshot_continues_bit_for_bit() -> None:
    instance = random_instance(3, requests=24)
    first = MigrationSimulator([instance], 1, rule="round-robin", period_s=0.1)
    reward, done = np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.bool_)
    first.step(first.offers.candidates - 1, reward, done)
    saved = first.snapshot()
    second = MigrationSimulator([random_instance(4)], 1, rule="round-robin", period_s=0.1)
    second.restore(saved)
    ends = [play(simulator, np.random.default_rng(0)) for simulator in (first, second)]
    assert ends[0] == ends[1]
    assert first.solution(0) == second.solution(0)


def test_invalid_slots_are_counted_and_change_nothing() -> None:
    simulator = MigrationSimulator([UNEVEN], 1, rule="round-robin")
    before = simulator.snapshot()
    reward, done = np.ones(1, dtype=np.float32), np.ones(1, dtype=np.bool_)
    for slot in (SLOTS - 1, -1, -2):
        simulator.step(np.array([slot], dtype=np.int32), reward, done)
        assert (reward[0], done[0]) == (0.0, False)
    after = simulator.snapshot()
    assert simulator.invalid[0] == 1
    assert all(np.array_equal(before[name], after[name], equal_nan=True) for name in before if name != "invalid")
    assert isinstance(UNEVEN, RoutingInstance)


def test_long_pauses_are_left_out() -> None:
    instance = workload_of([(0.0, 10, 2), (1e9, 10, 2)], [server_of("a"), server_of("b")])
    simulator = MigrationSimulator([instance], 1, period_s=0.01)
    _, actions = play(simulator, None)
    assert len(actions) <= 1000
    assert check(instance, simulator.solution(0)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"period_s": 0.0}, r"period_s: 0\.0, expected a time of at least 0\.001"),
        ({"period_s": float("inf")}, "period_s: inf"),
        ({"most_moves": 0}, "most_moves: 0, expected an integer of 1 to 1024"),
    ],
)
def test_bad_options_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MigrationSimulator([UNEVEN], 1, **options)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="rule"):
        MigrationSimulator([UNEVEN], 1, rule="nearest")
