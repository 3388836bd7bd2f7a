"""The migration environments: options, spaces, and whole episodes."""

from __future__ import annotations

import dataclasses
import inspect
import re

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from schedrl import vector
from schedrl.envs.routing.family import FAMILY
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.migration_env import GAME, RequestMigrationEnv, RequestMigrationVectorEnv
from schedrl.envs.routing.migration_observation import FEATURES
from schedrl.envs.routing.migration_simulator import MigrationSimulator
from schedrl.envs.routing.replay import check
from schedrl.envs.routing.solution import objectives
from schedrl.errors import ConfigError
from schedrl.families import Family
from schedrl.vector import ObservationMode
from tests.envs.routing.small_fleets import random_instance

# The game as the family registers it, made from its pieces here.
GAME_FAMILY = dataclasses.replace(FAMILY, name=GAME, features=FEATURES, make_simulator=MigrationSimulator, games={})


@pytest.fixture(autouse=True)
def _family(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_family(name: str) -> Family:
        assert name == GAME
        return GAME_FAMILY

    monkeypatch.setattr(vector, "get_family", get_family)


def test_docstring_has_the_six_sections_and_the_true_feature_counts() -> None:
    doc = inspect.getdoc(RequestMigrationEnv) or ""
    sections = ["Observation", "Action", "Reward", "Termination", "Instances", "Render"]
    assert re.findall(r"^(\w+):$", doc, re.MULTILINE) == sections
    assert f"``candidate_features`` (C, {len(FEATURES.candidate)})" in doc
    assert f"``context`` ({len(FEATURES.context)},)" in doc


def test_defaults_are_mixed_requests_on_a_heterogeneous_fleet() -> None:
    env = RequestMigrationEnv()
    env.reset(seed=0)
    instance = env.episodes.instances[0]
    assert isinstance(instance, RoutingInstance)
    assert (instance.requests, len(instance.fleet)) == (200, 8)
    assert env.action_space.n == 32
    assert env.observation_space["candidate_features"].shape == (32, 26)
    assert set(env.observation_space) == {"candidate_features", "context", "action_mask"}


@pytest.mark.parametrize("mode", ["candidates", "encode-once", "full"])
@pytest.mark.filterwarnings("error::UserWarning")
def test_gymnasium_checker_accepts_the_environment(mode: ObservationMode) -> None:
    gym.register("test/RequestMigrationEnv-v0", RequestMigrationEnv)
    try:
        env = gym.make("test/RequestMigrationEnv-v0", observation=mode, size={"requests": 30})
        check_env(env.unwrapped, skip_render_check=True)
    finally:
        del gym.registry["test/RequestMigrationEnv-v0"]


def test_arbitrary_instances_feed_episodes_to_their_end() -> None:
    instances = [random_instance(seed, requests=12) for seed in range(8)]
    env = RequestMigrationVectorEnv(4, instances=instances, observation="full")
    observation, _ = env.reset(seed=1)
    rng, finished = np.random.default_rng(0), 0
    for _ in range(200):
        assert env.observation_space.contains(observation)
        action = (rng.random(4) * observation["action_mask"].sum(axis=1)).astype(np.int64)
        observation, _, _, truncated, infos = env.step(action)
        assert not truncated.any()
        for info in infos.get("final_info", []):
            if info is not None:
                finished += 1
                assert check(info["instance"], info["solution"]) == []
                expected = objectives(info["instance"], info["solution"])["penalty"]
                assert info["penalty"] == pytest.approx(expected, rel=1e-9)
    assert finished >= 8


def test_a_scalar_environment_equals_a_row_of_the_vector() -> None:
    instances = [random_instance(seed, requests=12) for seed in range(3)]
    shared_env = RequestMigrationVectorEnv(3, instances=instances)
    shared, _ = shared_env.reset(seed=0, options={"instances": instances})
    scalar = RequestMigrationEnv(instances=instances)
    own, _ = scalar.reset(seed=0, options={"instance": instances[1]})
    rng, terminated = np.random.default_rng(0), False
    while not terminated:
        for key in own:
            np.testing.assert_array_equal(own[key], shared[key][1])
        actions = (rng.random(3) * shared["action_mask"].sum(axis=1)).astype(np.int32)
        shared, reward, ended, _, _ = shared_env.step(actions)
        own, earned, terminated, _, _ = scalar.step(int(actions[1]))
        assert (earned, terminated) == (reward[1], ended[1])


def test_options_reach_the_simulator() -> None:
    instance = random_instance(1, requests=24)
    decisions = []
    for period_s in (0.01, 1.0):
        env = RequestMigrationEnv(instances=[instance], rule="round-robin", period_s=period_s, most_moves=2, exact=True)
        env.reset(seed=0)
        terminated, count = False, 0
        while not terminated:
            _, _, terminated, _, info = env.step(0)
            count += 1
        decisions.append(count)
        assert info["solution"].page_tokens == 16
    assert decisions[0] > decisions[1]
    with pytest.raises(ConfigError, match="period_s: -1"):
        RequestMigrationEnv(instances=[instance], period_s=-1)
