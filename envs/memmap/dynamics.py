"""The dynamics of the mapping game: decide one access, take decisions back at dead ends, pay for latency saved."""

from __future__ import annotations

from schedrl.arrays import F32, I32, Bool
from schedrl.envs.memmap.advice import advised_slot
from schedrl.envs.memmap.choices import COPY, DROP, find_candidates, late_write_back
from schedrl.envs.memmap.space import add_to_order, displace, forget_old, order_anew
from schedrl.envs.memmap.state import Options, State
from schedrl.envs.memmap.supply import (
    add_copy,
    bus_of,
    finish_outward,
    recount_queue,
    remove_last_copy,
    unfinish_outward,
)
from schedrl.kernels import inlined, inner_inlined, kernel


@inner_inlined
def _set_latency(state: State, b: int, t: int) -> None:
    """Compute one operation's latency from its bytes, in the order of sums that ``latency.py`` has."""
    slow = state.moved[b, t, 0, 0] + state.moved[b, t, 0, 1]
    memory = state.moved[b, t, 0, 0] / state.read_rate[b, 0] + state.moved[b, t, 0, 1] / state.write_rate[b, 0]
    total = slow
    for layer in range(1, state.layers[b]):
        memory = memory + state.moved[b, t, layer, 0] / state.read_rate[b, layer]
        memory = memory + state.moved[b, t, layer, 1] / state.write_rate[b, layer]
        total += state.moved[b, t, layer, 0] + state.moved[b, t, layer, 1]
    share = min(state.overhead_window[b], slow) / max(total, 1)
    latency = max(state.compute[b, t], memory + share * state.compute[b, t])
    state.saved[b] += state.trips[b, t] * (state.latency[b, t] - latency)
    state.latency[b, t] = latency


@inlined
def _move(state: State, b: int, access: int, source: int, target: int) -> None:
    """Let another layer serve an access."""
    t, way = state.access_op[b, access], 1 if state.access_write[b, access] else 0
    state.moved[b, t, source, way] -= state.access_bytes[b, access]
    state.moved[b, t, target, way] += state.access_bytes[b, access]
    state.layer[b, access] = target
    _set_latency(state, b, t)


@inner_inlined
def _settle_supply(state: State, b: int, first: int, until: int) -> None:
    """Fix how much copying the operations from ``first`` up to before ``until`` hide."""
    for t in range(first, until):
        latency = state.base_latency[b, t]
        if not state.elapsed[b]:
            slow_bus = (
                state.moved[b, t, 0, 0] / state.read_rate[b, 0] + state.moved[b, t, 0, 1] / state.write_rate[b, 0]
            )
            latency = state.latency[b, t] - slow_bus
        state.supply[b, t + 1] = state.supply[b, t] + state.trips[b, t] * latency


@inner_inlined
def _reside(state: State, b: int, buffer: int, slot: int, first: int, last: int) -> None:
    residence = state.residences[b]
    state.residence[b, residence, 0] = buffer
    state.residence[b, residence, 1] = state.candidate[b, slot, 1]
    state.residence[b, residence, 2] = state.candidate[b, slot, 2]
    state.residence[b, residence, 3] = first
    state.residence[b, residence, 4] = last
    state.lost_by[b, residence] = -1
    displace(state, b, residence)
    state.here[b, buffer] = residence
    state.residences[b] = residence + 1
    add_to_order(state, b, residence)


@inner_inlined
def _remember(state: State, b: int, buffer: int) -> None:
    access, here = state.position[b], state.here[b, buffer]
    state.undo[b, access, 0] = here
    state.undo[b, access, 1] = state.residence[b, here, 4] if here >= 0 else -1
    state.undo[b, access, 2] = state.valid_from[b, buffer]
    state.undo[b, access, 3] = state.touched[b, buffer]
    state.undo[b, access, 4] = state.residences[b]
    state.undo[b, access, 5] = state.copies[b]
    state.undo[b, access, 6] = -1


@inner_inlined
def _bind_group(state: State, b: int, slot: int) -> None:
    access = state.position[b]
    group = state.access_group[b, access]
    if group >= 0 and state.group_layer[b, group] < 0:
        state.group_layer[b, group] = state.candidate[b, slot, 1]
        state.group_offset[b, group] = state.candidate[b, slot, 2]
        state.group_first[b, group] = access
        state.undo[b, access, 6] = group


@inner_inlined
def decide(state: State, b: int, slot: int, options: Options) -> None:
    """Carry out one candidate and go on to the next access."""
    access = state.position[b]
    t, buffer = state.access_op[b, access], state.access_buffer[b, access]
    kind, layer = state.candidate[b, slot, 0], state.candidate[b, slot, 1]
    start, end = state.candidate[b, slot, 3], state.candidate[b, slot, 4]
    _remember(state, b, buffer)
    _bind_group(state, b, slot)
    write, last = state.access_write[b, access], t
    inward = 1 if kind == COPY and not write else 0
    if write and kind == DROP:
        state.valid_from[b, buffer] = t + 1
    if start < end and inward == 0:
        state.valid_from[b, buffer] = end
        last = end - 1 if kind == DROP else max(t, end - 1)
    if kind != DROP and (write or kind == COPY):
        _reside(state, b, buffer, slot, start + 1 if inward == 1 else t, last)
    elif kind != DROP or start < end:
        here = state.here[b, buffer]
        state.residence[b, here, 4] = max(state.residence[b, here, 4], last)
    if start < end:
        add_copy(bus_of(state), b, buffer, inward, state.residence[b, state.here[b, buffer], 1], start, end)
    if layer > 0:
        _move(state, b, access, 0, layer)
    state.touched[b, buffer] = access
    state.position[b] = access + 1
    state.decisions[b] += 1
    following = state.ops[b] if access + 1 == state.accesses[b] else state.access_op[b, access + 1]
    if following > t:
        _settle_supply(state, b, t, following)
        finish_outward(bus_of(state), b, following)
        forget_old(state, b, following - options.lookback)


@inner_inlined
def _take_back(state: State, b: int) -> None:
    """Undo the last decision; the lists of offsets and of copies must be put in order afterwards."""
    access = state.position[b] - 1
    buffer = state.access_buffer[b, access]
    if state.layer[b, access] > 0:
        _move(state, b, access, state.layer[b, access], 0)
    if state.copies[b] > state.undo[b, access, 5]:
        remove_last_copy(bus_of(state), b)
    state.residences[b] = state.undo[b, access, 4]
    for residence in range(state.residences[b]):
        if state.lost_by[b, residence] == access:
            state.lost_by[b, residence] = -1
    here = state.undo[b, access, 0]
    state.here[b, buffer] = here
    if here >= 0:
        state.residence[b, here, 4] = state.undo[b, access, 1]
    state.valid_from[b, buffer] = state.undo[b, access, 2]
    state.touched[b, buffer] = state.undo[b, access, 3]
    if state.undo[b, access, 6] >= 0:
        state.group_layer[b, state.undo[b, access, 6]] = -1
    state.position[b] = access


@inner_inlined
def _back_up(state: State, b: int, buffer: int, access: int, options: Options) -> None:
    """Return to the decision that led to a dead end, and bind its alias group or buffer to the slow layer."""
    group = state.access_group[b, access] if access >= 0 else -1
    if group < 0 or state.group_layer[b, group] <= 0:
        access = state.definition_access[b, buffer]
        group = state.access_group[b, access]
    if group >= 0 and state.group_layer[b, group] > 0:
        state.forced_group[b, group] = True
        access = state.group_first[b, group]
    else:
        state.forced[b, buffer] = True
    while state.position[b] > access:
        _take_back(state, b)
    state.backups[b] += 1
    unfinish_outward(bus_of(state), b, state.access_op[b, access])
    recount_queue(bus_of(state), b)
    order_anew(state, b, state.access_op[b, access] - options.lookback)


@inner_inlined
def _write_back(state: State, b: int, buffer: int, start: int, end: int) -> None:
    """Add a copy back that belongs to no access."""
    here = state.here[b, buffer]
    add_copy(bus_of(state), b, buffer, 0, state.residence[b, here, 1], start, end)
    state.residence[b, here, 4] = max(state.residence[b, here, 4], end - 1)
    state.valid_from[b, buffer] = end


@inner_inlined
def _stranded_output(state: State, b: int, options: Options) -> int:
    """Write back outputs that only a fast layer holds at the end; return one for which that is impossible, or -1."""
    for buffer in range(state.buffers[b]):
        if state.output[b, buffer] and state.valid_from[b, buffer] > state.ops[b]:
            start, end = late_write_back(state, b, buffer, state.ops[b], options)
            if end < 0:
                return buffer
            _write_back(state, b, buffer, start, end)
    return -1


@inner_inlined
def _go_on(state: State, b: int, slot: int, keep: int, advised: bool, options: Options) -> None:
    """Carry out a candidate, if any, and offer the next decision.

    On the way lie dead ends and, if wanted, accesses without a choice. ``advised`` takes the decisions too, as the
    hint and the prices say, to the end.
    """
    while True:
        if slot >= 0:
            decide(state, b, slot, options)
        if state.position[b] == state.accesses[b]:
            state.candidates[b] = 0
            return
        find_candidates(state, b, options)
        count = state.candidates[b]
        if count == 0:
            access = state.position[b]
            _back_up(state, b, state.access_buffer[b, access], access, options)
            slot = -1
            continue
        slot = 0
        if count > 1 or not options.skip_forced or state.position[b] >= state.accesses[b] - keep:
            if not advised:
                return
            slot = advised_slot(state, b)


@inner_inlined
def _forget_write_backs(state: State, b: int, copies: int) -> None:
    while state.copies[b] > copies:
        buffer = state.copy[b, state.copies[b] - 1, 0]
        remove_last_copy(bus_of(state), b)
        state.valid_from[b, buffer] = state.ops[b] + 1
        here, touched = state.here[b, buffer], state.touched[b, buffer]
        state.residence[b, here, 4] = max(state.access_op[b, touched], state.residence[b, here, 3])


@kernel
def reset_row(state: State, b: int, options: Options) -> None:
    """Start an episode of the instance whose static arrays are in the row."""
    ops, accesses, buffers = state.ops[b], state.accesses[b], state.buffers[b]
    for counter in (state.position, state.residences, state.copies, state.backups, state.decisions, state.invalid):
        counter[b] = 0
    state.saved[b] = 0.0
    state.paid[b] = 0.0
    state.layer[b, :accesses] = 0
    state.moved[b, :ops] = 0
    for a in range(accesses):
        way = 1 if state.access_write[b, a] else 0
        state.moved[b, state.access_op[b, a], 0, way] += state.access_bytes[b, a]
    for t in range(ops):
        state.latency[b, t] = state.base_latency[b, t]
    state.supply[b, 0] = 0.0
    _settle_supply(state, b, 0, state.access_op[b, 0])
    state.ordered[b, :] = 0
    state.under_way[b, :, :] = 0
    for n in range(buffers):
        state.here[b, n] = -1
        state.touched[b, n] = -1
        state.forced[b, n] = False
        state.valid_from[b, n] = 0 if state.definition_access[b, n] < 0 else ops + 1
    for g in range(state.groups[b]):
        state.group_layer[b, g] = -1
        state.forced_group[b, g] = False
    state.moves_on[b] = True


@kernel
def step_rows(state: State, action: I32, reward: F32, done: Bool, keep: int, advised: bool, options: Options) -> None:
    """Carry out one candidate per row and go on to the next decision, or as ``advised`` to the end.

    Rows that ``moves_on`` marks go on without one. The last ``keep`` accesses are decisions even when forced. Adds
    the latency saved since the last reward, in units of the latency without fast memory, for rows with an action.
    """
    for b in range(len(action)):
        slot = action[b]
        if state.moves_on[b]:
            # The action was carried out already, before a dead end at the program's end.
            slot = -1
        elif slot >= state.candidates[b]:
            state.invalid[b] += 1
            slot = -1
        if slot >= 0 or state.moves_on[b]:
            _go_on(state, b, slot, keep, advised, options)
            state.moves_on[b] = False
        if action[b] >= 0:
            # What rounding to single precision left over is paid with the next reward.
            before = reward[b]
            reward[b] += state.saved[b] / state.slow_latency[b] - state.paid[b]
            state.paid[b] += reward[b] - before
        done[b] = state.candidates[b] == 0


@kernel
def finish_rows(state: State, options: Options) -> bool:
    """Write back outputs that only a fast layer holds at the end; return whether rows had to be taken back for one.

    Only games with back-ups need it: masked ones have promised that no output is stranded.
    """
    again = False
    for b in range(len(state.moves_on)):
        if state.candidates[b] > 0:
            continue
        copies = state.copies[b]
        stranded = _stranded_output(state, b, options)
        if stranded >= 0:
            # What this pass has written back is not in the log: take it back first.
            _forget_write_backs(state, b, copies)
            _back_up(state, b, stranded, -1, options)
            state.moves_on[b] = True
            again = True
    return again
