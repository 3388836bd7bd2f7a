"""Trained policies as schedulers: building one placement, re-planning before every window, and caching."""

from __future__ import annotations

from schedrl.learned import TRAINED_BY, policy_scheduler
from schedrl.schedulers import SchedulerSpec

__all__ = ["SCHEDULERS"]

_PLACEMENT = policy_scheduler("moe", "moe")
_REBALANCE = policy_scheduler("moe:rebalance", "moe-rebalance")
_CACHE = policy_scheduler("moe:cache", "moe-cache")

SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="moe/ppo",
        make=_PLACEMENT,
        with_bundle=_PLACEMENT,
        information="online",
        summary="trained policy builds one placement from the known windows, greedy",
        source=TRAINED_BY,
        problem="total_time",
    ),
    SchedulerSpec(
        name="moe/ppo-rebalance",
        make=_REBALANCE,
        with_bundle=_REBALANCE,
        information="online",
        summary="trained policy chooses what each layer changes before every window, greedy",
        source=TRAINED_BY,
        problem="total_time",
    ),
    SchedulerSpec(
        name="moe/ppo-cache",
        make=_CACHE,
        with_bundle=_CACHE,
        information="online",
        summary="trained policy chooses evictions and prefetches of the expert cache, greedy",
        source=TRAINED_BY,
        problem="decode_time",
    ),
)
