"""Seeded generators of shops: choice of machines, blocking with interruptions, setups, due dates on one machine.

Each draws a fixed number of values in a fixed order per part, so that instances of one seed that differ in one option
share all else (common random numbers).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np

from schedrl.arrays import I32, I64
from schedrl.envs.jobshop.dynamic_shops import OBJECTIVES, dynamic_fields
from schedrl.envs.jobshop.generators import uniform
from schedrl.envs.jobshop.option_checks import require_between, require_choice, require_ordered, require_size
from schedrl.envs.jobshop.shop import Blocking, ShopInstance
from schedrl.envs.jobshop.single_machine_generators import (
    RELATIVE_RANGES,
    TARDINESS_FACTORS,
    uniform_single_machine,
)
from schedrl.errors import ConfigError

__all__ = [
    "SHOP_GENERATORS",
    "Speeds",
    "blocking_shop",
    "dynamic",
    "flexible",
    "setups",
    "single_machine",
    "total_tardiness_shop",
]

Speeds = Literal["similar", "unrelated", "equal"]
_SPREAD = 0.2


def flexible(
    rng: np.random.Generator,
    *,
    jobs: int,
    machines: int,
    least_operations: int | None = None,
    most_operations: int | None = None,
    most_alternatives: int | None = None,
    mean_alternatives: float | None = None,
    speeds: Speeds = "similar",
    low: int = 1,
    high: int = 20,
    name: str | None = None,
) -> ShopInstance:
    """Draw a flexible job shop.

    The defaults draw the SD1 data of Song et al. (IEEE TII 19(2), 2023), after Brandimarte's: 0.8 m to 1.2 m
    operations per job, 1 to m alternatives, mean times 1 to 20, and on each machine 0.8 to 1.2 times the mean.
    SD2 of Wang et al. (DANIEL, IEEE TNNLS, 2023): m operations per job, ``speeds="unrelated"``, ``high=99``. Like
    Hurink, Jurisch and Thole (OR Spektrum 15, 1994): m operations per job, ``speeds="equal"``, ``high=99`` and
    ``mean_alternatives`` 1.15 (edata), 2 (rdata) or m / 2 (vdata).

    Args:
        rng: Source of all draws.
        jobs: Number of jobs.
        machines: Number of machines m.
        least_operations: Fewest operations of a job, 0.8 m by default.
        most_operations: Most operations of a job, 1.2 m by default.
        most_alternatives: Most machines that an operation can choose from, m by default.
        mean_alternatives: Mean number of machines, each but the first of ``most_alternatives`` added with the same
            probability; by default all numbers from 1 to ``most_alternatives`` are as likely.
        speeds: Times of an operation on its machines: around a mean (similar), independent (unrelated), or equal.
        low: Least time, or mean time where speeds are similar.
        high: Most time, likewise.
        name: Name of the instance.

    Raises:
        ConfigError: an option outside its range.
    """
    require_size(jobs, machines)
    least = max(1, round(0.8 * machines)) if least_operations is None else least_operations
    most = max(least, round(1.2 * machines)) if most_operations is None else most_operations
    require_ordered("least_operations", least, "most_operations", most, least=1)
    require_ordered("low", low, "high", high, least=0)
    require_choice("speeds", speeds, get_args(Speeds))
    lengths = rng.integers(least, most, size=jobs, endpoint=True)
    alternatives = _alternatives(rng, int(lengths.sum()), machines, most_alternatives, mean_alternatives)
    mode_offset = np.concatenate([[0], np.cumsum(alternatives)])
    return ShopInstance(
        name=name or f"flexible-{jobs}x{machines}",
        machines=machines,
        job_offset=np.concatenate([[0], np.cumsum(lengths)]),
        mode_offset=mode_offset,
        machine=_mode_machines(rng, lengths, alternatives, machines),
        duration=_mode_durations(rng, alternatives, speeds, low, high),
    )


def _alternatives(
    rng: np.random.Generator, operations: int, machines: int, most: int | None, mean: float | None
) -> I64:
    """Return (N,) number of modes of each operation."""
    most = machines if most is None else most
    require_between("most_alternatives", most, 1, machines)
    if mean is None:
        return rng.integers(1, most, size=operations, endpoint=True)
    require_between("mean_alternatives", mean, 1, most)
    return 1 + rng.binomial(most - 1, (mean - 1) / max(most - 1, 1), size=operations)


def _mode_machines(rng: np.random.Generator, lengths: I64, alternatives: I64, machines: int) -> I32:
    """Return (K,) machines: an operation's own, which its job visits in turns of random order, and random others."""
    operations = int(lengths.sum())
    turns = rng.random((len(lengths), machines)).argsort(axis=1)
    job = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(operations) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    preference = rng.random((operations, machines))
    preference[np.arange(operations), turns[job, position % machines]] = -1.0
    chosen = preference.argsort(axis=1).argsort(axis=1) < alternatives[:, None]
    return np.nonzero(chosen)[1].astype(np.int32)


def _mode_durations(rng: np.random.Generator, alternatives: I64, speeds: Speeds, low: int, high: int) -> I64:
    """Return (K,) durations of modes that lie operation after operation."""
    mean = rng.integers(low, high, size=len(alternatives), endpoint=True)
    if speeds == "equal":
        return np.repeat(mean, alternatives)
    modes = int(alternatives.sum())
    if speeds == "unrelated":
        return rng.integers(low, high, size=modes, endpoint=True)
    least = np.maximum(np.minimum(mean, 1), np.rint((1 - _SPREAD) * mean).astype(np.int64))
    most = np.maximum(least, np.rint((1 + _SPREAD) * mean).astype(np.int64))
    return rng.integers(np.repeat(least, alternatives), np.repeat(most, alternatives), endpoint=True)


def blocking_shop(
    rng: np.random.Generator,
    *,
    jobs: int,
    machines: int,
    blocking: Blocking = "swap",
    shutdown_probability: float = 0.0,
    shortest_downtime: int = 1,
    longest_downtime: int = 99,
    low: int = 1,
    high: int = 99,
    name: str | None = None,
) -> ShopInstance:
    """Draw a classical job shop without room between machines, whose machines stop at random.

    With ``shutdown_probability`` an operation's machine stops as it starts, for a uniformly drawn time, and the
    operation takes that much longer (preempt-resume). One seed gives the same shop at every probability, and the
    interruptions of a lower one are among those of a higher one.

    Args:
        rng: Source of all draws.
        jobs: Number of jobs, each of which visits every machine once in random order.
        machines: Number of machines.
        blocking: What the absence of room means: swap, no-swap, or none for a shop with room.
        shutdown_probability: Probability that an operation is interrupted.
        shortest_downtime: Least time a machine stops.
        longest_downtime: Most time a machine stops.
        low: Least time of an operation.
        high: Most time of an operation.
        name: Name of the instance.

    Raises:
        ConfigError: an option outside its range.
    """
    require_choice("blocking", blocking, get_args(Blocking))
    require_between("shutdown_probability", shutdown_probability, 0.0, 1.0)
    require_ordered("shortest_downtime", shortest_downtime, "longest_downtime", longest_downtime, least=0)
    name = name or f"blocking-{jobs}x{machines}"
    shop = uniform(rng, jobs=jobs, machines=machines, low=low, high=high, name=name)
    stopped = rng.random(shop.operations) < shutdown_probability
    downtime = rng.integers(shortest_downtime, longest_downtime, size=shop.operations, endpoint=True)
    actual = shop.duration + np.where(stopped, downtime, 0)
    return ShopInstance.from_job_shop(shop, blocking=blocking, actual_duration=actual)


def dynamic(
    rng: np.random.Generator,
    *,
    jobs: int,
    machines: int,
    objective: str = "tardiness",
    utilisation: float = 0.8,
    variation: float = 1.0,
    tightness: float = 4.0,
    availability: float = 1.0,
    mean_repair: float = 250.0,
    failure_shape: float = 1.0,
    noise: float = 0.0,
    noise_distribution: str = "log-normal",
    least_operations: int | None = None,
    most_operations: int | None = None,
    most_alternatives: int = 1,
    speeds: Speeds = "similar",
    low: int = 1,
    high: int = 99,
    name: str | None = None,
) -> ShopInstance:
    """Draw a shop whose jobs become known as they arrive, whose machines fail and whose times are uncertain.

    Due dates are release plus ``tightness`` times the job's work (TWK); weights are 1, 2 or 4 with shares 0.2, 0.6
    and 0.2 (Vepsalainen and Morton, Management Science 33, 1987). Work counts an operation by the mean of its modes.

    Args:
        rng: Source of all draws.
        jobs: Number of jobs.
        machines: Number of machines.
        objective: What is minimised, one of ``dynamic_shops.OBJECTIVES``.
        utilisation: Share of their up time that machines are to work: the mean time between arrivals is the mean
            work per job / (machines * availability * utilisation).
        variation: Coefficient of variation of the Gamma distributed times between arrivals; 1 is a Poisson process.
        tightness: Due date allowance in multiples of a job's work.
        availability: Share of the time that machines are up; 1 is no breakdowns.
        mean_repair: Mean of the exponentially distributed repair times.
        failure_shape: Shape of the Weibull distributed times to failure; 1 is exponential.
        noise: Coefficient of variation of actual durations around the expected ones.
        noise_distribution: log-normal or uniform.
        least_operations: Fewest operations of a job, by default the number of machines.
        most_operations: Most operations of a job, by default the number of machines.
        most_alternatives: Most machines that an operation can choose from.
        speeds: As in ``flexible``.
        low: As in ``flexible``.
        high: As in ``flexible``.
        name: Name of the instance.

    Raises:
        ConfigError: an option outside its range.
    """
    require_choice("objective", objective, OBJECTIVES)
    least = machines if least_operations is None else least_operations
    most = max(machines, least) if most_operations is None else most_operations
    # A stream of its own for each part leaves the other parts alone when an option changes.
    parts = [np.random.default_rng(int(seed)) for seed in rng.integers(2**63, size=2)]
    shop = flexible(
        parts[0],
        jobs=jobs,
        machines=machines,
        least_operations=least,
        most_operations=most,
        most_alternatives=most_alternatives,
        speeds=speeds if most_alternatives > 1 else "equal",
        low=low,
        high=high,
    )
    fields = dynamic_fields(
        parts[1],
        shop,
        utilisation=utilisation,
        variation=variation,
        tightness=tightness,
        availability=availability,
        mean_repair=mean_repair,
        failure_shape=failure_shape,
        noise=noise,
        noise_distribution=noise_distribution,
    )
    return _with(
        shop,
        name=name or f"dynamic-{jobs}x{machines}",
        announced=False,
        objective_weights=OBJECTIVES[objective],
        **fields,
    )


def setups(
    rng: np.random.Generator,
    *,
    jobs: int,
    machines: int,
    families: int = 4,
    shortest_setup: int = 10,
    longest_setup: int = 50,
    low: int = 1,
    high: int = 99,
    name: str | None = None,
) -> ShopInstance:
    """Draw a classical job shop with sequence-dependent setup times between jobs of different families.

    Setups are drawn per machine and pair of families, none within a family, then shortened until no detour over a
    third family is shorter (the triangle inequality of the instances of Brucker and Thiele, OR Spektrum 18, 1996).

    Args:
        rng: Source of all draws.
        jobs: Number of jobs, each of which visits every machine once in random order.
        machines: Number of machines.
        families: Number of families; each job is of one.
        shortest_setup: Least setup drawn between families.
        longest_setup: Most setup drawn between families.
        low: Least time of an operation.
        high: Most time of an operation.
        name: Name of the instance.

    Raises:
        ConfigError: an option outside its range.
    """
    if families < 1:
        raise ConfigError(f"option families: {families}, expected at least 1")
    require_ordered("shortest_setup", shortest_setup, "longest_setup", longest_setup, least=0)
    name = name or f"setups-{jobs}x{machines}"
    shop = uniform(rng, jobs=jobs, machines=machines, low=low, high=high, name=name)
    family = rng.integers(0, families, size=jobs)
    setup = rng.integers(shortest_setup, longest_setup, size=(machines, families, families), endpoint=True)
    setup[:, np.arange(families), np.arange(families)] = 0
    for via in range(families):
        setup = np.minimum(setup, setup[:, :, via, None] + setup[:, None, via, :])
    return ShopInstance.from_job_shop(shop, setup_family=family[shop.job], setup=setup)


def single_machine(
    rng: np.random.Generator,
    *,
    jobs: int,
    machines: int = 1,
    tardiness_factor: float | None = None,
    relative_range: float | None = None,
    name: str | None = None,
) -> ShopInstance:
    """Draw a single-machine total tardiness problem (Potts and Van Wassenhove, Operations Research Letters 1, 1982).

    Processing times are uniform from 1 to 100, due dates uniform around a share 1 - TF of their sum. Due dates below
    0 become 0: those jobs are late whatever happens, and their tardiness only shifts by a constant.

    Args:
        rng: Source of all draws.
        jobs: Number of jobs.
        machines: 1.
        tardiness_factor: TF, 0 to 1; drawn from 0.2, 0.4, 0.6 and 0.8 by default.
        relative_range: RDD, 0 or more; drawn from 0.2, 0.4, 0.6, 0.8 and 1 by default.
        name: Name of the instance.

    Raises:
        ConfigError: an option outside its range.
    """
    require_size(jobs, machines)
    require_between("machines", machines, 1, 1)
    factor, spread = float(rng.choice(TARDINESS_FACTORS)), float(rng.choice(RELATIVE_RANGES))
    duration, due = uniform_single_machine(
        rng,
        jobs=jobs,
        relative_range=spread if relative_range is None else relative_range,
        tardiness_factor=factor if tardiness_factor is None else tardiness_factor,
    )
    return total_tardiness_shop(duration, due, name=name or f"single-machine-{jobs}")


def total_tardiness_shop(duration: I64, due: I64, *, name: str) -> ShopInstance:
    """Return a single machine's jobs as a shop of total tardiness, due dates below 0 raised to 0.

    Args:
        duration: (J,) processing times, time units.
        due: (J,) due dates, time units.
        name: Name of the instance.

    Raises:
        InstanceError: a negative processing time.
    """
    index = np.arange(len(duration) + 1, dtype=np.int32)
    return ShopInstance(
        name=name,
        machines=1,
        job_offset=index,
        mode_offset=index,
        machine=np.zeros(len(duration), dtype=np.int32),
        duration=duration,
        due=np.maximum(due, 0),
        objective_weights=OBJECTIVES["tardiness"],
    )


SHOP_GENERATORS: Mapping[str, Callable[..., ShopInstance]] = MappingProxyType(
    {
        "flexible": flexible,
        "blocking": blocking_shop,
        "dynamic": dynamic,
        "setups": setups,
        "single-machine": single_machine,
    }
)


def _with(shop: ShopInstance, **changes: Any) -> ShopInstance:
    given = {field: getattr(shop, field) for field in ("machines", "job_offset", "mode_offset", "machine", "duration")}
    return ShopInstance(**given, **changes)
