"""Jobs of stages, as Spark runs them and Decima schedules them (Mao et al. 2019), in a JSON of our own.

::

    {"schema": "schedrl/spark-jobs/1", "name": "tpch", "executors": 50, "jobs": [
      {"name": "q1", "arrival_ms": 0, "deadline_ms": 90000, "stages": [
        {"id": 0, "name": "scan", "tasks": 40, "duration_ms": 850},
        {"id": 1, "tasks": 3, "duration_ms": [900, 1200, 300], "parents": [0], "parent_bytes": [2e6]},
        {"id": 2, "tasks": 60, "duration_ms": {"first": [700, 720], "rest": [500]}, "parents": [0, 1]}]}]}

``duration_ms`` is one time for all tasks, a time per task, or measured times by wave, of which the means count: the
first task that an executor runs in a stage takes ``first`` (else ``fresh``), later ones ``rest`` (else ``first``).
A stage of k tasks becomes min(k, parallelism) tasks of the graph, each of them the share of one of that many executors,
dealt in turns, so that no work is lost. A stage waits for all tasks of its parents; ``parent_bytes`` are spread evenly
over the pairs. Deadlines count from arrival. ``name``, ``executors``, ``arrival_ms``, ``deadline_ms``, ``utility``,
``parents`` and ``parent_bytes`` may be left out. Times are in milliseconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schedrl.arrays import F64, I32, I64
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.json_node import JsonNode
from schedrl.envs.socdag.machines import Machines, related
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.errors import ConfigError, InstanceError

__all__ = ["EXECUTORS", "PARALLELISM", "SPARK_SCHEMA", "executors", "format_spark", "parse_spark"]

SPARK_SCHEMA = "schedrl/spark-jobs/1"
EXECUTORS = 8
"""executors where neither file nor caller says how many"""
PARALLELISM = 8
"""most graph tasks that a stage becomes, by default"""
_MOST_TASKS = 10**7
_MOST_EDGES = 10**7
_FIELDS = {
    "": ("schema", "name", "executors", "jobs"),
    "job": ("name", "arrival_ms", "deadline_ms", "utility", "stages"),
    "stage": ("id", "name", "tasks", "duration_ms", "parents", "parent_bytes"),
    "waves": ("fresh", "first", "rest"),
}


@dataclass(frozen=True, slots=True)
class _Stage:
    key: int
    name: str
    durations: list[float]  # of the graph tasks it becomes, ms
    parents: list[tuple[JsonNode, float]]


def executors(count: int) -> Machines:
    """Return identical executors joined by links of 1 GB/s.

    Raises:
        ConfigError: count is not a positive integer.
    """
    return related({"executor": (count, 1.0)})


def parse_spark(
    root: JsonNode, *, name: str, machines: Machines | None = None, parallelism: int = PARALLELISM
) -> SocDagInstance:
    """Build an instance from jobs of stages; its time unit is the millisecond.

    Args:
        root: The document.
        name: Name of the instance where the document has none.
        machines: Where the jobs run, by default the document's number of identical executors or ``EXECUTORS``.
        parallelism: Most graph tasks that a stage becomes.

    Raises:
        ConfigError: parallelism below 1.
        InstanceError: a bad field, with file and field.
    """
    if type(parallelism) is not int or parallelism < 1:
        raise ConfigError(f"option parallelism: {parallelism!r}, expected an integer of at least 1")
    _known(root, "")
    count = root.get("executors")
    chosen = machines or executors(EXECUTORS if count.value is None else count.integer(1, 10**6))
    listed = root.get("jobs").members()
    if not listed:
        root.get("jobs").fail("at least one job")
    jobs = []
    for number, job in enumerate(listed):
        _known(job, "job")
        due = job.get("deadline_ms")
        jobs.append(
            (
                job.get("arrival_ms").number(default=0.0),
                _graph(job, number, chosen, parallelism),
                math.inf if due.value is None else due.number(),
                job.get("utility").number(default=1.0),
            )
        )
    jobs.sort(key=lambda entry: entry[0])
    title = root.get("name")
    return SocDagInstance(
        name=name if title.value is None else title.text(),
        platform=chosen.platform,
        graphs=tuple(graph for _, graph, _, _ in jobs),
        job_graph=np.arange(len(jobs), dtype=np.int32),
        release=np.array([arrival for arrival, _, _, _ in jobs]),
        deadline=np.array([due for _, _, due, _ in jobs]),
        utility=np.array([utility for _, _, _, utility in jobs]),
        time_unit_s=1e-3,
    )


def _known(node: JsonNode, kind: str) -> None:
    if not isinstance(node.value, dict):
        node.fail("a table of fields")
    if unknown := sorted(set(node.value) - set(_FIELDS[kind])):
        node.get(unknown[0]).fail(f"no such field but {', '.join(_FIELDS[kind])}")


def _graph(job: JsonNode, number: int, machines: Machines, parallelism: int) -> TaskGraph:
    stages = [_stage(entry, parallelism) for entry in job.get("stages").members()]
    if not stages:
        job.get("stages").fail("at least one stage")
    first: dict[int, int] = {}
    total = 0
    by_key: dict[int, _Stage] = {}
    for place, stage in enumerate(stages):
        if stage.key in by_key:
            job.get("stages").members()[place].get("id").fail("an id that no stage before has")
        by_key[stage.key], first[stage.key] = stage, total
        total += len(stage.durations)
    pairs: list[tuple[int, int, int, int]] = []  # first tasks and widths of a parent and a child
    sizes, edges = [], 0
    for stage in stages:
        for parent, size in stage.parents:
            if parent.value not in by_key:
                parent.fail("the id of a stage")
            wide, narrow = len(by_key[parent.value].durations), len(stage.durations)
            edges += wide * narrow
            if edges > _MOST_EDGES:
                parent.fail(f"at most {_MOST_EDGES} edges, with a lower parallelism than {parallelism}")
            pairs.append((first[parent.value], wide, first[stage.key], narrow))
            sizes.append(size / (wide * narrow))
    edge, edge_bytes = _all_to_all(np.array(pairs, dtype=np.int64).reshape(-1, 4), np.array(sizes, dtype=np.float64))
    label = job.get("name")
    return TaskGraph(
        name=f"job{number}" if label.value is None else label.text(),
        task_names=tuple(_labels(stages)),
        duration=machines.duration(np.array([ms for stage in stages for ms in stage.durations])),
        edge=edge,
        edge_bytes=edge_bytes,
    )


def _all_to_all(pairs: I64, size: F64) -> tuple[I32, F64]:
    """Return the edges between all tasks of each pair of stages, given as its first tasks and widths."""
    start, wide, end, narrow = pairs.T
    count = wide * narrow
    pair = np.repeat(np.arange(len(pairs)), count)
    place = np.arange(len(pair)) - np.repeat(np.cumsum(count) - count, count)
    source, target = start[pair] + place // narrow[pair], end[pair] + place % narrow[pair]
    return np.stack([source, target], axis=1).astype(np.int32), size[pair]


def _labels(stages: Sequence[_Stage]) -> list[str]:
    return [
        stage.name if len(stage.durations) == 1 else f"{stage.name}.{share}"
        for stage in stages
        for share in range(len(stage.durations))
    ]


def _stage(entry: JsonNode, parallelism: int) -> _Stage:
    _known(entry, "stage")
    key = entry.get("id").integer(0, 2**31 - 1)
    label = entry.get("name")
    tasks = entry.get("tasks").integer(1, _MOST_TASKS)
    parents = entry.get("parents").members(optional=True)
    seen: set[int] = set()
    for parent in parents:
        if parent.integer(0, 2**31 - 1) in seen:
            parent.fail("a parent that was not listed before")
        seen.add(parent.value)
    sizes = entry.get("parent_bytes")
    listed = [size.number() for size in sizes.members()] if sizes.value is not None else [0.0] * len(parents)
    if len(listed) != len(parents):
        sizes.fail(f"{len(parents)} values, one per parent")
    return _Stage(
        key=key,
        name=f"stage{key}" if label.value is None else label.text(),
        durations=_shares(entry.get("duration_ms"), tasks, min(tasks, parallelism)),
        parents=list(zip(parents, listed, strict=True)),
    )


def _shares(duration: JsonNode, tasks: int, parts: int) -> list[float]:
    """Return the work of each of ``parts`` executors that take the tasks in turns."""
    counts = [tasks // parts + (part < tasks % parts) for part in range(parts)]
    if isinstance(duration.value, list):
        times = [time.number() for time in duration.members()]
        if len(times) != tasks:
            duration.fail(f"{tasks} times, one per task")
        return [math.fsum(times[part::parts]) for part in range(parts)]
    if not isinstance(duration.value, dict):
        each = duration.number()
        return [each * count for count in counts]
    _known(duration, "waves")
    mean = {}
    for wave in _FIELDS["waves"]:
        times = [time.number() for time in duration.get(wave).members(optional=True)]
        if times:
            mean[wave] = math.fsum(times) / len(times)
    order = [wave for wave in ("first", "fresh", "rest") if wave in mean]
    if not order:
        duration.fail("times for at least one of fresh, first and rest")
    start, later = mean[order[0]], mean.get("rest", mean[order[0]])
    return [start + later * (count - 1) for count in counts]


def format_spark(instance: SocDagInstance, machines: Machines | None = None) -> str:
    """Return jobs as jobs of stages of one task each.

    Args:
        instance: Jobs whose durations are runtimes divided by speeds.
        machines: Those speeds; by default as many identical executors as it has devices.

    Raises:
        InstanceError: something that the layout cannot hold, as noise or an unrelated cost matrix.
    """
    chosen = machines or executors(instance.devices)
    chosen.check_expressible(instance, "Spark JSON", one_job=False)
    assert instance.deadline is not None and instance.utility is not None
    unit_ms = instance.time_unit_s * 1e3
    jobs = []
    for job, kind in enumerate(instance.job_graph.tolist()):
        graph = instance.graphs[kind]
        runtime = chosen.runtime(graph, "Spark JSON") * unit_ms
        into, stages = graph.predecessors, []
        for task, ms in enumerate(runtime.tolist()):
            incoming = slice(*into.offset[task : task + 2])
            stage = {"id": task, "name": graph.task_names[task], "tasks": 1, "duration_ms": ms}
            parents, sizes = into.task[incoming].tolist(), graph.edge_bytes[into.edge[incoming]].tolist()
            stages.append(stage | ({"parents": parents, "parent_bytes": sizes} if parents else {}))
        entry = {"name": graph.name, "arrival_ms": float(instance.release_time[job]) * unit_ms}
        if math.isfinite(instance.deadline[job]):
            entry["deadline_ms"] = float(instance.deadline[job]) * unit_ms
        jobs.append(entry | {"utility": float(instance.utility[job]), "stages": stages})
    many = {"executors": instance.devices} if machines is None else {}
    document = {"schema": SPARK_SCHEMA, "name": instance.name, **many, "jobs": jobs}
    try:
        return json.dumps(document, allow_nan=False) + "\n"
    except ValueError:
        raise InstanceError(f"{instance.name}: field duration: too long for milliseconds") from None
