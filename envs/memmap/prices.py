"""Shadow prices of fast memory: what a byte of a layer is worth at each operation, from a Lagrangian relaxation.

The relaxation lets every buffer choose its layers for itself, and pays for capacity: minimise the program's latency
with ``latency_t >= compute_t`` and ``latency_t >= memory_t(layers)``, where capacity at every operation is priced
instead of enforced (Held and Karp 1971; Fisher 1981). Given prices, each buffer's best sequence of layers is a
shortest path over its accesses. Subgradient steps raise the price where the choices exceed the capacity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from schedrl.arrays import F64, I8, I64, Bool
from schedrl.envs.memmap.hint_packing import pack_hint
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import bytes_moved, op_latency_s, slow_bus_s
from schedrl.envs.memmap.relaxed_plan import Program, Windows, build_relaxed

__all__ = ["Hint", "Prices", "shadow_prices"]

_ITERATIONS = 240
# The time that copies need depends on the plan, and the plan on that time. The first round gives every copy one
# operation; in the later ones it may count on this share of the time that the plan before leaves idle.
_SHARES = (np.inf, 0.5, 1.0, 0.99, 0.98, 0.97)
# Rounds are as many as keep rounds times accesses below this: a plan for thousands of operations must not take seconds.
_MOST_WORK = 12_000
# Saving of a buffer in a layer that it does not fit into.
_NEVER = -1e30
# Copies that gain nothing stay out of the choices, even where the bus has time to spare.
_LEAST_BUS_PRICE = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What the relaxation says about an instance, in seconds of the program's latency."""

    held: F64  # (L, T + 1) price of one byte of a layer over operations 0 to t - 1
    weight: F64  # (T,) how much of an operation's memory time counts, 0 where it is bound by computing
    gain: F64  # (A, L) weighted seconds that an access saves in a layer
    cost: F64  # (A, L) cost from an access onwards when that layer serves it: holding and copying less gains
    dirty_cost: F64  # (A, L) the same for a buffer without a valid slow copy, which stays in that layer to its end
    chosen: I8  # (A,) layer of each access in the choices at the final prices
    bus_price: float
    """price of a second of the slow layer's bus"""
    advantage: F64  # (N,) priced seconds that a buffer saves against the slow layer, >= 0
    footprint: F64  # (N,) byte-operations of its whole life


class Hint(NamedTuple):
    """A plan to lean on: layers by access, with what it takes to play them."""

    layer: I8  # (A,) layer of each access
    hold: Bool  # (A,) whether the buffer stays in its layer until its next access
    back: Bool  # (A,) whether a valid slow copy is needed after this result
    place: I64  # (A,) offset of the residence that an access begins, -1 for none
    start: I64  # (A,) operation after which the copy begins that fetches the buffer for an access, -2 for none


def shadow_prices(instance: MemoryMapInstance) -> tuple[Prices, list[Hint]]:
    """Return approximate prices of an instance, and plans that they lead to; kept with the instance."""
    cached: tuple[Prices, list[Hint]] | None = instance.__dict__.get("_prices")
    if cached is None:
        cached = _relax(instance)
        # Beside the instance's own cached properties, so that it lives as long as the instance.
        instance.__dict__["_prices"] = cached
    return cached


def _relax(instance: MemoryMapInstance) -> tuple[Prices, list[Hint]]:
    assert instance.access_bytes is not None and instance.trips is not None
    layers, write = instance.memory.layers, instance.access_write
    slow = np.where(write, layers[0].write_bytes_per_s, layers[0].read_bytes_per_s)
    saving = np.zeros((instance.accesses, len(layers)))
    trips = instance.trips[instance.access_op]
    for number, layer in enumerate(layers[1:], start=1):
        fast = np.where(write, layer.write_bytes_per_s, layer.read_bytes_per_s)
        fits = instance.size[instance.access_buffer] <= (layer.capacity_bytes or 0)
        saving[:, number] = np.where(fits, trips * instance.access_bytes * (1.0 / slow - 1.0 / fast), _NEVER)
    all_slow = op_latency_s(instance, np.zeros(instance.accesses, dtype=np.int8))
    offset, order = instance.by_buffer
    capacity = np.array([float(layer.capacity_bytes or 0) for layer in layers])
    program = (
        offset,
        order,
        instance.access_op,
        instance.access_write,
        instance.size.astype(np.float64),
        instance.output,
    )
    times = (instance.trips * instance.compute, instance.trips * all_slow)
    bus = 1.0 / layers[0].read_bytes_per_s
    hints: list[Hint] = []
    hint = np.zeros(instance.accesses, dtype=np.int8)
    starved = np.zeros(instance.accesses, dtype=np.bool_)
    for share in _SHARES[: max(2, _MOST_WORK // instance.accesses)]:
        windows = _copy_windows(instance, hint, share)
        for window in windows:
            window[starved] = instance.ops + 1
        if len(hints) < 2:
            held, weight, gain, cost, dirty, chosen, bus_price = _ascend(
                program, windows, *times, saving, trips * instance.access_bytes / slow, capacity, bus
            )
        priced = _priced_buffers(instance, held, cost, dirty)
        copying = (float(bus_price) + _LEAST_BUS_PRICE) * bus
        hint, hold, _ = build_relaxed(program, windows, saving, times, capacity, held, priced, copying)
        back = _written_back(instance, hint, hold)
        place, start, left_out, hungry = pack_hint(
            program,
            hint,
            hold,
            back,
            np.maximum(gain, 0.0),
            (_idle_s(instance, hint), bus),
            (capacity, np.array([layer.alignment_bytes for layer in layers])),
        )
        if hints:
            starved |= hungry
        hints.append(
            Hint(np.where(left_out, 0, hint).astype(np.int8), hold & ~left_out, back & ~left_out, place, start)
        )
    prices = Prices(
        held=held,
        weight=weight,
        gain=gain,
        cost=cost,
        dirty_cost=dirty,
        chosen=chosen,
        bus_price=float(bus_price),
        advantage=priced[0],
        footprint=priced[1],
    )
    return prices, hints


def _priced_buffers(instance: MemoryMapInstance, held: F64, cost: F64, dirty: F64) -> tuple[F64, F64]:
    """Return (N,) priced advantage of a buffer over the slow layer, and (N,) byte-operations of its whole life."""
    offset, order = instance.by_buffer
    used = np.flatnonzero(np.diff(offset))
    first, last = order[offset[:-1][used]], order[offset[1:][used] - 1]
    start, end = instance.access_op[first], instance.access_op[last]
    advantage, footprint = np.zeros(instance.buffers), np.ones(instance.buffers)
    fast = np.full(len(used), np.inf)
    for layer in range(1, instance.layers):
        entry = instance.size[used] * (held[layer, start + 1] - held[layer, start])
        fast = np.minimum(fast, entry + np.minimum(cost[first, layer], dirty[first, layer]))
    advantage[used] = np.maximum(cost[first, 0] - fast, 0.0)
    footprint[used] = instance.size[used] * (end - start + 1.0)
    return advantage, footprint


def _copy_windows(instance: MemoryMapInstance, hint: I8, share: float) -> Windows:
    """Return how many operations hide a copy before each access and after each result; past the end when none do."""
    idle = np.concatenate([[0.0], np.cumsum(_idle_s(instance, hint))])
    needed = instance.size[instance.access_buffer] / instance.memory.layers[0].read_bytes_per_s / share
    op = instance.access_op
    start = np.searchsorted(idle, idle[op] - needed, side="right") - 1
    lead = np.where(idle[op] >= needed, op - start, instance.ops + 1)
    end = np.searchsorted(idle, idle[op + 1] + needed, side="left")
    tail = np.where(end <= instance.ops, end - 1 - op, instance.ops + 1)
    return np.maximum(lead, 1).astype(np.int32), np.maximum(tail, 1).astype(np.int32)


def _written_back(instance: MemoryMapInstance, hint: I8, hold: Bool) -> Bool:
    offset, order = instance.by_buffer
    last = np.zeros(instance.accesses, dtype=np.bool_)
    last[order[np.maximum(offset[1:] - 1, 0)][np.diff(offset) > 0]] = True
    leaves = np.bincount(instance.access_buffer, weights=~hold & ~last, minlength=instance.buffers) > 0
    back: Bool = instance.access_write & (hint > 0) & (leaves | instance.output)[instance.access_buffer]
    return back


def _idle_s(instance: MemoryMapInstance, hint: I8) -> F64:
    """Return (T,) seconds of copying that each operation hides when the hint serves its accesses."""
    assert instance.trips is not None
    if instance.memory.supply == "elapsed":
        return instance.trips * op_latency_s(instance, np.zeros(instance.accesses, dtype=np.int8))
    return instance.trips * (op_latency_s(instance, hint) - slow_bus_s(instance, bytes_moved(instance, hint)))


@njit(cache=True)
def _paths(
    program: Program,
    windows: Windows,
    gain: F64,
    held: F64,
    bus: float,
    cost: F64,
    dirty: F64,
    follow: I8,
    chosen: I8,
) -> None:
    """Find each buffer's cheapest sequence of layers at given prices; fills ``cost`` and ``chosen``."""
    offset, order, access_op, write, size, output = program
    lead, tail = windows
    layers, ops = gain.shape[1], held.shape[1] - 1
    for b in range(len(size)):
        for i in range(offset[b + 1] - 1, offset[b] - 1, -1):
            a = order[i]
            t = access_op[a]
            for own in range(layers):
                best, state = 0.0, 0
                if i + 1 < offset[b + 1]:
                    n = order[i + 1]
                    u = access_op[n]
                    best = cost[n, 0]
                    for m in range(1, layers):
                        entry = size[b] * (held[m, u + 1] - held[m, max(u - lead[n], 0)] + bus)
                        if lead[n] > u:
                            entry = 1e30
                        if m == own:
                            entry = min(entry, size[b] * (held[m, u + 1] - held[m, t + 1]))
                        if entry + cost[n, m] < best:
                            best, state = entry + cost[n, m], m
                cost[a, own] = best - gain[a, own]
                dirty[a, own] = -gain[a, own]
                if i + 1 < offset[b + 1]:
                    n = order[i + 1]
                    dirty[a, own] += size[b] * (held[own, access_op[n] + 1] - held[own, t + 1]) + dirty[n, own]
                follow[a, own] = state
                if write[a] and own > 0:
                    # A copy back keeps the place until it is done.
                    end = t + tail[a]
                    cost[a, own] += size[b] * (bus + held[own, min(end + 1, ops)] - held[own, t + 1])
                    if end > ops:
                        cost[a, own] = 1e30
        if offset[b + 1] > offset[b]:
            a = order[offset[b]]
            t = access_op[a]
            best, state, stays = cost[a, 0], 0, False
            for m in range(1, layers):
                first = t if write[a] else max(t - lead[a], 0)
                entry = size[b] * (held[m, t + 1] - held[m, first])
                if not write[a] and lead[a] > t:
                    continue
                if not write[a]:
                    entry += size[b] * bus
                if entry + cost[a, m] < best:
                    best, state, stays = entry + cost[a, m], m, False
                if write[a] and not output[b] and entry + dirty[a, m] < best:
                    best, state, stays = entry + dirty[a, m], m, True
            for i in range(offset[b], offset[b + 1]):
                chosen[order[i]] = state
                if not stays:
                    state = follow[order[i], state]


@njit(cache=True)
def _occupy(program: Program, windows: Windows, held: F64, bus: float, chosen: I8, occupied: F64) -> float:
    """Sum the bytes that the chosen layers need at every operation; return the bytes that copies move."""
    offset, order, access_op, write, size, output = program
    lead, _ = windows
    occupied[:] = 0.0
    copied = 0.0
    for b in range(len(size)):
        for i in range(offset[b], offset[b + 1]):
            a = order[i]
            m, t = chosen[a], access_op[a]
            if m == 0:
                continue
            first = t if write[a] else max(t - lead[a], 0)
            fetched = not write[a]
            if write[a] and output[b]:
                copied += size[b]
            if i > offset[b] and chosen[order[i - 1]] == m:
                before = access_op[order[i - 1]]
                hold = held[m, t + 1] - held[m, before + 1]
                fetch = held[m, t + 1] - held[m, max(t - lead[a], 0)] + bus
                if hold <= fetch:
                    first = before + 1
                    fetched = False
            if fetched:
                copied += size[b]
            occupied[m, first] += size[b]
            occupied[m, t + 1] -= size[b]
    for m in range(1, occupied.shape[0]):
        for t in range(1, occupied.shape[1]):
            occupied[m, t] += occupied[m, t - 1]
    return copied


@njit(cache=True)
def _ascend(
    program: Program,
    windows: Windows,
    compute: F64,
    all_slow: F64,
    saving: F64,
    bus_time: F64,
    capacity: F64,
    bus: float,
) -> tuple[F64, F64, F64, F64, F64, I8, float]:
    access_op = program[2]
    accesses, layers, ops = len(access_op), len(capacity), len(compute)
    price, mean_price = np.zeros((layers, ops)), np.zeros((layers, ops))
    weight, mean_weight = np.zeros(ops), np.zeros(ops)
    for t in range(ops):
        weight[t] = 1.0 if all_slow[t] > compute[t] else 0.0
    gain, cost, dirty = np.zeros((accesses, layers)), np.zeros((accesses, layers)), np.zeros((accesses, layers))
    follow, chosen = np.zeros((accesses, layers), np.int8), np.zeros(accesses, np.int8)
    held, occupied = np.zeros((layers, ops + 1)), np.zeros((layers, ops + 1))
    memory = np.zeros(ops)
    bus_price, mean_bus_price, all_time = 0.0, 0.0, 0.0
    for t in range(ops):
        all_time += all_slow[t]
    # A first price that would sell the whole capacity for what all accesses together could save.
    total = 0.0
    for a in range(accesses):
        total += max(saving[a, layers - 1], 0.0) * weight[access_op[a]]
    for k in range(_ITERATIONS + 1):
        last = k == _ITERATIONS
        if last:
            price[:] = mean_price
            weight[:] = mean_weight
            bus_price = mean_bus_price
        for a in range(accesses):
            for m in range(1, layers):
                gain[a, m] = (1.0 - bus_price) * saving[a, m] * weight[access_op[a]] + bus_price * bus_time[a]
                if saving[a, m] == _NEVER:
                    gain[a, m] = _NEVER
        for m in range(1, layers):
            for t in range(ops):
                held[m, t + 1] = held[m, t] + price[m, t]
        copy_price = bus * (bus_price + _LEAST_BUS_PRICE)
        _paths(program, windows, gain, held, copy_price, cost, dirty, follow, chosen)
        if last:
            break
        used = bus * _occupy(program, windows, held, copy_price, chosen, occupied)
        memory[:] = all_slow
        for a in range(accesses):
            memory[access_op[a]] -= saving[a, chosen[a]]
            if chosen[a] == 0:
                used += bus_time[a]
        for t in range(ops):
            used -= max(memory[t], compute[t])
        step = 1.0 / (1.0 + 0.08 * k)
        for m in range(1, layers):
            norm = 0.0
            for t in range(ops):
                norm += (
                    (occupied[m, t] / capacity[m] - 1.0) ** 2
                    if price[m, t] > 0 or occupied[m, t] > capacity[m]
                    else 0.0
                )
            scale = 0.25 * step * total / max(norm, 1.0) / capacity[m]
            for t in range(ops):
                price[m, t] = max(price[m, t] + scale * (occupied[m, t] / capacity[m] - 1.0), 0.0)
        for t in range(ops):
            if all_slow[t] > compute[t]:
                move = (memory[t] - compute[t]) / max(all_slow[t], 1e-300)
                weight[t] = min(max(weight[t] + 2.0 * step * move, 0.0), 1.0)
        bus_price = min(max(bus_price + step * used / all_time, 0.0), 0.95)
        if k >= _ITERATIONS // 2:
            mean_bus_price += bus_price / (_ITERATIONS - _ITERATIONS // 2)
            mean_price += price / (_ITERATIONS - _ITERATIONS // 2)
            mean_weight += weight / (_ITERATIONS - _ITERATIONS // 2)
    return held, weight, gain, cost, dirty, chosen, bus_price
