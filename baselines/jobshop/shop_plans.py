"""First plans of a shop, from dispatching rules: what CP-SAT starts from and what stands when it finds nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from schedrl.arrays import I64
from schedrl.baselines.jobshop.shop_execution import (
    Execution,
    Outages,
    Plan,
    ShopState,
    project,
    weighted_objective,
)
from schedrl.envs.jobshop.shop import NO_DUE_DATE, ShopInstance

__all__ = ["best_plan", "dispatched_plan", "first_plans", "joined_plan"]

Priority = Literal["spt-twkr", "weighted-modified-due-date"]


def first_plans(shop: ShopInstance, duration: list[int], state: ShopState) -> list[Plan]:
    """Return plans of all known operations that have not started, each safe from deadlock if nothing runs yet."""
    nothing = Plan(mode=state.mode.tolist(), order=[[] for _ in range(shop.machines)])
    if shop.blocking != "none":
        return [joined_plan(shop, duration, state, nothing)]
    priorities: list[Priority] = ["spt-twkr"]
    if shop.objective_weights[1] or shop.objective_weights[2]:
        priorities.append("weighted-modified-due-date")
    return [dispatched_plan(shop, duration, state, priority) for priority in priorities]


def best_plan(
    shop: ShopInstance, duration: list[int], outages: Outages, state: ShopState, plans: Sequence[Plan]
) -> tuple[Plan, Execution, float]:
    """Return the plan of the least objective with its projection; ties go to the first.

    Raises:
        ValueError: none of the plans reaches its end.
    """
    best: tuple[Plan, Execution, float] | None = None
    last = shop.job_offset[1:] - 1
    for plan in plans:
        execution = project(shop, duration, outages, state, plan)
        if any(execution.mode[o] < 0 for o in last[state.known].tolist()):
            continue
        objective = weighted_objective(shop, np.array(execution.end, dtype=np.int64)[last], state.known)
        if best is None or objective < best[2]:
            best = plan, execution, objective
    if best is None:
        raise ValueError(f"{shop.name}: every plan ends in a deadlock")
    return best


def dispatched_plan(shop: ShopInstance, duration: list[int], state: ShopState, priority: Priority) -> Plan:
    """Return the non-delay plan of a rule: of the operations that can start first, the one of least priority.

    An operation with a choice takes the mode in which it completes first. Priorities are the ratio of duration to
    the job's remaining work (Panwalkar and Iskander 1977), and the modified due date (Baker and Bertrand 1982) over
    the job's weight.
    """
    rank = _PRIORITIES[priority](shop)
    first, after = shop.job_offset[:-1].tolist(), shop.job_offset[1:].tolist()
    upcoming = [
        next((o for o in range(a, b) if state.mode[o] < 0), b) if known else b
        for a, b, known in zip(first, after, state.known.tolist(), strict=True)
    ]
    ready = [
        max(state.now, int(shop.release[j]), int(state.end[o - 1]) if o > first[j] else 0)
        for j, o in enumerate(upcoming)
    ]
    machines = _Machines(shop, state)
    plan = Plan(mode=state.mode.tolist(), order=[[] for _ in range(shop.machines)])
    while waiting := [j for j, o in enumerate(upcoming) if o < after[j]]:
        options = [(*machines.option(upcoming[j], ready[j], duration), j) for j in waiting]
        earliest = min(option[0] for option in options)
        _, end, mode, j = min(
            (option for option in options if option[0] == earliest),
            key=lambda option: (rank(upcoming[option[3]], option[0], option[1]), option[3]),
        )
        machines.take(upcoming[j], mode, end)
        plan.mode[upcoming[j]] = mode
        plan.order[shop.machine[mode]].append(upcoming[j])
        upcoming[j], ready[j] = upcoming[j] + 1, end
    return plan


def joined_plan(shop: ShopInstance, duration: list[int], state: ShopState, plan: Plan) -> Plan:
    """Return a plan continued by the known jobs it lacks, one after another behind all others on every machine.

    A plan that ends without deadlock still does so: the new jobs wait for others, never others for them. Among
    new jobs the one of least release comes first, then the one of most work.
    """
    joined = Plan(mode=list(plan.mode), order=[list(order) for order in plan.order])
    jobs = [j for j in range(shop.jobs) if state.known[j] and joined.mode[shop.job_offset[j + 1] - 1] < 0]
    work = np.add.reduceat(shop.least_duration, shop.job_offset[:-1])
    for j in sorted(jobs, key=lambda j: (shop.release[j], -work[j])):
        for o in range(shop.job_offset[j], shop.job_offset[j + 1]):
            if joined.mode[o] < 0:
                joined.mode[o] = min(range(shop.mode_offset[o], shop.mode_offset[o + 1]), key=duration.__getitem__)
                joined.order[shop.machine[joined.mode[o]]].append(o)
    return joined


class _Machines:
    """When each machine is free and what it ran last, while a plan grows."""

    def __init__(self, shop: ShopInstance, state: ShopState) -> None:
        self._shop = shop
        self._machine: list[int] = shop.machine.tolist()
        self._modes: list[int] = shop.mode_offset.tolist()
        self._family: list[int] = shop.setup_family.tolist()
        self._setup: list[list[list[int]]] = shop.setup.tolist()
        self._single = shop.setup.shape[1] == 1
        self._free = [max(state.now, available) for available in state.available.tolist()]
        self._last = [-1] * shop.machines
        started = np.flatnonzero(state.mode >= 0)
        for o in started[np.lexsort((state.end[started], state.start[started]))].tolist():
            self.take(o, int(state.mode[o]), int(state.end[o]))

    def option(self, o: int, ready: int, duration: list[int]) -> tuple[int, int, int]:
        """Return start, end and mode of an operation put behind all others, where it completes first."""
        best = (0, 0, -1)
        for mode in range(self._modes[o], self._modes[o + 1]):
            machine = self._machine[mode]
            free, before = self._free[machine], self._last[machine]
            if before >= 0:
                row = self._setup[machine][0 if self._single else self._family[before]]
                free += row[0 if self._single else self._family[o]]
            begin = max(ready, free)
            if best[2] < 0 or begin + duration[mode] < best[1]:
                best = (begin, begin + duration[mode], mode)
        return best

    def take(self, o: int, mode: int, end: int) -> None:
        machine = self._machine[mode]
        self._free[machine] = max(self._free[machine], end)
        self._last[machine] = o


def _ratio_to_work(shop: ShopInstance) -> Callable[[int, int, int], float]:
    left = _remaining_work(shop).tolist()
    return lambda o, begin, end: (end - begin) / max(1, left[o])


def _modified_due_date(shop: ShopInstance) -> Callable[[int, int, int], float]:
    left, job = _remaining_work(shop).tolist(), shop.job.tolist()
    # A job without due date competes by its remaining work alone.
    due = np.where(shop.due < NO_DUE_DATE, shop.due, 0).tolist()
    weight = np.maximum(shop.weight, 1e-9).tolist()
    return lambda o, begin, end: (max(due[job[o]], begin + left[o]) - begin) / weight[job[o]]


def _remaining_work(shop: ShopInstance) -> I64:
    """Return the work (N,) from each operation to its job's end, in the fastest modes."""
    total = np.cumsum(shop.least_duration[::-1])[::-1]
    left: I64 = total - np.append(total, 0)[shop.job_offset[1:]][shop.job]
    return left


_PRIORITIES: dict[Priority, Callable[[ShopInstance], Callable[[int, int, int], float]]] = {
    "spt-twkr": _ratio_to_work,
    "weighted-modified-due-date": _modified_due_date,
}
