from __future__ import annotations

import itertools
import time
from typing import Literal

import numpy as np
import pytest

from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.bounds import bounds, first_use_bus_s
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.packing import OffsetPackingInstance


def device(
    capacity: int, *, supply: Literal["idle", "elapsed"] = "idle", overhead_window_bytes: float = 0.0
) -> MemoryDevice:
    slow = MemoryLayer(name="slow", read_bytes_per_s=1.0, write_bytes_per_s=2.0)
    fast = MemoryLayer(name="fast", read_bytes_per_s=10.0, write_bytes_per_s=10.0, capacity_bytes=capacity)
    return MemoryDevice(
        name="unit", flops_per_s=1.0, layers=(slow, fast), supply=supply, overhead_window_bytes=overhead_window_bytes
    )


def instance(memory: MemoryDevice) -> MemoryMapInstance:
    """Return: input 0 (4 bytes, read twice) and 1 (6 bytes), inner result 2 (8 bytes), output 3 (2 bytes)."""
    ops = [
        {"flops": 1, "reads": [0], "writes": [2]},
        {"flops": 2, "reads": [0, 1, 2], "writes": [3]},
    ]
    buffers = [{"size": 4}, {"size": 6}, {"size": 8}, {"size": 2, "output": True}]
    return MemoryMapInstance.from_program({"name": "p", "ops": ops, "buffers": buffers}, memory=memory)


def test_values_of_a_worked_example() -> None:
    found = {bound.name: bound.value for bound in bounds(instance(device(100)))}
    # All fast: the second operation moves 20 bytes in 2 s, the first computes longer than its 12 bytes take.
    assert found["all-fast"] == pytest.approx(1.2 + 2.0)
    # Ten bytes of inputs come in at 1 byte per second, two of the output leave at 2.
    assert found["bus"] == pytest.approx(11.0)
    # Nothing can hide a copy before the first operation, whose idle time of 1.2 s is too short for either input, and
    # nothing follows the second: 4.8 s with the result written fast, then 0.8 s to read it, 10 and 1 for the others.
    assert found["relaxation"] == pytest.approx(4.8 + 0.8 + 11.0)


def test_bus_bound_is_left_out_where_copies_do_not_wait_for_the_bus() -> None:
    assert {bound.name for bound in bounds(instance(device(100, supply="elapsed")))} == {"all-fast", "relaxation"}


def test_bus_bound_takes_the_cheaper_of_copying_and_reading() -> None:
    ops = [{"flops": 0, "reads": [0], "read_bytes": [1]}, {"flops": 0, "reads": [0], "read_bytes": [2], "trips": 1}]
    part = MemoryMapInstance.from_program({"name": "p", "ops": ops, "buffers": [{"size": 100}]}, memory=device(100))
    assert first_use_bus_s(part) == pytest.approx(3.0)


def test_largest_first_with_reasons() -> None:
    for memory in (device(4), device(100), device(100, overhead_window_bytes=3.0)):
        found = bounds(instance(memory))
        assert all(one.value >= other.value for one, other in itertools.pairwise(found))
        assert all(bound.why for bound in found)


def test_small_programs_take_little_time() -> None:
    small = instance(device(100))
    bounds(small)
    started = time.perf_counter()
    bounds(small)
    assert time.perf_counter() - started < 0.2


def test_packing_is_bounded_by_what_is_alive_at_once() -> None:
    lower, upper, size = np.array([0, 2, 3]), np.array([3, 5, 6]), np.array([4, 3, 5])
    packing = OffsetPackingInstance(name="three", lower=lower, upper=upper, size=size)
    assert [(bound.name, bound.value) for bound in bounds(packing)] == [("max-live", 8.0)]
