"""DualMap's map of requests to instances: keys that grow with the heat of a prefix, and rings with virtual nodes."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence

import numpy as np

from schedrl.arrays import F64, Bool
from schedrl.baselines.routing.hash_ring import Ring

__all__ = ["UNIT_TOKENS", "HashRing", "PrefixKeys", "key_hash"]

UNIT_TOKENS = 512
"""tokens by which a key grows"""

_MASK = 2**64 - 1
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def key_hash(key: int, seed: int) -> int:
    """Return a 64-bit hash of a key, independent for different seeds (finaliser of splitmix64)."""
    z = (key * 0x9E3779B97F4A7C15 + (seed + 1) * 0xD1B54A32D192ED03) & _MASK
    z = ((z ^ (z >> 30)) * _MIX[0]) & _MASK
    z = ((z ^ (z >> 27)) * _MIX[1]) & _MASK
    return z ^ (z >> 31)


class HashRing(Ring):
    """Consistent hashing with virtual nodes: who leaves gives its keys to the others and takes none from them.

    Args:
        names: (I,) of the instances; points on the ring depend on nothing else.
        seed: makes rings independent.
        points: virtual nodes of an instance of weight 1.
        weights: (I,) relative numbers of virtual nodes; None for equal ones.
    """

    def __init__(self, names: Sequence[str], seed: int, *, points: int = 160, weights: F64 | None = None) -> None:
        shares = np.ones(len(names)) if weights is None else weights
        counts = [max(round(points * float(share)), 1) for share in shares]
        super().__init__(
            (_point(name, number, seed), i)
            for i, (name, count) in enumerate(zip(names, counts, strict=True))
            for number in range(count)
        )
        self._seed = seed

    def owner(self, key: int, members: Bool) -> int:
        """Return the first of the ``members`` (I,) clockwise of a key; at least one must be."""
        return next(i for i in self.walk_from(key_hash(key, self._seed)) if members[i])


def _point(name: str, number: int, seed: int) -> int:
    text = f"{seed}/{name}/{number}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


class PrefixKeys:
    """Keys of prompts: as many leading units as it takes until no key has much more than its share of the requests.

    A tree of prefixes counts the last ``window`` requests. A prefix with more than 2/n of them is split: prompts that
    go on behind it are keyed by the next unit, too. It is merged again once it has less than 1/n.

    Args:
        instances: n.
        window: requests that are counted, at least 1.
    """

    def __init__(self, instances: int, window: int = 1000) -> None:
        self._instances = instances
        self._window = window
        self._paths: deque[list[int]] = deque()
        self._count: dict[int, int] = {}
        self._split: set[int] = set()

    @property
    def split(self) -> frozenset[int]:
        """Prefixes that are split now, by the id of their last block."""
        return frozenset(self._split)

    def key(self, units: Sequence[int]) -> int | None:
        """Count a prompt and return its key, the id of its last block; None for a prompt without a whole block.

        Args:
            units: ids that stand for the first unit of the prompt, the first two, and so on.
        """
        path: list[int] = []
        for unit in units:
            path.append(unit)
            if unit not in self._split:
                break
        self._observe(path)
        return path[-1] if path else None

    def _observe(self, path: list[int]) -> None:
        self._paths.append(path)
        for unit in path:
            self._count[unit] = self._count.get(unit, 0) + 1
        if len(self._paths) > self._window:
            self._forget(self._paths.popleft())
        # Of the first few requests each is a large share: nothing is split before there are 2n.
        total = len(self._paths)
        if path and total >= 2 * self._instances and self._count[path[-1]] * self._instances > 2 * total:
            self._split.add(path[-1])

    def _forget(self, path: list[int]) -> None:
        total = len(self._paths)
        for unit in path:
            left = self._count[unit] - 1
            self._count[unit] = left
            if left * self._instances < total:
                self._split.discard(unit)
            if left == 0:
                del self._count[unit]
