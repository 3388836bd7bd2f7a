"""Cache-aware routers on worked examples."""

from __future__ import annotations

import numpy as np
import pytest

from schedrl.baselines.routing.cache_aware import (
    SCHEDULERS,
    Affinity,
    AffinityTime,
    GuardedAffinity,
    Lmetric,
    LoadAware,
    MinTtft,
    SglangCacheAware,
    SglangLmetric,
)
from schedrl.errors import ConfigError
from tests.baselines.routing.small_views import HandView, ids, routed, servings

RNG = np.random.default_rng(0)
# Prompts of 8 + 64 per block tokens: 136, 200 and 72; the second continues the first.
PROMPTS = [[2, 4], [2, 4, 8], [3]]
EVEN = routed(servings(1.0, 1.0, 1.0), PROMPTS)
MIXED = routed(servings(1.0, 1.0, 3.0), PROMPTS)


def view_of(request: int, **figures: object) -> HandView:
    view = HandView(EVEN, **figures)
    view.at_hand = request
    return view


def test_sglang_follows_its_tree_where_loads_are_even() -> None:
    router = SglangCacheAware(EVEN, RNG)
    assert router.period_s == 60.0
    # Nothing is known: the least loaded.
    assert router.pick(view_of(0, outstanding=[1, 0, 1])) == 1
    # 128 of 200 tokens are known, more than 0.3, whatever the loads within 64.
    assert router.pick(view_of(1, outstanding=[0, 64, 0])) == 1
    # A difference of 65 and a factor of more than 1.5 send it away.
    assert router.pick(view_of(1, outstanding=[0, 65, 1])) == 0
    # 195 is not more than 1.5 times 130, however far apart.
    even = view_of(1, outstanding=[195, 130, 130])
    assert router.pick(even) == 0
    assert router.pick(view_of(2, outstanding=[1, 1, 0])) == 2
    # In characters, four per token: 136 and 200 tokens with a tail each, and all of it again for instance 0.
    assert router.tree.size == [4 * (192 + 8 + 8), 4 * (192 + 8 + 8), 4 * 72]


def test_sglang_threshold_and_tokens() -> None:
    prefix = HandView(EVEN)
    for threshold, expected in ((0.63, 1), (0.65, 0)):
        router = SglangCacheAware(EVEN, RNG, mode="token", threshold=threshold)
        assert router.pick(view_of(0, outstanding=[1, 0, 1])) == 1
        # The tree has pages of 16 tokens: 128 of 136 and no more.
        assert router.tree.size == [0, 128, 0] and router.tree.match(ids(2, 4)) == (128, 1)
        # 128 of 200 is 0.64.
        assert router.pick(view_of(1)) == expected
    with pytest.raises(ConfigError, match="mode: 'words', expected character or token"):
        SglangCacheAware(EVEN, RNG, mode="words")
    small = SglangCacheAware(EVEN, RNG, max_tree_size=600)
    small.pick(view_of(0))
    small.pick(view_of(1))
    # 128 tokens that are shared, 8 of the first tail and 72 behind them.
    assert small.tree.size == [832, 0, 0]
    small.act(prefix)
    # The first tail and then what came last leave until at most 600 characters are left: only the shared blocks.
    assert small.tree.size == [512, 0, 0]


def test_sglang_with_speeds() -> None:
    # Loads of 3, 4 and 3 times 1 in seconds: the first of equal ones; without speeds the idle one.
    assert SglangCacheAware(MIXED, RNG, speed=True).pick(HandView(MIXED, outstanding=[2, 3, 0])) == 0
    assert SglangCacheAware(MIXED, RNG).pick(HandView(MIXED, outstanding=[2, 3, 0])) == 2


def test_lmetric() -> None:
    # 200 * 1, 72 * 3 and 136 * 2 tokens times requests.
    assert Lmetric(EVEN, RNG).pick(view_of(1, hit_tokens=[0, 128, 64], outstanding=[0, 2, 1])) == 0
    assert Lmetric(EVEN, RNG).pick(view_of(1, hit_tokens=[0, 128, 64], outstanding=[1, 1, 1])) == 1
    # 200 * 1 and 100 * 2 are equal: fewer requests first.
    assert Lmetric(EVEN, RNG).pick(view_of(1, hit_tokens=[100, 0, 0], outstanding=[1, 0, 9])) == 1
    assert Lmetric(EVEN, RNG).pick(view_of(1, hit_tokens=[100, 0, 0], allowed=[0, 1, 1])) == 1
    # 200 * 2 against 72 * 1 * 3.
    view = HandView(MIXED, hit_tokens=[0, 0, 128], outstanding=[0, 0, 0])
    view.at_hand = 1
    assert Lmetric(MIXED, RNG, speed=True).pick(view) == 0
    view.outstanding[:2] = 1
    assert Lmetric(MIXED, RNG, speed=True).pick(view) == 2


def test_sglang_lmetric_remembers_what_it_sent() -> None:
    router = SglangLmetric(EVEN, RNG)
    assert router.pick(view_of(0, outstanding=[1, 1, 0])) == 2
    # 72 * 2 tokens at the one that had the prefix, 200 * 1 elsewhere; then 72 * 3.
    assert router.pick(view_of(1, outstanding=[0, 0, 1])) == 2
    # Its own 192 tokens are known now: 8 * 3 against 200.
    assert router.pick(view_of(1, outstanding=[0, 0, 2])) == 2
    assert router.pick(view_of(1, outstanding=[0, 0, 25])) == 0


def test_loadaware() -> None:
    # Shares held 0, 0.64 and 0.32; loads 2, 6 and 4 are -0.5, 0.5 and 0 off the mean of 4: 0.5, 0.14 and 0.32.
    figures = {"hit_tokens": [0, 128, 64], "outstanding": [2, 6, 4]}
    assert LoadAware(EVEN, RNG).pick(view_of(1, **figures)) == 0
    # At a quarter of the weight: 0.125, 0.515 and 0.32.
    assert LoadAware(EVEN, RNG, beta=0.25).pick(view_of(1, **figures)) == 1
    # A mean below 1 counts as 1: loads 0, 1 and 0 are -1/3, 2/3 and -1/3; 1/3, -0.03 and 0.65.
    assert LoadAware(EVEN, RNG).pick(view_of(1, hit_tokens=[0, 128, 64], outstanding=[0, 1, 0])) == 2
    # Loads of 2, 2 and 3 seconds are -1/7, -1/7 and 2/7 off the mean of 7/3: it is not worth 0.32 of the prompt.
    view = HandView(MIXED, hit_tokens=[0, 0, 64], outstanding=[2, 2, 1])
    view.at_hand = 1
    assert LoadAware(MIXED, RNG, speed=True).pick(view) == 0
    assert LoadAware(MIXED, RNG).pick(view) == 2


def test_min_ttft_and_what_it_postpones() -> None:
    view = view_of(0, predicted_ttft_s=[1.4, 1.2, 1.3])
    assert MinTtft(EVEN, RNG).pick(view) == 1 and view.rank == 0.0
    # The objective is 1 s.
    assert MinTtft(EVEN, RNG, postpone=True).pick(view) == 1 and view.rank == 1.0
    timely = view_of(0, predicted_ttft_s=[1.4, 0.9, 1.3])
    assert MinTtft(EVEN, RNG, postpone=True).pick(timely) == 1 and timely.rank == 0.0


def test_affinity_and_its_ties() -> None:
    figures = {"hit_tokens": [64, 64, 0], "pending_tokens": [10, 9, 0], "sent_tokens": [0, 2, 0]}
    view = view_of(1, **figures, backlog_s=[0.6, 0.5, 0.1])
    assert Affinity(EVEN, RNG).pick(view) == 0
    assert AffinityTime(EVEN, RNG).pick(view) == 1
    view.allowed[:2] = False
    assert Affinity(EVEN, RNG).pick(view) == AffinityTime(EVEN, RNG).pick(view) == 2


def test_guarded_affinity() -> None:
    # At most half of 1 s: the prefix at 0.6 s is out of reach, the one at 0.5 s is not.
    view = view_of(1, hit_tokens=[128, 64, 0], predicted_ttft_s=[0.6, 0.5, 0.1])
    assert GuardedAffinity(EVEN, RNG, share=0.5).pick(view) == 1
    assert GuardedAffinity(EVEN, RNG).pick(view) == 2
    assert GuardedAffinity(EVEN, RNG, share=0.7).pick(view) == 0
    late = view_of(1, hit_tokens=[128, 64, 0], predicted_ttft_s=[0.9, 0.8, 0.7])
    assert GuardedAffinity(EVEN, RNG).pick(late) == 2


def test_names() -> None:
    both = {"sglang-cache-aware", "sglang-cache-aware-tokens", "sglang-lmetric", "lmetric", "loadaware"}
    plain = {"min-ttft", "min-ttft-postpone", "affinity", "affinity-time", "affinity-guarded"}
    names = plain | {f"{name}{end}" for name in both for end in ("", "-speed")}
    assert {spec.name for spec in SCHEDULERS} == {f"routing/{name}" for name in names}
