"""Every registered scheduler on arbitrary instances: valid answers, honest objectives, and no look into the future."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

import schedrl.baselines.moe as package
from schedrl.baselines.moe import SCHEDULERS
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.envs.moe.cache_solution import CacheSchedule, cache_objectives, check_cache
from schedrl.envs.moe.generators import arbitrary
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.solution import ExpertPlan, check_plan, plan_objectives
from schedrl.errors import ConfigError
from schedrl.schedulers import Result, Scheduler, SchedulerSpec, get_scheduler
from tests.envs.moe.small_caches import SEEDS, caches
from tests.envs.moe.small_placements import random_instance

EXAMPLES = int(os.environ.get("SCHEDRL_EXAMPLES", "6"))
# Searches that stop by the clock repeat only where they come to their end: on smaller instances, with more time.
BY_THE_CLOCK = ("exflow", "affinity-balanced", "moetuner", "moetuner-descent", "cp-sat")
# These plan layer by layer and refuse tokens that stay on their path.
HOME_ALONE = ("hindsight", "ppo-rebalance")
WEIGHTS = {"ppo": "moe", "ppo-rebalance": "moe-rebalance", "ppo-cache": "moe-cache"}


def _available(spec: SchedulerSpec) -> bool:
    name = _short(spec)
    if name in WEIGHTS:
        bundle = Path(package.__file__).parent / "weights" / f"{WEIGHTS[name]}.schedrl"
        return importlib.util.find_spec("onnxruntime") is not None and bundle.is_file()
    return name != "cp-sat" or importlib.util.find_spec("ortools") is not None


def _short(spec: SchedulerSpec) -> str:
    return spec.name.partition("/")[2]


AVAILABLE = [spec for spec in SCHEDULERS if _available(spec)]
PLACING = [spec for spec in AVAILABLE if spec.problem == "total_time"]
CACHING = [spec for spec in AVAILABLE if spec.problem == "decode_time"]


def run(
    spec: SchedulerSpec, instance: ExpertPlacementInstance | ExpertCacheInstance, time_limit_s: float = 0.3
) -> Result:
    """Schedule; policies are loaded once and finish their episode however long that takes."""
    limit = 60.0 if _short(spec) in WEIGHTS else time_limit_s
    scheduler = _policy(spec) if _short(spec) in WEIGHTS else spec.make()
    return scheduler.schedule(instance, time_limit_s=limit, rng=np.random.default_rng(0))


@functools.cache
def _policy(spec: SchedulerSpec) -> Scheduler:
    return spec.make()


def placement(seed: int, spec: SchedulerSpec) -> ExpertPlacementInstance:
    """Draw an arbitrary instance that the scheduler takes."""
    instance = random_instance(seed)
    return _at_home(instance) if _short(spec) in HOME_ALONE else instance


def _at_home(instance: ExpertPlacementInstance) -> ExpertPlacementInstance:
    return dataclasses.replace(instance, timing=dataclasses.replace(instance.timing, residence="home"))


def test_names_are_unique_and_the_promised_ones_exist() -> None:
    names = [spec.name for spec in SCHEDULERS]
    assert len(names) == len(set(names))
    once = "contiguous random snake lpt lpt-swap variance-aware eplb-hierarchical eplb-global exflow affinity-balanced"
    windows = "eplb-every-window eplb-every-window-preserved eplb-relabelled swaps variance-aware-every-window flashlb"
    others = "horizon-rule moetuner moetuner-descent cp-sat hindsight ppo ppo-rebalance"
    caching = "lru lfu hottest-first frequency-proximity lru-prefetch lru-likely-prefetch belady pregated-prefetch"
    groups = (once, windows, others, caching, "belady-prefetch ppo-cache")
    assert {f"moe/{name}" for group in groups for name in group.split()} <= set(names)
    assert all(spec.summary and spec.source for spec in SCHEDULERS)
    assert {spec.problem for spec in SCHEDULERS} == {"total_time", "decode_time"}


@pytest.mark.parametrize("name", HOME_ALONE)
def test_what_plans_layer_by_layer_refuses_paths_in_one_line(name: str) -> None:
    spec = get_scheduler(f"moe/{name}")
    if not _available(spec):
        pytest.skip("no shipped policy")
    instance = next(each for each in map(random_instance, range(50)) if each.timing.residence == "path")
    with pytest.raises(ConfigError, match=r"^instance arbitrary: [^\n]+ tokens (must|that) return home$"):
        run(spec, instance)


def test_what_knows_the_future_says_so() -> None:
    clairvoyant = {_short(spec) for spec in SCHEDULERS if spec.information == "clairvoyant"}
    assert clairvoyant == {"hindsight", "belady", "pregated-prefetch", "belady-prefetch"}
    assert get_scheduler("moe/ppo-rebalance").information == "online"


@pytest.mark.parametrize("spec", PLACING, ids=_short)
@settings(max_examples=EXAMPLES)
@given(seed=SEEDS)
def test_every_plan_passes_the_checker(spec: SchedulerSpec, seed: int) -> None:
    instance = placement(seed, spec)
    result = run(spec, instance)
    assert isinstance(result.solution, ExpertPlan)
    assert check_plan(instance, result.solution) == []
    assert result.objective == pytest.approx(plan_objectives(instance, result.solution)["total_time"], rel=1e-12)
    assert result.lower_bound is None or result.lower_bound <= result.objective * (1 + 1e-9)


@pytest.mark.parametrize("spec", CACHING, ids=_short)
@settings(max_examples=EXAMPLES)
@given(instance=caches())
def test_every_schedule_of_a_cache_passes_the_checker(spec: SchedulerSpec, instance: ExpertCacheInstance) -> None:
    result = run(spec, instance)
    assert isinstance(result.solution, CacheSchedule)
    assert check_cache(instance, result.solution) == []
    assert result.objective == pytest.approx(cache_objectives(instance, result.solution)["decode_time"], rel=1e-12)
    assert result.lower_bound is None or result.lower_bound <= result.objective * (1 + 1e-9)


def several_windows(seed: int, spec: SchedulerSpec) -> ExpertPlacementInstance:
    """Draw an arbitrary instance of which three to five windows are scored, with loads of its own in each."""
    rng = np.random.default_rng((seed, 1))
    drawn = arbitrary(rng, experts=4, devices=2) if _short(spec) in BY_THE_CLOCK else placement(seed, spec)
    count = 1 + int(rng.integers(3, 6))
    counts = drawn.counts[rng.integers(len(drawn.counts), size=count)]
    shuffled = rng.permuted(counts, axis=2)
    return dataclasses.replace(drawn, counts=shuffled, planned=1)


@pytest.mark.parametrize(
    "spec",
    [spec for spec in PLACING if spec.information == "online"],
    ids=_short,
)
@settings(max_examples=EXAMPLES)
@given(seed=SEEDS)
def test_plans_do_not_depend_on_windows_that_are_not_over(spec: SchedulerSpec, seed: int) -> None:
    instance, rng = several_windows(seed, spec), np.random.default_rng((seed, 2))
    # Plan v is made when the windows before planned + v are over.
    hidden = int(rng.integers(instance.planned, len(instance.counts)))
    counts = instance.counts.copy()
    counts[hidden:] = rng.permuted(10 * counts[hidden:] + 7, axis=2)
    first, second = (
        run(spec, each, 60.0).solution for each in (instance, dataclasses.replace(instance, counts=counts))
    )
    assert isinstance(first, ExpertPlan) and isinstance(second, ExpertPlan)
    assert len(first.experts) == len(second.experts)
    made = hidden - instance.planned + 1
    np.testing.assert_array_equal(first.experts[:made], second.experts[:made])


@pytest.mark.parametrize("spec", [spec for spec in CACHING if spec.information == "online"], ids=_short)
@settings(max_examples=4 * EXAMPLES)
@given(instance=caches(), seed=SEEDS)
def test_loads_do_not_depend_on_requests_that_are_not_known(
    spec: SchedulerSpec, instance: ExpertCacheInstance, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    hidden = int(rng.integers(instance.steps))
    requests = instance.requests.copy()
    renamed = rng.permutation(instance.experts)
    requests[hidden:] = np.where(requests[hidden:] >= 0, renamed[requests[hidden:]], -1)
    first, second = (run(spec, each).solution for each in (instance, dataclasses.replace(instance, requests=requests)))
    assert isinstance(first, CacheSchedule) and isinstance(second, CacheSchedule)
    np.testing.assert_array_equal(first.compute_start_s[:hidden], second.compute_start_s[:hidden])
    # What a request needs is known when the one before is finished; loads that start earlier cannot tell.
    known = float(first.compute_start_s[hidden - 1] + instance.duration_s[hidden - 1]) if hidden else 0.0
    loads = []
    for schedule in (first, second):
        early = schedule.load_start_s < known * (1 - 1e-9)
        loads.append(np.stack([schedule.load_expert[early], schedule.evict_expert[early]]))
    np.testing.assert_array_equal(*loads)


@pytest.mark.parametrize("spec", PLACING, ids=_short)
def test_same_seed_same_plan(spec: SchedulerSpec) -> None:
    instance = several_windows(5, spec)
    assert run(spec, instance, 60.0).solution == run(spec, instance, 60.0).solution


def test_listing_schedulers_loads_neither_solver_nor_torch() -> None:
    code = (
        "import sys, schedrl.schedulers as s; s.schedulers_of('moe'); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'ortools', 'onnxruntime', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
