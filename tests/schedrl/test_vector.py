from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import schedrl
from schedrl.envs.jobshop.env import JobShopEnv, JobShopVectorEnv
from schedrl.envs.jobshop.family import FAMILY
from schedrl.envs.jobshop.generators import uniform
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import check
from schedrl.envs.socdag.env import SocDagVectorEnv
from schedrl.envs.socdag.generators import topcuoglu
from schedrl.errors import ConfigError

TWO_BY_TWO = JobShopInstance.from_jobs([[(0, 3), (1, 2)], [(0, 1), (1, 4)]], name="two")
ONE_MACHINE = JobShopInstance.from_jobs([[(0, 5)], [(0, 7)], [(0, 1)]], name="one")


def test_importing_the_package_registers_once_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, schedrl, gymnasium; assert 'schedrl/JobShop-v0' in gymnasium.registry; "
        "heavy = {'torch', 'numba', 'ortools', 'matplotlib', 'stable_baselines3'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # gymnasium warns when an id is registered twice
        importlib.reload(schedrl)
    assert schedrl.__version__[0].isdigit()


def test_the_package_imports_where_gymnasium_is_missing() -> None:
    code = "import sys; sys.modules['gymnasium'] = None; sys.modules['gymnasium.envs'] = None; import schedrl"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_same_step_autoreset_shows_the_last_observation_of_the_old_episode_and_the_first_of_the_new() -> None:
    env = JobShopVectorEnv(2, instances=[TWO_BY_TWO, ONE_MACHINE], skip_forced=False)
    observation, infos = env.reset(seed=0, options={"instances": [TWO_BY_TWO, ONE_MACHINE]})
    assert infos == {}
    for _ in range(3):
        first = observation
        observation, _, terminated, truncated, infos = env.step(np.zeros(2, dtype=np.int64))
    # Three operations of ONE_MACHINE are done, TWO_BY_TWO has one left.
    assert terminated.tolist() == [False, True]
    assert truncated.tolist() == [False, False]
    assert infos["_final_obs"].tolist() == infos["_final_info"].tolist() == [False, True]
    assert infos["final_obs"][0] is None
    assert infos["final_obs"][1]["action_mask"].tolist() == [0, 0, 0]
    assert infos["final_obs"][1]["context"][0] == 1.0
    assert infos["final_info"][1]["makespan"] == 13.0
    assert check(ONE_MACHINE, infos["final_info"][1]["solution"]) == []
    assert observation["action_mask"][1].sum() >= 1
    assert observation["context"][1, 0] == 0.0
    assert first["context"][1, 0] == pytest.approx(2 / 3), "step overwrote an observation it had returned"


def test_returned_arrays_are_copies() -> None:
    env = JobShopVectorEnv(2, instances=[TWO_BY_TWO], observation="full")
    before, _ = env.reset(seed=0)
    kept = {key: value.copy() for key, value in before.items()}
    for _ in range(8):
        env.step(np.zeros(2, dtype=np.int64))
    for key, value in kept.items():
        np.testing.assert_array_equal(before[key], value, err_msg=key)


def test_arrays_of_advance_survive_the_next_step_in_every_mode() -> None:
    # SB3 stores an observation after the step that follows it.
    instances = [TWO_BY_TWO, ONE_MACHINE, uniform(np.random.default_rng(0), jobs=3, machines=2)]
    env = JobShopVectorEnv(2, instances=instances, observation="full")
    observation, _ = env.reset(seed=0)
    for _ in range(30):
        kept = {key: value.copy() for key, value in observation.items()}
        following, _ = env.advance(np.zeros(2, dtype=np.int32))
        for key, value in kept.items():
            np.testing.assert_array_equal(observation[key], value, err_msg=key)
        observation = following


def test_repeated_invalid_actions_change_nothing_and_truncate() -> None:
    env = JobShopEnv(instances=[TWO_BY_TWO, ONE_MACHINE], skip_forced=False)
    first, _ = env.reset(seed=0)
    invalid = int(first["action_mask"].sum())
    for attempt in range(1, 6):
        observation, reward, terminated, truncated, info = env.step(invalid)
        assert (reward, terminated, truncated) == (0.0, False, attempt > TWO_BY_TWO.operations)
        for key in first:
            np.testing.assert_array_equal(observation[key], first[key])
    assert info["invalid_actions"] == 5
    assert "solution" not in info


def test_a_truncated_row_restarts_and_says_so() -> None:
    env = JobShopVectorEnv(1, instances=[TWO_BY_TWO, ONE_MACHINE])
    env.reset(seed=0, options={"instances": [TWO_BY_TWO]})
    for _ in range(5):
        observation, _, terminated, truncated, infos = env.step(np.array([2]))
    assert (terminated.tolist(), truncated.tolist()) == ([False], [True])
    assert infos["final_info"][0] == {"invalid_actions": 5}
    assert env.episodes.simulator.invalid[0] == 0
    assert observation["action_mask"].sum() >= 1


def test_fixed_instances_come_in_turn_and_restart_with_the_seed() -> None:
    env = JobShopEnv(instances=[TWO_BY_TWO, ONE_MACHINE])
    names = []
    for seed in (0, None, None, 0):
        env.reset(seed=seed)
        names.append(env.episodes.instances[0].name)
    assert names == ["two", "one", "two", "two"]


def test_the_last_info_holds_objective_solution_and_instance() -> None:
    env = gym.make("schedrl/JobShop-v0", instances=[TWO_BY_TWO])
    _, info = env.reset(seed=0)
    total, terminated = 0.0, False
    while not terminated:
        _, reward, terminated, _, info = env.step(np.int64(np.flatnonzero(info["action_mask"])[0]))
        total += reward
    # Job 0 first: machine 0 is busy 0..3 and 3..4, machine 1 3..5 and 5..9; the bound is max(5, 5, 4, 6) = 6.
    assert info["makespan"] == 9.0
    assert info["instance"] is TWO_BY_TWO
    assert info["solution"].start_time.tolist() == [0, 3, 3, 5]
    assert total == pytest.approx((6 - 9) / 6)


def test_options_that_do_not_fit_are_refused_in_one_line() -> None:
    env = JobShopVectorEnv(2, instances=[TWO_BY_TWO])
    with pytest.raises(ConfigError, match=r"options\['instances'\]: 1 instances for 2 environments"):
        env.reset(options={"instances": [TWO_BY_TWO]})
    with pytest.raises(ConfigError, match="instance one has"):
        env.reset(options={"instances": [ONE_MACHINE, TWO_BY_TWO]})
    with pytest.raises(ConfigError, match="observation: 'graph', expected one of candidates, encode-once, full"):
        JobShopEnv(observation="graph")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="generator: 'lawrence', expected one of uniform"):
        JobShopEnv(generator="lawrence")
    with pytest.raises(ConfigError, match="instances: empty"):
        JobShopEnv(instances=[])


def test_full_observations_refuse_a_graph_without_room() -> None:
    chain = JobShopInstance.from_jobs([[(0, 1), (1, 1), (0, 1), (1, 1), (0, 1), (1, 1)]], name="chain")
    env = JobShopEnv(instances=[TWO_BY_TWO], observation="full")
    with pytest.raises(ConfigError, match=r"observation 'full': .* room for"):
        env.reset(options={"instance": chain})


def test_vector_environments_come_from_make_vec() -> None:
    env = gym.make_vec("schedrl:schedrl/JobShop-v0", num_envs=3, vectorization_mode="vector_entry_point")
    assert isinstance(env, JobShopVectorEnv)
    assert env.num_envs == 3
    default = gym.make_vec("schedrl/JobShop-v0", num_envs=2, instances=[TWO_BY_TWO])
    assert isinstance(default, JobShopVectorEnv), "the batched class is the default"
    several = gym.make_vec("schedrl/JobShop-v0", num_envs=2, vectorization_mode="sync", instances=[TWO_BY_TWO])
    observation, _ = several.reset(seed=0)
    assert observation["action_mask"].tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("batched", [False, True])
def test_plain_maskable_ppo_trains_out_of_the_box(batched: bool) -> None:
    import torch
    from sb3_contrib import MaskablePPO

    from schedrl.training.sb3_env import SchedulingVecEnv

    size = {"jobs": 4, "machines": 3}
    env: Any = SchedulingVecEnv(JobShopVectorEnv(4, size=size)) if batched else JobShopEnv(size=size)
    torch.set_num_threads(1)
    steps = 512 // (4 if batched else 1)
    model = MaskablePPO("MultiInputPolicy", env, n_steps=steps, batch_size=256, n_epochs=1, seed=0)
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.learn(512)
    assert model.num_timesteps == 512
    assert any((now != then).any() for now, then in zip(model.policy.parameters(), before, strict=True))
    assert len(model.ep_info_buffer or ()) > 10
    assert all(-3.0 < episode["r"] <= 0.0 for episode in model.ep_info_buffer or ())


def test_padded_graphs_have_room_for_every_graph_of_a_size() -> None:
    # Random graphs of one size differ in their edges; the first one drawn may be the smallest.
    env = SocDagVectorEnv(2, generator="topcuoglu", size={"tasks": 6, "devices": 2}, observation="full")
    room = env.observation_space["edge_type"].shape[1]  # type: ignore[index]
    assert room == 6 * 5 + 2 * 6 * 2, "every pair of tasks and every pair of task and device, both ways"
    edges = set()
    for seed in range(30):
        observation, _ = env.reset(seed=seed)
        edges |= set(observation["sizes"][:, 1].tolist())
        assert env.observation_space.contains(observation)
    assert len(edges) > 5 and max(edges) <= room
    # Where a family says nothing, the first graph's own edges are the room.
    shops = JobShopVectorEnv(1, instances=[TWO_BY_TWO, ONE_MACHINE], observation="full")
    own = [FAMILY.static_graph(instance).edge_index.shape[1] for instance in (TWO_BY_TWO, ONE_MACHINE)]
    assert FAMILY.most_edges is None
    assert shops.observation_space["edge_type"].shape[1] == max(own)  # type: ignore[index]


def test_an_instance_beyond_the_room_of_padded_graphs_is_refused_in_one_line() -> None:
    env = SocDagVectorEnv(1, size={"tasks": 4, "devices": 2}, observation="full")
    larger = topcuoglu(np.random.default_rng(0), tasks=9, devices=2)
    with pytest.raises(ConfigError, match=r"observation 'full': .* nodes and edges, the space has room for"):
        env.reset(seed=0, options={"instances": [larger]})
