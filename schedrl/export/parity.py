"""How far an exported policy is from the network it was made of, over a grid of sizes and odd cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from schedrl.arrays import F32
from schedrl.export.runtime import BundlePolicy
from schedrl.graphs import DecisionBatch, Feature, FeatureTable, StaticGraph
from schedrl.policies.encoding import encode_graphs
from schedrl.policies.network import PolicyNetwork
from schedrl.policies.network_policy import NetworkPolicy

__all__ = ["measure_parity"]

# (nodes, edges): one node, no edges, one edge, fewer edges than nodes, up to larger than any traced size.
_GRAPHS = ((1, 0), (1, 1), (2, 0), (2, 1), (11, 29), (57, 20), (57, 400), (300, 900), (2000, 8000))
# Candidates of each decision of a batch: alone, none at all, several.
_COUNTS: tuple[tuple[int, ...], ...] = ((1,), (2,), (5, 0, 1, 12), (0, 0, 1), (100,), (7,) * 16)


def measure_parity(network: PolicyNetwork, policy: BundlePolicy, features: FeatureTable) -> dict[str, float]:
    """Return the largest absolute difference of node and graph embeddings, and of logits, to torch.

    Differences are infinite where a value is not finite in one of the two only, or in both.
    """
    rng = np.random.default_rng(0)
    graphs = [_random_graph(rng, features, nodes, edges) for nodes, edges in _GRAPHS]
    embedding = max(_embedding_error(network, policy, graph) for graph in graphs)
    reference = NetworkPolicy(network)
    logits = 0.0
    small = graphs[:-1]  # decoding does not depend on a graph's size
    for counts in _COUNTS:
        for first in range(len(small)):
            used = [small[(first + number // 2) % len(small)] for number in range(len(counts))]
            decision = _random_decision(rng, features, used, counts)
            reference.begin(used)
            policy.begin(used)
            expected = reference.logits(decision).cpu().numpy()
            mask = decision.action_mask().astype(np.bool_)
            logits = max(logits, _error(expected[mask], policy.logits(decision)[mask]))
    return {"embeddings": embedding, "logits": logits}


def _embedding_error(network: PolicyNetwork, policy: BundlePolicy, graph: StaticGraph) -> float:
    with torch.no_grad():
        expected, _ = encode_graphs(network, [graph])
    found = policy.encode(graph)
    return max(_error(expected.nodes.cpu().numpy(), found.nodes), _error(expected.graphs[0].cpu().numpy(), found.graph))


def _error(expected: F32, found: F32) -> float:
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        return float("inf")
    return float(np.abs(expected - found).max(initial=0.0))


def _random_graph(rng: np.random.Generator, features: FeatureTable, nodes: int, edges: int) -> StaticGraph:
    # Only the first two thirds of the nodes have edges, so that graphs of three nodes or more have isolated ones.
    linked = max(1, 2 * nodes // 3)
    return StaticGraph(
        node_features=_random_columns(rng, features.node, nodes),
        edge_index=rng.integers(0, linked, (2, edges)).astype(np.int32),
        edge_type=rng.integers(0, max(len(features.edge_types), 1), edges).astype(np.int8),
        edge_features=_random_columns(rng, features.edge, edges),
    )


def _random_decision(
    rng: np.random.Generator, features: FeatureTable, graphs: Sequence[StaticGraph], counts: Sequence[int]
) -> DecisionBatch:
    decision = DecisionBatch.allocate(len(counts), max(*counts, 3), features)
    decision.context[:] = _random_columns(rng, features.context, len(counts))
    decision.count[:] = counts
    for row, (graph, count) in enumerate(zip(graphs, counts, strict=True)):
        nodes = rng.integers(0, len(graph.node_features), (count, len(features.candidate_nodes)))
        decision.candidates[row, :count] = nodes
        decision.candidate_features[row, :count] = _random_columns(rng, features.candidate, count)
    return decision


def _random_columns(rng: np.random.Generator, columns: Sequence[Feature], rows: int) -> F32:
    low = np.array([column.low for column in columns])
    high = np.array([column.high for column in columns])
    return rng.uniform(low, high, (rows, len(columns))).astype(np.float32)
