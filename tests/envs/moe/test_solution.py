"""Checker and objectives against numbers worked out by hand.

An expert is 3 x 100 x 10 weights of two bytes: 6,000 bytes, 6,000 operations per token. At 6 GFLOP/s a token takes
1 us, at 1.2 GB/s reading an expert takes 5 us. Exchanges send 100 and 200 bytes per token.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.devices import Cluster, ClusterNode, Device, Link
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.model import MoEModel
from schedrl.envs.moe.solution import (
    ExpertPlan,
    check_plan,
    device_loads,
    layer_times,
    migration_times,
    path_traffic,
    plan_objectives,
)
from schedrl.envs.moe.timing import AllToAll, LayerTiming
from schedrl.errors import SolutionError

DEVICE = Device(name="d", flops_per_s={"bf16": 6e9, "fp8": 1.2e10}, memory_bandwidth_bytes_per_s=1.2e9)
TIMING = LayerTiming(
    dispatch=AllToAll(bytes_per_value=1.0, intra_latency_s=1e-6, inter_latency_s=5e-6),
    combine=AllToAll(bytes_per_value=2.0, intra_latency_s=1e-6, inter_latency_s=5e-6, inter_efficiency=0.5),
    expert_overhead_s=3e-6,
)


def cluster(*counts: int) -> Cluster:
    """Return nodes with networks of 10 GB/s inside and 1 GB/s between them."""
    intra, inter = (Link(latency_s=0.0, bandwidth_bytes_per_s=rate) for rate in (1e10, 1e9))
    return Cluster(nodes=tuple(ClusterNode(device=DEVICE, count=n, intra=intra, inter=inter) for n in counts))


def instance(nodes: tuple[int, ...] = (1, 1), *, slots: int = 2, layers: int = 1, **change: Any) -> Any:
    """Return four experts with 9, 6, 6 and 3 tokens per forward pass (12 tokens, two experts each)."""
    chosen = cluster(*nodes)
    model = MoEModel(name="m", layers=layers, experts=4, top_k=2, hidden=100, intermediate=10, bytes_per_weight=2.0)
    counts = np.tile(np.array([18, 12, 12, 6]), (1, layers, 1))
    fields: dict[str, Any] = {"counts": counts, "planned": 1, "timing": TIMING, "iterations": 2} | change
    return ExpertPlacementInstance(
        name="hand", model=model, cluster=chosen, slots=np.full(chosen.devices, slots), **fields
    )


ORDER = np.array([[0, 1, 2, 3]], dtype=np.int32)


@pytest.mark.parametrize(
    ("deduplicate", "microseconds", "crossed"),
    [
        # Device 0 computes 9 + 6 us, device 1 6 us and reads for 5. Half of the 15 tokens for device 0 come from the
        # other node: 750 bytes at 1 GB/s, and 1,500 bytes back at half the rate. 3 + 15 + 5.75 + 8.
        ("none", 31.75, 12 * 300),
        # Shares 3/4 and 1/2 of 12 tokens: 10.5 need device 0, 7.5 device 1. 3 + 15 + 5.525 + 7.1.
        ("device", 30.625, 9 * 300),
        ("node", 30.625, 9 * 300),
    ],
)
def test_two_devices_in_two_nodes(deduplicate: Any, microseconds: float, crossed: float) -> None:
    chosen = instance(timing=replace(TIMING, deduplicate=deduplicate))
    seconds, cross_bytes = layer_times(chosen, chosen.counts[0], ORDER)
    assert seconds * 1e6 == pytest.approx([microseconds])
    assert cross_bytes == pytest.approx(crossed)
    assert device_loads(chosen, chosen.counts[0], ORDER).tolist() == [[15, 9]]


def test_two_devices_in_one_node() -> None:
    # The same 7.5 tokens at 10 GB/s: 0.075 us and 0.15 us after 1 us each. 3 + 15 + 1.075 + 1.15.
    chosen = instance((2,))
    seconds, crossed = layer_times(chosen, chosen.counts[0], ORDER)
    assert seconds * 1e6 == pytest.approx([20.225])
    assert crossed == 0


def test_four_devices_in_two_nodes_with_deduplication_by_node() -> None:
    # Node 0 is needed by 10.5 tokens, half of them from the other node: 2.625 per device. 3 + 9 + 5.2625 + 6.05.
    chosen = instance((2, 2), slots=1, timing=replace(TIMING, deduplicate="node"))
    seconds, crossed = layer_times(chosen, chosen.counts[0], ORDER)
    assert seconds * 1e6 == pytest.approx([3 + 9 + 5.2625 + 6.05])
    assert crossed == pytest.approx((5.25 + 3.75) * 300)


def test_replicas_share_and_idle_experts_take_no_time() -> None:
    # Expert 0 halved: 4.5 tokens still take 5 us of reading. Device 0: 5 + 6 + 5 = 16 us, device 1: 5 + 6 + 5.
    chosen = instance((2,), slots=3)
    placement = np.array([[0, 1, 3, 0, 2, 3]], dtype=np.int32)
    assert device_loads(chosen, chosen.counts[0], placement).tolist() == [[12, 12]]
    seconds, _ = layer_times(chosen, chosen.counts[0], placement)
    assert seconds * 1e6 == pytest.approx([3 + 16 + 1.06 + 1.12])
    # No tokens: nothing but the overhead.
    assert layer_times(chosen, np.zeros((1, 4)), placement)[0].tolist() == [3e-6]


def test_one_byte_weights_compute_at_the_fp8_rate() -> None:
    # 0.5 us per token, 2.5 us to read an expert: 4.5 + 3 us on device 0.
    chosen = instance((2,))
    small = replace(chosen, model=replace(chosen.model, bytes_per_weight=1.0))
    assert layer_times(small, small.counts[0], ORDER)[0] * 1e6 == pytest.approx([3 + 7.5 + 1.075 + 1.15])


def test_tokens_on_their_path() -> None:
    shift = np.roll(np.eye(4), 1, axis=1)[None]  # expert e is followed by e + 1
    path = replace(TIMING, residence="path")
    chosen = instance(layers=2, transitions=shift, timing=path)
    placement = np.tile(ORDER, (2, 1))
    # A token follows the first of its experts: 4.5, 3, 3 and 1.5 tokens leave experts 0 to 3.
    assert path_traffic(chosen, chosen.counts[0], placement, 1).tolist() == [[4.5, 3], [1.5, 3]]
    seconds, crossed = layer_times(chosen, chosen.counts[0], placement)
    assert seconds * 1e6 == pytest.approx([18, 18 + 5 + 0.3])
    assert crossed == pytest.approx(4.5 * 100)
    followed = np.array([[0, 1, 2, 3], [1, 2, 3, 0]], dtype=np.int32)
    seconds, crossed = layer_times(chosen, chosen.counts[0], followed)
    assert seconds * 1e6 == pytest.approx([18, 3 + 14])  # nothing to send, and 6 + 6 against 5 + 9 us
    assert crossed == 0


OLD = np.array([[0, 1, 0, 1, 2, 3, 2, 3]], dtype=np.int32)  # two slots on each of 2 + 2 devices


@pytest.mark.parametrize(
    ("new", "microseconds", "copies"),
    [
        (OLD[0], 0, 0),
        ([1, 0, 0, 1, 3, 2, 2, 3], 0, 0),  # only the order in devices changes
        ([0, 1, 0, 1, 2, 3, 3, 3], 0, 0),  # a second replica on a device is no transfer
        # Devices 0 and 1 fetch expert 2, each from another holder of the other node: 6,000 bytes at 1 GB/s.
        ([0, 2, 1, 2, 2, 3, 2, 3], 106, 2),
        # Device 0 fetches both others: 12,000 bytes.
        ([2, 3, 0, 1, 2, 3, 2, 3], 112, 2),
    ],
)
def test_migration(new: Any, microseconds: float, copies: int) -> None:
    chosen = instance((2, 2))
    seconds, moved = migration_times(chosen, OLD, np.array([new]))
    assert seconds * 1e6 == pytest.approx(microseconds)
    assert moved == 6000 * copies


def test_migration_prefers_the_own_node_and_layers_wait_for_one_another() -> None:
    chosen = instance((2, 2), layers=2)
    old = np.array([[0, 1, 2, 2, 0, 2, 3, 3]] * 2, dtype=np.int32)
    new = old.copy()
    new[:, 2] = 0  # device 1 gets expert 0 from device 0: 6,000 bytes at 10 GB/s, in both layers
    seconds, moved = migration_times(chosen, old, new)
    assert seconds == pytest.approx(2 * 100.6e-6)
    assert moved == 12_000


def test_objectives_add_up() -> None:
    counts = np.array([[[18, 12, 12, 6]]] * 3)
    chosen = instance((2, 2), counts=counts, initial=OLD)
    first, second = np.array([0, 2, 1, 2, 2, 3, 2, 3]), OLD[0]
    values = plan_objectives(chosen, ExpertPlan(experts=np.stack([first, second])[:, None]))
    times = [layer_times(chosen, counts[0], p[None])[0].sum() for p in (first, second)]
    assert chosen.plans == 2
    # To ``first`` and back: devices 0 and 1 need an expert of the other node, then of their own one.
    assert values["migration_s"] == pytest.approx(106e-6 + 100.6e-6)
    assert values["total_time"] == pytest.approx(2 * sum(times) + values["migration_s"])
    assert values["iteration_s"] == pytest.approx(sum(times) / 2)
    assert values["moved_bytes"] == 4 * 6000
    loads = device_loads(chosen, counts[0], first[None])
    assert values["peak_to_average"] == pytest.approx((loads.max() / 6 + 7.5 / 6) / 2)
    assert values["imbalance_tensorrt_llm"] == pytest.approx(values["peak_to_average"] - 1)
    # One placement for both windows, from nowhere: no migration.
    kept = plan_objectives(replace(chosen, initial=None), ExpertPlan(experts=OLD[None]))
    assert kept["migration_s"] == kept["moved_bytes"] == 0
    assert kept["total_time"] == pytest.approx(4 * times[1])


@pytest.mark.parametrize(
    ("experts", "message"),
    [
        (np.zeros((3, 1, 4), dtype=int), "the plan has 3 placements for 1 scored windows, expected 1 or one for each"),
        ([[[0, 1, 2]]], "the plan is for 1 layers of 3 slots, expected 1 of 4"),
        ([[[0, 1, 2, 3], [0, 1, 2, 3]]], "the plan is for 2 layers of 4 slots, expected 1 of 4"),
        ([[[0, 1, 2, 4]]], "placement 0 layer 0: unknown expert 4"),
        ([[[0, 1, 2, -1]]], "placement 0 layer 0: unknown expert -1"),
        ([[[0, 1, 2, 2]]], "placement 0 layer 0: expert 3 has no slot"),
    ],
)
def test_violations_are_found(experts: Any, message: str) -> None:
    assert message in check_plan(instance(), ExpertPlan(experts=np.asarray(experts)))


def test_valid_plans_and_long_lists() -> None:
    assert check_plan(instance(), ExpertPlan(experts=ORDER[None])) == []
    assert check_plan(instance(slots=3), ExpertPlan(experts=np.array([[[0, 0, 1, 2, 3, 3]]]))) == []
    many = instance(layers=30)
    assert len(check_plan(many, ExpertPlan(experts=np.zeros((1, 30, 4), dtype=int)))) == 20


@pytest.mark.parametrize(
    ("experts", "message"),
    [
        ([[0, 1], [2]], "plan: field experts: rows of unequal length, expected a full array"),
        ([[0, 1]], r"plan: field experts: expected integers \(plans, layers, slots\), got \(1, 2\)"),
        ([[[0.5]]], "plan: field experts: expected integers"),
    ],
)
def test_bad_plans_are_refused(experts: Any, message: str) -> None:
    with pytest.raises(SolutionError, match=message):
        ExpertPlan(experts=experts)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=6))
def test_plans_survive_json(kinds: list[int]) -> None:
    plan = ExpertPlan(experts=np.array([[[k, 1, 2], [2, 1, k]] for k in kinds]))
    again = ExpertPlan.from_json(plan.to_json())
    assert again == plan
    assert hash(again) == hash(plan)
    changes = sum(a != b for a, b in itertools.pairwise(kinds))
    assert len(json.loads(plan.to_json())["changes"]) == 1 + changes


def plan_text(**change: Any) -> str:
    """Return a plan's JSON with some fields changed."""
    return json.dumps(json.loads(ExpertPlan(experts=np.zeros((2, 1, 1), dtype=int)).to_json()) | change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "p.json: not valid JSON"),
        ("[]", "p.json: field schema: expected schedrl/expert-plan/1"),
        (plan_text(schema="other"), "p.json: field schema: expected schedrl/expert-plan/1"),
        (plan_text(changes=3), "p.json: field changes: expected a list of tables with from and experts"),
        (plan_text(changes=[{"from": 0}]), "p.json: field changes: expected a list of tables"),
        (plan_text(plans="two"), "p.json: field changes: expected"),
        (plan_text(changes=[]), "p.json: field changes: expected rising numbers from 0 below plans"),
        (plan_text(changes=[{"from": 1, "experts": [[0]]}]), "expected rising numbers from 0 below plans"),
        (plan_text(plans=0), "expected rising numbers from 0 below plans"),
        (plan_text(changes=[{"from": 0, "experts": [0]}]), "p.json: plan: field experts: expected integers"),
    ],
)
def test_bad_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(SolutionError, match=message):
        ExpertPlan.from_json(text, source="p.json")
