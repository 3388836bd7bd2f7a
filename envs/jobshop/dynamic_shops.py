"""What makes a shop dynamic: arrivals, due dates and weights, breakdowns, durations that turn out otherwise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from schedrl.arrays import F64, I64
from schedrl.envs.jobshop.option_checks import require_between, require_choice
from schedrl.envs.jobshop.shop import ShopInstance
from schedrl.errors import ConfigError

__all__ = ["OBJECTIVES", "dynamic_fields", "expected_work", "outages"]

OBJECTIVES: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {"makespan": (1.0, 0.0, 0.0), "tardiness": (0.0, 1.0, 0.0), "flow-time": (0.0, 0.0, 1.0)}
)
"""weights of makespan, total weighted tardiness and total weighted flow time by name"""
_WEIGHTS, _SHARES = (1.0, 2.0, 4.0), (0.2, 0.6, 0.2)
# The widest uniform distribution around 1 that stays above 0.
_WIDEST_UNIFORM = 1 / math.sqrt(3)
# Below this coefficient of variation, arrivals count as regular: rounding to integers hides it.
_REGULAR = 1e-6


def expected_work(shop: ShopInstance) -> F64:
    """Return (J,) expected work of each job, every operation counted by the mean of its modes."""
    mean = np.add.reduceat(shop.duration, shop.mode_offset[:-1]) / np.diff(shop.mode_offset)
    work: F64 = np.add.reduceat(mean, shop.job_offset[:-1])
    return work


def dynamic_fields(
    rng: np.random.Generator,
    shop: ShopInstance,
    *,
    utilisation: float,
    variation: float,
    tightness: float,
    availability: float,
    mean_repair: float,
    failure_shape: float,
    noise: float,
    noise_distribution: str,
) -> dict[str, Any]:
    """Return the fields of a shop that make it dynamic; ``shop_generators.dynamic`` describes the options.

    Arrivals, weights, noise and breakdowns draw from streams of their own.

    Raises:
        ConfigError: an option outside its range.
    """
    require_between("utilisation", utilisation, 0.01, 10.0)
    require_between("variation", variation, 0.0, 100.0)
    require_between("tightness", tightness, 0.0, 1000.0)
    _require_availability(availability)
    arrival, weight, luck, failure = (np.random.default_rng(int(seed)) for seed in rng.integers(2**63, size=4))
    work = expected_work(shop)
    gap = float(work.mean()) / (shop.machines * availability * utilisation)
    release = _releases(arrival, shop.jobs, gap, variation)
    actual = _actual_durations(luck, shop, noise, noise_distribution)
    offset, start, end = outages(
        failure,
        machines=shop.machines,
        # Not even jobs one after another, with the usual time for repairs, take longer.
        until=int(release.max()) + int(shop.duration.sum() + actual.sum()),
        availability=availability,
        mean_repair=mean_repair,
        failure_shape=failure_shape,
    )
    return {
        "actual_duration": actual,
        "release": release,
        "due": release + np.rint(tightness * work).astype(np.int64),
        "weight": weight.choice(_WEIGHTS, p=_SHARES, size=shop.jobs),
        "outage_offset": offset,
        "outage_start": start,
        "outage_end": end,
    }


def _releases(rng: np.random.Generator, jobs: int, gap: float, variation: float) -> I64:
    """Return (J,) arrivals a mean ``gap`` apart, the first at 0."""
    regular = variation < _REGULAR
    gaps: F64 = np.full(jobs, gap) if regular else rng.gamma(variation**-2, gap * variation**2, size=jobs)
    gaps[0] = 0.0
    return np.rint(np.cumsum(gaps)).astype(np.int64)


def _actual_durations(rng: np.random.Generator, shop: ShopInstance, noise: float, distribution: str) -> I64:
    """Return (K,) durations as they turn out; an operation is as lucky in all its modes."""
    require_choice("noise_distribution", distribution, ("log-normal", "uniform"))
    if distribution == "uniform":
        if not 0.0 <= noise <= _WIDEST_UNIFORM:
            raise ConfigError(f"option noise: {noise}, expected 0 to {_WIDEST_UNIFORM:.3f} where it is uniform")
        factor = 1.0 + noise * math.sqrt(3) * rng.uniform(-1.0, 1.0, size=shop.operations)
    else:
        require_between("noise", noise, 0.0, 10.0)
        deviation = math.sqrt(math.log1p(noise**2))
        factor = np.exp(deviation * rng.standard_normal(shop.operations) - deviation**2 / 2)
    actual = np.rint(shop.duration * factor[shop.mode_operation]).astype(np.int64)
    return np.maximum(actual, np.minimum(shop.duration, 1))


def outages(
    rng: np.random.Generator,
    *,
    machines: int,
    until: int,
    availability: float,
    mean_repair: float,
    failure_shape: float,
) -> tuple[I64, I64, I64]:
    """Draw breakdowns of machines that are as new at time 0 and after each repair.

    Times to failure are Weibull with mean ``mean_repair * availability / (1 - availability)``, so that a machine is
    up that share of the time; repair times are exponential. Both are rounded to at least 1.

    Args:
        rng: Source of all draws.
        machines: Number of machines M.
        until: No breakdown starts later, time units.
        availability: Share of the time up, 0.01 to 1; 1 for no breakdowns.
        mean_repair: Mean time to repair, time units.
        failure_shape: Weibull shape, above 1 for machines that wear out; 1 is exponential.

    Returns:
        (M + 1,) offsets of machines, (O,) starts and (O,) ends, as the fields of a shop.

    Raises:
        ConfigError: an option outside its range.
    """
    _require_availability(availability)
    require_between("mean_repair", mean_repair, 1.0, 1e9)
    require_between("failure_shape", failure_shape, 0.2, 100.0)
    if availability == 1.0:
        return np.zeros(machines + 1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    mean_up = mean_repair * availability / (1.0 - availability)
    scale = mean_up / math.gamma(1.0 + 1.0 / failure_shape)
    starts, ends = [], []
    for _ in range(machines):
        up, down = _renewals(rng, until, scale, failure_shape, mean_up, mean_repair)
        end = np.cumsum(up + down)
        kept = end - down <= until
        starts.append((end - down)[kept])
        ends.append(end[kept])
    offset = np.concatenate([[0], np.cumsum([len(start) for start in starts])])
    return offset, np.concatenate(starts), np.concatenate(ends)


def _renewals(
    rng: np.random.Generator, until: int, scale: float, shape: float, mean_up: float, mean_repair: float
) -> tuple[I64, I64]:
    """Return times up and down of one machine in turns, enough to pass ``until``."""
    block = 8 + int(1.5 * until / (mean_up + mean_repair))
    up, down = np.zeros(0, np.int64), np.zeros(0, np.int64)
    while up.sum() + down.sum() <= until:
        more_up = np.rint(scale * rng.weibull(shape, size=block))
        more_down = np.rint(rng.exponential(mean_repair, size=block))
        up = np.concatenate([up, np.maximum(more_up, 1).astype(np.int64)])
        down = np.concatenate([down, np.maximum(more_down, 1).astype(np.int64)])
    return up, down


def _require_availability(availability: float) -> None:
    require_between("availability", availability, 0.01, 1.0)
