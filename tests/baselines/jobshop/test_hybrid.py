from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.baselines.jobshop.hybrid import Hybrid, Method
from schedrl.baselines.jobshop.rules import best_rule_schedule
from schedrl.envs.jobshop.generators import taillard_like
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule, check, objectives
from schedrl.envs.jobshop.suites import load_instance
from schedrl.errors import ConfigError
from schedrl.schedulers import Result

pytest.importorskip("onnxruntime")

OPERATION = st.tuples(st.integers(0, 3), st.one_of(st.just(0), st.integers(1, 12)))
JOBS = st.lists(st.lists(OPERATION, min_size=1, max_size=6), min_size=1, max_size=6)


def solve(instance: JobShopInstance, scheduler: Hybrid, limit_s: float) -> Result:
    result = scheduler.schedule(instance, time_limit_s=limit_s, rng=np.random.default_rng(0))
    assert isinstance(result.solution, Schedule)
    assert check(instance, result.solution) == []
    return result


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("name", "optimum"), [("ft06", 55), ("la01", 666), ("la02", 655)])
def test_proves_optima(name: str, optimum: int, threads: int) -> None:
    phases: tuple[tuple[Method, float], ...] = (("policy", 0.1), ("tabu", 0.2), ("cp-sat", 0.9), ("lns", 1.0))
    result = solve(load_instance(name), Hybrid(threads=threads, phases=phases), 10.0)
    assert (result.objective, result.lower_bound, result.status) == (optimum, optimum, "optimal")


def test_policy_alone_beats_the_rules_and_counts_its_decisions() -> None:
    instance = taillard_like(np.random.default_rng(3), jobs=15, machines=10)
    rule = objectives(instance, best_rule_schedule(instance))["makespan"]
    trace: list[tuple[float, int]] = []
    scheduler = Hybrid(
        threads=1, samples=32, phases=(("policy", 1.0),), on_incumbent=lambda *point: trace.append(point)
    )
    result = solve(instance, scheduler, 60.0)
    assert result.objective is not None and result.objective < rule
    assert trace[0][1] == rule and trace[-1][1] == result.objective
    # Two greedy episodes and up to 32 samples make at most one decision per operation; some samples fit in any case.
    assert 20 <= result.decisions <= 34 * instance.operations


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_keeps_the_limit_and_improves(threads: int) -> None:
    instance = taillard_like(np.random.default_rng(2), jobs=30, machines=20)
    rule = objectives(instance, best_rule_schedule(instance))["makespan"]
    solve(instance, Hybrid(threads=threads), 0.0)  # compiles and loads
    started = time.perf_counter()
    result = solve(instance, Hybrid(threads=threads), 1.5)
    assert time.perf_counter() - started < 3.5
    assert result.objective is not None and result.objective < 0.97 * rule


@given(jobs=JOBS)
@settings(max_examples=15)
def test_every_schedule_is_feasible(jobs: list[list[tuple[int, int]]]) -> None:
    instance = JobShopInstance.from_jobs(jobs, name="random", machines=4)
    solve(instance, Hybrid(), 0.15)


def test_bad_options_are_errors() -> None:
    with pytest.raises(ConfigError, match="option threads: 0, expected at least 1"):
        Hybrid(threads=0)
    with pytest.raises(ConfigError, match=r"options phases and lead: \('tabu', 1\.5\), expected one of policy"):
        Hybrid(phases=(("tabu", 1.5),))
