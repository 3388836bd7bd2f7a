from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from brute_force import least_latency
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import instances

from schedrl.arrays import F64
from schedrl.devices import Device, Link, Platform
from schedrl.envs.socdag.bounds import bounds, fast_bound, optimistic_heads, optimistic_tails
from schedrl.envs.socdag.generators import GENERATORS
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.structured import canonical
from schedrl.envs.socdag.task_graph import TaskGraph


def values(instance: SocDagInstance) -> dict[str, float]:
    return {bound.name: bound.value for bound in bounds(instance)}


def test_canonical_graph_has_the_published_bounds() -> None:
    assert values(canonical()) == pytest.approx(
        {"critical-path": 41, "placement-critical-path": 54, "through-task": 54, "area": 30.8}, abs=0.05
    )
    assert fast_bound(canonical()) == 54


# Critical path and area program of the measured table, to the decimals it prints.
@pytest.mark.parametrize(
    ("name", "tiles", "path", "area"),
    [
        ("cholesky", 4, 74, 36.0),
        ("cholesky", 8, 158, 203.7),
        ("lu", 4, 77, 64.6),
        ("lu", 8, 165, 385.7),
        ("qr", 4, 24, 15.3),
        ("qr", 8, 52, 89.3),
    ],
)
def test_tiled_graphs_have_the_published_bounds(name: str, tiles: int, path: float, area: float) -> None:
    instance = GENERATORS[name](np.random.default_rng(0), tiles=tiles)
    found = values(instance)
    assert found["critical-path"] == found["placement-critical-path"] == fast_bound(instance) == path
    assert found["area"] == pytest.approx(area, abs=0.5 if area == 36.0 else 0.051)


def test_bounds_come_largest_first_with_reasons() -> None:
    found = bounds(GENERATORS["cholesky"](np.random.default_rng(0), tiles=8))
    assert found[0].name == "area"
    assert all(one.value >= other.value for one, other in itertools.pairwise(found))
    assert all(bound.why for bound in found)


def chain(*, memory: bool = False, whole_units: bool = False) -> SocDagInstance:
    """Return a -> b on two devices: a takes 2 or 10, b takes 10 or 3, 6 bytes move at 4 bytes per unit plus 0.25."""
    names = ("one", "two")
    link = Link(latency_s=0.25, bandwidth_bytes_per_s=4.0)
    pairs = [(p, q) for p in names for q in names if p != q]
    if memory:
        pairs = [pair for name in names for pair in ((name, "dram"), ("dram", name))]
    return SocDagInstance(
        name="chain",
        platform=Platform(
            devices=tuple(Device(name=name) for name in names),
            counts=(1, 1),
            links=dict.fromkeys(pairs, link),
            memory="dram" if memory else None,
        ),
        graphs=(
            TaskGraph(
                name="chain",
                task_names=("a", "b"),
                duration=np.array([[2.0, 10.0], [10.0, 3.0]]),
                edge=np.array([[0, 1]]),
                edge_bytes=np.array([6.0]),
            ),
        ),
        whole_units=whole_units,
    )


def test_heads_and_tails_by_hand() -> None:
    # From one to two the data take 0.25 + 6 / 4 = 1.75.
    np.testing.assert_array_equal(optimistic_tails(chain()), [[4.75, 3.0], [0.0, 0.0]])
    np.testing.assert_array_equal(optimistic_heads(chain()), [[0.0, 0.0], [2.0, 3.75]])
    assert fast_bound(chain()) == 6.75
    assert values(chain())["critical-path"] == 5.0


def test_whole_units_round_every_hop_down() -> None:
    assert fast_bound(chain(whole_units=True)) == 2 + 1 + 3
    assert fast_bound(chain(whole_units=True, memory=True)) == 2 + 2 + 3


def test_memory_costs_two_hops_even_on_the_same_device() -> None:
    np.testing.assert_array_equal(optimistic_tails(chain(memory=True))[0], [3.5 + 3.0, 3.5 + 3.0])
    assert fast_bound(chain(memory=True)) == 2 + 3.5 + 3


def test_area_is_the_dual_of_divisible_work() -> None:
    # Two tasks of 4 on two alike devices and no edge: 8 / 2.
    link = {("cpu", "cpu"): Link(latency_s=0.0, bandwidth_bytes_per_s=1.0)}
    instance = SocDagInstance(
        name="pair",
        platform=Platform(devices=(Device(name="cpu"),), counts=(2,), links=link),
        graphs=(
            TaskGraph(
                name="trio",
                task_names=("a", "b", "c"),
                duration=np.full((3, 1), 4.0),
                edge=np.zeros((0, 2), dtype=np.int32),
                edge_bytes=np.zeros(0),
            ),
        ),
    )
    assert values(instance)["area"] == pytest.approx(6.0, rel=1e-12)
    assert values(instance)["critical-path"] == 4.0


def test_a_deadline_limits_the_bound_because_the_job_may_be_dropped() -> None:
    late = dataclasses.replace(canonical(), deadline=np.array([20.0]))
    assert fast_bound(late) == 20.0
    assert all(bound.value <= 20.0 for bound in bounds(late))


def test_true_durations_enter_the_bound_but_not_the_tails() -> None:
    noisy = dataclasses.replace(chain(), noise_sigma=0.5, noise=np.array([1.0, -1.0]))
    np.testing.assert_array_equal(optimistic_tails(noisy), optimistic_tails(chain()))
    assert fast_bound(noisy) == 2 * 1.5 + 1.75 + 3 * 0.5


def test_a_stream_has_the_mean_of_its_jobs_and_no_area() -> None:
    link = chain().platform
    short = TaskGraph(
        name="short",
        task_names=("c",),
        duration=np.array([[1.0, 2.0]]),
        edge=np.zeros((0, 2), dtype=np.int32),
        edge_bytes=np.zeros(0),
    )
    stream = SocDagInstance(
        name="stream",
        platform=link,
        graphs=(*chain().graphs, short),
        job_graph=np.array([0, 1, 1]),
        release=np.array([0.0, 5.0, 50.0]),
    )
    assert fast_bound(stream) == pytest.approx((6.75 + 1 + 1) / 3)
    assert "area" not in values(stream)


@settings(max_examples=150, deadline=None)
@given(instances(max_tasks=4, max_devices=3, noise=True, capacity=True, memory=True, contention=True))
def test_no_bound_exceeds_the_optimum(instance: SocDagInstance) -> None:
    optimum = least_latency(instance)
    for bound in bounds(instance):
        assert bound.value <= optimum + 1e-9 * max(1.0, optimum), bound.name
    assert fast_bound(instance) == values(instance)["placement-critical-path"] <= values(instance)["through-task"]


@settings(max_examples=40, deadline=None)
@given(instances(max_tasks=2, max_devices=2, jobs=2, noise=True, capacity=True, memory=True, contention=True))
def test_no_bound_of_a_stream_exceeds_the_optimum(instance: SocDagInstance) -> None:
    optimum = least_latency(instance)
    for bound in bounds(instance):
        assert bound.value <= optimum + 1e-9 * max(1.0, optimum), bound.name


def reference_tails(instance: SocDagInstance) -> F64:
    """Return the tails by recursion over successors on every single device."""
    flat, devices = instance.flat, range(instance.devices)
    tail = np.zeros(flat.duration.shape)
    for t in flat.order[::-1].tolist():
        for e in np.flatnonzero(flat.edge[:, 0] == t).tolist():
            j, size = int(flat.edge[e, 1]), float(flat.edge_bytes[e])
            for p in devices:
                hops = [[instance.links[k, p, q] + size * instance.links[k + 1, p, q] for k in (0, 2)] for q in devices]
                cost = np.floor(np.array(hops) + 1e-9) if instance.whole_units else np.array(hops)
                moved = cost.sum(axis=1) if size else np.zeros(instance.devices)
                tail[t, p] = max(tail[t, p], float((moved + flat.duration[j] + tail[j]).min()))
    return tail


@settings(max_examples=100, deadline=None)
@given(instances(jobs=2, capacity=True, memory=True), st.booleans())
def test_tails_and_heads_equal_a_plain_reference(instance: SocDagInstance, mirrored: bool) -> None:
    if not mirrored:
        np.testing.assert_allclose(optimistic_tails(instance), reference_tails(instance), rtol=1e-12)
        return
    turned = dataclasses.replace(
        instance,
        graphs=tuple(dataclasses.replace(graph, edge=graph.edge[:, ::-1]) for graph in instance.graphs),
        platform=dataclasses.replace(
            instance.platform, links={pair[::-1]: link for pair, link in instance.platform.links.items()}
        ),
    )
    np.testing.assert_allclose(optimistic_heads(instance), reference_tails(turned), rtol=1e-12)
