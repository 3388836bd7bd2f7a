"""Planners that change the placement from window to window; each sees only the windows that are over.

Windows looked back on: vLLM and SGLang plan from the loads since the last plan, so their EPLB sees the latest window;
the others take up to ``RECENT`` windows, of which published systems leave the number to the user.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from schedrl.arrays import F64, I32, I64
from schedrl.baselines.moe.eplb import eplb_placement
from schedrl.baselines.moe.flashlb import FlashLB
from schedrl.baselines.moe.modelled_time import ModelledTime
from schedrl.baselines.moe.packing import RISK, balanced_placement, device_speed, risky_loads, swapped
from schedrl.baselines.moe.windows import Keep, PlanEveryWindow, WindowPlanner, rearranged, recent_windows
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.solution import device_loads
from schedrl.schedulers import SchedulerSpec

__all__ = [
    "RECENT",
    "SCHEDULERS",
    "EplbEveryWindow",
    "HorizonRule",
    "Swaps",
    "VarianceAware",
    "loads_since_change",
    "recency_weights",
]

RECENT = 8
_SPREAD = 2.0  # standard deviations that ScalpeLB adds for models of many experts
_MANY_EXPERTS = 192
# Total variation at which ScalpeLB takes a layer for drifting, and below which for stationary.
_DRIFTING, _STATIONARY = 0.2, 0.143


@dataclass(frozen=True, slots=True)
class EplbEveryWindow:
    """EPLB (hierarchical where it can be) on the sum of the latest windows."""

    keep: Keep = "nothing"
    recent: int = 1

    def plan(self, known: ExpertPlacementInstance, current: I32 | None) -> I32:
        """Return the placement (L, P) of the next window."""
        loads = recent_windows(known, self.recent).sum(axis=0).astype(np.float64)
        return rearranged(known, current, eplb_placement(known, loads, hierarchical=True), self.keep)


@dataclass(frozen=True, slots=True)
class VarianceAware:
    """LPT and swaps on means plus deviations over recent windows, relabelled to keep transfers few."""

    recent: int = RECENT

    def plan(self, known: ExpertPlacementInstance, current: I32 | None) -> I32:
        """Return the placement (L, P) of the next window."""
        loads = risky_loads(recent_windows(known, self.recent), RISK)
        return rearranged(known, current, balanced_placement(known, loads), "devices")


class Swaps:
    """Placed once, then few swaps of hot and cold experts per layer and window, after vllm-ascend's ScalpeLB.

    Loads are weighted means plus two standard deviations for models of at least 192 experts, none for smaller ones.
    A layer is placed anew when its peak-to-average exceeds that of a fresh placement by ``tolerance``, and all layers
    when that befalls more than half of them.

    Args:
        most_swaps: per layer and window.
        tolerance: of the peak-to-average.
        recent: windows that loads are taken over, at most.
    """

    def __init__(self, most_swaps: int = 8, tolerance: float = 0.2, recent: int = RECENT) -> None:
        self._most_swaps, self._tolerance, self._recent = most_swaps, tolerance, recent
        self._placed = False

    def plan(self, known: ExpertPlacementInstance, current: I32 | None) -> I32:
        """Return the placement (L, P) of the next window."""
        windows = recent_windows(known, self._recent)
        weights = recency_weights(windows)[:, :, None]
        mean = (weights * windows).sum(axis=0)
        deviation = np.sqrt((weights * (windows - mean) ** 2).sum(axis=0))
        loads = mean + (_SPREAD if known.experts >= _MANY_EXPERTS else 0.0) * deviation
        fresh = balanced_placement(known, loads)
        if current is None or not self._placed:
            self._placed = True
            return rearranged(known, current, fresh, "devices")
        kept = swapped(known, loads, current, swaps=self._most_swaps)
        drifted = _peaks(known, loads, kept) > _peaks(known, loads, fresh) + self._tolerance
        if 2 * drifted.sum() > len(drifted):
            drifted[:] = True
        kept[drifted] = rearranged(known, current, fresh, "devices")[drifted]
        return kept


def recency_weights(windows: I64) -> F64:
    """Return weights (W, L) of the windows (W, L, E) that sum to 1 in each layer.

    Equal while the latest window's distribution is near that of those before it, rising linearly with time once their
    total variation reaches 0.2, and in between from 0.143 on.
    """
    count, layers = windows.shape[:2]
    equal = np.full((count, layers), 1.0 / count)
    if count == 1:
        return equal
    shares = windows / np.maximum(windows.sum(axis=2, keepdims=True), 1)
    variation = 0.5 * np.abs(shares[-1] - shares[:-1].mean(axis=0)).sum(axis=1)  # (L,)
    gate = np.clip((variation - _STATIONARY) / (_DRIFTING - _STATIONARY), 0.0, 1.0)
    rising = np.arange(1, count + 1) / (count * (count + 1) / 2)
    weights: F64 = (1 - gate) * equal + gate * rising[:, None]
    return weights


def loads_since_change(windows: I64) -> F64:
    """Return mean loads (L, E) over the latest of ``windows`` (W, L, E) in a row that resemble the last one.

    A window resembles it while the total variation of their distributions is at most 0.2, layer by layer.
    """
    shares = windows / np.maximum(windows.sum(axis=2, keepdims=True), 1)
    near = 0.5 * np.abs(shares - shares[-1]).sum(axis=2) <= _DRIFTING  # (W, L)
    kept = np.logical_and.accumulate(near[::-1], axis=0)[::-1]
    loads: F64 = (kept[:, :, None] * windows).sum(axis=0) / kept.sum(axis=0)[:, None]
    return loads


def _peaks(instance: ExpertPlacementInstance, loads: F64, placement: I32) -> F64:
    """Return (L,) the slowest device's time per that under perfect balance."""
    speed = device_speed(instance)
    held = device_loads(instance, loads, placement)
    peaks: F64 = (held * speed).max(axis=1) * (1 / speed).sum() / np.maximum(held.sum(axis=1), 1e-300)
    return peaks


@dataclass(frozen=True, slots=True)
class HorizonRule:
    """Changes a layer when the time it saves over ``horizon`` windows exceeds that of the migration.

    Each layer keeps its placement, swaps up to ``most_swaps`` pairs, or takes a fresh placement, relabelled to keep
    transfers few: whatever is fastest in the time model for the forecast, migration included. The forecast is the mean
    of the windows since the layer's loads last changed, as ``loads_since_change`` says.
    """

    horizon: float = 8.0
    most_swaps: int = 8
    recent: int = RECENT

    def plan(self, known: ExpertPlacementInstance, current: I32 | None) -> I32:
        """Return the placement (L, P) of the next window."""
        windows = recent_windows(known, self.recent)
        loads = loads_since_change(windows)
        fresh = balanced_placement(known, loads)
        if current is None:
            return fresh
        modelled = ModelledTime(known)
        best = np.array(current)
        least = self.horizon * known.iterations * modelled.layer_s(loads, current)
        few = rearranged(known, current, swapped(known, loads, current, swaps=self.most_swaps), "slots")
        for option in (few, rearranged(known, current, fresh, "devices")):
            cost = self.horizon * known.iterations * modelled.layer_s(loads, option) + modelled.move_s(current, option)
            better = cost < least
            best[better], least[better] = option[better], cost[better]
        return best


def _spec(name: str, make_planner: Callable[[], WindowPlanner], summary: str, source: str) -> SchedulerSpec:
    return SchedulerSpec(
        name=f"moe/{name}",
        make=lambda: PlanEveryWindow(make_planner),
        information="online",
        summary=summary,
        source=source,
    )


_EPLB = "DeepSeek EPLB, re-run as vLLM and SGLang do"
SCHEDULERS: tuple[SchedulerSpec, ...] = (
    _spec("eplb-every-window", EplbEveryWindow, "EPLB on the latest window, before every window", _EPLB),
    _spec(
        "eplb-every-window-preserved",
        lambda: EplbEveryWindow(keep="slots"),
        "the same; experts that stay on a device keep their slot",
        f"{_EPLB}; slot preservation of vLLM",
    ),
    _spec(
        "eplb-relabelled",
        lambda: EplbEveryWindow(keep="devices of a node"),
        "the same; equal devices of a node exchange contents to keep most experts where they are",
        f"{_EPLB}; linear assignment",
    ),
    _spec("swaps", Swaps, "placed once, then at most 8 swaps per layer and window", "ScalpeLB in vllm-ascend"),
    _spec(
        "variance-aware-every-window",
        VarianceAware,
        f"lpt-swap on means plus {RISK} standard deviations of recent windows, before every window, relabelled",
        "risk-adjusted loads of FlashLB in vllm-ascend",
    ),
    _spec(
        "flashlb",
        FlashLB,
        "layers out of balance placed anew for mean and correlated spread of recent windows",
        "FlashLB in vllm-ascend",
    ),
    _spec(
        "horizon-rule",
        HorizonRule,
        "each layer kept, swapped or placed anew, by modelled time over 8 windows and migration",
        "cost-benefit rule on the time model",
    ),
)
