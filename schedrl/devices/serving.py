"""Serving a language model on devices of the catalogue: the time of an iteration, and the memory left for requests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TypeAlias

from schedrl.arrays import F64
from schedrl.devices.catalogue import CatalogueEntry, load_catalogue
from schedrl.devices.collectives import all_reduce_s
from schedrl.devices.language_model import LanguageModel
from schedrl.devices.platform import Device
from schedrl.devices.serving_time import ServingRates, serving_coefficients
from schedrl.errors import ConfigError, unknown_name

__all__ = ["CAP_EXPONENT", "kv_capacity_tokens", "serving_rates", "serving_row"]

CAP_EXPONENT = math.log(1.3) / math.log(2.0)
"""Exponent of the compute rate in the share of full power. It is extrapolated: splitwise-sim's rows of a capped H100
are those of the H100 with prompts 1.3 times as long and tokens as fast, a rule and no measurement, and the cap is half
the power (Patel et al. 2024, recalled). Memory keeps its rate."""
_LEAST_CAP = 0.25

_NEEDED = ("memory_bytes", "memory_bandwidth_bytes_per_s", "mfu", "mbu")
# The first of them that a device has; an operator profile gives the second.
_OVERHEADS = ("layer_overhead_s", "operation_overhead_s")
_RATES = tuple(field.name for field in fields(ServingRates))
Catalogue: TypeAlias = Mapping[str, CatalogueEntry]
_PRECISIONS = ("bf16", "fp16")


def serving_rates(device: str, *, catalogue: Catalogue | None = None) -> ServingRates:
    """Return the attention and host figures of a catalogued device; those that it lacks are defaults.

    Raises:
        UnknownNameError: no such device.
    """
    figures = _entry(device, catalogue).figures
    return ServingRates(**{name: figures[name].value for name in _RATES if name in figures})


def serving_row(
    device: str,
    model: LanguageModel,
    *,
    tensor_parallel: int = 1,
    power_cap_w: float = 0.0,
    catalogue: Catalogue | None = None,
) -> F64:
    """Return the coefficients (28,) of ``serving_time.iteration_s`` for a model on a group of catalogued devices.

    Args:
        device: catalogue name.
        model: the model that is served.
        tensor_parallel: devices that share each layer.
        power_cap_w: limit of each device's power, 0 for none; it slows computing only, see ``CAP_EXPONENT``.
        catalogue: of ``load_catalogue``, the shipped one if None.

    Raises:
        UnknownNameError: no such device.
        ConfigError: the device lacks a figure that serving needs, there are no all-reduce times for the group, or the
            cap is less than a quarter of the device's power.
    """
    entry = _serving_entry(device, catalogue)
    precision = _precision(entry)
    reduce_s = all_reduce_s(device, model.hidden, tensor_parallel) if tensor_parallel > 1 else None
    return serving_coefficients(
        _at_work(entry, precision, power_cap_w),
        model,
        tensor_parallel=tensor_parallel,
        rates=serving_rates(device, catalogue=catalogue),
        all_reduce_s=reduce_s,
        precision=precision,
    )


def kv_capacity_tokens(
    device: str,
    model: LanguageModel,
    *,
    tensor_parallel: int = 1,
    memory_share: float = 0.9,
    catalogue: Catalogue | None = None,
) -> int:
    """Return how many tokens' keys and values fit beside the weights in a group of catalogued devices.

    Args:
        device: catalogue name.
        model: the model that is served.
        tensor_parallel: devices that share weights and keys and values.
        memory_share: share of the memory that the engine may use, the rest being for activations.
        catalogue: of ``load_catalogue``, the shipped one if None.

    Raises:
        UnknownNameError: no such device.
        ConfigError: the weights, or not even one token beside them, do not fit; or a share outside (0, 1].
    """
    if not 0.0 < memory_share <= 1.0:
        raise ConfigError(f"device {device}: memory_share: {memory_share!r}, expected above 0 and at most 1")
    if type(tensor_parallel) is not int or tensor_parallel < 1:
        raise ConfigError(f"device {device}: tensor_parallel: {tensor_parallel!r}, expected an integer of at least 1")
    memory = _serving_entry(device, catalogue).figures["memory_bytes"].value
    room = memory_share * memory * tensor_parallel - model.weights_bytes
    tokens = math.floor(room / model.kv_bytes_per_token)
    if tokens < 1:
        need, have = f"{model.weights_bytes / 1e9:.1f} GB", f"{tensor_parallel} x {memory / 1e9:.1f} GB"
        raise ConfigError(
            f"device {device}: language model {model.name} does not fit: {need} of weights in {have}, of which "
            f"{memory_share:.0%} may be used"
        )
    return tokens


def _entry(device: str, catalogue: Catalogue | None) -> CatalogueEntry:
    known = load_catalogue() if catalogue is None else catalogue
    if device not in known:
        raise unknown_name("device", device, known)
    return known[device]


def _serving_entry(device: str, catalogue: Catalogue | None) -> CatalogueEntry:
    entry = _entry(device, catalogue)
    if missing := [name for name in _NEEDED if name not in entry.figures]:
        raise ConfigError(f"device {device}: field {missing[0]}: no figure in the catalogue, needed to serve")
    if not any(name in entry.figures for name in _OVERHEADS):
        raise ConfigError(f"device {device}: no figure {' or '.join(_OVERHEADS)} in the catalogue, needed to serve")
    return entry


def _precision(entry: CatalogueEntry) -> str:
    """Return the 16-bit format of the device: ``bf16``, or ``fp16`` on devices before it."""
    for precision in _PRECISIONS:
        if precision in entry.device.flops_per_s:
            return precision
    raise ConfigError(f"device {entry.device.name}: field flops_per_s: no figure for bf16 or fp16, needed to serve")


def _at_work(entry: CatalogueEntry, precision: str, cap_w: float) -> Device:
    """Return the device with its overhead per layer, at the rate that it computes at under a limit of its power."""
    overhead_s = next(entry.figures[name].value for name in _OVERHEADS if name in entry.figures)
    rate = entry.device.flops_per_s[precision] * (1.0 if cap_w == 0.0 else _capped_speed(entry.device, cap_w))
    return replace(entry.device, operation_overhead_s=overhead_s, flops_per_s={precision: rate})


def _capped_speed(device: Device, cap_w: float) -> float:
    if not device.power_states:
        raise ConfigError(f"device {device.name}: field power_w: no figure in the catalogue, needed to cap the power")
    full_w = device.power_states[0].power_w
    if not _LEAST_CAP * full_w <= cap_w < math.inf:
        least = f"{_LEAST_CAP * full_w:g} to {full_w:g} W"
        raise ConfigError(f"device {device.name}: power_cap_w: {cap_w!r}, expected 0 for none or {least}")
    return float(min(1.0, cap_w / full_w) ** CAP_EXPONENT)
