"""Speeds of DAG scheduling for ``schedrl bench socdag``: HEFT, the stream environment, and one policy decision.

Run by hand: ``python -m schedrl.experiments.benchmarks.speed_socdag``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from importlib import resources
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path

import numpy as np

from schedrl.baselines.socdag.heuristics import ListScheduler
from schedrl.envs.socdag.family import FAMILY
from schedrl.envs.socdag.generators import topcuoglu
from schedrl.envs.socdag.simulator import Simulator
from schedrl.envs.socdag.soc import stream_16pe
from schedrl.envs.socdag.structured import fork_join
from schedrl.graphs import DecisionBatch

__all__ = ["main", "measure_speed"]

_ROWS = 64
_POOL = 32  # distinct streams, more than a cache of one would flatter
_CANDIDATES = 100
_LEAST_REPEATS = 5


def measure_speed(seconds: float) -> dict[str, float | None]:
    """Return the family's own figures; each takes about ``seconds`` after compilation.

    - ``heft_1000x8_s``: median wall seconds of ``socdag/heft`` on a random graph of 1000 tasks on 8 devices. The
      instance is new each time, so that its ranks and tables are computed too.
    - ``stream_16pe_decisions_per_s``: random valid actions on 64 streams of the 16-device chip, every observation
      written and finished rows reloaded, per second of one core's time.
    - ``stream_16pe_decisions_per_s_without_observations``: the same without observing, as a simulator that rules
      run on.
    - ``policy_100_candidates_ms``: median milliseconds in which the shipped policy observes and chooses among 100
      candidates; None without weights or onnxruntime.
    """
    return {
        "heft_1000x8_s": _heft_s(seconds),
        "stream_16pe_decisions_per_s": _stream_rate(seconds, observe=True),
        "stream_16pe_decisions_per_s_without_observations": _stream_rate(seconds, observe=False),
        "policy_100_candidates_ms": _policy_ms(seconds),
    }


def _median_s(once: Callable[[int], float], seconds: float) -> float:
    """Return the median of what ``once`` measures, called with 0, 1, ... for a while after one call to warm up."""
    once(0)
    taken: list[float] = []
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends or len(taken) < _LEAST_REPEATS:
        taken.append(once(len(taken) + 1))
    return float(np.median(taken))


def _heft_s(seconds: float) -> float:
    def once(number: int) -> float:
        instance = topcuoglu(np.random.default_rng((0, number)), tasks=1000, devices=8, ccr=1.0, out_degree=5)
        started = time.perf_counter()
        ListScheduler(heuristic="heft").schedule(instance, time_limit_s=60.0, rng=np.random.default_rng(0))
        return time.perf_counter() - started

    return _median_s(once, seconds)


def _stream_rate(seconds: float, *, observe: bool) -> float:
    """Return decisions per CPU second of step and reload, with or without observations."""
    rng = np.random.default_rng(0)
    streams = [stream_16pe(rng, jobs=100, scale=150.0) for _ in range(_POOL)]
    following = cycle(streams)
    simulator = Simulator(streams, _ROWS)
    decision = DecisionBatch.allocate(_ROWS, simulator.slots, FAMILY.features)
    reward, done = np.zeros(_ROWS, dtype=np.float32), np.zeros(_ROWS, dtype=np.bool_)
    # Drawn beforehand, so that the generator's time is not the simulator's.
    draws = cycle(rng.random((997, _ROWS)))

    def for_cpu_seconds(limit: float) -> float:
        decisions, started = 0, time.process_time()
        while (spent := time.process_time() - started) < limit:
            for _ in range(32):
                if observe:
                    simulator.observe(decision)
                simulator.step((next(draws) * simulator.state.candidates).astype(np.int32), reward, done)
                for row in np.flatnonzero(done):
                    simulator.load(int(row), next(following))
            decisions += 32 * _ROWS
        return decisions / spent

    for_cpu_seconds(min(0.5, seconds))  # compiles, and spreads rows over all stages of an episode
    return for_cpu_seconds(seconds)


def _policy_ms(seconds: float) -> float | None:
    """Return the latency of a decision with exactly 100 candidates: the 25 branches of a fork on 4 devices."""
    weights = resources.files("schedrl.baselines.socdag") / "weights" / "socdag-stream.schedrl"
    if find_spec("onnxruntime") is None or not weights.is_file():
        return None
    from schedrl.export.runtime import load

    with resources.as_file(weights) as path:
        policy = load(Path(path), family="socdag")
    instance = fork_join(np.random.default_rng(0), branches=_CANDIDATES // 4, stages=1, devices=4)
    simulator = Simulator([instance], 1, window=_CANDIDATES // 4, wait=False, skip_forced=False)
    decision = DecisionBatch.allocate(1, simulator.slots, FAMILY.features)
    policy.begin([FAMILY.static_graph(instance)])
    # Place the fork; at its end all branches are ready at once.
    simulator.step(np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.bool_))
    assert simulator.state.candidates[0] == _CANDIDATES

    def once(_: int) -> float:
        started = time.perf_counter()
        simulator.observe(decision)
        policy.select(decision, None)
        return time.perf_counter() - started

    return 1e3 * _median_s(once, seconds)


def main() -> None:
    """Measure for three seconds each and print JSON."""
    print(json.dumps(measure_speed(3.0), indent=2))


if __name__ == "__main__":
    main()
