"""Graphs of known shape: Topcuoglu's 10-task example, Gaussian elimination, FFT, fork-join, trees and stencils."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from schedrl.arrays import I32
from schedrl.devices import Device, Link, Platform
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.errors import ConfigError

__all__ = [
    "CCRS",
    "HETEROGENEITIES",
    "RandomCosts",
    "canonical",
    "fft",
    "fork_join",
    "gaussian_elimination",
    "in_tree",
    "laplace",
    "out_tree",
    "stencil",
    "unlike_devices",
]

# The values over which Topcuoglu et al. (2002) average; an option left out is drawn from them.
CCRS = (0.1, 0.5, 1.0, 5.0, 10.0)
HETEROGENEITIES = (0.1, 0.25, 0.5, 0.75, 1.0)


@lru_cache(maxsize=64)
def unlike_devices(count: int) -> Platform:
    """Return ``count`` device types P1, P2, ... with one device each, all linked at 1 byte per second.

    Raises:
        ConfigError: fewer than one device.
    """
    if count < 1:
        raise ConfigError(f"option devices: {count}, expected at least 1")
    names = [f"P{number}" for number in range(1, count + 1)]
    link = Link(latency_s=0.0, bandwidth_bytes_per_s=1.0)
    return Platform(
        devices=tuple(Device(name=name) for name in names),
        counts=(1,) * count,
        links={(source, target): link for source in names for target in names if source != target},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomCosts:
    """Execution and communication costs as Topcuoglu, Hariri and Wu draw them (IEEE TPDS 13(3), 2002).

    A task's mean duration is uniform on 0 to ``2 * mean_duration``, its duration on each device within a share
    ``heterogeneity / 2`` of that mean, the data of an edge on 0 to ``2 * ccr * mean_duration`` bytes, which take
    as many seconds. What is None is drawn once per instance from the values of that paper.

    Raises:
        ConfigError: a value outside its range.
    """

    devices: int
    ccr: float | None = None
    """mean communication time over mean duration, 0 or more"""
    heterogeneity: float | None = None
    """beta, 0 (all devices alike) to 2"""
    mean_duration: float = 10.0
    """seconds, above 0"""
    noise_sigma: float = 0.0
    """standard deviation of the relative error of the expected durations, 0 or more"""

    def __post_init__(self) -> None:
        if self.ccr is not None and not 0.0 <= self.ccr < np.inf:
            raise ConfigError(f"option ccr: {self.ccr}, expected 0 or more")
        if self.heterogeneity is not None and not 0.0 <= self.heterogeneity <= 2.0:
            raise ConfigError(f"option heterogeneity: {self.heterogeneity}, expected 0 to 2")
        if not 0.0 < self.mean_duration < np.inf:
            raise ConfigError(f"option mean_duration: {self.mean_duration}, expected a positive number")
        if not 0.0 <= self.noise_sigma < np.inf:
            raise ConfigError(f"option noise_sigma: {self.noise_sigma}, expected 0 or more")

    def instance(self, rng: np.random.Generator, name: str, task_names: tuple[str, ...], edge: I32) -> SocDagInstance:
        """Draw costs for a graph of given edges (E, 2), and then the noise, so that it changes nothing else."""
        platform = unlike_devices(self.devices)
        ccr = CCRS[rng.integers(len(CCRS))] if self.ccr is None else self.ccr
        beta = HETEROGENEITIES[rng.integers(len(HETEROGENEITIES))] if self.heterogeneity is None else self.heterogeneity
        tasks = len(task_names)
        mean = rng.uniform(0.0, 2.0 * self.mean_duration, size=(tasks, 1))
        graph = TaskGraph(
            name=name,
            task_names=task_names,
            duration=mean * rng.uniform(1.0 - beta / 2.0, 1.0 + beta / 2.0, size=(tasks, self.devices)),
            edge=edge,
            edge_bytes=rng.uniform(0.0, 2.0 * ccr * self.mean_duration, size=len(edge)),
        )
        noise = rng.standard_normal(tasks) if self.noise_sigma else None
        return SocDagInstance(name=name, platform=platform, graphs=(graph,), noise_sigma=self.noise_sigma, noise=noise)


_CANONICAL_COSTS = (
    (14, 16, 9), (13, 19, 18), (11, 13, 19), (13, 8, 17), (12, 13, 10),
    (13, 16, 9), (7, 15, 11), (5, 11, 14), (18, 12, 20), (21, 7, 16),
)  # fmt: skip
_CANONICAL_EDGES = (
    (1, 2, 18), (1, 3, 12), (1, 4, 9), (1, 5, 11), (1, 6, 14), (2, 8, 19), (2, 9, 16), (3, 7, 23),
    (4, 8, 27), (4, 9, 23), (5, 9, 13), (6, 8, 15), (7, 10, 17), (8, 10, 11), (9, 10, 13),
)  # fmt: skip


def canonical() -> SocDagInstance:
    """Return the 10-task graph on 3 processors of Topcuoglu et al. (IEEE TPDS 13(3), 2002, figure 2).

    HEFT gives 80, CPOP 86; the optimum is 73.
    """
    edge = np.array(_CANONICAL_EDGES)
    graph = TaskGraph(
        name="canonical",
        task_names=tuple(str(number) for number in range(1, 11)),
        duration=np.array(_CANONICAL_COSTS),
        edge=edge[:, :2] - 1,
        edge_bytes=edge[:, 2],
    )
    return SocDagInstance(name="canonical", platform=unlike_devices(3), graphs=(graph,))


def gaussian_elimination(
    rng: np.random.Generator,
    *,
    matrix: int = 8,
    devices: int = 4,
    ccr: float | None = None,
    heterogeneity: float | None = None,
    noise_sigma: float = 0.0,
    name: str | None = None,
) -> SocDagInstance:
    """Draw costs for Gaussian elimination of an m x m matrix: (m^2 + m - 2) / 2 tasks (Topcuoglu et al. 2002).

    Step k finds the pivot, which all updates of the columns behind it need; each of those goes on to the same
    column in step k + 1, whose pivot is the first of them.

    Args:
        rng: Source of randomness.
        matrix: m, at least 2.
        devices: Number of devices, each of its own type.
        ccr: See ``RandomCosts``, like the two options after it.
        heterogeneity: See ``RandomCosts``.
        noise_sigma: See ``RandomCosts``.
        name: Name of the instance.

    Raises:
        ConfigError: a value outside its range.
    """
    _require("matrix", matrix, 2)
    costs = RandomCosts(devices=devices, ccr=ccr, heterogeneity=heterogeneity, noise_sigma=noise_sigma)
    return _shaped(rng, costs, name or f"gaussian-elimination-{matrix}", _elimination(matrix))


def fft(
    rng: np.random.Generator,
    *,
    points: int = 8,
    devices: int = 4,
    ccr: float | None = None,
    heterogeneity: float | None = None,
    noise_sigma: float = 0.0,
    name: str | None = None,
) -> SocDagInstance:
    """Draw costs for the FFT of m points: 2 m - 1 recursive calls and m log2 m butterflies (Topcuoglu et al. 2002).

    ``points`` is m, a power of two from 2; the other options are as in ``gaussian_elimination``.

    Raises:
        ConfigError: a value outside its range.
    """
    _require("points", points, 2)
    if points & (points - 1):
        raise ConfigError(f"option points: {points}, expected a power of two")
    costs = RandomCosts(devices=devices, ccr=ccr, heterogeneity=heterogeneity, noise_sigma=noise_sigma)
    return _shaped(rng, costs, name or f"fft-{points}", _butterflies(points))


def fork_join(
    rng: np.random.Generator,
    *,
    branches: int = 8,
    stages: int = 3,
    devices: int = 4,
    ccr: float | None = None,
    heterogeneity: float | None = None,
    noise_sigma: float = 0.0,
    name: str | None = None,
) -> SocDagInstance:
    """Draw costs for stages in which a task forks into ``branches`` parallel ones that join again.

    The join of a stage is the fork of the next, so there are ``1 + stages * (branches + 1)`` tasks. The other
    options are as in ``gaussian_elimination``.

    Raises:
        ConfigError: a value outside its range.
    """
    _require("branches", branches, 1)
    _require("stages", stages, 1)
    costs = RandomCosts(devices=devices, ccr=ccr, heterogeneity=heterogeneity, noise_sigma=noise_sigma)
    return _shaped(rng, costs, name or f"fork-join-{branches}x{stages}", _forks(branches, stages))


def out_tree(
    rng: np.random.Generator,
    *,
    levels: int = 5,
    arity: int = 2,
    devices: int = 4,
    ccr: float | None = None,
    heterogeneity: float | None = None,
    noise_sigma: float = 0.0,
    name: str | None = None,
) -> SocDagInstance:
    """Draw costs for a complete tree of ``levels`` whose tasks each feed ``arity`` others.

    The other options are as in ``gaussian_elimination``.

    Raises:
        ConfigError: a value outside its range.
    """
    _require("levels", levels, 1)
    _require("arity", arity, 1)
    costs = RandomCosts(devices=devices, ccr=ccr, heterogeneity=heterogeneity, noise_sigma=noise_sigma)
    return _shaped(rng, costs, name or f"out-tree-{levels}x{arity}", _tree(levels, arity))


def in_tree(
    rng: np.random.Generator,
    *,
    levels: int = 5,
    arity: int = 2,
    devices: int = 4,
    ccr: float | None = None,
    heterogeneity: float | None = None,
    noise_sigma: float = 0.0,
    name: str | None = None,
) -> SocDagInstance:
    """Draw costs for a complete tree of ``levels`` whose tasks each join ``arity`` others, down to one.

    The other options are as in ``gaussian_elimination``.

    Raises:
        ConfigError: a value outside its range.
    """
    _require("levels", levels, 1)
    _require("arity", arity, 1)
    costs = RandomCosts(devices=devices, ccr=ccr, heterogeneity=heterogeneity, noise_sigma=noise_sigma)
    names, edge = _tree(levels, arity)
    # Reversed edges, renumbered from the other end so that sources still have the lower numbers.
    return _shaped(rng, costs, name or f"in-tree-{levels}x{arity}", (names, len(names) - 1 - edge[::-1, ::-1]))


def stencil(
    rng: np.random.Generator,
    *,
    points: int = 8,
    steps: int = 4,
    devices: int = 4,
    ccr: float | None = None,
    heterogeneity: float | None = None,
    noise_sigma: float = 0.0,
    name: str | None = None,
) -> SocDagInstance:
    """Draw costs for Jacobi steps on a line: each point needs itself and its neighbours one step before.

    ``points * steps`` tasks; the other options are as in ``gaussian_elimination``.

    Raises:
        ConfigError: a value outside its range.
    """
    _require("points", points, 1)
    _require("steps", steps, 1)
    costs = RandomCosts(devices=devices, ccr=ccr, heterogeneity=heterogeneity, noise_sigma=noise_sigma)
    return _shaped(rng, costs, name or f"stencil-{points}x{steps}", _line(points, steps))


def laplace(
    rng: np.random.Generator,
    *,
    side: int = 6,
    devices: int = 4,
    ccr: float | None = None,
    heterogeneity: float | None = None,
    noise_sigma: float = 0.0,
    name: str | None = None,
) -> SocDagInstance:
    """Draw costs for a Gauss-Seidel sweep of Laplace's equation: ``side^2`` tasks, each feeds right and down.

    The graph is the diamond of Wu and Gajski (IEEE TPDS 1(3), 1990); the options are as in
    ``gaussian_elimination``.

    Raises:
        ConfigError: a value outside its range.
    """
    _require("side", side, 1)
    costs = RandomCosts(devices=devices, ccr=ccr, heterogeneity=heterogeneity, noise_sigma=noise_sigma)
    return _shaped(rng, costs, name or f"laplace-{side}", _diamond(side))


_Shape = tuple[tuple[str, ...], I32]  # names of the tasks; (E, 2) edges


def _require(option: str, value: int, low: int) -> None:
    if value < low:
        raise ConfigError(f"option {option}: {value}, expected at least {low}")


def _shaped(rng: np.random.Generator, costs: RandomCosts, name: str, shape: _Shape) -> SocDagInstance:
    return costs.instance(rng, name, *shape)


def _shape(edges: Iterable[tuple[str, str]], first: str) -> _Shape:
    """Number tasks by their first appearance among edges between names, beginning with ``first``."""
    number = {first: 0}
    pairs = [[number.setdefault(end, len(number)) for end in pair] for pair in edges]
    return tuple(number), np.array(pairs, dtype=np.int32).reshape(-1, 2)


@lru_cache(maxsize=64)
def _elimination(matrix: int) -> _Shape:
    edges = []
    for k in range(1, matrix):
        edges += [(f"pivot({k})", f"update({k},{j})") for j in range(k + 1, matrix + 1)]
        if k < matrix - 1:
            edges.append((f"update({k},{k + 1})", f"pivot({k + 1})"))
            edges += [(f"update({k},{j})", f"update({k + 1},{j})") for j in range(k + 2, matrix + 1)]
    return _shape(edges, "pivot(1)")


@lru_cache(maxsize=64)
def _butterflies(points: int) -> _Shape:
    stages = points.bit_length() - 1
    edges = []
    for level in range(stages):
        for node in range(2**level):
            edges += [(f"call({level},{node})", f"call({level + 1},{2 * node + side})") for side in (0, 1)]
    for stage in range(stages):
        kind, before = ("call", stages) if stage == 0 else ("butterfly", stage - 1)
        for point in range(points):
            sources = (point, point ^ (1 << stage))
            edges += [(f"{kind}({before},{source})", f"butterfly({stage},{point})") for source in sources]
    return _shape(edges, "call(0,0)")


@lru_cache(maxsize=64)
def _forks(branches: int, stages: int) -> _Shape:
    edges = []
    for stage in range(stages):
        for branch in range(branches):
            edges += list(pairwise([f"join({stage})", f"branch({stage},{branch})", f"join({stage + 1})"]))
    return _shape(edges, "join(0)")


@lru_cache(maxsize=64)
def _tree(levels: int, arity: int) -> _Shape:
    tasks = sum(arity**level for level in range(levels))
    edges = [((child - 1) // arity, child) for child in range(1, tasks)]
    return tuple(f"t{task}" for task in range(tasks)), np.array(edges, dtype=np.int32).reshape(-1, 2)


@lru_cache(maxsize=64)
def _line(points: int, steps: int) -> _Shape:
    edges = [
        ((step - 1) * points + source, step * points + point)
        for step in range(1, steps)
        for point in range(points)
        for source in range(max(point - 1, 0), min(point + 2, points))
    ]
    names = tuple(f"point({step},{point})" for step in range(steps) for point in range(points))
    return names, np.array(edges, dtype=np.int32).reshape(-1, 2)


@lru_cache(maxsize=64)
def _diamond(side: int) -> _Shape:
    tasks = np.arange(side * side, dtype=np.int32).reshape(side, side)
    right = np.stack([tasks[:, :-1].ravel(), tasks[:, 1:].ravel()], axis=1)
    down = np.stack([tasks[:-1].ravel(), tasks[1:].ravel()], axis=1)
    return tuple(f"cell({i},{j})" for i in range(side) for j in range(side)), np.concatenate([right, down])
