from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from packing_strategies import NEEDS_DATA, challenging, least_peak, packing_instances

from schedrl.arrays import I64
from schedrl.baselines.memmap.complete_kernels import (
    BY_CONFLICTS,
    BY_ORDER,
    BY_TIGHTNESS,
    EXHAUSTED,
    SOLVED,
    new_state,
    search,
)
from schedrl.baselines.memmap.complete_search import ComponentSearch, luby
from schedrl.baselines.memmap.complete_tables import Component, components, order_of, reordered
from schedrl.baselines.memmap.complete_windows import enumerate_offsets
from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing, check_packing

FOREVER = time.perf_counter() + 1e6


def never_live(instance: OffsetPackingInstance) -> int:
    """Return the end of the highest buffer that has no live byte and so no component."""
    assert instance.fixed_offset is not None
    ends = np.maximum(instance.fixed_offset, 0) + instance.size
    ends[instance.live[4]] = 0
    return int(ends.max())


def settled(component: Component, capacity: int) -> I64 | None:
    """Restart until there is a packing, or proof that there is none."""
    work = ComponentSearch.of(component, np.random.default_rng(0))
    offset = None
    while offset is None and work.lower <= capacity:
        offset = work.attempt(capacity, FOREVER)
    return offset


@settings(max_examples=150, deadline=None)
@given(instance=packing_instances(buffers=6))
def test_answers_are_those_of_brute_force_without_a_greedy_start(instance: OffsetPackingInstance) -> None:
    least = least_peak(instance)
    parts, unit = components(instance)
    assert instance.fixed_offset is not None
    offset = np.maximum(instance.fixed_offset, 0)
    for part in parts:
        found = settled(part, least // unit)
        assert found is not None
        offset[part.buffers] = found * unit
    assert check_packing(instance, Packing(offset=offset)) == []
    assert (offset + instance.size).max() <= least
    if least > never_live(instance):
        assert any(settled(part, (least - 1) // unit) is None for part in parts)


@settings(max_examples=60, deadline=None)
@given(instance=packing_instances(buffers=6, rules=False))
def test_every_rule_and_order_settles_plain_instances(instance: OffsetPackingInstance) -> None:
    least = least_peak(instance)
    (parts, unit), rng = components(instance), np.random.default_rng(1)
    for part in parts:
        for rule in (BY_ORDER, BY_CONFLICTS, BY_TIGHTNESS):
            tables = reordered(part.tables, order_of(part, "WAT", 0.3, rng))
            assert search(tables, new_state(tables), least // unit, 10**6, rule) == SOLVED
            below = part.bound - 1
            if below >= part.tables.size.max():
                assert search(tables, new_state(tables), below, 10**6, rule) == EXHAUSTED


@settings(max_examples=60, deadline=None)
@given(instance=packing_instances(buffers=4))
def test_enumeration_alone_agrees_with_brute_force(instance: OffsetPackingInstance) -> None:
    least = least_peak(instance)
    parts, unit = components(instance)
    answers = [enumerate_offsets(part, (least - 1) // unit, FOREVER) for part in parts]
    assert all(complete for _, complete in answers)
    if least > never_live(instance):
        assert any(offset is None for offset, _ in answers)
    for part in parts:
        offset, complete = enumerate_offsets(part, least // unit, FOREVER)
        assert complete and offset is not None


def chain() -> OffsetPackingInstance:
    """Three buffers in a chain, twins among them, and one apart."""
    return OffsetPackingInstance(
        name="chain",
        lower=np.array([0, 2, 0, 9, 3]),
        upper=np.array([3, 6, 3, 11, 8]),
        size=np.array([4, 6, 4, 2, 8]),
    )


def test_cliques_pairs_and_components() -> None:
    parts, unit = components(chain())
    assert unit == 2
    assert [part.buffers.tolist() for part in parts] == [[0, 1, 2, 4], [3]]
    t = parts[0].tables
    # Live together: 0, 1 and 2 at instant 2; 1 and 4 from instant 3 on.
    assert (t.first.tolist(), t.last.tolist()) == ([0, 0, 0, 1], [1, 2, 1, 2])
    assert t.pair_offset.tolist() == [0, 2, 5, 7, 8]
    assert t.pair.tolist() == [1, 2, 0, 2, 3, 0, 1, 1]
    assert t.above.tolist() == [2, 2, 3, 3, 3, 2, 2, 4]
    assert t.below.tolist() == [3, 2, 2, 2, 4, 2, 3, 3]
    assert parts[0].bound == 7
    assert parts[0].exact
    assert {letter: keys.tolist() for letter, keys in parts[0].keys.items()} == {
        "A": [6.0, 12.0, 6.0, 20.0],
        "C": [1.0, 2.0, 1.0, 1.0],
        "L": [0.0, 2.0, 0.0, 3.0],
        "O": [2.0, 3.0, 2.0, 1.0],
        "T": [7.0, 7.0, 7.0, 7.0],
        "U": [3.0, 6.0, 3.0, 8.0],
        "W": [3.0, 4.0, 3.0, 5.0],
        "Z": [2.0, 3.0, 2.0, 4.0],
    }


def test_reordering_moves_everything_and_links_twins() -> None:
    part = components(chain())[0][0]
    order = order_of(part, "TZ", 0.0, np.random.default_rng(0))
    assert order.tolist() == [3, 1, 0, 2]
    t = reordered(part.tables, order)
    assert t.size.tolist() == [4, 3, 2, 2]
    assert t.pair_offset.tolist() == [0, 1, 4, 6, 8]
    assert t.pair.tolist() == [1, 0, 2, 3, 1, 3, 1, 2]
    assert t.above.tolist() == [4, 3, 3, 3, 2, 2, 2, 2]
    assert t.below.tolist() == [3, 4, 2, 2, 3, 2, 3, 2]
    assert t.twin_before.tolist() == [-1, -1, -1, 2]
    assert t.twin_after.tolist() == [-1, -1, 3, -1]


def test_windows_that_may_interlock_make_the_search_inexact() -> None:
    plain = OffsetPackingInstance(name="w", lower=np.zeros(2, int), upper=np.full(2, 3), size=np.array([6, 2]))
    assert components(plain)[0][0].exact
    gaps = {"gap_offset": np.array([0, 1, 1]), "gaps": np.array([[0, 3, 4, 6]])}
    windowed = OffsetPackingInstance(
        name="w",
        lower=plain.lower,
        upper=plain.upper,
        size=plain.size,
        gap_offset=gaps["gap_offset"],
        gaps=gaps["gaps"],
    )
    part = components(windowed)[0][0]
    # Only the top third of the first is ever live: the second may begin at the same offset.
    assert not part.exact
    assert part.bound == 3
    assert settled(part, 3) is not None
    assert settled(part, 2) is None


def test_node_limits_follow_luby() -> None:
    assert [luby(k) for k in range(1, 16)] == [1, 1, 2, 1, 1, 2, 4, 1, 1, 2, 1, 1, 2, 4, 8]


@NEEDS_DATA
def test_a_paused_search_goes_on_where_it_stopped() -> None:
    part = components(challenging("K"))[0][0]
    tables = reordered(part.tables, order_of(part, "TWA", 0.0, np.random.default_rng(0)))
    whole, pieces = new_state(tables), new_state(tables)
    search(tables, whole, part.bound, 3000, BY_CONFLICTS)
    for _ in range(30):
        search(tables, pieces, part.bound, 100, BY_CONFLICTS)
    assert np.array_equal(whole.offset, pieces.offset)
    assert np.array_equal(whole.weight, pieces.weight)
    assert np.array_equal(whole.frame, pieces.frame)


@NEEDS_DATA
def test_a_restart_forgets_all_but_the_weights() -> None:
    part = components(challenging("F"))[0][0]
    work = ComponentSearch.of(part, np.random.default_rng(0))
    assert work.attempt(part.bound - 1, FOREVER) is None
    assert work.attempts == 0
    offsets = [work.attempt(part.bound, FOREVER) for _ in range(4)]
    found = [offset for offset in offsets if offset is not None]
    assert all(offset.min() == 0 for offset in found)
    assert work.lower == part.bound


def test_an_attempt_past_the_deadline_finds_nothing() -> None:
    part = components(chain())[0][0]
    assert ComponentSearch.of(part, np.random.default_rng(0)).attempt(part.bound, 0.0) is None


@pytest.mark.parametrize("letters", ["WAT", "TAW", "OZ"])
def test_noise_changes_orders_and_the_generator_alone_decides(letters: str) -> None:
    part = components(chain())[0][0]
    first = [order_of(part, letters, 2.0, np.random.default_rng(seed)).tolist() for seed in range(8)]
    again = [order_of(part, letters, 2.0, np.random.default_rng(seed)).tolist() for seed in range(8)]
    assert first == again
    assert len(set(map(tuple, first))) > 1
