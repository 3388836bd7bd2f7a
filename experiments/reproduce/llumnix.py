"""Tail latency of Llumnix against round robin: 16 A10G with Llama-2-7B and generated requests of unlike lengths.

Run by hand: ``python -m schedrl.experiments.reproduce.llumnix``. The paper's traces have power-law lengths, which
Poisson arrivals with widely spread log-normal lengths stand for here; the loads are relative to what the fleet
sustains in the fluid estimate of ``capacity_of``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from schedrl.baselines.routing.llumnix import Llumnix
from schedrl.baselines.routing.router import Router, play_router
from schedrl.envs.routing.fleets import fleet
from schedrl.envs.routing.generators import capacity_of, poisson
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.solution import RoutingPlan, objectives
from schedrl.envs.routing.workload import rescaled, route
from schedrl.experiments.measurement import Verdict, write_table, write_verdicts

__all__ = ["POLICIES", "instance_at", "main", "measure", "verdicts_of"]

LOADS = (0.5, 0.6, 0.7, 0.8)
"""relative loads of the full run"""
_ROUND_ROBIN = "round-robin"
_OWN: Mapping[str, Callable[[RoutingInstance], Router]] = {
    "llumnix-dispatch": lambda instance: Llumnix(instance, migrate=False),
    "llumnix": Llumnix,
    "llumnix-code": lambda instance: Llumnix(instance, form="code"),
}
POLICIES = (_ROUND_ROBIN, "least-outstanding", *_OWN)
"""policies that are compared"""
# Tokens of prompts and answers: as long in the mean as the paper's medium and long distributions, sigma for the tail.
_PROMPT, _OUTPUT, _SIGMA = 256, 256, 1.2


def instance_at(load: float, *, requests: int, servers: int, seed: int = 0) -> RoutingInstance:
    """Return requests on A10G at a load."""
    serving = fleet({"a10g": servers}, "llama-2-7b")
    drawn = poisson(
        np.random.default_rng(seed), requests=requests, prompt_tokens=_PROMPT, output_tokens=_OUTPUT, sigma=_SIGMA
    )
    return route(rescaled(drawn, load * capacity_of(drawn, serving)), serving, f"a10g-at-{load:g}", ttft_slo_s=1.0)


def _play(name: str, instance: RoutingInstance) -> RoutingPlan:
    if name in _OWN:
        simulator = play_router(instance, _OWN[name](instance), exact=True)
        assert simulator is not None
    else:
        simulator = Simulator([instance], 1, exact=True)
        simulator.play_rule(name)
    return simulator.solution(0)


def measure(loads: Sequence[float], *, requests: int, servers: int) -> list[dict[str, object]]:
    """Return a row for each load and policy."""
    rows: list[dict[str, object]] = []
    for load in loads:
        instance = instance_at(load, requests=requests, servers=servers)
        for name in POLICIES:
            found = objectives(instance, _play(name, instance))
            keys = ("ttft_p99_s", "ttft_mean_s", "latency_mean_s", "preemptions", "moves")
            rows.append({"load": load, "policy": name} | {key: found[key] for key in keys})
            print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    return rows


def _ratios(rows: Sequence[Mapping[str, object]], key: str, base: str, other: str) -> list[float]:
    def values(name: str) -> list[float]:
        return [float(str(row[key])) for row in rows if row["policy"] == name]

    return [a / max(b, 1e-9) for a, b in zip(values(base), values(other), strict=True)]


def verdicts_of(rows: Sequence[Mapping[str, object]]) -> list[Verdict]:
    """Return what became of the claims."""
    tail, mean = (_ratios(rows, key, _ROUND_ROBIN, "llumnix") for key in ("ttft_p99_s", "ttft_mean_s"))
    moved = _ratios(rows, "ttft_p99_s", "llumnix-dispatch", "llumnix")
    stopped = {
        name: sum(float(str(row["preemptions"])) for row in rows if row["policy"] == name)
        for name in (_ROUND_ROBIN, "llumnix-dispatch", "llumnix")
    }
    return [
        Verdict(
            claim="P99 of time to first token up to 15 times better than round robin, the mean up to 7.7 times",
            measured=f"P99 up to {max(tail):.1f} times ({min(tail):.1f} at least), mean up to {max(mean):.1f} times",
            verdict="holds" if max(tail) >= 15.0 else "same direction" if min(tail) > 1.0 else "not at all loads",
        ),
        Verdict(
            claim="migration contributes on top of dispatch",
            measured=f"P99 {min(moved):.2f} to {max(moved):.2f} times better with migration than without; preemptions "
            + ", ".join(f"{name} {count:.0f}" for name, count in stopped.items()),
            verdict="holds" if max(moved) > 1.0 else "no gain here",
        ),
    ]


_NOTES = (
    "Loads are relative to a fluid estimate of what the fleet sustains; one draw of requests.",
    "Thresholds of freeness for migration are 10 and 60 blocks per request; the paper leaves them to the user.",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write CSV and verdicts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the results")
    parser.add_argument("--requests", type=int, default=2000, help="requests at each load")
    parser.add_argument("--servers", type=int, default=16, help="instances")
    parser.add_argument("--loads", type=float, nargs="+", default=list(LOADS), help="relative loads")
    options = parser.parse_args(arguments)
    rows = measure(options.loads, requests=options.requests, servers=options.servers)
    write_table(options.out / "llumnix.csv", rows)
    write_verdicts(options.out / "llumnix.json", verdicts_of(rows), _NOTES)


if __name__ == "__main__":
    main()
