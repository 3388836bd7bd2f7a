"""The routing game: many fleets advance together, one request sent per step.

Numba kernels over arrays with a leading batch axis; the gymnasium environments and learned policies run on them. The
checker (``schedrl.envs.routing.replay``) shares nothing with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from schedrl.arrays import F32, I32, Bool
from schedrl.envs.routing.events import go_on, hold_back, move, send, turn_away
from schedrl.envs.routing.instance import PAGE_TOKENS, RoutingInstance
from schedrl.envs.routing.observation import FEATURES, write_decisions
from schedrl.envs.routing.rules import RULES, choose
from schedrl.envs.routing.signals import know
from schedrl.envs.routing.solution import RoutingPlan
from schedrl.envs.routing.state import State, allocate, grown, room_of, served, write_instance
from schedrl.errors import ConfigError
from schedrl.graphs import DecisionBatch, FeatureTable
from schedrl.kernels import inner, inner_inlined, kernel

__all__ = ["Simulator", "objective_so_far", "to_decision"]

_NO_RULE = -1
_BEGINS = -2
_MOST_HOLDS = 8
_MOVES = "simulator_moves"


@inner_inlined
def _offer(state: State, b: int, hold: bool) -> None:
    """List the instances that the request at hand can go to, and holding it where that is a choice."""
    count = 0
    for i in range(state.fleet[b]):
        if state.allowed[b, i]:
            state.offered[b, count] = i
            count += 1
    # A request that is handed over has its keys and values on the way; it cannot wait at the router.
    hold = hold and state.current_kind[b] == 0
    if hold and count > 0 and state.held_back[b, state.current[b]] < _MOST_HOLDS:
        state.offered[b, count] = -1
        count += 1
    state.candidates[b] = count


@kernel
def move_request(state: State, b: int, r: int, j: int, page: int) -> bool:
    """Move a request to another instance; see ``schedrl.envs.routing.events.move``."""
    # Of the type of the numbers in arrays, for which engines are compiled anyway.
    request: Any = np.int32(r)
    target: Any = np.int32(j)
    return move(state, b, request, target, page)


@inner
def _next_ready(state: State, b: int, r: int) -> float:
    """Return when the next instance that a request fits starts to take requests, inf if none will."""
    soonest = np.inf
    for i in range(state.fleet[b]):
        fits = state.role[b, i] == 2 if state.current_kind[b] == 1 else state.fits[b, r, i]
        if fits and state.ready[b, i] > state.now[b]:
            soonest = min(soonest, state.ready[b, i])
    return soonest


@inner
def to_decision(state: State, b: int, page: int, hold_s: float, until: float) -> None:
    """Go on to the next request that some instance can take."""
    state.candidates[b] = 0
    while state.candidates[b] == 0 and go_on(state, b, page, until):
        r = state.current[b]
        know(state, b, r)
        _offer(state, b, hold_s > 0.0)
        if state.candidates[b] == 0:
            ready = _next_ready(state, b, r)
            if ready < np.inf:
                hold_back(state, b, r, ready)
            else:
                turn_away(state, b, r)
    if state.candidates[b] == 0 and state.finished[b] < state.requests[b]:
        state.current[b] = _BEGINS


@inner_inlined
def objective_so_far(state: State, b: int) -> float:
    """Return the objective as far as it is known."""
    count = state.fleet[b]
    price = power = cost = energy = 0.0
    for i in range(count):
        price += state.price[b, i] / count
        power += state.power[b, i] / count
        cost += state.busy[b, i] * state.price[b, i]
        energy += state.busy[b, i] * state.power[b, i]
    total = state.preference[b, 0] * state.penalty[b]
    if price > 0.0:
        total += state.preference[b, 1] * cost / price
    if power > 0.0:
        total += state.preference[b, 2] * energy / power
    return float(total / state.requests[b])


@kernel
def step_rows(
    state: State, action: I32, reward: F32, done: Bool, page: int, hold_s: float, rule: int, until: float
) -> None:
    """Send one request per row, or go on in rows just loaded or paused, up to the next request or a moment.

    With a rule, all requests up to that moment are sent as it says.
    """
    for b in range(len(action)):
        slot = action[b]
        valid = 0 <= slot < state.candidates[b]
        if slot >= state.candidates[b]:
            state.invalid[b] += 1
        starts = state.current[b] == _BEGINS and slot < 0
        if valid and rule >= 0:
            slot = choose(state, b, rule)
        if valid or starts:
            while True:
                if not starts:
                    chosen, r = state.offered[b, slot], state.current[b]
                    if chosen < 0:
                        hold_back(state, b, r, state.now[b] + hold_s)
                    else:
                        send(state, b, r, chosen, page)
                starts = False
                to_decision(state, b, page, hold_s, until)
                if rule < 0 or state.candidates[b] == 0:
                    break
                slot = choose(state, b, rule)
            state.bound[b] = objective_so_far(state, b)
        reward[b] = 0.0
        if valid:
            # What rounding to single precision left over is paid with the next reward.
            reward[b] = -state.bound[b] - state.paid[b]
            state.paid[b] += reward[b]
        done[b] = state.current[b] == -1


class Simulator:
    """B fleets at once. See ``schedrl.families.Simulator`` for the contract.

    Args:
        instances: bound what fits later; room grows.
        batch: number of rows B.
        exact: hand out memory in pages of 16 tokens and advance iteration by iteration, as engines do; otherwise pages
            of one token, and iterations that only decode are taken together.
        hold_s: for how long a request can be held at the router, as a further choice; 0 for never.
        most_instances: room for fleets that are loaded later; the largest fleet of ``instances`` always fits.

    Raises:
        ConfigError: an option outside its range.
    """

    features: ClassVar[FeatureTable] = FEATURES

    def __init__(
        self,
        instances: Sequence[RoutingInstance],
        batch: int,
        *,
        exact: bool = False,
        hold_s: float = 0.0,
        most_instances: int = 0,
    ) -> None:
        if not 0.0 <= hold_s < np.inf:
            raise ConfigError(f"hold_s: {hold_s!r}, expected a time of at least 0")
        if type(most_instances) is not int or most_instances < 0:
            raise ConfigError(f"most_instances: {most_instances!r}, expected an integer of at least 0")
        self._page = PAGE_TOKENS if exact else 1
        self._hold_s = float(hold_s)
        room = room_of(instances)
        self._most = max(room.fleet, most_instances)
        self.state = allocate(batch, room)
        self._idle: tuple[I32, F32, Bool] = (
            np.full(batch, -1, dtype=np.int32),
            np.zeros(batch, dtype=np.float32),
            np.zeros(batch, dtype=np.bool_),
        )
        self._moves: list[list[tuple[int, int, float, int]]] = [[] for _ in range(batch)]
        for row in range(batch):
            self.load(row, instances[row % len(instances)])

    @property
    def batch(self) -> int:
        """Number of rows B."""
        return len(self.state.requests)

    @property
    def slots(self) -> int:
        """Candidate slots C: the instances of the largest fleet, and one to hold."""
        return self._most + (self._hold_s > 0.0)

    @property
    def invalid(self) -> I32:
        """(B,) actions outside the mask since each episode began."""
        return self.state.invalid

    @property
    def invalid_limit(self) -> I32:
        """(B,) the number of requests."""
        return self.state.requests

    def load(self, row: int, instance: RoutingInstance) -> None:
        """Start an episode of ``instance`` in one row, up to the arrival of its first request.

        Raises:
            ConfigError: a fleet with more instances than there are slots.
        """
        if len(instance.fleet) > self._most:
            raise ConfigError(
                f"instance {instance.name}: a fleet of {len(instance.fleet)} instances, there are slots for"
                f" {self._most}; option most_instances: {len(instance.fleet)} makes room"
            )
        self.state = grown(self.state, room_of([instance]))
        write_instance(self.state, row, instance)
        self._moves[row] = []
        # What happens before the first decision is paid with the first reward.
        idle, unpaid, done = self._idle
        step_rows(self.state, idle, unpaid, done, self._page, self._hold_s, _NO_RULE, np.inf)

    def observe(self, out: DecisionBatch) -> None:
        """Fill the current decision of every row; slots beyond ``count`` are zero."""
        write_decisions(self.state, out.candidates, out.candidate_features, out.context, out.count)

    def step(self, action: I32, reward: F32, done: Bool) -> None:
        """Send one request per row; see the contract for negative and invalid slots."""
        step_rows(self.state, action, reward, done, self._page, self._hold_s, _NO_RULE, np.inf)

    def play_rule(self, name: str, rng: np.random.Generator | None = None) -> None:
        """Route all requests that are left in every row by a rule of ``schedrl.envs.routing.rules``."""
        rule = RULES[name]
        if rng is not None:
            self.state.random[:] = rng.integers(0, 2**63, self.batch, dtype=np.uint64)
        action, reward, done = self._idle
        action = np.where(self.state.candidates > 0, 0, action).astype(np.int32)
        step_rows(self.state, action, reward, done, self._page, self._hold_s, rule, np.inf)

    def send(self, slot: int, until: float = np.inf) -> bool:
        """Send the request at hand of row 0, or go on after a pause with slot -1; return whether another is at hand.

        Routers that act between arrivals stop at a moment ``until``, and go on from there with slot -1.
        """
        action, reward, done = self._idle
        step_rows(self.state, np.full_like(action, slot), reward, done, self._page, self._hold_s, _NO_RULE, until)
        return bool(self.state.candidates[0] > 0)

    def move(self, row: int, request: int, target: int) -> bool:
        """Move a waiting or decoding request to another instance; return whether that is possible."""
        joined = int(self.state.arrivals[row])
        moved = bool(move_request(self.state, row, request, target, self._page))
        if moved:
            self._moves[row].append((request, target, float(self.state.now[row]), joined))
        return moved

    def finished(self, row: int) -> bool:
        """Whether every request of the row is finished."""
        return bool(self.state.current[row] == -1)

    def objective(self, row: int) -> float:
        """Return the objective of a finished row."""
        return float(self.state.bound[row])

    def solution(self, row: int) -> RoutingPlan:
        """Return the plan of a finished row."""
        return RoutingPlan(
            **served(self.state, row),
            page_tokens=self._page,
            move_request=np.array([request for request, _, _, _ in self._moves[row]], dtype=np.int32),
            move_target=np.array([target for _, target, _, _ in self._moves[row]], dtype=np.int32),
            move_s=np.array([moment for _, _, moment, _ in self._moves[row]], dtype=np.float64),
            move_after=np.array([joined for _, _, _, joined in self._moves[row]], dtype=np.int32),
        )

    def follow(self, row: int, solution: RoutingPlan) -> int:
        """Return the slot of the instance that a plan sends the request at hand to."""
        state, r = self.state, int(self.state.current[row])
        wanted = solution.decode_instance[r] if state.current_kind[row] == 1 else solution.instance[r]
        offered = state.offered[row, : state.candidates[row]]
        if wanted < 0 or state.now[row] < solution.dispatch_s[r] - 1e-9:
            held = np.flatnonzero(offered == -1)
            if len(held):
                return int(held[0])
        found = np.flatnonzero(offered == wanted)
        return int(found[0]) if len(found) else 0

    def snapshot(self) -> dict[str, Any]:
        """Return copies of all arrays by name, and of the moves."""
        copies: dict[str, Any] = {name: array.copy() for name, array in self.state._asdict().items()}
        moves = [(row, *move) for row, made in enumerate(self._moves) for move in made]
        return copies | {_MOVES: np.array(moves, dtype=np.float64).reshape(-1, 5)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot of a simulator of the same batch and options."""
        self.state = State(**{name: np.array(array) for name, array in state.items() if name != _MOVES})
        self._moves = [[] for _ in range(self.batch)]
        for row, request, target, moment, joined in np.asarray(state[_MOVES]).tolist():
            self._moves[int(row)].append((int(request), int(target), moment, int(joined)))
        self._most = max(self._most, self.state.end.shape[1])
