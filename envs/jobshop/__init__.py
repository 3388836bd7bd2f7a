"""Job-shop scheduling: the static problem, and shops of any variant."""

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
    *(
        EnvironmentSpec(
            id=f"schedrl/{name}-v0",
            family="jobshop:shop",
            entry_point=f"schedrl.envs.jobshop.shop_env:{name}Env",
            vector_entry_point=f"schedrl.envs.jobshop.shop_env:{name}VectorEnv",
        )
        for name in ("FlexibleJobShop", "BlockingJobShop", "DynamicJobShop", "SetupJobShop", "SingleMachine")
    ),
)
