"""Gymnasium environments of rebalancing: options, and nothing that the shared environments already do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.vector import ObservationMode, SchedulingEnv, SchedulingVectorEnv, episodes_of

__all__ = ["GAME", "ExpertRebalanceEnv", "ExpertRebalanceVectorEnv"]

GAME = "moe:rebalance"
_SIZE: Mapping[str, Any] = MappingProxyType({"layers": 2, "switch_every": 6})


class ExpertRebalanceEnv(SchedulingEnv):
    """Keep experts where they are, move a few, or place layers anew, before every window of drifting loads.

    Observation:
        Dict of ``candidate_features`` (C, 19), ``context`` (14,) and ``action_mask`` (C,), with C = 8 options; all
        features are documented ratios in [-1, 1] (``schedrl.envs.moe.rebalance_observation``) and look at windows that
        are over. ``observation="encode-once"`` adds the instance id and the candidates' node ids, ``"full"`` also the
        padded graph.
    Action:
        Discrete(C): what is done with the layer at hand before the next window. Slot 0 keeps it; others make 1, 3, 8
        or 24 changes (swaps, or replicas given to another expert) or place it anew for the latest window, for the
        windows like it, or for those with a margin. An option that changes nothing is left out. A slot without an
        option changes nothing.
    Reward:
        0 for all but the last layer before a window; then the window's time under perfect balance less its own time
        and that of all migration, in units of all windows' time under perfect balance. The return is
        1 - total_time / that unit, so returns order plans as total times do.
    Termination:
        When the last window is over. Truncated after more invalid actions than decisions.
    Instances:
        A new one per episode from ``generator`` with ``size``, or ``instances`` in turn, or
        ``reset(options={"instance": ...})``. Sizes may differ. Tokens must return home (``timing.residence``).
    Render:
        ``schedrl.envs.moe.render.load_heatmap`` draws ``info["solution"]`` at the end.
    """

    def __init__(
        self,
        instances: Sequence[ExpertPlacementInstance] | None = None,
        generator: str = "qwen15-moe",
        size: Mapping[str, Any] = _SIZE,
        observation: ObservationMode = "candidates",
        skip_forced: bool = True,
    ) -> None:
        super().__init__(episodes_of(GAME, 1, instances, generator, size, observation, {"skip_forced": skip_forced}))


class ExpertRebalanceVectorEnv(SchedulingVectorEnv):
    """Many rebalancing games at once; see ``ExpertRebalanceEnv`` for observation, action, reward and options."""

    def __init__(
        self,
        num_envs: int = 1,
        instances: Sequence[ExpertPlacementInstance] | None = None,
        generator: str = "qwen15-moe",
        size: Mapping[str, Any] = _SIZE,
        observation: ObservationMode = "candidates",
        skip_forced: bool = True,
    ) -> None:
        super().__init__(
            episodes_of(GAME, num_envs, instances, generator, size, observation, {"skip_forced": skip_forced})
        )
