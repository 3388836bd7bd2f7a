"""All arrays of a batch of segment allocators, and how an instance enters a row of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from schedrl.arrays import F64, I64
from schedrl.envs.memmap import segment_columns as at
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import bytes_moved, op_latency_s, slow_bus_s, slow_latency_s
from schedrl.envs.memmap.placement_order import clusters_of, shortening_s
from schedrl.envs.memmap.plan import MemoryPlan
from schedrl.errors import ConfigError
from schedrl.kernel_arguments import by_reference

__all__ = ["AllocatorRoom", "AllocatorState", "Constants", "allocate", "plan_of", "room_of", "write_program"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Production constants of XLA's memory-space assignment.

    Source: the ``tpu_comp_env`` dump of libtpu 0.0.51 for TPU v4, v5e and v6e, identical for all of them; the names
    in XLA's source follow each figure. The cap on copies under way, 40 there, belongs to the device here.

    Raises:
        ConfigError: a figure outside its range.
    """

    min_overlap: float = 1.0
    """least time from the start of a prefetch to its use, in copy times; min_overlap_to_async_copy_ratio"""
    preferred_overlap: float = 2.0
    """the time it is tried first, in copy times; preferred_overlap_to_async_copy_ratio"""
    max_overlap: float = 8.0
    """most time a value may wait in fast memory, in times to copy all of it;
    max_overlap_to_mem_size_async_copy_ratio"""
    max_retries: int = 2
    max_repacks: int = 4
    inefficient_ratio: float = 0.5
    """copies that are worth less than this many bytes used per byte copied are taken back;
    inefficient_use_to_copy_ratio"""
    second_look: bool = True
    """not of XLA: when all buffers are placed, try what is slow once more, without ``max_overlap``. In XLA the bus
    time for copies does not depend on the plan; here it grows as accesses move to fast memory, so what found none at
    first may find some now. Not done on devices with an overhead window."""

    def __post_init__(self) -> None:
        for field in ("min_overlap", "preferred_overlap", "max_overlap", "inefficient_ratio"):
            if not getattr(self, field) >= 0:
                raise ConfigError(f"constants: field {field}: {getattr(self, field)!r}, expected a number >= 0")
        for field, least in (("max_retries", 1), ("max_repacks", 0)):
            if type(getattr(self, field)) is not int or getattr(self, field) < least:
                raise ConfigError(f"constants: field {field}: {getattr(self, field)!r}, expected an integer >= {least}")


class AllocatorRoom(NamedTuple):
    """Sizes of the arrays."""

    ops: int
    accesses: int
    buffers: int
    layers: int
    groups: int
    clusters: int


@by_reference
class AllocatorState(NamedTuple):
    """Arrays with a leading batch axis B; T operations, A accesses, N buffers, L layers, G alias groups, C clusters.

    A cluster is a set of buffers that alias groups connect; clusters are numbered in the order of XLA. An access
    makes at most one residence and one copy, so A rows are room enough for both. Columns: ``segment_columns``.
    """

    number: I64  # (B, 20) sizes, options and counts
    constant: F64  # (B, 8) options and sums
    access: I64  # (B, 11, A)
    seconds: F64  # (B, 3, A)
    record: I64  # (B, 6, A) lists of residences and copies
    residence: I64  # (B, A, 8)
    copy: I64  # (B, A, 5)
    buffer: I64  # (B, 6, N + 1)
    cluster: I64  # (B, 3, C + 1)
    group: I64  # (B, 2, G)
    op: I64  # (B, 3, T + 1)
    time: F64  # (B, 8, T + 1)
    moved: I64  # (B, 2, T, L, 2)
    rate: F64  # (B, 3, L)
    room: I64  # (B, 2, L)


def room_of(instances: Sequence[MemoryMapInstance]) -> AllocatorRoom:
    """Return the sizes that hold any of the instances."""
    return AllocatorRoom(
        ops=max(instance.ops for instance in instances),
        accesses=max(instance.accesses for instance in instances),
        buffers=max(instance.buffers for instance in instances),
        layers=max(instance.layers for instance in instances),
        groups=max(1, *(instance.groups for instance in instances)),
        clusters=max(clusters_of(instance).count for instance in instances),
    )


def allocate(batch: int, room: AllocatorRoom) -> AllocatorState:
    """Return zeroed arrays for a batch of B rows."""
    ops, accesses, buffers, layers, groups, clusters = room
    shapes: dict[str, tuple[type, tuple[int, ...]]] = {
        "number": (np.int64, (20,)),
        "constant": (np.float64, (8,)),
        "access": (np.int64, (11, accesses)),
        "seconds": (np.float64, (3, accesses)),
        "record": (np.int64, (6, accesses)),
        "residence": (np.int64, (accesses, 8)),
        "copy": (np.int64, (accesses, 5)),
        "buffer": (np.int64, (6, buffers + 1)),
        "cluster": (np.int64, (3, clusters + 1)),
        "group": (np.int64, (2, groups)),
        "op": (np.int64, (3, ops + 1)),
        "time": (np.float64, (8, ops + 1)),
        "moved": (np.int64, (2, ops, layers, 2)),
        "rate": (np.float64, (3, layers)),
        "room": (np.int64, (2, layers)),
    }
    return AllocatorState(**{name: np.zeros((batch, *shape), dtype) for name, (dtype, shape) in shapes.items()})


def write_program(state: AllocatorState, row: int, instance: MemoryMapInstance, constants: Constants) -> None:
    """Write what does not change while buffers are placed into one row; ``reset_row`` writes the rest."""
    for name, columns in _static(instance, constants).items():
        array = getattr(state, name)[row]
        for column, value in columns.items():
            array[(column, *(slice(length) for length in np.shape(value)))] = value


def _static(instance: MemoryMapInstance, constants: Constants) -> dict[str, dict[int, Any]]:
    """Return the static columns of every array."""
    layers, clusters = instance.memory.layers, clusters_of(instance)
    buffer_first, buffer_access = instance.by_buffer
    slot = np.empty(instance.accesses, dtype=np.int64)
    slot[buffer_access] = np.arange(instance.accesses)
    capacity = np.array([layer.capacity_bytes or 0 for layer in layers], dtype=np.int64)
    return {
        "number": _numbers(instance, constants),
        "constant": {
            at.LEAST: constants.min_overlap,
            at.PREFERRED: constants.preferred_overlap,
            at.RATIO: constants.inefficient_ratio,
            at.OVERHEAD: instance.memory.overhead_window_bytes,
            at.SLOW_LATENCY: slow_latency_s(instance),
            at.SAVEABLE: shortening_s(instance).sum(),
        },
        "access": {
            at.OP: instance.access_op,
            at.BUFFER_OF: instance.access_buffer,
            at.WRITE: instance.access_write,
            at.BYTES: instance.access_bytes,
            at.GROUP: instance.access_group,
            at.SLOT: slot,
            at.BY_BUFFER: buffer_access,
            at.BY_CLUSTER: clusters.access,
        },
        "seconds": {at.SAVING: shortening_s(instance)},
        "buffer": {at.SIZE: instance.size, at.OUTPUT: instance.output, at.FIRST_ACCESS: buffer_first},
        "cluster": {at.CLUSTER_ACCESS: clusters.first},
        "op": {at.OP_ACCESS: instance.op_offset},
        "time": _times(instance),
        "moved": {at.ALL_SLOW: bytes_moved(instance, np.zeros(instance.accesses, dtype=np.int8))},
        "rate": {
            at.READ: [layer.read_bytes_per_s for layer in layers],
            at.WRITTEN: [layer.write_bytes_per_s for layer in layers],
            at.LONGEST: constants.max_overlap * capacity / layers[0].read_bytes_per_s,
        },
        "room": {at.CAPACITY: capacity, at.ALIGNMENT: [layer.alignment_bytes for layer in layers]},
    }


def _numbers(instance: MemoryMapInstance, constants: Constants) -> dict[int, int]:
    return {
        at.OPS: instance.ops,
        at.ACCESSES: instance.accesses,
        at.BUFFERS: instance.buffers,
        at.LAYERS: instance.layers,
        at.GROUPS: instance.groups,
        at.CLUSTERS: clusters_of(instance).count,
        at.MOST_REPACKS: constants.max_repacks,
        at.RETRIES: constants.max_retries,
        at.MOST_UNDER_WAY: instance.memory.outstanding_copies,
        at.BY_ELAPSED: int(instance.memory.supply == "elapsed"),
        at.LOOKS_TWICE: int(constants.second_look),
    }


def _times(instance: MemoryMapInstance) -> dict[int, F64]:
    slow = np.zeros(instance.accesses, dtype=np.int8)
    latency = op_latency_s(instance, slow)
    idle = latency - slow_bus_s(instance, bytes_moved(instance, slow))
    assert instance.trips is not None
    return {
        at.COMPUTE: instance.compute,
        at.TRIPS: instance.trips.astype(np.float64),
        at.BASE_LATENCY: instance.trips * latency,
        at.BASE_SUPPLY: instance.trips * (latency if instance.memory.supply == "elapsed" else idle),
        at.ELAPSED: np.concatenate([[0.0], np.cumsum(instance.trips * latency)]),
    }


def plan_of(state: AllocatorState, row: int) -> MemoryPlan:
    """Return the plan that a row has come to; valid at any time, what is not placed is slow."""
    residences, copies = state.number[row, at.RESIDENCES], state.number[row, at.COPIED]
    return MemoryPlan(
        access_layer=state.access[row, at.SERVED_BY, : state.number[row, at.ACCESSES]].astype(np.int8),
        residences=state.residence[row, :residences, :5].copy(),
        copies=state.copy[row, state.record[row, at.QUEUE, :copies]],
    )
