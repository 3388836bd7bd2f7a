"""What a comparison found: per scheduler, per size group, and for every pair of schedulers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any

import numpy as np

from schedrl.arrays import F64
from schedrl.evaluation.results import ResultRow
from schedrl.evaluation.statistics import (
    Interval,
    WinTieLoss,
    bootstrap,
    interquartile_mean,
    mean,
    sign_rank_p,
    win_tie_loss,
)
from schedrl.plotting.profile import profile_shares
from schedrl.schedulers import Information, SchedulerSpec

__all__ = ["PROFILE_GAPS", "Pair", "SchedulerSummary", "Summary", "summarise"]

SCHEMA = "schedrl/comparison-summary/1"
# Gaps at which summary.json tabulates the performance profile.
PROFILE_GAPS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSummary:
    """One scheduler over all instances; an instance's gap is the mean over its seeds.

    Gaps are fractions over the ``solved`` instances that have a reference; None where there is none. A mean
    over fewer instances than another scheduler solved is not comparable with it, so readers must show ``solved``.
    """

    name: str
    information: Information
    description: str
    source: str
    instances: int
    solved: int
    status: Mapping[str, int]  # rows by status
    mean_gap: Interval | None
    iqm_gap: Interval | None
    median_gap: float | None
    worst_gap: float | None
    group_gap: Mapping[str, float | None]  # mean gap by size group
    profile: tuple[float, ...]  # share of all instances within each of PROFILE_GAPS
    mean_wall_s: float | None
    peak_memory_mb: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One scheduler against another: instances won, tied and lost, and Wilcoxon's two-sided p-value."""

    first: str
    second: str
    score: WinTieLoss
    p_value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A whole comparison; schedulers come best first, those that solved every instance before the others."""

    family: str
    suite: str
    objective: str
    instances: tuple[str, ...]
    groups: Mapping[str, int]  # instances by size group
    reference_kinds: Mapping[str, int]  # instances by kind of reference
    schedulers: tuple[SchedulerSummary, ...]
    pairs: tuple[Pair, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain dictionaries and lists, ready for ``json.dumps``."""
        return {"schema": SCHEMA, "profile_gaps": list(PROFILE_GAPS), **asdict(self)}


def summarise(
    rows: Sequence[ResultRow],
    specs: Sequence[SchedulerSpec],
    sizes: Mapping[str, str],
    objective: str,
    *,
    suite: str = "",
) -> Summary:
    """Summarise the rows of one objective; ``sizes`` maps every instance, in order, to its size group.

    Rows of other objectives, schedulers and instances are left out.
    """
    names = [spec.name for spec in specs]
    chosen = [row for row in rows if row.objective == objective and row.scheduler in names and row.instance in sizes]
    order = {instance: k for k, instance in enumerate(sizes)}
    values = {name: np.full(len(sizes), np.nan) for name in names}
    gaps = {name: np.full(len(sizes), np.nan) for name in names}
    grouped: dict[tuple[str, str], list[ResultRow]] = {}
    for row in chosen:
        grouped.setdefault((row.scheduler, row.instance), []).append(row)
    for (name, instance), runs in grouped.items():
        values[name][order[instance]] = _mean_of([run.value for run in runs])
        gaps[name][order[instance]] = _mean_of([run.gap for run in runs])
    by_name = {name: [row for row in chosen if row.scheduler == name] for name in names}
    labels = list(sizes.values())
    schedulers = [_scheduler(spec, by_name[spec.name], values[spec.name], gaps[spec.name], labels) for spec in specs]
    schedulers.sort(key=lambda item: (item.solved < item.instances, _rank(item), item.name))
    kinds = {row.instance: row.reference_kind or "none" for row in chosen}
    return Summary(
        family=chosen[0].family if chosen else "",
        suite=suite,
        objective=objective,
        instances=tuple(sizes),
        groups=dict(Counter(labels)),
        reference_kinds=dict(Counter(kinds.values())),
        schedulers=tuple(schedulers),
        pairs=tuple(_pair(a.name, b.name, values) for a, b in permutations(schedulers, 2)),
    )


def _scheduler(
    spec: SchedulerSpec, rows: Sequence[ResultRow], values: F64, gaps: F64, labels: Sequence[str]
) -> SchedulerSummary:
    known = gaps[~np.isnan(gaps)]
    strata = [label for label, gap in zip(labels, gaps, strict=True) if not np.isnan(gap)]
    some = len(known) > 0
    groups = dict.fromkeys(labels)
    members = {group: [gaps[k] for k, label in enumerate(labels) if label == group] for group in groups}
    walls = [row.wall_s for row in rows if row.wall_s is not None]
    memory = [row.peak_memory_mb for row in rows if row.peak_memory_mb is not None]
    return SchedulerSummary(
        name=spec.name,
        information=spec.information,
        description=spec.summary,
        source=spec.source,
        instances=len(values),
        solved=int((~np.isnan(values)).sum()),
        status=dict(Counter(row.status for row in rows)),
        # The same stream for every scheduler, so that no interval depends on which others were compared.
        mean_gap=bootstrap(known, strata, mean, np.random.default_rng(0)) if some else None,
        iqm_gap=bootstrap(known, strata, interquartile_mean, np.random.default_rng(0)) if some else None,
        median_gap=float(np.median(known)) if some else None,
        worst_gap=float(known.max()) if some else None,
        group_gap={group: _none_if_nan(_mean_of(of_group)) for group, of_group in members.items()},
        profile=tuple(profile_shares(known, len(values), np.array(PROFILE_GAPS)).tolist()),
        mean_wall_s=float(np.mean(walls)) if walls else None,
        peak_memory_mb=max(memory) if memory else None,
    )


def _pair(first: str, second: str, values: Mapping[str, F64]) -> Pair:
    ours, theirs = values[first], values[second]
    both = ~np.isnan(ours) & ~np.isnan(theirs)
    # Relative differences, so that large instances do not outrank small ones.
    scale = np.maximum((np.abs(ours[both]) + np.abs(theirs[both])) / 2, np.finfo(np.float64).tiny)
    p_value = sign_rank_p(ours[both] / scale, theirs[both] / scale) if both.any() else None
    return Pair(first=first, second=second, score=win_tie_loss(ours, theirs), p_value=p_value)


def _mean_of(values: Sequence[float | None]) -> float:
    present = [value for value in values if value is not None and not np.isnan(value)]
    return float(np.mean(present)) if present else float("nan")


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else value


def _rank(item: SchedulerSummary) -> float:
    return float("inf") if item.mean_gap is None else item.mean_gap.value
