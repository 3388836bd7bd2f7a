"""The text of XLA HLO modules: computations and their instructions, with line numbers for complaints."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from schedrl.envs.memmap.hlo_shapes import Shape, parse_shape
from schedrl.envs.memmap.program_order import format_cycle, topological_order
from schedrl.errors import InstanceError

__all__ = ["Computation", "Instruction", "Module", "is_hlo", "parse_hlo_text"]

_NAME = r"%?([\w.\-$]+)"
_HEADER = re.compile(rf"(ENTRY\s+)?{_NAME}\s*(?:\(.*\)\s*->\s*[^=]*)?\{{")
_INSTRUCTION = re.compile(rf"(ROOT\s+)?{_NAME}\s+=\s+")
_OPCODE = re.compile(r"\s*([a-z][a-z0-9\-]*)\s*\(")
_MODULE = re.compile(r"HloModule\s+([^\s,]+)")
_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")
_COMMENT = re.compile(r"/\*.*?\*/")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_BRACKETS = re.compile(r"[(){}\[\]]")
_CALLS = ("calls", "body", "true_computation", "false_computation", "branch_computations", "called_computations")
_NO_OPERANDS = ("parameter", "constant", "iota", "partition-id", "replica-id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction; ``attributes`` is what follows the operands, with strings emptied, ``text`` with them."""

    name: str
    shape: Shape
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    text: str
    line: int
    root: bool

    def attribute(self, name: str) -> str | None:
        """Return the value of an attribute without its braces, None where there is none."""
        match = re.search(rf"(?:^|[,\s]){name}=(\{{)?", self.attributes)
        if match is None:
            return None
        if match[1]:
            end = _closing(self.attributes, match.end() - 1)
            return self.attributes[match.end() : end]
        return re.split(r"[,\s]", self.attributes[match.end() :], maxsplit=1)[0]

    def called(self) -> list[str]:
        """Return the names of the computations that this instruction runs as a whole, not once per element."""
        names: list[str] = []
        for key in (
            "calls",
            "body",
            "true_computation",
            "false_computation",
            "branch_computations",
            "called_computations",
        ):
            names += [name.strip().removeprefix("%") for name in (self.attribute(key) or "").split(",") if name.strip()]
        if self.opcode == "call" and not names:
            names += [(self.attribute("to_apply") or "").removeprefix("%")]
        return names


@dataclass(slots=True, kw_only=True)
class Computation:
    """A computation: its instructions by name in the order of the text."""

    name: str
    line: int
    instructions: dict[str, Instruction] = field(default_factory=dict)

    @property
    def root(self) -> Instruction:
        """The instruction whose value is that of the computation: the one marked so, else the last."""
        marked = [instruction for instruction in self.instructions.values() if instruction.root]
        return marked[0] if marked else list(self.instructions.values())[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A module: its name, its computations by name, and which of them is the program."""

    name: str
    computations: dict[str, Computation]
    entry: Computation


def is_hlo(text: str) -> bool:
    """Tell whether a text is an HLO module: its first line that says something is the module's."""
    for line in text.split("\n"):
        if line.strip() and not line.strip().startswith("//"):
            return line.strip().startswith("HloModule")
    return False


def parse_hlo_text(text: str, *, source: str) -> Module:
    """Return the module in a text, which may leave out ``%``, signatures and the shapes of operands.

    Raises:
        InstanceError: names file and line; broken text, a name defined twice, an operand that is unknown, used before
            its definition, or part of a cycle.
    """
    name = ""
    computations: dict[str, Computation] = {}
    entry: Computation | None = None
    current: Computation | None = None
    for line, statement in _statements(text):
        where = f"{source}:{line}"
        if not name:
            module = _MODULE.match(statement)
            if module is None:
                raise InstanceError(f"{where}: got {statement[:40]!r}, expected HloModule and a name")
            name = module[1]
        elif current is None:
            header = _HEADER.fullmatch(statement)
            if header is None:
                raise InstanceError(f"{where}: got {statement[:40]!r}, expected the start of a computation")
            if header[2] in computations:
                first = computations[header[2]].line
                raise InstanceError(f"{where}: computation {header[2]} is defined in lines {first} and {line}")
            current = computations[header[2]] = Computation(name=header[2], line=line)
            if header[1]:
                if entry is not None:
                    raise InstanceError(f"{where}: a second ENTRY, the first is in line {entry.line}")
                entry = current
        elif statement.startswith("}"):
            if not current.instructions:
                raise InstanceError(f"{where}: computation {current.name} has no instructions")
            current = None
        else:
            _add(current, _instruction(statement, line, where), where)
    if current is not None:
        raise InstanceError(f"{source}:{current.line}: computation {current.name} does not end, expected '}}'")
    if entry is None:
        raise InstanceError(f"{source}: no ENTRY computation")
    for computation in computations.values():
        _check_order(computation, source)
    return Module(name=name, computations=computations, entry=entry)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield line number and text of the module line, computation starts and ends, and instructions on one line each."""
    parts: list[str] = []
    start, depth, inside, tables = 0, 0, False, False
    for number, raw in enumerate(text.split("\n"), start=1):
        line = _COMMENT.sub("", raw).strip()
        if not line or line.startswith("//"):
            continue
        if not inside and (tables or line in _TABLES):
            tables = line in _TABLES or line[0].isdecimal()
            if tables:
                continue
        fresh = line.startswith("}") or not inside or _INSTRUCTION.match(line) is not None
        if parts and depth <= 0 and fresh:
            yield start, " ".join(parts)
            parts, depth = [], 0
        # A computation begins or ends on its own line; only instructions and the module line go on over several.
        if not parts and (line.startswith("}") if inside else line.endswith("{") and not line.startswith("HloModule")):
            inside = not inside
            yield number, line
            continue
        start = start if parts else number
        parts.append(line)
        bare = _STRING.sub("", line)
        depth += sum(bare.count(c) for c in "({[") - sum(bare.count(c) for c in ")}]")
    if parts:
        yield start, " ".join(parts)


def _instruction(statement: str, line: int, where: str) -> Instruction:
    head = _INSTRUCTION.match(statement)
    if head is None:
        raise InstanceError(f"{where}: got {statement[:40]!r}, expected name = shape opcode(operands)")
    name = head[2]
    try:
        shape, at = parse_shape(statement, head.end())
    except ValueError as error:
        raise InstanceError(f"{where}: field shape: {name:.60}: {error}") from None
    opcode = _OPCODE.match(statement, at)
    if opcode is None:
        raise InstanceError(
            f"{where}: field opcode: {name:.60}: got {statement[at : at + 40]!r}, expected opcode(operands)"
        )
    end = _closing(_STRING.sub(lambda match: "_" * len(match[0]), statement), opcode.end() - 1)
    if end < 0:
        raise InstanceError(f"{where}: field operands: {name:.60}: the list does not end")
    operands: tuple[str, ...] = ()
    if opcode[1] not in _NO_OPERANDS:
        operands = tuple(_operand(part, name, where) for part in _split(statement[opcode.end() : end]))
    rest = statement[end + 1 :]
    return Instruction(
        name=name,
        shape=shape,
        opcode=opcode[1],
        operands=operands,
        attributes=_STRING.sub('""', rest),
        text=rest,
        line=line,
        root=head[1] is not None,
    )


def _operand(part: str, name: str, where: str) -> str:
    words = part.split()
    if not words or not re.fullmatch(_NAME, words[-1]):
        raise InstanceError(
            f"{where}: field operands: {name:.60}: got {part[:40]!r}, expected the name of an instruction"
        )
    return words[-1].removeprefix("%")


def _add(computation: Computation, instruction: Instruction, where: str) -> None:
    name = instruction.name
    if name in computation.instructions:
        first = computation.instructions[name].line
        raise InstanceError(f"{where}: field name: {name:.60} is defined in lines {first} and {instruction.line}")
    computation.instructions[name] = instruction


def _check_order(computation: Computation, source: str) -> None:
    """Complain about operands that are unknown or come later, told apart from cycles."""
    instructions = list(computation.instructions.values())
    number = {instruction.name: i for i, instruction in enumerate(instructions)}
    before: list[list[int]] = []
    early: tuple[Instruction, str] | None = None
    for i, instruction in enumerate(instructions):
        for operand in instruction.operands:
            if operand not in number:
                where = f"{source}:{instruction.line}"
                raise InstanceError(f"{where}: field operands: {instruction.name:.60}: unknown operand {operand:.60}")
            if number[operand] >= i and early is None:
                early = instruction, operand
        before.append(sorted({number[operand] for operand in instruction.operands}))
    if early is None:
        return
    _, cycle = topological_order(before)
    if cycle:
        shown = format_cycle(cycle, [instruction.name for instruction in instructions])
        raise InstanceError(f"{source}:{instructions[cycle[0]].line}: field operands: cyclic op order: {shown}")
    instruction, operand = early
    raise InstanceError(
        f"{source}:{instruction.line}: field operands: operation {instruction.name:.60} uses buffer {operand:.60} "
        f"before its definition in line {computation.instructions[operand].line}"
    )


def _closing(text: str, at: int) -> int:
    """Return where the bracket at ``at`` closes in a text without strings, -1 if nowhere."""
    depth = 0
    for match in _BRACKETS.finditer(text, at):
        depth += 1 if match[0] in "({[" else -1
        if depth == 0:
            return match.start()
    return -1


def _split(text: str) -> Sequence[str]:
    """Split at the commas that no bracket encloses."""
    parts, depth, start = [], 0, 0
    for match in re.finditer(r"[(){}\[\],]", text):
        if match[0] == "," and depth == 0:
            parts.append(text[start : match.start()])
            start = match.end()
        elif match[0] != ",":
            depth += 1 if match[0] in "({[" else -1
    last = text[start:]
    return [*parts, last] if parts or last.strip() else []
