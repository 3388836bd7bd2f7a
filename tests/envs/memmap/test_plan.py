"""The plan as data: shapes that construction checks, plain data, and the table of residences."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.envs.memmap.generators import arbitrary
from schedrl.envs.memmap.plan import SCHEMA, MemoryPlan, slow_plan
from schedrl.envs.memmap.plan_check import check_plan, plan_objectives
from schedrl.errors import SolutionError

SEEDS = st.integers(0, 2**32 - 1)
ROWS = st.lists(st.lists(st.integers(-(2**60), 2**60), min_size=5, max_size=5), max_size=4)


def make(**fields: Any) -> MemoryPlan:
    own: dict[str, Any] = {"access_layer": [0, 1], "residences": [[0, 1, 8, 0, 2]], "copies": [[0, 1, 1, -1, 0]]}
    return MemoryPlan(**own | fields)


def test_arrays_have_their_types_and_are_frozen() -> None:
    plan = make(copies=[])
    assert (plan.access_layer.dtype, plan.residences.dtype, plan.copies.dtype) == (np.int8, np.int64, np.int64)
    assert (plan.access_layer.shape, plan.residences.shape, plan.copies.shape) == ((2,), (1, 5), (0, 5))
    with pytest.raises(ValueError, match="read-only"):
        plan.residences[0, 0] = 1


def test_equality_is_by_content() -> None:
    assert make() == make()
    assert hash(make()) == hash(make())
    other: dict[str, Any]
    for other in ({"access_layer": [1, 1]}, {"residences": []}, {"copies": [[0, 1, 1, -1, 1]]}):
        assert make(**other) != make()
    assert make() != "plan"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"access_layer": [[0], [1]]}, "field access_layer: expected integers in 1 columns"),
        ({"access_layer": [0.0, 1.0]}, "field access_layer: expected integers in 1 columns"),
        ({"access_layer": [-1]}, "field access_layer: expected layers 0 to 126"),
        ({"access_layer": [127]}, "field access_layer: expected layers 0 to 126"),
        ({"residences": [[0, 1, 2, 3]]}, "field residences: expected integers in 5 columns"),
        ({"residences": [0, 1, 2, 3, 4]}, "field residences: expected integers in 5 columns"),
        ({"copies": [[0, 1, 1, 0.5, 2]]}, "field copies: expected integers in 5 columns"),
    ],
)
def test_wrong_shapes_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SolutionError) as caught:
        make(**fields)
    assert str(caught.value) == f"plan: {message}"


@given(st.lists(st.integers(0, 126), max_size=6), ROWS, ROWS)
def test_json_round_trip(layers: list[int], residences: list[list[int]], copies: list[list[int]]) -> None:
    plan = make(access_layer=layers, residences=residences, copies=copies)
    assert MemoryPlan.from_json(plan.to_json()) == plan


def text(**fields: Any) -> str:
    return json.dumps({"schema": SCHEMA, "access_layer": [0, 1], "residences": [], "copies": []} | fields)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON: "),
        ("[" * 100_000, "not valid JSON: "),
        ("3", f"field schema: expected {SCHEMA!r}"),
        (text(schema="other"), f"field schema: expected {SCHEMA!r}"),
        (text(access_layer=None), "field access_layer: expected integers, got None"),
        (text(access_layer=[0, "1"]), "field access_layer: expected integers, got [0, '1']"),
        (text(access_layer=[[0], [1]]), "field access_layer: expected integers, got [[0], [1]]"),
        (text(access_layer=[True]), "field access_layer: expected integers, got [True]"),
        (text(access_layer=[200]), "plan: field access_layer: expected layers 0 to 126"),
        (text(residences=[[0, 1, 2, 3]]), "field residences: expected rows of 5 integers"),
        (text(residences=[0, 1, 2, 3, 4]), "field residences: expected rows of 5 integers"),
        (text(residences=[[0, 1, 2, 3, 4.5]]), "field residences: expected integers, got [[0, 1, 2, 3, 4.5]]"),
        (text(copies=[[0, 1, 1, 0, 2**60 + 1]]), "field copies: expected integers, got [[0, 1, 1, 0, 1152921504"),
        (text(copies=[[]]), "field copies: expected rows of 5 integers"),
    ],
)
def test_broken_json_is_refused_in_one_line(content: str, message: str) -> None:
    with pytest.raises(SolutionError, match=f"^plan.json: {re.escape(message)}") as caught:
        MemoryPlan.from_json(content, source="plan.json")
    assert "\n" not in str(caught.value)


def test_table_of_residences() -> None:
    instance = arbitrary(np.random.default_rng(0), ops=3)
    plan = MemoryPlan(
        access_layer=np.zeros(instance.accesses, dtype=np.int8),
        residences=np.array([[1, 1, 16, 0, 2], [0, 1, 0, 1, 1]]),
        copies=np.zeros((0, 5), dtype=np.int64),
    )
    assert plan.to_csv(instance) == "buffer,layer,offset,first,last\n1,fast1,16,0,2\n0,fast1,0,1,1\n"


@given(SEEDS, st.integers(1, 15), st.integers(1, 3))
def test_everything_slow_is_always_valid_and_saves_nothing(seed: int, ops: int, fast: int) -> None:
    instance = arbitrary(np.random.default_rng(seed), ops=ops, fast_layers=fast, groups=0.5)
    plan = slow_plan(instance)
    assert check_plan(instance, plan) == []
    found = plan_objectives(instance, plan)
    assert (found["relative_latency"], found["copied_bytes"], found["peak_bytes"]) == (1.0, 0.0, 0.0)
    assert found["elapsed"] == found["latency"]
