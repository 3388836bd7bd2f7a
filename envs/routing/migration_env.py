"""Gymnasium environments of migration: options, and nothing that the shared environments already do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from schedrl.envs.routing.instance import RoutingInstance
from schedrl.vector import ObservationMode, SchedulingEnv, SchedulingVectorEnv, episodes_of

__all__ = ["GAME", "RequestMigrationEnv", "RequestMigrationVectorEnv"]

GAME = "routing:migration"
_SIZE: Mapping[str, Any] = MappingProxyType({"requests": 200, "fleet": "heterogeneous"})


class RequestMigrationEnv(SchedulingEnv):
    """Move waiting or decoding requests between instances while a fixed rule routes new ones.

    Observation:
        Dict of ``candidate_features`` (C, 26), ``context`` (14,) and ``action_mask`` (C,), with C = 32; all features
        are documented ratios in [0, 1] (``schedrl.envs.routing.migration_observation``), of what a cluster's manager
        knows: signals as late as the instance says. ``observation="encode-once"`` adds the instance id and the
        candidates' node ids, ``"full"`` also the padded graph.
    Action:
        Discrete(C). Slot 0 moves nothing until the next period; the others move one request of one of the three
        instances with the longest backlogs to one of two targets. Every period of ``period_s`` up to ``most_moves``
        requests can move, each of them four times in all. A slot without a candidate changes nothing.
    Reward:
        Minus the rise of the objective since the last decision: what is expected of requests when they are routed,
        then the difference to what came of them. The return is minus the objective.
    Termination:
        When the last request is finished. Truncated after more invalid actions than requests.
    Instances:
        A new one per episode from ``generator`` with ``size``, or ``instances`` in turn, or
        ``reset(options={"instance": ...})``. Sizes may differ.
    Render:
        ``schedrl.envs.routing.render.timeline`` draws ``info["solution"]`` at the end, moves as arrows.
    """

    def __init__(
        self,
        instances: Sequence[RoutingInstance] | None = None,
        generator: str = "mixed",
        size: Mapping[str, Any] = _SIZE,
        observation: ObservationMode = "candidates",
        rule: str = "least-pending-time",
        period_s: float = 0.5,
        most_moves: int = 4,
        exact: bool = False,
    ) -> None:
        options = {"rule": rule, "period_s": period_s, "most_moves": most_moves, "exact": exact}
        super().__init__(episodes_of(GAME, 1, instances, generator, size, observation, options))


class RequestMigrationVectorEnv(SchedulingVectorEnv):
    """Many fleets at once; see ``RequestMigrationEnv`` for observation, action, reward and options."""

    def __init__(
        self,
        num_envs: int = 1,
        instances: Sequence[RoutingInstance] | None = None,
        generator: str = "mixed",
        size: Mapping[str, Any] = _SIZE,
        observation: ObservationMode = "candidates",
        rule: str = "least-pending-time",
        period_s: float = 0.5,
        most_moves: int = 4,
        exact: bool = False,
    ) -> None:
        options = {"rule": rule, "period_s": period_s, "most_moves": most_moves, "exact": exact}
        super().__init__(episodes_of(GAME, num_envs, instances, generator, size, observation, options))
