"""Rolling-horizon CP-SAT for shops in which jobs arrive, machines break down and durations turn out otherwise.

Whenever something is revealed, all known operations that have not started are planned anew (Church and Uzsoy 1992
call this event-driven rescheduling); between two plans the shop follows the order of the last one, whatever happens.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from schedrl.baselines.jobshop.shop_exact import schedule_of
from schedrl.baselines.jobshop.shop_execution import Execution, Plan, ShopState, outages_of, weighted_objective
from schedrl.baselines.jobshop.shop_model import ShopModel, serial_horizon
from schedrl.baselines.jobshop.shop_plans import best_plan, first_plans, joined_plan
from schedrl.envs.jobshop.shop import ShopInstance
from schedrl.errors import ConfigError, InstanceError
from schedrl.schedulers import Result

__all__ = ["Knowledge", "RollingCpSat"]

_LEAST_SLICE_S = 0.01  # below, building the model takes longer than solving it
_SHARE = 0.25  # of the time left that one plan may take, so that later ones get some too
_MAX_TIME = 2**50


@dataclass(slots=True, kw_only=True)
class RollingCpSat:
    """CP-SAT under a short limit at every event that reveals something, online.

    Revealed are: a job that was not announced, by its release; an outage, by its begin and its end; a duration, when
    an operation completes early, or late, or is still running at its expected end. An operation that overruns is
    expected to complete in one time unit from now, always anew. A machine that is down is expected to be repaired
    when it has been down for the mean of the outages that have ended so far on any machine, or, before the first has
    ended, for the mean expected duration of the known jobs' modes.

    Each plan starts from the better of the last one, new jobs put behind all others, and of dispatching rules, and
    is replaced only by one that promises a lower objective. The limit of the whole run cuts limits of single plans
    to a quarter of what is left of it.

    Args:
        replan_limit_s: wall seconds of one plan, its model included.
        period: least time units between two plans.
        threads: search threads.
    """

    replan_limit_s: float = 1.0
    period: int = 0
    threads: int = 1
    latency_s: list[float] = field(default_factory=list)
    """wall seconds of every plan of the last run"""

    def __post_init__(self) -> None:
        if not self.replan_limit_s >= 0.0:
            raise ConfigError(f"replan_limit_s: {self.replan_limit_s}, expected seconds from 0 on")
        if self.period < 0:
            raise ConfigError(f"period: {self.period}, expected time units from 0 on")

    @property
    def latency(self) -> dict[str, float]:
        """Number of plans of the last run, and median and 99th percentile of their wall seconds."""
        if not self.latency_s:
            return {"replans": 0.0}
        p50, p99 = np.percentile(self.latency_s, (50, 99))
        return {"replans": float(len(self.latency_s)), "p50_s": float(p50), "p99_s": float(p99)}

    def schedule(self, shop: ShopInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the schedule that happened.

        Raises:
            InstanceError: with blocking, the shop ended in a deadlock.
        """
        started = time.perf_counter()
        self.latency_s = []
        execution = Execution(shop, shop.actual_duration.tolist(), outages_of(shop), ShopState.initial(shop))
        knowledge = Knowledge(shop, execution)
        execution.follow(Plan(mode=[-1] * shop.operations, order=[[] for _ in range(shop.machines)]))
        pending, next_plan = True, 0
        while any(mode < 0 for mode in execution.mode):
            pending |= knowledge.update()
            if pending and execution.now >= next_plan:
                left = time_limit_s - (time.perf_counter() - started)
                self._replan(shop, execution, knowledge, min(self.replan_limit_s, _SHARE * left), rng)
                pending, next_plan = False, execution.now + self.period
                execution.wake(next_plan)
            knowledge.watch(execution.dispatch())
            # Without duration, what has just started may already be complete, or overrun.
            if not knowledge.news() and not execution.advance():
                break
        if any(mode < 0 for mode in execution.mode):
            raise InstanceError(f"{shop.name}: field blocking: the shop ended in a deadlock")
        completion = np.array(execution.end, dtype=np.int64)[shop.job_offset[1:] - 1]
        return Result(
            solution=schedule_of(shop, execution),
            objective=weighted_objective(shop, completion),
            status="feasible",
            runtime_s=time.perf_counter() - started,
            decisions=len(self.latency_s),
        )

    def _replan(
        self, shop: ShopInstance, execution: Execution, knowledge: Knowledge, limit_s: float, rng: np.random.Generator
    ) -> None:
        """Give the execution a plan of everything known that has not started."""
        started = time.perf_counter()
        state, duration, none = knowledge.state(), shop.duration.tolist(), knowledge.no_outages
        if state.known.any() and (state.mode[state.known[shop.job]] < 0).any():
            plans = [joined_plan(shop, duration, state, execution.remaining())]
            if shop.blocking == "none" or not (state.mode >= 0).any():
                plans += first_plans(shop, duration, state)
            plan, promise, value = best_plan(shop, duration, none, state, plans)
            horizon = serial_horizon(shop, duration, none, state)
            if horizon <= _MAX_TIME and limit_s > _LEAST_SLICE_S:
                model = ShopModel(shop, duration, none, state, int(value) if shop.objective == "makespan" else horizon)
                model.hint(promise.start, promise.mode)
                seed = int(rng.integers(2**31 - 1))
                left = max(_LEAST_SLICE_S, limit_s - (time.perf_counter() - started))
                found = model.solve(left, threads=self.threads, seed=seed).plan
                if found is not None:
                    plan, _, _ = best_plan(shop, duration, none, state, [plan, found])
            execution.follow(plan)
            self.latency_s.append(time.perf_counter() - started)


class Knowledge:
    """What can be known of an execution at its time: of completions and repairs only those that have happened."""

    def __init__(self, shop: ShopInstance, execution: Execution) -> None:
        self._shop, self._execution = shop, execution
        self._known = np.zeros(shop.jobs, dtype=np.bool_)
        self._expected: list[int] = shop.duration.tolist()
        self._machine: list[int] = shop.machine.tolist()
        self._running: list[int] = []
        self._overrun: set[int] = set()
        self._down_since = [-1] * shop.machines
        self._outages: list[list[tuple[int, int]]] = [[] for _ in range(shop.machines)]  # those that have ended
        self.no_outages: list[tuple[list[int], list[int]]] = [([], []) for _ in range(shop.machines)]

    def update(self) -> bool:
        """Note what has happened up to now; return whether anything of it was not foreseen."""
        changes = [self._see_jobs(), self._see_machines(), self._see_operations()]
        return any(changes)

    def watch(self, started: list[int]) -> None:
        """Follow operations that have just started; their expected ends become events."""
        self._running += started
        for o in started:
            self._execution.wake(self._execution.now + self._expected[self._execution.mode[o]])

    def news(self) -> bool:
        """Return whether a running operation is complete or overdue at this very moment."""
        now = self._execution.now
        return any(
            self._execution.end[o] <= now
            or (o not in self._overrun and self._worked(o, now) >= self._expected[self._execution.mode[o]])
            for o in self._running
        )

    def state(self) -> ShopState:
        """Return what has happened and what is expected of what goes on."""
        run, now = self._execution, self._execution.now
        repaired = [max(now + 1, since + self._mean_outage()) if since >= 0 else now for since in self._down_since]
        end = np.array(run.end, dtype=np.int64)
        for o in self._running:
            machine = self._machine[run.mode[o]]
            end[o] = repaired[machine] + max(1, self._expected[run.mode[o]] - self._worked(o, now))
        return ShopState(
            now=now,
            known=self._known.copy(),
            mode=np.array(run.mode, dtype=np.int64),
            start=np.array(run.start, dtype=np.int64),
            end=end,
            available=np.array(repaired, dtype=np.int64),
        )

    def _see_jobs(self) -> bool:
        seen = self._shop.announced | (self._shop.release <= self._execution.now)
        changed = bool((seen & ~self._known).any())
        self._known |= seen
        return changed

    def _see_machines(self) -> bool:
        """Return whether a machine has gone down or been repaired; outages without a pause between are one."""
        changed = False
        now = self._execution.now
        for machine, since in enumerate(self._down_since):
            if self._execution.up(machine) != (since >= 0):
                continue
            changed = True
            if since < 0:
                self._down_since[machine] = now
            else:
                self._down_since[machine] = -1
                self._outages[machine].append((since, now))
                self._watch_machine(machine)
        return changed

    def _watch_machine(self, machine: int) -> None:
        """Make an event of the expected end of what goes on after a repair."""
        now = self._execution.now
        for o in self._running:
            mode = self._execution.mode[o]
            if self._machine[mode] == machine:
                self._execution.wake(now + max(0, self._expected[mode] - self._worked(o, now)))

    def _see_operations(self) -> bool:
        """Return whether an operation has run for another time than expected, or still runs after it."""
        changed = False
        now, run = self._execution.now, self._execution
        for o in list(self._running):
            expected = self._expected[run.mode[o]]
            if run.end[o] <= now:
                self._running.remove(o)
                changed |= o in self._overrun or self._worked(o, run.end[o]) != expected
                self._overrun.discard(o)
            elif o not in self._overrun and self._worked(o, now) >= expected:
                self._overrun.add(o)
                changed = True
        return changed

    def _worked(self, o: int, until: int) -> int:
        """Return for how long an operation has run, pauses left out."""
        start, machine = self._execution.start[o], self._machine[self._execution.mode[o]]
        paused = sum(end - max(start, begin) for begin, end in self._outages[machine] if end > start)
        if self._down_since[machine] >= 0:
            paused += until - max(start, self._down_since[machine])
        return until - start - paused

    def _mean_outage(self) -> int:
        """Return the mean length of the outages that have ended, else of the known jobs' expected durations."""
        lengths = [end - begin for rows in self._outages for begin, end in rows]
        if lengths:
            return int(np.ceil(np.mean(lengths)))
        known = self._shop.duration[self._known[self._shop.job[self._shop.mode_operation]]]
        return int(np.ceil(known.mean())) if known.size else 1
