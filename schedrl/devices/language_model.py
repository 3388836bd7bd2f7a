"""Decoder-only language models: the sizes that decide the time and memory of serving, and a catalogue of them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from schedrl.errors import ConfigError, unknown_name

__all__ = ["LanguageModel", "get_language_model", "language_model_from_dict", "load_language_models"]

_PATH = Path(__file__).with_name("language_models.toml")
_SIZES = (
    "layers", "hidden", "heads", "kv_heads", "head_size", "intermediate", "vocabulary", "experts", "experts_per_token"
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModel:
    """A decoder with grouped-query attention and gated feed-forward layers, dense or of ``experts``.

    Raises:
        ConfigError: a size that is no positive integer, query heads that key-value heads do not divide, or more experts
            per token than experts.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    experts: int = 1
    """feed-forward experts per layer, 1 for a dense model"""
    experts_per_token: int = 1
    parameters: float = 0.0
    """of the whole model, embeddings included; 0 derives them from the sizes"""
    bytes_per_weight: float = 2.0
    source: str = ""

    def __post_init__(self) -> None:
        where = f"language model {self.name}"
        for field in _SIZES:
            value = getattr(self, field)
            if type(value) is not int or value < 1:
                raise ConfigError(f"{where}: field {field}: {value!r}, expected an integer of at least 1")
        if self.heads % self.kv_heads:
            raise ConfigError(f"{where}: field kv_heads: {self.kv_heads} do not divide {self.heads} heads")
        if self.experts_per_token > self.experts:
            raise ConfigError(f"{where}: field experts_per_token: {self.experts_per_token} of {self.experts} experts")
        if not (isinstance(self.bytes_per_weight, (int, float)) and 0 < self.bytes_per_weight <= 8):
            raise ConfigError(f"{where}: field bytes_per_weight: {self.bytes_per_weight!r}, expected 0 to 8")
        if not (isinstance(self.parameters, (int, float)) and 0 <= self.parameters < 1e14):
            raise ConfigError(f"{where}: field parameters: {self.parameters!r}, expected a number of at least 0")

    @property
    def attention_weights(self) -> int:
        """Weights of one layer's query, key, value and output projections."""
        return self.hidden * self.head_size * (2 * self.heads + 2 * self.kv_heads)

    @property
    def expert_weights(self) -> int:
        """Weights of one expert of one layer (gate, up and down)."""
        return 3 * self.hidden * self.intermediate

    @property
    def head_weights(self) -> int:
        """Weights of the output projection onto the vocabulary."""
        return self.hidden * self.vocabulary

    @property
    def weights_bytes(self) -> float:
        """Bytes of all weights."""
        derived = self.layers * (self.attention_weights + self.experts * self.expert_weights) + 2 * self.head_weights
        return (self.parameters or float(derived)) * self.bytes_per_weight

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values of one token in all layers, at two bytes each."""
        return 2 * self.layers * self.kv_heads * self.head_size * 2


def language_model_from_dict(data: Any, where: str = "language model") -> LanguageModel:
    """Build a model from plain data.

    Raises:
        ConfigError: an unknown or missing field, or a bad value; ``where`` begins the message.
    """
    known = {field.name for field in fields(LanguageModel)}
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: expected a table of fields, got {data!r:.40}")
    if unknown := sorted(set(data) - known):
        raise ConfigError(f"{where}: field {unknown[0]}: unknown, expected {', '.join(sorted(known))}")
    if missing := sorted({"name", *_SIZES[:7]} - set(data)):
        raise ConfigError(f"{where}: field {missing[0]}: missing")
    return LanguageModel(**data)


@cache
def load_language_models() -> Mapping[str, LanguageModel]:
    """Return the catalogue of models by name; each names its source."""
    data = tomllib.loads(_PATH.read_text(encoding="utf-8"))
    return MappingProxyType(
        {name: language_model_from_dict({"name": name, **item}, name) for name, item in data.items()}
    )


def get_language_model(name: str) -> LanguageModel:
    """Return a catalogued model.

    Raises:
        UnknownNameError: no such model; the message lists the closest names.
    """
    models = load_language_models()
    if name not in models:
        raise unknown_name("language model", name, models)
    return models[name]
