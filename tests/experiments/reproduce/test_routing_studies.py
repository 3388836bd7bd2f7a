"""The studies of routers: small runs write their rows, and verdicts say of given rows what was won and lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schedrl.envs.routing.fleets import fleet
from schedrl.envs.routing.generators import long_context
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.workload import clipped
from schedrl.experiments.reproduce import continuum, dualmap, hexgen_flow, llumnix


def test_latency_of_a_program_goes_from_its_first_arrival_to_its_last_token() -> None:
    instance = RoutingInstance(
        name="two",
        fleet=fleet({"a100-sxm-80gb": 1}),
        arrival_s=np.array([0.0, 1.0, 2.0]),
        prompt_tokens=np.array([100, 100, 100]),
        output_tokens=np.array([5, 5, 5]),
        program=np.array([0, 1, 0]),
    )
    simulator = Simulator([instance], 1)
    simulator.play_rule("round-robin")
    plan = simulator.solution(0)
    expected = [plan.finish_s[2], plan.finish_s[1] - 1.0]
    assert hexgen_flow.program_latencies(instance, plan) == pytest.approx(expected)


def test_goodput_lies_between_the_rates_that_keep_and_miss_the_objective() -> None:
    drawn = clipped(long_context(np.random.default_rng(0), requests=300, requests_per_s=10.0), 20480)
    rates = {name: dualmap.goodput(name, drawn, step=3.0, warm_up=50)[0] for name in ("min-ttft", "dualmap")}
    for rate in rates.values():
        assert 4.0 <= rate <= 16.0
        # Bisection of 4 to 16 in steps of 3 or less.
        assert (rate - 4.0) % 3.0 == 0.0


def test_verdict_on_dualmap_is_against_the_best_baseline() -> None:
    def rows(own: float) -> list[dict[str, Any]]:
        rates = {"least-pending": 10.0, "min-ttft": 12.0, "affinity": 11.0, "preble": 9.0, "dualmap": own}
        return [{"policy": name, "goodput_requests_per_s": rate} for name, rate in rates.items()]

    (verdict,) = dualmap.verdicts_of(rows(14.4))
    assert verdict.verdict == "holds"
    assert "+20.0% against min-ttft" in verdict.measured
    assert dualmap.verdicts_of(rows(12.0))[0].verdict == "does not hold here"


def test_small_run_of_llumnix() -> None:
    rows = llumnix.measure([0.9], requests=60, servers=2)
    assert [row["policy"] for row in rows] == list(llumnix.POLICIES)
    tail, migration = llumnix.verdicts_of(rows)
    assert tail.claim.startswith("P99")
    assert "preemptions round-robin" in migration.measured


def test_verdict_on_llumnix_needs_fifteen_times() -> None:
    def row(policy: str, p99_s: float) -> dict[str, Any]:
        return {"policy": policy, "ttft_p99_s": p99_s, "ttft_mean_s": 1.0, "preemptions": 3}

    rows = [row("round-robin", 30.0), row("llumnix-dispatch", 4.0), row("llumnix", 2.0)]
    assert [v.verdict for v in llumnix.verdicts_of(rows)] == ["holds", "holds"]
    rows = [row("round-robin", 4.0), row("llumnix-dispatch", 2.0), row("llumnix", 2.0)]
    assert [v.verdict for v in llumnix.verdicts_of(rows)] == ["same direction", "no gain here"]


def test_small_run_of_hexgen_flow() -> None:
    rows = hexgen_flow.measure([0.5, 1.5], 0.2, requests=60, draws=1)
    assert len(rows) == 8
    latency, throughput = hexgen_flow.verdicts_of(rows, 0.2)
    assert "alpha 0.2" in latency.measured
    assert "of deadlines are kept" in throughput.measured


def test_throughput_ends_at_the_first_load_that_misses_deadlines() -> None:
    def row(policy: str, load: float, kept: float, p95_s: float) -> dict[str, Any]:
        return {"policy": policy, "load": load, "deadlines_kept": kept, "p95_s": p95_s}

    rows = [row("round-robin", load, kept, 30.0) for load, kept in ((0.4, 0.95), (0.6, 0.8), (0.8, 0.95))]
    rows += [row("least-outstanding", load, 0.95, 15.0) for load in (0.4, 0.6, 0.8)]
    rows += [row("hexgen-flow", load, 0.95, 10.0) for load in (0.4, 0.6, 0.8)]
    latency, throughput = hexgen_flow.verdicts_of(rows, 0.3)
    assert (latency.verdict, throughput.verdict) == ("holds against both", "holds")
    assert "0.4 with round-robin" in throughput.measured


def test_small_run_of_continuum() -> None:
    rows = continuum.measure([0.8], requests=60, draws=1)
    assert [row["policy"] for row in rows] == list(continuum.POLICIES)
    gain, _ = continuum.verdicts_of(rows)
    assert gain.measured.endswith("times better over loads")
