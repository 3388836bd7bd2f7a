"""The configuration of a training run: YAML keys are the fields below, an unknown key is an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from schedrl.errors import ConfigError
from schedrl.families import get_family
from schedrl.policies.network import NetworkConfig
from schedrl.training.curriculum import InstanceSet
from schedrl.training.imitation import ImitationConfig

__all__ = ["PpoConfig", "TrainConfig", "ValidationConfig", "load_config", "parse_config"]

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class PpoConfig:
    """Hyperparameters of MaskablePPO; rates fall linearly from the first to the final value."""

    learning_rate: float = 1e-3
    final_learning_rate: float = 3e-5
    entropy: float = 0.003
    """weight of the entropy bonus"""
    final_entropy: float = 0.0
    rollout_steps: int = 64
    """decisions per environment between updates"""
    minibatch: int = 4096
    epochs: int = 3
    discount: float = 1.0
    gae_lambda: float = 0.97
    clip: float = 0.2
    value_weight: float = 0.5
    max_gradient_norm: float = 0.5
    group_normalised: bool = False
    """normalise advantages among the rollouts of one instance instead of over the minibatch"""


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class ValidationConfig:
    """Held-out generated instances on which the best checkpoint is chosen."""

    instances: tuple[InstanceSet, ...]
    count: int = 8
    """instances per set"""
    every_decisions: int = 500_000
    seed: int = 20_260_801
    reference: str | None = None
    """scheduler whose objective the gap is measured against; the first of the family's bounds when absent"""


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class TrainConfig:
    """Everything that determines a run: the same config gives the same weights."""

    family: str
    instances: tuple[InstanceSet, ...]
    validation: ValidationConfig
    total_decisions: int
    seed: int = 0
    environments: int = 256
    group_size: int = 16
    """environments that share a sequence of instances"""
    simulator: Mapping[str, Any] = field(default_factory=dict)
    """options of the family's simulator"""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)
    imitation: ImitationConfig | None = None
    """warm start from other schedulers' schedules, none by default"""
    initial_weights: str = ""
    """``best.pt`` of an earlier run of the same network to start from, instead of fresh weights"""
    checkpoint_every_decisions: int = 500_000
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    """torch threads; a second seed is a better use of a second core"""

    def to_yaml(self) -> str:
        """Return YAML that ``parse_config`` reads back equal."""
        return yaml.safe_dump(_plain(asdict(self)), sort_keys=False)


def load_config(path: Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read a YAML file; ``overrides`` maps dotted keys such as ``ppo.learning_rate`` to values.

    Raises:
        ConfigError: unreadable file, unknown key, or a value of the wrong type; names file and key.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, got {type(data).__name__}")
    for key, value in (overrides or {}).items():
        _override(data, key, value)
    return parse_config(data, source=str(path))


def parse_config(data: Mapping[str, Any], *, source: str = "<config>") -> TrainConfig:
    """Build a config from plain data.

    Raises:
        ConfigError: unknown key, wrong type or unknown family.
    """
    try:
        config = TypeAdapter(TrainConfig).validate_python(dict(data))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{source}: field {where}: {first['msg']}, got {first['input']!r:.60}") from None
    get_family(config.family)
    if config.environments % config.group_size:
        raise ConfigError(
            f"{source}: field group_size: {config.group_size} does not divide environments {config.environments}"
        )
    for name in ("total_decisions", "environments", "group_size", "checkpoint_every_decisions", "threads"):
        if getattr(config, name) < 1:
            raise ConfigError(f"{source}: field {name}: {getattr(config, name)}, expected at least 1")
    return config


def _override(data: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise ConfigError(f"override {key}: {parent} is not a group of keys")
    data[last] = value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value
