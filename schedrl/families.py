"""The Family contract, the Simulator contract, and the registry of families."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from schedrl.arrays import F32, I32, Bool
from schedrl.errors import UnknownNameError
from schedrl.graphs import DecisionBatch, FeatureTable, StaticGraph
from schedrl.schemas import AnyOf

__all__ = [
    "BenchmarkCase",
    "Bound",
    "Family",
    "Instance",
    "Simulator",
    "Solution",
    "Suite",
    "SuiteEntry",
    "family_names",
    "game_names",
    "get_family",
]

# The one line a new family adds to this package.
_FAMILIES: dict[str, str] = {
    "jobshop": "schedrl.envs.jobshop.family:FAMILY",
    "socdag": "schedrl.envs.socdag.family:FAMILY",
    "memmap": "schedrl.envs.memmap.family:FAMILY",
    "moe": "schedrl.envs.moe.family:FAMILY",
    "routing": "schedrl.envs.routing.family:FAMILY",
}


class Instance(Protocol):
    """A problem to solve: frozen arrays that validated themselves, equal by content."""

    @property
    def name(self) -> str:
        """Name in tables and file names."""
        ...

    def to_json(self) -> str:
        """Return a versioned JSON text that ``from_json`` reads back equal."""
        ...

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> Self:
        """Read ``to_json`` output; ``source`` names the file in errors."""
        ...


class Solution(Protocol):
    """A complete answer to an instance, as plain arrays."""

    def to_json(self) -> str:
        """Return a versioned JSON text that ``from_json`` reads back equal."""
        ...

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> Self:
        """Read ``to_json`` output; ``source`` names the file in errors."""
        ...


class Simulator(Protocol):
    """The dynamics of B independent instances, advanced together. Arrays in, arrays out.

    Sizes are fixed at construction by ``Family.make_simulator``; instances of any size up to those fit.
    """

    features: ClassVar[FeatureTable]

    @property
    def batch(self) -> int:
        """Number of rows B."""
        ...

    @property
    def slots(self) -> int:
        """Candidate slots C of every decision; also the size of the action space."""
        ...

    @property
    def invalid(self) -> I32:
        """(B,) actions outside the mask since each episode began."""
        ...

    @property
    def invalid_limit(self) -> I32:
        """(B,) more invalid actions than this end an episode by truncation."""
        ...

    def load(self, row: int, instance: Any) -> None:
        """Start a new episode of ``instance`` in one row, up to its first decision."""
        ...

    def observe(self, out: DecisionBatch) -> None:
        """Fill preallocated arrays with the current decision of every row (finished rows: count 0)."""
        ...

    def step(self, action: I32, reward: F32, done: Bool) -> None:
        """Apply one slot per row and fill ``reward`` (B,) and ``done`` (B,).

        A negative action leaves its row untouched (reward 0). A slot without a candidate changes nothing
        either and is counted in ``invalid``.
        """
        ...

    def finished(self, row: int) -> bool:
        """Whether the row's episode is over."""
        ...

    def objective(self, row: int) -> float:
        """Return the primary objective of a finished row."""
        ...

    def solution(self, row: int) -> Solution:
        """Return the solution of a finished row."""
        ...

    def follow(self, row: int, solution: Any) -> int:
        """Return the slot that leads a row towards a given solution of its instance: what a teacher would choose.

        Where the simulator offers no slot that the solution agrees with, the closest one.
        """
        ...

    def snapshot(self) -> dict[str, Any]:
        """Return copies of all arrays, enough for ``restore`` to continue bit for bit."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot of a simulator of the same sizes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A bound on the optimum: its value, and the proof or source that makes it one."""

    name: str
    value: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteEntry:
    """One instance of a suite with what is known about its optimum."""

    instance: Instance
    lower_bound: float | None
    best_known: float | None
    suite: str = ""
    """which of several suites that are compared together it is from"""

    @property
    def optimal(self) -> bool:
        """Whether the best known value is proven optimal."""
        return self.best_known is not None and self.lower_bound == self.best_known


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A named set of instances with reference values and their source."""

    name: str
    summary: str
    source: str
    load: Callable[[], Sequence[SuiteEntry]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkCase:
    """What a family's speed is measured on: the generator and size that publications report speeds for."""

    generator: str
    size: Mapping[str, Any]
    simulator: Mapping[str, Any] = field(default_factory=dict)
    """options of the family's simulator"""
    policy: str = ""
    """name of the shipped policy and of its training configuration, the family's own by default"""

    def draw(self, family: Family, count: int) -> list[Instance]:
        """Return ``count`` distinct instances, always the same."""
        rng = np.random.default_rng(0)
        return [family.generators[self.generator](rng, **self.size) for _ in range(count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Everything the rest of the code needs to know about one problem family."""

    name: str
    title: str
    objective: str  # name of the primary objective, minimised
    instance_type: type[Any] | AnyOf
    solution_type: type[Any] | AnyOf
    features: FeatureTable
    read_instances: Callable[[Path], Iterator[Instance]]  # every instance of a file, in order
    static_graph: Callable[[Any], StaticGraph]
    make_simulator: Callable[..., Simulator]  # (instances, batch, **options of the family)
    check: Callable[[Any, Any], list[str]]  # (instance, solution) -> violations in words
    objectives: Callable[[Any, Any], dict[str, float]]  # (instance, solution) -> value by name
    bounds: Callable[[Any], list[Bound]]
    generators: Mapping[str, Callable[..., Instance]]  # (rng, **size) -> instance
    suites: Mapping[str, Suite]
    benchmark: BenchmarkCase
    render: Callable[[Any, Any, Path], None]  # (instance, solution, path .png|.svg|.html)
    # Most edges in the static graph of any instance as large as the given one, where generators of a fixed size let
    # the number vary; the number of its own edges by default. Padded observations need it.
    most_edges: Callable[[Any], int] | None = None
    # Further pictures by title, drawn beside the first one: of a solution as ``render`` does, and of several
    # schedulers' solutions to an instance, (instance, solution by scheduler, path). One that has nothing to say about
    # an instance writes no file.
    pictures: Mapping[str, Callable[[Any, Any, Path], None]] = field(default_factory=dict)
    comparison_pictures: Mapping[str, Callable[[Any, Mapping[str, Any], Path], None]] = field(default_factory=dict)
    # Lines that say why a valid solution is as it is: (instance, solution, part of it by name or None for the whole).
    explain: Callable[[Any, Any, str | None], list[str]] | None = None
    # Other games over the family's problems, by the part of their name after ``FAMILY:``: the family again, with a
    # simulator, features and generators of its own.
    games: Mapping[str, Family] = field(default_factory=dict)

    def objective_of(self, instance: Any) -> str:
        """Return the primary objective of an instance: its own where it names one, or the family's."""
        own: str = getattr(instance, "objective", self.objective)
        return own

    def problem_of(self, instance: Any) -> str:
        """Return the kind of problem that an instance is: what it names, or its primary objective."""
        own: str = getattr(instance, "problem", self.objective_of(instance))
        return own


def family_names() -> tuple[str, ...]:
    """Return the names of all registered families."""
    return tuple(_FAMILIES)


def game_names() -> tuple[str, ...]:
    """Return the names of all families, each followed by those of its other games, such as ``memmap:packing``."""
    return tuple(name for family in _FAMILIES for name in (family, *(f"{family}:{game}" for game in _games(family))))


def get_family(name: str) -> Family:
    """Return a family by name, or another game of it by ``FAMILY:GAME``, importing it on first use.

    Raises:
        UnknownNameError: no such family or game.
    """
    plain, _, game = name.partition(":")
    if plain not in _FAMILIES:
        raise UnknownNameError(f"unknown family {name!r}; choose from {', '.join(_FAMILIES)}")
    module, _, attribute = _FAMILIES[plain].partition(":")
    family: Family = getattr(importlib.import_module(module), attribute)
    if not game:
        return family
    if game not in family.games:
        known = ", ".join(f"{plain}:{other}" for other in family.games)
        raise UnknownNameError(
            f"unknown game {name!r} of family {plain}; " + (f"choose from {known}" if known else "it has no others")
        )
    return family.games[game]


def _games(family: str) -> tuple[str, ...]:
    return tuple(get_family(family).games)
