"""Rolling CP-SAT: whenever jobs enter, plan everything that has not started yet anew.

Between two plans every device runs its tasks in the planned sequence under true durations, of which the next plan
sees those of tasks that have ended. DS3 uses the same scheme with a commercial solver (Arda et al. 2020).
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import njit

from schedrl.arrays import F64, I32, I64
from schedrl.baselines.socdag.constraint_model import (
    Grid,
    Plan,
    Problem,
    devices_of,
    plan_latency,
    pools_of,
    solve,
    transfer_times,
)
from schedrl.baselines.socdag.outcomes import outcome
from schedrl.envs.socdag.bounds import optimistic_tails
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.solution import DagSchedule
from schedrl.schedulers import Result, Scheduler, SchedulerSpec

__all__ = ["SCHEDULERS", "RollingCpSat"]

# (fraction of a plan's share of time at which the phase ends, whether it only repairs).
_PHASES = ((0.4, False), (1.0, True))
_LEAST_SLICE_S = 0.02  # below, building the model takes longer than solving it
_FAR = 2**40  # beyond every horizon
_WAITING, _RUNNING, _ENDED = 0, 1, 2
_END, _ENTRY, _WAKE = 0, 1, 2  # events of one instant in this order


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingCpSat:
    """CP-SAT for streams, online: it knows only the jobs that have entered, and expected durations.

    The time limit is shared evenly by the entries still to come. A plan starts from the best of a few list
    schedules: by the planned sequence continued by the new jobs, by job, by the job that can end first, and by the
    longest way to the end; each placing tasks where they or their job end first.
    Over contended links transfers are planned as delays and sent once all inputs of a task are ready; from then on
    the task keeps its device.

    Args:
        workers: search threads.
    """

    workers: int = 1

    def schedule(self, instance: SocDagInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the schedule that happened."""
        started = time.perf_counter()
        run = _Stream(instance)
        while (now := run.advance()) is not None:
            left = time_limit_s - (time.perf_counter() - started)
            run.plan(now, left / (1 + instance.jobs - run.entered), self.workers, rng)
            run.dispatch(now)
        return outcome(instance, run.schedule(), started=started)


class _Stream:
    """The platform and its jobs over time: what has entered, runs and is planned."""

    def __init__(self, instance: SocDagInstance) -> None:
        self.instance = instance
        self.entered = 0
        self._flat = instance.flat
        self._pools = pools_of(instance)
        self._duration = self._flat.duration[:, self._pools.device]
        self._cost = transfer_times(instance, self._pools.device)
        tail = optimistic_tails(instance)[:, self._pools.device]
        self._urgency: F64 = (self._duration + tail).min(axis=1)
        mean_work = float(np.where(np.isfinite(self._duration), self._duration, 0.0).max(axis=1).sum()) / instance.jobs
        self._grid = Grid.fitting((self._duration, self._cost), 20.0 * max(mean_work, float(self._urgency.max())))
        self._tail = np.maximum(self._grid.up(tail), 0)
        self._state: I32 = np.full(instance.tasks, _WAITING, np.int32)
        self._device: I32 = np.full(instance.tasks, -1, np.int32)
        self._start, self._end = np.zeros(instance.tasks), np.zeros(instance.tasks)
        self._planned = np.full(instance.tasks, np.inf)  # start in the latest plan
        self._queue: list[list[int]] = [[] for _ in range(instance.devices)]
        self._running: list[int] = [-1] * instance.devices
        self._tasks_left = np.bincount(self._flat.job, minlength=instance.jobs)
        self._entry = np.zeros(instance.jobs)
        self._inside = 0
        self._sent = np.full(len(self._flat.edge), np.nan)  # when the transfer over a contended link began
        self._link_free: dict[tuple[int, int], float] = {}
        self._position = np.empty(instance.tasks, np.int64)
        self._position[self._flat.order] = np.arange(instance.tasks)
        self._events: list[tuple[float, int, int]] = [(float(instance.release_time[0]), _ENTRY, 0)]

    def advance(self) -> float | None:
        """Run until jobs have entered and return that time, or None when all tasks have ended."""
        while self._events:
            now, before = self._events[0][0], self.entered
            while self._events and self._events[0][0] <= now:
                _, kind, number = heapq.heappop(self._events)
                if kind == _END:
                    self._finish(number, now)
                elif kind == _ENTRY:
                    self._enter(number, now)
            if self.entered > before:
                return now
            self.dispatch(now)
        return None

    def _enter(self, job: int, now: float) -> None:
        cap = self.instance.admission_cap
        if cap and self._inside >= cap:
            return  # the next departure lets it in
        self._entry[job] = now
        self.entered += 1
        self._inside += 1
        if self.entered < self.instance.jobs:
            release = self.instance.release_time
            due = float(release[job + 1])
            if cap:
                due = now + float(release[job + 1] - release[job])
            heapq.heappush(self._events, (due, _ENTRY, job + 1))

    def _finish(self, task: int, now: float) -> None:
        self._state[task] = _ENDED
        self._end[task] = now
        self._running[self._device[task]] = -1
        job = int(self._flat.job[task])
        self._tasks_left[job] -= 1
        if self._tasks_left[job] == 0:
            self._inside -= 1
            blocked = self.entered < self.instance.jobs and not any(kind == _ENTRY for _, kind, _ in self._events)
            if blocked:
                heapq.heappush(self._events, (now, _ENTRY, self.entered))

    def dispatch(self, now: float) -> None:
        """Start every task that is next on an idle device and has its inputs there."""
        for device, queue in enumerate(self._queue):
            for task in queue if self.instance.communication == "contention" else ():
                self._send(task, device, now)
            if self._running[device] >= 0 or not queue:
                continue
            task = queue[0]
            arrival = self._arrival(task, int(self._pools.of_device[device]))
            if arrival > now:
                if np.isfinite(arrival):
                    heapq.heappush(self._events, (arrival, _WAKE, task))
                continue
            queue.pop(0)
            self._state[task], self._device[task], self._start[task] = _RUNNING, device, now
            self._running[device] = task
            heapq.heappush(self._events, (now + float(self.instance.true_duration[task, device]), _END, task))

    def _inputs(self, task: int) -> tuple[I32, I32]:
        """Return a task's incoming edges and their sources."""
        edges = self._flat.predecessor_edge[
            self._flat.predecessor_offset[task] : self._flat.predecessor_offset[task + 1]
        ]
        return edges, self._flat.edge[edges, 0]

    def _send(self, task: int, device: int, now: float) -> None:
        """Book the transfers of a task whose inputs are all ready, in the sequence of the edge list."""
        edges, sources = self._inputs(task)
        if not len(edges) or not np.isnan(self._sent[edges]).all() or (self._state[sources] != _ENDED).any():
            return
        pool, unit = int(self._pools.of_device[device]), self.instance.device_unit
        for e, i in zip(edges.tolist(), sources.tolist(), strict=True):
            taken = float(self._cost[e, self._pools.of_device[self._device[i]], pool])
            link = int(unit[self._device[i]]), int(unit[device])
            self._sent[e] = max(now, self._link_free.get(link, 0.0)) if taken > 0 else self._end[i]
            if taken > 0:
                self._link_free[link] = self._sent[e] + taken

    def _arrival(self, task: int, pool: int) -> float:
        """Return when all inputs are on a pool, infinity while one does not exist."""
        edges, sources = self._inputs(task)
        if (self._state[sources] != _ENDED).any():
            return np.inf
        taken = self._cost[edges, self._pools.of_device[self._device[sources]], pool]
        begin = np.where(np.isnan(self._sent[edges]), self._end[sources], self._sent[edges])
        return float((begin + taken).max(initial=0.0))

    def plan(self, now: float, limit_s: float, workers: int, rng: np.random.Generator) -> None:
        """Give every device its sequence of the tasks that have entered and not started."""
        began = time.perf_counter()
        tasks = np.flatnonzero((self._state == _WAITING) & (self._flat.job < self.entered))
        problem = self._problem(tasks, now)
        best, value = self._first_plan(tasks, problem)
        for share, repair_only in _PHASES if limit_s >= _LEAST_SLICE_S else ():
            left = share * limit_s - (time.perf_counter() - began)
            if left > 0 and value > problem.lower_bound:
                narrow = _limited(problem, value)
                seed = int(rng.integers(2**31 - 1))
                found = solve(narrow, best, left, repair_only=repair_only, seed=seed, workers=workers)
                if found.plan is not None and plan_latency(problem, found.plan) < value:
                    best, value = found.plan, plan_latency(problem, found.plan)
                if found.bound >= value:
                    break
        self._adopt(tasks, problem, best, now)

    def _expected_ends(self, now: float) -> F64:
        """Return (N,) ends of started tasks: true where known, else as expected but not before now."""
        ends = self._end.copy()
        running = np.flatnonzero(self._state == _RUNNING)
        taken = self._flat.duration[running, self._device[running]]
        ends[running] = np.maximum(self._start[running] + taken, now)
        return ends

    def _problem(self, tasks: Any, now: float) -> Problem:
        """Return the planning problem in steps from now; ``latest`` is what each job takes at the least."""
        expected = self._expected_ends(now)
        ready, inner = self._ready(tasks, expected)
        duration = self._grid.up(self._duration[tasks])
        for n, t in enumerate(tasks.tolist()):
            if self._is_sent(t):
                duration[n, np.arange(duration.shape[1]) != self._pools.of_device[self._planned_device(t)]] = -1
        number = np.full(self.instance.tasks, -1)
        number[tasks] = np.arange(len(tasks))
        jobs, job = np.unique(self._flat.job[tasks], return_inverse=True)
        earliest, tail = self._grid.up(np.maximum(ready - now, 0.0)), self._tail[tasks]
        alone = np.zeros(len(jobs), dtype=np.int64)
        np.maximum.at(alone, job, np.where(duration >= 0, earliest + duration + tail, _FAR).min(axis=1))
        busy = tuple(
            (int(self._pools.of_device[device]), 0, int(self._grid.up(np.array([expected[task] - now]))[0]))
            for device, task in enumerate(self._running)
            if task >= 0
        )
        return Problem(
            pools=self._pools,
            duration=duration,
            earliest=earliest,
            tail=tail,
            job=job.astype(np.int32),
            entry=np.zeros(len(jobs), dtype=np.int64),
            latest=alone,
            edge=number[self._flat.edge[inner]].astype(np.int32).reshape(-1, 2),
            cost=self._grid.up(self._cost[inner]),
            busy=busy,
            lower_bound=int(alone.sum()),
        )

    def _ready(self, tasks: Any, expected: F64) -> tuple[F64, list[int]]:
        """Return when the inputs of tasks from started ones are on each pool (n, G), and the edges between tasks."""
        ready = np.zeros((len(tasks), len(self._pools.lanes)))
        inner: list[int] = []
        for n, t in enumerate(tasks.tolist()):
            for e, i in zip(*(part.tolist() for part in self._inputs(t)), strict=True):
                if self._state[i] == _WAITING:
                    inner.append(e)
                    continue
                begin = expected[i] if np.isnan(self._sent[e]) else self._sent[e]
                ready[n] = np.maximum(ready[n], begin + self._cost[e, self._pools.of_device[self._device[i]]])
        return ready, inner

    def _is_sent(self, task: int) -> bool:
        edges, _ = self._inputs(task)
        return len(edges) > 0 and not bool(np.isnan(self._sent[edges]).any())

    def _planned_device(self, task: int) -> int:
        return next(device for device, queue in enumerate(self._queue) if task in queue)

    def _free(self, problem: Problem) -> I64:
        """Return (D,) step at which each processing element becomes free."""
        free: I64 = np.zeros(self.instance.devices, dtype=np.int64)
        occupied = [device for device, task in enumerate(self._running) if task >= 0]
        free[occupied] = [until for _, _, until in problem.busy]
        return free

    def _first_plan(self, tasks: Any, problem: Problem) -> tuple[Plan, int]:
        """Return the best of a few list schedules and its latency."""
        position, urgency = self._position[tasks], -self._urgency[tasks]
        left = problem.latest[problem.job]  # the least that each task's job still takes
        free, nothing = self._free(problem), np.zeros_like(problem.tail)
        sequences = ((self._planned[tasks],), (problem.job,), (left, problem.job), ())
        plans = [
            _listed(problem, np.lexsort((position, urgency, *keys[::-1])), free, tail)
            for keys in sequences
            for tail in (nothing, problem.tail)
        ]
        return min(((plan, plan_latency(problem, plan)) for plan in plans), key=lambda entry: entry[1])

    def _adopt(self, tasks: Any, problem: Problem, plan: Plan, now: float) -> None:
        end = plan.start + problem.duration[np.arange(len(tasks)), plan.pool]
        order = np.lexsort((self._position[tasks], end, plan.start)).astype(np.int32)
        device = devices_of(problem, plan, order, self._free(problem))
        self._planned[tasks] = now + plan.start / self._grid.scale
        self._queue = [[] for _ in self._queue]
        for n in order.tolist():
            self._queue[device[n]].append(int(tasks[n]))

    def schedule(self) -> DagSchedule:
        """Return what happened."""
        transfer = None
        if self.instance.communication == "contention":
            transfer = np.where(np.isnan(self._sent), 0.0, self._sent)
        return DagSchedule(device=self._device, start=self._start, entry=self._entry, transfer=transfer)


def _limited(problem: Problem, most: int) -> Problem:
    """Return the problem with jobs' latest ends such that latencies can add up to ``most`` at the most."""
    alone = problem.latest  # of the problem as built: each job's bound
    return replace(problem, latest=alone + (most - int(alone.sum())), most=most)


def _listed(problem: Problem, order: I64, free: I64, tail: I64) -> Plan:
    """Return a list schedule: of the tasks whose inputs are planned the first in ``order``, where it ends first.

    Args:
        problem: what to plan.
        order: (n,) tasks by priority.
        free: (D,) step at which each processing element becomes free.
        tail: (n, G) steps after the task that count as part of it when its pool is chosen.
    """
    tasks, edges = len(order), len(problem.edge)
    rank = np.empty(tasks, np.int64)
    rank[order] = np.arange(tasks)
    offset = np.concatenate([[0], np.cumsum(np.bincount(problem.edge[:, 0], minlength=tasks))])
    pool, start = np.zeros(tasks, np.int32), np.zeros(tasks, np.int64)
    _fill(
        (rank, problem.duration, tail, problem.pools.device, problem.pools.lanes),
        (problem.edge, problem.cost, offset, np.argsort(problem.edge[:, 0], kind="stable")),
        np.bincount(problem.edge[:, 1], minlength=tasks),
        problem.earliest.copy(),
        free.copy(),
        pool,
        start,
    )
    return Plan(pool=pool, start=start, transfer=np.zeros(edges, np.int64))


@njit(cache=True)
def _fill(
    static: tuple[I64, I64, I64, I32, I32],
    edges: tuple[I32, I64, I64, I64],
    missing: I64,
    ready: I64,
    free: I64,
    pool: I32,
    start: I64,
) -> None:
    """Fill a plan's ``pool`` and ``start`` (n,) and use up the other arrays."""
    rank, duration, tail, first, lanes = static
    edge, cost, offset, outgoing = edges
    waiting: list[tuple[int, Any]] = [(rank[t], t) for t in range(len(rank)) if missing[t] == 0]
    heapq.heapify(waiting)
    while len(waiting) > 0:
        _, t = heapq.heappop(waiting)
        best, lane = _FAR, 0
        for g in range(len(first)):
            if duration[t, g] < 0:
                continue
            idle = first[g] + np.argmin(free[first[g] : first[g] + lanes[g]])
            begin = max(ready[t, g], free[idle])
            if begin + duration[t, g] + tail[t, g] < best:
                best, lane, pool[t], start[t] = begin + duration[t, g] + tail[t, g], idle, g, begin
        finish = start[t] + duration[t, pool[t]]
        free[lane] = finish
        for k in range(offset[t], offset[t + 1]):
            e = outgoing[k]
            target = edge[e, 1]
            for g in range(len(first)):
                ready[target, g] = max(ready[target, g], finish + cost[e, pool[t], g])
            missing[target] -= 1
            if missing[target] == 0:
                heapq.heappush(waiting, (rank[target], np.int64(target)))


def _make(build: Callable[..., Any]) -> Callable[[], Scheduler]:
    # Untyped on purpose: this takes SoC DAGs only, the contract any instance; a spec meets its own family's.
    return build


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="socdag/cp-sat-rolling",
        make=_make(RollingCpSat),
        information="online",
        summary="OR-Tools CP-SAT, one thread, plans all unstarted tasks anew whenever jobs enter",
        source="https://developers.google.com/optimization; rolling scheme of DS3 (Arda et al. 2020)",
        randomised=True,
    ),
)
