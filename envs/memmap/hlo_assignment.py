"""What XLA itself decided: where each value of a compiled module lies, from a dump of its buffer assignment."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schedrl.errors import InstanceError

__all__ = ["AssignedBuffer", "is_assignment_name", "parse_assignment", "read_assignment"]

_ALLOCATION = re.compile(r"\s*allocation (\d{1,9}): (?:0x[0-9a-fA-F]+, )?size (\d{1,16})")
_COLOUR = re.compile(r", color (\d{1,9})\b")
_VALUE = re.compile(r"\s*value: <\d+ (.+) @\d+> \(size=(\d{1,16}),offset=(\d{1,16})\)(?:: (.*))?")
_SPACE = re.compile(r"S\((\d{1,9})\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignedBuffer:
    """Where a value lies: memory space (0 is the slow memory), offset and size in bytes, and in which allocation."""

    value: str
    memory_space: int
    offset: int
    size: int
    shape: str = ""
    allocation: int = -1


def is_assignment_name(file_name: str) -> bool:
    """Tell by its name whether a file is a buffer assignment, ``*buffer-assignment.txt`` or ``*_assignment.json``."""
    return re.search(r"buffer[-_]assignment\.(txt|json)$", file_name) is not None


def read_assignment(path: str | os.PathLike[str]) -> Mapping[str, AssignedBuffer]:
    """Read a buffer assignment by value name, ``fusion.3`` or ``copy-start{0}``.

    Raises:
        InstanceError: unreadable or broken; names file, and line or field.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InstanceError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InstanceError(f"{path}: not UTF-8 text, expected a buffer assignment") from None
    return parse_assignment(text, source=str(path))


def parse_assignment(text: str, *, source: str) -> Mapping[str, AssignedBuffer]:
    """Return the values in a dump that XLA writes, or in a JSON list of objects with the fields of ``AssignedBuffer``.

    In a dump, values have the memory space of their allocation (its colour) or, where it states none, of their shape.

    Raises:
        InstanceError: names file, and line or field; also a value with two places.
    """
    rows = _from_json(text, source) if text.lstrip()[:1] == "[" else _from_dump(text, source)
    table: dict[str, AssignedBuffer] = {}
    for where, row in rows:
        if row.value in table:
            raise InstanceError(f"{where}: field value: {row.value:.60} has two places")
        table[row.value] = row
    if not table:
        raise InstanceError(f"{source}: no values, expected a buffer assignment of XLA or a list of objects")
    return table


def _from_dump(text: str, source: str) -> Iterator[tuple[str, AssignedBuffer]]:
    allocation, colour = -1, ""
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{source}:{number}"
        if start := _ALLOCATION.match(line):
            allocation = int(start[1])
            found = _COLOUR.search(line)
            colour = found[1] if found else ""
        elif line.lstrip().startswith("value: <") and allocation >= 0:
            match = _VALUE.fullmatch(line.rstrip())
            if match is None:
                raise InstanceError(
                    f"{where}: field value: got {line.strip()[:60]!r}, expected <id name @0> (size=,offset=)"
                )
            shape = match[4] or ""
            space = _SPACE.search(shape)
            yield (
                where,
                AssignedBuffer(
                    value=match[1],
                    memory_space=int(colour or (space[1] if space else 0)),
                    offset=int(match[3]),
                    size=int(match[2]),
                    shape=shape,
                    allocation=allocation,
                ),
            )
        elif line and not line[0].isspace() and not line.startswith("BufferAssignment"):
            # Sections after the allocations repeat values without places.
            allocation = -1


def _from_json(text: str, source: str) -> Iterator[tuple[str, AssignedBuffer]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise InstanceError(f"{source}:{line}: not valid JSON: {' '.join(str(error).split())}") from None
    for number, row in enumerate(rows):
        where = f"{source}: field [{number}]"
        if not isinstance(row, dict):
            raise InstanceError(f"{where}: expected an object, got {row!r:.40}")
        yield (
            where,
            AssignedBuffer(
                value=_field(row, "value", str, where),
                memory_space=_field(row, "memory_space", int, where),
                offset=_field(row, "offset", int, where),
                size=_field(row, "size", int, where),
                shape=_field({"shape": "", **row}, "shape", str, where),
                allocation=_field({"allocation": -1, **row}, "allocation", int, where),
            ),
        )


def _field(row: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    value = row.get(name)
    least = -1 if name == "allocation" else 0
    if type(value) is not kind or (isinstance(value, int) and value < least):
        expected = "str" if kind is str else "an integer of 0 or more"
        raise InstanceError(f"{where}.{name}: got {value!r:.40}, expected {expected}")
    return value
