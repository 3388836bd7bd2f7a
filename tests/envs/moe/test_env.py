"""The placement environments: options, spaces, and the pieces that the family registers."""

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
from schedrl.envs.moe.env import ExpertPlacementEnv, ExpertPlacementVectorEnv
from schedrl.envs.moe.generators import GENERATORS
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.observation import FEATURES, most_edges, static_graph
from schedrl.envs.moe.simulator import Simulator
from schedrl.envs.moe.solution import ExpertPlan, check_plan, plan_objectives
from schedrl.errors import ConfigError
from schedrl.families import Family
from schedrl.vector import ObservationMode
from tests.envs.moe.small_placements import handmade, random_instance

# The game as the family registers it, made from its pieces here.
FAMILY = dataclasses.replace(
    MAPPING,
    name="moe",
    objective="total_time",
    instance_type=ExpertPlacementInstance,
    solution_type=ExpertPlan,
    features=FEATURES,
    static_graph=static_graph,
    most_edges=most_edges,
    make_simulator=Simulator,
    generators=GENERATORS,
    check=check_plan,
    objectives=plan_objectives,
    games={},
)


@pytest.fixture(autouse=True)
def _family(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_family(name: str) -> Family:
        assert name == FAMILY.name
        return FAMILY

    monkeypatch.setattr(vector, "get_family", get_family)


def test_defaults_are_four_layers_of_mixtral() -> None:
    env = ExpertPlacementEnv()
    env.reset(seed=0)
    instance = env.episodes.instances[0]
    assert isinstance(instance, ExpertPlacementInstance)
    assert (instance.layers, instance.experts, instance.name[:7]) == (4, 8, "mixtral")
    assert env.action_space.n == 8
    assert env.observation_space["candidate_features"].shape == (8, len(FEATURES.candidate))
    assert set(env.observation_space) == {"candidate_features", "context", "action_mask"}


def test_docstring_has_the_six_sections_and_the_true_feature_counts() -> None:
    doc = inspect.getdoc(ExpertPlacementEnv) or ""
    sections = ["Observation", "Action", "Reward", "Termination", "Instances", "Render"]
    assert re.findall(r"^(\w+):$", doc, re.MULTILINE) == sections
    assert f"``candidate_features`` (C, {len(FEATURES.candidate)})" in doc
    assert f"``context`` ({len(FEATURES.context)},)" in doc


@pytest.mark.parametrize("mode", ["candidates", "encode-once", "full"])
@pytest.mark.filterwarnings("error::UserWarning")
def test_gymnasium_checker_accepts_the_environment(mode: ObservationMode) -> None:
    gym.register("test/ExpertPlacement-v0", ExpertPlacementEnv)
    try:
        env = gym.make("test/ExpertPlacement-v0", observation=mode, size={"layers": 2}, window=4)
        check_env(env.unwrapped, skip_render_check=True)
    finally:
        del gym.registry["test/ExpertPlacement-v0"]


def test_arbitrary_instances_feed_episodes_to_their_end() -> None:
    instances = [random_instance(seed) for seed in range(12)]
    env = ExpertPlacementVectorEnv(4, instances=instances, observation="full")
    observation, _ = env.reset(seed=1)
    rng, finished = np.random.default_rng(0), 0
    for _ in range(80):
        assert env.observation_space.contains(observation)
        action = (rng.random(4) * observation["action_mask"].sum(axis=1)).astype(np.int64)
        observation, _, _, truncated, infos = env.step(action)
        assert not truncated.any()
        for info in infos.get("final_info", []):
            if info is not None:
                finished += 1
                assert check_plan(info["instance"], info["solution"]) == []
                expected = plan_objectives(info["instance"], info["solution"])["total_time"]
                assert info["total_time"] == pytest.approx(expected, rel=1e-9)
    assert finished >= 8


def test_a_scalar_environment_equals_a_row_of_the_vector() -> None:
    instances = [random_instance(seed) for seed in range(3)]
    vector = ExpertPlacementVectorEnv(3, instances=instances)
    shared, _ = vector.reset(seed=0, options={"instances": instances})
    scalar = ExpertPlacementEnv(instances=instances)
    own, _ = scalar.reset(seed=0, options={"instance": instances[1]})
    rng, terminated = np.random.default_rng(0), False
    while not terminated:
        for key in own:
            np.testing.assert_array_equal(own[key], shared[key][1])
        actions = (rng.random(3) * shared["action_mask"].sum(axis=1)).astype(np.int32)
        shared, reward, ended, _, _ = vector.step(actions)
        own, earned, terminated, _, _ = scalar.step(int(actions[1]))
        assert (earned, terminated) == (reward[1], ended[1])


@pytest.mark.parametrize("skip_forced", [False, True])
def test_options_reach_the_simulator(skip_forced: bool) -> None:
    instance = handmade([[list(range(1, 13))] * 2], [3] * 4)
    env = ExpertPlacementEnv(instances=[instance], window=3, z=0.5, skip_forced=skip_forced)
    _, info = env.reset(seed=0)
    widths, terminated = [], False
    while not terminated:
        widths.append(int(info["action_mask"].sum()))
        _, _, terminated, _, info = env.step(0)
    assert len(info["action_mask"]) == max(widths) == 3
    assert min(widths) >= 2 if skip_forced else len(widths) == 24
    with pytest.raises(ConfigError, match=r"z: 11, expected 0 to 10"):
        ExpertPlacementEnv(instances=[instance], z=11)
