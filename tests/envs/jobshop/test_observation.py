from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.envs.jobshop.generators import uniform
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.observation import FEATURES, static_graph
from schedrl.envs.jobshop.simulator import Generation, Simulator
from schedrl.graphs import DecisionBatch, Feature

GENERATIONS: tuple[Generation, ...] = get_args(Generation)
CANDIDATE = {feature.name: column for column, feature in enumerate(FEATURES.candidate)}
CONTEXT = {feature.name: column for column, feature in enumerate(FEATURES.context)}
NODE = {feature.name: column for column, feature in enumerate(FEATURES.node)}


def assert_within(array: np.ndarray, features: tuple[Feature, ...]) -> None:
    assert np.isfinite(array).all()
    for column, feature in enumerate(features):
        values = array[..., column]
        assert feature.low <= values.min(initial=feature.low), feature.name
        assert values.max(initial=feature.high) <= feature.high, feature.name


def observed(simulator: Simulator) -> DecisionBatch:
    decision = DecisionBatch.allocate(simulator.batch, simulator.slots, FEATURES)
    simulator.observe(decision)
    return decision


def advance(simulator: Simulator, action: int) -> None:
    simulator.step(
        np.full(simulator.batch, action, dtype=np.int32),
        np.zeros(simulator.batch, dtype=np.float32),
        np.zeros(simulator.batch, dtype=np.bool_),
    )


@given(st.from_type(JobShopInstance), st.sampled_from(GENERATIONS), st.booleans(), st.integers(0, 2**32 - 1))
def test_features_stay_within_the_bounds_of_their_table(
    instance: JobShopInstance, generation: Generation, skip_forced: bool, seed: int
) -> None:
    simulator = Simulator([instance], 1, generation=generation, skip_forced=skip_forced)
    rng = np.random.default_rng(seed)
    while not simulator.finished(0):
        decision = observed(simulator)
        count = int(decision.count[0])
        assert_within(decision.candidate_features[:, :count], FEATURES.candidate)
        assert_within(decision.context, FEATURES.context)
        operations, machines = decision.candidates[0, :count].T
        np.testing.assert_array_equal(machines, instance.operations + instance.machine[operations])
        assert len(set(instance.job[operations])) == count >= 1
        advance(simulator, int(rng.integers(count)))


@given(st.from_type(JobShopInstance))
def test_node_features_stay_within_the_bounds_of_their_table(instance: JobShopInstance) -> None:
    graph = static_graph(instance)
    assert_within(graph.node_features, FEATURES.node)
    assert graph.node_features.shape == (instance.operations + instance.machines, len(FEATURES.node))
    assert graph.edge_index.shape == (2, len(graph.edge_type))
    assert graph.edge_index.min() >= 0
    assert graph.edge_index.max() < len(graph.node_features)
    assert graph.edge_features.shape == (len(graph.edge_type), len(FEATURES.edge))
    chained = 2 * (instance.operations - instance.jobs)
    assert np.bincount(graph.edge_type, minlength=4).tolist() == [
        chained // 2,
        chained // 2,
        instance.operations,
        instance.operations,
    ]


def test_static_graph_of_a_worked_example() -> None:
    # Job 0: machine 1 for 4, machine 0 for 2; job 1: machine 1 for 6. Mean duration 4, bound max(6, 6, 2, 10) = 10.
    graph = static_graph(JobShopInstance.from_jobs([[(1, 4), (0, 2)], [(1, 6)]], name="worked"))
    assert graph.edge_index.T.tolist() == [[0, 1], [1, 0], [0, 4], [1, 3], [2, 4], [4, 0], [3, 1], [4, 2]]
    assert graph.edge_type.tolist() == [0, 1, 2, 2, 2, 3, 3, 3]
    columns = {name: graph.node_features[:, column].tolist() for name, column in NODE.items()}
    assert columns["is_machine"] == [0, 0, 0, 1, 1]
    assert columns["duration"] == pytest.approx([1 / 2, 1 / 3, 3 / 5, 1 / 3, 5 / 9])
    assert columns["duration_share"] == pytest.approx([2 / 3, 1 / 3, 1, 1 / 6, 5 / 6])
    assert columns["head"] == pytest.approx([0, 0.4, 0, 0, 0])
    assert columns["tail"] == pytest.approx([0.2, 0, 0, 0, 0])
    assert columns["job_work"] == pytest.approx([0.6, 0.6, 0.6, 0, 0])
    assert columns["machine_work"] == pytest.approx([1, 0.2, 1, 0.2, 1])
    assert columns["position"] == [0, 1, 0, 0, 0]


def test_decision_of_a_worked_example() -> None:
    # Both jobs compete for machine 1 at time 0; the earliest completion is job 0's, at 4.
    instance = JobShopInstance.from_jobs([[(1, 4), (0, 2)], [(1, 6)]], name="worked")
    decision = observed(Simulator([instance], 1))
    assert decision.count.tolist() == [2]
    assert decision.candidates[0].tolist() == [[0, 4], [2, 4]]
    expected = {
        "duration": [4 / 8, 6 / 10],
        "duration_share": [4 / 6, 1],
        "duration_share_rank": [0, 1],
        "duration_rank": [0, 1],
        "remaining_rank": [0, 0],
        "remaining": [0.6, 0.6],
        "slack": [0.4, 0.4],
        "start_delay": [0, 0],
        "completion_delay": [0, 0.5 / 1.5],
        "operations_share": [1 / 2, 1 / 3],
        "next_duration": [0.5 / 1.5, 0],
        "next_machine_load": [0.2, 0],
        # After job 0, job 1 ends at 10, the bound; after job 1, job 0 ends at 6 + 6 = 12.
        "bound_increase": [0, 0.5 / 1.5],
        "delays_others": [0, 0.2],
        "last": [0, 1],
        "progress": [0, 0],
        "tail": [0.2, 0],
        "machine_remaining": [1, 1],
    }
    for name, values in expected.items():
        assert decision.candidate_features[0, :, CANDIDATE[name]].tolist() == pytest.approx(values), name
    context = {name: float(decision.context[0, column]) for name, column in CONTEXT.items()}
    assert context["progress"] == 0
    assert context["candidates"] == pytest.approx(0.2)
    assert context["time_left"] == 1
    assert context["machine_load"] == 1
    assert context["unfinished_jobs"] == 1
    assert context["window"] == pytest.approx(0.5)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_features_do_not_depend_on_the_unit_of_time(generation: Generation) -> None:
    base = uniform(np.random.default_rng(1), jobs=6, machines=4)
    scaled = JobShopInstance(
        name="scaled",
        machines=base.machines,
        job_offset=base.job_offset,
        machine=base.machine,
        duration=base.duration * 1000,
    )
    np.testing.assert_allclose(static_graph(base).node_features, static_graph(scaled).node_features, atol=1e-6)
    pair = [Simulator([instance], 1, generation=generation) for instance in (base, scaled)]
    rng = np.random.default_rng(0)
    while not pair[0].finished(0):
        first, second = map(observed, pair)
        np.testing.assert_array_equal(first.candidates, second.candidates)
        np.testing.assert_allclose(first.candidate_features, second.candidate_features, atol=1e-6)
        np.testing.assert_allclose(first.context, second.context, atol=1e-6)
        action = int(rng.integers(first.count[0]))
        for simulator in pair:
            advance(simulator, action)


def test_a_finished_row_reads_as_complete_and_unused_slots_as_zero() -> None:
    simulator = Simulator([uniform(np.random.default_rng(2), jobs=5, machines=3)], 2)
    decision = DecisionBatch.allocate(2, simulator.slots, FEATURES)
    while not simulator.finished(0):
        simulator.observe(decision)
        assert not decision.candidate_features[0, decision.count[0] :].any()
        assert not decision.candidates[0, decision.count[0] :].any()
        advance(simulator, 0)
    simulator.observe(decision)
    assert decision.count.tolist() == [0, 0]
    assert not decision.candidate_features.any()
    assert decision.context[0].tolist() == [1.0] + [0.0] * (len(FEATURES.context) - 1)


def test_names_in_the_feature_table_are_unique_and_explained() -> None:
    for features in (FEATURES.node, FEATURES.candidate, FEATURES.context):
        assert len({feature.name for feature in features}) == len(features)
        assert all(len(feature.why) > 10 and feature.unit and feature.low < feature.high for feature in features)
