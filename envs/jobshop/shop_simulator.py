"""The shop game: many shops of any variant advance together in time; at each event, jobs are put on machines or wait.

Numba kernels over arrays with a leading batch axis; the gymnasium environments, learned policies and rules all run on
them. The checker (``shop_checker.py``) shares nothing with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from schedrl.arrays import F32, I32, Bool
from schedrl.envs.jobshop.shop import ShopInstance
from schedrl.envs.jobshop.shop_events import (
    estimate_objective,
    is_down,
    next_event,
    rotate,
    safe_to_start,
    start_mode,
    unfinished,
)
from schedrl.envs.jobshop.shop_observation import FEATURES, write_decisions
from schedrl.envs.jobshop.shop_schedule import ShopSchedule
from schedrl.envs.jobshop.shop_state import NEVER, Room, State, allocate, room_of, write_instance
from schedrl.errors import ConfigError
from schedrl.graphs import DecisionBatch, FeatureTable
from schedrl.kernels import inner, inner_inlined, kernel

__all__ = ["Simulator", "begin_row", "to_decision"]

_NEVER = NEVER
_SWAP, _NO_SWAP = 1, 2


@inner_inlined
def _offer(state: State, b: int, wait: bool) -> None:
    """List who can start where now, in order of jobs and modes, and waiting where something is still to come."""
    now, count = state.now[b], 0
    for j in range(state.jobs[b]):
        if state.ready[b, j] > now or not unfinished(state, b, j):
            continue
        o = state.next_operation[b, j]
        for k in range(state.mode_offset[b, o], state.mode_offset[b, o + 1]):
            m = state.machine[b, k]
            own = state.held[b, j] == m
            if (state.free[b, m] > now and not own) or is_down(state, b, m, now) >= 0:
                continue
            if state.blocking[b] == _NO_SWAP and not safe_to_start(state, b, j, m):
                continue
            start = now
            if state.last_family[b, m] >= 0 and not own:
                setup = state.setup[b, m, state.last_family[b, m], state.family[b, o]]
                start = max(now, state.free[b, m] + setup)
            state.candidate_job[b, count] = j
            state.candidate_mode[b, count] = k
            state.candidate_start[b, count] = start
            count += 1
    if wait and count > 0 and next_event(state, b) < _NEVER:
        state.candidate_job[b, count] = -1
        state.candidate_mode[b, count] = -1
        state.candidate_start[b, count] = now
        count += 1
    state.candidates[b] = count


@inner
def _learn_mean_duration(state: State, b: int) -> None:
    """Take the mean duration of the operations to come over the jobs that have arrived."""
    work, count = 0.0, 0
    for j in range(state.jobs[b]):
        if state.release[b, j] <= state.now[b]:
            work += state.remaining[b, j]
            count += state.job_offset[b, j + 1] - state.next_operation[b, j]
    if work > 0.0:
        state.mean_duration[b] = work / count


@inner
def to_decision(state: State, b: int, wait: bool, skip_forced: bool) -> None:
    """Go on to the next moment with a choice, or to the end."""
    state.candidates[b] = 0
    while state.started[b] < state.operations[b]:
        if state.blocking[b] == _SWAP:
            while rotate(state, b):
                pass
        if state.started[b] == state.operations[b]:
            break
        _offer(state, b, wait)
        if state.candidates[b] == 0:
            state.now[b] = next_event(state, b)
        elif skip_forced and state.candidates[b] == 1:
            start_mode(state, b, state.candidate_job[b, 0], state.candidate_mode[b, 0], state.candidate_start[b, 0])
        else:
            if not state.announced[b]:
                _learn_mean_duration(state, b)
            return
    state.candidates[b] = 0


@kernel
def begin_row(state: State, b: int, wait: bool) -> None:
    """Start an episode of the instance whose arrays are in the row."""
    now = _NEVER
    for j in range(state.jobs[b]):
        state.next_operation[b, j] = state.job_offset[b, j]
        state.ready[b, j] = state.expected[b, j] = state.release[b, j]
        state.held[b, j] = -1
        now = min(now, state.release[b, j])
    state.holder[b, :], state.free[b, :], state.expected_free[b, :], state.last_family[b, :] = -1, 0, 0, -1
    state.start[b, :], state.mode[b, :] = -1, 0
    state.now[b], state.started[b], state.invalid[b] = now, 0, 0
    work = flow = 0.0
    for j in range(state.jobs[b]):
        work += state.remaining[b, j]
        flow += state.weight[b, j] * state.remaining[b, j]
    longest = 0.0
    for j in range(state.jobs[b]):
        longest = max(longest, float(state.release[b, j] + state.remaining[b, j]))
    for m in range(state.machines[b]):
        longest = max(longest, float(state.load[b, m]))
    longest = max(longest, work / state.machines[b])
    weights = state.objective[b]
    state.scale[b] = max(weights[0] * longest + (weights[1] + weights[2]) * flow, 1.0)
    state.estimate[b] = estimate_objective(state, b)
    # Not even a forced start is skipped yet, so that every episode has a decision that is paid for all that follows.
    to_decision(state, b, wait, False)


@kernel
def step_rows(state: State, action: I32, reward: F32, done: Bool, wait: bool, skip_forced: bool) -> None:
    """Start one operation per row, or wait for the next event; reward is minus the rise of the estimate."""
    for b in range(len(action)):
        reward[b] = 0.0
        slot = action[b]
        if slot >= state.candidates[b]:
            state.invalid[b] += 1
        elif slot >= 0:
            j = state.candidate_job[b, slot]
            if j < 0:
                state.now[b] = next_event(state, b)
            else:
                start_mode(state, b, j, state.candidate_mode[b, slot], state.candidate_start[b, slot])
            to_decision(state, b, wait, skip_forced)
            after = estimate_objective(state, b)
            reward[b] = (state.estimate[b] - after) / state.scale[b]
            state.estimate[b] = after
        done[b] = state.started[b] == state.operations[b]


class Simulator:
    """B shops at once. See ``schedrl.families.Simulator`` for the contract.

    A decision offers every job that is ready on every machine that is free and up, and to wait for the next event
    unless nothing is to come; without ``wait`` schedules are non-delay. Jobs that block each other in a cycle swap at
    once where swaps are allowed; where they are not, only starts after which no deadlock threatens are offered.

    Args:
        instances: The largest sizes of these bound what fits later.
        batch: Number of rows B.
        wait: Whether waiting is offered.
        skip_forced: Start operations without an alternative at once.
        most_choices: Room for so many candidates beside waiting, at least those of the instances.
    """

    features: ClassVar[FeatureTable] = FEATURES

    def __init__(
        self,
        instances: Sequence[ShopInstance],
        batch: int,
        *,
        wait: bool = True,
        skip_forced: bool = True,
        most_choices: int = 0,
    ) -> None:
        self._wait, self._skip_forced = wait, skip_forced
        room = room_of(instances)
        self._room = room._replace(choices=max(room.choices, most_choices))
        self.state = allocate(batch, self._room)
        for row in range(batch):
            self.load(row, instances[row % len(instances)])

    @property
    def batch(self) -> int:
        """Number of rows B."""
        return len(self.state.jobs)

    @property
    def slots(self) -> int:
        """Candidate slots C: the most choices of any instance, and waiting."""
        return int(self.state.candidate_job.shape[1])

    @property
    def invalid(self) -> I32:
        """(B,) actions outside the mask since each episode began."""
        return self.state.invalid

    @property
    def invalid_limit(self) -> I32:
        """(B,) the number of operations."""
        return self.state.operations

    def load(self, row: int, instance: ShopInstance) -> None:
        """Start an episode of ``instance`` in one row; arrays other than candidates grow where they must.

        Raises:
            ConfigError: the instance offers more choices at once than there are slots.
        """
        needed = room_of([instance])
        if needed.choices > self._room.choices:
            raise ConfigError(
                f"shop {instance.name} may offer {needed.choices} choices at once, there is room for "
                f"{self._room.choices}; give the option most_choices"
            )
        if any(more > room for more, room in zip(needed, self._room, strict=True)):
            self._grow(Room(*map(max, needed, self._room)))
        write_instance(self.state, row, instance)
        begin_row(self.state, row, self._wait)

    def observe(self, out: DecisionBatch) -> None:
        """Fill the current decision of every row; slots beyond ``count`` are zero."""
        write_decisions(self.state, out.candidates, out.candidate_features, out.context, out.count)

    def step(self, action: I32, reward: F32, done: Bool) -> None:
        """Start one operation per row or wait; see the contract for negative and invalid slots."""
        step_rows(self.state, action, reward, done, self._wait, self._skip_forced)

    def finished(self, row: int) -> bool:
        """Whether every operation of the row has started."""
        return bool(self.state.started[row] == self.state.operations[row])

    def objective(self, row: int) -> float:
        """Return the objective of a finished row."""
        return float(self.state.estimate[row])

    def solution(self, row: int) -> ShopSchedule:
        """Return the schedule of a finished row."""
        count = self.state.operations[row]
        return ShopSchedule(mode=self.state.mode[row, :count].copy(), start_time=self.state.start[row, :count].copy())

    def follow(self, row: int, solution: ShopSchedule) -> int:
        """Return the candidate that starts first in a schedule; waiting where all of them start later than now."""
        state, now = self.state, self.state.now[row]
        count = int(state.candidates[row])
        best, soonest, waiting = 0, _NEVER, -1
        for slot in range(count):
            j, k = int(state.candidate_job[row, slot]), int(state.candidate_mode[row, slot])
            if j < 0:
                waiting = slot
                continue
            o = int(state.next_operation[row, j])
            begin = int(solution.start_time[o])
            if solution.mode[o] == k - state.mode_offset[row, o] and begin < soonest:
                best, soonest = slot, begin
        late = soonest > max(int(now), int(state.candidate_start[row, best]))
        return waiting if waiting >= 0 and late else best

    def snapshot(self) -> dict[str, Any]:
        """Return copies of all arrays by name."""
        return {name: array.copy() for name, array in self.state._asdict().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot of a simulator of the same batch and sizes."""
        self.state = State(**{name: np.array(array) for name, array in state.items()})

    def _grow(self, room: Room) -> None:
        """Make room for larger instances, which generators of random sizes draw."""
        old = self.state._asdict()
        self._room, self.state = room, allocate(self.batch, room)
        for name, array in self.state._asdict().items():
            array[tuple(slice(size) for size in old[name].shape)] = old[name]
