"""What a given schedule of an expert cache would choose at a decision of the game."""

from __future__ import annotations

import math

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.envs.moe.cache_solution import CacheSchedule

__all__ = ["bring_slot", "evict_slot"]


def bring_slot(schedule: CacheSchedule, duration: F64, request: int, offered: I32) -> int:
    """Return the slot of the first offered expert that the schedule loads while it computes a request, 0 for none.

    ``duration`` (R,) is the computation of each request in seconds; slot 0 of ``offered`` (C,) stands for no load.
    """
    start = float(schedule.compute_start_s[request])
    for load in _loads_between(schedule, start, start + float(duration[request])):
        slot = np.flatnonzero(offered[1:] == schedule.load_expert[load])
        if len(slot):
            return int(slot[0]) + 1
    return 0


def evict_slot(
    schedule: CacheSchedule, needed: I32, duration: F64, request: int, offered: I32, incoming: int, ahead: bool
) -> int:
    """Return the slot of the expert to replace by ``incoming``.

    That is the one which the same load of the schedule replaces, otherwise the one that the schedule keeps for the
    shortest time from then on, and of several the one that is needed last.

    Args:
        schedule: the schedule to follow.
        needed: (R, K) numbers of the experts of each request, -1 for none.
        duration: (R,) computation of each request in seconds.
        request: the request that is served now.
        offered: (C,) experts that may leave.
        incoming: expert that the load brings.
        ahead: whether it comes ahead of need, during the computation of the request.
    """
    begin = float(schedule.compute_start_s[request])
    known = float(schedule.compute_start_s[request - 1] + duration[request - 1]) if request else 0.0
    first, last = (begin, begin + float(duration[request])) if ahead else (known, begin)
    for load in _loads_between(schedule, first, last):
        slot = np.flatnonzero(offered == schedule.evict_expert[load])
        if schedule.load_expert[load] == incoming and len(slot):
            return int(slot[0])
    kept = [_kept_until(schedule, int(expert), first) for expert in offered]
    uses = [_next_use(needed, int(expert), request) for expert in offered]
    return min(range(len(offered)), key=lambda slot: (kept[slot], -uses[slot]))


def _loads_between(schedule: CacheSchedule, first: float, last: float) -> range:
    """Return the loads that start from ``first`` on and before ``last``, give or take rounding."""
    slack = 1e-9 * max(float(schedule.compute_start_s[-1]), 1e-30)
    bounds = np.searchsorted(schedule.load_start_s, [first - slack, last - slack])
    return range(int(bounds[0]), int(bounds[1]))


def _kept_until(schedule: CacheSchedule, expert: int, moment: float) -> float:
    """Return when the schedule next replaces an expert, minus infinity if it does not have it at that moment."""
    gone = schedule.load_start_s[schedule.evict_expert == expert]
    came = schedule.load_start_s[schedule.load_expert == expert]
    left, arrived = int(np.searchsorted(gone, moment)), int(np.searchsorted(came, moment))
    if left and (not arrived or came[arrived - 1] < gone[left - 1]):
        return -math.inf
    return float(gone[left]) if left < len(gone) else math.inf


def _next_use(needed: I32, expert: int, request: int) -> int:
    later = np.flatnonzero((needed[request + 1 :] == expert).any(axis=1))
    return int(later[0]) if len(later) else len(needed)
