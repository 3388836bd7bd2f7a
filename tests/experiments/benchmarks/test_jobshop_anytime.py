from __future__ import annotations

import csv
from pathlib import Path

import pytest

from schedrl.errors import ConfigError
from schedrl.experiments.benchmarks.jobshop_anytime import instance_of, main, with_gaps


def test_gaps_are_to_the_best_known_or_to_the_best_of_the_rows() -> None:
    row = {"method": "tabu", "seconds": "10", "threads": "2", "group": "g"}
    rows = [
        {**row, "instance": "ta51", "makespan": "2898", "best_known": "2760", "trace": "0.000:3450 5.000:2898"},
        {**row, "instance": "generated-100x20-1", "makespan": "110", "best_known": "90", "trace": "0.000:110"},
        {**row, "instance": "generated-100x20-1", "makespan": "100", "best_known": "", "trace": "0.000:100"},
    ]
    first, second, third = with_gaps(rows)
    assert (first["gap"], second["gap"], third["gap"]) == ("0.05000", "0.10000", "0.00000")
    assert float(first["primal_integral"]) == pytest.approx((690 / 3450 + 138 / 2898) / 2, abs=1e-5)
    assert third["primal_integral"] == "0.00000"


def test_writes_tables_and_picture_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "anytime.csv"
    arguments = ["--out", str(out), "--seconds", "0.3", "--instances", "ft06", "--methods", "tabu", "lns", "cp-sat"]
    main(arguments)
    rows = list(csv.DictReader(out.open(newline="")))
    assert [row["method"] for row in rows] == ["tabu", "lns", "cp-sat"]
    assert all(float(row["makespan"]) <= 60 and row["best_known"] == "55" for row in rows)
    groups = list(csv.DictReader((tmp_path / "anytime_groups.csv").open(newline="")))
    assert [(row["group"], row["instances"]) for row in groups] == [("6x6", "1")] * 3
    assert "tabu" in (tmp_path / "anytime.svg").read_text()
    before = out.read_text()
    capsys.readouterr()
    main(arguments)
    assert out.read_text() == before
    assert "ft06 tabu 0.3 2" in capsys.readouterr().out


def test_an_unknown_generated_instance_is_an_error() -> None:
    with pytest.raises(ConfigError, match="option instances: 'generated-7x7', expected"):
        instance_of("generated-7x7")
