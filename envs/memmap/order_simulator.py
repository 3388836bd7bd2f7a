"""The order game: which buffer XLA's memory-space assignment places next; many programs advance together.

A step hands one cluster of buffers to the segment allocator (``segment_allocator.py``), which finds its layers,
offsets and copies as XLA does. The checker (``plan_check.py``) shares nothing with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from schedrl.arrays import F32, I32, I64, Bool
from schedrl.envs.memmap import segment_columns as at
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import slow_latency_s
from schedrl.envs.memmap.order_observation import FEATURES, make_scratch, write_orders
from schedrl.envs.memmap.placement_order import clusters_of
from schedrl.envs.memmap.plan import MemoryPlan
from schedrl.envs.memmap.segment_allocator import place_cluster, reset_row
from schedrl.envs.memmap.segment_state import (
    AllocatorRoom,
    AllocatorState,
    Constants,
    allocate,
    plan_of,
    room_of,
    write_program,
)
from schedrl.errors import ConfigError
from schedrl.graphs import DecisionBatch, FeatureTable
from schedrl.kernels import kernel

__all__ = ["OrderSimulator"]


class OrderSimulator:
    """B order games at once. See ``schedrl.families.Simulator`` for the contract.

    The candidates are the first unplaced clusters in the order of XLA, so that slot 0 at every step plays XLA's
    assignment. The reward is the latency saved, per latency without fast memory; returns are the share saved.

    Args:
        instances: bound what fits later; room for operations, accesses and buffers grows.
        batch: number of rows B.
        window: most candidates of a decision.
        negligible: clusters whose accesses could save no more than this share of the program's latency, each bound by
            memory, are placed last, without asking.
        constants: of the placement.

    Raises:
        ConfigError: a window below 1, or a share outside [0, 1).
    """

    features: ClassVar[FeatureTable] = FEATURES

    def __init__(
        self,
        instances: Sequence[MemoryMapInstance],
        batch: int,
        *,
        window: int = 16,
        negligible: float = 0.0,
        constants: Constants | None = None,
    ) -> None:
        if type(window) is not int or window < 1:
            raise ConfigError(f"window: {window!r}, expected an integer of at least 1")
        if not 0.0 <= negligible < 1.0:
            raise ConfigError(f"negligible: {negligible!r}, expected 0 up to below 1")
        self._constants = Constants() if constants is None else constants
        self._negligible = float(negligible)
        self._room = room_of(instances)
        self.state = allocate(batch, self._room)
        self._candidate: I64 = np.zeros((batch, window), dtype=np.int64)
        self._count: I64 = np.zeros(batch, dtype=np.int64)
        self._scratch = make_scratch(self._room.ops)
        for row in range(batch):
            self.load(row, instances[row % len(instances)])

    @property
    def batch(self) -> int:
        """Number of rows B."""
        return len(self._count)

    @property
    def slots(self) -> int:
        """Candidate slots C: the window."""
        return int(self._candidate.shape[1])

    @property
    def invalid(self) -> I32:
        """(B,) actions outside the mask since each episode began."""
        return self.state.number[:, at.INVALID].astype(np.int32)

    @property
    def invalid_limit(self) -> I32:
        """(B,) the number of clusters."""
        return self.state.number[:, at.CLUSTERS].astype(np.int32)

    def load(self, row: int, instance: MemoryMapInstance) -> None:
        """Start an episode of ``instance`` in one row.

        Raises:
            ConfigError: not a program.
        """
        if not isinstance(instance, MemoryMapInstance):
            raise ConfigError(f"instance {getattr(instance, 'name', instance)!r:.40}: the order game places programs")
        needed = room_of([instance])
        if any(need > have for need, have in zip(needed, self._room, strict=True)):
            self._grow(needed)
        write_program(self.state, row, instance, self._constants)
        clusters = clusters_of(instance).count
        self.state.cluster[row, at.NEGLIGIBLE, :clusters] = _negligible(instance, self._negligible)
        reset_row(self.state, row)
        _offer(self.state, row, self._candidate, self._count)

    def observe(self, out: DecisionBatch) -> None:
        """Fill the current decision of every row; slots beyond ``count`` are zero."""
        write_orders(
            self.state,
            self._candidate,
            self._count,
            self._scratch,
            out.candidates,
            out.candidate_features,
            out.context,
            out.count,
        )

    def step(self, action: I32, reward: F32, done: Bool) -> None:
        """Place one cluster per row; see the contract for negative and invalid slots."""
        _step_rows(self.state, self._candidate, self._count, action, reward, done)

    def finished(self, row: int) -> bool:
        """Whether every cluster of the row is placed."""
        return bool(self._count[row] == 0)

    def objective(self, row: int) -> float:
        """Return the latency of a row's program in seconds."""
        # An exact sum, as in ``latency.py``: the order of summation does not matter.
        return math.fsum(self.state.time[row, at.LATENCY, : self.state.number[row, at.OPS]].tolist())

    def solution(self, row: int) -> MemoryPlan:
        """Return the plan of a row; before the end what is not placed is slow."""
        return plan_of(self.state, row)

    def follow(self, row: int, solution: MemoryPlan) -> int:
        """Return the candidate of whose accesses the plan serves the largest share from fast layers."""
        share = [self._fast_share(row, cluster, solution) for cluster in self._offered(row)]
        return int(np.argmax(share))

    def follow_order(self, row: int, rank: I64) -> int:
        """Return the candidate that comes first in an order of all clusters, given as the rank of each (C,)."""
        return int(np.argmin(rank[self._offered(row)]))

    def snapshot(self) -> dict[str, Any]:
        """Return copies of all arrays by name."""
        arrays = {**self.state._asdict(), "candidate": self._candidate, "count": self._count}
        return {name: array.copy() for name, array in arrays.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot of a simulator of the same batch and slots."""
        arrays = {name: np.array(array) for name, array in state.items()}
        self._candidate, self._count = arrays.pop("candidate"), arrays.pop("count")
        self.state = AllocatorState(**arrays)
        self._room = _room(self.state)
        self._scratch = make_scratch(self._room.ops)

    def _offered(self, row: int) -> I64:
        offered: I64 = self._candidate[row, : self._count[row]]
        return offered

    def _fast_share(self, row: int, cluster: int, plan: MemoryPlan) -> float:
        first, end = self.state.cluster[row, at.CLUSTER_ACCESS, cluster : cluster + 2]
        return float((plan.access_layer[self.state.access[row, at.BY_CLUSTER, first:end]] > 0).mean())

    def _grow(self, needed: AllocatorRoom) -> None:
        """Make room for larger programs, which generators of random sizes draw."""
        old = self.state._asdict()
        self._room = AllocatorRoom(*(max(pair) for pair in zip(needed, self._room, strict=True)))
        self.state = allocate(self.batch, self._room)
        self._scratch = make_scratch(self._room.ops)
        for name, array in self.state._asdict().items():
            array[tuple(slice(size) for size in old[name].shape)] = old[name]


def _room(state: AllocatorState) -> AllocatorRoom:
    return AllocatorRoom(
        ops=state.op.shape[2] - 1,
        accesses=state.access.shape[2],
        buffers=state.buffer.shape[2] - 1,
        layers=state.rate.shape[2],
        groups=state.group.shape[2],
        clusters=state.cluster.shape[2] - 1,
    )


def _negligible(instance: MemoryMapInstance, share: float) -> Bool:
    """Return (C,) whether a cluster's accesses together could save no more than a share of the latency."""
    clusters, layers = clusters_of(instance), instance.memory.layers
    assert instance.trips is not None and instance.access_bytes is not None
    slow = np.where(instance.access_write, 1.0 / layers[0].write_bytes_per_s, 1.0 / layers[0].read_bytes_per_s)
    fast = [np.where(instance.access_write, 1.0 / m.write_bytes_per_s, 1.0 / m.read_bytes_per_s) for m in layers[1:]]
    saving = instance.trips[instance.access_op] * instance.access_bytes * (slow - np.min(fast, axis=0))
    worth = np.bincount(clusters.of_buffer[instance.access_buffer], weights=saving, minlength=clusters.count)
    limit = share * slow_latency_s(instance)
    least: Bool = worth <= limit if share > 0 else np.zeros(clusters.count, dtype=np.bool_)
    # A game without a decision is none.
    least[0] = least[0] and not least.all()
    return least


@kernel
def _offer(s: AllocatorState, b: int, candidate: I64, count: I64) -> None:
    """Collect the next candidates of a row; once only negligible clusters are left, place them."""
    found = 0
    for c in range(s.number[b, at.CLUSTERS]):
        if found == candidate.shape[1]:
            break
        if s.cluster[b, at.PLACED, c] == 0 and s.cluster[b, at.NEGLIGIBLE, c] == 0:
            candidate[b, found] = c
            found += 1
    count[b] = found
    if found == 0:
        for c in range(s.number[b, at.CLUSTERS]):
            if s.cluster[b, at.PLACED, c] == 0:
                place_cluster(s, b, c)


@kernel
def _step_rows(s: AllocatorState, candidate: I64, count: I64, action: I32, reward: F32, done: Bool) -> None:
    """Place the chosen cluster of every row."""
    for b in range(len(count)):
        reward[b], done[b] = 0.0, count[b] == 0
        if action[b] < 0 or count[b] == 0:
            continue
        if action[b] >= count[b]:
            s.number[b, at.INVALID] += 1
            continue
        before = s.constant[b, at.SAVED]
        place_cluster(s, b, candidate[b, action[b]])
        _offer(s, b, candidate, count)
        # What rounding to single precision loses is carried over, so that returns stay exact.
        earned = (s.constant[b, at.SAVED] - before) / s.constant[b, at.SLOW_LATENCY] + s.constant[b, at.CARRY]
        reward[b], done[b] = earned, count[b] == 0
        s.constant[b, at.CARRY] = earned - reward[b]
