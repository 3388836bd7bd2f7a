"""What every registered family and environment must keep; a new family adds its sizes and nothing else."""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium
from stable_baselines3.common.env_checker import check_env as check_sb3

from schedrl.families import Family, Instance, game_names, get_family
from schedrl.graphs import DecisionBatch
from schedrl.registration import EnvironmentSpec, environment_specs
from schedrl.vector import ObservationMode, SchedulingEnv, SchedulingVectorEnv

MODES: tuple[ObservationMode, ...] = ("candidates", "encode-once", "full")
SECTIONS = ["Observation", "Action", "Reward", "Termination", "Instances", "Render"]


@dataclass(frozen=True)
class Sizes:
    """Generator arguments of unequal sizes, and what each fixed-size env of the family is made with."""

    small: dict[str, Any]
    large: dict[str, Any]
    other: dict[str, tuple[dict[str, Any], ...]] = field(default_factory=dict)
    """of generators with arguments of their own, none for those that cannot draw here"""

    def of(self, generator: str) -> tuple[dict[str, Any], ...]:
        """Return a small and a large size of a generator, if it can draw here."""
        own = [pair for names, pair in self.other.items() if generator in names.split()]
        return own[0] if own else (self.small, self.large)


_PROGRAMS: dict[str, tuple[dict[str, Any], ...]] = {
    "traced": ({"mode": "infer", "largest": 60}, {"largest": 150}),
    "arbitrary": ({"ops": 4}, {"ops": 12, "fast_layers": 1}),
}

_PLACEMENTS: dict[str, tuple[dict[str, Any], ...]] = {
    "arbitrary": ({"experts": 4, "devices": 2}, {"experts": 8, "devices": 4})
}

_ROUTING = Sizes(
    small={"requests": 8, "fleet": "demo"},
    large={"requests": 30, "fleet": "heterogeneous"},
    # Draws from a trace that the package does not ship.
    other={"mooncake-first-half": ()},
)
SIZES = {
    "jobshop": Sizes(small={"jobs": 3, "machines": 4}, large={"jobs": 6, "machines": 5}),
    "jobshop:shop": Sizes(
        small={"jobs": 3, "machines": 4},
        large={"jobs": 6, "machines": 5},
        other={"single-machine": ({"jobs": 4}, {"jobs": 8})},
    ),
    "socdag": Sizes(
        small={"tasks": 8, "devices": 3},
        large={"tasks": 20, "devices": 4},
        other={
            "cholesky lu qr": ({"tiles": 3}, {"tiles": 4}),
            "gaussian-elimination": ({"matrix": 4}, {"matrix": 6}),
            "fft": ({"points": 4}, {"points": 8}),
            "fork-join": ({"branches": 3, "stages": 2}, {"branches": 5, "stages": 3}),
            "in-tree out-tree": ({"levels": 3}, {"levels": 4}),
            "stencil": ({"points": 3, "steps": 3}, {"points": 5, "steps": 4}),
            "laplace": ({"side": 3}, {"side": 5}),
            "stream-3pe": ({"jobs": 4}, {"jobs": 8, "noise_sigma": 0.3}),
            "stream-16pe": ({"jobs": 3}, {"jobs": 6}),
            "agentic": ({"jobs": 2, "agents": 2, "rounds": 1}, {"jobs": 3}),
            "adversarial": ({"tasks": 3, "devices": 3}, {"tasks": 5, "devices": 5}),
        },
    ),
    "memmap": Sizes(small={"layers": 3}, large={"layers": 8, "train": True}, other=_PROGRAMS),
    "memmap:order": Sizes(small={"layers": 3}, large={"layers": 12, "train": True}, other=_PROGRAMS),
    "memmap:packing": Sizes(
        small={"buffers": 8},
        large={"buffers": 40},
        other={"training-step": ({"layers": 3}, {"layers": 6})},
    ),
    "moe": Sizes(small={"layers": 1, "windows": 2}, large={"layers": 2, "windows": 3}, other=_PLACEMENTS),
    "moe:rebalance": Sizes(small={"layers": 1, "windows": 2}, large={"layers": 2, "windows": 3}, other=_PLACEMENTS),
    "moe:cache": Sizes(
        small={"tokens": 4, "layers": 3},
        large={"tokens": 8, "layers": 4},
        other={"arbitrary-cache": ({"requests": 5}, {"requests": 12})},
    ),
    "routing": _ROUTING,
    "routing:workflow": _ROUTING,
    # Moves matter where requests wait.
    "routing:migration": replace(_ROUTING, large={"requests": 60, "fleet": "demo", "load": 2.0}),
}

environments = pytest.mark.parametrize("spec", environment_specs(), ids=lambda spec: spec.id)
families = pytest.mark.parametrize("family", [get_family(name) for name in game_names()], ids=lambda f: f.name)


def draw_instances(family: Family, seed: int = 0) -> list[Instance]:
    """Return a small and a large instance of every generator."""
    rng, sizes = np.random.default_rng(seed), SIZES[family.name]
    return [make(rng, **size) for name, make in family.generators.items() for size in sizes.of(name)]


def small_size(spec: EnvironmentSpec) -> dict[str, Any]:
    """Return a small size of what an environment draws by default."""
    module, _, name = spec.entry_point.partition(":")
    generator = getattr(getattr(importlib.import_module(module), name), "default_generator", "")
    return SIZES[spec.family].of(generator)[0]


def make(spec: EnvironmentSpec, **options: Any) -> SchedulingEnv:
    env = gym.make(spec.id, **({"size": small_size(spec)} | options)).unwrapped
    assert isinstance(env, SchedulingEnv)
    return env


def make_vector(spec: EnvironmentSpec, num_envs: int, **options: Any) -> SchedulingVectorEnv:
    env = gym.make_vec(spec.id, num_envs=num_envs, vectorization_mode="vector_entry_point", **options)
    assert isinstance(env, SchedulingVectorEnv)
    return env


def random_actions(mask: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Return one valid slot per row; valid slots come first."""
    return (rng.random(len(mask)) * mask.sum(axis=1)).astype(np.int64)


@environments
def test_ids_are_registered_and_known_without_importing_the_package_first(spec: EnvironmentSpec) -> None:
    assert gym.spec(spec.id).vector_entry_point == spec.vector_entry_point
    assert isinstance(gym.make(f"schedrl:{spec.id}").unwrapped, SchedulingEnv)
    assert spec.family in game_names()


@environments
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("error::UserWarning")
def test_gymnasium_checker_accepts_the_environment(spec: EnvironmentSpec, mode: ObservationMode) -> None:
    check_gymnasium(make(spec, observation=mode), skip_render_check=True)


@environments
@pytest.mark.filterwarnings("error::UserWarning")
def test_gymnasium_checker_accepts_fixed_instances(spec: EnvironmentSpec) -> None:
    check_gymnasium(make(spec, instances=draw_instances(get_family(spec.family))), skip_render_check=True)


@environments
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("error::UserWarning", "ignore:Your observation .* has an unconventional shape:UserWarning")
def test_sb3_checker_accepts_the_environment(spec: EnvironmentSpec, mode: ObservationMode) -> None:
    check_sb3(make(spec, observation=mode), skip_render_check=True)


@environments
def test_wrapped_environments_offer_their_masks(spec: EnvironmentSpec) -> None:
    env = gym.make(spec.id)
    _, info = env.reset(seed=0)
    mask = env.get_wrapper_attr("action_masks")()
    assert mask.dtype == np.bool_
    assert mask.shape == (env.action_space.n,)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(mask, info["action_mask"])
    env.step(np.flatnonzero(mask)[0])


@environments
@pytest.mark.parametrize("mode", MODES)
def test_vector_observations_lie_in_their_space(spec: EnvironmentSpec, mode: ObservationMode) -> None:
    env = make_vector(spec, 3, size=small_size(spec), observation=mode)
    assert env.metadata["autoreset_mode"] is gym.vector.AutoresetMode.SAME_STEP
    rng = np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    for _ in range(60):
        assert env.observation_space.contains(observation)
        assert (observation["action_mask"].sum(axis=1) >= 1).all(), "a mask is empty before the end"
        np.testing.assert_array_equal(env.action_masks(), observation["action_mask"])
        observation, reward, terminated, truncated, _ = env.step(random_actions(observation["action_mask"], rng))
        assert reward.dtype == np.float32
        assert terminated.dtype == truncated.dtype == np.bool_


@environments
@pytest.mark.parametrize("mode", MODES)
def test_equal_seeds_reproduce_episodes_and_others_do_not(spec: EnvironmentSpec, mode: ObservationMode) -> None:
    def trace(seed: int) -> list[bytes]:
        env = make_vector(spec, 2, size=small_size(spec), observation=mode)
        observation, _ = env.reset(seed=seed)
        rng, seen = np.random.default_rng(1), []
        for _ in range(50):
            seen.append(b"".join(observation[key].tobytes() for key in sorted(observation)))
            observation, reward, *_ = env.step(random_actions(observation["action_mask"], rng))
            seen.append(reward.tobytes())
        return seen

    assert trace(5) == trace(5)
    assert trace(5) != trace(6)


@environments
@pytest.mark.parametrize("mode", MODES)
def test_a_scalar_environment_equals_a_row_of_the_vector(spec: EnvironmentSpec, mode: ObservationMode) -> None:
    instances = draw_instances(get_family(spec.family))
    vector = make_vector(spec, len(instances), instances=instances, observation=mode)
    shared, _ = vector.reset(seed=0, options={"instances": instances})
    scalars = [make(spec, instances=instances, observation=mode) for _ in instances]
    own = [env.reset(seed=0, options={"instance": item})[0] for env, item in zip(scalars, instances, strict=True)]
    running, rng = set(range(len(instances))), np.random.default_rng(0)
    while running:
        for row in running:
            for key in set(own[row]) - {"instance"}:  # the number of an instance is its place in the env's own count
                np.testing.assert_array_equal(own[row][key], shared[key][row], err_msg=f"row {row} {key}")
        actions = random_actions(shared["action_mask"], rng)
        shared, reward, terminated, _, infos = vector.step(actions)
        for row in sorted(running):
            own[row], earned, ended, _, info = scalars[row].step(actions[row])
            assert (earned, ended) == (reward[row], terminated[row])
            if ended:
                running.remove(row)
                objective = get_family(spec.family).objective
                assert infos["final_info"][row][objective] == info[objective]
                assert infos["final_info"][row]["instance"] is instances[row]


@environments
def test_docstrings_have_the_six_sections_in_order(spec: EnvironmentSpec) -> None:
    doc = inspect.getdoc(type(make(spec))) or ""
    assert re.findall(r"^(\w+):$", doc, re.MULTILINE) == SECTIONS


@environments
def test_docstrings_quote_the_true_feature_counts(spec: EnvironmentSpec) -> None:
    doc = inspect.getdoc(type(make(spec))) or ""
    features = get_family(spec.family).features
    assert f"``candidate_features`` (C, {len(features.candidate)})" in doc
    assert f"``context`` ({len(features.context)},)" in doc


@families
def test_random_rollouts_pass_the_independent_checker(family: Family) -> None:
    instances = draw_instances(family, seed=7)
    simulator = family.make_simulator(instances, len(instances))
    decision = DecisionBatch.allocate(simulator.batch, simulator.slots, family.features)
    reward, done = np.zeros(simulator.batch, dtype=np.float32), np.zeros(simulator.batch, dtype=np.bool_)
    rng, running = np.random.default_rng(0), np.ones(simulator.batch, dtype=np.bool_)
    while running.any():
        simulator.observe(decision)
        np.testing.assert_array_equal(decision.count > 0, running)
        assert decision.count.max() <= simulator.slots
        action = (rng.random(simulator.batch) * decision.count).astype(np.int32)
        simulator.step(np.where(running, action, -1).astype(np.int32), reward, done)
        running = ~done
    for row, instance in enumerate(instances):
        assert simulator.finished(row)
        solution = simulator.solution(row)
        assert family.check(instance, solution) == []
        # Sums of many times may be added in another order.
        expected = family.objectives(instance, solution)[family.objective_of(instance)]
        assert simulator.objective(row) == pytest.approx(expected, rel=1e-12)
        assert family.solution_type.from_json(solution.to_json()).to_json() == solution.to_json()
        for bound in family.bounds(instance):
            assert bound.value <= simulator.objective(row), bound.name


@families
def test_returns_order_solutions_as_the_objective_does(family: Family) -> None:
    instance = draw_instances(family)[1]
    simulator = family.make_simulator([instance], 64)
    decision = DecisionBatch.allocate(64, simulator.slots, family.features)
    # In double precision, which kernels take as well, so that the order of nearly equal solutions shows.
    reward: Any = np.zeros(64)
    done, total = np.zeros(64, dtype=np.bool_), np.zeros(64)
    rng = np.random.default_rng(0)
    while not done.all():
        simulator.observe(decision)
        action = (rng.random(64) * decision.count).astype(np.int32)
        simulator.step(np.where(decision.count > 0, action, -1).astype(np.int32), reward, done)
        total += reward
    value = np.array([simulator.objective(row) for row in range(64)])
    assert len(set(value)) > 10
    order = np.argsort(value, kind="stable")
    # Sums of rounded numbers that differ in their last digits are equal.
    apart = np.diff(value[order]) > 1e-9 * np.abs(value).max()
    assert (np.diff(total[order])[apart] < 0).all()
    assert np.abs(np.diff(total[order])[~apart]).max(initial=0.0) < 1e-5


@families
def test_static_graphs_fit_the_feature_table_and_bounds(family: Family) -> None:
    low = np.array([feature.low for feature in family.features.node])
    high = np.array([feature.high for feature in family.features.node])
    for instance in draw_instances(family):
        graph = family.static_graph(instance)
        assert graph.node_features.dtype == np.float32
        assert ((low <= graph.node_features) & (graph.node_features <= high)).all()
        assert graph.edge_type.max(initial=0) < len(family.features.edge_types)
        assert family.instance_type.from_json(instance.to_json()) == instance


@families
def test_generators_repeat_with_the_seed(family: Family) -> None:
    assert draw_instances(family, seed=3) == draw_instances(family, seed=3)
    assert draw_instances(family, seed=3) != draw_instances(family, seed=4)
