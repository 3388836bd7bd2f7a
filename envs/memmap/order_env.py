"""Gymnasium environments of the order game: options, and nothing that the shared environments already do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.vector import ObservationMode, SchedulingEnv, SchedulingVectorEnv, episodes_of

__all__ = ["MemoryMapOrderEnv", "MemoryMapOrderVectorEnv"]

GAME = "memmap:order"
_SIZE: Mapping[str, Any] = MappingProxyType({"layers": 12})


class MemoryMapOrderEnv(SchedulingEnv):
    """Choose which buffer XLA's memory-space assignment places next, one per step; minimise the program's latency.

    Observation:
        Dict of ``candidate_features`` (C, 18), ``context`` (11,) and ``action_mask`` (C,), with C =
        ``window``; all features are documented ratios in [-1, 1] (``schedrl.envs.memmap.order_observation``).
        ``observation="encode-once"`` adds the instance id and the candidates' node ids, ``"full"`` also the
        padded graph.
    Action:
        Discrete(C): the slot of the buffer, with those of its alias groups, that is placed next as XLA would. The
        candidates are the first unplaced ones in XLA's own order, so slot 0 throughout is XLA's assignment. A slot
        without a candidate changes nothing.
    Reward:
        The latency saved, in units of the latency without fast memory; the return is (slow latency - latency) / slow
        latency, so returns order plans as latencies do.
    Termination:
        When every buffer is placed. Truncated after more invalid actions than buffers.
    Instances:
        A new one per episode from ``generator`` with ``size``, or ``instances`` in turn, or
        ``reset(options={"instance": ...})``. Sizes may differ.
    Render:
        ``schedrl.envs.memmap.render.memory_map`` draws ``info["solution"]`` at the end.
    """

    def __init__(
        self,
        instances: Sequence[MemoryMapInstance] | None = None,
        generator: str = "layered",
        size: Mapping[str, Any] = _SIZE,
        observation: ObservationMode = "candidates",
        window: int = 16,
    ) -> None:
        super().__init__(episodes_of(GAME, 1, instances, generator, size, observation, {"window": window}))


class MemoryMapOrderVectorEnv(SchedulingVectorEnv):
    """Many programs at once; see ``MemoryMapOrderEnv`` for observation, action, reward and options."""

    def __init__(
        self,
        num_envs: int = 1,
        instances: Sequence[MemoryMapInstance] | None = None,
        generator: str = "layered",
        size: Mapping[str, Any] = _SIZE,
        observation: ObservationMode = "candidates",
        window: int = 16,
    ) -> None:
        super().__init__(episodes_of(GAME, num_envs, instances, generator, size, observation, {"window": window}))
