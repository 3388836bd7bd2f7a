"""The job-shop solution: a start time per operation, its checker and its objectives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Self

import numpy as np

from schedrl.arrays import I64
from schedrl.envs.jobshop.instance import MAX_TIME, JobShopInstance
from schedrl.errors import SolutionError

__all__ = ["MAX_LISTED", "Schedule", "check", "objectives"]

SCHEMA = "schedrl/jobshop-schedule/1"
# A broken schedule of a million operations would otherwise print a million lines.
MAX_LISTED = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """A start time for every operation; an operation runs without interruption for its duration.

    Construction checks shape and type only. Whether the times obey an instance is for ``check`` to say.

    Raises:
        SolutionError: not a one-dimensional integer array, or a time beyond plus or minus ``MAX_TIME``.
    """

    start_time: I64  # (N,) time units, in the instance's flat operation order

    def __post_init__(self) -> None:
        object.__setattr__(self, "start_time", _start_times(self.start_time))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        return np.array_equal(self.start_time, other.start_time)

    def __hash__(self) -> int:
        return hash(self.start_time.tobytes())

    def reversed(self, instance: JobShopInstance) -> Schedule:
        """Read this schedule of ``instance.reversed()`` backwards in time, as a schedule of ``instance``.

        The first start becomes 0, so makespan and feasibility are kept; applying it again with
        ``instance.reversed()`` returns the schedule it came from, moved to start at 0.

        Raises:
            SolutionError: the number of starts differs from the number of operations.
        """
        _require_size(instance, self)
        first, last = instance.job_offset[:-1].astype(np.int64), instance.job_offset[1:].astype(np.int64) - 1
        mirror = np.repeat(first + last, last - first + 1) - np.arange(instance.operations)
        mirrored_end = self.start_time[mirror] + instance.duration
        return Schedule(start_time=mirrored_end.max() - mirrored_end)

    def to_json(self) -> str:
        """Return versioned JSON with the start of each operation in flat order."""
        return json.dumps({"schema": SCHEMA, "start_time": self.start_time.tolist()})

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> Self:
        """Read ``to_json`` output.

        Raises:
            SolutionError: not JSON, another schema, or a start that is not an integer.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SolutionError(f"{source}: not valid JSON: {error}") from None
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise SolutionError(f"{source}: field schema: expected {SCHEMA!r}")
        starts = data.get("start_time")
        if not isinstance(starts, list):
            raise SolutionError(f"{source}: field start_time: expected a list of integers, got {starts!r:.40}")
        for index, start in enumerate(starts):
            if type(start) is not int or abs(start) > MAX_TIME:
                raise SolutionError(
                    f"{source}: field start_time[{index}]: expected an integer up to {MAX_TIME}, got {start!r:.40}"
                )
        return cls(start_time=np.array(starts, dtype=np.int64))

    def to_csv(self, instance: JobShopInstance) -> str:
        """Return CSV lines ``job,operation,machine,start,end``, 0-based, operations counted within their job.

        Raises:
            SolutionError: the number of starts differs from the number of operations.
        """
        _require_size(instance, self)
        end = self.start_time + instance.duration
        columns = (instance.job, _position(instance), instance.machine, self.start_time, end)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return "\n".join(["job,operation,machine,start,end", *(",".join(map(str, row)) for row in rows)]) + "\n"


def check(instance: JobShopInstance, schedule: Schedule) -> list[str]:
    """Return every way in which a schedule breaks the instance, in words; an empty list means valid.

    Written from the definition: every operation has a start, no start is negative, an operation starts no
    earlier than its predecessor in the job ends, and of two operations on a machine one ends no later than
    the other starts. A zero duration may therefore stand at either edge of another operation on its machine,
    or share its time with other zero durations, but not lie strictly inside one that runs; the rule reads
    the same with time reversed. An operation that overlaps several earlier ones is listed once, with the one
    that holds the machine longest. At most ``MAX_LISTED`` violations are spelled out, the rest are counted.
    """
    if len(schedule.start_time) != instance.operations:
        return [f"{len(schedule.start_time)} start times for {instance.operations} operations"]
    start = schedule.start_time
    end = start + instance.duration
    negative = np.flatnonzero(start < 0)
    early = np.flatnonzero((instance.job[1:] == instance.job[:-1]) & (start[1:] < end[:-1])) + 1
    blocked, holder = _overlaps(instance, start, end)
    words: Iterator[str] = chain(
        (f"{_named(instance, i)} starts at {start[i]}, before time 0" for i in negative.tolist()),
        (
            f"{_named(instance, i)} starts at {start[i]}, before its predecessor {_named(instance, i - 1)} "
            f"ends at {end[i - 1]}"
            for i in early.tolist()
        ),
        (
            f"machine {instance.machine[i]}: {_named(instance, i)} [{start[i]}, {end[i]}) overlaps "
            f"{_named(instance, h)} [{start[h]}, {end[h]})"
            for i, h in zip(blocked.tolist(), holder.tolist(), strict=True)
        ),
    )
    listed = list(islice(words, MAX_LISTED))
    if (rest := len(negative) + len(early) + len(blocked) - len(listed)) > 0:
        listed.append(f"... and {rest} more")
    return listed


def objectives(instance: JobShopInstance, schedule: Schedule) -> dict[str, float]:
    """Return the makespan (end of the last operation) and the total flow time (sum of the jobs' ends).

    Raises:
        SolutionError: the number of starts differs from the number of operations.
    """
    _require_size(instance, schedule)
    end = schedule.start_time + instance.duration
    # The latest end, not the last operation's: an invalid schedule must not score better than it runs.
    job_end = np.maximum.reduceat(end, instance.job_offset[:-1])
    return {"makespan": float(end.max()), "total_flow_time": float(job_end.sum())}


def _named(instance: JobShopInstance, index: int) -> str:
    job = int(instance.job[index])
    return f"job {job} operation {index - instance.job_offset[job]} (machine {instance.machine[index]})"


def _position(instance: JobShopInstance) -> I64:
    return np.arange(instance.operations, dtype=np.int64) - instance.job_offset[instance.job]


def _overlaps(instance: JobShopInstance, start: I64, end: I64) -> tuple[I64, I64]:
    """Return the operations that start while their machine is held, and the operation that holds it."""
    # Ties by end put a zero duration before what starts with it, so a pair conflicts exactly when the
    # earlier of this order ends after the later starts.
    order = np.lexsort((end, start, instance.machine))
    by_end = np.argsort(end, kind="stable")
    rank = np.empty(len(end), dtype=np.int64)
    rank[by_end] = np.arange(len(end))
    # Ranks stay below N, so one running maximum serves all machines without overflow.
    machine = instance.machine[order].astype(np.int64)
    latest = np.maximum.accumulate(machine * len(end) + rank[order])
    holder = by_end[latest[:-1] % len(end)]
    clash = (machine[1:] == machine[:-1]) & (end[holder] > start[order[1:]])
    return order[1:][clash], holder[clash]


def _start_times(values: Any) -> I64:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise SolutionError(
            f"field start_time: expected a one-dimensional integer array, got {array.dtype} {array.shape}"
        )
    if array.size and (int(array.min()) < -MAX_TIME or int(array.max()) > MAX_TIME):
        raise SolutionError(f"field start_time: a time beyond plus or minus {MAX_TIME}")
    frozen = np.array(array, dtype=np.int64)
    frozen.flags.writeable = False
    return frozen


def _require_size(instance: JobShopInstance, schedule: Schedule) -> None:
    if len(schedule.start_time) != instance.operations:
        raise SolutionError(
            f"field start_time: {len(schedule.start_time)} values, "
            f"expected {instance.operations}, one per operation of {instance.name}"
        )
