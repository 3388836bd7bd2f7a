"""Clairvoyant rules of expert caches: Belady's, alone and with exact loads ahead of need."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from schedrl.baselines.moe.cache_rules import CacheScheduler
from schedrl.baselines.moe.cache_run import CacheRule
from schedrl.envs.moe.cache_bounds import next_uses
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.schedulers import Scheduler, SchedulerSpec

__all__ = ["SCHEDULERS", "Belady"]


class Belady(CacheRule):
    """The expert needed farthest ahead leaves; what is needed soonest may come ahead, if another is needed later.

    Args:
        instance: the trace to serve.
        lookahead: requests ahead whose experts may be loaded early, 0 for none and None for all.
    """

    def __init__(self, instance: ExpertCacheInstance, lookahead: int | None = 0) -> None:
        super().__init__(instance)
        self.lookahead = instance.steps if lookahead is None else lookahead
        self.needed: list[list[int]] = [[e for e in row if e >= 0] for row in instance.needed.tolist()]
        self.after: list[list[int]] = next_uses(instance).tolist()
        self.next_use = [instance.steps] * instance.total
        for request in range(instance.steps - 1, -1, -1):
            for expert in self.needed[request]:
                self.next_use[expert] = request

    def see(self, request: int, needed: Sequence[int]) -> None:
        """Move on the next uses of what the request needs."""
        super().see(request, needed)
        for expert, later in zip(self.needed[request], self.after[request], strict=False):
            self.next_use[expert] = later

    def evict(self, leaving: Sequence[int], request: int, incoming: int) -> int:
        """Return the one needed last; for a load ahead of need none, if that is needed first."""
        last = max(leaving, key=lambda expert: (self.next_use[expert], -expert))
        # The request's own experts are needed now, whatever comes later.
        waited = incoming in self.needed[request]
        return last if waited or self.next_use[last] > self.next_use[incoming] else -1

    def ahead(self, request: int, absent: Sequence[bool]) -> int:
        """Return the absent expert that is needed first."""
        for later in range(request + 1, min(request + self.lookahead + 1, self.instance.steps)):
            for expert in self.needed[later]:
                if absent[expert]:
                    return expert
        return -1


def _make(lookahead: int | None) -> Callable[[], Scheduler]:
    # Untyped on purpose: this takes cache instances only, the contract any instance.
    build: Callable[..., Any] = CacheScheduler
    return functools.partial(build, rule=functools.partial(Belady, lookahead=lookahead))


# Name, requests ahead, summary, source.
_TABLE: tuple[tuple[str, int | None, str, str], ...] = (
    (
        "belady",
        0,
        "the expert needed farthest ahead leaves, nothing is loaded ahead: the fewest loads",
        "Belady, IBM Systems Journal 5(2), 1966",
    ),
    (
        "pregated-prefetch",
        1,
        "Belady's choice, with the next request's experts loaded ahead",
        "Pre-gated MoE, arXiv 2308.12066; Read-ME, arXiv 2410.19123",
    ),
    (
        "belady-prefetch",
        None,
        "whenever the channel is free, what is needed first is loaded in place of what is needed last",
        "the aggressive rule of Cao, Felten, Karlin and Li, SIGMETRICS 1995",
    ),
)

SCHEDULERS: tuple[SchedulerSpec, ...] = tuple(
    SchedulerSpec(
        name=f"moe/{name}",
        make=_make(lookahead),
        information="clairvoyant",
        summary=summary,
        source=source,
        problem="decode_time",
    )
    for name, lookahead, summary, source in _TABLE
)
