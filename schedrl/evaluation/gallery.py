"""Solutions on disk, and pictures of the best and of the featured ones."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from schedrl.atomic import write_text
from schedrl.evaluation.results import ResultRow, RunKey
from schedrl.families import Family, SuiteEntry

__all__ = ["Picture", "draw_gallery", "is_learned", "save_solution", "solution_path"]


# Curves of more schedulers than this cannot be told apart in one picture.
_MOST_COMPARED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One drawing: the row it belongs to, why it was chosen, and its SVG file or what went wrong."""

    row: ResultRow
    role: str  # "best" or "learned" or both, or "all" where the solutions of several schedulers are drawn
    path: Path
    problem: str = ""
    title: str = ""  # of a family's further pictures; none for the solution itself


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
    """Draw into ``out/gantt`` and ``out/pictures``, for up to ``instances`` instances spread over the suite.

    Of each instance the best checked solution is drawn, and the best one of a learned policy, each with the further
    pictures that the family has; then those that compare the schedulers.
    """
    if not entries or instances < 1:
        return []
    chosen = np.unique(np.linspace(0, len(entries) - 1, min(instances, len(entries))).round().astype(int))
    pictures: list[Picture] = []
    for entry in (entries[k] for k in chosen):
        solved = [row for row in rows if row.instance == entry.instance.name and row.value is not None]
        solved.sort(key=lambda row: (row.value, row.wall_s or 0.0))
        learned = [row for row in solved if is_learned(row.scheduler)]
        roles: dict[RunKey, tuple[ResultRow, list[str]]] = {}
        for role, candidates in (("best", solved), ("learned", learned)):
            if candidates:
                roles.setdefault(candidates[0].key, (candidates[0], []))[1].append(role)
        for row, why in roles.values():
            pictures += _draw_solution(family, entry, row, " and ".join(why), out)
        pictures += _draw_comparison(family, entry, solved, out)
    return pictures


def _draw_solution(family: Family, entry: SuiteEntry, row: ResultRow, role: str, out: Path) -> Iterator[Picture]:
    stem = f"{_file_name(row.instance)}__{_file_name(_local(row.scheduler))}"
    draws = {"": (out / "gantt" / f"{stem}.svg", family.render)}
    for title, draw in family.pictures.items():
        draws[title] = (out / "pictures" / f"{stem}__{_file_name(title)}.svg", draw)
    for title, (path, draw) in draws.items():

        def write(path: Path = path, draw: Callable[[Any, Any, Path], None] = draw) -> None:
            draw(entry.instance, _solution(family, row, out), path)

        problem = _problem(path, write)
        if problem or path.exists():
            yield Picture(row=row, role=role, path=path, problem=problem, title=title)


def _draw_comparison(family: Family, entry: SuiteEntry, solved: Sequence[ResultRow], out: Path) -> Iterator[Picture]:
    """Draw the best solution of each scheduler, the best schedulers and the learned ones; ``solved`` is sorted."""
    best: dict[str, ResultRow] = {}
    for row in solved:
        best.setdefault(row.scheduler, row)
    names = list(best)
    shown = [name for k, name in enumerate(names) if k < _MOST_COMPARED or is_learned(name)]
    if not shown:
        return
    for title, draw in family.comparison_pictures.items():
        path = out / "pictures" / f"{_file_name(entry.instance.name)}__{_file_name(title)}.svg"

        def write(path: Path = path, draw: Callable[[Any, Mapping[str, Any], Path], None] = draw) -> None:
            draw(entry.instance, {_local(name): _solution(family, best[name], out) for name in shown}, path)

        problem = _problem(path, write)
        if problem or path.exists():
            yield Picture(row=solved[0], role="all", path=path, problem=problem, title=title)


def _problem(path: Path, write: Callable[[], None]) -> str:
    """Draw a picture anew and return what went wrong: a picture that fails must not cost the report its tables."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        write()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _solution(family: Family, row: ResultRow, out: Path) -> Any:
    source = solution_path(out, row.key)
    return family.solution_type.from_json(source.read_text(encoding="utf-8"), source=str(source))


def _local(scheduler: str) -> str:
    return scheduler.partition("/")[2] or scheduler


def _file_name(name: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80]
    # The checksum keeps names apart that differ only in the characters replaced or cut.
    return safe if safe == name else f"{safe}-{zlib.crc32(name.encode()):08x}"
