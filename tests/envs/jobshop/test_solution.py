"""Schedules, their checker and their objectives."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.envs.jobshop.instance import MAX_TIME, JobShopInstance
from schedrl.envs.jobshop.solution import MAX_LISTED, Schedule, check, objectives
from schedrl.errors import SolutionError

# Two jobs on two machines; the optimum 7 runs job 0 first on machine 0.
SMALL = JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(0, 2), (1, 2)]], name="small")


def schedule(*starts: int) -> Schedule:
    return Schedule(start_time=np.array(starts, dtype=np.int64))


def test_valid_schedule_has_no_violation_and_known_objectives() -> None:
    assert check(SMALL, schedule(0, 3, 3, 5)) == []
    assert objectives(SMALL, schedule(0, 3, 3, 5)) == {"makespan": 7.0, "total_flow_time": 12.0}


@pytest.mark.parametrize(
    ("starts", "violation"),
    [
        ((0, 3, 3), "3 start times for 4 operations"),
        ((-1, 3, 3, 5), "job 0 operation 0 (machine 0) starts at -1, before time 0"),
        (
            (0, 2, 3, 5),
            "job 0 operation 1 (machine 1) starts at 2, before its predecessor job 0 operation 0 (machine 0) ends at 3",
        ),
        (
            (0, 3, 2, 5),
            "machine 0: job 1 operation 0 (machine 0) [2, 4) overlaps job 0 operation 0 (machine 0) [0, 3)",
        ),
    ],
)
def test_each_kind_of_violation_is_named(starts: tuple[int, ...], violation: str) -> None:
    assert check(SMALL, schedule(*starts)) == [violation]


def test_overlap_behind_a_nested_operation_is_found() -> None:
    # Sorted by start, the middle operation ends before the last starts; only the first still runs.
    instance = JobShopInstance.from_jobs([[(0, 10)], [(0, 1)], [(0, 1)]], name="nested")
    assert len(check(instance, schedule(0, 1, 5))) == 2


@pytest.mark.parametrize(("point", "valid"), [(0, True), (1, True), (2, False), (3, False), (4, True), (5, True)])
def test_zero_duration_may_touch_but_not_cut(point: int, valid: bool) -> None:
    instance = JobShopInstance.from_jobs([[(0, 3)], [(0, 0)]], name="zero")
    assert (check(instance, schedule(1, point)) == []) is valid


def test_zero_durations_share_a_time() -> None:
    instance = JobShopInstance.from_jobs([[(0, 0)], [(0, 0)], [(0, 2)]], name="zeros")
    assert check(instance, schedule(0, 0, 0)) == []
    assert check(instance, schedule(2, 2, 0)) == []


def test_reentrant_job_and_machine_change_are_kept_apart() -> None:
    instance = JobShopInstance.from_jobs([[(0, 2), (0, 2), (1, 1)], [(1, 9)]], name="re-entrant")
    assert check(instance, schedule(0, 2, 9, 0)) == []
    assert len(check(instance, schedule(0, 1, 9, 0))) == 2


def test_many_violations_are_counted_not_listed() -> None:
    instance = JobShopInstance.from_jobs([[(0, 1)] for _ in range(50)], name="pile")
    words = check(instance, Schedule(start_time=np.zeros(50, dtype=np.int64)))
    assert len(words) == MAX_LISTED + 1
    assert words[-1] == f"... and {49 - MAX_LISTED} more"


def definition(instance: JobShopInstance, start: list[int]) -> bool:
    """Validity as a textbook states it, pair by pair."""
    end = [begin + int(p) for begin, p in zip(start, instance.duration, strict=True)]
    pairs = itertools.combinations(range(instance.operations), 2)
    return (
        min(start) >= 0
        and all(end[i] <= start[i + 1] for i in range(len(start) - 1) if instance.job[i] == instance.job[i + 1])
        and all(
            end[a] <= start[b] or end[b] <= start[a] for a, b in pairs if instance.machine[a] == instance.machine[b]
        )
    )


JOBS = st.lists(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=3), min_size=1, max_size=3
)


@settings(max_examples=500, deadline=None)
@given(jobs=JOBS, data=st.data())
def test_checker_agrees_with_the_definition_in_both_directions_of_time(
    jobs: list[list[tuple[int, int]]], data: st.DataObject
) -> None:
    instance = JobShopInstance.from_jobs(jobs, name="random")
    n = instance.operations
    start = data.draw(st.lists(st.integers(0, 12), min_size=n, max_size=n).map(sorted))
    plan = schedule(*start)
    valid = check(instance, plan) == []
    assert valid == definition(instance, start)
    backward = plan.reversed(instance.reversed())
    assert (check(instance.reversed(), backward) == []) is valid
    assert backward.reversed(instance) == schedule(*(value - start[0] for value in start))


def test_reversed_schedule_keeps_the_makespan() -> None:
    backward = schedule(0, 3, 3, 5).reversed(SMALL.reversed())
    # Job 0 was (3 on machine 0, 2 on machine 1) at 0 and 3, so it reads 2 at 7-5 and 3 at 7-3.
    assert backward == schedule(2, 4, 0, 2)
    assert objectives(SMALL.reversed(), backward)["makespan"] == 7.0


def test_json_round_trip() -> None:
    plan = schedule(0, 3, -3, 5)
    assert Schedule.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"f\.json: not valid JSON"),
        ("[]", r"f\.json: field schema: expected 'schedrl/jobshop-schedule/1'"),
        ('{"schema": "schedrl/jobshop-schedule/2"}', "field schema"),
        ('{"schema": "schedrl/jobshop-schedule/1"}', r"field start_time: expected a list of integers, got None"),
        ('{"schema": "schedrl/jobshop-schedule/1", "start_time": [0, 1.5]}', r"field start_time\[1\].*got 1\.5"),
        ('{"schema": "schedrl/jobshop-schedule/1", "start_time": [true]}', r"start_time\[0\].*got True"),
        ('{"schema": "schedrl/jobshop-schedule/1", "start_time": [1e30]}', r"start_time\[0\]"),
        (f'{{"schema": "schedrl/jobshop-schedule/1", "start_time": [{10**30}]}}', r"start_time\[0\]"),
    ],
)
def test_bad_json_is_one_line(text: str, message: str) -> None:
    with pytest.raises(SolutionError, match=message) as error:
        Schedule.from_json(text, source="f.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "values", [np.zeros(3), np.zeros((2, 2), dtype=np.int64), np.array([MAX_TIME + 1]), np.array([True])]
)
def test_construction_refuses_what_is_not_a_list_of_times(values: np.ndarray) -> None:
    with pytest.raises(SolutionError, match="field start_time"):
        Schedule(start_time=values)


def test_start_times_are_a_frozen_copy() -> None:
    source: np.ndarray = np.array([0, 3, 3, 5], dtype=np.int32)
    plan = Schedule(start_time=source)
    source[0] = 9
    assert plan.start_time.tolist() == [0, 3, 3, 5]
    assert plan.start_time.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        plan.start_time[0] = 1


def test_csv_lists_every_operation() -> None:
    assert schedule(0, 3, 3, 5).to_csv(SMALL).splitlines() == [
        "job,operation,machine,start,end",
        "0,0,0,0,3",
        "0,1,1,3,5",
        "1,0,0,3,5",
        "1,1,1,5,7",
    ]


def test_size_mismatch_is_refused_by_name() -> None:
    for call in (objectives, lambda i, s: s.to_csv(i), lambda i, s: s.reversed(i)):
        with pytest.raises(SolutionError, match=re.escape("2 values, expected 4, one per operation of small")):
            call(SMALL, schedule(0, 1))


def test_equality_and_hash_are_by_content() -> None:
    assert schedule(1, 2) == schedule(1, 2)
    assert schedule(1, 2) != schedule(1, 3)
    assert schedule(1, 2) != "schedule"
    assert hash(schedule(1, 2)) == hash(schedule(1, 2))


def test_a_million_operations_check_in_seconds() -> None:
    side = 1000
    operations = side * side
    instance = JobShopInstance(
        name="big",
        machines=side,
        job_offset=np.arange(0, operations + 1, side, dtype=np.int32),
        machine=np.tile(np.arange(side, dtype=np.int32), side),
        duration=np.ones(operations, dtype=np.int64),
    )
    # A pipeline: job j runs its k-th operation at j + k.
    start = np.add.outer(np.arange(side), np.arange(side)).ravel()
    assert check(instance, Schedule(start_time=start)) == []
    start[-1] -= 1
    assert len(check(instance, Schedule(start_time=start))) == 2
