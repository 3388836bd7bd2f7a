"""Exhaustive packing of buffers that may lie in each other's byte ranges while only windows of them are live.

The complete search places a buffer above another or below it. Of two buffers with windows one may instead lie in the
range that the other does not use; only where the search finds nothing, all offsets are tried.
"""

from __future__ import annotations

import time

import numpy as np

from schedrl.arrays import I32, I64
from schedrl.baselines.memmap.complete_tables import Component
from schedrl.kernels import inner_inlined, kernel

__all__ = ["enumerate_offsets"]

_STEPS = 200_000
_OPEN, _FOUND, _NONE = 0, 1, 2


def enumerate_offsets(component: Component, capacity: int, deadline: float) -> tuple[I64 | None, bool]:
    """Return offsets (N,) within a capacity in units, or None, and whether the enumeration came to its end.

    ``deadline`` is a ``time.perf_counter`` reading.
    """
    t = component.tables
    count = len(t.size)
    # Those with a given offset leave no choice and go first.
    order = np.lexsort((-t.size.astype(np.int64), t.fixed < 0)).astype(np.int32)
    low = t.part_low.astype(np.int64)
    offset, cursor = np.full(count, -1, np.int64), np.zeros(1, np.int64)
    parts = np.column_stack([t.part_first, t.part_last, low, low + t.part_size]).astype(np.int64)
    rows = np.column_stack([t.size, t.alignment, t.fixed]).astype(np.int64)
    outcome = _OPEN
    while outcome == _OPEN:
        if time.perf_counter() >= deadline:
            return None, False
        outcome = _enumerate(order, rows, t.part_offset, parts, capacity, offset, cursor, _STEPS)
    return (offset if outcome == _FOUND else None), True


@inner_inlined
def _clear(order: I32, part_offset: I32, parts: I64, offset: I64, k: int) -> bool:
    """Return whether buffer ``order[k]`` overlaps none before it in the order."""
    b = order[k]
    for m in range(k):
        c = order[m]
        for i in range(part_offset[b], part_offset[b + 1]):
            for j in range(part_offset[c], part_offset[c + 1]):
                together = parts[i, 0] < parts[j, 1] and parts[j, 0] < parts[i, 1]
                below = offset[b] + parts[i, 3] <= offset[c] + parts[j, 2]
                above = offset[c] + parts[j, 3] <= offset[b] + parts[i, 2]
                if together and not below and not above:
                    return False
    return True


@kernel
def _enumerate(
    order: I32, rows: I64, part_offset: I32, parts: I64, capacity: int, offset: I64, cursor: I64, steps: int
) -> int:
    """Go on for a number of steps with the depth-first search; each moves one buffer one step up."""
    k = cursor[0]
    for _ in range(steps):
        if k == len(order):
            return _FOUND
        if k < 0:
            return _NONE
        b = order[k]
        size, alignment, fixed = rows[b, 0], rows[b, 1], rows[b, 2]
        if offset[b] < 0:
            offset[b] = max(fixed, 0)
        else:
            offset[b] += capacity if fixed >= 0 else alignment
        if offset[b] + size > capacity:
            offset[b] = -1
            k -= 1
        elif _clear(order, part_offset, parts, offset, k):
            k += 1
    cursor[0] = k
    return _OPEN
