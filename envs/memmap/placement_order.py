"""The order in which XLA's memory-space assignment places buffers: by how much they gain for their size.

Sort key after XLA's ``MemoryBoundednessBufferIntervalComparator`` with square-root scaling. Known trip counts stand
for XLA's fixed guess of five per loop level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import bytes_moved

__all__ = ["Clusters", "clusters_of", "memory_boundedness", "saving_alone_s", "shortening_s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clusters:
    """Buffers that alias groups connect, which are placed together; C clusters of N buffers, A accesses.

    Clusters are numbered in the order of XLA, each where the first of its buffers stands.
    """

    of_buffer: I32  # (N,) cluster of each buffer; -1 for buffers without accesses
    access: I32  # (A,) accesses of each cluster, in order of time
    first: I32  # (C + 1,) cluster c owns access[first[c]:first[c + 1]]

    @property
    def count(self) -> int:
        """Number of clusters C."""
        return len(self.first) - 1


def saving_alone_s(instance: MemoryMapInstance) -> F64:
    """Return (A,) seconds that each access saves when it alone moves to the first fast layer, over all trips.

    For an operation bound by computing this is the memory time minus the compute time, which is negative: the further
    from zero, the less any move can help.
    """
    memory_s, alone_s = _memory_s(instance)
    compute, op = instance.compute[instance.access_op], instance.access_op
    assert instance.trips is not None
    excess = memory_s[op] - compute
    gain: F64 = instance.trips[op].astype(np.float64) * np.where(excess > 0, memory_s[op] - alone_s, excess)
    return gain


def shortening_s(instance: MemoryMapInstance) -> F64:
    """Return (A,) seconds by which an access shortens its operation when it alone moves to the first fast layer."""
    memory_s, alone_s = _memory_s(instance)
    compute, op = instance.compute[instance.access_op], instance.access_op
    assert instance.trips is not None
    shorter: F64 = np.maximum(memory_s[op] - np.maximum(alone_s, compute), 0.0)
    return instance.trips[op].astype(np.float64) * shorter


def _memory_s(instance: MemoryMapInstance) -> tuple[F64, F64]:
    """Return (T,) memory time of one trip all slow, and (A,) the same with one access in the first fast layer."""
    assert instance.access_bytes is not None
    slow, fast = instance.memory.layers[:2]
    moved = bytes_moved(instance, np.zeros(instance.accesses, dtype=np.int8))[:, 0]
    memory_s = moved[:, 0] / slow.read_bytes_per_s + moved[:, 1] / slow.write_bytes_per_s
    slow_rate = np.where(instance.access_write, slow.write_bytes_per_s, slow.read_bytes_per_s)
    fast_rate = np.where(instance.access_write, fast.write_bytes_per_s, fast.read_bytes_per_s)
    own = instance.access_bytes / slow_rate - instance.access_bytes / fast_rate
    return memory_s, memory_s[instance.access_op] - own


def memory_boundedness(instance: MemoryMapInstance) -> F64:
    """Return (N,) the gain of each buffer from fast memory per root of its bytes; 0 for buffers without accesses.

    Gains of accesses are added while they are positive; otherwise the larger one counts.
    """
    offset, order = instance.by_buffer
    gain = saving_alone_s(instance)[order].tolist()
    result = np.zeros(instance.buffers)
    for buffer in range(instance.buffers):
        own = gain[offset[buffer] : offset[buffer + 1]]
        if not own:
            continue
        total = own[0]
        for value in own[1:]:
            total = total + value if total > 0 and value > 0 else max(total, value)
        result[buffer] = total
    return result / np.sqrt(instance.size)


def _sorted_buffers(instance: MemoryMapInstance) -> I32:
    """Return the buffers with accesses in the order of XLA."""
    offset, order = instance.by_buffer
    used = np.flatnonzero(np.diff(offset) > 0)
    op = instance.access_op[order]
    start = np.maximum(instance.definition[used], 0)
    end = op[offset[used + 1] - 1]
    end = np.where(instance.output[used], instance.ops, end)
    key = (used, start, end, -(end - start), -instance.size[used], -memory_boundedness(instance)[used])
    return used[np.lexsort(key)].astype(np.int32)


def clusters_of(instance: MemoryMapInstance) -> Clusters:
    """Return the clusters of an instance; kept with the instance once computed."""
    known = instance.__dict__.get("_clusters")
    if known is None:
        known = _clusters(instance)
        # Beside the instance's own cached properties, so that it lives as long as the instance.
        instance.__dict__["_clusters"] = known
    found: Clusters = known
    return found


def _clusters(instance: MemoryMapInstance) -> Clusters:
    assert instance.access_group is not None
    parent = list(range(instance.buffers))

    def root(buffer: int) -> int:
        while parent[buffer] != buffer:
            parent[buffer] = parent[parent[buffer]]
            buffer = parent[buffer]
        return buffer

    first_of: dict[int, int] = {}
    for grouped in np.flatnonzero(instance.access_group >= 0).tolist():
        buffer = int(instance.access_buffer[grouped])
        known = first_of.setdefault(int(instance.access_group[grouped]), buffer)
        parent[root(buffer)] = root(known)
    number: dict[int, int] = {}
    of_buffer = np.full(instance.buffers, -1, dtype=np.int32)
    order = _sorted_buffers(instance)
    for buffer in order.tolist():
        of_buffer[buffer] = number.setdefault(root(buffer), len(number))
    of_access = of_buffer[instance.access_buffer]
    access = np.argsort(of_access, kind="stable").astype(np.int32)
    first = np.searchsorted(of_access[access], np.arange(len(number) + 1)).astype(np.int32)
    return Clusters(of_buffer=of_buffer, access=access, first=first)
