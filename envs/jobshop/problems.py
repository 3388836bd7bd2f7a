"""The family's two problems, the static job shop and the shop of any variant: what reads, checks and scores both."""

from __future__ import annotations

from pathlib import Path

from schedrl.envs.jobshop.bounds import bounds as job_shop_bounds
from schedrl.envs.jobshop.instance import SCHEMA, JobShopInstance
from schedrl.envs.jobshop.render import gantt
from schedrl.envs.jobshop.shop import SHOP_SCHEMA, ShopInstance
from schedrl.envs.jobshop.shop_bounds import shop_bounds
from schedrl.envs.jobshop.shop_checker import check_shop
from schedrl.envs.jobshop.shop_render import shop_gantt
from schedrl.envs.jobshop.shop_schedule import SCHEMA as SHOP_SCHEDULE_SCHEMA
from schedrl.envs.jobshop.shop_schedule import ShopSchedule
from schedrl.envs.jobshop.shop_schedule import objectives as shop_objectives
from schedrl.envs.jobshop.solution import SCHEMA as SCHEDULE_SCHEMA
from schedrl.envs.jobshop.solution import Schedule
from schedrl.envs.jobshop.solution import check as check_job_shop
from schedrl.envs.jobshop.solution import objectives as job_shop_objectives
from schedrl.errors import InstanceError, SolutionError
from schedrl.families import Bound
from schedrl.schemas import AnyOf

__all__ = ["AnyInstance", "AnySolution", "bounds", "check", "objectives", "render"]


AnyInstance = AnyOf({SCHEMA: JobShopInstance, SHOP_SCHEMA: ShopInstance}, InstanceError)
"""reads instances of both problems"""
AnySolution = AnyOf({SCHEDULE_SCHEMA: Schedule, SHOP_SCHEDULE_SCHEMA: ShopSchedule}, SolutionError)
"""reads schedules of both problems"""


def check(instance: JobShopInstance | ShopInstance, schedule: Schedule | ShopSchedule) -> list[str]:
    """Return every violation in words; empty means valid."""
    if isinstance(instance, ShopInstance):
        if isinstance(schedule, ShopSchedule):
            return check_shop(instance, schedule)
        return [f"instance {instance.name} is a shop and takes a schedule with modes, not starts alone"]
    if isinstance(schedule, Schedule):
        return check_job_shop(instance, schedule)
    return [f"instance {instance.name} is a plain job shop and takes a schedule without modes"]


def objectives(instance: JobShopInstance | ShopInstance, schedule: Schedule | ShopSchedule) -> dict[str, float]:
    """Return a valid schedule's objectives by name."""
    if isinstance(instance, ShopInstance):
        assert isinstance(schedule, ShopSchedule)
        return shop_objectives(instance, schedule)
    assert isinstance(schedule, Schedule)
    return job_shop_objectives(instance, schedule)


def bounds(instance: JobShopInstance | ShopInstance) -> list[Bound]:
    """Return proven bounds on the instance's objective."""
    return shop_bounds(instance) if isinstance(instance, ShopInstance) else job_shop_bounds(instance)


def render(instance: JobShopInstance | ShopInstance, schedule: Schedule | ShopSchedule, path: Path) -> None:
    """Draw the Gantt chart of a schedule."""
    if isinstance(instance, ShopInstance):
        assert isinstance(schedule, ShopSchedule)
        shop_gantt(instance, schedule, path)
    else:
        assert isinstance(schedule, Schedule)
        gantt(instance, schedule, path)
