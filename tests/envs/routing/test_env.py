"""The routing environments: options, spaces, and episodes that pass the checker."""

from __future__ import annotations

import inspect
import re

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import schedrl  # noqa: F401  registers the environments
from schedrl.envs.routing.env import RequestRoutingEnv, RequestRoutingVectorEnv
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.observation import FEATURES
from schedrl.envs.routing.replay import check
from schedrl.envs.routing.solution import objectives
from schedrl.errors import ConfigError
from schedrl.vector import ObservationMode
from tests.envs.routing.small_fleets import random_instance, server_of, workload_of

SIZE = {"requests": 12, "fleet": "heterogeneous"}


def test_defaults_are_a_heterogeneous_fleet() -> None:
    env = RequestRoutingEnv()
    env.reset(seed=0)
    instance = env.episodes.instances[0]
    assert isinstance(instance, RoutingInstance)
    assert len({serving.device for serving in instance.fleet}) > 1
    assert set(env.observation_space) == {"candidate_features", "context", "action_mask"}
    assert env.observation_space["candidate_features"].shape == (env.action_space.n, len(FEATURES.candidate))


def test_docstring_has_the_six_sections_and_the_true_feature_counts() -> None:
    doc = inspect.getdoc(RequestRoutingEnv) or ""
    sections = ["Observation", "Action", "Reward", "Termination", "Instances", "Render"]
    assert re.findall(r"^(\w+):$", doc, re.MULTILINE) == sections
    assert f"``candidate_features`` (C, {len(FEATURES.candidate)})" in doc
    assert f"``context`` ({len(FEATURES.context)},)" in doc


@pytest.mark.parametrize("mode", ["candidates", "encode-once", "full"])
@pytest.mark.filterwarnings("error::UserWarning")
def test_gymnasium_checker_accepts_the_environment(mode: ObservationMode) -> None:
    env = gym.make("schedrl/RequestRouting-v0", observation=mode, size=SIZE)
    check_env(env.unwrapped, skip_render_check=True)


def test_arbitrary_instances_feed_episodes_to_their_end() -> None:
    instances = [random_instance(seed) for seed in range(12)]
    env = RequestRoutingVectorEnv(4, instances=instances, observation="full")
    observation, _ = env.reset(seed=1)
    rng, finished = np.random.default_rng(0), 0
    for _ in range(120):
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
    instances = [random_instance(seed) for seed in range(3)]
    vector = RequestRoutingVectorEnv(3, instances=instances)
    shared, _ = vector.reset(seed=0, options={"instances": instances})
    scalar = RequestRoutingEnv(instances=instances)
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
    instance = workload_of([(0.0, 20, 3)], [server_of("a"), server_of("b")])
    env = RequestRoutingEnv(instances=[instance], exact=True, hold_s=0.5)
    observation, _ = env.reset(seed=0)
    assert env.action_space.n == 3 and observation["action_mask"].tolist() == [1, 1, 1]
    env.step(2)
    _, reward, terminated, _, info = env.step(0)
    assert terminated and info["solution"].page_tokens == 16
    assert info["solution"].dispatch_s.tolist() == [0.5]
    # First token after 1.5 s of 5 s: half of 1.5 / 6.5.
    assert reward == pytest.approx(-0.5 * 1.5 / 6.5)
    with pytest.raises(ConfigError, match=r"hold_s: -1\.0, expected a time of at least 0"):
        RequestRoutingEnv(instances=[instance], hold_s=-1.0)
