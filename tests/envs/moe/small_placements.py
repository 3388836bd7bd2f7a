"""Small random instances of the placement game, with everything that is allowed, and how tests play them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from schedrl.devices import uniform_cluster
from schedrl.envs.moe.generators import arbitrary
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.model import MoEModel
from schedrl.envs.moe.simulator import Simulator

__all__ = ["SEEDS", "handmade", "instances", "play", "random_instance", "step"]

SEEDS = st.integers(0, 2**32 - 1)


def random_instance(seed: int) -> ExpertPlacementInstance:
    """Return an arbitrary instance; in a third of those with transitions tokens stay on their path."""
    rng = np.random.default_rng(seed)
    instance = arbitrary(rng)
    if instance.transitions is not None and rng.random() < 0.35:
        return replace(instance, timing=replace(instance.timing, residence="path"))
    return instance


def instances() -> st.SearchStrategy[ExpertPlacementInstance]:
    """Return a strategy of such instances."""
    return SEEDS.map(random_instance)


def handmade(counts: Any, slots: list[int], **fields: Any) -> ExpertPlacementInstance:
    """Return an instance on one node of equal devices with compute-bound experts of 1,000 x 1,000.

    Args:
        counts: (W, L, E) tokens.
        slots: slots of every device.
        fields: further fields; one known window, ``top_k`` 1.
    """
    array = np.array(counts, dtype=np.int64)
    model = MoEModel(
        name="hand", layers=array.shape[1], experts=array.shape[2], top_k=1, hidden=1000, intermediate=1000
    )
    own: dict[str, Any] = {"name": "hand", "model": model, "planned": 1}
    own["cluster"] = uniform_cluster("h100-sxm", nodes=1, per_node=len(slots))
    return ExpertPlacementInstance(counts=array, slots=np.array(slots, dtype=np.int32), **own | fields)


def step(simulator: Simulator, action: int) -> tuple[float, bool]:
    """Take the same action in every row; return reward and end of the first."""
    reward, done = np.zeros(simulator.batch, dtype=np.float32), np.zeros(simulator.batch, dtype=np.bool_)
    simulator.step(np.full(simulator.batch, action, dtype=np.int32), reward, done)
    return float(reward[0]), bool(done[0])


def play(simulator: Simulator, rng: np.random.Generator) -> Iterator[float]:
    """Take random actions in row 0 until its end and yield the rewards."""
    while not simulator.finished(0):
        yield step(simulator, int(rng.integers(simulator.state.candidates[0])))[0]
