"""Fusion on graphs by hand, with the expected operations written out, and its invariants on random programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.fusion import fuse
from schedrl.envs.memmap.instance import MemoryMapInstance

MEMORY = MemoryDevice(
    name="test",
    flops_per_s=1e12,
    layers=(
        MemoryLayer(name="slow", read_bytes_per_s=1e9, write_bytes_per_s=1e9),
        MemoryLayer(name="fast", read_bytes_per_s=1e10, write_bytes_per_s=1e10, capacity_bytes=1 << 20),
    ),
)


def op(label: str, reads: list[int], writes: list[int], flops: float = 0.0, **more: Any) -> dict[str, Any]:
    """An operation that is elementwise unless it computes something."""
    return {"label": label, "reads": reads, "writes": writes, "flops": flops, "pointwise": not flops} | more


def program(ops: list[dict[str, Any]], sizes: list[int], outputs: set[int]) -> dict[str, Any]:
    buffers = [
        {"size": size, "label": f"b{i}"} | ({"output": True} if i in outputs else {}) for i, size in enumerate(sizes)
    ]
    return {"name": "hand", "ops": ops, "buffers": buffers}


def described(fused: dict[str, Any]) -> list[tuple[str, list[str], list[str]]]:
    """Label, operands and results of every operation, buffers by label."""
    name = [buffer["label"] for buffer in fused["buffers"]]
    return [(o["label"], [name[b] for b in o["reads"]], [name[b] for b in o["writes"]]) for o in fused["ops"]]


def traffic(data: dict[str, Any]) -> int:
    return int(MemoryMapInstance.from_program(data, memory=MEMORY).access_bytes.sum())


def test_a_chain_after_a_product_merges_into_it() -> None:
    before = program(
        [op("dot", [0, 1], [2], 50.0), op("add", [2, 3], [4]), op("relu", [4], [5])], [8, 16, 32, 4, 32, 32], {5}
    )
    fused = fuse(before)
    assert described(fused) == [("dot+add+relu", ["b0", "b1", "b3"], ["b5"])]
    assert fused["ops"][0]["flops"] == 50.0
    assert "pointwise" not in fused["ops"][0]
    assert (traffic(before), traffic(fused)) == (8 + 16 + 32 + 32 + 4 + 32 + 32 + 32, 8 + 16 + 4 + 32)


def test_elementwise_operands_are_computed_while_a_product_reads_them() -> None:
    fused = fuse(program([op("cast", [0], [1]), op("dot", [1, 2], [3], 7.0)], [8, 4, 4, 4], {3}))
    assert described(fused) == [("cast+dot", ["b0", "b2"], ["b3"])]


def test_two_products_stay_apart_and_the_later_one_takes_what_follows() -> None:
    fused = fuse(
        program([op("dot1", [0], [1], 1.0), op("dot2", [0], [2], 1.0), op("add", [1, 2], [3])], [4, 4, 4, 4], {3})
    )
    assert described(fused) == [("dot1", ["b0"], ["b1"]), ("dot2+add", ["b0", "b1"], ["b3"])]


@pytest.mark.parametrize("outputs", [{2, 3}, {3}])
def test_a_buffer_with_a_second_reader_or_that_is_an_output_stays(outputs: set[int]) -> None:
    second = [] if 2 in outputs else [op("sum", [2], [4], 1.0)]
    fused = fuse(program([op("dot", [0, 1], [2], 1.0), op("exp", [2], [3]), *second], [4, 4, 4, 4, 4], outputs | {4}))
    assert described(fused)[:2] == [("dot", ["b0", "b1"], ["b2"]), ("exp", ["b2"], ["b3"])]


def test_a_reduction_takes_elementwise_operands_but_nothing_larger_behind_it() -> None:
    ops = [op("square", [0], [1]), op("sum", [1], [2], 1.0), op("divide", [0, 2], [3])]
    assert described(fuse(program(ops, [64, 64, 2, 64], {3}))) == [
        ("square+sum", ["b0"], ["b2"]),
        ("divide", ["b0", "b2"], ["b3"]),
    ]


def test_sizes_are_compared_by_elements_where_these_are_known() -> None:
    data = program([op("dot", [0], [1], 1.0), op("to_float", [1], [2])], [8, 8, 16], {2})
    assert len(fuse(data)["ops"]) == 2
    for buffer, elements in zip(data["buffers"], (4, 4, 4), strict=True):
        buffer["elements"] = elements
    assert described(fuse(data)) == [("dot+to_float", ["b0"], ["b2"])]


def test_an_update_moves_next_to_the_gradient_it_needs() -> None:
    ops = [
        op("gradient", [0, 1], [2], 1.0),
        op("other", [1], [3], 1.0),
        op("scale", [2], [4]),
        op("subtract", [5, 4], [6]),
    ]
    assert described(fuse(program(ops, [4] * 7, {3, 6}))) == [
        ("gradient+scale+subtract", ["b0", "b1", "b5"], ["b6"]),
        ("other", ["b1"], ["b3"]),
    ]


def test_a_merger_that_would_close_a_cycle_is_left_out() -> None:
    # first -> (1, 2); between turns 2 into 3; last needs 1 and 3: first and last cannot be one without between.
    ops = [op("first", [0], [1, 2], 1.0), op("between", [2], [3], 1.0), op("last", [1, 3], [4])]
    assert described(fuse(program(ops, [4] * 5, {4}))) == [
        ("first", ["b0"], ["b1", "b2"]),
        ("between+last", ["b2", "b1"], ["b4"]),
    ]


def test_a_constant_is_recomputed_where_it_is_used() -> None:
    ops = [
        op("iota", [], [0]),
        op("mask", [0], [1]),
        op("where1", [2, 1], [3]),
        op("sum1", [3], [4], 1.0),
        op("where2", [4, 1], [5]),
        op("sum2", [5], [6], 1.0),
    ]
    assert described(fuse(program(ops, [4] * 7, {6}))) == [
        ("where1+sum1+where2", ["b2"], ["b5"]),
        ("sum2", ["b5"], ["b6"]),
    ]


def test_a_constant_that_is_an_output_is_kept() -> None:
    assert described(fuse(program([op("ones", [], [0])], [4], {0}))) == [("ones", [], ["b0"])]


def test_parts_of_one_buffer_add_up_to_at_most_the_whole() -> None:
    ops = [
        op("copy1", [0], [1], read_bytes=[6]),
        op("copy2", [0], [2], read_bytes=[6]),
        op("dot", [1, 2, 3], [4], 1.0),
    ]
    for size, read_bytes in ((18, 12), (8, 8)):
        fused = fuse(program(ops, [size, 6, 6, 1, 4], {4}))
        assert described(fused) == [("copy1+copy2+dot", ["b0", "b3"], ["b4"])]
        assert fused["ops"][0].get("read_bytes", [size, 1]) == [read_bytes, 1]


@pytest.mark.parametrize("more", [{"seconds": 1e-3}, {"trips": 4}, {"groups": [0, 0]}])
def test_operations_that_say_more_stay_as_they_are(more: dict[str, Any]) -> None:
    fused = fuse(program([op("a", [0], [1]), op("b", [1], [2], **more)], [4, 4, 4], {2}))
    assert described(fused) == [("a", ["b0"], ["b1"]), ("b", ["b1"], ["b2"])]
    assert {key: fused["ops"][1][key] for key in more} == more


@st.composite
def programs(draw: st.DrawFn) -> dict[str, Any]:
    """Single-assignment programs in which every second operation is elementwise and sizes differ."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = rng.choice([4, 8, 64], size=int(rng.integers(1, 4))).tolist()
    ops = []
    for t in range(draw(st.integers(1, 14))):
        reads = rng.choice(len(sizes), size=min(len(sizes), int(rng.integers(0, 4))), replace=False).tolist()
        writes = list(range(len(sizes), len(sizes) + int(rng.integers(1, 3))))
        sizes += rng.choice([4, 8, 64], size=len(writes)).tolist()
        ops.append(op(f"o{t}", reads, writes, float(rng.integers(0, 2) * (t + 1))))
    read = {b for o in ops for b in o["reads"]}
    written = {b for o in ops for b in o["writes"]}
    outputs = {b for b in written if b not in read or rng.random() < 0.1}
    return program(ops, sizes, outputs)


@given(programs())
def test_fusion_keeps_flops_outputs_and_dependences_and_moves_no_more(data: dict[str, Any]) -> None:
    fused = fuse(data)
    assert fuse(fused) == fused
    # The instance refuses anything but single assignment in order.
    after = MemoryMapInstance.from_program(fused, memory=MEMORY) if any_access(fused) else None
    assert sum(o["flops"] for o in fused["ops"]) == sum(o["flops"] for o in data["ops"])
    assert outputs_of(fused) == outputs_of(data)
    assert after is None or int(after.access_bytes.sum()) <= traffic(data)
    for label, needed in sources(data).items():
        assert needed <= sources(fused)[label]


def any_access(data: dict[str, Any]) -> bool:
    return any(o["reads"] or o["writes"] for o in data["ops"])


def outputs_of(data: dict[str, Any]) -> set[str]:
    return {buffer["label"] for buffer in data["buffers"] if buffer.get("output")}


def sources(data: dict[str, Any]) -> dict[str, set[str]]:
    """The inputs that every output depends on, as far as an operation with several results can tell."""
    depends: list[set[str]] = [{buffer["label"]} for buffer in data["buffers"]]
    for o in data["ops"]:
        for b in o["writes"]:
            depends[b] = set().union(*(depends[r] for r in o["reads"]))
    return {b["label"]: depends[i] for i, b in enumerate(data["buffers"]) if b.get("output")}
