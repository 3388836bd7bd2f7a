from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.baselines.jobshop import genetic
from schedrl.baselines.jobshop.genetic import Genetic
from schedrl.baselines.jobshop.incumbent import Incumbent
from schedrl.baselines.jobshop.rules import best_rule_schedule
from schedrl.envs.jobshop.generators import taillard_like
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule, check, objectives
from schedrl.envs.jobshop.suites import load_instance
from schedrl.errors import ConfigError
from schedrl.schedulers import Result

OPERATION = st.tuples(st.integers(0, 3), st.one_of(st.just(0), st.integers(1, 12)))
JOBS = st.lists(st.lists(OPERATION, min_size=1, max_size=6), min_size=1, max_size=6)


def solve(instance: JobShopInstance, scheduler: Genetic, *, seed: int = 0, limit_s: float = 60.0) -> Result:
    result = scheduler.schedule(instance, time_limit_s=limit_s, rng=np.random.default_rng(seed))
    assert isinstance(result.solution, Schedule)
    assert check(instance, result.solution) == []
    return result


@pytest.mark.parametrize(("name", "optimum"), [("ft06", 55), ("la01", 666), ("la06", 926)])
def test_reaches_optima(name: str, optimum: int) -> None:
    assert solve(load_instance(name), Genetic(max_generations=150, delay=0.5)).objective == optimum


def test_evolution_improves_on_the_rules_and_on_random_search() -> None:
    instance = taillard_like(np.random.default_rng(3), jobs=12, machines=10)
    rule = objectives(instance, best_rule_schedule(instance))["makespan"]
    evolved = solve(instance, Genetic(max_generations=50)).objective
    copied = solve(instance, Genetic(max_generations=50, crossover=0.0, mutation=0.0)).objective
    assert evolved is not None and copied is not None
    assert evolved < 0.96 * rule
    assert evolved < copied


def test_same_seed_same_schedule_and_the_trace_falls() -> None:
    instance = load_instance("ta01")
    trace: list[int] = []
    scheduler = Genetic(max_generations=15, on_incumbent=lambda second, makespan: trace.append(makespan))
    one, again = solve(instance, scheduler, seed=4), solve(instance, scheduler, seed=4)
    assert one.solution == again.solution
    assert one.solution != solve(instance, Genetic(max_generations=15), seed=5).solution
    half = len(trace) // 2
    assert trace[:half] == trace[half:] == sorted(set(trace), reverse=True)
    assert trace[-1] == one.objective


@given(jobs=JOBS, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_schedules_are_feasible_and_children_permutations(jobs: list[list[tuple[int, int]]], seed: int) -> None:
    instance = JobShopInstance.from_jobs(jobs, name="random", machines=4)
    options = Genetic(population=8, max_generations=5, crossover=1.0, mutation=0.5)
    solve(instance, options, seed=seed)
    incumbent = Incumbent(instance, best_rule_schedule(instance), started=0.0)
    run = genetic._Run(options, instance, incumbent, float("inf"), np.random.default_rng(seed))
    run._seed()
    run._population.parent[:] = run._population.child
    run._breed(0)
    for child in run._population.child.tolist():
        assert sorted(child) == list(range(instance.operations))
        place = {operation: index for index, operation in enumerate(child)}
        for operation in range(1, instance.operations):
            if instance.job[operation] == instance.job[operation - 1]:
                assert place[operation - 1] < place[operation]


def test_crossover_keeps_the_substring_of_the_donor_where_the_receiver_has_it() -> None:
    instance = JobShopInstance.from_jobs([[(0, 1), (1, 1)], [(1, 1), (0, 1)], [(0, 1), (1, 1)]], name="three")
    incumbent = Incumbent(instance, best_rule_schedule(instance), started=0.0)
    run = genetic._Run(Genetic(population=2), instance, incumbent, 0.0, np.random.default_rng(0))
    population = run._population
    population.parent[0], population.parent[1] = [0, 1, 2, 3, 4, 5], [4, 2, 0, 5, 3, 1]
    # Jobs of the receiver 0 0 1 1 2 2, of the donor 2 1 0 2 1 0; the substring 1 0 2 holds operations 2, 0 and 5.
    genetic._cross(population, 0, 0, 1, 1, 3)
    assert instance.job[population.child[0]].tolist() == [0, 1, 0, 2, 1, 2]
    # Wrapped from the last place: 0 stays at the end, 2 1 at the beginning; operations 1, 4 and 2 leave the receiver.
    genetic._cross(population, 0, 0, 1, 5, 3)
    assert instance.job[population.child[0]].tolist() == [2, 1, 0, 1, 2, 0]
    assert Counter(population.child[0].tolist()) == Counter(range(6))


def test_bad_options_are_errors() -> None:
    with pytest.raises(ConfigError, match="option population: 1, expected at least 2"):
        Genetic(population=1)
    with pytest.raises(ConfigError, match=r"option delay: 1\.5, expected 0 to 1"):
        Genetic(delay=1.5)
