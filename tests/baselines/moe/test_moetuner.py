"""MoETuner's two programs: optimal on tiny cases by enumeration, never worse than their seeds, valid on anything."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from schedrl.baselines.moe.affinity import LayerChain
from schedrl.baselines.moe.exact import history_mean
from schedrl.baselines.moe.moetuner import (
    ClusterTraffic,
    MoETuner,
    balance_clusters,
    deviation,
    place_clusters,
    seed_clusters,
)
from schedrl.envs.moe.generators import arbitrary, placement
from schedrl.envs.moe.hops import device_shares, expected_hops, hop_weights
from schedrl.envs.moe.solution import ExpertPlan, check_plan


def soon(seconds: float = 20.0) -> float:
    return time.perf_counter() + seconds


def test_deviation_by_hand() -> None:
    # Clusters of 7 and 3 tokens about a mean of 5.
    assert deviation(np.array([4.0, 2.0, 3.0, 1.0]), np.array([0, 1, 0, 1]), 2) == 4.0


@pytest.mark.parametrize("seed", range(6))
def test_first_program_is_optimal_on_tiny_layers(seed: int) -> None:
    loads = np.random.default_rng(seed).integers(1, 50, size=(2, 6)).astype(float)
    base = np.array([2, 2, 2], dtype=np.int32)
    found = balance_clusters(loads, base, deadline=soon(), seed=0)
    for load, row in zip(loads, found, strict=True):
        assert np.bincount(row, minlength=3).tolist() == [2, 2, 2]
        least = min(deviation(load, np.array(r), 3) for r in set(itertools.permutations([0, 0, 1, 1, 2, 2])))
        # The solver stops at a relative gap of 0.025, as the paper's.
        assert deviation(load, row, 3) <= least / (1 - 0.025) + 1e-3


def test_first_program_is_no_worse_than_its_seed() -> None:
    loads, base = np.random.default_rng(0).lognormal(0, 1, size=(4, 12)), np.array([4, 4, 4], dtype=np.int32)
    found, seeds = balance_clusters(loads, base, deadline=soon(2), seed=0), seed_clusters(loads, base)
    totals = [sum(deviation(*pair, 3) for pair in zip(loads, rows, strict=True)) for rows in (found, seeds)]
    assert totals[0] <= totals[1]
    assert balance_clusters(loads, base, deadline=soon(0), seed=0).tolist() == seeds.tolist()


def random_traffic(seed: int, layers: int, node_of: list[int]) -> ClusterTraffic:
    devices = len(node_of)
    flow = np.random.default_rng(seed).random((layers - 1, devices, devices)) ** 4
    base = np.full(devices, 2, dtype=np.int32)
    return ClusterTraffic(traffic=flow, weights=hop_weights(np.array(node_of)), base=base)


def test_tails_by_hand() -> None:
    traffic = np.array([[[5.0, 1.0, 2.0], [3.0, 6.0, 1.0], [1.0, 2.0, 9.0]]])
    known = ClusterTraffic(traffic=traffic, weights=hop_weights(np.array([0, 0, 1])), base=np.ones(3, dtype=np.int32))
    # Diagonal free; 2 and 2 cross nodes and count twice: max(1, 2 * 2, 3, 2 * 1, 2 * 1, 2 * 2) = 4.
    layout = np.array([[0, 1, 2], [0, 1, 2]])
    assert known.tails(layout).tolist() == [4.0]
    assert known.total(layout) == 1 + 4 + 3 + 2 + 2 + 4


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("node_of", [[0, 0, 0], [0, 0, 1]])
def test_second_program_is_optimal_on_tiny_chains(seed: int, node_of: list[int]) -> None:
    traffic = random_traffic(seed, 4, node_of)
    orders = [np.array(order) for order in itertools.permutations(range(3))]
    least = min(traffic.tails(np.array(layout)).sum() for layout in itertools.product(orders, repeat=4))
    start = np.tile(np.arange(3, dtype=np.int32), (4, 1))
    found = place_clusters(traffic, start, deadline=soon(), seed=0)
    assert traffic.tails(found).sum() <= least / (1 - 0.025) + 1e-5


def test_windows_improve_what_pair_swaps_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schedrl.baselines.moe.moetuner._MAX_CONSTRAINTS", 64)
    traffic = random_traffic(0, 8, [0, 0, 1, 1])
    start = np.tile(np.arange(4, dtype=np.int32), (8, 1))
    found = place_clusters(traffic, start, deadline=soon(5), seed=0)
    assert all(sorted(row) == [0, 1, 2, 3] for row in found.tolist())
    assert traffic.tails(found).sum() < traffic.tails(start).sum()


def test_clusters_keep_to_devices_of_their_size() -> None:
    flow = np.random.default_rng(0).random((3, 3, 3))
    base = np.array([1, 2, 2], dtype=np.int32)
    traffic = ClusterTraffic(traffic=flow, weights=1.0 - np.eye(3), base=base)
    found = place_clusters(traffic, np.tile(np.arange(3, dtype=np.int32), (4, 1)), deadline=soon(5), seed=0)
    assert (found[:, 0] == 0).all()


def test_traffic_of_clusters_sums_that_of_their_experts() -> None:
    flow = np.arange(16.0).reshape(1, 4, 4)
    chain = LayerChain(flow=flow, weights=1.0 - np.eye(2), base=np.array([2, 2], dtype=np.int32))
    traffic = ClusterTraffic.of(chain, np.array([[0, 1, 0, 1], [1, 1, 0, 0]]))
    assert traffic.traffic[0].tolist() == [[2 + 3 + 10 + 11, 0 + 1 + 8 + 9], [6 + 7 + 14 + 15, 4 + 5 + 12 + 13]]


@pytest.mark.parametrize("second", ["tail", "sum"])
def test_stages_cut_traffic_at_the_balance_of_the_first(second: str) -> None:
    instance = placement(np.random.default_rng(2), profile="mixtral", layers=8, windows=2, residence="path")
    scheduler = MoETuner(second="tail" if second == "tail" else "sum")
    result = scheduler.schedule(instance, time_limit_s=4, rng=np.random.default_rng(0))
    assert isinstance(result.solution, ExpertPlan) and not check_plan(instance, result.solution)
    loads, weights = history_mean(instance), hop_weights(instance.cluster.node_of)
    cluster_of = seed_clusters(loads, np.full(4, 2, dtype=np.int32))
    rows = result.solution.experts[0]
    hops = expected_hops(device_shares(rows, instance.slot_device, 8), loads, instance.transitions, weights)
    seeds = expected_hops(np.eye(4)[cluster_of], loads, instance.transitions, weights)
    assert hops < seeds
    off = [deviation(load, np.argsort(row) // 2, 4) for load, row in zip(loads, rows, strict=True)]
    assert sum(off) <= sum(deviation(*pair, 4) for pair in zip(loads, cluster_of, strict=True)) + 1e-6


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("second", ["tail", "sum"])
def test_valid_on_anything(second: str, seed: int) -> None:
    instance = arbitrary(np.random.default_rng(seed))
    scheduler = MoETuner(second="tail" if second == "tail" else "sum")
    result = scheduler.schedule(instance, time_limit_s=0.2, rng=np.random.default_rng(0))
    assert isinstance(result.solution, ExpertPlan) and not check_plan(instance, result.solution)


@pytest.mark.parametrize("seed", range(6))
def test_plans_come_from_the_history_alone(seed: int) -> None:
    instance = arbitrary(np.random.default_rng(seed), experts=4, devices=2)
    plans = [
        MoETuner().schedule(shown, time_limit_s=30, rng=np.random.default_rng(0)).solution
        for shown in (instance, instance.known(0))
    ]
    assert plans[0] == plans[1]
