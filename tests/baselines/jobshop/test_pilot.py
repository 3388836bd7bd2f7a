from __future__ import annotations

import time

import numpy as np
import pytest

from schedrl.baselines.jobshop.pilot import Pilot
from schedrl.baselines.jobshop.rules import SPT_TWKR, RuleScheduler
from schedrl.envs.jobshop.generators import taillard_like
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.simulator import Generation
from schedrl.envs.jobshop.solution import Schedule, check
from schedrl.envs.jobshop.suites import load_instance


def makespan(scheduler: Pilot | RuleScheduler, instance: JobShopInstance, limit_s: float = 60.0) -> float:
    result = scheduler.schedule(instance, time_limit_s=limit_s, rng=np.random.default_rng(0))
    assert isinstance(result.solution, Schedule)
    assert check(instance, result.solution) == []
    assert result.objective is not None
    return result.objective


# Deterministic, so the values are exact; optima 55, 930, 1196, 1231.
@pytest.mark.parametrize(("name", "expected"), [("ft06", 55), ("ft10", 992), ("la38", 1330), ("ta01", 1331)])
def test_known_makespans(name: str, expected: int) -> None:
    assert makespan(Pilot(), load_instance(name)) == expected


@pytest.mark.parametrize("generation", ["active", "non-delay"])
@pytest.mark.parametrize("seed", range(5))
def test_never_worse_than_the_rule_it_completes_with(generation: Generation, seed: int) -> None:
    instance = taillard_like(np.random.default_rng(seed), jobs=8, machines=5)
    rule = makespan(RuleScheduler(rule=SPT_TWKR), instance)
    assert makespan(Pilot(generation=generation), instance) <= rule
    assert makespan(Pilot(generation=generation), instance, limit_s=0.0) == rule


def test_stops_at_the_limit() -> None:
    instance = taillard_like(np.random.default_rng(0), jobs=100, machines=20)
    started = time.perf_counter()
    makespan(Pilot(), instance, limit_s=0.3)
    assert time.perf_counter() - started < 1.5
