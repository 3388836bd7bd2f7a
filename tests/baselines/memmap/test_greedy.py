from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.baselines.memmap import greedy
from schedrl.baselines.memmap.greedy import AllSlow, GreedyDensity, gain_per_byte_second
from schedrl.devices.memory import MemoryDevice
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import slow_latency_s
from schedrl.envs.memmap.plan import slow_plan
from schedrl.envs.memmap.plan_check import check_plan

sys.path.insert(0, str(Path(__file__).parents[2] / "envs" / "memmap"))
from small_programs import NEEDS_DATA, V4I_16, V4I_128, V5E_48, device, random_program, traced


@given(seed=st.integers(0, 2**32 - 1))
def test_both_give_valid_plans(seed: int) -> None:
    instance = random_program(np.random.default_rng(seed))
    for method in (AllSlow(), GreedyDensity()):
        result = method.schedule(instance, time_limit_s=1.0, rng=np.random.default_rng(0))
        assert check_plan(instance, result.solution) == []  # type: ignore[arg-type]


def test_all_slow_is_the_program_without_fast_memory() -> None:
    instance = random_program(np.random.default_rng(1))
    result = AllSlow().schedule(instance, time_limit_s=1.0, rng=np.random.default_rng(0))
    assert result.solution == slow_plan(instance)
    assert result.objective == slow_latency_s(instance)


def test_the_denser_of_two_buffers_gets_the_room() -> None:
    # Both are alive from operation 0 to operation 1 and save 0.9 s per byte and access; buffer 1 is read once more.
    ops = [
        {"flops": 0.0, "reads": [], "writes": [0, 1]},
        {"flops": 0.0, "reads": [0, 1, 1], "writes": []},
    ]
    data = {"name": "two", "ops": ops, "buffers": [{"size": 4}, {"size": 4}]}
    instance = MemoryMapInstance.from_program(data, memory=device(7))
    # Without fast memory the two operations take 8 s and 12 s.
    np.testing.assert_allclose(sorted(gain_per_byte_second(instance)), [7.2 / 80.0, 10.8 / 80.0])
    result = GreedyDensity().schedule(instance, time_limit_s=1.0, rng=np.random.default_rng(0))
    assert result.solution.access_layer.tolist() == [0, 1, 0, 1, 1]  # type: ignore[union-attr]
    assert result.objective == pytest.approx(8.0 - 3.6 + 12.0 - 7.2)


@NEEDS_DATA
@pytest.mark.parametrize(
    ("memory", "expected_ms"), [(V4I_128, 3.244), (V4I_16, 7.769), (V5E_48, 4.411)], ids=("128", "16", "48")
)
def test_latencies_of_resnet50(memory: MemoryDevice, expected_ms: float) -> None:
    instance = traced("resnet50_infer_b32", memory)
    result = GreedyDensity().schedule(instance, time_limit_s=1.0, rng=np.random.default_rng(0))
    assert check_plan(instance, result.solution) == []  # type: ignore[arg-type]
    assert 1e3 * (result.objective or 0.0) == pytest.approx(expected_ms, abs=0.0005)


def test_both_are_registered() -> None:
    assert [spec.name for spec in greedy.SCHEDULERS] == ["memmap/all-slow", "memmap/greedy-density"]
