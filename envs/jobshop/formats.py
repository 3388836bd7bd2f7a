"""Readers and writers of job-shop files: standard and Taillard text, OR-library collections, two kinds of JSON."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from schedrl.arrays import I64
from schedrl.envs.jobshop.instance import MAX_TIME, JobShopInstance
from schedrl.envs.jobshop.text_layouts import SUPPORTED, parse_text
from schedrl.errors import ConfigError, InstanceError

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "format_instance",
    "natural_order",
    "parse_instances",
    "read_instance",
    "read_instances",
    "read_text",
    "write_instance",
]

SUFFIXES = (".txt", ".jsp", ".jss", ".dat", ".json")


def read_instance(path: str | os.PathLike[str]) -> JobShopInstance:
    """Read the one instance of a file, whatever its format.

    Raises:
        InstanceError: unreadable, in no supported format, broken, or holding several instances.
    """
    instances = list(parse_instances(read_text(Path(path)), source=str(path), name=Path(path).stem))
    if len(instances) != 1:
        raise InstanceError(f"{path}: holds {len(instances)} instances, expected one")
    return instances[0]


def read_instances(path: str | os.PathLike[str]) -> Iterator[JobShopInstance]:
    """Yield every instance of a file, or of all files under a folder in natural order of their paths.

    In a folder, files with a suffix of ``SUFFIXES`` are read and all others ignored.

    Raises:
        InstanceError: as ``read_instance``, or a folder without instance files.
    """
    root = Path(path)
    if not root.is_dir():
        yield from parse_instances(read_text(root), source=str(root), name=root.stem)
        return
    files = sorted(
        (file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()), key=natural_order
    )
    if not files:
        raise InstanceError(f"{root}: no instance file, expected at least one of *{', *'.join(SUFFIXES)}")
    for file in files:
        yield from parse_instances(read_text(file), source=str(file), name=file.stem)


def parse_instances(text: str, *, source: str, name: str) -> Iterator[JobShopInstance]:
    """Yield the instances of a text; its format is told by its content.

    Args:
        text: Content of a file.
        source: Where the text came from, the start of every error message.
        name: Name of the instance where the format carries none; numbered where it holds several.

    Raises:
        InstanceError: ``source:line: field ...: what is wrong, what is expected``.
    """
    start = text.lstrip()[:1]
    if not start:
        raise InstanceError(f"{source}: empty file, expected {SUPPORTED}")
    if start in ("{", "["):
        return iter([_parse_json(text, source)])
    return parse_text(text, source=source, name=name)


def _parse_json(text: str, source: str) -> JobShopInstance:
    try:
        data = json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise InstanceError(f"{source}:{line}: not valid JSON: {error}") from None
    except RecursionError:
        raise InstanceError(f"{source}: not valid JSON: nested too deeply") from None
    if isinstance(data, dict) and "schema" in data:
        return JobShopInstance.from_json(text, source=source)
    if isinstance(data, dict) and "data" in data:
        return _parse_scheduleopt(data, source)
    raise InstanceError(f"{source}: JSON without a field schema or data, expected {SUPPORTED}")


def _parse_scheduleopt(data: dict[str, Any], source: str) -> JobShopInstance:
    for field, kind in (("instance", str), ("jobs", int), ("machines", int), ("data", list)):
        if type(data.get(field)) is not kind:
            raise InstanceError(f"{source}: field {field}: expected {kind.__name__}, got {data.get(field)!r:.40}")
    table = _scheduleopt_table(data["data"], source)
    job, operation, machine, duration = table[np.lexsort((table[:, 1], table[:, 0]))].T
    present, lengths = np.unique(job, return_counts=True)
    if len(present) != data["jobs"] or present[-1] != len(present) - 1:
        raise InstanceError(
            f"{source}: field jobs: {data['jobs']}, expected the number of jobs in data, counted from 0"
        )
    expected = np.arange(len(job)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    if (bad := np.flatnonzero(operation != expected)).size:
        raise InstanceError(
            f"{source}: field data: job {job[bad[0]]} has operation {operation[bad[0]]}, expected {expected[bad[0]]}"
        )
    offset = np.concatenate([[0], np.cumsum(lengths)])
    try:
        return JobShopInstance(
            name=data["instance"], machines=data["machines"], job_offset=offset, machine=machine, duration=duration
        )
    except InstanceError as error:
        raise InstanceError(f"{source}: {error}") from None


def _scheduleopt_table(entries: list[Any], source: str) -> I64:
    """Return (N, 4) job, operation, machine, duration."""
    fields = ("job", "operation", "machine", "duration")
    limit = np.iinfo(np.int32).max
    for index, entry in enumerate(entries):
        for field in fields:
            value = entry.get(field) if isinstance(entry, dict) else None
            if type(value) is not int or not 0 <= value <= (MAX_TIME if field == "duration" else limit):
                raise InstanceError(f"{source}: field data[{index}].{field}: {value!r:.40}, expected an integer >= 0")
    if not entries:
        raise InstanceError(f"{source}: field data: empty, expected an entry per operation")
    return np.array([[entry[field] for field in fields] for entry in entries], dtype=np.int64)


def format_instance(instance: JobShopInstance, format: str) -> str:
    """Return an instance as text in one of ``FORMATS``.

    Raises:
        ConfigError: no such format.
        InstanceError: Taillard text asked of jobs that do not have one operation per machine each.
    """
    if format not in FORMATS:
        raise ConfigError(f"option format: {format!r}, expected one of {', '.join(FORMATS)}")
    return FORMATS[format](instance)


def write_instance(instance: JobShopInstance, path: str | os.PathLike[str], format: str = "standard") -> None:
    """Write an instance to a file in one of ``FORMATS``; a reader never sees half of it.

    Standard and Taillard text carry no name: readers take it from the file.

    Raises:
        ConfigError: no such format.
        InstanceError: the format cannot hold this instance, or the file cannot be written.
    """
    text, target = format_instance(instance, format), Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target)
    except OSError as error:
        raise InstanceError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _to_standard(instance: JobShopInstance) -> str:
    pairs = np.stack([instance.machine, instance.duration], axis=1).tolist()
    offset = instance.job_offset.tolist()
    rows = (" ".join(map(str, chain.from_iterable(pairs[start:end]))) for start, end in pairwise(offset))
    return "\n".join([f"{instance.jobs} {instance.machines}", *rows]) + "\n"


def _to_taillard(instance: JobShopInstance) -> str:
    if (np.diff(instance.job_offset) != instance.machines).any():
        raise InstanceError(
            f"{instance.name}: Taillard text holds exactly {instance.machines} operations per job, use format standard"
        )
    shape = (instance.jobs, instance.machines)
    blocks = {
        "Times": instance.duration.reshape(shape).tolist(),
        "Machines": (1 + instance.machine.reshape(shape)).tolist(),
    }
    lines = ["Nb of jobs, Nb of Machines", f"{instance.jobs} {instance.machines}"]
    for title, rows in blocks.items():
        lines += [title, *(" ".join(map(str, row)) for row in rows)]
    return "\n".join(lines) + "\n"


def _to_scheduleopt(instance: JobShopInstance) -> str:
    operation = np.arange(instance.operations) - instance.job_offset[instance.job]
    columns = (instance.job, operation, instance.machine, instance.duration)
    fields = ("job", "operation", "machine", "duration")
    data = [dict(zip(fields, row, strict=True)) for row in np.stack(columns, axis=1).tolist()]
    head = {"instance": instance.name, "family": "", "jobs": instance.jobs, "machines": instance.machines}
    return json.dumps({**head, "data": data}) + "\n"


FORMATS: Mapping[str, Callable[[JobShopInstance], str]] = MappingProxyType(
    {
        "standard": _to_standard,
        "taillard": _to_taillard,
        "json": JobShopInstance.to_json,
        "scheduleopt": _to_scheduleopt,
    }
)


def read_text(path: Path, expected: str = SUPPORTED) -> str:
    """Return the text of a file.

    Raises:
        InstanceError: unreadable, binary or not UTF-8; names file, line and what is ``expected``.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InstanceError(f"{path}: cannot be read: {error.strerror}") from None
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise InstanceError(f"{path}:{line}: binary file, expected {expected}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InstanceError(f"{path}:{line}: not UTF-8 text, expected {expected}") from None


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Return a key that orders ta2 before ta10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", str(path))]
