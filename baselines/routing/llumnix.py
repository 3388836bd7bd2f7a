"""Llumnix: send to the freest instance by virtual usage, and move running requests from full instances to free ones.

After Sun et al., "Llumnix: Dynamic Scheduling for Large Language Model Serving" (OSDI 2024), Algorithm 1, and after the
defaults of its released code, which differ.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from schedrl.arrays import F64
from schedrl.baselines.routing.nominal_times import decode_s_per_token
from schedrl.baselines.routing.router import RouterScheduler, View
from schedrl.envs.routing.instance import PAGE_TOKENS, RoutingInstance
from schedrl.schedulers import SchedulerSpec

__all__ = ["SCHEDULERS", "Llumnix", "freeness", "remaining_steps"]

_PERIOD_S = 0.2
_HEADROOM = 0.5
# Blocks per request at which an instance lets requests go, and from which on it takes them.
_LOW, _HIGH = 10.0, 60.0
_CODE_THRESHOLD = 3.0


def freeness(view: View, headroom: float = _HEADROOM) -> F64:
    """Return the freeness F (I,) of the paper: blocks of memory left by virtual usage, per running request.

    The first waiting request counts with what it demands, so that instances with a blocked one have less than nothing;
    those behind it count nothing. Where an instance runs requests of the highest of several priorities, they
    count ``headroom`` of the memory together on top of what they use.
    """
    room = np.array([serving.kv_tokens for serving in view.instance.fleet], dtype=np.float64)
    # What is free counts idle prefixes as free; what is used by running requests is the rest.
    left = view.free_tokens - view.head_tokens
    priority = view.instance.priority
    urgent = int(priority.max())
    if urgent > int(priority.min()):
        served = np.array([bool((priority[view.running_requests(i)] == urgent).any()) for i in range(view.count)])
        left = left - headroom * room * served
    return np.asarray(left / (PAGE_TOKENS * np.maximum(view.running, 1.0)))


def remaining_steps(view: View, waiting: Literal["all", "first"]) -> F64:
    """Return the released code's measure (I,): free blocks less those of waiting requests, per request."""
    demand = view.queued_tokens if waiting == "all" else view.head_tokens
    return np.asarray(
        (view.free_tokens - demand) / (PAGE_TOKENS * np.maximum(view.running + view.waiting, 1.0)), dtype=np.float64
    )


class Llumnix:
    """Dispatches by freeness and migrates every ``period_s`` seconds.

    Instances below ``low`` are paired with those above ``high``, the least free with the freest, and each pair moves
    one decoding request: of the lowest priority, then the shortest. Requests are copied while they decode
    and stand still for the instance's ``downtime_s``.

    Args:
        instance: The fleet.
        form: ``paper`` for virtual usage, ``code`` for remaining steps and the thresholds of the released code.
        period_s: Seconds between migrations, above 0.
        low: Blocks per request below which an instance is a source; None for the form's own.
        high: Blocks per request above which it is a target; None for the form's own.
        migrate: Whether to migrate at all.
        speed_aware: Count an instance's freeness in proportion to its speed of decoding.
    """

    def __init__(
        self,
        instance: RoutingInstance,
        *,
        form: Literal["paper", "code"] = "paper",
        period_s: float = _PERIOD_S,
        low: float | None = None,
        high: float | None = None,
        migrate: bool = True,
        speed_aware: bool = False,
    ) -> None:
        self.period_s = period_s if migrate else 0.0
        self._form = form
        usual = (_LOW, _HIGH) if form == "paper" else (_CODE_THRESHOLD, _CODE_THRESHOLD)
        self._low = usual[0] if low is None else low
        self._high = usual[1] if high is None else high
        seconds = decode_s_per_token(instance)
        self._speed = seconds.min() / seconds if speed_aware else np.ones(len(seconds))
        self._takes = np.array([serving.role != "prefill" for serving in instance.fleet])

    def choose(self, view: View) -> int:
        """Return the freest instance; of equal ones the one with the fewest outstanding requests."""
        if view.handed_over:
            return view.least(view.outstanding)
        free = self._scaled(freeness(view) if self._form == "paper" else remaining_steps(view, "all"))
        # What was sent since the signals were read is not in them.
        free = free - view.sent_tokens / PAGE_TOKENS
        best = np.where(view.allowed, free, -np.inf).max()
        return view.least(view.outstanding, free == best)

    def act(self, view: View) -> None:
        """Pair instances and move a request in each pair."""
        free = self._scaled(freeness(view) if self._form == "paper" else remaining_steps(view, "first"))
        for source, target in self._pairs(view, free):
            for request in self._movable(view, source):
                if view.move(request, target):
                    break

    def _scaled(self, free: F64) -> F64:
        return np.where(free > 0.0, free * self._speed, free / self._speed)

    def _pairs(self, view: View, free: F64) -> list[tuple[int, int]]:
        order = np.argsort(free, kind="stable").tolist()
        # An instance that runs a single request has nothing to gain from a move.
        sources = [i for i in order if free[i] < self._low and view.running[i] > 1 and self._takes[i]]
        served = [s.ready_s <= view.now_s < s.retire_s for s in view.instance.fleet]
        targets = [i for i in reversed(order) if free[i] > self._high and self._takes[i] and served[i]]
        return [(i, j) for i, j in zip(sources, targets, strict=False) if i != j]

    def _movable(self, view: View, i: int) -> list[int]:
        """Return the decoding requests of an instance: lowest priority first, then the shortest."""
        running = [r for r in view.running_requests(i).tolist() if view.has_first_token(r)]
        instance = view.instance
        # How far an answer has got is about the same for all; the prompt stands for the length.
        return sorted(running, key=lambda r: (int(instance.priority[r]), int(instance.prompt_tokens[r]), r))


_PAPER = "Sun et al., Llumnix, OSDI 2024, Algorithm 1"
_CODE = "AlibabaPAI/llumnix: dispatch by remaining steps, pairs by defrag, migrate-out threshold 3"


def _spec(name: str, summary: str, form: Literal["paper", "code"], speed_aware: bool = False) -> SchedulerSpec:
    return SchedulerSpec(
        name=f"routing/{name}",
        make=lambda: RouterScheduler(lambda instance, _: Llumnix(instance, form=form, speed_aware=speed_aware)),
        information="online",
        summary=summary,
        source=_PAPER if form == "paper" else _CODE,
    )


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    _spec("llumnix", "most free memory per request by virtual usage; requests migrate from full to free", "paper"),
    _spec("llumnix-speed", "the same in proportion to each instance's speed of decoding", "paper", True),
    _spec("llumnix-code", "most remaining steps; requests migrate from instances with few of them", "code"),
    _spec("llumnix-code-speed", "the same in proportion to each instance's speed of decoding", "code", True),
)
