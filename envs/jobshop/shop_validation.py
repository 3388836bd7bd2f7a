"""Checks of the arrays that make up a shop, each with an error that names field, place and value."""

from __future__ import annotations

from typing import Any

import numpy as np

from schedrl.envs.jobshop.instance import MAX_TIME
from schedrl.errors import InstanceError

__all__ = ["check_offsets", "check_times", "frozen", "plain_field"]


def frozen(array: Any, dtype: type, where: str, dimensions: int) -> np.ndarray[Any, Any]:
    """Return a read-only copy of an array.

    Raises:
        InstanceError: other dimensions, numbers of another kind, or too large ones.
    """
    try:
        values = np.asarray(array)
    except ValueError:
        raise InstanceError(f"{where}: rows of unequal length") from None
    if values.size == 0 and values.dtype == np.float64:
        values = values.astype(dtype)
    kinds, kind = ("iuf", "number") if dtype is np.float64 else ("iu", "integer")
    if values.ndim != dimensions or values.dtype.kind not in kinds:
        raise InstanceError(
            f"{where}: expected a {dimensions}-dimensional {kind} array, got {values.dtype} {values.shape}"
        )
    if dtype is not np.float64 and values.size:
        limits = np.iinfo(dtype)
        if values.min() < limits.min or values.max() > limits.max:
            raise InstanceError(f"{where}: value outside {np.dtype(dtype).name}")
    copy: np.ndarray[Any, Any] = np.array(values, dtype=dtype)
    copy.flags.writeable = False
    return copy


def check_offsets(offset: Any, total: int, where: str, owner: str, owned: str, *, least: int = 1) -> None:
    """Check that offsets run from 0 to ``total`` and leave at least ``least`` to each owner.

    Raises:
        InstanceError: they do not.
    """
    if len(offset) < 2 or offset[0] != 0 or offset[-1] != total:
        raise InstanceError(f"{where}: must run from 0 to the {total} {owned}s")
    if (short := np.flatnonzero(np.diff(offset) < least)).size:
        raise InstanceError(f"{where}: {owner} {short[0]} has {offset[short[0] + 1] - offset[short[0]]} {owned}s")


def check_times(values: Any, where: str) -> None:
    """Check that times and weights lie between 0 and ``MAX_TIME``.

    Raises:
        InstanceError: one does not.
    """
    bad = np.flatnonzero(~((values >= 0) & (values <= MAX_TIME)))
    if bad.size:
        raise InstanceError(f"{where}: entry {bad[0]} is {values[bad[0]]}, expected 0 to {MAX_TIME}")


def plain_field(name: str, value: Any, source: str) -> Any:
    """Return a value read from JSON as the field's type.

    Raises:
        InstanceError: it is of another type.
    """
    kinds: dict[str, type] = {"name": str, "machines": int, "blocking": str, "announced": bool}
    kind = kinds.get(name, list)
    if type(value) is not kind:
        raise InstanceError(f"{source}: field {name}: expected {kind.__name__}, got {value!r:.40}")
    if name == "objective_weights" and isinstance(value, list):
        if not all(type(weight) in (int, float) for weight in value):
            raise InstanceError(f"{source}: field {name}: expected numbers, got {value!r:.40}")
        return tuple(float(weight) if abs(weight) <= MAX_TIME else weight for weight in value)
    return value
