from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from strategies import instances

from schedrl.baselines.socdag.ranks import (
    best_imaginary_level,
    downward_rank,
    mean_duration,
    median_duration,
    optimistic_cost_table,
    sequence_by,
    static_level,
    upward_rank,
)
from schedrl.devices import Device, Link, Platform
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.structured import canonical
from schedrl.envs.socdag.task_graph import TaskGraph


def mean_transfer(instance: SocDagInstance) -> list[Fraction]:
    """Topcuoglu's c-bar of every edge in exact arithmetic, from the platform's links."""
    platform, unit, kind = instance.platform, instance.device_unit, instance.device_type
    names = [platform.devices[k].name for k in kind]
    pairs = [
        (p, q)
        for p in range(len(names))
        for q in range(len(names))
        if platform.memory is not None or unit[p] != unit[q]
    ]
    latency, per_byte = Fraction(0), Fraction(0)
    ends = [lambda p, q: (names[p], names[q])]
    if platform.memory is not None:
        ends = [lambda p, q: (names[p], platform.memory), lambda p, q: (platform.memory, names[q])]
    for hop in ends if pairs else []:
        links = [platform.link(*hop(p, q)) for p, q in pairs]
        latency += sum(Fraction(link.latency_s) for link in links) / len(links)
        per_byte += len(links) / sum(Fraction(link.bandwidth_bytes_per_s) for link in links)
    return [latency + Fraction(size) * per_byte if size else Fraction(0) for size in instance.flat.edge_bytes.tolist()]


def exact_ranks(instance: SocDagInstance) -> tuple[list[Fraction], list[Fraction]]:
    flat, cost = instance.flat, mean_transfer(instance)
    rows = [[Fraction(w) for w in row if np.isfinite(w)] for row in flat.duration.tolist()]
    mean = [sum(row) / len(row) for row in rows]
    up, down = list(mean), [Fraction(0)] * len(mean)
    edges = flat.edge.tolist()
    for t in flat.order[::-1].tolist():
        up[t] = mean[t] + max((cost[e] + up[j] for e, (i, j) in enumerate(edges) if i == t), default=Fraction(0))
    for t in flat.order.tolist():
        down[t] = max((down[i] + mean[i] + cost[e] for e, (i, j) in enumerate(edges) if j == t), default=Fraction(0))
    return up, down


def test_published_ranks_of_topcuoglus_example() -> None:
    instance = canonical()
    upward = [108, 77, 80, 80, 69, 63.333, 42.667, 35.667, 44.333, 14.667]
    downward = [0, 31, 25, 22, 24, 27, 62.333, 66.667, 63.667, 93.333]
    np.testing.assert_allclose(upward_rank(instance), upward, atol=5e-4)
    np.testing.assert_allclose(downward_rank(instance), downward, atol=5e-4)


def test_tables_of_topcuoglus_example() -> None:
    # Worked by hand for the last two levels: OCT(9, p) = 0 and w(9) = 21, 7, 16 with mean transfers 17, 11, 13.
    instance = canonical()
    table, level = optimistic_cost_table(instance), best_imaginary_level(instance)
    assert table[9].tolist() == [0.0, 0.0, 0.0]
    assert table[6].tolist() == [21.0, 7.0, 16.0]
    assert table[7].tolist() == [18.0, 7.0, 16.0]
    assert level[9].tolist() == [21.0, 7.0, 16.0]
    assert level[8].tolist() == [18.0 + 20.0, 12.0 + 7.0, 20.0 + 16.0]
    assert static_level(instance)[[9, 8]].tolist() == [16.0, 16.0 + 18.0]
    assert median_duration(instance)[:3].tolist() == [14.0, 18.0, 13.0]
    assert mean_duration(instance)[0] == 13.0


@given(instances(jobs=3, capacity=True, memory=True))
def test_ranks_are_those_of_exact_arithmetic(instance: SocDagInstance) -> None:
    up, down = exact_ranks(instance)
    np.testing.assert_allclose(upward_rank(instance), np.array(up, float), rtol=1e-12)
    np.testing.assert_allclose(downward_rank(instance), np.array(down, float), rtol=1e-12, atol=1e-12)


@given(instances(jobs=2, capacity=True, memory=True))
def test_optimistic_costs_by_their_recursion(instance: SocDagInstance) -> None:
    flat, cost = instance.flat, [float(c) for c in mean_transfer(instance)]
    table, level = optimistic_cost_table(instance), best_imaginary_level(instance)
    unit, shared = instance.device_unit, instance.platform.memory is not None
    devices = range(instance.devices)
    for t in range(instance.tasks):
        edges = [(e, int(j)) for e, (i, j) in enumerate(flat.edge) if i == t]
        for p in devices:
            far = [shared or unit[p] != unit[q] for q in devices]
            oct_value = max(
                (min(table[j, q] + flat.duration[j, q] + cost[e] * far[q] for q in devices) for e, j in edges),
                default=0,
            )
            bil_value = max((min(level[j, q] + cost[e] * far[q] for q in devices) for e, j in edges), default=0)
            assert table[t, p] == pytest.approx(oct_value)
            assert level[t, p] == pytest.approx(bil_value + flat.duration[t, p])


def chain(names: str, edge: list[tuple[int, int]]) -> SocDagInstance:
    platform = Platform(
        devices=(Device(name="a"), Device(name="b")),
        counts=(1, 1),
        links={pair: Link(latency_s=0.0, bandwidth_bytes_per_s=1.0) for pair in (("a", "b"), ("b", "a"))},
    )
    graph = TaskGraph(
        name="g",
        task_names=tuple(names),
        duration=np.ones((len(names), 2)),
        edge=np.array(edge),
        edge_bytes=np.zeros(len(edge)),
    )
    return SocDagInstance(name="chain", platform=platform, graphs=(graph,), job_graph=np.array([0, 0]))


def test_equal_priorities_go_breadth_first_within_each_job() -> None:
    # Task 4 hangs on 0 by an earlier edge than 2; 3 waits for both. Numbers alone would put 2 before 4.
    instance = chain("abcde", [(0, 4), (0, 2), (4, 3), (2, 3), (1, 3)])
    position = sequence_by(instance, np.zeros(10))
    assert np.argsort(position).tolist() == [0, 1, 4, 2, 3, 5, 6, 9, 7, 8]


def test_priorities_that_differ_by_rounding_only_are_equal() -> None:
    instance = chain("abc", [])
    priority = np.array([1.0, 1.0 + 1e-15, 2.0, 0.0, 5.0, 5.0 - 1e-14])
    assert np.argsort(sequence_by(instance, priority)).tolist() == [2, 0, 1, 4, 5, 3]
