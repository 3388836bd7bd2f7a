"""The offset-packing game: many instances advance together, one placed buffer per step.

Numba kernels over arrays with a leading batch axis; the gymnasium environments and learned policies run on them. The
checker (``check_packing``) shares nothing with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from schedrl.arrays import F32, I32, Bool
from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing
from schedrl.envs.memmap.packing_observation import FEATURES, write_decisions
from schedrl.envs.memmap.packing_state import TIES, Room, State, allocate, room_of, write_instance
from schedrl.errors import ConfigError
from schedrl.graphs import DecisionBatch, FeatureTable
from schedrl.kernels import inlined, inner_inlined, kernel

__all__ = ["PackingSimulator"]

_INFINITY = 2**62


@inner_inlined
def _above(state: State, b: int, buffer: int, placed: int, lowest: int) -> int:
    """Return ``lowest``, or the least aligned offset above what a placed buffer has in the way there."""
    base = state.offset[b, placed]
    clear = lowest
    if state.plain[b, buffer] and state.plain[b, placed]:
        if base < lowest + state.size[b, buffer]:
            clear = max(clear, base + state.size[b, placed])
    else:
        for i in range(state.part_offset[b, buffer], state.part_offset[b, buffer + 1]):
            for j in range(state.part_offset[b, placed], state.part_offset[b, placed + 1]):
                together = (
                    state.part_first[b, i] < state.part_last[b, j] and state.part_first[b, j] < state.part_last[b, i]
                )
                high = base + state.part_high[b, j]
                meet = lowest + state.part_low[b, i] < high
                meet = meet and base + state.part_low[b, j] < lowest + state.part_high[b, i]
                if together and meet:
                    clear = max(clear, high - state.part_low[b, i])
    if clear > lowest:
        alignment = state.alignment[b, buffer]
        clear = (clear + alignment - 1) // alignment * alignment
    return clear


@inner_inlined
def _raised(state: State, b: int, buffer: int, placed: int) -> int:
    """Return the lowest feasible offset of an unplaced buffer after another was placed.

    Of the buffers placed before, only obstacles can lie above the old lowest offset: any other was placed when no
    unplaced buffer would have fit below it. Those that the buffer itself has windows for are all looked at.
    """
    lowest: int = state.lowest[b, buffer]
    stop = state.buffers[b] if state.windowed[b, buffer] else state.obstacles[b]
    k, other, begun = 0, placed, False
    while True:
        meet = state.first[b, buffer] < state.last[b, other] and state.first[b, other] < state.last[b, buffer]
        clear = _above(state, b, buffer, other, lowest) if meet else lowest
        if clear > lowest:
            lowest, k = clear, 0
        elif not begun:
            return lowest
        begun = True
        while k < stop and state.offset[b, state.scan[b, k]] < 0:
            k += 1
        if k == stop:
            return lowest
        other = state.scan[b, k]
        k += 1


@inner_inlined
def _raise_others(state: State, b: int, placed: int) -> int:
    """Update the lowest feasible offsets; list the buffers whose own has changed and return their number."""
    kept, changed, least_end, bound = 0, 0, _INFINITY, max(state.bound[b], state.peak[b])
    first, last = state.first[b, placed], state.last[b, placed]
    stale_first, stale_last = min(state.stale_first[b], first), max(state.stale_last[b], last)
    for i in range(state.left[b]):
        buffer = state.unplaced[b, i]
        if buffer == placed:
            continue
        state.unplaced[b, kept] = buffer
        kept += 1
        lowest = state.lowest[b, buffer]
        if state.first[b, buffer] < last and first < state.last[b, buffer]:
            state.conflicts[b, buffer] -= 1
            raised = _raised(state, b, buffer, placed)
            if raised > lowest:
                lowest = raised
                state.lowest[b, buffer] = lowest
                state.moved[b, buffer] = True
                state.changed[b, changed] = buffer
                changed += 1
                bound = max(bound, lowest + state.size[b, buffer])
                stale_first = min(stale_first, state.first[b, buffer])
                stale_last = max(stale_last, state.last[b, buffer])
        least_end = min(least_end, lowest + state.size[b, buffer])
    state.least_end[b], state.bound[b] = least_end, bound
    state.stale_first[b], state.stale_last[b] = stale_first, stale_last
    return changed


@inner_inlined
def _reorder(state: State, b: int, placed: int, changed: int) -> None:
    """Keep ``order`` sorted by lowest feasible offset, then number."""
    kept = 0
    for i in range(state.left[b]):
        buffer = state.order[b, i]
        if state.moved[b, buffer]:
            state.moved[b, buffer] = False
        elif buffer != placed:
            state.order[b, kept] = buffer
            kept += 1
    # All of them mostly have the same offset now, and so are in order already.
    for i in range(1, changed):
        buffer, k = state.changed[b, i], i
        while k > 0 and state.lowest[b, state.changed[b, k - 1]] > state.lowest[b, buffer]:
            state.changed[b, k] = state.changed[b, k - 1]
            k -= 1
        state.changed[b, k] = buffer
    state.left[b] = kept + changed
    i, k = kept - 1, changed - 1
    while k >= 0:
        late = state.changed[b, k]
        early = state.order[b, max(i, 0)]
        gap = state.lowest[b, early] - state.lowest[b, late]
        if i >= 0 and (gap > 0 or (gap == 0 and early > late)):
            state.order[b, i + k + 1] = early
            i -= 1
        else:
            state.order[b, i + k + 1] = late
            k -= 1


@inlined
def _place(state: State, b: int, buffer: int) -> None:
    """Place a buffer at its lowest feasible offset."""
    offset = state.lowest[b, buffer]
    state.offset[b, buffer] = offset
    state.peak[b] = max(state.peak[b], offset + state.size[b, buffer])
    state.area_left[b] -= state.area[b, buffer]
    for i in range(state.part_offset[b, buffer], state.part_offset[b, buffer + 1]):
        high = state.part_high[b, i]
        for section in range(state.part_first[b, i], state.part_last[b, i]):
            state.left_bytes[b, section] -= high - state.part_low[b, i]
            state.top[b, section] = max(state.top[b, section], offset + high)
    _reorder(state, b, buffer, _raise_others(state, b, buffer))


@inner_inlined
def _uncovered(state: State, b: int, section: int) -> int:
    """Return the next section that no buffer has covered, halving the paths on the way."""
    while state.following[b, section] != section:
        state.following[b, section] = state.following[b, state.following[b, section]]
        section = state.following[b, section]
    return section


@inner_inlined
def _measure(state: State, b: int) -> None:
    """Raise the bound on the peak by what the sections say whose buffers have changed.

    All unplaced bytes of a section will lie above the lowest of its buffers' lowest offsets (section inference of
    Moffitt, ASPLOS 2023). In order of that offset, the first buffer that covers a section says which it is.
    """
    stale_first, stale_last, open_sections = state.stale_first[b], state.stale_last[b], 0
    for section in range(stale_first, stale_last):
        state.following[b, section] = section
        state.pressure[b, section] = state.top[b, section]
        open_sections += state.left_bytes[b, section] > 0
    state.following[b, max(stale_last, 0)] = stale_last
    bound, i = state.bound[b], 0
    while open_sections > 0 and i < state.left[b]:
        buffer = state.order[b, i]
        last = min(state.last[b, buffer], stale_last)
        section = max(state.first[b, buffer], stale_first)
        i += 1
        while section < last:
            section = _uncovered(state, b, section)
            if section < last:
                unplaced = state.left_bytes[b, section]
                reached = max(state.pressure[b, section], state.lowest[b, buffer] + unplaced)
                state.following[b, section] = section + 1
                state.pressure[b, section] = reached
                bound = max(bound, reached)
                open_sections -= unplaced > 0
                section += 1
    state.bound[b] = bound
    state.stale_first[b], state.stale_last[b] = state.sections[b], 0


@inlined
def _offer(state: State, b: int, window: int) -> None:
    """Offer the unplaced buffers with the lowest offsets, as far as they lie below the least end.

    One above it need not be next: the buffer with that end would fit below, and the packing would be no higher.
    """
    count, most = 0, min(state.left[b], window)
    while count < most and state.lowest[b, state.order[b, count]] < state.least_end[b]:
        count += 1
    state.candidates[b] = count


@inlined
def _advance(state: State, b: int, keep: int, window: int, skip_forced: bool) -> None:
    """Place what is pending and go on to the next decision; the last ``keep`` buffers are one even when forced."""
    while True:
        if state.pending[b] >= 0:
            _place(state, b, state.pending[b])
            state.pending[b] = -1
        if state.waiting[b] > 0:
            state.pending[b] = state.scan[b, state.fixed[b] - state.waiting[b]]
            state.waiting[b] -= 1
            continue
        _measure(state, b)
        _offer(state, b, window)
        if state.candidates[b] != 1 or not skip_forced or state.left[b] <= keep:
            return
        state.pending[b] = state.order[b, 0]


@kernel
def step_rows(state: State, action: I32, reward: F32, done: Bool, keep: int, window: int, skip_forced: bool) -> None:
    """Place one candidate per row, or what is pending in rows just loaded, and pay for the rise of the bound.

    Rewards are in units of the most bytes live at once.
    """
    for b in range(len(action)):
        slot = action[b]
        if slot >= state.candidates[b]:
            state.invalid[b] += 1
        elif slot >= 0:
            state.pending[b] = state.order[b, slot]
            state.moves_on[b] = True
        if state.moves_on[b]:
            _advance(state, b, keep, window, skip_forced)
            state.moves_on[b] = False
        reward[b] = 0.0
        if slot >= 0:
            # What rounding to single precision left over is paid with the next reward.
            reward[b] = (state.unit[b] - state.bound[b]) / state.unit[b] - state.paid[b]
            state.paid[b] += reward[b]
        done[b] = state.candidates[b] == 0


class PackingSimulator:
    """B packing games at once. See ``schedrl.families.Simulator`` for the contract.

    A capacity is no rule of the game: the peak counts, and one above the capacity means that this packing is none.

    Args:
        instances: bound what fits later; room grows.
        batch: number of rows B.
        window: candidate slots C; of more unplaced buffers with low offsets the first are offered.
        ties: what comes first among buffers with the same lowest feasible offset, the most of it first: ``size``,
            ``area`` (size times lifetime), ``duration``, or ``conflicts`` (number of buffers live at the same time).
        skip_forced: place a buffer at once when there is no alternative.

    Raises:
        ConfigError: an option outside its range.
    """

    features: ClassVar[FeatureTable] = FEATURES

    def __init__(
        self,
        instances: Sequence[OffsetPackingInstance],
        batch: int,
        *,
        window: int = 32,
        ties: str = "size",
        skip_forced: bool = True,
    ) -> None:
        if type(window) is not int or window < 1:
            raise ConfigError(f"window: {window!r}, expected an integer of at least 1")
        if ties not in TIES:
            raise ConfigError(f"ties: {ties!r}, expected one of {', '.join(TIES)}")
        self._window, self._ties, self._skip_forced = window, ties, skip_forced
        for instance in instances:
            _require_lifetimes(instance)
        self._room = room_of(instances, ties)
        self.state = allocate(batch, self._room)
        self._idle: tuple[I32, F32, Bool] = (
            np.full(batch, -1, dtype=np.int32),
            np.zeros(batch, dtype=np.float32),
            np.zeros(batch, dtype=np.bool_),
        )
        for row in range(batch):
            self.load(row, instances[row % len(instances)])

    @property
    def batch(self) -> int:
        """Number of rows B."""
        return len(self.state.buffers)

    @property
    def slots(self) -> int:
        """Candidate slots C: the window."""
        return self._window

    @property
    def invalid(self) -> I32:
        """(B,) actions outside the mask since each episode began."""
        return self.state.invalid

    @property
    def invalid_limit(self) -> I32:
        """(B,) the number of buffers."""
        return self.state.buffers

    def load(self, row: int, instance: OffsetPackingInstance) -> None:
        """Start an episode of ``instance`` in one row, with the buffers of given offset in place.

        Raises:
            ConfigError: a program, or buffers of given offset that overlap.
        """
        _require_lifetimes(instance)
        needed = room_of([instance], self._ties)
        if any(need > have for need, have in zip(needed, self._room, strict=True)):
            self._grow(needed)
        write_instance(self.state, row, instance, self._ties)
        # One buffer stays, so that every episode has a decision; the first reward pays for the forced moves too.
        idle, unpaid, done = self._idle
        step_rows(self.state, idle, unpaid, done, 1, self._window, self._skip_forced)

    def observe(self, out: DecisionBatch) -> None:
        """Fill the current decision of every row; slots beyond ``count`` are zero."""
        write_decisions(self.state, out.candidates, out.candidate_features, out.context, out.count)

    def step(self, action: I32, reward: F32, done: Bool) -> None:
        """Place one candidate per row; see the contract for negative and invalid slots."""
        step_rows(self.state, action, reward, done, 0, self._window, self._skip_forced)

    def finished(self, row: int) -> bool:
        """Whether every buffer of the row is placed."""
        return bool(self.state.candidates[row] == 0)

    def objective(self, row: int) -> float:
        """Return the peak of a finished row in bytes."""
        return float(self.state.peak[row])

    def solution(self, row: int) -> Packing:
        """Return the packing of a finished row."""
        count = int(self.state.buffers[row])
        offset = np.empty(count, dtype=np.int64)
        offset[self.state.number[row, :count]] = self.state.offset[row, :count]
        return Packing(offset=offset)

    def follow(self, row: int, solution: Packing) -> int:
        """Return the candidate that the packing has lowest, of equals the first."""
        buffers = self.state.order[row, : self.state.candidates[row]]
        return int(np.argmin(solution.offset[self.state.number[row, buffers]]))

    def snapshot(self) -> dict[str, Any]:
        """Return copies of all arrays by name."""
        return {name: array.copy() for name, array in self.state._asdict().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot of a simulator of the same batch and options."""
        self.state = State(**{name: np.array(array) for name, array in state.items()})
        sizes = (self.state.size, self.state.live_bytes, self.state.part_low)
        self._room = Room(*(array.shape[1] for array in sizes))

    def _grow(self, needed: Room) -> None:
        """Make room for larger instances, which generators of random sizes draw."""
        old = self.state._asdict()
        self._room = Room(*(max(pair) for pair in zip(needed, self._room, strict=True)))
        self.state = allocate(self.batch, self._room)
        for name, array in self.state._asdict().items():
            array[tuple(slice(size) for size in old[name].shape)] = old[name]


def _require_lifetimes(instance: OffsetPackingInstance) -> None:
    if not isinstance(instance, OffsetPackingInstance):
        raise ConfigError(f"instance {instance.name}: offset packing plays lifetimes, not programs")
