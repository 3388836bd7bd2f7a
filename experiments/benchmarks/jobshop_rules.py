"""The dispatching-rule table on Taillard's 80 instances, beside published figures.

Run by hand: ``python -m schedrl.experiments.benchmarks.jobshop_rules``. Writes one CSV row per instance and
scheduler, prints mean gaps per size, and the largest difference to the reference figures. Deterministic but
for the randomised rule (one seed per instance) and takes about half a minute; ``--pilot`` adds two.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

import numpy as np

from schedrl.atomic import write_text
from schedrl.envs.jobshop.solution import Schedule, check
from schedrl.envs.jobshop.suites import load_entry, load_instance
from schedrl.schedulers import get_scheduler

__all__ = ["REFERENCE", "main", "measure"]

SIZES = ("15x15", "20x15", "20x20", "30x15", "30x20", "50x15", "50x20", "100x20")
COLUMNS = ("instance", "size", "scheduler", "makespan", "best_known", "gap_pct")
# Mean gaps in percent by size and overall, from an independent implementation with the same tie rule.
REFERENCE: dict[str, tuple[float, ...]] = {
    "spt": (25.9, 32.8, 27.8, 35.3, 34.5, 24.1, 25.5, 14.4, 27.5),
    "mwkr": (19.2, 23.4, 21.8, 23.9, 25.2, 16.9, 17.9, 8.3, 19.6),
    "mopnr": (20.5, 23.6, 21.7, 22.8, 25.0, 17.4, 17.7, 9.2, 19.7),
    "fifo": (23.9, 31.4, 27.4, 31.2, 31.2, 20.7, 23.9, 13.6, 25.4),
    "fdd-mwkr": (17.7, 21.3, 19.9, 21.7, 24.1, 15.3, 16.3, 7.6, 18.0),
    "spt-twkr": (16.6, 17.3, 18.3, 16.3, 19.1, 12.2, 12.5, 3.8, 14.5),
    "spt-twkr-both": (15.1, 15.2, 15.6, 14.9, 17.9, 8.8, 10.5, 3.2, 12.65),
    "spt-twkr-random-128": (9.2, 11.3, 11.7, 12.3, 15.4, 4.9, 7.7, 1.5, 9.24),
}


def measure(scheduler: str, number: int) -> dict[str, object]:
    """Return one row of the table: a checked makespan of ``ta<number>`` and its gap to the best known."""
    name = f"ta{number:02d}"
    instance, best_known = load_instance(name), load_entry(name).best_known
    result = (
        get_scheduler(f"jobshop/{scheduler}")
        .make()
        .schedule(instance, time_limit_s=600.0, rng=np.random.default_rng(number))
    )
    assert isinstance(result.solution, Schedule) and result.objective is not None and best_known is not None
    if violations := check(instance, result.solution):
        raise RuntimeError(f"{scheduler} on {name}: {violations[0]}")
    gap = 100 * (result.objective / best_known - 1)
    size = f"{instance.jobs}x{instance.machines}"
    values = (name, size, scheduler, int(result.objective), int(best_known), round(gap, 3))
    return dict(zip(COLUMNS, values, strict=True))


def _means(rows: list[dict[str, object]]) -> list[float]:
    gaps = [float(str(row["gap_pct"])) for row in rows]
    groups = [np.mean([gap for gap, row in zip(gaps, rows, strict=True) if row["size"] == size]) for size in SIZES]
    return [float(value) for value in (*groups, np.mean(gaps))]


def main() -> None:
    """Measure, print, and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("jobshop_rules.csv"))
    parser.add_argument("--pilot", action="store_true", help="add the rollout of SPT/TWKR")
    options = parser.parse_args()
    others = ("lpt", "lwkr", "lopnr", "spt-twkr-reversed", "fdd-mwkr-both", "fdd-mwkr-random-128")
    rows: list[dict[str, object]] = []
    print(f"{'gap in %':22s}" + "".join(f"{size:>8s}" for size in (*SIZES, "mean")))
    for scheduler in (*REFERENCE, *others, *(("pilot",) if options.pilot else ())):
        measured = [measure(scheduler, number) for number in range(1, 81)]
        rows += measured
        means = _means(measured)
        line = f"{scheduler:22s}" + "".join(f"{mean:8.2f}" for mean in means)
        if scheduler in REFERENCE:
            differences = [mean - figure for mean, figure in zip(means, REFERENCE[scheduler], strict=True)]
            line += f"   largest difference to the reference {max(differences, key=abs):+.2f}"
        print(line, flush=True)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(options.out, text.getvalue())
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
