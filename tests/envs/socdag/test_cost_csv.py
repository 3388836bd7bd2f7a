from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from strategies import instances

from schedrl.envs.socdag.cost_csv import format_cost_csv, parse_cost_csv
from schedrl.envs.socdag.formats import read_instance, read_instances
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.solution import DagSchedule, check, objectives
from schedrl.errors import InstanceError

# The ten tasks of Topcuoglu, Hariri and Wu 2002.
COSTS = """\
task,P1,P2,P3
1,14,16,9
2,13,19,18
3,11,13,19
4,13,8,17
5,12,13,10
6,13,16,9
7,7,15,11
8,5,11,14
9,18,12,20
10,21,7,16
"""
EDGES = """\
source,target,bytes
1,2,18
1,3,12
1,4,9
1,5,11
1,6,14
2,8,19
2,9,16
3,7,23
4,8,27
4,9,23
5,9,13
6,8,15
7,10,17
8,10,11
9,10,13
"""
SMALL = """\
task,cpu,acc
a,4,6
b,,2
c,inf,3

source,target,bytes
a,b,10
b,c,0

bandwidth,cpu,acc
cpu,0,5
acc,20,

startup,cpu,acc
cpu,,1
acc,2,
"""


def read(text: str) -> SocDagInstance:
    return parse_cost_csv([("g.csv", text)], name="g")


def test_the_canonical_graph_has_its_proven_optimum() -> None:
    instance = parse_cost_csv([("c", COSTS), ("e", EDGES)], name="canonical")
    # An optimal schedule of length 73, as CP-SAT proved; HEFT takes 80 on this graph.
    device = [3, 3, 2, 1, 3, 1, 2, 1, 2, 2]
    start = [0, 9, 21, 18, 27, 31, 34, 46, 54, 66]
    schedule = DagSchedule(device=np.array(device) - 1, start=np.array(start, dtype=float), entry=np.zeros(1))
    assert list(check(instance, schedule)) == []
    assert objectives(instance, schedule)["latency"] == 73
    early = DagSchedule(device=np.array(device) - 1, start=np.array([*start[:9], 65.0]), entry=np.zeros(1))
    assert list(check(instance, early)) != []


def test_tables_say_cost_support_bandwidth_and_startup() -> None:
    instance = read(SMALL)
    assert instance.graphs[0].duration.tolist() == [[4, 6], [np.inf, 2], [np.inf, 3]]
    assert instance.graphs[0].edge.tolist() == [[0, 1], [1, 2]]
    assert instance.device_names == ("cpu", "acc")
    assert instance.links[0].tolist() == [[0, 1], [2, 0]]
    assert instance.links[1].tolist() == [[0, 0.2], [0.05, 0]]


def test_a_file_per_table_reads_like_one_file(tmp_path: Path) -> None:
    names = (".costs.csv", ".edges.csv", ".bandwidth.csv", ".startup.csv")
    for suffix, table in zip(names, SMALL.split("\n\n"), strict=True):
        (tmp_path / f"g{suffix}").write_text(table)
    assert read_instance(tmp_path / "g.costs.csv") == read(SMALL)
    assert [instance.name for instance in read_instances(tmp_path)] == ["g"]
    (tmp_path / "g.edges.csv").unlink()
    with pytest.raises(InstanceError, match=r"g\.costs\.csv: no table of edges, expected one here or in a file beside"):
        read_instance(tmp_path / "g.costs.csv")
    with pytest.raises(InstanceError, match=r"g\.startup\.csv: no table of costs"):
        read_instance(tmp_path / "g.startup.csv")


def test_the_tables_of_the_heft_package_are_read(tmp_path: Path) -> None:
    files = {
        "x_task_exe_time.csv": "TP,P_0,P_1\nT_0,4,6\nT_1,3,2\nT_2,1,3\n",
        "x_task_connectivity.csv": "T,T0,T1,T2\nT0,0,10,0\nT1,0,0,7\nT2,0,0,0\n",
        "x_resource_BW.csv": "P,P_0,P_1\nP_0,0,5\nP_1,20,0\nStartup,1,2\n",
        "x_resource_BW_startup.csv": "P,P_0,P_1\nP_0,0,5\nP_1,20,0\nStartup,1,2\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (instance,) = read_instances(tmp_path)
    assert instance.name == "x"
    assert instance.graphs[0].task_names == ("T_0", "T_1", "T_2")
    assert instance.graphs[0].edge.tolist() == [[0, 1], [1, 2]]
    assert instance.graphs[0].edge_bytes.tolist() == [10, 7]
    assert instance.links[0].tolist() == [[0, 1], [2, 0]]
    assert instance.links[1].tolist() == [[0, 0.2], [0.05, 0]]


@given(instances())
def test_round_trip(instance: SocDagInstance) -> None:
    plain = replace(instance, whole_units=False)
    again = parse_cost_csv([("g.csv", format_cost_csv(plain))], name="random")
    assert np.array_equal(again.flat.duration, plain.flat.duration)
    assert np.array_equal(again.flat.edge, plain.flat.edge)
    assert np.array_equal(again.flat.edge_bytes, plain.flat.edge_bytes)
    assert np.array_equal(again.links, plain.links)
    assert again.device_names == plain.device_names
    assert again.graphs[0].task_names == plain.graphs[0].task_names
    assert format_cost_csv(again) == format_cost_csv(plain)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("a,4,6", "a,-4,6", "g.csv:2: field cpu: '-4', expected a finite number of 0 or more, or nothing"),
        ("a,4,6", "a,nan,6", "g.csv:2: field cpu: 'nan'"),
        ("a,4,6", "a,x,6", "g.csv:2: field cpu: 'x'"),
        ("a,4,6", "a,4", "g.csv:2: row 'a': 2 cells, expected 3"),
        ("b,,2", "b,,", "g.csv:3: task 'b': no device supports it"),
        ("b,,2", "a,,2", "g.csv:3: field task: 'a' is listed twice"),
        ("b,,2", ",,2", "g.csv:3: field task: empty, expected a name"),
        ("task,cpu,acc", "task,cpu,cpu", "g.csv:1: field device: 'cpu' is listed twice"),
        ("task,cpu,acc", "job,cpu,acc", "g.csv:1: field header: 'job', expected a header that starts with task"),
        ("source,target,bytes", "source,target", "g.csv:7: row 'a': 3 cells, expected 2"),
        ("source,target,bytes", "source,target,size", "g.csv:6: field header: expected source,target,bytes"),
        ("a,b,10", "a,z,10", "g.csv:7: field target: 'z', expected the name of a task"),
        ("a,b,10", "z,b,10", "g.csv:7: field source: 'z', expected the name of a task"),
        ("a,b,10", "a,b,inf", "g.csv:7: field bytes: 'inf', expected a finite number of 0 or more"),
        ("b,c,0", "a,b,0", "g.csv:8: edge a -> b is listed twice"),
        ("b,c,0", "b,a,0", "graph g: field edge: a cycle runs through"),
        ("acc,20,", "acc,0,", "no link from 'acc' to 'cpu'; every pair of devices needs one"),
        ("cpu,0,5", "gpu,0,5", "g.csv:10: table bandwidth: expected a row and a column for each of cpu, acc"),
        ("startup,cpu", "bandwidth,cpu", "g.csv:14: a second table of bandwidth, expected one"),
        ("acc,2,", "acc,-2,", "g.csv:16: field cpu: '-2'"),
    ],
)
def test_broken_tables_are_refused_in_one_line(old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(InstanceError, match=re.escape(message)) as caught:
        read(SMALL.replace(old, new, 1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ("T,a,b\na,0,1\nb,0,0\n", "m:1: a matrix of 2 rows and 2 columns for 3 tasks"),
        ("T,a,b,z\na,0,1,0\nb,0,0,0\nc,0,0,0\n", "m:1: field target: 'z', expected the name of a task"),
        ("T,a,b,c\na,0,1,0\nb,0,0,0\nz,0,0,0\n", "m:4: field source: 'z', expected the name of a task"),
        ("T,a,b,c\na,0,1,0\na,0,0,0\nc,0,0,0\n", "m:3: field source: 'a' is listed twice"),
        ("T,a,b,c\na,0,-1,0\nb,0,0,0\nc,0,0,0\n", "m:2: field bytes to b: '-1'"),
    ],
)
def test_a_broken_matrix_is_refused(matrix: str, message: str) -> None:
    with pytest.raises(InstanceError, match=re.escape(message)):
        parse_cost_csv([("c", SMALL.split("\n\n")[0]), ("m", matrix)], name="g")


def test_what_csv_cannot_hold_is_not_written() -> None:
    instance = read(SMALL)
    shared = replace(instance, graphs=(replace(instance.graphs[0], task_names=("a", "a", "c")),))
    for broken, field in (
        (replace(instance, release=np.ones(1)), "job_graph"),
        (replace(instance, deadline=np.ones(1)), "deadline"),
        (replace(instance, whole_units=True), "whole_units"),
        (replace(instance, communication="contention"), "communication"),
        (shared, "task_names"),
    ):
        with pytest.raises(InstanceError, match=f"g: field {field}: CSV cannot hold it; use format json"):
            format_cost_csv(broken)
