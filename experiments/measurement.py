"""What every study does alike: look up its schedulers, run them under the checker, and write table and verdict."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from schedrl.atomic import write_text
from schedrl.errors import BundleError, UnknownNameError
from schedrl.families import get_family
from schedrl.schedulers import Result, Scheduler, get_scheduler

__all__ = ["Verdict", "checked_objectives", "checked_run", "find_schedulers", "write_table", "write_verdicts"]

_NO_LIMIT_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was claimed elsewhere, what we measured, and whether the two agree."""

    claim: str
    measured: str
    verdict: str

    def __str__(self) -> str:
        return f"claim:    {self.claim}\nmeasured: {self.measured}\nverdict:  {self.verdict}"


def find_schedulers(names: Sequence[str], probe: Any) -> tuple[dict[str, Scheduler], list[str]]:
    """Return the schedulers that run here by name, and a note on each that does not.

    A name may carry a bundle, ``socdag/ppo@FILE``. A learned policy whose weights are not there only shows it when
    it runs, so each scheduler solves ``probe``, a small instance, once; that also compiles its kernels.
    """
    found: dict[str, Scheduler] = {}
    notes = []
    for name in names:
        try:
            scheduler = get_scheduler(name).make()
            scheduler.schedule(probe, time_limit_s=_NO_LIMIT_S, rng=np.random.default_rng(0))
        except (UnknownNameError, BundleError, OSError, ModuleNotFoundError) as error:
            notes.append(f"{name} left out: {str(error).partition('; choose from')[0]}")
        else:
            found[name] = scheduler
    return found, notes


def checked_run(
    family: str, scheduler: Scheduler, instance: Any, *, time_limit_s: float = _NO_LIMIT_S, seed: int = 0
) -> tuple[Result, dict[str, float]]:
    """Return a scheduler's result with the objectives of its solution, which the family's checker has passed.

    Raises:
        RuntimeError: no solution, or one that breaks a rule of the problem.
    """
    result = scheduler.schedule(instance, time_limit_s=time_limit_s, rng=np.random.default_rng(seed))
    known = get_family(family)
    if result.solution is None:
        raise RuntimeError(f"{instance.name}: no solution, status {result.status}")
    if violations := known.check(instance, result.solution):
        raise RuntimeError(f"{instance.name}: {violations[0]}")
    return result, known.objectives(instance, result.solution)


def checked_objectives(scheduler: Scheduler, instance: Any, seed: int = 0) -> dict[str, float]:
    """Return the objectives of a scheduler's checked solution of a task graph, without a time limit.

    Raises:
        RuntimeError: as ``checked_run``.
    """
    return checked_run("socdag", scheduler, instance, seed=seed)[1]


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows of equal keys as CSV, numbers with six significant digits and None as an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    write_text(path, text.getvalue())


def write_verdicts(path: Path, verdicts: Sequence[Verdict], notes: Sequence[str]) -> None:
    """Print verdicts and notes, and write both as JSON."""
    for verdict in verdicts:
        print(f"\n{verdict}")
    for note in notes:
        print(f"note:     {note}")
    content = {"verdicts": [asdict(verdict) for verdict in verdicts], "notes": list(notes)}
    write_text(path, json.dumps(content, indent=2) + "\n")
