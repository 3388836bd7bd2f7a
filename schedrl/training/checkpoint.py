"""Everything a run needs to continue bit for bit: weights, optimiser, environment and random states.

Files hold tensors, numbers and JSON text only, and load with ``weights_only=True``.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sb3_contrib import MaskablePPO

from schedrl.atomic import replacing
from schedrl.errors import ConfigError
from schedrl.families import Family
from schedrl.training.curriculum import Curriculum
from schedrl.training.sb3_env import SchedulingVecEnv

__all__ = ["load_checkpoint", "restore", "save_checkpoint"]

SCHEMA = "schedrl/checkpoint/1"


def save_checkpoint(path: Path, model: MaskablePPO, curriculum: Curriculum, progress: Mapping[str, Any]) -> None:
    """Write the state between two rollouts atomically; ``progress`` is the caller's own plain data."""
    env = model.get_env()
    assert isinstance(env, SchedulingVecEnv)
    state = {
        "schema": SCHEMA,
        "progress": dict(progress),
        "weights": model.policy.state_dict(),
        "optimizer": model.policy.optimizer.state_dict(),
        "counters": {"num_timesteps": model.num_timesteps, "_n_updates": model._n_updates},
        "episode_starts": torch.from_numpy(np.asarray(model._last_episode_starts)),
        "recent_episodes": [[info["r"], info["l"]] for info in model.ep_info_buffer or []],
        "environment": _environment_state(env, curriculum),
        "random": _random_state(),
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        ConfigError: missing, damaged, or of another schema.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise ConfigError(f"{path}: not a readable checkpoint: {' '.join(str(error).split())[:120]}") from None
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        raise ConfigError(f"{path}: field schema: expected {SCHEMA!r}")
    return state


def restore(state: Mapping[str, Any], model: MaskablePPO, curriculum: Curriculum, family: Family) -> None:
    """Continue from a checkpoint; call right before ``learn(reset_num_timesteps=False)``."""
    env = model.get_env()
    assert isinstance(env, SchedulingVecEnv)
    model.policy.load_state_dict(state["weights"])
    model.policy.optimizer.load_state_dict(state["optimizer"])
    for name, value in state["counters"].items():
        setattr(model, name, value)
    model._setup_learn(0, reset_num_timesteps=False)
    _restore_environment(state["environment"], env, curriculum, family)
    for reward, length in state["recent_episodes"]:
        model.ep_info_buffer.append({"r": reward, "l": length, "t": 0.0})  # type: ignore[union-attr]  # set up above
    model._last_obs = env.vector_env.episodes.observe()
    model._last_episode_starts = state["episode_starts"].numpy()
    _restore_random(state["random"])


def _environment_state(env: SchedulingVecEnv, curriculum: Curriculum) -> dict[str, Any]:
    vector = env.vector_env
    episodes = vector.episodes
    queues = curriculum.snapshot()
    pool = episodes.graphs
    numbered = [{episode: pool.number(instance) for episode, instance in queue.items()} for queue in queues["queues"]]
    current = [pool.number(instance) for instance in episodes.instances]
    return {
        "simulator": {name: torch.from_numpy(array) for name, array in episodes.simulator.snapshot().items()},
        "instances": {number: instance.to_json() for number, instance in pool.snapshot().items()},
        "current": current,
        "ids": torch.from_numpy(episodes.ids.copy()),
        "drawn": torch.from_numpy(queues["drawn"]),
        "queues": numbered,
        "curriculum_progress": queues["progress"],
        "generator": vector.np_random.bit_generator.state,
        "returns": torch.from_numpy(env.returns.copy()),
        "lengths": torch.from_numpy(env.lengths.copy()),
    }


def _restore_environment(
    state: Mapping[str, Any], env: SchedulingVecEnv, curriculum: Curriculum, family: Family
) -> None:
    vector = env.vector_env
    episodes = vector.episodes
    instances = {number: family.instance_type.from_json(text) for number, text in state["instances"].items()}
    episodes.graphs.restore(instances)
    episodes.simulator.restore({name: tensor.numpy() for name, tensor in state["simulator"].items()})
    episodes.instances[:] = [instances[number] for number in state["current"]]
    episodes.ids[:] = state["ids"].numpy()
    curriculum.restore(
        {
            "drawn": state["drawn"].numpy(),
            "queues": [{episode: instances[number] for episode, number in queue.items()} for queue in state["queues"]],
            "progress": state["curriculum_progress"],
        }
    )
    vector.np_random.bit_generator.state = state["generator"]
    env.returns[:] = state["returns"].numpy()
    env.lengths[:] = state["lengths"].numpy()


def _random_state() -> dict[str, Any]:
    # SB3 draws minibatches and actions from the global generators.
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _restore_random(state: Mapping[str, Any]) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
