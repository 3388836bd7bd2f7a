from __future__ import annotations

import csv
import io
import json
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from toy_family import CRASH, DYING, ENTRIES, FAMILY, FORGETFUL, GIVING_UP, LPT, RANDOM, SLOW, SPT

from schedrl.errors import ConfigError
from schedrl.evaluation import ComparisonOptions, ResultRow, Summary, compare, execution, pool, read_results
from schedrl.families import SuiteEntry


def run(out: Path, specs: list[Any], *, entries: list[SuiteEntry] = ENTRIES, **options: Any) -> Summary:
    return compare(FAMILY, entries, specs, ComparisonOptions(out=out, suite="hand", time_limit_s=5.0, **options))


def rows_of(out: Path, objective: str = "total_completion") -> dict[tuple[str, str, int], ResultRow]:
    return {tuple(row.key): row for row in read_results(out / "results.csv") if row.objective == objective}


def test_values_gaps_and_references_equal_those_worked_out_by_hand(tmp_path: Path) -> None:
    summary = run(tmp_path, [SPT, LPT])
    rows = rows_of(tmp_path)
    # Longest first: a 3+5+6=14, b 4+6=10, c 6+11+15=32; the reference of c is its bound, 15.
    values = {key[:2]: (row.value, row.reference, row.reference_kind, row.gap) for key, row in rows.items()}
    assert values == {
        ("a", "toy/spt"): (10, 10, "optimal", 0.0),
        ("a", "toy/lpt"): (14, 10, "optimal", pytest.approx(0.4)),
        ("b", "toy/spt"): (8, 8, "best-known", 0.0),
        ("b", "toy/lpt"): (10, 8, "best-known", pytest.approx(0.25)),
        ("c <i>", "toy/spt"): (28, 15, "bound", pytest.approx(13 / 15)),
        ("c <i>", "toy/lpt"): (32, 15, "bound", pytest.approx(17 / 15)),
    }
    assert all(row.checked and row.status == "ok" for row in rows.values())
    assert [item.name for item in summary.schedulers] == ["toy/spt", "toy/lpt"]
    mean = summary.schedulers[1].mean_gap
    assert mean is not None
    assert mean.value == pytest.approx((0.4 + 0.25 + 17 / 15) / 3)
    assert summary.groups == {"3 tasks": 2, "2 tasks": 1}
    assert summary.schedulers[1].group_gap == {
        "3 tasks": pytest.approx((0.4 + 17 / 15) / 2),
        "2 tasks": pytest.approx(0.25),
    }


def test_every_objective_has_a_row_and_only_the_primary_one_a_reference(tmp_path: Path) -> None:
    run(tmp_path, [LPT])
    makespans = rows_of(tmp_path, "makespan")
    assert [row.value for row in makespans.values()] == [6, 6, 15]
    assert {(row.reference, row.reference_kind, row.gap) for row in makespans.values()} == {(None, "", None)}


def test_the_value_comes_from_the_solution_and_a_wrong_claim_is_remarked(tmp_path: Path) -> None:
    run(tmp_path, [SPT])
    row = rows_of(tmp_path)["a", "toy/spt", 0]
    assert (row.value, row.message, row.decisions) == (10, "reported 1, its solution has 10", 3)


def test_a_crash_costs_one_row_with_its_reason(tmp_path: Path) -> None:
    run(tmp_path, [CRASH, SPT])
    rows = rows_of(tmp_path)
    crashed = rows["b", "toy/crash", 0]
    assert (crashed.status, crashed.value, crashed.checked) == ("failed", None, False)
    assert crashed.message == "RuntimeError: no idea what to do"
    assert rows["c <i>", "toy/crash", 0].value == 28
    assert len(rows) == 6


def test_a_violation_fails_the_row_and_no_solution_is_kept(tmp_path: Path) -> None:
    summary = run(tmp_path, [FORGETFUL])
    rows = rows_of(tmp_path)
    assert {(row.status, row.checked, row.value, row.message) for row in rows.values()} == {
        ("failed", False, None, "not every task exactly once")
    }
    assert not (tmp_path / "solutions").exists()
    assert (summary.schedulers[0].solved, summary.schedulers[0].mean_gap) == (0, None)


def test_no_solution_is_reported_as_the_scheduler_says(tmp_path: Path) -> None:
    run(tmp_path, [GIVING_UP])
    assert {row.status for row in rows_of(tmp_path).values()} == {"infeasible"}


def test_an_overrun_is_a_timeout_that_keeps_its_checked_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "OVERRUN_SLACK_S", 0.01)
    compare(FAMILY, ENTRIES[:2], [SLOW], ComparisonOptions(out=tmp_path, time_limit_s=0.15))
    rows = rows_of(tmp_path)
    late = rows["a", "toy/slow", 0]
    assert (late.status, late.value, late.checked) == ("timeout", 10, True)
    assert late.wall_s is not None and late.wall_s >= 0.3
    assert late.message.startswith("took 0.3 s of 0.15 s")
    assert rows["b", "toy/slow", 0].status == "ok"


def test_randomised_schedulers_run_once_per_seed_and_reproducibly(tmp_path: Path) -> None:
    run(tmp_path / "one", [RANDOM, SPT], seeds=4)
    run(tmp_path / "two", [RANDOM, SPT], seeds=4)
    one, two = rows_of(tmp_path / "one"), rows_of(tmp_path / "two")
    assert sorted(seed for name, scheduler, seed in one if (name, scheduler) == ("a", "toy/ppo-sample")) == [0, 1, 2, 3]
    assert [seed for name, scheduler, seed in one if (name, scheduler) == ("a", "toy/spt")] == [0]
    assert {key: row.value for key, row in one.items()} == {key: row.value for key, row in two.items()}
    assert len({row.value for (name, scheduler, _), row in one.items() if scheduler == "toy/ppo-sample"}) > 3


def test_resume_repeats_only_what_a_truncated_file_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, [SPT, LPT], warm_up=False)
    path = tmp_path / "results.csv"
    whole = {key: row.value for key, row in rows_of(tmp_path).items()}
    text = path.read_text()
    # The last run's row of the primary objective is cut in the middle, its makespan row is intact.
    path.write_text(text[:-25])
    monkeypatch.setenv("TOY_CALLS", str(tmp_path / "calls"))
    run(tmp_path, [SPT, LPT], warm_up=False)
    assert (tmp_path / "calls").read_text() == "lpt c <i>\n"
    assert {key: row.value for key, row in rows_of(tmp_path).items()} == whole
    assert len(path.read_text().splitlines()) == len(text.splitlines())


def test_resume_adds_a_scheduler_and_leaves_out_what_was_not_asked_for(tmp_path: Path) -> None:
    run(tmp_path, [SPT])
    summary = run(tmp_path, [LPT])
    assert [item.name for item in summary.schedulers] == ["toy/lpt"]
    assert len(rows_of(tmp_path)) == 6


def test_failed_runs_are_repeated_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, [CRASH], warm_up=False)
    monkeypatch.setenv("TOY_CALLS", str(tmp_path / "calls"))
    run(tmp_path, [CRASH], warm_up=False)
    assert not (tmp_path / "calls").exists()
    run(tmp_path, [CRASH], warm_up=False, retry_failed=True)
    assert (tmp_path / "calls").read_text() == "crash b\n"
    assert len(rows_of(tmp_path)) == 3


def test_another_limit_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    run(tmp_path, [SPT])
    with pytest.raises(ConfigError, match=r"comparison.json: field time_limit_s: this folder holds 5.0, expected 9.0"):
        compare(FAMILY, ENTRIES, [SPT], ComparisonOptions(out=tmp_path, suite="hand", time_limit_s=9.0))
    compare(FAMILY, ENTRIES, [LPT], ComparisonOptions(out=tmp_path, suite="hand", time_limit_s=9.0, resume=False))
    assert {row.scheduler for row in read_results(tmp_path / "results.csv")} == {"toy/lpt"}


def test_warm_up_calls_once_on_the_smallest_instance_outside_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_CALLS", str(tmp_path / "calls"))
    run(tmp_path / "out", [SPT])
    assert (tmp_path / "calls").read_text().splitlines() == ["spt b", "spt a", "spt b", "spt c <i>"]
    assert len(rows_of(tmp_path / "out")) == 3


def test_processes_give_the_same_table_and_survive_a_dying_scheduler(tmp_path: Path) -> None:
    seen: list[ResultRow] = []
    options = ComparisonOptions(out=tmp_path, suite="hand", time_limit_s=5.0, jobs=2)
    compare(FAMILY, ENTRIES, [SPT, DYING], options, on_row=seen.append)
    rows = rows_of(tmp_path)
    died = rows.pop(("a", "toy/dying", 0))
    assert died.status == "failed" and "died" in died.message
    assert {key[:2]: row.value for key, row in rows.items()} == {
        ("a", "toy/spt"): 10,
        ("b", "toy/spt"): 8,
        ("c <i>", "toy/spt"): 28,
        ("b", "toy/dying"): 8,
        ("c <i>", "toy/dying"): 28,
    }
    assert len(seen) == len(read_results(tmp_path / "results.csv")) == 11


def test_a_pool_that_breaks_while_tasks_are_handed_out_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pool._executor
    refusals = iter([True])

    def broken_at_first(jobs: int) -> Any:
        executor = real(jobs)
        if next(refusals, False):

            def refuse(*_: Any) -> None:
                raise BrokenProcessPool("a worker died before the task was handed out")

            executor.submit = refuse  # type: ignore[method-assign, assignment]
        return executor

    monkeypatch.setattr(pool, "_executor", broken_at_first)
    run(tmp_path, [SPT], jobs=2)
    assert {key[0]: row.status for key, row in rows_of(tmp_path).items()} == {"a": "ok", "b": "ok", "c <i>": "ok"}


def test_summary_json_and_solutions_can_be_read_back(tmp_path: Path) -> None:
    run(tmp_path, [SPT, LPT])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["schedulers"][0]["name"] == "toy/spt"
    assert summary["pairs"][0]["score"] == {"wins": 3, "ties": 0, "losses": 0}
    assert summary["provenance"]["python"].startswith("3.")
    assert json.loads((tmp_path / "solutions" / "a__lpt__0.json").read_text()) == [0, 2, 1]
    assert len(list((tmp_path / "solutions").iterdir())) == 6


def test_progress_shows_count_and_remaining_time(tmp_path: Path) -> None:
    from rich.console import Console

    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    options = ComparisonOptions(out=tmp_path, time_limit_s=1.0)
    compare(FAMILY, ENTRIES, [SPT], options, console=console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO given above
    assert "3/3" in shown and "left" in shown


@pytest.mark.parametrize(
    ("entries", "specs", "message"),
    [
        ([], [SPT], "no instance given"),
        (ENTRIES, [], "no scheduler given"),
        ([ENTRIES[0], ENTRIES[0]], [SPT], "instance 'a' is given twice"),
        (ENTRIES, [SPT, SPT], "scheduler 'toy/spt' is given twice"),
    ],
)
def test_unclear_orders_are_refused(tmp_path: Path, entries: list[Any], specs: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, specs, entries=entries)


@pytest.mark.parametrize("field", ["seeds", "jobs", "time_limit_s"])
def test_options_outside_their_range_are_refused(tmp_path: Path, field: str) -> None:
    options: dict[str, Any] = {field: 0}
    with pytest.raises(ConfigError, match=f"field {field}: 0, expected"):
        ComparisonOptions(out=tmp_path, **options)


def test_the_csv_opens_in_any_reader(tmp_path: Path) -> None:
    run(tmp_path, [CRASH])
    with (tmp_path / "results.csv").open(newline="") as file:
        records = list(csv.DictReader(file))
    assert {record["status"] for record in records} == {"ok", "failed"}
    assert records[0]["family"] == "toy" and records[0]["suite"] == "hand"
