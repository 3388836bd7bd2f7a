"""Rollout of a dispatching rule: every candidate of a decision is tried and the rule completes the schedule.

Known as the pilot method (Duin and Voss 1999) and as a fortified rollout algorithm (Bertsekas, Tsitsiklis
and Wu 1997): the best complete schedule seen is kept, and followed while no candidate improves on it.
"""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass

import numpy as np

from schedrl.arrays import F64, I64
from schedrl.baselines.jobshop.dispatch import complete
from schedrl.baselines.jobshop.outcomes import load_bound, outcome
from schedrl.baselines.jobshop.rules import SPT_TWKR, Rule
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.simulator import (
    GIFFLER_THOMPSON,
    Generation,
    Simulator,
    dispatch,
    find_candidates,
    reset_row,
)
from schedrl.envs.jobshop.solution import Schedule
from schedrl.envs.jobshop.state import State
from schedrl.kernels import inner, kernel
from schedrl.schedulers import Result

__all__ = ["Pilot"]

_COMMITTED, _TRIAL = 0, 1  # rows of the simulator


@inner
def _copy_row(state: State, source: int, target: int) -> None:
    """Copy what dispatching reads and writes; static arrays are equal already."""
    for job in range(state.jobs[source]):
        state.next_operation[target, job] = state.next_operation[source, job]
        state.job_ready[target, job] = state.job_ready[source, job]
    for machine in range(state.machines[source]):
        state.machine_free[target, machine] = state.machine_free[source, machine]
    for operation in range(state.operations[source]):
        state.start[target, operation] = state.start[source, operation]
    for slot in range(state.candidates[source]):
        state.candidate_job[target, slot] = state.candidate_job[source, slot]
        state.candidate_start[target, slot] = state.candidate_start[source, slot]
    state.candidates[target] = state.candidates[source]


@kernel
def _decide(
    state: State, key: F64, by_arrival: bool, delay: float, rule_delay: float, best: int, best_start: I64
) -> int:
    """Commit one decision and return the makespan of the best complete schedule, kept in ``best_start``."""
    chosen, earliest = 0, -1
    for slot in range(state.candidates[_COMMITTED]):
        operation = state.next_operation[_COMMITTED, state.candidate_job[_COMMITTED, slot]]
        if earliest < 0 or best_start[operation] < earliest:
            chosen, earliest = slot, best_start[operation]
    if state.candidates[_COMMITTED] > 1:
        for slot in range(state.candidates[_COMMITTED]):
            _copy_row(state, _COMMITTED, _TRIAL)
            dispatch(state, _TRIAL, slot, GIFFLER_THOMPSON)
            makespan = complete(state, _TRIAL, key, by_arrival, rule_delay)
            if makespan < best:
                best, chosen = makespan, slot
                for index in range(len(best_start)):
                    best_start[index] = state.start[_TRIAL, index]
    dispatch(state, _COMMITTED, chosen, GIFFLER_THOMPSON)
    find_candidates(state, _COMMITTED, GIFFLER_THOMPSON, delay)
    return best


@dataclass(frozen=True, slots=True, kw_only=True)
class Pilot:
    """Rollout of ``rule``, forward and then on the time-reversed instance while time is left.

    ``generation`` says which candidates a decision tries; the rule completes non-delay.
    """

    rule: Rule = SPT_TWKR
    generation: Generation = "active"

    def schedule(self, instance: JobShopInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best complete schedule seen within the limit; one pass of the rule always completes."""
        _compile()
        started = time.perf_counter()
        deadline = started + time_limit_s
        best, makespan, decisions = self._one_way(instance, deadline)
        if makespan > load_bound(instance) and time.perf_counter() < deadline:
            backward, backward_makespan, more = self._one_way(instance.reversed(), deadline)
            decisions += more
            if backward_makespan < makespan:
                best = backward.reversed(instance)
        return outcome(instance, best, started=started, decisions=decisions)

    def _one_way(self, instance: JobShopInstance, deadline: float) -> tuple[Schedule, int, int]:
        delay = 0.0 if self.generation == "non-delay" else 1.0
        state = Simulator([instance], 2, generation=self.generation, skip_forced=False).state
        key = self.rule.key(instance)
        best = complete(state, _TRIAL, key, self.rule.by_arrival, 0.0)
        best_start = state.start[_TRIAL, : instance.operations].copy()
        reset_row(state, _COMMITTED, GIFFLER_THOMPSON, delay, False)
        decisions = 0
        while state.candidates[_COMMITTED] > 0 and time.perf_counter() < deadline:
            best = _decide(state, key, self.rule.by_arrival, delay, 0.0, best, best_start)
            decisions += 1
        return Schedule(start_time=best_start), int(best), decisions


@functools.cache
def _compile() -> None:
    """Compile the kernels on first use, so that a time limit measures the search alone."""
    tiny = JobShopInstance.from_jobs([[(0, 1), (1, 1)], [(0, 1)]], name="tiny")
    Pilot()._one_way(tiny, math.inf)
