"""Gymnasium's names for the environments, as data; ``import schedrl`` registers them.

``gym.make("schedrl/JobShop-v0")`` works after that import, ``gym.make("schedrl:schedrl/JobShop-v0")`` without.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ENVIRONMENTS", "EnvironmentSpec", "register_environments"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSpec:
    """A registered environment: its gymnasium id and where its scalar and batched classes are."""

    id: str
    family: str
    entry_point: str
    vector_entry_point: str


# A version rises when observations, actions or rewards change. One entry per family.
ENVIRONMENTS: tuple[EnvironmentSpec, ...] = (
    EnvironmentSpec(
        id="schedrl/JobShop-v0",
        family="jobshop",
        entry_point="schedrl.envs.jobshop.env:JobShopEnv",
        vector_entry_point="schedrl.envs.jobshop.env:JobShopVectorEnv",
    ),
)


def register_environments() -> None:
    """Register every environment that is not yet registered; without gymnasium, do nothing."""
    try:
        from gymnasium.envs.registration import register, registry
    except ModuleNotFoundError:  # an exported policy runs where only numpy and onnxruntime are installed
        return
    for spec in ENVIRONMENTS:
        if spec.id not in registry:
            register(id=spec.id, entry_point=spec.entry_point, vector_entry_point=spec.vector_entry_point)
