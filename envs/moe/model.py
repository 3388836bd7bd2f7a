"""Mixture-of-experts models: the sizes that decide loads, time and memory, and a catalogue of well-known ones."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from schedrl.errors import ConfigError, unknown_name

__all__ = ["MoEModel", "get_model", "load_models", "model_from_dict"]

_PATH = Path(__file__).with_name("models.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class MoEModel:
    """The routed part of a model. An expert is three matrices (gate, up, down) of ``hidden`` by ``intermediate``.

    Raises:
        ConfigError: a size that is no positive integer, more experts per token than experts, or groups that do not
            divide the experts.
    """

    name: str
    layers: int
    """layers with routed experts"""
    experts: int
    """routed experts per layer"""
    top_k: int
    """routed experts per token and layer"""
    hidden: int
    intermediate: int
    groups: int = 1
    """equal groups of consecutive experts that routing treats together"""
    first_layer: int = 0
    """number, in the whole model, of the first layer with experts"""
    bytes_per_weight: float = 1.0
    source: str = ""

    def __post_init__(self) -> None:
        where = f"model {self.name}"
        for field in ("layers", "experts", "top_k", "hidden", "intermediate", "groups"):
            value = getattr(self, field)
            if type(value) is not int or value < 1:
                raise ConfigError(f"{where}: field {field}: {value!r}, expected an integer of at least 1")
        if type(self.first_layer) is not int or self.first_layer < 0:
            raise ConfigError(f"{where}: field first_layer: {self.first_layer!r}, expected an integer of at least 0")
        if self.top_k > self.experts:
            raise ConfigError(f"{where}: field top_k: {self.top_k} of {self.experts} experts")
        if self.experts % self.groups:
            raise ConfigError(f"{where}: field groups: {self.groups} do not divide {self.experts} experts")
        if not (isinstance(self.bytes_per_weight, (int, float)) and 0 < self.bytes_per_weight <= 8):
            raise ConfigError(f"{where}: field bytes_per_weight: {self.bytes_per_weight!r}, expected 0 to 8")

    @property
    def expert_bytes(self) -> float:
        """Bytes of one expert's weights."""
        return 3.0 * self.hidden * self.intermediate * self.bytes_per_weight

    @property
    def expert_flops_per_token(self) -> float:
        """Floating-point operations of one token in one expert."""
        return 6.0 * self.hidden * self.intermediate

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that ``model_from_dict`` reads back equal."""
        return asdict(self)


def model_from_dict(data: Any, where: str = "model") -> MoEModel:
    """Build a model from plain data.

    Raises:
        ConfigError: an unknown or missing field, or a bad value; ``where`` begins the message.
    """
    known = {field.name for field in fields(MoEModel)}
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: expected a table of fields, got {data!r:.40}")
    if unknown := sorted(set(data) - known):
        raise ConfigError(f"{where}: field {unknown[0]}: unknown, expected {', '.join(sorted(known))}")
    if missing := sorted({"name", "layers", "experts", "top_k", "hidden", "intermediate"} - set(data)):
        raise ConfigError(f"{where}: field {missing[0]}: missing")
    return MoEModel(**data)


@cache
def load_models() -> Mapping[str, MoEModel]:
    """Return the catalogue of models by name; each names its source."""
    data = tomllib.loads(_PATH.read_text(encoding="utf-8"))
    return MappingProxyType({name: model_from_dict({"name": name, **item}, name) for name, item in data.items()})


def get_model(name: str) -> MoEModel:
    """Return a catalogued model.

    Raises:
        UnknownNameError: no such model; the message lists the closest names.
    """
    models = load_models()
    if name not in models:
        raise unknown_name("model", name, models)
    return models[name]
