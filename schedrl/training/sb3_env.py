"""The vector environment as stable-baselines3's VecEnv, without subprocesses or copies."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from schedrl.vector import Observation, SchedulingVectorEnv

__all__ = ["SchedulingVecEnv"]


class SchedulingVecEnv(VecEnv):
    """Adapts a ``SchedulingVectorEnv``; both restart finished rows within the step that ends them."""

    def __init__(self, vector_env: SchedulingVectorEnv) -> None:
        self.vector_env = vector_env
        self._actions: Any = None
        super().__init__(vector_env.num_envs, vector_env.single_observation_space, vector_env.single_action_space)

    def reset(self) -> Observation:
        """Start all rows, with the seed set last."""
        observation, _ = self.vector_env.reset(seed=self._seeds[0])
        self._reset_seeds()
        self._reset_options()
        self.returns = np.zeros(self.num_envs)
        self.lengths = np.zeros(self.num_envs, dtype=np.int64)
        return observation

    def step_async(self, actions: np.ndarray[Any, Any]) -> None:
        """Keep the actions for ``step_wait``."""
        self._actions = actions

    def step_wait(self) -> tuple[Observation, np.ndarray[Any, Any], np.ndarray[Any, Any], list[dict[str, Any]]]:
        """Advance; arrays stay valid until the step after the next, as SB3's rollout buffer needs."""
        observation, infos = self.vector_env.advance(self._actions.astype(np.int32))
        episodes = self.vector_env.episodes
        self.returns += episodes.reward
        self.lengths += 1
        rows: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if infos:
            for row in np.flatnonzero(infos["_final_info"]):
                rows[row] = dict(infos["final_info"][row])
                rows[row]["terminal_observation"] = infos["final_obs"][row]
                rows[row]["TimeLimit.truncated"] = bool(episodes.truncated[row] and not episodes.done[row])
                rows[row]["episode"] = {"r": float(self.returns[row]), "l": int(self.lengths[row]), "t": 0.0}
                self.returns[row], self.lengths[row] = 0.0, 0
        return observation, episodes.reward.copy(), episodes.done | episodes.truncated, rows

    def close(self) -> None:
        """Nothing to release."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the vector environment, once per row."""
        return [getattr(self.vector_env, attr_name)] * len(list(self._get_indices(indices)))

    def has_attr(self, attr_name: str) -> bool:
        """Whether rows offer the attribute."""
        return hasattr(self.vector_env, attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse: rows share one simulator.

        Raises:
            AttributeError: always.
        """
        raise AttributeError(f"cannot set {attr_name} on single rows of a batched environment")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        """Call a batched method once and return its rows."""
        rows = getattr(self.vector_env, method_name)(*args, **kwargs)
        return rows[list(self._get_indices(indices))]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        """Return False for every row: rows are not environments of their own, and need no Monitor."""
        return [False] * len(list(self._get_indices(indices)))
