"""Mélange: the cheapest numbers of GPUs of each type that carry a mix of request sizes (Griggs et al. 2024).

Requests fall into buckets of input and output length. A type serves each bucket at a known highest rate within the
service-level objectives, so that a request takes one over that rate of an instance's time. Each bucket's rate is cut
into equal slices that go to one type each; an integer program chooses types and numbers. As the slices of a bucket are
alike, their number per type is the variable here, which describes the same fleets as one binary variable per slice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from schedrl.arrays import F64, I64
from schedrl.errors import ConfigError, InstanceError, unknown_name

__all__ = [
    "FleetProblem",
    "FleetSelection",
    "GpuType",
    "read_gpu_types",
    "read_problem",
    "select_fleet",
    "single_type_fleets",
]

_TOLERANCE = 1e-6  # share by which instances may be overbooked, the solver's own tolerance
_CONFIG = ("gpu_info", "workload_distribution", "total_request_rate", "slice_factor")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GpuType:
    """What one instance of a type costs and serves.

    Raises:
        ConfigError: a price that is not positive, or rates that are no table of finite numbers of at least 0.
    """

    name: str
    price_usd_per_h: float
    requests_per_s: F64  # (I, O) highest rate of each bucket alone; 0 where the type cannot serve it

    def __post_init__(self) -> None:
        if not _is_number(self.price_usd_per_h) or self.price_usd_per_h <= 0:
            raise ConfigError(f"GPU type {self.name}: field cost: {self.price_usd_per_h!r}, expected a number above 0")
        object.__setattr__(self, "requests_per_s", _table(self.requests_per_s, f"GPU type {self.name}: field tputs"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FleetProblem:
    """Types to choose from and the requests to serve, as Mélange's configuration file has them."""

    types: tuple[GpuType, ...]
    rates: F64  # (I, O) requests/s
    slice_factor: int = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FleetSelection:
    """A fleet with the division of the requests that it was chosen for."""

    counts: Mapping[str, int]
    price_usd_per_h: float
    lower_bound: float
    """no fleet with these slices costs less, USD/h"""
    share: F64  # (G, I, O) share of each bucket's requests that each type serves
    load: F64  # (G,) instances' worth of work
    status: Literal["optimal", "feasible"]


def select_fleet(
    types: Sequence[GpuType],
    rates: F64,
    *,
    slice_factor: int = 4,
    available: Mapping[str, int] | None = None,
    overprovision: float = 0.0,
    time_limit_s: float = 60.0,
) -> FleetSelection:
    """Return the cheapest fleet; loads may exceed instances by a millionth, the solver's tolerance.

    Args:
        types: whose tables have the shape of ``rates``.
        rates: (I, O) requests/s of each bucket.
        slice_factor: slices per bucket; the authors found 4 to be enough.
        available: most instances of a type, by name; types that it lacks are unlimited.
        overprovision: share of the rates that is added, for bursts and imbalance.
        time_limit_s: wall seconds for the search.

    Raises:
        ConfigError: an option outside its range, or tables that do not fit together.
        InstanceError: a bucket that no type can serve, too few available instances, or no fleet found in time.
    """
    if type(slice_factor) is not int or slice_factor < 1:
        raise ConfigError(f"slice_factor: {slice_factor!r}, expected an integer of at least 1")
    caps = _caps(types, available)
    work, busy = _work(types, rates, overprovision)
    if (unserved := ~np.isfinite(work).any(axis=0)).any():
        row, column = np.unravel_index(busy[np.argmax(unserved)], rates.shape)
        raise InstanceError(f"bucket [{row}][{column}]: no GPU type serves requests of this size within the objectives")
    prices = np.array([known.price_usd_per_h for known in types])
    slices, bound, proven = _solve(work, prices, caps, slice_factor, time_limit_s)
    share = np.zeros((len(types), rates.size))
    share[:, busy] = slices / slice_factor
    load = np.where(slices > 0, work, 0.0) * slices / slice_factor
    counts = _instances(load.sum(axis=1))
    return FleetSelection(
        counts={known.name: int(count) for known, count in zip(types, counts, strict=True)},
        price_usd_per_h=float(counts @ prices),
        lower_bound=bound,
        share=share.reshape(len(types), *rates.shape),
        load=load.sum(axis=1),
        status="optimal" if proven else "feasible",
    )


def single_type_fleets(
    types: Sequence[GpuType], rates: F64, *, available: Mapping[str, int] | None = None, overprovision: float = 0.0
) -> dict[str, int | None]:
    """Return how many instances of each type alone serve all requests, None where a type cannot.

    Arguments and errors are those of ``select_fleet``.
    """
    caps = _caps(types, available)
    loads = _work(types, rates, overprovision)[0].sum(axis=1)
    found: dict[str, int | None] = {}
    for known, load, cap in zip(types, loads, caps, strict=True):
        count = int(_instances(load)) if math.isfinite(load) else None
        found[known.name] = None if count is None or count > cap else count
    return found


def _instances(load: Any) -> Any:
    return np.ceil(load - _TOLERANCE * np.maximum(1.0, load))


def _work(types: Sequence[GpuType], rates: F64, overprovision: float) -> tuple[F64, I64]:
    """Return the instances (G, S) that each busy bucket occupies, infinite where a type cannot serve it, and those."""
    if not _is_number(overprovision) or overprovision < 0:
        raise ConfigError(f"overprovision: {overprovision!r}, expected a number of at least 0")
    table = _table(rates, "request rates")
    for known in types:
        if known.requests_per_s.shape != table.shape:
            raise ConfigError(
                f"GPU type {known.name}: field tputs: {known.requests_per_s.shape} buckets, expected {table.shape}"
            )
    busy = np.flatnonzero(table)
    highest = np.array([known.requests_per_s.ravel()[busy] for known in types])
    work = np.full(highest.shape, np.inf)
    np.divide(table.ravel()[busy] * (1.0 + overprovision), highest, out=work, where=highest > 0)
    return work, busy


def _caps(types: Sequence[GpuType], available: Mapping[str, int] | None) -> F64:
    """Return the most instances (G,) of each type, infinite where that is not limited."""
    names = [known.name for known in types]
    if not names:
        raise ConfigError("no GPU types to choose from")
    if len(set(names)) < len(names):
        raise ConfigError(f"GPU types: {', '.join(names)}: two of the same name")
    for name, count in (available or {}).items():
        if name not in names:
            raise unknown_name("GPU type", name, names)
        if type(count) is not int or count < 0:
            raise ConfigError(f"available {name}: {count!r}, expected an integer of at least 0")
    return np.array([(available or {}).get(name, math.inf) for name in names], dtype=np.float64)


def _solve(work: F64, prices: F64, caps: F64, factor: int, time_limit_s: float) -> tuple[F64, float, bool]:
    """Return the slices (G, S) of each bucket on each type, a lower bound on the price, and whether it is reached."""
    from ortools.linear_solver import pywraplp

    solver = pywraplp.Solver.CreateSolver("SCIP")
    solver.SetTimeLimit(max(1, round(1e3 * time_limit_s)))
    most = np.minimum(caps, np.ceil(np.where(np.isfinite(work), work, 0.0).sum(axis=1)))
    count = [solver.IntVar(0, float(value), "") for value in most]
    able = np.isfinite(work)
    slices = [
        [solver.IntVar(0, factor if able[g, s] else 0, "") for s in range(len(row))] for g, row in enumerate(work)
    ]
    for s in range(work.shape[1]):
        solver.Add(solver.Sum([row[s] for row in slices]) == factor)
    for g, row in enumerate(slices):
        used = [row[s] * (work[g, s] / factor) for s in np.flatnonzero(able[g])]
        solver.Add(solver.Sum(used) <= count[g])
    solver.Minimize(solver.Sum([price * variable for price, variable in zip(prices.tolist(), count, strict=True)]))
    status = solver.Solve()
    if status == solver.INFEASIBLE:
        raise InstanceError("the available GPUs cannot serve these rates")
    if status not in (solver.OPTIMAL, solver.FEASIBLE):
        raise InstanceError(f"no fleet found within {time_limit_s:g} s")
    values = np.array([[round(variable.solution_value()) for variable in row] for row in slices], dtype=np.float64)
    bound = solver.Objective().BestBound() if status == solver.FEASIBLE else solver.Objective().Value()
    return values.reshape(work.shape), float(bound), status == solver.OPTIMAL


def read_gpu_types(paths: Sequence[Path]) -> tuple[GpuType, ...]:
    """Read types from files: Mélange's ``gpu_info`` (``{name: {cost, tputs}}``), or AIBrix's one type per file.

    Fields that AIBrix adds (``indexes``, ``e2e``, ``slos``, ``created``) are not needed.

    Raises:
        ConfigError: a file that is no such JSON; the message names file and field.
    """
    types: list[GpuType] = []
    for path in paths:
        data = _load(path)
        if "tputs" in data:
            types.append(_type_of(data.get("gpu", path.stem), data, f"{path}"))
            continue
        table = data.get("gpu_info", data)
        if not isinstance(table, dict) or not table:
            raise ConfigError(f"{path}: field gpu_info: expected a table of GPU types, got {table!r:.40}")
        types.extend(_type_of(name, item, f"{path}: gpu_info.{name}") for name, item in table.items())
    return tuple(types)


def read_problem(path: Path) -> FleetProblem:
    """Read a configuration file of Mélange's own solver.

    Raises:
        ConfigError: a field is missing, unknown or wrong; the message names file and field.
    """
    data = _load(path)
    if unknown := sorted(set(data) - set(_CONFIG)):
        raise ConfigError(f"{path}: field {unknown[0]}: unknown, expected {', '.join(_CONFIG)}")
    if missing := [name for name in _CONFIG[:3] if name not in data]:
        raise ConfigError(f"{path}: field {missing[0]}: missing")
    total, factor = data["total_request_rate"], data.get("slice_factor", 4)
    if not _is_number(total) or total < 0:
        raise ConfigError(f"{path}: field total_request_rate: {total!r:.40}, expected requests/s of at least 0")
    if type(factor) is not int or factor < 1:
        raise ConfigError(f"{path}: field slice_factor: {factor!r:.40}, expected an integer of at least 1")
    rates = _table(data["workload_distribution"], f"{path}: field workload_distribution") * total
    types = read_gpu_types([path])
    for known in types:
        if known.requests_per_s.shape != rates.shape:
            found, expected = known.requests_per_s.shape, rates.shape
            raise ConfigError(f"{path}: gpu_info.{known.name}: field tputs: {found} buckets, expected {expected}")
    return FleetProblem(types=types, rates=rates, slice_factor=factor)


def _type_of(name: Any, data: Any, where: str) -> GpuType:
    if not isinstance(name, str):
        raise ConfigError(f"{where}: field gpu: {name!r:.40}, expected a name")
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: expected a table of cost and tputs, got {data!r:.40}")
    if missing := [field for field in ("cost", "tputs") if field not in data]:
        raise ConfigError(f"{where}: field {missing[0]}: missing")
    if not _is_number(data["cost"]) or data["cost"] <= 0:
        raise ConfigError(f"{where}: field cost: {data['cost']!r:.40}, expected a number above 0")
    table = _table(data["tputs"], f"{where}: field tputs")
    return GpuType(name=name, price_usd_per_h=float(data["cost"]), requests_per_s=table)


def _load(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    except (UnicodeDecodeError, RecursionError):
        raise ConfigError(f"{path}: not JSON text in UTF-8") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a table of fields, got {data!r:.40}")
    return data


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _table(value: Any, where: str) -> F64:
    """Return a table of finite numbers of at least 0, read only."""
    try:
        table = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"{where}: expected rows of equally many numbers") from None
    if table.ndim != 2 or not table.size:
        raise ConfigError(f"{where}: expected rows of equally many numbers")
    wrong = np.argwhere(~(np.isfinite(table) & (table >= 0)))
    if len(wrong):
        row, column = wrong[0]
        raise ConfigError(f"{where}[{row}][{column}]: {table[row, column]}, expected a finite number of at least 0")
    table.flags.writeable = False
    return table
