from __future__ import annotations

import time

import numpy as np
import pytest

from schedrl.baselines.jobshop.rules import (
    RULES,
    SPT_TWKR,
    Direction,
    RandomisedRule,
    RandomPriorities,
    Rule,
    RuleScheduler,
    best_rule_schedule,
    work_done,
    work_remaining,
)
from schedrl.envs.jobshop.generators import taillard_like
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.simulator import Generation
from schedrl.envs.jobshop.solution import Schedule, check, objectives
from schedrl.envs.jobshop.suites import load_entry, load_instance

RULE = {rule.name: rule for rule in RULES}
UNEVEN = JobShopInstance.from_jobs([[(0, 3), (1, 2), (0, 0)], [(1, 4)], [(0, 5), (0, 1)]], name="uneven")


def run(name: str, rule: str, direction: Direction = "forward", generation: Generation = "non-delay") -> float | None:
    scheduler = RuleScheduler(rule=RULE[rule], direction=direction, generation=generation)
    return scheduler.schedule(load_instance(name), time_limit_s=10.0, rng=np.random.default_rng(0)).objective


# Makespans measured by an independent implementation with ties to the lowest job.
@pytest.mark.parametrize(
    ("name", "generation", "makespans"),
    [
        (
            "ft06",
            "non-delay",
            {"spt": 88, "mwkr": 61, "mopnr": 59, "fifo": 65, "lpt": 77, "lwkr": 83, "fdd-mwkr": 67, "spt-twkr": 68},
        ),
        (
            "abz5",
            "non-delay",
            {
                "spt": 1352,
                "mwkr": 1369,
                "mopnr": 1336,
                "fifo": 1467,
                "lpt": 1586,
                "lwkr": 1735,
                "fdd-mwkr": 1334,
                "spt-twkr": 1383,
            },
        ),
        (
            "orb07",
            "non-delay",
            {
                "spt": 504,
                "mwkr": 483,
                "mopnr": 500,
                "fifo": 475,
                "lpt": 470,
                "lwkr": 499,
                "fdd-mwkr": 462,
                "spt-twkr": 452,
            },
        ),
        (
            "ta01",
            "non-delay",
            {
                "spt": 1462,
                "mwkr": 1491,
                "mopnr": 1438,
                "fifo": 1486,
                "lpt": 1701,
                "lwkr": 1710,
                "fdd-mwkr": 1433,
                "spt-twkr": 1423,
            },
        ),
        (
            "swv11",
            "non-delay",
            {
                "spt": 3714,
                "mwkr": 4257,
                "mopnr": 4642,
                "fifo": 4427,
                "lpt": 4763,
                "lwkr": 3907,
                "fdd-mwkr": 4395,
                "spt-twkr": 3911,
            },
        ),
        (
            "ta71",
            "non-delay",
            {
                "spt": 6232,
                "mwkr": 6036,
                "mopnr": 5938,
                "fifo": 6270,
                "lpt": 7038,
                "lwkr": 7118,
                "fdd-mwkr": 5852,
                "spt-twkr": 5661,
            },
        ),
        (
            "abz5",
            "active",
            {"spt": 1733, "mwkr": 1451, "mopnr": 1429, "fifo": 1467, "fdd-mwkr": 1395},
        ),
        (
            "orb07",
            "active",
            {"spt": 579, "mwkr": 535, "mopnr": 508, "fifo": 475, "fdd-mwkr": 495},
        ),
        (
            "ta51",
            "active",
            {"spt": 4781, "mwkr": 3670, "mopnr": 3650, "fifo": 3590, "fdd-mwkr": 3610},
        ),
    ],
)
def test_published_makespans(name: str, generation: Generation, makespans: dict[str, int]) -> None:
    assert {rule: run(name, rule, generation=generation) for rule in makespans} == makespans


# Mean gaps in percent over ta01-ta80 to the 2026 bounds; the same independent implementation.
@pytest.mark.parametrize(
    ("rule", "direction", "gap"),
    [
        ("spt", "forward", 27.54),
        ("mwkr", "forward", 19.57),
        ("mopnr", "forward", 19.73),
        ("fifo", "forward", 25.42),
        ("lpt", "forward", 43.07),
        ("lwkr", "forward", 45.69),
        ("fdd-mwkr", "forward", 17.99),
        ("spt-twkr", "forward", 14.49),
        ("spt-twkr", "both", 12.62),
    ],
)
def test_mean_gap_on_taillard(rule: str, direction: Direction, gap: float) -> None:
    gaps = []
    for number in range(1, 81):
        best_known = load_entry(f"ta{number:02d}").best_known
        makespan = run(f"ta{number:02d}", rule, direction)
        assert best_known is not None and makespan is not None
        gaps.append(100 * (makespan / best_known - 1))
    assert np.mean(gaps) == pytest.approx(gap, abs=0.005)


def test_work_of_a_job_counts_the_operation_itself() -> None:
    assert work_done(UNEVEN).tolist() == [3, 5, 5, 4, 5, 6]
    assert work_remaining(UNEVEN).tolist() == [5, 2, 0, 4, 6, 1]


def test_keys_by_hand() -> None:
    assert RULE["mopnr"].key(UNEVEN).tolist() == [-3, -2, -1, -1, -2, -1]
    assert RULE["lopnr"].key(UNEVEN).tolist() == [3, 2, 1, 1, 2, 1]
    assert RULE["spt-twkr"].key(UNEVEN).tolist() == [3 / 5, 1.0, 0.0, 1.0, 5 / 6, 1.0]
    assert RULE["fdd-mwkr"].key(UNEVEN).tolist() == [3 / 5, 5 / 2, 5.0, 1.0, 5 / 6, 6.0]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_both_is_the_better_direction_and_reversed_schedules_are_valid(rule: Rule) -> None:
    instance = load_instance("ft10")
    values = {}
    directions: tuple[Direction, ...] = ("forward", "reversed", "both")
    for direction in directions:
        scheduler = RuleScheduler(rule=rule, direction=direction)
        result = scheduler.schedule(instance, time_limit_s=1.0, rng=np.random.default_rng(0))
        assert isinstance(result.solution, Schedule) and result.objective is not None
        assert check(instance, result.solution) == []
        values[direction] = result.objective
    assert values["both"] == min(values["forward"], values["reversed"])


def test_randomised_rule_is_never_worse_than_both_and_repeats_by_seed() -> None:
    instance = load_instance("ta01")
    both = RuleScheduler(rule=SPT_TWKR, direction="both").schedule(
        instance, time_limit_s=1.0, rng=np.random.default_rng(0)
    )
    one, again = (
        RandomisedRule(rule=SPT_TWKR).schedule(instance, time_limit_s=60.0, rng=np.random.default_rng(5))
        for _ in range(2)
    )
    assert one.solution == again.solution
    assert one.objective is not None and both.objective is not None and one.objective < both.objective
    assert one.decisions == 128 * 225


def test_randomised_rule_reaches_its_published_gap_on_15x15() -> None:
    gaps = []
    for number in range(1, 11):
        entry = load_entry(f"ta{number:02d}")
        result = RandomisedRule(rule=SPT_TWKR).schedule(
            load_instance(f"ta{number:02d}"),
            time_limit_s=60.0,
            rng=np.random.default_rng(number),
        )
        assert result.objective is not None and entry.best_known is not None
        gaps.append(100 * (result.objective / entry.best_known - 1))
    # 9.2 in the reference run with other noise; a draw of the noise moves the mean by about 0.5.
    assert 7.5 < np.mean(gaps) < 11.0


def test_randomised_rule_stops_at_the_limit_after_one_pass_at_least() -> None:
    instance = taillard_like(np.random.default_rng(0), jobs=60, machines=20)
    none = RandomisedRule(rule=SPT_TWKR).schedule(instance, time_limit_s=0.0, rng=np.random.default_rng(0))
    assert none.decisions == instance.operations
    started = time.perf_counter()
    RandomisedRule(rule=SPT_TWKR, rollouts=10**9).schedule(instance, time_limit_s=0.2, rng=np.random.default_rng(0))
    assert 0.2 <= time.perf_counter() - started < 1.0


def test_random_priorities_depend_on_the_seed_only() -> None:
    instance = load_instance("la21")
    seeds = (1, 1, 2)
    one, again, other = (
        RandomPriorities().schedule(instance, time_limit_s=1.0, rng=np.random.default_rng(seed)) for seed in seeds
    )
    assert one.solution == again.solution and one.solution != other.solution


def test_best_rule_schedule_beats_every_rule_in_both_directions() -> None:
    instance = load_instance("ta21")
    best = objectives(instance, best_rule_schedule(instance))["makespan"]
    values = [run("ta21", rule.name, "both") for rule in RULES]
    assert best == min(value for value in values if value is not None)


def test_best_rule_schedule_makes_one_pass_when_the_deadline_is_over() -> None:
    instance = load_instance("ta21")
    schedule = best_rule_schedule(instance, deadline=0.0)
    assert objectives(instance, schedule)["makespan"] == run("ta21", "spt-twkr")
