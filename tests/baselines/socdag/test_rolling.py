from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import instances

from schedrl.baselines.socdag.heuristics import plan
from schedrl.baselines.socdag.outcomes import latency
from schedrl.baselines.socdag.rolling import SCHEDULERS, RollingCpSat
from schedrl.devices import Device, Platform
from schedrl.envs.socdag.generators import GENERATORS
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.soc import stream_3pe, stream_16pe
from schedrl.envs.socdag.solution import DagSchedule, check
from schedrl.envs.socdag.structured import canonical
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.schedulers import Result


def roll(instance: SocDagInstance, limit_s: float = 10.0, seed: int = 0) -> Result:
    result = RollingCpSat().schedule(instance, time_limit_s=limit_s, rng=np.random.default_rng(seed))
    assert isinstance(result.solution, DagSchedule)
    assert check(instance, result.solution) == []
    assert result.objective == latency(instance, result.solution)
    return result


def test_one_known_job_is_planned_optimally() -> None:
    result = roll(canonical())
    assert result.objective == 73.0


@settings(max_examples=50, deadline=None)
@given(
    instances(max_tasks=5, jobs=4, noise=True, deadlines=True, capacity=True, memory=True, contention=True),
    st.integers(0, 3),
    st.sampled_from([0.01, 0.3]),
)
def test_schedules_are_valid_in_every_mode_and_at_every_limit(
    instance: SocDagInstance, cap: int, limit_s: float
) -> None:
    roll(dataclasses.replace(instance, admission_cap=cap), limit_s)


def one_task(name: str, taken: float) -> TaskGraph:
    return TaskGraph(
        name=name,
        task_names=(name,),
        duration=np.array([[taken]]),
        edge=np.zeros((0, 2), dtype=np.int32),
        edge_bytes=np.zeros(0),
    )


def test_new_jobs_overtake_what_has_not_started() -> None:
    # x takes 4 and runs from 0; y (10) waits for it when z (1) enters at 1 and is put first: 4, 5 - 1, 15.
    instance = SocDagInstance(
        name="overtake",
        platform=Platform(devices=(Device(name="cpu"),), counts=(1,)),
        graphs=(one_task("x", 4.0), one_task("y", 10.0), one_task("z", 1.0)),
        job_graph=np.arange(3),
        release=np.array([0.0, 0.0, 1.0]),
    )
    result = roll(instance)
    assert isinstance(result.solution, DagSchedule)
    assert result.solution.start.tolist() == [0.0, 5.0, 4.0]
    assert result.objective == (4 + 15 + 4) / 3


def test_it_does_not_see_a_job_before_it_enters() -> None:
    # Waiting for b, which takes 1 and enters at 1, would be better than starting a, which takes 10, at 0.
    instance = SocDagInstance(
        name="online",
        platform=Platform(devices=(Device(name="cpu"),), counts=(1,)),
        graphs=(one_task("a", 10.0), one_task("b", 1.0)),
        job_graph=np.arange(2),
        release=np.array([0.0, 1.0]),
    )
    assert roll(instance).objective == (10 + 10) / 2


def test_an_admission_limit_holds_jobs_back() -> None:
    instance = SocDagInstance(
        name="capped",
        platform=Platform(devices=(Device(name="cpu"),), counts=(2,)),
        graphs=(one_task("a", 3.0),),
        job_graph=np.zeros(3, dtype=np.int32),
        release=np.array([0.0, 0.0, 1.0]),
        admission_cap=1,
    )
    result = roll(instance)
    assert isinstance(result.solution, DagSchedule)
    assert result.solution.entry.tolist() == [0.0, 3.0, 6.0]
    assert result.objective == 3.0


def heuristic_latency(instance: SocDagInstance, name: str) -> float:
    return plan(instance, name).latency


def test_beats_job_by_job_planning_on_an_open_stream() -> None:
    instance = stream_3pe(np.random.default_rng(1), jobs=20, scale=50.0, admission_cap=0)
    result = roll(instance, limit_s=8.0)
    assert result.objective is not None and result.objective < heuristic_latency(instance, "heft")


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_runs_the_16_device_stream(sigma: float) -> None:
    instance = stream_16pe(np.random.default_rng(2), jobs=10, scale=150.0, noise_sigma=sigma)
    result = roll(instance, limit_s=3.0)
    assert result.runtime_s < 12.0


def test_plans_of_the_past_do_not_depend_on_future_noise() -> None:
    base = GENERATORS["topcuoglu"](np.random.default_rng(3), tasks=12, devices=3, noise_sigma=0.3)
    noise = np.array(base.noise)
    order = roll(base, limit_s=0.0).solution
    assert isinstance(order, DagSchedule)
    late = int(order.start.argmax())
    noise[late] += 1.0
    again = roll(dataclasses.replace(base, noise=noise), limit_s=0.0).solution
    assert isinstance(again, DagSchedule)
    np.testing.assert_array_equal(order.start, again.start)


def test_the_registered_scheduler_makes_one() -> None:
    (spec,) = SCHEDULERS
    assert (spec.name, spec.information, spec.make()) == ("socdag/cp-sat-rolling", "online", RollingCpSat())
