"""Platforms as plain data, for the JSON of instances and for files that users write."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from schedrl.devices.platform import Device, Link, Platform, PowerState
from schedrl.errors import ConfigError

__all__ = ["platform_from_dict", "platform_to_dict"]


def platform_to_dict(platform: Platform) -> dict[str, Any]:
    """Return dictionaries, lists, strings and numbers that ``platform_from_dict`` reads back equal."""
    return {
        "devices": [
            _without_defaults(device) | {"count": count}
            for device, count in zip(platform.devices, platform.counts, strict=True)
        ],
        "links": [
            {"source": source, "target": target, **_fields(link)} for (source, target), link in platform.links.items()
        ],
        "memory": platform.memory,
    }


def platform_from_dict(data: Any, where: str = "platform") -> Platform:
    """Build a platform from plain data.

    Raises:
        ConfigError: an unknown or missing field, or a figure outside its range; ``where`` begins the message.
    """
    table = _table(data, where, {"devices", "links", "memory"})
    devices, counts = [], []
    for number, item in enumerate(_list(table, "devices", where)):
        place = f"{where}: field devices[{number}]"
        entry = dict(_table(item, place, {field.name for field in dataclasses.fields(Device)} | {"count"}))
        counts.append(entry.pop("count", 1))
        states = _list(entry, "power_states", place) if "power_states" in entry else []
        entry["power_states"] = tuple(
            _build(PowerState, state, f"{place}.power_states[{k}]") for k, state in enumerate(states)
        )
        if not isinstance(entry.get("name"), str):
            raise ConfigError(f"{place}.name: {entry.get('name')!r:.40}, expected a name")
        devices.append(_build(Device, entry, place))
    links = {}
    for number, item in enumerate(_list(table, "links", where) if "links" in table else []):
        place = f"{where}: field links[{number}]"
        entry = dict(_table(item, place, {"source", "target", "latency_s", "bandwidth_bytes_per_s"}))
        pair = entry.pop("source", None), entry.pop("target", None)
        if not all(isinstance(end, str) for end in pair):
            raise ConfigError(f"{place}: fields source and target: {pair}, expected two names")
        links[pair] = _build(Link, entry, place)
    memory = table.get("memory")
    if memory is not None and not isinstance(memory, str):
        raise ConfigError(f"{where}: field memory: {memory!r:.40}, expected a name or null")
    return Platform(devices=tuple(devices), counts=tuple(counts), links=links, memory=memory)


def _fields(item: Any) -> dict[str, Any]:
    return {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}


def _without_defaults(device: Device) -> dict[str, Any]:
    plain = Device(name=device.name)
    kept = {name: value for name, value in _fields(device).items() if name == "name" or value != getattr(plain, name)}
    if "flops_per_s" in kept:
        kept["flops_per_s"] = dict(kept["flops_per_s"])
    if "power_states" in kept:
        kept["power_states"] = [_fields(state) for state in kept["power_states"]]
    return kept


def _table(data: Any, where: str, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: expected a table of fields, got {data!r:.40}")
    if unknown := sorted(set(data) - known):
        raise ConfigError(f"{where}: field {unknown[0]}: unknown, expected {', '.join(sorted(known))}")
    return data


def _list(data: Mapping[str, Any], field: str, where: str) -> list[Any]:
    value = data.get(field)
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where}: field {field}: expected a list, got {value!r:.40}")
    return list(value)


def _build(kind: type[Any], data: Any, where: str) -> Any:
    names = {field.name for field in dataclasses.fields(kind)}
    try:
        return kind(**_table(data, where, names))
    except TypeError as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())[:120]}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}" if not str(error).startswith(where) else str(error)) from None
