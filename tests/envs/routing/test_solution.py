"""Plans: their penalties and objectives on paper, their files, and what bad ones are told."""

from __future__ import annotations

import dataclasses
import json
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from schedrl.envs.routing.solution import RoutingPlan, arrivals, objectives, penalties
from schedrl.errors import SolutionError
from tests.envs.routing.small_fleets import SEEDS, play_to_plan, random_instance, server_of, workload_of

# Four requests: in time, late, slow between tokens, refused; the last belongs to the third's program.
FLEET = [server_of("a", price_usd_per_h=3.6, power_w=100.0), server_of("b", price_usd_per_h=7.2, power_w=300.0)]
FIELDS: dict[str, Any] = {"ttft_slo_s": 2.0, "tpot_slo_s": 0.5}
INSTANCE = workload_of([(0.0, 10, 3), (0.0, 30, 1), (1.0, 10, 3), (1.0, 10, 1)], FLEET, **FIELDS)
PLAN: dict[str, Any] = {
    "instance": [0, 1, 0, -1],
    "decode_instance": [-1] * 4,
    "dispatch_s": [0.0, 0.0, 1.0, 4.0],
    "rank": [0.0] * 4,
    "first_token_s": [1.0, 6.0, 2.0, -1.0],
    "finish_s": [2.0, 6.0, 3.5, -1.0],
    "hit_tokens": [0, 16, 0, -1],
    "preemptions": [0, 2, 0, 0],
    "busy_s": [10.0, 5.0],
    "page_tokens": 16,
}


def test_penalties_of_a_worked_example() -> None:
    # Half of 1 / (1 + 2); half and half of 6 / (6 + 2); 0.75 s per token is half and half of 1 / (1 + 2); all.
    expected = [1 / 6, 0.5 + 3 / 8, 0.5 + 1 / 6, 1.0]
    np.testing.assert_allclose(penalties(INSTANCE, RoutingPlan(**PLAN)), expected, rtol=1e-15)


def test_objectives_of_a_worked_example() -> None:
    found = objectives(INSTANCE, RoutingPlan(**PLAN))
    expected = {
        "penalty": (1 / 6 + 7 / 8 + 2 / 3 + 1) / 4,
        "attainment": 0.25,
        "ttft_mean_s": 8 / 3,
        "ttft_p50_s": 1.0,
        "tpot_mean_s": 0.625,
        "latency_mean_s": (2.0 + 6.0 + 2.5) / 3,
        "hit_rate": 16 / 50,
        "cost_usd": 10.0 * 3.6 / 3600 + 5.0 * 7.2 / 3600,
        "energy_j": 2500.0,
        "preemptions": 2.0,
        "refused": 1.0,
        "moves": 0.0,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    # Cost and energy count in seconds of a mean instance: 10 at 2/3 and 5 at 4/3; 10 at 1/2 and 5 at 3/2.
    weighed = dataclasses.replace(INSTANCE, preference=(1.0, 2.0, 3.0))
    total = 4 * expected["penalty"] + 2.0 * (20 / 3 + 20 / 3) + 3.0 * (5.0 + 7.5)
    assert objectives(weighed, RoutingPlan(**PLAN))["penalty"] == pytest.approx(total / 4, rel=1e-12)


def test_programs_with_a_deadline_are_judged_together() -> None:
    together = dataclasses.replace(INSTANCE, program=[0, 1, 1, 2], deadline_s=[5.0, 4.0, 9.0])
    # 2 s of 5; 6 s of 4, for both; refused.
    expected = [0.5 * 2 / 7, 0.5 + 0.5 * 0.6, 0.5 + 0.5 * 0.6, 1.0]
    np.testing.assert_allclose(penalties(together, RoutingPlan(**PLAN)), expected, rtol=1e-15)
    failed = dataclasses.replace(INSTANCE, program=[0, 1, 2, 2], deadline_s=[np.inf, np.inf, 9.0])
    assert penalties(failed, RoutingPlan(**PLAN))[2:].tolist() == [1.0, 1.0]


def test_later_requests_arrive_after_those_before_them() -> None:
    order: dict[str, Any] = {
        "deadline_s": [], "program": [0] * 4, "after_start": [0, 0, 0, 2, 2], "after": [0, 1], "pause_s": [0, 0, 0.5, 0]
    }  # fmt: skip
    plan = dataclasses.replace(RoutingPlan(**PLAN), instance=[0, -1, 0, -1], dispatch_s=[0.0, 7.0, 8.0, 4.0])
    assert arrivals(dataclasses.replace(INSTANCE, **order), plan).tolist() == [0.0, 0.0, 7.5, 1.0]


def test_answers_of_one_token_have_no_time_per_token() -> None:
    instance = dataclasses.replace(INSTANCE, tpot_slo_s=np.inf, ttft_slo_s=np.inf)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert penalties(instance, RoutingPlan(**PLAN)).tolist() == [0.0, 0.0, 0.0, 1.0]


@given(SEEDS)
def test_plans_come_back_equal_from_json(seed: int) -> None:
    plan = play_to_plan(random_instance(seed), seed, moves=True)
    again = RoutingPlan.from_json(plan.to_json())
    assert again == plan and hash(again) == hash(plan)
    assert dataclasses.replace(plan, finish_s=plan.finish_s + 1.0) != plan
    assert plan != "plan"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"instance": [0.5, 1.0, 0.0, 0.0]}, "field instance: expected integers, got float64 (4,)"),
        ({"instance": [[0, 1, 0, 0]]}, "field instance: expected integers, got int64 (1, 4)"),
        ({"finish_s": ["a"] * 4}, "field finish_s: expected numbers, got <U1 (4,)"),
        ({"hit_tokens": [2**40, 0, 0, 0]}, "field hit_tokens: a value outside int32"),
        ({"rank": [0.0]}, "fields instance, decode_instance, dispatch_s, rank, first_token_s"),
        ({"move_s": [1.0]}, "fields move_request, move_target, move_s, move_after: expected equally many values"),
        ({"page_tokens": 8}, "field page_tokens: 8, expected 1 or 16"),
    ],
)
def test_bad_fields_are_named_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SolutionError) as error:
        RoutingPlan(**(PLAN | fields))
    assert str(error.value).startswith(f"routing plan: {message}") and "\n" not in str(error.value)
    data = json.loads(RoutingPlan(**PLAN).to_json()) | fields
    with pytest.raises(SolutionError) as error:
        RoutingPlan.from_json(json.dumps(data), source="x.json")
    assert str(error.value).startswith(f"x.json: routing plan: {message}")


def test_bad_json_is_named() -> None:
    for broken, message in (
        ("{", "x.json: not valid JSON"),
        ("{}", "x.json: field schema: expected 'schedrl/routing-plan/1', got None"),
        ('{"schema": "schedrl/routing-plan/1"}', "x.json: field instance: expected a list, got None"),
    ):
        with pytest.raises(SolutionError) as error:
            RoutingPlan.from_json(broken, source="x.json")
        assert str(error.value).startswith(message)
