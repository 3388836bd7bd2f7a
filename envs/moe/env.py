"""Gymnasium environments of expert placement: options, and nothing that the shared environments already do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.vector import ObservationMode, SchedulingEnv, SchedulingVectorEnv, episodes_of

__all__ = ["GAME", "ExpertPlacementEnv", "ExpertPlacementVectorEnv"]

GAME = "moe"
_GENERATOR = "mixtral"
_SIZE: Mapping[str, Any] = MappingProxyType({"layers": 4})


class ExpertPlacementEnv(SchedulingEnv):
    """Give every replica of every expert a device, one per step; minimise the time of the hidden windows.

    Observation:
        Dict of ``candidate_features`` (C, 19), ``context`` (20,) and ``action_mask`` (C,), with C = ``window``; all
        features are documented ratios in [-1, 1] (``schedrl.envs.moe.observation``), of the known windows and the
        placement at the start alone. ``observation="encode-once"`` adds the instance id and the candidates' node
        ids, ``"full"`` also the padded graph.
    Action:
        Discrete(C): the slot of the device that gets the replica in hand. Layers come in order, in each the replicas
        with the most load (mean plus ``z`` standard deviations) first; their numbers keep the largest load per
        replica least. Candidates have a free slot, do not hold the expert, and let all later replicas be placed
        apart; of equal empty devices one is offered, then those that would be done first, with those that held the
        expert at the start before all others. A slot without a candidate changes nothing.
    Reward:
        Minus the rise of the forecast's bound on layer times and of moves, in units of the time of the scored windows
        with every slot equally loaded and nothing moved, and at the end the correction to the true total time; the
        return is (unit - total time) / unit, so returns order plans as total times do.
    Termination:
        When every replica is placed. Truncated after more invalid actions than replicas.
    Instances:
        A new one per episode from ``generator`` with ``size``, or ``instances`` in turn, or
        ``reset(options={"instance": ...})``. Sizes may differ. The plan holds in all scored windows.
    Render:
        The family's ``render`` draws ``info["solution"]`` at the end.
    """

    def __init__(
        self,
        instances: Sequence[ExpertPlacementInstance] | None = None,
        generator: str = _GENERATOR,
        size: Mapping[str, Any] = _SIZE,
        observation: ObservationMode = "candidates",
        window: int = 8,
        z: float = 0.0,
        skip_forced: bool = True,
    ) -> None:
        options = {"window": window, "z": z, "skip_forced": skip_forced}
        super().__init__(episodes_of(GAME, 1, instances, generator, size, observation, options))


class ExpertPlacementVectorEnv(SchedulingVectorEnv):
    """Many placement games at once; see ``ExpertPlacementEnv`` for observation, action, reward and options."""

    def __init__(
        self,
        num_envs: int = 1,
        instances: Sequence[ExpertPlacementInstance] | None = None,
        generator: str = _GENERATOR,
        size: Mapping[str, Any] = _SIZE,
        observation: ObservationMode = "candidates",
        window: int = 8,
        z: float = 0.0,
        skip_forced: bool = True,
    ) -> None:
        options = {"window": window, "z": z, "skip_forced": skip_forced}
        super().__init__(episodes_of(GAME, num_envs, instances, generator, size, observation, options))
