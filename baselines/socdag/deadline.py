"""Deadline heuristics of the edge and cloud kind: earliest deadline first, admission, migration and work stealing.

A reconstruction of the ideas of DEMS (arXiv 2412.20860), which serves single tasks with a deadline and a utility at
an edge device with a queue and at a cloud, generalised to jobs that are task graphs and to any number of devices.
The edge is the cheapest device types, the cloud all others. A job may use both at once: a task goes, when it is
ready, where it is expected to end first, and stands there in a queue by the absolute deadline of its job. Moving a
job to a tier confines those of its tasks that have not started to the tier, as far as the tier supports them. The
parameters are assumptions.

All rules are online: they learn of a job when it enters, and of a duration when the task has ended. Whether a job
will be late is forecast by planning what is left of the admitted jobs with expected durations, earliest deadline
first. Forecasts leave out the queueing of transfers under contention; the execution does not.
"""

from __future__ import annotations

import functools
import math
import time
from bisect import insort
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from schedrl.baselines.socdag.deadline_stream import CLOUD, EDGE, NEVER, Stream
from schedrl.baselines.socdag.outcomes import outcome
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.tables import transfer
from schedrl.errors import ConfigError
from schedrl.schedulers import Result, Scheduler, SchedulerSpec

__all__ = ["SCHEDULERS", "DeadlineRule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlineRule:
    """Earliest deadline first, with what is switched on.

    Raises:
        ConfigError: a parameter outside its range, or migration without admission.
    """

    admission: bool = False
    """drop a job at its entry when it is forecast to be late; only jobs with a deadline"""
    migration: bool = False
    """when a new job would make others late, give up or move whichever loses least utility"""
    stealing: bool = False
    """let an idle edge device take a task from another queue"""
    caution: float = 1.0
    """a job counts as late when this many times the forecast time to its end passes its deadline"""
    utility_per_usd: float = 0.0
    """utility that a dollar is worth when a job is moved to dearer devices"""
    edge_usd_per_h: float | None = None
    """dearest device type that still belongs to the edge, by default the cheapest of the platform"""

    def __post_init__(self) -> None:
        for name in ("caution", "utility_per_usd"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise ConfigError(f"option {name}: {value!r}, expected a finite number of 0 or more")
        if self.migration and not self.admission:
            raise ConfigError("option migration: needs admission, which decides when a job enters")

    def schedule(self, instance: SocDagInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the executed schedule; its dropped jobs have no device."""
        started = time.perf_counter()
        stream = Stream(
            instance,
            admit=functools.partial(_decide, self) if self.admission else None,
            stealing=self.stealing,
            edge_usd_per_h=self.edge_usd_per_h,
        )
        schedule = stream.run()
        # No bound on the latency holds when jobs can be dropped.
        bound = 0.0 if stream.dropped else None
        return outcome(instance, schedule, started=started, decisions=stream.decisions, lower_bound=bound)


class _Forecast(NamedTuple):
    end: dict[int, float]  # expected end of each job
    usd: dict[int, float]  # expected cost of what is left of each job


def _late(stream: Stream, rule: DeadlineRule, job: int, forecast: _Forecast) -> bool:
    """Whether a forecast lets a job miss its deadline."""
    end = stream.now + rule.caution * max(forecast.end[job] - stream.now, 0.0)
    due: float = stream.entry[job] + stream.deadline[job]
    return end > due + 1e-9 * max(1.0, abs(due))


def _forecast(stream: Stream, jobs: Iterable[int], tiers: Mapping[int, int]) -> _Forecast:
    """Plan what is left of jobs by expected durations, earliest deadline first, into the first gaps.

    Queued tasks keep their device, except those of the jobs whose tier ``tiers`` changes.
    """
    busy: list[list[tuple[float, float]]] = [[(stream.now, stream.free(device))] for device in stream.devices]
    end, usd, price = {}, {}, _prices(stream.instance)
    for job in sorted(jobs, key=lambda j: (stream.entry[j] + stream.deadline[j], j)):
        done: dict[int, tuple[float, int]] = {}
        usd[job] = 0.0
        for task in stream.order[job]:
            done[task] = _plan(stream, task, done, busy, tiers)
            if stream.start[task] == NEVER:
                d = done[task][1]
                usd[job] += price[d] * stream.duration[task][d]
        end[job] = max(finish for finish, _ in done.values())
    return _Forecast(end, usd)


def _plan(
    stream: Stream,
    task: int,
    done: Mapping[int, tuple[float, int]],
    busy: list[list[tuple[float, float]]],
    tiers: Mapping[int, int],
) -> tuple[float, int]:
    job, d = stream.job[task], stream.device[task]
    if stream.start[task] < NEVER:
        known = stream.end[task] <= stream.now
        return (stream.end[task] if known else stream.free(stream.devices[d])), d
    devices = [d] if d >= 0 and job not in tiers else stream.allowed(task, tiers.get(job, stream.tier[job]))
    best = (NEVER, -1, 0.0)
    for d in devices:
        ready, taken = max(stream.now, stream.entry[job]), stream.duration[task][d]
        for _, source, size in stream.inputs[task]:
            finish, origin = done[source]
            cost = transfer(stream.instance.links, size, origin, d, stream.instance.whole_units)
            ready = max(ready, finish + cost)
        begin = _gap(busy[d], ready, taken)
        best = min(best, (begin + taken, d, begin))
    insort(busy[best[1]], (best[2], best[0]))
    return best[0], best[1]


def _gap(busy: list[tuple[float, float]], ready: float, taken: float) -> float:
    begin = ready
    for low, high in busy:
        if begin + taken <= low:
            break
        begin = max(begin, high)
    return begin


def _prices(instance: SocDagInstance) -> list[float]:
    """Return (D,) dollars per time unit of use."""
    kinds = [instance.platform.devices[kind] for kind in instance.device_type]
    return [(kind.price_usd_per_h or 0.0) / kind.capacity * instance.time_unit_s / 3600.0 for kind in kinds]


class _Option(NamedTuple):
    """One way to go on when a job enters, and the utility that it loses."""

    loss: float
    tiers: dict[int, int]
    drop: set[int]


def _decide(rule: DeadlineRule, stream: Stream, job: int) -> None:
    """Keep a job that has just entered, or drop it, or make room for it."""
    others = [j for j in stream.inside if j != job and math.isfinite(stream.deadline[j])]
    plan = _forecast(stream, [*others, job], {})
    if _late(stream, rule, job, plan):
        stream.drop(job)
        return
    if not rule.migration or not any(_late(stream, rule, j, plan) for j in others):
        return
    before = _forecast(stream, others, {})
    safe = [j for j in others if not _late(stream, rule, j, before)]
    spoiled = [j for j in safe if _late(stream, rule, j, plan)]
    if not spoiled:
        return
    dropping = _Option(stream.utility[job], {}, {job})
    best = min([dropping, *_moves(rule, stream, job, plan, safe)], key=lambda option: option.loss)
    for j in best.drop:
        stream.drop(j)
    for j, tier in best.tiers.items():
        stream.confine(j, tier)


def _moves(rule: DeadlineRule, stream: Stream, job: int, plan: _Forecast, safe: list[int]) -> list[_Option]:
    """Return the ways to keep a new job with all safe ones on time: confine it, or move or drop what it makes late."""
    present = list(plan.end)

    def fits(tiers: dict[int, int], drop: set[int]) -> _Forecast | None:
        moved = _forecast(stream, [j for j in present if j not in drop], tiers)
        return None if any(_late(stream, rule, j, moved) for j in {job, *safe} - drop) else moved

    def unstarted(j: int) -> bool:
        return all(stream.start[task] == NEVER for task in stream.order[j])

    spoiled = [j for j in safe if _late(stream, rule, j, plan) and unstarted(j)]
    spoiled.sort(key=lambda j: stream.utility[j])
    found = []
    for tier in (EDGE, CLOUD):
        for tiers in ({job: tier}, dict.fromkeys(spoiled, tier)):
            if tiers and (moved := fits(tiers, set())):
                usd = sum(max(moved.usd[j] - plan.usd[j], 0.0) for j in tiers)
                found.append(_Option(rule.utility_per_usd * usd, tiers, set()))
    # Had a dropped job never been inside, others might have entered sooner: not under an admission limit.
    for count in range(1, 1 if stream.instance.admission_cap else len(spoiled) + 1):
        drop = set(spoiled[:count])
        if fits({}, drop):
            found.append(_Option(sum(stream.utility[j] for j in drop), {}, drop))
            break
    return found


def _make(build: Callable[..., Any]) -> Callable[[], Scheduler]:
    # Untyped on purpose: this takes SoC DAGs only, the contract any instance.
    return build


_SOURCE = "reconstruction of DEMS, arXiv 2412.20860; parameters are assumptions"
SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="socdag/edf",
        make=_make(DeadlineRule),
        information="online",
        summary="ready tasks of the job with the earliest deadline first, where they are expected to end first",
        source="Liu and Layland 1973, with earliest-finish placement",
    ),
    *(
        SchedulerSpec(
            name=f"socdag/{name}",
            make=_make(functools.partial(DeadlineRule, admission=True, migration=migration, stealing=stealing)),
            information="online",
            summary=summary,
            source=_SOURCE,
        )
        for name, migration, stealing, summary in (
            ("edf-admission", False, False, "the same, and a job that is forecast to be late is dropped at its entry"),
            ("dem", True, False, "the same, and of a new job and those it makes late the cheapest is moved or dropped"),
            ("dems", True, True, "the same, and idle devices of the cheapest tier steal queued tasks"),
        )
    ),
)
