"""Presets of devices whose memory has layers: every figure with where it comes from."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from schedrl.devices.catalogue import Figure, Kind
from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.errors import ConfigError, unknown_name

__all__ = ["MemoryEntry", "get_memory_device", "load_memories"]

_PATH = Path(__file__).with_name("memories.toml")
_LAYER_FIGURES = ("capacity_bytes", "bytes_per_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEntry:
    """A device and the figures it is built from, by path such as ``HBM.bytes_per_s``."""

    device: MemoryDevice
    figures: Mapping[str, Figure]


def load_memories(path: Path | None = None) -> Mapping[str, MemoryEntry]:
    """Read devices by name; without a path, those that come with the package.

    The file is TOML: a table per device with the figure ``flops_per_s`` and a list ``layers``, slow layer first; a
    layer has a ``name`` and the figures ``bytes_per_s`` and ``capacity_bytes``, of which only the slow layer may lack
    the latter. A figure is ``{ value = 614e9, kind = "vendor", source = "data sheet" }``.

    Raises:
        ConfigError: not TOML, an unknown or missing figure, or a figure without value, kind or source.
    """
    if path is None:
        return _shipped()
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {' '.join(str(error).split())}") from None
    return MappingProxyType({name: _entry(name, value, f"{path}: device {name}") for name, value in data.items()})


def get_memory_device(name: str, capacity_bytes: int | None = None) -> MemoryDevice:
    """Return a shipped device, if given with another capacity in bytes of its first fast layer.

    Raises:
        UnknownNameError: no such device; the message lists the closest names.
        ConfigError: a capacity that is no integer of at least 1.
    """
    memories = _shipped()
    if name not in memories:
        raise unknown_name("memory device", name, memories)
    device = memories[name].device
    return device if capacity_bytes is None else device.with_capacity(capacity_bytes)


@cache
def _shipped() -> Mapping[str, MemoryEntry]:
    return load_memories(_PATH)


def _entry(name: str, data: Any, where: str) -> MemoryEntry:
    if not isinstance(data, dict) or not isinstance(data.get("layers"), list):
        raise ConfigError(f"{where}: expected a table with a list of layers, got {data!r:.40}")
    if unknown := sorted(set(data) - {"layers", "flops_per_s"}):
        raise ConfigError(f"{where}: field {unknown[0]}: unknown, expected layers and flops_per_s")
    figures = {"flops_per_s": _figure(data.get("flops_per_s"), f"{where}: field flops_per_s")}
    layers = []
    for number, table in enumerate(data["layers"]):
        layer, own = _layer(table, f"{where}: field layers[{number}]")
        layers.append(layer)
        figures |= {f"{layer.name}.{field}": figure for field, figure in own.items()}
    device = MemoryDevice(name=name, flops_per_s=figures["flops_per_s"].value, layers=tuple(layers), supply="idle")
    return MemoryEntry(device=device, figures=MappingProxyType(figures))


def _layer(data: Any, where: str) -> tuple[MemoryLayer, Mapping[str, Figure]]:
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        raise ConfigError(f"{where}: expected a table with a name, got {data!r:.40}")
    if unknown := sorted(set(data) - {"name", *_LAYER_FIGURES}):
        raise ConfigError(f"{where}.{unknown[0]}: unknown, expected name, {', '.join(_LAYER_FIGURES)}")
    figures = {
        field: _figure(data.get(field), f"{where}.{field}")
        for field in _LAYER_FIGURES
        if field in data or field == "bytes_per_s"
    }
    rate = figures["bytes_per_s"].value
    capacity = None
    if "capacity_bytes" in figures:
        value = figures["capacity_bytes"].value
        if not value.is_integer():
            raise ConfigError(f"{where}.capacity_bytes.value: {value}, expected whole bytes")
        capacity = int(value)
    layer = MemoryLayer(name=data["name"], read_bytes_per_s=rate, write_bytes_per_s=rate, capacity_bytes=capacity)
    return layer, figures


def _figure(data: Any, where: str) -> Figure:
    if not isinstance(data, dict) or set(data) != {"value", "kind", "source"}:
        raise ConfigError(f"{where}: expected {{ value, kind, source }}, got {data!r:.60}")
    value, kind, source = data["value"], data["kind"], data["source"]
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ConfigError(f"{where}.value: {value!r}, expected a number")
    if kind not in get_args(Kind):
        raise ConfigError(f"{where}.kind: {kind!r}, expected one of {', '.join(get_args(Kind))}")
    if not isinstance(source, str) or not source.strip():
        raise ConfigError(f"{where}.source: {source!r}, expected where the figure comes from")
    return Figure(value=float(value), kind=kind, source=source)
