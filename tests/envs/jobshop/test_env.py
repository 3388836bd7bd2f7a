from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from schedrl.envs.jobshop.env import JobShopEnv, JobShopVectorEnv
from schedrl.envs.jobshop.family import FAMILY
from schedrl.envs.jobshop.generators import GENERATORS, uniform
from schedrl.envs.jobshop.observation import FEATURES
from schedrl.envs.jobshop.simulator import Generation
from schedrl.envs.jobshop.solution import check
from schedrl.graphs import batch_graphs


def test_defaults_are_uniform_ten_by_ten_shops() -> None:
    env = JobShopEnv()
    env.reset(seed=0)
    instance = env.episodes.instances[0]
    assert (instance.name, instance.operations) == ("uniform-10x10", 100)
    assert env.action_space.n == 10
    assert env.observation_space["candidate_features"].shape == (10, len(FEATURES.candidate))
    assert set(env.observation_space) == {"candidate_features", "context", "action_mask"}


def test_a_new_instance_is_drawn_for_every_episode() -> None:
    env = JobShopEnv(size={"jobs": 3, "machines": 3})
    env.reset(seed=0)
    first = env.episodes.instances[0]
    env.reset()
    assert env.episodes.instances[0] != first


@pytest.mark.parametrize("generator", GENERATORS)
def test_every_generator_feeds_episodes_to_their_end(generator: str) -> None:
    env = JobShopVectorEnv(4, generator=generator, size={"jobs": 4, "machines": 3})
    observation, _ = env.reset(seed=1)
    rng, finished = np.random.default_rng(0), 0
    for _ in range(120):
        action = (rng.random(4) * observation["action_mask"].sum(axis=1)).astype(np.int64)
        observation, _, _, truncated, infos = env.step(action)
        assert not truncated.any()
        for info in infos.get("final_info", []):
            if info is not None:
                finished += 1
                assert check(info["instance"], info["solution"]) == []
    assert finished >= 8


@pytest.mark.parametrize("generation", get_args(Generation))
@pytest.mark.parametrize("skip_forced", [False, True])
def test_options_reach_the_simulator(generation: Generation, skip_forced: bool) -> None:
    instance = uniform(np.random.default_rng(0), jobs=5, machines=4)
    env = JobShopEnv(instances=[instance], generation=generation, skip_forced=skip_forced)
    _, info = env.reset(seed=0)
    decisions, terminated = [], False
    while not terminated:
        decisions.append(int(info["action_mask"].sum()))
        _, _, terminated, _, info = env.step(decisions[-1] - 1)
    every = generation in ("semi-active", "left-shift")
    assert decisions[0] == 5 if every else decisions[0] < 5
    if skip_forced:
        assert min(decisions) >= 2
    else:
        assert len(decisions) == instance.operations


def test_encode_once_numbers_instances_and_points_at_their_nodes() -> None:
    instances = [uniform(np.random.default_rng(seed), jobs=3, machines=2) for seed in range(2)]
    env = JobShopVectorEnv(4, instances=instances, observation="encode-once")
    observation, _ = env.reset(seed=0)
    assert observation["instance"].ravel().tolist() == [0, 1, 0, 1]
    graphs = env.episodes.graphs.graphs([0, 1])
    for row in range(4):
        graph = graphs[row % 2]
        count = observation["action_mask"][row].sum()
        operation, machine = observation["candidates"][row, :count].T
        assert not graph.node_features[operation, 0].any()
        assert graph.node_features[machine, 0].all()


def test_full_observations_hold_the_padded_static_graph() -> None:
    small = uniform(np.random.default_rng(0), jobs=2, machines=2)
    large = uniform(np.random.default_rng(1), jobs=3, machines=3)
    env = JobShopVectorEnv(2, instances=[small, large], observation="full")
    observation, _ = env.reset(seed=0, options={"instances": [small, large]})
    for row, instance in enumerate((small, large)):
        graph = batch_graphs([FAMILY.static_graph(instance)])
        nodes, edges = observation["sizes"][row]
        assert (nodes, edges) == (len(graph.node_features), graph.edge_index.shape[1])
        np.testing.assert_array_equal(observation["node_features"][row, :nodes], graph.node_features)
        np.testing.assert_array_equal(observation["edge_index"][row, :, :edges], graph.edge_index)
        np.testing.assert_array_equal(observation["edge_type"][row, :edges], graph.edge_type)
        assert not observation["node_features"][row, nodes:].any()
        assert not observation["edge_index"][row, :, edges:].any()
