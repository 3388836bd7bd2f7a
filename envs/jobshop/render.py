"""The picture of a job-shop schedule: machines as lanes, jobs as colours, the makespan as a line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule
from schedrl.errors import SolutionError
from schedrl.plotting.axes import number
from schedrl.plotting.gantt import GanttChart, Mark, save_gantt

__all__ = ["gantt", "gantt_chart"]


def gantt(instance: JobShopInstance, schedule: Schedule, path: Path) -> None:
    """Write a Gantt chart as ``.png`` (needs matplotlib), ``.svg`` or interactive ``.html``, by the suffix.

    Raises:
        SolutionError: the schedule has another number of operations than the instance.
        ConfigError: another suffix.
    """
    save_gantt(gantt_chart(instance, schedule), path)


def gantt_chart(instance: JobShopInstance, schedule: Schedule) -> GanttChart:
    """Return the chart: one bar per operation, labelled ``job.position``, both counted from 0.

    Raises:
        SolutionError: the schedule has another number of operations than the instance.
    """
    if len(schedule.start_time) != instance.operations:
        raise SolutionError(
            f"{instance.name}: field start_time: {len(schedule.start_time)} values, expected {instance.operations}"
        )
    makespan = float((schedule.start_time + instance.duration).max())
    position = np.arange(instance.operations) - instance.job_offset[instance.job]
    return GanttChart(
        title=f"{instance.name}: makespan {number(makespan)}",
        lanes=tuple(f"M{k}" for k in range(instance.machines)),
        groups=tuple(f"job {j}" for j in range(instance.jobs)),
        lane=instance.machine,
        start=schedule.start_time.astype(np.float64),
        length=instance.duration.astype(np.float64),
        group=instance.job,
        label=tuple(f"{j}.{k}" for j, k in zip(instance.job.tolist(), position.tolist(), strict=True)),
        marks=(Mark(time=makespan, label=f"makespan {number(makespan)}"),),
    )
