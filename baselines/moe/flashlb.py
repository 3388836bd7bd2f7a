"""FlashLB of vllm-ascend: planning for the spread of loads over time, only for layers that need it.

After the description of its policy: replicas by mean plus deviations, placement on the device of the least risk with
correlated experts kept apart, a search over how many spare replicas each tier of hotness gets, and an update of a
layer only when its balance has fallen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from schedrl.arrays import F64, I32
from schedrl.baselines.moe.packing import RISK, device_speed
from schedrl.baselines.moe.windows import rearranged, recent_windows
from schedrl.envs.moe.balancing import Scratch, allocate_scratch, place_replicas, slot_starts, sort_descending
from schedrl.envs.moe.instance import ExpertPlacementInstance

__all__ = ["FlashLB"]

_TIERS = 4
_SHIFTS = (-4, -3, -2, -1, 1, 2, 3, 4)  # spare replicas that a tier passes to the next: eight neighbours
_LEAST_BALANCE = 0.85
_LEAST_OF_PAST = 0.9


class FlashLB:
    """Re-plans layers whose mean load per largest falls below 0.85, or below 0.9 of that at their last update.

    Args:
        recent: windows that means and deviations are taken over, at most.
    """

    def __init__(self, recent: int = 8) -> None:
        self._recent = recent
        self._past: F64 | None = None  # (L,) balance of each layer when it was planned

    def plan(self, known: ExpertPlacementInstance, current: I32 | None) -> I32:
        """Return the placement (L, P) of the next window."""
        series = np.ascontiguousarray(recent_windows(known, self._recent), dtype=np.float64)
        first_slot, speed = slot_starts(known.slots), device_speed(known)
        scratch = allocate_scratch(known.experts, known.total_slots, known.devices)
        if current is None or self._past is None:
            due, self._past = np.ones(known.layers, dtype=np.bool_), np.zeros(known.layers)
        else:
            balance = _balances(series, current, first_slot, speed)
            due = (balance < _LEAST_BALANCE) | (balance < _LEAST_OF_PAST * self._past)
        if not due.any():
            assert current is not None
            return current
        fresh = np.zeros((known.layers, known.total_slots), np.int32) if current is None else np.array(current)
        for layer in np.flatnonzero(due):
            fresh[layer] = _plan(series[:, layer].copy(), first_slot, speed, scratch)
        self._past[due] = _balances(series, fresh, first_slot, speed)[due]
        return rearranged(known, current, fresh, "devices")


@njit(cache=True)
def _balances(series: F64, placement: I32, first_slot: I32, speed: F64) -> F64:
    """Return (L,) one per mean over windows of the slowest device's time in units of perfect balance."""
    layers, experts = series.shape[1:]
    balance, replicas = np.empty(layers), np.empty(experts, np.int32)
    for layer in range(layers):
        replicas[:] = 0
        for e in placement[layer]:
            replicas[e] += 1
        balance[layer] = 1.0 / _peak(series[:, layer], replicas, placement[layer], first_slot, speed)
    return balance


@njit(cache=True)
def _peak(series: F64, replicas: I32, placement: I32, first_slot: I32, speed: F64) -> float:
    """Return the mean over windows of the slowest device's time in units of perfect balance."""
    peaks, capacity = 0.0, np.sum(1.0 / speed)
    for loads in series:
        slowest = 0.0
        for d in range(len(speed)):
            load = 0.0
            for p in range(first_slot[d], first_slot[d + 1]):
                load += loads[placement[p]] / replicas[placement[p]]
            slowest = max(slowest, load * speed[d])
        total = loads.sum()
        peaks += slowest * capacity / total if total > 0 else 1.0
    return peaks / len(series)


class _Tiers(NamedTuple):
    """Experts by falling risky load, cut into tiers."""

    risky: F64  # (E,) mean plus deviations
    order: I32  # (E,)
    start: I32  # (tiers + 1,) in ``order``
    most: int  # replicas of an expert


@njit(cache=True)
def _plan(series: F64, first_slot: I32, speed: F64, scratch: Scratch) -> I32:
    """Return the best placement (P,) of one layer found by passing spare replicas between tiers."""
    experts, slots, devices = series.shape[1], first_slot[-1], len(speed)
    risky, order = np.empty(experts), np.empty(experts, np.int32)
    for e in range(experts):
        risky[e] = series[:, e].mean() + RISK * series[:, e].std()
    sort_descending(risky, order, scratch.merged)
    start = np.empty(_TIERS + 1, np.int32)
    for tier in range(_TIERS + 1):
        start[tier] = experts * tier // _TIERS
    tiers = _Tiers(risky, order, start, devices)
    # One tier of all experts first, for the greedy shares of spare replicas.
    replicas = np.ones(experts, np.int32)
    _spread(tiers, 0, experts, slots - experts, replicas)
    spare = np.zeros(_TIERS, np.int32)
    for tier in range(_TIERS):
        for k in range(start[tier], start[tier + 1]):
            spare[tier] += replicas[order[k]] - 1
    best, trial = np.empty(slots, np.int32), np.empty(slots, np.int32)
    _place(series, risky, replicas, first_slot, speed, best, scratch)
    lowest = _peak(series, replicas, best, first_slot, speed)
    for tier in range(_TIERS - 1):
        chosen = 0
        for shift in _SHIFTS:
            if not _may_shift(spare, tier, shift, tiers):
                continue
            spare[tier] -= shift
            spare[tier + 1] += shift
            for k in range(_TIERS):
                _spread(tiers, start[k], start[k + 1], spare[k], replicas)
            spare[tier] += shift
            spare[tier + 1] -= shift
            _place(series, risky, replicas, first_slot, speed, trial, scratch)
            peak = _peak(series, replicas, trial, first_slot, speed)
            if peak < lowest:
                lowest, chosen = peak, shift
                best[:] = trial
        spare[tier] -= chosen
        spare[tier + 1] += chosen
    return best


@njit(cache=True)
def _may_shift(spare: I32, tier: int, shift: int, tiers: _Tiers) -> bool:
    """Return whether both tiers keep between none and as many spare replicas as devices allow."""
    for k, count in ((tier, spare[tier] - shift), (tier + 1, spare[tier + 1] + shift)):
        if count < 0 or count > (tiers.start[k + 1] - tiers.start[k]) * (tiers.most - 1):
            return False
    return True


@njit(cache=True)
def _spread(tiers: _Tiers, first: int, end: int, spare: int, replicas: I32) -> None:
    """Give the experts at places ``first`` to ``end`` of the order a replica each, and ``spare`` more greedily."""
    for k in range(first, end):
        replicas[tiers.order[k]] = 1
    for given in range(spare):
        limit = tiers.most if given < (end - first) * (tiers.most - 1) else spare + 1
        best, largest = -1, -1.0
        for k in range(first, end):
            e = tiers.order[k]
            if replicas[e] < limit and tiers.risky[e] / replicas[e] > largest:
                best, largest = e, tiers.risky[e] / replicas[e]
        replicas[best] += 1


@njit(cache=True)
def _place(
    series: F64, risky: F64, replicas: I32, first_slot: I32, speed: F64, placement: I32, scratch: Scratch
) -> None:
    """Place the riskiest replica first, on the device whose mean plus deviations, times its speed, stays lowest.

    The deviation is that of the device's summed load over the windows, so experts that rise together repel.
    """
    windows, experts = series.shape
    devices = len(speed)
    running, fill = np.zeros((devices, windows)), first_slot[:-1].copy()
    mark = np.full(devices, -1, np.int32)
    for e in range(experts):
        scratch.share[e] = risky[e] / replicas[e]
    sort_descending(scratch.share, scratch.order, scratch.merged)
    for e in scratch.order:
        for _ in range(replicas[e]):
            best, least = -1, np.inf
            for d in range(devices):
                if fill[d] == first_slot[d + 1] or mark[d] == e:
                    continue
                total, squares = 0.0, 0.0
                for w in range(windows):
                    load = running[d, w] + series[w, e] / replicas[e]
                    total += load
                    squares += load * load
                mean = total / windows
                end = (mean + RISK * np.sqrt(max(squares / windows - mean * mean, 0.0))) * speed[d]
                if end < least:
                    best, least = d, end
            if best < 0:
                # Only devices that hold the expert have room: the placement that moves others out of the way.
                place_replicas(risky, replicas, first_slot, speed, placement, scratch)
                return
            placement[fill[best]] = e
            fill[best] += 1
            mark[best] = e
            for w in range(windows):
                running[best, w] += series[w, e] / replicas[e]
