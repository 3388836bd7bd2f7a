"""Instances as versioned JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from schedrl.devices import platform_from_dict, platform_to_dict
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.errors import ConfigError, InstanceError

if TYPE_CHECKING:
    from schedrl.envs.socdag.instance import SocDagInstance

__all__ = ["INSTANCE_SCHEMA", "instance_from_json", "instance_to_json"]

INSTANCE_SCHEMA = "schedrl/socdag-instance/1"
MAX_INDEX = 2**31 - 1
MAX_INTEGER = 10**300  # about the largest float
_JOB_FIELDS = ("job_graph", "release", "deadline", "utility", "noise", "preference")
_SCALARS: Mapping[str, type | tuple[type, ...]] = {
    "name": str,
    "admission_cap": int,
    "noise_sigma": (int, float),
    "communication": str,
    "whole_units": bool,
    "time_unit_s": (int, float),
}


def instance_to_json(instance: SocDagInstance) -> str:
    """Return the instance as JSON text; see ``SocDagInstance.to_json``."""
    return json.dumps(
        {
            "schema": INSTANCE_SCHEMA,
            **{name: getattr(instance, name) for name in _SCALARS},
            "platform": platform_to_dict(instance.platform),
            "graphs": [_graph_to_dict(graph) for graph in instance.graphs],
            **{name: _finite(getattr(instance, name).tolist()) for name in _JOB_FIELDS},
        },
        allow_nan=False,
    )


def instance_from_json(text: str, source: str) -> dict[str, Any]:
    """Return the constructor arguments of the instance in a JSON text.

    Raises:
        InstanceError: not JSON, another schema, or a bad field.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InstanceError(f"{source}: not valid JSON: {error}") from None
    if not isinstance(data, dict) or data.get("schema") != INSTANCE_SCHEMA:
        raise InstanceError(f"{source}: field schema: expected {INSTANCE_SCHEMA!r}")
    known = {"schema", "platform", "graphs", *_SCALARS, *_JOB_FIELDS}
    if unknown := sorted(set(data) - known):
        raise InstanceError(f"{source}: field {unknown[0]}: unknown")
    arguments: dict[str, Any] = {}
    for name, kind in _SCALARS.items():
        if name not in data:
            continue
        unfit = isinstance(data[name], int) and abs(data[name]) > MAX_INTEGER
        if unfit or not isinstance(data[name], kind) or (isinstance(data[name], bool) and kind is not bool):
            raise InstanceError(f"{source}: field {name}: unexpected {data[name]!r:.40}")
        arguments[name] = data[name]
    if "name" not in arguments:
        raise InstanceError(f"{source}: field name: missing")
    try:
        arguments["platform"] = platform_from_dict(data.get("platform"), f"{source}: platform")
    except ConfigError as error:
        raise InstanceError(str(error) if str(error).startswith(source) else f"{source}: {error}") from None
    graphs = data.get("graphs")
    if not isinstance(graphs, list):
        raise InstanceError(f"{source}: field graphs: expected a list, got {graphs!r:.40}")
    arguments["graphs"] = tuple(_graph_from_dict(item, f"{source}: field graphs[{k}]") for k, item in enumerate(graphs))
    for name in _JOB_FIELDS:
        if name in data:
            arguments[name] = _numbers(data[name], f"{source}: field {name}", integers=name == "job_graph")
    return arguments


def _graph_to_dict(graph: TaskGraph) -> dict[str, Any]:
    return {
        "name": graph.name,
        "task_names": list(graph.task_names),
        "duration": [_finite(row) for row in graph.duration.tolist()],
        "edges": [[s, t, b] for (s, t), b in zip(graph.edge.tolist(), graph.edge_bytes.tolist(), strict=True)],
    }


def _graph_from_dict(data: Any, where: str) -> TaskGraph:
    if not isinstance(data, dict) or set(data) != {"name", "task_names", "duration", "edges"}:
        raise InstanceError(f"{where}: expected the fields name, task_names, duration and edges")
    for name, kind in (("name", str), ("task_names", list), ("duration", list), ("edges", list)):
        if not isinstance(data[name], kind):
            raise InstanceError(f"{where}.{name}: expected {kind.__name__}, got {data[name]!r:.40}")
    rows = [_numbers(row, f"{where}.duration[{k}]") for k, row in enumerate(data["duration"])]
    if len({len(row) for row in rows}) != 1:
        raise InstanceError(f"{where}.duration: expected one or more rows of equal length")
    for k, edge in enumerate(data["edges"]):
        fits = isinstance(edge, list) and len(edge) == 3 and all(type(end) is int for end in edge[:2])
        if not fits or max(map(abs, edge[:2])) > MAX_INDEX:
            raise InstanceError(f"{where}.edges[{k}]: expected [source, target, bytes], got {edge!r:.40}")
    return TaskGraph(
        name=data["name"],
        task_names=tuple(str(name) for name in data["task_names"]),
        duration=np.array(rows, dtype=np.float64).reshape(len(rows), -1),
        edge=np.array([edge[:2] for edge in data["edges"]], dtype=np.int32).reshape(-1, 2),
        edge_bytes=_numbers([edge[2] for edge in data["edges"]], f"{where}.edges"),
    )


def _finite(values: list[Any]) -> list[Any]:
    return [None if isinstance(value, float) and math.isinf(value) else value for value in values]


def _numbers(values: Any, where: str, *, integers: bool = False) -> np.ndarray[Any, Any]:
    """Return an array of numbers; null stands for infinity."""
    if not isinstance(values, list):
        raise InstanceError(f"{where}: expected a list of numbers, got {values!r:.40}")
    for index, value in enumerate(values):
        number = isinstance(value, int if integers else (int, float)) and not isinstance(value, bool)
        if not number and (integers or value is not None):
            raise InstanceError(f"{where}[{index}]: {value!r:.40}, expected a number")
        if isinstance(value, int) and abs(value) > (MAX_INDEX if integers else MAX_INTEGER):
            raise InstanceError(f"{where}[{index}]: {value!r:.40}, a number out of range")
    if integers:
        return np.array(values, dtype=np.int64)
    return np.array([math.inf if value is None else value for value in values], dtype=np.float64)
