"""What a policy sees of an expert cache: the features of the experts on offer, the context, and the static graph.

Nothing in it depends on requests that are not known yet, but for the order of their layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from schedrl.arrays import F32, I32
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.graphs import Feature, FeatureTable, StaticGraph
from schedrl.kernels import inlined, inner_inlined, kernel

if TYPE_CHECKING:
    from schedrl.envs.moe.cache_state import State

__all__ = ["EDGE_TYPES", "FEATURES", "chance", "most_edges", "static_graph", "write_decisions"]

EDGE_TYPES = ("in layer", "layer of", "next layer")

# Kinds of decisions, as in the state; kernels of two files cannot import each other.
_DEMAND, _BRING, _MAKE_ROOM = 1, 2, 3
# Weight of what is known of an expert alone against one observation of what followed others.
_PRIOR = 1.0


def _share(name: str, why: str) -> Feature:
    return Feature(name=name, unit="ratio", low=0.0, high=1.0, why=why)


# A visit is a request of a layer; "x per x and y" is x / (x + y), which grows from 0 to 1 as x does. Chances are
# estimates from the requests so far.
FEATURES = FeatureTable(
    node=(
        _share("expert", "the node is an expert, otherwise a layer"),
        _share("layer", "position of the layer"),
        _share("initial", "the expert is resident at the start; for a layer the share of such experts"),
        _share("compute", "computation of a request of the layer, per that and the time of one load"),
        _share("experts", "experts of a request per experts of a layer, at most"),
        _share("capacity", "experts that fit per experts of all layers"),
    ),
    edge_types=EDGE_TYPES,
    edge=(),
    candidate_nodes=("expert",),
    candidate=(
        _share("evict", "the slot lets a resident expert go"),
        _share("bring", "the slot loads an absent expert ahead of need"),
        _share("age", "requests since it was last needed, per those and the number of layers; 1 before any"),
        _share("age rank", "share of the candidates that were needed later"),
        _share(
            "visits since",
            "visits of its layer since, if layers keep their order, per those and 4; 1 before any",
        ),
        _share("recent", "moving average of its being needed over the visits of its layer"),
        _share("frequency", "share of the visits of its layer that needed it"),
        _share("popularity", "share of its layer's experts with a lower moving average"),
        _share("distance", "requests until the next visit of its layer, per number of layers; 1 if none comes"),
        _share("chance", "chance to be needed at the next visit of its layer"),
        _share("chance among candidates", "the same per largest of the candidates"),
        Feature(
            name="affinity",
            unit="ratio",
            low=-1.0,
            high=1.0,
            why="how far the experts needed now raise its chance over the moving average, where its layer comes next",
        ),
        _share("wait", "expected requests until it is needed, per those and the number of layers"),
        _share("wait rank", "share of the candidates that are expected to be needed sooner"),
        _share("next", "its layer comes next"),
        _share("last visit", "the last visit of its layer needed it"),
        _share("unused", "brought ahead of need, and not yet needed"),
        _share("same layer", "it is of the layer of the expert to come"),
        _share("crowd", "share of its layer's experts that are in memory"),
    ),
    context=(
        _share("demand", "an expert must leave for one that the request waits for"),
        _share("bring", "an expert can come ahead of need"),
        _share("make room", "an expert must leave for one that comes ahead of need"),
        _share("progress", "requests served per requests"),
        _share("layer", "position of the request's layer"),
        _share("load", "time of one load per that and the request's computation"),
        _share("next load", "the same with the next request's computation"),
        _share("window", "computation left when the channel is free, per that and the time of one load"),
        _share("in time", "share of a load that fits into what is left of the computation"),
        _share("queue", "loads that the request still waits for, per experts of a request"),
        _share("free", "free places per places"),
        _share("capacity", "places per experts of all layers"),
        _share("width", "experts of a request per experts of a layer"),
        _share("hits", "share of the needed experts so far that were resident in time"),
        _share("stall", "share of the time until now in which nothing was computed"),
        _share("useful", "share of the experts brought ahead of need that were needed before they left"),
        _share("on the way", "share of the next request's layer that is in memory"),
        _share("candidates", "candidates per window"),
        _share("hidden", "share of the experts in question that only the window keeps from being candidates"),
        _share("incoming", "chance of the expert to come, 1 if the request waits for it, 0 if none is to come"),
    ),
)


@inlined
def chance(state: State, b: int, r: int, expert: int) -> float:
    """Estimate the chance that an expert is needed at the next visit of its layer, once request r is known.

    Where that visit comes next, what followed the experts of request r in the past counts, with the expert's own
    moving average as one observation; otherwise that average alone.
    """
    experts = state.experts[b]
    seen, times = 0.0, 0.0
    if r + 1 < state.steps[b] and state.layer[b, r + 1] == expert // experts:
        for k in range(state.width[b]):
            source = state.needed[b, r, k]
            if source >= 0:
                seen += state.sources[b, source]
                times += state.follows[b, source, expert % experts]
    share: float = (times + _PRIOR * state.recent[b, expert]) / (seen + _PRIOR)
    return min(max(share, 0.0), 1.0)


@kernel
def write_decisions(state: State, candidates: I32, candidate_features: F32, context: F32, count: I32) -> None:
    """Fill the current decision of every row; slots beyond ``count`` and finished rows are zero."""
    for b in range(len(count)):
        valid = state.candidates[b]
        count[b] = valid
        candidates[b, :, 0] = 0
        candidate_features[b, :, :] = 0.0
        context[b, :] = 0.0
        if valid == 0:
            continue
        for slot in range(valid):
            expert = state.offered[b, slot]
            if expert >= 0:
                candidates[b, slot, 0] = expert
                _write_candidate(state, b, expert, candidate_features[b, slot])
            else:
                # To load nothing is shown as the layer of the request.
                candidates[b, slot, 0] = state.layers[b] * state.experts[b] + state.layer[b, state.step[b]]
        _compare(state, b, valid, candidate_features[b])
        _write_context(state, b, candidates.shape[1], context[b])


@inner_inlined
def _write_candidate(state: State, b: int, expert: int, out: F32) -> None:
    r, experts, layers = state.step[b], state.experts[b], state.layers[b]
    layer, last = expert // experts, state.last_use[b, expert]
    bring = state.phase[b] == _BRING
    out[0], out[1] = 0.0 if bring else 1.0, 1.0 if bring else 0.0
    out[2], out[4] = 1.0, 1.0
    visits = state.visits[b, layer]
    if last >= 0:
        age = r - last
        out[2] = age / (age + layers)
        since = (state.before[b, layer] - last) / layers
        out[4] = since / (since + 4.0)
    recent, below, crowd = state.recent[b, expert], 0, 0
    for other in range(layer * experts, (layer + 1) * experts):
        below += state.recent[b, other] < recent
        crowd += state.place[b, other] >= 0
    out[5] = min(max(recent, 0.0), 1.0)
    out[6] = state.uses[b, expert] / max(visits, 1)
    out[7] = below / experts
    after = state.next_visit[b, r, layer]
    out[8] = min((after - r) / layers, 1.0) if after < state.steps[b] else 1.0
    likely = chance(state, b, r, expert)
    out[9] = likely
    if after == r + 1 and after < state.steps[b]:
        out[11] = min(max(likely - recent, -1.0), 1.0)
        out[14] = 1.0
    # Later visits are a round of the layers apart, as far as these keep their order.
    wait = after - r + (1.0 - likely) * layers / min(max(recent, 1e-3), 1.0)
    out[12] = wait / (wait + layers)
    out[15] = last >= 0 and last == state.before[b, layer]
    out[16] = state.early[b, expert]
    out[17] = not bring and state.incoming[b] // experts == layer
    out[18] = crowd / experts


@inner_inlined
def _compare(state: State, b: int, valid: int, out: F32) -> None:
    """Fill what compares the candidates with each other."""
    largest = 1e-12
    for slot in range(valid):
        largest = max(largest, out[slot, 9])
    for slot in range(valid):
        if state.offered[b, slot] < 0:
            continue
        later, sooner = 0, 0
        for other in range(valid):
            if state.offered[b, other] >= 0:
                later += out[other, 2] < out[slot, 2]
                sooner += out[other, 12] < out[slot, 12]
        out[slot, 3], out[slot, 13] = later / valid, sooner / valid
        out[slot, 10] = out[slot, 9] / largest


@inner_inlined
def _write_context(state: State, b: int, window: int, out: F32) -> None:
    r, phase, load = state.step[b], state.phase[b], state.load_s[b]
    duration = state.duration[b, r]
    out[0], out[1], out[2] = phase == _DEMAND, phase == _BRING, phase == _MAKE_ROOM
    out[3] = r / state.steps[b]
    out[4] = state.layer[b, r] / state.layers[b]
    out[5] = load / (load + duration)
    left = max(min(state.start[b] + duration - max(state.channel[b], state.start[b]), duration), 0.0)
    out[7] = left / (left + load)
    out[8] = min(left / load, 1.0)
    out[9] = (state.queued[b] - state.at[b]) / state.width[b]
    out[10] = 1.0 - state.residents[b] / state.places[b]
    out[11] = state.places[b] / (state.layers[b] * state.experts[b])
    out[12] = min(state.width[b] / state.experts[b], 1.0)
    out[13] = state.hits[b] / max(state.needs[b], 1)
    now = state.start[b]
    if now > 0.0:
        out[14] = min(max(1.0 - (state.left[b, 0] - state.left[b, r]) / now, 0.0), 1.0)
    out[15] = state.used[b] / max(state.brought[b], 1)
    if r + 1 < state.steps[b]:
        out[6] = load / (load + state.duration[b, r + 1])
        experts = state.experts[b]
        base, there = state.layer[b, r + 1] * experts, 0
        for expert in range(base, base + experts):
            there += state.place[b, expert] >= 0
        out[16] = there / experts
    out[17] = state.candidates[b] / window
    out[18] = state.hidden[b] / (state.hidden[b] + state.candidates[b])
    if phase in (_DEMAND, _MAKE_ROOM):
        out[19] = state.hope[b]


def static_graph(instance: ExpertCacheInstance) -> StaticGraph:
    """Return the graph of an instance: the experts of all layers by number, then the layers.

    Every expert has an edge to its layer, one back, and one to the layer after it (after the last, the first).
    """
    layers, experts, total = instance.layers, instance.experts, instance.total
    number = np.arange(total)
    layer = number // experts
    pairs = ((number, total + layer), (total + layer, number), (number, total + (layer + 1) % layers))
    resident = np.zeros(total)
    resident[instance.initial] = 1.0
    table = np.zeros((total + layers, len(FEATURES.node)))
    table[:total, 0] = 1.0
    table[:, 1] = np.concatenate([layer, np.arange(layers)]) / layers
    table[:, 2] = np.concatenate([resident, resident.reshape(layers, experts).mean(axis=1)])
    compute = instance.compute_s / (instance.compute_s + instance.load_s)
    table[:, 3] = np.concatenate([compute[layer], compute])
    table[:, 4] = min(instance.requests.shape[1] / experts, 1.0)
    table[:, 5] = min(instance.capacity / total, 1.0)
    return StaticGraph(
        node_features=table.astype(np.float32),
        edge_index=np.concatenate([np.stack(pair) for pair in pairs], axis=1).astype(np.int32),
        edge_type=np.repeat(np.arange(len(pairs), dtype=np.int8), total),
        edge_features=np.zeros((len(pairs) * total, 0), dtype=np.float32),
    )


def most_edges(instance: ExpertCacheInstance) -> int:
    """Return the edges of every instance with as many experts and layers."""
    return 3 * instance.total
