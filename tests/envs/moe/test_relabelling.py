from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from schedrl.arrays import I32
from schedrl.envs.moe.balancing import allocate_scratch, slot_starts
from schedrl.envs.moe.relabelling import assign, preserve_slots, relabel_devices

EXAMPLES = int(os.environ.get("SCHEDRL_EXAMPLES", "25"))


@settings(max_examples=4 * EXAMPLES, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**32 - 1), st.booleans())
def test_assignment_costs_what_scipy_finds(n: int, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    cost = rng.integers(-4, 4, (n, n)).astype(np.float64) if ties else rng.normal(size=(n, n))
    match = np.zeros(n, np.int32)
    assign(cost, match, np.zeros((3, n + 1)), np.zeros((3, n + 1), np.int32))
    assert sorted(match) == list(range(n))
    assert cost[range(n), match].sum() == pytest.approx(cost[linear_sum_assignment(cost)].sum())


def test_experts_that_stay_keep_their_slots() -> None:
    old, new = np.array([0, 1, 2, 3, 4, 5], dtype=np.int32), np.array([2, 6, 0, 5, 5, 3], dtype=np.int32)
    preserve_slots(old, new, slot_starts([3, 3]), allocate_scratch(7, 6, 2))
    assert new.tolist() == [0, 6, 2, 3, 5, 5]


def test_devices_exchange_contents_inside_their_node_or_everywhere() -> None:
    # Devices 0 and 1 form a node, 2 and 3 another; every device's old contents went one device on.
    old, new = np.arange(8, dtype=np.int32), np.roll(np.arange(8, dtype=np.int32), 2)
    first_slot, node = slot_starts([2, 2, 2, 2]), np.array([0, 0, 1, 1], dtype=np.int32)
    scratch, inside, everywhere = allocate_scratch(8, 8, 4), new.copy(), new.copy()
    assert relabel_devices(old, inside, first_slot, np.ones(4), node, False, scratch) == 4
    assert inside.tolist() == [0, 1, 6, 7, 4, 5, 2, 3]
    assert relabel_devices(old, everywhere, first_slot, np.ones(4), node, True, scratch) == 8
    assert everywhere.tolist() == old.tolist()
    unlike = new.copy()
    assert relabel_devices(old, unlike, first_slot, np.arange(1.0, 5.0), node, True, scratch) == 0
    assert unlike.tolist() == new.tolist()


def contents(placement: I32, first_slot: I32) -> list[Counter[int]]:
    return [Counter(row.tolist()) for row in np.split(placement, first_slot[1:-1])]


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_contents_move_as_a_whole_and_overlap_does_not_fall(slots: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    first_slot, devices = slot_starts(slots), len(slots)
    old, new = rng.integers(0, 4, (2, sum(slots))).astype(np.int32)
    speed, node = rng.choice([1.0, 2.0], devices), np.sort(rng.integers(0, 2, devices)).astype(np.int32)
    scratch, changed = allocate_scratch(4, sum(slots), devices), new.copy()
    stay = relabel_devices(old, changed, first_slot, speed, node, False, scratch)
    before, kept, after = (contents(row, first_slot) for row in (new, old, changed))
    kinds = [list(zip(rows, speed, node, strict=True)) for rows in (before, after)]
    assert sorted((sorted(row.items()), s, n) for row, s, n in kinds[0]) == sorted(
        (sorted(row.items()), s, n) for row, s, n in kinds[1]
    )
    overlap = [sum((a & b).total() for a, b in zip(kept, rows, strict=True)) for rows in (before, after)]
    assert stay == overlap[1] >= overlap[0]
    preserve_slots(old, changed, first_slot, scratch)
    assert contents(changed, first_slot) == after
    assert (changed == old).sum() == stay
