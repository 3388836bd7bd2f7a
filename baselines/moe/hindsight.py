"""What re-planning could have achieved: a search over when to change each layer, with all windows known.

Clairvoyant, and no bound: the best plan may be better still. It is what the regret of online planners is counted from.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.baselines.moe.packing import outcome
from schedrl.envs.moe.balancing import (
    Scratch,
    allocate_scratch,
    plan_layer,
    slot_starts,
)
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.layer_time import (
    SCRATCH_ROWS,
    Hardware,
    allocate_hardware,
    home_layer_s,
    migration_layer_s,
    slot_tokens,
    write_hardware,
)
from schedrl.envs.moe.rebalance_changes import begin_changes, change_once, end_changes
from schedrl.envs.moe.relabelling import rearrange
from schedrl.errors import ConfigError
from schedrl.families import Instance
from schedrl.schedulers import Result, SchedulerSpec

__all__ = ["SCHEDULERS", "Hindsight"]

_CHANGES = (1, 4, 16, 48)
_SWAPS = 200


class _Partial(NamedTuple):
    """The windows before some time are planned: their seconds, the placement at the end, and how it came about."""

    seconds: float
    placement: I32  # (P,)
    before: _Partial | None
    start: int


class Hindsight:
    """Dynamic programming over the windows at which a layer changes.

    Between two changes a layer has one placement. For every pair of times, placements for the mean load between them
    are tried: made anew, and by a few changes from what was there before. The best ``beam`` ways to plan the windows
    before a time are kept; with one way the search would be exact if migration did not depend on the past.
    """

    def __init__(self, beam: int = 3) -> None:
        self._beam = beam

    def schedule(self, instance: Instance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best plan found; layers that the time limit does not reach keep one placement for all windows.

        Raises:
            ConfigError: tokens stay on their path, so that layers depend on each other.
        """
        assert isinstance(instance, ExpertPlacementInstance)
        if instance.timing.residence != "home":
            raise ConfigError(f"instance {instance.name}: hindsight plans layer by layer, tokens must return home")
        started = time.perf_counter()
        placements = np.empty((instance.plans, instance.layers, instance.total_slots), dtype=np.int32)
        for layer in range(instance.layers):
            search = _LayerSearch(instance, layer)
            late = time.perf_counter() - started > time_limit_s * (layer + 1) / (instance.layers + 1)
            placements[:, layer] = search.plan(0 if late else self._beam)
        return outcome(instance, placements, started=started)


class _LayerSearch:
    """One layer's windows, and the kernels with their memory."""

    def __init__(self, instance: ExpertPlacementInstance, layer: int) -> None:
        scored = instance.scored[:, layer] / instance.iterations
        # In sample there is one plan for all windows.
        self._windows = [scored[t : t + 1] for t in range(len(scored))] if instance.plans > 1 else [scored]
        self._instance, self._iterations = instance, instance.iterations
        slots, devices = instance.total_slots, instance.devices
        self._layer, self._starts_free = layer, instance.initial is None
        self._hardware: Hardware = allocate_hardware(1, devices)
        write_hardware(self._hardware, 0, instance)
        self._memory: Scratch = allocate_scratch(instance.experts, slots, devices)
        self._first, self._device = slot_starts(instance.slots), np.array(instance.slot_device)
        self._times = np.zeros((SCRATCH_ROWS, devices))
        self._tokens, self._replicas = np.zeros(slots), np.zeros(instance.experts, dtype=np.int32)
        self._holds = np.zeros((instance.experts, devices), dtype=np.bool_)
        self._held, self._busy = np.zeros((instance.experts, devices), dtype=np.int32), np.zeros(devices)

    def plan(self, beam: int) -> I32:
        """Return (T, P) placements; with a beam of 0 the same for all windows."""
        count = len(self._windows)
        start = np.array(self._instance.start[self._layer])
        ways: list[list[_Partial]] = [[_Partial(0.0, start, None, 0)], *([] for _ in range(count))]
        for end in range(1, count + 1):
            found = []
            for begin in range(end if beam else 1):
                for way in ways[begin]:
                    free = begin == 0 and self._starts_free
                    found += list(self._continued(way, begin, end, free))
                if beam == 0 and end < count:
                    break
            found.sort(key=lambda way: way.seconds)
            ways[end] = found[: max(beam, 1)]
        best: _Partial | None = ways[count][0]
        rows, end = np.empty((count, len(start)), dtype=np.int32), count
        while best is not None and best.before is not None:
            rows[best.start : end] = best.placement
            best, end = best.before, best.start
        return rows

    def _continued(self, way: _Partial, begin: int, end: int, free: bool) -> Iterator[_Partial]:
        loads = np.concatenate(self._windows[begin:end])
        mean = loads.mean(axis=0)
        for placement in (way.placement, self._anew(mean, way.placement), *self._changed(mean, way.placement)):
            move_s = 0.0 if free else self._migration_s(way.placement, placement)
            seconds = self._iterations * sum(self._layer_s(row, placement) for row in loads)
            yield _Partial(way.seconds + move_s + seconds, placement, way, begin)

    def _anew(self, loads: F64, now: I32) -> I32:
        placement = np.empty_like(now)
        speed = self._hardware.token_s[0]
        plan_layer(loads, self._first, speed, _SWAPS, self._replicas, placement, self._memory)
        rearrange(now, placement, self._first, speed, self._hardware.node[0], 0, self._memory)
        return placement

    def _changed(self, loads: F64, now: I32) -> list[I32]:
        placement, found, slots = now.copy(), [], len(now)
        memory = (self._device, slots, self._replicas, self._busy, self._held)
        begin_changes(self._hardware, 0, loads, placement, *memory)
        for made in range(1, _CHANGES[-1] + 1):
            more = change_once(self._hardware, 0, loads, placement, *memory)
            if made in _CHANGES or not more:
                found.append(placement.copy())
            if not more:
                break
        end_changes(placement, self._device, slots, self._held)
        return found

    def _layer_s(self, loads: F64, placement: I32) -> float:
        slots = len(placement)
        total = slot_tokens(loads, placement, slots, self._replicas, self._tokens)
        return float(home_layer_s(self._hardware, 0, self._tokens, self._device, slots, total, self._times))

    def _migration_s(self, old: I32, new: I32) -> float:
        holds, times = self._holds, self._times
        return float(migration_layer_s(self._hardware, 0, old, new, self._device, len(new), holds, times))


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="moe/hindsight",
        make=Hindsight,
        information="clairvoyant",
        summary="when to change each layer and how, with all windows known: what regret is counted from",
        source="dynamic programming over change times with a beam",
    ),
)
