"""XLA's memory-space assignment: buffers in order of their gain, each placed segment by segment as well as it goes.

The algorithm is that of ``xla/service/memory_space_assignment`` in OpenXLA (``algorithm.cc``,
``memory_bound_loop_optimizer`` and cross-program prefetch left out; ``buffer_interval_comparator.cc``,
``prefetch_interval_picker.cc``, ``best_fit_repacker.cc``) with the constants of its TPU builds, see
``schedrl.envs.memmap.segment_state.Constants``:

1. Buffers are sorted by memory boundedness: seconds their accesses gain from fast memory, per root of their size.
2. For each use of a buffer in order of time: stay in fast memory if the room is free and the wait not too long; else
   prefetch, the start nearest to the preferred one first; else read from the slow layer. Among the free chunks the
   best-fitting one that stays free for the most following uses is taken.
3. A buffer that was produced in fast memory is evicted before its first slow use or the program's end. If that fails,
   the whole buffer is taken back and tried once more with a wider window, then left slow.
4. A use that found no room has all buffers repacked, the largest first, up to four times in all.
5. Copies that serve accesses of less than half a byte per byte copied are given up.

Simplifications and differences:

- Both directions of copying share the slow layer's bus, first come first served, where XLA gives each direction the
  full bandwidth. A copy can use the time that operations leave the bus idle (``MemoryDevice.supply`` "idle"), where
  XLA counts their whole duration; what it lets overrun is refused. So the last retry of an eviction cannot waive the
  bandwidth, and instead the window grows until the bus has time. Because idle time grows while buffers move to fast
  memory, a second look (``Constants.second_look``) tries once more what stayed slow, with as many repacks again.
- A prefetch does not start before the buffer's previous residence has ended.
- Loops are operations with trip counts, so the time within a nest is not scaled, and known trip counts stand for the
  guess of five.
- No cross-program prefetch (fast memory is empty at the start), slicing of prefetches, scoped allocations, required
  assignments, or penalty for the bandwidth that a prefetch takes from others.
- With several fast layers, which XLA does not know, a buffer takes the one in which it saves most.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from schedrl.arrays import I64
from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.bounds import first_use_bus_s
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import fast_bound_s, slow_latency_s
from schedrl.envs.memmap.placement_order import clusters_of
from schedrl.envs.memmap.plan import MemoryPlan
from schedrl.envs.memmap.plan_check import plan_objectives
from schedrl.envs.memmap.segment_allocator import place_all
from schedrl.envs.memmap.segment_state import Constants, allocate, plan_of, room_of, write_program
from schedrl.schedulers import Result, Scheduler, SchedulerSpec, Status

__all__ = ["SCHEDULERS", "Constants", "Placement", "Xla", "compile_placement", "plan_outcome"]

# Both sides are sums of rounded numbers, added in another order.
_TOLERANCE = 1e-9


class Placement:
    """One program, into whose fast memory clusters of buffers are placed in any order.

    Args:
        instance: the program.
        constants: of the placement.
    """

    def __init__(self, instance: MemoryMapInstance, constants: Constants) -> None:
        self.state = allocate(1, room_of([instance]))
        write_program(self.state, 0, instance, constants)
        self.clusters = clusters_of(instance)
        self.slow_s = slow_latency_s(instance)

    def place(self, order: I64) -> float:
        """Place all clusters (C,) in an order and return the program's latency in seconds."""
        return self.slow_s - float(place_all(self.state, 0, order))

    def default_order(self) -> I64:
        """Return the order of XLA, in which clusters are numbered (C,)."""
        return np.arange(self.clusters.count, dtype=np.int64)

    def plan(self) -> MemoryPlan:
        """Return the plan that the last order led to."""
        return plan_of(self.state, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Xla:
    """One pass over the buffers in the order of XLA; milliseconds, whatever the time limit.

    Args:
        constants: production constants by default.
    """

    constants: Constants = field(default_factory=Constants)

    def schedule(self, instance: MemoryMapInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the plan; neither time limit nor ``rng`` matter."""
        compile_placement()
        started = time.perf_counter()
        placement = Placement(instance, self.constants)
        placement.place(placement.default_order())
        return plan_outcome(instance, placement.plan(), started=started)


def plan_outcome(instance: MemoryMapInstance, plan: MemoryPlan, *, started: float, decisions: int = 0) -> Result:
    """Return the result of a valid plan with a cheap lower bound; ``started`` is a ``time.perf_counter`` reading."""
    objective = plan_objectives(instance, plan)["latency"]
    bound = fast_bound_s(instance)
    if instance.memory.supply == "idle":
        bound = max(bound, first_use_bus_s(instance))
    status: Status = "optimal" if objective <= bound * (1.0 + _TOLERANCE) else "feasible"
    return Result(
        solution=plan,
        objective=objective,
        status=status,
        runtime_s=time.perf_counter() - started,
        lower_bound=min(bound, objective),
        decisions=decisions,
    )


@functools.cache
def compile_placement() -> Placement:
    """Compile the kernels on first use, so that a time limit measures the search alone; return a tiny placement."""
    layer = MemoryLayer(name="any", read_bytes_per_s=1.0, write_bytes_per_s=1.0, capacity_bytes=1)
    instance = MemoryMapInstance(
        name="compile",
        memory=MemoryDevice(name="any", flops_per_s=1.0, layers=(layer, layer)),
        flops=np.ones(1),
        size=np.ones(1, dtype=np.int64),
        output=np.zeros(1, dtype=np.bool_),
        access_op=np.zeros(1, dtype=np.int32),
        access_buffer=np.zeros(1, dtype=np.int32),
        access_write=np.ones(1, dtype=np.bool_),
    )
    placement = Placement(instance, Constants())
    placement.place(placement.default_order())
    return placement


def _make(build: Callable[..., Any]) -> Callable[[], Scheduler]:
    # Untyped on purpose: this takes programs only, the contract any instance; a spec meets its own family's.
    return build


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="memmap/xla",
        make=_make(Xla),
        information="clairvoyant",
        summary="XLA's memory-space assignment with production constants, retries and best-fit repacking",
        source="OpenXLA, xla/service/memory_space_assignment",
    ),
)
