"""What every offset packer does at its end: measure the peak, judge it against the trivial bound, report it."""

from __future__ import annotations

import time

import numpy as np

from schedrl.arrays import I64
from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing, max_live
from schedrl.schedulers import Result, Status

__all__ = ["offset_unit", "packing_bound", "packing_outcome", "peak_of"]


def packing_bound(instance: OffsetPackingInstance) -> int:
    """Return a lower bound on the peak in bytes: most bytes live at once, every size, and every given end."""
    assert instance.fixed_offset is not None
    ends = instance.size + np.maximum(instance.fixed_offset, 0)
    return max(max_live(instance), int(ends.max()))


def peak_of(instance: OffsetPackingInstance, offset: I64) -> int:
    """Return the peak in bytes of the offsets (N,)."""
    return int((offset + instance.size).max())


def offset_unit(instance: OffsetPackingInstance) -> int:
    """Return the greatest number that divides all sizes, alignments, windows and given offsets.

    The offsets of some best packing, and so its peak, are multiples of it.
    """
    assert instance.alignment is not None and instance.fixed_offset is not None and instance.gaps is not None
    fixed = np.maximum(instance.fixed_offset, 0)
    numbers = [instance.size, fixed, instance.gaps[:, 2:].ravel()]
    # An alignment of one byte restricts nothing: with sizes in steps, offsets come in the same steps.
    restricting = instance.alignment[instance.alignment > 1]
    return int(np.gcd.reduce(np.concatenate([*numbers, restricting])))


def packing_outcome(
    instance: OffsetPackingInstance,
    offset: I64,
    *,
    started: float,
    lower_bound: int | None = None,
    searched: bool = False,
    decisions: int = 0,
) -> Result:
    """Return the result of offsets (N,) without overlap; ``started`` is a ``time.perf_counter`` reading.

    The status is optimal when the peak meets ``lower_bound``, by default ``packing_bound``. Above the capacity
    there is no solution, and the status is infeasible, or timeout for a method that ``searched`` until its time was
    up and could have found one later.
    """
    bound = packing_bound(instance) if lower_bound is None else lower_bound
    peak = peak_of(instance, offset)
    fits = instance.capacity is None or peak <= instance.capacity
    status: Status = "optimal" if peak <= bound else "feasible"
    if not fits:
        status = "timeout" if searched else "infeasible"
    return Result(
        solution=Packing(offset=offset) if fits else None,
        objective=float(peak) if fits else None,
        status=status,
        runtime_s=time.perf_counter() - started,
        lower_bound=float(bound),
        decisions=decisions,
    )
