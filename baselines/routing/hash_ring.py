"""Consistent hashing: a ring of points, each of which belongs to an instance (Karger et al. 1997)."""

from __future__ import annotations

import bisect
from collections.abc import Iterable

__all__ = ["Ring"]


class Ring:
    """Owners of points on a ring of positions, each (position, owner)."""

    def __init__(self, points: Iterable[tuple[int, int]]) -> None:
        ordered = sorted(points)
        self._positions = [position for position, _ in ordered]
        self._owners = [owner for _, owner in ordered]
        self._walks: dict[int, tuple[int, ...]] = {}

    def walk_from(self, position: int) -> tuple[int, ...]:
        """Return all owners in the order in which the ring, clockwise from a position, comes to each first."""
        at = bisect.bisect_left(self._positions, position) % len(self._positions)
        found = self._walks.get(at)
        if found is None:
            found = self._walks[at] = tuple(dict.fromkeys((*self._owners[at:], *self._owners[:at])))
        return found
