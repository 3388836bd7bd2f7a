"""Elastic resize: a placement for a cluster that lost or gained devices, with little migration or planned afresh.

Letters: L layers, E experts, P slots, D devices; old and new where both occur.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from schedrl.arrays import F64, I32, I64
from schedrl.baselines.moe.exact import history_mean, lpt_placement
from schedrl.baselines.moe.packing import device_speed
from schedrl.devices.cluster import Cluster
from schedrl.envs.moe.balancing import allocate_scratch, count_replicas, slot_starts, swap_search
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.relabelling import assign
from schedrl.envs.moe.solution import ExpertPlan
from schedrl.errors import ConfigError

__all__ = ["HOST_BYTES_PER_S", "Resized", "replan", "resize_plan", "resized_instance", "surviving_devices"]

HOST_BYTES_PER_S = 64e9
"""from a host's memory to one device: PCIe 5.0 with 16 lanes, the catalogue's figure for H100"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resized:
    """A plan for the new cluster and what it takes to get there."""

    instance: ExpertPlacementInstance
    """on the new cluster, without an initial placement: lost experts may be on no device"""
    plan: ExpertPlan
    moved_bytes: float
    """weights that devices fetch, from other devices or a host"""
    host_bytes: float
    """those of experts that no surviving device held"""
    seconds: float
    """of migration, layers one after the other"""


def surviving_devices(old: Cluster, new: Cluster) -> I32:
    """Return the old device (D new,) that each new one is, -1 for added ones.

    Nodes keep their order: of each, the first devices survive, and nodes at the end are added.

    Raises:
        ConfigError: the new cluster has fewer nodes, so that it is unknown which are gone.
    """
    if len(new.nodes) < len(old.nodes):
        raise ConfigError(
            f"cluster: {len(new.nodes)} nodes of {len(old.nodes)} remain; name the surviving devices of each"
        )
    survivors: list[int] = []
    first = 0
    for k, node in enumerate(new.nodes):
        count = old.nodes[k].count if k < len(old.nodes) else 0
        kept = min(node.count, count)
        survivors += [*range(first, first + kept), *[-1] * (node.count - kept)]
        first += count
    return np.array(survivors, dtype=np.int32)


def resized_instance(instance: ExpertPlacementInstance, cluster: Cluster, survivors: I32) -> ExpertPlacementInstance:
    """Return the instance on another cluster, without an initial placement.

    Survivors keep their slots and added devices get as many as the largest old one has. Where all are fewer than the
    experts, every device gets the same number more.

    Raises:
        ConfigError: ``survivors`` (D new,) of another length, out of range, or twice the same.
        InstanceError: the experts do not fit into the devices' memory.
    """
    known = [int(d) for d in survivors if d >= 0]
    if len(survivors) != cluster.devices:
        raise ConfigError(f"survivors: {len(survivors)} entries for {cluster.devices} devices")
    if len(set(known)) < len(known) or any(not -1 <= d < instance.devices for d in survivors):
        raise ConfigError(f"survivors: expected different devices from 0 to {instance.devices - 1}, or -1")
    slots = np.array([instance.slots[d] if d >= 0 else instance.slots.max() for d in survivors], dtype=np.int32)
    missing = instance.experts - int(slots.sum())
    if missing > 0:
        slots += -(-missing // len(slots))
    return replace(instance, cluster=cluster, slots=slots, initial=None)


def resize_plan(
    instance: ExpertPlacementInstance,
    placement: I32,
    cluster: Cluster,
    *,
    survivors: I32 | None = None,
    swaps: int = 2,
    host_bytes_per_s: float = HOST_BYTES_PER_S,
) -> Resized:
    """Return a plan for another cluster that keeps what survives.

    Per layer, experts that are on no device any more come first, the hottest to the device that ends earliest: into a
    free slot, else in place of the replica whose loss leaves the slowest device fastest. Free slots then get the
    replicas that level the devices most, and up to ``swaps`` swaps with the slowest device follow.
    Loads are the mean of the history.

    Args:
        instance: on the old cluster.
        placement: (L, P old) expert of every slot.
        cluster: the new one.
        survivors: (D new,) old device that each new one is, -1 for added ones; None as in ``surviving_devices``.
        swaps: most swaps per layer, each moving two experts; negative for no limit.
        host_bytes_per_s: rate at which a device fetches experts that no survivor holds from its host.

    Raises:
        ConfigError: survivors that do not fit the clusters.
        InstanceError: the experts do not fit into the devices' memory.
    """
    stay = surviving_devices(instance.cluster, cluster) if survivors is None else np.asarray(survivors)
    changed = resized_instance(instance, cluster, stay)
    loads, speed = history_mean(instance), device_speed(changed)
    kept = _kept(instance, placement, changed, stay)
    new = kept.copy()
    for layer, row in enumerate(new):
        _restore(row, loads[layer], changed, speed)
        _fill(row, loads[layer], changed, speed)
        _swap(row, loads[layer], changed, speed, swaps)
    return _resized(changed, kept, new, host_bytes_per_s)


def replan(
    instance: ExpertPlacementInstance,
    placement: I32,
    cluster: Cluster,
    *,
    survivors: I32 | None = None,
    relabel: bool = False,
    host_bytes_per_s: float = HOST_BYTES_PER_S,
) -> Resized:
    """Return a plan for another cluster made afresh by LPT with swaps on the mean of the history.

    Args:
        instance: on the old cluster.
        placement: (L, P old) expert of every slot.
        cluster: the new one.
        survivors: as in ``resize_plan``.
        host_bytes_per_s: as in ``resize_plan``.
        relabel: give every device, among those with equal slots and speed, the part of the plan of which it holds
            most: a linear assignment per layer.

    Raises:
        ConfigError: survivors that do not fit the clusters.
        InstanceError: the experts do not fit into the devices' memory.
    """
    stay = surviving_devices(instance.cluster, cluster) if survivors is None else np.asarray(survivors)
    changed = resized_instance(instance, cluster, stay)
    speed = device_speed(changed)
    kept = _kept(instance, placement, changed, stay)
    new = lpt_placement(history_mean(instance), changed.slots, speed)
    if relabel:
        for layer, row in enumerate(new):
            row[:] = _relabelled(kept[layer], row, changed.slots, speed)
    return _resized(changed, kept, new, host_bytes_per_s)


def _kept(instance: ExpertPlacementInstance, placement: I32, changed: ExpertPlacementInstance, survivors: I32) -> I32:
    """Return what the new slots (L, P new) still hold, -1 for nothing; extra slots of a device come last."""
    kept = np.full((instance.layers, changed.total_slots), -1, dtype=np.int32)
    for d, old in enumerate(survivors):
        if old >= 0:
            held = placement[:, instance.slot_device == old]
            first = int(changed.slots[:d].sum())
            kept[:, first : first + held.shape[1]] = held
    return kept


def _held(row: I32, changed: ExpertPlacementInstance) -> I64:
    """Return replicas (E, D) of every expert on every device."""
    held = np.zeros((changed.experts, changed.devices), dtype=np.int64)
    filled = row >= 0
    np.add.at(held, (row[filled], changed.slot_device[filled]), 1)
    return held


def _restore(row: I32, loads: F64, changed: ExpertPlacementInstance, speed: F64) -> None:
    """Give experts without a replica a slot, in place."""
    lost = np.setdiff1d(np.arange(changed.experts), row)
    for expert in lost[np.argsort(-loads[lost], kind="stable")]:
        held = _held(row, changed)
        free = np.flatnonzero(row < 0)
        replicas = np.maximum(held.sum(axis=1), 1)
        if len(free):
            ends = ((loads / replicas) @ held + loads[expert]) * speed
            row[free[ends[changed.slot_device[free]].argmin()]] = expert
            continue
        spare = np.flatnonzero(replicas[row] > 1)
        peaks = []
        for p in spare:
            trial = row.copy()
            trial[p] = expert
            after = _held(trial, changed)
            peaks.append(float(((loads / np.maximum(after.sum(axis=1), 1)) @ after * speed).max()))
        row[spare[int(np.argmin(peaks))]] = expert


def _fill(row: I32, loads: F64, changed: ExpertPlacementInstance, speed: F64) -> None:
    """Give free slots the replicas that level the devices most, in place.

    The device that ends earliest among those with a free slot comes first. Levelness is the sum of the fourth powers
    of the devices' times: the largest alone seldom changes with one replica.
    """
    held, slots = _held(row, changed), changed.slots
    while (row < 0).any():
        replicas = held.sum(axis=1)
        load = (loads / replicas) @ held
        device = int(np.where(held.sum(axis=0) < slots, load * speed, np.inf).argmin())
        freed = (loads / replicas - loads / (replicas + 1))[:, None] * held  # (E, D)
        after = load[None, :] - freed
        after[:, device] += loads / (replicas + 1)
        uneven = ((after * speed) ** 4).sum(axis=1)
        uneven[held[:, device] > 0] = np.inf
        expert = int(uneven.argmin()) if np.isfinite(uneven).any() else int((loads / replicas).argmax())
        held[expert, device] += 1
        row[np.flatnonzero((row < 0) & (changed.slot_device == device))[0]] = expert


def _swap(row: I32, loads: F64, changed: ExpertPlacementInstance, speed: F64, swaps: int) -> None:
    replicas = np.zeros(changed.experts, dtype=np.int32)
    count_replicas(row, replicas)
    scratch = allocate_scratch(changed.experts, changed.total_slots, changed.devices)
    swap_search(np.array(loads), replicas, row, slot_starts(changed.slots), speed, swaps, scratch)


def _relabelled(kept: I32, row: I32, slots: I32, speed: F64) -> I32:
    packs, holds = np.split(row, np.cumsum(slots)[:-1]), np.split(kept, np.cumsum(slots)[:-1])
    n = len(slots)
    # Equal overlaps leave devices as they are.
    cost = np.array(
        [[-len(np.intersect1d(a, b)) - (i == j) / (2 * n) for j, b in enumerate(packs)] for i, a in enumerate(holds)]
    )
    alike = (slots[:, None] == slots[None, :]) & (speed[:, None] == speed[None, :])
    match = np.zeros(n, dtype=np.int32)
    assign(np.where(alike, cost, len(row) + 1.0), match, np.zeros((3, n + 1)), np.zeros((3, n + 1), dtype=np.int32))
    return np.concatenate([packs[k] for k in match])


def _resized(changed: ExpertPlacementInstance, kept: I32, new: I32, host_bytes_per_s: float) -> Resized:
    """Price the migration: as ``migration_times``, with the host as the source of experts that no device holds."""
    cluster, size, node_of = changed.cluster, changed.model.expert_bytes, changed.cluster.node_of
    rates = np.stack(
        [
            cluster.per_device(lambda node: node.intra.bandwidth_bytes_per_s),
            cluster.per_device(lambda node: node.inter.bandwidth_bytes_per_s),
            np.full(changed.devices, host_bytes_per_s),
        ]
    )
    seconds, fetches, from_host = 0.0, 0, 0
    for before, after in zip(kept, new, strict=True):
        holds, wants = _held(before, changed) > 0, _held(after, changed) > 0
        received, sent = np.zeros(rates.shape), np.zeros(rates.shape)
        for device, expert in np.argwhere((wants & ~holds).T):
            holders = np.flatnonzero(holds[expert])
            near = holders[node_of[holders] == node_of[device]]
            network = 2 if not len(holders) else 0 if len(near) else 1
            received[network, device] += size
            if len(holders):
                sources = near if len(near) else holders
                sent[network, sources[sent[network, sources].argmin()]] += size
            fetches += 1
            from_host += network == 2
        busiest = float((np.maximum(received, sent) / rates).max())
        seconds += changed.timing.migration_sync_s + busiest if busiest > 0 else 0.0
    return Resized(
        instance=changed,
        plan=ExpertPlan(experts=new[None]),
        moved_bytes=fetches * size,
        host_bytes=from_host * size,
        seconds=seconds,
    )
