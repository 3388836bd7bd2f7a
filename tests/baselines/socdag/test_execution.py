from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import instances

from schedrl.baselines.socdag.execution import chosen_duration, execute, transfer_times
from schedrl.baselines.socdag.heuristics import plan
from schedrl.devices import Device, Link, Platform, PowerState
from schedrl.envs.socdag.instance import Communication, SocDagInstance
from schedrl.envs.socdag.solution import DagSchedule, check, objectives, task_end
from schedrl.envs.socdag.structured import canonical
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.errors import SolutionError

# Published schedules of Topcuoglu's example: HEFT's, and an optimal one.
HEFT = ([2, 0, 2, 1, 2, 1, 2, 0, 1, 1], [0, 27, 9, 18, 28, 26, 38, 57, 56, 73])
OPTIMAL = ([2, 2, 1, 0, 2, 0, 1, 0, 1, 1], [0, 9, 21, 18, 27, 31, 34, 46, 54, 66])


def graph(duration: list[list[float]], edge: list[tuple[int, int, float]]) -> TaskGraph:
    return TaskGraph(
        name="g",
        task_names=tuple(f"t{k}" for k in range(len(duration))),
        duration=np.array(duration),
        edge=np.array([pair[:2] for pair in edge], dtype=np.int32).reshape(-1, 2),
        edge_bytes=np.array([pair[2] for pair in edge]),
    )


def two_devices(
    *graphs: TaskGraph, jobs: list[int] | None = None, communication: Communication = "delay", **options: object
) -> SocDagInstance:
    platform = Platform(
        devices=(Device(name="a"), Device(name="b")),
        counts=(1, 1),
        links={pair: Link(latency_s=0.0, bandwidth_bytes_per_s=1.0) for pair in (("a", "b"), ("b", "a"))},
    )
    instance = SocDagInstance(
        name="two",
        platform=platform,
        graphs=graphs,
        job_graph=np.array(jobs or [0]),
        communication=communication,
    )
    return dataclasses.replace(instance, **options)


@pytest.mark.parametrize(("published", "makespan"), [(HEFT, 80.0), (OPTIMAL, 73.0)])
def test_published_schedules_are_reproduced(published: tuple[list[int], list[int]], makespan: float) -> None:
    instance = canonical()
    device, start = np.array(published[0]), np.array(published[1], dtype=float)
    schedule = execute(instance, device, np.argsort(start, kind="stable"))
    np.testing.assert_array_equal(schedule.start, start)
    assert check(instance, schedule) == []
    assert objectives(instance, schedule)["makespan"] == makespan


@st.composite
def streams(draw: st.DrawFn, *, noise: bool = False) -> SocDagInstance:
    instance = draw(instances(jobs=4, max_tasks=5, capacity=True, memory=True, contention=True, noise=noise))
    return dataclasses.replace(instance, admission_cap=draw(st.integers(0, 2)))


@given(streams())
def test_a_plan_without_noise_happens_exactly(instance: SocDagInstance) -> None:
    for name in ("heft", "heft-append", "lookahead", "edp-heft", "min-min"):
        made = plan(instance, name)
        schedule = execute(instance, made.device, made.order, point=made.point, transfer_order=made.transfer_order)
        np.testing.assert_array_equal(schedule.start, made.start)
        np.testing.assert_array_equal(schedule.entry, made.entry)
        np.testing.assert_array_equal(task_end(instance, schedule), made.end)
        if instance.communication == "contention":
            np.testing.assert_array_equal(schedule.transfer, made.transfer)


@given(streams(noise=True), st.sampled_from(["heft", "edp-heft", "dls"]))
def test_under_noise_nothing_waits_without_cause(instance: SocDagInstance, name: str) -> None:
    made = plan(instance, name)
    schedule = execute(instance, made.device, made.order, point=made.point, transfer_order=made.transfer_order)
    assert check(instance, schedule) == []
    end, flat = task_end(instance, schedule), instance.flat
    assert schedule.transfer is not None
    arrival = transfer_times(instance, made.device) + end[flat.edge[:, 0]]
    if instance.communication == "contention":
        arrival = schedule.transfer + transfer_times(instance, made.device)
    for k, task in enumerate(made.order.tolist()):
        before = [other for other in made.order[:k].tolist() if made.device[other] == made.device[task]]
        earliest = max(
            schedule.entry[flat.job[task]],
            *(end[other] for other in before[-1:]),
            *arrival[flat.edge[:, 1] == task],
            0.0,
        )
        assert schedule.start[task] == pytest.approx(earliest)


@given(streams(noise=True))
def test_a_topological_order_job_by_job_runs(instance: SocDagInstance) -> None:
    made = plan(instance, "met")
    schedule = execute(instance, made.device, instance.flat.order)  # links serve by position in the order
    assert check(instance, schedule) == []


def test_operating_points_stretch_the_true_duration() -> None:
    slow = Device(
        name="a", power_states=(PowerState(name="full", power_w=2.0), PowerState(name="half", power_w=1.0, speed=0.5))
    )
    instance = SocDagInstance(
        name="dvfs",
        platform=Platform(devices=(slow,), counts=(1,)),
        graphs=(graph([[3.0], [5.0]], []),),
        noise_sigma=0.5,
        noise=np.array([1.0, -1.0]),
    )
    point = np.array([1, 0], dtype=np.int32)
    assert chosen_duration(instance, np.zeros(2, np.int32), point).tolist() == [6.0, 5.0]
    schedule = execute(instance, np.zeros(2, np.int32), np.array([0, 1]), point=point)
    assert schedule.start.tolist() == [0.0, 9.0]  # 6 units take half as long again
    assert task_end(instance, schedule).tolist() == [9.0, 11.5]


def test_links_serve_in_the_given_order() -> None:
    # Tasks 0 and 1 on a send 4 and 2 bytes to 2 and 3 on b.
    instance = two_devices(graph([[1.0, 1.0]] * 4, [(0, 2, 4.0), (1, 3, 2.0)]), communication="contention")
    device, order = np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3])
    first = execute(instance, device, order)
    assert first.start.tolist() == [0.0, 1.0, 5.0, 7.0]
    assert first.transfer is not None and first.transfer.tolist() == [1.0, 5.0]
    second = execute(instance, device, np.array([0, 1, 3, 2]), transfer_order=np.array([1, 0]))
    assert second.start.tolist() == [0.0, 1.0, 8.0, 4.0]
    assert second.transfer is not None and second.transfer.tolist() == [4.0, 2.0]


def test_several_inputs_of_a_task_queue_in_edge_order() -> None:
    instance = two_devices(
        graph([[1.0, 9.0], [1.0, 9.0], [9.0, 1.0]], [(1, 2, 3.0), (0, 2, 5.0)]), communication="contention"
    )
    schedule = execute(instance, np.array([0, 0, 1]), np.array([0, 1, 2]))
    assert schedule.transfer is not None and schedule.transfer.tolist() == [2.0, 5.0]
    assert schedule.start.tolist() == [0.0, 1.0, 10.0]


def test_admission_follows_true_departures() -> None:
    # Cap 1: the second job waits for the first, which noise makes 3 units instead of 2.
    job = graph([[2.0, 2.0]], [])
    instance = two_devices(
        job,
        jobs=[0, 0, 0],
        release=np.array([1.0, 1.5, 9.0]),
        admission_cap=1,
        noise_sigma=1.0,
        noise=np.array([0.5, 0, 0]),
    )
    schedule = execute(instance, np.array([0, 1, 0]), np.array([0, 1, 2]))
    assert schedule.entry.tolist() == [1.0, 4.0, 11.5]  # gaps of 0.5 and 7.5 pass at least
    assert schedule.start.tolist() == [1.0, 4.0, 11.5]
    assert check(instance, schedule) == []


def test_dropped_jobs_take_no_place() -> None:
    instance = two_devices(
        graph([[2.0, 2.0], [1.0, 1.0]], [(0, 1, 1.0)]),
        jobs=[0, 0, 0],
        release=np.zeros(3),
        admission_cap=1,
        deadline=np.array([9.0, 1.0, 9.0]),
    )
    schedule = execute(instance, np.array([0, 1, -1, -1, 0, 0]), np.array([0, 1, 4, 5]))
    assert schedule.entry.tolist() == [0.0, 4.0, 4.0]
    assert schedule.start[[0, 1, 4, 5]].tolist() == [0.0, 3.0, 4.0, 6.0]
    assert check(instance, schedule) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": np.array([0, 5])}, "field device: t1 runs on 5, expected 0 to 1, or -1 if dropped"),
        ({"device": np.array([0])}, "field device: int64 of shape (1,), expected 2 integers"),
        ({"device": np.array([1, 0])}, "field device: b does not support t0"),
        ({"order": np.array([0, 0])}, "field order: expected different numbers from 0 to 1"),
        ({"order": np.array([0.0, 1.0])}, "field order: expected different numbers from 0 to 1"),
        ({"order": np.array([1])}, "field order: 0 is missing"),
        ({"order": np.array([1, 0])}, "field order: t1 never starts, the order makes tasks wait in a ring"),
        ({"point": np.array([0, 1])}, "field point: t1 runs at operating point 1, expected 0 to 0"),
        ({"point": np.array([0.5, 1])}, "field point: float64 of shape (2,), expected 2 integers"),
        ({"transfer_order": np.array([1])}, "field transfer_order: expected different numbers from 0 to 0"),
    ],
)
def test_bad_plans_are_named(change: dict[str, np.ndarray], message: str) -> None:
    instance = two_devices(graph([[1.0, np.inf], [1.0, 1.0]], [(0, 1, 1.0)]))
    arguments = {"device": np.array([0, 0]), "order": np.array([0, 1]), **change}
    device, order = arguments.pop("device"), arguments.pop("order")
    with pytest.raises(SolutionError) as caught:
        execute(instance, device, order, **arguments)
    assert str(caught.value) == message


def test_the_schedule_of_an_optimal_plan_round_trips() -> None:
    instance = canonical()
    schedule = execute(instance, np.array(OPTIMAL[0]), np.argsort(OPTIMAL[1], kind="stable"))
    assert DagSchedule.from_json(schedule.to_json()) == schedule
