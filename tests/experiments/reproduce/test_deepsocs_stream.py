from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from schedrl.envs.socdag.structured import canonical
from schedrl.envs.socdag.suites import load_instance
from schedrl.experiments.measurement import find_schedulers
from schedrl.experiments.reproduce.deepsocs_stream import (
    PUBLISHED,
    RULES,
    Cell,
    Study,
    cells,
    main,
    measure,
    rows_of,
    verdicts_of,
)


def test_cells_and_published_figures_are_the_two_tables() -> None:
    assert len(cells()) == 16
    assert PUBLISHED[Cell("3pe", 0.0, 25), "socdag/etf-finish-online"] == 105.1
    assert PUBLISHED[Cell("16pe", 0.0, 80), "socdag/etf-finish-online"] == 194.01
    assert len(PUBLISHED) == 12 * 4 + 4 * 3


def test_streams_are_those_of_the_suites() -> None:
    ours, suite = Cell("3pe", 0.2, 100).instance(3, 100), load_instance("3pe-scale100-sigma0.2-seed3")
    assert ours.release_time.tolist() == suite.release_time.tolist()
    assert ours.true_duration.tolist() == suite.true_duration.tolist()
    ours, suite = Cell("16pe", 0.0, 150).instance(9, 100), load_instance("16pe-scale150-seed9")
    assert ours.job_graph.tolist() == suite.job_graph.tolist()


def test_common_random_numbers() -> None:
    quiet, noisy = (Cell("3pe", sigma, 25).instance(0, 20) for sigma in (0.2, 0.5))
    assert quiet.noise is not None and noisy.noise is not None
    assert quiet.noise.tolist() == noisy.noise.tolist()
    assert quiet.release_time.tolist() == noisy.release_time.tolist()


def test_rules_come_close_to_the_authors_simulator() -> None:
    schedulers, _ = find_schedulers(RULES, canonical())
    study = measure(schedulers, [Cell("3pe", 0.0, 50)], seeds=3, jobs=100, policy=None)
    for row in rows_of(study):
        if row["scheduler"] in ("socdag/etf-finish-online", "socdag/met-online"):
            assert row["latency_us"] == pytest.approx(row["published_us"], rel=0.06)


def test_outcome_of_the_policy_follows_the_paired_interval() -> None:
    cell = Cell("3pe", 0.0, 25)
    rule = np.array([100.0, 140.0, 90.0, 120.0])
    for change, outcome in ((-1.0, "won"), (1.0, "lost")):
        policy = rule + change + np.array([0.1, -0.1, 0.2, -0.2])
        latency = {
            "socdag/etf-finish-online": rule,
            "socdag/met-online": rule + 5,
            "socdag/heft-rt": rule + 6,
            "p": policy,
        }
        study = Study(latency={cell: latency}, policy="p")
        row = rows_of(study)[-1]
        assert (row["outcome"], row["best_rule"]) == (outcome, "socdag/etf-finish-online")
        assert row["minus_best_rule_us"] == pytest.approx(change)
        assert f"1 cells {outcome}" in verdicts_of(study)[-1].measured or outcome == "lost"
    tied = Study(latency={cell: {"socdag/etf-finish-online": rule, "p": rule[::-1]}}, policy="p")
    assert rows_of(tied)[-1]["outcome"] == "tied"


def test_main_writes_table_picture_and_verdicts(tmp_path: Path) -> None:
    main(["--quick", "--out", str(tmp_path), "--policy", "socdag/no-such-policy"])
    with (tmp_path / "deepsocs_stream.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * len(RULES)
    assert all(float(row["low"]) <= float(row["latency_us"]) <= float(row["high"]) for row in rows)
    assert (tmp_path / "deepsocs_stream.svg").read_text().startswith("<svg")
    content = json.loads((tmp_path / "deepsocs_stream.json").read_text())
    assert content["notes"] == ["socdag/no-such-policy left out: unknown scheduler 'socdag/no-such-policy'"]
