from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from brute_force import least_latency
from hypothesis import given, settings
from strategies import instances

from schedrl.baselines.socdag.annealing import SCHEDULERS, Annealing
from schedrl.baselines.socdag.heuristics import best_heuristic_schedule
from schedrl.baselines.socdag.outcomes import latency
from schedrl.envs.socdag.generators import GENERATORS
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.soc import stream_3pe
from schedrl.envs.socdag.solution import DagSchedule, check
from schedrl.envs.socdag.structured import canonical
from schedrl.errors import ConfigError
from schedrl.schedulers import Result


def anneal(instance: SocDagInstance, iterations: int, seed: int = 0, limit_s: float = 60.0) -> Result:
    scheduler = Annealing(max_iterations=iterations)
    result = scheduler.schedule(instance, time_limit_s=limit_s, rng=np.random.default_rng(seed))
    assert isinstance(result.solution, DagSchedule)
    assert check(instance, result.solution) == []
    assert result.objective == latency(instance, result.solution)
    return result


def test_finds_the_canonical_optimum() -> None:
    assert anneal(canonical(), 20_000).objective == 73.0


# Best of the list schedules and best known makespan on 2 CPUs and 2 GPUs when this was written.
@pytest.mark.parametrize(("name", "reached"), [("cholesky", 245.0), ("qr", 103.0)])
def test_beats_the_list_schedules_on_tiled_graphs(name: str, reached: float) -> None:
    instance = GENERATORS[name](np.random.default_rng(0), tiles=8)
    result = anneal(instance, 300_000)
    assert result.objective is not None and result.objective <= reached


@settings(max_examples=12, deadline=None)
@given(instances(max_tasks=4, max_devices=3, capacity=True, memory=True))
def test_reaches_the_optimum_of_tiny_jobs(instance: SocDagInstance) -> None:
    result = anneal(instance, 8000)
    assert result.objective == pytest.approx(least_latency(instance), rel=1e-9, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(instances(max_tasks=5, jobs=3, noise=True, deadlines=True, capacity=True, memory=True, contention=True))
def test_is_valid_in_every_mode_and_no_worse_than_its_start(instance: SocDagInstance) -> None:
    result = anneal(instance, 500)
    if not instance.noise_sigma:
        assert result.objective is not None
        assert result.objective <= latency(instance, best_heuristic_schedule(instance)) + 1e-9


def test_the_seed_alone_decides() -> None:
    instance = GENERATORS["topcuoglu"](np.random.default_rng(1), tasks=40)
    first, same, other = (anneal(instance, 5000, seed=seed).solution for seed in (3, 3, 4))
    assert first == same != other


def test_stops_at_the_time_limit() -> None:
    instance = GENERATORS["lu"](np.random.default_rng(0), tiles=8)
    result = Annealing().schedule(instance, time_limit_s=0.5, rng=np.random.default_rng(0))
    assert result.runtime_s < 2.0
    result = anneal(instance, 10**9, limit_s=0.3)
    assert result.runtime_s < 2.0


def test_stops_when_it_meets_the_bound() -> None:
    instance = GENERATORS["cholesky"](np.random.default_rng(0), tiles=4)
    result = Annealing().schedule(instance, time_limit_s=60.0, rng=np.random.default_rng(0))
    assert (result.objective, result.status) == (74.0, "optimal")
    assert result.runtime_s < 10.0


def test_plans_under_noise_without_looking_at_it() -> None:
    instance = dataclasses.replace(canonical(), noise_sigma=0.3, noise=np.linspace(-1.5, 1.5, 10))
    other = dataclasses.replace(instance, noise=-np.linspace(-1.5, 1.5, 10))
    plans = [anneal(case, 2000).solution for case in (instance, other)]
    assert isinstance(plans[0], DagSchedule) and isinstance(plans[1], DagSchedule)
    np.testing.assert_array_equal(plans[0].device, plans[1].device)


def test_refuses_a_binding_admission_limit() -> None:
    stream = stream_3pe(np.random.default_rng(0), jobs=5, admission_cap=3)
    with pytest.raises(ConfigError, match="admission_cap: 3 of 5 jobs"):
        Annealing().schedule(stream, time_limit_s=1.0, rng=np.random.default_rng(0))


def test_the_registered_scheduler_makes_one() -> None:
    (spec,) = SCHEDULERS
    assert (spec.name, spec.information, spec.make()) == ("socdag/annealing", "clairvoyant", Annealing())
