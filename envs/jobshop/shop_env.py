"""Gymnasium environments of shops of any variant: options, and nothing that the shared environments already do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from schedrl.envs.jobshop.shop import ShopInstance
from schedrl.vector import Episodes, ObservationMode, SchedulingEnv, SchedulingVectorEnv, episodes_of

__all__ = [
    "BlockingJobShopEnv",
    "BlockingJobShopVectorEnv",
    "DynamicJobShopEnv",
    "DynamicJobShopVectorEnv",
    "FlexibleJobShopEnv",
    "FlexibleJobShopVectorEnv",
    "SetupJobShopEnv",
    "SetupJobShopVectorEnv",
    "SingleMachineEnv",
    "SingleMachineVectorEnv",
]

GAME = "jobshop:shop"


def _size(**options: Any) -> Mapping[str, Any]:
    return MappingProxyType(options)


def _episodes(
    environment: type[FlexibleJobShopEnv] | type[FlexibleJobShopVectorEnv],
    count: int,
    instances: Sequence[ShopInstance] | None,
    generator: str | None,
    size: Mapping[str, Any] | None,
    observation: ObservationMode,
    options: Mapping[str, Any],
) -> Episodes:
    """Return the episodes of an environment, with room for all starts that any instance drawn may offer at once."""
    drawn = generator or environment.default_generator
    sizes = environment.default_size if size is None else size
    room = options["most_choices"]
    if instances is None and not room:
        alternatives = sizes.get("machines", 1) if drawn == "flexible" else 1
        room = sizes.get("jobs", 1) * sizes.get("most_alternatives", alternatives)
    return episodes_of(GAME, count, instances, drawn, sizes, observation, {**options, "most_choices": room})


class FlexibleJobShopEnv(SchedulingEnv):
    """Put jobs on machines as time goes by; each operation may have a choice of machines. Minimise the makespan.

    Observation:
        Dict of ``candidate_features`` (C, 33), ``context`` (16,) and ``action_mask`` (C,), with C the most starts that
        are possible at once in any instance, or ``most_choices``, and one slot to wait; all features are
        documented ratios in [-1, 1] (``schedrl.envs.jobshop.shop_observation``) of what is known on the shop floor.
        ``observation="encode-once"`` adds the instance id and the candidates' node ids, ``"full"`` also the graph.
    Action:
        Discrete(C): the slot of the job and machine that start together, or the last one to wait for the next event.
        A slot without a candidate changes nothing.
    Reward:
        Minus the rise of the objective's estimate (all that is left as fast as it can go), in units of the instance's
        scale; returns order schedules of an instance as objectives do.
    Termination:
        When every operation has started. Truncated after more invalid actions than operations.
    Instances:
        A new one per episode from ``generator`` with ``size``, or ``instances`` in turn, or
        ``reset(options={"instance": ...})``; any ``ShopInstance``, whatever its variant.
    Render:
        ``schedrl.envs.jobshop.shop_render.shop_gantt`` draws ``info["solution"]`` at the end.
    """

    default_generator: ClassVar[str] = "flexible"
    default_size: ClassVar[Mapping[str, Any]] = _size(jobs=10, machines=6)

    def __init__(
        self,
        instances: Sequence[ShopInstance] | None = None,
        generator: str | None = None,
        size: Mapping[str, Any] | None = None,
        observation: ObservationMode = "candidates",
        wait: bool = True,
        skip_forced: bool = True,
        most_choices: int = 0,
    ) -> None:
        options = {"wait": wait, "skip_forced": skip_forced, "most_choices": most_choices}
        super().__init__(_episodes(type(self), 1, instances, generator, size, observation, options))


class FlexibleJobShopVectorEnv(SchedulingVectorEnv):
    """Many shops at once; see ``FlexibleJobShopEnv`` for observation, action, reward and options."""

    default_generator: ClassVar[str] = "flexible"
    default_size: ClassVar[Mapping[str, Any]] = _size(jobs=10, machines=6)

    def __init__(
        self,
        num_envs: int = 1,
        instances: Sequence[ShopInstance] | None = None,
        generator: str | None = None,
        size: Mapping[str, Any] | None = None,
        observation: ObservationMode = "candidates",
        wait: bool = True,
        skip_forced: bool = True,
        most_choices: int = 0,
    ) -> None:
        options = {"wait": wait, "skip_forced": skip_forced, "most_choices": most_choices}
        super().__init__(_episodes(type(self), num_envs, instances, generator, size, observation, options))


class BlockingJobShopEnv(FlexibleJobShopEnv):
    """Without room between machines, jobs stay on theirs until the next is free; cycles of jobs swap by themselves."""

    default_generator, default_size = "blocking", _size(jobs=10, machines=5)


class BlockingJobShopVectorEnv(FlexibleJobShopVectorEnv):
    """Many at once; see ``BlockingJobShopEnv``."""

    default_generator, default_size = "blocking", _size(jobs=10, machines=5)


class DynamicJobShopEnv(FlexibleJobShopEnv):
    """Jobs arrive unannounced and machines break down; minimise what the instance weighs: tardiness by default."""

    default_generator, default_size = "dynamic", _size(jobs=60, machines=10)


class DynamicJobShopVectorEnv(FlexibleJobShopVectorEnv):
    """Many at once; see ``DynamicJobShopEnv``."""

    default_generator, default_size = "dynamic", _size(jobs=60, machines=10)


class SetupJobShopEnv(FlexibleJobShopEnv):
    """Machines take time to change over between families of operations; minimise the makespan."""

    default_generator, default_size = "setups", _size(jobs=10, machines=5)


class SetupJobShopVectorEnv(FlexibleJobShopVectorEnv):
    """Many at once; see ``SetupJobShopEnv``."""

    default_generator, default_size = "setups", _size(jobs=10, machines=5)


class SingleMachineEnv(FlexibleJobShopEnv):
    """Order jobs on one machine; minimise total tardiness, the smallest member of the family."""

    default_generator, default_size = "single-machine", _size(jobs=20)


class SingleMachineVectorEnv(FlexibleJobShopVectorEnv):
    """Many at once; see ``SingleMachineEnv``."""

    default_generator, default_size = "single-machine", _size(jobs=20)


def _complete(environment: type[FlexibleJobShopEnv]) -> None:
    """Give an environment the sections of the documentation that all share, from the observation on."""
    shared = str(FlexibleJobShopEnv.__doc__).partition("\n\n")[2]
    environment.__doc__ = f"{environment.__doc__}\n\n{shared}"


for _environment in (BlockingJobShopEnv, DynamicJobShopEnv, SetupJobShopEnv, SingleMachineEnv):
    _complete(_environment)
