"""Speeds of expert placement for ``schedrl bench moe``: EPLB, LPT with swaps, and a whole run of re-planning.

Run by hand: ``python -m schedrl.experiments.benchmarks.speed_moe``.
"""

from __future__ import annotations

import json
import time

import numpy as np

from schedrl.baselines.moe.packing import balanced_placement
from schedrl.baselines.moe.replanning import HorizonRule
from schedrl.envs.moe.generators import GENERATORS
from schedrl.experiments.benchmarks.eplb_speed import benchmark_metrics

__all__ = ["main", "measure_speed"]

_LEAST_REPEATS = 5
_HISTORY = 4


def measure_speed(seconds: float) -> dict[str, float]:
    """Return the family's own figures, medians after compilation, on DeepSeek-V3: 58 layers, 256 experts, 288 slots.

    - ``eplb_hierarchical_ms`` and ``eplb_global_ms``: EPLB's policies, see ``eplb_speed``; a fixed number of repeats.
    - ``lpt_swap_ms``: one placement by LPT with swaps.
    - ``horizon_rule_ms``: deciding on all layers before one window by the horizon rule; both take ``seconds`` together.

    All are milliseconds of the thread's own time, so that a busy machine hardly matters.
    """
    return benchmark_metrics() | _planner_ms(seconds)


def _planner_ms(seconds: float) -> dict[str, float]:
    """Return the figures of the planners, whose loads are new for each repeat: kept ones would flatter caches."""
    generator, rule = GENERATORS["deepseek-r1-mt"], HorizonRule()
    taken: list[tuple[float, float]] = []
    ends = time.perf_counter()
    while len(taken) <= _LEAST_REPEATS or time.perf_counter() < ends:
        rng = np.random.default_rng((0, len(taken)))
        instance = generator(rng, layers=None, windows=2, history=_HISTORY)
        loads, known = instance.history.sum(axis=0).astype(np.float64), instance.known(1)
        started = time.thread_time()
        placement = balanced_placement(instance, loads)
        placed = time.thread_time()
        rule.plan(known, placement)
        if not taken:  # the first one compiled
            ends = time.perf_counter() + seconds
        taken.append((placed - started, time.thread_time() - placed))
    lpt_swap, horizon = np.median(taken[1:], axis=0)
    return {"lpt_swap_ms": 1e3 * float(lpt_swap), "horizon_rule_ms": 1e3 * float(horizon)}


def main() -> None:
    """Measure for three seconds each and print JSON."""
    print(json.dumps(measure_speed(3.0), indent=2))


if __name__ == "__main__":
    main()
