"""Affinity between layers weighed against balance: local search on the modelled time of a forward pass.

Letters: L layers, E experts, P slots, D devices.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from schedrl.arrays import F64, I32, I64
from schedrl.baselines.moe.affinity import AffinityPlacement, LayerChain, chain_of, link_weights, search_layout
from schedrl.baselines.moe.exact import history_mean
from schedrl.baselines.moe.packing import balanced_placement, outcome
from schedrl.envs.moe.hops import device_shares
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.solution import layer_times
from schedrl.families import Instance
from schedrl.schedulers import Result, SchedulerSpec

__all__ = ["SCHEDULERS", "AffinityBalanced", "relabelled_devices", "swap_search_time"]

_GAIN = 1e-12  # relative: smaller decreases are rounding
_MAX_PAIRS = 256  # swaps tried per visit of a layer


def relabelled_devices(
    instance: ExpertPlacementInstance, loads: F64, placement: I32, rng: np.random.Generator, deadline: float
) -> I32:
    """Return a placement (L, P) whose devices are renamed layer by layer for the least traffic at bandwidth prices.

    The balance of equal devices stays as it is. With unequal devices or slots the placement comes back unchanged.

    Args:
        instance: gives transitions and links; its counts are not read.
        loads: (L, E) tokens of a window.
        placement: (L, P) to rename.
        rng: as in ``search_layout``.
        deadline: ``time.perf_counter`` reading at which to stop.
    """
    unlike = any(node.device != instance.cluster.nodes[0].device for node in instance.cluster.nodes)
    if unlike or (instance.slots != instance.slots[0]).any():
        return placement
    chain = chain_of(instance, loads, link_weights(instance))
    shares = device_shares(placement, instance.slot_device, instance.experts)
    traffic = np.einsum("lad,lab,lbf->ldf", shares[:-1], chain.flow, shares[1:], optimize=True)
    packs = LayerChain(flow=traffic, weights=chain.weights, base=np.ones(instance.devices, dtype=np.int32))
    start = np.tile(np.arange(instance.devices, dtype=np.int32), (instance.layers, 1))
    device_of = search_layout(packs, start, rng, deadline=deadline, kicks=500)
    held = placement.reshape(instance.layers, instance.devices, -1)
    renamed = np.empty_like(held)
    np.put_along_axis(renamed, np.broadcast_to(device_of[:, :, None], held.shape), held, axis=1)
    return renamed.reshape(placement.shape)


def swap_search_time(
    instance: ExpertPlacementInstance, loads: F64, placement: I32, rng: np.random.Generator, deadline: float
) -> I32:
    """Return a placement (L, P) improved by swaps of two slots of a layer that lower the modelled time of a forward.

    Args:
        instance: gives the time model, ``layer_times``; its counts are not read.
        loads: (L, E) tokens of a window.
        placement: (L, P) to start from.
        rng: orders the swaps.
        deadline: ``time.perf_counter`` reading at which to stop.
    """
    placement, layers = placement.copy(), instance.layers
    waiting = set(range(layers))
    while waiting:
        layer = int(rng.choice(sorted(waiting)))
        waiting.discard(layer)
        around = _Around.of(instance, loads, layer)
        if around.improve(placement, rng, deadline):
            waiting |= set(range(around.first, around.last))
        if time.perf_counter() >= deadline:
            break
    return placement


@dataclass(frozen=True, slots=True, kw_only=True)
class _Around:
    """A layer with those whose time depends on it."""

    part: ExpertPlacementInstance
    loads: F64
    layer: int
    first: int
    last: int

    @classmethod
    def of(cls, instance: ExpertPlacementInstance, loads: F64, layer: int) -> _Around:
        reach = 1 if instance.timing.residence == "path" else 0
        first, last = max(layer - reach, 0), min(layer + reach + 1, instance.layers)
        between = None if instance.transitions is None else instance.transitions[first : last - 1]
        part = replace(instance, counts=instance.history[:1, first:last], planned=1, transitions=between, initial=None)
        return cls(part=part, loads=loads[first:last], layer=layer, first=first, last=last)

    def seconds(self, placement: I32) -> float:
        return float(layer_times(self.part, self.loads, placement[self.first : self.last])[0].sum())

    def improve(self, placement: I32, rng: np.random.Generator, deadline: float) -> bool:
        """Make every swap of a random list that helps; return whether any did."""
        row, improved, best = placement[self.layer], False, self.seconds(placement)
        for one, other in self._swaps(row, rng):
            if time.perf_counter() >= deadline:
                break
            row[one], row[other] = row[other].copy(), row[one].copy()
            value = self.seconds(placement)
            if value < best * (1.0 - _GAIN):
                best, improved = value, True
            else:
                row[one], row[other] = row[other].copy(), row[one].copy()
        return improved

    def _swaps(self, row: I32, rng: np.random.Generator) -> Iterator[tuple[I64, I64]]:
        """Yield slots to exchange with as many others: pairs, those of the busiest device first, then all of a device.

        A pair that would put two replicas of an expert on a device is left out as the placement then stands.
        """
        device = self.part.slot_device
        share = self.loads[self.layer - self.first] / np.maximum(np.bincount(row, minlength=self.part.experts), 1)
        busiest = np.bincount(device, weights=share[row]).argmax()
        i, j = np.nonzero(np.triu(device[:, None] != device[None, :]))
        order = np.argsort(rng.random(len(i)) + 2.0 * ((device[i] != busiest) & (device[j] != busiest)))
        for p, q in zip(i[order[:_MAX_PAIRS]], j[order[:_MAX_PAIRS]], strict=True):
            alike = row[p] == row[q] or row[p] in row[device == device[q]] or row[q] in row[device == device[p]]
            if not alike:
                yield np.array([p]), np.array([q])
        if self.part.timing.residence == "path":
            slots = [np.flatnonzero(device == d) for d in range(self.part.devices)]
            pairs = [(a, b) for a in range(len(slots)) for b in range(a) if len(slots[a]) == len(slots[b])]
            for k in rng.permutation(len(pairs))[:_MAX_PAIRS]:
                yield slots[pairs[k][0]], slots[pairs[k][1]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AffinityBalanced:
    """Swaps of slots, and of all that two devices hold, on the modelled time of a forward pass, from the best of plans.

    They are that of ``AffinityPlacement`` at bandwidth prices, LPT with swaps, and the latter with its devices renamed
    for the least traffic. Times are those of the mean of the history; an ``initial`` placement is ignored.

    Args:
        share: part of the time limit for each of the two searches of traffic.
    """

    share: float = 0.2

    def schedule(self, instance: Instance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return one placement for all windows."""
        assert isinstance(instance, ExpertPlacementInstance)
        started, loads = time.perf_counter(), history_mean(instance)
        balanced, until = balanced_placement(instance, loads), started + self.share * time_limit_s
        starts = [balanced]
        if instance.timing.residence == "path":
            starts.append(AffinityPlacement(prices="bandwidth").placement(instance, loads, rng, until))
            until = time.perf_counter() + self.share * time_limit_s
            starts.append(relabelled_devices(instance, loads, balanced, rng, until))
        best = min(starts, key=lambda placement: float(layer_times(instance, loads, placement)[0].sum()))
        placement = swap_search_time(instance, loads, best, rng, started + time_limit_s)
        return outcome(instance, placement[None], started=started)


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="moe/affinity-balanced",
        make=AffinityBalanced,
        information="online",
        summary="swaps on the modelled time of a forward pass, from the best of affinity, LPT and both in turn",
        source="own",
        randomised=True,
    ),
)
