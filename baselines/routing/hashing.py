"""Routers that hash the beginning of a prompt onto a ring of instances, with and without bounds on their load.

The key is the first ``key_blocks`` blocks of the prompt. A shorter prompt's key is all of it, which no other request
shares as far as anyone knows.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from schedrl.arrays import F64
from schedrl.baselines.routing.hash_ring import Ring
from schedrl.baselines.routing.router import PromptRouter, View, prefill_slowness, router_specs
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.errors import ConfigError
from schedrl.schedulers import SchedulerSpec

__all__ = ["SCHEDULERS", "BoundedHash", "ConsistentHash", "GatewayBoundedHash", "HashRing", "PrefixHash"]

_POINTS = 160
_KEY_BLOCKS = 2


def _position(text: str) -> int:
    """Return where on the ring, 0 to 2**64 - 1, a text lies."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


class HashRing(Ring):
    """Instances on a ring, each at as many points as its weight says (Karger et al. 1997; weights as in ketama).

    Args:
        names: of the instances; where they lie depends on nothing else, so that others stay when one leaves.
        weights: (I,) shares of the ring relative to the mean, 1 each where they are equal.
    """

    def __init__(self, names: list[str], weights: F64) -> None:
        super().__init__(
            (_position(f"{name}#{point}"), i)
            for i, name in enumerate(names)
            for point in range(max(1, round(_POINTS * float(weights[i] / weights.mean()))))
        )

    def walk(self, key: str) -> tuple[int, ...]:
        """Return all instances in the order in which the ring, clockwise from a key, comes to each first."""
        return self.walk_from(_position(key))


class ConsistentHash(PromptRouter):
    """The first instance clockwise from the key that takes requests; with ``speed`` fast ones own more of the ring.

    Args:
        instance: what is served.
        rng: not used.
        speed: whether instances own the ring in proportion to speed.
        key_blocks: blocks of a prompt that are its key.

    Raises:
        ConfigError: ``key_blocks`` below 1.
    """

    def __init__(
        self,
        instance: RoutingInstance,
        rng: np.random.Generator,
        *,
        speed: bool = False,
        key_blocks: int = _KEY_BLOCKS,
    ) -> None:
        if type(key_blocks) is not int or key_blocks < 1:
            raise ConfigError(f"key_blocks: {key_blocks!r}, expected an integer of at least 1")
        self._key_blocks = key_blocks
        rates = 1.0 / prefill_slowness(instance) if speed else np.ones(len(instance.fleet))
        self._rates: F64 = rates  # (I,)
        self._ring = HashRing([f"{i}:{serving.name}" for i, serving in enumerate(instance.fleet)], rates)

    def _clockwise(self, view: View) -> list[int]:
        """Return the allowed instances from the key on."""
        blocks = view.blocks
        whole = len(blocks) >= self._key_blocks
        key = f"block {int(blocks[self._key_blocks - 1])}" if whole else f"request {view.request}"
        return [i for i in self._ring.walk(key) if view.allowed[i]]

    def pick(self, view: View) -> int:
        """Return the first instance from the key on."""
        return self._clockwise(view)[0]


class BoundedHash(ConsistentHash):
    """Consistent hashing with bounded loads: the first from the key on that is not full (Mirrokni et al. 2018).

    With m requests out and one at hand, each of n instances takes at most ceil((1 + epsilon) (m + 1) / n); with
    ``speed`` its share of all speed stands for 1 / n.
    """

    def __init__(
        self, instance: RoutingInstance, rng: np.random.Generator, *, speed: bool = False, epsilon: float = 0.25
    ) -> None:
        super().__init__(instance, rng, speed=speed)
        self._factor = 1.0 + epsilon

    def pick(self, view: View) -> int:
        """Return the first from the key on with room; there is one, as the bounds add up to more than all requests."""
        able = self._clockwise(view)
        total = float(view.outstanding[able].sum()) + 1.0
        rates = float(self._rates[able].sum())
        for i in able:
            if view.outstanding[i] + 1 <= math.ceil(self._factor * total * self._rates[i] / rates - 1e-9):
                return i
        return able[0]


class GatewayBoundedHash(ConsistentHash):
    """Bounded loads as SGLang's gateway has them: the key's instance unless its load exceeds ``skew`` times the mean.

    Then the next one clockwise that does not, or the key's own if all do. The gateway takes its key from the user; here
    it is the prompt's.
    """

    def __init__(
        self, instance: RoutingInstance, rng: np.random.Generator, *, speed: bool = False, skew: float = 1.5
    ) -> None:
        super().__init__(instance, rng, speed=speed)
        self._skew = skew

    def _bound(self, view: View, able: list[int]) -> F64:
        """Return the most requests that each instance may have to be chosen (I,)."""
        total = float(view.outstanding[able].sum())
        return self._skew * total * self._rates / float(self._rates[able].sum())

    def pick(self, view: View) -> int:
        """Return the first from the key on within the bound."""
        able = self._clockwise(view)
        bound = self._bound(view, able)
        return next((i for i in able if view.outstanding[i] <= bound[i]), able[0])


class PrefixHash(GatewayBoundedHash):
    """The key's instance unless overloaded, then the least loaded one: prefix_hash of SGLang's gateway.

    Its key is the first 256 tokens. Blocks are as fine as prompts are known, so it is the blocks that hold them.
    """

    def __init__(self, instance: RoutingInstance, rng: np.random.Generator, *, speed: bool = False) -> None:
        super().__init__(instance, rng, speed=speed, skew=1.25)
        self._key_blocks = max(1, math.ceil(256 / instance.block_tokens))

    def pick(self, view: View) -> int:
        """Return the key's instance, or the least loaded one within the bound."""
        able = self._clockwise(view)
        bound = self._bound(view, able)
        if view.outstanding[able[0]] <= bound[able[0]]:
            return able[0]
        within = [i for i in able if view.outstanding[i] <= bound[i]]
        return min(within, key=lambda i: (view.outstanding[i] / self._rates[i], i)) if within else able[0]


_RING = "a faster instance owns more of the ring"
_BOUNDS = f"{_RING} and has a higher bound"

SCHEDULERS: tuple[SchedulerSpec, ...] = (
    *router_specs(
        "consistent-hash",
        ConsistentHash,
        summary="the instance that owns the first two blocks of the prompt on a ring of hashes",
        source="Karger et al. 1997 (STOC)",
        speed=_RING,
    ),
    *router_specs(
        "bounded-hash",
        BoundedHash,
        summary="as consistent-hash, but no instance has more than 1.25 times its share of the requests",
        source="Mirrokni, Thorup and Zadimoghaddam 2018, arXiv 1608.01350",
        speed=_BOUNDS,
    ),
    *router_specs(
        "sglang-bounded-hash",
        GatewayBoundedHash,
        summary="as consistent-hash, but instances with more than 1.5 times the mean of requests are passed over",
        source="sgl-project/sglang, bounded_consistent_hashing of the model gateway",
        speed=_BOUNDS,
    ),
    *router_specs(
        "sglang-prefix-hash",
        PrefixHash,
        summary="as consistent-hash by 256 tokens, the least loaded where the owner has over 1.25 times the mean",
        source="sgl-project/sglang, prefix_hash of the model gateway; lightseekorg/smg docs/configuration/routing.md",
        speed=_BOUNDS,
    ),
)
