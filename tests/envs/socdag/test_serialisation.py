from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from strategies import instances

from schedrl.devices import Device, Platform
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.serialisation import INSTANCE_SCHEMA
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.errors import InstanceError

SMALL = SocDagInstance(
    name="small",
    platform=Platform(devices=(Device(name="cpu"), Device(name="acc")), counts=(1, 2)),
    graphs=(TaskGraph(name="g", task_names=("a", "b"), duration=[[1, np.inf], [2, 3]], edge=[[0, 1]], edge_bytes=[0]),),
)


@given(instances(jobs=3, noise=True, deadlines=True, capacity=True, memory=True, contention=True))
def test_every_instance_survives_json(instance: SocDagInstance) -> None:
    again = SocDagInstance.from_json(instance.to_json())
    assert again == instance
    assert again.platform == instance.platform
    assert again.graphs == instance.graphs
    assert hash(again) == hash(instance)
    for name in ("release", "deadline", "utility", "noise", "job_graph", "preference"):
        assert np.array_equal(getattr(again, name), getattr(instance, name))


def test_the_json_is_versioned_and_writes_infinity_as_null() -> None:
    data = json.loads(SMALL.to_json())
    assert data["schema"] == INSTANCE_SCHEMA == "schedrl/socdag-instance/1"
    assert data["graphs"][0]["duration"] == [[1.0, None], [2.0, 3.0]]
    assert data["graphs"][0]["edges"] == [[0, 1, 0.0]]
    assert data["deadline"] == [None]
    assert data["platform"]["devices"] == [{"name": "cpu", "count": 1}, {"name": "acc", "count": 2}]


def test_what_has_a_default_may_be_left_out() -> None:
    data = json.loads(SMALL.to_json())
    kept = {name: data[name] for name in ("schema", "name", "platform", "graphs")}
    assert SocDagInstance.from_json(json.dumps(kept)) == SMALL


def edited(path: tuple[Any, ...], value: Any) -> str:
    data = json.loads(SMALL.to_json())
    target = data
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema",), "schedrl/socdag-instance/2", "field schema: expected 'schedrl/socdag-instance/1'"),
        (("colour",), 1, "field colour: unknown"),
        (("name",), 3, "field name: unexpected 3"),
        (("admission_cap",), True, "field admission_cap: unexpected True"),
        (("noise_sigma",), 10**400, "field noise_sigma: unexpected 1000"),
        (("platform",), None, "platform: expected a table of fields, got None"),
        (("platform", "devices"), 4, "platform: field devices: expected a list"),
        (("platform", "devices", 1, "count"), 0, "field counts[acc]: 0, expected an integer"),
        (("platform", "devices", 1, "count"), 10**30, "processing elements, expected at most 4096"),
        (("platform", "devices", 0, "name"), ["cpu"], "devices[0].name: ['cpu'], expected a name"),
        (("platform", "memory"), {}, "platform: field memory: {}, expected a name or null"),
        (("graphs",), {}, "field graphs: expected a list, got {}"),
        (("graphs", 0), [], "field graphs[0]: expected the fields name, task_names, duration and edges"),
        (("graphs", 0, "task_names"), "ab", "field graphs[0].task_names: expected list, got 'ab'"),
        (("graphs", 0, "duration"), [], "field graphs[0].duration: expected one or more rows"),
        (("graphs", 0, "duration", 1), [1], "field graphs[0].duration: expected one or more rows of equal length"),
        (("graphs", 0, "duration", 1), ["2", 3], "field graphs[0].duration[1][0]: '2', expected a number"),
        (("graphs", 0, "duration", 1), [-2, 3], "field duration[1, 0] of task b: -2.0, expected 0 or more"),
        (("graphs", 0, "duration", 1), [float("nan"), 3], "field duration[1, 0] of task b: nan, expected 0 or more"),
        (("graphs", 0, "duration", 1), [None, None], "field duration[1]: no device type supports task b"),
        (("graphs", 0, "edges", 0), [0, 1], "field graphs[0].edges[0]: expected [source, target, bytes]"),
        (("graphs", 0, "edges", 0), [0, 2**40, 0], "field graphs[0].edges[0]: expected [source, target, bytes]"),
        (("graphs", 0, "edges", 0), [0, 7, 0], "field edge[0]: 0 -> 7 names an unknown task"),
        (("graphs", 0, "edges"), [[0, 1, 0], [1, 0, 0]], "field edge: a cycle runs through"),
        (("graphs", 0, "edges", 0), [0, 1, 5], "field links: no link from 'cpu' to 'acc'"),
        (("release",), 0, "field release: expected a list of numbers, got 0"),
        (("noise", 0), 10**400, "field noise[0]: 1000"),
        (("job_graph", 0), 10**20, "field job_graph[0]: 100000000000000000000, a number out of range"),
        (("job_graph", 0), None, "field job_graph[0]: None, expected a number"),
    ],
)
def test_a_bad_field_is_named_in_one_line(path: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(InstanceError, match=re.escape(message)) as caught:
        SocDagInstance.from_json(edited(path, value), source="mine.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", SMALL.to_json()[:-20], "[" * 100_000, "[1]", "nonsense"])
def test_what_is_no_instance_is_refused(text: str) -> None:
    with pytest.raises(InstanceError, match=r"^mine\.json: (not valid JSON|field schema)"):
        SocDagInstance.from_json(text, source="mine.json")
