"""Graphs of the MLSys 2026 contest of Google as programs; its question of tiles and groups is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.instance import MAX_BYTES, MemoryMapInstance
from schedrl.envs.memmap.program_order import definitions, format_cycle, predecessors, topological_order
from schedrl.errors import ConfigError, InstanceError

__all__ = ["FAST_FACTOR", "parse_contest"]

FAST_FACTOR = 1e6
"""The contest's fast memory takes no time; here it is this many times as fast as the slow one."""


def parse_contest(data: Mapping[str, Any], *, source: str, name: str) -> MemoryMapInstance:
    """Return the graph in a contest document.

    Tensors become buffers of width times height bytes, the contest's units; those that nobody produces are inputs,
    those that nobody consumes outputs. Operations keep their order where it is topological, else the first such order
    is taken. One takes its base cost, in seconds, once for every native tile of its largest result. Reading and writing
    fast memory costs a millionth of slow memory, where the contest says nothing.

    What remains of the contest is which tensors stay in fast memory between operations. Its subgraphs, whose inner
    tensors need no memory, and the granularity of its tiles are not part of a program; copies may run beside earlier
    operations here, which the contest serialises; and buffers get offsets, where it only sums sizes. With everything in
    slow memory, a graph of pointwise operations takes as long as in the contest with a subgraph for each of them.

    Raises:
        InstanceError: names file and field.
    """
    widths, heights = (_integers(data.get(key), f"{source}: field {key}", 1) for key in ("widths", "heights"))
    if len(heights) != len(widths):
        raise InstanceError(f"{source}: field heights: {len(heights)} values for {len(widths)} widths")
    sizes = [width * height for width, height in zip(widths, heights, strict=True)]
    for tensor, size in enumerate(sizes):
        if size > MAX_BYTES:
            raise InstanceError(f"{source}: field widths[{tensor}]: tensor of {size} units, expected up to {MAX_BYTES}")
    costs, kinds = _costs(data, source), _kinds(data, source)
    counts = [len(data[key]) if isinstance(data.get(key), list) else 0 for key in ("inputs", "outputs")]
    if not counts[0] == counts[1] == len(costs) == len(kinds):
        raise InstanceError(
            f"{source}: field inputs: inputs, outputs, base_costs and op_types have {counts[0]}, {counts[1]}, "
            f"{len(costs)} and {len(kinds)} entries, expected one for each operation"
        )
    reads, writes = (_tensors(data, key, len(widths), source) for key in ("inputs", "outputs"))
    labels = [f"{kind}.{k}" for k, kind in enumerate(kinds)]
    defined = definitions(writes, len(widths))
    for tensor, by in enumerate(defined):
        if len(by) > 1:
            raise InstanceError(
                f"{source}: field outputs[{by[1]}]: buffer {tensor} is defined by operations {labels[by[0]]} and "
                f"{labels[by[1]]}, expected one definition"
            )
    order, cycle = topological_order(predecessors(reads, defined))
    if cycle:
        raise InstanceError(f"{source}: field inputs[{cycle[0]}]: cyclic op order: {format_cycle(cycle, labels)}")
    tile_width, tile_height = _granularity(data, source)
    tiles = [
        max((math.ceil(widths[t] / tile_width) * math.ceil(heights[t] / tile_height) for t in results), default=1)
        for results in writes
    ]
    consumed = {tensor for operands in reads for tensor in operands}
    accesses = [(t, b, write) for t, k in enumerate(order) for write in (0, 1) for b in (reads, writes)[write][k]]
    table = np.array(accesses, dtype=np.int64).reshape(-1, 3)
    memory = _memory(data, source)
    try:
        return MemoryMapInstance(
            name=name,
            memory=memory,
            flops=np.zeros(len(order)),
            compute_s=np.array([costs[k] * tiles[k] for k in order]),
            size=np.array(sizes, dtype=np.int64),
            output=np.array([tensor not in consumed for tensor in range(len(widths))], dtype=np.bool_),
            access_op=table[:, 0].astype(np.int32),
            access_buffer=table[:, 1].astype(np.int32),
            access_write=table[:, 2].astype(np.bool_),
            op_labels=tuple(labels[k] for k in order),
        )
    except InstanceError as error:
        raise InstanceError(f"{source}: {error}") from None


def _memory(data: Mapping[str, Any], source: str) -> MemoryDevice:
    bandwidth = _number(data.get("slow_memory_bandwidth"), f"{source}: field slow_memory_bandwidth")
    capacity = data.get("fast_memory_capacity")
    if type(capacity) is not int or not 1 <= capacity <= MAX_BYTES:
        raise InstanceError(f"{source}: field fast_memory_capacity: got {capacity!r:.40}, expected an integer >= 1")
    fast = bandwidth * FAST_FACTOR
    try:
        return MemoryDevice(
            name="mlsys2026",
            flops_per_s=1.0,
            layers=(
                MemoryLayer(name="slow", read_bytes_per_s=bandwidth, write_bytes_per_s=bandwidth),
                MemoryLayer(name="fast", read_bytes_per_s=fast, write_bytes_per_s=fast, capacity_bytes=capacity),
            ),
        )
    except ConfigError as error:
        raise InstanceError(f"{source}: field slow_memory_bandwidth: {error}") from None


def _tensors(data: Mapping[str, Any], key: str, tensors: int, source: str) -> list[list[int]]:
    value = data.get(key)
    if not isinstance(value, list):
        raise InstanceError(f"{source}: field {key}: expected a list of lists of tensors, got {value!r:.40}")
    lists = [_integers(item, f"{source}: field {key}[{k}]", 0) for k, item in enumerate(value)]
    for k, numbers in enumerate(lists):
        for tensor in numbers:
            if tensor >= tensors:
                raise InstanceError(
                    f"{source}: field {key}[{k}]: unknown operand {tensor}, there are tensors 0 to {tensors - 1}"
                )
    return lists


def _costs(data: Mapping[str, Any], source: str) -> list[float]:
    value = data.get("base_costs")
    if not isinstance(value, list):
        raise InstanceError(f"{source}: field base_costs: expected a list of numbers, got {value!r:.40}")
    return [_number(cost, f"{source}: field base_costs[{k}]") for k, cost in enumerate(value)]


def _kinds(data: Mapping[str, Any], source: str) -> list[str]:
    value = data.get("op_types")
    if not isinstance(value, list) or not all(isinstance(kind, str) for kind in value):
        raise InstanceError(f"{source}: field op_types: expected a list of str, got {value!r:.40}")
    return [" ".join(kind.split())[:40] for kind in value]


def _granularity(data: Mapping[str, Any], source: str) -> tuple[int, int]:
    value = _integers(data.get("native_granularity"), f"{source}: field native_granularity", 1)
    if len(value) != 2:
        raise InstanceError(f"{source}: field native_granularity: {len(value)} values, expected width and height")
    return value[0], value[1]


def _integers(value: Any, where: str, least: int) -> list[int]:
    if not isinstance(value, list) or any(type(n) is not int or not least <= n <= MAX_BYTES for n in value):
        raise InstanceError(f"{where}: expected a list of integers of at least {least}, got {value!r:.40}")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e18:
        raise InstanceError(f"{where}: got {value!r:.40}, expected a number of 0 or more")
    return float(value)
