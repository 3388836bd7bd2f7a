"""The SoC DAG instance: jobs, each a task graph, that arrive at a platform of unlike devices."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.devices import Platform
from schedrl.envs.socdag.tables import Tables, build_tables
from schedrl.envs.socdag.task_graph import TaskGraph, frozen
from schedrl.errors import ConfigError, InstanceError

__all__ = ["Communication", "Flat", "SocDagInstance"]

Communication = Literal["delay", "contention"]
"""delay: any number of transfers at once; contention: a link carries one transfer at a time"""
LEAST_NOISE_FACTOR = 0.05
MOST_DEVICES = 4096  # tables grow with the square


class Flat(NamedTuple):
    """All jobs' tasks as one graph: job after job, each in the order of its graph."""

    job: I32  # (N,)
    duration: F64  # (N, D) expected time units at the fastest operating point, inf where unsupported
    edge: I32  # (E, 2)
    edge_bytes: F64  # (E,)
    predecessor_offset: I32  # (N + 1,) incoming edges of task t: predecessor_edge[offset[t]:offset[t + 1]]
    predecessor_edge: I32  # (E,)
    successor_offset: I32  # (N + 1,)
    successor_edge: I32  # (E,)
    order: I32  # (N,) topological


@dataclass(frozen=True, kw_only=True, eq=False)
class SocDagInstance:
    """Jobs to run on a platform; minimise their mean latency, which for one job is its makespan.

    Devices are numbered type by type in the platform's order; a device of capacity c counts as c processing
    elements, "devices" below, that reach each other without a transfer. Tasks of all jobs are numbered job
    after job. Times are in units of ``time_unit_s`` seconds.

    A job enters at its release time; with ``admission_cap``, the k-th job enters as soon as
    ``release[k] - release[k - 1]`` has passed since the one before entered and fewer than ``admission_cap`` jobs
    are in the system (DS3's generator; Arda et al. 2020). A task's true duration is its expected one times
    ``max(1 + noise_sigma * noise, 0.05)``, hidden until it ends. ``whole_units`` rounds as DS3's integer clock
    does: transfers down, true durations to the nearest unit and at least 1 unless the expected one is 0.

    Raises:
        InstanceError: a field breaks one of these rules, or devices that must exchange data have no link.
    """

    name: str
    platform: Platform
    graphs: tuple[TaskGraph, ...]  # job templates; their cost columns are the platform's device types
    job_graph: I32 = field(default_factory=lambda: np.zeros(1, dtype=np.int32))  # (J,) template of each job
    release: F64 | None = None  # (J,) time units, non-decreasing; all 0 by default
    deadline: F64 | None = None  # (J,) time units after release, inf (the default) for none
    utility: F64 | None = None  # (J,) value of finishing by the deadline, 1 by default
    admission_cap: int = 0  # most jobs in the system, 0 for no limit
    noise_sigma: float = 0.0
    noise: F64 | None = None  # (N,) standard normal draws, 0 by default
    communication: Communication = "delay"
    whole_units: bool = False
    time_unit_s: float = 1.0
    preference: F64 | None = None  # (3,) weights of latency, energy and cost, for policies that take them

    def __post_init__(self) -> None:
        object.__setattr__(self, "graphs", tuple(self.graphs))
        _freeze_jobs(self)
        _validate(self)
        _ = self.links  # raises when the platform is disconnected

    @property
    def jobs(self) -> int:
        """Number of jobs J."""
        return len(self.job_graph)

    @property
    def tasks(self) -> int:
        """Number of tasks N of all jobs."""
        return int(self.job_offset[-1])

    @property
    def devices(self) -> int:
        """Number of processing elements D."""
        return len(self.device_type)

    @property
    def size_label(self) -> str:
        """Size group in tables: ``TASKSxDEVICES``, with the number of jobs before it if there are several."""
        jobs = f"{self.jobs} jobs " if self.jobs > 1 else ""
        return f"{jobs}{self.tasks}x{self.devices}"

    @property
    def static(self) -> bool:
        """Whether this is one job, known beforehand, whose tasks take exactly their expected time."""
        return self.jobs == 1 and self.release_time[0] == 0.0 and not self.noise_sigma

    @property
    def duration_s(self) -> F64:
        """(N, D) expected seconds at the fastest operating point, inf where unsupported."""
        seconds: F64 = self.flat.duration * self.time_unit_s
        return seconds

    @property
    def release_time(self) -> F64:
        """(J,) earliest times at which jobs enter."""
        assert self.release is not None
        return self.release

    @cached_property
    def job_offset(self) -> I32:
        """(J + 1,) first task of each job."""
        return np.cumsum([0, *(self.graphs[k].tasks for k in self.job_graph)], dtype=np.int32)

    @cached_property
    def device_type(self) -> I32:
        """(D,) platform device type of each processing element."""
        lanes = [count * kind.capacity for kind, count in zip(self.platform.devices, self.platform.counts, strict=True)]
        return np.repeat(np.arange(len(lanes), dtype=np.int32), lanes)

    @cached_property
    def device_unit(self) -> I32:
        """(D,) the physical device that each processing element is part of."""
        capacity = [
            kind.capacity
            for kind, count in zip(self.platform.devices, self.platform.counts, strict=True)
            for _ in range(count)
        ]
        return np.repeat(np.arange(len(capacity), dtype=np.int32), capacity)

    @cached_property
    def device_names(self) -> tuple[str, ...]:
        """(D,) names such as ``cpu`` where a type has one processing element, else ``cpu.0``, ``cpu.1``."""
        lanes = np.bincount(self.device_type)
        seen = np.zeros(len(lanes), dtype=int)
        names = []
        for kind in self.device_type.tolist():
            name = self.platform.devices[kind].name
            names.append(name if lanes[kind] == 1 else f"{name}.{seen[kind]}")
            seen[kind] += 1
        return tuple(names)

    @cached_property
    def operating_points(self) -> tuple[F64, F64, I32]:
        """Speeds (D, K) against full speed and powers (D, K) in watts, fastest first, and how many (D,) there are."""
        kinds = [
            sorted(((s.speed, s.power_w) for s in kind.power_states), reverse=True) or [(1.0, 0.0)]
            for kind in self.platform.devices
        ]
        most = max(len(points) for points in kinds)
        table = np.ones((len(kinds), most, 2))
        for row, points in zip(table, kinds, strict=True):
            row[: len(points)] = points
        count = np.array([len(points) for points in kinds], dtype=np.int32)
        speed, power = table[self.device_type, :, 0], table[self.device_type, :, 1]
        return np.ascontiguousarray(speed), np.ascontiguousarray(power), count[self.device_type]

    @cached_property
    def links(self) -> F64:
        """(4, D, D) latency and time per byte of the first and of the second hop, in time units.

        All zero between processing elements of one device. Without a shared memory there is no second hop; with
        one, data also goes through memory to reach the device it came from, as in DS3's shared-memory mode.
        """
        return _links(self)

    @cached_property
    def flat(self) -> Flat:
        """All jobs as one graph."""
        return _flatten(self)

    @cached_property
    def tables(self) -> Tables:
        """Ranks, optimistic tails and means of the template tasks."""
        return build_tables(self)

    @cached_property
    def true_duration(self) -> F64:
        """(N, D) realised time units at the fastest operating point; no scheduler may look before a task ends."""
        return self.realised(self.flat.duration)

    def realised(self, expected: F64) -> F64:
        """Return true durations for expected ones (N, ...): noise applied, rounded with ``whole_units``."""
        if not self.noise_sigma:
            return expected
        assert self.noise is not None
        draw = self.noise.reshape(-1, *[1] * (expected.ndim - 1))
        supported = np.isfinite(expected)
        known = np.where(supported, expected, 0.0)
        if self.whole_units:
            rounded = np.maximum(np.rint(known * (1.0 + self.noise_sigma * draw)), 1.0)
            noisy = np.where(known > 0, rounded, 0.0)
        else:
            noisy = known * np.maximum(1.0 + self.noise_sigma * draw, LEAST_NOISE_FACTOR)
        return np.where(supported, noisy, expected)

    def task_label(self, task: int) -> str:
        """Return the name of a task, with its job's number where there are several jobs."""
        job = int(np.searchsorted(self.job_offset, task, side="right")) - 1
        name = self.graphs[self.job_graph[job]].task_names[task - self.job_offset[job]]
        return name if self.jobs == 1 else f"{job}.{name}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SocDagInstance):
            return NotImplemented
        return self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.name, self.graphs, self.release_time.tobytes()))

    def to_json(self) -> str:
        """Return versioned JSON; unsupported costs and absent deadlines are null."""
        from schedrl.envs.socdag.serialisation import instance_to_json

        return instance_to_json(self)

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> Self:
        """Read ``to_json`` output.

        Raises:
            InstanceError: not JSON, another schema, or a bad field.
        """
        from schedrl.envs.socdag.serialisation import instance_from_json

        return cls(**instance_from_json(text, source))


def _freeze_jobs(instance: SocDagInstance) -> None:
    def put(name: str, value: Any, default: Any, dtype: type = np.float64) -> None:
        array = default if value is None else value
        object.__setattr__(instance, name, frozen(array, dtype, 1, f"{instance.name}: field {name}"))

    put("job_graph", instance.job_graph, None, np.int32)
    jobs, kinds = instance.jobs, len(instance.graphs)
    if not kinds or jobs < 1:
        raise InstanceError(f"{instance.name}: field job_graph: {jobs} jobs of {kinds} graphs, expected one or more")
    if ((instance.job_graph < 0) | (instance.job_graph >= kinds)).any():
        raise InstanceError(f"{instance.name}: field job_graph: names an unknown graph, expected 0 to {kinds - 1}")
    put("release", instance.release, np.zeros(jobs))
    put("deadline", instance.deadline, np.full(jobs, np.inf))
    put("utility", instance.utility, np.ones(jobs))
    put("noise", instance.noise, np.zeros(int(instance.job_offset[-1])))
    put("preference", instance.preference, np.array([1.0, 0.0, 0.0]))


def _validate(instance: SocDagInstance) -> None:
    where, types = instance.name, len(instance.platform.devices)
    kinds = zip(instance.platform.devices, instance.platform.counts, strict=True)
    if (devices := sum(count * kind.capacity for kind, count in kinds)) > MOST_DEVICES:
        raise InstanceError(f"{where}: field platform: {devices} processing elements, expected at most {MOST_DEVICES}")
    for graph in instance.graphs:
        if graph.duration.shape[1] != types:
            raise InstanceError(
                f"{where}: graph {graph.name}: field duration: {graph.duration.shape[1]} columns "
                f"for {types} device types"
            )
    sizes = {
        "release": instance.jobs,
        "deadline": instance.jobs,
        "utility": instance.jobs,
        "noise": instance.tasks,
        "preference": 3,
    }
    for name, size in sizes.items():
        values = getattr(instance, name)
        if len(values) != size:
            raise InstanceError(f"{where}: field {name}: {len(values)} values, expected {size}")
        lowest = -np.inf if name == "noise" else 0.0
        wrong = np.isnan(values) | (values < lowest) | (np.isinf(values) & (name != "deadline"))
        if wrong.any():
            index = int(np.flatnonzero(wrong)[0])
            raise InstanceError(
                f"{where}: field {name}[{index}]: {values[index]}, expected a finite number >= {lowest}"
            )
    if (np.diff(instance.release_time) < 0).any():
        index = int(np.flatnonzero(np.diff(instance.release_time) < 0)[0]) + 1
        raise InstanceError(f"{where}: field release[{index}]: earlier than the job before, expected rising times")
    _validate_scalars(instance)


def _validate_scalars(instance: SocDagInstance) -> None:
    where = instance.name
    if type(instance.admission_cap) is not int or instance.admission_cap < 0:
        raise InstanceError(
            f"{where}: field admission_cap: {instance.admission_cap!r}, expected an integer of 0 or more"
        )
    for name, low in (("noise_sigma", 0.0), ("time_unit_s", float(np.finfo(float).tiny))):
        value = getattr(instance, name)
        if not (isinstance(value, (int, float)) and low <= value <= float(np.finfo(float).max)):
            raise InstanceError(f"{where}: field {name}: {value!r}, expected a finite number above or at {low:.3g}")
    if instance.communication not in get_args(Communication):
        raise InstanceError(
            f"{where}: field communication: {instance.communication!r}, expected one of "
            f"{', '.join(get_args(Communication))}"
        )
    if instance.communication == "contention" and instance.platform.memory is not None:
        raise InstanceError(f"{where}: field communication: contention is for links between devices, not for a memory")
    assert instance.preference is not None
    if not instance.preference.sum() > 0:
        raise InstanceError(f"{where}: field preference: {instance.preference.tolist()}, expected a positive weight")


def _links(instance: SocDagInstance) -> F64:
    platform, types = instance.platform, instance.device_type
    names = [kind.name for kind in platform.devices]
    unit = instance.device_unit
    table = np.zeros((4, len(types), len(types)))
    moves = any((graph.edge_bytes > 0).any() for graph in instance.graphs)
    if not moves:
        table.flags.writeable = False
        return table
    hops: list[tuple[int, Any]] = [(0, lambda p, q: (p, q))]
    if platform.memory is not None:
        hops = [(0, lambda p, q: (p, platform.memory)), (2, lambda p, q: (platform.memory, q))]
    for first, ends in hops:
        for p in range(len(types)):
            for q in range(len(types)):
                if unit[p] == unit[q] and platform.memory is None:
                    continue
                try:
                    link = platform.link(*ends(names[types[p]], names[types[q]]))
                except ConfigError as error:
                    raise InstanceError(f"{instance.name}: {error}; every pair of devices needs one") from None
                table[first, p, q] = link.latency_s / instance.time_unit_s
                table[first + 1, p, q] = 1.0 / (link.bandwidth_bytes_per_s * instance.time_unit_s)
    table.flags.writeable = False
    return table


def _flatten(instance: SocDagInstance) -> Flat:
    graphs = [instance.graphs[k] for k in instance.job_graph]
    shift = instance.job_offset[:-1]
    edge_shift = np.cumsum([0, *(graph.edges for graph in graphs)])[:-1]

    def offsets(side: str) -> I32:
        counts = [np.diff(getattr(graph, side).offset) for graph in graphs]
        return np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int32)

    def edges(side: str) -> I32:
        return np.concatenate([getattr(g, side).edge + s for g, s in zip(graphs, edge_shift, strict=True)]).astype(
            np.int32
        )

    duration = np.concatenate([graph.duration for graph in graphs])[:, instance.device_type]
    fastest = instance.operating_points[0][:, 0]
    expected = duration / fastest
    flat = Flat(
        job=np.repeat(np.arange(instance.jobs, dtype=np.int32), np.diff(instance.job_offset)),
        duration=np.ceil(expected - 1e-9) if instance.whole_units else expected,
        edge=np.concatenate([graph.edge + s for graph, s in zip(graphs, shift, strict=True)]).astype(np.int32),
        edge_bytes=np.concatenate([graph.edge_bytes for graph in graphs]),
        predecessor_offset=offsets("predecessors"),
        predecessor_edge=edges("predecessors"),
        successor_offset=offsets("successors"),
        successor_edge=edges("successors"),
        order=np.concatenate([graph.topological_order + s for graph, s in zip(graphs, shift, strict=True)]).astype(
            np.int32
        ),
    )
    for array in flat:
        array.flags.writeable = False
    return flat
