"""Clusters: devices in nodes, with a fast network inside each node and a slower one between nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.devices.catalogue import load_catalogue
from schedrl.devices.platform import Device, Link, Platform
from schedrl.devices.serialisation import platform_from_dict, platform_to_dict
from schedrl.errors import ConfigError, UnknownNameError

__all__ = ["Cluster", "ClusterNode", "cluster_from_dict", "cluster_to_dict", "uniform_cluster"]

# Point-to-point latency in aiconfigurator's system files at 095f58a.
_LATENCY_S = 10e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNode:
    """Equal devices in one node. Bandwidths are those of one device, in one direction.

    Raises:
        ConfigError: fewer than one device.
    """

    device: Device
    count: int
    intra: Link
    """from a device to the others of its node"""
    inter: Link
    """from a device to those of other nodes"""

    def __post_init__(self) -> None:
        if type(self.count) is not int or self.count < 1:
            raise ConfigError(f"cluster node of {self.device.name}: field count: {self.count!r}, expected at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Nodes in order; devices are numbered node by node. Nodes may differ in devices, counts and networks.

    Raises:
        ConfigError: no nodes.
    """

    nodes: tuple[ClusterNode, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(self.nodes))
        if not self.nodes:
            raise ConfigError("cluster: field nodes: empty, expected at least one node")

    @property
    def devices(self) -> int:
        """Number of devices D."""
        return sum(node.count for node in self.nodes)

    @property
    def node_of(self) -> I32:
        """(D,) node of each device."""
        return np.repeat(np.arange(len(self.nodes), dtype=np.int32), [node.count for node in self.nodes])

    def per_device(self, figure: Callable[[ClusterNode], float]) -> F64:
        """Return a figure of each device's node, (D,)."""
        return np.array([figure(self.nodes[node]) for node in self.node_of], dtype=np.float64)

    def resized(self, counts: tuple[int, ...]) -> Cluster:
        """Return the cluster with other numbers of devices per node; a node with none disappears.

        Raises:
            ConfigError: another number of nodes, or no device left.
        """
        if len(counts) != len(self.nodes):
            raise ConfigError(f"cluster: {len(counts)} counts for {len(self.nodes)} nodes")
        kept = [
            ClusterNode(device=node.device, count=count, intra=node.intra, inter=node.inter)
            for node, count in zip(self.nodes, counts, strict=True)
            if count
        ]
        return Cluster(nodes=tuple(kept))


def uniform_cluster(device: str, *, nodes: int, per_node: int, latency_s: float = _LATENCY_S) -> Cluster:
    """Return equal nodes of a catalogued device, joined by the networks that the catalogue gives for it.

    Raises:
        UnknownNameError: no such device.
        ConfigError: the catalogue has no network figures for it, or a count below 1.
    """
    catalogue = load_catalogue()
    if device not in catalogue:
        raise UnknownNameError(f"unknown device {device!r}; choose from {', '.join(catalogue)}")
    if nodes < 1:
        raise ConfigError(f"cluster: field nodes: {nodes}, expected at least 1")
    entry = catalogue[device]
    links = {}
    for place in ("intra", "inter"):
        name = f"{place}_node_bytes_per_s"
        if name not in entry.figures:
            able = ", ".join(other for other, item in catalogue.items() if name in item.figures)
            raise ConfigError(f"device {device}: no figure {name} in the catalogue; known for {able}")
        links[place] = Link(latency_s=latency_s, bandwidth_bytes_per_s=entry.figures[name].value)
    node = ClusterNode(device=entry.device, count=per_node, **links)
    return Cluster(nodes=(node,) * nodes)


def cluster_to_dict(cluster: Cluster) -> dict[str, Any]:
    """Return plain data that ``cluster_from_dict`` reads back equal."""
    return {"nodes": [_node_to_dict(node) for node in cluster.nodes]}


def cluster_from_dict(data: Any, where: str = "cluster") -> Cluster:
    """Build a cluster from plain data.

    Raises:
        ConfigError: an unknown or missing field, or a figure outside its range; ``where`` begins the message.
    """
    if not isinstance(data, dict) or set(data) != {"nodes"} or not isinstance(data["nodes"], list):
        raise ConfigError(f"{where}: expected a table with a list of nodes, got {data!r:.60}")
    return Cluster(
        nodes=tuple(_node_from_dict(node, f"{where}: field nodes[{k}]") for k, node in enumerate(data["nodes"]))
    )


def _node_to_dict(node: ClusterNode) -> dict[str, Any]:
    device = platform_to_dict(Platform(devices=(node.device,), counts=(node.count,)))["devices"][0]
    return {"device": device} | {
        place: {"latency_s": link.latency_s, "bandwidth_bytes_per_s": link.bandwidth_bytes_per_s}
        for place, link in (("intra", node.intra), ("inter", node.inter))
    }


def _node_from_dict(data: Any, where: str) -> ClusterNode:
    if not isinstance(data, dict) or set(data) != {"device", "intra", "inter"}:
        raise ConfigError(f"{where}: expected a table of device, intra and inter, got {data!r:.60}")
    platform = platform_from_dict({"devices": [data["device"]], "links": []}, where)
    links = {}
    for place in ("intra", "inter"):
        figures = data[place]
        if not isinstance(figures, dict) or set(figures) != {field.name for field in fields(Link)}:
            raise ConfigError(f"{where}.{place}: expected latency_s and bandwidth_bytes_per_s, got {figures!r:.60}")
        links[place] = Link(**figures)
    return ClusterNode(device=platform.devices[0], count=platform.counts[0], **links)
