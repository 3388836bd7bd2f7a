"""What requests cost once their times are known: the latency part of the objective, counted as it happens.

A request is judged by whether it keeps its objectives and by its time to first token T against that objective a: half
of the penalty is for missing, half is T / (T + a). A program with a deadline is judged alike, by its time from first
arrival to last token; each of its requests carries an equal part. What is expected of a request counts from when it is
sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from schedrl.envs.routing.queues import push_event
from schedrl.kernels import inner, inner_inlined

if TYPE_CHECKING:
    from schedrl.envs.routing.state import State

__all__ = ["MISSED", "count_finish", "count_first_token", "expect", "refuse"]

MISSED = 0.5
"""share of the penalty for missing an objective"""
_ARRIVES = 0


@inner_inlined
def _penalty(seconds: float, objective: float, missed: bool) -> float:
    late = seconds / (seconds + objective) if objective < np.inf else 0.0
    return MISSED * missed + (1.0 - MISSED) * late


@inner_inlined
def _set_expected(state: State, b: int, r: int, value: float) -> None:
    state.penalty[b] += value - state.expected[b, r]
    state.expected[b, r] = value


@inner
def _judge_program(state: State, b: int, r: int, end: float) -> None:
    """Count the penalty of a program if it ended at a moment."""
    p = state.program[b, r]
    if state.program_failed[b, p]:
        return
    seconds = end - state.program_start[b, p]
    _set_expected_program(state, b, p, _penalty(seconds, state.deadline[b, p], seconds > state.deadline[b, p]))


@inner_inlined
def _set_expected_program(state: State, b: int, p: int, value: float) -> None:
    state.penalty[b] += (value - state.program_expected[b, p]) * state.program_size[b, p]
    state.program_expected[b, p] = value


@inner_inlined
def _by_program(state: State, b: int, r: int) -> bool:
    return bool(state.deadline[b, state.program[b, r]] < np.inf)


@inner
def expect(state: State, b: int, r: int, first_token: float) -> None:
    """Count what a request costs if its first token comes at a moment."""
    if _by_program(state, b, r):
        _judge_program(state, b, r, max(first_token, state.program_start[b, state.program[b, r]]))
        return
    waited = first_token - state.arrival[b, r]
    _set_expected(state, b, r, _penalty(waited, state.ttft_slo[b], waited > state.ttft_slo[b]))


@inner
def count_first_token(state: State, b: int, r: int) -> None:
    """Count what a request costs now that its first token is there."""
    expect(state, b, r, state.first_token[b, r])


@inner
def count_finish(state: State, b: int, r: int) -> None:
    """Count what a request costs now that it is finished, and let those that wait for it arrive."""
    p = state.program[b, r]
    state.program_left[b, p] -= 1
    if _by_program(state, b, r):
        _judge_program(state, b, r, state.finish[b, r])
    else:
        waited = state.first_token[b, r] - state.arrival[b, r]
        rest = state.finish[b, r] - state.first_token[b, r]
        slow = state.tpot_slo[b] < np.inf and rest > state.tpot_slo[b] * (state.output[b, r] - 1)
        _set_expected(state, b, r, _penalty(waited, state.ttft_slo[b], waited > state.ttft_slo[b] or slow))
    _let_go_on(state, b, r, state.finish[b, r])


@inner
def refuse(state: State, b: int, r: int) -> None:
    """Count a request that nobody serves, with the program it belongs to; those behind it arrive all the same."""
    state.finished[b] += 1
    state.program_left[b, state.program[b, r]] -= 1
    if _by_program(state, b, r):
        _set_expected_program(state, b, state.program[b, r], 1.0)
        state.program_failed[b, state.program[b, r]] = True
    else:
        _set_expected(state, b, r, 1.0)
    _let_go_on(state, b, r, state.now[b])


@inner
def _let_go_on(state: State, b: int, r: int, moment: float) -> None:
    """Let the requests arrive that waited for this one alone."""
    for k in range(state.next_start[b, r], state.next_start[b, r + 1]):
        other = state.next_request[b, k]
        state.before[b, other] -= 1
        if state.before[b, other] == 0:
            state.arrival[b, other] = moment + state.pause[b, other]
            push_event(state, b, other, state.arrival[b, other], _ARRIVES)
