"""Readers of routing files: our own instances, alone or one per line, and traces, put on a default fleet."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from schedrl.envs.routing.fleets import named_fleet
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.trace_readers import read_text, read_workload
from schedrl.envs.routing.workload import route
from schedrl.errors import InstanceError

__all__ = ["DEFAULT_FLEET", "SUFFIXES", "parse_instances", "read_instances"]

SUFFIXES = (".json", ".jsonl", ".csv")
DEFAULT_FLEET = "homogeneous"
"""named fleet that serves a file which is a trace alone"""


def read_instances(path: str | os.PathLike[str]) -> Iterator[RoutingInstance]:
    """Yield the instances of a file, or those of all files under a folder in natural order of their paths.

    A file holds one instance as JSON, one per line, or a trace that ``read_workload`` knows; a trace becomes an
    instance named after the file, on ``DEFAULT_FLEET``.

    Raises:
        InstanceError: unreadable, of no known format, or broken, with file, line and field; or a folder without files.
    """
    root = Path(path)
    if not root.is_dir():
        yield from _read_file(root)
        return
    files = sorted((file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()), key=_order)
    if not files:
        raise InstanceError(f"{root}: no instance file, expected at least one of *{', *'.join(SUFFIXES)}")
    for file in files:
        yield from _read_file(file)


def parse_instances(text: str, *, source: str) -> Iterator[RoutingInstance]:
    """Yield the instances of a text: one as JSON, or one per line.

    Raises:
        InstanceError: no JSON, another schema, or a bad field; the message begins with ``source`` and the line.
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise InstanceError(f"{source}: empty, expected an instance")
    if len(lines) > 1 and _object(lines[0][1]) is not None:
        for number, line in lines:
            yield RoutingInstance.from_json(line, source=f"{source}:{number}")
        return
    try:
        json.loads(text)
    except RecursionError:
        raise InstanceError(f"{source}: not valid JSON: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise InstanceError(f"{source}:{error.lineno}: not valid JSON: {error.msg}") from None
    yield RoutingInstance.from_json(text, source=source)


def _read_file(path: Path) -> Iterator[RoutingInstance]:
    text = read_text(path)
    first = _object(text.lstrip().partition("\n")[0])
    ours = text.lstrip()[:1] in ("{", "[") and (first is None or "schema" in first)
    if ours:
        yield from parse_instances(text, source=str(path))
    else:
        yield route(read_workload(path), named_fleet(DEFAULT_FLEET), path.stem)


def _object(line: str) -> dict[str, Any] | None:
    """Return the JSON object that a line holds, or None."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _order(path: Path) -> list[tuple[int, str]]:
    """Order azure-2 before azure-10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", str(path))]
