"""The task graph: what one job has to compute, how long it takes on each device type, and what moves between tasks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from schedrl.arrays import F64, I32, Bool
from schedrl.errors import InstanceError

__all__ = ["Adjacency", "TaskGraph", "frozen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjacency:
    """The edges at each task: those of task t are ``edge[offset[t]:offset[t + 1]]``, their other ends ``task``."""

    offset: I32  # (T + 1,)
    edge: I32  # (E,) row of the graph's edge list
    task: I32  # (E,) the task at the other end


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskGraph:
    """A directed acyclic graph of tasks with an unrelated cost matrix.

    Times are in the instance's time unit. A task runs without interruption on one device of a type that
    supports it; an edge says that the target needs ``edge_bytes`` of the source's output.

    Raises:
        InstanceError: a cycle, an edge to an unknown task, a repeated edge, a cost that is negative or NaN, or a
            task that no device type supports; the message names field and task.
    """

    name: str
    task_names: tuple[str, ...]  # (T,)
    duration: F64  # (T, P) time units by device type, inf where the type does not support the task
    edge: I32  # (E, 2) source, target
    edge_bytes: F64  # (E,)

    def __post_init__(self) -> None:
        where = f"graph {self.name}"
        object.__setattr__(self, "task_names", tuple(self.task_names))
        object.__setattr__(self, "duration", frozen(self.duration, np.float64, 2, f"{where}: field duration"))
        edge = np.asarray(self.edge)
        if edge.size == 0:
            edge = np.zeros((0, 2), dtype=np.int32)
        object.__setattr__(self, "edge", frozen(edge, np.int32, 2, f"{where}: field edge"))
        object.__setattr__(self, "edge_bytes", frozen(self.edge_bytes, np.float64, 1, f"{where}: field edge_bytes"))
        _validate(self, where)

    @property
    def tasks(self) -> int:
        """Number of tasks T."""
        return len(self.duration)

    @property
    def edges(self) -> int:
        """Number of edges E."""
        return len(self.edge)

    @cached_property
    def predecessors(self) -> Adjacency:
        """Incoming edges of each task, in the order of the edge list."""
        return _adjacency(self.edge[:, 1], self.edge[:, 0], self.tasks)

    @cached_property
    def successors(self) -> Adjacency:
        """Outgoing edges of each task, in the order of the edge list."""
        return _adjacency(self.edge[:, 0], self.edge[:, 1], self.tasks)

    @cached_property
    def topological_order(self) -> I32:
        """(T,) tasks with every source before its targets; of several free tasks the lowest number first."""
        order, _ = _topological(self)
        return order

    @cached_property
    def supported(self) -> Bool:
        """(T, P) whether a device type supports a task."""
        return np.isfinite(self.duration)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TaskGraph):
            return NotImplemented
        return (
            (self.name, self.task_names) == (other.name, other.task_names)
            and np.array_equal(self.duration, other.duration)
            and np.array_equal(self.edge, other.edge)
            and np.array_equal(self.edge_bytes, other.edge_bytes)
        )

    def __hash__(self) -> int:
        return hash((self.name, self.duration.tobytes(), self.edge.tobytes()))


def frozen(array: Any, dtype: type, dimensions: int, where: str) -> np.ndarray[Any, Any]:
    """Return a read-only copy.

    Raises:
        InstanceError: not numbers, another number of dimensions, or fractions where integers are due.
    """
    values = np.asarray(array)
    kinds = "iu" if np.issubdtype(dtype, np.integer) else "iuf"
    if values.size == 0:
        values = values.astype(dtype)
    if values.ndim != dimensions or values.dtype.kind not in kinds:
        kind = "integers" if kinds == "iu" else "numbers"
        raise InstanceError(
            f"{where}: expected {kind} in {dimensions} dimension(s), got {values.dtype} of shape {values.shape}"
        )
    if kinds == "iu" and values.size and not -(2**31) <= values.min() <= values.max() < 2**31:
        raise InstanceError(f"{where}: a value outside 32 bits")
    copy: np.ndarray[Any, Any] = np.array(values, dtype=dtype)
    copy.flags.writeable = False
    return copy


def _adjacency(at: I32, other: I32, tasks: int) -> Adjacency:
    order = np.argsort(at, kind="stable").astype(np.int32)
    count = np.bincount(at, minlength=tasks)
    return Adjacency(
        offset=np.concatenate([[0], np.cumsum(count)]).astype(np.int32), edge=order, task=other[order].astype(np.int32)
    )


def _topological(graph: TaskGraph) -> tuple[I32, I32]:
    """Return tasks in order and the tasks left over, which are those on or behind a cycle."""
    import heapq

    successors = graph.successors
    missing = np.bincount(graph.edge[:, 1], minlength=graph.tasks)
    free = [task for task in range(graph.tasks) if missing[task] == 0]
    order: list[int] = []
    while free:
        task = heapq.heappop(free)
        order.append(task)
        for target in successors.task[successors.offset[task] : successors.offset[task + 1]].tolist():
            missing[target] -= 1
            if missing[target] == 0:
                heapq.heappush(free, target)
    return np.array(order, dtype=np.int32), np.flatnonzero(missing > 0).astype(np.int32)


def _validate(graph: TaskGraph, where: str) -> None:
    tasks = graph.tasks
    if tasks < 1 or graph.duration.shape[1] < 1:
        raise InstanceError(
            f"{where}: field duration: shape {graph.duration.shape}, expected at least one task and type"
        )
    if len(graph.task_names) != tasks:
        raise InstanceError(f"{where}: field task_names: {len(graph.task_names)} names for {tasks} tasks")
    names = graph.task_names
    if np.isnan(graph.duration).any() or (graph.duration < 0).any():
        task, kind = np.argwhere(np.isnan(graph.duration) | (graph.duration < 0))[0]
        value = graph.duration[task, kind]
        raise InstanceError(
            f"{where}: field duration[{task}, {kind}] of task {names[task]}: {value}, expected 0 or more"
        )
    if (unsupported := np.flatnonzero(~np.isfinite(graph.duration).any(axis=1))).size:
        task = unsupported[0]
        raise InstanceError(f"{where}: field duration[{task}]: no device type supports task {names[task]}")
    _validate_edges(graph, where)


def _validate_edges(graph: TaskGraph, where: str) -> None:
    tasks, names, edge = graph.tasks, graph.task_names, graph.edge
    if edge.shape[1] != 2:
        raise InstanceError(f"{where}: field edge: shape {edge.shape}, expected pairs of source and target")
    if len(graph.edge_bytes) != len(edge):
        raise InstanceError(f"{where}: field edge_bytes: {len(graph.edge_bytes)} values for {len(edge)} edges")
    if (bad := np.flatnonzero(((edge < 0) | (edge >= tasks)).any(axis=1))).size:
        source, target = edge[bad[0]].tolist()
        raise InstanceError(
            f"{where}: field edge[{bad[0]}]: {source} -> {target} names an unknown task, expected 0 to {tasks - 1}"
        )
    if (bad := np.flatnonzero(~(np.isfinite(graph.edge_bytes) & (graph.edge_bytes >= 0)))).size:
        raise InstanceError(
            f"{where}: field edge_bytes[{bad[0]}]: {graph.edge_bytes[bad[0]]}, expected a finite number of 0 or more"
        )
    keys = edge[:, 0].astype(np.int64) * tasks + edge[:, 1]
    values, first = np.unique(keys, return_index=True)
    if len(values) < len(keys):
        repeated = np.setdiff1d(np.arange(len(keys)), first)[0]
        source, target = edge[repeated].tolist()
        raise InstanceError(f"{where}: field edge[{repeated}]: {names[source]} -> {names[target]} is listed twice")
    _, left = _topological(graph)
    if left.size:
        raise InstanceError(f"{where}: field edge: a cycle runs through {_cycle(graph, left)}")


def _cycle(graph: TaskGraph, left: I32) -> str:
    """Return a cycle in words, walking backwards among tasks that never became free."""
    remaining = set(left.tolist())
    predecessors = graph.predecessors
    path, seen = [int(left[0])], set()
    while path[-1] not in seen:
        task = path[-1]
        seen.add(task)
        sources = predecessors.task[predecessors.offset[task] : predecessors.offset[task + 1]].tolist()
        path.append(next(source for source in sources if source in remaining))
    loop = path[path.index(path[-1]) :][::-1]
    shown = [graph.task_names[task] for task in loop]
    return " -> ".join(shown if len(shown) <= 8 else [*shown[:7], "...", shown[-1]])
