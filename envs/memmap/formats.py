"""Readers and writers of memory-mapping files: MiniMalloc CSV, our JSON, contest JSON and XLA HLO text."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from schedrl.devices.memory import MemoryDevice
from schedrl.envs.memmap.contest import parse_contest
from schedrl.envs.memmap.hlo import parse_hlo
from schedrl.envs.memmap.hlo_assignment import is_assignment_name
from schedrl.envs.memmap.hlo_text import is_hlo
from schedrl.envs.memmap.instance import SCHEMA as PROGRAM_SCHEMA
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.minimalloc_csv import capacity_in_name, format_minimalloc, parse_minimalloc, parse_packing
from schedrl.envs.memmap.packing import SCHEMA as PACKING_SCHEMA
from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing
from schedrl.envs.memmap.program_json import parse_program, with_line
from schedrl.errors import InstanceError, SolutionError

__all__ = [
    "SUFFIXES",
    "SUPPORTED",
    "parse_instance",
    "read_instance",
    "read_instances",
    "read_minimalloc",
    "read_packing",
    "write_instance",
    "write_packing",
]

SUFFIXES = (".csv", ".json", ".hlo", ".txt")
SUPPORTED = "MiniMalloc CSV, memory-map or contest JSON, or XLA HLO text"

Instance = MemoryMapInstance | OffsetPackingInstance


def read_instance(path: str | os.PathLike[str], *, memory: MemoryDevice | None = None) -> Instance:
    """Read a file, whatever its format: a program to map, or from CSV buffers to pack.

    The capacity of a CSV file is that in its name, ``A.1048576.csv``, as in MiniMalloc's public files.

    Args:
        path: The file.
        memory: The device of programs; by default that of the file, and where it names none ``default_memory``.

    Raises:
        InstanceError: unreadable, in no supported format, or broken; one line that names file, and line or field.
    """
    file = Path(path)
    return parse_instance(
        _read_text(file),
        source=str(file),
        name=_stem(file),
        memory=memory,
        capacity=capacity_in_name(file.name),
    )


def read_instances(path: str | os.PathLike[str], *, memory: MemoryDevice | None = None) -> Iterator[Instance]:
    """Yield the instance of a file, or those of all files under a folder in natural order of their paths.

    In a folder, files with a suffix of ``SUFFIXES`` are read, of ``.txt`` only HLO modules; buffer assignments are not.

    Raises:
        InstanceError: as ``read_instance``, or a folder without instance files.
    """
    root = Path(path)
    if not root.is_dir():
        yield read_instance(root, memory=memory)
        return
    files = sorted((file for file in root.rglob("*") if _is_instance_file(file)), key=_natural)
    if not files:
        raise InstanceError(f"{root}: no instance file, expected at least one of *{', *'.join(SUFFIXES)}")
    for file in files:
        yield read_instance(file, memory=memory)


def read_minimalloc(
    path: str | os.PathLike[str], *, capacity: int | Literal["name"] | None = None
) -> OffsetPackingInstance:
    """Read buffers to pack from a CSV file.

    Args:
        path: The file; the instance is named after it, up to the first dot.
        capacity: Bytes of the memory; "name" for what the file name states; None when only the peak counts.

    Raises:
        InstanceError: names file, line and column.
    """
    file = Path(path)
    if capacity == "name":
        capacity = capacity_in_name(file.name)
        if capacity is None:
            raise InstanceError(f"{file}: field capacity: none in the file name, expected NAME.CAPACITY.csv")
    instance = parse_instance(_read_text(file), source=str(file), name=_stem(file), capacity=capacity)
    if not isinstance(instance, OffsetPackingInstance):
        raise InstanceError(f"{file}: a program, expected buffers to pack")
    return instance


def read_packing(path: str | os.PathLike[str], instance: OffsetPackingInstance) -> Packing:
    """Read a packing of an instance: the ``offset`` column of a CSV file, or ``Packing.to_json``.

    Raises:
        SolutionError: unreadable, broken, or of another instance; names file, line and column.
    """
    source = str(path)
    try:
        text = _read_text(Path(path))
        if text.lstrip()[:1] != "{":
            return parse_packing(text, instance, source=source)
    except InstanceError as error:
        raise SolutionError(str(error)) from None
    except SolutionError as error:
        raise SolutionError(" ".join(str(error).split())) from None
    packing = Packing.from_json(text, source=source)
    if len(packing.offset) != instance.buffers:
        raise SolutionError(f"{source}: field offset: {len(packing.offset)} offsets for {instance.buffers} buffers")
    return packing


def parse_instance(
    text: str, *, source: str, name: str, memory: MemoryDevice | None = None, capacity: int | None = None
) -> Instance:
    """Return the instance in a text; its format is told by its content.

    Args:
        text: Content of a file.
        source: Where it came from, the start of every error message.
        name: Name of the instance where the format carries none.
        memory: As in ``read_instance``.
        capacity: Bytes of the memory of CSV files.

    Raises:
        InstanceError: as ``read_instance``.
    """
    try:
        start = text.lstrip()[:1]
        if not start:
            raise InstanceError(f"{source}: empty file, expected {SUPPORTED}")
        if start in ("{", "["):
            return _parse_json(text, source, name, memory)
        if is_hlo(text):
            return parse_hlo(text, source=source, memory=memory)
        return parse_minimalloc(text, source=source, name=name, capacity=capacity)
    except InstanceError as error:
        # Names from files may hold line ends.
        raise InstanceError(" ".join(str(error).split())) from None
    except RecursionError:
        raise InstanceError(f"{source}: nested too deeply") from None


def write_instance(instance: Instance, path: str | os.PathLike[str]) -> None:
    """Write an instance as JSON or, by the suffix ``.csv``, as MiniMalloc CSV; a reader never sees half of it.

    Raises:
        InstanceError: a program as CSV, a label that CSV cannot hold, or the file cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != ".csv":
        _write_text(instance.to_json(), target)
    elif isinstance(instance, OffsetPackingInstance):
        _write_text(format_minimalloc(instance), target)
    else:
        raise InstanceError(f"{path}: cannot be written: CSV holds buffers to pack, no programs; expected .mmap.json")


def write_packing(instance: OffsetPackingInstance, packing: Packing, path: str | os.PathLike[str]) -> None:
    """Write a packing as JSON or, by the suffix ``.csv``, as the instance's CSV with the column ``offset``.

    Raises:
        InstanceError: a label that CSV cannot hold, or the file cannot be written.
    """
    target = Path(path)
    csv = target.suffix.lower() == ".csv"
    _write_text(format_minimalloc(instance, packing) if csv else packing.to_json(), target)


def _parse_json(text: str, source: str, name: str, memory: MemoryDevice | None) -> Instance:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InstanceError(f"{source}:{getattr(error, 'lineno', 1)}: not valid JSON: {error}") from None
    try:
        if not isinstance(data, dict):
            raise InstanceError(f"{source}: field (top level): got {data!r:.40}, expected an object")
        if data.get("schema") == PACKING_SCHEMA:
            return OffsetPackingInstance.from_json(text, source=source)
        if "schema" in data and data["schema"] != PROGRAM_SCHEMA:
            shown = repr(data["schema"])[:40]
            raise InstanceError(
                f"{source}: field schema: got {shown}, expected {PROGRAM_SCHEMA!r} or {PACKING_SCHEMA!r}"
            )
        if "schema" not in data and "widths" in data:
            program = parse_contest(data, source=source, name=name)
            return program if memory is None else program.with_memory(memory)
        if "schema" not in data and "ops" not in data:
            raise InstanceError(f"{source}: field ops: missing, expected {SUPPORTED}")
        return parse_program(data, text, source=source, memory=memory)
    except InstanceError as error:
        raise InstanceError(with_line(str(error), text, source)) from None


def _is_instance_file(file: Path) -> bool:
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES or not file.is_file() or is_assignment_name(file.name):
        return False
    # Dumps of XLA hold many kinds of text.
    return suffix != ".txt" or is_hlo(file.read_bytes()[:10_000].decode("utf-8", errors="replace"))


def _stem(file: Path) -> str:
    return file.name.partition(".")[0] or file.name


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InstanceError(f"{path}: cannot be read: {error.strerror}") from None
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise InstanceError(f"{path}:{line}: binary file, expected {SUPPORTED}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InstanceError(f"{path}:{line}: not UTF-8 text, expected {SUPPORTED}") from None


def _write_text(text: str, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        os.replace(temporary, target)
    except OSError as error:
        raise InstanceError(f"{target}: cannot be written: {error.strerror}") from None
    except UnicodeEncodeError:
        raise InstanceError(f"{target}: cannot be written: a label is no valid text") from None
    finally:
        temporary.unlink(missing_ok=True)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Order rgg-2 before rgg-10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", str(path))]
