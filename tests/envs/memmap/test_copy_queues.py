"""Queues of copies worked out by hand: the judge's one queue, and the two of XLA's runtime model with their stalls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.copy_queues import copy_supply_s, lateness_s, simulate_elapsed_s
from schedrl.envs.memmap.generators import arbitrary
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import program_latency_s
from schedrl.envs.memmap.plan import MemoryPlan, slow_plan

SEEDS = st.integers(0, 2**32 - 1)
IN, OUT = 1, 0


def device(supply: Literal["idle", "elapsed"] = "idle") -> MemoryDevice:
    """Return a device whose slow layer reads 1 and writes 2 bytes per second, ten times as much in the fast one."""
    return MemoryDevice(
        name="unit",
        flops_per_s=1.0,
        layers=(
            MemoryLayer(name="slow", read_bytes_per_s=1.0, write_bytes_per_s=2.0),
            MemoryLayer(name="fast", read_bytes_per_s=10.0, write_bytes_per_s=20.0, capacity_bytes=1000),
        ),
        supply=supply,
    )


def computing(seconds: list[float], sizes: list[int]) -> MemoryMapInstance:
    """Return operations that compute and move nothing: each leaves the bus idle as long as it runs."""
    ops = [{"flops": value, "reads": [0], "read_bytes": [0]} for value in seconds]
    data = {"name": "computing", "ops": ops, "buffers": [{"size": size} for size in sizes]}
    return MemoryMapInstance.from_program(data, memory=device())


def copying(instance: MemoryMapInstance, copies: Any) -> MemoryPlan:
    rows = np.array([[buffer, inward, 1, start, end] for buffer, inward, start, end in copies], dtype=np.int64)
    return replace(slow_plan(instance), copies=rows.reshape(-1, 5))


def late(seconds: list[float], sizes: list[int], copies: Any) -> list[float]:
    instance = computing(seconds, sizes)
    return lateness_s(instance, copying(instance, copies)).tolist()


def stalled(seconds: list[float], sizes: list[int], copies: Any, *, xla_quirk: bool = False) -> float:
    """Return the seconds that the program waits for copies."""
    instance = computing(seconds, sizes)
    return simulate_elapsed_s(instance, copying(instance, copies), xla_quirk=xla_quirk) - sum(seconds)


def reading(supply: Literal["idle", "elapsed"]) -> MemoryMapInstance:
    """Return: read 0 (8 bytes) and write 1 (6), compute 9 s; three times, read 1 and write 2 (4), compute 1 s."""
    ops = [
        {"flops": 9, "reads": [0], "writes": [1]},
        {"flops": 1, "reads": [1], "writes": [2], "trips": 3},
    ]
    buffers = [{"size": 8}, {"size": 6}, {"size": 4}]
    return MemoryMapInstance.from_program({"name": "r", "ops": ops, "buffers": buffers}, memory=device(supply))


@pytest.mark.parametrize(
    ("layers", "idle"),
    [
        # 8 + 3 s of slow accesses fill the first operation, 6 + 2 s the second: nothing is left.
        ([0, 0, 0, 0], [0.0, 0.0]),
        # 8 + 0.3 s: it computes for 9, of which the bus serves 8. Then 0.6 + 2 s, of which the bus serves 2.
        ([0, 1, 1, 0], [1.0, 3 * 0.6]),
        # All fast: 9 s, and 0.6 + 0.2 s are less than the second of computing.
        ([1, 1, 1, 1], [9.0, 3.0]),
    ],
)
def test_supply_is_the_time_that_accesses_leave_the_bus_idle(layers: list[int], idle: list[float]) -> None:
    instance = reading("idle")
    plan = replace(slow_plan(instance), access_layer=np.array(layers, dtype=np.int8))
    assert copy_supply_s(instance, plan) == pytest.approx(idle, abs=1e-12)


@pytest.mark.parametrize("layers", [[0, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1]])
def test_elapsed_supply_is_the_time_without_fast_memory_whatever_the_plan(layers: list[int]) -> None:
    instance = reading("elapsed")
    plan = replace(slow_plan(instance), access_layer=np.array(layers, dtype=np.int8))
    assert copy_supply_s(instance, plan).tolist() == [11.0, 3 * 8.0]


@given(SEEDS)
def test_idle_supply_only_grows_when_accesses_move_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = arbitrary(rng, ops=8)
    some = (rng.random(instance.accesses) < 0.5).astype(np.int8)
    more = np.maximum(some, (rng.random(instance.accesses) < 0.5).astype(np.int8))
    plan = slow_plan(instance)
    # Without the window: with it, a slow byte may lengthen the computation, in which the bus is idle.
    bare = instance.with_memory(replace(instance.memory, overhead_window_bytes=0.0))
    less = copy_supply_s(bare, replace(plan, access_layer=some))
    assert (less >= -1e-9).all()
    assert (copy_supply_s(bare, replace(plan, access_layer=more)) >= less - 1e-9).all()


SUPPLY = [3.0, 2.0, 4.0, 1.0, 5.0]


@pytest.mark.parametrize(
    ("sizes", "copies", "expected"),
    [
        # 3 s in operation 0 and 1 s in operation 1.
        ([4], [(0, IN, -1, 2)], [0.0]),
        ([4], [(0, IN, -1, 1)], [1.0]),
        ([4], [(0, IN, 0, 2)], [2.0]),
        # Its window is empty: nothing of it is done.
        ([4], [(0, IN, 0, 1)], [4.0]),
        ([4], [(0, IN, 2, 2)], [4.0]),
        # Outward copies are written, at 2 bytes per second.
        ([4], [(0, OUT, 0, 2)], [0.0]),
        ([5], [(0, OUT, 0, 2)], [0.5]),
        # The second takes 1 s of operation 1 and 3 s of operation 2, whose last second the third gets; it needs 2 s.
        ([4, 4, 4], [(0, IN, -1, 2), (1, IN, 0, 3), (2, OUT, 1, 3)], [0.0, 0.0, 1.0]),
        # The same three, and operation 3 goes to the late one, so that the fourth gets nothing.
        ([4, 4, 4, 1], [(0, IN, -1, 2), (1, IN, 0, 3), (2, OUT, 1, 3), (3, IN, 2, 4)], [0.0, 0.0, 1.0, 1.0]),
        # Served by their start, not by row or end.
        ([3, 3], [(0, IN, 0, 2), (1, IN, -1, 5)], [1.0, 0.0]),
        # Of two that start together, the one in the first row; both directions share the bus.
        ([2, 6], [(0, IN, -1, 1), (1, OUT, -1, 1)], [0.0, 2.0]),
        ([2, 6], [(1, OUT, -1, 1), (0, IN, -1, 1)], [0.0, 2.0]),
        # An early one that nobody needs soon makes a later, urgent one late.
        ([6, 1], [(0, IN, -1, 5), (1, IN, 0, 2)], [0.0, 1.0]),
        # The bus was idle before, which is of no use to a copy that has not begun.
        ([1, 5], [(0, IN, -1, 5), (1, IN, 2, 4)], [0.0, 4.0]),
        # Up to the end of the program.
        ([5, 10], [(0, IN, 3, 5), (1, OUT, 3, 5)], [0.0, 5.0]),
        ([1], [], []),
    ],
)
def test_lateness_by_hand(sizes: list[int], copies: Any, expected: list[float]) -> None:
    assert late(SUPPLY, sizes, copies) == pytest.approx(expected, abs=1e-12)


def test_rounding_is_no_lateness() -> None:
    # Ten tenths are a little less than one.
    assert sum([0.1] * 10) < 1.0
    assert late([0.1] * 10, [1], [(0, IN, -1, 10)]) == [0.0]


def by_pending_demand(supply: list[int], sizes: list[int], copies: list[tuple[int, int, int, int]]) -> list[float]:
    """Return the lateness by the demand that is pending at each start, copy by copy."""
    found, pending, since = [0.0] * len(copies), 0.0, None
    for number in sorted(range(len(copies)), key=lambda k: (copies[k][2], k)):
        buffer, inward, start, end = copies[number]
        demand = sizes[buffer] / (1 if inward else 2)
        if since is not None:
            pending = max(0.0, pending - sum(supply[since + 1 : start + 1]))
        since, pending = start, pending + demand
        found[number] = min(demand, max(0.0, pending - sum(supply[start + 1 : end])))
    return found


@st.composite
def queues(draw: st.DrawFn) -> tuple[list[int], list[int], list[tuple[int, int, int, int]]]:
    supply = draw(st.lists(st.integers(0, 6), min_size=1, max_size=8))
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    copies = []
    for buffer in range(len(sizes)):
        start = draw(st.integers(-1, len(supply) - 1))
        copies.append((buffer, draw(st.integers(0, 1)), start, draw(st.integers(max(start, 0), len(supply)))))
    return supply, sizes, copies


@given(queues())
def test_lateness_is_what_pending_demand_exceeds_the_supply_by(
    case: tuple[list[int], list[int], list[tuple[int, int, int, int]]],
) -> None:
    supply, sizes, copies = case
    assert late([float(value) for value in supply], sizes, copies) == by_pending_demand(supply, sizes, copies)


@pytest.mark.parametrize(
    ("seconds", "sizes", "copies", "stall"),
    [
        ([3, 2, 4], [3], [(0, IN, -1, 1)], 0.0),
        ([3, 2, 4], [4], [(0, IN, -1, 1)], 1.0),
        # Nothing runs meanwhile.
        ([3, 2, 4], [4], [(0, IN, 0, 1)], 4.0),
        # At the end of the program.
        ([3, 2, 4], [10], [(0, OUT, 1, 3)], 1.0),
        # What nobody waits for makes no stall: the copy is needed at the end, by when 9 s have passed.
        ([3, 2, 4], [9], [(0, IN, -1, 3)], 0.0),
        # Both get half of 3 s; then the inward one of 4 s still needs 2.5 s at half speed, in which both end.
        ([3, 2, 4], [4, 8], [(0, IN, -1, 1), (1, OUT, -1, 3)], 5.0),
        # 2 and 6 s: after 3 s of half speed 0.5 and 4.5 are left; a stall of 1 s leaves 4 for operations 1 and 2.
        ([3, 2, 4], [2, 12], [(0, IN, -1, 1), (1, OUT, -1, 3)], 1.0),
        # 1 and 6 s: the inward one ends after 2 s at half speed, the other then has the bus for itself.
        ([3, 2, 4], [1, 12], [(0, IN, -1, 1), (1, OUT, -1, 1)], 4.0),
        # A copy waits for the one ahead of it in its queue.
        ([2, 1, 1], [3, 1], [(0, IN, -1, 3), (1, IN, -1, 1)], 2.0),
        # A queue that has run empty frees the bus in the middle of a stall: 2 s at half speed, then 2 s at full.
        ([0, 1, 1], [1, 6], [(0, IN, -1, 1), (1, OUT, -1, 1)], 4.0),
        # A copy that begins after an operation already competes with one that the next operation waits for.
        ([2, 1, 9], [4, 2], [(0, IN, -1, 1), (1, OUT, 0, 3)], 3.0),
        ([3, 2, 4], [4], [], 0.0),
    ],
)
def test_stalls_by_hand(seconds: list[float], sizes: list[int], copies: Any, stall: float) -> None:
    assert stalled(seconds, sizes, copies) == pytest.approx(stall, abs=1e-12)


@pytest.mark.parametrize(
    ("seconds", "sizes", "copies", "plain", "quirk"),
    [
        # Two inward copies of 1 s beside an outward one of 10 s. Halved: 2 s and 2 s, then 3 s at full speed, 5 left.
        # Halved again for the second: 2 s at 1/2 and 4 s at 1/4; the last second at 1/4 leaves 7.75.
        ([7, 1], [1, 1, 20], [(0, IN, -1, 2), (1, IN, -1, 2), (2, OUT, -1, 1)], 5.0, 7.75),
        # One of 1 s beside one of 6: 2 s at half speed, and the third second stays at half speed.
        ([3, 2, 4], [1, 12], [(0, IN, -1, 1), (1, OUT, -1, 1)], 4.0, 4.5),
        # The next operation begins at full speed: 2 s, then 1.5 s left for 2 s of operation 1.
        ([3, 2, 4], [1, 6], [(0, IN, -1, 1), (1, OUT, -1, 2)], 0.0, 0.0),
        # Alone, a copy is not slowed down.
        ([3, 2], [3, 2], [(0, IN, -1, 1), (1, OUT, 0, 2)], 0.0, 0.0),
    ],
)
def test_the_quirk_halves_again_at_every_step(
    seconds: list[float], sizes: list[int], copies: Any, plain: float, quirk: float
) -> None:
    assert stalled(seconds, sizes, copies) == pytest.approx(plain, abs=1e-12)
    assert stalled(seconds, sizes, copies, xla_quirk=True) == pytest.approx(quirk, abs=1e-12)


def test_the_quirk_halves_a_long_sharing_away() -> None:
    # Sixty copies of 1 s inward beside one of 100 s outward, and hours of time: the first 39 take 2, 4, 8, ... s.
    copies = [*((k, IN, -1, 1) for k in range(60)), (60, OUT, -1, 1)]
    sizes = [1] * 60 + [200]
    assert stalled([1e13], sizes, copies) == 0.0
    # 39 s of each are done, the rest waits: 21 s shared and 40 s alone.
    assert stalled([1e13], sizes, copies, xla_quirk=True) == pytest.approx(2 * 21 + 40, rel=1e-3)


def test_bus_time_of_accesses_slows_copies_down() -> None:
    instance = reading("idle")
    plan = replace(copying(instance, [(2, IN, -1, 1)]), access_layer=np.array([0, 1, 1, 0], dtype=np.int8))
    # 9 s and three times 2.6 s; of the copy's 4 s, the first operation hides 1.
    assert simulate_elapsed_s(instance, plan) == pytest.approx(9 + 3 * 2.6 + 3.0, rel=1e-12)


@given(queues())
def test_stalls_are_never_negative_and_finish_all_that_is_needed(
    case: tuple[list[int], list[int], list[tuple[int, int, int, int]]],
) -> None:
    supply, sizes, copies = case
    instance = computing([float(value) for value in supply], sizes)
    plan = copying(instance, copies)
    latency = program_latency_s(instance, plan.access_layer)
    demand = sum(sizes[buffer] / (1 if inward else 2) for buffer, inward, _, _ in copies)
    for quirk in (False, True):
        elapsed = simulate_elapsed_s(instance, plan, xla_quirk=quirk)
        assert latency - 1e-9 <= elapsed <= latency + 2 * demand + 1e-9
    # One copy alone stalls for just as long as the judge finds it late.
    for copy in copies:
        alone = copying(instance, [copy])
        if copy[2] < copy[3]:
            assert simulate_elapsed_s(instance, alone) - latency == pytest.approx(
                float(lateness_s(instance, alone)[0]), abs=1e-9
            )
