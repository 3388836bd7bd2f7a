"""DeepSeek's expert-parallel load balancer (EPLB), all layers at once.

The published algorithm: groups of experts go to nodes, each node's experts are replicated greedily, and the replicas
go to the node's devices. Both packings fill bins of equal counts, the heaviest item first into the lightest bin.
When groups do not divide among nodes, one stage treats the cluster as one node. Loads add up in single precision as
in the original, so that ties break alike.

Letters: L layers, E experts, P slots, G groups, N nodes, D devices.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from schedrl.arrays import F32, I32
from schedrl.envs.moe.balancing import sort_descending
from schedrl.errors import InstanceError

__all__ = ["balanced_packing", "rebalance_experts"]


def rebalance_experts(weight: npt.ArrayLike, slots: int, groups: int, nodes: int, devices: int) -> tuple[I32, I32, I32]:
    """Return a replicated placement of every layer.

    Args:
        weight: (L, E) loads.
        slots: P per layer, equally many on every device.
        groups: equal groups of consecutive experts; hierarchical when they divide among ``nodes``, else global.
        nodes: equal nodes.
        devices: all devices.

    Returns:
        The expert of each slot (L, P), the slots of each expert (L, E, most replicas) padded with -1 in order of
        replication, and the number of replicas (L, E).

    Raises:
        InstanceError: loads that are no matrix of numbers of at least 0, or counts that do not divide.
    """
    loads = _loads(weight)
    _validate(loads.shape[1], slots, groups, nodes, devices)
    if groups % nodes:
        groups, nodes = 1, 1
    layers, experts = loads.shape
    expert_of_slot = np.empty((layers, slots), dtype=np.int32)
    rank = np.empty((layers, slots), dtype=np.int32)
    replicas = np.empty((layers, experts), dtype=np.int32)
    _rebalance(loads, groups, nodes, devices, expert_of_slot, rank, replicas)
    slots_of_expert = np.full((layers, experts, int(replicas.max(initial=1))), -1, dtype=np.int32)
    _invert(expert_of_slot, rank, slots_of_expert)
    return expert_of_slot, slots_of_expert, replicas


def balanced_packing(weight: npt.ArrayLike, packs: int) -> tuple[I32, I32]:
    """Pack n items per row into ``packs`` bins of n / packs items each, the heaviest first into the lightest bin.

    Args:
        weight: (X, n) loads.
        packs: number of bins, a divisor of n.

    Returns:
        The bin of each item and its place there, both (X, n).

    Raises:
        InstanceError: loads that are no matrix of numbers of at least 0, or a number of bins that does not divide n.
    """
    loads = _loads(weight)
    if packs < 1 or loads.shape[1] % packs:
        raise InstanceError(f"eplb: field packs: {packs} does not divide {loads.shape[1]} items")
    pack, rank = np.empty(loads.shape, dtype=np.int32), np.empty(loads.shape, dtype=np.int32)
    _pack_rows(loads, packs, pack, rank)
    return pack, rank


def _loads(weight: npt.ArrayLike) -> F32:
    try:
        loads = np.ascontiguousarray(weight, dtype=np.float32)
    except (TypeError, ValueError):
        raise InstanceError("eplb: field weight: expected a full array of numbers") from None
    if loads.ndim != 2 or 0 in loads.shape:
        raise InstanceError(f"eplb: field weight: shape {loads.shape}, expected (layers, experts)")
    if not np.isfinite(loads).all() or loads.min() < 0:
        layer, e = np.argwhere(~(np.isfinite(loads) & (loads >= 0)))[0]
        value = loads[layer, e]
        raise InstanceError(f"eplb: field weight: layer {layer} expert {e} has {value}, expected at least 0 and finite")
    return loads


def _validate(experts: int, slots: int, groups: int, nodes: int, devices: int) -> None:
    for name, value in (("groups", groups), ("nodes", nodes), ("devices", devices)):
        if value < 1:
            raise InstanceError(f"eplb: field {name}: {value}, expected at least 1")
    if slots < experts:
        raise InstanceError(f"eplb: field slots: {slots} are fewer than {experts} experts")
    for name, value, parts, of in (
        ("groups", experts, groups, "experts"),
        ("devices", slots, devices, "slots"),
        ("nodes", devices, nodes, "devices"),
    ):
        if value % parts:
            raise InstanceError(f"eplb: field {name}: {parts} do not divide {value} {of}")


@njit(cache=True)
def _pack_rows(loads: F32, packs: int, pack: I32, rank: I32) -> None:
    items = loads.shape[1]
    order, merged = np.empty(items, np.int32), np.empty(items, np.int32)
    filled, total = np.empty(packs, np.int32), np.empty(packs, np.float32)
    for row in range(len(loads)):
        _pack(loads[row], packs, pack[row], rank[row], order, merged, filled, total)


@njit(cache=True, error_model="numpy")
def _pack(loads: F32, packs: int, pack: I32, rank: I32, order: I32, merged: I32, filled: I32, total: F32) -> None:
    """Pack one row; a full bin counts as infinitely heavy."""
    items = len(loads)
    capacity = items // packs
    if capacity == 1:
        for i in range(items):
            pack[i], rank[i] = i, 0
        return
    sort_descending(loads, order, merged)
    for k in range(packs):
        filled[k], total[k] = 0, np.float32(0.0)
    for i in order[:items]:
        lightest = 0
        for k in range(1, packs):
            if total[k] < total[lightest]:
                lightest = k
        pack[i], rank[i] = lightest, filled[lightest]
        filled[lightest] += 1
        total[lightest] = total[lightest] + loads[i] if filled[lightest] < capacity else np.float32(np.inf)


@njit(cache=True, error_model="numpy")
def _rebalance(
    loads: F32, groups: int, nodes: int, devices: int, expert_of_slot: I32, rank: I32, replicas: I32
) -> None:
    """Balance every layer; ``rank`` (L, P) is the number of each replica among those of its expert."""
    layers, experts = loads.shape
    slots = expert_of_slot.shape[1]
    size, node_experts, node_slots = experts // groups, experts // nodes, slots // nodes
    node_devices, device_slots = devices // nodes, slots // devices
    most = max(slots, groups)
    order, merged = np.empty(most, np.int32), np.empty(most, np.int32)
    filled, total = np.empty(max(devices, nodes), np.int32), np.empty(max(devices, nodes), np.float32)
    group_load, group_node, group_rank = (
        np.empty(groups, np.float32),
        np.empty(groups, np.int32),
        np.empty(groups, np.int32),
    )
    members = np.empty(experts, np.int32)  # experts, node by node
    held, copy = np.empty(node_slots, np.int32), np.empty(node_slots, np.int32)
    share, device, place = (
        np.empty(node_slots, np.float32),
        np.empty(node_slots, np.int32),
        np.empty(node_slots, np.int32),
    )
    current = np.empty(node_experts, np.float32)
    for layer in range(layers):
        weight = loads[layer]
        for g in range(groups):
            group_load[g] = np.float32(0.0)
            for k in range(size):
                group_load[g] += weight[g * size + k]
        _pack(group_load, nodes, group_node, group_rank, order, merged, filled, total)
        for g in range(groups):
            start = (group_node[g] * (groups // nodes) + group_rank[g]) * size
            for k in range(size):
                members[start + k] = g * size + k
        for node in range(nodes):
            mine = members[node * node_experts : (node + 1) * node_experts]
            _replicate_node(weight, mine, replicas[layer], current, held, copy)
            for p in range(node_slots):
                share[p] = weight[held[p]] / np.float32(replicas[layer, held[p]])
            _pack(share, node_devices, device, place, order, merged, filled, total)
            for p in range(node_slots):
                slot = node * node_slots + device[p] * device_slots + place[p]
                expert_of_slot[layer, slot], rank[layer, slot] = held[p], copy[p]


@njit(cache=True, error_model="numpy")
def _replicate_node(weight: F32, mine: I32, replicas: I32, current: F32, held: I32, copy: I32) -> None:
    """Give each further slot of a node to its expert with the largest load per replica, the first of equals."""
    experts = len(mine)
    for k in range(experts):
        held[k], copy[k] = mine[k], 0
        replicas[mine[k]] = 1
        current[k] = weight[mine[k]]
    for p in range(experts, len(held)):
        best = 0
        for k in range(1, experts):
            if current[k] > current[best]:
                best = k
        e = mine[best]
        held[p], copy[p] = e, replicas[e]
        replicas[e] += 1
        current[best] = weight[e] / np.float32(replicas[e])


@njit(cache=True)
def _invert(expert_of_slot: I32, rank: I32, slots_of_expert: I32) -> None:
    for layer in range(len(expert_of_slot)):
        for p in range(expert_of_slot.shape[1]):
            slots_of_expert[layer, expert_of_slot[layer, p], rank[layer, p]] = p
