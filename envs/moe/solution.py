"""Placement plans, their checker and objectives: from the definitions, sharing no code with the simulators."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.envs.moe import metrics
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.timing import AllToAll
from schedrl.errors import SolutionError

__all__ = [
    "PLAN_SCHEMA",
    "ExpertPlan",
    "check_plan",
    "device_loads",
    "layer_times",
    "migration_times",
    "plan_objectives",
]

PLAN_SCHEMA = "schedrl/expert-plan/1"
_MAX_LISTED = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertPlan:
    """Which expert is in each slot: one placement for all scored windows, or one for each of them.

    Raises:
        SolutionError: not a full three-dimensional array of integers.
    """

    experts: I32  # (V, L, P) expert of each slot; V is 1 or the number of scored windows

    def __post_init__(self) -> None:
        try:
            array = np.asarray(self.experts)
        except ValueError:
            raise SolutionError("plan: field experts: rows of unequal length, expected a full array") from None
        if array.ndim != 3 or array.dtype.kind not in "iu":
            raise SolutionError(f"plan: field experts: expected integers (plans, layers, slots), got {array.shape}")
        frozen = np.array(array, dtype=np.int32)
        frozen.flags.writeable = False
        object.__setattr__(self, "experts", frozen)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExpertPlan) and np.array_equal(self.experts, other.experts)

    def __hash__(self) -> int:
        return hash(self.experts.tobytes())

    def to_json(self) -> str:
        """Return versioned JSON; consecutive equal placements are written once."""
        changes = [0, *(t for t in range(1, len(self.experts)) if (self.experts[t] != self.experts[t - 1]).any())]
        return json.dumps(
            {
                "schema": PLAN_SCHEMA,
                "plans": len(self.experts),
                "changes": [{"from": t, "experts": self.experts[t].tolist()} for t in changes],
            }
        )

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
        if not isinstance(data, dict) or data.get("schema") != PLAN_SCHEMA:
            raise SolutionError(f"{source}: field schema: expected {PLAN_SCHEMA}")
        try:
            starts = [change["from"] for change in data["changes"]]
            placements = [change["experts"] for change in data["changes"]]
            lengths = np.diff([*starts, data["plans"]])
        except (KeyError, TypeError, ValueError):
            raise SolutionError(f"{source}: field changes: expected a list of tables with from and experts") from None
        if not starts or starts[0] != 0 or (lengths < 1).any():
            raise SolutionError(f"{source}: field changes: expected rising numbers from 0 below plans")
        try:
            return cls(experts=np.repeat(np.array(placements), lengths, axis=0))
        except (SolutionError, ValueError) as error:
            raise SolutionError(f"{source}: {error}") from None


def check_plan(instance: ExpertPlacementInstance, plan: ExpertPlan) -> list[str]:
    """Return every violation in words: shape, experts out of range, experts without a slot; empty means valid.

    Two replicas of an expert on one device are wasteful, not wrong: DeepSeek's balancer makes them.
    """
    shape = plan.experts.shape
    if shape[0] not in (1, instance.plans):
        return [f"the plan has {shape[0]} placements for {instance.plans} scored windows, expected 1 or one for each"]
    if shape[1:] != (instance.layers, instance.total_slots):
        return [
            f"the plan is for {shape[1]} layers of {shape[2]} slots, "
            f"expected {instance.layers} of {instance.total_slots}"
        ]
    found: list[str] = []
    for t, placement in enumerate(plan.experts.tolist()):
        for layer, row in enumerate(placement):
            where = f"placement {t} layer {layer}"
            held = set(row)
            found += [f"{where}: unknown expert {e}" for e in sorted(held) if not 0 <= e < instance.experts]
            found += [f"{where}: expert {e} has no slot" for e in range(instance.experts) if e not in held]
            if len(found) >= _MAX_LISTED:
                return found[:_MAX_LISTED]
    return found


def plan_objectives(instance: ExpertPlacementInstance, plan: ExpertPlan) -> dict[str, float]:
    """Return a valid plan's objectives.

    ``total_time`` in seconds: all forward passes of the scored windows, and all migration. Further: ``iteration_s``
    (mean of a forward pass), ``migration_s``, ``moved_bytes``, ``cross_node_bytes`` (per forward pass), and the balance
    of device loads in each project's own definition (``schedrl.envs.moe.metrics``).
    """
    scored = instance.scored
    placements = np.broadcast_to(plan.experts, (len(scored), *plan.experts.shape[1:]))
    times, crossing, loads = [], [], []
    for counts, placement in zip(scored, placements, strict=True):
        seconds, crossed = layer_times(instance, counts, placement)
        times.append(seconds.sum())
        crossing.append(crossed)
        loads.append(device_loads(instance, counts, placement))
    before = [placements[0] if instance.initial is None else instance.initial, *placements[:-1]]
    moves = [migration_times(instance, old, new) for old, new in zip(before, placements, strict=True)]
    migration_s = sum(seconds for seconds, _ in moves)
    stacked = np.concatenate(loads)  # (T * L, D)
    return {
        "total_time": float(instance.iterations * np.sum(times) + migration_s),
        "iteration_s": float(np.mean(times)),
        "migration_s": float(migration_s),
        "moved_bytes": float(sum(moved for _, moved in moves)),
        "cross_node_bytes": float(np.mean(crossing)),
        "balance_vllm": metrics.balance_vllm(stacked),
        "balance_sglang": metrics.balance_sglang(stacked),
        "imbalance_tensorrt_llm": metrics.imbalance_tensorrt_llm(stacked),
        "peak_to_average": metrics.peak_to_average(stacked),
    }


def _slot_tokens(instance: ExpertPlacementInstance, counts: np.ndarray[Any, Any], placement: I32) -> F64:
    """Return (L, P) tokens per forward pass of every slot: replicas share their expert's load evenly."""
    tokens = np.zeros(placement.shape, dtype=np.float64)
    for layer, row in enumerate(placement):
        replicas = np.bincount(row, minlength=instance.experts)
        tokens[layer] = (counts[layer] / instance.iterations / np.maximum(replicas, 1))[row]
    return tokens


def device_loads(instance: ExpertPlacementInstance, counts: np.ndarray[Any, Any], placement: I32) -> F64:
    """Return (L, D) tokens per forward pass of every device."""
    tokens, loads = _slot_tokens(instance, counts, placement), np.zeros((instance.layers, instance.devices))
    for layer in range(instance.layers):
        np.add.at(loads[layer], instance.slot_device, tokens[layer])
    return loads


def layer_times(instance: ExpertPlacementInstance, counts: np.ndarray[Any, Any], placement: I32) -> tuple[F64, float]:
    """Return (L,) seconds of each layer in a forward pass, and the bytes that cross between nodes in all of them.

    Args:
        instance: the model, cluster and time model.
        counts: (L, E) tokens of one window.
        placement: (L, P) expert of every slot.
    """
    tokens, seconds, crossed = _slot_tokens(instance, counts, placement), np.zeros(instance.layers), 0.0
    cluster, model, timing = instance.cluster, instance.model, instance.timing
    for layer in range(instance.layers):
        busy = np.zeros(instance.devices)
        for p, device in enumerate(instance.slot_device):
            if tokens[layer, p] > 0:
                unit = cluster.nodes[cluster.node_of[device]].device
                compute = model.expert_flops_per_token * tokens[layer, p] / (unit.mfu * _rate(instance, unit))
                assert unit.memory_bandwidth_bytes_per_s is not None
                busy[device] += max(compute, model.expert_bytes / (unit.mbu * unit.memory_bandwidth_bytes_per_s))
        seconds[layer] = timing.expert_overhead_s + busy.max()
        if timing.residence == "home":
            intra, inter = _home_traffic(instance, counts[layer], tokens[layer])
            for phase in (timing.dispatch, timing.combine):
                seconds[layer] += _exchange_s(instance, phase, intra, inter)
                crossed += inter[0].sum() * model.hidden * phase.bytes_per_value
        elif layer > 0:
            matrix = path_traffic(instance, counts, placement, layer)
            intra, inter = _split(instance, matrix)
            seconds[layer] += _exchange_s(instance, timing.dispatch, intra, inter)
            crossed += inter[0].sum() * model.hidden * timing.dispatch.bytes_per_value
    return seconds, crossed


def _rate(instance: ExpertPlacementInstance, unit: Any) -> float:
    """Return the peak rate at the precision of the weights: FP8 where they have a byte and the device can."""
    if instance.model.bytes_per_weight <= 1.0:
        for precision in ("fp8", "int8"):
            if precision in unit.flops_per_s:
                return float(unit.flops_per_s[precision])
    return float(unit.flops_per_s["bf16"] if "bf16" in unit.flops_per_s else unit.flops_per_s["fp16"])


def _home_traffic(
    instance: ExpertPlacementInstance, counts: np.ndarray[Any, Any], tokens: F64
) -> tuple[tuple[F64, F64], tuple[F64, F64]]:
    """Return tokens that enter and leave every device, (D,) each, inside nodes and between nodes, in the dispatch.

    Tokens live evenly on all devices. With deduplication, experts of a token are taken as chosen independently.
    """
    devices, node_of = instance.devices, instance.cluster.node_of
    total = counts.sum() / instance.iterations / instance.model.top_k
    share = np.minimum(tokens / total, 1.0) if total > 0 else np.zeros_like(tokens)
    visits = np.zeros(devices)  # tokens that need each device, from all sources
    for d in range(devices):
        own = instance.slot_device == d
        visits[d] = (
            tokens[own].sum() if instance.timing.deduplicate == "none" else total * (1 - np.prod(1 - share[own]))
        )
    intra_in, intra_out, inter_in, inter_out = (np.zeros(devices) for _ in range(4))
    for node in range(len(instance.cluster.nodes)):
        mates = np.flatnonzero(node_of == node)
        for mate in mates:
            # With deduplication by node, every token reaches the device from inside the node.
            sources = devices if instance.timing.deduplicate == "node" else len(mates)
            local = visits[mate] * (sources - sources / len(mates)) / devices
            intra_in[mate] += local
            for other in mates[mates != mate]:
                intra_out[other] += local / (len(mates) - 1)
        if len(mates) == devices:
            continue
        if instance.timing.deduplicate == "node":
            arriving = total * (1 - np.prod(1 - share[node_of[instance.slot_device] == node]))
        else:
            arriving = visits[mates].sum()
        arriving *= (devices - len(mates)) / devices
        weight = visits[mates] / visits[mates].sum() if visits[mates].sum() > 0 else np.zeros(len(mates))
        if instance.timing.deduplicate == "node":
            weight = np.full(len(mates), 1 / len(mates))
        inter_in[mates] += arriving * weight
        inter_out[node_of != node] += arriving / (devices - len(mates))
    return (intra_in, intra_out), (inter_in, inter_out)


def path_traffic(instance: ExpertPlacementInstance, counts: np.ndarray[Any, Any], placement: I32, layer: int) -> F64:
    """Return (D, D) tokens per forward pass that go from a device in ``layer - 1`` to one in ``layer``."""
    assert instance.transitions is not None
    shares = []
    for row in (placement[layer - 1], placement[layer]):
        held = np.zeros((instance.experts, instance.devices))
        np.add.at(held, (row, instance.slot_device), 1.0)
        shares.append(held / np.maximum(held.sum(axis=1, keepdims=True), 1))
    # Every token takes one path: that of the first of its experts.
    flow = counts[layer - 1, :, None] / instance.iterations / instance.model.top_k * instance.transitions[layer - 1]
    matrix: F64 = shares[0].T @ flow @ shares[1]
    return matrix


def _split(instance: ExpertPlacementInstance, matrix: F64) -> tuple[tuple[F64, F64], tuple[F64, F64]]:
    node_of = instance.cluster.node_of
    same = node_of[:, None] == node_of[None, :]
    inside = np.where(same & ~np.eye(len(node_of), dtype=bool), matrix, 0.0)
    outside = np.where(same, 0.0, matrix)
    return (inside.sum(axis=0), inside.sum(axis=1)), (outside.sum(axis=0), outside.sum(axis=1))


def _exchange_s(
    instance: ExpertPlacementInstance, phase: AllToAll, intra: tuple[F64, F64], inter: tuple[F64, F64]
) -> float:
    """Return seconds of an all-to-all: the slower of both networks, each its latency and its busiest device."""
    longest, token_bytes = 0.0, instance.model.hidden * phase.bytes_per_value
    intra_rate = instance.cluster.per_device(lambda node: node.intra.bandwidth_bytes_per_s)
    inter_rate = instance.cluster.per_device(lambda node: node.inter.bandwidth_bytes_per_s)
    for volumes, rate, latency, efficiency in (
        (intra, intra_rate, phase.intra_latency_s, phase.intra_efficiency),
        (inter, inter_rate, phase.inter_latency_s, phase.inter_efficiency),
    ):
        busiest = max(float((volume / rate).max()) for volume in volumes)
        if busiest > 0:
            longest = max(longest, latency + busiest * token_bytes / efficiency)
    return longest


def migration_times(instance: ExpertPlacementInstance, old: I32, new: I32) -> tuple[float, float]:
    """Return seconds and bytes of changing one placement (L, P) into another.

    Layers change one after the other. A device fetches each expert that it did not hold, from the holder of its node
    that has sent least so far in this layer, or from such a holder in another node; experts in order of device, then
    slot, ties to the lower device. A layer takes a synchronisation and the busiest device's transfers: both networks
    work at once, and both directions.
    """
    cluster, size = instance.cluster, instance.model.expert_bytes
    total_s, total_bytes = 0.0, 0.0
    node_of, device_of = cluster.node_of, instance.slot_device.tolist()
    rates = [
        cluster.per_device(lambda node: node.intra.bandwidth_bytes_per_s),
        cluster.per_device(lambda node: node.inter.bandwidth_bytes_per_s),
    ]
    for before, after in zip(old.tolist(), new.tolist(), strict=True):
        holders: dict[int, set[int]] = {}
        for expert, device in zip(before, device_of, strict=True):
            holders.setdefault(expert, set()).add(device)
        received, sent = np.zeros((2, instance.devices)), np.zeros((2, instance.devices))
        fetched: set[tuple[int, int]] = set()
        for expert, device in zip(after, device_of, strict=True):
            if device in holders[expert] or (expert, device) in fetched:
                continue
            fetched.add((expert, device))
            near = [d for d in sorted(holders[expert]) if node_of[d] == node_of[device]]
            network = 0 if near else 1
            source = min(near or sorted(holders[expert]), key=lambda d: sent[network, d])
            received[network, device] += size
            sent[network, source] += size
        if fetched:
            busiest = max(float((volume[k] / rates[k]).max()) for volume in (received, sent) for k in (0, 1))
            total_s += instance.timing.migration_sync_s + busiest
            total_bytes += len(fetched) * size
    return total_s, total_bytes
