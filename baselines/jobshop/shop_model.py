"""CP-SAT model of the shop, from any moment on: an optional interval per mode, no overlap on machines.

Blocking. Operation k of a job keeps its machine in the half-open interval [start of k, start of k + 1), of size at
least its duration; the last one until it completes. No overlap of these intervals is exactly ``swap``: jobs that move
in a cycle at one moment hand their machines over at the common end of the intervals. Each pair on a machine has a
literal for its order (Mascis and Pacciarelli 2002: a pair of alternative arcs), with which CP-SAT proves optima of
Lawrence's 10x5 in seconds; with intervals in ``NoOverlap`` it does not in a minute.

``no-swap`` asks more: the moves of one moment need an order in which each finds its machine empty. Every start gets a
rank, which rises along jobs, and the literal that puts a before b on their machine makes the rank of b higher than
that of the start by which a's job leaves, where it is not b's own. If ranks exist, they order the moves; if such an
order exists, positions in it are ranks, since an earlier move never waits for a later one. In terms of the alternative
graph: it has no cycle, not even one of length zero.

Outages. An operation that pauses in outages takes its duration plus a delay that is a step function of its start.
Each mode has one literal per value of that function, which confines the start to the times that cause this delay and
sets the size of the interval; starts within outages belong to none. This is exact.

Setups. On machines with setup times, one circuit per machine runs through the operations it gets, and each arc
separates two neighbours by their setup.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np

from schedrl.baselines.jobshop.shop_execution import Outages, Plan, ShopState
from schedrl.envs.jobshop.shop import NO_DUE_DATE, ShopInstance

__all__ = ["ModelResult", "ShopModel", "delays_of", "integral_weights", "serial_horizon"]

# CP-SAT rejects models whose sums could leave int64.
_MAX_SUM = 2**60
_MAX_DENOMINATOR = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelResult:
    """What one run of CP-SAT found."""

    plan: Plan | None
    """None if it found no schedule"""
    bound: float
    """proven lower bound on the objective, in the instance's unit"""


def serial_horizon(shop: ShopInstance, duration: list[int], outages: Outages, state: ShopState) -> int:
    """Return a time by which all known jobs can be done: releases and repairs, then one operation after another."""
    release = int(shop.release[state.known].max(initial=0))
    begin = max(state.now, release, int(state.available.max()), int(state.end.max(initial=0)))
    longest = np.maximum.reduceat(np.array(duration, dtype=np.int64), shop.mode_offset[:-1])
    waiting = longest[(state.mode < 0) & state.known[shop.job]]
    down = sum(sum(ends) - sum(starts) for starts, ends in outages)
    return begin + int(waiting.sum()) + int(shop.setup.max(initial=0)) * len(waiting) + down


def delays_of(
    starts: Sequence[int], ends: Sequence[int], duration: int, first: int, last: int
) -> dict[int, list[tuple[int, int]]]:
    """Return the starts in ``first..last`` that are outside outages, by the delay that outages then cause.

    Keys are delays, values ascending ranges of starts, both ends included.
    """
    ranges: dict[int, list[tuple[int, int]]] = {}
    down = [0]
    for begin, end in zip(starts, ends, strict=True):
        down.append(down[-1] + end - begin)
    for index in range(len(starts) + 1):
        low = first if index == 0 else max(first, ends[index - 1])
        high = last if index == len(starts) else min(last, starts[index] - 1)
        crossed = index
        while low <= high:
            # Uptime before the next outage, counted from time 0, is what the operation must fit into.
            top = high
            if crossed < len(starts):
                top = min(high, starts[crossed] - down[crossed] - duration + down[index])
            if low <= top:
                ranges.setdefault(down[crossed] - down[index], []).append((low, top))
                low = top + 1
            crossed += 1
    return ranges


def integral_weights(weights: Sequence[float], largest: int) -> tuple[list[int], float]:
    """Return integers and a scale with ``integer / scale`` at most each weight, and equal where that is possible.

    Weights that are fractions with a common denominator up to a million keep their value; others are rounded
    down at the finest scale at which their sum times ``largest``, the horizon, stays within CP-SAT's range.
    Rounding down keeps every bound of the model a bound of the instance.
    """
    fractions = [Fraction(weight).limit_denominator(_MAX_DENOMINATOR) for weight in weights]
    denominator = math.lcm(*(fraction.denominator for fraction in fractions))
    limit = _MAX_SUM / (max(sum(weights), 1e-300) * max(largest, 1))
    faithful = all(math.isclose(f, weight, rel_tol=1e-12) for f, weight in zip(fractions, weights, strict=True))
    if faithful and denominator <= min(_MAX_DENOMINATOR, limit):
        return [int(fraction * denominator) for fraction in fractions], float(denominator)
    scale = min(limit, _MAX_DENOMINATOR / max(weights))
    return [int(weight * scale) for weight in weights], scale


class ShopModel:
    """The model of what is left to do in a shop.

    Args:
        shop: the instance.
        duration: (K,) of every mode, expected or actual.
        outages: of every machine, as far as they are known; from ``state.now`` on.
        state: what has happened.
        horizon: latest time, such as the makespan of a schedule when that is the objective.
    """

    def __init__(
        self, shop: ShopInstance, duration: list[int], outages: Outages, state: ShopState, horizon: int
    ) -> None:
        from ortools.sat.python import cp_model

        self._cp = cp_model
        self._shop, self._duration, self._outages, self._state = shop, duration, outages, state
        self._horizon = horizon
        self._model = cp_model.CpModel()
        self._scale = 1.0
        self._start: dict[int, Any] = {}
        self._end: dict[int, Any] = {}
        self._rank: dict[int, Any] = {}
        self._chosen: dict[int, Any] = {}  # literal of a mode; those of operations without choice are left out
        self._after: dict[int, int] = {}  # last operation of the job, by operation
        known = np.flatnonzero(state.known).tolist()
        self._jobs = {j: range(int(shop.job_offset[j]), int(shop.job_offset[j + 1])) for j in known}
        self._on_machine: list[list[int]] = [[] for _ in range(shop.machines)]
        for job, operations in self._jobs.items():
            self._add_job(job, operations)
        self._add_machines()
        if shop.setup.any():
            for machine in range(shop.machines):
                self._add_setups(machine)
        self._add_objective()

    def _add_job(self, job: int, operations: range) -> None:
        """Add starts, ends and modes of a job's operations that have not started."""
        shop, state = self._shop, self._state
        waiting = [o for o in operations if state.mode[o] < 0]
        ranges = {o: range(int(shop.mode_offset[o]), int(shop.mode_offset[o + 1])) for o in waiting}
        least = {o: min(self._duration[k] for k in ranges[o]) for o in waiting}
        head = max(state.now, int(shop.release[job]))
        if waiting and waiting[0] > operations[0]:
            head = max(head, int(state.end[waiting[0] - 1]))
        tail = sum(least.values())
        for o in waiting:
            self._start[o] = self._model.new_int_var(head, self._horizon - tail, "")
            if o > waiting[0]:
                self._model.add(self._end[o - 1] <= self._start[o])
            head, tail = head + least[o], tail - least[o]
            self._add_modes(o, ranges[o], head, self._horizon - tail)

    def _add_modes(self, o: int, modes: range, earliest: int, latest: int) -> None:
        """Add the choice of an operation's mode and the size that follows from it."""
        model = self._model
        fixed = len(modes) == 1 and not self._outages[self._shop.machine[modes[0]]][0]
        if fixed:
            self._end[o] = self._start[o] + self._duration[modes[0]]
        else:
            self._end[o] = model.new_int_var(earliest, latest, "")
        if len(modes) > 1:
            self._chosen |= {k: model.new_bool_var("") for k in modes}
            model.add_exactly_one(self._chosen[k] for k in modes)
        sizes: list[Any] = []
        for k in modes:
            machine = int(self._shop.machine[k])
            self._on_machine[machine].append(k)
            literal = self._chosen.get(k)
            if self._state.available[machine] > self._state.now:
                self._only(model.add(self._start[o] >= int(self._state.available[machine])), literal)
            if self._outages[machine][0]:
                sizes.append(self._size_under_outages(o, k, literal))
            else:
                sizes.append(self._duration[k] if literal is None else self._duration[k] * literal)
        if not fixed:
            model.add(self._end[o] == self._start[o] + sum(sizes))

    def _size_under_outages(self, o: int, k: int, literal: Any | None) -> Any:
        """Return duration and delay of a mode as a linear expression, 0 if the mode is not chosen."""
        model = self._model
        starts, ends = self._outages[self._shop.machine[k]]
        delays = delays_of(starts, ends, self._duration[k], self._state.now, self._horizon)
        cases = {delay: model.new_bool_var("") for delay in delays}
        for delay, ranges in delays.items():
            domain = self._cp.Domain.from_intervals([list(pair) for pair in ranges])
            model.add_linear_expression_in_domain(self._start[o], domain).only_enforce_if(cases[delay])
        model.add(sum(cases.values()) == (1 if literal is None else literal))
        return sum((self._duration[k] + delay) * case for delay, case in cases.items())

    @staticmethod
    def _only(constraint: Any, literal: Any | None) -> None:
        if literal is not None:
            constraint.only_enforce_if(literal)

    def _add_machines(self) -> None:
        """Let no two operations be on a machine at once."""
        operation = self._shop.mode_operation
        holders = self._holders()
        if self._shop.blocking == "no-swap":
            self._add_ranks()
        for machine, modes in enumerate(self._on_machine):
            if self._shop.blocking == "none":
                held = [self._held_since(o) for o in holders[machine]]
                held += [self._interval(int(operation[k]), k) for k in modes]
                self._model.add_no_overlap(held)
                continue
            waiting = [int(operation[k]) for k in modes]
            for first in holders[machine]:
                for second in waiting:
                    self._add_order(first, second, None)
            for first, second in combinations(waiting, 2):
                if self._same_job(first, second):
                    self._add_order(first, second, None)
                else:
                    before = self._model.new_bool_var("")
                    self._add_order(first, second, before)
                    self._add_order(second, first, ~before)

    def _add_order(self, first: int, second: int, literal: Any | None) -> None:
        """With blocking, let one operation leave the machine before another starts, if ``literal`` holds."""
        model = self._model
        self._only(model.add(self._stay(first) <= self._start[second]), literal)
        if self._rank:
            leaves = first + 1 if self._same_job(first, first + 1) else first
            if leaves != second and leaves in self._rank:
                self._only(model.add(self._rank[leaves] + 1 <= self._rank[second]), literal)

    def _add_ranks(self) -> None:
        """Number the starts that lie ahead."""
        for o in self._start:
            self._rank[o] = self._model.new_int_var(0, len(self._start) - 1, "")
            if o - 1 in self._rank and self._same_job(o - 1, o):
                self._model.add(self._rank[o - 1] + 1 <= self._rank[o])

    def _interval(self, o: int, k: int) -> Any:
        """Return the interval in which a mode, if chosen, keeps its machine."""
        model, start, end, duration = self._model, self._start[o], self._stay(o), self._duration[k]
        steady = not self._outages[self._shop.machine[k]][0] and end is self._end[o]
        if steady and k not in self._chosen:
            return model.new_fixed_size_interval_var(start, duration, "")
        size: Any = duration if steady else model.new_int_var(duration, self._horizon, "")
        if k in self._chosen:
            return model.new_optional_interval_var(start, size, end, self._chosen[k], "")
        return model.new_interval_var(start, size, end, "")

    def _held_since(self, o: int) -> Any:
        """Return the interval in which a started operation keeps its machine."""
        start, end = int(self._state.start[o]), self._stay(o)
        size = self._model.new_int_var(0, self._horizon - start, "")
        return self._model.new_interval_var(start, size, end, "")

    def _stay(self, o: int) -> Any:
        """Return when an operation leaves its machine."""
        if self._shop.blocking != "none" and o + 1 in self._start and self._same_job(o, o + 1):
            return self._start[o + 1]
        return self._end[o] if o in self._end else int(self._state.end[o])

    def _same_job(self, o: int, other: int) -> bool:
        return other < self._shop.operations and bool(self._shop.job[o] == self._shop.job[other])

    def _holders(self) -> list[list[int]]:
        """Return the started operations of every machine that have not left it."""
        shop, state = self._shop, self._state
        holders: list[list[int]] = [[] for _ in range(shop.machines)]
        for o in np.flatnonzero(state.mode >= 0).tolist():
            last = o + 1 == shop.job_offset[shop.job[o] + 1]
            left = not last and state.mode[o + 1] >= 0
            blocked = shop.blocking != "none" and not last and not left
            if blocked or (not left and state.end[o] > state.now):
                holders[shop.machine[state.mode[o]]].append(o)
        return holders

    def _add_setups(self, machine: int) -> None:
        """Run a circuit through the operations of a machine; node 0 stands before the first and after the last."""
        shop, state, model = self._shop, self._state, self._model
        modes = self._on_machine[machine]
        if not modes or not shop.setup[machine].any():
            return
        operation = [int(shop.mode_operation[k]) for k in modes]
        setup = shop.setup[machine].tolist()
        family = shop.setup_family.tolist()
        started = np.flatnonzero((state.mode >= 0) & (shop.machine[state.mode] == machine))
        before = started[np.lexsort((state.end[started], state.start[started]))][-1:].tolist()
        arcs: list[tuple[int, int, Any]] = []
        if all(k in self._chosen for k in modes):
            arcs.append((0, 0, model.new_bool_var("")))
        for index, o in enumerate(operation, start=1):
            if modes[index - 1] in self._chosen:
                arcs.append((index, index, ~self._chosen[modes[index - 1]]))
            first = model.new_bool_var("")
            arcs += [(0, index, first), (index, 0, model.new_bool_var(""))]
            for earlier in before:
                free = int(state.end[earlier]) + setup[family[earlier]][family[o]]
                model.add(self._start[o] >= free).only_enforce_if(first)
            for other, follower in enumerate(operation, start=1):
                if other != index and follower != o and not (self._same_job(o, follower) and follower < o):
                    arc = model.new_bool_var("")
                    arcs.append((index, other, arc))
                    gap = setup[family[o]][family[follower]]
                    model.add(self._start[follower] >= self._end[o] + gap).only_enforce_if(arc)
        model.add_circuit(arcs)

    def _add_objective(self) -> None:
        """Minimise the weighted sum; jobs that are done count as what they took."""
        shop, model = self._shop, self._model
        makespan, tardiness, flow = shop.objective_weights
        terms: list[tuple[float, Callable[[], Any]]] = []
        completion = {
            j: self._end.get(operations[-1], int(self._state.end[operations[-1]]))
            for j, operations in self._jobs.items()
        }
        if makespan and completion:
            terms.append((makespan, lambda: self._maximum(list(completion.values()))))
        for j, end in completion.items():
            weight, due = float(shop.weight[j]), int(shop.due[j])
            if tardiness * weight and due < NO_DUE_DATE:
                terms.append((tardiness * weight, lambda end=end, due=due: self._maximum([end - due, 0])))  # type: ignore[misc]
            if flow * weight:
                terms.append((flow * weight, lambda end=end, j=j: end - int(shop.release[j])))  # type: ignore[misc]
        if not terms:
            return
        integers, self._scale = integral_weights([weight for weight, _ in terms], self._horizon)
        model.minimize(sum(factor * term() for factor, (_, term) in zip(integers, terms, strict=True)))

    def _maximum(self, values: list[Any]) -> Any:
        largest = self._model.new_int_var(0, max(self._horizon, 0), "")
        for value in values:
            self._model.add(largest >= value)
        return largest

    def hint(self, start: Sequence[int], mode: Sequence[int]) -> None:
        """Set a schedule to start from: start (N,) and flat mode (N,) of every operation."""
        self._model.clear_hints()  # type: ignore[no-untyped-call]
        for o, variable in self._start.items():
            self._model.add_hint(variable, start[o])
        for k, literal in self._chosen.items():
            self._model.add_hint(literal, mode[self._shop.mode_operation[k]] == k)

    def solve(self, limit_s: float, *, threads: int, seed: int, repair_only: bool = False) -> ModelResult:
        """Run CP-SAT; ``repair_only`` has it improve the hint by large neighbourhood search alone.

        Raises:
            RuntimeError: CP-SAT holds that there is no schedule, which the hint refutes.
        """
        cp_model = self._cp
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = threads
        solver.parameters.random_seed = seed
        solver.parameters.max_time_in_seconds = limit_s
        # One worker runs no large neighbourhood search unless several strategies take turns on it.
        solver.parameters.interleave_search = repair_only
        solver.parameters.use_lns_only = repair_only
        status = solver.solve(self._model)
        if status in (cp_model.MODEL_INVALID, cp_model.INFEASIBLE):
            raise RuntimeError(f"{self._shop.name}: CP-SAT finds the model {solver.status_name(status).lower()}")
        bound = max(0.0, solver.best_objective_bound) / self._scale
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return ModelResult(plan=None, bound=bound)
        return ModelResult(plan=self._plan(solver), bound=bound)

    def _plan(self, solver: Any) -> Plan:
        mode: list[int] = self._state.mode.tolist()
        for o in self._start:
            mode[o] = int(self._shop.mode_offset[o])
        for k, literal in self._chosen.items():
            if solver.value(literal):
                mode[self._shop.mode_operation[k]] = k
        key = {
            o: (solver.value(self._rank.get(o, start)), solver.value(self._end[o]), o)
            for o, start in self._start.items()
        }
        order: list[list[int]] = [[] for _ in range(self._shop.machines)]
        for o in sorted(key, key=key.__getitem__):
            order[self._shop.machine[mode[o]]].append(o)
        return Plan(mode=mode, order=order)
