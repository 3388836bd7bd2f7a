"""The arrays of the expert-cache game: what an instance fixes, and what changes while its requests are served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from schedrl.arrays import F32, F64, I32, Bool
from schedrl.envs.moe.cache_bounds import cache_bounds
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.kernel_arguments import by_reference

__all__ = ["BRING", "CLOSE", "DEMAND", "MAKE_ROOM", "REVEAL", "Room", "State", "allocate", "room_of", "write_instance"]

# What a decision is about: which expert leaves for one that a request waits for; which one comes ahead of need, or
# none; which one leaves for that; and a single way on, where an episode would have had no decision at all.
DEMAND, BRING, MAKE_ROOM, CLOSE = 1, 2, 3, 4
REVEAL = 0
_PREPARED = "_cache_game"


class Room(NamedTuple):
    """Sizes of the arrays: the most of everything in any instance."""

    steps: int  # R
    layers: int  # L
    experts: int  # E of a layer
    total: int  # G of all layers
    width: int  # K experts of a request
    places: int  # P experts in memory
    loads: int  # Q


@by_reference
class State(NamedTuple):
    """All arrays of a batch. Times are seconds."""

    steps: I32  # (B,)
    layers: I32  # (B,)
    experts: I32  # (B,) of each layer
    width: I32  # (B,) most experts of a request
    places: I32  # (B,) experts that fit
    load_s: F64  # (B,)
    unit: F64  # (B,) lower bound on the decode time
    layer: I32  # (B, R)
    needed: I32  # (B, R, K) -1 where fewer are needed
    duration: F64  # (B, R)
    left: F64  # (B, R + 1) computation from each request on
    next_visit: I32  # (B, R, L) next request of each layer after this one, the number of requests where none is
    step: I32  # (B,) request that is being served
    phase: I32  # (B,) REVEAL until the request is known, then the kind of decision that comes next
    channel: F64  # (B,) when the last load ends
    known: F64  # (B,) when the request got known
    start: F64  # (B,) when its computation starts
    queue: I32  # (B, K) absent experts of the request, hottest first
    queued: I32  # (B,)
    at: I32  # (B,) position in the queue
    incoming: I32  # (B,) expert that the next load brings
    leaving: I32  # (B,) expert that it replaces, -1 for a free place
    loading: Bool  # (B,) whether that load starts now
    pending: I32  # (B,) slot that was chosen, -1 for none
    hope: F64  # (B,) chance of the expert to come, 1 if the request waits for it
    resident: I32  # (B, P) experts in memory, those on their way included, in no order
    residents: I32  # (B,)
    place: I32  # (B, G) position there, -1 where absent
    ready: F64  # (B, G) when an expert in memory is or was there in full
    last_use: I32  # (B, G) last request that needed it, -1 before
    uses: I32  # (B, G)
    recent: F64  # (B, G) exponential moving average of needed or not, over the requests of its layer
    visits: I32  # (B, L) requests of the layer so far
    before: I32  # (B, L) last request of the layer so far, -1 where none was
    follows: F32  # (B, G, E) how often an expert was needed right after another
    sources: I32  # (B, G) how often what comes after the expert was seen
    early: Bool  # (B, G) brought ahead of need and not yet needed
    fresh: I32  # (B, G) request during which it was last brought ahead of need, -1 before
    hits: I32  # (B,) needed experts that were resident in time
    needs: I32  # (B,)
    brought: I32  # (B,) experts brought ahead of need
    used: I32  # (B,) of them those needed before they left
    load_expert: I32  # (B, Q)
    evict_expert: I32  # (B, Q)
    load_start: F64  # (B, Q)
    loads: I32  # (B,)
    compute_start: F64  # (B, R)
    offered: I32  # (B, C) expert of each slot, -1 for none
    candidates: I32  # (B,) slots on offer, 0 once finished
    hidden: I32  # (B,) experts that only the window keeps from being offered
    score: F64  # (B, C) scratch
    decided: Bool  # (B,) whether there was a decision
    bound: F64  # (B,) on the decode time of every completion
    paid: F64  # (B,) rewards so far
    moves_on: Bool  # (B,)
    invalid: I32  # (B,)


def allocate(batch: int, room: Room, window: int) -> State:
    """Return zeroed arrays for ``batch`` rows of ``window`` slots."""
    r, layers, experts, total, width, places, loads = room
    shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(("layer", "duration", "compute_start"), (r,)),
        **dict.fromkeys(("load_expert", "evict_expert", "load_start"), (loads,)),
        **dict.fromkeys(("place", "ready", "last_use", "uses", "recent", "sources", "early", "fresh"), (total,)),
        **dict.fromkeys(("visits", "before"), (layers,)),
        **dict.fromkeys(("offered", "score"), (window,)),
        "needed": (r, width),
        "left": (r + 1,),
        "next_visit": (r, layers),
        "queue": (width,),
        "resident": (places,),
        "follows": (total, experts),
    }
    return State(**{name: np.zeros((batch, *shapes.get(name, ())), dtype=kind) for name, kind in _kinds().items()})


def _kinds() -> dict[str, Any]:
    """Return the type of each field's numbers: that of the array alias it is annotated with."""
    types = {"F32": np.float32, "F64": np.float64, "I32": np.int32, "Bool": np.bool_}
    # Annotations are text here, which ``NamedTuple`` wraps.
    return {name: types[str(getattr(alias, "__forward_arg__", alias))] for name, alias in State.__annotations__.items()}


def room_of(instances: Sequence[ExpertCacheInstance], prefetch: bool) -> Room:
    """Return the room that instances need."""
    sizes = [_sizes(instance, prefetch) for instance in instances]
    return Room(*(max(column) for column in zip(*sizes, strict=True)))


def _sizes(instance: ExpertCacheInstance, prefetch: bool) -> Room:
    steps, width = instance.requests.shape
    loads = int((instance.requests >= 0).sum())
    if prefetch:
        # A load ahead of need starts during a computation, and brings each expert of the next layer at most once.
        ahead = np.minimum(instance.duration_s / instance.load_s, float(instance.experts))
        loads += int(np.minimum(np.floor(ahead) + 1.0, instance.experts).sum())
    return Room(
        steps=steps,
        layers=instance.layers,
        experts=instance.experts,
        total=instance.total,
        width=width,
        places=min(instance.capacity, instance.total),
        loads=loads,
    )


def write_instance(state: State, row: int, instance: ExpertCacheInstance) -> None:
    """Write an instance into a row, before its first request."""
    steps, width, total = instance.steps, instance.requests.shape[1], instance.total
    for name, value in _prepared(instance).items():
        array = getattr(state, name)[row]
        if np.ndim(value):
            array[tuple(slice(size) for size in np.shape(value))] = value
        else:
            getattr(state, name)[row] = value
    state.needed[row, :steps, width:] = -1
    for name in ("step", "phase", "channel", "known", "start", "queued", "at", "residents", "hits", "needs"):
        getattr(state, name)[row] = 0
    for name in ("brought", "used", "loads", "candidates", "hidden", "invalid", "paid", "decided", "hope", "loading"):
        getattr(state, name)[row] = 0
    for name in ("uses", "visits", "follows", "sources", "early", "ready"):
        getattr(state, name)[row] = 0
    for name in ("incoming", "leaving", "pending", "place", "last_use", "before", "fresh", "offered"):
        getattr(state, name)[row] = -1
    state.recent[row] = min(width / instance.experts, 1.0)
    initial = instance.initial
    state.residents[row] = len(initial)
    state.resident[row, : len(initial)] = initial
    state.place[row, :total][initial] = np.arange(len(initial))
    state.bound[row] = state.left[row, 0]
    state.moves_on[row] = True


def _prepared(instance: ExpertCacheInstance) -> dict[str, Any]:
    # Beside the instance's own cached properties, so that it lives as long as the instance.
    table: dict[str, Any] | None = instance.__dict__.get(_PREPARED)
    if table is None:
        table = instance.__dict__[_PREPARED] = _prepare(instance)
    return table


def _prepare(instance: ExpertCacheInstance) -> dict[str, Any]:
    steps = instance.steps
    next_visit = np.full((steps, instance.layers), steps, dtype=np.int32)
    for r in range(steps - 2, -1, -1):
        next_visit[r] = next_visit[r + 1]
        next_visit[r, instance.layer[r + 1]] = r + 1
    return {
        "steps": steps,
        "layers": instance.layers,
        "experts": instance.experts,
        "width": instance.requests.shape[1],
        "places": min(instance.capacity, instance.total),
        "load_s": instance.load_s,
        "unit": cache_bounds(instance)[0].value,
        "layer": instance.layer,
        "needed": instance.needed,
        "duration": instance.duration_s,
        "left": np.append(np.cumsum(instance.duration_s[::-1])[::-1], 0.0),
        "next_visit": next_visit,
    }
