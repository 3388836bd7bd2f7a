"""Load profiles: how unequal, grouped, changing and linked the loads of published deployments are."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from schedrl.errors import UnknownNameError

__all__ = ["Profile", "get_profile", "load_profiles"]

_PATH = Path(__file__).with_name("profiles.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Constants of the load model of ``generators``, and the deployment that is drawn by default."""

    name: str
    model: str
    """name in the catalogue of models"""
    sigma: float
    """standard deviation of an expert's log load"""
    sigma_group: float = 0.0
    """standard deviation of what the experts of a group share"""
    drift: float
    """standard deviation of a window's deviation from the log load"""
    persistence: float = 0.8
    """correlation of the deviations of successive windows"""
    domain_correlation: float = 0.6
    """correlation of an expert's log load between two domains (data sets)"""
    outlier_share: float = 0.0
    """share of the layers with ``outlier_sigma`` in place of ``sigma``"""
    outlier_sigma: float = 0.0
    affinity: float = 0.0
    """share of the tokens that follow a layer's preferred successors (see ``affinity``)"""
    nodes: int
    per_node: int
    device: str
    """name in the catalogue of devices"""
    redundant: int
    """slots per layer beyond one for each expert"""
    tokens: int
    """tokens per forward pass"""
    source: str


@cache
def load_profiles() -> Mapping[str, Profile]:
    """Return all profiles by name; each names its source."""
    data = tomllib.loads(_PATH.read_text(encoding="utf-8"))
    return MappingProxyType({name: Profile(name=name, **item) for name, item in data.items()})


def get_profile(name: str) -> Profile:
    """Return a profile by name.

    Raises:
        UnknownNameError: no such profile.
    """
    profiles = load_profiles()
    if name not in profiles:
        raise UnknownNameError(f"unknown load profile {name!r}; choose from {', '.join(profiles)}")
    return profiles[name]
