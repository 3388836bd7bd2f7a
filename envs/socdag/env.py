"""Gymnasium environments of DAG scheduling: options, and nothing that the shared environments already do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.simulator import Dispatch, Mode
from schedrl.vector import ObservationMode, SchedulingEnv, SchedulingVectorEnv, episodes_of

__all__ = ["SocDagEnv", "SocDagVectorEnv"]

GAME = "socdag"
_SIZE: Mapping[str, Any] = MappingProxyType({"tasks": 20, "devices": 4})


class SocDagEnv(SchedulingEnv):
    """Place the tasks of DAG jobs on unlike devices, one per step; minimise the mean job latency.

    Observation:
        Dict of ``candidate_features`` (C, 36), ``context`` (22,) and ``action_mask`` (C,), with C = ``window`` times
        the device types plus 1; all features are documented ratios in [-1, 1] (``schedrl.envs.socdag.observation``).
        ``observation="encode-once"`` adds the instance id and the candidates' node ids, ``"full"`` also the
        padded graph.
    Action:
        Discrete(C): the slot of a pair of a ready task and a device, or of waiting until the next end or entry.
        ``mode="online"`` runs the jobs event by event, ``"plan"`` builds a schedule of expected times. A slot
        without a candidate changes nothing.
    Reward:
        Minus the rise of the estimates of all jobs' latencies, in units of the mean job bound (of a single job, if
        that is more, its work per device); the return is the sum over jobs of bound minus latency in that unit, so
        returns order schedules as latencies do. In ``plan`` mode the estimates are lower bounds. Online they are
        not: noise, or a task that overtakes another in its queue, can end a job sooner than estimated, which is
        rewarded then. An instance's ``preference`` shifts weight to energy and cost, each in units of its least value.
    Termination:
        When every task has ended. Truncated after more invalid actions than tasks.
    Instances:
        A new one per episode from ``generator`` with ``size``, or ``instances`` in turn, or
        ``reset(options={"instance": ...})``. Sizes may differ.
    Render:
        ``schedrl.envs.socdag.render.gantt`` draws ``info["solution"]`` at the end.
    """

    def __init__(
        self,
        instances: Sequence[SocDagInstance] | None = None,
        generator: str = "topcuoglu",
        size: Mapping[str, Any] = _SIZE,
        observation: ObservationMode = "candidates",
        mode: Mode = "online",
        window: int = 8,
        wait: bool = True,
        dispatch: Dispatch = "queue",
    ) -> None:
        options = {"mode": mode, "window": window, "wait": wait, "dispatch": dispatch}
        super().__init__(episodes_of(GAME, 1, instances, generator, size, observation, options))


class SocDagVectorEnv(SchedulingVectorEnv):
    """Many instances at once; see ``SocDagEnv`` for observation, action, reward and options."""

    def __init__(
        self,
        num_envs: int = 1,
        instances: Sequence[SocDagInstance] | None = None,
        generator: str = "topcuoglu",
        size: Mapping[str, Any] = _SIZE,
        observation: ObservationMode = "candidates",
        mode: Mode = "online",
        window: int = 8,
        dispatch: Dispatch = "queue",
    ) -> None:
        options = {"mode": mode, "window": window, "dispatch": dispatch}
        super().__init__(episodes_of(GAME, num_envs, instances, generator, size, observation, options))
