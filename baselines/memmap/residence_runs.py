"""Runs: a buffer that stays in one fast layer over some of its uses; what a relaxation asks for, ready to be placed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from schedrl.arrays import I8
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import op_latency_s
from schedrl.envs.memmap.relaxation import Relaxation, use_table

__all__ = ["Run", "bundles_of", "runs_of", "values_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A buffer in a layer from its definition or from a copy on, as far as the last of its accesses there."""

    buffer: int
    layer: int
    made: bool
    """it begins with the definition; otherwise a copy brings the data before the first access"""
    accesses: tuple[int, ...]
    """accesses that the layer serves, in order of time"""


def runs_of(instance: MemoryMapInstance, relaxation: Relaxation) -> list[Run]:
    """Return the runs that a relaxation wants by more than one half."""
    uses, group, write = use_table(instance), instance.access_group, instance.access_write
    assert group is not None
    of_use: list[list[int]] = [[] for _ in uses.op]
    for access, use in enumerate(uses.of_access.tolist()):
        of_use[use].append(access)
    runs: list[Run] = []
    for buffer in range(instance.buffers):
        first, end = uses.offset[buffer : buffer + 2].tolist()
        for layer in range(1, instance.layers):
            parts: list[tuple[bool, list[int]]] = []
            here = False
            for use in range(first, end):
                wanted = [access for access in of_use[use] if relaxation.access[access, layer] > 0.5]
                made = any(write[access] for access in wanted)
                stays = here and bool(relaxation.kept[use - 1, layer] > 0.5)
                here = bool(wanted) or stays or bool(relaxation.fetched[use, layer] > 0.5)
                if here and not stays:
                    parts.append((made, []))
                if here:
                    # A use that gains nothing is served there all the same: it would need a copy in the slow layer.
                    parts[-1][1].extend(a for a in of_use[use] if a in wanted or (group[a] < 0 and not write[a]))
            runs += [
                Run(buffer=buffer, layer=layer, made=made, accesses=tuple(accesses))
                for made, accesses in parts
                if accesses
            ]
    return runs


def values_of(instance: MemoryMapInstance, runs: list[Run], access_layer: I8) -> list[float]:
    """Return the seconds that the program would lose if each run alone went back to the slow layer."""
    assert instance.trips is not None
    before = op_latency_s(instance, access_layer)
    values = []
    for run in runs:
        without = access_layer.copy()
        without[list(run.accesses)] = 0
        values.append(float((instance.trips * (op_latency_s(instance, without) - before)).sum()))
    return values


def bundles_of(instance: MemoryMapInstance, runs: list[Run]) -> list[list[int]]:
    """Return indices of runs that alias groups bind together, without those of groups that are incomplete."""
    group = instance.access_group
    assert group is not None
    parent = list(range(len(runs)))

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    first: dict[int, int] = {}
    present: dict[int, int] = defaultdict(int)
    for index, run in enumerate(runs):
        for access in run.accesses:
            if (number := int(group[access])) >= 0:
                parent[root(index)] = root(first.setdefault(number, index))
                present[number] += 1
    size = np.bincount(group[group >= 0], minlength=instance.groups)
    broken = {root(first[number]) for number, count in present.items() if count < size[number]}
    members: dict[int, list[int]] = defaultdict(list)
    for index, run in enumerate(runs):
        members[root(index)].append(index)
        if any(runs[other].layer != run.layer for other in members[root(index)]):
            broken.add(root(index))
    return [indices for top, indices in members.items() if top not in broken]
