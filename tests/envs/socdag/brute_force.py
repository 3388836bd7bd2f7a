"""The optimum of tiny instances by enumeration: ``from brute_force import least_latency``."""

from __future__ import annotations

import itertools

import numpy as np

from schedrl.envs.socdag.instance import SocDagInstance

__all__ = ["least_latency"]


def least_latency(instance: SocDagInstance, *, until: float = np.inf) -> float:
    """Return the least mean latency over all placements and all sequences of tasks and transfers.

    True durations, no job dropped, no admission limit. Every schedule can be moved left until each task and transfer
    follows something directly, and then arises by appending in the order of start times.
    """
    supported = [np.flatnonzero(np.isfinite(row)).tolist() for row in instance.flat.duration]
    best = until * instance.jobs
    for device in itertools.product(*supported):
        best = min(best, _best_sequence(instance, device, best))
    return best / instance.jobs


def _best_sequence(instance: SocDagInstance, device: tuple[int, ...], best: float) -> float:
    flat, tasks = instance.flat, instance.tasks
    duration = [float(instance.true_duration[t, device[t]]) for t in range(tasks)]
    edges = flat.edge.tolist()
    cost = [
        _travel(instance, device[i], device[j], float(size))
        for (i, j), size in zip(edges, flat.edge_bytes, strict=True)
    ]
    queued = [instance.communication == "contention" and taken > 0 for taken in cost]
    release = instance.release_time[flat.job].tolist()
    # Items are tasks and, after them, transfers that occupy a link.
    end: dict[int, float] = {}

    def total() -> float:
        last = [max(end[t] for t in range(tasks) if flat.job[t] == j) for j in range(instance.jobs)]
        return sum(last) - float(instance.release_time.sum())

    def extend(free: dict[object, float], best: float) -> float:
        if len([t for t in end if t < tasks]) == tasks:
            return min(best, total())
        for item in [*range(tasks), *(tasks + e for e in range(len(edges)) if queued[e])]:
            if item in end:
                continue
            if item >= tasks:
                e = item - tasks
                i, j = edges[e]
                if i not in end:
                    continue
                key: object = (int(instance.device_unit[device[i]]), int(instance.device_unit[device[j]]), "link")
                finish = max(end[i], free.get(key, 0.0)) + cost[e]
            else:
                inputs = [e for e in range(len(edges)) if edges[e][1] == item]
                if any((tasks + e if queued[e] else edges[e][0]) not in end for e in inputs):
                    continue
                arrival = [end[tasks + e] if queued[e] else end[edges[e][0]] + cost[e] for e in inputs]
                key = device[item]
                finish = max([release[item], free.get(key, 0.0), *arrival]) + duration[item]
                if instance.jobs == 1 and finish - release[item] >= best:
                    continue
            end[item] = finish
            best = extend({**free, key: finish}, best)
            del end[item]
        return best

    return extend({}, best)


def _travel(instance: SocDagInstance, p: int, q: int, size: float) -> float:
    if size == 0:
        return 0.0
    hops = [float(instance.links[k, p, q] + size * instance.links[k + 1, p, q]) for k in (0, 2)]
    return sum(float(np.floor(hop + 1e-9)) if instance.whole_units else hop for hop in hops)
