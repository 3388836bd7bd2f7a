"""The shop of any variant: choice of machines, blocking, dates, setups, outages, durations that turn out otherwise.

``JobShopInstance`` is its smallest common member: one machine per operation, makespan, everything known. Fields that a
variant does not use keep their defaults, so that a flexible job shop is offsets, machines and durations alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np

from schedrl.arrays import F64, I32, I64
from schedrl.envs.jobshop.instance import MAX_TIME, JobShopInstance
from schedrl.envs.jobshop.shop_validation import check_offsets, check_times, frozen, plain_field
from schedrl.errors import InstanceError

__all__ = ["NO_DUE_DATE", "SHOP_SCHEMA", "Blocking", "ShopInstance"]

Blocking = Literal["none", "swap", "no-swap"]
NO_DUE_DATE = MAX_TIME
"""due date of a job that cannot be late"""
SHOP_SCHEMA = "schedrl/shop-instance/1"
_MOST_MACHINES = 2**20
_NAMES = {
    (1.0, 0.0, 0.0): "makespan",
    (0.0, 1.0, 0.0): "total_weighted_tardiness",
    (0.0, 0.0, 1.0): "total_weighted_flow_time",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class ShopInstance:
    """Jobs are chains of operations; each runs in one of its modes, a machine and the time it takes there.

    Operations are stored flat, job after job; operation o owns the modes ``mode_offset[o]:mode_offset[o + 1]``. Times
    are integers in one arbitrary unit. What happens and what is known beforehand may differ: ``actual_duration`` is how
    long a mode takes, ``duration`` how long it is expected to; machines are down in their outages, during which an
    operation pauses and none starts, and nobody knows them before they come; with ``announced`` false a job is
    known only from its release on. Methods whose information is ``online`` use what is known, clairvoyant ones all.

    Blocking (Pranzo and Pacciarelli 2016): without room between machines a job stays on its machine until it starts on
    the next. With ``swap`` jobs that wait for each other's machines in a cycle move at once; with ``no-swap`` they may
    not, and such a cycle is a deadlock.

    Raises:
        InstanceError: a field breaks one of these rules; the message names field and value.
    """

    name: str
    machines: int
    job_offset: I32  # (J + 1,)
    mode_offset: I32  # (N + 1,)
    machine: I32  # (K,) of each mode, 0-based
    duration: I64  # (K,) expected, time units, >= 0
    actual_duration: I64 = None  # type: ignore[assignment]  # (K,) as expected by default
    release: I64 = None  # type: ignore[assignment]  # (J,) 0 by default
    due: I64 = None  # type: ignore[assignment]  # (J,) NO_DUE_DATE by default
    weight: F64 = None  # type: ignore[assignment]  # (J,) of tardiness and flow time, 1 by default
    setup_family: I32 = None  # type: ignore[assignment]  # (N,) 0 by default
    setup: I64 = None  # type: ignore[assignment]  # (M, F, F) time between operations of two families, (M, 1, 1) of 0
    outage_offset: I32 = None  # type: ignore[assignment]  # (M + 1,) outages of each machine
    outage_start: I64 = None  # type: ignore[assignment]  # (O,) ascending within a machine
    outage_end: I64 = None  # type: ignore[assignment]  # (O,) excluded, not after the next start
    blocking: Blocking = "none"
    announced: bool = True
    objective_weights: tuple[float, float, float] = (1.0, 0.0, 0.0)
    """of makespan, total weighted tardiness and total weighted flow time"""

    _ARRAYS: ClassVar[dict[str, type]] = {
        "job_offset": np.int32, "mode_offset": np.int32, "machine": np.int32, "duration": np.int64,
        "actual_duration": np.int64, "release": np.int64, "due": np.int64, "weight": np.float64,
        "setup_family": np.int32, "setup": np.int64, "outage_offset": np.int32, "outage_start": np.int64,
        "outage_end": np.int64,
    }  # fmt: skip

    def __post_init__(self) -> None:
        _validate_plain(self)
        object.__setattr__(self, "machines", int(self.machines))
        for field, dtype in self._ARRAYS.items():
            given = getattr(self, field)
            values = self._default(field) if given is None else given
            dimensions = 3 if field == "setup" else 1
            object.__setattr__(self, field, frozen(values, dtype, f"{self.name}: field {field}", dimensions))
        _validate(self)

    def _default(self, field: str) -> Any:
        jobs, operations = len(self.job_offset) - 1, len(self.mode_offset) - 1
        defaults: dict[str, Callable[[], Any]] = {
            "actual_duration": lambda: self.duration,
            "release": lambda: np.zeros(jobs, dtype=np.int64),
            "due": lambda: np.full(jobs, NO_DUE_DATE),
            "weight": lambda: np.ones(jobs),
            "setup_family": lambda: np.zeros(operations, dtype=np.int64),
            "setup": lambda: np.zeros((self.machines, 1, 1), dtype=np.int64),
            "outage_offset": lambda: np.zeros(self.machines + 1, dtype=np.int64),
            "outage_start": lambda: np.zeros(0, dtype=np.int64),
            "outage_end": lambda: np.zeros(0, dtype=np.int64),
        }
        return defaults[field]()

    @property
    def jobs(self) -> int:
        """Number of jobs J."""
        return len(self.job_offset) - 1

    @property
    def operations(self) -> int:
        """Number of operations N."""
        return len(self.mode_offset) - 1

    @property
    def modes(self) -> int:
        """Number of modes K of all operations."""
        return len(self.machine)

    @property
    def size_label(self) -> str:
        """Size group in tables: ``JOBSxMACHINES``, such as 15x15."""
        return f"{self.jobs}x{self.machines}"

    @property
    def problem(self) -> str:
        """The kind of problem: ``shop``, whatever the variant."""
        return "shop"

    @property
    def objective(self) -> str:
        """Name of what is minimised."""
        return _NAMES.get(self.objective_weights, "weighted_objective")

    @property
    def flexible(self) -> bool:
        """Whether some operation has a choice of modes."""
        return self.modes > self.operations

    @property
    def certain(self) -> bool:
        """Whether all is known beforehand: jobs announced, durations as expected, no outages."""
        known = self.announced or not self.release.any()
        return known and not len(self.outage_start) and np.array_equal(self.duration, self.actual_duration)

    @cached_property
    def job(self) -> I32:
        """(N,) job of each operation."""
        return np.repeat(np.arange(self.jobs, dtype=np.int32), np.diff(self.job_offset))

    @cached_property
    def mode_operation(self) -> I32:
        """(K,) operation of each mode."""
        return np.repeat(np.arange(self.operations, dtype=np.int32), np.diff(self.mode_offset))

    @cached_property
    def least_duration(self) -> I64:
        """(N,) expected duration of each operation's fastest mode."""
        return np.minimum.reduceat(self.duration, self.mode_offset[:-1])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ShopInstance):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, field.name), getattr(other, field.name))
            if field.name in self._ARRAYS
            else getattr(self, field.name) == getattr(other, field.name)
            for field in fields(self)
        )

    def __hash__(self) -> int:
        return hash((self.name, self.machines, self.machine.tobytes(), self.duration.tobytes()))

    @classmethod
    def from_job_shop(cls, instance: JobShopInstance, **changes: Any) -> Self:
        """Return a job shop as a shop, with further fields such as ``blocking`` or ``due``."""
        given: dict[str, Any] = {
            "name": instance.name,
            "machines": instance.machines,
            "job_offset": instance.job_offset,
            "mode_offset": np.arange(instance.operations + 1),
            "machine": instance.machine,
            "duration": instance.duration,
        }
        return cls(**given | changes)

    def to_json(self) -> str:
        """Return versioned JSON: fields as they are, those of default value left out."""
        data: dict[str, Any] = {"schema": SHOP_SCHEMA}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in self._ARRAYS:
                if field.name in ("name", "machines") or value != field.default:
                    data[field.name] = list(value) if isinstance(value, tuple) else value
            elif field.default is not None or not np.array_equal(value, self._default(field.name)):
                data[field.name] = value.tolist()
        return json.dumps(data)

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> Self:
        """Read ``to_json`` output.

        Raises:
            InstanceError: not JSON, another schema, an unknown or missing field, or one of the wrong type.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InstanceError(f"{source}: not valid JSON: {error}") from None
        if not isinstance(data, dict) or data.pop("schema", None) != SHOP_SCHEMA:
            raise InstanceError(f"{source}: field schema: expected {SHOP_SCHEMA!r}")
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(data) - set(known)):
            raise InstanceError(f"{source}: field {unknown[0]}: unknown, expected some of {', '.join(known)}")
        required = ("name", "machines", "job_offset", "mode_offset", "machine", "duration")
        if missing := [name for name in required if name not in data]:
            raise InstanceError(f"{source}: field {missing[0]}: missing")
        return cls(**{name: plain_field(name, value, source) for name, value in data.items()})


def _validate_plain(shop: ShopInstance) -> None:
    """Check what is no array, before arrays are made of it."""
    name = shop.name
    if not isinstance(name, str):
        raise InstanceError(f"field name: {name!r:.40}, expected text")
    if not isinstance(shop.machines, int | np.integer) or not 1 <= shop.machines <= _MOST_MACHINES:
        raise InstanceError(f"{name}: field machines: {shop.machines!r:.40}, expected 1 to {_MOST_MACHINES}")
    if not isinstance(shop.announced, bool):
        raise InstanceError(f"{name}: field announced: {shop.announced!r:.40}, expected true or false")
    if shop.blocking not in get_args(Blocking):
        raise InstanceError(
            f"{name}: field blocking: {shop.blocking!r:.40}, expected one of {', '.join(get_args(Blocking))}"
        )
    weights = shop.objective_weights
    numbers = isinstance(weights, tuple) and all(isinstance(value, int | float) for value in weights)
    if not numbers or len(weights) != 3 or not all(0.0 <= value <= MAX_TIME for value in weights) or not any(weights):
        raise InstanceError(
            f"{name}: field objective_weights: {weights!r:.60}, expected three numbers from 0 on, one of them above 0"
        )
    for field in ("job_offset", "mode_offset"):
        if np.ndim(getattr(shop, field)) != 1 or len(getattr(shop, field)) < 2:
            raise InstanceError(f"{name}: field {field}: expected at least two numbers")


def _validate(shop: ShopInstance) -> None:
    name = shop.name
    check_offsets(shop.mode_offset, len(shop.machine), f"{name}: field mode_offset", "operation", "mode")
    check_offsets(shop.job_offset, shop.operations, f"{name}: field job_offset", "job", "operation")
    outages = len(shop.outage_start)
    check_offsets(shop.outage_offset, outages, f"{name}: field outage_offset", "machine", "outage", least=0)
    for field, size in (
        ("duration", shop.modes), ("actual_duration", shop.modes), ("release", shop.jobs), ("due", shop.jobs),
        ("weight", shop.jobs), ("setup_family", shop.operations), ("outage_offset", shop.machines + 1),
        ("outage_end", outages),
    ):  # fmt: skip
        if len(getattr(shop, field)) != size:
            raise InstanceError(f"{name}: field {field}: {len(getattr(shop, field))} values, expected {size}")
    for field in ("duration", "actual_duration", "release", "due", "weight", "outage_start", "outage_end"):
        check_times(getattr(shop, field), f"{name}: field {field}")
    if (bad := np.flatnonzero((shop.machine < 0) | (shop.machine >= shop.machines))).size:
        where = f"{name}: field machine: mode {bad[0]}"
        raise InstanceError(f"{where} uses machine {shop.machine[bad[0]]}, expected 0 to {shop.machines - 1}")
    longest = np.maximum.reduceat(np.maximum(shop.duration, shop.actual_duration), shop.mode_offset[:-1])
    total = float(longest.sum(dtype=np.float64)) + float(shop.release.max())
    total += float(shop.setup.max(initial=0)) * shop.operations + float(
        (shop.outage_end - shop.outage_start).sum(dtype=np.float64)
    )
    if total > MAX_TIME:
        raise InstanceError(f"{name}: field duration: all operations one after another take more than {MAX_TIME}")
    _validate_setup(shop)
    _validate_outages(shop)
    _validate_options(shop)


def _validate_setup(shop: ShopInstance) -> None:
    machines, families, others = shop.setup.shape
    if machines != shop.machines or families != others or families < 1:
        raise InstanceError(
            f"{shop.name}: field setup: shape {shop.setup.shape}, expected ({shop.machines}, families, families)"
        )
    check_times(shop.setup.ravel(), f"{shop.name}: field setup")
    if shop.setup_family.min(initial=0) < 0 or shop.setup_family.max(initial=0) >= families:
        raise InstanceError(f"{shop.name}: field setup_family: expected 0 to {families - 1}")


def _validate_outages(shop: ShopInstance) -> None:
    for m in range(shop.machines):
        rows = slice(shop.outage_offset[m], shop.outage_offset[m + 1])
        start, end = shop.outage_start[rows], shop.outage_end[rows]
        if (end <= start).any() or (start[1:] < end[:-1]).any():
            raise InstanceError(
                f"{shop.name}: field outage_end: outages of machine {m} must last and follow each other in time"
            )


def _validate_options(shop: ShopInstance) -> None:
    if shop.blocking != "none" and (shop.flexible or shop.setup.any()):
        raise InstanceError(f"{shop.name}: field blocking: {shop.blocking} needs one mode per operation and no setups")
    if shop.objective_weights[1] > 0.0 and (shop.due >= NO_DUE_DATE).all():
        raise InstanceError(f"{shop.name}: field due: no job has a due date, tardiness cannot be the objective")
