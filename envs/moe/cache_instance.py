"""Expert caching on one device: decoding asks for experts layer by layer, and few fit in its memory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.errors import InstanceError

__all__ = ["SCHEMA", "ExpertCacheInstance"]

SCHEMA = "schedrl/expert-cache-instance/1"
_NUMBERS = ("experts", "capacity", "expert_bytes", "host_bytes_per_s")
_ARRAYS: dict[str, Any] = {
    "token": np.int32,
    "layer": np.int32,
    "requests": np.int32,
    "compute_s": np.float64,
    "initial": np.int32,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertCacheInstance:
    """Serve requests in order, each by some experts of one layer, with memory for ``capacity`` experts of all layers.

    Expert e of layer l has the number ``l * experts + e``. A request is computed once the one before is finished and
    its experts are resident, and keeps them in place while it is. Absent experts are loaded one at a time over one
    channel, each in ``load_s``, also during a computation; a load takes its place in memory from its start, replaces
    at most one resident expert at once, and is never broken off. What a request needs is known when the one before
    is finished; the order of the layers is known from the start. (MoE-Infinity, arXiv 2401.14361; Eliseev and Mazur,
    arXiv 2312.17238.)

    Raises:
        InstanceError: a field breaks one of these rules; the message names field and value.
    """

    objective: ClassVar[str] = "decode_time"

    name: str
    experts: int
    """experts E of every layer"""
    capacity: int
    """experts that fit in the device's memory"""
    token: I32  # (R,) token of each request, never falling
    layer: I32  # (R,) layer of each request
    requests: I32  # (R, K) different experts of that layer, then -1 where fewer are needed
    compute_s: F64  # (L,) seconds that a request computes
    expert_bytes: float
    host_bytes_per_s: float
    initial: I32  # (I,) numbers of the experts that are resident at the start

    def __post_init__(self) -> None:
        for field, dtype in _ARRAYS.items():
            object.__setattr__(self, field, _frozen(getattr(self, field), dtype, f"{self.name}: field {field}"))
        _validate(self)

    @property
    def steps(self) -> int:
        """Number of requests R."""
        return len(self.layer)

    @property
    def layers(self) -> int:
        """Number of layers L."""
        return len(self.compute_s)

    @property
    def total(self) -> int:
        """Number of experts of all layers."""
        return self.layers * self.experts

    @property
    def load_s(self) -> float:
        """Seconds that one expert's weights take over the channel."""
        return self.expert_bytes / self.host_bytes_per_s

    @property
    def size_label(self) -> str:
        """Size group in tables."""
        return f"{self.layers}x{self.experts}, {self.capacity} fit"

    @cached_property
    def needed(self) -> I32:
        """(R, K) numbers of the experts of each request among all layers', -1 where fewer are needed."""
        numbers = np.where(self.requests >= 0, self.requests + self.layer[:, None] * self.experts, -1)
        return np.asarray(numbers, dtype=np.int32)

    @cached_property
    def duration_s(self) -> F64:
        """(R,) seconds that each request computes."""
        return np.asarray(self.compute_s[self.layer], dtype=np.float64)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExpertCacheInstance):
            return NotImplemented
        same = all(getattr(self, field) == getattr(other, field) for field in ("name", *_NUMBERS))
        return same and all(np.array_equal(getattr(self, field), getattr(other, field)) for field in _ARRAYS)

    def __hash__(self) -> int:
        return hash((self.name, self.capacity, self.requests.tobytes(), self.initial.tobytes()))

    def to_json(self) -> str:
        """Return versioned JSON."""
        head = {"schema": SCHEMA, "name": self.name} | {field: getattr(self, field) for field in _NUMBERS}
        return json.dumps(head | {field: getattr(self, field).tolist() for field in _ARRAYS})

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
        found = data.get("schema") if isinstance(data, dict) else None
        if found != SCHEMA:
            raise InstanceError(f"{source}: field schema: expected {SCHEMA!r}, got {found!r:.60}")
        if not isinstance(data.get("name"), str):
            raise InstanceError(f"{source}: field name: expected str, got {data.get('name')!r:.40}")
        for field in ("name", *_NUMBERS, *_ARRAYS):
            if field not in data:
                raise InstanceError(f"{source}: field {field}: missing")
        fields = {field: data[field] for field in ("name", *_NUMBERS, *_ARRAYS)}
        try:
            return cls(**fields)
        except InstanceError as error:
            raise InstanceError(f"{source}: {error}") from None


def _frozen(values: Any, dtype: Any, where: str) -> np.ndarray[Any, Any]:
    dimensions = 2 if where.endswith("field requests") else 1
    kinds = "iu" if dtype is np.int32 else "iuf"
    try:
        array = np.asarray(values)
    except ValueError:
        raise InstanceError(f"{where}: expected rows of equal length") from None
    if array.ndim != dimensions or (array.dtype.kind not in kinds and array.size):
        kind = "integers" if dtype is np.int32 else "numbers"
        raise InstanceError(f"{where}: expected {dimensions}-dimensional {kind}, got {array.dtype} {array.shape}")
    if dtype is np.int32 and array.size and max(-int(array.min()), int(array.max())) >= 2**31:
        raise InstanceError(f"{where}: a value outside int32")
    frozen = np.array(array, dtype=dtype)
    frozen.flags.writeable = False
    return frozen


def _validate(instance: ExpertCacheInstance) -> None:
    name = instance.name
    for field in ("experts", "capacity"):
        value = getattr(instance, field)
        if type(value) is not int or not 1 <= value < 2**31:
            raise InstanceError(f"{name}: field {field}: {value!r:.40}, expected an integer of at least 1")
    for field in ("expert_bytes", "host_bytes_per_s"):
        value = getattr(instance, field)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e30:
            raise InstanceError(f"{name}: field {field}: {value!r:.40}, expected a finite number above 0")
    steps, layers, total = instance.steps, instance.layers, instance.total
    if steps == 0 or layers == 0:
        raise InstanceError(f"{name}: field {'layer' if layers else 'compute_s'}: empty, expected at least one")
    if total >= 2**24:
        raise InstanceError(f"{name}: field experts: {total} in all layers, expected fewer than {2**24}")
    for field in ("token", "requests"):
        if len(getattr(instance, field)) != steps:
            raise InstanceError(f"{name}: field {field}: {len(getattr(instance, field))} rows for {steps} requests")
    rules: tuple[tuple[str, Any, str], ...] = (
        ("compute_s", ~((instance.compute_s > 0) & (instance.compute_s < 1e30)), "expected a finite number above 0"),
        ("layer", (instance.layer < 0) | (instance.layer >= layers), f"expected a layer, 0 to {layers - 1}"),
        ("token", np.diff(instance.token, prepend=instance.token[:1]) < 0, "expected tokens in order"),
        ("initial", (instance.initial < 0) | (instance.initial >= total), f"expected an expert, 0 to {total - 1}"),
    )
    for field, broken, expected in rules:
        if (bad := np.flatnonzero(broken)).size:
            value = getattr(instance, field)[bad[0]]
            raise InstanceError(f"{name}: field {field}: entry {bad[0]} is {value}, {expected}")
    initial = len(instance.initial)
    if len(np.unique(instance.initial)) != initial:
        raise InstanceError(f"{name}: field initial: an expert is named twice")
    if initial > instance.capacity:
        raise InstanceError(f"{name}: field initial: {initial} experts, expected at most the capacity")
    _validate_requests(instance)


def _validate_requests(instance: ExpertCacheInstance) -> None:
    name, requests = instance.name, instance.requests
    outside = (requests < -1) | (requests >= instance.experts)
    if (rows := np.flatnonzero(outside.any(axis=1))).size:
        value = requests[rows[0]][outside[rows[0]]][0]
        raise InstanceError(
            f"{name}: field requests: row {rows[0]} has {value}, expected -1 or an expert, 0 to {instance.experts - 1}"
        )
    some = requests >= 0
    if requests.shape[1] == 0 or not some[:, 0].all() or (some[:, 1:] & ~some[:, :-1]).any():
        raise InstanceError(f"{name}: field requests: expected at least one expert in each row, and -1 only at its end")
    ordered = np.sort(requests, axis=1)
    twice = (np.diff(ordered, axis=1) == 0) & (ordered[:, 1:] >= 0)
    if (rows := np.flatnonzero(twice.any(axis=1))).size:
        raise InstanceError(f"{name}: field requests: row {rows[0]} names an expert twice")
    if int(some.sum(axis=1).max()) > instance.capacity:
        raise InstanceError(
            f"{name}: field capacity: {instance.capacity}, expected at least the {int(some.sum(axis=1).max())} experts "
            "of the largest request"
        )
