from __future__ import annotations

import itertools
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.arrays import I32
from schedrl.devices import Cluster, ClusterNode, Device, Link, uniform_cluster
from schedrl.envs.moe.bounds import bounds, exchange_bound_s, heaviest_replica, load_bound, work_bound_s
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.model import MoEModel, get_model
from schedrl.envs.moe.solution import ExpertPlan, layer_times, plan_objectives
from schedrl.envs.moe.timing import AllToAll, LayerTiming
from schedrl.envs.moe.traffic_bound import crossing_bound, crossing_bounds

TIMING = LayerTiming(
    dispatch=AllToAll(bytes_per_value=1.0, intra_latency_s=1e-6, inter_latency_s=2e-6, inter_efficiency=0.8),
    combine=AllToAll(bytes_per_value=2.0, intra_latency_s=3e-6, inter_latency_s=1e-6),
    expert_overhead_s=1e-6,
)


def node(rng: np.random.Generator, count: int) -> ClusterNode:
    """Return devices and networks of random speeds."""
    device = Device(
        name="d",
        flops_per_s={"bf16": rng.uniform(1, 4) * 1e12},
        memory_bandwidth_bytes_per_s=rng.uniform(0.5, 3) * 1e10,
    )
    intra, inter = (
        Link(latency_s=0.0, bandwidth_bytes_per_s=rng.uniform(low, high)) for low, high in ((1e9, 1e10), (2e8, 4e9))
    )
    return ClusterNode(device=device, count=count, intra=intra, inter=inter)


def random_instance(seed: int, *, small: bool = False) -> ExpertPlacementInstance:
    """Return unlike or equal nodes, slots and time models; loads from nearly none to many tokens."""
    rng = np.random.default_rng(seed)
    nodes = [node(rng, int(rng.integers(1, 3 if small else 4))) for _ in range(int(rng.integers(1, 3 if small else 4)))]
    if rng.random() < 0.4:
        nodes = nodes[:1] * len(nodes)
    cluster = Cluster(nodes=tuple(nodes))
    layers = int(rng.integers(1, 3 if small else 4))
    experts = int(rng.integers(2, 4 if small else 8))
    slots = rng.integers(1, 2 if small else 4, cluster.devices).astype(np.int32)
    while slots.sum() < experts:
        slots[int(rng.integers(cluster.devices))] += 1
    counts = rng.integers(0, int(rng.choice([3, 20, 400])), (2, layers, experts))
    shares = rng.random((layers - 1, experts, experts)) ** 4
    return ExpertPlacementInstance(
        name="random",
        model=MoEModel(
            name="m",
            layers=layers,
            experts=experts,
            top_k=int(rng.integers(1, experts)),
            hidden=64,
            intermediate=32,
            bytes_per_weight=2.0,
        ),
        cluster=cluster,
        slots=slots,
        counts=np.full_like(counts, 100) if rng.random() < 0.2 else counts,
        planned=int(rng.integers(1, 3)),
        iterations=int(rng.integers(1, 3)),
        timing=replace(
            TIMING,
            deduplicate=str(rng.choice(["none", "device", "node"])),  # type: ignore[arg-type]
            residence=str(rng.choice(["home", "path"])),  # type: ignore[arg-type]
        ),
        transitions=shares / shares.sum(axis=2, keepdims=True),
    )


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_plan_is_below_a_bound(seed: int) -> None:
    instance, rng = random_instance(seed), np.random.default_rng(seed)
    spare = instance.total_slots - instance.experts
    largest, second = bounds(instance)
    assert 0 <= second.value <= largest.value
    for _ in range(4):
        rows = [
            rng.permutation([*range(instance.experts), *rng.integers(0, instance.experts, spare)])
            for _ in range(instance.layers)
        ]
        assert largest.value <= plan_objectives(instance, ExpertPlan(experts=np.array(rows)[None]))["total_time"]


def all_rows(instance: ExpertPlacementInstance) -> list[tuple[int, ...]]:
    """Return every complete placement of one layer."""
    products = itertools.product(range(instance.experts), repeat=instance.total_slots)
    return [row for row in products if len(set(row)) == instance.experts]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_placement_of_tiny_instances_is_below_a_bound(seed: int) -> None:
    instance = random_instance(seed, small=True)
    least = min(
        plan_objectives(instance, ExpertPlan(experts=np.array([rows])))["total_time"]
        for rows in itertools.product(all_rows(instance), repeat=instance.layers)
    )
    assert bounds(instance)[0].value <= least


@pytest.mark.parametrize("deduplicate", ["none", "device", "node"])
@pytest.mark.parametrize("tokens", [3, 5000], ids=["weights decide", "tokens decide"])
def test_perfect_balance_attains_the_bound(deduplicate: Any, tokens: int) -> None:
    instance = ExpertPlacementInstance(
        name="even",
        model=replace(get_model("deepseek-v3"), layers=2, experts=64),
        cluster=uniform_cluster("h100-sxm", nodes=4, per_node=4),
        slots=np.full(16, 4),
        counts=np.full((2, 2, 64), tokens),
        planned=1,
        timing=LayerTiming(deduplicate=deduplicate),
    )
    plan = ExpertPlan(experts=np.tile(np.arange(64), (1, 2, 1)))
    value = plan_objectives(instance, plan)["total_time"]
    assert bounds(instance)[0].value == pytest.approx(value, rel=1e-11)
    assert bounds(instance)[0].value <= value


def test_unequal_devices_in_proportion_attain_the_bound() -> None:
    # Speeds 2:1, loads 2:1: both take as long, and no work can move without making one of them longer.
    fast = Device(name="fast", flops_per_s={"bf16": 2e12}, memory_bandwidth_bytes_per_s=1e15)
    slow = replace(fast, name="slow", flops_per_s={"bf16": 1e12})
    link = Link(latency_s=0.0, bandwidth_bytes_per_s=1e9)
    nodes = tuple(ClusterNode(device=device, count=1, intra=link, inter=link) for device in (fast, slow))
    model = MoEModel(name="m", layers=1, experts=2, top_k=1, hidden=64, intermediate=32, bytes_per_weight=2.0)
    instance = ExpertPlacementInstance(
        name="two", model=model, cluster=Cluster(nodes=nodes), slots=np.array([1, 1]),
        counts=np.array([[[200, 100]]]), planned=1,
        timing=TIMING,
    )  # fmt: skip
    seconds = 200 * 6 * 64 * 32 / 2e12
    assert work_bound_s(instance, np.array([[200.0, 100.0]])) == pytest.approx([seconds])
    # Each device's tokens: 100 and 50 cross. 64 bytes each at 0.8 GB/s after 2 us, 128 at 1 GB/s after 1 us; at best
    # 75 enter both.
    spent = layer_times(instance, instance.counts[0], np.array([[0, 1]], dtype=np.int32))[0][0]
    assert spent == pytest.approx(1e-6 + seconds + 2e-6 + 100 * 64 / 8e8 + 1e-6 + 100 * 128 / 1e9)
    least = 2e-6 + 75 * 64 / 8e8 + 1e-6 + 75 * 128 / 1e9
    # The heavier of the two experts alone has 200 tokens, of which half come from elsewhere.
    assert exchange_bound_s(instance, np.array([[150.0, 150.0]])) == pytest.approx([least])
    assert bounds(instance)[0].value == pytest.approx(spent)


def brute_force_heaviest(loads: list[int], slots: int) -> float:
    """Return the least largest load per replica over all numbers of replicas."""
    numbers = itertools.product(range(1, slots - len(loads) + 2), repeat=len(loads))
    return min(max(load / n for load, n in zip(loads, row, strict=True)) for row in numbers if sum(row) == slots)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=4), st.integers(0, 4))
def test_the_heaviest_replica_is_optimal(loads: list[int], spare: int) -> None:
    found = heaviest_replica(np.array([loads], dtype=np.float64), len(loads) + spare)
    assert found == pytest.approx([brute_force_heaviest(loads, len(loads) + spare)])


def test_load_bound_by_hand() -> None:
    loads = np.array([[8.0, 1, 1, 2], [3, 3, 3, 3]])
    # Without spare slots the heaviest expert has a companion of 1 at least; the mean is 6.
    assert load_bound(loads, 4, 2).tolist() == [9, 6]
    assert load_bound(loads, 5, 2).tolist() == [6, 6]
    assert load_bound(loads, 8, 4).tolist() == [3, 3]
    assert load_bound(loads, 5, 5).tolist() == [4, 3]


def test_load_bound_of_the_eplb_readme_example() -> None:
    weight = np.array(
        [
            [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
            [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
        ],
        dtype=np.float64,
    )
    # Sixteen slots on eight devices: the mean of 129.125 and 144.5 is above any replica.
    assert load_bound(weight, 16, 8).tolist() == [129.125, 144.5]


def test_layers_without_tokens_take_the_overhead_alone() -> None:
    instance = replace(random_instance(5), counts=np.zeros_like(random_instance(5).counts), iterations=2, planned=1)
    values = [bound.value for bound in bounds(instance)]
    assert values == pytest.approx([2 * instance.layers * 1e-6] * 2)


def test_bounds_of_a_large_instance_are_quick() -> None:
    counts = np.random.default_rng(0).lognormal(5, 1, (26, 58, 256)).astype(np.int64)
    instance = ExpertPlacementInstance(
        name="large",
        model=get_model("deepseek-v3"),
        cluster=uniform_cluster("h100-sxm", nodes=4, per_node=8),
        slots=np.full(32, 9),
        counts=counts,
        planned=2,
    )
    bounds(replace(instance, counts=counts[:2], planned=1))  # compiles
    start = time.perf_counter()
    bounds(instance)
    # About 0.04 s on an idle core.
    assert time.perf_counter() - start < 1.0


def test_experts_in_pairs_need_not_cross_and_uniform_ones_must() -> None:
    eight = np.full((8, 8), 1 / 64)
    # A device with two of eight experts keeps a quarter of uniform traffic, one with four half of it.
    assert crossing_bound(eight, 2) == pytest.approx(0.75, abs=1e-9)
    assert crossing_bound(eight, 4) == pytest.approx(0.5, abs=1e-9)
    assert crossing_bound(eight, 8) == 0
    assert crossing_bound(np.roll(np.eye(8), 3, axis=1) * 5, 1) == pytest.approx(0, abs=1e-9)
    # Both experts go to the same follower, which one of two devices holds.
    assert crossing_bound(np.array([[3.0, 0.0], [2.0, 0.0]]), 1) == pytest.approx(2, abs=1e-9)
    assert crossing_bound(np.zeros((3, 3)), 1) == 0


def best_crossing(instance: ExpertPlacementInstance, flow: Any) -> float:
    """Return the least crossing tokens over all pairs of placements without replicas."""
    shares: list[I32] = [(np.array(row)[:, None] == np.arange(instance.experts)) for row in all_rows(instance)]
    device = instance.slot_device[:, None] == np.arange(instance.devices)
    held = [share.T.astype(float) @ device for share in shares]
    return min(float(flow.sum() - np.trace(a.T @ flow @ b)) for a in held for b in held)


@pytest.mark.parametrize("seed", range(6))
def test_crossing_bounds_hold_and_the_program_is_the_tighter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = ExpertPlacementInstance(
        name="paths",
        model=MoEModel(name="m", layers=3, experts=4, top_k=1, hidden=8, intermediate=8),
        cluster=uniform_cluster("h100-sxm", nodes=2, per_node=1),
        slots=np.array([2, 2]),
        counts=rng.integers(1, 50, (2, 3, 4)),
        planned=1,
        timing=replace(TIMING, residence="path"),
        transitions=rng.dirichlet(np.full(4, 0.5), (2, 4)),
    )
    assert instance.transitions is not None
    exact, quick = crossing_bounds(instance)[0], crossing_bounds(instance, linear_program=False)[0]
    assert (quick <= exact + 1e-9).all()
    for layer, found in enumerate(exact[0]):
        flow = instance.scored[0, layer][:, None] * instance.transitions[layer]
        assert found <= best_crossing(instance, flow) + 1e-9


def test_traffic_on_paths_needs_transitions() -> None:
    home = replace(random_instance(1), transitions=None, timing=TIMING)
    with pytest.raises(ValueError, match="random: no transitions, expected them to bound the traffic on paths"):
        crossing_bounds(home)


@pytest.mark.parametrize(("experts", "devices"), [(6, 2), (6, 3), (8, 4)])
def test_load_bound_without_spare_slots_is_below_every_placement(experts: int, devices: int) -> None:
    rng = np.random.default_rng(experts * devices)
    tight = 0
    for _ in range(40):
        loads = np.round(rng.lognormal(2, 1.5, experts))
        best = min(
            max(loads[list(order[d::devices])].sum() for d in range(devices))
            for order in itertools.permutations(range(experts))
            if list(order[:devices]) == sorted(order[:devices])
        )
        (bound,) = load_bound(loads[None, :], experts, devices)
        assert bound <= best * (1 + 1e-12)
        tight += bound == pytest.approx(best)
    assert tight >= 10


def test_two_heavy_experts_share_what_must_be_beside_them() -> None:
    # On one device the two weigh 19; on two, they have two more experts beside them, of 1 at least: (10 + 9 + 2) / 2.
    assert load_bound(np.array([[10.0, 9, 1, 1, 1, 1]]), 6, 3).tolist() == [11]
    assert load_bound(np.array([[10.0, 10, 1, 1, 1, 1]]), 6, 3).tolist() == [11]
