"""Continuum: times to live worked by hand, programs that stay or leave, and queues by program."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.baselines.routing import continuum
from schedrl.baselines.routing.continuum import Continuum, ToolDurations, time_to_live
from schedrl.baselines.routing.router import play_router
from schedrl.envs.routing.fleets import fleet
from schedrl.envs.routing.generators import GENERATORS
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.replay import check
from schedrl.envs.routing.solution import RoutingPlan


def test_time_to_live_of_the_worked_example() -> None:
    # Three tools of four are back after 1 s, the last after 9 s. Worth 4 s: 0.25 * 4 - 0.5 = 0.5, 0.5 * 4 - 0.8 = 1.2,
    # 0.75 * 4 - 1 = 2 and 4 - 9 = -5.
    durations = np.array([0.5, 0.8, 1.0, 9.0])
    assert time_to_live(durations, 4.0) == 1.0
    # Worth 40 s it pays to wait for the last one: 40 - 9 = 31 against 29.
    assert time_to_live(durations, 40.0) == 9.0
    # Worth 1 s: -0.25, -0.3, -0.25 and -8: nothing is kept.
    assert time_to_live(durations, 1.0) == 0.0


def test_without_observations_it_is_the_logarithm_of_what_is_saved() -> None:
    assert time_to_live(None, math.e**2) == pytest.approx(2.0)
    assert time_to_live(None, 0.5) == 0.0


@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=30), st.floats(0.0, 1000.0))
def test_no_other_time_would_gain_more(durations: list[float], benefit: float) -> None:
    seconds = np.sort(durations)

    def gain(tau: float) -> float:
        return float((seconds <= tau).mean()) * benefit * (tau > 0.0) - tau

    best = time_to_live(seconds, benefit)
    assert all(gain(best) >= gain(tau) - 1e-9 for tau in (*durations, 0.0, benefit))


def test_durations_are_those_of_the_tool_once_there_are_enough() -> None:
    tools = ToolDurations(enough=2)
    tools.add(1, 3.0)
    tools.add(1, 1.0)
    assert tools.of(1) is None
    tools.add(2, 2.0)
    assert tools.of(1) is not None
    assert tools.of(1).tolist() == [1.0, 2.0, 3.0]  # type: ignore[union-attr]
    tools.add(1, 5.0)
    assert tools.of(1).tolist() == [1.0, 3.0, 5.0]  # type: ignore[union-attr]


def two_programs(pause_s: float) -> RoutingInstance:
    """Return a program of two steps with a pause between them, and two requests beside it."""
    return RoutingInstance(
        name="steps",
        fleet=fleet({"a100-sxm-80gb": 2}),
        arrival_s=np.array([0.0, 0.0, 1.0, 3.0]),
        prompt_tokens=np.array([4000, 100, 4500, 4000]),
        output_tokens=np.array([10, 10, 10, 10]),
        block_start=np.array([0, 7, 7, 15, 15]),
        blocks=np.array([*range(7), *range(8)]),
        program=np.array([0, 1, 0, 2]),
        after_start=np.array([0, 0, 0, 1, 1]),
        after=np.array([0]),
        pause_s=np.array([0.0, 0.0, pause_s, 0.0]),
        tool=np.array([-1, -1, 0, -1]),
    )


@pytest.mark.parametrize(("pause_s", "stays"), [(0.9, True), (1.1, False)])
def test_program_goes_back_within_its_time_to_live_only(pause_s: float, stays: bool) -> None:
    instance = two_programs(pause_s)

    class OneSecond(Continuum):
        def choose(self, view: Any) -> int:
            if view.request == 2:
                # Somebody else's prompt is pending at the program's server.
                view.pending_tokens[self._programs[0].where] += 9000.0
            return super().choose(view)

    simulator = play_router(instance, OneSecond(instance, lives=1.0))
    assert simulator is not None
    plan = simulator.solution(0)
    assert (plan.instance[2] == plan.instance[0]) == stays
    assert (plan.hit_tokens[2] == 3584) == stays


def test_queues_go_by_the_beginning_of_programs() -> None:
    instance = two_programs(0.5)
    simulator = play_router(instance, Continuum(instance, lives=1.0))
    assert simulator is not None
    assert simulator.solution(0).rank.tolist() == [0.0, 0.0, 0.0, 3.0]
    simulator = play_router(instance, Continuum(instance, lives=1.0, by_program=False))
    assert simulator is not None
    assert simulator.solution(0).rank.tolist() == [0.0] * 4


def test_programs_of_few_steps_to_come_make_delays_count() -> None:
    instance = GENERATORS["agentic"](np.random.default_rng(5), fleet="demo", requests=300, load=1.0)
    router: Any = Continuum(instance)
    assert play_router(instance, router) is not None
    # Steps behind and steps to come of programs of unlike length are correlated, but never less than -1.
    assert 0.0 <= router._eta <= 1.0
    assert len(router._tools._all) > 50


@pytest.mark.parametrize("kind", ["sessions", "agentic"])
def test_plans_are_valid(kind: str) -> None:
    instance = GENERATORS[kind](np.random.default_rng(3), fleet="demo", requests=80, load=1.5)
    for spec in continuum.SCHEDULERS:
        result = spec.make().schedule(instance, time_limit_s=60.0, rng=np.random.default_rng(0))
        assert isinstance(result.solution, RoutingPlan)
        assert check(instance, result.solution) == []
