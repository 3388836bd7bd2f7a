"""MiniMalloc CSV: both dialects say the same, what is written is read back, and bad lines are named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.envs.memmap.formats import read_instances, read_minimalloc, read_packing, write_instance, write_packing
from schedrl.envs.memmap.minimalloc_csv import capacity_in_name, format_minimalloc, parse_minimalloc, parse_packing
from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing, check_packing, max_live
from schedrl.errors import InstanceError, SolutionError

NEEDS_DATA = pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no public instances")


def parse(text: str, capacity: int | None = None) -> OffsetPackingInstance:
    return parse_minimalloc(text, source="f.csv", name="f", capacity=capacity)


def test_all_columns_are_read_in_any_order() -> None:
    instance = parse(
        "offset,gaps,size,hint,id,upper,alignment,lower\n,2-4 6-7@1:3,8,16,a,9,4,1\n12, ,4,,b,3,,0\n", capacity=64
    )
    assert instance.labels == ("a", "b")
    assert (instance.lower.tolist(), instance.upper.tolist(), instance.size.tolist()) == ([1, 0], [9, 3], [8, 4])
    assert instance.alignment is not None and instance.alignment.tolist() == [4, 1]
    assert instance.hint is not None and instance.hint.tolist() == [16, -1]
    assert instance.fixed_offset is not None and instance.fixed_offset.tolist() == [-1, 12]
    assert instance.gaps is not None and instance.gaps.tolist() == [[2, 4, 0, 0], [6, 7, 1, 3]]
    assert instance.gap_offset is not None and instance.gap_offset.tolist() == [0, 2, 2]
    assert instance.capacity == 64


@pytest.mark.parametrize("header", ["buffer_id,start,end,size,gaps", "buffer,begin,end,size,gaps"])
def test_in_the_older_dialect_the_last_instant_belongs_to_the_buffer_and_its_gaps(header: str) -> None:
    old, new = parse(f"{header}\nx,0,4,2,1-2@0:1\n"), parse("id,lower,upper,size,gaps\nx,0,5,2,1-3@0:1\n")
    assert old == new
    assert old.upper.tolist() == [5]


def test_gaps_may_be_out_of_order_and_lines_end_as_on_windows() -> None:
    instance = parse("id,lower,upper,size,gaps\r\nx,0,9,2,6-7 1-2\r\n\r\n")
    assert instance.gaps is not None and instance.gaps[:, 0].tolist() == [1, 6]


def test_the_capacity_is_in_the_file_name(tmp_path: Path) -> None:
    path = tmp_path / "A.6.csv"
    path.write_text("id,lower,upper,size\nx,0,1,2\n")
    assert [(i.name, i.capacity) for i in read_instances(path) if isinstance(i, OffsetPackingInstance)] == [("A", 6)]
    assert read_minimalloc(path).capacity is None
    assert read_minimalloc(path, capacity=9).capacity == 9
    assert read_minimalloc(path, capacity="name").capacity == 6
    assert [capacity_in_name(name) for name in ("B.1048576.csv", "B.csv", "B.x.csv", "7.csv")] == [
        1048576,
        None,
        None,
        None,
    ]
    plain = tmp_path / "B.csv"
    plain.write_text(path.read_text())
    with pytest.raises(
        InstanceError, match=r"B\.csv: field capacity: none in the file name, expected NAME\.CAPACITY\.csv"
    ):
        read_minimalloc(plain, capacity="name")


@st.composite
def packings(draw: st.DrawFn) -> OffsetPackingInstance:
    count = draw(st.integers(1, 6))
    numbers = st.integers(0, 20)
    lower = [draw(numbers) for _ in range(count)]
    upper = [low + draw(st.integers(1, 20)) for low in lower]
    size = [draw(st.integers(1, 30)) for _ in range(count)]
    alignment = [draw(st.sampled_from([1, 1, 2, 8])) for _ in range(count)]
    gaps: list[tuple[int, int, int, int]] = []
    first = [0]
    for b in range(count):
        time = lower[b]
        for _ in range(draw(st.integers(0, 2))):
            start = time + draw(st.integers(0, 3))
            end = start + draw(st.integers(1, 3))
            if end > upper[b]:
                break
            low = draw(st.integers(0, size[b]))
            gaps.append((start, end, low, draw(st.integers(low, size[b]))))
            time = end
        first.append(len(gaps))
    return OffsetPackingInstance(
        name="random",
        lower=np.array(lower),
        upper=np.array(upper),
        size=np.array(size),
        alignment=np.array(alignment),
        fixed_offset=np.array([draw(st.sampled_from([-1, 0, 16, 64])) for _ in range(count)]),
        hint=np.array([draw(st.sampled_from([-1, 3])) for _ in range(count)]),
        gap_offset=np.array(first),
        gaps=np.array(gaps, dtype=np.int64).reshape(-1, 4),
        labels=tuple(f"b{i}" for i in range(count)),
    )


@given(packings())
def test_what_is_written_is_read_back(instance: OffsetPackingInstance) -> None:
    assert parse_minimalloc(format_minimalloc(instance), source="f", name="random") == instance
    offsets = Packing(offset=np.arange(instance.buffers) * 8)
    assert parse_packing(format_minimalloc(instance, offsets), instance, source="f") == offsets


def test_offsets_in_a_file_are_a_packing_or_given(tmp_path: Path) -> None:
    instance = parse("id,lower,upper,size\na,0,2,4\nb,1,3,4\n")
    packing = Packing(offset=np.array([4, 0]))
    for name in ("p.csv", "p.json"):
        write_packing(instance, packing, tmp_path / name)
        assert read_packing(tmp_path / name, instance) == packing
    assert check_packing(instance, packing) == []
    assert (tmp_path / "p.csv").read_text() == "id,lower,upper,size,offset\na,0,2,4,4\nb,1,3,4,0\n"
    given_offsets = read_minimalloc(tmp_path / "p.csv").fixed_offset
    assert given_offsets is not None and given_offsets.tolist() == [4, 0]
    write_instance(instance, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_text() == "id,lower,upper,size\na,0,2,4\nb,1,3,4\n"


@pytest.mark.parametrize(
    ("text", "capacity", "message"),
    [
        (
            "id,lower,uper,size\n",
            None,
            "f.csv:1: field 'uper': unknown column, expected id, lower, upper, size, alignment, ",
        ),
        ("id,lower,size\n", None, "f.csv:1: field upper: column missing, the header has id, lower, size"),
        ("id,lower,start,upper,size\n", None, "f.csv:1: field lower: two columns say the same"),
        ("\n\n", None, "f.csv: no buffers, expected a header and a line for each of at least one"),
        ("id,lower,upper,size\n", None, "f.csv: no buffers, expected a header and a line for each of at least one"),
        ("id,lower,upper,size\na,0,1\n", None, "f.csv:2: 3 fields, expected the 4 of the header"),
        ("id,lower,upper,size\na,0,1,1.5\n", None, "f.csv:2: field size: buffer a: got '1.5', expected an integer"),
        ("id,lower,upper,size\na,0,,1\n", None, "f.csv:2: field upper: buffer a: empty"),
        ("id,lower,upper,size\n,0,1,1\n", None, "f.csv:2: field id: empty"),
        (
            "id,lower,upper,size\na,0,1,1\n\na,0,1,1\n",
            None,
            "f.csv:4: field id: a is defined here and in line 2, expected once",
        ),
        ("id,lower,upper,size\na,0,1,-4\n", None, "f.csv:2: field size: buffer a: -4, expected at least 1"),
        (
            "id,lower,upper,size\na,3,3,4\n",
            None,
            "f.csv:2: field upper: buffer a: lives in [3, 3), expected an instant or more",
        ),
        ("id,lower,upper,size\na,0,1,9\n", 8, "f.csv:2: field size: buffer a: 9, more than the capacity 8"),
        (
            "id,lower,upper,size,offset\na,0,1,2,0\nb,0,1,4,6\n",
            8,
            "f.csv:3: field offset: buffer b: ends at 10, beyond the capacity 8",
        ),
        ("id,lower,upper,size,offset\na,0,1,4,-1\n", None, "f.csv:2: field offset: buffer a: -1, expected 0 or more"),
        (
            "id,lower,upper,size,alignment\na,0,1,4,0\n",
            None,
            "f.csv:2: field alignment: buffer a: 0, expected at least 1",
        ),
        (
            "id,lower,upper,size,alignment,offset\na,0,1,4,8,12\n",
            None,
            "f.csv:2: field offset: buffer a: 12, expected a multiple of the alignment 8",
        ),
        (
            "id,lower,upper,size,alignment\na,0,4,4,64\nb,4,9,4,64\nc,3,5,4,1\nd,3,5,4,64\n",
            64,
            "f.csv:5: field alignment: buffer d: 64 leaves only offset 0 below the capacity 64, and buffer a can only "
            "be there at the same time",
        ),
        (
            "id,lower,upper,size,gaps\na,0,4,4,1:2\n",
            None,
            "f.csv:2: field gaps: buffer a: got '1:2', expected start-end or start-end@low:high",
        ),
        (
            "id,lower,upper,size,gaps\na,0,4,4,1-3 2-4\n",
            None,
            "f.csv:2: field gaps: buffer a: 2-4, expected separate gaps within 0-4 and windows within 0:4",
        ),
        (
            "id,lower,upper,size,gaps\na,0,4,4,1-3@2:5\n",
            None,
            "f.csv:2: field gaps: buffer a: 1-3@2:5, expected separate gaps within 0-4 and windows within 0:4",
        ),
        ("id,lower,upper,size\na,0,1,1\n", 0, "f.csv: field capacity: 0, expected 1 to 4503599627370496"),
    ],
)
def test_a_bad_file_names_line_and_column(text: str, capacity: int | None, message: str) -> None:
    with pytest.raises(InstanceError) as caught:
        parse(text, capacity)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_wide_alignment_alone_is_no_error() -> None:
    # Offset 0 is a multiple of every alignment, and the two are not live at the same time.
    instance = parse("id,lower,upper,size,alignment\na,0,4,4,64\nb,4,9,4,64\n", capacity=8)
    assert check_packing(instance, Packing(offset=np.zeros(2, dtype=np.int64))) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,offset\nc,0\n", "p.csv:2: field id: c is no buffer of f"),
        ("id,offset\na,x\n", "p.csv:2: field offset: buffer a: got 'x', expected an integer"),
        ("id,offset\na,0\n", "p.csv: field offset: buffer b has no offset of 0 or more"),
        ("id,size,offset\na,5,0\n", "p.csv:2: field size: buffer a: 5, but 4 in f"),
        ("id,size\na,4\n", "p.csv:1: field offset: column missing, the header has id, size"),
    ],
)
def test_a_bad_packing_names_line_and_column(text: str, message: str) -> None:
    instance = parse("id,lower,upper,size\na,0,2,4\nb,1,3,4\n")
    with pytest.raises(SolutionError) as caught:
        parse_packing(text, instance, source="p.csv")
    assert str(caught.value) == message


def test_a_label_that_would_break_the_table_is_refused() -> None:
    instance = OffsetPackingInstance(
        name="f", lower=np.array([0]), upper=np.array([1]), size=np.array([1]), labels=("a,b",)
    )
    with pytest.raises(InstanceError, match="f: field labels: 'a,b' cannot be a cell of a CSV file"):
        format_minimalloc(instance)


@NEEDS_DATA
def test_the_challenging_suite_has_its_published_sizes() -> None:
    # Buffers and most bytes live at once, from MiniMalloc's paper and memmap.md B3.
    folder = Path(os.environ["SCHEDRL_DATA"], "memmap", "minimalloc_challenging")
    found = {i.name: (i.buffers, max_live(i)) for i in read_instances(folder) if isinstance(i, OffsetPackingInstance)}
    full = 1048576
    assert found == {
        "A": (154, full), "B": (170, full), "C": (203, 1039360), "D": (213, 986112), "E": (215, full), "F": (296, full),
        "G": (308, full), "H": (316, full), "I": (374, full), "J": (409, 989184), "K": (454, full),
    }  # fmt: skip
    assert all(i.capacity == full for i in read_instances(folder) if isinstance(i, OffsetPackingInstance))
