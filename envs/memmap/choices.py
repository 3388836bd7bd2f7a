"""What a game offers at an access: keep, copy or produce in a fast layer, or leave the access to the slow one."""

from __future__ import annotations

from schedrl.envs.memmap.space import find_offset, place_is_free
from schedrl.envs.memmap.state import JUST_IN_TIME, Options, State
from schedrl.envs.memmap.supply import bus_of, copy_end, copy_start
from schedrl.kernels import inlined, inner_inlined

NO_COPY, COPY, DROP = 0, 1, 2


@inlined
def _offer(state: State, b: int, kind: int, layer: int, offset: int, window: tuple[int, int]) -> None:
    slot = state.candidates[b]
    state.candidate[b, slot, 0] = kind
    state.candidate[b, slot, 1] = layer
    state.candidate[b, slot, 2] = offset
    state.candidate[b, slot, 3] = window[0]
    state.candidate[b, slot, 4] = window[1]
    state.candidates[b] = slot + 1


@inner_inlined
def _group_layer(state: State, b: int, access: int) -> int:
    """Return the layer that the access's alias group is bound to, -1 when it is free to choose."""
    group = state.access_group[b, access]
    return -1 if group < 0 else state.group_layer[b, group]


@inner_inlined
def bound_to_slow(state: State, b: int, access: int, options: Options) -> bool:
    """Whether a back-up, the alias group, or the promise of a masked game leaves only the slow layer."""
    group, buffer = state.access_group[b, access], state.access_buffer[b, access]
    if group >= 0 and (state.forced_group[b, group] or state.group_layer[b, group] == 0):
        return True
    if state.access_write[b, access] and state.forced[b, buffer]:
        return True
    if options.masked and not state.safe[b, access]:
        return True
    found: bool = state.worth[b, buffer] < options.negligible * state.slow_latency[b]
    return found


@inner_inlined
def _offer_results(state: State, b: int, options: Options) -> None:
    """Offer to produce a buffer in a fast layer, alone or with a copy back to the slow one."""
    access = state.position[b]
    t, buffer = state.access_op[b, access], state.access_buffer[b, access]
    bound = _group_layer(state, b, access)
    used = state.next_access[b, access] >= 0
    end = -2
    # What an update in place takes over must not be on its way to the slow layer still.
    taken_over = options.masked and state.access_group[b, state.final_access[b, access]] >= 0
    if (used or state.output[b, buffer]) and not taken_over:
        end = copy_end(bus_of(state), b, t, state.ops[b], state.size[b, buffer] / state.write_rate[b, 0])
    for layer in range(1, state.layers[b]):
        if bound > 0 and layer != bound:
            continue
        for fit in options.fits:
            for written_back in range(2):
                # A masked game promises that outputs reach the slow layer.
                if end >= 0 if written_back == 1 else not (options.masked and state.output[b, buffer]):
                    _offer_produced(state, b, layer, t, fit, options.masked, end if written_back == 1 else -2)
            if bound > 0:
                break


@inner_inlined
def _offer_produced(state: State, b: int, layer: int, t: int, fit: int, masked: bool, end: int) -> None:
    access = state.position[b]
    buffer = state.access_buffer[b, access]
    last = max(t, end - 1)
    if _group_layer(state, b, access) > 0:
        offset = state.group_offset[b, state.access_group[b, access]]
        state.displaced[b, state.candidates[b]] = 0.0
        if not place_is_free(state, b, buffer, layer, offset, t, last):
            return
    else:
        offset = find_offset(state, b, buffer, layer, t, last, fit, masked, state.candidates[b])
    if offset >= 0:
        _offer(state, b, COPY if end >= 0 else NO_COPY, layer, offset, (t if end >= 0 else 0, max(end, 0)))


@inner_inlined
def _offer_operand(state: State, b: int, options: Options) -> None:
    """Offer to keep a buffer where it is, or to have fetched it in time."""
    access = state.position[b]
    t, buffer = state.access_op[b, access], state.access_buffer[b, access]
    bound, here = _group_layer(state, b, access), state.here[b, buffer]
    kept = -1
    if here >= 0 and state.lost_by[b, here] < 0:
        kept = state.residence[b, here, 1]
        offset = state.residence[b, here, 2]
        if bound <= 0 or (bound == kept and state.group_offset[b, state.access_group[b, access]] == offset):
            state.displaced[b, state.candidates[b]] = 0.0
            _offer(state, b, NO_COPY, kept, offset, (0, 0))
    earliest = max(state.valid_from[b, buffer] - 1, t - 1 - options.lookback, -1)
    for layer in range(1, state.layers[b]):
        # A copy to where the buffer already is gains nothing.
        if layer == kept or (bound > 0 and bound != layer):
            continue
        demand = state.size[b, buffer] / state.read_rate[b, 0]
        for window in options.windows:
            start = copy_start(bus_of(state), b, 1, earliest, t, demand, window)
            if start < -1:
                continue
            for fit in options.fits:
                _offer_fetched(state, b, layer, start, t, fit, options.masked)
                if bound > 0:
                    break


@inner_inlined
def _offer_fetched(state: State, b: int, layer: int, start: int, t: int, fit: int, masked: bool) -> None:
    access = state.position[b]
    buffer = state.access_buffer[b, access]
    if _group_layer(state, b, access) > 0:
        offset = state.group_offset[b, state.access_group[b, access]]
        state.displaced[b, state.candidates[b]] = 0.0
        if not place_is_free(state, b, buffer, layer, offset, start + 1, t):
            return
    else:
        offset = find_offset(state, b, buffer, layer, start + 1, t, fit, masked, state.candidates[b])
    if offset >= 0:
        _offer(state, b, COPY, layer, offset, (start, t))


@inner_inlined
def late_write_back(state: State, b: int, buffer: int, before: int, options: Options) -> tuple[int, int]:
    """Return the window of a copy back that makes the slow copy valid before an operation; (0, -2) when impossible."""
    here = state.here[b, buffer]
    if here < 0:
        return 0, -2
    end = before
    if state.lost_by[b, here] >= 0:
        # Someone else has the place by now: only the time up to the last use is sure.
        end = min(before, state.residence[b, here, 4] + 1)
    defined = state.access_op[b, state.definition_access[b, buffer]]
    earliest = max(defined, end - 1 - options.lookback)
    start = copy_start(bus_of(state), b, 0, earliest, end, state.size[b, buffer] / state.write_rate[b, 0], JUST_IN_TIME)
    return (start, end) if start >= defined else (0, -2)


@inner_inlined
def find_candidates(state: State, b: int, options: Options) -> None:
    """Fill the candidates of the access at hand: fast layers first, the slow one last; none at a dead end."""
    state.candidates[b] = 0
    access = state.position[b]
    slow_only = bound_to_slow(state, b, access, options)
    buffer = state.access_buffer[b, access]
    if state.access_write[b, access]:
        if not slow_only:
            _offer_results(state, b, options)
        if _group_layer(state, b, access) <= 0:
            state.displaced[b, state.candidates[b]] = 0.0
            _offer(state, b, DROP, 0, -1, (0, 0))
        return
    if not slow_only:
        _offer_operand(state, b, options)
    if _group_layer(state, b, access) > 0:
        return
    t = state.access_op[b, access]
    window = (0, 0)
    if state.valid_from[b, buffer] > t:
        if state.valid_from[b, buffer] <= state.ops[b]:
            # A copy back is under way and comes too late for this access.
            return
        window = late_write_back(state, b, buffer, t, options)
        if window[1] < 0:
            return
    state.displaced[b, state.candidates[b]] = 0.0
    _offer(state, b, DROP, 0, -1, window)
