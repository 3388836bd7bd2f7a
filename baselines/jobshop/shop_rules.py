"""Dispatching rules for shops of any variant: the job by its priority, then the machine where it completes first.

Schedules are non-delay. Rules read what the shop floor knows: expected durations, jobs released or announced.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from schedrl.arrays import F64
from schedrl.envs.jobshop.shop import ShopInstance
from schedrl.envs.jobshop.shop_events import start_mode
from schedrl.envs.jobshop.shop_schedule import ShopSchedule, objectives
from schedrl.envs.jobshop.shop_simulator import Simulator, begin_row, to_decision
from schedrl.envs.jobshop.shop_state import write_instance
from schedrl.kernels import inner, kernel
from schedrl.schedulers import Result, Scheduler, SchedulerSpec

if TYPE_CHECKING:
    from schedrl.envs.jobshop.shop_state import State

__all__ = ["RULES", "SCHEDULERS", "RandomisedShopRule", "ShopRule", "ShopRuleScheduler", "play_rule"]


class ShopRule(NamedTuple):
    """A rule by name: the number that kernels know it by, what it prefers, and its source."""

    name: str
    number: int
    meaning: str
    source: str


_CLASSIC = "Panwalkar and Iskander 1977"
_ATC = "Vepsalainen and Morton 1987"
RULES: tuple[ShopRule, ...] = (
    ShopRule("spt", 0, "shortest processing time", _CLASSIC),
    ShopRule("lpt", 1, "longest processing time", _CLASSIC),
    ShopRule("mwkr", 2, "most work remaining in the job", _CLASSIC),
    ShopRule("lwkr", 3, "least work remaining in the job", _CLASSIC),
    ShopRule("mopnr", 4, "most operations remaining in the job", _CLASSIC),
    ShopRule("fifo", 5, "ready first", _CLASSIC),
    ShopRule("spt-twkr", 6, "processing time over the job's remaining work", _CLASSIC),
    ShopRule("fdd-mwkr", 7, "flow due date over the job's remaining work", "Sels, Gheysen and Vanhoucke 2012"),
    ShopRule("edd", 8, "earliest due date", "Jackson 1955"),
    ShopRule("mdd", 9, "due date, or completion without waiting if that is later", "Baker and Bertrand 1982"),
    ShopRule("slack", 10, "least slack", _CLASSIC),
    ShopRule("critical-ratio", 11, "time to the due date over remaining work", _CLASSIC),
    ShopRule("atc", 12, "weight over time, discounted by slack with waits of twice the processing time", _ATC),
    ShopRule("covert", 13, "weight over time, by the share of the expected waiting that slack leaves", _ATC),
    ShopRule("wspt", 14, "processing time over weight", "Smith 1956"),
    ShopRule("random", 15, "a random job", "baseline"),
)
_LOOK_AHEAD, _WAITS, _RANDOM = 3.0, 2.0, 15


@inner
def _index(state: State, b: int, j: int, p: float, rule: int) -> float:
    """Return the index of ATC or COVERT, larger first."""
    rest = max(state.remaining[b, j] - p, 0.0)
    slack = state.due[b, j] - state.now[b] - p - rest
    weight = state.weight[b, j] / max(p, 1e-9)
    if rule == 12:
        return float(weight * np.exp(-max(slack - _WAITS * rest, 0.0) / (_LOOK_AHEAD * state.mean_duration[b])))
    expected_wait = _WAITS * (p + rest)
    return float(weight * max(0.0, 1.0 - max(slack, 0.0) / max(expected_wait, 1e-9)))


@inner
def _priority(state: State, b: int, slot: int, rule: int) -> float:
    """Return what a rule minimises."""
    j, k = state.candidate_job[b, slot], state.candidate_mode[b, slot]
    p, rest, now = float(state.duration[b, k]), float(state.remaining[b, j]), float(state.now[b])
    due = float(state.due[b, j])
    if rule == 0:
        return p
    if rule == 1:
        return -p
    if rule == 2:
        return -rest
    if rule == 3:
        return rest
    if rule == 4:
        return float(state.next_operation[b, j] - state.job_offset[b, j + 1])
    if rule == 5:
        return float(state.ready[b, j])
    if rule == 6:
        return p / max(rest, 1.0)
    if rule == 7:
        done = 0.0
        for o in range(state.job_offset[b, j], state.next_operation[b, j] + 1):
            done += state.least[b, o]
        return done / max(rest, 1.0)
    if rule == 8:
        return due
    if rule == 9:
        return max(now + rest, due)
    if rule == 10:
        return due - now - rest
    if rule == 11:
        return (due - now) / max(rest, 1.0)
    if rule == 14:
        return float(p / max(state.weight[b, j], 1e-9))
    return -_index(state, b, j, p, rule)


@kernel
def play_rule(state: State, b: int, rule: int, noise: F64) -> None:
    """Play a row to its end by a rule; priorities are multiplied by ``noise`` (N,) of the operation."""
    while state.candidates[b] > 0:
        best, least, soonest = 0, np.inf, np.inf
        for slot in range(state.candidates[b]):
            j, k = state.candidate_job[b, slot], state.candidate_mode[b, slot]
            factor = noise[state.next_operation[b, j]]
            value = factor if rule == _RANDOM else _priority(state, b, slot, rule) * factor
            end = float(state.candidate_start[b, slot] + state.duration[b, k])
            if value < least or (value == least and end < soonest):
                best, least, soonest = slot, value, end
        j, k = state.candidate_job[b, best], state.candidate_mode[b, best]
        start_mode(state, b, j, k, state.candidate_start[b, best])
        to_decision(state, b, False, False)


class _Passes:
    """One shop and the memory to play it many times."""

    def __init__(self, instance: ShopInstance) -> None:
        self._instance = instance
        self._simulator = Simulator([instance], 1, wait=False, skip_forced=False)

    def play(self, rule: ShopRule, noise: F64) -> ShopSchedule:
        """Return the schedule of one pass."""
        state = self._simulator.state
        write_instance(state, 0, self._instance)
        begin_row(state, 0, False)
        play_rule(state, 0, rule.number, noise)
        return self._simulator.solution(0)


class ShopRuleScheduler:
    """One pass of a rule."""

    def __init__(self, rule: ShopRule) -> None:
        self._rule = rule

    def schedule(self, instance: ShopInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the rule's schedule; a pass always runs to its end, whatever the limit."""
        started = time.perf_counter()
        noise = rng.random(instance.operations) if self._rule.number == _RANDOM else np.ones(instance.operations)
        schedule = _Passes(instance).play(self._rule, noise)
        return _result(instance, schedule, started, 1)


class RandomisedShopRule:
    """The best of many passes whose priorities are multiplied by log-normal noise; the first carries none."""

    def __init__(self, rule: ShopRule, *, rollouts: int = 128, sigma: float = 0.2) -> None:
        self._rule, self._rollouts, self._sigma = rule, rollouts, sigma

    def schedule(self, instance: ShopInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best of the passes that fit the limit, of one at least."""
        started = time.perf_counter()
        passes, count = _Passes(instance), 0
        best, least = None, np.inf
        while count < self._rollouts and (best is None or time.perf_counter() - started < time_limit_s):
            noise = np.exp(self._sigma * rng.standard_normal(instance.operations)) if count else 1.0
            schedule = passes.play(self._rule, noise * np.ones(instance.operations))
            value = objectives(instance, schedule)[instance.objective]
            if value < least:
                best, least = schedule, value
            count += 1
        assert best is not None
        return _result(instance, best, started, count)


def _result(instance: ShopInstance, schedule: ShopSchedule, started: float, passes: int) -> Result:
    return Result(
        solution=schedule,
        objective=objectives(instance, schedule)[instance.objective],
        status="feasible",
        runtime_s=time.perf_counter() - started,
        decisions=passes * instance.operations,
    )


def _make(build: Callable[..., Any], rule: ShopRule) -> Callable[[], Scheduler]:
    # Untyped on purpose: these take shops only, the contract any instance.
    return functools.partial(build, rule)


_RANDOMISED = ("spt-twkr", "mwkr")

SCHEDULERS: tuple[SchedulerSpec, ...] = (
    *(
        SchedulerSpec(
            name=f"jobshop/shop-{rule.name}",
            make=_make(ShopRuleScheduler, rule),
            information="online",
            summary=f"shops of any variant: {rule.meaning}, on the machine where it completes first",
            source=rule.source,
            randomised=rule.number == _RANDOM,
        )
        for rule in RULES
    ),
    *(
        SchedulerSpec(
            name=f"jobshop/shop-{rule.name}-random-128",
            make=_make(RandomisedShopRule, rule),
            information="clairvoyant",
            summary=f"shops of any variant: {rule.meaning}, the best of 128 noisy passes",
            source="log-normal noise of 0.2 on the priority",
            randomised=True,
        )
        for rule in RULES
        if rule.name in _RANDOMISED
    ),
)
