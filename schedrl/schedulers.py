"""The Scheduler and Policy contracts, their one result type, and the registry of schedulers."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from schedrl.arrays import I32
from schedrl.errors import UnknownNameError
from schedrl.families import Instance, Solution, family_names
from schedrl.graphs import DecisionBatch, StaticGraph

__all__ = [
    "Information",
    "Policy",
    "Result",
    "Scheduler",
    "SchedulerSpec",
    "Status",
    "get_scheduler",
    "schedulers_of",
]

Information = Literal["online", "clairvoyant"]
Status = Literal["optimal", "feasible", "infeasible", "timeout", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What every method returns: a solution and what is known about it.

    ``lower_bound`` is a proven bound on the optimum in the objective's unit, where the method gives one.
    ``decisions`` counts policy decisions, 0 for methods that make none. ``solution`` and ``objective``
    are None exactly when the status is infeasible, or timeout without an incumbent.
    """

    solution: Solution | None
    objective: float | None
    status: Status
    runtime_s: float
    lower_bound: float | None = None
    decisions: int = 0


class Scheduler(Protocol):
    """Maps an instance to a solution within a time limit."""

    def schedule(self, instance: Instance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best solution found; anytime methods stop at ``time_limit_s`` wall seconds."""
        ...


class Policy(Protocol):
    """Picks one candidate at each decision of a batch of running instances.

    A policy may keep per-instance state, such as node embeddings, between ``begin`` and the last ``select``.
    """

    def begin(self, graphs: Sequence[StaticGraph]) -> None:
        """Prepare for new episodes; row b of later calls belongs to ``graphs[b]``."""
        ...

    def select(self, decision: DecisionBatch, rng: np.random.Generator | None = None, temperature: float = 1.0) -> I32:
        """Return the chosen slot of every row (B,), -1 for rows without candidates.

        ``rng`` None asks for the greedy choice, otherwise the policy samples; a higher ``temperature`` samples
        more evenly.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSpec:
    """A registered scheduler: its full name ``family/scheduler``, how to build it, and what it may see.

    ``with_bundle`` builds the same scheduler around another exported policy; None for methods without one.
    """

    name: str
    make: Callable[[], Scheduler]
    information: Information
    summary: str
    source: str
    randomised: bool = False
    with_bundle: Callable[[Path], Scheduler] | None = None
    problem: str = ""
    """the only kind of problem that it solves, where a family has several; empty for all"""


def schedulers_of(family: str) -> Mapping[str, SchedulerSpec]:
    """Return every registered scheduler of a family, or of the family of a game, by full name.

    Raises:
        UnknownNameError: the family is not registered.
    """
    family = family.partition(":")[0]
    if family not in family_names():
        raise UnknownNameError(f"unknown family {family!r}; choose from {', '.join(family_names())}")
    module: Any = importlib.import_module(f"schedrl.baselines.{family}")
    specs: Sequence[SchedulerSpec] = module.SCHEDULERS
    return {spec.name: spec for spec in specs}


def get_scheduler(name: str) -> SchedulerSpec:
    """Return the spec of ``family/scheduler``, or of ``family/scheduler@FILE`` with the policy in a bundle.

    Raises:
        UnknownNameError: no such scheduler, or one that plays no policy; the message lists the choices.
    """
    plain, _, bundle = name.partition("@")
    specs = schedulers_of(plain.partition("/")[0])
    if plain not in specs:
        raise UnknownNameError(f"unknown scheduler {plain!r}; choose from {', '.join(sorted(specs))}")
    spec = specs[plain]
    if not bundle:
        return spec
    if spec.with_bundle is None:
        able = ", ".join(sorted(other.name for other in specs.values() if other.with_bundle))
        raise UnknownNameError(f"{plain} plays no exported policy; @FILE goes with {able}")
    return dataclasses.replace(
        spec, name=name, make=functools.partial(spec.with_bundle, Path(bundle)), source=f"exported policy {bundle}"
    )
