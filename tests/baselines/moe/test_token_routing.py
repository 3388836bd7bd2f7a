"""Token routing: known optima, the covering bound by brute force, and what it adds to a plan."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from schedrl.baselines.moe.exact import history_mean
from schedrl.baselines.moe.packing import balanced_placement
from schedrl.baselines.moe.token_routing import rerouted_balance, route_tokens
from schedrl.envs.moe.generators import arbitrary, placement
from schedrl.envs.moe.solution import ExpertPlan


def covering_bound(loads: np.ndarray, rows: np.ndarray, slot_device: np.ndarray, devices: int) -> float:
    """Return the largest mean over a set of devices of the loads that only they can serve: the optimum, by Hall."""
    best = 0.0
    for size in range(1, devices + 1):
        for group in itertools.combinations(range(devices), size):
            outside = set(rows[~np.isin(slot_device, group)].tolist())
            best = max(best, sum(load for e, load in enumerate(loads) if e not in outside) / size)
    return best


def test_two_devices_by_hand() -> None:
    # Expert 0 (10) on both, expert 1 (6) on device 0, expert 2 (2) on device 1: 9 each.
    shares, peak = route_tokens(np.array([10.0, 6.0, 2.0]), np.array([0, 1, 0, 2]), np.array([0, 0, 1, 1]), 2)
    assert peak == pytest.approx(9.0)
    assert shares == pytest.approx([0.3, 1.0, 0.7, 1.0])


def test_a_chain_of_replicas_passes_load_on() -> None:
    # Device 0 sheds all of expert 0, device 1 passes expert 1 on: 12 tokens on 3 devices.
    loads = np.array([9.0, 3.0])
    shares, peak = route_tokens(loads, np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2]), 3)
    assert peak == pytest.approx(4.5)
    assert shares[0] == pytest.approx(0.5)


def test_without_replicas_or_tokens_nothing_moves() -> None:
    shares, peak = route_tokens(np.array([3.0, 1.0]), np.array([0, 1]), np.array([0, 1]), 2)
    assert shares.tolist() == [1.0, 1.0] and peak == 3.0
    shares, peak = route_tokens(np.zeros(2), np.array([0, 1, 0]), np.array([0, 1, 1]), 2)
    assert shares.tolist() == [0.5, 1.0, 0.5] and peak == 0.0


@pytest.mark.parametrize("seed", range(60))
def test_optimal_by_the_covering_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    experts, devices, each = int(rng.integers(2, 8)), int(rng.integers(2, 6)), int(rng.integers(1, 4))
    each = max(each, -(-experts // devices))
    rows = np.concatenate([np.arange(experts), rng.integers(experts, size=devices * each - experts)])
    rows, slot_device = rng.permutation(rows), np.repeat(np.arange(devices), each)
    loads = rng.lognormal(0, 1.5, size=experts) * (rng.random(experts) < 0.9)
    shares, peak = route_tokens(loads, rows, slot_device, devices)
    assert peak == pytest.approx(covering_bound(loads, rows, slot_device, devices), rel=1e-6, abs=1e-9)
    assert (shares >= 0).all() and np.bincount(rows, weights=shares) == pytest.approx(np.ones(experts))


def test_unequal_shares_add_balance_out_of_sample() -> None:
    instance = placement(np.random.default_rng(1), profile="qwen15-moe", windows=3, initial=False)
    plan = ExpertPlan(experts=balanced_placement(instance, history_mean(instance))[None])
    found = rerouted_balance(instance, plan)
    assert found.routed_vllm > found.even_vllm + 0.02
    assert 1.0 <= found.routed_peak_to_average < found.even_peak_to_average


@pytest.mark.parametrize("seed", range(10))
def test_never_worse_than_even_shares(seed: int) -> None:
    instance = arbitrary(np.random.default_rng(seed))
    found = rerouted_balance(instance, ExpertPlan(experts=balanced_placement(instance, history_mean(instance))[None]))
    assert found.routed_vllm >= found.even_vllm - 1e-9
