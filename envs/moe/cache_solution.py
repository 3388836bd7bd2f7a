"""Schedules of an expert cache: loads, what each replaces, and when requests are computed; and their checker."""

from __future__ import annotations

import bisect
import json
import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.errors import SolutionError

__all__ = ["SOLUTION_SCHEMA", "CacheSchedule", "cache_objectives", "check_cache"]

SOLUTION_SCHEMA = "schedrl/cache-schedule/1"
MAX_LISTED = 20
_FIELDS: dict[str, Any] = {
    "load_expert": np.int32,
    "evict_expert": np.int32,
    "load_start_s": np.float64,
    "compute_start_s": np.float64,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class CacheSchedule:
    """The loads in order of time, and the start of every request's computation.

    Raises:
        SolutionError: a field of another shape or kind.
    """

    load_expert: I32  # (L,) number of the expert that each load brings
    evict_expert: I32  # (L,) number of the expert that it replaces from its start, -1 for a free place
    load_start_s: F64  # (L,)
    compute_start_s: F64  # (R,)

    def __post_init__(self) -> None:
        for field, dtype in _FIELDS.items():
            values = np.asarray(getattr(self, field))
            kinds = "iu" if dtype is np.int32 else "iuf"
            if values.ndim != 1 or (values.size and values.dtype.kind not in kinds):
                expected = "integers" if dtype is np.int32 else "numbers"
                raise SolutionError(
                    f"cache schedule: field {field}: expected {expected}, got {values.dtype} {values.shape}"
                )
            if dtype is np.int32 and values.size and max(-int(values.min()), int(values.max())) >= 2**31:
                raise SolutionError(f"cache schedule: field {field}: a value outside int32")
            frozen = np.array(values, dtype=dtype)
            frozen.flags.writeable = False
            object.__setattr__(self, field, frozen)
        loads = {len(self.load_expert), len(self.evict_expert), len(self.load_start_s)}
        if len(loads) != 1:
            raise SolutionError("cache schedule: fields of loads: expected equally many experts, evictions and starts")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CacheSchedule):
            return NotImplemented
        return all(np.array_equal(getattr(self, field), getattr(other, field)) for field in _FIELDS)

    def __hash__(self) -> int:
        return hash((self.load_expert.tobytes(), self.compute_start_s.tobytes()))

    def to_json(self) -> str:
        """Return versioned JSON."""
        return json.dumps({"schema": SOLUTION_SCHEMA} | {field: getattr(self, field).tolist() for field in _FIELDS})

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> Self:
        """Read ``to_json`` output.

        Raises:
            SolutionError: not JSON, another schema, or a bad field.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SolutionError(f"{source}: not valid JSON: {error}") from None
        found = data.get("schema") if isinstance(data, dict) else None
        if found != SOLUTION_SCHEMA:
            raise SolutionError(f"{source}: field schema: expected {SOLUTION_SCHEMA!r}, got {found!r:.60}")
        for field in _FIELDS:
            if not isinstance(data.get(field), list):
                raise SolutionError(f"{source}: field {field}: expected a list, got {data.get(field)!r:.40}")
        try:
            return cls(**{field: data[field] for field in _FIELDS})
        except (SolutionError, ValueError) as error:
            raise SolutionError(f"{source}: {error}") from None


def check_cache(instance: ExpertCacheInstance, schedule: CacheSchedule) -> list[str]:
    """Return every way in which a schedule breaks the instance, in words; an empty list means valid.

    Written from the definition of the instance. Times may be early by 1e-9 of the last one, for rounding.
    """
    if len(schedule.compute_start_s) != instance.steps:
        return [f"the schedule computes {len(schedule.compute_start_s)} requests, the instance has {instance.steps}"]
    starts = np.concatenate([schedule.load_start_s, schedule.compute_start_s])
    if not np.isfinite(starts).all():
        return ["a start is not a finite number"]
    slack = 1e-9 * float(np.abs(starts).max())
    outside = (schedule.load_expert < 0) | (schedule.load_expert >= instance.total)
    outside |= (schedule.evict_expert < -1) | (schedule.evict_expert >= instance.total)
    if outside.any():
        return [f"load {np.flatnonzero(outside)[0]} names no expert, expected 0 to {instance.total - 1}"]
    found = _clashes("load", schedule.load_start_s, np.full(len(schedule.load_start_s), instance.load_s), slack)
    found += _clashes("request", schedule.compute_start_s, instance.duration_s, slack)
    stays, wrong = _stays(instance, schedule, slack)
    found += wrong
    for r, start in enumerate(schedule.compute_start_s.tolist()):
        end = start + float(instance.duration_s[r])
        for expert in instance.needed[r][instance.needed[r] >= 0].tolist():
            if end > _resident_until(stays, expert, start + slack) + slack:
                found.append(f"expert {expert} is not resident throughout request {r}, {start:.9g} s to {end:.9g} s")
        if len(found) >= MAX_LISTED:
            break
    return found[:MAX_LISTED]


def _clashes(what: str, start: F64, duration: F64, slack: float) -> list[str]:
    """Return what starts before 0 or before the one in front of it ends."""
    earliest = np.concatenate([[0.0], (start + duration)[:-1]])[: len(start)]
    return [
        f"{what} {i} starts at {start[i]:.9g} s, before {earliest[i]:.9g} s"
        for i in np.flatnonzero(start < earliest - slack).tolist()
    ]


def _stays(
    instance: ExpertCacheInstance, schedule: CacheSchedule, slack: float
) -> tuple[dict[int, list[tuple[float, float]]], list[str]]:
    """Return when each expert is resident, and loads that the memory does not allow."""
    since = dict.fromkeys(instance.initial.tolist(), 0.0)
    stays: dict[int, list[tuple[float, float]]] = {}
    found: list[str] = []
    columns = (schedule.load_expert, schedule.evict_expert, schedule.load_start_s)
    for i, (expert, evicted, start) in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        if evicted >= 0:
            if evicted not in since or since[evicted] > start + slack:
                found.append(f"load {i} replaces expert {evicted}, which is not resident at {start:.9g} s")
            if evicted in since:
                stays.setdefault(evicted, []).append((since.pop(evicted), start))
        if expert in since:
            found.append(f"load {i} brings expert {expert}, which is there already")
            continue
        since[expert] = start + instance.load_s
        if len(since) > instance.capacity:
            found.append(f"load {i} makes {len(since)} experts in memory, the capacity is {instance.capacity}")
    for expert, start in since.items():
        stays.setdefault(expert, []).append((start, math.inf))
    return stays, found


def _resident_until(stays: dict[int, list[tuple[float, float]]], expert: int, moment: float) -> float:
    """Return the end of the last stay that began by a moment, minus infinity if there is none."""
    own = stays.get(expert, [])
    at = bisect.bisect_right(own, (moment, math.inf))
    return own[at - 1][1] if at else -math.inf


def cache_objectives(instance: ExpertCacheInstance, schedule: CacheSchedule) -> dict[str, float]:
    """Return the objectives of a valid schedule.

    ``decode_time`` ends with the last request and ``stall_s`` is what of it nothing is computed (seconds).
    ``hit_rate`` is the share of the needed experts that are resident when their request gets known, at the end of the
    one before. ``loaded_bytes`` counts every load.
    """
    end = schedule.compute_start_s + instance.duration_s
    known = np.concatenate([[0.0], end[:-1]])
    slack = 1e-9 * float(end[-1])
    stays, _ = _stays(instance, schedule, slack)
    hits = needs = 0
    for r, moment in enumerate(known.tolist()):
        for expert in instance.needed[r][instance.needed[r] >= 0].tolist():
            needs += 1
            hits += moment < _resident_until(stays, expert, moment + slack)
    return {
        "decode_time": float(end[-1]),
        "hit_rate": hits / needs,
        "loaded_bytes": len(schedule.load_expert) * instance.expert_bytes,
        "stall_s": float(end[-1] - instance.duration_s.sum()),
    }
