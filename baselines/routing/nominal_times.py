"""Seconds per token of serving instances in nominal conditions: what routers take for their speed."""

from __future__ import annotations

import numpy as np

from schedrl.arrays import F64
from schedrl.devices.serving_time import plain_iteration_s
from schedrl.envs.routing.instance import RoutingInstance

__all__ = ["decode_s_per_token", "prefill_s_per_token"]

_BATCH, _CONTEXT = 32, 2048


def prefill_s_per_token(instance: RoutingInstance) -> F64:
    """Return the seconds per prompt token (I,) of an iteration full of one prompt's first tokens."""
    return np.array(
        [
            plain_iteration_s(s.coefficients, s.token_budget, 1, float(s.token_budget), 0.5 * s.token_budget**2)
            / s.token_budget
            for s in instance.fleet
        ]
    )


def decode_s_per_token(instance: RoutingInstance, batch: int = _BATCH, context: int = _CONTEXT) -> F64:
    """Return the seconds of an iteration (I,) in which ``batch`` requests of ``context`` tokens decode."""
    tokens = float(batch * context)
    return np.array([plain_iteration_s(s.coefficients, batch, batch, tokens, tokens) for s in instance.fleet])
