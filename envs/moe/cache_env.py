"""Gymnasium environments of the expert cache: options, and nothing that the shared environments already do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.vector import ObservationMode, SchedulingEnv, SchedulingVectorEnv, episodes_of

__all__ = ["GAME", "ExpertCacheEnv", "ExpertCacheVectorEnv"]

GAME = "moe:cache"
_SIZE: Mapping[str, Any] = MappingProxyType({"layers": 8, "experts": 8, "tokens": 32})


class ExpertCacheEnv(SchedulingEnv):
    """Decode on a device whose memory holds few of the experts: choose who leaves and who is loaded ahead of need.

    Observation:
        Dict of ``candidate_features`` (C, 19), ``context`` (20,) and ``action_mask`` (C,), with C = ``window``; all
        features are documented ratios in [0, 1] (``schedrl.envs.moe.cache_observation``). They tell what happened up
        to the request that is served now; later requests are hidden, but for the order of their layers.
        ``observation="encode-once"`` adds the instance id and the candidates' node ids, ``"full"`` also the
        padded graph.
    Action:
        Discrete(C). Where an expert must leave, the slot of the one that does: those used longest ago are offered,
        none that the request needs. While a request is computed and the channel is free (``prefetch``), slot 0 to
        load nothing until the next request, or the slot of an absent expert of the next request's layer to load now:
        those likeliest to be needed, by what followed so far, are offered. A slot without a candidate changes nothing.
    Reward:
        Minus the time that computation has to wait longer, in units of a lower bound on the decode time; the return
        is (time of all computation - decode time) / lower bound, so returns order schedules as decode times do.
    Termination:
        When the last request is served. Truncated after more invalid actions than requests.
    Instances:
        A new one per episode from ``generator`` with ``size``, or ``instances`` in turn, or
        ``reset(options={"instance": ...})``. Sizes may differ.
    Render:
        ``info["solution"]`` at the end holds every load and every start.
    """

    def __init__(
        self,
        instances: Sequence[ExpertCacheInstance] | None = None,
        generator: str = "mixtral-decode",
        size: Mapping[str, Any] = _SIZE,
        observation: ObservationMode = "candidates",
        window: int = 32,
        prefetch: bool = True,
        skip_forced: bool = True,
    ) -> None:
        options = {"window": window, "prefetch": prefetch, "skip_forced": skip_forced}
        super().__init__(episodes_of(GAME, 1, instances, generator, size, observation, options))


class ExpertCacheVectorEnv(SchedulingVectorEnv):
    """Many expert caches at once; see ``ExpertCacheEnv`` for observation, action, reward and options."""

    def __init__(
        self,
        num_envs: int = 1,
        instances: Sequence[ExpertCacheInstance] | None = None,
        generator: str = "mixtral-decode",
        size: Mapping[str, Any] = _SIZE,
        observation: ObservationMode = "candidates",
        window: int = 32,
        prefetch: bool = True,
        skip_forced: bool = True,
    ) -> None:
        options = {"window": window, "prefetch": prefetch, "skip_forced": skip_forced}
        super().__init__(episodes_of(GAME, num_envs, instances, generator, size, observation, options))
