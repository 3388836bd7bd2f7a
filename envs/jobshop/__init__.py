"""Job-shop scheduling: the classic problem, minimising makespan."""

from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule, check, objectives

__all__ = ["JobShopInstance", "Schedule", "check", "objectives"]
