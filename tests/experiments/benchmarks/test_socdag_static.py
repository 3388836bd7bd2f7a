from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from schedrl.envs.socdag.generators import topcuoglu
from schedrl.envs.socdag.structured import CCRS
from schedrl.experiments.benchmarks.socdag_static import HEFT, LOOKAHEAD, Graph, graphs_of, main, rows_of


def test_graphs_are_the_two_hundred_and_the_three_tiled() -> None:
    graphs = graphs_of()
    assert len(graphs) == 203
    assert [graph.groups for graph in graphs[-3:]] == [("cholesky-8",), ("lu-8",), ("qr-8",)]
    assert all(graph.groups[0] == "all" for graph in graphs[:-3])


def test_random_graphs_fall_into_every_group() -> None:
    groups = {group for graph in graphs_of() for group in graph.groups}
    assert {f"ccr {ccr:g}" for ccr in CCRS} <= groups
    assert {f"devices {devices}" for devices in range(4, 9)} <= groups
    assert {"tasks 20-46", "tasks 47-73", "tasks 74-100"} <= groups


def test_ratios_by_hand() -> None:
    instance = topcuoglu(np.random.default_rng(0), tasks=20)
    graphs = [Graph(instance=instance, groups=("all",)), Graph(instance=instance, groups=("all", "few"))]
    found = {HEFT: np.array([10.0, 20.0]), LOOKAHEAD: np.array([8.0, 20.0]), "socdag/ppo": np.array([9.0, 22.0])}
    rows = {(row["group"], row["scheduler"]): row for row in rows_of(graphs, found)}
    ppo = rows["all", "socdag/ppo"]
    assert ppo["makespan"] == 15.5
    assert ppo["to_heft"] == pytest.approx((0.9 + 1.1) / 2)
    assert ppo["to_lookahead"] == pytest.approx((9 / 8 + 1.1) / 2)
    assert ppo["to_best_rule"] == pytest.approx((9 / 8 + 1.1) / 2)
    assert (ppo["wins_heft"], ppo["ties_heft"], ppo["losses_heft"]) == (1, 0, 1)
    assert rows["few", LOOKAHEAD]["ties_heft"] == 1
    assert rows["all", HEFT]["to_heft"] == 1.0


def test_main_writes_every_group(tmp_path: Path) -> None:
    main(["--quick", "--out", str(tmp_path / "static.csv"), "--schedulers", "socdag/peft,socdag/absent"])
    with (tmp_path / "static.csv").open(newline="") as file:
        rows = {(row["group"], row["scheduler"]): row for row in csv.DictReader(file)}
    # HEFT 275, PEFT 254 on Cholesky of 8 tiles up to the tie rule, from an independent implementation.
    assert float(rows["cholesky-8", HEFT]["makespan"]) == pytest.approx(275, abs=3)
    assert float(rows["cholesky-8", "socdag/peft"]["makespan"]) == pytest.approx(254, abs=6)
    assert float(rows["all", LOOKAHEAD]["to_heft"]) < 1.0
    assert rows["all", HEFT]["graphs"] == "20"
