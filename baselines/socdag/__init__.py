"""Schedulers of DAG jobs on devices; importing this module loads neither OR-Tools nor torch."""

from __future__ import annotations

from schedrl.baselines.socdag import annealing, deadline, exact, heuristics, learned, online, rolling, weighted
from schedrl.schedulers import SchedulerSpec

__all__ = ["SCHEDULERS"]

SCHEDULERS: tuple[SchedulerSpec, ...] = (
    *heuristics.SCHEDULERS,
    *weighted.SCHEDULERS,
    *online.SCHEDULERS,
    *deadline.SCHEDULERS,
    *exact.SCHEDULERS,
    *rolling.SCHEDULERS,
    *annealing.SCHEDULERS,
    *learned.SCHEDULERS,
)
