"""In which order operations can run: dependencies, topological order and cycles."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

__all__ = ["definitions", "format_cycle", "predecessors", "topological_order"]

MAX_CYCLE = 12


def definitions(writes: Sequence[Iterable[int]], buffers: int) -> list[list[int]]:
    """Return for each buffer the operations that define it: more than one is an error of the program."""
    defined: list[list[int]] = [[] for _ in range(buffers)]
    for op, results in enumerate(writes):
        for buffer in results:
            defined[buffer].append(op)
    return defined


def predecessors(reads: Sequence[Iterable[int]], defined: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return for each operation those that define what it reads, each once."""
    return [sorted({op for buffer in operands for op in defined[buffer]}) for operands in reads]


def topological_order(before: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Return an order that respects ``before`` and, where there is none, a cycle.

    Of the operations that can run next, the one with the lowest number does: an order that is right stays as it is.

    Args:
        before: For each operation those that must run before it.

    Returns:
        The order, of all operations if the second list is empty; a cycle, each operation before the next and the last
        before the first.
    """
    after: list[list[int]] = [[] for _ in before]
    missing = [len(ops) for ops in before]
    for op, ops in enumerate(before):
        for earlier in ops:
            after[earlier].append(op)
    ready = [op for op, count in enumerate(missing) if count == 0]
    order: list[int] = []
    while ready:
        op = heapq.heappop(ready)
        order.append(op)
        for later in after[op]:
            missing[later] -= 1
            if missing[later] == 0:
                heapq.heappush(ready, later)
    return order, [] if len(order) == len(before) else _cycle(before, missing)


def _cycle(before: Sequence[Sequence[int]], missing: Sequence[int]) -> list[int]:
    """Walk from predecessor to predecessor among the operations that never got ready until one comes again."""
    op = next(op for op, count in enumerate(missing) if count)
    seen: dict[int, int] = {}
    walk: list[int] = []
    while op not in seen:
        seen[op] = len(walk)
        walk.append(op)
        op = next(earlier for earlier in before[op] if missing[earlier])
    cycle = walk[seen[op] :][::-1]
    start = cycle.index(min(cycle))
    return cycle[start:] + cycle[:start]


def format_cycle(cycle: Sequence[int], labels: Sequence[str]) -> str:
    """Return ``a -> b -> a``; of a long cycle only the start."""
    shown = [f"{labels[op]:.40}" for op in cycle]
    if len(shown) > MAX_CYCLE:
        shown = [*shown[:MAX_CYCLE], "..."]
    return " -> ".join([*shown, shown[0]])
