from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packing_strategies import first_fit, free, packing_instances, placed_first

from schedrl.baselines.memmap.fitting import (
    BEST_FIT,
    FIRST_FIT,
    FITS,
    LOWEST_FIRST,
    STACK,
    TOO_HIGH,
    empty,
    fit,
    load_prefix,
    lowest_free,
    new_fitting,
    place,
    smallest_gap,
)
from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing, check_packing


def two_gaps(size: int, alignment: int = 1) -> OffsetPackingInstance:
    """Bytes 4 to 6 and 9 to 12 are taken, so that gaps of 4 and of 3 bytes lie below the top."""
    return OffsetPackingInstance(
        name="two gaps",
        lower=np.zeros(3, np.int64),
        upper=np.full(3, 10),
        size=np.array([2, 3, size]),
        alignment=np.array([1, 1, alignment]),
        fixed_offset=np.array([4, 9, -1]),
    )


@pytest.mark.parametrize(
    ("size", "alignment", "rule", "offset"),
    [
        (3, 1, FIRST_FIT, 0),
        (3, 1, BEST_FIT, 6),
        (3, 1, STACK, 12),
        (3, 1, LOWEST_FIRST, 0),
        (4, 1, BEST_FIT, 0),
        (5, 1, FIRST_FIT, 12),
        (5, 1, BEST_FIT, 12),
        (2, 4, FIRST_FIT, 0),
        # Aligned, the upper gap begins at 8 and has one byte.
        (1, 4, BEST_FIT, 8),
        (2, 8, BEST_FIT, 0),
        (5, 8, STACK, 16),
    ],
)
def test_where_a_buffer_goes_among_two_gaps(size: int, alignment: int, rule: int, offset: int) -> None:
    instance = two_gaps(size, alignment)
    fitting = new_fitting(instance)
    peak = fit(fitting, np.array([2, 0, 1], dtype=np.int32), rule)
    assert fitting.offset.tolist() == [4, 9, offset]
    assert peak == max(12, offset + size)
    assert check_packing(instance, Packing(offset=fitting.offset)) == []


def test_a_buffer_goes_into_the_part_of_another_that_is_not_live() -> None:
    instance = OffsetPackingInstance(
        name="window",
        lower=np.array([0, 1]),
        upper=np.array([4, 3]),
        size=np.array([4, 2]),
        gap_offset=np.array([0, 1, 1]),
        gaps=np.array([[1, 3, 0, 2]]),
    )
    for rule in (FIRST_FIT, STACK, BEST_FIT, LOWEST_FIRST):
        fitting = new_fitting(instance)
        assert fit(fitting, np.array([0, 1], dtype=np.int32), rule) == 4
        assert fitting.offset.tolist() == [0, 2]


def best_fit(instance: OffsetPackingInstance, order: list[int]) -> dict[int, int]:
    assert instance.alignment is not None
    placed, beyond = placed_first(instance), int(instance.size.sum()) * 8 + 64
    for b in order:
        if b in placed:
            continue
        gaps, position, step = [], 0, int(instance.alignment[b])
        while position < beyond:
            position = -(-position // step) * step
            while not free(instance, placed, b, position):
                position += step
            last = position
            while last < beyond and free(instance, placed, b, last + 1):
                last += 1
            gaps.append((last - position, position))
            position = last + 1
        placed[b] = min(gaps)[1]
    return placed


def lowest_first(instance: OffsetPackingInstance, order: list[int]) -> dict[int, int]:
    """Without given offsets: place the buffer of the lowest height above all placed conflicting ones."""
    assert instance.alignment is not None
    rows = list(zip(*(column.tolist() for column in instance.live), strict=True))
    placed: dict[int, int] = {}

    def height(b: int) -> int:
        floor = 0
        for start, end, low, _, owner in rows:
            for other_start, other_end, _, other_high, c in rows:
                if owner == b and c in placed and start < other_end and other_start < end:
                    floor = max(floor, placed[c] + other_high - low)
        step = int(instance.alignment[b])
        return -(-floor // step) * step

    waiting = list(order)
    while waiting:
        b = min(waiting, key=height)
        placed_at = height(b)
        placed[b] = placed_at
        waiting.remove(b)
    return placed


@settings(max_examples=100, deadline=None)
@given(instance=packing_instances(), data=st.data())
def test_kernels_place_as_the_definitions_say(instance: OffsetPackingInstance, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(instance.buffers)))
    expected = {FIRST_FIT: first_fit(instance, order), BEST_FIT: best_fit(instance, order)}
    if not placed_first(instance):
        expected[LOWEST_FIRST] = lowest_first(instance, order)
    for rule, placed in expected.items():
        fitting = new_fitting(instance)
        peak = fit(fitting, np.array(order, dtype=np.int32), rule)
        assert dict(enumerate(fitting.offset.tolist())) == placed
        assert peak == int((fitting.offset + instance.size).max())


@settings(max_examples=50, deadline=None)
@given(instance=packing_instances(buffers=12), data=st.data())
def test_every_placement_passes_the_checker(instance: OffsetPackingInstance, data: st.DataObject) -> None:
    order = np.array(data.draw(st.permutations(range(instance.buffers))), dtype=np.int32)
    fitting = new_fitting(instance)
    for rule in FITS.values():
        peak = fit(fitting, order, rule)
        assert check_packing(instance, Packing(offset=fitting.offset)) == []
        assert peak == int((fitting.offset + instance.size).max())


@settings(max_examples=50, deadline=None)
@given(instance=packing_instances(buffers=12, rules=False), data=st.data())
def test_the_sweep_for_buffers_of_one_range_finds_the_gap_that_the_general_search_finds(
    instance: OffsetPackingInstance, data: st.DataObject
) -> None:
    order = np.array(data.draw(st.permutations(range(instance.buffers))), dtype=np.int32)
    fitting, general = new_fitting(instance), new_fitting(instance)
    fit(fitting, order, BEST_FIT)
    empty(general)
    for k, b in enumerate(order.tolist()):
        assert smallest_gap(general, b) == fitting.offset[b]
        place(general, order[: k + 1].copy(), k, BEST_FIT, TOO_HIGH)


@settings(max_examples=50, deadline=None)
@given(instance=packing_instances(buffers=10), data=st.data())
def test_first_fit_by_offset_lifts_no_buffer(instance: OffsetPackingInstance, data: st.DataObject) -> None:
    order = np.array(data.draw(st.permutations(range(instance.buffers))), dtype=np.int32)
    fitting = new_fitting(instance)
    fit(fitting, order, data.draw(st.sampled_from(list(FITS.values()))))
    before = fitting.offset.copy()
    fit(fitting, np.argsort(before, kind="stable").astype(np.int32), FIRST_FIT)
    assert (fitting.offset <= before).all()


@settings(max_examples=50, deadline=None)
@given(instance=packing_instances(buffers=10), data=st.data())
def test_a_placement_resumed_from_a_prefix_is_the_placement(
    instance: OffsetPackingInstance, data: st.DataObject
) -> None:
    order = np.array(data.draw(st.permutations(range(instance.buffers))), dtype=np.int32)
    since = data.draw(st.integers(0, instance.buffers))
    fitting = new_fitting(instance)
    peak = fit(fitting, order, FIRST_FIT)
    offset, sequence = fitting.offset.copy(), fitting.placed_range.copy()
    place_of = np.empty(instance.buffers, np.int32)
    place_of[order] = np.arange(instance.buffers)
    place_of[fitting.fixed >= 0] = -1
    fit(fitting, order[::-1].copy(), FIRST_FIT)
    load_prefix(fitting, sequence, instance.live[4].copy(), place_of, offset, since)
    assert place(fitting, order, since, FIRST_FIT, TOO_HIGH) == peak
    assert fitting.offset.tolist() == offset.tolist()
    load_prefix(fitting, sequence, instance.live[4].copy(), place_of, offset, since)
    given_or_before = [b for k, b in enumerate(order.tolist()) if k < since or place_of[b] < 0]
    reached = max((int(offset[b] + instance.size[b]) for b in given_or_before), default=0)
    if reached < peak:
        assert place(fitting, order, since, FIRST_FIT, peak - 1) == TOO_HIGH


def test_lowest_free_starts_from_the_position_asked_for() -> None:
    fitting = new_fitting(two_gaps(3))
    empty(fitting)
    assert [lowest_free(fitting, 2, p) for p in (0, 1, 2, 6, 7)] == [0, 1, 6, 6, 12]
