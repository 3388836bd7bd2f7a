"""Trained policies as schedulers: greedy, in both time directions, and the best of 128 samples."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule
from schedrl.rollout import IDENTITY, PolicyScheduler, View
from schedrl.schedulers import SchedulerSpec

if TYPE_CHECKING:
    from schedrl.families import Simulator
    from schedrl.schedulers import Policy

__all__ = ["LEARNED", "REVERSED"]

_SAMPLES = 128


def _reversed_instance(instance: JobShopInstance) -> JobShopInstance:
    return instance.reversed()


def _original_schedule(instance: JobShopInstance, schedule: Schedule) -> Schedule:
    return schedule.reversed(instance)


REVERSED = View(name="reversed", instance=_reversed_instance, solution=_original_schedule)


def _load(bundle: Path | None) -> Policy:
    from schedrl.export.runtime import load

    if bundle is not None:
        return load(bundle, family="jobshop")
    with resources.as_file(resources.files("schedrl.baselines.jobshop") / "weights" / "jobshop.schedrl") as shipped:
        return load(shipped, family="jobshop")


def _simulator(policy: Any, instances: Sequence[Any], batch: int) -> Simulator:
    from schedrl.envs.jobshop.simulator import Simulator

    return Simulator(instances, batch, **policy.manifest.simulator)


def _make(samples: int, views: Sequence[View], bundle: Path | None = None) -> PolicyScheduler:
    from schedrl.envs.jobshop.family import FAMILY

    make_policy = functools.partial(_load, bundle)
    return PolicyScheduler(FAMILY, make_policy, _simulator, samples=samples, views=views)


def _spec(name: str, samples: int, views: Sequence[View], summary: str) -> SchedulerSpec:
    make = functools.partial(_make, samples, views)
    return SchedulerSpec(
        name=f"jobshop/{name}",
        make=make,
        with_bundle=make,
        # One forward pass dispatches in the order a shop would; other passes need the whole instance first.
        information="online" if samples == 0 and len(views) == 1 else "clairvoyant",
        summary=summary,
        source="graph neural network trained by PPO on generated instances; see the weights' README",
        randomised=samples > 0,
    )


LEARNED: tuple[SchedulerSpec, ...] = (
    _spec("ppo", 0, (IDENTITY,), "trained policy, one greedy pass"),
    _spec("ppo-both", 0, (IDENTITY, REVERSED), "trained policy, greedy forward and time-reversed, the better"),
    _spec(
        "ppo-sample", _SAMPLES, (IDENTITY, REVERSED), f"trained policy, best of {_SAMPLES} samples, half time-reversed"
    ),
)
