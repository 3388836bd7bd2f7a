"""The expert-cache environments: options, spaces, and the pieces that the family registers."""

from __future__ import annotations

import dataclasses
import inspect
import re

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from schedrl import vector
from schedrl.envs.memmap.family import FAMILY as MAPPING
from schedrl.envs.moe.cache_bounds import cache_bounds
from schedrl.envs.moe.cache_env import ExpertCacheEnv, ExpertCacheVectorEnv
from schedrl.envs.moe.cache_generators import CACHE_GENERATORS, mixtral_decode
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.envs.moe.cache_observation import FEATURES, most_edges, static_graph
from schedrl.envs.moe.cache_simulator import CacheSimulator
from schedrl.envs.moe.cache_solution import CacheSchedule, cache_objectives, check_cache
from schedrl.envs.moe.cache_suites import CACHE_SUITES
from schedrl.families import BenchmarkCase, Family
from schedrl.vector import ObservationMode

# The game as the family registers it, made from its pieces here.
FAMILY = dataclasses.replace(
    MAPPING,
    name="moe:cache",
    objective="decode_time",
    instance_type=ExpertCacheInstance,
    solution_type=CacheSchedule,
    features=FEATURES,
    static_graph=static_graph,
    most_edges=most_edges,
    make_simulator=CacheSimulator,
    check=check_cache,
    objectives=cache_objectives,
    bounds=cache_bounds,
    generators=CACHE_GENERATORS,
    suites=CACHE_SUITES,
    benchmark=BenchmarkCase(generator="mixtral-decode", size={}),
    pictures={},
)
SIZES: dict[str, dict[str, int]] = {
    "mixtral-decode": {"layers": 3, "tokens": 4},
    "zipf-decode": {"layers": 2, "tokens": 4},
    "arbitrary-cache": {},
}


@pytest.fixture(autouse=True)
def _family(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_family(name: str) -> Family:
        assert name == FAMILY.name
        return FAMILY

    monkeypatch.setattr(vector, "get_family", get_family)


def test_defaults_are_eight_layers_of_mixtral() -> None:
    env = ExpertCacheEnv()
    env.reset(seed=0)
    instance = env.episodes.instances[0]
    assert isinstance(instance, ExpertCacheInstance)
    assert (instance.steps, instance.capacity, instance.name[:14]) == (256, 32, "mixtral-decode")
    assert env.action_space.n == 32
    assert env.observation_space["candidate_features"].shape == (32, len(FEATURES.candidate))
    assert set(env.observation_space) == {"candidate_features", "context", "action_mask"}


def test_docstring_has_the_six_sections_and_the_true_feature_counts() -> None:
    doc = inspect.getdoc(ExpertCacheEnv) or ""
    sections = ["Observation", "Action", "Reward", "Termination", "Instances", "Render"]
    assert re.findall(r"^(\w+):$", doc, re.MULTILINE) == sections
    assert f"``candidate_features`` (C, {len(FEATURES.candidate)})" in doc
    assert f"``context`` ({len(FEATURES.context)},)" in doc


@pytest.mark.parametrize("mode", ["candidates", "encode-once", "full"])
@pytest.mark.filterwarnings("error::UserWarning")
def test_gymnasium_checker_accepts_the_environment(mode: ObservationMode) -> None:
    gym.register("test/ExpertCache-v0", ExpertCacheEnv)
    try:
        env = gym.make("test/ExpertCache-v0", observation=mode, size={"layers": 2, "tokens": 4}, window=8)
        check_env(env.unwrapped, skip_render_check=True)
    finally:
        del gym.registry["test/ExpertCache-v0"]


@pytest.mark.parametrize("generator", CACHE_GENERATORS)
def test_every_generator_feeds_episodes_to_their_end(generator: str) -> None:
    mode: ObservationMode = "candidates" if generator == "arbitrary-cache" else "full"
    env = ExpertCacheVectorEnv(4, generator=generator, size=SIZES[generator], observation=mode)
    observation, _ = env.reset(seed=1)
    rng, finished = np.random.default_rng(0), 0
    for _ in range(150):
        assert env.observation_space.contains(observation)
        action = (rng.random(4) * observation["action_mask"].sum(axis=1)).astype(np.int64)
        observation, _, _, truncated, infos = env.step(action)
        assert not truncated.any()
        for info in infos.get("final_info", []):
            if info is not None:
                finished += 1
                assert check_cache(info["instance"], info["solution"]) == []
                expected = cache_objectives(info["instance"], info["solution"])["decode_time"]
                assert info["decode_time"] == pytest.approx(expected, rel=1e-9)
                assert info["decode_time"] >= cache_bounds(info["instance"])[0].value * (1 - 1e-9)
    assert finished >= 8


def test_a_scalar_environment_equals_a_row_of_the_vector() -> None:
    instances = [make(np.random.default_rng(0), **SIZES[name]) for name, make in CACHE_GENERATORS.items()]
    vector = ExpertCacheVectorEnv(3, instances=instances)
    shared, _ = vector.reset(seed=0, options={"instances": instances})
    scalar = ExpertCacheEnv(instances=instances)
    own, _ = scalar.reset(seed=0, options={"instance": instances[1]})
    rng, terminated = np.random.default_rng(0), False
    while not terminated:
        for key in own:
            np.testing.assert_array_equal(own[key], shared[key][1])
        actions = (rng.random(3) * shared["action_mask"].sum(axis=1)).astype(np.int32)
        shared, reward, ended, _, _ = vector.step(actions)
        own, earned, terminated, _, _ = scalar.step(int(actions[1]))
        assert (earned, terminated) == (reward[1], ended[1])


def test_options_reach_the_simulator() -> None:
    instance = mixtral_decode(np.random.default_rng(0), layers=4, tokens=8)
    decisions = {}
    for prefetch in (False, True):
        for skip_forced in (False, True):
            env = ExpertCacheEnv(instances=[instance], window=5, prefetch=prefetch, skip_forced=skip_forced)
            _, info = env.reset(seed=0)
            widths, terminated = [], False
            while not terminated:
                widths.append(int(info["action_mask"].sum()))
                _, _, terminated, _, info = env.step(0)
            assert max(widths) <= 5 == len(info["action_mask"])
            assert min(widths) >= 2 or not skip_forced
            decisions[prefetch, skip_forced] = len(widths)
    assert decisions[True, True] > decisions[False, True]
