"""Offset packing: live rectangles, the least peak, the checker against all pairs, plain data, and what is refused."""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.envs.memmap.formats import read_instances
from schedrl.envs.memmap.packing import (
    MAX_BYTES,
    SCHEMA,
    SOLUTION_SCHEMA,
    OffsetPackingInstance,
    Packing,
    check_packing,
    max_live,
)
from schedrl.errors import InstanceError, SolutionError

HUGE = 10**400


def make(**fields: Any) -> OffsetPackingInstance:
    """Return three buffers: 0 of 4 bytes in [0, 4), 1 of 6 in [2, 6), 2 of 3 in [4, 8)."""
    own: dict[str, Any] = {"name": "small", "lower": [0, 2, 4], "upper": [4, 6, 8], "size": [4, 6, 3]}
    return OffsetPackingInstance(**own | fields)


def pack(*offsets: int) -> Packing:
    return Packing(offset=np.array(offsets, dtype=np.int64))


# Buffer 1 keeps only its bytes 1 to 3 during [3, 4) and nothing during [5, 6).
GAPS: dict[str, Any] = {"gap_offset": [0, 0, 2, 2], "gaps": [[3, 4, 1, 3], [5, 6, 0, 0]]}


def test_defaults() -> None:
    instance = make()
    assert (instance.buffers, instance.size_label, instance.objective) == (3, "3 buffers", "peak")
    assert instance.labels == ("0", "1", "2")
    assert instance.alignment is not None and instance.alignment.tolist() == [1, 1, 1]
    assert instance.fixed_offset is not None and instance.fixed_offset.tolist() == [-1, -1, -1]
    assert instance.hint is not None and instance.hint.tolist() == [-1, -1, -1]
    assert instance.gaps is not None and instance.gaps.shape == (0, 4)
    with pytest.raises(ValueError, match="read-only"):
        instance.size[0] = 1


def test_live_rectangles_leave_gaps_out() -> None:
    start, end, low, high, buffer = make(**GAPS).live
    rows = list(zip(*(c.tolist() for c in (start, end, low, high, buffer)), strict=True))
    assert rows == [(0, 4, 0, 4, 0), (2, 3, 0, 6, 1), (3, 4, 1, 3, 1), (4, 5, 0, 6, 1), (4, 8, 0, 3, 2)]


def test_a_gap_may_be_a_buffers_whole_life() -> None:
    instance = make(gap_offset=[0, 1, 1, 1], gaps=[[0, 4, 0, 0]])
    assert instance.live[4].tolist() == [1, 2]
    assert max_live(instance) == 9


def test_most_live_bytes_by_hand() -> None:
    assert max_live(make()) == 10
    # During [2, 3): 4 + 6; [3, 4): 4 + 2; [4, 5): 6 + 3.
    assert max_live(make(**GAPS)) == 10
    assert max_live(make(size=[1, 6, 3], **GAPS)) == 9
    # Intervals that touch do not meet.
    assert max_live(make(lower=[0, 4, 8], upper=[4, 8, 9])) == 6


def test_equality_is_by_content() -> None:
    assert make() == make()
    assert hash(make()) == hash(make())
    other: dict[str, Any]
    for other in ({"name": "x"}, {"capacity": 99}, {"hint": [0, 4, 0]}, {"labels": ("a", "b", "c")}, GAPS):
        assert make(**other) != make()
    assert make() != "small"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lower": [0.0, 2.0, 4.0]}, "field lower: expected 1-dimensional integers, got float64 (3,)"),
        ({"size": [[4, 6, 3]]}, "field size: expected 1-dimensional integers, got int64 (1, 3)"),
        ({"gaps": [3, 4, 1, 3]}, "field gaps: expected 2-dimensional integers, got int64 (4,)"),
        ({"upper": [4, 6, MAX_BYTES + 1]}, f"field upper: a value beyond {MAX_BYTES}"),
        ({"gap_offset": [0, 0, 0, 2**32]}, "field gap_offset: a value outside int32"),
        ({"upper": [4, 6]}, "field upper: 2 values for 3 buffers"),
        ({"lower": [0]}, "field lower: 1 values for 3 buffers"),
        ({"alignment": [1]}, "field alignment: 1 values for 3 buffers"),
        ({"fixed_offset": [0, 1]}, "field fixed_offset: 2 values for 3 buffers"),
        ({"hint": []}, "field hint: 0 values for 3 buffers"),
        ({"lower": [], "upper": [], "size": []}, "field size: no buffers"),
        ({"labels": ("a", "b")}, "field labels: expected 3 different names"),
        ({"labels": ("a", "b", "a")}, "field labels: expected 3 different names"),
        ({"capacity": 0}, f"field capacity: 0, expected 1 to {MAX_BYTES}"),
        ({"capacity": MAX_BYTES + 1}, f"field capacity: {MAX_BYTES + 1}, expected 1 to {MAX_BYTES}"),
        ({"size": [MAX_BYTES // 2] * 3}, f"field size: the sum exceeds {MAX_BYTES}"),
        ({"size": [4, 0, 3]}, "field size: buffer 1 has 0, expected at least 1"),
        ({"size": [4, -6, 3], "labels": ("a", "b", "c")}, "field size: buffer b has -6, expected at least 1"),
        ({"upper": [4, 2, 8]}, "field upper: buffer 1 has 2, expected more than lower"),
        ({"alignment": [1, 1, 0]}, "field alignment: buffer 2 has 0, expected at least 1"),
        (
            {"alignment": [1, 4, 1], "fixed_offset": [-1, 6, -1]},
            "field fixed_offset: buffer 1 has 6, expected a multiple of the alignment",
        ),
        ({"fixed_offset": [-1, -2, -1]}, "field fixed_offset: buffer 1 has -2, expected -1 or an offset"),
        ({"capacity": 5}, "field size: buffer 1 has 6, the buffer cannot end within the capacity 5"),
        (
            {"capacity": 8, "fixed_offset": [6, -1, -1]},
            "field size: buffer 0 has 4, the buffer cannot end within the capacity 8",
        ),
        ({"gap_offset": [0, 0, 0]}, "field gap_offset: must run from 0 to the 0 gaps"),
        ({"gap_offset": [1, 1, 1, 1]}, "field gap_offset: must run from 0 to the 0 gaps"),
        ({**GAPS, "gap_offset": [0, 0, 1, 1]}, "field gap_offset: must run from 0 to the 2 gaps"),
        ({**GAPS, "gap_offset": [0, 3, 2, 2]}, "field gap_offset: must run from 0 to the 2 gaps"),
        ({"gap_offset": [0, 0, 1, 1], "gaps": [[3, 4, 1]]}, "field gaps: expected four columns, got 3"),
        (
            {"gap_offset": [0, 0, 1, 1], "gaps": [[1, 4, 0, 0]]},
            "field gaps: buffer 1 has gap 1-4@0:0, expected gaps in order within 2-6, windows within 0:6",
        ),
        (
            {"gap_offset": [0, 0, 1, 1], "gaps": [[3, 3, 0, 0]]},
            "field gaps: buffer 1 has gap 3-3@0:0, expected gaps in order within 2-6, windows within 0:6",
        ),
        (
            {"gap_offset": [0, 0, 1, 1], "gaps": [[3, 4, 2, 7]]},
            "field gaps: buffer 1 has gap 3-4@2:7, expected gaps in order within 2-6, windows within 0:6",
        ),
        (
            {"gap_offset": [0, 0, 1, 1], "gaps": [[3, 4, 2, 1]]},
            "field gaps: buffer 1 has gap 3-4@2:1, expected gaps in order within 2-6, windows within 0:6",
        ),
        (
            {"gap_offset": [0, 0, 2, 2], "gaps": [[3, 5, 0, 0], [4, 6, 0, 0]]},
            "field gaps: buffer 1 has gap 4-6@0:0, expected gaps in order within 2-6, windows within 0:6",
        ),
    ],
)
def test_a_broken_instance_is_refused_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InstanceError) as caught:
        make(**fields)
    assert str(caught.value) == f"small: {message}"


@pytest.mark.parametrize(
    ("fields", "offsets", "found"),
    [
        ({}, (0, 4, 0), []),
        ({}, (6, 0, 6), []),
        ({"capacity": 10}, (0, 4, 0), []),
        ({"capacity": 9}, (0, 4, 0), ["buffer 1 ends at 10, the capacity is 9"]),
        ({}, (0, 4), ["the packing has 2 offsets for 3 buffers"]),
        ({}, (-1, 4, 0), ["buffer 0 is at negative offset -1"]),
        ({"alignment": [1, 4, 1]}, (0, 6, 0), ["buffer 1 is at offset 6, no multiple of its alignment 4"]),
        ({"fixed_offset": [-1, 4, 0]}, (0, 4, 1), ["buffer 2 is at offset 1, given is 0"]),
        ({}, (0, 3, 0), ["buffers 0 and 1 overlap at time 2 from byte 3"]),
        ({"labels": ("a", "b", "c")}, (0, 4, 9), ["buffers b and c overlap at time 4 from byte 9"]),
        # In its gap buffer 1 leaves all but bytes 1 to 3, yet it is whole when buffer 2 begins.
        ({**GAPS, "lower": [3, 2, 5]}, (0, 0, 0), ["buffers 0 and 1 overlap at time 3 from byte 1"]),
        ({**GAPS, "lower": [3, 2, 5], "size": [1, 6, 3]}, (0, 0, 0), []),
    ],
)
def test_violations_in_words(fields: dict[str, Any], offsets: tuple[int, ...], found: list[str]) -> None:
    assert check_packing(make(**fields), pack(*offsets)) == found


def test_a_range_that_reaches_beyond_its_neighbour_is_found() -> None:
    # 0 covers 1; 2 begins above 1 and within 0.
    instance = make(lower=[0, 1, 2], upper=[9, 9, 9], size=[10, 2, 2])
    assert check_packing(instance, pack(0, 1, 6)) == [
        "buffers 0 and 1 overlap at time 1 from byte 1",
        "buffers 0 and 2 overlap at time 2 from byte 6",
    ]


def test_at_most_twenty_violations_are_listed() -> None:
    instance = OffsetPackingInstance(
        name="many", lower=np.zeros(50, int), upper=np.ones(50, int), size=np.ones(50, int)
    )
    assert len(check_packing(instance, pack(*[0] * 50))) == 20
    assert check_packing(instance, pack(*range(50))) == []


@st.composite
def packings(draw: st.DrawFn) -> tuple[OffsetPackingInstance, Packing]:
    """Draw buffers with gaps, and offsets that often overlap and often do not."""
    count = draw(st.integers(1, 6))
    lower, upper, size, gaps, gap_offset = [], [], [], [], [0]
    for _ in range(count):
        first, length, size_b = draw(st.integers(-3, 8)), draw(st.integers(1, 8)), draw(st.integers(1, 6))
        cuts = sorted(set(draw(st.lists(st.integers(first, first + length), max_size=4))))
        for start, end in list(itertools.pairwise(cuts))[::2]:
            low = draw(st.integers(0, size_b))
            gaps.append([start, end, low, draw(st.integers(low, size_b))])
        lower.append(first)
        upper.append(first + length)
        size.append(size_b)
        gap_offset.append(len(gaps))
    instance = OffsetPackingInstance(
        name="drawn",
        lower=np.array(lower),
        upper=np.array(upper),
        size=np.array(size),
        gap_offset=np.array(gap_offset),
        gaps=np.array(gaps, dtype=np.int64).reshape(-1, 4),
        capacity=draw(st.none() | st.integers(6, 30)),
        alignment=np.array(draw(st.lists(st.sampled_from([1, 1, 2]), min_size=count, max_size=count))),
        labels=tuple(f"b{k}" for k in range(count)),
    )
    return instance, pack(*(draw(st.integers(0, draw(st.sampled_from([2, 20])))) for _ in range(count)))


def live_bytes(instance: OffsetPackingInstance, buffer: int, time: int) -> range:
    """Return the bytes of a buffer, counted from its offset, that are live at an instant."""
    assert instance.gap_offset is not None and instance.gaps is not None
    if not instance.lower[buffer] <= time < instance.upper[buffer]:
        return range(0)
    own = slice(instance.gap_offset[buffer], instance.gap_offset[buffer + 1])
    for start, end, low, high in instance.gaps[own].tolist():
        if start <= time < end:
            return range(low, high)
    return range(int(instance.size[buffer]))


@given(packings())
def test_overlaps_are_found_as_by_comparing_all_pairs(case: tuple[OffsetPackingInstance, Packing]) -> None:
    instance, packing = case
    instants = range(int(instance.lower.min()), int(instance.upper.max()))
    expected = set()
    for one in range(instance.buffers):
        for two in range(one + 1, instance.buffers):
            for time in instants:
                bytes_of = [{int(packing.offset[b]) + k for k in live_bytes(instance, b, time)} for b in (one, two)]
                if bytes_of[0] & bytes_of[1]:
                    expected.add(f"buffers b{one} and b{two} overlap")
    assert instance.alignment is not None
    for b in range(instance.buffers):
        if packing.offset[b] % instance.alignment[b]:
            expected.add(f"buffer b{b} is at offset {packing.offset[b]}, no multiple of its alignment 2")
        if instance.capacity is not None and packing.offset[b] + instance.size[b] > instance.capacity:
            expected.add(f"buffer b{b} ends at {packing.offset[b] + instance.size[b]}, the capacity is "
                         f"{instance.capacity}")  # fmt: skip
    found = check_packing(instance, packing)
    if len(found) < 20:
        assert {line.partition(" at time")[0] for line in found} == expected
    else:
        assert {line.partition(" at time")[0] for line in found} <= expected


@given(packings())
def test_most_live_bytes_are_those_of_the_fullest_instant(case: tuple[OffsetPackingInstance, Packing]) -> None:
    instance, packing = case
    instants = range(int(instance.lower.min()), int(instance.upper.max()))
    full = max(sum(len(live_bytes(instance, b, time)) for b in range(instance.buffers)) for time in instants)
    assert max_live(instance) == full
    if not any("overlap" in line for line in check_packing(instance, packing)):
        assert int((packing.offset + instance.size).max()) >= full


@given(packings())
def test_json_round_trip(case: tuple[OffsetPackingInstance, Packing]) -> None:
    instance, packing = case
    assert OffsetPackingInstance.from_json(instance.to_json()) == instance
    assert Packing.from_json(packing.to_json()) == packing
    assert hash(Packing.from_json(packing.to_json())) == hash(packing)


def text(**fields: Any) -> str:
    return json.dumps(json.loads(make(**GAPS).to_json()) | fields)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON: "),
        ("[" * 100_000, "not valid JSON: "),
        ("[]", f"field schema: expected {SCHEMA!r}"),
        (text(schema=None), f"field schema: expected {SCHEMA!r}"),
        (text(name=3), "field name: expected str, got 3"),
        (text(capacity=1.5), "field capacity: expected an integer or null, got 1.5"),
        (text(labels="abc"), "field labels: expected a list of str"),
        (text(labels=[1, 2, 3]), "field labels: expected a list of str"),
        (text(lower=None), "field lower: expected a list of integers, got None"),
        (text(size=[4, 6, 3.5]), "field size: expected a list of integers, got [4, 6, 3.5]"),
        (text(size=[4, 6, HUGE]), "field size: expected a list of integers, got [4, 6, 1000"),
        (text(hint=[True, 0, 0]), "field hint: expected a list of integers, got [True, 0, 0]"),
        (text(gaps=[[3, 4, 1, 3], [5, 6]]), "field gaps: expected rows of equal length"),
        (text(gaps=[[3, 4], [5, 6]]), "small: field gaps: expected four columns, got 2"),
        (text(gaps=[3, 4, 1, 3]), "small: field gaps: expected 2-dimensional integers, got int64 (4,)"),
        (text(size=[[4], [6], [3]]), "small: field size: expected 1-dimensional integers, got int64 (3, 1)"),
        (text(size=[4, 0, 3]), "small: field size: buffer 1 has 0, expected at least 1"),
    ],
)
def test_broken_json_is_refused_in_one_line(content: str, message: str) -> None:
    with pytest.raises(InstanceError, match=f"^p.json: {re.escape(message)}") as caught:
        OffsetPackingInstance.from_json(content, source="p.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "p.json: not valid JSON: "),
        ('{"schema": "x"}', f"p.json: field schema: expected {SOLUTION_SCHEMA!r}"),
        (json.dumps({"schema": SOLUTION_SCHEMA}), "p.json: field offset: expected a list of integers, got None"),
        (json.dumps({"schema": SOLUTION_SCHEMA, "offset": [0.5]}), "p.json: field offset: expected a list of integers"),
        (json.dumps({"schema": SOLUTION_SCHEMA, "offset": [[1]]}), "packing: field offset: expected integers, got int"),
    ],
)
def test_a_broken_packing_is_refused_in_one_line(content: str, message: str) -> None:
    with pytest.raises(SolutionError, match=f"^{re.escape(message)}") as caught:
        Packing.from_json(content, source="p.json")
    assert "\n" not in str(caught.value)


def test_offsets_are_integers_in_a_row() -> None:
    with pytest.raises(SolutionError, match=r"field offset: expected integers, got float64 \(2,\)"):
        Packing(offset=np.zeros(2))  # type: ignore[arg-type]
    assert pack(1) != "packing"


def test_csv_as_minimalloc_writes_it() -> None:
    instance = make(labels=("a", "b", "c"))
    assert pack(0, 4, 0).to_csv(instance) == "id,lower,upper,size,offset\na,0,4,4,0\nb,2,6,6,4\nc,4,8,3,0\n"


@pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no benchmark to read")
@pytest.mark.parametrize(
    ("name", "buffers", "live"),
    [
        ("A", 154, 1048576), ("B", 170, 1048576), ("C", 203, 1039360), ("D", 213, 986112), ("E", 215, 1048576),
        ("F", 296, 1048576), ("G", 308, 1048576), ("H", 316, 1048576), ("I", 374, 1048576), ("J", 409, 989184),
        ("K", 454, 1048576),
    ],
)  # fmt: skip
def test_most_live_bytes_of_the_challenging_benchmark(name: str, buffers: int, live: int) -> None:
    # Numbers of buffers and of bytes as the reference lists them, of MiniMalloc's files for a capacity of 1 MiB.
    path = Path(os.environ["SCHEDRL_DATA"]) / "memmap" / "minimalloc_challenging" / f"{name}.1048576.csv"
    (instance,) = read_instances(path)
    assert isinstance(instance, OffsetPackingInstance)
    assert (instance.buffers, max_live(instance)) == (buffers, live)
