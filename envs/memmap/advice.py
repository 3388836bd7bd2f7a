"""What shadow prices and the hint say about a candidate."""

from __future__ import annotations

from schedrl.envs.memmap.choices import COPY, DROP
from schedrl.envs.memmap.state import State
from schedrl.kernels import inlined, inner_inlined


@inlined
def advantage(state: State, b: int, slot: int) -> float:
    """Return the priced seconds that a candidate is better than the slow layer, without what it displaces."""
    access, kind, layer = state.position[b], state.candidate[b, slot, 0], state.candidate[b, slot, 1]
    if kind == DROP:
        return 0.0
    buffer, t = state.access_buffer[b, access], state.access_op[b, access]
    start, end = state.candidate[b, slot, 3], state.candidate[b, slot, 4]
    size = state.size[b, buffer]
    slow, fast, entry = state.cost[b, access, 0], state.cost[b, access, layer], 0.0
    if state.access_write[b, access]:
        last = max(t, end - 1) if kind == COPY else t
        entry = size * (state.held[b, layer, last + 1] - state.held[b, layer, t])
        if kind != COPY:
            fast = state.dirty_cost[b, access, layer]
    elif kind == COPY:
        entry = size * (state.held[b, layer, t + 1] - state.held[b, layer, start + 1])
    elif state.valid_from[b, buffer] > state.ops[b]:
        fast = state.dirty_cost[b, access, layer]
    if kind == COPY:
        entry += state.bus_price[b] * size / state.read_rate[b, 0]
    found: float = slow - fast - entry
    return found


@inner_inlined
def follows_hint(state: State, b: int, slot: int) -> bool:
    """Whether a candidate does what the plan without offsets does at this access."""
    access, kind = state.position[b], state.candidate[b, slot, 0]
    if state.candidate[b, slot, 1] != state.hint[b, access]:
        return False
    return not state.access_write[b, access] or kind == DROP or (kind == COPY) == state.hint_back[b, access]


@inner_inlined
def advised_slot(state: State, b: int) -> int:
    """Return the candidate that does what the hint does, or else has the most priced advantage."""
    best, most = 0, -1e300
    for slot in range(state.candidates[b]):
        if follows_hint(state, b, slot):
            return slot
        worth = advantage(state, b, slot) - state.displaced[b, slot]
        if worth > most:
            best, most = slot, worth
    return best
