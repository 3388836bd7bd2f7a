from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from schedrl.baselines.routing.clairvoyant import SCHEDULERS, Clairvoyant, rule_plans
from schedrl.envs.routing.bounds import bounds
from schedrl.envs.routing.fleets import fleet
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.solution import RoutingPlan, objectives


def busy(count: int, seed: int = 0, counts: dict[str, int] | None = None) -> RoutingInstance:
    """Return more work than the fleet likes, prompts in families with common prefixes."""
    rng = np.random.default_rng(seed)
    listed = rng.integers(1, 12, count)
    stems = rng.integers(0, 3, count)
    ids = [
        1000 * int(stem) + k if k < 4 else 10_000 * (r + 1) + k
        for r, (n, stem) in enumerate(zip(listed, stems, strict=True))
        for k in range(n)
    ]
    return RoutingInstance(
        name="busy",
        fleet=fleet(counts or {"h100-sxm": 1, "a100-sxm-80gb": 1, "l4": 1}),
        arrival_s=np.sort(rng.uniform(0, count * 0.03, count)),
        prompt_tokens=(listed * 512 + rng.integers(1, 500, count)).astype(np.int32),
        output_tokens=rng.integers(1, 120, count).astype(np.int32),
        block_start=np.concatenate([[0], np.cumsum(listed)]),
        blocks=np.array(ids, dtype=np.int64),
        ttft_slo_s=1.0,
    )


def replayed(instance: RoutingInstance, plan: RoutingPlan) -> RoutingPlan:
    simulator = Simulator([instance], 1)
    while not simulator.finished(0):
        simulator.send(simulator.follow(0, plan))
    return simulator.solution(0)


@pytest.mark.parametrize("seed", range(3))
def test_beats_every_rule_on_small_windows(seed: int) -> None:
    instance = busy(40, seed)
    rules = rule_plans(instance, np.random.default_rng(0))
    result = Clairvoyant(starts=1).schedule(instance, time_limit_s=30.0, rng=np.random.default_rng(0))
    assert result.objective is not None and isinstance(result.solution, RoutingPlan)
    assert bounds(instance)[0].value <= result.objective < rules[0][0]
    assert [value for value, _ in rules] == sorted(value for value, _ in rules)
    assert objectives(instance, replayed(instance, result.solution))["penalty"] == pytest.approx(result.objective)


def test_finds_the_best_assignment_of_few_requests() -> None:
    instance = busy(6, 1, {"h100-sxm": 1, "l4": 1})
    instance = replace(instance, arrival_s=instance.arrival_s / 10)
    plan = rule_plans(instance, np.random.default_rng(0))[0][1]
    best = min(
        objectives(instance, replayed(instance, replace(plan, instance=np.array(places, dtype=np.int32))))["penalty"]
        for places in itertools.product(range(2), repeat=6)
    )
    result = Clairvoyant().schedule(instance, time_limit_s=30.0, rng=np.random.default_rng(0))
    # A local optimum in single requests; here it is the best of all.
    assert result.objective == pytest.approx(best)


def test_without_time_the_best_rule_remains() -> None:
    instance = busy(30)
    result = Clairvoyant().schedule(instance, time_limit_s=1e-6, rng=np.random.default_rng(0))
    assert result.status == "feasible" and result.decisions == 0
    assert result.objective == pytest.approx(objectives(instance, result.solution)["penalty"])  # type: ignore[arg-type]


def test_prefill_and_decode_instances() -> None:
    split = fleet({"h100-sxm": 2}, role="prefill") + fleet({"a100-sxm-80gb": 2}, role="decode")
    instance = replace(busy(20), fleet=split)
    result = Clairvoyant(starts=1).schedule(instance, time_limit_s=5.0, rng=np.random.default_rng(0))
    assert result.objective is not None
    assert result.objective <= rule_plans(instance, np.random.default_rng(0))[0][0]


def test_registered_as_clairvoyant() -> None:
    (spec,) = SCHEDULERS
    assert (spec.name, spec.information) == ("routing/clairvoyant", "clairvoyant")
