"""The placement game: many instances advance together, one placed replica per step.

Numba kernels over arrays with a leading batch axis; the gymnasium environments and learned policies run on them. The
checker and the objectives (``schedrl.envs.moe.solution``) share nothing with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from schedrl.arrays import F32, I32, Bool
from schedrl.envs.moe.following import followed
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.layer_time import Hardware, allocate_hardware
from schedrl.envs.moe.observation import FEATURES, write_decisions
from schedrl.envs.moe.placement_moves import begin_layer, offer, place
from schedrl.envs.moe.placement_state import Room, State, allocate, room_of, write_instance
from schedrl.envs.moe.placement_time import even_total_s, plan_total_s
from schedrl.envs.moe.solution import ExpertPlan
from schedrl.errors import ConfigError
from schedrl.graphs import DecisionBatch, FeatureTable
from schedrl.kernels import inner_inlined, kernel

__all__ = ["Simulator"]

_HARDWARE = "hardware."


@inner_inlined
def _advance(hw: Hardware, state: State, b: int, keep: int, window: int, skip_forced: bool) -> None:
    """Place what is pending and go on to the next decision; the last ``keep`` replicas are one even when forced."""
    while True:
        if state.pending[b] >= 0:
            place(hw, state, b, state.pending[b])
            state.pending[b] = -1
        if state.layer[b] == state.layers[b]:
            state.candidates[b] = 0
            state.total_s[b] = plan_total_s(hw, state, b)
            return
        offer(hw, state, b, window)
        if state.candidates[b] != 1 or not skip_forced or state.left[b] <= keep:
            return
        state.pending[b] = state.option[b, 0]


@inner_inlined
def _cost_s(state: State, b: int) -> float:
    """Return the objective of a finished row, or else the unit and what the forecast already costs above bounds."""
    cost_s: float = state.total_s[b]
    if state.candidates[b] > 0:
        excess = max(state.peak_s[b] - state.ideal_s[b, state.layer[b]], 0.0)
        cost_s = state.unit[b] + state.spent_s[b] + excess * state.iterations[b] * state.windows[b]
    return cost_s


@kernel
def begin_row(hw: Hardware, state: State, b: int) -> None:
    """Begin the first layer of a row just written."""
    state.unit[b] = even_total_s(hw, state, b)
    begin_layer(hw, state, b)


@kernel
def step_rows(
    hw: Hardware, state: State, action: I32, reward: F32, done: Bool, keep: int, window: int, skip_forced: bool
) -> None:
    """Place one replica per row, or what is forced in rows just loaded, and pay for the rise of the cost."""
    for b in range(len(action)):
        slot = action[b]
        if slot >= state.candidates[b]:
            state.invalid[b] += 1
        elif slot >= 0:
            state.pending[b] = state.option[b, slot]
            state.moves_on[b] = True
        if state.moves_on[b]:
            _advance(hw, state, b, keep, window, skip_forced)
            state.moves_on[b] = False
        reward[b] = 0.0
        if slot >= 0:
            # What rounding to single precision left over is paid with the next reward.
            reward[b] = (state.unit[b] - _cost_s(state, b)) / state.unit[b] - state.paid[b]
            state.paid[b] += reward[b]
        done[b] = state.candidates[b] == 0


class Simulator:
    """B placement games at once. See ``schedrl.families.Simulator`` for the contract.

    Only the known windows and the placement at the start decide what is offered and observed; the return is
    (unit - total time) / unit with the true scored windows, and unit the time that these would take with every slot
    equally loaded and nothing moved.

    Args:
        instances: bound what fits later; room grows.
        batch: number of rows B.
        window: candidate slots C; the devices that would be done first are offered, and before all others those that
            hold the expert at the start.
        z: standard deviations over the known windows that the planned load lies above the mean.
        skip_forced: place a replica at once when there is no alternative.

    Raises:
        ConfigError: an option outside its range.
    """

    features: ClassVar[FeatureTable] = FEATURES

    def __init__(
        self,
        instances: Sequence[ExpertPlacementInstance],
        batch: int,
        *,
        window: int = 8,
        z: float = 0.0,
        skip_forced: bool = True,
    ) -> None:
        if type(window) is not int or window < 1:
            raise ConfigError(f"window: {window!r}, expected an integer of at least 1")
        if type(z) not in (int, float) or not 0.0 <= z <= 10.0:
            raise ConfigError(f"z: {z!r}, expected 0 to 10")
        self._window, self._z, self._skip_forced = window, float(z), skip_forced
        for instance in instances:
            _require_placement(instance)
        self._room = room_of(instances)
        self.state = allocate(batch, self._room, window)
        self.hardware = allocate_hardware(batch, self._room.devices)
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
        return len(self.state.layers)

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
        """(B,) the number of replicas in all layers."""
        return self.state.decisions

    def load(self, row: int, instance: ExpertPlacementInstance) -> None:
        """Start an episode of ``instance`` in one row, up to its first decision.

        Raises:
            ConfigError: another kind of instance.
        """
        _require_placement(instance)
        needed = room_of([instance])
        if any(need > have for need, have in zip(needed, self._room, strict=True)):
            self._grow(needed)
        write_instance(self.hardware, self.state, row, instance, self._z)
        begin_row(self.hardware, self.state, row)
        # One replica stays, so that every episode has a decision; the first reward pays for the forced moves too.
        idle, unpaid, done = self._idle
        step_rows(self.hardware, self.state, idle, unpaid, done, 1, self._window, self._skip_forced)

    def observe(self, out: DecisionBatch) -> None:
        """Fill the current decision of every row; slots beyond ``count`` are zero."""
        write_decisions(self.hardware, self.state, out.candidates, out.candidate_features, out.context, out.count)

    def step(self, action: I32, reward: F32, done: Bool) -> None:
        """Place one replica per row; see the contract for negative and invalid slots."""
        step_rows(self.hardware, self.state, action, reward, done, 0, self._window, self._skip_forced)

    def finished(self, row: int) -> bool:
        """Whether every replica of the row is placed."""
        return bool(self.state.candidates[row] == 0)

    def objective(self, row: int) -> float:
        """Return the total time of a finished row in seconds."""
        return float(self.state.total_s[row])

    def solution(self, row: int) -> ExpertPlan:
        """Return the plan of a finished row: one placement for all scored windows."""
        layers, slots = int(self.state.layers[row]), int(self.state.slots[row])
        return ExpertPlan(experts=self.state.plan[row : row + 1, :layers, :slots])

    def follow(self, row: int, solution: ExpertPlan) -> int:
        """Return the candidate that the first placement of the plan gives the expert in hand.

        Devices that are offered once for several equal ones stand for any of these.
        """
        return followed(self.state, self.hardware, row, solution.experts[0])

    def snapshot(self) -> dict[str, Any]:
        """Return copies of all arrays by name."""
        arrays = self.state._asdict() | {_HARDWARE + name: array for name, array in self.hardware._asdict().items()}
        return {name: array.copy() for name, array in arrays.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot of a simulator of the same batch and options."""
        self.state = State(**{name: np.array(state[name]) for name in State._fields})
        self.hardware = Hardware(**{name: np.array(state[_HARDWARE + name]) for name in Hardware._fields})
        layers, experts, devices = self.state.forecast.shape[1:] + self.state.busy.shape[1:]
        self._room = Room(
            layers=layers,
            experts=experts,
            devices=devices,
            slots=self.state.device.shape[1],
            windows=self.state.scored.shape[1],
            sources=self.state.source.shape[3],
            path=int(self.state.flow.shape[1] > 0),
        )

    def _grow(self, needed: Room) -> None:
        """Make room for larger instances, which generators of random sizes draw."""
        old: dict[str, np.ndarray[Any, Any]] = self.snapshot()
        self._room = Room(*(max(pair) for pair in zip(needed, self._room, strict=True)))
        self.state = allocate(self.batch, self._room, self._window)
        self.hardware = allocate_hardware(self.batch, self._room.devices)
        for prefix, arrays in (("", self.state), (_HARDWARE, self.hardware)):
            for name, array in arrays._asdict().items():
                array[tuple(slice(size) for size in old[prefix + name].shape)] = old[prefix + name]


def _require_placement(instance: ExpertPlacementInstance) -> None:
    if not isinstance(instance, ExpertPlacementInstance):
        raise ConfigError(f"instance {instance.name}: the placement game plays expert placement instances")
