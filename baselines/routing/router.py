"""What every router of this package is: a choice per request, from what routers know, played by one loop."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from schedrl.arrays import F64, I32, Bool
from schedrl.baselines.routing.nominal_times import decode_s_per_token, prefill_s_per_token
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.solution import objectives
from schedrl.envs.routing.state import CONTEXT, FREE, HEAD_TOKENS, PENDING, QUEUED_TOKENS, RUNNING, USED, WAITING
from schedrl.families import Instance
from schedrl.schedulers import Result, Scheduler, SchedulerSpec

__all__ = [
    "MakeRouter",
    "PromptRouter",
    "Router",
    "RouterScheduler",
    "View",
    "decode_slowness",
    "play_router",
    "prefill_slowness",
    "router_spec",
    "router_specs",
]

_CLOCK_EVERY = 256


class View:
    """The request at hand and the instances, as a router knows them.

    Arrays are (I,) views of live memory: copy to keep. Signals of the instances are as late as
    ``instance.signal_refresh_s`` says; what the router sent itself is not.
    """

    def __init__(self, instance: RoutingInstance, simulator: Simulator) -> None:
        self.instance = instance
        self._simulator = simulator
        self.count = len(instance.fleet)
        state, count = simulator.state, self.count
        signal = state.signal[0, :count]
        self.waiting: F64 = signal[:, WAITING]
        self.running: F64 = signal[:, RUNNING]
        self.pending_tokens: F64 = signal[:, PENDING]
        """prompt tokens that are not computed yet and not expected to be found"""
        self.context_tokens: F64 = signal[:, CONTEXT]
        """keys and values of decoding requests"""
        self.used_tokens: F64 = signal[:, USED]
        self.free_tokens: F64 = signal[:, FREE]
        self.queued_tokens: F64 = signal[:, QUEUED_TOKENS]
        self.head_tokens: F64 = signal[:, HEAD_TOKENS]
        self.outstanding: I32 = state.inflight[0, :count]
        """requests sent and not finished"""
        self.sent_since: I32 = state.sent[0, :count]
        """requests sent since the signals were read, 0 where they are read at once"""
        self.sent_tokens: F64 = state.sent_tokens[0, :count]
        self.hit_tokens: I32 = state.hits[0, :count]
        """leading tokens of the prompt that each instance is believed to hold"""
        self.predicted_ttft_s: F64 = state.predicted[0, :count]
        self.backlog_s: F64 = state.backlog[0, :count]
        self.allowed: Bool = state.allowed[0, :count]
        """instances that take requests now and whose memory holds this one"""

    @property
    def request(self) -> int:
        """Number of the request at hand."""
        return int(self._simulator.state.current[0])

    @property
    def now_s(self) -> float:
        """Time of the decision."""
        return float(self._simulator.state.now[0])

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return int(self.instance.prompt_tokens[self.request])

    @property
    def blocks(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Ids of the whole blocks of the prompt."""
        first, last = self.instance.block_start[self.request : self.request + 2]
        return self.instance.blocks[first : min(last, first + self.prompt_tokens // self.instance.block_tokens)]

    @property
    def handed_over(self) -> bool:
        """Whether the prompt is computed already and the request looks for an instance that decodes."""
        return bool(self._simulator.state.current_kind[0] == 1)

    def least(self, figure: F64 | I32, among: Bool | None = None) -> int:
        """Return the first allowed instance with the least of a figure, among some of them where there are any."""
        able = self.allowed if among is None or not (self.allowed & among).any() else self.allowed & among
        return int(np.argmin(np.where(able, figure, np.inf)))

    def least_pending(self, figure: F64 | I32) -> int:
        """Return the allowed instance with the least of a figure, of equal ones that with the fewest tokens pending."""
        least = np.where(self.allowed, figure, np.inf).min()
        return self.least(self.pending_tokens + self.sent_tokens, np.asarray(figure == least))

    def set_rank(self, rank: float) -> None:
        """Set the place in queues of the request at hand, lowest first; one handed over keeps its own."""
        if not self.handed_over:
            self._simulator.state.rank[0, self.request] = rank

    def move(self, request: int, target: int) -> bool:
        """Move a request that waits or decodes to another instance, and return whether that is possible."""
        return self._simulator.move(0, request, target)

    def waiting_requests(self, i: int) -> I32:
        """Return the requests that wait at an instance now, first in the queue first."""
        state = self._simulator.state
        queue = state.queue[0, i, : state.queued[0, i]]
        again = state.order[0, queue] < 0
        return np.asarray(
            queue[np.lexsort((state.order[0, queue], np.where(again, 0.0, state.rank[0, queue]), ~again))]
        )

    def running_requests(self, i: int) -> I32:
        """Return the requests in an instance's iterations now, in order of admission."""
        state = self._simulator.state
        return np.asarray(state.running[0, i, : state.running_count[0, i]])

    def has_first_token(self, request: int) -> bool:
        """Whether a request's first token was sent back."""
        return bool(self._simulator.state.first_token[0, request] >= 0.0)

    def finish_s(self, request: int) -> float:
        """Return when a request was finished, -1 before."""
        return float(self._simulator.state.finish[0, request])


class Router(Protocol):
    """A policy with the memory of one episode; ``period_s`` above 0 has ``act`` called so often between arrivals."""

    period_s: float

    def choose(self, view: View) -> int:
        """Return the instance, one of ``view.allowed``, that the request at hand is sent to."""
        ...

    def act(self, view: View) -> None:
        """Do what is done every ``period_s`` seconds."""
        ...


class PromptRouter:
    """A router of new requests; those whose prompt is computed elsewhere go to the instance with the fewest requests.

    That is how DistServe (Zhong et al. 2024) hands requests over to instances that decode.
    """

    period_s: float = 0.0

    def choose(self, view: View) -> int:
        """Return the instance for the request at hand."""
        return view.least(view.outstanding) if view.handed_over else self.pick(view)

    def pick(self, view: View) -> int:
        """Return the instance for a request that has just arrived."""
        raise NotImplementedError

    def act(self, view: View) -> None:
        """Do nothing between arrivals."""


def prefill_slowness(instance: RoutingInstance) -> F64:
    """Return how many times as long as the fastest each serving instance computes prompts (I,)."""
    return _against_fastest(prefill_s_per_token(instance))


def decode_slowness(instance: RoutingInstance) -> F64:
    """Return how many times as long as the fastest each serving instance decodes a batch (I,)."""
    return _against_fastest(decode_s_per_token(instance))


def _against_fastest(seconds: F64) -> F64:
    fastest = float(seconds.min())
    return seconds / fastest if fastest > 0.0 else np.ones_like(seconds)


def play_router(
    instance: RoutingInstance, router: Router, *, exact: bool = False, deadline: float = np.inf
) -> Simulator | None:
    """Route all requests of an instance; return the finished simulator, None if the clock passes ``deadline`` first."""
    simulator = Simulator([instance], 1, exact=exact)
    view, decisions = View(instance, simulator), 0
    # One slot per allowed instance, in order.
    period, state = router.period_s, simulator.state
    tick = period if period > 0.0 else np.inf
    if state.now[0] > tick:
        # Nothing has happened before the first arrival.
        tick = float(np.ceil(state.now[0] / period)) * period
    at_hand = bool(state.candidates[0] > 0)
    while not simulator.finished(0):
        slot = -1
        if at_hand:
            chosen = router.choose(view)
            slot = int(np.count_nonzero(view.allowed[:chosen]))
            decisions += 1
            if decisions % _CLOCK_EVERY == 0 and time.perf_counter() > deadline:
                return None
        else:
            router.act(view)
            tick += period
        at_hand = simulator.send(slot, tick)
    return simulator


class RouterScheduler:
    """Solves instances with a router that ``make(instance, rng)`` builds for each."""

    def __init__(self, make: Callable[[RoutingInstance, np.random.Generator], Router], *, exact: bool = False) -> None:
        self._make, self._exact = make, exact

    def schedule(self, instance: Instance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Route the instance's requests; ``timeout`` if that takes longer than the limit, once kernels are compiled."""
        assert isinstance(instance, RoutingInstance)
        Simulator([instance], 1, exact=self._exact)
        started = time.perf_counter()
        router = self._make(instance, rng)
        simulator = play_router(instance, router, exact=self._exact, deadline=started + time_limit_s)
        runtime = time.perf_counter() - started
        if simulator is None:
            return Result(solution=None, objective=None, status="timeout", runtime_s=runtime)
        plan = simulator.solution(0)
        objective = objectives(instance, plan)["penalty"]
        return Result(
            solution=plan,
            objective=objective,
            status="feasible",
            runtime_s=runtime,
            decisions=instance.requests,
        )


MakeRouter = Callable[..., Router]
"""builds a router from an instance and a generator of random numbers, and options by keyword"""


def router_spec(name: str, make: MakeRouter, *, summary: str, source: str, randomised: bool = False) -> SchedulerSpec:
    """Return the entry ``routing/name`` of a router."""
    # Untyped on purpose: this takes routing instances only, the contract any instance.
    build: Callable[..., Any] = RouterScheduler
    scheduler: Callable[[], Scheduler] = functools.partial(build, make)
    return SchedulerSpec(
        name=f"routing/{name}",
        make=scheduler,
        information="online",
        summary=summary,
        source=source,
        randomised=randomised,
    )


def router_specs(
    name: str, make: MakeRouter, *, summary: str, source: str, speed: str, randomised: bool = False
) -> tuple[SchedulerSpec, SchedulerSpec]:
    """Return the entries of a router as published and, as ``name-speed``, of the form that knows speeds.

    Args:
        name: of the published form.
        make: takes the keyword ``speed``.
        summary: of the published form.
        source: paper or repository.
        speed: what the other form does differently.
        randomised: whether it draws.
    """
    return (
        router_spec(name, make, summary=summary, source=source, randomised=randomised),
        router_spec(
            f"{name}-speed",
            functools.partial(make, speed=True),
            summary=f"{name} that knows speeds: {speed}",
            source=f"{source}; speeds added by this project",
            randomised=randomised,
        ),
    )
