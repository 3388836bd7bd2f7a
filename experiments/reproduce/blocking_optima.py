"""Optimal makespans of job shops without room between machines, with and without swaps.

Run by hand: ``python -m schedrl.experiments.reproduce.blocking_optima --time-limit 120``. Writes a CSV with makespan,
bound, status and seconds of one thread of CP-SAT; finished rows are kept, so an interrupted run resumes. Every
schedule passes the checker.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from schedrl.baselines.jobshop.shop_exact import ShopCpSat
from schedrl.envs.jobshop.shop import Blocking, ShopInstance
from schedrl.envs.jobshop.shop_checker import check_shop
from schedrl.envs.jobshop.shop_schedule import ShopSchedule
from schedrl.envs.jobshop.suites import load_instance
from schedrl.experiments.measurement import write_table

__all__ = ["KNOWN_SWAP", "main", "measure"]

# Optima with swaps, proved with an interval model of CP-SAT in earlier runs of ours.
KNOWN_SWAP: Mapping[str, int] = MappingProxyType({"ft06": 63, "la01": 793, "la03": 715})
_INSTANCES = ("ft06", "la01", "la02", "la03", "la04", "la05")


def measure(name: str, blocking: Blocking, time_limit_s: float) -> dict[str, object]:
    """Return one row of the table.

    Raises:
        RuntimeError: a schedule that breaks a rule of the problem, or a makespan below a known optimum.
    """
    shop = ShopInstance.from_job_shop(load_instance(name), blocking=blocking)
    result = ShopCpSat().schedule(shop, time_limit_s=time_limit_s, rng=np.random.default_rng(0))
    assert isinstance(result.solution, ShopSchedule) and result.objective is not None
    if violations := check_shop(shop, result.solution):
        raise RuntimeError(f"{name}: {violations[0]}")
    known = KNOWN_SWAP.get(name) if blocking == "swap" else None
    if known is not None and result.objective < known:
        raise RuntimeError(f"{name}: makespan {result.objective:g} below the known optimum {known}")
    return {
        "instance": name,
        "blocking": blocking,
        "makespan": result.objective,
        "lower_bound": result.lower_bound,
        "status": result.status,
        "seconds": round(result.runtime_s, 1),
        "time_limit_s": time_limit_s,
        "known_optimum": known,
    }


def main() -> None:
    """Measure what is missing and rewrite the CSV after each instance."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("blocking_optima.csv"))
    parser.add_argument("--time-limit", type=float, default=120.0, metavar="S")
    parser.add_argument("instances", nargs="*", default=list(_INSTANCES))
    options = parser.parse_args()
    rows: dict[tuple[str, str], Mapping[str, object]] = {}
    if options.out.exists():
        text = options.out.read_text(encoding="utf-8")
        rows = {(row["instance"], row["blocking"]): row for row in csv.DictReader(io.StringIO(text))}
    variants: tuple[Blocking, ...] = ("swap", "no-swap")
    for name in options.instances:
        for blocking in variants:
            if (name, blocking) not in rows:
                rows[name, blocking] = measure(name, blocking, options.time_limit)
                write_table(options.out, list(rows.values()))
            print(", ".join(f"{key} {value}" for key, value in rows[name, blocking].items()), flush=True)


if __name__ == "__main__":
    main()
