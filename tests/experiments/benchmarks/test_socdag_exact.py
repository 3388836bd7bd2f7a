from __future__ import annotations

import csv
from pathlib import Path

import pytest

from schedrl.experiments.benchmarks.socdag_exact import main, measure, summary


def test_canonical_example_against_its_optimum() -> None:
    rows = {row["method"]: row for row in measure("canonical", 20.0)}
    assert (rows["cp-sat"]["makespan"], rows["cp-sat"]["lower_bound"], rows["cp-sat"]["solved"]) == (73.0, 73.0, True)
    assert rows["heft"]["makespan"] == 80.0
    assert rows["heft"]["ratio"] == pytest.approx(80 / 73)
    assert rows["lookahead"]["ratio"] == pytest.approx(76 / 73)


def test_main_keeps_finished_instances(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "exact.csv"
    main(["--out", str(out), "--time-limit", "5", "cholesky-4"])
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert next(row for row in rows if row["method"] == "cp-sat")["makespan"] == "74"
    written = out.stat().st_mtime_ns
    main(["--out", str(out), "--time-limit", "5", "cholesky-4"])
    assert out.stat().st_mtime_ns == written
    assert "cholesky-4: 74" in capsys.readouterr().out


def test_summary_takes_solved_small_graphs_only() -> None:
    rows: list[dict[str, object]] = [
        {"instance": "rgg-small-00", "method": "heft", "ratio": 1.1, "solved": True},
        {"instance": "rgg-small-01", "method": "heft", "ratio": "1.3", "solved": "True"},
        {"instance": "rgg-small-02", "method": "heft", "ratio": 9.0, "solved": "False"},
        {"instance": "qr-8", "method": "heft", "ratio": 9.0, "solved": True},
    ]
    assert summary(rows) == {"heft": (pytest.approx(1.2), 1.3, 2)}
