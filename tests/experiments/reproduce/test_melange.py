"""The study of Mélange: its example, requests sent by shares, and fleets that are chosen and simulated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schedrl.envs.routing.fleets import fleet
from schedrl.envs.routing.solution import RoutingPlan
from schedrl.envs.routing.workload import Workload, route
from schedrl.experiments.reproduce.melange import (
    Case,
    attainments,
    measure_case,
    play_assignment,
    verdicts_of,
    worked_example,
)


def workload(seed: int, requests: int = 400) -> Workload:
    rng = np.random.default_rng(seed)
    return Workload(
        arrival_s=np.cumsum(rng.exponential(1.0, requests)),
        prompt_tokens=rng.integers(100, 700, requests).astype(np.int32),
        output_tokens=rng.integers(20, 200, requests).astype(np.int32),
    )


def test_the_worked_example() -> None:
    assert worked_example(1).counts == {"A10G": 3, "A100-80GB": 1}
    assert worked_example(1).price_usd_per_h == pytest.approx(6.7)
    assert worked_example(4).price_usd_per_h == pytest.approx(5.69)


def test_requests_go_to_types_by_their_shares() -> None:
    requests = workload(0)
    instance = route(requests, fleet({"a10g": 2, "a100-sxm-80gb": 1}, "llama-2-7b"), "small")
    # Short prompts: a quarter to the A10G; long ones: all to the A100.
    share = np.array([[[0.25], [0.0]], [[0.75], [1.0]]])
    plan = play_assignment(instance, np.repeat(share, 2, axis=2), ("a10g", "a100-sxm-80gb"), (400,))
    small = instance.prompt_tokens <= 400
    assert (plan.instance[~small] == 2).all()
    assert np.mean(plan.instance[small] < 2) == pytest.approx(0.25, abs=0.01)
    counts = np.bincount(plan.instance[small], minlength=3)
    assert counts[0] > 0
    assert counts[1] > 0


def test_shares_within_objectives() -> None:
    requests = Workload(
        arrival_s=np.zeros(4),
        prompt_tokens=np.full(4, 10, dtype=np.int32),
        output_tokens=np.full(4, 11, dtype=np.int32),
    )
    instance = route(requests, fleet({"l4": 1}, "llama-2-7b"), "four", ttft_slo_s=1.0, tpot_slo_s=0.1)
    plan = RoutingPlan(
        instance=np.array([0, 0, 0, -1]),
        decode_instance=np.full(4, -1),
        dispatch_s=np.zeros(4),
        rank=np.arange(4.0),
        first_token_s=np.array([0.5, 1.5, 0.5, -1.0]),
        finish_s=np.array([1.4, 2.4, 1.6, -1.0]),
        hit_tokens=np.zeros(4, dtype=np.int32),
        preemptions=np.zeros(4, dtype=np.int32),
        busy_s=np.zeros(1),
        page_tokens=1,
    )
    assert attainments(instance, plan) == {"ttft": 0.5, "tpot": 0.5, "both": 0.25}


def test_a_chosen_fleet_meets_its_objectives_on_requests_like_those_it_was_chosen_for() -> None:
    row = measure_case(Case(trace="made", requests_per_s=30.0, tpot_s=0.12), workload(0), workload(1))
    assert float(str(row["first_both"])) >= 0.9
    assert float(str(row["second_both"])) >= 0.9
    assert float(str(row["saving"])) >= 0.0
    assert row["usd_per_h"] == pytest.approx(row["lower_bound_usd_per_h"])


def test_verdicts_count_what_was_met() -> None:
    row: dict[str, Any] = {
        "saving": 0.1,
        "saving_vs_l4": 0.6,
        "saving_vs_a10g": None,
        "added": 0.2,
        "first_both": 0.96,
        "second_both": 0.95,
    }
    example, saved, met = verdicts_of([row, row | {"saving": 0.0, "second_both": 0.5}])
    assert example.verdict == "reproduced"
    assert saved.measured == "against the best single type 0% to 10%, against any up to 60%"
    assert saved.verdict.startswith("some saving in 1 of 2 cases")
    assert met.verdict == "in 2 of 2 cases; on the unseen half in 1"
    halves = "on the half it was chosen for 96.0%, 96.0%; on the unseen half 95.0%, 50.0%"
    assert met.measured == f"{halves}, with 20%, 20% of the rate added"
