"""Search over the order in which XLA's memory-space assignment places buffers.

XLA itself reads such orders (``autotuning_config``, ``msa_sort_order_overrides``); the plan that an order leads to is
always valid. All methods start from XLA's own order, so none is ever worse than ``memmap/xla``.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from schedrl.arrays import F64, I64
from schedrl.baselines.memmap.xla import Placement, compile_placement, plan_outcome
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import fast_bound_s
from schedrl.envs.memmap.placement_order import memory_boundedness, saving_alone_s
from schedrl.envs.memmap.segment_state import Constants
from schedrl.errors import ConfigError
from schedrl.schedulers import Result, Scheduler, SchedulerSpec

__all__ = ["SCHEDULERS", "OrderSearch", "Search"]

Search = Literal["restarts", "hill-climb", "annealing"]

# How far a restart strays from XLA's order: spreads of the logarithm of the keys that it draws from.
_SPREADS = (0.1, 0.3, 1.0, 3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderSearch:
    """Anytime search over orders of placement, from XLA's order on.

    Args:
        search: ``restarts`` draws orders around XLA's with ever other spreads; ``hill-climb`` moves one buffer at a
            time to another place and keeps what is no worse; ``annealing`` also keeps what is a little worse, less
            and less over the time limit.
        hot: first temperature of annealing as a share of the latency.
        cold: last one, likewise.
        max_iterations: stop after so many orders, if the time limit does not run out first; then the result depends
            on the seed alone.
        constants: of the placement.

    Raises:
        ConfigError: an unknown search, or a temperature that is not positive.
    """

    search: Search = "annealing"
    hot: float = 0.0005
    cold: float = 0.00001
    max_iterations: int | None = None
    constants: Constants = field(default_factory=Constants)

    def __post_init__(self) -> None:
        if self.search not in get_args(Search):
            raise ConfigError(
                f"order search: field search: {self.search!r}, expected one of {', '.join(get_args(Search))}"
            )
        for name in ("hot", "cold"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"order search: field {name}: {getattr(self, name)!r}, expected a positive number")

    def schedule(self, instance: MemoryMapInstance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best plan found within the time limit; the plan of XLA's order at least."""
        compile_placement()
        started = time.perf_counter()
        walk = _Walk(instance, self.constants)
        bound = fast_bound_s(instance) * (1.0 + 1e-9)
        tried, progress = 1, 0.0
        while progress < 1.0 and walk.best_s > bound and walk.clusters > 1:
            if self.search == "restarts":
                walk.restart(rng)
            else:
                cooled = self.hot * (self.cold / self.hot) ** progress
                walk.move(rng, walk.slow_s * cooled if self.search == "annealing" else 0.0)
            tried += 1
            progress = (time.perf_counter() - started) / time_limit_s
            if self.max_iterations is not None:
                progress = max(tried / self.max_iterations, math.floor(progress))
        walk.placement.place(walk.best)
        return plan_outcome(instance, walk.placement.plan(), started=started)


class _Walk:
    """The current and the best order of one program."""

    def __init__(self, instance: MemoryMapInstance, constants: Constants) -> None:
        self.placement = Placement(instance, constants)
        self.slow_s = self.placement.slow_s
        self.clusters = self.placement.clusters.count
        self.order: I64 = self.placement.default_order()
        self.best = self.order
        self.current_s = self.best_s = self.placement.place(self.order)
        self._key = self._keys(instance)
        self._chance = self._chances(instance)

    def _keys(self, instance: MemoryMapInstance) -> F64:
        """Return the largest positive boundedness of each cluster (C,), scaled so that none is zero."""
        key = np.zeros(self.clusters)
        of_buffer = self.placement.clusters.of_buffer
        np.maximum.at(key, of_buffer[of_buffer >= 0], memory_boundedness(instance)[of_buffer >= 0])
        positive = key[key > 0]
        floor = positive.min() if positive.size else 1.0
        # Of clusters without a gain XLA's order alone decides.
        return np.maximum(key, floor * 0.5 / np.arange(1, self.clusters + 1))

    def _chances(self, instance: MemoryMapInstance) -> F64:
        """Return how often to move each cluster (C,), cumulated: what gains or takes most, most often."""
        of_access = self.placement.clusters.of_buffer[instance.access_buffer]
        gain = np.bincount(of_access, weights=np.maximum(saving_alone_s(instance), 0.0), minlength=self.clusters)
        size = np.bincount(of_access, weights=instance.size[instance.access_buffer], minlength=self.clusters)
        chance = np.sqrt(gain / max(gain.sum(), 1e-300)) + np.sqrt(size / size.sum()) + 0.1 / self.clusters
        cumulated: F64 = np.cumsum(chance / chance.sum())
        return cumulated

    def restart(self, rng: np.random.Generator) -> None:
        """Try an order drawn around XLA's."""
        noise = rng.choice(_SPREADS) * rng.standard_normal(self.clusters)
        self._try(np.argsort(-(np.log(self._key) + noise), kind="stable"), 0.0, rng)

    def move(self, rng: np.random.Generator, temperature_s: float) -> None:
        """Move one cluster to another place in the current order, or exchange it with another."""
        chosen = min(int(np.searchsorted(self._chance, rng.random())), self.clusters - 1)
        since = int(np.flatnonzero(self.order == chosen)[0])
        if rng.random() < 0.5:
            other = min(int(np.searchsorted(self._chance, rng.random())), self.clusters - 1)
            to = int(np.flatnonzero(self.order == other)[0])
        else:
            to = int(rng.integers(self.clusters))
        order = self.order.copy()
        if rng.random() < 0.5:
            order[since], order[to] = order[to], order[since]
        else:
            order = np.insert(np.delete(order, since), to, chosen)
        self._try(order, temperature_s, rng)

    def _try(self, order: I64, temperature_s: float, rng: np.random.Generator) -> None:
        latency_s = self.placement.place(order)
        allowed_s = self.current_s
        if temperature_s > 0:
            allowed_s -= temperature_s * math.log(max(rng.random(), 1e-300))
        if latency_s <= allowed_s:
            self.order, self.current_s = order, latency_s
        if latency_s < self.best_s:
            self.best, self.best_s = order, latency_s


def _make(build: Callable[..., Any]) -> Callable[[], Scheduler]:
    # Untyped on purpose: this takes programs only, the contract any instance; a spec meets its own family's.
    return build


_SUMMARIES: dict[Search, str] = {
    "restarts": "XLA's memory-space assignment in random orders around its own",
    "hill-climb": "XLA's memory-space assignment in an order that one-buffer moves improve",
    "annealing": "XLA's memory-space assignment in an order that is annealed over the time limit",
}
SCHEDULERS: tuple[SchedulerSpec, ...] = tuple(
    SchedulerSpec(
        name=f"memmap/xla-{search}",
        make=_make(functools.partial(OrderSearch, search=search)),
        information="clairvoyant",
        summary=summary,
        source="OpenXLA, xla/service/memory_space_assignment; order search own work",
        randomised=True,
    )
    for search, summary in _SUMMARIES.items()
)
