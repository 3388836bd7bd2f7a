"""CP-SAT for shops of every variant, knowing everything: choice, blocking, dates, setups, outages."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from schedrl.baselines.jobshop.shop_execution import (
    Execution,
    Plan,
    ShopState,
    outages_of,
    project,
    weighted_objective,
)
from schedrl.baselines.jobshop.shop_model import ShopModel, serial_horizon
from schedrl.baselines.jobshop.shop_plans import best_plan, first_plans
from schedrl.envs.jobshop.shop import ShopInstance
from schedrl.envs.jobshop.shop_schedule import ShopSchedule
from schedrl.schedulers import Result

__all__ = ["ShopCpSat", "plan_of", "schedule_of"]

# CP-SAT rejects models whose sums could leave int64.
_MAX_TIME = 2**50
# (fraction of the time limit at which the phase ends, whether it only repairs parts of the best schedule).
# A short full search settles easy instances, repair improves hard ones, and the last phase proves. Several threads
# take turns at all three by themselves.
_PHASES = ((0.4, False), (0.7, True), (1.0, False))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopCpSat:
    """OR-Tools CP-SAT on the exact model of the shop, started from the best of a few dispatching rules.

    It plans with actual durations, all releases and all outages. When the solver finds nothing better in time, the
    schedule it started from is the result.

    Args:
        threads: search threads.
        hint: a feasible schedule to start from.
    """

    threads: int = 1
    hint: ShopSchedule | None = None

    def schedule(self, shop: ShopInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best schedule within the limit, optimal when proven, with CP-SAT's lower bound."""
        started = time.perf_counter()
        duration, outages, state = shop.actual_duration.tolist(), outages_of(shop), ShopState.initial(shop)
        plans = ([] if self.hint is None else [plan_of(shop, self.hint)]) + first_plans(shop, duration, state)
        _, best, value = best_plan(shop, duration, outages, state, plans)
        horizon = serial_horizon(shop, duration, outages, state)
        bound = 0.0
        if horizon <= _MAX_TIME:
            if shop.objective == "makespan":
                horizon = int(value)
            model = ShopModel(shop, duration, outages, state, horizon)
            for until, repair_only in _PHASES if self.threads == 1 else ((1.0, False),):
                left = until * time_limit_s - (time.perf_counter() - started)
                if left <= 0 or _met(value, bound):
                    continue
                model.hint(best.start, best.mode)
                seed = int(rng.integers(2**31 - 1))
                found = model.solve(left, threads=self.threads, seed=seed, repair_only=repair_only)
                # Each operation starts as early as its place in the order allows, so this is no worse.
                if found.plan is not None:
                    improved = project(shop, duration, outages, state, found.plan)
                    if (reached := _value(shop, improved)) < value:
                        best, value = improved, reached
                bound = max(bound, found.bound)
        return Result(
            solution=schedule_of(shop, best),
            objective=value,
            status="optimal" if _met(value, bound) else "feasible",
            runtime_s=time.perf_counter() - started,
            lower_bound=min(bound, value),
        )


def plan_of(shop: ShopInstance, schedule: ShopSchedule) -> Plan:
    """Return modes and machine orders of a schedule, whose starts are then no longer needed.

    Operations without duration come before those that start with them on their machine.
    """
    mode = (shop.mode_offset[:-1] + schedule.mode).tolist()
    end = schedule.start_time + shop.actual_duration[mode]
    order: list[list[int]] = [[] for _ in range(shop.machines)]
    for o in np.lexsort((end, schedule.start_time)).tolist():
        order[shop.machine[mode[o]]].append(o)
    return Plan(mode=mode, order=order)


def schedule_of(shop: ShopInstance, execution: Execution) -> ShopSchedule:
    """Return what an execution did, once all operations have run."""
    mode = np.array(execution.mode, dtype=np.int32) - shop.mode_offset[:-1]
    return ShopSchedule(mode=mode.astype(np.int32), start_time=np.array(execution.start, dtype=np.int64))


def _value(shop: ShopInstance, execution: Execution) -> float:
    last = shop.job_offset[1:] - 1
    if any(execution.mode[o] < 0 for o in last.tolist()):
        return math.inf
    return weighted_objective(shop, np.array(execution.end, dtype=np.int64)[last])


def _met(value: float, bound: float) -> bool:
    return value <= bound + 1e-6 * max(1.0, abs(value) * 1e-3)
