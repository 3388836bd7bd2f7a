"""Solutions on disk, and pictures of the best and of the featured ones."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schedrl.atomic import write_text
from schedrl.evaluation.results import ResultRow, RunKey
from schedrl.families import Family, SuiteEntry

__all__ = ["Picture", "draw_gallery", "is_learned", "save_solution", "solution_path"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One drawn solution: the row it belongs to, why it was chosen, and its SVG file or what went wrong."""

    row: ResultRow
    role: str  # "best" or "learned" or both
    path: Path
    problem: str = ""


def solution_path(out: Path, key: RunKey) -> Path:
    """Return ``out/solutions/INSTANCE__SCHEDULER__SEED.json``."""
    return out / "solutions" / f"{_file_name(key.instance)}__{_file_name(_local(key.scheduler))}__{key.seed}.json"


def save_solution(out: Path, key: RunKey, text: str) -> None:
    """Write a solution's JSON, atomically."""
    write_text(solution_path(out, key), text)


def is_learned(scheduler: str) -> bool:
    """Whether a scheduler's name says that it runs a learned policy (``.../ppo``, ``.../ppo-sample``)."""
    return "ppo" in _local(scheduler).split("-")


def draw_gallery(
    family: Family, entries: Sequence[SuiteEntry], rows: Sequence[ResultRow], out: Path, *, instances: int
) -> list[Picture]:
    """Draw into ``out/gantt``, for up to ``instances`` instances spread evenly over the suite.

    Of each instance the best checked solution is drawn, and the best one of a learned policy.
    """
    if not entries or instances < 1:
        return []
    chosen = np.unique(np.linspace(0, len(entries) - 1, min(instances, len(entries))).round().astype(int))
    pictures: list[Picture] = []
    for entry in (entries[k] for k in chosen):
        solved = [row for row in rows if row.instance == entry.instance.name and row.value is not None]
        learned = [row for row in solved if is_learned(row.scheduler)]
        roles: dict[RunKey, tuple[ResultRow, list[str]]] = {}
        for role, candidates in (("best", solved), ("learned", learned)):
            if candidates:
                row = min(candidates, key=lambda row: (row.value, row.wall_s or 0.0))
                roles.setdefault(row.key, (row, []))[1].append(role)
        pictures += [_draw(family, entry, row, " and ".join(why), out) for row, why in roles.values()]
    return pictures


def _draw(family: Family, entry: SuiteEntry, row: ResultRow, role: str, out: Path) -> Picture:
    path = out / "gantt" / f"{_file_name(row.instance)}__{_file_name(_local(row.scheduler))}.svg"
    try:
        source = solution_path(out, row.key)
        solution = family.solution_type.from_json(source.read_text(encoding="utf-8"), source=str(source))
        path.parent.mkdir(parents=True, exist_ok=True)
        family.render(entry.instance, solution, path)
    except Exception as error:  # a picture that fails must not cost the report its tables
        return Picture(row=row, role=role, path=path, problem=f"{type(error).__name__}: {error}")
    return Picture(row=row, role=role, path=path)


def _local(scheduler: str) -> str:
    return scheduler.partition("/")[2] or scheduler


def _file_name(name: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80]
    # The checksum keeps names apart that differ only in the characters replaced or cut.
    return safe if safe == name else f"{safe}-{zlib.crc32(name.encode()):08x}"
