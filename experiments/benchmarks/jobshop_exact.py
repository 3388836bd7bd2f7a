"""What CP-SAT proves on la01..la40 with one thread in a fixed time.

Run by hand: ``python -m schedrl.experiments.benchmarks.jobshop_exact --time-limit 30``. Writes a CSV with
makespan, bound, status and seconds; finished rows are kept, so an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

import numpy as np

from schedrl.atomic import write_text
from schedrl.baselines.jobshop.exact import CpSat
from schedrl.envs.jobshop.solution import Schedule, check
from schedrl.envs.jobshop.suites import load_entry, load_instance

__all__ = ["main", "measure"]

COLUMNS = ("instance", "makespan", "lower_bound", "status", "seconds", "time_limit_s", "best_known", "warm")


def measure(name: str, time_limit_s: float, warm: bool) -> dict[str, str]:
    """Return one row of the table; the schedule has passed the checker."""
    instance = load_instance(name)
    result = CpSat(warm=warm).schedule(instance, time_limit_s=time_limit_s, rng=np.random.default_rng(0))
    assert isinstance(result.solution, Schedule) and result.objective is not None and result.lower_bound is not None
    if violations := check(instance, result.solution):
        raise RuntimeError(f"{name}: {violations[0]}")
    seconds = f"{result.runtime_s:.1f}"
    best_known = load_entry(name).best_known
    numbers = (result.objective, result.lower_bound, result.status, seconds, time_limit_s, best_known, warm)
    texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in numbers]
    return dict(zip(COLUMNS, (name, *texts), strict=True))


def main() -> None:
    """Measure what is missing and rewrite the CSV after each instance."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("jobshop_exact.csv"))
    parser.add_argument("--time-limit", type=float, default=30.0, metavar="S")
    parser.add_argument("--warm", action="store_true", help="start from the best dispatching rule")
    parser.add_argument("instances", nargs="*", default=[f"la{number:02d}" for number in range(1, 41)])
    options = parser.parse_args()
    rows: dict[str, dict[str, str]] = {}
    if options.out.exists():
        rows = {row["instance"]: row for row in csv.DictReader(io.StringIO(options.out.read_text(encoding="utf-8")))}
    for name in options.instances:
        if name not in rows:
            rows[name] = measure(name, options.time_limit, options.warm)
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows.values())
            write_text(options.out, text.getvalue())
        print(", ".join(f"{key} {value}" for key, value in rows[name].items()), flush=True)


if __name__ == "__main__":
    main()
