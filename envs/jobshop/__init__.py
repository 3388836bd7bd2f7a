"""Job-shop scheduling: the classic problem, minimising makespan."""

from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.solution import Schedule, check, objectives
from schedrl.registration import EnvironmentSpec

__all__ = ["ENVIRONMENTS", "JobShopInstance", "Schedule", "check", "objectives"]

# A version rises when observations, actions or rewards change.
ENVIRONMENTS: tuple[EnvironmentSpec, ...] = (
    EnvironmentSpec(
        id="schedrl/JobShop-v0",
        family="jobshop",
        entry_point="schedrl.envs.jobshop.env:JobShopEnv",
        vector_entry_point="schedrl.envs.jobshop.env:JobShopVectorEnv",
    ),
)
