"""Memory mapping: programs on layered memories, and the packing of offsets."""

from collections.abc import Mapping

from schedrl.registration import EnvironmentSpec

__all__ = ["COMMANDS", "ENVIRONMENTS"]

# A version rises when observations, actions or rewards change.
ENVIRONMENTS: tuple[EnvironmentSpec, ...] = (
    EnvironmentSpec(
        id="schedrl/MemoryMap-v0",
        family="memmap",
        entry_point="schedrl.envs.memmap.env:MemoryMapEnv",
        vector_entry_point="schedrl.envs.memmap.env:MemoryMapVectorEnv",
    ),
    EnvironmentSpec(
        id="schedrl/MemoryMapOrder-v0",
        family="memmap:order",
        entry_point="schedrl.envs.memmap.order_env:MemoryMapOrderEnv",
        vector_entry_point="schedrl.envs.memmap.order_env:MemoryMapOrderVectorEnv",
    ),
    EnvironmentSpec(
        id="schedrl/OffsetPacking-v0",
        family="memmap:packing",
        entry_point="schedrl.envs.memmap.packing_env:OffsetPackingEnv",
        vector_entry_point="schedrl.envs.memmap.packing_env:OffsetPackingVectorEnv",
    ),
)

# What the command line offers as ``schedrl memmap NAME``.
COMMANDS: Mapping[str, str] = {"trace": "schedrl.envs.memmap.commands:trace"}
