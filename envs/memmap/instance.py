"""The memory-mapping instance: a program of operations on buffers, and a device whose memory has layers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from schedrl.arrays import F64, I32, I64, Bool
from schedrl.devices.memory import MemoryDevice, memory_device_from_dict
from schedrl.errors import ConfigError, InstanceError

__all__ = ["SCHEMA", "MemoryMapInstance"]

SCHEMA = "schedrl/memory-map-instance/1"
MAX_BYTES = 2**52

_DTYPES: Mapping[str, Any] = {
    "flops": np.float64,
    "compute_s": np.float64,
    "trips": np.int64,
    "size": np.int64,
    "output": np.bool_,
    "access_op": np.int32,
    "access_buffer": np.int32,
    "access_write": np.bool_,
    "access_bytes": np.int64,
    "access_group": np.int32,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class MemoryMapInstance:
    """Decide for every access of a program which layer of memory serves it; minimise the program's latency.

    Operations run one after another in the order given. An **access** is one operand or result of an operation; they
    are stored flat, operation after operation, operands before results. A buffer has at most one result, its
    definition; one without is a parameter or input, valid in the slow layer from the start. Buffers marked ``output``
    must be valid in the slow layer at the end. Accesses of one **alias group** must use the same layer and offset.
    Views of a buffer are accesses of that buffer; ``access_bytes`` may differ from its size.

    Raises:
        InstanceError: a field breaks one of these rules; the message names field and value.
    """

    objective: ClassVar[str] = "latency"

    name: str
    memory: MemoryDevice
    flops: F64  # (T,) floating-point operations of one trip, >= 0
    size: I64  # (N,) bytes of each buffer, >= 1
    output: Bool  # (N,)
    access_op: I32  # (A,) not decreasing
    access_buffer: I32  # (A,)
    access_write: Bool  # (A,) False for operands, True for results
    access_bytes: I64 | None = None  # (A,) bytes moved; the buffer's size by default
    access_group: I32 | None = None  # (A,) alias group, -1 for none
    compute_s: F64 | None = None  # (T,) compute time of one trip where known, NaN where it follows from flops
    trips: I64 | None = None  # (T,) how often an operation runs, >= 1
    op_labels: tuple[str, ...] = ()
    buffer_labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ops, accesses = len(np.atleast_1d(np.asarray(self.flops))), len(np.atleast_1d(np.asarray(self.access_op)))
        for field, dtype in _DTYPES.items():
            value = getattr(self, field)
            if value is None:
                value = self._default(field, ops, accesses)
            object.__setattr__(self, field, _frozen(value, dtype, f"{self.name}: field {field}"))
        object.__setattr__(self, "op_labels", tuple(self.op_labels) or tuple(map(str, range(ops))))
        buffers = len(self.size)
        object.__setattr__(self, "buffer_labels", tuple(self.buffer_labels) or tuple(map(str, range(buffers))))
        _validate(self)

    def _default(self, field: str, ops: int, accesses: int) -> Any:
        if field == "access_bytes":
            size, buffer = np.asarray(self.size), np.asarray(self.access_buffer)
            inside = buffer.dtype.kind in "iu" and ((buffer >= 0) & (buffer < len(size))).all()
            # An unknown operand has no size; its own error follows.
            return size[buffer] if inside else np.zeros(accesses, np.int64)
        return {
            "access_group": np.full(accesses, -1),
            "compute_s": np.full(ops, np.nan),
            "trips": np.ones(ops, np.int64),
        }[field]

    @property
    def ops(self) -> int:
        """Number of operations T."""
        return len(self.flops)

    @property
    def buffers(self) -> int:
        """Number of buffers N."""
        return len(self.size)

    @property
    def accesses(self) -> int:
        """Number of accesses A."""
        return len(self.access_op)

    @property
    def layers(self) -> int:
        """Number of memory layers L; layer 0 is the slow one."""
        return len(self.memory.layers)

    @property
    def size_label(self) -> str:
        """Size group in tables: the fast capacity."""
        capacity = self.memory.layers[1].capacity_bytes or 0
        return f"{capacity / 2**20:g} MiB"

    @cached_property
    def compute(self) -> F64:
        """(T,) compute time of one trip of each operation in seconds."""
        assert self.compute_s is not None
        return np.where(np.isnan(self.compute_s), self.flops / self.memory.flops_per_s, self.compute_s)

    @cached_property
    def definition(self) -> I32:
        """(N,) operation that defines each buffer, -1 for parameters and inputs."""
        defined = np.full(self.buffers, -1, dtype=np.int32)
        defined[self.access_buffer[self.access_write]] = self.access_op[self.access_write]
        return defined

    @cached_property
    def op_offset(self) -> I32:
        """(T + 1,) operation t owns accesses ``op_offset[t]:op_offset[t + 1]``."""
        return np.searchsorted(self.access_op, np.arange(self.ops + 1)).astype(np.int32)

    @cached_property
    def by_buffer(self) -> tuple[I32, I32]:
        """Offsets (N + 1,) and accesses (A,) of each buffer, in order of time."""
        order = np.argsort(self.access_buffer, kind="stable").astype(np.int32)
        return np.searchsorted(self.access_buffer[order], np.arange(self.buffers + 1)).astype(np.int32), order

    @cached_property
    def groups(self) -> int:
        """Number of alias groups."""
        assert self.access_group is not None
        return int(self.access_group.max(initial=-1)) + 1

    def with_memory(self, memory: MemoryDevice, name: str | None = None) -> MemoryMapInstance:
        """Return the same program on another device."""
        return replace(self, memory=memory, name=self.name if name is None else name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MemoryMapInstance):
            return NotImplemented
        plain = ("name", "memory", "op_labels", "buffer_labels")
        return all(getattr(self, field) == getattr(other, field) for field in plain) and all(
            np.array_equal(getattr(self, field), getattr(other, field), equal_nan=field == "compute_s")
            for field in _DTYPES
        )

    def __hash__(self) -> int:
        return hash((self.name, self.memory, self.size.tobytes(), self.access_buffer.tobytes()))

    def to_json(self) -> str:
        """Return versioned JSON: an operation has ``flops``, ``reads`` and ``writes``, a buffer ``size`` and uses."""
        return json.dumps({"schema": SCHEMA, "name": self.name, "memory": self.memory.to_dict(), **_program(self)})

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> Self:
        """Read ``to_json`` output.

        Raises:
            InstanceError: not JSON, another schema, or a bad field.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InstanceError(f"{source}: not valid JSON: {error}") from None
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise InstanceError(f"{source}: field schema: expected {SCHEMA!r}")
        try:
            memory = memory_device_from_dict(data.get("memory"), where=f"{source}: field memory")
        except ConfigError as error:
            raise InstanceError(str(error)) from None
        return cls.from_program(data, memory=memory, source=source)

    @classmethod
    def from_program(cls, data: Mapping[str, Any], *, memory: MemoryDevice, source: str = "<program>") -> Self:
        """Build from plain data: ``ops`` and ``buffers`` as in ``to_json``; other keys are left alone.

        An operation is ``{"flops", "reads", "writes"}`` and optionally ``read_bytes``, ``write_bytes``, ``groups``
        (one per read and write, -1 for none), ``seconds``, ``trips`` and ``label``; a buffer is ``{"size"}`` and
        optionally ``output`` and ``label``. A use equal to the number of operations marks an output too.

        Raises:
            InstanceError: names source, operation or buffer, and field.
        """
        name = data.get("name")
        if not isinstance(name, str):
            raise InstanceError(f"{source}: field name: expected str, got {name!r:.40}")
        ops, buffers = (_records(data, key, source) for key in ("ops", "buffers"))
        columns = _accesses(ops, buffers, source)
        # Their errors name the source already.
        where = [f"{source}: field ops[{t}]" for t in range(len(ops))]
        flops = [_number(op, "flops", place) for op, place in zip(ops, where, strict=True)]
        seconds = [_number(op, "seconds", place, np.nan) for op, place in zip(ops, where, strict=True)]
        trips = [_integer(op, "trips", place, 1) for op, place in zip(ops, where, strict=True)]
        sizes = [_integer(b, "size", f"{source}: field buffers[{i}]") for i, b in enumerate(buffers)]
        try:
            return cls(
                name=name,
                memory=memory,
                flops=np.array(flops, dtype=np.float64),
                compute_s=np.array(seconds, dtype=np.float64),
                trips=np.array(trips, dtype=np.int64),
                size=np.array(sizes, dtype=np.int64),
                output=np.array([_is_output(b, len(ops)) for b in buffers], dtype=np.bool_),
                op_labels=tuple(str(op.get("label", t)) for t, op in enumerate(ops)),
                buffer_labels=tuple(str(b.get("label", i)) for i, b in enumerate(buffers)),
                **columns,
            )
        except InstanceError as error:
            raise InstanceError(f"{source}: {error}") from None


def _program(instance: MemoryMapInstance) -> dict[str, Any]:
    ops: list[dict[str, Any]] = []
    assert instance.access_bytes is not None and instance.access_group is not None
    assert instance.compute_s is not None and instance.trips is not None
    for t in range(instance.ops):
        own = slice(*instance.op_offset[t : t + 2])
        write = instance.access_write[own]
        buffer, moved, group = instance.access_buffer[own], instance.access_bytes[own], instance.access_group[own]
        op: dict[str, Any] = {
            "flops": float(instance.flops[t]),
            "reads": buffer[~write].tolist(),
            "writes": buffer[write].tolist(),
        }
        if (moved != instance.size[buffer]).any():
            op |= {"read_bytes": moved[~write].tolist(), "write_bytes": moved[write].tolist()}
        if (group >= 0).any():
            op["groups"] = group.tolist()
        if not np.isnan(instance.compute_s[t]):
            op["seconds"] = float(instance.compute_s[t])
        if instance.trips[t] != 1:
            op["trips"] = int(instance.trips[t])
        if instance.op_labels[t] != str(t):
            op["label"] = instance.op_labels[t]
        ops.append(op)
    buffers = [
        {"size": size} | ({"output": True} if output else {}) | ({"label": label} if label != str(i) else {})
        for i, (size, output, label) in enumerate(
            zip(instance.size.tolist(), instance.output.tolist(), instance.buffer_labels, strict=True)
        )
    ]
    return {"ops": ops, "buffers": buffers}


def _records(data: Mapping[str, Any], key: str, source: str) -> list[dict[str, Any]]:
    values = data.get(key)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise InstanceError(f"{source}: field {key}: expected a list of objects, got {values!r:.40}")
    return values


def _accesses(
    ops: Sequence[Mapping[str, Any]], buffers: Sequence[Mapping[str, Any]], source: str
) -> dict[str, np.ndarray[Any, Any]]:
    rows: list[tuple[int, int, bool, int, int]] = []
    for t, op in enumerate(ops):
        where = f"{source}: field ops[{t}]"
        reads, writes = (_integers(op.get(key, []), f"{where}.{key}") for key in ("reads", "writes"))
        chosen = reads + writes
        for buffer in chosen:
            if not 0 <= buffer < len(buffers):
                raise InstanceError(f"{where}: unknown operand {buffer}, there are buffers 0 to {len(buffers) - 1}")
        sizes = [_integer(buffers[b], "size", f"{source}: field buffers[{b}]") for b in chosen]
        moved = [
            *_integers(op.get("read_bytes", sizes[: len(reads)]), f"{where}.read_bytes"),
            *_integers(op.get("write_bytes", sizes[len(reads) :]), f"{where}.write_bytes"),
        ]
        groups = _integers(op.get("groups", [-1] * len(chosen)), f"{where}.groups")
        if len(moved) != len(chosen) or len(groups) != len(chosen):
            raise InstanceError(f"{where}: expected read_bytes, write_bytes and groups for {len(chosen)} accesses")
        for i, buffer in enumerate(chosen):
            rows.append((t, buffer, i >= len(reads), moved[i], groups[i]))
    table = np.array(rows, dtype=np.int64).reshape(-1, 5)
    return {
        "access_op": table[:, 0],
        "access_buffer": table[:, 1],
        "access_write": table[:, 2].astype(np.bool_),
        "access_bytes": table[:, 3],
        "access_group": table[:, 4],
    }


def _is_output(buffer: Mapping[str, Any], ops: int) -> bool:
    uses = buffer.get("uses", [])
    return bool(buffer.get("output", False)) or (isinstance(uses, list) and ops in uses)


def _number(record: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    value = record.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InstanceError(f"{where}.{key}: expected a number, got {value!r:.40}")
    try:
        return float(value)
    except OverflowError:  # JSON may hold integers of any length
        raise InstanceError(f"{where}.{key}: expected a number, got one beyond float64") from None


def _integer(record: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int:
    value = record.get(key, default)
    if type(value) is not int or abs(value) > MAX_BYTES:
        raise InstanceError(f"{where}.{key}: expected an integer, got {value!r:.40}")
    return value


def _integers(values: Any, where: str) -> list[int]:
    if not isinstance(values, list) or any(type(value) is not int or abs(value) > MAX_BYTES for value in values):
        raise InstanceError(f"{where}: expected a list of integers, got {values!r:.40}")
    return values


def _frozen(array: Any, dtype: Any, where: str) -> np.ndarray[Any, Any]:
    values = np.asarray(array)
    kinds = {"b": "b", "i": "iu", "f": "iuf"}[np.dtype(dtype).kind]
    if values.ndim != 1 or (values.dtype.kind not in kinds and values.size):
        raise InstanceError(f"{where}: expected {np.dtype(dtype).name} values in a row, got {values.dtype}")
    if values.size and kinds == "iu" and max(abs(int(values.min())), abs(int(values.max()))) > MAX_BYTES:
        raise InstanceError(f"{where}: a value beyond {MAX_BYTES}")
    if np.dtype(dtype) == np.int32 and values.size and max(-int(values.min()), int(values.max())) >= 2**31:
        raise InstanceError(f"{where}: a value outside int32")
    frozen: np.ndarray[Any, Any] = np.array(values, dtype=dtype)
    frozen.flags.writeable = False
    return frozen


def _validate(instance: MemoryMapInstance) -> None:
    name, ops, buffers, accesses = instance.name, instance.ops, instance.buffers, instance.accesses
    lengths = {"compute_s": ops, "trips": ops, "op_labels": ops, "output": buffers, "buffer_labels": buffers}
    lengths |= {field: accesses for field in ("access_buffer", "access_write", "access_bytes", "access_group")}
    for field, length in lengths.items():
        if len(getattr(instance, field)) != length:
            raise InstanceError(f"{name}: field {field}: {len(getattr(instance, field))} values, expected {length}")
    if accesses == 0:
        raise InstanceError(f"{name}: field access_op: a program without accesses has nothing to decide")
    assert instance.trips is not None and instance.access_bytes is not None and instance.access_group is not None
    assert instance.compute_s is not None
    op, buffer = instance.access_op, instance.access_buffer
    times = np.where(np.isnan(instance.compute_s), 0.0, instance.compute_s)
    rules: tuple[tuple[str, Any, str], ...] = (
        ("flops", ~(instance.flops >= 0) | np.isinf(instance.flops), "expected a finite number >= 0"),
        ("compute_s", ~(times >= 0) | np.isinf(times), "expected a finite number >= 0"),
        ("trips", instance.trips < 1, "expected at least 1"),
        ("size", instance.size < 1, "expected at least 1 byte"),
        ("access_bytes", instance.access_bytes < 0, "expected >= 0"),
        ("access_op", (op < 0) | (op >= ops), f"expected an operation, 0 to {ops - 1}"),
        ("access_op", np.diff(op, prepend=op[:1]) < 0, "expected accesses in the order of operations"),
        ("access_buffer", (buffer < 0) | (buffer >= buffers), f"unknown operand, expected 0 to {buffers - 1}"),
        ("access_group", instance.access_group < -1, "expected -1 or a group"),
    )
    for field, broken, expected in rules:
        if (bad := np.flatnonzero(broken)).size:
            raise InstanceError(
                f"{name}: field {field}: entry {bad[0]} is {getattr(instance, field)[bad[0]]}, {expected}"
            )
    if float(instance.size.astype(np.float64).sum()) > MAX_BYTES:
        raise InstanceError(f"{name}: field size: the sum exceeds {MAX_BYTES}")
    _validate_order(instance)


def _validate_order(instance: MemoryMapInstance) -> None:
    name, op, buffer, write = instance.name, instance.access_op, instance.access_buffer, instance.access_write
    if (bad := np.flatnonzero((np.diff(op) == 0) & write[:-1] & ~write[1:])).size:
        raise InstanceError(f"{name}: field access_write: operation {op[bad[0]]} has a result before an operand")
    written = buffer[write]
    counts = np.bincount(written, minlength=instance.buffers)
    if (twice := np.flatnonzero(counts > 1)).size:
        where = op[write & (buffer == twice[0])][:2].tolist()
        raise InstanceError(
            f"{name}: buffer {instance.buffer_labels[twice[0]]} is defined by operations {where[0]} and {where[1]}, "
            "expected one definition"
        )
    _validate_updates(instance)
    early = ~write & (instance.definition[buffer] >= op)
    if (bad := np.flatnonzero(early)).size:
        label = instance.buffer_labels[buffer[bad[0]]]
        raise InstanceError(
            f"{name}: operation {instance.op_labels[op[bad[0]]]} uses buffer {label} before its definition "
            f"by operation {instance.op_labels[instance.definition[buffer[bad[0]]]]}"
        )


def _validate_updates(instance: MemoryMapInstance) -> None:
    """What a result replaces in place, as a member of its alias group, is gone: nobody may read it later."""
    assert instance.access_group is not None
    op, buffer, write, group = instance.access_op, instance.access_buffer, instance.access_write, instance.access_group
    updates = set(zip(op[write & (group >= 0)].tolist(), group[write & (group >= 0)].tolist(), strict=True))
    last = np.full(instance.buffers, -1, dtype=np.int64)
    np.maximum.at(last, buffer, op)
    for access in np.flatnonzero(~write & (group >= 0)).tolist():
        replaced, t = int(buffer[access]), int(op[access])
        if (t, int(group[access])) in updates and (last[replaced] > t or instance.output[replaced]):
            raise InstanceError(
                f"{instance.name}: operation {instance.op_labels[t]} updates buffer {instance.buffer_labels[replaced]} "
                "in place, but it is needed later; expected its last use there, or no alias group"
            )
