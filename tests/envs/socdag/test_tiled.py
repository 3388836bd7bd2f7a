"""Tiled factorisations: published sizes, hand-worked edges, and the graphs that READYS ships."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from schedrl.envs.socdag.tiled import KERNEL_MS, cholesky, lu, qr, tiled_graph
from schedrl.errors import ConfigError


@pytest.mark.parametrize(
    ("algorithm", "tiles", "tasks", "edges"),
    [
        ("cholesky", 1, 1, 0),
        ("cholesky", 4, 20, 30),
        ("cholesky", 8, 120, 252),
        ("lu", 4, 30, 54),
        ("lu", 8, 204, 476),
        ("qr", 4, 30, 54),
        ("qr", 8, 204, 476),
    ],
)
def test_numbers_of_tasks_and_edges(algorithm: str, tiles: int, tasks: int, edges: int) -> None:
    graph = tiled_graph(algorithm, tiles, (2, 2))
    assert (graph.tasks, graph.edges) == (tasks, edges)
    assert not graph.edge_bytes.any()


def named_edges(algorithm: str, tiles: int) -> set[tuple[str, str]]:
    graph = tiled_graph(algorithm, tiles, (1, 1))
    return {(graph.task_names[source], graph.task_names[target]) for source, target in graph.edge.tolist()}


def test_edges_of_two_by_two_tiles_worked_by_hand() -> None:
    assert named_edges("cholesky", 2) == {
        ("POTRF(0)", "TRSM(1,0)"),
        ("TRSM(1,0)", "SYRK(1,0)"),
        ("SYRK(1,0)", "POTRF(1)"),
    }
    assert named_edges("lu", 2) == {
        ("LU(0)", "FWD(0,1)"),
        ("LU(0)", "BDIV(1,0)"),
        ("FWD(0,1)", "BMOD(1,1,0)"),
        ("BDIV(1,0)", "BMOD(1,1,0)"),
        ("BMOD(1,1,0)", "LU(1)"),
    }
    assert named_edges("qr", 2) == {
        ("GEQRT(0)", "ORMQR(0,1)"),
        ("GEQRT(0)", "TSQRT(1,0)"),
        ("ORMQR(0,1)", "TSMQR(1,1,0)"),
        ("TSQRT(1,0)", "TSMQR(1,1,0)"),
        ("TSMQR(1,1,0)", "GEQRT(1)"),
    }


def test_flat_tree_qr_goes_down_the_column_one_tile_after_the_other() -> None:
    edges = named_edges("qr", 3)
    assert ("TSQRT(1,0)", "TSQRT(2,0)") in edges
    assert ("TSMQR(1,2,0)", "TSMQR(2,2,0)") in edges
    assert ("GEQRT(0)", "TSQRT(2,0)") not in edges


def test_kernel_times_in_milliseconds() -> None:
    instance = cholesky(np.random.default_rng(0), tiles=2)
    assert instance.graphs[0].duration.tolist() == [[18, 11], [52, 8], [57, 2], [18, 11]]
    assert instance.time_unit_s == 1e-3
    assert instance.device_names == ("cpu.0", "cpu.1", "gpu.0", "gpu.1")
    assert qr(np.random.default_rng(0), tiles=2).graphs[0].duration.tolist() == [
        [4, 3],
        [6, 1],
        [6, 3],
        [10, 1],
        [4, 3],
    ]
    assert lu(np.random.default_rng(0), tiles=2).graphs[0].duration.tolist() == [
        [18, 11], [52, 8], [52, 8], [95, 3], [18, 11],
    ]  # fmt: skip


def test_one_kind_of_device_alone() -> None:
    instance = lu(np.random.default_rng(0), tiles=3, cpus=0, gpus=3)
    assert instance.device_names == ("gpu.0", "gpu.1", "gpu.2")
    assert instance.graphs[0].duration[0].tolist() == [11]


def test_graph_is_shared_between_draws_and_noise_is_not() -> None:
    first, second = (cholesky(np.random.default_rng(seed), tiles=4, noise_sigma=0.3) for seed in (0, 1))
    assert first.graphs[0] is second.graphs[0]
    assert not np.array_equal(first.noise, second.noise)
    assert cholesky(np.random.default_rng(0), tiles=4).static and not first.static


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiles": 0}, "option tiles: 0, expected at least 1"),
        ({"cpus": -1}, "option cpus: -1, expected 0 or more"),
        ({"cpus": 0, "gpus": 0}, "options cpus and gpus: both 0, expected at least one device"),
        ({"noise_sigma": -0.1}, "option noise_sigma: -0.1, expected 0 or more"),
    ],
)
def test_refuses_bad_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cholesky(np.random.default_rng(0), **options)  # type: ignore[arg-type]


@pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no graphs to compare with")
@pytest.mark.parametrize("tiles", [2, 4, 6, 8])
def test_cholesky_has_the_edges_between_kernels_of_ggen(tiles: int) -> None:
    path = Path(os.environ["SCHEDRL_DATA"]) / "socdag" / "readys" / "graphs" / f"cholesky_{tiles}.txt"
    text = path.read_text(encoding="utf-8")
    kernel = {task: name.upper() for task, name in re.findall(r"(\d+)\s+\[kernel=(\w+)\]", text)}
    theirs = Counter((kernel[source], kernel[target]) for source, target in re.findall(r"(\d+) -> (\d+)", text))
    graph = tiled_graph("cholesky", tiles, (2, 2))
    kinds = [name.partition("(")[0] for name in graph.task_names]
    assert Counter(kinds) == Counter(kernel.values())
    assert Counter((kinds[source], kinds[target]) for source, target in graph.edge.tolist()) == theirs


@pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no times to compare with")
def test_kernel_times_are_those_of_readys() -> None:
    import json

    path = Path(os.environ["SCHEDRL_DATA"]) / "socdag" / "readys" / "durations.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    theirs = {
        kernel: (float(cpu), float(gpu))
        for name in ("cholesky", "lu", "qr")
        for kernel, cpu, gpu in zip(data[name]["types"], data[name]["cpu"], data[name]["gpu"], strict=True)
    }
    assert theirs == dict(KERNEL_MS)
