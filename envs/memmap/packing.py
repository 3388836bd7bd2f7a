"""Offset packing, or dynamic storage allocation: buffers with fixed lifetimes, each at one offset of one memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from schedrl.arrays import I32, I64
from schedrl.errors import InstanceError, SolutionError

__all__ = ["MAX_BYTES", "OffsetPackingInstance", "Packing", "check_packing", "max_live"]

SCHEMA = "schedrl/offset-packing-instance/1"
SOLUTION_SCHEMA = "schedrl/offset-packing/1"
# Sums of all sizes stay exact in int64 and in float64.
MAX_BYTES = 2**52
MAX_LISTED = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class OffsetPackingInstance:
    """Place every buffer at one offset so that buffers live at the same time do not overlap; minimise the peak.

    A buffer is live in the half-open interval [lower, upper). A **gap** [start, end) inside it is a time when only
    bytes [window_low, window_high) of the buffer are live; (0, 0) when none are. Gaps are stored flat: buffer b owns
    ``gap_offset[b]:gap_offset[b + 1]``, in order of time and disjoint. (MiniMalloc, Moffitt, ASPLOS 2023.)

    Raises:
        InstanceError: a field breaks one of these rules; the message names buffer and value.
    """

    objective: ClassVar[str] = "peak"

    name: str
    lower: I64  # (N,) first instant of each buffer
    upper: I64  # (N,) first instant after it, > lower
    size: I64  # (N,) bytes, >= 1
    capacity: int | None = None
    """bytes of the memory; None when only the peak counts"""
    alignment: I64 | None = None  # (N,) every offset is a multiple of it; 1 by default
    fixed_offset: I64 | None = None  # (N,) given offset, -1 where free; all free by default
    hint: I64 | None = None  # (N,) offset of an earlier packing, -1 where none; no part of the problem
    gap_offset: I32 | None = None  # (N + 1,)
    gaps: I64 | None = None  # (G, 4) start, end, window_low, window_high
    labels: tuple[str, ...] = ()
    """names of the buffers in files and pictures, their numbers by default"""

    def __post_init__(self) -> None:
        count = len(np.atleast_1d(np.asarray(self.lower)))
        defaults: dict[str, Any] = {
            "lower": None,
            "upper": None,
            "size": None,
            "alignment": np.ones(count, np.int64),
            "fixed_offset": np.full(count, -1),
            "hint": np.full(count, -1),
            "gap_offset": np.zeros(count + 1, np.int64),
            "gaps": np.zeros((0, 4), np.int64),
        }
        for field, default in defaults.items():
            value = getattr(self, field)
            dtype = np.int32 if field == "gap_offset" else np.int64
            array = _frozen(default if value is None else value, dtype, f"{self.name}: field {field}")
            object.__setattr__(self, field, array)
        labels = tuple(self.labels) or tuple(map(str, range(count)))
        object.__setattr__(self, "labels", labels)
        _validate(self)

    @property
    def buffers(self) -> int:
        """Number of buffers N."""
        return len(self.size)

    @property
    def size_label(self) -> str:
        """Size group in tables."""
        return f"{self.buffers} buffers"

    @cached_property
    def live(self) -> tuple[I64, I64, I64, I64, I32]:
        """Rectangles of live bytes: start, end, low, high (relative to the offset) and buffer of each.

        A buffer without gaps is one rectangle; every gap adds the part of it that stays live, if any.
        """
        rows: list[tuple[int, int, int, int, int]] = []
        assert self.gap_offset is not None and self.gaps is not None
        gaps = self.gaps.tolist()
        first = self.gap_offset.tolist()
        for b, (lower, upper, size) in enumerate(
            zip(self.lower.tolist(), self.upper.tolist(), self.size.tolist(), strict=True)
        ):
            time = lower
            for start, end, low, high in gaps[first[b] : first[b + 1]]:
                if time < start:
                    rows.append((time, start, 0, size, b))
                if low < high:
                    rows.append((start, end, low, high, b))
                time = end
            if time < upper:
                rows.append((time, upper, 0, size, b))
        table = np.array(rows, dtype=np.int64).reshape(-1, 5)
        return table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 4].astype(np.int32)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OffsetPackingInstance):
            return NotImplemented
        same = (self.name, self.capacity, self.labels) == (other.name, other.capacity, other.labels)
        return same and all(np.array_equal(getattr(self, field), getattr(other, field)) for field in _ARRAYS)

    def __hash__(self) -> int:
        return hash((self.name, self.capacity, self.size.tobytes(), self.lower.tobytes()))

    def to_json(self) -> str:
        """Return versioned JSON."""
        arrays = {field: getattr(self, field).tolist() for field in _ARRAYS}
        head = {"schema": SCHEMA, "name": self.name, "capacity": self.capacity, "labels": list(self.labels)}
        return json.dumps(head | arrays)

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> Self:
        """Read ``to_json`` output.

        Raises:
            InstanceError: not JSON, another schema, or a bad field.
        """
        data = _json_of(text, SCHEMA, source, InstanceError)
        if not isinstance(data.get("name"), str):
            raise InstanceError(f"{source}: field name: expected str, got {data.get('name')!r:.40}")
        if data.get("capacity") is not None and type(data["capacity"]) is not int:
            raise InstanceError(f"{source}: field capacity: expected an integer or null, got {data['capacity']!r:.40}")
        labels = data.get("labels", [])
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise InstanceError(f"{source}: field labels: expected a list of str")
        arrays: dict[str, Any] = {
            field: _integers(data.get(field), f"{source}: field {field}", InstanceError) for field in _ARRAYS
        }
        arrays["gaps"] = arrays["gaps"] if arrays["gaps"].size else arrays["gaps"].reshape(-1, 4)
        try:
            return cls(name=data["name"], capacity=data.get("capacity"), labels=tuple(labels), **arrays)
        except InstanceError as error:
            raise InstanceError(f"{source}: {error}") from None


_ARRAYS = ("lower", "upper", "size", "alignment", "fixed_offset", "hint", "gap_offset", "gaps")


@dataclass(frozen=True, kw_only=True, eq=False)
class Packing:
    """The offset of every buffer, in bytes.

    Raises:
        SolutionError: not a list of integers.
    """

    offset: I64  # (N,)

    def __post_init__(self) -> None:
        offset = np.asarray(self.offset)
        if offset.ndim != 1 or offset.dtype.kind not in "iu":
            raise SolutionError(f"packing: field offset: expected integers, got {offset.dtype} {offset.shape}")
        frozen = np.array(offset, dtype=np.int64)
        frozen.flags.writeable = False
        object.__setattr__(self, "offset", frozen)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packing) and np.array_equal(self.offset, other.offset)

    def __hash__(self) -> int:
        return hash(self.offset.tobytes())

    def to_json(self) -> str:
        """Return versioned JSON."""
        return json.dumps({"schema": SOLUTION_SCHEMA, "offset": self.offset.tolist()})

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> Self:
        """Read ``to_json`` output.

        Raises:
            SolutionError: not JSON, another schema, or offsets that are not integers.
        """
        data = _json_of(text, SOLUTION_SCHEMA, source, SolutionError)
        return cls(offset=_integers(data.get("offset"), f"{source}: field offset", SolutionError))

    def to_csv(self, instance: OffsetPackingInstance) -> str:
        """Return the CSV that MiniMalloc writes: the instance's columns and ``offset``."""
        rows = zip(instance.labels, instance.lower, instance.upper, instance.size, self.offset, strict=True)
        return "\n".join(["id,lower,upper,size,offset", *(",".join(map(str, row)) for row in rows)]) + "\n"


def check_packing(instance: OffsetPackingInstance, packing: Packing) -> list[str]:
    """Return every way in which a packing breaks the instance, in words; an empty list means valid.

    A sweep over time, written from the definition: bytes live at the same time do not overlap, offsets are aligned,
    not negative, as given where fixed, and no buffer ends above the capacity.
    """
    if len(packing.offset) != instance.buffers:
        return [f"the packing has {len(packing.offset)} offsets for {instance.buffers} buffers"]
    found: list[str] = []
    assert instance.alignment is not None and instance.fixed_offset is not None
    columns = (packing.offset, instance.size, instance.alignment, instance.fixed_offset)
    for label, offset, size, alignment, fixed in zip(instance.labels, *(c.tolist() for c in columns), strict=True):
        if offset < 0:
            found.append(f"buffer {label} is at negative offset {offset}")
        elif offset % alignment:
            found.append(f"buffer {label} is at offset {offset}, no multiple of its alignment {alignment}")
        if fixed >= 0 and offset != fixed:
            found.append(f"buffer {label} is at offset {offset}, given is {fixed}")
        if instance.capacity is not None and offset + size > instance.capacity:
            found.append(f"buffer {label} ends at {offset + size}, the capacity is {instance.capacity}")
    return (found + _overlaps(instance, packing))[:MAX_LISTED]


def _overlaps(instance: OffsetPackingInstance, packing: Packing) -> list[str]:
    """Sweep over time with the live byte ranges in a sorted list; report ranges that meet their neighbour."""
    import bisect

    start, end, low, high, buffer = (array.tolist() for array in instance.live)
    base = packing.offset.tolist()
    # Ends come before starts at the same instant.
    events = sorted([(t, 1, i) for i, t in enumerate(start)] + [(t, 0, i) for i, t in enumerate(end)])
    active: list[tuple[int, int, int]] = []
    found: list[str] = []
    for time, starts, i in events:
        item = (base[buffer[i]] + low[i], base[buffer[i]] + high[i], i)
        at = bisect.bisect_left(active, item)
        if not starts:
            del active[at]
            continue
        # With an overlap already among them, a range further up can reach higher than its neighbour: look at all.
        meeting = active if found else active[max(at - 1, 0) : at + 1]
        for other in meeting:
            if item[0] < other[1] and other[0] < item[1]:
                pair = sorted((buffer[i], buffer[other[2]]))
                names = " and ".join(instance.labels[b] for b in pair)
                found.append(f"buffers {names} overlap at time {time} from byte {max(item[0], other[0])}")
        active.insert(at, item)
        if len(found) >= MAX_LISTED:
            break
    return found


def max_live(instance: OffsetPackingInstance) -> int:
    """Return the most bytes live at one instant: no packing has a lower peak."""
    start, end, low, high, _ = instance.live
    # Ends come before starts at the same instant.
    time = np.concatenate([end, start])
    change = np.concatenate([low - high, high - low])
    order = np.argsort(time, kind="stable")
    return int(np.cumsum(change[order]).max(initial=0))


def _frozen(array: Any, dtype: type, where: str) -> np.ndarray[Any, Any]:
    values = np.asarray(array)
    dimensions = 2 if where.endswith("field gaps") else 1
    if values.ndim != dimensions or (values.dtype.kind not in "iu" and values.size):
        raise InstanceError(f"{where}: expected {dimensions}-dimensional integers, got {values.dtype} {values.shape}")
    if values.size and max(abs(int(values.min())), abs(int(values.max()))) > MAX_BYTES:
        raise InstanceError(f"{where}: a value beyond {MAX_BYTES}")
    if dtype is np.int32 and values.size and max(-int(values.min()), int(values.max())) >= 2**31:
        raise InstanceError(f"{where}: a value outside int32")
    frozen: np.ndarray[Any, Any] = np.array(values, dtype=dtype)
    frozen.flags.writeable = False
    return frozen


def _validate(instance: OffsetPackingInstance) -> None:
    name, count = instance.name, instance.buffers
    assert instance.alignment is not None and instance.fixed_offset is not None
    for field in ("lower", "upper", "alignment", "fixed_offset", "hint"):
        if len(getattr(instance, field)) != count:
            raise InstanceError(f"{name}: field {field}: {len(getattr(instance, field))} values for {count} buffers")
    if count == 0:
        raise InstanceError(f"{name}: field size: no buffers")
    if len(instance.labels) != count or len(set(instance.labels)) != count:
        raise InstanceError(f"{name}: field labels: expected {count} different names")
    if instance.capacity is not None and not 1 <= instance.capacity <= MAX_BYTES:
        raise InstanceError(f"{name}: field capacity: {instance.capacity}, expected 1 to {MAX_BYTES}")
    if float(instance.size.astype(np.float64).sum()) > MAX_BYTES:
        raise InstanceError(f"{name}: field size: the sum exceeds {MAX_BYTES}")
    ends = np.where(instance.fixed_offset >= 0, instance.fixed_offset, 0) + instance.size
    limit = MAX_BYTES if instance.capacity is None else instance.capacity
    misaligned = (instance.fixed_offset >= 0) & (instance.fixed_offset % np.maximum(instance.alignment, 1) != 0)
    rules: tuple[tuple[str, Any, str], ...] = (
        ("size", instance.size < 1, "expected at least 1"),
        ("upper", instance.upper <= instance.lower, "expected more than lower"),
        ("alignment", instance.alignment < 1, "expected at least 1"),
        ("fixed_offset", misaligned, "expected a multiple of the alignment"),
        ("fixed_offset", instance.fixed_offset < -1, "expected -1 or an offset"),
        ("size", ends > limit, f"the buffer cannot end within the capacity {limit}"),
    )
    for field, broken, expected in rules:
        if (bad := np.flatnonzero(broken)).size:
            value = getattr(instance, field)[bad[0]]
            raise InstanceError(f"{name}: field {field}: buffer {instance.labels[bad[0]]} has {value}, {expected}")
    _validate_gaps(instance)


def _validate_gaps(instance: OffsetPackingInstance) -> None:
    name, offset, gaps = instance.name, instance.gap_offset, instance.gaps
    assert offset is not None and gaps is not None
    if len(offset) != instance.buffers + 1 or offset[0] != 0 or offset[-1] != len(gaps) or (np.diff(offset) < 0).any():
        raise InstanceError(f"{name}: field gap_offset: must run from 0 to the {len(gaps)} gaps")
    if gaps.shape[1] != 4:
        raise InstanceError(f"{name}: field gaps: expected four columns, got {gaps.shape[1]}")
    for b in np.flatnonzero(np.diff(offset)).tolist():
        time, size = int(instance.lower[b]), int(instance.size[b])
        for start, end, low, high in gaps[offset[b] : offset[b + 1]].tolist():
            inside = time <= start < end <= instance.upper[b] and 0 <= low <= high <= size
            if not inside:
                raise InstanceError(
                    f"{name}: field gaps: buffer {instance.labels[b]} has gap {start}-{end}@{low}:{high}, expected "
                    f"gaps in order within {instance.lower[b]}-{instance.upper[b]}, windows within 0:{size}"
                )
            time = end


def _json_of(text: str, schema: str, source: str, error_type: type[Exception]) -> Mapping[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise error_type(f"{source}: not valid JSON: {error}") from None
    if not isinstance(data, dict) or data.get("schema") != schema:
        raise error_type(f"{source}: field schema: expected {schema!r}")
    return data


def _integers(values: Any, where: str, error_type: type[Exception]) -> I64:
    """Return a list of integers, or of lists of integers, as one array."""
    flat: Sequence[Any] = values if isinstance(values, list) else ()
    rows = [item if isinstance(item, list) else [item] for item in flat]
    if not isinstance(values, list) or any(type(v) is not int or abs(v) > MAX_BYTES for row in rows for v in row):
        raise error_type(f"{where}: expected a list of integers, got {values!r:.40}")
    if rows and len({len(row) for row in rows}) > 1:
        raise error_type(f"{where}: expected rows of equal length")
    table: I64 = np.array([v for row in rows for v in row], dtype=np.int64)
    return table.reshape(len(rows), -1) if any(isinstance(item, list) for item in flat) else table
