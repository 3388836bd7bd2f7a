"""Shapes of XLA HLO text: types, dimensions, layouts with tiles and memory spaces, and how many bytes they take."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from schedrl.envs.memmap.packing import MAX_BYTES

__all__ = ["ArrayShape", "Shape", "TupleShape", "leaves", "parse_shape"]

_BITS: Mapping[str, int] = MappingProxyType(
    {"pred": 8, "token": 0, "opaque": 0, "bf16": 16, "c64": 64, "c128": 128}
    | {f"{kind}{bits}": bits for kind in "su" for bits in (1, 2, 4, 8, 16, 32, 64)}
    | {f"f{bits}": bits for bits in (16, 32, 64)}
)
# f8e4m3fn, f4e2m1fn and their like: the number after f is the width.
_SMALL_FLOAT = re.compile(r"f([468])e\d+m\d+[a-z]*")
_ARRAY = re.compile(r"([a-z][a-z0-9]*)\[([^\]]*)\](?:\{([^{}]*)\})?")
_TILE = re.compile(r"\(([\d,*]*)\)")
_SPACE = re.compile(r"\s*")
MAX_DEPTH = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayShape:
    """An array: element type, dimensions (bounds where they are dynamic), and where and how it lies in memory."""

    element: str
    dimensions: tuple[int, ...]
    minor_to_major: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    """the outermost tile; those inside it only reorder it"""
    memory_space: int = 0

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.dimensions)

    @property
    def bytes(self) -> int:
        """Bytes in memory: the most minor dimensions are padded to whole tiles."""
        minor = self.minor_to_major or tuple(reversed(range(len(self.dimensions))))
        physical = [self.dimensions[d] for d in reversed(minor)]
        physical = [1] * (len(self.tile) - len(physical)) + physical
        for at, step in enumerate(self.tile, start=len(physical) - len(self.tile)):
            physical[at] = -(-physical[at] // step) * step
        return -(-math.prod(physical) * _bits(self.element) // 8)


@dataclass(frozen=True, slots=True)
class TupleShape:
    """A tuple of shapes."""

    elements: tuple[Shape, ...]


Shape = ArrayShape | TupleShape


def leaves(shape: Shape) -> Iterator[ArrayShape]:
    """Yield the arrays of a shape in order."""
    if isinstance(shape, ArrayShape):
        yield shape
        return
    for element in shape.elements:
        yield from leaves(element)


def parse_shape(text: str, at: int = 0, depth: int = 0) -> tuple[Shape, int]:
    """Return the shape that starts in ``text`` at ``at`` and where it ends.

    Raises:
        ValueError: there is no shape, or one that this module does not know; the message says what is there.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"tuples within tuples, more than {MAX_DEPTH} deep")
    if text[at : at + 1] == "(":
        return _parse_tuple(text, at, depth)
    match = _ARRAY.match(text, at)
    if match is None:
        raise ValueError(f"got {text[at : at + 40]!r}, expected a shape such as f32[2,3]")
    element, dimensions, layout = match[1], match[2], match[3] or ""
    if _bits(element) < 0:
        raise ValueError(f"unknown element type {element:.40}")
    sizes = tuple(_dimension(size) for size in dimensions.split(",")) if dimensions.strip() else ()
    shape = _with_layout(element, sizes, layout)
    if not 0 <= shape.bytes <= MAX_BYTES:
        raise ValueError(f"{shape.bytes} bytes, expected up to {MAX_BYTES}")
    return shape, match.end()


def _parse_tuple(text: str, at: int, depth: int) -> tuple[TupleShape, int]:
    elements: list[Shape] = []
    at = _skip(text, at + 1)
    while text[at : at + 1] != ")":
        element, at = parse_shape(text, at, depth + 1)
        elements.append(element)
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != ")":
            raise ValueError(f"got {text[at : at + 20]!r}, expected ',' or ')' of a tuple")
    return TupleShape(tuple(elements)), at + 1


def _with_layout(element: str, sizes: tuple[int, ...], layout: str) -> ArrayShape:
    order, _, properties = layout.partition(":")
    minor = tuple(int(d) for d in order.split(",")) if re.fullmatch(r"\s*\d{1,3}(\s*,\s*\d{1,3})*\s*", order) else ()
    if order.strip() and sorted(minor) != list(range(len(sizes))):
        raise ValueError(f"layout {{{order:.40}}} does not order {len(sizes)} dimensions")
    tile = re.search(r"T" + _TILE.pattern, properties)
    steps = tuple(_step(step) for step in tile[1].split(",")) if tile and tile[1] else ()
    space = re.search(r"S\((\d{1,9})\)", properties)
    return ArrayShape(
        element=element,
        dimensions=sizes,
        minor_to_major=minor,
        tile=steps if all(steps) else (),
        memory_space=int(space[1]) if space else 0,
    )


def _step(text: str) -> int:
    """Return the size of a tile in one dimension; ``*`` joins it with the next one, which only changes the padding."""
    return int(text) if text.isdecimal() and len(text) < 10 else 1


def _dimension(text: str) -> int:
    size = text.strip().removeprefix("<=").strip()
    if not re.fullmatch(r"\d{1,16}", size):
        raise ValueError(f"dimension {text.strip()!r:.40}, expected an integer of 0 or more")
    return int(size)


def _bits(element: str) -> int:
    match = _SMALL_FLOAT.fullmatch(element)
    return int(match[1]) if match else _BITS.get(element, -1)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
