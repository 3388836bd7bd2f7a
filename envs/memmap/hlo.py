"""XLA HLO text as a program: every instruction of ENTRY that does work is an operation, in the order of the text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from schedrl.devices.memory import MemoryDevice
from schedrl.envs.memmap.hlo_flops import FlopCounter, trip_count
from schedrl.envs.memmap.hlo_shapes import Shape, TupleShape, leaves
from schedrl.envs.memmap.hlo_text import Computation, Instruction, Module, parse_hlo_text
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.program_json import default_memory
from schedrl.errors import InstanceError

__all__ = ["parse_hlo"]

# What only gives another view of its first operand.
_VIEWS = frozenset({"bitcast", "bitcast-convert", "reshape", "optimization-barrier", "add-dependency", "domain"})
_SOURCES = frozenset({"parameter", "constant"})
_OPERAND_FIRST = frozenset({"all-gather-start", "collective-permute-start"})
_ALIASES = re.compile(r"\{([\d,\s]*)\}:\s*\(\s*(\d+)\s*,\s*\{([\d,\s]*)\}")

Value = int | tuple["Value", ...]
"""Which buffer an instruction's result lies in, -1 for none, or one value per element of a tuple."""


@dataclass(slots=True)
class _Use:
    buffer: int
    bytes: int
    group: int = -1


@dataclass(slots=True)
class _Operation:
    label: str
    flops: float
    trips: int = 1
    reads: list[_Use] = field(default_factory=list)
    writes: list[_Use] = field(default_factory=list)
    in_place: list[tuple[int, int]] = field(default_factory=list)  # buffers of operand and result
    updated_bytes: int | None = None  # what is written if the result takes the operand's place


def parse_hlo(text: str, *, source: str, memory: MemoryDevice | None = None) -> MemoryMapInstance:
    """Return the program of a module's ENTRY, which is named after the module.

    Parameters and constants are buffers without definition; bitcasts, reshapes, tuples and their elements are views of
    the buffers that they show. Asynchronous copies and slices, which a compiler put there to move data between layers,
    are left out: their readers read the original. Sizes include the padding of layouts. A dynamic slice or gather
    reads what it returns. A loop is one operation that runs as often as its configuration knows and reads and writes
    its state on each trip; parts of the state that the body hands on unchanged are only read. Results that can take an
    operand's place (loop state, updates of slices, declared aliases) form an alias group with it where nobody needs the
    operand later and it is no parameter; donated parameters are not looked at. Operations are counted by
    ``FlopCounter``.

    Args:
        text: HLO text, scheduled or not; its order must respect dependencies.
        source: Where it came from, the start of every error message.
        memory: The device, ``default_memory`` if not given.

    Raises:
        InstanceError: names file and line.
    """
    module = parse_hlo_text(text, source=source)
    program = _Program(module, source)
    for instruction in module.entry.instructions.values():
        program.add(instruction)
    output = {buffer for buffer in _buffers(program.values[module.entry.root.name])}
    _group(program.ops, output, {buffer for op in program.ops for buffer in (use.buffer for use in op.writes)})
    rows = [
        (t, use.buffer, write, use.bytes, use.group)
        for t, op in enumerate(program.ops)
        for write, uses in enumerate((op.reads, op.writes))
        for use in uses
    ]
    table = np.array(rows, dtype=np.int64).reshape(-1, 5)
    try:
        return MemoryMapInstance(
            name=module.name,
            memory=memory or default_memory(),
            flops=np.array([op.flops for op in program.ops], dtype=np.float64),
            trips=np.array([op.trips for op in program.ops], dtype=np.int64),
            size=np.array(program.sizes, dtype=np.int64),
            output=np.array([b in output for b in range(len(program.sizes))], dtype=np.bool_),
            access_op=table[:, 0].astype(np.int32),
            access_buffer=table[:, 1].astype(np.int32),
            access_write=table[:, 2].astype(np.bool_),
            access_bytes=table[:, 3],
            access_group=table[:, 4].astype(np.int32),
            op_labels=tuple(op.label for op in program.ops),
            buffer_labels=tuple(program.labels),
        )
    except InstanceError as error:
        raise InstanceError(f"{source}: {error}") from None


class _Program:
    """The operations and buffers that the instructions of ENTRY make, one after another."""

    def __init__(self, module: Module, source: str) -> None:
        self.sizes: list[int] = []
        self.labels: list[str] = []
        self.ops: list[_Operation] = []
        self.values: dict[str, Value] = {}
        self._module = module
        self._source = source
        self._flops = FlopCounter(module, source)

    def add(self, instruction: Instruction) -> None:
        """Work out where an instruction's result lies; add an operation if it does work."""
        operands = [self.values[name] for name in instruction.operands]
        if instruction.opcode in _SOURCES:
            value = self._new(instruction.shape, instruction.name)
        elif instruction.opcode == "tuple":
            value = tuple(operands)
        else:
            first = operands[0] if operands else -1
            view = self._view(instruction, first)
            value = self._operation(instruction, operands) if view is None else view
        self.values[instruction.name] = value

    def _view(self, instruction: Instruction, first: Value) -> Value | None:
        """Return the value of an instruction that moves nothing, None for others."""
        opcode = instruction.opcode
        if opcode == "get-tuple-element":
            index = instruction.attribute("index") or ""
            if not isinstance(first, tuple) or not index.isdecimal() or len(index) > 9 or int(index) >= len(first):
                raise InstanceError(
                    f"{self._source}:{instruction.line}: field index: {instruction.name:.60}: the operand has no "
                    f"element {index or None!r:.40}"
                )
            return first[int(index)]
        if opcode in _VIEWS or 'custom_call_target="ConcatBitcast"' in instruction.text:
            return first
        if opcode == "copy-start":
            # Whoever copies to another layer reads the original as far as the program is concerned.
            return (first, first, -1)
        if opcode == "copy-done":
            return first[0] if isinstance(first, tuple) and first else first
        if opcode == "slice-start":
            return ((first,), first, -1)
        if opcode.endswith("-update") and opcode.startswith("async"):
            return first
        if opcode.endswith("-done"):
            return _finished(first, instruction.shape)
        return -1 if opcode == "after-all" else None

    def _operation(self, instruction: Instruction, operands: Sequence[Value]) -> Value:
        op = _Operation(instruction.name, self._flops.instruction(instruction, self._module.entry))
        read = [buffer for operand in operands for buffer in _buffers(operand)]
        if instruction.opcode == "while":
            value, kept = self._loop(instruction, op, operands)
            read = [buffer for buffer in read if buffer not in kept]
        elif _operands_first(instruction):
            assert isinstance(instruction.shape, TupleShape)
            result = self._new(instruction.shape.elements[1], instruction.name)
            value = (tuple(operands), result, *(-1 for _ in instruction.shape.elements[2:]))
            op.writes = self._uses(_buffers(result))
        else:
            value = self._new(instruction.shape, instruction.name)
            op.writes = self._uses(_buffers(value))
        op.reads = self._uses(dict.fromkeys(read))
        self._refine(instruction, op, operands, value)
        if op.reads or op.writes:
            self.ops.append(op)
        return value

    def _refine(self, instruction: Instruction, op: _Operation, operands: Sequence[Value], value: Value) -> None:
        """Set bytes and places where an instruction does not read and write all of everything."""
        first = operands[0] if operands else -1
        if instruction.opcode in ("dynamic-slice", "gather") and isinstance(first, int) and isinstance(value, int):
            for use in op.reads:
                if use.buffer == first and value >= 0:
                    use.bytes = min(use.bytes, self.sizes[value])
        if instruction.opcode == "dynamic-update-slice" and len(operands) > 1:
            update = operands[1]
            if isinstance(first, int) and isinstance(value, int) and isinstance(update, int) and update >= 0:
                op.in_place.append((first, value))
                op.updated_bytes = self.sizes[update]
        for output, number, inner in _ALIASES.findall(instruction.attribute("output_to_operand_aliasing") or ""):
            target = _element(value, output)
            origin = _element(operands[int(number)], inner) if int(number) < len(operands) else None
            if isinstance(target, int) and isinstance(origin, int):
                op.in_place.append((origin, target))

    def _loop(self, instruction: Instruction, op: _Operation, operands: Sequence[Value]) -> tuple[Value, set[int]]:
        """Return the state after a loop, and the buffers that pass through it untouched."""
        body = self._module.computations.get((instruction.attribute("body") or "").removeprefix("%"))
        if body is None or len(operands) != 1:
            raise InstanceError(
                f"{self._source}:{instruction.line}: field body: {instruction.name:.60}: no such loop body"
            )
        op.trips = trip_count(instruction)
        state = operands[0]
        shapes = instruction.shape.elements if isinstance(instruction.shape, TupleShape) else ()
        if not isinstance(state, tuple) or len(state) != len(shapes):
            value = self._new(instruction.shape, instruction.name)
            op.writes = self._uses(_buffers(value))
            op.in_place += zip(_buffers(state), _buffers(value), strict=False)
            return value, set()
        constant, unread = _unchanged(body)
        after: list[Value] = []
        for index, (before, shape) in enumerate(zip(state, shapes, strict=True)):
            if index in constant:
                after.append(before)
                continue
            new = self._new(shape, f"{instruction.name}{{{index}}}")
            after.append(new)
            op.in_place += zip(_buffers(before), _buffers(new), strict=False)
        op.writes = self._uses(
            buffer for index, new in enumerate(after) if index not in constant for buffer in _buffers(new)
        )
        touched = {buffer for index, old in enumerate(state) if index not in unread for buffer in _buffers(old)}
        return tuple(after), {buffer for index in unread for buffer in _buffers(state[index])} - touched

    def _uses(self, buffers: Iterator[int] | dict[int, None]) -> list[_Use]:
        return [_Use(buffer, self.sizes[buffer]) for buffer in buffers]

    def _new(self, shape: Shape, label: str) -> Value:
        """Return new buffers for a shape; nothing for arrays without bytes."""
        if isinstance(shape, TupleShape):
            return tuple(self._new(element, f"{label}{{{i}}}") for i, element in enumerate(shape.elements))
        if shape.bytes == 0:
            return -1
        self.sizes.append(shape.bytes)
        self.labels.append(label)
        return len(self.sizes) - 1


def _finished(started: Value, shape: Shape) -> Value:
    """Return what the end of an asynchronous operation returns: the second element of its start, or all of it."""
    if isinstance(started, tuple) and len(started) > 1:
        wanted = [leaf.bytes for leaf in leaves(shape) if leaf.bytes]
        if len(list(_buffers(started[1]))) == len(wanted) and not isinstance(started[0], int):
            return started[1]
    return started


def _operands_first(instruction: Instruction) -> bool:
    """Tell whether an instruction returns its operands, its results, and perhaps contexts."""
    shape = instruction.shape
    if not isinstance(shape, TupleShape) or len(shape.elements) < 2 or not instruction.opcode.endswith("-start"):
        return False
    return instruction.opcode in _OPERAND_FIRST or isinstance(shape.elements[0], TupleShape)


def _buffers(value: Value) -> Iterator[int]:
    if isinstance(value, int):
        if value >= 0:
            yield value
        return
    for element in value:
        yield from _buffers(element)


def _element(value: Value, path: str) -> Value | None:
    for number in (part for part in path.split(",") if part.strip()):
        if not isinstance(value, tuple) or int(number) >= len(value):
            return None
        value = value[int(number)]
    return value


def _unchanged(body: Computation) -> tuple[set[int], set[int]]:
    """Return the elements of the state that a loop body hands on as they are, and those that it does not even read."""
    root = body.root
    parameter = next((i.name for i in body.instructions.values() if i.opcode == "parameter"), None)
    shown = {
        i.name: int(i.attribute("index") or "-1")
        for i in body.instructions.values()
        if i.opcode == "get-tuple-element" and i.operands == (parameter,) and (i.attribute("index") or "").isdecimal()
    }
    if root.opcode != "tuple":
        return set(), set()
    constant = {index for index, name in enumerate(root.operands) if shown.get(name) == index}
    users = [i for i in body.instructions.values() if i.name != root.name]
    read = {shown[name] for i in users for name in i.operands if name in shown}
    whole = any(parameter in i.operands and i.name not in shown for i in body.instructions.values())
    return constant, set() if whole else constant - read


def _group(ops: Sequence[_Operation], output: set[int], defined: set[int]) -> None:
    """Put a result into its operand's place where that is nobody's loss: one alias group for both accesses."""
    last = {use.buffer: t for t, op in enumerate(ops) for use in op.reads}
    group = 0
    for t, op in enumerate(ops):
        taken: set[int] = set()
        for origin, target in op.in_place:
            read = next((use for use in op.reads if use.buffer == origin), None)
            written = next((use for use in op.writes if use.buffer == target), None)
            lost = origin in output or origin not in defined or origin in taken or last.get(origin) != t
            if read is None or written is None or lost:
                continue
            taken.add(origin)
            read.group = written.group = group
            group += 1
            if op.updated_bytes is not None:
                read.bytes, written.bytes = 0, min(op.updated_bytes, written.bytes)
