"""Kernels that keep what devices already hold when a plan changes; the balance stays as the new plan has it.

Arguments as in ``balancing``.
"""

from __future__ import annotations

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.envs.moe.balancing import Scratch
from schedrl.kernels import inner, kernel

__all__ = ["assign", "preserve_slots", "rearrange", "relabel_devices"]


@kernel
def preserve_slots(old: I32, new: I32, first_slot: I32, scratch: Scratch) -> None:
    """Reorder ``new`` (P,) inside every device so that experts of ``old`` (P,) that stay there keep their slots.

    The others fill the remaining slots in their order, as vLLM does before it transfers weights.
    """
    kept, held = scratch.slots, scratch.held
    for d in range(len(first_slot) - 1):
        first, end = first_slot[d], first_slot[d + 1]
        for p in range(first, end):
            held[old[p]] = 0
            held[new[p]] = 0
        for p in range(first, end):
            held[new[p]] += 1
        for p in range(first, end):
            kept[p] = -1
            if held[old[p]] > 0:
                kept[p] = old[p]
                held[old[p]] -= 1
        # Of an expert's copies, those beyond the kept ones fill up; held counts them.
        p = first
        for q in range(first, end):
            if held[new[q]] > 0:
                held[new[q]] -= 1
                while kept[p] >= 0:
                    p += 1
                kept[p] = new[q]
    for p in range(len(new)):
        new[p] = kept[p]


@kernel
def relabel_devices(
    old: I32, new: I32, first_slot: I32, speed: F64, node: I32, across_nodes: bool, scratch: Scratch
) -> int:
    """Exchange the contents of equal devices in ``new`` (P,) so that they hold most of what they held in ``old`` (P,).

    Devices are equal with the same speed and number of slots, in the same ``node`` (D,) unless ``across_nodes``; the
    balance stays as it is. A linear assignment finds the largest overlap.

    Returns:
        The number of replicas, over all devices, that need not move.
    """
    devices, cost, match = len(speed), scratch.cost, scratch.match
    for b in range(devices):
        _count_device(new, first_slot[b], first_slot[b + 1], scratch.held)
        for a in range(devices):
            equal = speed[a] == speed[b] and (across_nodes or node[a] == node[b])
            equal = equal and first_slot[a + 1] - first_slot[a] == first_slot[b + 1] - first_slot[b]
            overlap = _overlap(old, first_slot[a], first_slot[a + 1], scratch.held)
            # Among equal overlaps, devices stay.
            cost[a, b] = -overlap - (0.25 / devices if a == b else 0.0) if equal else len(new) + 1.0
    assign(cost, match, scratch.potential, scratch.path)
    stay = 0
    for a in range(devices):
        stay += int(-cost[a, match[a]])
        for k in range(first_slot[a + 1] - first_slot[a]):
            scratch.slots[first_slot[a] + k] = new[first_slot[match[a]] + k]
    for p in range(len(new)):
        new[p] = scratch.slots[p]
    return stay


@kernel
def rearrange(old: I32, new: I32, first_slot: I32, speed: F64, node: I32, across: int, scratch: Scratch) -> None:
    """Change ``new`` (P,) to need fewer transfers from ``old`` (P,), at the same balance.

    Equal devices exchange their contents inside each node (``across`` 0), over all nodes (1) or not at all (-1); then
    experts that stay on a device stay in their slot.
    """
    if across >= 0:
        relabel_devices(old, new, first_slot, speed, node, across > 0, scratch)
    preserve_slots(old, new, first_slot, scratch)


@inner
def _count_device(placement: I32, first: int, end: int, held: I32) -> None:
    held[:] = 0
    for p in range(first, end):
        held[placement[p]] += 1


@inner
def _overlap(placement: I32, first: int, end: int, held: I32) -> int:
    """Return how many of the slots' experts are among those counted in ``held``, copies paired one to one."""
    found = 0
    for p in range(first, end):
        found += held[placement[p]] > 0
        held[placement[p]] -= 1
    for p in range(first, end):
        held[placement[p]] += 1
    return found


@kernel
def assign(cost: F64, match: I32, potential: F64, path: I32) -> None:
    """Write into ``match`` (n,) the column of each row with the least sum of ``cost`` (n, n), finite numbers.

    Shortest augmenting paths with potentials (Jonker and Volgenant 1987), O(n^3).

    Args:
        cost: (n, n).
        match: (n,) result.
        potential: (3, n + 1) working memory.
        path: (3, n + 1) working memory.
    """
    n = len(match)
    potential[:] = 0.0
    path[:] = -1
    row_potential, column_potential, distance = potential[0], potential[1], potential[2]
    row_of, previous, reached = path[0], path[1], path[2]
    for row in range(n):
        # Column n stands for the row that is looking for one.
        row_of[n] = row
        distance[:] = np.inf
        reached[:] = 0
        column = n
        while row_of[column] >= 0:
            reached[column] = 1
            here, step, following = row_of[column], np.inf, -1
            for c in range(n):
                if reached[c]:
                    continue
                reduced = cost[here, c] - row_potential[here] - column_potential[c]
                if reduced < distance[c]:
                    distance[c], previous[c] = reduced, column
                if distance[c] < step:
                    step, following = distance[c], c
            for c in range(n + 1):
                if reached[c]:
                    row_potential[row_of[c]] += step
                    column_potential[c] -= step
                else:
                    distance[c] -= step
            column = following
        while column != n:
            row_of[column] = row_of[previous[column]]
            column = previous[column]
    for c in range(n):
        match[row_of[c]] = c
