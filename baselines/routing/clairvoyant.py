"""A clairvoyant router: the best simple rule's plan, improved request by request with the true simulator.

Rollout in the sense of Bertsekas: in order of time, each request is tried on every promising instance, what follows is
routed as the plan says, and the instance that leaves the lowest objective stays. It sees arrivals and answers that lie
ahead, so that its plans show what an online router loses by not knowing them.
"""

from __future__ import annotations

import time
from typing import Any, cast

import numpy as np

from schedrl.arrays import F32, I32, Bool
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.rules import RULES
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.solution import RoutingPlan, objectives
from schedrl.families import Instance
from schedrl.schedulers import Result, SchedulerSpec

__all__ = ["SCHEDULERS", "Clairvoyant", "rule_plans"]

_HORIZON = 96
_TRIED = 8
# What episodes do not change need not be copied.
_FIXED = frozenset(
    (
        "requests", "fleet", "prompt", "output", "program", "pause", "block_start", "block", "block_tokens",
        "next_start", "next_request", "deadline", "fits", "costs", "kv_tokens", "cache_tokens", "token_budget",
        "max_sequences", "role", "price", "power", "ready", "retire", "ttft_slo", "tpot_slo", "refresh",
        "kv_transfer_s", "link_latency", "downtime", "preference", "initial", "initial_count", "program_start",
        "program_size",
    )
)  # fmt: skip
_LEAST_GAIN = 1e-12


def rule_plans(
    instance: RoutingInstance, rng: np.random.Generator, *, deadline: float = np.inf
) -> list[tuple[float, RoutingPlan]]:
    """Return penalty and plan of the simulator's own rules, best first.

    Once ``time.perf_counter`` passes the deadline no further rule is tried.
    """
    simulator = Simulator([instance], 1)
    found: list[tuple[float, RoutingPlan]] = []
    # The rules that most often win go first.
    for rule in sorted(RULES, key=lambda name: name not in ("min-ttft", "affinity")):
        if found and time.perf_counter() > deadline:
            break
        simulator.load(0, instance)
        simulator.play_rule(rule, rng)
        plan = simulator.solution(0)
        found.append((objectives(instance, plan)["penalty"], plan))
    return sorted(found, key=lambda pair: pair[0])


class Clairvoyant:
    """Improves the plans of the best rules in passes over the requests until nothing changes or time is up.

    Args:
        horizon: Requests that follow before alternatives are compared: what they cost is partly predicted then.
        tried: Most instances that are tried per request: the one planned, and those with the least predicted TTFT.
        starts: Plans of rules, best first, that are improved each.
    """

    def __init__(self, *, horizon: int = _HORIZON, tried: int = _TRIED, starts: int = 3) -> None:
        self._horizon, self._tried, self._starts = horizon, tried, starts

    def schedule(self, instance: Instance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best plan found within the limit; at least that of a rule."""
        routing = cast(RoutingInstance, instance)
        started = time.perf_counter()
        deadline = started + time_limit_s
        starts = rule_plans(routing, rng, deadline=started + 0.5 * time_limit_s)
        value, plan = starts[0]
        search, decisions = _Rollout(routing, self._horizon, self._tried), 0
        for here, begin in starts[: self._starts]:
            while time.perf_counter() < deadline:
                found = search.improve(begin, deadline)
                decisions += routing.requests
                reached = objectives(routing, found)["penalty"]
                if reached >= here - _LEAST_GAIN:
                    break
                here, begin = reached, found
            if here < value:
                value, plan = here, begin
        runtime = time.perf_counter() - started
        return Result(solution=plan, objective=value, status="feasible", runtime_s=runtime, decisions=decisions)


class _Rollout:
    """One simulator that goes on for good, and one whose rows are alternatives for its next request."""

    def __init__(self, instance: RoutingInstance, horizon: int, tried: int) -> None:
        self._instance, self._horizon = instance, horizon
        self._rows = min(tried, len(instance.fleet))
        self._base = Simulator([instance], 1)
        self._rest = Simulator([instance], self._rows)
        self._reward: F32 = np.zeros(self._rows, dtype=np.float32)
        self._done: Bool = np.zeros(self._rows, dtype=np.bool_)
        names = [name for name in self._base.state._asdict() if name not in _FIXED]
        self._copies: list[tuple[Any, str]] = [(getattr(self._rest.state, name), name) for name in names]

    def improve(self, plan: RoutingPlan, deadline: float) -> RoutingPlan:
        """Return the plan after one pass over its requests; once time is up, the rest goes as planned."""
        base = self._base
        base.load(0, self._instance)
        where, decode = plan.instance.copy(), plan.decode_instance.copy()
        while not base.finished(0):
            state = base.state
            count, r = int(state.candidates[0]), int(state.current[0])
            wanted = decode if state.current_kind[0] == 1 else where
            if count > 1 and time.perf_counter() < deadline:
                slots = self._promising(count, int(wanted[r]))
                chosen = int(slots[self._try(slots, where, decode)])
                wanted[r] = state.offered[0, chosen]
            else:
                chosen = int(_slots(base, where, decode)[0])
            base.send(chosen)
        return base.solution(0)

    def _promising(self, count: int, planned: int) -> I32:
        """Return slots to try, that of the planned instance first."""
        state = self._base.state
        offered = state.offered[0, :count]
        order = np.argsort(state.predicted[0, offered], kind="stable")
        order = np.concatenate([np.flatnonzero(offered == planned), order[offered[order] != planned]])
        return np.asarray(order[: self._rows], dtype=np.int32)

    def _try(self, slots: I32, where: I32, decode: I32) -> int:
        """Return which of slots leads to the lowest objective; the first unless another is better."""
        for target, name in self._copies:
            target[:] = getattr(self._base.state, name)
        action = np.full(self._rows, -1, dtype=np.int32)
        action[: len(slots)] = slots
        rest = self._rest
        for _ in range(self._horizon + 1):
            rest.step(action, self._reward, self._done)
            action = _slots(rest, where, decode)
            action[len(slots) :] = -1
            if (action < 0).all():
                break
        values = rest.state.bound[: len(slots)]
        best = int(np.argmin(values))
        return best if values[best] < values[0] - _LEAST_GAIN else 0


def _slots(simulator: Simulator, where: I32, decode: I32) -> I32:
    """Return the slot of each row (B,) that the planned instance has, 0 if it is not offered, -1 at the end."""
    state = simulator.state
    current = np.maximum(state.current, 0)
    wanted = np.where(state.current_kind == 1, decode[current], where[current])
    slot = (state.offered == wanted[:, None]) & (np.arange(state.offered.shape[1]) < state.candidates[:, None])
    return np.where(state.candidates > 0, slot.argmax(axis=1), -1).astype(np.int32)


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    SchedulerSpec(
        name="routing/clairvoyant",
        make=Clairvoyant,
        information="clairvoyant",
        summary="the best simple rule's plan, each request tried on other instances with what follows simulated",
        source="rollout (Bertsekas, Tsitsiklis and Wu 1997, recalled) with the true simulator",
        randomised=True,
    ),
)
