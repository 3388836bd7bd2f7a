"""VGG-11 and VGG-16 (K. Simonyan, A. Zisserman, "Very deep convolutional networks", ICLR 2015)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["vgg11", "vgg16"]

_WIDTHS = (64, 128, 256, 512, 512)


def _vgg(depths: tuple[int, ...], batch: int, classes: int) -> tuple[Any, ...]:
    layers: list[nn.Module] = []
    channels = 3
    for width, depth in zip(_WIDTHS, depths, strict=True):
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    layers.append(nn.Flatten())
    for inputs in (channels * 7 * 7, 4096):
        layers += [nn.Linear(inputs, 4096), nn.ReLU(), nn.Dropout()]
    module = nn.Sequential(*layers, nn.Linear(4096, classes))
    labels = torch.zeros(batch, dtype=torch.long)
    return module, (torch.zeros(batch, 3, 224, 224),), functional.cross_entropy, (labels,)


def vgg11(batch: int = 16, classes: int = 1000) -> tuple[Any, ...]:
    """Return VGG-11 (configuration A) with a batch of 224 x 224 images."""
    return _vgg((1, 1, 2, 2, 2), batch, classes)


def vgg16(batch: int = 16, classes: int = 1000) -> tuple[Any, ...]:
    """Return VGG-16 (configuration D) with a batch of 224 x 224 images."""
    return _vgg((2, 2, 3, 3, 3), batch, classes)
