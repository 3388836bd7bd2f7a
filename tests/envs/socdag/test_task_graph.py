from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from strategies import graphs

from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.errors import InstanceError

DIAMOND: dict[str, Any] = {
    "name": "diamond",
    "task_names": ("a", "b", "c", "d"),
    "duration": [[1.0, 2.0], [3.0, np.inf], [np.inf, 4.0], [0.0, 0.5]],
    "edge": [[0, 1], [0, 2], [1, 3], [2, 3]],
    "edge_bytes": [8.0, 0.0, 2.0, 2.0],
}


def test_a_graph_tells_sizes_support_and_neighbours() -> None:
    graph = TaskGraph(**DIAMOND)
    assert (graph.tasks, graph.edges) == (4, 4)
    assert graph.supported.tolist() == [[True, True], [True, False], [False, True], [True, True]]
    into, out = graph.predecessors, graph.successors
    assert into.offset.tolist() == [0, 0, 1, 2, 4]
    assert (into.edge.tolist(), into.task.tolist()) == ([0, 1, 2, 3], [0, 0, 1, 2])
    assert out.offset.tolist() == [0, 2, 3, 4, 4]
    assert out.task.tolist() == [1, 2, 3, 3]


def test_the_topological_order_takes_the_lowest_number_first() -> None:
    graph = TaskGraph(**DIAMOND | {"edge": [[3, 1], [3, 2], [1, 0], [2, 0]]})
    assert graph.topological_order.tolist() == [3, 1, 2, 0]


def test_a_graph_may_have_no_edges_and_compares_by_content() -> None:
    lone = TaskGraph(name="one", task_names=("a",), duration=[[2]], edge=[], edge_bytes=[])
    assert lone.edge.shape == (0, 2)
    assert lone.predecessors.offset.tolist() == [0, 0]
    assert lone == TaskGraph(name="one", task_names=["a"], duration=[[2.0]], edge=[], edge_bytes=[])
    assert hash(TaskGraph(**DIAMOND)) == hash(TaskGraph(**DIAMOND))
    assert TaskGraph(**DIAMOND) != TaskGraph(**DIAMOND | {"edge_bytes": [8.0, 0.0, 2.0, 3.0]})
    assert lone != "one"
    with pytest.raises(ValueError, match="read-only"):
        lone.duration[0, 0] = 1.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"edge": [[0, 1], [1, 2], [2, 0], [2, 3]]}, "field edge: a cycle runs through "),
        ({"edge": [[0, 1], [0, 2], [3, 3], [2, 3]]}, "a cycle runs through d -> d"),
        ({"edge": [[0, 1], [0, 2], [1, 3], [2, 4]]}, "field edge[3]: 2 -> 4 names an unknown task, expected 0 to 3"),
        ({"edge": [[0, 1], [-1, 2], [1, 3], [2, 3]]}, "field edge[1]: -1 -> 2 names an unknown task"),
        ({"edge": [[0, 1], [2**32, 2], [1, 3], [2, 3]]}, "field edge: a value outside 32 bits"),
        ({"edge": [[0, 1], [0, 2], [1, 3], [0, 1]]}, "field edge[3]: a -> b is listed twice"),
        ({"edge": [[0.0, 1.5]] * 4}, "field edge: expected integers in 2 dimension(s), got float64"),
        ({"edge": [[0, 1, 2]] * 4}, "field edge: shape (4, 3), expected pairs"),
        ({"edge_bytes": [1.0, 2.0]}, "field edge_bytes: 2 values for 4 edges"),
        ({"edge_bytes": [1.0, np.nan, 0.0, 0.0]}, "field edge_bytes[1]: nan, expected a finite number"),
        ({"edge_bytes": [1.0, 1.0, -1.0, 0.0]}, "field edge_bytes[2]: -1.0, expected"),
        ({"duration": [[1, 1], [1, -2], [1, 1], [1, 1]]}, "field duration[1, 1] of task b: -2.0, expected 0 or more"),
        ({"duration": [[1, 1], [1, np.nan], [1, 1], [1, 1]]}, "field duration[1, 1] of task b: nan, expected"),
        ({"duration": [[1, 1], [1, 1], [np.inf] * 2, [1, 1]]}, "field duration[2]: no device type supports task c"),
        ({"duration": [["x", 1]] * 4}, "field duration: expected numbers in 2 dimension(s)"),
        ({"duration": np.zeros((0, 2))}, "field duration: shape (0, 2), expected at least one task and type"),
        ({"task_names": ("a",)}, "field task_names: 1 names for 4 tasks"),
    ],
)
def test_a_broken_graph_is_refused_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InstanceError, match=re.escape(message)) as caught:
        TaskGraph(**DIAMOND | fields)
    assert str(caught.value).startswith("graph diamond: ")
    assert "\n" not in str(caught.value)


def test_the_message_shows_the_cycle_and_not_what_hangs_on_it() -> None:
    with pytest.raises(InstanceError, match=r"runs through (\w) -> (\w) -> (\w) -> \1$") as caught:
        TaskGraph(**DIAMOND | {"edge": [[0, 1], [1, 2], [2, 0], [2, 3]]})
    shown = str(caught.value).split("through ")[1].split(" -> ")
    assert set(shown) == {"a", "b", "c"}
    assert (shown[0], shown[1]) in {("a", "b"), ("b", "c"), ("c", "a")}


def test_a_hundred_thousand_tasks_are_checked_in_a_second_or_so() -> None:
    count = 100_000
    ring = np.stack([np.arange(count), (np.arange(count) + 1) % count], axis=1)
    fields: dict[str, Any] = {
        "name": "ring",
        "task_names": tuple(map(str, range(count))),
        "duration": np.ones((count, 1)),
        "edge_bytes": np.zeros(count),
    }
    start = time.process_time()
    with pytest.raises(InstanceError, match=r"through 0 -> 1 -> 2 -> .* -> 0$|-> \.\.\. ->"):
        TaskGraph(**fields, edge=ring)
    TaskGraph(**fields | {"edge_bytes": np.zeros(count - 1)}, edge=ring[:-1])
    assert time.process_time() - start < 10.0


@given(graphs(2))
def test_order_and_adjacency_agree_with_the_edges(graph: TaskGraph) -> None:
    place = np.argsort(graph.topological_order)
    assert sorted(graph.topological_order.tolist()) == list(range(graph.tasks))
    for source, target in graph.edge.tolist():
        assert place[source] < place[target]
    for adjacency, own, other in ((graph.predecessors, 1, 0), (graph.successors, 0, 1)):
        for task in range(graph.tasks):
            span = slice(*adjacency.offset[task : task + 2])
            rows = [row for row in range(graph.edges) if graph.edge[row, own] == task]
            assert adjacency.edge[span].tolist() == rows
            assert adjacency.task[span].tolist() == graph.edge[rows, other].tolist()
