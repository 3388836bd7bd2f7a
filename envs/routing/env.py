"""Gymnasium environments of request routing: options, and nothing that the shared environments already do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from schedrl.envs.routing.instance import RoutingInstance
from schedrl.vector import ObservationMode, SchedulingEnv, SchedulingVectorEnv, episodes_of

__all__ = ["GAME", "RequestRoutingEnv", "RequestRoutingVectorEnv"]

GAME = "routing"
_SIZE: Mapping[str, Any] = MappingProxyType({"requests": 200, "fleet": "heterogeneous"})


class RequestRoutingEnv(SchedulingEnv):
    """Send each request to a serving instance as it arrives.

    Observation:
        Dict of ``candidate_features`` (C, 25), ``context`` (19,) and ``action_mask`` (C,), with C =
        ``most_instances``, at least the instances of the first fleet (and one slot to hold); all features are
        documented ratios in [0, 1] (``schedrl.envs.routing.observation``), of what a router knows: its own counts, and
        signals that are as late as the instance says. Lengths of answers and later requests are hidden.
        ``observation="encode-once"`` adds the instance id and the candidates' node ids, ``"full"`` also the padded
        graph.
    Action:
        Discrete(C): the slot of the instance that serves the request; with ``hold_s``, the last slot keeps it at the
        router for so long, eight times at most. A slot without a candidate changes nothing.
    Reward:
        Minus the rise of the objective: what is expected of the request when it is sent, then the difference to what
        came of it. The return is minus the objective (mean penalty of latency, cost and energy).
    Termination:
        When the last request is finished. Truncated after more invalid actions than requests.
    Instances:
        A new one per episode from ``generator`` with ``size``, or ``instances`` in turn, or
        ``reset(options={"instance": ...})``. Sizes may differ.
    Render:
        ``info["solution"]`` at the end holds where each request went and its times.
    """

    def __init__(
        self,
        instances: Sequence[RoutingInstance] | None = None,
        generator: str = "mixed",
        size: Mapping[str, Any] = _SIZE,
        observation: ObservationMode = "candidates",
        exact: bool = False,
        hold_s: float = 0.0,
        most_instances: int = 0,
    ) -> None:
        options = {"exact": exact, "hold_s": hold_s, "most_instances": most_instances}
        super().__init__(episodes_of(GAME, 1, instances, generator, size, observation, options))


class RequestRoutingVectorEnv(SchedulingVectorEnv):
    """Many fleets at once; see ``RequestRoutingEnv`` for observation, action, reward and options."""

    def __init__(
        self,
        num_envs: int = 1,
        instances: Sequence[RoutingInstance] | None = None,
        generator: str = "mixed",
        size: Mapping[str, Any] = _SIZE,
        observation: ObservationMode = "candidates",
        exact: bool = False,
        hold_s: float = 0.0,
        most_instances: int = 0,
    ) -> None:
        options = {"exact": exact, "hold_s": hold_s, "most_instances": most_instances}
        super().__init__(episodes_of(GAME, num_envs, instances, generator, size, observation, options))
