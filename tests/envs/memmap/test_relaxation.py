from __future__ import annotations

import dataclasses
import itertools
import json
import os
import sys
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.bounds import bounds
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import fast_bound_s, program_latency_s, slow_latency_s
from schedrl.envs.memmap.plan import MemoryPlan, slow_plan
from schedrl.envs.memmap.plan_check import check_plan
from schedrl.envs.memmap.relaxation import solve_relaxation, use_table

sys.path.insert(0, str(Path(__file__).parent))
from small_programs import drop_broken_updates

Row = tuple[int, int, int, int, int]


def device(capacity: int, *more: int, supply: Literal["idle", "elapsed"] = "idle", **changes: Any) -> MemoryDevice:
    """Return a device that computes one operation, moves 1 slow byte or 10 fast bytes per second."""
    layers = [MemoryLayer(name="slow", read_bytes_per_s=1.0, write_bytes_per_s=1.0)]
    for number, size in enumerate((capacity, *more)):
        rate = 10.0 * (number + 1)
        layers.append(
            MemoryLayer(name=f"fast{number}", read_bytes_per_s=rate, write_bytes_per_s=rate, capacity_bytes=size)
        )
    return MemoryDevice(name="unit", flops_per_s=1.0, layers=tuple(layers), supply=supply, **changes)


def program(memory: MemoryDevice, sizes: list[int], *ops: dict[str, Any], outputs: tuple[int, ...] = ()) -> (
    MemoryMapInstance
):  # fmt: skip
    buffers = [{"size": size, "output": number in outputs} for number, size in enumerate(sizes)]
    full = [{"flops": 0, "reads": [], "writes": []} | op for op in ops]
    return MemoryMapInstance.from_program({"name": "p", "ops": full, "buffers": buffers}, memory=memory)


def integer_bound(instance: MemoryMapInstance) -> float:
    found = solve_relaxation(instance, integer=True, time_limit_s=30.0)
    assert found.optimal
    return found.bound_s


def test_input_is_fetched_where_the_bus_has_time() -> None:
    memory = device(8)
    # Six idle seconds hide the copy of four bytes; the use itself takes 0.4 s.
    assert integer_bound(program(memory, [4], {"flops": 6}, {"reads": [0]})) == pytest.approx(6.4, rel=1e-5)
    # Three do not, although the bus is idle for long enough in total.
    late = program(memory, [4], {"flops": 3}, {"reads": [0]}, {"flops": 9})
    assert integer_bound(late) == pytest.approx(16.0, rel=1e-5)
    assert solve_relaxation(late).bound_s == pytest.approx(16.0, rel=1e-5)


def test_elapsed_supply_counts_the_latency_without_fast_memory() -> None:
    # The second operation reads four bytes in 4 s of slow memory: enough to fetch four others, unless supply is idle.
    ops = ({"reads": [0]}, {"reads": [1]}, {"reads": [2]})
    assert integer_bound(program(device(8), [4, 4, 4], *ops)) == pytest.approx(12.0, rel=1e-5)
    elapsed = program(device(8, supply="elapsed"), [4, 4, 4], *ops)
    assert integer_bound(elapsed) == pytest.approx(4.0 + 0.4 + 0.4, rel=1e-5)


def test_output_needs_time_to_leave() -> None:
    stuck = program(device(8), [4], {"writes": [0]}, {"reads": [0]}, outputs=(0,))
    assert integer_bound(stuck) == pytest.approx(8.0, rel=1e-5)
    hidden = program(device(8), [4], {"writes": [0]}, {"reads": [0], "flops": 5}, outputs=(0,))
    assert integer_bound(hidden) == pytest.approx(0.4 + 5.0, rel=1e-5)
    inner = program(device(8), [4], {"writes": [0]}, {"reads": [0]})
    assert integer_bound(inner) == pytest.approx(0.8, rel=1e-5)


def test_capacity_counts_copies_under_way() -> None:
    # Both inputs would have to arrive during the first operation, and only one fits.
    instance = program(device(4), [4, 4], {"flops": 10}, {"reads": [0]}, {"reads": [1]})
    assert integer_bound(instance) == pytest.approx(10.0 + 0.4 + 4.0, rel=1e-5)


def test_capacity_is_rounded_to_the_alignment() -> None:
    ops = ({"flops": 20}, {"reads": [0, 1]})
    memory = device(8)
    assert integer_bound(program(memory, [3, 3], *ops)) == pytest.approx(20.6, rel=1e-5)
    aligned = dataclasses.replace(memory.layers[1], alignment_bytes=8)
    memory = dataclasses.replace(memory, layers=(memory.layers[0], aligned))
    assert integer_bound(program(memory, [3, 3], *ops)) == pytest.approx(23.3, rel=1e-5)


def test_buffers_of_an_alias_group_share_their_bytes_in_place() -> None:
    ops = ({"writes": [0]}, {"reads": [0], "writes": [1]}, {"reads": [1]})
    apart = program(device(4), [4, 4], *ops)
    assert integer_bound(apart) == pytest.approx(0.8 + 8.0, rel=1e-5)
    together = program(device(4), [4, 4], ops[0], ops[1] | {"groups": [0, 0]}, ops[2])
    assert integer_bound(together) == pytest.approx(1.6, rel=1e-5)


def test_trips_count_in_latency_and_supply() -> None:
    instance = program(device(8), [4], {"flops": 2, "trips": 3}, {"reads": [0], "trips": 5})
    assert integer_bound(instance) == pytest.approx(6.0 + 5 * 0.4, rel=1e-5)


def test_faster_of_two_layers_serves_what_fits_there() -> None:
    instance = program(device(8, 4), [4, 4], {"flops": 20}, {"reads": [0, 1]})
    assert integer_bound(instance) == pytest.approx(20.0 + 0.4 + 0.2, rel=1e-5)


def test_bytes_of_an_access_may_differ_from_the_size() -> None:
    # Reading one byte of twenty: a copy would move all of them, for which there is no time.
    instance = program(device(20), [20], {"flops": 6}, {"reads": [0], "read_bytes": [1]})
    assert integer_bound(instance) == pytest.approx(7.0, rel=1e-5)


def test_shares_describe_the_plan_that_the_relaxation_wants() -> None:
    instance = program(
        device(8), [4, 4], {"flops": 5}, {"reads": [0], "writes": [1], "flops": 5}, {"reads": [1, 0]}, outputs=(1,)
    )
    found = solve_relaxation(instance, integer=True, time_limit_s=10.0)
    uses = use_table(instance)
    assert uses.op.tolist() == [1, 2, 1, 2] and uses.of_access.tolist() == [0, 2, 3, 1]
    # The output cannot leave fast memory in the last operation, so it is written and read in slow memory.
    assert found.bound_s == pytest.approx(5.0 + 5.0 + 4.4, rel=1e-5)
    assert found.access[:, 0].tolist() == [0.0] * 4
    assert found.fetched[0, 1] == pytest.approx(1.0) and found.kept[0, 1] == pytest.approx(1.0)


def random_program(random: Random) -> MemoryMapInstance:
    """Return a small program of whatever the format allows: groups, trips, outputs, partial and repeated accesses."""
    layers = [MemoryLayer(name="slow", read_bytes_per_s=random.choice([1.0, 1.0, 2.0]), write_bytes_per_s=1.0)]
    for number in range(random.choice([1, 1, 2])):
        layers.append(
            MemoryLayer(
                name=f"fast{number}",
                read_bytes_per_s=random.choice([3.0, 4.0, 10.0]),
                write_bytes_per_s=random.choice([4.0, 10.0]),
                capacity_bytes=random.randint(4, 20),
                alignment_bytes=random.choice([1, 1, 4]),
            )
        )
    memory = MemoryDevice(
        name="random",
        flops_per_s=1.0,
        layers=tuple(layers),
        overhead_window_bytes=random.choice([0.0, 0.0, 3.0]),
        supply=random.choice(["idle", "idle", "elapsed"]),
        outstanding_copies=random.choice([40, 1]),
    )
    sizes = [random.randint(1, 8) for _ in range(random.randint(1, 3))]
    ops: list[dict[str, Any]] = []
    groups = 0
    for t in range(random.randint(2, 6)):
        reads = [random.randrange(len(sizes)) for _ in range(random.randint(0 if t else 1, 2))]
        writes = []
        if random.random() < 0.8:
            writes = [len(sizes)]
            sizes.append(random.randint(1, 8))
        op: dict[str, Any] = {"flops": random.choice([0, 1, 3, 8, 15]), "reads": reads, "writes": writes}
        op["trips"] = random.choice([1, 1, 1, 3])
        if random.random() < 0.2:
            op["read_bytes"] = [random.randint(0, 9) for _ in reads]
            op["write_bytes"] = [random.randint(0, 9) for _ in writes]
        if reads and writes and random.random() < 0.4:
            op["groups"] = [-1] * (len(reads) - 1) + [groups] * 2
            groups += random.random() < 0.7
        ops.append(op)
    outputs = tuple(number for number in range(len(sizes)) if random.random() < 0.2)
    return program(memory, sizes, *drop_broken_updates(ops, outputs), outputs=outputs)


def extended(instance: MemoryMapInstance, plan: MemoryPlan, random: Random) -> MemoryPlan:
    """Return the plan with one more residence of some buffer, its copies and its accesses, valid or not."""
    buffer, layer = random.randrange(instance.buffers), random.randint(1, instance.layers - 1)
    accesses = np.flatnonzero(instance.access_buffer == buffer).tolist()
    ops, define = instance.ops, int(instance.definition[buffer])
    residences: list[Row] = [tuple(row) for row in plan.residences.tolist()]
    copies: list[Row] = [tuple(row) for row in plan.copies.tolist()]
    place = instance.memory.layers[layer]
    steps = max((place.capacity_bytes or 0) - int(instance.size[buffer]), 0) // place.alignment_bytes
    offset = random.choice([0, random.randint(0, steps)]) * place.alignment_bytes
    last = random.choice([int(instance.access_op[a]) for a in accesses] + [random.randrange(ops)])
    if define >= 0 and random.random() < 0.6:
        first = define
        if random.random() < 0.5 and first + 2 <= ops:
            start = random.randint(first, ops - 2)
            end = random.randint(start + 2, ops)
            copies.insert(random.randint(0, len(copies)), (buffer, 0, layer, start, end))
            last = max(last, end - 1)
    else:
        start = random.randint(-1, ops - 2)
        end, first = random.randint(start + 2, ops), start + 1
        copies.insert(random.randint(0, len(copies)), (buffer, 1, layer, start, end))
        last = max(last, end - 1)
    residences.append((buffer, layer, offset, first, max(last, first)))
    chosen = {a for a in accesses if first <= instance.access_op[a] <= last and random.random() < 0.85}
    group = instance.access_group
    assert group is not None
    for access in list(chosen):
        if group[access] >= 0:
            chosen |= set(np.flatnonzero(group == group[access]).tolist())
    # The others of a group need a place at the same offset.
    for access in sorted(chosen):
        other, t = int(instance.access_buffer[access]), int(instance.access_op[access])
        if any(row[:2] == (other, layer) and row[3] <= t <= row[4] for row in residences):
            continue
        if instance.access_write[access]:
            until = random.choice([t, min(ops - 1, t + 1), ops - 1])
            residences.append((other, layer, offset, t, until))
            if t + 2 <= ops and random.random() < 0.5:
                copies.append((other, 0, layer, t, until + 1))
        elif t >= 1:
            since = max(0, t - random.randint(1, 2))
            residences.append((other, layer, offset, since, t))
            copies.append((other, 1, layer, since - 1, t))
    access_layer = plan.access_layer.copy()
    access_layer[sorted(chosen)] = layer
    return MemoryPlan(access_layer=access_layer, residences=np.array(residences), copies=np.array(copies))


def random_plan(instance: MemoryMapInstance, random: Random, steps: int) -> MemoryPlan:
    """Return a valid plan that grew residence by residence."""
    plan = slow_plan(instance)
    for _ in range(steps):
        larger = extended(instance, plan, random)
        if not check_plan(instance, larger):
            plan = larger
    return plan


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**40))
def test_no_valid_plan_beats_a_bound(seed: int) -> None:
    random = Random(seed)
    instance = random_program(random)
    best = min(program_latency_s(instance, random_plan(instance, random, 40).access_layer) for _ in range(4))
    values = {bound.name: bound.value for bound in bounds(instance)}
    integer = integer_bound(instance)
    assert max(*values.values(), integer) <= best * (1.0 + 1e-12)
    assert values["relaxation"] <= integer * (1.0 + 2e-5)
    assert fast_bound_s(instance) <= integer * (1.0 + 2e-5)


def configurations(instance: MemoryMapInstance, buffer: int) -> list[tuple[list[Row], list[Row]]]:
    """Return all ways for one buffer to be in the only fast layer: up to two residences, each fed by at most one copy.

    Without offsets; with every copy out that can follow.
    """
    ops = instance.ops
    single: list[tuple[list[Row], list[Row]]] = []
    for first, last in itertools.combinations_with_replacement(range(ops), 2):
        row = (buffer, 1, 0, first, last)
        if first == instance.definition[buffer]:
            single.append(([row], []))
        single += [([row], [(buffer, 1, 1, first - 1, end)]) for end in range(first + 1, last + 1)]
    pairs = [(a[0] + b[0], a[1] + b[1]) for a, b in itertools.combinations(single, 2) if a[0][0][4] < b[0][0][3]]
    found = [([], []), *single, *pairs]
    outward = [(buffer, 0, 1, start, end) for start in range(ops) for end in range(start + 2, ops + 1)]
    return found + [(rows, [*copies, out]) for rows, copies in found[1:] for out in outward]


def beaten(instance: MemoryMapInstance, access_layer: Any) -> bool:
    """Whether any valid plan serves the accesses like this, by trying all residences, copies and offsets."""
    options = []
    for buffer in range(instance.buffers):
        own = np.where(instance.access_buffer == buffer, access_layer, 0)
        # Whatever a buffer's own rules forbid is never part of a plan; bandwidth and groups depend on the others.
        options.append(
            [
                (rows, copies)
                for rows, copies in configurations(instance, buffer)
                if all(
                    violation.startswith(("bandwidth", "group"))
                    for violation in check_plan(instance, plan_of(own, rows, copies))
                )
            ]
        )
    capacity = instance.memory.layers[1].capacity_bytes or 0
    for choice in itertools.product(*options):
        rows = [row for part, _ in choice for row in part]
        copies = sorted((copy for _, part in choice for copy in part), key=lambda copy: (copy[3], copy[4]))
        for offsets in itertools.product(*(range(capacity - int(instance.size[row[0]]) + 1) for row in rows)):
            placed = [(row[0], row[1], offset, row[3], row[4]) for row, offset in zip(rows, offsets, strict=True)]
            if not check_plan(instance, plan_of(access_layer, placed, copies)):
                return True
    return False


def plan_of(access_layer: Any, rows: list[Row], copies: list[Row]) -> MemoryPlan:
    return MemoryPlan(
        access_layer=np.asarray(access_layer, dtype=np.int8), residences=np.array(rows), copies=np.array(copies)
    )


def tiny_program(random: Random) -> MemoryMapInstance:
    memory = device(random.randint(2, 3), supply=random.choice(["idle", "elapsed"]))
    sizes, ops, written = [random.randint(1, 2)], [], False
    for t in range(3):
        reads = random.sample(range(len(sizes)), k=min(len(sizes), random.randint(t == 0, 2)))
        writes = [len(sizes)] if not written and random.random() < 0.6 else []
        written = written or bool(writes)
        sizes += [random.randint(1, 2) for _ in writes]
        op: dict[str, Any] = {"flops": random.choice([0, 1, 2, 3]), "reads": reads, "writes": writes}
        if reads and writes and random.random() < 0.3:
            op["groups"] = [-1] * (len(reads) - 1) + [0, 0]
        ops.append(op)
    outputs = (1,) if written and random.random() < 0.3 else ()
    return program(memory, sizes, *drop_broken_updates(ops, outputs), outputs=outputs)


@pytest.mark.parametrize("seed", range(12))
def test_exhaustive_search_finds_no_plan_below_the_bound(seed: int) -> None:
    instance = tiny_program(Random(seed))
    bound = integer_bound(instance)
    for access_layer in itertools.product((0, 1), repeat=instance.accesses):
        if program_latency_s(instance, np.array(access_layer, dtype=np.int8)) < bound * (1.0 - 1e-9):
            assert not beaten(instance, access_layer)


def test_bound_is_reached_on_most_tiny_programs() -> None:
    reached = 0
    for seed in range(12):
        instance = tiny_program(Random(seed))
        bound = integer_bound(instance)
        latencies = {
            choice: program_latency_s(instance, np.array(choice, dtype=np.int8))
            for choice in itertools.product((0, 1), repeat=instance.accesses)
        }
        close = [choice for choice, value in latencies.items() if abs(value - bound) <= 1e-4 * bound]
        reached += any(beaten(instance, choice) for choice in close)
    assert reached >= 10


DATA = Path(os.environ.get("SCHEDRL_DATA", "")) / "memmap" / "torch_traces"
MIB = 2**20
PRESETS = {
    "v4i-128": (138e12, 614e9, 128 * MIB),
    "v4i-16": (138e12, 614e9, 16 * MIB),
    "v5e-48": (197e12, 819e9, 48 * MIB),
}


def traced(name: str, preset: str) -> MemoryMapInstance:
    flops, rate, capacity = PRESETS[preset]
    slow = MemoryLayer(name="HBM", read_bytes_per_s=rate, write_bytes_per_s=rate)
    fast = MemoryLayer(name="CMEM", read_bytes_per_s=10 * rate, write_bytes_per_s=10 * rate, capacity_bytes=capacity)
    memory = MemoryDevice(name=preset, flops_per_s=flops, layers=(slow, fast))
    data = json.loads((DATA / f"{name}.mmap.json").read_text(encoding="utf-8"))
    return MemoryMapInstance.from_program(data, memory=memory)


# Milliseconds: without fast memory, and the published integer and linear bounds, which know no copy windows and no
# due dates of copies; ours do, and are at least as large.
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the traces in SCHEDRL_DATA")
@pytest.mark.parametrize(
    ("name", "preset", "slow", "published", "linear", "ours"),
    [
        ("resnet50_infer_b32", "v4i-128", 9.054, 2.739, 2.600, 2.814),
        ("resnet50_infer_b32", "v4i-16", 9.054, 7.373, 7.160, 7.468),
        ("resnet50_infer_b32", "v5e-48", 6.737, 4.284, 3.878, 4.341),
        ("gpt2_infer_b4_t512", "v4i-128", 8.603, 4.317, 4.317, 4.431),
        ("gpt2_infer_b4_t512", "v4i-16", 8.603, 7.151, 7.077, 7.206),
        ("gpt2_infer_b4_t512", "v5e-48", 6.269, 3.127, 3.127, 3.169),
    ],
)
def test_bounds_of_traced_programs(
    name: str, preset: str, slow: float, published: float, linear: float, ours: float
) -> None:
    instance = traced(name, preset)
    assert 1e3 * slow_latency_s(instance) == pytest.approx(slow, abs=1e-3)
    assert 1e3 * solve_relaxation(instance).bound_s >= linear - 1e-3
    assert 1e3 * integer_bound(instance) == pytest.approx(ours, abs=2e-3)
    assert ours >= published
