"""One machine with heads, tails and delayed precedence constraints: Carlier's branch and bound.

Carlier (1982) branches on a critical job: it goes before or after all jobs of its critical set. That is exhaustive
while the set's bound with the job inside exceeds the best value, which delays can undo; the search then branches on
the order of one pair, as any disjunctive search may. Delays as in Balas, Lenstra and Vazacopoulos (1995).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from schedrl.arrays import I32, I64, Bool
from schedrl.kernel_arguments import by_reference
from schedrl.kernels import inner, kernel

__all__ = ["NODES", "PROVEN", "OneMachine", "new_one_machine", "solve_one_machine"]

# Fields of OneMachine.counters.
NODES, PROVEN, TRAIL, CRITICAL = 0, 1, 2, 3
_NO_PATH = -1
_HEAD, _TAIL = -1, -2  # what a trail entry restores, where it is no lag
_BEFORE, _AFTER = 0, 1


@by_reference
class OneMachine(NamedTuple):
    """A problem of n jobs, its best order, and scratch; ``lag`` must hold longest paths, hence be transitive."""

    head: I64  # (n,) earliest start, changed during the search and restored
    tail: I64  # (n,) work after the end, changed during the search and restored
    duration: I64  # (n,)
    lag: I64  # (n, n) least time from the start of i to the start of j, at least i's duration; -1 for no path
    best_order: I32  # (n,)
    counters: I64  # (4,) nodes, 1 when the order is proven optimal, length of the trail, position of the critical end
    head_now: I64  # (n,) scratch: heads with the lags
    tail_now: I64  # (n,) scratch: tails with the lags
    ready: I64  # (n,) scratch of the list schedule
    work: I64  # (n,) scratch of the list schedule and of the bound
    start: I64  # (n,) scratch of the list schedule
    order: I32  # (n,) scratch of the list schedule
    scheduled: Bool  # (n,) scratch
    trail: I64  # (T, 3) index, other index or _HEAD or _TAIL, old value
    stack: I32  # (D, 5) length of the trail, job, size of its set, next branch, branch tried first
    members: I32  # (D, n) the set of each stack entry


def new_one_machine(jobs: int) -> OneMachine:
    """Return the memory for a number of jobs; the caller fills ``head``, ``tail``, ``duration`` and ``lag``."""

    def i64() -> I64:
        return np.zeros(jobs, dtype=np.int64)

    depth = 4 * jobs + 8
    return OneMachine(
        head=i64(),
        tail=i64(),
        duration=i64(),
        lag=np.full((jobs, jobs), _NO_PATH, dtype=np.int64),
        best_order=np.zeros(jobs, dtype=np.int32),
        counters=np.zeros(4, dtype=np.int64),
        head_now=i64(),
        tail_now=i64(),
        ready=i64(),
        work=i64(),
        start=i64(),
        order=np.zeros(jobs, dtype=np.int32),
        scheduled=np.zeros(jobs, dtype=np.bool_),
        # Every lag rises at most about once per member of a set; a full trail only ends a branch unproven.
        trail=np.zeros((8 * jobs * jobs + 64, 3), dtype=np.int64),
        stack=np.zeros((depth, 5), dtype=np.int32),
        members=np.zeros((depth, jobs), dtype=np.int32),
    )


@inner
def _tighten(m: OneMachine) -> None:
    """Compute heads and tails with the lags; one pass does, for the lags are transitive."""
    for j in range(len(m.head)):
        head, tail = m.head[j], m.tail[j]
        for i in range(len(m.head)):
            if m.lag[i, j] >= 0:
                head = max(head, m.head[i] + m.lag[i, j])
            if m.lag[j, i] >= 0:
                tail = max(tail, m.lag[j, i] - m.duration[j] + m.duration[i] + m.tail[i])
        m.head_now[j], m.tail_now[j] = head, tail


@inner
def _list_schedule(m: OneMachine) -> int:
    """Schedule by Schrage's rule, longest tail first of what is ready, and return the value."""
    count, time, value = len(m.head), 0, -1
    for j in range(count):
        m.ready[j] = m.head_now[j]
        m.scheduled[j] = False
        m.work[j] = 0  # unscheduled predecessors
        for i in range(count):
            m.work[j] += m.lag[i, j] >= 0
    for position in range(count):
        earliest = 2**62
        for j in range(count):
            if not m.scheduled[j] and m.work[j] == 0:
                earliest = min(earliest, m.ready[j])
        time = max(time, earliest)
        chosen = -1
        for j in range(count):
            if not m.scheduled[j] and m.work[j] == 0 and m.ready[j] <= time:
                better = chosen < 0 or m.tail_now[j] > m.tail_now[chosen]
                if better or (m.tail_now[j] == m.tail_now[chosen] and m.duration[j] > m.duration[chosen]):
                    chosen = j
        m.scheduled[chosen] = True
        m.order[position] = chosen
        m.start[chosen] = time
        for j in range(count):
            if m.lag[chosen, j] >= 0:
                m.work[j] -= 1
                m.ready[j] = max(m.ready[j], time + m.lag[chosen, j])
        time += m.duration[chosen]
        if time + m.tail_now[chosen] >= value:
            value = time + m.tail_now[chosen]
            m.counters[CRITICAL] = position
    return value


@inner
def _preemptive_bound(m: OneMachine) -> int:
    """Return the value of Jackson's preemptive schedule: no order of the jobs has a smaller one."""
    count, time, bound = len(m.head), 0, 0
    for j in range(count):
        m.work[j] = m.duration[j]
        m.scheduled[j] = False
        bound = max(bound, m.head_now[j] + m.duration[j] + m.tail_now[j])
    left = count
    while left > 0:
        chosen, upcoming = -1, 2**62
        for j in range(count):
            if not m.scheduled[j]:
                if m.head_now[j] > time:
                    upcoming = min(upcoming, m.head_now[j])
                elif chosen < 0 or m.tail_now[j] > m.tail_now[chosen]:
                    chosen = j
        if chosen < 0:
            time = upcoming
            continue
        run = min(m.work[chosen], upcoming - time)
        time += run
        m.work[chosen] -= run
        if m.work[chosen] == 0:
            m.scheduled[chosen] = True
            left -= 1
            bound = max(bound, time + m.tail_now[chosen])
    return bound


@inner
def _record(m: OneMachine, index: int, other: int, old: int) -> None:
    trail = m.counters[TRAIL]
    m.trail[trail, 0], m.trail[trail, 1], m.trail[trail, 2] = index, other, old
    m.counters[TRAIL] = trail + 1


@inner
def _undo(m: OneMachine, length: int) -> None:
    while m.counters[TRAIL] > length:
        m.counters[TRAIL] -= 1
        index, other, old = m.trail[m.counters[TRAIL]]
        if other == _HEAD:
            m.head[index] = old
        elif other == _TAIL:
            m.tail[index] = old
        else:
            m.lag[index, other] = old


@inner
def _order_pair(m: OneMachine, one: int, other: int) -> bool:
    """Let ``one`` precede ``other``, with all that follows from it; return False on a cycle or a full trail."""
    if m.lag[other, one] >= 0:
        return False
    count = len(m.head)
    if m.counters[TRAIL] + count * count + 2 > len(m.trail):
        return False
    if m.lag[one, other] >= m.duration[one]:
        return True
    for i in range(count):
        to_one = 0 if i == one else m.lag[i, one]
        if to_one < 0:
            continue
        for j in range(count):
            from_other = 0 if j == other else m.lag[other, j]
            path = to_one + m.duration[one] + from_other
            if from_other >= 0 and path > m.lag[i, j]:
                _record(m, i, j, m.lag[i, j])
                m.lag[i, j] = path
    return True


@inner
def _branch(m: OneMachine, depth: int, direction: int) -> bool:
    """Put the job of a stack entry before or after its whole set; return False where that is impossible."""
    job, size = m.stack[depth, 1], m.stack[depth, 2]
    edge, work, far = 2**62, 0, 2**62
    for k in range(size):
        j = m.members[depth, k]
        edge, far = min(edge, m.head[j]), min(far, m.tail[j])
        work += m.duration[j]
        if not (_order_pair(m, job, j) if direction == _BEFORE else _order_pair(m, j, job)):
            return False
    if direction == _BEFORE and far + work > m.tail[job]:
        _record(m, job, _TAIL, m.tail[job])
        m.tail[job] = far + work
    if direction == _AFTER and edge + work > m.head[job]:
        _record(m, job, _HEAD, m.head[job])
        m.head[job] = edge + work
    return True


@inner
def _choose(m: OneMachine, depth: int, best: int) -> bool:
    """Write the next branching to the stack; return False when the list schedule is optimal here."""
    end = m.counters[CRITICAL]
    last = m.order[end]
    first = end
    while first > 0 and m.start[m.order[first - 1]] + m.duration[m.order[first - 1]] == m.start[m.order[first]]:
        first -= 1
    head, work, tail = 2**62, 0, 2**62
    for position in range(end, first - 1, -1):
        j = m.order[position]
        if position < end and m.tail_now[j] < m.tail_now[last]:
            # The critical job. Inside its set it would bring no better value than the best known.
            if head + work + m.duration[j] + tail >= best:
                m.stack[depth, 1], m.stack[depth, 2] = j, end - position
                for k in range(end - position):
                    m.members[depth, k] = m.order[position + 1 + k]
                # First the side that fits better, as Carlier advises for the longer of head and tail.
                m.stack[depth, 4] = _AFTER if m.head_now[j] + m.duration[j] + work > best - tail else _BEFORE
                return True
            break
        head, tail = min(head, m.head_now[j]), min(tail, m.tail_now[j])
        work += m.duration[j]
        if head + work + tail >= best:
            return False
    return _choose_pair(m, depth, end)


@inner
def _choose_pair(m: OneMachine, depth: int, end: int) -> bool:
    """Branch on two jobs without an order, close to the critical end; return False when all pairs have one."""
    count = len(m.head)
    for turn in range(count):
        late = end - turn if turn <= end else turn
        for early in range(late - 1, -1, -1):
            one, other = m.order[early], m.order[late]
            if m.lag[one, other] < 0:
                m.stack[depth, 1], m.stack[depth, 2] = one, 1
                m.members[depth, 0] = other
                m.stack[depth, 4] = _AFTER
                return True
    return False


@kernel
def solve_one_machine(m: OneMachine, node_limit: int) -> int:
    """Find the order with the least max(start + duration + tail), and return that value.

    After ``node_limit`` nodes the best order so far is the result; ``counters[PROVEN]`` tells.
    """
    m.counters[NODES], m.counters[TRAIL], m.counters[PROVEN] = 0, 0, 1
    best, depth, entering = 2**62, 0, True
    while True:
        if entering:
            entering = False
            m.counters[NODES] += 1
            _tighten(m)
            deeper = _preemptive_bound(m) < best
            if deeper:
                value = _list_schedule(m)
                if value < best:
                    best = value
                    for position in range(len(m.order)):
                        m.best_order[position] = m.order[position]
                deeper = _choose(m, depth, best)
            if deeper and (m.counters[NODES] >= node_limit or depth + 1 >= len(m.stack)):
                deeper = False
                m.counters[PROVEN] = 0
            if deeper:
                m.stack[depth, 0], m.stack[depth, 3] = m.counters[TRAIL], 0
                depth += 1
        if depth == 0:
            return best
        top = depth - 1
        _undo(m, m.stack[top, 0])
        tried = m.stack[top, 3]
        if tried == 2 or m.counters[NODES] >= node_limit:
            m.counters[PROVEN] = m.counters[PROVEN] if tried == 2 else 0
            depth -= 1
            continue
        m.stack[top, 3] = tried + 1
        entering = _branch(m, top, m.stack[top, 4] if tried == 0 else 1 - m.stack[top, 4])
        if not entering and m.counters[TRAIL] + len(m.head) * len(m.head) + 2 > len(m.trail):
            m.counters[PROVEN] = 0
