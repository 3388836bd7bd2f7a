"""The best schedule of a running search, shared by its threads, and the trace of how it fell with time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from schedrl.baselines.jobshop.outcomes import load_bound, makespan, outcome
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule
from schedrl.schedulers import Result

__all__ = ["Incumbent", "IncumbentCallback"]

IncumbentCallback: TypeAlias = Callable[[float, int], None]  # (seconds since the search began, makespan)


class Incumbent:
    """The best schedule so far; all methods may be called from any thread.

    Args:
        instance: the job shop.
        first: a feasible schedule to begin with.
        started: ``time.perf_counter`` reading that counts as second 0.
        on_incumbent: called with every new best makespan, while a lock is held; it must be quick.
    """

    def __init__(
        self,
        instance: JobShopInstance,
        first: Schedule,
        *,
        started: float,
        on_incumbent: IncumbentCallback | None = None,
    ) -> None:
        self._instance, self._started, self._on_incumbent = instance, started, on_incumbent
        self._lock = threading.Lock()
        self._best: tuple[int, Schedule] = makespan(instance, first), first
        self._bound = load_bound(instance)
        self._report()

    @property
    def best(self) -> tuple[int, Schedule]:
        """Makespan in the instance's time unit, and its schedule."""
        return self._best

    @property
    def bound(self) -> int:
        """Proven lower bound on the makespan, the load bound at least."""
        return self._bound

    @property
    def optimal(self) -> bool:
        """Whether the makespan meets the lower bound."""
        return self._best[0] <= self._bound

    def offer(self, schedule: Schedule) -> bool:
        """Keep a feasible schedule when it is strictly better, and return whether it was."""
        value = makespan(self._instance, schedule)
        with self._lock:
            if value >= self._best[0]:
                return False
            self._best = value, schedule
            self._report()
            return True

    def prove(self, bound: int) -> None:
        """Raise the lower bound."""
        with self._lock:
            self._bound = max(self._bound, bound)

    def result(self, decisions: int = 0) -> Result:
        """Return the result of the search as it stands."""
        with self._lock:
            best, bound = self._best[1], self._bound
        return outcome(self._instance, best, started=self._started, decisions=decisions, lower_bound=bound)

    def _report(self) -> None:
        if self._on_incumbent is not None:
            self._on_incumbent(time.perf_counter() - self._started, self._best[0])
