from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import graphs

from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.machines import identical, related
from schedrl.envs.socdag.stg import PROCESSORS, format_stg, parse_stg
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.errors import InstanceError

PLAIN = """\
          4
          0          0          0
          1         20          1          0
          2          3          1          0
          3          5          2          1          2
          4          7          1          2
          5          0          2          3          4
# Standard Task Graph Set Project
# Parallelism : 1.4
"""
PRICED = """\
4
0 0 0
1 20 1  0 0
2 3 1  0 0
3 5 2  1 6  2 0
4 7 1  2 4
5 0 2  3 0  4 0
"""
ON_LINES = "4\n0 0 0\n1 20 1\n 0 0\n2 3 1\n 0 0\n3 5 2\n 1 6\n 2 0\n4 7 1\n 2 4\n5 0 2\n 3 0\n 4 0\n"
PROTOTYPE = "4 3\n1 20 0\n2 3 0\n3 5 2 1 2\n4 7 1 2\n5 0 2 3 4\n"
EDGES = [[0, 2], [1, 2], [1, 3]]


def read(text: str) -> SocDagInstance:
    return parse_stg(text, source="g.stg", name="g")


@pytest.mark.parametrize(
    ("text", "sizes", "processors"),
    [
        (PLAIN, [0, 0, 0], PROCESSORS),
        (PRICED, [6, 0, 4], PROCESSORS),
        (ON_LINES, [6, 0, 4], PROCESSORS),
        (PROTOTYPE, [0, 0, 0], 3),
    ],
)
def test_every_form_gives_the_tasks_without_their_dummies(text: str, sizes: list[int], processors: int) -> None:
    instance = read(text)
    graph = instance.graphs[0]
    assert graph.task_names == ("1", "2", "3", "4")
    assert graph.duration[:, 0].tolist() == [20, 3, 5, 7]
    assert graph.edge.tolist() == EDGES
    assert graph.edge_bytes.tolist() == sizes
    assert instance.devices == processors
    assert instance.name == graph.name == "g"


def test_a_communication_cost_is_a_time_between_unlike_processors() -> None:
    links = read(PRICED).links
    assert links[0].max() == 0
    assert (links[1] + np.eye(PROCESSORS) == 1).all()


def test_dummies_that_take_part_in_the_schedule_are_kept() -> None:
    assert read("1\n0 2 0\n1 3 1 0\n2 0 1 1\n").graphs[0].task_names == ("0", "1")
    assert read("1\n0 0 0\n1 3 1 0 0\n2 0 1 1 5\n").graphs[0].task_names == ("1", "2")


def test_speeds_divide_the_costs() -> None:
    machines = related({"big": (1, 2.0), "little": (3, 0.5)})
    instance = parse_stg(PLAIN, source="g.stg", name="g", machines=machines)
    assert instance.graphs[0].duration.tolist() == [[10, 40], [1.5, 6], [2.5, 10], [3.5, 14]]
    assert format_stg(instance, machines).splitlines()[:4] == ["4", "0 0 0", "1 20 1 0", "2 3 1 0"]


def test_the_writer_adds_dummies_and_the_name() -> None:
    assert format_stg(read(PRICED)).splitlines() == [
        "4",
        "0 0 0",
        "1 20 1 0 0",
        "2 3 1 0 0",
        "3 5 2 1 6 2 0",
        "4 7 1 2 4",
        "5 0 2 3 0 4 0",
        "# g",
    ]


@given(graphs(1), st.integers(1, 4))
def test_round_trip(graph: TaskGraph, processors: int) -> None:
    machines = identical(processors)
    instance = SocDagInstance(name="graph", platform=machines.platform, graphs=(graph,))
    again = parse_stg(format_stg(instance), source="g.stg", name="graph", machines=machines)
    assert again.platform == instance.platform
    assert np.array_equal(again.graphs[0].duration, graph.duration)
    order = np.lexsort(graph.edge.T[:2])
    back = np.lexsort(again.graphs[0].edge.T[:2])
    assert np.array_equal(again.graphs[0].edge[back], graph.edge[order])
    assert np.array_equal(again.graphs[0].edge_bytes[back], graph.edge_bytes[order])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x\n", "g.stg:1: field tasks: 'x', expected an integer from 1"),
        ("0\n0 0 0\n1 0 1 0\n", "g.stg:1: field tasks: '0'"),
        ("1 2 3\n", "g.stg:1: 3 values, expected the number of tasks"),
        ("# only a comment\n", "g.stg:1: file breaks off, expected the number of tasks"),
        ("4\n0 0 0\n1 20 1 0\n", "g.stg:3: file breaks off, expected 4 more of 6 tasks with their dummies"),
        ("999999999\n0 0 0\n", "g.stg:2: file breaks off, expected 1000000000 more"),
        ("4\n0 0\n", "g.stg:2: 2 values, expected id, cost and number of predecessors"),
        (PLAIN.replace("20", "-2"), "g.stg:3: field cost of task 1: '-2', expected a finite number of 0 or more"),
        (PLAIN.replace("20", "nan"), "g.stg:3: field cost of task 1: 'nan'"),
        (PLAIN.replace("20", "1e999"), "g.stg:3: field cost of task 1: '1e999'"),
        ("1\n0 0 0\n1 3 1 9\n2 0 1 1\n", "g.stg:3: field predecessor of task 1: '9', expected an integer from 0 to 2"),
        ("1\n0 0 0\n1 3 5 0\n2 0 1 1\n", "g.stg:3: field predecessors of task 1: '5', expected an integer from 0 to 2"),
        ("1\n0 0 0\n0 3 0\n2 0 1 1\n", "g.stg:3: field id: task 0 is listed twice"),
        ("1\n0 0 0\n7 3 1 0\n2 0 1 1\n", "g.stg:3: field id: '7', expected an integer from 0 to 2"),
        ("2\n0 0 0\n1 3 2 0 0\n", "g.stg:3: field predecessors of task 1: 0 is listed twice"),
        ("2\n0 0 0\n1 3 2 0 0 0\n", "g.stg:3: field predecessors of task 1: 3 values, expected 2 ids or 2 pairs"),
        ("1\n0 0 0\n1 3 1 0 -4\n2 0 1 1 0\n", "g.stg:3: field bytes from 0 to 1: '-4'"),
        ("1\n0 0 0\n1 3 1\n0\n2 0 1 1\n", "g.stg:4: field predecessors of task 1: 1 values, expected id and bytes"),
        ("1\n0 0 0\n1 3 1 0\n2 0 1 1\n3 3 0\n", "g.stg:5: text after the last of 1 tasks"),
        ("2\n0 0 0\n1 3 1 2\n2 3 1 1\n3 0 1 2\n", "graph g: field edge: a cycle runs through 1 -> 2 -> 1"),
    ],
)
def test_broken_text_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(InstanceError, match=re.escape(message)) as caught:
        read(text)
    assert "\n" not in str(caught.value)


def test_what_stg_cannot_hold_is_not_written() -> None:
    instance = read(PLAIN)
    platform = instance.platform
    two = SocDagInstance(name="two", platform=platform, graphs=instance.graphs, job_graph=np.array([0, 0]))
    with pytest.raises(InstanceError, match="two: field job_graph: STG text cannot hold it; use format json"):
        format_stg(two)
    late = SocDagInstance(name="late", platform=platform, graphs=instance.graphs, deadline=np.array([5.0]))
    with pytest.raises(InstanceError, match="late: field deadline: STG text cannot hold it"):
        format_stg(late)
    with pytest.raises(InstanceError, match="g: field platform: STG text cannot hold it; pass the machines it is for"):
        format_stg(instance, related({"cpu": (4, 1.0)}))
    unrelated = TaskGraph(name="u", task_names=("a", "b"), duration=[[1, 2], [2, 1]], edge=[], edge_bytes=[])
    pair = related({"x": (1, 1.0), "y": (1, 0.5)})
    with pytest.raises(InstanceError, match="graph u: field duration: STG text holds one runtime per task"):
        format_stg(SocDagInstance(name="u", platform=pair.platform, graphs=(unrelated,)), pair)
