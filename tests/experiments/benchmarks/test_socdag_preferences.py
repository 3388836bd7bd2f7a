from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from schedrl.arrays import F64
from schedrl.experiments.benchmarks.socdag_preferences import front, hypervolume, main, weight_grid


def test_hypervolume_by_hand() -> None:
    reference = np.array([4.0, 4.0])
    # Rectangles 3x1, 2x2 and 1x3 from the corner (4, 4): 3 + 1 + 1 = 3 columns of heights 1, 2, 3.
    assert hypervolume(np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]]), reference) == 6.0
    assert hypervolume(np.array([[1.0, 3.0], [2.0, 3.5]]), reference) == 3.0
    assert hypervolume(np.array([[5.0, 0.0], [4.0, 0.0]]), reference) == 0.0
    # Boxes 1x1x2 and 2x1x1 at the corner (2, 2, 2), sharing a unit cube: 2 + 2 - 1.
    assert hypervolume(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]), np.full(3, 2.0)) == 3.0
    assert hypervolume(np.zeros((1, 3)), np.full(3, 2.0)) == 8.0


@given(arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(2, 3)), elements=st.integers(0, 4)))
def test_hypervolume_counts_the_dominated_unit_cells(points: F64) -> None:
    size = points.shape[1]
    cells = np.stack(np.meshgrid(*[np.arange(4)] * size, indexing="ij"), axis=-1).reshape(-1, size)
    dominated = (points[None] <= cells[:, None]).all(axis=2).any(axis=1).sum()
    assert hypervolume(points.astype(float), np.full(size, 4.0)) == pytest.approx(dominated)


def test_front_by_hand() -> None:
    points = np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 3.0], [2.0, 2.0], [3.0, 1.0]])
    assert front(points).tolist() == [True, True, False, False, True]


def test_grid() -> None:
    assert len(weight_grid(3, 10)) == 66
    assert np.allclose(weight_grid(3, 10).sum(axis=1), 1.0)
    assert weight_grid(2, 4)[:, 2].tolist() == [0.0] * 5
    assert weight_grid(3, 4)[0].tolist() == [1.0, 0.0, 0.0]


def test_main_draws_fronts(tmp_path: Path) -> None:
    main(["--quick", "--out", str(tmp_path / "front.csv"), "--steered", "socdag/weighted-heft"])
    with (tmp_path / "front.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for kind, points in (("agentic", 15), ("dvfs", 5)):
        weighted = [row for row in rows if row["instances"] == kind and row["scheduler"] == "socdag/weighted-heft"]
        heft = next(row for row in rows if row["instances"] == kind and row["scheduler"] == "socdag/heft")
        assert len(weighted) == points
        # With all weight on latency it is HEFT, and the rest of its front adds volume.
        assert weighted[0]["latency"] == heft["latency"]
        assert float(weighted[0]["hypervolume"]) > float(heft["hypervolume"])
        assert min(float(row["energy_j"]) for row in weighted) < float(heft["energy_j"])
    assert (tmp_path / "front.svg").exists()
