"""The program: what it derives from its arrays, its plain data, and what it refuses."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.generators import arbitrary, layered
from schedrl.envs.memmap.instance import MAX_BYTES, SCHEMA, MemoryMapInstance
from schedrl.errors import InstanceError

SEEDS = st.integers(0, 2**32 - 1)
MEMORY = MemoryDevice(
    name="npu",
    flops_per_s=4.0,
    layers=(
        MemoryLayer(name="slow", read_bytes_per_s=1.0, write_bytes_per_s=1.0),
        MemoryLayer(name="fast", read_bytes_per_s=10.0, write_bytes_per_s=10.0, capacity_bytes=3 << 19),
    ),
)
HUGE = 10**400


def make(**fields: Any) -> MemoryMapInstance:
    """Return: operation 0 reads 0 and writes 1; 1 reads 1 and 0 and writes 2 and 3; 2 reads 3."""
    own: dict[str, Any] = {
        "name": "small",
        "memory": MEMORY,
        "flops": [8.0, 2.0, 0.0],
        "size": [4, 6, 8, 2],
        "output": [False, False, True, False],
        "access_op": [0, 0, 1, 1, 1, 1, 2],
        "access_buffer": [0, 1, 1, 0, 2, 3, 3],
        "access_write": [False, True, False, False, True, True, False],
    }
    return MemoryMapInstance(**own | fields)


def program(**fields: Any) -> dict[str, Any]:
    ops = [{"flops": 1, "reads": [0], "writes": [1]}, {"flops": 2, "reads": [1], "writes": [2]}]
    return {"name": "p", "ops": ops, "buffers": [{"size": 4}, {"size": 6}, {"size": 8, "output": True}]} | fields


def read(**fields: Any) -> MemoryMapInstance:
    return MemoryMapInstance.from_program(program(**fields), memory=MEMORY, source="p.json")


def with_op(**fields: Any) -> dict[str, Any]:
    """Return fields of ``program`` whose second operation differs."""
    return {"ops": [program()["ops"][0], program()["ops"][1] | fields]}


def test_numbers_and_defaults() -> None:
    instance = make()
    assert (instance.ops, instance.buffers, instance.accesses, instance.layers, instance.groups) == (3, 4, 7, 2, 0)
    assert instance.size_label == "1.5 MiB"
    assert instance.access_bytes is not None and instance.access_bytes.tolist() == [4, 6, 6, 4, 8, 2, 2]
    assert instance.access_group is not None and instance.access_group.tolist() == [-1] * 7
    assert instance.trips is not None and instance.trips.tolist() == [1, 1, 1]
    assert instance.op_labels == ("0", "1", "2")
    assert instance.buffer_labels == ("0", "1", "2", "3")
    assert instance.objective == "latency"


def test_derived_tables() -> None:
    instance = make()
    assert instance.definition.tolist() == [-1, 0, 1, 1]
    assert instance.op_offset.tolist() == [0, 2, 6, 7]
    offset, order = instance.by_buffer
    assert offset.tolist() == [0, 2, 4, 5, 7]
    assert order.tolist() == [0, 3, 1, 2, 4, 5, 6]


def test_operations_without_accesses_own_empty_ranges() -> None:
    instance = make(flops=[0, 8, 0, 2, 0, 0], access_op=[1, 1, 3, 3, 3, 3, 4])
    assert instance.op_offset.tolist() == [0, 0, 2, 2, 6, 7, 7]
    assert instance.definition.tolist() == [-1, 1, 3, 3]


def test_compute_time_is_given_or_follows_from_flops() -> None:
    assert make().compute.tolist() == [2.0, 0.5, 0.0]
    assert make(compute_s=[np.nan, 7.0, 0.0]).compute.tolist() == [2.0, 7.0, 0.0]


def test_groups_are_counted_by_the_highest() -> None:
    assert make(access_group=[-1, 0, 0, -1, 2, -1, -1]).groups == 3


def test_arrays_are_frozen_copies() -> None:
    size = np.array([4, 6, 8, 2])
    instance = make(size=size)
    size[0] = 99
    assert instance.size.tolist() == [4, 6, 8, 2]
    for field in ("flops", "size", "access_op", "access_bytes", "trips"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(instance, field)[0] = 1


def test_equality_is_by_content() -> None:
    assert make() == make()
    assert hash(make()) == hash(make())
    assert make(compute_s=[np.nan, 1.0, np.nan]) == make(compute_s=[np.nan, 1.0, np.nan])
    other: dict[str, Any]
    for other in ({"name": "x"}, {"trips": [1, 2, 1]}, {"output": [True] * 4}, {"op_labels": ("a", "b", "c")}):
        assert make(**other) != make()
    assert make() != "small"


def test_another_device_keeps_the_program() -> None:
    other = MEMORY.with_capacity(16 << 20)
    moved = make().with_memory(other)
    assert (moved.name, moved.size_label, moved.memory) == ("small", "16 MiB", other)
    assert make().with_memory(other, name="renamed").name == "renamed"
    assert moved.with_memory(MEMORY) == make()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flops": [[1.0, 2.0]]}, "field flops: expected float64 values in a row, got float64"),
        ({"flops": ["a", "b", "c"]}, "field flops: expected float64 values in a row, got <U1"),
        ({"size": [4.0, 6.0, 8.0, 2.0]}, "field size: expected int64 values in a row, got float64"),
        ({"size": 4}, "field size: expected int64 values in a row, got int64"),
        ({"output": [0, 0, 1, 0]}, "field output: expected bool values in a row, got int64"),
        ({"access_buffer": [0.5] * 7}, "field access_buffer: expected int32 values in a row, got float64"),
        ({"size": [4, 6, 8, MAX_BYTES + 1]}, f"field size: a value beyond {MAX_BYTES}"),
        ({"access_group": [2**31] * 7}, "field access_group: a value outside int32"),
        ({"access_buffer": [-(2**32), 1, 1, 0, 2, 3, 3]}, "field access_buffer: a value outside int32"),
        ({"trips": [1, 1]}, "field trips: 2 values, expected 3"),
        ({"compute_s": [1.0]}, "field compute_s: 1 values, expected 3"),
        ({"op_labels": ("a",)}, "field op_labels: 1 values, expected 3"),
        ({"output": [True]}, "field output: 1 values, expected 4"),
        ({"buffer_labels": ("a", "b")}, "field buffer_labels: 2 values, expected 4"),
        ({"access_buffer": [0]}, "field access_buffer: 1 values, expected 7"),
        ({"access_write": [True]}, "field access_write: 1 values, expected 7"),
        ({"access_bytes": [1, 2]}, "field access_bytes: 2 values, expected 7"),
        ({"access_group": [0]}, "field access_group: 1 values, expected 7"),
        (
            {"access_op": [], "access_buffer": [], "access_write": []},
            "field access_op: a program without accesses has nothing to decide",
        ),
        ({"flops": [1.0, -2.0, 0.0]}, "field flops: entry 1 is -2.0, expected a finite number >= 0"),
        ({"flops": [1.0, 0.0, np.nan]}, "field flops: entry 2 is nan, expected a finite number >= 0"),
        ({"flops": [np.inf, 0.0, 0.0]}, "field flops: entry 0 is inf, expected a finite number >= 0"),
        ({"compute_s": [np.nan, -1.0, 0.0]}, "field compute_s: entry 1 is -1.0, expected a finite number >= 0"),
        ({"compute_s": [np.nan, np.inf, 0.0]}, "field compute_s: entry 1 is inf, expected a finite number >= 0"),
        ({"trips": [1, 0, 1]}, "field trips: entry 1 is 0, expected at least 1"),
        ({"size": [4, 6, -8, 2]}, "field size: entry 2 is -8, expected at least 1 byte"),
        ({"size": [4, 0, 8, 2]}, "field size: entry 1 is 0, expected at least 1 byte"),
        ({"access_bytes": [4, 6, 6, 4, 8, 2, -1]}, "field access_bytes: entry 6 is -1, expected >= 0"),
        ({"access_op": [0, 0, 1, 1, 1, 1, 3]}, "field access_op: entry 6 is 3, expected an operation, 0 to 2"),
        ({"access_op": [-1, 0, 1, 1, 1, 1, 2]}, "field access_op: entry 0 is -1, expected an operation, 0 to 2"),
        (
            {"access_op": [0, 0, 1, 1, 2, 1, 2]},
            "field access_op: entry 5 is 1, expected accesses in the order of operations",
        ),
        (
            {"access_buffer": [0, 1, 1, 0, 2, 3, 4]},
            "field access_buffer: entry 6 is 4, unknown operand, expected 0 to 3",
        ),
        (
            {"access_buffer": [0, 1, -1, 0, 2, 3, 3]},
            "field access_buffer: entry 2 is -1, unknown operand, expected 0 to 3",
        ),
        ({"access_group": [-2] * 7}, "field access_group: entry 0 is -2, expected -1 or a group"),
        ({"size": [MAX_BYTES // 2] * 4}, f"field size: the sum exceeds {MAX_BYTES}"),
        (
            {"access_write": [False, True, False, True, False, True, False], "access_buffer": [0, 1, 1, 2, 0, 3, 3]},
            "field access_write: operation 1 has a result before an operand",
        ),
        (
            {"access_buffer": [0, 1, 1, 0, 2, 1, 3]},
            "buffer 1 is defined by operations 0 and 1, expected one definition",
        ),
        (
            {"access_buffer": [0, 1, 1, 0, 2, 2, 3], "buffer_labels": ("a", "b", "c", "d")},
            "buffer c is defined by operations 1 and 1, expected one definition",
        ),
        (
            {"access_buffer": [2, 1, 1, 0, 2, 3, 3], "op_labels": ("load", "mul", "out")},
            "operation load uses buffer 2 before its definition by operation mul",
        ),
        (
            {"access_buffer": [0, 1, 1, 2, 2, 3, 3]},
            "operation 1 uses buffer 2 before its definition by operation 1",
        ),
    ],
)
def test_a_broken_instance_is_refused_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InstanceError) as caught:
        make(**fields)
    assert str(caught.value) == f"small: {message}"


def test_a_program_of_plain_data() -> None:
    ops = [
        {"flops": 3, "reads": [0], "writes": [1], "read_bytes": [2], "label": "gather", "seconds": 0.25},
        {"flops": 0, "reads": [1], "writes": [2], "groups": [5, 5], "trips": 7},
        {"flops": 0},
    ]
    buffers = [{"size": 4, "label": "w"}, {"size": 6, "uses": [1]}, {"size": 6, "uses": [3]}]
    instance = read(ops=ops, buffers=buffers, extra="left alone")
    assert instance.access_bytes is not None and instance.access_bytes.tolist() == [2, 6, 6, 6]
    assert instance.access_group is not None and instance.access_group.tolist() == [-1, -1, 5, 5]
    assert instance.trips is not None and instance.trips.tolist() == [1, 7, 1]
    assert instance.compute.tolist() == [0.25, 0.0, 0.0]
    assert instance.output.tolist() == [False, False, True], "a use after the last operation is an output"
    assert instance.op_labels == ("gather", "1", "2")
    assert instance.buffer_labels == ("w", "1", "2")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": 3}, "field name: expected str, got 3"),
        ({"ops": {}}, "field ops: expected a list of objects, got {}"),
        ({"ops": None}, "field ops: expected a list of objects, got None"),
        ({"buffers": [4]}, "field buffers: expected a list of objects, got [4]"),
        ({"ops": []}, "p: field access_op: a program without accesses has nothing to decide"),
        (with_op(reads=[7]), "field ops[1]: unknown operand 7, there are buffers 0 to 2"),
        (with_op(writes=[-1]), "field ops[1]: unknown operand -1, there are buffers 0 to 2"),
        (with_op(reads=1), "field ops[1].reads: expected a list of integers, got 1"),
        (with_op(writes=["2"]), "field ops[1].writes: expected a list of integers, got ['2']"),
        (with_op(reads=[True]), "field ops[1].reads: expected a list of integers, got [True]"),
        (with_op(read_bytes=[1, 2]), "field ops[1]: expected read_bytes, write_bytes and groups for 2 accesses"),
        (with_op(write_bytes=[]), "field ops[1]: expected read_bytes, write_bytes and groups for 2 accesses"),
        (with_op(groups=[0]), "field ops[1]: expected read_bytes, write_bytes and groups for 2 accesses"),
        (with_op(read_bytes=[1.5]), "field ops[1].read_bytes: expected a list of integers, got [1.5]"),
        (with_op(groups=[0, HUGE]), "field ops[1].groups: expected a list of integers, got [0, 1000"),
        (with_op(groups=[-(2**40), 0]), "p: field access_group: a value outside int32"),
        (with_op(flops=None), "field ops[1].flops: expected a number, got None"),
        (with_op(flops="2"), "field ops[1].flops: expected a number, got '2'"),
        (with_op(flops=HUGE), "field ops[1].flops: expected a number, got one beyond float64"),
        (with_op(flops=-1), "p: field flops: entry 1 is -1.0, expected a finite number >= 0"),
        (with_op(seconds=True), "field ops[1].seconds: expected a number, got True"),
        (with_op(trips=1.0), "field ops[1].trips: expected an integer, got 1.0"),
        (with_op(trips=0), "p: field trips: entry 1 is 0, expected at least 1"),
        ({"buffers": [{"size": 4}, {}, {"size": 8}]}, "field buffers[1].size: expected an integer, got None"),
        ({"buffers": [{"size": 4}, {"size": 6}, {"size": 8.0}]}, "field buffers[2].size: expected an integer, got 8.0"),
        (
            {"buffers": [{"size": 4}, {"size": -6}, {"size": 8}]},
            "p: field size: entry 1 is -6, expected at least 1 byte",
        ),
        (with_op(writes=[1], reads=[0]), "p: buffer 1 is defined by operations 0 and 1, expected one definition"),
        (
            {"ops": [program()["ops"][0] | {"reads": [2]}, program()["ops"][1]]},
            "p: operation 0 uses buffer 2 before its definition by operation 1",
        ),
    ],
)
def test_a_broken_program_is_refused_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InstanceError) as caught:
        read(**fields)
    assert str(caught.value).startswith(f"p.json: {message}")
    assert str(caught.value).count("p.json") == 1
    assert "\n" not in str(caught.value)


@given(SEEDS, st.integers(1, 12), st.integers(1, 3), st.sampled_from(["idle", "elapsed"]))
def test_json_round_trip_of_programs_without_structure(seed: int, ops: int, fast: int, supply: str) -> None:
    instance = arbitrary(np.random.default_rng(seed), ops=ops, fast_layers=fast, groups=0.5, supply=supply)
    assert MemoryMapInstance.from_json(instance.to_json()) == instance


@given(SEEDS, st.booleans())
def test_json_round_trip_of_networks_with_times_and_labels(seed: int, train: bool) -> None:
    rng = np.random.default_rng(seed)
    plain = layered(rng, layers=4, train=train)
    seconds = np.where(rng.random(plain.ops) < 0.5, np.nan, rng.random(plain.ops))
    labels = tuple(f"op {t}" if rng.random() < 0.5 else str(t) for t in range(plain.ops))
    names = tuple(rng.choice(["w", "x", "ä"]) for _ in range(plain.buffers))
    instance = replace(plain, compute_s=seconds, op_labels=labels, buffer_labels=names)
    again = MemoryMapInstance.from_json(instance.to_json())
    assert again == instance
    assert again.compute.tolist() == instance.compute.tolist()


def text(**fields: Any) -> str:
    return json.dumps({"schema": SCHEMA, "memory": MEMORY.to_dict(), **program()} | fields)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON: Expecting property name"),
        ("[" * 100_000, "not valid JSON: "),
        ("[]", f"field schema: expected {SCHEMA!r}"),
        (text(schema="schedrl/memory-map-instance/2"), f"field schema: expected {SCHEMA!r}"),
        (text(memory=None), "field memory: expected a mapping with a list of layers, got None"),
        (text(memory=MEMORY.to_dict() | {"flops_per_s": 0}), "field memory: memory device npu: field flops_per_s: 0"),
        (text(memory=MEMORY.to_dict() | {"cores": 2}), "field memory: got an unexpected keyword argument 'cores'"),
        (text(name=None), "field name: expected str, got None"),
        (text(buffers=[{"size": 1}]), "field ops[0]: unknown operand 1, there are buffers 0 to 0"),
        (text().replace('"flops": 1', '"flops": 1e999'), "p: field flops: entry 0 is inf, expected a finite number"),
        (text().replace('"flops": 1', '"flops": NaN'), "p: field flops: entry 0 is nan, expected a finite number"),
    ],
)
def test_broken_json_is_refused_in_one_line(content: str, message: str) -> None:
    with pytest.raises(InstanceError, match=f"^p.json: {re.escape(message)}") as caught:
        MemoryMapInstance.from_json(content, source="p.json")
    assert "\n" not in str(caught.value)
