"""One checker, one objective function and one reader for the family's two problems."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.envs.memmap.generators import arbitrary
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import slow_latency_s
from schedrl.envs.memmap.packing import OffsetPackingInstance
from schedrl.envs.memmap.plan import slow_plan
from schedrl.envs.memmap.solution import AnyInstance, AnySolution, Packing, check, objectives
from schedrl.errors import InstanceError, SolutionError

PROGRAM = arbitrary(np.random.default_rng(0), ops=5)
LIFETIMES = OffsetPackingInstance(
    name="two", lower=np.array([0, 1]), upper=np.array([2, 3]), size=np.array([3, 4]), capacity=9
)
PLAN = slow_plan(PROGRAM)
PACKING = Packing(offset=np.array([4, 0]))


@given(st.integers(0, 2**32 - 1))
def test_instances_and_solutions_of_either_problem_come_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    program = arbitrary(rng, ops=int(rng.integers(1, 8)))
    lower = rng.integers(0, 9, 4)
    lifetimes = OffsetPackingInstance(
        name="drawn", lower=lower, upper=lower + rng.integers(1, 9, 4), size=rng.integers(1, 9, 4)
    )
    for instance in (program, lifetimes):
        again = AnyInstance.from_json(instance.to_json())
        assert type(again) is type(instance)
        assert again == instance
    for solution in (slow_plan(program), Packing(offset=rng.integers(0, 9, 4))):
        answer = AnySolution.from_json(solution.to_json())
        assert type(answer) is type(solution)
        assert answer == solution


def test_each_problem_is_checked_by_its_own_rules() -> None:
    assert check(PROGRAM, PLAN) == []
    assert check(LIFETIMES, PACKING) == []
    assert check(LIFETIMES, Packing(offset=np.array([2, 0]))) == ["buffers 0 and 1 overlap at time 1 from byte 2"]
    other = arbitrary(np.random.default_rng(1), ops=9)
    assert check(other, PLAN) == [f"the plan has {PROGRAM.accesses} layers for {other.accesses} accesses"]


def test_the_other_problems_solution_is_said_to_be_one() -> None:
    assert check(LIFETIMES, PLAN) == ["instance two packs offsets and takes a packing, not a memory plan"]
    assert check(PROGRAM, PACKING) == [f"instance {PROGRAM.name} maps a program and takes a memory plan, not a packing"]


def test_objectives_of_either() -> None:
    assert objectives(LIFETIMES, PACKING) == {"peak": 7.0}
    found = objectives(PROGRAM, PLAN)
    assert set(found) == {"latency", "relative_latency", "elapsed", "copied_bytes", "peak_bytes"}
    assert found["latency"] == slow_latency_s(PROGRAM)
    for instance, solution in ((PROGRAM, PLAN), (LIFETIMES, PACKING)):
        assert instance.objective in objectives(instance, solution)


INSTANCES = "expected one of schedrl/memory-map-instance/1, schedrl/offset-packing-instance/1"
SOLUTIONS = "expected one of schedrl/memory-plan/1, schedrl/offset-packing/1"


@pytest.mark.parametrize(
    ("reader", "content", "message"),
    [
        (AnyInstance, "nope", "not valid JSON: Expecting value"),
        (AnyInstance, "[" * 100_000, "not valid JSON: "),
        (AnyInstance, "[1]", f"field schema: {INSTANCES}, got None"),
        (AnyInstance, '{"schema": "jobshop"}', f"field schema: {INSTANCES}, got 'jobshop'"),
        (AnyInstance, PLAN.to_json(), f"field schema: {INSTANCES}, got 'schedrl/memory-plan/1'"),
        (AnyInstance, PACKING.to_json(), f"field schema: {INSTANCES}, got 'schedrl/offset-packing/1'"),
        (AnyInstance, '{"schema": ["x"]}', f"field schema: {INSTANCES}, got ['x']"),
        (
            AnyInstance,
            json.dumps(json.loads(LIFETIMES.to_json()) | {"size": [3, 0]}),
            "two: field size: buffer 1 has 0, expected at least 1",
        ),
        (
            AnyInstance,
            json.dumps(json.loads(PROGRAM.to_json()) | {"ops": [{"flops": 1, "reads": [999]}]}),
            "field ops[0]: unknown operand 999",
        ),
        (AnySolution, "nope", "not valid JSON: Expecting value"),
        (AnySolution, LIFETIMES.to_json(), f"field schema: {SOLUTIONS}, got 'schedrl/offset-packing-instance/1'"),
        (AnySolution, '{"schema": {}}', f"field schema: {SOLUTIONS}, got {{}}"),
        (AnySolution, '{"schema": "schedrl/memory-plan/1"}', "field access_layer: expected integers, got None"),
        (AnySolution, '{"schema": "schedrl/offset-packing/1"}', "field offset: expected a list of integers, got None"),
    ],
)
def test_what_is_neither_is_refused_in_one_line(reader: Any, content: str, message: str) -> None:
    error = InstanceError if reader is AnyInstance else SolutionError
    with pytest.raises(error, match=f"^f.json: {re.escape(message)}") as caught:
        reader.from_json(content, source="f.json")
    assert "\n" not in str(caught.value)


def test_readers_give_the_types_of_the_family() -> None:
    assert isinstance(AnyInstance.from_json(PROGRAM.to_json()), MemoryMapInstance)
    assert isinstance(AnyInstance.from_json(LIFETIMES.to_json()), OffsetPackingInstance)
