"""Gymnasium environments of offset packing: options, and nothing that the shared environments already do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from schedrl.envs.memmap.packing import OffsetPackingInstance
from schedrl.vector import ObservationMode, SchedulingEnv, SchedulingVectorEnv, episodes_of

__all__ = ["GAME", "OffsetPackingEnv", "OffsetPackingVectorEnv"]

GAME = "memmap:packing"
_SIZE: Mapping[str, Any] = MappingProxyType({"buffers": 100})


class OffsetPackingEnv(SchedulingEnv):
    """Give every buffer of known lifetime an offset in one memory, one per step; minimise the peak.

    Observation:
        Dict of ``candidate_features`` (C, 19), ``context`` (13,) and ``action_mask`` (C,), with C = ``window``; all
        features are documented ratios in [-1, 1] (``schedrl.envs.memmap.packing_observation``).
        ``observation="encode-once"`` adds the instance id and the candidates' node ids, ``"full"`` also the
        padded graph.
    Action:
        Discrete(C): the slot of the buffer that is placed next, at its lowest feasible offset. Candidates are the
        unplaced buffers with the lowest such offsets, most ``ties`` (``"size"``, ``"area"``, ``"duration"`` or
        ``"conflicts"``) first among equals, as far as they lie below the least end that any of them can have: some
        best packing places its buffers so. A slot without a candidate changes nothing.
    Reward:
        Minus the rise of a lower bound on the peak of every completion, in units of the most bytes live at once; the
        return is (most live - peak) / most live, at best 0, so returns order packings as peaks do.
    Termination:
        When every buffer is placed. Truncated after more invalid actions than buffers.
    Instances:
        A new one per episode from ``generator`` with ``size``, or ``instances`` in turn, or
        ``reset(options={"instance": ...})``. Sizes may differ. Buffers of given offset are in place from the start.
    Render:
        ``schedrl.envs.memmap.render.memory_map`` draws ``info["solution"]`` at the end.
    """

    def __init__(
        self,
        instances: Sequence[OffsetPackingInstance] | None = None,
        generator: str = "known-optimum",
        size: Mapping[str, Any] = _SIZE,
        observation: ObservationMode = "candidates",
        window: int = 32,
        ties: str = "size",
        skip_forced: bool = True,
    ) -> None:
        options = {"window": window, "ties": ties, "skip_forced": skip_forced}
        super().__init__(episodes_of(GAME, 1, instances, generator, size, observation, options))


class OffsetPackingVectorEnv(SchedulingVectorEnv):
    """Many packing games at once; see ``OffsetPackingEnv`` for observation, action, reward and options."""

    def __init__(
        self,
        num_envs: int = 1,
        instances: Sequence[OffsetPackingInstance] | None = None,
        generator: str = "known-optimum",
        size: Mapping[str, Any] = _SIZE,
        observation: ObservationMode = "candidates",
        window: int = 32,
        ties: str = "size",
        skip_forced: bool = True,
    ) -> None:
        options = {"window": window, "ties": ties, "skip_forced": skip_forced}
        super().__init__(episodes_of(GAME, num_envs, instances, generator, size, observation, options))
