"""Goodput of the trained router and of published ones on fleets that training drew and on fleets that it never saw.

Run by hand: ``python -m schedrl.experiments.benchmarks.routing_fleets`` (``--routers``, ``--fleets`` and ``--refresh``
choose). Windows of the second half of Mooncake's conversation trace, which no training has seen, prompts cut at 20,480
tokens, a cache of a million tokens per instance beside its real memory. Goodput is the rate at which 90 % of the
requests behind the first 500 get their first token within 5 s; each row has the mean over windows and its 95 %
interval. With a refresh of 0.1 s routers know the instances' state only as it was up to 100 ms ago.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from schedrl.baselines.routing.goodput import Play, goodput, goodput_interval
from schedrl.envs.routing.fleets import named_fleet
from schedrl.envs.routing.generators import MOONCAKE, capacity_of
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.suites import CACHE_TOKENS, UNSEEN_FLEETS, second_half
from schedrl.envs.routing.workload import route, window
from schedrl.experiments.benchmarks.routing_goodput import POOLED, players, with_regret
from schedrl.experiments.measurement import write_table

__all__ = ["FLEETS", "ROUTERS", "main", "row_of", "windows_on"]

FLEETS = ("homogeneous", "heterogeneous", *UNSEEN_FLEETS)
ROUTERS = (
    "ppo", "min-ttft", "min-forecast", "affinity", "affinity-time", "affinity-guarded", "lmetric", "lmetric-speed",
    "loadaware-speed", "llm-d-speed", "least-pending-speed", "least-outstanding-speed", "dynamo-speed",
    "preble-speed", "dualmap-two-blocks-speed", "sglang-cache-aware-speed", "triage", POOLED,
)  # fmt: skip
_WINDOWS, _REQUESTS, _WARM_UP = 3, 2000, 500
# A window on a large fleet is as many requests per instance as one on 16.
_PER_INSTANCE = 90


def windows_on(fleet: str, *, windows: int = _WINDOWS, refresh_s: float = 0.0) -> list[RoutingInstance]:
    """Return windows of the second half on a fleet, spread evenly.

    Raises:
        InstanceError: no data.
    """
    half, serving = second_half("routing-fleets", MOONCAKE), named_fleet(fleet, cache_tokens=CACHE_TOKENS)
    count = min(max(_REQUESTS, _PER_INSTANCE * len(serving)), half.requests)
    starts = np.linspace(0, half.requests - count, windows).astype(int).tolist()
    made = [route(window(half, first=first, count=count), serving, f"{fleet}-{first}") for first in starts]
    return [replace(instance, signal_refresh_s=refresh_s) for instance in made]


def row_of(
    fleet: str, refresh_s: float, router: str, play: Play, instances: Sequence[RoutingInstance]
) -> dict[str, object]:
    """Return the goodput of a router over windows."""
    half, serving = second_half("routing-fleets", MOONCAKE), named_fleet(fleet, cache_tokens=CACHE_TOKENS)
    guess = 0.8 * capacity_of(half, serving)
    found = [goodput(i, play, warm_up=_WARM_UP, tolerance=0.01 * guess, first_guess=guess) for i in instances]
    values = [one.requests_per_s for one in found]
    low, high = goodput_interval(values)
    return {
        "fleet": fleet,
        "instances": len(serving),
        "refresh_s": refresh_s,
        "router": router,
        "goodput": float(np.mean(values)),
        "low": low,
        "high": high,
        "hit_rate": float(np.mean([one.hit_rate for one in found])),
        "ttft_p99_s": float(np.mean([one.ttft_p99_s for one in found])),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write ``routing_fleets.csv`` beside this file, or to ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routers", default=",".join(ROUTERS), help="names, separated by commas")
    parser.add_argument("--fleets", default=",".join(FLEETS), help="names, separated by commas")
    parser.add_argument("--refresh", type=float, nargs="+", default=[0.0], help="seconds between signals")
    parser.add_argument("--windows", type=int, default=_WINDOWS)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args(arguments)
    playing = players(options.routers.split(","))
    rows: list[dict[str, object]] = []
    for fleet in options.fleets.split(","):
        for refresh_s in options.refresh:
            instances = windows_on(fleet, windows=options.windows, refresh_s=refresh_s)
            played: list[dict[str, object]] = []
            for router, (play, _) in playing.items():
                played.append(row_of(fleet, refresh_s, router, play, instances))
                print(" ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in played[-1].values()), flush=True)
            rows += with_regret(played)
            write_table(options.out, rows)


if __name__ == "__main__":
    main()
