"""Tiled matrix factorisations on CPUs and GPUs: Cholesky, LU and flat-tree QR.

The kernel times are those of READYS (Grinsztajn et al., IEEE CLUSTER 2021), in milliseconds; moving tiles is
free there, so edges carry no bytes. Edges follow from the sequential algorithm: a kernel waits for the last
kernel before it that wrote a tile which it reads or writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from schedrl.devices import Device, Platform
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.task_graph import TaskGraph
from schedrl.errors import ConfigError

__all__ = ["KERNEL_MS", "cholesky", "lu", "qr", "tiled_graph"]

# Milliseconds on a CPU core and on a GPU.
KERNEL_MS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "POTRF": (18.0, 11.0),
        "TRSM": (52.0, 8.0),
        "SYRK": (57.0, 2.0),
        "GEMM": (95.0, 3.0),
        "LU": (18.0, 11.0),
        "FWD": (52.0, 8.0),
        "BDIV": (52.0, 8.0),
        "BMOD": (95.0, 3.0),
        "GEQRT": (4.0, 3.0),
        "ORMQR": (6.0, 1.0),
        "TSQRT": (6.0, 3.0),
        "TSMQR": (10.0, 1.0),
    }
)

_Tile = tuple[int, int]


class _Call(NamedTuple):
    """One kernel call of a sequential algorithm."""

    kernel: str
    at: tuple[int, ...]  # loop indices
    reads: tuple[_Tile, ...]
    writes: tuple[_Tile, ...]  # read as well


def cholesky(
    rng: np.random.Generator,
    *,
    tiles: int = 8,
    cpus: int = 2,
    gpus: int = 2,
    noise_sigma: float = 0.0,
    name: str | None = None,
) -> SocDagInstance:
    """Return the right-looking tiled Cholesky factorisation: T (T + 1) (T + 2) / 6 tasks for T x T tiles.

    Args:
        rng: Draws the noise, nothing else.
        tiles: T, at least 1.
        cpus: CPU cores, 0 or more.
        gpus: GPUs, 0 or more.
        noise_sigma: Standard deviation of the relative error of the expected durations.
        name: Name of the instance.

    Raises:
        ConfigError: a number outside its range, or no device at all.
    """
    return _instance(rng, "cholesky", tiles, (cpus, gpus), noise_sigma, name)


def lu(
    rng: np.random.Generator,
    *,
    tiles: int = 8,
    cpus: int = 2,
    gpus: int = 2,
    noise_sigma: float = 0.0,
    name: str | None = None,
) -> SocDagInstance:
    """Return the tiled LU factorisation without pivoting: T (T + 1) (2 T + 1) / 6 tasks; options as ``cholesky``.

    Raises:
        ConfigError: a number outside its range, or no device at all.
    """
    return _instance(rng, "lu", tiles, (cpus, gpus), noise_sigma, name)


def qr(
    rng: np.random.Generator,
    *,
    tiles: int = 8,
    cpus: int = 2,
    gpus: int = 2,
    noise_sigma: float = 0.0,
    name: str | None = None,
) -> SocDagInstance:
    """Return the flat-tree tiled QR factorisation: T (T + 1) (2 T + 1) / 6 tasks; options as ``cholesky``.

    Raises:
        ConfigError: a number outside its range, or no device at all.
    """
    return _instance(rng, "qr", tiles, (cpus, gpus), noise_sigma, name)


def _instance(
    rng: np.random.Generator,
    algorithm: str,
    tiles: int,
    counts: tuple[int, int],
    noise_sigma: float,
    name: str | None,
) -> SocDagInstance:
    if not 0.0 <= noise_sigma < np.inf:
        raise ConfigError(f"option noise_sigma: {noise_sigma}, expected 0 or more")
    graph = tiled_graph(algorithm, tiles, counts)
    return SocDagInstance(
        name=name or f"{algorithm}-{tiles}",
        platform=_platform(counts),
        graphs=(graph,),
        noise_sigma=noise_sigma,
        noise=rng.standard_normal(graph.tasks) if noise_sigma else None,
        time_unit_s=1e-3,
    )


@lru_cache(maxsize=64)
def tiled_graph(algorithm: str, tiles: int, counts: tuple[int, int]) -> TaskGraph:
    """Return the graph of an algorithm; its columns are the types, cpu and gpu, of which ``counts`` has any.

    Args:
        algorithm: ``cholesky``, ``lu`` or ``qr``.
        tiles: Tiles per side, at least 1.
        counts: Number of CPU cores and of GPUs.

    Raises:
        ConfigError: fewer than one tile, or no device at all.
    """
    if tiles < 1:
        raise ConfigError(f"option tiles: {tiles}, expected at least 1")
    columns = _columns(counts)
    calls = list(_ALGORITHMS[algorithm](tiles))
    writer: dict[_Tile, int] = {}
    edge: list[tuple[int, int]] = []
    for task, call in enumerate(calls):
        sources = {writer[tile] for tile in (*call.reads, *call.writes) if tile in writer}
        edge.extend((source, task) for source in sorted(sources))
        writer.update(dict.fromkeys(call.writes, task))
    return TaskGraph(
        name=f"{algorithm}-{tiles}",
        task_names=tuple(f"{call.kernel}({','.join(map(str, call.at))})" for call in calls),
        duration=np.array([KERNEL_MS[call.kernel] for call in calls])[:, columns],
        edge=np.array(edge, dtype=np.int32).reshape(-1, 2),
        edge_bytes=np.zeros(len(edge)),
    )


@lru_cache(maxsize=64)
def _platform(counts: tuple[int, int]) -> Platform:
    used = _columns(counts)
    return Platform(
        devices=tuple(Device(name=("cpu", "gpu")[column]) for column in used),
        counts=tuple(counts[column] for column in used),
    )


def _columns(counts: tuple[int, int]) -> list[int]:
    """Return the columns of ``KERNEL_MS`` of which there are devices."""
    for option, count in zip(("cpus", "gpus"), counts, strict=True):
        if count < 0:
            raise ConfigError(f"option {option}: {count}, expected 0 or more")
    if not any(counts):
        raise ConfigError("options cpus and gpus: both 0, expected at least one device")
    return [column for column, count in enumerate(counts) if count]


def _cholesky(tiles: int) -> Iterator[_Call]:
    for k in range(tiles):
        yield _Call("POTRF", (k,), (), ((k, k),))
        for i in range(k + 1, tiles):
            yield _Call("TRSM", (i, k), ((k, k),), ((i, k),))
        for i in range(k + 1, tiles):
            yield _Call("SYRK", (i, k), ((i, k),), ((i, i),))
            for j in range(k + 1, i):
                yield _Call("GEMM", (i, j, k), ((i, k), (j, k)), ((i, j),))


def _lu(tiles: int) -> Iterator[_Call]:
    for k in range(tiles):
        yield _Call("LU", (k,), (), ((k, k),))
        for j in range(k + 1, tiles):
            yield _Call("FWD", (k, j), ((k, k),), ((k, j),))
        for i in range(k + 1, tiles):
            yield _Call("BDIV", (i, k), ((k, k),), ((i, k),))
        for i in range(k + 1, tiles):
            for j in range(k + 1, tiles):
                yield _Call("BMOD", (i, j, k), ((i, k), (k, j)), ((i, j),))


def _qr(tiles: int) -> Iterator[_Call]:
    for k in range(tiles):
        yield _Call("GEQRT", (k,), (), ((k, k),))
        for j in range(k + 1, tiles):
            yield _Call("ORMQR", (k, j), ((k, k),), ((k, j),))
        for i in range(k + 1, tiles):
            yield _Call("TSQRT", (i, k), (), ((k, k), (i, k)))
            for j in range(k + 1, tiles):
                yield _Call("TSMQR", (i, j, k), ((i, k),), ((k, j), (i, j)))


_ALGORITHMS: Mapping[str, Callable[[int], Iterator[_Call]]] = MappingProxyType(
    {"cholesky": _cholesky, "lu": _lu, "qr": _qr}
)
