"""Schedules, their checker and their objectives."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_dags import CANONICAL, HEFT, INF, OPTIMAL, PAIR, PAIR_GRAPH, graph, plan, soc

from schedrl.devices import Device, Link, Platform, PowerState
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.solution import MAX_LISTED, DagSchedule, check, job_latency, objectives, task_end
from schedrl.errors import SolutionError


@pytest.mark.parametrize(("schedule", "makespan"), [(OPTIMAL, 73.0), (HEFT, 80.0)])
def test_published_schedules_of_the_worked_example_are_valid(schedule: DagSchedule, makespan: float) -> None:
    assert check(CANONICAL, schedule) == []
    assert objectives(CANONICAL, schedule) == {"latency": makespan, "makespan": makespan}


@pytest.mark.parametrize("task", range(10))
def test_no_task_of_the_optimal_schedule_can_start_earlier(task: int) -> None:
    start = OPTIMAL.start - np.eye(10)[task]
    assert check(CANONICAL, plan(OPTIMAL.device.tolist(), start.tolist())) != []


@pytest.mark.parametrize(
    ("schedule", "violation"),
    [
        (plan([0], [0]), "1 tasks, expected 2"),
        (plan([0, 0], [0, 3], [0, 0]), "2 entry times for 1 jobs"),
        (plan([0, 0], [0, 3], transfer=[0, 0]), "2 transfers for 1 edges"),
        (plan([0, 2], [0, 3]), "b runs on device 2, expected 0 to 1"),
        (plan([0, -2], [0, 3]), "b runs on device -2, expected 0 to 1"),
        (plan([0, 0], [0, 3], point=[0, 1]), "b runs at operating point 1, expected 0 to 0"),
        (plan([0, 0], [0, 3], point=[-1, 0]), "a runs at operating point -1, expected 0 to 0"),
        (plan([0, 0], [-1, 3]), "a starts at -1, before time 0"),
        (plan([-1, 0], [0, 3]), "job 0 is dropped in part: 1 of 2 tasks do not run"),
        (plan([-1, -1], [0, 0]), "job 0 is dropped, but has no deadline"),
        (plan([0, 0], [0, 3], [1]), "job 0 enters at 1, expected 0"),
        (plan([0, 1], [0, 6.9]), "b starts at 6.9, before the data of a arrive at 7"),
        (plan([0, 0], [0, 2]), "b starts at 2, before the data of a arrive at 3"),
    ],
)
def test_each_kind_of_violation_is_named(schedule: DagSchedule, violation: str) -> None:
    assert violation in check(PAIR, schedule)


def test_a_transfer_takes_the_links_time_between_devices_only() -> None:
    assert check(PAIR, plan([0, 1], [0, 7])) == []
    assert check(PAIR, plan([0, 0], [0, 3])) == []
    no_bytes = soc(graph([[3, 4], [2, 5]], [(0, 1, 0)]))
    assert check(no_bytes, plan([0, 1], [0, 3])) == []
    assert check(no_bytes, plan([0, 1], [0, 2.9])) == ["b starts at 2.9, before the data of a arrive at 3"]


def test_processing_elements_of_one_device_share_memory_and_devices_of_one_type_do_not() -> None:
    cpus = [Device(name="cpu", capacity=2)]
    instance = soc(graph([[3], [2]], [(0, 1, 6)]), devices=cpus, counts=(2,))
    assert instance.device_names == ("cpu.0", "cpu.1", "cpu.2", "cpu.3")
    assert check(instance, plan([0, 1], [0, 3])) == []
    assert check(instance, plan([1, 2], [0, 3])) == ["b starts at 3, before the data of a arrive at 7"]


def test_an_unsupported_device_is_named() -> None:
    instance = soc(graph([[3, INF], [2, 5]]))
    assert check(instance, plan([1, 0], [0, 0])) == ["a runs on gpu, which does not support it"]


def test_each_way_through_a_shared_memory_counts_even_to_the_same_device() -> None:
    links = {
        ("cpu", "mem"): Link(latency_s=1, bandwidth_bytes_per_s=2),
        ("gpu", "mem"): Link(latency_s=0, bandwidth_bytes_per_s=6),
    }
    links |= {
        ("mem", "cpu"): Link(latency_s=0, bandwidth_bytes_per_s=3),
        ("mem", "gpu"): Link(latency_s=2, bandwidth_bytes_per_s=1),
    }
    platform = Platform(devices=PAIR.platform.devices, counts=(1, 1), links=links, memory="mem")
    instance = SocDagInstance(name="shared", platform=platform, graphs=(PAIR_GRAPH,))
    # 6 bytes: cpu to memory 4, gpu to memory 1; memory to cpu 2, memory to gpu 8. Task a ends at 3 or 4.
    for source, target, arrival in ((0, 0, 9), (0, 1, 15), (1, 0, 7), (1, 1, 13)):
        assert check(instance, plan([source, target], [0, arrival])) == []
        assert len(check(instance, plan([source, target], [0, arrival - 0.5]))) == 1


# Tasks a and b on the cpu feed c and d on the gpu with 2 bytes each, 2 time units on the link.
CONTENDED = soc(
    graph([[1, INF], [1, INF], [INF, 1], [INF, 1]], [(0, 2, 2), (1, 3, 2)]), counts=(1, 2), communication="contention"
)


@pytest.mark.parametrize(
    ("schedule", "violations"),
    [
        (plan([0, 0, 1, 1], [0, 1, 3, 5], transfer=[1, 3]), []),
        # Another gpu is another link.
        (plan([0, 0, 1, 2], [0, 1, 3, 4], transfer=[1, 2]), []),
        (plan([0, 0, 1, 1], [0, 1, 3, 5], transfer=[1, 2.5]), ["b -> d and a -> c use one link at 2.5"]),
        (plan([0, 0, 1, 1], [0, 1, 3, 5], transfer=[0.5, 3]), ["a -> c moves data at 0.5, before it exists at 1"]),
        (plan([0, 0, 1, 1], [0, 1, 3, 5], transfer=[1, 3.5]), ["d starts at 5, before the data of b arrive at 5.5"]),
        (plan([0, 0, 1, 1], [0, 1, 3, 5]), ["0 transfers for 2 edges"]),
    ],
)
def test_contended_links_carry_one_transfer_at_a_time(schedule: DagSchedule, violations: list[str]) -> None:
    assert check(CONTENDED, schedule) == violations


def test_transfer_times_do_not_matter_where_no_link_is_used() -> None:
    instance = soc(PAIR_GRAPH, communication="contention")
    assert check(instance, plan([0, 0], [0, 3], transfer=[-7])) == []


def test_overlap_on_one_device_is_named() -> None:
    instance = soc(graph([[10, 1], [1, 1], [1, 1]]))
    words = check(instance, plan([0, 0, 0], [0, 1, 5]))
    # Sorted by start, b ends before c starts; only a still runs.
    assert words == ["device cpu: b [1, 2) overlaps a [0, 10)", "device cpu: c [5, 6) overlaps a [0, 10)"]
    assert check(instance, plan([0, 1, 1], [0, 1, 5])) == []


@pytest.mark.parametrize(
    ("point", "valid"), [(0, True), (1, True), (1 + 1e-12, True), (2, False), (3, False), (4 - 1e-12, True), (4, True)]
)
def test_zero_duration_may_touch_but_not_cut(point: float, valid: bool) -> None:
    instance = soc(graph([[3, 3], [0, 0]]))
    assert (check(instance, plan([0, 0], [1, point])) == []) is valid


@pytest.mark.parametrize("unit", [1.0, 1e6])
def test_rounding_is_tolerated_up_to_a_billionth_of_the_latest_time(unit: float) -> None:
    instance = soc(graph([[3 * unit, 4], [2 * unit, 5]], [(0, 1, 0)]))
    assert check(instance, plan([0, 0], [0, 3 * unit - 1e-9 * unit])) == []
    assert len(check(instance, plan([0, 0], [0, 3 * unit - 1e-7 * unit]))) == 2


def test_times_of_dropped_tasks_do_not_widen_the_tolerance() -> None:
    instance = soc(PAIR_GRAPH, job_graph=[0, 0], deadline=[INF, 5])
    early = plan([0, 0, -1, -1], [0, 0, 1e300, 1e300], [0, 0])
    assert len(check(instance, early)) == 2


def test_many_violations_are_counted_not_listed() -> None:
    instance = soc(graph([[1, 1]]), job_graph=np.zeros(50, dtype=int))
    words = check(instance, plan([0] * 50, [0] * 50, [0] * 50))
    assert len(words) == MAX_LISTED + 1
    assert words[-1] == f"... and {49 - MAX_LISTED} more"


def test_tasks_wait_for_the_release_of_their_job() -> None:
    instance = soc(PAIR_GRAPH, job_graph=[0, 0], release=[0, 4])
    assert check(instance, plan([0, 0, 0, 0], [0, 3, 5, 8], [0, 4])) == []
    assert check(instance, plan([0, 0, 1, 1], [0, 3, 3, 7], [0, 4])) == ["1.a starts at 3, before its job enters at 4"]
    assert check(instance, plan([0, 0, 1, 1], [0, 3, 3, 7], [0, 3])) == ["job 1 enters at 3, expected 4"]


def test_admission_waits_for_a_job_to_leave_and_shifts_what_follows() -> None:
    # Jobs of one task, released at 0, 1 and 2, at most one inside: the second enters when the first ends at 3,
    # the third 1 after the second entered or when it ends, whichever is later.
    instance = soc(graph([[3, 5]]), job_graph=[0, 0, 0], release=[0, 1, 2], admission_cap=1)
    assert check(instance, plan([0, 0, 0], [0, 3, 6], [0, 3, 6])) == []
    assert check(instance, plan([0, 1, 0], [0, 1, 3], [0, 1, 3])) == [
        # The second would have to enter at 3, and, on the gpu from 1 to 6, would keep the third out until then.
        "job 1 enters at 1, expected 3",
        "job 2 enters at 3, expected 6",
    ]
    two = soc(graph([[3, 5]]), job_graph=[0, 0, 0], release=[0, 1, 2], admission_cap=2)
    assert check(two, plan([0, 1, 0], [0, 1, 3], [0, 1, 3])) == []
    # The second leaves late, at 6; the first one's end at 3 makes room for the third all the same.
    assert check(two, plan([0, 1, 0], [0, 1, 6], [0, 1, 6])) == ["job 2 enters at 6, expected 3"]


def test_a_dropped_job_makes_room_at_once() -> None:
    instance = soc(graph([[3, 5]]), job_graph=[0, 0], release=[0, 1], deadline=[4, INF], admission_cap=1)
    assert check(instance, plan([-1, 0], [0, 1], [0, 1])) == []
    assert check(instance, plan([-1, 0], [0, 3], [0, 3])) == ["job 1 enters at 3, expected 1"]


def test_noise_changes_how_long_tasks_take() -> None:
    # Factors 1 + 0.5 * 2 = 2 and max(1 - 0.5 * 4, 0.05) = 0.05.
    instance = soc(PAIR_GRAPH, noise_sigma=0.5, noise=[2, -4])
    schedule = plan([0, 0], [0, 6])
    assert task_end(instance, schedule) == pytest.approx([6, 6.1])
    assert check(instance, schedule) == []
    assert check(instance, plan([0, 0], [0, 3]))[0] == "b starts at 3, before the data of a arrive at 6"


def test_whole_units_round_transfers_down_and_durations_up_or_to_the_nearest() -> None:
    clock: dict[str, Any] = {"link": Link(latency_s=0.0, bandwidth_bytes_per_s=2.0), "whole_units": True}
    instance = soc(graph([[3, 4], [2, 5]], [(0, 1, 5)]), **clock)
    assert check(instance, plan([0, 1], [0, 5])) == []  # floor(2.5) = 2 after 3
    assert check(instance, plan([0, 1], [0, 4])) == ["b starts at 4, before the data of a arrive at 5"]
    slow = Device(
        name="cpu", power_states=(PowerState(name="full", power_w=2), PowerState(name="slow", power_w=1, speed=0.4))
    )
    states = soc(graph([[3], [0]]), devices=[slow], counts=(1,), **clock)
    assert task_end(states, plan([0, 0], [0, 8], point=[1, 1])).tolist() == [8, 8]  # ceil(3 / 0.4 = 7.5)
    # round(3 * 1.2) = 4; a draw that would make it negative leaves 1; nothing stays nothing.
    noisy = soc(graph([[3, 3], [3, 3], [0, 0]]), noise_sigma=0.1, noise=[2, -20, 5], **clock)
    assert task_end(noisy, plan([0, 0, 0], [0, 4, 5])).tolist() == [4, 5, 5]


def test_latency_of_several_jobs_counts_from_entry_to_the_last_task() -> None:
    instance = soc(PAIR_GRAPH, job_graph=[0, 0, 0], release=[0, 1, 2])
    schedule = plan([0, 0, 0, 0, 0, 0], [0, 3, 5, 8, 10, 13], [0, 1, 2])
    assert check(instance, schedule) == []
    assert job_latency(instance, schedule).tolist() == [5, 9, 13]
    values = objectives(instance, schedule)
    assert values == {"latency": 9.0, "makespan": 15.0, "p95_latency": pytest.approx(12.6)}  # 9 + 0.9 * (13 - 9)


def test_energy_counts_operating_points_and_idling_and_cost_counts_use() -> None:
    cpu = Device(
        name="cpu",
        power_states=(PowerState(name="full", power_w=10), PowerState(name="half", power_w=4, speed=0.5)),
        idle_power_w=1,
        price_usd_per_h=36,
    )
    gpu = Device(name="gpu", power_states=(PowerState(name="full", power_w=100),), idle_power_w=20, capacity=2)
    instance = soc(
        PAIR_GRAPH, devices=[cpu, gpu], link=Link(latency_s=1e-3, bandwidth_bytes_per_s=2e3), time_unit_s=1e-3
    )
    schedule = plan([0, 1], [0, 10], point=[1, 0])
    assert check(instance, schedule) == []
    # a runs 6 ms at 4 W, b 5 ms at 100 W until 15 ms; the cpu idles 9 ms at 1 W, the gpu's halves 10 and 15 at 10 W.
    values = objectives(instance, schedule)
    assert values["energy_j"] == pytest.approx((6 * 4 + 5 * 100 + 9 * 1 + 10 * 10 + 15 * 10) * 1e-3)
    assert values["cost_usd"] == pytest.approx(6e-3 * 36 / 3600)


def test_utility_is_lost_by_late_and_dropped_jobs_and_not_by_jobs_without_a_deadline() -> None:
    instance = soc(graph([[3, 3]]), job_graph=[0, 0, 0, 0], deadline=[3, 5, INF, 1], utility=[1, 2, 40, 5])
    schedule = plan([0, 0, 0, -1], [0, 3, 6, 0], [0, 0, 0, 0])
    assert check(instance, schedule) == []
    assert objectives(instance, schedule)["utility_lost"] == pytest.approx((2 + 5) / 8)
    # The dropped job counts as if it ended with the last one, at 9.
    assert job_latency(instance, schedule).tolist() == [3, 6, 9, 9]


def test_a_dropped_job_takes_at_least_its_deadline() -> None:
    instance = soc(graph([[3, 3]]), job_graph=[0, 0], deadline=[INF, 50])
    assert job_latency(instance, plan([0, -1], [0, 0], [0, 0])).tolist() == [3, 50]
    everything = soc(graph([[3, 3]]), deadline=[7])
    assert objectives(everything, plan([-1], [0])) == {"latency": 7.0, "makespan": 0.0, "utility_lost": 1.0}


def definition(instance: SocDagInstance, schedule: DagSchedule) -> bool:
    """Validity of a schedule of whole numbers as a textbook states it, pair by pair."""
    device, begin, transfer = schedule.device.tolist(), schedule.start.tolist(), schedule.transfer
    assert transfer is not None
    end = [s + float(instance.flat.duration[t, d]) for t, (s, d) in enumerate(zip(begin, device, strict=True))]
    moves: list[tuple[tuple[int, int], float, float]] = []
    for e, (source, target) in enumerate(instance.flat.edge.tolist()):
        size, apart = float(instance.flat.edge_bytes[e]), device[source] != device[target]
        contended = instance.communication == "contention" and apart and size
        leave = float(transfer[e]) if contended else end[source]
        arrive = leave + (1 + size / 2 if apart and size else 0)
        if leave < end[source] or begin[target] < arrive:
            return False
        if arrive > leave:
            moves.append(((device[source], device[target]), leave, arrive))
    if instance.communication == "contention":
        for (one, leave, arrive), (two, other, last) in itertools.combinations(moves, 2):
            if one == two and leave < last and other < arrive:
                return False
    return all(
        end[a] <= begin[b] or end[b] <= begin[a]
        for a, b in itertools.combinations(range(len(device)), 2)
        if device[a] == device[b]
    )


@given(data=st.data(), contention=st.booleans())
def test_checker_agrees_with_the_definition(data: st.DataObject, contention: bool) -> None:
    tasks = data.draw(st.integers(1, 4))
    numbers = st.integers(0, 3)
    cost = data.draw(st.lists(st.lists(numbers, min_size=2, max_size=2), min_size=tasks, max_size=tasks))
    pairs = [pair for pair in itertools.combinations(range(tasks), 2) if data.draw(st.booleans())]
    edges = [(*pair, 2 * data.draw(st.integers(0, 1))) for pair in pairs]
    instance = soc(graph(cost, edges), communication="contention" if contention else "delay")
    times = st.integers(0, 12)
    schedule = plan(
        data.draw(st.lists(st.integers(0, 1), min_size=tasks, max_size=tasks)),
        # Mostly rising, so that about half of the schedules are valid.
        data.draw(st.lists(times, min_size=tasks, max_size=tasks).map(sorted)),
        transfer=data.draw(st.lists(times, min_size=len(edges), max_size=len(edges))),
    )
    assert (check(instance, schedule) == []) == definition(instance, schedule)


def test_json_round_trip() -> None:
    for schedule in (OPTIMAL, plan([0, -1], [0.1 + 0.2, 1e-30], [0, 2.5], point=[1, 0], transfer=[7])):
        again = DagSchedule.from_json(schedule.to_json())
        assert again == schedule and hash(again) == hash(schedule)
    assert OPTIMAL != HEFT and OPTIMAL != "schedule"


GOOD = json.loads(plan([0], [0]).to_json())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"f\.json: not valid JSON"),
        ("[" * 100_000, r"f\.json: not valid JSON"),
        ("[]", r"f\.json: field schema: expected 'schedrl/socdag-schedule/1'"),
        (json.dumps(GOOD | {"schema": "schedrl/socdag-schedule/2"}), "field schema"),
        (json.dumps(GOOD | {"device": [0.5]}), "f.json: field device: expected a list of ints"),
        (json.dumps(GOOD | {"device": [True]}), "field device"),
        (json.dumps(GOOD | {"device": [2**32]}), "f.json: "),
        (json.dumps(GOOD | {"start": ["0"]}), "field start: expected a list of floats"),
        (json.dumps(GOOD | {"start": [float("nan")]}), r"field start\[0\]: not finite"),
        (json.dumps(GOOD | {"start": [10**400]}), "f.json: "),
        (json.dumps(GOOD | {"start": [0, 1]}), "field start: 2 values for 1 tasks"),
        (json.dumps({name: value for name, value in GOOD.items() if name != "entry"}), "field entry"),
    ],
)
def test_bad_json_is_one_line(text: str, message: str) -> None:
    with pytest.raises(SolutionError, match=message) as error:
        DagSchedule.from_json(text, source="f.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"device": np.zeros(1)},
        {"device": np.zeros((1, 1), dtype=int)},
        {"device": np.array([2**32])},
        {"start": np.array([INF])},
        {"start": np.array(["0"])},
        {"start": np.zeros(2)},
        {"point": np.zeros(2, dtype=int)},
        {"entry": np.array([float("nan")])},
        {"transfer": np.array([-INF])},
    ],
)
def test_construction_refuses_what_is_not_a_schedule(fields: dict[str, Any]) -> None:
    good: dict[str, Any] = {"device": np.zeros(1, dtype=int), "start": np.zeros(1), "entry": np.zeros(1)}
    with pytest.raises(SolutionError, match=f"field {next(iter(fields))}"):
        DagSchedule(**{**good, **fields})


def test_arrays_are_frozen_copies() -> None:
    source = np.array([0.0, 3.0])
    schedule = DagSchedule(device=np.array([0, 0]), start=source, entry=np.zeros(1))
    source[1] = 9
    assert schedule.start.tolist() == [0, 3]
    with pytest.raises(ValueError, match="read-only"):
        schedule.start[0] = 1


def test_size_mismatch_is_refused_by_name() -> None:
    for call in (objectives, task_end, job_latency, lambda i, s: s.to_csv(i)):
        with pytest.raises(SolutionError, match=re.escape("1") + ".* 2"):
            call(PAIR, plan([0], [0]))
    with pytest.raises(SolutionError, match="2 entry times for 1 jobs"):
        objectives(PAIR, plan([0, 0], [0, 3], [0, 0]))


def test_csv_lists_every_task() -> None:
    instance = soc(PAIR_GRAPH, job_graph=[0, 0], deadline=[INF, 9])
    lines = plan([0, 1, -1, -1], [0, 7, 0, 0], [0, 0]).to_csv(instance).splitlines()
    assert lines == ["task,device,point,start,end", "0.a,cpu,0,0.0,3.0", "0.b,gpu,0,7.0,12.0", "1.a,,,,", "1.b,,,,"]
