"""Triage on worked examples, and what it is for: goodput."""

from __future__ import annotations

import numpy as np
import pytest

from schedrl.baselines.routing.goodput import goodput, scheduler_play
from schedrl.baselines.routing.triage import Triage
from schedrl.envs.routing.generators import GENERATORS
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.errors import ConfigError
from schedrl.schedulers import schedulers_of
from tests.baselines.routing.small_views import HandView, routed, servings

RNG = np.random.default_rng(0)
# 25 prompts of 136 tokens and one of 328; instance 2 takes three times as long. The objective is 1 s.
PROMPTS = [[2, 4]] * 25 + [[3, 5, 7, 9, 11]]
FLEET = routed(servings(1.0, 1.0, 3.0), PROMPTS)


def ready(**options: float) -> Triage:
    """Return a router that has seen the short prompts."""
    router = Triage(FLEET, RNG, **options)
    for _ in range(25):
        router.pick(HandView(FLEET))
    return router


def view(request: int, predicted_ttft_s: list[float], **figures: object) -> HandView:
    found = HandView(FLEET, predicted_ttft_s=predicted_ttft_s, **figures)
    found.at_hand = request
    return found


def test_a_long_prompt_goes_to_the_slowest_instance_while_the_others_are_busy() -> None:
    assert ready().pick(view(25, [0.4, 0.5, 2.0])) == 2
    # A wait of at most a fifth of the objective is not busy: then the scores decide.
    assert ready().pick(view(25, [0.1, 0.5, 2.0])) == 0
    # A short prompt is served as long as somebody is in time.
    assert ready().pick(view(3, [0.95, 0.6, 2.0])) == 1


def test_no_more_than_the_share_is_given_up() -> None:
    router = ready(share=0.08)
    # Two of 26 are below 8 %, the third is not.
    picked = [router.pick(view(25, [1.5, 1.2, 9.0])) for _ in range(4)]
    assert picked == [2, 2, 2, 1]
    assert ready(share=0.0).pick(view(25, [1.5, 1.2, 0.95])) == 1


def test_requests_in_time_go_where_computing_and_waiting_cost_least() -> None:
    router = ready()
    # 136 tokens take 0.0136 s; 128 of them held save 0.0128 s, worth 0.0427 s of waiting.
    assert router.pick(view(0, [0.10, 0.12, 0.5], hit_tokens=[0, 128, 0])) == 1
    assert router.pick(view(0, [0.10, 0.14, 0.5], hit_tokens=[0, 128, 0])) == 0
    # With waiting that counts as much as computing, it is the least predicted time.
    assert ready(patience=1.0).pick(view(0, [0.10, 0.101, 0.5], hit_tokens=[0, 128, 0])) == 0
    assert ready(patience=1.0).pick(view(0, [0.10, 0.099, 0.5], hit_tokens=[0, 128, 0])) == 1


def test_late_signals_are_added_up() -> None:
    # 9,000 tokens sent since take 0.9 s more than predicted.
    assert ready().pick(view(0, [0.2, 0.3, 0.5], sent_tokens=[9000, 0, 0])) == 1


def test_share_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"share: 1\.5, expected 0 to 1"):
        Triage(FLEET, RNG, share=1.5)


def test_goodput_is_above_that_of_speed_aware_rules() -> None:
    instance = GENERATORS["long-context"](np.random.default_rng(3), requests=800, fleet="heterogeneous", load=0.9)
    assert isinstance(instance, RoutingInstance)
    specs = schedulers_of("routing")
    found = {
        name: goodput(
            instance, scheduler_play(specs[f"routing/{name}"].make()), warm_up=100, tolerance=0.2
        ).requests_per_s
        for name in ("triage", "llm-d-speed", "min-ttft")
    }
    assert found["triage"] > 1.1 * max(found["llm-d-speed"], found["min-ttft"]), found
