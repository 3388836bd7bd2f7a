from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.baselines.jobshop.shifting_bottleneck import ShiftingBottleneck
from schedrl.envs.jobshop.generators import taillard_like
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule, check
from schedrl.envs.jobshop.suites import load_instance
from schedrl.errors import ConfigError
from schedrl.schedulers import Result

OPERATION = st.tuples(st.integers(0, 3), st.one_of(st.just(0), st.integers(1, 12)))
JOBS = st.lists(st.lists(OPERATION, min_size=1, max_size=6), min_size=1, max_size=6)


def solve(instance: JobShopInstance, scheduler: ShiftingBottleneck | None = None, limit_s: float = 60.0) -> Result:
    chosen = ShiftingBottleneck() if scheduler is None else scheduler
    result = chosen.schedule(instance, time_limit_s=limit_s, rng=np.random.default_rng(0))
    assert isinstance(result.solution, Schedule)
    assert check(instance, result.solution) == []
    return result


# Optima 55, 666, 926, 1222; Adams, Balas and Zawack 1988 report 55, 666, 926 and 1222 for their first procedure too.
@pytest.mark.parametrize(("name", "optimum"), [("ft06", 55), ("la01", 666), ("la06", 926), ("la11", 1222)])
def test_reaches_optima(name: str, optimum: int) -> None:
    assert solve(load_instance(name)).objective == optimum


def test_as_good_as_published_on_ft10() -> None:
    # Adams, Balas and Zawack 1988: 1015 by their first procedure; the optimum is 930.
    objective = solve(load_instance("ft10")).objective
    assert objective is not None and 930 <= objective <= 1015


def test_reoptimisation_pays() -> None:
    names = ("la16", "la21", "la26")
    with_cycles = [solve(load_instance(name)).objective or 0.0 for name in names]
    listed = [solve(load_instance(name), limit_s=0.0).objective or 0.0 for name in names]
    assert sum(with_cycles) < 0.97 * sum(listed)


def test_past_the_limit_it_ends_soon() -> None:
    instance = taillard_like(np.random.default_rng(0), jobs=50, machines=15)
    result = solve(instance, limit_s=0.0)
    assert result.runtime_s < 3.0


@settings(max_examples=60)
@given(jobs=JOBS)
def test_every_schedule_is_feasible(jobs: list[list[tuple[int, int]]]) -> None:
    solve(JobShopInstance.from_jobs(jobs, name="random", machines=4))


def test_bad_options_are_errors() -> None:
    with pytest.raises(ConfigError, match="option nodes: 0, expected at least 1"):
        ShiftingBottleneck(nodes=0)
    with pytest.raises(ConfigError, match="option cycles: -1, expected at least 0"):
        ShiftingBottleneck(cycles=-1)
