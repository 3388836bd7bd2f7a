from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_dags import CANONICAL, INF, PAIR, PAIR_GRAPH, graph, soc
from strategies import instances

from schedrl.devices import Device, Link, Platform
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.tables import mean_link, transfer

EVERYTHING = instances(max_tasks=6, jobs=3, capacity=True, memory=True)
# Table 2 of Topcuoglu, Hariri and Wu 2002, printed with three decimals.
UPWARD = [108.0, 77.0, 80.0, 80.0, 69.0, 63.333, 42.667, 35.667, 44.333, 14.667]
DOWNWARD = [0.0, 31.0, 25.0, 22.0, 24.0, 27.0, 62.333, 66.667, 63.667, 93.333]


def test_ranks_of_the_published_example() -> None:
    tables = CANONICAL.tables
    np.testing.assert_allclose(tables.upward_rank, UPWARD, atol=5e-4)
    np.testing.assert_allclose(tables.downward_rank, DOWNWARD, atol=5e-4)
    assert tables.mean_duration[:2].tolist() == [13.0, pytest.approx(50 / 3)]
    assert tables.least_duration.tolist() == [9, 13, 11, 8, 10, 9, 7, 5, 12, 7]
    assert tables.mean_out[0] == pytest.approx((18 + 12 + 9 + 11 + 14) / 5)
    assert tables.mean_out[9] == 0.0


def test_tails_of_a_worked_example() -> None:
    # From the cpu, b follows at once on the cpu for 2; from the gpu there for 5, or after 4 on the cpu for 2.
    tables = PAIR.tables
    assert tables.tail.tolist() == [[2, 5], [0, 0]]
    assert tables.graph_bound.tolist() == [5]
    assert tables.predecessor.tolist() == [0]
    assert tables.successor.tolist() == [1]
    assert tables.predecessor_bytes.tolist() == tables.successor_bytes.tolist() == [6]


def test_templates_are_stacked_and_their_edges_shifted() -> None:
    other = graph([[1, 2], [3, 4], [5, INF]], [(0, 2, 1.0), (1, 2, 8.0)])
    instance = soc(PAIR_GRAPH, other, job_graph=np.array([1, 0, 1]), release=np.array([0.0, 1.0, 2.0]))
    tables = instance.tables
    assert tables.graph_offset.tolist() == [0, 2, 5]
    assert tables.predecessor_offset.tolist() == [0, 0, 1, 1, 1, 3]
    assert tables.predecessor.tolist() == [0, 2, 3]
    assert tables.successor_offset.tolist() == [0, 1, 1, 2, 3, 3]
    assert tables.successor.tolist() == [1, 4, 4]
    assert tables.predecessor_edge.tolist() == [0, 1, 2]
    assert tables.predecessor_bytes.tolist() == [6, 1, 8]
    # The last task runs on the cpu only: 3 + 5 from there, and 4 + (1 + 8 / 2) + 5 from the gpu.
    assert tables.duration[4].tolist() == [5, np.inf]
    assert tables.mean_duration[4] == 5
    assert tables.tail[3].tolist() == [5, 10]
    assert tables.graph_bound.tolist() == [5, 8]


@given(EVERYTHING)
def test_tails_and_bounds_equal_a_recursion_over_paths(instance: SocDagInstance) -> None:
    tables, flat = instance.tables, instance.flat
    first_of = {int(kind): int(instance.job_offset[job]) for job, kind in reversed(list(enumerate(instance.job_graph)))}

    def travel(size: float, p: int, q: int) -> float:
        hops = [instance.links[k, p, q] + size * instance.links[k + 1, p, q] for k in (0, 2)] if size else []
        return float(sum(np.floor(hop + 1e-9) if instance.whole_units else hop for hop in hops))

    @functools.cache
    def tail(task: int, p: int) -> float:
        edges = [e for e, (source, _) in enumerate(flat.edge.tolist()) if source == task]
        return max((min(arc(e, p, q) for q in range(instance.devices)) for e in edges), default=0.0)

    def arc(edge: int, p: int, q: int) -> float:
        child = int(flat.edge[edge, 1])
        taken = float(flat.duration[child, q])
        return travel(float(flat.edge_bytes[edge]), p, q) + taken + tail(child, q) if np.isfinite(taken) else np.inf

    for kind, first in first_of.items():
        span = range(int(tables.graph_offset[kind]), int(tables.graph_offset[kind + 1]))
        longest = 0.0
        for task, row in enumerate(span, start=first):
            assert tables.duration[row].tolist() == flat.duration[task].tolist()
            able = np.flatnonzero(np.isfinite(flat.duration[task])).tolist()
            assert [tables.tail[row, p] for p in able] == pytest.approx([tail(task, p) for p in able], rel=1e-12)
            longest = max(longest, min(float(flat.duration[task, p]) + tail(task, p) for p in able))
        assert tables.graph_bound[kind] == pytest.approx(longest, rel=1e-12)


@given(EVERYTHING)
def test_ranks_equal_a_recursion_over_mean_times(instance: SocDagInstance) -> None:
    tables = instance.tables
    latency, per_byte = mean_link(instance)
    for row in range(len(tables.duration)):
        able = tables.duration[row][np.isfinite(tables.duration[row])]
        assert tables.mean_duration[row] == pytest.approx(able.mean(), rel=1e-12)
        after = slice(tables.successor_offset[row], tables.successor_offset[row + 1])
        costs = np.where(tables.successor_bytes[after] > 0, latency + per_byte * tables.successor_bytes[after], 0.0)
        assert tables.mean_out[row] == pytest.approx(costs.mean() if costs.size else 0.0, rel=1e-12)
        longest = (costs + tables.upward_rank[tables.successor[after]]).max(initial=0.0)
        assert tables.upward_rank[row] == pytest.approx(tables.mean_duration[row] + longest, rel=1e-12)
        for child, cost in zip(tables.successor[after], costs, strict=True):
            through = tables.downward_rank[row] + tables.mean_duration[row] + cost
            assert tables.downward_rank[child] >= through * (1.0 - 1e-12)
    roots = np.diff(tables.predecessor_offset) == 0
    assert not tables.downward_rank[roots].any()


@given(EVERYTHING, st.integers(0, 64))
def test_transfer_times_round_each_hop_down_in_whole_units(instance: SocDagInstance, quarters: int) -> None:
    links, size = instance.links, quarters / 4
    for p in range(instance.devices):
        for q in range(instance.devices):
            taken = transfer(links, size, p, q, False)
            hops = [links[k, p, q] + size * links[k + 1, p, q] for k in (0, 2)]
            assert taken == (sum(hops) if size else 0.0)
            assert transfer(links, size, p, q, True) == (sum(np.floor(hop + 1e-9) for hop in hops) if size else 0.0)
            if p == q and instance.platform.memory is None:
                assert taken == 0.0


def test_mean_link_averages_latency_and_bandwidth_over_different_devices() -> None:
    names = ("a", "b")
    links = {
        ("a", "b"): Link(latency_s=1.0, bandwidth_bytes_per_s=2.0),
        ("b", "a"): Link(latency_s=3.0, bandwidth_bytes_per_s=6.0),
    }
    platform = Platform(devices=tuple(Device(name=name) for name in names), counts=(1, 1), links=links)
    instance = SocDagInstance(name="two", platform=platform, graphs=(PAIR_GRAPH,))
    assert mean_link(instance) == (2.0, pytest.approx(1 / 4))
    alone = soc(graph([[1.0], [1.0]], [(0, 1, 5.0)]), devices=[Device(name="a")], counts=(1,))
    assert mean_link(alone) == (0.0, 0.0)
