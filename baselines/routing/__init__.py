"""Routers of requests, references in hindsight, and the choice of fleets."""

from __future__ import annotations

from schedrl.baselines.routing import (
    cache_aware,
    clairvoyant,
    continuum,
    dualmap,
    hashing,
    hexgen_flow,
    learned,
    llumnix,
    preble,
    scored,
    simple,
    triage,
)
from schedrl.schedulers import SchedulerSpec

__all__ = ["SCHEDULERS"]

SCHEDULERS: tuple[SchedulerSpec, ...] = (
    *simple.SCHEDULERS,
    *hashing.SCHEDULERS,
    *cache_aware.SCHEDULERS,
    *scored.SCHEDULERS,
    *preble.SCHEDULERS,
    *dualmap.SCHEDULERS,
    *llumnix.SCHEDULERS,
    *hexgen_flow.SCHEDULERS,
    *continuum.SCHEDULERS,
    *triage.SCHEDULERS,
    *clairvoyant.SCHEDULERS,
    *learned.SCHEDULERS,
)
