"""Trained policies as schedulers: greedy, in both time directions, and the best of 128 samples."""

from __future__ import annotations

from collections.abc import Sequence

from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule
from schedrl.learned import TRAINED_BY, policy_scheduler
from schedrl.rollout import IDENTITY, View
from schedrl.schedulers import SchedulerSpec

__all__ = ["LEARNED", "REVERSED"]

_SAMPLES = 128


def _reversed_instance(instance: JobShopInstance) -> JobShopInstance:
    return instance.reversed()


def _original_schedule(instance: JobShopInstance, schedule: Schedule) -> Schedule:
    return schedule.reversed(instance)


REVERSED = View(name="reversed", instance=_reversed_instance, solution=_original_schedule)


def _spec(name: str, samples: int, views: Sequence[View], summary: str) -> SchedulerSpec:
    make = policy_scheduler("jobshop", "jobshop", samples=samples, views=views)
    return SchedulerSpec(
        name=f"jobshop/{name}",
        make=make,
        with_bundle=make,
        # One forward pass dispatches in the order a shop would; other passes need the whole instance first.
        information="online" if samples == 0 and len(views) == 1 else "clairvoyant",
        summary=summary,
        source=TRAINED_BY,
        randomised=samples > 0,
    )


LEARNED: tuple[SchedulerSpec, ...] = (
    _spec("ppo", 0, (IDENTITY,), "trained policy, one greedy pass"),
    _spec("ppo-both", 0, (IDENTITY, REVERSED), "trained policy, greedy forward and time-reversed, the better"),
    _spec(
        "ppo-sample", _SAMPLES, (IDENTITY, REVERSED), f"trained policy, best of {_SAMPLES} samples, half time-reversed"
    ),
)
