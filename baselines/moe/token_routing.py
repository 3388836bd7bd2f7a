"""Routing of a batch's tokens over the replicas of a placement by linear programming, as LPLB does (DeepSeek, 2025).

Engines split an expert's tokens evenly over its replicas. Unequal shares level the devices for the batch at hand and
move no weights. Letters: L layers, E experts, P slots, D devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.metrics import balance_vllm, peak_to_average
from schedrl.envs.moe.solution import ExpertPlan, device_loads

__all__ = ["RoutingBalance", "rerouted_balance", "route_tokens"]


def route_tokens(loads: F64, placement: I32, slot_device: I32, devices: int) -> tuple[F64, float]:
    """Return the share (P,) of its expert's tokens that each slot takes, and the tokens of the busiest device.

    The busiest device is as idle as any split of tokens over the replicas allows; tokens are divisible.

    Args:
        loads: (E,) tokens of every expert, each with at least one slot.
        placement: (P,) expert of every slot.
        slot_device: (P,) device of every slot.
        devices: number of devices D.

    Raises:
        ValueError: the solver gave up.
    """
    replicas = np.bincount(placement, minlength=len(loads))
    shares = 1.0 / replicas[placement]
    total, movable = float(loads.sum()), np.flatnonzero((replicas[placement] > 1) & (loads[placement] > 0))
    if total > 0 and len(movable):
        shares[movable] = _solved_shares(loads / total, placement, slot_device, devices, movable)
    peak = np.bincount(slot_device, weights=loads[placement] * shares, minlength=devices).max()
    return shares, float(peak)


def _solved_shares(parts: F64, placement: I32, slot_device: I32, devices: int, movable: Any) -> F64:
    """Return shares of the movable slots; ``parts`` (E,) of all tokens."""
    # Heavy to import, and not needed to list the schedulers.
    from scipy.optimize import linprog
    from scipy.sparse import csr_array

    fixed_slots = np.setdiff1d(np.arange(len(placement)), movable)
    # Fixed slots are single replicas, or of experts without tokens.
    fixed = np.bincount(slot_device[fixed_slots], weights=parts[placement[fixed_slots]], minlength=devices)
    count, columns = len(movable), np.arange(len(movable))
    experts, row = np.unique(placement[movable], return_inverse=True)
    # Columns are the movable slots' tokens, then the busiest device's.
    on_device = csr_array(
        (
            np.concatenate([np.ones(count), -np.ones(devices)]),
            (
                np.concatenate([slot_device[movable], np.arange(devices)]),
                np.concatenate([columns, np.full(devices, count)]),
            ),
        ),
        shape=(devices, count + 1),
    )
    of_expert = csr_array((np.ones(count), (row, columns)), shape=(len(experts), count + 1))
    goal = np.zeros(count + 1)
    goal[-1] = 1.0
    found: Any = linprog(goal, A_ub=on_device, b_ub=-fixed, A_eq=of_expert, b_eq=parts[experts], method="highs")
    if found.status != 0:
        raise ValueError(f"linear program of token routing: {found.message}")
    tokens = np.maximum(found.x[:-1], 0.0)
    # Rounding in the solver must not lose tokens.
    shares: F64 = tokens / np.bincount(row, weights=tokens)[row]
    return shares


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingBalance:
    """Balance over all scored windows and layers with even and with solved shares of replicas."""

    even_vllm: float
    routed_vllm: float
    even_peak_to_average: float
    routed_peak_to_average: float


def rerouted_balance(instance: ExpertPlacementInstance, plan: ExpertPlan) -> RoutingBalance:
    """Return what routing by linear programming adds to a valid plan, each scored window being one batch.

    It sees a window's own counts, as a router in the engine would; planners do not.

    Raises:
        ValueError: the solver gave up.
    """
    placements = np.broadcast_to(plan.experts, (len(instance.scored), *plan.experts.shape[1:]))
    even: list[F64] = []
    routed: list[F64] = []
    for counts, placement in zip(instance.scored, placements, strict=True):
        even.append(device_loads(instance, counts, placement))
        for loads, row in zip(counts / instance.iterations, placement, strict=True):
            shares, _ = route_tokens(loads, row, instance.slot_device, instance.devices)
            routed.append(
                np.bincount(instance.slot_device, weights=loads[row] * shares, minlength=instance.devices).astype(
                    np.float64
                )
            )
    before, after = np.concatenate(even), np.stack(routed)  # (T * L, D)
    return RoutingBalance(
        even_vllm=balance_vllm(before),
        routed_vllm=balance_vllm(after),
        even_peak_to_average=peak_to_average(before),
        routed_peak_to_average=peak_to_average(after),
    )
