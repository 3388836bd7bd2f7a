"""The text format of flexible job shops (``.fjs``), and a reader of shops from files of any known format."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import fields
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from schedrl.atomic import write_text
from schedrl.envs.jobshop.formats import SUFFIXES, natural_order, parse_instances, read_text
from schedrl.envs.jobshop.instance import MAX_TIME, JobShopInstance
from schedrl.envs.jobshop.shop import ShopInstance
from schedrl.errors import ConfigError, InstanceError

__all__ = [
    "SHOP_SUFFIXES",
    "format_flexible",
    "parse_flexible",
    "read_flexible",
    "read_problems",
    "read_shops",
    "write_flexible",
]

SHOP_SUFFIXES = (*SUFFIXES, ".fjs")
_LAYOUT = "flexible job-shop text ('jobs machines', then per job '#operations (#alternatives (machine time)*)*')"
_EXPECTED = f"{_LAYOUT}, job-shop text or JSON"
_LARGEST = 2**31 - 1


def read_flexible(path: str | os.PathLike[str], *, first_machine: int | None = None) -> ShopInstance:
    """Read a flexible job shop from an ``.fjs`` file.

    Args:
        path: The file.
        first_machine: Number of the first machine in the file, 0 or 1. Originals count from 1, some copies from 0.
            By default it is told from the numbers: machine 0 occurs in the one, machine m in the other.

    Raises:
        InstanceError: unreadable or broken, or the base cannot be told: ``file:line: field ...: what, expected``.
        ConfigError: ``first_machine`` is neither 0 nor 1.
    """
    file = Path(path)
    return parse_flexible(read_text(file, _EXPECTED), source=str(file), name=file.stem, first_machine=first_machine)


def parse_flexible(text: str, *, source: str, name: str, first_machine: int | None = None) -> ShopInstance:
    """Read a flexible job shop from text, as ``read_flexible`` does.

    Args:
        text: Content of a file; what follows a # in a line is ignored.
        source: Where the text came from, the start of every error message.
        name: Name of the instance; the format carries none.
        first_machine: Number of the first machine, 0 or 1, told from the numbers by default.

    Raises:
        InstanceError, ConfigError: as ``read_flexible``.
    """
    if first_machine not in (None, 0, 1):
        raise ConfigError(f"option first_machine: {first_machine!r}, expected 0 or 1")
    lines = _lines(text)
    if not lines:
        raise InstanceError(f"{source}: empty file, expected {_LAYOUT}")
    jobs, machines = _header(lines[0], source)
    if len(lines) - 1 != jobs:
        last = lines[min(len(lines) - 1, jobs + 1)]
        raise _error(source, last, f"field jobs: {len(lines) - 1} rows, expected {jobs} as in the header")
    rows = [_job(line, job, machines, source) for job, line in enumerate(lines[1:])]
    base = _first_machine(rows, lines[1:], machines, source) if first_machine is None else first_machine
    for job, (row, line) in enumerate(zip(rows, lines[1:], strict=True)):
        _require_machines(row, line, job, base, machines, source)
    counts = np.array([count for row in rows for count in row.alternatives])
    try:
        return ShopInstance(
            name=name,
            machines=machines,
            job_offset=np.cumsum([0, *(len(row.alternatives) for row in rows)]),
            mode_offset=np.concatenate([[0], np.cumsum(counts)]),
            machine=np.array([m - base for row in rows for m in row.machine]),
            duration=np.array([d for row in rows for d in row.duration]),
        )
    except InstanceError as error:
        raise _error(source, lines[0], str(error)) from None


def format_flexible(instance: ShopInstance, *, first_machine: int = 1) -> str:
    """Return a shop as ``.fjs`` text; the header's third number is the mean number of alternatives.

    Args:
        instance: A shop of choices of machines alone.
        first_machine: Number of the first machine, 1 as in the originals or 0. Readers can tell it as long as the
            text uses machine 0 or m.

    Raises:
        InstanceError: the shop has what the format cannot hold, such as due dates: JSON holds it.
        ConfigError: ``first_machine`` is neither 0 nor 1.
    """
    if first_machine not in (0, 1):
        raise ConfigError(f"option first_machine: {first_machine!r}, expected 0 or 1")
    _require_plain(instance)
    pairs = np.stack([instance.machine + first_machine, instance.duration], axis=1).tolist()
    modes = instance.mode_offset.tolist()
    lines = [f"{instance.jobs} {instance.machines} {instance.modes / instance.operations:.2f}"]
    for start, stop in pairwise(instance.job_offset.tolist()):
        values = [stop - start]
        for first, last in pairwise(modes[start : stop + 1]):
            values += [last - first, *chain.from_iterable(pairs[first:last])]
        lines.append(" ".join(map(str, values)))
    return "\n".join(lines) + "\n"


def write_flexible(instance: ShopInstance, path: str | os.PathLike[str], *, first_machine: int = 1) -> None:
    """Write a shop to an ``.fjs`` file, all of it or nothing.

    Raises:
        InstanceError: as ``format_flexible``, or the file cannot be written.
        ConfigError: ``first_machine`` is neither 0 nor 1.
    """
    text = format_flexible(instance, first_machine=first_machine)
    try:
        write_text(Path(path), text)
    except OSError as error:
        raise InstanceError(f"{path}: cannot be written: {error.strerror}") from None


def read_problems(path: str | os.PathLike[str]) -> Iterator[JobShopInstance | ShopInstance]:
    """Yield every instance of a file, or of all files under a folder in natural order of their paths.

    The content tells the format: JSON of shops, flexible job-shop text, or anything that ``formats`` reads as a
    classical job shop. In a folder, files with a suffix of ``SHOP_SUFFIXES`` are read and all others ignored.

    Raises:
        InstanceError: unreadable, broken, in no known format, or a folder without instance files.
    """
    root = Path(path)
    if not root.is_dir():
        yield from _parse_problems(read_text(root, _EXPECTED), root)
        return
    files = [file for file in root.rglob("*") if file.suffix.lower() in SHOP_SUFFIXES and file.is_file()]
    if not files:
        raise InstanceError(f"{root}: no instance file, expected at least one of *{', *'.join(SHOP_SUFFIXES)}")
    for file in sorted(files, key=natural_order):
        yield from _parse_problems(read_text(file, _EXPECTED), file)


def read_shops(path: str | os.PathLike[str]) -> Iterator[ShopInstance]:
    """Yield what ``read_problems`` does, classical job shops as shops.

    Raises:
        InstanceError: as there.
    """
    for instance in read_problems(path):
        yield instance if isinstance(instance, ShopInstance) else ShopInstance.from_job_shop(instance)


def _parse_problems(text: str, path: Path) -> Iterator[JobShopInstance | ShopInstance]:
    source, name = str(path), path.stem
    if _is_shop_json(text):
        yield ShopInstance.from_json(text, source=source)
    elif _is_flexible(text, path):
        yield parse_flexible(text, source=source, name=name)
    else:
        yield from parse_instances(text, source=source, name=name)


def _is_shop_json(text: str) -> bool:
    if not text.lstrip().startswith("{"):
        return False
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return False  # the reader of job shops says where it is broken
    return isinstance(data, dict) and str(data.get("schema", "")).startswith("schedrl/shop-instance/")


def _is_flexible(text: str, path: Path) -> bool:
    """Tell whether text is to be read as a flexible job shop; a classical row is pairs, a flexible one counts itself.

    Raises:
        InstanceError: it is both.
    """
    if path.suffix.lower() == ".fjs":
        return True
    lines = _lines(text)
    if not lines or not all(re.fullmatch(r"[\d\s.+-]+", line.text) for line in lines):
        return False
    header, rows = lines[0].text.split(), [line.text.split() for line in lines[1:]]
    if len(header) != 2 or not header[1].isdecimal():
        return len(header) == 3
    self_counting = sum(map(_counts_itself, rows))
    if not self_counting or path.suffix.lower() in (".jsp", ".jss"):
        return False
    pairs = all(len(row) % 2 == 0 and all(m.isdecimal() and int(m) < int(header[1]) for m in row[::2]) for row in rows)
    if pairs and self_counting == len(rows):
        raise InstanceError(f"{path}: reads as classical and as flexible job shop, expected suffix .jsp or .fjs to say")
    return not pairs and 2 * self_counting >= len(rows)


def _counts_itself(row: list[str]) -> bool:
    if not all(map(str.isdecimal, row)):
        return False
    position = 1
    for _ in range(min(int(row[0]), len(row))):
        if position >= len(row):
            return False
        position += 1 + 2 * int(row[position])
    return position == len(row)


class _Line(NamedTuple):
    number: int
    text: str


class _Job(NamedTuple):
    alternatives: list[int]  # of each operation
    machine: list[int]  # of each mode, as in the file
    duration: list[int]


def _lines(text: str) -> list[_Line]:
    """Return the lines that hold something, without comments."""
    bare = (_Line(number, raw.partition("#")[0].strip()) for number, raw in enumerate(text.splitlines(), start=1))
    return [line for line in bare if line.text]


def _error(source: str, line: _Line, what: str) -> InstanceError:
    return InstanceError(f"{source}:{line.number}: {what}")


def _integer(token: str, line: _Line, where: str, source: str, *, least: int = 0, most: int = MAX_TIME) -> int:
    value = int(token) if re.fullmatch(r"[+-]?[0-9]{1,18}", token) else -1
    if not least <= value <= most:
        raise _error(source, line, f"{where}: {token[:40]!r}, expected an integer from {least} to {most}")
    return value


def _header(line: _Line, source: str) -> tuple[int, int]:
    tokens = line.text.split()
    if len(tokens) not in (2, 3):
        raise _error(source, line, f"field header: {len(tokens)} values, expected 'jobs machines [mean alternatives]'")
    jobs, machines = (
        _integer(token, line, f"field {field}", source, least=1, most=_LARGEST)
        for field, token in zip(("jobs", "machines"), tokens, strict=False)
    )
    if len(tokens) == 3 and not re.fullmatch(r"[0-9]*\.?[0-9]+|[0-9]+\.", tokens[2]):
        raise _error(source, line, f"field mean alternatives: {tokens[2][:40]!r}, expected a number")
    return jobs, machines


def _job(line: _Line, job: int, machines: int, source: str) -> _Job:
    """Read the row of one job; machines are checked later, when their base is known."""
    tokens = line.text.split()
    position = 0

    def take(where: str, **limits: int) -> int:
        nonlocal position
        if position == len(tokens):
            raise _error(source, line, f"{where}: the row ends after {len(tokens)} values, expected more")
        position += 1
        return _integer(tokens[position - 1], line, where, source, **limits)

    row = _Job([], [], [])
    for operation in range(take(f"field job {job} operations", least=1, most=_LARGEST)):
        where = f"field job {job} operation {operation}"
        row.alternatives.append(take(f"{where} alternatives", least=1, most=machines))
        for _ in range(row.alternatives[-1]):
            row.machine.append(take(f"{where} machine", most=machines))
            row.duration.append(take(f"{where} time"))
        used = row.machine[-row.alternatives[-1] :]
        if twice := [m for k, m in enumerate(used) if m in used[:k]]:
            raise _error(source, line, f"{where} machine: {twice[0]} named twice, expected each machine once")
    if position < len(tokens):
        extra = len(tokens) - position
        what = f"{extra} values after the last of {len(row.alternatives)} operations, expected none"
        raise _error(source, line, f"field job {job}: {what}")
    return row


def _first_machine(rows: list[_Job], lines: list[_Line], machines: int, source: str) -> int:
    """Return whether machines are counted from 0 or 1."""
    used = {m for row in rows for m in row.machine}
    if 0 not in used and machines not in used:
        raise _error(
            source,
            lines[0],
            f"field machine: neither 0 nor {machines} occurs, expected option first_machine to say 0 or 1",
        )
    return 0 if 0 in used else 1


def _require_machines(row: _Job, line: _Line, job: int, base: int, machines: int, source: str) -> None:
    operation = np.repeat(np.arange(len(row.alternatives)), row.alternatives)
    for k, m in zip(operation, row.machine, strict=True):
        if not base <= m < base + machines:
            what = f"{m}, expected {base} to {base + machines - 1}, counted from {base}"
            raise _error(source, line, f"field job {job} operation {k} machine: {what}")


def _require_plain(instance: ShopInstance) -> None:
    given: dict[str, Any] = {
        name: getattr(instance, name)
        for name in ("name", "machines", "job_offset", "mode_offset", "machine", "duration")
    }
    plain = ShopInstance(**given)
    for field in fields(plain):
        if not np.array_equal(getattr(plain, field.name), getattr(instance, field.name)):
            raise InstanceError(f"{instance.name}: field {field.name}: .fjs text cannot hold it, write JSON instead")
    pair = np.stack([instance.mode_operation, instance.machine])
    if len(np.unique(pair, axis=1).T) < instance.modes:
        raise InstanceError(
            f"{instance.name}: field machine: an operation has two modes on one machine, write JSON instead"
        )
