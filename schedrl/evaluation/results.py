"""One row per instance, scheduler, seed and objective, in a CSV file that survives interruption."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from schedrl.atomic import write_text
from schedrl.errors import ConfigError
from schedrl.schedulers import Information

__all__ = ["COLUMNS", "ReferenceKind", "ResultLog", "ResultRow", "RowStatus", "RunKey", "read_results"]

ReferenceKind: TypeAlias = Literal["optimal", "best-known", "bound", "baseline", ""]
RowStatus: TypeAlias = Literal["ok", "timeout", "failed", "infeasible"]


class RunKey(NamedTuple):
    """What identifies one run of a scheduler."""

    instance: str
    scheduler: str
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """One objective of one run; the fields are the columns of ``results.csv``, in this order.

    ``value`` is recomputed from the solution and present only if the checker accepted it. ``reference`` and
    ``gap`` = (value - reference) / reference belong to the family's primary objective and are None for the
    others. ``wall_s`` is the time of the scheduler's call alone. ``peak_memory_mb`` is by how much the
    process's resident memory rose above its level at the start of the call, in MiB (see ``execution``).
    """

    family: str
    suite: str
    instance: str
    scheduler: str
    information: Information
    seed: int
    objective: str
    value: float | None
    reference: float | None
    reference_kind: ReferenceKind
    gap: float | None
    wall_s: float | None
    decisions: int
    peak_memory_mb: float | None
    checked: bool
    status: RowStatus
    message: str

    @property
    def key(self) -> RunKey:
        """Instance, scheduler and seed."""
        return RunKey(self.instance, self.scheduler, self.seed)


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(ResultRow))


def read_results(path: Path) -> list[ResultRow]:
    """Read a results file; a last line without its newline, left by an interrupted write, is ignored.

    Raises:
        ConfigError: another header, or a malformed complete line; the message names file and line.
    """
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read results: {error.strerror}") from None
    complete = text[: text.rfind("\n") + 1].split("\n")[:-1]
    if not complete:
        return []
    if complete[0] != ",".join(COLUMNS):
        raise ConfigError(f"{path}:1: not a results file of this version: expected the columns {','.join(COLUMNS)}")
    return [_parse(cells, f"{path}:{line}") for line, cells in enumerate(csv.reader(complete[1:]), start=2)]


class ResultLog:
    """Appends the rows of one run at a time, flushed to disk, so that finished runs outlive a crash.

    Opening keeps the runs that are complete and drops the rest: a run is complete when its row of the
    primary objective is there, which is why ``append`` writes that row last.
    """

    def __init__(self, path: Path, *, objective: str, retry_failed: bool = False) -> None:
        """Open or create the file; ``objective`` is the primary one, ``retry_failed`` forgets failed runs.

        Raises:
            ConfigError: the file exists and ``read_results`` refuses it.
        """
        self.path = path
        rows = read_results(path) if path.exists() else []
        self.finished = {
            row.key for row in rows if row.objective == objective and not (retry_failed and row.status == "failed")
        }
        self.rows = [row for row in rows if row.key in self.finished]
        self._objective = objective
        write_text(path, _lines([COLUMNS]) + _lines(map(_cells, self.rows)))

    def append(self, rows: Sequence[ResultRow]) -> None:
        """Add the rows of one run, one per objective, and return when they are on disk."""
        ordered = sorted(rows, key=lambda row: row.objective == self._objective)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(_lines(map(_cells, ordered)))
            file.flush()
            os.fsync(file.fileno())
        self.rows.extend(ordered)
        self.finished.update(row.key for row in ordered)


def _lines(cells: Iterable[Sequence[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(cells)
    return buffer.getvalue()


def _cells(row: ResultRow) -> list[str]:
    return [_cell(getattr(row, column)) for column in COLUMNS]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    # A line break inside a cell would make a complete run look truncated to line-based readers.
    return " ".join(str(value).split())


def _parse(cells: list[str], where: str) -> ResultRow:
    if len(cells) != len(COLUMNS):
        raise ConfigError(f"{where}: {len(cells)} cells, expected {len(COLUMNS)}")
    cell = dict(zip(COLUMNS, cells, strict=True))
    for column, kind in (("information", Information), ("reference_kind", ReferenceKind), ("status", RowStatus)):
        if cell[column] not in get_args(kind):
            raise ConfigError(f"{where}: field {column}: {cell[column]!r}, expected one of {get_args(kind)}")
    try:
        number = {column: _optional(cell[column]) for column in _NUMBERS}
        whole = {column: int(cell[column]) for column in ("seed", "decisions")}
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    text = {column: cell[column] for column in COLUMNS if column not in number and column not in whole}
    values: dict[str, Any] = {**text, **number, **whole, "checked": cell["checked"] == "True"}
    return ResultRow(**values)


_NUMBERS = ("value", "reference", "gap", "wall_s", "peak_memory_mb")


def _optional(text: str) -> float | None:
    return float(text) if text else None
