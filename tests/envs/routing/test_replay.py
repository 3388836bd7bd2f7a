"""The checker: random games pass it in both modes, and whatever is changed in their plans it finds."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.devices.serving_time import iteration_s
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.replay import check
from schedrl.envs.routing.replay_engine import Engine
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.solution import RoutingPlan, objectives
from tests.envs.routing.small_fleets import SEEDS, changed, play, play_to_plan, random_instance, server_of, workload_of

HELD_S = st.sampled_from([0.0, 0.0213])


@given(SEEDS, st.booleans(), HELD_S, st.booleans())
def test_random_games_pass(seed: int, exact: bool, hold_s: float, moves: bool) -> None:
    instance = random_instance(seed)
    simulator = play(instance, seed, exact=exact, hold_s=hold_s, moves=moves)
    plan = simulator.solution(0)
    assert check(instance, plan) == []
    assert simulator.objective(0) == pytest.approx(objectives(instance, plan)["penalty"], rel=1e-9)


@given(SEEDS, st.booleans(), st.sampled_from(["first_token_s", "finish_s", "busy_s"]), st.sampled_from([1e-4, -1e-4]))
def test_changed_times_are_found(seed: int, exact: bool, name: str, shift: float) -> None:
    instance = random_instance(seed)
    plan = play_to_plan(instance, seed, exact=exact)
    values = getattr(plan, name)
    k = seed % len(values)
    wrong = changed(plan, name, k, values[k] + shift)
    assert any(f"{name} is" in text for text in check(instance, wrong))


@given(SEEDS, st.sampled_from(["hit_tokens", "preemptions", "decode_instance"]))
def test_changed_counts_are_found(seed: int, name: str) -> None:
    instance = random_instance(seed)
    plan = play_to_plan(instance, seed, moves=True)
    k = seed % instance.requests
    value = int(getattr(plan, name)[k])
    limit = len(instance.fleet) if name == "decode_instance" else 1000
    other = value + 1 if value + 1 < limit else -1
    if other != value:
        assert check(instance, changed(plan, name, k, other)) != []


@given(SEEDS)
def test_another_instance_is_found(seed: int) -> None:
    """Speeds differ, so a request that is served elsewhere has other times."""
    instance = random_instance(seed)
    plan = play_to_plan(instance, seed)
    r = seed % instance.requests
    for i in range(len(instance.fleet)):
        if i != plan.instance[r]:
            assert check(instance, changed(plan, "instance", r, i)) != []


def _plan(**fields: Any) -> tuple[RoutingInstance, RoutingPlan]:
    """Return two requests, the second behind the first, on two instances of which one decodes or retires."""
    fleet = [server_of("a"), server_of("b", ready_s=1.0, retire_s=9.0, kv_tokens=100)]
    instance = workload_of(
        [(0.0, 10, 2), (0.0, 10, 2)], fleet, program=[0, 0], after_start=[0, 0, 1], after=[0], pause_s=[0.0, 1.0]
    )
    good: dict[str, Any] = {
        "instance": [0, 0],
        "decode_instance": [-1, -1],
        "dispatch_s": [0.0, 3.0],
        "rank": [0.0, 0.0],
        "first_token_s": [1.0, 4.0],
        "finish_s": [2.0, 5.0],
        "hit_tokens": [0, 0],
        "preemptions": [0, 0],
        "busy_s": [4.0, 0.0],
        "page_tokens": 1,
    }
    return instance, RoutingPlan(**(good | fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, None),
        ({"busy_s": [4.0]}, "the plan has 1 busy times, the fleet 2 instances"),
        ({"finish_s": [2.0, np.nan]}, "finish_s has a value that is not finite"),
        ({"instance": [0, 2]}, "instance[1] is 2, expected -1 to 1"),
        ({"dispatch_s": [-0.5, 3.0]}, "request 0 is sent at -0.5 s, before it arrives"),
        ({"dispatch_s": [0.0, 2.5]}, "request 1 is sent at 2.5 s, before it arrives"),
        ({"instance": [1, 0]}, "request 0 is sent to instance 1 at 0 s, outside its time"),
        ({"instance": [0, 1], "dispatch_s": [0.0, 9.0]}, "request 1 is sent to instance 1 at 9 s, outside its time"),
        ({"instance": [0, -1]}, "request 1 is refused though instance 0 takes it"),
        ({"finish_s": [2.0, 5.5]}, "request 1: finish_s is 5.5, the replay gives 5"),
        ({"hit_tokens": [0, 16]}, "request 1: hit_tokens is 16, the replay gives 0"),
        ({"preemptions": [1, 0]}, "request 0: preemptions is 1, the replay gives 0"),
        ({"busy_s": [5.0, 0.0]}, "instance 0: busy_s is 5, the replay gives 4"),
        ({"decode_instance": [1, -1]}, "request 0: decode_instance is 1, the replay gives -1"),
        (
            {"move_request": [1], "move_target": [1], "move_s": [0.5], "move_after": [1]},
            "move 0 of request 1 to instance 1 is not possible",
        ),
        (
            {"move_request": [0], "move_target": [1], "move_s": [3.5], "move_after": [2]},
            "move 0: request 0 neither waits nor decodes",
        ),
        (
            {"move_request": [2], "move_target": [1], "move_s": [1.5], "move_after": [1]},
            "move_request[0] is 2, expected 0 to 1",
        ),
        (
            {"move_request": [0, 0], "move_target": [1, 1], "move_s": [1.5, 1.0], "move_after": [1, 1]},
            "moves are not in order of time",
        ),
    ],
)
def test_violations_are_named(fields: dict[str, Any], message: str | None) -> None:
    instance, plan = _plan(**fields)
    found = check(instance, plan)
    assert found == [] if message is None else message in found


def test_memory_and_length_of_plans_are_checked() -> None:
    instance, plan = _plan()
    long = dataclasses.replace(instance, prompt_tokens=[10, 90])
    assert check(long, dataclasses.replace(plan, instance=[0, 1])) == [
        "request 1 of 92 tokens is sent to b, which cannot take it"
    ]
    assert check(workload_of([(0.0, 10, 2)], instance.fleet), plan) == ["the plan has 2 requests, the instance 1"]


def test_a_handed_over_request_needs_an_instance_that_decodes() -> None:
    fleet = [server_of("p", role="prefill"), server_of("d", role="decode")]
    instance = workload_of([(0.0, 10, 2)], fleet)
    plan = play_to_plan(instance, 0)
    assert check(instance, plan) == []
    for other in (-1, 0):
        wrong = changed(plan, "decode_instance", 0, other)
        assert check(instance, wrong) == ["request 0 is sent to no instance that decodes"]


def test_long_lists_of_violations_are_cut() -> None:
    instance = random_instance(5, requests=40)
    plan = play_to_plan(instance, 5)
    assert len(check(instance, dataclasses.replace(plan, finish_s=plan.finish_s + 1.0))) == 20


@given(SEEDS, st.integers(1, 40_000), st.integers(1, 300))
def test_both_forms_of_the_iteration_time_agree(seed: int, tokens: int, sequences: int) -> None:
    serving = random_instance(seed).fleet[0]
    engine = Engine(serving, page=1, block_tokens=16, admissions=iter(range(9)))
    tokens, context = max(tokens, sequences), 3.5 * tokens
    expected = iteration_s(serving.coefficients, tokens, sequences, context, 2.0 * context)
    assert engine.iteration_s(tokens, sequences, context, 2.0 * context) == pytest.approx(expected, rel=1e-12)


def test_a_trace_is_checked_in_seconds() -> None:
    if "SCHEDRL_DATA" not in os.environ:
        pytest.skip("SCHEDRL_DATA is unset: no trace to read")
    path = Path(os.environ["SCHEDRL_DATA"]) / "routing/mooncake/conversation_trace.jsonl"
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for _, line in zip(range(2000), lines, strict=False)]
    prompts = [min(row["input_length"], 20_480) for row in rows]
    row = np.zeros(28)
    # About an A100 with a model of 7 billion parameters.
    row[:9] = 6.2e-5, 9.2e-3, 0.0, 0.0, 2e-4, 3.5e-8, 6.5e-9, 4.8e-6, 6.5e-4
    fleet = [
        server_of(f"a{i}", coefficients=row, kv_tokens=400_000, token_budget=2048, max_sequences=256) for i in range(8)
    ]
    instance = workload_of(
        [(r["timestamp"] / 1e3, p, max(r["output_length"], 1)) for r, p in zip(rows, prompts, strict=True)],
        fleet,
        [r["hash_ids"][: p // 512] for r, p in zip(rows, prompts, strict=True)],
        block_tokens=512,
    )
    for exact in (False, True):
        simulator = Simulator([instance], 1, exact=exact)
        simulator.play_rule("affinity")
        plan = simulator.solution(0)
        started = time.process_time()
        assert check(instance, plan) == []
        # Generous, for machines that are busy: it takes a tenth of it.
        assert time.process_time() - started < 5.0
        assert plan.hit_tokens.sum() > 0.2 * instance.prompt_tokens.sum()
