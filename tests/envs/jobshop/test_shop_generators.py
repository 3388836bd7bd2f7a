"""Drawn shops have the structure, the loads and the shares that their options ask for, and follow their seed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.envs.jobshop.shop import NO_DUE_DATE, ShopInstance
from schedrl.envs.jobshop.shop_generators import (
    SHOP_GENERATORS,
    blocking_shop,
    dynamic,
    flexible,
    setups,
    single_machine,
    total_tardiness_shop,
)
from schedrl.errors import ConfigError

NAMES = sorted(SHOP_GENERATORS)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def size(name: str, jobs: int, machines: int) -> dict[str, int]:
    return {"jobs": jobs} if name == "single-machine" else {"jobs": jobs, "machines": machines}


def test_names() -> None:
    assert list(SHOP_GENERATORS) == ["flexible", "blocking", "dynamic", "setups", "single-machine"]


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_shop_and_successive_draws_differ(name: str) -> None:
    def draw(seed: int) -> list[ShopInstance]:
        source = rng(seed)
        return [SHOP_GENERATORS[name](source, **size(name, 6, 5)) for _ in range(3)]

    first, again, other = draw(1), draw(1), draw(2)
    assert first == again
    assert first[0] != first[1]
    assert first[0] != other[0]
    assert first[0].name == ("single-machine-6" if name == "single-machine" else f"{name}-6x5")


@pytest.mark.parametrize("name", NAMES)
@given(jobs=st.integers(1, 8), machines=st.integers(1, 8), seed=st.integers(0, 2**32))
def test_every_size_is_valid(name: str, jobs: int, machines: int, seed: int) -> None:
    shop = SHOP_GENERATORS[name](rng(seed), **size(name, jobs, machines), name="n")
    assert (shop.jobs, shop.name) == (jobs, "n")
    assert shop.machines == (1 if name == "single-machine" else machines)
    assert shop.duration.min() >= 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("flexible", {"jobs": 0}, "option jobs: 0, expected at least 1"),
        ("flexible", {"machines": 0}, "option machines: 0, expected at least 1"),
        ("flexible", {"most_alternatives": 4}, "option most_alternatives: 4, expected 1 to 3"),
        ("flexible", {"mean_alternatives": 3.5}, "option mean_alternatives: 3.5, expected 1 to 3"),
        ("flexible", {"speeds": "fast"}, "option speeds: 'fast', expected one of similar, unrelated, equal"),
        ("flexible", {"low": 5, "high": 4}, "options low and high: 5 and 4, expected 0 <= low <= high"),
        ("flexible", {"least_operations": 0}, "options least_operations and most_operations: 0 and 4, expected 1 <="),
        ("blocking", {"jobs": 0}, "option jobs: 0, expected at least 1"),
        ("blocking", {"blocking": "yes"}, "option blocking: 'yes', expected one of none, swap, no-swap"),
        ("blocking", {"shutdown_probability": 1.5}, "option shutdown_probability: 1.5, expected 0 to 1"),
        (
            "blocking",
            {"shortest_downtime": 100},
            "options shortest_downtime and longest_downtime: 100 and 99, expected",
        ),
        ("dynamic", {"objective": "cost"}, "option objective: 'cost', expected one of makespan, tardiness, flow-time"),
        ("dynamic", {"utilisation": 0.0}, "option utilisation: 0.0, expected 0.01 to 10"),
        ("dynamic", {"variation": -1.0}, "option variation: -1.0, expected 0 to 100"),
        ("dynamic", {"tightness": -1.0}, "option tightness: -1.0, expected 0 to 1000"),
        ("dynamic", {"availability": 0.0}, "option availability: 0.0, expected 0.01 to 1"),
        ("dynamic", {"mean_repair": float("nan")}, "option mean_repair: nan, expected 1 to 1e+09"),
        ("dynamic", {"failure_shape": 0.1}, "option failure_shape: 0.1, expected 0.2 to 100"),
        ("dynamic", {"noise": -0.1}, "option noise: -0.1, expected 0 to 10"),
        ("dynamic", {"noise": 0.6, "noise_distribution": "uniform"}, "option noise: 0.6, expected 0 to 0.577"),
        ("dynamic", {"noise_distribution": "x"}, "option noise_distribution: 'x', expected one of log-normal, uniform"),
        ("setups", {"families": 0}, "option families: 0, expected at least 1"),
        ("setups", {"longest_setup": 9}, "options shortest_setup and longest_setup: 10 and 9, expected 0 <="),
        ("single-machine", {}, "option machines: 3, expected 1 to 1"),
        ("single-machine", {"machines": 1, "tardiness_factor": 1.5}, "option tardiness_factor: 1.5, expected 0 to 1"),
        ("single-machine", {"machines": 1, "relative_range": -1.0}, "option relative_range: -1.0, expected 0 or more"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        SHOP_GENERATORS[name](rng(), **{"jobs": 4, "machines": 3, **options})
    assert str(error.value).startswith(message)


def test_flexible_defaults_are_sd1() -> None:
    shop = flexible(rng(), jobs=2000, machines=10)
    lengths, alternatives = np.diff(shop.job_offset), np.diff(shop.mode_offset)
    assert np.unique(lengths).tolist() == [8, 9, 10, 11, 12]
    assert np.unique(alternatives).tolist() == list(range(1, 11))
    assert alternatives.mean() == pytest.approx(5.5, rel=0.01)
    slowest = np.maximum.reduceat(shop.duration, shop.mode_offset[:-1])
    # Times of 0.8 to 1.2 times one mean, each rounded.
    assert (slowest <= 1.5 * shop.least_duration + 1).all()
    assert (shop.duration.min(), shop.duration.max()) == (1, 24)
    assert (np.diff(shop.machine)[np.diff(shop.mode_operation) == 0] > 0).all()


def test_flexible_unrelated_times_are_independent() -> None:
    shop = flexible(rng(), jobs=500, machines=10, most_alternatives=2, speeds="unrelated", high=99)
    pairs = shop.mode_offset[:-1][np.diff(shop.mode_offset) == 2]
    assert abs(np.corrcoef(shop.duration[pairs], shop.duration[pairs + 1])[0, 1]) < 0.05
    assert (shop.duration.min(), shop.duration.max()) == (1, 99)


@pytest.mark.parametrize("mean", [1.0, 1.15, 2.0, 5.0, 10.0])
def test_one_number_draws_hurinks_sets(mean: float) -> None:
    shop = flexible(
        rng(), jobs=1000, machines=10, least_operations=10, most_operations=10, mean_alternatives=mean, speeds="equal"
    )
    assert shop.modes / shop.operations == pytest.approx(mean, rel=0.01)
    assert (np.maximum.reduceat(shop.duration, shop.mode_offset[:-1]) == shop.least_duration).all()
    assert np.bincount(shop.machine, minlength=10).min() > 0.9 * shop.modes / 10


def test_flexible_without_choice_visits_every_machine_once() -> None:
    shop = flexible(rng(), jobs=50, machines=6, least_operations=6, most_operations=6, most_alternatives=1)
    assert not shop.flexible
    assert (np.sort(shop.machine.reshape(50, 6), axis=1) == np.arange(6)).all()


@pytest.mark.parametrize("blocking", ["swap", "no-swap", "none"])
def test_interruptions_are_nested_and_all_else_is_common(blocking: Any) -> None:
    shops = [
        blocking_shop(rng(7), jobs=100, machines=20, blocking=blocking, shutdown_probability=probability)
        for probability in (0.0, 0.05, 0.1, 0.2, 1.0)
    ]
    extra = [shop.actual_duration - shop.duration for shop in shops]
    assert all(shop.blocking == blocking for shop in shops)
    for shop in shops[1:]:
        assert np.array_equal(shop.machine, shops[0].machine)
        assert np.array_equal(shop.duration, shops[0].duration)
    for fewer, more in pairwise(extra):
        assert (more[fewer > 0] == fewer[fewer > 0]).all()
    # Binomial of 2000: standard deviations 0.5 to 0.9 %.
    assert [(values > 0).mean() for values in extra] == pytest.approx([0.0, 0.05, 0.1, 0.2, 1.0], abs=0.025)
    assert (extra[-1].min(), extra[-1].max()) == (1, 99)
    assert shops[0].certain and not shops[1].certain


def test_downtime_range() -> None:
    shop = blocking_shop(rng(), jobs=50, machines=10, shutdown_probability=1.0, shortest_downtime=5, longest_downtime=7)
    assert np.unique(shop.actual_duration - shop.duration).tolist() == [5, 6, 7]


@pytest.mark.parametrize("families", [1, 3])
def test_setups_are_within_range_and_no_detour_is_shorter(families: int) -> None:
    shop = setups(rng(), jobs=60, machines=4, families=families, shortest_setup=1, longest_setup=90)
    assert shop.setup.shape == (4, families, families)
    assert (np.diagonal(shop.setup, axis1=1, axis2=2) == 0).all()
    detour = (shop.setup[:, :, :, None] + shop.setup[:, None, :, :]).min(axis=2)
    assert (shop.setup <= detour).all()
    off = shop.setup[:, ~np.eye(families, dtype=bool)]
    assert ((off >= 1) & (off <= 90)).all()
    family = shop.setup_family.reshape(60, 4)
    assert (family == family[:, :1]).all()
    assert np.unique(family).tolist() == list(range(families))


def test_dynamic_is_unannounced_and_has_the_asked_objective() -> None:
    for objective, name in (
        ("makespan", "makespan"),
        ("tardiness", "total_weighted_tardiness"),
        ("flow-time", "total_weighted_flow_time"),
    ):
        shop = dynamic(rng(), jobs=5, machines=3, objective=objective)
        assert (shop.objective, shop.announced, shop.certain) == (name, False, False)
        assert (shop.due < NO_DUE_DATE).all()


def test_dynamic_draws_flexible_shops_of_any_length() -> None:
    shop = dynamic(
        rng(), jobs=200, machines=5, least_operations=2, most_operations=9, most_alternatives=3, speeds="unrelated"
    )
    assert shop.flexible
    assert np.unique(np.diff(shop.job_offset)).tolist() == list(range(2, 10))
    assert np.diff(shop.mode_offset).max() == 3


def test_options_leave_other_draws_alone() -> None:
    plain = dynamic(rng(3), jobs=50, machines=5)
    faulty = dynamic(rng(3), jobs=50, machines=5, availability=0.9, noise=0.3)
    busy = dynamic(rng(3), jobs=50, machines=5, utilisation=0.4)
    for field in ("machine", "duration", "weight"):
        assert np.array_equal(getattr(plain, field), getattr(faulty, field))
        assert np.array_equal(getattr(plain, field), getattr(busy, field))
    assert np.array_equal(plain.outage_start, busy.outage_start)
    assert np.abs(busy.release - 2 * plain.release).max() <= 1
    assert np.abs(faulty.release * 0.9 - plain.release).max() <= 1


def test_single_machine_due_dates_lie_around_their_share_of_the_work() -> None:
    for factor in (0.2, 0.4):
        shop = single_machine(rng(1), jobs=3000, tardiness_factor=factor, relative_range=0.6)
        work = int(shop.duration.sum())
        low, high = work * (1 - factor - 0.3), work * (1 - factor + 0.3)
        assert low <= shop.due.min() < low + 0.01 * work
        assert high - 0.01 * work < shop.due.max() <= high
        assert shop.due.mean() == pytest.approx((1 - factor) * work, rel=0.03)
        assert (shop.duration.min(), shop.duration.max()) == (1, 100)
        assert shop.objective == "total_weighted_tardiness"


def test_single_machine_raises_negative_due_dates_to_0() -> None:
    shop = single_machine(rng(1), jobs=500, tardiness_factor=0.8, relative_range=1.0)
    assert (shop.due == 0).mean() == pytest.approx(0.3, abs=0.07)


def test_single_machine_draws_its_class() -> None:
    source = rng(5)
    widths = set()
    for _ in range(60):
        shop = single_machine(source, jobs=2000, machines=1)
        widths.add(round(float(shop.due.max() - shop.due.min()) / float(shop.duration.sum()), 1))
    # Ranges of due dates that reach below 0 are cut to 0.5, 0.6, 0.7 or 0.9 of the work.
    assert {0.2, 0.4, 0.6, 0.8, 1.0} <= widths <= {0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0}


def test_total_tardiness_shop() -> None:
    shop = total_tardiness_shop(np.array([3, 4]), np.array([-5, 6]), name="t")
    assert (shop.due.tolist(), shop.machine.tolist(), shop.objective_weights) == ([0, 6], [0, 0], (0.0, 1.0, 0.0))
