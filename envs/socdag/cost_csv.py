"""A task graph and its cost matrix as CSV: one file of several tables, or a file per table.

A blank line separates tables. Each begins with its header, whose first cell says which table it is.

====================================  =================================================================
``task,P1,P2,...``                    time on each device, empty or ``inf`` where the device cannot run it
``source,target,bytes``               an edge per row
``bandwidth,P1,P2,...``               optional: bytes per time unit from the row's device to the column's
``startup,P1,P2,...``                 optional: time units each transfer takes before its first byte
====================================  =================================================================

As separate files these are ``NAME.costs.csv``, ``NAME.edges.csv``, ``NAME.bandwidth.csv`` and ``NAME.startup.csv``.
Without a bandwidth a byte takes a time unit: an edge's bytes are its communication cost (Topcuoglu et al. 2002).

The tables of the ``heft`` package are read too: ``TP`` for costs, ``P`` for bandwidth with an optional last row
``Startup``, and ``T`` for a square matrix of edges, where 0 or an empty cell is no edge; files ``*_task_exe_time.csv``,
``*_task_connectivity.csv`` and ``*_resource_BW.csv``. Its matrix may name tasks otherwise than the costs do; then the
order counts.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from schedrl.devices import Device, Link, Platform
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.errors import ConfigError, InstanceError

__all__ = ["companions", "format_cost_csv", "instance_name", "is_companion", "parse_cost_csv"]

_KINDS: Mapping[str, str] = MappingProxyType(
    {"task": "costs", "tp": "costs", "source": "edges", "t": "matrix", "bandwidth": "bandwidth", "p": "bandwidth"}
    | {"startup": "startup"}
)
_EXPECTED = "a header that starts with task, source, bandwidth or startup"
_SETS = (
    (".costs.csv", (".edges.csv", ".bandwidth.csv", ".startup.csv")),
    ("_task_exe_time.csv", ("_task_connectivity.csv", "_resource_BW.csv")),
)


@dataclass(frozen=True, slots=True)
class _Row:
    where: str  # file and line
    label: str
    cells: list[str]

    def number(self, column: int, field: str, *, absent: float | None = None) -> float:
        text = self.cells[column].strip()
        if absent is not None and text.lower() in ("", "inf", "infinity"):
            return absent
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            expected = "a finite number of 0 or more" + (", or nothing" if absent is not None else "")
            raise InstanceError(f"{self.where}: field {field}: {text!r:.40}, expected {expected}")
        return value


@dataclass(frozen=True, slots=True)
class _Table:
    where: str
    columns: tuple[str, ...]  # the header without its first cell
    rows: list[_Row]


def instance_name(path: Path) -> str:
    """Return the name of the instance in a file: its own without the suffixes that tell tables apart."""
    for suffix, _ in _SETS:
        if path.name.endswith(suffix) and path.name != suffix:
            return path.name.removesuffix(suffix)
    return path.stem


def companions(path: Path) -> list[Path]:
    """Return the other files that belong to a file of costs and that exist."""
    for suffix, others in _SETS:
        if path.name.endswith(suffix):
            stem = path.name.removesuffix(suffix)
            return [file for other in others if (file := path.with_name(stem + other)).is_file()]
    return []


def is_companion(path: Path) -> bool:
    """Return whether a file holds no instance by itself but belongs to a file of costs beside it."""
    for suffix, others in _SETS:
        for other in (*others, "_resource_BW_startup.csv"):
            if path.name.endswith(other) and path.with_name(path.name.removesuffix(other) + suffix).is_file():
                return True
    return False


def parse_cost_csv(parts: Sequence[tuple[str, str]], *, name: str) -> SocDagInstance:
    """Build an instance from tables.

    Args:
        parts: Source and content of each file.
        name: Name of the instance.

    Raises:
        InstanceError: ``source:line: field ...: what is wrong, what is expected``.
    """
    tables: dict[str, _Table] = {}
    for source, text in parts:
        for kind, table in _tables(source, text):
            role = "edges" if kind == "matrix" else kind
            if role in tables:
                raise InstanceError(f"{table.where}: a second table of {role}, expected one")
            tables[role] = table
            if kind == "matrix":
                tables["matrix"] = table
    source = parts[0][0]
    for role in ("costs", "edges"):
        if role not in tables:
            raise InstanceError(f"{source}: no table of {role}, expected one here or in a file beside it")
    costs = tables["costs"]
    tasks = _numbered([(row.label, row.where) for row in costs.rows], "task")
    _numbered([(column, costs.where) for column in costs.columns], "device")
    if not tasks or not costs.columns:
        raise InstanceError(f"{costs.where}: field task: no tasks or no devices, expected at least one of each")
    devices = costs.columns
    duration = np.array(
        [[row.number(p, device, absent=math.inf) for p, device in enumerate(devices)] for row in costs.rows]
    )
    for row, supported in zip(costs.rows, np.isfinite(duration).any(axis=1), strict=True):
        if not supported:
            raise InstanceError(f"{row.where}: task {row.label!r}: no device supports it, expected one or more times")
    edges = _matrix_edges(tables["matrix"], tasks) if "matrix" in tables else _listed_edges(tables["edges"], tasks)
    graph = TaskGraph(
        name=name,
        task_names=tuple(tasks),
        duration=duration,
        edge=np.array(list(edges), dtype=np.int32).reshape(-1, 2),
        edge_bytes=np.array(list(edges.values()), dtype=np.float64),
    )
    platform = Platform(
        devices=tuple(Device(name=device) for device in devices),
        counts=(1,) * len(devices),
        links=_links(tables, devices),
    )
    return SocDagInstance(name=name, platform=platform, graphs=(graph,))


def _tables(source: str, text: str) -> list[tuple[str, _Table]]:
    found: list[tuple[str, _Table]] = []
    fresh = True
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for cells in reader:
            where = f"{source}:{reader.line_num}"
            if not any(cell.strip() for cell in cells):
                fresh = True
                continue
            label = cells[0].strip()
            if fresh:
                if label.lower() not in _KINDS:
                    raise InstanceError(f"{where}: field header: {label!r:.40}, expected {_EXPECTED}")
                columns = tuple(cell.strip() for cell in cells[1:])
                found.append((_KINDS[label.lower()], _Table(where, columns, [])))
                fresh = False
            elif len(cells) - 1 != len(found[-1][1].columns):
                raise InstanceError(
                    f"{where}: row {label!r:.40}: {len(cells)} cells, expected {len(found[-1][1].columns) + 1}"
                )
            else:
                found[-1][1].rows.append(_Row(where, label, cells[1:]))
    except csv.Error as error:
        raise InstanceError(f"{source}:{reader.line_num}: not CSV: {error}") from None
    return found


def _numbered(labels: list[tuple[str, str]], what: str) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for label, where in labels:
        if not label:
            raise InstanceError(f"{where}: field {what}: empty, expected a name")
        if label in numbers:
            raise InstanceError(f"{where}: field {what}: {label!r:.40} is listed twice")
        numbers[label] = len(numbers)
    return numbers


def _listed_edges(table: _Table, tasks: dict[str, int]) -> dict[tuple[int, int], float]:
    if [column.lower() for column in table.columns] != ["target", "bytes"]:
        raise InstanceError(f"{table.where}: field header: expected source,target,bytes")
    edges: dict[tuple[int, int], float] = {}
    for row in table.rows:
        target = row.cells[0].strip()
        for field, label in (("source", row.label), ("target", target)):
            if label not in tasks:
                raise InstanceError(f"{row.where}: field {field}: {label!r:.40}, expected the name of a task")
        ends = tasks[row.label], tasks[target]
        if ends in edges:
            raise InstanceError(f"{row.where}: edge {row.label} -> {target} is listed twice")
        edges[ends] = row.number(1, "bytes")
    return edges


def _matrix_edges(table: _Table, tasks: dict[str, int]) -> dict[tuple[int, int], float]:
    labels = {row.label for row in table.rows} | set(table.columns)
    if len(table.rows) != len(tasks) or len(table.columns) != len(tasks):
        raise InstanceError(
            f"{table.where}: a matrix of {len(table.rows)} rows and {len(table.columns)} columns for {len(tasks)} tasks"
        )
    _numbered([(row.label, row.where) for row in table.rows], "source")
    order = _numbered([(column, table.where) for column in table.columns], "target")
    numbers = tasks if labels & set(tasks) else order
    for row in table.rows:
        if row.label not in numbers:
            raise InstanceError(f"{row.where}: field source: {row.label!r:.40}, expected the name of a task")
    if unknown := [column for column in table.columns if column not in numbers]:
        raise InstanceError(f"{table.where}: field target: {unknown[0]!r:.40}, expected the name of a task")
    return {
        (numbers[row.label], numbers[column]): size
        for row in table.rows
        for k, column in enumerate(table.columns)
        if (size := row.number(k, f"bytes to {column}", absent=0.0))
    }


def _links(tables: Mapping[str, _Table], devices: tuple[str, ...]) -> dict[tuple[str, str], Link]:
    pairs = [(source, target) for source in devices for target in devices if source != target]
    bandwidth, startup = dict.fromkeys(pairs, 1.0), dict.fromkeys(pairs, 0.0)
    if "bandwidth" in tables:
        table = tables["bandwidth"]
        last = table.rows[-1] if table.rows else None
        if last is not None and last.label.lower() == "startup" and "Startup" not in devices:
            for k, source in enumerate(table.columns):
                startup |= {pair: last.number(k, source) for pair in pairs if pair[0] == source}
            table = _Table(table.where, table.columns, table.rows[:-1])
        bandwidth = {pair: value for pair, value in _square(table, devices, "bandwidth").items() if value > 0}
    if "startup" in tables:
        startup |= _square(tables["startup"], devices, "startup")
    links = {}
    for pair, rate in bandwidth.items():
        try:
            links[pair] = Link(latency_s=startup[pair], bandwidth_bytes_per_s=rate)
        except ConfigError as error:
            raise InstanceError(f"{tables['costs'].where}: {error}") from None
    return links


def _square(table: _Table, devices: tuple[str, ...], role: str) -> dict[tuple[str, str], float]:
    rows = [row.label for row in table.rows]
    if sorted(table.columns) != sorted(devices) or sorted(rows) != sorted(devices):
        known = ", ".join(devices)
        raise InstanceError(f"{table.where}: table {role}: expected a row and a column for each of {known}")
    return {
        (row.label, column): row.number(k, column, absent=0.0)
        for row in table.rows
        for k, column in enumerate(table.columns)
        if row.label != column
    }


def format_cost_csv(instance: SocDagInstance) -> str:
    """Return a single job as one CSV file of several tables, a column per processing element.

    Times are in the instance's time unit. Power, prices and operating points below the fastest are not kept.

    Raises:
        InstanceError: something that the tables cannot hold: several jobs, a release, deadline, noise, rounding,
            contention, a shared memory, several tasks on one device, or task names that are not unique.
    """
    assert instance.deadline is not None
    graph = instance.graphs[int(instance.job_graph[0])]
    fits = {
        "job_graph": instance.static,
        "deadline": bool(np.isinf(instance.deadline).all()),
        "communication": instance.communication == "delay",
        "whole_units": not instance.whole_units,
        "platform.memory": instance.platform.memory is None,
        "platform.capacity": all(device.capacity == 1 for device in instance.platform.devices),
        "task_names": len(set(graph.task_names)) == graph.tasks and all(n and n == n.strip() for n in graph.task_names),
    }
    if failing := [field for field, holds in fits.items() if not holds]:
        raise InstanceError(f"{instance.name}: field {failing[0]}: CSV cannot hold it; use format json")
    names, devices = graph.task_names, instance.device_names
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["task", *devices])
    for task, row in zip(names, instance.flat.duration.tolist(), strict=True):
        writer.writerow([task, *("" if math.isinf(cost) else cost for cost in row)])
    writer.writerows([[], ["source", "target", "bytes"]])
    for (source, target), size in zip(graph.edge.tolist(), graph.edge_bytes.tolist(), strict=True):
        writer.writerow([names[source], names[target], size])
    if (graph.edge_bytes > 0).any():
        _write_links(writer, instance)
    return out.getvalue()


def _write_links(writer: Any, instance: SocDagInstance) -> None:
    """Write the tables of bandwidth and startup, both in the instance's time unit."""
    platform, unit = instance.platform, instance.time_unit_s
    kind = [platform.devices[number].name for number in instance.device_type]
    devices = instance.device_names
    for role in ("bandwidth", "startup"):
        writer.writerows([[], [role, *devices]])
        for p, source in enumerate(devices):
            row: list[float | str] = []
            for q in range(len(devices)):
                if p == q:
                    row.append("")
                    continue
                link = platform.link(kind[p], kind[q])
                row.append(link.bandwidth_bytes_per_s * unit if role == "bandwidth" else link.latency_s / unit)
            writer.writerow([source, *row])
