"""Planning anew before every scored window: the runner that hides the future, and what keeps transfers few."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from schedrl.arrays import I32, I64
from schedrl.baselines.moe.packing import device_speed, outcome
from schedrl.envs.moe.balancing import allocate_scratch, slot_starts
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.relabelling import rearrange
from schedrl.families import Instance
from schedrl.schedulers import Result

__all__ = ["Keep", "PlanEveryWindow", "WindowPlanner", "rearranged", "recent_windows"]

Keep = Literal["nothing", "slots", "devices", "devices of a node"]
"""slots: experts that stay on a device stay in their slot; devices: besides, equal devices exchange their contents for
the largest overlap with the old placement, over all nodes or inside each"""


class WindowPlanner(Protocol):
    """Makes the placement of the next window; may keep state over the windows of one instance."""

    def plan(self, known: ExpertPlacementInstance, current: I32 | None) -> I32:
        """Return a placement (L, P).

        Args:
            known: the instance with the windows that are over, all of them in ``known.history``.
            current: (L, P) the placement so far; None before the first plan when nothing is placed yet.
        """
        ...


@dataclass(frozen=True, slots=True)
class PlanEveryWindow:
    """A scheduler that asks a new planner before each scored window, showing it the windows that are over."""

    make_planner: Callable[[], WindowPlanner]

    def schedule(self, instance: Instance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return all placements; when the time is up, the last one stays."""
        assert isinstance(instance, ExpertPlacementInstance)
        started = time.perf_counter()
        placements = np.empty((instance.plans, instance.layers, instance.total_slots), dtype=np.int32)
        planner, current = self.make_planner(), instance.initial
        for t in range(instance.plans):
            if current is None or time.perf_counter() - started < time_limit_s:
                current = planner.plan(instance.known(t), current)
            placements[t] = current
        return outcome(instance, placements, started=started)


def recent_windows(known: ExpertPlacementInstance, recent: int) -> I64:
    """Return the last ``recent`` known windows (W, L, E), or as many as there are."""
    return known.history[-recent:]


def rearranged(instance: ExpertPlacementInstance, old: I32 | None, new: I32, keep: Keep) -> I32:
    """Return ``new`` (L, P) with the same balance, changed to need fewer transfers from ``old`` (L, P)."""
    changed = np.array(new, dtype=np.int32)
    if old is None or keep == "nothing":
        return changed
    scratch = allocate_scratch(instance.experts, instance.total_slots, instance.devices)
    across = {"slots": -1, "devices of a node": 0, "devices": 1}[keep]
    node, speed = instance.cluster.node_of, device_speed(instance)
    first_slot = slot_starts(instance.slots)
    for before, after in zip(np.array(old), changed, strict=True):
        rearrange(before, after, first_slot, speed, node, across, scratch)
    return changed
