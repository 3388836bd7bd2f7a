"""Instance generators by name, and the random layered graphs of Topcuoglu, Hariri and Wu."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from schedrl.arrays import I32, I64
from schedrl.envs.socdag import soc, structured, tiled, workflows
from schedrl.envs.socdag.adversarial import adversarial
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.structured import RandomCosts
from schedrl.errors import ConfigError

__all__ = ["GENERATORS", "OUT_DEGREES", "SHAPES", "topcuoglu"]

SHAPES = (0.5, 1.0, 2.0)
OUT_DEGREES = (1, 2, 3, 4, 5)


def topcuoglu(
    rng: np.random.Generator,
    *,
    tasks: int = 50,
    devices: int = 4,
    shape: float | None = None,
    out_degree: int | None = None,
    ccr: float | None = None,
    heterogeneity: float | None = None,
    mean_duration: float = 10.0,
    noise_sigma: float = 0.0,
    name: str | None = None,
) -> SocDagInstance:
    """Draw a random layered graph on unlike devices (Topcuoglu et al., IEEE TPDS 13(3), 2002).

    Levels are about ``sqrt(tasks) * shape`` wide, hence about ``sqrt(tasks) / shape`` many. Every task sends
    data to ``out_degree`` tasks of later levels, fewer where fewer remain, and every task below the first level
    has a predecessor in the level before, which may take one edge more. Costs are those of ``RandomCosts``.
    What is None is drawn once per instance from the values over which the paper averages.

    Args:
        rng: Source of randomness.
        tasks: Number of tasks, at least 1, met exactly.
        devices: Number of devices, each of its own type.
        shape: Alpha, above 0: small values give deep graphs, large ones wide graphs.
        out_degree: Edges from each task, at least 1.
        ccr: Mean communication time over mean duration.
        heterogeneity: Beta, 0 to 2, the spread of a task's durations over devices.
        mean_duration: Mean duration in seconds.
        noise_sigma: Standard deviation of the relative error of the expected durations.
        name: Name of the instance.

    Raises:
        ConfigError: a value outside its range.
    """
    if tasks < 1:
        raise ConfigError(f"option tasks: {tasks}, expected at least 1")
    if shape is not None and not 0.0 < shape < np.inf:
        raise ConfigError(f"option shape: {shape}, expected a positive number")
    if out_degree is not None and out_degree < 1:
        raise ConfigError(f"option out_degree: {out_degree}, expected at least 1")
    costs = RandomCosts(
        devices=devices,
        ccr=ccr,
        heterogeneity=heterogeneity,
        mean_duration=mean_duration,
        noise_sigma=noise_sigma,
    )
    shape = SHAPES[rng.integers(len(SHAPES))] if shape is None else shape
    out_degree = OUT_DEGREES[rng.integers(len(OUT_DEGREES))] if out_degree is None else out_degree
    edge = _layered_edges(rng, tasks, _level_starts(rng, tasks, shape), out_degree)
    return costs.instance(rng, name or f"topcuoglu-{tasks}x{devices}", _task_names(tasks), edge)


GENERATORS: Mapping[str, Callable[..., SocDagInstance]] = MappingProxyType(
    {
        "topcuoglu": topcuoglu,
        "cholesky": tiled.cholesky,
        "lu": tiled.lu,
        "qr": tiled.qr,
        "gaussian-elimination": structured.gaussian_elimination,
        "fft": structured.fft,
        "fork-join": structured.fork_join,
        "in-tree": structured.in_tree,
        "out-tree": structured.out_tree,
        "stencil": structured.stencil,
        "laplace": structured.laplace,
        "stream-3pe": soc.stream_3pe,
        "stream-16pe": soc.stream_16pe,
        "agentic": workflows.agentic,
        "adversarial": adversarial,
    }
)


@lru_cache(maxsize=256)
def _task_names(tasks: int) -> tuple[str, ...]:
    return tuple(f"t{number}" for number in range(tasks))


def _level_starts(rng: np.random.Generator, tasks: int, shape: float) -> I64:
    """Return (L + 1,) the first task of each level, the last being ``tasks``; widths are uniform about their mean."""
    widest = max(int(np.rint(2.0 * np.sqrt(tasks) * shape)) - 1, 1)
    # The mean width decides how many draws it takes; every level has a task, so ``tasks`` draws always suffice.
    end = np.cumsum(rng.integers(1, widest, size=tasks, endpoint=True))
    levels = int(np.searchsorted(end, tasks))
    return np.concatenate([[0], end[:levels], [tasks]])


def _layered_edges(rng: np.random.Generator, tasks: int, start: I64, out_degree: int) -> I32:
    """Return (E, 2) distinct edges towards later levels, by source and then target."""
    width = np.diff(start)
    task = np.arange(tasks)
    later = np.repeat(start[1:], width)  # (N,) first task of the next level
    left = (tasks - later)[:, None]
    # Sorted draws from fewer values, spread by their rank, are distinct.
    degree = np.minimum(out_degree, left)
    draw = np.sort(rng.random((tasks, out_degree)), axis=1)
    rank = np.arange(out_degree)
    offset = (draw * (left - degree + 1)).astype(np.int64) + rank
    kept = rank < degree
    source = np.broadcast_to(task[:, None], kept.shape)[kept]
    target = (later[:, None] + offset)[kept]
    lower = task[width[0] :]
    before = np.repeat(start[:-2], width[1:])  # (N - W,) first task of the level before
    parent = before + (rng.random(len(lower)) * np.repeat(width[:-1], width[1:])).astype(np.int64)
    fed = np.zeros(tasks, dtype=np.bool_)
    fed[target[source >= np.repeat(np.concatenate([[0], start[:-2]]), width)[target]]] = True
    orphan = ~fed[lower]
    key = np.concatenate([source * tasks + target, parent[orphan] * tasks + lower[orphan]])
    key.sort()
    return np.stack([key // tasks, key % tasks], axis=1).astype(np.int32)
