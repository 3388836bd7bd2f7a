"""BERT with its masked-token head (J. Devlin, M.-W. Chang, K. Lee, K. Toutanova, "BERT", NAACL 2019)."""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Bert", "bert", "bert_base"]


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.projection = nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        x = self.norm1(x + self.projection(self._attention(x, bias)))
        y: torch.Tensor = self.norm2(x + self.contract(functional.gelu(self.expand(x))))
        return y

    def _attention(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        split = (batch, length, self.heads, width // self.heads)
        query, key, value = (layer(x).view(split).transpose(1, 2) for layer in (self.query, self.key, self.value))
        weights = (query @ key.transpose(2, 3) / sqrt(split[-1]) + bias).softmax(dim=-1)
        mixed: torch.Tensor = (weights @ value).transpose(1, 2).reshape(batch, length, width)
        return mixed


class Bert(nn.Module):
    """A bidirectional transformer that predicts masked tokens with the weights of the token embedding.

    Args:
        layers: number of layers.
        width: of the residual stream, a multiple of ``heads``.
        heads: of the attention.
        length: longest sequence.
        vocabulary: number of tokens.
    """

    def __init__(self, *, layers: int, width: int, heads: int, length: int, vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.positions, self.segments = (nn.Embedding(n, width) for n in (vocabulary, length, 2))
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.head, self.head_norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.head_bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, tokens: torch.Tensor, segments: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Return logits (B, T, vocabulary) of tokens, segments and presence, each (B, T)."""
        place = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.norm(self.tokens(tokens) + self.positions(place) + self.segments(segments))
        bias = (1.0 - present[:, None, None, :]) * -1e4
        for layer in self.layers:
            x = layer(x, bias)
        x = self.head_norm(functional.gelu(self.head(x)))
        return functional.linear(x, self.tokens.weight, self.head_bias)


def _token_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def bert(
    batch: int = 8, layers: int = 12, width: int = 768, heads: int = 12, length: int = 256, vocabulary: int = 30522
) -> tuple[Any, ...]:
    """Return a BERT of any size with a batch of sequences of ``length`` tokens."""
    module = Bert(layers=layers, width=width, heads=heads, length=length, vocabulary=vocabulary)
    tokens, segments, targets = (torch.zeros(batch, length, dtype=torch.long) for _ in range(3))
    return module, (tokens, segments, torch.ones(batch, length)), _token_loss, (targets,)


def bert_base(batch: int = 8, length: int = 256) -> tuple[Any, ...]:
    """Return BERT base (12 layers of width 768) with a batch of sequences of ``length`` tokens."""
    return bert(batch, length=length)
