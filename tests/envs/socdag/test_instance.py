from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from strategies import instances

from schedrl.devices import Device, Link, Platform, PowerState
from schedrl.envs.socdag.instance import MOST_DEVICES, SocDagInstance
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.errors import InstanceError

PAIR = TaskGraph(name="pair", task_names=("a", "b"), duration=[[4, 6], [2, np.inf]], edge=[[0, 1]], edge_bytes=[10])
LONE = TaskGraph(name="lone", task_names=("x",), duration=[[3, 1]], edge=[], edge_bytes=[])
SLOW = Link(latency_s=2.0, bandwidth_bytes_per_s=4.0)
FAST = Link(latency_s=0.5, bandwidth_bytes_per_s=20.0)
LINKS = {("cpu", "cpu"): FAST, ("cpu", "acc"): SLOW, ("acc", "cpu"): FAST, ("acc", "acc"): FAST}
PLATFORM = Platform(devices=(Device(name="cpu"), Device(name="acc")), counts=(2, 1), links=LINKS)


def make(**fields: Any) -> SocDagInstance:
    return SocDagInstance(**{"name": "small", "platform": PLATFORM, "graphs": (PAIR,)} | fields)


def test_defaults_describe_one_job_known_beforehand() -> None:
    instance = make()
    assert (instance.jobs, instance.tasks, instance.devices) == (1, 2, 3)
    assert instance.size_label == "2x3"
    assert instance.static
    assert instance.release_time.tolist() == [0.0]
    assert instance.deadline is not None and np.isinf(instance.deadline).all()
    assert instance.device_names == ("cpu.0", "cpu.1", "acc")
    assert instance.device_type.tolist() == [0, 0, 1]
    assert instance.flat.duration.tolist() == [[4, 4, 6], [2, 2, np.inf]]
    assert instance.task_label(1) == "b"
    assert not make(release=[1.0]).static
    assert not make(noise_sigma=0.1).static


def test_jobs_are_flattened_one_after_another() -> None:
    instance = make(graphs=(PAIR, LONE), job_graph=[0, 1, 0], release=[0, 0, 5.0])
    flat = instance.flat
    assert instance.size_label == "3 jobs 5x3"
    assert instance.job_offset.tolist() == [0, 2, 3, 5]
    assert flat.job.tolist() == [0, 0, 1, 2, 2]
    assert flat.edge.tolist() == [[0, 1], [3, 4]]
    assert flat.edge_bytes.tolist() == [10, 10]
    assert flat.predecessor_offset.tolist() == [0, 0, 1, 1, 1, 2]
    assert flat.predecessor_edge.tolist() == [0, 1]
    assert flat.successor_offset.tolist() == [0, 1, 1, 1, 2, 2]
    assert flat.successor_edge.tolist() == [0, 1]
    assert flat.order.tolist() == [0, 1, 2, 3, 4]
    assert instance.task_label(2) == "1.x"
    assert instance.task_label(4) == "2.b"


def test_links_hold_latency_and_time_per_byte_in_time_units() -> None:
    first = make(time_unit_s=0.5).links
    # cpu to cpu 0.5 s and 20 B/s, cpu to acc 2 s and 4 B/s; nothing within a device.
    assert first[0].tolist() == [[0, 1, 4], [1, 0, 4], [1, 1, 0]]
    assert first[1].tolist() == [[0, 0.1, 0.5], [0.1, 0, 0.5], [0.1, 0.1, 0]]
    assert not first[2:].any()


def test_data_through_a_memory_takes_two_hops_even_back_to_its_device() -> None:
    links = {("cpu", "ram"): SLOW, ("ram", "cpu"): FAST, ("acc", "ram"): FAST, ("ram", "acc"): SLOW}
    table = make(platform=replace(PLATFORM, links=links, memory="ram")).links
    assert table[0].tolist() == [[2, 2, 2], [2, 2, 2], [0.5, 0.5, 0.5]]
    assert table[1].tolist() == [[0.25] * 3, [0.25] * 3, [0.05] * 3]
    assert table[2].tolist() == [[0.5, 0.5, 2]] * 3
    assert table[3].tolist() == [[0.05, 0.05, 0.25]] * 3


def test_a_device_of_capacity_two_is_two_processing_elements_without_a_link_between() -> None:
    platform = replace(PLATFORM, devices=(Device(name="cpu", capacity=2), Device(name="acc")))
    instance = make(platform=platform)
    assert instance.devices == 5
    assert instance.device_unit.tolist() == [0, 0, 1, 1, 2]
    assert instance.device_names == ("cpu.0", "cpu.1", "cpu.2", "cpu.3", "acc")
    assert instance.links[0].tolist() == [
        [0, 0, 0.5, 0.5, 2],
        [0, 0, 0.5, 0.5, 2],
        [0.5, 0.5, 0, 0, 2],
        [0.5, 0.5, 0, 0, 2],
        [0.5, 0.5, 0.5, 0.5, 0],
    ]


def test_a_platform_without_links_will_do_where_nothing_moves() -> None:
    bare = replace(PLATFORM, links={})
    assert not make(platform=bare, graphs=(LONE,)).links.any()
    with pytest.raises(InstanceError, match="no link from 'cpu' to 'cpu'; every pair of devices needs one"):
        make(platform=bare)
    with pytest.raises(InstanceError, match="small: platform: field links: no link from 'acc' to 'cpu'"):
        make(platform=replace(PLATFORM, links={pair: FAST for pair in LINKS if pair != ("acc", "cpu")}))


def test_operating_points_are_sorted_and_the_fastest_sets_the_durations() -> None:
    states = (PowerState(name="low", power_w=1.0, speed=0.25), PowerState(name="mid", power_w=3.0, speed=0.5))
    platform = replace(PLATFORM, devices=(Device(name="cpu", power_states=states), Device(name="acc")))
    speed, power, count = make(platform=platform).operating_points
    assert speed.tolist() == [[0.5, 0.25], [0.5, 0.25], [1, 1]]
    assert power[:2].tolist() == [[3, 1], [3, 1]]
    assert power[2, 0] == 0
    assert count.tolist() == [2, 2, 1]
    assert make(platform=platform).flat.duration.tolist() == [[8, 8, 6], [4, 4, np.inf]]


def test_noise_scales_the_expected_duration_and_never_below_a_twentieth() -> None:
    instance = make(noise_sigma=0.5, noise=[1.0, -3.0])
    assert instance.true_duration[0].tolist() == [6, 6, 9]
    assert instance.true_duration[1].tolist() == pytest.approx([0.1, 0.1, np.inf])
    points = np.array([[[4.0, 8.0]], [[2.0, 4.0]]])
    assert instance.realised(points)[0].tolist() == [[6, 12]]
    assert make().true_duration is make().flat.duration or (make().true_duration == make().flat.duration).all()


def test_whole_units_round_up_plans_and_to_nearest_what_comes_true() -> None:
    graph = replace(PAIR, duration=[[4.2, 6], [0, 2]])
    instance = make(graphs=(graph,), whole_units=True, noise_sigma=0.2, noise=[0.9, 1.0])
    assert instance.flat.duration.tolist() == [[5, 5, 6], [0, 0, 2]]
    # 5 * 1.18 = 5.9, 6 * 1.18 = 7.08, 2 * 1.2 = 2.4; a task that takes nothing still takes nothing.
    assert instance.true_duration.tolist() == [[6, 6, 7], [0, 0, 2]]
    late = replace(instance, noise=np.array([-5.0, -5.0]))
    assert late.true_duration.tolist() == [[1, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"graphs": ()}, "field job_graph: 1 jobs of 0 graphs"),
        ({"job_graph": []}, "field job_graph: 0 jobs of 1 graphs"),
        ({"job_graph": [0, 1]}, "field job_graph: names an unknown graph, expected 0 to 0"),
        ({"job_graph": [0, -1]}, "field job_graph: names an unknown graph"),
        ({"job_graph": [0.5]}, "field job_graph: expected integers in 1 dimension(s)"),
        ({"graphs": (replace(PAIR, duration=[[1], [1]]),)}, "graph pair: field duration: 1 columns for 2 device types"),
        ({"release": [0, 1]}, "field release: 2 values, expected 1"),
        ({"release": [-1.0]}, "field release[0]: -1.0, expected a finite number >= 0"),
        ({"job_graph": [0, 0], "release": [2.0, 1.0]}, "field release[1]: earlier than the job before"),
        ({"deadline": [np.nan]}, "field deadline[0]: nan"),
        ({"utility": [np.inf]}, "field utility[0]: inf"),
        ({"noise": [0.0]}, "field noise: 1 values, expected 2"),
        ({"noise": [0.0, np.inf]}, "field noise[1]: inf"),
        ({"preference": [1.0, 1.0]}, "field preference: 2 values, expected 3"),
        ({"preference": [0.0, 0.0, 0.0]}, "field preference: [0.0, 0.0, 0.0], expected a positive weight"),
        ({"admission_cap": -1}, "field admission_cap: -1"),
        ({"admission_cap": 1.0}, "field admission_cap: 1.0, expected an integer of 0 or more"),
        ({"noise_sigma": np.nan}, "field noise_sigma: nan"),
        ({"noise_sigma": 10**400}, "field noise_sigma: 1000"),
        ({"time_unit_s": 0.0}, "field time_unit_s: 0.0"),
        ({"communication": "fair"}, "field communication: 'fair', expected one of delay, contention"),
        ({"platform": replace(PLATFORM, counts=(MOST_DEVICES, 1))}, "field platform: 4097 processing elements"),
    ],
)
def test_a_broken_instance_is_refused_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InstanceError, match=re.escape(message)) as caught:
        make(**fields)
    assert str(caught.value).startswith("small: ")
    assert "\n" not in str(caught.value)


def test_contention_needs_links_between_devices() -> None:
    memory = replace(PLATFORM, memory="ram", links={(n, "ram"): FAST for n in ("cpu", "acc")})
    with pytest.raises(InstanceError, match="field communication: contention is for links between devices"):
        make(platform=memory, communication="contention")


@given(instances(jobs=3, noise=True, capacity=True, memory=True))
def test_the_flat_graph_is_that_of_the_jobs(instance: SocDagInstance) -> None:
    flat = instance.flat
    assert len(flat.order) == instance.tasks == len(flat.duration)
    for job, kind in enumerate(instance.job_graph.tolist()):
        graph, first = instance.graphs[kind], instance.job_offset[job]
        span = slice(first, instance.job_offset[job + 1])
        assert (np.isfinite(flat.duration[span]) == graph.supported[:, instance.device_type]).all()
        inside = flat.job[flat.edge[:, 0]] == job
        assert (flat.edge[inside] - first == graph.edge).all()
        assert (flat.edge_bytes[inside] == graph.edge_bytes).all()
    for task in range(instance.tasks):
        for offset, edge, end in (
            (flat.predecessor_offset, flat.predecessor_edge, 1),
            (flat.successor_offset, flat.successor_edge, 0),
        ):
            listed = edge[offset[task] : offset[task + 1]]
            assert sorted(listed.tolist()) == np.flatnonzero(flat.edge[:, end] == task).tolist()
    assert (instance.true_duration[flat.duration > 0] > 0).all()
    if instance.whole_units:
        finite = np.isfinite(instance.true_duration)
        assert (instance.true_duration[finite] == np.rint(instance.true_duration[finite])).all()
    assert (np.diagonal(instance.links[:2], axis1=1, axis2=2) == 0).all() or instance.platform.memory
