"""Moves of critical operations to the ends of their blocks, their fast estimates, and tabu search over them.

The neighbourhood is N6 (Balas and Vazacopoulos 1998) with the interior insertions of N7 (Zhang et al. 2007);
estimates as in Balas and Vazacopoulos; the tabu rule forbids to turn back any arc that a move has reversed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from schedrl.arrays import I32, I64
from schedrl.baselines.jobshop.disjunctive import (
    Selection,
    makespan_of,
    move_after,
    move_before,
)
from schedrl.kernel_arguments import by_reference
from schedrl.kernels import inner, kernel

__all__ = [
    "BEST",
    "Search",
    "critical_path",
    "distance",
    "estimate",
    "list_moves",
    "new_search",
    "perturb",
    "relink",
    "restart",
    "tabu_search",
]

# Beyond this size operations share tabu entries: some moves wait without need, memory stays bounded.
_TABU_ENTRIES = 2**24
# Fields of Search.counters.
ITERATION, BEST, CURRENT, STALLED = 0, 1, 2, 3


@by_reference
class Search(NamedTuple):
    """Memory of one tabu search."""

    tabu_until: I64  # (N, K) iteration until which operation i may not again precede slot k of its machine
    slot: I32  # (N,) number of each operation among those of its machine, shared by some in huge instances
    best_sequence: I32  # (N,)
    counters: I64  # (4,) iteration, best makespan, current makespan, iterations since the last improvement
    tenure: I64  # (2,) least tenure, width of the random part
    random: I64  # (1,) state of the generator
    path: I32  # (N,) scratch: the critical path
    end: I64  # (N,) scratch: ends of shifted operations
    moves: I32  # (4 N, 3) scratch: moved operation, target operation, 1 to go behind the target else 0


def new_search(machine: I32, jobs: int, machines: int, seed: int) -> Search:
    """Return the memory for instances with these machines per operation; ``seed`` is non-negative."""
    count = len(machine)
    order = np.argsort(machine, kind="stable")
    loads = np.bincount(machine, minlength=machines)
    slot = np.empty(count, dtype=np.int32)
    slots = max(1, min(int(loads.max()), _TABU_ENTRIES // count))
    slot[order] = (np.arange(count) - np.repeat(np.cumsum(loads) - loads, loads)) % slots
    least = 7 + jobs // machines
    return Search(
        tabu_until=np.zeros((count, slots), dtype=np.int64),
        slot=slot,
        best_sequence=np.zeros(count, dtype=np.int32),
        counters=np.zeros(4, dtype=np.int64),
        tenure=np.array([least, least], dtype=np.int64),
        random=np.array([seed % (2**31 - 2) + 1], dtype=np.int64),
        path=np.zeros(count, dtype=np.int32),
        end=np.zeros(count, dtype=np.int64),
        moves=np.zeros((4 * count, 3), dtype=np.int32),
    )


@kernel
def draw(s: Search, bound: int) -> int:
    """Return a pseudo-random integer in [0, bound); minimal standard generator (Park and Miller 1988)."""
    s.random[0] = s.random[0] * 48271 % 2147483647
    number: int = (s.random[0] >> 7) % bound
    return number


@kernel
def critical_path(g: Selection, s: Search, makespan: int) -> int:
    """Write one random critical path, last operation first, and return its length."""
    operation, seen = -1, 0
    for last in g.job_last:
        if g.head[last] + g.duration[last] == makespan:
            seen += 1
            if draw(s, seen) == 0:
                operation = last
    length = 0
    while operation >= 0:
        s.path[length] = operation
        length += 1
        head, job, machine = g.head[operation], g.job_before[operation], g.machine_before[operation]
        if head == 0:
            break
        by_job = job >= 0 and g.head[job] + g.duration[job] == head
        by_machine = machine >= 0 and g.head[machine] + g.duration[machine] == head
        operation = job if by_job and (not by_machine or draw(s, 2) == 0) else machine
    return length


@kernel
def _add(g: Selection, s: Search, count: int, moved: int, target: int, behind: int) -> int:
    """Append a move when it cannot close a cycle, and return the new number of moves.

    A longest-path argument: a path from the job's next operation to the target would make the former's tail
    longer, strictly so unless it takes no time.
    """
    other = g.job_after[moved] if behind else g.job_before[moved]
    if other >= 0:
        if behind:
            slack = g.duration[target] + g.tail[target] - g.duration[other] - g.tail[other]
            clear = g.rank[other] > g.rank[target]
        else:
            slack = g.head[target] + g.duration[target] - g.head[other] - g.duration[other]
            clear = g.rank[other] < g.rank[target]
        if other == target or not (clear or slack > 0 or (slack == 0 and g.duration[other] > 0)):
            return count
    s.moves[count, 0], s.moves[count, 1], s.moves[count, 2] = moved, target, behind
    return count + 1


@inner
def _block_moves(g: Selection, s: Search, count: int, low: int, high: int, length: int) -> int:
    """Append the moves of the block ``path[low..high]``, where ``high`` is its earliest operation."""
    first, last = s.path[high], s.path[low]
    # The makespan cannot fall by a new beginning of the first block or a new end of the last.
    if low > 0:
        for index in range(low + 1, high + 1):
            count = _add(g, s, count, s.path[index], last, 1)
        for index in range(low + 2, high):
            count = _add(g, s, count, last, s.path[index], 0)
    if high < length - 1:
        for index in range(low, high):
            # Two neighbours have one swap between them; it is in the list already.
            if high - low > 1 or low == 0:
                count = _add(g, s, count, s.path[index], first, 0)
        for index in range(low + 1, high - 1):
            count = _add(g, s, count, first, s.path[index], 1)
    return count


@kernel
def list_moves(g: Selection, s: Search, length: int) -> int:
    """List the moves of all blocks of the critical path, and return their number."""
    count, low = 0, 0
    while low < length:
        high = low
        while high + 1 < length and g.machine_before[s.path[high]] == s.path[high + 1]:
            high += 1
        if high > low:
            count = _block_moves(g, s, count, low, high, length)
        low = high + 1
    return count


@kernel
def _end(g: Selection, operation: int) -> int:
    end: int = g.head[operation] + g.duration[operation] if operation >= 0 else 0
    return end


@inner
def _work_from(g: Selection, operation: int) -> int:
    work: int = g.tail[operation] + g.duration[operation] if operation >= 0 else 0
    return work


@kernel
def estimate(g: Selection, moved: int, target: int, behind: int, buffer: I64) -> int:
    """Return the longest path through the operations a move shifts, a close estimate of the makespan."""
    from_place, to_place = g.place[moved], g.place[target]
    low, high = min(from_place, to_place), max(from_place, to_place)
    end = _end(g, g.machine_before[g.sequence[low]])
    after = g.machine_after[g.sequence[high]]
    count = high - low + 1
    for index in range(count):
        operation = _shifted(g, low, high, index, behind)
        head = max(end, _end(g, g.job_before[operation]))
        end = head + g.duration[operation]
        buffer[index] = end
    longest, work = 0, _work_from(g, after)
    for index in range(count - 1, -1, -1):
        operation = _shifted(g, low, high, index, behind)
        work = max(work, _work_from(g, g.job_after[operation]))
        longest = max(longest, buffer[index] + work)
        work += g.duration[operation]
    return longest


@inner
def _shifted(g: Selection, low: int, high: int, index: int, behind: int) -> int:
    """Return the operation at ``low + index`` after the first moves to the end or the last to the front."""
    place = low + index + (1 if behind else -1)
    if place > high:
        place = low
    elif place < low:
        place = high
    operation: int = g.sequence[place]
    return operation


@inner
def _is_tabu(g: Selection, s: Search, moved: int, target: int, behind: int) -> bool:
    iteration = s.counters[ITERATION]
    if behind:
        for place in range(g.place[moved] + 1, g.place[target] + 1):
            if s.tabu_until[g.sequence[place], s.slot[moved]] > iteration:
                return True
    else:
        for place in range(g.place[target], g.place[moved]):
            if s.tabu_until[moved, s.slot[g.sequence[place]]] > iteration:
                return True
    return False


@kernel
def _choose(g: Selection, s: Search, count: int) -> int:
    """Return the best move that is not tabu, or tabu but promising a new best; else a random move."""
    chosen, lowest, ties = -1, 0, 0
    for index in range(count):
        moved, target, behind = s.moves[index, 0], s.moves[index, 1], s.moves[index, 2]
        value = estimate(g, moved, target, behind, s.end)
        if value >= s.counters[BEST] and _is_tabu(g, s, moved, target, behind):
            continue
        if chosen < 0 or value < lowest:
            chosen, lowest, ties = index, value, 1
        elif value == lowest:
            ties += 1
            if draw(s, ties) == 0:
                chosen = index
    return chosen if chosen >= 0 else draw(s, count)


@inner
def _apply(g: Selection, s: Search, index: int) -> None:
    """Make a move and forbid for a while to turn back the arcs it reverses."""
    moved, target, behind = s.moves[index, 0], s.moves[index, 1], s.moves[index, 2]
    until = s.counters[ITERATION] + s.tenure[0] + draw(s, s.tenure[1])
    if behind:
        for place in range(g.place[moved] + 1, g.place[target] + 1):
            s.tabu_until[moved, s.slot[g.sequence[place]]] = until
        move_after(g, moved, target)
    else:
        for place in range(g.place[target], g.place[moved]):
            s.tabu_until[g.sequence[place], s.slot[moved]] = until
        move_before(g, moved, target)


@kernel
def restart(s: Search) -> None:
    """Forget tabu list, stall count and best schedule, for a search from another sequence."""
    s.counters[ITERATION] += s.tenure[0] + s.tenure[1]  # every entry has run out
    s.counters[STALLED] = 0
    s.counters[BEST] = 2**62


@kernel
def perturb(g: Selection, s: Search, steps: int) -> None:
    """Make random moves of critical operations."""
    for _ in range(steps):
        count = list_moves(g, s, critical_path(g, s, makespan_of(g)))
        if count == 0:
            return
        _apply(g, s, draw(s, count))


@kernel
def distance(g: Selection, place: I32) -> int:
    """Return the number of operation pairs whose order differs from that of the sequences given by ``place``."""
    count = 0
    for machine in range(len(g.first) - 1):
        for early in range(g.first[machine], g.first[machine + 1]):
            for late in range(early + 1, g.first[machine + 1]):
                count += place[g.sequence[early]] > place[g.sequence[late]]
    return count


@kernel
def relink(g: Selection, s: Search, place: I32, steps: int) -> None:
    """Walk towards the sequences given by ``place``: swap neighbours that stand the other way round there."""
    pairs = s.path
    for _ in range(steps):
        count = 0
        for index in range(len(g.sequence)):
            after = g.machine_after[g.sequence[index]]
            if after >= 0 and place[g.sequence[index]] > place[after]:
                pairs[count] = g.sequence[index]
                count += 1
        moved = False
        while count > 0 and not moved:
            chosen = draw(s, count)
            moved = move_after(g, pairs[chosen], g.machine_after[pairs[chosen]])
            count -= 1
            pairs[chosen] = pairs[count]
        if not moved:
            return


@kernel
def tabu_search(g: Selection, s: Search, iterations: int, patience: int, bound: int) -> bool:
    """Search from the loaded sequence; ``counters`` and ``best_sequence`` carry over between calls.

    Returns:
        False when ``patience`` iterations brought no better schedule, no move is left, or ``bound`` is met.
    """
    makespan = makespan_of(g)
    for _ in range(iterations):
        if makespan < s.counters[BEST]:
            s.counters[BEST] = makespan
            s.counters[STALLED] = 0
            for place in range(len(g.sequence)):
                s.best_sequence[place] = g.sequence[place]
        count = list_moves(g, s, critical_path(g, s, makespan))
        if s.counters[BEST] <= bound or count == 0 or s.counters[STALLED] >= patience:
            return False
        _apply(g, s, _choose(g, s, count))
        s.counters[ITERATION] += 1
        s.counters[STALLED] += 1
        makespan = makespan_of(g)
        s.counters[CURRENT] = makespan
    return True
