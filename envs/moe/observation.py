"""What a policy sees of the placement game: features of candidates and of the state, and the static graph.

All features are ratios, so that a policy trained on small instances reads large ones. Only the known windows and the
placement at the start decide them; the scored windows are hidden.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schedrl.arrays import F32, I32
from schedrl.envs.moe.layer_time import Hardware
from schedrl.envs.moe.placement_graph import EDGE_TYPES, NODE_FEATURES, most_edges, static_graph
from schedrl.graphs import Feature, FeatureTable
from schedrl.kernels import inner, inner_inlined, kernel

if TYPE_CHECKING:
    from schedrl.envs.moe.placement_state import State

__all__ = ["EDGE_TYPES", "FEATURES", "most_edges", "static_graph", "write_decisions"]


def _share(name: str, why: str) -> Feature:
    return Feature(name=name, unit="ratio", low=0.0, high=1.0, why=why)


def _signed(name: str, why: str) -> Feature:
    return Feature(name=name, unit="ratio", low=-1.0, high=1.0, why=why)


# "per bound" divides seconds of the forecast by the bound on the busiest device of the current layer: of even shares,
# the largest replica, and what is placed. Saturating ratios are x / (1 + x). A replica is one of the expert in hand.
FEATURES = FeatureTable(
    node=NODE_FEATURES,
    edge_types=EDGE_TYPES,
    edge=(),
    candidate_nodes=("expert", "device"),
    candidate=(
        _share("seconds", "seconds of the replica on the device, per bound"),
        _share("busy", "seconds of the device before it, per bound"),
        _signed("headroom", "seconds from the device's after it to the bound, per bound"),
        _signed("ahead", "how much earlier the device would be done than the last candidate, per bound"),
        _share("free", "share of the device's slots that are free"),
        _share("free among devices", "free slots per most free slots of a candidate"),
        _share("resident", "the device held the expert at the start: nothing moves"),
        _share("near", "some device of its node held it at the start: the move stays inside the node"),
        _share("move", "seconds of the device's moves in this layer after it, per those of its passes, saturating"),
        _share("speed", "seconds per token of the fastest device per those of this one"),
        _share("reading", "share of weight reading in the replica's time on the device, half where both take as long"),
        _share("network", "seconds per move between nodes of the best connected device per those of this one"),
        _share("node busy", "mean seconds of the devices of its node, per bound"),
        _share("node free", "share of the node's slots that are free"),
        _share("flow from device", "share of the expert's incoming tokens that come from the device"),
        _share("flow from node", "share of them that come from the device's node"),
        _signed("expected", "headroom less what the layer's remaining load is on the slots then free, per bound"),
        _share("rank", "number of the candidate per window"),
        _share("alone", "the device is empty"),
    ),
    context=(
        _share("progress", "placed replicas per replicas of all layers"),
        _share("layer progress", "share of the layer's experts that are placed"),
        _share("layers", "layers left per layers"),
        _share("load", "tokens per replica per mean over the layer's slots, saturating"),
        _share("replicas", "replicas of the expert per devices"),
        _share("replicas left", "share of the expert's replicas that are not placed"),
        _share("spread", "standard deviation of its load over the known windows, per its sum with the mean"),
        _share("remaining", "share of the layer's tokens that are not placed"),
        _share("largest", "seconds of the busiest device so far, per bound"),
        _share("balance", "mean seconds of the devices so far, per largest"),
        _share("ideal", "bound of even shares and the largest replica, per bound"),
        _share("spent", "cost of finished layers above their bounds, per all layers at this one's bound, saturating"),
        _share("initial", "there is a placement at the start, and moves cost"),
        _share("move cost", "seconds of one move inside a node per those of the layer in all windows, saturating"),
        _share("moves", "experts moved in this layer per slots"),
        _share("horizon", "scored windows, w / (w + 8)"),
        _share("routes", "transitions between layers are known"),
        _share("path", "tokens stay on their path: no return to a home device"),
        _share("candidates", "candidates per window"),
        _share("nodes", "one per number of nodes"),
    ),
)


@kernel
def write_decisions(
    hw: Hardware, state: State, candidates: I32, candidate_features: F32, context: F32, count: I32
) -> None:
    """Fill the current decision of every row; slots beyond ``count`` and finished rows are zero."""
    for b in range(len(count)):
        valid = state.candidates[b]
        count[b] = valid
        context[b, :] = 0.0
        candidates[b, :, :] = 0
        candidate_features[b, :, :] = 0.0
        if valid > 0:
            layer, experts = state.layer[b], state.experts[b]
            expert = state.sequence[b, layer, state.position[b]]
            bound = max(max(state.ideal_s[b, layer], state.peak_s[b]), 1e-12)
            for slot in range(valid):
                candidates[b, slot, 0] = state.layers[b] + layer * experts + expert
                candidates[b, slot, 1] = state.layers[b] * (1 + experts) + state.option[b, slot]
            _write_candidates(hw, state, b, expert, bound, candidate_features[b])
            _write_context(hw, state, b, expert, bound, candidates.shape[1], context[b])


@inner_inlined
def _clipped(value: float) -> float:
    return min(max(value, -1.0), 1.0)


@inner_inlined
def _saturating(value: float) -> float:
    return max(value, 0.0) / (1.0 + max(value, 0.0))


@inner
def _write_candidates(hw: Hardware, state: State, b: int, expert: int, bound: float, out: F32) -> None:
    layer, valid, devices = state.layer[b], state.candidates[b], hw.devices[b]
    load = state.forecast[b, layer, expert] / state.replicas[b, layer, expert]
    passes_s = state.iterations[b] * state.windows[b] * bound
    fastest, connected, most_free, unfilled = hw.token_s[b, 0], hw.inter_move_s[b, 0], 1, 0
    for d in range(devices):
        fastest = min(fastest, hw.token_s[b, d])
        connected = min(connected, hw.inter_move_s[b, d])
        unfilled += state.free[b, d]
    for slot in range(valid):
        most_free = max(most_free, state.free[b, state.option[b, slot]])
    others_load = (state.tokens_left[b] - load) / max(unfilled - 1, 1)
    for slot in range(valid):
        d = state.option[b, slot]
        node, after, busy = hw.node[b, d], state.option_s[b, slot], state.busy[b, d]
        slots = state.first_slot[b, d + 1] - state.first_slot[b, d]
        network = 0 if state.near[b, node] else 1
        fetched = 1 if state.has_initial[b] and not state.resident[b, d] and not state.holding[b, d] else 0
        intra = state.fetched[b, 0, d] + fetched * (1 - network)
        inter = state.fetched[b, 1, d] + fetched * network
        move_s = max(intra * hw.intra_move_s[b, d], inter * hw.inter_move_s[b, d])
        rest_s = (state.free[b, d] - 1) * others_load * hw.token_s[b, d]
        out[slot, 0] = min((after - busy) / bound, 1.0)
        out[slot, 1] = min(busy / bound, 1.0)
        out[slot, 2] = _clipped((bound - after) / bound)
        out[slot, 3] = _clipped((state.option_s[b, valid - 1] - after) / bound)
        out[slot, 4] = state.free[b, d] / slots
        out[slot, 5] = state.free[b, d] / most_free
        out[slot, 6] = 1.0 if state.resident[b, d] else 0.0
        out[slot, 7] = 1.0 if state.near[b, node] else 0.0
        out[slot, 8] = move_s / (move_s + passes_s)
        out[slot, 9] = fastest / hw.token_s[b, d]
        out[slot, 10] = hw.weight_s[b, d] / (hw.weight_s[b, d] + load * hw.token_s[b, d])
        out[slot, 11] = connected / hw.inter_move_s[b, d]
        out[slot, 12] = min(state.node_busy[b, node] / hw.mates[b, d] / bound, 1.0)
        out[slot, 13] = state.node_free[b, node] / state.node_slots[b, node]
        out[slot, 14] = min(state.incoming[b, d], 1.0)
        out[slot, 15] = min(state.node_incoming[b, node], 1.0)
        out[slot, 16] = _clipped((bound - after - rest_s) / bound)
        out[slot, 17] = slot / len(out)
        out[slot, 18] = 1.0 if state.free[b, d] == slots else 0.0


@inner
def _write_context(hw: Hardware, state: State, b: int, expert: int, bound: float, window: int, out: F32) -> None:
    layer, layers, devices = state.layer[b], state.layers[b], hw.devices[b]
    replicas, tokens = state.replicas[b, layer, expert], max(state.layer_tokens[b], 1e-12)
    load = state.forecast[b, layer, expert] / replicas
    busy, moved = 0.0, 0
    for d in range(devices):
        busy += state.busy[b, d]
        moved += state.fetched[b, 0, d] + state.fetched[b, 1, d]
    passes_s = state.iterations[b] * state.windows[b] * bound
    out[0] = 1.0 - state.left[b] / state.decisions[b]
    out[1] = state.position[b] / state.experts[b]
    out[2] = (layers - layer) / layers
    out[3] = _saturating(load * state.slots[b] / tokens)
    out[4] = min(replicas / devices, 1.0)
    out[5] = 1.0 - state.placed[b] / replicas
    out[6] = state.spread[b, layer, expert]
    out[7] = min(max(state.tokens_left[b] / tokens, 0.0), 1.0)
    out[8] = state.peak_s[b] / bound
    out[9] = min(busy / devices / max(state.peak_s[b], 1e-12), 1.0)
    out[10] = min(state.ideal_s[b, layer] / bound, 1.0)
    # Per seconds of the forecast alone: the unit of rewards knows the hidden windows.
    out[11] = _saturating(state.spent_s[b] / (passes_s * layers))
    out[12] = 1.0 if state.has_initial[b] else 0.0
    out[13] = hw.intra_move_s[b, 0] / (hw.intra_move_s[b, 0] + passes_s)
    out[14] = min(moved / state.slots[b], 1.0)
    out[15] = state.windows[b] / (state.windows[b] + 8.0)
    out[16] = 1.0 if state.has_sources[b] else 0.0
    out[17] = 1.0 if state.path[b] else 0.0
    out[18] = state.candidates[b] / window
    out[19] = 1.0 / hw.nodes[b]
