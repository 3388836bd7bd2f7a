"""Every load format is read to the same counts; every broken file gives one line that names it."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.envs.moe.formats import (
    instance_of_loads,
    read_harmoeny_counts,
    read_instance,
    read_instances,
    read_loads,
)
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.loads import LoadDump
from schedrl.envs.moe.model import MoEModel, get_model
from schedrl.errors import ConfigError, InstanceError

NEEDS_DATA = pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no counts to read")
COUNTS = np.arange(1, 25).reshape(2, 3, 4)
MODEL = MoEModel(name="small", layers=3, experts=4, top_k=2, hidden=64, intermediate=64)
HARMOENY = ",dataset,iteration,layer_idx,0,1\n0,wiki,0,0,1,2\n1,wiki,0,1,3,4\n2,books,0,0,5,6\n3,books,0,1,7,8\n"


def placement_instance() -> ExpertPlacementInstance:
    return instance_of_loads(
        LoadDump(counts=COUNTS, source="small.npy"),
        model=MODEL,
        device="h100-sxm",
        nodes=1,
        per_node=2,
        redundant=2,
        planned=1,
        iterations=1,
    )


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def history(counts: Any) -> bytes:
    return json.dumps({"load_history": [{"logical_expert_load": step} for step in counts]}).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npy", npy(COUNTS)),
        ("a.npy", npy(COUNTS.astype(np.float32))),
        ("a.npz", npz(only=COUNTS)),
        ("a.npz", npz(logical_count=COUNTS, rank=np.array(0))),
        ("a.npz", npz(names=np.array(["x"]), counts=COUNTS)),
        ("a.json", json.dumps({"logical_count": COUNTS.tolist()}).encode()),
        ("a.json", history(COUNTS.tolist())),
    ],
)
def test_every_load_format_says_the_same(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    dump = read_loads(path)
    assert dump.source == str(path)
    assert dump.counts.tolist() == COUNTS.tolist()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.npy", b"nothing", "no array of numbers"),
        ("a.npy", b"", "no array of numbers"),
        ("a.npy", npy(COUNTS)[:-9], "no array of numbers"),
        ("a.npy", npy(np.array([{"a": 1}])), "no array of numbers: Object arrays cannot be loaded"),
        ("a.npy", npy(np.full((2, 3), np.nan)), "field counts: window 0 layer 0 expert 0 has nan"),
        ("a.npy", npy(-COUNTS), "field counts: window 0 layer 0 expert 0 has -1, expected at least 0"),
        ("a.npy", npy(COUNTS[0, 0]), r"field counts: shape \(4,\)"),
        ("a.npy", npy(0 * COUNTS), "field counts: all zero"),
        ("a.npz", npz(a=COUNTS, b=COUNTS), "arrays a, b, expected logical_count or counts"),
        ("a.npz", b"PK", "no array of numbers"),
        ("a.json", b'{"logical_count": [[1, 2], [3]]}', "field logical_count: rows of unequal length"),
        ("a.json", b'{"logical_count": [[1, NaN]]}', "field logical_count: .* expert 1 has nan"),
        ("a.json", b'{"logical_count": [[1, 0], [2, 0]]}', "field logical_count: 1 of 2 experts have no token"),
        ("a.json", b'{"logical_count": [[0, 0], [0, 0]]}', "field logical_count: all zero"),
        ("a.json", b'{"logical_count": 7}', r"field logical_count: shape \(\)"),
        ("a.json", b'{"load_history": []}', "field load_history: expected a list of steps"),
        ("a.json", b'{"load_history": [{}]}', r"field load_history\[0\].logical_expert_load: missing"),
        ("a.json", history([[[1, 2]], [[1, 2, 3]]]), "field logical_expert_load: rows of unequal length"),
        ("a.json", history([[[1, -2]]]), "field logical_expert_load: window 0 layer 0 expert 1 has -2"),
        ("a.json", b"[1]", "expected a table with logical_count or load_history"),
        ("a.json", b"{\n,", ":2: not valid JSON"),
        ("a.json", b"\xff\xfe", "not UTF-8 text"),
        ("a.txt", b"1", "suffix '.txt', expected one of .npy"),
        ("a.pt", b"1", "no torch archive"),
        ("a.csv", b"row,e0\n0,9\n", ":2: field e0: '9', expected an expert from 0 to 3"),
        ("a.csv", HARMOENY.replace("8", "-8").encode(), ":5: field 1: '-8', expected an integer of 0 or more"),
        ("a.csv", HARMOENY.replace("8", "8,9").encode(), ":5: 7 fields, expected 6"),
        ("a.csv", HARMOENY.replace("3,books,0,1", "3,books,0,0").encode(), ":5: iteration 0 layer 0 of 'books' again"),
        ("a.csv", HARMOENY.replace("3,books,0,1", "3,books,1,1").encode(), "iteration 0 lacks layer 1"),
        ("a.csv", HARMOENY.replace("layer_idx,0,1", "layer_idx,0,2").encode(), ":1: header"),
        ("a.csv", b",dataset,iteration,layer_idx,0\n", "no counts, expected lines after the header"),
    ],
)
def test_malformed_files_get_one_line_that_names_them(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InstanceError, match=problem) as caught:
        read_loads(path, experts=4, tokens_per_window=1)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.json", "a.pt", "a.csv"])
def test_missing_files_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InstanceError, match=rf"{name}: cannot be read: No such file"):
        read_loads(tmp_path / name)


def test_compressed_archives_are_read_and_broken_ones_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, counts=COUNTS)
    assert (read_loads(path).counts == COUNTS).all()
    with zipfile.ZipFile(path) as file:
        entry = file.infolist()[0]
    broken = bytearray(path.read_bytes())
    start = entry.header_offset + 60
    broken[start : start + 20] = bytes(20)
    path.write_bytes(broken)
    with pytest.raises(InstanceError, match="no array of numbers"):
        read_loads(path)


def test_csv_holds_routes_or_counts_by_dataset(tmp_path: Path) -> None:
    routes, counts = tmp_path / "routes.csv", tmp_path / "counts.csv"
    routes.write_text("row,e0\n0,1\n1,1\n2,0\n3,1\n")
    counts.write_text(HARMOENY)
    assert read_loads(routes, experts=2, tokens_per_window=2).counts.tolist() == [[[0, 2]], [[1, 1]]]
    assert read_loads(counts).counts.tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert read_loads(counts, dataset="books").counts.tolist() == [[[5, 6], [7, 8]]]
    with pytest.raises(ConfigError, match="no dataset 'x'; choose from wiki, books"):
        read_loads(counts, dataset="x")
    with pytest.raises(ConfigError, match="need the number of experts and of tokens per window"):
        read_loads(routes)


def test_instances_are_read_back_alone_and_from_folders(tmp_path: Path) -> None:
    instance = placement_instance()
    for name in ("b-10.json", "b-2.json"):
        (tmp_path / name).write_text(instance.to_json())
    (tmp_path / "notes.txt").write_text("nothing")
    assert read_instance(tmp_path / "b-2.json") == instance
    assert list(read_instances(tmp_path)) == [instance, instance]
    assert list(read_instances(tmp_path / "b-2.json")) == [instance]


def test_caches_are_told_by_their_schema(tmp_path: Path) -> None:
    cache = ExpertCacheInstance(
        name="cache",
        experts=2,
        capacity=2,
        token=[0, 0],
        layer=[0, 1],
        requests=[[0], [1]],
        compute_s=[1.0, 1.0],
        expert_bytes=1.0,
        host_bytes_per_s=1.0,
        initial=[],
    )
    (tmp_path / "a.json").write_text(cache.to_json())
    (tmp_path / "b.json").write_text(placement_instance().to_json())
    assert [type(found) for found in read_instances(tmp_path)] == [ExpertCacheInstance, ExpertPlacementInstance]
    assert read_instance(tmp_path / "a.json") == cache


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[]", "field schema: got None, expected schedrl/expert-placement-instance/1 or schedrl/expert-cache-inst"),
        ('{"schema": "x"}', "field schema: got 'x'"),
        ('{"logical_count": [[1]]}', "loads without a model and a cluster; make an instance of them by schedrl moe"),
        ("{", ":1: not valid JSON"),
        ('{"schema": "schedrl/expert-placement-instance/1"}', "field name: missing"),
        (placement_instance().to_json().replace('"counts": [[[1', '"counts": [[[-1'), "field counts: .* has -1"),
        (placement_instance().to_json().replace('"slots": [3, 3]', '"slots": [1, 1]'), "fewer than 4 experts"),
    ],
)
def test_broken_instances_are_named(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InstanceError, match=problem) as caught:
        read_instance(path)
    assert str(caught.value).startswith(str(path))


def test_a_folder_without_instances_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstanceError, match=r"no instance file, expected at least one of \*\.json"):
        list(read_instances(tmp_path))


@NEEDS_DATA
def test_recorded_counts_of_harmoeny() -> None:
    path = Path(os.environ["SCHEDRL_DATA"], "moe", "harmoeny", "qwen1.5-moe-a2.7b_expert_counts.csv")
    tables = read_harmoeny_counts(path)
    assert list(tables) == ["bookcorpus", "random", "wikitext", "wmt19"]
    for counts in tables.values():
        assert counts.shape == (20, 12, 60)
        assert (counts.sum(axis=2) == 98304).all()
    assert tables["bookcorpus"][0, 0, :4].tolist() == [555, 2248, 1219, 4864]
    dump = read_loads(path, dataset="wikitext")
    instance = instance_of_loads(
        dump,
        model=get_model("qwen1.5-moe-a2.7b"),
        device="a100-sxm-80gb",
        nodes=1,
        per_node=6,
        redundant=6,
        planned=10,
        iterations=1,
    )
    assert instance.slots.tolist() == [11] * 6
