"""Pictures of schedules: devices as lanes with the transfers between them, use and power over time, latencies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.solution import DagSchedule, job_latency, objectives, task_end
from schedrl.errors import SolutionError
from schedrl.plotting.axes import number
from schedrl.plotting.distribution import distribution_chart
from schedrl.plotting.gantt import Arrow, Event, GanttChart, Mark, save_gantt
from schedrl.plotting.lines import Line, LineChart, save_lines
from schedrl.plotting.panels import PanelChart, save_panels

__all__ = [
    "MAX_ARROWS",
    "gantt",
    "gantt_chart",
    "latency_distribution",
    "task_kinds",
    "utilisation",
    "utilisation_panels",
]

MAX_ARROWS = 200
"""with more transfers than this, arrows would hide what they connect"""
_MOST_KINDS = 14
_MOST_CELLS = 800  # of the time axis; with more events, each cell shows a mean
_NAMED_UNITS = {1.0: "s", 1e-3: "ms", 1e-6: "µs", 1e-9: "ns", 60.0: "min", 3600.0: "h"}


def gantt(instance: SocDagInstance, schedule: DagSchedule, path: Path) -> None:
    """Write a Gantt chart as ``.png`` (needs matplotlib), ``.svg`` or interactive ``.html``, by the suffix.

    Raises:
        SolutionError: the schedule has another number of tasks or jobs than the instance.
        ConfigError: another suffix.
    """
    save_gantt(gantt_chart(instance, schedule), path)


def gantt_chart(instance: SocDagInstance, schedule: DagSchedule) -> GanttChart:
    """Return the chart: a bar per task that runs, for its true duration, and an arrow per transfer that takes time.

    Several jobs have a colour each, and a mark where they enter; the tasks of a single job have the colour of their
    kind, see ``task_kinds``. Arrows run from when the data leave to when they arrive; there are none at all where
    they would be more than ``MAX_ARROWS``.

    Raises:
        SolutionError: the schedule has another number of tasks or jobs than the instance.
    """
    values = objectives(instance, schedule)
    end = task_end(instance, schedule)
    ran = np.flatnonzero(schedule.device >= 0).astype(np.int32)
    if instance.jobs > 1:
        groups, group = tuple(f"job {j}" for j in range(instance.jobs)), instance.flat.job
    else:
        groups, group = task_kinds(instance)
    return GanttChart(
        title=_title(instance, schedule, values),
        lanes=instance.device_names,
        groups=groups,
        lane=schedule.device[ran],
        start=schedule.start[ran],
        length=(end - schedule.start)[ran],
        group=group[ran],
        label=tuple(instance.task_label(t) for t in ran.tolist()),
        marks=(Mark(time=values["makespan"], label=f"makespan {number(values['makespan'])}"),),
        time_label=_time_label(instance),
        arrows=_arrows(instance, schedule, end, ran),
        events=_events(instance, schedule),
        legend=instance.jobs == 1 and 1 < len(groups) <= _MOST_KINDS,
    )


def utilisation(instance: SocDagInstance, schedule: DagSchedule, path: Path) -> None:
    """Write busy devices, power and energy over time as ``.png`` (needs matplotlib), ``.svg`` or ``.html``.

    Raises:
        SolutionError: the schedule has another number of tasks or jobs than the instance.
        ConfigError: another suffix.
    """
    save_panels(utilisation_panels(instance, schedule), path)


def utilisation_panels(instance: SocDagInstance, schedule: DagSchedule) -> PanelChart:
    """Return busy processing elements and power by device type, stacked, and the energy used so far.

    Idle power counts until the makespan, as in the objective ``energy_j``, which the last panel ends at. Without any
    power figure there is the first panel only. With more than 800 distinct times, values are means over intervals.

    Raises:
        SolutionError: the schedule has another number of tasks or jobs than the instance.
    """
    values = objectives(instance, schedule)
    edges = _cells(schedule, task_end(instance, schedule), values["makespan"])
    busy_s, energy_j = _running_totals(instance, schedule, edges)
    names = [kind.name for kind in instance.platform.devices]
    seconds = np.diff(edges) * instance.time_unit_s
    x_label = _time_label(instance)

    def panel(title: str, y_label: str, totals: F64, top: float | None) -> LineChart:
        mean = np.maximum(np.diff(totals) / seconds, 0.0)
        lines = (Line(label=name, x=edges, y=np.append(row, row[-1])) for name, row in zip(names, mean, strict=True))
        highest = top or float(mean.sum(axis=0).max()) * 1.05
        return LineChart(
            title=title,
            x_label=x_label,
            y_label=y_label,
            lines=tuple(lines),
            stepped=True,
            stacked=True,
            y_range=(0.0, highest),
        )

    share = busy_s[:, -1].sum() / (instance.devices * edges[-1] * instance.time_unit_s)
    title = f"{instance.name}: {100 * share:.3g} % of device time in use"
    panels = [panel(title, "busy devices", busy_s, float(instance.devices))]
    if energy_j.any():
        total = energy_j.sum(axis=0)
        factor, unit = _energy_unit(float(total[-1]))
        line = Line(label=f"total {number(float(f'{total[-1] * factor:.4g}'))} {unit}", x=edges, y=total * factor)
        panels.append(panel("Power", "power, W", energy_j, None))
        panels.append(LineChart(title="Energy used so far", x_label=x_label, y_label=f"energy, {unit}", lines=(line,)))
    return PanelChart(title=title, panels=tuple(panels))


def latency_distribution(instance: SocDagInstance, schedules: Mapping[str, DagSchedule], path: Path) -> None:
    """Write the distribution of job latencies as ``.png`` (needs matplotlib), ``.svg`` or ``.html``.

    Args:
        instance: The instance that all schedules answer; of a single job there is no distribution, nothing is written.
        schedules: Legend text to schedule, one curve each.
        path: Where to; the suffix decides the format.

    Raises:
        SolutionError: a schedule has another number of tasks or jobs than the instance.
        ConfigError: no schedule, or another suffix.
    """
    if instance.jobs == 1:
        return
    latencies = {}
    for label, schedule in schedules.items():
        if len(schedule.entry) != instance.jobs:
            raise SolutionError(f"{label}: {len(schedule.entry)} entry times for {instance.jobs} jobs")
        latency = job_latency(instance, schedule)
        latencies[f"{label}: mean {latency.mean():.4g}"] = latency
    chart = distribution_chart(
        latencies,
        title=f"{instance.name}: job latencies",
        x_label=_time_label(instance, "job latency"),
        y_label="share of jobs within the latency",
    )
    save_lines(chart, path)


def task_kinds(instance: SocDagInstance) -> tuple[tuple[str, ...], I32]:
    """Return names of kinds, and (N,) the kind of each task.

    The kind is the word that task names begin with, such as the kernel of ``GEMM(2,1,0)``, if there are from 2 to 14
    such words and fewer than tasks. Else it is the level: the most edges on a path to the task.
    """
    words = []
    for graph in (instance.graphs[k] for k in instance.job_graph):
        words += [_leading_word(name) for name in graph.task_names]
    known = tuple(dict.fromkeys(words))
    if 2 <= len(known) <= min(_MOST_KINDS, instance.tasks - 1) and "" not in known:
        return known, np.array([known.index(word) for word in words], dtype=np.int32)
    level = np.zeros(instance.tasks, dtype=np.int32)
    flat = instance.flat
    for t in flat.order.tolist():
        incoming = flat.predecessor_edge[flat.predecessor_offset[t] : flat.predecessor_offset[t + 1]]
        level[t] = 1 + level[flat.edge[incoming, 0]].max(initial=-1)
    return tuple(f"level {k}" for k in range(int(level.max()) + 1)), level


def _leading_word(name: str) -> str:
    """Return the letters that a name begins with, with ``_`` and ``-`` inside them."""
    match = re.match(r"[^\W\d_]+(?:[-_][^\W\d_]+)*", name)
    return match.group() if match else ""


def _title(instance: SocDagInstance, schedule: DagSchedule, values: Mapping[str, float]) -> str:
    if instance.jobs == 1:
        return f"{instance.name}: makespan {number(values['makespan'])}"
    dropped = int((schedule.device[instance.job_offset[:-1]] < 0).sum())
    title = f"{instance.name}: mean latency {number(values['latency'])} of {instance.jobs} jobs"
    return title + (f", {dropped} dropped" if dropped else "")


def _time_label(instance: SocDagInstance, what: str = "time") -> str:
    unit = _NAMED_UNITS.get(instance.time_unit_s)
    return f"{what}, {unit}" if unit else f"{what}, units of {instance.time_unit_s:g} s"


def _events(instance: SocDagInstance, schedule: DagSchedule) -> tuple[Event, ...]:
    """Return a mark per job that does not enter at 0 among several, or the entry of a job released later."""
    if instance.jobs == 1 and schedule.entry[0] == 0:
        return ()
    marks = []
    for j, (entry, release) in enumerate(zip(schedule.entry.tolist(), instance.release_time.tolist(), strict=True)):
        waited = f", released at {number(release)}" if release != entry else ""
        dropped = ", is dropped" if schedule.device[instance.job_offset[j]] < 0 else ""
        colour_of = j if instance.jobs > 1 else 0
        marks.append(Event(time=entry, group=colour_of, label=f"job {j} enters at {number(entry)}{waited}{dropped}"))
    return tuple(marks)


def _arrows(instance: SocDagInstance, schedule: DagSchedule, end: F64, ran: I32) -> tuple[Arrow, ...]:
    """Return an arrow per transfer between devices that takes time; none if they are too many."""
    bar = np.full(instance.tasks, -1)
    bar[ran] = np.arange(len(ran))
    source, target = instance.flat.edge[:, 0], instance.flat.edge[:, 1]
    p, q = schedule.device[source], schedule.device[target]
    moves = (p >= 0) & (q >= 0) & (p != q) & (instance.flat.edge_bytes > 0)
    edge = np.flatnonzero(moves)
    # Fancy indexing by negative numbers is harmless here: only edges between tasks that run are left.
    hops = instance.links[:, p[edge], q[edge]]
    size = instance.flat.edge_bytes[edge]
    first, second = hops[0] + size * hops[1], hops[2] + size * hops[3]
    if instance.whole_units:
        first, second = np.floor(first + 1e-9), np.floor(second + 1e-9)
    takes = first + second
    if not 0 < np.count_nonzero(takes > 0) <= MAX_ARROWS:
        return ()
    assert schedule.transfer is not None
    leave = schedule.transfer[edge] if instance.communication == "contention" else end[source[edge]]
    return tuple(
        Arrow(source=int(bar[source[e]]), target=int(bar[target[e]]), start=float(begin), end=float(begin + time))
        for e, begin, time in zip(edge.tolist(), leave, takes, strict=True)
        if time > 0
    )


def _cells(schedule: DagSchedule, end: F64, makespan: float) -> F64:
    """Return times from 0 to the makespan between which nothing changes, or evenly spaced ones if those are many."""
    if not makespan > 0:
        return np.array([0.0, 1.0])
    ran = schedule.device >= 0
    times = np.unique(np.concatenate([[0.0], schedule.start[ran], end[ran]]))
    # Times apart by rounding only would make cells too short to divide by.
    least = 1e-6 * makespan
    times = times[np.concatenate([[True], np.diff(times) > least])]
    if len(times) < 2 or len(times) > _MOST_CELLS:
        return np.linspace(0.0, makespan, _MOST_CELLS // 2 + 1)
    cells: F64 = times[times < makespan - least]
    return np.append(cells, makespan)


def _running_totals(instance: SocDagInstance, schedule: DagSchedule, edges: F64) -> tuple[F64, F64]:
    """Return seconds in use and joules, each (types, T), from time 0 to each of the T edges."""
    end = task_end(instance, schedule)
    makespan = float(end[schedule.device >= 0].max(initial=0.0))
    types = len(instance.platform.devices)
    lanes = np.bincount(instance.device_type, minlength=types)
    power = instance.operating_points[1]
    busy_s, energy_j = np.zeros((types, len(edges))), np.zeros((types, len(edges)))
    assert schedule.point is not None
    for kind, device in enumerate(instance.platform.devices):
        tasks = np.flatnonzero((schedule.device >= 0) & (instance.device_type[schedule.device] == kind))
        watts = power[schedule.device[tasks], schedule.point[tasks]]
        idle_w = device.idle_power_w / device.capacity
        start, stop = schedule.start[tasks], end[tasks]
        busy_s[kind] = _integral(start, stop, np.ones(len(tasks)), edges) * instance.time_unit_s
        extra_j = _integral(start, stop, watts - idle_w, edges) * instance.time_unit_s
        energy_j[kind] = extra_j + idle_w * lanes[kind] * np.minimum(edges, makespan) * instance.time_unit_s
    return busy_s, energy_j


def _integral(start: F64, stop: F64, weight: F64, edges: F64) -> F64:
    """Return the integral up to each edge of a sum of pulses, each of a weight from its start to its stop."""
    total = np.zeros(len(edges))
    for times, sign in ((start, 1.0), (stop, -1.0)):
        order = np.argsort(times, kind="stable")
        passed = np.searchsorted(times[order], edges, side="right")
        weights = np.concatenate([[0.0], np.cumsum(weight[order])])
        moments = np.concatenate([[0.0], np.cumsum(weight[order] * times[order])])
        total += sign * (weights[passed] * edges - moments[passed])
    return total


def _energy_unit(joules: float) -> tuple[float, str]:
    for factor, unit in ((1e-3, "kJ"), (1.0, "J"), (1e3, "mJ")):
        if joules * factor >= 1.0:
            return factor, unit
    return 1e6, "µJ"
