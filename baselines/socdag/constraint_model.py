"""The CP-SAT model of unstarted tasks on pools of devices, shared by the one-off and the rolling scheduler.

Times are integers: real ones are scaled and rounded up (``Grid``), so that every solution of the model is feasible
in real time and re-timing it only shortens it. A pool is a set of processing elements between which placement does
not matter: those of one type where transfers are free or go through a memory, else those of one device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from schedrl.arrays import F64, I32, I64
from schedrl.envs.socdag.instance import SocDagInstance

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

__all__ = [
    "Grid",
    "Plan",
    "Pools",
    "Problem",
    "Solved",
    "devices_of",
    "plan_latency",
    "pools_of",
    "solve",
    "transfer_times",
]

_STEPS = 2**20
_MOST_STEPS = 2**31
_SCALES = (1, 2, 4, 8, 16, 32, 64, 10, 20, 100, 1000, 10000)
_NEAR = 1e-7  # scaled times this close to an integer are that integer


class Pools(NamedTuple):
    """Interchangeable processing elements."""

    of_device: I32  # (D,) pool of each processing element
    lanes: I32  # (G,) processing elements in each pool
    device: I32  # (G,) first processing element of each pool
    kind: I32  # (G,) device type; pools of one type are interchangeable as a whole


def pools_of(instance: SocDagInstance) -> Pools:
    """Return the pools of an instance; their processing elements are numbered consecutively."""
    free = not instance.links.any() or instance.platform.memory is not None
    of_device = instance.device_type if free else instance.device_unit
    first = np.flatnonzero(np.diff(of_device, prepend=-1)).astype(np.int32)
    lanes = np.bincount(of_device).astype(np.int32)
    return Pools(of_device=of_device, lanes=lanes, device=first, kind=instance.device_type[first])


def transfer_times(instance: SocDagInstance, device: I32) -> F64:
    """Return (E, G, G) how long each edge's data travel between the given devices (G,)."""
    links = instance.links[:, device[:, None], device[None, :]]
    size = instance.flat.edge_bytes[:, None, None]
    hops = [links[k] + size * links[k + 1] for k in (0, 2)]
    if instance.whole_units:
        hops = [np.floor(hop + 1e-9) for hop in hops]
    return np.where(size > 0, hops[0] + hops[1], 0.0)


@dataclass(frozen=True, slots=True)
class Grid:
    """Integer steps per time unit, and whether every time of the problem falls on a step."""

    scale: float
    exact: bool

    @classmethod
    def fitting(cls, times: Sequence[F64], horizon: float) -> Grid:
        """Return the coarsest grid that holds all finite times exactly, else one with about a million steps."""
        values = np.unique(np.concatenate([part[np.isfinite(part)].ravel() for part in times]))
        for scale in _SCALES:
            scaled = values * scale
            if horizon * scale < _MOST_STEPS and (np.abs(scaled - np.rint(scaled)) <= _NEAR).all():
                return cls(float(scale), True)
        return cls(_STEPS / max(horizon, 1e-300), False)

    def up(self, times: F64) -> I64:
        """Return times in steps, rounded up; unsupported ones (inf) become -1."""
        finite = np.isfinite(times)
        steps: I64 = np.where(finite, np.ceil(np.where(finite, times, 0.0) * self.scale - _NEAR), -1).astype(np.int64)
        return steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Tasks to place, in steps of a grid. Tasks are numbered 0 to n - 1, edges join two of them."""

    pools: Pools
    duration: I64  # (n, G) steps, -1 where unsupported
    earliest: I64  # (n, G) no start on the pool before this
    tail: I64  # (n, G) the job ends no sooner than this after the task
    job: I32  # (n,) 0 to J - 1
    entry: I64  # (J,)
    latest: I64  # (J,) no job ends after this
    edge: I32  # (E, 2)
    cost: I64  # (E, G, G) steps between the pools of an edge's ends
    busy: tuple[tuple[int, int, int], ...] = ()  # (pool, from, until) of lanes that run other tasks
    contention: bool = False
    lower_bound: int = 0  # on the sum of the jobs' latencies
    most: int | None = None  # that sum's largest value of interest


class Plan(NamedTuple):
    """An answer to a problem."""

    pool: I32  # (n,)
    start: I64  # (n,) steps
    transfer: I64  # (E,) steps; meaningful under contention only


class Solved(NamedTuple):
    """What one run of CP-SAT found: a plan, if any, and a bound on the sum of latencies in steps."""

    plan: Plan | None
    bound: int


def plan_latency(problem: Problem, plan: Plan) -> int:
    """Return the sum of the jobs' latencies in steps."""
    end = np.zeros(len(problem.entry), dtype=np.int64)
    np.maximum.at(end, problem.job, plan.start + problem.duration[np.arange(len(plan.pool)), plan.pool])
    return int((end - problem.entry).sum())


def devices_of(problem: Problem, plan: Plan, order: I32, free: I64) -> I32:
    """Return (n,) the processing element of each task: of its pool, the one idle for the shortest time.

    Args:
        problem: what was planned.
        plan: the plan.
        order: (n,) tasks by start.
        free: (D,) step from which each processing element is free.
    """
    device = problem.pools.device[plan.pool].astype(np.int32)
    free = free.copy()
    for t in order.tolist():
        lanes = np.arange(device[t], device[t] + problem.pools.lanes[plan.pool[t]])
        idle = lanes[free[lanes] <= plan.start[t]]
        # A task of no time may find no lane idle: the model lets it pass, execution delays it.
        device[t] = idle[free[idle].argmax()] if len(idle) else lanes[free[lanes].argmin()]
        free[device[t]] = max(free[device[t]], plan.start[t] + problem.duration[t, plan.pool[t]])
    return device


@dataclass(slots=True)
class _Model:
    model: cp_model.CpModel
    start: list[cp_model.IntVar] = field(default_factory=list)
    on: list[dict[int, cp_model.IntVar]] = field(default_factory=list)  # literal by pool
    end: list[cp_model.IntVar] = field(default_factory=list)  # of each job
    transfer: dict[int, cp_model.IntVar] = field(default_factory=dict)  # by edge, under contention
    moves: list[tuple[int, int, int, cp_model.IntVar]] = field(default_factory=list)  # edge, from, to, literal
    intervals: dict[int, list[cp_model.IntervalVar]] = field(default_factory=dict)  # by pool


def solve(problem: Problem, hint: Plan | None, limit_s: float, *, repair_only: bool, seed: int, workers: int) -> Solved:
    """Run CP-SAT once.

    Args:
        problem: what to place.
        hint: a feasible plan to start from.
        limit_s: wall seconds, model building not included.
        repair_only: improve the hint by large neighbourhood search and prove nothing.
        seed: of the search.
        workers: search threads.
    """
    from ortools.sat.python import cp_model

    built = _build(problem, repair_only)
    if hint is not None:
        _add_hint(built, problem, hint)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = workers
    solver.parameters.random_seed = seed
    # One worker runs no large neighbourhood search unless several strategies take turns on it.
    solver.parameters.interleave_search = repair_only
    solver.parameters.use_lns_only = repair_only
    solver.parameters.max_time_in_seconds = max(0.01, limit_s)
    status = solver.solve(built.model)
    plan = None
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        pool = [next(g for g, literal in on.items() if solver.value(literal)) for on in built.on]
        plan = Plan(
            pool=np.array(pool, dtype=np.int32),
            start=np.array([solver.value(start) for start in built.start], dtype=np.int64),
            transfer=np.array(
                [solver.value(built.transfer[e]) if e in built.transfer else 0 for e in range(len(problem.edge))],
                dtype=np.int64,
            ),
        )
    bound = solver.best_objective_bound
    return Solved(plan, int(np.ceil(bound - 1e-6)) if np.isfinite(bound) else 0)


def _build(problem: Problem, repair_only: bool) -> _Model:
    from ortools.sat.python import cp_model

    built = _Model(cp_model.CpModel())
    _add_tasks(built, problem)
    _add_ends(built, problem)
    for edge, (i, j) in enumerate(problem.edge.tolist()):
        _add_edge(built, problem, edge, i, j)
    _add_links(built, problem)
    _add_pools(built, problem)
    if not repair_only:
        _add_loads(built, problem)
    latency = sum(built.end) - int(problem.entry.sum())
    if problem.most is not None:
        built.model.add(latency <= problem.most)
    built.model.add(latency >= problem.lower_bound)
    built.model.minimize(latency)
    return built


def _allowed(problem: Problem, t: int) -> list[int]:
    """Return the pools on which a task can still end its job in time."""
    span = problem.earliest[t] + problem.duration[t] + problem.tail[t]
    fits = (problem.duration[t] >= 0) & (span <= problem.latest[problem.job[t]])
    return [int(g) for g in np.flatnonzero(fits)]


def _add_tasks(built: _Model, problem: Problem) -> None:
    """Add starts, pool literals and intervals, and each task's earliest start."""
    model = built.model
    for t, latest in enumerate(problem.latest[problem.job].tolist()):
        allowed = _allowed(problem, t)
        duration, earliest, tail = (part[t].tolist() for part in (problem.duration, problem.earliest, problem.tail))
        low = min((earliest[g] for g in allowed), default=0)
        high = max((latest - duration[g] - tail[g] for g in allowed), default=-1)
        start = model.new_int_var(low, max(low, high), "")
        on = {g: model.new_bool_var("") for g in allowed}
        model.add_exactly_one(on.values())
        for g, literal in on.items():
            interval = model.new_optional_fixed_size_interval_var(start, duration[g], literal, "")
            built.intervals.setdefault(g, []).append(interval)
        if any(earliest[g] > low for g in allowed):
            model.add(start >= sum(earliest[g] * literal for g, literal in on.items()))
        built.start.append(start)
        built.on.append(on)


def _add_ends(built: _Model, problem: Problem) -> None:
    """Add each job's end, no sooner than any task's end and what must follow it."""
    model = built.model
    built.end = [
        model.new_int_var(low, high, "")
        for low, high in zip(problem.entry.tolist(), problem.latest.tolist(), strict=True)
    ]
    for t, on in enumerate(built.on):
        after = sum(int(problem.duration[t, g] + problem.tail[t, g]) * literal for g, literal in on.items())
        model.add(built.end[problem.job[t]] >= built.start[t] + after)


def _finish(built: _Model, problem: Problem, t: int) -> Any:
    return built.start[t] + sum(int(problem.duration[t, g]) * literal for g, literal in built.on[t].items())


def _add_edge(built: _Model, problem: Problem, edge: int, i: int, j: int) -> None:
    """Add that j starts after i's data arrived, which takes longer between some pools than others."""
    model, cost = built.model, problem.cost[edge]
    sources, targets = list(built.on[i]), list(built.on[j])
    least = int(min((cost[p, q] for p in sources for q in targets), default=0))
    model.add(built.start[j] >= _finish(built, problem, i) + least)
    if problem.contention and cost.any():
        _add_transfer(built, problem, edge, i, j)
        return
    for p in sources:
        elsewhere = [int(cost[p, q]) for q in targets if q != p]
        leaving = min(elsewhere, default=least)
        end = built.start[i] + int(problem.duration[i, p])
        implied = least
        if elsewhere and leaving > least:
            stays = [built.on[j][p].negated()] if p in built.on[j] else []
            model.add(built.start[j] >= end + leaving).only_enforce_if(built.on[i][p], *stays)
            implied = leaving
        for q in targets:
            if cost[p, q] > (least if q == p else implied):
                model.add(built.start[j] >= end + int(cost[p, q])).only_enforce_if(built.on[i][p], built.on[j][q])


def _add_transfer(built: _Model, problem: Problem, edge: int, i: int, j: int) -> None:
    """Add the start of a transfer that occupies a link, and one interval for every link that it may use."""
    model, cost = built.model, problem.cost[edge]
    begin = model.new_int_var(0, int(problem.latest[problem.job[j]]), "")
    model.add(begin >= _finish(built, problem, i))
    model.add(begin <= built.start[j])
    built.transfer[edge] = begin
    for p, source in built.on[i].items():
        for q, target in built.on[j].items():
            if cost[p, q] > 0:
                used = model.new_bool_var("")
                model.add_bool_or(source.negated(), target.negated(), used)
                model.add_implication(used, source)
                model.add_implication(used, target)
                model.add(built.start[j] >= begin + int(cost[p, q])).only_enforce_if(used)
                built.moves.append((edge, p, q, used))


def _add_links(built: _Model, problem: Problem) -> None:
    """Add that a directed link carries one transfer at a time."""
    on_link: dict[tuple[int, int], list[cp_model.IntervalVar]] = {}
    for edge, p, q, used in built.moves:
        interval = built.model.new_optional_fixed_size_interval_var(
            built.transfer[edge], int(problem.cost[edge, p, q]), used, ""
        )
        on_link.setdefault((p, q), []).append(interval)
    for intervals in on_link.values():
        built.model.add_no_overlap(intervals)


def _add_pools(built: _Model, problem: Problem) -> None:
    """Add that a pool runs no more tasks at once than it has lanes."""
    model = built.model
    for pool, since, until in problem.busy:
        if until > since:
            built.intervals.setdefault(pool, []).append(model.new_fixed_size_interval_var(since, until - since, ""))
    for pool, intervals in built.intervals.items():
        lanes = int(problem.pools.lanes[pool])
        if lanes == 1:
            model.add_no_overlap(intervals)
        else:
            model.add_cumulative(intervals, [1] * len(intervals), lanes)


def _add_loads(built: _Model, problem: Problem) -> None:
    """Add the redundant constraint that no pool works longer on a job than the job takes.

    The propagation of the intervals does not see it while placement is open, and without it bounds stay poor.
    """
    for j, end in enumerate(built.end):
        mine = np.flatnonzero(problem.job == j).tolist()
        for g, lanes in enumerate(problem.pools.lanes.tolist()):
            load = sum(int(problem.duration[t, g]) * built.on[t][g] for t in mine if g in built.on[t])
            built.model.add(load <= lanes * (end - int(problem.entry[j])))


def _add_hint(built: _Model, problem: Problem, hint: Plan) -> None:
    model = built.model
    finish = np.zeros(len(built.end), dtype=np.int64)
    for t, (pool, start) in enumerate(zip(hint.pool.tolist(), hint.start.tolist(), strict=True)):
        model.add_hint(built.start[t], start)
        for g, literal in built.on[t].items():
            model.add_hint(literal, g == pool)
        finish[problem.job[t]] = max(finish[problem.job[t]], start + int(problem.duration[t, pool]))
    for end, value in zip(built.end, finish.tolist(), strict=True):
        model.add_hint(end, value)
    for edge, begin in built.transfer.items():
        model.add_hint(begin, int(hint.transfer[edge]))
    for edge, p, q, used in built.moves:
        i, j = problem.edge[edge]
        model.add_hint(used, bool(hint.pool[i] == p and hint.pool[j] == q))
