"""Greedy offset packers: every order of placement with every way to choose the offset, and published allocators."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from schedrl.arrays import I32, I64
from schedrl.baselines.memmap.fitting import FITS, empty, fit, lowest_free, new_fitting, smallest_gap
from schedrl.baselines.memmap.packing_outcomes import packing_bound, packing_outcome
from schedrl.envs.memmap.packing import OffsetPackingInstance
from schedrl.errors import ConfigError
from schedrl.schedulers import Result, Scheduler, SchedulerSpec

__all__ = ["ORDERS", "SCHEDULERS", "GreedyPacking", "best_greedy_packing", "compile_fitting", "conflicts"]

Order = Callable[[OffsetPackingInstance], I32]


def conflicts(instance: OffsetPackingInstance) -> I64:
    """Return (N,) how many other buffers have a lifetime that meets a buffer's own, gaps included."""
    ended_before = np.searchsorted(np.sort(instance.upper), instance.lower, side="right")
    started_before = np.searchsorted(np.sort(instance.lower), instance.upper, side="left")
    return (started_before - ended_before - 1).astype(np.int64)


def section_total(instance: OffsetPackingInstance) -> I64:
    """Return (N,) most bytes of buffers, gaps included, that live together at one instant of a buffer's life."""
    times = np.unique(np.concatenate([instance.lower, instance.upper]))
    first, last = np.searchsorted(times, instance.lower), np.searchsorted(times, instance.upper)
    change = np.zeros(len(times), np.int64)
    np.add.at(change, first, instance.size)
    np.subtract.at(change, last, instance.size)
    # Every second range of ``reduceat`` lies between a buffer's last section and the next buffer's first.
    bounds = np.column_stack([first, last]).ravel()
    totals: I64 = np.maximum.reduceat(np.cumsum(change), bounds)[::2]
    return totals


def _largest_first(*keys: Any) -> I32:
    """Return buffers by descending keys, most important first; equal ones keep their order in the instance."""
    return np.lexsort([-key for key in keys[::-1]]).astype(np.int32)


def _lifetime(instance: OffsetPackingInstance) -> I64:
    return instance.upper - instance.lower


def _label_rank(instance: OffsetPackingInstance) -> I64:
    return np.argsort(np.argsort(np.array(instance.labels), kind="stable"), kind="stable").astype(np.int64)


def _by_area(instance: OffsetPackingInstance) -> I32:
    # Floating point, because the product of two large integers could overflow.
    return _largest_first(_lifetime(instance) * instance.size.astype(np.float64), instance.size)


def _by_first_use(instance: OffsetPackingInstance) -> I32:
    """Return buffers in the order of TensorFlow Lite: those live throughout, then by size, then by first use."""
    throughout = (instance.lower == instance.lower.min()) & (instance.upper == instance.upper.max())
    size = np.where(throughout, 0, instance.size)
    return _largest_first(throughout.astype(np.int64), size, np.where(throughout, 0, -instance.lower))


ORDERS: Mapping[str, Order] = {
    "size": lambda instance: _largest_first(instance.size),
    "duration": lambda instance: _largest_first(_lifetime(instance), instance.size),
    "area": _by_area,
    "conflicts": lambda instance: _largest_first(conflicts(instance), instance.size),
    "start": lambda instance: _largest_first(-instance.lower, instance.size),
    "section": lambda instance: _largest_first(section_total(instance), instance.size),
    "size-duration": lambda instance: _largest_first(instance.size, _lifetime(instance)),
    "size-conflicts-name": lambda i: _largest_first(i.size, conflicts(i), _label_rank(i)),
    "conflicts-size-name": lambda i: _largest_first(conflicts(i), i.size, _label_rank(i)),
    "throughout-size-start": _by_first_use,
}
"""(N,) buffers in the order of placement, by the name of what comes first"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GreedyPacking:
    """Place the buffers in a fixed order, the best of one or more passes.

    Args:
        passes: order in ``ORDERS`` and fit in ``fitting.FITS`` of each pass.

    Raises:
        ConfigError: no pass, or an unknown order or fit.
    """

    passes: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        if not self.passes:
            raise ConfigError("field passes: expected at least one pair of an order and a fit")
        for order, rule in self.passes:
            if order not in ORDERS or rule not in FITS:
                raise ConfigError(f"field passes: {order!r}, {rule!r}, expected one of {list(ORDERS)} and {list(FITS)}")

    def schedule(self, instance: OffsetPackingInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best of the passes; past the limit no further one begins."""
        compile_fitting()
        started = time.perf_counter()
        offset, passes = _best_of(instance, self.passes, started + time_limit_s)
        return packing_outcome(instance, offset, started=started, decisions=passes * instance.buffers)


# The quickest and those that are strong on large programs go first.
_PORTFOLIO = (
    ("size", "first"),
    ("conflicts", "best"),
    ("area", "lowest"),
    ("start", "lowest"),
    ("duration", "lowest"),
    ("conflicts", "lowest"),
    ("size-duration", "best"),
    ("size-duration", "lowest"),
    ("duration", "best"),
)
_COST = {"first": 1.0, "best": 1.5, "stack": 1.0, "lowest": 4.0}  # what a pass takes, relatively, at most


def best_greedy_packing(instance: OffsetPackingInstance, *, deadline: float = math.inf) -> I64:
    """Return the offsets (N,) of the best pass of a portfolio: the start of the improvement methods.

    No pass begins that would likely end past ``deadline``, a ``time.perf_counter`` reading; the first always does.
    """
    return _best_of(instance, _PORTFOLIO, deadline, foresee=True)[0]


def _best_of(
    instance: OffsetPackingInstance, passes: tuple[tuple[str, str], ...], deadline: float, foresee: bool = False
) -> tuple[I64, int]:
    """Return the offsets of the best pass and the number of passes made.

    No further pass begins past the deadline; with ``foresee``, none that would likely end past it.
    """
    fitting, bound = new_fitting(instance), packing_bound(instance)
    best, least, made, longest = fitting.offset, math.inf, 0, 0.0
    for order, rule in passes:
        started = time.perf_counter()
        expected = longest * _COST[rule] if foresee else 0.0
        if made and (started + expected >= deadline or least <= bound):
            break
        peak = fit(fitting, ORDERS[order](instance), FITS[rule])
        if peak < least:
            best, least = fitting.offset.copy(), peak
        made += 1
        longest = max(longest, (time.perf_counter() - started) / _COST[rule])
    return best, made


@functools.cache
def compile_fitting() -> None:
    """Compile the placement kernels on first use, so that time limits measure the methods alone."""
    numbers = [np.array(values) for values in ([0, 1, 2], [4, 3, 5], [2, 1, 3])]
    fitting = new_fitting(OffsetPackingInstance(name="tiny", lower=numbers[0], upper=numbers[1], size=numbers[2]))
    for rule in FITS.values():
        fit(fitting, np.arange(3, dtype=np.int32), rule)
    empty(fitting)
    lowest_free(fitting, 0, 0)
    smallest_gap(fitting, 0)


def _make(*passes: tuple[str, str]) -> Callable[[], Scheduler]:
    # Untyped on purpose: this takes packing instances only, the contract any instance.
    build: Callable[..., Any] = GreedyPacking
    return functools.partial(build, passes=passes)


def _spec(name: str, summary: str, source: str, *passes: tuple[str, str]) -> SchedulerSpec:
    return SchedulerSpec(
        name=f"memmap/{name}", make=_make(*passes), information="clairvoyant", summary=summary, source=source
    )


_ORDER_WORDS = {
    "size": "largest first",
    "duration": "longest lifetime first",
    "area": "largest product of size and lifetime first",
    "conflicts": "most conflicting lifetimes first",
    "start": "in order of first use, of equal ones the largest",
    "section": "those that live at the fullest instants first",
}
_FIT_WORDS = {
    "first": ("first-fit", "lowest free offset", "Robson 1974; Gergov 1999"),
    "best": ("best-fit", "smallest gap between placed buffers that is large enough", "Robson 1977"),
    "lowest": ("lowest-first", "always the buffer that can go lowest, ties", "Moffitt, MiniMalloc, ASPLOS 2023"),
}
_PUBLISHED = (
    _spec(
        "tvm-greedy-size",
        "largest first, on top of all placed conflicting buffers",
        "Apache TVM USMP, greedy_by_size",
        ("size-conflicts-name", "stack"),
    ),
    _spec(
        "tvm-greedy-conflicts",
        "most conflicts first, on top of all placed conflicting buffers",
        "Apache TVM USMP, greedy_by_conflicts",
        ("conflicts-size-name", "stack"),
    ),
    _spec(
        "tflite-arena",
        "buffers live throughout, then largest first, best fit",
        "TensorFlow Lite, arena planner",
        ("throughout-size-start", "best"),
    ),
    _spec(
        "xla-heap",
        "best fit by size and by lifetime, the better of the two",
        "OpenXLA, GlobalDecreasingSizeBestFitHeap",
        ("size-duration", "best"),
        ("duration", "best"),
    ),
)

SCHEDULERS: tuple[SchedulerSpec, ...] = (
    *(
        _spec(f"{fit_name}-{order}", f"{fit_words}, {order_words}", source, (order, rule))
        for rule, (fit_name, fit_words, source) in _FIT_WORDS.items()
        for order, order_words in _ORDER_WORDS.items()
    ),
    *_PUBLISHED,
)
