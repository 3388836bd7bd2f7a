"""How much tokens must travel that stay where their expert is (ExFlow, arXiv 2401.08383): bounds for every placement.

Let ``a[e, d]`` be the share of expert e's tokens that device d serves in a layer, ``b`` likewise in the next one. Of
the tokens that go from e to f, ``s[e, f] = sum_d a[e, d] b[f, d]`` stay on their device. A device with S slots has
``sum_f b[f, d] <= S``, so that ``sum_f s[e, f] <= S``, and likewise over e; and ``s <= 1``. The most that can stay
under these rules is a linear program over a bipartite graph. It holds with replicas, and for nodes with their slots.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schedrl.arrays import F64
from schedrl.envs.moe.instance import ExpertPlacementInstance

__all__ = ["crossing_bound", "crossing_bounds", "path_exchange_bound_s"]

# Entries of all flows for which ``path_exchange_bound_s`` solves linear programs of its own accord: about a second.
_MOST_ENTRIES = 40_000
# Rounding may lift a bound above what a placement that attains it has to send.
_ROUNDING = 1e-12


def crossing_bound(flow: F64, slots: int) -> float:
    """Return the fewest tokens that change their device (or node), by the linear program of this module.

    Args:
        flow: (E, E) tokens that go from an expert to one of the next layer.
        slots: slots per layer of a device, or of a node; the largest where they differ.

    Raises:
        ValueError: the solver gave up.
    """
    # Heavy to import, and not needed for instances whose tokens return home.
    from scipy.optimize import linprog
    from scipy.sparse import csr_array

    experts, total = len(flow), float(flow.sum())
    if slots >= experts or total <= 0:
        return 0.0
    ones, of = np.ones(experts * experts), np.arange(experts * experts)
    rows = np.concatenate([of // experts, experts + of % experts])
    limits = csr_array((np.concatenate([ones, ones]), (rows, np.concatenate([of, of]))))
    share = flow / total
    found: Any = linprog(-share.ravel(), A_ub=limits, b_ub=np.full(2 * experts, slots), bounds=(0, 1))
    if found.status != 0:
        raise ValueError(f"linear program of crossing tokens: {found.message}")
    # Prices of the rows bound what can stay by weak duality, whatever the solver's tolerance.
    price = np.maximum(-found.ineqlin.marginals, 0.0)
    kept = slots * price.sum() + np.maximum(share - price[:experts, None] - price[None, experts:], 0.0).sum()
    return max(0.0, 1.0 - float(kept) - _ROUNDING) * total


def crossing_bounds(instance: ExpertPlacementInstance, *, linear_program: bool = True) -> tuple[F64, F64]:
    """Return (T, L - 1) bounds on tokens per forward pass that change their device, and their node.

    Without the linear program, an expert keeps at most its most frequent followers, as many as a device has slots.

    Raises:
        ValueError: the instance has no transitions, or the solver gave up.
    """
    if instance.transitions is None:
        raise ValueError(f"{instance.name}: no transitions, expected them to bound the traffic on paths")
    tokens = instance.scored[:, :-1] / instance.iterations / instance.model.top_k  # (T, L - 1, E)
    node_slots = np.bincount(instance.cluster.node_of, weights=instance.slots)
    found = []
    for slots in (int(instance.slots.max()), int(node_slots.max())):
        if slots >= instance.experts:
            found.append(np.zeros(tokens.shape[:2]))
        elif linear_program:
            flows = tokens[..., None] * instance.transitions
            found.append(np.array([[crossing_bound(flow, slots) for flow in window] for window in flows]))
        else:
            lost = np.sort(instance.transitions, axis=2)[:, :, :-slots].sum(axis=2)
            found.append(np.maximum((tokens * lost).sum(axis=2) - _ROUNDING * tokens.sum(axis=2), 0.0))
    shape = tokens.shape[:2]
    return found[0].reshape(shape), found[1].reshape(shape)


def path_exchange_bound_s(instance: ExpertPlacementInstance) -> F64:
    """Return (T, L) lower bounds on the seconds of each layer's exchange while tokens stay on their path.

    Crossing tokens fill both networks of all devices for as long as the exchange lasts after its latencies; those
    that leave their node have to fit through the one between nodes. Small instances use the linear program.
    """
    transitions = instance.transitions
    assert transitions is not None
    entries = transitions.size * len(instance.scored)
    crossing, leaving = crossing_bounds(instance, linear_program=entries <= _MOST_ENTRIES)
    phase, cluster = instance.timing.dispatch, instance.cluster
    size = instance.model.hidden * phase.bytes_per_value
    mates = np.array([node.count for node in cluster.nodes])[cluster.node_of]
    intra = cluster.per_device(lambda node: node.intra.bandwidth_bytes_per_s)[mates > 1].sum()
    inter = cluster.per_device(lambda node: node.inter.bandwidth_bytes_per_s).sum() if len(cluster.nodes) > 1 else 0.0
    networks = sorted(
        (latency, efficiency * rate / size)
        for latency, efficiency, rate in (
            (phase.intra_latency_s, phase.intra_efficiency, intra),
            (phase.inter_latency_s, phase.inter_efficiency, inter),
        )
        if rate > 0
    )
    seconds = np.zeros((len(instance.scored), instance.layers))
    if not networks:
        return seconds
    latencies, rates = np.array(networks).T
    # With one network, or with the first alone until the second has started, or with both from then on.
    alone, both = latencies[0] + crossing / rates[0], (crossing + latencies @ rates) / rates.sum()
    least = alone if len(rates) == 1 else np.where(alone <= latencies[1], alone, both)
    seconds[:, 1:] = np.where(crossing > 0, least, 0.0)
    if inter > 0:
        through = phase.inter_latency_s + leaving * size / (phase.inter_efficiency * inter)
        seconds[:, 1:] = np.maximum(seconds[:, 1:], np.where(leaving > 0, through, 0.0))
    return seconds
