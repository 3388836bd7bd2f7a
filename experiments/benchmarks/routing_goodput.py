"""Goodput of every online router on the reference's two fleets, beside the reference's own figures.

Run by hand: ``python -m schedrl.experiments.benchmarks.routing_goodput`` (``--rules`` takes the simulator's own rules
only, ``--routers`` chooses by name). All of Mooncake's conversation trace, prompts cut at 20,480 tokens, a cache of a
million tokens per instance beside memory that never runs out, arrivals squeezed; the first 500 requests warm up, and
90 % of the rest have to get their first token within 5 s. Each row gives the goodput of the whole trace and the mean
over windows of it, and seeds where the router draws, with its 95 % interval.

Windows begin with cold caches. Exact affinity then may keep to the few instances that hold the one block that all
prompts share, and have a goodput of 0 there: the whole trace begins with a burst that spreads this block.

The reference differs from this simulator in what it leaves unsaid, so that figures within 5 % count as reproduced.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from schedrl.baselines.routing.goodput import Goodput, Play, goodput, goodput_interval, rule_play, scheduler_play
from schedrl.baselines.routing.pooled import pooled_plan
from schedrl.benchmark_data import data_file, data_folder
from schedrl.envs.routing.fleets import named_fleet
from schedrl.envs.routing.generators import MOONCAKE
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.rules import RULES
from schedrl.envs.routing.solution import RoutingPlan
from schedrl.envs.routing.suites import CACHE_TOKENS, PROMPT_CAP
from schedrl.envs.routing.trace_readers import read_workload
from schedrl.envs.routing.workload import Workload, clipped, route, window
from schedrl.errors import UnknownNameError
from schedrl.experiments.measurement import write_table
from schedrl.schedulers import schedulers_of

__all__ = ["POOLED", "REFERENCE", "instance_of", "main", "players", "rows_of", "windows_of", "with_regret"]

POOLED = "pooled reference"
"""name of the one-queue reference in the table"""
REFERENCE: Mapping[str, Mapping[str, float]] = {
    "homogeneous": {
        "random": 8.33, "round-robin": 9.59, "least-outstanding": 9.88, "power-of-two": 9.59, "least-pending": 10.30,
        "consistent-hash": 10.37, "bounded-hash": 11.14, "dynamo": 11.42, "sglang-cache-aware": 12.55,
        "min-ttft": 12.62, "loadaware": 12.83, "lmetric": 12.83, "dualmap": 13.18, "affinity": 13.25, POOLED: 13.69,
    },
    "heterogeneous": {
        "random": 1.77, "least-outstanding": 12.20, "least-outstanding-speed": 11.91, "least-pending": 12.48,
        "least-pending-speed": 12.71, "least-pending-time": 12.71, "min-ttft": 14.85, "lmetric": 14.96,
        "lmetric-speed": 14.16, "dualmap": 4.65, "dualmap-speed": 12.60, "affinity": 14.96, "affinity-speed": 15.37,
        "affinity-time": 15.37, POOLED: 17.04,
    },
}  # fmt: skip
"""requests per second of the reference's table C7 by fleet and router; its min-ttft knows speeds"""

_AMPLE = 2**30
_WINDOWS, _SEEDS = 4, 3
_WARM_UP = 500
_RATE_OF = {"homogeneous": 11.5, "heterogeneous": 13.0}
_TRACE_SUITE = "routing-goodput"


@functools.cache
def _trace() -> Workload:
    path = data_file(_TRACE_SUITE, data_folder(_TRACE_SUITE, MOONCAKE), MOONCAKE)
    return clipped(read_workload(path), PROMPT_CAP)


def instance_of(workload: Workload, fleet: str) -> RoutingInstance:
    """Return requests on a named fleet whose memory never runs out, as the reference has it."""
    serving = tuple(replace(one, kv_tokens=_AMPLE) for one in named_fleet(fleet, cache_tokens=CACHE_TOKENS))
    return route(workload, serving, f"goodput-{fleet}", ttft_slo_s=5.0)


def windows_of(workload: Workload, count: int = _WINDOWS) -> list[Workload]:
    """Return equal windows of a trace."""
    size = workload.requests // count
    return [window(workload, first=k * size, count=size) for k in range(count)]


def players(names: Sequence[str] = (), *, rules_only: bool = False) -> dict[str, tuple[Play, bool]]:
    """Return routers by short name and whether they draw random numbers: the simulator's own where it has them.

    Args:
        names: Which; all if empty.
        rules_only: Whether to leave the registered routers out.

    Raises:
        UnknownNameError: a name that nothing has.
    """
    found: dict[str, tuple[Play, bool]] = {
        name: (rule_play(name), name in ("random", "power-of-two")) for name in RULES
    }
    found[POOLED] = (_play_pooled, False)
    if not rules_only:
        for name, spec in schedulers_of("routing").items():
            short = name.partition("/")[2]
            if spec.information == "online" and short not in found:
                found[short] = (scheduler_play(spec.make()), spec.randomised)
    if unknown := sorted(set(names) - set(found)):
        raise UnknownNameError(f"router {unknown[0]}: unknown, expected some of {', '.join(sorted(found))}")
    return {name: play for name, play in found.items() if not names or name in names}


def _play_pooled(instance: RoutingInstance, rng: np.random.Generator) -> RoutingPlan:
    del rng
    return pooled_plan(instance)


def rows_of(
    workload: Workload,
    fleet: str,
    playing: Mapping[str, tuple[Play, bool]],
    *,
    windows: int = _WINDOWS,
    warm_up: int = _WARM_UP,
    tolerance: float = 0.05,
) -> list[dict[str, object]]:
    """Return a row per router with its goodput on a fleet.

    Args:
        workload: The whole trace.
        fleet: Name of the fleet.
        playing: Routers of ``players``.
        windows: Parts of the trace over which the interval is taken, 0 for none.
        warm_up: First requests that do not count, of each part, too.
        tolerance: Of the bisection, requests per second; that of windows is twice as wide.

    Raises:
        ConfigError: requests meet their objectives at any rate.
    """
    whole = instance_of(workload, fleet)
    parts = [instance_of(part, fleet) for part in windows_of(workload, windows)] if windows else []
    rows: list[dict[str, object]] = []
    for name, (play, draws) in playing.items():
        known = REFERENCE.get(fleet, {}).get(name)
        guess = known or _RATE_OF.get(fleet)
        found = goodput(whole, play, warm_up=warm_up, tolerance=tolerance, first_guess=guess)
        begin = found.requests_per_s
        values = [
            goodput(part, play, warm_up=warm_up, tolerance=2 * tolerance, first_guess=begin, seed=seed).requests_per_s
            for part in parts
            for seed in range(_SEEDS if draws else 1)
        ]
        rows.append(_row(fleet, name, known, found, values))
        print(" ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in rows[-1].values()))
    return with_regret(rows)


def with_regret(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Return rows of one fleet with the share of the pooled reference's goodput that each falls short, where known.

    It is below 0 where a router is better: the reference serves in order of arrival and gives up on nobody.
    """
    pooled = next((row["goodput"] for row in rows if row["router"] == POOLED), None)
    return [{**row, "regret_to_pool": None if pooled is None else 1.0 - row["goodput"] / pooled} for row in rows]  # type: ignore[operator]


def _row(fleet: str, name: str, known: float | None, found: Goodput, values: list[float]) -> dict[str, object]:
    low, high = goodput_interval(values)
    return {
        "fleet": fleet,
        "router": name,
        "reference": known,
        "goodput": found.requests_per_s,
        "difference": None if known is None else found.requests_per_s / known - 1.0,
        "windows_mean": float(np.mean(values)) if values else None,
        "windows_low": low if values else None,
        "windows_high": high if values else None,
        "hit_rate": found.hit_rate,
        "ttft_p90_s": found.ttft_p90_s,
        "ttft_p99_s": found.ttft_p99_s,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write ``routing_goodput.csv`` beside this file, or to ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", action="store_true", help="the simulator's own rules and the pool only")
    parser.add_argument("--routers", default="", help="names, separated by commas")
    parser.add_argument("--windows", type=int, default=_WINDOWS, help="parts for the interval, 0 for none")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args(arguments)
    names = [name for name in options.routers.split(",") if name]
    playing = players(names, rules_only=options.rules)
    rows: list[dict[str, object]] = []
    for fleet in REFERENCE:
        rows += rows_of(_trace(), fleet, playing, windows=options.windows)
        write_table(options.out, rows)


if __name__ == "__main__":
    main()
