from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_dags import graph, soc
from strategies import instances

from schedrl.baselines.socdag.deadline import SCHEDULERS, DeadlineRule
from schedrl.devices import Device
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.solution import DagSchedule, check, objectives, task_end
from schedrl.envs.socdag.structured import canonical
from schedrl.envs.socdag.workflows import agentic
from schedrl.errors import ConfigError

RULES: dict[str, DeadlineRule] = {spec.name.removeprefix("socdag/"): spec.make() for spec in SCHEDULERS}  # type: ignore[misc]
INF = math.inf


@st.composite
def streams(draw: st.DrawFn) -> SocDagInstance:
    instance = draw(
        instances(
            max_tasks=5,
            jobs=5,
            noise=draw(st.booleans()),
            deadlines=True,
            capacity=True,
            memory=True,
            contention=True,
        )
    )
    return dataclasses.replace(instance, admission_cap=draw(st.integers(0, 3)))


def run(rule: DeadlineRule, instance: SocDagInstance) -> DagSchedule:
    result = rule.schedule(instance, time_limit_s=60.0, rng=np.random.default_rng(0))
    schedule = result.solution
    assert isinstance(schedule, DagSchedule)
    assert check(instance, schedule) == []
    assert result.objective == objectives(instance, schedule)["latency"]
    return schedule


def lost(rule: DeadlineRule, instance: SocDagInstance) -> float:
    return objectives(instance, run(rule, instance))["utility_lost"]


def single_tasks(
    durations: list[list[float]], release: list[float], deadline: list[float], price: float = 1.0, **fields: Any
) -> SocDagInstance:
    """Jobs of one task each on a free edge device and, with a second duration, a priced cloud device."""
    names = {"edge": None, "cloud": price}
    devices = [Device(name=name, price_usd_per_h=usd) for name, usd in names.items()][: len(durations[0])]
    return soc(
        *(graph([row]) for row in durations),
        devices=devices,
        counts=(1,) * len(devices),
        job_graph=np.arange(len(durations)),
        release=np.array(release),
        deadline=np.array(deadline),
        **fields,
    )


def test_the_earliest_deadline_goes_first() -> None:
    instance = single_tasks([[5], [5], [5]], [0, 0, 1], [20, 6, 8])
    for rule in RULES.values():
        # The third is due at 9 and enters while the second runs, which nothing interrupts; its forecast end is 10.
        dropped = rule.admission
        schedule = run(rule, instance)
        assert schedule.start.tolist()[:2] == ([5, 0] if dropped else [10, 0])
        assert schedule.device.tolist() == [0, 0, -1 if dropped else 0]


def test_jobs_without_deadline_come_last_and_are_never_dropped() -> None:
    instance = single_tasks([[5], [5], [5]], [0, 0, 0], [INF, INF, 10])
    for rule in RULES.values():
        assert run(rule, instance).start.tolist() == [5, 10, 0]


def test_admission_drops_the_hopeless_job_and_saves_the_other() -> None:
    instance = single_tasks([[4], [4]], [0, 0], [3, 5])
    assert run(RULES["edf"], instance).start.tolist() == [0, 4]
    assert lost(RULES["edf"], instance) == 1.0
    for name in ("edf-admission", "dem", "dems"):
        assert run(RULES[name], instance).device.tolist() == [-1, 0]
        assert lost(RULES[name], instance) == 0.5


def test_admission_counts_what_earlier_deadlines_take() -> None:
    # A chain of two and a job that is due later: 0 to 6 are taken, so the third task could end at 8 only.
    chain, late = graph([[3], [3]], [(0, 1, 0)]), graph([[2]])
    fields: dict[str, Any] = {"devices": [Device(name="cpu")], "counts": (1,), "job_graph": np.array([0, 1])}
    for due, device in ((7.9, -1), (8.0, 0)):
        instance = soc(chain, late, deadline=np.array([7.0, due]), release=np.zeros(2), **fields)
        assert run(RULES["edf-admission"], instance).device.tolist() == [0, 0, device]


def crowded(cloud: float = 8.0, **fields: Any) -> SocDagInstance:
    """Three jobs that all want the edge.

    The first runs there until 4. The second enters at 1, is due at 10 and expects to run from 4 to 8. The third enters
    at 2, is due at 8 and takes its place, which leaves 7 to 11 to the second: late, unless it moves to the cloud.
    """
    return single_tasks([[4, 20], [4, cloud], [3, 30]], [0, 1, 2], [100, 9, 6], **fields)


def test_migration_moves_the_job_that_would_be_late() -> None:
    late = run(RULES["edf-admission"], crowded())
    assert (late.device.tolist(), late.start.tolist()) == ([0, 0, 0], [0, 7, 4])
    assert lost(RULES["edf-admission"], crowded()) == pytest.approx(1 / 3)
    moved = run(RULES["dem"], crowded())
    assert (moved.device.tolist(), moved.start.tolist()) == ([0, 1, 0], [0, 2, 4])
    assert lost(RULES["dem"], crowded()) == 0.0


@pytest.mark.parametrize(("utility", "dropped"), [([1, 1, 2], 1), ([1, 2, 1], 2), ([1, 1, 1], 2)])
def test_migration_drops_the_cheaper_job_when_none_can_move(utility: list[float], dropped: int) -> None:
    # At 2 the cloud would end the second job at 11, a unit late.
    instance = crowded(cloud=9.0, utility=np.array(utility, dtype=float))
    device = [0, 0, 0]
    device[dropped] = -1
    assert run(RULES["dem"], instance).device.tolist() == device


def test_moving_has_to_be_worth_its_price() -> None:
    instance = crowded(price=3600.0)  # eight dollars for the second job
    for per_usd, device in ((0.0, [0, 1, 0]), (0.1, [0, 1, 0]), (1.0, [0, 0, -1])):
        rule = DeadlineRule(admission=True, migration=True, utility_per_usd=per_usd)
        assert run(rule, instance).device.tolist() == device


def test_under_an_admission_limit_only_the_newcomer_is_dropped() -> None:
    instance = crowded(cloud=9.0, utility=np.array([1.0, 1.0, 2.0]), admission_cap=3)
    assert run(RULES["dem"], instance).device.tolist() == [0, 0, -1]


def test_an_idle_edge_device_steals_a_queued_task() -> None:
    # The first job is expected to hold the edge until 10 and ends at 5; the second holds the cloud until 8. The third
    # enters at 1 and expects to end at 14 on the edge, at 12 on the cloud, where it queues.
    instance = single_tasks(
        [[10, 30], [INF, 8], [4, 4]], [0, 0, 1], [100, 100, 11], noise_sigma=1.0, noise=np.array([-0.5, 0.0, 0.0])
    )
    waits, steals = run(RULES["dem"], instance), run(RULES["dems"], instance)
    assert (waits.device.tolist(), waits.start.tolist()) == ([0, 1, 1], [0, 0, 8])
    assert (steals.device.tolist(), steals.start.tolist()) == ([0, 1, 0], [0, 0, 5])
    # With a limit on the price that no device meets there is no edge, and nobody steals.
    nobody = DeadlineRule(stealing=True, edge_usd_per_h=-1.0)
    assert run(nobody, instance).start.tolist() == [0, 0, 8]


def test_only_what_ends_sooner_is_stolen() -> None:
    # Two tasks in the cloud's queue that the edge would run in 8: only the last gains, 13 instead of 16.
    instance = single_tasks(
        [[10, 30], [INF, 8], [8, 4], [8, 4]],
        [0, 0, 1, 1],
        [100, 100, 40, 41],
        noise_sigma=1.0,
        noise=np.array([-0.5, 0.0, 0.0, 0.0]),
    )
    assert run(RULES["dem"], instance).start.tolist() == [0, 0, 8, 12]
    stolen = run(RULES["dems"], instance)
    assert (stolen.device.tolist(), stolen.start.tolist()) == ([0, 1, 1, 0], [0, 0, 8, 5])


@pytest.mark.parametrize(("utility", "stolen"), [([1, 1, 1, 5], 3), ([1, 1, 5, 1], 2)])
def test_what_gains_most_utility_per_time_is_stolen(utility: list[float], stolen: int) -> None:
    # The second and third task queue at the cloud until 20; the edge ends its first task at 5 instead of 40.
    instance = single_tasks(
        [[40, 90], [INF, 20], [6, 4], [6, 4]],
        [0, 0, 1, 1],
        [100, 100, 60, 61],
        noise_sigma=1.0,
        noise=np.array([-0.875, 0.0, 0.0, 0.0]),
        utility=np.array(utility, dtype=float),
    )
    assert run(RULES["dems"], instance).start[stolen] == 5.0


def test_caution_drops_what_is_nearly_late() -> None:
    instance = single_tasks([[4]], [0], [6])
    assert run(DeadlineRule(admission=True), instance).device.tolist() == [0]
    assert run(DeadlineRule(admission=True, caution=1.6), instance).device.tolist() == [-1]


def test_a_single_graph_without_deadline_goes_where_its_tasks_end_first() -> None:
    for rule in RULES.values():
        assert objectives(canonical(), run(rule, canonical()))["makespan"] == 80.0


@given(streams(), st.sampled_from(sorted(RULES)))
def test_every_schedule_is_valid_and_drops_only_jobs_with_deadline(instance: SocDagInstance, name: str) -> None:
    schedule = run(RULES[name], instance)
    assert instance.deadline is not None
    due = np.isfinite(instance.deadline)[instance.flat.job]
    assert (schedule.device[~due] >= 0).all()
    assert name != "edf" or (schedule.device >= 0).all()


@given(streams(), st.integers(0, 2**32 - 1), st.sampled_from(sorted(RULES)))
def test_durations_are_unknown_until_a_task_ends(instance: SocDagInstance, seed: int, name: str) -> None:
    noise = np.random.default_rng(seed).standard_normal(instance.tasks)
    twins = [instance, dataclasses.replace(instance, noise=noise)]
    schedules = [run(RULES[name], twin) for twin in twins]
    ends = [task_end(twin, schedule)[schedule.device >= 0] for twin, schedule in zip(twins, schedules, strict=True)]
    first = min(float(end.min(initial=INF)) for end in ends)
    begun = [
        {(t, int(s.device[t]), float(s.start[t])) for t in np.flatnonzero((s.device >= 0) & (s.start < first))}
        for s in schedules
    ]
    assert begun[0] == begun[1]


def test_on_overloaded_agentic_streams_each_step_loses_less() -> None:
    drawn = [agentic(np.random.default_rng(seed), jobs=8, agents=2, scale=5.0) for seed in range(20)]
    mean = {name: float(np.mean([lost(rule, instance) for instance in drawn])) for name, rule in RULES.items()}
    assert mean["edf"] > mean["edf-admission"] >= mean["dem"] >= mean["dems"], mean
    assert mean["dems"] > 0.1, "not an overload"


def test_options_are_checked() -> None:
    for name, value in (("caution", -1.0), ("caution", INF), ("utility_per_usd", math.nan)):
        with pytest.raises(ConfigError, match=f"option {name}: {value}, expected a finite number"):
            DeadlineRule(**{name: value})
    with pytest.raises(ConfigError, match="option migration: needs admission"):
        DeadlineRule(migration=True)
