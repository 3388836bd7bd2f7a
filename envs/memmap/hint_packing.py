"""Windows and offsets for the plan without offsets: when its copies run, and where its residences fit."""

from __future__ import annotations

import numpy as np
from numba import njit

from schedrl.arrays import F64, I8, I32, I64, Bool
from schedrl.envs.memmap.relaxed_plan import Program

__all__ = ["pack_hint"]


@njit(cache=True)
def _residences(program: Program, hint: I8, hold: Bool, back: Bool) -> I64:
    """Return (R, 5) accesses that begin and end a residence, its buffer, first and last operation."""
    offset, order, access_op, write, size, _ = program
    rows, count = np.zeros((len(access_op), 5), np.int64), 0
    for b in range(len(size)):
        i = offset[b]
        while i < offset[b + 1]:
            if hint[order[i]] == 0:
                i += 1
                continue
            j = i
            while j + 1 < offset[b + 1] and hold[order[j]]:
                j += 1
            begin, end = order[i], order[j]
            rows[count, 0], rows[count, 1], rows[count, 2] = begin, end, b
            rows[count, 3] = access_op[begin] if write[begin] else access_op[begin] - 1
            rows[count, 4] = access_op[end]
            count += 1
            i = j + 1
    return rows[:count]


@njit(cache=True)
def _open_windows(program: Program, rows: I64, back: Bool, idle: F64, bus: float) -> I64:
    """Give copies into fast layers, the last to be needed first, the latest idle time; return (R,) their starts.

    Copies back get the first idle time after their result. A copy that no idle time is left for has start -2.
    """
    access_op, write, size = program[2], program[3], program[4]
    left = idle.copy()
    start = np.full(len(rows), -3, np.int64)
    needed = np.argsort(-access_op[rows[:, 0]], kind="mergesort")
    for i in needed:
        a = rows[i, 0]
        if write[a]:
            continue
        demand = size[rows[i, 2]] * bus
        t = access_op[a] - 1
        while t >= 0 and demand > 0.0:
            used = min(left[t], demand)
            left[t] -= used
            demand -= used
            t -= 1
        start[i] = t if demand <= 0.0 else -2
        if start[i] > -2:
            rows[i, 3] = t + 1
    for i in np.argsort(rows[:, 3], kind="mergesort"):
        if not back[rows[i, 0]]:
            continue
        demand = size[rows[i, 2]] * bus
        t = access_op[rows[i, 0]] + 1
        while t < len(left) and demand > 0.0:
            used = min(left[t], demand)
            left[t] -= used
            demand -= used
            t += 1
        if demand > 0.0:
            start[i] = -2
        rows[i, 4] = max(rows[i, 4], t - 1)
    return start


@njit(cache=True)
def _lowest(places: I64, placed: I32, count: int, row: I64, size: F64, limits: tuple[float, int]) -> int:
    """Return the lowest offset free over a residence's time; -1 when it would end above the capacity."""
    capacity, align = limits
    need, top = size[row[2]], 0
    # Placed residences are in order of offset.
    for k in range(count):
        other = placed[k]
        if places[other, 1] < row[3] or places[other, 0] > row[4]:
            continue
        low = places[other, 2]
        if low - top >= need:
            return top
        top = max(top, (low + int(size[places[other, 3]]) + align - 1) // align * align)
    return top if top + need <= capacity else -1


@njit(cache=True)
def pack_hint(
    program: Program,
    hint: I8,
    hold: Bool,
    back: Bool,
    gain: F64,
    supply: tuple[F64, float],
    limits: tuple[F64, I64],
) -> tuple[I64, I64, Bool, Bool]:
    """Fit a plan into time and bytes.

    Return the offset of the residence that each access begins, -1 for none (A,), after which operation its copy
    begins, -2 for none (A,), the accesses left out (A,), and those whose copy no idle time is left for (A,).
    """
    offset, order, access_op, _, size, _ = program
    idle, bus = supply
    capacity, alignment = limits
    rows = _residences(program, hint, hold, back)
    start = _open_windows(program, rows, back, idle, bus)
    accesses = len(access_op)
    best_place, best_out, least = np.full(accesses, -1, np.int64), np.zeros(accesses, np.bool_), 1e300
    span = (rows[:, 4] - rows[:, 3] + 1).astype(np.float64)
    sizes = size[rows[:, 2]]
    worth = np.zeros(len(rows))
    for r in range(len(rows)):
        a = rows[r, 0]
        b = rows[r, 2]
        for i in range(offset[b], offset[b + 1]):
            if access_op[order[i]] >= access_op[a] and access_op[order[i]] <= access_op[rows[r, 1]]:
                worth[r] += gain[order[i], hint[order[i]]]
    for attempt in range(4):
        if attempt == 0:
            rank = np.argsort(-sizes * 1e3 - span)
        elif attempt == 1:
            rank = np.argsort(-sizes * span)
        elif attempt == 2:
            rank = np.argsort(-worth / np.sqrt(sizes))
        else:
            rank = np.argsort(-span * 1e15 - sizes)
        place, out = np.full(accesses, -1, np.int64), np.zeros(accesses, np.bool_)
        lost = 0.0
        for m in range(1, len(capacity)):
            places, placed, count = np.zeros((len(rows), 4), np.int64), np.zeros(len(rows), np.int32), 0
            for r in rank:
                begin = rows[r, 0]
                if hint[begin] != m:
                    continue
                found = -1
                if start[r] != -2:
                    found = _lowest(places, placed, count, rows[r], size, (float(capacity[m]), alignment[m]))
                if found < 0:
                    lost += worth[r]
                    b = rows[r, 2]
                    for i in range(offset[b], offset[b + 1]):
                        if begin <= order[i] <= rows[r, 1]:
                            out[order[i]] = True
                    continue
                place[begin] = found
                places[r, 0], places[r, 1], places[r, 2], places[r, 3] = rows[r, 3], rows[r, 4], found, rows[r, 2]
                k = count
                while k > 0 and places[placed[k - 1], 2] > found:
                    placed[k] = placed[k - 1]
                    k -= 1
                placed[k] = r
                count += 1
        if lost < least:
            least = lost
            best_place[:], best_out[:] = place, out
    starved = np.zeros(accesses, np.bool_)
    starved[rows[start == -2, 0]] = True
    begin = np.full(accesses, -2, np.int64)
    for r in range(len(rows)):
        begin[rows[r, 0]] = max(start[r], -2)
    return best_place, begin, best_out, starved
