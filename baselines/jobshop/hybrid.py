"""Hybrid of learning and search: the trained policy's samples start tabu search, CP-SAT and neighbourhood search.

The policy plays forward and on the time-reversed instance; its best schedules seed the pool of a tabu search with
path relinking (Nowicki and Smutnicki 2005; Peng, Lu and Cheng 2015). All threads share pool and incumbent.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numba import njit

from schedrl.arrays import I32
from schedrl.baselines.jobshop.disjunctive import Selection, load_sequence, new_selection, sequence_of
from schedrl.baselines.jobshop.dispatch import Dispatcher
from schedrl.baselines.jobshop.exact import CpSat
from schedrl.baselines.jobshop.incumbent import Incumbent, IncumbentCallback
from schedrl.baselines.jobshop.large_neighbourhood import NeighbourhoodSearch, run_together
from schedrl.baselines.jobshop.learned import REVERSED
from schedrl.baselines.jobshop.neighbourhood import (
    BEST,
    Search,
    new_search,
    restart,
    tabu_search,
)
from schedrl.baselines.jobshop.rules import best_rule_schedule
from schedrl.baselines.jobshop.tabu import compiling_instance, insert_elite, leave_towards, noisy_start
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule
from schedrl.errors import ConfigError
from schedrl.families import get_family
from schedrl.learned import load_policy
from schedrl.rollout import IDENTITY, View, play
from schedrl.schedulers import Result, SchedulerSpec

if TYPE_CHECKING:
    from schedrl.export.runtime import BundlePolicy

__all__ = ["SCHEDULERS", "Hybrid", "Method"]

Method: TypeAlias = Literal["policy", "tabu", "cp-sat", "lns"]

_CHUNK = 100  # iterations between two looks at the clock and at the other threads
# Batches of sampled episodes grow while they fit: a row of a larger batch takes no longer than one of a smaller.
_BATCH_GROWTH, _LARGEST_BATCH = 4, 64
_MARGIN = 0.8  # of the time left that the next batch may take, for an episode cut short is lost
_EFFORT = 0.03
_LARGEST_EXACT = 1000  # operations; beyond, CP-SAT spends its share on presolving


@dataclass(frozen=True, slots=True, kw_only=True)
class Hybrid:
    """Anytime search by several methods in turn, on as many threads as wanted.

    Args:
        threads: the first goes through ``lead``, the others, or a single one, through ``phases``.
        samples: most sampled episodes, half of them time-reversed; fewer where time is short.
        phases: methods and the part of the time limit, counted from its beginning, at which each ends at the latest.
        lead: the same for the first of several threads.
        patience: iterations without improvement that end one tabu search.
        pool: number of elite schedules.
        bundle: an exported policy other than the one shipped.
        on_incumbent: called with every new best makespan.

    Raises:
        ConfigError: an option outside its range.
    """

    threads: int = 2
    samples: int = 128
    phases: tuple[tuple[Method, float], ...] = (
        ("policy", 0.15),
        ("tabu", 0.5),
        ("cp-sat", 0.55),
        ("lns", 1.0),
    )
    lead: tuple[tuple[Method, float], ...] = (("tabu", 1.0),)
    patience: int = 5000
    pool: int = 15
    bundle: Path | None = None
    on_incumbent: IncumbentCallback | None = None

    def __post_init__(self) -> None:
        for field in ("threads", "samples", "patience", "pool"):
            if getattr(self, field) < 1:
                raise ConfigError(f"option {field}: {getattr(self, field)}, expected at least 1")
        for method, until in (*self.phases, *self.lead):
            if method not in get_args(Method) or not 0.0 <= until <= 1.0:
                known = ", ".join(get_args(Method))
                raise ConfigError(f"options phases and lead: {(method, until)!r}, expected one of {known} and 0 to 1")

    def schedule(self, instance: JobShopInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best schedule found; optimal when it meets a bound that CP-SAT or the loads prove."""
        _compile()
        plays = any(method == "policy" for method, _ in (*self.phases, *self.lead))
        policy = _policy(self.bundle) if plays else None
        started = time.perf_counter()
        first = best_rule_schedule(instance, deadline=started + time_limit_s)
        incumbent = Incumbent(instance, first, started=started, on_incumbent=self.on_incumbent)
        run = _Run(self, instance, incumbent, policy, started, time_limit_s)
        run.pool.add_start(incumbent.best[0], first)
        run_together([partial(run.thread, number, child) for number, child in enumerate(rng.spawn(self.threads))])
        return incumbent.result(run.decisions)


class _Pool:
    """Elite schedules as machine sequences, best first, and the starts that no search has taken yet."""

    def __init__(self, instance: JobShopInstance, size: int) -> None:
        self._instance, self.size = instance, size
        self._lock = threading.Lock()
        self._elite: list[tuple[int, I32]] = []
        self._starts: list[tuple[int, I32]] = []

    def add_start(self, makespan: int, schedule: Schedule) -> None:
        """Keep a schedule to search from when it is among the best."""
        with self._lock:
            insert_elite(self._starts, makespan, sequence_of(self._instance, schedule), self.size)

    def offer(self, makespan: int, sequence: I32) -> None:
        """Keep what a search has found when it is among the best and new."""
        with self._lock:
            insert_elite(self._elite, makespan, sequence, self.size)

    def take_start(self) -> I32 | None:
        """Remove and return the best start, None when there is none."""
        with self._lock:
            return self._starts.pop(0)[1] if self._starts else None

    @property
    def elite(self) -> list[tuple[int, I32]]:
        """A copy of the list; sequences are never changed."""
        with self._lock:
            return list(self._elite)


class _Sampler:
    """Plays the policy in both directions of time, in batches that grow while they fit the time."""

    def __init__(
        self, instance: JobShopInstance, incumbent: Incumbent, pool: _Pool, policy: BundlePolicy, samples: int
    ) -> None:
        self._instance, self._incumbent, self._pool = instance, incumbent, pool
        self._policy, self._samples = policy, samples

    def run(self, deadline: float, rng: np.random.Generator) -> int:
        """Return the number of decisions made until the deadline, a ``time.perf_counter`` reading."""
        now = time.perf_counter()
        decisions = self._one_way(IDENTITY, now + (deadline - now) / 2, rng)
        return decisions + self._one_way(REVERSED, deadline, rng)

    def _one_way(self, view: View, deadline: float, rng: np.random.Generator) -> int:
        """Play one greedy episode, then sampled ones."""
        family = get_family("jobshop")
        policy, viewed = self._policy.session(), view.instance(self._instance)
        graph = family.static_graph(viewed)
        decisions, rows, left, greedy = 0, 1, max(1, self._samples // 2), True
        while rows > 0 and not (self._incumbent.optimal and decisions):
            started = time.perf_counter()
            simulator = family.make_simulator([viewed], rows, **self._policy.manifest.simulator)
            policy.begin([graph] * rows)
            decisions += play(policy, family, simulator, rng=None if greedy else rng, deadline=deadline)
            for row in range(rows):
                if simulator.finished(row):
                    self._keep(view.solution(self._instance, simulator.solution(row)), int(simulator.objective(row)))
            left -= 0 if greedy else rows
            greedy = False
            ended = time.perf_counter()
            fitting = int(_MARGIN * max(deadline - ended, 0.0) / max((ended - started) / rows, 1e-9))
            rows = min(rows * _BATCH_GROWTH, _LARGEST_BATCH, fitting, left)
        return decisions

    def _keep(self, schedule: Schedule, makespan: int) -> None:
        self._incumbent.offer(schedule)
        self._pool.add_start(makespan, schedule)


class _Run:
    """One call of ``Hybrid.schedule``; ``decisions`` are the policy's."""

    def __init__(
        self,
        options: Hybrid,
        instance: JobShopInstance,
        incumbent: Incumbent,
        policy: BundlePolicy | None,
        started: float,
        time_limit_s: float,
    ) -> None:
        self._options, self._instance, self._incumbent, self._policy = options, instance, incumbent, policy
        self._started, self._time_limit_s = started, time_limit_s
        self.pool = _Pool(instance, options.pool)
        self.decisions = 0
        self._lock = threading.Lock()

    def thread(self, number: int, rng: np.random.Generator) -> None:
        """Go through the methods of one thread."""
        methods: dict[str, Callable[[float, np.random.Generator], None]] = {
            "policy": self._samples,
            "tabu": self._tabu,
            "cp-sat": self._exact,
            "lns": self._neighbourhoods,
        }
        alone = self._options.threads == 1
        phases = self._options.phases if alone or number > 0 else self._options.lead
        for method, until in phases:
            deadline = self._started + until * self._time_limit_s
            if time.perf_counter() < deadline and not self._incumbent.optimal:
                methods[method](deadline, rng)

    def _samples(self, deadline: float, rng: np.random.Generator) -> None:
        assert self._policy is not None
        sampler = _Sampler(self._instance, self._incumbent, self.pool, self._policy, self._options.samples)
        decisions = sampler.run(deadline, rng)
        with self._lock:
            self.decisions += decisions

    def _tabu(self, deadline: float, rng: np.random.Generator) -> None:
        _Relinking(self._options, self._instance, self._incumbent, self.pool, rng).run(deadline)

    def _exact(self, deadline: float, rng: np.random.Generator) -> None:
        if self._instance.operations > _LARGEST_EXACT:
            return
        solver = CpSat(hint=self._incumbent.best[1])
        result = solver.schedule(self._instance, time_limit_s=deadline - time.perf_counter(), rng=rng)
        assert isinstance(result.solution, Schedule) and result.lower_bound is not None
        self._incumbent.offer(result.solution)
        self._incumbent.prove(int(result.lower_bound))

    def _neighbourhoods(self, deadline: float, rng: np.random.Generator) -> None:
        NeighbourhoodSearch(self._instance, self._incumbent, rng, _EFFORT).run(deadline)


class _Relinking:
    """One thread of tabu search between elite schedules."""

    def __init__(
        self,
        options: Hybrid,
        instance: JobShopInstance,
        incumbent: Incumbent,
        pool: _Pool,
        rng: np.random.Generator,
    ) -> None:
        self._instance, self._incumbent, self._pool, self._rng = instance, incumbent, pool, rng
        self._patience = options.patience
        self._selection: Selection = new_selection(instance)
        seed = int(rng.integers(2**31 - 1))
        self._search: Search = new_search(instance.machine, instance.jobs, instance.machines, seed)
        self._dispatcher = Dispatcher(instance)

    def run(self, deadline: float) -> None:
        """Search until the deadline or until the incumbent is optimal."""
        while time.perf_counter() < deadline and not self._incumbent.optimal:
            self._load_start()
            self.improve(deadline)

    def improve(self, deadline: float) -> None:
        """Search from where the selection stands, and offer the best to the pool and as incumbent."""
        restart(self._search)
        searching, known = True, 2**62
        while searching:
            bound = self._incumbent.bound
            searching = _search_unlocked(self._selection, self._search, _CHUNK, self._patience, bound)
            found = int(self._search.counters[BEST])
            if found < known and found < self._incumbent.best[0]:
                self._incumbent.offer(self._schedule_of(self._search.best_sequence))
            known = found
            searching = searching and time.perf_counter() < deadline
        self._pool.offer(known, self._search.best_sequence.copy())

    def _schedule_of(self, sequence: I32) -> Schedule:
        selection = new_selection(self._instance)
        load_sequence(selection, sequence)
        return Schedule(start_time=selection.head)

    def _load_start(self) -> None:
        """Load an untried start; else a new best by another method; else a point between two elite schedules."""
        start = self._pool.take_start()
        elite = self._pool.elite
        value, schedule = self._incumbent.best
        if start is None and elite and value < elite[0][0]:
            start = sequence_of(self._instance, schedule)
            self._pool.offer(value, start)
        elif start is None and len(elite) < max(self._pool.size, 2):
            start = noisy_start(self._instance, self._dispatcher, self._rng)
        if start is not None:
            load_sequence(self._selection, start)
            return
        one, other = self._rng.choice(len(elite), 2, replace=False)
        load_sequence(self._selection, elite[other][1])
        goal = self._selection.place.copy()
        load_sequence(self._selection, elite[one][1])
        leave_towards(self._selection, self._search, goal, self._rng)


# The kernel again, but other threads run meanwhile; the options are those of ``schedrl.kernels``.
_UNLOCKED: dict[str, Any] = {"cache": True, "error_model": "numpy", "_nrt": False, "nogil": True}


@njit(**_UNLOCKED)  # type: ignore[untyped-decorator, unused-ignore]
def _search_unlocked(g: Any, s: Any, iterations: int, patience: int, bound: int) -> bool:
    return tabu_search(g, s, iterations, patience, bound)


@functools.cache
def _policy(bundle: Path | None) -> BundlePolicy:
    """Load weights and compile the simulator on first use; neither is part of solving an instance."""
    policy = load_policy("jobshop", "jobshop", bundle)
    tiny = JobShopInstance.from_jobs([[(0, 1), (1, 1)], [(0, 1)]], name="tiny")
    incumbent = Incumbent(tiny, best_rule_schedule(tiny), started=0.0)
    _Sampler(tiny, incumbent, _Pool(tiny, 1), policy, 1).run(0.0, np.random.default_rng(0))
    return policy


@functools.cache
def _compile() -> None:
    """Compile the kernels on first use, so that a time limit measures the search alone."""
    tiny, rng = compiling_instance(), np.random.default_rng(0)
    first = best_rule_schedule(tiny)
    incumbent = Incumbent(tiny, first, started=0.0)
    relinking = _Relinking(Hybrid(), tiny, incumbent, _Pool(tiny, 2), rng)
    selection, search = relinking._selection, relinking._search
    load_sequence(selection, sequence_of(tiny, first))
    relinking.improve(0.0)
    leave_towards(selection, search, np.arange(tiny.operations, dtype=np.int32)[::-1].copy(), rng)
    leave_towards(selection, search, selection.place.copy(), rng)


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="jobshop/hybrid",
        make=Hybrid,  # type: ignore[arg-type]
        with_bundle=lambda bundle: Hybrid(bundle=bundle),  # type: ignore[arg-type, return-value]
        information="clairvoyant",
        summary="trained policy's samples, then tabu search with path relinking, CP-SAT and LNS on two threads",
        source="the policy of jobshop/ppo; Peng, Lu and Cheng 2015; Godard, Laborie and Nuijten 2005",
        randomised=True,
    ),
)
