"""Where the next episode's instance comes from: given lists or a family's generators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from schedrl.errors import ConfigError
from schedrl.families import Family, Instance

__all__ = ["FixedInstances", "GeneratedInstances", "InstanceSource"]


class InstanceSource(Protocol):
    """Draws the instance of each new episode."""

    @property
    def room(self) -> Sequence[Instance]:
        """Instances that bound, in every dimension, whatever ``draw`` returns."""
        ...

    def draw(self, row: int, rng: np.random.Generator) -> Instance:
        """Return the instance of the next episode of one row."""
        ...

    def restart(self) -> None:
        """Forget past draws, so that the same generator state draws the same instances again."""
        ...


class FixedInstances:
    """Draws from given instances, all in turn."""

    def __init__(self, instances: Sequence[Instance]) -> None:
        if not instances:
            raise ConfigError("instances: empty, expected at least one instance")
        self.room: Sequence[Instance] = list(instances)
        self._next = 0

    def draw(self, row: int, rng: np.random.Generator) -> Instance:
        """Return the next instance of the list."""
        self._next = (self._next + 1) % len(self.room)
        return self.room[self._next - 1]

    def restart(self) -> None:
        """Begin again with the first instance."""
        self._next = 0


class GeneratedInstances:
    """Draws a fresh instance from one of the family's generators for every episode."""

    def __init__(self, family: Family, generator: str, size: Mapping[str, Any]) -> None:
        if generator not in family.generators:
            raise ConfigError(f"generator: {generator!r}, expected one of {', '.join(family.generators)}")
        self._generate = family.generators[generator]
        self._size = dict(size)
        # Generators fix the size, so any instance shows how much room all of them need.
        self.room: Sequence[Instance] = [self._generate(np.random.default_rng(0), **self._size)]

    def draw(self, row: int, rng: np.random.Generator) -> Instance:
        """Return a fresh instance."""
        return self._generate(rng, **self._size)

    def restart(self) -> None:
        """Nothing to forget: draws depend on the generator alone."""
