"""Windows and offsets of plans without offsets: nothing overlaps, nothing is late, and who is left out."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from small_games import op, program
from small_programs import random_program

from schedrl.envs.memmap import prices
from schedrl.envs.memmap.generators import layered
from schedrl.envs.memmap.hint_packing import pack_hint
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.prices import shadow_prices


def packed(instance: MemoryMapInstance) -> list[tuple[Any, Any]]:
    """Return arguments and result of every plan that is fitted into time and bytes for an instance."""
    calls: list[tuple[Any, Any]] = []

    def spied(*arguments: Any) -> Any:
        found = pack_hint(*arguments)
        calls.append((arguments, found))
        return found

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(prices, "pack_hint", spied)
        shadow_prices(dataclasses.replace(instance))
    return calls


def runs(instance: MemoryMapInstance, layer: Any, hold: Any) -> list[list[int]]:
    """Return the accesses of every residence: those that a buffer stays for."""
    offset, order = instance.by_buffer
    found: list[list[int]] = []
    for buffer in range(instance.buffers):
        before = -1
        for access in order[offset[buffer] : offset[buffer + 1]].tolist():
            if layer[access] > 0:
                if before >= 0 and hold[before]:
                    found[-1].append(access)
                else:
                    found.append([access])
            before = access if layer[access] > 0 else -1
    return found


@given(seed=st.integers(0, 2**32 - 1))
def test_residences_do_not_overlap_and_copies_find_idle_time(seed: int) -> None:
    rng = np.random.default_rng(seed)
    check_packed(random_program(rng))


@pytest.mark.parametrize("seed", range(6))
def test_residences_of_networks_do_not_overlap(seed: int) -> None:
    check_packed(layered(np.random.default_rng(seed), layers=14, train=seed % 2 == 1))


def check_packed(instance: MemoryMapInstance) -> None:
    for arguments, (place, start, left_out, starved) in packed(instance):
        _, layer, hold, back, _, (idle, bus), (capacity, alignment) = arguments
        boxes: list[tuple[int, int, int, int, int]] = []
        fetched: list[tuple[int, int, float]] = []
        for run in runs(instance, layer, hold):
            access, final = run[0], run[-1]
            buffer, t = int(instance.access_buffer[access]), int(instance.access_op[access])
            # A residence is in or out as a whole.
            assert len({bool(left_out[a]) for a in run}) == 1
            assert (place[run[1:]] == -1).all()
            assert (place[access] < 0) == left_out[access]
            if left_out[access]:
                continue
            assert not starved[access]
            first, last = t, int(instance.access_op[final])
            if not instance.access_write[access]:
                assert -1 <= start[access] < t
                first = int(start[access]) + 1
                fetched.append((int(start[access]), t, float(instance.size[buffer]) * bus))
            elif back[access]:
                last = max(last, t + 1)
            number, low = int(layer[access]), int(place[access])
            assert low % alignment[number] == 0
            assert low + instance.size[buffer] <= capacity[number]
            boxes.append((number, low, low + int(instance.size[buffer]), first, min(last, instance.ops - 1)))
        for one, two in itertools.combinations(boxes, 2):
            apart = one[0] != two[0] or one[2] <= two[1] or two[2] <= one[1] or one[4] < two[3] or two[4] < one[3]
            assert apart
        # All copies that lie between two operations share their idle time.
        for low in range(-1, instance.ops):
            for high in range(low + 1, instance.ops + 1):
                inside = sum(demand for begin, end, demand in fetched if low <= begin and end <= high)
                assert inside <= idle[low + 1 : high].sum() * (1 + 1e-9) + 1e-12


def pack(
    instance: MemoryMapInstance,
    layer: list[int],
    hold: list[int],
    back: list[int],
    gain: list[float],
    idle: list[float],
) -> list[list[Any]]:
    offset, order = instance.by_buffer
    size = instance.size.astype(np.float64)
    values = np.zeros((instance.accesses, 2))
    values[:, 1] = gain
    found = pack_hint(
        (offset, order, instance.access_op, instance.access_write, size, instance.output),
        np.array(layer, dtype=np.int8),
        np.array(hold, dtype=np.bool_),
        np.array(back, dtype=np.bool_),
        values,
        (np.array(idle), 1.0),
        (np.array([0.0, float(instance.memory.layers[1].capacity_bytes or 0)]), np.array([1, 1])),
    )
    return [column.tolist() for column in found]


def test_copies_take_the_latest_idle_time_that_later_ones_leave() -> None:
    # Both parameters of 4 bytes are read by operation 3; operations 0 to 2 leave 4, 2 and 3 s idle.
    instance = program([op([], []), op([], []), op([], []), op([0, 1], [])], [4, 4], capacity=8)
    place, start, left_out, starved = pack(instance, [1, 1], [0, 0], [0, 0], [1.0, 1.0], [4.0, 2.0, 3.0, 0.0])
    # The first takes all of operation 2 and 1 s of 1; the other the rest of that and 3 s of operation 0.
    assert start == [0, -1]
    assert sorted(place) == [0, 4]
    assert left_out == starved == [False, False]


def test_a_copy_without_idle_time_is_left_out() -> None:
    instance = program([op([], []), op([], []), op([0, 1], [])], [4, 4], capacity=8)
    place, start, left_out, starved = pack(instance, [1, 1], [0, 0], [0, 0], [1.0, 1.0], [2.0, 5.0, 9.0])
    assert start == [0, -2]
    assert (place, left_out, starved) == ([0, -1], [False, True], [False, True])


def test_what_gains_most_stays_when_bytes_are_short() -> None:
    # Both results are alive together; the larger one gains less.
    instance = program([op([], [0, 1]), op([0, 1], [])], [8, 5], capacity=9)
    rows = pack(instance, [1] * 4, [1, 1, 0, 0], [0] * 4, [1.0, 3.0, 1.0, 3.0], [0.0, 0.0])
    assert rows[0] == [-1, 0, -1, -1]
    assert rows[2] == [True, False, True, False]


def test_a_copy_back_keeps_its_place_until_it_is_done() -> None:
    # The copy of 3 bytes takes operations 1 and 2, so that the second result goes above it, and the third below.
    instance = program([op([], [0]), op([], []), op([], [1]), op([], [2])], [3, 3, 3], capacity=6)
    rows = pack(instance, [1, 1, 1], [0, 0, 0], [1, 0, 0], [1.0, 1.0, 1.0], [0.0, 2.0, 2.0, 0.0])
    assert rows[0] == [0, 3, 0]
    short = pack(instance, [1, 1, 1], [0, 0, 0], [1, 0, 0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0])
    assert (short[0], short[3]) == ([-1, 0, 0], [True, False, False])
