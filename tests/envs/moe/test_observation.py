"""Observations of the placement game: bounds, worked figures, the static graph and its size and speed."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.devices import uniform_cluster
from schedrl.envs.moe.generators import GENERATORS
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.observation import EDGE_TYPES, FEATURES, most_edges, static_graph
from schedrl.envs.moe.simulator import Simulator
from schedrl.graphs import DecisionBatch
from tests.envs.moe.small_placements import SEEDS, handmade, instances, step


@given(instances(), st.integers(1, 5), SEEDS)
def test_features_are_within_their_bounds(instance: ExpertPlacementInstance, window: int, seed: int) -> None:
    simulator = Simulator([instance], 1, window=window)
    decision = DecisionBatch.allocate(1, window, FEATURES)
    tables = {"candidate": FEATURES.candidate, "context": FEATURES.context, "node": FEATURES.node}
    bounds = {
        kind: (np.array([f.low for f in table]), np.array([f.high for f in table])) for kind, table in tables.items()
    }
    graph = static_graph(instance)
    assert ((bounds["node"][0] <= graph.node_features) & (graph.node_features <= bounds["node"][1])).all()
    first_device, rng = instance.layers * (1 + instance.experts), np.random.default_rng(seed)
    while not simulator.finished(0):
        simulator.observe(decision)
        count = int(decision.count[0])
        for kind, values in (("candidate", decision.candidate_features[0]), ("context", decision.context[0])):
            low, high = bounds[kind]
            outside = (values < low - 1e-6) | (values > high + 1e-6) | ~np.isfinite(values)
            assert not outside.any(), [tables[kind][k].name for k in np.argwhere(outside)[:, -1]]
        assert not decision.candidate_features[0, count:].any()
        assert (graph.node_features[decision.candidates[0, :count, 0], 1] == 1.0).all(), "experts"
        assert (graph.node_features[decision.candidates[0, :count, 1], 2] == 1.0).all(), "devices"
        chosen = int(rng.integers(count))
        assert decision.candidates[0, chosen, 1] - first_device == simulator.state.option[0, chosen]
        step(simulator, chosen)
    simulator.observe(decision)
    assert decision.count[0] == 0 and not decision.context.any()


@given(instances())
def test_graphs_have_the_stated_nodes_and_edges(instance: ExpertPlacementInstance) -> None:
    graph, layers, experts = static_graph(instance), instance.layers, instance.experts
    nodes = len(instance.cluster.nodes)
    assert graph.node_features.shape == (layers * (1 + experts) + instance.devices + nodes, len(FEATURES.node))
    assert graph.edge_index.shape[1] == len(graph.edge_type) == len(graph.edge_features) <= most_edges(instance)
    if instance.initial is not None and instance.transitions is not None:
        assert len(graph.edge_type) == most_edges(instance)
    assert graph.edge_index.min() >= 0 and graph.edge_index.max() < len(graph.node_features)
    # Types come in pairs, one each way.
    for first in range(0, len(EDGE_TYPES), 2):
        one, back = (graph.edge_index[:, graph.edge_type == kind] for kind in (first, first + 1))
        np.testing.assert_array_equal(one, back[::-1])


def test_a_graph_by_hand() -> None:
    initial = np.array([[2, 0, 1], [0, 1, 2]], dtype=np.int32)
    transitions = np.array([[[0.0, 0.4, 0.6], [0.2, 0.7, 0.1], [0.5, 0.0, 0.5]]])
    counts = [[[6, 3, 0], [2, 2, 2]], [[2, 1, 0], [2, 2, 2]]]
    instance = handmade(counts, [2, 1], planned=2, initial=initial, transitions=transitions)
    graph = static_graph(instance)
    # Layers 0 and 1, experts 2 to 7, devices 8 and 9, node 10.
    edges = {name: graph.edge_index[:, graph.edge_type == kind].T.tolist() for kind, name in enumerate(EDGE_TYPES)}
    assert edges["layer of"] == [[2, 0], [3, 0], [4, 0], [5, 1], [6, 1], [7, 1]]
    assert edges["node of"] == [[8, 10], [9, 10]]
    assert edges["held by"] == [[4, 8], [2, 8], [3, 9], [5, 8], [6, 8], [7, 9]]
    assert edges["next layer"] == [[0, 1]]
    assert edges["tokens go to"] == [[2, 6], [2, 7], [3, 5], [3, 6], [4, 5], [4, 7]]
    names = [feature.name for feature in FEATURES.node]
    first = dict(zip(names, graph.node_features[2].tolist(), strict=True))
    # 6 and 2 tokens: mean 4 of a layer's mean of 2; deviation 2; the last window has 2 less.
    assert first == pytest.approx(
        dict.fromkeys(names, 0.0) | {"expert": 1.0, "load": 4 / 6, "spread": 2 / 6, "trend": -2 / 6, "replicas": 0.5},
        abs=1e-6,
    )


def test_features_of_a_worked_example() -> None:
    million = 10**6
    counts = [[[6 * million, 8 * million, million, 5 * million]]]
    initial = np.array([[1, 0, 2, 3]], dtype=np.int32)
    cluster = uniform_cluster("h100-sxm", nodes=2, per_node=1)
    simulator = Simulator([handmade(counts, [2, 2], initial=initial, cluster=cluster)], 1, skip_forced=False)
    step(simulator, 0)  # 8 to device 0, where it was
    decision = DecisionBatch.allocate(1, 8, FEATURES)
    simulator.observe(decision)
    # 6 to device 1, done at 6 of an even 10, but it was on device 0, where it would be done at 14.
    assert decision.candidates[0, :2].tolist() == [[1, 6], [1, 5]]
    names = [feature.name for feature in FEATURES.candidate]
    away, home = (dict(zip(names, decision.candidate_features[0, k].tolist(), strict=True)) for k in range(2))
    shared = {"speed": 1.0, "network": 1.0, "seconds": 0.6, "flow from device": 0.0, "flow from node": 0.0}
    small = 1e-3  # weight reading and the move take little time beside the tokens
    assert home == pytest.approx(
        shared
        | {"busy": 0.8, "headroom": -0.4, "ahead": 0.0, "free": 0.5, "free among devices": 0.5, "resident": 1.0}
        | {"near": 1.0, "move": 0.0, "reading": 0.0, "node busy": 0.8, "node free": 0.5, "expected": -0.4}
        | {"rank": 1 / 8, "alone": 0.0},
        abs=small,
    )
    # The 6 million that are left after this one are on two slots, one of them here.
    assert away == pytest.approx(
        shared
        | {"busy": 0.0, "headroom": 0.4, "ahead": 0.8, "free": 1.0, "free among devices": 1.0, "resident": 0.0}
        | {"near": 0.0, "move": away["move"], "reading": 0.0, "node busy": 0.0, "node free": 1.0, "expected": 0.1}
        | {"rank": 0.0, "alone": 1.0},
        abs=small,
    )
    assert away["move"] > 0.0
    context = dict(zip([f.name for f in FEATURES.context], decision.context[0].tolist(), strict=True))
    assert context["progress"] == context["layer progress"] == 0.25
    assert context["remaining"] == pytest.approx(0.6)
    assert context["largest"] == pytest.approx(0.8)
    assert context["balance"] == pytest.approx(0.5)
    assert (context["initial"], context["routes"], context["nodes"]) == (1.0, 0.0, 0.5)


def test_flow_from_the_layer_before() -> None:
    # Expert 0 of the second layer gets three quarters of its tokens from expert 0, the rest from expert 1.
    transitions = np.array([[[0.75, 0.25], [0.25, 0.75]]])
    simulator = Simulator([handmade([[[8, 8], [9, 7]]], [1, 1], transitions=transitions)], 1, skip_forced=False)
    for _ in range(2):
        step(simulator, 0)  # expert 0 to device 0, expert 1 to device 1
    decision = DecisionBatch.allocate(1, 8, FEATURES)
    simulator.observe(decision)
    column = [feature.name for feature in FEATURES.candidate].index("flow from device")
    # Of equal empty devices one is offered: tokens return home after every layer.
    assert decision.candidate_features[0, 0, column] == pytest.approx(0.75)
    assert decision.candidate_features[0, 0, column + 1] == pytest.approx(1.0)


def test_graphs_of_the_largest_models_are_built_quickly() -> None:
    instance = GENERATORS["deepseek-r1-mt"](
        np.random.default_rng(0), layers=None, windows=1, history=2, nodes=4, redundant=32
    )
    static_graph(instance)
    began = time.process_time()
    graph = static_graph(replace(instance, name="again"))
    assert time.process_time() - began < 0.5
    assert graph.edge_index.shape[1] <= most_edges(instance)
    assert len(graph.node_features) == 58 * 257 + instance.devices + len(instance.cluster.nodes)
