"""List-scheduling heuristics, each by its paper's definition, with fixed tie rules.

All of them plan with expected durations and know a job only once it has entered: job after job is planned completely
at its entry, into what earlier jobs left. Under noise the plan is executed as it stands: the same devices, the same
sequence on each. Ties go to the lowest device, and between tasks to the first in breadth-first topological order
(``sequence_by``). Where a method does not name insertion, a task goes behind all tasks of its device.

What follows from these rules on Topcuoglu's ten tasks: HEFT 80, CPOP 86, PEFT 85, look-ahead 76, DLS 91, Min-Min 76,
Max-Min 97, Sufferage 76, MCT 80, MET 82, OLB 99, ETF by start 99, fastest device 127. Two of these hang on choices:
OLB takes the device on which the task can start first, not the one that is idle first, and ETF gives equal starts to
the higher static level, then to the smaller finish. MCT needs the breadth-first order; by task number it gives 88.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.baselines.socdag import selection
from schedrl.baselines.socdag.list_scheduling import Plan, State, follow, new_plan, new_state
from schedrl.baselines.socdag.outcomes import outcome
from schedrl.baselines.socdag.ranks import (
    best_imaginary_level,
    median_duration,
    of_tasks,
    optimistic_cost_table,
    sequence_by,
    static_level,
    upward_rank,
)
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.solution import DagSchedule
from schedrl.envs.socdag.tables import build_tables
from schedrl.errors import UnknownNameError
from schedrl.schedulers import Result, SchedulerSpec

__all__ = ["HEURISTICS", "SCHEDULERS", "Heuristic", "ListScheduler", "best_heuristic_schedule", "plan"]

_STRONGEST = ("heft", "peft", "cpop", "min-min", "dls", "lookahead")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heuristic:
    """A list-scheduling method: how it fills a plan, what it does in words, and its paper."""

    name: str
    run: Callable[[SocDagInstance], State]
    meaning: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListScheduler:
    """Plan by one heuristic and execute the plan."""

    heuristic: str

    def schedule(self, instance: SocDagInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the heuristic's schedule; its one pass always runs to its end, whatever the limit."""
        started = time.perf_counter()
        schedule = follow(instance, plan(instance, self.heuristic))
        return outcome(instance, schedule, started=started, decisions=instance.tasks)


def plan(instance: SocDagInstance, name: str) -> Plan:
    """Return a heuristic's plan under expected durations; ``follow`` executes it.

    Raises:
        UnknownNameError: no heuristic of that name, which is the scheduler's without ``socdag/``.
    """
    if name == "duplex":
        return min(plan(instance, "min-min"), plan(instance, "max-min"), key=lambda plan: plan.latency)
    if name not in HEURISTICS:
        raise UnknownNameError(f"unknown heuristic {name!r}; choose from {', '.join((*HEURISTICS, 'duplex'))}")
    return new_plan(instance, HEURISTICS[name].run(instance))


def best_heuristic_schedule(instance: SocDagInstance, deadline: float = math.inf) -> DagSchedule:
    """Return the schedule of the strongest heuristics whose plan has the least mean latency.

    The choice looks at the plans only, because true durations are hidden until tasks end. Past ``deadline``, a
    ``time.perf_counter`` reading, no further heuristic begins; the first, HEFT, always runs.
    """
    best = plan(instance, _STRONGEST[0])
    for name in _STRONGEST[1:]:
        if time.perf_counter() >= deadline:
            break
        best = min(best, plan(instance, name), key=lambda plan: plan.latency)
    return follow(instance, best)


def _by_sequence(
    instance: SocDagInstance,
    priority: F64,
    *,
    insertion: bool = False,
    bias: F64 | None = None,
    pinned: I32 | None = None,
    rule: int = selection.BY_FINISH,
) -> State:
    state = new_state(instance, insertion=insertion)
    free = np.full(instance.tasks, -1, np.int32)
    no_bias = np.zeros((instance.tasks, instance.devices))
    selection.by_sequence(
        state,
        sequence_by(instance, priority),
        no_bias if bias is None else np.ascontiguousarray(bias),
        free if pinned is None else pinned,
        rule,
    )
    return state


def _by_pair(instance: SocDagInstance, rule: int, priority: F64 | None = None, level: F64 | None = None) -> State:
    state = new_state(instance, insertion=False)
    tasks, devices = instance.tasks, instance.devices
    selection.by_pair(
        state,
        sequence_by(instance, np.zeros(tasks) if priority is None else priority),
        np.zeros((tasks, devices)) if level is None else np.ascontiguousarray(level),
        rule,
        np.zeros(devices),
        np.zeros(tasks, np.int32),
        np.zeros(tasks),
    )
    return state


def _heft(instance: SocDagInstance, *, insertion: bool = True) -> State:
    return _by_sequence(instance, upward_rank(instance), insertion=insertion)


def _cpop(instance: SocDagInstance) -> State:
    tables = build_tables(instance)
    priority = tables.upward_rank + tables.downward_rank
    device = np.full(len(priority), -1, np.int32)
    for graph, first in zip(instance.graphs, tables.graph_offset, strict=False):
        rows = slice(int(first), int(first) + graph.tasks)
        path = np.array(_critical_path(graph.successors, priority[rows])) + first
        device[path] = _common_device(tables.duration[path])
        device[path[~np.isfinite(tables.duration[path, device[path]])]] = -1
    return _by_sequence(instance, of_tasks(instance, priority), insertion=True, pinned=of_tasks(instance, device))


def _critical_path(successors: Any, priority: F64) -> list[int]:
    """Return a template's tasks along the largest priority, from an entry task to an exit."""
    entries = np.setdiff1d(np.arange(len(priority)), successors.task)
    path = [int(entries[np.argmax(_coarse(priority)[entries])])]
    while (following := successors.task[successors.offset[path[-1]] : successors.offset[path[-1] + 1]]).size:
        path.append(int(following[np.argmax(_coarse(priority)[following])]))
    return path


def _coarse(priority: F64) -> F64:
    """Return priorities rounded to a billionth of the largest: sums of rounded numbers that ought to be equal are."""
    quantum = max(float(priority.max()), np.finfo(float).tiny) * 1e-9
    rounded: F64 = np.round(priority / quantum)
    return rounded


def _common_device(duration: F64) -> int:
    """Return the device that supports most of some tasks (T, D), and of those the one with the least total duration."""
    supported = np.isfinite(duration)
    total = np.where(supported, duration, 0.0).sum(axis=0)
    return int(np.lexsort((total, -supported.sum(axis=0)))[0])


def _peft(instance: SocDagInstance) -> State:
    table = optimistic_cost_table(instance)
    supported = np.isfinite(instance.flat.duration)
    rank = np.where(supported, table, 0.0).sum(axis=1) / supported.sum(axis=1)
    return _by_sequence(instance, rank, insertion=True, bias=table)


def _lookahead(instance: SocDagInstance) -> State:
    state = new_state(instance, insertion=True)
    devices = instance.devices
    selection.with_lookahead(
        state,
        sequence_by(instance, upward_rank(instance)),
        np.zeros(instance.tasks, np.int32),
        np.zeros((devices, devices)),
    )
    return state


def _dls(instance: SocDagInstance) -> State:
    level = static_level(instance)
    suits = (level + median_duration(instance))[:, None] - instance.flat.duration
    return _by_pair(instance, selection.DYNAMIC_LEVEL, level=suits)


def _met(instance: SocDagInstance) -> State:
    quickest = instance.flat.duration.argmin(axis=1).astype(np.int32)
    return _by_sequence(instance, np.zeros(instance.tasks), pinned=quickest)


def _fastest(instance: SocDagInstance) -> State:
    tables = build_tables(instance)
    device = np.empty(len(tables.duration), np.int32)
    for graph, first in zip(instance.graphs, tables.graph_offset, strict=False):
        rows = slice(int(first), int(first) + graph.tasks)
        device[rows] = _common_device(tables.duration[rows])
    unsupported = ~np.isfinite(tables.duration[np.arange(len(device)), device])
    device[unsupported] = tables.duration[unsupported].argmin(axis=1)
    return _by_sequence(instance, np.zeros(instance.tasks), pinned=of_tasks(instance, device))


def _edp(instance: SocDagInstance, *, relative: bool) -> State:
    state = new_state(instance, insertion=True)
    templates = np.concatenate([graph.duration for graph in instance.graphs])[:, instance.device_type]
    full_speed = np.ascontiguousarray(of_tasks(instance, templates))
    speed, power, points = instance.operating_points
    # Without power figures every watt counts alike, which leaves the product of delays.
    power = power if power.any() else np.ones_like(power)
    position = sequence_by(instance, upward_rank(instance))
    selection.by_energy_delay(state, position, full_speed, speed, power, points, relative)
    return state


_BRAUN = "Braun et al. 2001, applied to the ready tasks"
_METHODS = (
    Heuristic(
        name="heft",
        run=_heft,
        meaning="highest upward rank first, earliest finish with insertion",
        source="Topcuoglu, Hariri and Wu 2002",
    ),
    Heuristic(
        name="heft-append",
        run=partial(_heft, insertion=False),
        meaning="HEFT without insertion into gaps",
        source="Topcuoglu, Hariri and Wu 2002",
    ),
    Heuristic(
        name="cpop",
        run=_cpop,
        meaning="the critical path on one device, the rest by earliest finish with insertion",
        source="Topcuoglu, Hariri and Wu 2002",
    ),
    Heuristic(
        name="peft",
        run=_peft,
        meaning="HEFT with the optimistic cost table as rank and in the choice of device",
        source="Arabnejad and Barbosa 2014",
    ),
    Heuristic(
        name="lookahead",
        run=_lookahead,
        meaning="HEFT that picks the device on which the last of the task's children can finish first",
        source="Bittencourt, Sakellariou and Madeira 2010",
    ),
    Heuristic(
        name="dls",
        run=_dls,
        meaning="the ready pair of task and device with the largest dynamic level",
        source="Sih and Lee 1993",
    ),
    Heuristic(
        name="etf-start",
        run=lambda i: _by_pair(i, selection.EARLIEST_START, static_level(i)),
        meaning="the ready pair that can start first, ties to the higher static level, then the smaller finish",
        source="Hwang et al. 1989",
    ),
    Heuristic(
        name="etf-finish",
        run=lambda i: _by_pair(i, selection.SMALLEST_FINISH, static_level(i)),
        meaning="the ready pair that can finish first, ties to the higher static level",
        source="Arda et al. 2020 (DS3)",
    ),
    Heuristic(
        name="mct",
        run=lambda i: _by_sequence(i, np.zeros(i.tasks)),
        meaning="tasks breadth first, each where it finishes first",
        source=_BRAUN,
    ),
    Heuristic(
        name="met",
        run=_met,
        meaning="tasks breadth first, each on the device with the least duration",
        source=_BRAUN,
    ),
    Heuristic(
        name="olb",
        run=lambda i: _by_sequence(i, np.zeros(i.tasks), rule=selection.BY_START),
        meaning="tasks breadth first, each where it can start first",
        source=_BRAUN,
    ),
    Heuristic(
        name="min-min",
        run=lambda i: _by_pair(i, selection.SMALLEST_FINISH),
        meaning="of the ready tasks the one with the smallest earliest finish",
        source=_BRAUN,
    ),
    Heuristic(
        name="max-min",
        run=lambda i: _by_pair(i, selection.LARGEST_FINISH),
        meaning="of the ready tasks the one with the largest earliest finish",
        source=_BRAUN,
    ),
    Heuristic(
        name="sufferage",
        run=lambda i: _by_pair(i, selection.LARGEST_SUFFERAGE),
        meaning="of the ready tasks the one that loses most on its second-best device, without limit if it has none",
        source="Maheswaran et al. 1999, applied to the ready tasks",
    ),
    Heuristic(
        name="fastest",
        run=_fastest,
        meaning="a job's tasks on the one device with the least total duration, tasks it cannot run on their fastest",
        source="baseline",
    ),
    Heuristic(
        name="bil",
        run=lambda i: _by_pair(i, selection.IMAGINARY_MAKESPAN, level=best_imaginary_level(i)),
        meaning="best imaginary makespan: with k ready tasks, the one with the largest k-th smallest goes first",
        source="Oh and Ha 1996",
    ),
    Heuristic(
        name="edp-heft",
        run=partial(_edp, relative=False),
        meaning="HEFT that minimises power times squared duration over devices and operating points",
        source="Mack et al. 2022",
    ),
    Heuristic(
        name="edp-heft-relative",
        run=partial(_edp, relative=True),
        meaning="HEFT that minimises power times squared time since the task's earliest start anywhere",
        source="Mack et al. 2022",
    ),
)
HEURISTICS: Mapping[str, Heuristic] = MappingProxyType({method.name: method for method in _METHODS})
"""by name; ``plan`` also knows ``duplex``, the better of two of them"""


def _spec(name: str, meaning: str, source: str) -> SchedulerSpec:
    build: Any = ListScheduler  # takes instances of this family only, the contract any
    return SchedulerSpec(
        name=f"socdag/{name}",
        make=partial(build, heuristic=name),
        # Each job is planned when it enters, from expected durations: nothing looks ahead.
        information="online",
        summary=f"{meaning}; plans each job at its entry and executes the plan",
        source=source,
    )


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    *(_spec(method.name, method.meaning, method.source) for method in _METHODS),
    _spec("duplex", "the better plan of Min-Min and Max-Min", _BRAUN),
)
