"""Rounds the integer relaxation of memory mapping to plans: what does not fit is shortened or dropped, best first."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from schedrl.arrays import F64, I8
from schedrl.baselines.memmap.packing_rules import compile_fitting
from schedrl.baselines.memmap.plan_builder import PlanBuilder
from schedrl.baselines.memmap.residence_runs import Run, bundles_of, runs_of, values_of
from schedrl.envs.memmap.copy_queues import copy_supply_s, lateness_s
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import fast_bound_s, program_latency_s
from schedrl.envs.memmap.plan import MemoryPlan, slow_plan
from schedrl.envs.memmap.plan_check import check_plan
from schedrl.envs.memmap.relaxation import Relaxation, solve_relaxation
from schedrl.schedulers import Result, Scheduler, SchedulerSpec

__all__ = ["SCHEDULERS", "RelaxationRounding", "build_plan"]

# Shares of the time limit at which must end: rounding the linear program, the first integer program, and the last one
# with a plan's own windows.
_LINEAR, _FIRST, _REFINED = 0.2, 0.5, 0.75
_SUPPLY_ROUNDS = 3
_RETRIES = 3
_REPACKS = 8
# The solver's tolerance on a bound; a plan this close to it counts as optimal.
_OPTIMAL_GAP = 2e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaxationRounding:
    """Solve the relaxation in integers, then place the residences that it wants one by one.

    The relaxation knows neither offsets nor the queue of copies. Residences are placed in the order of what they save
    per byte and operation, and in other orders; a copy in begins as late and a copy out as early as the bus allows.
    Then the relaxation is solved again with the copy windows of the best plan, and remaining time goes into perturbed
    orders. ``lower_bound`` is that of the relaxation, whether it was solved to the end or not.
    """

    def schedule(self, instance: MemoryMapInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best plan within the limit; optimal when it meets the bound to 0.002 %."""
        compile_fitting()
        started = time.perf_counter()
        search = _Search(instance, started + time_limit_s)
        bound = fast_bound_s(instance)
        relaxation = solve_relaxation(instance, time_limit_s=_FIRST * time_limit_s)
        bound = max(bound, relaxation.bound_s)
        search.round(relaxation, started + _LINEAR * time_limit_s)
        left = started + _FIRST * time_limit_s - time.perf_counter()
        if left > 0 and not search.reaches(bound):
            relaxation = solve_relaxation(instance, integer=True, time_limit_s=left)
            bound = max(bound, relaxation.bound_s)
            search.round(relaxation)
        while not search.reaches(bound):
            left = started + _REFINED * time_limit_s - time.perf_counter()
            before = search.latency
            supply = copy_supply_s(instance, search.plan)
            if left <= 0:
                break
            search.round(solve_relaxation(instance, integer=True, time_limit_s=left / 2, supply_s=supply))
            if search.latency >= before:
                break
        while time.perf_counter() + search.longest < search.deadline and not search.reaches(bound) and search.targets:
            search.perturb(rng)
        bound = min(bound, search.latency)
        return Result(
            solution=search.plan,
            objective=search.latency,
            status="optimal" if search.reaches(bound) else "feasible",
            runtime_s=time.perf_counter() - started,
            lower_bound=bound,
        )


class _Search:
    """The best plan so far, and the sets of runs to round."""

    def __init__(self, instance: MemoryMapInstance, deadline: float) -> None:
        self.instance, self.deadline = instance, deadline
        self.plan = slow_plan(instance)
        self.latency = program_latency_s(instance, self.plan.access_layer)
        self.longest = 0.0  # seconds that making a plan took at most
        self.targets: list[tuple[list[Run], list[float]]] = []

    def reaches(self, bound: float) -> bool:
        return self.latency <= bound * (1.0 + _OPTIMAL_GAP)

    def round(self, relaxation: Relaxation, until: float = math.inf) -> None:
        """Place what a relaxation wants, in several orders as long as there is time; the first plan is always made."""
        runs = runs_of(self.instance, relaxation)
        if not runs:
            return
        values = values_of(self.instance, runs, _layers(self.instance, runs))
        self.targets.append((runs, values))
        for done, order in enumerate(_orders(self.instance, runs, values)):
            if (done or self.targets[1:]) and time.perf_counter() + self.longest > min(until, self.deadline):
                return
            self._try(runs, order)

    def perturb(self, rng: np.random.Generator) -> None:
        """Place one of the sets of runs in a random order near a sensible one, without a few of them."""
        runs, values = self.targets[int(rng.integers(len(self.targets)))]
        orders = list(_orders(self.instance, runs, values))
        key = orders[int(rng.integers(len(orders)))]
        noise = rng.exponential(float(rng.choice([0.1, 0.3, 1.0])) * float(np.std(key)) + 1e-12, size=len(key))
        self._try(runs, key - noise)

    def _try(self, runs: list[Run], key: F64) -> None:
        began = time.perf_counter()
        plan = build_plan(self.instance, runs, key)
        self.longest = max(self.longest, time.perf_counter() - began)
        latency = program_latency_s(self.instance, plan.access_layer)
        if latency < self.latency and not check_plan(self.instance, plan):
            self.plan, self.latency = plan, latency


def build_plan(instance: MemoryMapInstance, runs: list[Run], key: F64) -> MemoryPlan:
    """Place runs in ascending order of a key (R,), what belongs together by the least key, and return the better plan.

    Bus time depends on what ends up in fast memory. One plan assumes as much as if everything did, lowered to what
    the plan offers until its copies are in time; the other grows from no fast memory at all.
    """
    bundles = sorted(bundles_of(instance, runs), key=lambda bundle: float(key[bundle].min()))
    nothing = slow_plan(instance)
    least = copy_supply_s(instance, nothing)
    supply = copy_supply_s(instance, _with_layers(nothing, _layers(instance, runs)))
    plans = [nothing]
    for _ in range(_SUPPLY_ROUNDS):
        plan = _placed(instance, runs, bundles, PlanBuilder(instance=instance, supply_s=supply, repacks=_REPACKS))
        if not (lateness_s(instance, plan) > 0).any():
            plans.append(plan)
            break
        supply = np.minimum(supply, copy_supply_s(instance, plan))
    if instance.memory.supply == "idle":
        growing = PlanBuilder(instance=instance, supply_s=least, grows=True, repacks=_REPACKS)
        plan = _placed(instance, runs, bundles, growing)
        if not (lateness_s(instance, plan) > 0).any():
            plans.append(plan)
    return min(plans, key=lambda plan: program_latency_s(instance, plan.access_layer))


def _placed(instance: MemoryMapInstance, runs: list[Run], bundles: list[list[int]], builder: PlanBuilder) -> MemoryPlan:
    """Place all that fits, again as long as what was placed made bus time for more; results that stay go first."""
    home = {index: number for number, bundle in enumerate(bundles) for index in bundle}
    makers = {run.buffer: home[index] for index, run in enumerate(runs) if run.made and index in home}
    accesses = np.bincount(instance.access_buffer, minlength=instance.buffers)
    seen: set[int] = set()
    left: list[int] = []

    def place(number: int) -> None:
        if number in seen:
            return
        seen.add(number)
        bundle = sorted((runs[index] for index in bundles[number]), key=lambda run: not run.made)
        for run in bundle:
            if run.buffer in makers:
                place(makers[run.buffer])
        if not (builder.place(bundle) or (len(bundle) == 1 and builder.place_shortened(bundle[0]))):
            left.append(number)

    if builder.grows:
        for number, bundle in enumerate(bundles):
            if all(
                runs[index].made
                and len(runs[index].accesses) == accesses[runs[index].buffer]
                and not instance.output[runs[index].buffer]
                for index in bundle
            ):
                place(number)
    for number in range(len(bundles)):
        place(number)
    for _ in range(_RETRIES if builder.grows else 0):
        again, left = left, []
        for number in again:
            together = sorted((runs[index] for index in bundles[number]), key=lambda run: not run.made)
            # The copies in of a buffer that was meant to be made in fast memory have no copy out to wait for.
            if all(not run.made or not builder.serves(run.buffer) for run in together) and not builder.place(together):
                left.append(number)
        if len(left) == len(again):
            break
    return builder.plan()


def _orders(instance: MemoryMapInstance, runs: list[Run], values: list[float]) -> Iterator[F64]:
    """Yield keys of runs: by saving, by saving per byte and operation, by bytes and operations, by bytes, by time."""
    op = instance.access_op
    size = np.array([float(instance.size[run.buffer]) for run in runs])
    span = np.array([float(op[run.accesses[-1]] - op[run.accesses[0]] + 1 + (not run.made)) for run in runs])
    worth = np.array(values) + 1e-15
    yield -np.log(np.maximum(worth, 1e-15))
    yield -np.log(np.maximum(worth, 1e-15) / (size * span))
    yield -np.log(size * span)
    yield -np.log(size)
    yield np.array([float(op[run.accesses[0]]) for run in runs]) / instance.ops


def _layers(instance: MemoryMapInstance, runs: list[Run]) -> I8:
    layer = np.zeros(instance.accesses, dtype=np.int8)
    for run in runs:
        layer[list(run.accesses)] = run.layer
    return layer


def _with_layers(plan: MemoryPlan, layer: I8) -> MemoryPlan:
    return MemoryPlan(access_layer=layer, residences=plan.residences, copies=plan.copies)


def _make() -> Scheduler:
    # Untyped on purpose: this takes programs only, the contract any instance.
    build: Callable[..., Any] = RelaxationRounding
    scheduler: Scheduler = build()
    return scheduler


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="memmap/milp-repair",
        make=_make,
        information="clairvoyant",
        summary="Integer relaxation solved by HiGHS, rounded to a plan and repaired; gives a lower bound",
        source="relaxation after MODeL (Steiner et al. 2023); rounding by schedrl",
        randomised=True,
    ),
)
