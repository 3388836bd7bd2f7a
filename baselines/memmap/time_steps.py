"""Seconds of a memory-mapping instance as whole steps, for a solver of integer constraints."""

from __future__ import annotations

import math

import numpy as np

from schedrl.arrays import F64
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import op_latency_s, slow_latency_s

__all__ = ["TimeSteps", "down", "up"]

_STEPS = 2**21  # in the latency without fast memory, where times have no common grid
# Numbers of steps per second that are tried as a grid on which every time falls.
_GRIDS = (1, 2, 3, 4, 6, 10, 12, 20, 30, 60, 120)
_NEAR = 1e-6


class TimeSteps:
    """Times over all trips in steps of ``step_s`` seconds, not rounded yet.

    ``step_s`` is a step on which all times fall where there is an easy one, else a 2^21st of the slow latency.
    """

    def __init__(self, instance: MemoryMapInstance) -> None:
        assert instance.trips is not None and instance.access_bytes is not None
        layers, write = instance.memory.layers, instance.access_write
        trips = instance.trips[instance.access_op].astype(np.float64)
        moved = np.stack(
            [
                instance.access_bytes / np.where(write, layer.write_bytes_per_s, layer.read_bytes_per_s)
                for layer in layers
            ],
            axis=1,
        )
        access_s: F64 = trips[:, None] * moved
        compute_s: F64 = instance.trips * instance.compute
        rates = np.array([layers[0].write_bytes_per_s, layers[0].read_bytes_per_s])
        demand_s: F64 = instance.size[:, None] / rates
        all_slow_s = instance.trips * op_latency_s(instance, np.zeros(instance.accesses, dtype=np.int8))
        total = np.bincount(instance.access_op, instance.access_bytes, minlength=instance.ops)
        overhead_s = compute_s / np.maximum(total, 1.0)
        self.step_s = _step(np.concatenate([access_s.ravel(), compute_s, demand_s.ravel()]), slow_latency_s(instance))
        self.access: F64 = access_s / self.step_s  # (A, L)
        self.compute: F64 = compute_s / self.step_s  # (T,)
        self.demand: F64 = demand_s / self.step_s  # (N, 2) out, in
        self.all_slow: F64 = all_slow_s / self.step_s  # (T,)
        self.overhead: F64 = overhead_s / self.step_s  # (T,) per byte within the overhead window
        self.longest: F64 = (
            np.maximum(  # (T,) whatever the plan
                self.compute, np.bincount(instance.access_op, self.access.max(axis=1), minlength=instance.ops)
            )
            + np.minimum(total, instance.memory.overhead_window_bytes) * self.overhead
        )
        self.horizon = math.ceil(float(self.longest.sum())) + 2 * instance.ops


def down(steps: float) -> int:
    """Round down, but not a number that is whole except for rounding errors."""
    return math.floor(steps + _NEAR)


def up(steps: float) -> int:
    """Round up, but not a number that is whole except for rounding errors."""
    return math.ceil(steps - _NEAR)


def _step(times_s: F64, horizon_s: float) -> float:
    for grid in _GRIDS:
        steps = times_s * grid
        whole = np.round(steps)
        # Tiny times must not pass for zero.
        if horizon_s * grid <= _STEPS and (np.abs(steps - whole) < _NEAR / 10).all() and (whole[times_s > 0] > 0).all():
            return 1.0 / grid
    return horizon_s / _STEPS or 1.0
