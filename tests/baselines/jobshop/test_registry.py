from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schedrl.baselines.jobshop import SCHEDULERS
from schedrl.baselines.jobshop.genetic import Genetic
from schedrl.baselines.jobshop.large_neighbourhood import LargeNeighbourhood
from schedrl.baselines.jobshop.tabu import TabuSearch
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule, check, objectives
from schedrl.envs.jobshop.suites import load_instance
from schedrl.schedulers import Scheduler, SchedulerSpec, get_scheduler

OPERATION = st.tuples(st.integers(0, 3), st.one_of(st.just(0), st.integers(1, 12)))
JOBS = st.lists(st.lists(OPERATION, min_size=1, max_size=6), min_size=1, max_size=6)
# The hybrid plays the policy first.
LEARNED = ("jobshop/ppo", "jobshop/ppo-both", "jobshop/ppo-sample", "jobshop/hybrid")
CLASSICAL = [spec for spec in SCHEDULERS if spec.problem == "job shop" and spec.name not in LEARNED]
# Those that search until the time is up, ended by counts.
COUNTED: dict[str, Scheduler] = {
    "jobshop/tabu": TabuSearch(max_iterations=500),
    "jobshop/genetic": Genetic(max_generations=3),
    "jobshop/lns": LargeNeighbourhood(max_iterations=2),
}  # type: ignore[dict-item]
CORNERS = {
    "one operation": [[(0, 5)]],
    "one operation of no time": [[(0, 0)]],
    "no time at all": [[(0, 0), (1, 0)], [(1, 0), (0, 0)]],
    "one job": [[(0, 3), (1, 0), (0, 4), (0, 2)]],
    "one machine": [[(0, 3), (0, 4)], [(0, 0)], [(0, 5)]],
    "unequal lengths": [[(0, 3)], [(1, 2), (0, 2), (2, 7), (1, 1), (2, 3)], [(2, 4), (2, 4)]],
}


# Fewer than elsewhere by default: every example is scheduled by some forty schedulers.
EXAMPLES = int(os.environ.get("SCHEDRL_EXAMPLES", "15"))


def test_names_are_unique_and_the_promised_ones_exist() -> None:
    names = [spec.name for spec in SCHEDULERS]
    assert len(names) == len(set(names))
    rules = ("spt", "lpt", "mwkr", "lwkr", "mopnr", "lopnr", "fifo", "fdd-mwkr", "spt-twkr")
    promised = [f"jobshop/{rule}{suffix}" for rule in rules for suffix in ("", "-reversed", "-both")]
    promised += [
        f"jobshop/{name}" for name in ("spt-twkr-random-128", "random", "pilot", "tabu", "cp-sat", "cp-sat-warm")
    ]
    promised += [f"jobshop/{name}" for name in ("shifting-bottleneck", "genetic", "lns", "hybrid")]
    promised += [f"jobshop/shop-{name}" for name in ("mdd", "atc", "covert", "cp-sat", "cp-sat-rolling")]
    assert set(promised) <= set(names)
    assert get_scheduler("jobshop/spt-twkr").information == "online"
    assert get_scheduler("jobshop/spt-twkr-both").information == "clairvoyant"


@pytest.mark.parametrize("spec", CLASSICAL, ids=lambda spec: spec.name)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(jobs=JOBS, seed=st.integers(0, 2**32 - 1))
def test_every_schedule_passes_the_checker(spec: SchedulerSpec, jobs: list[list[tuple[int, int]]], seed: int) -> None:
    instance = JobShopInstance.from_jobs(jobs, name="random", machines=4)
    scheduler = COUNTED.get(spec.name) or spec.make()
    result = scheduler.schedule(instance, time_limit_s=5.0, rng=np.random.default_rng(seed))
    assert isinstance(result.solution, Schedule)
    assert check(instance, result.solution) == []
    assert result.objective == objectives(instance, result.solution)["makespan"]
    assert result.lower_bound is not None and result.lower_bound <= result.objective
    assert (result.status == "optimal") == (result.lower_bound == result.objective)


@pytest.mark.parametrize("spec", CLASSICAL, ids=lambda spec: spec.name)
@pytest.mark.parametrize("jobs", CORNERS.values(), ids=CORNERS.keys())
def test_corner_instances(spec: SchedulerSpec, jobs: list[list[tuple[int, int]]]) -> None:
    instance = JobShopInstance.from_jobs(jobs, name="corner")
    result = spec.make().schedule(instance, time_limit_s=0.2, rng=np.random.default_rng(0))
    assert isinstance(result.solution, Schedule)
    assert check(instance, result.solution) == []


@pytest.mark.parametrize("spec", CLASSICAL, ids=lambda spec: spec.name)
def test_same_seed_same_schedule(spec: SchedulerSpec) -> None:
    instance = load_instance("ft06")
    scheduler = COUNTED.get(spec.name) or spec.make()
    one, again = (
        scheduler.schedule(instance, time_limit_s=20.0, rng=np.random.default_rng(3)).solution for _ in range(2)
    )
    assert one == again


def test_importing_the_schedulers_is_light() -> None:
    code = (
        "import sys, schedrl.baselines.jobshop; print([m for m in ('torch', 'ortools', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
