"""Llumnix: freeness and remaining steps by hand, pairs of instances, and migration that prevents preemption."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from schedrl.baselines.routing import llumnix
from schedrl.baselines.routing.llumnix import Llumnix, freeness, remaining_steps
from schedrl.baselines.routing.router import play_router
from schedrl.envs.routing.fleet import ServingInstance
from schedrl.envs.routing.fleets import fleet
from schedrl.envs.routing.generators import GENERATORS
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.replay import check
from schedrl.envs.routing.solution import RoutingPlan


def servers(kv_tokens: int, count: int = 2) -> tuple[ServingInstance, ...]:
    return tuple(replace(s, kv_tokens=kv_tokens) for s in fleet({"a100-sxm-80gb": count}))


def view_of(free: list[float], head: list[float], running: list[int], **values: Any) -> Any:
    """Return instances of 16000 tokens of memory with so much free, demanded first, and running."""
    count = len(free)
    priority = np.array(values.pop("priority", [0, 0, 0, 0]))
    usual: dict[str, Any] = {
        "free_tokens": np.array(free), "head_tokens": np.array(head), "queued_tokens": np.array(head),
        "running": np.array(running, dtype=float), "waiting": (np.array(head) > 0).astype(float),
        "sent_tokens": np.zeros(count), "outstanding": np.zeros(count, dtype=np.int32), "count": count,
        "allowed": np.ones(count, dtype=np.bool_), "handed_over": False, "now_s": 1.0, "moves": [],
        "running_requests": lambda i: np.array([2 * i, 2 * i + 1]), "has_first_token": lambda r: True,
    }  # fmt: skip
    view = SimpleNamespace(**{**usual, **values})
    view.instance = SimpleNamespace(
        fleet=servers(16_000, count), priority=priority, prompt_tokens=np.array([900, 400, 10, 10])
    )
    view.move = lambda r, j: view.moves.append((r, j)) or True
    view.least = lambda figure, among=None: int(
        np.argmin(np.where(view.allowed if among is None else among, figure, np.inf))
    )
    return view


def llumnix_on(count: int, **options: Any) -> Any:
    instance = RoutingInstance(
        name="x",
        fleet=servers(16_000, count),
        arrival_s=np.zeros(1),
        prompt_tokens=np.ones(1, dtype=np.int32),
        output_tokens=np.ones(1, dtype=np.int32),
    )
    return Llumnix(instance, **options)


def test_freeness_counts_the_first_waiting_request_and_no_other() -> None:
    # (8000 - 0) / 16 / 10 = 50 blocks per request; (1600 - 4800) / 16 / 5 = -40; an idle one has all of its memory.
    view = view_of([8000, 1600, 16_000], [0, 4800, 0], [10, 5, 0])
    assert freeness(view).tolist() == [50.0, -40.0, 1000.0]


def test_urgent_requests_keep_headroom() -> None:
    # Requests 2 and 3 run at the second instance, of which 3 is urgent: half of 16000 tokens count as used there.
    view = view_of([8000, 8000], [0, 0], [2, 2], priority=[0, 0, 0, 1])
    assert freeness(view).tolist() == [250.0, 0.0]
    assert freeness(view, headroom=0.25).tolist() == [250.0, 125.0]


def test_remaining_steps_of_the_code() -> None:
    view = view_of([8000, 8000], [1600, 0], [4, 4], queued_tokens=np.array([3200.0, 0.0]))
    assert remaining_steps(view, "all").tolist() == [60.0, 125.0]  # 4800 / 16 / 5 and 8000 / 16 / 4
    assert remaining_steps(view, "first").tolist() == [80.0, 125.0]


def test_dispatch_goes_to_the_freest_and_then_to_the_fewest_outstanding() -> None:
    view = view_of([8000, 8000, 8000], [0, 0, 4000], [8, 4, 4])
    assert llumnix_on(3).choose(view) == 1
    equal = view_of([8000, 8000], [0, 0], [4, 4], outstanding=np.array([3, 2]))
    assert llumnix_on(2).choose(equal) == 1
    view.allowed[1] = False
    assert llumnix_on(3, form="code").choose(view) == 0  # 8000 / 8 against 4000 / 5 tokens


def test_least_free_is_paired_with_the_freest_and_moves_the_shortest_of_low_priority() -> None:
    # Freeness 5, 1000, 1 and 500 blocks with low 10 and high 60: 2 to 1 and 0 to 3.
    view = view_of([160, 16_000, 32, 8000], [0, 0, 0, 0], [2, 0, 2, 1], priority=[0] * 8)
    view.instance.prompt_tokens = np.array([900, 400, 0, 0, 300, 200, 0, 0])
    llumnix_on(4).act(view)
    assert view.moves == [(5, 1), (1, 3)]
    view.moves.clear()
    view.instance.priority[1] = view.instance.priority[5] = 1
    llumnix_on(4).act(view)
    assert view.moves == [(4, 1), (0, 3)]


def test_nothing_moves_between_instances_that_are_neither_full_nor_free() -> None:
    view = view_of([320, 1600], [0, 0], [2, 2])  # 10 and 50 blocks
    llumnix_on(2).act(view)
    assert view.moves == []
    alone = view_of([0, 16_000], [0, 0], [1, 0])
    llumnix_on(2).act(alone)
    assert alone.moves == []


def test_slow_instances_count_for_less_when_speed_matters() -> None:
    router: Any = llumnix_on(2, speed_aware=True)
    router._speed = np.array([1.0, 0.5])
    assert router._scaled(np.array([10.0, 10.0])).tolist() == [10.0, 5.0]
    assert router._scaled(np.array([-10.0, -10.0])).tolist() == [-10.0, -20.0]


def crowded() -> RoutingInstance:
    """Return long answers on two servers with room for about nine of them; the odd ones are short."""
    count = 40
    return RoutingInstance(
        name="crowded",
        fleet=servers(12_000),
        arrival_s=np.arange(count) * 0.2,
        prompt_tokens=np.where(np.arange(count) % 2, 100, 800),
        output_tokens=np.where(np.arange(count) % 2, 50, 1200),
        link_bytes_per_s=25e9,
        kv_bytes_per_token=57_344.0,
    )


@pytest.mark.parametrize("form", ["paper", "code"])
def test_migrations_are_valid_and_reported(form: Any) -> None:
    instance = crowded()
    simulator = play_router(instance, Llumnix(instance, form=form, low=40.0, high=41.0))
    assert simulator is not None
    plan = simulator.solution(0)
    assert len(plan.move_request) > 0
    assert check(instance, plan) == []
    still = play_router(instance, Llumnix(instance, form=form, migrate=False))
    assert still is not None
    assert len(still.solution(0).move_request) == 0


@pytest.mark.parametrize("kind", ["gamma", "agentic"])
def test_plans_are_valid(kind: str) -> None:
    instance = GENERATORS[kind](np.random.default_rng(3), fleet="demo", requests=80, load=1.5)
    for spec in llumnix.SCHEDULERS:
        result = spec.make().schedule(instance, time_limit_s=60.0, rng=np.random.default_rng(0))
        assert isinstance(result.solution, RoutingPlan)
        assert check(instance, result.solution) == []
