"""The least seconds that a request's prompt and answer take an instance, whatever else its iterations hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from schedrl.arrays import F64
from schedrl.devices import serving_time as columns
from schedrl.envs.routing.fleet import ServingInstance
from schedrl.envs.routing.instance import RoutingInstance

__all__ = ["InstanceCosts", "costs_of", "decode_s", "prefill_s", "prompt_work_s"]

_PREPARED = "_routing_least_costs"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceCosts:
    """What is least about the iterations of an instance."""

    row: F64  # (24,) of ``serving_time.iteration_s``
    budget: float
    """most tokens of an iteration"""
    fixed_s: float
    """seconds of an iteration beside its linear layers and attention"""
    token_s: float
    """seconds per token, in iterations as full as can be"""
    reduce_s: float
    """seconds of all-reduces per token at least"""


def costs_of(instance: RoutingInstance) -> list[InstanceCosts]:
    """Return the costs of each serving instance of a fleet."""
    found: list[InstanceCosts] | None = instance.__dict__.get(_PREPARED)
    if found is None:
        found = instance.__dict__[_PREPARED] = [_costs(serving) for serving in instance.fleet]
    return found


def _costs(serving: ServingInstance) -> InstanceCosts:
    row, budget = serving.coefficients, float(serving.token_budget)
    reduce = row[columns.ALL_REDUCE :]
    head = float(np.hypot(row[columns.HEAD_TOKEN], row[columns.HEAD_WEIGHTS]))
    # Beyond the table a falling last step would go on falling.
    safe = bool(reduce[-1] >= reduce[-2]) or budget <= 2.0 ** (len(reduce) - 1)
    fixed = float(row[columns.OVERHEAD]) + head + (float(reduce.min()) if safe else 0.0)
    sizes = np.minimum(2.0 ** np.arange(len(reduce)), budget)
    # Between powers of two the time grows linearly: per token it is least at one of them, or where the budget ends.
    times = np.interp(sizes, 2.0 ** np.arange(len(reduce)), reduce)
    per_token = float((times / sizes).min()) if safe else 0.0
    if safe and budget > 2.0 ** (len(reduce) - 1):
        per_token = min(per_token, float(reduce[-1] - reduce[-2]) / 2.0 ** (len(reduce) - 2))
    linear = float(np.hypot(row[columns.TOKEN], row[columns.WEIGHTS] / budget))
    shared = (float(row[columns.OVERHEAD]) + float(row[columns.HEAD_WEIGHTS])) / budget
    return InstanceCosts(row=row, budget=budget, fixed_s=fixed, token_s=linear + shared + per_token, reduce_s=per_token)


def prefill_s(costs: InstanceCosts, prompt: F64, hit: F64) -> F64:
    """Return the least seconds (R,) in which an instance computes prompts (R,) of which it holds ``hit`` (R,) tokens.

    With n iterations, as few as possible, the sum of roots of squares is at least the root of squared sums (Minkowski);
    the j-th iteration from the last reads at least the prompt but j budgets of keys and values; and the pairs of tokens
    do not depend on how a prompt is divided.
    """
    row, tokens = costs.row, prompt - hit
    n = np.ceil(tokens / costs.budget)
    experts = row[columns.EXPERT_WEIGHTS] * (1.0 - np.exp(row[columns.EXPERT_MISS] * tokens))
    seconds = np.hypot(row[columns.TOKEN] * tokens, n * row[columns.WEIGHTS] + experts)
    seconds = seconds + np.maximum(n * costs.fixed_s, n * _without_reduce_s(costs) + tokens * costs.reduce_s)
    seconds += row[columns.CONTEXT] * (n * prompt - 0.5 * n * (n - 1.0) * costs.budget)
    return np.asarray(seconds + row[columns.PAIR] * tokens * (hit + 0.5 * tokens), dtype=np.float64)


def _without_reduce_s(costs: InstanceCosts) -> float:
    row = costs.row
    return float(row[columns.OVERHEAD] + np.hypot(row[columns.HEAD_TOKEN], row[columns.HEAD_WEIGHTS]))


def prompt_work_s(costs: InstanceCosts, prompt: F64, hit: F64) -> F64:
    """Return the least seconds (R,) by which prompts (R,) lengthen an instance's time, shared iterations among them."""
    row, tokens = costs.row, prompt - hit
    seconds = costs.token_s * tokens + row[columns.CONTEXT] * prompt
    return np.asarray(seconds + row[columns.PAIR] * tokens * (hit + 0.5 * tokens), dtype=np.float64)


def decode_s(costs: InstanceCosts, prompt: F64, output: F64) -> F64:
    """Return the least seconds (R,) from first to last token of requests that decode alone on an instance."""
    row = costs.row
    experts = row[columns.EXPERT_WEIGHTS] * (1.0 - np.exp(row[columns.EXPERT_MISS]))
    each = np.hypot(row[columns.TOKEN], row[columns.WEIGHTS] + experts) + costs.fixed_s
    steps = output - 1.0
    # Step k reads the keys and values of the prompt and k tokens.
    read = steps * prompt + 0.5 * steps * (steps + 1.0)
    return np.asarray(
        steps * each + (row[columns.CONTEXT] + row[columns.PAIR]) * read - 0.5 * row[columns.PAIR] * steps,
        dtype=np.float64,
    )
