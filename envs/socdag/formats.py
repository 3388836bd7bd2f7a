"""Readers and writers of task graph files: two kinds of JSON of our own, WfCommons JSON, STG text and CSV tables."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from schedrl.envs.socdag.cost_csv import companions, format_cost_csv, instance_name, is_companion, parse_cost_csv
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.json_node import load_json
from schedrl.envs.socdag.machines import Machines
from schedrl.envs.socdag.serialisation import INSTANCE_SCHEMA
from schedrl.envs.socdag.spark import PARALLELISM, SPARK_SCHEMA, format_spark, parse_spark
from schedrl.envs.socdag.stg import format_stg, parse_stg
from schedrl.envs.socdag.wfcommons import format_wfformat, parse_extract, parse_wfformat
from schedrl.errors import ConfigError, InstanceError

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "SUPPORTED",
    "format_instance",
    "parse_instance",
    "read_instance",
    "read_instances",
    "write_instance",
]

SUFFIXES = (".json", ".stg", ".csv")
SUPPORTED = "socdag, Spark or WfCommons JSON, STG text, or CSV tables of costs and edges"


def read_instance(
    path: str | os.PathLike[str], *, machines: Machines | None = None, parallelism: int = PARALLELISM
) -> SocDagInstance:
    """Read a file, whatever its format, with the files of further tables that lie beside a CSV file of costs.

    Args:
        path: The file.
        machines: Where the tasks run, for formats that hold one runtime per task; each has its own default.
        parallelism: Most graph tasks that a stage of a Spark job becomes.

    Raises:
        ConfigError: an option outside its range.
        InstanceError: unreadable, in no supported format, or broken; one line that names file and field.
    """
    file = Path(path)
    text = _read_text(file)
    further = [(str(other), _read_text(other)) for other in companions(file)]
    parts = [(str(file), text), *further]
    return _parse(parts, name=instance_name(file), machines=machines, parallelism=parallelism)


def read_instances(
    path: str | os.PathLike[str], *, machines: Machines | None = None, parallelism: int = PARALLELISM
) -> Iterator[SocDagInstance]:
    """Yield the instance of a file, or those of all files under a folder in natural order of their paths.

    In a folder, files with a suffix of ``SUFFIXES`` are read and all others ignored.

    Raises:
        ConfigError: as ``read_instance``.
        InstanceError: as ``read_instance``, or a folder without instance files.
    """
    root = Path(path)
    if not root.is_dir():
        yield read_instance(root, machines=machines, parallelism=parallelism)
        return
    files = sorted(
        (
            file
            for file in root.rglob("*")
            if file.suffix.lower() in SUFFIXES and file.is_file() and not is_companion(file)
        ),
        key=_natural,
    )
    if not files:
        raise InstanceError(f"{root}: no instance file, expected at least one of *{', *'.join(SUFFIXES)}")
    for file in files:
        yield read_instance(file, machines=machines, parallelism=parallelism)


def parse_instance(
    text: str, *, source: str, name: str, machines: Machines | None = None, parallelism: int = PARALLELISM
) -> SocDagInstance:
    """Return the instance in a text; its format is told by its content.

    Args:
        text: Content of a file.
        source: Where it came from, the start of every error message.
        name: Name of the instance where the format carries none.
        machines: As in ``read_instance``.
        parallelism: As in ``read_instance``.

    Raises:
        ConfigError: as ``read_instance``.
        InstanceError: as ``read_instance``.
    """
    return _parse([(source, text)], name=name, machines=machines, parallelism=parallelism)


def _parse(parts: list[tuple[str, str]], *, name: str, machines: Machines | None, parallelism: int) -> SocDagInstance:
    source, text = parts[0]
    try:
        start = text.lstrip()[:1]
        if not start:
            raise InstanceError(f"{source}: empty file, expected {SUPPORTED}")
        if start in ("{", "["):
            return _parse_json(text, source, name, machines, parallelism)
        if start.isdecimal() or start == "#":
            return parse_stg(text, source=source, name=name, machines=machines)
        return parse_cost_csv(parts, name=name)
    except InstanceError as error:
        # Graph and instance know their names but not the file; names from files may hold line ends.
        line = " ".join(str(error).split())
        known = any(line.startswith(file) for file, _ in parts)
        raise InstanceError(line if known else f"{source}: {line}") from None


def _parse_json(text: str, source: str, name: str, machines: Machines | None, parallelism: int) -> SocDagInstance:
    root = load_json(text, source)
    schema = root.get("schema").value
    if schema == SPARK_SCHEMA:
        return parse_spark(root, name=name, machines=machines, parallelism=parallelism)
    if root.get("task_fields").value is not None:
        return parse_extract(root, name=name, machines=machines)
    if root.get("schemaVersion").value is not None:
        return parse_wfformat(root, name=name, machines=machines)
    if schema != INSTANCE_SCHEMA:
        root.get("schema").fail(f"{INSTANCE_SCHEMA!r} or {SPARK_SCHEMA!r}, or in WfCommons files schemaVersion")
    return SocDagInstance.from_json(text, source=source)


def format_instance(instance: SocDagInstance, format: str, *, machines: Machines | None = None) -> str:
    """Return an instance as text in one of ``FORMATS``; only ``json`` holds every instance.

    Args:
        instance: What to write.
        format: A key of ``FORMATS``.
        machines: What the durations were divided by, for formats that hold one runtime per task.

    Raises:
        ConfigError: no such format.
        InstanceError: the format cannot hold this instance.
    """
    if format not in FORMATS:
        raise ConfigError(f"option format: {format!r}, expected one of {', '.join(FORMATS)}")
    return FORMATS[format](instance, machines)


def write_instance(
    instance: SocDagInstance, path: str | os.PathLike[str], format: str = "json", *, machines: Machines | None = None
) -> None:
    """Write an instance to a file in one of ``FORMATS``; a reader never sees half of it.

    Raises:
        ConfigError: no such format.
        InstanceError: the format cannot hold this instance, or the file cannot be written.
    """
    text, target = format_instance(instance, format, machines=machines), Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        os.replace(temporary, target)
    except OSError as error:
        raise InstanceError(f"{path}: cannot be written: {error.strerror}") from None
    except UnicodeEncodeError:
        raise InstanceError(f"{path}: cannot be written: a name is no valid text") from None
    finally:
        temporary.unlink(missing_ok=True)


FORMATS: Mapping[str, Callable[[SocDagInstance, Machines | None], str]] = MappingProxyType(
    {
        "json": lambda instance, _: instance.to_json(),
        "wfformat": format_wfformat,
        "stg": format_stg,
        "csv": lambda instance, _: format_cost_csv(instance),
        "spark": format_spark,
    }
)


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


def _natural(path: Path) -> list[tuple[int, str]]:
    """Order rgg-2 before rgg-10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", str(path))]
