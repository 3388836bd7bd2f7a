"""Routers that know or guess which instance holds a prompt's prefix, and weigh that against load.

``SglangCacheAware`` and ``SglangLmetric`` guess from a tree of their own, as a gateway does that sees no engine; the
others know what instances hold as well as signals say.
"""

from __future__ import annotations

import functools

import numpy as np

from schedrl.arrays import F64
from schedrl.baselines.routing.radix import RadixTree
from schedrl.baselines.routing.router import PromptRouter, View, prefill_slowness, router_spec, router_specs
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.errors import ConfigError
from schedrl.schedulers import SchedulerSpec

__all__ = [
    "SCHEDULERS",
    "Affinity",
    "AffinityTime",
    "GuardedAffinity",
    "Lmetric",
    "LoadAware",
    "MinTtft",
    "SglangCacheAware",
    "SglangLmetric",
]

_CHARACTERS_PER_TOKEN = 4
_TOKENS_PER_PAGE = 16


class _Gateway(PromptRouter):
    """A gateway's tree of what it sent, in characters of text or in tokens.

    Text is taken as 4 characters per token, and two prompts differ from the first character of the first block on in
    which they differ: traces do not tell more.
    """

    def __init__(self, instance: RoutingInstance, mode: str, max_tree_size: int, evict_s: float) -> None:
        if mode not in ("character", "token"):
            raise ConfigError(f"mode: {mode!r}, expected character or token")
        if not (max_tree_size > 0 and evict_s > 0.0):
            raise ConfigError(f"max_tree_size and evict_s: {max_tree_size!r} and {evict_s!r}, expected above 0")
        self._units = _CHARACTERS_PER_TOKEN if mode == "character" else 1
        page = 1 if mode == "character" else _TOKENS_PER_PAGE
        self.tree = RadixTree(len(instance.fleet), instance.block_tokens * self._units, page)
        self._most = max_tree_size
        self.period_s = evict_s

    def act(self, view: View) -> None:
        """Let what was not seen for longest leave the tree."""
        self.tree.evict(self._most)


class SglangCacheAware(_Gateway):
    """The instance with the longest prefix if that is long enough and loads are even, otherwise the least loaded.

    Loads, requests sent and not finished, are uneven if the most exceeds the least both by ``abs_threshold`` and by the
    factor ``rel_threshold``. Defaults are those of the gateway's Python wheel 0.3.2.

    Args:
        instance: what is served.
        rng: not used.
        speed: multiply loads by the seconds that requests take.
        mode: ``character`` as the HTTP gateway, ``token`` as its gRPC form.
        threshold: share of the prompt that has to be known.
        abs_threshold: requests.
        rel_threshold: factor.
        max_tree_size: most characters or tokens remembered per instance; evicted once a minute.

    Raises:
        ConfigError: an unknown mode.
    """

    def __init__(
        self,
        instance: RoutingInstance,
        rng: np.random.Generator,
        *,
        speed: bool = False,
        mode: str = "character",
        threshold: float = 0.3,
        abs_threshold: float = 64.0,
        rel_threshold: float = 1.5,
        max_tree_size: int = 2**26,
    ) -> None:
        super().__init__(instance, mode, max_tree_size, 60.0)
        self._threshold, self._abs, self._rel = threshold, abs_threshold, rel_threshold
        self._slowness = prefill_slowness(instance) if speed else None

    def pick(self, view: View) -> int:
        """Return the instance, and remember that it gets the prompt."""
        load = view.outstanding.astype(np.float64)
        if self._slowness is not None:
            load = (load + 1.0) * self._slowness
        able = load[view.allowed]
        most, least = float(able.max()), float(able.min())
        chosen = -1
        if not (most - least > self._abs and most > self._rel * least):
            matched, owner = self.tree.match(view.blocks)
            known = matched > self._threshold * view.prompt_tokens * self._units
            chosen = owner if known and owner >= 0 and view.allowed[owner] else -1
        if chosen < 0:
            chosen = view.least(load)
        self.tree.insert(view.blocks, view.prompt_tokens * self._units, chosen)
        return chosen


def _least_product(view: View, missed: F64, slowness: F64 | None) -> int:
    """Return the allowed instance with the least of tokens to compute times requests; ties by requests, then tokens."""
    load = view.outstanding.astype(np.float64) + 1.0
    score = missed * load if slowness is None else missed * load * slowness
    order = np.lexsort((missed, load, score, ~view.allowed))
    return int(order[0])


class SglangLmetric(_Gateway):
    """Least of prompt tokens to compute times requests, with prefixes from the gateway's tree: SGLang's lmetric."""

    def __init__(
        self,
        instance: RoutingInstance,
        rng: np.random.Generator,
        *,
        speed: bool = False,
        mode: str = "character",
        max_tree_size: int = 2**26,
    ) -> None:
        super().__init__(instance, mode, max_tree_size, 60.0)
        self._slowness = prefill_slowness(instance) if speed else None

    def pick(self, view: View) -> int:
        """Return the instance, and remember that it gets the prompt."""
        length = view.prompt_tokens * self._units
        chosen = _least_product(view, (length - self.tree.matches(view.blocks)).astype(np.float64), self._slowness)
        self.tree.insert(view.blocks, length, chosen)
        return chosen


class Lmetric(PromptRouter):
    """As ``SglangLmetric``, with the prefixes that instances say they hold."""

    def __init__(self, instance: RoutingInstance, rng: np.random.Generator, *, speed: bool = False) -> None:
        self._slowness = prefill_slowness(instance) if speed else None

    def pick(self, view: View) -> int:
        """Return the instance with the least product."""
        return _least_product(view, (view.prompt_tokens - view.hit_tokens).astype(np.float64), self._slowness)


class LoadAware(PromptRouter):
    """Most of the share of the prompt that is held, less ``beta`` times how far the load exceeds the mean.

    Load is requests sent and not finished; its excess is relative to the mean, or to 1 if that is less. With ``speed``
    requests count by the seconds that they take.
    """

    def __init__(
        self, instance: RoutingInstance, rng: np.random.Generator, *, speed: bool = False, beta: float = 1.0
    ) -> None:
        self._beta = beta
        self._slowness = prefill_slowness(instance) if speed else np.ones(len(instance.fleet))

    def pick(self, view: View) -> int:
        """Return the instance with the highest score."""
        load = view.outstanding * self._slowness
        mean = float(load[view.allowed].mean())
        return view.least(-view.hit_tokens / view.prompt_tokens + self._beta * (load - mean) / max(1.0, mean))


class MinTtft(PromptRouter):
    """Least predicted time to first token: Algorithm 1 of Mooncake (Qin et al. 2025) without transfers of prefixes.

    Of equal instances that with the fewest prompt tokens pending is taken.

    Args:
        instance: what is served.
        rng: not used.
        postpone: have requests that are predicted to miss their objective anywhere wait behind all others. Mooncake
            rejects these; here every request is served.
    """

    def __init__(self, instance: RoutingInstance, rng: np.random.Generator, *, postpone: bool = False) -> None:
        self._limit_s = instance.ttft_slo_s if postpone else np.inf

    def pick(self, view: View) -> int:
        """Return the instance with the least."""
        chosen = view.least_pending(view.predicted_ttft_s)
        if view.predicted_ttft_s[chosen] > self._limit_s:
            view.set_rank(1.0)
        return chosen


class Affinity(PromptRouter):
    """The instance with most of the prompt; of equal ones that with the fewest prompt tokens pending."""

    def __init__(self, instance: RoutingInstance, rng: np.random.Generator) -> None:
        pass

    def pick(self, view: View) -> int:
        """Return the instance with the longest prefix."""
        return view.least_pending(-view.hit_tokens)


class AffinityTime(PromptRouter):
    """The instance with most of the prompt; of equal ones that with the shortest backlog in seconds."""

    def __init__(self, instance: RoutingInstance, rng: np.random.Generator) -> None:
        pass

    def pick(self, view: View) -> int:
        """Return the instance with the longest prefix."""
        return view.least(view.backlog_s, view.hit_tokens == view.hit_tokens[view.allowed].max())


class GuardedAffinity(PromptRouter):
    """Affinity among the instances predicted to be in time; the least predicted time where none is.

    Args:
        instance: what is served.
        rng: not used.
        share: of the objective for the time to first token that a prediction may take up; 0.1 does best among 0.1 to
            0.75 on generated sessions, agents, mixtures and long prompts on the heterogeneous fleet.
    """

    def __init__(self, instance: RoutingInstance, rng: np.random.Generator, *, share: float = 0.1) -> None:
        self._limit_s = share * instance.ttft_slo_s

    def pick(self, view: View) -> int:
        """Return the instance with the longest prefix among those in time."""
        timely = view.allowed & (view.predicted_ttft_s <= self._limit_s)
        if not timely.any():
            return view.least(view.predicted_ttft_s)
        return view.least(view.predicted_ttft_s, timely & (view.hit_tokens == view.hit_tokens[timely].max()))


_SPEED = "requests times the seconds that each takes there"

SCHEDULERS: tuple[SchedulerSpec, ...] = (
    *router_specs(
        "sglang-cache-aware",
        SglangCacheAware,
        summary="the longest prefix in the gateway's own tree of characters if loads are even, else the least loaded",
        source="sgl-project/sglang, cache_aware of the gateway, defaults of sglang-router 0.3.2",
        speed=_SPEED,
    ),
    *router_specs(
        "sglang-cache-aware-tokens",
        functools.partial(SglangCacheAware, mode="token"),
        summary="as sglang-cache-aware, with a tree of tokens in pages of 16",
        source="sgl-project/sglang, cache_aware of the gateway over gRPC; lightseekorg/smg",
        speed=_SPEED,
    ),
    *router_specs(
        "sglang-lmetric",
        SglangLmetric,
        summary="least of characters to compute, by the gateway's own tree, times requests",
        source="sgl-project/sglang, lmetric of the gateway",
        speed="the product times the seconds of a token",
    ),
    *router_specs(
        "lmetric",
        Lmetric,
        summary="least of prompt tokens to compute times requests",
        source="sgl-project/sglang, lmetric of the gateway, with the engines' own caches",
        speed="the product times the seconds of a token",
    ),
    *router_specs(
        "loadaware",
        LoadAware,
        summary="most of the share of the prompt that is held less the relative excess of load",
        source="vllm-project/production-stack PR 1035, beta 1",
        speed=_SPEED,
    ),
    router_spec(
        "min-ttft",
        MinTtft,
        summary="least predicted time to first token",
        source="Mooncake, Algorithm 1 (Qin et al., FAST 2025), nothing rejected",
    ),
    router_spec(
        "min-ttft-postpone",
        functools.partial(MinTtft, postpone=True),
        summary="as min-ttft; requests predicted to be late anywhere wait behind all others",
        source="Mooncake, Algorithm 1 (Qin et al., FAST 2025), which rejects these",
    ),
    router_spec(
        "affinity",
        Affinity,
        summary="the longest prefix, of equal ones the fewest prompt tokens pending",
        source="cache_affinity of DualMap's evaluation, with exact caches",
    ),
    router_spec(
        "affinity-time",
        AffinityTime,
        summary="the longest prefix, of equal ones the shortest time to compute what is pending",
        source="variant of this project, affinity that knows speeds",
    ),
    router_spec(
        "affinity-guarded",
        GuardedAffinity,
        summary="the longest prefix among the instances predicted to take at most a tenth of the objective",
        source="variant of this project",
    ),
)
