"""The shop of any variant validates itself, is frozen, compares by content and survives JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.envs.jobshop.instance import MAX_TIME, JobShopInstance
from schedrl.envs.jobshop.shop import NO_DUE_DATE, ShopInstance
from schedrl.errors import InstanceError

SCHEMA = "schedrl/shop-instance/1"
# Two jobs, the first of two operations of which the second has a choice.
FIELDS: dict[str, Any] = {
    "name": "x",
    "machines": 2,
    "job_offset": [0, 2, 3],
    "mode_offset": [0, 1, 3, 4],
    "machine": [0, 0, 1, 1],
    "duration": [3, 5, 0, 2],
}
DATED: dict[str, Any] = {
    **FIELDS,
    "actual_duration": [3, 6, 1, 2],
    "release": [0, 4],
    "due": [9, NO_DUE_DATE],
    "weight": [1.5, 2.0],
    "setup_family": [0, 1, 1],
    "setup": [[[0, 1], [2, 0]], [[0, 0], [0, 3]]],
    "outage_offset": [0, 2, 2],
    "outage_start": [1, 7],
    "outage_end": [4, 8],
    "announced": False,
    "objective_weights": (0.0, 1.0, 0.5),
}
ONE_MODE: dict[str, Any] = {**FIELDS, "mode_offset": [0, 1, 2, 3], "machine": [0, 1, 1], "duration": [3, 5, 2]}


def test_sizes_and_defaults() -> None:
    shop = ShopInstance(**FIELDS)
    assert (shop.jobs, shop.machines, shop.operations, shop.modes, shop.size_label) == (2, 2, 3, 4, "2x2")
    assert shop.job.tolist() == [0, 0, 1]
    assert shop.mode_operation.tolist() == [0, 1, 1, 2]
    assert shop.least_duration.tolist() == [3, 0, 2]
    assert shop.actual_duration.tolist() == [3, 5, 0, 2]
    assert shop.release.tolist() == [0, 0] and shop.due.tolist() == [NO_DUE_DATE] * 2
    assert shop.weight.tolist() == [1.0, 1.0] and shop.setup_family.tolist() == [0, 0, 0]
    assert shop.setup.shape == (2, 1, 1) and not shop.setup.any()
    assert shop.outage_offset.tolist() == [0, 0, 0] and len(shop.outage_start) == len(shop.outage_end) == 0
    assert shop.objective == "makespan" and shop.flexible and shop.certain and shop.blocking == "none"


@pytest.mark.parametrize(
    ("weights", "objective"),
    [
        ((0.0, 1.0, 0.0), "total_weighted_tardiness"),
        ((0.0, 0.0, 1.0), "total_weighted_flow_time"),
        ((1.0, 1.0, 0.0), "weighted_objective"),
        ((2.0, 0.0, 0.0), "weighted_objective"),
    ],
)
def test_objective_is_named(weights: tuple[float, float, float], objective: str) -> None:
    assert ShopInstance(**DATED | {"objective_weights": weights}).objective == objective


@pytest.mark.parametrize(
    ("change", "certain"),
    [
        ({}, True),
        ({"announced": False}, True),
        ({"release": [0, 4]}, True),
        ({"release": [0, 4], "announced": False}, False),
        ({"actual_duration": [3, 5, 1, 2]}, False),
        ({"outage_offset": [0, 1, 1], "outage_start": [1], "outage_end": [2]}, False),
    ],
)
def test_certain_when_all_is_known_beforehand(change: dict[str, Any], certain: bool) -> None:
    assert ShopInstance(**FIELDS | change).certain is certain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"machines": 0}, "x: field machines: 0, expected 1 to"),
        ({"machines": 2.5}, "x: field machines: 2.5, expected 1 to"),
        ({"name": 3}, "field name: 3, expected text"),
        ({"announced": "no"}, "x: field announced: 'no', expected true or false"),
        ({"objective_weights": [1.0, 0.0, 0.0]}, "x: field objective_weights: .*expected three numbers"),
        ({"objective_weights": (10**400, 0, 0)}, "x: field objective_weights: .*expected three numbers"),
        ({"job_offset": [0]}, "x: field job_offset: expected at least two numbers"),
        ({"job_offset": [0, 2]}, "x: field job_offset: must run from 0 to the 3 operations"),
        ({"job_offset": [0, 3, 3]}, "x: field job_offset: job 1 has 0 operations"),
        ({"job_offset": [[0, 3]]}, "x: field job_offset: expected at least two numbers"),
        ({"mode_offset": [0, 1, 3, 5]}, "x: field mode_offset: must run from 0 to the 4 modes"),
        ({"mode_offset": [0, 1, 1, 4]}, "x: field mode_offset: operation 1 has 0 modes"),
        ({"machine": [0, 0, 2, 1]}, "x: field machine: mode 2 uses machine 2, expected 0 to 1"),
        ({"machine": [0, -1, 1, 1]}, "x: field machine: mode 1 uses machine -1, expected 0 to 1"),
        ({"machine": [0, 2**40, 1, 1]}, "x: field machine: value outside int32"),
        ({"duration": [3, 5, 0]}, "x: field duration: 3 values, expected 4"),
        ({"duration": [3, -5, 0, 2], "actual_duration": [3, 5, 0, 2]}, "x: field duration: entry 1 is -5"),
        ({"duration": [3, 0.5, 0, 2]}, "x: field duration: expected a 1-dimensional integer array, got float64"),
        ({"duration": [MAX_TIME, 5, 0, 2]}, "x: field duration: all operations one after another take more than"),
        ({"actual_duration": [3, 5]}, "x: field actual_duration: 2 values, expected 4"),
        ({"actual_duration": [3, 5, 0, -1]}, "x: field actual_duration: entry 3 is -1, expected 0 to"),
        ({"release": [0]}, "x: field release: 1 values, expected 2"),
        ({"release": [0, -1]}, "x: field release: entry 1 is -1, expected 0 to"),
        ({"release": [0, MAX_TIME]}, "x: field duration: all operations one after another"),
        ({"due": [1, 2, 3]}, "x: field due: 3 values, expected 2"),
        ({"due": [1, MAX_TIME + 1]}, "x: field due: entry 1 is"),
        ({"weight": [1.0]}, "x: field weight: 1 values, expected 2"),
        ({"weight": [1.0, float("nan")]}, "x: field weight: entry 1 is nan"),
        ({"weight": [True, True]}, "x: field weight: expected a 1-dimensional number array, got bool"),
        ({"setup_family": [0]}, "x: field setup_family: 1 values, expected 3"),
        ({"setup_family": [0, 1, 0]}, "x: field setup_family: expected 0 to 0"),
        ({"setup_family": [0, -1, 0]}, "x: field setup_family: expected 0 to 0"),
        ({"setup": [[0]]}, "x: field setup: expected a 3-dimensional integer array"),
        ({"setup": [[[0]]]}, r"x: field setup: shape \(1, 1, 1\), expected \(2, families, families\)"),
        ({"setup": [[[0, 1]], [[0, 1]]]}, r"x: field setup: shape \(2, 1, 2\)"),
        ({"setup": [[[0]], [[-1]]]}, "x: field setup: entry 1 is -1"),
        ({"setup": [[[0]], [[MAX_TIME]]]}, "x: field duration: all operations one after another"),
        ({"setup": [[[0]], [[1, 2]]]}, "x: field setup: rows of unequal length"),
        ({"outage_offset": [0, 0]}, "x: field outage_offset: 2 values, expected 3"),
        ({"outage_offset": [0, 0, 1]}, "x: field outage_offset: must run from 0 to the 0 outages"),
        (
            {"outage_offset": [0, 2, 1], "outage_start": [1], "outage_end": [2]},
            "x: field outage_offset: machine 1 has -1 outages",
        ),
        (
            {"outage_offset": [0, 0, 1], "outage_start": [1], "outage_end": []},
            "x: field outage_end: 0 values, expected 1",
        ),
        (
            {"outage_offset": [0, 0, 1], "outage_start": [-1], "outage_end": [2]},
            "x: field outage_start: entry 0 is -1",
        ),
        (
            {"outage_offset": [0, 0, 1], "outage_start": [1], "outage_end": [1]},
            "x: field outage_end: outages of machine 1 must last and follow each other in time",
        ),
        (
            {"outage_offset": [0, 2, 2], "outage_start": [1, 3], "outage_end": [4, 5]},
            "x: field outage_end: outages of machine 0 must last and follow",
        ),
        ({"blocking": "maybe"}, "x: field blocking: 'maybe', expected one of none, swap, no-swap"),
        ({"blocking": "swap"}, "x: field blocking: swap needs one mode per operation and no setups"),
        ({"objective_weights": (1.0, 0.0)}, r"x: field objective_weights: \(1.0, 0.0\), expected three numbers"),
        ({"objective_weights": (0.0, 0.0, 0.0)}, "x: field objective_weights: .*one of them above 0"),
        ({"objective_weights": (1.0, -1.0, 0.0)}, "x: field objective_weights: .*from 0 on"),
        ({"objective_weights": (float("nan"), 0.0, 1.0)}, "x: field objective_weights"),
        ({"objective_weights": (float("inf"), 0.0, 1.0)}, "x: field objective_weights"),
        ({"objective_weights": (1.0, 1.0, 0.0)}, "x: field due: no job has a due date"),
    ],
)
def test_bad_field_is_named_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InstanceError, match=message) as error:
        ShopInstance(**FIELDS | change)
    assert "\n" not in str(error.value)


def test_blocking_refuses_setups() -> None:
    assert ShopInstance(**ONE_MODE, blocking="no-swap").blocking == "no-swap"
    with pytest.raises(InstanceError, match="no-swap needs one mode per operation and no setups"):
        ShopInstance(**ONE_MODE, blocking="no-swap", setup=np.ones((2, 1, 1), dtype=np.int64))


def test_arrays_are_frozen_copies() -> None:
    duration = np.array(FIELDS["duration"])
    shop = ShopInstance(**FIELDS | {"duration": duration})
    duration[0] = 7
    assert shop.duration.tolist() == [3, 5, 0, 2] and shop.duration.dtype == np.int64
    for field in ("duration", "release", "setup", "weight"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(shop, field)[...] = 7
    with pytest.raises(dataclasses.FrozenInstanceError):
        shop.machines = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "y"},
        {"machine": [0, 1, 1, 1]},
        {"duration": [3, 5, 1, 2]},
        {"actual_duration": [3, 7, 1, 2]},
        {"release": [0, 5]},
        {"due": [9, 9]},
        {"weight": [1.5, 2.5]},
        {"setup_family": [0, 0, 1]},
        {"setup": [[[0, 1], [2, 0]], [[0, 0], [1, 3]]]},
        {"outage_end": [4, 9]},
        {"outage_offset": [0, 1, 2]},
        {"announced": True},
        {"objective_weights": (0.0, 1.0, 0.0)},
    ],
)
def test_equality_sees_every_field(change: dict[str, Any]) -> None:
    shop = ShopInstance(**DATED)
    assert shop == ShopInstance(**DATED) and hash(shop) == hash(ShopInstance(**DATED))
    assert shop != ShopInstance(**DATED | change)
    assert shop != "shop"


def test_a_job_shop_is_a_shop() -> None:
    instance = JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(1, 4)]], name="small")
    shop = ShopInstance.from_job_shop(instance, blocking="swap", due=[9, 9])
    assert (shop.name, shop.machines, shop.operations, shop.modes) == ("small", 2, 3, 3)
    assert shop.machine.tolist() == [0, 1, 1] and shop.duration.tolist() == [3, 2, 4]
    assert not shop.flexible and shop.blocking == "swap" and shop.due.tolist() == [9, 9]


@st.composite
def shops(draw: st.DrawFn) -> ShopInstance:
    """Draw shops in which each optional field is given or left out."""
    machines = draw(st.integers(1, 3))
    lengths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    jobs, operations = len(lengths), sum(lengths)
    choices = draw(st.lists(st.integers(1, 3), min_size=operations, max_size=operations))
    families = draw(st.integers(1, 3))
    times = st.integers(0, 10**6)

    def array(count: int, values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
        return st.lists(values, min_size=count, max_size=count)

    outages = [sorted(draw(st.sets(times, max_size=4))) for _ in range(machines)]
    outages = [moments[: len(moments) // 2 * 2] for moments in outages]
    optional = {
        "actual_duration": array(sum(choices), times),
        "release": array(jobs, times),
        "due": array(jobs, times),
        "weight": array(jobs, st.floats(0, 1e6)),
        "setup_family": array(operations, st.just(0)),
        "setup": array(machines, array(families, array(families, times))),
        "outages": st.just(None),
        "announced": st.booleans(),
        "objective_weights": st.tuples(st.floats(0.5, 9), st.just(0.0), st.floats(0, 9)),
    }
    given = {name: draw(values) for name, values in optional.items() if draw(st.booleans())}
    if "outages" in given:
        del given["outages"]
        given["outage_offset"] = np.cumsum([0, *(len(moments) // 2 for moments in outages)])
        given["outage_start"] = [start for moments in outages for start in moments[::2]]
        given["outage_end"] = [end for moments in outages for end in moments[1::2]]
    return ShopInstance(
        name=draw(st.text()),
        machines=machines,
        job_offset=np.cumsum([0, *lengths]),
        mode_offset=np.cumsum([0, *choices]),
        machine=np.array(draw(array(sum(choices), st.integers(0, machines - 1)))),
        duration=np.array(draw(array(sum(choices), times))),
        **given,
    )


@settings(max_examples=50, deadline=None)
@given(shop=shops())
def test_json_round_trip(shop: ShopInstance) -> None:
    again = ShopInstance.from_json(shop.to_json())
    assert again == shop
    for field in dataclasses.fields(shop):
        value = getattr(again, field.name)
        assert type(value) is type(getattr(shop, field.name))
        assert not isinstance(value, np.ndarray) or value.dtype == getattr(shop, field.name).dtype


def test_json_leaves_defaults_out() -> None:
    assert set(json.loads(ShopInstance(**FIELDS).to_json())) == {"schema", *FIELDS}
    assert set(json.loads(ShopInstance(**DATED).to_json())) == {"schema", *DATED}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "schedrl/shop-instance/9"}, f"f.json: field schema: expected '{SCHEMA}'"),
        ({"colour": 3}, "f.json: field colour: unknown, expected some of name, machines, job_offset"),
        ({"name": 3}, "f.json: field name: expected str, got 3"),
        ({"machines": True}, "f.json: field machines: expected int, got True"),
        ({"duration": 3}, "f.json: field duration: expected list, got 3"),
        ({"blocking": None}, "f.json: field blocking: expected str, got None"),
        ({"announced": 1}, "f.json: field announced: expected bool, got 1"),
        ({"objective_weights": [True, 0, 0]}, "f.json: field objective_weights: expected numbers"),
        ({"objective_weights": [1, 0]}, "x: field objective_weights"),
        ({"duration": [3, 5, 0, 10**30]}, "x: field duration: expected a 1-dimensional integer array, got object"),
        ({"duration": [3, 5, [0], 2]}, "x: field duration: rows of unequal length"),
        ({"due": [1.5, 2]}, "x: field due: expected a 1-dimensional integer array, got float64"),
    ],
)
def test_bad_json_is_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InstanceError, match=message) as error:
        ShopInstance.from_json(json.dumps({"schema": SCHEMA, **FIELDS, **change}), source="f.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", list(FIELDS))
def test_missing_json_field_is_named(field: str) -> None:
    data = {"schema": SCHEMA, **FIELDS}
    del data[field]
    with pytest.raises(InstanceError, match=rf"f\.json: field {field}: missing"):
        ShopInstance.from_json(json.dumps(data), source="f.json")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00"])
def test_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(InstanceError, match=r"f\.json: not valid JSON"):
        ShopInstance.from_json(text, source="f.json")
