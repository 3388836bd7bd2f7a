from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.counterfactual import apply_way, outcome_of
from schedrl.envs.memmap.explain import Verdict, explain, explain_plan
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import program_latency_s
from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing, check_packing
from schedrl.envs.memmap.plan import MemoryPlan, slow_plan
from schedrl.envs.memmap.plan_check import check_plan
from schedrl.errors import UnknownNameError

SLOW = MemoryLayer(name="hbm", read_bytes_per_s=1.0, write_bytes_per_s=1.0)
FAST = MemoryLayer(name="cmem", read_bytes_per_s=10.0, write_bytes_per_s=10.0, capacity_bytes=10)


def program(ops: list[tuple[float, list[int], list[int]]], size: list[int], **changes: Any) -> MemoryMapInstance:
    """Build operations of (seconds, reads, writes) at one slow and ten fast bytes per second; the last is output."""
    data = {
        "name": "program",
        "ops": [{"flops": 0, "seconds": seconds, "reads": reads, "writes": writes} for seconds, reads, writes in ops],
        "buffers": [{"size": bytes_, "label": "abcdefgh"[k]} for k, bytes_ in enumerate(size)],
    }
    device: dict[str, Any] = {"name": "tiny", "flops_per_s": 1.0, "layers": (SLOW, FAST)}
    groups = changes.pop("groups", {})
    for op, values in groups.items():
        data["ops"][op]["groups"] = values
    return MemoryMapInstance.from_program(data, memory=MemoryDevice(**(device | changes)))


def plan_of(instance: MemoryMapInstance, fast: list[int], residences: list[Any], copies: list[Any]) -> MemoryPlan:
    layers = np.zeros(instance.accesses, dtype=np.int8)
    layers[fast] = 1
    plan = MemoryPlan(
        access_layer=layers, residences=np.array(residences, dtype=np.int64), copies=np.array(copies, dtype=np.int64)
    )
    assert check_plan(instance, plan) == []
    return plan


def possible_with(instance: MemoryMapInstance, plan: MemoryPlan, access: int) -> bool:
    """Whether the access can be made fast by a way that the checker accepts and that saves as much as it should."""
    outcome = outcome_of(instance, plan, access, 1)
    if outcome.reason != "open":
        return False
    assert outcome.way is not None
    return check_plan(instance, apply_way(instance, plan, outcome.way)) == []


def verdict_of(instance: MemoryMapInstance, plan: MemoryPlan, buffer: int, position: int = 0) -> Verdict:
    return explain(instance, plan, buffer)[position]


# Operation 0 computes for 20 s, operation 1 reads a, of 8 bytes.
PREFETCHED = program([(20.0, [], []), (1.0, [0], [])], [8])


def test_open_a_read_that_could_be_prefetched() -> None:
    verdict = verdict_of(PREFETCHED, slow_plan(PREFETCHED), 0)
    assert (verdict.reason, verdict.layer, verdict.saving_s) == ("open", 0, 7.0)  # 8 s become the 1 s it computes
    assert verdict.text == (
        "op 1 reads from hbm: open: nothing prevents it: it could be copied to byte 0 of cmem from op 0 on. Fast, it "
        "would save 7 s"
    )
    assert possible_with(PREFETCHED, slow_plan(PREFETCHED), 0)


def test_fast_says_where_since_when_and_how_it_came() -> None:
    plan = plan_of(PREFETCHED, [0], [[0, 1, 2, 0, 1]], [[0, 1, 1, -1, 1]])
    verdict = verdict_of(PREFETCHED, plan, 0)
    assert (verdict.reason, verdict.layer, verdict.saving_s) == ("fast", 1, 7.0)
    assert verdict.text == (
        "op 1 reads from cmem: fast: at byte 2, copied in behind op 0, from op 0 on, until op 1. It saves 7 s"
    )
    made = program([(1.0, [], [0]), (1.0, [0], [])], [8])
    produced = plan_of(made, [0, 1], [[0, 1, 0, 0, 1]], [])
    assert verdict_of(made, produced, 0, 1).text == (
        "op 1 reads from cmem: fast: at byte 0, produced there by op 0 on, until op 1. It saves 7 s"
    )


def test_no_benefit_of_an_operation_that_computes_for_longer() -> None:
    instance = program([(20.0, [], []), (9.0, [0], [])], [8])
    verdict = verdict_of(instance, slow_plan(instance), 0)
    assert (verdict.reason, verdict.saving_s) == ("no benefit", 0.0)
    assert verdict.text == (
        "op 1 reads from hbm: no benefit: the operation computes for 9 s, which moving its bytes does not exceed"
    )
    # It could be fast, and the latency would be the same.
    outcome = outcome_of(instance, slow_plan(instance), 0, 1)
    assert outcome.way is not None
    moved = apply_way(instance, slow_plan(instance), outcome.way)
    assert program_latency_s(instance, moved.access_layer) == program_latency_s(
        instance, slow_plan(instance).access_layer
    )


def test_no_benefit_of_bytes_that_do_not_count() -> None:
    instance = program([(20.0, [], []), (0.0, [0, 1], [])], [4000, 1])
    verdict = verdict_of(instance, slow_plan(instance), 1)
    # A byte takes 0.9 s less of 4001 s.
    assert verdict.reason == "no benefit" and verdict.saving_s == pytest.approx(0.9)
    assert verdict.text.endswith("no benefit: fast, it would save 900 ms of the operation's 4001 s")


# b, of 6 bytes, is resident when a, of 8, would come.
CROWDED = program([(20.0, [], [1]), (1.0, [0], []), (1.0, [1], [])], [8, 6])
CROWDED_PLAN = plan_of(CROWDED, [0, 2], [[1, 1, 0, 0, 2]], [])


def test_capacity_names_who_is_there_and_how_much_is_missing() -> None:
    verdict = verdict_of(CROWDED, CROWDED_PLAN, 0)
    assert (verdict.reason, verdict.saving_s) == ("capacity", 7.0)
    assert verdict.text == (
        "op 1 reads from hbm: capacity: it needs 8 B of cmem from op 0 to op 1, the largest chunk free throughout has "
        "4 B, 4 B too few; there are b (6 B); even repacked, only 4 B are free at op 0. Fast, it would save 7 s"
    )
    # With exactly the bytes that are missing it could be fast, with one less it could not.
    for more, enough in ((4, True), (3, False)):
        larger = CROWDED.with_memory(CROWDED.memory.with_capacity(10 + more))
        assert possible_with(larger, CROWDED_PLAN, 1) == enough


def test_capacity_tells_fragmentation_from_want() -> None:
    instance = program([(20.0, [], [1]), (1.0, [0], []), (1.0, [1], [])], [8, 2])
    plan = plan_of(instance, [0, 2], [[1, 1, 4, 0, 2]], [])
    verdict = verdict_of(instance, plan, 0)
    assert verdict.reason == "capacity" and "has 4 B, 4 B too few" in verdict.text
    assert "repacked, it could fit: 8 B are free at op 0, the fullest" in verdict.text
    repacked = plan_of(instance, [0, 2], [[1, 1, 0, 0, 2]], [])
    assert possible_with(instance, repacked, 1)


def test_capacity_of_a_buffer_larger_than_the_layer() -> None:
    instance = program([(99.0, [], []), (1.0, [0], [])], [11])
    verdict = verdict_of(instance, slow_plan(instance), 0)
    assert verdict.text.startswith(
        "op 1 reads from hbm: capacity: it needs 11 B of cmem from op 0 to op 1, which has 10 B"
    )
    assert possible_with(instance.with_memory(instance.memory.with_capacity(11)), slow_plan(instance), 0)


def test_bandwidth_of_a_copy_that_takes_longer_than_what_hides_it() -> None:
    instance = program([(5.0, [], []), (1.0, [0], [])], [8])
    verdict = verdict_of(instance, slow_plan(instance), 0)
    assert verdict.reason == "bandwidth"
    assert verdict.text == (
        "op 1 reads from hbm: bandwidth: being copied in takes 8 s of hbm; op 0 can hide 5 s, of which other "
        "copies use 0 s. Fast, it would save 7 s"
    )
    # No capacity helps; three more seconds do.
    assert not possible_with(instance.with_memory(instance.memory.with_capacity(10**6)), slow_plan(instance), 0)
    longer = program([(8.0, [], []), (1.0, [0], [])], [8])
    assert possible_with(longer, slow_plan(longer), 0)


def test_bandwidth_that_other_copies_have_taken() -> None:
    instance = program([(10.0, [], []), (1.0, [0], []), (1.0, [1], [])], [8, 4])
    plan = plan_of(instance, [1], [[1, 1, 0, 0, 2]], [[1, 1, 1, -1, 2]])
    verdict = verdict_of(instance, plan, 0)
    assert verdict.reason == "bandwidth" and "op 0 can hide 10 s, of which other copies use 4 s" in verdict.text
    assert possible_with(instance, slow_plan(instance), 0)


def test_bandwidth_of_too_many_copies_at_a_time() -> None:
    instance = program([(99.0, [], []), (1.0, [0], []), (1.0, [1], [])], [5, 4], outstanding_copies=1)
    plan = plan_of(instance, [1], [[1, 1, 0, 0, 2]], [[1, 1, 1, -1, 2]])
    verdict = verdict_of(instance, plan, 0)
    assert verdict.reason == "bandwidth" and "up to 1 copies are under way, 1 may be" in verdict.text
    assert possible_with(instance.with_memory(replace(instance.memory, outstanding_copies=2)), plan, 0)


def test_bandwidth_of_a_copy_that_would_make_another_late() -> None:
    # b, of 4 bytes, needs all of operation 2. Before it a has 6 s for its 8 bytes, after it 2 s; together enough.
    instance = program([(3.0, [], []), (3.0, [], []), (4.0, [], []), (2.0, [1], []), (1.0, [0], [])], [8, 4])
    plan = plan_of(instance, [0], [[1, 1, 0, 2, 3]], [[1, 1, 1, 1, 3]])
    verdict = verdict_of(instance, plan, 0)
    assert verdict.reason == "bandwidth"
    assert verdict.text == (
        "op 4 reads from hbm: bandwidth: being copied in takes 8 s of hbm; ops 0 to 3 can hide 12 s, of which other "
        "copies use 4 s; served in order of start, it would be late or make another late. Fast, it would save 7 s"
    )
    roomy = instance.with_memory(instance.memory.with_capacity(12))
    assert not possible_with(roomy, plan, 1)
    for op, seconds in ((1, 5.0), (3, 8.0)):
        longer = instance.compute.copy()
        longer[op] = seconds
        assert possible_with(replace(roomy, compute_s=longer), plan, 1)


def test_bandwidth_of_a_write_back() -> None:
    # a is defined by 0 and output; only operation 1, of 3 s, could hide its copy back.
    instance = program([(1.0, [], [0]), (3.0, [], [])], [8])
    instance = replace(instance, output=np.array([True]))
    verdict = verdict_of(instance, slow_plan(instance), 0)
    assert verdict.reason == "bandwidth"
    assert verdict.text == (
        "op 0 writes to hbm: bandwidth: being copied back takes 8 s of hbm; op 1 can hide 3 s, of which other "
        "copies use 0 s. Fast, it would save 7 s"
    )
    assert possible_with(replace(instance, compute_s=np.array([1.0, 8.0])), slow_plan(instance), 0)
    assert possible_with(replace(instance, output=np.array([False])), slow_plan(instance), 0)


# a is defined in slow memory by operation 1 and read by operation 2; b takes 8 bytes of fast memory meanwhile.
TIGHT = program([(1.0, [], [1]), (1.0, [], [0]), (1.0, [0], []), (1.0, [1], [])], [8, 8])
TIGHT_PLAN = plan_of(TIGHT, [0, 3], [[1, 1, 0, 0, 3]], [])


def test_live_range_without_an_operation_between_definition_and_use() -> None:
    definition, read = explain(TIGHT, TIGHT_PLAN, 0)
    assert (definition.reason, read.reason) == ("capacity", "live range")
    assert read.text.startswith(
        "op 2 reads from hbm: live range: between op 1 and op 2 no operation could hide it being copied in; produced "
        "in cmem by op 1 instead, capacity: it needs 8 B of cmem from op 1 to op 2, the largest chunk free throughout "
        "has 2 B, 6 B too few; there are b (8 B)"
    )
    # Neither bytes nor seconds help as long as the definition is slow; an operation between does.
    roomy = replace(TIGHT, memory=TIGHT.memory.with_capacity(10**6), compute_s=np.full(4, 1e3))
    assert not possible_with(roomy, TIGHT_PLAN, 2)
    apart = program([(1.0, [], [1]), (1.0, [], [0]), (8.0, [], []), (1.0, [0], [])], [8, 8])
    assert verdict_of(apart, slow_plan(apart), 0, 1).reason == "open"


def test_live_range_of_the_first_operation_and_of_an_output_of_the_last() -> None:
    instance = program([(1.0, [0], []), (1.0, [], [1])], [8, 8])
    instance = replace(instance, output=np.array([False, True]))
    plan = slow_plan(instance)
    assert verdict_of(instance, plan, 0).text.startswith(
        "op 0 reads from hbm: live range: between the start and op 0 no operation could hide it being copied in. Fast"
    )
    assert verdict_of(instance, plan, 1).text.startswith(
        "op 1 writes to hbm: live range: between op 1 and the end no operation could hide it being copied back. Fast"
    )


# Operation 1 updates a in place: what it reads and the c that it writes share a place.
GROUPED = program(
    [(20.0, [], [1]), (1.0, [0], [2]), (1.0, [1, 2], [])], [8, 2, 8], groups={1: [0, 0]}, supply="elapsed"
)


def test_alias_group_whose_members_must_move_together() -> None:
    plan = slow_plan(GROUPED)
    read, write = explain(GROUPED, plan, 0)[0], explain(GROUPED, plan, 2)[0]
    assert read.reason == write.reason == "alias group"
    assert read.text.startswith(
        "op 1 reads from hbm: alias group: alone it could be fast, but 1 more access must share layer and offset; of "
        "c, op 1 writes to hbm: open"
    )
    # Alone each is possible but for the group's rule, which is the checker's only complaint.
    for access in (1, 2):
        way = outcome_of(GROUPED, plan, access, 1).way
        assert way is not None
        complaints = check_plan(GROUPED, apply_way(GROUPED, plan, way))
        assert len(complaints) == 1 and complaints[0].startswith("group:")
    free = program([(20.0, [], [1]), (1.0, [0], [2]), (1.0, [1, 2], [])], [8, 2, 8], supply="elapsed")
    assert {verdict_of(free, plan, buffer).reason for buffer in (0, 2)} == {"open"}


def test_alias_group_whose_other_member_has_no_room() -> None:
    instance = program(
        [(20.0, [], [1]), (1.0, [0], [2]), (1.0, [1, 2], [])], [8, 2, 11], groups={1: [0, 0]}, supply="elapsed"
    )
    read, write = explain(instance, slow_plan(instance), 0)[0], explain(instance, slow_plan(instance), 2)[0]
    assert (read.reason, write.reason) == ("alias group", "capacity")
    assert "of c, op 1 writes to hbm: capacity: it needs 11 B of cmem from op 1 to op 2, which has 10 B" in read.text


def test_a_third_layer_is_looked_at_too() -> None:
    second = replace(FAST, name="llc", capacity_bytes=20, read_bytes_per_s=4.0, write_bytes_per_s=4.0)
    instance = program([(20.0, [], []), (1.0, [0], [])], [16], layers=(SLOW, FAST, second))
    verdict = verdict_of(instance, slow_plan(instance), 0)
    # cmem saves more but is too small for 16 bytes; llc reads them in 4 s.
    assert (verdict.reason, verdict.saving_s) == ("open", 12.0) and "of llc" in verdict.text
    larger = program([(20.0, [], []), (1.0, [0], [])], [21], layers=(SLOW, FAST, second))
    verdict = verdict_of(larger, slow_plan(larger), 0)
    assert verdict.reason == "bandwidth" and verdict.text.count("being copied in takes 21 s") == 2
    assert "; in llc, bandwidth: " in verdict.text


def test_a_plan_in_short_counts_reasons_and_names_the_most_costly() -> None:
    assert explain_plan(CROWDED, CROWDED_PLAN) == [
        "latency 29 s, 85.29 % of 34 s without fast memory",
        "fast: 2 accesses of 12 B, each alone saves 5 s in sum",
        "capacity: 1 accesses of 8 B, each alone would save 7 s in sum",
        "buffer a (8 B) would save 7 s: capacity",
    ]


def test_one_buffer_is_named_by_label_or_number() -> None:
    lines = explain_plan(TIGHT, TIGHT_PLAN, "a")
    assert lines[0] == "a: 8 B, defined by op 1, accesses: 2" and len(lines) == 3
    assert explain_plan(TIGHT, TIGHT_PLAN, "0") == lines
    assert explain_plan(CROWDED, CROWDED_PLAN, "a")[0] == "a: 8 B, parameter or input, accesses: 1"
    with pytest.raises(UnknownNameError, match="unknown buffer 'z'; there are 2, such as 'a'"):
        explain_plan(TIGHT, TIGHT_PLAN, "z")


def test_a_buffer_of_a_packing_stands_on_others() -> None:
    instance = OffsetPackingInstance(
        name="packed",
        lower=np.array([0, 0, 2]),
        upper=np.array([4, 2, 4]),
        size=np.array([4, 2, 3]),
        labels=("base", "left", "right"),
        capacity=9,
    )
    packing = Packing(offset=np.array([0, 4, 5]))
    assert check_packing(instance, packing) == []
    assert explain_plan(instance, packing) == [
        "peak 8 B, 1.1429 times the most bytes live at once, capacity 9 B",
        "right: 3 B at byte 5, live from 2 to 4",
        "with all others as they are, it could move down to byte 4",
    ]
    assert check_packing(instance, Packing(offset=np.array([0, 4, 4]))) == []
    assert explain_plan(instance, packing, "left")[1:] == [
        "it stands on base",
        "with all others as they are, it cannot be lower",
    ]
    fixed = replace(instance, fixed_offset=np.array([0, -1, -1]))
    assert explain_plan(fixed, packing, "base")[1:] == ["its offset is given"]
