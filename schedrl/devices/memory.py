"""A device whose memory has layers: one large and slow, the others small and fast, with copies between them."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from schedrl.errors import ConfigError

__all__ = ["MemoryDevice", "MemoryLayer", "Supply", "memory_device_from_dict"]

Supply = Literal["idle", "elapsed"]
"""Which time of an operation can hide copies: ``idle``, while the slow layer serves no access of the operation itself,
or ``elapsed``, as long as the operation would take without any fast memory, which is what XLA assumes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLayer:
    """One layer of memory.

    Raises:
        ConfigError: a capacity, bandwidth or alignment that is not positive.
    """

    name: str
    read_bytes_per_s: float
    write_bytes_per_s: float
    capacity_bytes: int | None = None
    """None: as much as a program needs"""
    alignment_bytes: int = 1

    def __post_init__(self) -> None:
        where = f"memory layer {self.name}"
        for field in ("read_bytes_per_s", "write_bytes_per_s"):
            value = getattr(self, field)
            if not (_finite(value) and value > 0):
                raise ConfigError(f"{where}: field {field}: {value!r}, expected a positive number")
        for field in ("capacity_bytes", "alignment_bytes"):
            value = getattr(self, field)
            if not (value is None and field == "capacity_bytes") and (type(value) is not int or value < 1):
                raise ConfigError(f"{where}: field {field}: {value!r}, expected an integer of at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryDevice:
    """A processor and its memory: ``layers[0]`` backs every buffer, the others are scratchpads.

    Raises:
        ConfigError: fewer than two layers, a scratchpad without capacity, or a figure outside its range.
    """

    name: str
    flops_per_s: float
    layers: tuple[MemoryLayer, ...]
    overhead_window_bytes: float = 0.0
    """leading bytes of slow accesses that an operation cannot overlap with its computation"""
    supply: Supply = "idle"
    outstanding_copies: int = 40
    """most copies in one direction that may be under way at a time"""

    def __post_init__(self) -> None:
        where = f"memory device {self.name}"
        object.__setattr__(self, "layers", tuple(self.layers))
        if len(self.layers) < 2:
            raise ConfigError(
                f"{where}: field layers: {len(self.layers)}, expected a slow one and at least one fast one"
            )
        for layer in self.layers[1:]:
            if layer.capacity_bytes is None:
                raise ConfigError(f"{where}: field layers: fast layer {layer.name} needs capacity_bytes")
        if not (_finite(self.flops_per_s) and self.flops_per_s > 0):
            raise ConfigError(f"{where}: field flops_per_s: {self.flops_per_s!r}, expected a positive number")
        if not (_finite(self.overhead_window_bytes) and self.overhead_window_bytes >= 0):
            raise ConfigError(f"{where}: field overhead_window_bytes: {self.overhead_window_bytes!r}, expected >= 0")
        if self.supply not in get_args(Supply):
            raise ConfigError(f"{where}: field supply: {self.supply!r}, expected one of {', '.join(get_args(Supply))}")
        if type(self.outstanding_copies) is not int or self.outstanding_copies < 0:
            raise ConfigError(f"{where}: field outstanding_copies: {self.outstanding_copies!r}, expected >= 0")

    def with_capacity(self, capacity_bytes: int, layer: int = 1) -> MemoryDevice:
        """Return the device with another capacity of one fast layer."""
        layers = list(self.layers)
        layers[layer] = replace(layers[layer], capacity_bytes=capacity_bytes)
        return replace(self, layers=tuple(layers))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that ``memory_device_from_dict`` reads back equal."""
        return asdict(self)


def _finite(value: Any) -> bool:
    # Unlike math.isfinite, the comparison takes integers of any length.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def memory_device_from_dict(data: Any, *, where: str) -> MemoryDevice:
    """Build a device from plain data; ``where`` names the place in errors.

    Raises:
        ConfigError: not a mapping, an unknown or missing field, or a bad value.
    """
    if not isinstance(data, dict) or not isinstance(data.get("layers"), (list, tuple)):
        raise ConfigError(f"{where}: expected a mapping with a list of layers, got {data!r:.60}")
    try:
        layers = tuple(MemoryLayer(**layer) for layer in data["layers"])
        return MemoryDevice(**{**data, "layers": layers})
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except TypeError as error:
        raise ConfigError(f"{where}: {str(error).partition(') ')[2] or error}") from None
