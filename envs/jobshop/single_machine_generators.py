"""Instances of total tardiness on one machine: Potts and Van Wassenhove's generator, and a reader of published sets.

An instance is a pair of (J,) int64 arrays in one unit of time, processing times p and due dates d; jobs are there at
time 0. Due dates are drawn uniformly around a share 1 - TF of the work P of all jobs: from P (1 - TF - RDD / 2) to
P (1 - TF + RDD / 2), with the tardiness factor TF and the relative range RDD.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schedrl.arrays import I64
from schedrl.errors import ConfigError, InstanceError

__all__ = [
    "RELATIVE_RANGES",
    "TARDINESS_FACTORS",
    "SingleMachineProblem",
    "due_date_classes",
    "normal_single_machine",
    "read_single_machine",
    "uniform_single_machine",
]

RELATIVE_RANGES = (0.2, 0.4, 0.6, 0.8, 1.0)
# Potts and Van Wassenhove's sixth class, 1.0, is easy and left out of published comparisons.
TARDINESS_FACTORS = (0.2, 0.4, 0.6, 0.8)
_HEADER = "id n RDD TF optimum"
# Sums of absolute values up to this stay exact in int64 and float64.
_MOST = 2**52


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SingleMachineProblem:
    """An instance of a published set, with its class and its least total tardiness."""

    number: int
    relative_range: float  # RDD
    tardiness_factor: float  # TF
    optimum: int
    p: I64  # (J,) processing times; the published normal set has some at and below 0
    d: I64  # (J,) due dates, some of them negative


def due_date_classes() -> tuple[tuple[float, float], ...]:
    """Return the 20 pairs (RDD, TF) of published comparisons, in the order of their files."""
    return tuple((spread, factor) for spread in RELATIVE_RANGES for factor in TARDINESS_FACTORS)


def uniform_single_machine(
    rng: np.random.Generator,
    *,
    jobs: int,
    relative_range: float,
    tardiness_factor: float,
    low: int = 1,
    high: int = 100,
) -> tuple[I64, I64]:
    """Draw an instance as Potts and Van Wassenhove (Operations Research Letters 1, 1982) do.

    Args:
        rng: Source of all draws.
        jobs: Number of jobs, at least 1.
        relative_range: RDD, at least 0.
        tardiness_factor: TF, 0 to 1.
        low: Least processing time.
        high: Greatest processing time.

    Returns:
        Processing times and due dates, each (J,). Due dates below 0 stay as they are.

    Raises:
        ConfigError: an option outside its range.
    """
    _require_jobs(jobs)
    if not 0 <= low <= high:
        raise ConfigError(f"options low and high: {low} and {high}, expected 0 <= low <= high")
    p = rng.integers(low, high, size=jobs, endpoint=True)
    return p, _due_dates(rng, p, relative_range, tardiness_factor)


def normal_single_machine(
    rng: np.random.Generator,
    *,
    jobs: int,
    relative_range: float,
    tardiness_factor: float,
    mean: float = 60.0,
    deviation: float = 20.0,
) -> tuple[I64, I64]:
    """Draw an instance with normal processing times, rounded and at least 1, and Potts and Van Wassenhove's due dates.

    Processing times as the text of arXiv 2510.24013 has them; its published set has a deviation of 25 and 0.8 % of its
    processing times at 0 or below.

    Args:
        rng: Source of all draws.
        jobs: Number of jobs, at least 1.
        relative_range: RDD, at least 0.
        tardiness_factor: TF, 0 to 1.
        mean: Mean processing time before rounding.
        deviation: Standard deviation of the processing time before rounding, at least 0.

    Returns:
        Processing times and due dates, each (J,). Due dates below 0 stay as they are.

    Raises:
        ConfigError: an option outside its range.
    """
    _require_jobs(jobs)
    if not (math.isfinite(mean) and 0.0 <= deviation < math.inf):
        raise ConfigError(f"options mean and deviation: {mean} and {deviation}, expected finite and deviation >= 0")
    p = np.maximum(np.rint(rng.normal(mean, deviation, size=jobs)), 1.0).astype(np.int64)
    return p, _due_dates(rng, p, relative_range, tardiness_factor)


def read_single_machine(path: str | os.PathLike[str]) -> list[SingleMachineProblem]:
    """Read a set of instances: one a line, ``id n RDD TF optimum | p_1 .. p_n | d_1 .. d_n``, ``#`` before comments.

    Raises:
        InstanceError: unreadable, empty, or a line that breaks the format: ``file:line: field ...: what is wrong``.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InstanceError(f"{file}: cannot be read: {reason}") from None
    problems = list(_parse(text, str(file)))
    if not problems:
        raise InstanceError(f"{file}: no instance, expected lines '{_HEADER} | processing times | due dates'")
    return problems


def _parse(text: str, source: str) -> Iterator[SingleMachineProblem]:
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.partition("#")[0].strip()
        if line:
            yield _problem(line, f"{source}:{number}")


def _problem(line: str, where: str) -> SingleMachineProblem:
    parts = line.split("|")
    if len(parts) != 3:
        raise InstanceError(f"{where}: {len(parts)} parts between |, expected 3: '{_HEADER}', p and d")
    header = parts[0].split()
    if len(header) != 5:
        raise InstanceError(f"{where}: field header: {len(header)} values, expected 5: '{_HEADER}'")
    name, jobs, optimum = (
        _integer(header[column], where, field) for column, field in ((0, "id"), (1, "n"), (4, "optimum"))
    )
    for field, value, least in (("n", jobs, 1), ("optimum", optimum, 0)):
        if value < least:
            raise InstanceError(f"{where}: field {field}: {value}, expected at least {least}")
    return SingleMachineProblem(
        number=name,
        relative_range=_decimal(header[2], where, "RDD"),
        tardiness_factor=_decimal(header[3], where, "TF"),
        optimum=optimum,
        p=_times(parts[1], jobs, where, "p"),
        d=_times(parts[2], jobs, where, "d"),
    )


def _times(text: str, jobs: int, where: str, field: str) -> I64:
    tokens = text.split()
    if len(tokens) != jobs:
        raise InstanceError(f"{where}: field {field}: {len(tokens)} values, expected n = {jobs}")
    values = [_integer(token, where, f"{field}_{column}") for column, token in enumerate(tokens, start=1)]
    if sum(map(abs, values)) > _MOST:
        raise InstanceError(
            f"{where}: field {field}: absolute values sum to more than {_MOST}, expected a coarser unit"
        )
    times = np.array(values, dtype=np.int64)
    times.flags.writeable = False
    return times


def _integer(token: str, where: str, field: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", token):
        raise InstanceError(f"{where}: field {field}: {token[:40]!r}, expected an integer of at most 18 digits")
    return int(token)


def _decimal(token: str, where: str, field: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", token):
        raise InstanceError(f"{where}: field {field}: {token[:40]!r}, expected a number such as 0.2")
    return float(token)


def _due_dates(rng: np.random.Generator, p: I64, relative_range: float, tardiness_factor: float) -> I64:
    if not 0.0 <= relative_range < math.inf:
        raise ConfigError(f"option relative_range: {relative_range}, expected 0 or more")
    if not 0.0 <= tardiness_factor <= 1.0:
        raise ConfigError(f"option tardiness_factor: {tardiness_factor}, expected 0 to 1")
    # In exact arithmetic many ends are integers; rounding must not cut those off.
    middle, half, error = 1.0 - tardiness_factor, relative_range / 2.0, 1e-9
    work = int(p.sum())
    last = math.floor(work * (middle + half + error))
    first = min(math.ceil(work * (middle - half - error)), last)
    return rng.integers(first, last, size=len(p), endpoint=True)


def _require_jobs(jobs: int) -> None:
    if jobs < 1:
        raise ConfigError(f"option jobs: {jobs}, expected at least 1")
