"""CP-SAT on the disjunctive model: one interval per operation, no overlap on machines, least makespan."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from schedrl.baselines.jobshop.incumbent import IncumbentCallback
from schedrl.baselines.jobshop.outcomes import load_bound, makespan, outcome
from schedrl.baselines.jobshop.rules import best_rule_schedule, work_done, work_remaining
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule
from schedrl.schedulers import Result

if TYPE_CHECKING:
    from ortools.sat.python import cp_model

__all__ = ["CpSat"]

# CP-SAT rejects models whose sums could leave int64.
_MAX_HORIZON = 2**50
# (fraction of the time limit at which the phase ends, whether it only repairs parts of the best schedule).
# A short full search settles easy instances, repair improves hard ones, and the last phase proves.
_PLAIN_PHASES = ((1.0, False),)
_WARM_PHASES = ((0.1, False), (0.7, True), (1.0, False))


@dataclass(frozen=True, slots=True, kw_only=True)
class CpSat:
    """OR-Tools CP-SAT, plain or started from a schedule.

    The makespan of the best dispatching rule is the horizon of the model, so every schedule found is at least
    as good; when the solver finds none in time, that rule's schedule is the result.

    Args:
        workers: search threads.
        hint: a feasible schedule to start from.
        warm: without a hint, start from the schedule of the best dispatching rule.
        on_incumbent: called with every new best makespan, from one of the search threads.
    """

    workers: int = 1
    hint: Schedule | None = None
    warm: bool = False
    on_incumbent: IncumbentCallback | None = None

    def schedule(self, instance: JobShopInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best schedule within the limit, optimal when proven, with CP-SAT's lower bound."""
        started = time.perf_counter()
        best = _better(instance, self.hint, best_rule_schedule(instance, deadline=started + time_limit_s))
        bound = load_bound(instance)
        if self.on_incumbent is not None:
            self.on_incumbent(time.perf_counter() - started, makespan(instance, best))
        if makespan(instance, best) > _MAX_HORIZON:
            return outcome(instance, best, started=started)
        phases = _WARM_PHASES if self.warm or self.hint is not None else _PLAIN_PHASES
        for until, repair_only in phases:
            left = until * time_limit_s - (time.perf_counter() - started)
            if left > 0 and bound < makespan(instance, best):
                hint = best if phases is _WARM_PHASES else None
                seed = int(rng.integers(2**31 - 1))
                best, proven = self._solve(instance, best, hint, repair_only, left, seed, started)
                bound = max(bound, proven)
        return outcome(instance, best, started=started, lower_bound=bound)

    def _solve(
        self,
        instance: JobShopInstance,
        best: Schedule,
        hint: Schedule | None,
        repair_only: bool,
        limit_s: float,
        seed: int,
        began: float,
    ) -> tuple[Schedule, int]:
        """Return the better of ``best`` and what one run of CP-SAT finds, and the bound it proves.

        ``began`` is the reading of the clock that counts as second 0 for ``on_incumbent``.
        """
        from ortools.sat.python import cp_model

        started = time.perf_counter()
        horizon = makespan(instance, best)
        model, starts = _model(instance, horizon)
        if hint is not None:
            for variable, value in zip(starts, hint.start_time.tolist(), strict=True):
                model.add_hint(variable, value)
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = self.workers
        solver.parameters.random_seed = seed
        # One worker runs no large neighbourhood search unless several strategies take turns on it.
        solver.parameters.interleave_search = repair_only
        solver.parameters.use_lns_only = repair_only
        solver.parameters.max_time_in_seconds = max(0.01, limit_s - (time.perf_counter() - started))
        report = None if self.on_incumbent is None else _report(self.on_incumbent, horizon, began)
        status = solver.solve(model, report)
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            best = Schedule(start_time=np.array([solver.value(start) for start in starts], dtype=np.int64))
        proven = solver.best_objective_bound
        return best, math.ceil(proven - 1e-6) if math.isfinite(proven) else 0


def _report(on_incumbent: IncumbentCallback, known: int, began: float) -> cp_model.CpSolverSolutionCallback:
    """Return what makes CP-SAT call ``on_incumbent`` with makespans below ``known``."""
    from ortools.sat.python import cp_model

    class Report(cp_model.CpSolverSolutionCallback):
        def __init__(self) -> None:
            super().__init__()
            self._best = known

        def on_solution_callback(self) -> None:
            value = round(self.objective_value)
            if value < self._best:
                self._best = value
                on_incumbent(time.perf_counter() - began, value)

    return Report()


def _better(instance: JobShopInstance, first: Schedule | None, second: Schedule) -> Schedule:
    if first is not None and makespan(instance, first) <= makespan(instance, second):
        return first
    return second


def _model(instance: JobShopInstance, horizon: int) -> tuple[cp_model.CpModel, list[cp_model.IntVar]]:
    """Return the model and its start variables (N,), limited to schedules that end by ``horizon``."""
    from ortools.sat.python import cp_model

    duration = instance.duration.tolist()
    head = (work_done(instance) - instance.duration).tolist()
    latest = (horizon - work_remaining(instance)).tolist()
    last = set((instance.job_offset[1:] - 1).tolist())
    model = cp_model.CpModel()
    end = model.new_int_var(load_bound(instance), horizon, "makespan")
    starts = [model.new_int_var(low, high, "") for low, high in zip(head, latest, strict=True)]
    on_machine: list[list[cp_model.IntervalVar]] = [[] for _ in range(instance.machines)]
    for operation, machine in enumerate(instance.machine.tolist()):
        finish = starts[operation] + duration[operation]
        # The checker lets a zero duration stand at the edge of another operation but not inside it, and so
        # does CP-SAT: of two intervals, one ends no later than the other starts.
        on_machine[machine].append(model.new_fixed_size_interval_var(starts[operation], duration[operation], ""))
        model.add(finish <= (end if operation in last else starts[operation + 1]))
    for intervals in on_machine:
        model.add_no_overlap(intervals)
    model.minimize(end)
    return model, starts
