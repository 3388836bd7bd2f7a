"""Schedulers of expert placement and of expert caches; importing this module loads neither OR-Tools nor torch."""

from __future__ import annotations

import dataclasses

from schedrl.baselines.moe import (
    affinity,
    affinity_balanced,
    cache_offline,
    cache_rules,
    eplb,
    exact,
    hindsight,
    learned,
    moetuner,
    packing,
    replanning,
)
from schedrl.schedulers import SchedulerSpec

__all__ = ["SCHEDULERS"]

_PLACEMENT = (
    *packing.SCHEDULERS,
    *eplb.SCHEDULERS,
    *replanning.SCHEDULERS,
    *affinity.SCHEDULERS,
    *affinity_balanced.SCHEDULERS,
    *moetuner.SCHEDULERS,
    *exact.SCHEDULERS,
    *hindsight.SCHEDULERS,
)
SCHEDULERS: tuple[SchedulerSpec, ...] = (
    *(dataclasses.replace(spec, problem="total_time") for spec in _PLACEMENT),
    *cache_rules.SCHEDULERS,
    *cache_offline.SCHEDULERS,
    *learned.SCHEDULERS,
)
