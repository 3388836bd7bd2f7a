"""The instance validates itself, is frozen, and compares by content."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.envs.jobshop.instance import MAX_TIME, JobShopInstance
from schedrl.errors import InstanceError

FIELDS: dict[str, Any] = {
    "name": "x",
    "machines": 2,
    "job_offset": np.array([0, 2, 3]),
    "machine": np.array([0, 1, 1]),
    "duration": np.array([3, 0, 2]),
}
SCHEMA = "schedrl/jobshop-instance/1"


def test_sizes_and_job_of_each_operation() -> None:
    instance = JobShopInstance(**FIELDS)
    assert (instance.jobs, instance.machines, instance.operations) == (2, 2, 3)
    assert instance.job.tolist() == [0, 0, 1]
    arrays = (instance.job_offset, instance.machine, instance.duration)
    assert [str(array.dtype) for array in arrays] == ["int32", "int32", "int64"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"machines": 0}, "x: field machines: 0, expected at least 1"),
        ({"job_offset": np.array([0])}, "x: field job_offset: must run from 0 to the 3 operations"),
        ({"job_offset": np.array([0, 2])}, "x: field job_offset: must run from 0 to the 3 operations"),
        ({"job_offset": np.array([0, 3, 3])}, "x: field job_offset: job 1 has no operation"),
        ({"duration": np.array([3, 0])}, "x: field duration: 2 values for 3 operations"),
        ({"machine": np.array([0, 2, 1])}, "x: field machine: operation 1 uses machine 2, expected 0 to 1"),
        ({"machine": np.array([0, -1, 1])}, "x: field machine: operation 1 uses machine -1, expected 0 to 1"),
        ({"duration": np.array([3, 0, -2])}, "x: field duration: operation 2 lasts -2, expected >= 0"),
        ({"duration": np.array([MAX_TIME, 0, 1])}, "the sum of all durations exceeds"),
        ({"duration": np.array([3.0, 0.5, 2.0])}, "expected a one-dimensional integer array, got float64"),
        ({"machine": np.array([[0, 1, 1]])}, "expected a one-dimensional integer array"),
        ({"machine": np.array([0, 2**40, 1])}, "value outside int32"),
    ],
)
def test_bad_field_is_named_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InstanceError, match=message) as error:
        JobShopInstance(**{**FIELDS, **change})
    assert "\n" not in str(error.value)


def test_arrays_are_frozen_copies() -> None:
    duration = np.array([3, 0, 2])
    instance = JobShopInstance(**{**FIELDS, "duration": duration})
    duration[0] = 7
    assert instance.duration.tolist() == [3, 0, 2]
    with pytest.raises(ValueError, match="read-only"):
        instance.duration[0] = 7
    with pytest.raises(dataclasses.FrozenInstanceError):
        instance.machines = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "y"},
        {"machines": 3},
        {"job_offset": np.array([0, 1, 3])},
        {"machine": np.array([0, 0, 1])},
        {"duration": np.array([3, 1, 2])},
    ],
)
def test_equality_sees_every_field(change: dict[str, Any]) -> None:
    instance = JobShopInstance(**FIELDS)
    assert instance == JobShopInstance(**FIELDS)
    assert hash(instance) == hash(JobShopInstance(**FIELDS))
    assert instance != JobShopInstance(**{**FIELDS, **change})


def test_reversed_turns_each_job_around_and_back() -> None:
    instance = JobShopInstance(**FIELDS)
    backward = instance.reversed()
    assert backward.machine.tolist() == [1, 0, 1]
    assert backward.duration.tolist() == [0, 3, 2]
    assert backward.reversed() == instance


JOBS = st.lists(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 10**6)), min_size=1, max_size=5), min_size=1, max_size=5
)


@settings(deadline=None)
@given(jobs=JOBS, name=st.text())
def test_json_round_trip(jobs: list[list[tuple[int, int]]], name: str) -> None:
    instance = JobShopInstance.from_jobs(jobs, name=name, machines=5)
    assert JobShopInstance.from_json(instance.to_json()) == instance


def test_machines_default_to_the_largest_index() -> None:
    assert JobShopInstance.from_jobs([[(0, 1)], [(6, 1)]], name="x").machines == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "schedrl/jobshop-instance/9"}, f"f.json: field schema: expected '{SCHEMA}'"),
        ({"name": 3}, "f.json: field name: expected str, got 3"),
        ({"machines": "2"}, "f.json: field machines: expected int, got '2'"),
        ({"jobs": {}}, "f.json: field jobs: expected list, got {}"),
        ({"jobs": [3]}, r"f.json: field jobs\[0\]: expected a list of \[machine, duration\] pairs"),
        (
            {"jobs": [[[0, 1], [0]]]},
            r"f.json: field jobs\[0\]\[1\]: expected \[machine, duration\] integers, got \[0\]",
        ),
        ({"jobs": [[[0, 1.5]]]}, r"field jobs\[0\]\[0\].*got \[0, 1.5\]"),
        ({"jobs": [[[0, 10**30]]]}, r"field jobs\[0\]\[0\]"),
        ({"jobs": []}, "field job_offset"),
        ({"jobs": [[[2, 1]]]}, "field machine: operation 0 uses machine 2, expected 0 to 1"),
    ],
)
def test_bad_json_is_one_line(change: dict[str, Any], message: str) -> None:
    data = {"schema": SCHEMA, "name": "x", "machines": 2, "jobs": [[[0, 1]]], **change}
    with pytest.raises(InstanceError, match=message) as error:
        JobShopInstance.from_json(json.dumps(data), source="f.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00"])
def test_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(InstanceError, match=r"f\.json: not valid JSON"):
        JobShopInstance.from_json(text, source="f.json")
