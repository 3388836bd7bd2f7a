"""Trained policies as schedulers of any family: the bundle it ships, or one of the user's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schedrl.families import get_family
from schedrl.rollout import IDENTITY, PolicyScheduler, View

if TYPE_CHECKING:
    from schedrl.export.runtime import BundlePolicy
    from schedrl.families import Simulator

__all__ = ["TRAINED_BY", "load_policy", "policy_scheduler"]

TRAINED_BY = "graph neural network trained by PPO on generated instances; see the weights' README"


def policy_scheduler(
    family: str,
    weights: str,
    *,
    samples: int = 0,
    views: Sequence[View] = (IDENTITY,),
) -> Callable[..., PolicyScheduler]:
    """Return what builds the scheduler: called without arguments it plays the shipped bundle, with a path that one.

    Args:
        family: name of the family.
        weights: name of the shipped bundle, ``baselines/FAMILY/weights/NAME.schedrl``.
        samples: 0 for one greedy episode per view, otherwise the number of sampled episodes.
        views: symmetries of the family to solve in.
    """
    return functools.partial(_build, family, weights, samples, views)


def _build(
    family: str, weights: str, samples: int, views: Sequence[View], bundle: Path | None = None
) -> PolicyScheduler:
    make_policy = functools.partial(load_policy, family, weights, bundle)
    return PolicyScheduler(
        get_family(family), make_policy, functools.partial(_simulator, family), samples=samples, views=views
    )


def load_policy(family: str, weights: str, bundle: Path | None = None) -> BundlePolicy:
    """Return the policy in a bundle: the family's shipped one of that name, or one of the user's own."""
    from schedrl.export.runtime import load

    if bundle is not None:
        return load(bundle, family=family)
    shipped = resources.files(f"schedrl.baselines.{family.partition(':')[0]}") / "weights" / f"{weights}.schedrl"
    with resources.as_file(shipped) as path:
        return load(path, family=family)


def _simulator(family: str, policy: Any, instances: Sequence[Any], batch: int) -> Simulator:
    return get_family(family).make_simulator(instances, batch, **policy.manifest.simulator)
