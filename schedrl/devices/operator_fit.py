"""Fit the constants of a device to a profile of its operators.

The model is the smooth roofline that serving uses: the 2-norm of computing and of moving bytes, each at a share of its
peak, plus an overhead. The profile is a CSV file of one of two kinds, told apart by the header:

- ``flops,bytes,seconds`` and optionally ``model``: one operator, or the operators of one layer, per row;
- the columns of Vidur's ``mlp.csv`` (Agrawal et al. 2024): the times of a layer's linear operators in milliseconds by
  number of tokens and tensor parallelism. Of these the four projections count (query-key-value, output, up with gate,
  and down); repeated measurements give their median, and rows that lack one of the four are left out.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from schedrl.arrays import F64, Bool
from schedrl.errors import ConfigError, InstanceError

__all__ = ["FittedDevice", "Operators", "fit_device", "fit_operators", "held_out_s", "read_operators", "roofline_s"]

PROFILED_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Numbers of tokens of a Vidur table that count in a fit: one per octave, as most rows of the table have many tokens"""

Constants: TypeAlias = tuple[float, float, float]
"""mfu, mbu and overhead in seconds"""

_PLAIN = ("flops", "bytes", "seconds")
_PROJECTIONS = ("attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj")
_SIZES = ("n_head", "n_kv_head", "n_embd", "n_expanded_embd", "num_tokens", "num_tensor_parallel_workers")
_BYTES_PER_WEIGHT = 2.0
_LEAST_ROWS = 6
# Beyond this relative error a row counts less than in proportion to its square.
_ROBUST = 0.05


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operators:
    """Measured operators."""

    flops: F64  # (K,)
    moved_bytes: F64  # (K,)
    seconds: F64  # (K,)
    model: tuple[str, ...]
    """(K,) the model that each is from, empty text if the profile does not say"""
    tokens: F64  # (K,) 0 if the profile does not say

    def select(self, chosen: Bool) -> Operators:
        """Return the operators that a (K,) mask chooses."""
        names = tuple(name for name, keep in zip(self.model, chosen, strict=True) if keep)
        return Operators(
            flops=self.flops[chosen],
            moved_bytes=self.moved_bytes[chosen],
            seconds=self.seconds[chosen],
            model=names,
            tokens=self.tokens[chosen],
        )

    def of_model(self, name: str) -> Bool:
        """Return the (K,) mask of a model's operators."""
        return np.array([model == name for model in self.model], dtype=np.bool_)

    def octaves(self) -> Operators:
        """Return the operators at ``PROFILED_TOKENS``; all of them if those are too few to fit."""
        chosen = np.isin(self.tokens, PROFILED_TOKENS)
        return self.select(chosen) if chosen.sum() >= _LEAST_ROWS else self


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedDevice:
    """Constants of a device and how well they explain its profile. Errors are shares of the measured times."""

    flops_per_s: float
    memory_bandwidth_bytes_per_s: float
    mfu: float
    mbu: float
    operation_overhead_s: float
    rows: int
    """operators that the constants were fitted to"""
    mean_error: float
    p95_error: float
    held_out: Mapping[str, float]
    """by model, the mean error on it of constants fitted to the others; empty where that was not asked or possible"""

    def to_toml(self, name: str, source: str, *, memory_bytes: float | None = None) -> str:
        """Return a table that ``load_catalogue`` reads; ``source`` says what was profiled."""
        memory = {} if memory_bytes is None else {"memory_bytes": memory_bytes}
        vendor = memory | {
            "memory_bandwidth_bytes_per_s": self.memory_bandwidth_bytes_per_s,
            "flops_per_s_bf16": self.flops_per_s,
        }
        fitted = {"mfu": self.mfu, "mbu": self.mbu, "operation_overhead_s": self.operation_overhead_s}
        note = f"fitted with norm 2 to {self.rows} operators of {source}, mean error {100 * self.mean_error:.1f} %"
        lines = [f"[{_quoted(name)}]"]
        lines += [_figure(field, value, "vendor", "peak given to the fit") for field, value in vendor.items()]
        lines += [_figure(field, value, "fitted", note) for field, value in fitted.items()]
        return "\n".join(lines) + "\n"


def fit_device(
    path: Path, *, flops_per_s: float, memory_bandwidth_bytes_per_s: float, held_out: bool = False
) -> FittedDevice:
    """Fit a device to a profile, see the module for its formats.

    Args:
        path: CSV file.
        flops_per_s: peak rate of the precision that was profiled.
        memory_bandwidth_bytes_per_s: peak bandwidth.
        held_out: also fit without each model in turn and measure the error on it.

    Raises:
        InstanceError: the file breaks its format; the message names file, line and field.
        ConfigError: a peak that is not a positive number, or too few operators to fit.
    """
    operators = read_operators(path).octaves()
    if len(operators.seconds) < _LEAST_ROWS:
        found = len(operators.seconds)
        raise ConfigError(f"{path}: {found} operators, expected at least {_LEAST_ROWS} to fit three constants")
    peaks = (flops_per_s, memory_bandwidth_bytes_per_s)
    constants = fit_operators(operators, *peaks)
    error = np.abs(roofline_s(operators, *peaks, constants) / operators.seconds - 1.0)
    apart: dict[str, float] = {}
    if held_out and len(set(operators.model)) > 1:
        unseen = np.abs(held_out_s(operators, *peaks) / operators.seconds - 1.0)
        apart = {name: float(unseen[operators.of_model(name)].mean()) for name in sorted(set(operators.model))}
    return FittedDevice(
        flops_per_s=flops_per_s,
        memory_bandwidth_bytes_per_s=memory_bandwidth_bytes_per_s,
        mfu=constants[0],
        mbu=constants[1],
        operation_overhead_s=constants[2],
        rows=len(error),
        mean_error=float(error.mean()),
        p95_error=float(np.percentile(error, 95)),
        held_out=MappingProxyType(apart),
    )


def roofline_s(
    operators: Operators, flops_per_s: float, bandwidth: float, constants: tuple[float, float, float]
) -> F64:
    """Return (K,) predicted seconds for ``constants`` mfu, mbu and overhead in seconds."""
    mfu, mbu, overhead_s = constants
    compute_s = operators.flops / (mfu * flops_per_s)
    memory_s = operators.moved_bytes / (mbu * bandwidth)
    return np.asarray(np.hypot(compute_s, memory_s) + overhead_s, dtype=np.float64)


def fit_operators(operators: Operators, flops_per_s: float, bandwidth: float) -> Constants:
    """Return mfu, mbu and the overhead in seconds that minimise the robust squares of the relative errors.

    Shares are at most 1: a profile that asks for more has caches at work, or peaks that were given too low.

    Raises:
        ConfigError: a peak that is not a positive number.
    """
    from scipy.optimize import least_squares

    for field, value in (("flops_per_s", flops_per_s), ("memory_bandwidth_bytes_per_s", bandwidth)):
        if not 0.0 < value < math.inf:
            raise ConfigError(f"fit: field {field}: {value!r}, expected a number above 0")
    # The overhead in units of the shortest operator, so that all three unknowns are near 1.
    unit = float(operators.seconds.min())

    def relative(unknown: F64) -> F64:
        constants = (float(unknown[0]), float(unknown[1]), float(unknown[2]) * unit)
        return roofline_s(operators, flops_per_s, bandwidth, constants) / operators.seconds - 1.0

    bounds = ([1e-3, 1e-3, 0.0], [1.0, 1.0, 1.0])
    found = least_squares(relative, [0.7, 0.8, 0.05], bounds=bounds, loss="soft_l1", f_scale=_ROBUST)
    return float(found.x[0]), float(found.x[1]), float(found.x[2]) * unit


def held_out_s(operators: Operators, flops_per_s: float, bandwidth: float) -> F64:
    """Return (K,) seconds that each model's operators take by constants that were fitted to the other models.

    Raises:
        ConfigError: all operators are of one model, or a peak is not a positive number.
    """
    names = set(operators.model)
    if len(names) < 2:
        raise ConfigError("fit: operators of one model only, expected at least two to hold one out")
    predicted = np.zeros(len(operators.seconds))
    for name in names:
        of_it = operators.of_model(name)
        constants = fit_operators(operators.select(~of_it), flops_per_s, bandwidth)
        predicted[of_it] = roofline_s(operators.select(of_it), flops_per_s, bandwidth, constants)
    return predicted


def read_operators(path: Path) -> Operators:
    """Read a profile, see the module for its formats.

    Raises:
        InstanceError: no such columns, a row that lacks fields, or a value that is no positive number; the message
            names file, line and field.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InstanceError(f"{path}: cannot be read as CSV: {' '.join(str(error).split())}") from None
    header = [_column(name) for name in lines[0]] if lines else []
    table = _Table(str(path), header, lines[1:])
    if set(_PLAIN) <= set(header):
        return _plain(table)
    if set(_PROJECTIONS) <= set(header):
        return _vidur(table)
    found = ", ".join(header[:6]) or "none"
    raise InstanceError(f"{path}:1: columns {found}, expected flops, bytes, seconds or those of Vidur's mlp.csv")


@dataclass(frozen=True, slots=True)
class _Table:
    source: str
    header: list[str]
    rows: list[list[str]]

    def records(self) -> list[tuple[int, dict[str, str]]]:
        """Return line numbers and fields of all rows that are not blank."""
        found = []
        for line, row in enumerate(self.rows, start=2):
            if not row:
                continue
            if len(row) != len(self.header):
                raise InstanceError(f"{self.source}:{line}: {len(row)} fields, expected {len(self.header)}")
            found.append((line, dict(zip(self.header, row, strict=True))))
        if not found:
            raise InstanceError(f"{self.source}: no rows, expected measured operators")
        return found

    def number(self, line: int, record: Mapping[str, str], field: str) -> float:
        """Return a positive number of a row."""
        try:
            value = float(record[field])
        except KeyError:
            raise InstanceError(f"{self.source}:1: field {field}: no such column") from None
        except ValueError:
            value = math.nan
        if not 0.0 < value < math.inf:
            raise InstanceError(
                f"{self.source}:{line}: field {field}: {record[field]!r:.30}, expected a number above 0"
            )
        return value


def _plain(table: _Table) -> Operators:
    records = table.records()
    columns = {field: np.array([table.number(line, record, field) for line, record in records]) for field in _PLAIN}
    return Operators(
        flops=columns["flops"],
        moved_bytes=columns["bytes"],
        seconds=columns["seconds"],
        model=tuple(record.get("model", "") for _, record in records),
        tokens=np.zeros(len(records)),
    )


def _vidur(table: _Table) -> Operators:
    measured: dict[tuple[str, float, float, float], list[float]] = {}
    for line, record in table.records():
        if any(not record[field].strip() for field in _PROJECTIONS):
            continue
        seconds = sum(table.number(line, record, field) for field in _PROJECTIONS) * 1e-3
        sizes = {field: table.number(line, record, field) for field in _SIZES}
        weights = _layer_weights(sizes, record.get("use_gated_mlp", "True").strip().lower() == "true")
        group = sizes["num_tensor_parallel_workers"]
        key = (record.get("model", ""), group, sizes["num_tokens"], weights / group)
        measured.setdefault(key, []).append(seconds)
    if not measured:
        raise InstanceError(f"{table.source}: no row has all of {', '.join(_PROJECTIONS)}")
    tokens = np.array([key[2] for key in measured])
    shares = np.array([key[3] for key in measured])
    return Operators(
        flops=2.0 * tokens * shares,
        moved_bytes=_BYTES_PER_WEIGHT * shares,
        seconds=np.array([float(np.median(times)) for times in measured.values()]),
        model=tuple(key[0] for key in measured),
        tokens=tokens,
    )


def _layer_weights(sizes: Mapping[str, float], gated: bool) -> float:
    hidden, heads = sizes["n_embd"], sizes["n_head"]
    attention = hidden * (hidden / heads) * (2 * heads + 2 * sizes["n_kv_head"])
    return attention + (3 if gated else 2) * hidden * sizes["n_expanded_embd"]


def _column(name: str) -> str:
    """Return a column's name without what different versions of Vidur put around it."""
    return name.strip().removeprefix("time_stats.").removesuffix(".median").removesuffix("_ms")


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _figure(field: str, value: float, kind: str, source: str) -> str:
    return f'{field} = {{ value = {value:.4g}, kind = "{kind}", source = {_quoted(source)} }}'
