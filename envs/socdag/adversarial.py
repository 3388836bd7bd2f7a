"""Small instances on which a well-known heuristic is far worse than another one, and variations of them.

They were found by ``schedrl.experiments.reproduce.heft_adversary`` and are packaged as JSON; the name of each says
which scheduler it is against, and which one does well on it.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from importlib import resources

import numpy as np

from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.errors import ConfigError

__all__ = ["adversarial", "adversarial_instances"]


@cache
def adversarial_instances() -> tuple[SocDagInstance, ...]:
    """Return the packaged instances by name."""
    folder = resources.files("schedrl.envs.socdag") / "data"
    files = [file for file in folder.iterdir() if file.name.startswith("adversarial-")] if folder.is_dir() else []
    return tuple(
        SocDagInstance.from_json(file.read_text(encoding="utf-8"), source=file.name)
        for file in sorted(files, key=lambda file: file.name)
    )


def adversarial(
    rng: np.random.Generator,
    *,
    tasks: int = 5,
    devices: int = 5,
    against: str | None = None,
    spread: float = 0.1,
    noise_sigma: float = 0.0,
    name: str | None = None,
) -> SocDagInstance:
    """Draw a variation of one of the packaged instances of a size, for a training curriculum.

    Args:
        rng: Source of randomness.
        tasks: Number of tasks, 3 to 5.
        devices: Number of devices, 3 to 5; not all sizes are packaged.
        against: Only instances against this scheduler, such as ``heft``; all by default.
        spread: Each duration and volume is multiplied by a uniform factor up to this share from 1; 0 to below 1.
        noise_sigma: Standard deviation of the relative error of the expected durations.
        name: Name of the instance.

    Raises:
        ConfigError: a spread or noise outside its range, or no instance of that size against that scheduler.
    """
    if not 0.0 <= spread < 1.0:
        raise ConfigError(f"option spread: {spread}, expected 0 to below 1")
    if not 0.0 <= noise_sigma < np.inf:
        raise ConfigError(f"option noise_sigma: {noise_sigma}, expected 0 or more")
    chosen = _chosen(tasks, devices, against)
    instance = chosen[rng.integers(len(chosen))]
    graph = instance.graphs[0]
    varied = dataclasses.replace(
        graph,
        duration=graph.duration * rng.uniform(1.0 - spread, 1.0 + spread, size=graph.duration.shape),
        edge_bytes=graph.edge_bytes * rng.uniform(1.0 - spread, 1.0 + spread, size=graph.edges),
    )
    noise = rng.standard_normal(graph.tasks) if noise_sigma else None
    return dataclasses.replace(
        instance, name=name or instance.name, graphs=(varied,), noise_sigma=noise_sigma, noise=noise
    )


def _target(instance: SocDagInstance) -> str:
    return instance.name.removeprefix("adversarial-").partition("-vs-")[0]


def _chosen(tasks: int, devices: int, against: str | None) -> list[SocDagInstance]:
    """Return the packaged instances of a size, against one scheduler or any."""
    found = [instance for instance in adversarial_instances() if against in (None, _target(instance))]
    if not found:
        known = sorted({_target(instance) for instance in adversarial_instances()})
        raise ConfigError(f"option against: {against!r}, expected one of {', '.join(known) or 'none, no data'}")
    chosen = [instance for instance in found if (instance.tasks, instance.devices) == (tasks, devices)]
    if not chosen:
        sizes = sorted({f"{instance.tasks} x {instance.devices}" for instance in found})
        raise ConfigError(f"options tasks, devices: {tasks} x {devices}, expected one of {', '.join(sizes)}")
    return chosen
