"""Devices with layers of memory: what they refuse, and their plain data."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.devices.memory import MemoryDevice, MemoryLayer, memory_device_from_dict
from schedrl.errors import ConfigError

RATES = st.floats(1e-3, 1e15)
HUGE = 10**400


def layer(name: str = "fast", **fields: Any) -> MemoryLayer:
    return MemoryLayer(**{"name": name, "read_bytes_per_s": 2.0, "write_bytes_per_s": 3.0} | fields)


def device(**fields: Any) -> MemoryDevice:
    layers = (layer("slow"), layer(capacity_bytes=64))
    return MemoryDevice(**{"name": "npu", "flops_per_s": 1e12, "layers": layers} | fields)


def test_defaults() -> None:
    plain = device()
    assert (plain.overhead_window_bytes, plain.supply, plain.outstanding_copies) == (0.0, "idle", 40)
    assert (plain.layers[0].capacity_bytes, plain.layers[0].alignment_bytes) == (None, 1)
    assert device(layers=list(plain.layers)) == plain
    assert hash(device()) == hash(plain)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"read_bytes_per_s": 0.0}, "field read_bytes_per_s: 0.0, expected a positive number"),
        ({"read_bytes_per_s": float("inf")}, "field read_bytes_per_s: inf"),
        ({"read_bytes_per_s": True}, "field read_bytes_per_s: True"),
        ({"write_bytes_per_s": -1}, "field write_bytes_per_s: -1"),
        ({"write_bytes_per_s": float("nan")}, "field write_bytes_per_s: nan"),
        ({"write_bytes_per_s": "fast"}, "field write_bytes_per_s: 'fast'"),
        ({"write_bytes_per_s": HUGE}, "field write_bytes_per_s: 1000"),
        ({"capacity_bytes": 0}, "field capacity_bytes: 0, expected an integer of at least 1"),
        ({"capacity_bytes": 2.0}, "field capacity_bytes: 2.0"),
        ({"alignment_bytes": 0}, "field alignment_bytes: 0, expected an integer of at least 1"),
        ({"alignment_bytes": None}, "field alignment_bytes: None"),
    ],
)
def test_a_bad_layer_is_refused_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^memory layer fast: {re.escape(message)}") as caught:
        layer(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": (layer("slow"),)}, "field layers: 1, expected a slow one and at least one fast one"),
        ({"layers": (layer("slow"), layer("sram"))}, "field layers: fast layer sram needs capacity_bytes"),
        ({"flops_per_s": 0}, "field flops_per_s: 0, expected a positive number"),
        ({"flops_per_s": float("inf")}, "field flops_per_s: inf"),
        ({"flops_per_s": "1e12"}, "field flops_per_s: '1e12'"),
        ({"flops_per_s": HUGE}, "field flops_per_s: 1000"),
        ({"overhead_window_bytes": -0.5}, "field overhead_window_bytes: -0.5, expected >= 0"),
        ({"overhead_window_bytes": None}, "field overhead_window_bytes: None"),
        ({"supply": "half"}, "field supply: 'half', expected one of idle, elapsed"),
        ({"outstanding_copies": -1}, "field outstanding_copies: -1, expected >= 0"),
        ({"outstanding_copies": 1.0}, "field outstanding_copies: 1.0"),
    ],
)
def test_a_bad_device_is_refused_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^memory device npu: {re.escape(message)}") as caught:
        device(**fields)
    assert "\n" not in str(caught.value)


def test_another_capacity_of_one_layer() -> None:
    three = device(layers=(layer("slow"), layer("llc", capacity_bytes=64), layer("sram", capacity_bytes=8)))
    capacities = [part.capacity_bytes for part in three.with_capacity(32).layers]
    assert capacities == [None, 32, 8]
    assert [part.capacity_bytes for part in three.with_capacity(4, layer=2).layers] == [None, 64, 4]
    assert three.layers[1].capacity_bytes == 64
    with pytest.raises(ConfigError, match="memory layer llc: field capacity_bytes: 0"):
        three.with_capacity(0)


@st.composite
def devices(draw: st.DrawFn) -> MemoryDevice:
    count = draw(st.integers(1, 3))
    slow = MemoryLayer(name="slow", read_bytes_per_s=draw(RATES), write_bytes_per_s=draw(RATES))
    fast = [
        MemoryLayer(
            name=f"fast{k}",
            read_bytes_per_s=draw(RATES),
            write_bytes_per_s=draw(RATES),
            capacity_bytes=draw(st.integers(1, 2**40)),
            alignment_bytes=draw(st.integers(1, 4096)),
        )
        for k in range(count)
    ]
    return MemoryDevice(
        name=draw(st.text(max_size=8)),
        flops_per_s=draw(RATES),
        layers=(slow, *fast),
        overhead_window_bytes=draw(st.floats(0, 1e6)),
        supply=draw(st.sampled_from(["idle", "elapsed"])),
        outstanding_copies=draw(st.integers(0, 100)),
    )


@given(devices())
def test_plain_data_round_trip(one: MemoryDevice) -> None:
    assert memory_device_from_dict(json.loads(json.dumps(one.to_dict())), where="x") == one


def broken(**fields: Any) -> dict[str, Any]:
    return device().to_dict() | fields


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "expected a mapping with a list of layers, got None"),
        ({"name": "npu"}, "expected a mapping with a list of layers, got {'name': 'npu'}"),
        (broken(layers="slow"), "expected a mapping with a list of layers"),
        (broken(layers=[3, 4]), "argument after ** must be a mapping, not int"),
        (broken(layers=[{"name": "slow"}]), "missing 2 required keyword-only arguments: 'read_bytes_per_s' and 'write"),
        (broken(cores=4), "got an unexpected keyword argument 'cores'"),
        (broken(flops_per_s="fast"), "memory device npu: field flops_per_s: 'fast', expected a positive number"),
        (broken(outstanding_copies=None), "memory device npu: field outstanding_copies: None, expected >= 0"),
    ],
)
def test_bad_plain_data_is_refused_in_one_line(data: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^chip.json: .*{re.escape(message)}") as caught:
        memory_device_from_dict(data, where="chip.json")
    assert "\n" not in str(caught.value)
