"""The loop that plays routers: against the simulator's own rules, its ticks, and plans of all routers checked."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings

from schedrl.baselines.routing import cache_aware, hashing, scored, simple
from schedrl.baselines.routing.router import PromptRouter, RouterScheduler, View, play_router
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.replay import check
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.solution import RoutingPlan, objectives
from schedrl.schedulers import SchedulerSpec
from tests.baselines.routing.small_views import instances, routed, servings

SPECS: dict[str, SchedulerSpec] = {
    spec.name: spec for module in (simple, hashing, cache_aware, scored) for spec in module.SCHEDULERS
}
SAME_AS_RULES = ("least-outstanding", "least-pending", "min-ttft", "affinity", "affinity-time", "round-robin")


def plan_of(name: str, instance: RoutingInstance) -> RoutingPlan:
    result = SPECS[f"routing/{name}"].make().schedule(instance, time_limit_s=60.0, rng=np.random.default_rng(0))
    assert isinstance(result.solution, RoutingPlan) and result.status == "feasible"
    assert result.objective == objectives(instance, result.solution)["penalty"]
    assert result.decisions == instance.requests
    return result.solution


@settings(max_examples=25, deadline=None)
@given(instances())
def test_routers_decide_as_the_simulators_rules(instance: RoutingInstance) -> None:
    simulator = Simulator([instance], 1)
    for name in SAME_AS_RULES:
        simulator.load(0, instance)
        simulator.play_rule(name)
        assert plan_of(name, instance) == simulator.solution(0), name


@settings(max_examples=12, deadline=None)
@given(instances())
def test_every_plan_passes_the_checker(instance: RoutingInstance) -> None:
    for name in SPECS:
        assert check(instance, plan_of(name.removeprefix("routing/"), instance)) == [], name


def test_names_are_unique() -> None:
    count = sum(len(module.SCHEDULERS) for module in (simple, hashing, cache_aware, scored))
    assert len(SPECS) == count == 44


class Watcher(PromptRouter):
    """Sends all to the last allowed instance and notes when it was asked what."""

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self.decided: list[tuple[float, tuple[bool, ...]]] = []
        self.acted: list[float] = []

    def pick(self, view: View) -> int:
        self.decided.append((view.now_s, tuple(view.allowed.tolist())))
        return int(np.flatnonzero(view.allowed)[-1])

    def act(self, view: View) -> None:
        self.acted.append(view.now_s)


def test_ticks_come_at_multiples_of_the_period() -> None:
    instance = routed(servings(1.0, 1.0), [[], [], []], gap_s=0.5)
    router = Watcher(0.2)
    simulator = play_router(instance, router)
    assert simulator is not None
    assert [moment for moment, _ in router.decided] == [0.0, 0.5, 1.0]
    # The last request comes at the tick of 1 s and goes first; it ends before the next.
    assert router.acted[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert len(router.acted) in (4, 5)
    # None before the first arrival.
    late = dataclasses.replace(instance, arrival_s=instance.arrival_s + 10.1)
    router = Watcher(0.2)
    play_router(late, router)
    assert router.acted[0] == pytest.approx(10.2)
    router = Watcher(0.0)
    play_router(instance, router)
    assert router.acted == []


def test_ticks_change_nothing() -> None:
    instance = routed(servings(1.0, 3.0), [[2, 4], [2], [2, 5]] * 4, output=40)
    plans = []
    for period_s in (0.0, 0.003, 0.05):
        simulator = play_router(instance, Watcher(period_s), exact=True)
        assert simulator is not None
        plans.append(simulator.solution(0))
    assert plans[0] == plans[1] == plans[2]


def test_only_instances_that_take_requests_are_allowed() -> None:
    one, two, three = servings(1.0, 1.0, 1.0)
    fleet = (one, dataclasses.replace(two, ready_s=0.25), dataclasses.replace(three, retire_s=0.45))
    instance = routed(fleet, [[]] * 6, gap_s=0.1)
    router = Watcher(0.0)
    simulator = play_router(instance, router)
    assert simulator is not None
    assert [allowed for _, allowed in router.decided] == [
        *[(True, False, True)] * 3,
        *[(True, True, True)] * 2,
        (True, True, False),
    ]
    assert simulator.solution(0).instance.tolist() == [2, 2, 2, 2, 2, 1]
    for name in SPECS:
        plan = plan_of(name.removeprefix("routing/"), instance)
        assert check(instance, plan) == [], name
        assert 1 not in plan.instance[:3] and plan.instance[5] != 2, name


def test_handed_over_requests_decode_where_the_fewest_are() -> None:
    prefill = servings(1.0, 1.0, role="prefill")
    decode = tuple(dataclasses.replace(s, name=f"d{s.name}", role="decode") for s in servings(1.0, 1.0))
    instance = routed((*prefill, *decode), [[]] * 6, gap_s=0.001, output=50)
    for name in SPECS:
        plan = plan_of(name.removeprefix("routing/"), instance)
        assert check(instance, plan) == [], name
        assert set(plan.instance.tolist()) <= {0, 1}, name
        assert np.bincount(plan.decode_instance, minlength=4).tolist() == [0, 0, 3, 3], name


def test_time_limit() -> None:
    instance = routed(servings(1.0), [[]] * 600)
    result = RouterScheduler(lambda instance, rng: Watcher(0.0)).schedule(
        instance, time_limit_s=0.0, rng=np.random.default_rng(0)
    )
    assert result.status == "timeout" and result.solution is None
