from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from strategies import graphs

from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.json_node import load_json
from schedrl.envs.socdag.machines import related
from schedrl.envs.socdag.spark import EXECUTORS, executors, format_spark, parse_spark
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.errors import ConfigError, InstanceError

JOBS: dict[str, Any] = {
    "schema": "schedrl/spark-jobs/1",
    "name": "two",
    "executors": 5,
    "jobs": [
        {
            "name": "late",
            "arrival_ms": 70,
            "deadline_ms": 500,
            "utility": 2,
            "stages": [{"id": 4, "tasks": 1, "duration_ms": 30}],
        },
        {
            "name": "query",
            "stages": [
                {"id": 0, "name": "scan", "tasks": 5, "duration_ms": 10},
                {"id": 1, "tasks": 3, "duration_ms": [1, 2, 4], "parents": [0], "parent_bytes": [60]},
                {"id": 2, "tasks": 4, "duration_ms": {"fresh": [99], "first": [8, 10], "rest": [5]}, "parents": [0, 1]},
            ],
        },
    ],
}


def read(data: Any, **options: Any) -> SocDagInstance:
    return parse_spark(load_json(json.dumps(data), "jobs.json"), name="file", **options)


def test_stages_become_the_shares_of_as_many_executors() -> None:
    instance = read(JOBS, parallelism=2)
    graph = instance.graphs[0]
    assert graph.task_names == ("scan.0", "scan.1", "stage1.0", "stage1.1", "stage2.0", "stage2.1")
    # Five tasks of 10 ms by two: 30 and 20; 1 + 4 and 2; each of two executors a first task of 9 and another of 5.
    assert graph.duration[:, 0].tolist() == [30, 20, 5, 2, 14, 14]
    assert graph.edge.tolist() == [
        *([0, 2], [0, 3], [1, 2], [1, 3]),
        *([0, 4], [0, 5], [1, 4], [1, 5]),
        *([2, 4], [2, 5], [3, 4], [3, 5]),
    ]
    assert graph.edge_bytes.tolist() == [15] * 4 + [0] * 8


def test_without_a_cap_there_is_a_node_per_stage_task() -> None:
    graph = read(JOBS, parallelism=100).graphs[0]
    assert graph.duration[:, 0].tolist() == [10] * 5 + [1, 2, 4] + [9] * 4
    assert graph.edges == 5 * 3 + 5 * 4 + 3 * 4
    assert graph.edge_bytes[:15].tolist() == [4.0] * 15


def test_jobs_arrive_in_milliseconds_and_in_order() -> None:
    instance = read(JOBS)
    assert (instance.name, instance.devices, instance.time_unit_s) == ("two", 5, 1e-3)
    assert [graph.name for graph in instance.graphs] == ["query", "late"]
    assert instance.release_time.tolist() == [0, 70]
    assert instance.deadline is not None and instance.deadline.tolist() == [np.inf, 500]
    assert instance.utility is not None and instance.utility.tolist() == [1, 2]
    assert instance.links[1, 0, 1] == pytest.approx(1e-6), "a byte over 1 GB/s in milliseconds"


def test_the_caller_says_where_jobs_run_else_the_file_else_the_default() -> None:
    machines = related({"big": (1, 2.0), "small": (2, 1.0)})
    assert read(JOBS, machines=machines).graphs[1].duration.tolist() == [[15, 30]]
    bare = {name: value for name, value in JOBS.items() if name in ("schema", "jobs")}
    assert read(bare).devices == EXECUTORS
    assert read(bare).name == "file"


def test_a_wave_stands_in_for_a_missing_one() -> None:
    def work(waves: dict[str, list[float]]) -> list[float]:
        stage = {"id": 0, "tasks": 3, "duration_ms": waves}
        data = {"schema": JOBS["schema"], "jobs": [{"stages": [stage]}]}
        return [float(ms) for ms in read(data, parallelism=2).graphs[0].duration[:, 0]]

    assert work({"fresh": [7], "rest": [3]}) == [10, 7]
    assert work({"first": [7]}) == [14, 7]
    assert work({"rest": [3, 5]}) == [8, 4]


@given(graphs(1), graphs(1))
def test_round_trip(first: TaskGraph, second: TaskGraph) -> None:
    instance = SocDagInstance(
        name="random",
        platform=executors(3).platform,
        graphs=(first, second),
        job_graph=np.array([0, 1]),
        release=np.array([0.0, 8.5]),
        deadline=np.array([np.inf, 100.0]),
        utility=np.array([1.0, 3.0]),
        time_unit_s=1e-3,
    )
    again = read(json.loads(format_spark(instance)))
    assert replace(again, graphs=_sorted(again)) == replace(instance, graphs=_sorted(instance))


def _sorted(instance: SocDagInstance) -> tuple[TaskGraph, ...]:
    rows = [(graph, np.lexsort(graph.edge.T[::-1])) for graph in instance.graphs]
    return tuple(replace(graph, edge=graph.edge[row], edge_bytes=graph.edge_bytes[row]) for graph, row in rows)


def edited(path: tuple[Any, ...], value: Any) -> Any:
    data = copy.deepcopy(JOBS)
    target: Any = data
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return data


STAGE = ("jobs", 1, "stages", 1)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("colour",), 1, "field colour: got 1, expected no such field but schema, name, executors, jobs"),
        (("jobs",), [], "field jobs: got [], expected at least one job"),
        (("jobs",), {}, "field jobs: got {}, expected a list"),
        (("jobs", 0), 3, "field jobs[0]: got 3, expected a table of fields"),
        (("jobs", 0, "arrival_ms"), -1, "field jobs[0].arrival_ms: got -1, expected a finite number of 0 or more"),
        (("jobs", 0, "deadline_ms"), "x", "field jobs[0].deadline_ms: got 'x', expected a number"),
        (("jobs", 0, "stages"), [], "field jobs[0].stages: got [], expected at least one stage"),
        (("jobs", 0, "stages", 0, "id"), None, "field jobs[0].stages[0].id: got nothing, expected an integer"),
        (("executors",), 0, "field executors: got 0, expected an integer from 1"),
        ((*STAGE, "id"), 0, "field jobs[1].stages[1].id: got 0, expected an id that no stage before has"),
        ((*STAGE, "tasks"), 0, "field jobs[1].stages[1].tasks: got 0, expected an integer from 1"),
        ((*STAGE, "tasks"), 10**9, "field jobs[1].stages[1].tasks: got 1000000000, expected an integer from 1 to"),
        ((*STAGE, "tasks"), 2, "field jobs[1].stages[1].duration_ms: got [1, 2, 4], expected 2 times, one per task"),
        ((*STAGE, "duration_ms"), float("nan"), "field jobs[1].stages[1].duration_ms: got nan, expected a finite"),
        ((*STAGE, "duration_ms"), [1, -2, 3], "field jobs[1].stages[1].duration_ms[1]: got -2, expected a finite"),
        ((*STAGE, "duration_ms"), {"first": []}, "expected times for at least one of fresh, first and rest"),
        ((*STAGE, "duration_ms"), {"last": [1]}, "field jobs[1].stages[1].duration_ms.last: got [1], expected no such"),
        ((*STAGE, "parents"), [7], "field jobs[1].stages[1].parents[0]: got 7, expected the id of a stage"),
        ((*STAGE, "parents"), ["0"], "field jobs[1].stages[1].parents[0]: got '0', expected an integer"),
        ((*STAGE, "parents"), [0, 0], "field jobs[1].stages[1].parents[1]: got 0, expected a parent that was not"),
        ((*STAGE, "parents"), [], "field jobs[1].stages[1].parent_bytes: got [60], expected 0 values, one per parent"),
        ((*STAGE, "parents"), [2], "graph query: field edge: a cycle runs through"),
    ],
)
def test_a_bad_field_is_named_in_one_line(path: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(InstanceError, match=re.escape(message)) as caught:
        read(edited(path, value))
    assert "\n" not in str(caught.value)


def test_a_product_of_stages_that_would_not_fit_in_memory_is_refused() -> None:
    wide = [{"id": k, "tasks": 10_000, "duration_ms": 1, "parents": [0][:k]} for k in range(2)]
    data = {"schema": JOBS["schema"], "jobs": [{"stages": wide}]}
    assert read(data).graphs[0].edges == 64
    with pytest.raises(InstanceError, match="expected at most 10000000 edges, with a lower parallelism than 10000"):
        read(data, parallelism=10_000)
    with pytest.raises(ConfigError, match="option parallelism: 0, expected an integer of at least 1"):
        read(data, parallelism=0)
