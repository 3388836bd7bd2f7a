"""The policy network of every family: encode the static graph once, then score candidates per decision.

Torch and torch-geometric only; stable-baselines3 and ONNX wrap it elsewhere. No parameter depends on the
size of an instance.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from schedrl.graphs import FeatureTable

__all__ = ["Decisions", "Embeddings", "NetworkConfig", "PolicyNetwork", "Rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """Widths of the network; the feature counts come from the family's feature table."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  # pydantic reads it; misspelt keys are errors

    node_width: int = 64
    """width of node embeddings"""
    layers: int = 2
    """message-passing layers"""
    candidate_width: int = 128
    """width of the candidate decoder"""

    def to_dict(self) -> dict[str, int]:
        """Return the fields, for JSON."""
        return asdict(self)


class Embeddings(NamedTuple):
    """What the encoder hands to the decoder, already projected to the decoder's width D."""

    nodes: Tensor  # (N, k, D) contribution of a node in each of the k places of a candidate
    graphs: Tensor  # (G, D) contribution of the whole graph


class Rows(NamedTuple):
    """Valid candidates of several decisions, flattened; rows of a decision need not be adjacent."""

    decision: Tensor  # (R,) int64 which decision a row belongs to
    nodes: Tensor  # (R, k) int64 rows of Embeddings.nodes
    features: Tensor  # (R, Fc)


class Decisions(NamedTuple):
    """One row per decision."""

    graph: Tensor  # (B,) int64 row of Embeddings.graphs
    context: Tensor  # (B, Fg)


class _TypedConvolution(MessagePassing):  # type: ignore[misc]  # torch-geometric ships no type information
    """One layer of message passing with a mean per edge type, so that degree does not change the scale."""

    def __init__(self, width: int, edge_types: int) -> None:
        super().__init__(aggr="sum")
        self.edge_types = edge_types
        self.combine = nn.Sequential(nn.Linear(width * (edge_types + 1), width), nn.SiLU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, nodes: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        # One slot per target and edge type: a single pass over the edges serves all types.
        slot = edge_index[1] * self.edge_types + edge_type
        slots = nodes.shape[0] * self.edge_types
        total = self.propagate(edge_index, x=nodes, slot=slot)
        degree = nodes.new_zeros(slots, 1).index_add(0, slot, nodes.new_ones(slot.shape[0], 1))
        mean = total / degree.clamp(min=1.0)
        update: Tensor = self.norm(self.combine(torch.cat([nodes, mean.reshape(nodes.shape[0], -1)], dim=-1)))
        return nodes + update

    def message(self, x_j: Tensor) -> Tensor:
        return x_j

    def aggregate(self, inputs: Tensor, slot: Tensor, dim_size: int) -> Tensor:
        return inputs.new_zeros(dim_size * self.edge_types, inputs.shape[1]).index_add(0, slot, inputs)


class PolicyNetwork(nn.Module):
    """Graph encoder, candidate decoder and value head.

    Args:
        features: the family's feature table; fixes all input widths.
        config: hidden widths.
    """

    def __init__(self, features: FeatureTable, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        node, wide = config.node_width, config.candidate_width
        self.places = len(features.candidate_nodes)
        edge_types = len(features.edge_types)
        self.node_input = nn.Linear(len(features.node), node)
        self.convolutions = nn.ModuleList(_TypedConvolution(node, edge_types) for _ in range(config.layers))
        self.node_output = nn.Linear(node, self.places * wide)
        self.graph_output = nn.Linear(node, wide)
        self.candidate_input = nn.Linear(len(features.candidate), wide)
        self.context_input = nn.Linear(len(features.context), wide)
        self.candidate_hidden = nn.Sequential(nn.SiLU(), nn.Linear(wide, wide), nn.SiLU())
        self.compare = nn.Linear(3 * wide, wide)
        final = nn.Linear(wide, 1)
        self.score = nn.Sequential(nn.SiLU(), final)
        self.value = nn.Sequential(nn.Linear(2 * wide + len(features.context), wide), nn.SiLU(), nn.Linear(wide, 1))
        # A nearly uniform first policy explores; a confident random one does not recover.
        nn.init.normal_(final.weight, std=0.01)

    def encode(
        self, node_features: Tensor, edge_index: Tensor, edge_type: Tensor, node_graph: Tensor, graphs: int
    ) -> Embeddings:
        """Embed one batch of graphs: (N, Fn), (2, E), (E,), (N,) -> Embeddings."""
        nodes = self.node_input(node_features)
        for convolution in self.convolutions:
            nodes = convolution(nodes, edge_index, edge_type)
        size = nodes.new_zeros(graphs, 1).index_add(0, node_graph, torch.ones_like(nodes[:, :1]))
        pooled = nodes.new_zeros(graphs, nodes.shape[1]).index_add(0, node_graph, nodes) / size.clamp(min=1.0)
        per_place = self.node_output(nodes).reshape(nodes.shape[0], self.places, -1)
        return Embeddings(per_place, self.graph_output(pooled))

    def decode(self, embeddings: Embeddings, rows: Rows, decisions: Decisions) -> tuple[Tensor, Tensor]:
        """Return logits (R,) of the candidate rows and values (B,) of the decisions."""
        shared = self.context_input(decisions.context) + embeddings.graphs[decisions.graph]
        hidden = self.candidate_input(rows.features) + shared[rows.decision]
        for place in range(self.places):
            hidden = hidden + embeddings.nodes[rows.nodes[:, place], place]
        hidden = self.candidate_hidden(hidden)
        mean, largest = _pool(hidden, rows.decision, decisions.context.shape[0])
        compared = self.compare(torch.cat([hidden, mean[rows.decision], largest[rows.decision]], dim=-1))
        logits = self.score(compared + hidden).squeeze(-1)
        value = self.value(torch.cat([mean, largest, decisions.context], dim=-1)).squeeze(-1)
        return logits, value


def _pool(rows: Tensor, decision: Tensor, decisions: int) -> tuple[Tensor, Tensor]:
    """Return mean and maximum (B, D) over the rows of each decision; zeros where a decision has none."""
    count = rows.new_zeros(decisions, 1).index_add(0, decision, torch.ones_like(rows[:, :1]))
    mean = rows.new_zeros(decisions, rows.shape[1]).index_add(0, decision, rows) / count.clamp(min=1.0)
    index = decision[:, None].expand_as(rows)
    largest = rows.new_zeros(decisions, rows.shape[1]).scatter_reduce(0, index, rows, "amax", include_self=False)
    return mean, largest
