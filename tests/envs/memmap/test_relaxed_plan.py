"""Plans without offsets: bytes counted again one by one, and all plans of tiny programs tried."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from small_games import op, program
from small_programs import random_program

from schedrl.arrays import F64
from schedrl.envs.memmap import prices
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import op_latency_s, program_latency_s
from schedrl.envs.memmap.prices import shadow_prices
from schedrl.envs.memmap.relaxed_plan import Windows, build_relaxed

Held = tuple[bool, ...]
Layers = tuple[int, ...]


def plain_device(instance: MemoryMapInstance) -> MemoryMapInstance:
    """Return the program without an overhead of slow accesses, which these plans know nothing of."""
    return instance.with_memory(dataclasses.replace(instance.memory, overhead_window_bytes=0.0))


def relaxed(instance: MemoryMapInstance, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Return arguments and result of every plan that the prices of an instance are asked for."""
    calls: list[tuple[Any, Any]] = []

    def spied(*arguments: Any) -> Any:
        found = build_relaxed(*arguments)
        calls.append((arguments, found))
        return found

    monkeypatch.setattr(prices, "build_relaxed", spied)
    # A copy, since prices are kept with an instance.
    shadow_prices(dataclasses.replace(instance))
    return calls


def places(
    instance: MemoryMapInstance, windows: Windows, buffer: int, layer: Layers, held: Held
) -> Iterator[tuple[int, int, int]]:
    """Yield layer, first and last operation of what a buffer occupies: accesses, stays, copies in and back."""
    lead, tail = windows
    offset, order = instance.by_buffer
    own = order[offset[buffer] : offset[buffer + 1]].tolist()
    back = bool(instance.output[buffer]) or not all(held[:-1])
    for k, access in enumerate(own):
        t, write = int(instance.access_op[access]), bool(instance.access_write[access])
        if layer[k] == 0:
            continue
        first = t if write else t - int(lead[access])
        if k and held[k - 1]:
            first = int(instance.access_op[own[k - 1]]) + 1
        yield layer[k], max(first, 0), t
        if write and back:
            yield layer[k], t, min(t + int(tail[access]), instance.ops - 1)


def occupied(instance: MemoryMapInstance, windows: Windows, layer: Any, held: Any) -> F64:
    """Return (L, T) bytes taken by all buffers; a buffer counts once per operation."""
    offset, order = instance.by_buffer
    total = np.zeros((instance.layers, instance.ops))
    for buffer in range(instance.buffers):
        own = order[offset[buffer] : offset[buffer + 1]]
        there = np.zeros((instance.layers, instance.ops), dtype=np.bool_)
        for number, first, last in places(instance, windows, buffer, tuple(layer[own]), tuple(held[own])):
            there[number, first : last + 1] = True
        total += there * instance.size[buffer]
    return total


@given(seed=st.integers(0, 2**32 - 1))
def test_plans_keep_the_capacity_and_state_their_latency(seed: int) -> None:
    instance = plain_device(random_program(np.random.default_rng(seed)))
    with pytest.MonkeyPatch.context() as monkeypatch:
        calls = relaxed(instance, monkeypatch)
    capacity = np.array([layer.capacity_bytes or 0 for layer in instance.memory.layers])
    assert len(calls) >= 2
    for arguments, (layer, held, latency) in calls:
        taken = occupied(instance, arguments[1], layer, held)
        assert (taken[1:] <= capacity[1:, None]).all()
        assert latency == pytest.approx(program_latency_s(instance, layer), rel=1e-9)
        assert latency <= program_latency_s(instance, np.zeros(instance.accesses, np.int8)) * (1 + 1e-12)
        # Only what is served fast can be held, and only in the layer of the next access.
        offset, order = instance.by_buffer
        for buffer in range(instance.buffers):
            own = order[offset[buffer] : offset[buffer + 1]]
            for one, two in itertools.pairwise(own.tolist()):
                assert not held[one] or layer[one] == layer[two] > 0
        # A copy needs its operations before the access.
        fetched = (layer > 0) & ~instance.access_write
        for buffer in range(instance.buffers):
            own = order[offset[buffer] : offset[buffer + 1]]
            fetched[own[1:]] &= ~held[own[:-1]]
        assert (instance.access_op[fetched] >= arguments[1][0][fetched]).all()


def inputs(instance: MemoryMapInstance) -> tuple[Any, ...]:
    """Return the arguments of a plan in which copies need one operation and cost nothing, and bytes neither."""
    memory = instance.memory.layers
    slow = np.where(instance.access_write, memory[0].write_bytes_per_s, memory[0].read_bytes_per_s)
    fast = np.where(instance.access_write, memory[1].write_bytes_per_s, memory[1].read_bytes_per_s)
    saving = np.zeros((instance.accesses, 2))
    assert instance.trips is not None and instance.access_bytes is not None
    saving[:, 1] = instance.trips[instance.access_op] * instance.access_bytes * (1 / slow - 1 / fast)
    capacity = float(memory[1].capacity_bytes or 0)
    saving[instance.size[instance.access_buffer] > capacity, 1] = -1e30
    offset, order = instance.by_buffer
    one = np.ones(instance.accesses, dtype=np.int32)
    all_slow = instance.trips * op_latency_s(instance, np.zeros(instance.accesses, np.int8))
    size = instance.size.astype(np.float64)
    worth = np.bincount(instance.access_buffer, weights=np.maximum(saving[:, 1], 0), minlength=instance.buffers)
    return (
        (offset, order, instance.access_op, instance.access_write, size, instance.output),
        (one, one.copy()),
        saving,
        (instance.trips * instance.compute, all_slow),
        np.array([0.0, capacity]),
        np.zeros((2, instance.ops + 1)),
        (worth, size),
        0.0,
    )


def choices(instance: MemoryMapInstance, windows: Windows, buffer: int) -> list[tuple[list[int], F64]]:
    """Return the fast accesses and the (T,) bytes of every way to treat a buffer."""
    offset, order = instance.by_buffer
    own = order[offset[buffer] : offset[buffer + 1]].tolist()
    found = []
    for layer in itertools.product((0, 1), repeat=len(own)):
        for held in itertools.product((False, True), repeat=max(len(own) - 1, 0)):
            if any(stay and not layer[k] == layer[k + 1] == 1 for k, stay in enumerate(held)):
                continue
            taken = np.zeros(instance.ops)
            fetches = [a for k, a in enumerate(own) if layer[k] and not instance.access_write[a]
                       and not (k and held[k - 1])]  # fmt: skip
            if any(instance.access_op[a] < 1 for a in fetches):
                continue
            for _, first, last in places(instance, windows, buffer, layer, (*held, False)):
                taken[first : last + 1] = instance.size[buffer]
            found.append(([a for k, a in enumerate(own) if layer[k]], taken))
    return found


def least_latency(instance: MemoryMapInstance, windows: Windows) -> float:
    """Return the least latency of all layers and stays that fit the capacity at every operation."""
    capacity = float(instance.memory.layers[1].capacity_bytes or 0)
    options = [choices(instance, windows, buffer) for buffer in range(instance.buffers)]
    states: list[tuple[list[int], F64]] = [([], np.zeros(instance.ops))]
    for own in options:
        states = [
            (fast + more, taken + extra)
            for fast, taken in states
            for more, extra in own
            if (taken + extra <= capacity).all()
        ]
    best = np.inf
    for accesses in {tuple(fast) for fast, _ in states}:
        layer = np.zeros(instance.accesses, dtype=np.int8)
        layer[list(accesses)] = 1
        best = min(best, program_latency_s(instance, layer))
    return best


def tiny_programs(count: int) -> Iterator[MemoryMapInstance]:
    rng = np.random.default_rng(7)
    while count:
        instance = plain_device(random_program(rng, ops=3, groups=False))
        if instance.layers == 2 and instance.accesses <= 8:
            count -= 1
            yield instance


def test_plans_of_tiny_programs_are_close_to_the_best_of_all_plans() -> None:
    gaps = []
    for instance in tiny_programs(40):
        arguments = inputs(instance)
        _, _, latency = build_relaxed(*arguments)
        best = least_latency(instance, arguments[1])
        assert latency >= best * (1 - 1e-12)
        gaps.append(latency / best - 1.0)
    assert np.mean(np.array(gaps) < 1e-9) > 0.85
    assert np.mean(gaps) < 0.02


def test_the_denser_buffer_takes_the_room() -> None:
    # Buffer 0 is read twice per byte of its life where buffer 1 is read once; only one of them fits.
    instance = program([op([], [0, 1]), op([0, 0, 1], [])], [10, 10], capacity=15)
    layer, held, latency = build_relaxed(*inputs(instance))
    assert layer.tolist() == [1, 0, 1, 1, 0]
    assert held.tolist() == [True, False, True, False, False]
    assert latency == pytest.approx(1 + 10 + 2 + 10)
