"""Instances and schedules of the expert cache: the rules of both, and the checker on hand-worked cases."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from schedrl.envs.moe.cache_generators import mixtral_decode
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.envs.moe.cache_solution import CacheSchedule, cache_objectives, check_cache
from schedrl.errors import InstanceError, SolutionError
from tests.envs.moe.small_caches import cache_of, caches


def schedule_of(loads: list[tuple[int, int, float]], starts: list[float]) -> CacheSchedule:
    table = np.array(loads, dtype=np.float64).reshape(-1, 3)
    return CacheSchedule(
        load_expert=table[:, 0].astype(np.int32),
        evict_expert=table[:, 1].astype(np.int32),
        load_start_s=table[:, 2],
        compute_start_s=np.array(starts),
    )


@given(caches())
def test_instances_come_back_equal_from_json(instance: ExpertCacheInstance) -> None:
    again = ExpertCacheInstance.from_json(instance.to_json())
    assert again == instance and hash(again) == hash(instance)
    assert dataclasses.replace(instance, capacity=instance.capacity + 1) != instance


def test_numbers_of_experts_and_times_of_requests() -> None:
    instance = cache_of([[0, 2], [3], [1, 0]], capacity=3, layers=2, compute_s=np.array([1.0, 4.0]))
    assert instance.needed.tolist() == [[0, 2], [7, -1], [1, 0]]
    assert instance.duration_s.tolist() == [1.0, 4.0, 1.0]
    assert (instance.steps, instance.layers, instance.total, instance.load_s) == (3, 2, 8, 2.0)
    assert instance.size_label == "2x4, 3 fit"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"experts": 0}, "field experts: 0, expected an integer of at least 1"),
        ({"capacity": 1.5}, "field capacity: 1.5, expected an integer of at least 1"),
        ({"capacity": 1}, "field capacity: 1, expected at least the 2 experts of the largest request"),
        ({"expert_bytes": 0.0}, "field expert_bytes: 0.0, expected a finite number above 0"),
        ({"host_bytes_per_s": float("nan")}, "field host_bytes_per_s: nan, expected a finite number above 0"),
        ({"compute_s": [1.0, 0.0]}, "field compute_s: entry 1 is 0.0, expected a finite number above 0"),
        ({"compute_s": []}, "field compute_s: empty, expected at least one"),
        ({"compute_s": ["a"]}, "field compute_s: expected 1-dimensional numbers, got <U1 (1,)"),
        ({"layer": [0, 5, 0]}, "field layer: entry 1 is 5, expected a layer, 0 to 1"),
        ({"layer": []}, "field layer: empty, expected at least one"),
        ({"token": [0, 0]}, "field token: 2 rows for 3 requests"),
        ({"token": [1, 0, 1]}, "field token: entry 1 is 0, expected tokens in order"),
        ({"requests": [[0, 9], [1, 2], [1, -1]]}, "field requests: row 0 has 9, expected -1 or an expert, 0 to 3"),
        ({"requests": [[0, 1], [2, 2], [1, -1]]}, "field requests: row 1 names an expert twice"),
        ({"requests": [[0, 1], [-1, 2], [1, -1]]}, "field requests: expected at least one expert in each row, and -1"),
        ({"requests": [[0, 1], [2], [1]]}, "field requests: expected rows of equal length"),
        ({"requests": [[0.5, 1.0]] * 3}, "field requests: expected 2-dimensional integers, got float64 (3, 2)"),
        ({"initial": [8]}, "field initial: entry 0 is 8, expected an expert, 0 to 7"),
        ({"initial": [1, 1]}, "field initial: an expert is named twice"),
        ({"initial": [0, 1, 2, 3]}, "field initial: 4 experts, expected at most the capacity"),
        ({"initial": [2**40]}, "field initial: a value outside int32"),
    ],
)
def test_bad_fields_are_named_in_one_line(fields: dict[str, Any], message: str) -> None:
    instance = cache_of([[0, 2], [3], [1, 0]], capacity=3, layers=2)
    with pytest.raises(InstanceError) as error:
        dataclasses.replace(instance, **fields)
    assert str(error.value).startswith(f"c: {message}") and "\n" not in str(error.value)
    if not any(isinstance(value, float) and value != value for value in fields.values()):
        data = json.loads(instance.to_json()) | fields
        with pytest.raises(InstanceError) as error:
            ExpertCacheInstance.from_json(json.dumps(data), source="x.json")
        assert str(error.value).startswith(f"x.json: c: {message}")


def test_bad_json_is_named() -> None:
    text = cache_of([[0]], capacity=1).to_json()
    for broken, message in (
        ("{", "x.json: not valid JSON"),
        ("[]", "x.json: field schema: expected 'schedrl/expert-cache-instance/1', got None"),
        (text.replace('"name": "c"', '"name": 3'), "x.json: field name: expected str, got 3"),
        (text.replace('"layer"', '"lawyer"'), "x.json: field layer: missing"),
    ):
        with pytest.raises(InstanceError) as error:
            ExpertCacheInstance.from_json(broken, source="x.json")
        assert str(error.value).startswith(message)
    for broken, message in (
        ("{", "x.json: not valid JSON"),
        ("{}", "x.json: field schema: expected 'schedrl/cache-schedule/1', got None"),
        ('{"schema": "schedrl/cache-schedule/1"}', "x.json: field load_expert: expected a list, got None"),
    ):
        with pytest.raises(SolutionError) as failure:
            CacheSchedule.from_json(broken, source="x.json")
        assert str(failure.value).startswith(message)
    with pytest.raises(SolutionError, match="expected equally many experts, evictions and starts"):
        CacheSchedule(load_expert=[1], evict_expert=[], load_start_s=[0.0], compute_start_s=[0.0])  # type: ignore[arg-type]
    with pytest.raises(SolutionError, match="field load_expert: expected integers, got float64"):
        CacheSchedule(load_expert=[1.5], evict_expert=[1], load_start_s=[0.0], compute_start_s=[0.0])  # type: ignore[arg-type]


# Requests 0, 1, 0 of one layer in memory for one expert: loads of 2 s, computations of 1 s.
TRACE = cache_of([[0], [1], [0]], capacity=1)
VALID = ([(0, -1, 0.0), (1, 0, 3.0), (0, 1, 6.0)], [2.0, 5.0, 8.0])


def test_objectives_of_a_worked_example() -> None:
    schedule = schedule_of(*VALID)
    assert check_cache(TRACE, schedule) == []
    assert cache_objectives(TRACE, schedule) == {
        "decode_time": 9.0,
        "hit_rate": 0.0,
        "loaded_bytes": 6.0,
        "stall_s": 6.0,
    }
    # Room for two: expert 1 comes during the first computation, of which its load spends one second; 0 stays.
    roomy = dataclasses.replace(TRACE, capacity=2, initial=np.array([0]))
    ahead = schedule_of([(1, -1, 0.0)], [0.0, 2.0, 3.0])
    assert check_cache(roomy, ahead) == []
    assert cache_objectives(roomy, ahead) == {
        "decode_time": 4.0,
        "hit_rate": 2 / 3,
        "loaded_bytes": 2.0,
        "stall_s": 1.0,
    }
    assert CacheSchedule.from_json(ahead.to_json()) == ahead
    assert hash(CacheSchedule.from_json(ahead.to_json())) == hash(ahead) and ahead != schedule


@pytest.mark.parametrize(
    ("loads", "starts", "message"),
    [
        (VALID[0], [2.0, 5.0], "the schedule computes 2 requests, the instance has 3"),
        (VALID[0], [2.0, 5.0, np.nan], "a start is not a finite number"),
        ([(4, -1, 0.0), *VALID[0][1:]], VALID[1], "load 0 names no expert, expected 0 to 3"),
        ([(0, -1, -1.0), *VALID[0][1:]], VALID[1], "load 0 starts at -1 s, before 0 s"),
        ([VALID[0][0], (1, 0, 1.5), VALID[0][2]], VALID[1], "load 1 starts at 1.5 s, before 2 s"),
        (VALID[0], [2.0, 5.0, 5.5], "request 2 starts at 5.5 s, before 6 s"),
        (VALID[0], [1.0, 5.0, 8.0], "expert 0 is not resident throughout request 0, 1 s to 2 s"),
        # Expert 0 leaves while request 0 is computed.
        (
            [VALID[0][0], (1, 0, 2.5), VALID[0][2]],
            VALID[1],
            "expert 0 is not resident throughout request 0, 2 s to 3 s",
        ),
        ([VALID[0][0], (1, -1, 3.0), VALID[0][2]], VALID[1], "load 1 makes 2 experts in memory, the capacity is 1"),
        ([VALID[0][0], (1, 2, 3.0), VALID[0][2]], VALID[1], "load 1 replaces expert 2, which is not resident at 3 s"),
        ([VALID[0][0], (0, -1, 3.0), VALID[0][2]], VALID[1], "load 1 brings expert 0, which is there already"),
        (VALID[0][:2], VALID[1], "expert 0 is not resident throughout request 2, 8 s to 9 s"),
    ],
)
def test_violations_are_named(loads: list[tuple[int, int, float]], starts: list[float], message: str) -> None:
    assert message in check_cache(TRACE, schedule_of(loads, starts))


def test_long_lists_of_violations_are_cut() -> None:
    instance = mixtral_decode(np.random.default_rng(0))
    nothing = schedule_of([], [float(start) for start in range(instance.steps)])
    assert len(check_cache(instance, nothing)) == 20
