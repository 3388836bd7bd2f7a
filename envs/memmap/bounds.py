"""Lower bounds for both problems of the family: the cheap ones, from microseconds to a linear program.

All hold for every solution that the checker accepts. The integer relaxation, which takes longer and is tighter, is
``relaxation.solve_relaxation(instance, integer=True)``.
"""

from __future__ import annotations

import numpy as np

from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import fast_bound_s
from schedrl.envs.memmap.packing import OffsetPackingInstance, max_live
from schedrl.envs.memmap.relaxation import solve_relaxation
from schedrl.envs.memmap.relaxation_times import RelaxationTimes
from schedrl.families import Bound

__all__ = ["bounds", "first_use_bus_s"]


def bounds(instance: MemoryMapInstance | OffsetPackingInstance) -> list[Bound]:
    """Return lower bounds, largest first: on the latency of a program in seconds, on the peak of a packing in bytes."""
    if isinstance(instance, OffsetPackingInstance):
        return [Bound(name="max-live", value=float(max_live(instance)), why="most bytes alive at one moment")]
    found = [
        Bound(name="all-fast", value=fast_bound_s(instance), why="every access served by its fastest layer"),
        Bound(
            name="relaxation",
            value=solve_relaxation(instance).bound_s,
            why="fractions of buffers may reside and move, without offsets (linear program)",
        ),
    ]
    if instance.memory.supply == "idle":
        found.append(
            Bound(
                name="bus",
                value=first_use_bus_s(instance),
                why="every input crosses the bus of the slow layer once, and so does every output",
            )
        )
    return sorted(found, key=lambda bound: -bound.value)


def first_use_bus_s(instance: MemoryMapInstance) -> float:
    """Return the seconds for which the slow layer's bus is busy at least: a bound where copies wait for it to be idle.

    An input is read from the slow layer at each use or copied once; an output is written there or copied once.
    """
    times = RelaxationTimes(instance, 1.0)
    write, buffer = instance.access_write, instance.access_buffer
    read = np.bincount(buffer[~write], times.bus[~write], minlength=instance.buffers)
    written = np.bincount(buffer[write], times.bus[write], minlength=instance.buffers)
    copied = np.where(times.matters[:, None], times.demand, 0.0)
    inputs = np.where(instance.definition < 0, np.minimum(read, copied[:, 0]), 0.0)
    outputs = np.where(instance.output & (instance.definition >= 0), np.minimum(written, copied[:, 1]), 0.0)
    return float((inputs + outputs).sum()) * (1.0 - 1e-12)
