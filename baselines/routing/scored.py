"""Routers that add up scores: the cost of NVIDIA Dynamo, and the scorers of llm-d with or without predicted latency."""

from __future__ import annotations

import functools

import numpy as np

from schedrl.arrays import F64, Bool
from schedrl.baselines.routing.router import (
    PromptRouter,
    View,
    decode_slowness,
    prefill_slowness,
    router_spec,
    router_specs,
)
from schedrl.devices.serving_time import iteration_s
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.errors import ConfigError
from schedrl.schedulers import SchedulerSpec

__all__ = ["SCHEDULERS", "Dynamo", "LlmdLatency", "LlmdScorers"]


def _drawn_best(view: View, score: F64, rng: np.random.Generator) -> int:
    """Return an allowed instance with the highest score, any of equal ones."""
    able = np.where(view.allowed, score, -np.inf)
    best = np.flatnonzero(able == able.max())
    return int(best[0]) if len(best) == 1 else int(rng.choice(best))


def _rescaled(values: F64, among: Bool) -> F64:
    """Return values moved to 0 to 1 between the least and the most of some, all 0 where these are equal."""
    low, high = float(values[among].min()), float(values[among].max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


class Dynamo(PromptRouter):
    """Least ``overlap_weight`` times blocks of prompts to compute plus blocks in use, as Dynamo's KV router.

    Blocks to compute are those of the prompt that are not held and all that are pending; in use are those of the
    requests at the instance, the waiting ones included, and of the prompt. A temperature draws from a softmax of the
    costs, which are first rescaled to 0 to 1; at 0 the least cost is taken, any of equal ones.

    Args:
        instance: what is served.
        rng: draws.
        speed: multiply both kinds of blocks by the seconds that instances take over them.
        overlap_weight: weight of blocks to compute.
        temperature: at least 0.

    Raises:
        ConfigError: a negative temperature.
    """

    def __init__(
        self,
        instance: RoutingInstance,
        rng: np.random.Generator,
        *,
        speed: bool = False,
        overlap_weight: float = 1.0,
        temperature: float = 0.0,
    ) -> None:
        if not temperature >= 0.0:
            raise ConfigError(f"temperature: {temperature!r}, expected at least 0")
        self._rng, self._weight, self._temperature = rng, overlap_weight, temperature
        self._block = instance.block_tokens
        ones = np.ones(len(instance.fleet))
        self._prefill = prefill_slowness(instance) if speed else ones
        self._decode = decode_slowness(instance) if speed else ones

    def pick(self, view: View) -> int:
        """Return the instance with the least cost, or a drawn one."""
        prompt = view.prompt_tokens
        compute = view.pending_tokens + view.sent_tokens + (prompt - view.hit_tokens)
        in_use = view.used_tokens + view.queued_tokens + prompt
        cost = (self._weight * compute * self._prefill + in_use * self._decode) / self._block
        if self._temperature == 0.0:
            return _drawn_best(view, -cost, self._rng)
        chance = np.where(view.allowed, np.exp(-_rescaled(cost, view.allowed) / self._temperature), 0.0)
        return int(self._rng.choice(len(chance), p=chance / chance.sum()))


class LlmdScorers(PromptRouter):
    """Highest weighted sum of three scores of llm-d: share of the prompt held, short queue, and free memory.

    A queue scores 1 where it is the shortest and 0 where it is the longest; memory scores the share that is not in use.
    Any of equal instances is taken.

    Args:
        instance: what is served.
        rng: draws among equal ones.
        speed: count waiting requests, and the one at hand, by the seconds that they take.
        weights: of prefix, queue and memory.
    """

    def __init__(
        self,
        instance: RoutingInstance,
        rng: np.random.Generator,
        *,
        speed: bool = False,
        weights: tuple[float, float, float] = (2.0, 1.0, 1.0),
    ) -> None:
        self._rng, self._weights = rng, weights
        self._slowness = prefill_slowness(instance) if speed else np.ones(len(instance.fleet))
        self._room: F64 = np.array([serving.kv_tokens for serving in instance.fleet], dtype=np.float64)

    def pick(self, view: View) -> int:
        """Return the instance with the highest sum."""
        prefix, queue, memory = self._weights
        held = view.hit_tokens / view.prompt_tokens
        waiting = (view.waiting + view.sent_since + 1.0) * self._slowness
        short = 1.0 - _rescaled(waiting, view.allowed)
        free = 1.0 - view.used_tokens / self._room
        return _drawn_best(view, prefix * held + queue * short + memory * free, self._rng)


class LlmdLatency(PromptRouter):
    """llm-d's latency scorer: a draw among instances by how far their predicted latency stays within the objectives.

    If instances hold nearly all of the prompt (0.99) only they are considered, unless they are predicted to be later
    than the best by more than 5 s. Then those within both objectives form a tier and the others another, which is used
    where the first is empty or with a chance of 0.01; in the tier, too, those with most of the prompt (0.8) go first.
    Weights are the least headroom (0.8 TTFT, 0.2 TPOT) in the first tier, which packs, and the least deficit in the
    second, where idle instances go before others. Predictions are those of this package's time model, which knows
    speeds.

    Args:
        instance: what is served.
        rng: draws.
        strategy: ``least`` headroom, llm-d's default, or ``most``.

    Raises:
        ConfigError: an unknown strategy.
    """

    _ttft_weight, _tpot_weight = 0.8, 0.2
    _global_gate, _tier_gate = 0.99, 0.8
    _explore = 0.01
    _penalty_s = 5.0
    # llm-d draws among integers from 1 to 100, so that the worst of a tier is never out of the question.
    _least_weight = 0.01

    def __init__(self, instance: RoutingInstance, rng: np.random.Generator, *, strategy: str = "least") -> None:
        if strategy not in ("least", "most"):
            raise ConfigError(f"strategy: {strategy!r}, expected least or most")
        self._rng, self._least = rng, strategy == "least"
        self._instance = instance

    def pick(self, view: View) -> int:
        """Return an instance of the better tier."""
        ttft = self._instance.ttft_slo_s - view.predicted_ttft_s
        tpot = self._instance.tpot_slo_s - self._predicted_tpot_s(view)
        able = self._gate(view, view.allowed, self._global_gate)
        positive = able & (ttft >= 0.0) & (tpot >= 0.0)
        negative = able & ~positive
        explore = bool(negative.any()) and self._rng.random() < self._explore
        if positive.any() and not explore:
            tier = self._gate(view, positive, self._tier_gate)
            headroom = self._blend(np.maximum(ttft, 0.0), np.maximum(tpot, 0.0), tier)
            return self._draw(1.0 - headroom if self._least else headroom, tier)
        tier = self._gate(view, negative, self._tier_gate)
        idle = tier & (view.outstanding == 0)
        tier = idle if idle.any() else tier
        return self._draw(1.0 - self._blend(np.maximum(-ttft, 0.0), np.maximum(-tpot, 0.0), tier), tier)

    def _predicted_tpot_s(self, view: View) -> F64:
        """Return the seconds of an iteration that decodes what each instance has and the request at hand (I,)."""
        if np.isinf(self._instance.tpot_slo_s):
            return np.zeros(view.count)
        seconds = np.empty(view.count)
        for i, serving in enumerate(self._instance.fleet):
            batch, context = int(view.running[i]) + 1, float(view.context_tokens[i] + view.prompt_tokens)
            seconds[i] = iteration_s(serving.coefficients, batch, batch, context, context)
        return seconds

    def _gate(self, view: View, among: Bool, share: float) -> Bool:
        """Return those that hold so much of the prompt, or all of them if there are none or these are too late."""
        sticky = among & (view.hit_tokens >= share * view.prompt_tokens)
        if not sticky.any() or self._rng.random() < self._explore:
            return among
        late = view.predicted_ttft_s[sticky].min() - view.predicted_ttft_s[among].min()
        return among if late > self._penalty_s else sticky

    def _blend(self, ttft: F64, tpot: F64, tier: Bool) -> F64:
        """Return the weighted sum of both figures, each rescaled to 0 to 1 in the tier (I,)."""
        finite = [np.where(np.isfinite(values), values, 0.0) for values in (ttft, tpot)]
        return self._ttft_weight * _rescaled(finite[0], tier) + self._tpot_weight * _rescaled(finite[1], tier)

    def _draw(self, weight: F64, tier: Bool) -> int:
        chance = np.where(tier, weight + self._least_weight, 0.0)
        return int(self._rng.choice(len(chance), p=chance / chance.sum()))


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    *router_specs(
        "dynamo",
        Dynamo,
        summary="least blocks of prompts to compute plus blocks in use",
        source="ai-dynamo/dynamo, KV router (overlap weight 1, temperature 0)",
        speed="blocks times the seconds that they take",
        randomised=True,
    ),
    router_spec(
        "dynamo-softmax",
        functools.partial(Dynamo, temperature=0.1),
        summary="as dynamo, drawn from a softmax of the costs at temperature 0.1",
        source="ai-dynamo/dynamo, KV router (router-temperature)",
        randomised=True,
    ),
    *router_specs(
        "llm-d",
        LlmdScorers,
        summary="highest of 2 prefix + 1 queue + 1 memory scores",
        source="llm-d/llm-d-inference-scheduler, weights 2:1:1 of its precise-prefix guide",
        speed="waiting requests times the seconds that each takes there",
        randomised=True,
    ),
    *router_specs(
        "llm-d-queue",
        functools.partial(LlmdScorers, weights=(2.0, 2.0, 1.0)),
        summary="highest of 2 prefix + 2 queue + 1 memory scores",
        source="llm-d/llm-d-inference-scheduler, default weights 2:2:1 of its documentation",
        speed="waiting requests times the seconds that each takes there",
        randomised=True,
    ),
    router_spec(
        "llm-d-latency",
        LlmdLatency,
        summary="a draw by predicted headroom to the objectives, instances with the prefix first",
        source="llm-d.ai/docs/architecture/advanced/latency-predictor (latency-scorer, strategy least)",
        randomised=True,
    ),
    router_spec(
        "llm-d-latency-most",
        functools.partial(LlmdLatency, strategy="most"),
        summary="as llm-d-latency, most headroom first",
        source="llm-d.ai/docs/architecture/advanced/latency-predictor (latency-scorer, strategy most)",
        randomised=True,
    ),
)
