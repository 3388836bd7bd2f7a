"""Online rules of expert caches: who leaves by age, frequency or heat, and loads ahead by what followed so far."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schedrl.arrays import F64
from schedrl.baselines.moe.cache_run import CacheRule, serve
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.schedulers import Result, Scheduler, SchedulerSpec

__all__ = [
    "SCHEDULERS",
    "CacheScheduler",
    "FrequencyProximity",
    "HottestFirst",
    "LeastFrequentlyUsed",
    "LeastRecentlyUsed",
    "NextLayerPrefetch",
]

LeastRecentlyUsed = CacheRule


class LeastFrequentlyUsed(CacheRule):
    """The expert needed least often so far leaves, of several the one needed longest ago."""

    def __init__(self, instance: ExpertCacheInstance) -> None:
        super().__init__(instance)
        self.uses = [0] * instance.total

    def see(self, request: int, needed: Sequence[int]) -> None:
        """Count the uses."""
        super().see(request, needed)
        for expert in needed:
            self.uses[expert] += 1

    def evict(self, leaving: Sequence[int], request: int, incoming: int) -> int:
        """Return the one with the fewest uses."""
        return min(leaving, key=lambda expert: (self.uses[expert], self.last_use[expert], expert))


class HottestFirst(CacheRule):
    """Loads go in order of heat and the coldest expert leaves, where heat is a moving average of being needed.

    D2MoE (arXiv 2504.15299) orders bit planes so; here an expert is one piece.

    Args:
        instance: the trace to serve.
        decay: what a visit of the layer leaves of the heat.
    """

    def __init__(self, instance: ExpertCacheInstance, decay: float = 0.875) -> None:
        super().__init__(instance)
        self.decay = decay
        self.heat: F64 = np.full(instance.total, instance.requests.shape[1] / instance.experts)

    def see(self, request: int, needed: Sequence[int]) -> None:
        """Update the heat of the layer's experts."""
        super().see(request, needed)
        first = int(self.instance.layer[request]) * self.instance.experts
        self.heat[first : first + self.instance.experts] *= self.decay
        self.heat[list(needed)] += 1.0 - self.decay

    def queue(self, absent: list[int]) -> list[int]:
        """Return the hottest first."""
        return sorted(absent, key=lambda expert: -self.heat[expert])

    def evict(self, leaving: Sequence[int], request: int, incoming: int) -> int:
        """Return the coldest, of several the one needed longest ago."""
        return min(leaving, key=lambda expert: (self.heat[expert], self.last_use[expert], expert))


class FrequencyProximity(HottestFirst):
    """Who leaves is the least of heat times nearness of the layer's next turn, as MoE-Infinity weighs them."""

    def evict(self, leaving: Sequence[int], request: int, incoming: int) -> int:
        """Return the one of least priority; layers count as a cycle."""
        layers, own = self.instance.layers, int(self.instance.layer[request])

        def priority(expert: int) -> tuple[float, int, int]:
            distance = (expert // self.instance.experts - own - 1) % layers
            return float(self.heat[expert]) * (1.0 - distance / layers), self.last_use[expert], expert

        return min(leaving, key=priority)


class NextLayerPrefetch(CacheRule):
    """Oldest use leaves; as many experts as a request needs are guessed for the next one and loaded ahead.

    The guess are those that followed the experts needed now most often, of several the most used.

    Args:
        instance: the trace to serve.
        least: load only what followed in this share of the cases at least.
    """

    def __init__(self, instance: ExpertCacheInstance, least: float = 0.0) -> None:
        super().__init__(instance)
        self.least = least
        self.follows: F64 = np.zeros((instance.total, instance.experts))
        self.seen: F64 = np.zeros(instance.total)
        self.uses: F64 = np.zeros(instance.total)
        self.now: list[int] = []
        self.guess: list[int] = []

    def see(self, request: int, needed: Sequence[int]) -> None:
        """Count what followed what, and guess the next request's experts."""
        super().see(request, needed)
        experts = self.instance.experts
        if request:
            self.follows[np.ix_(self.now, [expert % experts for expert in needed])] += 1.0
            self.seen[self.now] += 1.0
        self.now = list(needed)
        self.uses[self.now] += 1.0
        self.guess = self._guess(request)

    def _guess(self, request: int) -> list[int]:
        if request + 1 >= self.instance.steps:
            return []
        experts = self.instance.experts
        first = int(self.instance.layer[request + 1]) * experts
        share = self.follows[self.now].sum(axis=0) / max(self.seen[self.now].sum(), 1.0)
        order = np.lexsort((-self.uses[first : first + experts], -share))[: self.instance.requests.shape[1]]
        return [first + int(e) for e in order if share[e] > 0.0 and share[e] >= self.least]

    def ahead(self, request: int, absent: Sequence[bool]) -> int:
        """Return the likeliest absent expert of the guess."""
        return next((expert for expert in self.guess if absent[expert]), -1)

    def evict(self, leaving: Sequence[int], request: int, incoming: int) -> int:
        """Return the one needed longest ago, none of the guess unless there is no other."""
        others = [expert for expert in leaving if expert not in self.guess]
        return super().evict(others or leaving, request, incoming)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheScheduler:
    """One pass over the trace by a rule, in milliseconds; it has no use for more time."""

    rule: Callable[[ExpertCacheInstance], CacheRule]

    def schedule(self, instance: ExpertCacheInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the schedule of the rule."""
        started = time.perf_counter()
        return serve(instance, self.rule(instance), started)


def _make(rule: Callable[[ExpertCacheInstance], CacheRule]) -> Callable[[], Scheduler]:
    # Untyped on purpose: this takes cache instances only, the contract any instance.
    build: Callable[..., Any] = CacheScheduler
    return functools.partial(build, rule=rule)


# Name, rule, summary, source.
_TABLE: tuple[tuple[str, Callable[[ExpertCacheInstance], CacheRule], str, str], ...] = (
    (
        "lru",
        LeastRecentlyUsed,
        "the expert needed longest ago leaves, nothing is loaded ahead",
        "Eliseev and Mazur, arXiv 2312.17238, with one memory for all layers",
    ),
    ("lfu", LeastFrequentlyUsed, "the expert needed least often leaves, nothing is loaded ahead", "MoE-Infinity"),
    (
        "hottest-first",
        HottestFirst,
        "hottest loads first, the coldest expert leaves, nothing is loaded ahead",
        "D2MoE, arXiv 2504.15299, for experts in one piece",
    ),
    (
        "frequency-proximity",
        FrequencyProximity,
        "least heat times nearness of the layer leaves, nothing is loaded ahead",
        "MoE-Infinity, arXiv 2401.14361",
    ),
    (
        "lru-prefetch",
        NextLayerPrefetch,
        "oldest use leaves, the next layer's experts are loaded ahead as guessed from what followed so far",
        "Eliseev and Mazur, arXiv 2312.17238; the guess from counts instead of the next gate",
    ),
    (
        "lru-likely-prefetch",
        functools.partial(NextLayerPrefetch, least=0.5),
        "as lru-prefetch, but only what followed in at least half of the cases",
        "variant of this project",
    ),
)

SCHEDULERS: tuple[SchedulerSpec, ...] = tuple(
    SchedulerSpec(
        name=f"moe/{name}",
        make=_make(rule),
        information="online",
        summary=summary,
        source=source,
        problem="decode_time",
    )
    for name, rule, summary, source in _TABLE
)
