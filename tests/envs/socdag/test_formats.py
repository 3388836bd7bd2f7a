"""Every format is told by its content, written and read back; every broken file gives one line that names it."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import instances

from schedrl.envs.socdag.formats import (
    FORMATS,
    format_instance,
    parse_instance,
    read_instance,
    read_instances,
    write_instance,
)
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.machines import related
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.errors import ConfigError, InstanceError

MACHINES = related({"fast": (1, 2.0), "slow": (1, 1.0)}, bandwidth_bytes_per_s=4.0)
GRAPH = TaskGraph(
    name="g",
    task_names=("1", "2", "3"),
    duration=[[1, 2], [4, 8], [0.5, 1]],
    edge=[[0, 1], [0, 2], [1, 2]],
    edge_bytes=[8, 0, 3],
)
SMALL = SocDagInstance(name="small", platform=MACHINES.platform, graphs=(GRAPH,))
CYCLE = {
    "json": format_instance(SMALL, "json").replace("[0, 2, 0.0]", "[2, 0, 0.0]"),
    "wfformat": format_instance(SMALL, "wfformat", machines=MACHINES).replace('"parents": []', '"parents": ["3"]'),
    "stg": "2\n0 0 0\n1 1 1 2\n2 1 1 1\n3 0 1 2\n",
    "csv": "task,a\nx,1\ny,1\n\nsource,target,bytes\nx,y,0\ny,x,0\n",
    "spark": format_instance(SMALL, "spark", machines=MACHINES)
    .replace('"duration_ms": 2000.0', '"duration_ms": 2')
    .replace('"duration_ms": 2}', '"duration_ms": 2, "parents": [2], "parent_bytes": [0]}'),
}


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_told_by_its_content_and_says_the_same(format: str, tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    write_instance(SMALL, path, format, machines=MACHINES)
    assert [file.name for file in tmp_path.iterdir()] == ["small.json"]
    again = read_instance(path, machines=MACHINES)
    assert again.name == "small"
    assert again.tasks == 3
    assert (again.duration_s == SMALL.duration_s).all()
    order = np.lexsort(again.flat.edge.T[::-1])
    assert again.flat.edge[order].tolist() == GRAPH.edge.tolist()
    assert again.flat.edge_bytes[order].tolist() == [8, 0, 3]
    assert again.links * again.time_unit_s == pytest.approx(SMALL.links)


@pytest.mark.parametrize("format", FORMATS)
def test_a_cycle_is_one_line_that_names_the_file(format: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(CYCLE[format])
    with pytest.raises(InstanceError, match=re.escape(str(path)) + ".*field edge: a cycle runs through ") as caught:
        read_instance(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "bad.json: empty file, expected socdag, Spark or WfCommons JSON, STG text, or CSV"),
        (b" \n", "bad.json: empty file"),
        (b'{"schema": \n "schedrl/soc', "bad.json:2: not valid JSON: "),
        (b"{" * 100_000, "bad.json:1: not valid JSON: "),
        (b"[" * 100_000, "bad.json: not valid JSON: nested too deeply"),
        (b"[1]", "bad.json: field (top level): got [1], expected a table of fields"),
        (b"{}", "bad.json: field schema: got nothing, expected 'schedrl/socdag-instance/1' or 'schedrl/spark-jobs/1'"),
        (b'{"schema": "schedrl/socdag-instance/9"}', "field schema: got 'schedrl/socdag-instance/9', expected"),
        (b'{"schemaVersion": "3.0"}', "bad.json: field schemaVersion: got '3.0', expected one of the versions 1.0,"),
        (b"caf\xe9", "bad.json:1: not UTF-8 text"),
        (b"task,a\nx,\0\n", "bad.json:2: binary file"),
        (b"hello world", "bad.json:1: field header: 'hello world', expected a header"),
        (b'{"schema": 1' + b"0" * 5000 + b"}", "bad.json:1: not valid JSON: "),
    ],
)
def test_what_is_no_instance_is_refused_in_one_line(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    with pytest.raises(InstanceError, match=re.escape(message)) as caught:
        read_instance(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_and_windows_line_ends_are_no_matter() -> None:
    text = format_instance(SMALL, "csv").replace("\n", "\r\n")
    assert parse_instance(text, source="x", name="small") == parse_instance(
        format_instance(SMALL, "csv"), source="x", name="small"
    )


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufeff" + format_instance(SMALL, "csv"), encoding="utf-8")
    assert read_instance(tmp_path / "a.csv").tasks == 3


def test_names_with_line_ends_stay_in_one_line() -> None:
    data = json.loads(SMALL.to_json())
    data["graphs"][0] |= {"name": "two\nlines", "edges": [[0, 9, 1]]}
    with pytest.raises(InstanceError, match=r"^f\.json: graph two lines: field edge\[0\]") as caught:
        parse_instance(json.dumps(data), source="f.json", name="f")
    assert "\n" not in str(caught.value)


def test_a_folder_is_read_in_natural_order_and_other_files_are_ignored(tmp_path: Path) -> None:
    for number in (10, 9):
        write_instance(replace(SMALL, name=f"g-{number}"), tmp_path / f"g-{number}.json")
    (tmp_path / "sub").mkdir()
    write_instance(SMALL, tmp_path / "sub" / "last.stg", "stg", machines=MACHINES)
    (tmp_path / "notes.txt").write_text("not an instance")
    assert [instance.name for instance in read_instances(tmp_path)] == ["g-9", "g-10", "last"]
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(InstanceError, match=r"empty: no instance file, expected at least one of \*\.json"):
        list(read_instances(empty))
    with pytest.raises(InstanceError, match=r"none\.json: cannot be read: No such file"):
        read_instance(tmp_path / "none.json")


def test_writing_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="option format: 'dot', expected one of json, wfformat, stg, csv, spark"):
        format_instance(SMALL, "dot")
    with pytest.raises(InstanceError, match="cannot be written: No such file"):
        write_instance(SMALL, tmp_path / "no" / "x.json")
    odd = replace(SMALL, graphs=(replace(GRAPH, task_names=("\ud800", "b", "c")),))
    with pytest.raises(InstanceError, match="cannot be written: a name is no valid text"):
        write_instance(odd, tmp_path / "x.csv", "csv")
    assert list(tmp_path.iterdir()) == []


@given(instances(jobs=3, noise=True, deadlines=True, capacity=True, memory=True, contention=True))
def test_json_holds_every_instance(instance: SocDagInstance) -> None:
    assert parse_instance(format_instance(instance, "json"), source="x", name="other") == instance


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=300)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_in_one_line(format: str, data: st.DataObject) -> None:
    text = format_instance(SMALL, format, machines=MACHINES)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 12, len(text))))
    put = data.draw(st.sampled_from(["", "null", "-1", "1e999", "nan", "[]", "{}", '"', ",", "\n", "9" * 30, "x"]))
    try:
        instance = parse_instance(text[:start] + put + text[end:], source="x.txt", name="x")
    except InstanceError as error:
        assert str(error).startswith("x.txt")
        assert "\n" not in str(error)
    else:
        assert instance.flat.order.size == instance.tasks


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_hundred_thousand_tasks_are_read_in_seconds(format: str) -> None:
    count, rng = 100_000, np.random.default_rng(0)
    target = np.arange(1, count)
    source = np.maximum(target - rng.integers(1, 50, count - 1), 0)
    graph = TaskGraph(
        name="big",
        task_names=tuple(f"t{task}" for task in range(count)),
        duration=MACHINES.duration(rng.integers(1, 99, count).astype(float)),
        edge=np.stack([source, target], axis=1),
        edge_bytes=rng.integers(0, 9, count - 1).astype(float),
    )
    text = format_instance(
        SocDagInstance(name="big", platform=MACHINES.platform, graphs=(graph,)), format, machines=MACHINES
    )
    start = time.process_time()
    assert parse_instance(text, source="x", name="big", machines=MACHINES).tasks == count
    assert time.process_time() - start < 30.0
