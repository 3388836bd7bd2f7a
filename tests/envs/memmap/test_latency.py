"""The time model against figures worked out by hand, and what holds of it for every program."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.arrays import I8
from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.generators import arbitrary
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import (
    bytes_moved,
    fast_bound_s,
    op_latency_s,
    program_latency_s,
    slow_bus_s,
    slow_latency_s,
)

SEEDS = st.integers(0, 2**32 - 1)


def device(*, window: float = 0.0, fast: int = 1) -> MemoryDevice:
    """Return a device that reads and writes 2 and 1 bytes per second, 20 and 10 in layer 1, 40 and 20 in layer 2."""
    layers = [MemoryLayer(name="slow", read_bytes_per_s=2.0, write_bytes_per_s=1.0)]
    for k in range(fast):
        rate = 10.0 * (k + 1)
        layers.append(
            MemoryLayer(name=f"fast{k + 1}", read_bytes_per_s=2 * rate, write_bytes_per_s=rate, capacity_bytes=100)
        )
    return MemoryDevice(name="unit", flops_per_s=5.0, layers=tuple(layers), overhead_window_bytes=window)


def two_ops(memory: MemoryDevice, **fields: Any) -> MemoryMapInstance:
    """Return: the first reads buffer 0 (8 bytes) and writes 1 (6), the second reads 1 and 4 bytes of 0, writes 2 (2).

    They compute for 3 and 1 seconds.
    """
    ops = [
        {"flops": 15, "reads": [0], "writes": [1]},
        {"flops": 5, "reads": [1, 0], "writes": [2], "read_bytes": [6, 4], "write_bytes": [2]} | fields,
    ]
    buffers = [{"size": 8}, {"size": 6}, {"size": 2, "output": True}]
    return MemoryMapInstance.from_program({"name": "two", "ops": ops, "buffers": buffers}, memory=memory)


def layers(*numbers: int) -> I8:
    return np.array(numbers, dtype=np.int8)


def test_bytes_by_operation_layer_and_direction() -> None:
    moved = bytes_moved(two_ops(device(fast=2)), layers(0, 2, 2, 0, 1))
    assert moved.shape == (2, 3, 2)
    assert moved[0].tolist() == [[8, 0], [0, 0], [0, 6]]
    assert moved[1].tolist() == [[4, 0], [0, 2], [6, 0]]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        # 8/2 + 6/1, and 10/2 + 2/1
        ((0, 0, 0, 0, 0), [10.0, 7.0]),
        # 8/20 + 6/10 takes less than computing; 10/20 + 2/10 too
        ((1, 1, 1, 1, 1), [3.0, 1.0]),
        # 8/2 + 6/10, and 6/20 + 4/2 + 2/1
        ((0, 1, 1, 0, 0), [4.6, 4.3]),
        # 8/20 + 6/1, and 6/2 + 4/20 + 2/10
        ((1, 0, 0, 1, 1), [6.4, 3.4]),
    ],
)
def test_an_operation_takes_the_longer_of_computing_and_moving(chosen: tuple[int, ...], expected: list[float]) -> None:
    instance = two_ops(device())
    assert op_latency_s(instance, layers(*chosen)) == pytest.approx(expected, rel=1e-12)
    assert program_latency_s(instance, layers(*chosen)) == pytest.approx(sum(expected), rel=1e-12)


def test_slow_bus_time_counts_the_slow_bytes_only() -> None:
    instance = two_ops(device())
    assert slow_bus_s(instance, bytes_moved(instance, layers(0, 1, 1, 0, 0))).tolist() == [4.0, 4.0]
    assert slow_bus_s(instance, bytes_moved(instance, layers(1, 1, 1, 1, 1))).tolist() == [0.0, 0.0]


def test_times_of_several_layers_add_up() -> None:
    instance = two_ops(device(fast=2))
    # 8/20 + 6/20 is less than 3 s of computing; 6/40 + 4/20 + 2/1
    assert op_latency_s(instance, layers(1, 2, 2, 1, 0)) == pytest.approx([3.0, 2.35], rel=1e-12)
    assert op_latency_s(instance, layers(2, 2, 2, 2, 2)).tolist() == [3.0, 1.0]


def test_trips_multiply_and_compute_time_may_be_given() -> None:
    instance = two_ops(device(), trips=3, seconds=20.0)
    assert op_latency_s(instance, layers(0, 0, 0, 0, 0)).tolist() == [10.0, 20.0]
    assert slow_latency_s(instance) == 10.0 + 3 * 20.0
    assert slow_latency_s(two_ops(device(), trips=3)) == 10.0 + 3 * 7.0


@pytest.mark.parametrize(
    ("window", "chosen", "expected"),
    [
        # 7 of 14 bytes are in the window: half of 3 s of computing is exposed; 7 of 12 bytes of 1 s
        (7.0, (0, 0, 0, 0, 0), [10.0 + 7 / 14 * 3.0, 7.0 + 7 / 12]),
        # a window larger than what is read slowly: all slow bytes count, 8 of 14 and 4 + 2 of 12
        (100.0, (0, 1, 1, 0, 0), [4.6 + 8 / 14 * 3.0, 4.3 + 6 / 12]),
        # computing hides it while the sum stays below: 8/20 + 6/10 + nothing
        (100.0, (1, 1, 1, 1, 1), [3.0, 1.0]),
        # 2 s of slow reads and 0.3 + 0.2 s of fast accesses, and 2 of the window's bytes
        (2.0, (1, 1, 1, 0, 1), [3.0, 2.5 + 2 / 12]),
    ],
)
def test_leading_slow_bytes_delay_the_computation(
    window: float, chosen: tuple[int, ...], expected: list[float]
) -> None:
    assert op_latency_s(two_ops(device(window=window)), layers(*chosen)) == pytest.approx(expected, rel=1e-12)


def test_operations_that_move_nothing_take_their_computation() -> None:
    ops = [{"flops": 10}, {"flops": 0, "reads": [0], "read_bytes": [0]}]
    data = {"name": "idle", "ops": ops, "buffers": [{"size": 4}]}
    instance = MemoryMapInstance.from_program(data, memory=device(window=9.0))
    assert op_latency_s(instance, layers(0)).tolist() == [2.0, 0.0]


def test_fast_bound_takes_the_fastest_layer_for_each_direction() -> None:
    # 3 s and 1 s of computing; without it, 8/20 + 6/10 and 10/20 + 2/10.
    assert fast_bound_s(two_ops(device())) == pytest.approx(4.0, rel=1e-11)
    data = {
        "name": "moving",
        "ops": [{"flops": 0, "reads": [0], "writes": [1], "trips": 2}],
        "buffers": [{"size": 8}, {"size": 6}],
    }
    odd = MemoryDevice(
        name="odd",
        flops_per_s=1.0,
        layers=(
            MemoryLayer(name="slow", read_bytes_per_s=2.0, write_bytes_per_s=4.0),
            MemoryLayer(name="fast", read_bytes_per_s=16.0, write_bytes_per_s=3.0, capacity_bytes=1),
        ),
    )
    # Reading is faster in layer 1, writing in the slow one.
    bound = fast_bound_s(MemoryMapInstance.from_program(data, memory=odd))
    assert bound == pytest.approx(2 * (8 / 16 + 6 / 4), rel=1e-11)


def plain_latency(instance: MemoryMapInstance, chosen: list[int]) -> float:
    """Return the latency access by access."""
    assert instance.access_bytes is not None and instance.trips is not None
    total = 0.0
    for t in range(instance.ops):
        moving, slow, everything = 0.0, 0, 0
        for a in range(instance.accesses):
            if instance.access_op[a] != t:
                continue
            layer, moved = instance.memory.layers[chosen[a]], int(instance.access_bytes[a])
            moving += moved / (layer.write_bytes_per_s if instance.access_write[a] else layer.read_bytes_per_s)
            everything += moved
            slow += moved if chosen[a] == 0 else 0
        if everything:
            moving += min(instance.memory.overhead_window_bytes, slow) / everything * float(instance.compute[t])
        total += int(instance.trips[t]) * max(float(instance.compute[t]), moving)
    return total


@given(SEEDS, st.integers(1, 10), st.integers(1, 3))
def test_agrees_with_a_plain_reference_and_its_bounds(seed: int, ops: int, fast: int) -> None:
    rng = np.random.default_rng(seed)
    instance = arbitrary(rng, ops=ops, fast_layers=fast)
    chosen = rng.integers(0, instance.layers, instance.accesses).astype(np.int8)
    latency = program_latency_s(instance, chosen)
    assert latency == pytest.approx(plain_latency(instance, chosen.tolist()), rel=1e-12)
    assert fast_bound_s(instance) <= latency <= slow_latency_s(instance) * (1 + 1e-12)
    faster = chosen.copy()
    slow = np.flatnonzero(chosen == 0)
    faster[slow[:1]] = 1
    assert program_latency_s(instance, faster) <= latency * (1 + 1e-12), "moving one access up never costs"


@given(SEEDS)
def test_slow_latency_is_that_of_layer_zero(seed: int) -> None:
    instance = arbitrary(np.random.default_rng(seed), ops=6)
    none = np.zeros(instance.accesses, dtype=np.int8)
    assert instance.trips is not None
    assert slow_latency_s(instance) == math.fsum((instance.trips * op_latency_s(instance, none)).tolist())
