"""Tabu search with path relinking: short searches from points between elite schedules.

After Nowicki and Smutnicki (2005, i-TSAB) and Peng, Lu and Cheng (2015, TS/PR), with a small pool that is
seeded by dispatching rules instead of random schedules.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import numpy as np

from schedrl.arrays import I32
from schedrl.baselines.jobshop.disjunctive import Selection, load_sequence, new_selection, sequence_of
from schedrl.baselines.jobshop.dispatch import Dispatcher
from schedrl.baselines.jobshop.neighbourhood import (
    BEST,
    Search,
    distance,
    new_search,
    perturb,
    relink,
    restart,
    tabu_search,
)
from schedrl.baselines.jobshop.outcomes import load_bound, outcome
from schedrl.baselines.jobshop.rules import SPT_TWKR, best_rule_schedule
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule
from schedrl.schedulers import Result

__all__ = ["TabuSearch", "compiling_instance", "insert_elite", "leave_towards", "noisy_start"]

_CHUNK = 200  # iterations between two looks at the clock
_NEAR = 10  # elite schedules this close are perturbed instead of relinked
_SEED_SIGMA = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class TabuSearch:
    """Anytime tabu search that starts from the best dispatching rule.

    Args:
        patience: iterations without improvement that end one search.
        pool: number of elite schedules.
        max_iterations: stop after this many iterations in total; with a limit that never runs out the result
            depends on the seed alone.
    """

    patience: int = 5000
    pool: int = 15
    max_iterations: int = 2**62

    def schedule(self, instance: JobShopInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best schedule found; optimal when it meets the load bound."""
        _compile()
        started = time.perf_counter()
        first = best_rule_schedule(instance, deadline=started + time_limit_s)
        run = _Run(self, instance, started + time_limit_s, rng)
        run.improve(sequence_of(instance, first))
        while not run.over:
            run.improve(run.next_start())
        return outcome(instance, run.best_schedule(), started=started)


class _Run:
    """One call of ``TabuSearch.schedule``."""

    def __init__(
        self, options: TabuSearch, instance: JobShopInstance, deadline: float, rng: np.random.Generator
    ) -> None:
        self._options, self._deadline, self._rng = options, deadline, rng
        self._bound = load_bound(instance)
        self._selection: Selection = new_selection(instance)
        self._search: Search = new_search(
            instance.machine, instance.jobs, instance.machines, int(rng.integers(2**31 - 1))
        )
        self._instance, self._dispatcher = instance, Dispatcher(instance)
        self._elite: list[tuple[int, I32]] = []  # makespan and sequence, best first
        self._left = options.max_iterations

    @property
    def over(self) -> bool:
        """Whether time or iterations are used up, or the best schedule meets the bound."""
        return time.perf_counter() >= self._deadline or self._left <= 0 or self._elite[0][0] <= self._bound

    def improve(self, sequence: I32 | None) -> None:
        """Search from a sequence (None: from where the selection stands) and offer the best to the pool."""
        if sequence is not None:
            load_sequence(self._selection, sequence)
        restart(self._search)
        searching = True
        # The first chunk always runs: it records the start itself as the best so far.
        while searching:
            chunk = int(min(_CHUNK, max(self._left, 1)))
            searching = tabu_search(self._selection, self._search, chunk, self._options.patience, self._bound)
            self._left -= chunk
            searching = searching and self._left > 0 and time.perf_counter() < self._deadline
        found = int(self._search.counters[BEST])
        insert_elite(self._elite, found, self._search.best_sequence.copy(), self._options.pool)

    def next_start(self) -> I32 | None:
        """Return a sequence by a randomised rule while the pool fills, then stand between two elite ones."""
        if len(self._elite) < self._options.pool:
            return noisy_start(self._instance, self._dispatcher, self._rng)
        one, other = self._rng.choice(len(self._elite), 2, replace=False)
        load_sequence(self._selection, self._elite[other][1])
        goal = self._selection.place.copy()
        load_sequence(self._selection, self._elite[one][1])
        leave_towards(self._selection, self._search, goal, self._rng)
        return None

    def best_schedule(self) -> Schedule:
        """Return the best schedule of the pool."""
        load_sequence(self._selection, self._elite[0][1])
        return Schedule(start_time=self._selection.head.copy())


def insert_elite(elite: list[tuple[int, I32]], makespan: int, sequence: I32, size: int) -> None:
    """Keep a sequence (N,) among the ``size`` best, best first, unless it is there already."""
    if not any(makespan == value and np.array_equal(sequence, other) for value, other in elite):
        elite.append((makespan, sequence))
        elite.sort(key=lambda entry: entry[0])
        del elite[size:]


def noisy_start(instance: JobShopInstance, dispatcher: Dispatcher, rng: np.random.Generator) -> I32:
    """Return the sequence (N,) of a pass of SPT/TWKR with log-normal noise."""
    noise = np.exp(_SEED_SIGMA * rng.standard_normal(instance.operations))
    dispatcher.run(SPT_TWKR.key(instance) * noise)
    return sequence_of(instance, dispatcher.schedule())


def leave_towards(selection: Selection, search: Search, goal: I32, rng: np.random.Generator) -> None:
    """Walk about half the way to the sequences with these places (N,), or anywhere when they are near."""
    apart = distance(selection, goal)
    if apart <= _NEAR:
        perturb(selection, search, 2 * _NEAR)
    else:
        relink(selection, search, goal, int(apart * rng.uniform(0.3, 0.7)))


def compiling_instance() -> JobShopInstance:
    """Return a small instance on which all moves of a search happen, so that their kernels compile."""
    jobs = [[(machine, 1) for machine in order] for order in ((0, 1, 2), (1, 0, 2), (0, 1, 2), (1, 0, 2), (0, 2, 1))]
    return JobShopInstance.from_jobs(jobs, name="tiny")


@functools.cache
def _compile() -> None:
    """Compile the kernels on first use, so that a time limit measures the search alone."""
    tiny, rng = compiling_instance(), np.random.default_rng(0)
    run = _Run(TabuSearch(max_iterations=1), tiny, 0.0, rng)
    run.improve(sequence_of(tiny, best_rule_schedule(tiny, deadline=0.0)))
    leave_towards(run._selection, run._search, run._selection.place.copy(), rng)
    leave_towards(run._selection, run._search, np.arange(tiny.operations, dtype=np.int32)[::-1].copy(), rng)
