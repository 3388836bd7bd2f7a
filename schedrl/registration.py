"""Gymnasium's names for the environments, as data of each family's package; ``import schedrl`` registers them.

``gym.make("schedrl/JobShop-v0")`` works after that import, ``gym.make("schedrl:schedrl/JobShop-v0")`` without.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from schedrl.families import family_names

__all__ = ["EnvironmentSpec", "environment_specs", "register_environments"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSpec:
    """A registered environment: its gymnasium id and where its scalar and batched classes are."""

    id: str
    family: str
    entry_point: str
    vector_entry_point: str


def environment_specs() -> tuple[EnvironmentSpec, ...]:
    """Return the ``ENVIRONMENTS`` of every registered family's package, which imports nothing heavy."""
    packages = [importlib.import_module(f"schedrl.envs.{name}") for name in family_names()]
    return tuple(spec for package in packages for spec in package.ENVIRONMENTS)


def register_environments() -> None:
    """Register every environment that is not yet registered; without gymnasium, do nothing."""
    try:
        from gymnasium.envs.registration import register, registry
    except ModuleNotFoundError:  # an exported policy runs where only numpy and onnxruntime are installed
        return
    for spec in environment_specs():
        if spec.id not in registry:
            register(id=spec.id, entry_point=spec.entry_point, vector_entry_point=spec.vector_entry_point)
