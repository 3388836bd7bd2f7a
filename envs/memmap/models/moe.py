"""A transformer's mixture-of-experts blocks with two experts per token and a fixed capacity.

Routing by products with one-hot matrices gives every tensor a fixed shape, as in D. Lepikhin et al., "GShard", ICLR
2021: tokens that exceed an expert's capacity pass by on the residual stream.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["MixtureOfExperts", "moe"]


class MixtureOfExperts(nn.Module):
    """A residual block in which two of several feed-forward networks process every token.

    Args:
        width: of the residual stream.
        experts: number of networks.
        capacity: most tokens of one network.
        hidden: width inside a network.
    """

    def __init__(self, width: int, experts: int, capacity: int, hidden: int) -> None:
        super().__init__()
        self.experts, self.capacity = experts, capacity
        self.norm = nn.LayerNorm(width)
        self.router = nn.Linear(width, experts, bias=False)
        self.expand = nn.Parameter(torch.zeros(experts, width, hidden))
        self.contract = nn.Parameter(torch.zeros(experts, hidden, width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return tokens (S, width) plus what their experts say."""
        x = self.norm(tokens)
        combine = self._combine(self.router(x).softmax(dim=-1))  # (S, E, C)
        dispatch = (combine > 0).to(x.dtype)
        chosen = torch.einsum("sec,sd->ecd", dispatch, x)
        said = functional.gelu(chosen @ self.expand) @ self.contract
        return tokens + torch.einsum("sec,ecd->sd", combine, said)

    def _combine(self, gates: torch.Tensor) -> torch.Tensor:
        """Return the weight of every token at every place (S, E, C) of the experts."""
        weight, expert = gates.topk(2, dim=-1)
        weight = weight / weight.sum(dim=-1, keepdim=True)
        chosen = functional.one_hot(expert, self.experts)  # (S, 2, E)
        place = chosen.transpose(0, 1).flatten(0, 1).cumsum(dim=0) - 1  # first choices before second ones
        place = place.view(2, -1, self.experts).transpose(0, 1)
        inside = chosen * (place < self.capacity)
        seat = functional.one_hot((place * inside).sum(dim=-1), self.capacity)  # (S, 2, C)
        return torch.einsum("sk,ske,skc->sec", weight, inside.to(gates.dtype), seat.to(gates.dtype))


def moe(
    batch: int = 4, length: int = 256, width: int = 512, experts: int = 8, hidden: int = 2048, layers: int = 2
) -> tuple[Any, ...]:
    """Return blocks of experts with a batch of sequences; the capacity is 1.25 times an even share."""
    tokens = batch * length
    capacity = 5 * 2 * tokens // (4 * experts)
    module = nn.Sequential(*(MixtureOfExperts(width, experts, capacity, hidden) for _ in range(layers)))
    target = torch.zeros(tokens, width)
    return module, (torch.zeros(tokens, width),), functional.mse_loss, (target,)
