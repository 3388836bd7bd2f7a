"""The shipped policies play every kind of instance they are for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import schedrl.baselines.socdag as package
from schedrl.baselines.socdag.learned import PLANNED, Trained
from schedrl.envs.socdag.generators import GENERATORS, topcuoglu
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.simulator import Simulator
from schedrl.envs.socdag.solution import DagSchedule, check, objectives
from schedrl.envs.socdag.structured import canonical
from schedrl.envs.socdag.suites import load_instance
from schedrl.schedulers import Result, Scheduler, get_scheduler

pytest.importorskip("onnxruntime")
WEIGHTS = Path(package.__file__).parent / "weights"
PLANNER = WEIGHTS / "socdag.schedrl"


def solved(scheduler: Scheduler, instance: SocDagInstance, seed: int = 0) -> Result:
    """Return a result whose solution was checked and whose objective was recomputed."""
    result = scheduler.schedule(instance, time_limit_s=60.0, rng=np.random.default_rng(seed))
    assert isinstance(result.solution, DagSchedule)
    assert check(instance, result.solution) == []
    assert result.objective == pytest.approx(objectives(instance, result.solution)["latency"], rel=1e-12)
    return result


def named(name: str) -> Scheduler:
    return get_scheduler(f"socdag/{name}").make()


def random_plan(instance: SocDagInstance, seed: int = 0) -> DagSchedule:
    simulator, rng = Simulator([instance], 1, mode="plan"), np.random.default_rng(seed)
    reward, done = np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.bool_)
    while not simulator.finished(0):
        simulator.step(rng.integers(simulator.state.candidates[0], size=1).astype(np.int32), reward, done)
    return simulator.solution(0)


def noisy(seed: int = 1, **fields: object) -> SocDagInstance:
    drawn = topcuoglu(np.random.default_rng(seed), tasks=30, devices=4, ccr=1.0, noise_sigma=0.4)
    return dataclasses.replace(drawn, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("communication", ["delay", "contention"])
def test_a_plan_is_made_without_seeing_noise_and_keeps_its_devices_and_sequences(communication: str) -> None:
    instance = noisy(communication=communication)
    planned = PLANNED.instance(instance)
    assert (planned.noise_sigma, planned.admission_cap) == (0.0, 0)
    plan = random_plan(planned)
    assert check(planned, plan) == []
    executed = PLANNED.solution(instance, plan)
    assert check(instance, executed) == []
    np.testing.assert_array_equal(executed.device, plan.device)
    for device in range(instance.devices):
        mine = np.flatnonzero(plan.device == device)
        assert (np.diff(executed.start[mine[np.argsort(plan.start[mine], kind="stable")]]) >= 0).all()
    assert not np.array_equal(executed.start, plan.start)


@pytest.mark.parametrize("communication", ["delay", "contention"])
def test_a_plan_without_noise_comes_true(communication: str) -> None:
    instance = noisy(communication=communication, noise_sigma=0.0)
    plan = random_plan(instance)
    executed = PLANNED.solution(instance, plan)
    # Nothing starts later than planned; gaps that contended links left may close.
    assert (executed.start <= plan.start + 1e-9).all()
    assert check(instance, executed) == []


@pytest.mark.parametrize("name", ["ppo", "ppo-sample"])
def test_valid_schedules_of_single_jobs_with_decisions_counted(name: str) -> None:
    scheduler = named(name)
    for instance in (canonical(), load_instance("cholesky-6"), noisy(), noisy(communication="contention")):
        result = solved(scheduler, instance)
        # Forced moves are skipped, the rest is one decision per task, of every sample.
        samples = 128 if name == "ppo-sample" else 1
        assert samples * instance.tasks // 2 <= result.decisions <= samples * instance.tasks
    assert solved(scheduler, canonical()).objective <= 80.0


def test_what_is_decided_does_not_depend_on_hidden_noise() -> None:
    first, second = (solved(named("ppo"), noisy(noise=sign * noisy().noise)) for sign in (1.0, -1.0))  # type: ignore[operator]
    np.testing.assert_array_equal(first.solution.device, second.solution.device)  # type: ignore[attr-defined]
    assert first.objective != second.objective


def test_greedy_plans_repeat_and_sampled_ones_follow_the_seed() -> None:
    instance = topcuoglu(np.random.default_rng(3), tasks=40, devices=4)
    assert solved(named("ppo"), instance, 0).solution == solved(named("ppo"), instance, 1).solution
    first, again = (solved(Trained(samples=4), instance, 7).solution for _ in range(2))
    assert first == again


def test_greedy_plans_are_shorter_than_heft_on_average() -> None:
    rng, ratio = np.random.default_rng(77), []
    scheduler, heft = named("ppo"), named("heft")
    for _ in range(40):
        instance = topcuoglu(rng, tasks=50, devices=6)
        ratio.append(solved(scheduler, instance).objective / solved(heft, instance).objective)
    assert np.mean(ratio) < 1.0


def test_sampled_plans_are_on_average_shorter_than_greedy_ones() -> None:
    rng, greedy, sampled = np.random.default_rng(78), [], []
    for _ in range(4):
        instance = topcuoglu(rng, tasks=30, devices=4)
        greedy.append(solved(named("ppo"), instance).objective)
        sampled.append(solved(named("ppo-sample"), instance).objective)
    assert np.mean(sampled) < np.mean(greedy)


def test_a_bundle_of_ones_own_plays_the_same() -> None:
    instance = load_instance("lu-4")
    own = get_scheduler(f"socdag/ppo@{PLANNER}")
    assert own.information == "online"
    assert solved(own.make(), instance).solution == solved(named("ppo"), instance).solution


def crowd() -> SocDagInstance:
    """Return a stream on a platform that no policy was trained on alone."""
    return dataclasses.replace(
        canonical(),
        name="crowd",
        job_graph=np.zeros(12, dtype=int),
        release=20.0 * np.arange(12),
        noise_sigma=0.2,
        noise=np.random.default_rng(0).standard_normal(120),
        **dict.fromkeys(("deadline", "utility")),
    )


@pytest.mark.parametrize("weights", ["socdag-stream", "socdag-stream-3pe", "socdag"])
def test_streams_are_served_or_planned_by_the_bundle_for_them(weights: str) -> None:
    bundle, rng = WEIGHTS / f"{weights}.schedrl", np.random.default_rng(5)
    make = {
        "socdag-stream": crowd,
        "socdag-stream-3pe": lambda: GENERATORS["stream-3pe"](rng, jobs=12, scale=60.0, noise_sigma=0.3),
        "socdag": lambda: GENERATORS["stream-16pe"](rng, jobs=12, scale=60.0),
    }
    instance = make[weights]()
    result = solved(named("ppo"), instance)
    assert result.decisions >= instance.tasks // 2
    # Greedy, whatever the seed; and by the bundle that is for this platform.
    assert solved(named("ppo-sample"), instance, 1).solution == result.solution
    assert solved(get_scheduler(f"socdag/ppo@{bundle}").make(), instance).solution == result.solution
    # Random choices are far worse; a policy has to be in the range of a simple rule.
    assert result.objective <= 1.2 * solved(named("etf-finish-online"), instance).objective
