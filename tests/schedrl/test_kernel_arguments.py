from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from schedrl.kernel_arguments import by_reference
from schedrl.kernels import inner, kernel


@by_reference
class Part(NamedTuple):
    """A tuple within another one."""

    flags: Any
    cube: Any


@by_reference
class Whole(NamedTuple):
    """Arrays of several types, dimensions and layouts."""

    small: Any
    part: Part
    table: Any
    single: Any


@by_reference
class WithNumber(NamedTuple):
    """One field is not an array."""

    values: Any
    number: int


@inner
def _add(whole: Whole, b: int, amount: float) -> float:
    whole.table[b, 1] += amount
    return float(whole.table[b, 1])


@kernel
def _work(whole: Whole, b: int) -> float:
    part = whole.part
    for k in range(len(whole.small)):
        whole.small[k] += k
    part.flags[b] = True
    part.cube[b, :, 2] = whole.single[0]
    total = 0.0
    for _ in range(3):
        # Each is read again after it was written.
        total += _add(whole, b, float(part.cube[b, 0, 2]))
    return total + whole.table.shape[0] + part.cube.size


def tuples(*, order: str = "C", kind: type = np.int32) -> Whole:
    return Whole(
        small=np.arange(5, dtype=np.int8),
        part=Part(flags=np.zeros(4, dtype=np.bool_), cube=np.zeros((4, 2, 3), dtype=np.float32)),
        table=np.asarray(np.arange(8, dtype=np.float64).reshape(4, 2), order="F" if order == "F" else "C"),
        single=np.array([7], dtype=kind),
    )


@pytest.mark.parametrize(("order", "kind"), [("C", np.int32), ("F", np.uint64)])
def test_kernels_read_and_write_the_arrays_of_the_caller(order: str, kind: type) -> None:
    whole = tuples(order=order, kind=kind)
    result = _work(whole, 2)
    assert result == 3 * 5.0 + 7.0 * (1 + 2 + 3) + 4 + 24
    assert whole.small.tolist() == [0, 2, 4, 6, 8]
    assert whole.part.flags.tolist() == [False, False, True, False]
    assert whole.part.cube[2, :, 2].tolist() == [7.0, 7.0] and np.count_nonzero(whole.part.cube) == 2
    assert whole.table.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 26.0], [6.0, 7.0]]


def test_views_are_read_where_they_are() -> None:
    wide = np.arange(16, dtype=np.float64).reshape(4, 4)
    whole = tuples()._replace(table=wide[:, 1:3], small=np.arange(10, dtype=np.int8)[::2])
    assert _work(whole, 1) == 3 * 6.0 + 7.0 * (1 + 2 + 3) + 4 + 24
    assert wide[1].tolist() == [4.0, 5.0, 27.0, 7.0]
    assert whole.small.tolist() == [0, 3, 6, 9, 12]


def test_a_field_that_is_no_array_is_refused() -> None:
    with pytest.raises(TypeError, match=r"WithNumber\.number: int64, expected an array or a marked tuple"):
        _work(WithNumber(np.zeros(2), 3), 0)  # type: ignore[arg-type]
