from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_dags import CANONICAL, HEFT, INF, PAIR, PAIR_GRAPH, graph, plan, soc
from strategies import instances

from schedrl.devices import Device, Link, PowerState
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.render import (
    MAX_ARROWS,
    gantt,
    gantt_chart,
    latency_distribution,
    task_kinds,
    utilisation,
    utilisation_panels,
)
from schedrl.envs.socdag.solution import DagSchedule, objectives
from schedrl.errors import ConfigError, SolutionError

# Two jobs of two tasks, in milliseconds; the second is released at 4 and waits for the first to leave at 12.
POWERED = (
    Device(name="cpu", power_states=(PowerState(name="full", power_w=10.0),), idle_power_w=1.0),
    Device(name="gpu", power_states=(PowerState(name="full", power_w=100.0),), idle_power_w=20.0),
)
STREAM = soc(
    PAIR_GRAPH,
    devices=POWERED,
    link=Link(latency_s=1e-3, bandwidth_bytes_per_s=2e3),
    job_graph=[0, 0],
    release=[0, 4],
    admission_cap=1,
    time_unit_s=1e-3,
)
STREAMED = plan([0, 1, 0, 0], [0, 7, 12, 15], [0, 12])


def test_the_worked_example_has_an_arrow_per_transfer_between_devices() -> None:
    chart = gantt_chart(CANONICAL, HEFT)
    assert chart.title == "soc: makespan 80" and chart.lanes == ("P1", "P2", "P3")
    assert chart.label == tuple("123456789X") and chart.lane.tolist() == HEFT.device.tolist()
    device = HEFT.device.tolist()
    apart = [(s, t) for s, t in CANONICAL.flat.edge.tolist() if device[s] != device[t]]
    assert [(arrow.source, arrow.target) for arrow in chart.arrows] == apart
    # Task 1 ends at 9; its 18 units for task 2 reach P1 at 27, when the task starts there.
    assert (chart.arrows[0].start, chart.arrows[0].end) == (9, 27)
    assert all(arrow.end <= HEFT.start[arrow.target] for arrow in chart.arrows)
    assert [(mark.time, mark.label) for mark in chart.marks] == [(80, "makespan 80")] and chart.events == ()


def test_jobs_have_colours_and_marks_where_they_enter() -> None:
    chart = gantt_chart(STREAM, STREAMED)
    assert chart.title == "soc: mean latency 8.5 of 2 jobs" and chart.time_label == "time, ms"
    assert chart.groups == ("job 0", "job 1") and chart.group.tolist() == [0, 0, 1, 1] and not chart.legend
    assert chart.label == ("0.a", "0.b", "1.a", "1.b")
    assert [(event.time, event.group) for event in chart.events] == [(0, 0), (12, 1)]
    assert chart.events[1].label == "job 1 enters at 12, released at 4"
    assert [(arrow.source, arrow.target, arrow.start, arrow.end) for arrow in chart.arrows] == [(0, 1, 3, 7)]


def test_dropped_jobs_have_no_bars_and_later_bars_keep_their_arrows() -> None:
    instance = soc(PAIR_GRAPH, job_graph=[0, 0], deadline=[9, INF])
    chart = gantt_chart(instance, plan([-1, -1, 0, 1], [0, 0, 0, 7], [0, 0]))
    assert chart.title.endswith("of 2 jobs, 1 dropped") and chart.events[0].label == "job 0 enters at 0, is dropped"
    assert chart.label == ("1.a", "1.b") and (chart.arrows[0].source, chart.arrows[0].target) == (0, 1)


def test_true_durations_operating_points_and_contended_transfers_are_drawn() -> None:
    slow = Device(name="cpu", power_states=(*POWERED[0].power_states, PowerState(name="slow", power_w=1, speed=0.5)))
    devices = [slow, Device(name="gpu")]
    instance = soc(PAIR_GRAPH, devices=devices, noise_sigma=0.5, noise=[2, 0], communication="contention")
    chart = gantt_chart(instance, plan([0, 1], [0, 17], point=[1, 0], transfer=[13]))
    assert chart.length.tolist() == [12, 5]  # 3 at half the speed, twice as long as expected
    assert (chart.arrows[0].start, chart.arrows[0].end) == (13, 17)


def test_too_many_arrows_are_left_out() -> None:
    for tasks, arrows in ((MAX_ARROWS, MAX_ARROWS), (MAX_ARROWS + 1, 0)):
        star = graph([[1, 1]] * (tasks + 1), [(0, t + 1, 2.0) for t in range(tasks)], names="x" * 999)
        schedule = plan([0] + [1] * tasks, [0, *range(3, tasks + 3)])
        assert len(gantt_chart(soc(star), schedule).arrows) == arrows


@pytest.mark.parametrize(
    ("names", "kinds", "expected"),
    [
        (("POTRF(0)", "TRSM(1,0)", "TRSM(2,0)", "GEMM(2,1,0)"), ("POTRF", "TRSM", "GEMM"), [0, 1, 1, 2]),
        (("fft_16", "inverse_fft_16", "fft-32", "fft"), ("fft", "inverse_fft"), [0, 1, 0, 0]),
        # One word, no word, and a word per task say nothing; then the level of the chain 0 -> 1 -> 3, 0 -> 2 counts.
        (("t0", "t1", "t2", "t3"), ("level 0", "level 1", "level 2"), [0, 1, 1, 2]),
        (("1", "2", "3", "4"), ("level 0", "level 1", "level 2"), [0, 1, 1, 2]),
        (("a", "b", "c", "d"), ("level 0", "level 1", "level 2"), [0, 1, 1, 2]),
    ],
)
def test_tasks_of_one_job_are_coloured_by_kernel_or_level(
    names: tuple[str, ...], kinds: tuple[str, ...], expected: list[int]
) -> None:
    shape = graph([[1, 1]] * 4, [(0, 1, 1), (1, 3, 1), (0, 2, 1)])
    named = type(shape)(
        name="named", task_names=names, duration=shape.duration, edge=shape.edge, edge_bytes=shape.edge_bytes
    )
    found, kind = task_kinds(soc(named))
    assert found == kinds and kind.tolist() == expected


def test_utilisation_adds_up_to_the_objectives() -> None:
    panels = utilisation_panels(STREAM, STREAMED).panels
    busy, power, energy = panels
    # The cpu runs in [0, 3) and [12, 17), the gpu in [7, 12).
    cpu, gpu = busy.lines
    assert cpu.x.tolist() == [0, 3, 7, 12, 15, 17]
    assert cpu.y == pytest.approx([1, 0, 0, 1, 1, 1]) and gpu.y == pytest.approx([0, 0, 1, 0, 0, 0])
    assert busy.title == "soc: 38.2 % of device time in use"  # 13 of 34
    # Idle cpu 1 W, idle gpu 20 W.
    assert power.lines[0].y == pytest.approx([10, 1, 1, 10, 10, 10])
    assert power.lines[1].y == pytest.approx([20, 20, 100, 20, 20, 20])
    assert energy.y_label == "energy, mJ"
    # (10 + 20) * 3, then 21 * 4, 101 * 5 and 30 * 5 mJ.
    assert energy.lines[0].y == pytest.approx([0, 90, 174, 679, 769, 829])
    assert objectives(STREAM, STREAMED)["energy_j"] == pytest.approx(0.829)


@given(instance=instances(jobs=3, capacity=True, deadlines=True), data=st.data())
def test_energy_drawn_ends_at_the_objective(instance: SocDagInstance, data: st.DataObject) -> None:
    # Of any schedule, also invalid ones: tasks at arbitrary times on devices that support them.
    assert instance.deadline is not None
    dropped = [np.isfinite(deadline) and data.draw(st.booleans()) for deadline in instance.deadline]
    device = [
        -1 if dropped[instance.flat.job[t]] else data.draw(st.sampled_from(np.flatnonzero(np.isfinite(row)).tolist()))
        for t, row in enumerate(instance.flat.duration)
    ]
    start = data.draw(st.lists(st.integers(0, 20), min_size=instance.tasks, max_size=instance.tasks))
    schedule = plan(device, start, instance.release_time.tolist())
    panels = utilisation_panels(instance, schedule).panels
    joules = objectives(instance, schedule).get("energy_j", 0.0)
    if len(panels) == 1:
        assert joules == 0.0
    else:
        factor = {"kJ": 1e3, "J": 1.0, "mJ": 1e-3, "µJ": 1e-6}[panels[2].y_label.removeprefix("energy, ")]
        assert panels[2].lines[0].y[-1] * factor == pytest.approx(joules)


def test_many_events_are_drawn_as_means_over_intervals() -> None:
    tasks = 1000
    instance = soc(graph([[1, 1]] * tasks, names="x" * tasks))
    panel = utilisation_panels(instance, plan([0] * tasks, list(range(0, 2 * tasks, 2)))).panels[0]
    assert len(panel.lines[0].x) == 401
    # On half of the time up to the makespan, 1999; the average over all intervals is the exact share.
    assert panel.lines[0].y[:-1].mean() == pytest.approx(1000 / 1999)


def test_a_schedule_of_no_time_is_drawn(tmp_path: Path) -> None:
    instance = soc(graph([[0, 0]]))
    for draw in (gantt, utilisation):
        draw(instance, plan([0], [0]), tmp_path / "zero.svg")
        ElementTree.parse(tmp_path / "zero.svg")


def test_the_distribution_has_a_curve_per_scheduler_and_needs_several_jobs(tmp_path: Path) -> None:
    path = tmp_path / "d.svg"
    later = plan([0, 1, 0, 0], [0, 7, 12, 17], [0, 12])
    latency_distribution(STREAM, {"heft": STREAMED, "late": later}, path)
    texts = [node.text for node in ElementTree.parse(path).iter() if node.tag.endswith("text")]
    assert {"heft: mean 8.5", "late: mean 9.5", "job latency, ms"} <= set(texts)
    latency_distribution(PAIR, {"heft": plan([0, 0], [0, 3])}, tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()
    with pytest.raises(SolutionError, match="short: 1 entry times for 2 jobs"):
        latency_distribution(STREAM, {"short": plan([0], [0])}, path)


def compare(instance: SocDagInstance, schedule: DagSchedule, path: Path) -> None:
    latency_distribution(instance, {"one": schedule}, path)


@pytest.mark.parametrize("draw", [gantt, utilisation, compare])
@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<svg"), (".png", b"\x89PNG"), (".html", b"<!doctype html>")])
def test_suffix_decides_the_format(tmp_path: Path, draw: Any, suffix: str, start: bytes) -> None:
    if suffix == ".png":
        pytest.importorskip("matplotlib")
    path = tmp_path / f"p{suffix}"
    draw(STREAM, STREAMED, path)
    assert path.read_bytes().startswith(start)
    if suffix == ".html":
        assert not re.search(r"https?://", path.read_text(encoding="utf-8"))
    with pytest.raises(ConfigError, match=r"suffix '.gif' is not a picture format"):
        draw(STREAM, STREAMED, tmp_path / "p.gif")


@pytest.mark.parametrize("draw", [gantt, utilisation])
def test_foreign_schedules_are_refused(tmp_path: Path, draw: Any) -> None:
    with pytest.raises(SolutionError, match="1 tasks, expected 4"):
        draw(STREAM, plan([0], [0]), tmp_path / "p.svg")
