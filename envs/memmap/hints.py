"""The plan that a game leans on: the best of several, from prices and XLA's placement, each played to its end."""

from __future__ import annotations

import numpy as np

from schedrl.envs.memmap.dynamics import reset_row, step_rows
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.placed_plan import placed_hints
from schedrl.envs.memmap.prices import Hint, shadow_prices
from schedrl.envs.memmap.state import AS_PLANNED, PLANNED, Options, allocate, room_of, write_instance

__all__ = ["best_hint"]

_OPTIONS = Options(fits=(PLANNED,), windows=(AS_PLANNED,), masked=True, lookback=256, negligible=0.0, skip_forced=True)


def best_hint(instance: MemoryMapInstance) -> Hint:
    """Return the plan that, played in the masked game, gives the least latency; kept with the instance."""
    cached: Hint | None = instance.__dict__.get("_hint")
    if cached is None:
        cached = _choose(instance)
        # Beside the instance's own cached properties, so that it lives as long as the instance.
        instance.__dict__["_hint"] = cached
    return cached


def _choose(instance: MemoryMapInstance) -> Hint:
    prices, relaxed = shadow_prices(instance)
    hints = list({hint.layer.tobytes(): hint for hint in [*placed_hints(instance, prices), *relaxed]}.values())
    state = allocate(len(hints), room_of([instance], _OPTIONS))
    for row, hint in enumerate(hints):
        write_instance(state, row, instance, hint)
        reset_row(state, row, _OPTIONS)
    idle, reward, done = np.full(len(hints), -1, np.int32), np.zeros(len(hints), np.float32), np.zeros(len(hints), bool)
    step_rows(state, idle, reward, done, 0, True, _OPTIONS)
    return hints[int(np.argmax(state.saved))]
