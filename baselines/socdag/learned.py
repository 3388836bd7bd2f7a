"""Trained policies as schedulers: one plans single jobs, some serve streams, one takes a preference."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from schedrl.baselines.socdag.execution import execute
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.soc import soc_3pe
from schedrl.envs.socdag.solution import DagSchedule
from schedrl.learned import TRAINED_BY, policy_scheduler
from schedrl.rollout import IDENTITY, PolicyScheduler, View
from schedrl.schedulers import Result, SchedulerSpec

__all__ = ["PLANNED", "SCHEDULERS", "Trained"]

_SAMPLES = 128


def _expected(instance: SocDagInstance) -> SocDagInstance:
    """Return the instance as a planner may see it: every task takes its expected time."""
    return dataclasses.replace(instance, noise_sigma=0.0)


def _executed(instance: SocDagInstance, plan: DagSchedule) -> DagSchedule:
    """Return what becomes of a plan: the same devices and sequences under true durations."""
    rank = np.zeros(instance.tasks, dtype=np.int64)
    # Of tasks that start together, predecessors come first.
    rank[instance.flat.order] = np.arange(instance.tasks)
    order = np.lexsort((rank, plan.start)).astype(np.int32)
    transfer = None
    if instance.communication == "contention":
        assert plan.transfer is not None
        transfer = np.argsort(plan.transfer, kind="stable").astype(np.int32)
    return execute(instance, plan.device, order, point=plan.point, transfer_order=transfer)


PLANNED = View(name="planned", instance=_expected, solution=_executed)


class Trained:
    """Jobs whose tasks take the expected time are planned as they enter; others are served decision by decision.

    Single jobs are always planned, and under noise executed as planned. Streams on the 3-device SoC are always
    served, by a policy trained further on them: they keep its devices busy, and plans do not let jobs overtake.

    Args:
        samples: 0 for one greedy plan, otherwise the number of sampled plans of a single job; streams are planned
            and served greedily, since nothing can be tried twice there.
        bundle: the user's own policy for all of them, instead of the shipped ones.
    """

    def __init__(self, samples: int = 0, bundle: Path | None = None) -> None:
        self._samples, self._bundle = samples, bundle
        self._built: dict[tuple[str, int], PolicyScheduler] = {}

    def schedule(self, instance: SocDagInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the executed schedule; sampled plans are compared by what they promise, not by what came true."""
        weights = "socdag" if self._bundle is not None else _weights(instance)
        samples = self._samples if instance.jobs == 1 else 0
        if (weights, samples) not in self._built:
            self._built[weights, samples] = self._build(weights, samples)
        return self._built[weights, samples].schedule(instance, time_limit_s=time_limit_s, rng=rng)

    def _build(self, weights: str, samples: int) -> PolicyScheduler:
        planner = self._plans() if self._bundle is not None else weights == "socdag"
        views = (PLANNED,) if planner else (IDENTITY,)
        make = policy_scheduler("socdag", weights, samples=samples if planner else 0, views=views)
        return make() if self._bundle is None else make(self._bundle)

    def _plans(self) -> bool:
        from schedrl.export.runtime import load

        assert self._bundle is not None
        return load(self._bundle, family="socdag").manifest.simulator.get("mode") == "plan"


def _weights(instance: SocDagInstance) -> str:
    """Return the name of the shipped policy for an instance."""
    if instance.jobs == 1:
        return "socdag"
    if instance.platform == soc_3pe():
        return "socdag-stream-3pe"
    return "socdag-stream" if instance.noise_sigma else "socdag"


def _greedy(bundle: Path | None = None) -> Any:
    return Trained(bundle=bundle)


def _sampled(bundle: Path | None = None) -> Any:
    return Trained(samples=_SAMPLES, bundle=bundle)


_PREFERENCE = policy_scheduler("socdag", "socdag-preference", views=(PLANNED,))

SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="socdag/ppo",
        make=_greedy,
        with_bundle=_greedy,
        information="online",
        summary="trained policies, greedy: jobs planned at their entry, or served online under noise",
        source=TRAINED_BY,
    ),
    SchedulerSpec(
        name="socdag/ppo-sample",
        make=_sampled,
        with_bundle=_sampled,
        information="online",
        summary=f"trained policies: best of {_SAMPLES} sampled plans of a single job, streams as by ppo",
        source=TRAINED_BY,
        randomised=True,
    ),
    SchedulerSpec(
        name="socdag/ppo-preference",
        make=_PREFERENCE,
        with_bundle=_PREFERENCE,
        information="online",
        summary="trained policy that takes the instance's preference among latency, energy and cost; plans greedily",
        source=TRAINED_BY,
    ),
)
