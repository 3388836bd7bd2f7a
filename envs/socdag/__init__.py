"""SoC and device DAG scheduling: task graphs on heterogeneous devices, one at a time or as a stream of jobs."""

from schedrl.registration import EnvironmentSpec

__all__ = ["ENVIRONMENTS"]

# A version rises when observations, actions or rewards change.
ENVIRONMENTS: tuple[EnvironmentSpec, ...] = (
    EnvironmentSpec(
        id="schedrl/SocDag-v0",
        family="socdag",
        entry_point="schedrl.envs.socdag.env:SocDagEnv",
        vector_entry_point="schedrl.envs.socdag.env:SocDagVectorEnv",
    ),
)
