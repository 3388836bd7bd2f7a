"""The network as a ``Policy``, in torch: for validation during training and for parity tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from schedrl.arrays import I32
from schedrl.graphs import DecisionBatch, StaticGraph
from schedrl.policies.encoding import encode_graphs
from schedrl.policies.network import Decisions, Embeddings, PolicyNetwork, Rows

__all__ = ["NetworkPolicy"]


class NetworkPolicy:
    """Plays a ``PolicyNetwork``; see ``schedrl.schedulers.Policy`` for the contract."""

    def __init__(self, network: PolicyNetwork) -> None:
        self._network = network
        self._device = next(network.parameters()).device
        self._embeddings: Embeddings | None = None
        self._graph = torch.zeros(0, dtype=torch.int64)
        self._offset = torch.zeros(0, dtype=torch.int64)

    @torch.no_grad()
    def begin(self, graphs: Sequence[StaticGraph]) -> None:
        """Encode every distinct graph object once; row b of later calls belongs to ``graphs[b]``."""
        position = {id(graph): number for number, graph in enumerate({id(graph): graph for graph in graphs}.values())}
        distinct = list({id(graph): graph for graph in graphs}.values())
        self._embeddings, offset = encode_graphs(self._network, distinct)
        self._graph = torch.tensor([position[id(graph)] for graph in graphs], device=self._device)
        self._offset = offset[self._graph]

    @torch.no_grad()
    def logits(self, decision: DecisionBatch) -> Tensor:
        """Return (B, C) logits, -inf where a slot holds no candidate."""
        assert self._embeddings is not None, "begin first"
        valid = torch.from_numpy(decision.action_mask()).to(self._device) > 0
        row, slot = valid.nonzero(as_tuple=True)
        nodes = torch.from_numpy(decision.candidates).to(self._device)[row, slot].long() + self._offset[row, None]
        features = torch.from_numpy(decision.candidate_features).to(self._device)[row, slot]
        context = torch.from_numpy(decision.context).to(self._device)
        scores, _ = self._network.decode(self._embeddings, Rows(row, nodes, features), Decisions(self._graph, context))
        logits = torch.full(valid.shape, -torch.inf, device=self._device)
        logits[row, slot] = scores
        return logits

    def select(self, decision: DecisionBatch, rng: np.random.Generator | None = None, temperature: float = 1.0) -> I32:
        """Return the best slot of every row, or one drawn by Gumbel noise; -1 without candidates."""
        logits = self.logits(decision).cpu().numpy()
        if rng is not None:
            logits = logits / temperature + rng.gumbel(size=logits.shape)
        action: I32 = logits.argmax(axis=1).astype(np.int32)
        action[decision.count == 0] = -1
        return action
