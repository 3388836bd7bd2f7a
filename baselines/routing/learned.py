"""The trained policy as a scheduler."""

from __future__ import annotations

from schedrl.learned import TRAINED_BY, policy_scheduler
from schedrl.schedulers import SchedulerSpec

__all__ = ["SCHEDULERS"]

_ROUTING = policy_scheduler("routing", "routing")

SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="routing/ppo",
        make=_ROUTING,
        with_bundle=_ROUTING,
        information="online",
        summary="trained policy sends each request, greedy",
        source=TRAINED_BY,
    ),
)
