"""Builds a plan run by run: bus time for its copies, an offset for its bytes, or a shorter run, or none."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

import numpy as np

from schedrl.arrays import F64, I8, I64
from schedrl.baselines.memmap.packing_rules import best_greedy_packing
from schedrl.baselines.memmap.residence_runs import Run
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.packing import OffsetPackingInstance
from schedrl.envs.memmap.plan import MemoryPlan

__all__ = ["PlanBuilder"]

# Service times are computed in another order than the checker's; this share of all bus time covers the difference.
_ROUNDING = 1e-10


@dataclass(frozen=True, slots=True)
class _Piece:
    """A run with its residence and copies; ``serve`` holds (begin, end, copy) in seconds of bus time."""

    run: Run
    first: int
    last: int
    serve: tuple[tuple[float, float, tuple[int, int, int, int, int]], ...]
    valid_from: int | None
    """operation from which the slow copy is valid, where the run decides that"""


@dataclass(slots=True)
class PlanBuilder:
    """Places runs one after another against a supply of bus time; what is placed stays.

    Args:
        instance: the program.
        supply_s: (T,) seconds of copying that each operation hides.
        grows: whether supply grows with each access that leaves the slow layer; otherwise it is what the whole plan
            is assumed to offer.
        repacks: how often all offsets of a layer may be chosen anew to make room for a run.
    """

    instance: MemoryMapInstance
    supply_s: F64
    grows: bool = False
    repacks: int = 0
    _served: list[float] = field(init=False)
    _busy: list[tuple[float, float, tuple[int, int, int, int, int]]] = field(init=False, default_factory=list)
    _pieces: list[_Piece] = field(init=False, default_factory=list)
    _rows: dict[int, I64] = field(init=False)
    _filled: dict[int, int] = field(init=False)
    _valid_from: list[int] = field(init=False)
    _under_way: I64 = field(init=False)
    _accesses: list[list[int]] = field(init=False)
    _layer: I8 = field(init=False)

    def __post_init__(self) -> None:
        instance = self.instance
        self._served = [0.0, *np.cumsum(self.supply_s).tolist()]
        # Columns: first and last operation, offset, end of the bytes, piece.
        self._rows = {layer: np.zeros((64, 5), dtype=np.int64) for layer in range(1, instance.layers)}
        self._filled = dict.fromkeys(self._rows, 0)
        self._valid_from = (instance.definition + 1).tolist()
        self._under_way = np.zeros((2, instance.ops + 1), dtype=np.int64)
        self._layer = np.zeros(instance.accesses, dtype=np.int8)
        offset, order = instance.by_buffer
        self._accesses = [order[offset[b] : offset[b + 1]].tolist() for b in range(instance.buffers)]

    def place(self, runs: list[Run]) -> bool:
        """Place runs that belong together at one offset of one layer, all of them or none.

        A run that begins with its buffer's definition must come before the other runs of that buffer.
        """
        pieces: list[_Piece] = []
        for run in runs:
            piece = self._timed(run)
            if piece is None:
                break
            pieces.append(piece)
            self._reserve(piece)
        else:
            offset = self._offset(pieces)
            if offset is not None:
                for piece in pieces:
                    self._keep(piece, offset)
                return True
        for piece in reversed(pieces):
            self._release(piece)
        return False

    def place_shortened(self, run: Run) -> bool:
        """Place a run with as many of its accesses as possible, dropping the last ones."""
        accesses = run.accesses
        group = self.instance.access_group
        assert group is not None
        while accesses:
            if self.place([Run(buffer=run.buffer, layer=run.layer, made=run.made, accesses=accesses)]):
                return True
            last = self.instance.access_op[accesses[-1]]
            if any(group[access] >= 0 for access in accesses):
                return False
            accesses = tuple(access for access in accesses if self.instance.access_op[access] < last)
        return False

    def serves(self, buffer: int) -> bool:
        """Return whether any access of a buffer is in a fast layer."""
        return bool((self._layer[self._accesses[buffer]] > 0).any())

    def plan(self) -> MemoryPlan:
        """Return the plan so far, copies in the order in which the bus serves them."""
        rows: list[tuple[int, int, int, int, int]] = []
        offsets = {
            int(row[4]): int(row[2]) for number, table in self._rows.items() for row in table[: self._filled[number]]
        }
        for index, piece in enumerate(self._pieces):
            rows.append((piece.run.buffer, piece.run.layer, offsets[index], piece.first, piece.last))
        copies = [copy for _, _, copy in self._busy]
        return MemoryPlan(
            access_layer=self._layer, residences=np.array(rows, dtype=np.int64), copies=np.array(copies, dtype=np.int64)
        )

    def _timed(self, run: Run) -> _Piece | None:
        """Return the run with the latest copy in, or the earliest copy out, that bus time allows."""
        instance, buffer = self.instance, run.buffer
        slow = instance.memory.layers[0]
        first, last = (int(instance.access_op[access]) for access in (run.accesses[0], run.accesses[-1]))
        if not run.made:
            seconds = float(instance.size[buffer]) / slow.read_bytes_per_s
            begin = self._latest(self._valid_from[buffer], first, seconds)
            if begin is None:
                return None
            start = self._op_at(begin)
            copy = (buffer, 1, run.layer, start - 1, first)
            if start < self._valid_from[buffer] or not self._may_start(copy):
                return None
            return _Piece(run, start, last, ((begin, begin + seconds, copy),), None)
        others = set(self._accesses[buffer]) - set(run.accesses)
        if not others and not instance.output[buffer]:
            return _Piece(run, first, last, (), None)
        seconds = float(instance.size[buffer]) / slow.write_bytes_per_s
        begin = self._earliest(first + 1, seconds)
        if begin is None:
            return None
        end = bisect.bisect_left(self._served, begin + seconds)
        start = min(self._op_at(begin), end - 1)
        if end > instance.ops or any(instance.access_op[access] < end for access in others):
            return None
        copy = (buffer, 0, run.layer, max(start, first + 1) - 1, end)
        if not self._may_start(copy):
            return None
        return _Piece(run, first, max(last, end - 1), ((begin, begin + seconds, copy),), end)

    def _op_at(self, moment: float) -> int:
        """Return the operation that hides a moment of bus time."""
        return bisect.bisect_right(self._served, moment) - 1

    def _latest(self, first: int, use: int, seconds: float) -> float | None:
        """Return the latest free begin of service between two operations."""
        slack = _ROUNDING * self._served[-1]
        end, floor = self._served[use] - slack, self._served[first]
        index = bisect.bisect_left(self._busy, (end,))
        while True:
            before = self._busy[index - 1][1] if index else 0.0
            if end - max(before, floor) >= seconds:
                return end - seconds
            if index == 0 or before <= floor:
                return None
            index -= 1
            end = min(end, self._busy[index][0])

    def _earliest(self, first: int, seconds: float) -> float | None:
        """Return the earliest free begin of service from an operation on."""
        slack = _ROUNDING * self._served[-1]
        if first >= len(self._served):
            return None
        begin = self._served[first]
        index = bisect.bisect_left(self._busy, (begin,))
        if index:
            begin = max(begin, self._busy[index - 1][1])
        while index < len(self._busy) and self._busy[index][0] - begin < seconds:
            begin = max(begin, self._busy[index][1])
            index += 1
        return begin if begin + seconds <= self._served[-1] - slack else None

    def _may_start(self, copy: tuple[int, int, int, int, int]) -> bool:
        _, inward, _, start, end = copy
        return int(self._under_way[inward, start + 1 : end].max(initial=0)) < self.instance.memory.outstanding_copies

    def _reserve(self, piece: _Piece) -> None:
        for entry in piece.serve:
            bisect.insort(self._busy, entry)
            _, inward, _, start, end = entry[2]
            self._under_way[inward, start + 1 : end] += 1
        if piece.valid_from is not None:
            self._valid_from[piece.run.buffer] = piece.valid_from
        elif piece.run.made:
            self._valid_from[piece.run.buffer] = self.instance.ops + 1

    def _release(self, piece: _Piece) -> None:
        for entry in piece.serve:
            self._busy.remove(entry)
            _, inward, _, start, end = entry[2]
            self._under_way[inward, start + 1 : end] -= 1
        if piece.run.made:
            self._valid_from[piece.run.buffer] = int(self.instance.definition[piece.run.buffer]) + 1

    def _offset(self, pieces: list[_Piece]) -> int | None:
        """Return the lowest offset that is free for all pieces, after choosing all others anew if need be."""
        layer = pieces[0].run.layer
        if not self._compatible(pieces):
            return None
        found = self._lowest(layer, pieces)
        if found is None and self.repacks > 0 and len(pieces) == 1 and self.instance.groups == 0:
            found = self._repacked(layer, pieces[0])
        return found

    def _compatible(self, pieces: list[_Piece]) -> bool:
        """Whether pieces at one offset meet at most where an alias group hands over."""
        group, op, buffer = self.instance.access_group, self.instance.access_op, self.instance.access_buffer
        assert group is not None
        for k, one in enumerate(pieces):
            for two in pieces[:k]:
                first, last = max(one.first, two.first), min(one.last, two.last)
                if first > last:
                    continue
                own = op == first
                shared = set(group[own & (buffer == one.run.buffer)].tolist()) & set(
                    group[own & (buffer == two.run.buffer)].tolist()
                )
                if first != last or one.run.buffer == two.run.buffer or not shared - {-1}:
                    return False
        return True

    def _lowest(self, layer: int, pieces: list[_Piece]) -> int | None:
        place = self.instance.memory.layers[layer]
        unit, rows = place.alignment_bytes, self._rows[layer][: self._filled[layer]]
        barred: list[tuple[int, int]] = []
        largest = 0
        for piece in pieces:
            size = int(self.instance.size[piece.run.buffer])
            largest = max(largest, size)
            near = rows[(rows[:, 0] <= piece.last) & (rows[:, 1] >= piece.first)]
            barred += zip((near[:, 2] - size).tolist(), near[:, 3].tolist(), strict=True)
        offset = 0
        for low, high in sorted(barred):
            if low >= offset:
                break
            if offset < high:
                offset = -(-high // unit) * unit
        return offset if offset + largest <= (place.capacity_bytes or 0) else None

    def _repacked(self, layer: int, piece: _Piece) -> int | None:
        """Return an offset for the piece after packing the whole layer anew, if that fits."""
        place, count = self.instance.memory.layers[layer], self._filled[layer]
        rows = self._rows[layer][:count]
        size = int(self.instance.size[piece.run.buffer])
        lower, upper = np.append(rows[:, 0], piece.first), np.append(rows[:, 1], piece.last) + 1
        change = np.zeros(self.instance.ops + 1, dtype=np.int64)
        sizes = np.append(rows[:, 3] - rows[:, 2], size)
        np.add.at(change, lower, sizes)
        np.add.at(change, upper, -sizes)
        if int(np.cumsum(change).max()) > (place.capacity_bytes or 0):
            return None
        self.repacks -= 1
        packing = OffsetPackingInstance(
            name="layer",
            lower=lower,
            upper=upper,
            size=sizes,
            alignment=np.full(count + 1, place.alignment_bytes),
        )
        offsets = best_greedy_packing(packing)
        if int((offsets + sizes).max()) > (place.capacity_bytes or 0):
            return None
        rows[:, 2], rows[:, 3] = offsets[:-1], (offsets + sizes)[:-1]
        return int(offsets[-1])

    def _keep(self, piece: _Piece, offset: int) -> None:
        layer, size = piece.run.layer, int(self.instance.size[piece.run.buffer])
        count = self._filled[layer]
        if count == len(self._rows[layer]):
            self._rows[layer] = np.concatenate([self._rows[layer], np.zeros_like(self._rows[layer])])
        self._rows[layer][count] = (piece.first, piece.last, offset, offset + size, len(self._pieces))
        self._filled[layer] = count + 1
        self._pieces.append(piece)
        accesses = list(piece.run.accesses)
        self._layer[accesses] = layer
        if self.grows and self.instance.memory.supply == "idle":
            for op in sorted(set(self.instance.access_op[accesses].tolist())):
                self._grow(op)

    def _grow(self, op: int) -> None:
        """Raise the supply of an operation to what its accesses leave now; all service after it moves on by as much."""
        more = _hidden_s(self.instance, op, self._layer) - float(self.supply_s[op])
        if more <= 0.0:
            return
        self.supply_s[op] += more
        after = self._served[op + 1]
        self._served[op + 1 :] = [moment + more for moment in self._served[op + 1 :]]
        index = bisect.bisect_left(self._busy, (after,))
        self._busy[index:] = [(begin + more, end + more, copy) for begin, end, copy in self._busy[index:]]


def _hidden_s(instance: MemoryMapInstance, op: int, access_layer: I8) -> float:
    """Return the seconds of copying that one operation hides over all its trips."""
    assert instance.trips is not None and instance.access_bytes is not None
    slow_s, fast_s, slow_bytes, total = 0.0, 0.0, 0, 0
    for access in range(instance.op_offset[op], instance.op_offset[op + 1]):
        layer = instance.memory.layers[access_layer[access]]
        moved = int(instance.access_bytes[access])
        seconds = moved / (layer.write_bytes_per_s if instance.access_write[access] else layer.read_bytes_per_s)
        total += moved
        if access_layer[access] == 0:
            slow_s += seconds
            slow_bytes += moved
        else:
            fast_s += seconds
    compute_s = float(instance.compute[op])
    overhead_s = min(instance.memory.overhead_window_bytes, slow_bytes) / max(total, 1) * compute_s
    return int(instance.trips[op]) * (max(compute_s, slow_s + fast_s + overhead_s) - slow_s)
