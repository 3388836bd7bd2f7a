"""Plans from shadow prices: the mapping game played as its hint and the prices of fast memory advise."""

from __future__ import annotations

import time

import numpy as np

from schedrl.baselines.memmap.xla import plan_outcome
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.simulator import Simulator
from schedrl.schedulers import Result, SchedulerSpec

__all__ = ["SCHEDULERS", "Priced"]


class Priced:
    """One pass over the program's accesses; well under a second, whatever the time limit."""

    def schedule(self, instance: MemoryMapInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the plan; neither time limit nor ``rng`` matter."""
        started = time.perf_counter()
        simulator = Simulator([instance], 1)
        simulator.play_advised()
        return plan_outcome(instance, simulator.solution(0), started=started, decisions=int(simulator.decisions[0]))


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="memmap/priced",
        make=Priced,  # type: ignore[arg-type]  # takes programs only, the contract any instance
        information="clairvoyant",
        summary="Lagrangian prices of fast memory, plans without offsets fitted into it, and the best of them played",
        source="schedrl; M. L. Fisher, Management Science 27(1) (1981) 1-18",
    ),
)
