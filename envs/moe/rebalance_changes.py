"""Small changes of a layer's placement that shorten its busiest device: swaps, and replicas given to another expert."""

from __future__ import annotations

from schedrl.arrays import F64, I32
from schedrl.envs.moe.layer_time import Hardware
from schedrl.kernels import inner_inlined, kernel

__all__ = ["begin_changes", "change_once", "end_changes"]


@inner_inlined
def _cost(hw: Hardware, b: int, d: int, load: float) -> float:
    """Return a device's seconds for a slot."""
    return max(load * hw.token_s[b, d], hw.weight_s[b, d]) if load > 0.0 else 0.0


@kernel
def begin_changes(
    hw: Hardware, b: int, loads: F64, placement: I32, device: I32, slots: int, replicas: I32, busy: F64, held: I32
) -> None:
    """Write replicas (E,), busy seconds (D,) and slots by expert and device (E, D) of a placement (P,)."""
    replicas[:] = 0
    for d in range(hw.devices[b]):
        busy[d] = 0.0
    for p in range(slots):
        replicas[placement[p]] += 1
        held[placement[p], device[p]] += 1
    for p in range(slots):
        busy[device[p]] += _cost(hw, b, device[p], loads[placement[p]] / replicas[placement[p]])


@kernel
def end_changes(placement: I32, device: I32, slots: int, held: I32) -> None:
    """Clear what ``begin_changes`` wrote into ``held``."""
    for p in range(slots):
        held[placement[p], device[p]] = 0


@kernel
def change_once(
    hw: Hardware, b: int, loads: F64, placement: I32, device: I32, slots: int, replicas: I32, busy: F64, held: I32
) -> bool:
    """Make the change that leaves the least busiest device, and return whether there was one.

    Either two slots swap experts, one of them on the busiest device, or a slot elsewhere, of an expert with several
    replicas, takes one of the two most loaded experts of the busiest device. Two replicas never meet on one device.
    """
    hot = 0
    for d in range(1, hw.devices[b]):
        if busy[d] > busy[hot]:
            hot = d
    bar = busy[hot] * (1.0 - 1e-9)
    best, mine, other, giving = bar, -1, -1, False
    first, second = -1, -1
    for p in range(slots):
        if device[p] != hot:
            continue
        load = loads[placement[p]] / replicas[placement[p]]
        if first < 0 or load > loads[placement[first]] / replicas[placement[first]]:
            first, second = p, first
        elif second < 0 or load > loads[placement[second]] / replicas[placement[second]]:
            second = p
        for q in range(slots):
            if device[q] != hot:
                peak = _after_swap(hw, b, loads, placement, device, replicas, busy, held, p, q)
                if peak < best:
                    best, mine, other = peak, p, q
    for p in (first, second):
        if p < 0:
            continue
        for q in range(slots):
            if device[q] != hot and replicas[placement[q]] > 1 and held[placement[p], device[q]] == 0:
                peak = _after_gift(hw, b, loads, placement, device, replicas, busy, held, p, q)
                if peak < best:
                    best, mine, other, giving = peak, p, q, True
    if mine < 0:
        return False
    if giving:
        _give(hw, b, loads, placement, device, replicas, busy, held, mine, other)
    else:
        _swap(hw, b, loads, placement, device, replicas, busy, held, mine, other)
    return True


@inner_inlined
def _after_swap(
    hw: Hardware, b: int, loads: F64, placement: I32, device: I32, replicas: I32, busy: F64, held: I32, p: int, q: int
) -> float:
    """Return the busier of both devices after a swap of slots, the present one where a device would hold two."""
    mine, other, hot, d = placement[p], placement[q], device[p], device[q]
    if held[mine, d] > 0 or held[other, hot] > 0:
        return float(busy[hot])
    load, less = loads[mine] / replicas[mine], loads[other] / replicas[other]
    here = busy[hot] - _cost(hw, b, hot, load) + _cost(hw, b, hot, less)
    there = busy[d] - _cost(hw, b, d, less) + _cost(hw, b, d, load)
    return float(max(here, there))


@inner_inlined
def _after_gift(
    hw: Hardware, b: int, loads: F64, placement: I32, device: I32, replicas: I32, busy: F64, held: I32, p: int, q: int
) -> float:
    """Return the longest busy time of all devices when slot q takes the expert of slot p."""
    e, c, at, peak = placement[p], placement[q], device[q], 0.0
    for d in range(hw.devices[b]):
        seconds = busy[d]
        if held[e, d] > 0:
            seconds += held[e, d] * (
                _cost(hw, b, d, loads[e] / (replicas[e] + 1)) - _cost(hw, b, d, loads[e] / replicas[e])
            )
        if held[c, d] > 0:
            left = held[c, d] - (1 if d == at else 0)
            seconds += left * _cost(hw, b, d, loads[c] / (replicas[c] - 1))
            seconds -= held[c, d] * _cost(hw, b, d, loads[c] / replicas[c])
        if d == at:
            seconds += _cost(hw, b, d, loads[e] / (replicas[e] + 1))
        peak = max(peak, seconds)
    return peak


@inner_inlined
def _swap(
    hw: Hardware, b: int, loads: F64, placement: I32, device: I32, replicas: I32, busy: F64, held: I32, p: int, q: int
) -> None:
    mine, other, hot, d = placement[p], placement[q], device[p], device[q]
    load, less = loads[mine] / replicas[mine], loads[other] / replicas[other]
    busy[hot] += _cost(hw, b, hot, less) - _cost(hw, b, hot, load)
    busy[d] += _cost(hw, b, d, load) - _cost(hw, b, d, less)
    held[mine, hot] -= 1
    held[mine, d] += 1
    held[other, d] -= 1
    held[other, hot] += 1
    placement[p], placement[q] = other, mine


@inner_inlined
def _give(
    hw: Hardware, b: int, loads: F64, placement: I32, device: I32, replicas: I32, busy: F64, held: I32, p: int, q: int
) -> None:
    e, c, at = placement[p], placement[q], device[q]
    for d in range(hw.devices[b]):
        busy[d] -= held[e, d] * _cost(hw, b, d, loads[e] / replicas[e])
        busy[d] -= held[c, d] * _cost(hw, b, d, loads[c] / replicas[c])
    replicas[e] += 1
    replicas[c] -= 1
    held[e, at] += 1
    held[c, at] -= 1
    placement[q] = e
    for d in range(hw.devices[b]):
        busy[d] += held[e, d] * _cost(hw, b, d, loads[e] / replicas[e])
        busy[d] += held[c, d] * _cost(hw, b, d, loads[c] / replicas[c])
