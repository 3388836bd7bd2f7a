"""Kernels that balance the experts of one layer: replicate, place, swap.

All work in arrays that the caller passes, so that simulators can call them at every decision. Devices are given by
``first_slot`` (D + 1,): device d has slots ``first_slot[d]`` to ``first_slot[d + 1]``. ``speed`` (D,) is relative
seconds per token. The replicas of an expert share its load evenly. Letters: E experts, P slots, D devices.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schedrl.arrays import F64, I32
from schedrl.kernels import inner, kernel

__all__ = [
    "Scratch",
    "allocate_scratch",
    "count_replicas",
    "device_times",
    "holds",
    "place_replicas",
    "plan_layer",
    "replicate",
    "slot_starts",
    "sort_descending",
    "swap_search",
]

_RUN = 8  # merge sort begins from runs of this length, sorted by insertion
_NEAR = 0.1  # share of the way from the slowest device to the mean
_GAIN = 1e-12  # relative: smaller decreases are rounding


class Scratch(NamedTuple):
    """Working memory of the kernels, for one layer at a time; contents mean nothing between calls."""

    share: F64  # (E,) load of one replica
    order: I32  # (E,) experts by falling share
    merged: I32  # (E,) buffer of the sort
    held: I32  # (E,) copies of an expert on the device at hand
    slots: I32  # (P,) buffer of a placement
    load: F64  # (D,) tokens of a device
    fill: I32  # (D,) first free slot of a device
    mark: I32  # (D,) last expert placed on a device
    queue: I32  # (D,) devices of a breadth-first search
    parent: I32  # (D,) device that a search came from, itself at its start
    moved: I32  # (D,) slot that would move there from its parent
    cost: F64  # (D, D) of an assignment
    match: I32  # (D,) column of each row
    potential: F64  # (3, D + 1) row and column potentials and distances of an assignment
    path: I32  # (3, D + 1) row of each column, column before it on the path, whether it is reached


def allocate_scratch(experts: int, slots: int, devices: int) -> Scratch:
    """Return working memory for layers of that many experts, slots and devices."""
    integers: dict[str, Any] = {"dtype": np.int32}
    return Scratch(
        share=np.zeros(experts),
        order=np.zeros(experts, **integers),
        merged=np.zeros(experts, **integers),
        held=np.zeros(experts, **integers),
        slots=np.zeros(slots, **integers),
        load=np.zeros(devices),
        fill=np.zeros(devices, **integers),
        mark=np.zeros(devices, **integers),
        queue=np.zeros(devices, **integers),
        parent=np.zeros(devices, **integers),
        moved=np.zeros(devices, **integers),
        cost=np.zeros((devices, devices)),
        match=np.zeros(devices, **integers),
        potential=np.zeros((3, devices + 1)),
        path=np.zeros((3, devices + 1), **integers),
    )


def slot_starts(slots: npt.ArrayLike) -> I32:
    """Return ``first_slot`` (D + 1,) of devices with these numbers of slots (D,)."""
    return np.concatenate(([0], np.cumsum(np.asarray(slots)))).astype(np.int32)


@kernel
def sort_descending(keys: Any, order: I32, merged: I32) -> None:
    """Write into ``order`` the indices of ``keys`` (n,) by falling key, equal keys by rising index."""
    n = len(keys)
    for i in range(n):
        k = i
        lowest = i - i % _RUN
        while k > lowest and keys[order[k - 1]] < keys[i]:
            order[k] = order[k - 1]
            k -= 1
        order[k] = i
    width = _RUN
    while width < n:
        for low in range(0, n, 2 * width):
            middle, high = min(low + width, n), min(low + 2 * width, n)
            a, b = low, middle
            for k in range(low, high):
                if b >= high or (a < middle and keys[order[a]] >= keys[order[b]]):
                    merged[k] = order[a]
                    a += 1
                else:
                    merged[k] = order[b]
                    b += 1
        for k in range(n):
            order[k] = merged[k]
        width *= 2


@kernel
def replicate(loads: F64, slots: int, most_replicas: int, replicas: I32, share: F64) -> None:
    """Give every expert a replica, and each further slot to the one with the largest load per replica.

    That minimises the largest load of a replica. No expert gets more than ``most_replicas``, the number of devices,
    unless all have them.

    Args:
        loads: (E,) tokens.
        slots: P, at least E.
        most_replicas: limit per expert.
        replicas: (E,) result.
        share: (E,) written: load of one replica.
    """
    experts = len(loads)
    for e in range(experts):
        replicas[e] = 1
        share[e] = loads[e]
    for extra in range(slots - experts):
        limit = most_replicas if extra < experts * (most_replicas - 1) else slots
        best, largest = -1, -1.0
        for e in range(experts):
            if share[e] > largest and replicas[e] < limit:
                best, largest = e, share[e]
        replicas[best] += 1
        share[best] = loads[best] / replicas[best]


@kernel
def count_replicas(placement: I32, replicas: I32) -> None:
    """Write the number of replicas (E,) of each expert in ``placement`` (P,)."""
    replicas[:] = 0
    for e in placement:
        replicas[e] += 1


@kernel
def device_times(loads: F64, replicas: I32, placement: I32, first_slot: I32, speed: F64, times: F64) -> float:
    """Write each device's load times its speed into ``times`` (D,); return the largest."""
    largest = 0.0
    for d in range(len(speed)):
        load = 0.0
        for p in range(first_slot[d], first_slot[d + 1]):
            load += loads[placement[p]] / replicas[placement[p]]
        times[d] = load * speed[d]
        largest = max(largest, times[d])
    return largest


@kernel
def place_replicas(loads: F64, replicas: I32, first_slot: I32, speed: F64, placement: I32, scratch: Scratch) -> int:
    """Place the largest replica first, each on the device that ends earliest with it (LPT with slot limits).

    No two replicas of an expert share a device where any placement of these replicas avoids it: when only devices
    that hold the expert have free slots, earlier replicas move along a shortest augmenting path.

    Args:
        loads: (E,) tokens.
        replicas: (E,) at least 1 each, summing to P.
        first_slot: (D + 1,).
        speed: (D,) relative seconds per token.
        placement: (P,) result: expert of each slot.
        scratch: working memory; ``load`` (D,) holds the devices' tokens afterwards.

    Returns:
        The number of replicas that share a device with another of their expert.
    """
    experts, devices = len(loads), len(speed)
    share, load, fill, mark = scratch.share, scratch.load, scratch.fill, scratch.mark
    for e in range(experts):
        share[e] = loads[e] / replicas[e]
    sort_descending(share, scratch.order, scratch.merged)
    for d in range(devices):
        load[d] = 0.0
        fill[d] = first_slot[d]
        mark[d] = -1
    shared = 0
    for k in range(experts):
        e = scratch.order[k]
        for _ in range(replicas[e]):
            best, earliest = -1, np.inf
            for d in range(devices):
                end = (load[d] + share[e]) * speed[d]
                if end < earliest and fill[d] < first_slot[d + 1] and mark[d] != e:
                    best, earliest = d, end
            if best < 0:
                best = _make_room(e, first_slot, placement, scratch)
                shared += best < 0
            if best < 0:
                for d in range(devices):
                    end = (load[d] + share[e]) * speed[d]
                    if end < earliest and fill[d] < first_slot[d + 1]:
                        best, earliest = d, end
            placement[fill[best]] = e
            fill[best] += 1
            load[best] += share[e]
            mark[best] = e
    return shared


@kernel
def holds(expert: int, first: int, end: int, placement: I32) -> bool:
    """Return whether slots ``first`` to ``end`` hold the expert."""
    p = first
    while p < end and placement[p] != expert:
        p += 1
    return p < end


@inner
def _make_room(expert: int, first_slot: I32, placement: I32, scratch: Scratch) -> int:
    """Free a slot on a device that does not hold the expert, by moving others along a shortest path.

    Returns:
        The device, or -1 when there is no such path: then no placement of the replicas so far avoids sharing.
    """
    devices, fill, queue, parent, moved = len(scratch.load), scratch.fill, scratch.queue, scratch.parent, scratch.moved
    length = 0
    for d in range(devices):
        parent[d] = -1
        if not holds(expert, first_slot[d], fill[d], placement):
            parent[d] = d
            queue[length] = d
            length += 1
    head = 0
    while head < length:
        d = queue[head]
        head += 1
        for p in range(first_slot[d], fill[d]):
            for other in range(devices):
                if parent[other] >= 0 or holds(placement[p], first_slot[other], fill[other], placement):
                    continue
                parent[other], moved[other] = d, p
                queue[length] = other
                length += 1
                if fill[other] < first_slot[other + 1]:
                    return _shift(other, placement, scratch)
    return -1


@inner
def _shift(free: int, placement: I32, scratch: Scratch) -> int:
    """Move one replica per edge of the path that ends at ``free``; return the device at its start, with a free slot."""
    load, fill, share = scratch.load, scratch.fill, scratch.share
    device = free
    while scratch.parent[device] != device:
        source, p = scratch.parent[device], scratch.moved[device]
        e = placement[p]
        placement[fill[device]] = e
        fill[device] += 1
        load[device] += share[e]
        # Later moves of the path leave from other devices, so the last slot may fill the gap.
        fill[source] -= 1
        placement[p] = placement[fill[source]]
        load[source] -= share[e]
        device = source
    return device


@kernel
def swap_search(
    loads: F64, replicas: I32, placement: I32, first_slot: I32, speed: F64, max_swaps: int, scratch: Scratch
) -> int:
    """Swap a slot of the slowest device with one of another until no swap lowers the slower of the two.

    Each time the swap with the lowest pair maximum is made, the first of equals, and never one that would put two
    replicas of an expert on a device. The slowest device never gets slower. Without a limit, the search then goes on
    with the next slowest devices, which may hold what the slowest lacks, and comes back.

    Args:
        loads: (E,) tokens.
        replicas: (E,) as in ``placement``.
        placement: (P,) changed in place.
        first_slot: (D + 1,).
        speed: (D,) relative seconds per token.
        max_swaps: limit; negative for none.
        scratch: working memory; ``load`` (D,) holds the devices' tokens afterwards.

    Returns:
        The number of swaps made.
    """
    load, share = scratch.load, scratch.share
    for e in range(len(loads)):
        share[e] = loads[e] / replicas[e]
    for d in range(len(speed)):
        load[d] = 0.0
        for p in range(first_slot[d], first_slot[d + 1]):
            load[d] += share[placement[p]]
    swaps = 0
    while swaps != max_swaps:
        hot, mine, other, cold = _hottest_swap(max_swaps, placement, first_slot, speed, scratch)
        if mine < 0:
            break
        change = share[placement[mine]] - share[placement[other]]
        load[hot] -= change
        load[cold] += change
        placement[mine], placement[other] = placement[other], placement[mine]
        swaps += 1
    return swaps


@inner
def _hottest_swap(
    max_swaps: int, placement: I32, first_slot: I32, speed: F64, scratch: Scratch
) -> tuple[int, int, int, int]:
    """Return the slowest device and its best swap, or those of the next slowest that has one in a search to the end."""
    load, held, mark, devices = scratch.load, scratch.held, scratch.mark, len(speed)
    longest, total, capacity = 0.0, 0.0, 0.0
    for d in range(devices):
        mark[d] = 0
        longest = max(longest, load[d] * speed[d])
        total += load[d]
        capacity += 1.0 / speed[d]
    # Only devices about as slow as the slowest stand in its way; to search more of them gains little.
    least = longest - _NEAR * (longest - total / capacity) if max_swaps < 0 else longest
    while True:
        hot = -1
        for d in range(devices):
            if (
                mark[d] == 0
                and load[d] * speed[d] >= least
                and (hot < 0 or load[d] * speed[d] > load[hot] * speed[hot])
            ):
                hot = d
        if hot < 0:
            return -1, -1, -1, -1
        mark[hot] = 1
        held[:] = 0
        for p in range(first_slot[hot], first_slot[hot + 1]):
            held[placement[p]] += 1
        mine, other, cold = _best_swap(hot, placement, first_slot, speed, scratch)
        if mine >= 0:
            return hot, mine, other, cold


@inner
def _best_swap(hot: int, placement: I32, first_slot: I32, speed: F64, scratch: Scratch) -> tuple[int, int, int]:
    """Return the best swap's slot of the hot device, the other slot and its device; -1 when none helps."""
    load, share, held = scratch.load, scratch.share, scratch.held
    lowest = load[hot] * speed[hot] * (1.0 - _GAIN)
    mine, theirs, cold = -1, -1, -1
    for d in range(len(speed)):
        # Both devices must end below the best so far: this much must leave the hot one, and no more fit the other.
        least, most = load[hot] - lowest / speed[hot], lowest / speed[d] - load[d]
        if d == hot or least >= most:
            continue
        for i in range(first_slot[hot], first_slot[hot + 1]):
            e = placement[i]
            if share[e] < least or holds(e, first_slot[d], first_slot[d + 1], placement):
                continue
            for j in range(first_slot[d], first_slot[d + 1]):
                change = share[e] - share[placement[j]]
                if change <= least or change >= most or held[placement[j]] > 0:
                    continue
                pair = max((load[hot] - change) * speed[hot], (load[d] + change) * speed[d])
                if pair < lowest:
                    lowest, mine, theirs, cold = pair, i, j, d
                    least, most = load[hot] - lowest / speed[hot], lowest / speed[d] - load[d]
    return mine, theirs, cold


@kernel
def plan_layer(
    loads: F64, first_slot: I32, speed: F64, max_swaps: int, replicas: I32, placement: I32, scratch: Scratch
) -> int:
    """Replicate, place and swap from scratch; return the number of swaps. Arguments as in those three."""
    replicate(loads, len(placement), len(speed), replicas, scratch.share)
    place_replicas(loads, replicas, first_slot, speed, placement, scratch)
    return swap_search(loads, replicas, placement, first_slot, speed, max_swaps, scratch)
