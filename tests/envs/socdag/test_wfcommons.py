from __future__ import annotations

import copy
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from strategies import graphs

from schedrl.envs.socdag.formats import parse_instance, read_instance
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.json_node import load_json
from schedrl.envs.socdag.machines import MIXED, identical, related
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.envs.socdag.wfcommons import VERSIONS, format_wfformat, parse_wfformat
from schedrl.errors import ConfigError, InstanceError

NESTED: dict[str, Any] = {
    "name": "a run of some generator",
    "schemaVersion": "1.5",
    "workflow": {
        "specification": {
            "tasks": [
                {"name": "split", "id": "s1", "parents": [], "children": ["m1", "m2"], "outputFiles": ["x", "y"]},
                {"name": "map", "id": "m1", "parents": ["s1"], "inputFiles": ["x", "db"], "outputFiles": ["p"]},
                {"name": "map", "id": "m2", "parents": ["s1"], "inputFiles": ["x", "y"], "outputFiles": ["q"]},
                {"name": "join", "id": "j1", "parents": ["m1", "m2"], "children": [], "inputFiles": ["p", "q", "x"]},
            ],
            "files": [{"id": name, "sizeInBytes": size} for name, size in zip("xypq", (10, 5, 3, 0), strict=True)]
            + [{"id": "db", "sizeInBytes": 999}],
        },
        "execution": {
            "makespanInSeconds": 12,
            "executedAt": "2024-01-01",
            "tasks": [
                {"id": "m1", "runtimeInSeconds": 4.0, "machines": ["n"]},
                {"id": "s1", "runtimeInSeconds": 2},
                {"id": "m2", "runtimeInSeconds": 0},
                {"id": "j1", "runtimeInSeconds": 1.5},
            ],
            "machines": [{"nodeName": "n"}],
        },
    },
}


def older(version: str) -> dict[str, Any]:
    """Return the same workflow in the layout of that version."""
    renamed = version >= "1.4"
    size = {file["id"]: file["sizeInBytes"] for file in NESTED["workflow"]["specification"]["files"]}
    runtime = {task["id"]: task["runtimeInSeconds"] for task in NESTED["workflow"]["execution"]["tasks"]}
    tasks = [
        {
            "name": f"{task['name']}_{task['id']}",
            "id": task["id"],
            "type": "compute",
            "runtimeInSeconds" if renamed else "runtime": runtime[task["id"]],
            "parents": [{"s1": "split_s1", "m1": "map_m1", "m2": "map_m2"}[parent] for parent in task["parents"]],
            "files": [
                {"name": file, "link": link, "sizeInBytes" if renamed else "size": size[file]}
                for link in ("input", "output")
                for file in task.get(f"{link}Files", [])
            ],
        }
        for task in NESTED["workflow"]["specification"]["tasks"]
    ]
    return {"name": "old", "schemaVersion": version, "workflow": {"tasks" if version >= "1.3" else "jobs": tasks}}


def read(data: Any, **options: Any) -> SocDagInstance:
    return parse_wfformat(load_json(json.dumps(data), "w.json"), name="w", **options)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_tells_runtimes_and_what_moves(version: str) -> None:
    data = NESTED | {"schemaVersion": version} if version >= "1.5" else older(version)
    instance = read(data, machines=identical(2))
    graph = instance.graphs[0]
    assert instance.name == "w"
    assert graph.duration[:, 0].tolist() == [2, 4, 0, 1.5]
    moved = dict(zip(map(tuple, graph.edge.tolist()), graph.edge_bytes.tolist(), strict=True))
    # x goes to the join as well, but is no dependency of it; m2 hands on a file of no bytes.
    assert moved == {(0, 1): 10, (0, 2): 15, (1, 3): 3, (2, 3): 0}
    unique = ("s1", "m1", "m2", "j1") if version >= "1.5" else ("split_s1", "map_m1", "map_m2", "join_j1")
    assert graph.task_names == unique


def test_names_that_are_unique_label_the_tasks() -> None:
    data = copy.deepcopy(NESTED)
    data["workflow"]["specification"]["tasks"][2]["name"] = "map two"
    assert read(data).graphs[0].task_names == ("split", "map", "map two", "join")


def test_runtimes_are_divided_by_speeds() -> None:
    assert read(NESTED).platform == MIXED.platform
    assert read(NESTED).devices == 8
    assert read(NESTED).graphs[0].duration[1].tolist() == [1, 2, 4, 8]
    machines = related({"gpu": (1, 10.0), "cpu": (3, 1.0)})
    assert read(NESTED, machines=machines).graphs[0].duration[1].tolist() == [0.4, 4]
    with pytest.raises(ConfigError, match=r"option speed: \(0\.0,\), expected a positive number for each of 1 types"):
        related({"cpu": (1, 0.0)})


def test_older_layouts_without_parents_tell_dependencies_by_files() -> None:
    data = older("1.2")
    for task in data["workflow"]["jobs"]:
        del task["parents"]
    assert sorted(map(tuple, read(data).graphs[0].edge.tolist())) == [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)]


def test_a_transfer_without_a_runtime_takes_none() -> None:
    data = older("1.3")
    task = data["workflow"]["tasks"][3]
    del task["runtime"]
    with pytest.raises(InstanceError, match=re.escape("w.json: field workflow.tasks[3].runtime: got nothing")):
        read(data)
    task["type"] = "transfer"
    assert read(data).graphs[0].duration[3].tolist() == [0] * 4


SPEC = ("workflow", "specification")
RUN = ("workflow", "execution", "tasks")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schemaVersion",), "2.0", "field schemaVersion: got '2.0', expected one of the versions 1.0, 1.1, 1.2, 1.3"),
        (("schemaVersion",), 1.5, "field schemaVersion: got 1.5, expected one of the versions"),
        (("workflow",), None, "field workflow: got nothing, expected a table of fields"),
        (("workflow", "execution"), None, "field workflow.execution: got nothing, expected the runtimes of all tasks"),
        ((*SPEC, "tasks"), [], "field workflow.specification.tasks: got [], expected at least one task"),
        ((*SPEC, "tasks", 1, "id"), 7, "field workflow.specification.tasks[1].id: got 7, expected a name"),
        ((*SPEC, "tasks", 1, "id"), "s1", "field workflow.specification.tasks[1].id: task 's1' is listed twice"),
        (
            (*SPEC, "tasks", 1, "id"),
            "zz",
            "tasks[1].id: got 'zz', expected a task with a runtime in workflow",
        ),
        ((*SPEC, "tasks", 1, "parents"), "s1", "tasks[1].parents: got 's1', expected a list"),
        ((*SPEC, "tasks", 1, "parents"), ["no"], "tasks[1].parents[0]: got 'no', expected the id of a task"),
        ((*SPEC, "tasks", 1, "parents"), ["map"], "tasks[1].parents[0]: got 'map', expected the id of a task"),
        ((*SPEC, "tasks", 0, "children"), ["m1", 3], "tasks[0].children[1]: got 3, expected a name"),
        ((*SPEC, "tasks", 0, "parents"), ["j1"], "graph w: field edge: a cycle runs through"),
        ((*SPEC, "tasks", 1, "inputFiles"), ["no"], "tasks[1].inputFiles[0]: got 'no', expected a file of workflow"),
        ((*SPEC, "files", 0, "sizeInBytes"), -1, "field workflow.specification.files[0].sizeInBytes: got -1"),
        ((*RUN, 0, "runtimeInSeconds"), -4, "field workflow.execution.tasks[0].runtimeInSeconds: got -4, expected"),
        (
            (*RUN, 0, "runtimeInSeconds"),
            float("nan"),
            "execution.tasks[0].runtimeInSeconds: got nan, expected",
        ),
        ((*RUN, 0, "runtimeInSeconds"), "4", "execution.tasks[0].runtimeInSeconds: got '4', expected a number"),
        ((*RUN, 0, "id"), "s1", "field workflow.execution.tasks[1].id: got 's1', expected a task that was not listed"),
    ],
)
def test_a_bad_field_is_named_in_one_line(path: tuple[Any, ...], value: Any, message: str) -> None:
    data = copy.deepcopy(NESTED)
    target: Any = data
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(InstanceError, match=re.escape(message)) as caught:
        read(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": "s1"}, "field workflow.tasks[1].id: task 's1' is listed twice, expected unique ids"),
        ({"parents": ["map_m9"]}, "field workflow.tasks[1].parents[0]: got 'map_m9', expected the id of a task"),
        (
            {"files": [{"name": "x", "link": "both", "size": 1}]},
            "tasks[1].files[0].link: got 'both', expected input",
        ),
        ({"files": [{"name": "x", "link": "input"}]}, "tasks[1].files[0].size: got nothing, expected a number"),
    ],
)
def test_a_bad_field_of_an_older_layout_is_named(fields: dict[str, Any], message: str) -> None:
    data = older("1.3")
    data["workflow"]["tasks"][1] |= fields
    with pytest.raises(InstanceError, match=re.escape(message)):
        read(data)


@given(graphs(1))
def test_round_trip(graph: TaskGraph) -> None:
    whole = replace(graph, edge_bytes=np.floor(graph.edge_bytes), duration=MIXED.duration(graph.duration[:, 0]))
    instance = SocDagInstance(name="w", platform=MIXED.platform, graphs=(whole,))
    again = read(json.loads(format_wfformat(instance)))
    back, order = np.lexsort(again.graphs[0].edge.T), np.lexsort(whole.edge.T)
    assert np.array_equal(again.graphs[0].duration, whole.duration)
    assert np.array_equal(again.graphs[0].edge[back], whole.edge[order])
    assert np.array_equal(again.graphs[0].edge_bytes[back], whole.edge_bytes[order])
    assert again.graphs[0].task_names == whole.task_names


def test_the_writer_keeps_to_the_schema() -> None:
    graph = TaskGraph(name="g", task_names=("a b", "c"), duration=[[1], [2]], edge=[[0, 1]], edge_bytes=[7])
    machines = identical(2)
    instance = SocDagInstance(name="w", platform=machines.platform, graphs=(graph,), time_unit_s=0.5)
    data = json.loads(format_wfformat(instance, machines))
    specification, execution = data["workflow"]["specification"], data["workflow"]["execution"]
    assert [task["name"] for task in specification["tasks"]] == ["a b", "c"]
    assert [task["id"] for task in specification["tasks"]] == ["task_0", "task_1"], "ids have no blanks"
    assert specification["tasks"][0]["children"] == ["task_1"]
    assert specification["files"] == [{"id": "0-1.dat", "sizeInBytes": 7}]
    assert [task["runtimeInSeconds"] for task in execution["tasks"]] == [0.5, 1.0]
    assert execution["makespanInSeconds"] == 1.5
    with pytest.raises(InstanceError, match=r"w: field edge_bytes: WfFormat 1\.5 holds whole bytes only"):
        format_wfformat(replace(instance, graphs=(replace(graph, edge_bytes=[0.5]),)), machines)
    with pytest.raises(InstanceError, match=r"w: field noise_sigma: WfFormat 1\.5 cannot hold it; use format json"):
        format_wfformat(replace(instance, noise_sigma=0.1), machines)


EXTRACT: dict[str, Any] = {
    "task_fields": ["name", "runtime_s", "cores"],
    "edge_fields": ["src", "dst", "bytes"],
    "tasks": [["a", 4, 1], ["b", 2, 1], ["a", 1, 1]],
    "edges": [[0, 1, 5], [1, 2, 0]],
}


def test_the_extract_is_read_and_repeated_names_are_numbered() -> None:
    graph = parse_instance(json.dumps(EXTRACT), source="x.json", name="x").graphs[0]
    assert graph.task_names == ("a", "b", "a#2")
    assert graph.duration[:, 2].tolist() == [4, 2, 1]
    assert graph.edge_bytes.tolist() == [5, 0]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("task_fields", ["name"], "x.json: field task_fields: got ['name'], expected a column runtime_s"),
        ("tasks", [["a", -4, 1]], "x.json: field tasks[0][1]: got -4, expected a finite number"),
        ("tasks", [["a"]], "x.json: field tasks[0].runtime_s: got nothing, expected a number"),
        ("tasks", ["a"], "x.json: field tasks[0]: got 'a', expected a list"),
        ("edges", [[0, 3, 1]], "x.json: field edges[0][1]: got 3, expected an integer from 0 to 2"),
        (
            "edges",
            [[0, 1, 1], [0, 1, 1]],
            "x.json: field edges[1]: got [0, 1, 1], expected an edge that was not listed",
        ),
        ("edges", [[0, 1, 1], [1, 0, 1]], "x.json: graph x: field edge: a cycle runs through"),
    ],
)
def test_a_bad_extract_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(InstanceError, match=re.escape(message)):
        parse_instance(json.dumps(EXTRACT | {field: value}), source="x.json", name="x")


@pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no workflow traces to read")
def test_all_traces_of_the_data_folder_are_read() -> None:
    folder = Path(os.environ["SCHEDRL_DATA"]) / "socdag" / "wfinstances"
    instances = {path.stem: read_instance(path) for path in sorted(folder.glob("*.json"))}
    assert len(instances) == 30
    assert {max(i.tasks for i in instances.values()), min(i.tasks for i in instances.values())} == {1066, 5}
    chain = instances["helloworld-chain-5-chameleon"].graphs[0]
    assert chain.duration[:, 2].tolist() == [100.376, 100.12, 99.396, 100.886, 100.462]
    assert chain.edge_bytes.tolist() == [16666667.0] * 4
    blast = instances["blast-chameleon-small-004"]
    assert (blast.tasks, len(blast.flat.edge)) == (43, 120)
    assert all(len(set(i.graphs[0].task_names)) == i.tasks for i in instances.values())
