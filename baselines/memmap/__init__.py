"""Schedulers of memory mapping and of offset packing; importing this module loads neither OR-Tools nor torch."""

from __future__ import annotations

import dataclasses

from schedrl.baselines.memmap import (
    complete,
    exact,
    greedy,
    learned,
    order_search,
    packing_exact,
    packing_rules,
    packing_search,
    packing_tabu,
    priced,
    relaxation_rounding,
    xla,
)
from schedrl.schedulers import SchedulerSpec

__all__ = ["SCHEDULERS"]

_MAPPING = (
    *greedy.SCHEDULERS,
    *xla.SCHEDULERS,
    *order_search.SCHEDULERS,
    *priced.SCHEDULERS,
    *relaxation_rounding.SCHEDULERS,
    *exact.SCHEDULERS,
    *learned.SCHEDULERS,
)
_PACKING = (
    *packing_rules.SCHEDULERS,
    *packing_search.SCHEDULERS,
    *packing_tabu.SCHEDULERS,
    *packing_exact.SCHEDULERS,
    *complete.SCHEDULERS,
)
SCHEDULERS: tuple[SchedulerSpec, ...] = (
    *(dataclasses.replace(spec, problem="latency") for spec in _MAPPING),
    *(dataclasses.replace(spec, problem="peak") for spec in _PACKING),
)
