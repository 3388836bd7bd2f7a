"""Routers by load on worked examples, and every one of them against the checker."""

from __future__ import annotations

import numpy as np
import pytest

from schedrl.baselines.routing.router import PromptRouter, decode_slowness, play_router, prefill_slowness
from schedrl.baselines.routing.simple import (
    SCHEDULERS,
    LeastOutstanding,
    LeastPending,
    PowerOfTwo,
    RandomRouter,
    RoundRobin,
    VllmDataParallel,
)
from tests.baselines.routing.small_views import HandView, routed, servings

RNG = np.random.default_rng(0)
EVEN = routed(servings(1.0, 1.0, 1.0), [[]] * 8)
# The last is three times as slow.
MIXED = routed(servings(1.0, 1.0, 3.0), [[]] * 8)


def test_slowness_is_relative_to_the_fastest() -> None:
    assert prefill_slowness(EVEN).tolist() == decode_slowness(EVEN).tolist() == [1.0, 1.0, 1.0]
    assert prefill_slowness(MIXED) == pytest.approx([1.0, 1.0, 3.0])
    assert decode_slowness(MIXED) == pytest.approx([1.0, 1.0, 3.0])


def test_random_draws_by_speed() -> None:
    for speed, expected in ((False, [1 / 3, 1 / 3, 1 / 3]), (True, [3 / 7, 3 / 7, 1 / 7])):
        router = RandomRouter(MIXED, np.random.default_rng(1), speed=speed)
        counts = np.bincount([router.pick(HandView(MIXED)) for _ in range(3000)], minlength=3)
        # Five standard deviations of a share of 3000 draws.
        assert counts / 3000 == pytest.approx(expected, abs=0.046)
    router = RandomRouter(EVEN, np.random.default_rng(1))
    assert {router.pick(HandView(EVEN, allowed=[0, 1, 0])) for _ in range(20)} == {1}


def test_turns() -> None:
    router = RoundRobin(EVEN, RNG)
    assert [router.pick(HandView(EVEN)) for _ in range(4)] == [0, 1, 2, 0]
    assert router.pick(HandView(EVEN, allowed=[0, 0, 1])) == 2
    # Credits of (1, 1, 1/3): 0, 1, then (2/3, 2/3, 1) has 2 serve, and so on; 3, 3 and 1 of seven.
    weighted = RoundRobin(MIXED, RNG, speed=True)
    turns = [weighted.pick(HandView(MIXED)) for _ in range(14)]
    assert turns[:3] == [0, 1, 0] or turns[:3] == [0, 1, 2]
    assert np.bincount(turns).tolist() == [6, 6, 2]


def test_least_outstanding() -> None:
    view = HandView(MIXED, outstanding=[5, 6, 1])
    assert LeastOutstanding(MIXED, RNG).pick(view) == 2
    # 6, 7 and 2 * 3 requests of the fast ones: the first of equal ones, but for what is pending.
    assert LeastOutstanding(MIXED, RNG, speed=True).pick(view) == 0
    view.pending_tokens[0] = 1
    assert LeastOutstanding(MIXED, RNG, speed=True).pick(view) == 2
    assert LeastOutstanding(MIXED, RNG, speed=True).pick(HandView(MIXED, outstanding=[6, 6, 1])) == 2
    assert LeastOutstanding(MIXED, RNG).pick(HandView(MIXED, outstanding=[5, 6, 1], allowed=[1, 1, 0])) == 0


def test_least_pending_counts_what_was_just_sent_and_what_decodes() -> None:
    view = HandView(MIXED, pending_tokens=[300, 100, 0], sent_tokens=[0, 250, 320], context_tokens=[900, 0, 900])
    assert LeastPending(MIXED, RNG).pick(view) == 0
    # 300 + 90, 350 and 320 + 90.
    assert LeastPending(MIXED, RNG, kappa=0.1).pick(view) == 1
    # The prompt has 8 tokens: (300 + 8), (350 + 8), 3 * (320 + 8).
    assert LeastPending(MIXED, RNG, speed=True).pick(view) == 0
    assert LeastPending(MIXED, RNG, speed=True).pick(HandView(MIXED, pending_tokens=[20, 20, 0])) == 2
    assert LeastPending(MIXED, RNG, speed=True).pick(HandView(MIXED, pending_tokens=[10, 20, 0])) == 0


def test_the_better_of_two() -> None:
    view = HandView(EVEN, outstanding=[4, 1, 9])
    router = PowerOfTwo(EVEN, np.random.default_rng(2))
    counts = np.bincount([router.pick(view) for _ in range(3000)], minlength=3)
    # Pairs are equally likely: 1 wins two of them, 0 the third, and the most loaded none.
    assert counts[2] == 0 and counts[0] / 3000 == pytest.approx(1 / 3, abs=0.045)
    assert PowerOfTwo(EVEN, RNG).pick(HandView(EVEN, allowed=[0, 0, 1])) == 2
    # With speeds 3 * 2 beats neither 4 nor 5.
    fast = PowerOfTwo(MIXED, np.random.default_rng(2), speed=True)
    assert {fast.pick(HandView(MIXED, outstanding=[3, 4, 1])) for _ in range(50)} == {0, 1}


def test_vllm_counts_waiting_four_times() -> None:
    view = HandView(EVEN, waiting=[1, 0, 0], running=[0, 5, 1], sent_since=[0, 0, 1])
    # 4, 5 and 4 + 1.
    assert VllmDataParallel(EVEN, RNG).pick(view) == 0
    # (score + 4) times 1, 1 and 3.
    assert VllmDataParallel(MIXED, RNG, speed=True).pick(HandView(MIXED, running=[7, 9, 0])) == 0
    assert VllmDataParallel(MIXED, RNG, speed=True).pick(HandView(MIXED, running=[9, 9, 0])) == 2


def test_handed_over_requests_go_to_the_fewest() -> None:
    view = HandView(EVEN, outstanding=[3, 1, 2], predicted_ttft_s=[0.0, 9.0, 9.0])
    view.moved = True
    for spec in SCHEDULERS:
        router = spec.make()._make(EVEN, RNG)  # type: ignore[attr-defined]
        assert isinstance(router, PromptRouter) and router.choose(view) == 1, spec.name


def test_names() -> None:
    plain = {"random", "round-robin", "least-outstanding", "least-pending", "power-of-two", "vllm-dp"}
    assert {spec.name for spec in SCHEDULERS} == {f"routing/{name}{end}" for name in plain for end in ("", "-speed")}
    assert {s.name for s in SCHEDULERS if s.randomised} == {
        f"routing/{name}{end}" for name in ("random", "power-of-two") for end in ("", "-speed")
    }
    assert all(spec.information == "online" and spec.source for spec in SCHEDULERS)


def test_speed_changes_nothing_where_all_are_as_fast() -> None:
    plans = {}
    for spec in SCHEDULERS:
        router = spec.make()._make(EVEN, np.random.default_rng(3))  # type: ignore[attr-defined]
        simulator = play_router(EVEN, router)
        assert simulator is not None
        plans[spec.name] = simulator.solution(0)
    for name in ("round-robin", "least-outstanding", "least-pending", "power-of-two", "vllm-dp"):
        assert plans[f"routing/{name}"] == plans[f"routing/{name}-speed"], name
