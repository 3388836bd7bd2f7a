"""Offset packing as CSV, one buffer a line, in the two dialects of MiniMalloc (Moffitt, ASPLOS 2023)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from schedrl.envs.memmap.packing import MAX_BYTES, OffsetPackingInstance, Packing, check_packing
from schedrl.errors import InstanceError, SolutionError

__all__ = ["COLUMNS", "capacity_in_name", "format_minimalloc", "parse_minimalloc", "parse_packing"]

COLUMNS = ("id", "lower", "upper", "size", "alignment", "hint", "gaps", "offset")
_REQUIRED = ("id", "lower", "upper", "size")
_LEGACY: Mapping[str, str] = {"buffer": "id", "buffer_id": "id", "start": "lower", "begin": "lower", "end": "upper"}
_INTEGER = re.compile(r"[+-]?[0-9]{1,16}")
_GAP = re.compile(r"([0-9]{1,16})-([0-9]{1,16})(?:@([0-9]{1,16}):([0-9]{1,16}))?")


@dataclass(slots=True)
class _Row:
    """A line of the file; ``where`` is its place, the cells are those that are not empty."""

    where: str
    cells: dict[str, str]
    inclusive: bool  # the last instant of lifetimes and gaps is one of theirs
    values: dict[str, int] = field(default_factory=dict)
    gaps: list[tuple[int, int, int, int]] = field(default_factory=list)

    @property
    def label(self) -> str:
        return self.cells["id"]

    def fail(self, column: str, what: str) -> InstanceError:
        label = self.cells.get("id")
        of = "" if column == "id" or label is None else f"buffer {label:.40}: "
        return InstanceError(f"{self.where}: field {column}: {of}{what}")


def parse_minimalloc(text: str, *, source: str, name: str, capacity: int | None = None) -> OffsetPackingInstance:
    """Return the instance in a CSV text.

    The header names the columns, in any order: ``id, lower, upper, size`` and if wanted ``alignment, hint, gaps,
    offset``. Lifetimes are half-open, [lower, upper). The older dialect says ``buffer`` or ``buffer_id``, ``start`` or
    ``begin``, and ``end``, which is inclusive, that of gaps as well. Gaps are ``a-b``, when no byte is live, or
    ``a-b@lo:hi``, when only bytes [lo, hi) are, several of them with spaces between. ``offset`` gives a buffer's place.
    An empty cell of a column that is not required says nothing.

    Args:
        text: Content of a file.
        source: Where it came from, the start of every error message.
        name: Name of the instance.
        capacity: Bytes of the memory; None when only the peak counts.

    Raises:
        InstanceError: names file, line and column.
    """
    if capacity is not None and not 1 <= capacity <= MAX_BYTES:
        raise InstanceError(f"{source}: field capacity: {capacity}, expected 1 to {MAX_BYTES}")
    rows = _rows(text, source, _REQUIRED)
    for row in rows:
        _read_numbers(row, capacity)
    if capacity is not None:
        _check_pinned(rows, capacity)
    columns = {column: [row.values[column] for row in rows] for column in ("lower", "upper", "size", "alignment")}
    gaps = [gap for row in rows for gap in row.gaps]
    try:
        return OffsetPackingInstance(
            name=name,
            capacity=capacity,
            fixed_offset=_column(row.values["offset"] for row in rows),
            hint=_column(row.values["hint"] for row in rows),
            gap_offset=np.cumsum([0, *(len(row.gaps) for row in rows)], dtype=np.int32),
            gaps=np.array(gaps, dtype=np.int64).reshape(-1, 4),
            labels=tuple(row.label for row in rows),
            **{column: _column(values) for column, values in columns.items()},
        )
    except InstanceError as error:
        raise InstanceError(f"{source}: {error}") from None


def parse_packing(text: str, instance: OffsetPackingInstance, *, source: str) -> Packing:
    """Return the packing in a CSV text: columns ``id`` and ``offset``; lifetimes and sizes must agree where given.

    Raises:
        SolutionError: names file, line and column; the file is of another instance, or a buffer has no offset.
    """
    number = {label: i for i, label in enumerate(instance.labels)}
    offset = np.full(instance.buffers, -1, dtype=np.int64)
    try:
        for row in _rows(text, source, ("id", "offset")):
            i = number.get(row.label)
            if i is None:
                raise row.fail("id", f"{row.label:.40} is no buffer of {instance.name}")
            for column in ("lower", "upper", "size"):
                given = int(getattr(instance, column)[i])
                if column in row.cells and (value := _integer(row, column)) != given:
                    raise row.fail(column, f"{value}, but {given} in {instance.name}")
            offset[i] = _integer(row, "offset")
    except InstanceError as error:
        raise SolutionError(str(error)) from None
    if (missing := np.flatnonzero(offset < 0)).size:
        raise SolutionError(f"{source}: field offset: buffer {instance.labels[missing[0]]} has no offset of 0 or more")
    return Packing(offset=offset)


def format_minimalloc(instance: OffsetPackingInstance, packing: Packing | None = None) -> str:
    """Return an instance as CSV with half-open lifetimes and only the columns that say something.

    With a packing, its offsets are the column ``offset``; without, the offsets that are given are. The capacity is no
    part of the text: public files have it in their names, ``name.CAPACITY.csv``.

    Raises:
        InstanceError: a label that a cell cannot hold.
    """
    for label in instance.labels:
        if not label or label != label.strip() or re.search(r"[,\r\n]", label):
            raise InstanceError(f"{instance.name}: field labels: {label!r:.40} cannot be a cell of a CSV file")
    assert instance.alignment is not None and instance.hint is not None and instance.fixed_offset is not None
    columns: dict[str, Sequence[Any]] = {"id": instance.labels}
    columns |= {column: getattr(instance, column).tolist() for column in ("lower", "upper", "size")}
    if (instance.alignment != 1).any():
        columns["alignment"] = instance.alignment.tolist()
    if (instance.hint >= 0).any():
        columns["hint"] = _blank_negative(instance.hint.tolist())
    assert instance.gaps is not None and instance.gap_offset is not None
    if len(instance.gaps):
        first = instance.gap_offset.tolist()
        texts = [_format_gap(*gap) for gap in instance.gaps.tolist()]
        columns["gaps"] = [" ".join(texts[first[b] : first[b + 1]]) for b in range(instance.buffers)]
    if packing is not None:
        columns["offset"] = packing.offset.tolist()
    elif (instance.fixed_offset >= 0).any():
        columns["offset"] = _blank_negative(instance.fixed_offset.tolist())
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    return "\n".join(lines) + "\n"


def capacity_in_name(file_name: str) -> int | None:
    """Return the capacity that a file name states between its dots, 1048576 for ``A.1048576.csv``, None without one."""
    match = re.fullmatch(r".+\.([0-9]{1,16})\.[^.]+", file_name)
    return int(match[1]) if match else None


def _rows(text: str, source: str, required: Sequence[str]) -> list[_Row]:
    columns: list[str] = []
    inclusive = False
    rows: list[_Row] = []
    seen: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{source}:{number}"
        cells = [cell.strip() for cell in line.split(",")]
        if cells == [""]:
            continue
        if not columns:
            columns = _header(cells, where, required)
            inclusive = "end" in cells
            continue
        if len(cells) != len(columns):
            raise InstanceError(f"{where}: {len(cells)} fields, expected the {len(columns)} of the header")
        row = _Row(where, {column: cell for column, cell in zip(columns, cells, strict=True) if cell}, inclusive)
        for column in required:
            if column not in row.cells:
                raise row.fail(column, "empty")
        if row.label in seen:
            raise row.fail("id", f"{row.label:.40} is defined here and in line {seen[row.label]}, expected once")
        seen[row.label] = str(number)
        rows.append(row)
    if not rows:
        raise InstanceError(f"{source}: no buffers, expected a header and a line for each of at least one")
    return rows


def _header(cells: Sequence[str], where: str, required: Sequence[str]) -> list[str]:
    columns = [_LEGACY.get(cell, cell) for cell in cells]
    for cell, column in zip(cells, columns, strict=True):
        if column not in COLUMNS:
            raise InstanceError(f"{where}: field {cell!r:.40}: unknown column, expected {', '.join(COLUMNS)}")
        if columns.count(column) > 1:
            raise InstanceError(f"{where}: field {column}: two columns say the same")
    for column in required:
        if column not in columns:
            raise InstanceError(f"{where}: field {column}: column missing, the header has {', '.join(cells)}"[:200])
    return columns


def _read_numbers(row: _Row, capacity: int | None) -> None:
    """Read and check the numbers of a line."""
    defaults = {"alignment": 1, "hint": -1, "offset": -1}
    for column in ("lower", "upper", "size", *defaults):
        row.values[column] = _integer(row, column) if column in row.cells else defaults[column]
    value = row.values
    limit = MAX_BYTES if capacity is None else capacity
    if value["size"] < 1:
        raise row.fail("size", f"{value['size']}, expected at least 1")
    if value["upper"] <= value["lower"]:
        raise row.fail("upper", f"lives in [{value['lower']}, {value['upper']}), expected an instant or more")
    if value["alignment"] < 1:
        raise row.fail("alignment", f"{value['alignment']}, expected at least 1")
    for column in ("hint", "offset"):
        if column in row.cells and value[column] < (-1 if column == "hint" else 0):
            raise row.fail(column, f"{value[column]}, expected 0 or more")
    if value["offset"] >= 0 and value["offset"] % value["alignment"]:
        raise row.fail("offset", f"{value['offset']}, expected a multiple of the alignment {value['alignment']}")
    if value["size"] > limit:
        raise row.fail("size", f"{value['size']}, more than the capacity {limit}")
    if value["offset"] + value["size"] > limit:
        raise row.fail("offset", f"ends at {value['offset'] + value['size']}, beyond the capacity {limit}")
    _read_gaps(row)


def _read_gaps(row: _Row) -> None:
    for text in row.cells.get("gaps", "").split():
        match = _GAP.fullmatch(text)
        if match is None:
            raise row.fail("gaps", f"got {text!r:.40}, expected start-end or start-end@low:high")
        start, end, low, high = (int(number or 0) for number in match.groups())
        row.gaps.append((start, end + row.inclusive, low, high))
    row.gaps.sort()
    time, upper, size = row.values["lower"], row.values["upper"], row.values["size"]
    for start, end, low, high in row.gaps:
        if not (time <= start < end <= upper and 0 <= low <= high <= size):
            raise row.fail(
                "gaps",
                f"{_format_gap(start, end, low, high)}, expected separate gaps within {row.values['lower']}-{upper} "
                f"and windows within 0:{size}",
            )
        time = end


def _check_pinned(rows: Sequence[_Row], capacity: int) -> None:
    """Refuse buffers of which the alignment leaves offset 0 only, two of them at a time."""
    wide = [
        row
        for row in rows
        if row.values["offset"] <= 0 and row.values["alignment"] > max(capacity - row.values["size"], 1)
    ]
    if len(wide) < 2:
        return
    # Sorted by start, the buffers at offset 0 collide if and only if the checker says so; it names one pair.
    part = OffsetPackingInstance(
        name="pinned",
        lower=_column(row.values["lower"] for row in wide),
        upper=_column(row.values["upper"] for row in wide),
        size=_column(row.values["size"] for row in wide),
        gap_offset=np.cumsum([0, *(len(row.gaps) for row in wide)], dtype=np.int32),
        gaps=np.array([gap for row in wide for gap in row.gaps], dtype=np.int64).reshape(-1, 4),
        labels=tuple(map(str, range(len(wide)))),
    )
    found = check_packing(part, Packing(offset=np.zeros(len(wide), dtype=np.int64)))
    if not found:
        return
    first, second = (wide[int(number)] for number in re.findall(r"[0-9]+", found[0])[:2])
    raise second.fail(
        "alignment",
        f"{second.values['alignment']} leaves only offset 0 below the capacity {capacity}, and buffer "
        f"{first.label:.40} can only be there at the same time",
    )


def _integer(row: _Row, column: str) -> int:
    text = row.cells[column]
    if not _INTEGER.fullmatch(text) or abs(int(text)) > MAX_BYTES:
        raise row.fail(column, f"got {text!r:.40}, expected an integer")
    return int(text) + (row.inclusive and column == "upper")


def _column(values: Any) -> Any:
    return np.array(list(values), dtype=np.int64)


def _blank_negative(values: Sequence[int]) -> list[int | str]:
    return ["" if value < 0 else value for value in values]


def _format_gap(start: int, end: int, low: int, high: int) -> str:
    return f"{start}-{end}@{low}:{high}" if low or high else f"{start}-{end}"
