"""Tabu search with ejections: fit every buffer below a target, putting out those in the way, then lower the target.

A buffer that is out goes to the offset at which the buffers it puts out weigh least, as in the ejection chains of
Glover (Discrete Applied Mathematics 65 (1996) 223-253). A buffer weighs more each time it is put out, after the guided
ejection search of Nagata and Bräysy (Operations Research Letters 37 (2009) 333-338), and is tabu for a few steps.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from schedrl.arrays import F64, I32, I64
from schedrl.baselines.memmap.fitting import FIRST_FIT, Fitting, fit, new_fitting
from schedrl.baselines.memmap.packing_outcomes import offset_unit, packing_bound, packing_outcome, peak_of
from schedrl.baselines.memmap.packing_rules import best_greedy_packing, compile_fitting
from schedrl.envs.memmap.packing import OffsetPackingInstance
from schedrl.errors import ConfigError
from schedrl.kernel_arguments import by_reference
from schedrl.kernels import inlined, inner, inner_inlined, kernel
from schedrl.schedulers import Result, SchedulerSpec

__all__ = ["SCHEDULERS", "PackingTabu"]

_OUT = -1
_WORK = 400_000  # ranges looked at between two looks at the clock, about
_TABU = 1000.0  # factor on the weight of a buffer placed a moment ago
_FIXED = 1e18  # weight of a buffer whose offset is given
_TRIALS = 256  # offsets tried for one buffer
_STEP = 0.1  # share of the gap to the bound by which the target goes down
_COMPACT_LIMIT = 5000  # buffers up to which a packing found is pushed down
WAITING, STEPS, RANDOM = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PackingTabu:
    """Anytime search below ever lower peaks, from the best of a portfolio of greedy passes.

    Args:
        tenure: steps for which a placed buffer is tabu, at most.
        max_steps: stop after this many placements in total; with a limit that never runs out the result depends on
            the seed alone.

    Raises:
        ConfigError: an option below 1.
    """

    tenure: int = 4
    max_steps: int = 2**62

    def __post_init__(self) -> None:
        for field in ("tenure", "max_steps"):
            if getattr(self, field) < 1:
                raise ConfigError(f"field {field}: {getattr(self, field)}, expected at least 1")

    def schedule(self, instance: OffsetPackingInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best packing found; optimal when its peak meets the bound."""
        compile_fitting()
        _compile()
        started = time.perf_counter()
        deadline = started + time_limit_s
        best = best_greedy_packing(instance, deadline=started + time_limit_s)
        search = _new_search(instance, int(rng.integers(2**31 - 1)))
        bound, unit = packing_bound(instance), offset_unit(instance)
        while peak_of(instance, best) > bound:
            peak = peak_of(instance, best)
            target = max(bound, peak - max(unit, int((peak - bound) * _STEP)))
            found = self._below(instance, search, best, target, deadline)
            if found is None:
                break
            best = found
        steps = int(search.counter[STEPS])
        return packing_outcome(instance, best, started=started, searched=True, decisions=steps)

    def _below(
        self, instance: OffsetPackingInstance, search: _Search, best: I64, target: int, deadline: float
    ) -> I64 | None:
        """Return offsets with a peak of at most ``target``, None when time or steps run out before."""
        _restart(search, best, instance.size, target)
        chunk = max(10, _WORK // len(search.fitting.start))
        done = False
        while not done:
            steps = min(chunk, self.max_steps - int(search.counter[STEPS]))
            if steps <= 0 or time.perf_counter() >= deadline:
                return None
            done = bool(_eject(search, target, steps, self.tenure))
        found = search.offset.copy()
        if instance.buffers <= _COMPACT_LIMIT:
            # In order of offset, first fit moves no buffer up.
            fit(search.fitting, np.argsort(found, kind="stable").astype(np.int32), FIRST_FIT)
            found = search.fitting.offset.copy()
        return found


@by_reference
class _Search(NamedTuple):
    """A packing in which some buffers wait outside, and scratch space for one placement."""

    fitting: Fitting
    owner: I32  # (R,) buffer of each live range
    offset: I64  # (N,) offset, -1 while outside
    weight: F64  # (N,) what it costs to put a buffer out for the first time
    ejections: I64  # (N,) how often it was put out
    tabu_until: I64  # (N,) step
    waiting: I32  # (N,) buffers outside
    low: I64  # (K,) offsets between low and high, both excluded, meet a placed range
    high: I64  # (K,)
    range_owner: I32  # (K,)
    range_weight: F64  # (K,)
    counter: I64  # (3,) number of buffers outside, steps made, state of the generator


def _new_search(instance: OffsetPackingInstance, seed: int) -> _Search:
    fitting = new_fitting(instance)
    buffers, ranges = instance.buffers, len(fitting.start)
    most = int(np.diff(fitting.first).max(initial=1)) * ranges
    area = instance.size.astype(np.float64) * (instance.upper - instance.lower)
    weight = np.sqrt(area / area.mean())
    weight[fitting.fixed >= 0] = _FIXED
    return _Search(
        fitting=fitting,
        owner=instance.live[4].copy(),
        offset=np.zeros(buffers, np.int64),
        weight=weight,
        ejections=np.zeros(buffers, np.int64),
        tabu_until=np.zeros(buffers, np.int64),
        waiting=np.zeros(buffers, np.int32),
        low=np.zeros(most, np.int64),
        high=np.zeros(most, np.int64),
        range_owner=np.zeros(most, np.int32),
        range_weight=np.zeros(most),
        counter=np.array([0, 0, seed % (2**31 - 2) + 1], dtype=np.int64),
    )


def _restart(search: _Search, offset: I64, size: I64, target: int) -> None:
    """Start from a packing without the buffers that end above the target."""
    outside = np.flatnonzero(offset + size > target)
    search.offset[:] = offset
    search.offset[outside] = _OUT
    search.waiting[: len(outside)] = outside
    search.counter[WAITING] = len(outside)
    search.ejections[:] = 0


@inner_inlined
def _uniform(s: _Search) -> float:
    """Return a pseudo-random number in (0, 1); minimal standard generator (Park and Miller 1988)."""
    s.counter[RANDOM] = s.counter[RANDOM] * 48271 % 2147483647
    number: float = s.counter[RANDOM] / 2147483647.0
    return number


@inlined
def _cost(s: _Search, b: int) -> float:
    cost: float = s.weight[b] * (1 + s.ejections[b])
    return cost


@inner
def _take(s: _Search) -> int:
    """Remove a buffer from those outside, the heaviest of three drawn at random, and return it."""
    count = s.counter[WAITING]
    chosen = int(_uniform(s) * count)
    for _ in range(2):
        other = int(_uniform(s) * count)
        if _cost(s, s.waiting[other]) > _cost(s, s.waiting[chosen]):
            chosen = other
    b: int = s.waiting[chosen]
    s.waiting[chosen] = s.waiting[count - 1]
    s.counter[WAITING] = count - 1
    return b


@inner
def _blocked(s: _Search, b: int) -> int:
    """List the offsets at which a buffer would meet a placed one, and return the number of such intervals."""
    f, count = s.fitting, 0
    for q in range(len(f.start)):
        c = s.owner[q]
        if s.offset[c] == _OUT:
            continue
        for r in range(f.first[b], f.first[b + 1]):
            if f.start[q] < f.end[r] and f.start[r] < f.end[q]:
                s.low[count] = s.offset[c] + f.low[q] - f.high[r]
                s.high[count] = s.offset[c] + f.high[q] - f.low[r]
                s.range_owner[count] = c
                s.range_weight[count] = _cost(s, c)
                if s.tabu_until[c] > s.counter[STEPS]:
                    s.range_weight[count] *= _TABU
                count += 1
    return count


@inner
def _cheapest(s: _Search, b: int, target: int, count: int) -> int:
    """Return the offset at which a buffer puts out the least weight, -1 when given offsets leave none.

    Some cheapest offset is the bottom, the top, or touches a placed range from above or below.
    """
    top, alignment = target - s.fitting.size[b], s.fitting.alignment[b]
    best, least = _OUT, _FIXED
    stride = max(1, 2 * count // _TRIALS)
    k = -2 if stride == 1 else -2 - int(_uniform(s) * stride)
    while k < 2 * count:
        k = max(k, -2)
        if k == -2:
            position = 0
        elif k == -1:
            position = top // alignment * alignment
        elif k < count:
            position = -(-s.high[k] // alignment) * alignment
        else:
            position = s.low[k - count] // alignment * alignment
        k += stride
        if position < 0 or position > top:
            continue
        # The noise breaks ties.
        cost = _uniform(s) * 1e-9
        for i in range(count):
            if s.low[i] < position and position < s.high[i]:
                cost += s.range_weight[i]
                if cost >= least:
                    break
        if cost < least:
            best, least = position, cost
    return best


@kernel
def _eject(s: _Search, target: int, steps: int, tenure: int) -> bool:
    """Place up to ``steps`` buffers; return whether none is left outside."""
    for _ in range(steps):
        if s.counter[WAITING] == 0:
            return True
        s.counter[STEPS] += 1
        b = _take(s)
        count = _blocked(s, b)
        position = _cheapest(s, b, target, count)
        if position == _OUT:
            s.waiting[s.counter[WAITING]] = b
            s.counter[WAITING] += 1
            continue
        for i in range(count):
            c = s.range_owner[i]
            if s.low[i] < position and position < s.high[i] and s.offset[c] != _OUT:
                s.offset[c] = _OUT
                s.ejections[c] += 1
                s.waiting[s.counter[WAITING]] = c
                s.counter[WAITING] += 1
        s.offset[b] = position
        s.tabu_until[b] = s.counter[STEPS] + 1 + int(_uniform(s) * tenure)
    return bool(s.counter[WAITING] == 0)


@functools.cache
def _compile() -> None:
    """Compile the kernels on first use, so that a time limit measures the search alone."""
    ones = np.ones(2, np.int64)
    tiny = OffsetPackingInstance(name="tiny", lower=0 * ones, upper=ones, size=ones)
    search = _new_search(tiny, 1)
    _restart(search, np.array([0, 1], dtype=np.int64), tiny.size, 1)
    _eject(search, 1, 3, 1)


_build: Callable[..., Any] = PackingTabu
SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="memmap/packing-tabu",
        make=_build,
        information="clairvoyant",
        summary="tabu search that fits all buffers below a falling target and puts out those in the way",
        source="Glover 1996; Nagata and Bräysy 2009",
        randomised=True,
    ),
)
