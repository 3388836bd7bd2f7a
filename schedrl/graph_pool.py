"""Static graphs by instance number, for policies that encode each instance once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from schedrl.graphs import StaticGraph

__all__ = ["GraphPool"]


class GraphPool:
    """Numbers instances in order of arrival and keeps the graphs of the last ``capacity`` of them.

    Observations carry the number; minibatches of a rollout look graphs up here. ``capacity`` must exceed the
    number of distinct instances that one rollout touches.
    """

    def __init__(self, static_graph: Callable[[Any], StaticGraph], capacity: int) -> None:
        self._static_graph = static_graph
        self._capacity = capacity
        self._graphs: dict[int, StaticGraph] = {}
        self._instances: dict[int, Any] = {}
        self._number_of: dict[int, int] = {}  # by identity of the instance object
        self._next = 0

    def number(self, instance: Any) -> int:
        """Return the number of an instance, storing it when it is new; the same object keeps its number."""
        known = self._number_of.get(id(instance))
        if known is not None:
            return known
        number = self._next
        self._store(number, instance)
        self._next += 1
        if number >= self._capacity:
            self._forget(number - self._capacity)
        return number

    def graphs(self, numbers: Sequence[int]) -> list[StaticGraph]:
        """Return the graphs of stored numbers.

        Raises:
            KeyError: a number was forgotten: the capacity is too small for the rollout.
        """
        return [self._graphs[number] for number in numbers]

    def snapshot(self) -> dict[int, Any]:
        """Return the stored instances by number."""
        return dict(self._instances)

    def restore(self, instances: dict[int, Any]) -> None:
        """Continue from a snapshot."""
        self._graphs, self._instances, self._number_of = {}, {}, {}
        for number, instance in instances.items():
            self._store(number, instance)
        self._next = max(instances, default=-1) + 1

    def _store(self, number: int, instance: Any) -> None:
        self._graphs[number] = self._static_graph(instance)
        self._instances[number] = instance
        self._number_of[id(instance)] = number

    def _forget(self, number: int) -> None:
        if number in self._graphs:
            del self._graphs[number]
            del self._number_of[id(self._instances.pop(number))]
