"""Parsers of the three text layouts of job-shop files: standard, Taillard, and OR-library collections."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np

from schedrl.arrays import I64
from schedrl.envs.jobshop.instance import MAX_TIME, JobShopInstance
from schedrl.errors import InstanceError

__all__ = ["SUPPORTED", "parse_text"]

# Every error about an unknown format lists what the reader in ``formats`` takes.
SUPPORTED = (
    "standard text ('jobs machines', then a row of 'machine duration' pairs per job), Taillard text ('Times' and "
    "'Machines' blocks), OR-library collection ('instance NAME' headings), JSON or ScheduleOpt JSON"
)

_HEADING = re.compile(r"instance\s+(\S+)", re.IGNORECASE)


def parse_text(text: str, *, source: str, name: str) -> Iterator[JobShopInstance]:
    """Yield the instances of a text in any of the three layouts, told by its content.

    Args:
        text: Content of a file.
        source: Where the text came from, the start of every error message.
        name: Name of the instance where the layout carries none; numbered where it holds several.

    Raises:
        InstanceError: ``source:line: field ...: what is wrong, what is expected``.
    """
    lines = _Lines.of(text, source)
    if not lines.texts:
        raise InstanceError(f"{source}: empty file, expected {SUPPORTED}")
    if any(line.lower() == "times" for line in lines.texts):
        return _parse_taillard(lines, name)
    if any(_HEADING.fullmatch(line) for line in lines.texts):
        return _parse_collection(lines)
    if re.match(r"[+-]?\d", lines.texts[0]):
        return iter([_parse_standard(lines, name)])
    raise lines.error(0, f"no known format, expected {SUPPORTED}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lines:
    """The lines of a text that hold something, without comments, and their numbers."""

    source: str
    numbers: list[int]
    texts: list[str]
    ended: bool  # whether the text's last line was completed by a newline

    @classmethod
    def of(cls, text: str, source: str) -> _Lines:
        raw = text.splitlines()
        if "#" in text:
            raw = [line.partition("#")[0] for line in raw]
        filled = [(number, line.strip()) for number, line in enumerate(raw, start=1) if line and not line.isspace()]
        return cls(
            source=source,
            numbers=[number for number, _ in filled],
            texts=[line for _, line in filled],
            ended=text.endswith(("\n", "\r")),
        )

    def part(self, start: int, stop: int) -> _Lines:
        ended = self.ended or stop < len(self.texts)
        return _Lines(source=self.source, numbers=self.numbers[start:stop], texts=self.texts[start:stop], ended=ended)

    def error(self, row: int, what: str) -> InstanceError:
        """Return an error at a row; a row past the end points at the last line there is."""
        number = self.numbers[min(row, len(self.numbers) - 1)] if self.numbers else 1
        return InstanceError(f"{self.source}:{number}: {what}")


class _Rows(NamedTuple):
    values: I64  # all integers of all rows, end to end
    lengths: I64  # (rows,)

    def locate(self, index: int) -> tuple[int, int]:
        """Return row and column of a flat index."""
        ends = np.cumsum(self.lengths)
        row = int(np.searchsorted(ends, index, side="right"))
        return row, index - int(ends[row] - self.lengths[row])


def _integers(lines: _Lines, field: str) -> _Rows:
    """Parse whitespace-separated integers in bulk; only a failure looks at tokens one by one."""
    rows = [line.split() for line in lines.texts]
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    try:
        if not all(map(str.isascii, lines.texts)) or any("_" in line for line in lines.texts):
            raise ValueError("int() reads digits of other scripts and underscores, the formats do not")
        return _Rows(np.array(list(map(int, chain.from_iterable(rows))), dtype=np.int64), lengths)
    except (ValueError, OverflowError):
        raise _first_bad_token(lines, rows, field) from None


def _first_bad_token(lines: _Lines, rows: list[list[str]], field: str) -> InstanceError:
    for row, tokens in enumerate(rows):
        for column, token in enumerate(tokens):
            if not re.fullmatch(r"[+-]?[0-9]{1,18}", token):
                where = f"field {field.format(row=row)} value {column + 1}"
                return lines.error(row, f"{where}: {token[:40]!r}, expected an integer of at most 18 digits")
    raise AssertionError("a token failed in bulk but not alone")


def _header(lines: _Lines, *, extra: bool = False) -> tuple[int, int]:
    """Return (jobs, machines) from the first line; ``extra`` allows further values after them."""
    size = _integers(lines.part(0, 1), "header").values
    if len(size) < 2 or (len(size) > 2 and not extra):
        raise lines.error(0, f"field header: {len(size)} values, expected 2, 'jobs machines'")
    for field, value in zip(("jobs", "machines"), size, strict=False):
        if not 1 <= value <= np.iinfo(np.int32).max:
            raise lines.error(0, f"field {field}: {value}, expected at least 1")
    return int(size[0]), int(size[1])


def _require_rows(lines: _Lines, rows: int, field: str) -> None:
    """Compare the rows after the first line of ``lines`` with the number of jobs in the header."""
    found = len(lines.texts) - 1
    if found < rows:
        raise lines.error(found, f"field {field}: the file ends after {found} rows, expected {rows} as in the header")
    if found > rows:
        raise lines.error(rows + 1, f"field {field}: one row too many, expected {rows} as in the header")


def _parse_standard(lines: _Lines, name: str) -> JobShopInstance:
    jobs, machines = _header(lines)
    _require_rows(lines, jobs, "jobs")
    body = lines.part(1, jobs + 1)
    rows = _integers(body, "job {row}")
    terminated = _terminated(body, rows)
    if terminated:
        last = np.cumsum(rows.lengths) - 1
        rows = _Rows(np.delete(rows.values, np.concatenate([last, last - 1])), rows.lengths - 2)
    if (odd := np.flatnonzero(rows.lengths % 2)).size:
        length = rows.lengths[odd[0]]
        raise body.error(int(odd[0]), f"field job {odd[0]}: {length} values, expected pairs of machine and duration")
    if (none := np.flatnonzero(rows.lengths == 0)).size:
        raise body.error(int(none[0]), f"field job {none[0]}: no operation, expected at least one")
    if not (body.ended or terminated):
        _require_whole_last_row(body, rows.lengths // 2)
    machine, duration = rows.values[::2], rows.values[1::2]
    pairs = _Rows(machine, rows.lengths // 2)
    _require_range(body, pairs, "machine", 0, machines - 1)
    _require_range(body, _Rows(duration, pairs.lengths), "duration", 0, MAX_TIME)
    return _build(body, name, machines, pairs.lengths, machine, duration)


def _terminated(lines: _Lines, rows: _Rows) -> bool:
    """Tell whether rows end with ``-1 -1``, as in the files of Da Col and Teppan: all of them or none."""
    last = np.cumsum(rows.lengths) - 1
    ended = (rows.lengths >= 2) & (rows.values[last] == -1) & (rows.values[last - 1] == -1)
    if ended.any() and not ended.all():
        row = int(np.flatnonzero(~ended)[0])
        raise lines.error(row, f"field job {row}: no '-1 -1' at the end of the row, expected it as in other rows")
    return bool(ended.any())


def _require_whole_last_row(lines: _Lines, operations: I64) -> None:
    """Refuse what looks cut off: one short job at the end of a rectangle, without a newline after it."""
    others = operations[:-1]
    if others.size and (others == others[0]).all() and operations[-1] < others[0]:
        raise lines.error(
            len(others),
            f"field job {len(others)}: the file ends after {operations[-1]} operations, expected {others[0]} "
            "as in all other jobs (a job that is shorter on purpose ends with a newline)",
        )


def _require_range(lines: _Lines, rows: _Rows, field: str, low: int, high: int) -> None:
    bad = np.flatnonzero((rows.values < low) | (rows.values > high))
    if bad.size:
        row, column = rows.locate(int(bad[0]))
        value = rows.values[bad[0]]
        raise lines.error(row, f"field job {row} operation {column} {field}: {value}, expected {low} to {high}")


def _build(lines: _Lines, name: str, machines: int, operations: I64, machine: I64, duration: I64) -> JobShopInstance:
    try:
        return JobShopInstance(
            name=name,
            machines=machines,
            job_offset=np.concatenate([[0], np.cumsum(operations)]),
            machine=machine.astype(np.int32),
            duration=duration,
        )
    except InstanceError as error:
        raise lines.error(0, str(error)) from None


def _parse_taillard(lines: _Lines, name: str) -> Iterator[JobShopInstance]:
    """Yield each 'header, Times, Machines' block; the file of one size holds ten."""
    # A block starts at its line of integers above 'Times'; words above that line say what they are.
    starts = [row - 1 for row, line in enumerate(lines.texts) if line.lower() == "times"]
    if starts[0] < 0:
        raise lines.error(0, "field header: missing above 'Times', expected 'jobs machines'")
    for number, (start, stop) in enumerate(zip(starts, [*starts[1:], len(lines.texts)], strict=True), start=1):
        part = lines.part(start, stop)
        if stop < len(lines.texts) and not re.match(r"[+-]?\d", part.texts[-1]):
            part = part.part(0, len(part.texts) - 1)
        yield _taillard_block(part, name if len(starts) == 1 else f"{name}-{number:02d}")


def _taillard_block(lines: _Lines, name: str) -> JobShopInstance:
    jobs, machines = _header(lines, extra=True)
    split = next((row for row, line in enumerate(lines.texts) if line.lower() == "machines"), None)
    if split is None:
        raise lines.error(len(lines.texts), "field Machines: block missing, expected it after the Times block")
    duration = _taillard_rows(lines.part(1, split), "Times", jobs, machines)
    _require_range(lines.part(2, split), duration, "duration", 0, MAX_TIME)
    machine = _taillard_rows(lines.part(split, len(lines.texts)), "Machines", jobs, machines)
    _require_range(lines.part(split + 1, len(lines.texts)), machine, "machine", 1, machines)
    return _build(lines, name, machines, duration.lengths, machine.values - 1, duration.values)


def _taillard_rows(lines: _Lines, field: str, jobs: int, machines: int) -> _Rows:
    _require_rows(lines, jobs, field)
    body = lines.part(1, jobs + 1)
    rows = _integers(body, f"{field} job {{row}}")
    if (bad := np.flatnonzero(rows.lengths != machines)).size:
        row = int(bad[0])
        raise body.error(row, f"field {field} job {row}: {rows.lengths[row]} values, expected {machines}")
    return rows


def _parse_collection(lines: _Lines) -> Iterator[JobShopInstance]:
    """Yield each 'instance NAME' section of an OR-library file: words, then standard text, then a +++ line."""
    heads = [(row, match[1]) for row, line in enumerate(lines.texts) if (match := _HEADING.fullmatch(line))]
    for (head, name), (stop, _) in zip(heads, [*heads[1:], (len(lines.texts), "")], strict=True):
        numeric = (row for row in range(head + 1, stop) if re.fullmatch(r"\d+\s+\d+", lines.texts[row]))
        start = next(numeric, None)
        if start is None:
            raise lines.error(head, f"field header: missing in instance {name}, expected a line 'jobs machines'")
        end = next((row for row in range(start, stop) if lines.texts[row].startswith("+")), stop)
        yield _parse_standard(lines.part(start, end), name)
