from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schedrl.devices import Cluster, ClusterNode, Device, Link
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.layer_time import (
    SCRATCH_ROWS,
    allocate_hardware,
    home_layer_s,
    migration_layer_s,
    slot_tokens,
    write_hardware,
)
from schedrl.envs.moe.model import MoEModel
from schedrl.envs.moe.solution import layer_times, migration_times
from schedrl.envs.moe.timing import AllToAll, LayerTiming


def random_instance(rng: np.random.Generator) -> ExpertPlacementInstance:
    """Return an instance of random nodes, devices, slots, loads and time model."""
    experts = int(rng.integers(3, 9))
    nodes = tuple(
        ClusterNode(
            device=Device(
                name=f"kind {k}",
                flops_per_s={"bf16": rng.uniform(1e12, 1e13), "fp8": rng.uniform(1e13, 2e13)},
                memory_bandwidth_bytes_per_s=rng.uniform(1e11, 1e12),
                mfu=0.7,
                mbu=0.8,
            ),
            count=int(rng.integers(1, 4)),
            intra=Link(latency_s=0.0, bandwidth_bytes_per_s=rng.uniform(1e10, 1e11)),
            inter=Link(latency_s=0.0, bandwidth_bytes_per_s=rng.uniform(1e9, 1e10)),
        )
        for k in range(int(rng.integers(1, 4)))
    )
    cluster = Cluster(nodes=nodes)
    slots = rng.integers(1, 4, size=cluster.devices)
    while slots.sum() < experts:
        slots[rng.integers(len(slots))] += 1
    phases = [
        AllToAll(
            bytes_per_value=rng.uniform(1, 2),
            intra_latency_s=rng.uniform(0, 1e-4),
            inter_latency_s=rng.uniform(0, 1e-4),
            intra_efficiency=rng.uniform(0.5, 1),
            inter_efficiency=rng.uniform(0.5, 1),
        )
        for _ in range(2)
    ]
    return ExpertPlacementInstance(
        name="random",
        model=MoEModel(
            name="random",
            layers=2,
            experts=experts,
            top_k=int(rng.integers(1, 4)),
            hidden=512,
            intermediate=256,
            bytes_per_weight=float(rng.choice([1.0, 2.0])),
        ),
        cluster=cluster,
        slots=slots,
        counts=np.where(rng.random((2, 2, experts)) < 0.2, 0, rng.integers(0, 5000, (2, 2, experts))),
        planned=1,
        iterations=int(rng.integers(1, 5)),
        timing=LayerTiming(
            dispatch=phases[0], combine=phases[1], deduplicate=rng.choice(["none", "device", "node"]).item()
        ),
    )


def random_placement(instance: ExpertPlacementInstance, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Return (L, P) experts, each at least once per layer."""
    extra = instance.total_slots - instance.experts
    rows = [
        rng.permutation(np.concatenate([np.arange(instance.experts), rng.integers(0, instance.experts, extra)]))
        for _ in range(instance.layers)
    ]
    return np.array(rows, dtype=np.int32)


@pytest.mark.parametrize("seed", range(200))
def test_kernels_agree_with_the_definitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    instance = random_instance(rng)
    hardware = allocate_hardware(2, instance.devices + 2)
    write_hardware(hardware, 1, instance)
    old, new = random_placement(instance, rng), random_placement(instance, rng)
    scratch = np.full((SCRATCH_ROWS, instance.devices + 2), np.nan)
    expected, _ = layer_times(instance, instance.counts[1], new)
    replicas, tokens = np.zeros(instance.experts, np.int32), np.zeros(instance.total_slots)
    holds = np.zeros((instance.experts, instance.devices + 2), dtype=np.bool_)
    slots, move_s, moved = instance.total_slots, 0.0, 0.0
    for layer in range(instance.layers):
        loads = instance.counts[1, layer] / instance.iterations
        total = slot_tokens(loads, new[layer], slots, replicas, tokens)
        found = home_layer_s(hardware, 1, tokens, instance.slot_device, slots, total, scratch)
        assert found == pytest.approx(expected[layer], rel=1e-12)
        move_s += migration_layer_s(hardware, 1, old[layer], new[layer], instance.slot_device, slots, holds, scratch)
        moved += scratch[4, 0]
        assert not holds.any()
    seconds, moved_bytes = migration_times(instance, old, new)
    assert move_s == pytest.approx(seconds, rel=1e-12)
    assert moved * instance.model.expert_bytes == pytest.approx(moved_bytes)
