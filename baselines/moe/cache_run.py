"""Serving a request trace by a rule: the events of an expert cache, apart from the game's simulator."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from schedrl.arrays import F64
from schedrl.envs.moe.cache_bounds import cache_bounds
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.envs.moe.cache_solution import CacheSchedule
from schedrl.schedulers import Result

__all__ = ["CacheRule", "play_cache", "serve"]


class CacheRule:
    """What decides: the order of loads, who leaves, and what comes ahead of need. Here none does, oldest use leaves.

    Subclasses see in ``instance`` only what their information allows: the game's rules see the requests up to the one
    that ``see`` was last called with, and all layers.
    """

    def __init__(self, instance: ExpertCacheInstance) -> None:
        self.instance = instance
        self.last_use = [-1] * instance.total

    def see(self, request: int, needed: Sequence[int]) -> None:
        """Take note of a request that got known, and of the experts it needs."""
        for expert in needed:
            self.last_use[expert] = request

    def queue(self, absent: list[int]) -> list[int]:
        """Return the absent experts of the request in the order of their loads."""
        return absent

    def evict(self, leaving: Sequence[int], request: int, incoming: int) -> int:
        """Return which of the experts that may leave makes room for one that comes, -1 for rather not to load it.

        Only a load ahead of need can be given up.
        """
        return min(leaving, key=lambda expert: (self.last_use[expert], expert))

    def ahead(self, request: int, absent: Sequence[bool]) -> int:
        """Return the absent expert to load now, ahead of need, while a request is computed; -1 for none."""
        return -1


def play_cache(instance: ExpertCacheInstance, rule: CacheRule) -> CacheSchedule:
    """Serve every request in order as a rule decides, each load as early as the channel and what is known allow."""
    run = _Run(instance, rule)
    for request in range(instance.steps):
        run.serve(request)
    return run.schedule()


class _Run:
    """The memory, the channel and the loads so far."""

    def __init__(self, instance: ExpertCacheInstance, rule: CacheRule) -> None:
        self.instance, self.rule = instance, rule
        self.ready = dict.fromkeys(instance.initial.tolist(), 0.0)  # experts in memory, and since when in full
        self.absent = [True] * instance.total
        for expert in self.ready:
            self.absent[expert] = False
        self.needed = [[e for e in row if e >= 0] for row in instance.needed.tolist()]
        self.duration = instance.duration_s.tolist()
        self.channel = self.known = 0.0
        self.loads: list[tuple[int, int, float]] = []
        self.starts: list[float] = []

    def serve(self, request: int) -> None:
        """Load what a request lacks, compute it, and load ahead of need meanwhile."""
        needed, rule = self.needed[request], self.rule
        rule.see(request, needed)
        stay = set(needed)
        for expert in rule.queue([expert for expert in needed if self.absent[expert]]):
            self._load(request, expert, stay, self.known)
        start = max([self.known, *(self.ready[expert] for expert in needed)])
        self.known = start + self.duration[request]
        while max(self.channel, start) < self.known and request + 1 < self.instance.steps:
            expert = rule.ahead(request, self.absent)
            if expert < 0 or not self._load(request, expert, stay, start):
                break
            # Nothing is brought only to leave again during the same computation.
            stay.add(expert)
        self.starts.append(start)

    def schedule(self) -> CacheSchedule:
        """Return all loads and starts."""
        loads = np.array(self.loads, dtype=np.float64).reshape(-1, 3)
        return CacheSchedule(
            load_expert=loads[:, 0].astype(np.int32),
            evict_expert=loads[:, 1].astype(np.int32),
            load_start_s=loads[:, 2],
            compute_start_s=np.array(self.starts, dtype=np.float64),
        )

    def _load(self, request: int, expert: int, stay: set[int], earliest: float) -> bool:
        evicted = -1
        if len(self.ready) >= self.instance.capacity:
            leaving = [other for other in self.ready if other not in stay]
            evicted = self.rule.evict(leaving, request, expert) if leaving else -1
            if evicted < 0:
                return False
            del self.ready[evicted]
            self.absent[evicted] = True
        start = max(self.channel, earliest)
        self.loads.append((expert, evicted, start))
        self.channel = self.ready[expert] = start + self.instance.load_s
        self.absent[expert] = False
        return True


def serve(instance: ExpertCacheInstance, rule: CacheRule, started: float) -> Result:
    """Return the outcome of a rule; ``started`` is a reading of ``time.perf_counter``."""
    schedule = play_cache(instance, rule)
    duration: F64 = instance.duration_s
    objective = float(schedule.compute_start_s[-1] + duration[-1])
    bound = min(cache_bounds(instance)[0].value, objective)
    return Result(
        solution=schedule,
        objective=objective,
        status="optimal" if objective <= bound * (1.0 + 1e-9) else "feasible",
        runtime_s=time.perf_counter() - started,
        lower_bound=bound,
        decisions=len(schedule.load_expert),
    )
