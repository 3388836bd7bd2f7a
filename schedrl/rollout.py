"""Turns a policy into a scheduler: greedy, or the best of several sampled episodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schedrl.families import Family, Instance, Simulator, Solution
from schedrl.graphs import DecisionBatch
from schedrl.schedulers import Policy, Result

__all__ = ["IDENTITY", "PolicyScheduler", "View", "play"]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A symmetry of a family: solve ``instance(original)`` and map its solution back."""

    name: str
    instance: Callable[[Any], Any]
    solution: Callable[[Any, Any], Any]  # (original instance, solution of the viewed one) -> solution of the original


def _same_instance(instance: Any) -> Any:
    return instance


def _same_solution(instance: Any, solution: Any) -> Any:
    return solution


IDENTITY = View(name="forward", instance=_same_instance, solution=_same_solution)


def play(
    policy: Policy,
    family: Family,
    simulator: Simulator,
    *,
    rng: np.random.Generator | None,
    temperature: float = 1.0,
    deadline: float | None = None,
) -> int:
    """Run the loaded episodes of a simulator to their end and return the number of decisions made.

    ``policy.begin`` must have been called for these episodes. ``rng`` None plays greedily. Stops early, with
    unfinished rows, when ``time.perf_counter()`` passes ``deadline``, but makes one decision in any case, so that a
    call of however short a limit compiles all kernels.
    """
    decision = DecisionBatch.allocate(simulator.batch, simulator.slots, family.features)
    reward = np.zeros(simulator.batch, dtype=np.float32)
    done = np.zeros(simulator.batch, dtype=np.bool_)
    decisions = 0
    while deadline is None or not decisions or time.perf_counter() < deadline:
        simulator.observe(decision)
        running = int(np.count_nonzero(decision.count))
        if not running:
            break
        simulator.step(policy.select(decision, rng, temperature), reward, done)
        decisions += running
    return decisions


class PolicyScheduler:
    """Plays a policy greedily, or ``samples`` times with randomness, and keeps the best solution.

    Args:
        family: the family the policy was trained for.
        make_policy: builds the policy on first use, so that listing schedulers loads no weights.
        make_simulator: (instances, batch) -> simulator, with the options the policy was trained with.
        samples: 0 for one greedy episode per view, otherwise the number of sampled episodes, split over views.
        temperature: of the sampling; above 1 explores more than the policy did at the end of its training.
        views: symmetries to solve in; the best over all of them is returned.
    """

    def __init__(
        self,
        family: Family,
        make_policy: Callable[[], Policy],
        make_simulator: Callable[[Policy, Sequence[Instance], int], Simulator],
        *,
        samples: int = 0,
        temperature: float = 1.0,
        views: Sequence[View] = (IDENTITY,),
    ) -> None:
        self._family, self._make_policy, self._make_simulator = family, make_policy, make_simulator
        self._samples, self._temperature, self._views = samples, temperature, tuple(views)
        self._policy: Policy | None = None

    def schedule(self, instance: Instance, *, time_limit_s: float, rng: np.random.Generator) -> Result:
        """Return the best solution of all episodes that end within the time limit; it starts when kernels are ready."""
        if self._policy is None:
            # Weights load and kernels compile once per installation; neither is part of solving an instance.
            self._policy = self._make_policy()
            self._best_of(self._views[0].instance(instance), 1, None, deadline=0.0)
        started = time.perf_counter()
        deadline = started + time_limit_s
        best: tuple[float, Solution] | None = None
        decisions = 0
        for view in self._views:
            viewed = view.instance(instance)
            rows = max(1, self._samples // len(self._views))
            found, made = self._best_of(viewed, rows, rng if self._samples else None, deadline)
            decisions += made
            if found is not None and (best is None or found[0] < best[0]):
                best = found[0], view.solution(instance, found[1])
        runtime = time.perf_counter() - started
        if best is None:
            return Result(solution=None, objective=None, status="timeout", runtime_s=runtime, decisions=decisions)
        # A view may solve another instance than the one asked for, such as its expected durations.
        objective = self._family.objectives(instance, best[1])[self._family.objective_of(instance)]
        return Result(solution=best[1], objective=objective, status="feasible", runtime_s=runtime, decisions=decisions)

    def _best_of(
        self, instance: Instance, rows: int, rng: np.random.Generator | None, deadline: float
    ) -> tuple[tuple[float, Solution] | None, int]:
        policy = self._policy
        assert policy is not None
        simulator = self._make_simulator(policy, [instance], rows)
        policy.begin([self._family.static_graph(instance)] * rows)
        decisions = play(policy, self._family, simulator, rng=rng, temperature=self._temperature, deadline=deadline)
        finished = [row for row in range(rows) if simulator.finished(row)]
        if not finished:
            return None, decisions
        row = min(finished, key=simulator.objective)
        return (simulator.objective(row), simulator.solution(row)), decisions
