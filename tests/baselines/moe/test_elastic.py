"""Elastic resize: hand-worked cases, what survives stays, and the price of a fresh plan."""

from __future__ import annotations

import numpy as np
import pytest

from schedrl.baselines.moe.elastic import HOST_BYTES_PER_S, replan, resize_plan, resized_instance, surviving_devices
from schedrl.baselines.moe.exact import history_mean
from schedrl.baselines.moe.packing import balanced_placement
from schedrl.devices.cluster import uniform_cluster
from schedrl.envs.moe.generators import placement
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.model import MoEModel
from schedrl.envs.moe.solution import check_plan, plan_objectives
from schedrl.errors import ConfigError, InstanceError

EXPERT = 3.0 * 64 * 64


def small(counts: list[int], slots: list[int], per_node: int = 0) -> ExpertPlacementInstance:
    nodes = len(slots) // per_node if per_node else 1
    model = MoEModel(name="small", layers=1, experts=len(counts), top_k=1, hidden=64, intermediate=64)
    return ExpertPlacementInstance(
        name="small",
        model=model,
        cluster=uniform_cluster("h100-sxm", nodes=nodes, per_node=len(slots) // nodes),
        slots=np.array(slots),
        counts=np.array(counts)[None, None],
        planned=1,
    )


def test_survivors_are_the_first_of_each_node() -> None:
    old = uniform_cluster("h100-sxm", nodes=2, per_node=3)
    assert surviving_devices(old, old.resized((2, 4))).tolist() == [0, 1, 3, 4, 5, -1]
    more = uniform_cluster("h100-sxm", nodes=3, per_node=3)
    assert surviving_devices(old, more).tolist() == [0, 1, 2, 3, 4, 5, -1, -1, -1]
    with pytest.raises(ConfigError, match="1 nodes of 2 remain"):
        surviving_devices(old, old.resized((0, 3)))


def test_a_lost_replica_costs_nothing() -> None:
    # The lost device held replicas of experts that all survive.
    instance = small([10, 9, 8, 7], [2, 2, 2])
    found = resize_plan(instance, np.array([[0, 1, 2, 3, 0, 2]]), instance.cluster.resized((2,)), swaps=0)
    assert found.plan.experts.tolist() == [[[0, 1, 2, 3]]]
    assert (found.moved_bytes, found.host_bytes, found.seconds) == (0, 0, 0)


def test_a_lost_expert_takes_the_slot_of_a_replica() -> None:
    # Expert 3 is lost; of the replicas of 0 (20 tokens), that on device 0 (with 1) or on 1 (with 2) must go.
    # Devices then have 3 + 1 and 20 + 2, or 20 + 1 and 3 + 2 tokens: the second is better.
    instance = small([20, 1, 2, 3], [2, 2, 1])
    found = resize_plan(instance, np.array([[0, 1, 0, 2, 3]]), instance.cluster.resized((2,)), swaps=0)
    assert found.plan.experts.tolist() == [[[0, 1, 3, 2]]]
    assert found.moved_bytes == found.host_bytes == EXPERT
    assert found.seconds == pytest.approx(1e-4 + EXPERT / HOST_BYTES_PER_S)


def test_an_added_device_gets_replicas_from_its_node() -> None:
    instance = small([12, 2, 2, 2], [2, 2])
    found = resize_plan(instance, np.array([[0, 1, 2, 3]]), instance.cluster.resized((3,)), swaps=0)
    # A replica of 0 first (6 + 2, 4, 6); then one of 1, from the slowest device.
    assert found.plan.experts.tolist() == [[[0, 1, 2, 3, 0, 1]]]
    assert (found.moved_bytes, found.host_bytes) == (2 * EXPERT, 0)
    # Both come from device 0.
    assert found.seconds == pytest.approx(1e-4 + 2 * EXPERT / 450e9)


def test_slots_grow_where_experts_would_not_fit() -> None:
    instance = small([1, 1, 1, 1, 1, 1], [2, 2, 2])
    found = resize_plan(instance, np.array([[0, 1, 2, 3, 4, 5]]), instance.cluster.resized((2,)))
    assert found.instance.slots.tolist() == [3, 3]
    assert found.plan.experts[0, 0, [0, 1, 3, 4]].tolist() == [0, 1, 2, 3]
    assert found.moved_bytes == 2 * EXPERT


def test_experts_that_do_not_fit_are_refused() -> None:
    instance = placement(np.random.default_rng(0), profile="mixtral", layers=None, windows=1)
    with pytest.raises(InstanceError, match="device 0 needs"):
        resize_plan(instance, np.tile(np.arange(8), (32, 1)), instance.cluster.resized((1, 0)), survivors=np.array([0]))


@pytest.mark.parametrize("survivors", [[0], [0, 0], [0, 9], [-2, 0]])
def test_bad_survivors(survivors: list[int]) -> None:
    instance = small([1, 1, 1], [1, 1, 1])
    with pytest.raises(ConfigError, match="survivors"):
        resized_instance(instance, instance.cluster.resized((2,)), np.array(survivors))


def test_named_survivors_keep_their_experts() -> None:
    instance = small([4, 3, 2, 1], [2, 2, 2], per_node=1)
    cluster = uniform_cluster("h100-sxm", nodes=2, per_node=1)
    found = resize_plan(instance, np.array([[0, 1, 2, 3, 0, 2]]), cluster, survivors=np.array([1, 2]), swaps=0)
    # Device 1 keeps 2 and 3, device 2 has 0 and 2: expert 1 replaces a replica of 2, the better one beside 3.
    assert found.plan.experts.tolist() == [[[1, 3, 0, 2]]]


@pytest.mark.parametrize(("per_node", "profile"), [((8, 8, 8, 7), "deepseek-r1-mt"), ((7,), "qwen15-moe")])
def test_little_moves_against_a_fresh_plan(per_node: tuple[int, ...], profile: str) -> None:
    instance = placement(np.random.default_rng(1), profile=profile, layers=2, windows=2)
    before = balanced_placement(instance, history_mean(instance))
    cluster = instance.cluster.resized(per_node)
    little, fresh = resize_plan(instance, before, cluster), replan(instance, before, cluster)
    kept = replan(instance, before, cluster, relabel=True)
    for found in (little, fresh, kept):
        assert not check_plan(found.instance, found.plan)
    assert little.moved_bytes < 0.35 * fresh.moved_bytes
    assert little.seconds < fresh.seconds
    assert kept.moved_bytes < fresh.moved_bytes
    balance = [plan_objectives(f.instance, f.plan)["balance_vllm"] for f in (fresh, kept)]
    assert balance[0] == pytest.approx(balance[1])


def test_nothing_moves_when_nothing_changes() -> None:
    instance = placement(np.random.default_rng(1), profile="qwen15-moe", layers=2, windows=2)
    before = balanced_placement(instance, history_mean(instance))
    found = resize_plan(instance, before, instance.cluster)
    assert (found.plan.experts[0] == before).all() and found.moved_bytes == 0
    assert replan(instance, before, instance.cluster).seconds == 0
