"""Taillard's generator is bit-exact; the random ones have the structure they promise and follow their seed."""

from __future__ import annotations

import csv
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.envs.jobshop.formats import read_instance
from schedrl.envs.jobshop.generators import (
    GENERATORS,
    TAILLARD_SEEDS,
    flow_shop,
    recirculating,
    taillard,
    two_sets,
    uniform,
)
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.errors import ConfigError

SEEDED = sorted(GENERATORS)


def regenerate(name: str) -> JobShopInstance:
    return taillard(**TAILLARD_SEEDS[name]._asdict(), name=name)


def test_first_rows_of_ta01_as_published() -> None:
    ta01 = regenerate("ta01")
    assert ta01.machine[:15].tolist() == [6, 12, 4, 7, 3, 2, 10, 11, 8, 14, 9, 13, 5, 0, 1]
    assert ta01.duration[:15].tolist() == [94, 66, 10, 53, 26, 15, 65, 82, 10, 27, 93, 92, 96, 70, 83]


def test_all_eighty_hash_to_the_published_numbers() -> None:
    # Digest taken over the 80 benchmark files, machines as int32 then durations as int64, little-endian.
    digest = hashlib.sha256()
    for name in TAILLARD_SEEDS:
        instance = regenerate(name)
        digest.update(instance.machine.astype("<i4").tobytes() + instance.duration.astype("<i8").tobytes())
    assert digest.hexdigest() == "49cea70d8bcb4d17262b711302740073f12e47d6db6d731b4cb7229267a2a630"


def test_sizes_of_the_eight_groups() -> None:
    sizes = [(seed.jobs, seed.machines) for seed in TAILLARD_SEEDS.values()]
    groups = [(15, 15), (20, 15), (20, 20), (30, 15), (30, 20), (50, 15), (50, 20), (100, 20)]
    assert sizes == [size for size in groups for _ in range(10)]
    assert list(TAILLARD_SEEDS) == [f"ta{number:02d}" for number in range(1, 81)]


@pytest.mark.skipif(
    "SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no benchmark files to compare with"
)
def test_all_eighty_equal_the_files() -> None:
    folder = Path(os.environ["SCHEDRL_DATA"]) / "jobshop" / "jsp"
    with (folder / "taillard_seeds.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            name = row.pop("instance")
            assert TAILLARD_SEEDS[name]._asdict() == {key: int(value) for key, value in row.items()}
            assert regenerate(name) == read_instance(folder / "ta" / f"{name}.txt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jobs": 0}, "option jobs: 0, expected at least 1"),
        ({"machines": -1}, "option machines: -1, expected at least 1"),
        ({"time_seed": 0}, "option time_seed: 0, expected 1 to 2147483646"),
        ({"machine_seed": 2**31 - 1}, "option machine_seed: 2147483647, expected 1 to 2147483646"),
    ],
)
def test_taillard_refuses_bad_options(change: dict[str, int], message: str) -> None:
    options = {"jobs": 2, "machines": 2, "time_seed": 1, "machine_seed": 1, **change}
    with pytest.raises(ConfigError, match=message):
        taillard(**options, name="x")


@pytest.mark.parametrize("name", SEEDED)
def test_same_seed_same_instance_and_successive_draws_differ(name: str) -> None:
    def draw(seed: int) -> list[JobShopInstance]:
        rng = np.random.default_rng(seed)
        return [GENERATORS[name](rng, jobs=6, machines=5) for _ in range(3)]

    first, again, other = draw(1), draw(1), draw(2)
    assert first == again
    assert first[0] != first[1]
    assert first[0] != other[0]
    assert first[0].name == f"{name}-6x5"


@pytest.mark.parametrize("name", SEEDED)
@given(jobs=st.integers(1, 8), machines=st.integers(1, 8), seed=st.integers(0, 2**32))
def test_every_size_is_valid(name: str, jobs: int, machines: int, seed: int) -> None:
    instance = GENERATORS[name](np.random.default_rng(seed), jobs=jobs, machines=machines, name="n")
    assert (instance.jobs, instance.machines, instance.name) == (jobs, machines, "n")
    assert instance.duration.min() >= 1


@pytest.mark.parametrize("name", SEEDED)
def test_bad_size_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="option jobs: 0, expected at least 1"):
        GENERATORS[name](np.random.default_rng(0), jobs=0, machines=3)


@pytest.mark.parametrize("name", sorted(set(SEEDED) - {"taillard"}))
def test_duration_range_is_used_whole_and_validated(name: str) -> None:
    rng = np.random.default_rng(0)
    instance = GENERATORS[name](rng, jobs=50, machines=20, low=0, high=3)
    assert np.unique(instance.duration).tolist() == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="options low and high: 4 and 3, expected 0 <= low <= high"):
        GENERATORS[name](rng, jobs=2, machines=2, low=4, high=3)


def test_default_durations() -> None:
    rng = np.random.default_rng(0)
    for generate, high in ((uniform, 99), (flow_shop, 99), (recirculating, 99), (two_sets, 200)):
        duration = generate(rng, jobs=100, machines=100).duration
        assert (duration.min(), duration.max()) == (1, high)


def test_uniform_draws_each_machine_equally_often_at_each_place() -> None:
    machine = uniform(np.random.default_rng(0), jobs=20_000, machines=5).machine.reshape(20_000, 5)
    assert (np.sort(machine, axis=1) == np.arange(5)).all()
    counts = np.array([np.bincount(column, minlength=5) for column in machine.T])
    # Binomial with mean 4000 and standard deviation 57.
    assert np.abs(counts - 4000).max() < 300


@pytest.mark.parametrize("machines", [4, 5])
def test_two_sets_visits_the_first_half_first(machines: int) -> None:
    machine = two_sets(np.random.default_rng(0), jobs=200, machines=machines).machine.reshape(200, machines)
    half = machines // 2
    assert (machine[:, :half] < half).all()
    assert (np.sort(machine, axis=1) == np.arange(machines)).all()
    assert len({tuple(row) for row in machine}) > 1


def test_flow_shop_visits_machines_in_order() -> None:
    machine = flow_shop(np.random.default_rng(0), jobs=3, machines=4).machine
    assert machine.tolist() == [0, 1, 2, 3] * 3


def test_recirculating_returns_to_machines_but_never_stays() -> None:
    instance = recirculating(np.random.default_rng(0), jobs=400, machines=5)
    lengths = np.diff(instance.job_offset)
    assert (lengths.min(), lengths.max()) == (3, 10)
    same_job = instance.job[1:] == instance.job[:-1]
    assert (instance.machine[1:] != instance.machine[:-1])[same_job].all()
    assert np.bincount(instance.machine).min() > 0.8 * instance.operations / 5
    first = instance.machine[instance.job_offset[:-1]]
    assert np.bincount(first, minlength=5).min() > 40
