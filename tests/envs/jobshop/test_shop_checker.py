"""The checker of shops: hand-made schedules, every mutation caught, agreement with the definitions."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.shop import Blocking, ShopInstance
from schedrl.envs.jobshop.shop_checker import check_shop
from schedrl.envs.jobshop.shop_schedule import ShopSchedule, completion_times, departure_times, objectives
from schedrl.envs.jobshop.solution import MAX_LISTED
from schedrl.envs.jobshop.suites import load_instance

# Job 0: machine 0, then either machine; job 1: machine 1, machine 0; machine 0 is down in [4, 6), and set up for 2
# from family 0 to 1 and for 1 back.
SHOP = ShopInstance(
    name="shop",
    machines=2,
    job_offset=np.array([0, 2, 4]),
    mode_offset=np.array([0, 1, 3, 4, 5]),
    machine=np.array([0, 0, 1, 1, 0]),
    duration=np.array([3, 4, 2, 2, 2]),
    release=np.array([1, 0]),
    setup_family=np.array([0, 0, 1, 1]),
    setup=np.array([[[0, 2], [1, 0]], [[0, 0], [0, 0]]]),
    outage_offset=np.array([0, 1, 1]),
    outage_start=np.array([4]),
    outage_end=np.array([6]),
)


def plan(*starts: int, mode: tuple[int, ...] | None = None) -> ShopSchedule:
    return ShopSchedule(mode=np.array(mode or (0,) * len(starts)), start_time=np.array(starts))


def blocking(jobs: list[list[tuple[int, int]]], kind: Blocking) -> ShopInstance:
    return ShopInstance.from_job_shop(JobShopInstance.from_jobs(jobs, name="blocking"), blocking=kind)


def test_valid_schedules_have_no_violation() -> None:
    # Machine 0: job 0 in [1, 4), setup of 2, job 1 from 6; machine 1: job 1 in [0, 2), job 0 in [4, 6).
    assert check_shop(SHOP, plan(1, 4, 0, 6, mode=(0, 1, 0, 0))) == []
    # Job 1 comes first on machine 0, done as the outage begins, and job 0 uses that machine twice.
    assert check_shop(SHOP, plan(6, 9, 0, 2, mode=(0, 0, 0, 0))) == []
    # Job 0 pauses from 4 to 6 and completes at 7.
    assert check_shop(SHOP, plan(2, 7, 0, 9, mode=(0, 1, 0, 0))) == []


@pytest.mark.parametrize(
    ("starts", "mode", "violation"),
    [
        ((1, 4, 0), (0, 1, 0), "3 start times for 4 operations"),
        ((1, 4, 0, 6), (0, 2, 0, 0), "job 0 operation 1 runs in mode 2, expected 0 to 1"),
        ((1, 4, 0, 6), (0, -1, 0, 0), "job 0 operation 1 runs in mode -1, expected 0 to 1"),
        ((1, 4, -1, 6), (0, 1, 0, 0), "job 1 operation 0 (machine 1) starts at -1, before time 0"),
        ((0, 4, 0, 6), (0, 1, 0, 0), "job 0 operation 0 (machine 0) starts at 0, before its job's release 1"),
        (
            (1, 3, 0, 6),
            (0, 1, 0, 0),
            "job 0 operation 1 (machine 1) starts at 3, before its predecessor job 0 operation 0 (machine 0) "
            "completes at 4",
        ),
        # Begun at 2, the first operation completes only after the outage.
        (
            (2, 6, 0, 10),
            (0, 1, 0, 0),
            "job 0 operation 1 (machine 1) starts at 6, before its predecessor job 0 operation 0 (machine 0) "
            "completes at 7",
        ),
        (
            (9, 12, 0, 4),
            (0, 1, 0, 0),
            "job 1 operation 1 (machine 0) starts at 4, in the outage [4, 6) of its machine",
        ),
        (
            (9, 12, 0, 5),
            (0, 1, 0, 0),
            "job 1 operation 1 (machine 0) starts at 5, in the outage [4, 6) of its machine",
        ),
        (
            (1, 4, 0, 3),
            (0, 1, 0, 0),
            "machine 0: job 1 operation 1 (machine 0) [3, 7) overlaps job 0 operation 0 (machine 0) [1, 4)",
        ),
        (
            (6, 9, 0, 10),
            (0, 1, 0, 0),
            "machine 0: job 1 operation 1 (machine 0) starts 1 after job 0 operation 0 (machine 0) departs at 9, "
            "setup takes 2",
        ),
        (
            (8, 11, 0, 6),
            (0, 1, 0, 0),
            "machine 0: job 0 operation 0 (machine 0) starts 0 after job 1 operation 1 (machine 0) departs at 8, "
            "setup takes 1",
        ),
    ],
)
def test_each_kind_of_violation_is_named(starts: tuple[int, ...], mode: tuple[int, ...], violation: str) -> None:
    words = check_shop(SHOP, plan(*starts, mode=mode))
    assert violation in words and len(words) <= 2


def test_sizes_of_both_fields_are_compared() -> None:
    schedule = ShopSchedule(mode=np.array([0]), start_time=np.array([0, 1]))
    assert check_shop(SHOP, schedule) == ["1 modes for 4 operations", "2 start times for 4 operations"]


def test_only_consecutive_operations_need_their_setup() -> None:
    # From family 0 to 2 takes 9, by way of 1 only 1 + 1.
    shop = ShopInstance.from_job_shop(
        JobShopInstance.from_jobs([[(0, 1)], [(0, 1)], [(0, 1)]], name="detour"),
        setup_family=np.array([0, 1, 2]),
        setup=np.array([[[0, 1, 9], [9, 0, 1], [9, 9, 0]]]),
    )
    assert check_shop(shop, plan(0, 2, 4)) == []
    assert len(check_shop(shop, plan(0, 2, 3))) == 1
    assert len(check_shop(shop, plan(0, 15, 4))) == 1


@pytest.mark.parametrize(("point", "valid"), [(0, True), (1, True), (2, False), (3, False), (4, True), (5, True)])
def test_zero_duration_may_touch_but_not_cut(point: int, valid: bool) -> None:
    shop = ShopInstance.from_job_shop(JobShopInstance.from_jobs([[(0, 3)], [(0, 0)]], name="zero"))
    assert (check_shop(shop, plan(1, point)) == []) is valid


def test_zero_durations_at_one_time_need_an_order_without_setup() -> None:
    fields: dict[str, Any] = {"setup_family": np.array([1, 0])}
    jobs = JobShopInstance.from_jobs([[(0, 0)], [(0, 0)]], name="zeros")
    one_way = ShopInstance.from_job_shop(jobs, setup=np.array([[[0, 0], [5, 0]]]), **fields)
    neither = ShopInstance.from_job_shop(jobs, setup=np.array([[[0, 5], [5, 0]]]), **fields)
    assert check_shop(one_way, plan(3, 3)) == []
    assert len(check_shop(neither, plan(3, 3))) == 1


# Two jobs that exchange machines 0 and 1.
EXCHANGE = [[(0, 2), (1, 3)], [(1, 2), (0, 3)]]


def test_swaps() -> None:
    together = plan(0, 2, 0, 2)
    assert check_shop(blocking(EXCHANGE, "none"), together) == []
    assert check_shop(blocking(EXCHANGE, "swap"), together) == []
    assert check_shop(blocking(EXCHANGE, "no-swap"), together) == [
        "at 2 jobs 0, 1 move to each other's machines, which no-swap forbids"
    ]
    assert check_shop(blocking(EXCHANGE, "no-swap"), plan(0, 2, 5, 7)) == []


def test_the_best_schedule_of_ft06_with_swaps() -> None:
    # 63 is the optimum, by CP-SAT with intervals that last until the next operation starts.
    starts = plan(
        9, 10, 17, 26, 48, 54,
        9, 17, 28, 38, 48, 58,
        0, 5, 9, 17, 26, 38,
        0, 5, 10, 17, 20, 28,
        28, 38, 49, 54, 58, 62,
        5, 9, 17, 28, 45, 49,
    )  # fmt: skip
    instance = load_instance("ft06")
    assert isinstance(instance, JobShopInstance)
    shop = ShopInstance.from_job_shop(instance, blocking="swap")
    assert check_shop(shop, starts) == [] and objectives(shop, starts)["makespan"] == 63.0
    assert len(check_shop(ShopInstance.from_job_shop(instance, blocking="no-swap"), starts)) == 3


def test_a_blocked_job_holds_its_machine() -> None:
    # Job 0 waits on machine 0 until 5, while job 1 is on machine 1.
    jobs = [[(0, 2), (1, 3)], [(1, 5)], [(0, 1)]]
    assert check_shop(blocking(jobs, "none"), plan(0, 5, 0, 2)) == []
    for kind in ("swap", "no-swap"):
        assert check_shop(blocking(jobs, kind), plan(0, 5, 0, 2)) == [
            "machine 0: job 2 operation 0 (machine 0) [2, 3) overlaps job 0 operation 0 (machine 0) [0, 5)"
        ]
        assert check_shop(blocking(jobs, kind), plan(0, 5, 0, 5)) == []


@pytest.mark.parametrize("jobs", [3, 5])
def test_longer_cycles(jobs: int) -> None:
    ring = [[(j, 1), ((j + 1) % jobs, 1)] for j in range(jobs)]
    schedule = plan(*[0, 1] * jobs)
    assert check_shop(blocking(ring, "swap"), schedule) == []
    (words,) = check_shop(blocking(ring, "no-swap"), schedule)
    assert sorted(words.split("jobs ")[1].split(" move")[0].split(", ")) == [str(j) for j in range(jobs)]
    # Without the last move it is a queue: the others move up one after the other.
    queue = [*ring[:-1], [(jobs - 1, 1), (jobs, 1)]]
    assert check_shop(blocking(queue, "no-swap"), schedule) == []


def test_a_job_that_stays_on_its_machine_is_no_cycle() -> None:
    jobs = [[(0, 2), (0, 1), (1, 1)], [(1, 3)]]
    assert check_shop(blocking(jobs, "no-swap"), plan(0, 2, 3, 0)) == []


def test_a_third_machine_without_duration_makes_room() -> None:
    # Job 0 steps aside to machine 2 for no time, so that job 1 can pass.
    aside = [[(0, 2), (2, 0), (1, 3)], [(1, 2), (0, 3)]]
    assert check_shop(blocking(aside, "no-swap"), plan(0, 2, 2, 0, 2)) == []
    # Where both have to pass machine 2, job 0 steps aside first or job 1 does, and cannot return before it.
    both = [[(0, 2), (2, 0), (1, 3)], [(1, 2), (2, 0), (0, 3)]]
    assert len(check_shop(blocking(both, "no-swap"), plan(0, 2, 2, 0, 2, 2))) == 1
    # Having stepped aside it comes back when another has passed where it was.
    back = [[(0, 2), (1, 0), (0, 3)], [(0, 0)]]
    assert check_shop(blocking(back, "no-swap"), plan(0, 2, 2, 2)) == []
    # With a second place to step aside they can.
    enough = [[(0, 2), (2, 0), (1, 3)], [(1, 2), (3, 0), (0, 3)]]
    assert check_shop(blocking(enough, "no-swap"), plan(0, 2, 2, 0, 2, 2)) == []


def test_many_violations_are_counted_not_listed() -> None:
    shop = ShopInstance.from_job_shop(JobShopInstance.from_jobs([[(0, 1)] for _ in range(50)], name="pile"))
    words = check_shop(shop, plan(*[0] * 50))
    assert len(words) == MAX_LISTED + 1 and words[-1] == f"... and {49 - MAX_LISTED} more"


def moves_possible(shop: ShopInstance, start: list[int], departure: list[int], at: int) -> bool:
    """Whether some order of single moves at a moment puts each job on an empty machine, trying all of them."""
    entering = [i for i in range(shop.operations) if start[i] == at]
    jobs = [[i for i in entering if shop.job[i] == j] for j in range(shop.jobs)]
    steps: list[list[int]] = [
        [int(shop.machine[i]) for i in own] + ([-1] if own and departure[own[-1]] == at else []) for own in jobs
    ]
    place = [int(shop.machine[own[0] - 1]) if own and own[0] > shop.job_offset[j] else -1 for j, own in enumerate(jobs)]

    @cache
    def possible(done: tuple[int, ...]) -> bool:
        if all(count == len(own) for count, own in zip(done, steps, strict=True)):
            return True
        now = [own[count - 1] if count else place[j] for j, (count, own) in enumerate(zip(done, steps, strict=True))]
        return any(
            possible((*done[:j], count + 1, *done[j + 1 :]))
            for j, count in enumerate(done)
            if count < len(steps[j]) and (steps[j][count] in (-1, now[j]) or steps[j][count] not in now)
            # Once it stays, a job leaves no room for those that pass.
        )

    return possible((0,) * shop.jobs)


def definition(shop: ShopInstance, schedule: ShopSchedule) -> bool:
    """Validity as a textbook states it, pair by pair and moment by moment."""
    start, end = schedule.start_time.tolist(), completion_times(shop, schedule).tolist()
    departure, machine, job = departure_times(shop, schedule).tolist(), shop.machine.tolist(), shop.job.tolist()
    apart = all(
        departure[a] <= start[b] or departure[b] <= start[a]
        for a, b in itertools.combinations(range(shop.operations), 2)
        if machine[a] == machine[b]
    )
    chained = all(end[i] <= start[i + 1] for i in range(shop.operations - 1) if job[i] == job[i + 1])
    moved = shop.blocking != "no-swap" or all(moves_possible(shop, start, departure, at) for at in set(start))
    return min(start) >= 0 and chained and apart and moved


@settings(max_examples=100, deadline=None)
@given(
    jobs=st.lists(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=4), min_size=1, max_size=4
    ),
    kind=st.sampled_from(["none", "swap", "no-swap"]),
    gaps=st.lists(st.integers(0, 2), min_size=20, max_size=20),
    turns=st.randoms(use_true_random=False),
)
def test_checker_agrees_with_the_definition(
    jobs: list[list[tuple[int, int]]], kind: Blocking, gaps: list[int], turns: Any
) -> None:
    shop = blocking(jobs, kind)
    # Starts follow predecessors, and machines mostly, so that a good part is valid and much happens at one moment.
    starts = [0] * shop.operations
    free = [0] * shop.machines
    sequence = [j for j, job in enumerate(jobs) for _ in job]
    turns.shuffle(sequence)
    position = shop.job_offset[:-1].tolist()
    for j, gap in zip(sequence, gaps, strict=False):
        i, m = position[j], int(shop.machine[position[j]])
        ready = starts[i - 1] + int(shop.duration[i - 1]) if i > shop.job_offset[j] else 0
        starts[i] = max(ready, free[m] if gap < 2 else 0) + gap // 2
        free[m] = max(free[m], starts[i] + int(shop.duration[i]))
        position[j] += 1
    schedule = plan(*starts)
    assert (check_shop(shop, schedule) == []) is definition(shop, schedule)


def pipeline(**fields: Any) -> tuple[ShopInstance, ShopSchedule]:
    side = 100
    shop = ShopInstance(
        name="big",
        machines=side,
        job_offset=np.arange(0, side * side + 1, side),
        mode_offset=np.arange(side * side + 1),
        machine=np.tile(np.arange(side), side),
        duration=np.ones(side * side, dtype=np.int64),
        **fields,
    )
    # Job j runs its k-th operation at j + k.
    return shop, plan(*np.add.outer(np.arange(side), np.arange(side)).ravel().tolist())


@pytest.mark.parametrize(
    "fields",
    [
        lambda: {},
        lambda: {"blocking": "no-swap"},
        lambda: {"setup": np.zeros((100, 3, 3), dtype=np.int64) + 1 - np.eye(3, dtype=np.int64)},
        lambda: {
            "outage_offset": np.arange(101) * 10,
            "outage_start": np.tile(np.arange(10) * 50 + 500, 100),
            "outage_end": np.tile(np.arange(10) * 50 + 510, 100),
        },
    ],
    ids=["plain", "no-swap", "setups", "outages"],
)
def test_ten_thousand_operations_take_less_than_half_a_second(fields: Callable[[], dict[str, Any]]) -> None:
    shop, schedule = pipeline(**fields())
    began = time.process_time()
    assert check_shop(shop, schedule) == []
    assert time.process_time() - began < 0.5
    starts = schedule.start_time.copy()
    starts[-1] -= 1
    assert len(check_shop(shop, ShopSchedule(mode=schedule.mode, start_time=starts))) >= 2


def test_ten_thousand_operations_without_duration_are_no_search() -> None:
    shop, _ = pipeline(blocking="no-swap", actual_duration=np.zeros(10_000, dtype=np.int64))
    assert check_shop(shop, plan(*[0] * 10_000)) == []
