"""Simulated annealing over the sequence of all tasks and the device of each.

A sequence in which every task stands behind its predecessors is decoded by appending each task to its device, which
reaches every schedule without needless waiting. The search space is that of genetic list scheduling (Wang, Siegel,
Roychowdhury and Maciejewski, JPDC 47 (1997) 8-22); moves prefer tasks on the critical path, as for job shops (van
Laarhoven, Aarts and Lenstra, Operations Research 40 (1992) 113-125).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from schedrl.arrays import F64, I32, I64
from schedrl.baselines.socdag.exact import better, replayed
from schedrl.baselines.socdag.execution import execute
from schedrl.baselines.socdag.heuristics import best_heuristic_schedule
from schedrl.baselines.socdag.outcomes import latency, outcome
from schedrl.envs.socdag.bounds import bounds, fast_bound, optimistic_tails
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.solution import DagSchedule, task_end
from schedrl.envs.socdag.tables import transfer
from schedrl.errors import ConfigError
from schedrl.kernel_arguments import by_reference
from schedrl.kernels import inlined, inner, inner_inlined, kernel
from schedrl.schedulers import Result, Scheduler, SchedulerSpec

__all__ = ["SCHEDULERS", "Annealing"]

_WORK = 400_000  # tasks and edges decoded between two looks at the clock
_CRITICAL = 0.8  # share of moves that start from a task on the critical path
_ROUNDING = 1e-9
CURRENT, BEST = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Annealing:
    """Anytime annealing from the best list schedule, cooled over the time limit.

    It plans with expected durations and, under noise, executes that plan.

    Args:
        hot: first temperature as a share of the objective per job.
        cold: last temperature, likewise.
        max_iterations: cool over this many moves instead of the time limit; if that does not run out first, the
            result depends on the seed alone.
    """

    hot: float = 0.02
    cold: float = 0.0002
    max_iterations: int | None = None

    def schedule(self, instance: SocDagInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best schedule found.

        Raises:
            ConfigError: the stream has an admission limit that binds, so that entries depend on the schedule.
        """
        if 0 < instance.admission_cap < instance.jobs:
            raise ConfigError(
                f"{instance.name}: field admission_cap: {instance.admission_cap} of {instance.jobs} jobs; "
                "socdag/annealing plans open streams only"
            )
        _compile()
        return self._anneal(instance, time.perf_counter(), time_limit_s, int(rng.integers(2**31 - 1)))

    def _anneal(self, instance: SocDagInstance, started: float, time_limit_s: float, seed: int) -> Result:
        planned = dataclasses.replace(instance, noise_sigma=0.0) if instance.noise_sigma else instance
        first = best_heuristic_schedule(planned, started + time_limit_s)
        lower = bounds(planned)[0].value
        walk = _new_walk(planned, first, seed)
        scale = walk.value[BEST] / planned.jobs
        target = lower * planned.jobs * (1.0 + _ROUNDING)
        chunk, done, progress = max(20, _WORK // (planned.tasks + len(planned.flat.edge))), 0, 0.0
        while progress < 1.0 and walk.value[BEST] > target:
            steps = chunk if self.max_iterations is None else min(chunk, self.max_iterations - done)
            temperature = scale * self.hot * (self.cold / self.hot) ** progress
            _walk(walk, steps, temperature)
            done += steps
            progress = (time.perf_counter() - started) / time_limit_s
            if self.max_iterations is not None:
                progress = max(done / self.max_iterations, math.floor(progress))
        best = better(planned, execute(planned, walk.best_device, walk.best_order), first)
        if instance.noise_sigma:
            best, lower = replayed(instance, best), fast_bound(instance)
        return outcome(instance, best, started=started, lower_bound=min(lower, latency(instance, best)))


@by_reference
class _Walk(NamedTuple):
    """The instance without noise, the current and the best solution, and scratch space."""

    duration: F64  # (N, D)
    tail: F64  # (N, D) least time after a task
    links: F64  # (4, D, D)
    edge: I32  # (E, 2)
    size: F64  # (E,) bytes
    predecessor_offset: I32  # (N + 1,)
    predecessor_edge: I32  # (E,)
    successor_offset: I32  # (N + 1,)
    successor_edge: I32  # (E,)
    job: I32  # (N,)
    release: F64  # (J,)
    unit: I32  # (D,)
    option_offset: I32  # (N + 1,)
    option: I32  # supported devices of task t: option[option_offset[t]:option_offset[t + 1]]
    rules: I64  # (2,) whole units, contention
    order: I32  # (N,) current sequence
    place: I32  # (N,) index of each task in it
    device: I32  # (N,)
    finish: F64  # (N,)
    cause: I32  # (N,) task that its start waited for, -1 for the job's entry
    last: I32  # (J,) task that ends the job
    trial_finish: F64  # (N,) the same three of the solution last decoded
    trial_cause: I32  # (N,)
    trial_last: I32  # (J,)
    device_free: F64  # (D,)
    device_last: I32  # (D,)
    link_free: F64  # (D, D)
    path: I32  # (N,)
    best_order: I32  # (N,)
    best_device: I32  # (N,)
    value: F64  # (2,) sum of latencies of the current and of the best solution
    random: I64  # (1,) state of the generator


def _new_walk(instance: SocDagInstance, schedule: DagSchedule, seed: int) -> _Walk:
    flat, tasks, devices = instance.flat, instance.tasks, instance.devices
    position = np.empty(tasks, np.int64)
    position[flat.order] = np.arange(tasks)
    # Of tasks that start together those of no time come first, and sources before their targets.
    order = np.lexsort((position, task_end(instance, schedule), schedule.start)).astype(np.int32)
    place = np.empty(tasks, np.int32)
    place[order] = np.arange(tasks)
    supported = np.isfinite(flat.duration)
    walk = _Walk(
        duration=flat.duration,
        tail=optimistic_tails(instance),
        links=instance.links,
        edge=flat.edge,
        size=flat.edge_bytes,
        predecessor_offset=flat.predecessor_offset,
        predecessor_edge=flat.predecessor_edge,
        successor_offset=flat.successor_offset,
        successor_edge=flat.successor_edge,
        job=flat.job,
        release=instance.release_time,
        unit=instance.device_unit,
        option_offset=np.concatenate([[0], np.cumsum(supported.sum(axis=1))]).astype(np.int32),
        option=np.nonzero(supported)[1].astype(np.int32),
        rules=np.array([instance.whole_units, instance.communication == "contention"], dtype=np.int64),
        order=order,
        place=place,
        device=schedule.device.copy(),
        finish=np.zeros(tasks),
        cause=np.full(tasks, -1, np.int32),
        last=np.zeros(instance.jobs, np.int32),
        trial_finish=np.zeros(tasks),
        trial_cause=np.full(tasks, -1, np.int32),
        trial_last=np.zeros(instance.jobs, np.int32),
        device_free=np.zeros(devices),
        device_last=np.zeros(devices, np.int32),
        link_free=np.zeros((devices, devices)),
        path=np.zeros(tasks, np.int32),
        best_order=order.copy(),
        best_device=schedule.device.copy(),
        value=np.zeros(2),
        random=np.array([seed % (2**31 - 2) + 1], dtype=np.int64),
    )
    _start(walk)
    return walk


@inner_inlined
def _uniform(w: _Walk) -> float:
    """Return a pseudo-random number in (0, 1); minimal standard generator (Park and Miller 1988)."""
    w.random[0] = w.random[0] * 48271 % 2147483647
    number: float = w.random[0] / 2147483647.0
    return number


@inner
def _decode(w: _Walk, limit: float) -> float:
    """Fill the trial arrays and return the sum of latencies, infinity as soon as it must exceed ``limit``."""
    jobs, whole_units, contention = len(w.release), w.rules[0] == 1, w.rules[1] == 1
    w.device_free[:] = 0.0
    w.device_last[:] = -1
    w.trial_last[:] = -1
    if contention:
        w.link_free[:, :] = 0.0
    for k in range(len(w.order)):
        t = w.order[k]
        p, j = w.device[t], w.job[t]
        start, cause = w.release[j], -1
        for n in range(w.predecessor_offset[t], w.predecessor_offset[t + 1]):
            e = w.predecessor_edge[n]
            i = w.edge[e, 0]
            arrival = w.trial_finish[i]
            taken = transfer(w.links, w.size[e], w.device[i], p, whole_units)
            if contention and taken > 0.0:
                source, target = w.unit[w.device[i]], w.unit[p]
                arrival = max(arrival, w.link_free[source, target])
                w.link_free[source, target] = arrival + taken
            arrival += taken
            if arrival > start:
                start, cause = arrival, i
        if w.device_free[p] > start:
            start, cause = w.device_free[p], w.device_last[p]
        finish = start + w.duration[t, p]
        if jobs == 1 and finish + w.tail[t, p] - w.release[0] > limit:
            return np.inf
        w.trial_finish[t] = w.device_free[p] = finish
        w.trial_cause[t] = cause
        w.device_last[p] = t
        if w.trial_last[j] < 0 or finish > w.trial_finish[w.trial_last[j]]:
            w.trial_last[j] = t
    total = 0.0
    for j in range(jobs):
        total += w.trial_finish[w.trial_last[j]] - w.release[j]
    return total


@inlined
def _keep(w: _Walk, value: float) -> None:
    """Make the solution last decoded the current one."""
    # Element by element, because numba copies whole arrays by way of a buffer, which kernels may not allocate.
    for t in range(len(w.order)):
        w.finish[t], w.cause[t] = w.trial_finish[t], w.trial_cause[t]
    for j in range(len(w.release)):
        w.last[j] = w.trial_last[j]
    w.value[CURRENT] = value
    if value < w.value[BEST]:
        w.value[BEST] = value
        for t in range(len(w.order)):
            w.best_order[t], w.best_device[t] = w.order[t], w.device[t]


@kernel
def _start(w: _Walk) -> None:
    w.value[BEST] = np.inf
    _keep(w, _decode(w, np.inf))


@inner
def _critical(w: _Walk) -> int:
    """Return a random task of the chain that determines the end of a random job."""
    t = w.last[int(_uniform(w) * len(w.last))]
    length = 0
    while t >= 0:
        w.path[length] = t
        length += 1
        t = w.cause[t]
    task: int = w.path[int(_uniform(w) * length)]
    return task


@inner_inlined
def _shift(w: _Walk, since: int, to: int) -> None:
    """Move the task at one index of the sequence to another one."""
    t = w.order[since]
    step = 1 if to > since else -1
    k = since
    while k != to:
        w.order[k] = w.order[k + step]
        w.place[w.order[k]] = k
        k += step
    w.order[to] = t
    w.place[t] = to


@kernel
def _walk(w: _Walk, steps: int, temperature: float) -> None:
    """Try ``steps`` moves: another device for a task, another place in the sequence, or both."""
    tasks = len(w.order)
    for _ in range(steps):
        t = _critical(w) if _uniform(w) < _CRITICAL else int(_uniform(w) * tasks)
        first, after = 0, tasks
        for n in range(w.predecessor_offset[t], w.predecessor_offset[t + 1]):
            first = max(first, w.place[w.edge[w.predecessor_edge[n], 0]] + 1)
        for n in range(w.successor_offset[t], w.successor_offset[t + 1]):
            after = min(after, w.place[w.edge[w.successor_edge[n], 1]])
        was, device, place = w.place[t], w.device[t], w.place[t]
        kind = _uniform(w)
        if kind < 0.6:
            options = w.option_offset[t + 1] - w.option_offset[t]
            w.device[t] = w.option[w.option_offset[t] + int(_uniform(w) * options)]
        if kind > 0.3:
            place = first + int(_uniform(w) * (after - first))
        if place == was and w.device[t] == device:
            continue
        _shift(w, was, place)
        limit = w.value[CURRENT] - temperature * np.log(_uniform(w))
        value = _decode(w, limit)
        if value <= limit:
            _keep(w, value)
        else:
            _shift(w, place, was)
            w.device[t] = device


@functools.cache
def _compile() -> None:
    """Compile the kernels on first use, so that a time limit measures the search alone."""
    from schedrl.envs.socdag.structured import canonical

    Annealing(max_iterations=1)._anneal(canonical(), time.perf_counter(), 60.0, 0)


def _make(build: Callable[..., Any]) -> Callable[[], Scheduler]:
    # Untyped on purpose: this takes SoC DAGs only, the contract any instance; a spec meets its own family's.
    return build


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="socdag/annealing",
        make=_make(Annealing),
        information="clairvoyant",
        summary="simulated annealing of sequence and devices from the best list schedule, cooled over the time limit",
        source="Wang, Siegel, Roychowdhury and Maciejewski 1997; van Laarhoven, Aarts and Lenstra 1992",
        randomised=True,
    ),
)
