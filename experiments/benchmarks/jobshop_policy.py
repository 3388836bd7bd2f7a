"""How good the shipped job-shop policy is on the classic benchmarks, beside the rules it has to beat.

Run by hand: ``python -m schedrl.experiments.benchmarks.jobshop_policy [SUITE ...]``. Writes
``jobshop_policy_SUITE.csv`` (one row per instance and scheduler, every solution checked) next to this file
and prints the mean gaps; all suites take about four minutes on one core.
"""

from __future__ import annotations

import csv
import math
import shutil
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from schedrl.evaluation.comparison import ComparisonOptions, compare
from schedrl.families import get_family
from schedrl.schedulers import get_scheduler

__all__ = ["main"]

SUITES = (
    "taillard",
    "lawrence",
    "fisher-thompson",
    "adams-balas-zawack",
    "applegate-cook",
    "storer-wu-vaccari",
    "yamada-nakano",
)
SCHEDULERS = (
    *(f"jobshop/{rule}" for rule in ("spt", "mwkr", "mopnr", "fifo", "fdd-mwkr", "spt-twkr", "spt-twkr-both")),
    "jobshop/spt-twkr-random-128",
    "jobshop/pilot",
    "jobshop/ppo",
    "jobshop/ppo-both",
    "jobshop/ppo-sample",
)


def main(suites: list[str]) -> None:
    """Run the named suites, all by default."""
    family = get_family("jobshop")
    for suite in suites or SUITES:
        with tempfile.TemporaryDirectory() as folder:
            options = ComparisonOptions(out=Path(folder), suite=suite, time_limit_s=300.0, seeds=1)
            compare(family, family.suites[suite].load(), [get_scheduler(name) for name in SCHEDULERS], options)
            kept = Path(__file__).with_name(f"jobshop_policy_{suite}.csv")
            shutil.copyfile(Path(folder) / "results.csv", kept)
        print(suite, *(f"\n  {name:<28} {100 * gap:6.2f} %" for name, gap in _mean_gaps(kept).items()))


def _mean_gaps(results: Path) -> dict[str, float]:
    gaps = defaultdict(list)
    with results.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["objective"] == "makespan":
                gaps[row["scheduler"]].append(float(row["gap"] or math.nan))
    return {name: sum(values) / len(values) for name, values in gaps.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
