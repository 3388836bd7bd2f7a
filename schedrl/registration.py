"""Gymnasium's names for the environments, as data of each family's package; ``import schedrl`` registers them.

``gym.make("schedrl/JobShop-v0")`` works after that import, ``gym.make("schedrl:schedrl/JobShop-v0")`` without. Neither
gymnasium nor a family is imported for it: where gymnasium comes later, it finds the environments then.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

__all__ = ["EnvironmentSpec", "environment_specs", "register_environments", "register_with_gymnasium"]

_REGISTRY = "gymnasium.envs.registration"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSpec:
    """A registered environment: its gymnasium id and where its scalar and batched classes are."""

    id: str
    family: str
    entry_point: str
    vector_entry_point: str


def environment_specs() -> tuple[EnvironmentSpec, ...]:
    """Return the ``ENVIRONMENTS`` of every registered family's package, which imports nothing heavy."""
    from schedrl.families import family_names

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


def register_with_gymnasium() -> None:
    """Register the environments now if gymnasium is loaded, otherwise as soon as it is."""
    if _REGISTRY in sys.modules:
        register_environments()
    elif not any(isinstance(finder, _RegistryFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _RegistryFinder())


class _RegistryFinder(importlib.abc.MetaPathFinder):
    """Finds gymnasium's registry as usual, once, and fills it when it is loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegistryLoader(spec.loader)
        return spec


class _RegistryLoader(importlib.abc.Loader):
    """Runs the registry's own loader, then registers; everything else is that loader's."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._own.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._own.exec_module(module)
        register_environments()
