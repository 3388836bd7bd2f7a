from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_dags import CANONICAL, INF, PAIR_GRAPH, graph, soc
from strategies import instances

from schedrl.devices import Device, Link
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.simulator import Dispatch, Simulator

SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def worlds(draw: st.DrawFn, *, online: bool = True) -> SocDagInstance:
    """Draw an instance with everything that the simulator supports; plan mode knows no noise."""
    noise = online and draw(st.booleans())
    instance = draw(instances(max_tasks=6, jobs=3, noise=noise, capacity=True, memory=True, contention=True))
    return dataclasses.replace(instance, admission_cap=draw(st.integers(0, 2)))


class Reference:
    """What a half-built schedule knows, with times computed from the definitions, one task at a time."""

    def __init__(self, instance: SocDagInstance) -> None:
        self.instance, self.now = instance, 0.0
        self.device: dict[int, int] = {}
        self.point: dict[int, int] = {}
        self.start: dict[int, float] = {}
        self.end: dict[int, float] = {}
        self.arrival: dict[int, float] = {}
        self.entry: dict[int, float] = {}
        self.link: dict[tuple[int, int], float] = {}
        self.transfer: dict[int, float] = {}
        self.queue: list[list[int]] = [[] for _ in range(instance.devices)]  # in order of commitment
        self.job = instance.flat.job.tolist()
        self.inputs: list[list[tuple[int, int, float]]] = [[] for _ in self.job]  # (edge, source, bytes)
        for e, (source, target) in enumerate(instance.flat.edge.tolist()):
            self.inputs[target].append((e, source, float(instance.flat.edge_bytes[e])))

    def expected(self, task: int, device: int, point: int) -> float:
        instance, job = self.instance, self.job[task]
        row = instance.graphs[instance.job_graph[job]].duration[task - instance.job_offset[job]]
        taken = float(row[instance.device_type[device]] / instance.operating_points[0][device, point])
        return float(np.ceil(taken - 1e-9)) if instance.whole_units else taken

    def true(self, task: int, device: int, point: int) -> float:
        draw = np.zeros(self.instance.tasks)
        draw[task] = self.expected(task, device, point)
        return float(self.instance.realised(draw)[task])

    def travel(self, size: float, p: int, q: int) -> float:
        links, whole = self.instance.links, self.instance.whole_units
        hops = [links[k, p, q] + size * links[k + 1, p, q] for k in (0, 2)] if size else [0.0]
        return float(sum(np.floor(hop + 1e-9) if whole else hop for hop in hops))

    def data(self, task: int, device: int, *, book: bool) -> float:
        """Return when the inputs of a task are at a device; transfers follow each other on contended links."""
        links, unit = dict(self.link), self.instance.device_unit
        ready = self.entry[self.job[task]]
        for e, source, size in self.inputs[task]:
            origin, begin = self.device[source], self.end[source]
            cost = self.travel(size, origin, device)
            if self.instance.communication == "contention" and cost > 0:
                key = (int(unit[origin]), int(unit[device]))
                begin = max(begin, self.now, links.get(key, 0.0))
                links[key] = begin + cost
                if book:
                    self.transfer[e] = begin
            ready = max(ready, begin + cost)
        self.link = links if book else self.link
        return ready

    def commit(self, task: int, device: int, point: int) -> None:
        self.arrival[task] = self.data(task, device, book=True)
        self.device[task], self.point[task] = device, point
        self.queue[device].append(task)

    def ready(self, known: set[int]) -> list[int]:
        """Return the unplaced tasks of entered jobs whose predecessors are known, as the window lists them."""
        return [
            task
            for task, job in enumerate(self.job)
            if task not in self.device
            and job in self.entry
            and all(source in known for _, source, _ in self.inputs[task])
        ]


class Online(Reference):
    """Jobs that run as events unfold."""

    def done(self) -> set[int]:
        return {task for task, end in self.end.items() if end <= self.now}

    def inside(self) -> int:
        done = self.done()
        return len({job for task, job in enumerate(self.job) if task not in done and job in self.entry})

    def next_entry(self) -> float:
        j, release, cap = len(self.entry), self.instance.release_time, self.instance.admission_cap
        if j == self.instance.jobs or (cap and self.inside() >= cap):
            return np.inf
        if cap and j:
            return max(self.now, self.entry[j - 1] + float(release[j] - release[j - 1]))
        return float(release[j])

    def settle(self) -> None:
        """Start on each idle device the first committed task whose inputs are there; let jobs enter."""
        size = None
        while size != (len(self.start), len(self.entry)):
            size = len(self.start), len(self.entry)
            for device, queue in enumerate(self.queue):
                done = self.done()
                if any(task in self.start and task not in done for task in queue):
                    continue
                task = next((t for t in queue if t not in self.start and self.arrival[t] <= self.now), None)
                if task is not None:
                    self.start[task] = self.now
                    self.end[task] = self.now + self.true(task, device, self.point[task])
            if self.next_entry() <= self.now:
                self.entry[len(self.entry)] = self.now

    def next_event(self) -> float:
        times = [self.next_entry(), *(end for end in self.end.values() if end > self.now)]
        for queue in self.queue:
            if not any(task in self.start and self.end[task] > self.now for task in queue):
                times += [self.arrival[task] for task in queue if task not in self.start]
        return min(times)

    def free(self, device: int) -> float:
        """Return when a device is expected to have done its queue, in order of commitment."""
        free, done = self.now, self.done()
        for task in sorted((t for t in self.queue[device] if t not in done), key=lambda t: t not in self.start):
            taken = self.expected(task, device, self.point[task])
            begun = task in self.start
            free = max(self.now, self.start[task] + taken) if begun else max(free, self.arrival[task]) + taken
        return free

    def idle(self, device: int) -> bool:
        """Whether a device runs nothing and at most one task waits on it for its inputs."""
        done = self.done()
        left = [task for task in self.queue[device] if task not in done]
        return len(left) < 2 and not any(task in self.start for task in left)

    def finish(self, task: int, device: int, point: int) -> float:
        begin = max(self.free(device), self.data(task, device, book=False), self.now)
        return begin + self.expected(task, device, point)


class Plan(Reference):
    """A schedule of expected times, where a task goes into the first gap; jobs are planned one after another."""

    def admit(self) -> None:
        """Let the next job enter once all tasks of those before it are placed, when the plan says it may."""
        j, release, cap = len(self.entry), self.instance.release_time, self.instance.admission_cap
        if j == self.instance.jobs or len(self.device) < self.instance.job_offset[j]:
            return
        self.entry[j] = float(release[j])
        if j and cap:
            leaves = sorted(max(self.end[t] for t, job in enumerate(self.job) if job == k) for k in range(j))
            due = self.entry[j - 1] + float(release[j] - release[j - 1])
            self.entry[j] = max(due, leaves[j - cap]) if j >= cap else due

    def finish(self, task: int, device: int, point: int) -> float:
        taken, ready = self.expected(task, device, point), self.data(task, device, book=False)
        busy = [(self.start[t], self.end[t]) for t in self.queue[device]]

        def fits(begin: float) -> bool:
            return all(begin + taken <= low or begin >= high for low, high in busy)

        return min(begin for begin in [ready, *(high for _, high in busy)] if begin >= ready and fits(begin)) + taken


def offers(simulator: Simulator) -> list[tuple[int, int, int, float]]:
    """Return (task, device, point, finish) of every candidate of row 0."""
    state, slots = simulator.state, slice(0, int(simulator.state.candidates[0]))
    arrays = (state.candidate_task, state.candidate_device, state.candidate_point, state.candidate_finish)
    return list(zip(*(array[0, slots].tolist() for array in arrays), strict=True))


def step(simulator: Simulator, action: int) -> None:
    simulator.step(np.array([action], np.int32), np.zeros(1, np.float32), np.zeros(1, np.bool_))


def place_of(reference: Reference) -> Callable[[int], tuple[int, float]]:
    """Return the key that the window is sorted by: online the job, then the upward rank."""
    instance, tables = reference.instance, reference.instance.tables
    rows = tables.graph_offset[instance.job_graph][instance.flat.job] + np.arange(instance.tasks)
    rank = tables.upward_rank[rows - instance.job_offset[instance.flat.job]]
    return lambda task: (reference.job[task] if isinstance(reference, Online) else 0, -float(rank[task]))


def assert_offers(
    reference: Online | Plan, simulator: Simulator, known: set[int], dvfs: bool, idle_only: bool = False
) -> None:
    """Compare the offered tasks with the ready ones, and each type's offer with the best of its devices."""
    instance, state, place = reference.instance, simulator.state, place_of(reference)
    pairs = [item for item in offers(simulator) if item[0] >= 0]
    listed = state.ready[0, : state.readies[0]].tolist()
    assert sorted(listed) == reference.ready(known)
    assert list(map(place, listed)) == sorted(map(place, listed))
    expected, best = [], []
    for task in listed[: simulator.options.window]:
        job = reference.job[task]
        row = instance.tables.graph_offset[instance.job_graph[job]] + task - instance.job_offset[job]
        finish: dict[tuple[int, int], dict[int, float]] = {}  # of (type, point) by device
        for lane, kind in enumerate(instance.device_type.tolist()):
            if np.isfinite(instance.flat.duration[task, lane]):
                for point in range(int(instance.operating_points[2][lane]) if dvfs else 1):
                    finish.setdefault((kind, point), {})[lane] = reference.finish(task, lane, point)
        everywhere = [(end, lane) for ends in finish.values() for lane, end in ends.items()]
        least = min(everywhere)[0], min(end + instance.tables.tail[row, lane] for end, lane in everywhere)
        for (kind, point), ends in finish.items():
            allowed = [end for lane, end in ends.items() if not idle_only or idle(reference, lane)]
            if allowed:
                expected.append((task, kind, point, min(allowed)))
                best.append(least)
    assert [(t, int(instance.device_type[d]), k, f) for t, d, k, f in pairs] == expected
    for task, device, point, end in pairs:
        assert reference.finish(task, device, point) == end
        assert not idle_only or idle(reference, device)
    slots = slice(0, len(pairs))
    assert list(zip(state.best_finish[0, slots].tolist(), state.best_path[0, slots].tolist(), strict=True)) == best


def idle(reference: Online | Plan, device: int) -> bool:
    assert isinstance(reference, Online)
    return reference.idle(device)


def assert_nothing_to_offer(reference: Online, window: int) -> None:
    """Check that no task that is within the window, however ties are broken, has an idle device."""
    place, ready = place_of(reference), reference.ready(reference.done())
    for task in ready:
        if sum(place(other) <= place(task) for other in ready) <= window:
            supported = np.flatnonzero(np.isfinite(reference.instance.flat.duration[task])).tolist()
            assert not any(reference.idle(device) for device in supported)


@given(worlds(), st.integers(1, 8), st.booleans(), st.booleans(), st.sampled_from(["queue", "idle"]), SEEDS)
def test_online_events_equal_a_plain_reference(
    instance: SocDagInstance, window: int, wait: bool, dvfs: bool, dispatch: Dispatch, seed: int
) -> None:
    simulator = Simulator([instance], 1, window=window, wait=wait, dvfs=dvfs, dispatch=dispatch, skip_forced=False)
    reference, rng, waited, idle_only = Online(instance), np.random.default_rng(seed), False, dispatch == "idle"
    while len(reference.done()) < instance.tasks:
        reference.settle()
        passed = idle_only and (simulator.finished(0) or simulator.state.now[0] > reference.now)
        if waited or passed or not reference.ready(reference.done()):
            if passed and not waited:
                assert_nothing_to_offer(reference, window)
            reference.now, waited = reference.next_event(), False
            if reference.now == np.inf:
                break
            continue
        assert simulator.state.now[0] == reference.now
        offered = offers(simulator)
        # Only for what is in progress can one wait: nobody foresees when jobs enter.
        assert (offered[-1][0] < 0) == (wait and len(reference.device) > len(reference.done()))
        assert_offers(reference, simulator, reference.done(), dvfs, idle_only)
        action = int(rng.integers(len(offered)))
        waited = offered[action][0] < 0
        if not waited:
            reference.commit(*offered[action][:3])
        step(simulator, action)
    assert simulator.finished(0)
    solution = simulator.solution(0)
    assert solution.start.tolist() == [reference.start[task] for task in range(instance.tasks)]
    assert solution.entry.tolist() == [reference.entry[job] for job in range(instance.jobs)]
    assert solution.transfer is not None
    for edge, begin in reference.transfer.items():
        assert solution.transfer[edge] == begin


@given(worlds(online=False), st.integers(1, 8), st.booleans(), SEEDS)
def test_plans_equal_a_plain_insertion_reference(instance: SocDagInstance, window: int, dvfs: bool, seed: int) -> None:
    simulator = Simulator([instance], 1, mode="plan", window=window, dvfs=dvfs, skip_forced=False)
    reference, rng = Plan(instance), np.random.default_rng(seed)
    while not simulator.finished(0):
        reference.admit()
        pairs = offers(simulator)
        assert_offers(reference, simulator, set(reference.device), dvfs)
        action = int(rng.integers(len(pairs)))
        task, device, point, finish = pairs[action]
        reference.commit(task, device, point)
        reference.start[task] = float(simulator.state.candidate_start[0, action])
        reference.end[task] = finish
        step(simulator, action)
    assert simulator.solution(0).start.tolist() == [reference.start[task] for task in range(instance.tasks)]
    assert simulator.solution(0).entry.tolist() == pytest.approx(list(reference.entry.values()), rel=1e-12)


def test_a_task_that_waits_for_its_inputs_does_not_hold_up_those_behind_it() -> None:
    # On the one gpu, b needs 9 bytes from a on the cpu, which arrive at 2 + 9 = 11; c, placed after b, runs first.
    job = graph([[2, INF], [INF, 3], [INF, 4]], [(0, 1, 9)])
    instance = soc(job, link=Link(latency_s=0.0, bandwidth_bytes_per_s=1.0))
    simulator = Simulator([instance], 1, skip_forced=False)
    step(simulator, [task for task, *_ in offers(simulator)].index(0))
    assert [task for task, *_ in offers(simulator)] == [2, -1]
    step(simulator, 1)
    assert simulator.state.now[0] == 2
    step(simulator, [task for task, *_ in offers(simulator)].index(1))
    assert offers(simulator)[0] == (2, 1, 0, 11 + 3 + 4)  # expected behind b, as placed
    step(simulator, 0)
    assert simulator.solution(0).start.tolist() == [0, 11, 2]


def test_idle_dispatch_keeps_a_task_uncommitted_so_that_a_later_one_overtakes_it() -> None:
    # One gpu, on which x runs until 4. The first job's b is ready at 1, but must wait; the second job enters at 2.
    job = graph([[INF, 4], [1, INF], [INF, 6]], [(1, 2, 0)])
    late = graph([[INF, 1]])
    instance = soc(job, late, job_graph=np.array([0, 1]), release=np.array([0.0, 2.0]))
    simulator = Simulator([instance], 1, dispatch="idle", skip_forced=False)
    for task in (0, 1):
        step(simulator, [offered for offered, *_ in offers(simulator)].index(task))
    # Neither b at 1 nor the second job at 2 is a decision: the gpu is busy until 4.
    assert simulator.state.now[0] == 4
    assert [task for task, *_ in offers(simulator)] == [2, 3]
    step(simulator, 1)
    assert simulator.state.now[0] == 5
    step(simulator, 0)
    assert simulator.solution(0).start.tolist() == [0, 0, 5, 4]


def test_an_idle_device_that_waits_for_inputs_takes_one_more_task_and_no_third() -> None:
    # b's 9 bytes from the cpu reach the gpu at 2 + 9 = 11; meanwhile c may run there, but d is no longer offered.
    job = graph([[2, INF], [INF, 3], [2, 4], [2, 4]], [(0, 1, 9), (0, 2, 1), (0, 3, 1)])
    instance = soc(job, link=Link(latency_s=0.0, bandwidth_bytes_per_s=1.0))
    simulator = Simulator([instance], 1, dispatch="idle", skip_forced=False)
    step(simulator, 0)
    assert simulator.state.now[0] == 2
    step(simulator, [(task, device) for task, device, *_ in offers(simulator)].index((1, 1)))
    pairs = {(task, device) for task, device, *_ in offers(simulator) if task >= 0}
    assert pairs == {(2, 0), (2, 1), (3, 0), (3, 1)}
    step(simulator, [(task, device) for task, device, *_ in offers(simulator)].index((2, 1)))
    assert [(task, device) for task, device, *_ in offers(simulator) if task >= 0] == [(3, 0)]
    assert simulator.state.best_finish[0, 0] == 4


def test_the_admission_cap_delays_entries_until_a_job_ends() -> None:
    # Released at 0, 1, 5 with one job inside: the second enters when the first ends at 5, the third 4 later or when
    # the second ends, whichever is later: 5 + 5 = 10.
    instance = soc(PAIR_GRAPH, job_graph=np.zeros(3, dtype=int), release=np.array([0.0, 1.0, 5.0]), admission_cap=1)
    simulator = Simulator([instance], 1, wait=False)
    while not simulator.finished(0):
        step(simulator, 0)  # the cpu
    assert simulator.solution(0).entry.tolist() == [0, 5, 10]
    assert simulator.objective(0) == 5


def test_a_plan_fills_the_first_gap() -> None:
    # b on the cpu starts at 6 because its input comes from the gpu: c of length 6 fits before it, d of 1 no more.
    job = graph([[9, 2], [2, 9], [6, 60], [1, 60]], [(0, 1, 6)])
    simulator = Simulator([soc(job)], 1, mode="plan", skip_forced=False)
    for task, device in ((0, 1), (1, 0), (2, 0), (3, 0)):
        chosen = [(t, d) for t, d, _, _ in offers(simulator)].index((task, device))
        step(simulator, chosen)
    assert simulator.solution(0).start.tolist() == [0, 6, 0, 8]


def test_tasks_of_no_time_may_stand_at_the_edge_of_others_in_a_plan() -> None:
    job = graph([[4], [0], [0], [3]], [(0, 1, 0), (1, 3, 0)])
    instance = soc(job, devices=[Device(name="cpu")], counts=(1,))
    simulator = Simulator([instance], 1, mode="plan", skip_forced=False)
    for task in (0, 1, 3, 2):
        step(simulator, [offered for offered, *_ in offers(simulator)].index(task))
    assert simulator.solution(0).start.tolist() == [0, 4, 0, 4]


@pytest.mark.parametrize(("wait", "makespan"), [(True, 14.0), (False, 23.0)])
def test_waiting_reaches_what_no_eager_schedule_does(wait: bool, makespan: float) -> None:
    # a (cpu, 1), then b (gpu, 3), then d (cpu, 10); c (gpu, 10) could start at once, but should let b go first.
    job = graph([[1, INF], [INF, 3], [INF, 10], [10, INF]], [(0, 1, 0), (1, 3, 0)])
    assert least(Simulator([soc(job)], 1, wait=wait)) == makespan


def least(simulator: Simulator) -> float:
    """Return the least mean latency over all action sequences, by depth-first search."""
    if simulator.finished(0):
        return simulator.objective(0)
    here, best = simulator.snapshot(), np.inf
    for action in range(int(simulator.state.candidates[0])):
        simulator.restore(here)
        step(simulator, action)
        best = min(best, least(simulator))
    return best


def test_upward_ranks_and_least_finishes_give_the_published_heft_plan() -> None:
    simulator = Simulator([CANONICAL], 1, mode="plan", window=10, skip_forced=False)
    while not simulator.finished(0):
        pairs = offers(simulator)
        first = [item for item in pairs if item[0] == pairs[0][0]]  # the window lists by upward rank
        step(simulator, pairs.index(min(first, key=lambda item: item[3])))
    assert simulator.objective(0) == 80.0
    assert simulator.solution(0).start.tolist() == [0, 27, 9, 18, 28, 26, 38, 57, 56, 73]
