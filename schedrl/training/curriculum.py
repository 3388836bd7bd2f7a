"""Which instances a training run sees: groups of rows share instances, and sizes follow a curriculum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schedrl.errors import ConfigError
from schedrl.families import Family, Instance

__all__ = ["Curriculum", "InstanceSet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSet:
    """Instances of one generator and size, and when in training they are drawn."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  # pydantic reads it; misspelt keys are errors

    generator: str
    """name of one of the family's generators"""
    size: Mapping[str, Any]
    """the generator's keyword arguments"""
    weight: float = 1.0
    """how often, relative to the other active sets"""
    start: float = 0.0
    """share of training after which the set is active, 0 to 1"""
    end: float = 1.0
    """share of training after which the set is no longer drawn"""


class Curriculum:
    """Draws training instances; all rows of a group run through the same sequence of instances.

    Sharing lets advantages be compared among several rollouts of one instance, and an instance be encoded
    once for all of them.
    """

    def __init__(self, family: Family, sets: Sequence[InstanceSet], rows: int, group: int) -> None:
        if not sets:
            raise ConfigError("instances: empty, expected at least one instance set")
        if rows % group:
            raise ConfigError(f"group_size: {group} does not divide the {rows} environments")
        for number, item in enumerate(sets):
            if item.generator not in family.generators:
                raise ConfigError(
                    f"instances[{number}].generator: {item.generator!r}, expected one of {', '.join(family.generators)}"
                )
        self._sets = list(sets)
        self._generators: list[Callable[..., Instance]] = [family.generators[item.generator] for item in sets]
        self.room: Sequence[Instance] = [
            generate(np.random.default_rng(0), **item.size)
            for generate, item in zip(self._generators, sets, strict=True)
        ]
        self.progress = 0.0  # share of training done, set by the training loop
        self._group = group
        self._drawn = np.zeros(rows, dtype=np.int64)  # episodes each row has begun
        self._queues: list[dict[int, Instance]] = [{} for _ in range(rows // group)]

    def draw(self, row: int, rng: np.random.Generator) -> Instance:
        """Return the row's next instance: the group's, drawn by whichever row gets there first."""
        queue, episode = self._queues[row // self._group], int(self._drawn[row])
        if episode not in queue:
            queue[episode] = self._generate(rng)
        self._drawn[row] += 1
        instance = queue[episode]
        first = row - row % self._group
        oldest = int(self._drawn[first : first + self._group].min())
        for number in [number for number in queue if number < oldest]:
            del queue[number]
        return instance

    def restart(self) -> None:
        """Forget the sequences of all groups; progress stays."""
        self._drawn[:] = 0
        self._queues = [{} for _ in self._queues]

    def _generate(self, rng: np.random.Generator) -> Instance:
        weight = np.array(
            [item.weight * (item.start <= self.progress < max(item.end, item.start + 1e-9)) for item in self._sets]
        )
        if not weight.any():
            weight = np.array([item.weight for item in self._sets])
        choice = int(rng.choice(len(weight), p=weight / weight.sum()))
        return self._generators[choice](rng, **self._sets[choice].size)

    def snapshot(self) -> dict[str, Any]:
        """Return the state of all groups."""
        return {
            "drawn": self._drawn.copy(),
            "queues": [dict(queue) for queue in self._queues],
            "progress": self.progress,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot."""
        self._drawn[:] = state["drawn"]
        self._queues = [dict(queue) for queue in state["queues"]]
        self.progress = state["progress"]
