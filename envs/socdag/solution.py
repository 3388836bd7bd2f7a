"""The solution: where and when each task runs, its checker and its objectives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Self

import numpy as np

from schedrl.arrays import F64, I32, Bool
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.errors import SolutionError

__all__ = ["MAX_LISTED", "DagSchedule", "check", "job_latency", "objectives", "task_end"]

SCHEMA = "schedrl/socdag-schedule/1"
MAX_LISTED = 20
# Times are sums of rounded floating-point numbers: this much, relative to the latest time, is no violation.
_TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class DagSchedule:
    """Device, start and operating point of every task, in the instance's time unit.

    Construction checks shapes only; whether the times obey an instance is for ``check`` to say.

    Raises:
        SolutionError: arrays of unequal length, or times that are not finite.
    """

    device: I32  # (N,) processing element, -1 for the tasks of a dropped job
    start: F64  # (N,) ignored for dropped tasks
    entry: F64  # (J,) when each job entered; its release time unless admission was capped
    point: I32 | None = None  # (N,) operating point, fastest (0) by default
    transfer: F64 | None = None  # (E,) start of each edge's transfer; needed under link contention only

    def __post_init__(self) -> None:
        device = _frozen(self.device, np.int32, "device")
        point = np.zeros(len(device), np.int32) if self.point is None else self.point
        transfer = np.zeros(0) if self.transfer is None else self.transfer
        arrays = {
            "device": device,
            "start": _frozen(self.start, np.float64, "start"),
            "entry": _frozen(self.entry, np.float64, "entry"),
            "point": _frozen(point, np.int32, "point"),
            "transfer": _frozen(transfer, np.float64, "transfer"),
        }
        for name in ("start", "point"):
            if len(arrays[name]) != len(device):
                raise SolutionError(f"schedule: field {name}: {len(arrays[name])} values for {len(device)} tasks")
        for name, array in arrays.items():
            object.__setattr__(self, name, array)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DagSchedule):
            return NotImplemented
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in _FIELDS)

    def __hash__(self) -> int:
        return hash((self.device.tobytes(), self.start.tobytes()))

    def to_json(self) -> str:
        """Return versioned JSON."""
        return json.dumps({"schema": SCHEMA, **{name: getattr(self, name).tolist() for name in _FIELDS}})

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> Self:
        """Read ``to_json`` output.

        Raises:
            SolutionError: not JSON, another schema, or a field that is not a list of numbers.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SolutionError(f"{source}: not valid JSON: {error}") from None
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise SolutionError(f"{source}: field schema: expected {SCHEMA!r}")
        for name in _FIELDS:
            values = data.get(name)
            kinds = (int,) if name in ("device", "point") else (int, float)
            if not isinstance(values, list) or any(type(value) not in kinds for value in values):
                raise SolutionError(f"{source}: field {name}: expected a list of {kinds[-1].__name__}s")
        try:
            return cls(**{name: np.array(data[name], dtype=_FIELDS[name]) for name in _FIELDS})
        except (OverflowError, SolutionError) as error:
            raise SolutionError(f"{source}: {error}") from None

    def to_csv(self, instance: SocDagInstance) -> str:
        """Return CSV lines ``task,device,point,start,end``; dropped tasks have no device."""
        end = task_end(instance, self)
        rows = [
            f"{instance.task_label(t)},{instance.device_names[d]},{k},{s!r},{e!r}"
            if d >= 0
            else f"{instance.task_label(t)},,,,"
            for t, (d, k, s, e) in enumerate(
                zip(self.device.tolist(), _array(self.point).tolist(), self.start.tolist(), end.tolist(), strict=True)
            )
        ]
        return "\n".join(["task,device,point,start,end", *rows]) + "\n"


_FIELDS = {"device": np.int32, "start": np.float64, "entry": np.float64, "point": np.int32, "transfer": np.float64}


def check(instance: SocDagInstance, schedule: DagSchedule) -> list[str]:
    """Return every way in which a schedule breaks the instance, in words; an empty list means valid.

    Written from the definition: every task runs once, without interruption, for its true duration, on a device
    that supports it; a device runs one task at a time (a task of no time may stand at the edge of another but not
    inside it); a task starts after its job entered and after its inputs arrived; jobs enter when the release
    times and the admission limit say; only whole jobs with a deadline may be dropped. Under contention, transfers
    on one directed link between two devices do not overlap. At most ``MAX_LISTED`` violations are spelled out.
    """
    if problem := _size_problem(instance, schedule):
        return [problem]
    found = list(_placement_problems(instance, schedule))
    if found:
        return _listed(iter(found), len(found))
    end = task_end(instance, schedule)
    # A dropped task's start means nothing, so it may not widen the tolerance either.
    slack = _TOLERANCE * max(1.0, float(end[schedule.device >= 0].max(initial=0.0)))
    words = chain(
        _entry_problems(instance, schedule, end, slack),
        _transfer_problems(instance, schedule, end, slack),
        _overlap_problems(instance, schedule, end, slack),
    )
    found = list(words)
    return _listed(iter(found), len(found))


def task_end(instance: SocDagInstance, schedule: DagSchedule) -> F64:
    """Return (N,) the true end of each task; of a dropped task its start.

    Raises:
        SolutionError: the number of tasks differs.
    """
    if len(schedule.device) != instance.tasks:
        raise SolutionError(f"schedule: field device: {len(schedule.device)} values for {instance.tasks} tasks")
    ran = schedule.device >= 0
    task, device, point = np.flatnonzero(ran), schedule.device[ran], _array(schedule.point)[ran]
    expected = np.concatenate([instance.graphs[k].duration for k in instance.job_graph])
    speed = instance.operating_points[0][device, point]
    duration = np.zeros(instance.tasks)
    duration[task] = expected[task, instance.device_type[device]] / speed
    if instance.whole_units:
        duration = np.ceil(duration - 1e-9)
    end: F64 = schedule.start + instance.realised(duration)
    return end


def job_latency(instance: SocDagInstance, schedule: DagSchedule) -> F64:
    """Return (J,) time from a job's entry to the end of its last task.

    A dropped job counts as if it ended with the last job that ran, and at its deadline at the earliest. The mean
    can still fall when a job is dropped, because the others no longer share the devices with it.
    """
    end = task_end(instance, schedule)
    ran = schedule.device >= 0
    last = np.maximum.reduceat(np.where(ran, end, -np.inf), instance.job_offset[:-1])
    dropped = ~ran[instance.job_offset[:-1]]
    assert instance.deadline is not None
    latest = float(last.max()) if (~dropped).any() else 0.0
    latency: F64 = np.where(dropped, np.maximum(latest - schedule.entry, instance.deadline), last - schedule.entry)
    return latency


def objectives(instance: SocDagInstance, schedule: DagSchedule) -> dict[str, float]:
    """Return the objectives, all minimised; those that the instance says nothing about are left out.

    ``latency``: mean over jobs from entry to end; of a single job released at 0, its makespan. ``makespan``: end of
    the last task. Also ``p95_latency`` (several jobs), ``energy_j`` (power of running tasks, and idle power until
    the makespan), ``cost_usd`` (device time in use times price), ``utility_lost`` (share of the utility of
    jobs with a deadline that end late or are dropped).

    Raises:
        SolutionError: the number of tasks or jobs differs.
    """
    if problem := _size_problem(instance, schedule):
        raise SolutionError(problem)
    end, latency = task_end(instance, schedule), job_latency(instance, schedule)
    ran = schedule.device >= 0
    makespan = float(end[ran].max(initial=0.0))
    values = {"latency": float(latency.mean()), "makespan": makespan}
    if instance.jobs > 1:
        values["p95_latency"] = float(np.quantile(latency, 0.95))
    kinds = [instance.platform.devices[k] for k in instance.device_type]
    busy = np.where(ran, end - schedule.start, 0.0) * instance.time_unit_s
    power = instance.operating_points[1]
    idle = np.array([kind.idle_power_w / kind.capacity for kind in kinds])
    if power.any() or idle.any():
        used = np.bincount(schedule.device[ran], busy[ran], instance.devices)
        running = float((busy[ran] * power[schedule.device[ran], _array(schedule.point)[ran]]).sum())
        values["energy_j"] = running + float((idle * (makespan * instance.time_unit_s - used)).sum())
    price = np.array([kind.price_usd_per_h or 0.0 for kind in kinds]) / np.array([kind.capacity for kind in kinds])
    if price.any():
        values["cost_usd"] = float((busy[ran] * price[schedule.device[ran]]).sum() / 3600.0)
    assert instance.deadline is not None and instance.utility is not None
    bound = np.isfinite(instance.deadline)
    if bound.any():
        slack = _TOLERANCE * max(1.0, makespan)
        missed = bound & ((latency > instance.deadline + slack) | ~ran[instance.job_offset[:-1]])
        values["utility_lost"] = float(instance.utility[missed].sum() / max(instance.utility[bound].sum(), 1e-300))
    return values


def _size_problem(instance: SocDagInstance, schedule: DagSchedule) -> str:
    if len(schedule.device) != instance.tasks:
        return f"{len(schedule.device)} tasks, expected {instance.tasks}"
    if len(schedule.entry) != instance.jobs:
        return f"{len(schedule.entry)} entry times for {instance.jobs} jobs"
    edges = len(instance.flat.edge) if instance.communication == "contention" else len(_array(schedule.transfer))
    if len(_array(schedule.transfer)) not in (0, len(instance.flat.edge)) or len(_array(schedule.transfer)) != edges:
        return f"{len(_array(schedule.transfer))} transfers for {len(instance.flat.edge)} edges"
    return ""


def _placement_problems(instance: SocDagInstance, schedule: DagSchedule) -> Iterator[str]:
    device, point = schedule.device, _array(schedule.point)
    counts = instance.operating_points[2]
    for t in np.flatnonzero((device < -1) | (device >= instance.devices)).tolist():
        yield f"{instance.task_label(t)} runs on device {device[t]}, expected 0 to {instance.devices - 1}"
    ran = (device >= 0) & (device < instance.devices)
    for t in np.flatnonzero(ran).tolist():
        if not np.isfinite(instance.flat.duration[t, device[t]]):
            yield f"{instance.task_label(t)} runs on {instance.device_names[device[t]]}, which does not support it"
        if not 0 <= point[t] < counts[device[t]]:
            yield f"{instance.task_label(t)} runs at operating point {point[t]}, expected 0 to {counts[device[t]] - 1}"
        if not schedule.start[t] >= 0:
            yield f"{instance.task_label(t)} starts at {schedule.start[t]:g}, before time 0"
    assert instance.deadline is not None
    dropped = device == -1
    for j in range(instance.jobs):
        part = dropped[instance.job_offset[j] : instance.job_offset[j + 1]]
        if part.any() and not part.all():
            yield f"job {j} is dropped in part: {int(part.sum())} of {len(part)} tasks do not run"
        elif part.any() and not np.isfinite(instance.deadline[j]):
            yield f"job {j} is dropped, but has no deadline"


def _entry_problems(instance: SocDagInstance, schedule: DagSchedule, end: F64, slack: float) -> Iterator[str]:
    expected = _entry_times(instance, schedule, end)
    for j in np.flatnonzero(np.abs(schedule.entry - expected) > slack).tolist():
        yield f"job {j} enters at {schedule.entry[j]:g}, expected {expected[j]:g}"
    entry = schedule.entry[instance.flat.job]
    for t in np.flatnonzero((schedule.device >= 0) & (schedule.start < entry - slack)).tolist():
        yield f"{instance.task_label(t)} starts at {schedule.start[t]:g}, before its job enters at {entry[t]:g}"


def _entry_times(instance: SocDagInstance, schedule: DagSchedule, end: F64) -> F64:
    """Return (J,) when each job has to enter, given when the jobs before it entered and left."""
    release, cap = instance.release_time, instance.admission_cap
    if not cap:
        return release
    leaves = np.maximum.reduceat(np.where(schedule.device >= 0, end, -np.inf), instance.job_offset[:-1])
    entry = np.zeros(instance.jobs)
    for j in range(instance.jobs):
        earliest = release[0] if j == 0 else entry[j - 1] + (release[j] - release[j - 1])
        if j >= cap:
            # Fewer than cap jobs are inside once the cap-th latest of the earlier departures has happened.
            earliest = max(earliest, float(np.sort(leaves[:j])[j - cap]))
        entry[j] = earliest
    return entry


def _transfer_problems(instance: SocDagInstance, schedule: DagSchedule, end: F64, slack: float) -> Iterator[str]:
    source, target = instance.flat.edge[:, 0], instance.flat.edge[:, 1]
    ran = schedule.device[source] >= 0
    cost = _transfer_times(instance, schedule, ran)
    begin = end[source]
    if instance.communication == "contention":
        moves = ran & (cost > 0)
        begin = np.where(moves, _array(schedule.transfer), begin)
        for e in np.flatnonzero(moves & (begin < end[source] - slack)).tolist():
            yield f"{_edge_label(instance, e)} moves data at {begin[e]:g}, before it exists at {end[source[e]]:g}"
        yield from _link_problems(instance, schedule, begin, cost, moves, slack)
    late = ran & (schedule.start[target] < begin + cost - slack)
    for e in np.flatnonzero(late).tolist():
        yield (
            f"{instance.task_label(int(target[e]))} starts at {schedule.start[target[e]]:g}, before the data of "
            f"{instance.task_label(int(source[e]))} arrive at {begin[e] + cost[e]:g}"
        )


def _transfer_times(instance: SocDagInstance, schedule: DagSchedule, ran: Bool) -> F64:
    """Return (E,) how long each edge's data travel between the devices of its tasks."""
    platform, unit_s = instance.platform, instance.time_unit_s
    names = [kind.name for kind in platform.devices]
    cost = np.zeros(len(instance.flat.edge))
    for e in np.flatnonzero(ran & (instance.flat.edge_bytes > 0)).tolist():
        p, q = (int(schedule.device[end]) for end in instance.flat.edge[e])
        size = float(instance.flat.edge_bytes[e])
        first, last = names[instance.device_type[p]], names[instance.device_type[q]]
        if platform.memory is not None:
            hops = [(first, platform.memory), (platform.memory, last)]
        else:
            hops = [(first, last)] if instance.device_unit[p] != instance.device_unit[q] else []
        for hop in hops:
            taken = platform.link(*hop).transfer_s(size) / unit_s
            cost[e] += np.floor(taken + 1e-9) if instance.whole_units else taken
    return cost


def _link_problems(
    instance: SocDagInstance, schedule: DagSchedule, begin: F64, cost: F64, moves: Bool, slack: float
) -> Iterator[str]:
    edges = np.flatnonzero(moves)
    unit = instance.device_unit[schedule.device[instance.flat.edge[edges]]]
    link = unit[:, 0].astype(np.int64) * instance.devices + unit[:, 1]
    order = edges[np.lexsort((begin[edges], link))]
    link = np.sort(link)
    for k in range(1, len(order)):
        before, after = order[k - 1], order[k]
        if link[k] == link[k - 1] and begin[after] < begin[before] + cost[before] - slack:
            yield f"{_edge_label(instance, after)} and {_edge_label(instance, before)} use one link at {begin[after]:g}"


def _overlap_problems(instance: SocDagInstance, schedule: DagSchedule, end: F64, slack: float) -> Iterator[str]:
    ran = np.flatnonzero(schedule.device >= 0)
    order = ran[np.lexsort((end[ran], schedule.start[ran], schedule.device[ran]))]
    holder = -1
    for t in order.tolist():
        if holder >= 0 and schedule.device[holder] == schedule.device[t]:
            # The second condition lets a task of no time start with the holder, up to rounding.
            if schedule.start[t] < end[holder] - slack and schedule.start[holder] < end[t] - slack:
                yield (
                    f"device {instance.device_names[schedule.device[t]]}: {instance.task_label(t)} "
                    f"[{schedule.start[t]:g}, {end[t]:g}) overlaps {instance.task_label(holder)} "
                    f"[{schedule.start[holder]:g}, {end[holder]:g})"
                )
            holder = t if end[t] > end[holder] else holder
        else:
            holder = t


def _edge_label(instance: SocDagInstance, edge: int) -> str:
    source, target = instance.flat.edge[edge].tolist()
    return f"{instance.task_label(source)} -> {instance.task_label(target)}"


def _listed(words: Iterator[str], total: int) -> list[str]:
    listed = list(islice(words, MAX_LISTED))
    if total > len(listed):
        listed.append(f"... and {total - len(listed)} more")
    return listed


def _array(values: Any) -> Any:
    assert values is not None
    return values


def _frozen(values: Any, dtype: type, field: str) -> np.ndarray[Any, Any]:
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(dtype)
    if array.ndim != 1 or array.dtype.kind not in ("iu" if dtype is np.int32 else "iuf"):
        raise SolutionError(f"schedule: field {field}: expected a list of numbers, got {array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        raise SolutionError(f"schedule: field {field}[{int(np.flatnonzero(~np.isfinite(array))[0])}]: not finite")
    if dtype is np.int32 and array.size and not -(2**31) <= array.min() <= array.max() < 2**31:
        raise SolutionError(f"schedule: field {field}: {array.min()} to {array.max()}, expected 32-bit integers")
    copy: np.ndarray[Any, Any] = np.array(array, dtype=dtype)
    copy.flags.writeable = False
    return copy
