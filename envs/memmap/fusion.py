"""Fusion of elementwise operations into their neighbours, as compilers do before they plan memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["fuse"]

_LABEL_PARTS = 4
_KNOWN = frozenset({"flops", "reads", "writes", "read_bytes", "write_bytes", "pointwise", "label"})


@dataclass(slots=True, kw_only=True)
class _Op:
    flops: float
    reads: dict[int, int]  # buffer -> bytes moved
    writes: dict[int, int]
    pointwise: bool
    labels: list[str]
    rest: dict[str, Any]  # what has no sum, such as a measured time: such an operation stays as it is


def fuse(program: Mapping[str, Any]) -> dict[str, Any]:
    """Return the program with its elementwise operations merged into producers and consumers.

    An operation marked ``pointwise`` merges with another one when a buffer between them has no other reader and is no
    output; that buffer vanishes, reads of one buffer merge (at most its size in bytes), FLOPs add up. A merged
    operation contains at most one that is not pointwise: elementwise operations before it are computed while its
    operands are read, those after it on its result, which must have as many elements as theirs. These are XLA's loop,
    input and output fusions without the duplication of producers that have several consumers. An elementwise operation
    without operands is a constant: it is recomputed where it is used. A merged operation stands in the place of its
    first part where the operands of the second are there by then, which is how updates of parameters move next to
    their gradients; otherwise in the place of its second part, or the two are left apart. An operation that says more
    than trace does, such as a measured time or alias groups, is left as it is.

    Args:
        program: as from ``trace``: ``name``, ``ops`` with ``flops``, ``reads``, ``writes`` and ``pointwise``, and
            ``buffers`` with ``size`` in bytes, ``output`` and ``elements`` (its bytes by default).

    Returns:
        A program of the same form, in single-assignment order. Fusing it again changes nothing.
    """
    graph = _Graph(program)
    graph.fold_constants()
    while graph.merge_all():
        pass
    return graph.program()


class _Graph:
    """Operations by slot; a slot whose operation has merged into another one is empty."""

    def __init__(self, program: Mapping[str, Any]) -> None:
        self._rest = {key: value for key, value in program.items() if key not in ("ops", "buffers")}
        self._buffers: list[dict[str, Any]] = [dict(buffer) for buffer in program["buffers"]]
        self._slots: list[_Op | None] = [self._op(op, t) for t, op in enumerate(program["ops"])]
        self._producer: dict[int, int] = {}  # buffer -> slot
        self._readers: dict[int, set[int]] = {b: set() for b in range(len(self._buffers))}  # buffer -> slots
        for slot in range(len(self._slots)):
            self._connect(slot)

    def _op(self, op: Mapping[str, Any], position: int) -> _Op:
        sizes = [buffer["size"] for buffer in self._buffers]
        reads, writes = op.get("reads", []), op.get("writes", [])
        return _Op(
            flops=op["flops"],
            reads=dict(zip(reads, op.get("read_bytes", [sizes[b] for b in reads]), strict=True)),
            writes=dict(zip(writes, op.get("write_bytes", [sizes[b] for b in writes]), strict=True)),
            pointwise=bool(op.get("pointwise", False)),
            labels=[str(op.get("label", position))],
            rest={key: value for key, value in op.items() if key not in _KNOWN},
        )

    def _connect(self, slot: int) -> None:
        op = self._op_in(slot)
        for buffer in op.reads:
            self._readers[buffer].add(slot)
        self._producer.update(dict.fromkeys(op.writes, slot))

    def _remove(self, slot: int) -> _Op:
        op = self._op_in(slot)
        for buffer in op.reads:
            self._readers[buffer].discard(slot)
        for buffer in op.writes:
            del self._producer[buffer]
        self._slots[slot] = None
        return op

    def _live(self) -> Iterator[tuple[int, _Op]]:
        return ((slot, op) for slot, op in enumerate(self._slots) if op is not None)

    def _is_output(self, buffer: int) -> bool:
        return bool(self._buffers[buffer].get("output", False))

    def fold_constants(self) -> None:
        for slot, op in list(self._live()):
            readers = [(b, self._op_in(reader)) for b in op.writes for reader in self._readers[b]]
            whole = not op.rest and not any(reader.rest for _, reader in readers)
            if not op.pointwise or op.reads or op.flops or not whole or any(map(self._is_output, op.writes)):
                continue
            for buffer, reader in readers:
                del reader.reads[buffer]
                self._readers[buffer].clear()
            self._remove(slot)

    def _op_in(self, slot: int) -> _Op:
        op = self._slots[slot]
        assert op is not None
        return op

    def merge_all(self) -> bool:
        merged = False
        for slot in range(len(self._slots)):
            place: int | None = slot
            while place is not None and self._slots[place] is not None:
                place = self._merge_one(place)
                merged |= place is not None
        return merged

    def _merge_one(self, second: int) -> int | None:
        """Merge one producer into the operation of a slot and return the slot of both, None without a candidate."""
        op = self._op_in(second)
        # The latest producer first: its buffer is the one that a compiler would keep in registers.
        producers = sorted({self._producer[b] for b in op.reads if b in self._producer}, reverse=True)
        for first in producers:
            if self._fusible(first, second) and (place := self._place(first, second)) is not None:
                self._merge(first, second, place)
                return place
        return None

    def _fusible(self, first: int, second: int) -> bool:
        producer, consumer = self._op_in(first), self._op_in(second)
        between = [b for b in producer.writes if self._readers[b] == {second} and not self._is_output(b)]
        if not between or not (producer.pointwise or consumer.pointwise) or producer.rest or consumer.rest:
            return False
        return producer.pointwise or self._most_elements(between) >= self._most_elements(consumer.writes)

    def _most_elements(self, buffers: Iterable[int]) -> int:
        counts: list[Any] = [self._buffers[b].get("elements", self._buffers[b]["size"]) for b in buffers]
        return int(max(counts))

    def _place(self, first: int, second: int) -> int | None:
        producer, consumer = self._op_in(first), self._op_in(second)
        if all(self._producer.get(b, -1) <= first for b in consumer.reads):
            return first
        if all(reader >= second for b in producer.writes for reader in self._readers[b]):
            return second
        return None

    def _merge(self, first: int, second: int, place: int) -> None:
        producer, consumer = self._remove(first), self._remove(second)
        reads = dict(producer.reads)
        for buffer, moved in consumer.reads.items():
            if buffer not in producer.writes:
                reads[buffer] = min(self._buffers[buffer]["size"], reads.get(buffer, 0) + moved)
        kept = {b: moved for b, moved in producer.writes.items() if self._readers[b] or self._is_output(b)}
        self._slots[place] = _Op(
            flops=producer.flops + consumer.flops,
            reads=reads,
            writes=kept | consumer.writes,
            pointwise=producer.pointwise and consumer.pointwise,
            labels=producer.labels + consumer.labels,
            rest={},
        )
        self._connect(place)

    def program(self) -> dict[str, Any]:
        ops = [op for _, op in self._live()]
        used = {b for op in ops for b in (*op.reads, *op.writes)}
        inputs = [b for b in range(len(self._buffers)) if b in used and b not in self._producer]
        order = inputs + [b for op in ops for b in op.writes]
        number = {buffer: index for index, buffer in enumerate(order)}
        return self._rest | {
            "ops": [self._plain(op, number) for op in ops],
            "buffers": [self._buffers[b] for b in order],
        }

    def _plain(self, op: _Op, number: Mapping[int, int]) -> dict[str, Any]:
        labels = op.labels if len(op.labels) <= _LABEL_PARTS else [*op.labels[:_LABEL_PARTS], "..."]
        plain: dict[str, Any] = {
            "flops": op.flops,
            "reads": [number[b] for b in op.reads],
            "writes": [number[b] for b in op.writes],
            "label": "+".join(labels),
        }
        for key, moved in (("read_bytes", op.reads), ("write_bytes", op.writes)):
            if any(self._buffers[b]["size"] != count for b, count in moved.items()):
                plain[key] = list(moved.values())
        return plain | ({"pointwise": True} if op.pointwise else {}) | op.rest
