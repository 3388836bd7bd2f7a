from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.bus_use import bus_use
from schedrl.envs.memmap.copy_queues import copy_supply_s
from schedrl.envs.memmap.counterfactual import apply_way, find_room, outcome_of, slow_valid_from
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import program_latency_s
from schedrl.envs.memmap.plan import MemoryPlan, slow_plan
from schedrl.envs.memmap.plan_check import check_plan


def device(capacity: int, **changes: Any) -> MemoryDevice:
    """A slow layer of one byte per second, and a fast one of ten."""
    slow = MemoryLayer(name="slow", read_bytes_per_s=1.0, write_bytes_per_s=1.0)
    fast = MemoryLayer(name="fast", read_bytes_per_s=10.0, write_bytes_per_s=10.0, capacity_bytes=capacity)
    return MemoryDevice(**({"name": "tiny", "flops_per_s": 1.0, "layers": (slow, fast)} | changes))


@st.composite
def planned(draw: st.DrawFn) -> tuple[MemoryMapInstance, MemoryPlan]:
    """Draw a program of at most five operations, and a valid plan found by taking open ways at random."""
    ops, parameters = draw(st.integers(2, 5)), draw(st.integers(1, 2))
    rows: list[tuple[int, int, bool]] = []
    for t in range(ops):
        reads = draw(st.sets(st.integers(0, parameters + t - 1), min_size=1, max_size=2))
        rows += [(t, b, False) for b in sorted(reads)] + [(t, parameters + t, True)]
    buffers = parameters + ops
    small = st.integers(1, 3)
    instance = MemoryMapInstance(
        name="drawn",
        memory=device(
            draw(st.integers(2, 6)),
            outstanding_copies=draw(st.sampled_from([1, 2, 40])),
            supply=draw(st.sampled_from(["idle", "elapsed"])),
        ),
        flops=np.zeros(ops),
        compute_s=np.array(draw(st.lists(st.integers(0, 6), min_size=ops, max_size=ops)), dtype=np.float64),
        size=np.array(draw(st.lists(small, min_size=buffers, max_size=buffers))),
        output=np.array([False] * (buffers - 1) + [True]),
        access_op=np.array([row[0] for row in rows]),
        access_buffer=np.array([row[1] for row in rows]),
        access_write=np.array([row[2] for row in rows]),
    )
    plan = slow_plan(instance)
    for access in draw(st.permutations(range(instance.accesses)))[: draw(st.integers(0, instance.accesses))]:
        if plan.access_layer[access] == 0:
            outcome = outcome_of(instance, plan, access, 1)
            if outcome.way is not None and outcome.reason == "open":
                plan = apply_way(instance, plan, outcome.way)
    return instance, plan


def with_change(
    plan: MemoryPlan,
    moved: Sequence[int],
    residence: tuple[int, ...] | None,
    copy: tuple[int, ...] | None = None,
    *,
    at: int = 0,
    rows: Sequence[int] = (),
    copies: Sequence[int] = (),
) -> MemoryPlan:
    layers = plan.access_layer.copy()
    layers[list(moved)] = 1
    residences = np.delete(plan.residences, list(rows), axis=0).tolist() + ([residence] if residence else [])
    left = np.delete(plan.copies, list(copies), axis=0).tolist()
    left.sort(key=lambda row: row[3])
    if copy:
        left.insert(at, list(copy))
    as_table = [np.array(table, dtype=np.int64).reshape(-1, 5) for table in (residences, left)]
    return MemoryPlan(access_layer=layers, residences=as_table[0], copies=as_table[1])


def changes(instance: MemoryMapInstance, plan: MemoryPlan, access: int, offsets: Sequence[int]) -> Iterator[MemoryPlan]:
    """Yield every plan, valid or not, in which one access is fast by a change of the kinds that are looked at."""
    buffer, op = int(instance.access_buffer[access]), int(instance.access_op[access])
    own = np.flatnonzero(plan.residences[:, 0] == buffer).tolist()
    windows = list(itertools.combinations(range(-1, instance.ops + 1), 2))
    if not instance.access_write[access]:
        yield with_change(plan, [access], None)
        for row, offset in itertools.product(own, offsets):
            first = int(plan.residences[row, 3])
            yield with_change(plan, [access], (buffer, 1, offset, first, op), rows=[row])
        for (start, end), offset, at in itertools.product(windows, offsets, range(len(plan.copies) + 1)):
            # Longer than empty: what is hidden by rounding is not hidden.
            if end <= op and end > start + 1:
                residence, copy = (buffer, 1, offset, start + 1, op), (buffer, 1, 1, start, end)
                yield with_change(plan, [access], residence, copy, at=at)
        return
    uses = np.flatnonzero(instance.access_buffer == buffer)
    backs = [k for k, copy in enumerate(plan.copies.tolist()) if copy[0] == buffer and copy[1] == 0]
    for count in range(len(own) + 1):
        for rows in itertools.combinations(own, count):
            feeds = {(buffer, int(plan.residences[row, 3]) - 1) for row in rows}
            copies = backs + [
                k for k, copy in enumerate(plan.copies.tolist()) if copy[1] == 1 and (copy[0], copy[3]) in feeds
            ]
            left = len(plan.copies) - len(copies)
            for stop in np.unique(instance.access_op[uses]).tolist():
                moved = uses[instance.access_op[uses] <= stop].tolist()
                for last, offset in itertools.product(range(stop, instance.ops), offsets):
                    residence = (buffer, 1, offset, op, last)
                    yield with_change(plan, moved, residence, rows=rows, copies=copies)
                    for (start, end), at in itertools.product(windows, range(left + 1)):
                        if end > start + 1:
                            copy = (buffer, 0, 1, start, end)
                            yield with_change(plan, moved, residence, copy, at=at, rows=rows, copies=copies)


def possible(instance: MemoryMapInstance, plan: MemoryPlan, access: int, offsets: Sequence[int]) -> bool:
    # The checker calls a late copy after the cheap rules; sorted starts make most candidates fail early.
    return any(not check_plan(instance, changed) for changed in changes(instance, plan, access, offsets))


@settings(max_examples=25)
@given(case=planned(), data=st.data())
def test_outcomes_are_what_brute_force_finds(case: tuple[MemoryMapInstance, MemoryPlan], data: st.DataObject) -> None:
    instance, plan = case
    assert check_plan(instance, plan) == []
    slow = np.flatnonzero(plan.access_layer == 0).tolist()
    if not slow:
        return
    access = data.draw(st.sampled_from(slow))
    outcome = outcome_of(instance, plan, access, 1)
    capacity = instance.memory.layers[1].capacity_bytes or 0
    size = int(instance.size[instance.access_buffer[access]])
    roomy = instance.with_memory(instance.memory.with_capacity(capacity + size))
    if possible(instance, plan, access, range(capacity - size + 1)):
        expected = "open"
    elif possible(roomy, plan, access, [capacity]):
        expected = "capacity"
    else:
        # An operation that computes for long hides any copy.
        memory = replace(roomy.memory, outstanding_copies=40)
        idle = replace(roomy, memory=memory, compute_s=np.full(instance.ops, 1e3))
        expected = "bandwidth" if possible(idle, plan, access, [capacity]) else "live range"
    assert outcome.reason == expected
    if outcome.way is not None and outcome.reason == "open":
        better = apply_way(instance, plan, outcome.way)
        assert check_plan(instance, better) == [] and better.access_layer[access] == 1
        assert program_latency_s(instance, better.access_layer) <= program_latency_s(instance, plan.access_layer)
    elif outcome.way is not None:
        assert 0 < outcome.way.room.missing <= size
        with pytest.raises(ValueError, match=f"no room for {size} bytes"):
            apply_way(instance, plan, outcome.way)


@settings(max_examples=50)
@given(case=planned())
def test_what_copies_use_is_what_they_need(case: tuple[MemoryMapInstance, MemoryPlan]) -> None:
    instance, plan = case
    use = bus_use(instance, plan)
    moved = [instance.size[plan.copies[plan.copies[:, 1] == way, 0]].sum() for way in (0, 1)]
    assert use.served_s.sum(axis=1) == pytest.approx(moved)  # one byte per second
    assert use.supply_s == pytest.approx(copy_supply_s(instance, plan))
    assert (use.served_s.sum(axis=0) <= use.supply_s + 1e-9).all() and (use.served_s >= -1e-12).all()
    assert use.waiting_s[:, -1] == pytest.approx([0.0, 0.0], abs=1e-9)
    assert (use.under_way.max(axis=1, initial=0) <= instance.memory.outstanding_copies).all()


def test_room_is_the_chunk_that_is_free_throughout() -> None:
    instance = MemoryMapInstance(
        name="room",
        memory=MemoryDevice(
            name="aligned",
            flops_per_s=1.0,
            layers=(
                MemoryLayer(name="slow", read_bytes_per_s=1.0, write_bytes_per_s=1.0),
                MemoryLayer(
                    name="fast", read_bytes_per_s=9.0, write_bytes_per_s=9.0, capacity_bytes=32, alignment_bytes=4
                ),
            ),
        ),
        flops=np.zeros(4),
        size=np.array([6, 10, 5, 9, 13]),
        output=np.zeros(5, dtype=bool),
        access_op=np.array([0, 1, 2, 3, 3]),
        access_buffer=np.array([0, 1, 2, 3, 4]),
        access_write=np.zeros(5, dtype=bool),
    )
    residences = np.array([[0, 1, 0, 0, 1], [1, 1, 20, 1, 2], [2, 1, 8, 3, 3]], dtype=np.int64)
    # Until operation 2, bytes 6 to 20 are free, of which the first multiple of 4 is 8.
    room = find_room(instance, residences, 3, 1, (0, 2))
    assert (room.offset, room.largest, room.missing) == (8, 12, 0)
    assert (room.fullest, room.in_use, room.occupants) == (1, 16, (1, 0))
    full = find_room(instance, residences, 4, 1, (0, 3))
    # From 16 to 20 and from 32 on: 13 to 20 starts at 16, 30 to 32 at 32.
    assert (full.offset, full.largest, full.missing, full.occupants) == (None, 4, 9, (1, 0, 2))
    assert find_room(instance, residences, 3, 1, (3, 3)).offset == 16


def test_slow_memory_is_valid_from_the_end_of_a_write_back() -> None:
    instance = MemoryMapInstance(
        name="valid",
        memory=device(4),
        flops=np.zeros(4),
        compute_s=np.full(4, 9.0),
        size=np.array([2, 2]),
        output=np.array([False, True]),
        access_op=np.array([0, 0, 3]),
        access_buffer=np.array([0, 1, 1]),
        access_write=np.array([False, True, False]),
    )
    assert slow_valid_from(instance, slow_plan(instance), 0) == 0
    assert slow_valid_from(instance, slow_plan(instance), 1) == 1
    outcome = outcome_of(instance, slow_plan(instance), 1, 1)
    assert outcome.way is not None and outcome.way.copy == (0, 0, 2)
    plan = apply_way(instance, slow_plan(instance), outcome.way)
    assert slow_valid_from(instance, plan, 1) == 2
    assert plan.residences.tolist() == [[1, 1, 0, 0, 1]] and check_plan(instance, plan) == []
