"""The arrays of the shop game: what an instance fixes, and what changes while it is played."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, get_args, get_type_hints

import numpy as np

from schedrl.arrays import F64, I8, I32, I64, Bool
from schedrl.envs.jobshop.shop import Blocking, ShopInstance
from schedrl.kernel_arguments import by_reference

__all__ = ["NEVER", "Room", "State", "allocate", "room_of", "write_instance"]

NEVER = 2**60
FIGURES = 16
BLOCKING: dict[Blocking, int] = {"none": 0, "swap": 1, "no-swap": 2}


class Room(NamedTuple):
    """Sizes of the arrays: the most of everything in any instance."""

    jobs: int  # J
    machines: int  # M
    operations: int  # N
    modes: int  # K
    outages: int  # O
    families: int  # F
    choices: int  # candidates without waiting: the largest sum over jobs of the most modes of an operation


@by_reference
class State(NamedTuple):
    """All arrays of a batch. Times are the instance's units; node ids are machines, then the shop itself."""

    jobs: I32  # (B,)
    machines: I32  # (B,)
    operations: I32  # (B,)
    blocking: I8  # (B,) see ``BLOCKING``
    announced: Bool  # (B,)
    objective: F64  # (B, 3) weights of makespan, tardiness and flow time
    job_offset: I32  # (B, J + 1)
    mode_offset: I32  # (B, N + 1)
    machine: I32  # (B, K)
    duration: I64  # (B, K) expected
    actual: I64  # (B, K)
    least: I64  # (B, N) expected duration of the fastest mode
    release: I64  # (B, J)
    due: I64  # (B, J)
    weight: F64  # (B, J)
    family: I32  # (B, N)
    setup: I64  # (B, M, F, F)
    outage_offset: I32  # (B, M + 1)
    outage_start: I64  # (B, O)
    outage_end: I64  # (B, O)
    mean_duration: F64  # (B,) of fastest modes, at least a tiny positive number
    scale: F64  # (B,) of rewards
    now: I64  # (B,)
    started: I32  # (B,) operations
    next_operation: I32  # (B, J) first that has not started, job_offset[j + 1] once all have
    ready: I64  # (B, J) when the job's last started operation ends, or its release
    expected: I64  # (B, J) when that is expected, as known when it started
    held: I32  # (B, J) machine that the job is on, -1 for none
    remaining: I64  # (B, J) least work of operations not started
    holder: I32  # (B, M) job on the machine, -1 for none
    free: I64  # (B, M) when the machine is free, NEVER while a job that stays is on it
    expected_free: I64  # (B, M) when its last operation is expected to end, as known when that started
    last_family: I32  # (B, M) of the operation before, -1 at first
    load: I64  # (B, M) expected work of operations not started that have no other machine
    start: I64  # (B, N)
    mode: I32  # (B, N) chosen, counted within the operation
    estimate: F64  # (B,) objective if all that is left went as fast as it can
    candidates: I32  # (B,) 0 once finished
    candidate_job: I32  # (B, C) -1 to wait
    candidate_mode: I32  # (B, C) of all modes
    candidate_start: I64  # (B, C)
    mark: I32  # (B, J) scratch of searches for cycles
    figures: F64  # (B, FIGURES) scratch of observations
    invalid: I32  # (B,) actions outside the mask since the episode began


def room_of(instances: Sequence[ShopInstance]) -> Room:
    """Return room for any of the instances."""
    return Room(
        jobs=max(shop.jobs for shop in instances),
        machines=max(shop.machines for shop in instances),
        operations=max(shop.operations for shop in instances),
        modes=max(shop.modes for shop in instances),
        outages=max(1, *(len(shop.outage_start) for shop in instances)),
        families=max(shop.setup.shape[1] for shop in instances),
        choices=max(_choices(shop) for shop in instances),
    )


def _choices(shop: ShopInstance) -> int:
    most = np.maximum.reduceat(np.diff(shop.mode_offset), shop.job_offset[:-1])
    return int(most.sum())


def allocate(batch: int, room: Room) -> State:
    """Return zeroed arrays."""
    shapes: dict[str, tuple[int, ...]] = {
        "objective": (3,), "job_offset": (room.jobs + 1,), "mode_offset": (room.operations + 1,),
        "machine": (room.modes,), "duration": (room.modes,), "actual": (room.modes,), "least": (room.operations,),
        "release": (room.jobs,), "due": (room.jobs,), "weight": (room.jobs,), "family": (room.operations,),
        "setup": (room.machines, room.families, room.families), "outage_offset": (room.machines + 1,),
        "outage_start": (room.outages,), "outage_end": (room.outages,), "next_operation": (room.jobs,),
        "ready": (room.jobs,), "expected": (room.jobs,), "held": (room.jobs,), "remaining": (room.jobs,),
        "holder": (room.machines,), "free": (room.machines,), "last_family": (room.machines,),
        "expected_free": (room.machines,),
        "load": (room.machines,), "start": (room.operations,), "mode": (room.operations,),
        "candidate_job": (room.choices + 1,), "candidate_mode": (room.choices + 1,),
        "candidate_start": (room.choices + 1,), "mark": (room.jobs,), "figures": (FIGURES,),
    }  # fmt: skip
    # Arrays are typed as ndarray[shape, dtype[number]].
    types = {name: get_args(get_args(hint)[1])[0] for name, hint in get_type_hints(State).items()}
    return State(**{name: np.zeros((batch, *shapes.get(name, ())), dtype=types[name]) for name in State._fields})


def write_instance(state: State, row: int, shop: ShopInstance) -> None:
    """Write what an instance fixes into a row."""
    jobs, machines, operations = shop.jobs, shop.machines, shop.operations
    state.jobs[row], state.machines[row], state.operations[row] = jobs, machines, operations
    state.blocking[row], state.announced[row] = BLOCKING[shop.blocking], shop.announced
    state.objective[row] = shop.objective_weights
    for array, values in (
        (state.job_offset, shop.job_offset), (state.mode_offset, shop.mode_offset), (state.machine, shop.machine),
        (state.duration, shop.duration), (state.actual, shop.actual_duration), (state.least, shop.least_duration),
        (state.release, shop.release), (state.due, shop.due), (state.weight, shop.weight),
        (state.family, shop.setup_family), (state.outage_offset, shop.outage_offset),
        (state.outage_start, shop.outage_start), (state.outage_end, shop.outage_end),
    ):  # fmt: skip
        array[row, : len(values)] = values
    families = shop.setup.shape[1]
    state.setup[row, :machines, :families, :families] = shop.setup
    fixed = np.flatnonzero(np.diff(shop.mode_offset) == 1)
    only = shop.mode_offset[fixed]
    state.load[row] = 0
    state.load[row, :machines] = np.bincount(shop.machine[only], shop.duration[only], machines)
    state.remaining[row, :jobs] = np.add.reduceat(shop.least_duration, shop.job_offset[:-1])
    state.mean_duration[row] = max(float(shop.least_duration.mean()), 1e-9)
