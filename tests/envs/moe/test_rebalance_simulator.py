"""The rebalancing game against the checker, hand-worked cases, and the rule that it never sees the future."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.devices import Cluster, ClusterNode, Device, Link
from schedrl.envs.moe.generators import GENERATORS
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.model import MoEModel
from schedrl.envs.moe.rebalance_observation import FEATURES, most_edges, static_graph
from schedrl.envs.moe.rebalance_simulator import RebalanceSimulator
from schedrl.envs.moe.rebalance_state import KINDS
from schedrl.envs.moe.solution import ExpertPlan, check_plan, plan_objectives
from schedrl.envs.moe.timing import AllToAll, LayerTiming
from schedrl.errors import ConfigError
from schedrl.graphs import DecisionBatch

SEEDS = st.integers(0, 2**32 - 1)
EXAMPLES = int(os.environ.get("SCHEDRL_EXAMPLES", "40"))


def two_devices(counts: Any, **fields: Any) -> ExpertPlacementInstance:
    """Return four experts on two devices in one node; a token takes 1 s, and an expert moves in 100 s."""
    device = Device(name="plain", flops_per_s={"bf16": 6.0}, memory_bandwidth_bytes_per_s=1e12)
    link = Link(latency_s=0.0, bandwidth_bytes_per_s=0.06)
    silent = AllToAll(bytes_per_value=1e-12, intra_latency_s=0.0, inter_latency_s=0.0)
    return ExpertPlacementInstance(
        name="two devices",
        model=MoEModel(name="m", layers=1, experts=4, top_k=1, hidden=1, intermediate=1, bytes_per_weight=2.0),
        cluster=Cluster(nodes=(ClusterNode(device=device, count=2, intra=link, inter=link),)),
        slots=np.array([2, 2]),
        counts=np.array(counts)[:, None, :],
        timing=LayerTiming(dispatch=silent, combine=silent, expert_overhead_s=0.0, migration_sync_s=0.0),
        initial=np.array([[0, 1, 2, 3]]),
        **fields,
    )


def small(rng: np.random.Generator) -> ExpertPlacementInstance:
    """Return a random instance with up to five windows, some of them in sample."""
    instance: Any = GENERATORS["arbitrary"](rng)
    windows = int(rng.integers(1, 6))
    shape = (windows, *instance.counts.shape[1:])
    counts = np.where(rng.random(shape) < 0.2, 0, rng.integers(0, 5000, shape))
    changed: ExpertPlacementInstance = dataclasses.replace(
        instance, counts=counts, planned=int(rng.integers(1, windows + 1))
    )
    return changed


def play(
    simulator: RebalanceSimulator, rng: np.random.Generator, record: list[DecisionBatch] | None = None
) -> np.ndarray[Any, Any]:
    """Play random options in all rows to the end and return the returns."""
    batch = simulator.batch
    reward, done = np.zeros(batch, dtype=np.float32), np.zeros(batch, dtype=np.bool_)
    returns = np.zeros(batch)
    while not all(simulator.finished(row) for row in range(batch)):
        out = DecisionBatch.allocate(batch, simulator.slots, FEATURES)
        simulator.observe(out)
        if record is not None:
            record.append(out)
        action = np.where(out.count > 0, (rng.random(batch) * out.count).astype(np.int32), -1).astype(np.int32)
        simulator.step(action, reward, done)
        returns += reward
    return returns


@given(seed=SEEDS, skip_forced=st.booleans())
@settings(max_examples=EXAMPLES, deadline=None)
def test_random_play_ends_in_valid_plans_with_the_objective_that_the_checker_finds(
    seed: int, skip_forced: bool
) -> None:
    rng = np.random.default_rng(seed)
    instance = small(rng)
    simulator = RebalanceSimulator([instance], 2, skip_forced=skip_forced)
    returns = play(simulator, rng)
    for row in range(2):
        plan = simulator.solution(row)
        assert check_plan(instance, plan) == []
        total = plan_objectives(instance, plan)["total_time"]
        assert simulator.objective(row) == pytest.approx(total, rel=1e-9)
        expected = 1.0 - total / simulator.state.unit[row]
        assert returns[row] == pytest.approx(expected, abs=1e-5 * max(1.0, abs(expected)))


@given(seed=SEEDS)
@settings(max_examples=EXAMPLES, deadline=None)
def test_features_are_bounded_and_do_not_look_ahead(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = small(rng)
    if instance.plans < 2:
        return
    later = instance.counts.copy()
    later[instance.planned :] = rng.permuted(later[instance.planned :], axis=2) * 2
    other = dataclasses.replace(instance, counts=later)
    first: list[DecisionBatch] = []
    second: list[DecisionBatch] = []
    play(RebalanceSimulator([instance], 1, skip_forced=False), np.random.default_rng(0), first)
    play(RebalanceSimulator([other], 1, skip_forced=False), np.random.default_rng(0), second)
    for k in range(instance.layers):
        assert np.array_equal(first[k].candidate_features, second[k].candidate_features)
        assert np.array_equal(first[k].context, second[k].context)
    for out in first:
        for values, features in ((out.candidate_features, FEATURES.candidate), (out.context, FEATURES.context)):
            assert np.isfinite(values).all()
            assert (values >= [feature.low for feature in features]).all()
            assert (values <= [feature.high for feature in features]).all()


def test_a_swap_that_balances_two_devices_is_offered_with_what_it_costs_and_saves() -> None:
    # 30 + 10 against 10 + 10 is as good as it gets: nothing that is offered is better than keeping it.
    stuck = RebalanceSimulator([two_devices([[30, 10, 10, 10], [30, 10, 10, 10]], planned=1)], 1, skip_forced=False)
    offered = stuck.state.predicted_s[0, : stuck.state.candidates[0], 0]
    assert offered.tolist() == pytest.approx([40.0] * len(offered))
    # 30 + 20 against 5 + 10.
    instance = two_devices([[30, 20, 5, 10], [30, 20, 5, 10]], planned=1, iterations=1)
    simulator = RebalanceSimulator([instance], 1)
    state = simulator.state
    change = int(np.flatnonzero(state.kind[0] == KINDS.index("1 change"))[0])
    # 20 for 5 or 30 for 10 leave 35 and 30 tokens, which is best.
    assert sorted(state.option[0, change, :2].tolist()) in ([0, 2], [1, 3])
    # Each device fetches one expert of 6 bytes at 0.06 bytes per second.
    assert state.move_s[0, change] == pytest.approx(100.0)
    assert state.moved[0, change] == 2
    assert state.predicted_s[0, 0, 0] == pytest.approx(50.0)
    assert state.predicted_s[0, change, 0] == pytest.approx(35.0)
    reward, done = np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.bool_)
    simulator.step(np.array([change], dtype=np.int32), reward, done)
    assert done[0]
    assert simulator.objective(0) == pytest.approx(135.0)
    # Perfect balance would take (30 + 20 + 5 + 10) / 2 seconds.
    assert simulator.state.unit[0] == pytest.approx(32.5)
    assert reward[0] == pytest.approx(1.0 - 135.0 / 32.5)


def test_the_recent_forecast_is_of_windows_like_the_latest() -> None:
    here, there = [70, 10, 10, 10], [10, 10, 10, 70]
    instance = two_devices([here, there, here, there, there], planned=4)
    simulator = RebalanceSimulator([instance], 1, skip_forced=False)
    latest, recent, mean, safe = simulator.state.forecast[0]
    assert latest.tolist() == there
    assert recent == pytest.approx(there)
    assert mean == pytest.approx([40, 10, 10, 40])
    assert safe == pytest.approx(there)
    # Variation to the window before is 0.6, to the one before that 0; two of four windows are alike, three switches.
    assert simulator.state.distance[0] == pytest.approx([0.6, 0.0, 0.5, 0.75])


def test_following_a_plan_that_is_an_option_reproduces_it() -> None:
    rng = np.random.default_rng(3)
    instance: Any = GENERATORS["qwen15-moe"](rng, layers=2, windows=4, switch_every=2)
    simulator = RebalanceSimulator([instance], 1)
    play(simulator, rng)
    target = simulator.solution(0)
    simulator.load(0, instance)
    reward, done = np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.bool_)
    while not simulator.finished(0):
        simulator.step(np.array([simulator.follow(0, target)], dtype=np.int32), reward, done)
    assert simulator.solution(0) == target
    assert isinstance(target, ExpertPlan)


def test_snapshots_continue_bit_for_bit_and_rows_grow() -> None:
    rng = np.random.default_rng(0)
    first: Any = GENERATORS["mixtral"](rng, layers=1, windows=4)
    second: Any = GENERATORS["qwen15-moe"](rng, layers=2, windows=5)
    simulator = RebalanceSimulator([first], 2)
    simulator.load(1, second)
    saved = simulator.snapshot()
    play(simulator, np.random.default_rng(1))
    expected = [simulator.solution(row) for row in range(2)]
    other = RebalanceSimulator([first], 2)
    other.restore(saved)
    play(other, np.random.default_rng(1))
    assert [other.solution(row) for row in range(2)] == expected
    assert [other.objective(row) for row in range(2)] == [simulator.objective(row) for row in range(2)]
    assert check_plan(first, expected[0]) == check_plan(second, expected[1]) == []


def test_tokens_that_stay_on_their_path_are_refused() -> None:
    instance: Any = GENERATORS["mixtral"](np.random.default_rng(0), residence="path")
    with pytest.raises(ConfigError, match="residence"):
        RebalanceSimulator([instance], 1)


def test_the_static_graph_names_layers_experts_and_devices() -> None:
    instance: Any = GENERATORS["qwen15-moe"](np.random.default_rng(0), layers=2)
    graph = static_graph(instance)
    assert len(graph.node_features) == 2 + 2 * 60 + 6
    assert graph.node_features.min() >= 0
    assert graph.node_features.max() <= 1
    assert graph.edge_index.shape[1] == most_edges(instance)
    assert graph.edge_index.max() < len(graph.node_features)
