"""Hand-written programs of bytes and seconds, and a mapping game on one of them, move by move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from small_programs import device

from schedrl.devices.memory import MemoryDevice
from schedrl.envs.memmap.choices import COPY, DROP, NO_COPY
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.simulator import Simulator

Candidate = tuple[int, int, int, int, int]
"""Kind, layer, offset, and after and before which operation the copy runs"""

SLOW: Candidate = (DROP, 0, -1, 0, 0)

__all__ = ["COPY", "DROP", "NO_COPY", "SLOW", "Candidate", "Game", "op", "program"]


def op(reads: list[int], writes: list[int], flops: float = 0.0, **fields: Any) -> dict[str, Any]:
    """Return an operation; one floating-point operation takes one second on ``device``."""
    return {"flops": flops, "reads": reads, "writes": writes, **fields}


def program(
    ops: list[dict[str, Any]],
    sizes: list[int],
    capacity: int = 10,
    *,
    outputs: Sequence[int] = (),
    memory: MemoryDevice | None = None,
) -> MemoryMapInstance:
    """Return a program; the slow layer moves one byte per second, the fast one ten."""
    buffers = [{"size": size, "output": b in outputs} for b, size in enumerate(sizes)]
    data = {"name": "p", "ops": ops, "buffers": buffers}
    return MemoryMapInstance.from_program(data, memory=memory or device(capacity))


class Game:
    """One row; every access is a decision, and rewards are in double precision."""

    def __init__(self, instance: MemoryMapInstance, **options: Any) -> None:
        self.simulator = Simulator([instance], 1, skip_forced=False, **options)

    @property
    def offered(self) -> list[Candidate]:
        """What can be chosen now."""
        state = self.simulator.state
        return [tuple(row) for row in state.candidate[0, : state.candidates[0]].tolist()]

    def choose(self, kind: int, layer: int | None = None) -> float:
        """Take the first candidate of a kind, and of a layer if one is given; return the reward."""
        slots = [i for i, row in enumerate(self.offered) if row[0] == kind and layer in (None, row[1])]
        reward: Any = np.zeros(1)
        self.simulator.step(np.array(slots[:1], dtype=np.int32), reward, np.zeros(1, dtype=np.bool_))
        return float(reward[0])
