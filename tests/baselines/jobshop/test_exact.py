from __future__ import annotations

import time

import numpy as np
import pytest

from schedrl.baselines.jobshop.exact import CpSat
from schedrl.baselines.jobshop.rules import best_rule_schedule
from schedrl.envs.jobshop.generators import recirculating, taillard_like
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule, check, objectives
from schedrl.envs.jobshop.suites import load_instance
from schedrl.schedulers import Result


def solve(instance: JobShopInstance, scheduler: CpSat | None = None, limit_s: float = 60.0) -> Result:
    solver = CpSat() if scheduler is None else scheduler
    result = solver.schedule(instance, time_limit_s=limit_s, rng=np.random.default_rng(0))
    assert isinstance(result.solution, Schedule)
    assert check(instance, result.solution) == []
    return result


def brute_force(instance: JobShopInstance) -> int:
    """Return the least makespan over all orders of appending operations: all semi-active schedules."""
    duration, machine = instance.duration.tolist(), instance.machine.tolist()
    ends = instance.job_offset[1:].tolist()

    def extend(step: list[int], job_ready: list[int], machine_free: list[int], best: int) -> int:
        if max(job_ready) >= best:
            return best
        open_jobs = [j for j in range(instance.jobs) if step[j] < ends[j]]
        if not open_jobs:
            return max(job_ready)
        for j in open_jobs:
            operation = step[j]
            saved = job_ready[j], machine_free[machine[operation]]
            step[j] += 1
            job_ready[j] = machine_free[machine[operation]] = max(saved) + duration[operation]
            best = extend(step, job_ready, machine_free, best)
            step[j] = operation
            job_ready[j], machine_free[machine[operation]] = saved
        return best

    # Pruning keeps only strictly better schedules, so the start value lies above every makespan.
    return extend(instance.job_offset[:-1].tolist(), [0] * instance.jobs, [0] * instance.machines, sum(duration) + 1)


@pytest.mark.parametrize("seed", range(25))
def test_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = taillard_like(rng, jobs=3, machines=3)
    result = solve(instance, CpSat(warm=seed % 2 == 1))
    assert (result.objective, result.status) == (brute_force(instance), "optimal")


@pytest.mark.parametrize("seed", range(25))
def test_equals_brute_force_with_zero_durations_and_machines_visited_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    jobs = [
        [(int(rng.integers(3)), int(rng.integers(1, 9)) * int(rng.integers(3) > 0)) for _ in range(rng.integers(1, 5))]
        for _ in range(3)
    ]
    instance = JobShopInstance.from_jobs(jobs, name="random", machines=3)
    result = solve(instance)
    assert (result.objective, result.status) == (brute_force(instance), "optimal")


# Fisher and Thompson 1963, Lawrence 1984, Applegate and Cook 1991.
@pytest.mark.parametrize(
    ("name", "optimum"),
    [
        ("ft06", 55),
        ("la01", 666),
        ("la02", 655),
        ("la03", 597),
        ("la04", 590),
        ("la05", 593),
        ("la06", 926),
        ("la16", 945),
    ],
)
def test_proves_optima(name: str, optimum: int) -> None:
    result = solve(load_instance(name))
    assert (result.objective, result.lower_bound, result.status) == (optimum, optimum, "optimal")


@pytest.mark.parametrize("warm", [False, True])
def test_keeps_the_limit_and_is_never_worse_than_the_best_rule(warm: bool) -> None:
    instance = load_instance("ta41")
    started = time.perf_counter()
    result = solve(instance, CpSat(warm=warm), limit_s=1.5)
    assert time.perf_counter() - started < 3.0
    rule = objectives(instance, best_rule_schedule(instance))["makespan"]
    assert result.objective is not None and result.objective <= rule
    assert result.status == "feasible"
    assert result.lower_bound is not None and 1830 <= result.lower_bound <= 1926  # load bound, best known bound


def test_without_time_the_rule_is_the_result() -> None:
    instance = load_instance("ta21")
    result = solve(instance, limit_s=0.0)
    rule = objectives(instance, best_rule_schedule(instance, deadline=0.0))["makespan"]
    assert (result.objective, result.status) == (rule, "feasible")


def test_a_hint_is_a_floor() -> None:
    instance = load_instance("ft10")
    hint = CpSat(warm=True).schedule(instance, time_limit_s=1.0, rng=np.random.default_rng(1)).solution
    assert isinstance(hint, Schedule)
    result = solve(instance, CpSat(hint=hint), limit_s=0.2)
    assert result.objective is not None and result.objective <= objectives(instance, hint)["makespan"]


def test_recirculating_jobs_are_solved() -> None:
    instance = recirculating(np.random.default_rng(0), jobs=4, machines=3)
    result = solve(instance)
    assert result.status == "optimal"


def test_times_near_the_limit_of_the_instance() -> None:
    instance = JobShopInstance.from_jobs([[(0, 2**50), (1, 2**50)], [(1, 2**50)]], name="long")
    result = solve(instance)
    assert result.objective == 2**51
