"""CP-SAT on offset packing: live byte ranges are rectangles over time and memory, of which no two overlap.

The peak of most live bytes is decided first, then the least peak is searched: as a decision at that peak CP-SAT is
far stronger than as an optimiser.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from schedrl.arrays import I64
from schedrl.baselines.memmap.packing_outcomes import offset_unit, packing_bound, packing_outcome, peak_of
from schedrl.baselines.memmap.packing_rules import best_greedy_packing, compile_fitting
from schedrl.envs.memmap.packing import MAX_BYTES, OffsetPackingInstance
from schedrl.errors import ConfigError
from schedrl.schedulers import Result, SchedulerSpec

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

__all__ = ["SCHEDULERS", "PackingCpSat"]

_DECISION_SHARE = 0.6  # of the time limit for the decision at the bound
# Up to this many ranges CP-SAT builds its pairwise tables within a few seconds.
_MAX_RANGES = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class PackingCpSat:
    """OR-Tools CP-SAT: first whether the bound can be met, then the least peak below the best greedy packing.

    Programs of more than 3000 live ranges get the greedy packing and the bound.

    Args:
        workers: search threads.

    Raises:
        ConfigError: less than one worker.
    """

    workers: int = 1

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"field workers: {self.workers}, expected at least 1")

    def schedule(self, instance: OffsetPackingInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best packing, optimal when proven; infeasible when proven to need more than the capacity."""
        compile_fitting()
        started = time.perf_counter()
        best = best_greedy_packing(instance, deadline=started + time_limit_s)
        bound, unit = packing_bound(instance), offset_unit(instance)
        capacity = MAX_BYTES if instance.capacity is None else instance.capacity
        bound = -(-bound // unit) * unit
        for share in (_DECISION_SHARE, 1.0):
            left = started + share * time_limit_s - time.perf_counter()
            highest = min(peak_of(instance, best) - unit, capacity // unit * unit)
            if left <= 0 or bound > highest or len(instance.live[0]) > _MAX_RANGES:
                continue
            top = bound if share < 1.0 else highest
            found, proven = self._solve(instance, bound, top, left, int(rng.integers(2**31 - 1)))
            best = best if found is None else found
            bound = max(bound, min(proven, peak_of(instance, best)))
        beyond = bound > capacity
        return packing_outcome(instance, best, started=started, lower_bound=bound, searched=not beyond)

    def _solve(
        self, instance: OffsetPackingInstance, bound: int, top: int, limit_s: float, seed: int
    ) -> tuple[I64 | None, int]:
        """Run CP-SAT once; return offsets with a peak of at most ``top``, if found, and the bound it proves."""
        from ortools.sat.python import cp_model

        started = time.perf_counter()
        unit = offset_unit(instance)
        model, offsets = _model(instance, bound // unit, top // unit, unit)
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = self.workers
        solver.parameters.random_seed = seed
        solver.parameters.use_timetabling_in_no_overlap_2d = True
        solver.parameters.use_energetic_reasoning_in_no_overlap_2d = True
        solver.parameters.max_time_in_seconds = max(0.01, limit_s - (time.perf_counter() - started))
        status = solver.solve(model)
        if status == cp_model.INFEASIBLE:
            return None, top + unit
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None, bound
        found = np.array([solver.value(offset) * unit for offset in offsets], dtype=np.int64)
        proven = peak_of(instance, found) if status == cp_model.OPTIMAL else bound
        return found, proven


def _model(instance: OffsetPackingInstance, bound: int, top: int, unit: int) -> tuple[cp_model.CpModel, list[Any]]:
    """Return the model of a peak between two values, and the offsets (N,), all in multiples of ``unit`` bytes."""
    from ortools.sat.python import cp_model

    assert instance.alignment is not None and instance.fixed_offset is not None
    model = cp_model.CpModel()
    peak = model.new_int_var(bound, top, "peak")
    offsets: list[Any] = []
    columns = (instance.size, instance.alignment, instance.fixed_offset)
    for size, alignment, fixed in zip(*(column.tolist() for column in columns), strict=True):
        step = max(alignment // unit, 1)
        given = fixed // unit // step
        count = model.new_int_var(max(given, 0), given if fixed >= 0 else (top - size // unit) // step, "")
        offsets.append(step * count)
        model.add(step * count + size // unit <= peak)
    in_time, in_memory, heights = [], [], []
    begins, ends, lows, highs, owners = instance.live
    # Only the order of instants matters; their numbers instead keep CP-SAT's areas small.
    times = np.unique(np.concatenate([begins, ends]))
    ranges = np.column_stack([np.searchsorted(times, begins), np.searchsorted(times, ends), lows, highs, owners])
    for start, end, low, high, b in ranges.tolist():
        height = (high - low) // unit
        in_time.append(model.new_fixed_size_interval_var(start, end - start, ""))
        in_memory.append(model.new_fixed_size_interval_var(offsets[b] + low // unit, height, ""))
        heights.append(height)
    model.add_no_overlap_2d(in_time, in_memory)
    model.add_cumulative(in_time, heights, peak)
    if bound < top:
        model.minimize(peak)
    return model, offsets


_build: Callable[..., Any] = PackingCpSat
SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="memmap/packing-cp-sat",
        make=_build,
        information="clairvoyant",
        summary="CP-SAT on rectangles without overlap: whether the bound can be met, then the least peak",
        source="Perron and Furnon, OR-Tools CP-SAT",
        randomised=True,
    ),
)
