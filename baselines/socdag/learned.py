"""Trained policies as schedulers: one plans single jobs, one serves streams, one takes a preference."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from schedrl.baselines.socdag.execution import execute
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.solution import DagSchedule
from schedrl.learned import TRAINED_BY, policy_scheduler
from schedrl.rollout import PolicyScheduler, View
from schedrl.schedulers import Result, SchedulerSpec

__all__ = ["PLANNED", "SCHEDULERS", "Trained"]

_SAMPLES = 128


def _expected(instance: SocDagInstance) -> SocDagInstance:
    """Return the instance as a planner may see it: every task takes its expected time."""
    return dataclasses.replace(instance, noise_sigma=0.0, admission_cap=0)


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
    """Single jobs are planned at once and then executed; streams are served online, decision by decision.

    Args:
        samples: 0 for one greedy plan of a single job, otherwise the number of sampled plans; streams are always
            served greedily, since nothing can be tried twice there.
        bundle: the user's own policy for both, instead of the two shipped ones.
    """

    def __init__(self, samples: int = 0, bundle: Path | None = None) -> None:
        planner = policy_scheduler("socdag", "socdag", samples=samples, views=(PLANNED,))
        server = policy_scheduler("socdag", "socdag-stream")
        self._makers: dict[str, Callable[..., PolicyScheduler]] = {"plan": planner, "online": server}
        self._bundle = bundle
        self._built: dict[str, PolicyScheduler] = {}

    def schedule(self, instance: SocDagInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the executed schedule; sampled plans are compared by what they promise, not by what came true."""
        mode = self._mode(instance)
        if mode not in self._built:
            self._built[mode] = self._makers[mode](*([self._bundle] if self._bundle else []))
        return self._built[mode].schedule(instance, time_limit_s=time_limit_s, rng=rng)

    def _mode(self, instance: SocDagInstance) -> str:
        if self._bundle is not None:
            from schedrl.export.runtime import load

            return str(load(self._bundle, family="socdag").manifest.simulator.get("mode", "online"))
        return "plan" if instance.jobs == 1 else "online"


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
        summary="trained policies, greedy: single jobs planned, streams served online",
        source=TRAINED_BY,
    ),
    SchedulerSpec(
        name="socdag/ppo-sample",
        make=_sampled,
        with_bundle=_sampled,
        information="online",
        summary=f"trained policies: best of {_SAMPLES} sampled plans of a single job, streams served greedily",
        source=TRAINED_BY,
        randomised=True,
    ),
    SchedulerSpec(
        name="socdag/ppo-preference",
        make=_PREFERENCE,
        with_bundle=_PREFERENCE,
        # Jobs are planned together, so streams would be known beforehand; the rest is as for ppo.
        information="clairvoyant",
        summary="trained policy that takes the instance's preference among latency, energy and cost; plans greedily",
        source=TRAINED_BY,
    ),
)
