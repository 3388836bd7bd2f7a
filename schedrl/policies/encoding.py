"""From static graphs to tensors and embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from schedrl.graphs import StaticGraph, batch_graphs
from schedrl.policies.network import Embeddings, PolicyNetwork

__all__ = ["encode_graphs"]


def encode_graphs(network: PolicyNetwork, graphs: Sequence[StaticGraph]) -> tuple[Embeddings, Tensor]:
    """Encode graphs as one batch; return embeddings and (G,) the first node of each graph."""
    device = next(network.parameters()).device
    batch = batch_graphs(graphs)
    embeddings = network.encode(
        torch.from_numpy(batch.node_features).to(device),
        torch.from_numpy(batch.edge_index).to(device, torch.int64),
        torch.from_numpy(batch.edge_type).to(device, torch.int64),
        torch.from_numpy(batch.node_graph).to(device, torch.int64),
        len(graphs),
    )
    return embeddings, torch.from_numpy(batch.node_offset).to(device, torch.int64)
