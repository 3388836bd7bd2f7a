"""From a family's batched simulator to gymnasium: one VectorEnv, and an Env that is a batch of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from schedrl.arrays import F32, I8, I32, Bool
from schedrl.errors import ConfigError
from schedrl.families import Family, Instance, Simulator, get_family
from schedrl.graph_pool import GraphPool
from schedrl.graphs import DecisionBatch, Feature
from schedrl.instance_sources import FixedInstances, GeneratedInstances, InstanceSource

__all__ = [
    "Episodes",
    "Observation",
    "ObservationMode",
    "SchedulingEnv",
    "SchedulingVectorEnv",
    "SimulatorFactory",
    "episodes_of",
]

Observation: TypeAlias = dict[str, np.ndarray[Any, Any]]
ObservationMode = Literal["candidates", "encode-once", "full"]
SimulatorFactory: TypeAlias = Callable[[Sequence[Any], int], Simulator]


class Episodes:
    """A simulator, the instances its rows run, and the observation arrays: the dynamics behind both envs.

    Observation arrays alternate between two buffers, so that the observation before a step stays intact
    until the step after it.
    """

    def __init__(
        self,
        family: Family,
        make_simulator: SimulatorFactory,
        source: InstanceSource,
        mode: ObservationMode,
        batch: int,
    ) -> None:
        if mode not in get_args(ObservationMode):
            raise ConfigError(f"observation: {mode!r}, expected one of {', '.join(get_args(ObservationMode))}")
        self.family, self.source, self.mode = family, source, mode
        self.simulator = make_simulator(source.room, batch)
        self.instances: list[Instance] = [source.room[0]] * batch
        self.ids = np.zeros(batch, dtype=np.int32)
        # A rollout of many short episodes must not outrun the pool.
        self.graphs = GraphPool(family.static_graph, capacity=max(1024, 8 * batch))
        self.reward: F32 = np.zeros(batch, dtype=np.float32)
        self.done: Bool = np.zeros(batch, dtype=np.bool_)
        self.truncated: Bool = np.zeros(batch, dtype=np.bool_)
        self._buffers = [DecisionBatch.allocate(batch, self.simulator.slots, family.features) for _ in range(2)]
        self._padded = _PaddedGraphs(family, source.room, batch) if mode == "full" else None

    @property
    def decision(self) -> DecisionBatch:
        """The decision that ``observe`` wrote last."""
        return self._buffers[0]

    def start(self, row: int, rng: np.random.Generator, instance: Instance | None = None) -> None:
        """Begin a new episode in one row, of a given instance or of the source's next."""
        instance = self.source.draw(row, rng) if instance is None else instance
        self.simulator.load(row, instance)
        self.instances[row] = instance
        if self.mode != "candidates":
            self.ids[row] = self.graphs.number(instance)
        if self._padded is not None:
            self._padded.write(row, self.graphs.graphs([int(self.ids[row])])[0])

    def restart(self) -> None:
        """Forget past instances, so that a seeded reset repeats instances and their numbers."""
        self.source.restart()
        self.graphs.restore({})

    def step(self, action: I32) -> None:
        """Advance every row; fills ``reward``, ``done`` and ``truncated``."""
        self.simulator.step(action, self.reward, self.done)
        # An agent without masks could repeat an invalid action for ever.
        np.greater(self.simulator.invalid, self.simulator.invalid_limit, out=self.truncated)

    def observe(self) -> Observation:
        """Return the current observation; the arrays are overwritten by the call after the next."""
        self._buffers.reverse()
        decision = self.decision
        self.simulator.observe(decision)
        observation: Observation = {
            "candidate_features": decision.candidate_features,
            "context": decision.context,
            "action_mask": decision.action_mask(),
        }
        if self.mode != "candidates":
            observation["instance"] = self.ids[:, None].copy()
            observation["candidates"] = decision.candidates
        if self._padded is not None:
            # The graphs have no second buffer.
            observation |= _copied(self._padded.arrays)
        return observation

    def swap(self) -> None:
        """Make the next ``observe`` write over the last observation instead of the one before."""
        self._buffers.reverse()

    def final_info(self, row: int) -> dict[str, Any]:
        """Return what a user wants to know of a finished row: objective, solution and instance."""
        if not self.done[row]:
            return {"invalid_actions": int(self.simulator.invalid[row])}
        return {
            self.family.objective: self.simulator.objective(row),
            "solution": self.simulator.solution(row),
            "instance": self.instances[row],
        }

    def space(self) -> spaces.Dict:
        """Return the observation space of one row, built from the family's feature table."""
        features, slots = self.family.features, self.simulator.slots
        entries: dict[str, spaces.Space[Any]] = {
            "candidate_features": _box(features.candidate, slots),
            "context": _box(features.context),
            "action_mask": spaces.Box(0, 1, (slots,), np.int8),
        }
        if self.mode != "candidates":
            most = np.iinfo(np.int32).max
            entries["instance"] = spaces.Box(0, most, (1,), np.int32)
            entries["candidates"] = spaces.Box(0, most, (slots, len(features.candidate_nodes)), np.int32)
        if self._padded is not None:
            entries |= self._padded.space()
        return spaces.Dict(entries)


def episodes_of(
    game: str,
    batch: int,
    instances: Sequence[Instance] | None,
    generator: str,
    size: Mapping[str, Any],
    observation: ObservationMode,
    options: Mapping[str, Any],
) -> Episodes:
    """Return a game's episodes, of ``instances`` in turn or else new ones of a generator of its family.

    Args:
        game: name as for ``get_family``.
        batch: number of rows.
        instances: given ones; None draws from ``generator``.
        generator: name of one of the family's generators.
        size: its arguments.
        observation: what observations hold.
        options: of the game's simulator.
    """
    family = get_family(game)
    source = GeneratedInstances(family, generator, size) if instances is None else FixedInstances(instances)
    return Episodes(family, partial(family.make_simulator, **options), source, observation, batch)


class _PaddedGraphs:
    """The static graphs of all rows, padded to one size; ``sizes`` holds the true node and edge counts."""

    def __init__(self, family: Family, room: Sequence[Instance], batch: int) -> None:
        graphs = [family.static_graph(instance) for instance in room]
        nodes = max(len(graph.node_features) for graph in graphs)
        edges = max(graph.edge_index.shape[1] for graph in graphs)
        if family.most_edges is not None:
            edges = max(family.most_edges(instance) for instance in room)
        self._features = family.features
        self.arrays: Observation = {
            "node_features": np.zeros((batch, nodes, len(family.features.node)), dtype=np.float32),
            "edge_index": np.zeros((batch, 2, edges), dtype=np.int32),
            "edge_type": np.zeros((batch, edges), dtype=np.int8),
            "sizes": np.zeros((batch, 2), dtype=np.int32),
        }

    def write(self, row: int, graph: Any) -> None:
        nodes, edges = len(graph.node_features), graph.edge_index.shape[1]
        room = self.arrays["node_features"].shape[1], self.arrays["edge_type"].shape[1]
        if nodes > room[0] or edges > room[1]:
            raise ConfigError(f"observation 'full': {(nodes, edges)} nodes and edges, the space has room for {room}")
        for array in self.arrays.values():
            array[row] = 0
        self.arrays["node_features"][row, :nodes] = graph.node_features
        self.arrays["edge_index"][row, :, :edges] = graph.edge_index
        self.arrays["edge_type"][row, :edges] = graph.edge_type
        self.arrays["sizes"][row] = nodes, edges

    def space(self) -> dict[str, spaces.Space[Any]]:
        nodes, edges = self.arrays["node_features"].shape[1], self.arrays["edge_type"].shape[1]
        return {
            "node_features": _box(self._features.node, nodes),
            "edge_index": spaces.Box(0, nodes - 1, (2, edges), np.int32),
            "edge_type": spaces.Box(0, len(self._features.edge_types) - 1, (edges,), np.int8),
            "sizes": spaces.Box(0, np.iinfo(np.int32).max, (2,), np.int32),
        }


def _box(features: Sequence[Feature], rows: int | None = None) -> spaces.Box:
    low = np.array([feature.low for feature in features], dtype=np.float32)
    high = np.array([feature.high for feature in features], dtype=np.float32)
    shape = (len(features),) if rows is None else (rows, len(features))
    return spaces.Box(np.broadcast_to(low, shape), np.broadcast_to(high, shape), shape, np.float32)


class SchedulingVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """Many episodes at once, straight on the batched simulator; families subclass it with their options.

    Autoreset is same-step: a row that ends shows its next episode's first observation, while ``infos`` hold
    ``final_obs`` and ``final_info`` under the usual ``_final_obs`` and ``_final_info`` masks.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012  # declared so by gymnasium

    def __init__(self, episodes: Episodes) -> None:
        self.episodes = episodes
        self.num_envs = len(episodes.reward)
        self.single_observation_space = episodes.space()
        self.single_action_space = spaces.Discrete(episodes.simulator.slots)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start all rows; ``options={"instances": [...]}`` fixes one instance per row for this episode."""
        if seed is not None:
            self._np_random = np.random.default_rng(seed if isinstance(seed, int) else _entropy(seed))
            self._np_random_seed = seed if isinstance(seed, int) else -1
            self.episodes.restart()
        given = (options or {}).get("instances", [None] * self.num_envs)
        if len(given) != self.num_envs:
            raise ConfigError(f"options['instances']: {len(given)} instances for {self.num_envs} environments")
        for row in range(self.num_envs):
            self.episodes.start(row, self.np_random, given[row])
        return _copied(self.episodes.observe()), {}

    def step(self, actions: I32) -> tuple[Observation, F32, Bool, Bool, dict[str, Any]]:
        """Apply one candidate slot per row; finished rows start their next episode at once."""
        observation, infos = self.advance(np.asarray(actions, dtype=np.int32))
        episodes = self.episodes
        return _copied(observation), episodes.reward.copy(), episodes.done.copy(), episodes.truncated.copy(), infos

    def advance(self, actions: I32) -> tuple[Observation, dict[str, Any]]:
        """Step without copying: arrays stay valid until the step after the next. For training loops."""
        episodes = self.episodes
        episodes.step(actions)
        ended = episodes.done | episodes.truncated
        observation = episodes.observe()
        if not ended.any():
            return observation, {}
        rows = np.flatnonzero(ended)
        infos = {
            "final_obs": _by_row(
                self.num_envs, rows, [{key: value[row].copy() for key, value in observation.items()} for row in rows]
            ),
            "_final_obs": ended,
            "final_info": _by_row(self.num_envs, rows, [episodes.final_info(int(row)) for row in rows]),
            "_final_info": ended.copy(),
        }
        for row in rows:
            episodes.start(int(row), self.np_random)
        # The buffer before this step must survive, so write the new episodes over the same one.
        episodes.swap()
        return episodes.observe(), infos

    def action_masks(self) -> I8:
        """Return (num_envs, C) int8, 1 where an action is a candidate (sb3-contrib's convention)."""
        return self.episodes.decision.action_mask()


class SchedulingEnv(gym.Env[Any, Any]):
    """One episode at a time: a batch of one on the same simulator; families subclass it with their options.

    An action outside the mask changes nothing and earns nothing; more of them than ``Simulator.invalid_limit``
    truncate the episode.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # declared so by gymnasium

    def __init__(self, episodes: Episodes) -> None:
        self.episodes = episodes
        self.observation_space = episodes.space()
        self.action_space = spaces.Discrete(episodes.simulator.slots)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; ``options={"instance": ...}`` fixes its instance."""
        super().reset(seed=seed)
        if seed is not None:
            self.episodes.restart()
        self.episodes.start(0, self.np_random, (options or {}).get("instance"))
        observation = self._first_row()
        return observation, {"action_mask": observation["action_mask"]}

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Choose one candidate slot; the last info holds the objective and the solution."""
        episodes = self.episodes
        episodes.step(np.array([action], dtype=np.int32))
        observation = self._first_row()
        info: dict[str, Any] = {"action_mask": observation["action_mask"]}
        done, truncated = bool(episodes.done[0]), bool(episodes.truncated[0])
        if done or truncated:
            info |= episodes.final_info(0)
        return observation, float(episodes.reward[0]), done, truncated, info

    def action_masks(self) -> Bool:
        """Return (C,) bool, True where an action is a candidate (sb3-contrib's convention)."""
        mask: Bool = self.episodes.decision.action_mask()[0].astype(np.bool_)
        return mask

    def _first_row(self) -> Observation:
        return {key: value[0].copy() for key, value in self.episodes.observe().items()}


def _entropy(seeds: Sequence[int | None]) -> list[int]:
    return [0 if seed is None else seed for seed in seeds]


def _copied(observation: Observation) -> Observation:
    return {key: value.copy() for key, value in observation.items()}


def _by_row(batch: int, rows: Any, values: Sequence[Any]) -> np.ndarray[Any, Any]:
    array = np.full(batch, None, dtype=object)
    for row, value in zip(rows, values, strict=True):
        array[row] = value
    return array
