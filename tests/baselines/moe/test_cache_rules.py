"""Rules of expert caches on hand-worked traces, and every one of them against checker and bounds."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given

from schedrl.baselines.moe import cache_offline, cache_rules
from schedrl.baselines.moe.cache_rules import FrequencyProximity, HottestFirst, LeastFrequentlyUsed, NextLayerPrefetch
from schedrl.baselines.moe.cache_run import CacheRule, play_cache
from schedrl.envs.moe.cache_bounds import fewest_loads
from schedrl.envs.moe.cache_generators import mixtral_decode
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.envs.moe.cache_simulator import CacheSimulator
from schedrl.envs.moe.cache_solution import CacheSchedule, cache_objectives, check_cache
from schedrl.envs.moe.cache_suites import CACHE_SUITES
from schedrl.schedulers import Result
from tests.envs.moe.small_caches import cache_of, caches

SPECS = {spec.name: spec for spec in (*cache_rules.SCHEDULERS, *cache_offline.SCHEDULERS)}
CLAIRVOYANT = {"moe/belady", "moe/pregated-prefetch", "moe/belady-prefetch"}


def run(name: str, instance: ExpertCacheInstance) -> tuple[Result, CacheSchedule]:
    result = SPECS[name].make().schedule(instance, time_limit_s=5.0, rng=np.random.default_rng(0))
    assert isinstance(result.solution, CacheSchedule)
    return result, result.solution


def test_names_and_information() -> None:
    online = {"lru", "lfu", "hottest-first", "frequency-proximity", "lru-prefetch", "lru-likely-prefetch"}
    assert set(SPECS) == {f"moe/{name}" for name in online} | CLAIRVOYANT
    for name, spec in SPECS.items():
        assert spec.information == ("clairvoyant" if name in CLAIRVOYANT else "online")
        assert spec.problem == "decode_time" and spec.summary and spec.source


@given(caches())
def test_every_schedule_of_every_rule_passes_the_checker(instance: ExpertCacheInstance) -> None:
    for name in SPECS:
        result, schedule = run(name, instance)
        assert check_cache(instance, schedule) == [], name
        assert result.objective == pytest.approx(cache_objectives(instance, schedule)["decode_time"], rel=1e-12), name
        assert result.lower_bound is not None and result.lower_bound <= result.objective, name
        assert (result.status == "optimal") == (result.objective <= result.lower_bound * (1 + 1e-9)), name


@given(caches())
def test_online_rules_do_not_look_ahead(instance: ExpertCacheInstance) -> None:
    """The same trace cut short is served the same way up to the cut, but for loads ahead of what is missing."""
    cut = (instance.steps + 1) // 2
    short = ExpertCacheInstance(
        name="short",
        experts=instance.experts,
        capacity=instance.capacity,
        token=instance.token[:cut],
        layer=instance.layer[:cut],
        requests=instance.requests[:cut],
        compute_s=instance.compute_s,
        expert_bytes=instance.expert_bytes,
        host_bytes_per_s=instance.host_bytes_per_s,
        initial=instance.initial,
    )
    for name in SPECS.keys() - CLAIRVOYANT:
        whole, part = run(name, instance)[1], run(name, short)[1]
        assert part.compute_start_s.tolist() == whole.compute_start_s[:cut].tolist(), name


@given(caches())
def test_belady_makes_the_fewest_loads(instance: ExpertCacheInstance) -> None:
    loads = {name: len(run(name, instance)[1].load_expert) for name in SPECS}
    assert loads["moe/belady"] == fewest_loads(instance) == min(loads.values())


# Loads of 2 s and computations of 1 s, room for two of four experts.
def leaving(rule: CacheRule, instance: ExpertCacheInstance) -> list[int]:
    return play_cache(instance, rule).evict_expert.tolist()


def test_who_leaves_on_a_worked_trace() -> None:
    instance = cache_of([[0], [0], [1], [2], [0], [1]], capacity=2)
    # For 2, the oldest is 0 and the rarest is 1. LRU then misses 0 and 1 again.
    assert leaving(CacheRule(instance), instance) == [-1, -1, 0, 1, 2]
    assert leaving(LeastFrequentlyUsed(instance), instance) == [-1, -1, 1, 2]
    # Heats at request 3 (decay 7/8): 0 was needed twice before two visits, 1 once before one.
    assert leaving(HottestFirst(instance), instance) == [-1, -1, 1, 2]
    # Neither 0 nor 2 is needed again when 1 comes back.
    assert leaving(cache_offline.Belady(instance), instance) == [-1, -1, 1, 0]
    assert run("moe/lru", instance)[0].objective == 16.0
    assert run("moe/belady", instance)[0].objective == 14.0


def test_nearness_of_the_next_turn_counts() -> None:
    # Two layers: at layer 0, an expert of layer 1 is needed sooner than one of layer 0 with the same heat.
    instance = cache_of([[0], [0], [1]], capacity=2, layers=2, experts=2)
    assert instance.needed.tolist() == [[0], [2], [1]]
    assert leaving(FrequencyProximity(instance), instance) == [-1, -1, 0]


def test_queue_by_heat() -> None:
    instance = cache_of([[3], [3], [1], [0, 2], [1, 3]], capacity=2)
    assert play_cache(instance, HottestFirst(instance)).load_expert.tolist() == [3, 1, 0, 2, 3, 1]
    assert play_cache(instance, CacheRule(instance)).load_expert.tolist() == [3, 1, 0, 2, 1, 3]


def test_what_followed_is_loaded_ahead() -> None:
    # Layer 0 needs 0, layer 1 needs 3, three times over, with room for one expert of each layer but 1 in between.
    instance = cache_of([[0], [1]] * 3, capacity=1, layers=2, experts=2, compute_s=np.array([3.0, 3.0]))
    assert play_cache(instance, NextLayerPrefetch(instance)) == play_cache(instance, CacheRule(instance))
    roomy = cache_of([[0], [1], [1], [1], [0], [1]], capacity=2, layers=2, experts=2, compute_s=np.array([3.0, 3.0]))
    assert roomy.needed.ravel().tolist() == [0, 3, 1, 3, 0, 3]
    plain, ahead = (play_cache(roomy, rule) for rule in (CacheRule(roomy), NextLayerPrefetch(roomy)))
    # After 3 came 1 once: during request 3 it is there already; 0 is not guessed. Nothing differs.
    assert plain.load_expert.tolist() == [0, 3, 1, 0]
    assert ahead.load_expert.tolist()[:3] == [0, 3, 1]
    # All of the clairvoyant's loads but the first hide behind computations.
    exact = run("moe/pregated-prefetch", roomy)[0]
    assert exact.objective == 2.0 + 6 * 3.0 and exact.status == "optimal"
    assert run("moe/belady", roomy)[0].objective == 2.0 + 6 * 3.0 + 3 * 2.0


def test_rules_are_in_their_order_on_decoding() -> None:
    total = dict.fromkeys(SPECS, 0.0)
    for seed in range(4):
        instance = mixtral_decode(np.random.default_rng(seed))
        for name in SPECS:
            result = run(name, instance)[0]
            assert result.objective is not None and result.lower_bound is not None
            total[name] += result.objective / result.lower_bound / 4
    assert total["moe/belady-prefetch"] < 1.1 < total["moe/pregated-prefetch"] < total["moe/belady"] < 1.8
    online = [total[f"moe/{name}"] for name in ("frequency-proximity", "hottest-first", "lfu", "lru")]
    assert online == sorted(online) and online[0] > 2.6


@given(caches())
def test_the_game_without_loads_ahead_plays_lru(instance: ExpertCacheInstance) -> None:
    """Its first slot is always the expert used longest ago, so that always slot 0 is the rule."""
    simulator = CacheSimulator([instance], 1, prefetch=False)
    reward, done = np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.bool_)
    while not done[0]:
        simulator.step(np.zeros(1, dtype=np.int32), reward, done)
    assert simulator.objective(0) == pytest.approx(run("moe/lru", instance)[0].objective, rel=1e-9)


@pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no routes to read")
def test_real_routes() -> None:
    for entry in CACHE_SUITES["cache-routes"].load():
        assert isinstance(entry.instance, ExpertCacheInstance)
        if entry.instance.experts == 64:
            continue  # the longer ones take ten seconds
        found = {name: run(f"moe/{name}", entry.instance) for name in ("lru", "lfu", "belady")}
        loads = {name: len(schedule.load_expert) for name, (_, schedule) in found.items()}
        assert loads["belady"] == fewest_loads(entry.instance) < min(loads["lru"], loads["lfu"])
        assert check_cache(entry.instance, found["lfu"][1]) == []
