from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.arrays import F64, I32
from schedrl.envs.moe.eplb import balanced_packing, rebalance_experts
from schedrl.errors import InstanceError
from schedrl.experiments.benchmarks.eplb_speed import plain_eplb

EXAMPLES = int(os.environ.get("SCHEDRL_EXAMPLES", "25"))

# The example of github.com/deepseek-ai/EPLB's README.
WEIGHT = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
]
HIERARCHICAL = [
    [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
]
GLOBAL = [
    [10, 6, 10, 7, 0, 2, 11, 4, 5, 9, 5, 4, 8, 3, 1, 1],
    [1, 10, 2, 4, 5, 11, 5, 0, 6, 7, 6, 3, 8, 8, 9, 7],
]


def device_loads(placement: I32, replicas: I32, devices: int) -> F64:
    weight = np.array(WEIGHT, dtype=np.float64)
    share: F64 = np.take_along_axis(weight / replicas, placement, axis=1)
    return share.reshape(len(weight), devices, -1).sum(axis=2)


def test_readme_hierarchical() -> None:
    placement, slots, replicas = rebalance_experts(WEIGHT, 16, 4, 2, 8)
    assert placement.tolist() == HIERARCHICAL
    assert replicas.tolist() == [[1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1], [1, 2, 1, 1, 1, 2, 2, 1, 2, 1, 1, 1]]
    assert slots.shape == (2, 12, 2)
    loads = device_loads(placement, replicas, 8)
    assert loads.tolist() == [
        [121.5, 86.5, 125, 113, 147.5, 131.5, 156, 152],
        [173, 179.5, 120.5, 172, 123, 152, 118.5, 117.5],
    ]
    assert loads.mean(axis=1) / loads.max(axis=1) == pytest.approx([0.827724, 0.805014], abs=5e-7)


def test_readme_global_when_groups_do_not_divide_among_nodes() -> None:
    placement, slots, replicas = rebalance_experts(WEIGHT, 16, 3, 2, 8)
    assert placement.tolist() == GLOBAL
    assert replicas.tolist() == [[1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1], [1, 1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1]]
    loads = device_loads(placement, replicas, 8)
    assert loads.mean(axis=1) / loads.max(axis=1) == pytest.approx([0.932310, 0.840116], abs=5e-7)
    assert slots[0, 10].tolist() == [0, 2]
    assert slots[0, 0].tolist() == [4, -1]


def test_packing_by_hand() -> None:
    # 9 | 7 | 5 to the second | 3 to the first, which is lighter but for its limit of two.
    pack, rank = balanced_packing([[3, 9, 7, 5]], 2)
    assert pack.tolist() == [[0, 0, 1, 1]]
    assert rank.tolist() == [[1, 0, 0, 1]]
    alone, _ = balanced_packing([[3, 9, 7]], 3)
    assert alone.tolist() == [[0, 1, 2]]


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    nodes=st.integers(1, 3),
    per_node=st.integers(1, 3),
    node_groups=st.integers(1, 3),
    size=st.integers(1, 4),
    spare=st.integers(0, 2),
    seed=st.integers(0, 2**32 - 1),
    split=st.booleans(),
)
def test_equal_to_the_plain_transcription(
    nodes: int, per_node: int, node_groups: int, size: int, spare: int, seed: int, split: bool
) -> None:
    groups, devices = nodes * node_groups + (not split), nodes * per_node
    experts = groups * size
    slots = devices * (-(-experts // devices) + spare)
    weight = np.random.default_rng(seed).integers(0, 30, (2, experts))
    placement, where, replicas = rebalance_experts(weight, slots, groups, nodes, devices)
    assert placement.tolist() == plain_eplb(weight, slots, groups, nodes, devices).tolist()
    for layer in range(2):
        assert np.bincount(placement[layer], minlength=experts).tolist() == replicas[layer].tolist()
        for e in range(experts):
            held = where[layer, e][where[layer, e] >= 0]
            assert sorted(held) == np.flatnonzero(placement[layer] == e).tolist()


@pytest.mark.parametrize(
    ("weight", "sizes", "message"),
    [
        ([[1.0, float("nan")]], (2, 1, 1, 1), "field weight: layer 0 expert 1 has nan"),
        ([[1.0, -2.0]], (2, 1, 1, 1), "field weight: layer 0 expert 1 has -2.0"),
        ([1.0, 2.0], (2, 1, 1, 1), r"field weight: shape \(2,\)"),
        ([[1.0], [1.0, 2.0]], (2, 1, 1, 1), "field weight: expected a full array"),
        ([["many"]], (2, 1, 1, 1), "field weight: expected a full array of numbers"),
        ([[1.0, 2.0, 3.0]], (2, 1, 1, 1), "field slots: 2 are fewer than 3 experts"),
        ([[1.0, 2.0, 3.0]], (4, 2, 1, 1), "field groups: 2 do not divide 3 experts"),
        ([[1.0, 2.0, 3.0]], (4, 1, 1, 3), "field devices: 3 do not divide 4 slots"),
        ([[1.0, 2.0, 3.0]], (4, 1, 3, 4), "field nodes: 3 do not divide 4 devices"),
        ([[1.0, 2.0, 3.0]], (4, 0, 1, 1), "field groups: 0, expected at least 1"),
    ],
)
def test_bad_input(weight: Any, sizes: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(InstanceError, match=message):
        rebalance_experts(weight, *sizes)


def test_packing_needs_bins_that_divide() -> None:
    with pytest.raises(InstanceError, match="field packs: 2 does not divide 3 items"):
        balanced_packing([[1.0, 2.0, 3.0]], 2)
