"""MoETuner's two integer programs (arXiv 2502.06643): even clusters of experts, then devices for the clusters.

The first balances tokens layer by layer; the second gives each cluster a device so that the busiest way between two
devices is short, summed over the transitions from layer to layer. The formulas follow third-party accounts of the
paper. MoETuner has no replicas; spare slots are filled greedily afterwards. Letters: L layers, E experts, G devices,
and as many clusters per layer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.baselines.moe.affinity import (
    LayerChain,
    add_replicas,
    base_slots,
    chain_of,
    even_layout,
    link_weights,
    search_layout,
)
from schedrl.baselines.moe.exact import history_mean, lpt_placement
from schedrl.baselines.moe.packing import outcome
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.families import Instance
from schedrl.schedulers import Result, SchedulerSpec

__all__ = [
    "SCHEDULERS",
    "ClusterTraffic",
    "MoETuner",
    "balance_clusters",
    "deviation",
    "place_clusters",
    "seed_clusters",
]

_UNITS = 1_000_000  # a layer's tokens, or the largest transfer, in the models' integers
_GAP = 0.025  # relative, at which the paper's solver stops
_EVEN = 1e-3  # deviation over tokens below which a layer is left as it is
_MAX_CONSTRAINTS = 20_000  # of one model of the second program; longer chains are solved in windows
_GAIN = 1e-9


def deviation(loads: F64, cluster_of: I32, clusters: int) -> float:
    """Return the first program's objective of one layer: the sum over clusters of |tokens - mean tokens|.

    Args:
        loads: (E,) tokens.
        cluster_of: (E,) cluster of every expert.
        clusters: number of clusters G.
    """
    tokens = np.bincount(cluster_of, weights=loads, minlength=clusters)
    return float(np.abs(tokens - loads.sum() / clusters).sum())


def seed_clusters(loads: F64, base: I32) -> I32:
    """Return the cluster (L, E) of every expert by LPT with pair swaps; ``base`` (G,) experts in each cluster."""
    rows, cluster = lpt_placement(loads, base, np.ones(len(base))), np.repeat(np.arange(len(base)), base)
    cluster_of = np.empty(loads.shape, dtype=np.int32)
    np.put_along_axis(cluster_of, rows, np.broadcast_to(cluster, rows.shape).astype(np.int32), axis=1)
    return cluster_of


def balance_clusters(loads: F64, base: I32, *, deadline: float, seed: int) -> I32:
    """Return the cluster (L, E) of every expert, the first program's solution for every layer, at worst its seed.

    Layers far from even come first, each with an even part of the time left.

    Args:
        loads: (L, E) tokens.
        base: (G,) experts in each cluster.
        deadline: ``time.perf_counter`` reading at which to stop.
        seed: of the solver.
    """
    cluster_of = seed_clusters(loads, base)
    off = np.array([deviation(*pair, len(base)) for pair in zip(loads, cluster_of, strict=True)])
    off /= np.maximum(loads.sum(axis=1), 1e-300)
    waiting = [int(layer) for layer in np.argsort(-off, kind="stable") if off[layer] > _EVEN]
    for done, layer in enumerate(waiting):
        left = deadline - time.perf_counter()
        if left <= 0:
            break
        found = _solve_clusters(loads[layer], base, cluster_of[layer], left / (len(waiting) - done), seed)
        if deviation(loads[layer], found, len(base)) < deviation(loads[layer], cluster_of[layer], len(base)):
            cluster_of[layer] = found
    return cluster_of


def _solve_clusters(loads: F64, base: I32, seed_row: I32, time_limit_s: float, seed: int) -> I32:
    from ortools.sat.python import cp_model

    began, clusters = time.perf_counter(), len(base)
    whole = np.rint(loads / loads.sum() * _UNITS).astype(np.int64)
    model = cp_model.CpModel()
    inside = [[model.new_bool_var("") for _ in range(clusters)] for _ in loads]
    off = [model.new_int_var(0, clusters * _UNITS, "") for _ in range(clusters)]
    for e, row in enumerate(inside):
        model.add_exactly_one(row)
        for c, variable in enumerate(row):
            model.add_hint(variable, bool(seed_row[e] == c))
    for c in range(clusters):
        tokens = sum(int(whole[e]) * inside[e][c] for e in range(len(loads)))
        model.add(sum(row[c] for row in inside) == int(base[c]))
        # In units of 1 / G, so that the mean is whole.
        model.add(off[c] >= clusters * tokens - int(whole.sum()))
        model.add(off[c] >= int(whole.sum()) - clusters * tokens)
    model.minimize(sum(off))
    solver = _solved(cp_model, model, time_limit_s - (time.perf_counter() - began), seed)
    if solver is None:
        return seed_row
    return np.array([[solver.boolean_value(x) for x in row].index(True) for row in inside], dtype=np.int32)


def _solved(cp_model: Any, model: Any, time_limit_s: float, seed: int) -> Any:
    """Return the solver with a solution, or None."""
    if time_limit_s <= 0:
        return None
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = time_limit_s
    solver.parameters.relative_gap_limit = _GAP
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    return solver if solver.solve(model) in (cp_model.OPTIMAL, cp_model.FEASIBLE) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterTraffic:
    """What the second program sees; a layout (L, G) gives every cluster's device, each device once per layer."""

    traffic: F64  # (L - 1, G, G) share of all tokens from a cluster to one of the next layer
    weights: F64  # (G, G) relative seconds per token between devices, 0 on a device itself
    base: I32  # (G,) experts of a cluster, and of the devices it may go to

    @classmethod
    def of(cls, chain: LayerChain, cluster_of: I32) -> ClusterTraffic:
        """Return the traffic between clusters (L, E) of a chain's experts."""
        member = np.eye(len(chain.base))[cluster_of]  # (L, E, G)
        traffic = np.einsum("lac,lab,lbd->lcd", member[:-1], chain.flow, member[1:], optimize=True)
        return cls(traffic=traffic, weights=chain.weights, base=chain.base)

    def tails(self, layout: I32) -> F64:
        """Return the longest transfer between two devices in every transition, (L - 1,)."""
        paid = self.traffic * self.weights[layout[:-1, :, None], layout[1:, None, :]]
        longest: F64 = paid.max(axis=(1, 2))
        return longest

    def total(self, layout: I32) -> float:
        """Return the price of all traffic."""
        return float((self.traffic * self.weights[layout[:-1, :, None], layout[1:, None, :]]).sum())


def place_clusters(traffic: ClusterTraffic, start: I32, *, deadline: float, seed: int) -> I32:
    """Return a layout (L, G) with a small sum of tails, never above that of ``start``: pair swaps, then CP-SAT.

    CP-SAT frees all layers at once where the model is small, else a window of consecutive layers at a time.

    Args:
        traffic: between clusters.
        start: (L, G) layout to improve.
        deadline: ``time.perf_counter`` reading at which to stop.
        seed: of the solver.
    """
    layout = np.array(start, dtype=np.int32)
    layers, devices = layout.shape
    _swap_tails(traffic, layout, deadline)
    width = int(np.clip(_MAX_CONSTRAINTS // devices**3 + 1, 1, layers))
    step, improved = max(width // 2, 1), True
    while improved and time.perf_counter() < deadline:
        improved = False
        for first in range(0, max(layers - width, 0) + step, step):
            last = min(first + width, layers)
            left = deadline - time.perf_counter()
            if left <= 0:
                break
            trial = _solve_window(traffic, layout, range(last - width, last), left, seed)
            if traffic.tails(trial).sum() < traffic.tails(layout).sum() * (1.0 - _GAIN):
                layout, improved = trial, width < layers
    return layout


def _swap_tails(traffic: ClusterTraffic, layout: I32, deadline: float) -> None:
    """Exchange devices of equal size in single layers while the sum of tails falls, in place."""
    pairs = [(a, b) for a in range(layout.shape[1]) for b in range(a) if traffic.base[a] == traffic.base[b]]
    best, improved = float(traffic.tails(layout).sum()), True
    while improved and time.perf_counter() < deadline:
        improved = False
        for layer in range(len(layout)):
            near = slice(max(layer - 1, 0), layer + 2)
            part = ClusterTraffic(
                traffic=traffic.traffic[max(layer - 1, 0) : layer + 1], weights=traffic.weights, base=traffic.base
            )
            best = float(part.tails(layout[near]).sum())
            for a, b in pairs:
                if time.perf_counter() >= deadline:
                    return
                layout[layer, [a, b]] = layout[layer, [b, a]]
                value = float(part.tails(layout[near]).sum())
                if value < best * (1.0 - _GAIN):
                    best, improved = value, True
                else:
                    layout[layer, [a, b]] = layout[layer, [b, a]]


def _solve_window(traffic: ClusterTraffic, layout: I32, free: range, time_limit_s: float, seed: int) -> I32:
    """Return the layout with its free layers laid out by CP-SAT, or as it was when nothing better was found."""
    from ortools.sat.python import cp_model

    began, devices, base = time.perf_counter(), layout.shape[1], traffic.base
    largest = float((traffic.traffic.max() if traffic.traffic.size else 0.0) * traffic.weights.max())
    if largest <= 0:
        return layout
    unit = largest / _UNITS
    model = cp_model.CpModel()
    place = {layer: [[model.new_bool_var("") for _ in range(devices)] for _ in range(devices)] for layer in free}
    for layer, rows in place.items():
        for c in range(devices):
            model.add_exactly_one(rows[c])
            model.add_exactly_one(row[c] for row in rows)
            for g in range(devices):
                model.add_hint(rows[c][g], bool(layout[layer, c] == g))
                if base[c] != base[g]:
                    model.add(rows[c][g] == 0)
    tails = []
    for cut in range(max(free[0] - 1, 0), min(free[-1] + 1, len(layout) - 1)):
        tail = model.new_int_var(0, 2 * _UNITS, "")
        tails.append(tail)
        both = traffic.traffic[cut][:, :, None, None] * traffic.weights[None, None] / unit  # [c1, c2, g1, g2]
        if cut not in place:
            _bound_tail(model, tail, place[cut + 1], both[np.arange(devices), :, layout[cut]].max(axis=0))
        elif cut + 1 not in place:
            _bound_tail(model, tail, place[cut], both[:, np.arange(devices), :, layout[cut + 1]].max(axis=0))
        else:
            _bound_pairs(model, tail, place[cut], place[cut + 1], np.rint(both).astype(np.int64))
    model.minimize(sum(tails))
    solver = _solved(cp_model, model, time_limit_s - (time.perf_counter() - began), seed)
    if solver is None:
        return layout
    found = layout.copy()
    for layer, rows in place.items():
        found[layer] = [[solver.boolean_value(x) for x in row].index(True) for row in rows]
    return found


def _bound_tail(model: Any, tail: Any, rows: list[list[Any]], longest: F64) -> None:
    """Keep a tail above the longest transfer (G, G) of each cluster on each device, the other layer being fixed."""
    for c, row in enumerate(rows):
        model.add(tail >= sum(round(float(longest[c, g])) * row[g] for g in range(len(row))))


def _bound_pairs(model: Any, tail: Any, rows: list[list[Any]], following: list[list[Any]], both: Any) -> None:
    """Keep a tail above the transfer between any two clusters, wherever both are."""
    size = range(len(rows))
    for c1 in size:
        for c2 in size:
            if both[c1, c2].any():
                for g1 in size:
                    transfer = sum(int(both[c1, c2, g1, g2]) * following[c2][g2] for g2 in size)
                    model.add(tail >= transfer).only_enforce_if(rows[c1][g1])


@dataclass(frozen=True, slots=True, kw_only=True)
class MoETuner:
    """Both programs on the mean of the history, then replicas of the hottest experts in spare slots.

    All devices count as equally fast; clusters keep to devices with as many slots. Without transitions the second
    program is skipped: nothing is known of what follows. An ``initial`` placement is ignored.

    Args:
        second: ``tail`` minimises the sum of each transition's longest transfer between two devices, as the paper;
            ``sum`` that of all transfers by linear assignments, and takes the first program's seed as its solution.
        share: part of the time limit for the first program.
    """

    second: Literal["tail", "sum"] = "tail"
    share: float = 0.4

    def schedule(self, instance: Instance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return one placement for all windows."""
        assert isinstance(instance, ExpertPlacementInstance)
        started, loads = time.perf_counter(), history_mean(instance)
        base, deadline, seed = (
            base_slots(instance.slots, instance.experts),
            started + time_limit_s,
            int(rng.integers(2**31 - 1)),
        )
        if self.second == "sum":
            cluster_of = seed_clusters(loads, base)
        else:
            part = 1.0 if instance.transitions is None else self.share
            cluster_of = balance_clusters(loads, base, deadline=started + part * time_limit_s, seed=seed)
        device_of = cluster_of
        if instance.transitions is not None and instance.layers > 1:
            traffic = ClusterTraffic.of(chain_of(instance, loads, link_weights(instance)), cluster_of)
            layout = self._layout(traffic, rng, deadline, seed)
            device_of = np.take_along_axis(layout, cluster_of, axis=1)
        return outcome(instance, add_replicas(device_of, loads, instance.slots)[None], started=started)

    def _layout(self, traffic: ClusterTraffic, rng: np.random.Generator, deadline: float, seed: int) -> I32:
        ones = np.ones(len(traffic.base), dtype=np.int32)
        identity = even_layout(ones, len(traffic.traffic) + 1)
        starts = [identity]
        if (traffic.base == traffic.base[0]).all():
            chain = LayerChain(flow=traffic.traffic, weights=traffic.weights, base=ones)
            until = deadline if self.second == "sum" else min(deadline, time.perf_counter() + 1.0)
            starts.append(search_layout(chain, identity, rng, deadline=until, kicks=500))
        if self.second == "sum":
            return min(starts, key=traffic.total)
        best = min(starts, key=lambda layout: float(traffic.tails(layout).sum()))
        return place_clusters(traffic, best, deadline=deadline, seed=seed)


def _descent() -> MoETuner:
    return MoETuner(second="sum")


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="moe/moetuner",
        make=MoETuner,
        information="online",
        summary="two integer programs by CP-SAT: even clusters of experts, then devices with short tails",
        source="Go and Mahajan 2025, arXiv 2502.06643",
        randomised=True,
    ),
    SchedulerSpec(
        name="moe/moetuner-descent",
        make=_descent,
        information="online",
        summary="MoETuner's stages by LPT with swaps and by linear assignments: least total traffic",
        source="after Go and Mahajan 2025, arXiv 2502.06643",
        randomised=True,
    ),
)
