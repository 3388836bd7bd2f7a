"""Routers that add up scores, on worked examples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from schedrl.arrays import F64
from schedrl.baselines.routing.router import PromptRouter
from schedrl.baselines.routing.scored import SCHEDULERS, Dynamo, LlmdLatency, LlmdScorers
from schedrl.errors import ConfigError
from tests.baselines.routing.small_views import HandView, routed, servings

RNG = np.random.default_rng(0)
# One prompt of 200 tokens in blocks of 64; memory is 4096 tokens.
EVEN = routed(servings(1.0, 1.0, 1.0), [[2, 4, 8]])
MIXED = routed(servings(1.0, 1.0, 3.0), [[2, 4, 8]])


def shares(router: PromptRouter, view: HandView, draws: int = 4000) -> F64:
    return np.bincount([router.pick(view) for _ in range(draws)], minlength=3) / draws


def test_dynamo_cost() -> None:
    # Tokens to compute 200, 100 + 72 and 300 + 8, in use 300, 400 and 200, and the prompt itself: 700, 772 and 708.
    figures = {
        "pending_tokens": [0, 60, 300],
        "sent_tokens": [0, 40, 0],
        "hit_tokens": [0, 128, 192],
        "used_tokens": [300, 350, 200],
        "queued_tokens": [0, 50, 0],
    }
    view = HandView(EVEN, **figures)
    assert Dynamo(EVEN, RNG).pick(view) == 0
    # Twice the first part: 900, 944 and 1016; half of it: 600, 686 and 554.
    assert Dynamo(EVEN, RNG, overlap_weight=2.0).pick(view) == 0
    assert Dynamo(EVEN, RNG, overlap_weight=0.5).pick(view) == 2
    assert Dynamo(MIXED, RNG, overlap_weight=0.5, speed=True).pick(view) == 0
    view.allowed[0] = False
    assert Dynamo(EVEN, RNG).pick(view) == 2


def test_dynamo_draws_among_equal_ones_and_by_temperature() -> None:
    assert shares(Dynamo(EVEN, np.random.default_rng(1)), HandView(EVEN)) == pytest.approx([1 / 3] * 3, abs=0.04)
    # Costs of 200, 300 and 400 tokens to compute are 0, 0.5 and 1 after rescaling.
    router = Dynamo(EVEN, np.random.default_rng(1), temperature=0.5)
    weights = [1.0, math.exp(-1.0), math.exp(-2.0)]
    expected = [weight / sum(weights) for weight in weights]
    assert shares(router, HandView(EVEN, pending_tokens=[0, 100, 200])) == pytest.approx(expected, abs=0.04)
    with pytest.raises(ConfigError, match="temperature: -1, expected at least 0"):
        Dynamo(EVEN, RNG, temperature=-1)


def test_llmd_scores() -> None:
    # Prefix 0.64, 0.32 and 0; queue 0, 1 and 0.5; memory 0.5, 1 and 1: 1.78, 2.64 and 1.5 at 2:1:1.
    view = HandView(EVEN, hit_tokens=[128, 64, 0], waiting=[4, 0, 1], sent_since=[0, 0, 1], used_tokens=[2048, 0, 0])
    assert LlmdScorers(EVEN, RNG).pick(view) == 1
    # At 10:1:1 it is 6.9, 5.2 and 1.5.
    assert LlmdScorers(EVEN, RNG, weights=(10.0, 1.0, 1.0)).pick(view) == 0
    view.allowed[1] = False
    # Now the queue of the third is the shortest: 1.78 and 0 + 1 + 1.
    assert LlmdScorers(EVEN, RNG).pick(view) == 2


def test_llmd_draws_among_equal_ones() -> None:
    assert shares(LlmdScorers(EVEN, np.random.default_rng(1)), HandView(EVEN)) == pytest.approx([1 / 3] * 3, abs=0.04)
    # With speeds a slow one that is as idle counts for less.
    expected = pytest.approx([1 / 2, 1 / 2, 0.0], abs=0.04)
    assert shares(LlmdScorers(MIXED, np.random.default_rng(1), speed=True), HandView(MIXED)) == expected


def test_llmd_latency_packs_among_those_in_time() -> None:
    # Headroom of 0.8, 0.5 and 0.2 s, rescaled 1, 0.5 and 0 times 0.8: weights 0.2, 0.6 and 1 and 0.01 each.
    view = HandView(EVEN, predicted_ttft_s=[0.2, 0.5, 0.8])
    least = shares(LlmdLatency(EVEN, np.random.default_rng(1)), view)
    assert least == pytest.approx([0.21 / 1.83, 0.61 / 1.83, 1.01 / 1.83], abs=0.04)
    most = shares(LlmdLatency(EVEN, np.random.default_rng(1), strategy="most"), view)
    assert most == pytest.approx([0.81 / 1.23, 0.41 / 1.23, 0.01 / 1.23], abs=0.04)
    with pytest.raises(ConfigError, match="strategy: 'some', expected least or most"):
        LlmdLatency(EVEN, RNG, strategy="some")


def test_llmd_latency_tiers() -> None:
    # Only the third is in time; the others are drawn one time in a hundred.
    late = HandView(EVEN, predicted_ttft_s=[1.5, 2.5, 0.8])
    assert shares(LlmdLatency(EVEN, np.random.default_rng(1)), late)[2] > 0.98
    # None is: deficits of 0.5, 1.5 and 0.6 s, but the only idle one goes first.
    none = HandView(EVEN, predicted_ttft_s=[1.5, 2.5, 1.6], outstanding=[1, 0, 1])
    assert shares(LlmdLatency(EVEN, np.random.default_rng(1)), none).tolist() == [0.0, 1.0, 0.0]
    none.outstanding[1] = 1
    # Rescaled 0, 1 and 0.1: weights 1, 0.2 and 0.92 and 0.01 each.
    expected = pytest.approx([1.01 / 2.15, 0.21 / 2.15, 0.93 / 2.15], abs=0.04)
    assert shares(LlmdLatency(EVEN, np.random.default_rng(1)), none) == expected


def test_llmd_latency_gates() -> None:
    # 192 of 200 is more than 0.8: within the tier only the third is drawn, but for one time in a hundred.
    view = HandView(EVEN, predicted_ttft_s=[0.2, 0.2, 0.9], hit_tokens=[0, 0, 192])
    assert shares(LlmdLatency(EVEN, np.random.default_rng(1)), view)[2] > 0.98
    # All of a prompt passes the first gate even where it will be late, unless by more than 5 s.
    view.hit_tokens[2] = 199
    for seconds, stays in ((5.1, True), (5.3, False)):
        view.predicted_ttft_s[2] = seconds
        assert (shares(LlmdLatency(EVEN, np.random.default_rng(1)), view)[2] > 0.5) == stays


def test_llmd_latency_knows_the_time_per_token() -> None:
    # An iteration takes 1 ms and 0.1 ms per token and 1 us per token in context: 11 requests and 5200 tokens, 7.3 ms.
    instance = routed(servings(1.0, 1.0, 1.0), [[2, 4, 8]], tpot_slo_s=0.005)
    view = HandView(instance, running=[10, 0, 0], context_tokens=[5000, 0, 0])
    router = LlmdLatency(instance, np.random.default_rng(1))
    assert router._predicted_tpot_s(view) == pytest.approx([0.0073, 0.0013, 0.0013])
    assert shares(router, view)[0] < 0.02


def test_names() -> None:
    both, plain = {"dynamo", "llm-d", "llm-d-queue"}, {"dynamo-softmax", "llm-d-latency", "llm-d-latency-most"}
    names = plain | {f"{name}{end}" for name in both for end in ("", "-speed")}
    assert {spec.name for spec in SCHEDULERS} == {f"routing/{name}" for name in names}
    assert all(spec.randomised for spec in SCHEDULERS)
