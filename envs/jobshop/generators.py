"""Instance generators: Taillard's published one, bit for bit, and seeded random ones for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from schedrl.arrays import I32, I64
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.option_checks import require_size
from schedrl.errors import ConfigError

__all__ = [
    "GENERATORS",
    "TAILLARD_SEEDS",
    "TaillardSeed",
    "flow_shop",
    "recirculating",
    "taillard",
    "taillard_like",
    "two_sets",
    "uniform",
]


class TaillardSeed(NamedTuple):
    """Size and seeds from which one of Taillard's instances is generated."""

    jobs: int
    machines: int
    time_seed: int
    machine_seed: int


# E. Taillard, Benchmarks for basic scheduling problems, EJOR 64 (1993) 278-285: ten instances per size,
# each a time seed and a machine seed.
_SEEDS = {
    (15, 15): """
        840612802 398197754 1314640371 386720536 1227221349 316176388 342269428 1806358582 1603221416 1501949241
        1357584978 1734077082 44531661 1374316395 302545136 2092186050 1153780144 1393392374 73896786 1544979948""",
    (20, 15): """
        533484900 317419073 1894307698 1474268163 874340513 509669280 1124986343 1209573668 1463788335 529048107
        1056908795 25321885 195672285 1717580117 961965583 1353003786 1610169733 1734469503 532794656 998486810""",
    (20, 20): """
        1035939303 773961798 5997802 1872541150 1357503601 722225039 806159563 1166962073 1902815253 1879990068
        1503184031 1850351876 1032645967 99711329 229894219 1158117804 823349822 108033225 1297900341 489486403""",
    (30, 15): """
        98640593 1981283465 1839268120 248890888 573875290 2081512253 1670898570 788294565 1118914567 1074349202
        178750207 294279708 1549372605 596993084 798174738 151685779 553410952 1329272528 1661531649 1173386294""",
    (30, 20): """
        1841414609 1357882888 2116959593 1546338557 796392706 1230864158 532496463 254174057 2020525633 978943053
        524444252 185526083 1569394691 487269855 1460267840 1631446539 198324822 1937476577 38071822 1541985579""",
    (50, 15): """
        17271 718939 660481279 449650254 352229765 949737911 1197518780 166840558 1376020303 483922052
        2106639239 955932362 1765352082 1209982549 1105092880 1349003108 907248070 919544535 2011630757 1845447001""",
    (50, 20): """
        8493988 2738939 1991925010 709517751 342093237 786960785 1634043183 973178279 341706507 286513148
        320167954 1411193018 1089696753 298068750 433032965 1589656152 615974477 331205412 236150141 592292984""",
    (100, 20): """
        302034063 1203569070 1437643198 1692025209 1792475497 1039908559 1647273132 1012841433 696480901 1689682358
        1785569423 1092647459 117806902 739059626 1639154709 1319962509 2007423389 749368241 682761130 262763021""",
}


def _seed_table() -> dict[str, TaillardSeed]:
    seeds = [
        TaillardSeed(*size, *pair)
        for size, text in _SEEDS.items()
        for pair in zip(*[iter(map(int, text.split()))] * 2, strict=True)
    ]
    return {f"ta{number:02d}": seed for number, seed in enumerate(seeds, start=1)}


TAILLARD_SEEDS: Mapping[str, TaillardSeed] = MappingProxyType(_seed_table())

_MODULUS = 2**31 - 1


def taillard(*, jobs: int, machines: int, time_seed: int, machine_seed: int, name: str) -> JobShopInstance:
    """Generate an instance as Taillard (1993) does, bit for bit.

    Durations are drawn from 1 to 99 with one stream of his congruential generator, the machine orders by
    swaps with another.

    Args:
        jobs: Number of jobs, at least 1.
        machines: Number of machines, at least 1; every job visits each once.
        time_seed: Seed of the durations, 1 to 2^31 - 2.
        machine_seed: Seed of the machine orders, 1 to 2^31 - 2.
        name: Name of the instance.

    Raises:
        ConfigError: a size below 1 or a seed outside its range.
    """
    require_size(jobs, machines)
    for field, seed in (("time_seed", time_seed), ("machine_seed", machine_seed)):
        if not 1 <= seed < _MODULUS:
            raise ConfigError(f"option {field}: {seed}, expected 1 to {_MODULUS - 1}")
    machine, duration = _taillard_arrays(jobs, machines, time_seed, machine_seed)
    return _rectangular(name, machine, duration)


def taillard_like(rng: np.random.Generator, *, jobs: int, machines: int, name: str | None = None) -> JobShopInstance:
    """Draw two seeds and run Taillard's generator with them."""
    time_seed, machine_seed = (int(seed) for seed in rng.integers(1, _MODULUS, size=2))
    name = name or f"taillard-{jobs}x{machines}"
    return taillard(jobs=jobs, machines=machines, time_seed=time_seed, machine_seed=machine_seed, name=name)


def uniform(
    rng: np.random.Generator, *, jobs: int, machines: int, low: int = 1, high: int = 99, name: str | None = None
) -> JobShopInstance:
    """Draw every duration from ``low`` to ``high`` inclusive and every job's machine order uniformly.

    The distribution is Taillard's (1993); the stream is numpy's, and faster.

    Raises:
        ConfigError: a size below 1, or durations not ``0 <= low <= high``.
    """
    require_size(jobs, machines)
    machine = rng.random((jobs, machines)).argsort(axis=1)
    return _rectangular(name or f"uniform-{jobs}x{machines}", machine, _durations(rng, machine.shape, low, high))


def two_sets(
    rng: np.random.Generator, *, jobs: int, machines: int, low: int = 1, high: int = 200, name: str | None = None
) -> JobShopInstance:
    """Draw jobs that visit every machine of the first half before any of the second, each half in random order.

    The hard sets of Storer, Wu and Vaccari (Management Science 38, 1992; durations to 100) and of Demirkol,
    Mehta and Uzsoy (EJOR 109, 1998; durations to 200) are built so. With an odd count the second half is larger.

    Raises:
        ConfigError: a size below 1, or durations not ``0 <= low <= high``.
    """
    require_size(jobs, machines)
    keys = rng.random((jobs, machines))
    keys[:, machines // 2 :] += 1.0
    machine = keys.argsort(axis=1)
    return _rectangular(name or f"two-sets-{jobs}x{machines}", machine, _durations(rng, machine.shape, low, high))


def flow_shop(
    rng: np.random.Generator, *, jobs: int, machines: int, low: int = 1, high: int = 99, name: str | None = None
) -> JobShopInstance:
    """Draw jobs that all visit machine 0, then 1, and so on: a flow shop as a job shop (Taillard 1993).

    Raises:
        ConfigError: a size below 1, or durations not ``0 <= low <= high``.
    """
    require_size(jobs, machines)
    machine = np.broadcast_to(np.arange(machines), (jobs, machines))
    return _rectangular(name or f"flow-shop-{jobs}x{machines}", machine, _durations(rng, machine.shape, low, high))


def recirculating(
    rng: np.random.Generator, *, jobs: int, machines: int, low: int = 1, high: int = 99, name: str | None = None
) -> JobShopInstance:
    """Draw re-entrant jobs of unequal length: from half to twice as many operations as there are machines.

    Each operation goes to a uniformly drawn machine other than the one before it, as wafers and other
    re-entrant products do; with one machine all go there.

    Raises:
        ConfigError: a size below 1, or durations not ``0 <= low <= high``.
    """
    require_size(jobs, machines)
    lengths = rng.integers((machines + 1) // 2, 2 * machines, size=jobs, endpoint=True)
    offset = np.concatenate([[0], np.cumsum(lengths)])
    step = rng.integers(1, max(machines, 2), size=offset[-1])
    step[offset[:-1]] = rng.integers(0, machines, size=jobs)
    # A sum of steps 1 to M - 1 modulo M, restarted at each job, never stays on a machine.
    total = np.cumsum(step)
    before = np.repeat(total[offset[:-1]] - step[offset[:-1]], lengths)
    return JobShopInstance(
        name=name or f"recirculating-{jobs}x{machines}",
        machines=machines,
        job_offset=offset,
        machine=(total - before) % machines,
        duration=_durations(rng, (int(offset[-1]),), low, high),
    )


GENERATORS: Mapping[str, Callable[..., JobShopInstance]] = MappingProxyType(
    {
        "uniform": uniform,
        "taillard": taillard_like,
        "two-sets": two_sets,
        "flow-shop": flow_shop,
        "recirculating": recirculating,
    }
)


def _durations(rng: np.random.Generator, shape: tuple[int, ...], low: int, high: int) -> I64:
    if not 0 <= low <= high:
        raise ConfigError(f"options low and high: {low} and {high}, expected 0 <= low <= high")
    return rng.integers(low, high, size=shape, endpoint=True)


def _rectangular(name: str, machine: Any, duration: I64) -> JobShopInstance:
    jobs, machines = machine.shape
    return JobShopInstance(
        name=name,
        machines=machines,
        job_offset=np.arange(0, jobs * machines + 1, machines),
        machine=machine.ravel(),
        duration=duration.ravel(),
    )


@njit(cache=True)
def _next_state(state: int) -> int:
    """Advance x to 16807 x modulo 2^31 - 1, in Schrage's form, which fits 32 bits."""
    quotient = state // 127773
    state = 16807 * (state % 127773) - quotient * 2836
    return state if state >= 0 else state + 2147483647


@njit(cache=True)
def _taillard_arrays(jobs: int, machines: int, time_seed: int, machine_seed: int) -> tuple[I32, I64]:
    """Return machine and duration, each (J, M)."""
    duration = np.empty((jobs, machines), dtype=np.int64)
    state = time_seed
    for j in range(jobs):
        for k in range(machines):
            state = _next_state(state)
            duration[j, k] = 1 + int(state / 2147483647 * 99)
    machine = np.empty((jobs, machines), dtype=np.int32)
    state = machine_seed
    for j in range(jobs):
        for k in range(machines):
            machine[j, k] = k
        for k in range(machines):
            state = _next_state(state)
            other = k + int(state / 2147483647 * (machines - k))
            machine[j, k], machine[j, other] = machine[j, other], machine[j, k]
    return machine, duration
