from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from schedrl.errors import ConfigError
from schedrl.evaluation.results import COLUMNS, ResultLog, ResultRow, read_results

ROW = ResultRow(
    family="jobshop",
    suite="taillard",
    instance="ta01",
    scheduler="jobshop/cp-sat",
    information="clairvoyant",
    seed=3,
    objective="makespan",
    value=1231.0,
    reference=1230.5,
    reference_kind="best-known",
    gap=1 / 3,
    wall_s=0.125,
    decisions=0,
    peak_memory_mb=None,
    checked=True,
    status="ok",
    message='says "hi", twice',
)


def test_the_columns_are_the_published_ones() -> None:
    assert ",".join(COLUMNS) == (
        "family,suite,instance,scheduler,information,seed,objective,value,reference,reference_kind,gap,"
        "wall_s,decisions,peak_memory_mb,checked,status,message"
    )


def test_a_row_is_written_literally_and_read_back_equal(tmp_path: Path) -> None:
    log = ResultLog(tmp_path / "results.csv", objective="makespan")
    log.append([ROW])
    assert (tmp_path / "results.csv").read_text().splitlines()[1] == (
        "jobshop,taillard,ta01,jobshop/cp-sat,clairvoyant,3,makespan,1231,1230.5,best-known,0.3333333333333333,"
        '0.125,0,,True,ok,"says ""hi"", twice"'
    )
    assert read_results(tmp_path / "results.csv") == [ROW]


def test_line_breaks_in_a_message_do_not_break_the_line(tmp_path: Path) -> None:
    log = ResultLog(tmp_path / "results.csv", objective="makespan")
    log.append([replace(ROW, message="one\r\ntwo\n\nthree")])
    assert read_results(tmp_path / "results.csv")[0].message == "one two three"


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_truncated_last_line_is_dropped_wherever_it_was_cut(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "results.csv"
    log = ResultLog(path, objective="makespan")
    log.append([ROW])
    log.append([replace(ROW, seed=4)])
    path.write_bytes(path.read_bytes()[:-cut])
    reopened = ResultLog(path, objective="makespan")
    assert reopened.finished == {ROW.key}
    assert read_results(path) == [ROW]
    assert path.read_text().endswith("\n")


def test_a_run_without_its_primary_row_is_not_finished(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    log = ResultLog(path, objective="makespan")
    log.append([ROW, replace(ROW, objective="total_flow_time", reference=None, reference_kind="", gap=None)])
    lines = path.read_text().splitlines()
    assert "total_flow_time" in lines[1] and "makespan" in lines[2]
    path.write_text("\n".join(lines[:2]) + "\n")
    assert ResultLog(path, objective="makespan").finished == set()
    assert read_results(path) == []


def test_a_header_cut_short_counts_as_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("family,suite")
    assert ResultLog(tmp_path / "results.csv", objective="makespan").rows == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("family,suite", "suite,family", "results.csv:1: not a results file"),
        ("clairvoyant", "psychic", "results.csv:2: field information: 'psychic'"),
        (",1231,", ",many,", "results.csv:2: could not convert"),
        (",True,ok,", ",True,ok,ok,", "results.csv:2: 18 cells, expected 17"),
    ],
)
def test_a_malformed_complete_line_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "results.csv"
    ResultLog(path, objective="makespan").append([ROW])
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=message):
        read_results(path)
