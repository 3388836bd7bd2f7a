"""Restarts of the complete search over orders, branching rules and capacities."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import numpy as np

from schedrl.arrays import F64, I64
from schedrl.baselines.memmap.complete_kernels import (
    BY_CONFLICTS,
    BY_ORDER,
    BY_TIGHTNESS,
    EXHAUSTED,
    NODES,
    PAUSED,
    SOLVED,
    State,
    new_state,
    restart,
    search,
)
from schedrl.baselines.memmap.complete_tables import Component, Tables, components, order_of, reordered
from schedrl.baselines.memmap.complete_windows import enumerate_offsets
from schedrl.envs.memmap.packing import OffsetPackingInstance

__all__ = ["PORTFOLIO", "ComponentSearch", "compile_search"]

# Order and branching rule. Every instance of MiniMalloc's challenging suite takes less than a second with several of
# them, and hours with others; orders WAT, TAW and TWA are MiniMalloc's own.
PORTFOLIO: tuple[tuple[str, int], ...] = (
    ("TWA", BY_CONFLICTS),
    ("TZW", BY_TIGHTNESS),
    ("TCA", BY_TIGHTNESS),
    ("WAT", BY_CONFLICTS),
    ("TOA", BY_TIGHTNESS),
    ("TCA", BY_CONFLICTS),
    ("TWA", BY_TIGHTNESS),
    ("TZW", BY_CONFLICTS),
    ("TAW", BY_TIGHTNESS),
    ("OZA", BY_TIGHTNESS),
    ("TWA", BY_ORDER),
    ("CTA", BY_CONFLICTS),
)
_ROUNDS = 8  # of the portfolio, with growing node limits, before orders become random
_NODES_PER_BUFFER = 2
_GROWTH = 1.5
_FULLEST_FIRST = 0.6  # share of random orders that begin with letter T
_NOISES = (0.0, 0.0, 0.1, 0.3)
_WORK = 60_000_000  # cliques and pairs looked at between two looks at the clock, about
_MAX_WEIGHT = 1e6


@dataclass(slots=True)
class ComponentSearch:
    """The search for packings of one component, with what it has learned.

    ``attempt`` runs one restart. Conflict weights carry over to the next restart of the same order and rule, whatever
    its capacity; random orders share theirs.
    """

    component: Component
    rng: np.random.Generator
    lower: int
    """proven lower bound on the peak, in units"""
    attempts: int
    nodes: int
    _state: State
    _ordered: dict[str, tuple[I64, Tables]]
    _weight: F64  # (restarts of the portfolio and one for all others, S)
    _chunk: int
    _enumerated: bool

    @classmethod
    def of(cls, component: Component, rng: np.random.Generator) -> ComponentSearch:
        """Return a search that has not begun."""
        t = component.tables
        work = int((t.part_last - t.part_first).sum()) + len(t.pair) + len(t.size)
        return cls(
            component=component,
            rng=rng,
            lower=component.bound,
            attempts=0,
            nodes=0,
            _state=new_state(t),
            _ordered={},
            _weight=np.ones((len(PORTFOLIO) + 1, int(t.last.max()))),
            _chunk=max(4, min(20_000, _WORK // work)),
            _enumerated=False,
        )

    def attempt(self, capacity: int, deadline: float) -> I64 | None:
        """Return offsets (N,) within a capacity, in units, or None.

        None can mean that the node limit or the deadline came first; where it is proven that there are none, ``lower``
        rises above the capacity.
        """
        if capacity < self.lower:
            return None
        order, tables, rule, nodes, weight = self._next_restart()
        self._state.weight[:] = weight
        restart(tables, self._state)
        outcome = PAUSED
        while outcome == PAUSED and nodes > 0 and time.perf_counter() < deadline:
            outcome = search(tables, self._state, capacity, min(nodes, self._chunk), rule)
            nodes -= self._chunk
        self.nodes += int(self._state.cursor[NODES])
        weight[:] = self._state.weight * (1.0 if self._state.weight.max() < _MAX_WEIGHT else 1.0 / _MAX_WEIGHT)
        if outcome == SOLVED:
            offset = np.empty(len(order), np.int64)
            offset[order] = self._state.offset
            return offset
        if outcome == EXHAUSTED:
            return self._exhausted(capacity, deadline)
        return None

    def _next_restart(self) -> tuple[I64, Tables, int, int, F64]:
        """Return order, tables, branching rule, node limit and conflict weights of the next restart."""
        number, self.attempts = self.attempts, self.attempts + 1
        unit = _NODES_PER_BUFFER * len(self.component.buffers)
        if number < _ROUNDS * len(PORTFOLIO):
            cycle, member = divmod(number, len(PORTFOLIO))
            letters, rule = PORTFOLIO[member]
            if letters not in self._ordered:
                order = order_of(self.component, letters, 0.0, self.rng)
                self._ordered[letters] = order, reordered(self.component.tables, order)
            return *self._ordered[letters], rule, int(unit * _GROWTH**cycle), self._weight[member]
        letters = "".join(self.rng.permutation(list("ACLOUWZ"))[:3])
        if self.rng.random() < _FULLEST_FIRST:
            letters = "T" + letters
        order = order_of(self.component, letters, float(self.rng.choice(_NOISES)), self.rng)
        rule = BY_CONFLICTS if self.rng.random() < 0.5 else BY_TIGHTNESS
        limit = unit * luby(number - _ROUNDS * len(PORTFOLIO) + 1)
        return order, reordered(self.component.tables, order), rule, limit, self._weight[-1]

    def _exhausted(self, capacity: int, deadline: float) -> I64 | None:
        """Return offsets in the one case that the search leaves out, else raise ``lower``."""
        if not self.component.exact:
            if self._enumerated:
                return None
            offset, complete = enumerate_offsets(self.component, capacity, deadline)
            if offset is not None:
                return offset
            if not complete:
                # It would run out of time again, so leave the time to restarts at other capacities.
                self._enumerated = True
                return None
        self.lower = capacity + 1
        return None


def luby(number: int) -> int:
    """Return an entry of 1, 1, 2, 1, 1, 2, 4, 1, ... from 1 on (Luby, Sinclair and Zuckerman 1993)."""
    power = number.bit_length()
    while number != 2**power - 1:
        number -= 2 ** (power - 1) - 1
        power = number.bit_length()
    return 1 << (power - 1)


@functools.cache
def compile_search(wide: bool) -> None:
    """Compile the kernels on first use, so that a time limit measures the search alone.

    Args:
        wide: for byte counts of 64 bits instead of 32, in units.
    """
    # Wide ones share no large divisor.
    size = np.array([2, 1, 3]) if not wide else np.array([2**31, 1, 2**31 + 1])
    lower = np.array([0, 1, 2])
    tiny = OffsetPackingInstance(name="tiny", lower=lower, upper=lower + 2, size=size)
    rng, deadline = np.random.default_rng(0), time.perf_counter() + 60.0
    for component in components(tiny)[0]:
        ComponentSearch.of(component, rng).attempt(component.bound, deadline)
        if not wide:
            enumerate_offsets(component, component.bound, deadline)
