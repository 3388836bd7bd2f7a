"""The rebalancing game: before every window, each layer in turn is kept, changed a little, or placed anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from schedrl.arrays import F32, I32, Bool
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.layer_time import Hardware, home_layer_s, slot_tokens
from schedrl.envs.moe.rebalance_observation import FEATURES, write_decisions
from schedrl.envs.moe.rebalance_options import make_options, write_forecasts
from schedrl.envs.moe.rebalance_state import (
    KINDS,
    Room,
    State,
    Work,
    allocate,
    allocate_work,
    room_of,
    write_instance,
)
from schedrl.envs.moe.solution import ExpertPlan
from schedrl.graphs import DecisionBatch, FeatureTable
from schedrl.kernels import inner, inner_inlined, kernel

__all__ = ["RebalanceSimulator"]

_HARDWARE = "hardware_"


@inner_inlined
def _take(state: State, b: int, slot: int) -> None:
    """Bring the layer at hand into the placement of an option and go on to the next layer."""
    layer = state.layer[b]
    for p in range(state.slots[b]):
        state.placement[b, layer, p] = state.option[b, slot, p]
    state.total_s[b] += state.move_s[b, slot]
    if state.moved[b, slot] > 0:
        state.unchanged[b, layer] = 0
    state.layer[b] = layer + 1


@inner
def _end_window(state: State, work: Work, b: int) -> None:
    """Record the plan, and pay for the window that it was made for, or for all when they are scored in sample."""
    plan, slots, experts = state.plan[b], state.slots[b], state.experts[b]
    window = state.planned[b] + plan
    first, last = (0, state.windows[b]) if state.in_sample[b] else (window, window + 1)
    for layer in range(state.layers[b]):
        placement = state.placement[b, layer]
        for p in range(slots):
            state.record[b, plan, layer, p] = placement[p]
        state.unchanged[b, layer] += 1
        for w in range(first, last):
            total = slot_tokens(
                state.loads[b, w, layer, :experts], placement, slots, work.replicas[:experts], work.tokens
            )
            seconds = home_layer_s(work.hardware, b, work.tokens, state.device[b], slots, total, work.times)
            state.total_s[b] += state.iterations[b] * seconds
    for w in range(first, last):
        state.elapsed_ideal_s[b] += state.ideal[b, w]
    state.plan[b], state.layer[b] = plan + 1, 0


@inner
def _advance(state: State, work: Work, b: int, keep: int, skip_forced: bool) -> None:
    """Go on to the next decision; the last ``keep`` decisions are one even when forced."""
    while True:
        if state.layer[b] == state.layers[b]:
            _end_window(state, work, b)
        if state.plan[b] == state.plans[b]:
            state.candidates[b] = 0
            return
        write_forecasts(state, b)
        make_options(state, work, b)
        left = (state.plans[b] - state.plan[b]) * state.layers[b] - state.layer[b]
        if state.candidates[b] != 1 or not skip_forced or left <= keep:
            return
        _take(state, b, 0)


@kernel
def step_rows(state: State, work: Work, action: I32, reward: F32, done: Bool, keep: int, skip_forced: bool) -> None:
    """Take one option per row, or find the first decision of rows just loaded, and pay for what is over.

    Rewards are in units of the time under perfect balance.
    """
    for b in range(len(action)):
        slot = action[b]
        moves = slot == -2
        if slot >= state.candidates[b]:
            state.invalid[b] += 1
        elif slot >= 0:
            _take(state, b, slot)
            moves = True
        if moves:
            _advance(state, work, b, keep, skip_forced)
        reward[b] = 0.0
        if slot >= 0:
            # What rounding to single precision left over is paid with the next reward.
            reward[b] = (state.elapsed_ideal_s[b] - state.total_s[b]) / state.unit[b] - state.paid[b]
            state.paid[b] += reward[b]
        done[b] = state.candidates[b] == 0


class RebalanceSimulator:
    """B rebalancing games at once. See ``schedrl.families.Simulator`` for the contract.

    Args:
        instances: bound what fits later; room grows.
        batch: number of rows B.
        skip_forced: keep a layer at once when there is no other option.

    Raises:
        ConfigError: an instance whose tokens stay on their path.
    """

    features: ClassVar[FeatureTable] = FEATURES

    def __init__(self, instances: Sequence[ExpertPlacementInstance], batch: int, *, skip_forced: bool = True) -> None:
        self._skip_forced = skip_forced
        self._room = room_of(instances)
        self.state, self._work = allocate(batch, self._room), allocate_work(batch, self._room)
        for row in range(batch):
            self.load(row, instances[row % len(instances)])

    @property
    def batch(self) -> int:
        """Number of rows B."""
        return len(self.state.plans)

    @property
    def slots(self) -> int:
        """Candidate slots C: the kinds of options."""
        return len(KINDS)

    @property
    def invalid(self) -> I32:
        """(B,) actions outside the mask since each episode began."""
        return self.state.invalid

    @property
    def invalid_limit(self) -> I32:
        """(B,) the number of decisions."""
        limit: I32 = self.state.plans * self.state.layers
        return limit

    def load(self, row: int, instance: ExpertPlacementInstance) -> None:
        """Start an episode of ``instance`` in one row.

        Raises:
            ConfigError: an instance whose tokens stay on their path.
        """
        needed = room_of([instance])
        if any(need > have for need, have in zip(needed, self._room, strict=True)):
            self._grow(needed)
        write_instance(self.state, self._work, row, instance)
        action = np.full(self.batch, -1, dtype=np.int32)
        action[row] = -2
        # One decision stays, so that every episode has one; the first reward pays for the forced ones too.
        reward, done = np.zeros(self.batch, dtype=np.float32), np.zeros(self.batch, dtype=np.bool_)
        step_rows(self.state, self._work, action, reward, done, 1, self._skip_forced)

    def observe(self, out: DecisionBatch) -> None:
        """Fill the current decision of every row; slots beyond ``count`` are zero."""
        write_decisions(self.state, out.candidates, out.candidate_features, out.context, out.count)

    def step(self, action: I32, reward: F32, done: Bool) -> None:
        """Take one option per row; see the contract for negative and invalid slots."""
        step_rows(self.state, self._work, np.maximum(action, -1), reward, done, 0, self._skip_forced)

    def finished(self, row: int) -> bool:
        """Whether all plans of the row are made."""
        return bool(self.state.candidates[row] == 0)

    def objective(self, row: int) -> float:
        """Return the total time of a finished row in seconds."""
        return float(self.state.total_s[row])

    def solution(self, row: int) -> ExpertPlan:
        """Return the plans of a finished row."""
        state = self.state
        plans, layers, slots = int(state.plans[row]), int(state.layers[row]), int(state.slots[row])
        return ExpertPlan(experts=state.record[row, :plans, :layers, :slots])

    def follow(self, row: int, solution: ExpertPlan) -> int:
        """Return the option that puts most experts on the devices where the solution has them, the first of equals."""
        state, layer = self.state, int(self.state.layer[row])
        slots, experts = int(state.slots[row]), int(state.experts[row])
        wanted = solution.experts[min(int(state.plan[row]), len(solution.experts) - 1), layer]
        device = state.device[row, :slots].astype(np.int64)
        target = np.bincount(device * experts + wanted, minlength=experts * int(state.devices[row]))
        agreement = [
            np.minimum(np.bincount(device * experts + option[:slots], minlength=len(target)), target).sum()
            for option in state.option[row, : state.candidates[row]]
        ]
        return int(np.argmax(agreement))

    def snapshot(self) -> dict[str, Any]:
        """Return copies of all arrays by name."""
        hardware = {f"{_HARDWARE}{name}": array for name, array in self._work.hardware._asdict().items()}
        return {name: array.copy() for name, array in (self.state._asdict() | hardware).items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot of a simulator of the same batch and options."""
        self.state = State(**{name: np.array(state[name]) for name in State._fields})
        loads, placement = self.state.loads, self.state.placement
        devices = self.state.first_slot.shape[1] - 1
        self._room = Room(loads.shape[1], loads.shape[2], loads.shape[3], placement.shape[2], devices)
        hardware = {name: np.array(state[f"{_HARDWARE}{name}"]) for name in Hardware._fields}
        self._work = allocate_work(self.batch, self._room)._replace(hardware=Hardware(**hardware))

    def _grow(self, needed: Room) -> None:
        """Make room for larger instances, which generators of random sizes draw."""
        state, hardware = self.state, self._work.hardware
        self._room = Room(*(max(pair) for pair in zip(needed, self._room, strict=True)))
        self.state, self._work = allocate(self.batch, self._room), allocate_work(self.batch, self._room)
        arrays: list[tuple[Any, Any]] = [
            *zip(self.state, state, strict=True),
            *zip(self._work.hardware, hardware, strict=True),
        ]
        for new, old in arrays:
            new[tuple(slice(size) for size in old.shape)] = old
