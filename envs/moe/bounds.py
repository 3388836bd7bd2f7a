"""Lower bounds on the total time of expert placement, and on the largest device load of one placement.

A layer's bound is the overhead, the least time in which the devices do the experts' work, and the least time of its
exchanges; windows and layers add up because each part holds for every placement. Migration is bounded by nothing: a
plan need not change. What tokens on paths have to send is in ``traffic_bound``.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from schedrl.arrays import F64, I32
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.traffic_bound import path_exchange_bound_s
from schedrl.families import Bound

__all__ = ["bounds", "exchange_bound_s", "heaviest_replica", "load_bound", "work_bound_s"]

# Rounding may lift a sum of exact bounds above the time of a plan that attains them.
_ROUNDING = 1.0 - 1e-12
_HALVINGS = 60


def bounds(instance: ExpertPlacementInstance) -> list[Bound]:
    """Return lower bounds on the total time in seconds, largest first."""
    loads = (instance.scored / instance.iterations).reshape(-1, instance.experts)  # (T * L, E) tokens per pass
    work = len(loads) * instance.timing.expert_overhead_s + float(work_bound_s(instance, loads).sum())
    if instance.timing.residence == "home":
        exchange = float(exchange_bound_s(instance, loads).sum())
    else:
        exchange = float(path_exchange_bound_s(instance).sum())
    scale = instance.iterations * _ROUNDING
    return [
        Bound(
            name="work and traffic",
            value=scale * (work + exchange),
            why="per layer, the work bound and the least time of exchanges with traffic spread in proportion to "
            "bandwidths",
        ),
        Bound(
            name="work",
            value=scale * work,
            why="per layer, tokens and weights spread over the devices in proportion to their speeds, or the heaviest "
            "replica at the best numbers of replicas alone on the fastest device",
        ),
    ]


def load_bound(loads: F64, slots: int, devices: int) -> F64:
    """Return (L,) lower bounds on the largest device load: the mean over devices, or the heaviest replica.

    Args:
        loads: (L, E) tokens of each expert.
        slots: slots per layer on all devices together, at least E.
        devices: number of devices D.

    Without spare slots and with as many on each device, the heaviest k experts are on some j devices, which also hold
    other experts: no lighter ones than the lightest of all. Their mean is a bound, for every k and the best j.
    """
    found = np.maximum(loads.sum(axis=1) / devices, heaviest_replica(loads, slots))
    if slots == loads.shape[1] and slots % devices == 0:
        ordered = -np.sort(-np.asarray(loads, dtype=np.float64), axis=1)
        found = np.maximum(found, _crowded(ordered, slots // devices))
    return np.asarray(found, dtype=np.float64)


@njit(cache=True)
def _crowded(ordered: F64, each: int) -> F64:
    """Return (L,) the bound by the heaviest experts' devices, of loads (L, E) by falling load, ``each`` per device."""
    rows, experts = ordered.shape
    devices, found = experts // each, np.zeros(rows)
    lightest = np.zeros(experts + 1)
    for row in range(rows):
        for n in range(experts):
            lightest[n + 1] = lightest[n] + ordered[row, experts - 1 - n]
        heavy = 0.0
        for k in range(1, experts + 1):
            heavy += ordered[row, k - 1]
            least = np.inf
            for j in range((k + each - 1) // each, min(k, devices) + 1):
                least = min(least, (heavy + lightest[j * each - k]) / j)
            found[row] = max(found[row], least)
    return found


def heaviest_replica(loads: F64, slots: int) -> F64:
    """Return (R,) the least possible tokens of the heaviest replica, all (R, E) loads shared by ``slots`` replicas.

    Giving each spare slot to the expert with the heaviest replicas is optimal: below its result, every expert would
    need at least the replicas it got before its last one, and one of them one more.
    """
    heaviest: F64 = _heaviest_replica(np.ascontiguousarray(loads, dtype=np.float64), slots)
    return heaviest


@njit(cache=True)
def _heaviest_replica(loads: F64, slots: int) -> F64:
    rows, experts = loads.shape
    heaviest = np.empty(rows)
    replicas = np.empty(experts, dtype=np.int64)
    shares = np.empty(experts)
    for row in range(rows):
        replicas[:] = 1
        shares[:] = loads[row]
        top = shares.argmax()
        for _ in range(slots - experts):
            replicas[top] += 1
            shares[top] = loads[row, top] / replicas[top]
            top = shares.argmax()
        heaviest[row] = shares[top]
    return heaviest


def work_bound_s(instance: ExpertPlacementInstance, loads: F64) -> F64:
    """Return (R,) lower bounds on the seconds of the busiest device with the experts of each row of (R, E) ``loads``.

    A replica with ``t > 0`` tokens on device d takes ``max(a_d t, w_d)`` (computing, reading its weights). Three
    arguments, of which the strongest counts:

    - For weights ``x_d >= 0`` of sum 1, the busiest device takes at least the weighted mean of all. An expert's part
      in it is least as one replica at its cheapest device: a c-th of its load takes at least a c-th of the time.
      Weights in proportion to ``1 / a`` and to ``1 / w`` give at least the mean of tokens and the mean of weights.
    - Some replica has at least the load of ``heaviest_replica``, on some device.
    - Where every expert has load, every slot of every device is read.
    """
    compute, read = device_costs(instance)
    kinds, number = np.unique(np.stack([compute, read]), axis=1, return_counts=True)  # (2, K) unlike devices
    seconds = [np.maximum(a * loads, w) for a, w in kinds.T]
    active = loads > 0
    heaviest = heaviest_replica(loads, instance.total_slots)
    found = np.min([np.maximum(a * heaviest, w) for a, w in kinds.T], axis=0) * active.any(axis=1)
    for weights in 1 / kinds:
        cheapest = np.min([weight * taken for weight, taken in zip(weights, seconds, strict=True)], axis=0)
        found = np.maximum(found, (cheapest * active).sum(axis=1) / (number @ weights))
    full = float((instance.slots * read).max())
    return np.asarray(np.where(active.all(axis=1), np.maximum(found, full), found), dtype=np.float64)


def device_costs(instance: ExpertPlacementInstance) -> tuple[F64, F64]:
    """Return seconds per token and seconds to read an expert's weights of each device, (D,) both."""
    model, nodes = instance.model, instance.cluster.nodes
    precisions = ("fp8", "int8", "bf16", "fp16") if model.bytes_per_weight <= 1.0 else ("bf16", "fp16")
    compute, read = np.empty(len(nodes)), np.empty(len(nodes))
    for k, node in enumerate(nodes):
        rates, bandwidth = node.device.flops_per_s, node.device.memory_bandwidth_bytes_per_s
        rate = next(rates[precision] for precision in precisions if precision in rates)
        assert bandwidth is not None
        compute[k] = model.expert_flops_per_token / (node.device.mfu * rate)
        read[k] = model.expert_bytes / (node.device.mbu * bandwidth)
    node_of = instance.cluster.node_of
    return compute[node_of], read[node_of]


def exchange_bound_s(instance: ExpertPlacementInstance, loads: F64) -> F64:
    """Return (R,) lower bounds on dispatch and combine of a layer whose tokens live evenly on all devices.

    Every network's busiest device has at least what ``_least_load`` returns. Its latency counts where traffic cannot
    be avoided: between nodes as soon as there are two, inside nodes if none of them has a single device.
    """
    timing, hidden = instance.timing, instance.model.hidden
    intra, inter = _least_seconds_per_byte(instance, loads)
    found = np.zeros(len(loads))
    for phase in (timing.dispatch, timing.combine):
        size = hidden * phase.bytes_per_value
        found += np.maximum(
            _with_latency(intra * size, phase.intra_latency_s, phase.intra_efficiency),
            _with_latency(inter * size, phase.inter_latency_s, phase.inter_efficiency),
        )
    return found


def _with_latency(seconds: F64, latency_s: float, efficiency: float) -> F64:
    return np.asarray(np.where(seconds > 0, latency_s + seconds / efficiency, 0.0), dtype=np.float64)


def _least_seconds_per_byte(instance: ExpertPlacementInstance, loads: F64) -> tuple[F64, F64]:
    """Return (R,) least busiest tokens per bandwidth, inside nodes and between nodes."""
    nodes, devices, once = instance.cluster.nodes, instance.devices, instance.timing.deduplicate
    mates = np.array([node.count for node in nodes], dtype=np.float64)  # (N,)
    intra_rate = np.array([node.intra.bandwidth_bytes_per_s for node in nodes])
    inter_rate = np.array([node.inter.bandwidth_bytes_per_s for node in nodes])
    # Seconds per byte that a token which visits a device costs that device's links, for a byte per token.
    inside = (1.0 - 1.0 / mates if once == "node" else (mates - 1.0) / devices) / intra_rate
    outside = (devices - mates) / devices / inter_rate
    of_device = instance.cluster.node_of
    total = loads.sum(axis=1) / instance.model.top_k
    heaviest = np.minimum(heaviest_replica(loads, instance.total_slots), total if once != "none" else np.inf)
    if once == "none":
        volume = loads.sum(axis=1)
        spread = volume / (mates / inside).sum() if inside.min() > 0 else np.zeros(len(loads))
        between = volume * _between_nodes(mates, devices, inter_rate)
        return np.maximum(spread, heaviest * inside.min()), np.maximum(between, heaviest * outside.min())
    shares = np.minimum(loads, total[:, None]).sum(axis=1) / np.where(total > 0, total, 1.0)
    intra = total * _visits_bound(shares, inside[of_device], instance.slots)
    if once == "device":
        inter = total * _visits_bound(shares, outside[of_device], instance.slots)
    else:
        outside /= mates
        node_slots = np.bincount(of_device, weights=instance.slots, minlength=len(nodes))
        inter = total * _visits_bound(shares, outside, node_slots.astype(np.int32))
    return np.maximum(intra, heaviest * inside.min()), np.maximum(inter, heaviest * outside.min())


def _between_nodes(mates: F64, devices: int, rate: F64) -> float:
    """Return the least seconds per byte of the busiest link between nodes, for a volume of 1 to all devices.

    With ``V`` of the volume to a node of m devices, each of them receives ``V (D - m) / (D m)`` at best and sends
    ``(1 - V) / D``. A time c bounds V from above by the first and from below by the second; it is possible only if the
    bounds do not cross and 1 is between their sums, which holds from some c on.
    """
    if len(mates) == 1:
        return 0.0
    low, high = 0.0, 1.0 / float(rate.min())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        most = middle * rate * devices * mates / (devices - mates)
        least = np.maximum(0.0, 1.0 - middle * rate * devices)
        if (least <= most).all() and least.sum() <= 1.0 <= most.sum():
            high = middle
        else:
            low = middle
    return low


def _visits_bound(shares: F64, cost: F64, slots: I32) -> F64:
    """Return (R,) the least largest ``cost_d x visits_d``, visits as shares of the tokens that need place d.

    Of shares that sum to s, in n slots of a place, independent choices give ``1 - (1 - s / n) ** n`` visits at least
    (the mean inequality, all in a row being equal). A largest value c therefore limits every place's s, and what the
    places can hold together must reach ``shares``, (R,) summed over experts.
    """
    if cost.min() <= 0:
        return np.zeros(len(shares))
    kinds, number = np.unique(np.stack([cost, slots.astype(np.float64)]), axis=1, return_counts=True)
    low, high = np.zeros(len(shares)), np.full(len(shares), float(cost.max()))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        room = np.zeros(len(shares))
        for (price, size), count in zip(kinds.T, number, strict=True):
            missed = 1.0 - np.minimum(middle / price, 1.0)
            room += count * size * (1.0 - missed ** (1.0 / size))
        enough = room >= shares
        high, low = np.where(enough, middle, high), np.where(enough, low, middle)
    return low
