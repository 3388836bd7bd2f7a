"""CP-SAT on tasks with a choice of devices and transfers between them, least mean job latency."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.baselines.socdag.constraint_model import (
    Grid,
    Plan,
    Pools,
    Problem,
    devices_of,
    plan_latency,
    pools_of,
    solve,
    transfer_times,
)
from schedrl.baselines.socdag.execution import execute
from schedrl.baselines.socdag.heuristics import best_heuristic_schedule
from schedrl.baselines.socdag.outcomes import latency, outcome
from schedrl.envs.socdag.bounds import bounds, fast_bound, optimistic_heads, optimistic_tails
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.solution import DagSchedule, task_end
from schedrl.errors import ConfigError
from schedrl.schedulers import Result, Scheduler, SchedulerSpec

__all__ = ["SCHEDULERS", "CpSat", "better", "replayed", "solve_small"]

# (fraction of the time limit at which the phase ends, whether it only repairs parts of the best schedule).
# A short full search settles easy instances, repair improves hard ones, and the last phase proves.
_PHASES = ((0.12, False), (0.85, True), (1.0, False))
# Schedules of an inexact grid count as optimal within this share of their bound.
_OPTIMAL_GAP = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class CpSat:
    """OR-Tools CP-SAT, started from the best list schedule, for jobs that are all known beforehand.

    It plans with expected durations and, under noise, executes that plan. Where times do not fall on a common grid,
    the model rounds them up to a millionth of the horizon and its bound is lowered by all that rounding may have
    cost; only then may a schedule called optimal lie above the optimum, by 0.01 % at most.

    Args:
        workers: search threads.
        hint: a feasible schedule to start from where it beats the list schedules.
    """

    workers: int = 1
    hint: DagSchedule | None = None

    def schedule(self, instance: SocDagInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best schedule within the limit, with the best lower bound known.

        Raises:
            ConfigError: the stream has an admission limit that binds, so that entries depend on the schedule.
        """
        started = time.perf_counter()
        if 0 < instance.admission_cap < instance.jobs:
            raise ConfigError(
                f"{instance.name}: field admission_cap: {instance.admission_cap} of {instance.jobs} jobs; "
                "socdag/cp-sat plans open streams only, socdag/cp-sat-rolling takes admission limits"
            )
        # True durations are hidden, so everything is planned and compared as if there were no noise.
        planned = dataclasses.replace(instance, noise_sigma=0.0) if instance.noise_sigma else instance
        best = best_heuristic_schedule(planned, started + time_limit_s)
        if self.hint is not None and (self.hint.device >= 0).all():
            best = better(planned, replayed(planned, self.hint), best)
        run = _Run(planned, best)
        for until, repair_only in _PHASES:
            left = until * time_limit_s - (time.perf_counter() - started)
            if left > 0 and not run.proven:
                run.improve(left, repair_only, self.workers, int(rng.integers(2**31 - 1)))
        return _result(instance, run, started)


def solve_small(instance: SocDagInstance, time_limit_s: float, seed: int) -> DagSchedule:
    """Return CP-SAT's schedule of an instance without an admission limit, for a policy to imitate.

    Raises:
        ConfigError: the stream has an admission limit that binds.
    """
    result = CpSat().schedule(instance, time_limit_s=time_limit_s, rng=np.random.default_rng(seed))
    assert isinstance(result.solution, DagSchedule)
    return result.solution


class _Run:
    """The phases of one call of ``CpSat.schedule`` on an instance without noise."""

    def __init__(self, instance: SocDagInstance, first: DagSchedule) -> None:
        self.instance, self.schedule = instance, first
        self._pools = pools_of(instance)
        times = (instance.flat.duration[:, self._pools.device], transfer_times(instance, self._pools.device))
        self.grid = Grid.fitting((*times, instance.release_time), float(task_end(instance, first).max()))
        self._loss = _rounding_loss(instance, self.grid, times)
        self._lower = bounds(instance)[0].value
        self._steps = _steps(instance, self.grid, self._pools, times)
        self._plan = _plan(instance, self._steps, first)
        self._value = plan_latency(self._steps, self._plan)
        total = self._lower * instance.jobs * self.grid.scale
        self._floor = int(np.ceil(total - 1e-6 - 1e-12 * total))  # bound on the steps of any plan

    @property
    def lower_bound(self) -> float:
        """Bound on the mean latency of schedules that drop no job."""
        return max(self._lower, (self._floor - self._loss) / (self.grid.scale * self.instance.jobs))

    @property
    def proven(self) -> bool:
        """Whether no plan takes fewer steps than the best one."""
        return self._value <= self._floor

    def improve(self, limit_s: float, repair_only: bool, workers: int, seed: int) -> None:
        """Run CP-SAT once from the best plan so far."""
        began = time.perf_counter()
        problem = _narrowed(self._steps, self._value, self._floor)
        left = limit_s - (time.perf_counter() - began)
        found = solve(problem, self._plan, left, repair_only=repair_only, seed=seed, workers=workers)
        if found.plan is not None and plan_latency(problem, found.plan) < self._value:
            self._plan, self._value = found.plan, plan_latency(problem, found.plan)
            device, order, transfers = _sequences(self.instance, problem, found.plan)
            self.schedule = better(
                self.instance, execute(self.instance, device, order, transfer_order=transfers), self.schedule
            )
        self._floor = max(self._floor, found.bound)


def _result(instance: SocDagInstance, run: _Run, started: float) -> Result:
    """Judge the plan by what happens when it runs."""
    schedule, lower = run.schedule, run.lower_bound
    assert instance.deadline is not None
    if instance.noise_sigma:
        schedule = replayed(instance, schedule)
    if instance.noise_sigma or (instance.jobs > 1 and np.isfinite(instance.deadline).any()):
        # The model knows neither true durations nor that a late job may be dropped to make room.
        lower = fast_bound(instance)
    reached = latency(instance, schedule)
    lower = min(lower, float(instance.deadline[0]) if instance.jobs == 1 else np.inf, reached)
    result = outcome(instance, schedule, started=started, lower_bound=lower)
    if not run.grid.exact and reached - lower <= _OPTIMAL_GAP * lower:
        return dataclasses.replace(result, status="optimal")
    return result


def better(instance: SocDagInstance, first: DagSchedule, second: DagSchedule) -> DagSchedule:
    """Return the schedule with the lower mean latency, the first if equal."""
    return first if latency(instance, first) <= latency(instance, second) else second


def replayed(instance: SocDagInstance, schedule: DagSchedule) -> DagSchedule:
    """Return what happens when the sequences of a schedule run on an instance, all at the fastest points.

    The schedule is one of the same jobs without noise; it drops none of them.
    """
    transfers = None
    if instance.communication == "contention":
        assert schedule.transfer is not None
        target = instance.flat.edge[:, 1]
        transfers = _by_time(schedule.transfer, target, schedule.start[target])
    order = _by_time(schedule.start, _position(instance), task_end(instance, schedule))
    return execute(instance, schedule.device, order, transfer_order=transfers)


def _position(instance: SocDagInstance) -> I32:
    """Return (N,) each task's place in the topological order."""
    position = np.empty(instance.tasks, np.int32)
    position[instance.flat.order] = np.arange(instance.tasks)
    return position


def _by_time(start: Any, last_key: Any, then: Any) -> I32:
    """Return indices by start, then by the second time, which lets tasks of no time go first, then by the key."""
    order: I32 = np.lexsort((last_key, then, start)).astype(np.int32)
    return order


def _steps(instance: SocDagInstance, grid: Grid, pools: Pools, times: tuple[F64, F64]) -> Problem:
    """Return the problem in steps, with no limit yet on how long jobs may take."""
    entry = grid.up(instance.release_time)
    head, tail = (part(instance)[:, pools.device] for part in (optimistic_heads, optimistic_tails))
    return Problem(
        pools=pools,
        duration=grid.up(times[0]),
        earliest=np.maximum(grid.up(head), 0) + entry[instance.flat.job][:, None],
        tail=np.maximum(grid.up(tail), 0),
        job=instance.flat.job,
        entry=entry,
        latest=np.full(instance.jobs, 2**40),
        edge=instance.flat.edge,
        cost=grid.up(times[1]),
        contention=instance.communication == "contention",
    )


def _narrowed(problem: Problem, most: int, least: int) -> Problem:
    """Return the problem limited to plans whose latencies add up to between ``least`` and ``most``."""
    span = np.where(problem.duration >= 0, problem.earliest + problem.duration + problem.tail, 2**40).min(axis=1)
    alone = np.zeros(len(problem.entry), dtype=np.int64)
    np.maximum.at(alone, problem.job, span - problem.entry[problem.job])
    latest = problem.entry + alone + (most - int(alone.sum()))
    return dataclasses.replace(problem, latest=latest, most=most, lower_bound=max(least, int(alone.sum())))


def _rounding_loss(instance: SocDagInstance, grid: Grid, times: tuple[F64, F64]) -> float:
    """Return the most steps that rounding up can add to the sum of all jobs' latencies.

    Take the best schedule and round all its times up: no end moves by more than what all tasks together gained, and
    for each task what one input gained, or for links in use what every transfer gained.
    """
    if grid.exact:
        return 0.0
    gained = [
        np.where(np.isfinite(part), grid.up(part) - np.where(np.isfinite(part), part, 0.0) * grid.scale, 0.0)
        for part in (*times, instance.release_time)
    ]
    task, edge = gained[0].max(axis=1).sum(), gained[1].max(axis=(1, 2), initial=0.0)
    if instance.communication == "contention":
        inputs = edge.sum()
    else:
        worst = np.zeros(instance.tasks)
        np.maximum.at(worst, instance.flat.edge[:, 1], edge)
        inputs = worst.sum()
    return float(instance.jobs * (task + inputs + gained[2].max()))


def _plan(instance: SocDagInstance, problem: Problem, schedule: DagSchedule) -> Plan:
    """Return the sequences of a schedule, timed in steps."""
    tasks, edges = instance.tasks, len(instance.flat.edge)
    pool = problem.pools.of_device[schedule.device]
    cost = problem.cost[np.arange(edges), pool[problem.edge[:, 0]], pool[problem.edge[:, 1]]]
    duration = problem.duration[np.arange(tasks), pool]
    ends, position = task_end(instance, schedule), _position(instance)
    events = [(float(schedule.start[t]), 0, float(ends[t]), int(position[t]), t) for t in range(tasks)]
    if problem.contention:
        assert schedule.transfer is not None
        events += [(float(schedule.transfer[e]), 1, 0.0, e, e) for e in np.flatnonzero(cost > 0).tolist()]
    start, transfer = np.zeros(tasks, dtype=np.int64), np.zeros(edges, dtype=np.int64)
    sent = np.zeros(edges, dtype=bool)
    device_free = np.zeros(instance.devices, dtype=np.int64)
    link_free = np.zeros((len(problem.pools.lanes),) * 2, dtype=np.int64)
    incoming, offset = instance.flat.predecessor_edge, instance.flat.predecessor_offset
    for _, kind, _, _, k in sorted(events):
        if kind:
            i, j = problem.edge[k]
            link = pool[i], pool[j]
            transfer[k] = max(link_free[link], start[i] + duration[i])
            link_free[link] = transfer[k] + cost[k]
            sent[k] = True
            continue
        into = incoming[offset[k] : offset[k + 1]]
        source = problem.edge[into, 0]
        departure = np.where(sent[into], transfer[into], start[source] + duration[source])
        transfer[into] = departure
        arrival = (departure + cost[into]).max(initial=int(problem.entry[problem.job[k]]))
        start[k] = max(arrival, device_free[schedule.device[k]])
        device_free[schedule.device[k]] = start[k] + duration[k]
    return Plan(pool=pool.astype(np.int32), start=start, transfer=transfer)


def _sequences(instance: SocDagInstance, problem: Problem, plan: Plan) -> tuple[I32, I32, I32 | None]:
    """Return the device of each task, the tasks in time order, and under contention the transfers in time order."""
    end = plan.start + problem.duration[np.arange(instance.tasks), plan.pool]
    order = _by_time(plan.start, _position(instance), end)
    device = devices_of(problem, plan, order, np.zeros(instance.devices, dtype=np.int64))
    if not problem.contention:
        return device, order, None
    target = problem.edge[:, 1]
    return device, order, _by_time(plan.transfer, target, plan.start[target])


def _make(build: Callable[..., Any]) -> Callable[[], Scheduler]:
    # Untyped on purpose: these take SoC DAGs only, the contract any instance; a spec meets its own family's.
    return build


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="socdag/cp-sat",
        make=_make(CpSat),
        information="clairvoyant",
        summary="OR-Tools CP-SAT, one thread, started from the best list schedule",
        source="https://developers.google.com/optimization",
        randomised=True,
    ),
)
