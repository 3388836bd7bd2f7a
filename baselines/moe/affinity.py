"""Placement by affinity between layers: experts that follow one another on one device, so that tokens stay.

ExFlow (arXiv 2401.08383) poses an integer program over a trace and bisects it. With the other layers fixed, the best
layout of one layer is a linear assignment of experts to slots; that, layer by layer, is exact coordinate descent.
Letters: L layers, E experts, P slots, D devices.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import factorial, prod
from typing import Literal

import numpy as np

from schedrl.arrays import F64, I32, I64
from schedrl.baselines.moe.exact import history_mean
from schedrl.baselines.moe.packing import outcome
from schedrl.envs.moe.hops import hop_weights
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.relabelling import assign
from schedrl.families import Instance
from schedrl.schedulers import Result, SchedulerSpec

__all__ = [
    "SCHEDULERS",
    "AffinityPlacement",
    "LayerChain",
    "add_replicas",
    "base_slots",
    "chain_of",
    "even_layout",
    "exact_layout",
    "link_weights",
    "search_layout",
]

_MAX_LAYOUTS = 2520  # of a layer: 8 experts on 4 devices
_GAIN = 1e-12  # relative: smaller decreases are rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChain:
    """What goes from each expert to each of the next layer, what a way costs, and how many experts a device takes."""

    flow: F64  # (L - 1, E, E) share of all tokens
    weights: F64  # (D, D) price of a way, 0 from a device to itself
    base: I32  # (D,) experts per device and layer, E in all

    def cost(self, device_of: I32) -> float:
        """Return the price of the traffic of a layout (L, E), per token and forward pass."""
        paid = self.weights[device_of[:-1, :, None], device_of[1:, None, :]]
        return float((self.flow * paid).sum())

    def slot_costs(self, device_of: I32, layer: int) -> F64:
        """Return the price (E, D) of an expert on each device, with the neighbouring layers as they are."""
        cost = np.zeros((device_of.shape[1], len(self.base)))
        if layer > 0:
            cost += self.flow[layer - 1].T @ self.weights[device_of[layer - 1]]
        if layer < len(device_of) - 1:
            cost += self.flow[layer] @ self.weights.T[device_of[layer + 1]]
        return cost


def link_weights(instance: ExpertPlacementInstance) -> F64:
    """Return relative seconds per byte (D, D) between devices, the slowest way 1; 0 on the device itself."""
    node_of, cluster = instance.cluster.node_of, instance.cluster
    intra = cluster.per_device(lambda node: node.intra.bandwidth_bytes_per_s)
    inter = cluster.per_device(lambda node: node.inter.bandwidth_bytes_per_s)
    rate = np.where(
        node_of[:, None] == node_of[None, :],
        np.minimum(intra[:, None], intra[None, :]),
        np.minimum(inter[:, None], inter[None, :]),
    )
    np.fill_diagonal(rate, np.inf)
    seconds = 1.0 / rate
    weights: F64 = seconds / seconds.max() if seconds.max() > 0 else seconds
    return weights


def base_slots(slots: I32, experts: int) -> I32:
    """Return how many experts (D,) each device takes once: in proportion to its slots, largest remainders first."""
    exact = experts * slots / slots.sum()
    base: I32 = np.floor(exact + 1e-9).astype(np.int32)
    order = np.argsort(base - exact, kind="stable")
    base[order[: experts - int(base.sum())]] += 1
    return base


def chain_of(instance: ExpertPlacementInstance, loads: F64, weights: F64) -> LayerChain:
    """Return the chain of an instance for loads (L, E).

    Without transitions the next expert is taken as independent of the last: shares are its layer's loads.
    """
    totals = loads.sum(axis=1, keepdims=True)
    part = np.divide(loads, totals, out=np.full(loads.shape, 1 / loads.shape[1]), where=totals > 0)
    following = part[1:, None, :] if instance.transitions is None else instance.transitions
    flow = part[:-1, :, None] * following
    return LayerChain(flow=flow, weights=weights, base=base_slots(instance.slots, instance.experts))


def even_layout(base: I32, layers: int) -> I32:
    """Return the device (L, E) of every expert, in order of their numbers."""
    return np.tile(np.repeat(np.arange(len(base), dtype=np.int32), base), (layers, 1))


class _Descent:
    """Linear assignments of single layers, and of the devices of all layers behind a cut."""

    def __init__(self, chain: LayerChain) -> None:
        self.chain, size = chain, max(int(chain.base.sum()), len(chain.base))
        self._slot_device = np.repeat(np.arange(len(chain.base), dtype=np.int32), chain.base)
        self._match = np.zeros(size, dtype=np.int32)
        self._potential, self._path = np.zeros((3, size + 1)), np.zeros((3, size + 1), dtype=np.int32)
        away = chain.weights[~np.eye(len(chain.base), dtype=bool)]
        # Only between equal devices at equal prices does a relabelled suffix keep its own traffic.
        self.relabels = len(away) > 0 and bool((away == away[0]).all() and (chain.base == chain.base[0]).all())

    def _assigned(self, cost: F64) -> I32:
        n = len(cost)
        assign(np.ascontiguousarray(cost), self._match[:n], self._potential[:, : n + 1], self._path[:, : n + 1])
        return self._match[:n]

    def settle(self, device_of: I32, layer: int) -> bool:
        """Lay out one layer best; return whether that is cheaper."""
        costs = self.chain.slot_costs(device_of, layer)
        rows = np.arange(len(costs))
        new = self._slot_device[self._assigned(costs[:, self._slot_device])]
        before, after = costs[rows, device_of[layer]].sum(), costs[rows, new].sum()
        if after >= before - _GAIN * max(before, 1.0):
            return False
        device_of[layer] = new
        return True

    def relabel(self, device_of: I32, layer: int) -> bool:
        """Exchange devices in all layers from ``layer`` on so that most tokens stay; return whether that is cheaper."""
        devices = len(self.chain.base)
        stay = np.zeros((devices, devices))
        np.add.at(stay, (device_of[layer - 1][:, None], device_of[layer][None, :]), self.chain.flow[layer - 1])
        column = self._assigned(-stay)
        if stay[np.arange(devices), column].sum() <= np.trace(stay) + _GAIN:
            return False
        names = np.empty(devices, dtype=np.int32)
        names[column] = np.arange(devices)
        device_of[layer:] = names[device_of[layer:]]
        return True

    def run(self, device_of: I32, layers: set[int], deadline: float) -> None:
        """Settle these layers, and neighbours of those that change, until nothing does."""
        waiting = set(layers)
        while waiting and time.perf_counter() < deadline:
            layer = min(waiting)
            waiting.discard(layer)
            changed = self.settle(device_of, layer)
            if self.relabels and layer > 0 and self.relabel(device_of, layer):
                waiting.add(layer)
                changed = True
            if changed:
                waiting |= {near for near in (layer - 1, layer + 1) if 0 <= near < len(device_of)}


def search_layout(chain: LayerChain, start: I32, rng: np.random.Generator, *, deadline: float, kicks: int) -> I32:
    """Return the cheapest layout (L, E) found: descents from ``start``, and again after shuffling a few layers.

    Args:
        chain: traffic and prices.
        start: (L, E) device of every expert.
        rng: draws the layers to shuffle.
        deadline: ``time.perf_counter`` reading at which to stop.
        kicks: most shuffles.
    """
    descent, best = _Descent(chain), np.array(start, dtype=np.int32)
    layers = len(best)
    # Layer by layer, looking back alone, already follows the strongest successors.
    for layer in range(1, layers):
        if time.perf_counter() >= deadline:
            return best
        behind = LayerChain(flow=chain.flow[layer - 1 : layer], weights=chain.weights, base=chain.base)
        pair = best[layer - 1 : layer + 1]
        _Descent(behind).settle(pair, 1)
    descent.run(best, set(range(layers)), deadline)
    if chain.cost(start) < chain.cost(best):
        best = np.array(start, dtype=np.int32)
    cost = chain.cost(best)
    for _ in range(kicks if layers > 1 else 0):
        if time.perf_counter() >= deadline:
            break
        trial, first = best.copy(), int(rng.integers(layers))
        touched = range(first, min(first + int(rng.integers(1, 5)), layers))
        for layer in touched:
            _shuffle(trial[layer], chain.base, rng)
        near = range(max(touched[0] - 1, 0), min(touched[-1] + 2, layers))
        descent.run(trial, set(near), deadline)
        value = chain.cost(trial)
        if value <= cost:
            best, cost = trial, value
    return best


def exact_layout(chain: LayerChain, *, deadline: float) -> I32 | None:
    """Return the cheapest layout (L, E) of all, by dynamic programming over the layouts of single layers.

    Between equal devices at equal prices, layouts that differ in the names of devices share their state. None where a
    layer has more than ``_MAX_LAYOUTS`` layouts, or once the deadline, a ``time.perf_counter`` reading, looks too near.
    """
    if not 0 < _layout_count(chain.base) <= _MAX_LAYOUTS or time.perf_counter() >= deadline:
        return None
    layouts = np.array(_multiset_orders(chain.base.tolist()), dtype=np.int32)  # (N, E)
    devices = np.arange(len(chain.base))
    hot = (layouts[:, :, None] == devices).reshape(len(layouts), -1).astype(np.float64)  # (N, E * D)
    key = _first_names(layouts) if _Descent(chain).relabels else layouts
    _, first, state_of = np.unique(key, axis=0, return_index=True, return_inverse=True)
    values = [np.zeros(len(first))]  # by layer, the least price of the layers before, for each state
    began = time.perf_counter()
    for done, flow in enumerate(chain.flow):
        now = time.perf_counter()
        # The search after it needs the time that this cannot end in.
        if now + (now - began) / max(done, 1) * (len(chain.flow) - done) >= deadline:
            return None
        ways = hot @ _prices(chain, flow, layouts[first]).T  # (N, states)
        values.append((ways + values[-1][state_of.ravel()][:, None]).min(axis=0))
    found = [layouts[first[int(values[-1].argmin())]]]
    for layer in range(len(chain.flow) - 1, -1, -1):
        ways = hot @ _prices(chain, chain.flow[layer], found[-1][None])[0]
        found.append(layouts[int((ways + values[layer][state_of.ravel()]).argmin())])
    return np.array(found[::-1], dtype=np.int32)


def _prices(chain: LayerChain, flow: F64, following: I32) -> F64:
    """Return the price (n, E * D) of each expert on each device, for n layouts (n, E) of the next layer."""
    prices: F64 = flow @ chain.weights.T[following]
    return prices.reshape(len(following), -1)


def _layout_count(base: I32) -> int:
    return factorial(int(base.sum())) // prod(factorial(int(count)) for count in base)


def _multiset_orders(counts: list[int]) -> list[list[int]]:
    """Return every sequence that has each device as often as it takes experts."""
    if not any(counts):
        return [[]]
    orders = []
    for device, count in enumerate(counts):
        if count:
            rest = [other - (d == device) for d, other in enumerate(counts)]
            orders += [[device, *order] for order in _multiset_orders(rest)]
    return orders


def _first_names(layouts: I32) -> I32:
    """Return layouts (N, E) with devices renamed in the order in which they come."""
    named = np.empty_like(layouts)
    for n, row in enumerate(layouts.tolist()):
        names: dict[int, int] = {}
        named[n] = [names.setdefault(device, len(names)) for device in row]
    return named


def _shuffle(row: I32, base: I32, rng: np.random.Generator) -> None:
    """Exchange the devices of a few experts, or of all."""
    some = rng.choice(len(row), size=min(len(row), int(rng.integers(2, 5))), replace=False)
    chosen = some if rng.random() < 0.7 else np.arange(len(row))
    row[chosen] = row[rng.permutation(chosen)]


def add_replicas(device_of: I32, loads: F64, slots: I32) -> I32:
    """Return the placement (L, P) of a layout (L, E), its spare slots filled with replicas of the hottest experts.

    One at a time, the expert with the largest load per replica goes to the least loaded device that has a free slot
    and not the expert; then the next hottest where there is no such device.
    """
    slot_device = np.repeat(np.arange(len(slots)), slots)
    placement = np.zeros((len(device_of), len(slot_device)), dtype=np.int32)
    for layer, row in enumerate(device_of):
        held = np.zeros((len(row), len(slots)), dtype=np.int64)
        held[np.arange(len(row)), row] = 1
        for _ in range(len(slot_device) - len(row)):
            expert, device = _next_replica(held, loads[layer], slots)
            held[expert, device] += 1
        for d in range(len(slots)):
            placement[layer, slot_device == d] = np.repeat(np.arange(len(row)), held[:, d])
    return placement


def _next_replica(held: I64, loads: F64, slots: I32) -> tuple[int, int]:
    share = loads / held.sum(axis=1)
    load = np.where(held.sum(axis=0) < slots, share @ held, np.inf)
    order = np.argsort(-share, kind="stable")
    for expert in order:
        absent = np.where(held[expert] > 0, np.inf, load)
        if np.isfinite(absent).any():
            return int(expert), int(absent.argmin())
    return int(order[0]), int(load.argmin())


@dataclass(frozen=True, slots=True, kw_only=True)
class AffinityPlacement:
    """ExFlow's aim, least expected traffic between layers with equal experts on equal devices, by coordinate descent.

    With up to ``_MAX_LAYOUTS`` layouts of a layer, such as 8 experts on 4 devices, dynamic programming finds the best.
    Plans on the mean of the history and ignores an ``initial`` placement. Loads of devices are not looked at. Slots
    beyond one per expert hold replicas of the hottest experts, added afterwards. Without transitions the next expert
    counts as independent of the last, with its load as probability.

    Args:
        prices: ``hops`` counts 1 inside a node and 2 beyond, as ExFlow; ``bandwidth`` takes seconds per byte.
        kicks: most restarts from a shuffled best layout.
    """

    prices: Literal["hops", "bandwidth"] = "hops"
    kicks: int = 5000

    def schedule(self, instance: Instance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return one placement for all windows."""
        assert isinstance(instance, ExpertPlacementInstance)
        started = time.perf_counter()
        placement = self.placement(instance, history_mean(instance), rng, started + time_limit_s)
        return outcome(instance, placement[None], started=started)

    def placement(
        self, instance: ExpertPlacementInstance, loads: F64, rng: np.random.Generator, deadline: float
    ) -> I32:
        """Return the placement (L, P) for loads (L, E)."""
        weights = hop_weights(instance.cluster.node_of) if self.prices == "hops" else link_weights(instance)
        chain = chain_of(instance, loads, weights)
        device_of = exact_layout(chain, deadline=deadline)
        if device_of is None:
            start = even_layout(chain.base, instance.layers)
            device_of = search_layout(chain, start, rng, deadline=deadline, kicks=self.kicks)
        return add_replicas(device_of, loads, instance.slots)


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="moe/exflow",
        make=AffinityPlacement,
        information="online",
        summary="least hops between layers, equal experts per device: dynamic programming or linear assignments",
        source="aim of Yao et al. 2024, arXiv 2401.08383",
        randomised=True,
    ),
)
