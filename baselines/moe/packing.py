"""Placements made once from the known windows: the trivial ones, list scheduling, and planning for variance.

None looks at the network. Loads are tokens summed over all known windows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numba import njit

from schedrl.arrays import F64, I32
from schedrl.envs.moe.balancing import (
    Scratch,
    allocate_scratch,
    plan_layer,
    replicate,
    slot_starts,
    sort_descending,
    swap_search,
)
from schedrl.envs.moe.bounds import device_costs
from schedrl.envs.moe.instance import ExpertPlacementInstance, trivial_placement
from schedrl.envs.moe.solution import ExpertPlan, plan_objectives
from schedrl.families import Instance
from schedrl.schedulers import Result, SchedulerSpec

__all__ = [
    "RISK",
    "SCHEDULERS",
    "Placer",
    "PlanOnce",
    "balanced_placement",
    "contiguous",
    "device_speed",
    "outcome",
    "random_placement",
    "risky_loads",
    "snake",
    "swapped",
]

RISK = 0.674  # standard deviations above the mean: the upper quartile of a normal distribution, as in FlashLB
Placer = Callable[[ExpertPlacementInstance, np.random.Generator], I32]
"""from an instance to a placement (L, P)"""


@dataclass(frozen=True, slots=True)
class PlanOnce:
    """A scheduler that makes one placement before the first scored window and keeps it."""

    place: Placer

    def schedule(self, instance: Instance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the placement; takes milliseconds, so the time limit does not matter."""
        assert isinstance(instance, ExpertPlacementInstance)
        started = time.perf_counter()
        placement = self.place(instance.known(0), rng)
        return outcome(instance, placement[None], started=started)


def outcome(instance: ExpertPlacementInstance, placements: I32, *, started: float) -> Result:
    """Return the result of valid placements (V, L, P); ``started`` is a ``time.perf_counter`` reading."""
    runtime_s = time.perf_counter() - started
    plan = ExpertPlan(experts=placements)
    objective = plan_objectives(instance, plan)[instance.objective]
    return Result(solution=plan, objective=objective, status="feasible", runtime_s=runtime_s)


def device_speed(instance: ExpertPlacementInstance) -> F64:
    """Return seconds per token of each device relative to the fastest, (D,)."""
    seconds, _ = device_costs(instance)
    speed: F64 = seconds / seconds.min()
    return speed


def contiguous(instance: ExpertPlacementInstance, rng: np.random.Generator) -> I32:
    """Fill the slots with experts 0 to E - 1, again from 0 on when they run out: no balancing, as engines start."""
    return trivial_placement(instance.layers, instance.experts, instance.total_slots)


def random_placement(instance: ExpertPlacementInstance, rng: np.random.Generator) -> I32:
    """Shuffle each layer's experts, as many replicas of each as ``contiguous`` makes, over the slots."""
    return rng.permuted(contiguous(instance, rng), axis=1)


def snake(instance: ExpertPlacementInstance, rng: np.random.Generator) -> I32:
    """Replicate greedily, then deal replicas by falling load over the devices, every other round backwards."""
    placement = np.empty((instance.layers, instance.total_slots), dtype=np.int32)
    scratch = allocate_scratch(instance.experts, instance.total_slots, instance.devices)
    _snake(instance.history.sum(axis=0).astype(np.float64), slot_starts(instance.slots), placement, scratch)
    return placement


@njit(cache=True)
def _snake(loads: F64, first_slot: I32, placement: I32, scratch: Scratch) -> None:
    experts, devices = loads.shape[1], len(first_slot) - 1
    replicas = np.empty(experts, np.int32)
    for layer in range(len(loads)):
        replicate(loads[layer], placement.shape[1], devices, replicas, scratch.share)
        sort_descending(scratch.share, scratch.order, scratch.merged)
        scratch.fill[:] = first_slot[:-1]
        turn = 0
        for e in scratch.order:
            for _ in range(replicas[e]):
                # A full device misses its turns.
                d = _snake_device(turn, devices)
                while scratch.fill[d] == first_slot[d + 1]:
                    turn += 1
                    d = _snake_device(turn, devices)
                placement[layer, scratch.fill[d]] = e
                scratch.fill[d] += 1
                turn += 1


@njit(cache=True)
def _snake_device(turn: int, devices: int) -> int:
    position = turn % devices
    return position if (turn // devices) % 2 == 0 else devices - 1 - position


def balanced_placement(instance: ExpertPlacementInstance, loads: F64, *, swaps: int = -1) -> I32:
    """Return (L, P): greedy replicas, the largest first to the device that ends first (LPT), then pair swaps.

    Devices end in proportion to their seconds per token; no two replicas of an expert share one if avoidable.

    Args:
        instance: slots and devices.
        loads: (L, E) weights of the experts.
        swaps: most swaps per layer with the slowest device, negative for no limit.
    """
    placement = np.empty((len(loads), instance.total_slots), dtype=np.int32)
    scratch = allocate_scratch(instance.experts, instance.total_slots, instance.devices)
    first_slot, speed = slot_starts(instance.slots), device_speed(instance)
    _plan_layers(np.ascontiguousarray(loads, dtype=np.float64), first_slot, speed, swaps, placement, scratch)
    return placement


@njit(cache=True)
def _plan_layers(loads: F64, first_slot: I32, speed: F64, swaps: int, placement: I32, scratch: Scratch) -> None:
    replicas = np.empty(loads.shape[1], np.int32)
    for layer in range(len(loads)):
        plan_layer(loads[layer], first_slot, speed, swaps, replicas, placement[layer], scratch)


def swapped(instance: ExpertPlacementInstance, loads: F64, placement: I32, *, swaps: int) -> I32:
    """Return ``placement`` (L, P) after at most ``swaps`` swaps per layer that lower its slowest device's load."""
    changed = np.array(placement, dtype=np.int32)
    scratch = allocate_scratch(instance.experts, instance.total_slots, instance.devices)
    first_slot, speed = slot_starts(instance.slots), device_speed(instance)
    _swap_layers(np.ascontiguousarray(loads, dtype=np.float64), first_slot, speed, swaps, changed, scratch)
    return changed


@njit(cache=True)
def _swap_layers(loads: F64, first_slot: I32, speed: F64, swaps: int, placement: I32, scratch: Scratch) -> None:
    replicas = np.empty(loads.shape[1], np.int32)
    for layer in range(len(loads)):
        replicas[:] = 0
        for e in placement[layer]:
            replicas[e] += 1
        swap_search(loads[layer], replicas, placement[layer], first_slot, speed, swaps, scratch)


def risky_loads(history: np.ndarray[tuple[int, ...], np.dtype[np.int64]], risk: float) -> F64:
    """Return (L, E) means plus ``risk`` standard deviations over the windows of ``history`` (W, L, E)."""
    loads: F64 = history.mean(axis=0) + risk * history.std(axis=0)
    return loads


def _longest_first(instance: ExpertPlacementInstance, rng: np.random.Generator, *, swaps: int) -> I32:
    return balanced_placement(instance, instance.history.sum(axis=0).astype(np.float64), swaps=swaps)


def _variance_aware(instance: ExpertPlacementInstance, rng: np.random.Generator) -> I32:
    return balanced_placement(instance, risky_loads(instance.history, RISK))


def _spec(name: str, place: Placer, summary: str, source: str, *, randomised: bool = False) -> SchedulerSpec:
    return SchedulerSpec(
        name=f"moe/{name}",
        make=lambda: PlanOnce(place),
        information="online",
        summary=summary,
        source=source,
        randomised=randomised,
    )


_GRAHAM = "longest processing time first (Graham 1969) with slot limits, none shared by two replicas of an expert"
SCHEDULERS: tuple[SchedulerSpec, ...] = (
    _spec("contiguous", contiguous, "experts in order, no balancing", "initial placement of vLLM and SGLang"),
    _spec("random", random_placement, "experts shuffled over the slots", "baseline", randomised=True),
    _spec("snake", snake, "greedy replicas dealt forwards and backwards over the devices", "zigzag packing"),
    _spec("lpt", partial(_longest_first, swaps=0), "greedy replicas, largest first to the first free device", _GRAHAM),
    _spec(
        "lpt-swap",
        partial(_longest_first, swaps=-1),
        "lpt, then pair swaps with the slowest device while they lower the pair's maximum",
        f"{_GRAHAM}; pair interchange",
    ),
    _spec(
        "variance-aware",
        _variance_aware,
        f"lpt-swap on means plus {RISK} standard deviations over the known windows",
        "risk-adjusted loads of FlashLB in vllm-ascend",
    ),
)
