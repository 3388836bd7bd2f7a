"""Dispatching rules: one pass, reversed in time, best of both, and best of many randomised passes.

A rule is a priority per operation, smallest first, ties to the lowest job. Under non-delay generation these
are the rules of the job-shop literature (Panwalkar and Iskander 1977; Holthaus and Rajendran 1997).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from schedrl.arrays import F64, I64
from schedrl.baselines.jobshop.dispatch import Dispatcher
from schedrl.baselines.jobshop.outcomes import outcome
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.simulator import Generation
from schedrl.envs.jobshop.solution import Schedule
from schedrl.schedulers import Result

__all__ = [
    "RULES",
    "SPT_TWKR",
    "Direction",
    "RandomPriorities",
    "RandomisedRule",
    "Rule",
    "RuleScheduler",
    "best_rule_schedule",
    "work_done",
    "work_remaining",
]

Direction = Literal["forward", "reversed", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A dispatching rule: the operation with the smallest key goes first.

    With ``by_arrival`` the key is multiplied by the time at which the operation's job becomes ready.
    """

    name: str
    meaning: str
    key: Callable[[JobShopInstance], F64]  # (N,)
    by_arrival: bool = False


def work_done(instance: JobShopInstance) -> I64:
    """Return (N,) the work of each operation's job up to and including the operation."""
    total = np.concatenate([[0], np.cumsum(instance.duration)])
    return np.asarray(total[1:] - total[instance.job_offset[:-1]][instance.job], dtype=np.int64)


def work_remaining(instance: JobShopInstance) -> I64:
    """Return (N,) the work of each operation's job from the operation, included, to its end."""
    total = np.concatenate([[0], np.cumsum(instance.duration)])
    return np.asarray(total[instance.job_offset[1:]][instance.job] - total[:-1], dtype=np.int64)


def _operations_remaining(instance: JobShopInstance) -> F64:
    return (instance.job_offset[1:][instance.job] - np.arange(instance.operations)).astype(np.float64)


def _per_remaining_work(work: I64, instance: JobShopInstance) -> F64:
    # Jobs whose remaining operations all take no time are free to go at once: any key will do.
    return work / np.maximum(work_remaining(instance), 1)


SPT_TWKR = Rule(
    name="spt-twkr",
    meaning="processing time over the job's remaining work",
    key=lambda i: _per_remaining_work(i.duration, i),
)
RULES: tuple[Rule, ...] = (
    Rule(name="spt", meaning="shortest processing time", key=lambda i: i.duration.astype(np.float64)),
    Rule(name="lpt", meaning="longest processing time", key=lambda i: -i.duration.astype(np.float64)),
    Rule(name="mwkr", meaning="most work remaining in the job", key=lambda i: -work_remaining(i).astype(np.float64)),
    Rule(name="lwkr", meaning="least work remaining in the job", key=lambda i: work_remaining(i).astype(np.float64)),
    Rule(name="mopnr", meaning="most operations remaining in the job", key=lambda i: -_operations_remaining(i)),
    Rule(name="lopnr", meaning="fewest operations remaining in the job", key=_operations_remaining),
    Rule(name="fifo", meaning="first come first served", key=lambda i: np.ones(i.operations), by_arrival=True),
    Rule(
        name="fdd-mwkr",
        meaning="flow due date (work up to and including the operation) over remaining work",
        key=lambda i: _per_remaining_work(work_done(i), i),
    ),
    SPT_TWKR,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleScheduler:
    """Dispatch by one rule: forward, on the time-reversed instance, or the better of the two."""

    rule: Rule
    direction: Direction = "forward"
    generation: Generation = "non-delay"

    def schedule(self, instance: JobShopInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the rule's schedule; one pass always runs to its end, whatever the limit."""
        started = time.perf_counter()
        schedule, passes = _best_of(instance, (self.rule,), self.direction, self.generation)
        return outcome(instance, schedule, started=started, decisions=passes * instance.operations)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomisedRule:
    """Best of many passes whose keys are multiplied by log-normal noise, every second one reversed in time.

    The first pass of either direction carries no noise, so the result is never worse than best of both.
    """

    rule: Rule
    rollouts: int = 128
    sigma: float = 0.2
    generation: Generation = "non-delay"

    def schedule(self, instance: JobShopInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best of the passes that fit the limit, of one at least."""
        started = time.perf_counter()
        sides = _sides(instance, "both")
        dispatchers = [Dispatcher(side, self.generation) for side in sides]
        keys = [self.rule.key(side) for side in sides]
        best, best_makespan, passes = None, 0, 0
        while passes < self.rollouts and (best is None or time.perf_counter() - started < time_limit_s):
            side = passes % 2
            noise = np.exp(self.sigma * rng.standard_normal(instance.operations)) if passes > 1 else 1.0
            makespan = dispatchers[side].run(keys[side] * noise, by_arrival=self.rule.by_arrival)
            if best is None or makespan < best_makespan:
                best_makespan, best = makespan, _as_forward(instance, dispatchers[side].schedule(), side == 1)
            passes += 1
        assert best is not None
        return outcome(instance, best, started=started, decisions=passes * instance.operations)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomPriorities:
    """Dispatch by uniform random priorities, the best of ``rollouts`` passes."""

    rollouts: int = 1
    generation: Generation = "non-delay"

    def schedule(self, instance: JobShopInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best of the passes that fit the limit, of one at least."""
        started = time.perf_counter()
        dispatcher = Dispatcher(instance, self.generation)
        best, best_makespan, passes = None, 0, 0
        while passes < self.rollouts and (best is None or time.perf_counter() - started < time_limit_s):
            makespan = dispatcher.run(rng.random(instance.operations))
            if best is None or makespan < best_makespan:
                best_makespan, best = makespan, dispatcher.schedule()
            passes += 1
        assert best is not None
        return outcome(instance, best, started=started, decisions=passes * instance.operations)


def best_rule_schedule(instance: JobShopInstance, *, deadline: float = math.inf) -> Schedule:
    """Return the best schedule of all rules in both directions: the start of the improvement methods.

    Past ``deadline``, a ``time.perf_counter`` reading, no further pass begins; the strongest rules go first.
    """
    return _best_of(instance, RULES[::-1], "both", "non-delay", deadline)[0]


def _best_of(
    instance: JobShopInstance,
    rules: tuple[Rule, ...],
    direction: Direction,
    generation: Generation,
    deadline: float = math.inf,
) -> tuple[Schedule, int]:
    """Return the best schedule over rules and directions, and the number of passes, one at least."""
    best, best_makespan, passes = None, 0, 0
    sides = [(side, Dispatcher(side, generation)) for side in _sides(instance, direction)]
    for rule in rules:
        for side, dispatcher in sides:
            if best is not None and time.perf_counter() >= deadline:
                return best, passes
            makespan = dispatcher.run(rule.key(side), by_arrival=rule.by_arrival)
            passes += 1
            if best is None or makespan < best_makespan:
                best_makespan, best = makespan, _as_forward(instance, dispatcher.schedule(), side is not instance)
    assert best is not None
    return best, passes


def _sides(instance: JobShopInstance, direction: Direction) -> list[JobShopInstance]:
    sides = {"forward": [instance], "reversed": [instance.reversed()], "both": [instance, instance.reversed()]}
    return sides[direction]


def _as_forward(instance: JobShopInstance, schedule: Schedule, is_reversed: bool) -> Schedule:
    return schedule.reversed(instance) if is_reversed else schedule
