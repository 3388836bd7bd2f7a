"""Gymnasium environments of the order game: options, and nothing that the shared environments already do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.order_simulator import OrderSimulator
from schedrl.families import get_family
from schedrl.instance_sources import FixedInstances, GeneratedInstances
from schedrl.vector import Episodes, ObservationMode, SchedulingEnv, SchedulingVectorEnv

__all__ = ["MemoryMapOrderEnv", "MemoryMapOrderVectorEnv"]

_SIZE: Mapping[str, Any] = MappingProxyType({"layers": 12})


def _episodes(
    batch: int,
    instances: Sequence[MemoryMapInstance] | None,
    generator: str,
    size: Mapping[str, Any],
    observation: ObservationMode,
    options: Mapping[str, Any],
) -> Episodes:
    family = get_family("memmap:order")
    source = GeneratedInstances(family, generator, size) if instances is None else FixedInstances(instances)
    return Episodes(family, partial(OrderSimulator, **options), source, observation, batch)


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
        super().__init__(_episodes(1, instances, generator, size, observation, {"window": window}))


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
        super().__init__(_episodes(num_envs, instances, generator, size, observation, {"window": window}))
