"""How long an all-reduce takes within a node, from condensed measurements of NCCL."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np

from schedrl.arrays import F64
from schedrl.devices.catalogue import Kind
from schedrl.errors import ConfigError, unknown_name

__all__ = ["AllReduceTable", "all_reduce_s", "all_reduce_table", "load_all_reduce_tables"]

_PATH = Path(__file__).with_name("collectives.toml")
_DOUBLINGS = 15
_BYTES_PER_ACTIVATION = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AllReduceTable:
    """Times of all-reduces between the devices of one kind of node."""

    name: str
    devices: tuple[str, ...]
    """catalogue names of the device types that it stands for"""
    kind: Kind
    source: str
    sizes: F64  # (S,) bytes per device, rising
    seconds: Mapping[int, F64]  # number of devices -> (S,)

    def time_s(self, size: F64, group: int) -> F64:
        """Return the seconds at sizes in bytes, any shape: linear between the table's, and on beyond its last two.

        Raises:
            ConfigError: the table has no column for that many devices.
        """
        if group not in self.seconds:
            known = ", ".join(map(str, self.seconds))
            raise ConfigError(f"all-reduce table {self.name}: no times for {group} devices, known: {known}")
        sizes, seconds = self.sizes, self.seconds[group]
        within = np.interp(size, sizes, seconds)
        slope = (seconds[-1] - seconds[-2]) / (sizes[-1] - sizes[-2])
        return np.asarray(within + np.maximum(size - sizes[-1], 0.0) * slope, dtype=np.float64)


@cache
def load_all_reduce_tables() -> Mapping[str, AllReduceTable]:
    """Return the tables that come with the package by name; each names its source."""
    data = tomllib.loads(_PATH.read_text(encoding="utf-8"))
    sizes = np.array(data["bytes"], dtype=np.float64)
    return MappingProxyType(
        {
            name: AllReduceTable(
                name=name,
                devices=tuple(item["devices"]),
                kind=item["kind"],
                source=item["source"],
                sizes=sizes,
                seconds={int(group): np.array(column) for group, column in item["seconds"].items()},
            )
            for name, item in data["groups"].items()
        }
    )


def all_reduce_table(device: str) -> AllReduceTable:
    """Return the table of a device type, or the table of that name, such as ``a100-nvlink-pairs``.

    Raises:
        UnknownNameError: there is neither; the message lists the closest names.
    """
    tables = load_all_reduce_tables()
    of_device = {name: table for table in tables.values() for name in table.devices}
    known = {**of_device, **tables}
    if device not in known:
        raise unknown_name("device with all-reduce times", device, known)
    return known[device]


def all_reduce_s(device: str, hidden: int, tensor_parallel: int) -> F64:
    """Return (15,) seconds of one all-reduce of the activations of 1, 2, 4, ..., 16384 tokens, at two bytes each.

    Args:
        device: catalogue name of a device type, or name of a table.
        hidden: width of the model.
        tensor_parallel: devices of the group; one has nothing to reduce.

    Raises:
        UnknownNameError: no times for that device.
        ConfigError: no times for so many devices.
    """
    if tensor_parallel == 1:
        return np.zeros(_DOUBLINGS)
    tokens = np.exp2(np.arange(_DOUBLINGS, dtype=np.float64))
    return all_reduce_table(device).time_s(tokens * hidden * _BYTES_PER_ACTIVATION, tensor_parallel)
