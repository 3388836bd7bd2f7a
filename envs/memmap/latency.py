"""The time model of a program: how long each operation takes when given layers serve its accesses."""

from __future__ import annotations

import math

import numpy as np

from schedrl.arrays import F64, I8, I64
from schedrl.envs.memmap.instance import MemoryMapInstance

__all__ = ["bytes_moved", "fast_bound_s", "op_latency_s", "program_latency_s", "slow_bus_s", "slow_latency_s"]


def bytes_moved(instance: MemoryMapInstance, access_layer: I8) -> I64:
    """Return (T, L, 2) bytes that each operation reads (0) and writes (1) in each layer."""
    moved = np.zeros((instance.ops, instance.layers, 2), dtype=np.int64)
    assert instance.access_bytes is not None
    where = (instance.access_op, access_layer.astype(np.int64), instance.access_write.astype(np.int64))
    np.add.at(moved, where, instance.access_bytes)
    return moved


def slow_bus_s(instance: MemoryMapInstance, moved: I64) -> F64:
    """Return (T,) seconds of the slow layer's bus that one trip of each operation takes itself."""
    slow = instance.memory.layers[0]
    seconds: F64 = moved[:, 0, 0] / slow.read_bytes_per_s + moved[:, 0, 1] / slow.write_bytes_per_s
    return seconds


def op_latency_s(instance: MemoryMapInstance, access_layer: I8) -> F64:
    """Return (T,) seconds of one trip of each operation: the longer of computing and moving its bytes.

    The roofline of XLA's cost analysis: bytes over bandwidth, summed over layers. Of slow bytes, the first
    ``overhead_window_bytes`` do not overlap with the computation and delay it in proportion to their share.
    """
    moved = bytes_moved(instance, access_layer)
    memory_s = slow_bus_s(instance, moved)
    for number, layer in enumerate(instance.memory.layers[1:], start=1):
        memory_s = memory_s + moved[:, number, 0] / layer.read_bytes_per_s
        memory_s = memory_s + moved[:, number, 1] / layer.write_bytes_per_s
    slow, total = moved[:, 0].sum(axis=1), moved.sum(axis=(1, 2))
    share = np.minimum(instance.memory.overhead_window_bytes, slow) / np.maximum(total, 1)
    latency: F64 = np.maximum(instance.compute, memory_s + share * instance.compute)
    return latency


def program_latency_s(instance: MemoryMapInstance, access_layer: I8) -> float:
    """Return the seconds of the whole program: trips times latency, summed over operations."""
    assert instance.trips is not None
    # An exact sum, so that the order of summation does not matter.
    return math.fsum((instance.trips * op_latency_s(instance, access_layer)).tolist())


def slow_latency_s(instance: MemoryMapInstance) -> float:
    """Return the latency when the slow layer serves every access."""
    return program_latency_s(instance, np.zeros(instance.accesses, dtype=np.int8))


def fast_bound_s(instance: MemoryMapInstance) -> float:
    """Return the latency when every access takes the layer with the least time: no plan is faster."""
    assert instance.trips is not None and instance.access_bytes is not None
    layers = instance.memory.layers
    read = 1.0 / max(layer.read_bytes_per_s for layer in layers)
    write = 1.0 / max(layer.write_bytes_per_s for layer in layers)
    seconds = np.where(instance.access_write, write, read) * instance.access_bytes
    memory_s = np.zeros(instance.ops)
    np.add.at(memory_s, instance.access_op, seconds)
    return math.fsum((instance.trips * np.maximum(instance.compute, memory_s)).tolist()) * (1.0 - 1e-12)
