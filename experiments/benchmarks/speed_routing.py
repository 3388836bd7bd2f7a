"""Speed of the routing simulator for ``schedrl bench routing``: requests simulated per second of processor time.

Run by hand: ``python -m schedrl.experiments.benchmarks.speed_routing``. Eight A100 serve Mooncake's conversation trace
at 11.5 requests per second by exact affinity; where the trace is not on disk, generated conversations stand in.
"""

from __future__ import annotations

import json
import time

import numpy as np

from schedrl.benchmark_data import data_file, data_folder
from schedrl.envs.routing.fleets import named_fleet
from schedrl.envs.routing.generators import GENERATORS, MOONCAKE
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.suites import CACHE_TOKENS, PROMPT_CAP
from schedrl.envs.routing.trace_readers import read_workload
from schedrl.envs.routing.workload import clipped, rescaled, route
from schedrl.errors import InstanceError

__all__ = ["main", "measure_speed", "speed_instance"]

_RULE = "affinity"
_RATE = 11.5
_SUITE = "routing-speed"


def speed_instance() -> RoutingInstance:
    """Return Mooncake's trace on 8 A100 at 11.5 requests per second, or generated conversations without the data."""
    try:
        path = data_file(_SUITE, data_folder(_SUITE, MOONCAKE), MOONCAKE)
    except InstanceError:
        generated = GENERATORS["sessions"](
            np.random.default_rng(0), name="speed", requests=4000, fleet="homogeneous", load=0.8
        )
        assert isinstance(generated, RoutingInstance)
        return generated
    workload = rescaled(clipped(read_workload(path), PROMPT_CAP), _RATE)
    return route(workload, named_fleet("homogeneous", cache_tokens=CACHE_TOKENS), "speed")


def measure_speed(seconds: float) -> dict[str, float]:
    """Return the family's own figures, best of runs after compilation, on ``speed_instance``.

    - ``requests_per_cpu_s_aggregated``: decoding iterations taken together, memory by the token.
    - ``requests_per_cpu_s_exact``: every iteration, memory in pages of 16 tokens.

    Both count the thread's own time, half of ``seconds`` each but at least one run.
    """
    instance = speed_instance()
    return {
        "requests_per_cpu_s_aggregated": _requests_per_s(instance, False, seconds / 2),
        "requests_per_cpu_s_exact": _requests_per_s(instance, True, seconds / 2),
    }


def _requests_per_s(instance: RoutingInstance, exact: bool, seconds: float) -> float:
    simulator = Simulator([instance], 1, exact=exact)
    # The first run compiles.
    taken: list[float] = []
    ends = np.inf
    while len(taken) < 2 or time.perf_counter() < ends:
        simulator.load(0, instance)
        started = time.thread_time()
        simulator.play_rule(_RULE)
        taken.append(time.thread_time() - started)
        ends = min(ends, time.perf_counter() + seconds)
    return instance.requests / min(taken[1:])


def main() -> None:
    """Measure for four seconds and print JSON."""
    print(json.dumps(measure_speed(4.0), indent=2))


if __name__ == "__main__":
    main()
