"""Schedules of shops: completions through outages, departures under blocking, objectives, files."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schedrl.envs.jobshop.instance import MAX_TIME, JobShopInstance
from schedrl.envs.jobshop.shop import NO_DUE_DATE, ShopInstance
from schedrl.envs.jobshop.shop_schedule import (
    ShopSchedule,
    chosen_modes,
    completion_times,
    departure_times,
    job_completion_times,
    machine_sequences,
    objectives,
)
from schedrl.errors import SolutionError

# The second operation of job 0 runs on machine 0 in mode 0, on machine 1 in mode 1.
SMALL = ShopInstance(
    name="small",
    machines=2,
    job_offset=np.array([0, 2, 3]),
    mode_offset=np.array([0, 1, 3, 4]),
    machine=np.array([0, 0, 1, 1]),
    duration=np.array([3, 5, 4, 2]),
    actual_duration=np.array([3, 9, 6, 2]),
    release=np.array([0, 1]),
    due=np.array([8, NO_DUE_DATE]),
    weight=np.array([2.0, 0.5]),
    objective_weights=(1.0, 10.0, 100.0),
)
SCHEDULE = ShopSchedule(mode=np.array([0, 1, 0]), start_time=np.array([0, 5, 1]))


def test_known_values() -> None:
    assert chosen_modes(SMALL, SCHEDULE).tolist() == [0, 2, 3]
    assert completion_times(SMALL, SCHEDULE).tolist() == [3, 11, 3]
    assert departure_times(SMALL, SCHEDULE).tolist() == [3, 11, 3]
    assert job_completion_times(SMALL, SCHEDULE).tolist() == [11, 3]
    # Job 0 ends 3 after its due date with weight 2; flow times are 11 and 3 - 1.
    assert objectives(SMALL, SCHEDULE) == {
        "makespan": 11.0,
        "total_weighted_tardiness": 6.0,
        "total_weighted_flow_time": 23.0,
        "weighted_objective": 11.0 + 60.0 + 2300.0,
    }


@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 2.0, 0.0)])
def test_the_instances_objective_is_a_key(weights: tuple[float, float, float]) -> None:
    instance = ShopInstance.from_job_shop(
        JobShopInstance.from_jobs([[(0, 3)]], name="one"), due=np.array([1]), objective_weights=weights
    )
    values = objectives(instance, ShopSchedule(mode=np.array([0]), start_time=np.array([4])))
    assert values[instance.objective] == pytest.approx(np.dot(weights, [7.0, 6.0, 7.0]))


def test_a_job_without_a_due_date_is_never_late() -> None:
    late = ShopSchedule(mode=np.array([0, 0, 0]), start_time=np.array([0, 0, MAX_TIME]))
    # Only job 0 counts, whose longer mode ends at 9.
    assert objectives(SMALL, late)["total_weighted_tardiness"] == 2.0


def test_blocked_jobs_depart_when_they_move_on() -> None:
    instance = JobShopInstance.from_jobs([[(0, 3), (1, 2), (0, 1)], [(1, 4)]], name="x")
    plan = ShopSchedule(mode=np.zeros(4, dtype=np.int64), start_time=np.array([0, 4, 9, 0]))
    assert departure_times(ShopInstance.from_job_shop(instance), plan).tolist() == [3, 6, 10, 4]
    for blocking in ("swap", "no-swap"):
        assert departure_times(ShopInstance.from_job_shop(instance, blocking=blocking), plan).tolist() == [4, 9, 10, 4]
    # A next operation that starts too early lets nothing depart before it completes.
    early = ShopSchedule(mode=plan.mode, start_time=np.array([0, 1, 9, 0]))
    assert departure_times(ShopInstance.from_job_shop(instance, blocking="swap"), early).tolist() == [3, 9, 10, 4]


def with_outages(duration: int, outages: list[tuple[int, int]]) -> ShopInstance:
    return ShopInstance(
        name="outages",
        machines=2,
        job_offset=np.array([0, 1]),
        mode_offset=np.array([0, 1]),
        machine=np.array([1]),
        duration=np.array([duration]),
        outage_offset=np.array([0, 0, len(outages)]),
        outage_start=np.array([start for start, _ in outages], dtype=np.int64),
        outage_end=np.array([end for _, end in outages], dtype=np.int64),
    )


@pytest.mark.parametrize(
    ("start", "duration", "end"),
    [
        (0, 2, 2),  # done as the outage begins
        (0, 3, 6),
        (1, 1, 2),
        (5, 2, 7),  # starts as it ends
        (5, 3, 11),  # both of the next two, which touch
        (5, 0, 5),
        (0, 9, 15),  # 2 before the first, 2 between, and 5 after the last
        (10, 4, 14),
        (3, 1, 6),  # starts within one, against the rules
        (3, 0, 3),
    ],
)
def test_operations_pause_in_outages(start: int, duration: int, end: int) -> None:
    instance = with_outages(duration, [(2, 5), (7, 8), (8, 10)])
    plan = ShopSchedule(mode=np.array([0]), start_time=np.array([start]))
    assert completion_times(instance, plan).tolist() == [end]


def tick_by_tick(start: int, duration: int, outages: list[tuple[int, int]]) -> int:
    """Completion by walking through time one unit at a time."""
    now, left = start, duration
    while left:
        left -= not any(begin <= now < end for begin, end in outages)
        now += 1
    return now


@settings(deadline=None)
@example(moments={2, 3}, start=3, duration=0)
@given(moments=st.sets(st.integers(0, 25), max_size=10), start=st.integers(0, 30), duration=st.integers(0, 12))
def test_completion_agrees_with_walking_through_time(moments: set[int], start: int, duration: int) -> None:
    times = sorted(moments)
    outages = list(zip(times[::2], times[1::2], strict=False))
    plan = ShopSchedule(mode=np.array([0]), start_time=np.array([start]))
    expected = tick_by_tick(start, duration, outages)
    assert completion_times(with_outages(duration, outages), plan).tolist() == [expected]


def test_sequences_put_operations_without_duration_where_they_need_no_setup() -> None:
    # Family 1 can follow 0 at once, not the other way round; job 2 has family 1 and job 1 family 0.
    instance = ShopInstance.from_job_shop(
        JobShopInstance.from_jobs([[(0, 4)], [(0, 0)], [(0, 0)], [(0, 0)], [(1, 1)]], name="ties"),
        setup_family=np.array([0, 0, 1, 0, 0]),
        setup=np.array([[[0, 0], [5, 0]], [[0, 0], [0, 0]]]),
    )
    starts = np.array([0, 4, 4, 4, 0])
    ties, other = machine_sequences(instance, ShopSchedule(mode=np.zeros(5, dtype=np.int64), start_time=starts))
    assert ties.tolist() == [0, 1, 3, 2] and other.tolist() == [4]


def test_json_round_trip() -> None:
    plan = ShopSchedule(mode=np.array([0, 3, -1]), start_time=np.array([0, -3, MAX_TIME]))
    again = ShopSchedule.from_json(plan.to_json())
    assert again == plan and again.mode.dtype == np.int32 and again.start_time.dtype == np.int64


HEAD = '{"schema": "schedrl/shop-schedule/1"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"f\.json: not valid JSON"),
        ("[]", r"f\.json: field schema: expected 'schedrl/shop-schedule/1'"),
        ('{"schema": "schedrl/jobshop-schedule/1"}', "field schema"),
        (f'{HEAD}, "start_time": []}}', "field mode: expected a list of integers, got None"),
        (f'{HEAD}, "mode": [0]}}', "field start_time: expected a list of integers, got None"),
        (f'{HEAD}, "mode": [0], "start_time": [1.5]}}', r"field start_time\[0\].*got 1\.5"),
        (f'{HEAD}, "mode": [true], "start_time": [0]}}', r"field mode\[0\].*got True"),
        (f'{HEAD}, "mode": [{2**31}], "start_time": [0]}}', r"field mode\[0\]: expected an integer up to 2147483647"),
        (f'{HEAD}, "mode": [0], "start_time": [{10**30}]}}', r"start_time\[0\]"),
    ],
)
def test_bad_json_is_one_line(text: str, message: str) -> None:
    with pytest.raises(SolutionError, match=message) as error:
        ShopSchedule.from_json(text, source="f.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": np.zeros(3)}, "field mode: expected a one-dimensional integer array, got float64"),
        ({"mode": np.array([2**31])}, "field mode: a number beyond"),
        ({"start_time": np.zeros((2, 2), dtype=np.int64)}, "field start_time: expected a one-dimensional"),
        ({"start_time": np.array([MAX_TIME + 1])}, "field start_time: a number beyond"),
        ({"start_time": np.array([True])}, "field start_time: expected"),
    ],
)
def test_arrays_of_another_kind_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(SolutionError, match=message):
        ShopSchedule(**{"mode": np.array([0]), "start_time": np.array([0]), **change})


def test_arrays_are_frozen_copies() -> None:
    starts = np.array([0, 1])
    plan = ShopSchedule(mode=np.array([0, 0]), start_time=starts)
    starts[0] = 9
    assert plan.start_time.tolist() == [0, 1]
    with pytest.raises(ValueError, match="read-only"):
        plan.mode[0] = 1


def test_csv_lists_every_operation() -> None:
    assert SCHEDULE.to_csv(SMALL).splitlines() == [
        "job,operation,mode,machine,start,end,departure",
        "0,0,0,0,0,3,3",
        "0,1,1,1,5,11,11",
        "1,0,0,1,1,3,3",
    ]


def test_foreign_schedules_are_refused_by_name() -> None:
    short = ShopSchedule(mode=np.array([0, 0, 0]), start_time=np.array([0, 1]))
    wrong = ShopSchedule(mode=np.array([0, 2, 0]), start_time=np.array([0, 1, 2]))
    for call in (objectives, departure_times, machine_sequences, lambda i, s: s.to_csv(i)):
        with pytest.raises(SolutionError, match="field start_time: 2 values, expected 3, one per operation of small"):
            call(SMALL, short)
        with pytest.raises(SolutionError, match=re.escape("field mode[1]: 2, expected 0 to 1 in small")):
            call(SMALL, wrong)


def test_equality_and_hash_are_by_content() -> None:
    same = ShopSchedule(mode=np.array([0, 1, 0]), start_time=np.array([0, 5, 1]))
    assert same == SCHEDULE and hash(same) == hash(SCHEDULE)
    assert same != ShopSchedule(mode=np.array([0, 0, 0]), start_time=same.start_time)
    assert same != ShopSchedule(mode=same.mode, start_time=np.array([0, 5, 2]))
    assert same != "schedule"
