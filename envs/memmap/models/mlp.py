"""A multi-layer perceptron."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["mlp"]


def mlp(batch: int = 256, width: int = 2048, layers: int = 6, classes: int = 1000) -> tuple[Any, ...]:
    """Return a perceptron of ``layers`` hidden layers of the same width with a batch of vectors."""
    hidden: list[nn.Module] = []
    for _ in range(layers):
        hidden += [nn.Linear(width, width), nn.GELU()]
    module = nn.Sequential(*hidden, nn.Linear(width, classes))
    labels = torch.zeros(batch, dtype=torch.long)
    return module, (torch.zeros(batch, width),), functional.cross_entropy, (labels,)
