"""Goodput: the highest rate of requests at which enough of them meet their service-level objectives.

The reference's definition: arrivals of a trace are squeezed, the first requests only warm the caches up, and 90 % of
the rest have to be within their objectives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import bootstrap

from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.solution import RoutingPlan, penalties
from schedrl.errors import ConfigError
from schedrl.schedulers import Scheduler

__all__ = [
    "Goodput",
    "Play",
    "at_rate",
    "attainment_of",
    "goodput",
    "goodput_interval",
    "rule_play",
    "scheduler_play",
]

Play = Callable[[RoutingInstance, np.random.Generator], RoutingPlan]
"""how a router turns an instance into a plan"""

_IN_TIME = 0.5
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """A rate that is enough, and what was seen there."""

    requests_per_s: float
    attainment: float
    """share within objectives at that rate"""
    hit_rate: float
    """share of prompt tokens that needed no computing at that rate"""
    ttft_p90_s: float
    ttft_p99_s: float
    runs: int
    """simulations that it took"""


def at_rate(instance: RoutingInstance, requests_per_s: float) -> RoutingInstance:
    """Return the instance with arrivals scaled from 0 on to a mean rate; pauses and deadlines stay.

    Raises:
        ConfigError: no positive rate, or all requests arrive at once.
    """
    if not 0.0 < requests_per_s < np.inf:
        raise ConfigError(f"requests_per_s: {requests_per_s!r}, expected a positive number")
    last = float(instance.arrival_s[-1])
    if last <= 0.0:
        raise ConfigError(f"routing instance {instance.name}: all requests arrive at once, their rate cannot change")
    return replace(instance, arrival_s=instance.arrival_s * (instance.requests / (last * requests_per_s)))


def attainment_of(instance: RoutingInstance, plan: RoutingPlan, *, warm_up: int = 500) -> float:
    """Return the share of requests, but the first ``warm_up``, within their objectives.

    Raises:
        ConfigError: no requests are left.
    """
    if not 0 <= warm_up < instance.requests:
        raise ConfigError(f"warm_up: {warm_up!r}, expected fewer than the {instance.requests} requests")
    return float((penalties(instance, plan)[warm_up:] <= _IN_TIME).mean())


def rule_play(rule: str, *, exact: bool = False) -> Play:
    """Return how a rule of ``schedrl.envs.routing.rules`` plays, at the simulator's own speed."""

    def play(instance: RoutingInstance, rng: np.random.Generator) -> RoutingPlan:
        simulator = Simulator([instance], 1, exact=exact)
        simulator.play_rule(rule, rng)
        return simulator.solution(0)

    return play


def scheduler_play(scheduler: Scheduler, *, time_limit_s: float = 600.0) -> Play:
    """Return how a scheduler plays.

    The function raises ConfigError if the scheduler finds no plan within the limit.
    """

    def play(instance: RoutingInstance, rng: np.random.Generator) -> RoutingPlan:
        plan = scheduler.schedule(instance, time_limit_s=time_limit_s, rng=rng).solution
        if not isinstance(plan, RoutingPlan):
            raise ConfigError(f"routing instance {instance.name}: no plan within {time_limit_s:g} s")
        return plan

    return play


def goodput(
    instance: RoutingInstance,
    play: Play,
    *,
    attainment: float = 0.9,
    tolerance: float = 0.05,
    warm_up: int = 500,
    first_guess: float | None = None,
    seed: int = 0,
) -> Goodput:
    """Return the goodput of a router by bisection over the rate of arrivals.

    It is 0 where no rate is low enough: requests that arrive at once stay together at any rate.

    Where attainment falls below the share and rises again, any of the crossings may be found.

    Args:
        instance: Requests and fleet; its rate is only where the search begins.
        play: The router, called afresh for each rate with the same seed.
        attainment: Share of requests that have to be within their objectives.
        tolerance: Width in requests per second at which the search ends.
        warm_up: Requests at the beginning that do not count.
        first_guess: Rate to begin with; None takes the instance's own.
        seed: Of the random numbers of the router.

    Raises:
        ConfigError: an option outside its range, or requests meet their objectives at any rate.
    """
    if not 0.0 < attainment <= 1.0 or not tolerance > 0.0:
        raise ConfigError(f"goodput: attainment {attainment!r} and tolerance {tolerance!r}, expected 0 to 1, above 0")
    runs: list[Goodput] = []

    def enough(rate: float) -> bool:
        scaled = at_rate(instance, rate)
        plan = play(scaled, np.random.default_rng(seed))
        share = attainment_of(scaled, plan, warm_up=warm_up)
        served = plan.instance >= 0
        late = plan.first_token_s[warm_up:] - scaled.arrival_s[warm_up:]
        runs.append(
            Goodput(
                requests_per_s=rate,
                attainment=share,
                hit_rate=float(plan.hit_tokens[served].sum() / max(int(instance.prompt_tokens[served].sum()), 1)),
                ttft_p90_s=float(np.percentile(late, 90)),
                ttft_p99_s=float(np.percentile(late, 99)),
                runs=0,
            )
        )
        return share >= attainment

    rate = first_guess or instance.requests / max(float(instance.arrival_s[-1]), 1e-9)
    low, high = _bracket(enough, rate, tolerance)
    while high - low > tolerance:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if enough(middle) else (low, middle)
    if high == 0.0:
        return replace(runs[-1], requests_per_s=0.0, runs=len(runs))
    best = next(run for run in runs if run.requests_per_s == low)
    return replace(best, runs=len(runs))


def _bracket(enough: Callable[[float], bool], rate: float, tolerance: float) -> tuple[float, float]:
    """Return a rate that is low enough and one that is not, 0 and 0 where none is low enough."""
    step = 1.25
    if enough(rate):
        low, high = rate, rate * step
        while enough(high):
            step *= 1.25
            low, high = high, high * step
            if high > 1e9:
                raise ConfigError("goodput: requests meet their objectives at any rate")
        return low, high
    low, high = rate / step, rate
    while not enough(low):
        step *= 1.25
        low, high = low / step, low
        if high <= min(tolerance, 1e-3):
            return 0.0, 0.0
    return low, high


def goodput_interval(values: Sequence[float], *, confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Return the bootstrap interval (bias-corrected and accelerated) of the mean of goodputs over windows and seeds.

    Without at least two different values there is none: both ends are the value itself, or nan.
    """
    found = np.asarray(values, dtype=np.float64)
    if len(found) == 0:
        return float("nan"), float("nan")
    if np.ptp(found) == 0.0:
        return float(found[0]), float(found[0])
    ends = bootstrap(
        (found,), np.mean, confidence_level=confidence, n_resamples=_RESAMPLES, rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(ends.low), float(ends.high)
