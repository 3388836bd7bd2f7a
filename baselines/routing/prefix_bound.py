"""A lower bound on the makespan of any assignment of requests to instances, prefixes in unlimited caches.

Each block of prompts is computed at least once on every instance that gets one of its requests; the rest of a prompt
and the answer are computed where the request goes. A mixed-integer program (HiGHS) spreads both; beyond ``MOST_EXACT``
requests its linear relaxation bounds as well, only lower. The program is the reference's C7(a), in seconds per block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from schedrl.arrays import F64, I64
from schedrl.devices import serving_time as columns
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.least_times import costs_of
from schedrl.errors import ConfigError, InstanceError

__all__ = ["MOST_EXACT", "PrefixBound", "prefix_bound"]

MOST_EXACT = 150
"""requests up to which assignments are integers"""
_ROUNDING = 1.0 - 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixBound:
    """What no plan can undercut without moving requests between instances."""

    busy_s: float
    """seconds in which the busiest instance computes, at least"""
    makespan_s: float
    """time of the last token, at least"""
    integral: bool
    """whether requests were assigned whole"""


@dataclass(frozen=True, slots=True)
class _Costs:
    own: F64  # (R, I) seconds of what requests compute whatever is cached, inf where they do not fit
    shared: F64  # (G, I) seconds of groups of blocks
    group: I64  # (E,) pairs of a group of blocks and a request that has them
    request: I64  # (E,)


def prefix_bound(instance: RoutingInstance, *, time_limit_s: float = 60.0, integral: bool | None = None) -> PrefixBound:
    """Return a lower bound on the busiest instance's time and on the makespan.

    Plans that move requests between instances are not bounded: keys and values that come along need no computing.

    Args:
        instance: Requests and a fleet of mixed instances.
        time_limit_s: Of the solver; what it has proven by then counts.
        integral: Whether requests are assigned whole; None does so up to ``MOST_EXACT`` requests.

    Raises:
        InstanceError: prompts and answers are computed on different instances.
        ConfigError: no positive time limit.
    """
    if any(serving.role != "mixed" for serving in instance.fleet):
        raise InstanceError(f"routing instance {instance.name}: field fleet: expected mixed instances alone")
    if not 0.0 < time_limit_s < math.inf:
        raise ConfigError(f"time_limit_s: {time_limit_s!r}, expected a positive number")
    if any(math.isfinite(serving.retire_s) for serving in instance.fleet):
        # Requests that come too late are refused and need no time.
        return PrefixBound(busy_s=0.0, makespan_s=0.0, integral=False)
    whole = instance.requests <= MOST_EXACT if integral is None else integral
    busy = _ROUNDING * _solve(_costs(instance), whole, time_limit_s)
    starts = min(serving.ready_s for serving in instance.fleet)
    begin = max(float(instance.arrival_s[0]), starts)
    return PrefixBound(busy_s=busy, makespan_s=begin + busy, integral=whole)


def _costs(instance: RoutingInstance) -> _Costs:
    size, requests = instance.block_tokens, instance.requests
    prompt, steps = instance.prompt_tokens.astype(np.float64), instance.output_tokens - 1.0
    listed = np.minimum(np.diff(instance.block_start), (instance.prompt_tokens.astype(np.int64) - 1) // size)
    owner = np.repeat(np.arange(requests), listed)
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(listed) - listed, listed)
    block = instance.blocks[instance.block_start[owner] + rank]
    # Blocks that are part of an answer are computed with it.
    counts = np.diff(instance.block_start)
    every = np.arange(len(instance.blocks)) - np.repeat(instance.block_start[:-1], counts)
    answered = np.unique(instance.blocks[every >= np.repeat(listed, counts)])
    keep = ~np.isin(block, answered)
    group, request, members = _groups(block[keep], owner[keep], rank[keep])
    own = np.full((requests, len(instance.fleet)), np.inf)
    shared = np.zeros((len(members), len(instance.fleet)))
    tail, begin = prompt - listed * size, (listed * size).astype(np.float64)
    for i, costs in enumerate(costs_of(instance)):
        pair, context = costs.row[columns.PAIR], costs.row[columns.CONTEXT]
        seconds = costs.token_s * (tail + steps) + pair * tail * (begin + 0.5 * tail)
        # Keys and values are read once for the prompt and once for each further token, k tokens further on.
        read = steps * prompt + 0.5 * steps * (steps + 1.0)
        seconds = seconds + context * (prompt + read) + pair * (read - 0.5 * steps)
        own[:, i] = np.where(instance.fits[:, i], seconds, np.inf)
        shared[:, i] = [costs.token_s * size * n + pair * size * size * depths for n, depths in members]
    return _Costs(own, shared, group, request)


def _groups(block: I64, owner: I64, rank: I64) -> tuple[I64, I64, list[tuple[int, float]]]:
    """Join blocks that the same requests have.

    Returns:
        Groups and requests of pairs (E,) each, and per group the number of its blocks and the sum of their places in
        prompts, counted from the middle of the first.
    """
    found: dict[int, list[int]] = {}
    place: dict[int, int] = {}
    for u, r, k in zip(block.tolist(), owner.tolist(), rank.tolist(), strict=True):
        found.setdefault(u, []).append(r)
        place[u] = min(place.get(u, k), k)
    numbers: dict[tuple[int, ...], int] = {}
    members: list[tuple[int, float]] = []
    for u, requests in found.items():
        key = tuple(sorted(set(requests)))
        number = numbers.setdefault(key, len(numbers))
        if number == len(members):
            members.append((0, 0.0))
        count, depths = members[number]
        members[number] = (count + 1, depths + place[u] + 0.5)
    pairs = [(number, r) for key, number in numbers.items() for r in key]
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1], members


def _solve(costs: _Costs, integral: bool, time_limit_s: float) -> float:
    """Return a lower bound on the busiest instance's seconds.

    Variables: whether request r is on instance i (R I), whether group g is there (G I), and the busiest time.
    """
    requests, fleet = costs.own.shape
    groups, pairs = len(costs.shared), len(costs.group)
    x, z = requests * fleet, groups * fleet
    able = np.isfinite(costs.own)
    scale = float(np.where(able, costs.own, 0.0).max() + costs.shared.max(initial=0.0)) or 1.0
    own, shared = np.where(able, costs.own, 0.0) / scale, costs.shared / scale
    r, i = np.divmod(np.arange(x), fleet)
    j = np.arange(z) % fleet
    k, where = np.divmod(np.arange(pairs * fleet), fleet)
    assigned = _matrix((np.ones(x), r, np.arange(x)), (requests, x + z + 1))
    present = _matrix(
        (np.ones(pairs * fleet), np.arange(pairs * fleet), x + costs.group[k] * fleet + where),
        (pairs * fleet, x + z + 1),
    ) - _matrix(
        (np.ones(pairs * fleet), np.arange(pairs * fleet), costs.request[k] * fleet + where),
        (pairs * fleet, x + z + 1),
    )
    load = _matrix(
        (
            np.concatenate([-own.ravel(), -shared.ravel(), np.ones(fleet)]),
            np.concatenate([i, j, np.arange(fleet)]),
            np.concatenate([np.arange(x), x + np.arange(z), np.full(fleet, x + z)]),
        ),
        (fleet, x + z + 1),
    )
    limits = [LinearConstraint(assigned, 1.0, 1.0), LinearConstraint(load, 0.0, np.inf)]
    if pairs:
        limits.append(LinearConstraint(present, 0.0, np.inf))
    kinds = np.concatenate([np.full(x, float(integral)), np.zeros(z + 1)])
    upper = np.concatenate([able.ravel().astype(np.float64), np.ones(z), [np.inf]])
    target = np.append(np.zeros(x + z), 1.0)
    found = milp(
        target,
        integrality=kinds,
        bounds=Bounds(0.0, upper),
        constraints=limits,
        options={"time_limit": time_limit_s, "mip_rel_gap": 1e-4},
    )
    # A relaxation cut short has proven nothing.
    proven = found.mip_dual_bound if integral else (found.fun if found.status == 0 else None)
    # The mean load is proven without a solver.
    mean = _mean_load(own, shared, able)
    return scale * max(float(proven) if proven is not None and math.isfinite(proven) else 0.0, mean)


def _mean_load(own: F64, shared: F64, able: Any) -> float:
    """Return a weighted mean of loads: every weighting of sum 1 bounds the busiest, here one by the rates."""
    total = own.sum(axis=0) + shared.sum(axis=0)
    weights = 1.0 / np.maximum(total, 1e-300)
    weights /= weights.sum()
    least = np.where(able, own * weights, np.inf).min(axis=1).sum()
    return float(least + ((shared * weights).min(axis=1).sum() if len(shared) else 0.0))


def _matrix(entries: tuple[F64, I64, I64], shape: tuple[int, int]) -> Any:
    values, rows, cols = entries
    return coo_array((values, (rows, cols)), shape=shape).tocsr()
