"""How an access that the slow layer serves could be fast with the rest of a plan as it is, and what prevents it.

A read could stay where the buffer resides already, reside longer after an earlier fast access, or be prefetched. A
definition could take place in the fast layer, with the reads up to some operation, and a write-back where slow
memory is needed afterwards. Each such way asks two questions: is the copy hidden, without making others late, and is
there room? The first way whose copies are hidden needs the least room of its kind, which decides the second.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from schedrl.arrays import F64, I64, Bool
from schedrl.envs.memmap.bus_use import copies_under_way, copy_demand_s
from schedrl.envs.memmap.copy_queues import copy_supply_s
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.plan import MemoryPlan
from schedrl.kernels import kernel

__all__ = ["Outcome", "Room", "Way", "apply_way", "find_room", "outcome_of", "slow_valid_from"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Whether a layer has one chunk of free bytes from operation ``first`` to ``last``, both included."""

    layer: int
    first: int
    last: int
    size: int
    offset: int | None
    """lowest offset where it fits; None when nowhere"""
    largest: int
    """bytes of the largest chunk that is free and aligned throughout"""
    fullest: int
    """operation at which the most bytes are in use"""
    in_use: int
    """bytes in use then"""
    occupants: tuple[int, ...]
    """buffers that reside there at some time, the largest first"""

    @property
    def missing(self) -> int:
        """Bytes that the largest free chunk is short of."""
        return max(self.size - self.largest, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A change to a plan after which some accesses are fast."""

    kind: Literal["stay", "extend", "prefetch", "produce"]
    accesses: tuple[int, ...]
    """accesses that change to the layer"""
    room: Room
    copy: tuple[int, int, int] | None = None
    """inward, start and end of a new copy"""
    position: int = 0
    """rank of the new copy among the others in order of start"""
    dropped_residences: tuple[int, ...] = ()
    dropped_copies: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What decides about an access: ``open`` when nothing prevents it, with the way; see ``outcome_of``."""

    reason: Literal["open", "capacity", "bandwidth", "live range"]
    way: Way | None = None
    window: tuple[int, int] = (0, -1)
    """first and last operation that could hide the copy; empty where the live range leaves none"""


def outcome_of(instance: MemoryMapInstance, plan: MemoryPlan, access: int, layer: int) -> Outcome:
    """Return whether one slow access of a valid plan could be served by a fast layer, or what prevents it.

    ``capacity``: with unlimited capacity it could. ``bandwidth``: not even then, since no copy would be hidden in
    time, but there are operations that might. ``live range``: there is no operation between what must come before
    and after the copy. Alias groups are left out of consideration, but residences that serve them do not move.
    """
    plan = replace(plan, copies=plan.copies[np.argsort(plan.copies[:, 3], kind="stable")])
    if instance.access_write[access]:
        return _decided(*_ways_of_definition(instance, plan, access, layer))
    return _decided(*_ways_of_read(instance, plan, access, layer))


def apply_way(instance: MemoryMapInstance, plan: MemoryPlan, way: Way) -> MemoryPlan:
    """Return the plan with an ``open`` way taken.

    Raises:
        ValueError: there is no room for it.
    """
    if way.room.offset is None:
        raise ValueError(f"no room for {way.room.size} bytes")
    layers = plan.access_layer.copy()
    layers[list(way.accesses)] = way.room.layer
    buffer = int(instance.access_buffer[way.accesses[0]])
    residences = np.delete(plan.residences, list(way.dropped_residences), axis=0)
    if way.kind != "stay":
        row = [[buffer, way.room.layer, way.room.offset, way.room.first, way.room.last]]
        residences = np.concatenate([residences, np.array(row, dtype=np.int64)])
    copies = plan.copies[np.argsort(plan.copies[:, 3], kind="stable")]
    copies = np.delete(copies, list(way.dropped_copies), axis=0)
    if way.copy is not None:
        inward, start, end = way.copy
        copies = np.insert(copies, way.position, [buffer, inward, way.room.layer, start, end], axis=0)
    return MemoryPlan(access_layer=layers, residences=residences, copies=copies)


def find_room(instance: MemoryMapInstance, residences: I64, buffer: int, layer: int, window: tuple[int, int]) -> Room:
    """Return the room that residences leave a buffer in a layer from ``window[0]`` to ``window[1]``, both included."""
    first, last = window
    size, place = int(instance.size[buffer]), instance.memory.layers[layer]
    inside = residences[(residences[:, 1] == layer) & (residences[:, 3] <= last) & (residences[:, 4] >= first)]
    inside = inside[np.argsort(inside[:, 2], kind="stable")]
    sizes = instance.size[inside[:, 0]]
    use = np.zeros(last - first + 2, dtype=np.int64)
    np.add.at(use, np.maximum(inside[:, 3], first) - first, sizes)
    np.add.at(use, np.minimum(inside[:, 4], last) + 1 - first, -sizes)
    in_use = np.cumsum(use)[:-1]
    offset, largest, top = None, 0, 0
    ends = [*zip(inside[:, 2].tolist(), (inside[:, 2] + sizes).tolist(), strict=True), (place.capacity_bytes or 0, 0)]
    for low, high in ends:
        begin = -(-top // place.alignment_bytes) * place.alignment_bytes
        largest = max(largest, low - begin)
        if offset is None and low - begin >= size:
            offset = begin
        top = max(top, high)
    order = np.argsort(-sizes, kind="stable")
    return Room(
        layer=layer,
        first=first,
        last=last,
        size=size,
        offset=offset,
        largest=largest,
        fullest=first + int(in_use.argmax()),
        in_use=int(in_use.max()),
        occupants=tuple(dict.fromkeys(inside[order, 0].tolist())),
    )


def slow_valid_from(instance: MemoryMapInstance, plan: MemoryPlan, buffer: int) -> int:
    """Return the first operation that finds the buffer's data in the slow layer; past the end when none does."""
    defined = int(instance.definition[buffer])
    if defined < 0:
        return 0
    writes = instance.access_write & (instance.access_buffer == buffer)
    if (plan.access_layer[writes] == 0).all():
        return defined + 1
    outward = plan.copies[(plan.copies[:, 0] == buffer) & (plan.copies[:, 1] == 0)]
    return int(outward[:, 4].min(initial=instance.ops + 1))


def _decided(ways: list[Way], window: tuple[int, int]) -> Outcome:
    if ways:
        best = min(ways, key=lambda way: (way.room.offset is None, way.room.missing))
        return Outcome(reason="capacity" if best.room.offset is None else "open", way=best, window=window)
    return Outcome(reason="bandwidth" if window[0] <= window[1] else "live range", window=window)


def _ways_of_read(
    instance: MemoryMapInstance, plan: MemoryPlan, access: int, layer: int
) -> tuple[list[Way], tuple[int, int]]:
    """Return the ways whose copies are hidden, and the operations that could hide a prefetch."""
    buffer, op = int(instance.access_buffer[access]), int(instance.access_op[access])
    ways = []
    own = np.flatnonzero((plan.residences[:, 0] == buffer) & (plan.residences[:, 1] == layer))
    for row in own.tolist():
        _, _, offset, first, last = plan.residences[row].tolist()
        if not first <= op or _arrival(instance, plan, row) > op:
            continue
        others = np.delete(plan.residences, row, axis=0)
        room = find_room(instance, others, buffer, layer, (first, max(last, op)))
        in_place = _free_at(instance, others, room, offset)
        if in_place:
            room = replace(room, offset=offset)
        if last >= op:
            return [Way(kind="stay", accesses=(access,), room=replace(room, offset=offset))], (0, -1)
        if in_place or not _pinned(instance, plan, row):
            ways.append(Way(kind="extend", accesses=(access,), room=room, dropped_residences=(row,)))
    earliest = max(slow_valid_from(instance, plan, buffer) - 1, -1)
    bus = _Bus.of(instance, plan, (access,), layer, ())
    starts = np.arange(op - 2, earliest - 1, -1)
    found = bus.first_hidden(buffer, 1, starts, op)
    if found is not None:
        start, end, position = found
        room = find_room(instance, plan.residences, buffer, layer, (start + 1, op))
        way = Way(kind="prefetch", accesses=(access,), room=room, copy=(1, start, end), position=position)
        ways.append(way)
    return ways, (earliest + 1, op - 1)


def _ways_of_definition(
    instance: MemoryMapInstance, plan: MemoryPlan, access: int, layer: int
) -> tuple[list[Way], tuple[int, int]]:
    """Return the way with the shortest residence whose write-back is hidden, and the longest window for one."""
    buffer, defined = int(instance.access_buffer[access]), int(instance.access_op[access])
    offsets, order = instance.by_buffer
    accesses = order[offsets[buffer] : offsets[buffer + 1]]
    ops, layers = instance.access_op[accesses], plan.access_layer[accesses]
    outward = np.flatnonzero((plan.copies[:, 0] == buffer) & (plan.copies[:, 1] == 0))
    window = (defined + 1, defined)
    for stop in np.unique(ops).tolist():
        rows, inward, until = _absorbed(plan, buffer, layer, (defined, stop))
        if ((ops <= until) & (layers != 0) & (layers != layer)).any():
            break
        if any(_pinned(instance, plan, row) for row in rows):
            break
        dropped = np.concatenate([outward, inward])
        moved = tuple(accesses[ops <= until].tolist())
        due = _needed(instance, plan, buffer, until, inward)
        residences = np.delete(plan.residences, rows, axis=0)
        common: dict[str, Any] = {
            "kind": "produce",
            "accesses": moved,
            "dropped_residences": tuple(rows),
            "dropped_copies": tuple(dropped.tolist()),
        }
        if due is None:
            room = find_room(instance, residences, buffer, layer, (defined, until))
            return [Way(room=room, **common)], window
        window = max(window, (defined + 1, due - 1), key=lambda ends: ends[1])
        bus = _Bus.of(instance, plan, moved, layer, common["dropped_copies"])
        found = bus.first_hidden(buffer, 0, np.arange(defined, due - 1), due)
        if found is not None:
            start, end, position = found
            room = find_room(instance, residences, buffer, layer, (defined, max(until, end - 1)))
            return [Way(room=room, copy=(0, start, end), position=position, **common)], window
    return [], window


def _absorbed(plan: MemoryPlan, buffer: int, layer: int, window: tuple[int, int]) -> tuple[list[int], I64, int]:
    """Return residences that one throughout a window replaces, the copies that feed them, and where the last ends."""
    residences = plan.residences
    own = (residences[:, 0] == buffer) & (residences[:, 1] == layer)
    first, until = window
    while True:
        rows = np.flatnonzero(own & (residences[:, 3] >= first) & (residences[:, 3] <= until))
        last = max(until, int(residences[rows, 4].max(initial=until)))
        if last == until:
            break
        until = last
    copies = plan.copies
    feeds = (copies[:, 0] == buffer) & (copies[:, 1] == 1) & (copies[:, 2] == layer)
    inward: I64 = np.flatnonzero(feeds & np.isin(copies[:, 3] + 1, residences[rows, 3]))
    return rows.tolist(), inward, until


def _needed(instance: MemoryMapInstance, plan: MemoryPlan, buffer: int, until: int, replaced: I64) -> int | None:
    """Return the operation before which the slow layer must hold a buffer that is fast until then, if at all."""
    slow = (instance.access_buffer == buffer) & (instance.access_op > until) & (plan.access_layer == 0)
    left = np.delete(plan.copies, replaced, axis=0)
    copied = left[(left[:, 0] == buffer) & (left[:, 1] == 1), 3] + 1
    times: list[int] = [*instance.access_op[slow].tolist(), *copied.tolist()]
    if instance.output[buffer]:
        times.append(instance.ops)
    return min(times) if times else None


def _arrival(instance: MemoryMapInstance, plan: MemoryPlan, row: int) -> int:
    """Return the first operation that finds data in a residence; past the end when none does."""
    buffer, layer, _, first, _ = plan.residences[row].tolist()
    writes = instance.access_write & (instance.access_buffer == buffer)
    if instance.definition[buffer] == first and (plan.access_layer[writes] == layer).all():
        return int(first)
    copies = plan.copies
    feeds = (copies[:, 0] == buffer) & (copies[:, 1] == 1) & (copies[:, 2] == layer) & (copies[:, 3] + 1 == first)
    return int(copies[feeds, 4].min(initial=instance.ops + 1))


def _pinned(instance: MemoryMapInstance, plan: MemoryPlan, row: int) -> bool:
    """Whether a residence serves an alias group, whose other members expect it at its offset."""
    buffer, layer, _, first, last = plan.residences[row].tolist()
    assert instance.access_group is not None
    served = (instance.access_buffer == buffer) & (plan.access_layer == layer) & (instance.access_group >= 0)
    return bool((served & (instance.access_op >= first) & (instance.access_op <= last)).any())


def _free_at(instance: MemoryMapInstance, residences: I64, room: Room, offset: int) -> bool:
    same = (residences[:, 1] == room.layer) & (residences[:, 3] <= room.last) & (residences[:, 4] >= room.first)
    low = residences[same, 2]
    high = low + instance.size[residences[same, 0]]
    return not ((low < offset + room.size) & (high > offset)).any()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bus:
    """The copies of a plan in order of start, against a clock that runs only while copying can be hidden."""

    instance: MemoryMapInstance
    copies: I64  # (K, 5)
    demand: F64  # (K,) s
    clock: F64  # (T + 1,) s

    @classmethod
    def of(
        cls, instance: MemoryMapInstance, plan: MemoryPlan, moved: tuple[int, ...], layer: int, dropped: tuple[int, ...]
    ) -> _Bus:
        """Return the bus of a plan, copies in order of start, after some accesses have changed to a layer."""
        layers = plan.access_layer.copy()
        layers[list(moved)] = layer
        copies = np.delete(plan.copies, list(dropped), axis=0)
        supply = copy_supply_s(instance, MemoryPlan(access_layer=layers, residences=plan.residences, copies=copies))
        clock = np.concatenate([[0.0], np.cumsum(supply)])
        return cls(instance=instance, copies=copies, demand=copy_demand_s(instance, copies), clock=clock)

    def first_hidden(self, buffer: int, inward: int, starts: I64, due: int) -> tuple[int, int, int] | None:
        """Return start, end and rank of a copy at the first of some starts that is in time and makes none late."""
        if not len(starts):
            return None
        row = np.array([[buffer, inward, 1, 0, 0]])
        under_way: I64 = copies_under_way(self.instance, self.copies)[inward]
        start, end, position = _first_hidden(
            np.ascontiguousarray(self.copies[:, 3]),
            np.ascontiguousarray(self.copies[:, 4]),
            self.demand,
            self.clock,
            starts,
            due,
            float(copy_demand_s(self.instance, row)[0]),
            under_way >= self.instance.memory.outstanding_copies,
        )
        return None if start < -1 else (int(start), int(end), int(position))


@kernel
def _first_hidden(
    start: I64, end: I64, demand: F64, clock: F64, starts: I64, due: int, extra: float, full: Bool
) -> tuple[int, int, int]:
    """Return start, end and rank of the first new copy that fits in, -2 for none; ``starts`` are tried in order."""
    tolerance = 1e-9 * clock[-1]
    for candidate in starts:
        if clock[due] - clock[candidate + 1] + tolerance < extra:
            continue
        low = high = 0
        for other in start:
            low += other < candidate
            high += other <= candidate
        for position in range(high, low - 1, -1):
            free = finish = 0.0
            late = False
            for rank in range(len(start) + 1):
                old = rank if rank < position else rank - 1
                new = rank == position
                begin = candidate if new else start[old]
                free = max(free, clock[begin + 1]) + (extra if new else demand[old])
                finish = free if new else finish
                if free > clock[due if new else end[old]] + tolerance:
                    late = True
                    break
            if late:
                continue
            done = candidate + 2
            while clock[done] + tolerance < finish:
                done += 1
            if not full[candidate + 1 : done].any():
                return candidate, done, position
    return -2, -2, -2
