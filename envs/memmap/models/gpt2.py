"""GPT-2 (A. Radford et al., "Language models are unsupervised multitask learners", OpenAI, 2019).

Attention is written out as products and a softmax, so that its intermediate buffers can be planned.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["GPT2", "gpt2", "gpt2_small"]


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor, future: torch.Tensor) -> torch.Tensor:
        x = x + self.projection(self._attention(self.norm1(x), future))
        y: torch.Tensor = x + self.contract(functional.gelu(self.expand(self.norm2(x)), approximate="tanh"))
        return y

    def _attention(self, x: torch.Tensor, future: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        split = (batch, length, self.heads, width // self.heads)
        query, key, value = (part.view(split).transpose(1, 2) for part in self.qkv(x).split(width, dim=2))
        scores = query @ key.transpose(2, 3) / sqrt(split[-1])
        weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
        mixed: torch.Tensor = (weights @ value).transpose(1, 2).reshape(batch, length, width)
        return mixed


class GPT2(nn.Module):
    """A decoder-only transformer whose output layer shares the weights of the token embedding.

    Args:
        layers: number of blocks.
        width: of the residual stream, a multiple of ``heads``.
        heads: of the attention.
        length: longest sequence.
        vocabulary: number of tokens.
    """

    def __init__(self, *, layers: int, width: int, heads: int, length: int, vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits (B, T, vocabulary) of tokens (B, T)."""
        place = torch.arange(tokens.shape[1], device=tokens.device)
        future = place[:, None] < place[None, :]
        x = self.tokens(tokens) + self.positions(place)
        for block in self.blocks:
            x = block(x, future)
        return functional.linear(self.norm(x), self.tokens.weight)


def _token_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def gpt2(
    batch: int = 4, layers: int = 12, width: int = 768, heads: int = 12, length: int = 512, vocabulary: int = 50257
) -> tuple[Any, ...]:
    """Return a GPT-2 of any size with a batch of sequences of ``length`` tokens."""
    module = GPT2(layers=layers, width=width, heads=heads, length=length, vocabulary=vocabulary)
    tokens = torch.zeros(batch, length, dtype=torch.long)
    return module, (tokens,), _token_loss, (torch.zeros(batch, length, dtype=torch.long),)


def gpt2_small(batch: int = 4, length: int = 512) -> tuple[Any, ...]:
    """Return GPT-2 small (12 layers of width 768) with a batch of sequences of ``length`` tokens."""
    return gpt2(batch, length=length)
