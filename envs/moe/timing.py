"""How long one layer takes on a cluster, and what moving experts costs: the constants of the time model.

A forward pass through a layer of experts is dispatch, experts, combine, one after the other. An all-to-all takes a
latency and the time of the busiest device at its bandwidth, inside nodes and between nodes at once.
``docs/architecture.md`` states the formulas; ``solution`` and ``layer_time`` implement them twice, independently.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from schedrl.errors import ConfigError

__all__ = ["AllToAll", "Deduplication", "LayerTiming", "Residence", "timing_from_dict"]

Deduplication = Literal["none", "device", "node"]
"""none: a token travels once per chosen expert; device: once per device that holds any of them; node: once per node
over the slow network, then once per device inside it"""
Residence = Literal["home", "path"]
"""home: tokens return to the device that holds their attention state (dispatch and combine in every layer);
path: a token stays where its expert is until the next layer (ExFlow, arXiv 2401.08383: one all-to-all per layer)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllToAll:
    """One exchange: bytes per value of a token's hidden state, and how well it uses each network.

    Raises:
        ConfigError: a figure outside its range.
    """

    bytes_per_value: float
    intra_latency_s: float = 10e-6
    inter_latency_s: float = 10e-6
    intra_efficiency: float = 1.0
    inter_efficiency: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, share = getattr(self, field.name), field.name.endswith("efficiency")
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value < 1e6 or (value == 0 and not field.name.endswith("latency_s")):
                raise ConfigError(f"all-to-all: field {field.name}: {value!r}, expected a positive number")
            if share and value > 1:
                raise ConfigError(f"all-to-all: field {field.name}: {value!r}, expected at most 1")


# FP8 with a four-byte scale per 128 values, and BF16.
_FP8, _BF16 = AllToAll(bytes_per_value=1.0 + 4.0 / 128.0), AllToAll(bytes_per_value=2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTiming:
    """The time model's constants.

    Raises:
        ConfigError: a figure outside its range.
    """

    dispatch: AllToAll = _FP8
    combine: AllToAll = _BF16
    expert_overhead_s: float = 3e-6
    """per layer and device"""
    migration_sync_s: float = 1e-4
    """per layer in which any expert moves"""
    deduplicate: Deduplication = "none"
    residence: Residence = "home"

    def __post_init__(self) -> None:
        for name in ("expert_overhead_s", "migration_sync_s"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and 0 <= value < 1e6):
                raise ConfigError(f"timing: field {name}: {value!r}, expected 0 or a positive number")
        for name, choices in (("deduplicate", Deduplication), ("residence", Residence)):
            if getattr(self, name) not in get_args(choices):
                raise ConfigError(
                    f"timing: field {name}: {getattr(self, name)!r}, expected one of {', '.join(get_args(choices))}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that ``timing_from_dict`` reads back equal."""
        return asdict(self)


def timing_from_dict(data: Any, where: str = "timing") -> LayerTiming:
    """Build the constants from plain data; absent fields have their defaults.

    Raises:
        ConfigError: an unknown field or a bad value; ``where`` begins the message.
    """
    values = dict(_table(data, where, LayerTiming))
    for name in ("dispatch", "combine"):
        if name in values:
            phase = _table(values[name], f"{where}: field {name}", AllToAll)
            if "bytes_per_value" not in phase:
                raise ConfigError(f"{where}: field {name}.bytes_per_value: missing")
            values[name] = AllToAll(**phase)
    return LayerTiming(**values)


def _table(data: Any, where: str, kind: type[Any]) -> dict[str, Any]:
    known = {field.name for field in fields(kind)}
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: expected a table of fields, got {data!r:.40}")
    if unknown := sorted(set(data) - known):
        raise ConfigError(f"{where}: field {unknown[0]}: unknown, expected {', '.join(sorted(known))}")
    return data
