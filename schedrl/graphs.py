"""What a policy sees: a static graph per instance, and a list of candidates per decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schedrl.arrays import F32, I8, I32

__all__ = ["DecisionBatch", "Feature", "FeatureTable", "GraphBatch", "StaticGraph", "batch_graphs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One column of a feature array: its name, unit, inclusive bounds, and why a policy needs it."""

    name: str
    unit: str
    low: float
    high: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTable:
    """The columns of every array a policy sees; spaces, docs, exporter and tests are built from it.

    ``candidate_nodes`` names the k node ids a candidate is made of, in column order.
    """

    node: tuple[Feature, ...]
    edge_types: tuple[str, ...]
    edge: tuple[Feature, ...]
    candidate_nodes: tuple[str, ...]
    candidate: tuple[Feature, ...]
    context: tuple[Feature, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticGraph:
    """The part of an instance that does not change during an episode, as one graph with typed edges."""

    node_features: F32  # (N, Fn)
    edge_index: I32  # (2, E) source row, target row
    edge_type: I8  # (E,) index into FeatureTable.edge_types
    edge_features: F32  # (E, Fe)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphBatch:
    """Several static graphs laid end to end, as one disconnected graph."""

    node_features: F32  # (N, Fn)
    edge_index: I32  # (2, E) already shifted by node_offset
    edge_type: I8  # (E,)
    edge_features: F32  # (E, Fe)
    node_graph: I32  # (N,) which graph a node belongs to
    node_offset: I32  # (G,) first node of each graph


def batch_graphs(graphs: Sequence[StaticGraph]) -> GraphBatch:
    """Lay graphs end to end; node ids of graph g start at ``node_offset[g]``."""
    sizes = np.array([len(graph.node_features) for graph in graphs], dtype=np.int32)
    offset = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
    return GraphBatch(
        node_features=np.concatenate([graph.node_features for graph in graphs]),
        edge_index=np.concatenate(
            [graph.edge_index + shift for graph, shift in zip(graphs, offset, strict=True)], axis=1
        ).astype(np.int32),
        edge_type=np.concatenate([graph.edge_type for graph in graphs]),
        edge_features=np.concatenate([graph.edge_features for graph in graphs]),
        node_graph=np.repeat(np.arange(len(graphs), dtype=np.int32), sizes),
        node_offset=offset,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionBatch:
    """The dynamic part: what each of B instances offers at its current decision.

    Valid candidates come first: slot c of row b is valid exactly when ``c < count[b]``. Arrays are
    preallocated once and overwritten by ``Simulator.observe``.
    """

    candidates: I32  # (B, C, k) node ids within the instance's own graph
    candidate_features: F32  # (B, C, Fc)
    context: F32  # (B, Fg)
    count: I32  # (B,)

    @classmethod
    def allocate(cls, batch: int, slots: int, features: FeatureTable) -> DecisionBatch:
        """Return zeroed arrays for a batch of decisions with up to ``slots`` candidates each."""
        return cls(
            candidates=np.zeros((batch, slots, len(features.candidate_nodes)), dtype=np.int32),
            candidate_features=np.zeros((batch, slots, len(features.candidate)), dtype=np.float32),
            context=np.zeros((batch, len(features.context)), dtype=np.float32),
            count=np.zeros(batch, dtype=np.int32),
        )

    def action_mask(self) -> I8:
        """Return (B, C) int8, 1 where a slot holds a candidate."""
        slots = np.arange(self.candidates.shape[1], dtype=np.int32)
        return (slots[None, :] < self.count[:, None]).astype(np.int8)
