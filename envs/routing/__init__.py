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
)

# What the command line offers as ``schedrl routing NAME``.
COMMANDS: Mapping[str, str] = {
    "fleet": "schedrl.envs.routing.commands:fleet",
}
