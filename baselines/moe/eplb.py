"""DeepSeek's EPLB as a scheduler: one placement from the sum of the known windows.

EPLB is defined for devices with equally many slots in nodes of equally many devices. On other clusters the closest
rule is played: without equal nodes the global policy, and without equal slots each bin takes as many as it has.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from schedrl.arrays import F32, F64, I32
from schedrl.baselines.moe.packing import PlanOnce
from schedrl.envs.moe.balancing import slot_starts
from schedrl.envs.moe.eplb import rebalance_experts
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.schedulers import SchedulerSpec

__all__ = ["SCHEDULERS", "eplb_placement"]


def eplb_placement(instance: ExpertPlacementInstance, loads: F64, *, hierarchical: bool) -> I32:
    """Return EPLB's placement (L, P) for loads (L, E).

    Args:
        instance: slots, nodes and groups.
        loads: tokens of each expert.
        hierarchical: groups stay in one node, where the model's groups divide among the nodes; otherwise global.
    """
    if (instance.slots != instance.slots[0]).any():
        return _unequal(np.ascontiguousarray(loads, dtype=np.float32), slot_starts(instance.slots))
    counts = {node.count for node in instance.cluster.nodes}
    nodes = len(instance.cluster.nodes) if hierarchical and len(counts) == 1 else 1
    groups = instance.model.groups if nodes > 1 else 1
    placement, _, _ = rebalance_experts(loads, instance.total_slots, groups, nodes, instance.devices)
    return placement


@njit(cache=True)
def _unequal(loads: F32, first_slot: I32) -> I32:
    """Return the global policy's placement with bins of different sizes."""
    layers, experts = loads.shape
    slots, devices = first_slot[-1], len(first_slot) - 1
    placement = np.empty((layers, slots), np.int32)
    held = np.empty(slots, np.int32)
    for layer in range(layers):
        replicas, share = np.ones(experts, np.int32), loads[layer].copy()
        for p in range(slots):
            held[p] = p if p < experts else np.argmax(share)
            if p >= experts:
                replicas[held[p]] += 1
                share[held[p]] = loads[layer, held[p]] / np.float32(replicas[held[p]])
        weight = share[held]
        total, fill = np.zeros(devices, np.float32), first_slot[:-1].copy()
        for p in np.argsort(-weight, kind="mergesort"):
            best = np.argmin(total)
            placement[layer, fill[best]] = held[p]
            fill[best] += 1
            total[best] = total[best] + weight[p] if fill[best] < first_slot[best + 1] else np.float32(np.inf)
    return placement


def _spec(kind: str, summary: str) -> SchedulerSpec:
    def place(instance: ExpertPlacementInstance, rng: np.random.Generator) -> I32:
        loads = instance.history.sum(axis=0).astype(np.float64)
        return eplb_placement(instance, loads, hierarchical=kind == "hierarchical")

    return SchedulerSpec(
        name=f"moe/eplb-{kind}",
        make=lambda: PlanOnce(place),
        information="online",
        summary=summary,
        source="DeepSeek EPLB, github.com/deepseek-ai/EPLB",
    )


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    _spec("hierarchical", "expert groups to nodes, greedy replicas inside each, replicas to its devices"),
    _spec("global", "greedy replicas over all experts, heaviest first to the lightest device"),
)
