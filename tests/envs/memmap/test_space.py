"""Offsets in a fast layer against a byte by byte search, and whom a placement displaces."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from small_games import op, program

from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.simulator import Simulator
from schedrl.envs.memmap.space import add_to_order, displace, find_offset, order_anew, place_is_free
from schedrl.envs.memmap.state import BEST, HIGHEST, LIFETIME, LOWEST, PLANNED, State

_OPS, _OTHERS = 10, 6
SEEDS = st.integers(0, 2**32 - 1)


def space_of(instance: MemoryMapInstance) -> State:
    return Simulator([instance], 1, skip_forced=False).state


def put(space: State, row: list[int]) -> None:
    residence = int(space.residences[0])
    space.residence[0, residence] = row
    space.lost_by[0, residence] = -1
    space.residences[0] = residence + 1
    add_to_order(space, 0, residence)


def crowded(rng: np.random.Generator, last_use: int = _OPS - 1) -> State:
    """Return the space of a program that reads buffer 0 first, with random residences of the others, all over."""
    align, capacity = int(rng.choice([1, 1, 3, 4])), int(rng.integers(12, 40))
    memory = MemoryDevice(
        name="d",
        flops_per_s=1.0,
        layers=(
            MemoryLayer(name="slow", read_bytes_per_s=1.0, write_bytes_per_s=1.0),
            MemoryLayer(
                name="fast",
                read_bytes_per_s=10.0,
                write_bytes_per_s=10.0,
                capacity_bytes=capacity,
                alignment_bytes=align,
            ),
        ),
    )
    reads: list[list[int]] = [[] for _ in range(_OPS)]
    reads[0].append(0)
    reads[last_use].append(0)
    reads[_OPS - 1] += range(1, _OTHERS + 1)
    sizes = rng.integers(1, 10, size=_OTHERS + 1).tolist()
    space = space_of(program([op(own, []) for own in reads], sizes, memory=memory))
    for buffer in range(1, _OTHERS + 1):
        first = int(rng.integers(_OPS))
        offset = int(rng.integers(0, max(1, (capacity - sizes[buffer]) // align + 1))) * align
        put(space, [buffer, 1, offset, first, min(_OPS - 1, first + int(rng.integers(0, 5)))])
    return space


def taken_bytes(space: State, first: int, last: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    taken = np.zeros(int(space.capacity[0, 1]), dtype=np.bool_)
    for buffer, _, offset, begin, end in space.residence[0, : space.residences[0]].tolist():
        if begin <= last and end >= first:
            taken[offset : offset + space.size[0, buffer]] = True
    return taken


def free_offsets(space: State, first: int, last: int) -> list[int]:
    """Return all aligned offsets at which buffer 0 is free to reside, in order."""
    taken, size = taken_bytes(space, first, last), int(space.size[0, 0])
    step = int(space.alignment[0, 1])
    return [offset for offset in range(0, len(taken) - size + 1, step) if not taken[offset : offset + size].any()]


def room_around(space: State, first: int, last: int, offset: int) -> int:
    """Return the free bytes from an offset up to the next taken one."""
    after = np.flatnonzero(taken_bytes(space, first, last)[offset:])
    return int(after[0]) if len(after) else int(space.capacity[0, 1]) - offset


def lowest_of_each_gap(space: State, first: int, last: int) -> list[int]:
    free, found = free_offsets(space, first, last), []
    taken = taken_bytes(space, first, last)
    for offset in free:
        if not found or taken[found[-1] : offset].any():
            found.append(offset)
    return found


def found_offset(space: State, first: int, last: int, fit: int) -> int:
    return int(find_offset(space, 0, 0, 1, first, last, fit, False, 0))


@given(seed=SEEDS)
def test_offsets_are_lowest_highest_and_tightest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    space = crowded(rng)
    for _ in range(5):
        first, last = sorted(rng.integers(0, _OPS, size=2).tolist())
        free = free_offsets(space, first, last)
        assert found_offset(space, first, last, LOWEST) == min(free, default=-1)
        assert found_offset(space, first, last, HIGHEST) == max(free, default=-1)
        gaps = lowest_of_each_gap(space, first, last)
        tightest = min(gaps, key=lambda offset: (room_around(space, first, last, offset), offset), default=-1)
        assert found_offset(space, first, last, BEST) == tightest
        assert space.displaced[0, 0] == 0.0


@given(seed=SEEDS)
def test_a_place_is_free_when_no_byte_of_it_is_taken(seed: int) -> None:
    rng = np.random.default_rng(seed)
    space = crowded(rng)
    first, last = sorted(rng.integers(0, _OPS, size=2).tolist())
    size, capacity = int(space.size[0, 0]), int(space.capacity[0, 1])
    for offset in range(0, capacity + 2, int(space.alignment[0, 1])):
        expected = offset + size <= capacity and not taken_bytes(space, first, last)[offset : offset + size].any()
        assert place_is_free(space, 0, 0, 1, offset, first, last) == expected


@pytest.mark.parametrize(("last_use", "highest"), [(4, True), (5, False)])
def test_short_lives_go_to_the_top_and_long_ones_to_the_bottom(last_use: int, highest: bool) -> None:
    space = crowded(np.random.default_rng(3), last_use)
    assert len(free_offsets(space, 0, 0)) > 1
    wanted = HIGHEST if highest else LOWEST
    assert found_offset(space, 0, 0, LIFETIME) == found_offset(space, 0, 0, wanted)


@given(seed=SEEDS)
def test_the_planned_place_is_taken_when_free_and_else_the_tightest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    space = crowded(rng)
    first, last = sorted(rng.integers(0, _OPS, size=2).tolist())
    free = free_offsets(space, first, last)
    space.hint[0, 0] = 1
    for planned in range(0, int(space.capacity[0, 1] - space.size[0, 0]) + 1, int(space.alignment[0, 1])):
        space.hint_place[0, 0] = planned
        expected = planned if planned in free else found_offset(space, first, last, BEST)
        assert found_offset(space, first, last, PLANNED) == expected
    space.hint[0, 0] = 0
    assert found_offset(space, first, last, PLANNED) == found_offset(space, first, last, BEST)


@given(seed=SEEDS)
def test_lists_built_anew_are_those_built_one_by_one(seed: int) -> None:
    space = crowded(np.random.default_rng(seed))
    before = space.order[0, 1, : space.ordered[0, 1]].tolist()
    assert np.all(np.diff(space.residence[0, before, 2]) >= 0)
    order_anew(space, 0, -1)
    assert space.order[0, 1, : space.ordered[0, 1]].tolist() == before
    # Nobody holds them: those that end before operation 5 are forgotten.
    order_anew(space, 0, 5)
    left = [r for r in before if space.residence[0, r, 4] >= 5]
    assert space.order[0, 1, : space.ordered[0, 1]].tolist() == left


def kept(sizes: tuple[int, int]) -> State:
    """Return 30 bytes in which buffers 0, 1 and 2 are kept for uses worth 3, 1 and 2 s; 3 and 4 want to come in."""
    instance = program([op([0, 1, 2], []), op([], []), op([3, 4], []), op([0, 1, 2], [])], [10, 10, 10, *sizes], 30)
    space = space_of(instance)
    for buffer, gain in enumerate((3.0, 1.0, 2.0)):
        put(space, [buffer, 1, 10 * buffer, 0, 0])
        space.here[0, buffer] = space.touched[0, buffer] = buffer
        space.hold[0, buffer] = True
        # Accesses 5 to 7 are those of the last operation.
        space.gain[0, 5 + buffer, 1] = gain
    space.position[0] = 3
    return space


def placed(space: State, buffer: int, masked: bool = False) -> tuple[int, float]:
    offset = find_offset(space, 0, buffer, 1, 2, 2, BEST, masked, 1)
    return int(offset), float(space.displaced[0, 1])


def test_a_placement_displaces_what_is_worth_least() -> None:
    space = kept((10, 20))
    assert placed(space, 3) == (10, 1.0)
    # Both lower buffers together are worth 4 s, both upper ones 3 s.
    assert placed(space, 4) == (10, 3.0)
    assert placed(kept((11, 31)), 3) == (10, 3.0)
    assert placed(kept((11, 31)), 4) == (-1, 0.0)


def test_nobody_is_displaced_while_there_is_a_gap() -> None:
    space = kept((10, 20))
    # Nobody will read buffer 2 in this layer again: its place is free.
    space.hold[0, 2] = False
    assert placed(space, 3) == (20, 0.0)
    assert placed(space, 4) == (10, 1.0)


def test_a_masked_game_never_displaces_the_only_valid_copy() -> None:
    space = kept((10, 20))
    space.valid_from[0, 1] = space.ops[0] + 1
    assert placed(space, 3, masked=True) == (20, 2.0)
    assert placed(space, 4, masked=True) == (-1, 0.0)
    assert placed(space, 4) == (10, 3.0)


def test_the_displaced_know_who_took_their_place() -> None:
    space = kept((10, 20))
    space.residence[0, 3] = [4, 1, 10, 2, 2]
    displace(space, 0, 3)
    # Access 3 is the one that takes bytes 10 to 29.
    assert space.lost_by[0, :3].tolist() == [-1, 3, 3]
