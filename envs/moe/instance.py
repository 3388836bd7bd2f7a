"""Expert placement: which experts, and how many replicas of each, every device holds in every layer, as loads drift."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from schedrl.arrays import F64, I32, I64
from schedrl.devices import Cluster, cluster_from_dict, cluster_to_dict
from schedrl.envs.moe.model import MoEModel, model_from_dict
from schedrl.envs.moe.timing import LayerTiming, timing_from_dict
from schedrl.errors import ConfigError, InstanceError

__all__ = ["MAX_COUNT", "SCHEMA", "ExpertPlacementInstance", "trivial_placement"]

SCHEMA = "schedrl/expert-placement-instance/1"
MAX_COUNT = 2**40


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertPlacementInstance:
    """Loads over windows of time, a model and a cluster. A plan may change before each scored window.

    ``counts`` are tokens routed to each expert, summed over a window of ``iterations`` forward passes. The first
    ``planned`` windows are known before the first plan; those after them are scored, and a planner sees one only when
    it is over. With ``planned`` equal to the number of windows, one plan is scored on the windows it was made from
    (in sample). A device holds ``slots`` experts in each layer; slots are numbered device by device.

    Raises:
        InstanceError: a field breaks one of these rules; the message names field and value.
    """

    objective: ClassVar[str] = "total_time"

    name: str
    model: MoEModel
    cluster: Cluster
    slots: I32  # (D,) expert slots per device and layer
    counts: I64  # (W, L, E) tokens per window
    planned: int
    iterations: int = 1
    """forward passes per window"""
    timing: LayerTiming = field(default_factory=LayerTiming)
    transitions: F64 | None = None  # (L - 1, E, E) share of an expert's tokens that each next expert gets
    initial: I32 | None = None  # (L, P) expert of each slot at the start; None: the first plan costs no migration

    def __post_init__(self) -> None:
        for column, dtype in (("slots", np.int32), ("counts", np.int64)):
            object.__setattr__(self, column, _integers(getattr(self, column), dtype, f"{self.name}: field {column}"))
        if self.initial is not None:
            where = f"{self.name}: field initial"
            object.__setattr__(self, "initial", _integers(self.initial, np.int32, where))
        if self.transitions is not None:
            array = np.array(self.transitions, dtype=np.float64)
            if array.size == 0:
                array = array.reshape(0, self.model.experts, self.model.experts)
            array.flags.writeable = False
            object.__setattr__(self, "transitions", array)
        _validate(self)

    @property
    def layers(self) -> int:
        """Number of layers L."""
        return int(self.counts.shape[1])

    @property
    def experts(self) -> int:
        """Number of experts E per layer."""
        return int(self.counts.shape[2])

    @property
    def devices(self) -> int:
        """Number of devices D."""
        return len(self.slots)

    @property
    def total_slots(self) -> int:
        """Number of slots P per layer."""
        return int(self.slots.sum())

    @cached_property
    def slot_device(self) -> I32:
        """(P,) device of each slot."""
        return np.repeat(np.arange(self.devices, dtype=np.int32), self.slots)

    @property
    def history(self) -> I64:
        """(planned, L, E) windows known before the first plan."""
        return self.counts[: self.planned]

    @property
    def scored(self) -> I64:
        """(T, L, E) windows that count: those after ``planned``, or all when there are none."""
        return self.counts[self.planned :] if self.planned < len(self.counts) else self.counts

    @property
    def plans(self) -> int:
        """Most plans a solution may have: one per scored window, one alone when they are scored in sample."""
        return max(len(self.counts) - self.planned, 1)

    @cached_property
    def start(self) -> I32:
        """(L, P) the initial placement, or the one that engines start with."""
        if self.initial is not None:
            return self.initial
        return trivial_placement(self.layers, self.experts, self.total_slots)

    @property
    def size_label(self) -> str:
        """Size group in tables."""
        return f"{self.layers}x{self.experts} on {self.devices}"

    def known(self, plan: int) -> Self:
        """Return the instance as a planner sees it before plan number ``plan``: later windows are absent."""
        windows = self.planned + plan
        return replace(self, counts=self.counts[:windows], planned=windows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExpertPlacementInstance):
            return NotImplemented
        plain = ("name", "model", "cluster", "planned", "iterations", "timing")
        return all(getattr(self, name) == getattr(other, name) for name in plain) and all(
            np.array_equal(getattr(self, column), getattr(other, column))
            if getattr(self, column) is not None and getattr(other, column) is not None
            else getattr(self, column) is getattr(other, column)
            for column in ("slots", "counts", "transitions", "initial")
        )

    def __hash__(self) -> int:
        return hash((self.name, self.planned, self.counts.tobytes()))

    def to_json(self) -> str:
        """Return versioned JSON."""
        return json.dumps(
            {
                "schema": SCHEMA,
                "name": self.name,
                "model": self.model.to_dict(),
                "cluster": cluster_to_dict(self.cluster),
                "timing": self.timing.to_dict(),
                "planned": self.planned,
                "iterations": self.iterations,
            }
            | {
                column: None if getattr(self, column) is None else getattr(self, column).tolist()
                for column in ("slots", "counts", "transitions", "initial")
            }
        )

    @classmethod
    def from_json(cls, text: str, *, source: str = "<json>") -> Self:
        """Read ``to_json`` output.

        Raises:
            InstanceError: not JSON, another schema, or a bad field.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InstanceError(f"{source}: not valid JSON: {error}") from None
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise InstanceError(f"{source}: field schema: expected {SCHEMA}")
        for column in ("name", "planned", "iterations", "slots", "counts"):
            if column not in data:
                raise InstanceError(f"{source}: field {column}: missing")
        arrays: dict[str, Any] = {
            column: data.get(column) for column in ("planned", "iterations", "slots", "counts", "initial")
        }
        try:
            return cls(
                name=str(data["name"]),
                model=model_from_dict(data.get("model"), f"{source}: model"),
                cluster=cluster_from_dict(data.get("cluster"), f"{source}: cluster"),
                timing=timing_from_dict(data.get("timing", {}), f"{source}: timing"),
                transitions=_numbers(data.get("transitions"), f"{source}: field transitions"),
                **arrays,
            )
        except ConfigError as error:
            raise InstanceError(str(error)) from None
        except InstanceError as error:
            raise InstanceError(str(error) if str(error).startswith(source) else f"{source}: {error}") from None


def trivial_placement(layers: int, experts: int, slots: int) -> I32:
    """Return the placement (L, P) that engines start with: experts in order, then again from the first."""
    return np.tile(np.arange(slots, dtype=np.int32) % experts, (layers, 1))


def _integers(values: Any, dtype: type, where: str) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(values)
    except ValueError:
        raise InstanceError(f"{where}: rows of unequal length, expected a full array") from None
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InstanceError(f"{where}: a value is NaN or infinite, expected integers")
        if (array != np.floor(array)).any():
            raise InstanceError(f"{where}: a value is no integer")
    elif array.dtype.kind not in "iu":
        raise InstanceError(f"{where}: expected integers, got {array.dtype}")
    if array.size and (array.max() > MAX_COUNT or array.min() < -MAX_COUNT):
        raise InstanceError(f"{where}: a value beyond {MAX_COUNT}")
    frozen: np.ndarray[Any, Any] = np.array(array, dtype=dtype)
    frozen.flags.writeable = False
    return frozen


def _numbers(values: Any, where: str) -> F64 | None:
    if values is None:
        return None
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InstanceError(f"{where}: expected a full array of numbers") from None


def _validate(instance: ExpertPlacementInstance) -> None:
    where, counts, model = instance.name, instance.counts, instance.model
    if counts.ndim != 3 or 0 in counts.shape:
        raise InstanceError(f"{where}: field counts: shape {counts.shape}, expected (windows, layers, experts)")
    if counts.min() < 0:
        w, layer, e = np.argwhere(counts < 0)[0]
        raise InstanceError(
            f"{where}: field counts: window {w} layer {layer} expert {e} has {counts[w, layer, e]}, expected at least 0"
        )
    if counts.shape[2] != model.experts:
        raise InstanceError(f"{where}: field counts: {counts.shape[2]} experts, model {model.name} has {model.experts}")
    for column, least, most in (("planned", 1, len(counts)), ("iterations", 1, MAX_COUNT)):
        value = getattr(instance, column)
        if type(value) is not int or not least <= value <= most:
            raise InstanceError(f"{where}: field {column}: {value!r}, expected an integer from {least} to {most}")
    if instance.slots.ndim != 1 or len(instance.slots) != instance.cluster.devices:
        raise InstanceError(
            f"{where}: field slots: shape {instance.slots.shape} for {instance.cluster.devices} devices"
        )
    if instance.slots.min() < 1:
        raise InstanceError(f"{where}: field slots: device {instance.slots.argmin()} has none, expected at least 1")
    if instance.total_slots < instance.experts:
        raise InstanceError(
            f"{where}: field slots: {instance.total_slots} slots per layer are fewer than {instance.experts} experts"
        )
    _validate_devices(instance)
    _validate_transitions(instance)
    if instance.initial is not None:
        _validate_initial(instance, instance.initial)


def _validate_devices(instance: ExpertPlacementInstance) -> None:
    precisions = ("bf16", "fp16") if instance.model.bytes_per_weight > 1.0 else ("fp8", "int8", "bf16", "fp16")
    for device, node in enumerate(instance.cluster.node_of):
        unit = instance.cluster.nodes[node].device
        where = f"{instance.name}: field cluster: device {device} ({unit.name})"
        if unit.memory_bandwidth_bytes_per_s is None:
            raise InstanceError(f"{where}: field memory_bandwidth_bytes_per_s: missing")
        if not any(precision in unit.flops_per_s for precision in precisions):
            raise InstanceError(f"{where}: field flops_per_s: none of {', '.join(precisions)}")
        memory = unit.memory_bytes
        needed = int(instance.slots[device]) * instance.layers * instance.model.expert_bytes
        if memory is not None and needed > memory:
            raise InstanceError(
                f"{instance.name}: field slots: device {device} needs {needed / 2**30:.1f} GiB for its experts, "
                f"it has {memory / 2**30:.1f} GiB"
            )


def _validate_transitions(instance: ExpertPlacementInstance) -> None:
    where, transitions = f"{instance.name}: field transitions", instance.transitions
    if transitions is None:
        if instance.timing.residence == "path":
            raise InstanceError(f"{where}: missing, expected them as tokens stay on their path")
        return
    expected = (instance.layers - 1, instance.experts, instance.experts)
    if transitions.shape != expected:
        raise InstanceError(f"{where}: shape {transitions.shape}, expected {expected}")
    if not np.isfinite(transitions).all() or (transitions < 0).any():
        raise InstanceError(f"{where}: a share is negative or not finite")
    if transitions.size and not np.allclose(transitions.sum(axis=2), 1.0, atol=1e-6):
        raise InstanceError(f"{where}: shares of an expert's tokens do not sum to 1")


def _validate_initial(instance: ExpertPlacementInstance, initial: I32) -> None:
    where, expected = f"{instance.name}: field initial", (instance.layers, instance.total_slots)
    if initial.shape != expected:
        raise InstanceError(f"{where}: shape {initial.shape}, expected {expected}")
    if initial.min() < 0 or initial.max() >= instance.experts:
        raise InstanceError(f"{where}: an expert outside 0 to {instance.experts - 1}")
    for layer, row in enumerate(initial):
        if len(np.unique(row)) < instance.experts:
            missing = np.setdiff1d(np.arange(instance.experts), row)[0]
            raise InstanceError(f"{where}: layer {layer} lacks expert {missing}")
