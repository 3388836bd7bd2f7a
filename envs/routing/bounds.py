"""Lower bounds on the penalty of routing, and on the mean time to first token.

All rest on the least a prompt costs an instance: tokens that no other request can have left there, in as few iterations
as the token budget allows, with nothing beside them. Whatever shares an iteration only makes it longer.
"""

from __future__ import annotations

import heapq

import numpy as np

from schedrl.arrays import F64, I32, I64, Bool
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.least_times import costs_of, decode_s, prefill_s, prompt_work_s
from schedrl.families import Bound

__all__ = ["bounds", "least_ttft_s", "srpt_mean_ttft_s"]

# Rounding may lift a sum of exact bounds above the objective of a plan that attains them.
_ROUNDING = 1.0 - 1e-9
_MISSED = 0.5
_LEAST_WINDOW = 16
_PREPARED = "_routing_waits"


def bounds(instance: RoutingInstance) -> list[Bound]:
    """Return lower bounds on the penalty, largest first."""
    ttft = least_ttft_s(instance)
    least = _least_penalties(instance, ttft)
    total, weight = float(least.sum()), instance.preference[0]
    overload = total + _overload(instance, ttft, least)
    work = _work(instance)
    found = [
        Bound(
            name="overload",
            value=_ROUNDING * (weight * overload + work) / instance.requests,
            why="no-queue bound, and in windows of arrivals only as many requests get their first token in time as the "
            "instances can compute together: a fractional knapsack per window, windows disjoint",
        ),
        Bound(
            name="no queue",
            value=_ROUNDING * (weight * total + work) / instance.requests,
            why="each request alone on its best instance, which holds whatever other requests could have left there; "
            "programs with deadlines by their critical path",
        ),
    ]
    return sorted(found, key=lambda bound: -bound.value)


def least_ttft_s(instance: RoutingInstance) -> F64:
    """Return a lower bound on each request's time to first token (R,); inf for those that no instance can take.

    To find k blocks somewhere, another request that has them must have arrived: where the first of these comes later
    than the request itself, the request has to wait for it.
    """
    earliest, initial = _earliest_arrivals(instance)
    owner, depth, wait = _waits(instance)
    hits = depth.astype(np.float64) * instance.block_tokens
    least = np.full(instance.requests, np.inf)
    for i, costs in enumerate(costs_of(instance)):
        serving, able = instance.fleet[i], instance.fits[:, i].copy()
        able &= earliest < serving.retire_s
        before_ready = np.where(initial, np.maximum(serving.ready_s - instance.arrival_s, 0.0), 0.0)
        take = able[owner]
        r = owner[take]
        seconds = np.maximum(wait[take], before_ready[r])
        seconds = seconds + prefill_s(costs, instance.prompt_tokens[r].astype(np.float64), hits[take])
        np.minimum.at(least, r, seconds)
    return least


def srpt_mean_ttft_s(instance: RoutingInstance) -> float:
    """Return a lower bound on the mean time to first token of requests that are served, all of which have to be.

    The instances' prompts are pooled on one machine, on which shortest remaining processing time first is optimal
    (Schrage 1968): a second of instance i counts y_i, these sum to 1, and a prompt is as large as on the instance where
    it is smallest. Requests that arrive once others are finished count with their own least times only.
    """
    least = least_ttft_s(instance)
    served = np.isfinite(least)
    _, initial = _earliest_arrivals(instance)
    pooled = np.flatnonzero(initial & served)
    if not served.any():
        return 0.0
    size = _pooled_work(instance, np.inf)
    waits = _srpt(instance.arrival_s[pooled], size[pooled])
    # Either bounds the sum over these requests.
    total = max(waits, float(least[pooled].sum())) + float(least[served & ~initial].sum())
    return _ROUNDING * total / int(served.sum())


def _srpt(release: F64, size: F64) -> float:
    """Return the sum of flow times of one machine that goes on with what has least left."""
    heap: list[tuple[float, float]] = []
    total, now, k = 0.0, 0.0, 0
    count = len(release)
    while heap or k < count:
        if not heap:
            now = max(now, float(release[k]))
        while k < count and release[k] <= now:
            heapq.heappush(heap, (float(size[k]), float(release[k])))
            k += 1
        left, since = heapq.heappop(heap)
        ends = now + left
        if k < count and release[k] < ends:
            heapq.heappush(heap, (ends - float(release[k]), since))
            now = float(release[k])
        else:
            total += ends - since
            now = ends
    return total


def _earliest_arrivals(instance: RoutingInstance) -> tuple[F64, Bool]:
    """Return a lower bound on each request's arrival (R,), and which requests have no predecessors (R,)."""
    initial = np.diff(instance.after_start) == 0
    if initial.all():
        return instance.arrival_s, initial
    costs = costs_of(instance)
    prompt = instance.prompt_tokens.astype(np.float64)
    service, rest = np.full(instance.requests, np.inf), _rest_s(instance)
    most = _listed(instance).astype(np.float64) * instance.block_tokens
    for i, one in enumerate(costs):
        able = instance.fits[:, i]
        seconds = prefill_s(one, prompt, most) + rest
        service = np.where(able, np.minimum(service, seconds), service)
    # Requests that may be refused take no time.
    service = np.where(_certain(instance) & np.isfinite(service), service, 0.0)
    earliest = np.where(initial, instance.arrival_s, 0.0)
    for r in np.flatnonzero(~initial).tolist():
        before = instance.after[instance.after_start[r] : instance.after_start[r + 1]]
        earliest[r] = float((earliest[before] + service[before]).max()) + float(instance.pause_s[r])
    return earliest, initial


def _rest_s(instance: RoutingInstance) -> F64:
    """Return the least seconds from first to last token (R,).

    Requests can move while they decode, so that the fastest of all instances counts.
    """
    prompt, output = instance.prompt_tokens.astype(np.float64), instance.output_tokens.astype(np.float64)
    rest = np.full(instance.requests, np.inf)
    for serving, one in zip(instance.fleet, costs_of(instance), strict=True):
        if serving.role != "prefill":
            rest = np.minimum(rest, decode_s(one, prompt, output))
    return rest


def _certain(instance: RoutingInstance) -> Bool:
    """Return which requests no router can fail to serve (R,): those that fit an instance that never retires."""
    stays = np.array([np.isinf(serving.retire_s) for serving in instance.fleet])
    hands_over = any(serving.role == "prefill" for serving in instance.fleet)
    if hands_over and not any(serving.role == "decode" and s for serving, s in zip(instance.fleet, stays, strict=True)):
        return np.zeros(instance.requests, dtype=np.bool_)
    return np.asarray((instance.fits & stays).any(axis=1), dtype=np.bool_)


def _listed(instance: RoutingInstance) -> I64:
    """Return how many leading blocks of each prompt can be found somewhere (R,): all but the last token's."""
    whole = (instance.prompt_tokens.astype(np.int64) - 1) // instance.block_tokens
    return np.minimum(np.diff(instance.block_start), whole)


def _waits(instance: RoutingInstance) -> tuple[I64, I32, F64]:
    """Return requests (W,), a number k of their leading blocks from 0 on (W,), and the least wait for these (W,)."""
    table: tuple[I64, I32, F64] | None = instance.__dict__.get(_PREPARED)
    if table is None:
        table = instance.__dict__[_PREPARED] = _find_waits(instance, *_earliest_arrivals(instance))
    return table


def _find_waits(instance: RoutingInstance, earliest: F64, initial: Bool) -> tuple[I64, I32, F64]:
    counts, requests = np.diff(instance.block_start), instance.requests
    all_owner = np.repeat(np.arange(requests), counts)
    when = earliest[all_owner]
    ids, block = np.unique(instance.blocks, return_inverse=True)
    # First and second arrival of different requests that have each block.
    order = np.lexsort((all_owner, when, block))
    first, second, first_owner = _two_earliest(block[order], when[order], all_owner[order], len(ids))
    listed = _listed(instance)
    starts = np.concatenate([[0], np.cumsum(listed + 1)])
    owner = np.repeat(np.arange(requests), listed + 1)
    depth = (np.arange(starts[-1]) - np.repeat(starts[:-1], listed + 1)).astype(np.int32)
    wait = np.zeros(len(owner))
    inner = depth > 0
    at = block[instance.block_start[owner[inner]] + depth[inner] - 1]
    mine = owner[inner]
    other = np.where(first_owner[at] == mine, second[at], first[at])
    since = np.where(initial[mine], instance.arrival_s[mine], np.inf)
    shared = np.isfinite(other)
    late = np.maximum(np.where(shared, other, 0.0) - since, 0.0)
    # Nobody else has it: it cannot be found.
    wait[inner] = np.where(shared, late, np.inf)
    return owner, depth, _running_max(wait, starts)


def _two_earliest(block: I64, when: F64, owner: I64, blocks: int) -> tuple[F64, F64, I64]:
    """Return of entries sorted by block and time the first time, that of the first other owner, and the first owner."""
    first, second = np.full(blocks, np.inf), np.full(blocks, np.inf)
    first_owner = np.full(blocks, -1, dtype=np.int64)
    begins = np.flatnonzero(np.diff(block, prepend=-1))
    first[block[begins]], first_owner[block[begins]] = when[begins], owner[begins]
    others = np.flatnonzero(owner != first_owner[block])
    np.minimum.at(second, block[others], when[others])
    return first, second, first_owner


def _running_max(values: F64, starts: I64) -> F64:
    """Return the running maximum within each stretch that ``starts`` (R + 1,) delimits."""
    lengths = np.diff(starts)
    longest = int(lengths.max())
    found = values.copy()
    for k in range(1, longest):
        at = starts[:-1][lengths > k] + k
        found[at] = np.maximum(found[at], found[at - 1])
    return found


def _least_penalties(instance: RoutingInstance, ttft: F64) -> F64:
    """Return a lower bound on each request's penalty (R,), given one on its time to first token (R,)."""
    rest, steps = _rest_s(instance), instance.output_tokens - 1
    slow = (steps > 0) & (rest * _ROUNDING > instance.tpot_slo_s * np.maximum(steps, 1))
    least = _penalty(ttft, np.full(len(ttft), instance.ttft_slo_s), slow)
    judged = np.isfinite(instance.deadline_s)
    if judged.any():
        earliest, _ = _earliest_arrivals(instance)
        begin, end = np.full(instance.programs, np.inf), np.full(instance.programs, -np.inf)
        np.minimum.at(begin, instance.program, instance.arrival_s)
        np.maximum.at(end, instance.program, earliest + ttft + rest)
        deadline = np.where(judged, instance.deadline_s, np.inf)
        seconds = np.maximum(end - begin, 0.0)
        together = _penalty(seconds, deadline, np.zeros(len(begin), dtype=np.bool_))
        least = np.where(judged[instance.program], together[instance.program], least)
    return least


def _penalty(seconds: F64, objective: F64, slow: Bool) -> F64:
    finite = np.where(np.isfinite(seconds), seconds, 0.0)
    with np.errstate(invalid="ignore"):
        late = np.where(np.isfinite(objective), finite / (finite + objective), 0.0)
    found = _MISSED * ((finite * _ROUNDING > objective) | slow) + (1.0 - _MISSED) * late
    return np.asarray(np.where(np.isfinite(seconds), found, 1.0), dtype=np.float64)


def _speeds(instance: RoutingInstance) -> F64:
    """Return weights (I,) of sum 1 in proportion to the instances' rates of computing prompts, 0 for others."""
    rate = np.array(
        [
            0.0 if serving.role == "decode" else 1.0 / costs.token_s
            for serving, costs in zip(instance.fleet, costs_of(instance), strict=True)
        ]
    )
    return np.asarray(rate / rate.sum(), dtype=np.float64)


def _pooled_work(instance: RoutingInstance, patience_s: float) -> F64:
    """Return the least weighted seconds (R,) that the prompts cost all instances together.

    Blocks count as found that other requests have which arrive at most ``patience_s`` after the request.
    """
    owner, depth, wait = _waits(instance)
    found = np.isfinite(wait) & (wait <= patience_s)
    hit = np.zeros(instance.requests)
    np.maximum.at(hit, owner[found], depth[found].astype(np.float64) * instance.block_tokens)
    prompt = instance.prompt_tokens.astype(np.float64)
    least = np.full(instance.requests, np.inf)
    for i, (weight, costs) in enumerate(zip(_speeds(instance), costs_of(instance), strict=True)):
        if weight > 0.0:
            cost = weight * prompt_work_s(costs, prompt, hit)
            least = np.where(instance.fits[:, i], np.minimum(least, cost), least)
    return np.where(np.isfinite(least), least, 0.0)


def _overload(instance: RoutingInstance, ttft: F64, least: F64) -> float:
    """Return by how much the sum of penalties exceeds that of ``least`` (R,) as not all requests can be in time.

    A request that gets its first token later than a after its arrival costs more than 3/4. Those of a window of
    arrivals that get it in time are computed from the window's begin to a after its end.
    """
    slo = instance.ttft_slo_s
    _, initial = _earliest_arrivals(instance)
    by_program = np.isfinite(instance.deadline_s)[instance.program]
    counted = np.flatnonzero(initial & ~by_program & np.isfinite(ttft))
    if not np.isfinite(slo) or not len(counted):
        return 0.0
    work = _pooled_work(instance, slo)[counted]
    late = _MISSED + (1.0 - _MISSED) * 0.5
    extra = np.maximum(late - least[counted], 0.0)
    return _worst_windows(instance.arrival_s[counted], work, extra, slo)


def _worst_windows(arrival: F64, work: F64, extra: F64, slo: float) -> float:
    """Return the largest sum of bounds over disjoint windows, halved again and again."""
    here = max(float(extra.sum()) - _saved(work, extra, float(arrival[-1] - arrival[0]) + slo), 0.0)
    half = len(arrival) // 2
    if half < _LEAST_WINDOW:
        return here
    parts = _worst_windows(arrival[:half], work[:half], extra[:half], slo)
    parts += _worst_windows(arrival[half:], work[half:], extra[half:], slo)
    return max(here, parts)


def _saved(work: F64, extra: F64, seconds: float) -> float:
    """Return the most of ``extra`` (W,) that work in a time saves, parts of requests counting in part."""
    if work.sum() <= seconds:
        return float(extra.sum())
    order = np.argsort(-extra / np.maximum(work, 1e-300), kind="stable")
    spent = np.cumsum(work[order])
    whole = int(np.searchsorted(spent, seconds, side="right"))
    saved = float(extra[order[:whole]].sum())
    before = float(spent[whole - 1]) if whole else 0.0
    return saved + float(extra[order[whole]]) * (seconds - before) / float(work[order[whole]])


def _work(instance: RoutingInstance) -> float:
    """Return the least of cost and energy as the objective counts them, summed over requests.

    Every block and every token behind the blocks of prompts is computed once by somebody, answers token by token.
    """
    if instance.preference[1] <= 0.0 and instance.preference[2] <= 0.0:
        return 0.0
    certain, listed = _certain(instance), _listed(instance)
    prompt, output = instance.prompt_tokens.astype(np.float64), instance.output_tokens.astype(np.float64)
    tokens = float((prompt - listed * instance.block_tokens + output - 1.0)[certain].sum())
    counts = np.diff(instance.block_start)
    rank = np.arange(len(instance.blocks)) - np.repeat(instance.block_start[:-1], counts)
    in_prompt = rank < np.repeat(listed, counts)
    needed = np.unique(instance.blocks[in_prompt & np.repeat(certain, counts)])
    # A block that is part of an answer was computed with the answer.
    tokens += float(len(np.setdiff1d(needed, instance.blocks[~in_prompt])) * instance.block_tokens)
    seconds = np.array([costs.token_s for costs in costs_of(instance)])
    total = 0.0
    for weight, field in ((instance.preference[1], "price_usd_per_h"), (instance.preference[2], "power_w")):
        rate = np.array([getattr(serving, field) for serving in instance.fleet])
        if rate.mean() > 0.0:
            total += weight * tokens * float((rate * seconds).min() / rate.mean())
    return total
