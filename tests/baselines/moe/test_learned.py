"""The shipped policies of expert placement beat what they were trained to beat."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest

from schedrl.envs.moe.generators import GENERATORS
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.solution import ExpertPlan, check_plan, plan_objectives
from schedrl.errors import BundleError
from schedrl.schedulers import Result, get_scheduler

pytest.importorskip("onnxruntime")
WEIGHTS = resources.files("schedrl.baselines.moe") / "weights"
REBALANCE = WEIGHTS / "moe-rebalance.schedrl"
rebalance = pytest.mark.skipif(not REBALANCE.is_file(), reason="no shipped policy of the rebalancing game")


def switching(seed: int) -> ExpertPlacementInstance:
    """Return loads whose domain changes every six windows."""
    return GENERATORS["qwen15-moe"](np.random.default_rng((90, seed)), layers=2, switch_every=6)


def solved(name: str, instance: ExpertPlacementInstance, seed: int = 0) -> Result:
    """Return a result that was checked and recomputed."""
    scheduler = get_scheduler(f"moe/{name}").make()
    result = scheduler.schedule(instance, time_limit_s=60.0, rng=np.random.default_rng(seed))
    assert isinstance(result.solution, ExpertPlan)
    assert check_plan(instance, result.solution) == []
    assert result.objective == pytest.approx(plan_objectives(instance, result.solution)["total_time"], rel=1e-12)
    return result


@rebalance
def test_rebalancing_beats_eplb_where_domains_change() -> None:
    totals = {name: 0.0 for name in ("ppo-rebalance", "eplb-every-window", "eplb-global", "contiguous")}
    for seed in range(5):
        instance = switching(seed)
        for name in totals:
            objective = solved(name, instance).objective
            assert objective is not None
            totals[name] += objective
    best = totals.pop("ppo-rebalance")
    assert all(best < other for other in totals.values()), (best, totals)


@rebalance
def test_rebalancing_repeats_and_counts_its_decisions() -> None:
    instance = switching(7)
    first, again = solved("ppo-rebalance", instance, 0), solved("ppo-rebalance", instance, 1)
    assert first.solution == again.solution
    # One decision per layer and window; forced ones may be skipped, and changes may take several.
    assert 1 <= first.decisions == again.decisions
    assert isinstance(first.solution, ExpertPlan)
    assert first.solution.experts.shape == (instance.plans, instance.layers, instance.total_slots)


@rebalance
def test_a_bundle_of_ones_own_plays_the_same() -> None:
    instance, own = switching(8), f"ppo-rebalance@{REBALANCE}"
    assert get_scheduler(f"moe/{own}").information == "online"
    assert solved(own, instance).solution == solved("ppo-rebalance", instance).solution


@rebalance
def test_a_policy_of_another_game_is_refused() -> None:
    with pytest.raises(BundleError, match=r"a policy of family 'moe:rebalance', expected 'moe'"):
        solved(f"ppo@{REBALANCE}", switching(9))
