"""Preble's E2: exploit, explore, redirect and replicate, on figures worked by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from schedrl.baselines.routing import preble
from schedrl.baselines.routing.preble import Preble
from schedrl.envs.routing.fleets import fleet
from schedrl.envs.routing.generators import GENERATORS
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.replay import check
from schedrl.envs.routing.solution import RoutingPlan


def router() -> Any:
    """Return Preble on two servers that take 1 s per 1000 prompt tokens and nothing per answer."""
    instance = RoutingInstance(
        name="two",
        fleet=fleet({"a100-sxm-80gb": 2}, cache_tokens=100_000),
        arrival_s=np.zeros(1),
        prompt_tokens=np.array([4096]),
        output_tokens=np.ones(1, dtype=np.int32),
    )
    made: Any = Preble(instance)
    made._prefill, made._decode = np.full(2, 1e-3), np.zeros(2)
    return made


def view_of(hits: list[int], *, now_s: float = 0.0, first: int = 0, prompt: int = 4096, ttft_s: float = 1.0) -> Any:
    view = SimpleNamespace(
        handed_over=False,
        allowed=np.ones(2, dtype=np.bool_),
        hit_tokens=np.array(hits),
        prompt_tokens=prompt,
        blocks=np.arange(first, first + prompt // 512),
        instance=SimpleNamespace(block_tokens=512, output_tokens=np.ones(1, dtype=np.int32)),
        now_s=now_s,
        request=0,
        count=2,
        predicted_ttft_s=np.full(2, ttft_s),
        finish_s=lambda request: -1.0,
    )

    def least(figure: Any, among: Any = None) -> int:
        able = view.allowed if among is None or not among.any() else among
        return int(np.argmin(np.where(able, figure, np.inf)))

    view.least = least
    return view


def test_new_prompts_explore_the_least_loaded() -> None:
    made = router()
    assert [made.choose(view_of([0, 0], first=100 * k, prompt=1024 * (k + 1))) for k in range(4)] == [0, 1, 0, 1]
    # 1024 + 3072 missed at the first, 2048 + 4096 at the second: seconds per 1000 tokens.
    assert made.load_s.tolist() == pytest.approx([4.096, 6.144])


def test_long_prefix_is_exploited_and_short_one_is_not() -> None:
    made = router()
    made.choose(view_of([0, 0], prompt=4096))  # 4.1 s at the first server
    assert made.choose(view_of([2560, 0], prompt=4096)) == 0  # 2560 held, 1536 left
    made = router()
    made.choose(view_of([0, 0], prompt=4096))
    assert made.choose(view_of([1536, 0], prompt=4096)) == 1  # 1536 held, 2560 left: 4.1 + 2.6 s against 4.1 s


def test_history_ends_after_three_minutes() -> None:
    made = router()
    made.choose(view_of([0, 0], prompt=4096))
    made.choose(view_of([0, 0], now_s=180.0, prompt=1024, first=50))
    assert made.load_s.tolist() == pytest.approx([4.096, 1.024])
    made.choose(view_of([0, 0], now_s=180.1, prompt=2048, first=90))
    assert made.load_s.tolist() == pytest.approx([2.048, 1.024])


def test_cheapest_prefixes_of_the_busiest_are_redirected_as_long_as_the_order_stays() -> None:
    made = router()
    # Known prefixes of blocks 3 and 103 at the first server: 0.5 s and 1.5 s on top of 4.1 s; the second has nothing.
    made._load[:] = [4.0, 0.1]
    made.choose(view_of([3584, 0], prompt=4096))
    assert made._redirect == {}  # a single candidate is replicated at most
    made.choose(view_of([2560, 0], prompt=4096, first=100))
    assert made._redirect == {3: 1, 103: 1}
    assert made.choose(view_of([3584, 0], prompt=4096)) == 1


def test_redirecting_stops_before_it_turns_the_order_round() -> None:
    made = router()
    made._load[:] = [1.0, 0.1]
    made.choose(view_of([3584, 0], prompt=4096))
    made.choose(view_of([2560, 0], prompt=4096, first=100))
    # 3.0 s against 0.1 s: moving 0.5 s leaves 2.5 and 0.6, moving another 1.5 s would give 1.0 and 2.1.
    assert made._redirect == {3: 1}


def test_single_hot_prefix_that_slowed_down_is_replicated() -> None:
    made = router()
    made._load[:] = [4.0, 0.1]
    made.choose(view_of([3584, 0], prompt=4096, ttft_s=1.0))
    made.choose(view_of([3584, 0], now_s=100.0, prompt=4096, ttft_s=1.9))
    assert made._replica == {}
    made.choose(view_of([3584, 0], now_s=101.0, prompt=4096, ttft_s=2.5))
    assert made._replica == {3: (0, 1)}
    assert made.choose(view_of([3584, 0], now_s=101.0, prompt=4096)) == 1


def test_full_caches_cost_what_has_to_be_computed_again() -> None:
    made = router()
    made._missed[:] = [99_000.0, 0.0]
    made._hit[:] = [99_000.0, 0.0]
    # 99000 + 2000 tokens overflow 100000 by 1000, half of which are used again: 0.5 s.
    assert made._eviction_s(np.array([2000.0, 2000.0])).tolist() == pytest.approx([0.5, 0.0])


@pytest.mark.parametrize("kind", ["long-context", "sessions"])
def test_plans_are_valid(kind: str) -> None:
    instance = GENERATORS[kind](np.random.default_rng(3), fleet="demo", requests=80, load=1.5)
    for spec in preble.SCHEDULERS:
        result = spec.make().schedule(instance, time_limit_s=60.0, rng=np.random.default_rng(0))
        assert isinstance(result.solution, RoutingPlan)
        assert check(instance, result.solution) == []
