"""The judge of plans: for every rule a plan that breaks just that one, and the words for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.generators import arbitrary
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.plan import MemoryPlan, slow_plan
from schedrl.envs.memmap.plan_check import MAX_LISTED, check_plan, plan_objectives

SEEDS = st.integers(0, 2**32 - 1)
IN, OUT = 1, 0
SLOW = MemoryLayer(name="slow", read_bytes_per_s=1.0, write_bytes_per_s=1.0)
FAST = MemoryLayer(name="fast", read_bytes_per_s=10.0, write_bytes_per_s=10.0, capacity_bytes=16)
TINY = MemoryLayer(name="tiny", read_bytes_per_s=20.0, write_bytes_per_s=20.0, capacity_bytes=6)
MEMORY = MemoryDevice(name="npu", flops_per_s=1.0, layers=(SLOW, FAST, TINY))


def chain(*, flops: float = 20.0, memory: MemoryDevice = MEMORY, groups: tuple[int, int] = (-1, -1)) -> Any:
    """Return four operations: reads 0 writes 1; reads 1 writes 2; reads 2 and 0 writes 3; reads 3 writes 4, an output.

    Sizes are 4, 6, 3, 2 and 5 bytes. Accesses 2 and 3, of operation 1, are in the given alias groups. With 20 s of
    computing, every operation leaves the bus idle for 11 s or more.
    """
    accesses = (([0], [1]), ([1], [2]), ([2, 0], [3]), ([3], [4]))
    ops: list[dict[str, Any]] = [{"flops": flops, "reads": reads, "writes": writes} for reads, writes in accesses]
    ops[1]["groups"] = list(groups)
    buffers = [{"size": size, "output": size == 5} for size in (4, 6, 3, 2, 5)]
    return MemoryMapInstance.from_program({"name": "chain", "ops": ops, "buffers": buffers}, memory=memory)


LAYERS = [0, 1, 1, 1, 1, 1, 0, 0, 0]
ONE, TWO, ZERO = [1, 1, 0, 0, 1], [2, 1, 6, 1, 2], [0, 1, 10, 1, 2]
FETCH = [0, IN, 1, 0, 2]


def plan(layers: list[int] = LAYERS, residences: Any = (ONE, TWO, ZERO), copies: Any = (FETCH,)) -> MemoryPlan:
    """Return a plan of ``chain``: 1 and 2 live in the fast layer, 0 is fetched during operation 1 to be read in 2."""
    return MemoryPlan(
        access_layer=np.array(layers, dtype=np.int8),
        residences=np.array(residences, dtype=np.int64).reshape(-1, 5),
        copies=np.array(copies, dtype=np.int64).reshape(-1, 5),
    )


def changed(access: int, layer: int, layers: list[int] = LAYERS) -> list[int]:
    return [layer if number == access else value for number, value in enumerate(layers)]


def test_the_plan_that_the_cases_start_from_is_valid() -> None:
    assert check_plan(chain(), plan()) == []
    assert check_plan(chain(), slow_plan(chain())) == []


def test_objectives_by_hand() -> None:
    found = plan_objectives(chain(flops=0.0), plan())
    # Slow: 10 + 9 + 9 + 7. Planned: 4 + 0.6, 0.6 + 0.3, 0.3 + 0.4 + 2, and 7; of the copy's 4 s, 0.9 are hidden.
    assert found["latency"] == pytest.approx(4.6 + 0.9 + 2.7 + 7.0, rel=1e-12)
    assert found["relative_latency"] == pytest.approx(15.2 / 35.0, rel=1e-12)
    assert found["elapsed"] == pytest.approx(15.2 + 3.1, rel=1e-12)
    assert (found["copied_bytes"], found["peak_bytes"]) == (4.0, 14.0)
    assert plan_objectives(chain(), plan())["elapsed"] == 80.0


def test_peak_counts_the_first_fast_layer_only() -> None:
    found = plan_objectives(chain(), plan(residences=(ONE, TWO, [0, 2, 2, 1, 2])))
    assert found["peak_bytes"] == 9.0


def test_a_program_that_takes_no_time_has_saved_nothing() -> None:
    data = {"name": "n", "ops": [{"flops": 0, "reads": [0], "read_bytes": [0]}], "buffers": [{"size": 1}]}
    instance = MemoryMapInstance.from_program(data, memory=MEMORY)
    found = plan_objectives(instance, slow_plan(instance))
    assert (found["latency"], found["relative_latency"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            plan(residences=(ONE, [2, 1, 5, 1, 2], ZERO)),
            "overlap: buffer 1 and buffer 2 share bytes 5 to 6 of fast at operation 1",
        ),
        (
            plan(residences=(ONE, TWO, [0, 1, 7, 1, 2])),
            "overlap: buffer 2 and buffer 0 share bytes 7 to 9 of fast at operation 1",
        ),
        (
            plan(residences=(ONE, TWO, [0, 1, 13, 1, 2])),
            "capacity: buffer 0 ends at byte 17 of fast at operation 1, which has 16",
        ),
        (
            plan(changed(5, 2), residences=(ONE, TWO, [0, 2, 3, 1, 2]), copies=([0, IN, 2, 0, 2],)),
            "capacity: buffer 0 ends at byte 7 of tiny at operation 1, which has 6",
        ),
        (
            plan(residences=([1, 1, 0, 0, 0], TWO, ZERO)),
            "residency: operation 1 reads buffer 1 in fast, where it does not reside then",
        ),
        (
            plan(changed(5, 2)),
            "residency: operation 2 reads buffer 0 in tiny, where it does not reside then",
        ),
        (
            plan(copies=()),
            "residency: operation 2 reads buffer 0 in fast before its data have arrived there",
        ),
        (
            plan(copies=([0, IN, 1, 0, 3],)),
            "residency: operation 2 reads buffer 0 in fast before its data have arrived there",
        ),
        (
            plan(changed(1, 0)),
            "residency: operation 1 reads buffer 1 in fast before its data have arrived there",
        ),
        (
            plan(changed(2, 0)),
            "validity: operation 1 reads buffer 1 from slow, which holds no valid copy then",
        ),
        (
            plan(changed(8, 1), residences=(ONE, TWO, ZERO, [4, 1, 0, 3, 3])),
            "validity: output buffer 4 has no valid copy in slow at the end",
        ),
        (
            plan(residences=(ONE, TWO, ZERO, [3, 1, 0, 2, 3]), copies=(FETCH, [3, IN, 1, 1, 3])),
            "validity: the copy of buffer 3 into fast begins after operation 1, when slow holds no valid copy",
        ),
        (
            plan(copies=(FETCH, [0, IN, 1, 1, 3])),
            "residency: the copy of buffer 0 into fast after operation 1 has no place to go to",
        ),
        (
            plan(copies=(FETCH, [0, IN, 2, 0, 2])),
            "residency: the copy of buffer 0 into tiny after operation 0 has no place to go to",
        ),
        (
            plan(residences=(ONE, TWO, ZERO, [0, 2, 0, 1, 1]), copies=(FETCH, [0, IN, 2, 0, 3])),
            "residency: the copy of buffer 0 into tiny after operation 0 has no place to go to",
        ),
        (
            plan(copies=(FETCH, [1, OUT, 1, 0, 3])),
            "residency: buffer 1 is not in fast for the whole of its copy to slow after operation 0",
        ),
        (
            plan(copies=(FETCH, [1, OUT, 2, 0, 2])),
            "residency: buffer 1 is not in tiny for the whole of its copy to slow after operation 0",
        ),
        (
            # It resides there, but the producer of its data runs only in operation 1.
            plan(copies=(FETCH, [2, OUT, 1, 0, 3])),
            "residency: buffer 2 is not in fast for the whole of its copy to slow after operation 0",
        ),
        (
            # A copy back that begins before the copy in has ended.
            plan(residences=(ONE, TWO, [0, 1, 10, 0, 2]), copies=([0, IN, 1, -1, 2], [0, OUT, 1, 0, 3])),
            "residency: buffer 0 is not in fast for the whole of its copy to slow after operation 0",
        ),
        (
            plan(copies=([0, IN, 1, 0, 1],), residences=(ONE, TWO, ZERO)),
            "bandwidth: the copy of buffer 0 into fast after operation 0 is not done before operation 1",
        ),
    ],
)
def test_a_plan_with_one_violation(broken: MemoryPlan, message: str) -> None:
    assert check_plan(chain(), broken) == [message]


def test_a_result_without_a_place_is_nowhere() -> None:
    assert check_plan(chain(), plan(changed(6, 1))) == [
        "residency: operation 2 writes buffer 3 in fast, where it does not reside then",
        "validity: operation 3 reads buffer 3 from slow, which holds no valid copy then",
    ]


def test_alignment() -> None:
    even = replace(MEMORY, layers=(SLOW, replace(FAST, alignment_bytes=2)))
    assert check_plan(chain(memory=even), plan()) == []
    assert check_plan(chain(memory=even), plan(residences=(ONE, TWO, [0, 1, 11, 1, 2]))) == [
        "alignment: buffer 0 is at byte 11 of fast, no multiple of 2"
    ]


def test_labels_and_the_names_of_layers_are_used() -> None:
    instance = replace(chain(), op_labels=("load", "conv", "add", "store"), buffer_labels=tuple("xwyzo"))
    assert check_plan(instance, plan(residences=(ONE, [2, 1, 5, 1, 2], ZERO))) == [
        "overlap: buffer w and buffer y share bytes 5 to 6 of fast at operation conv"
    ]


def test_other_layers_and_other_times_share_bytes_freely() -> None:
    # 0 lies in the other layer at the bytes of 1, and 3 takes the place of 1 after its last use.
    apart = plan(
        [0, 1, 1, 1, 1, 2, 1, 1, 0],
        residences=(ONE, TWO, [0, 2, 0, 1, 2], [3, 1, 0, 2, 3]),
        copies=([0, IN, 2, 0, 2],),
    )
    assert check_plan(chain(), apart) == []


def test_an_outward_copy_makes_later_slow_reads_valid() -> None:
    ops = [{"flops": 9, "writes": [0]}, {"flops": 9, "reads": [1]}, {"flops": 9, "reads": [0]}]
    buffers = [{"size": 5, "output": True}, {"size": 1}]
    instance = MemoryMapInstance.from_program({"name": "p", "ops": ops, "buffers": buffers}, memory=MEMORY)

    def evicted(last: int, end: int) -> list[str]:
        return check_plan(instance, plan([1, 0, 0], residences=([0, 1, 0, 0, last],), copies=([0, OUT, 1, 0, end],)))

    assert evicted(1, 2) == []
    assert evicted(2, 3) == ["validity: operation 2 reads buffer 0 from slow, which holds no valid copy then"]
    # Read in the fast layer instead, and written back by the end.
    kept = plan([1, 0, 1], residences=([0, 1, 0, 0, 2],), copies=([0, OUT, 1, 0, 3],))
    assert check_plan(instance, kept) == []


def test_evicted_data_may_come_back() -> None:
    ops = [{"flops": 9, "writes": [0]}, *({"flops": 9, "reads": [1]} for _ in range(4)), {"flops": 9, "reads": [0]}]
    buffers = [{"size": 5}, {"size": 1}]
    instance = MemoryMapInstance.from_program({"name": "p", "ops": ops, "buffers": buffers}, memory=MEMORY)
    layers, places = [1, 0, 0, 0, 0, 1], ([0, 1, 0, 0, 2], [0, 1, 8, 4, 5])
    assert check_plan(instance, plan(layers, places, ([0, OUT, 1, 0, 3], [0, IN, 1, 3, 5]))) == []
    # One operation earlier, the copy out would be too late for the copy in.
    early = ([0, 1, 0, 0, 3], [0, 1, 8, 3, 5])
    assert check_plan(instance, plan(layers, early, ([0, OUT, 1, 0, 4], [0, IN, 1, 2, 5]))) == [
        "validity: the copy of buffer 0 into fast begins after operation 2, when slow holds no valid copy"
    ]


def test_slow_accesses_of_a_parameter_need_nothing() -> None:
    assert check_plan(chain(), plan(changed(5, 0), residences=(ONE, TWO), copies=())) == []


IN_PLACE = plan(residences=(ONE, [2, 1, 0, 1, 2], ZERO))


def test_members_of_an_alias_group_hand_over_their_place() -> None:
    assert check_plan(chain(groups=(0, 0)), IN_PLACE) == []


@pytest.mark.parametrize("groups", [(-1, -1), (0, 1), (0, -1)])
def test_others_do_not(groups: tuple[int, int]) -> None:
    assert check_plan(chain(groups=groups), IN_PLACE) == [
        "overlap: buffer 1 and buffer 2 share bytes 0 to 3 of fast at operation 1"
    ]


def test_a_hand_over_is_one_operation_long() -> None:
    long = plan(residences=([1, 1, 0, 0, 2], [2, 1, 0, 1, 2], ZERO))
    assert check_plan(chain(groups=(0, 0)), long) == [
        "overlap: buffer 1 and buffer 2 share bytes 0 to 3 of fast at operation 1"
    ]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (plan(), "in fast at [6], its alias group began with buffer 1 in fast at [0]"),
        (
            plan([0, 1, 1, 0, 0, 0, 0, 0, 0], residences=(ONE,), copies=()),
            "in slow at [-1], its alias group began with buffer 1 in fast at [0]",
        ),
        (
            plan([0, 1, 1, 2, 2, 0, 0, 0, 0], residences=(ONE, [2, 2, 0, 1, 2]), copies=()),
            "in tiny at [0], its alias group began with buffer 1 in fast at [0]",
        ),
    ],
)
def test_members_of_an_alias_group_share_layer_and_offset(broken: MemoryPlan, message: str) -> None:
    assert check_plan(chain(groups=(0, 0)), broken) == [f"group: operation 1 uses buffer 2 {message}"]


def test_the_place_of_a_group_holds_for_all_its_accesses() -> None:
    ops = [
        {"flops": 9, "reads": [0], "writes": [1], "groups": [-1, 3]},
        {"flops": 9, "reads": [1], "writes": [2]},
        {"flops": 9, "reads": [2], "groups": [3]},
    ]
    buffers = [{"size": 2}, {"size": 2}, {"size": 2}]
    instance = MemoryMapInstance.from_program({"name": "p", "ops": ops, "buffers": buffers}, memory=MEMORY)
    layers = [0, 1, 1, 1, 1]
    assert check_plan(instance, plan(layers, ([1, 1, 4, 0, 1], [2, 1, 8, 1, 2]), ())) == [
        "group: operation 2 uses buffer 2 in fast at [8], its alias group began with buffer 1 in fast at [4]"
    ]
    # In one place they would overlap at operation 1, which accesses neither in the group.
    assert check_plan(instance, plan(layers, ([1, 1, 4, 0, 1], [2, 1, 4, 1, 2]), ())) == [
        "overlap: buffer 1 and buffer 2 share bytes 4 to 6 of fast at operation 1"
    ]


def test_a_late_copy_names_its_way() -> None:
    # Without computing, operation 1 leaves the bus idle for 0.6 + 0.3 s of the 4 that the copy takes.
    busy = chain(flops=0.0)
    assert check_plan(busy, plan()) == [
        "bandwidth: the copy of buffer 0 into fast after operation 0 is not done before operation 2"
    ]
    out = plan([0, 1, 1, 1, 1, 0, 0, 0, 0], residences=(ONE, TWO), copies=([1, OUT, 1, 0, 2],))
    assert check_plan(busy, out) == [
        "bandwidth: the copy of buffer 1 from fast after operation 0 is not done before operation 2"
    ]
    at_end = plan([0, 1, 1, 1, 1, 0, 0, 0, 0], residences=(ONE, [2, 1, 6, 1, 3]), copies=([2, OUT, 1, 2, 4],))
    assert check_plan(chain(flops=0.0, memory=replace(MEMORY, supply="idle")), at_end) == [
        "bandwidth: the copy of buffer 2 from fast after operation 2 is not done before the end"
    ]


def test_elapsed_supply_counts_the_time_without_fast_memory() -> None:
    # Operation 1 takes 6 + 3 s from slow memory, more than the 4 s of the copy.
    assert check_plan(chain(flops=0.0, memory=replace(MEMORY, supply="elapsed")), plan()) == []


def test_copies_under_way_are_counted_by_direction() -> None:
    two_in = plan(
        changed(6, 0),
        residences=(ONE, TWO, ZERO, [0, 2, 0, 1, 1]),
        copies=(FETCH, [0, IN, 2, 0, 2]),
    )
    assert check_plan(chain(), two_in) == []
    only_one = chain(memory=replace(MEMORY, outstanding_copies=1))
    assert check_plan(only_one, two_in) == ["bandwidth: 2 inward copies are under way at operation 1, 1 may be"]
    in_and_out = plan(copies=(FETCH, [1, OUT, 1, 0, 2]))
    assert check_plan(only_one, in_and_out) == []
    none = chain(memory=replace(MEMORY, outstanding_copies=0))
    assert check_plan(none, in_and_out) == [
        "bandwidth: 1 inward copies are under way at operation 1, 0 may be",
        "bandwidth: 1 outward copies are under way at operation 1, 0 may be",
    ]


def test_copies_one_after_another_are_not_under_way_together() -> None:
    one = chain(memory=replace(MEMORY, outstanding_copies=1))
    turns = plan(
        residences=(ONE, TWO, [0, 1, 10, 1, 1], [0, 1, 10, 2, 3]),
        layers=changed(5, 0),
        copies=(FETCH, [0, IN, 1, 1, 3]),
    )
    assert check_plan(one, turns) == []


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (plan([0] * 8), "the plan has 8 layers for 9 accesses"),
        (plan(changed(0, 3)), "the plan uses layer 3, there are 3"),
        (plan(residences=(ONE, [5, 1, 0, 0, 0])), "residences: row 1 column 0 is 5, expected 0 to 4"),
        (plan(residences=([-1, 1, 0, 0, 0],)), "residences: row 0 column 0 is -1, expected 0 to 4"),
        (plan(residences=([0, 0, 0, 0, 0],)), "residences: row 0 column 1 is 0, expected 1 to 2"),
        (plan(residences=([0, 3, 0, 0, 0],)), "residences: row 0 column 1 is 3, expected 1 to 2"),
        (plan(residences=([0, 1, -8, 0, 0],)), f"residences: row 0 column 2 is -8, expected 0 to {2**60}"),
        (plan(residences=([0, 1, 0, -1, 0],)), "residences: row 0 column 3 is -1, expected 0 to 3"),
        (plan(residences=([0, 1, 0, 0, 4],)), "residences: row 0 column 4 is 4, expected 0 to 3"),
        (plan(residences=([0, 1, 0, 2, 1],)), "residences: row 0 ends at operation 1, before its begin 2"),
        (plan(copies=([7, IN, 1, 0, 2],)), "copies: row 0 column 0 is 7, expected 0 to 4"),
        (plan(copies=(FETCH, [0, 2, 1, 0, 2])), "copies: row 1 column 1 is 2, expected 0 to 1"),
        (plan(copies=([0, IN, 0, 0, 2],)), "copies: row 0 column 2 is 0, expected 1 to 2"),
        (plan(copies=([0, IN, 1, -2, 2],)), "copies: row 0 column 3 is -2, expected -1 to 3"),
        (plan(copies=([0, IN, 1, 0, 5],)), "copies: row 0 column 4 is 5, expected 0 to 4"),
        (plan(copies=([0, IN, 1, 3, 2],)), "copies: row 0 ends at operation 2, before its begin 3"),
    ],
)
def test_numbers_out_of_range_end_the_examination(broken: MemoryPlan, message: str) -> None:
    assert check_plan(chain(), broken) == [message]


def test_at_most_twenty_violations_are_listed() -> None:
    piled = plan(residences=[[0, 1, 20, 0, 3]] * 30)
    assert len(check_plan(chain(), piled)) == MAX_LISTED == 20


@given(SEEDS, st.integers(1, 10), st.integers(0, 6))
def test_overlaps_are_found_as_by_comparing_all_pairs(seed: int, ops: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    instance = arbitrary(rng, ops=ops, fast_layers=2, groups=0.0)
    rows = []
    for _ in range(count):
        first = int(rng.integers(ops))
        buffer, layer, offset = int(rng.integers(instance.buffers)), int(rng.integers(1, 3)), int(rng.integers(60))
        rows.append([buffer, layer, offset, first, int(rng.integers(first, ops))])
    slow = [0] * instance.accesses
    found = {
        (int(words[2]), int(words[5]))
        for words in (line.split() for line in check_plan(instance, plan(slow, rows, ())))
        if words[0] == "overlap:"
    }
    expected = {
        (one[0], two[0])
        for i, one in enumerate(rows)
        for two in rows[i + 1 :]
        if one[1] == two[1]
        and max(one[3], two[3]) <= min(one[4], two[4])
        and max(one[2], two[2]) < min(one[2] + instance.size[one[0]], two[2] + instance.size[two[0]])
    }
    assert {tuple(sorted(pair)) for pair in found} == {tuple(sorted(pair)) for pair in expected}
