"""Gymnasium environments of memory mapping: options, and nothing that the shared environments already do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.vector import ObservationMode, SchedulingEnv, SchedulingVectorEnv, episodes_of

__all__ = ["MemoryMapEnv", "MemoryMapVectorEnv"]

GAME = "memmap"
_SIZE: Mapping[str, Any] = MappingProxyType({"layers": 12})


class MemoryMapEnv(SchedulingEnv):
    """Choose the memory layer of every operand and result of a program, one access per step; minimise its latency.

    The game of mallocGame (Wang et al., arXiv 2305.07440), rebuilt from its description: the environment finds copy
    windows and offsets, the agent says which accesses the fast memory serves.

    Observation:
        Dict of ``candidate_features`` (C, 19), ``context`` (25,) and ``action_mask`` (C,), with C = 2 plus the fast
        layers times ``fits`` times the larger of 2 and the number of ``windows``; all features are documented ratios
        in [-1, 1] (``schedrl.envs.memmap.observation``). ``observation="encode-once"`` adds the instance id and the
        candidates' node ids, ``"full"`` also the padded graph.
    Action:
        Discrete(C): the slot of a candidate: keep or produce in a fast layer (no copy), fetch into it just in time or
        produce there and copy back (copy), or leave the access to the slow layer (drop). A slot without a candidate
        changes nothing.
    Reward:
        The latency saved, in units of the latency without fast memory; the return is (slow latency - latency) / slow
        latency, so returns order plans as latencies do. Where a dead end takes decisions back
        (``dead_ends="backup"``), the reward includes what they lose.
    Termination:
        When every access is decided. Truncated after more invalid actions than accesses.
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
        dead_ends: str = "mask",
        fits: Sequence[str] = ("planned",),
        windows: Sequence[str] = ("planned",),
    ) -> None:
        options = {"dead_ends": dead_ends, "fits": fits, "windows": windows}
        super().__init__(episodes_of(GAME, 1, instances, generator, size, observation, options))


class MemoryMapVectorEnv(SchedulingVectorEnv):
    """Many programs at once; see ``MemoryMapEnv`` for observation, action, reward and options."""

    def __init__(
        self,
        num_envs: int = 1,
        instances: Sequence[MemoryMapInstance] | None = None,
        generator: str = "layered",
        size: Mapping[str, Any] = _SIZE,
        observation: ObservationMode = "candidates",
        dead_ends: str = "mask",
        fits: Sequence[str] = ("planned",),
        windows: Sequence[str] = ("planned",),
    ) -> None:
        options = {"dead_ends": dead_ends, "fits": fits, "windows": windows}
        super().__init__(episodes_of(GAME, num_envs, instances, generator, size, observation, options))
