"""HEFT for several objectives: its order of tasks, but devices and operating points by the instance's preference."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.baselines.socdag.list_scheduling import (
    Plan,
    State,
    begin_job,
    data_ready,
    earliest_start,
    end_job,
    follow,
    new_plan,
    new_state,
    place,
    ready_tasks,
    take_first,
)
from schedrl.baselines.socdag.outcomes import outcome
from schedrl.baselines.socdag.ranks import of_tasks, sequence_by, upward_rank
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.kernels import kernel
from schedrl.schedulers import Result, SchedulerSpec

__all__ = ["SCHEDULERS", "WeightedHeft", "weighted_plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedHeft:
    """Plan by ``weighted_plan`` and execute the plan; the reported objective is the mean latency all the same."""

    def schedule(self, instance: SocDagInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the schedule; the one pass always runs to its end, whatever the limit."""
        started = time.perf_counter()
        schedule = follow(instance, weighted_plan(instance))
        return outcome(instance, schedule, started=started, decisions=instance.tasks)


def weighted_plan(instance: SocDagInstance) -> Plan:
    """Return HEFT's plan with each task where the preference-weighted sum of three shares is least.

    The shares are its finish, its energy and its cost, each against the mean of that task over all devices and
    operating points: of the finish, against the mean duration. Ties go to the earlier finish, then to the lowest
    device and fastest point. With all weight on latency this is HEFT. Energy is that of running tasks alone.
    """
    duration, energy, cost = _options(instance)
    assert instance.preference is not None
    weights = instance.preference / instance.preference.sum()
    usable = np.isfinite(duration)
    state = new_state(instance, insertion=True)
    _by_weighted_sum(
        state,
        sequence_by(instance, upward_rank(instance)),
        np.ascontiguousarray(duration),
        weights[0] / _mean(duration, usable),
        np.ascontiguousarray(weights[1] * _share(energy, usable) + weights[2] * _share(cost, usable)),
    )
    return new_plan(instance, state)


def _options(instance: SocDagInstance) -> tuple[F64, F64, F64]:
    """Return (N, D, K) durations, inf where there is no such option, and what each takes in energy and cost."""
    templates = np.concatenate([graph.duration for graph in instance.graphs])[:, instance.device_type]
    speed, power, points = instance.operating_points
    duration = of_tasks(instance, templates)[:, :, None] / speed
    if instance.whole_units:
        duration = np.ceil(duration - 1e-9)
    duration = np.where(np.arange(speed.shape[1]) < points[:, None], duration, np.inf)
    kinds = [instance.platform.devices[kind] for kind in instance.device_type]
    price = np.array([(kind.price_usd_per_h or 0.0) / kind.capacity for kind in kinds])
    busy = np.where(np.isfinite(duration), duration, 0.0)
    return duration, busy * power, busy * price[:, None]


def _mean(quantity: F64, usable: Any) -> F64:
    """Return (N,) means over the options that there are, 1 where all are 0."""
    mean: F64 = np.where(usable, quantity, 0.0).sum(axis=(1, 2)) / usable.sum(axis=(1, 2))
    return np.where(mean > 0.0, mean, 1.0)


def _share(quantity: F64, usable: Any) -> F64:
    share: F64 = quantity / _mean(quantity, usable)[:, None, None]
    return share


@kernel
def _by_weighted_sum(state: State, position: I32, duration: F64, urgency: F64, burden: F64) -> None:
    """Place the ready task that stands first where ``urgency * finish + burden`` is least.

    Args:
        state: filled with the plan.
        position: (N,) of each task in the sequence.
        duration: (N, D, K) by device and operating point, inf where there is none.
        urgency: (N,) weight of a time unit.
        burden: (N, D, K) weighted shares of energy and cost.
    """
    for j in range(len(state.release)):
        begin_job(state, j)
        while ready_tasks(state) > 0:
            t = take_first(state, position)
            chosen, point, chosen_start, best, best_end = -1, 0, 0.0, np.inf, np.inf
            for q in range(duration.shape[1]):
                if np.isinf(duration[t, q, 0]):
                    continue
                ready = data_ready(state, t, q, state.entry[j])
                for k in range(duration.shape[2]):
                    if np.isinf(duration[t, q, k]):
                        break
                    start = earliest_start(state, q, ready, duration[t, q, k])
                    end = start + duration[t, q, k]
                    value = urgency[t] * end + burden[t, q, k]
                    if chosen < 0 or value < best or (value == best and end < best_end):
                        chosen, point, chosen_start, best, best_end = q, k, start, value, end
            state.point[t] = point
            place(state, t, chosen, chosen_start, duration[t, chosen, point])
        end_job(state, j)


def _make() -> Any:
    # Untyped on purpose: it takes SoC DAGs only, the contract any instance; a spec meets its own family's.
    return WeightedHeft()


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="socdag/weighted-heft",
        make=_make,
        information="online",
        summary="HEFT that weighs finish, energy and cost by the instance's preference, over devices and operating "
        "points; plans each job at its entry and executes the plan",
        source="weighted-sum scalarisation of HEFT (Topcuoglu, Hariri and Wu 2002)",
    ),
)
