"""Task graphs in the text of the Standard Task Graph Set (Tobita and Kasahara 2002).

The first number n counts the tasks without the dummy entry 0 and the dummy exit n + 1. A line per task follows:
``id cost predecessors id id ...``. Graphs with communication costs give a pair ``id bytes`` per predecessor, on the
task's line or on lines of their own. The prototype set puts the number of processors after n and has no entry, ids
from 1. Comments start with ``#``. Dummies that cost nothing are dropped: they change no schedule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.machines import Machines, identical
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.errors import InstanceError

__all__ = ["PROCESSORS", "format_stg", "parse_stg"]

PROCESSORS = 4
"""identical processors where neither file nor caller says how many"""


@dataclass(slots=True)
class _Lines:
    """The lines that hold numbers, one at a time, with what an error message needs."""

    rows: list[tuple[int, list[str]]]
    source: str
    next: int = 0

    def fail(self, message: str, *, ahead: int = 0) -> InstanceError:
        index = self.next - 1 + ahead
        line = self.rows[min(max(index, 0), len(self.rows) - 1)][0] if self.rows else 1
        return InstanceError(f"{self.source}:{line}: {message}")

    def take(self, expected: str) -> list[str]:
        if self.next >= len(self.rows):
            raise self.fail(f"file breaks off, expected {expected}")
        self.next += 1
        return self.rows[self.next - 1][1]

    def integer(self, text: str, field: str, low: int, high: int) -> int:
        if not (text.isdecimal() and text.isascii() and len(text) <= 10 and low <= int(text) <= high):
            raise self.fail(f"field {field}: {text!r:.40}, expected an integer from {low} to {high}")
        return int(text)

    def number(self, text: str, field: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not (np.isfinite(value) and value >= 0):
            raise self.fail(f"field {field}: {text!r:.40}, expected a finite number of 0 or more")
        return value


def parse_stg(text: str, *, source: str, name: str, machines: Machines | None = None) -> SocDagInstance:
    """Build an instance from STG text.

    Args:
        text: Content of a file.
        source: Where it came from, the start of every error message.
        name: Name of the instance.
        machines: Where the tasks run. By default identical processors, as many as the file says or ``PROCESSORS``,
            between which a byte takes one time unit, so that the file's communication costs are times.

    Raises:
        InstanceError: ``source:line: field ...: what is wrong, what is expected``.
    """
    rows = [
        (number, line.split())
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    lines = _Lines(rows, source)
    head = lines.take("the number of tasks")
    if len(head) not in (1, 2):
        raise lines.fail(f"{len(head)} values, expected the number of tasks, in the prototype form also of processors")
    count = lines.integer(head[0], "tasks", 1, 10**9)
    first = 0 if len(head) == 1 else 1
    processors = PROCESSORS if first == 0 else lines.integer(head[1], "processors", 1, 10**6)
    cost: dict[int, float] = {}
    edges: dict[tuple[int, int], float] = {}
    last = count + 1
    while len(cost) < last + 1 - first:
        _task(lines, first, last, cost, edges)
    if lines.next < len(rows):
        raise lines.fail(f"text after the last of {count} tasks, expected # or the end of the file", ahead=1)
    kept = _without_dummies(cost, edges, first, last)
    place = {task: index for index, task in enumerate(kept)}
    inner = {ends: size for ends, size in edges.items() if ends[0] in place and ends[1] in place}
    chosen = machines or identical(processors)
    graph = TaskGraph(
        name=name,
        task_names=tuple(map(str, kept)),
        duration=chosen.duration(np.array([cost[task] for task in kept])),
        edge=np.array([(place[s], place[t]) for s, t in inner], dtype=np.int32).reshape(-1, 2),
        edge_bytes=np.array(list(inner.values()), dtype=np.float64),
    )
    return SocDagInstance(name=name, platform=chosen.platform, graphs=(graph,))


def _task(lines: _Lines, first: int, last: int, cost: dict[int, float], edges: dict[tuple[int, int], float]) -> None:
    row = lines.take(f"{last + 1 - first - len(cost)} more of {last + 1 - first} tasks with their dummies")
    if len(row) < 3:
        raise lines.fail(f"{len(row)} values, expected id, cost and number of predecessors")
    task = lines.integer(row[0], "id", first, last)
    if task in cost:
        raise lines.fail(f"field id: task {task} is listed twice")
    cost[task] = lines.number(row[1], f"cost of task {task}")
    sources = lines.integer(row[2], f"predecessors of task {task}", 0, last)
    rest = row[3:]
    if len(rest) == sources:
        pairs = [(source, "0") for source in rest]
    elif len(rest) == 2 * sources:
        pairs = list(zip(rest[::2], rest[1::2], strict=True))
    elif rest:
        raise lines.fail(
            f"field predecessors of task {task}: {len(rest)} values, expected {sources} ids or {sources} pairs of id "
            f"and bytes"
        )
    else:
        pairs = []
        for _ in range(sources):
            pair = lines.take(f"a predecessor of task {task} and its bytes")
            if len(pair) != 2:
                raise lines.fail(f"field predecessors of task {task}: {len(pair)} values, expected id and bytes")
            pairs.append((pair[0], pair[1]))
    for source, size in pairs:
        ends = lines.integer(source, f"predecessor of task {task}", first, last), task
        if ends in edges:
            raise lines.fail(f"field predecessors of task {task}: {source} is listed twice")
        edges[ends] = lines.number(size, f"bytes from {source} to {task}")


def _without_dummies(cost: dict[int, float], edges: dict[tuple[int, int], float], first: int, last: int) -> list[int]:
    """Return the tasks but for an entry and an exit that cost nothing and that nothing runs through."""
    needed = {task for ends, size in edges.items() if size > 0 for task in ends}
    needed |= {source for source, _ in edges if source == last} | {target for _, target in edges if target == 0}
    dummies = {last} if first == 1 else {0, last}
    dropped = {task for task in dummies if cost[task] == 0 and task not in needed}
    return sorted(set(cost) - dropped)


def format_stg(instance: SocDagInstance, machines: Machines | None = None) -> str:
    """Return a single job as STG text with dummies, with communication costs if an edge carries bytes.

    Task names are not kept: the text numbers tasks from 1.

    Args:
        instance: One job, released at 0 without a deadline.
        machines: What its durations were divided by; by default as many identical processors as it has devices.

    Raises:
        InstanceError: something that STG cannot hold, as several jobs or a cost that is not a runtime over a speed.
    """
    chosen = machines or identical(instance.devices)
    chosen.check_expressible(instance, "STG text")
    graph = instance.graphs[int(instance.job_graph[0])]
    runtime = chosen.runtime(graph, "STG text").tolist()
    into, priced = graph.predecessors, bool((graph.edge_bytes > 0).any())
    lines = [f"{graph.tasks}", "0 0 0"]
    for task in range(graph.tasks):
        incoming = slice(*into.offset[task : task + 2])
        pairs = [(s + 1, b) for s, b in zip(into.task[incoming], graph.edge_bytes[into.edge[incoming]], strict=True)]
        lines.append(_line(task + 1, runtime[task], pairs or [(0, 0.0)], priced))
    ends = np.flatnonzero(np.diff(graph.successors.offset) == 0)
    lines.append(_line(graph.tasks + 1, 0.0, [(int(end) + 1, 0.0) for end in ends], priced))
    return "\n".join([*lines, f"# {instance.name}"]).replace("\r", " ") + "\n"


def _line(task: int, cost: float, sources: list[tuple[int, float]], priced: bool) -> str:
    listed = [f"{source} {_short(size)}" if priced else str(source) for source, size in sources]
    return " ".join([str(task), _short(cost), str(len(sources)), *listed])


def _short(number: float) -> str:
    """Return a number that reads back equal, without a point where it is whole."""
    return str(int(number)) if number == int(number) else repr(float(number))
