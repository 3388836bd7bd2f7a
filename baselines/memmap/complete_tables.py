"""Offset packing as the complete search sees it: cliques instead of times, pairs that meet, and one common unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from schedrl.arrays import F64, I32, I64, Bool
from schedrl.baselines.memmap.packing_outcomes import offset_unit
from schedrl.envs.memmap.packing import OffsetPackingInstance
from schedrl.kernel_arguments import by_reference

__all__ = ["MAX_BUFFERS", "MAX_PAIRS", "Component", "Tables", "components", "order_of", "reordered", "searchable"]

MAX_BUFFERS = 4096
"""the search's stack of groups takes memory in the square of the buffers"""
MAX_PAIRS = 2_000_000
_ROWS = 256
_SMALL = 2**30


@by_reference
class Tables(NamedTuple):
    """The buffers in the order in which ties are broken, in units of a common divisor of all byte counts.

    Clique: a maximal set of buffers live at one instant; S cliques in order of time. P ordered pairs of buffers that
    meet in one, Q live parts of buffers.
    """

    size: Any  # (N,) int32 or int64, as all byte counts
    alignment: Any  # (N,)
    fixed: Any  # (N,) -1 where free
    twin_before: I32  # (N,) the nearest buffer before b that is interchangeable with it, -1 for none
    twin_after: I32  # (N,) likewise after b
    pair_offset: I64  # (N + 1,)
    pair: I32  # (P,) buffers that b meets: pair[pair_offset[b]:pair_offset[b + 1]], ascending
    above: Any  # (P,) least distance from b's offset to the other's when the other lies above
    below: Any  # (P,) least distance from the other's offset to b's when b lies above
    part_offset: I32  # (N + 1,)
    part_first: I32  # (Q,) first clique of a part
    part_last: I32  # (Q,) one after its last
    part_low: Any  # (Q,) its first byte in the buffer
    part_size: Any  # (Q,)
    first: I32  # (N,) first clique of the buffer
    last: I32  # (N,) one after its last


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Component:
    """Buffers connected in time, which are packed independently of all others."""

    buffers: I64  # (N,) their numbers in the instance
    tables: Tables  # in the order of the instance
    keys: Mapping[str, F64]
    """(N,) what orders are made of, by the letters of MiniMalloc: A area, C cliques, L lower, O overlaps, T most bytes
    of a clique, U upper, W width in time, Z size"""
    exact: bool
    """whether a search that finds nothing proves that there is nothing: not where two buffers with windows may lie in
    each other's byte ranges"""

    @property
    def bound(self) -> int:
        """Return the least peak that clique totals, sizes and given offsets allow, in units."""
        t = self.tables
        level = np.zeros(int(t.last.max()) + 1, np.int64)
        np.add.at(level, t.part_first, t.part_size)
        np.subtract.at(level, t.part_last, t.part_size)
        return max(int(np.cumsum(level).max()), int((t.size + np.maximum(t.fixed, 0)).max()))


def searchable(instance: OffsetPackingInstance) -> bool:
    """Return whether the tables of an instance stay small."""
    if instance.buffers > MAX_BUFFERS:
        return False
    started = np.searchsorted(np.sort(instance.lower), instance.upper, side="left")
    ended = np.searchsorted(np.sort(instance.upper), instance.lower, side="right")
    return int((started - ended - 1).sum()) <= MAX_PAIRS


def components(instance: OffsetPackingInstance) -> tuple[list[Component], int]:
    """Return the components and the unit in bytes. Buffers that are never live are in none of them."""
    assert instance.alignment is not None and instance.fixed_offset is not None
    start, end, low, high, owner = instance.live
    unit = offset_unit(instance)
    first, last = _cliques(start, end)
    parts = np.column_stack([first, last, low // unit, high // unit, owner]).astype(np.int64)
    # Gaps do not separate: the parts of a buffer share its offset.
    buffers, inverse = np.unique(owner, return_inverse=True)
    hull_first = np.full(len(buffers), np.iinfo(np.int64).max)
    hull_last = np.zeros(len(buffers), np.int64)
    np.minimum.at(hull_first, inverse, first)
    np.maximum.at(hull_last, inverse, last)
    order = np.argsort(hull_first, kind="stable")
    reach = np.maximum.accumulate(hull_last[order])
    breaks = np.flatnonzero(hull_first[order][1:] >= reach[:-1]) + 1
    found = [
        _component(instance, np.sort(buffers[members]), parts, unit)
        for members in np.split(order, breaks)
        if len(order)
    ]
    return found, unit


def _cliques(start: I64, end: I64) -> tuple[I64, I64]:
    """Return the first clique of each interval and one after its last."""
    if not len(start):
        return start, end
    starts, ends = np.unique(start), np.sort(end)
    # The live set is maximal at a start before which no later start, but an end, comes next.
    next_end = ends[np.searchsorted(ends, starts, side="right")]
    times = starts[np.append(next_end[:-1] <= starts[1:], True)]
    return np.searchsorted(times, start).astype(np.int64), np.searchsorted(times, end).astype(np.int64)


def _component(instance: OffsetPackingInstance, buffers: I64, parts: I64, unit: int) -> Component:
    assert instance.alignment is not None and instance.fixed_offset is not None
    count = len(buffers)
    part = parts[np.isin(parts[:, 4], buffers)]
    part[:, :2] -= part[:, 0].min()
    owner = np.searchsorted(buffers, part[:, 4])
    offset = np.searchsorted(owner, np.arange(count + 1))
    first, last = np.minimum.reduceat(part[:, 0], offset[:-1]), np.maximum.reduceat(part[:, 1], offset[:-1])
    size = instance.size[buffers] // unit
    alignment = np.maximum(instance.alignment[buffers] // unit, 1)
    fixed = np.where(instance.fixed_offset[buffers] >= 0, instance.fixed_offset[buffers] // unit, -1)
    i, j, above, below, exact = _pairs(part, owner, count)
    largest = int(size.sum()) + int(alignment.max()) * count + int(fixed.max())
    dtype: Any = np.int32 if largest < _SMALL else np.int64
    tables = Tables(
        size=size.astype(dtype),
        alignment=alignment.astype(dtype),
        fixed=fixed.astype(dtype),
        twin_before=np.full(count, -1, np.int32),
        twin_after=np.full(count, -1, np.int32),
        pair_offset=np.searchsorted(i, np.arange(count + 1)).astype(np.int64),
        pair=j.astype(np.int32),
        above=above.astype(dtype),
        below=below.astype(dtype),
        part_offset=offset.astype(np.int32),
        part_first=part[:, 0].astype(np.int32),
        part_last=part[:, 1].astype(np.int32),
        part_low=part[:, 2].astype(dtype),
        part_size=(part[:, 3] - part[:, 2]).astype(dtype),
        first=first.astype(np.int32),
        last=last.astype(np.int32),
    )
    return Component(buffers=buffers, tables=tables, keys=_keys(instance, buffers, tables), exact=exact)


def _pairs(part: I64, owner: I64, count: int) -> tuple[I64, I64, I64, I64, bool]:
    """Return the pairs of buffers that meet, sorted, their distances, and whether those say all."""
    rows, columns = [], []
    for k in range(0, len(part), _ROWS):
        some = part[k : k + _ROWS]
        meets = (some[:, :1] < part[:, 1]) & (part[:, 0] < some[:, 1:2]) & (owner[k : k + _ROWS, None] != owner)
        row, column = np.nonzero(meets)
        rows.append(row + k)
        columns.append(column)
    p, q = np.concatenate(rows), np.concatenate(columns)
    # The other's offset minus the buffer's own may not lie strictly between these two.
    least, most = part[p, 2] - part[q, 3], part[p, 3] - part[q, 2]
    exact = bool(((least < 0) & (most > 0)).all())
    key = owner[p] * count + owner[q]
    order = np.argsort(key, kind="stable")
    distinct, begin = np.unique(key[order], return_index=True)
    if not len(distinct):
        return distinct, distinct, distinct, distinct, True
    above = np.maximum(np.maximum.reduceat(most[order], begin), 0)
    below = np.maximum(-np.minimum.reduceat(least[order], begin), 0)
    return distinct // count, distinct % count, above, below, exact


def _keys(instance: OffsetPackingInstance, buffers: I64, tables: Tables) -> dict[str, F64]:
    lower, upper = instance.lower[buffers].astype(np.float64), instance.upper[buffers].astype(np.float64)
    total = np.zeros(int(tables.last.max()) + 1)
    np.add.at(total, tables.part_first, tables.part_size)
    np.subtract.at(total, tables.part_last, tables.part_size)
    total = np.cumsum(total)
    size = tables.size.astype(np.float64)
    return {
        "A": size * (upper - lower),
        "C": (tables.last - tables.first).astype(np.float64),
        "L": lower,
        "O": np.diff(tables.pair_offset).astype(np.float64),
        "T": np.array([total[s:e].max() for s, e in zip(tables.first, tables.last, strict=True)]),
        "U": upper,
        "W": upper - lower,
        "Z": size,
    }


def reordered(tables: Tables, order: I64) -> Tables:
    """Return tables whose buffer k is buffer ``order[k]`` of others, with the twins of that order."""
    count = len(order)
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    pairs, pair_offset = _gathered(tables.pair_offset, order)
    owner = np.repeat(np.arange(count), np.diff(pair_offset))
    pairs = pairs[np.lexsort((place[tables.pair[pairs]], owner))]
    parts, part_offset = _gathered(tables.part_offset, order)
    moved = Tables(
        size=tables.size[order],
        alignment=tables.alignment[order],
        fixed=tables.fixed[order],
        twin_before=np.full(count, -1, np.int32),
        twin_after=np.full(count, -1, np.int32),
        pair_offset=pair_offset,
        pair=place[tables.pair[pairs]].astype(np.int32),
        above=tables.above[pairs],
        below=tables.below[pairs],
        part_offset=part_offset.astype(np.int32),
        part_first=tables.part_first[parts],
        part_last=tables.part_last[parts],
        part_low=tables.part_low[parts],
        part_size=tables.part_size[parts],
        first=tables.first[order],
        last=tables.last[order],
    )
    whole = (np.diff(moved.part_offset) == 1) & (moved.part_size[moved.part_offset[:-1]] == moved.size)
    _link_twins(moved, whole & (moved.fixed < 0))
    return moved


def _gathered(offset: Any, order: I64) -> tuple[I64, I64]:
    """Return the indices of flat entries when their owners stand in another order, and the new offsets."""
    length = np.diff(offset)[order].astype(np.int64)
    moved = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    indices: I64 = np.arange(moved[-1]) + np.repeat(offset[:-1][order] - moved[:-1], length)
    return indices, moved


def _link_twins(tables: Tables, eligible: Bool) -> None:
    """Link the buffers, of those ``eligible``, that are live in the same cliques with equal size and alignment."""
    kind = (tables.first, tables.last, tables.size, tables.alignment)
    rank = np.arange(len(eligible))
    order = np.lexsort((rank, *kind))
    order = order[eligible[order]]
    alike = np.ones(max(len(order) - 1, 0), np.bool_)
    for values in kind:
        alike &= values[order][1:] == values[order][:-1]
    before, after = order[:-1][alike], order[1:][alike]
    tables.twin_before[after] = before
    tables.twin_after[before] = after


def order_of(component: Component, letters: Sequence[str], noise: float, rng: np.random.Generator) -> I64:
    """Return the buffers by descending keys, the first letter most important.

    Args:
        component: the buffers.
        letters: of ``component.keys``.
        noise: standard deviation of the factor's logarithm that each key is multiplied by.
        rng: source of the noise.
    """
    keys = [component.keys[letter] for letter in letters]
    if noise:
        keys = [key * np.exp(noise * rng.standard_normal(len(key))) for key in keys]
    return np.lexsort([-key for key in keys[::-1]]).astype(np.int64)
