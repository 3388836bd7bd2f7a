"""The family's two problems, placement and caching: what reads, checks and scores both."""

from __future__ import annotations

from schedrl.envs.moe.bounds import bounds as placement_bounds
from schedrl.envs.moe.cache_bounds import cache_bounds
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.envs.moe.cache_solution import SOLUTION_SCHEMA as CACHE_SOLUTION_SCHEMA
from schedrl.envs.moe.cache_solution import CacheSchedule, cache_objectives, check_cache
from schedrl.envs.moe.formats import parse_instance
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.solution import PLAN_SCHEMA, ExpertPlan, check_plan, plan_objectives
from schedrl.errors import SolutionError
from schedrl.families import Bound
from schedrl.schemas import AnyOf

__all__ = ["AnyInstance", "AnySolution", "bounds", "check", "objectives"]


class AnyInstance:
    """Reads instances of both problems by the schema that their JSON names."""

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> ExpertPlacementInstance | ExpertCacheInstance:
        """Read either instance's ``to_json`` output.

        Raises:
            InstanceError: not JSON, another schema, or a bad field.
        """
        found: ExpertPlacementInstance | ExpertCacheInstance = parse_instance(text, source=source)
        return found


AnySolution = AnyOf({PLAN_SCHEMA: ExpertPlan, CACHE_SOLUTION_SCHEMA: CacheSchedule}, SolutionError)
"""reads solutions of both problems"""


def check(instance: ExpertPlacementInstance | ExpertCacheInstance, solution: ExpertPlan | CacheSchedule) -> list[str]:
    """Return every violation in words, of a plan of placements or of a cache's schedule; empty means valid."""
    if isinstance(instance, ExpertCacheInstance):
        if isinstance(solution, CacheSchedule):
            return check_cache(instance, solution)
        return [f"instance {instance.name} is of a cache and takes a schedule of loads, not an expert plan"]
    if isinstance(solution, ExpertPlan):
        return check_plan(instance, solution)
    return [f"instance {instance.name} places experts and takes an expert plan, not a schedule of loads"]


def objectives(
    instance: ExpertPlacementInstance | ExpertCacheInstance, solution: ExpertPlan | CacheSchedule
) -> dict[str, float]:
    """Return a valid solution's objectives, as ``plan_objectives`` or ``cache_objectives`` do."""
    if isinstance(instance, ExpertCacheInstance):
        assert isinstance(solution, CacheSchedule)
        return cache_objectives(instance, solution)
    assert isinstance(solution, ExpertPlan)
    return plan_objectives(instance, solution)


def bounds(instance: ExpertPlacementInstance | ExpertCacheInstance) -> list[Bound]:
    """Return proven bounds on the instance's objective."""
    return cache_bounds(instance) if isinstance(instance, ExpertCacheInstance) else placement_bounds(instance)
