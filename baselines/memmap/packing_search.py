"""Searches over the order of placement: simulated annealing, and the hill climb of Apache TVM.

An order is decoded by first fit. Every packing that cannot be pushed down is the first fit of its buffers by offset,
so some order reaches the least peak.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from schedrl.arrays import F64, I32, I64
from schedrl.baselines.memmap.fitting import FIRST_FIT, TOO_HIGH, Fitting, fit, load_prefix, new_fitting, place
from schedrl.baselines.memmap.packing_outcomes import packing_bound, packing_outcome
from schedrl.baselines.memmap.packing_rules import ORDERS, best_greedy_packing, compile_fitting
from schedrl.envs.memmap.packing import OffsetPackingInstance
from schedrl.errors import ConfigError
from schedrl.kernel_arguments import by_reference
from schedrl.kernels import inner, inner_inlined, kernel
from schedrl.schedulers import Result, SchedulerSpec

__all__ = ["SCHEDULERS", "HillClimb", "PackingAnnealing"]

_WORK = 3_000_000  # pairs of ranges compared between two looks at the clock, about
_PEAK_MOVES = 0.5  # share of moves that begin with a buffer that touches the peak
_OVERFLOW = 10.0  # weight of the mean bytes above the bound beside the peak
_HILL_CLIMB_ATTEMPTS = 500
_PAIR_TRIALS = 10_000  # pairs drawn before the hill climb takes there to be none
CURRENT, BEST = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PackingAnnealing:
    """Anytime annealing from the best of a portfolio of greedy passes, cooled over the time limit.

    The cost is the peak and, so that equal peaks differ, ten times the mean of what buffers reach above the bound.

    Args:
        hot: first temperature as a share of the bound.
        cold: last temperature, likewise.
        max_iterations: cool over this many moves instead of the time limit; if that does not run out first, the
            result depends on the seed alone.

    Raises:
        ConfigError: a temperature of 0 or less, or less than one iteration.
    """

    hot: float = 0.005
    cold: float = 0.0005
    max_iterations: int | None = None

    def __post_init__(self) -> None:
        for field in ("hot", "cold"):
            if not getattr(self, field) > 0.0:
                raise ConfigError(f"field {field}: {getattr(self, field)}, expected more than 0")
        if self.max_iterations is not None and self.max_iterations < 1:
            raise ConfigError(f"field max_iterations: {self.max_iterations}, expected at least 1")

    def schedule(self, instance: OffsetPackingInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best packing found; optimal when its peak meets the bound."""
        compile_fitting()
        _compile()
        started = time.perf_counter()
        first = best_greedy_packing(instance, deadline=started + time_limit_s)
        bound = packing_bound(instance)
        walk = _new_walk(instance, first, bound, int(rng.integers(2**31 - 1)))
        chunk = max(1, _WORK // (len(walk.sequence) ** 2 + 1))
        done, taken = 0, 0.0
        progress = (time.perf_counter() - started) / time_limit_s
        # On large programs a single move takes long enough to overrun the limit.
        while progress + taken < 1.0 and walk.value[BEST] > bound:
            steps = chunk if self.max_iterations is None else min(chunk, self.max_iterations - done)
            share = progress if self.max_iterations is None else done / self.max_iterations
            _anneal(walk, steps, bound * self.hot * (self.cold / self.hot) ** share)
            done += steps
            before, progress = progress, (time.perf_counter() - started) / time_limit_s
            taken = progress - before
            if self.max_iterations is not None and done >= self.max_iterations:
                break
        return packing_outcome(instance, walk.best, started=started, searched=True, decisions=done)


@by_reference
class _Walk(NamedTuple):
    """The current order and its packing, the best packing, and scratch space."""

    fitting: Fitting
    owner: I32  # (R,) buffer of each live range
    lower: I64  # (N,)
    upper: I64  # (N,)
    order: I32  # (N,) current order of placement; buffers with a given offset have no place in it
    place: I32  # (N,) index of each buffer in it, -1 for those with a given offset
    offset: I64  # (N,) current packing
    sequence: I32  # (R,) its ranges by their first byte
    best: I64  # (N,) best packing
    bound: I64  # (1,) lower bound on the peak
    choice: I32  # (N,) buffers or indices to draw from
    value: F64  # (2,) cost of the current packing, peak of the best
    random: I64  # (1,) state of the generator


def _new_walk(instance: OffsetPackingInstance, offset: I64, bound: int, seed: int) -> _Walk:
    """Return a walk that stands at the packing ``offset`` (N,), pushed down."""
    fitting = new_fitting(instance)
    order = np.argsort(offset, kind="stable").astype(np.int32)
    order = order[fitting.fixed[order] < 0].copy()
    peak = fit(fitting, order, FIRST_FIT)
    places = np.full(instance.buffers, -1, np.int32)
    places[order] = np.arange(len(order))
    walk = _Walk(
        fitting=fitting,
        owner=instance.live[4].copy(),
        lower=instance.lower.copy(),
        upper=instance.upper.copy(),
        order=order,
        place=places,
        offset=fitting.offset.copy(),
        sequence=fitting.placed_range.copy(),
        best=fitting.offset.copy(),
        bound=np.array([bound], dtype=np.int64),
        choice=np.zeros(instance.buffers, np.int32),
        value=np.array([0.0, peak]),
        random=np.array([seed % (2**31 - 2) + 1], dtype=np.int64),
    )
    walk.value[CURRENT] = _cost(walk, peak)
    return walk


@inner_inlined
def _uniform(random: I64) -> float:
    """Return a pseudo-random number in (0, 1); minimal standard generator (Park and Miller 1988)."""
    random[0] = random[0] * 48271 % 2147483647
    number: float = random[0] / 2147483647.0
    return number


@kernel
def _cost(w: _Walk, peak: int) -> float:
    """Return the cost of the packing last decoded."""
    above = 0.0
    for b in range(len(w.place)):
        above += max(0, w.fitting.offset[b] + w.fitting.size[b] - w.bound[0])
    cost: float = peak + _OVERFLOW * above / len(w.place)
    return cost


@inner
def _at_peak(w: _Walk) -> int:
    """Return the index in the order of a random buffer that touches the peak, -1 if none is free to move."""
    peak, count = 0, 0
    for b in range(len(w.place)):
        end = w.offset[b] + w.fitting.size[b]
        if end > peak:
            peak, count = end, 0
        if end == peak and w.place[b] >= 0:
            w.choice[count] = w.place[b]
            count += 1
    return w.choice[int(_uniform(w.random) * count)] if count else -1


@kernel
def _before(w: _Walk, index: int) -> int:
    """Return the index of a random buffer earlier in the order whose lifetime meets that of one, -1 if none does."""
    b, count = w.order[index], 0
    for k in range(index):
        c = w.order[k]
        if w.lower[c] < w.upper[b] and w.lower[b] < w.upper[c]:
            w.choice[count] = k
            count += 1
    return w.choice[int(_uniform(w.random) * count)] if count else -1


@kernel
def _move(w: _Walk, since: int, to: int, swap: bool) -> None:
    """Exchange two buffers of the order, or move one to the index of the other."""
    b = w.order[since]
    if swap:
        w.order[since] = w.order[to]
        w.place[w.order[since]] = since
    else:
        step = 1 if to > since else -1
        k = since
        while k != to:
            w.order[k] = w.order[k + step]
            w.place[w.order[k]] = k
            k += step
    w.order[to] = b
    w.place[b] = to


@inner
def _propose(w: _Walk) -> tuple[int, int]:
    """Return a later and an earlier index of the order, -1 for the earlier when there is no move."""
    later = int(_uniform(w.random) * len(w.order))
    if _uniform(w.random) >= _PEAK_MOVES:
        other = int(_uniform(w.random) * len(w.order))
        return max(later, other), min(later, other) if later != other else -1
    later = _at_peak(w)
    earlier = _before(w, later) if later >= 0 else -1
    # Sometimes a buffer below the one at the peak goes earlier instead.
    if earlier >= 0 and _uniform(w.random) < 0.3:
        later, earlier = earlier, _before(w, earlier)
    return later, earlier


@kernel
def _anneal(w: _Walk, steps: int, temperature: float) -> None:
    """Try ``steps`` moves."""
    for _ in range(steps):
        later, earlier = _propose(w)
        if earlier < 0:
            continue
        swap = _uniform(w.random) < 0.5
        _move(w, later, earlier, swap)
        load_prefix(w.fitting, w.sequence, w.owner, w.place, w.offset, earlier)
        limit = w.value[CURRENT] - temperature * np.log(_uniform(w.random))
        # The cost is at least the peak, so that a packing is given up as soon as its peak exceeds the limit.
        peak = place(w.fitting, w.order, earlier, FIRST_FIT, int(limit))
        cost = _cost(w, peak)
        if peak == TOO_HIGH or cost > limit:
            _move(w, earlier, later, swap)
            continue
        w.value[CURRENT] = cost
        for r in range(len(w.sequence)):
            w.sequence[r] = w.fitting.placed_range[r]
        for b in range(len(w.place)):
            w.offset[b] = w.fitting.offset[b]
            if peak < w.value[BEST]:
                w.best[b] = w.offset[b]
        w.value[BEST] = min(w.value[BEST], peak)


@dataclass(frozen=True, slots=True, kw_only=True)
class HillClimb:
    """Apache TVM's hill climb: 500 first-fit placements, each after an exchange of two buffers below the peak.

    It begins with the largest buffers first. A buffer that touches the peak is drawn; one that conflicts with it and
    was placed before is exchanged with another such one or, three times as often, with one that conflicts with and
    was placed before any buffer in conflict with the one drawn. A worse peak is accepted with falling probability.
    Unlike TVM, which returns what it accepted last, this returns the best packing met.
    """

    def schedule(self, instance: OffsetPackingInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best packing met; optimal when its peak meets the bound."""
        compile_fitting()
        _compile()
        started = time.perf_counter()
        fitting, bound = new_fitting(instance), packing_bound(instance)
        order = ORDERS["size-conflicts-name"](instance)
        peak = fit(fitting, order, FIRST_FIT)
        offset, best, least, attempt = fitting.offset.copy(), fitting.offset.copy(), peak, 1
        taken = time.perf_counter() - started
        random = np.array([rng.integers(1, 2**31 - 1)], dtype=np.int64)
        latest = started + time_limit_s - taken
        while attempt < _HILL_CLIMB_ATTEMPTS and least > bound and time.perf_counter() < latest:
            pair = _exchange(instance, order, offset, random)
            attempt += 1
            if pair is None:
                continue
            order[[pair[0], pair[1]]] = order[[pair[1], pair[0]]]
            found = fit(fitting, order, FIRST_FIT)
            chance = 50 * (found - peak) // found // attempt
            if found < peak or rng.integers(100) < chance:
                peak, offset = found, fitting.offset.copy()
            else:
                order[[pair[0], pair[1]]] = order[[pair[1], pair[0]]]
            if peak < least:
                least, best = peak, offset
        searched = attempt < _HILL_CLIMB_ATTEMPTS
        decisions = attempt * instance.buffers
        return packing_outcome(instance, best, started=started, searched=searched, decisions=decisions)


def _exchange(instance: OffsetPackingInstance, order: I32, offset: I64, random: I64) -> tuple[int, int] | None:
    """Return the indices in the order of two buffers to exchange, None when the one drawn at the peak has none."""
    lower, upper = instance.lower, instance.upper
    end = offset + instance.size
    touching = np.flatnonzero(end == end.max())
    b = touching[int(_draw(random) * len(touching))]
    place_of = np.empty_like(order)
    place_of[order] = np.arange(len(order))
    meets = (lower < upper[b]) & (lower[b] < upper)
    meets[b] = False
    first_level = np.flatnonzero(meets & (place_of < place_of[b]))
    if not len(first_level):
        return None
    one = first_level[int(_draw(random) * len(first_level))]
    other = -1
    if _draw(random) < 0.75:
        other = _second_level(lower.copy(), upper.copy(), place_of, np.flatnonzero(meets), random)
    if other < 0:
        other = first_level[int(_draw(random) * len(first_level))]
    return (int(place_of[one]), int(place_of[other])) if one != other else None


@kernel
def _draw(random: I64) -> float:
    return _uniform(random)


@kernel
def _second_level(lower: I64, upper: I64, place_of: I32, neighbours: I64, random: I64) -> int:
    """Return the earlier buffer of a random conflicting pair whose later one is a neighbour, -1 if none turns up.

    Drawing until a pair conflicts is uniform over all such pairs, of which large programs have too many to list.
    """
    for _ in range(_PAIR_TRIALS):
        later = neighbours[int(_uniform(random) * len(neighbours))]
        earlier = int(_uniform(random) * len(lower))
        meets = lower[earlier] < upper[later] and lower[later] < upper[earlier]
        if meets and place_of[earlier] < place_of[later]:
            return earlier
    return -1


@functools.cache
def _compile() -> None:
    """Compile the kernels on first use, so that a time limit measures the search alone."""
    ones = np.ones(3, np.int64)
    tiny = OffsetPackingInstance(name="tiny", lower=0 * ones, upper=ones, size=ones)
    offset = np.arange(3, dtype=np.int64)
    _anneal(_new_walk(tiny, offset, 1, 1), 1, 1.0)
    random = np.ones(1, np.int64)
    _second_level(0 * ones, ones, offset.astype(np.int32), offset, random)
    _draw(random)


def _spec(name: str, build: Callable[..., Any], summary: str, source: str) -> SchedulerSpec:
    return SchedulerSpec(
        name=f"memmap/{name}",
        make=build,
        information="clairvoyant",
        summary=summary,
        source=source,
        randomised=True,
    )


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    _spec(
        "packing-annealing",
        PackingAnnealing,
        "simulated annealing over the order of placement, decoded by first fit",
        "Kirkpatrick, Gelatt and Vecchi 1983",
    ),
    _spec(
        "tvm-hill-climb",
        HillClimb,
        "500 first-fit placements with exchanges below the peak",
        "Apache TVM USMP, hill_climb",
    ),
)
