"""Programs as JSON: our own files, and traces that name no device; complaints name line and field."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from schedrl.devices.memories import get_memory_device
from schedrl.devices.memory import MemoryDevice
from schedrl.envs.memmap.instance import SCHEMA, MemoryMapInstance
from schedrl.envs.memmap.program_order import definitions, format_cycle, predecessors, topological_order
from schedrl.errors import InstanceError

__all__ = ["default_memory", "line_of", "parse_program", "with_line"]

DEFAULT_DEVICE = "tpu-v4i"
DEFAULT_CAPACITY_BYTES = 16 * 2**20
_SPACE = re.compile(r"[ \t\n\r]*")
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


def default_memory() -> MemoryDevice:
    """Return the device of programs that name none: a TPU v4i of which they get 16 MiB of fast memory."""
    return get_memory_device(DEFAULT_DEVICE, DEFAULT_CAPACITY_BYTES)


def parse_program(
    data: Mapping[str, Any], text: str, *, source: str, memory: MemoryDevice | None = None
) -> MemoryMapInstance:
    """Return the program in a JSON document: that of ``MemoryMapInstance.to_json``, or the same without schema.

    Args:
        data: The document.
        text: Its text.
        source: Where it came from, the start of every error message.
        memory: The device; by default that of the document, and where it names none ``default_memory``.

    Raises:
        InstanceError: names file and field, and operation or buffer.
    """
    _check_numbers(data, source)
    _check_order(data, source)
    if data.get("schema") != SCHEMA:
        return MemoryMapInstance.from_program(data, memory=memory or default_memory(), source=source)
    instance = MemoryMapInstance.from_json(text, source=source)
    return instance if memory is None else instance.with_memory(memory)


def with_line(message: str, text: str, source: str) -> str:
    """Return a complaint about a JSON document, ``source: field path: ...``, with the line of that field."""
    match = re.match(r": (?:[^:]*: )?field ([^\s:]+)", message.removeprefix(source))
    if not message.startswith(source) or match is None:
        return message
    return f"{source}:{line_of(text, match[1])}{message.removeprefix(source)}"


def line_of(text: str, path: str) -> int:
    """Return the line of a field such as ``ops[3].reads`` in a valid JSON text, or of what is on the way to it."""
    decoder = json.JSONDecoder()
    at = _skip(text, 0)
    for index, key in _STEP.findall(path):
        found = _item(text, at, int(index), decoder) if index else _member(text, at, key, decoder)
        if found is None:
            break
        at = found
    return text.count("\n", 0, at) + 1


def _item(text: str, at: int, index: int, decoder: json.JSONDecoder) -> int | None:
    if text[at] != "[":
        return None
    at = _skip(text, at + 1)
    for _ in range(index):
        if text[at] == "]":
            return None
        at = _skip(text, decoder.raw_decode(text, at)[1])
        at = _skip(text, at + 1) if text[at] == "," else at
    return None if text[at] == "]" else at


def _member(text: str, at: int, key: str, decoder: json.JSONDecoder) -> int | None:
    if text[at] != "{":
        return None
    at = _skip(text, at + 1)
    found = None
    while text[at] == '"':
        name, at = decoder.raw_decode(text, at)
        at = _skip(text, _skip(text, at) + 1)
        if name == key:
            found = at  # of two members of one name the last counts
        at = _skip(text, decoder.raw_decode(text, at)[1])
        at = _skip(text, at + 1) if text[at] == "," else at
    return found


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _check_numbers(data: Mapping[str, Any], source: str) -> None:
    """Complain about numbers below their least value by the path of their field."""
    for key, fields in (("buffers", {"size": 1}), ("ops", {"flops": 0, "seconds": 0, "trips": 1})):
        records = data.get(key)
        for i, record in enumerate(records if isinstance(records, list) else []):
            for name, least in fields.items():
                value = record.get(name) if isinstance(record, dict) else None
                if isinstance(value, (int, float)) and not isinstance(value, bool) and value < least:
                    raise InstanceError(f"{source}: field {key}[{i}].{name}: {value}, expected at least {least}")


def _check_order(data: Mapping[str, Any], source: str) -> None:
    """Complain about buffers with two definitions and uses before the definition, told apart from cycles.

    Documents that are no program otherwise are left to the instance.
    """
    ops, buffers = data.get("ops"), data.get("buffers")
    if not isinstance(ops, list) or not isinstance(buffers, list):
        return
    uses = [[_known(op, key, len(buffers)) for op in ops] for key in ("reads", "writes")]
    if any(numbers is None for side in uses for numbers in side):
        return
    reads, writes = ([numbers or [] for numbers in side] for side in uses)
    op_labels, buffer_labels = _labels(ops), _labels(buffers)
    defined = definitions(writes, len(buffers))
    for buffer, by in enumerate(defined):
        if len(by) > 1:
            raise InstanceError(
                f"{source}: field ops[{by[1]}].writes: buffer {buffer_labels[buffer]} is defined by operations "
                f"{op_labels[by[0]]} and {op_labels[by[1]]}, expected one definition"
            )
    early = ((op, b) for op, operands in enumerate(reads) for b in operands if defined[b] and defined[b][0] >= op)
    op, buffer = next(early, (-1, -1))
    if op < 0:
        return
    _, cycle = topological_order(predecessors(reads, defined))
    if cycle:
        raise InstanceError(f"{source}: field ops[{cycle[0]}]: cyclic op order: {format_cycle(cycle, op_labels)}")
    raise InstanceError(
        f"{source}: field ops[{op}].reads: operation {op_labels[op]} uses buffer {buffer_labels[buffer]} before its "
        f"definition by operation {op_labels[defined[buffer][0]]}"
    )


def _known(op: Any, key: str, buffers: int) -> list[int] | None:
    numbers = op.get(key, []) if isinstance(op, dict) else None
    if not isinstance(numbers, list) or any(type(n) is not int or not 0 <= n < buffers for n in numbers):
        return None
    return numbers


def _labels(records: Sequence[Any]) -> list[str]:
    return [
        f"{record.get('label', i)!s:.40}" if isinstance(record, dict) else str(i) for i, record in enumerate(records)
    ]
