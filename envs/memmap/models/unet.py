"""A U-Net (O. Ronneberger, P. Fischer, T. Brox, "U-Net", MICCAI 2015) with padded convolutions and batch norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["UNet", "unet"]


def _convolutions(channels: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (channels, width):
        norm = nn.BatchNorm2d(width)
        norm.num_batches_tracked = None  # only matters without a momentum
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), norm, nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """An encoder and a decoder with connections across at every resolution.

    Args:
        width: channels at full resolution, doubled at each of the levels below.
        levels: number of times the resolution is halved.
        classes: number of logits of a pixel.
    """

    def __init__(self, width: int = 64, levels: int = 4, classes: int = 2) -> None:
        super().__init__()
        widths = [width << level for level in range(levels + 1)]
        self.down = nn.ModuleList(_convolutions(a, b) for a, b in zip([3, *widths[:-1]], widths, strict=True))
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in pairs)
        self.up = nn.ModuleList(_convolutions(a, b) for a, b in pairs)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes, H, W) of images (B, 3, H, W); H and W are multiples of ``2**levels``."""
        across: list[torch.Tensor] = []
        x = images
        for index, stage in enumerate(self.down):
            x = stage(functional.max_pool2d(x, 2) if index else x)
            across.append(x)
        across.pop()
        for enlarge, stage in zip(self.enlarge, self.up, strict=True):
            x = stage(torch.cat((across.pop(), enlarge(x)), dim=1))
        logits: torch.Tensor = self.head(x)
        return logits


def unet(batch: int = 8, image: int = 128, width: int = 64, levels: int = 4) -> tuple[Any, ...]:
    """Return a U-Net with a batch of square images."""
    labels = torch.zeros(batch, image, image, dtype=torch.long)
    return UNet(width, levels), (torch.zeros(batch, 3, image, image),), functional.cross_entropy, (labels,)
