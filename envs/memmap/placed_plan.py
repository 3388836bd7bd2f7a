"""Plans of XLA's placement, in its own order of buffers and in that of their priced advantage, as hints."""

from __future__ import annotations

import numpy as np

from schedrl.arrays import I64
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.placement_order import clusters_of
from schedrl.envs.memmap.plan import MemoryPlan
from schedrl.envs.memmap.prices import Hint, Prices
from schedrl.envs.memmap.segment_allocator import place_all
from schedrl.envs.memmap.segment_state import Constants, allocate, plan_of, room_of, write_program

__all__ = ["placed_hints"]

_POWERS = (0.5, 1.0)


def placed_hints(instance: MemoryMapInstance, prices: Prices) -> list[Hint]:
    """Return the plans that XLA's placement finds in its own order and in orders of priced advantage."""
    state = allocate(1, room_of([instance]))
    write_program(state, 0, instance, Constants())
    clusters = clusters_of(instance)
    used = clusters.of_buffer >= 0
    advantage = np.bincount(clusters.of_buffer[used], weights=prices.advantage[used], minlength=clusters.count)
    footprint = np.bincount(clusters.of_buffer[used], weights=prices.footprint[used], minlength=clusters.count)
    orders: list[I64] = [np.arange(clusters.count, dtype=np.int64)]
    orders += [np.argsort(-advantage / np.maximum(footprint, 1.0) ** power, kind="stable") for power in _POWERS]
    hints = []
    for order in orders:
        place_all(state, 0, order)
        hints.append(_as_hint(instance, plan_of(state, 0)))
    return hints


def _as_hint(instance: MemoryMapInstance, plan: MemoryPlan) -> Hint:
    """Return a plan's layers, kept buffers, copies back and offsets by access."""
    hold, back = np.zeros(instance.accesses, dtype=np.bool_), np.zeros(instance.accesses, dtype=np.bool_)
    place, start = (np.full(instance.accesses, none, dtype=np.int64) for none in (-1, -2))
    offset, order = instance.by_buffer
    written_back = set(plan.copies[plan.copies[:, 1] == 0, 0].tolist())
    for buffer, layer, byte, first, last in plan.residences.tolist():
        before = -1
        for access in order[offset[buffer] : offset[buffer + 1]].tolist():
            if plan.access_layer[access] != layer or not first <= instance.access_op[access] <= last:
                continue
            if before < 0:
                place[access] = byte
                start[access] = -2 if instance.access_write[access] else first - 1
                back[access] = instance.access_write[access] and buffer in written_back
            else:
                hold[before] = True
            before = access
    return Hint(plan.access_layer, hold, back, place, start)
