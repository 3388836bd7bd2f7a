"""The arrays of the offset-packing game: what an instance fixes, and what changes while buffers are placed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from schedrl.arrays import F64, I32, I64, Bool
from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing, check_packing, max_live
from schedrl.errors import ConfigError
from schedrl.kernel_arguments import by_reference

__all__ = ["TIES", "Room", "State", "allocate", "room_of", "write_instance"]

TIES = ("size", "area", "duration", "conflicts")
_PREPARED = "_packing_game"


class Room(NamedTuple):
    """Sizes of the arrays: the most of everything in any instance."""

    buffers: int  # N
    sections: int  # S
    parts: int  # Q


@by_reference
class State(NamedTuple):
    """All arrays of a batch. Buffers have numbers of their own, in the order in which ties are broken.

    A section is a time at which the set of live buffers is maximal; sections are in order of time. A part is a
    rectangle of live bytes, its first and last section as a half-open range; a buffer without gaps has one.
    """

    buffers: I32  # (B,)
    sections: I32  # (B,)
    number: I32  # (B, N) number in the instance
    size: I64  # (B, N)
    alignment: I64  # (B, N)
    given: I64  # (B, N) fixed offset, 0 where free
    first: I32  # (B, N) first section of the buffer
    last: I32  # (B, N) one after its last
    part_offset: I32  # (B, N + 1)
    part_first: I32  # (B, Q)
    part_last: I32  # (B, Q)
    part_low: I64  # (B, Q) first live byte, relative to the offset
    part_high: I64  # (B, Q) one after the last
    plain: Bool  # (B, N) one part, which is the whole buffer
    windowed: Bool  # (B, N) some part is not the whole size
    fixed: I32  # (B,) buffers that are placed before the first decision
    obstacles: I32  # (B,) buffers that others can lie below though placed later: the fixed and the windowed ones
    scan: I32  # (B, N) the fixed buffers, the other obstacles, and all the rest
    live_bytes: I64  # (B, S) bytes live in a section
    unit: I64  # (B,) most bytes live at once, at least 1
    overlaps: I32  # (B, N) buffers that share a section with it
    begin: F64  # (B, N) share of the time before the buffer is live
    end: F64  # (B, N) share of the time before it is no longer live
    area: F64  # (B, N) size times lifetime, per that of all buffers
    offset: I64  # (B, N) -1 while unplaced
    lowest: I64  # (B, N) lowest feasible offset, given what is placed
    conflicts: I32  # (B, N) unplaced buffers that share a section with it
    unplaced: I32  # (B, N) unplaced buffers in order of their numbers
    order: I32  # (B, N) the same by lowest feasible offset
    moved: Bool  # (B, N) scratch
    changed: I32  # (B, N) scratch
    waiting: I32  # (B,) fixed buffers not yet placed
    left: I32  # (B,) length of ``unplaced``
    left_bytes: I64  # (B, S) unplaced live bytes in a section
    top: I64  # (B, S) end of the highest placed bytes
    pressure: I64  # (B, S) byte that every completion reaches in the section
    stale_first: I32  # (B,) first section whose pressure is out of date
    stale_last: I32  # (B,) one after the last
    following: I32  # (B, S + 1) scratch: sections that no buffer has covered
    area_left: F64  # (B,)
    peak: I64  # (B,) highest end of a placed buffer
    bound: I64  # (B,) on the peak of every completion
    least_end: I64  # (B,) lowest end that an unplaced buffer can have
    pending: I32  # (B,) buffer to be placed next, -1 for none
    candidates: I32  # (B,) length of the prefix of ``order`` on offer, 0 once finished
    moves_on: Bool  # (B,)
    paid: F64  # (B,) rewards so far
    invalid: I32  # (B,)


def allocate(batch: int, room: Room) -> State:
    """Return zeroed arrays for ``batch`` rows."""
    n, s, q = room

    def i32(*shape: int) -> I32:
        return np.zeros((batch, *shape), dtype=np.int32)

    def i64(*shape: int) -> I64:
        return np.zeros((batch, *shape), dtype=np.int64)

    def f64(*shape: int) -> F64:
        return np.zeros((batch, *shape), dtype=np.float64)

    def truth(*shape: int) -> Bool:
        return np.zeros((batch, *shape), dtype=np.bool_)

    return State(
        buffers=i32(),
        sections=i32(),
        number=i32(n),
        size=i64(n),
        alignment=i64(n),
        given=i64(n),
        first=i32(n),
        last=i32(n),
        part_offset=i32(n + 1),
        part_first=i32(q),
        part_last=i32(q),
        part_low=i64(q),
        part_high=i64(q),
        plain=truth(n),
        windowed=truth(n),
        fixed=i32(),
        obstacles=i32(),
        scan=i32(n),
        live_bytes=i64(s),
        unit=i64(),
        overlaps=i32(n),
        begin=f64(n),
        end=f64(n),
        area=f64(n),
        offset=i64(n),
        lowest=i64(n),
        conflicts=i32(n),
        unplaced=i32(n),
        order=i32(n),
        moved=truth(n),
        changed=i32(n),
        waiting=i32(),
        left=i32(),
        left_bytes=i64(s),
        top=i64(s),
        pressure=i64(s),
        stale_first=i32(),
        stale_last=i32(),
        following=i32(s + 1),
        area_left=f64(),
        peak=i64(),
        bound=i64(),
        least_end=i64(),
        pending=i32(),
        candidates=i32(),
        moves_on=truth(),
        paid=f64(),
        invalid=i32(),
    )


def room_of(instances: Sequence[OffsetPackingInstance], ties: str) -> Room:
    """Return the room that instances need."""
    tables = [_prepared(instance, ties) for instance in instances]
    return Room(
        buffers=max(len(table["size"]) for table in tables),
        sections=max(len(table["live_bytes"]) for table in tables),
        parts=max(len(table["part_low"]) for table in tables),
    )


def write_instance(state: State, row: int, instance: OffsetPackingInstance, ties: str) -> None:
    """Write an instance into a row, with nothing placed.

    Raises:
        ConfigError: fixed buffers overlap, so that no packing exists.
    """
    for name, value in _prepared(instance, ties).items():
        array = getattr(state, name)
        if np.ndim(value):
            array[row, : len(value)] = value
        else:
            array[row] = value
    count, sections = instance.buffers, int(state.sections[row])
    free = np.sort(state.scan[row, state.fixed[row] : count])
    state.unplaced[row, : len(free)] = state.order[row, : len(free)] = free
    state.left[row], state.waiting[row] = len(free), state.fixed[row]
    state.offset[row, :count] = -1
    state.lowest[row, :count] = state.given[row, :count]
    state.conflicts[row, :count] = state.overlaps[row, :count]
    state.moved[row] = False
    state.left_bytes[row, :sections] = state.live_bytes[row, :sections]
    state.top[row] = 0
    state.stale_first[row], state.stale_last[row] = 0, sections
    ends = state.lowest[row, free] + state.size[row, free]
    state.least_end[row] = ends.min()
    state.area_left[row], state.paid[row] = 1.0, 0.0
    state.peak[row], state.bound[row] = 0, max(state.unit[row], ends.max())
    state.pending[row], state.invalid[row], state.moves_on[row] = -1, 0, True


def _prepared(instance: OffsetPackingInstance, ties: str) -> dict[str, Any]:
    # Beside the instance's own cached properties, so that it lives as long as the instance.
    tables: dict[str, dict[str, Any]] = instance.__dict__.setdefault(_PREPARED, {})
    if ties not in tables:
        tables[ties] = _prepare(instance, ties)
    return tables[ties]


def _prepare(instance: OffsetPackingInstance, ties: str) -> dict[str, Any]:
    _check_given(instance)
    start, end, low, high, owner = instance.live
    part_first, part_last, sections = _sections(start, end)
    count = instance.buffers
    span = np.zeros((2, count), dtype=np.int64)
    # Parts are in order of owner and time; a buffer that is never live has none.
    offset = np.searchsorted(owner, np.arange(count + 1))
    some = np.diff(offset) > 0
    span[0, some], span[1, some] = part_first[offset[:-1][some]], part_last[offset[1:][some] - 1]
    area: F64 = instance.size.astype(np.float64) * (instance.upper - instance.lower)
    overlaps = np.searchsorted(np.sort(span[0]), span[1]) - np.searchsorted(np.sort(span[1]), span[0], side="right") - 1
    order = _tie_order(instance, ties, area, overlaps)
    parts = np.concatenate([np.arange(offset[b], offset[b + 1]) for b in order.tolist()]).astype(np.int64)
    horizon = max(int(instance.upper.max() - instance.lower.min()), 1)
    change = np.zeros(sections + 1, dtype=np.int64)
    np.add.at(change, part_first, high - low)
    np.subtract.at(change, part_last, high - low)
    return {
        "buffers": count,
        "sections": sections,
        "number": order,
        "size": instance.size[order],
        **_rigid(instance, order),
        "first": span[0, order],
        "last": span[1, order],
        "part_offset": np.concatenate([[0], np.cumsum(np.diff(offset)[order])]),
        "part_first": part_first[parts],
        "part_last": part_last[parts],
        "part_low": low[parts],
        "part_high": high[parts],
        "live_bytes": np.cumsum(change)[:-1],
        "unit": max(max_live(instance), 1),
        "overlaps": np.where(some, np.maximum(overlaps, 0), 0)[order],
        "begin": ((instance.lower - instance.lower.min()) / horizon)[order],
        "end": ((instance.upper - instance.lower.min()) / horizon)[order],
        "area": (area / area.sum())[order],
    }


def _rigid(instance: OffsetPackingInstance, order: I64) -> dict[str, Any]:
    """Return what says where buffers may lie, and which of them others may lie below."""
    assert instance.alignment is not None and instance.fixed_offset is not None
    _, _, low, high, owner = instance.live
    whole = (low == 0) & (high == instance.size[owner])
    windowed = np.bincount(owner[~whole], minlength=instance.buffers)[order] > 0
    plain = (np.bincount(owner, minlength=instance.buffers)[order] == 1) & ~windowed
    fixed = instance.fixed_offset[order] >= 0
    kind = np.where(fixed, 0, np.where(windowed, 1, 2))
    return {
        "alignment": instance.alignment[order],
        "given": np.maximum(instance.fixed_offset[order], 0),
        "plain": plain,
        "windowed": windowed,
        # One buffer stays, so that every episode has a decision.
        "fixed": min(int(fixed.sum()), instance.buffers - 1),
        "obstacles": int((kind < 2).sum()),
        "scan": np.argsort(kind, kind="stable"),
    }


def _sections(start: I64, end: I64) -> tuple[I64, I64, int]:
    """Return the first section of each interval, one after its last, and the number of sections."""
    if not len(start):
        return start, end, 1
    starts, ends = np.unique(start), np.sort(end)
    # A live set is maximal where, after a start, something ends before the next start.
    ending = ends[np.searchsorted(ends, starts, side="right")]
    instants = starts[np.append(ending[:-1] <= starts[1:], True)]
    return np.searchsorted(instants, start), np.searchsorted(instants, end), len(instants)


def _tie_order(instance: OffsetPackingInstance, ties: str, area: F64, overlaps: I64) -> I64:
    duration = instance.upper - instance.lower
    keys: dict[str, Any] = {"size": instance.size, "area": area, "duration": duration, "conflicts": overlaps}
    return np.lexsort((-area, -duration, -instance.size, -keys[ties])).astype(np.int64)


def _check_given(instance: OffsetPackingInstance) -> None:
    assert instance.fixed_offset is not None and instance.gaps is not None and instance.gap_offset is not None
    chosen = np.flatnonzero(instance.fixed_offset >= 0)
    if not len(chosen):
        return
    first, length = instance.gap_offset[chosen], np.diff(instance.gap_offset)[chosen]
    part = OffsetPackingInstance(
        name=instance.name,
        lower=instance.lower[chosen],
        upper=instance.upper[chosen],
        size=instance.size[chosen],
        gap_offset=np.concatenate([[0], np.cumsum(length)]).astype(np.int32),
        gaps=np.concatenate([instance.gaps[f : f + n] for f, n in zip(first, length, strict=True)]),
        labels=tuple(instance.labels[b] for b in chosen),
    )
    if found := check_packing(part, Packing(offset=instance.fixed_offset[chosen])):
        raise ConfigError(f"instance {instance.name} has no packing: of given offsets, {found[0]}")
