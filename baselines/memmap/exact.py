"""CP-SAT on layers, residences, offsets and copies together, for small programs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from schedrl.baselines.memmap.joint_model import JointModel
from schedrl.baselines.memmap.relaxation_rounding import RelaxationRounding
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import program_latency_s
from schedrl.envs.memmap.plan import MemoryPlan
from schedrl.envs.memmap.plan_check import check_plan
from schedrl.errors import ConfigError
from schedrl.schedulers import Result, Scheduler, SchedulerSpec

__all__ = ["SCHEDULERS", "MemoryCpSat"]

_FIRST = 0.35  # share of the time limit for the plan to start from
_MAX_ACCESSES = 1200  # times fast layers; CP-SAT takes seconds to load more
_OPTIMAL_GAP = 2e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryCpSat:
    """OR-Tools CP-SAT on the joint model, started from the rounded relaxation, whose bound it reports.

    The model is conservative, in that it may miss plans by the rounding of times; its own bound therefore counts for
    nothing. Programs of more than 1200 accesses get the rounded relaxation.

    Args:
        workers: search threads.
        hint: a valid plan to start from where it beats the rounded relaxation.

    Raises:
        ConfigError: less than one worker.
    """

    workers: int = 1
    hint: MemoryPlan | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"field workers: {self.workers}, expected at least 1")

    def schedule(self, instance: MemoryMapInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best plan within the limit; optimal when it meets the bound of the relaxation."""
        started = time.perf_counter()
        small = instance.accesses * (instance.layers - 1) <= _MAX_ACCESSES
        first = RelaxationRounding().schedule(instance, time_limit_s=(_FIRST if small else 1.0) * time_limit_s, rng=rng)
        plan, latency, bound = first.solution, first.objective, first.lower_bound
        assert isinstance(plan, MemoryPlan) and latency is not None and bound is not None
        if self.hint is not None and not check_plan(instance, self.hint):
            value = program_latency_s(instance, self.hint.access_layer)
            if value < latency:
                plan, latency = self.hint, value
        left = time_limit_s - (time.perf_counter() - started)
        if small and left > 0 and latency > bound * (1.0 + _OPTIMAL_GAP):
            found = _solved(instance, plan, left, self.workers, int(rng.integers(2**31 - 1)))
            if found is not None and not check_plan(instance, found):
                value = program_latency_s(instance, found.access_layer)
                if value < latency:
                    plan, latency = found, value
        return Result(
            solution=plan,
            objective=latency,
            status="optimal" if latency <= bound * (1.0 + _OPTIMAL_GAP) else "feasible",
            runtime_s=time.perf_counter() - started,
            lower_bound=min(bound, latency),
        )


def _solved(
    instance: MemoryMapInstance, start: MemoryPlan, limit_s: float, workers: int, seed: int
) -> MemoryPlan | None:
    from ortools.sat.python import cp_model

    began = time.perf_counter()
    model = cp_model.CpModel()
    joint = JointModel(instance, model)
    joint.hint(start)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = max(limit_s - (time.perf_counter() - began), 0.01)
    solver.parameters.num_workers = workers
    solver.parameters.random_seed = seed
    solver.parameters.use_timetabling_in_no_overlap_2d = True
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return joint.plan(solver.value)


def _make() -> Scheduler:
    # Untyped on purpose: this takes programs only, the contract any instance.
    build: Callable[..., Any] = MemoryCpSat
    scheduler: Scheduler = build()
    return scheduler


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="memmap/cp-sat",
        make=_make,
        information="clairvoyant",
        summary="OR-Tools CP-SAT on layers, offsets and copies together, started from memmap/milp-repair",
        source="https://developers.google.com/optimization",
        randomised=True,
    ),
)
