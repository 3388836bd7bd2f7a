"""The mapping game: many programs advance together, one decided access per step.

Numba kernels over arrays with a leading batch axis (``dynamics.py``); the gymnasium environments, learned policies
and rules all run on them. The checker (``plan_check.py``) shares nothing with them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from schedrl.arrays import F32, I32, Bool
from schedrl.envs.memmap.choices import COPY, NO_COPY
from schedrl.envs.memmap.decision import write_decisions
from schedrl.envs.memmap.dynamics import finish_rows, reset_row, step_rows
from schedrl.envs.memmap.hints import best_hint
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.observation import FEATURES
from schedrl.envs.memmap.plan import MemoryPlan
from schedrl.envs.memmap.state import Options, Room, State, allocate, room_of, write_instance
from schedrl.errors import ConfigError
from schedrl.graphs import DecisionBatch, FeatureTable

__all__ = ["DEAD_ENDS", "FITS", "WINDOWS", "Simulator"]

FITS = ("planned", "best", "lowest", "highest", "lifetime")
WINDOWS = ("planned", "just-in-time", "preferred", "earliest")
DEAD_ENDS = ("mask", "backup")


class Simulator:
    """B mapping games at once. See ``schedrl.families.Simulator`` for the contract.

    Args:
        instances: bound what fits later; room for operations, accesses and buffers grows.
        batch: number of rows B.
        dead_ends: ``mask`` never offers what could lead to a dead end; ``backup`` does, and at a dead end takes
            decisions back to the one that led there and binds its alias group or buffer to the slow layer.
        fits: where in a fast layer a buffer goes, one candidate each: where the hint has it (``planned``;
             the tightest gap when that place is taken), the tightest gap (``best``), the ``lowest`` or
            ``highest`` offset, or by ``lifetime``: highest when the last use is near, else lowest.
        windows: when a copy into a fast layer begins, one candidate each: where the hint begins it (``planned``;
            just in time where it does not or cannot), ``just-in-time``, as late as possible;
            ``preferred``, where twice its time is hidden, as XLA prefers; ``earliest``.
        lookback: most operations from the begin of a copy to the access.
        negligible: buffers whose accesses together could save less than this share of the program's latency stay in
            the slow layer without asking.
        skip_forced: decide an access at once when there is no alternative.
    """

    features: ClassVar[FeatureTable] = FEATURES

    def __init__(
        self,
        instances: Sequence[MemoryMapInstance],
        batch: int,
        *,
        dead_ends: str = "mask",
        fits: Sequence[str] = ("planned",),
        windows: Sequence[str] = ("planned",),
        lookback: int = 256,
        negligible: float = 0.0,
        skip_forced: bool = True,
    ) -> None:
        if dead_ends not in DEAD_ENDS:
            raise ConfigError(f"dead_ends: {dead_ends!r}, expected one of {', '.join(DEAD_ENDS)}")
        if type(lookback) is not int or lookback < 1:
            raise ConfigError(f"lookback: {lookback!r}, expected an integer of at least 1")
        if not 0.0 <= negligible < 1.0:
            raise ConfigError(f"negligible: {negligible!r}, expected 0 up to below 1")
        self.options = Options(
            fits=_numbers("fits", fits, FITS),
            windows=_numbers("windows", windows, WINDOWS),
            masked=dead_ends == "mask",
            lookback=lookback,
            negligible=float(negligible),
            skip_forced=skip_forced,
        )
        self._room = room_of(instances, self.options)
        self.state = allocate(batch, self._room)
        # For moves that nobody chooses or is paid for.
        self._idle: I32 = np.full(batch, -1, dtype=np.int32)
        self._reward: F32 = np.zeros(batch, dtype=np.float32)
        self._done: Bool = np.zeros(batch, dtype=np.bool_)
        for row in range(batch):
            self.load(row, instances[row % len(instances)])

    @property
    def batch(self) -> int:
        """Number of rows B."""
        return len(self.state.ops)

    @property
    def slots(self) -> int:
        """Candidate slots C: fast layers times fits times windows, keeping, and the slow layer."""
        return self._room.slots

    @property
    def invalid(self) -> I32:
        """(B,) actions outside the mask since each episode began."""
        return self.state.invalid

    @property
    def invalid_limit(self) -> I32:
        """(B,) the number of accesses."""
        return self.state.accesses

    @property
    def backups(self) -> I32:
        """(B,) how often decisions were taken back at a dead end since each episode began."""
        return self.state.backups

    @property
    def decisions(self) -> I32:
        """(B,) accesses decided since each episode began, forced and taken-back ones included."""
        return self.state.decisions

    def load(self, row: int, instance: MemoryMapInstance) -> None:
        """Start an episode of ``instance`` in one row.

        Raises:
            ConfigError: no program, or one that needs more candidate slots than there are.
        """
        if not isinstance(instance, MemoryMapInstance):
            raise ConfigError(f"instance {instance.name}: the mapping game plays programs, not lifetimes")
        needed = room_of([instance], self.options)
        if needed.slots > self.slots:
            raise ConfigError(f"instance {instance.name} needs {needed.slots} candidate slots, there are {self.slots}")
        if any(need > have for need, have in zip(needed, self._room, strict=True)):
            self._grow(needed)
        write_instance(self.state, row, instance, best_hint(instance))
        reset_row(self.state, row, self.options)
        # One access stays, so that every episode has a decision.
        self._advance(self._idle, self._reward, self._done, keep=1)

    def observe(self, out: DecisionBatch) -> None:
        """Fill the current decision of every row; slots beyond ``count`` are zero."""
        write_decisions(self.state, out.candidates, out.candidate_features, out.context, out.count)

    def step(self, action: I32, reward: F32, done: Bool) -> None:
        """Decide one access per row; see the contract for negative and invalid slots."""
        reward[:] = 0.0
        self._advance(action, reward, done)

    def play_advised(self) -> None:
        """Play every row to its end as its hint and the shadow prices advise."""
        self.state.moves_on[:] = self.state.candidates > 0
        self._advance(self._idle, self._reward, self._done, advised=True)

    def _advance(self, action: I32, reward: F32, done: Bool, *, keep: int = 0, advised: bool = False) -> None:
        step_rows(self.state, action, reward, done, keep, advised, self.options)
        while not self.options.masked and finish_rows(self.state, self.options):
            # Only rows taken back at their end go on, and are paid for that.
            action = np.where(self.state.moves_on, action, -1).astype(np.int32)
            step_rows(self.state, action, reward, done, keep, advised, self.options)

    def finished(self, row: int) -> bool:
        """Whether every access of the row is decided."""
        return bool(self.state.candidates[row] == 0)

    def objective(self, row: int) -> float:
        """Return the latency of a finished row in seconds."""
        state, ops = self.state, int(self.state.ops[row])
        return math.fsum((state.trips[row, :ops] * state.latency[row, :ops]).tolist())

    def solution(self, row: int) -> MemoryPlan:
        """Return the plan of a finished row."""
        state = self.state
        return MemoryPlan(
            access_layer=state.layer[row, : state.accesses[row]],
            residences=state.residence[row, : state.residences[row]],
            copies=state.copy[row, : state.copies[row]],
        )

    def follow(self, row: int, solution: MemoryPlan) -> int:
        """Return the candidate in the layer that the plan has for the access, one that copies alike if possible."""
        state, access = self.state, int(self.state.position[row])
        count = int(state.candidates[row])
        kind, layer, offset = state.candidate[row, :count, :3].T
        buffer, t = int(state.access_buffer[row, access]), int(state.access_op[row, access])
        own = solution.residences[solution.residences[:, 0] == buffer]
        there = own[(own[:, 3] <= t) & (own[:, 4] >= t), 2]
        copies = solution.copies[solution.copies[:, 0] == buffer]
        written_back = bool((copies[:, 1] == 0).any())
        wanted = COPY if written_back and state.access_write[row, access] else NO_COPY
        distance = np.abs(offset - there[0]) if len(there) else np.zeros(count)
        return int(np.lexsort((distance, kind != wanted, layer != solution.access_layer[access]))[0])

    def snapshot(self) -> dict[str, Any]:
        """Return copies of all arrays by name."""
        return {name: array.copy() for name, array in self.state._asdict().items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot of a simulator of the same batch and slots."""
        self.state = State(**{name: np.array(array) for name, array in state.items()})
        self._room = _room(self.state)

    def _grow(self, needed: Room) -> None:
        """Make room for larger instances, which generators of random sizes draw."""
        old = self.state._asdict()
        self._room = Room(*(max(pair) for pair in zip(needed, self._room, strict=True)))
        self.state = allocate(self.batch, self._room)
        for name, array in self.state._asdict().items():
            array[tuple(slice(size) for size in old[name].shape)] = old[name]


def _room(state: State) -> Room:
    return Room(
        ops=state.compute.shape[1],
        accesses=state.access_op.shape[1],
        buffers=state.size.shape[1],
        layers=state.capacity.shape[1],
        groups=state.group_layer.shape[1],
        slots=state.candidate.shape[1],
    )


def _numbers(option: str, chosen: Sequence[str], known: tuple[str, ...]) -> tuple[int, ...]:
    names = (chosen,) if isinstance(chosen, str) else tuple(chosen)
    if not names or len(set(names)) != len(names) or not set(names) <= set(known):
        raise ConfigError(f"{option}: {chosen!r}, expected some of {', '.join(known)}, each once")
    return tuple(known.index(name) for name in names)
