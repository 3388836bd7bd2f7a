from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import instances

from schedrl.baselines.socdag.heuristics import plan
from schedrl.baselines.socdag.list_scheduling import (
    begin_job,
    data_ready,
    earliest_start,
    follow,
    new_state,
    place,
    ready_tasks,
    settle,
    take_first,
    withdraw,
)
from schedrl.baselines.socdag.ranks import sequence_by, upward_rank
from schedrl.envs.socdag.generators import GENERATORS
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.solution import check
from schedrl.envs.socdag.structured import canonical


@st.composite
def streams(draw: st.DrawFn) -> SocDagInstance:
    instance = draw(instances(jobs=4, max_tasks=6, capacity=True, memory=True, contention=True))
    return dataclasses.replace(instance, admission_cap=draw(st.integers(0, 2)))


class Reference:
    """HEFT in plain Python: lists of intervals, searched from their start."""

    def __init__(self, instance: SocDagInstance, insertion: bool) -> None:
        self.instance, self.insertion = instance, insertion
        self.busy: list[list[tuple[float, float]]] = [[] for _ in range(instance.devices)]
        self.link_free: dict[tuple[int, int], float] = {}
        self.device: dict[int, int] = {}
        self.start: dict[int, float] = {}
        self.end: dict[int, float] = {}
        self.entry: list[float] = []
        self.leave: list[float] = []

    def inputs(self, task: int, q: int, free: dict[tuple[int, int], float]) -> float:
        """Return the last arrival and reserve links in ``free``."""
        instance, latest = self.instance, 0.0
        for (i, j), size in zip(instance.flat.edge.tolist(), instance.flat.edge_bytes.tolist(), strict=True):
            if j != task:
                continue
            p, time, cost = self.device[i], self.end[i], 0.0
            for hop in (0, 2) if size else ():
                taken = instance.links[hop, p, q] + size * instance.links[hop + 1, p, q]
                cost += math.floor(taken + 1e-9) if instance.whole_units else taken
            if instance.communication == "contention" and cost:
                link = (int(instance.device_unit[p]), int(instance.device_unit[q]))
                time = max(time, free.get(link, 0.0))
                free[link] = time + cost
            latest = max(latest, time + cost)
        return latest

    def slot(self, q: int, ready: float, duration: float) -> float:
        if not self.insertion:
            return max(ready, self.busy[q][-1][1] if self.busy[q] else 0.0)
        time = ready
        for begin, end in self.busy[q]:
            if end > ready:
                if time + duration <= begin:
                    return time
                time = max(time, end)
        return time

    def run(self) -> Reference:
        instance, duration = self.instance, self.instance.flat.duration
        release, cap = instance.release_time.tolist(), instance.admission_cap
        order = np.argsort(sequence_by(instance, upward_rank(instance))).tolist()
        for j in range(instance.jobs):
            entry = release[j]
            if cap and j:
                entry = self.entry[-1] + (release[j] - release[j - 1])
                entry = max(entry, sorted(self.leave)[j - cap]) if j >= cap else entry
            self.entry.append(entry)
            tasks = [t for t in order if instance.flat.job[t] == j]
            for t in tasks:
                options = []
                for q in np.flatnonzero(np.isfinite(duration[t])).tolist():
                    ready = max(entry, self.inputs(t, q, dict(self.link_free)))
                    begin = self.slot(q, ready, duration[t, q])
                    options.append((begin + duration[t, q], q, begin))
                self.end[t], q, self.start[t] = min(options)
                self.inputs(t, q, self.link_free)
                self.device[t] = q
                self.busy[q] = sorted([*self.busy[q], (self.start[t], self.end[t])])
            self.leave.append(max(self.end[t] for t in tasks))
        return self


@given(streams(), st.booleans())
def test_heft_is_the_plain_one(instance: SocDagInstance, insertion: bool) -> None:
    reference = Reference(instance, insertion).run()
    made = plan(instance, "heft" if insertion else "heft-append")
    tasks = range(instance.tasks)
    assert made.device.tolist() == [reference.device[t] for t in tasks]
    assert made.start.tolist() == [reference.start[t] for t in tasks]
    assert made.entry.tolist() == reference.entry
    assert made.latency == pytest.approx(np.subtract(reference.leave, reference.entry).mean())


def test_heft_reproduces_the_published_schedule() -> None:
    made = plan(canonical(), "heft")
    assert made.device.tolist() == [2, 0, 2, 1, 2, 1, 2, 0, 1, 1]
    assert made.start.tolist() == [0, 27, 9, 18, 28, 26, 38, 57, 56, 73]
    assert made.end.tolist() == [9, 40, 28, 26, 38, 42, 49, 62, 68, 80]
    assert made.order.tolist() == [0, 2, 3, 5, 1, 4, 6, 8, 7, 9]


def test_gaps_are_used_from_the_first_that_fits() -> None:
    instance = canonical()
    state = new_state(instance, insertion=True)
    for task, start, duration in ((1, 10.0, 5.0), (2, 18.0, 2.0), (3, 5.0, 1.0)):
        settle(state, task, 0, start, duration)
    assert state.slot[0, :3].tolist() == [3, 1, 2]
    expected = {
        (0.0, 5.0): 0.0,
        (0.0, 6.0): 20.0,
        (6.0, 4.0): 6.0,
        (7.0, 4.0): 20.0,
        (12.0, 3.0): 15.0,
        (5.5, 0.0): 6.0,
    }
    for (ready, duration), start in expected.items():
        assert earliest_start(state, 0, float(ready), float(duration)) == start
    withdraw(state, 1)
    assert state.slot[0, :2].tolist() == [3, 2]
    assert earliest_start(state, 0, 7.0, 4.0) == 7.0
    append = new_state(instance, insertion=False)
    settle(append, 1, 0, 10.0, 5.0)
    assert earliest_start(append, 0, 0.0, 1.0) == 15.0


def test_tasks_become_ready_as_their_sources_are_placed() -> None:
    instance = canonical()
    state = new_state(instance, insertion=True)
    position = sequence_by(instance, upward_rank(instance))
    begin_job(state, 0)
    assert ready_tasks(state) == 1
    first = take_first(state, position)
    place(state, first, 2, 0.0, 9.0)
    assert ready_tasks(state) == 5
    assert take_first(state, position) == 2
    assert [data_ready(state, 2, q, 0.0) for q in range(3)] == [21.0, 21.0, 9.0]


@given(streams())
def test_a_plan_is_followed_as_it_stands(instance: SocDagInstance) -> None:
    made = plan(instance, "heft")
    schedule = follow(instance, made)
    assert check(instance, schedule) == []
    np.testing.assert_array_equal(schedule.start, made.start)


def test_a_thousand_tasks_on_eight_devices_take_milliseconds() -> None:
    instance = GENERATORS["topcuoglu"](np.random.default_rng(0), tasks=1000, devices=8)
    plan(instance, "heft")
    seconds = []
    for _ in range(3):
        fresh = dataclasses.replace(instance, name="fresh")  # nothing cached
        started = time.perf_counter()
        plan(fresh, "heft")
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.1  # measured: 10 ms
