"""The arrays of schedule generation: what an instance fixes, and what changes while its schedule is built."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from schedrl.arrays import F64, I32, I64
from schedrl.kernel_arguments import by_reference

__all__ = ["State", "allocate"]


@by_reference
class State(NamedTuple):
    """All arrays of a batch. Node ids are operations in the instance's flat order."""

    jobs: I32  # (B,)
    machines: I32  # (B,)
    operations: I32  # (B,)
    job_offset: I32  # (B, J + 1)
    machine: I32  # (B, N)
    duration: I64  # (B, N)
    job_work: I64  # (B, J) total duration of a job
    mean_duration: F64  # (B,) at least a tiny positive number
    initial_bound: I64  # (B,) max(longest job, largest machine load), at least 1
    next_operation: I32  # (B, J) first undispatched operation; job_offset[j + 1] when the job is finished
    job_ready: I64  # (B, J) completion of the job's last dispatched operation
    job_remaining: I64  # (B, J) undispatched work
    machine_free: I64  # (B, M) completion of the machine's last operation
    machine_remaining: I64  # (B, M) undispatched work
    machine_undispatched: I32  # (B, M) undispatched operations
    start: I64  # (B, N) -1 while undispatched
    first_on_machine: I32  # (B, M) earliest dispatched operation, -1 when none (left-shift only)
    next_on_machine: I32  # (B, N) next dispatched operation by start, -1 at the end (left-shift only)
    dispatched: I32  # (B,)
    lower_bound: I64  # (B,) on the makespan of every completion of the partial schedule
    candidate_job: I32  # (B, C)
    candidate_start: I64  # (B, C)
    candidates: I32  # (B,) number of candidates, 0 once finished
    horizon_start: I64  # (B,) earliest start among the candidates
    earliest_completion: I64  # (B,) earliest completion among all next operations
    invalid: I32  # (B,) actions outside the mask since the episode began


def allocate(batch: int, jobs: int, machines: int, operations: int) -> State:
    """Return zeroed arrays with room for so many rows, jobs, machines and operations."""

    def i32(*shape: int) -> I32:
        return np.zeros((batch, *shape), dtype=np.int32)

    def i64(*shape: int) -> I64:
        return np.zeros((batch, *shape), dtype=np.int64)

    return State(
        jobs=i32(),
        machines=i32(),
        operations=i32(),
        job_offset=i32(jobs + 1),
        machine=i32(operations),
        duration=i64(operations),
        job_work=i64(jobs),
        mean_duration=np.zeros(batch),
        initial_bound=i64(),
        next_operation=i32(jobs),
        job_ready=i64(jobs),
        job_remaining=i64(jobs),
        machine_free=i64(machines),
        machine_remaining=i64(machines),
        machine_undispatched=i32(machines),
        start=i64(operations),
        first_on_machine=i32(machines),
        next_on_machine=i32(operations),
        dispatched=i32(),
        lower_bound=i64(),
        candidate_job=i32(jobs),
        candidate_start=i64(jobs),
        candidates=i32(),
        horizon_start=i64(),
        earliest_completion=i64(),
        invalid=i32(),
    )
