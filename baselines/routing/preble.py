"""Preble's E2: exploit a prefix that is longer than what it leaves to compute, else explore the cheapest instance.

After "Preble: Efficient Distributed Prompt Scheduling for LLM Serving" (ICLR 2025) and its global scheduler.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from schedrl.arrays import F64
from schedrl.baselines.routing.nominal_times import decode_s_per_token, prefill_s_per_token
from schedrl.baselines.routing.router import RouterScheduler, View
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.schedulers import SchedulerSpec

__all__ = ["SCHEDULERS", "Preble"]

_WINDOW_S = 180.0
_IMBALANCE = 1.5
_SLOWER = 2.0
_FIRST_OUTPUT = 200.0
_RECENT_OUTPUTS = 200


@dataclass(slots=True)
class _Past:
    """A request of the window: where it went, under which prefix, and what it cost there."""

    moment: float
    where: int
    node: int
    missed: int
    hit: int
    seconds: float
    ttft_s: float


class Preble:
    """Weighs instances by what the window's requests cost them.

    A prompt whose longest prefix held anywhere exceeds the rest is exploited: it goes to the least loaded holder. Else
    it goes to the instance with the least load, cost of what must leave its cache, and time to compute the rest. The
    load of an instance is what the prompts of the last three minutes missed there, and their answers, in seconds.

    When the largest load exceeds 1.5 times the smallest, prefixes of the former are sent to the latter from then on,
    cheapest first, as long as that does not turn the order round; a prefix is known by the block in which the exploited
    part ends, at a power of two of blocks, as turns of a conversation grow. A prefix whose predicted time to first
    token doubled from one half of the window to the other is replicated instead: either instance may take it.

    Args:
        instance: The fleet.
        window_s: Of the history.
        speed_aware: Take each instance's own speed; else the fleet's mean.
    """

    period_s = 0.0

    def __init__(self, instance: RoutingInstance, *, window_s: float = _WINDOW_S, speed_aware: bool = False) -> None:
        prefill, decode = prefill_s_per_token(instance), decode_s_per_token(instance)
        count = len(prefill)
        self._prefill: F64 = prefill if speed_aware else np.full(count, prefill.mean())
        self._decode: F64 = decode if speed_aware else np.full(count, decode.mean())
        self._room = np.array([s.kv_tokens if s.cache_tokens < 0 else s.cache_tokens for s in instance.fleet], float)
        self._window_s = window_s
        self._past: deque[_Past] = deque()
        self._load = np.zeros(count)  # (I,) seconds of the window
        self._missed = np.zeros(count)  # (I,) tokens of it
        self._hit = np.zeros(count)
        self._node_s: dict[int, float] = {}
        self._redirect: dict[int, int] = {}
        self._replica: dict[int, tuple[int, int]] = {}
        self._running: deque[int] = deque()
        self._outputs: deque[int] = deque(maxlen=_RECENT_OUTPUTS)
        self._median = _FIRST_OUTPUT

    @property
    def load_s(self) -> F64:
        """Load of each instance (I,)."""
        return self._load

    def choose(self, view: View) -> int:
        """Return the instance for the request at hand."""
        if view.handed_over:
            return view.least(view.outstanding)
        self._expire(view)
        hits = np.where(view.allowed, view.hit_tokens, -1)
        longest, prompt = int(hits.max()), view.prompt_tokens
        node = self._node(view, longest)
        if longest > prompt - longest:
            chosen = self._exploit(view, hits == longest, node)
        else:
            missed = np.asarray(prompt - view.hit_tokens, dtype=np.float64)
            chosen = view.least(self._load + self._eviction_s(missed) + missed * self._prefill)
        self._remember(view, chosen, node)
        self._balance(view)
        return chosen

    def act(self, view: View) -> None:
        """Nothing: Preble acts on arrivals alone."""

    def _node(self, view: View, longest: int) -> int:
        """Return the block by which the prefix at hand is known, -1 for a prompt without a whole block."""
        blocks = view.blocks
        count = longest // view.instance.block_tokens
        if count == 0:
            return int(blocks[0]) if len(blocks) else -1
        return int(blocks[2 ** (count.bit_length() - 1) - 1])

    def _exploit(self, view: View, holders: np.ndarray[tuple[int], np.dtype[np.bool_]], node: int) -> int:
        target = self._redirect.get(node, -1)
        if target >= 0 and view.allowed[target]:
            return target
        pair = self._replica.get(node)
        if pair is not None:
            among = np.zeros(view.count, dtype=np.bool_)
            among[list(pair)] = True
            return view.least(self._load, among)
        return view.least(self._load, holders)

    def _eviction_s(self, missed: F64) -> F64:
        """Return the seconds (I,) that will be computed again because blocks leave for ``missed`` tokens."""
        leave = np.clip(self._missed + missed - self._room, 0.0, missed)
        used_again = self._hit / np.maximum(self._hit + self._missed, 1.0)
        return np.asarray(leave * used_again * self._prefill)

    def _remember(self, view: View, i: int, node: int) -> None:
        hit = int(view.hit_tokens[i])
        missed = view.prompt_tokens - hit
        seconds = missed * float(self._prefill[i]) + self._median * float(self._decode[i])
        past = _Past(view.now_s, i, node, missed, hit, seconds, float(view.predicted_ttft_s[i]))
        self._past.append(past)
        self._count(past, 1.0)
        self._running.append(view.request)

    def _count(self, past: _Past, sign: float) -> None:
        self._load[past.where] += sign * past.seconds
        self._missed[past.where] += sign * past.missed
        self._hit[past.where] += sign * past.hit
        self._node_s[past.node] = self._node_s.get(past.node, 0.0) + sign * past.seconds

    def _expire(self, view: View) -> None:
        while self._past and self._past[0].moment < view.now_s - self._window_s:
            past = self._past.popleft()
            self._count(past, -1.0)
            if self._node_s[past.node] <= 1e-9:
                for table in (self._node_s, self._redirect, self._replica):
                    table.pop(past.node, None)
        changed = False
        while self._running and view.finish_s(self._running[0]) >= 0.0:
            self._outputs.append(int(view.instance.output_tokens[self._running.popleft()]))
            changed = True
        if changed:
            self._median = float(np.median(self._outputs))

    def _balance(self, view: View) -> None:
        """Send prefixes of the most loaded instance to the least loaded from now on."""
        load = np.where(view.allowed, self._load, np.nan)
        if np.isnan(load).all():
            return
        most, least = int(np.nanargmax(load)), int(np.nanargmin(load))
        if load[most] <= _IMBALANCE * load[least]:
            return
        costs: dict[int, float] = {}
        for past in self._past:
            if past.where == most and past.node >= 0 and past.hit > past.missed and past.node not in self._redirect:
                costs[past.node] = costs.get(past.node, 0.0) + past.seconds
        if len(costs) == 1:
            node = next(iter(costs))
            if self._slowed(view, node):
                self._replica[node] = (most, least)
            return
        high, low = float(load[most]), float(load[least])
        for node, seconds in sorted(costs.items(), key=lambda item: item[1]):
            if high - seconds < low + seconds:
                return
            self._redirect[node] = least
            high, low = high - seconds, low + seconds

    def _slowed(self, view: View, node: int) -> bool:
        """Return whether a prefix's predicted time to first token doubled between the halves of the window."""
        middle = view.now_s - 0.5 * self._window_s
        old = [past.ttft_s for past in self._past if past.node == node and past.moment < middle]
        new = [past.ttft_s for past in self._past if past.node == node and past.moment >= middle]
        return bool(old and new and np.mean(new) > _SLOWER * np.mean(old))


_SOURCE = "Srivatsa et al., Preble, ICLR 2025, and its global_scheduler_with_time"


def _spec(name: str, summary: str, speed_aware: bool) -> SchedulerSpec:
    return SchedulerSpec(
        name=f"routing/{name}",
        make=lambda: RouterScheduler(lambda instance, _: Preble(instance, speed_aware=speed_aware)),
        information="online",
        summary=summary,
        source=_SOURCE,
    )


SCHEDULERS: tuple[SchedulerSpec, ...] = (
    _spec("preble", "E2: exploit long prefixes, else least load of three minutes; redirect and replicate", False),
    _spec("preble-speed", "the same with each instance's own seconds per token", True),
)
