"""Complete search for offset packings, made anytime: a greedy packing, then lower and lower peaks to the least."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from schedrl.arrays import I64
from schedrl.baselines.memmap.complete_search import ComponentSearch, compile_search
from schedrl.baselines.memmap.complete_tables import components, searchable
from schedrl.baselines.memmap.packing_outcomes import packing_bound, packing_outcome, peak_of
from schedrl.baselines.memmap.packing_rules import best_greedy_packing, compile_fitting
from schedrl.envs.memmap.packing import OffsetPackingInstance
from schedrl.schedulers import Result, Scheduler, SchedulerSpec

__all__ = ["SCHEDULERS", "CompletePacking"]

_AT_BOUND = 0.3  # share of restarts at the lower bound: most often, it can be met, and tight capacities prune best


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletePacking:
    """Anytime complete search, after MiniMalloc (Moffitt, ASPLOS 2023).

    It begins with the best of a portfolio of greedy packings and restarts a depth-first search that finds a packing
    within a given capacity or proves that there is none. The times to find one are heavy-tailed and do not fall with
    the capacity, so restarts change the order, the branching rule, the node limit and the capacity: first the
    instance's own, in turns with the lower bound, then the lower bound and all below the best peak.

    Instances too large for the search's tables get the greedy packing only.

    Args:
        stop_at_capacity: stop at the first packing within the instance's capacity instead of going on to the least
            peak; no effect on an instance without one.
    """

    stop_at_capacity: bool = False

    def schedule(self, instance: OffsetPackingInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best packing found; infeasible only where the capacity is proven too small."""
        compile_fitting()
        compile_search(False)
        started = time.perf_counter()
        deadline = started + time_limit_s
        offset = best_greedy_packing(instance, deadline=deadline)
        bound = packing_bound(instance)
        if not searchable(instance) or peak_of(instance, offset) <= bound or time.perf_counter() >= deadline:
            searched = instance.capacity is None or bound <= instance.capacity
            return packing_outcome(instance, offset, started=started, searched=searched)
        descent = _Descent(instance, offset, rng)
        if descent.wide:
            # The first time only; not the search's own time.
            since = time.perf_counter()
            compile_search(True)
            started, deadline = (moment + time.perf_counter() - since for moment in (started, deadline))
        while time.perf_counter() < deadline and not descent.finished(self.stop_at_capacity):
            descent.step(deadline)
        return packing_outcome(
            instance,
            descent.offset,
            started=started,
            lower_bound=descent.bound,
            searched=instance.capacity is None or descent.bound <= instance.capacity,
            decisions=descent.nodes,
        )


class _Descent:
    """The best packing so far, and one search for each component."""

    def __init__(self, instance: OffsetPackingInstance, offset: I64, rng: np.random.Generator) -> None:
        found, self.unit = components(instance)
        self.wide = any(component.tables.size.dtype == np.int64 for component in found)
        self.searches = [ComponentSearch.of(component, rng) for component in found]
        self.instance, self.rng = instance, rng
        self.offset: I64 = offset.copy()
        live = np.concatenate([component.buffers for component in found]) if found else np.zeros(0, np.int64)
        never = np.setdiff1d(np.arange(instance.buffers), live)
        assert instance.fixed_offset is not None
        self.offset[never] = np.maximum(instance.fixed_offset[never], 0)
        self._never_peak = int((self.offset + instance.size)[never].max(initial=0))
        self._turn = 0

    @property
    def bound(self) -> int:
        """Proven lower bound on the peak in bytes."""
        return max([self._never_peak, *(search.lower * self.unit for search in self.searches)])

    @property
    def nodes(self) -> int:
        """Nodes searched."""
        return sum(search.nodes for search in self.searches)

    def finished(self, stop_at_capacity: bool) -> bool:
        """Return whether the peak is the least, or what was asked for is reached or out of reach."""
        peak, bound, capacity = peak_of(self.instance, self.offset), self.bound, self.instance.capacity
        if peak <= bound:
            return True
        return capacity is not None and (bound > capacity or (stop_at_capacity and peak <= capacity))

    def step(self, deadline: float) -> None:
        """Restart the search once for the component that determines the peak."""
        peaks = [int((self.offset + self.instance.size)[s.component.buffers].max()) for s in self.searches]
        search = self.searches[int(np.argmax(peaks))]
        capacity = self._target(max(peaks))
        offset = search.attempt(capacity, deadline)
        if offset is not None:
            self.offset[search.component.buffers] = offset * self.unit

    def _target(self, peak: int) -> int:
        """Return the capacity of the next restart in units."""
        low, high = self.bound // self.unit, -(-peak // self.unit) - 1
        self._turn += 1
        if self.instance.capacity is not None and peak > self.instance.capacity:
            return low if self._turn % 2 else max(low, self.instance.capacity // self.unit)
        if self.rng.random() < _AT_BOUND or low >= high:
            return low
        return int(self.rng.integers(low, high + 1))


def _make(**options: bool) -> Callable[[], Scheduler]:
    # Untyped on purpose: this takes packing instances only, the contract any instance.
    build: Callable[..., Any] = CompletePacking
    return functools.partial(build, **options)


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="memmap/complete",
        make=_make(),
        information="clairvoyant",
        summary="complete depth-first search with restarts: fits the capacity, then lowers the peak to the least",
        source="Moffitt, MiniMalloc, ASPLOS 2023",
        randomised=True,
    ),
    SchedulerSpec(
        name="memmap/complete-feasible",
        make=_make(stop_at_capacity=True),
        information="clairvoyant",
        summary="the complete search, stopped at the first packing within the capacity",
        source="Moffitt, MiniMalloc, ASPLOS 2023",
        randomised=True,
    ),
)
