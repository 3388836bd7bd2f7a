"""DualMap: two candidates per prefix, the one with the longer hit while it keeps the objective, and moves within pairs.

After "DualMap: Enabling Both Cache Affinity and Load Balancing for Distributed LLM Serving" (2026) and its released
scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schedrl.arrays import F64
from schedrl.baselines.routing.dualmap_keys import UNIT_TOKENS, HashRing, PrefixKeys
from schedrl.baselines.routing.nominal_times import prefill_s_per_token
from schedrl.baselines.routing.router import RouterScheduler, View
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.schedulers import SchedulerSpec

__all__ = ["SCHEDULERS", "DualMap"]

_FIXED_BLOCKS = 2
_KEYLESS = 1 << 40


@dataclass(frozen=True, slots=True)
class _Sent:
    """What the router remembers of a request: where it is, its other candidate, and the hits at both when sent."""

    where: int
    backup: int
    hit: int
    backup_hit: int


class DualMap:
    """Chooses between the owners of a prompt's key on two hash rings.

    The candidate with the longer hit gets the request, of equal ones that with fewer pending tokens, drawn at random if
    equal again (the released code counts blocks of running requests, which leaves out those that wait). If its time to
    first token would exceed the objective, the sooner one gets it. If both would, requests that wait at either move to
    their own other candidate in order of what they gain, as long as that keeps their objective. Queues go by priority,
    then by hit, then by arrival.

    Args:
        instance: The fleet and the objective.
        rng: Breaks ties.
        adaptive: Keys grow with the heat of a prefix; else they are the first two blocks.
        rebalance: Move waiting requests, and order queues by hits.
        speed_aware: Take each instance's own speed for its times and its share of the rings; else the fleet's mean.
        window: Requests that heat is counted over.
    """

    period_s = 0.0

    def __init__(
        self,
        instance: RoutingInstance,
        rng: np.random.Generator,
        *,
        adaptive: bool = True,
        rebalance: bool = True,
        speed_aware: bool = False,
        window: int = 1000,
    ) -> None:
        names = [serving.name for serving in instance.fleet]
        own = prefill_s_per_token(instance)
        weights = (1.0 / own) / (1.0 / own).mean() if speed_aware else None
        self._rings = tuple(HashRing(names, seed, weights=weights) for seed in (1, 2))
        self._seconds: F64 = own if speed_aware else np.full(len(own), own.mean())
        self._slo_s = instance.ttft_slo_s
        self._unit = max(UNIT_TOKENS // instance.block_tokens, 1)
        self._keys = PrefixKeys(len(names), window)
        self._adaptive, self._rebalances, self._speed_aware = adaptive, rebalance, speed_aware
        self._rng = rng
        self._sent: dict[int, _Sent] = {}

    def candidates(self, key: int, view: View) -> tuple[int, int]:
        """Return both instances of a key among those allowed; the same twice only if there is but one."""
        first, second = (ring.owner(key, view.allowed) for ring in self._rings)
        if first == second and view.allowed.sum() > 1:
            second = (first + 1) % view.count
            while not view.allowed[second]:
                second = (second + 1) % view.count
        return first, second

    def choose(self, view: View) -> int:
        """Return the candidate that the request at hand is sent to."""
        if view.handed_over:
            return view.least(view.outstanding)
        pair = self.candidates(self._key(view), view)
        times = [self._ttft_s(view, i) for i in pair]
        best = self._preferred(view, pair)
        if times[best] > self._slo_s:
            best = int(times[1] < times[0])
            if self._rebalances and min(times) > self._slo_s:
                for i in dict.fromkeys(pair):
                    self._relieve(view, i)
        chosen, other = pair[best], pair[1 - best]
        hits = int(view.hit_tokens[chosen]), int(view.hit_tokens[other])
        if self._rebalances:
            self._sent[view.request] = _Sent(chosen, other, *hits)
            view.set_rank(-float(view.instance.priority[view.request]) * 2.0**31 - hits[0])
        return chosen

    def act(self, view: View) -> None:
        """Nothing: DualMap acts on arrivals alone."""

    def _key(self, view: View) -> int:
        blocks = view.blocks
        if self._adaptive:
            units: Sequence[int] = blocks[self._unit - 1 :: self._unit].tolist() or blocks[-1:].tolist()
            key = self._keys.key(units)
        else:
            key = int(blocks[min(_FIXED_BLOCKS * self._unit, len(blocks)) - 1]) if len(blocks) else None
        # Nobody shares a prompt without a whole block: it may go anywhere.
        return _KEYLESS + view.request if key is None else key

    def _ttft_s(self, view: View, i: int) -> float:
        if self._speed_aware:
            return float(view.predicted_ttft_s[i])
        pending = float(view.pending_tokens[i] + view.sent_tokens[i])
        return (pending + view.prompt_tokens - int(view.hit_tokens[i])) * float(self._seconds[i])

    def _preferred(self, view: View, pair: tuple[int, int]) -> int:
        """Return which of the pair has the longer hit, then the smaller load."""
        hits = [int(view.hit_tokens[i]) for i in pair]
        if hits[0] != hits[1]:
            return int(hits[1] > hits[0])
        loads = [float((view.pending_tokens[i] + view.sent_tokens[i]) * self._seconds[i]) for i in pair]
        if loads[0] != loads[1]:
            return int(loads[1] < loads[0])
        return int(self._rng.integers(2))

    def _relieve(self, view: View, i: int) -> None:
        """Move requests that wait at an overloaded instance to their other candidates, most gain first."""
        waiting = [r for r in view.waiting_requests(i).tolist() if r in self._sent and self._sent[r].where == i]
        prompt, seconds = view.instance.prompt_tokens, self._seconds
        misses = np.array([int(prompt[r]) - self._sent[r].hit for r in waiting], dtype=np.float64)
        pending = np.array(view.pending_tokens + view.sent_tokens)
        ahead = pending[i] - misses.sum() + np.cumsum(misses)  # prompt tokens up to and with each
        gains = []
        for r, tokens in zip(waiting, ahead.tolist(), strict=True):
            j = self._sent[r].backup
            if j != i and view.instance.fits[r, j] and view.instance.fleet[j].retire_s > view.now_s:
                there = (pending[j] + int(prompt[r]) - self._sent[r].backup_hit) * seconds[j]
                gains.append((tokens * seconds[i] - there, r))
        for gain, r in sorted(gains, reverse=True):
            if gain <= 0.0 or pending[i] * seconds[i] <= self._slo_s:
                return
            sent = self._sent[r]
            there = pending[sent.backup] + int(prompt[r]) - sent.backup_hit
            if there * seconds[sent.backup] < self._slo_s and view.move(r, sent.backup):
                pending[sent.backup] = there
                pending[i] -= int(prompt[r]) - sent.hit
                self._sent[r] = _Sent(sent.backup, i, sent.backup_hit, sent.hit)


_SOURCE = "Yuan et al., DualMap, 2026, and its scheduler double_hash_global_scheduler"


def _spec(name: str, summary: str, *, full: bool, speed_aware: bool) -> SchedulerSpec:
    return SchedulerSpec(
        name=f"routing/{name}",
        make=lambda: RouterScheduler(
            lambda instance, rng: DualMap(instance, rng, adaptive=full, rebalance=full, speed_aware=speed_aware)
        ),
        information="online",
        summary=summary,
        source=_SOURCE,
        randomised=True,
    )


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    _spec(
        "dualmap", "two rings, adaptive keys, switch at the objective, moves within pairs", full=True, speed_aware=False
    ),
    _spec(
        "dualmap-speed", "the same with each instance's own times and shares of the rings", full=True, speed_aware=True
    ),
    _spec(
        "dualmap-two-blocks", "two rings, keys of two blocks, switch at the objective", full=False, speed_aware=False
    ),
    _spec(
        "dualmap-two-blocks-speed", "the same with each instance's own times and shares", full=False, speed_aware=True
    ),
)
