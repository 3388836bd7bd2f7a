"""The arrays behind a batch of running instances, and how an instance is copied into one row of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from schedrl.arrays import F64, I32, Bool
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.kernel_arguments import by_reference

__all__ = ["Options", "Room", "State", "allocate", "room_of", "write_instance"]


class Options(NamedTuple):
    """What decisions offer; see ``Simulator``."""

    mode: int  # placement.ONLINE or placement.PLAN
    window: int
    scaling: bool
    wait: bool
    skip_forced: bool
    idle_only: bool


class Room(NamedTuple):
    """Array sizes that instances have to fit."""

    jobs: int
    tasks: int
    devices: int
    rows: int  # tasks of all templates
    edges: int  # edges of all templates
    flat_edges: int  # edges of all jobs, 1 unless links are contended
    points: int
    degree: int  # most incoming edges of a task
    slots: int


@by_reference
class State(NamedTuple):
    """All arrays of a batch. ``task`` counts over all jobs, ``row`` over the tasks of the templates."""

    # Sizes and options of the instance in each row of the batch.
    jobs: I32  # (B,)
    tasks: I32  # (B,)
    devices: I32  # (B,)
    rows: I32  # (B,)
    cap: I32  # (B,) admission limit, 0 for none
    whole_units: Bool  # (B,)
    contention: Bool  # (B,)
    sigma: F64  # (B,)
    preference: F64  # (B, 3) latency, energy, cost; sums to 1
    # Static per job.
    job_first: I32  # (B, J + 1) first task
    job_row: I32  # (B, J) first template row
    job_edge: I32  # (B, J) first edge among the edges of all jobs (contention only)
    release: F64  # (B, J)
    deadline: F64  # (B, J)
    job_bound: F64  # (B, J) least latency of the job alone
    job_work: F64  # (B, J) least total duration of the job's tasks
    task_job: I32  # (B, N)
    draw: F64  # (B, N) hidden noise
    # Static per template row; see Tables.
    base: F64  # (B, T, D) durations of the cost matrix, at full speed
    duration: F64  # (B, T, D) expected durations at the fastest point
    mean_duration: F64  # (B, T)
    least_duration: F64  # (B, T)
    upward_rank: F64  # (B, T)
    downward_rank: F64  # (B, T)
    mean_out: F64  # (B, T)
    tail: F64  # (B, T, D)
    least_path: F64  # (B, T) least duration plus tail over the devices
    predecessor_offset: I32  # (B, T + 1)
    predecessor: I32  # (B, E)
    predecessor_bytes: F64  # (B, E)
    predecessor_edge: I32  # (B, E)
    successor_offset: I32  # (B, T + 1)
    successor: I32  # (B, E)
    successor_bytes: F64  # (B, E)
    # Static per device.
    device_type: I32  # (B, D)
    device_unit: I32  # (B, D)
    links: F64  # (B, 4, D, D)
    speed: F64  # (B, D, K)
    power: F64  # (B, D, K) watts
    points: I32  # (B, D)
    price: F64  # (B, D) per time unit of use
    # Scales.
    unit: F64  # (B,) mean duration plus mean transfer time of an edge
    scale: F64  # (B,) unit of rewards: the mean job bound; of a single job at least its work per device
    energy_least: F64  # (B,) least energy of all tasks, in watts times time units
    cost_least: F64  # (B,)
    # Dynamic.
    now: F64  # (B,)
    waiting: Bool  # (B,) whether the policy let this moment pass
    placed: I32  # (B,) tasks with a device
    finished: I32  # (B,) tasks that ended; in plan mode equal to placed
    invalid: I32  # (B,)
    device: I32  # (B, N) -1 until placed
    point: I32  # (B, N)
    start: F64  # (B, N)
    finish: F64  # (B, N) true end; in plan mode the expected one
    arrival: F64  # (B, N) when the inputs of a placed task are at its device
    missing: I32  # (B, N) predecessors that are not yet finished (plan mode: placed)
    ready: I32  # (B, N) tasks that can be placed, in order of offering
    readies: I32  # (B,)
    entry: F64  # (B, J)
    entered: I32  # (B,) jobs that entered
    inside: I32  # (B,) jobs that entered and are unfinished
    job_left: I32  # (B, J) unfinished tasks (plan mode: unplaced)
    job_work_left: F64  # (B, J) least duration of the job's unplaced tasks
    latency: F64  # (B, J) estimate of the job's latency, a lower bound in plan mode only; true once it ended
    work: F64  # (B,) duration of placed plus least duration of unplaced tasks (single jobs)
    energy: F64  # (B,) watts times time units of placed tasks
    cost: F64  # (B,)
    sequence: I32  # (B, D, N) tasks of a device by start
    length: I32  # (B, D)
    head: I32  # (B, D) first unfinished task of the sequence (online)
    running: Bool  # (B, D) whether that task has started (online)
    free: F64  # (B, D) when a device is expected to have done all its placed tasks
    link_free: F64  # (B, D, D) by physical device (contention)
    transfer: F64  # (B, E of all jobs) start of transfers (contention)
    arrivals: F64  # (B, degree, 2) scratch: device and end of the transfers to one task
    potential: F64  # (B,) what rewards are differences of
    # Candidates.
    candidates: I32  # (B,)
    candidate_task: I32  # (B, C) -1 for waiting
    candidate_device: I32  # (B, C)
    candidate_point: I32  # (B, C)
    candidate_start: F64  # (B, C)
    candidate_finish: F64  # (B, C)
    candidate_arrival: F64  # (B, C)
    best_finish: F64  # (B, C) earliest finish of the candidate's task on any device, offered or not
    best_path: F64  # (B, C) the same with the tail behind it
    next_event: F64  # (B,) true time of the next event, inf if none


def room_of(instances: list[SocDagInstance], window: int, dvfs: bool) -> Room:
    """Return sizes that fit all instances with ``window`` tasks, and all points with ``dvfs``, per decision."""

    def most(size: Callable[[SocDagInstance], int]) -> int:
        return max(int(size(instance)) for instance in instances)

    return Room(
        jobs=most(lambda i: i.jobs),
        tasks=most(lambda i: i.tasks),
        devices=most(lambda i: i.devices),
        rows=most(lambda i: i.tables.graph_offset[-1]),
        edges=max(1, most(lambda i: len(i.tables.predecessor))),
        flat_edges=max(1, most(lambda i: len(i.flat.edge) if i.communication == "contention" else 1)),
        points=most(lambda i: i.operating_points[0].shape[1]),
        degree=max(1, most(lambda i: np.diff(i.tables.predecessor_offset).max())),
        slots=window * most(lambda i: len(i.platform.devices) * (i.operating_points[2].max() if dvfs else 1)) + 1,
    )


_TRAILING: dict[str, tuple[int | str, ...]] = {  # shapes behind the batch axis, by the letters of Room
    "jobs tasks devices rows cap whole_units contention sigma unit scale energy_least cost_least now waiting placed "
    "finished invalid readies entered inside work energy cost potential candidates next_event": (),
    "preference": (3,),
    "job_first": ("J+1",),
    "job_row job_edge release deadline job_bound job_work entry job_left job_work_left latency": ("J",),
    "task_job draw device point start finish arrival missing ready": ("N",),
    "base duration tail": ("T", "D"),
    "mean_duration least_duration upward_rank downward_rank mean_out least_path": ("T",),
    "predecessor_offset successor_offset": ("T+1",),
    "predecessor predecessor_bytes predecessor_edge successor successor_bytes": ("E",),
    "device_type device_unit points price length head running free": ("D",),
    "links": (4, "D", "D"),
    "speed power": ("D", "K"),
    "sequence": ("D", "N"),
    "link_free": ("D", "D"),
    "transfer": ("X",),
    "arrivals": ("G", 2),
    "candidate_task candidate_device candidate_point candidate_start candidate_finish candidate_arrival": ("C",),
    "best_finish best_path": ("C",),
}
_TYPES = {"I32": np.int32, "F64": np.float64, "Bool": np.bool_}


def allocate(batch: int, room: Room) -> State:
    """Return zeroed arrays for ``batch`` rows."""
    sizes = {
        "J": room.jobs,
        "J+1": room.jobs + 1,
        "N": room.tasks,
        "T": room.rows,
        "T+1": room.rows + 1,
        "D": room.devices,
        "E": room.edges,
        "X": room.flat_edges,
        "K": room.points,
        "G": room.degree,
        "C": room.slots,
    }
    arrays: dict[str, Any] = {}
    for names, trailing in _TRAILING.items():
        for name in names.split():
            shape = [size if isinstance(size, int) else sizes[size] for size in trailing]
            arrays[name] = np.zeros((batch, *shape), dtype=_TYPES[State.__annotations__[name].__forward_arg__])
    return State(**arrays)


def write_instance(state: State, b: int, instance: SocDagInstance) -> None:
    """Copy what does not change during an episode into row ``b``."""
    tables, jobs, devices = instance.tables, instance.jobs, instance.devices
    rows = len(tables.duration)
    state.jobs[b], state.tasks[b], state.devices[b], state.rows[b] = jobs, instance.tasks, devices, rows
    state.cap[b], state.sigma[b] = instance.admission_cap, instance.noise_sigma
    state.whole_units[b], state.contention[b] = instance.whole_units, instance.communication == "contention"
    assert instance.preference is not None
    state.preference[b] = instance.preference / instance.preference.sum()
    offset = tables.graph_offset
    state.job_first[b, : jobs + 1] = instance.job_offset
    state.job_row[b, :jobs] = offset[instance.job_graph]
    state.job_bound[b, :jobs] = tables.graph_bound[instance.job_graph]
    graph_work = np.add.reduceat(tables.least_duration, offset[:-1])
    state.job_work[b, :jobs] = graph_work[instance.job_graph]
    state.release[b, :jobs] = instance.release_time
    state.deadline[b, :jobs] = instance.deadline
    state.task_job[b, : instance.tasks] = np.repeat(np.arange(jobs, dtype=np.int32), np.diff(instance.job_offset))
    state.draw[b, : instance.tasks] = instance.noise
    state.base[b, :rows, :devices] = np.concatenate([g.duration for g in instance.graphs])[:, instance.device_type]
    for name in ("duration", "tail"):
        getattr(state, name)[b, :rows, :devices] = getattr(tables, name)
    for name in ("mean_duration", "least_duration", "upward_rank", "downward_rank", "mean_out"):
        getattr(state, name)[b, :rows] = getattr(tables, name)
    path = np.where(np.isfinite(tables.duration), tables.duration + tables.tail, np.inf)
    state.least_path[b, :rows] = path.min(axis=1)
    for name in ("predecessor_offset", "successor_offset"):
        getattr(state, name)[b, : rows + 1] = getattr(tables, name)
    for name in ("predecessor", "predecessor_bytes", "predecessor_edge", "successor", "successor_bytes"):
        getattr(state, name)[b, : len(tables.predecessor)] = getattr(tables, name)
    if instance.communication == "contention":
        edges = [instance.graphs[k].edges for k in instance.job_graph]
        before = np.cumsum([0, *(graph.edges for graph in instance.graphs)])
        # Edge e of a template is edge job_edge + e of the job, with e counted over all templates.
        state.job_edge[b, :jobs] = np.cumsum([0, *edges])[:-1] - before[instance.job_graph]
    _write_devices(state, b, instance)
    positive = tables.mean_out[tables.mean_out > 0]
    state.unit[b] = max(float(tables.mean_duration.mean() + (positive.mean() if positive.size else 0.0)), 1e-12)
    state.scale[b] = max(float(state.job_bound[b, :jobs].mean()), 1e-12)
    if jobs == 1:
        # Wide graphs take many times their critical path; rewards of all shapes should be of one size.
        state.scale[b] = max(state.scale[b], state.job_work[b, 0] / devices)


def _write_devices(state: State, b: int, instance: SocDagInstance) -> None:
    devices, kinds = instance.devices, instance.platform.devices
    state.device_type[b, :devices] = instance.device_type
    state.device_unit[b, :devices] = instance.device_unit
    state.links[b, :, :devices, :devices] = instance.links
    speed, power, points = instance.operating_points
    state.speed[b, :devices, : speed.shape[1]] = speed
    state.power[b, :devices, : speed.shape[1]] = power
    state.points[b, :devices] = points
    price = np.array([(kind.price_usd_per_h or 0.0) / kind.capacity for kind in kinds]) * instance.time_unit_s / 3600.0
    state.price[b, :devices] = price[instance.device_type]
    duration = instance.tables.duration
    energy, cost = _least_use(instance, duration, speed, power, price[instance.device_type])
    state.energy_least[b], state.cost_least[b] = energy, cost


def _least_use(instance: SocDagInstance, duration: F64, speed: F64, power: F64, price: F64) -> tuple[float, float]:
    """Return the least energy and cost of all tasks, each on its cheapest device and point."""
    rows = np.bincount(instance.job_graph, minlength=len(instance.graphs))
    times = np.repeat(rows, np.diff(instance.tables.graph_offset))
    taken = duration[:, :, None] * (speed[:, :1] / speed)[None]  # (T, D, K)
    if instance.whole_units:
        taken = np.ceil(taken - 1e-9)
    unsupported = ~np.isfinite(taken)
    known = np.where(unsupported, 0.0, taken)
    energy = np.where(unsupported, np.inf, known * power[None])
    cost = np.where(unsupported[:, :, 0], np.inf, known[:, :, 0] * price[None])
    return float((energy.min(axis=(1, 2)) * times).sum()), float((cost.min(axis=1) * times).sum())
