"""Genetic algorithm on permutations with repetition, decoded between non-delay and active schedules.

Bierwirth (1995): a chromosome names each job once per operation, its k-th gene is the job's k-th operation; crossover
is his generalised order crossover. Decoder with tunable look-ahead: Bierwirth and Mattfeld (1999).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from schedrl.arrays import F64, I32, I64
from schedrl.baselines.jobshop.dispatch import Dispatcher, complete
from schedrl.baselines.jobshop.incumbent import Incumbent, IncumbentCallback
from schedrl.baselines.jobshop.rules import RULES, SPT_TWKR, best_rule_schedule
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.simulator import GIFFLER_THOMPSON, Simulator, reset_row
from schedrl.envs.jobshop.solution import Schedule
from schedrl.envs.jobshop.state import State
from schedrl.errors import ConfigError
from schedrl.kernel_arguments import by_reference
from schedrl.kernels import kernel
from schedrl.schedulers import Result, SchedulerSpec

__all__ = ["SCHEDULERS", "Genetic"]

_SEED_SIGMA = 0.3


@by_reference
class _Population(NamedTuple):
    """Chromosomes as operations: the k-th gene of a job is its k-th operation, so jobs keep their order."""

    parent: I32  # (P, N)
    child: I32  # (P, N)
    offset: I32  # (J + 1,) first operation of each job
    job: I32  # (N,) job of each operation
    key: F64  # (P, N) place of each operation in its chromosome: the decoder's priority
    makespan: I64  # (P,) of the children once decoded
    next_operation: I32  # (J,) scratch
    in_substring: I32  # (N,) scratch: 1 for operations of the donor's substring
    genes: I32  # (N,) scratch


@kernel
def _cross(p: _Population, index: int, receiver: int, donor: int, first: int, length: int) -> None:
    """Write child ``index``: a substring of the donor, put where it begins in the receiver, whose copies give way.

    A substring that runs over the donor's end wraps, and its parts stay at the end and at the beginning.
    """
    count = p.parent.shape[1]
    for operation in range(count):
        p.in_substring[operation] = 0
    for place in range(first, first + length):
        p.in_substring[p.parent[donor, place % count]] = 1
    write = 0
    wraps = first + length > count
    if wraps:
        for place in range(first + length - count):
            p.genes[write] = p.parent[donor, place]
            write += 1
    for place in range(count):
        operation = p.parent[receiver, place]
        if not wraps and operation == p.parent[donor, first]:
            for k in range(first, first + length):
                p.genes[write] = p.parent[donor, k]
                write += 1
        elif p.in_substring[operation] == 0:
            p.genes[write] = operation
            write += 1
    if wraps:
        for place in range(first, count):
            p.genes[write] = p.parent[donor, place]
            write += 1
    _number(p, index)


@kernel
def _copy(p: _Population, index: int, parent: int) -> None:
    for place in range(p.parent.shape[1]):
        p.child[index, place] = p.parent[parent, place]


@kernel
def _move(p: _Population, index: int, source: int, target: int) -> None:
    """Take the gene at ``source`` of a child out and put it back at ``target``."""
    moved = p.child[index, source]
    step = 1 if target > source else -1
    for place in range(source, target, step):
        p.child[index, place] = p.child[index, place + step]
    p.child[index, target] = moved
    for place in range(p.child.shape[1]):
        p.genes[place] = p.child[index, place]
    _number(p, index)


@kernel
def _number(p: _Population, index: int) -> None:
    """Write the scratch genes to a child as a permutation with repetition: only the job of a gene counts."""
    for j in range(len(p.next_operation)):
        p.next_operation[j] = p.offset[j]
    for place in range(len(p.genes)):
        j = p.job[p.genes[place]]
        p.child[index, place] = p.next_operation[j]
        p.next_operation[j] += 1


@kernel
def _decode(state: State, p: _Population, delay: float) -> int:
    """Decode all children, and return the index of the best."""
    best = 0
    for index in range(len(p.makespan)):
        for place in range(p.child.shape[1]):
            p.key[index, p.child[index, place]] = place
        reset_row(state, index, GIFFLER_THOMPSON, delay, False)
        p.makespan[index] = complete(state, index, p.key[index], False, delay)
        if p.makespan[index] < p.makespan[best]:
            best = index
    return best


@dataclass(frozen=True, slots=True, kw_only=True)
class Genetic:
    """Anytime genetic algorithm; a population that no longer improves gives way to a new one.

    Args:
        population: chromosomes P.
        crossover: probability of a crossover, else the child is a copy.
        mutation: probability that one gene of a child moves elsewhere.
        delay: look-ahead of the decoder, 0 for non-delay and 1 for active schedules.
        patience: generations without improvement that end a population.
        max_generations: stop after this many generations in total; with a limit that never runs out the result
            depends on the seed alone.
        on_incumbent: called with every new best makespan.

    Raises:
        ConfigError: an option outside its range.
    """

    population: int = 100
    crossover: float = 0.8
    mutation: float = 0.5
    delay: float = 0.3
    patience: int = 300
    max_generations: int = 2**62
    on_incumbent: IncumbentCallback | None = None

    def __post_init__(self) -> None:
        if self.population < 2:
            raise ConfigError(f"option population: {self.population}, expected at least 2")
        if self.patience < 1:
            raise ConfigError(f"option patience: {self.patience}, expected at least 1")
        for field in ("crossover", "mutation", "delay"):
            if not 0.0 <= getattr(self, field) <= 1.0:
                raise ConfigError(f"option {field}: {getattr(self, field)}, expected 0 to 1")

    def schedule(self, instance: JobShopInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best schedule found, never worse than the best rule's; optimal when it meets the load bound."""
        _compile()
        started = time.perf_counter()
        first = best_rule_schedule(instance, deadline=started + time_limit_s)
        incumbent = Incumbent(instance, first, started=started, on_incumbent=self.on_incumbent)
        _Run(self, instance, incumbent, started + time_limit_s, rng).run()
        return incumbent.result()


class _Run:
    """One call of ``Genetic.schedule``."""

    def __init__(
        self,
        options: Genetic,
        instance: JobShopInstance,
        incumbent: Incumbent,
        deadline: float,
        rng: np.random.Generator,
    ) -> None:
        self._options, self._instance, self._incumbent = options, instance, incumbent
        self._deadline, self._rng = deadline, rng
        self._left = options.max_generations
        size = options.population
        self._simulator = Simulator([instance], size, delay_factor=options.delay, skip_forced=False)
        shape = size, instance.operations
        self._population = _Population(
            parent=np.zeros(shape, dtype=np.int32),
            child=np.zeros(shape, dtype=np.int32),
            offset=instance.job_offset.copy(),
            job=instance.job.copy(),
            key=np.zeros(shape),
            makespan=np.zeros(size, dtype=np.int64),
            next_operation=np.zeros(instance.jobs, dtype=np.int32),
            in_substring=np.zeros(instance.operations, dtype=np.int32),
            genes=np.zeros(instance.operations, dtype=np.int32),
        )

    @property
    def over(self) -> bool:
        """Whether time or generations are used up, or the best schedule is optimal."""
        return self._left <= 0 or self._incumbent.optimal or time.perf_counter() >= self._deadline

    def run(self) -> None:
        """Evolve one population after the other."""
        while not self.over:
            self._seed()
            self._evolve()

    def _seed(self) -> None:
        """Fill the children with rules in both directions, then with noisy ones."""
        for index, start in zip(range(self._options.population), self._seeds(), strict=False):
            self._population.child[index] = self._chromosome(start)
            if time.perf_counter() >= self._deadline:
                self._population.child[index + 1 :] = self._population.child[index]
                return

    def _seeds(self) -> Iterator[I64]:
        """Yield start times: the best schedule so far, the rules, then endless noisy passes of the best rule."""
        yield self._incumbent.best[1].start_time
        sides = (self._instance, self._instance.reversed())
        dispatchers = [Dispatcher(side) for side in sides]
        for rule in RULES:
            for side, dispatcher in zip(sides, dispatchers, strict=True):
                dispatcher.run(rule.key(side), by_arrival=rule.by_arrival)
                yield self._forward(dispatcher.schedule(), side is not self._instance)
        turn = 0
        while True:
            side, dispatcher = sides[turn % 2], dispatchers[turn % 2]
            dispatcher.run(SPT_TWKR.key(side) * np.exp(_SEED_SIGMA * self._rng.standard_normal(side.operations)))
            yield self._forward(dispatcher.schedule(), turn % 2 == 1)
            turn += 1

    def _forward(self, schedule: Schedule, is_reversed: bool) -> I64:
        return (schedule.reversed(self._instance) if is_reversed else schedule).start_time

    def _chromosome(self, start: I64) -> I32:
        """Return the operations in order of start; zero durations come before what starts with them."""
        end = start + self._instance.duration
        return np.lexsort((np.arange(len(start)), end, start)).astype(np.int32)

    def _evolve(self) -> None:
        """Breed generations until the population stalls; the children of the last are the parents of the next."""
        best, stalled, elite = 2**62, 0, 0
        while True:
            elite = _decode(self._simulator.state, self._population, self._options.delay)
            self._left -= 1
            found = int(self._population.makespan[elite])
            stalled = 0 if found < best else stalled + 1
            best = min(best, found)
            if found < self._incumbent.best[0]:
                self._incumbent.offer(self._simulator.solution(elite))
            if self.over or stalled >= self._options.patience:
                return
            self._population.parent[:] = self._population.child
            self._breed(elite)

    def _breed(self, elite: int) -> None:
        """Write the next children: the best parent, and offspring of parents drawn by inverse rank."""
        options, rng, count = self._options, self._rng, self._instance.operations
        size = options.population
        ranking = np.argsort(self._population.makespan, kind="stable")
        chance = np.arange(size, 0, -1, dtype=np.float64)
        pairs = ranking[rng.choice(size, (size, 2), p=chance / chance.sum())]
        crosses, moves = rng.random(size) < options.crossover, rng.random(size) < options.mutation
        first = rng.integers(count, size=size)
        # Bierwirth's substrings hold a third to a half of the genes.
        length = rng.integers(max(count // 3, 1), max(count // 2, 1), size=size, endpoint=True)
        places = rng.integers(count, size=(size, 2))
        _copy(self._population, 0, elite)
        for index in range(1, size):
            receiver, donor = pairs[index]
            if crosses[index]:
                _cross(self._population, index, receiver, donor, first[index], length[index])
            else:
                _copy(self._population, index, receiver)
            if moves[index]:
                _move(self._population, index, places[index, 0], places[index, 1])


@functools.cache
def _compile() -> None:
    """Compile the kernels on first use, so that a time limit measures the search alone."""
    tiny = JobShopInstance.from_jobs([[(0, 1), (1, 1)], [(1, 1), (0, 1)], [(0, 2), (1, 2)]], name="tiny")
    incumbent = Incumbent(tiny, best_rule_schedule(tiny), started=0.0)
    run = _Run(
        Genetic(population=4, crossover=1.0, mutation=1.0), tiny, incumbent, float("inf"), np.random.default_rng(0)
    )
    run._seed()
    _decode(run._simulator.state, run._population, 0.5)
    run._population.parent[:] = run._population.child
    run._breed(0)
    _copy(run._population, 0, 0)


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="jobshop/genetic",
        make=Genetic,  # type: ignore[arg-type]
        information="clairvoyant",
        summary="genetic algorithm on permutations with repetition, decoder between non-delay and active",
        source="Bierwirth 1995; Bierwirth and Mattfeld 1999",
        randomised=True,
    ),
)
