"""Routing plans: where and when each request was sent and what came of it; their objectives."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.errors import SolutionError

__all__ = ["SOLUTION_SCHEMA", "RoutingPlan", "objectives", "penalties"]

SOLUTION_SCHEMA = "schedrl/routing-plan/1"
_FIELDS: dict[str, Any] = {
    "instance": np.int32,
    "decode_instance": np.int32,
    "dispatch_s": np.float64,
    "rank": np.float64,
    "first_token_s": np.float64,
    "finish_s": np.float64,
    "hit_tokens": np.int32,
    "preemptions": np.int32,
}
_MOVES: dict[str, Any] = {
    "move_request": np.int32, "move_target": np.int32, "move_s": np.float64, "move_after": np.int32
}  # fmt: skip
_MISSED = 0.5


def _none(dtype: Any) -> Any:
    return lambda: np.zeros(0, dtype=dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class RoutingPlan:
    """The decisions of a router and their outcome. A request with ``instance`` -1 was refused.

    Raises:
        SolutionError: a field of another shape or kind.
    """

    instance: I32  # (R,) instance that each request was sent to first
    decode_instance: I32  # (R,) instance that finished it, where it was handed over or moved, otherwise -1
    dispatch_s: F64  # (R,) when it was sent, or refused
    rank: F64  # (R,) place in the queue: lowest first, then in order of arrival at the instance
    first_token_s: F64  # (R,) -1 for refused ones
    finish_s: F64  # (R,) -1 for refused ones
    hit_tokens: I32  # (R,) prompt tokens that needed no computing when it was admitted first
    preemptions: I32  # (R,)
    busy_s: F64  # (I,) seconds in which each instance computed
    page_tokens: int
    """tokens of a page of memory: 16 as engines have it, 1 where it was handed out by the token"""
    move_request: I32 = field(default_factory=_none(np.int32))  # (M,) requests moved, in order of time
    move_target: I32 = field(default_factory=_none(np.int32))  # (M,)
    move_s: F64 = field(default_factory=_none(np.float64))  # (M,) when each move began
    move_after: I32 = field(default_factory=_none(np.int32))
    """(M,) how often a request had joined a queue before each move, which orders moves and requests of one moment; so a
    request at hand is sent, not held, where others were moved"""

    def __post_init__(self) -> None:
        for name, dtype in {**_FIELDS, **_MOVES, "busy_s": np.float64}.items():
            values = np.asarray(getattr(self, name))
            kinds = "iu" if dtype is np.int32 else "iuf"
            if values.ndim != 1 or (values.size and values.dtype.kind not in kinds):
                expected = "integers" if dtype is np.int32 else "numbers"
                raise SolutionError(
                    f"routing plan: field {name}: expected {expected}, got {values.dtype} {values.shape}"
                )
            if dtype is np.int32 and values.size and max(-int(values.min()), int(values.max())) >= 2**31:
                raise SolutionError(f"routing plan: field {name}: a value outside int32")
            frozen = np.array(values, dtype=dtype)
            frozen.flags.writeable = False
            object.__setattr__(self, name, frozen)
        for group in (_FIELDS, _MOVES):
            if len({len(getattr(self, name)) for name in group}) != 1:
                raise SolutionError(f"routing plan: fields {', '.join(group)}: expected equally many values")
        if self.page_tokens not in (1, 16):
            raise SolutionError(f"routing plan: field page_tokens: {self.page_tokens!r}, expected 1 or 16")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RoutingPlan):
            return NotImplemented
        return self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.instance.tobytes(), self.finish_s.tobytes()))

    def to_json(self) -> str:
        """Return versioned JSON."""
        data: dict[str, Any] = {"schema": SOLUTION_SCHEMA, "page_tokens": int(self.page_tokens)}
        return json.dumps(data | {name: getattr(self, name).tolist() for name in (*_FIELDS, *_MOVES, "busy_s")})

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> Self:
        """Read ``to_json`` output.

        Raises:
            SolutionError: not JSON, another schema, or a bad field.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SolutionError(f"{source}: not valid JSON: {error}") from None
        found = data.get("schema") if isinstance(data, dict) else None
        if found != SOLUTION_SCHEMA:
            raise SolutionError(f"{source}: field schema: expected {SOLUTION_SCHEMA!r}, got {found!r:.60}")
        for name in (*_FIELDS, *_MOVES, "busy_s"):
            if not isinstance(data.get(name), list):
                raise SolutionError(f"{source}: field {name}: expected a list, got {data.get(name)!r:.40}")
        known = {name: data[name] for name in (*_FIELDS, *_MOVES, "busy_s")}
        try:
            return cls(page_tokens=data.get("page_tokens"), **known)
        except (SolutionError, ValueError) as error:
            raise SolutionError(f"{source}: {error}") from None


def arrivals(instance: RoutingInstance, plan: RoutingPlan) -> F64:
    """Return when each request arrived (R,): its own time, or the pause after the last of its predecessors."""
    arrival = np.array(instance.arrival_s)
    after = np.diff(instance.after_start) > 0
    for r in np.flatnonzero(after).tolist():
        before = instance.after[instance.after_start[r] : instance.after_start[r + 1]]
        # A request that nobody serves ends when it was refused.
        ends = np.where(plan.instance[before] >= 0, plan.finish_s[before], plan.dispatch_s[before])
        arrival[r] = float(ends.max()) + float(instance.pause_s[r])
    return arrival


def penalties(instance: RoutingInstance, plan: RoutingPlan) -> F64:
    """Return the latency penalty of each request (R,), 0 to 1.

    Half is for missing an objective, half is T / (T + a) for a time to first token T with objective a. Requests of a
    program with a deadline all have the program's: with T from its first arrival to its last token. 1 if refused.
    """
    arrival, served = arrivals(instance, plan), plan.instance >= 0
    ttft, rest = plan.first_token_s - arrival, plan.finish_s - plan.first_token_s
    late = np.asarray(_saturating(ttft, instance.ttft_slo_s))
    # A request of one token has no rest, whatever the objective.
    missed = (ttft > instance.ttft_slo_s) | (rest > instance.tpot_slo_s * np.maximum(instance.output_tokens - 1, 1))
    penalty = np.where(served, _MISSED * missed + (1.0 - _MISSED) * late, 1.0)
    judged = np.isfinite(instance.deadline_s)
    if judged.any():
        count = instance.programs
        begin, end, whole = np.full(count, np.inf), np.zeros(count), np.ones(count, dtype=np.bool_)
        np.minimum.at(begin, instance.program, instance.arrival_s)
        np.maximum.at(end, instance.program, plan.finish_s)
        np.logical_and.at(whole, instance.program, served)
        seconds = end - begin
        together = _MISSED * (seconds > instance.deadline_s)
        together[judged] += (1.0 - _MISSED) * _saturating(seconds[judged], instance.deadline_s[judged])
        together = np.where(whole, together, 1.0)
        penalty = np.where(judged[instance.program], together[instance.program], penalty)
    return np.asarray(penalty, dtype=np.float64)


def _saturating(seconds: Any, objective: Any) -> Any:
    if np.ndim(objective) == 0 and np.isinf(objective):
        return np.zeros_like(seconds)
    return np.maximum(seconds, 0.0) / (np.maximum(seconds, 0.0) + objective)


def objectives(instance: RoutingInstance, plan: RoutingPlan) -> dict[str, float]:
    """Return the objectives of a valid plan.

    ``penalty`` joins the mean of ``penalties`` with the instances' cost and energy per request, in seconds of a mean
    instance, as the instance's ``preference`` weighs them. ``attainment`` is the share of requests within their
    objectives, ``ttft_*`` and ``tpot_*`` are seconds over served requests, ``hit_rate`` is the share of prompt tokens
    that needed no computing, ``cost_usd`` and ``energy_j`` are those of the time in which instances computed.
    """
    fleet, count = instance.fleet, instance.requests
    price = np.array([serving.price_usd_per_h for serving in fleet])
    power = np.array([serving.power_w for serving in fleet])
    penalty = penalties(instance, plan)
    total = instance.preference[0] * float(penalty.sum())
    for weight, rate in ((instance.preference[1], price), (instance.preference[2], power)):
        if rate.mean() > 0.0:
            total += weight * float((plan.busy_s * rate).sum() / rate.mean())
    served = plan.instance >= 0
    found = {"penalty": total / count, "attainment": float((penalty <= 1.0 - _MISSED).mean())}
    ttft = (plan.first_token_s - arrivals(instance, plan))[served]
    longer = served & (instance.output_tokens > 1)
    tpot = ((plan.finish_s - plan.first_token_s) / np.maximum(instance.output_tokens - 1, 1))[longer]
    for name, values in (("ttft", ttft), ("tpot", tpot)):
        values = values if len(values) else np.zeros(1)
        found[f"{name}_mean_s"] = float(values.mean())
        for share in (50, 90, 99):
            found[f"{name}_p{share}_s"] = float(np.percentile(values, share))
    whole = (plan.finish_s - arrivals(instance, plan))[served]
    found["latency_mean_s"] = float(whole.mean()) if len(whole) else 0.0
    found["hit_rate"] = float(plan.hit_tokens[served].sum() / max(int(instance.prompt_tokens[served].sum()), 1))
    found["cost_usd"] = float((plan.busy_s * price).sum() / 3600.0)
    found["energy_j"] = float((plan.busy_s * power).sum())
    found["preemptions"] = float(plan.preemptions.sum())
    found["refused"] = float((~served).sum())
    found["moves"] = float(len(plan.move_request))
    return found
