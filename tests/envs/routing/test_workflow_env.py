"""The workflow environments: options, spaces, and whole episodes."""

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
from schedrl.envs.routing.observation import FEATURES
from schedrl.envs.routing.replay import check
from schedrl.envs.routing.solution import objectives
from schedrl.envs.routing.workflow_env import GAME, WorkflowRoutingEnv, WorkflowRoutingVectorEnv
from schedrl.families import Family
from schedrl.vector import ObservationMode
from tests.envs.routing.small_fleets import random_instance

# The game as the family registers it, made from its pieces here.
GAME_FAMILY = dataclasses.replace(FAMILY, name=GAME, games={})


@pytest.fixture(autouse=True)
def _family(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_family(name: str) -> Family:
        assert name == GAME
        return GAME_FAMILY

    monkeypatch.setattr(vector, "get_family", get_family)


def test_docstring_has_the_six_sections_and_the_true_feature_counts() -> None:
    doc = inspect.getdoc(WorkflowRoutingEnv) or ""
    sections = ["Observation", "Action", "Reward", "Termination", "Instances", "Render"]
    assert re.findall(r"^(\w+):$", doc, re.MULTILINE) == sections
    assert f"``candidate_features`` (C, {len(FEATURES.candidate)})" in doc
    assert f"``context`` ({len(FEATURES.context)},)" in doc


def test_defaults_are_programs_of_agents_with_deadlines() -> None:
    env = WorkflowRoutingEnv()
    env.reset(seed=0)
    instance = env.episodes.instances[0]
    assert isinstance(instance, RoutingInstance)
    assert (instance.requests, len(instance.fleet)) == (200, 8)
    assert np.isfinite(instance.deadline_s).any()
    assert len(instance.after) > 0
    assert instance.programs < instance.requests
    assert env.action_space.n == 8


@pytest.mark.parametrize("mode", ["candidates", "encode-once", "full"])
@pytest.mark.filterwarnings("error::UserWarning")
def test_gymnasium_checker_accepts_the_environment(mode: ObservationMode) -> None:
    gym.register("test/WorkflowRoutingEnv-v0", WorkflowRoutingEnv)
    try:
        env = gym.make("test/WorkflowRoutingEnv-v0", observation=mode, size={"requests": 30})
        check_env(env.unwrapped, skip_render_check=True)
    finally:
        del gym.registry["test/WorkflowRoutingEnv-v0"]


def test_arbitrary_instances_feed_episodes_to_their_end() -> None:
    instances = [random_instance(seed, requests=12) for seed in range(8)]
    env = WorkflowRoutingVectorEnv(4, instances=instances, observation="full")
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
    shared_env = WorkflowRoutingVectorEnv(3, instances=instances)
    shared, _ = shared_env.reset(seed=0, options={"instances": instances})
    scalar = WorkflowRoutingEnv(instances=instances)
    own, _ = scalar.reset(seed=0, options={"instance": instances[1]})
    rng, terminated = np.random.default_rng(0), False
    while not terminated:
        for key in own:
            np.testing.assert_array_equal(own[key], shared[key][1])
        actions = (rng.random(3) * shared["action_mask"].sum(axis=1)).astype(np.int32)
        shared, reward, ended, _, _ = shared_env.step(actions)
        own, earned, terminated, _, _ = scalar.step(int(actions[1]))
        assert (earned, terminated) == (reward[1], ended[1])


def test_an_episode_pays_for_deadlines_and_can_hold_requests() -> None:
    env = WorkflowRoutingEnv(size={"requests": 60}, hold_s=0.05)
    _, info = env.reset(seed=3)
    assert env.action_space.n == len(env.episodes.instances[0].fleet) + 1
    terminated, total = False, 0.0
    while not terminated:
        _, reward, terminated, _, info = env.step(0)
        total += float(reward)
    assert -total == pytest.approx(objectives(info["instance"], info["solution"])["penalty"], rel=1e-5)
