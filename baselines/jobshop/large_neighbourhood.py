"""Large neighbourhood search: CP-SAT reorders part of a schedule, the rest keeps its order.

Shaw (1998) on partial-order schedules as Godard, Laborie and Nuijten (2005): what is not freed keeps its
machine order but not its start times. Sizes adapt so that CP-SAT just settles the subproblems.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from schedrl.arrays import I64, Bool
from schedrl.baselines.jobshop.disjunctive import Selection, load_sequence, new_selection, sequence_of
from schedrl.baselines.jobshop.incumbent import Incumbent, IncumbentCallback
from schedrl.baselines.jobshop.rules import best_rule_schedule
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule
from schedrl.errors import ConfigError
from schedrl.schedulers import Result, SchedulerSpec

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

__all__ = ["SCHEDULERS", "LargeNeighbourhood", "NeighbourhoodSearch", "run_together"]

# CP-SAT rejects models whose sums could leave int64.
_MAX_HORIZON = 2**50
_FIRST_SIZE, _LEAST_SIZE = 60, 12  # freed operations
_GROW, _SHRINK = 1.15, 0.85
_MEMORY = 0.9  # how much of an old reward survives a new one of the same neighbourhood
_LEAST_CHANCE = 0.15  # of a neighbourhood that never improves


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeNeighbourhood:
    """Anytime large neighbourhood search that starts from the best dispatching rule.

    Args:
        threads: neighbourhoods solved at once, each by one CP-SAT thread, all on the best schedule so far.
        effort: CP-SAT's deterministic time per neighbourhood, about seconds.
        max_iterations: stop after this many neighbourhoods per thread; with a limit that never runs out and one
            thread the result depends on the seed alone.
        start: a feasible schedule to start from instead.
        on_incumbent: called with every new best makespan.

    Raises:
        ConfigError: no thread or no effort.
    """

    threads: int = 1
    effort: float = 0.03
    max_iterations: int = 2**62
    start: Schedule | None = None
    on_incumbent: IncumbentCallback | None = None

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ConfigError(f"option threads: {self.threads}, expected at least 1")
        if not self.effort > 0.0:
            raise ConfigError(f"option effort: {self.effort}, expected above 0")

    def schedule(self, instance: JobShopInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best schedule found; optimal when it meets the load bound or a whole-instance proof."""
        started = time.perf_counter()
        deadline = started + time_limit_s
        first = self.start or best_rule_schedule(instance, deadline=deadline)
        incumbent = Incumbent(instance, first, started=started, on_incumbent=self.on_incumbent)
        searches = [NeighbourhoodSearch(instance, incumbent, child, self.effort) for child in rng.spawn(self.threads)]
        run_together([partial(search.run, deadline, self.max_iterations) for search in searches])
        return incumbent.result()


def run_together(tasks: list[Callable[[], None]]) -> None:
    """Run all tasks, each in its thread, and raise the first error of any once all have ended."""
    with ThreadPoolExecutor(len(tasks)) as threads:
        running = [threads.submit(task) for task in tasks]
    for ended in running:
        ended.result()


class _Neighbourhood(NamedTuple):
    """A stretch of the operations in order of start, and which of them are free to change their place."""

    window: I64  # (W,) operations
    free: Bool  # (W,)


class NeighbourhoodSearch:
    """One thread of large neighbourhood search; it follows the incumbent whenever another thread improves it.

    Args:
        instance: the job shop.
        incumbent: best schedule so far, shared; the search starts there.
        rng: picks neighbourhoods and seeds CP-SAT.
        effort: CP-SAT's deterministic time per neighbourhood, about seconds.
    """

    def __init__(
        self, instance: JobShopInstance, incumbent: Incumbent, rng: np.random.Generator, effort: float
    ) -> None:
        self._instance, self._incumbent, self._rng, self._effort = instance, incumbent, rng, effort
        self._selection: Selection = new_selection(instance)
        self._value, self._start = 2**62, incumbent.best[1].start_time
        # A single machine leaves nothing to choose a subset from.
        self._kinds = (self._time_window, self._machine_subset)[: 1 if instance.machines == 1 else 2]
        self._size = [float(_FIRST_SIZE)] * len(self._kinds)
        self._reward = [1.0] * len(self._kinds)

    def run(self, deadline: float, max_iterations: int = 2**62) -> None:
        """Search until the deadline, a ``time.perf_counter`` reading, or until the incumbent is optimal."""
        iterations = 0
        while iterations < max_iterations and time.perf_counter() < deadline and not self._incumbent.optimal:
            if self._incumbent.best[0] > _MAX_HORIZON:
                return
            self._iterate(deadline)
            iterations += 1

    def _iterate(self, deadline: float) -> None:
        if self._incumbent.best[0] < self._value:
            self._value, schedule = self._incumbent.best
            self._start = schedule.start_time
        self._settle()
        kind = self._pick()
        area = self._kinds[kind](int(self._size[kind]))
        before = self._value
        proven = self._solve(area, deadline)
        if proven and self._value == before and area.free.all() and len(area.free) == self._instance.operations:
            self._incumbent.prove(self._value)
        gain = (before - self._value) / max(before, 1)
        self._reward[kind] = _MEMORY * self._reward[kind] + (1.0 - _MEMORY) * (gain > 0)
        # A size that still improves is kept.
        scale = _SHRINK if not proven else _GROW if gain == 0 else 1.0
        self._size[kind] = min(max(self._size[kind] * scale, _LEAST_SIZE), max(self._instance.operations, _LEAST_SIZE))

    def _settle(self) -> None:
        """Move all operations as early as their machine order lets them; heads and tails then lie in the selection."""
        for _ in range(2):
            load_sequence(self._selection, sequence_of(self._instance, Schedule(start_time=self._start)))
            self._start = self._selection.head.copy()

    def _pick(self) -> int:
        chance = np.maximum(self._reward, _LEAST_CHANCE * max(self._reward)) + 1e-12
        return int(self._rng.choice(len(chance), p=chance / chance.sum()))

    def _order(self) -> I64:
        """Return (N,) the operations in order of start; zero durations come before what starts with them."""
        end = self._start + self._instance.duration
        return np.lexsort((np.arange(len(end)), end, self._start))

    def _time_window(self, size: int) -> _Neighbourhood:
        window = self._stretch(size)
        return _Neighbourhood(window, np.ones(len(window), dtype=np.bool_))

    def _machine_subset(self, size: int) -> _Neighbourhood:
        """Free the operations of some machines, over a stretch that holds about ``size`` of them."""
        machines = self._instance.machines
        count = int(self._rng.integers(1, machines))
        chosen = np.zeros(machines, dtype=np.bool_)
        chosen[self._rng.choice(machines, count, replace=False)] = True
        window = self._stretch(size * machines // count)
        free = chosen[self._instance.machine[window]]
        return _Neighbourhood(window, free)

    def _stretch(self, size: int) -> I64:
        order = self._order()
        # Stretches may hang over both ends, so that the first and last operations are freed as often as others.
        low = int(self._rng.integers(-size // 2, max(len(order) - size // 2, 1 - size // 2)))
        low = min(max(low, 0), max(len(order) - size, 0))
        return order[low : low + size]

    def _solve(self, area: _Neighbourhood, deadline: float) -> bool:
        """Let CP-SAT reorder the area, adopt what is no worse, and return whether it settled the subproblem."""
        from ortools.sat.python import cp_model

        model, variables = self._model(area)
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = int(self._rng.integers(2**31 - 1))
        solver.parameters.linearization_level = 0  # the relaxation of disjunctions is too weak to pay
        solver.parameters.symmetry_level = 0
        solver.parameters.max_deterministic_time = self._effort
        solver.parameters.max_time_in_seconds = max(0.01, deadline - time.perf_counter())
        status = solver.solve(model)
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            self._adopt(area.window, np.array([solver.value(variable) for variable in variables], dtype=np.int64))
        return status in (cp_model.OPTIMAL, cp_model.INFEASIBLE)

    def _adopt(self, window: I64, start: I64) -> None:
        """Take over the starts of the window; what follows it keeps its machine order and moves as it must."""
        sequence = self._selection.sequence.copy()
        order = window[np.lexsort((window, start + self._instance.duration[window], start))]
        machine = self._instance.machine[order]
        for m in np.unique(machine).tolist():
            moved = order[machine == m]
            # The window's operations are neighbours on each machine: it is a stretch in order of start.
            low = int(self._selection.place[moved].min())
            sequence[low : low + len(moved)] = moved
        value = load_sequence(self._selection, sequence)
        if 0 <= value <= self._value:
            self._value, self._start = int(value), self._selection.head.copy()
            self._incumbent.offer(Schedule(start_time=self._start))

    def _model(self, area: _Neighbourhood) -> tuple[cp_model.CpModel, list[Any]]:
        """Return the model of the area and its start variables (W,), for schedules no longer than the present one."""
        from ortools.sat.python import cp_model

        window, free = area.window.tolist(), area.free.tolist()
        g, duration = self._selection, self._instance.duration
        inside = {operation: index for index, operation in enumerate(window)}
        release, after = self._machine_edges(area.window)
        head = [0] * len(window)
        tail = [0] * len(window)
        machine = self._instance.machine[area.window].tolist()
        for index, operation in enumerate(window):
            before = int(g.job_before[operation])
            if before in inside:
                ready = head[inside[before]] + int(duration[before])
            else:
                ready = int(self._start[before] + duration[before]) if before >= 0 else 0
            head[index] = max(ready, release[machine[index]])
        for index in range(len(window) - 1, -1, -1):
            follower = int(g.job_after[window[index]])
            if follower in inside:
                work = tail[inside[follower]] + int(duration[follower])
            else:
                work = int(g.tail[follower] + duration[follower]) if follower >= 0 else 0
            tail[index] = max(work, after[machine[index]])
        model = cp_model.CpModel()
        end = model.new_int_var(0, self._value, "makespan")
        variables: list[Any] = []
        on_machine: dict[int, list[Any]] = {m: [] for m in set(machine)}
        freed = {m for m, is_free in zip(machine, free, strict=True) if is_free}
        last_kept: dict[int, int] = {}
        for index, operation in enumerate(window):
            lasting = int(duration[operation])
            start = model.new_int_var(head[index], self._value - tail[index] - lasting, "")
            variables.append(start)
            before, m = int(g.job_before[operation]), machine[index]
            if before in inside:
                model.add(start >= variables[inside[before]] + int(duration[before]))
            if m in freed:
                on_machine[m].append(model.new_fixed_size_interval_var(start, lasting, ""))
            if not free[index]:
                if m in last_kept:
                    earlier = last_kept[m]
                    model.add(start >= variables[earlier] + int(duration[window[earlier]]))
                last_kept[m] = index
            if int(g.job_after[operation]) not in inside or after[m] == tail[index]:
                model.add(end >= start + (lasting + tail[index]))
        for intervals in on_machine.values():
            if len(intervals) > 1:
                model.add_no_overlap(intervals)
        for variable, value in zip(variables, self._start[area.window].tolist(), strict=True):
            model.add_hint(variable, value)
        model.minimize(end)
        return model, variables

    def _machine_edges(self, window: I64) -> tuple[dict[int, int], dict[int, int]]:
        """Return when each machine becomes free for the window, and the longest work behind it on the machine."""
        g, duration = self._selection, self._instance.duration
        release: dict[int, int] = {}
        after: dict[int, int] = {}
        machine = self._instance.machine[window]
        for m in np.unique(machine).tolist():
            places = g.place[window[machine == m]]
            before, behind = int(places.min()) - 1, int(places.max()) + 1
            one = int(g.sequence[before]) if before >= g.first[m] else -1
            other = int(g.sequence[behind]) if behind < g.first[m + 1] else -1
            release[m] = int(self._start[one] + duration[one]) if one >= 0 else 0
            after[m] = int(g.tail[other] + duration[other]) if other >= 0 else 0
        return release, after


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="jobshop/lns",
        make=LargeNeighbourhood,  # type: ignore[arg-type]
        information="clairvoyant",
        summary="large neighbourhood search: CP-SAT reorders time windows and machine subsets, one thread",
        source="Shaw 1998; Godard, Laborie and Nuijten 2005",
        randomised=True,
    ),
)
