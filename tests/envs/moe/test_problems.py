from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from schedrl.baselines.moe.cache_rules import CacheScheduler
from schedrl.baselines.moe.cache_run import CacheRule
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.envs.moe.cache_solution import CacheSchedule, cache_objectives
from schedrl.envs.moe.instance import ExpertPlacementInstance, trivial_placement
from schedrl.envs.moe.problems import AnyInstance, AnySolution, bounds, check, objectives
from schedrl.envs.moe.solution import ExpertPlan, plan_objectives
from schedrl.errors import InstanceError, SolutionError
from tests.envs.moe.small_caches import cache_of, caches
from tests.envs.moe.small_placements import handmade, instances

PLACEMENT = handmade([[[60, 20, 10, 10]], [[40, 20, 20, 20]]], [2, 2])
PLAN = ExpertPlan(experts=trivial_placement(1, 4, 4)[None])
CACHE = cache_of([[0], [1], [0]], capacity=1)
# Loads of 2 s each before computations of 1 s: 2-3, 5-6, 8-9.
SCHEDULE = CacheSchedule(
    load_expert=np.array([0, 1, 0], dtype=np.int32),
    evict_expert=np.array([-1, 0, 1], dtype=np.int32),
    load_start_s=np.array([0.0, 3.0, 6.0]),
    compute_start_s=np.array([2.0, 5.0, 8.0]),
)


def test_json_tells_the_problem() -> None:
    read = AnyInstance.from_json(PLACEMENT.to_json())
    assert isinstance(read, ExpertPlacementInstance) and read == PLACEMENT
    cache = AnyInstance.from_json(CACHE.to_json())
    assert isinstance(cache, ExpertCacheInstance) and cache == CACHE
    plan, schedule = AnySolution.from_json(PLAN.to_json()), AnySolution.from_json(SCHEDULE.to_json())
    assert isinstance(plan, ExpertPlan) and plan == PLAN
    assert isinstance(schedule, CacheSchedule) and schedule == SCHEDULE


@given(instances())
def test_every_placement_reads_back(instance: ExpertPlacementInstance) -> None:
    assert AnyInstance.from_json(instance.to_json()) == instance


@given(caches())
def test_every_cache_reads_back_and_so_does_its_schedule(instance: ExpertCacheInstance) -> None:
    assert AnyInstance.from_json(instance.to_json()) == instance
    result = CacheScheduler(rule=CacheRule).schedule(instance, time_limit_s=5.0, rng=np.random.default_rng(0))
    assert isinstance(result.solution, CacheSchedule)
    again = AnySolution.from_json(result.solution.to_json())
    assert again == result.solution
    assert check(instance, again) == []
    assert min(bound.value for bound in bounds(instance)) <= objectives(instance, again)["decode_time"] * (1 + 1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "s.json: not valid JSON"),
        ("[1]", "s.json: field schema: expected one of .+, got None"),
        ('{"schema": "other"}', "s.json: field schema: expected one of .+, got 'other'"),
        ('{"schema": ["schedrl/expert-plan/1"]}', "s.json: field schema: expected one of .+"),
        ('{"schema": "schedrl/expert-plan/1"}', "s.json: field changes: expected a list"),
        ('{"schema": "schedrl/cache-schedule/1"}', "s.json: field load_expert: expected a list"),
    ],
)
def test_bad_solutions_are_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(SolutionError, match=f"^{message}") as caught:
        AnySolution.from_json(text, source="s.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"i.json:1: not valid JSON"),
        ('{"schema": "other"}', "i.json: field schema: got 'other', expected"),
        ('{"schema": "schedrl/expert-placement-instance/1"}', "i.json: field name: missing"),
    ],
)
def test_bad_instances_are_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(InstanceError, match=f"^{message}") as caught:
        AnyInstance.from_json(text, source="i.json")
    assert "\n" not in str(caught.value)


def test_a_solution_of_the_other_problem_is_a_violation() -> None:
    assert check(PLACEMENT, PLAN) == [] and check(CACHE, SCHEDULE) == []
    assert check(CACHE, PLAN) == ["instance c is of a cache and takes a schedule of loads, not an expert plan"]
    assert check(PLACEMENT, SCHEDULE) == [
        "instance hand places experts and takes an expert plan, not a schedule of loads"
    ]


def test_objectives_and_bounds_are_those_of_the_problem() -> None:
    assert objectives(PLACEMENT, PLAN) == plan_objectives(PLACEMENT, PLAN)
    assert objectives(CACHE, SCHEDULE) == cache_objectives(CACHE, SCHEDULE)
    assert objectives(CACHE, SCHEDULE)["decode_time"] == pytest.approx(9.0)
    for least, value in (
        (bounds(CACHE), 9.0),
        (bounds(PLACEMENT), plan_objectives(PLACEMENT, PLAN)["total_time"]),
    ):
        assert least and all(0.0 < bound.value <= value * (1 + 1e-9) and bound.why for bound in least)
