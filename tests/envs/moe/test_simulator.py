"""The placement game: valid plans of the stated time, returns, feasibility, hand-worked cases, and its contract."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.arrays import I32
from schedrl.devices import uniform_cluster
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.observation import FEATURES
from schedrl.envs.moe.placement_replicas import replica_counts
from schedrl.envs.moe.simulator import Simulator
from schedrl.envs.moe.solution import ExpertPlan, check_plan, plan_objectives
from schedrl.envs.moe.timing import AllToAll, LayerTiming
from schedrl.errors import ConfigError
from schedrl.graphs import DecisionBatch
from tests.envs.moe.small_placements import SEEDS, handmade, instances, play, random_instance, step


def offered(simulator: Simulator, row: int = 0) -> list[int]:
    """Return the devices on offer in a row."""
    devices: list[int] = simulator.state.option[row, : simulator.state.candidates[row]].tolist()
    return devices


def in_hand(simulator: Simulator, row: int = 0) -> int:
    """Return the expert whose replica is placed next."""
    state = simulator.state
    return int(state.sequence[row, state.layer[row], state.position[row]])


@given(instances(), st.integers(1, 6), st.sampled_from([0.0, 0.674]), st.booleans(), SEEDS)
def test_random_episodes_are_valid_and_returns_order_plans_as_total_times_do(
    instance: ExpertPlacementInstance, window: int, z: float, skip_forced: bool, seed: int
) -> None:
    simulator = Simulator([instance], 1, window=window, z=z, skip_forced=skip_forced)
    assert simulator.state.candidates[0] >= 1, "every episode has a decision"
    earned = []
    for reward in play(simulator, np.random.default_rng(seed)):
        assert simulator.state.candidates[0] <= window
        earned.append(reward)
    plan = simulator.solution(0)
    assert check_plan(instance, plan) == []
    total = plan_objectives(instance, plan)["total_time"]
    assert simulator.objective(0) == pytest.approx(total, rel=1e-9)
    unit = float(simulator.state.unit[0])
    assert unit > 0.0
    # Rewards have single precision, of which only the last one's error is left; where the scored windows have little
    # of the load that was forecast, it corrects a large sum.
    precision = 1e-6 * max(1.0, sum(map(abs, earned)))
    assert sum(earned) == pytest.approx((unit - total) / unit, abs=precision)
    assert all(reward <= precision for reward in earned[:-1]), "the forecast's bound never falls"
    if instance.slots.max() <= instance.experts:
        for row, d in itertools.product(plan.experts[0], range(instance.devices)):
            own = row[instance.slot_device == d]
            assert len(np.unique(own)) == len(own), "no device need hold an expert twice"


@given(instances(), SEEDS)
def test_the_hidden_windows_decide_nothing_but_the_reward(instance: ExpertPlacementInstance, seed: int) -> None:
    if instance.planned == len(instance.counts):
        return
    counts = instance.counts.copy()
    counts[instance.planned :] = counts[instance.planned :][::-1] * 3 + 7
    pair = [instance, replace(instance, counts=counts)]
    simulator, rng = Simulator(pair, 2), np.random.default_rng(seed)
    decision = DecisionBatch.allocate(2, simulator.slots, FEATURES)
    while not simulator.finished(0):
        simulator.observe(decision)
        for array in (decision.candidates, decision.candidate_features, decision.context, decision.count):
            np.testing.assert_array_equal(array[0], array[1])
        step(simulator, int(rng.integers(decision.count[0])))
    assert simulator.solution(0) == simulator.solution(1)


def can_be_apart(counts: list[int], slots: list[int]) -> bool:
    """Whether experts with so many replicas fit with no two of one on a device, by trying everything."""
    if not counts:
        return True
    ready = [d for d, free in enumerate(slots) if free]
    return any(
        can_be_apart(counts[1:], [free - (d in chosen) for d, free in enumerate(slots)])
        for chosen in itertools.combinations(ready, counts[0])
    )


@settings(max_examples=60)
@given(st.integers(1, 4), st.lists(st.integers(1, 4), min_size=1, max_size=4), SEEDS)
def test_replica_counts_are_the_best_that_devices_can_hold_apart(experts: int, slots: list[int], seed: int) -> None:
    loads = np.random.default_rng(seed).integers(0, 9, size=experts).astype(float)
    total = sum(slots)
    if total < experts or max(slots) > experts:
        return
    every = [
        counts
        for counts in itertools.product(range(1, len(slots) + 1), repeat=experts)
        if sum(counts) == total and can_be_apart(list(counts), slots)
    ]
    found = replica_counts(loads[None], np.array(slots, dtype=np.int32))[0]
    assert tuple(found.tolist()) in every
    assert (loads / found).max() == pytest.approx(min((loads / np.array(counts)).max() for counts in every))


def test_replica_counts_by_hand() -> None:
    # With two devices nobody gets three; with three, 90 has three replicas of 30 and 60 two.
    assert replica_counts(np.array([[90.0, 60.0, 20.0]]), np.array([3, 3], dtype=np.int32)).tolist() == [[2, 2, 2]]
    assert replica_counts(np.array([[90.0, 60.0, 20.0]]), np.array([2, 2, 2], dtype=np.int32)).tolist() == [[3, 2, 1]]
    # The device of one slot can hold only one of two third replicas.
    assert replica_counts(np.array([[9.0, 9.0, 2.0, 1.0]]), np.array([4, 4, 1], dtype=np.int32)).tolist() == [
        [3, 2, 2, 2]
    ]
    # One device with more slots than experts: the rest goes where the load is.
    assert replica_counts(np.array([[9.0, 1.0]]), np.array([4], dtype=np.int32)).tolist() == [[3, 1]]


def best_return(simulator: Simulator) -> float:
    """Return the least total time over all action sequences."""
    if simulator.finished(0):
        return simulator.objective(0)
    saved, best = simulator.snapshot(), np.inf
    for slot in range(int(simulator.state.candidates[0])):
        step(simulator, slot)
        best = min(best, best_return(simulator))
        simulator.restore(saved)
    return best


@settings(max_examples=20)
@given(SEEDS)
def test_some_sequence_of_actions_leads_to_an_optimum(seed: int) -> None:
    # Three experts of one slot each on a node of two, and one more replica: 2 + 2 slots, in sample, on two nodes.
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 100, size=(1, 1, 3)) * 1000
    instance = handmade(counts, [2, 2], cluster=uniform_cluster("h100-sxm", nodes=2, per_node=1))
    replicas = replica_counts(counts[0].astype(float), instance.slots)[0]
    every = []
    for row in itertools.product(range(3), repeat=4):
        if np.bincount(row, minlength=3).tolist() == replicas.tolist() and row[0] != row[1] and row[2] != row[3]:
            every.append(plan_objectives(instance, ExpertPlan(experts=np.array([[row]])))["total_time"])
    assert best_return(Simulator([instance], 1)) == pytest.approx(min(every), rel=1e-12)


FREE = LayerTiming(
    dispatch=AllToAll(bytes_per_value=1e-9, intra_latency_s=0.0, inter_latency_s=0.0),
    combine=AllToAll(bytes_per_value=1e-9, intra_latency_s=0.0, inter_latency_s=0.0),
    expert_overhead_s=0.0,
    migration_sync_s=0.0,
)


def test_worked_example() -> None:
    # Loads 8, 6, 5, 1 (million tokens) on 2 + 2 slots: 8 + 1 against 6 + 5 is best, 11 of a mean of 10.
    million = 10**6
    instance = handmade([[[6 * million, 8 * million, million, 5 * million]]], [2, 2], timing=FREE)
    simulator = Simulator([instance], 1, skip_forced=False)
    # Of two equal empty devices one is offered.
    assert (in_hand(simulator), offered(simulator)) == (1, [0])
    # 8 of an even 10: the bound stays.
    assert step(simulator, 0) == (0.0, False)
    assert (in_hand(simulator), offered(simulator)) == (0, [1, 0])
    step(simulator, 0)
    assert (in_hand(simulator), offered(simulator)) == (3, [1, 0])
    reward, _ = step(simulator, 0)
    assert reward == pytest.approx(-0.1, rel=1e-4), "11 of an even load of 10 per device"
    assert offered(simulator) == [0]
    reward, done = step(simulator, 0)
    assert (reward, done) == (pytest.approx(0.0, abs=1e-4), True)
    assert simulator.solution(0).experts.tolist() == [[[1, 2, 0, 3]]]
    # A token takes 6 * 1000 * 1000 operations at 1978 Tflop/s in FP8, times the device's efficiency.
    unit = instance.cluster.nodes[0].device
    expected = 11e6 * 6e6 / (unit.flops_per_s["fp8"] * unit.mfu)
    assert simulator.objective(0) == pytest.approx(expected, rel=1e-4)


def test_experts_keep_their_slots_and_their_devices_are_always_offered() -> None:
    initial = np.array([[2, 0, 3, 1, 4, 5]], dtype=np.int32)
    instance = handmade([[[60, 50, 40, 30, 20, 10]]], [2, 2, 2], initial=initial)
    simulator = Simulator([instance], 1, window=1)
    while not simulator.finished(0):
        expert = in_hand(simulator)
        home = int(instance.slot_device[initial[0].tolist().index(expert)])
        assert offered(simulator) == [home]
        step(simulator, 0)
    assert simulator.solution(0).experts[0].tolist() == initial.tolist()
    assert plan_objectives(instance, simulator.solution(0))["moved_bytes"] == 0.0


def test_forced_placements_are_skipped_up_to_the_last() -> None:
    one = handmade([[[5, 4, 3]]], [3])
    simulator = Simulator([one], 1)
    assert sum(1 for _ in play(simulator, np.random.default_rng(0))) == 1
    slow = Simulator([one], 1, skip_forced=False)
    assert sum(1 for _ in play(slow, np.random.default_rng(0))) == 3
    assert simulator.solution(0) == slow.solution(0)


def test_invalid_and_negative_actions_change_nothing() -> None:
    simulator = Simulator([handmade([[[9, 8, 7, 6], [1, 2, 3, 4]]], [2, 2])], 1, window=4)
    before = (in_hand(simulator), offered(simulator))
    assert step(simulator, -1) == (0.0, False)
    assert ((in_hand(simulator), offered(simulator)), int(simulator.invalid[0])) == (before, 0)
    assert step(simulator, 4) == (0.0, False)
    assert ((in_hand(simulator), offered(simulator)), int(simulator.invalid[0])) == (before, 1)
    assert simulator.invalid_limit.tolist() == [8]


def contents(instance: ExpertPlacementInstance, row: I32) -> list[list[int]]:
    """Return the sorted experts of every device, devices in order of these: what is left without names."""
    return sorted(sorted(row[instance.slot_device == d].tolist()) for d in range(instance.devices))


@given(SEEDS)
def test_following_a_plan_of_the_game_repeats_it(seed: int) -> None:
    instance = random_instance(seed)
    simulator = Simulator([instance], 1, window=6)
    for _ in play(simulator, np.random.default_rng(seed)):
        pass
    target = simulator.solution(0)
    simulator.load(0, instance)
    while not simulator.finished(0):
        step(simulator, simulator.follow(0, target))
    again = simulator.solution(0)
    assert check_plan(instance, again) == []
    if instance.slots.max() <= instance.experts:
        assert [contents(instance, row) for row in again.experts[0]] == [
            contents(instance, row) for row in target.experts[0]
        ]


def test_following_a_plan_with_other_names_gives_the_same_time() -> None:
    instance = handmade(
        [[[60, 50, 40, 30, 20, 10, 5, 4]]], [2] * 4, cluster=uniform_cluster("h100-sxm", nodes=2, per_node=2)
    )
    target = ExpertPlan(experts=np.array([[[1, 6, 7, 0, 2, 4, 5, 3]]]))
    simulator = Simulator([instance], 1)
    while not simulator.finished(0):
        step(simulator, simulator.follow(0, target))
    assert simulator.objective(0) == pytest.approx(plan_objectives(instance, target)["total_time"], rel=1e-12)


def test_snapshots_continue_bit_for_bit() -> None:
    simulator = Simulator([random_instance(seed) for seed in (3, 4, 5)], 3)

    def run(seed: int) -> list[bytes]:
        rng, seen = np.random.default_rng(seed), []
        decision = DecisionBatch.allocate(3, simulator.slots, FEATURES)
        reward, done = np.zeros(3, dtype=np.float32), np.zeros(3, dtype=np.bool_)
        for _ in range(12):
            simulator.observe(decision)
            seen.append(decision.candidate_features.tobytes() + decision.context.tobytes() + reward.tobytes())
            action = np.where(decision.count > 0, rng.random(3) * decision.count, -1).astype(np.int32)
            simulator.step(action, reward, done)
        return seen

    saved = simulator.snapshot()
    first = run(1)
    run(2)
    simulator.restore(saved)
    assert run(1) == first


@given(SEEDS, SEEDS)
def test_larger_instances_get_room_and_rows_do_not_mix(first: int, second: int) -> None:
    one, two = random_instance(first), random_instance(second)
    simulator = Simulator([one], 2)
    simulator.load(1, two)
    alone = Simulator([two], 1)
    reward, done = np.zeros(2, dtype=np.float32), np.zeros(2, dtype=np.bool_)
    rng = np.random.default_rng(first)
    while not simulator.finished(1):
        assert offered(simulator, 1) == offered(alone)
        action = int(rng.integers(alone.state.candidates[0]))
        simulator.step(np.array([-1, action], dtype=np.int32), reward, done)
        assert step(alone, action) == (float(reward[1]), bool(done[1]))
    assert simulator.solution(1) == alone.solution(0)
    assert simulator.objective(1) == alone.objective(0)
    assert not simulator.finished(0)


def test_bad_options_and_instances_are_named() -> None:
    instance = handmade([[[1, 1]]], [1, 1])
    with pytest.raises(ConfigError, match=r"^window: 0, expected an integer of at least 1$"):
        Simulator([instance], 1, window=0)
    with pytest.raises(ConfigError, match=r"^z: -1\.0, expected 0 to 10$"):
        Simulator([instance], 1, z=-1.0)

    class Other:
        name = "net"

    with pytest.raises(ConfigError, match=r"^instance net: the placement game plays expert placement instances$"):
        Simulator([instance], 1).load(0, Other())  # type: ignore[arg-type]
