"""The named sets of shops: how many, which sizes, which optima, and what belongs together."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from schedrl.envs.jobshop.dynamic_shops import expected_work
from schedrl.envs.jobshop.shop import ShopInstance
from schedrl.envs.jobshop.shop_suites import INTERRUPTION_PROBABILITIES, SHOP_SUITES, UTILISATIONS
from schedrl.envs.jobshop.suites import load_entry
from schedrl.errors import InstanceError
from schedrl.families import SuiteEntry

SIZES = {
    "brandimarte": 15,
    "hurink-edata": 66,
    "hurink-rdata": 66,
    "hurink-vdata": 66,
    "fattahi": 20,
    "kacem": 4,
    "blocking-swap": 55,
    "dynamic": 40,
    "blocking-interruptions": 40,
    "smtt": 2095,
    "smtt-20-uniform": 800,
    "smtt-20-normal": 695,
    "smtt-100": 200,
    "smtt-200": 200,
    "smtt-500": 200,
}
FROM_FILES = [name for name in SIZES if name.startswith(("brandimarte", "hurink", "fattahi", "kacem", "smtt"))]
GENERATED = [name for name in SIZES if name not in FROM_FILES]
needs_data = pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no benchmark files")


def entries(suite: str) -> dict[str, SuiteEntry]:
    return {entry.instance.name: entry for entry in SHOP_SUITES[suite].load()}


def shop_of(entry: SuiteEntry) -> ShopInstance:
    assert isinstance(entry.instance, ShopInstance)
    return entry.instance


def test_names_and_sources() -> None:
    assert list(SHOP_SUITES) == list(SIZES)
    for name, suite in SHOP_SUITES.items():
        assert suite.name == name
        assert suite.summary and suite.source


@pytest.mark.parametrize("suite", GENERATED)
def test_number_of_instances_and_distinct_names(suite: str) -> None:
    assert len(entries(suite)) == len(SHOP_SUITES[suite].load()) == SIZES[suite]
    assert SHOP_SUITES[suite].load()[0].instance is SHOP_SUITES[suite].load()[0].instance


@needs_data
@pytest.mark.parametrize("suite", FROM_FILES)
def test_number_of_instances_from_files(suite: str) -> None:
    assert len(entries(suite)) == len(SHOP_SUITES[suite].load()) == SIZES[suite]


@needs_data
@pytest.mark.parametrize(
    ("suite", "name", "jobs", "machines", "operations", "modes", "bounds"),
    [
        ("brandimarte", "mk01", 10, 6, 55, 115, (40, 40)),
        ("brandimarte", "mk10", 20, 15, 240, 716, (189, 193)),
        ("hurink-edata", "mt06-edata", 6, 6, 36, 42, (55, 55)),
        ("hurink-edata", "la01-edata", 10, 5, 50, 60, (609, 609)),
        ("hurink-rdata", "la20-rdata", 10, 10, 100, 199, (756, 756)),
        ("hurink-vdata", "car8-vdata", 8, 8, 64, 254, (4613, 4613)),
        ("fattahi", "sfjs01", 2, 2, 4, 8, (66, 66)),
        ("fattahi", "mfjs01", 5, 6, 15, 33, (468, 468)),
        ("fattahi", "mfjs10", 12, 8, 48, 112, (1196, 1196)),
        ("kacem", "kacem1", 4, 5, 12, 60, (11, 11)),
        ("kacem", "kacem4", 15, 10, 56, 560, (11, 11)),
    ],
)
def test_sizes_and_bounds(
    suite: str, name: str, jobs: int, machines: int, operations: int, modes: int, bounds: tuple[int, int]
) -> None:
    entry = entries(suite)[name]
    shop = shop_of(entry)
    assert (shop.jobs, shop.machines, shop.operations, shop.modes) == (jobs, machines, operations, modes)
    assert (entry.lower_bound, entry.best_known) == bounds


@needs_data
def test_first_operations_of_mk01() -> None:
    # The original counts machines from 1: operation 1 runs on machine 1 or 3, operation 2 on 5, 3 or 2.
    mk01 = shop_of(entries("brandimarte")["mk01"])
    assert mk01.mode_offset[:3].tolist() == [0, 2, 5]
    assert mk01.machine[:5].tolist() == [0, 2, 4, 2, 1]
    assert mk01.duration[:5].tolist() == [5, 4, 3, 5, 1]


@needs_data
@pytest.mark.parametrize("suite", [name for name in FROM_FILES if not name.startswith("smtt")])
def test_no_bound_is_below_the_obvious_ones(suite: str) -> None:
    for entry in SHOP_SUITES[suite].load():
        shop = shop_of(entry)
        longest_job = np.add.reduceat(shop.least_duration, shop.job_offset[:-1]).max()
        obvious = max(longest_job, -(-shop.least_duration.sum() // shop.machines))
        assert entry.lower_bound is not None and entry.best_known is not None
        assert obvious <= entry.best_known and entry.lower_bound <= entry.best_known


@needs_data
def test_hurinks_sets_choose_more_from_edata_to_vdata() -> None:
    means = []
    for suite in ("hurink-edata", "hurink-rdata", "hurink-vdata"):
        shop = shop_of(entries(suite)[f"la16-{suite.removeprefix('hurink-')}"])
        means.append(shop.modes / shop.operations)
    assert means == [1.13, 2.01, 4.7]


@needs_data
def test_total_tardiness_optima() -> None:
    table = entries("smtt")
    first = table["smtt-20-uniform-000"]
    assert (shop_of(first).jobs, first.best_known, first.optimal) == (20, 256, True)
    assert table["smtt-100-000"].best_known == 2065
    assert table["smtt-500-199"].best_known == 2086786
    assert {shop_of(entry).objective for entry in table.values()} == {"total_weighted_tardiness"}


@needs_data
def test_optima_after_raising_due_dates_are_within_reach() -> None:
    # Jobs in the order of modified due dates are at most some 15 % above the optimum here, and never below it.
    for entry in SHOP_SUITES["smtt-20-uniform"].load()[::7]:
        shop = shop_of(entry)
        assert entry.best_known is not None
        tardiness = modified_due_date(shop.duration.tolist(), shop.due.tolist())
        assert entry.best_known <= tardiness <= 1.3 * entry.best_known + 60


def modified_due_date(p: list[int], d: list[int]) -> int:
    """Return the total tardiness of the jobs, next always the one of least max(t + p, d)."""
    t = total = 0
    left = set(range(len(p)))
    while left:
        j = min(left, key=lambda j: max(t + p[j], d[j]))
        left.remove(j)
        t += p[j]
        total += max(t - d[j], 0)
    return total


def test_missing_data_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SCHEDRL_DATA", raising=False)
    with pytest.raises(InstanceError, match="suite kacem: SCHEDRL_DATA is unset, expected the folder that holds"):
        SHOP_SUITES["kacem"].load()
    with pytest.raises(InstanceError, match="suite smtt-20-uniform: SCHEDRL_DATA is unset"):
        SHOP_SUITES["smtt"].load()
    monkeypatch.setenv("SCHEDRL_DATA", str(tmp_path))
    with pytest.raises(InstanceError, match=r"suite kacem: no file .*bounds_fjsplib_2026.csv"):
        SHOP_SUITES["kacem"].load()


def test_broken_bounds_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "jobshop" / "fjsp"
    (folder / "kacem").mkdir(parents=True)
    (folder / "kacem" / "k1.txt").write_text("1 1\n1 1 0 5\n")
    monkeypatch.setenv("SCHEDRL_DATA", str(tmp_path))
    bounds = folder / "bounds_fjsplib_2026.csv"
    bounds.write_text("instance,lower_bound,upper_bound\nkacem1,x,11\n")
    with pytest.raises(InstanceError, match=r"bounds_fjsplib_2026.csv:2: expected columns instance, lower_bound"):
        SHOP_SUITES["kacem"].load()


def test_instance_without_bounds_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "jobshop" / "fjsp"
    (folder / "kacem").mkdir(parents=True)
    (folder / "kacem" / "k1.txt").write_text("1 1\n1 1 0 5\n")
    (folder / "bounds_fjsplib_2026.csv").write_text("instance,lower_bound,upper_bound\nmk01,40,40\n")
    monkeypatch.setenv("SCHEDRL_DATA", str(tmp_path))
    with pytest.raises(InstanceError, match="suite kacem: no bounds of kacem1 in jobshop/fjsp/bounds_fjsplib_2026"):
        SHOP_SUITES["kacem"].load()


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("ft06-swap", (63, 63)),
        ("ft10-swap", (1068, 1068)),
        ("ft20-swap", (1165, 1408)),
        ("la01-swap", (793, 793)),
        ("la02-swap", (793, 793)),
        ("la03-swap", (715, 715)),
        ("la04-swap", (743, 743)),
        ("la05-swap", (664, 664)),
        ("la40-swap", (1222, 1685)),
        ("orb07-swap", (483, 483)),
    ],
)
def test_bounds_with_blocking(name: str, bounds: tuple[int, int]) -> None:
    entry = entries("blocking-swap")[name]
    assert (entry.lower_bound, entry.best_known) == bounds


def test_blocking_shops_are_the_classical_ones_and_never_better() -> None:
    table = entries("blocking-swap")
    for name, entry in table.items():
        classical, shop = load_entry(name.removesuffix("-swap")), shop_of(entry)
        assert shop == ShopInstance.from_job_shop(classical.instance, name=name, blocking="swap")  # type: ignore[arg-type]
        assert entry.best_known is not None and classical.best_known is not None
        assert entry.best_known > classical.best_known
    assert sum(entry.optimal for entry in table.values()) == 29


def test_dynamic_set_covers_utilisation_with_and_without_breakdowns() -> None:
    table = entries("dynamic")
    assert len({entry.suite for entry in table.values()}) == 8
    for availability, label in ((1.0, "up"), (0.95, "breakdowns")):
        for utilisation in UTILISATIONS:
            shops = [shop_of(table[f"dynamic-{label}-u{100 * utilisation:.0f}-{k}"]) for k in range(5)]
            load = [
                expected_work(shop).sum() / (shop.machines * availability * shop.release.max() * 200 / 199)
                for shop in shops
            ]
            # 5 times 199 gaps: a standard deviation of 3 %.
            assert np.mean(load) == pytest.approx(utilisation, rel=0.1)
            assert all(bool(len(shop.outage_start)) == (label == "breakdowns") for shop in shops)
            assert all((shop.jobs, shop.machines, shop.announced) == (200, 10, False) for shop in shops)
            assert all(shop.objective == "total_weighted_tardiness" for shop in shops)


def test_dynamic_set_has_common_shops() -> None:
    table = entries("dynamic")
    easy, hard = shop_of(table["dynamic-up-u70-0"]), shop_of(table["dynamic-breakdowns-u95-0"])
    assert np.array_equal(easy.duration, hard.duration) and np.array_equal(easy.weight, hard.weight)
    assert not np.array_equal(easy.duration, shop_of(table["dynamic-up-u70-1"]).duration)


def test_interruptions_are_nested_within_each_shop() -> None:
    table = entries("blocking-interruptions")
    shares = []
    for probability in INTERRUPTION_PROBABILITIES:
        extra = []
        for k in range(10):
            shop, calm = (shop_of(table[f"blocking-p{label:02.0f}-{k}"]) for label in (100 * probability, 0))
            assert np.array_equal(shop.machine, calm.machine) and np.array_equal(shop.duration, calm.duration)
            worst = shop_of(table[f"blocking-p20-{k}"])
            stopped = shop.actual_duration > shop.duration
            assert np.array_equal(shop.actual_duration[stopped], worst.actual_duration[stopped])
            extra.append(stopped)
            assert shop.blocking == "swap"
        shares.append(np.mean(extra))
    assert shares == pytest.approx(INTERRUPTION_PROBABILITIES, abs=0.03)
