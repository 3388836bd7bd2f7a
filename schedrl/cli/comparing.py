"""``schedrl compare``: many schedulers on many instances, as a table, a CSV file and a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schedrl.cli.arguments import FamilyName, JsonFlag, TimeLimit
from schedrl.cli.console import emit_json, stdout_console

if TYPE_CHECKING:
    from schedrl.evaluation.summary import Summary

__all__ = ["compare"]


def compare(
    family: FamilyName,
    suite: Annotated[
        str, typer.Option("--suite", help="Suite (see: schedrl families), file or folder; several, comma-separated.")
    ],
    schedulers: Annotated[
        str, typer.Option("--schedulers", help="Comma-separated names, or all; NAME@FILE plays your own bundle.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.csv, summary.json and report.html.")],
    time_limit: TimeLimit = 10.0,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs of each randomised scheduler.")] = 1,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs at once; they share the processor.")] = 1,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Keep the finished runs in --out, or start afresh.")
    ] = True,
    as_json: JsonFlag = False,
) -> None:
    """Run every scheduler on every instance under one time limit and check every solution.

    Prints a table with 95 % intervals and writes results.csv, summary.json, report.html, solutions and
    Gantt charts. Interrupt it and run it again: it continues. Exit code 1 if a run failed.

    For example:

        schedrl compare jobshop --suite ft --schedulers mwkr,cp-sat --out out/ft

        schedrl compare socdag --suite canonical,cholesky --schedulers all --time-limit 1 --out out/dags

        schedrl compare jobshop --suite my-folder --schedulers ppo,ppo@my.schedrl --out out/my
    """
    from rich.console import Console

    from schedrl.cli.names import find_family, find_schedulers, find_suites
    from schedrl.evaluation.comparison import ComparisonOptions, compare

    found = find_family(family)
    wanted = [name for name in schedulers.split(",") if name.strip()]
    # Names are looked up before instances are read: a misspelt one should not wait for them.
    specs = find_schedulers(found, wanted)
    name, entries = find_suites(found, suite)
    if wanted == ["all"]:
        specs = find_schedulers(found, wanted, found.problem_of(entries[0].instance))
    options = ComparisonOptions(
        out=out, suite=name, time_limit_s=time_limit, seeds=seeds, jobs=jobs, resume=resume, retry_failed=True
    )
    summary = compare(found, entries, specs, options, console=None if as_json else Console(stderr=True))
    failed = sum(scheduler.status.get("failed", 0) for scheduler in summary.schedulers)
    files = {"results": out / "results.csv", "summary": out / "summary.json", "report": out / "report.html"}
    if as_json:
        emit_json({**summary.to_json(), "failed": failed, "files": {key: str(path) for key, path in files.items()}})
    else:
        _print(summary, failed, files)
    raise typer.Exit(1 if failed else 0)


def _print(summary: Summary, failed: int, files: dict[str, Path]) -> None:
    from schedrl.evaluation.tables import print_summary

    print_summary(summary, stdout_console())
    if failed:
        print(f"{failed} run{'s' if failed > 1 else ''} failed; column message of {files['results']} says why")
    for kind, path in files.items():
        if path.exists():  # the report needs a module that the base installation lacks
            print(f"{kind}: {path}")
