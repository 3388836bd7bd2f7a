"""The picture of a shop schedule: machines as lanes, jobs as colours, and what keeps machines from working."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from schedrl.arrays import I64
from schedrl.envs.jobshop.shop import NO_DUE_DATE, ShopInstance
from schedrl.envs.jobshop.shop_schedule import (
    ShopSchedule,
    chosen_modes,
    completion_times,
    departure_times,
    machine_sequences,
    objectives,
)
from schedrl.plotting.axes import number
from schedrl.plotting.files import save_picture
from schedrl.plotting.gantt import Event, GanttChart, Mark, gantt_figure, gantt_script, gantt_svg
from schedrl.plotting.palette import colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["shop_gantt", "shop_gantt_chart", "shop_gantt_figure", "shop_gantt_svg"]

_OUTAGE, _SETUP, _LATE = "#777777", "#C4C4C4", "#C00000"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shade:
    """A stretch of a lane beside the operations; of a job if it has its colour."""

    kind: str  # blocked, outage, setup or late
    lane: int
    start: float
    end: float
    label: str
    job: int = -1

    @property
    def colour(self) -> str:
        return {"outage": _OUTAGE, "setup": _SETUP, "late": _LATE}.get(self.kind) or colour(self.job)


def shop_gantt(instance: ShopInstance, schedule: ShopSchedule, path: Path) -> None:
    """Write a Gantt chart as ``.png`` (needs matplotlib), ``.svg`` or interactive ``.html``, by the suffix.

    Bars are operations. Hatched: a finished job that blocks its machine. Dark grey: outages; light grey: setups, right
    before the operation that needs them. A red line under a job's last operation is the part of it that is late; the
    due date is a triangle below the lanes in the job's colour.

    Raises:
        SolutionError: the schedule is of another size, or chooses a mode that does not exist.
        ConfigError: another suffix.
    """
    chart = shop_gantt_chart(instance, schedule)
    save_picture(
        path,
        title=chart.title,
        svg=lambda: shop_gantt_svg(instance, schedule),
        figure=lambda: shop_gantt_figure(instance, schedule),
        script=gantt_script() if path.suffix == ".html" else "",
    )


def shop_gantt_chart(instance: ShopInstance, schedule: ShopSchedule) -> GanttChart:
    """Return the chart of the operations, labelled ``job.position`` from 0, and of due dates that late jobs miss.

    Raises:
        SolutionError: the schedule is of another size, or chooses a mode that does not exist.
    """
    values = objectives(instance, schedule)
    completion = completion_times(instance, schedule)
    position = np.arange(instance.operations) - instance.job_offset[instance.job]
    title = f"{instance.name}: makespan {number(values['makespan'])}"
    if instance.objective != "makespan":
        title += f", {instance.objective.replace('_', ' ')} {number(values[instance.objective])}"
    return GanttChart(
        title=title,
        lanes=tuple(f"M{m}" for m in range(instance.machines)),
        groups=tuple(f"job {j}" for j in range(instance.jobs)),
        lane=instance.machine[chosen_modes(instance, schedule)],
        start=schedule.start_time.astype(np.float64),
        length=(completion - schedule.start_time).astype(np.float64),
        group=instance.job,
        label=tuple(f"{j}.{k}" for j, k in zip(instance.job.tolist(), position.tolist(), strict=True)),
        marks=(Mark(time=values["makespan"], label=f"makespan {number(values['makespan'])}"),),
        events=tuple(
            Event(
                time=float(instance.due[j]),
                group=j,
                label=f"job {j} due {instance.due[j]}, late by {completion[i] - instance.due[j]}",
            )
            for j, i in _late(instance, completion)
        ),
    )


def shop_gantt_svg(instance: ShopInstance, schedule: ShopSchedule) -> str:
    """Return the chart as SVG text, readable without scripts; ``gantt_script`` makes it zoom.

    Raises:
        SolutionError: the schedule is of another size, or chooses a mode that does not exist.
    """
    chart = shop_gantt_chart(instance, schedule)
    svg = gantt_svg(chart)
    low, high = chart.span
    _, _, plot = svg.partition('<svg class="plot" ')
    size = {part.split("=")[0]: float(part.split('"')[1]) for part in plot.split(" overflow")[0].split()}
    scale, row = size["width"] / ((high - low) or 1.0), size["height"] / len(chart.lanes)
    shades = list(_shades(instance, schedule))
    # Among the bars the script zooms them, and after the operations they are drawn over what an outage interrupts.
    end = svg.index("</g>", svg.index('<g class="bars"'))
    first = svg.index(">", svg.index("<svg")) + 1
    drawn = "".join(_rectangle(shade, low, scale, row) for shade in shades)
    return svg[:first] + _patterns(shades) + svg[first:end] + drawn + svg[end:]


def shop_gantt_figure(instance: ShopInstance, schedule: ShopSchedule) -> Figure:
    """Return the chart as a matplotlib figure.

    Raises:
        SolutionError: the schedule is of another size, or chooses a mode that does not exist.
    """
    figure = gantt_figure(shop_gantt_chart(instance, schedule))
    axes = figure.axes[0]
    for shade in _shades(instance, schedule):
        blocked, late = shade.kind == "blocked", shade.kind == "late"
        axes.barh(
            shade.lane + (0.38 if late else 0.0),
            shade.end - shade.start,
            left=shade.start,
            height=0.1 if late else 0.86,
            color="white" if blocked else shade.colour,
            hatch="/////" if blocked else None,
            edgecolor=shade.colour if blocked else "white",
            linewidth=0.4,
        )
    return figure


def _shades(instance: ShopInstance, schedule: ShopSchedule) -> Iterator[_Shade]:
    lane = instance.machine[chosen_modes(instance, schedule)]
    completion, departure = completion_times(instance, schedule), departure_times(instance, schedule)
    for i in np.flatnonzero(departure > completion).tolist():
        j = int(instance.job[i])
        label = f"job {j} blocks"
        yield _Shade(kind="blocked", lane=lane[i], start=completion[i], end=departure[i], label=label, job=j)
    yield from _setups(instance, schedule, departure)
    makespan = int(completion.max())
    for m in range(instance.machines):
        for k in range(instance.outage_offset[m], instance.outage_offset[m + 1]):
            start, end = int(instance.outage_start[k]), min(int(instance.outage_end[k]), makespan)
            if start < end:
                yield _Shade(kind="outage", lane=m, start=start, end=end, label="outage")
    for j, i in _late(instance, completion):
        start = max(int(instance.due[j]), int(schedule.start_time[i]))
        label = f"job {j} late by {completion[i] - instance.due[j]}"
        yield _Shade(kind="late", lane=lane[i], start=start, end=completion[i], label=label, job=j)


def _setups(instance: ShopInstance, schedule: ShopSchedule, departure: I64) -> Iterator[_Shade]:
    family = instance.setup_family.tolist()
    for m, sequence in enumerate(machine_sequences(instance, schedule)):
        for before, after in zip(sequence[:-1].tolist(), sequence[1:].tolist(), strict=True):
            length = int(instance.setup[m, family[before], family[after]])
            end = int(schedule.start_time[after])
            start = max(end - length, int(departure[before]))
            if start < end and length:
                label = f"setup from family {family[before]} to {family[after]}"
                yield _Shade(kind="setup", lane=m, start=start, end=end, label=label)


def _late(instance: ShopInstance, completion: I64) -> Iterator[tuple[int, int]]:
    """Yield each late job and its last operation."""
    last = instance.job_offset[1:] - 1
    for j in np.flatnonzero((instance.due < NO_DUE_DATE) & (completion[last] > instance.due)).tolist():
        yield j, int(last[j])


def _patterns(shades: list[_Shade]) -> str:
    jobs = sorted({shade.job for shade in shades if shade.kind == "blocked"})
    return "".join(
        f'<pattern id="blocked-{job}" width="6" height="6" patternUnits="userSpaceOnUse" '
        f'patternTransform="rotate(45)"><rect width="6" height="6" fill="#fff"/>'
        f'<rect width="3" height="6" fill="{colour(job)}"/></pattern>'
        for job in jobs
    )


def _rectangle(shade: _Shade, low: float, scale: float, row: float) -> str:
    fill = f"url(#blocked-{shade.job})" if shade.kind == "blocked" else shade.colour
    top, height = (row - 4, 3.0) if shade.kind == "late" else (1.0, row - 2)
    return (
        f'<rect class="{shade.kind}" x="{(shade.start - low) * scale:.2f}" y="{shade.lane * row + top:g}" '
        f'width="{max((shade.end - shade.start) * scale, 0.6):.2f}" height="{height:g}" fill="{fill}" '
        f'data-g="{shade.job}" data-l=""><title>{escape(shade.label)} · M{shade.lane} · '
        f"{number(shade.start)} to {number(shade.end)} ({number(shade.end - shade.start)})</title></rect>"
    )
