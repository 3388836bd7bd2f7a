"""The time model in compiled form: seconds of one layer, and of changing one layer's placement, for rows of a batch.

``solution`` says in words and plain numpy what these kernels compute; the two share no code, and tests compare them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from schedrl.arrays import F64, I32, Bool
from schedrl.envs.moe.balancing import holds as holds_expert
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.timing import AllToAll
from schedrl.kernel_arguments import by_reference
from schedrl.kernels import inner, kernel

__all__ = [
    "SCRATCH_ROWS",
    "Hardware",
    "allocate_hardware",
    "home_layer_s",
    "migration_layer_s",
    "slot_tokens",
    "write_hardware",
]

SCRATCH_ROWS = 7
_DEDUPLICATION = {"none": 0, "device": 1, "node": 2}


@by_reference
class Hardware(NamedTuple):
    """What the time model needs to know of each row's cluster and model."""

    devices: I32  # (B,)
    nodes: I32  # (B,)
    node: I32  # (B, D) node of each device
    mates: I32  # (B, D) number of devices in the node of each device
    token_s: F64  # (B, D) seconds of one token in one expert
    weight_s: F64  # (B, D) seconds to read one expert's weights
    intra_s: F64  # (B, 2, D) seconds per token inside the node, in dispatch and combine
    inter_s: F64  # (B, 2, D) the same between nodes
    intra_latency_s: F64  # (B, 2)
    inter_latency_s: F64  # (B, 2)
    overhead_s: F64  # (B,)
    deduplicate: I32  # (B,) 0 none, 1 by device, 2 by node
    intra_move_s: F64  # (B, D) seconds to move one expert inside the node
    inter_move_s: F64  # (B, D) seconds to move one expert between nodes
    sync_s: F64  # (B,)
    top_k: I32  # (B,)


def allocate_hardware(batch: int, devices: int) -> Hardware:
    """Return zeroed arrays for up to ``devices`` devices per row."""
    kinds = {name: np.int32 for name in ("devices", "nodes", "node", "mates", "deduplicate", "top_k")}
    shapes = {name: (batch,) for name in ("devices", "nodes", "overhead_s", "deduplicate", "sync_s", "top_k")}
    wide: dict[str, tuple[int, ...]] = {"intra_s": (batch, 2, devices), "inter_s": (batch, 2, devices)}
    wide |= {"intra_latency_s": (batch, 2), "inter_latency_s": (batch, 2)}
    return Hardware(
        **{
            name: np.zeros(shapes.get(name) or wide.get(name) or (batch, devices), dtype=kinds.get(name, np.float64))
            for name in Hardware._fields
        }
    )


def write_hardware(hardware: Hardware, row: int, instance: ExpertPlacementInstance) -> None:
    """Fill one row from an instance."""
    cluster, model, timing = instance.cluster, instance.model, instance.timing
    count, node_of = cluster.devices, cluster.node_of
    hardware.devices[row], hardware.nodes[row] = count, len(cluster.nodes)
    hardware.node[row, :count] = node_of
    hardware.mates[row, :count] = np.bincount(node_of)[node_of]
    eight_bit = model.bytes_per_weight <= 1.0
    for device, node in enumerate(node_of):
        unit = cluster.nodes[node].device
        # Eight-bit weights compute at the eight-bit rate where the device has one.
        order = ("fp8", "int8", "bf16", "fp16") if eight_bit else ("bf16", "fp16")
        rate = next(unit.flops_per_s[precision] for precision in order if precision in unit.flops_per_s)
        hardware.token_s[row, device] = model.expert_flops_per_token / (unit.mfu * rate)
        assert unit.memory_bandwidth_bytes_per_s is not None
        hardware.weight_s[row, device] = model.expert_bytes / (unit.mbu * unit.memory_bandwidth_bytes_per_s)
    intra = cluster.per_device(lambda node: node.intra.bandwidth_bytes_per_s)
    inter = cluster.per_device(lambda node: node.inter.bandwidth_bytes_per_s)
    for phase, exchange in enumerate((timing.dispatch, timing.combine)):
        _write_exchange(hardware, row, phase, exchange, model.hidden / intra, model.hidden / inter)
    hardware.overhead_s[row], hardware.sync_s[row] = timing.expert_overhead_s, timing.migration_sync_s
    hardware.deduplicate[row], hardware.top_k[row] = _DEDUPLICATION[timing.deduplicate], model.top_k
    hardware.intra_move_s[row, :count] = model.expert_bytes / intra
    hardware.inter_move_s[row, :count] = model.expert_bytes / inter


def _write_exchange(hardware: Hardware, row: int, phase: int, exchange: AllToAll, intra: F64, inter: F64) -> None:
    """Write one phase's figures, given seconds per byte and value of a token on each device's networks."""
    count = len(intra)
    hardware.intra_s[row, phase, :count] = intra * exchange.bytes_per_value / exchange.intra_efficiency
    hardware.inter_s[row, phase, :count] = inter * exchange.bytes_per_value / exchange.inter_efficiency
    hardware.intra_latency_s[row, phase] = exchange.intra_latency_s
    hardware.inter_latency_s[row, phase] = exchange.inter_latency_s


@kernel
def slot_tokens(loads: F64, placement: I32, slots: int, replicas: I32, tokens: F64) -> float:
    """Write tokens per forward pass of every slot, and return those of all experts.

    Args:
        loads: (E,) tokens of each expert per forward pass.
        placement: (P,) expert of each slot; the first ``slots`` count.
        slots: number of slots.
        replicas: (E,) scratch.
        tokens: (P,) out.
    """
    replicas[:] = 0
    for p in range(slots):
        replicas[placement[p]] += 1
    for p in range(slots):
        tokens[p] = loads[placement[p]] / replicas[placement[p]]
    total = 0.0
    for expert in range(len(loads)):
        total += loads[expert]
    return total


@kernel
def home_layer_s(hw: Hardware, b: int, tokens: F64, device: I32, slots: int, total: float, scratch: F64) -> float:
    """Return the seconds of dispatch, experts and combine of one layer where tokens return home.

    Args:
        hw: the rows' clusters.
        b: the row.
        tokens: (P,) tokens per forward pass of each slot.
        device: (P,) device of each slot.
        slots: number of slots.
        total: tokens of all experts of the layer, before dividing by top-k.
        scratch: (SCRATCH_ROWS, D), overwritten; row 0 holds the busy seconds of every device afterwards.
    """
    count, distinct = hw.devices[b], total / hw.top_k[b]
    busy, visits, kept = scratch[0], scratch[1], scratch[2]
    for d in range(count):
        busy[d], visits[d], kept[d] = 0.0, 0.0, 1.0
    for p in range(slots):
        d, load = device[p], tokens[p]
        if load > 0.0:
            busy[d] += max(load * hw.token_s[b, d], hw.weight_s[b, d])
            visits[d] += load
            kept[d] *= 1.0 - min(load / distinct, 1.0)
    longest = 0.0
    for d in range(count):
        longest = max(longest, busy[d])
        if hw.deduplicate[b] > 0:
            visits[d] = distinct * (1.0 - kept[d])
    seconds: float = longest + hw.overhead_s[b] + _exchanges_s(hw, b, distinct, scratch)
    return seconds


@inner
def _exchanges_s(hw: Hardware, b: int, distinct: float, scratch: F64) -> float:
    """Return the seconds of dispatch and combine; volumes are the same in both, with directions swapped."""
    count, by_node = hw.devices[b], hw.deduplicate[b] == 2
    visits, kept, local, gathered, arriving, leaving = (
        scratch[1], scratch[2], scratch[3], scratch[4], scratch[5], scratch[6]
    )  # fmt: skip
    for node in range(hw.nodes[b]):
        gathered[node], arriving[node], leaving[node] = 0.0, 0.0, 1.0
    for d in range(count):
        node, mates = hw.node[b, d], hw.mates[b, d]
        sources = count if by_node else mates
        local[d] = visits[d] * (sources - sources / mates) / count
        gathered[node] += local[d]
        arriving[node] += visits[d]
        leaving[node] *= kept[d]
    if by_node:
        for node in range(hw.nodes[b]):
            arriving[node] = distinct * (1.0 - leaving[node])
    total_leaving = 0.0
    for d in range(count):
        # Every device counts its share of what arrives at its node, so that the sum is over nodes.
        node, mates = hw.node[b, d], hw.mates[b, d]
        if mates < count:
            total_leaving += arriving[node] / count / mates
    seconds = 0.0
    for phase in range(2):
        intra, inter = 0.0, 0.0
        for d in range(count):
            node, mates = hw.node[b, d], hw.mates[b, d]
            volume = local[d]
            if mates > 1:
                volume = max(volume, (gathered[node] - local[d]) / (mates - 1))
            intra = max(intra, volume * hw.intra_s[b, phase, d])
            if mates < count:
                outside = (count - mates) / count
                into = arriving[node] / mates if by_node else visits[d]
                out = total_leaving - arriving[node] / count
                inter = max(inter, max(into * outside, out) * hw.inter_s[b, phase, d])
        longest = 0.0
        if intra > 0.0:
            longest = hw.intra_latency_s[b, phase] + intra
        if inter > 0.0:
            longest = max(longest, hw.inter_latency_s[b, phase] + inter)
        seconds += longest
    return seconds


@kernel
def migration_layer_s(
    hw: Hardware, b: int, old: I32, new: I32, device: I32, slots: int, holds: Bool, scratch: F64
) -> float:
    """Return the seconds of changing one layer's placement; 0 when no device needs an expert that it lacks.

    Args:
        hw: the rows' clusters.
        b: the row.
        old: (P,) expert of each slot before.
        new: (P,) expert of each slot after.
        device: (P,) device of each slot, ascending.
        slots: number of slots.
        holds: (E, D) scratch, false before and after the call.
        scratch: (SCRATCH_ROWS, D), overwritten; ``scratch[4, 0]`` holds the number of experts moved afterwards.
    """
    count = hw.devices[b]
    for k in range(4):
        for d in range(count):
            scratch[k, d] = 0.0
    for p in range(slots):
        holds[old[p], device[p]] = True
    moved, longest = 0, 0.0
    first = 0
    for p in range(slots):
        if p > 0 and device[p] != device[p - 1]:
            first = p
        if holds[new[p], device[p]] or holds_expert(new[p], first, p, new):
            continue
        moved += 1
        d, expert, source, network = device[p], new[p], -1, 1
        for other in range(count):
            if holds[expert, other]:
                near = 0 if hw.node[b, other] == hw.node[b, d] else 1
                if source < 0 or near < network or (near == network and scratch[near, other] < scratch[near, source]):
                    source, network = other, near
        scratch[network, source] += 1.0
        scratch[2 + network, d] += 1.0
    for p in range(slots):
        holds[old[p], device[p]] = False
    for d in range(count):
        longest = max(longest, max(scratch[0, d], scratch[2, d]) * hw.intra_move_s[b, d])
        longest = max(longest, max(scratch[1, d], scratch[3, d]) * hw.inter_move_s[b, d])
    scratch[4, 0] = float(moved)
    return longest + hw.sync_s[b] if moved > 0 else 0.0
