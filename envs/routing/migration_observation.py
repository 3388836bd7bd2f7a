"""What a policy sees of requests that could move: features of each pair of request and target, and of the fleet.

Ratios "x per x and y" are x / (x + y). The graph is that of routing (``schedrl.envs.routing.observation``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from schedrl.arrays import F32, I32
from schedrl.devices.serving_time import iteration_s
from schedrl.envs.routing import observation
from schedrl.envs.routing.migration_offers import MOST_MOVES_OF_ONE
from schedrl.graphs import Feature, FeatureTable
from schedrl.kernels import inner, inner_inlined, kernel

if TYPE_CHECKING:
    from schedrl.envs.routing.migration_offers import Offers
    from schedrl.envs.routing.state import State

__all__ = ["FEATURES", "write_decisions"]


def _share(name: str, why: str) -> Feature:
    return Feature(name=name, unit="ratio", low=0.0, high=1.0, why=why)


FEATURES = FeatureTable(
    node=observation.FEATURES.node,
    edge_types=observation.EDGE_TYPES,
    edge=(),
    candidate_nodes=("source", "target"),
    candidate=(
        _share("none", "the slot moves nothing more in this period"),
        _share("waiting", "the request has no token yet"),
        _share("stay TTFT", "seconds until its first token if it stays per those and the objective"),
        _share("move TTFT", "likewise if it moves, what moving takes included"),
        _share("saved", "share of the seconds that moving saves"),
        _share("lost", "share of the seconds that moving loses"),
        _share("stay keeps TTFT", "it keeps its objective if it stays"),
        _share("move keeps TTFT", "it keeps its objective if it moves"),
        _share("waited", "seconds since it arrived per those and the objective"),
        _share("tokens", "its prompt and answer so far per those and 4096"),
        _share("source hit", "share of the prompt that the source is believed to hold"),
        _share("target hit", "share of the prompt that the target is believed to hold"),
        _share("source memory", "share of the source's memory in use"),
        _share("target memory", "share of the target's memory in use"),
        _share("source backlog", "seconds to compute what is pending at the source per those and the objective"),
        _share("target backlog", "seconds to compute what is pending at the target per those and the objective"),
        _share("source waiting", "requests waiting at the source per those and 8"),
        _share("target waiting", "requests waiting at the target per those and 8"),
        _share("source running", "requests running at the source per its most"),
        _share("target running", "requests running at the target per its most"),
        _share("source token time", "seconds of its decoding iteration per those and the objective of time per token"),
        _share("target token time", "likewise of the target with the request"),
        _share("transfer", "seconds that moving takes per those and 0.1 s"),
        _share("target speed", "seconds of 1024 prompt tokens at the source per those and those at the target"),
        _share("moves", "moves of the request so far per the most"),
        _share("program slack", "time left until its program's deadline, against the deadline; 1 without one"),
    ),
    context=(
        _share("moves left", "share of the period's moves that are left"),
        _share("outstanding", "mean requests sent and not finished per instance per that and 16"),
        _share("longest backlog", "seconds per those and the objective"),
        _share("shortest backlog", "seconds per those and the objective"),
        _share("mean backlog", "seconds per those and the objective"),
        _share("imbalance", "share of the longest backlog above the shortest"),
        _share("mean memory", "mean share of memory in use"),
        _share("fullest memory", "largest share of memory in use"),
        _share("waiting", "requests waiting per those and 8 per instance"),
        _share("instances", "instances per those and 8"),
        _share("signal age", "seconds since the signals were read per those and 0.1 s"),
        _share("token objective", "time per token is judged"),
        _share("cost weight", "of the objective"),
        _share("energy weight", "of the objective"),
    ),
)


@inner_inlined
def _ratio(x: float, y: float) -> float:
    return x / (x + y) if x > 0.0 else 0.0


@inner_inlined
def _used(state: State, b: int, i: int) -> float:
    return float(min(state.signal[b, i, 5] / state.kv_tokens[b, i], 1.0))


@inner
def _write_slot(state: State, offers: Offers, b: int, k: int, out: F32) -> None:
    """Fill the features of one pair of request and target."""
    r, i, j = offers.request[b, k], offers.source[b, k], offers.target[b, k]
    slo = state.ttft_slo[b] if state.ttft_slo[b] < np.inf else 5.0
    waits, waited = state.first_token[b, r] < 0.0, state.now[b] - state.arrival[b, r]
    stay, moved = offers.stay_s[b, k], offers.move_s[b, k]
    tokens = float(state.prompt[b, r] + state.generated[b, r])
    out[1] = waits
    out[2], out[3] = _ratio(stay, slo), _ratio(moved, slo)
    out[4] = 1.0 - moved / stay if stay > moved else 0.0
    out[5] = 1.0 - stay / moved if moved > stay else 0.0
    out[6] = not waits or waited + stay <= slo
    out[7] = not waits or waited + moved <= slo
    out[8] = _ratio(waited, slo)
    out[9] = _ratio(tokens, 4096.0)
    out[10], out[11] = min(offers.stay_hit[b, k], 1.0), min(offers.move_hit[b, k], 1.0)
    tpot = state.tpot_slo[b] if state.tpot_slo[b] < np.inf else 0.05
    speed_i = speed_j = 0.0
    for side in range(2):
        at = i if side == 0 else j
        out[12 + side] = _used(state, b, at)
        out[14 + side] = _ratio(state.backlog[b, at], slo)
        out[16 + side] = _ratio(state.signal[b, at, 0], 8.0)
        out[18 + side] = min(state.signal[b, at, 1] / state.max_sequences[b, at], 1.0)
        decoding = max(int(state.signal[b, at, 1]) + side, 1)
        context = state.signal[b, at, 4] + side * tokens
        out[20 + side] = _ratio(iteration_s(state.costs[b, at], decoding, decoding, context, context), tpot)
        speed = iteration_s(state.costs[b, at], 1024, 1, 1024.0, 524288.0)
        if side == 0:
            speed_i = speed
        else:
            speed_j = speed
    transfer = state.link_latency[b] + state.kv_transfer_s[b] * state.computed[b, r]
    out[22] = _ratio(transfer + (0.0 if waits else state.downtime[b]), 0.1)
    out[23] = _ratio(speed_i, speed_j)
    out[24] = offers.moved[b, r] / MOST_MOVES_OF_ONE
    p = state.program[b, r]
    deadline = state.deadline[b, p]
    out[25] = 1.0
    if deadline < np.inf:
        out[25] = min(max(1.0 - (state.now[b] - state.program_start[b, p]) / deadline, 0.0), 1.0)


@inner
def _write_context(state: State, offers: Offers, b: int, out: F32, most_moves: int) -> None:
    """Fill the features of the fleet."""
    slo, count = state.ttft_slo[b] if state.ttft_slo[b] < np.inf else 5.0, state.fleet[b]
    longest = total = used = fullest = waiting = outstanding = 0.0
    shortest = np.inf
    for i in range(count):
        backlog = state.backlog[b, i]
        longest, shortest, total = max(longest, backlog), min(shortest, backlog), total + backlog
        used, fullest = used + _used(state, b, i), max(fullest, _used(state, b, i))
        waiting += state.signal[b, i, 0]
        outstanding += state.inflight[b, i]
    out[0] = 1.0 - offers.made[b] / most_moves
    out[1] = _ratio(outstanding / count, 16.0)
    out[2], out[3], out[4] = _ratio(longest, slo), _ratio(shortest, slo), _ratio(total / count, slo)
    out[5] = 1.0 - shortest / longest if longest > shortest else 0.0
    out[6], out[7] = min(used / count, 1.0), fullest
    out[8] = _ratio(waiting / count, 8.0)
    out[9] = _ratio(float(count), 8.0)
    out[10] = _ratio(state.now[b] - state.signal_time[b], 0.1)
    out[11] = state.tpot_slo[b] < np.inf
    weights = state.preference[b, 0] + state.preference[b, 1] + state.preference[b, 2]
    out[12], out[13] = state.preference[b, 1] / weights, state.preference[b, 2] / weights


@kernel
def write_decisions(
    state: State, offers: Offers, candidates: I32, features: F32, context: F32, count: I32, most_moves: int
) -> None:
    """Fill the decision arrays of all rows; see ``FEATURES``."""
    features[:] = 0.0
    context[:] = 0.0
    candidates[:] = 0
    for b in range(len(count)):
        count[b] = offers.candidates[b]
        if count[b] == 0:
            continue
        # To move nothing concerns no instance: the router's own node stands for it.
        candidates[b, 0, 0] = candidates[b, 0, 1] = state.fleet[b]
        features[b, 0, 0] = 1.0
        for k in range(1, count[b]):
            candidates[b, k, 0], candidates[b, k, 1] = offers.source[b, k], offers.target[b, k]
            _write_slot(state, offers, b, k, features[b, k])
        _write_context(state, offers, b, context[b], most_moves)
