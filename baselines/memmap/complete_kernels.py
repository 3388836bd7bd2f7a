"""Kernels of the complete search for offset packing: a depth-first search over preallocated arrays.

Some packing of least sum of offsets solves every solvable problem, and in it no buffer could go lower. The search
builds that one from the bottom up, by the scheme of MiniMalloc (Moffitt, ASPLOS 2023). A node takes a buffer whose
lowest free offset is the least of all, and either places it there or blocks it: then it has to be raised, by another
buffer that comes to lie below it (the postponed activities of Le Pape, Couronne, Vergamini and Gosselin 1994). Among
buffers of equal lowest offset the next one comes from the time where past dead ends were met (the weighted degrees of
Boussemart, Hemery, Lecoutre and Sais, ECAI 2004).

A node is a dead end when a blocked buffer finds no room above any buffer that could raise it, or when the buffers of
one clique, stacked on each other from their lowest offsets on, exceed the capacity. A placement that leaves buffers
without common time splits the rest into groups; each is solved on its own, and a dead end in one goes back to the
split at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from schedrl.arrays import F64, I8, I32, I64
from schedrl.baselines.memmap.complete_tables import Tables
from schedrl.kernel_arguments import by_reference
from schedrl.kernels import inlined, inner_inlined, kernel

__all__ = [
    "BY_CONFLICTS",
    "BY_ORDER",
    "BY_TIGHTNESS",
    "EXHAUSTED",
    "NODES",
    "PAUSED",
    "SOLVED",
    "State",
    "new_state",
    "restart",
    "search",
]

PAUSED, SOLVED, EXHAUSTED = 0, 1, 2
# Which of the buffers with the least lowest offset is next: the first in the order, the one that crosses the clique
# of most past conflicts, or of most conflicts per unit of room left.
BY_ORDER, BY_CONFLICTS, BY_TIGHTNESS = 0, 1, 2
# Columns of a frame. The group of frame f is arena[START:STOP]; it is the GROUP-th of those that the placement in
# frame PARENT left. TRAIL, ARENA and BOUND are the heights of the three stacks just before the frame's placement.
START, STOP, PARENT, GROUP, CHOSEN, TRAIL, ARENA, BOUND, GROUPS = range(9)
# Entries of the cursor.
TOP, TRAIL_TOP, ARENA_TOP, BOUND_TOP, NODES = range(5)
# Without it one clique without room would outweigh all conflicts.
_ROOM = 3.0


@by_reference
class State(NamedTuple):
    """Where the search stands."""

    lowest: Any  # (N,) lowest offset that the placed buffers leave
    blocked: I8  # (N,) 1 where the buffer must go higher than that
    offset: Any  # (N,) -1 where not placed
    frame: I64  # (N + 1, 9)
    arena: I32  # stack of groups of unplaced buffers, each in order of (lowest, buffer)
    bound: I64  # stack of ends of sibling groups in the arena
    trail_buffer: I32  # stack of changed buffers
    trail_lowest: Any  # what `lowest` was
    trail_blocked: I8
    estimate: Any  # (N,) lower bound on the offset, `lowest` except where blocked
    level: Any  # (S,) least top of the unplaced buffers of a clique
    group_of: I32  # (S,) scratch
    raised: I32  # (N,) scratch
    rest: I32  # (N,) scratch
    weight: F64  # (S,) conflicts of all searches so far
    cursor: I64  # (5,)


def new_state(tables: Tables) -> State:
    """Return the state before the first step."""
    count, pairs, cliques = len(tables.size), len(tables.pair), int(tables.last.max())
    dtype = tables.size.dtype
    # Each placement raises no more buffers than it meets; a buffer is blocked once per lowest offset.
    changes = 2 * pairs + 2 * count
    state = State(
        lowest=np.zeros(count, dtype),
        blocked=np.zeros(count, np.int8),
        offset=np.zeros(count, dtype),
        frame=np.zeros((count + 1, 9), np.int64),
        arena=np.zeros(count * (count + 3) // 2, np.int32),
        bound=np.zeros(2 * count + 2, np.int64),
        trail_buffer=np.zeros(changes, np.int32),
        trail_lowest=np.zeros(changes, dtype),
        trail_blocked=np.zeros(changes, np.int8),
        estimate=np.zeros(count, dtype),
        level=np.zeros(cliques, dtype),
        group_of=np.zeros(cliques, np.int32),
        raised=np.zeros(count, np.int32),
        rest=np.zeros(count, np.int32),
        weight=np.ones(cliques),
        cursor=np.zeros(5, np.int64),
    )
    restart(tables, state)
    return state


def restart(tables: Tables, state: State) -> None:
    """Put the search back to its root; the weights stay."""
    count = len(tables.size)
    state.lowest[:] = np.maximum(tables.fixed, 0)
    state.blocked[:] = 0
    state.offset[:] = -1
    state.arena[:count] = np.argsort(state.lowest, kind="stable")
    state.cursor[:] = 0
    state.cursor[ARENA_TOP] = count
    _open(state, 0, 0, count, -1, 0)


@kernel
def _open(w: State, frame: int, start: int, stop: int, parent: int, group: int) -> None:
    """Begin a frame."""
    f = w.frame[frame]
    f[START], f[STOP], f[PARENT], f[GROUP], f[CHOSEN], f[GROUPS] = start, stop, parent, group, -1, 0
    f[TRAIL], f[ARENA], f[BOUND] = w.cursor[TRAIL_TOP], w.cursor[ARENA_TOP], w.cursor[BOUND_TOP]
    w.cursor[TOP] = frame


@inlined
def _record(w: State, b: int) -> None:
    """Remember what is about to change of a buffer."""
    k = w.cursor[TRAIL_TOP]
    w.trail_buffer[k], w.trail_lowest[k], w.trail_blocked[k] = b, w.lowest[b], w.blocked[b]
    w.cursor[TRAIL_TOP] = k + 1


@inner_inlined
def _unwind(w: State, to: int) -> None:
    """Take back the placement of a frame and all since, and make it the top."""
    for frame in range(to, w.cursor[TOP] + 1):
        if w.frame[frame, CHOSEN] >= 0:
            w.offset[w.frame[frame, CHOSEN]] = -1
            w.frame[frame, CHOSEN] = -1
    f = w.frame[to]
    k = w.cursor[TRAIL_TOP] - 1
    while k >= f[TRAIL]:
        b = w.trail_buffer[k]
        w.lowest[b], w.blocked[b] = w.trail_lowest[k], w.trail_blocked[k]
        k -= 1
    w.cursor[TOP], w.cursor[TRAIL_TOP], w.cursor[ARENA_TOP], w.cursor[BOUND_TOP] = to, f[TRAIL], f[ARENA], f[BOUND]
    f[GROUPS] = 0


@inner_inlined
def _blame(w: State, first: int, last: int) -> None:
    """Share one conflict among the cliques of a range."""
    for s in range(first, last):
        w.weight[s] += 1.0 / (last - first)


@inlined
def _place(t: Tables, w: State, b: int, capacity: int) -> int:
    """Place a buffer at its lowest offset; return how many it raised, -1 if one of them no longer fits."""
    w.offset[b] = w.lowest[b]
    raised = 0
    for n in range(t.pair_offset[b], t.pair_offset[b + 1]):
        c = t.pair[n]
        least = w.lowest[b] + t.above[n]
        if w.offset[c] >= 0 or least <= w.lowest[c]:
            continue
        if t.alignment[c] > 1:
            least = (least + t.alignment[c] - 1) // t.alignment[c] * t.alignment[c]
        if t.fixed[c] >= 0 or least + t.size[c] > capacity:
            _blame(w, max(t.first[b], t.first[c]), min(t.last[b], t.last[c]))
            return -1
        _record(w, c)
        w.lowest[c] = least
        w.blocked[c] = 0
        # They come in ascending order of buffers; only alignment and windows can put them out of order of height.
        k = raised
        while k > 0 and w.lowest[w.raised[k - 1]] > least:
            w.raised[k] = w.raised[k - 1]
            k -= 1
        w.raised[k] = c
        raised += 1
    return raised


@inlined
def _merge(w: State, frame: int, raised: int) -> int:
    """Push the frame's group without the buffer just placed onto the arena, in order again; return its end."""
    f = w.frame[frame]
    # Marks the raised ones, which stand elsewhere now.
    for r in range(raised):
        w.offset[w.raised[r]] = -2
    out, r = f[ARENA], 0
    for k in range(f[START], f[STOP]):
        c = w.arena[k]
        if w.offset[c] != -1:
            continue
        while r < raised and w.lowest[w.raised[r]] <= w.lowest[c]:
            if w.lowest[w.raised[r]] == w.lowest[c] and w.raised[r] > c:
                break
            w.arena[out] = w.raised[r]
            out += 1
            r += 1
        w.arena[out] = c
        out += 1
    while r < raised:
        w.arena[out] = w.raised[r]
        out += 1
        r += 1
    for r in range(raised):
        w.offset[w.raised[r]] = -1
    w.cursor[ARENA_TOP] = out
    stop: int = out
    return stop


@inner_inlined
def _estimate_blocked(t: Tables, w: State, start: int, stop: int, capacity: int) -> bool:
    """Bound the offsets of a group from below; return whether all fit. ``rest`` holds the blocked ones in order."""
    blocked = 0
    for k in range(start, stop):
        c = w.arena[k]
        w.estimate[c] = w.lowest[c]
        if w.blocked[c]:
            w.rest[blocked] = c
            blocked += 1
    # A second round draws on what the first found out about blocked neighbours.
    for _ in range(2):
        for k in range(blocked):
            c = w.rest[k]
            least = capacity
            for n in range(t.pair_offset[c], t.pair_offset[c + 1]):
                q = t.pair[n]
                # One that raises c lies in the way of c at its lowest offset.
                if w.offset[q] < 0 and w.estimate[q] < w.lowest[c] + t.above[n]:
                    least = min(least, w.estimate[q] + t.below[n])
            if t.fixed[c] >= 0 or least + t.size[c] > capacity:
                _blame(w, t.first[c], t.last[c])
                return False
            w.estimate[c] = max(w.estimate[c], least)
    for k in range(1, blocked):
        c = w.rest[k]
        i = k
        while i > 0 and w.estimate[w.rest[i - 1]] > w.estimate[c]:
            w.rest[i] = w.rest[i - 1]
            i -= 1
        w.rest[i] = c
    return True


@inner_inlined
def _fits(t: Tables, w: State, start: int, stop: int, capacity: int) -> bool:
    """Return whether no clique of a group is a dead end; sets ``estimate`` and ``level``."""
    if not _estimate_blocked(t, w, start, stop, capacity):
        return False
    first, last, blocked = len(w.level), 0, 0
    for k in range(start, stop):
        c = w.arena[k]
        blocked += w.blocked[c]
        first, last = min(first, t.first[c]), max(last, t.last[c])
    for s in range(first, last):
        w.level[s] = 0
    i, k = 0, start
    while k < stop or i < blocked:
        if k < stop and w.blocked[w.arena[k]]:
            k += 1
            continue
        if i == blocked or (k < stop and w.lowest[w.arena[k]] <= w.estimate[w.rest[i]]):
            c = w.arena[k]
            k += 1
        else:
            c = w.rest[i]
            i += 1
        least = w.estimate[c]
        for n in range(t.part_offset[c], t.part_offset[c + 1]):
            size = t.part_size[n]
            for s in range(t.part_first[n], t.part_last[n]):
                w.level[s] = max(w.level[s], least) + size
    for s in range(first, last):
        if w.level[s] > capacity:
            w.weight[s] += 1.0
            return False
    return True


@inlined
def _next(t: Tables, w: State, start: int, stop: int, capacity: int, rule: int) -> int:
    """Return the buffer to place or to block next, -1 if all are blocked."""
    b, most = -1, -1.0
    for k in range(start, stop):
        c = w.arena[k]
        if w.blocked[c]:
            continue
        if b >= 0 and (rule == BY_ORDER or w.lowest[c] > w.lowest[b]):
            break
        urgency = 0.0
        if rule == BY_CONFLICTS:
            for s in range(t.first[c], t.last[c]):
                urgency = max(urgency, w.weight[s])
        elif rule == BY_TIGHTNESS:
            for s in range(t.first[c], t.last[c]):
                urgency = max(urgency, w.weight[s] / (capacity - w.level[s] + _ROOM))
        if urgency > most:
            b, most = c, urgency
    # Of twins the first is placed first; those not placed share their lowest offset.
    while b >= 0 and t.twin_before[b] >= 0 and w.offset[t.twin_before[b]] < 0:
        b = t.twin_before[b]
    return b


@inlined
def _split(t: Tables, w: State, frame: int, start: int, stop: int) -> None:
    """Sort an arena range into groups that share no clique, and push their ends."""
    f = w.frame[frame]
    first, last = len(w.level), 0
    for k in range(start, stop):
        first, last = min(first, t.first[w.arena[k]]), max(last, t.last[w.arena[k]])
    for s in range(first, last):
        w.group_of[s] = 0
    for k in range(start, stop):
        c = w.arena[k]
        w.group_of[t.first[c]] = max(w.group_of[t.first[c]], t.last[c])
    group, reach = -1, first
    for s in range(first, last):
        # Until here, the farthest end of the buffers that begin at the clique.
        if w.group_of[s] > 0:
            if s >= reach:
                group += 1
            reach = max(reach, w.group_of[s])
        w.group_of[s] = group
    f[GROUPS] = group + 1
    if group == 0:
        w.bound[f[BOUND]] = stop
    else:
        for k in range(start, stop):
            w.rest[k - start] = w.arena[k]
        out = start
        for g in range(group + 1):
            for k in range(stop - start):
                if w.group_of[t.first[w.rest[k]]] == g:
                    w.arena[out] = w.rest[k]
                    out += 1
            w.bound[f[BOUND] + g] = out
    w.cursor[BOUND_TOP] = f[BOUND] + group + 1


@inner_inlined
def _descend(t: Tables, w: State, capacity: int, raised: int) -> int:
    """Open the next group after the top frame's placement; return SOLVED when none is left, EXHAUSTED at a dead end."""
    x = w.cursor[TOP]
    f = w.frame[x]
    stop = _merge(w, x, raised)
    if stop > f[ARENA]:
        _split(t, w, x, f[ARENA], stop)
        # A single group is judged when its frame is at work; of several, the last would be much later.
        start = w.bound[f[BOUND]]
        for g in range(1, f[GROUPS]):
            if not _fits(t, w, start, w.bound[f[BOUND] + g], capacity):
                return EXHAUSTED
            start = w.bound[f[BOUND] + g]
        _open(w, x + 1, f[ARENA], w.bound[f[BOUND]], x, 0)
        return PAUSED
    while w.frame[x, PARENT] >= 0:
        parent, group = w.frame[x, PARENT], w.frame[x, GROUP] + 1
        if group < w.frame[parent, GROUPS]:
            bound = w.frame[parent, BOUND] + group
            _open(w, w.cursor[TOP] + 1, w.bound[bound - 1], w.bound[bound], parent, group)
            return PAUSED
        x = parent
    return SOLVED


@kernel
def search(t: Tables, w: State, capacity: int, nodes: int, rule: int) -> int:
    """Search on for a number of nodes; return SOLVED, EXHAUSTED (no packing within the capacity) or PAUSED."""
    for _ in range(nodes):
        w.cursor[NODES] += 1
        top = w.cursor[TOP]
        f = w.frame[top]
        b = -1
        if _fits(t, w, f[START], f[STOP], capacity):
            b = _next(t, w, f[START], f[STOP], capacity, rule)
        if b >= 0:
            f[CHOSEN], f[TRAIL] = b, w.cursor[TRAIL_TOP]
            raised = _place(t, w, b, capacity)
            outcome = EXHAUSTED if raised < 0 else _descend(t, w, capacity, raised)
            if outcome == SOLVED:
                return SOLVED
            if outcome == PAUSED:
                continue
        elif f[PARENT] < 0:
            return EXHAUSTED
        else:
            top = f[PARENT]
            b = w.frame[top, CHOSEN]
        _unwind(w, top)
        # Its twins lie higher still.
        while b >= 0:
            if w.blocked[b] == 0:
                _record(w, b)
                w.blocked[b] = 1
            b = t.twin_after[b]
    return PAUSED
