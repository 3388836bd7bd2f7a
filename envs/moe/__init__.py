"""Expert placement: replicas of experts on devices, their re-planning as loads drift, and caches of experts."""

from collections.abc import Mapping

from schedrl.registration import EnvironmentSpec

__all__ = ["COMMANDS", "ENVIRONMENTS"]

# A version rises when observations, actions or rewards change.
ENVIRONMENTS: tuple[EnvironmentSpec, ...] = (
    EnvironmentSpec(
        id="schedrl/ExpertPlacement-v0",
        family="moe",
        entry_point="schedrl.envs.moe.env:ExpertPlacementEnv",
        vector_entry_point="schedrl.envs.moe.env:ExpertPlacementVectorEnv",
    ),
    EnvironmentSpec(
        id="schedrl/ExpertRebalance-v0",
        family="moe:rebalance",
        entry_point="schedrl.envs.moe.rebalance_env:ExpertRebalanceEnv",
        vector_entry_point="schedrl.envs.moe.rebalance_env:ExpertRebalanceVectorEnv",
    ),
    EnvironmentSpec(
        id="schedrl/ExpertCache-v0",
        family="moe:cache",
        entry_point="schedrl.envs.moe.cache_env:ExpertCacheEnv",
        vector_entry_point="schedrl.envs.moe.cache_env:ExpertCacheVectorEnv",
    ),
)

# What the command line offers as ``schedrl moe NAME``.
COMMANDS: Mapping[str, str] = {
    "export": "schedrl.envs.moe.commands:export",
    "loads": "schedrl.envs.moe.commands:loads",
}
