"""The migration game: a fixed rule routes requests, and every period some of them may move to another instance.

Llumnix (Sun et al., OSDI '24) moves decoding requests live between instances; here waiting ones can move, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from schedrl.arrays import F32, I32, Bool
from schedrl.envs.routing.events import move, send
from schedrl.envs.routing.instance import PAGE_TOKENS, RoutingInstance
from schedrl.envs.routing.migration_observation import FEATURES, write_decisions
from schedrl.envs.routing.migration_offers import SLOTS, Offers, allocate_offers, list_offers
from schedrl.envs.routing.rules import RULES, choose
from schedrl.envs.routing.simulator import objective_so_far, to_decision
from schedrl.envs.routing.solution import RoutingPlan
from schedrl.envs.routing.state import Room, State, allocate, grown, room_of, served, write_instance
from schedrl.errors import ConfigError, unknown_name
from schedrl.graphs import DecisionBatch, FeatureTable
from schedrl.kernels import inner, inner_inlined, kernel

__all__ = ["MigrationSimulator"]

_BEGINS, _LOADED = -2, -2
_OFFERS = "offers_"


@inner
def _route(state: State, b: int, page: int, rule: int, until: float) -> None:
    """Let the rule route all requests that come up to a moment."""
    to_decision(state, b, page, 0.0, until)
    while state.candidates[b] > 0:
        slot = choose(state, b, rule)
        send(state, b, state.current[b], state.offered[b, slot], page)
        to_decision(state, b, page, 0.0, until)


@inner_inlined
def _next_event(state: State, b: int) -> float:
    """Return when the next request comes where no instance has anything to do, else 0."""
    for i in range(state.fleet[b]):
        if state.inflight[b, i] > 0:
            return 0.0
    soonest = np.inf
    if state.arrived[b] < state.initial_count[b]:
        soonest = state.arrival[b, state.initial[b, state.arrived[b]]]
    if state.events[b] > 0:
        soonest = min(soonest, state.event_time[b, state.event[b, 0]])
    return float(soonest)


@inner
def _make_move(state: State, offers: Offers, b: int, slot: int, page: int, most_moves: int) -> None:
    """Do what a slot says; the first ends the period."""
    if slot == 0:
        offers.made[b] = most_moves
        return
    r, j, k = offers.request[b, slot], offers.target[b, slot], offers.logged[b]
    joined = state.arrivals[b]
    offers.made[b] += 1
    offers.moved[b, r] += 1
    if move(state, b, r, j, page):
        offers.log_request[b, k], offers.log_target[b, k] = r, j
        offers.log_time[b, k], offers.log_after[b, k] = state.now[b], joined
        offers.logged[b] += 1


@inner
def _to_choice(state: State, offers: Offers, b: int, page: int, rule: int, period: float, most_moves: int) -> None:
    """Go on to the next moment at which some request can move."""
    offers.candidates[b] = 0
    if offers.made[b] < most_moves:
        list_offers(state, offers, b)
    while offers.candidates[b] <= 1:
        soonest = _next_event(state, b)
        if offers.tick[b] < soonest < np.inf:
            # Nothing can move before: leave out the periods in which nothing happens.
            offers.tick[b] += np.ceil((soonest - offers.tick[b]) / period) * period
        _route(state, b, page, rule, offers.tick[b])
        offers.tick[b] += period
        offers.made[b] = 0
        if state.current[b] != _BEGINS:
            offers.candidates[b] = 0
            return
        list_offers(state, offers, b)


@kernel
def step_rows(
    state: State,
    offers: Offers,
    action: I32,
    reward: F32,
    done: Bool,
    settings: tuple[int, int, float, int],
) -> None:
    """Make one move per row, or start rows just loaded, and go on to the next choice.

    Args:
        state: the fleets.
        offers: the candidates.
        action: (B,) slot, -1 for none, -2 for a row just loaded.
        reward: (B,) filled with the fall of the objective.
        done: (B,) filled with whether each row is finished.
        settings: tokens of a page, number of the rule, seconds of a period, most moves in one.
    """
    page, rule, period, most_moves = settings
    for b in range(len(action)):
        slot = action[b]
        valid, starts = 0 <= slot < offers.candidates[b], slot == _LOADED
        if slot >= offers.candidates[b]:
            state.invalid[b] += 1
        if valid:
            _make_move(state, offers, b, slot, page, most_moves)
            _to_choice(state, offers, b, page, rule, period, most_moves)
        if starts:
            # The first choice is there even where nothing can move, so that every episode has one.
            offers.tick[b] = state.arrival[b, state.initial[b, 0]]
            _route(state, b, page, rule, offers.tick[b])
            offers.tick[b] += period
            if state.current[b] == _BEGINS:
                list_offers(state, offers, b)
        if valid or starts:
            state.bound[b] = objective_so_far(state, b)
        reward[b] = 0.0
        if valid:
            # What rounding to single precision left over is paid with the next reward.
            reward[b] = -state.bound[b] - state.paid[b]
            state.paid[b] += reward[b]
        done[b] = state.current[b] == -1


class MigrationSimulator:
    """B fleets at once. See ``schedrl.families.Simulator`` for the contract.

    Args:
        instances: bound what fits later; room grows.
        batch: number of rows B.
        rule: name of the built-in rule that routes requests (``schedrl.envs.routing.rules``).
        period_s: time between decisions; periods in which nothing could move are left out.
        most_moves: most moves in a period.
        exact: hand out memory in pages and advance iteration by iteration, as engines do.

    Raises:
        ConfigError: an option outside its range.
        UnknownNameError: no such rule.
    """

    features: ClassVar[FeatureTable] = FEATURES

    def __init__(
        self,
        instances: Sequence[RoutingInstance],
        batch: int,
        *,
        rule: str = "least-pending-time",
        period_s: float = 0.5,
        most_moves: int = 4,
        exact: bool = False,
    ) -> None:
        if rule not in RULES:
            raise unknown_name("rule", rule, RULES)
        if not 1e-3 <= period_s < np.inf:
            raise ConfigError(f"period_s: {period_s!r}, expected a time of at least 0.001")
        if type(most_moves) is not int or not 1 <= most_moves <= 1024:
            raise ConfigError(f"most_moves: {most_moves!r}, expected an integer of 1 to 1024")
        self._settings = (PAGE_TOKENS if exact else 1, RULES[rule], float(period_s), most_moves)
        room = room_of(instances)
        self.state = allocate(batch, room)
        self.offers = allocate_offers(batch, room.requests, room.fleet)
        for row in range(batch):
            self.load(row, instances[row % len(instances)])

    @property
    def batch(self) -> int:
        """Number of rows B."""
        return len(self.state.requests)

    @property
    def slots(self) -> int:
        """Candidate slots C."""
        return SLOTS

    @property
    def invalid(self) -> I32:
        """(B,) actions outside the mask since each episode began."""
        return self.state.invalid

    @property
    def invalid_limit(self) -> I32:
        """(B,) the number of requests."""
        return self.state.requests

    def load(self, row: int, instance: RoutingInstance) -> None:
        """Start an episode of ``instance`` in one row, up to the arrival of its first request."""
        self._make_room(room_of([instance]))
        write_instance(self.state, row, instance)
        for array in self.offers:
            array[row] = 0
        action = np.full(self.batch, -1, dtype=np.int32)
        action[row] = _LOADED
        self._step(action, np.zeros(self.batch, dtype=np.float32), np.zeros(self.batch, dtype=np.bool_))

    def observe(self, out: DecisionBatch) -> None:
        """Fill the current decision of every row; slots beyond ``count`` are zero."""
        arrays = (out.candidates, out.candidate_features, out.context, out.count)
        write_decisions(self.state, self.offers, *arrays, self._settings[3])

    def step(self, action: I32, reward: F32, done: Bool) -> None:
        """Make one move per row, or none; see the contract for negative and invalid slots."""
        self._step(np.maximum(action, -1), reward, done)

    def finished(self, row: int) -> bool:
        """Whether every request of the row is finished."""
        return bool(self.state.current[row] == -1)

    def objective(self, row: int) -> float:
        """Return the objective of a finished row."""
        return float(self.state.bound[row])

    def solution(self, row: int) -> RoutingPlan:
        """Return the plan of a finished row."""
        offers = self.offers
        moves = int(offers.logged[row])
        return RoutingPlan(
            **served(self.state, row),
            page_tokens=self._settings[0],
            move_request=offers.log_request[row, :moves],
            move_target=offers.log_target[row, :moves],
            move_s=offers.log_time[row, :moves],
            move_after=offers.log_after[row, :moves],
        )

    def follow(self, row: int, solution: RoutingPlan) -> int:
        """Return the slot of the plan's first move of this period that is offered, 0 if there is none."""
        now, offers = float(self.state.now[row]), self.offers
        count = int(offers.candidates[row])
        due = (solution.move_s <= now + 1e-9) & (solution.move_s > now + 1e-9 - self._settings[2])
        for k in np.flatnonzero(due).tolist():
            request, target = solution.move_request[k], solution.move_target[k]
            same = (offers.request[row, :count] == request) & (offers.target[row, :count] == target)
            if same.any():
                return int(np.argmax(same))
        return 0

    def snapshot(self) -> dict[str, Any]:
        """Return copies of all arrays by name."""
        offers = {f"{_OFFERS}{name}": array for name, array in self.offers._asdict().items()}
        return {name: array.copy() for name, array in (self.state._asdict() | offers).items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot of a simulator of the same batch and options."""
        self.state = State(**{name: np.array(state[name]) for name in State._fields})
        self.offers = Offers(**{name: np.array(state[f"{_OFFERS}{name}"]) for name in Offers._fields})

    def _step(self, action: I32, reward: F32, done: Bool) -> None:
        step_rows(self.state, self.offers, action, reward, done, self._settings)

    def _make_room(self, room: Room) -> None:
        """Make room for larger instances, which generators of random sizes draw."""
        state = grown(self.state, room)
        if state is self.state:
            return
        self.state, old = state, self.offers._asdict()
        self.offers = allocate_offers(self.batch, state.arrival.shape[1], state.end.shape[1])
        for name, array in self.offers._asdict().items():
            array[tuple(slice(size) for size in old[name].shape)] = old[name]
