"""Anytime search on large job shops: the hybrid beside each of its parts alone, at equal wall time and threads.

Run by hand: ``python -m schedrl.experiments.benchmarks.jobshop_anytime``. Taillard's ta51 to ta80 and generated
100x20 and 200x20 instances. Writes ``jobshop_anytime.csv`` (a row per instance, method and limit, with trace),
``jobshop_anytime_groups.csv`` (means) and ``jobshop_anytime.svg`` (mean gap over time) beside this file; finished rows
are kept, so an interrupted run resumes. All takes about five hours; ``--instances`` and ``--seconds`` take parts.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from schedrl.atomic import write_text
from schedrl.baselines.jobshop.exact import CpSat
from schedrl.baselines.jobshop.hybrid import Hybrid
from schedrl.baselines.jobshop.incumbent import IncumbentCallback
from schedrl.baselines.jobshop.large_neighbourhood import LargeNeighbourhood
from schedrl.envs.jobshop.generators import taillard_like
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule, check
from schedrl.envs.jobshop.suites import load_entry
from schedrl.errors import ConfigError
from schedrl.evaluation.primal_integral import primal_gap, primal_integral
from schedrl.plotting.lines import Line, LineChart
from schedrl.plotting.panels import PanelChart, save_panels
from schedrl.schedulers import Scheduler

__all__ = ["METHODS", "instance_of", "main", "measure", "with_gaps"]

# Seeds of the generated instances; those that the hybrid was tuned on are others.
_GENERATED = {f"generated-{jobs}x20-{k}": (jobs, 7000 + jobs + k) for jobs in (100, 200) for k in range(1, 4)}
INSTANCES = (*(f"ta{number}" for number in range(51, 81)), *_GENERATED)
_POINTS = 60  # of a curve


def _policy(threads: int, on_incumbent: IncumbentCallback) -> Hybrid:
    only = (("policy", 1.0),)
    return Hybrid(threads=threads, samples=2**30, phases=only, lead=only, on_incumbent=on_incumbent)  # type: ignore[arg-type]


METHODS: dict[str, Callable[[int, IncumbentCallback], Any]] = {
    "hybrid": lambda threads, report: Hybrid(threads=threads, on_incumbent=report),
    "cp-sat": lambda threads, report: CpSat(workers=threads, on_incumbent=report),
    "tabu": lambda threads, report: Hybrid(threads=threads, phases=(("tabu", 1.0),), on_incumbent=report),
    "lns": lambda threads, report: LargeNeighbourhood(threads=threads, on_incumbent=report),
    "policy": _policy,
}
KEY = ("instance", "method", "seconds", "threads")
COLUMNS = (
    *KEY,
    "group",
    "makespan",
    "lower_bound",
    "status",
    "runtime_s",
    "best_known",
    "gap",
    "primal_integral",
    "trace",
)
Row = dict[str, str]


def instance_of(name: str) -> tuple[JobShopInstance, float | None]:
    """Return an instance and its best known makespan, None for generated ones.

    Raises:
        ConfigError: a generated instance of another name.
        UnknownNameError: no such classic instance.
    """
    if name in _GENERATED:
        jobs, seed = _GENERATED[name]
        return taillard_like(np.random.default_rng(seed), jobs=jobs, machines=20, name=name), None
    if name.startswith("generated"):
        raise ConfigError(f"option instances: {name!r}, expected a classic instance or one of {', '.join(_GENERATED)}")
    entry = load_entry(name)
    assert isinstance(entry.instance, JobShopInstance)
    return entry.instance, entry.best_known


def measure(name: str, method: str, seconds: float, threads: int) -> Row:
    """Return one row without gaps; the schedule has passed the checker."""
    instance, best_known = instance_of(name)
    trace: list[tuple[float, int]] = []
    scheduler: Scheduler = METHODS[method](threads, lambda second, makespan: trace.append((second, makespan)))
    result = scheduler.schedule(instance, time_limit_s=seconds, rng=np.random.default_rng(0))
    assert isinstance(result.solution, Schedule) and result.objective is not None and result.lower_bound is not None
    if violations := check(instance, result.solution):
        raise RuntimeError(f"{name}: {method}: {violations[0]}")
    return {
        "instance": name,
        "method": method,
        "seconds": f"{seconds:g}",
        "threads": str(threads),
        "group": instance.size_label if best_known is not None else f"generated-{instance.size_label}",
        "makespan": f"{result.objective:g}",
        "lower_bound": f"{result.lower_bound:g}",
        "status": result.status,
        "runtime_s": f"{result.runtime_s:.1f}",
        "best_known": "" if best_known is None else f"{best_known:g}",
        "trace": " ".join(f"{second:.3f}:{makespan}" for second, makespan in trace),
    }


def _trace(row: Row) -> list[tuple[float, float]]:
    pairs = (point.split(":") for point in row["trace"].split())
    return [(float(second), float(makespan)) for second, makespan in pairs]


def with_gaps(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with gaps to the best known makespan; for generated instances that is the best of the rows."""
    best: dict[str, float] = {}
    for row in rows:
        known = float(row["best_known"] or "inf") if not row["instance"].startswith("generated") else np.inf
        best[row["instance"]] = min(best.get(row["instance"], np.inf), known, float(row["makespan"]))
    complete = []
    for row in rows:
        reference, seconds = best[row["instance"]], float(row["seconds"])
        gap = float(row["makespan"]) / reference - 1.0
        integral = primal_integral(_trace(row), reference=reference, until=seconds)
        more = {"best_known": f"{reference:g}", "gap": f"{gap:.5f}", "primal_integral": f"{integral:.5f}"}
        complete.append({**row, **more})
    return complete


def _groups(rows: Sequence[Row]) -> list[Row]:
    """Return the mean gap and primal integral per group, limit and method, over the instances all methods have."""
    keys = dict.fromkeys((row["group"], row["seconds"], row["threads"], row["method"]) for row in rows)
    means = []
    for group, seconds, threads, method in keys:
        cells = [row for row in rows if (row["group"], row["seconds"], row["threads"]) == (group, seconds, threads)]
        methods = {row["method"] for row in cells}
        names = {row["instance"] for row in cells}
        shared = {n for n in names if {row["method"] for row in cells if row["instance"] == n} == methods}
        own = [row for row in cells if row["method"] == method and row["instance"] in shared]
        if own:
            mean = {field: f"{np.mean([float(row[field]) for row in own]):.5f}" for field in ("gap", "primal_integral")}
            key = {"group": group, "seconds": seconds, "threads": threads, "method": method}
            means.append({**key, "instances": str(len(own)), **mean})
    return means


def _panel(group: str, rows: Sequence[Row]) -> LineChart:
    """Return the mean primal gap over time of each method, at the longest limit measured for the group."""
    seconds = max(float(row["seconds"]) for row in rows)
    x = np.geomspace(0.05, seconds, _POINTS)
    lines = []
    for method in METHODS:
        own = [row for row in rows if row["method"] == method and float(row["seconds"]) == seconds]
        curves = []
        for row in own:
            times, values = zip(*_trace(row), strict=True)
            index = np.searchsorted(times, x, side="right") - 1
            gaps = np.array([primal_gap(value, float(row["best_known"])) for value in values])
            curves.append(np.where(index >= 0, gaps[index], gaps[0]))
        if curves:
            lines.append(Line(label=method, x=np.log10(x), y=100.0 * np.mean(curves, axis=0)))
    title = f"{group}, {seconds:g} s"
    return LineChart(title=title, x_label="log10 of seconds", y_label="mean gap, %", lines=tuple(lines), stepped=True)


def _write(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _save(out: Path, rows: Sequence[Row]) -> list[Row]:
    """Write both tables and the picture, and return the means."""
    complete = with_gaps(rows)
    _write(out, COLUMNS, complete)
    groups = _groups(complete)
    if groups:
        _write(out.with_name(f"{out.stem}_groups.csv"), tuple(groups[0]), groups)
    names = dict.fromkeys(row["group"] for row in complete)
    panels = tuple(_panel(name, [row for row in complete if row["group"] == name]) for name in names)
    save_panels(PanelChart(title="Mean gap over time", panels=panels), out.with_suffix(".svg"))
    return groups


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing and rewrite the tables after each run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--instances", nargs="+", default=list(INSTANCES), metavar="NAME")
    parser.add_argument("--seconds", nargs="+", type=float, default=[10.0, 30.0, 60.0], metavar="S")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    rows: dict[tuple[str, ...], Row] = {}
    if options.out.exists():
        for row in csv.DictReader(io.StringIO(options.out.read_text(encoding="utf-8"))):
            rows[tuple(row[field] for field in KEY)] = row
    groups: list[Row] = []
    for seconds in options.seconds:
        for name in options.instances:
            for method in options.methods:
                key = (name, method, f"{seconds:g}", str(options.threads))
                if key not in rows:
                    rows[key] = measure(name, method, seconds, options.threads)
                    groups = _save(options.out, list(rows.values()))
                print(*key, rows[key]["makespan"], rows[key]["status"], flush=True)
    for row in groups or _save(options.out, list(rows.values())):
        print(", ".join(f"{field} {value}" for field, value in row.items()))


if __name__ == "__main__":
    main()
