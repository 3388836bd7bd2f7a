"""Statistics of gaps over instances, in numpy alone.

The interquartile mean with bootstrap intervals follows Agarwal et al., "Deep reinforcement learning at the edge
of the statistical precipice", 2021. There the strata are the tasks and the runs within a task are resampled. Here
deterministic methods have one run per instance, so the instances within a size group are resampled instead: the
interval answers how much the figure would move on other instances of the same sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from schedrl.arrays import F64, I64

__all__ = ["Interval", "WinTieLoss", "bootstrap", "interquartile_mean", "mean", "sign_rank_p", "win_tie_loss"]

_EXACT_PAIRS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A point estimate with the ends of its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WinTieLoss:
    """On how many instances one method is better than, level with and worse than another."""

    wins: int
    ties: int
    losses: int


def mean(values: F64) -> F64:
    """Return the mean over the last axis."""
    result: F64 = np.asarray(values.mean(axis=-1))
    return result


def interquartile_mean(values: F64) -> F64:
    """Return the mean over the last axis without its lowest and highest quarter.

    Each end loses floor(n / 4) values, as ``scipy.stats.trim_mean(values, 0.25)`` does.
    """
    cut = values.shape[-1] // 4
    return mean(np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut])


def bootstrap(
    values: F64,
    strata: Sequence[str],
    statistic: Callable[[F64], F64],
    rng: np.random.Generator,
    *,
    replicates: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Return a statistic of (n,) values with its stratified percentile bootstrap interval.

    Every replicate draws with replacement within each stratum. Strata of one value cannot vary by themselves
    and are pooled into one. ``statistic`` reduces the last axis.
    """
    groups = _pooled(strata)
    drawn = [values[rows[rng.integers(0, len(rows), size=(replicates, len(rows)))]] for rows in groups]
    samples = statistic(np.concatenate(drawn, axis=1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return Interval(value=float(statistic(values)), low=float(low), high=float(high))


def win_tie_loss(ours: F64, theirs: F64, *, tolerance: float = 1e-9) -> WinTieLoss:
    """Compare two methods on the same instances, lower is better, relative ``tolerance`` for a tie.

    NaN marks an instance without a valid solution: it loses against any solution, and two are left out.
    """
    ours, theirs = np.where(np.isnan(ours), np.inf, ours), np.where(np.isnan(theirs), np.inf, theirs)
    counted = np.isfinite(ours) | np.isfinite(theirs)
    tied = counted & np.isclose(ours, theirs, rtol=tolerance, atol=0.0)
    wins, losses = counted & ~tied & (ours < theirs), counted & ~tied & (ours > theirs)
    return WinTieLoss(wins=int(wins.sum()), ties=int(tied.sum()), losses=int(losses.sum()))


def sign_rank_p(ours: F64, theirs: F64) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test on paired values.

    Zero differences are dropped, ties share mid-ranks. The distribution given the ranks is exact up to 200
    pairs and normal above. Without any difference the p-value is 1.
    """
    difference = np.asarray(ours - theirs, dtype=np.float64)
    difference = difference[difference != 0]
    if not len(difference):
        return 1.0
    doubled = _doubled_ranks(np.abs(difference))
    positive = int(doubled[difference > 0].sum())
    least = min(positive, int(doubled.sum()) - positive)
    if len(difference) > _EXACT_PAIRS:
        return _normal_p(least, doubled)
    return min(1.0, 2 * float(_sum_distribution(doubled)[: least + 1].sum()))


def _pooled(strata: Sequence[str]) -> list[I64]:
    labels = np.asarray(strata)
    groups = [np.flatnonzero(labels == label) for label in dict.fromkeys(strata)]
    single = [group for group in groups if len(group) == 1]
    return [group for group in groups if len(group) > 1] + ([np.concatenate(single)] if single else [])


def _doubled_ranks(values: F64) -> I64:
    """Return twice the mid-rank of each value, an integer."""
    order = np.sort(values)
    first, last = np.searchsorted(order, values, "left"), np.searchsorted(order, values, "right")
    doubled: I64 = (first + last + 1).astype(np.int64)
    return doubled


def _sum_distribution(doubled: I64) -> F64:
    """Return the probability of each sum of a random subset of the ranks."""
    chance = np.zeros(int(doubled.sum()) + 1)
    chance[0] = 1.0
    for rank in doubled.tolist():
        moved = chance[: len(chance) - rank] / 2
        chance /= 2
        chance[rank:] += moved
    return chance


def _normal_p(least: int, doubled: I64) -> float:
    from math import erfc, sqrt

    centre, spread = doubled.sum() / 2, sqrt(float((doubled.astype(np.float64) ** 2).sum()) / 4)
    return min(1.0, erfc(abs(least - centre) / spread / sqrt(2)))
