"""The policy network inside sb3-contrib's MaskablePPO."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.distributions import MaskableDistribution
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from schedrl.families import get_family
from schedrl.graph_pool import GraphPool
from schedrl.policies.encoding import encode_graphs
from schedrl.policies.network import Decisions, Embeddings, NetworkConfig, PolicyNetwork, Rows

__all__ = ["EncodeOncePolicy"]

_MASKED = -1e8


class EncodeOncePolicy(MaskableActorCriticPolicy):
    """Scores the candidates of each decision; every distinct instance of a batch is encoded once.

    Needs observations of mode ``encode-once`` and, before the first call, ``attach`` with the environment's
    graphs. Embeddings are cached during rollouts and recomputed, with gradients, for every minibatch.
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        family: str,
        network: dict[str, int],
        **sb3_arguments: Any,
    ) -> None:
        self._family, self._network_config = family, NetworkConfig(**network)
        self._graphs: GraphPool | None = None
        self._cached_ids: Tensor | None = None
        self._cached: tuple[Embeddings, Tensor] | None = None
        super().__init__(observation_space, action_space, lr_schedule, **sb3_arguments)

    def attach(self, graphs: GraphPool) -> None:
        """Look instance ids up in these graphs from now on."""
        self._graphs = graphs

    def _build(self, lr_schedule: Schedule) -> None:
        self.network = PolicyNetwork(get_family(self._family).features, self._network_config)
        self.optimizer = self.optimizer_class(self.parameters(), **{"lr": lr_schedule(1), **self.optimizer_kwargs})

    def set_training_mode(self, mode: bool) -> None:
        """Switch modes; weights may have changed, so cached embeddings go."""
        self._cached_ids = self._cached = None
        super().set_training_mode(mode)

    def forward(
        self, obs: Any, deterministic: bool = False, action_masks: np.ndarray[Any, Any] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return actions, values and log-probabilities of a rollout step."""
        logits, values = self._logits_and_values(obs)
        distribution = self._distribution(logits, action_masks)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, values[:, None], distribution.log_prob(actions)

    def evaluate_actions(
        self, obs: Any, actions: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values, log-probabilities and entropy of a minibatch."""
        logits, values = self._logits_and_values(obs)
        distribution = self._distribution(logits, action_masks)
        return values[:, None], distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: Any, action_masks: np.ndarray[Any, Any] | None = None) -> MaskableDistribution:
        """Return the action distribution of each row."""
        return self._distribution(self._logits_and_values(obs)[0], action_masks)

    def predict_values(self, obs: Any) -> Tensor:
        """Return (B, 1) values."""
        return self._logits_and_values(obs)[1][:, None]

    def _distribution(self, logits: Tensor, action_masks: Any) -> MaskableDistribution:
        # Slots without a candidate already hold the masked logit, so sb3-contrib's masking changes nothing.
        return self.action_dist.proba_distribution(action_logits=logits)

    def _logits_and_values(self, obs: Any) -> tuple[Tensor, Tensor]:
        embeddings, offset, graph = self._encode(obs["instance"][:, 0].long())
        valid = obs["action_mask"] > 0
        decision, slot = valid.nonzero(as_tuple=True)
        nodes = obs["candidates"][decision, slot].long() + offset[graph[decision], None]
        rows = Rows(decision, nodes, obs["candidate_features"][decision, slot])
        scores, values = self.network.decode(embeddings, rows, Decisions(graph, obs["context"]))
        logits = torch.full(valid.shape, _MASKED, dtype=scores.dtype, device=scores.device)
        logits[decision, slot] = scores
        return logits, values

    def _encode(self, ids: Tensor) -> tuple[Embeddings, Tensor, Tensor]:
        """Return embeddings, the first node of each graph, and the graph of each row."""
        if self._graphs is None:
            raise RuntimeError("attach the environment's graphs before using the policy")
        unique, graph = torch.unique(ids, return_inverse=True)
        reusable = not torch.is_grad_enabled()
        if (
            reusable
            and self._cached is not None
            and self._cached_ids is not None
            and torch.equal(unique, self._cached_ids)
        ):
            return *self._cached, graph
        embeddings, offset = encode_graphs(self.network, self._graphs.graphs(unique.tolist()))
        if reusable:
            self._cached_ids, self._cached = unique, (embeddings, offset)
        return embeddings, offset, graph
