"""DualMap: keys, rings, the choice within a pair, moves, and the guarantees that its paper gives."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.baselines.routing import dualmap
from schedrl.baselines.routing.dualmap import DualMap
from schedrl.baselines.routing.dualmap_keys import HashRing, PrefixKeys, key_hash
from schedrl.baselines.routing.router import play_router
from schedrl.envs.routing.fleets import fleet
from schedrl.envs.routing.generators import GENERATORS
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.replay import check
from schedrl.envs.routing.solution import RoutingPlan

_NAMES = [f"server-{i}" for i in range(8)]
_ALL = np.ones(8, dtype=np.bool_)


def simple(prompts: list[int], blocks: list[list[int]], arrival: list[float] | None = None, **options: Any) -> Any:
    """Return requests with given blocks on equal A100."""
    count = len(prompts)
    return RoutingInstance(
        name="simple",
        fleet=fleet({"a100-sxm-80gb": options.pop("servers", 2)}, cache_tokens=1_000_000),
        arrival_s=np.array(arrival if arrival is not None else [0.0] * count),
        prompt_tokens=np.array(prompts),
        output_tokens=np.full(count, 2),
        block_start=np.concatenate([[0], np.cumsum([len(b) for b in blocks])]),
        blocks=np.array([b for own in blocks for b in own], dtype=np.int64),
        **options,
    )


def test_hashes_of_keys_and_seeds_differ() -> None:
    assert len({key_hash(key, seed) for key in range(100) for seed in (1, 2)}) == 200


@given(st.sets(st.integers(0, 7), min_size=1), st.integers(0, 7), st.lists(st.integers(0, 2**40), max_size=50))
def test_keys_of_the_instances_that_stay_do_not_change(members: set[int], gone: int, keys: list[int]) -> None:
    ring = HashRing(_NAMES, 1, points=20)
    there = np.isin(np.arange(8), list(members | {gone}))
    left = there.copy()
    left[gone] = len(members - {gone}) == 0
    for key in keys:
        before = ring.owner(key, there)
        assert there[before]
        if before != gone or left[gone]:
            assert ring.owner(key, left) == before
        else:
            assert left[ring.owner(key, left)]


def test_shares_of_a_ring_follow_the_weights() -> None:
    ring = HashRing(_NAMES[:2], 1, points=400, weights=np.array([0.5, 1.5]))
    owners = [ring.owner(key, _ALL[:2]) for key in range(20_000)]
    assert np.mean(owners) == pytest.approx(0.75, abs=0.05)


def test_hot_prefix_is_split_and_merged_again() -> None:
    keys = PrefixKeys(4, window=20)
    # All prompts share unit 1: from the eighth request on it has more than 2/4 of them and the next unit counts.
    found = [keys.key([1, 10 + k % 5]) for k in range(20)]
    assert found == [1] * 8 + [10 + k % 5 for k in range(8, 20)]
    assert keys.split == {1}
    # Others push it out of the window: below a quarter of 20, that is with 4 left, it is merged.
    for k in range(15):
        keys.key([100 + k])
    assert keys.split == {1}
    keys.key([115])
    assert keys.split == frozenset()
    assert keys.key([1, 10]) == 1


def test_cold_prefix_stays_whole_and_empty_prompts_have_no_key() -> None:
    keys = PrefixKeys(4, window=20)
    assert [keys.key([k % 3, 7]) for k in range(40)] == [k % 3 for k in range(40)]
    assert keys.key([]) is None


def test_split_goes_on_down_to_the_unit_that_tells_prompts_apart() -> None:
    keys = PrefixKeys(2, window=30)
    for k in range(20):
        keys.key([1, 2, 3, 50 + k])
    # With 2 instances nothing has more than 2/2 of the requests: no key is ever split.
    assert keys.split == frozenset()
    keys = PrefixKeys(4, window=50)
    found = [keys.key([1, 2, 3, 50 + k]) for k in range(40)]
    assert keys.split == {1, 2, 3}
    assert found[-1] == 89


def view_of(**values: Any) -> Any:
    """Return what DualMap looks at of a view."""
    count = len(values["hit_tokens"])
    usual: dict[str, Any] = {
        "allowed": np.ones(count, dtype=np.bool_), "used_tokens": np.zeros(count), "queued_tokens": np.zeros(count),
        "pending_tokens": np.zeros(count), "sent_tokens": np.zeros(count), "count": count, "request": 0,
        "prompt_tokens": 5120, "blocks": np.arange(10), "handed_over": False, "now_s": 0.0,
        "ranks": [], "predicted_ttft_s": np.zeros(count),
    }  # fmt: skip
    view = SimpleNamespace(**{**usual, **values})
    view.set_rank = view.ranks.append
    view.instance = SimpleNamespace(priority=np.zeros(1, dtype=np.int32))
    return view


def pair_router(slo_tokens: float, **options: Any) -> Any:
    """Return a router on two instances whose objective allows so many tokens."""
    instance = simple([5120], [list(range(10))])
    router: Any = DualMap(instance, np.random.default_rng(0), **options)
    router._slo_s = slo_tokens * router._seconds[0]
    return router


def test_longer_hit_wins_until_its_time_exceeds_the_objective() -> None:
    # 9000 pending and 5120 - 2560 to compute: 11560 tokens at the first, 5120 at the second.
    view = view_of(hit_tokens=np.array([2560, 0]), pending_tokens=np.array([9000.0, 0.0]))
    assert pair_router(12_000).choose(view) == 0
    assert view.ranks == [-2560.0]
    assert pair_router(11_000).choose(view) == 1
    assert view.ranks[-1] == 0.0


def test_equal_hits_go_where_less_is_pending() -> None:
    view = view_of(hit_tokens=np.array([512, 512]), pending_tokens=np.array([3000.0, 2000.0]))
    assert pair_router(1e6).choose(view) == 1
    router = pair_router(1e6)
    assert {router.choose(view_of(hit_tokens=np.array([512, 512]))) for _ in range(30)} == {0, 1}


def test_both_overloaded_moves_the_request_that_gains_most_to_its_other_candidate() -> None:
    moved: list[tuple[int, int]] = []
    # A third instance is nearly idle: requests 1 and 2 wait at the first and have it as their other candidate.
    instance = simple([4000, 4000, 3000], [[0], [1], [2]], servers=3)
    router: Any = DualMap(instance, np.random.default_rng(0))
    router._slo_s = 10_000 * router._seconds[0]
    router.candidates = lambda key, view: (0, 1)
    router._sent = {1: dualmap._Sent(0, 2, 0, 0), 2: dualmap._Sent(0, 2, 0, 2000)}
    view = view_of(
        hit_tokens=np.array([0, 0, 0]),
        pending_tokens=np.array([13_000.0, 12_000.0, 500.0]),
        prompt_tokens=4000,
        blocks=np.zeros(1, dtype=np.int64),
    )
    view.instance = instance
    view.waiting_requests = lambda i: np.array([1, 2] if i == 0 else [], dtype=np.int32)
    view.move = lambda r, j: moved.append((r, j)) or True
    # Up to request 1: 13000 - 7000 + 4000 = 10000, there 4500. Up to request 2: 13000, there 500 + 3000 - 2000.
    # It gains most: 11500. After its move 10000 tokens are pending, which is within the objective.
    assert router.choose(view) == 1
    assert moved == [(2, 2)]
    assert router._sent[2] == dualmap._Sent(2, 0, 2000, 0)


def test_no_move_where_the_other_candidate_would_miss_the_objective() -> None:
    instance = simple([4000, 4000], [[0], [1]], servers=3)
    router: Any = DualMap(instance, np.random.default_rng(0))
    router._slo_s = 10_000 * router._seconds[0]
    router._sent = {1: dualmap._Sent(0, 2, 0, 0)}
    view = view_of(hit_tokens=np.zeros(3, dtype=int), pending_tokens=np.array([20_000.0, 0.0, 9000.0]))
    view.instance = instance
    view.waiting_requests = lambda i: np.array([1], dtype=np.int32)
    view.move = lambda r, j: pytest.fail("moved")
    router._relieve(view, 0)


@settings(max_examples=20)
@given(st.integers(2, 40), st.integers(0, 10**6))
def test_a_prefix_misses_at_its_two_candidates_at_most(requests: int, key: int) -> None:
    """The paper: a prefix with m requests hits in at least 1 - 2/m of them, whatever the loads are."""
    blocks = [[key, key + 1 + k] for k in range(requests)]
    arrival = [2.0 * k for k in range(requests)]
    instance = simple([1100] * requests, blocks, arrival, servers=5)
    simulator = play_router(instance, DualMap(instance, np.random.default_rng(key), window=10**6))
    assert simulator is not None
    plan = simulator.solution(0)
    # Below 2n = 10 requests and from then on, each with the key's own pair.
    first = plan.hit_tokens[: min(requests, 9)]
    assert (first > 0).mean() >= 1.0 - 2.0 / len(first)


@pytest.mark.parametrize("servers", [4, 8, 16])
def test_the_largest_of_the_loads_keeps_the_bound_of_two_choices(servers: int) -> None:
    """The paper: at most m/n + log log n / log 2 + O(1) requests at an instance; here with keys drawn once each."""
    requests = 40 * servers
    rings = [HashRing([f"s{i}" for i in range(servers)], seed) for seed in (1, 2)]
    everyone, load = np.ones(servers, dtype=np.bool_), np.zeros(servers)
    for key in range(requests):
        pair = [ring.owner(key, everyone) for ring in rings]
        load[min(pair, key=lambda i: load[i])] += 1
    bound = requests / servers + math.log(math.log(servers)) / math.log(2)
    # Rings of finitely many points are uneven: that is in the constant.
    assert load.max() <= bound + 4


def test_joining_and_leaving_instances_get_requests_in_their_time_only() -> None:
    fresh = fleet({"a100-sxm-80gb": 3}, cache_tokens=1_000_000)
    servers = (fresh[0], replace(fresh[1], ready_s=50.0), replace(fresh[2], retire_s=50.0))
    count = 200
    instance = RoutingInstance(
        name="scaling",
        fleet=servers,
        arrival_s=np.arange(count) * 0.5,
        prompt_tokens=np.full(count, 600),
        output_tokens=np.full(count, 5),
    )
    for spec in dualmap.SCHEDULERS:
        result = spec.make().schedule(instance, time_limit_s=60.0, rng=np.random.default_rng(0))
        plan = result.solution
        assert isinstance(plan, RoutingPlan)
        early = instance.arrival_s < 50.0
        assert set(plan.instance[early].tolist()) == {0, 2}
        assert set(plan.instance[~early].tolist()) == {0, 1}
        assert check(instance, plan) == []


@pytest.mark.parametrize("kind", ["long-context", "agentic"])
def test_plans_are_valid_and_repeat(kind: str) -> None:
    instance = GENERATORS[kind](np.random.default_rng(3), fleet="demo", requests=80, load=1.5)
    for spec in dualmap.SCHEDULERS:
        plans = [
            spec.make().schedule(instance, time_limit_s=60.0, rng=np.random.default_rng(0)).solution for _ in range(2)
        ]
        assert plans[0] == plans[1]
        assert isinstance(plans[0], RoutingPlan)
        assert check(instance, plans[0]) == []
