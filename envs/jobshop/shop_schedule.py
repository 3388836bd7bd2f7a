"""Schedules of a shop of any variant: a mode and a start for every operation, and what follows from them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from schedrl.arrays import I32, I64
from schedrl.envs.jobshop.instance import MAX_TIME
from schedrl.envs.jobshop.shop import NO_DUE_DATE, ShopInstance
from schedrl.errors import SolutionError

__all__ = [
    "ShopSchedule",
    "chosen_modes",
    "completion_times",
    "departure_times",
    "job_completion_times",
    "machine_sequences",
    "objectives",
]

SCHEMA = "schedrl/shop-schedule/1"
_LIMITS = {"mode": np.iinfo(np.int32).max, "start_time": MAX_TIME}


@dataclass(frozen=True, kw_only=True, eq=False)
class ShopSchedule:
    """The mode and the start time of every operation, in the instance's flat operation order.

    Construction checks shape and type only. Whether they obey an instance is for ``check_shop`` to say.

    Raises:
        SolutionError: not a one-dimensional integer array, or a number beyond what the field may hold.
    """

    mode: I32  # (N,) counted within the operation, 0-based
    start_time: I64  # (N,) time units

    def __post_init__(self) -> None:
        for field, dtype in (("mode", np.int32), ("start_time", np.int64)):
            object.__setattr__(self, field, _frozen(getattr(self, field), dtype, field))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ShopSchedule):
            return NotImplemented
        return np.array_equal(self.mode, other.mode) and np.array_equal(self.start_time, other.start_time)

    def __hash__(self) -> int:
        return hash((self.mode.tobytes(), self.start_time.tobytes()))

    def to_json(self) -> str:
        """Return versioned JSON with the mode and the start of each operation in flat order."""
        return json.dumps({"schema": SCHEMA, "mode": self.mode.tolist(), "start_time": self.start_time.tolist()})

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> Self:
        """Read ``to_json`` output.

        Raises:
            SolutionError: not JSON, another schema, or a mode or start that is not an integer.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SolutionError(f"{source}: not valid JSON: {error}") from None
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise SolutionError(f"{source}: field schema: expected {SCHEMA!r}")
        for field, limit in _LIMITS.items():
            values = data.get(field)
            if not isinstance(values, list):
                raise SolutionError(f"{source}: field {field}: expected a list of integers, got {values!r:.40}")
            for index, value in enumerate(values):
                if type(value) is not int or abs(value) > limit:
                    raise SolutionError(
                        f"{source}: field {field}[{index}]: expected an integer up to {limit}, got {value!r:.40}"
                    )
        return cls(mode=np.array(data["mode"], dtype=np.int64), start_time=np.array(data["start_time"], dtype=np.int64))

    def to_csv(self, instance: ShopInstance) -> str:
        """Return CSV lines ``job,operation,mode,machine,start,end,departure``, 0-based, operations within their job.

        Raises:
            SolutionError: the schedule is of another size, or chooses a mode that does not exist.
        """
        end = completion_times(instance, self)
        columns = (
            instance.job,
            np.arange(instance.operations) - instance.job_offset[instance.job],
            self.mode,
            instance.machine[chosen_modes(instance, self)],
            self.start_time,
            end,
            _departures(instance, self.start_time, end),
        )
        rows = zip(*(column.tolist() for column in columns), strict=True)
        header = "job,operation,mode,machine,start,end,departure"
        return "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"


def chosen_modes(instance: ShopInstance, schedule: ShopSchedule) -> I64:
    """Return (N,) index of each operation's mode among all K modes of the instance.

    Raises:
        SolutionError: the schedule is of another size, or chooses a mode that does not exist.
    """
    for field in ("mode", "start_time"):
        if (count := len(getattr(schedule, field))) != instance.operations:
            raise SolutionError(
                f"field {field}: {count} values, expected {instance.operations}, one per operation of {instance.name}"
            )
    choices = np.diff(instance.mode_offset)
    if (bad := np.flatnonzero((schedule.mode < 0) | (schedule.mode >= choices))).size:
        i = bad[0]
        raise SolutionError(f"field mode[{i}]: {schedule.mode[i]}, expected 0 to {choices[i] - 1} in {instance.name}")
    return instance.mode_offset[:-1].astype(np.int64) + schedule.mode


def completion_times(instance: ShopInstance, schedule: ShopSchedule) -> I64:
    """Return (N,) when each operation has run for its actual duration, outages of its machine not counted.

    An operation that has run long enough as an outage begins completes then. One that starts in an outage, which no
    valid schedule has, waits for its end.

    Raises:
        SolutionError: the schedule is of another size, or chooses a mode that does not exist.
    """
    chosen = chosen_modes(instance, schedule)
    machine, duration = instance.machine[chosen], instance.actual_duration[chosen]
    end: I64 = schedule.start_time + duration
    for m in np.flatnonzero(np.diff(instance.outage_offset)).tolist():
        outages = slice(instance.outage_offset[m], instance.outage_offset[m + 1])
        here = np.flatnonzero(machine == m)
        end[here] = _resumed(
            schedule.start_time[here], duration[here], instance.outage_start[outages], instance.outage_end[outages]
        )
    return end


def departure_times(instance: ShopInstance, schedule: ShopSchedule) -> I64:
    """Return (N,) when each operation leaves its machine.

    Without blocking that is its completion. With blocking the job stays until its next operation starts, and leaves at
    its completion after the last.

    Raises:
        SolutionError: the schedule is of another size, or chooses a mode that does not exist.
    """
    return _departures(instance, schedule.start_time, completion_times(instance, schedule))


def job_completion_times(instance: ShopInstance, schedule: ShopSchedule) -> I64:
    """Return (J,) completion of each job.

    Raises:
        SolutionError: the schedule is of another size, or chooses a mode that does not exist.
    """
    # The latest end, not the last operation's: an invalid schedule must not score better than it runs.
    ends: I64 = np.maximum.reduceat(completion_times(instance, schedule), instance.job_offset[:-1])
    return ends


def machine_sequences(instance: ShopInstance, schedule: ShopSchedule) -> list[I64]:
    """Return each machine's operations in the order in which they occupy it.

    Operations that take no time come before others of the same start, and among themselves in an order that needs no
    setup. Where setups obey the triangle inequality such an order is found if there is one.

    Raises:
        SolutionError: the schedule is of another size, or chooses a mode that does not exist.
    """
    start, departure = schedule.start_time, departure_times(instance, schedule)
    machine = instance.machine[chosen_modes(instance, schedule)]
    order = np.lexsort((departure, start, machine))
    sequences = np.split(order, np.searchsorted(machine[order], np.arange(1, instance.machines)))
    for m in np.flatnonzero(instance.setup.any(axis=(1, 2))).tolist():
        sequence = sequences[m]
        changes = (np.diff(start[sequence]) != 0) | (np.diff(departure[sequence]) != 0)
        for tied in np.split(sequence, np.flatnonzero(changes) + 1):
            if len(tied) > 1 and departure[tied[0]] == start[tied[0]]:
                family = instance.setup_family[tied]
                free = instance.setup[m][np.ix_(family, family)] == 0
                tied[:] = tied[np.argsort((free & ~free.T).sum(axis=0), kind="stable")]
    return sequences


def objectives(instance: ShopInstance, schedule: ShopSchedule) -> dict[str, float]:
    """Return makespan, total weighted tardiness and flow time, and their sum weighted as the instance has it.

    Flow time is completion minus release. ``instance.objective`` is one of the keys.

    Raises:
        SolutionError: the schedule is of another size, or chooses a mode that does not exist.
    """
    ends = job_completion_times(instance, schedule)
    late = np.where(instance.due < NO_DUE_DATE, np.maximum(ends - instance.due, 0), 0)
    values = {
        "makespan": float(ends.max()),
        "total_weighted_tardiness": float(instance.weight @ late),
        "total_weighted_flow_time": float(instance.weight @ (ends - instance.release)),
    }
    weighted = sum(weight * value for weight, value in zip(instance.objective_weights, values.values(), strict=True))
    return values | {"weighted_objective": weighted}


def _resumed(start: I64, duration: I64, down: I64, up: I64) -> I64:
    """Return completions on one machine that is down in [down, up), reckoned in the time that it was up."""
    pause = np.concatenate([[0], np.cumsum(up - down)])
    begin = np.append(down - pause[:-1], np.iinfo(np.int64).max)
    over = np.searchsorted(up, start, side="right")
    target = np.minimum(start - pause[over], begin[over]) + duration
    # An operation of no duration right after an outage must not move before it, hence the two maxima.
    passed = np.maximum(over, np.searchsorted(begin[:-1], target, side="left"))
    resumed: I64 = np.maximum(start, target + pause[passed])
    return resumed


def _departures(instance: ShopInstance, start: I64, completion: I64) -> I64:
    departure = completion.copy()
    if instance.blocking != "none":
        stays = np.flatnonzero(instance.job[1:] == instance.job[:-1])
        departure[stays] = np.maximum(completion[stays], start[stays + 1])
    return departure


def _frozen(values: Any, dtype: type, field: str) -> np.ndarray[Any, Any]:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise SolutionError(f"field {field}: expected a one-dimensional integer array, got {array.dtype} {array.shape}")
    limit = _LIMITS[field]
    if array.size and (int(array.min()) < -limit or int(array.max()) > limit):
        raise SolutionError(f"field {field}: a number beyond plus or minus {limit}")
    frozen: np.ndarray[Any, Any] = np.array(array, dtype=dtype)
    frozen.flags.writeable = False
    return frozen
