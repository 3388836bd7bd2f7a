"""``schedrl bench``: how fast a family's simulator, environment, training and shipped policy run.

The driver knows no family; ``Family.benchmark`` says what each is measured on.
"""

from __future__ import annotations

import importlib
import time
from importlib import resources
from importlib.util import find_spec
from itertools import cycle
from typing import Any

import numpy as np

from schedrl.errors import InstanceError
from schedrl.families import BenchmarkCase, Family, Simulator, get_family
from schedrl.graphs import DecisionBatch
from schedrl.registration import environment_specs

__all__ = ["bench"]

_ROWS = 256
_POOL = 128  # distinct instances, more than a cache of one instance would flatter


def bench(family_name: str, *, seconds: float = 3.0) -> dict[str, Any]:
    """Measure one family and return a flat mapping, None where a part is not installed or not shipped.

    - ``env_decisions_per_s``: random valid actions on 256 rows with every observation written and finished
      rows reloaded, per second of one core's time.
    - ``env_vector_decisions_per_s``: the same through the gymnasium vector environment, with its copies and a
      fresh instance per episode.
    - ``train_decisions_per_s``: the shipped training configuration, per second of wall time.
    - ``policy_p50_ms``, ``policy_p99_ms``: observing and choosing one action with the shipped policy.
    - what the family's own ``speed_FAMILY`` benchmark adds.
    - ``peers``: decisions per second of other packages, where they are installed.

    Args:
        family_name: a registered family.
        seconds: time spent on each figure, apart from compilation and training, which takes three rollouts.

    Raises:
        UnknownNameError: no such family.
    """
    family = get_family(family_name)
    measured = family.benchmark
    p50_ms, p99_ms = _policy_latency_ms(family, measured, seconds)
    return {
        "family": family_name,
        "env_decisions_per_s": _simulator_rate(family, measured, seconds),
        "env_vector_decisions_per_s": _vector_rate(family, measured, seconds),
        "train_decisions_per_s": _training_rate(family),
        "policy_p50_ms": p50_ms,
        "policy_p99_ms": p99_ms,
        **_benchmark_module(f"speed_{family.name}", "measure_speed", seconds),
        "peers": _benchmark_module(f"peers_{family.name}", "measure_peers", seconds),
    }


def _simulator_rate(family: Family, measured: BenchmarkCase, seconds: float) -> float:
    """Return decisions per CPU second of step, observe and reload."""
    instances = measured.draw(family, _POOL)
    simulator = family.make_simulator(instances, _ROWS, **measured.simulator)
    run = _RandomRun(family, simulator, instances)
    run.for_cpu_seconds(0.5)  # compiles, and spreads rows over all stages of an episode
    return run.for_cpu_seconds(seconds)


class _RandomRun:
    """Random valid actions on all rows of a simulator; finished rows start the next instance of a pool."""

    def __init__(self, family: Family, simulator: Simulator, instances: list[Any]) -> None:
        self._simulator, self._instances = simulator, cycle(instances)
        self._decision = DecisionBatch.allocate(simulator.batch, simulator.slots, family.features)
        self._reward = np.zeros(simulator.batch, dtype=np.float32)
        self._done = np.zeros(simulator.batch, dtype=np.bool_)
        # Drawn beforehand, so that the generator's time is not the simulator's.
        self._draws = cycle(np.random.default_rng(0).random((997, simulator.batch)))

    def for_cpu_seconds(self, seconds: float) -> float:
        """Run and return decisions per CPU second."""
        decisions, started = 0, time.process_time()
        while (spent := time.process_time() - started) < seconds:
            for _ in range(32):
                self._step()
            decisions += 32 * self._simulator.batch
        return decisions / spent

    def _step(self) -> None:
        self._simulator.observe(self._decision)
        action = (next(self._draws) * self._decision.count).astype(np.int32)
        self._simulator.step(action, self._reward, self._done)
        if self._done.any():
            for row in np.flatnonzero(self._done):
                self._simulator.load(int(row), next(self._instances))


def _vector_rate(family: Family, measured: BenchmarkCase, seconds: float) -> float:
    """Return decisions per CPU second of the registered vector environment."""
    import gymnasium as gym

    env_id = next(spec.id for spec in environment_specs() if spec.family == family.name)
    options: dict[str, Any] = {"generator": measured.generator, "size": measured.size, **measured.simulator}
    env = gym.make_vec(env_id, num_envs=_ROWS, vectorization_mode="vector_entry_point", **options)
    observation, _ = env.reset(seed=0)
    rng, decisions, started = np.random.default_rng(0), 0, time.process_time()
    while (spent := time.process_time() - started) < seconds:
        for _ in range(32):
            action = (rng.random(_ROWS) * observation["action_mask"].sum(axis=1)).astype(np.int32)
            observation, *_ = env.step(action)
        decisions += 32 * _ROWS
    return decisions / spent


def _training_rate(family: Family) -> float | None:
    """Return decisions per wall second of two rollouts and updates after one of warming up, None without its data."""
    if find_spec("sb3_contrib") is None or find_spec("torch_geometric") is None:
        return None
    config_file = resources.files("schedrl.experiments") / "configs" / f"{family.benchmark.policy or family.name}.yaml"
    if not config_file.is_file():
        return None
    import torch

    from schedrl.training.config import load_config
    from schedrl.training.run import build_model

    with resources.as_file(config_file) as path:
        config = load_config(path)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        try:
            model, _ = build_model(config)
        except InstanceError:
            return None  # the configuration draws from a trace that is not at hand
        rollout = config.environments * config.ppo.rollout_steps
        model.learn(rollout)
        started = time.perf_counter()
        model.learn(2 * rollout, reset_num_timesteps=False)
        return 2 * rollout / (time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)


def _policy_latency_ms(family: Family, measured: BenchmarkCase, seconds: float) -> tuple[float | None, float | None]:
    """Return median and 99th percentile of observing and selecting with the shipped bundle, one row."""
    weights = resources.files(f"schedrl.baselines.{family.name.partition(':')[0]}") / "weights"
    bundle = weights / f"{measured.policy or family.name}.schedrl"
    if find_spec("onnxruntime") is None or not bundle.is_file():
        return None, None
    from schedrl.export.runtime import load

    with resources.as_file(bundle) as path:
        policy = load(path, family=family.name)
    instances = cycle(measured.draw(family, _POOL))
    simulator = family.make_simulator([next(instances)], 1, **policy.manifest.simulator)
    decision = DecisionBatch.allocate(1, simulator.slots, family.features)
    reward, done = np.zeros(1, dtype=np.float32), np.ones(1, dtype=np.bool_)
    taken: list[float] = []
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends or len(taken) < 200:
        if done[0]:
            simulator.load(0, instance := next(instances))
            policy.begin([family.static_graph(instance)])
        started = time.perf_counter()
        simulator.observe(decision)
        action = policy.select(decision, None)
        taken.append((time.perf_counter() - started) * 1e3)
        simulator.step(action, reward, done)
    p50_ms, p99_ms = np.percentile(taken[20:], [50, 99])  # the first ones load code
    return float(p50_ms), float(p99_ms)


def _benchmark_module(name: str, function: str, seconds: float) -> dict[str, Any]:
    """Return what a family's own benchmark script measures, nothing where a family has none."""
    module_name = f"schedrl.experiments.benchmarks.{name}"
    if find_spec(module_name) is None:
        return {}
    module: Any = importlib.import_module(module_name)
    figures: dict[str, Any] = getattr(module, function)(seconds)
    return figures
