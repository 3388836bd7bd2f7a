"""The job-shop instance: jobs are chains of operations, each bound to one machine for a fixed time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from schedrl.arrays import I32, I64
from schedrl.errors import InstanceError

__all__ = ["MAX_TIME", "JobShopInstance"]

SCHEMA = "schedrl/jobshop-instance/1"
# Sums of all durations must stay exact in int64 kernels and in float64 objectives.
MAX_TIME = 2**52


@dataclass(frozen=True, kw_only=True, eq=False)
class JobShopInstance:
    """A job shop: minimise the makespan of ``jobs`` chains of operations on ``machines`` machines.

    Operations are stored flat, job after job in processing order; job j owns operations
    ``job_offset[j]:job_offset[j + 1]``. Jobs may differ in length, visit a machine several times
    (re-entrant) and contain zero durations. Times are integers in one arbitrary unit.

    Raises:
        InstanceError: a field breaks one of these rules; the message names field and value.
    """

    name: str
    machines: int
    job_offset: I32  # (J + 1,)
    machine: I32  # (N,) machine of each operation, 0-based
    duration: I64  # (N,) time units, >= 0

    def __post_init__(self) -> None:
        for field, dtype in (("job_offset", np.int32), ("machine", np.int32), ("duration", np.int64)):
            object.__setattr__(self, field, _frozen(getattr(self, field), dtype, f"{self.name}: field {field}"))
        _validate(self)

    @property
    def jobs(self) -> int:
        """Number of jobs J."""
        return len(self.job_offset) - 1

    @property
    def operations(self) -> int:
        """Number of operations N."""
        return len(self.machine)

    @property
    def size_label(self) -> str:
        """Size group in tables: ``JOBSxMACHINES``, such as 15x15."""
        return f"{self.jobs}x{self.machines}"

    @property
    def problem(self) -> str:
        """The kind of problem: ``job shop``, one machine per operation and nothing hidden."""
        return "job shop"

    @cached_property
    def job(self) -> I32:
        """(N,) job of each operation."""
        lengths = np.diff(self.job_offset)
        return np.repeat(np.arange(self.jobs, dtype=np.int32), lengths)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, JobShopInstance):
            return NotImplemented
        return (
            self.name == other.name
            and self.machines == other.machines
            and np.array_equal(self.job_offset, other.job_offset)
            and np.array_equal(self.machine, other.machine)
            and np.array_equal(self.duration, other.duration)
        )

    def __hash__(self) -> int:
        return hash((self.name, self.machines, self.machine.tobytes(), self.duration.tobytes()))

    def reversed(self) -> JobShopInstance:
        """Return the time-reversed instance: every job's operations in opposite order.

        Makespans of an instance and of its reversal have the same optimum; ``Schedule.reversed`` maps back.
        """
        order = np.concatenate(
            [
                np.arange(end - 1, start - 1, -1)
                for start, end in zip(self.job_offset, self.job_offset[1:], strict=False)
            ]
        )
        return JobShopInstance(
            name=self.name,
            machines=self.machines,
            job_offset=self.job_offset,
            machine=self.machine[order],
            duration=self.duration[order],
        )

    def to_json(self) -> str:
        """Return versioned JSON with one [machine, duration] pair per operation."""
        pairs = np.stack([self.machine, self.duration], axis=1).tolist()
        jobs = [pairs[start:end] for start, end in zip(self.job_offset, self.job_offset[1:], strict=False)]
        return json.dumps({"schema": SCHEMA, "name": self.name, "machines": self.machines, "jobs": jobs})

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> Self:
        """Read ``to_json`` output.

        Raises:
            InstanceError: not JSON, another schema, or a bad field.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InstanceError(f"{source}: not valid JSON: {error}") from None
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise InstanceError(f"{source}: field schema: expected {SCHEMA!r}")
        for field, kind in (("name", str), ("machines", int), ("jobs", list)):
            if not isinstance(data.get(field), kind):
                raise InstanceError(f"{source}: field {field}: expected {kind.__name__}, got {data.get(field)!r:.40}")
        return cls.from_jobs(_pairs(data["jobs"], source), name=data["name"], machines=data["machines"])

    @classmethod
    def from_jobs(cls, jobs: list[list[tuple[int, int]]], *, name: str, machines: int | None = None) -> Self:
        """Build from one list of (machine, duration) pairs per job; machines default to the largest index + 1."""
        flat = [pair for job in jobs for pair in job]
        if machines is None:
            machines = 1 + max((machine for machine, _ in flat), default=0)
        return cls(
            name=name,
            machines=machines,
            job_offset=np.cumsum([0, *map(len, jobs)], dtype=np.int32),
            machine=np.array([machine for machine, _ in flat], dtype=np.int64),
            duration=np.array([duration for _, duration in flat], dtype=np.int64),
        )


def _frozen(array: Any, dtype: type, where: str) -> np.ndarray[Any, Any]:
    values = np.asarray(array)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise InstanceError(f"{where}: expected a one-dimensional integer array, got {values.dtype} {values.shape}")
    if values.size and (values.min() < np.iinfo(dtype).min or values.max() > np.iinfo(dtype).max):
        raise InstanceError(f"{where}: value outside {np.dtype(dtype).name}")
    frozen: np.ndarray[Any, Any] = np.array(values, dtype=dtype)
    frozen.flags.writeable = False
    return frozen


def _validate(instance: JobShopInstance) -> None:
    name, offset = instance.name, instance.job_offset
    if instance.machines < 1:
        raise InstanceError(f"{name}: field machines: {instance.machines}, expected at least 1")
    if len(offset) < 2 or offset[0] != 0 or offset[-1] != len(instance.machine):
        raise InstanceError(f"{name}: field job_offset: must run from 0 to the {len(instance.machine)} operations")
    if (short := np.flatnonzero(np.diff(offset) < 1)).size:
        raise InstanceError(f"{name}: field job_offset: job {short[0]} has no operation")
    if len(instance.duration) != len(instance.machine):
        raise InstanceError(
            f"{name}: field duration: {len(instance.duration)} values for {len(instance.machine)} operations"
        )
    if (bad := np.flatnonzero((instance.machine < 0) | (instance.machine >= instance.machines))).size:
        raise InstanceError(
            f"{name}: field machine: operation {bad[0]} uses machine {instance.machine[bad[0]]}, "
            f"expected 0 to {instance.machines - 1}"
        )
    if (bad := np.flatnonzero(instance.duration < 0)).size:
        raise InstanceError(
            f"{name}: field duration: operation {bad[0]} lasts {instance.duration[bad[0]]}, expected >= 0"
        )
    if float(instance.duration.astype(np.float64).sum()) > MAX_TIME:
        raise InstanceError(f"{name}: field duration: the sum of all durations exceeds {MAX_TIME}")


def _pairs(jobs: list[Any], source: str) -> list[list[tuple[int, int]]]:
    for j, job in enumerate(jobs):
        if not isinstance(job, list):
            raise InstanceError(f"{source}: field jobs[{j}]: expected a list of [machine, duration] pairs")
        for k, pair in enumerate(job):
            if not (
                isinstance(pair, list)
                and len(pair) == 2
                and all(type(value) is int and abs(value) <= MAX_TIME for value in pair)
            ):
                raise InstanceError(
                    f"{source}: field jobs[{j}][{k}]: expected [machine, duration] integers, got {pair!r:.40}"
                )
    return [[(pair[0], pair[1]) for pair in job] for job in jobs]
