"""Small expert caches for tests, and a plain search over all their loads."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import strategies as st

from schedrl.envs.moe.cache_generators import arbitrary_cache
from schedrl.envs.moe.cache_instance import ExpertCacheInstance

SEEDS = st.integers(0, 2**32 - 1)


def cache_of(rows: list[list[int]], *, capacity: int, layers: int = 1, **fields: Any) -> ExpertCacheInstance:
    """Return requests that take the layers in turn; loads take 2 s and computations 1 s unless told otherwise."""
    width = max(len(row) for row in rows)
    defaults: dict[str, Any] = {
        "name": "c",
        "experts": 4,
        "capacity": capacity,
        "token": np.arange(len(rows)) // layers,
        "layer": np.arange(len(rows)) % layers,
        "requests": np.array([row + [-1] * (width - len(row)) for row in rows]),
        "compute_s": np.ones(layers),
        "expert_bytes": 2.0,
        "host_bytes_per_s": 1.0,
        "initial": np.zeros(0, dtype=np.int32),
    }
    return ExpertCacheInstance(**(defaults | fields))


@st.composite
def caches(draw: st.DrawFn, requests: int = 12, experts: int = 4) -> ExpertCacheInstance:
    """Draw a small instance without structure."""
    return arbitrary_cache(np.random.default_rng(draw(SEEDS)), requests=requests, experts=experts)


def fewest_loads_by_search(instance: ExpertCacheInstance) -> int:
    """Return the fewest loads, over every set that the memory could hold after each request."""
    needed = [frozenset(e for e in row if e >= 0) for row in instance.needed.tolist()]
    held = {frozenset(instance.initial.tolist()): 0}
    for wanted in needed:
        after: dict[frozenset[int], int] = {}
        for memory, loads in held.items():
            missing, others = len(wanted - memory), memory - wanted
            free = instance.capacity - len(wanted)
            for kept in itertools.combinations(sorted(others), min(free, len(others))):
                state = wanted | frozenset(kept)
                after[state] = min(after.get(state, 10**9), loads + missing)
        held = after
    return min(held.values())


def least_decode_time(instance: ExpertCacheInstance) -> int:
    """Return the least decode time of any schedule, where all durations are integers: a search instant by instant."""
    needed = [frozenset(e for e in row if e >= 0) for row in instance.needed.tolist()]
    duration, load_s = [int(d) for d in instance.duration_s], int(instance.load_s)
    useful = frozenset().union(*needed)
    # Requests begun, rest of the computation, experts resident, expert on its way (-1 for none), rest of its load.
    states = {(0, 0, frozenset(instance.initial.tolist()), -1, 0)}
    for instant in itertools.count():
        started = set(states)
        for begun, rest, memory, coming, wait in states:
            if rest == 0 and begun == len(needed):
                return instant
            if rest == 0 and needed[begun] <= memory:
                started.add((begun + 1, duration[begun], memory, coming, wait))
        after = set()
        for begun, rest, memory, coming, wait in started:
            options = [(memory, coming, wait)]
            in_use = needed[begun - 1] if rest else frozenset()
            if coming < 0:
                rooms = [memory] if len(memory) < instance.capacity else []
                rooms += [memory - {other} for other in memory - in_use]
                options += [(room, expert, load_s) for room in rooms for expert in useful - memory]
            for room, expert, left in options:
                there, on_way, rest_of_load = room, expert, max(left - 1, 0)
                if expert >= 0 and rest_of_load == 0:
                    there, on_way = room | {expert}, -1
                after.add((begun, max(rest - 1, 0), there, on_way, rest_of_load))
        states = after
    raise AssertionError
