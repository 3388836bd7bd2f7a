"""Solutions of the family's two problems, and the one checker and objective function that serve both."""

from __future__ import annotations

from schedrl.envs.memmap.instance import SCHEMA as MAP_SCHEMA
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.packing import SCHEMA as PACKING_SCHEMA
from schedrl.envs.memmap.packing import SOLUTION_SCHEMA as PACKING_SOLUTION_SCHEMA
from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing, check_packing
from schedrl.envs.memmap.plan import SCHEMA as PLAN_SCHEMA
from schedrl.envs.memmap.plan import MemoryPlan
from schedrl.envs.memmap.plan_check import check_plan, plan_objectives
from schedrl.errors import InstanceError, SolutionError
from schedrl.schemas import AnyOf

__all__ = ["AnyInstance", "AnySolution", "MemoryPlan", "Packing", "check", "objectives"]


AnyInstance = AnyOf({MAP_SCHEMA: MemoryMapInstance, PACKING_SCHEMA: OffsetPackingInstance}, InstanceError)
"""reads instances of both problems"""
AnySolution = AnyOf({PLAN_SCHEMA: MemoryPlan, PACKING_SOLUTION_SCHEMA: Packing}, SolutionError)
"""reads solutions of both problems"""


def check(instance: MemoryMapInstance | OffsetPackingInstance, solution: MemoryPlan | Packing) -> list[str]:
    """Return every violation in words, of a plan for a program or a packing of lifetimes; empty means valid."""
    if isinstance(instance, OffsetPackingInstance):
        if isinstance(solution, Packing):
            return check_packing(instance, solution)
        return [f"instance {instance.name} packs offsets and takes a packing, not a memory plan"]
    if isinstance(solution, MemoryPlan):
        return check_plan(instance, solution)
    return [f"instance {instance.name} maps a program and takes a memory plan, not a packing"]


def objectives(instance: MemoryMapInstance | OffsetPackingInstance, solution: MemoryPlan | Packing) -> dict[str, float]:
    """Return a valid solution's objectives: a plan's as in ``plan_objectives``, a packing's ``peak`` in bytes."""
    if isinstance(instance, OffsetPackingInstance):
        assert isinstance(solution, Packing)
        return {"peak": float((solution.offset + instance.size).max())}
    assert isinstance(solution, MemoryPlan)
    return plan_objectives(instance, solution)
