"""Serving instances: a model on a group of devices with its memory, limits and times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np

from schedrl.arrays import F64
from schedrl.devices.serving_time import COEFFICIENTS, EXPERT_MISS
from schedrl.errors import InstanceError

__all__ = ["Role", "ServingInstance", "serving_instance_from_dict", "serving_instance_to_dict"]

Role = Literal["mixed", "prefill", "decode"]
"""what an instance does: whole requests, their prompts up to the first token, or what follows the first token"""

_MAY_BE_INFINITE = ("retire_s",)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServingInstance:
    """An engine with continuous batching that serves one model.

    Raises:
        InstanceError: a field outside its range; the message names instance, field and value.
    """

    name: str
    device: str
    """catalogue name of the device type, for tables"""
    model: str
    """catalogue name of the language model, for tables"""
    coefficients: F64
    """(28,) of ``schedrl.devices.serving_time.iteration_s``"""
    kv_tokens: int
    """tokens whose keys and values fit in memory"""
    tensor_parallel: int = 1
    role: Role = "mixed"
    cache_tokens: int = -1
    """room for prefixes of finished requests: -1 keeps them in ``kv_tokens`` until that is needed (vLLM), any other
    number is a cache of its own, of so many tokens, from which hits are copied"""
    token_budget: int = 2048
    """most tokens of one iteration"""
    max_sequences: int = 256
    """most requests of one iteration"""
    price_usd_per_h: float = 0.0
    power_w: float = 0.0
    idle_power_w: float = 0.0
    ready_s: float = 0.0
    """from when on requests can be sent: later than 0 for instances that are still starting"""
    retire_s: float = math.inf
    """from when on no request is sent any more"""
    quality: float = 1.0
    """of the model's answers, 0 to 1"""

    def __post_init__(self) -> None:
        where = f"serving instance {self.name}"
        row = np.array(self.coefficients, dtype=np.float64)
        if row.shape != (COEFFICIENTS,) or not np.isfinite(row).all() or (np.delete(row, EXPERT_MISS) < 0.0).any():
            raise InstanceError(f"{where}: field coefficients: expected {COEFFICIENTS} finite numbers of at least 0")
        if row[EXPERT_MISS] > 0.0:
            raise InstanceError(f"{where}: field coefficients: number {EXPERT_MISS} is above 0, expected a logarithm")
        row.flags.writeable = False
        object.__setattr__(self, "coefficients", row)
        if self.role not in get_args(Role):
            raise InstanceError(f"{where}: field role: {self.role!r}, expected one of {', '.join(get_args(Role))}")
        least = {"kv_tokens": 1, "tensor_parallel": 1, "cache_tokens": -1, "token_budget": 1, "max_sequences": 1}
        for field, low in least.items():
            value = getattr(self, field)
            if type(value) is not int or not low <= value < 2**31:
                raise InstanceError(f"{where}: field {field}: {value!r}, expected an integer of at least {low}")
        if self.token_budget < self.max_sequences:
            # Every decoding request gets a token of each iteration.
            raise InstanceError(
                f"{where}: field token_budget: {self.token_budget}, expected at least max_sequences,"
                f" {self.max_sequences}"
            )
        for field in ("price_usd_per_h", "power_w", "idle_power_w", "ready_s", "retire_s", "quality"):
            value = getattr(self, field)
            finite = isinstance(value, (int, float)) and (math.isfinite(value) or field in _MAY_BE_INFINITE)
            if not finite or value < 0:
                raise InstanceError(f"{where}: field {field}: {value!r}, expected a number of at least 0")
        if self.quality > 1.0 or self.retire_s <= self.ready_s:
            field = "quality" if self.quality > 1.0 else "retire_s"
            raise InstanceError(
                f"{where}: field {field}: {getattr(self, field)!r}, expected "
                + ("at most 1" if field == "quality" else f"later than ready_s {self.ready_s}")
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ServingInstance):
            return NotImplemented
        return serving_instance_to_dict(self) == serving_instance_to_dict(other)

    def __hash__(self) -> int:
        return hash((self.name, self.device, self.model, self.kv_tokens))


def serving_instance_to_dict(instance: ServingInstance) -> dict[str, Any]:
    """Return plain data that ``serving_instance_from_dict`` reads back equal; an infinite ``retire_s`` is left out."""
    data = {field.name: getattr(instance, field.name) for field in fields(ServingInstance)}
    data["coefficients"] = instance.coefficients.tolist()
    if math.isinf(instance.retire_s):
        del data["retire_s"]
    return data


def serving_instance_from_dict(data: Any, where: str) -> ServingInstance:
    """Build a serving instance from plain data.

    Raises:
        InstanceError: an unknown or missing field, or a bad value; ``where`` begins the message.
    """
    known = [field.name for field in fields(ServingInstance)]
    if not isinstance(data, Mapping):
        raise InstanceError(f"{where}: expected a table of fields, got {data!r:.40}")
    if unknown := sorted(set(data) - set(known)):
        raise InstanceError(f"{where}: field {unknown[0]}: unknown, expected {', '.join(known)}")
    if missing := [field for field in known[:5] if field not in data]:
        raise InstanceError(f"{where}: field {missing[0]}: missing")
    row = data["coefficients"]
    if not isinstance(row, Sequence) or not all(isinstance(value, (int, float)) for value in row):
        raise InstanceError(f"{where}: field coefficients: expected a list of numbers")
    try:
        return ServingInstance(**data)
    except InstanceError as error:
        raise InstanceError(f"{where}: {error}") from None
