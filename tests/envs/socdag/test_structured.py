"""Graphs of known shape: sizes by formula, small cases by hand, and the published example."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.structured import (
    canonical,
    fft,
    fork_join,
    gaussian_elimination,
    in_tree,
    laplace,
    out_tree,
    stencil,
    unlike_devices,
)
from schedrl.errors import ConfigError


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def named_edges(instance: SocDagInstance) -> set[tuple[str, str]]:
    graph = instance.graphs[0]
    return {(graph.task_names[source], graph.task_names[target]) for source, target in graph.edge.tolist()}


def upward_rank(instance: SocDagInstance) -> list[float]:
    """Topcuoglu's upward rank, written from its definition; all links take one second per byte."""
    graph = instance.graphs[0]
    rank = graph.duration.mean(axis=1).copy()
    for source in graph.topological_order[::-1].tolist():
        tails = [
            size + rank[target]
            for (start, target), size in zip(graph.edge.tolist(), graph.edge_bytes.tolist(), strict=True)
            if start == source
        ]
        rank[source] += max(tails, default=0.0)
    return rank.tolist()


def test_canonical_has_the_published_upward_ranks() -> None:
    assert upward_rank(canonical()) == pytest.approx(
        [108, 77, 80, 80, 69, 63.333, 42.667, 35.667, 44.333, 14.667], abs=5e-4
    )
    assert (canonical().tasks, canonical().devices, canonical().graphs[0].edges) == (10, 3, 15)


@pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no example to compare with")
def test_canonical_equals_the_file() -> None:
    path = Path(os.environ["SCHEDRL_DATA"]) / "socdag" / "topcuoglu" / "canonical10.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    graph = canonical().graphs[0]
    assert graph.duration.tolist() == data["cost"]
    assert graph.edge.tolist() == [[edge["src"], edge["dst"]] for edge in data["edges"]]
    assert graph.edge_bytes.tolist() == [edge["comm"] for edge in data["edges"]]


@pytest.mark.parametrize("matrix", [2, 3, 5, 10])
def test_gaussian_elimination_size(matrix: int) -> None:
    assert gaussian_elimination(rng(), matrix=matrix).tasks == (matrix**2 + matrix - 2) // 2


def test_gaussian_elimination_of_three_by_hand() -> None:
    assert named_edges(gaussian_elimination(rng(), matrix=3)) == {
        ("pivot(1)", "update(1,2)"),
        ("pivot(1)", "update(1,3)"),
        ("update(1,2)", "pivot(2)"),
        ("update(1,3)", "update(2,3)"),
        ("pivot(2)", "update(2,3)"),
    }


@pytest.mark.parametrize("points", [2, 4, 8, 32])
def test_fft_size(points: int) -> None:
    instance = fft(rng(), points=points)
    stages = int(np.log2(points))
    assert instance.tasks == 2 * points - 1 + points * stages
    assert instance.graphs[0].edges == 2 * points - 2 + 2 * points * stages


def test_fft_of_two_by_hand_and_of_four_in_part() -> None:
    assert named_edges(fft(rng(), points=2)) == {
        ("call(0,0)", "call(1,0)"),
        ("call(0,0)", "call(1,1)"),
        *((f"call(1,{source})", f"butterfly(0,{target})") for source in (0, 1) for target in (0, 1)),
    }
    edges = named_edges(fft(rng(), points=4))
    assert {source for source, target in edges if target == "butterfly(1,0)"} == {"butterfly(0,0)", "butterfly(0,2)"}


def test_every_path_of_the_fft_is_equally_long() -> None:
    graph = fft(rng(), points=8).graphs[0]
    depth = np.zeros(graph.tasks, dtype=int)
    for task in graph.topological_order.tolist():
        sources = graph.edge[graph.edge[:, 1] == task, 0]
        assert len({int(depth[source]) for source in sources}) <= 1
        depth[task] = depth[sources].max(initial=-1) + 1
    assert depth.max() == 6


def test_fork_join_by_hand() -> None:
    assert named_edges(fork_join(rng(), branches=2, stages=2)) == {
        (f"join({stage})", f"branch({stage},{branch})") for stage in (0, 1) for branch in (0, 1)
    } | {(f"branch({stage},{branch})", f"join({stage + 1})") for stage in (0, 1) for branch in (0, 1)}
    assert fork_join(rng(), branches=5, stages=3).tasks == 1 + 3 * 6


def test_trees_by_hand() -> None:
    assert out_tree(rng(), levels=3).graphs[0].edge.tolist() == [[0, 1], [0, 2], [1, 3], [1, 4], [2, 5], [2, 6]]
    assert in_tree(rng(), levels=3).graphs[0].edge.tolist() == [[0, 4], [1, 4], [2, 5], [3, 5], [4, 6], [5, 6]]
    assert out_tree(rng(), levels=4, arity=3).tasks == in_tree(rng(), levels=4, arity=3).tasks == 40
    assert out_tree(rng(), levels=1).graphs[0].edges == 0
    assert out_tree(rng(), levels=4, arity=1).graphs[0].edge.tolist() == [[0, 1], [1, 2], [2, 3]]


def test_stencil_by_hand() -> None:
    edge = stencil(rng(), points=3, steps=2).graphs[0].edge.tolist()
    assert sorted(edge) == [[0, 3], [0, 4], [1, 3], [1, 4], [1, 5], [2, 4], [2, 5]]
    assert stencil(rng(), points=5, steps=4).tasks == 20


def test_laplace_by_hand() -> None:
    edge = laplace(rng(), side=2).graphs[0].edge.tolist()
    assert sorted(edge) == [[0, 1], [0, 2], [1, 3], [2, 3]]
    assert (laplace(rng(), side=7).tasks, laplace(rng(), side=7).graphs[0].edges) == (49, 84)


def test_costs_differ_between_draws_of_one_shape() -> None:
    first, second = (fft(np.random.default_rng(seed), points=4, ccr=1.0).graphs[0] for seed in (0, 1))
    assert np.array_equal(first.edge, second.edge)
    assert not np.array_equal(first.duration, second.duration)
    assert not np.array_equal(first.edge_bytes, second.edge_bytes)


def test_unlike_devices_are_fully_linked() -> None:
    platform = unlike_devices(4)
    assert len(platform.links) == 12
    assert platform.link("P1", "P4").transfer_s(7.0) == 7.0


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (gaussian_elimination, {"matrix": 1}, "option matrix: 1, expected at least 2"),
        (fft, {"points": 1}, "option points: 1, expected at least 2"),
        (fft, {"points": 6}, "option points: 6, expected a power of two"),
        (fork_join, {"branches": 0}, "option branches: 0, expected at least 1"),
        (fork_join, {"stages": 0}, "option stages: 0, expected at least 1"),
        (in_tree, {"levels": 0}, "option levels: 0, expected at least 1"),
        (out_tree, {"arity": 0}, "option arity: 0, expected at least 1"),
        (stencil, {"points": 0}, "option points: 0, expected at least 1"),
        (stencil, {"steps": 0}, "option steps: 0, expected at least 1"),
        (laplace, {"side": 0}, "option side: 0, expected at least 1"),
        (laplace, {"devices": 0}, "option devices: 0, expected at least 1"),
        (laplace, {"heterogeneity": -0.5}, "option heterogeneity: -0.5, expected 0 to 2"),
    ],
)
def test_refuses_bad_options(make: object, options: dict[str, float], message: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=message):
        make(rng(), **options)
