"""The arrays of the placement game: what an instance fixes, and what changes while replicas are placed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from schedrl.arrays import F32, F64, I32, Bool
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.layer_time import SCRATCH_ROWS, Hardware, allocate_hardware, write_hardware
from schedrl.envs.moe.placement_replicas import replica_counts
from schedrl.kernel_arguments import by_reference

__all__ = ["MOST_SOURCES", "Room", "State", "allocate", "device_seconds", "forecast_of", "room_of", "write_instance"]

MOST_SOURCES = 16
"""strongest experts of the layer before that are kept for each expert"""
_PREPARED = "_placement_game"


class Room(NamedTuple):
    """Sizes of the arrays: the most of everything in any instance."""

    layers: int  # L
    experts: int  # E
    devices: int  # D
    slots: int  # P
    windows: int  # T
    sources: int  # K, 0 where no instance has transitions
    path: int  # 1 where some instance's tokens stay on their path


@by_reference
class State(NamedTuple):
    """All arrays of a batch. Tokens are per forward pass; a node's figures stand at its number.

    The replicas of an expert are placed one after the other, experts of a layer in order of ``sequence``.
    """

    layers: I32  # (B,)
    experts: I32  # (B,)
    slots: I32  # (B,)
    windows: I32  # (B,) scored windows
    iterations: F64  # (B,) forward passes per window
    device: I32  # (B, P) device of each slot
    first_slot: I32  # (B, D + 1)
    kind: I32  # (B, D) devices of equal kind have equal figures and slots, in equal nodes
    strict: Bool  # (B,) no device must hold an expert twice
    forecast: F64  # (B, L, E) tokens that replicas are placed by
    spread: F32  # (B, L, E) standard deviation over known windows, per its sum with the mean
    replicas: I32  # (B, L, E)
    sequence: I32  # (B, L, E) experts in order of placing
    ideal_s: F64  # (B, L) bound on the seconds of the busiest device
    has_initial: Bool  # (B,)
    initial: I32  # (B, L, P)
    has_sources: Bool  # (B,)
    path: Bool  # (B,) tokens stay on their path
    source: I32  # (B, L, E, K) experts of the layer before, -1 for none
    source_share: F32  # (B, L, E, K) share of the expert's incoming tokens
    scored: F64  # (B, T, L, E) tokens of the scored windows; no observation depends on them
    transitions: F64  # (B, L - 1, E, E) where tokens stay on their path
    unit: F64  # (B,) seconds that rewards are measured in
    layer: I32  # (B,)
    position: I32  # (B,) of the expert in hand in ``sequence``
    placed: I32  # (B,) its replicas that are placed
    left: I32  # (B,) replicas to be placed, in all layers
    busy: F64  # (B, D) seconds of every device in the current layer
    free: I32  # (B, D) slots
    holding: Bool  # (B, D) holds the expert in hand
    resident: Bool  # (B, D) held the expert in hand at the start
    near: Bool  # (B, D) by node: some device of it did
    node_busy: F64  # (B, D) by node: sum over its devices
    node_free: I32  # (B, D) by node
    node_slots: I32  # (B, D) by node
    fetched: I32  # (B, 2, D) experts received inside and between nodes in the current layer
    later: I32  # (B, D + 1) sum over the experts after that in hand of their replicas, at most k each
    content: I32  # (B, P) experts of the current layer's devices in order of placing
    held: F32  # (B, E, D) share of the replicas of the layer before, 0 everywhere in the first
    incoming: F32  # (B, D) share of the tokens of the expert in hand that come from the device
    node_incoming: F32  # (B, D) by node
    plan: I32  # (B, L, P)
    peak_s: F64  # (B,) seconds of the busiest device so far
    tokens_left: F64  # (B,) of the current layer
    layer_tokens: F64  # (B,) of the current layer, all
    spent_s: F64  # (B,) what finished layers take above their bounds, in all windows, with migration
    total_s: F64  # (B,) objective once finished
    option: I32  # (B, W) devices on offer
    option_s: F64  # (B, W) their seconds after placing
    candidates: I32  # (B,) length of the prefix of ``option`` on offer, 0 once finished
    empties: I32  # (B, D) scratch
    tally: I32  # (B, 2, P + 1) scratch: devices by free slots
    tokens: F64  # (B, P) scratch
    copies: I32  # (B, E) scratch
    copies_before: I32  # (B, E) scratch
    scratch: F64  # (B, SCRATCH_ROWS, D)
    holders: Bool  # (B, E, D) scratch, false between calls
    flow: F64  # (B, D, E) scratch where tokens stay on their path
    pending: I32  # (B,) device that gets the replica in hand, -1 for none
    moves_on: Bool  # (B,)
    paid: F64  # (B,) rewards so far
    decisions: I32  # (B,) replicas of all layers
    invalid: I32  # (B,)


_TRUTHS = frozenset(
    ("strict", "has_initial", "has_sources", "path", "holding", "resident", "near", "holders", "moves_on")
)
_COSTS = ("ideal_s", "busy", "node_busy", "peak_s", "spent_s", "total_s", "option_s", "unit", "paid")
_LOADS = ("iterations", "forecast", "scored", "transitions", "tokens_left", "layer_tokens", "tokens", "scratch", "flow")
_DOUBLES = frozenset((*_COSTS, *_LOADS))
_SINGLES = frozenset(["spread", "source_share", "held", "incoming", "node_incoming"])


def allocate(batch: int, room: Room, window: int) -> State:
    """Return zeroed arrays for ``batch`` rows with ``window`` options each."""
    layers, experts, devices, slots, windows, sources, path = room
    shapes: dict[str, tuple[int, ...]] = {
        "first_slot": (devices + 1,),
        "ideal_s": (layers,),
        "source": (layers, experts, sources),
        "source_share": (layers, experts, sources),
        "scored": (windows, layers, experts),
        "transitions": (path * (layers - 1), experts, experts),
        "fetched": (2, devices),
        "later": (devices + 1,),
        "held": (experts if sources else 0, devices),
        "option": (window,),
        "option_s": (window,),
        "tally": (2, slots + 1),
        "scratch": (SCRATCH_ROWS, devices),
        "holders": (experts, devices),
        "flow": (path * devices, experts),
    }
    groups: tuple[tuple[str, tuple[int, ...]], ...] = (
        ("device content tokens", (slots,)),
        ("initial plan", (layers, slots)),
        ("forecast spread replicas sequence", (layers, experts)),
        ("copies copies_before", (experts,)),
        ("kind busy free holding resident near node_busy node_free node_slots incoming node_incoming empties",
         (devices,)),
    )  # fmt: skip
    shapes |= {name: shape for names, shape in groups for name in names.split()}
    return State(**{name: np.zeros((batch, *shapes.get(name, ())), dtype=_dtype(name)) for name in State._fields})


def _dtype(name: str) -> type[Any]:
    if name in _TRUTHS:
        return np.bool_
    if name in _DOUBLES:
        return np.float64
    return np.float32 if name in _SINGLES else np.int32


def room_of(instances: Sequence[ExpertPlacementInstance]) -> Room:
    """Return the room that instances need."""
    return Room(
        layers=max(instance.layers for instance in instances),
        experts=max(instance.experts for instance in instances),
        devices=max(instance.devices for instance in instances),
        slots=max(instance.total_slots for instance in instances),
        windows=max(len(instance.scored) for instance in instances),
        sources=max(0 if i.transitions is None else min(MOST_SOURCES, i.experts) for i in instances),
        path=max(int(instance.timing.residence == "path") for instance in instances),
    )


def write_instance(hw: Hardware, state: State, row: int, instance: ExpertPlacementInstance, z: float) -> None:
    """Write an instance into a row, with nothing placed; the kernels begin its first layer."""
    for array in hw:
        array[row] = 0
    write_hardware(hw, row, instance)
    for name in State._fields:
        getattr(state, name)[row] = 0
    for name, value in _prepared(instance, z).items():
        array = getattr(state, name)
        if np.ndim(value):
            array[(row, *(slice(size) for size in value.shape))] = value
        else:
            array[row] = value
    if instance.timing.residence == "path":
        assert instance.transitions is not None
        state.transitions[row, : instance.layers - 1, : instance.experts, : instance.experts] = instance.transitions
    scored = state.scored[row, : len(instance.scored), : instance.layers, : instance.experts]
    np.divide(instance.scored, instance.iterations, out=scored)
    if instance.initial is not None:
        state.initial[row, : instance.layers, : instance.total_slots] = instance.initial
    state.pending[row], state.moves_on[row] = -1, True
    state.left[row] = state.decisions[row] = instance.layers * instance.total_slots


def forecast_of(instance: ExpertPlacementInstance, z: float = 0.0) -> tuple[F64, F64]:
    """Return (L, E) tokens per forward pass to plan by, and their standard deviation over the known windows.

    Args:
        instance: only its known windows are looked at.
        z: standard deviations that the forecast lies above the mean (as FlashLB of vllm-ascend plans).
    """
    history = instance.history / instance.iterations
    deviation: F64 = history.std(axis=0)
    forecast: F64 = history.mean(axis=0) + z * deviation
    return forecast, deviation


def _prepared(instance: ExpertPlacementInstance, z: float) -> dict[str, Any]:
    # Beside the instance's own cached properties, so that it lives as long as the instance.
    tables: dict[float, dict[str, Any]] = instance.__dict__.setdefault(_PREPARED, {})
    if z not in tables:
        tables[z] = _prepare(instance, z)
    return tables[z]


def _prepare(instance: ExpertPlacementInstance, z: float) -> dict[str, Any]:
    forecast, deviation = forecast_of(instance, z)
    replicas = replica_counts(forecast, instance.slots)
    nodes, node_of = len(instance.cluster.nodes), instance.cluster.node_of
    source, share = _sources(instance, forecast)
    mean = forecast - z * deviation
    return {
        "layers": instance.layers,
        "experts": instance.experts,
        "slots": instance.total_slots,
        "windows": len(instance.scored),
        "iterations": instance.iterations,
        "device": instance.slot_device,
        "first_slot": np.concatenate([[0], np.cumsum(instance.slots)]),
        "kind": _kinds(instance),
        "strict": bool(instance.slots.max() <= instance.experts),
        "forecast": forecast,
        "spread": deviation / np.maximum(mean + deviation, 1e-300),
        "replicas": replicas,
        "sequence": np.argsort(-forecast / replicas, axis=1, kind="stable"),
        "ideal_s": _ideal_s(instance, forecast, replicas),
        "has_initial": instance.initial is not None,
        "has_sources": instance.transitions is not None,
        "path": instance.timing.residence == "path",
        "source": source,
        "source_share": share,
        "node_slots": np.bincount(node_of, weights=instance.slots, minlength=nodes),
    }


def _kinds(instance: ExpertPlacementInstance) -> I32:
    """Return the kind of each device: equal nodes with equal slots in order, and equal slots inside them."""
    cluster, slots = instance.cluster, instance.slots.tolist()
    node_of = cluster.node_of.tolist()
    distinct = [next(k for k, other in enumerate(cluster.nodes) if other == node) for node in cluster.nodes]
    inside: list[list[int]] = [[] for _ in cluster.nodes]
    for device, node in enumerate(node_of):
        inside[node].append(slots[device])
    numbers: dict[tuple[Any, ...], int] = {}
    keys = [(distinct[node], tuple(sorted(inside[node])), own) for node, own in zip(node_of, slots, strict=True)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int32)


def _ideal_s(instance: ExpertPlacementInstance, forecast: F64, replicas: I32) -> F64:
    """Return (L,) a bound on the seconds of the busiest device: of even shares, and of the largest replica."""
    hw_token, hw_weight = device_seconds(instance)
    per_replica = forecast / replicas
    least = np.full(forecast.shape, np.inf)
    for token_s, weight_s in {(float(t), float(w)) for t, w in zip(hw_token, hw_weight, strict=True)}:
        least = np.minimum(least, np.maximum(per_replica * token_s, weight_s))
    active = forecast > 0
    least = np.where(active, least, 0.0)
    bounds = (
        forecast.sum(axis=1) / (1.0 / hw_token).sum(),
        np.where(active, replicas, 0).sum(axis=1) / (1.0 / hw_weight).sum(),
        (least * replicas).sum(axis=1) / instance.devices,
        least.max(axis=1),
    )
    return np.asarray(np.max(bounds, axis=0))


def device_seconds(instance: ExpertPlacementInstance) -> tuple[F64, F64]:
    """Return (D,) seconds of one token in one expert, and to read an expert's weights, on every device."""
    hw = allocate_hardware(1, instance.devices)
    write_hardware(hw, 0, instance)
    return hw.token_s[0], hw.weight_s[0]


def _sources(instance: ExpertPlacementInstance, forecast: F64) -> tuple[I32, F32]:
    """Return (L, E, K) strongest sources of each expert in the layer before, and their shares of its tokens."""
    shape = (instance.layers, instance.experts)
    if instance.transitions is None:
        return np.zeros((*shape, 0), dtype=np.int32), np.zeros((*shape, 0), dtype=np.float32)
    most = min(MOST_SOURCES, instance.experts)
    source, share = np.full((*shape, most), -1, dtype=np.int32), np.zeros((*shape, most), dtype=np.float32)
    for layer in range(1, instance.layers):
        flow = (forecast[layer - 1][:, None] * instance.transitions[layer - 1]).T  # (E, E) by target
        total = np.maximum(flow.sum(axis=1, keepdims=True), 1e-300)
        chosen = np.sort(np.argpartition(-flow, most - 1, axis=1)[:, :most], axis=1)
        source[layer] = chosen
        share[layer] = np.take_along_axis(flow, chosen, axis=1) / total
    return source, share
