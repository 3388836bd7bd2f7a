"""The dynamics of DAG scheduling: many instances advance together, one placed task or one wait per step.

Numba kernels over arrays with a leading batch axis (``dynamics.py``); the gymnasium environments, learned policies
and online rules all run on them. The checker (``solution.py``) shares nothing with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from schedrl.arrays import F32, I32, Bool
from schedrl.envs.socdag.decision import make_scratch, write_decisions
from schedrl.envs.socdag.dynamics import reset_row, step_rows
from schedrl.envs.socdag.instance import SocDagInstance
from schedrl.envs.socdag.observation import FEATURES
from schedrl.envs.socdag.placement import ONLINE, PLAN
from schedrl.envs.socdag.solution import DagSchedule
from schedrl.envs.socdag.state import Options, Room, State, allocate, room_of, write_instance
from schedrl.errors import ConfigError
from schedrl.graphs import DecisionBatch, FeatureTable

__all__ = ["Dispatch", "Mode", "Simulator"]

Mode = Literal["online", "plan"]
Dispatch = Literal["queue", "idle"]


class Simulator:
    """B instances at once. See ``schedrl.families.Simulator`` for the contract.

    Args:
        instances: bound the jobs, tasks, devices and templates of what fits later; room for tasks and edges grows.
        batch: number of rows B.
        mode: ``online`` runs the jobs as events unfold: a task is offered when its predecessors have ended, and joins
            the queue of its device. ``plan`` builds a schedule of expected times, each job as a whole at its
            entry: a task is offered when its predecessors are placed, and goes into the first gap that fits.
        window: how many ready tasks a decision offers; online the oldest jobs' first, then by upward rank.
        wait: while a task is in progress, offer to let the moment pass until the next end or entry (online only).
        dispatch: ``queue`` offers every device, whose queue the task joins; ``idle`` only those that run nothing, so
            that a task waits for its device uncommitted and others may overtake it (online only).
        dvfs: offer every operating point of a device instead of its fastest.
        skip_forced: place a task at once when there is no alternative.
    """

    features: ClassVar[FeatureTable] = FEATURES

    def __init__(
        self,
        instances: Sequence[SocDagInstance],
        batch: int,
        *,
        mode: Mode = "online",
        window: int = 8,
        wait: bool = True,
        dispatch: Dispatch = "queue",
        dvfs: bool = False,
        skip_forced: bool = True,
    ) -> None:
        if mode not in get_args(Mode):
            raise ConfigError(f"mode: {mode!r}, expected one of {', '.join(get_args(Mode))}")
        if type(window) is not int or window < 1:
            raise ConfigError(f"window: {window!r}, expected an integer of at least 1")
        if dispatch not in get_args(Dispatch):
            raise ConfigError(f"dispatch: {dispatch!r}, expected one of {', '.join(get_args(Dispatch))}")
        self.options = Options(
            mode=PLAN if mode == "plan" else ONLINE,
            window=window,
            scaling=dvfs,
            wait=wait and mode == "online",
            skip_forced=skip_forced,
            idle_only=dispatch == "idle" and mode == "online",
        )
        self._room = room_of(list(instances), window, dvfs)
        self.state = allocate(batch, self._room)
        self._scratch = make_scratch(self._room)
        for row in range(batch):
            self.load(row, instances[row % len(instances)])

    @property
    def batch(self) -> int:
        """Number of rows B."""
        return len(self.state.jobs)

    @property
    def slots(self) -> int:
        """Candidate slots C: window times device types times offered operating points, and one for waiting."""
        return self._room.slots

    @property
    def invalid(self) -> I32:
        """(B,) actions outside the mask since each episode began."""
        return self.state.invalid

    @property
    def invalid_limit(self) -> I32:
        """(B,) the number of tasks."""
        return self.state.tasks

    def load(self, row: int, instance: SocDagInstance) -> None:
        """Start an episode of ``instance`` in one row.

        Raises:
            ConfigError: the instance needs more candidate slots than there are, or plan mode cannot know its times.
        """
        if self.options.mode == PLAN and instance.noise_sigma:
            raise ConfigError(
                f"instance {instance.name}: plan mode needs known durations; plan without noise, or use mode 'online'"
            )
        needed = room_of([instance], self.options.window, self.options.scaling)
        if needed.slots > self.slots:
            raise ConfigError(f"instance {instance.name} needs {needed.slots} candidate slots, there are {self.slots}")
        if any(need > have for need, have in zip(needed, self._room, strict=True)):
            self._grow(needed)
        write_instance(self.state, row, instance)
        reset_row(self.state, row, self.options)

    def observe(self, out: DecisionBatch) -> None:
        """Fill the current decision of every row; slots beyond ``count`` are zero."""
        write_decisions(
            self.state,
            out.candidates,
            out.candidate_features,
            out.context,
            out.count,
            self._scratch,
            self.options.mode,
        )

    def step(self, action: I32, reward: F32, done: Bool) -> None:
        """Place one candidate per row, or wait; see the contract for negative and invalid slots."""
        step_rows(self.state, action, reward, done, self.options)

    def finished(self, row: int) -> bool:
        """Whether every task of the row has ended."""
        return bool(self.state.finished[row] == self.state.tasks[row])

    def objective(self, row: int) -> float:
        """Return the mean job latency of a finished row, which for one job is its makespan."""
        state = self.state
        jobs = int(state.jobs[row])
        first = state.job_first[row, :jobs]
        last = np.maximum.reduceat(state.finish[row, : state.tasks[row]], first)
        return float((last - state.entry[row, :jobs]).mean())

    def solution(self, row: int) -> DagSchedule:
        """Return the schedule of a finished row."""
        state, tasks = self.state, int(self.state.tasks[row])
        edges = len(state.transfer[row]) if state.contention[row] else 0
        if edges:
            jobs = int(state.jobs[row])
            last_row = state.job_row[row, jobs - 1]
            rows = state.job_first[row, jobs] - state.job_first[row, jobs - 1]
            edges = int(state.job_edge[row, jobs - 1] + state.predecessor_offset[row, last_row + rows])
        return DagSchedule(
            device=state.device[row, :tasks].copy(),
            start=state.start[row, :tasks].copy(),
            entry=state.entry[row, : state.jobs[row]].copy(),
            point=state.point[row, :tasks].copy(),
            transfer=state.transfer[row, :edges].copy(),
        )

    def follow(self, row: int, solution: DagSchedule) -> int:
        """Return, of the offered tasks that the schedule has on an offered device type, the one it starts first.

        Online, that may be waiting: when the schedule starts the task after the next event would have been seen, or
        has every offered task on devices that are not offered.
        """
        state, count = self.state, int(self.state.candidates[row])
        pairs = count - 1 if state.candidate_task[row, count - 1] < 0 else count
        task, start = state.candidate_task[row, :pairs], solution.start[state.candidate_task[row, :pairs]]
        kinds = state.device_type[row, state.candidate_device[row, :pairs]]
        agrees = kinds == state.device_type[row, solution.device[task]]
        if pairs < count and not (start[agrees] < state.next_event[row]).any():
            return pairs
        if agrees.any():
            start = np.where(agrees, start, np.inf)
        if solution.point is None:
            return int(np.argmin(start))
        return int(np.lexsort((state.candidate_point[row, :pairs] != solution.point[task], start))[0])

    def snapshot(self) -> dict[str, Any]:
        """Return copies of all arrays by name."""
        return {name: array.copy() for name, array in self.state._asdict().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot of a simulator of the same batch and slots."""
        self.state = State(**{name: np.array(array) for name, array in state.items()})
        self._room = _room(self.state)
        self._scratch = make_scratch(self._room)

    def _grow(self, needed: Room) -> None:
        """Make room for larger instances, which generators of random sizes draw."""
        old = self.state._asdict()
        self._room = Room(*(max(pair) for pair in zip(needed, self._room, strict=True)))
        self.state = allocate(self.batch, self._room)
        self._scratch = make_scratch(self._room)
        for name, array in self.state._asdict().items():
            array[tuple(slice(size) for size in old[name].shape)] = old[name]


def _room(state: State) -> Room:
    return Room(
        jobs=state.job_row.shape[1],
        tasks=state.device.shape[1],
        devices=state.free.shape[1],
        rows=state.upward_rank.shape[1],
        edges=state.predecessor.shape[1],
        flat_edges=state.transfer.shape[1],
        points=state.speed.shape[2],
        degree=state.arrivals.shape[1],
        slots=state.candidate_task.shape[1],
    )
