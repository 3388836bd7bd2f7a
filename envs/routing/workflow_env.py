"""Gymnasium environments of workflow routing: programs of many requests, judged by when the last of them is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from schedrl.envs.routing.instance import RoutingInstance
from schedrl.vector import ObservationMode, SchedulingEnv, SchedulingVectorEnv, episodes_of

__all__ = ["GAME", "WorkflowRoutingEnv", "WorkflowRoutingVectorEnv"]

GAME = "routing:workflow"
_SIZE: Mapping[str, Any] = MappingProxyType({"requests": 200, "fleet": "heterogeneous"})


class WorkflowRoutingEnv(SchedulingEnv):
    """Send the requests of agents to serving instances: stages that wait for one another and for tools, with deadlines.

    Observation:
        Dict of ``candidate_features`` (C, 25), ``context`` (19,) and ``action_mask`` (C,), as in
        ``schedrl/RequestRouting-v0``. Of a program with a deadline, ``context`` tells how many requests are not
        finished and how much time is left; lengths of answers and times of tools are hidden.
    Action:
        Discrete(C): the slot of the instance that serves the request; with ``hold_s``, the last slot keeps it at the
        router for so long, eight times at most. A slot without a candidate changes nothing.
    Reward:
        Minus the rise of the objective: what is expected of the request's program when it is sent, then the difference
        to what came of it. A program with a deadline counts as often as it has requests, by its time from first
        arrival to last token; requests of others count each by their time to first token. The return is minus the
        objective.
    Termination:
        When the last request is finished. Truncated after more invalid actions than requests.
    Instances:
        A new one per episode from ``generator`` with ``size``, or ``instances`` in turn, or
        ``reset(options={"instance": ...})``. Sizes may differ, and requests without a program are fine.
    Render:
        ``schedrl.envs.routing.render.timeline`` draws ``info["solution"]`` at the end.
    """

    def __init__(
        self,
        instances: Sequence[RoutingInstance] | None = None,
        generator: str = "agentic",
        size: Mapping[str, Any] = _SIZE,
        observation: ObservationMode = "candidates",
        exact: bool = False,
        hold_s: float = 0.0,
        most_instances: int = 0,
    ) -> None:
        options = {"exact": exact, "hold_s": hold_s, "most_instances": most_instances}
        super().__init__(episodes_of(GAME, 1, instances, generator, size, observation, options))


class WorkflowRoutingVectorEnv(SchedulingVectorEnv):
    """Many workloads at once; see ``WorkflowRoutingEnv`` for observation, action, reward and options."""

    def __init__(
        self,
        num_envs: int = 1,
        instances: Sequence[RoutingInstance] | None = None,
        generator: str = "agentic",
        size: Mapping[str, Any] = _SIZE,
        observation: ObservationMode = "candidates",
        exact: bool = False,
        hold_s: float = 0.0,
        most_instances: int = 0,
    ) -> None:
        options = {"exact": exact, "hold_s": hold_s, "most_instances": most_instances}
        super().__init__(episodes_of(GAME, num_envs, instances, generator, size, observation, options))
