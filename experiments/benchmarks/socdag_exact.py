"""How far list heuristics are from the optimum of 25 small graphs, and what CP-SAT finds on tiled factorisations.

Run by hand: ``python -m schedrl.experiments.benchmarks.socdag_exact``. One row per instance and method; ratios are to
the best lower bound, which for a solved instance is the optimum. Rows of a finished instance are kept, so an
interrupted run resumes. Every schedule passes the checker.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from schedrl.baselines.socdag.exact import CpSat
from schedrl.baselines.socdag.heuristics import HEURISTICS, ListScheduler
from schedrl.envs.socdag.solution import DagSchedule, check
from schedrl.envs.socdag.suites import SUITES, load_entry, load_instance
from schedrl.experiments.measurement import write_table

__all__ = ["PUBLISHED", "main", "measure", "summary"]

TILED = ("cholesky-8", "lu-8", "qr-8")
# Mean (and largest) ratio to CP-SAT on 25 graphs of the same parameters, by an independent implementation.
PUBLISHED: dict[str, tuple[float, float]] = {
    "lookahead": (1.069, 1.19),
    "heft": (1.097, 1.32),
    "heft-append": (1.121, 1.76),
    "peft": (1.152, 1.63),
    "dls": (1.176, 1.79),
    "min-min": (1.182, 1.41),
    "sufferage": (1.202, 2.25),
    "mct": (1.251, 2.24),
    "cpop": (1.254, 2.26),
    "max-min": (1.376, 2.49),
    "met": (1.922, 4.71),
    "fastest": (2.321, 4.14),
}


def measure(name: str, time_limit_s: float) -> list[dict[str, object]]:
    """Return CP-SAT's row of an instance and one per heuristic.

    Raises:
        RuntimeError: a schedule breaks a rule of the problem.
    """
    entry, instance = load_entry(name), load_instance(name)
    exact = CpSat().schedule(instance, time_limit_s=time_limit_s, rng=np.random.default_rng(0))
    bound = max(float(exact.lower_bound or 0.0), entry.lower_bound or 0.0)
    results = {"cp-sat": exact}
    for heuristic in HEURISTICS:
        results[heuristic] = ListScheduler(heuristic=heuristic).schedule(
            instance, time_limit_s=time_limit_s, rng=np.random.default_rng(0)
        )
    rows: list[dict[str, object]] = []
    for method, result in results.items():
        assert isinstance(result.solution, DagSchedule) and result.objective is not None
        if violations := check(instance, result.solution):
            raise RuntimeError(f"{method} on {name}: {violations[0]}")
        rows.append(
            {
                "instance": name,
                "method": method,
                "makespan": result.objective,
                "lower_bound": bound,
                "ratio": result.objective / bound,
                "solved": exact.status == "optimal",
                "best_known": entry.best_known,
                "seconds": round(result.runtime_s, 3),
                "time_limit_s": time_limit_s if method == "cp-sat" else None,
            }
        )
    return rows


def summary(rows: Iterable[dict[str, object]]) -> dict[str, tuple[float, float, int]]:
    """Return mean ratio, largest ratio and how many instances by method, over solved instances of ``rgg-small``."""
    ratios = defaultdict(list)
    for row in rows:
        if str(row["instance"]).startswith("rgg-small") and str(row["solved"]) == "True":
            ratios[str(row["method"])].append(float(str(row["ratio"])))
    return {method: (float(np.mean(part)), max(part), len(part)) for method, part in ratios.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, rewrite the CSV after each instance, and print the means."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("socdag_exact.csv"))
    parser.add_argument("--time-limit", type=float, default=60.0, metavar="S", help="of CP-SAT per instance")
    parser.add_argument("instances", nargs="*", help="all of rgg-small and three tiled ones by default")
    options = parser.parse_args(arguments)
    small = [entry.instance.name for entry in SUITES["rgg-small"].load()]
    rows: list[dict[str, object]] = []
    if options.out.exists():
        with options.out.open(newline="") as file:
            rows = [dict(row) for row in csv.DictReader(file)]
    for name in options.instances or [*small, *TILED]:
        if not any(row["instance"] == name for row in rows):
            rows += measure(name, options.time_limit)
            write_table(options.out, rows)
        exact = next(row for row in rows if row["instance"] == name and row["method"] == "cp-sat")
        print(f"{name}: {exact['makespan']} bound {exact['lower_bound']} solved {exact['solved']}", flush=True)
    for method, (mean, most, count) in sorted(summary(rows).items(), key=lambda item: item[1]):
        published = "  published {:.3f} ({:.2f})".format(*PUBLISHED[method]) if method in PUBLISHED else ""
        print(f"{method:20s}{mean:7.3f} ({most:.2f}) of {count} optima{published}")


if __name__ == "__main__":
    main()
