from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.baselines.jobshop.incumbent import Incumbent
from schedrl.baselines.jobshop.large_neighbourhood import LargeNeighbourhood, run_together
from schedrl.baselines.jobshop.rules import best_rule_schedule
from schedrl.envs.jobshop.generators import taillard_like
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule, check, objectives
from schedrl.envs.jobshop.suites import load_instance
from schedrl.errors import ConfigError
from schedrl.schedulers import Result

OPERATION = st.tuples(st.integers(0, 3), st.one_of(st.just(0), st.integers(1, 12)))
JOBS = st.lists(st.lists(OPERATION, min_size=1, max_size=6), min_size=1, max_size=6)


def solve(instance: JobShopInstance, scheduler: LargeNeighbourhood, *, seed: int = 0, limit_s: float = 60.0) -> Result:
    result = scheduler.schedule(instance, time_limit_s=limit_s, rng=np.random.default_rng(seed))
    assert isinstance(result.solution, Schedule)
    assert check(instance, result.solution) == []
    return result


@pytest.mark.parametrize(("name", "optimum"), [("ft06", 55), ("la01", 666), ("la06", 926)])
def test_reaches_and_proves_optima(name: str, optimum: int) -> None:
    # A window grown to the whole instance is a proof.
    result = solve(load_instance(name), LargeNeighbourhood(effort=1.0))
    assert (result.objective, result.lower_bound, result.status) == (optimum, optimum, "optimal")


def test_improves_on_the_rule_within_few_neighbourhoods() -> None:
    instance = taillard_like(np.random.default_rng(3), jobs=12, machines=10)
    rule = objectives(instance, best_rule_schedule(instance))["makespan"]
    result = solve(instance, LargeNeighbourhood(effort=0.01, max_iterations=30))
    assert result.objective is not None and result.objective < 0.97 * rule


def test_same_seed_same_schedule_and_the_trace_ends_at_the_result() -> None:
    instance = load_instance("ta01")
    trace: list[tuple[float, int]] = []
    scheduler = LargeNeighbourhood(effort=0.01, max_iterations=8, on_incumbent=lambda *point: trace.append(point))
    one = solve(instance, scheduler, seed=4)
    assert trace[-1][1] == one.objective
    assert [point[0] for point in trace] == sorted(point[0] for point in trace)
    assert one.solution == solve(instance, scheduler, seed=4).solution


def test_two_threads_keep_the_limit() -> None:
    instance = taillard_like(np.random.default_rng(1), jobs=20, machines=15)
    started = time.perf_counter()
    rule = objectives(instance, best_rule_schedule(instance))["makespan"]
    result = solve(instance, LargeNeighbourhood(threads=2), limit_s=2.0)
    assert time.perf_counter() - started < 6.0
    assert result.objective is not None and result.objective < rule


def test_a_start_is_a_floor() -> None:
    instance = load_instance("ft10")
    start = solve(instance, LargeNeighbourhood(effort=0.01, max_iterations=10)).solution
    assert isinstance(start, Schedule)
    result = solve(instance, LargeNeighbourhood(start=start, max_iterations=1))
    assert result.objective is not None and result.objective <= objectives(instance, start)["makespan"]


@given(jobs=JOBS, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_every_schedule_is_feasible(jobs: list[list[tuple[int, int]]], seed: int) -> None:
    instance = JobShopInstance.from_jobs(jobs, name="random", machines=4)
    rule = objectives(instance, best_rule_schedule(instance))["makespan"]
    result = solve(instance, LargeNeighbourhood(), seed=seed, limit_s=10.0)
    assert result.objective is not None and result.objective <= rule
    assert result.status == "optimal"


def test_incumbent_keeps_only_what_is_better() -> None:
    instance = JobShopInstance.from_jobs([[(0, 3)], [(1, 4)]], name="two")
    trace: list[int] = []
    first = Schedule(start_time=np.array([4, 0]))
    incumbent = Incumbent(instance, first, started=0.0, on_incumbent=lambda second, value: trace.append(value))
    assert not incumbent.optimal
    assert not incumbent.offer(Schedule(start_time=np.array([0, 3])))
    assert incumbent.offer(Schedule(start_time=np.array([0, 0])))
    assert trace == [7, 4]
    result = incumbent.result()
    assert (result.objective, result.lower_bound, result.status) == (4.0, 4.0, "optimal")


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    def fail() -> None:
        raise ConfigError("from a thread")

    with pytest.raises(ConfigError, match="from a thread"):
        run_together([lambda: None, fail])


def test_bad_options_are_errors() -> None:
    with pytest.raises(ConfigError, match="option threads: 0, expected at least 1"):
        LargeNeighbourhood(threads=0)
    with pytest.raises(ConfigError, match=r"option effort: 0\.0, expected above 0"):
        LargeNeighbourhood(effort=0.0)
