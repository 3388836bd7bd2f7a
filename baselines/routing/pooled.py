"""The pooled reference: all instances of a fleet as one that is as fast as they are together, first come, first served.

It shows how much routing itself costs, but is no bound: one queue in order of arrival is not the best order, and one
cache for all evicts otherwise than many small ones.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from schedrl.devices.serving_time import EXPERT_MISS
from schedrl.envs.routing.fleet import ServingInstance
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.solution import RoutingPlan, objectives
from schedrl.errors import InstanceError

__all__ = ["NAME", "pooled_instance", "pooled_objectives", "pooled_plan"]

NAME = "pooled reference, not a bound"
"""what tables call it"""
_MOST = 2**31 - 1


def pooled_instance(instance: RoutingInstance) -> RoutingInstance:
    """Return the same requests on one serving instance, with the summed rates, memories and caches of the fleet.

    Raises:
        InstanceError: the fleet computes prompts and answers on different instances.
    """
    fleet = instance.fleet
    if any(serving.role != "mixed" for serving in fleet):
        raise InstanceError(f"routing instance {instance.name}: field fleet: expected mixed instances alone to pool")
    pooled = ServingInstance(
        name="pool",
        device="pool",
        model=fleet[0].model,
        coefficients=_together(np.array([serving.coefficients for serving in fleet])),
        kv_tokens=_sum(fleet, "kv_tokens"),
        cache_tokens=-1 if any(s.cache_tokens < 0 for s in fleet) else _sum(fleet, "cache_tokens"),
        token_budget=_sum(fleet, "token_budget"),
        max_sequences=_sum(fleet, "max_sequences"),
        # Paid and fed as much per second as all of them.
        price_usd_per_h=sum(serving.price_usd_per_h for serving in fleet),
        power_w=sum(serving.power_w for serving in fleet),
        ready_s=min(serving.ready_s for serving in fleet),
        retire_s=max(serving.retire_s for serving in fleet),
    )
    return replace(instance, name=f"{instance.name}-pooled", fleet=(pooled,))


def _together(rows: Any) -> Any:
    """Return the coefficients of an instance whose rate in every term is the sum of the rates; no time stays none."""
    with np.errstate(divide="ignore"):
        seconds = 1.0 / (1.0 / rows).sum(axis=0)
    seconds[(rows == 0.0).any(axis=0)] = 0.0
    seconds[EXPERT_MISS] = rows[:, EXPERT_MISS].mean()
    return seconds


def _sum(fleet: tuple[ServingInstance, ...], field: str) -> int:
    return int(min(sum(getattr(serving, field) for serving in fleet), _MOST))


def pooled_plan(instance: RoutingInstance, *, exact: bool = False) -> RoutingPlan:
    """Return the plan of the pooled instance.

    Raises:
        InstanceError: the fleet computes prompts and answers on different instances.
    """
    pool = pooled_instance(instance)
    simulator = Simulator([pool], 1, exact=exact)
    simulator.play_rule("round-robin")
    return simulator.solution(0)


def pooled_objectives(instance: RoutingInstance, *, exact: bool = False) -> dict[str, float]:
    """Return the objectives that the pooled instance reaches: the reference named ``NAME``, not a bound.

    Its ``penalty`` weighs latency alone: cost and energy of a pool mean nothing per instance.

    Raises:
        InstanceError: the fleet computes prompts and answers on different instances.
    """
    pool = pooled_instance(replace(instance, preference=(1.0, 0.0, 0.0)))
    simulator = Simulator([pool], 1, exact=exact)
    simulator.play_rule("round-robin")
    return objectives(pool, simulator.solution(0))
