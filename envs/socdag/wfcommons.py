"""WfCommons workflow traces: WfFormat 1.0 to 1.6, and the compact extract of WfInstances that schedrl's data holds.

WfFormat (Coleman, Casanova, Pottier, Kaushik, Deelman and Ferreira da Silva 2022) records what a workflow did on one
kind of machine. A task's runtime becomes its duration on each device type by the types' speeds. An edge carries the
bytes of all files that its source writes and its target reads. One device runs one task, whatever cores it asked for.

From 1.5 a workflow has a ``specification`` (tasks by id, files with sizes) and an ``execution`` (runtimes); before,
each of ``tasks`` (to 1.2 ``jobs``) holds its runtime and files itself and refers to others by name.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.json_node import JsonNode
from schedrl.envs.socdag.machines import MIXED, Machines
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.errors import InstanceError

__all__ = ["VERSIONS", "WRITTEN_VERSION", "format_wfformat", "parse_extract", "parse_wfformat"]

VERSIONS = ("1.0", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6")
WRITTEN_VERSION = "1.5"
_IDENTIFIER = re.compile(r"[0-9a-zA-Z_.-]+")


@dataclass(slots=True, kw_only=True)
class _Task:
    key: str
    name: str
    runtime: float
    parents: JsonNode
    children: JsonNode
    reads: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)


def parse_wfformat(root: JsonNode, *, name: str, machines: Machines | None = None) -> SocDagInstance:
    """Build an instance from a WfFormat document.

    Args:
        root: The document.
        name: Name of the instance; WfFormat's own names are often those of generator runs.
        machines: Where the workflow runs, ``MIXED`` by default.

    Raises:
        InstanceError: a version not in ``VERSIONS``, or a bad field, both with file and field.
    """
    version = root.get("schemaVersion")
    if version.value not in VERSIONS:
        version.fail(f"one of the versions {', '.join(VERSIONS)}")
    workflow = root.get("workflow")
    nested = workflow.get("specification").value is not None
    tasks, size = _nested(workflow) if nested else _flat(workflow)
    index = _index(tasks)
    edges = {(source, target): 0.0 for source, target in _declared(tasks, index)}
    written_by: dict[str, list[int]] = {}
    for number, task in enumerate(tasks):
        for file in dict.fromkeys(task.writes):
            written_by.setdefault(file, []).append(number)
    with_parents = {target for _, target in edges}
    for target, task in enumerate(tasks):
        # The older layout may leave dependencies to be told from the files.
        told_by_files = not nested and target not in with_parents
        for file in dict.fromkeys(task.reads):
            for source in written_by.get(file, ()):
                if (source, target) in edges or (told_by_files and source != target):
                    edges[source, target] = edges.get((source, target), 0.0) + size[file]
    labels = [task.name for task in tasks]
    if len(set(labels)) < len(labels):
        labels = [task.key for task in tasks]
    return _instance(name, labels, np.array([task.runtime for task in tasks]), edges, machines or MIXED)


def _nested(workflow: JsonNode) -> tuple[list[_Task], dict[str, float]]:
    specification, execution = workflow.get("specification"), workflow.get("execution")
    if execution.value is None:
        execution.fail("the runtimes of all tasks")
    runtime: dict[str, float] = {}
    for entry in execution.get("tasks").members():
        key = entry.get("id").text()
        if key in runtime:
            entry.get("id").fail("a task that was not listed before")
        runtime[key] = entry.get("runtimeInSeconds").number()
    size = {
        entry.get("id").text(): entry.get("sizeInBytes").number()
        for entry in specification.get("files").members(optional=True)
    }
    tasks = []
    for entry in specification.get("tasks").members():
        key = entry.get("id").text()
        if key not in runtime:
            entry.get("id").fail("a task with a runtime in workflow.execution.tasks")
        tasks.append(
            _Task(
                key=key,
                name=entry.get("name").text(),
                runtime=runtime[key],
                parents=entry.get("parents"),
                children=entry.get("children"),
                reads=_files(entry.get("inputFiles"), size),
                writes=_files(entry.get("outputFiles"), size),
            )
        )
    _check_keys(tasks, specification.get("tasks"))
    return tasks, size


def _files(listed: JsonNode, size: dict[str, float]) -> list[str]:
    files = listed.texts()
    for place, file in enumerate(files):
        if file not in size:
            listed.members()[place].fail("a file of workflow.specification.files")
    return files


def _flat(workflow: JsonNode) -> tuple[list[_Task], dict[str, float]]:
    listed = workflow.get("jobs") if workflow.get("tasks").value is None else workflow.get("tasks")
    size: dict[str, float] = {}
    tasks = []
    for entry in listed.members():
        name = entry.get("name").text()
        key = name if entry.get("id").value is None else entry.get("id").text()
        runtime = entry.get("runtime") if entry.get("runtimeInSeconds").value is None else entry.get("runtimeInSeconds")
        # Staging and clean-up steps were often recorded without a runtime.
        helper = entry.get("type").value in ("transfer", "auxiliary")
        task = _Task(
            key=key,
            name=name,
            runtime=runtime.number(default=0.0 if helper else None),
            parents=entry.get("parents"),
            children=entry.get("children"),
        )
        for file in entry.get("files").members(optional=True):
            path = file.get("path")
            label = ("" if path.value is None else path.text()) + file.get("name").text()
            bytes_ = file.get("size") if file.get("sizeInBytes").value is None else file.get("sizeInBytes")
            size.setdefault(label, bytes_.number())
            link = file.get("link")
            if link.value not in ("input", "output"):
                link.fail("input or output")
            (task.reads if link.value == "input" else task.writes).append(label)
        tasks.append(task)
    _check_keys(tasks, listed)
    return tasks, size


def _check_keys(tasks: list[_Task], listed: JsonNode) -> None:
    if not tasks:
        listed.fail("at least one task")
    seen: set[str] = set()
    for number, task in enumerate(tasks):
        if task.key in seen:
            where = f"{listed.source}: field {listed.path}[{number}].id"
            raise InstanceError(f"{where}: task {task.key!r:.40} is listed twice, expected unique ids")
        seen.add(task.key)


def _index(tasks: list[_Task]) -> dict[str, int]:
    """Return the number of each task by key and, where it is the only one of that name, by name."""
    count = Counter(task.name for task in tasks)
    index = {task.name: number for number, task in enumerate(tasks) if count[task.name] == 1}
    return index | {task.key: number for number, task in enumerate(tasks)}


def _declared(tasks: list[_Task], index: dict[str, int]) -> list[tuple[int, int]]:
    def numbers(listed: JsonNode) -> list[int]:
        labels = listed.texts()
        for place, label in enumerate(labels):
            if label not in index:
                listed.members()[place].fail("the id of a task")
        return [index[label] for label in labels]

    edges: list[tuple[int, int]] = []
    for own, task in enumerate(tasks):
        edges += [(parent, own) for parent in numbers(task.parents)]
        edges += [(own, child) for child in numbers(task.children)]
    return edges


def parse_extract(root: JsonNode, *, name: str, machines: Machines | None = None) -> SocDagInstance:
    """Build an instance from the compact extract: rows of tasks and edges, columns named by two other fields.

    Args:
        root: The document, with ``task_fields`` (name and runtime_s among them), ``tasks``, ``edge_fields`` (src, dst
            and bytes) and ``edges``.
        name: Name of the instance.
        machines: Where the workflow runs, ``MIXED`` by default.

    Raises:
        InstanceError: a bad field, with file and field.
    """
    columns = {}
    for table, needed in (("task", ("name", "runtime_s")), ("edge", ("src", "dst", "bytes"))):
        fields = root.get(f"{table}_fields")
        names = [node.text() for node in fields.members()]
        if missing := [column for column in needed if column not in names]:
            fields.fail(f"a column {missing[0]}")
        columns.update({column: names.index(column) for column in needed})

    def cell(row: JsonNode, column: str) -> JsonNode:
        cells = row.members()
        return cells[columns[column]] if columns[column] < len(cells) else JsonNode(None, row.source, row, column)

    rows = root.get("tasks").members()
    seen: Counter[str] = Counter()
    labels = []
    for row in rows:
        label = cell(row, "name").text()
        seen[label] += 1
        labels.append(label if seen[label] == 1 else f"{label}#{seen[label]}")
    runtime = np.array([cell(row, "runtime_s").number() for row in rows])
    edges = {}
    for row in root.get("edges").members():
        source, target = (cell(row, end).integer(0, len(rows) - 1) for end in ("src", "dst"))
        if (source, target) in edges:
            row.fail("an edge that was not listed before")
        edges[source, target] = cell(row, "bytes").number()
    return _instance(name, labels, runtime, edges, machines or MIXED)


def _instance(
    name: str,
    labels: list[str],
    runtime: np.ndarray[tuple[int], np.dtype[np.float64]],
    edges: dict[tuple[int, int], float],
    machines: Machines,
) -> SocDagInstance:
    graph = TaskGraph(
        name=name,
        task_names=tuple(labels),
        duration=machines.duration(runtime),
        edge=np.array(list(edges), dtype=np.int32).reshape(-1, 2),
        edge_bytes=np.array(list(edges.values()), dtype=np.float64),
    )
    return SocDagInstance(name=name, platform=machines.platform, graphs=(graph,))


def format_wfformat(instance: SocDagInstance, machines: Machines | None = None) -> str:
    """Return a single job as a WfFormat document of version ``WRITTEN_VERSION``, one file per edge that carries bytes.

    The execution it must hold is the one after another on the recorded machine, at the epoch.

    Args:
        instance: One job, released at 0 without a deadline.
        machines: What its durations were divided by, ``MIXED`` by default.

    Raises:
        InstanceError: something that WfFormat cannot hold: several jobs, a release, deadline or noise, durations that
            are not runtimes over speeds, or fractions of a byte.
    """
    chosen, form = machines or MIXED, f"WfFormat {WRITTEN_VERSION}"
    chosen.check_expressible(instance, form)
    graph = instance.graphs[int(instance.job_graph[0])]
    if (graph.edge_bytes != np.floor(graph.edge_bytes)).any():
        raise InstanceError(f"{instance.name}: field edge_bytes: {form} holds whole bytes only; use format json")
    runtime = chosen.runtime(graph, form) * instance.time_unit_s
    names = graph.task_names
    speaking = len(set(names)) == len(names) and all(_IDENTIFIER.fullmatch(name) for name in names)
    keys = list(names) if speaking else [f"task_{number}" for number in range(len(names))]
    files = {
        edge: f"{source}-{target}.dat"
        for edge, (source, target) in enumerate(graph.edge.tolist())
        if graph.edge_bytes[edge] > 0
    }
    into, out = graph.predecessors, graph.successors
    tasks = []
    for task, key in enumerate(keys):
        incoming, outgoing = slice(*into.offset[task : task + 2]), slice(*out.offset[task : task + 2])
        tasks.append(
            {
                "name": names[task],
                "id": key,
                "parents": [keys[other] for other in into.task[incoming].tolist()],
                "children": [keys[other] for other in out.task[outgoing].tolist()],
                "inputFiles": [files[edge] for edge in into.edge[incoming].tolist() if edge in files],
                "outputFiles": [files[edge] for edge in out.edge[outgoing].tolist() if edge in files],
            }
        )
    executed = [{"id": key, "runtimeInSeconds": seconds} for key, seconds in zip(keys, runtime.tolist(), strict=True)]
    sizes = [{"id": label, "sizeInBytes": int(graph.edge_bytes[edge])} for edge, label in files.items()]
    return json.dumps(
        {
            "name": instance.name,
            "schemaVersion": WRITTEN_VERSION,
            "workflow": {
                "specification": {"tasks": tasks, "files": sizes},
                "execution": {
                    "makespanInSeconds": float(runtime.sum()),
                    "executedAt": "1970-01-01T00:00:00Z",
                    "tasks": executed,
                },
            },
        }
    )
