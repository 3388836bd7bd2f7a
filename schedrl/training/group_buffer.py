"""A rollout buffer that compares several rollouts of the same instance."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer

__all__ = ["GroupRolloutBuffer"]


class GroupRolloutBuffer(MaskableDictRolloutBuffer):
    """Normalises advantages among all steps of the same instance, after the usual GAE.

    Instances differ in how far any policy can get above their bound; a critic learns that slowly, while the
    other rollouts of the instance tell it at once. Needs observations of mode ``encode-once``.
    """

    def compute_returns_and_advantage(self, last_values: torch.Tensor, dones: np.ndarray[Any, Any]) -> None:
        """Compute GAE, then subtract the mean and divide by the deviation of each instance's advantages."""
        super().compute_returns_and_advantage(last_values, dones)
        _, group = np.unique(self.observations["instance"][..., 0], return_inverse=True)
        group = group.reshape(-1)
        advantage = self.advantages.reshape(-1)
        count = np.bincount(group)
        mean = np.bincount(group, advantage) / count
        deviation = np.sqrt(np.bincount(group, (advantage - mean[group]) ** 2) / count)
        # A floor of the overall deviation keeps instances with nearly equal rollouts from dominating.
        floor = 0.5 * float(advantage.std()) + 1e-6
        normalised = (advantage - mean[group]) / np.maximum(deviation, floor)[group]
        self.advantages = normalised.reshape(self.advantages.shape).astype(np.float32)
