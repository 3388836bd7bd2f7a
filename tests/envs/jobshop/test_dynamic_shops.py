"""Arrivals, due dates, breakdowns and noise have the means and variations that they are drawn for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.envs.jobshop.dynamic_shops import expected_work, outages
from schedrl.envs.jobshop.shop import ShopInstance
from schedrl.envs.jobshop.shop_generators import dynamic, flexible
from schedrl.errors import ConfigError


def draw(seed: int = 0, jobs: int = 4000, machines: int = 5, **options: object) -> ShopInstance:
    return dynamic(np.random.default_rng(seed), jobs=jobs, machines=machines, **options)  # type: ignore[arg-type]


def test_expected_work_counts_the_mean_of_the_modes() -> None:
    shop = flexible(np.random.default_rng(0), jobs=3, machines=4)
    work = [
        sum(
            np.mean(shop.duration[shop.mode_offset[o] : shop.mode_offset[o + 1]])
            for o in range(shop.job_offset[j], shop.job_offset[j + 1])
        )
        for j in range(3)
    ]
    assert expected_work(shop) == pytest.approx(work)


@pytest.mark.parametrize("utilisation", [0.7, 0.95])
@pytest.mark.parametrize("variation", [0.0, 0.5, 1.0, 2.0])
def test_utilisation_and_variation_of_arrivals(utilisation: float, variation: float) -> None:
    shop = draw(jobs=20_000, machines=2, utilisation=utilisation, variation=variation)
    gaps = np.diff(shop.release)
    busy = shop.duration.sum() / (shop.machines * shop.release[-1])
    # The mean of the gaps has a relative standard deviation of variation / sqrt(20000), 1.4 % at most.
    assert busy == pytest.approx(utilisation, rel=0.04)
    assert gaps.std() / gaps.mean() == pytest.approx(variation, abs=0.05)
    assert shop.release[0] == 0


def test_utilisation_counts_the_time_that_machines_are_up() -> None:
    shop = draw(jobs=10_000, utilisation=0.9, availability=0.8)
    assert shop.duration.sum() / (shop.machines * shop.release[-1]) == pytest.approx(0.72, rel=0.03)


def test_poisson_arrivals_are_exponential() -> None:
    gaps = np.diff(draw(jobs=20_000, machines=2).release)
    assert (gaps > gaps.mean()).mean() == pytest.approx(np.exp(-1), abs=0.015)


def test_due_dates_are_total_work_and_weights_have_their_shares() -> None:
    shop = draw(tightness=3.0)
    assert np.array_equal(shop.due - shop.release, np.rint(3.0 * expected_work(shop)))
    shares = [(shop.weight == weight).mean() for weight in (1, 2, 4)]
    assert shares == pytest.approx([0.2, 0.6, 0.2], abs=0.025)


@pytest.mark.parametrize("availability", [0.8, 0.95])
@pytest.mark.parametrize("shape", [0.8, 1.0, 2.0])
def test_availability_and_repair_times(availability: float, shape: float) -> None:
    until = 20_000_000
    offset, start, end = outages(
        np.random.default_rng(0),
        machines=3,
        until=until,
        availability=availability,
        mean_repair=250.0,
        failure_shape=shape,
    )
    assert len(offset) == 4 and offset[-1] == len(start) == len(end)
    down = (end - start).sum() / (3 * until)
    assert down == pytest.approx(1 - availability, rel=0.05)
    assert (end - start).mean() == pytest.approx(250, rel=0.05)
    for m in range(3):
        rows = slice(offset[m], offset[m + 1])
        assert (start[rows][1:] >= end[rows][:-1]).all()
        # Breakdowns go on to the end: no gap of several times the mean before it.
        assert until - 20 * 250 / (1 - availability) < start[rows][-1] <= until
        up = start[rows][1:] - end[rows][:-1]
        expected = {0.8: 1.26, 1.0: 1.0, 2.0: 0.523}[shape]  # of a Weibull distribution of that shape
        assert up.std() / up.mean() == pytest.approx(expected, rel=0.1)


def test_full_availability_has_no_outages_and_nonsense_is_refused() -> None:
    options = {"machines": 2, "until": 1000, "mean_repair": 10.0, "failure_shape": 1.0}
    offset, start, end = outages(np.random.default_rng(0), availability=1.0, **options)  # type: ignore[arg-type]
    assert (offset.tolist(), start.tolist(), end.tolist()) == ([0, 0, 0], [], [])
    with pytest.raises(ConfigError, match=r"option availability: nan, expected 0\.01 to 1"):
        outages(np.random.default_rng(0), availability=float("nan"), **options)  # type: ignore[arg-type]


def test_outages_cover_what_a_schedule_can_need() -> None:
    shop = draw(jobs=50, availability=0.9)
    last = [shop.outage_end[shop.outage_offset[m + 1] - 1] for m in range(shop.machines)]
    assert min(last) > shop.release[-1] + shop.actual_duration.sum()


@pytest.mark.parametrize(("distribution", "noise"), [("log-normal", 0.2), ("log-normal", 0.5), ("uniform", 0.3)])
def test_noise_has_mean_1_and_its_variation(distribution: str, noise: float) -> None:
    shop = draw(noise=noise, noise_distribution=distribution, low=1000, high=1000)
    factor = shop.actual_duration / shop.duration
    assert factor.mean() == pytest.approx(1.0, abs=0.02)
    assert factor.std() == pytest.approx(noise, rel=0.05)
    if distribution == "uniform":
        assert np.abs(factor - 1).max() <= noise * np.sqrt(3) + 0.001


def test_an_operation_is_as_lucky_in_all_its_modes() -> None:
    shop = draw(jobs=50, noise=0.5, most_alternatives=3, low=10_000, high=20_000)
    factor = shop.actual_duration / shop.duration
    spread = np.maximum.reduceat(factor, shop.mode_offset[:-1]) - np.minimum.reduceat(factor, shop.mode_offset[:-1])
    assert spread.max() < 0.001
    assert factor.std() > 0.3


@given(
    seed=st.integers(0, 2**32),
    jobs=st.integers(1, 6),
    utilisation=st.floats(0.05, 2),
    variation=st.floats(0, 3),
    availability=st.floats(0.2, 1),
    mean_repair=st.floats(1, 500),
    shape=st.floats(0.3, 5),
    noise=st.floats(0, 2),
)
def test_any_options_make_a_valid_shop(
    seed: int,
    jobs: int,
    utilisation: float,
    variation: float,
    availability: float,
    mean_repair: float,
    shape: float,
    noise: float,
) -> None:
    shop = draw(
        seed,
        jobs=jobs,
        machines=3,
        utilisation=utilisation,
        variation=variation,
        availability=availability,
        mean_repair=mean_repair,
        failure_shape=shape,
        noise=noise,
        low=0,
        high=5,
    )
    assert ((shop.actual_duration > 0) == (shop.duration > 0)).all()
    assert ShopInstance.from_json(shop.to_json()) == shop
