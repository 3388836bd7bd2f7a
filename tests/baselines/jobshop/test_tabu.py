from __future__ import annotations

import time

import numpy as np
import pytest

from schedrl.baselines.jobshop.rules import best_rule_schedule
from schedrl.baselines.jobshop.tabu import TabuSearch
from schedrl.envs.jobshop.generators import taillard_like
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule, check, objectives
from schedrl.envs.jobshop.suites import load_instance
from schedrl.schedulers import Result


def solve(instance: JobShopInstance, *, seed: int = 0, limit_s: float = 60.0, iterations: int = 2**62) -> Result:
    result = TabuSearch(max_iterations=iterations).schedule(
        instance, time_limit_s=limit_s, rng=np.random.default_rng(seed)
    )
    assert isinstance(result.solution, Schedule)
    assert check(instance, result.solution) == []
    return result


# Optima: Fisher and Thompson 1963, Lawrence 1984; those that meet the load bound are proven by it.
@pytest.mark.parametrize(
    ("name", "optimum", "status"),
    [("ft06", 55, "feasible"), ("la01", 666, "optimal"), ("la06", 926, "optimal"), ("la17", 784, "feasible")],
)
def test_reaches_optima(name: str, optimum: int, status: str) -> None:
    result = solve(load_instance(name), iterations=30_000)
    assert (result.objective, result.status) == (optimum, status)


def test_comes_near_the_optimum_of_ft10() -> None:
    objective = solve(load_instance("ft10"), iterations=60_000).objective
    assert objective is not None and 930 <= objective <= 945


def test_same_seed_same_schedule() -> None:
    instance = load_instance("ta01")
    assert solve(instance, seed=4, iterations=3000).solution == solve(instance, seed=4, iterations=3000).solution
    assert solve(instance, seed=4, iterations=3000).solution != solve(instance, seed=5, iterations=3000).solution


def test_starts_from_the_best_rule_and_stops_at_the_limit() -> None:
    instance = taillard_like(np.random.default_rng(0), jobs=50, machines=20)
    started = time.perf_counter()
    result = solve(instance, limit_s=0.3)
    assert time.perf_counter() - started < 1.5
    rule = objectives(instance, best_rule_schedule(instance))["makespan"]
    assert result.objective is not None and result.objective < rule
    none = solve(instance, limit_s=0.0)
    assert none.objective is not None and none.objective <= rule


def test_a_schedule_that_cannot_be_improved_ends_the_search() -> None:
    instance = JobShopInstance.from_jobs([[(0, 3), (0, 0), (0, 2)], [(0, 4)]], name="one-machine")
    result = solve(instance, limit_s=30.0)
    assert (result.objective, result.status) == (9, "optimal")
    assert result.runtime_s < 5.0
