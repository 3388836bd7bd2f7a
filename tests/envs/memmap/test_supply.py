"""The queue of copies against the checker's own account of it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from small_games import COPY, DROP, SLOW, Game, op, program
from small_programs import device

from schedrl.envs.memmap.copy_queues import copy_supply_s, lateness_s
from schedrl.envs.memmap.generators import arbitrary
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.plan import MemoryPlan, slow_plan
from schedrl.envs.memmap.plan_check import check_plan
from schedrl.envs.memmap.simulator import Simulator
from schedrl.envs.memmap.state import EARLIEST, JUST_IN_TIME, PREFERRED
from schedrl.envs.memmap.supply import (
    Bus,
    add_copy,
    copy_end,
    copy_start,
    fits_queue,
    recount_queue,
    remove_last_copy,
)

_OPS, _PARAMETERS = 9, 5


def bus_of(instance: MemoryMapInstance) -> Bus:
    state = Simulator([instance], 1, skip_forced=False).state
    return Bus(*(getattr(state, name) for name in Bus._fields))


def random_bus(rng: np.random.Generator) -> tuple[MemoryMapInstance, Bus]:
    """Return a program whose operations each hide 0 to 9 s, and that reads all its parameters at the end."""
    sizes = rng.integers(1, 12, size=_PARAMETERS).tolist()
    # A busy bus: the small result takes 1 s of it.
    ops = [op([], [_PARAMETERS + t], flops=float(rng.integers(1, 11))) for t in range(_OPS)]
    instance = program([*ops, op(list(range(_PARAMETERS)), [])], sizes + [1] * _OPS, sum(sizes))
    return instance, bus_of(instance)


def slow_with(instance: MemoryMapInstance, copies: list[list[int]]) -> MemoryPlan:
    return dataclasses.replace(slow_plan(instance), copies=np.array(copies, dtype=np.int64).reshape(-1, 5))


def in_time(instance: MemoryMapInstance, rows: list[list[int]]) -> bool:
    return not lateness_s(instance, slow_with(instance, rows)).any()


def fill(instance: MemoryMapInstance, bus: Bus, rng: np.random.Generator) -> list[list[int]]:
    """Add random copies of all parameters but the last, as far as the checker finds them in time."""
    rows: list[list[int]] = []
    for buffer in range(_PARAMETERS - 1):
        start, end = sorted(rng.choice(np.arange(-1, _OPS + 1), size=2, replace=False).tolist())
        row = [buffer, int(rng.integers(2)), 1, start, end]
        assert fits_queue(bus, 0, start, end, float(instance.size[buffer])) == in_time(instance, [*rows, row])
        if in_time(instance, [*rows, row]):
            add_copy(bus, 0, buffer, row[1], 1, start, end)
            rows.append(row)
    return rows


@given(seed=st.integers(0, 2**32 - 1))
def test_what_fits_is_what_the_checker_finds_in_time(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance, bus = random_bus(rng)
    rows = fill(instance, bus, rng)
    assert bus.copies[0] == len(rows)
    assert bus.copy[0, : len(rows)].tolist() == rows
    starts = bus.copy[0, bus.queue[0, : len(rows)], 3]
    assert (np.diff(starts) >= 0).all()
    for inward in range(2):
        own = [row for row in rows if row[1] == inward]
        expected = [sum(start < t < end for *_, start, end in own) for t in range(instance.ops)]
        assert bus.under_way[0, inward, : instance.ops].tolist() == expected


@given(seed=st.integers(0, 2**32 - 1))
def test_copies_begin_as_late_as_the_checker_allows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance, bus = random_bus(rng)
    rows = fill(instance, bus, rng)
    last, end = _PARAMETERS - 1, int(rng.integers(1, _OPS + 1))
    earliest = int(rng.integers(-1, end))
    demand = float(instance.size[last])
    hidden = np.concatenate([[0.0], np.cumsum(copy_supply_s(instance, slow_plan(instance)))])
    possible = [s for s in range(earliest, end) if in_time(instance, [*rows, [last, 1, 1, s, end]])]
    latest = max(possible, default=-2)
    # Not more than eight begins are tried, and from the latest on these are all.
    assert _OPS - 1 <= 8
    assert copy_start(bus, 0, 1, earliest, end, demand, JUST_IN_TIME) == latest
    first = earliest if earliest in possible else -2
    assert copy_start(bus, 0, 1, earliest, end, demand, EARLIEST) == first
    ample = [s for s in possible if hidden[end] - hidden[s + 1] >= 2 * demand or s == earliest]
    assert copy_start(bus, 0, 1, earliest, end, demand, PREFERRED) == max(ample, default=-2)


@given(seed=st.integers(0, 2**32 - 1))
def test_copies_back_end_when_the_bus_has_been_idle_enough(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance, bus = random_bus(rng)
    rows = fill(instance, bus, rng)
    last, start, latest = _PARAMETERS - 1, int(rng.integers(0, _OPS - 1)), _OPS + 1

    def done(end: int) -> bool:
        return bool(lateness_s(instance, slow_with(instance, [*rows, [last, 0, 1, start, end]]))[-1] == 0.0)

    first = next((end for end in range(start + 1, latest + 1) if done(end)), -2)
    expected = first if first >= 0 and in_time(instance, [*rows, [last, 0, 1, start, first]]) else -2
    assert copy_end(bus, 0, start, latest, float(instance.size[last])) == expected


@given(seed=st.integers(0, 2**32 - 1))
def test_taking_the_last_copy_back_leaves_the_queue_as_it_was(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance, bus = random_bus(rng)
    count = len(fill(instance, bus, rng))
    recount_queue(bus, 0)
    before = bus.queue[0, :count].copy(), bus.pending[0, :count].copy(), bus.under_way.copy()
    add_copy(bus, 0, _PARAMETERS - 1, 1, 1, -1, _OPS)
    remove_last_copy(bus, 0)
    recount_queue(bus, 0)
    assert bus.copies[0] == count
    for was, now in zip(before, (bus.queue[0, :count], bus.pending[0, :count], bus.under_way), strict=True):
        np.testing.assert_array_equal(now, was)


# Operations 0 to 7 compute for 12 s each while their operand takes 8 s of the bus: 4 s a piece are idle, and a
# parameter of 10 bytes needs three of them, twice its time five.
_BUSY = [op([0], [], flops=12.0) for _ in range(8)]
_LATE = program([*_BUSY, op([1, 2], [])], [8, 10, 10], capacity=20)


@pytest.mark.parametrize(
    ("window", "lookback", "start"),
    [("just-in-time", 256, 4), ("preferred", 256, 2), ("earliest", 256, -1), ("earliest", 6, 1), ("preferred", 4, 3)],
)
def test_windows_begin_where_their_names_say(window: str, lookback: int, start: int) -> None:
    game = Game(_LATE, fits=("lowest",), windows=(window,), lookback=lookback)
    for _ in range(8):
        game.choose(DROP)
    assert game.offered == [(COPY, 1, 0, start, 8), SLOW]


def test_no_window_looks_back_far_enough() -> None:
    game = Game(_LATE, fits=("lowest",), windows=("just-in-time",), lookback=2)
    for _ in range(8):
        game.choose(DROP)
    assert game.offered == [SLOW]


def test_a_second_copy_begins_before_the_first_and_makes_it_wait() -> None:
    game = Game(_LATE, fits=("lowest",), windows=("just-in-time",))
    for _ in range(8):
        game.choose(DROP)
    # 8 * 12 s and 20 s of reading; each operand of the last operation takes 1 s instead of 10.
    assert game.choose(COPY) == pytest.approx(9 / 116)
    # Operations 3 to 7 hide the 20 s of both, 4 to 7 only 16.
    assert game.offered == [(COPY, 1, 10, 2, 8), SLOW]
    assert game.choose(COPY) == pytest.approx(9 / 116)
    plan = game.simulator.solution(0)
    assert plan.copies.tolist() == [[1, 1, 1, 4, 8], [2, 1, 1, 2, 8]]
    assert plan.residences.tolist() == [[1, 1, 0, 5, 8], [2, 1, 10, 3, 8]]
    assert check_plan(_LATE, plan) == []
    assert game.simulator.objective(0) == pytest.approx(98.0)


def test_no_more_copies_are_under_way_than_the_device_allows() -> None:
    one = dataclasses.replace(device(20), outstanding_copies=1)
    game = Game(_LATE.with_memory(one), fits=("lowest",), windows=("just-in-time",))
    for _ in range(8):
        game.choose(DROP)
    game.choose(COPY)
    # Before operation 8 the bus is free for it, but the first copy is under way in operations 5 to 7.
    assert game.offered == [SLOW]


@given(seed=st.integers(0, 2**32 - 1), supply=st.sampled_from(["idle", "elapsed"]))
def test_no_placement_leaves_less_idle_time_than_is_counted_on(seed: int, supply: str) -> None:
    rng = np.random.default_rng(seed)
    instance = arbitrary(rng, ops=12, fast_layers=2, supply=supply)
    bus = bus_of(instance)
    counted = np.diff(bus.base_supply[0, : instance.ops + 1])
    for _ in range(20):
        layer = (rng.random(instance.accesses) * 3 * (rng.random(instance.accesses) < 0.7)).astype(np.int8)
        left = copy_supply_s(instance, dataclasses.replace(slow_plan(instance), access_layer=layer))
        assert (counted <= left * (1 + 1e-12) + 1e-9).all()
