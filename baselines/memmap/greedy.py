"""The two simplest mappings of a program: nothing in fast memory, and whole buffers by their gain per byte-second."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from schedrl.arrays import F64, I64
from schedrl.baselines.memmap.xla import Placement, compile_placement, plan_outcome
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import op_latency_s
from schedrl.envs.memmap.placement_order import clusters_of, saving_alone_s
from schedrl.envs.memmap.plan import slow_plan
from schedrl.envs.memmap.segment_allocator import place_whole, reset_row
from schedrl.envs.memmap.segment_state import Constants
from schedrl.schedulers import Result, Scheduler, SchedulerSpec

__all__ = ["SCHEDULERS", "AllSlow", "GreedyDensity", "gain_per_byte_second"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AllSlow:
    """Leave everything in the slow layer: what a device without fast memory does."""

    def schedule(self, instance: MemoryMapInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return that plan; neither time limit nor ``rng`` matter."""
        return plan_outcome(instance, slow_plan(instance), started=time.perf_counter())


@dataclass(frozen=True, slots=True, kw_only=True)
class GreedyDensity:
    """Take buffers by their gain per byte-second, each for its whole life into the first fast layer, or not at all.

    Inputs are copied in before their first use, outputs copied back after their definition. Buffers that alias groups
    connect are taken together. Buffers without a gain stay slow.
    """

    def schedule(self, instance: MemoryMapInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the plan; neither time limit nor ``rng`` matter."""
        _compile()
        started = time.perf_counter()
        placement = Placement(instance, Constants())
        reset_row(placement.state, 0)
        density = gain_per_byte_second(instance)
        order: I64 = np.argsort(-density, kind="stable")
        for cluster in order[density[order] > 0].tolist():
            place_whole(placement.state, 0, cluster)
        return plan_outcome(instance, placement.plan(), started=started)


@functools.cache
def _compile() -> None:
    """Compile the kernels on first use, so that the reported time is that of the method alone."""
    placement = compile_placement()
    reset_row(placement.state, 0)
    place_whole(placement.state, 0, 0)


def gain_per_byte_second(instance: MemoryMapInstance) -> F64:
    """Return what each cluster (C,) saves, per byte and second of its life without fast memory.

    The life of a buffer lasts from its definition, or from its first use for inputs, to its last use.
    """
    clusters = clusters_of(instance)
    offset, by_buffer = instance.by_buffer
    used = np.flatnonzero(np.diff(offset) > 0)
    op = instance.access_op[by_buffer]
    assert instance.trips is not None
    elapsed = np.concatenate(
        [[0.0], np.cumsum(instance.trips * op_latency_s(instance, np.zeros(instance.accesses, dtype=np.int8)))]
    )
    life_s = elapsed[op[offset[used + 1] - 1] + 1] - elapsed[op[offset[used]]]
    of_access = clusters.of_buffer[instance.access_buffer]
    gain = np.bincount(of_access, weights=np.maximum(saving_alone_s(instance), 0.0), minlength=clusters.count)
    held = np.bincount(
        clusters.of_buffer[used], weights=instance.size[used] * np.maximum(life_s, 1e-300), minlength=clusters.count
    )
    density: F64 = gain / held
    return density


def _make(build: Callable[..., Any]) -> Callable[[], Scheduler]:
    # Untyped on purpose: these take programs only, the contract any instance; a spec meets its own family's.
    return build


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="memmap/all-slow",
        make=_make(AllSlow),
        information="clairvoyant",
        summary="every access from the slow layer",
        source="definition of the problem",
    ),
    SchedulerSpec(
        name="memmap/greedy-density",
        make=_make(GreedyDensity),
        information="clairvoyant",
        summary="whole buffers by gain per byte-second, best fit",
        source="knapsack greedy after Dantzig, Operations Research 5 (1957) 266-288",
    ),
)
