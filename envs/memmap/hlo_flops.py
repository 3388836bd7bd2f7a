"""Floating-point operations of HLO instructions, from shapes: products of matrices and convolutions, nothing else."""

from __future__ import annotations

import math
import re

from schedrl.envs.memmap.hlo_shapes import ArrayShape, leaves
from schedrl.envs.memmap.hlo_text import Computation, Instruction, Module
from schedrl.errors import InstanceError

__all__ = ["FlopCounter", "trip_count"]

_TRIPS = re.compile(r"known_trip_count\W{1,8}n\W{1,8}(\d{1,12})")
_GEMM = re.compile(r'custom_call_target="[^"]*(?:gemm|matmul)[^"]*"', re.IGNORECASE)
_GEMM_CONTRACTING = re.compile(r"lhs_contracting_dimensions\W{1,8}([\d\W]*?)\]")
_CONV = re.compile(r"([0-9a-z?]+)_([0-9a-z?]+)->([0-9a-z?]+)")


def trip_count(instruction: Instruction) -> int:
    """Return how often a while loop runs where its backend_config knows, else 1."""
    match = _TRIPS.search(instruction.text)
    return max(int(match[1]), 1) if match else 1


class FlopCounter:
    """Counts the operations of instructions of one module; what a computation costs is worked out once."""

    def __init__(self, module: Module, source: str) -> None:
        self._module = module
        self._source = source
        self._known: dict[str, float] = {}
        self._open: list[str] = []

    def instruction(self, instruction: Instruction, computation: Computation) -> float:
        """Return the operations of one instruction; of a loop, those of one trip.

        A multiplication and its addition are two. Of the branches of a conditional the most expensive counts.

        Raises:
            InstanceError: names file and line; an unknown computation, one that calls itself, or a product whose
                dimensions do not fit its operands.
        """
        if instruction.opcode == "dot":
            return self._product(instruction, computation, instruction.attribute("lhs_contracting_dims"))
        if instruction.opcode == "convolution":
            return self._convolution(instruction, computation)
        if instruction.opcode == "custom-call" and _GEMM.search(instruction.text):
            contracting = _GEMM_CONTRACTING.search(instruction.text)
            found = ",".join(re.findall(r"\d+", contracting[1])) if contracting else None
            return self._product(instruction, computation, found)
        costs = [self._computation(name, instruction) for name in instruction.called()]
        return max(costs, default=0.0) if instruction.opcode == "conditional" else sum(costs)

    def _computation(self, name: str, caller: Instruction) -> float:
        if name in self._known:
            return self._known[name]
        where = f"{self._source}:{caller.line}"
        computation = self._module.computations.get(name)
        if computation is None:
            raise InstanceError(f"{where}: field calls: {caller.name:.60}: unknown computation {name:.60}")
        if name in self._open:
            raise InstanceError(f"{where}: field calls: {caller.name:.60}: computation {name:.60} calls itself")
        self._open.append(name)
        total = 0.0
        for instruction in computation.instructions.values():
            trips = trip_count(instruction) if instruction.opcode == "while" else 1
            total += trips * self.instruction(instruction, computation)
        self._open.pop()
        self._known[name] = total
        return total

    def _product(self, instruction: Instruction, computation: Computation, contracting: str | None) -> float:
        left = self._operand(instruction, computation, 0)
        numbers = [number.strip() for number in (contracting or "").split(",") if number.strip()]
        if not all(number.isdecimal() and int(number) < len(left.dimensions) for number in numbers):
            raise InstanceError(
                f"{self._source}:{instruction.line}: field lhs_contracting_dims: {instruction.name:.60}: got "
                f"{contracting!r:.40} for an operand of {len(left.dimensions)} dimensions"
            )
        result = next(leaves(instruction.shape), None)
        depth = math.prod(left.dimensions[int(number)] for number in numbers)
        return 2.0 * (result.elements if result else 0) * depth

    def _convolution(self, instruction: Instruction, computation: Computation) -> float:
        """Count a product per element of the result, input feature of its group and place in the window."""
        kernel = self._operand(instruction, computation, 1)
        labels = _CONV.search(instruction.attribute("dim_labels") or "")
        if labels is None or len(labels[2]) != len(kernel.dimensions):
            raise InstanceError(
                f"{self._source}:{instruction.line}: field dim_labels: {instruction.name:.60}: expected labels such as "
                f"b01f_01io->b01f for a kernel of {len(kernel.dimensions)} dimensions"
            )
        depth = math.prod(size for label, size in zip(labels[2], kernel.dimensions, strict=True) if label != "o")
        result = next(leaves(instruction.shape), None)
        return 2.0 * (result.elements if result else 0) * depth

    def _operand(self, instruction: Instruction, computation: Computation, number: int) -> ArrayShape:
        shape = None
        if len(instruction.operands) > number:
            shape = computation.instructions[instruction.operands[number]].shape
        if not isinstance(shape, ArrayShape):
            raise InstanceError(
                f"{self._source}:{instruction.line}: field operands: {instruction.name:.60}: operand {number} of "
                f"{instruction.opcode} must be an array"
            )
        return shape
