"""A plan without offsets: which layer serves each access when only the sum of sizes is limited.

Buffers enter one after another in the order of their priced advantage; each takes its cheapest sequence of layers
through the capacity that is left, with what it really saves given the others. Then every buffer is taken out and
entered again a few times. Copies cost their shadow price; whether the bus can hide them is for the game to see.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numba import njit

from schedrl.arrays import F64, I8, I32, Bool

__all__ = ["Program", "build_relaxed"]

Program: TypeAlias = tuple[I32, I32, I32, Bool, F64, Bool]
"""Accesses by buffer (offset (N + 1,), order (A,)), their operation and role (A,), size and output of buffers (N,)"""

Windows: TypeAlias = tuple[I32, I32]
"""(A,) operations that a copy into a fast layer needs before an access, and one back needs after a result"""

_ROUNDS = 3
# How much of the shadow price a buffer pays for its place, and the power of its footprint in the order of entry.
_RENTS = (0.0, 0.5, 1.0)
_POWERS = (0.5, 1.0)
CLEAN, DIRTY = 0, 1


@njit(cache=True)
def _room(left: F64, layer: int, first: int, last: int, size: float) -> bool:
    for t in range(max(first, 0), min(last, left.shape[1] - 1) + 1):  # noqa: SIM110  # a generator, which numba lacks
        if left[layer, t] < size:
            return False
    return True


@njit(cache=True)
def _gain(compute: F64, memory: F64, t: int, saving: float) -> float:
    found: float = max(compute[t], memory[t]) - max(compute[t], memory[t] - saving)
    return found


@njit(cache=True)
def _occupy(left: F64, layer: int, first: int, last: int, size: float) -> None:
    for t in range(max(first, 0), min(last, left.shape[1] - 1) + 1):
        left[layer, t] -= size


@njit(cache=True)
def _walk(
    program: Program,
    windows: Windows,
    b: int,
    plan: tuple[I8, Bool],
    sums: tuple[F64, F64, F64],
    saving: F64,
    sign: float,
) -> None:
    """Enter a buffer's places and savings into the sums, or take them out (``sign`` -1)."""
    offset, order, access_op, write, size, output = program
    lead, tail = windows
    hint, held = plan
    left, memory, _ = sums
    back = output[b]
    for i in range(offset[b], offset[b + 1] - 1):
        back = back or not held[order[i]]
    for i in range(offset[b], offset[b + 1]):
        a = order[i]
        m, t = hint[a], access_op[a]
        if m == 0:
            continue
        memory[t] -= sign * saving[a, m]
        kept = i > offset[b] and held[order[i - 1]]
        first = t if write[a] else t - lead[a]
        if kept:
            first = access_op[order[i - 1]] + 1
        _occupy(left, m, first, t, sign * size[b])
        if write[a] and back:
            # Until its next use the buffer is there anyway.
            used = access_op[order[i + 1]] if held[a] else t
            _occupy(left, m, used + 1, t + tail[a], sign * size[b])


@njit(cache=True)
def _enter(
    program: Program,
    windows: Windows,
    b: int,
    plan: tuple[I8, Bool],
    sums: tuple[F64, F64, F64],
    saving: F64,
    price: F64,
    rent: float,
    copy_cost: float,
    table: tuple[F64, I8, F64],
) -> None:
    """Choose a buffer's cheapest layers through the room that is left; fills ``hint`` and ``held``."""
    offset, order, access_op, write, size, output = program
    lead, tail = windows
    hint, held = plan
    left, memory, compute = sums
    cost, follow, dirty = table
    layers, s = saving.shape[1], size[b]
    first_access, end = offset[b], offset[b + 1]
    for i in range(end - 1, first_access - 1, -1):
        a = order[i]
        t = access_op[a]
        for own in range(layers):
            best, state = 0.0, 0
            if i + 1 < end:
                n = order[i + 1]
                u = access_op[n]
                best = cost[n, 0]
                for m in range(1, layers):
                    if cost[n, m] >= 1e29:
                        continue
                    if m == own and _room(left, m, t + 1, u, s):
                        hold = rent * s * (price[m, u + 1] - price[m, t + 1]) + cost[n, m]
                        if hold < best:
                            best, state = hold, m
                    if lead[n] <= u and _room(left, m, u - lead[n], u, s):
                        fetch = rent * s * (price[m, u + 1] - price[m, u - lead[n]]) + s * copy_cost + cost[n, m]
                        if fetch < best:
                            # Fetched, although it may have been there: marked by a layer number beyond the last.
                            best, state = fetch, m + layers
            follow[a, own] = state
            if own == 0:
                cost[a, 0] = best
                continue
            if saving[a, own] < -1e29 or not _room(left, own, t, t, s):
                cost[a, own], dirty[a, own] = 1e30, 1e30
                continue
            gain = _gain(compute, memory, t, saving[a, own])
            cost[a, own] = best - gain
            dirty[a, own] = -gain
            if i + 1 < end:
                n = order[i + 1]
                u = access_op[n]
                if dirty[n, own] < 1e29 and _room(left, own, t + 1, u, s):
                    dirty[a, own] += rent * s * (price[own, u + 1] - price[own, t + 1]) + dirty[n, own]
                else:
                    dirty[a, own] = 1e30
            if write[a]:
                done = t + tail[a]
                if done < price.shape[1] and _room(left, own, t + 1, done, s):
                    cost[a, own] += s * copy_cost + rent * s * (
                        price[own, min(done + 1, price.shape[1] - 1)] - price[own, t + 1]
                    )
                else:
                    cost[a, own] = 1e30
    a = order[first_access]
    t = access_op[a]
    best, state, stays = cost[a, 0], 0, False
    for m in range(1, layers):
        first = t if write[a] else t - lead[a]
        if first < 0 or not _room(left, m, first, t, s):
            continue
        entry = rent * s * (price[m, t + 1] - price[m, first])
        if not write[a]:
            entry += s * copy_cost
        if entry + cost[a, m] < best - 1e-15:
            best, state, stays = entry + cost[a, m], m, False
        if write[a] and not output[b] and entry + dirty[a, m] < best - 1e-15:
            best, state, stays = entry + dirty[a, m], m, True
    for i in range(first_access, end):
        a = order[i]
        hint[a] = state
        held[a] = False
        if i + 1 == end:
            break
        following = state if stays else follow[a, state]
        held[a] = state > 0 and following == state
        state = following - layers if following >= layers else following


@njit(cache=True)
def build_relaxed(
    program: Program,
    windows: Windows,
    saving: F64,
    times: tuple[F64, F64],
    capacity: F64,
    price: F64,
    priced: tuple[F64, F64],
    copy_cost: float,
) -> tuple[I8, Bool, float]:
    """Return the best plan found: layer (A,), whether a buffer is held until its next access (A,), and its latency."""
    offset, _, access_op, _, _, _ = program
    compute, all_slow = times
    accesses, layers, ops = len(access_op), len(capacity), len(compute)
    advantage, footprint = priced
    best_hint, best_held, best_latency = np.zeros(accesses, np.int8), np.zeros(accesses, np.bool_), all_slow.sum()
    table = (np.zeros((accesses, layers)), np.zeros((accesses, layers), np.int8), np.zeros((accesses, layers)))
    for power in _POWERS:
        rank = np.argsort(-advantage / footprint**power)
        for rent in _RENTS:
            hint, held = np.zeros(accesses, np.int8), np.zeros(accesses, np.bool_)
            plan = (hint, held)
            left = np.zeros((layers, ops))
            for m in range(1, layers):
                left[m, :] = capacity[m]
            memory = all_slow.copy()
            sums = (left, memory, compute)
            for k in range(_ROUNDS):
                for b in rank:
                    if offset[b + 1] == offset[b]:
                        continue
                    if k > 0:
                        _walk(program, windows, b, plan, sums, saving, -1.0)
                    # The last round charges nothing: whoever fits and saves may stay.
                    paid = rent if k + 1 < _ROUNDS else 0.0
                    _enter(program, windows, b, plan, sums, saving, price, paid, copy_cost, table)
                    _walk(program, windows, b, plan, sums, saving, 1.0)
                latency = np.maximum(compute, memory).sum()
                if latency < best_latency:
                    best_hint[:], best_held[:], best_latency = hint, held, latency
    return best_hint, best_held, best_latency
