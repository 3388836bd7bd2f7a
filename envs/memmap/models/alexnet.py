"""AlexNet in its one-tower form (A. Krizhevsky, "One weird trick for parallelizing CNNs", arXiv:1404.5997, 2014)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["alexnet"]


def alexnet(batch: int = 32, classes: int = 1000) -> tuple[Any, ...]:
    """Return AlexNet with a batch of 224 x 224 images; dropout is part of its training step."""
    module = nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(256 * 6 * 6, 4096),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, classes),
    )
    labels = torch.zeros(batch, dtype=torch.long)
    return module, (torch.zeros(batch, 3, 224, 224),), functional.cross_entropy, (labels,)
