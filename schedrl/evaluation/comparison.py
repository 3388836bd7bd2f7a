"""The runner: every scheduler on every instance under equal limits, resumable, whatever fails on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from schedrl.atomic import write_text
from schedrl.errors import ConfigError
from schedrl.evaluation.execution import Task, reference_of
from schedrl.evaluation.gallery import draw_gallery, save_solution
from schedrl.evaluation.pool import run_tasks
from schedrl.evaluation.provenance import provenance
from schedrl.evaluation.report import write_report
from schedrl.evaluation.results import ResultLog, ResultRow, RunKey
from schedrl.evaluation.summary import Summary, summarise
from schedrl.families import Family, Instance, SuiteEntry
from schedrl.schedulers import SchedulerSpec

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["ComparisonOptions", "compare"]

SCHEMA = "schedrl/comparison/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonOptions:
    """How to compare.

    ``seeds`` counts the runs of randomised schedulers (seeds 0, 1, ...); others run once with seed 0.
    ``jobs`` above 1 runs that many processes at once, which share the processor and so slow each other:
    time limits are wall seconds. ``resume`` continues an earlier comparison in ``out``, otherwise its rows
    are replaced; ``retry_failed`` also repeats its failed runs. ``warm_up`` calls each scheduler once on the
    smallest instance before it is timed. ``pictures`` is the number of instances whose solutions are drawn.

    Raises:
        ConfigError: a value outside its range.
    """

    out: Path
    suite: str = ""
    time_limit_s: float = 10.0
    seeds: int = 1
    jobs: int = 1
    resume: bool = True
    retry_failed: bool = False
    warm_up: bool = True
    pictures: int = 12

    def __post_init__(self) -> None:
        for field, least in (("seeds", 1), ("jobs", 1), ("pictures", 0)):
            if getattr(self, field) < least:
                raise ConfigError(f"comparison: field {field}: {getattr(self, field)}, expected at least {least}")
        if not 0 < self.time_limit_s < float("inf"):
            raise ConfigError(f"comparison: field time_limit_s: {self.time_limit_s}, expected a positive number")


def compare(
    family: Family,
    entries: Sequence[SuiteEntry],
    specs: Sequence[SchedulerSpec],
    options: ComparisonOptions,
    *,
    on_row: Callable[[ResultRow], None] | None = None,
    console: Console | None = None,
) -> Summary:
    """Run every scheduler on every instance and write the results into ``options.out``.

    Writes ``results.csv`` (grows run by run, flushed to disk), ``solutions/``, ``gantt/``, ``summary.json``
    and, where jinja2 is installed, ``report.html``. ``on_row`` sees each new row; ``console`` shows progress
    with rate and remaining time. Print the returned summary with ``tables.print_summary``. An interrupted
    call leaves its finished runs, which the next one with ``resume`` skips.

    Raises:
        ConfigError: nothing to compare, a name given twice, ``out`` holds another comparison, or instances of
            different objectives or that a scheduler does not solve.
    """
    _require_distinct("instance", [entry.instance.name for entry in entries])
    _require_distinct("scheduler", [spec.name for spec in specs])
    objective = _common_objective(family, entries, specs)
    _claim(family, options)
    log = ResultLog(options.out / "results.csv", objective=objective, retry_failed=options.retry_failed)
    keys = _keys(entries, specs, options)
    pending = [key for key in keys if key not in log.finished]
    with _progress(console, total=len(keys), done=len(keys) - len(pending)) as advance:
        for task, outcome in run_tasks(_tasks(family, entries, specs, options, pending), options.jobs):
            # The solution first: a row on disk promises that its solution is there too.
            if outcome.solution is not None:
                save_solution(options.out, outcome.rows[0].key, outcome.solution)
            log.append(outcome.rows)
            for row in outcome.rows:
                if on_row is not None:
                    on_row(row)
            advance(f"{task.instance.name} {task.spec.name}")
    wanted = set(keys)
    summary = _conclude(family, entries, specs, options, [row for row in log.rows if row.key in wanted])
    if console is not None and find_spec("jinja2") is None:
        console.print("report.html is not written: it needs jinja2 (pip install 'schedrl[plot]')", markup=False)
    return summary


def _common_objective(family: Family, entries: Sequence[SuiteEntry], specs: Sequence[SchedulerSpec]) -> str:
    found = sorted({family.objective_of(entry.instance) for entry in entries})
    if len(found) > 1:
        raise ConfigError(f"the instances have different objectives, {' and '.join(found)}: compare them one by one")
    problems = {family.problem_of(entry.instance): entry.instance.name for entry in entries}
    for spec in specs:
        for problem, name in problems.items():
            if spec.problem not in ("", problem):
                raise ConfigError(f"{spec.name} solves problems of kind {spec.problem}, {name} is of kind {problem}")
    return found[0] if found else family.objective


def _conclude(
    family: Family,
    entries: Sequence[SuiteEntry],
    specs: Sequence[SchedulerSpec],
    options: ComparisonOptions,
    rows: Sequence[ResultRow],
) -> Summary:
    sizes = {entry.instance.name: str(getattr(entry.instance, "size_label", "")) for entry in entries}
    objective = _common_objective(family, entries, specs)
    primary = [row for row in rows if row.objective == objective]
    summary = summarise(primary, specs, sizes, objective, suite=options.suite)
    facts = provenance() | {
        "time limit": f"{options.time_limit_s:g} s per run",
        "seeds": f"0 to {options.seeds - 1} for randomised schedulers, 0 for the others",
        "processes": str(options.jobs),
    }
    text = json.dumps({**summary.to_json(), "provenance": facts}, indent=2)
    write_text(options.out / "summary.json", text + "\n")
    pictures = draw_gallery(family, entries, primary, options.out, instances=options.pictures)
    if find_spec("jinja2") is not None:
        write_report(options.out / "report.html", summary, primary, sizes, pictures, facts)
    return summary


def _keys(entries: Sequence[SuiteEntry], specs: Sequence[SchedulerSpec], options: ComparisonOptions) -> list[RunKey]:
    return [
        RunKey(entry.instance.name, spec.name, seed)
        for entry in entries
        for spec in specs
        for seed in range(options.seeds if spec.randomised else 1)
    ]


def _tasks(
    family: Family,
    entries: Sequence[SuiteEntry],
    specs: Sequence[SchedulerSpec],
    options: ComparisonOptions,
    pending: Sequence[RunKey],
) -> Iterator[Task]:
    wanted = set(pending)
    warm_up = _smallest([entry.instance for entry in entries]) if options.warm_up and pending else None
    for entry in entries:
        keys = [key for key in _keys([entry], specs, options) if key in wanted]
        if not keys:
            continue
        reference = reference_of(family, entry)
        by_name = {spec.name: spec for spec in specs}
        for key in keys:
            yield Task(
                family=family,
                spec=by_name[key.scheduler],
                suite=entry.suite or options.suite,
                instance=entry.instance,
                reference=reference,
                seed=key.seed,
                time_limit_s=options.time_limit_s,
                warm_up=warm_up,
            )


def _smallest(instances: Sequence[Instance]) -> Instance:
    return min(instances, key=lambda instance: len(instance.to_json()))


def _require_distinct(what: str, names: Sequence[str]) -> None:
    if not names:
        raise ConfigError(f"comparison: no {what} given, expected at least one")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"comparison: {what} {twice!r} is given twice, expected distinct names")


def _claim(family: Family, options: ComparisonOptions) -> None:
    """Refuse to mix rows of unlike comparisons in one folder, and record what this one is."""
    path = options.out / "comparison.json"
    terms = {
        "schema": SCHEMA,
        "family": family.name,
        "suite": options.suite,
        "time_limit_s": float(options.time_limit_s),
    }
    if not options.resume:
        (options.out / "results.csv").unlink(missing_ok=True)
    elif path.exists():
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            held = None
        if not isinstance(held, dict):
            raise ConfigError(f"{path}: not a comparison's record; choose another folder or do not resume")
        for field, value in terms.items():
            if held.get(field) != value:
                raise ConfigError(
                    f"{path}: field {field}: this folder holds {held.get(field)!r}, expected {value!r}; "
                    "choose another folder or do not resume"
                )
    write_text(path, json.dumps(terms) + "\n")


@contextmanager
def _progress(console: Console | None, *, total: int, done: int) -> Iterator[Callable[[str], None]]:
    if console is None:
        yield lambda _: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=total, completed=done, rate="")

        def advance(text: str) -> None:
            speed = progress.tasks[0].speed
            progress.update(bar, advance=1, description=text, rate=f"{speed:.2g} runs/s" if speed else "")

        yield advance
