"""The arrays of the routing game: what an instance fixes, and what changes while its requests are served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from schedrl.arrays import F64, I8, I16, I32, I64, U64, Bool
from schedrl.devices.serving_time import COEFFICIENTS
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.kernel_arguments import by_reference

__all__ = [
    "LATELY",
    "SIGNALS",
    "Room",
    "State",
    "allocate",
    "grown",
    "room_in",
    "room_of",
    "served",
    "write_instance",
]

# Columns of what an instance tells routers: requests waiting and running, prompt tokens that it still has to compute,
# their attention pairs, keys and values of decoding requests, tokens of memory in use, tokens of it that could be used,
# tokens of waiting requests, and of the first of them.
WAITING, RUNNING, PENDING, PENDING_PAIRS, CONTEXT, USED, FREE, QUEUED_TOKENS, HEAD_TOKENS = range(9)
SIGNALS = 9
LATELY = 256
"""requests sent that routers compare the length of a prompt with"""
# What the request at hand is about: it is new, its prompt is computed and it decodes elsewhere, or it moves.
# Those whose copy is complete, or that land where they were moved to, need no decision.
ARRIVES, HANDED_OVER, COPIED, LANDS = 0, 1, 2, 3
# Where a request is: not yet sent, at an instance's queue, in its iterations, between instances, or finished.
NEW, QUEUED, ADMITTED, AWAY, DONE = 0, 1, 2, 3, 4
_BEGINS = -2
_PREPARED = "_routing_game"


class Room(NamedTuple):
    """Sizes of the arrays: the most of everything in any instance."""

    requests: int  # R
    fleet: int  # I
    listed: int  # Q block ids of all prompts
    blocks: int  # U different ones
    stale: int  # U where signals are late, else 0
    programs: int  # P
    successors: int  # S
    sequences: int  # M in one iteration


@by_reference
class State(NamedTuple):
    """All arrays of a batch. Times are seconds."""

    requests: I32  # (B,)
    fleet: I32  # (B,)
    arrival: F64  # (B, R)
    prompt: I32  # (B, R)
    output: I32  # (B, R)
    program: I32  # (B, R)
    pause: F64  # (B, R)
    block_start: I64  # (B, R + 1)
    block: I32  # (B, Q)
    block_tokens: I32  # (B,)
    next_start: I64  # (B, R + 1) requests that come after each
    next_request: I32  # (B, S)
    deadline: F64  # (B, P) inf for none
    fits: Bool  # (B, R, I)
    costs: F64  # (B, I, 28) coefficients of iterations
    kv_tokens: I32  # (B, I)
    cache_tokens: I32  # (B, I) -1 where prefixes share the memory
    token_budget: I32  # (B, I)
    max_sequences: I32  # (B, I)
    role: I8  # (B, I) 0 mixed, 1 prefill, 2 decode
    price: F64  # (B, I)
    power: F64  # (B, I)
    ready: F64  # (B, I)
    retire: F64  # (B, I)
    ttft_slo: F64  # (B,)
    tpot_slo: F64  # (B,)
    refresh: F64  # (B,)
    kv_transfer_s: F64  # (B,) per token
    link_latency: F64  # (B,)
    downtime: F64  # (B,)
    preference: F64  # (B, 3)
    now: F64  # (B,)
    arrived: I32  # (B,) requests without predecessors, in order of arrival, that were handed out
    initial: I32  # (B, R) these requests
    initial_count: I32  # (B,)
    event: I32  # (B, R) heap of requests whose next event is known
    event_time: F64  # (B, R) per request
    event_kind: I8  # (B, R) per request: ARRIVES, HANDED_OVER, COPIED, LANDS
    events: I32  # (B,)
    before: I32  # (B, R) predecessors that are not finished
    finished: I32  # (B,) requests finished or refused
    clock: F64  # (B, I) start of the planned iterations
    end: F64  # (B, I) end of them, inf while idle
    plan_ticks: I32  # (B, I) iterations planned at once
    plan_jump: Bool  # (B, I) whether they can be cut short
    plan_first: F64  # (B, I) seconds of the first of them
    plan_growth: F64  # (B, I) by how much each takes longer than the one before
    item: I32  # (B, I, M) requests whose prompt is computed in the planned iteration
    item_tokens: I32  # (B, I, M)
    items: I32  # (B, I)
    running: I32  # (B, I, M) in order of admission
    running_count: I32  # (B, I)
    partial: I32  # (B, I) request whose prompt is computed in part, -1 for none
    decoding: I32  # (B, I) requests that decode
    context: F64  # (B, I) tokens that these have computed
    ticks: I32  # (B, I) iterations done
    next_finish: I32  # (B, I) tick at which the next of them is finished
    queue: I32  # (B, I, R) heap of waiting requests
    queued: I32  # (B, I)
    used: I32  # (B, I) tokens of memory that are no shared prefix
    cached: I32  # (B, I) tokens of prefixes held
    evictable: I32  # (B, I) of them those nobody uses
    pending: F64  # (B, I) prompt tokens to compute
    pending_pairs: F64  # (B, I)
    queued_tokens: F64  # (B, I) prompt and output so far of waiting requests
    busy: F64  # (B, I)
    peak: I32  # (B, I) most memory in use
    refs: I16  # (B, U, I) requests that use a block, -1 where it is absent
    older: I32  # (B, U + 1, I) position of the block used next longest ago; block u is at u + 1, 0 is both ends
    newer: I32  # (B, U + 1, I)
    inserted: F64  # (B, stale, I)
    evicted: F64  # (B, stale, I)
    where: I32  # (B, R) instance, -1 before and for refused ones
    decode_where: I32  # (B, R) instance that it was handed over or moved to, -1 for none
    dispatch: F64  # (B, R)
    rank: F64  # (B, R) order within a queue, lowest first
    order: I32  # (B, R) then by this
    arrivals: I32  # (B,) last order given
    recalls: I32  # (B,) last order given to a preempted request
    computed: I32  # (B, R) tokens with keys and values; of decoding requests those at ``tick_zero``
    generated: I32  # (B, R) likewise
    tick_zero: I32  # (B, R)
    held: I32  # (B, R) leading blocks that the request uses
    hit: I32  # (B, R) prompt tokens found at first admission, -1 before
    due: F64  # (B, R) prompt tokens of it in ``pending``
    due_pairs: F64  # (B, R)
    moved_in: Bool  # (B, R) keys and values come with the request
    status: I8  # (B, R) NEW, QUEUED, ADMITTED, AWAY, DONE
    target: I32  # (B, R) instance that it moves to, -1 for none
    copied: Bool  # (B, R) the target has a copy of its keys and values
    leaving: I32  # (B, I) requests that leave with the next iteration
    first_token: F64  # (B, R) -1 before
    finish: F64  # (B, R) -1 before
    preemptions: I32  # (B, R)
    expected: F64  # (B, R) penalty counted for a request so far
    program_start: F64  # (B, P)
    program_size: I32  # (B, P) requests
    program_left: I32  # (B, P) requests not finished
    program_failed: Bool  # (B, P) one of them was refused
    program_expected: F64  # (B, P)
    inflight: I32  # (B, I) requests sent and not finished, as the router knows
    sent: I32  # (B, I) requests sent since the signals were read
    sent_tokens: F64  # (B, I) uncached prompt tokens of them, as known when they were sent
    signal: F64  # (B, I, 9) as routers know them
    signal_time: F64  # (B,)
    hits: I32  # (B, I) prompt tokens of the request at hand that routers believe an instance to hold
    current: I32  # (B,) request at hand, -1 once all are finished, -2 before the first
    current_kind: I8  # (B,)
    held_back: I32  # (B, R) times that a request was held
    predicted: F64  # (B, I) time to first token of the request at hand
    backlog: F64  # (B, I) seconds until what is pending is computed
    memory_wait: F64  # (B, I) seconds until memory is free for what waits and for the request at hand
    forecast: F64  # (B, I) time to first token with that, and with what was sent since the signals were read
    output_seen: F64  # (B,) output tokens of finished requests
    random: U64  # (B,) state of the rules' random numbers
    turn: I32  # (B,) requests sent in turn
    lately: I32  # (B, LATELY) prompt tokens of the last requests sent that no instance was believed to hold, in a ring
    dispatched: I32  # (B,) requests sent, apart from those handed over
    given_up: I32  # (B,) of them those sent where they were not expected to be in time
    allowed: Bool  # (B, I)
    best: F64  # (B, 8) scratch of observations
    penalty: F64  # (B,) of latency so far, summed over requests
    bound: F64  # (B,) objective so far
    paid: F64  # (B,) rewards so far
    invalid: I32  # (B,)
    candidates: I32  # (B,)
    offered: I32  # (B, I + 1) instance of each slot, -1 for holding


_TYPES: dict[str, Any] = {
    "F32": np.float32, "F64": np.float64, "I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64,
    "U64": np.uint64, "Bool": np.bool_,
}  # fmt: skip


def allocate(batch: int, room: Room) -> State:
    """Return zeroed arrays for ``batch`` rows."""
    r, i, q, u, stale, p, s, m = room
    by_request = (
        "arrival", "prompt", "output", "program", "pause", "initial", "event", "event_time", "event_kind", "before",
        "where", "decode_where", "dispatch", "rank", "order", "computed", "generated", "tick_zero", "held", "hit",
        "due", "due_pairs", "moved_in", "status", "target", "copied", "first_token", "finish", "preemptions",
        "expected", "held_back",
    )  # fmt: skip
    by_server = (
        "kv_tokens", "cache_tokens", "token_budget", "max_sequences", "role", "price", "power", "ready", "retire",
        "clock", "end", "plan_ticks", "plan_jump", "plan_first", "plan_growth", "items", "running_count", "partial",
        "decoding", "context", "ticks", "next_finish", "queued", "used", "cached", "evictable", "pending",
        "pending_pairs", "queued_tokens", "busy", "peak", "inflight", "sent", "sent_tokens", "hits", "predicted",
        "backlog", "memory_wait", "forecast", "allowed", "leaving",
    )  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(by_request, (r,)),
        **dict.fromkeys(by_server, (i,)),
        **dict.fromkeys(("block_start", "next_start"), (r + 1,)),
        **dict.fromkeys(
            ("deadline", "program_start", "program_size", "program_left", "program_failed", "program_expected"), (p,)
        ),
        **dict.fromkeys(("item", "item_tokens", "running"), (i, m)),
        **dict.fromkeys(("older", "newer"), (u + 1, i)),
        **dict.fromkeys(("inserted", "evicted"), (stale, i)),
        "block": (q,),
        "next_request": (s,),
        "fits": (r, i),
        "costs": (i, COEFFICIENTS),
        "preference": (3,),
        "queue": (i, r),
        "refs": (u, i),
        "signal": (i, SIGNALS),
        "offered": (i + 1,),
        "best": (8,),
        "lately": (LATELY,),
    }
    kinds = {name: _TYPES[str(getattr(kind, "__forward_arg__", kind))] for name, kind in State.__annotations__.items()}
    return State(**{name: np.zeros((batch, *shapes.get(name, ())), dtype=kind) for name, kind in kinds.items()})


def room_in(state: State) -> Room:
    """Return the room that a state's arrays have."""
    return Room(
        requests=state.arrival.shape[1],
        fleet=state.end.shape[1],
        listed=state.block.shape[1],
        blocks=state.refs.shape[1],
        stale=state.inserted.shape[1],
        programs=state.deadline.shape[1],
        successors=state.next_request.shape[1],
        sequences=state.running.shape[2],
    )


def grown(state: State, room: Room) -> State:
    """Return a state with room for more, and with what was in the old one: the same one if it has that room already."""
    larger = Room(*(max(pair) for pair in zip(room, room_in(state), strict=True)))
    if larger == room_in(state):
        return state
    new = allocate(len(state.requests), larger)
    old = state._asdict()
    for name, array in new._asdict().items():
        array[tuple(slice(size) for size in old[name].shape)] = old[name]
    return new


def served(state: State, row: int) -> dict[str, Any]:
    """Return the fields of a finished row's plan that tell where requests went and what came of them."""
    r = int(state.requests[row])
    return {
        "instance": state.where[row, :r],
        "decode_instance": state.decode_where[row, :r],
        "dispatch_s": state.dispatch[row, :r],
        "rank": state.rank[row, :r],
        "first_token_s": state.first_token[row, :r],
        "finish_s": state.finish[row, :r],
        "hit_tokens": state.hit[row, :r],
        "preemptions": state.preemptions[row, :r],
        "busy_s": state.busy[row, : int(state.fleet[row])],
    }


def room_of(instances: Sequence[RoutingInstance]) -> Room:
    """Return the room that instances need."""
    sizes = [_prepared(instance)[1] for instance in instances]
    return Room(*(max(column) for column in zip(*sizes, strict=True)))


def write_instance(state: State, row: int, instance: RoutingInstance) -> None:
    """Write an instance into a row, before its first request."""
    for name, array in state._asdict().items():
        if name not in ("block", "costs"):
            array[row] = 0
    for name, value in _prepared(instance)[0].items():
        array = getattr(state, name)
        if np.ndim(value):
            array[row][tuple(slice(size) for size in np.shape(value))] = value
        else:
            array[row] = value
    for name in ("partial", "where", "decode_where", "hit", "target", "first_token", "finish", "refs", "offered"):
        getattr(state, name)[row] = -1
    state.end[row] = np.inf
    state.signal_time[row] = -np.inf
    state.evicted[row] = -np.inf
    state.inserted[row] = np.inf
    state.current[row] = _BEGINS


def _prepared(instance: RoutingInstance) -> tuple[dict[str, Any], Room]:
    # Beside the instance's own cached properties, so that it lives as long as the instance.
    table: tuple[dict[str, Any], Room] | None = instance.__dict__.get(_PREPARED)
    if table is None:
        table = instance.__dict__[_PREPARED] = _prepare(instance)
    return table


def _prepare(instance: RoutingInstance) -> tuple[dict[str, Any], Room]:
    fleet, requests = instance.fleet, instance.requests
    # Only whole blocks can be shared; what a request lists beyond them is left out.
    whole = (instance.prompt_tokens.astype(np.int64) + instance.output_tokens - 1) // instance.block_tokens
    listed = np.minimum(np.diff(instance.block_start), whole)
    starts = np.concatenate([[0], np.cumsum(listed)])
    take = np.repeat(instance.block_start[:-1] - starts[:-1], listed) + np.arange(starts[-1])
    ids, block = np.unique(instance.blocks[take], return_inverse=True)
    owner = np.repeat(np.arange(requests), np.diff(instance.after_start))
    order = np.argsort(instance.after, kind="stable")
    before = np.diff(instance.after_start)
    columns = {
        "kv_tokens": "kv_tokens", "cache_tokens": "cache_tokens", "token_budget": "token_budget",
        "max_sequences": "max_sequences", "price": "price_usd_per_h", "power": "power_w", "ready": "ready_s",
        "retire": "retire_s",
    }  # fmt: skip
    table: dict[str, Any] = {name: np.array([getattr(s, field) for s in fleet]) for name, field in columns.items()}
    table |= {
        "requests": requests,
        "fleet": len(fleet),
        "arrival": instance.arrival_s,
        "prompt": instance.prompt_tokens,
        "output": instance.output_tokens,
        "program": instance.program,
        "pause": instance.pause_s,
        "block_start": starts,
        "block": block,
        "block_tokens": instance.block_tokens,
        "next_start": np.concatenate([[0], np.cumsum(np.bincount(instance.after, minlength=requests))]),
        "next_request": owner[order],
        "deadline": instance.deadline_s,
        "fits": instance.fits,
        "costs": np.array([serving.coefficients for serving in fleet]),
        "role": np.array([("mixed", "prefill", "decode").index(serving.role) for serving in fleet]),
        "ttft_slo": instance.ttft_slo_s,
        "tpot_slo": instance.tpot_slo_s,
        "refresh": instance.signal_refresh_s,
        "kv_transfer_s": instance.kv_bytes_per_token / instance.link_bytes_per_s,
        "link_latency": instance.link_latency_s,
        "downtime": instance.downtime_s,
        "preference": np.array(instance.preference),
        "initial": np.flatnonzero(before == 0),
        "initial_count": int((before == 0).sum()),
        "before": before,
        "program_left": np.bincount(instance.program, minlength=instance.programs),
        "program_size": np.bincount(instance.program, minlength=instance.programs),
        "program_start": _program_start(instance),
    }
    sequences = min(max(serving.max_sequences for serving in fleet), requests)
    room = Room(
        requests=requests,
        fleet=len(fleet),
        listed=max(len(block), 1),
        blocks=max(len(ids), 1),
        stale=max(len(ids), 1) if instance.signal_refresh_s > 0.0 else 0,
        programs=instance.programs,
        successors=max(len(owner), 1),
        sequences=sequences,
    )
    return table, room


def _program_start(instance: RoutingInstance) -> F64:
    start = np.full(instance.programs, np.inf)
    np.minimum.at(start, instance.program, instance.arrival_s)
    return start
