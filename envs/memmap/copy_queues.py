"""What becomes of a plan's copies: the queue they wait in, and the stalls when two queues share the bus as in XLA."""

from __future__ import annotations

import math

import numpy as np

from schedrl.arrays import F64
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import bytes_moved, op_latency_s, slow_bus_s
from schedrl.envs.memmap.plan import MemoryPlan

__all__ = ["copy_supply_s", "lateness_s", "simulate_elapsed_s"]


def copy_supply_s(instance: MemoryMapInstance, plan: MemoryPlan) -> F64:
    """Return (T,) seconds of copying that each operation hides, over all its trips."""
    assert instance.trips is not None
    if instance.memory.supply == "elapsed":
        return instance.trips * op_latency_s(instance, np.zeros(instance.accesses, dtype=np.int8))
    latency = op_latency_s(instance, plan.access_layer)
    return instance.trips * (latency - slow_bus_s(instance, bytes_moved(instance, plan.access_layer)))


def _demand_s(instance: MemoryMapInstance, plan: MemoryPlan) -> F64:
    slow = instance.memory.layers[0]
    size = instance.size[plan.copies[:, 0]]
    return np.where(plan.copies[:, 1] == 1, size / slow.read_bytes_per_s, size / slow.write_bytes_per_s)


def lateness_s(instance: MemoryMapInstance, plan: MemoryPlan) -> F64:
    """Return (K,) seconds of each copy that are still to be done when its end comes; 0 for a copy in time.

    All copies share the slow layer's bus and are served one at a time, first come, first served.
    """
    supply, left = copy_supply_s(instance, plan), _demand_s(instance, plan)
    start, end = plan.copies[:, 3], plan.copies[:, 4]
    order = np.lexsort((np.arange(len(start)), start)).tolist()
    late = np.zeros(len(start))
    head = 0
    for t in range(instance.ops + 1):
        for copy in np.flatnonzero(end == t).tolist():
            late[copy] = left[copy]
        if t == instance.ops:
            break
        budget = float(supply[t])
        while budget > 0 and head < len(order) and start[order[head]] < t:
            served = min(budget, left[order[head]])
            left[order[head]] -= served
            budget -= served
            if left[order[head]] > 0:
                break
            head += 1
    # Rounding of many sums is no lateness.
    late[late <= 1e-9 * max(float(supply.sum()), 1e-300)] = 0.0
    return late


def simulate_elapsed_s(instance: MemoryMapInstance, plan: MemoryPlan, *, xla_quirk: bool = False) -> float:
    """Return the latency under XLA's runtime model: two queues, and an operation waits for copies it needs.

    Inward and outward copies wait in a queue each and progress while the bus serves no access of an operation; when
    both queues are busy each gets half of it. ``xla_quirk`` halves the bandwidth once more at every step of the
    sharing within an operation, as ``RuntimeSimulator`` of XLA does.
    """
    assert instance.trips is not None
    moved = bytes_moved(instance, plan.access_layer)
    latency = instance.trips * op_latency_s(instance, plan.access_layer)
    idle = latency - instance.trips * slow_bus_s(instance, moved)
    demand, start, end = _demand_s(instance, plan), plan.copies[:, 3], plan.copies[:, 4]
    order = np.lexsort((np.arange(len(start)), start)).tolist()
    queues: tuple[list[int], list[int]] = ([], [])
    left, issued = demand.copy(), 0
    stalls: list[float] = []
    for t in range(instance.ops + 1):
        while issued < len(order) and start[order[issued]] < t:
            queues[int(plan.copies[order[issued], 1])].append(order[issued])
            issued += 1
        for copy in np.flatnonzero(end == t).tolist():
            stalls.append(_wait_for(copy, queues, left, plan.copies[copy, 1]))
        if t == instance.ops:
            break
        _progress(queues, left, float(idle[t]), xla_quirk)
    return math.fsum(latency.tolist() + stalls)


def _progress(queues: tuple[list[int], list[int]], left: F64, seconds: float, quirk: bool) -> None:
    """Serve the heads of both queues for some seconds of the bus."""
    share = 1.0
    while seconds > 0 and (queues[0] or queues[1]):
        both = bool(queues[0]) and bool(queues[1])
        share = (share * 0.5 if quirk else 0.5) if both else (share if quirk else 1.0)
        if share < 1e-12:  # the quirk has halved the bandwidth away
            return
        heads = [queue for queue in queues if queue]
        step = min([seconds] + [left[queue[0]] / share for queue in heads])
        for queue in heads:
            left[queue[0]] -= step * share
            if left[queue[0]] <= 1e-18:
                left[queue[0]] = 0.0
                queue.pop(0)
        seconds -= step


def _wait_for(copy: int, queues: tuple[list[int], list[int]], left: F64, inward: int) -> float:
    """Return how long the program stands still until a copy is done; the other queue moves meanwhile."""
    waited = 0.0
    queue, other = queues[int(inward)], queues[1 - int(inward)]
    while copy in queue:
        share = 0.5 if other else 1.0
        step = left[queue[0]] / share
        if other:
            step = min(step, left[other[0]] / share)
        waited += step
        for moving in (queue, other):
            if moving:
                left[moving[0]] -= step * share
                if left[moving[0]] <= 1e-18:
                    left[moving[0]] = 0.0
                    moving.pop(0)
    return waited
