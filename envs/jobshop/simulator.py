"""The dynamics of schedule generation: many job shops advance together, one dispatched operation per step.

Numba kernels over arrays with a leading batch axis; the gymnasium environments, learned policies and
dispatching rules all run on these kernels. The checker (``solution.py``) shares nothing with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from schedrl.arrays import F32, I32, I64, Bool
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.observation import FEATURES, write_decisions
from schedrl.envs.jobshop.solution import Schedule
from schedrl.envs.jobshop.state import State, allocate
from schedrl.errors import ConfigError
from schedrl.graphs import DecisionBatch, FeatureTable
from schedrl.kernels import inlined, inner_inlined, kernel

__all__ = ["Generation", "Simulator"]

Generation = Literal["active", "non-delay", "semi-active", "left-shift"]
SEMI_ACTIVE, LEFT_SHIFT, GIFFLER_THOMPSON = 0, 1, 2
_INFINITY = 2**62


@inner_inlined
def _left_shift_start(state: State, b: int, operation: int, ready: int) -> int:
    """Return the earliest start in a gap of the operation's machine, at or after ``ready``."""
    duration = state.duration[b, operation]
    time = ready
    other = state.first_on_machine[b, state.machine[b, operation]]
    while other >= 0:
        if time + duration <= state.start[b, other]:
            return time
        time = max(time, state.start[b, other] + state.duration[b, other])
        other = state.next_on_machine[b, other]
    return time


@inner_inlined
def _insert_on_machine(state: State, b: int, operation: int) -> None:
    """Keep the machine's operations linked in order of start, zero durations before what starts with them."""
    machine = state.machine[b, operation]
    end = state.start[b, operation] + state.duration[b, operation]
    before, after = -1, state.first_on_machine[b, machine]
    while after >= 0 and state.start[b, after] < end:
        before, after = after, state.next_on_machine[b, after]
    state.next_on_machine[b, operation] = after
    if before < 0:
        state.first_on_machine[b, machine] = operation
    else:
        state.next_on_machine[b, before] = operation


@inner_inlined
def find_candidates(state: State, b: int, generation: int, delay: float) -> None:
    """Fill the candidate list of one row, in job order.

    Giffler-Thompson (1960): of all next operations take the one that can complete first, at EC*; only
    operations of its machine that can start before EC* are candidates. ``delay`` narrows the window from the
    earliest start (0: non-delay schedules) to EC* (1: active schedules), after Bierwirth and Mattfeld (1999).
    """
    earliest_completion, first_job, earliest_start = _INFINITY, -1, _INFINITY
    count = 0
    for j in range(state.jobs[b]):
        operation = state.next_operation[b, j]
        if operation == state.job_offset[b, j + 1]:
            continue
        if generation == LEFT_SHIFT:
            start = _left_shift_start(state, b, operation, state.job_ready[b, j])
        else:
            start = max(state.job_ready[b, j], state.machine_free[b, state.machine[b, operation]])
        completion = start + state.duration[b, operation]
        if completion < earliest_completion:
            earliest_completion, first_job = completion, j
        if generation != GIFFLER_THOMPSON:
            earliest_start = min(earliest_start, start)
            state.candidate_job[b, count] = j
            state.candidate_start[b, count] = start
            count += 1
    if generation == GIFFLER_THOMPSON and first_job >= 0:
        machine = state.machine[b, state.next_operation[b, first_job]]
        free = state.machine_free[b, machine]
        for j in range(state.jobs[b]):
            operation = state.next_operation[b, j]
            if operation < state.job_offset[b, j + 1] and state.machine[b, operation] == machine:
                start = max(state.job_ready[b, j], free)
                if start < earliest_completion or j == first_job:
                    earliest_start = min(earliest_start, start)
                    state.candidate_job[b, count] = j
                    state.candidate_start[b, count] = start
                    count += 1
        if delay < 1.0:
            count = _narrow(state, b, count, earliest_start + delay * (earliest_completion - earliest_start))
    state.candidates[b] = count
    state.horizon_start[b] = earliest_start
    state.earliest_completion[b] = earliest_completion


@inner_inlined
def _narrow(state: State, b: int, count: int, latest_start: float) -> int:
    kept = 0
    for c in range(count):
        if state.candidate_start[b, c] <= latest_start:
            state.candidate_job[b, kept] = state.candidate_job[b, c]
            state.candidate_start[b, kept] = state.candidate_start[b, c]
            kept += 1
    return kept


@inlined
def dispatch(state: State, b: int, slot: int, generation: int) -> None:
    """Fix the start of the chosen candidate's next operation."""
    j = state.candidate_job[b, slot]
    operation = state.next_operation[b, j]
    machine = state.machine[b, operation]
    duration = state.duration[b, operation]
    end = state.candidate_start[b, slot] + duration
    state.start[b, operation] = state.candidate_start[b, slot]
    state.next_operation[b, j] = operation + 1
    state.job_ready[b, j] = end
    state.job_remaining[b, j] -= duration
    state.machine_free[b, machine] = max(state.machine_free[b, machine], end)
    state.machine_remaining[b, machine] -= duration
    state.machine_undispatched[b, machine] -= 1
    state.dispatched[b] += 1
    if generation == LEFT_SHIFT:
        _insert_on_machine(state, b, operation)


@inner_inlined
def update_bound(state: State, b: int, generation: int) -> None:
    """Raise the row's lower bound: no completion beats any job's or machine's earliest finish.

    Jobs finish no earlier than the earliest start of their next operation plus their remaining work. When
    operations are only appended, the same holds for machines. On finished rows the bound is the makespan.
    """
    bound = state.lower_bound[b]
    for j in range(state.jobs[b]):
        operation = state.next_operation[b, j]
        ready = state.job_ready[b, j]
        if operation < state.job_offset[b, j + 1] and generation != LEFT_SHIFT:
            ready = max(ready, state.machine_free[b, state.machine[b, operation]])
        bound = max(bound, ready + state.job_remaining[b, j])
    if generation != LEFT_SHIFT:
        for m in range(state.machines[b]):
            bound = max(bound, state.machine_free[b, m] + state.machine_remaining[b, m])
    state.lower_bound[b] = bound


@inlined
def _skip_forced(state: State, b: int, generation: int, delay: float, keep: int) -> None:
    """Dispatch while there is no choice, leaving the last ``keep`` operations alone."""
    find_candidates(state, b, generation, delay)
    while state.candidates[b] == 1 and state.dispatched[b] < state.operations[b] - keep:
        dispatch(state, b, 0, generation)
        find_candidates(state, b, generation, delay)


@kernel
def reset_row(state: State, b: int, generation: int, delay: float, skip_forced: bool) -> None:
    """Start an episode of the instance whose static arrays are in the row."""
    state.machine_free[b, :] = 0
    state.machine_remaining[b, :] = 0
    state.machine_undispatched[b, :] = 0
    state.first_on_machine[b, :] = -1
    total, longest = 0, 0
    for j in range(state.jobs[b]):
        work = 0
        for operation in range(state.job_offset[b, j], state.job_offset[b, j + 1]):
            duration = state.duration[b, operation]
            work += duration
            state.machine_remaining[b, state.machine[b, operation]] += duration
            state.machine_undispatched[b, state.machine[b, operation]] += 1
            state.start[b, operation] = -1
        state.next_operation[b, j] = state.job_offset[b, j]
        state.job_ready[b, j] = 0
        state.job_work[b, j] = work
        state.job_remaining[b, j] = work
        total += work
        longest = max(longest, work)
    bound = longest
    for m in range(state.machines[b]):
        bound = max(bound, state.machine_remaining[b, m])
    state.mean_duration[b] = max(total / state.operations[b], 1e-9)
    state.initial_bound[b] = max(bound, 1)
    state.lower_bound[b] = bound
    state.dispatched[b] = 0
    state.invalid[b] = 0
    if skip_forced:
        # One operation stays, so that every episode has a decision.
        _skip_forced(state, b, generation, delay, 1)
    else:
        find_candidates(state, b, generation, delay)
    # The bound stays the initial one, so that the first reward pays for the forced moves too.


@kernel
def step_rows(
    state: State, action: I32, reward: F32, done: Bool, generation: int, delay: float, skip_forced: bool
) -> None:
    """Dispatch one candidate per row; reward is minus the rise of the bound, in units of the initial bound."""
    for b in range(len(action)):
        reward[b] = 0.0
        slot = action[b]
        if slot >= state.candidates[b]:
            state.invalid[b] += 1
        elif slot >= 0:
            before = state.lower_bound[b]
            dispatch(state, b, slot, generation)
            if skip_forced:
                _skip_forced(state, b, generation, delay, 0)
            else:
                find_candidates(state, b, generation, delay)
            update_bound(state, b, generation)
            reward[b] = (before - state.lower_bound[b]) / state.initial_bound[b]
        done[b] = state.dispatched[b] == state.operations[b]


class Simulator:
    """B job shops at once. See ``schedrl.families.Simulator`` for the contract.

    Args:
        instances: the most jobs and machines of these bound what fits later; room for operations grows.
        batch: number of rows B.
        generation: which candidates a decision offers. ``active`` (Giffler-Thompson; reaches every active
            schedule, so an optimal one), ``non-delay``, ``semi-active`` (every unfinished job, appended) or
            ``left-shift`` (every unfinished job, inserted into the first gap that fits).
        delay_factor: for ``active``, how much of the Giffler-Thompson window stays: 1 all, 0 non-delay.
        skip_forced: dispatch operations without an alternative at once, so that decisions offer two or more.
    """

    features: ClassVar[FeatureTable] = FEATURES

    def __init__(
        self,
        instances: Sequence[JobShopInstance],
        batch: int,
        *,
        generation: Generation = "active",
        delay_factor: float = 1.0,
        skip_forced: bool = True,
    ) -> None:
        if generation not in get_args(Generation):
            raise ConfigError(f"generation: {generation!r}, expected one of {', '.join(get_args(Generation))}")
        if not 0.0 <= delay_factor <= 1.0:
            raise ConfigError(f"delay_factor: {delay_factor}, expected 0 to 1")
        self._generation = {"semi-active": SEMI_ACTIVE, "left-shift": LEFT_SHIFT}.get(generation, GIFFLER_THOMPSON)
        self._delay = 0.0 if generation == "non-delay" else delay_factor
        self._skip_forced = skip_forced
        jobs = max(instance.jobs for instance in instances)
        machines = max(instance.machines for instance in instances)
        self.state = allocate(batch, jobs, machines, max(instance.operations for instance in instances))
        self._scratch: I64 = np.zeros((3, machines), dtype=np.int64)
        for row in range(batch):
            self.load(row, instances[row % len(instances)])

    @property
    def batch(self) -> int:
        """Number of rows B."""
        return len(self.state.jobs)

    @property
    def slots(self) -> int:
        """Candidate slots C: the most jobs of any instance."""
        return int(self.state.candidate_job.shape[1])

    @property
    def invalid(self) -> I32:
        """(B,) actions outside the mask since each episode began."""
        return self.state.invalid

    @property
    def invalid_limit(self) -> I32:
        """(B,) the number of operations."""
        return self.state.operations

    def load(self, row: int, instance: JobShopInstance) -> None:
        """Start an episode of ``instance`` in one row.

        Raises:
            ConfigError: the instance has more jobs or machines than the simulator was made for.
        """
        sizes, room = (instance.jobs, instance.machines), (self.slots, self._scratch.shape[1])
        if sizes[0] > room[0] or sizes[1] > room[1]:
            raise ConfigError(f"instance {instance.name} has (jobs, machines) {sizes}, room for {room}")
        if instance.operations > self.state.machine.shape[1]:
            self._grow(instance.operations)
        state = self.state
        state.jobs[row], state.machines[row], state.operations[row] = *sizes, instance.operations
        state.job_offset[row, : instance.jobs + 1] = instance.job_offset
        state.machine[row, : instance.operations] = instance.machine
        state.duration[row, : instance.operations] = instance.duration
        reset_row(state, row, self._generation, self._delay, self._skip_forced)

    def observe(self, out: DecisionBatch) -> None:
        """Fill the current decision of every row; slots beyond ``count`` are zero."""
        write_decisions(self.state, out.candidates, out.candidate_features, out.context, out.count, self._scratch)

    def step(self, action: I32, reward: F32, done: Bool) -> None:
        """Dispatch one candidate per row; see the contract for negative and invalid slots."""
        step_rows(self.state, action, reward, done, self._generation, self._delay, self._skip_forced)

    def finished(self, row: int) -> bool:
        """Whether every operation of the row is dispatched."""
        return bool(self.state.dispatched[row] == self.state.operations[row])

    def objective(self, row: int) -> float:
        """Return the makespan of a finished row."""
        return float(self.state.lower_bound[row])

    def solution(self, row: int) -> Schedule:
        """Return the schedule of a finished row."""
        return Schedule(start_time=self.state.start[row, : self.state.operations[row]].copy())

    def follow(self, row: int, solution: Schedule) -> int:
        """Return the candidate whose operation the schedule starts first."""
        jobs = self.state.candidate_job[row, : self.state.candidates[row]]
        return int(np.argmin(solution.start_time[self.state.next_operation[row, jobs]]))

    def snapshot(self) -> dict[str, Any]:
        """Return copies of all arrays by name."""
        return {name: array.copy() for name, array in self.state._asdict().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot of a simulator of the same batch, jobs and machines."""
        self.state = State(**{name: np.array(array) for name, array in state.items()})

    def _grow(self, operations: int) -> None:
        """Make room for longer instances, which generators of jobs of random length draw."""
        old = self.state._asdict()
        self.state = allocate(self.batch, self.slots, self._scratch.shape[1], operations)
        for name, array in self.state._asdict().items():
            array[tuple(slice(size) for size in old[name].shape)] = old[name]
