"""Small fleets and workloads for tests: tight memory, shared prefixes, programs, roles, late signals; random play."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from schedrl.arrays import F64
from schedrl.devices.serving_time import (
    ALL_REDUCE,
    COEFFICIENTS,
    CONTEXT,
    ELEMENTWISE,
    EXPERT_MISS,
    EXPERT_WEIGHTS,
    OVERHEAD,
    PAIR,
    TOKEN,
    WEIGHTS,
)  # fmt: skip
from schedrl.envs.routing.fleet import Role, ServingInstance
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.solution import RoutingPlan
from schedrl.envs.routing.state import State

SEEDS = st.integers(0, 2**32 - 1)


def row_of(*, overhead: float = 1.0, token: float = 0.0, context: float = 0.0, pair: float = 0.0) -> F64:
    """Return coefficients of iterations that take ``overhead`` seconds and so much more per token, context and pair."""
    row = np.zeros(COEFFICIENTS)
    row[OVERHEAD], row[TOKEN], row[CONTEXT], row[PAIR] = overhead, token, context, pair
    return row


def server_of(name: str = "s", **fields: Any) -> ServingInstance:
    """Return an instance of 1,000 tokens whose iterations take a second and which computes 64 tokens in each."""
    plain: dict[str, Any] = {
        "name": name,
        "device": "d",
        "model": "m",
        "coefficients": row_of(),
        "kv_tokens": 1000,
        "token_budget": 64,
        "max_sequences": 8,
    }
    return ServingInstance(**(plain | fields))


def workload_of(
    requests: Sequence[tuple[float, int, int]],
    fleet: Sequence[ServingInstance] | None = None,
    blocks: Sequence[Sequence[int]] | None = None,
    **fields: Any,
) -> RoutingInstance:
    """Return an instance with requests of (arrival, prompt, output) and listed blocks of 16 tokens."""
    arrival, prompt, output = (np.array(column) for column in zip(*requests, strict=True))
    listed = blocks or [[] for _ in requests]
    plain: dict[str, Any] = {
        "name": "w",
        "fleet": tuple(fleet or (server_of(),)),
        "arrival_s": arrival.astype(np.float64),
        "prompt_tokens": prompt,
        "output_tokens": output,
        "block_start": np.concatenate([[0], np.cumsum([len(row) for row in listed])]),
        "blocks": np.array([block for row in listed for block in row], dtype=np.int64),
        "block_tokens": 16,
    }
    return RoutingInstance(**(plain | fields))


def _random_row(rng: np.random.Generator) -> F64:
    row = np.zeros(COEFFICIENTS)
    row[TOKEN], row[WEIGHTS] = rng.uniform(1e-5, 3e-4), rng.uniform(1e-3, 2e-2)
    row[OVERHEAD : ELEMENTWISE + 1] = rng.uniform(
        [1e-4, 1e-6, 1e-9, 1e-5, 1e-4, 0.0, 0.0, 0.0, 1e-6], [5e-3, 1e-4, 1e-6, 1e-3, 3e-3, 2e-5, 1e-3, 1e-5, 1e-5]
    )
    if rng.random() < 0.3:
        row[EXPERT_WEIGHTS], row[EXPERT_MISS] = rng.uniform(1e-3, 2e-2), np.log(1.0 - rng.uniform(0.1, 0.6))
    if rng.random() < 0.3:
        row[ALL_REDUCE:] = np.cumsum(rng.uniform(1e-5, 1e-3, COEFFICIENTS - ALL_REDUCE))
    return row


def _random_fleet(rng: np.random.Generator) -> tuple[ServingInstance, ...]:
    count = int(rng.integers(1, 5))
    apart = count > 1 and rng.random() < 0.35
    roles: list[Role] = ["mixed"] * count
    if apart:
        split = int(rng.integers(1, count))
        roles = ["prefill" if i < split else "decode" for i in range(count)]
    fleet = []
    for i, role in enumerate(roles):
        sequences = int(rng.integers(1, 9))
        last = i == count - 1
        fleet.append(
            server_of(
                f"s{i}",
                coefficients=_random_row(rng),
                role=role,
                # A decode instance must hold all requests, of 176 tokens at most.
                kv_tokens=int(rng.integers(192 if apart or last else 60, 400)),
                cache_tokens=int(rng.integers(0, 400)) if rng.random() < 0.4 else -1,
                token_budget=sequences + int(rng.integers(0, 60)),
                max_sequences=sequences,
                ready_s=float(rng.uniform(0.0, 1.0)) if rng.random() < 0.3 else 0.0,
                retire_s=float(rng.uniform(1.1, 4.0)) if rng.random() < 0.3 and not last else np.inf,
                price_usd_per_h=float(rng.uniform(0.5, 4.0)),
                power_w=float(rng.uniform(50.0, 700.0)),
            )
        )
    return tuple(fleet)


def _random_blocks(rng: np.random.Generator, tokens: Sequence[int], size: int) -> list[list[int]]:
    """Draw prefixes from a tree with few branches, so that many are shared; ids stand for all in front of them."""
    ids: dict[tuple[int, ...], int] = {}
    rows = []
    for count in tokens:
        text = tuple(rng.integers(0, 2, int(rng.integers(0, count // size + 1))).tolist())
        rows.append([ids.setdefault(text[: k + 1], len(ids)) for k in range(len(text))])
    return rows


def random_instance(seed: int, requests: int | None = None) -> RoutingInstance:
    """Draw an instance without structure, with little memory."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 25)) if requests is None else requests
    prompt, output = rng.integers(1, 100, count), rng.integers(1, 60, count)
    output[rng.random(count) < 0.15] = 1
    arrival = np.sort(rng.uniform(0.0, rng.choice([0.1, 1.0, 4.0]), count))
    if rng.random() < 0.2:
        arrival = np.round(arrival, 1)
    size = int(rng.choice([16, 32]))
    program = np.unique(rng.integers(0, max(count // 2, 1), count), return_inverse=True)[1]
    after, starts = [], [0]
    for r in range(count):
        earlier = np.flatnonzero(program[:r] == program[r])
        after += sorted(rng.permutation(earlier)[: int(rng.integers(0, 3))].tolist())
        starts.append(len(after))
    programs = int(program.max()) + 1
    deadline = np.where(rng.random(programs) < 0.4, rng.uniform(0.1, 3.0, programs), np.inf)
    fleet = _random_fleet(rng)
    return workload_of(
        list(zip(arrival.tolist(), prompt.tolist(), output.tolist(), strict=True)),
        fleet,
        _random_blocks(rng, (prompt + output).tolist(), size),
        name=f"random-{seed}",
        block_tokens=size,
        program=program,
        deadline_s=deadline,
        after_start=np.array(starts),
        after=np.array(after, dtype=np.int32),
        pause_s=np.where(rng.random(count) < 0.5, 0.0, rng.uniform(0.0, 0.5, count)),
        ttft_slo_s=float(rng.choice([0.05, 1.0, np.inf])),
        tpot_slo_s=float(rng.choice([0.01, np.inf])),
        signal_refresh_s=float(rng.choice([0.0, 0.0, 0.1])),
        link_bytes_per_s=float(rng.choice([1e3, np.inf])),
        link_latency_s=float(rng.choice([0.0, 0.01])),
        kv_bytes_per_token=1.0,
        downtime_s=float(rng.choice([0.0, 0.025])),
        preference=tuple(rng.uniform(0.0, 1.0, 3).tolist()) if rng.random() < 0.3 else (1.0, 0.0, 0.0),
    )


def play(
    instance: RoutingInstance,
    seed: int,
    *,
    exact: bool = False,
    hold_s: float = 0.0,
    moves: bool = False,
    watch: Callable[[State], None] = lambda state: None,
) -> Simulator:
    """Play a game to its end with random choices: instances, ranks, holds, moves at decisions and between them.

    Holding for a time that is no multiple of others keeps decisions apart; ``watch`` sees the state before each.
    """
    rng = np.random.default_rng(seed)
    simulator = Simulator([instance], 1, exact=exact, hold_s=hold_s)
    state, steps = simulator.state, 0
    while not simulator.finished(0):
        steps += 1
        watch(state)
        assert steps < 200_000, "the game goes on for ever"
        at_hand = int(state.candidates[0]) > 0
        moved = False
        if moves:
            for _ in range(int(rng.integers(0, 4))):
                moved |= simulator.move(0, int(rng.integers(instance.requests)), int(rng.integers(len(instance.fleet))))
        slot = -1
        if at_hand:
            slot = int(rng.integers(state.candidates[0]))
            # Where something moved the request at hand is sent, which tells the checker the order of the two.
            slot = 0 if moved and state.offered[0, slot] < 0 else slot
            if rng.random() < 0.3 and state.current_kind[0] == 0:
                state.rank[0, state.current[0]] = float(rng.integers(-2, 3))
        until = float(state.now[0] + rng.exponential(0.05)) if moves else np.inf
        simulator.send(slot, until)
    return simulator


def play_to_plan(instance: RoutingInstance, seed: int, **options: Any) -> RoutingPlan:
    """Return the plan of ``play``."""
    return play(instance, seed, **options).solution(0)


def changed(plan: RoutingPlan, name: str, index: int, value: float) -> RoutingPlan:
    """Return a plan in which one value of a field is another."""
    values = np.array(getattr(plan, name))
    values[index] = value
    return dataclasses.replace(plan, **{name: values})
