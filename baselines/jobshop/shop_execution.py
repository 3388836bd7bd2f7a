"""Carrying out a plan of a shop event by event: operations start in the planned order as soon as the shop lets them.

Plain Python, independent of the simulator: it serves methods whose time goes into a solver.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np

from schedrl.arrays import I64, Bool
from schedrl.envs.jobshop.shop import NO_DUE_DATE, ShopInstance

__all__ = ["Execution", "Outages", "Plan", "ShopState", "outages_of", "project", "weighted_objective"]

Outages = list[tuple[list[int], list[int]]]
"""starts and ends of the outages of each machine"""


@dataclass(slots=True, kw_only=True)
class Plan:
    """The mode of every planned operation and the order of operations on every machine."""

    mode: list[int]
    """(N,) flat index of the mode, -1 where none is planned"""
    order: list[list[int]]
    """(M, operations of the machine) in the order in which they start"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopState:
    """What has happened by ``now``, and what is expected of that which goes on."""

    now: int
    known: Bool  # (J,) jobs that may be planned
    mode: I64  # (N,) flat mode of each started operation, -1 of the others
    start: I64  # (N,) start of each started operation
    end: I64  # (N,) completion of each started operation; after now, an expectation
    available: I64  # (M,) no operation starts on the machine before

    @classmethod
    def initial(cls, shop: ShopInstance, known: Bool | None = None) -> Self:
        """Return the state at time 0, in which all jobs are known unless ``known`` (J,) says otherwise."""
        none = np.full(shop.operations, -1, dtype=np.int64)
        everything = np.ones(shop.jobs, dtype=np.bool_) if known is None else known
        available = np.zeros(shop.machines, dtype=np.int64)
        return cls(now=0, known=everything, mode=none, start=none, end=none, available=available)


def outages_of(shop: ShopInstance) -> Outages:
    """Return the outages of every machine as lists."""
    offset = shop.outage_offset.tolist()
    start, end = shop.outage_start.tolist(), shop.outage_end.tolist()
    return [(start[a:b], end[a:b]) for a, b in pairwise(offset)]


def weighted_objective(shop: ShopInstance, completion: I64, known: Bool | None = None) -> float:
    """Return the weighted objective of job completions (J,), of the jobs in ``known`` (J,) alone where given."""
    chosen = np.ones(shop.jobs, dtype=np.bool_) if known is None else known
    if not chosen.any():
        return 0.0
    end, weight, due = completion[chosen], shop.weight[chosen], shop.due[chosen]
    tardiness = np.where(due < NO_DUE_DATE, np.maximum(end - due, 0), 0)
    terms = (float(end.max()), float(weight @ tardiness), float(weight @ (end - shop.release[chosen])))
    return sum(factor * term for factor, term in zip(shop.objective_weights, terms, strict=True))


class Execution:
    """A shop in operation; its clock moves from event to event and ``dispatch`` starts what the plan allows.

    ``end`` holds completions that lie ahead: planning methods must not read those after ``now``.

    Args:
        shop: the instance; only its structure, releases and setups are read.
        duration: (K,) of every mode.
        outages: of every machine.
        state: where to begin; the completions of running operations are taken as they are.
    """

    def __init__(self, shop: ShopInstance, duration: list[int], outages: Outages, state: ShopState) -> None:
        self.shop = shop
        self.now = state.now
        self.mode: list[int] = state.mode.tolist()
        self.start: list[int] = state.start.tolist()
        self.end: list[int] = state.end.tolist()
        self._duration, self._outages = duration, outages
        self._available: list[int] = state.available.tolist()
        self._machine: list[int] = shop.machine.tolist()
        self._job: list[int] = shop.job.tolist()
        self._first: list[int] = shop.job_offset[:-1].tolist()
        self._after: list[int] = shop.job_offset[1:].tolist()
        self._release: list[int] = shop.release.tolist()
        self._family: list[int] = shop.setup_family.tolist()
        self._setup = shop.setup.tolist() if shop.setup.any() else None
        self._order: list[deque[int]] = [deque() for _ in range(shop.machines)]
        self.last = [-1] * shop.machines
        """(M,) operation that started last on each machine, -1 for none"""
        self._holder = [-1] * shop.machines
        started = [o for o in range(shop.operations) if self.mode[o] >= 0]
        for o in sorted(started, key=lambda o: (self.start[o], self.end[o])):
            self._occupy(o)
        self._times = [*self._release, *self._available, *(self.end[o] for o in started)]
        for starts, ends in outages:
            self._times += starts + ends
        heapq.heapify(self._times)

    def wake(self, when: int) -> None:
        """Make ``when`` an event."""
        heapq.heappush(self._times, when)

    def follow(self, plan: Plan) -> None:
        """Take a plan of the operations that have not started."""
        self._order = [deque(order) for order in plan.order]
        self._planned = plan.mode

    def remaining(self) -> Plan:
        """Return the part of the plan that has not started."""
        return Plan(mode=list(self._planned), order=[list(order) for order in self._order])

    def advance(self) -> bool:
        """Move the clock to the next event; return whether there was one."""
        while self._times:
            when = heapq.heappop(self._times)
            if when > self.now:
                self.now = when
                return True
        return False

    def dispatch(self) -> list[int]:
        """Start whatever the plan and the shop allow now; return the operations that started."""
        started: list[int] = []
        while moving := self._movable():
            for o in moving:
                self._begin(o)
            for o in moving:
                self._occupy(o)
            started += moving
        return started

    def up(self, machine: int) -> bool:
        """Return whether a machine is up now."""
        starts, ends = self._outages[machine]
        index = bisect_right(starts, self.now) - 1
        return index < 0 or ends[index] <= self.now

    def _movable(self) -> list[int]:
        ready = [order[0] for order in self._order if order and self._ready(order[0])]
        if self.shop.blocking == "none":
            return ready
        if self.shop.blocking == "no-swap":
            return [o for o in ready if self._vacant(o)]
        # The largest set whose members find their machines empty or leave them to each other.
        moving = set(ready)
        while stay := {o for o in moving if not self._vacant(o) and self._follower(self._holder_of(o)) not in moving}:
            moving -= stay
        return sorted(moving)

    def _follower(self, o: int) -> int:
        """Return the next operation of the same job, -1 after the last."""
        return o + 1 if o + 1 < self._after[self._job[o]] else -1

    def _holder_of(self, o: int) -> int:
        return self._holder[self._machine[self._planned[o]]]

    def _vacant(self, o: int) -> bool:
        """Return whether nothing but the operation's own job keeps its machine."""
        holder = self._holder_of(o)
        if holder < 0 or (holder == o - 1 and self._job[holder] == self._job[o]):
            return True
        return self._follower(holder) < 0 and self.end[holder] <= self.now

    def _ready(self, o: int) -> bool:
        """Return whether job and machine let an operation start now, blocking aside."""
        job, machine = self._job[o], self._machine[self._planned[o]]
        if o == self._first[job]:
            if self._release[job] > self.now:
                return False
        elif self.mode[o - 1] < 0 or self.end[o - 1] > self.now:
            return False
        if self._available[machine] > self.now or not self.up(machine):
            return False
        before = self.last[machine]
        if before < 0 or self.shop.blocking != "none":
            return True
        free = self.end[before]
        if self._setup is not None:
            free += self._setup[machine][self._family[before]][self._family[o]]
            self.wake(free)
        return free <= self.now

    def _begin(self, o: int) -> None:
        mode = self._planned[o]
        machine = self._machine[mode]
        self._order[machine].popleft()
        self.mode[o], self.start[o] = mode, self.now
        self.end[o] = self.completion(machine, self.now, self._duration[mode])
        self.wake(self.end[o])

    def _occupy(self, o: int) -> None:
        """Note that an operation has started: its machine is taken and that of the one before it left."""
        machine = self._machine[self.mode[o]]
        if o > self._first[self._job[o]]:
            left = self._machine[self.mode[o - 1]]
            if self._holder[left] == o - 1:
                self._holder[left] = -1
        self._holder[machine] = self.last[machine] = o

    def completion(self, machine: int, start: int, duration: int) -> int:
        """Return when an operation completes that pauses in outages."""
        starts, ends = self._outages[machine]
        now = start
        for index in range(bisect_right(starts, start), len(starts)):
            if starts[index] >= now + duration:
                break
            duration -= starts[index] - now
            now = ends[index]
        return now + duration


def project(shop: ShopInstance, duration: list[int], outages: Outages, state: ShopState, plan: Plan) -> Execution:
    """Return the execution of a plan to its end; operations that it never reaches keep mode -1."""
    execution = Execution(shop, duration, outages, state)
    execution.follow(plan)
    execution.dispatch()
    while execution.advance():
        execution.dispatch()
    return execution
