"""Hops of placements: hand-worked cases, uniform routing, and the placements that ExFlow released."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from schedrl.envs.moe.hops import (
    device_shares,
    expected_hops,
    hop_weights,
    path_hops,
    read_exflow_placement,
    transition_hops,
)
from schedrl.errors import InstanceError

NEEDS_DATA = pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no placements to read")


def one_hot(device_of: np.ndarray, devices: int) -> np.ndarray:
    return np.eye(devices)[device_of]


def test_weights_count_nodes() -> None:
    assert hop_weights(np.array([0, 0, 1])).tolist() == [[0, 1, 2], [1, 0, 2], [2, 2, 0]]


@pytest.mark.parametrize(("devices", "hops"), [(4, 23.25), (8, 27.125)])
def test_uniform_independent_routing_of_mixtral(devices: int, hops: float) -> None:
    device_of = np.tile(np.arange(8) * devices // 8, (32, 1))
    shares, weights = one_hot(device_of, devices), hop_weights(np.zeros(devices, dtype=np.int32))
    loads, transitions = np.ones((32, 8)), np.full((31, 8, 8), 1 / 8)
    assert expected_hops(shares, loads, transitions, weights) == hops
    assert expected_hops(shares, loads, None, weights) == hops


def test_two_nodes_by_hand() -> None:
    # 4 devices in 2 nodes: 1/4 stay, 1/4 go to the neighbour, 1/2 go to the other node: 1.25 hops.
    shares = one_hot(np.tile(np.arange(4), (2, 1)), 4)
    weights = hop_weights(np.array([0, 0, 1, 1]))
    assert expected_hops(shares, np.ones((2, 4)), None, weights) == 1.25


def test_loads_weigh_the_source() -> None:
    shares, weights = one_hot(np.array([[0, 1], [0, 1]]), 2), hop_weights(np.zeros(2, dtype=np.int32))
    transitions = np.array([[[1.0, 0.0], [0.5, 0.5]]])
    # 3 of 4 tokens start at expert 0 and stay, half of the other leave.
    assert expected_hops(shares, np.array([[3.0, 1.0], [3.5, 0.5]]), transitions, weights) == 0.125
    assert expected_hops(shares, np.zeros((2, 2)), transitions, weights) == 0.0


def test_replicas_share_tokens() -> None:
    placement, slot_device = np.array([[0, 1, 0, 0], [0, 1, 0, 1]]), np.array([0, 0, 1, 1])
    shares = device_shares(placement, slot_device, 2)
    assert shares[0].tolist() == [[1 / 3, 2 / 3], [1.0, 0.0]]
    weights = hop_weights(np.zeros(2, dtype=np.int32))
    # The next layer serves every expert half on each device, so half of all tokens move.
    assert transition_hops(shares, np.array([[3.0, 1.0], [2.0, 2.0]]), None, weights) == pytest.approx([0.5])


def test_expected_hops_are_those_of_sampled_paths() -> None:
    rng = np.random.default_rng(0)
    transitions = rng.dirichlet(np.ones(6), size=(4, 6))
    device_of = np.stack([rng.permutation(6) // 2 for _ in range(5)])
    weights = hop_weights(np.array([0, 0, 1]))
    paths = np.empty((50_000, 5), dtype=np.int32)
    paths[:, 0] = rng.integers(6, size=len(paths))
    for layer in range(4):
        reached = transitions[layer].cumsum(axis=1)[paths[:, layer]]
        paths[:, layer + 1] = np.minimum((rng.random(len(paths))[:, None] > reached).sum(axis=1), 5)
    loads = np.stack([np.bincount(column, minlength=6) for column in paths.T]).astype(float)
    expected = expected_hops(one_hot(device_of, 3), loads, transitions, weights)
    assert path_hops(paths, device_of, weights) == pytest.approx(expected, abs=0.03)


def test_path_hops_by_hand() -> None:
    device_of, weights = np.array([[0, 1], [1, 0], [0, 1]]), hop_weights(np.array([0, 1]))
    assert path_hops(np.array([[0, 1, 0], [0, 0, 1]]), device_of, weights) == 1.0


@NEEDS_DATA
def test_released_placements() -> None:
    folder = Path(os.environ["SCHEDRL_DATA"]) / "moe" / "mixtral"
    four, eight = (read_exflow_placement(folder / f"mixtral-8x7b_exflow_placement_{n}gpu.csv", 8) for n in (4, 8))
    assert four.shape == eight.shape == (32, 8)
    for devices, device_of in ((4, four), (8, eight)):
        assert all((np.bincount(row, minlength=devices) == 8 // devices).all() for row in device_of)
    # The solver bisects recursively: eight GPUs refine four.
    assert (eight // 2 == four).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: expected the header"),
        ("Expert,Node\n", "0 experts are no whole number"),
        ("Expert,Node\n0,0\n1,0\n2,1\n", "3 experts are no whole number of layers of 2"),
        ("Expert,Node\n0,0\n0,1\n", ":3: field Expert: 0 is listed twice"),
        ("Expert,Node\n0,0\n1,x\n", ":3: field Node: 'x', expected an integer from 0 to 1"),
        ("Expert,Node\n0,0\n-1,0\n", ":3: field Expert: '-1'"),
        ("Expert,Node\n0,0\n1\n", ":3: 1 fields"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "placement.csv"
    path.write_text(text)
    with pytest.raises(InstanceError, match=message) as caught:
        read_exflow_placement(path, 2)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InstanceError, match="cannot read"):
        read_exflow_placement(tmp_path / "absent.csv", 8)
