"""Request routing: which serving instance of a fleet takes each request to a language model, and what moves later."""

from collections.abc import Mapping

from schedrl.registration import EnvironmentSpec

__all__ = ["COMMANDS", "ENVIRONMENTS"]

# A version rises when observations, actions or rewards change.
ENVIRONMENTS: tuple[EnvironmentSpec, ...] = (
    EnvironmentSpec(
        id="schedrl/RequestRouting-v0",
        family="routing",
        entry_point="schedrl.envs.routing.env:RequestRoutingEnv",
        vector_entry_point="schedrl.envs.routing.env:RequestRoutingVectorEnv",
    ),
    EnvironmentSpec(
        id="schedrl/RequestMigration-v0",
        family="routing:migration",
        entry_point="schedrl.envs.routing.migration_env:RequestMigrationEnv",
        vector_entry_point="schedrl.envs.routing.migration_env:RequestMigrationVectorEnv",
    ),
    EnvironmentSpec(
        id="schedrl/WorkflowRouting-v0",
        family="routing:workflow",
        entry_point="schedrl.envs.routing.workflow_env:WorkflowRoutingEnv",
        vector_entry_point="schedrl.envs.routing.workflow_env:WorkflowRoutingVectorEnv",
    ),
)

# What the command line offers as ``schedrl routing NAME``.
COMMANDS: Mapping[str, str] = {
    "fleet": "schedrl.envs.routing.commands:fleet",
}
