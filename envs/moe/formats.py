"""Readers of expert placement files: our own instances, and the loads that engines and data sets record."""

from __future__ import annotations

import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from schedrl.arrays import I64
from schedrl.envs.moe.instance import SCHEMA, ExpertPlacementInstance
from schedrl.envs.moe.loads import LoadDump, as_counts, instance_of_loads, refuse_one_rank
from schedrl.envs.moe.recorder import read_recorder
from schedrl.envs.moe.routes import read_routes, route_counts
from schedrl.errors import ConfigError, InstanceError

if TYPE_CHECKING:
    from schedrl.envs.moe.cache_instance import ExpertCacheInstance

    Instance = ExpertPlacementInstance | ExpertCacheInstance

__all__ = [
    "LOAD_SUFFIXES",
    "SUFFIXES",
    "LoadDump",
    "instance_of_loads",
    "parse_instance",
    "read_harmoeny_counts",
    "read_instance",
    "read_instances",
    "read_loads",
]

SUFFIXES = (".json",)
LOAD_SUFFIXES = (".npy", ".npz", ".json", ".pt", ".csv")
_CACHE_SCHEMA = "schedrl/expert-cache-instance/1"
_MEMBERS = ("logical_count", "counts")
_LOAD_KEYS = ("logical_count", "load_history")


def read_instance(path: str | os.PathLike[str]) -> Instance:
    """Read one instance of a placement or a cache from its JSON file.

    Raises:
        InstanceError: unreadable, another schema, or broken; one line that names file and field.
    """
    return parse_instance(_read_text(Path(path)), source=str(path))


def read_instances(path: str | os.PathLike[str]) -> Iterator[Instance]:
    """Yield the instance of a file, or those of all JSON files under a folder in natural order of their paths.

    Raises:
        InstanceError: as ``read_instance``, or a folder without instance files.
    """
    root = Path(path)
    if not root.is_dir():
        yield read_instance(root)
        return
    files = sorted(
        (file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()), key=_natural
    )
    if not files:
        raise InstanceError(f"{root}: no instance file, expected at least one of *{', *'.join(SUFFIXES)}")
    for file in files:
        yield read_instance(file)


def parse_instance(text: str, *, source: str) -> Instance:
    """Return the instance in a text; its schema tells which kind.

    Raises:
        InstanceError: as ``read_instance``.
    """
    data = _parse_json(text, source)
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema == SCHEMA:
        return ExpertPlacementInstance.from_json(text, source=source)
    if schema == _CACHE_SCHEMA:
        # Placement is read a thousand times more often; caches need not be imported for it.
        from schedrl.envs.moe.cache_instance import ExpertCacheInstance

        return ExpertCacheInstance.from_json(text, source=source)
    if isinstance(data, dict) and any(key in data for key in _LOAD_KEYS):
        raise InstanceError(
            f"{source}: loads without a model and a cluster; make an instance of them by schedrl moe loads"
        )
    raise InstanceError(f"{source}: field schema: got {schema!r:.60}, expected {SCHEMA} or {_CACHE_SCHEMA}")


def read_loads(
    path: str | os.PathLike[str],
    *,
    experts: int | None = None,
    tokens_per_window: int | None = None,
    dataset: str | None = None,
) -> LoadDump:
    """Read recorded loads; the suffix tells the format.

    ``.npy`` and ``.npz`` hold counts, (steps, layers, experts) or (layers, experts), of an archive the member
    ``logical_count`` or ``counts`` or its only one. ``.json`` holds ``logical_count``, or the ``load_history`` of the
    ADRS evaluator. ``.pt``, or a folder of them, is a dump of SGLang's recorder. ``.csv`` holds the counts of HarMoEny,
    or routes of single tokens in one layer.

    Args:
        path: The file.
        experts: Number of experts, for routes only.
        tokens_per_window: Tokens that become one window, for routes only.
        dataset: Which one, for HarMoEny's counts only; by default all of them, one after the other.

    Raises:
        ConfigError: an option that the format needs is missing.
        InstanceError: unreadable or broken; one line that names file and field, and the line of CSV files.
    """
    file = Path(path)
    suffix = ".pt" if file.is_dir() else file.suffix.lower()
    where = f"{file}: field counts"
    if suffix == ".pt":
        counts = read_recorder(file)
    elif suffix == ".json":
        counts = _json_counts(_parse_json(_read_text(file), str(file)), str(file))
    elif suffix in (".npy", ".npz"):
        counts = as_counts(_array(file), where)
    elif suffix != ".csv":
        raise InstanceError(f"{file}: suffix {suffix!r}, expected one of {', '.join(LOAD_SUFFIXES)}")
    elif "layer_idx" in _first_line(file):
        counts = _of_datasets(read_harmoeny_counts(file), dataset, str(file))
    else:
        if experts is None or tokens_per_window is None:
            raise ConfigError(f"{file}: routes of tokens need the number of experts and of tokens per window")
        counts = route_counts(read_routes(file, experts=experts), experts=experts, tokens_per_window=tokens_per_window)
    return LoadDump(counts=counts, source=str(file))


def read_harmoeny_counts(path: str | os.PathLike[str]) -> dict[str, I64]:
    """Return HarMoEny's expert counts by data set, (iterations, layers, experts) each.

    The columns are a row number, ``dataset``, ``iteration``, ``layer_idx`` and one for each expert.

    Raises:
        InstanceError: unreadable, another header, a value that is no count, or a data set without every layer in every
            iteration; names file and line.
    """
    lines = _read_text(Path(path)).splitlines()
    header = lines[0].split(",") if lines else []
    names = header[header.index("dataset") :] if "dataset" in header else []
    skipped, experts = len(header) - len(names), len(names) - 3
    if experts < 1 or names != ["dataset", "iteration", "layer_idx", *map(str, range(experts))] or skipped > 1:
        raise InstanceError(f"{path}:1: header, expected dataset,iteration,layer_idx and the experts 0,1,...")
    tables: dict[str, dict[tuple[int, int], list[int]]] = {}
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split(",")[skipped:]
        if len(cells) != len(names):
            raise InstanceError(f"{path}:{number}: {len(cells) + skipped} fields, expected {len(header)}")
        values = []
        for column, cell in zip(names[1:], cells[1:], strict=True):
            if not (cell.isascii() and cell.isdecimal() and len(cell) < 16):
                raise InstanceError(f"{path}:{number}: field {column}: {cell!r:.40}, expected an integer of 0 or more")
            values.append(int(cell))
        rows = tables.setdefault(cells[0], {})
        if (values[0], values[1]) in rows:
            raise InstanceError(f"{path}:{number}: iteration {values[0]} layer {values[1]} of {cells[0]!r:.40} again")
        rows[values[0], values[1]] = values[2:]
    if not tables:
        raise InstanceError(f"{path}: no counts, expected lines after the header")
    return {name: _stacked(rows, f"{path}: dataset {name}") for name, rows in tables.items()}


def _stacked(rows: dict[tuple[int, int], list[int]], where: str) -> I64:
    iterations, layers = (sorted({key[k] for key in rows}) for k in (0, 1))
    for iteration in iterations:
        for layer in layers:
            if (iteration, layer) not in rows:
                raise InstanceError(f"{where}: iteration {iteration} lacks layer {layer}")
    return as_counts([[rows[iteration, layer] for layer in layers] for iteration in iterations], where)


def _of_datasets(tables: dict[str, I64], dataset: str | None, source: str) -> I64:
    if dataset is not None and dataset not in tables:
        raise ConfigError(f"{source}: no dataset {dataset!r:.40}; choose from {', '.join(tables)}")
    chosen = list(tables.values()) if dataset is None else [tables[dataset]]
    if len({table.shape[1] for table in chosen}) > 1:
        raise InstanceError(f"{source}: the datasets have different layers, choose one of {', '.join(tables)}")
    return np.concatenate(chosen)


def _json_counts(data: Any, source: str) -> I64:
    if not isinstance(data, dict):
        raise InstanceError(f"{source}: expected a table with logical_count or load_history")
    if "logical_count" in data:
        counts = as_counts(data["logical_count"], f"{source}: field logical_count")
        refuse_one_rank(counts, f"{source}: field logical_count")
        return counts
    history = data.get("load_history")
    if not isinstance(history, list) or not history:
        raise InstanceError(f"{source}: field load_history: expected a list of steps, or a field logical_count")
    for index, step in enumerate(history):
        if not isinstance(step, dict) or "logical_expert_load" not in step:
            raise InstanceError(f"{source}: field load_history[{index}].logical_expert_load: missing")
    return as_counts([step["logical_expert_load"] for step in history], f"{source}: field logical_expert_load")


def _array(path: Path) -> Any:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            members = [name for name in _MEMBERS if name in loaded.files] or loaded.files
            if not members or (len(members) > 1 and members[0] not in _MEMBERS):
                raise InstanceError(f"{path}: arrays {', '.join(loaded.files)}, expected logical_count or counts")
            return loaded[members[0]]
    except InstanceError:
        raise
    except FileNotFoundError:
        raise InstanceError(f"{path}: cannot be read: No such file or directory") from None
    except (OSError, ValueError, EOFError, MemoryError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
        raise InstanceError(f"{path}: no array of numbers: {' '.join(str(error).split()):.80}") from None


def _first_line(path: Path) -> str:
    return _read_text(path).partition("\n")[0]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InstanceError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InstanceError(f"{path}: not UTF-8 text") from None


def _parse_json(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise InstanceError(f"{source}: not valid JSON: nested too deeply") from None
    except ValueError as error:
        raise InstanceError(f"{source}:{getattr(error, 'lineno', 1)}: not valid JSON: {error}") from None


def _natural(path: Path) -> list[tuple[int, str]]:
    """Order rgg-2 before rgg-10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", str(path))]
