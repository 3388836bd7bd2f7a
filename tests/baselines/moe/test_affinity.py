"""Affinity placements: optimal on tiny chains, below ExFlow's hops on the calibrated Mixtral, valid on anything."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from schedrl.baselines.moe.affinity import (
    AffinityPlacement,
    LayerChain,
    add_replicas,
    base_slots,
    chain_of,
    even_layout,
    exact_layout,
    link_weights,
    search_layout,
)
from schedrl.baselines.moe.affinity_balanced import AffinityBalanced, relabelled_devices, swap_search_time
from schedrl.baselines.moe.exact import history_mean
from schedrl.baselines.moe.packing import balanced_placement
from schedrl.envs.moe.affinity import transition_matrices
from schedrl.envs.moe.generators import arbitrary, placement
from schedrl.envs.moe.hops import device_shares, expected_hops, hop_weights
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.solution import ExpertPlan, check_plan, device_loads, layer_times


def searched(chain: LayerChain, layers: int, kicks: int) -> np.ndarray:
    deadline = time.perf_counter() + 20.0
    start = even_layout(chain.base, layers)
    return search_layout(chain, start, np.random.default_rng(0), deadline=deadline, kicks=kicks)


def history_s(instance: ExpertPlacementInstance, rows: np.ndarray) -> float:
    return float(layer_times(instance, history_mean(instance), rows)[0].sum())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("node_of", [[0, 0], [0, 1], [0, 0, 1]])
def test_optimal_on_tiny_chains(seed: int, node_of: list[int]) -> None:
    rng, devices, layers = np.random.default_rng(seed), len(node_of), 3
    base = np.array([2, 2] if devices == 2 else [1, 2, 1], dtype=np.int32)
    chain = LayerChain(flow=rng.random((layers - 1, 4, 4)) ** 4, weights=hop_weights(np.array(node_of)), base=base)
    rows = sorted(set(itertools.permutations(np.repeat(np.arange(devices), base).tolist())))
    least = min(chain.cost(np.array(layout)) for layout in itertools.product(rows, repeat=layers))
    found = searched(chain, layers, 200)
    assert chain.cost(found) == pytest.approx(least, rel=1e-9)
    assert all((np.bincount(row, minlength=devices) == base).all() for row in found)
    exact = exact_layout(chain, deadline=time.perf_counter() + 20)
    assert exact is not None and chain.cost(exact) == pytest.approx(least, rel=1e-9)
    assert all((np.bincount(row, minlength=devices) == base).all() for row in exact)


def test_no_exact_layout_of_large_layers_or_without_time() -> None:
    base = np.full(8, 1, dtype=np.int32)
    large = LayerChain(flow=np.ones((1, 8, 8)), weights=1.0 - np.eye(8), base=base)
    assert exact_layout(large, deadline=time.perf_counter() + 20) is None
    small = LayerChain(flow=np.ones((1, 4, 4)), weights=1.0 - np.eye(2), base=base[:2] * 2)
    assert exact_layout(small, deadline=time.perf_counter()) is None


def test_one_expert_per_device_is_a_chain_of_assignments() -> None:
    # Between equal devices every transition can be solved alone: the sum of scipy's assignments is optimal.
    optimize = pytest.importorskip("scipy.optimize")
    flow = np.random.default_rng(3).random((6, 5, 5)) ** 3
    chain = LayerChain(flow=flow, weights=1.0 - np.eye(5), base=np.ones(5, dtype=np.int32))
    least = sum(f.sum() - f[optimize.linear_sum_assignment(f, maximize=True)].sum() for f in flow)
    assert chain.cost(searched(chain, 7, 0)) == pytest.approx(least, rel=1e-9)


@pytest.mark.parametrize(("devices", "published"), [(4, 17.495), (8, 22.166)])
def test_hops_of_the_calibrated_mixtral_are_below_those_of_exflow(devices: int, published: float) -> None:
    rng = np.random.default_rng(7)
    shares = np.exp(0.3 * rng.standard_normal((32, 8)))
    shares /= shares.sum(axis=1, keepdims=True)
    transitions = transition_matrices(rng, shares, affinity=0.45, successors=3)
    weights = hop_weights(np.zeros(devices, dtype=np.int32))
    base = np.full(devices, 8 // devices, dtype=np.int32)
    flow = shares[:-1, :, None] * transitions
    chain = LayerChain(flow=flow, weights=weights, base=base)
    device_of = exact_layout(chain, deadline=time.perf_counter() + 20) if devices == 4 else searched(chain, 32, 0)
    assert device_of is not None
    assert all((np.bincount(row, minlength=devices) == 8 // devices).all() for row in device_of)
    assert expected_hops(np.eye(devices)[device_of], shares, transitions, weights) <= published


def test_base_slots_are_in_proportion() -> None:
    assert base_slots(np.array([4, 4, 4]), 10).tolist() == [4, 3, 3]
    assert base_slots(np.array([2, 2]), 4).tolist() == [2, 2]
    assert base_slots(np.array([1, 5]), 4).tolist() == [1, 3]


def test_replicas_by_hand() -> None:
    # Device 0 has experts 0 and 1, device 1 has 2 and 3; each has one spare slot. Expert 0 goes to device 1, then
    # expert 2 (now the hottest that device 0 lacks) to device 0.
    rows = add_replicas(np.array([[0, 0, 1, 1]]), np.array([[9.0, 1.0, 4.0, 1.0]]), np.array([3, 3]))
    assert rows.tolist() == [[0, 1, 2, 0, 2, 3]]


def test_without_transitions_followers_have_their_loads() -> None:
    instance = placement(np.random.default_rng(0), profile="mixtral", layers=3, windows=2, affinity=0.0)
    loads = history_mean(instance)
    chain = chain_of(instance, loads, link_weights(instance))
    part = loads / loads.sum(axis=1, keepdims=True)
    assert np.allclose(chain.flow, part[:-1, :, None] * part[1:, None, :])


def test_link_weights_are_inverse_bandwidths() -> None:
    instance = placement(np.random.default_rng(0), profile="mixtral", layers=2, windows=1)
    node = instance.cluster.nodes[0]
    weights = link_weights(instance)
    assert weights[0, 3] == 1.0 and weights[0, 0] == 0.0
    assert weights[0, 1] == pytest.approx(node.inter.bandwidth_bytes_per_s / node.intra.bandwidth_bytes_per_s)


@pytest.fixture(scope="module")
def mixtral() -> ExpertPlacementInstance:
    rng = np.random.default_rng(1)
    return placement(rng, profile="mixtral", layers=8, windows=2, residence="path", initial=False)


def test_exflow_cuts_hops(mixtral: ExpertPlacementInstance) -> None:
    weights, loads = hop_weights(mixtral.cluster.node_of), history_mean(mixtral)
    result = AffinityPlacement(kicks=50).schedule(mixtral, time_limit_s=20, rng=np.random.default_rng(0))
    assert isinstance(result.solution, ExpertPlan) and not check_plan(mixtral, result.solution)

    def hops(rows: np.ndarray) -> float:
        return expected_hops(device_shares(rows, mixtral.slot_device, 8), loads, mixtral.transitions, weights)

    assert hops(result.solution.experts[0]) < 0.85 * hops(balanced_placement(mixtral, loads))


def test_balanced_is_no_slower_than_either_plan(mixtral: ExpertPlacementInstance) -> None:
    rng, loads = np.random.default_rng(0), history_mean(mixtral)
    result = AffinityBalanced().schedule(mixtral, time_limit_s=4, rng=np.random.default_rng(0))
    assert isinstance(result.solution, ExpertPlan) and not check_plan(mixtral, result.solution)
    affine = AffinityPlacement(prices="bandwidth", kicks=50).placement(mixtral, loads, rng, time.perf_counter() + 9)
    found = history_s(mixtral, result.solution.experts[0])
    assert found <= min(history_s(mixtral, rows) for rows in (affine, balanced_placement(mixtral, loads)))


def test_renamed_devices_keep_the_balance(mixtral: ExpertPlacementInstance) -> None:
    loads, rng = history_mean(mixtral), np.random.default_rng(0)
    before = balanced_placement(mixtral, loads)
    after = relabelled_devices(mixtral, loads, before, rng, time.perf_counter() + 9)
    sorted_loads = [np.sort(device_loads(mixtral, loads, rows), axis=1) for rows in (before, after)]
    assert np.allclose(*sorted_loads)
    assert history_s(mixtral, after) < history_s(mixtral, before)


def test_swaps_end_where_no_swap_helps() -> None:
    rng = np.random.default_rng(5)
    instance = placement(rng, profile="mixtral", layers=2, windows=1, residence="path", initial=False)
    loads, start = history_mean(instance), np.tile(np.arange(8, dtype=np.int32), (2, 1))
    found = swap_search_time(instance, loads, start, rng, time.perf_counter() + 20)
    best = history_s(instance, found)
    assert best < history_s(instance, start)
    for layer, i, j in itertools.product(range(2), range(8), range(8)):
        trial = found.copy()
        trial[layer, [i, j]] = trial[layer, [j, i]]
        assert history_s(instance, trial) >= best * (1 - 1e-9)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("scheduler", [AffinityPlacement(kicks=5), AffinityBalanced()])
def test_valid_on_anything(scheduler: AffinityPlacement | AffinityBalanced, seed: int) -> None:
    instance = arbitrary(np.random.default_rng(seed))
    result = scheduler.schedule(instance, time_limit_s=0.1, rng=np.random.default_rng(0))
    assert isinstance(result.solution, ExpertPlan) and not check_plan(instance, result.solution)


@pytest.mark.parametrize("seed", range(8))
def test_plans_come_from_the_history_alone(seed: int) -> None:
    instance = arbitrary(np.random.default_rng(seed))
    plans = [
        AffinityPlacement(kicks=5).schedule(shown, time_limit_s=20, rng=np.random.default_rng(0)).solution
        for shown in (instance, instance.known(0))
    ]
    assert plans[0] == plans[1]


def test_stops_in_time() -> None:
    instance = placement(np.random.default_rng(0), profile="mixtral", layers=None, windows=1, residence="path")
    for scheduler in (AffinityPlacement(kicks=10**9), AffinityBalanced()):
        result = scheduler.schedule(instance, time_limit_s=0.3, rng=np.random.default_rng(0))
        assert result.runtime_s < 1.5
