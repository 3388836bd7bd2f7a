"""Gymnasium environments of the job shop: options, and nothing that the shared environments already do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.simulator import Generation
from schedrl.vector import ObservationMode, SchedulingEnv, SchedulingVectorEnv, episodes_of

__all__ = ["JobShopEnv", "JobShopVectorEnv"]

GAME = "jobshop"
_SIZE: Mapping[str, int] = MappingProxyType({"jobs": 10, "machines": 10})


class JobShopEnv(SchedulingEnv):
    """Build a job-shop schedule by dispatching one operation per step; minimise the makespan.

    Observation:
        Dict of ``candidate_features`` (C, 26), ``context`` (14,) and ``action_mask`` (C,), with C the most jobs of
        any instance; all features are documented ratios in [-1, 1] (``schedrl.envs.jobshop.observation``).
        ``observation="encode-once"`` adds the instance id and the candidates' node ids, ``"full"`` also the
        padded graph.
    Action:
        Discrete(C): the slot of the candidate whose operation is dispatched next. ``generation`` says which
        operations are candidates. A slot without a candidate changes nothing.
    Reward:
        Minus the rise of the makespan's lower bound, in units of the initial bound; the return is
        (initial bound - makespan) / initial bound, so returns order schedules as makespans do.
    Termination:
        When every operation is dispatched. Truncated after more invalid actions than operations.
    Instances:
        A new one per episode from ``generator`` with ``size``, or ``instances`` in turn, or
        ``reset(options={"instance": ...})``. Sizes may differ.
    Render:
        ``schedrl.envs.jobshop.render.gantt`` draws ``info["solution"]`` at the end.
    """

    def __init__(
        self,
        instances: Sequence[JobShopInstance] | None = None,
        generator: str = "uniform",
        size: Mapping[str, int] = _SIZE,
        observation: ObservationMode = "candidates",
        generation: Generation = "active",
        skip_forced: bool = True,
    ) -> None:
        options = {"generation": generation, "skip_forced": skip_forced}
        super().__init__(episodes_of(GAME, 1, instances, generator, size, observation, options))


class JobShopVectorEnv(SchedulingVectorEnv):
    """Many job shops at once; see ``JobShopEnv`` for observation, action, reward and options."""

    def __init__(
        self,
        num_envs: int = 1,
        instances: Sequence[JobShopInstance] | None = None,
        generator: str = "uniform",
        size: Mapping[str, int] = _SIZE,
        observation: ObservationMode = "candidates",
        generation: Generation = "active",
        skip_forced: bool = True,
    ) -> None:
        options = {"generation": generation, "skip_forced": skip_forced}
        super().__init__(episodes_of(GAME, num_envs, instances, generator, size, observation, options))
