"""Small task graphs, platforms and schedules written by hand, and the worked example with two known schedules."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from schedrl.devices import Device, Link, Platform
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.solution import DagSchedule
from schedrl.envs.socdag.task_graph import TaskGraph

__all__ = ["CANONICAL", "HEFT", "INF", "OPTIMAL", "PAIR", "PAIR_GRAPH", "graph", "plan", "soc"]

INF = float("inf")
Edges = Sequence[tuple[int, int, float]]


def graph(duration: Sequence[Sequence[float]], edges: Edges = (), names: str = "abcdefgh") -> TaskGraph:
    """Tasks named a, b, c, ... with a row of durations each; edges are (source, target, bytes)."""
    return TaskGraph(
        name="graph",
        task_names=tuple(names[: len(duration)]),
        duration=np.array(duration, dtype=np.float64),
        edge=np.array([edge[:2] for edge in edges], dtype=np.int32).reshape(-1, 2),
        edge_bytes=np.array([edge[2] for edge in edges], dtype=np.float64),
    )


def soc(
    *graphs: TaskGraph,
    devices: Sequence[Device] = (Device(name="cpu"), Device(name="gpu")),
    counts: tuple[int, ...] = (1, 1),
    link: Link | None = None,
    **fields: Any,
) -> SocDagInstance:
    """A platform whose types all reach each other by ``link``: 1 time unit and then 2 bytes per time unit."""
    names = [device.name for device in devices]
    link = link or Link(latency_s=1.0, bandwidth_bytes_per_s=2.0)
    platform = Platform(
        devices=tuple(devices), counts=counts, links=dict.fromkeys(itertools.product(names, names), link)
    )
    return SocDagInstance(name="soc", **{"platform": platform, "graphs": graphs, **fields})


def plan(device: Sequence[int], start: Sequence[float], entry: Sequence[float] = (0,), **fields: Any) -> DagSchedule:
    """A schedule from lists; ``fields`` are point and transfer."""
    arrays = {name: np.array(values) for name, values in fields.items()}
    return DagSchedule(device=np.array(device), start=np.array(start), entry=np.array(entry), **arrays)


# a takes 3 on the cpu and 4 on the gpu, b takes 2 and 5; 6 bytes between them take 1 + 6 / 2 = 4.
PAIR_GRAPH = graph([[3, 4], [2, 5]], [(0, 1, 6)])
PAIR = soc(PAIR_GRAPH)

# The worked example of Topcuoglu, Hariri and Wu 2002 with its published HEFT schedule, and an optimal schedule
# of length 73 that CP-SAT proves.
CANONICAL_COST = [
    [14, 16, 9], [13, 19, 18], [11, 13, 19], [13, 8, 17], [12, 13, 10],
    [13, 16, 9], [7, 15, 11], [5, 11, 14], [18, 12, 20], [21, 7, 16],
]  # fmt: skip
CANONICAL_EDGES = [
    (0, 1, 18), (0, 2, 12), (0, 3, 9), (0, 4, 11), (0, 5, 14), (1, 7, 19), (1, 8, 16), (2, 6, 23),
    (3, 7, 27), (3, 8, 23), (4, 8, 13), (5, 7, 15), (6, 9, 17), (7, 9, 11), (8, 9, 13),
]  # fmt: skip
CANONICAL = soc(
    graph(CANONICAL_COST, CANONICAL_EDGES, names="123456789X"),
    devices=[Device(name=name) for name in ("P1", "P2", "P3")],
    counts=(1, 1, 1),
    link=Link(latency_s=0.0, bandwidth_bytes_per_s=1.0),
)
OPTIMAL = plan([2, 2, 1, 0, 2, 0, 1, 0, 1, 1], [0, 9, 21, 18, 27, 31, 34, 46, 54, 66])
HEFT = plan([2, 0, 2, 1, 2, 1, 2, 0, 1, 1], [0, 27, 9, 18, 28, 26, 38, 57, 56, 73])
