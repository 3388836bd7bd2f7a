"""The static graph of a placement instance: layers, their experts, devices and nodes of the cluster."""

from __future__ import annotations

import numpy as np

from schedrl.arrays import F32, F64, I64
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.placement_replicas import replica_counts
from schedrl.envs.moe.placement_state import device_seconds, forecast_of
from schedrl.graphs import Feature, StaticGraph

__all__ = ["EDGE_TYPES", "NODE_FEATURES", "most_edges", "static_graph"]

EDGE_TYPES = (
    "layer of",
    "expert of",
    "node of",
    "device of",
    "held by",
    "holds",
    "next layer",
    "layer before",
    "tokens go to",
    "tokens come from",
)
_TARGETS = 2


def _share(name: str, why: str) -> Feature:
    return Feature(name=name, unit="ratio", low=0.0, high=1.0, why=why)


def _signed(name: str, why: str) -> Feature:
    return Feature(name=name, unit="ratio", low=-1.0, high=1.0, why=why)


# Loads are those of the known windows.
NODE_FEATURES = (
    _share("layer", "the node is a layer"),
    _share("expert", "the node is an expert of a layer"),
    _share("device", "the node is a device"),
    _share("node", "the node is one of the cluster"),
    _share("load", "tokens of the expert per mean of its layer, or of the layer per busiest layer; x / (1 + x)"),
    _share("spread", "standard deviation of the load over windows, per its sum with the mean"),
    _signed("trend", "load of the last window less the mean, per their sum"),
    _share("replicas", "replicas of the expert per devices"),
    _share("skew", "even load per device, per largest load per replica of the layer; 1 at most"),
    _share("position", "number of the layer, also of the expert's, per layers"),
    _share("slots", "slots of the device, or of the node's devices on average, per most slots"),
    _share("speed", "seconds per token of the fastest device per those of this one"),
    _share("memory", "seconds to read an expert on the fastest device per those of this one"),
    _share("intra", "bandwidth inside the node per largest of the cluster"),
    _share("inter", "bandwidth between nodes per largest of the cluster"),
    _share("size", "devices of the node per devices"),
)


def static_graph(instance: ExpertPlacementInstance) -> StaticGraph:
    """Return the graph of an instance: L layers, then L E experts layer by layer, D devices, and nodes of the cluster.

    An expert and a device share an edge each way for every slot that it has there at the start. With transitions, an
    expert has edges to and from the two experts of the next layer that most of its tokens go to.
    """
    layers, experts, devices = instance.layers, instance.experts, instance.devices
    first_device = layers * (1 + experts)
    expert = layers + np.arange(layers * experts)
    layer = np.repeat(np.arange(layers), experts)
    device = first_device + np.arange(devices)
    node = first_device + devices + instance.cluster.node_of
    none = np.zeros(0, dtype=np.int64)
    held, holder, source, target = none, none, none, none
    if instance.initial is not None:
        held = (layers + np.arange(layers)[:, None] * experts + instance.initial).ravel()
        holder = np.tile(first_device + instance.slot_device, layers)
    if instance.transitions is not None:
        source, target = _affine(instance)
    successors = np.arange(1, layers)
    pairs = (
        (expert, layer), (layer, expert), (device, node), (node, device), (held, holder), (holder, held),
        (successors - 1, successors), (successors, successors - 1), (source, target), (target, source),
    )  # fmt: skip
    edges = [np.stack(pair) for pair in pairs]
    return StaticGraph(
        node_features=_node_features(instance),
        edge_index=np.concatenate(edges, axis=1).astype(np.int32),
        edge_type=np.repeat(np.arange(len(pairs), dtype=np.int8), [edge.shape[1] for edge in edges]),
        edge_features=np.zeros((sum(edge.shape[1] for edge in edges), 0), dtype=np.float32),
    )


def most_edges(instance: ExpertPlacementInstance) -> int:
    """Return the edges of an instance of these sizes with a placement at the start and transitions."""
    layers, experts = instance.layers, instance.experts
    affine = (layers - 1) * experts * min(_TARGETS, experts)
    return 2 * (layers * experts + instance.devices + layers * instance.total_slots + layers - 1 + affine)


def _affine(instance: ExpertPlacementInstance) -> tuple[I64, I64]:
    layers, experts = instance.layers, instance.experts
    most = min(_TARGETS, experts)
    transitions = instance.transitions
    assert transitions is not None
    chosen = np.argpartition(-transitions, most - 1, axis=2)[:, :, :most]
    chosen.sort(axis=2)
    first = layers + np.arange(layers) * experts
    source = np.broadcast_to(first[:-1, None, None] + np.arange(experts)[:, None], chosen.shape)
    target = first[1:, None, None] + chosen
    return source.ravel(), target.ravel()


def _node_features(instance: ExpertPlacementInstance) -> F32:
    layers, experts, devices, nodes = instance.layers, instance.experts, instance.devices, len(instance.cluster.nodes)
    table = np.zeros((layers * (1 + experts) + devices + nodes, len(NODE_FEATURES)))
    ends = np.cumsum([layers, layers * experts, devices, nodes])
    start = 0
    for kind, end in enumerate(ends):
        table[start:end, kind] = 1.0
        start = end
    mean, deviation = forecast_of(instance)
    position = np.arange(layers) / layers
    table[: ends[0], 4:10] = _layer_columns(instance, mean, position)
    table[ends[0] : ends[1], 4:10] = _expert_columns(instance, mean, deviation, position)
    _fill_devices(instance, table[ends[1] : ends[2]], table[ends[2] :])
    return np.clip(table, -1.0, 1.0).astype(np.float32)


def _ratio(over: F64, under: F64) -> F64:
    """Return ``over`` per the sum of both, 0 where that is 0."""
    total = over + under
    return np.divide(over, total, out=np.zeros_like(total), where=total > 0)


def _layer_columns(instance: ExpertPlacementInstance, mean: F64, position: F64) -> F64:
    windows = instance.history.sum(axis=2) / instance.iterations  # (planned, L)
    total, last = windows.mean(axis=0), windows[-1]
    largest = (mean / replica_counts(mean, instance.slots)).max(axis=1)
    even = total / instance.devices
    skew = np.divide(even, largest, out=np.ones_like(even), where=largest > 0)
    load = _ratio(total, np.full_like(total, total.max()))
    trend = np.where(total + last > 0, (last - total) / np.maximum(total + last, 1e-300), 0.0)
    return np.stack(
        [load, _ratio(windows.std(axis=0), total), trend, np.zeros(instance.layers), np.minimum(skew, 1.0), position],
        axis=1,
    )


def _expert_columns(instance: ExpertPlacementInstance, mean: F64, deviation: F64, position: F64) -> F64:
    last = instance.history[-1] / instance.iterations
    load = _ratio(mean, np.broadcast_to(mean.mean(axis=1, keepdims=True), mean.shape))
    trend = np.where(mean + last > 0, (last - mean) / np.maximum(mean + last, 1e-300), 0.0)
    replicas = replica_counts(mean, instance.slots) / instance.devices
    columns = [load, _ratio(deviation, mean), trend, replicas, np.zeros_like(mean)]
    columns.append(np.broadcast_to(position[:, None], mean.shape))
    return np.stack([column.ravel() for column in columns], axis=1)


def _fill_devices(instance: ExpertPlacementInstance, devices: F64, nodes: F64) -> None:
    cluster, node_of = instance.cluster, instance.cluster.node_of
    token_s, weight_s = device_seconds(instance)
    sizes = np.bincount(node_of)
    intra = cluster.per_device(lambda node: node.intra.bandwidth_bytes_per_s)
    inter = cluster.per_device(lambda node: node.inter.bandwidth_bytes_per_s)
    columns = (
        instance.slots / instance.slots.max(),
        token_s.min() / token_s,
        weight_s.min() / weight_s,
        intra / intra.max(),
        inter / inter.max(),
        sizes[node_of] / instance.devices,
    )
    for k, column in enumerate(columns, start=10):
        devices[:, k] = column
        nodes[:, k] = np.bincount(node_of, weights=column) / sizes
