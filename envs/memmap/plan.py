"""The memory plan: the layer of every access, where buffers reside in fast layers, and the copies that feed them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from schedrl.arrays import I8, I64
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.errors import SolutionError

__all__ = ["COPY_FIELDS", "RESIDENCE_FIELDS", "MemoryPlan", "slow_plan"]

SCHEMA = "schedrl/memory-plan/1"
RESIDENCE_FIELDS = ("buffer", "layer", "offset", "first", "last")
COPY_FIELDS = ("buffer", "inward", "layer", "start", "end")


@dataclass(frozen=True, kw_only=True, eq=False)
class MemoryPlan:
    """Who is where, and when.

    A **residence** is a buffer at one offset of a fast layer from operation ``first`` to operation ``last``, both
    included. A **copy** moves a buffer from the slow layer into a fast one (``inward`` 1) or back (0); it begins after
    operation ``start`` (-1: before the first) and must be complete before operation ``end``, so that operations
    ``start + 1`` to ``end - 1`` can hide it. Copies are served first come, first served: by ``start``, then in the
    order of their rows.

    Construction checks shapes only; whether a plan obeys an instance is for ``check_plan`` to say.

    Raises:
        SolutionError: an array has the wrong shape or holds other things than integers.
    """

    access_layer: I8  # (A,) memory layer that serves each access, 0 is the slow one
    residences: I64  # (R, 5) columns RESIDENCE_FIELDS
    copies: I64  # (K, 5) columns COPY_FIELDS

    def __post_init__(self) -> None:
        for field, columns in (("access_layer", 0), ("residences", 5), ("copies", 5)):
            values = np.asarray(getattr(self, field))
            if columns and not values.size:
                values = np.zeros((0, columns), dtype=np.int64)
            shape = values.ndim == 2 and values.shape[1] == columns if columns else values.ndim == 1
            if not shape or (values.size and values.dtype.kind not in "iu"):
                raise SolutionError(f"plan: field {field}: expected integers in {columns or 1} columns")
            if not columns and values.size and not 0 <= int(values.min()) <= int(values.max()) < 127:
                raise SolutionError(f"plan: field {field}: expected layers 0 to 126")
            frozen = np.array(values, dtype=np.int64 if columns else np.int8)
            frozen.flags.writeable = False
            object.__setattr__(self, field, frozen)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MemoryPlan):
            return NotImplemented
        return all(np.array_equal(getattr(self, field), getattr(other, field)) for field in _FIELDS)

    def __hash__(self) -> int:
        return hash((self.access_layer.tobytes(), self.residences.tobytes()))

    def to_json(self) -> str:
        """Return versioned JSON."""
        return json.dumps({"schema": SCHEMA, **{field: getattr(self, field).tolist() for field in _FIELDS}})

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> Self:
        """Read ``to_json`` output.

        Raises:
            SolutionError: not JSON, another schema, or a field that does not hold rows of integers.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SolutionError(f"{source}: not valid JSON: {error}") from None
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise SolutionError(f"{source}: field schema: expected {SCHEMA!r}")
        arrays = {field: _rows(data.get(field), width, f"{source}: field {field}") for field, width in _FIELDS.items()}
        try:
            return cls(**arrays)
        except SolutionError as error:
            raise SolutionError(f"{source}: {error}") from None

    def to_csv(self, instance: MemoryMapInstance) -> str:
        """Return CSV lines ``buffer,layer,offset,first,last``, one per residence."""
        names = [layer.name for layer in instance.memory.layers]
        rows = [
            f"{instance.buffer_labels[buffer]},{names[layer]},{offset},{first},{last}"
            for buffer, layer, offset, first, last in self.residences.tolist()
        ]
        return "\n".join([",".join(RESIDENCE_FIELDS), *rows]) + "\n"


_FIELDS = {"access_layer": 0, "residences": 5, "copies": 5}


def slow_plan(instance: MemoryMapInstance) -> MemoryPlan:
    """Return the plan that leaves everything in the slow layer: always valid."""
    none = np.zeros((0, 5), dtype=np.int64)
    return MemoryPlan(access_layer=np.zeros(instance.accesses, dtype=np.int8), residences=none, copies=none)


def _rows(values: Any, width: int, where: str) -> np.ndarray[Any, Any]:
    rows: Sequence[Any] = values if isinstance(values, list) else [None]
    cells = [cell for row in rows for cell in (row if isinstance(row, list) else [row])]
    if any(type(cell) is not int or abs(cell) > 2**60 for cell in (cells if width else rows)):
        raise SolutionError(f"{where}: expected integers, got {values!r:.40}")
    if width and any(not isinstance(row, list) or len(row) != width for row in rows):
        raise SolutionError(f"{where}: expected rows of {width} integers")
    return np.array(cells, dtype=np.int64).reshape(-1, width) if width else np.array(cells, dtype=np.int64)
