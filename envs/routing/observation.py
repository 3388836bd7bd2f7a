"""What a policy sees of a request and the instances it can go to: features, context, and the static graph.

Everything in it is known to a router: what it counts itself, and signals that may be late. Ratios "x per x and y" are
x / (x + y), which grows from 0 to 1 as x does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from schedrl.arrays import F32, F64, I32
from schedrl.devices.serving_time import iteration_s
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.state import LATELY
from schedrl.graphs import Feature, FeatureTable, StaticGraph
from schedrl.kernels import inner, inner_inlined, kernel

if TYPE_CHECKING:
    from schedrl.envs.routing.state import State

__all__ = ["EDGE_TYPES", "FEATURES", "static_graph", "write_decisions"]

EDGE_TYPES = ("serves", "served by")


def _share(name: str, why: str) -> Feature:
    return Feature(name=name, unit="ratio", low=0.0, high=1.0, why=why)


FEATURES = FeatureTable(
    node=(
        _share("instance", "the node is a serving instance, otherwise the router"),
        _share("prefill speed", "seconds per prompt token of the fastest instance per those of this one"),
        _share("decode speed", "seconds of a decoding iteration of 16 requests, of the fastest per those of this one"),
        _share("memory", "tokens that fit per those of the largest"),
        _share("price", "price per that and the fleet's mean"),
        _share("power", "power per that and the fleet's mean"),
        _share("prefill only", "it computes prompts alone"),
        _share("decode only", "it decodes alone"),
        _share("fleet size", "instances per those and 16"),
    ),
    edge_types=EDGE_TYPES,
    edge=(),
    candidate_nodes=("instance",),
    candidate=(
        _share("hold", "the slot keeps the request at the router"),
        _share("forecast TTFT", "forecast time to first token per that and the objective"),
        _share("keeps TTFT", "the forecast keeps the objective"),
        _share("excess TTFT", "share of the forecast above that of the best candidate"),
        _share("TTFT rank", "share of the candidates with a shorter forecast"),
        _share("prefill", "seconds to compute the request's prompt on it alone per those and the objective"),
        _share("backlog", "seconds to compute what is pending per those and the objective"),
        _share("excess backlog", "share of the backlog above that of the least loaded candidate"),
        _share("hit", "share of the prompt that it is believed to hold"),
        _share("best hit", "no candidate holds more of the prompt"),
        _share("saved seconds", "seconds that the hit saves per those and the objective"),
        _share("outstanding", "requests sent and not finished per those and 16"),
        _share("outstanding share", "those of all requests outstanding, against an equal share: x per x and equal"),
        _share("waiting", "requests waiting per those and 8"),
        _share("running", "requests running per its most"),
        _share("memory used", "share of its memory in use"),
        _share("memory need", "tokens of the request per those and what is free"),
        _share("token time", "seconds of its next decoding iteration per those and the objective of time per token"),
        _share("sent since", "requests sent since the signals were read per those and 4"),
        _share("tokens since", "seconds to compute what was sent since per those and the objective"),
        _share("prefill speed", "seconds per prompt token of the fastest candidate per those of this one"),
        _share("decode speed", "seconds per decoding iteration of the fastest candidate per those of this one"),
        _share("work share", "seconds of the prefill on it per the least of any candidate, inverse"),
        _share("memory wait", "seconds until memory is free for the request per those and the objective"),
        _share("excess prefill", "share of the time to first token above the least, memory and latest requests aside"),
    ),
    context=(
        _share("prompt", "prompt tokens per those and 4096"),
        _share("short prompt", "prompt tokens per those and 512"),
        _share("best hit", "largest share of the prompt that a candidate holds"),
        _share("candidates", "candidates per those and 8"),
        _share("least backlog", "shortest backlog per that and the objective"),
        _share("mean backlog", "mean backlog of the candidates per that and the objective"),
        _share("best TTFT", "shortest forecast TTFT per that and the objective"),
        _share("load", "mean of outstanding requests per instance per that and 16"),
        _share("memory used", "mean share of memory in use"),
        _share("can keep TTFT", "share of the candidates whose forecast keeps the objective"),
        _share("signal age", "seconds since the signals were read per those and 0.1 s"),
        _share("handed over", "the request's prompt is computed; it will decode"),
        _share("program left", "unfinished requests of a program with a deadline per those and 4"),
        _share("program slack", "time left until the program's deadline, against the deadline; 1 without one"),
        _share("token objective", "time per token is judged"),
        _share("cost weight", "of the objective"),
        _share("energy weight", "of the objective"),
        _share("length rank", "share of the last 256 requests sent with fewer prompt tokens left to compute"),
        _share("given up", "share of the requests sent that were expected to be late, per that and 0.1"),
    ),
)

_FC, _FG = len(FEATURES.candidate), len(FEATURES.context)
# A plain decoding iteration for speeds: so many requests with so many tokens each.
_SEQUENCES, _LENGTH = 16, 1024.0
_CHUNK = 1024


def static_graph(instance: RoutingInstance) -> StaticGraph:
    """Return the fleet as a graph: instances, then the router, with an edge each way between it and each instance."""
    fleet = instance.fleet
    count = len(fleet)
    prefill = np.array([_prefill(serving.coefficients) for serving in fleet])
    decode = np.array([_decode(serving.coefficients) for serving in fleet])
    columns = {
        "memory": np.array([serving.kv_tokens for serving in fleet], dtype=np.float64),
        "price": np.array([serving.price_usd_per_h for serving in fleet]),
        "power": np.array([serving.power_w for serving in fleet]),
    }
    features = np.zeros((count + 1, len(FEATURES.node)), dtype=np.float32)
    features[:count, 0] = 1.0
    features[:count, 1] = prefill.min() / prefill
    features[:count, 2] = decode.min() / decode
    features[:count, 3] = columns["memory"] / columns["memory"].max()
    for column, name in ((4, "price"), (5, "power")):
        mean = columns[name].mean()
        features[:count, column] = columns[name] / (columns[name] + mean) if mean > 0.0 else 0.0
    features[:count, 6] = [serving.role == "prefill" for serving in fleet]
    features[:count, 7] = [serving.role == "decode" for serving in fleet]
    features[:, 8] = count / (count + 16.0)
    instances, router = np.arange(count), np.full(count, count)
    return StaticGraph(
        node_features=features,
        edge_index=np.stack([np.append(instances, router), np.append(router, instances)]).astype(np.int32),
        edge_type=np.repeat([0, 1], count).astype(np.int8),
        edge_features=np.zeros((2 * count, 0), dtype=np.float32),
    )


def _prefill(row: F64) -> float:
    return float(iteration_s(row, _CHUNK, 1, float(_CHUNK), 0.5 * _CHUNK * _CHUNK)) / _CHUNK


def _decode(row: F64) -> float:
    return float(iteration_s(row, _SEQUENCES, _SEQUENCES, _SEQUENCES * _LENGTH, _SEQUENCES * _LENGTH))


@inner_inlined
def _ratio(x: float, y: float) -> float:
    return x / (x + y) if x > 0.0 else 0.0


@inner_inlined
def _work(state: State, b: int, i: int, tokens: float) -> float:
    """Return the seconds to compute prompt tokens on an instance that has nothing else to do, long attention aside."""
    budget = float(state.token_budget[b, i])
    chunks = np.ceil(tokens / budget)
    if chunks <= 0.0:
        return 0.0
    each = tokens / chunks
    return float(chunks * iteration_s(state.costs[b, i], int(each), 1, 0.5 * tokens, 0.5 * each * tokens))


@inner_inlined
def _token_s(state: State, b: int, i: int) -> float:
    decoding = int(state.signal[b, i, 1]) + 1
    context = state.signal[b, i, 4] + state.prompt[b, state.current[b]]
    return iteration_s(state.costs[b, i], decoding, decoding, context, context)


@inner
def _write_slot(state: State, b: int, i: int, out: F32, best: F64) -> None:
    """Fill the features of one instance; ``best`` holds the least and most of the candidates."""
    r, slo = state.current[b], state.ttft_slo[b] if state.ttft_slo[b] < np.inf else 5.0
    forecast, backlog, predicted = state.forecast[b, i], state.backlog[b, i], state.predicted[b, i]
    prompt, hit = float(state.prompt[b, r]), float(state.hits[b, i])
    full, rest = _work(state, b, i, prompt), _work(state, b, i, prompt - hit)
    token = _token_s(state, b, i)
    signal = state.signal[b, i]
    used, capacity = signal[5], float(state.kv_tokens[b, i])
    sent = state.sent_tokens[b, i]
    out[1] = _ratio(forecast, slo)
    out[2] = forecast <= slo
    out[3] = 1.0 - best[0] / forecast if forecast > best[0] else 0.0
    out[5] = _ratio(rest, slo)
    out[6] = _ratio(backlog, slo)
    out[7] = 1.0 - best[1] / backlog if backlog > best[1] else 0.0
    out[8] = hit / prompt
    out[9] = hit >= best[2]
    out[10] = _ratio(full - rest, slo)
    inflight = float(state.inflight[b, i])
    out[11] = _ratio(inflight, 16.0)
    out[12] = _ratio(inflight, best[3])
    out[13] = _ratio(signal[0], 8.0)
    out[14] = min(signal[1] / state.max_sequences[b, i], 1.0)
    out[15] = min(used / capacity, 1.0)
    out[16] = _ratio(prompt, max(signal[6], 1.0))
    out[17] = _ratio(token, state.tpot_slo[b] if state.tpot_slo[b] < np.inf else 0.05)
    out[18] = _ratio(float(state.sent[b, i]), 4.0)
    out[19] = _ratio(_work(state, b, i, sent), slo)
    speed = _work(state, b, i, 1024.0)
    out[20] = best[4] / speed
    out[21] = min(best[5] / token, 1.0)
    out[22] = min(best[6] / rest, 1.0) if rest > 0.0 else 1.0
    out[23] = _ratio(state.memory_wait[b, i], slo)
    out[24] = 1.0 - best[7] / predicted if predicted > best[7] else 0.0


@inner
def _write_context(state: State, b: int, out: F32, best: F64) -> None:
    r, slo = state.current[b], state.ttft_slo[b] if state.ttft_slo[b] < np.inf else 5.0
    prompt, count = float(state.prompt[b, r]), 0
    backlog = used = outstanding = keeps = 0.0
    for slot in range(state.candidates[b]):
        i = state.offered[b, slot]
        if i >= 0:
            count += 1
            backlog += state.backlog[b, i]
            used += min(state.signal[b, i, 5] / state.kv_tokens[b, i], 1.0)
            outstanding += state.inflight[b, i]
            keeps += state.forecast[b, i] <= slo
    p = state.program[b, r]
    deadline = state.deadline[b, p]
    out[0] = _ratio(prompt, 4096.0)
    out[1] = _ratio(prompt, 512.0)
    out[2] = best[2] / prompt
    out[3] = _ratio(float(count), 8.0)
    out[4] = _ratio(float(best[1]), slo)
    out[5] = _ratio(backlog / count, slo)
    out[6] = _ratio(float(best[0]), slo)
    out[7] = _ratio(outstanding / count, 16.0)
    out[8] = used / count
    out[9] = keeps / count
    out[10] = _ratio(state.now[b] - state.signal_time[b], 0.1)
    out[11] = state.current_kind[b] == 1
    out[13] = 1.0
    if deadline < np.inf:
        # Programs with a deadline declare their steps; how long a conversation goes on is not known.
        out[12] = _ratio(float(state.program_left[b, p]), 4.0)
        out[13] = min(max(1.0 - (state.now[b] - state.program_start[b, p]) / deadline, 0.0), 1.0)
    out[14] = state.tpot_slo[b] < np.inf
    weights = state.preference[b, 0] + state.preference[b, 1] + state.preference[b, 2]
    out[15] = state.preference[b, 1] / weights
    out[16] = state.preference[b, 2] / weights
    sent, shorter = state.dispatched[b], 0
    if sent > 0:
        remembered = min(sent, LATELY)
        for k in range(remembered):
            shorter += state.lately[b, k] < prompt - best[2]
        out[17] = shorter / remembered
        out[18] = _ratio(state.given_up[b] / sent, 0.1)


@inner
def _find_best(state: State, b: int, best: F64) -> None:
    """Find the least TTFT and backlog, the largest hit, the mean outstanding, and the least times of the candidates."""
    best[0] = best[1] = best[4] = best[5] = best[6] = best[7] = np.inf
    best[2], best[3] = 0.0, 0.0
    count, prompt = 0, float(state.prompt[b, state.current[b]])
    for slot in range(state.candidates[b]):
        i = state.offered[b, slot]
        if i < 0:
            continue
        count += 1
        best[0] = min(best[0], state.forecast[b, i])
        best[7] = min(best[7], state.predicted[b, i])
        best[1] = min(best[1], state.backlog[b, i])
        best[2] = max(best[2], float(state.hits[b, i]))
        best[3] += state.inflight[b, i]
        best[4] = min(best[4], _work(state, b, i, 1024.0))
        best[5] = min(best[5], _token_s(state, b, i))
        best[6] = min(best[6], _work(state, b, i, prompt - state.hits[b, i]))
    best[3] /= max(count, 1)


@kernel
def write_decisions(state: State, candidates: I32, features: F32, context: F32, count: I32) -> None:
    """Fill the decision arrays of all rows; see ``FEATURES``."""
    features[:] = 0.0
    context[:] = 0.0
    candidates[:] = 0
    for b in range(len(count)):
        count[b] = state.candidates[b]
        if count[b] == 0:
            continue
        best = state.best[b]
        _find_best(state, b, best)
        for slot in range(count[b]):
            i = state.offered[b, slot]
            if i < 0:
                # Holding is no instance: the router's own node stands for it.
                candidates[b, slot, 0] = state.fleet[b]
                features[b, slot, 0] = 1.0
                continue
            candidates[b, slot, 0] = i
            _write_slot(state, b, i, features[b, slot], best)
            shorter = 0
            for other in range(count[b]):
                j = state.offered[b, other]
                shorter += j >= 0 and state.forecast[b, j] < state.forecast[b, i]
            features[b, slot, 4] = shorter / count[b]
        _write_context(state, b, context[b], best)
