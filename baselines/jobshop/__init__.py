"""Schedulers of the job shop; importing this module loads neither OR-Tools nor torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from schedrl.baselines.jobshop import (
    genetic,
    hybrid,
    large_neighbourhood,
    shifting_bottleneck,
    shop_rules,
)
from schedrl.baselines.jobshop.exact import CpSat
from schedrl.baselines.jobshop.learned import LEARNED
from schedrl.baselines.jobshop.pilot import Pilot
from schedrl.baselines.jobshop.rolling_horizon import RollingCpSat
from schedrl.baselines.jobshop.rules import RULES, Direction, RandomisedRule, RandomPriorities, Rule, RuleScheduler
from schedrl.baselines.jobshop.shop_exact import ShopCpSat
from schedrl.baselines.jobshop.tabu import TabuSearch
from schedrl.schedulers import Scheduler, SchedulerSpec

__all__ = ["SCHEDULERS"]

_SOURCES = {
    "spt-twkr": "job-shop form of the ratio rule SPT/TWKR (Panwalkar and Iskander 1977)",
    "fdd-mwkr": "Sels, Gheysen and Vanhoucke 2012",
}
_DIRECTIONS: tuple[tuple[str, Direction, str], ...] = (
    ("", "forward", ""),
    ("-reversed", "reversed", ", on the time-reversed instance"),
    ("-both", "both", ", the better of forward and reversed"),
)
# The rules that win groups of benchmarks; noise on the weak ones only costs time.
_RANDOMISED = ("spt", "mwkr", "mopnr", "fdd-mwkr", "spt-twkr")


def _make(build: Callable[..., Any], **options: Any) -> Callable[[], Scheduler]:
    # Untyped on purpose: these take job shops only, the contract any instance; a spec meets its own family's.
    return partial(build, **options)


def _rule_spec(rule: Rule, suffix: str, direction: Direction, words: str) -> SchedulerSpec:
    return SchedulerSpec(
        name=f"jobshop/{rule.name}{suffix}",
        make=_make(RuleScheduler, rule=rule, direction=direction),
        # A reversed pass fixes the last operations first, so it must know all jobs beforehand.
        information="online" if direction == "forward" else "clairvoyant",
        summary=f"{rule.meaning}{words}",
        source=_SOURCES.get(rule.name, "Panwalkar and Iskander 1977"),
    )


def _randomised_spec(rule: Rule) -> SchedulerSpec:
    return SchedulerSpec(
        name=f"jobshop/{rule.name}-random-128",
        make=_make(RandomisedRule, rule=rule, rollouts=128),
        information="clairvoyant",
        summary=f"{rule.meaning}, best of 128 noisy passes, half of them reversed",
        source="log-normal noise of 0.2 on the priority",
        randomised=True,
    )


_OTHERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="jobshop/random",
        make=_make(RandomPriorities),
        information="online",
        summary="non-delay dispatch by random priorities",
        source="baseline",
        randomised=True,
    ),
    SchedulerSpec(
        name="jobshop/pilot",
        make=_make(Pilot),
        information="clairvoyant",
        summary="every candidate of every decision completed by SPT/TWKR, forward then reversed",
        source="Bertsekas, Tsitsiklis and Wu 1997; Duin and Voss 1999",
    ),
    SchedulerSpec(
        name="jobshop/tabu",
        make=_make(TabuSearch),
        information="clairvoyant",
        summary="tabu search (N6 with interior insertions) and path relinking from the best rule",
        source="Nowicki and Smutnicki 2005; Zhang et al. 2007; Peng, Lu and Cheng 2015",
        randomised=True,
    ),
    SchedulerSpec(
        name="jobshop/cp-sat",
        make=_make(CpSat),
        information="clairvoyant",
        summary="OR-Tools CP-SAT, one thread",
        source="https://developers.google.com/optimization",
        randomised=True,
    ),
    SchedulerSpec(
        name="jobshop/cp-sat-warm",
        make=_make(CpSat, warm=True),
        information="clairvoyant",
        summary="OR-Tools CP-SAT, one thread, started from the best dispatching rule",
        source="https://developers.google.com/optimization",
        randomised=True,
    ),
)

_JOB_SHOP: tuple[SchedulerSpec, ...] = (
    *(_rule_spec(rule, *variant) for rule in RULES for variant in _DIRECTIONS),
    *(_randomised_spec(rule) for rule in RULES if rule.name in _RANDOMISED),
    *_OTHERS,
    *shifting_bottleneck.SCHEDULERS,
    *genetic.SCHEDULERS,
    *large_neighbourhood.SCHEDULERS,
    *hybrid.SCHEDULERS,
    *LEARNED,
)

_SHOP: tuple[SchedulerSpec, ...] = (
    *shop_rules.SCHEDULERS,
    SchedulerSpec(
        name="jobshop/shop-cp-sat",
        make=_make(ShopCpSat),
        information="clairvoyant",
        summary="shops of any variant: OR-Tools CP-SAT, one thread, with all that will happen known",
        source="https://developers.google.com/optimization",
        randomised=True,
    ),
    SchedulerSpec(
        name="jobshop/shop-cp-sat-rolling",
        make=_make(RollingCpSat),
        information="online",
        summary="shops of any variant: CP-SAT again at every event that reveals something, for at most 1 s each time",
        source="rolling horizons of Church and Uzsoy 1992; https://developers.google.com/optimization",
        randomised=True,
    ),
)

SCHEDULERS: tuple[SchedulerSpec, ...] = (
    *(dataclasses.replace(spec, problem="job shop") for spec in _JOB_SHOP),
    *(dataclasses.replace(spec, problem="shop") for spec in _SHOP),
)
