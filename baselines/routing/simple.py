"""Routers that look at load alone, or at nothing: random, in turn, and the least of some count of work."""

from __future__ import annotations

import numpy as np

from schedrl.arrays import F64
from schedrl.baselines.routing.router import PromptRouter, View, decode_slowness, prefill_slowness, router_specs
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.schedulers import SchedulerSpec

__all__ = [
    "SCHEDULERS",
    "LeastOutstanding",
    "LeastPending",
    "PowerOfTwo",
    "RandomRouter",
    "RoundRobin",
    "VllmDataParallel",
]

_WAITING_WEIGHT = 4.0


class RandomRouter(PromptRouter):
    """Any instance, each as likely; with ``speed`` as likely as it is fast."""

    def __init__(self, instance: RoutingInstance, rng: np.random.Generator, *, speed: bool = False) -> None:
        self._rng = rng
        self._weight = 1.0 / prefill_slowness(instance) if speed else np.ones(len(instance.fleet))

    def pick(self, view: View) -> int:
        """Return a random allowed instance."""
        ends = np.cumsum(np.where(view.allowed, self._weight, 0.0))
        return int(np.searchsorted(ends, self._rng.random() * ends[-1], side="right"))


class RoundRobin(PromptRouter):
    """Instances in turn; with ``speed`` in weighted turns, spread as evenly as they can be.

    Weighted turns: every instance earns its speed with each request, and the richest serves and pays what all earned.
    """

    def __init__(self, instance: RoutingInstance, rng: np.random.Generator, *, speed: bool = False) -> None:
        self._turn = 0
        self._speed = 1.0 / prefill_slowness(instance) if speed else None
        self._credit: F64 = np.zeros(len(instance.fleet))

    def pick(self, view: View) -> int:
        """Return the next instance in turn."""
        if self._speed is None:
            able = np.flatnonzero(view.allowed)
            self._turn += 1
            return int(able[(self._turn - 1) % len(able)])
        earned = np.where(view.allowed, self._speed, 0.0)
        self._credit += earned
        chosen = view.least(-self._credit)
        self._credit[chosen] -= earned.sum()
        return chosen


class LeastOutstanding(PromptRouter):
    """Fewest requests sent and not finished (join the shortest queue); with ``speed`` times the seconds each takes.

    Of equal instances that with the fewest prompt tokens pending is taken.
    """

    def __init__(self, instance: RoutingInstance, rng: np.random.Generator, *, speed: bool = False) -> None:
        self._slowness = prefill_slowness(instance) if speed else None

    def pick(self, view: View) -> int:
        """Return the instance with the fewest."""
        if self._slowness is None:
            return view.least_pending(view.outstanding)
        return view.least_pending((view.outstanding + 1) * self._slowness)


class LeastPending(PromptRouter):
    """Fewest prompt tokens still to be computed and not in the cache, plus ``kappa`` per token being decoded.

    Args:
        instance: what is served.
        rng: not used.
        speed: count the seconds that these tokens take, and those of the prompt at hand, instead of the tokens.
        kappa: how many prompt tokens a token of keys and values of decoding requests stands for.
    """

    def __init__(
        self, instance: RoutingInstance, rng: np.random.Generator, *, speed: bool = False, kappa: float = 0.0
    ) -> None:
        self._kappa = kappa
        self._slowness = prefill_slowness(instance) if speed else None

    def pick(self, view: View) -> int:
        """Return the instance with the fewest."""
        pending = view.pending_tokens + view.sent_tokens
        if self._kappa > 0.0:
            pending = pending + self._kappa * view.context_tokens
        # Without its own prompt an idle slow instance would be as good as an idle fast one.
        return view.least(pending if self._slowness is None else (pending + view.prompt_tokens) * self._slowness)


class PowerOfTwo(PromptRouter):
    """The less loaded of two instances drawn at random (Mitzenmacher 2001), by requests sent and not finished."""

    def __init__(self, instance: RoutingInstance, rng: np.random.Generator, *, speed: bool = False) -> None:
        self._rng = rng
        self._slowness = prefill_slowness(instance) if speed else None

    def pick(self, view: View) -> int:
        """Return the better of two; the first drawn of equal ones."""
        able = np.flatnonzero(view.allowed)
        if len(able) == 1:
            return int(able[0])
        first = int(self._rng.integers(len(able)))
        second = (first + 1 + int(self._rng.integers(len(able) - 1))) % len(able)
        one, other = int(able[first]), int(able[second])
        load = view.outstanding if self._slowness is None else (view.outstanding + 1) * self._slowness
        return one if load[one] <= load[other] else other


class VllmDataParallel(PromptRouter):
    """Least of four times the waiting requests plus the running ones, as vLLM balances data-parallel ranks.

    Requests sent since the instances were asked count as waiting, as vLLM's front end counts them.
    """

    def __init__(self, instance: RoutingInstance, rng: np.random.Generator, *, speed: bool = False) -> None:
        self._slowness = decode_slowness(instance) if speed else None

    def pick(self, view: View) -> int:
        """Return the instance with the least."""
        score = _WAITING_WEIGHT * (view.waiting + view.sent_since) + view.running
        return view.least(score if self._slowness is None else (score + _WAITING_WEIGHT) * self._slowness)


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    *router_specs(
        "random",
        RandomRouter,
        summary="any instance",
        source="folklore",
        speed="drawn in proportion to speed",
        randomised=True,
    ),
    *router_specs("round-robin", RoundRobin, summary="instances in turn", source="folklore", speed="weighted turns"),
    *router_specs(
        "least-outstanding",
        LeastOutstanding,
        summary="the instance with the fewest requests sent and not finished",
        source="Winston 1977 (join the shortest queue); Vidur, arXiv 2405.05465",
        speed="requests times the seconds that each takes there",
    ),
    *router_specs(
        "least-pending",
        LeastPending,
        summary="the instance with the fewest prompt tokens that are neither computed nor cached",
        source="a baseline of DualMap's evaluation (min_pending_input_len)",
        speed="seconds of these tokens and the prompt",
    ),
    *router_specs(
        "power-of-two",
        PowerOfTwo,
        summary="of two random instances the one with fewer requests",
        source="Mitzenmacher 2001, IEEE TPDS 12(10)",
        speed="requests times the seconds that each takes there",
        randomised=True,
    ),
    *router_specs(
        "vllm-dp",
        VllmDataParallel,
        summary="least of four times the waiting requests plus the running ones",
        source="vllm-project/vllm, data-parallel balancing of the front end (PR 33172)",
        speed="that sum times the seconds of an iteration",
    ),
)
