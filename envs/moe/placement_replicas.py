"""How many replicas each expert gets, such that they fit on devices of unequal slots without sharing a device."""

from __future__ import annotations

import numpy as np
from numba import njit

from schedrl.arrays import F64, I32, I64, Bool

__all__ = ["replica_counts"]


def replica_counts(forecast: F64, slots: I32) -> I32:
    """Return (L, E) replicas that fill all slots of every layer and keep the largest load per replica least.

    One more replica goes to the expert with the most load per replica, of equals to the one with fewest replicas,
    then to the first; that is optimal as sets of counts that devices can hold are a polymatroid. Where no expert need
    have two replicas on a device, none has: counts stay such that some placement holds them so (Gale and Ryser).
    Only where a device has more slots than there are experts are the slots left over given out without that.

    Args:
        forecast: (L, E) tokens, 0 or more.
        slots: (D,) slots of every device; in all at least E.
    """
    return np.asarray(_counts(np.ascontiguousarray(forecast, dtype=np.float64), slots.astype(np.int64)))


@njit(cache=True)
def _counts(forecast: F64, slots: I64) -> I32:
    layers, experts = forecast.shape
    devices, total = len(slots), slots.sum()
    room = np.zeros(experts + 1, dtype=np.int64)  # what k experts can have together
    for k in range(experts + 1):
        for d in range(devices):
            room[k] += min(slots[d], k)
    # With equal slots the limit of one per device is enough.
    unequal = slots.min() < slots.max()
    counts = np.ones((layers, experts), dtype=np.int32)
    for layer in range(layers):
        count = counts[layer]
        full = np.zeros(experts, dtype=np.bool_)
        tally = np.zeros(devices + 1, dtype=np.int64)
        tally[1] = experts
        left, fits = total - experts, True
        while left > 0:
            e = _next(forecast[layer], count, full, fits)
            if e < 0:
                fits = False
                continue
            if fits:
                fits_here = count[e] < devices
                if fits_here:
                    tally[count[e]] -= 1
                    tally[count[e] + 1] += 1
                    if unequal and not _holds(tally, room):
                        tally[count[e]] += 1
                        tally[count[e] + 1] -= 1
                        fits_here = False
                if not fits_here:
                    full[e] = True
                    continue
            count[e] += 1
            left -= 1
    return counts


@njit(cache=True)
def _next(loads: F64, count: I32, full: Bool, fits: bool) -> int:
    best, most = -1, -1.0
    for e in range(len(loads)):
        if fits and full[e]:
            continue
        load = loads[e] / count[e]
        if load > most or (load == most and count[e] < count[best]):
            best, most = e, load
    return best


@njit(cache=True)
def _holds(tally: I64, room: I64) -> bool:
    """Whether devices can hold such numbers of replicas apart: the k largest together are at most ``room[k]``.

    Only ends of runs of equal numbers matter, as ``room`` is concave.
    """
    experts, replicas = 0, 0
    for count in range(len(tally) - 1, 0, -1):
        experts += tally[count]
        replicas += tally[count] * count
        if replicas > room[experts]:
            return False
    return True
