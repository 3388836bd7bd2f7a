"""How far the times of serving are from published measurements, in the folder that ``SCHEDRL_DATA`` names.

Only the linear operators have goals: they are what the catalogue's constants were fitted to. The other rows say how far
to trust the rest of the model.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from schedrl.arrays import F64
from schedrl.benchmark_data import data_file, data_folder
from schedrl.devices.catalogue import get_device
from schedrl.devices.collectives import load_all_reduce_tables
from schedrl.devices.language_model import LanguageModel, get_language_model
from schedrl.devices.operator_fit import held_out_s, read_operators, roofline_s
from schedrl.devices.serving import serving_rates, serving_row
from schedrl.devices.serving_time import (
    CONTEXT,
    MIXED_CONTEXT,
    MIXED_SEQUENCE,
    MIXED_TOKEN,
    PAIR,
    TOKEN,
    WEIGHTS,
    iteration_s,
)  # fmt: skip
from schedrl.errors import InstanceError

__all__ = ["Validation", "compared", "validations"]

_SUITE = "devices validate"
_LINEAR_GOAL = 0.05
_HELD_OUT_GOAL = 0.08
_VIDUR = {"a100-sxm-80gb": "a100", "h100-sxm": "h100", "a40": "a40"}
_COLLECTIVES = {
    "a100-dgx": "a100_dgx",
    "a100-nvlink-pairs": "a100_pairwise_nvlink",
    "h100-dgx": "h100_dgx",
    "h100-nvlink-pairs": "h100_pairwise_nvlink",
}
_CHUNK = 128
"""least new tokens of the prompts whose attention counts: shorter ones are all overhead"""
_LLAMA_2_70B = LanguageModel(
    name="llama-2-70b",
    layers=80,
    hidden=8192,
    heads=64,
    kv_heads=8,
    head_size=128,
    intermediate=28672,
    vocabulary=32000,
)
_SPLITWISE = {"a100-sxm-80gb": "a100-80gb", "h100-sxm": "h100-80gb"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Predictions against measurements."""

    name: str
    measured: float
    """mean over the points, in seconds"""
    predicted: float
    """mean over the points, in seconds"""
    error: float
    """mean over the points of the error as a share of what was measured"""
    goal: float | None = None
    """largest ``error`` that is good enough, None where there is no goal"""

    @property
    def passed(self) -> bool:
        """Whether the goal, if any, is met."""
        return self.goal is None or self.error <= self.goal


def compared(name: str, measured: F64, predicted: F64, goal: float | None = None) -> Validation:
    """Return the row for predictions (K,) of measurements (K,), both in seconds."""
    error = float(np.mean(np.abs(predicted / measured - 1.0)))
    return Validation(
        name=name, measured=float(measured.mean()), predicted=float(predicted.mean()), error=error, goal=goal
    )


def validations(root: Path | None = None) -> list[Validation]:
    """Compare the catalogue's devices with every measurement there is.

    Args:
        root: folder of the benchmark data, by default the one that ``SCHEDRL_DATA`` names.

    Raises:
        InstanceError: the variable is unset, or a file is missing or breaks its format.
    """
    root = root or data_folder(_SUITE, "routing/vidur/mlp/a100.csv")
    parts: tuple[Callable[[Path], list[Validation]], ...] = (
        _linear,
        _rtx4090_linear,
        _collectives,
        _attention,
        _splitwise,
    )
    return [row for part in parts for row in part(root)]


def _linear(root: Path) -> list[Validation]:
    found, held_out = [], []
    for device, stem in _VIDUR.items():
        spec = get_device(device)
        rate, bandwidth = spec.flops_per_s["bf16"], spec.memory_bandwidth_bytes_per_s or 0.0
        constants = (spec.mfu, spec.mbu, spec.operation_overhead_s)
        table = read_operators(data_file(_SUITE, root, f"routing/vidur/mlp/{stem}.csv"))
        octaves = table.octaves()
        for label, rows, goal in (("", octaves, _LINEAR_GOAL), (", all numbers of tokens", table, None)):
            predicted = roofline_s(rows, rate, bandwidth, constants)
            found.append(compared(f"{device} linear operators{label}", rows.seconds, predicted, goal))
        unseen = held_out_s(octaves, rate, bandwidth)
        by_model = [
            compared(
                f"{device} linear operators, worst model held out: {model.rpartition('/')[2]}",
                octaves.seconds[octaves.of_model(model)],
                unseen[octaves.of_model(model)],
                _HELD_OUT_GOAL,
            )
            for model in sorted(set(octaves.model))
        ]
        held_out.append(max(by_model, key=lambda row: row.error))
    return found + held_out


def _rtx4090_linear(root: Path) -> list[Validation]:
    stem = "routing/llmservingsim/perf/RTX4090/meta-llama/Llama-3.1-8B/tp1/dense.csv"
    path = data_file(_SUITE, root, stem)
    parts = [
        _columns(path, ("tokens", "time_us"), {"layer": name})
        for name in ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    ]
    tokens, measured = parts[0][:, 0], np.sum([part[:, 1] for part in parts], axis=0) * 1e-6
    spec, model = get_device("rtx4090"), replace(get_language_model("llama-3-8b"), layers=1)
    row = serving_row("rtx4090", model)
    predicted = np.hypot(row[TOKEN] * tokens, row[WEIGHTS]) + spec.operation_overhead_s
    return [compared("rtx4090 linear operators", measured, predicted)]


def _collectives(root: Path) -> list[Validation]:
    found = []
    for name, stem in _COLLECTIVES.items():
        path = data_file(_SUITE, root, f"routing/vidur/network/{stem}_all_reduce.csv")
        columns = ("num_workers", "devices_per_node", "size", "time_stats.all_reduce.median")
        found.append(_reduced(name, [row[[0, 2, 3]] for row in _columns(path, columns) if row[0] == row[1]], 1e-3))
    path = data_file(_SUITE, root, "routing/apex/comm/H200-SXM-141GB_all_reduce.csv")
    rows = _columns(path, ("num_gpus_per_node", "size(kb)", "time(us)")) * [1.0, 1024.0, 1.0]
    found.append(_reduced("h200-node", [row for row in rows if row[1] > 0], 1e-6))
    return found


def _reduced(name: str, rows: Sequence[F64], unit: float) -> Validation:
    """Compare a table with rows of devices, bytes and time."""
    table = load_all_reduce_tables()[name]
    measured = np.array([row[2] * unit for row in rows])
    predicted = np.array([float(table.time_s(row[1], int(row[0]))) for row in rows])
    return compared(f"{name} all-reduce", measured, predicted)


def _attention(root: Path) -> list[Validation]:
    path = data_file(_SUITE, root, "routing/vidur_a30/qwen2-7b_attention.csv")
    columns = ("batch_size", "prefill_chunk_size", "kv_cache_size")
    prefill, decode = ("time_stats.attn_prefill.median", "time_stats.attn_decode.median")
    batch, chunk, past, in_prefill, in_decode = _columns(path, (*columns, prefill, decode)).T
    prompt = chunk > 0
    context = batch * (past + chunk)
    pairs = batch * np.where(prompt, chunk * (past + chunk / 2), past)
    a30 = _layer("a30", "qwen2.5-7b", context, pairs), np.where(prompt, in_prefill, in_decode) * 1e-3
    path = data_file(_SUITE, root, "routing/llmservingsim/perf/RTX4090/meta-llama/Llama-3.1-8B/tp1/attention.csv")
    columns = ("prefill_chunk", "kv_prefill", "n_decode")
    new, before, decoding, kept, micros = _columns(path, (*columns, "kv_decode", "time_us")).T
    context = np.where(new > 0, new + before, 0.0) + decoding * kept
    pairs = new * (before + new / 2) + decoding * kept
    beside = np.where(new > 0, decoding, 0.0)
    rtx = _layer("rtx4090", "llama-3-8b", context, pairs, new + decoding, beside), micros * 1e-6
    parts = (
        ("a30 attention, decoding", a30, ~prompt & (past > 0)),
        (f"a30 attention, prompts of {_CHUNK} tokens or more", a30, chunk >= _CHUNK),
        ("rtx4090 attention, decoding", rtx, (new == 0) & (decoding > 0)),
        (f"rtx4090 attention, prompts of {_CHUNK} tokens or more", rtx, (new >= _CHUNK) & (decoding == 0)),
        ("rtx4090 attention, prompts and decoding in one batch", rtx, (new > 0) & (decoding > 0)),
    )
    return [compared(name, measured[chosen], predicted[chosen]) for name, (predicted, measured), chosen in parts]


def _layer(
    device: str, model: str, context: F64, pairs: F64, tokens: F64 | float = 0.0, beside: F64 | float = 0.0
) -> F64:
    """Return (K,) seconds of the attention of one layer, with so many other requests beside a prompt."""
    row = serving_row(device, replace(get_language_model(model), layers=1))
    seconds = row[CONTEXT] * context + row[PAIR] * pairs + serving_rates(device).attention_overhead_s
    mixed = row[MIXED_CONTEXT] * context + (row[MIXED_SEQUENCE] + row[MIXED_TOKEN] * tokens) * beside
    return np.asarray(seconds + np.where(np.asarray(beside) > 0.0, mixed, 0.0))


def _splitwise(root: Path) -> list[Validation]:
    path = data_file(_SUITE, root, "routing/splitwise_sim/perf_model.csv")
    sizes = ("tensor_parallel", "prompt_size", "batch_size", "token_size")
    found = []
    for device, hardware in _SPLITWISE.items():
        for group in (4, 8):
            keep = {"model": "llama2-70b", "hardware": hardware, "tensor_parallel": str(group)}
            _, prompt, batch, answer, prompt_ms, token_ms = _columns(
                path, (*sizes, "prompt_time", "token_time"), keep
            ).T
            row = serving_row(device, _LLAMA_2_70B, tensor_parallel=group)
            first = _iterations(row, batch * prompt, batch, batch * prompt, batch * prompt**2 / 2)
            context = batch * (prompt + answer / 2)
            later = _iterations(row, batch, batch, context, context)
            name = f"{device} x{group} llama-2-70b end to end (splitwise)"
            found.append(compared(f"{name}, prompt", prompt_ms * 1e-3, first))
            found.append(compared(f"{name}, token", token_ms * 1e-3, later))
    return found


def _iterations(row: F64, tokens: F64, sequences: F64, context: F64, pairs: F64) -> F64:
    batches = zip(tokens, sequences, context, pairs, strict=True)
    return np.array([iteration_s(row, int(t), int(s), float(c), float(p)) for t, s, c, p in batches])


def _columns(path: Path, names: Sequence[str], keep: Mapping[str, str] | None = None) -> F64:
    """Return (K, N) numbers of the named columns, blank ones as 0, of the rows with the values in ``keep``."""
    found = []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if missing := sorted({*names, *(keep or {})} - set(reader.fieldnames or ())):
            raise InstanceError(f"{path}:1: field {missing[0]}: no such column")
        for record in reader:
            if keep and any(record[field] != value for field, value in keep.items()):
                continue
            try:
                found.append([float(record[name] or 0.0) for name in names])
            except (TypeError, ValueError):
                raise InstanceError(f"{path}:{reader.line_num}: expected numbers in {', '.join(names)}") from None
    if not found:
        raise InstanceError(f"{path}: no rows of the expected kind")
    return np.array(found, dtype=np.float64)
