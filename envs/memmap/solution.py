"""Solutions of the family's two problems, and the one checker and objective function that serve both."""

from __future__ import annotations

from typing import Any

from schedrl.envs.memmap.instance import SCHEMA as MAP_SCHEMA
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.packing import SCHEMA as PACKING_SCHEMA
from schedrl.envs.memmap.packing import SOLUTION_SCHEMA as PACKING_SOLUTION_SCHEMA
from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing, check_packing
from schedrl.envs.memmap.plan import SCHEMA as PLAN_SCHEMA
from schedrl.envs.memmap.plan import MemoryPlan
from schedrl.envs.memmap.plan_check import check_plan, plan_objectives
from schedrl.errors import InstanceError, SolutionError
from schedrl.schemas import kind_of

__all__ = ["AnyInstance", "AnySolution", "MemoryPlan", "Packing", "check", "objectives"]


class AnyInstance:
    """Reads instances of both problems by the schema that their JSON names."""

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> MemoryMapInstance | OffsetPackingInstance:
        """Read either instance's ``to_json`` output.

        Raises:
            InstanceError: not JSON, another schema, or a bad field.
        """
        kinds: dict[str, Any] = {MAP_SCHEMA: MemoryMapInstance, PACKING_SCHEMA: OffsetPackingInstance}
        found: MemoryMapInstance | OffsetPackingInstance = kind_of(text, kinds, source, InstanceError).from_json(
            text, source=source
        )
        return found


class AnySolution:
    """Reads solutions of both problems by the schema that their JSON names."""

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> MemoryPlan | Packing:
        """Read either solution's ``to_json`` output.

        Raises:
            SolutionError: not JSON, another schema, or a bad field.
        """
        kinds: dict[str, Any] = {PLAN_SCHEMA: MemoryPlan, PACKING_SOLUTION_SCHEMA: Packing}
        found: MemoryPlan | Packing = kind_of(text, kinds, source, SolutionError).from_json(text, source=source)
        return found


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
