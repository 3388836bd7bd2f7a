from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import program_latency_s, slow_latency_s
from schedrl.envs.memmap.placement_order import clusters_of, memory_boundedness, saving_alone_s, shortening_s
from schedrl.envs.memmap.plan import MemoryPlan
from schedrl.envs.memmap.plan_check import check_plan
from schedrl.envs.memmap.segment_allocator import place_all, place_whole, reset_row
from schedrl.envs.memmap.segment_state import Constants, allocate, plan_of, room_of, write_program
from schedrl.errors import ConfigError

sys.path.insert(0, str(Path(__file__).parent))
from small_programs import NEEDS_DATA, V4I_16, device, random_program, traced

FAITHFUL = Constants(second_look=False)


def program(ops: list[dict[str, Any]], sizes: list[int], capacity: int, outputs: tuple[int, ...] = ()) -> Any:
    """Return a program; an operation has seconds and lists of reads and writes."""
    data = {
        "name": "by hand",
        "ops": [{"flops": op.get("seconds", 0.0), "reads": [], "writes": [], **op} for op in ops],
        "buffers": [{"size": size, "output": number in outputs} for number, size in enumerate(sizes)],
    }
    return MemoryMapInstance.from_program(data, memory=device(capacity))


def place(instance: MemoryMapInstance, constants: Constants = FAITHFUL, order: Any = None) -> MemoryPlan:
    """Place all clusters and return the plan, which has to be valid."""
    state = allocate(1, room_of([instance]))
    write_program(state, 0, instance, constants)
    count = clusters_of(instance).count
    saved = place_all(state, 0, np.arange(count) if order is None else order)
    plan = plan_of(state, 0)
    assert check_plan(instance, plan) == []
    slow = slow_latency_s(instance)
    assert slow - saved == pytest.approx(program_latency_s(instance, plan.access_layer), rel=1e-9)
    return plan


@given(seed=st.integers(0, 2**32 - 1))
def test_any_order_of_any_program_gives_a_valid_plan(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = random_program(rng)
    constants = Constants(
        max_overlap=float(rng.choice([0.5, 8.0, 1e9])),
        max_repacks=int(rng.integers(0, 5)),
        max_retries=int(rng.integers(1, 4)),
        inefficient_ratio=float(rng.choice([0.0, 0.5])),
        second_look=bool(rng.random() < 0.5),
    )
    place(instance, constants, rng.permutation(clusters_of(instance).count))


@given(seed=st.integers(0, 2**32 - 1))
def test_whole_lives_give_valid_plans_without_a_second_residence(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = random_program(rng)
    state = allocate(1, room_of([instance]))
    write_program(state, 0, instance, FAITHFUL)
    reset_row(state, 0)
    for cluster in rng.permutation(clusters_of(instance).count):
        place_whole(state, 0, cluster)
    plan = plan_of(state, 0)
    assert check_plan(instance, plan) == []
    assert len(np.unique(plan.residences[:, 0])) == len(plan.residences)
    fast = [plan.access_layer[instance.access_buffer == b] > 0 for b in plan.residences[:, 0]]
    assert all(layers.all() for layers in fast)


def test_rows_of_a_batch_do_not_touch_each_other() -> None:
    programs = [random_program(np.random.default_rng(seed), ops=3 + seed) for seed in range(6)]
    state = allocate(len(programs), room_of(programs))
    for row, instance in enumerate(programs):
        write_program(state, row, instance, Constants())
        place_all(state, row, np.arange(clusters_of(instance).count))
    for row, instance in enumerate(programs):
        assert plan_of(state, row) == place(instance, Constants())


def test_a_result_is_produced_in_fast_memory_and_stays_until_its_last_use() -> None:
    # Slow: 4 s written, 4 s read twice. Fast, ten times the bandwidth: 1.2 s in all.
    ops = [{"writes": [0]}, {"seconds": 3.0}, {"reads": [0]}, {"reads": [0]}]
    instance = program(ops, [4], capacity=4)
    plan = place(instance)
    assert plan.access_layer.tolist() == [1, 1, 1]
    assert plan.residences.tolist() == [[0, 1, 0, 0, 3]]
    assert plan.copies.tolist() == []
    assert slow_latency_s(instance) == 15.0
    assert program_latency_s(instance, plan.access_layer) == pytest.approx(4.2)


def test_an_input_is_prefetched_from_where_twice_its_copy_time_is_left() -> None:
    # Copying takes 4 s, so operations 2 and 3 together are the preferred 8 s.
    ops = [{"seconds": 4.0}] * 4 + [{"reads": [0]}]
    plan = place(program(ops, [4], capacity=4))
    assert plan.copies.tolist() == [[0, 1, 1, 1, 4]]
    assert plan.residences.tolist() == [[0, 1, 0, 2, 4]]
    earlier = place(program(ops, [4], capacity=4), dataclasses.replace(FAITHFUL, preferred_overlap=4.0))
    assert earlier.copies.tolist() == [[0, 1, 1, -1, 4]]


def test_a_prefetch_needs_bus_time_that_operations_do_not_use_themselves() -> None:
    # Buffer 1 does not fit, so reading it keeps the bus busy; only with the supply of XLA can that hide a copy.
    ops = [{"reads": [1]}, {"reads": [1]}, {"reads": [0]}]
    instance = program(ops, [4, 8], capacity=4)
    assert place(instance).access_layer.tolist() == [0, 0, 0]
    elapsed = instance.with_memory(dataclasses.replace(instance.memory, supply="elapsed"))
    assert place(elapsed).access_layer.tolist() == [0, 0, 1]


def test_copies_under_way_are_capped_by_the_device() -> None:
    ops = [{"seconds": 4.0}] * 4 + [{"reads": [0]}]
    instance = program(ops, [4], capacity=4)
    none = instance.with_memory(dataclasses.replace(instance.memory, outstanding_copies=0))
    assert place(none).access_layer.tolist() == [0]


def test_a_value_whose_next_use_is_too_far_away_is_evicted_and_fetched_again() -> None:
    # Copying the whole layer takes 4 s; at most twice that may pass between two uses.
    ops = [{"writes": [0]}, {"reads": [0]}, {"seconds": 9.0}, {"seconds": 9.0}, {"reads": [0]}]
    instance = program(ops, [4], capacity=4)
    plan = place(instance, dataclasses.replace(FAITHFUL, max_overlap=2.5))
    assert plan.access_layer.tolist() == [1, 1, 1]
    assert plan.copies.tolist() == [[0, 0, 1, 0, 3], [0, 1, 1, 2, 4]]
    assert plan.residences.tolist() == [[0, 1, 0, 0, 2], [0, 1, 0, 3, 4]]
    assert place(instance).residences.tolist() == [[0, 1, 0, 0, 4]]


def test_an_output_is_copied_back_or_stays_slow() -> None:
    ops = [{"writes": [0]}, {"reads": [0], "seconds": 2.0}, {"seconds": 2.0}, {"seconds": 2.0}]
    plan = place(program(ops, [4], capacity=4, outputs=(0,)))
    assert plan.access_layer.tolist() == [1, 1]
    assert plan.copies[:, 1].tolist() == [0]
    assert place(program(ops[:2], [4], capacity=4, outputs=(0,))).access_layer.tolist() == [0, 0]


def test_in_place_results_take_over_the_bytes_of_their_operand() -> None:
    ops = [{"writes": [0]}, {"reads": [0], "writes": [1], "groups": [0, 0]}, {"reads": [1]}]
    plan = place(program(ops, [4, 4], capacity=4))
    assert plan.access_layer.tolist() == [1, 1, 1, 1]
    assert plan.residences.tolist() == [[0, 1, 0, 0, 1], [1, 1, 0, 1, 2]]


def test_a_group_that_cannot_stay_together_is_slow_as_a_whole() -> None:
    # Two inputs that one operation reads cannot share an offset.
    ops = [{"seconds": 50.0}, {"reads": [0, 1], "groups": [0, 0]}, {"seconds": 50.0}, {"reads": [0, 1]}]
    plan = place(program(ops, [4, 4], capacity=8), Constants())
    assert plan.access_layer.tolist() == [0, 0, 1, 1]


def test_buffers_larger_than_the_layer_do_not_use_up_repacks() -> None:
    ops = [{"writes": [0]}, {"reads": [0]}]
    instance = program(ops, [5], capacity=4)
    state = allocate(1, room_of([instance]))
    write_program(state, 0, instance, Constants())
    place_all(state, 0, np.arange(1))
    assert plan_of(state, 0).access_layer.tolist() == [0, 0]


def test_copies_that_are_hardly_used_are_given_up() -> None:
    ops = [{"seconds": 20.0}, {"reads": [0], "read_bytes": [4]}]
    instance = program(ops, [10], capacity=10)
    assert place(instance).access_layer.tolist() == [0]
    assert place(instance, dataclasses.replace(FAITHFUL, inefficient_ratio=0.0)).access_layer.tolist() == [1]


def test_alignment_rounds_offsets_up() -> None:
    ops = [{"writes": [0, 1]}, {"reads": [0, 1]}]
    instance = program(ops, [3, 3], capacity=7)
    layers = (instance.memory.layers[0], dataclasses.replace(instance.memory.layers[1], alignment_bytes=4))
    plan = place(instance.with_memory(dataclasses.replace(instance.memory, layers=layers)))
    assert sorted(plan.residences[:, 2].tolist()) == [0, 4]


def test_with_two_fast_layers_a_buffer_takes_the_one_that_saves_more() -> None:
    instance = program([{"writes": [0]}, {"reads": [0]}], [4], capacity=4)
    slow, fast = instance.memory.layers
    faster = dataclasses.replace(fast, name="faster", read_bytes_per_s=40.0, write_bytes_per_s=40.0)
    plan = place(instance.with_memory(dataclasses.replace(instance.memory, layers=(slow, fast, faster))))
    assert plan.access_layer.tolist() == [2, 2]


def test_boundedness_adds_gains_of_memory_bound_accesses_only() -> None:
    # Alone in fast memory, an access of 4 bytes takes 0.4 s instead of 4 s. Operation 1 computes for 6 s.
    ops = [{"writes": [0]}, {"reads": [0], "seconds": 6.0}, {"reads": [0, 1], "seconds": 1.0}]
    instance = program(ops, [4, 9], capacity=20)
    np.testing.assert_allclose(saving_alone_s(instance), [3.6, 4.0 - 6.0, 3.6, 8.1])
    np.testing.assert_allclose(shortening_s(instance), [3.6, 0.0, 3.6, 8.1])
    np.testing.assert_allclose(memory_boundedness(instance), [7.2 / 2.0, 8.1 / 3.0])
    assert clusters_of(instance).of_buffer.tolist() == [0, 1]


def test_clusters_join_what_groups_connect_and_stand_where_their_first_buffer_does() -> None:
    ops = [
        {"reads": [0], "writes": [1], "groups": [0, 0]},
        {"reads": [1, 3], "writes": [2], "groups": [1, -1, 1]},
        {"reads": [2]},
    ]
    instance = program(ops, [4, 4, 4, 5], capacity=20)
    clusters = clusters_of(instance)
    assert clusters.count == 2
    assert len(set(clusters.of_buffer[:3].tolist())) == 1
    own = clusters.access[clusters.first[clusters.of_buffer[0]] : clusters.first[clusters.of_buffer[0] + 1]]
    assert own.tolist() == [0, 1, 2, 4, 5]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("max_overlap", -1.0, "a number >= 0"),
        ("inefficient_ratio", float("nan"), "a number >= 0"),
        ("max_retries", 0, "an integer >= 1"),
        ("max_repacks", -1, "an integer >= 0"),
        ("max_repacks", 1.5, "an integer >= 0"),
    ],
)
def test_bad_constants_are_one_line_errors(field: str, value: float, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"constants: field {field}: .*expected {expected}"):
        Constants(**{field: value})  # type: ignore[arg-type]


@NEEDS_DATA
def test_repacking_makes_room_in_gpt2() -> None:
    instance = traced("gpt2_infer_b4_t512", V4I_16)
    none = place(instance, dataclasses.replace(FAITHFUL, max_repacks=0))
    four = place(instance, FAITHFUL)
    assert program_latency_s(instance, none.access_layer) == pytest.approx(7.427e-3, abs=1e-6)
    assert program_latency_s(instance, four.access_layer) == pytest.approx(7.261e-3, abs=1e-6)
