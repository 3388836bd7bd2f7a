"""Lower bounds on the decode time of an expert cache: computation, the channel, and the fewest possible loads."""

from __future__ import annotations

import numpy as np
from numba import njit

from schedrl.arrays import I32, I64
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.families import Bound

__all__ = ["cache_bounds", "fewest_loads", "next_uses"]

# Prefixes whose fewest loads are counted, beside the whole; each is a pass over it.
_PREFIXES = 8


def next_uses(instance: ExpertCacheInstance) -> I32:
    """Return (R, K) the next request after each one that needs the same expert, R where none does."""
    return np.asarray(_next_uses(instance.needed, instance.total), dtype=np.int32)


def fewest_loads(instance: ExpertCacheInstance, steps: int | None = None) -> int:
    """Return the fewest loads with which the first ``steps`` requests, by default all, can be served.

    Evicting what is needed farthest in the future is optimal for experts of one size, and loading ahead of need saves
    no load (Belady, IBM Systems Journal 1966; with several experts per request by the same exchange).
    """
    count = instance.steps if steps is None else steps
    needed = instance.needed[:count]
    after = _next_uses(needed, instance.total)
    first = _first_uses(needed, instance.total)
    return int(_belady(needed, after, first, instance.initial, instance.total, instance.capacity))


def cache_bounds(instance: ExpertCacheInstance) -> list[Bound]:
    """Return lower bounds on the decode time in seconds, largest first."""
    compute = float(instance.duration_s.sum())
    left = np.cumsum(instance.duration_s[::-1])[::-1]
    ends = np.unique(np.linspace(1, instance.steps, min(_PREFIXES, instance.steps)).astype(np.int64))
    waits = [fewest_loads(instance, int(end)) * instance.load_s + float(left[end - 1]) for end in ends.tolist()]
    first = np.cumsum(_new_experts(instance))
    compulsory = float((first * instance.load_s + left).max())
    # Sums of times round differently in a schedule.
    bounds = [
        Bound(name="compute", value=compute, why="requests are computed one after the other"),
        Bound(
            name="compulsory",
            value=compulsory * (1.0 - 1e-12),
            why="a request waits until every expert needed so far and not there initially was loaded once",
        ),
        Bound(
            name="belady",
            value=max(waits) * (1.0 - 1e-12),
            why="a request waits for the fewest loads that serve all requests up to it (Belady 1966)",
        ),
    ]
    return sorted(bounds, key=lambda bound: -bound.value)


def _new_experts(instance: ExpertCacheInstance) -> I64:
    """Return (R,) how many of a request's experts no earlier one needed and that are not there initially."""
    seen = np.zeros(instance.total, dtype=np.bool_)
    seen[instance.initial] = True
    flat = instance.needed.ravel()
    row = np.repeat(np.arange(instance.steps), instance.needed.shape[1])
    row, flat = row[flat >= 0], flat[flat >= 0]
    first = np.unique(flat, return_index=True)[1]
    first = first[~seen[flat[first]]]
    return np.bincount(row[first], minlength=instance.steps)


@njit(cache=True)
def _next_uses(needed: I32, total: int) -> I32:
    steps, width = needed.shape
    after = np.full((steps, width), steps, dtype=np.int32)
    last = np.full(total, steps, dtype=np.int32)
    for r in range(steps - 1, -1, -1):
        for k in range(width):
            if needed[r, k] >= 0:
                after[r, k] = last[needed[r, k]]
                last[needed[r, k]] = r
    return after


@njit(cache=True)
def _first_uses(needed: I32, total: int) -> I32:
    steps, width = needed.shape
    first = np.full(total, steps, dtype=np.int32)
    for r in range(steps - 1, -1, -1):
        for k in range(width):
            if needed[r, k] >= 0:
                first[needed[r, k]] = r
    return first


@njit(cache=True)
def _belady(needed: I32, after: I32, first: I32, initial: I32, total: int, capacity: int) -> int:
    """Count the loads when each evicts the resident expert needed farthest ahead, as far as any must go."""
    steps, width = needed.shape
    place = np.full(total, -1, dtype=np.int64)  # position in the list of residents
    residents = np.empty(capacity, dtype=np.int64)
    use = first.copy()
    count, loads = 0, 0
    for expert in initial:
        residents[count], place[expert] = expert, count
        count += 1
    for r in range(steps):
        # What this request needs counts as needed now, so that nothing of it is evicted.
        for k in range(width):
            expert = needed[r, k]
            if expert < 0 or place[expert] >= 0:
                continue
            loads += 1
            at = count
            if count == capacity:
                at = 0
                for i in range(1, count):
                    if use[residents[i]] > use[residents[at]]:
                        at = i
                place[residents[at]] = -1
            else:
                count += 1
            residents[at], place[expert] = expert, at
            use[expert] = r
        for k in range(width):
            if needed[r, k] >= 0:
                use[needed[r, k]] = after[r, k]
    return loads
