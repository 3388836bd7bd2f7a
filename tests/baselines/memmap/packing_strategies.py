"""Small packing instances, their least peak by brute force, and the public ones."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from schedrl.envs.memmap.formats import read_minimalloc
from schedrl.envs.memmap.packing import OffsetPackingInstance

NEEDS_DATA = pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no instances to pack")


def public(folder: str, name: str, capacity: int | None = None) -> OffsetPackingInstance:
    """Read one of the public instances without the capacity in its name."""
    folder_path = Path(os.environ["SCHEDRL_DATA"]) / "memmap" / folder
    return read_minimalloc(next(iter(folder_path.glob(f"{name}*.csv"))), capacity=capacity)


def challenging(letter: str) -> OffsetPackingInstance:
    """Read one of MiniMalloc's eleven challenging instances."""
    return public("minimalloc_challenging", f"{letter}.")


@st.composite
def packing_instances(draw: st.DrawFn, *, buffers: int = 6, rules: bool = True) -> OffsetPackingInstance:
    """Draw an instance, with ``rules`` also gaps, alignments and given offsets that admit a packing."""
    count = draw(st.integers(1, buffers))
    numbers = st.lists(st.integers(1, 6), min_size=count, max_size=count)
    lower = np.array(draw(st.lists(st.integers(0, 6), min_size=count, max_size=count)))
    upper, size = lower + draw(numbers), np.array(draw(numbers))
    plain = OffsetPackingInstance(name="drawn", lower=lower, upper=upper, size=size)
    if not rules:
        return plain
    gaps = [_gap(draw, int(a), int(b), int(s)) for a, b, s in zip(lower, upper, size, strict=True)]
    rows = [row for row in gaps if row is not None]
    alignment = np.array(draw(st.lists(st.sampled_from([1, 1, 2, 4]), min_size=count, max_size=count)))
    given_on_top = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    # Given offsets one above the other never meet.
    fixed, top = np.full(count, -1), draw(st.integers(0, 3))
    for b in np.flatnonzero(given_on_top)[:2].tolist():
        fixed[b] = -(-top // alignment[b]) * alignment[b]
        top = int(fixed[b] + size[b]) + draw(st.integers(0, 3))
    return OffsetPackingInstance(
        name="drawn",
        lower=lower,
        upper=upper,
        size=size,
        alignment=alignment,
        fixed_offset=fixed,
        gap_offset=np.concatenate([[0], np.cumsum([row is not None for row in gaps])]),
        gaps=np.array(rows, dtype=np.int64).reshape(-1, 4),
    )


def _gap(draw: st.DrawFn, lower: int, upper: int, size: int) -> tuple[int, int, int, int] | None:
    if draw(st.booleans()):
        return None
    start = draw(st.integers(lower, upper - 1))
    end = draw(st.integers(start + 1, upper))
    low = draw(st.integers(0, size))
    high = draw(st.integers(low, size))
    return (start, end, low, high) if low < high else (start, end, 0, 0)


def free(instance: OffsetPackingInstance, placed: dict[int, int], b: int, position: int) -> bool:
    """Whether buffer b at an offset meets no placed buffer, straight from the definition."""
    rows = list(zip(*(column.tolist() for column in instance.live), strict=True))
    for start, end, low, high, owner in rows:
        if owner != b:
            continue
        for other_start, other_end, other_low, other_high, c in rows:
            if c in placed and start < other_end and other_start < end:
                at = placed[c]
                if position + low < at + other_high and at + other_low < position + high:
                    return False
    return True


def placed_first(instance: OffsetPackingInstance) -> dict[int, int]:
    """Return the given offsets by buffer."""
    assert instance.fixed_offset is not None
    return {b: offset for b, offset in enumerate(instance.fixed_offset.tolist()) if offset >= 0}


def first_fit(instance: OffsetPackingInstance, order: list[int]) -> dict[int, int]:
    """Place by first fit, trying offset after offset."""
    assert instance.alignment is not None
    placed = placed_first(instance)
    for b in order:
        if b not in placed:
            positions = itertools.count(0, int(instance.alignment[b]))
            placed[b] = next(p for p in positions if free(instance, placed, b, p))
    return placed


def least_peak(instance: OffsetPackingInstance) -> int:
    """Return the least peak: that of the best order, since a packing by offset is first fit or better."""
    orders = itertools.permutations(range(instance.buffers))
    packings = (first_fit(instance, list(order)) for order in orders)
    return min(max(offset + int(instance.size[b]) for b, offset in placed.items()) for placed in packings)
