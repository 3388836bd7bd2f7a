from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from schedrl.envs.socdag.structured import canonical
from schedrl.experiments.measurement import find_schedulers
from schedrl.experiments.reproduce.heft_noise import (
    ONLINE,
    PUBLISHED,
    RULES,
    SIGMAS,
    STATIC,
    graph_sets,
    main,
    measure,
    rows_of,
    verdicts_of,
)


def test_sets_are_those_of_the_reference() -> None:
    sets = graph_sets()
    assert {label: len(graphs) for label, graphs in sets.items()} == {"canonical": 1, "cholesky-8": 1, "random": 25}
    assert {(graph.tasks, graph.devices) for graph in sets["random"]} == {(50, 4)}
    assert {sigma for _, sigma in PUBLISHED} <= set(SIGMAS)


def test_main_without_noise_replays_the_plan_exactly(tmp_path: Path) -> None:
    main(["--quick", "--out", str(tmp_path), "--policies", "socdag/absent"])
    with (tmp_path / "heft_noise.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 3 * len(RULES)
    for row in rows:
        if row["sigma"] == "0" and row["scheduler"] == STATIC:
            assert (row["ratio"], row["low"], row["high"]) == ("1", "1", "1")
        if row["sigma"] != "0" and row["scheduler"] == STATIC:
            assert float(row["ratio"]) > 1.0
            assert float(row["minus_static"]) == 0.0
    assert (tmp_path / "heft_noise.svg").exists()
    assert "socdag/absent left out" in json.loads((tmp_path / "heft_noise.json").read_text())["notes"][0]


def test_static_plan_loses_what_the_reference_says() -> None:
    schedulers, _ = find_schedulers([STATIC], canonical())
    ratios = measure(schedulers, {"canonical": [canonical()]}, (0.5, 1.0), seeds=60)
    assert ratios["canonical", 0.5, STATIC].shape == (1, 60)
    assert ratios["canonical", 0.5, STATIC].mean() == pytest.approx(1.071, abs=0.05)
    assert ratios["canonical", 1.0, STATIC].mean() == pytest.approx(1.206, abs=0.08)


def test_intervals_and_crossing_by_hand() -> None:
    ratios = {}
    for sigma, online in ((0.0, 1.1), (0.3, 1.05), (0.5, 0.9)):
        ratios["random", sigma, STATIC] = np.array([[0.9, 1.1], [1.0, 1.0]])
        ratios["random", sigma, ONLINE] = np.full((2, 2), online)
    row = next(row for row in rows_of(ratios) if row["scheduler"] == STATIC)
    # Both graphs average 1 over their seeds, so there is nothing left to vary.
    assert (row["ratio"], row["low"], row["high"]) == (1.0, 1.0, 1.0)
    online = next(row for row in rows_of(ratios) if row["scheduler"] == ONLINE and row["sigma"] == 0.3)
    assert online["minus_static"] == pytest.approx(0.05)
    assert online["published"] == 1.059
    assert "random: from sigma 0.5" in verdicts_of(ratios)[0].measured
