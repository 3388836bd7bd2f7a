from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_dags import CANONICAL, PAIR

from schedrl.envs.socdag.env import SocDagEnv, SocDagVectorEnv
from schedrl.envs.socdag.family import FAMILY
from schedrl.envs.socdag.generators import GENERATORS, topcuoglu
from schedrl.envs.socdag.observation import FEATURES
from schedrl.envs.socdag.solution import check, objectives
from schedrl.graphs import batch_graphs

SMALL: dict[str, dict[str, Any]] = {
    "topcuoglu": {"tasks": 8, "devices": 3},
    "stream-3pe": {"jobs": 3},
    "stream-16pe": {"jobs": 2},
    "agentic": {"jobs": 2, "agents": 1, "rounds": 1},
}


def test_defaults_are_random_graphs_of_twenty_tasks_on_four_devices() -> None:
    env = SocDagEnv()
    env.reset(seed=0)
    instance = env.episodes.instances[0]
    assert instance.name == "topcuoglu-20x4"
    assert env.action_space.n == 8 * 4 + 1
    assert env.observation_space["candidate_features"].shape == (33, len(FEATURES.candidate)) == (33, 36)
    assert env.observation_space["context"].shape == (len(FEATURES.context),) == (22,)
    assert set(env.observation_space) == {"candidate_features", "context", "action_mask"}


def test_a_new_instance_is_drawn_for_every_episode() -> None:
    env = SocDagEnv(size={"tasks": 5, "devices": 2})
    env.reset(seed=0)
    first = env.episodes.instances[0]
    env.reset()
    assert env.episodes.instances[0] != first


@pytest.mark.parametrize("generator", SMALL)
def test_generators_feed_episodes_to_their_end(generator: str) -> None:
    assert generator in GENERATORS
    env = SocDagVectorEnv(2, generator=generator, size=SMALL[generator])
    observation, _ = env.reset(seed=1)
    rng, finished = np.random.default_rng(0), 0
    for _ in range(600):
        action = (rng.random(2) * observation["action_mask"].sum(axis=1)).astype(np.int64)
        observation, _, _, truncated, infos = env.step(action)
        assert not truncated.any()
        for info in infos.get("final_info", []):
            if info is not None:
                finished += 1
                assert check(info["instance"], info["solution"]) == []
        if finished >= 4:
            return
    pytest.fail(f"{finished} episodes ended in 600 steps")


@pytest.mark.parametrize(("mode", "window", "wait"), [("online", 2, True), ("online", 3, False), ("plan", 1, True)])
def test_options_reach_the_simulator(mode: Any, window: int, wait: bool) -> None:
    env = SocDagEnv(instances=[CANONICAL], mode=mode, window=window, wait=wait)
    _, info = env.reset(seed=0)
    assert env.action_space.n == 3 * window + 1
    counts, terminated, total = [], False, 0.0
    while not terminated:
        counts.append(int(info["action_mask"].sum()))
        _, reward, terminated, truncated, info = env.step(counts[-1] - 1)
        total += float(reward)
        assert not truncated
    assert max(counts) <= 3 * window + 1
    # The last slot is waiting where it is offered: with it, the episode is the longer for it.
    assert (len(counts) > CANONICAL.tasks) == (mode == "online" and wait)
    assert check(CANONICAL, info["solution"]) == []
    makespan = objectives(CANONICAL, info["solution"])["latency"]
    bound = float(CANONICAL.tables.graph_bound[0])
    work = float(CANONICAL.flat.duration.min(axis=1).sum()) / 3
    assert total == pytest.approx((bound - makespan) / max(bound, work), rel=1e-5)


def test_encode_once_numbers_instances_and_points_at_their_nodes() -> None:
    drawn = [topcuoglu(np.random.default_rng(seed), tasks=6, devices=2) for seed in range(2)]
    env = SocDagVectorEnv(4, instances=drawn, observation="encode-once")
    observation, _ = env.reset(seed=0)
    assert observation["instance"].ravel().tolist() == [0, 1, 0, 1]
    graphs = env.episodes.graphs.graphs([0, 1])
    for row in range(4):
        built = graphs[row % 2]
        tasks, devices = observation["candidates"][row, : observation["action_mask"][row].sum()].T
        assert not built.node_features[tasks, 0].any()
        assert built.node_features[devices, 0].all()


def test_full_observations_hold_the_padded_static_graph() -> None:
    env = SocDagVectorEnv(2, instances=[PAIR, CANONICAL], observation="full")
    observation, _ = env.reset(seed=0, options={"instances": [PAIR, CANONICAL]})
    for row, instance in enumerate((PAIR, CANONICAL)):
        built = batch_graphs([FAMILY.static_graph(instance)])
        nodes, edges = observation["sizes"][row]
        assert (nodes, edges) == (len(built.node_features), built.edge_index.shape[1])
        np.testing.assert_array_equal(observation["node_features"][row, :nodes], built.node_features)
        np.testing.assert_array_equal(observation["edge_index"][row, :, :edges], built.edge_index)
        np.testing.assert_array_equal(observation["edge_type"][row, :edges], built.edge_type)
        assert not observation["node_features"][row, nodes:].any()
        assert not observation["edge_index"][row, :, edges:].any()


def test_repeated_invalid_actions_truncate() -> None:
    env = SocDagEnv(instances=[PAIR])
    env.reset(seed=0)
    flags = [env.step(env.action_space.n - 1)[2:4] for _ in range(PAIR.tasks + 1)]
    assert flags == [(False, False)] * PAIR.tasks + [(False, True)]
