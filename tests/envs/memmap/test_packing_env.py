"""The packing environments: options, spaces, and the pieces that the family registers."""

from __future__ import annotations

import dataclasses
import inspect
import re

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from schedrl import vector
from schedrl.envs.memmap.bounds import bounds
from schedrl.envs.memmap.family import FAMILY as MAPPING
from schedrl.envs.memmap.packing import OffsetPackingInstance, check_packing
from schedrl.envs.memmap.packing_env import OffsetPackingEnv, OffsetPackingVectorEnv
from schedrl.envs.memmap.packing_generators import PACKING_GENERATORS, known_optimum
from schedrl.envs.memmap.packing_observation import FEATURES, most_edges, static_graph
from schedrl.envs.memmap.packing_simulator import PackingSimulator
from schedrl.envs.memmap.packing_suites import PACKING_SUITES
from schedrl.errors import ConfigError
from schedrl.families import BenchmarkCase, Family
from schedrl.vector import ObservationMode

# The game as the family registers it, made from its pieces here.
FAMILY = dataclasses.replace(
    MAPPING,
    name="memmap:packing",
    objective="peak",
    features=FEATURES,
    static_graph=static_graph,
    most_edges=most_edges,
    make_simulator=PackingSimulator,
    generators=PACKING_GENERATORS,
    suites=PACKING_SUITES,
    benchmark=BenchmarkCase(generator="known-optimum", size={"buffers": 200}),
)
SIZES = {name: {"layers": 4} if name == "training-step" else {"buffers": 20} for name in PACKING_GENERATORS}


@pytest.fixture(autouse=True)
def _family(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_family(name: str) -> Family:
        assert name == FAMILY.name
        return FAMILY

    monkeypatch.setattr(vector, "get_family", get_family)


def test_defaults_are_hundred_buffers_of_known_optimum() -> None:
    env = OffsetPackingEnv()
    env.reset(seed=0)
    instance = env.episodes.instances[0]
    assert isinstance(instance, OffsetPackingInstance)
    assert (instance.buffers, instance.name[:13]) == (100, "known-optimum")
    assert env.action_space.n == 32
    assert env.observation_space["candidate_features"].shape == (32, len(FEATURES.candidate))
    assert set(env.observation_space) == {"candidate_features", "context", "action_mask"}


def test_docstring_has_the_six_sections_and_the_true_feature_counts() -> None:
    doc = inspect.getdoc(OffsetPackingEnv) or ""
    sections = ["Observation", "Action", "Reward", "Termination", "Instances", "Render"]
    assert re.findall(r"^(\w+):$", doc, re.MULTILINE) == sections
    assert f"``candidate_features`` (C, {len(FEATURES.candidate)})" in doc
    assert f"``context`` ({len(FEATURES.context)},)" in doc


@pytest.mark.parametrize("mode", ["candidates", "encode-once", "full"])
@pytest.mark.filterwarnings("error::UserWarning")
def test_gymnasium_checker_accepts_the_environment(mode: ObservationMode) -> None:
    gym.register("test/OffsetPacking-v0", OffsetPackingEnv)
    try:
        env = gym.make("test/OffsetPacking-v0", observation=mode, size={"buffers": 12}, window=8)
        check_env(env.unwrapped, skip_render_check=True)
    finally:
        del gym.registry["test/OffsetPacking-v0"]


@pytest.mark.parametrize("generator", PACKING_GENERATORS)
def test_every_generator_feeds_episodes_to_their_end(generator: str) -> None:
    env = OffsetPackingVectorEnv(4, generator=generator, size=SIZES[generator], observation="full")
    observation, _ = env.reset(seed=1)
    rng, finished = np.random.default_rng(0), 0
    for _ in range(60):
        assert env.observation_space.contains(observation)
        action = (rng.random(4) * observation["action_mask"].sum(axis=1)).astype(np.int64)
        observation, _, _, truncated, infos = env.step(action)
        assert not truncated.any()
        for info in infos.get("final_info", []):
            if info is not None:
                finished += 1
                assert check_packing(info["instance"], info["solution"]) == []
                assert info["peak"] == float((info["solution"].offset + info["instance"].size).max())
                assert info["peak"] >= bounds(info["instance"])[0].value
    assert finished >= 8


def test_a_scalar_environment_equals_a_row_of_the_vector() -> None:
    instances = [make(np.random.default_rng(0), **SIZES[name]) for name, make in PACKING_GENERATORS.items()]
    vector = OffsetPackingVectorEnv(3, instances=instances)
    shared, _ = vector.reset(seed=0, options={"instances": instances})
    scalar = OffsetPackingEnv(instances=instances)
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
    instance = known_optimum(np.random.default_rng(0), buffers=30)
    env = OffsetPackingEnv(instances=[instance], window=5, ties="duration", skip_forced=skip_forced)
    _, info = env.reset(seed=0)
    widths, terminated = [], False
    while not terminated:
        widths.append(int(info["action_mask"].sum()))
        _, _, terminated, _, info = env.step(0)
    assert len(info["action_mask"]) == max(widths) == 5
    assert min(widths) >= 2 if skip_forced else len(widths) == 30
    with pytest.raises(ConfigError, match="ties: 'age'"):
        OffsetPackingEnv(instances=[instance], ties="age")
