"""What the copies of a plan do to the slow layer's bus, operation by operation, for pictures and explanations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schedrl.arrays import F64, I64
from schedrl.envs.memmap.copy_queues import copy_supply_s
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.plan import MemoryPlan

__all__ = ["BusUse", "bus_use", "copies_under_way", "copy_demand_s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BusUse:
    """Copying by direction, first row outward, second inward, when served first come, first served."""

    supply_s: F64  # (T,) seconds of copying that each operation can hide, over all its trips
    served_s: F64  # (2, T) seconds of copying done during each operation
    waiting_s: F64  # (2, T + 1) seconds of copying begun and not yet done before each operation, and at the end
    under_way: I64  # (2, T) copies that may be in progress during each operation


def bus_use(instance: MemoryMapInstance, plan: MemoryPlan) -> BusUse:
    """Return the bus's use under a plan; the supply depends on the plan's accesses, see ``copy_supply_s``."""
    supply, demand = copy_supply_s(instance, plan), copy_demand_s(instance, plan.copies)
    # A clock that runs only while copying can be hidden: copies occupy disjoint stretches of it.
    clock = np.concatenate([[0.0], np.cumsum(supply)])
    served, waiting = np.zeros((2, instance.ops + 1)), np.zeros((2, instance.ops + 1))
    free = 0.0
    for copy in np.argsort(plan.copies[:, 3], kind="stable").tolist():
        inward, first = int(plan.copies[copy, 1]), int(plan.copies[copy, 3]) + 1
        begin = max(free, float(clock[first]))
        free = begin + float(demand[copy])
        done = np.clip(clock - begin, 0.0, demand[copy])
        served[inward] += done
        waiting[inward, first:] += (demand[copy] - done)[first:]
    return BusUse(
        supply_s=supply,
        served_s=np.diff(served, axis=1),
        waiting_s=waiting,
        under_way=copies_under_way(instance, plan.copies),
    )


def copy_demand_s(instance: MemoryMapInstance, copies: I64) -> F64:
    """Return (K,) seconds of the slow layer's bus that each copy of a plan takes."""
    slow = instance.memory.layers[0]
    speed = np.where(copies[:, 1] == 1, slow.read_bytes_per_s, slow.write_bytes_per_s)
    seconds: F64 = instance.size[copies[:, 0]] / speed
    return seconds


def copies_under_way(instance: MemoryMapInstance, copies: I64) -> I64:
    """Return (2, T) how many copies outward (0) and inward (1) may be in progress during each operation."""
    change = np.zeros((2, instance.ops + 2), dtype=np.int64)
    np.add.at(change, (copies[:, 1], copies[:, 3] + 1), 1)
    np.add.at(change, (copies[:, 1], copies[:, 4]), -1)
    under_way: I64 = np.cumsum(change, axis=1)[:, : instance.ops]
    return under_way
