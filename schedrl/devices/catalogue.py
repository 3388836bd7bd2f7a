"""The catalogue of well-known devices: every figure with where it comes from."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from schedrl.devices.platform import Device, PowerState
from schedrl.errors import ConfigError, unknown_name

__all__ = ["CatalogueEntry", "Figure", "Kind", "get_device", "load_catalogue"]

Kind = Literal["vendor", "fitted", "extrapolated"]
"""vendor: a published specification; fitted: to published measurements; extrapolated: from a similar device"""

_PATH = Path(__file__).with_name("catalogue.toml")
_RATE = "flops_per_s_"
_SINGLE = (
    "memory_bytes", "memory_bandwidth_bytes_per_s", "mfu", "mbu", "operation_overhead_s", "price_usd_per_h"
)  # fmt: skip
_POWER = "power_w"
# Of serving language models: see ``serving_time.ServingRates``.
_SERVING = (
    "attention_mbu", "attention_mfu", "attention_overhead_s", "layer_overhead_s", "host_s", "mixed_attention_mbu",
    "mixed_sequence_s", "mixed_tile_s", "elementwise_mbu", "elementwise_overhead_s"
)  # fmt: skip
# Networks are figures of the machines that a device comes in, and so of clusters: see ``cluster.uniform_cluster``.
_NETWORK = ("intra_node_bytes_per_s", "inter_node_bytes_per_s", "host_bytes_per_s")
_KNOWN = (*_SINGLE, _POWER, *_SERVING, *_NETWORK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number, what kind of number it is, and its source."""

    value: float
    kind: Kind
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """A device and the figures it is built from, by field name."""

    device: Device
    figures: Mapping[str, Figure]


def load_catalogue(path: Path | None = None) -> Mapping[str, CatalogueEntry]:
    """Read a catalogue by device name; without a path, the one that comes with the package.

    The file is TOML: a table per device and in it one inline table per figure,
    ``memory_bytes = { value = 80e9, kind = "vendor", source = "data sheet" }``. Rates are named by precision,
    ``flops_per_s_bf16``; ``power_w`` is the power at full speed.

    Raises:
        ConfigError: not TOML, an unknown figure, or a figure without value, kind or source.
    """
    if path is None:
        return _shipped()
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {' '.join(str(error).split())}") from None
    return MappingProxyType({name: _entry(name, figures, f"{path}: device {name}") for name, figures in data.items()})


def get_device(name: str) -> Device:
    """Return a device of the shipped catalogue.

    Raises:
        UnknownNameError: no such device; the message lists the closest names.
    """
    catalogue = _shipped()
    if name not in catalogue:
        raise unknown_name("device", name, catalogue)
    return catalogue[name].device


@cache
def _shipped() -> Mapping[str, CatalogueEntry]:
    return load_catalogue(_PATH)


def _entry(name: str, data: Any, where: str) -> CatalogueEntry:
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: expected a table of figures, got {data!r:.40}")
    figures = {field: _figure(field, value, where) for field, value in data.items()}
    single: dict[str, Any] = {field: figures[field].value for field in _SINGLE if field in figures}
    power = (PowerState(name="full", power_w=figures[_POWER].value),) if _POWER in figures else ()
    rates = {field.removeprefix(_RATE): figure.value for field, figure in figures.items() if field.startswith(_RATE)}
    device = Device(name=name, flops_per_s=rates, power_states=power, **single)
    return CatalogueEntry(device=device, figures=MappingProxyType(figures))


def _figure(field: str, data: Any, where: str) -> Figure:
    if field not in _KNOWN and not field.startswith(_RATE):
        raise ConfigError(f"{where}: field {field}: unknown, expected {', '.join(_KNOWN)} or {_RATE}*")
    if not isinstance(data, dict) or set(data) != {"value", "kind", "source"}:
        raise ConfigError(f"{where}: field {field}: expected {{ value, kind, source }}, got {data!r:.60}")
    value, kind, source = data["value"], data["kind"], data["source"]
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ConfigError(f"{where}: field {field}.value: {value!r}, expected a number")
    if kind not in get_args(Kind):
        raise ConfigError(f"{where}: field {field}.kind: {kind!r}, expected one of {', '.join(get_args(Kind))}")
    if not isinstance(source, str) or not source.strip():
        raise ConfigError(f"{where}: field {field}.source: {source!r}, expected where the figure comes from")
    return Figure(value=float(value), kind=kind, source=source)
