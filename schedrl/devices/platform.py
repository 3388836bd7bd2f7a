"""Devices, links and platforms, with the two time models that all families share.

A transfer takes ``alpha + bytes / beta`` (Hockney 1994): a latency and a bandwidth. An operation takes the
roofline's time (Williams, Waterman and Patterson 2009): the longer of computing and moving its bytes, each
at a fraction of its peak, ``mfu`` and ``mbu``; the smooth variant adds the two in the p-norm, because
real kernels overlap them imperfectly.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from types import MappingProxyType
from typing import Any

from schedrl.errors import ConfigError

__all__ = ["Device", "Link", "Platform", "PowerState"]

_NO_FIGURES: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerState:
    """One operating point: its power and its speed against the device's full speed."""

    name: str
    power_w: float
    speed: float = 1.0

    def __post_init__(self) -> None:
        _require(f"power state {self.name}", {"power_w": self.power_w, "speed": self.speed})


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device type; figures that a problem does not need stay None.

    Raises:
        ConfigError: a figure is negative, zero where that makes no sense, or not finite.
    """

    name: str
    flops_per_s: Mapping[str, float] = field(default_factory=lambda: _NO_FIGURES)
    """peak rate by precision, such as ``bf16``"""
    memory_bytes: float | None = None
    memory_bandwidth_bytes_per_s: float | None = None
    mfu: float = 1.0
    """share of the peak rate that large operations reach, 0 to 1"""
    mbu: float = 1.0
    """share of the peak bandwidth that large operations reach, 0 to 1"""
    operation_overhead_s: float = 0.0
    power_states: tuple[PowerState, ...] = ()
    price_usd_per_h: float | None = None
    idle_power_w: float = 0.0
    capacity: int = 1
    """tasks that one device runs side by side, each at full speed"""

    def __post_init__(self) -> None:
        where = f"device {self.name}"
        _require(where, {f"flops_per_s[{precision}]": rate for precision, rate in self.flops_per_s.items()})
        _require(
            where,
            {
                "memory_bytes": self.memory_bytes,
                "memory_bandwidth_bytes_per_s": self.memory_bandwidth_bytes_per_s,
                "mfu": self.mfu,
                "mbu": self.mbu,
            },
        )
        may_be_zero = {
            "operation_overhead_s": self.operation_overhead_s,
            "price_usd_per_h": self.price_usd_per_h,
            "idle_power_w": self.idle_power_w,
        }
        _require(where, may_be_zero, zero=True)
        if type(self.capacity) is not int or self.capacity < 1:
            raise ConfigError(f"{where}: field capacity: {self.capacity!r}, expected an integer of at least 1")
        for name, share in (("mfu", self.mfu), ("mbu", self.mbu)):
            if share > 1.0:
                raise ConfigError(f"{where}: field {name}: {share}, expected at most 1")
        object.__setattr__(self, "flops_per_s", MappingProxyType(dict(self.flops_per_s)))

    def __reduce__(self) -> tuple[Any, ...]:
        # Read-only mappings cannot be pickled, and instances travel between processes.
        return _rebuilt(self, "flops_per_s")

    def operation_s(
        self, flops: float, moved_bytes: float, *, precision: str = "bf16", norm: float = math.inf
    ) -> float:
        """Return the seconds of one operation by the roofline.

        Args:
            flops: floating-point operations, 0 or more.
            moved_bytes: bytes read and written in the device's memory, 0 or more.
            precision: which of ``flops_per_s`` applies.
            norm: p of the p-norm that joins both times; infinity takes the longer one, 2 fits GPUs closely.

        Raises:
            ConfigError: negative work, a norm below 1, or a figure that the device lacks.
        """
        where = f"device {self.name}"
        _require(where, {"flops": flops, "moved_bytes": moved_bytes}, zero=True)
        if not norm >= 1.0:
            raise ConfigError(f"{where}: norm: {norm}, expected at least 1")
        compute_s = flops / (self.mfu * self._rate(precision)) if flops else 0.0
        memory_s = 0.0
        if moved_bytes:
            if self.memory_bandwidth_bytes_per_s is None:
                raise ConfigError(f"{where}: field memory_bandwidth_bytes_per_s: not set, needed to move bytes")
            memory_s = moved_bytes / (self.mbu * self.memory_bandwidth_bytes_per_s)
        return _norm(compute_s, memory_s, norm) + self.operation_overhead_s

    def _rate(self, precision: str) -> float:
        if precision not in self.flops_per_s:
            known = ", ".join(self.flops_per_s) or "none"
            raise ConfigError(f"device {self.name}: field flops_per_s: no figure for {precision!r}, known: {known}")
        return self.flops_per_s[precision]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A directed link: its latency and bandwidth.

    Raises:
        ConfigError: a negative latency, or a bandwidth that is not positive.
    """

    latency_s: float
    bandwidth_bytes_per_s: float

    def __post_init__(self) -> None:
        for name, value in (("latency_s", self.latency_s), ("bandwidth_bytes_per_s", self.bandwidth_bytes_per_s)):
            if value is None:
                raise ConfigError(f"link: field {name}: missing")
            _require("link", {name: value}, zero=name == "latency_s")

    def transfer_s(self, transferred_bytes: float) -> float:
        """Return the seconds that ``transferred_bytes`` take; nothing to send takes no time.

        Raises:
            ConfigError: negative bytes.
        """
        _require("link", {"transferred_bytes": transferred_bytes}, zero=True)
        return self.latency_s + transferred_bytes / self.bandwidth_bytes_per_s if transferred_bytes else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Devices by type with their counts, and a directed link per ordered pair of types.

    The link of a type to itself joins two devices of that type. A device reaches itself without a link. With
    ``memory``, data between devices takes two hops through that shared memory, which is no device itself.

    Raises:
        ConfigError: a type is listed twice, a count is not a positive integer, or a link joins unknown types.
    """

    devices: tuple[Device, ...]
    counts: tuple[int, ...]
    links: Mapping[tuple[str, str], Link] = field(default_factory=dict)
    """by (source type, target type)"""
    memory: str | None = None
    """name of a shared memory that links may start and end at"""

    def __post_init__(self) -> None:
        names = [device.name for device in self.devices]
        if not names:
            raise ConfigError("platform: field devices: empty, expected at least one device type")
        if len(set(names)) < len(names):
            raise ConfigError(f"platform: field devices: a type is listed twice among {', '.join(names)}")
        if len(self.counts) != len(names):
            raise ConfigError(f"platform: field counts: {len(self.counts)} values for {len(names)} device types")
        for name, count in zip(names, self.counts, strict=True):
            if type(count) is not int or count < 1:
                raise ConfigError(f"platform: field counts[{name}]: {count!r}, expected an integer of at least 1")
        if self.memory in names:
            raise ConfigError(f"platform: field memory: {self.memory!r} is a device type too")
        ends = [*names, self.memory]
        for pair in self.links:
            if unknown := [name for name in pair if name not in ends]:
                raise ConfigError(f"platform: field links{list(pair)}: unknown device type {unknown[0]!r}")
        object.__setattr__(self, "links", MappingProxyType(dict(self.links)))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt(self, "links")

    def link(self, source: str, target: str) -> Link:
        """Return the link from one device type to another.

        Raises:
            ConfigError: the platform has no such link.
        """
        if (source, target) not in self.links:
            raise ConfigError(f"platform: field links: no link from {source!r} to {target!r}")
        return self.links[source, target]


def _rebuilt(item: Any, mapping: str) -> tuple[Any, ...]:
    """Return what pickle needs to build a dataclass again whose field ``mapping`` is a read-only mapping."""
    values = {each.name: getattr(item, each.name) for each in fields(item)}
    kind: Callable[..., Any] = type(item)
    return partial(kind, **(values | {mapping: dict(values[mapping])})), ()


def _norm(first: float, second: float, power: float) -> float:
    """Return the p-norm of two times, scaled by the longer one so that it neither over- nor underflows."""
    longer, shorter = max(first, second), min(first, second)
    if longer == 0.0 or math.isinf(power):
        return longer
    return float(longer * (1.0 + (shorter / longer) ** power) ** (1.0 / power))


def _require(where: str, figures: Mapping[str, float | None], *, zero: bool = False) -> None:
    """Refuse figures that are negative, not finite, or zero unless ``zero`` allows it; None is absent."""
    for name, value in figures.items():
        if value is None:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        if not number or value < 0 or (value == 0 and not zero):
            expected = "0 or a positive number" if zero else "a positive number"
            raise ConfigError(f"{where}: field {name}: {value!r}, expected {expected}")
