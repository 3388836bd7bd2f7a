"""Environment speed beside other job-shop environments, all in one process on the same instance.

The peers pin packages that this project does not, so they live in their own environment:

    python -m venv peers && peers/bin/pip install JSSEnv job-shop-lib numba
    PYTHONPATH=. peers/bin/python experiments/benchmarks/peers_jobshop.py --out peers.json

The figures committed beside this file came from one such run.

Every environment plays random valid actions on ta01 (15x15) and restarts at the end of an episode; figures are
decisions per second of this process's CPU time. Ours is measured as one environment, as a vector of 256, and
as the bare simulator with the full observation written.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from schedrl.atomic import write_text
from schedrl.envs.jobshop.env import JobShopEnv, JobShopVectorEnv
from schedrl.envs.jobshop.family import FAMILY
from schedrl.envs.jobshop.generators import TAILLARD_SEEDS, taillard
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.graphs import DecisionBatch

__all__ = ["main", "measure_peers"]

_ROWS = 256


def main() -> None:
    """Print one JSON object, and write it where ``--out`` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="CPU seconds per environment (default 5)")
    parser.add_argument("--out", type=Path, help="JSON file to write as well")
    options = parser.parse_args()
    instance = _instance()
    ours = {name: _rate(run(instance), options.seconds) for name, run in _OURS.items()}
    peers = measure_peers(options.seconds)
    report = {
        "instance": "ta01",
        "unit": "decisions per CPU second, random valid actions",
        "schedrl": ours,
        "peers": peers,
        "ratios": {
            f"schedrl {mode} / {peer}": round(rate / figures["decisions_per_s"], 2)
            for peer, figures in peers.items()
            for mode, rate in ours.items()
        },
        "versions": {name: version(name) for name in ("numpy", "numba", "gymnasium", *peers)},
        "machine": f"{platform.machine()} {platform.system()}, Python {platform.python_version()}",
    }
    text = json.dumps(report, indent=2) + "\n"
    print(text, end="")
    if options.out is not None:
        write_text(options.out, text)


def measure_peers(seconds: float) -> dict[str, dict[str, float]]:
    """Return ``{package: {"decisions_per_s": rate}}`` of every peer that is installed."""
    instance = _instance()
    return {
        package: {"decisions_per_s": _rate(run(instance), seconds)}
        for package, (module, run) in _PEERS.items()
        if find_spec(module) is not None
    }


def _instance() -> JobShopInstance:
    return taillard(**TAILLARD_SEEDS["ta01"]._asdict(), name="ta01")


def _rate(run: Iterator[int], seconds: float) -> float:
    """Return decisions per CPU second of an endless run that yields how many it has just made."""
    ends = time.process_time() + min(1.0, seconds)
    while time.process_time() < ends:  # compiles kernels and fills caches
        next(run)
    decisions, started = 0, time.process_time()
    while (spent := time.process_time() - started) < seconds:
        decisions += next(run)
    return round(decisions / spent, 1)


def _simulator(instance: JobShopInstance) -> Iterator[int]:
    simulator = FAMILY.make_simulator([instance], _ROWS)
    decision = DecisionBatch.allocate(_ROWS, simulator.slots, FAMILY.features)
    reward, done = np.zeros(_ROWS, dtype=np.float32), np.zeros(_ROWS, dtype=np.bool_)
    draws, turn = np.random.default_rng(0).random((997, _ROWS)), 0
    while True:
        simulator.observe(decision)
        simulator.step((draws[turn % 997] * decision.count).astype(np.int32), reward, done)
        for row in np.flatnonzero(done):
            simulator.load(int(row), instance)
        turn += 1
        yield _ROWS


def _vector(instance: JobShopInstance) -> Iterator[int]:
    env, rng = JobShopVectorEnv(_ROWS, instances=[instance]), np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    while True:
        observation, *_ = env.step((rng.random(_ROWS) * observation["action_mask"].sum(axis=1)).astype(np.int32))
        yield _ROWS


def _single(instance: JobShopInstance) -> Iterator[int]:
    env, rng = JobShopEnv(instances=[instance]), np.random.default_rng(0)
    while True:
        _, info = env.reset()
        ended = False
        while not ended:
            _, _, ended, _, info = env.step(int(rng.choice(np.flatnonzero(info["action_mask"]))))
            yield 1


def _jssenv(instance: JobShopInstance) -> Iterator[int]:
    from JSSEnv.envs.jss_env import JssEnv

    rows = zip(instance.machine.reshape(instance.jobs, -1), instance.duration.reshape(instance.jobs, -1), strict=True)
    lines = [" ".join(f"{machine} {duration}" for machine, duration in zip(*row, strict=True)) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instance"
        path.write_text(f"{instance.jobs} {instance.machines}\n" + "\n".join(lines) + "\n", encoding="utf-8")
        env = JssEnv({"instance_path": str(path)})
    rng = np.random.default_rng(0)
    while True:
        observation, ended = env.reset(), False
        while not ended:
            action = int(rng.choice(np.flatnonzero(observation["action_mask"])))
            observation, _, ended, *_ = env.step(action)
            yield 1


def _job_shop_lib(instance: JobShopInstance) -> Iterator[int]:
    from job_shop_lib import JobShopInstance as PeerInstance
    from job_shop_lib import Operation
    from job_shop_lib.dispatching.feature_observers import FeatureObserverType
    from job_shop_lib.graphs import build_resource_task_graph
    from job_shop_lib.reinforcement_learning import SingleJobShopGraphEnv

    jobs = [
        [Operation(int(instance.machine[o]), int(instance.duration[o])) for o in range(first, stop)]
        for first, stop in zip(instance.job_offset, instance.job_offset[1:], strict=False)
    ]
    observers = [FeatureObserverType.DURATION, FeatureObserverType.EARLIEST_START_TIME, FeatureObserverType.IS_READY]
    graph = build_resource_task_graph(PeerInstance(jobs, name="ta01"))
    env: Any = SingleJobShopGraphEnv(graph, feature_observer_configs=observers)
    rng = np.random.default_rng(0)
    while True:
        _, info = env.reset()
        ended = False
        while not ended:
            choices = info["available_operations_with_ids"]
            _, machine, job = choices[int(rng.integers(len(choices)))]
            _, _, ended, _, info = env.step((job, machine))
            yield 1


_OURS: dict[str, Callable[[JobShopInstance], Iterator[int]]] = {
    "single environment": _single,
    "vector environment of 256": _vector,
    "simulator of 256": _simulator,
}
_PEERS: dict[str, tuple[str, Callable[[JobShopInstance], Iterator[int]]]] = {
    "JSSEnv": ("JSSEnv", _jssenv),
    "job-shop-lib": ("job_shop_lib", _job_shop_lib),
}

if __name__ == "__main__":
    main()
