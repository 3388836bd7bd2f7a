"""All arrays of a batch of mapping games, and how an instance enters a row of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from schedrl.arrays import F64, I8, I32, I64, Bool
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import bytes_moved, op_latency_s, slow_bus_s, slow_latency_s
from schedrl.envs.memmap.prices import Hint, shadow_prices
from schedrl.kernel_arguments import by_reference

__all__ = ["Options", "Room", "State", "allocate", "room_of", "write_instance"]

AS_PLANNED, JUST_IN_TIME, PREFERRED, EARLIEST = 0, 1, 2, 3
PLANNED, BEST, LOWEST, HIGHEST, LIFETIME = 0, 1, 2, 3, 4


class Options(NamedTuple):
    """What the game offers; see ``Simulator``."""

    fits: tuple[int, ...]
    windows: tuple[int, ...]
    masked: bool
    lookback: int
    negligible: float
    skip_forced: bool


class Room(NamedTuple):
    """Sizes of the arrays."""

    ops: int
    accesses: int
    buffers: int
    layers: int
    groups: int
    slots: int


@by_reference
class State(NamedTuple):
    """Arrays with a leading batch axis B; T operations, A accesses, N buffers, L layers, G alias groups, C slots.

    A residence row and a copy row are made by at most one access each, so A rows are room enough.
    """

    ops: I32  # (B,)
    accesses: I32  # (B,)
    buffers: I32  # (B,)
    layers: I32  # (B,)
    groups: I32  # (B,)
    op_offset: I32  # (B, T + 1)
    access_op: I32  # (B, A)
    access_buffer: I32  # (B, A)
    access_write: Bool  # (B, A)
    access_bytes: I64  # (B, A)
    access_group: I32  # (B, A)
    next_access: I32  # (B, A) next access of the same buffer, -1 for none
    safe: Bool  # (B, A) whether a masked game may serve an access and its alias group from a fast layer
    compute: F64  # (B, T) seconds of one trip
    trips: I64  # (B, T)
    size: I64  # (B, N)
    output: Bool  # (B, N)
    definition_access: I32  # (B, N) access that defines a buffer, -1 for parameters and inputs
    read_rate: F64  # (B, L) bytes per second
    write_rate: F64  # (B, L)
    capacity: I64  # (B, L)
    alignment: I64  # (B, L)
    overhead_window: F64  # (B,)
    elapsed: Bool  # (B,) supply is the elapsed time without fast memory
    outstanding: I32  # (B,)
    slow_latency: F64  # (B,)
    total_size: I64  # (B,) bytes of all buffers
    final_access: I32  # (B, A) last access of the same buffer
    accesses_left: I32  # (B, A) accesses of the same buffer after this one
    base_latency: F64  # (B, T) one trip, all slow
    base_supply: F64  # (B, T + 1) least seconds of copying that operations before t hide, all slow
    held: F64  # (B, L, T + 1) shadow prices, see ``Prices``
    gain: F64  # (B, A, L)
    cost: F64  # (B, A, L)
    dirty_cost: F64  # (B, A, L)
    bus_price: F64  # (B,)
    hint: I8  # (B, A) layer of each access in a plan to lean on, see ``hints.py``
    hold: Bool  # (B, A) whether that plan keeps the buffer there until its next access
    hint_place: I64  # (B, A) offset of the residence that an access begins in that plan, -1 for none
    hint_start: I64  # (B, A) operation after which that plan begins the copy for an access, -2 for none
    hint_back: Bool  # (B, A) whether that plan needs a valid slow copy after this result
    worth: F64  # (B, N) latency saved when every access of a buffer were fast and bound by memory, in all
    position: I32  # (B,) next access to decide; accesses once finished
    layer: I8  # (B, A) layer of decided accesses, 0 for the others
    moved: I64  # (B, T, L, 2) bytes read and written in each layer; undecided accesses count as slow
    latency: F64  # (B, T) one trip
    saved: F64  # (B,) seconds saved against the all-slow program
    supply: F64  # (B, T + 1) as base_supply, final for operations before the current one
    residence: I64  # (B, A, 5) columns of MemoryPlan.residences
    residences: I32  # (B,)
    lost_by: I32  # (B, A) access that displaced a residence, -1 while it can be extended
    order: I32  # (B, L, A) residences of each layer by offset that may still matter
    ordered: I32  # (B, L)
    here: I32  # (B, N) residence that holds a buffer now, -1 for none
    touched: I32  # (B, N) last decided access of a buffer, -1 before the first
    valid_from: I32  # (B, N) operation before which the slow copy is valid; T + 1 when there is none
    copy: I64  # (B, A, 5) columns of MemoryPlan.copies
    copy_latest: I32  # (B, A) end of a copy when it was decided; copies back may end sooner
    copy_residence: I32  # (B, A) residence that a copy fills or empties
    demand: F64  # (B, A) seconds of each copy
    copies: I32  # (B,)
    queue: I32  # (B, A) copies by start
    pending: F64  # (B, A) seconds of copying ahead of a queue's entry when it starts
    under_way: I32  # (B, 2, T + 1) outward and inward copies under way at each operation
    group_layer: I8  # (B, G) layer of an alias group, -1 before its first decision
    group_offset: I64  # (B, G)
    group_first: I32  # (B, G) access that decided it
    forced_group: Bool  # (B, G) groups that a back-up bound to the slow layer
    forced: Bool  # (B, N) buffers whose definition a back-up bound to the slow layer
    undo: I32  # (B, A, 7) what each decision found: here, its last, valid_from, touched, residences, copies, group
    candidate: I64  # (B, C, 5) kind, layer, offset, start, end; no copy where start is at least end
    displaced: F64  # (B, C) seconds that placing a candidate costs by displacing others
    mark: I8  # (B, A) scratch: what the entries of ``order`` are to a placement
    loss: F64  # (B, A) scratch: seconds lost by displacing them
    candidates: I32  # (B,) number of them, 0 once finished
    backups: I32  # (B,)
    decisions: I32  # (B,)
    invalid: I32  # (B,)
    moves_on: Bool  # (B,) rows that go on to their next decision
    paid: F64  # (B,) sum of the rewards given out, in single precision each


def room_of(instances: Sequence[MemoryMapInstance], options: Options) -> Room:
    """Return the sizes that hold any of the instances."""
    layers = max(instance.layers for instance in instances)
    per_layer = len(options.fits) * max(2, len(options.windows))
    return Room(
        ops=max(instance.ops for instance in instances),
        accesses=max(instance.accesses for instance in instances),
        buffers=max(instance.buffers for instance in instances),
        layers=layers,
        groups=max(1, *(instance.groups for instance in instances)),
        slots=2 + (layers - 1) * per_layer,
    )


def allocate(batch: int, room: Room) -> State:
    """Return zeroed arrays."""
    ops, accesses, buffers, layers, groups, slots = room
    shapes: dict[str, tuple[type, tuple[int, ...]]] = {
        **dict.fromkeys(("ops", "accesses", "buffers", "layers", "groups", "outstanding"), (np.int32, ())),
        "op_offset": (np.int32, (ops + 1,)),
        **dict.fromkeys(("access_op", "access_buffer", "access_group", "next_access"), (np.int32, (accesses,))),
        **dict.fromkeys(("final_access", "accesses_left"), (np.int32, (accesses,))),
        "total_size": (np.int64, ()),
        **dict.fromkeys(("access_write", "safe", "hold", "hint_back"), (np.bool_, (accesses,))),
        "hint": (np.int8, (accesses,)),
        **dict.fromkeys(("access_bytes", "hint_place", "hint_start"), (np.int64, (accesses,))),
        **dict.fromkeys(("compute", "base_latency", "latency"), (np.float64, (ops,))),
        "trips": (np.int64, (ops,)),
        "size": (np.int64, (buffers,)),
        **dict.fromkeys(("output", "forced"), (np.bool_, (buffers,))),
        **dict.fromkeys(("definition_access", "here", "touched", "valid_from"), (np.int32, (buffers,))),
        **dict.fromkeys(("read_rate", "write_rate"), (np.float64, (layers,))),
        **dict.fromkeys(("capacity", "alignment"), (np.int64, (layers,))),
        **dict.fromkeys(("overhead_window", "slow_latency", "saved", "bus_price", "paid"), (np.float64, ())),
        **dict.fromkeys(("elapsed", "moves_on"), (np.bool_, ())),
        **dict.fromkeys(("base_supply", "supply"), (np.float64, (ops + 1,))),
        "held": (np.float64, (layers, ops + 1)),
        **dict.fromkeys(("gain", "cost", "dirty_cost"), (np.float64, (accesses, layers))),
        "worth": (np.float64, (buffers,)),
        **dict.fromkeys(("position", "residences", "copies", "candidates"), (np.int32, ())),
        **dict.fromkeys(("backups", "decisions", "invalid"), (np.int32, ())),
        "layer": (np.int8, (accesses,)),
        "moved": (np.int64, (ops, layers, 2)),
        **dict.fromkeys(("residence", "copy"), (np.int64, (accesses, 5))),
        "order": (np.int32, (layers, accesses)),
        "ordered": (np.int32, (layers,)),
        **dict.fromkeys(("demand", "pending"), (np.float64, (accesses,))),
        **dict.fromkeys(("queue", "lost_by", "copy_latest", "copy_residence"), (np.int32, (accesses,))),
        "under_way": (np.int32, (2, ops + 1)),
        "group_layer": (np.int8, (groups,)),
        "group_offset": (np.int64, (groups,)),
        "group_first": (np.int32, (groups,)),
        "forced_group": (np.bool_, (groups,)),
        "undo": (np.int32, (accesses, 7)),
        "candidate": (np.int64, (slots, 5)),
        "displaced": (np.float64, (slots,)),
        "mark": (np.int8, (accesses,)),
        "loss": (np.float64, (accesses,)),
    }
    arrays: dict[str, Any] = {name: np.zeros((batch, *shape), dtype=dtype) for name, (dtype, shape) in shapes.items()}
    return State(**{name: arrays[name] for name in State._fields})


def write_instance(state: State, row: int, instance: MemoryMapInstance, hint: Hint) -> None:
    """Write what does not change during an episode into one row."""
    hinted = {
        "hint": hint.layer,
        "hold": hint.hold,
        "hint_back": hint.back,
        "hint_place": hint.place,
        "hint_start": hint.start,
    }
    for name, value in (_static(instance) | hinted).items():
        array = getattr(state, name)
        if np.ndim(value) == 0:
            array[row] = value
        else:
            array[(row, *(slice(length) for length in np.shape(value)))] = value


def _static(instance: MemoryMapInstance) -> dict[str, Any]:
    cached = instance.__dict__.get("_static")
    if cached is None:
        cached = _compute_static(instance)
        # Beside the instance's own cached properties, so that it lives as long as the instance.
        instance.__dict__["_static"] = cached
    return dict(cached)


def _compute_static(instance: MemoryMapInstance) -> dict[str, Any]:
    memory, slow = instance.memory, np.zeros(instance.accesses, dtype=np.int8)
    assert instance.trips is not None and instance.access_bytes is not None
    base = op_latency_s(instance, slow)
    bus = slow_bus_s(instance, bytes_moved(instance, slow))
    # Less idle time than any placement leaves: the overhead of slow accesses adds some, which a move may take away.
    idle = base if memory.supply == "elapsed" else np.maximum(instance.compute, bus) - bus
    prices, _ = shadow_prices(instance)
    layers = memory.layers
    fastest = max(range(1, len(layers)), key=lambda number: layers[number].read_bytes_per_s)
    rate = np.where(instance.access_write, layers[0].write_bytes_per_s, layers[0].read_bytes_per_s)
    quick = np.where(instance.access_write, layers[fastest].write_bytes_per_s, layers[fastest].read_bytes_per_s)
    trips = instance.trips[instance.access_op]
    final, left = _remaining(instance)
    bound = base[instance.access_op] > instance.compute[instance.access_op]
    saving = trips * instance.access_bytes * (1.0 / rate - 1.0 / quick) * bound
    return {
        "ops": instance.ops,
        "accesses": instance.accesses,
        "buffers": instance.buffers,
        "layers": instance.layers,
        "groups": instance.groups,
        "op_offset": instance.op_offset,
        "access_op": instance.access_op,
        "access_buffer": instance.access_buffer,
        "access_write": instance.access_write,
        "access_bytes": instance.access_bytes,
        "access_group": instance.access_group,
        "next_access": next_accesses(instance),
        "safe": safe_accesses(instance),
        "compute": instance.compute,
        "trips": instance.trips,
        "size": instance.size,
        "output": instance.output,
        "definition_access": _definition_accesses(instance),
        "read_rate": np.array([layer.read_bytes_per_s for layer in layers]),
        "write_rate": np.array([layer.write_bytes_per_s for layer in layers]),
        "capacity": np.array([layer.capacity_bytes or 0 for layer in layers]),
        "alignment": np.array([layer.alignment_bytes for layer in layers]),
        "overhead_window": memory.overhead_window_bytes,
        "elapsed": memory.supply == "elapsed",
        "outstanding": memory.outstanding_copies,
        "slow_latency": slow_latency_s(instance),
        "total_size": int(instance.size.sum()),
        "final_access": final,
        "accesses_left": left,
        "base_latency": base,
        "base_supply": np.concatenate([[0.0], np.cumsum(instance.trips * idle)]),
        "held": prices.held,
        "gain": prices.gain,
        "cost": prices.cost,
        "dirty_cost": prices.dirty_cost,
        "bus_price": prices.bus_price,
        "worth": np.bincount(instance.access_buffer, weights=saving, minlength=instance.buffers),
    }


def _remaining(instance: MemoryMapInstance) -> tuple[I32, I32]:
    offset, order = instance.by_buffer
    final, left = np.zeros(instance.accesses, dtype=np.int32), np.zeros(instance.accesses, dtype=np.int32)
    count = np.diff(offset)
    final[order] = np.repeat(order[np.maximum(offset[1:] - 1, 0)], count)
    left[order] = np.repeat(offset[1:], count) - 1 - np.arange(len(order))
    return final, left


def _definition_accesses(instance: MemoryMapInstance) -> I32:
    defined = np.full(instance.buffers, -1, dtype=np.int32)
    written = np.flatnonzero(instance.access_write)
    defined[instance.access_buffer[written]] = written
    return defined


def next_accesses(instance: MemoryMapInstance) -> I32:
    """Return (A,) the next access of the same buffer, -1 for none."""
    _, order = instance.by_buffer
    following = np.full(instance.accesses, -1, dtype=np.int32)
    following[order[:-1]] = np.where(np.diff(instance.access_buffer[order]) == 0, order[1:], -1)
    return following


def safe_accesses(instance: MemoryMapInstance) -> Bool:
    """Return (A,) whether deciding an access for a fast layer can never break a promise to its alias group.

    A group is safe when it is one operation that reads one buffer for the last time and writes one no larger buffer
    in its place, neither of them an output. A buffer with an unsafe access is produced in the slow layer, and so on
    for the group that produces it.
    """
    assert instance.access_group is not None
    group, buffer, write = instance.access_group, instance.access_buffer, instance.access_write
    safe = group < 0
    following = next_accesses(instance)
    for number in range(instance.groups):
        members = np.flatnonzero(group == number)
        read, made = members[~write[members]], members[write[members]]
        if len(read) == 1 and len(made) == 1:
            old, new = buffer[read[0]], buffer[made[0]]
            together = instance.access_op[read[0]] == instance.access_op[made[0]]
            outputs = instance.output[new] or instance.output[old]
            fits = instance.size[new] <= instance.size[old] and not outputs
            safe[members] = bool(together and fits and following[read[0]] < 0)
        else:
            safe[members] = len(members) <= 1
    while True:
        unsafe_buffer = np.bincount(buffer[~safe], minlength=instance.buffers) > 0
        bad = safe & write & unsafe_buffer[buffer]
        bad |= safe & (group >= 0) & np.isin(group, group[bad | ~safe])
        if not bad.any():
            return safe
        safe &= ~bad
