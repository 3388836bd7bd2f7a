"""The expert-cache game: many instances advance together, one eviction or load ahead of need per step.

Numba kernels over arrays with a leading batch axis; the gymnasium environments and learned policies run on them. The
checker (``check_cache``) shares nothing with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from schedrl.arrays import F32, I32, Bool
from schedrl.envs.moe.cache_following import bring_slot, evict_slot
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.envs.moe.cache_observation import FEATURES, write_decisions
from schedrl.envs.moe.cache_offers import can_bring, offer_evictions, offer_loads
from schedrl.envs.moe.cache_solution import CacheSchedule
from schedrl.envs.moe.cache_state import (
    BRING,
    CLOSE,
    DEMAND,
    MAKE_ROOM,
    REVEAL,
    Room,
    State,
    allocate,
    room_of,
    write_instance,
)
from schedrl.errors import ConfigError
from schedrl.graphs import DecisionBatch, FeatureTable
from schedrl.kernels import inlined, inner_inlined, kernel

__all__ = ["CacheSimulator"]

# Weight of the newest request in the moving average of an expert's use.
_RECENT = 0.125


@inner_inlined
def _learn(state: State, b: int, r: int) -> None:
    """Count what the request that just got known says about its layer and about what follows the one before."""
    layer, experts = state.layer[b, r], state.experts[b]
    base = layer * experts
    for expert in range(base, base + experts):
        state.recent[b, expert] *= 1.0 - _RECENT
    state.before[b, layer] = r
    for k in range(state.width[b]):
        expert = state.needed[b, r, k]
        if expert >= 0:
            state.recent[b, expert] += _RECENT
            state.uses[b, expert] += 1
            state.needs[b] += 1
    state.visits[b, layer] += 1
    if r == 0:
        return
    for k in range(state.width[b]):
        source = state.needed[b, r - 1, k]
        if source >= 0:
            state.sources[b, source] += 1
            for other in range(state.width[b]):
                expert = state.needed[b, r, other]
                if expert >= 0:
                    state.follows[b, source, expert - base] += 1.0


@inner_inlined
def _reveal(state: State, b: int) -> None:
    """Make the next request known: queue what it lacks, hottest first, and find when it can be computed."""
    r = state.step[b]
    if r > 0:
        state.known[b] = state.compute_start[b, r - 1] + state.duration[b, r - 1]
    known, queued = state.known[b], 0
    _learn(state, b, r)
    start = known
    for k in range(state.width[b]):
        expert = state.needed[b, r, k]
        if expert < 0:
            continue
        state.last_use[b, expert] = r
        if state.place[b, expert] >= 0:
            state.hits[b] += state.ready[b, expert] <= known
            state.used[b] += state.early[b, expert]
            start = max(start, state.ready[b, expert])
        else:
            i = queued
            while i > 0 and state.recent[b, state.queue[b, i - 1]] < state.recent[b, expert]:
                state.queue[b, i] = state.queue[b, i - 1]
                i -= 1
            state.queue[b, i] = expert
            queued += 1
        state.early[b, expert] = False
    loaded = max(state.channel[b], known)
    for _ in range(queued):
        loaded += state.load_s[b]
    if queued > 0:
        start = max(start, loaded)
    state.queued[b], state.at[b], state.start[b], state.phase[b] = queued, 0, start, DEMAND
    state.compute_start[b, r] = start
    # The end of the last request is the objective itself, to the last bit.
    rest = state.left[b, r] if r + 1 < state.steps[b] else state.duration[b, r]
    state.bound[b] = start + rest


@inlined
def _load(state: State, b: int) -> None:
    """Start to load the expert to come, in the place of the one that leaves or in a free place."""
    expert, evicted, ahead = state.incoming[b], state.leaving[b], state.phase[b] != DEMAND
    at = state.residents[b]
    if evicted >= 0:
        at = state.place[b, evicted]
        state.place[b, evicted] = -1
        state.early[b, evicted] = False
    else:
        state.residents[b] += 1
    state.resident[b, at], state.place[b, expert] = expert, at
    load = state.loads[b]
    start = max(state.channel[b], state.start[b] if ahead else state.known[b])
    state.load_expert[b, load], state.evict_expert[b, load], state.load_start[b, load] = expert, evicted, start
    state.loads[b] += 1
    state.channel[b] = start + state.load_s[b]
    state.ready[b, expert] = state.channel[b]
    state.loading[b] = False
    if ahead:
        state.early[b, expert], state.fresh[b, expert] = True, state.step[b]
        state.brought[b] += 1
        state.phase[b] = BRING
    else:
        state.at[b] += 1


@inlined
def _decide(state: State, b: int) -> None:
    """Do what the pending slot of the current decision says, as far as that is no load."""
    choice = state.offered[b, state.pending[b]]
    if state.phase[b] in (DEMAND, MAKE_ROOM):
        state.leaving[b] = choice
        state.loading[b] = True
    elif choice < 0:
        state.step[b] += 1
        state.phase[b] = REVEAL
    else:
        state.incoming[b], state.leaving[b] = choice, -1
        state.hope[b] = -state.score[b, state.pending[b]]
        state.loading[b] = state.residents[b] < state.places[b]
        # A decision about who leaves comes first if nobody has to wait for a place.
        state.phase[b] = MAKE_ROOM
    state.pending[b] = -1


@inner_inlined
def _carry_on(state: State, b: int, window: int, prefetch: bool, skip_forced: bool) -> bool:
    """Do the next thing that is no choice, and return whether there was one."""
    state.candidates[b] = 0
    phase, last = state.phase[b], state.step[b] + 1 >= state.steps[b]
    if phase == REVEAL:
        if state.step[b] >= state.steps[b]:
            return False
        _reveal(state, b)
    elif phase == DEMAND and state.at[b] == state.queued[b]:
        state.phase[b] = BRING
    elif phase == BRING:
        if prefetch and can_bring(state, b):
            offer_loads(state, b, window)
        if state.candidates[b] > 1:
            state.decided[b] = True
            return False
        if last and not state.decided[b]:
            state.offered[b, 0], state.hidden[b], state.candidates[b], state.phase[b] = -1, 0, 1, CLOSE
            return False
        state.step[b] += 1
        state.phase[b] = REVEAL
    else:
        if phase == DEMAND:
            state.incoming[b], state.leaving[b], state.hope[b] = state.queue[b, state.at[b]], -1, 1.0
            if state.residents[b] < state.places[b]:
                state.loading[b] = True
                return True
        offer_evictions(state, b, window)
        if state.candidates[b] > 1 or not skip_forced:
            state.decided[b] = True
            return False
        state.pending[b] = 0
    return True


@inlined
def _advance(state: State, b: int, window: int, prefetch: bool, skip_forced: bool) -> None:
    """Go on to the next decision; an episode has at least one."""
    going = True
    while going:
        if state.pending[b] >= 0:
            _decide(state, b)
        elif state.loading[b]:
            _load(state, b)
        else:
            going = _carry_on(state, b, window, prefetch, skip_forced)


@kernel
def step_rows(
    state: State, action: I32, reward: F32, done: Bool, window: int, prefetch: bool, skip_forced: bool
) -> None:
    """Take one candidate per row, or go on in rows just loaded, and pay for the rise of the bound.

    Rewards are in units of a lower bound on the decode time.
    """
    for b in range(len(action)):
        slot = action[b]
        valid = 0 <= slot < state.candidates[b]
        if slot >= state.candidates[b]:
            state.invalid[b] += 1
        if valid:
            state.pending[b] = slot
            state.moves_on[b] = True
        if state.moves_on[b]:
            _advance(state, b, window, prefetch, skip_forced)
            state.moves_on[b] = False
        reward[b] = 0.0
        if valid:
            # What rounding to single precision left over is paid with the next reward.
            reward[b] = (state.left[b, 0] - state.bound[b]) / state.unit[b] - state.paid[b]
            state.paid[b] += reward[b]
        done[b] = state.candidates[b] == 0


class CacheSimulator:
    """B expert caches at once. See ``schedrl.families.Simulator`` for the contract.

    A request that gets known has its absent experts loaded at once, hottest first. While it is computed and the
    channel is free, absent experts of the next request's layer can be loaded ahead of need.

    Args:
        instances: bound what fits later; room grows.
        batch: number of rows B.
        window: candidate slots C: the experts used longest ago when one must leave, or those likeliest to be needed
            when one may come, after a slot for none.
        prefetch: whether experts can be loaded ahead of need.
        skip_forced: let an expert leave at once when there is no alternative.

    Raises:
        ConfigError: an option outside its range.
    """

    features: ClassVar[FeatureTable] = FEATURES

    def __init__(
        self,
        instances: Sequence[ExpertCacheInstance],
        batch: int,
        *,
        window: int = 32,
        prefetch: bool = True,
        skip_forced: bool = True,
    ) -> None:
        if type(window) is not int or window < 2:
            raise ConfigError(f"window: {window!r}, expected an integer of at least 2")
        self._window, self._prefetch, self._skip_forced = window, bool(prefetch), bool(skip_forced)
        for instance in instances:
            _require_cache(instance)
        self._room = room_of(instances, self._prefetch)
        self.state = allocate(batch, self._room, window)
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
        return len(self.state.steps)

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
        """(B,) the number of requests."""
        return self.state.steps

    def load(self, row: int, instance: ExpertCacheInstance) -> None:
        """Start an episode of ``instance`` in one row.

        Raises:
            ConfigError: an expert placement.
        """
        _require_cache(instance)
        needed = room_of([instance], self._prefetch)
        if any(need > have for need, have in zip(needed, self._room, strict=True)):
            self._grow(needed)
        write_instance(self.state, row, instance)
        # The first reward pays for what happened before the first decision too.
        idle, unpaid, done = self._idle
        step_rows(self.state, idle, unpaid, done, self._window, self._prefetch, self._skip_forced)

    def observe(self, out: DecisionBatch) -> None:
        """Fill the current decision of every row; slots beyond ``count`` are zero."""
        write_decisions(self.state, out.candidates, out.candidate_features, out.context, out.count)

    def step(self, action: I32, reward: F32, done: Bool) -> None:
        """Take one candidate per row; see the contract for negative and invalid slots."""
        step_rows(self.state, action, reward, done, self._window, self._prefetch, self._skip_forced)

    def finished(self, row: int) -> bool:
        """Whether every request of the row is served."""
        return bool(self.state.candidates[row] == 0)

    def objective(self, row: int) -> float:
        """Return the decode time of a finished row in seconds."""
        return float(self.state.bound[row])

    def solution(self, row: int) -> CacheSchedule:
        """Return the schedule of a finished row."""
        state, loads = self.state, int(self.state.loads[row])
        return CacheSchedule(
            load_expert=state.load_expert[row, :loads],
            evict_expert=state.evict_expert[row, :loads],
            load_start_s=state.load_start[row, :loads],
            compute_start_s=state.compute_start[row, : state.steps[row]],
        )

    def follow(self, row: int, solution: CacheSchedule) -> int:
        """Return the slot that a schedule agrees with.

        An expert comes ahead of need if the schedule loads it during the same computation. The one that leaves is the
        one the schedule replaces by the same load, otherwise the one it keeps for the shortest time from here on, and
        of those that leave it together the one needed last.
        """
        state, r = self.state, int(self.state.step[row])
        offered = state.offered[row, : state.candidates[row]]
        if len(offered) < 2:
            return 0
        steps, ahead = int(state.steps[row]), bool(state.phase[row] != DEMAND)
        needed, duration = state.needed[row, :steps], state.duration[row, :steps]
        if state.phase[row] == BRING:
            return bring_slot(solution, duration, r, offered)
        return evict_slot(solution, needed, duration, r, offered, int(state.incoming[row]), ahead)

    def snapshot(self) -> dict[str, Any]:
        """Return copies of all arrays by name."""
        return {name: array.copy() for name, array in self.state._asdict().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot of a simulator of the same batch and options."""
        self.state = State(**{name: np.array(array) for name, array in state.items()})
        own = self.state
        self._room = Room(
            steps=own.layer.shape[1],
            layers=own.visits.shape[1],
            experts=own.follows.shape[2],
            total=own.place.shape[1],
            width=own.queue.shape[1],
            places=own.resident.shape[1],
            loads=own.load_expert.shape[1],
        )

    def _grow(self, needed: Room) -> None:
        """Make room for larger instances, which generators of random sizes draw."""
        old = self.state._asdict()
        self._room = Room(*(max(pair) for pair in zip(needed, self._room, strict=True)))
        self.state = allocate(self.batch, self._room, self._window)
        for name, array in self.state._asdict().items():
            array[tuple(slice(size) for size in old[name].shape)] = old[name]


def _require_cache(instance: ExpertCacheInstance) -> None:
    if not isinstance(instance, ExpertCacheInstance):
        raise ConfigError(f"instance {instance.name}: the expert-cache game plays request traces, not placements")
