from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from schedrl.baselines.jobshop.rolling_horizon import RollingCpSat
from schedrl.baselines.jobshop.rules import best_rule_schedule
from schedrl.baselines.jobshop.shop_exact import ShopCpSat
from schedrl.envs.jobshop.shop import Blocking, ShopInstance
from schedrl.envs.jobshop.shop_checker import check_shop
from schedrl.envs.jobshop.shop_schedule import ShopSchedule, objectives
from schedrl.envs.jobshop.solution import objectives as job_shop_objectives
from schedrl.envs.jobshop.suites import load_instance
from schedrl.errors import ConfigError
from schedrl.schedulers import Result


def run(
    shop: ShopInstance, scheduler: RollingCpSat | None = None, limit_s: float = 60.0
) -> tuple[Result, ShopSchedule]:
    result = (scheduler or RollingCpSat()).schedule(shop, time_limit_s=limit_s, rng=np.random.default_rng(0))
    assert isinstance(result.solution, ShopSchedule)
    assert check_shop(shop, result.solution) == []
    assert result.objective == pytest.approx(objectives(shop, result.solution)[shop.objective])
    return result, result.solution


def dynamic_shop(seed: int, blocking: Blocking = "none", **changes: Any) -> ShopInstance:
    """Return four jobs of three operations that arrive unannounced at three machines with three outages each."""
    rng = np.random.default_rng(seed)
    choices = np.ones(12, dtype=np.int64) if blocking != "none" else rng.integers(1, 3, size=12)
    modes = int(choices.sum())
    duration = rng.integers(0, 12, size=modes)
    bounds = np.cumsum(rng.integers(3, 12, size=(3, 6)), axis=1)
    given: dict[str, Any] = {
        "name": f"dynamic-{seed}",
        "machines": 3,
        "job_offset": np.arange(0, 13, 3),
        "mode_offset": np.append(0, np.cumsum(choices)),
        "machine": rng.integers(0, 3, size=modes),
        "duration": duration,
        "actual_duration": np.maximum(0, duration + rng.integers(-3, 6, size=modes)),
        "release": np.cumsum(rng.integers(0, 9, size=4)),
        "due": rng.integers(20, 60, size=4),
        "outage_offset": np.arange(0, 10, 3),
        "outage_start": bounds[:, ::2].ravel(),
        "outage_end": bounds[:, 1::2].ravel(),
        "blocking": blocking,
        "announced": False,
        "objective_weights": (1.0, 0.5, 0.0),
    }
    if blocking == "none":
        given |= {"setup_family": rng.integers(0, 2, size=12), "setup": rng.integers(0, 3, size=(3, 2, 2))}
    return ShopInstance(**given | changes)


def test_a_certain_shop_is_planned_once_and_to_the_optimum() -> None:
    scheduler = RollingCpSat(replan_limit_s=10.0)
    result, _ = run(ShopInstance.from_job_shop(load_instance("ft06")), scheduler)
    assert result.objective == 55  # Fisher and Thompson 1963
    assert scheduler.latency["replans"] == 1
    assert 0.0 < scheduler.latency["p50_s"] == scheduler.latency["p99_s"] < 10.0


@pytest.mark.parametrize("name", ["la16"])
def test_never_worse_than_a_rule_when_all_is_certain(name: str) -> None:
    instance = load_instance(name)
    result, _ = run(ShopInstance.from_job_shop(instance), RollingCpSat(replan_limit_s=1.0))
    rule = job_shop_objectives(instance, best_rule_schedule(instance))["makespan"]
    assert result.objective is not None and result.objective <= rule


@pytest.mark.parametrize("blocking", ["none", "swap", "no-swap"])
@pytest.mark.parametrize("seed", range(2))
def test_arrivals_outages_and_overruns(blocking: Blocking, seed: int) -> None:
    shop = dynamic_shop(seed, blocking)
    scheduler = RollingCpSat(replan_limit_s=0.1)
    result, _ = run(shop, scheduler)
    exact = ShopCpSat().schedule(shop, time_limit_s=10.0, rng=np.random.default_rng(0))
    assert exact.lower_bound is not None and result.objective is not None
    assert result.objective >= exact.lower_bound - 1e-6
    assert scheduler.latency["replans"] > 3


@pytest.mark.parametrize("blocking", ["none", "no-swap"])
@pytest.mark.parametrize("seed", range(2))
def test_the_future_has_no_influence(blocking: Blocking, seed: int) -> None:
    # Without setups every plan is proved optimal within the limit, so that nothing depends on the machine's speed.
    shop = dynamic_shop(seed, blocking, setup=np.zeros((3, 2, 2), dtype=np.int64))
    _, schedule = run(shop, RollingCpSat(replan_limit_s=5.0))
    moment = int(np.median(schedule.start_time))
    rng = np.random.default_rng(100 + seed)
    mode = shop.mode_offset[:-1] + schedule.mode
    # By this moment an operation that started has shown at most that it takes longer than it has run.
    hidden = np.ones(shop.modes, dtype=np.bool_)
    hidden[mode[schedule.start_time <= moment]] = False
    later = replace(
        shop,
        name="later",
        duration=shop.duration + 3 * (shop.release > moment)[shop.job[shop.mode_operation]],
        actual_duration=np.where(
            hidden, shop.actual_duration + rng.integers(1, 9, size=shop.modes), shop.actual_duration
        ),
        release=np.where(shop.release > moment, shop.release + 7, shop.release),
        outage_end=shop.outage_end + ((shop.outage_end > moment) & (np.arange(9) % 3 == 2)) * 5,
    )
    _, changed = run(later, RollingCpSat(replan_limit_s=5.0))
    before = (schedule.start_time <= moment) | (changed.start_time <= moment)
    assert before.sum() >= 6
    assert schedule.start_time[before].tolist() == changed.start_time[before].tolist()
    assert schedule.mode[before].tolist() == changed.mode[before].tolist()


def test_announced_jobs_are_known_beforehand() -> None:
    # The short job comes first only if the long one, released now, may wait for what is known to come.
    shop = ShopInstance(
        name="wait",
        machines=1,
        job_offset=np.array([0, 1, 2], dtype=np.int32),
        mode_offset=np.array([0, 1, 2], dtype=np.int32),
        machine=np.zeros(2, dtype=np.int32),
        duration=np.array([10, 1]),
        release=np.array([0, 1]),
        objective_weights=(0.0, 0.0, 1.0),
    )
    assert run(shop)[1].start_time.tolist() == [2, 1]
    assert run(replace(shop, announced=False))[1].start_time.tolist() == [0, 10]


def test_a_period_spaces_plans() -> None:
    shop = dynamic_shop(1)
    often, seldom = RollingCpSat(replan_limit_s=0.2), RollingCpSat(replan_limit_s=0.2, period=20)
    run(shop, often)
    _, schedule = run(shop, seldom)
    assert seldom.latency["replans"] < often.latency["replans"]
    assert seldom.latency["replans"] <= 1 + schedule.start_time.max() / 20


def test_without_time_rules_carry_the_run() -> None:
    scheduler = RollingCpSat(replan_limit_s=0.0)
    run(dynamic_shop(2), scheduler)
    assert scheduler.latency["p99_s"] < 1.0


@pytest.mark.parametrize("options", [{"replan_limit_s": -1.0}, {"period": -1}])
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        RollingCpSat(**options)
