"""Expert placement out of sample: every planner on windows that it has not seen, with all that a window costs.

Run by hand with the benchmark data: ``python -m schedrl.experiments.reproduce.eplb_out_of_sample`` (``--quick`` takes
one instance of each kind).

EPLB's balance is published in sample, where it is near perfect. Here a planner sees the windows that are over, and the
next one scores it. A row per instance and planner: balance as vLLM defines it, bytes across nodes per forward pass,
bytes moved, seconds to plan, modelled seconds of a forward pass, of migration and in total, and the regret as a share
of the total time of a search that knows all windows. Every plan passes the checker.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from schedrl.envs.moe.suites import SUITES
from schedrl.experiments.measurement import Verdict, checked_run, find_schedulers, write_table, write_verdicts
from schedrl.families import get_family
from schedrl.schedulers import schedulers_of

__all__ = ["COMPARED", "HINDSIGHT", "LEARNED", "kind_of", "main", "planners", "rows_of", "verdicts_of"]

HINDSIGHT = "moe/hindsight"
LEARNED = "moe/ppo-rebalance"
COMPARED = (
    "moe/eplb-every-window",
    "moe/eplb-hierarchical",
    "moe/eplb-global",
    "moe/swaps",
    "moe/variance-aware",
    "moe/variance-aware-every-window",
)
"""What the issue of drift is about: EPLB every window and once, incremental swaps, planning for variance."""
_LIMIT_S = 6.0
_HINDSIGHT_LIMIT_S = 120.0
_COLUMNS = ("balance_vllm", "cross_node_bytes", "moved_bytes", "iteration_s", "migration_s", "total_time")


def planners() -> list[str]:
    """Return every registered scheduler of placements, hindsight first."""
    names = [name for name, spec in schedulers_of("moe").items() if spec.problem == "total_time"]
    return [HINDSIGHT, *(name for name in names if name != HINDSIGHT)]


def kind_of(instance: Any) -> str:
    """Return the instance's name without the number of its draw: a profile, or what was recorded."""
    stem, _, number = instance.name.rpartition("-")
    return stem if number.isdigit() else str(instance.name)


def rows_of(suite: str, instance: Any, schedulers: Mapping[str, Any], limit_s: float) -> list[dict[str, object]]:
    """Return a row per planner.

    Raises:
        RuntimeError: no plan, or one that breaks a rule.
    """
    rows: list[dict[str, object]] = []
    bound = max(bound.value for bound in get_family("moe").bounds(instance))
    best = np.nan
    for name, scheduler in schedulers.items():
        limit = _HINDSIGHT_LIMIT_S if name == HINDSIGHT else limit_s
        try:
            result, values = checked_run("moe", scheduler, instance, time_limit_s=limit)
        except RuntimeError as error:
            raise RuntimeError(f"{name}: {error}") from None
        if name == HINDSIGHT:
            best = values["total_time"]
        rows.append(
            {"suite": suite, "kind": kind_of(instance), "instance": instance.name, "scheduler": name}
            | {column: values[column] for column in _COLUMNS}
            | {
                "solve_s": result.runtime_s,
                "gap_to_bound": values["total_time"] / bound - 1.0,
                "regret_to_hindsight": values["total_time"] / best - 1.0,
            }
        )
    return rows


def verdicts_of(rows: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Return, per kind of drifting load, whether the trained policy takes less time than each of ``COMPARED``."""
    verdicts = []
    for kind in dict.fromkeys(row["kind"] for row in rows if row["suite"] == "drift"):
        own = [row for row in rows if row["kind"] == kind and row["suite"] == "drift"]
        totals = {
            name: sum(float(row["total_time"]) for row in own if row["scheduler"] == name)
            for name in dict.fromkeys(row["scheduler"] for row in own)
        }
        learned = totals[LEARNED]
        others = {name: totals[name] for name in COMPARED if name in totals}
        lost = [name for name, total in others.items() if total <= learned]
        best = min(others, key=lambda name: others[name])
        regret = learned / totals[HINDSIGHT] - 1.0
        claim = "re-planning learned under drift takes less total time than EPLB every window, EPLB once, incremental"
        measured = f"{learned:.4g} s, against {others[best]:.4g} s of the best of them, {best}"
        verdicts.append(
            Verdict(
                claim=f"{kind}: {claim} swaps and variance-aware planning",
                measured=f"{measured}; regret to hindsight {100 * regret:.1f} %",
                verdict="holds" if not lost else f"does not hold against {', '.join(lost)}",
            )
        )
    return verdicts


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study and write its table and verdicts beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one instance of each kind")
    parser.add_argument("--limit", type=float, default=_LIMIT_S, help="seconds per planner, but for hindsight")
    options = parser.parse_args(arguments)
    probe = SUITES["eplb-readme"].load()[0].instance
    schedulers, notes = find_schedulers(planners(), probe)
    rows: list[dict[str, object]] = []
    for suite in ("out-of-sample", "drift"):
        seen: set[str] = set()
        for entry in SUITES[suite].load():
            kind = kind_of(entry.instance)
            if options.quick and kind in seen:
                continue
            seen.add(kind)
            rows += rows_of(suite, entry.instance, schedulers, options.limit)
            print(f"{suite} {entry.instance.name}: {len(schedulers)} planners")
    path = Path(__file__)
    write_table(path.with_suffix(".csv"), rows)
    write_verdicts(path.with_suffix(".json"), verdicts_of(rows), notes)


if __name__ == "__main__":
    main()
