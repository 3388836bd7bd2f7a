"""What a policy sees of the rebalancing game: options of one layer, and what its past windows say of drift.

Only windows that are over count. Times are per present time of the layer, so that a policy trained on small models
reads large ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from schedrl.arrays import F32, I32
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.graphs import Feature, FeatureTable, StaticGraph
from schedrl.kernels import inner_inlined, kernel

if TYPE_CHECKING:
    from schedrl.envs.moe.rebalance_state import State

__all__ = ["EDGE_TYPES", "FEATURES", "most_edges", "static_graph", "write_decisions"]

EDGE_TYPES = ("expert of layer", "layer of expert", "starts on device", "holds at start", "same node")
_KINDS = 8


def _share(name: str, why: str) -> Feature:
    return Feature(name=name, unit="ratio", low=0.0, high=1.0, why=why)


def _signed(name: str, why: str) -> Feature:
    return Feature(name=name, unit="ratio", low=-1.0, high=1.0, why=why)


FEATURES = FeatureTable(
    node=(
        _share("layer", "the node is a layer"),
        _share("expert", "the node is an expert of a layer"),
        _share("device", "the node is a device"),
        _share("load", "share of the layer's load over the known windows, times experts, as x / (1 + x)"),
        _share("spread", "standard deviation of that share over windows, per mean, as x / (1 + x)"),
        _share("replicas", "replicas at the start per devices"),
        _share("slots", "slots of the device per most of any"),
        _share("speed", "rate of the device per that of the fastest"),
    ),
    edge_types=EDGE_TYPES,
    edge=(),
    candidate_nodes=("layer",),
    candidate=(
        *(
            _share(f"kind {kind}", "how the option was made, in the order of rebalance_state.KINDS")
            for kind in range(_KINDS)
        ),
        *(
            _signed(f"gain {name}", f"seconds saved per present seconds of the layer, by the forecast {name}")
            for name in ("latest", "recent", "mean", "safe")
        ),
        _share("migration", "migration per a window's time of the layer, as x / (1 + x)"),
        _share("moved", "experts moved per slots"),
        _signed(
            "net 1", "gain by the recent forecast over one window less migration, per a window's time of the layer"
        ),
        _signed("net 4", "the same over four windows, per four, or as many as are left"),
        _signed("net left", "the same over all windows left, per their number"),
        _signed("best net left", "how far that falls short of the best option"),
        _share("peak", "mean busy time of the devices per longest, by the latest window"),
    ),
    context=(
        _share("windows left", "windows left to plan, of 32, as far as known"),
        _share("share left", "windows left per all that are scored"),
        _share("variation", "total variation between the latest two windows of the layer"),
        _share("older variation", "total variation between the latest and the one before the last"),
        _share("alike", "share of the known windows that are like the latest"),
        _share("switches", "share of the known windows that began with another kind of load"),
        _share("known", "known windows, x / (8 + x)"),
        _share("unchanged", "windows since the layer changed, x / (8 + x)"),
        _share("balance", "mean busy time per longest by the latest window as the layer is now"),
        _share("redundancy", "slots beyond one per expert, per experts, as x / (1 + x)"),
        _share("move", "migration of the most expensive option per a window's time of the layer, as x / (1 + x)"),
        _share("best gain", "largest gain of an option by the recent forecast"),
        _share("best gain latest", "largest gain of an option by the latest window"),
        _share("devices", "devices, x / (16 + x)"),
    ),
)


def static_graph(instance: ExpertPlacementInstance) -> StaticGraph:
    """Return layers, experts of layers and devices, in this order, with the placement at the start as edges."""
    layers, experts, devices = instance.layers, instance.experts, instance.devices
    nodes = np.zeros((layers + layers * experts + devices, len(FEATURES.node)), dtype=np.float32)
    nodes[:layers, 0] = 1.0
    of_experts, of_devices = slice(layers, layers + layers * experts), slice(layers + layers * experts, None)
    history = instance.history.astype(np.float64)
    shares = history / np.maximum(history.sum(axis=2, keepdims=True), 1.0)
    mean = shares.mean(axis=0)
    relative, spread = mean * experts, shares.std(axis=0) / np.maximum(mean, 1e-12)
    nodes[of_experts, 1] = 1.0
    nodes[of_experts, 3] = (relative / (1.0 + relative)).ravel()
    nodes[of_experts, 4] = (spread / (1.0 + spread)).ravel()
    nodes[of_devices, 2] = 1.0
    nodes[of_devices, 6] = instance.slots / instance.slots.max()
    units = [instance.cluster.nodes[node].device for node in instance.cluster.node_of]
    rates = np.array([max(unit.flops_per_s.values()) for unit in units])
    nodes[of_devices, 7] = rates / rates.max()
    expert = np.arange(layers, layers + layers * experts, dtype=np.int32)
    layer = np.repeat(np.arange(layers, dtype=np.int32), experts)
    edges, kinds = [np.stack([expert, layer]), np.stack([layer, expert])], [0, 1]
    if instance.initial is not None:
        counts = np.stack([np.bincount(row, minlength=experts) for row in instance.initial])
        nodes[of_experts, 5] = np.minimum(counts / devices, 1.0).ravel()
        source = (layers + np.arange(layers)[:, None] * experts + instance.initial).ravel()
        target = np.tile(layers + layers * experts + instance.slot_device, layers)
        edges += [np.stack([source, target]), np.stack([target, source])]
        kinds += [2, 3]
    node_of = instance.cluster.node_of
    mates = np.flatnonzero(node_of[1:] == node_of[:-1]) + layers + layers * experts
    edges += [np.stack([mates, mates + 1]), np.stack([mates + 1, mates])]
    kinds += [4, 4]
    return StaticGraph(
        node_features=nodes,
        edge_index=np.concatenate(edges, axis=1).astype(np.int32),
        edge_type=np.repeat(np.array(kinds, dtype=np.int8), [pair.shape[1] for pair in edges]),
        edge_features=np.zeros((sum(pair.shape[1] for pair in edges), 0), dtype=np.float32),
    )


def most_edges(instance: ExpertPlacementInstance) -> int:
    """Return the most edges of any instance of the same size."""
    return 2 * instance.layers * (instance.experts + instance.total_slots) + 2 * (instance.devices - 1)


@kernel
def write_decisions(state: State, candidates: I32, candidate_features: F32, context: F32, count: I32) -> None:
    """Fill the current decision of every row; slots beyond ``count`` and finished rows are zero."""
    for b in range(len(count)):
        valid = state.candidates[b]
        count[b] = valid
        context[b, :] = 0.0
        best = -1e300
        for slot in range(valid):
            best = max(best, _net(state, b, slot, state.plans[b] - state.plan[b]))
        for slot in range(candidates.shape[1]):
            candidates[b, slot, 0] = 0
            candidate_features[b, slot, :] = 0.0
            if slot < valid:
                candidates[b, slot, 0] = state.layer[b]
                _write_candidate(state, b, slot, best, candidate_features[b, slot])
        if valid > 0:
            _write_context(state, b, context[b])


@inner_inlined
def _clipped(value: float) -> float:
    return min(max(value, -1.0), 1.0)


@inner_inlined
def _squashed(value: float) -> float:
    return value / (1.0 + value)


@inner_inlined
def _window_s(state: State, b: int) -> float:
    """Return a window's seconds of the layer as it is now, by the recent forecast."""
    return float(max(state.iterations[b] * state.predicted_s[b, 0, 1], 1e-12))


@inner_inlined
def _net(state: State, b: int, slot: int, windows: int) -> float:
    """Return what an option saves over some windows less its migration, per window and per a window's seconds."""
    saved = (state.predicted_s[b, 0, 1] - state.predicted_s[b, slot, 1]) * state.iterations[b] * windows
    return float((saved - state.move_s[b, slot]) / (_window_s(state, b) * windows))


@inner_inlined
def _write_candidate(state: State, b: int, slot: int, best: float, out: F32) -> None:
    out[state.kind[b, slot]] = 1.0
    for k in range(4):
        now = max(state.predicted_s[b, 0, k], 1e-12)
        out[8 + k] = _clipped((now - state.predicted_s[b, slot, k]) / now)
    left = state.plans[b] - state.plan[b]
    net = _net(state, b, slot, left)
    out[12] = _squashed(state.move_s[b, slot] / _window_s(state, b))
    out[13] = min(state.moved[b, slot] / state.slots[b], 1.0)
    out[14] = _clipped(_net(state, b, slot, 1))
    out[15] = _clipped(_net(state, b, slot, min(left, 4)))
    out[16] = _clipped(net)
    out[17] = _clipped(net - best)
    out[18] = min(1.0 / state.peak[b, slot], 1.0)


@inner_inlined
def _write_context(state: State, b: int, out: F32) -> None:
    left = state.plans[b] - state.plan[b]
    known, unchanged = state.planned[b] + state.plan[b], state.unchanged[b, state.layer[b]]
    redundancy = state.slots[b] / state.experts[b] - 1.0
    move, gain, latest = 0.0, 0.0, 0.0
    for slot in range(state.candidates[b]):
        move = max(move, state.move_s[b, slot] / _window_s(state, b))
        gain = max(gain, 1.0 - state.predicted_s[b, slot, 1] / max(state.predicted_s[b, 0, 1], 1e-12))
        latest = max(latest, 1.0 - state.predicted_s[b, slot, 0] / max(state.predicted_s[b, 0, 0], 1e-12))
    out[0] = min(left / 32.0, 1.0)
    out[1] = left / state.plans[b]
    out[2] = min(state.distance[b, 0], 1.0)
    out[3] = min(state.distance[b, 1], 1.0)
    out[4] = min(state.distance[b, 2], 1.0)
    out[5] = min(state.distance[b, 3], 1.0)
    out[6] = known / (8.0 + known)
    out[7] = unchanged / (8.0 + unchanged)
    out[8] = min(1.0 / state.peak[b, 0], 1.0)
    out[9] = _squashed(redundancy)
    out[10] = _squashed(move)
    out[11] = min(gain, 1.0)
    out[12] = min(latest, 1.0)
    out[13] = state.devices[b] / (16.0 + state.devices[b])
