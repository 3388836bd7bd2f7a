from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from schedrl.devices import Cluster, ClusterNode, Device, Link, cluster_from_dict, cluster_to_dict, uniform_cluster
from schedrl.errors import ConfigError, UnknownNameError

FAST, SLOW = (Link(latency_s=1e-6, bandwidth_bytes_per_s=rate) for rate in (4e11, 5e10))
NODE = ClusterNode(device=Device(name="a", flops_per_s={"bf16": 1e12}), count=2, intra=FAST, inter=SLOW)
MIXED = Cluster(nodes=(NODE, replace(NODE, count=1, device=Device(name="b", memory_bytes=1e9), inter=FAST)))


def test_devices_are_numbered_node_by_node() -> None:
    assert MIXED.devices == 3
    assert MIXED.node_of.tolist() == [0, 0, 1]
    assert MIXED.per_device(lambda node: node.inter.bandwidth_bytes_per_s).tolist() == [5e10, 5e10, 4e11]


def test_the_catalogue_gives_the_networks() -> None:
    cluster = uniform_cluster("h100-sxm", nodes=4, per_node=8, latency_s=5e-6)
    assert (cluster.devices, len(cluster.nodes)) == (32, 4)
    node = cluster.nodes[3]
    assert (node.intra.bandwidth_bytes_per_s, node.inter.bandwidth_bytes_per_s) == (450e9, 50e9)
    assert node.intra.latency_s == node.inter.latency_s == 5e-6


def test_devices_come_and_go() -> None:
    assert MIXED.resized((1, 2)).node_of.tolist() == [0, 1, 1]
    assert MIXED.resized((0, 1)).nodes == (MIXED.nodes[1],)
    with pytest.raises(ConfigError, match="cluster: 1 counts for 2 nodes"):
        MIXED.resized((1,))
    with pytest.raises(ConfigError, match="cluster: field nodes: empty"):
        MIXED.resized((0, 0))
    with pytest.raises(ConfigError, match="cluster node of a: field count: -1, expected at least 1"):
        MIXED.resized((-1, 1))


def test_plain_data_reads_back_equal() -> None:
    for cluster in (MIXED, uniform_cluster("a100-sxm-80gb", nodes=2, per_node=3)):
        assert cluster_from_dict(cluster_to_dict(cluster)) == cluster


def test_unknown_devices_and_missing_networks_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown device 'h101'; choose from"):
        uniform_cluster("h101", nodes=1, per_node=1)
    with pytest.raises(ConfigError, match="device a40: no figure intra_node_bytes_per_s in the catalogue; known for "):
        uniform_cluster("a40", nodes=1, per_node=1)
    with pytest.raises(ConfigError, match="cluster: field nodes: 0, expected at least 1"):
        uniform_cluster("h100-sxm", nodes=0, per_node=1)
    with pytest.raises(ConfigError, match="field count: 0, expected at least 1"):
        uniform_cluster("h100-sxm", nodes=1, per_node=0)


def edited(**change: Any) -> dict[str, Any]:
    """Return plain data of a node with some fields changed."""
    return {"nodes": [cluster_to_dict(MIXED)["nodes"][0] | change]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "cluster: expected a table with a list of nodes, got 3"),
        ({"nodes": {}}, "cluster: expected a table with a list of nodes"),
        ({"nodes": []}, "cluster: field nodes: empty, expected at least one node"),
        ({"nodes": [3]}, r"cluster: field nodes\[0\]: expected a table of device, intra and inter, got 3"),
        (edited(rack=1), r"cluster: field nodes\[0\]: expected a table of device, intra and inter"),
        (edited(intra={"latency_s": 0}), r"nodes\[0\].intra: expected latency_s and bandwidth_bytes_per_s"),
        (edited(inter={"latency_s": -1, "bandwidth_bytes_per_s": 1}), "link: field latency_s: -1"),
        (edited(inter={"latency_s": 0, "bandwidth_bytes_per_s": 0}), "link: field bandwidth_bytes_per_s: 0"),
        (edited(device={"speed": 1}), r"cluster: field nodes\[0\]"),
    ],
)
def test_bad_data_are_refused(data: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cluster_from_dict(data)
