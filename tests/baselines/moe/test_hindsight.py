from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings

from schedrl.arrays import I32
from schedrl.baselines.moe.hindsight import Hindsight
from schedrl.baselines.moe.packing import balanced_placement
from schedrl.devices import uniform_cluster
from schedrl.envs.moe.generators import GENERATORS
from schedrl.envs.moe.instance import ExpertPlacementInstance, trivial_placement
from schedrl.envs.moe.model import MoEModel
from schedrl.envs.moe.solution import ExpertPlan, check_plan, layer_times, migration_times, plan_objectives
from schedrl.envs.moe.timing import LayerTiming
from schedrl.errors import ConfigError
from schedrl.schedulers import Result, get_scheduler
from tests.envs.moe.small_placements import SEEDS, random_instance


def solved(instance: ExpertPlacementInstance, *, beam: int = 3, time_limit_s: float = 60.0) -> Result:
    """Return a result that was checked and recomputed."""
    result = Hindsight(beam).schedule(instance, time_limit_s=time_limit_s, rng=np.random.default_rng(0))
    assert isinstance(result.solution, ExpertPlan)
    assert check_plan(instance, result.solution) == []
    assert result.objective == pytest.approx(plan_objectives(instance, result.solution)["total_time"], rel=1e-12)
    return result


def kept(instance: ExpertPlacementInstance, placement: I32) -> float:
    """Return the total time of one placement for all windows."""
    return plan_objectives(instance, ExpertPlan(experts=placement[None]))["total_time"]


def tiny(seed: int, *, experts: int = 3, windows: int = 3, initial: bool = True) -> ExpertPlacementInstance:
    """Return one layer on two devices in two nodes, where every window and every move matters."""
    rng = np.random.default_rng(seed)
    return ExpertPlacementInstance(
        name="tiny",
        model=MoEModel(name="m", layers=1, experts=experts, top_k=1, hidden=1024, intermediate=1024),
        cluster=uniform_cluster("h100-sxm", nodes=2, per_node=1),
        slots=np.array([2, 2], dtype=np.int32),
        counts=np.round(3e4 * rng.lognormal(0.0, 1.5, (1 + windows, 1, experts))).astype(np.int64),
        planned=1,
        iterations=int(rng.integers(1, 12)),
        initial=trivial_placement(1, experts, 4) if initial else None,
    )


def least_total_time(instance: ExpertPlacementInstance) -> float:
    """Return the optimum: the shortest path over all placements of each window, by the checker's own functions."""
    options = [
        np.array([row], dtype=np.int32)
        for row in itertools.product(range(instance.experts), repeat=instance.total_slots)
        # Slots of a device are alike, so that one order of them is enough.
        if len(set(row)) == instance.experts and row[0] <= row[1] and row[2] <= row[3]
    ]
    moves = np.array([[migration_times(instance, old, new)[0] for new in options] for old in options])
    least = np.zeros(len(options))
    if instance.initial is not None:
        least = np.array([migration_times(instance, instance.initial, new)[0] for new in options])
    for t, counts in enumerate(instance.scored):
        if t:
            least = (least[:, None] + moves).min(axis=0)
        least = least + [instance.iterations * layer_times(instance, counts, option)[0].sum() for option in options]
    return float(least.min())


@pytest.mark.parametrize("initial", [True, False])
@pytest.mark.parametrize("experts", [3, 4])
def test_near_the_optimum_of_brute_force_and_never_below(experts: int, initial: bool) -> None:
    ratios = []
    for seed in range(6):
        instance = tiny(seed, experts=experts, windows=2 + seed % 2, initial=initial)
        objective, optimum = solved(instance).objective, least_total_time(instance)
        assert objective is not None and objective >= optimum * (1 - 1e-12)
        ratios.append(objective / optimum)
    assert np.mean(ratios) <= 1.02
    assert max(ratios) <= 1.08


@settings(max_examples=25)
@given(SEEDS)
def test_never_worse_than_keeping_one_placement(seed: int) -> None:
    instance = random_instance(seed)
    instance = dataclasses.replace(
        instance,
        timing=dataclasses.replace(instance.timing, residence="home"),
        initial=trivial_placement(instance.layers, instance.experts, instance.total_slots),
    )
    objective = solved(instance).objective
    assert objective is not None and instance.initial is not None
    assert objective <= kept(instance, instance.initial) * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_never_worse_than_one_balanced_placement_that_knows_all_windows(seed: int) -> None:
    instance = GENERATORS["qwen15-moe"](
        np.random.default_rng(seed), layers=2, windows=8, switch_every=4, iterations=300
    )
    objective = solved(instance).objective
    assert objective is not None
    loads = instance.scored.sum(axis=0).astype(np.float64)
    assert objective <= kept(instance, balanced_placement(instance, loads)) * (1 + 1e-9)
    assert instance.initial is not None
    assert objective < kept(instance, instance.initial)
    for name in ("lpt-swap", "eplb-every-window", "horizon-rule"):
        online = get_scheduler(f"moe/{name}").make()
        other = online.schedule(instance, time_limit_s=60.0, rng=np.random.default_rng(0)).objective
        assert other is not None and objective <= other


def test_a_wider_beam_is_not_worse_here_and_results_repeat() -> None:
    instance = tiny(11, experts=4)
    narrow, wide = solved(instance, beam=1), solved(instance, beam=6)
    assert narrow.objective is not None and wide.objective is not None
    assert wide.objective <= narrow.objective
    assert solved(instance, beam=6).solution == wide.solution


def test_in_sample_one_placement_serves_all_windows() -> None:
    instance = dataclasses.replace(tiny(3, experts=4, windows=2), planned=3)
    result = solved(instance)
    assert isinstance(result.solution, ExpertPlan) and result.objective is not None
    assert result.solution.experts.shape == (1, 1, 4)
    placements = [
        np.array([row], dtype=np.int32) for row in itertools.permutations(range(4))
    ]  # four slots for four experts
    optimum = min(kept(instance, placement) for placement in placements)
    assert optimum * (1 - 1e-12) <= result.objective <= optimum * 1.05


def test_without_time_every_layer_keeps_one_placement() -> None:
    instance = GENERATORS["qwen15-moe"](np.random.default_rng(4), layers=2, windows=5, switch_every=2)
    result = solved(instance, time_limit_s=0.0)
    assert isinstance(result.solution, ExpertPlan)
    assert (result.solution.experts == result.solution.experts[0]).all()


def test_tokens_that_stay_on_their_path_are_refused() -> None:
    instance = dataclasses.replace(tiny(0), transitions=np.zeros((0, 3, 3)), timing=LayerTiming(residence="path"))
    with pytest.raises(ConfigError, match=r"^instance tiny: hindsight plans layer by layer, tokens must return home$"):
        solved(instance)
