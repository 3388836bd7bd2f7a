"""CP-SAT on one layer at a time: replicas and their devices with the least time of the slowest device."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.baselines.moe.packing import device_speed, outcome
from schedrl.envs.moe.balancing import allocate_scratch, count_replicas, device_times, plan_layer, slot_starts
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.families import Instance
from schedrl.schedulers import Result, SchedulerSpec

__all__ = [
    "SCHEDULERS",
    "CpSatPlacement",
    "history_mean",
    "largest_time",
    "lpt_placement",
    "solve_layer",
]

_UNITS = 1_000_000  # the warm start's slowest device in the model's integers
_MAX_TERMS = 100_000  # larger models do not get beyond the warm start in minutes
_TOLERANCE = 1e-9


def history_mean(instance: ExpertPlacementInstance) -> F64:
    """Return the mean tokens (L, E) of a window known before the first plan."""
    mean: F64 = instance.history.mean(axis=0)
    return mean


def lpt_placement(loads: F64, slots: I32, speed: F64) -> I32:
    """Return every layer's greedy replicas, placed largest first and improved by swaps, (L, P).

    Args:
        loads: (L, E) tokens.
        slots: (D,) slots of every device.
        speed: (D,) relative seconds per token.
    """
    (layers, experts), total = loads.shape, int(slots.sum())
    placement = np.zeros((layers, total), dtype=np.int32)
    scratch, first_slot = allocate_scratch(experts, total, len(slots)), slot_starts(slots)
    replicas = np.zeros(experts, dtype=np.int32)
    for layer in range(layers):
        plan_layer(np.array(loads[layer]), first_slot, speed, -1, replicas, placement[layer], scratch)
    return placement


def largest_time(loads: F64, row: I32, slots: I32, speed: F64) -> float:
    """Return the slowest device's tokens times its relative seconds in one layer.

    Args:
        loads: (E,) tokens.
        row: (P,) expert of every slot.
        slots: (D,) slots of every device.
        speed: (D,) relative seconds per token.
    """
    replicas, times = np.zeros(len(loads), dtype=np.int32), np.zeros(len(slots))
    count_replicas(row, replicas)
    return float(device_times(np.array(loads), replicas, row, slot_starts(slots), speed, times))


def solve_layer(loads: F64, slots: I32, speed: F64, warm: I32, time_limit_s: float, seed: int = 0) -> I32:
    """Return the best placement (P,) of one layer that CP-SAT finds, never a worse one than ``warm``.

    No two replicas of an expert share a device. Loads are rounded to a millionth of the warm start's slowest device,
    so that a placement proven best in the model may be off by that much per slot.

    Args:
        loads: (E,) tokens.
        slots: (D,) slots of every device.
        speed: (D,) relative seconds per token.
        warm: (P,) a valid placement.
        time_limit_s: wall seconds, with the time to build the model.
        seed: of the search.
    """
    started, peak = time.perf_counter(), largest_time(loads, warm, slots, speed)
    model = _LayerModel.build(loads, slots, speed, peak)
    if model is None:
        return warm
    model.hint(warm, slots)
    found = model.solve(slots, time_limit_s - (time.perf_counter() - started), seed)
    if found is None or largest_time(loads, found, slots, speed) >= peak:
        return warm
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _LayerModel:
    """The integer program of a layer: expert e is on device d (``on``), and has k replicas (``count``)."""

    model: Any
    on: list[list[Any]]  # [E][D]
    count: list[list[Any]]  # [E][K], k + 1 replicas

    @classmethod
    def build(cls, loads: F64, slots: I32, speed: F64, peak: float) -> _LayerModel | None:
        """Return the model, or None where it is too large, without tokens, or slots outnumber experts on a device."""
        from ortools.sat.python import cp_model

        experts, devices = len(loads), len(slots)
        most = int(min(devices, slots.sum() - experts + 1))
        if experts * devices * most > _MAX_TERMS or peak <= 0 or slots.max() > experts:
            return None
        model = cp_model.CpModel()
        on = [[model.new_bool_var("") for _ in range(devices)] for _ in range(experts)]
        count = [[model.new_bool_var("") for _ in range(most)] for _ in range(experts)]
        terms: list[list[Any]] = [[] for _ in range(devices)]
        for e in range(experts):
            model.add_exactly_one(count[e])
            model.add(sum(on[e]) == sum((k + 1) * count[e][k] for k in range(most)))
            for d in range(devices):
                for k in range(most):
                    both = on[e][d] if most == 1 else model.new_bool_var("")
                    if most > 1:
                        model.add_bool_or(both, ~on[e][d], ~count[e][k])
                    terms[d].append(round(loads[e] / (k + 1) * speed[d] / peak * _UNITS) * both)
        slowest = model.new_int_var(0, 2 * _UNITS, "")
        for d in range(devices):
            model.add(sum(on[e][d] for e in range(experts)) == int(slots[d]))
            model.add(sum(terms[d]) <= slowest)
        model.minimize(slowest)
        return cls(model=model, on=on, count=count)

    def hint(self, row: I32, slots: I32) -> None:
        """Start the search from a placement (P,)."""
        device, replicas = np.repeat(np.arange(len(slots)), slots), np.bincount(row, minlength=len(self.on))
        held = {(int(e), int(d)) for e, d in zip(row, device, strict=True)}
        for e, variables in enumerate(self.on):
            for d, variable in enumerate(variables):
                self.model.add_hint(variable, (e, d) in held)
            for k, variable in enumerate(self.count[e]):
                self.model.add_hint(variable, bool(replicas[e] == k + 1))

    def solve(self, slots: I32, time_limit_s: float, seed: int) -> I32 | None:
        """Return the best placement found (P,)."""
        from ortools.sat.python import cp_model

        if time_limit_s <= 0:
            return None
        solver = cp_model.CpSolver()
        solver.parameters.max_time_in_seconds = time_limit_s
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = seed
        if solver.solve(self.model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None
        rows = [[e for e in range(len(self.on)) if solver.boolean_value(self.on[e][d])] for d in range(len(slots))]
        return np.array([e for row in rows for e in row], dtype=np.int32)


def _peak_bounds(loads: F64, slots: I32, speed: F64) -> F64:
    """Return a bound (L,) on the slowest device: the mean at full speed, and the heaviest replica possible."""
    most = min(len(slots), int(slots.sum()) - loads.shape[1] + 1)
    bounds: F64 = np.maximum(loads.sum(axis=1) / (1 / speed).sum(), loads.max(axis=1) / most * speed.min())
    return bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class CpSatPlacement:
    """The layers with the largest gap first, each with an even part of the time that is left.

    Balances tokens on the mean of the history and sees no traffic. Practical for some dozen experts: larger layers
    keep their warm start, LPT with swaps. An ``initial`` placement is ignored.

    Args:
        tolerance: relative gap to the load bound at which a layer is left as it is.
    """

    tolerance: float = 1e-6

    def schedule(self, instance: Instance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return one placement for all windows."""
        assert isinstance(instance, ExpertPlacementInstance)
        started = time.perf_counter()
        loads, slots, speed = history_mean(instance), instance.slots, device_speed(instance)
        placement = lpt_placement(loads, slots, speed)
        peaks = np.array([largest_time(*pair, slots, speed) for pair in zip(loads, placement, strict=True)])
        gaps = peaks / np.maximum(_peak_bounds(loads, slots, speed), _TOLERANCE) - 1.0
        open_layers = [int(layer) for layer in np.argsort(-gaps, kind="stable") if gaps[layer] > self.tolerance]
        seed = int(rng.integers(2**31 - 1))
        for done, layer in enumerate(open_layers):
            left = time_limit_s - (time.perf_counter() - started)
            if left <= 0:
                break
            part = left / (len(open_layers) - done)
            placement[layer] = solve_layer(loads[layer], slots, speed, placement[layer], part, seed)
        return outcome(instance, placement[None], started=started)


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="moe/cp-sat",
        make=CpSatPlacement,
        information="online",
        summary="OR-Tools CP-SAT, replicas and devices of one layer at a time, from LPT with swaps; loads alone",
        source="https://developers.google.com/optimization",
        randomised=True,
    ),
)
