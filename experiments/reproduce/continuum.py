"""Latency of agents' programs under Continuum against first come, first served by request, on generated workflows.

Run by hand: ``python -m schedrl.experiments.reproduce.continuum``. Programs of up to 16 stages pause for tools. The
engines have no pins: what the times to live decide is where programs go on, so this is the part of Continuum that a
router can do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from schedrl.baselines.routing.continuum import Continuum
from schedrl.baselines.routing.router import Router, play_router
from schedrl.envs.routing.generators import GENERATORS
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.experiments.measurement import Verdict, write_table, write_verdicts
from schedrl.experiments.reproduce.hexgen_flow import program_latencies

__all__ = ["POLICIES", "main", "measure", "verdicts_of"]

LOADS = (0.6, 0.8, 1.0, 1.2)
"""relative loads of the full run"""
_SEED = 9201
_STATIC_S = 2.0
_FCFS, _FULL = "fcfs", "continuum"
POLICIES: Mapping[str, Callable[[RoutingInstance], Router]] = {
    _FCFS: lambda instance: Continuum(instance, lives=0.0, by_program=False),
    "program-fcfs": lambda instance: Continuum(instance, lives=0.0),
    "program-fcfs-static": lambda instance: Continuum(instance, lives=_STATIC_S),
    _FULL: Continuum,
    "continuum-speed": lambda instance: Continuum(instance, speed_aware=True),
}
"""the steps of the paper's ablation, by name"""


def measure(loads: Sequence[float], *, requests: int, draws: int) -> list[dict[str, object]]:
    """Return a row for each load and policy, over several draws."""
    rows: list[dict[str, object]] = []
    for load in loads:
        instances = [
            GENERATORS["agentic"](
                np.random.default_rng(_SEED + draw), fleet="homogeneous", requests=requests, load=load, stages=16
            )
            for draw in range(draws)
        ]
        for name, make in POLICIES.items():
            latency, hits, prompts = [], 0, 0
            for instance in instances:
                simulator = play_router(instance, make(instance))
                assert simulator is not None
                plan = simulator.solution(0)
                latency.append(program_latencies(instance, plan))
                hits += int(plan.hit_tokens.sum())
                prompts += int(instance.prompt_tokens.sum(dtype=np.int64))
            seconds = np.concatenate(latency)
            row: dict[str, object] = {"load": load, "policy": name, "mean_s": float(seconds.mean())}
            row |= {"p95_s": float(np.percentile(seconds, 95)), "hit_rate": hits / prompts}
            rows.append(row)
            print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return rows


def verdicts_of(rows: Sequence[Mapping[str, object]]) -> list[Verdict]:
    """Return what became of the claims."""
    means = {name: np.array([float(str(row["mean_s"])) for row in rows if row["policy"] == name]) for name in POLICIES}
    gains = {name: means[_FCFS] / values for name, values in means.items() if name != _FCFS}
    gain = gains[_FULL]
    return [
        Verdict(
            claim="mean latency of programs 1.12 to 3.66 times better than vLLM (first come, first served)",
            measured=f"{gain.min():.2f} to {gain.max():.2f} times better over loads",
            verdict="holds" if gain.max() >= 1.12 else "does not hold here",
        ),
        Verdict(
            claim="ablation on SWE-bench: 1950 s, program FCFS 1640 s, static time to live 1170 s, full 1170 s",
            measured=", ".join(f"{name} up to {values.max():.2f} times better" for name, values in gains.items()),
            verdict="same order"
            if gains["program-fcfs"].max() <= gains["program-fcfs-static"].max() <= 1.01 * gain.max()
            else "another order",
        ),
    ]


_NOTES = (
    "Engines evict by least recent use and know no pins; times to live decide at the router where programs go on.",
    "Workflows are generated; one model of 7 billion parameters on 8 A100.",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write CSV and verdicts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the results")
    parser.add_argument("--requests", type=int, default=1000, help="requests of each draw")
    parser.add_argument("--draws", type=int, default=2, help="draws at each load")
    parser.add_argument("--loads", type=float, nargs="+", default=list(LOADS), help="relative loads")
    options = parser.parse_args(arguments)
    rows = measure(options.loads, requests=options.requests, draws=options.draws)
    write_table(options.out / "continuum.csv", rows)
    write_verdicts(options.out / "continuum.json", verdicts_of(rows), _NOTES)


if __name__ == "__main__":
    main()
