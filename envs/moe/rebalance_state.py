"""The arrays of the rebalancing game: what an instance fixes, what has happened, and what can be done next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from schedrl.arrays import F64, I32, Bool
from schedrl.envs.moe.balancing import Scratch, allocate_scratch
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.layer_time import SCRATCH_ROWS, Hardware, allocate_hardware, home_layer_s, write_hardware
from schedrl.errors import ConfigError
from schedrl.kernel_arguments import by_reference

__all__ = [
    "FORECASTS",
    "KINDS",
    "Room",
    "State",
    "Work",
    "allocate",
    "allocate_work",
    "room_of",
    "write_instance",
]

KINDS = ("keep", "1 change", "3 changes", "8 changes", "24 changes", "new for latest", "new for recent", "new for safe")
"""Options of a layer, in the order of slots; those that change nothing are left out."""
FORECASTS = ("latest", "recent", "mean", "safe")
"""Forecasts of a layer's loads: its last window; the windows like it, recent ones more; all windows; and the windows
like it with a margin for their spread."""


class Room(NamedTuple):
    """Sizes of the arrays: the most of everything in any instance."""

    windows: int
    layers: int
    experts: int
    slots: int
    devices: int


@by_reference
class State(NamedTuple):
    """All arrays of a batch. Loads are tokens per forward pass."""

    windows: I32  # (B,) all windows, known and scored
    planned: I32  # (B,)
    plans: I32  # (B,)
    layers: I32  # (B,)
    experts: I32  # (B,)
    slots: I32  # (B,)
    devices: I32  # (B,)
    in_sample: Bool  # (B,)
    iterations: F64  # (B,)
    loads: F64  # (B, W, L, E)
    device: I32  # (B, P) device of each slot
    first_slot: I32  # (B, D + 1)
    free_start: Bool  # (B,) the first plan costs no migration
    unit: F64  # (B,) seconds of all scored windows under perfect balance
    ideal: F64  # (B, W) the same of each window, all forward passes
    placement: I32  # (B, L, P) as it is now
    record: I32  # (B, T, L, P) placements so far
    plan: I32  # (B,) number of the plan that is made now
    layer: I32  # (B,)
    unchanged: I32  # (B, L) plans since the layer changed
    option: I32  # (B, C, P) placements of the layer to choose from
    kind: I32  # (B, C)
    move_s: F64  # (B, C) seconds of migration
    moved: F64  # (B, C) experts moved
    predicted_s: F64  # (B, C, 4) seconds of the layer in a forward pass by forecast
    peak: F64  # (B, C) longest busy time of a device per mean, by the latest window
    candidates: I32  # (B,)
    forecast: F64  # (B, 4, E)
    distance: F64  # (B, 4) what the layer's history says of drift
    total_s: F64  # (B,)
    elapsed_ideal_s: F64  # (B,) of the windows that are over
    paid: F64  # (B,)
    invalid: I32  # (B,)


class Work(NamedTuple):
    """Working memory of the kernels, for one layer of one row at a time."""

    hardware: Hardware
    balancing: Scratch
    times: F64  # (SCRATCH_ROWS, D)
    tokens: F64  # (P,)
    replicas: I32  # (E,)
    placement: I32  # (P,)
    before: I32  # (P,)
    speed: F64  # (D,)
    busy: F64  # (D,)
    holds: Bool  # (E, D)
    held: I32  # (E, D) slots of an expert on a device


def room_of(instances: Sequence[ExpertPlacementInstance]) -> Room:
    """Return the room that these instances need.

    Raises:
        ConfigError: an instance whose tokens stay on their path.
    """
    for instance in instances:
        if not isinstance(instance, ExpertPlacementInstance):
            raise ConfigError(f"instance {instance.name}: the rebalancing game plays expert placements")
        if instance.timing.residence != "home":
            raise ConfigError(
                f"instance {instance.name}: field timing.residence: {instance.timing.residence!r}; layers are "
                "rebalanced one by one, which needs tokens that return home"
            )
    return Room(
        windows=max(len(instance.counts) for instance in instances),
        layers=max(instance.layers for instance in instances),
        experts=max(instance.experts for instance in instances),
        slots=max(instance.total_slots for instance in instances),
        devices=max(instance.devices for instance in instances),
    )


def allocate(batch: int, room: Room) -> State:
    """Return zeroed arrays."""
    windows, layers, experts, slots, devices = room
    count, plain = len(KINDS), (batch,)
    shapes: dict[str, tuple[int, ...]] = {
        "loads": (batch, windows, layers, experts),
        "device": (batch, slots),
        "first_slot": (batch, devices + 1),
        "ideal": (batch, windows),
        "placement": (batch, layers, slots),
        "record": (batch, windows, layers, slots),
        "unchanged": (batch, layers),
        "option": (batch, count, slots),
        "kind": (batch, count),
        "move_s": (batch, count),
        "moved": (batch, count),
        "predicted_s": (batch, count, len(FORECASTS)),
        "peak": (batch, count),
        "forecast": (batch, len(FORECASTS), experts),
        "distance": (batch, 4),
    }
    floats = {"iterations", "loads", "unit", "ideal", "move_s", "moved", "predicted_s", "peak"}
    floats |= {"forecast", "distance", "total_s", "elapsed_ideal_s", "paid"}
    kinds: dict[str, Any] = dict.fromkeys(floats, np.float64) | {"in_sample": np.bool_, "free_start": np.bool_}
    return State(**{name: np.zeros(shapes.get(name, plain), dtype=kinds.get(name, np.int32)) for name in State._fields})


def allocate_work(batch: int, room: Room) -> Work:
    """Return working memory."""
    return Work(
        hardware=allocate_hardware(batch, room.devices),
        balancing=allocate_scratch(room.experts, room.slots, room.devices),
        times=np.zeros((SCRATCH_ROWS, room.devices)),
        tokens=np.zeros(max(room.slots, room.devices)),
        replicas=np.zeros(room.experts, dtype=np.int32),
        placement=np.zeros(room.slots, dtype=np.int32),
        before=np.zeros(room.slots, dtype=np.int32),
        speed=np.zeros(room.devices),
        busy=np.zeros(room.devices),
        holds=np.zeros((room.experts, room.devices), dtype=np.bool_),
        held=np.zeros((room.experts, room.devices), dtype=np.int32),
    )


def write_instance(state: State, work: Work, row: int, instance: ExpertPlacementInstance) -> None:
    """Start an episode of ``instance`` in one row; the options of the first decision are not made yet."""
    write_hardware(work.hardware, row, instance)
    windows, layers, experts = instance.counts.shape
    slots, devices = instance.total_slots, instance.devices
    sizes = {"windows": windows, "planned": instance.planned, "plans": instance.plans, "layers": layers}
    sizes |= {"experts": experts, "slots": slots, "devices": devices, "iterations": instance.iterations}
    for name, size in sizes.items():
        getattr(state, name)[row] = size
    state.in_sample[row] = instance.planned == windows
    state.free_start[row] = instance.initial is None
    state.loads[row, :windows, :layers, :experts] = instance.counts / instance.iterations
    state.device[row, :slots] = instance.slot_device
    state.first_slot[row, : devices + 1] = np.concatenate([[0], np.cumsum(instance.slots)])
    state.placement[row, :layers, :slots] = instance.start
    first = 0 if instance.planned == windows else instance.planned
    state.ideal[row] = 0.0
    for window in range(first, windows):
        state.ideal[row, window] = instance.iterations * _balanced_s(work, row, instance, window)
    state.unit[row] = max(state.ideal[row].sum(), 1e-12)
    state.unchanged[row] = 0
    for name in ("plan", "layer", "candidates", "invalid"):
        getattr(state, name)[row] = 0
    for name in ("total_s", "elapsed_ideal_s", "paid"):
        getattr(state, name)[row] = 0.0


def _balanced_s(work: Work, row: int, instance: ExpertPlacementInstance, window: int) -> float:
    """Return the seconds of a forward pass if every device had one slot with an equal share of each layer's tokens."""
    devices = instance.devices
    one_each = np.arange(devices, dtype=np.int32)
    seconds = 0.0
    for counts in instance.counts[window]:
        total = float(counts.sum() / instance.iterations)
        work.tokens[:devices] = total / devices
        seconds += home_layer_s(work.hardware, row, work.tokens, one_each, devices, total, work.times)
    return seconds
