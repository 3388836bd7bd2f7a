"""What a gateway remembers of the prompts it sent where: a radix tree of prefixes with the instances that had each.

The tree is the gateway's own guess, made of nothing but what it sent; it never sees the caches of the engines. As the
id of a block stands for all before it, too, a path of the tree is known by its last id.
"""

from __future__ import annotations

import heapq

import numpy as np

from schedrl.arrays import I64

__all__ = ["RadixTree"]


class RadixTree:
    """Prefixes by instance, of which each keeps at most some units; those not seen for longest leave, leaves first.

    Units are what the gateway counts in: characters or tokens.

    Args:
        instances: number of instances.
        block_units: units of a whole block.
        page_units: prompts are remembered in multiples of so many units.
    """

    def __init__(self, instances: int, block_units: int, page_units: int = 1) -> None:
        self._block, self._page = block_units, page_units
        # Of every instance: the clock at which a node was seen, the node before it, and how many follow.
        self._seen: list[dict[int, int]] = [{} for _ in range(instances)]
        self._before: list[dict[int, int]] = [{} for _ in range(instances)]
        self._followers: list[dict[int, int]] = [{} for _ in range(instances)]
        self._units: list[dict[int, int]] = [{} for _ in range(instances)]
        self.size: list[int] = [0] * instances
        """units that each instance is believed to hold"""
        self._last: dict[int, int] = {}
        self._clock = 0
        self._tails = 0

    def match(self, blocks: I64) -> tuple[int, int]:
        """Return how many units of a prompt the tree knows, and the instance that had them last, -1 where none."""
        deepest, depth = -1, 0
        for node in blocks.tolist():
            owner = self._last.get(node, -1)
            if owner < 0:
                break
            deepest, depth = owner, depth + 1
        if deepest >= 0:
            self._touch(deepest, blocks[:depth].tolist())
        return depth * self._block // self._page * self._page, deepest

    def matches(self, blocks: I64) -> I64:
        """Return how many units of a prompt each instance is believed to hold (I,)."""
        found = np.zeros(len(self._seen), dtype=np.int64)
        nodes = blocks.tolist()
        for i, seen in enumerate(self._seen):
            depth = 0
            for node in nodes:
                if node not in seen:
                    break
                depth += 1
            found[i] = depth * self._block // self._page * self._page
        return found

    def insert(self, blocks: I64, units: int, i: int) -> None:
        """Remember that an instance got a prompt of so many units; what is behind its whole blocks is all its own."""
        nodes = blocks.tolist()
        self._touch(i, nodes)
        left = units // self._page * self._page - len(nodes) * self._block
        if left > 0:
            self._tails += 1
            self._add(i, -self._tails, nodes[-1] if nodes else None, left)

    def _touch(self, i: int, nodes: list[int]) -> None:
        self._clock += 1
        before: int | None = None
        for node in nodes:
            if node in self._seen[i]:
                self._seen[i][node] = self._clock
                self._last[node] = i
            else:
                self._add(i, node, before, self._block)
            before = node

    def _add(self, i: int, node: int, before: int | None, units: int) -> None:
        self._seen[i][node] = self._clock
        self._units[i][node] = units
        if node >= 0:
            self._last[node] = i
        if before is not None:
            self._before[i][node] = before
            self._followers[i][before] = self._followers[i].get(before, 0) + 1
        self.size[i] += units

    def evict(self, most: int) -> None:
        """Let the leaves not seen for longest leave until no instance has more than so many units."""
        for i, seen in enumerate(self._seen):
            if self.size[i] <= most:
                continue
            leaves = [(clock, node) for node, clock in seen.items() if not self._followers[i].get(node)]
            heapq.heapify(leaves)
            while self.size[i] > most:
                _, node = heapq.heappop(leaves)
                before = self._remove(i, node)
                if before is not None and not self._followers[i][before]:
                    heapq.heappush(leaves, (seen[before], before))

    def _remove(self, i: int, node: int) -> int | None:
        """Forget a leaf of an instance and return the node before it."""
        del self._seen[i][node]
        self.size[i] -= self._units[i].pop(node)
        self._followers[i].pop(node, None)
        if self._last.get(node) == i:
            others = [(seen[node], -j) for j, seen in enumerate(self._seen) if node in seen]
            if others:
                self._last[node] = -max(others)[1]
            else:
                del self._last[node]
        before = self._before[i].pop(node, None)
        if before is not None:
            self._followers[i][before] -= 1
        return before
