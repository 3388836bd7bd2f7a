"""ResNet-18, -34 and -50 (K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning", CVPR 2016)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["ResNet", "resnet18", "resnet34", "resnet50"]

_WIDTHS = (64, 128, 256, 512)


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    # The number of batches seen only matters without a momentum; counting it would be an operation per layer.
    norm.num_batches_tracked = None
    return norm


class _Block(nn.Module):
    """Two 3x3 convolutions, or a bottleneck of 1x1, 3x3 and 1x1, beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        out = width * 4 if bottleneck else width
        plan = [(width, 1, 1), (width, 3, stride), (out, 1, 1)] if bottleneck else [(width, 3, stride), (out, 3, 1)]
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        before = channels
        for after, kernel, step in plan:
            self.convolutions.append(nn.Conv2d(before, after, kernel, step, kernel // 2, bias=False))
            self.norms.append(_norm(after))
            before = after
        self.shortcut: nn.Module | None = None
        if stride > 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), _norm(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        last = len(self.convolutions) - 1
        for index, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            y = norm(convolution(y))
            if index < last:
                y = functional.relu(y)
        return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    """A residual network for images of 3 channels.

    Args:
        depths: blocks of each of the four stages.
        bottleneck: blocks of three convolutions instead of two.
        classes: number of logits.
    """

    def __init__(self, depths: tuple[int, int, int, int], bottleneck: bool, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.norm = _norm(64)
        blocks: list[nn.Module] = []
        channels = 64
        for stage, (width, depth) in enumerate(zip(_WIDTHS, depths, strict=True)):
            for index in range(depth):
                blocks.append(_Block(channels, width, 2 if stage and index == 0 else 1, bottleneck))
                channels = width * 4 if bottleneck else width
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes) of images (B, 3, H, W)."""
        x = functional.max_pool2d(functional.relu(self.norm(self.stem(images))), 3, 2, 1)
        x = functional.adaptive_avg_pool2d(self.blocks(x), 1).flatten(1)
        logits: torch.Tensor = self.classifier(x)
        return logits


def _example(module: nn.Module, batch: int, image: int) -> tuple[Any, ...]:
    labels = torch.zeros(batch, dtype=torch.long)
    return module, (torch.zeros(batch, 3, image, image),), functional.cross_entropy, (labels,)


def resnet18(batch: int = 32, image: int = 224) -> tuple[Any, ...]:
    """Return ResNet-18 with a batch of square images."""
    return _example(ResNet((2, 2, 2, 2), bottleneck=False), batch, image)


def resnet34(batch: int = 32, image: int = 224) -> tuple[Any, ...]:
    """Return ResNet-34 with a batch of square images."""
    return _example(ResNet((3, 4, 6, 3), bottleneck=False), batch, image)


def resnet50(batch: int = 32, image: int = 224) -> tuple[Any, ...]:
    """Return ResNet-50 with a batch of square images."""
    return _example(ResNet((3, 4, 6, 3), bottleneck=True), batch, image)
