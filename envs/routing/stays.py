"""Where requests were and what was done with them, piece by piece, as a plan says: the base of its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from schedrl.arrays import F64, I8, I32
from schedrl.devices.serving_time import iteration_s
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.solution import RoutingPlan

__all__ = ["DECODE", "PREFILL", "WAIT", "Stays", "mean_over_bins", "stays_of"]

WAIT, PREFILL, DECODE = 0, 1, 2
"""what is done in a piece: nothing yet, the prompt, or the tokens after the first"""


class Stays(NamedTuple):
    """K pieces, each of one request at one instance. Times are seconds."""

    request: I32  # (K,)
    where: I32  # (K,) instance
    kind: I8  # (K,) WAIT, PREFILL or DECODE
    start: F64  # (K,)
    end: F64  # (K,) at least start
    first_tokens: F64  # (K,) tokens in memory at the start
    last_tokens: F64  # (K,) at the end


def stays_of(instance: RoutingInstance, plan: RoutingPlan) -> Stays:
    """Return the pieces of all requests that were served, by request and then time.

    Plans do not say when a request's turn came. Its prompt counts as computed in the seconds before the first token
    that it takes alone on its instance; what is left of the time since it was sent is waiting.
    """
    rows: list[tuple[int, int, int, float, float, float, float]] = []
    moves = _moves(plan)
    for r in np.flatnonzero(plan.instance >= 0).tolist():
        sent, first, end = float(plan.dispatch_s[r]), float(plan.first_token_s[r]), float(plan.finish_s[r])
        visits = _visits(plan, r, moves.get(r, ()))
        prompt, output = float(instance.prompt_tokens[r]), float(instance.output_tokens[r])
        hit = float(plan.hit_tokens[r])
        last = [where for where, begin in visits if begin <= first][-1]
        begins = max(first - _prompt_s(instance, last, prompt, hit), sent)
        for k, (where, begin) in enumerate(visits):
            until = visits[k + 1][1] if k + 1 < len(visits) else end
            for kind, low, high in ((WAIT, sent, begins), (PREFILL, begins, first), (DECODE, first, end)):
                start, stop = max(low, begin), min(high, until)
                if stop > start:
                    levels = ((0.0, 0.0), (hit, prompt), (prompt, prompt + output))[kind]
                    tokens = [_between(levels, (moment - low) / (high - low)) for moment in (start, stop)]
                    rows.append((r, where, kind, start, stop, tokens[0], tokens[1]))
    table = np.array(rows, dtype=np.float64).reshape(-1, 7).T
    return Stays(
        request=table[0].astype(np.int32),
        where=table[1].astype(np.int32),
        kind=table[2].astype(np.int8),
        start=table[3],
        end=table[4],
        first_tokens=table[5],
        last_tokens=table[6],
    )


def mean_over_bins(start: F64, end: F64, first: F64, last: F64, edges: F64) -> F64:
    """Return the mean over each bin of the sum of pieces that go from ``first`` to ``last`` while they last.

    Args:
        start: (K,) where each piece begins.
        end: (K,) where it ends.
        first: (K,) its value there; it is 0 outside.
        last: (K,) its value at its end.
        edges: (N + 1,) rising edges of the bins.

    Returns:
        (N,) means.
    """
    whole = np.zeros(len(edges))
    slope = (last - first) / np.maximum(end - start, 1e-300)
    for k, edge in enumerate(edges.tolist()):
        passed = np.clip(edge, start, end) - start
        whole[k] = float((passed * (first + 0.5 * slope * passed)).sum())
    return np.asarray(np.diff(whole) / np.diff(edges), dtype=np.float64)


def _between(levels: tuple[float, float], share: float) -> float:
    return levels[0] + share * (levels[1] - levels[0])


def _moves(plan: RoutingPlan) -> dict[int, list[tuple[int, float]]]:
    """Return target and time of the moves of each request that moved."""
    found: dict[int, list[tuple[int, float]]] = {}
    for r, target, moment in zip(
        plan.move_request.tolist(), plan.move_target.tolist(), plan.move_s.tolist(), strict=True
    ):
        found.setdefault(r, []).append((target, moment))
    return found


def _visits(plan: RoutingPlan, r: int, moves: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the instances where a request was, in order of time, and since when."""
    sent, finish = (int(plan.instance[r]), float(plan.dispatch_s[r])), float(plan.finish_s[r])
    last = int(plan.decode_instance[r]) if plan.decode_instance[r] >= 0 else sent[0]
    visits = [sent, *((target, max(moment, sent[1])) for target, moment in moves if moment < finish)]
    # A move that was not over when its request was finished, or preempted, came to nothing.
    while len(visits) > 1 and visits[-1][0] != last:
        visits.pop()
    return visits if visits[-1][0] == last else [sent, (last, float(plan.first_token_s[r]))]


def _prompt_s(instance: RoutingInstance, i: int, prompt: float, hit: float) -> float:
    """Return the seconds in which an instance computes what is left of a prompt and nothing else."""
    serving = instance.fleet[i]
    tokens = max(prompt - hit, 1.0)
    iterations = int(np.ceil(tokens / serving.token_budget))
    pairs = tokens * (hit + 0.5 * tokens) / iterations
    context = hit + 0.5 * tokens if iterations > 1 else prompt
    return iterations * iteration_s(serving.coefficients, int(np.ceil(tokens / iterations)), 1, context, pairs)
