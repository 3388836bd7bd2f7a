"""What routers know: true and at once, or as it was at the last refresh."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from schedrl.devices.serving_time import iteration_s
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.state import (
    CONTEXT,
    FREE,
    HEAD_TOKENS,
    PENDING,
    PENDING_PAIRS,
    QUEUED_TOKENS,
    RUNNING,
    USED,
    WAITING,
    State,
)
from tests.envs.routing.small_fleets import SEEDS, play, random_instance, row_of, server_of, workload_of

# What instance 0 says at 1.5 s: a prompt of 128 whose first half is done, one of 32 behind it.
SIGNALS = {
    WAITING: 1, RUNNING: 1, PENDING: 64 + 32, PENDING_PAIRS: 64 * 96 + 32 * 16, CONTEXT: 0, USED: 128, FREE: 872,
    QUEUED_TOKENS: 32, HEAD_TOKENS: 32,
}  # fmt: skip


def sent(refresh: float, until: float, last: float) -> Simulator:
    """Send two prompts to the first of two instances, and go on to the decision on a third."""
    instance = workload_of(
        [(0.0, 128, 4), (0.5, 32, 4), (last, 40, 4)],
        [server_of("a"), server_of("b")],
        [[0, 1, 2, 3], [9], [0, 1]],
        signal_refresh_s=refresh,
    )
    simulator = Simulator([instance], 1)
    simulator.send(0)
    simulator.send(0, until)
    if until < last:
        simulator.send(-1)
    return simulator


def test_signals_of_a_worked_example() -> None:
    state = sent(0.0, np.inf, 1.5).state
    for column, value in SIGNALS.items():
        assert state.signal[0, 0, column] == value
    assert state.signal[0, 1].tolist() == [0, 0, 0, 0, 0, 0, 1000, 0, 0]
    assert state.inflight[0].tolist() == [2, 0]
    # The first iteration left four blocks, of which the request at hand has two.
    assert state.hits[0].tolist() == [32, 0]
    # 96 tokens are pending, and 8 more would be: one decodes, as far as is known, so 63 fit into an iteration.
    assert state.backlog[0].tolist() == [2.0, 0.0]
    assert state.predicted[0].tolist() == [2.0, 1.0]


def test_predictions_count_chunks_and_attention() -> None:
    row = row_of(overhead=1.0, token=0.01, context=1e-3, pair=1e-4)
    simulator = Simulator([workload_of([(0.0, 150, 4)], [server_of(coefficients=row)])], 1)
    # Three iterations of 50 tokens of 150, whose pairs are 150 * 75; none decodes.
    each = iteration_s(row, 50, 1, 0.0, 150 * 75 / 3)
    assert simulator.state.predicted[0, 0] == pytest.approx(3 * each, rel=1e-12)


def test_late_signals_are_those_of_the_last_refresh() -> None:
    # Refreshed each 1.25 s. What is read then does not change until 2.5 s, though an iteration ends at 2 s.
    at_once, late = sent(0.0, 1.25, 1.25 + 1e-9).state, sent(1.25, np.inf, 2.25).state
    assert late.signal_time[0] == 1.25
    np.testing.assert_array_equal(late.signal[0], at_once.signal[0])
    assert late.hits[0].tolist() == [32, 0]
    assert sent(1.25, np.inf, 2.75).state.signal[0, 0, RUNNING] == 2.0, "read again"


def test_what_the_router_sent_itself_is_known_at_once() -> None:
    instance = workload_of(
        [(0.1, 64, 4), (0.2, 32, 4), (0.3, 5, 1)], [server_of("a"), server_of("b")], signal_refresh_s=100.0
    )
    simulator = Simulator([instance], 1)
    state = simulator.state
    simulator.send(0)
    simulator.send(0)
    assert state.signal[0, :, WAITING].tolist() == [0.0, 0.0], "read at 0 s"
    assert (state.sent[0].tolist(), state.sent_tokens[0].tolist()) == ([2, 0], [96.0, 0.0])
    assert state.inflight[0].tolist() == [2, 0]


def hits_by_time(refresh: float, moment: float, output: int = 1) -> int:
    """Return what routers believe at a moment that a cache of one block holds of the first request's prompt.

    Its block comes at 1 s and leaves at 4 s for another's.
    """
    fleet = [server_of(cache_tokens=16)]
    requests = [(0.0, 20, output), (3.0, 20, 1), (moment, 20, 1)]
    order = np.argsort([arrival for arrival, _, _ in requests], kind="stable")
    blocks = [[0], [1], [0]]
    instance = workload_of([requests[k] for k in order], fleet, [blocks[k] for k in order], signal_refresh_s=refresh)
    simulator = Simulator([instance], 1)
    for _ in range(int(np.flatnonzero(order == 2)[0])):
        simulator.send(0)
    return int(simulator.state.hits[0, 0])


def test_believed_prefixes_follow_when_blocks_came_and_left() -> None:
    # Known at once: there from 1 s to 4 s. As of the last multiple of 2.5 s: until 5 s what was there at 2.5 s.
    assert [hits_by_time(0.0, moment) for moment in (0.5, 1.5, 3.5, 4.5, 5.5)] == [0, 16, 16, 0, 0]
    assert [hits_by_time(2.5, moment) for moment in (0.5, 1.5, 3.5, 4.5, 5.5)] == [0, 0, 16, 16, 0]


@given(SEEDS)
def test_late_signals_stand_still_and_are_never_too_old(seed: int) -> None:
    base = random_instance(seed)
    fields: dict[str, Any] = {name: getattr(base, name) for name in base.__dataclass_fields__}
    instance = type(base)(**(fields | {"signal_refresh_s": 0.1}))
    seen: dict[float, list[float]] = {}

    def watch(state: State) -> None:
        if state.candidates[0] == 0:
            return
        read = float(state.signal_time[0])
        assert -1e-9 < state.now[0] - read < 0.1 + 1e-9
        assert abs(read / 0.1 - round(read / 0.1)) < 1e-6
        signal = state.signal[0].ravel().tolist()
        assert seen.setdefault(read, signal) == signal
        size = int(state.block_tokens[0])
        assert (state.hits[0] % size == 0).all() and (state.hits[0] < state.prompt[0, state.current[0]]).all()

    play(instance, seed, watch=watch)


@given(SEEDS)
def test_true_signals_agree_with_the_instances(seed: int) -> None:
    base = random_instance(seed)
    fields: dict[str, Any] = {name: getattr(base, name) for name in base.__dataclass_fields__}
    instance = type(base)(**(fields | {"signal_refresh_s": 0.0}))

    def watch(state: State) -> None:
        r, size = int(state.current[0]), int(state.block_tokens[0])
        if state.candidates[0] == 0:
            return
        for i in range(len(instance.fleet)):
            assert state.signal[0, i, WAITING] == state.queued[0, i]
            assert state.signal[0, i, RUNNING] == state.running_count[0, i]
            assert state.signal[0, i, USED] + state.signal[0, i, FREE] == state.kv_tokens[0, i]
            blocks = state.block[0, state.block_start[0, r] : state.block_start[0, r + 1]]
            most = (int(state.prompt[0, r]) - 1) // size
            held = np.append(state.refs[0, blocks[:most], i] >= 0, False)
            assert state.hits[0, i] == size * int(np.argmin(held))

    play(instance, seed, exact=True, watch=watch)
