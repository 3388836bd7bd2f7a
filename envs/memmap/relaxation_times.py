"""Times that the relaxation of memory mapping works with, and how much of the program a copy needs at least."""

from __future__ import annotations

import numpy as np

from schedrl.arrays import F64
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import op_latency_s

__all__ = ["RelaxationTimes"]

# The checker calls a copy in time when less than 1e-9 of all bus time is missing; twice that covers rounding.
_LATENESS = 2e-9


class RelaxationTimes:
    """Times of operations over all trips, of accesses and of copies, in a unit given in seconds.

    With ``supply_s`` (T,), seconds of copying that each operation hides in some plan, windows are those of that plan
    and no bound follows; by default they are the least that any plan needs.
    """

    def __init__(self, instance: MemoryMapInstance, unit: float, supply_s: F64 | None = None) -> None:
        assert instance.trips is not None and instance.access_bytes is not None
        layers, write, op = instance.memory.layers, instance.access_write, instance.access_op
        moved, trips = instance.access_bytes.astype(np.float64), instance.trips[op]
        total: F64 = np.bincount(op, moved, minlength=instance.ops).astype(np.float64)
        window = np.minimum(instance.memory.overhead_window_bytes, total)
        # The overhead is concave in the slow bytes, so it is at least linear between none and all of them.
        overhead = instance.compute * window / np.maximum(total, 1.0)
        share = overhead / np.maximum(total, 1.0)
        times = instance.trips.astype(np.float64)
        seconds = np.stack(
            [moved / np.where(write, layer.write_bytes_per_s, layer.read_bytes_per_s) for layer in layers], axis=1
        )
        self.bus: F64 = trips * seconds[:, 0] / unit  # (A,)
        self.own_bus: F64 = np.bincount(op, self.bus, minlength=instance.ops).astype(np.float64)
        self.compute: F64 = times * instance.compute / unit  # (T,)
        self.saving: F64 = trips[:, None] * (seconds[:, :1] - seconds + (share[op] * moved)[:, None]) / unit  # (A, L)
        self.slow: F64 = self.own_bus + times * overhead / unit  # (T,)
        worst = np.bincount(op, seconds.max(axis=1), minlength=instance.ops)
        self.longest: F64 = times * np.maximum(instance.compute, worst + overhead) / unit * (1.0 + 1e-9)
        supply = (self._supply(instance, seconds, overhead) if supply_s is None else supply_s) / unit
        slack = _LATENESS * float(supply.sum())
        rates = np.array([layers[0].read_bytes_per_s, layers[0].write_bytes_per_s])
        self.demand: F64 = instance.size[:, None] / rates / unit - slack  # (N, 2) in, out
        # Copies that are never late in the eyes of the checker cost nothing.
        self.matters = (self.demand > slack).all(axis=1)
        self._served = np.concatenate([[0.0], np.cumsum(supply)])
        self._ops = instance.ops

    @staticmethod
    def _supply(instance: MemoryMapInstance, seconds: F64, overhead: F64) -> F64:
        """Return (T,) the most seconds of copying that each operation can hide, whatever the plan."""
        assert instance.trips is not None
        if instance.memory.supply == "elapsed":
            return instance.trips * op_latency_s(instance, np.zeros(instance.accesses, dtype=np.int8))
        fast = np.bincount(instance.access_op, seconds[:, 1:].max(axis=1), minlength=instance.ops)
        hidden: F64 = instance.trips.astype(np.float64) * np.maximum(instance.compute, fast + overhead)
        return hidden

    def fetched_from(self, buffer: int, use: int) -> int:
        """Return the last operation from which a copy in can end before a use, -1 when there is none."""
        must = self._served[use] - self.demand[buffer, 0]
        return int(np.searchsorted(self._served, must, side="right")) - 1

    def saved_after(self, buffer: int, definition: int) -> int:
        """Return the first operation after which a copy out can be done, past the end when there is none."""
        must = self._served[definition + 1] + self.demand[buffer, 1]
        return int(np.searchsorted(self._served, must, side="left")) - 1
