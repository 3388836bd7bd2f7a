"""Optimal orders for the total tardiness of jobs on one machine: dynamic programming over subsets, and decomposition.

The first takes any integers but 20 jobs at most; the second takes hundreds of jobs and no negative processing times.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schedrl.arrays import I64
from schedrl.baselines.jobshop.single_machine import single_machine_arrays
from schedrl.errors import ConfigError, InstanceError
from schedrl.kernels import inner, kernel

__all__ = ["MOST_STATES", "MOST_SUBSET_JOBS", "optimal_order", "subset_optimal_order"]

MOST_SUBSET_JOBS = 20
# 24 bytes each.
MOST_STATES = 2**25
_FIRST_STATES = 2**12
# What a problem returns when the table is full; no tardiness is negative.
_FULL = -1
_NEVER = 2**62


def subset_optimal_order(p: npt.ArrayLike, d: npt.ArrayLike) -> I64:
    """Return an order of least total tardiness by dynamic programming over subsets (Held and Karp 1962).

    Args:
        p: (J,) processing times, J at most ``MOST_SUBSET_JOBS``.
        d: (J,) due dates.

    Raises:
        InstanceError: too many jobs, or as ``single_machine_arrays``.
    """
    p, d = single_machine_arrays(p, d)
    if len(p) > MOST_SUBSET_JOBS:
        raise InstanceError(f"field p: {len(p)} jobs, expected at most {MOST_SUBSET_JOBS}; optimal_order takes more")
    order = np.empty(len(p), dtype=np.int64)
    least = np.zeros(2 ** len(p), dtype=np.int64)
    _subsets(p, d, least, np.zeros_like(least), order)
    return order


def optimal_order(p: npt.ArrayLike, d: npt.ArrayLike, *, most_states: int = MOST_STATES) -> I64:
    """Return an order of least total tardiness by decomposition at the longest job (Lawler 1977).

    The longest job goes to one of few places among the jobs by due date, and those before and behind it are problems of
    their own. Places are ruled out as in Potts and Van Wassenhove (1982) and Szwarc, Della Croce and Grosso (1999);
    solved problems are kept, which makes it a branch-and-memorise (Shang, T'Kindt and Della Croce 2021).

    Args:
        p: (J,) processing times, none negative.
        d: (J,) due dates.
        most_states: solved problems that may be kept, at 24 bytes each.

    Raises:
        InstanceError: a negative processing time, numbers too large for the keys of problems, or as
            ``single_machine_arrays``.
        ConfigError: more than ``most_states`` problems have to be kept.
    """
    p, d = single_machine_arrays(p, d)
    if p.min() < 0:
        raise InstanceError(f"field p: {p.min()}, expected 0 or more; subset_optimal_order takes negative ones")
    jobs, work = len(p), int(p.sum())
    if jobs**3 * (work + 1) >= 2**63:
        raise InstanceError(f"field p: {jobs} jobs of {work} in all, expected jobs^3 times the sum below 2^63")
    by_due = np.lexsort((p, d))
    p, d = p[by_due], d[by_due]
    rank = np.empty(jobs, dtype=np.int64)
    # Of equally long jobs the one due last is the longest, as the theorem wants it.
    rank[np.lexsort((np.arange(jobs), p))] = np.arange(jobs)
    states = min(_FIRST_STATES, most_states)
    while True:
        table = np.full((states, 3), -1, dtype=np.int64)
        memory = np.array([0, work + 1], dtype=np.int64)
        if _solve(p, d, rank, 0, jobs - 1, jobs - 1, 0, table, memory) != _FULL:
            break
        if states >= most_states:
            raise ConfigError(f"option most_states: {most_states}, expected more for these {jobs} jobs")
        states = min(states * 8, most_states)
    order = np.empty(jobs, dtype=np.int64)
    _write(p, d, rank, 0, jobs - 1, jobs - 1, 0, table, memory, order, 0)
    return by_due[order]


@kernel
def _subsets(p: I64, d: I64, least: I64, work: I64, order: I64) -> None:
    """Fill least total tardiness and work of each subset, (2^J,), and read an order out of them."""
    jobs = len(p)
    for subset in range(1, len(least)):
        job = 0
        while not subset >> job & 1:
            job += 1
        work[subset] = work[subset & (subset - 1)] + p[job]
        best = _NEVER
        for last in range(job, jobs):
            if subset >> last & 1:
                best = min(best, least[subset ^ (1 << last)] + max(work[subset] - d[last], 0))
        least[subset] = best
    subset = len(least) - 1
    for place in range(jobs - 1, -1, -1):
        for last in range(jobs):
            rest = subset ^ (1 << last)
            if subset >> last & 1 and least[rest] + max(work[subset] - d[last], 0) == least[subset]:
                order[place] = last
                subset = rest
                break


@inner
def _slot(key: int, table: I64) -> int:
    """Return the row of the table that holds the key, or the free one where it belongs."""
    size = len(table)
    slot: int = ((key ^ (key >> 29)) * 0x9E3779B97F4A7C1 & 0x7FFFFFFFFFFFFFFF) % size
    while table[slot, 0] != -1 and table[slot, 0] != key:
        slot += 1
        if slot == size:
            slot = 0
    return slot


@inner
def _members(rank: I64, first: int, last: int, bound: int) -> tuple[int, int, int, int]:
    """Return first, last, longest and number of the jobs of a problem: those from first to last of rank up to bound."""
    low, high, longest, count = -1, -1, -1, 0
    for i in range(first, last + 1):
        if rank[i] <= bound:
            if count == 0:
                low = i
            high = i
            if longest < 0 or rank[i] > rank[longest]:
                longest = i
            count += 1
    return low, high, longest, count


@inner
def _key(rank: I64, first: int, last: int, longest: int, start: int, memory: I64) -> int:
    jobs = len(rank)
    key: int = ((first * jobs + last) * jobs + rank[longest]) * memory[1] + start
    return key


@kernel
def _solve(p: I64, d: I64, rank: I64, first: int, last: int, bound: int, start: int, table: I64, memory: I64) -> int:
    """Return the least total tardiness of the jobs from first to last of rank up to bound, or that the table is full.

    Args:
        p: (J,) processing times by due date.
        d: (J,) due dates, ascending.
        rank: (J,) place of each job by processing time.
        first: First job of the problem.
        last: Its last job.
        bound: The highest rank of its jobs.
        start: When its first job starts.
        table: (S, 3) keys of solved problems, their values, and the last job before the longest one; -1 where free.
        memory: (2,) how many problems are solved, and a number above all starts.
    """
    first, last, longest, count = _members(rank, first, last, bound)
    if count == 0:
        return 0
    if count == 1:
        tardiness: int = max(start + p[longest] - d[longest], 0)
        return tardiness
    key = _key(rank, first, last, longest, start, memory)
    slot = _slot(key, table)
    if table[slot, 0] == key:
        known: int = table[slot, 1]
        return known
    bound = rank[longest]
    end, late = start + p[longest], -_NEVER
    for i in range(first, longest):
        if rank[i] < bound:
            end += p[i]
    best, place = _NEVER, -1
    here = longest
    while here >= 0:
        behind = here + 1
        while behind <= last and rank[behind] >= bound:
            behind += 1
        # Behind a job due by then the longest one is no worse, and before one that could wait no worse either.
        if end >= late and (behind > last or end < d[behind]):
            tardiness = max(end - d[longest], 0)
            if tardiness < best:
                before = _solve(p, d, rank, first, here, bound - 1, start, table, memory)
                if before == _FULL:
                    return _FULL
                tardiness += before
            if tardiness < best:
                after = _solve(p, d, rank, behind, last, bound - 1, end, table, memory)
                if after == _FULL:
                    return _FULL
                tardiness += after
            if tardiness < best:
                best, place = tardiness, here
        if behind > last:
            break
        here = behind
        end += p[here]
        late = max(late, d[here] + p[here])
    if memory[0] * 2 >= len(table):
        return _FULL
    memory[0] += 1
    slot = _slot(key, table)
    table[slot, 0], table[slot, 1], table[slot, 2] = key, best, place
    return best


@kernel
def _write(
    p: I64,
    d: I64,
    rank: I64,
    first: int,
    last: int,
    bound: int,
    start: int,
    table: I64,
    memory: I64,
    order: I64,
    place: int,
) -> int:
    """Write the order of a solved problem from a place on, and return the place behind it."""
    first, last, longest, count = _members(rank, first, last, bound)
    if count == 0:
        return place
    if count == 1:
        order[place] = longest
        return place + 1
    here = table[_slot(_key(rank, first, last, longest, start, memory), table), 2]
    bound = rank[longest] - 1
    end = start + p[longest]
    for i in range(first, here + 1):
        if rank[i] <= bound:
            end += p[i]
    place = _write(p, d, rank, first, here, bound, start, table, memory, order, place)
    order[place] = longest
    return _write(p, d, rank, here + 1, last, bound, end, table, memory, order, place + 1)
