"""The trained policy as a scheduler: greedy, best of many plays, and the better of it and XLA's assignment."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from schedrl.baselines.memmap.priced import Priced
from schedrl.baselines.memmap.xla import Xla
from schedrl.learned import TRAINED_BY, policy_scheduler
from schedrl.schedulers import Result, Scheduler, SchedulerSpec

__all__ = ["SCHEDULERS", "BestOf"]

_SAMPLES = 64
_GREEDY = policy_scheduler("memmap", "memmap")
# One of the plays is the one that the policy sees as a hint.
_SAMPLED = policy_scheduler("memmap", "memmap", samples=_SAMPLES - 1)


class BestOf:
    """The better of two plans: a cheap one, and what the policy finds in the time left."""

    def __init__(self, first: Any, policy: Scheduler) -> None:
        self._first, self._policy = first, policy

    def schedule(self, instance: Any, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the better plan."""
        started = time.perf_counter()
        default: Result = self._first.schedule(instance, time_limit_s=time_limit_s, rng=rng)
        left = max(time_limit_s - (time.perf_counter() - started), 0.1)
        learned = self._policy.schedule(instance, time_limit_s=left, rng=rng)
        assert default.objective is not None
        better = learned.objective is not None and learned.objective < default.objective
        chosen = learned if better else default
        bounds = [bound for bound in (default.lower_bound, learned.lower_bound) if bound is not None]
        return dataclasses.replace(
            chosen,
            status="optimal" if default.status == "optimal" else "feasible",
            lower_bound=max(bounds, default=None),
            decisions=learned.decisions,
            runtime_s=time.perf_counter() - started,
        )


def _sampled(bundle: Path | None = None) -> Scheduler:
    return BestOf(Priced(), _SAMPLED() if bundle is None else _SAMPLED(bundle))


def _hybrid(bundle: Path | None = None) -> Scheduler:
    return BestOf(Xla(), _sampled(bundle))


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="memmap/ppo",
        make=_GREEDY,
        with_bundle=_GREEDY,
        information="clairvoyant",
        summary="trained policy of the mapping game, greedy",
        source=TRAINED_BY,
    ),
    SchedulerSpec(
        name="memmap/ppo-sample",
        make=_sampled,
        with_bundle=_sampled,
        information="clairvoyant",
        summary=f"trained policy of the mapping game, best of {_SAMPLES} plays: {_SAMPLES - 1} samples and the hint's",
        source=TRAINED_BY,
        randomised=True,
    ),
    SchedulerSpec(
        name="memmap/hybrid",
        make=_hybrid,
        with_bundle=_hybrid,
        information="clairvoyant",
        summary=f"the better of the trained policy's {_SAMPLES} plays and XLA's assignment",
        source=f"{TRAINED_BY}; best of both as in arXiv 2305.07440",
        randomised=True,
    ),
)
