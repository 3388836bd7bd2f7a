from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from schedrl.arrays import I32
from schedrl.baselines.moe.flashlb import FlashLB
from schedrl.baselines.moe.modelled_time import ModelledTime
from schedrl.baselines.moe.replanning import EplbEveryWindow, HorizonRule, Swaps, loads_since_change, recency_weights
from schedrl.baselines.moe.windows import PlanEveryWindow, rearranged
from schedrl.devices.cluster import uniform_cluster
from schedrl.envs.moe.generators import arbitrary
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.model import MoEModel
from schedrl.envs.moe.solution import ExpertPlan, device_loads, layer_times, migration_times


def drifting(windows: int = 6, seed: int = 0, iterations: int = 10) -> ExpertPlacementInstance:
    """Return 2 layers of 16 experts on 4 devices of 5 slots whose loads are drawn anew in every window."""
    rng = np.random.default_rng(seed)
    return ExpertPlacementInstance(
        name="drifting",
        model=MoEModel(name="small", layers=2, experts=16, top_k=2, hidden=1000, intermediate=1000),
        cluster=uniform_cluster("h100-sxm", nodes=2, per_node=2),
        slots=np.full(4, 5, dtype=np.int32),
        counts=np.round(1e5 * rng.lognormal(0, 1, (windows, 2, 16))),
        planned=1,
        iterations=iterations,
    )


def steady(instance: ExpertPlacementInstance) -> ExpertPlacementInstance:
    """Return the instance with the loads of the first window in all."""
    return dataclasses.replace(instance, counts=np.repeat(instance.counts[:1], len(instance.counts), axis=0))


def moved(instance: ExpertPlacementInstance, old: I32, new: I32) -> float:
    return migration_times(instance, old, new)[1]


def plans(planner: type, instance: ExpertPlacementInstance) -> I32:
    result = PlanEveryWindow(planner).schedule(instance, time_limit_s=30.0, rng=np.random.default_rng(0))
    assert isinstance(result.solution, ExpertPlan)
    return result.solution.experts


class Spy:
    """Keeps the contents and remembers what it was shown."""

    seen: list[tuple[int, int]]

    def __init__(self) -> None:
        self.seen = []

    def plan(self, known: ExpertPlacementInstance, current: I32 | None) -> I32:
        self.seen.append((len(known.counts), known.planned))
        return np.tile(np.arange(20, dtype=np.int32) % 16, (2, 1)) if current is None else current


def test_planners_see_only_windows_that_are_over() -> None:
    spy = Spy()
    PlanEveryWindow(lambda: spy).schedule(drifting(5), time_limit_s=5.0, rng=np.random.default_rng(0))
    assert spy.seen == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_the_last_plan_stays_when_time_is_up() -> None:
    result = PlanEveryWindow(EplbEveryWindow).schedule(drifting(), time_limit_s=0.0, rng=np.random.default_rng(0))
    assert isinstance(result.solution, ExpertPlan)
    assert (result.solution.experts == result.solution.experts[0]).all()


def test_rearranging_keeps_contents_and_moves_less() -> None:
    instance, planner = drifting(), EplbEveryWindow()
    old = planner.plan(instance.known(0), None)
    new = planner.plan(instance.known(1), None)
    slots, node, everywhere = (
        rearranged(instance, old, new, keep) for keep in ("slots", "devices of a node", "devices")
    )
    traffic = [moved(instance, old, placement) for placement in (new, slots, node, everywhere)]
    assert traffic[0] == traffic[1] >= traffic[2] >= traffic[3]
    assert traffic[0] > traffic[3]
    assert (slots == old).sum() > (new == old).sum()
    counts = instance.counts[1]
    best = np.sort(device_loads(instance, counts, new), axis=1)
    for placement in (slots, node, everywhere):
        assert np.sort(device_loads(instance, counts, placement), axis=1) == pytest.approx(best)
    assert rearranged(instance, None, new, "devices").tolist() == new.tolist()
    assert rearranged(instance, old, new, "nothing").tolist() == new.tolist()


def test_steady_loads_need_no_second_plan() -> None:
    for planner in (Swaps, FlashLB, HorizonRule):
        found = plans(planner, steady(drifting()))
        assert (found == found[0]).all(), planner


def test_swaps_are_few_until_a_layer_drifts_apart() -> None:
    class Patient(Swaps):
        def __init__(self) -> None:
            super().__init__(most_swaps=3, tolerance=1e9)

    found = plans(Patient, drifting())
    changes = (found[1:] != found[:-1]).sum(axis=2)
    assert changes.max() <= 6
    assert changes.max() > 0

    class Impatient(Swaps):
        def __init__(self) -> None:
            super().__init__(most_swaps=0, tolerance=0.0)

    assert (plans(Impatient, drifting())[1] != found[0]).any()


def test_recency_counts_once_loads_drift() -> None:
    still = np.array([[[50, 50]], [[50, 50]], [[50, 50]]])
    assert recency_weights(still)[:, 0] == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    # A total variation of 0.3 weighs windows 1 : 2 : 3; one of 0.1715, half way, halves the difference.
    assert recency_weights(np.array([[[50, 50]], [[50, 50]], [[80, 20]]]))[:, 0] == pytest.approx([1 / 6, 1 / 3, 1 / 2])
    half = recency_weights(np.array([[[5000, 5000]], [[5000, 5000]], [[6715, 3285]]]))[:, 0]
    assert half == pytest.approx([1 / 4, 1 / 3, 5 / 12])
    assert recency_weights(still[:1])[:, 0].tolist() == [1.0]


def test_forecast_forgets_what_was_before_a_change() -> None:
    # Layer 0 changes after the second window; layer 1 returns to what it was, but the run is broken.
    windows = np.array([[[90, 10], [50, 50]], [[90, 10], [0, 100]], [[40, 60], [50, 50]], [[50, 50], [50, 50]]])
    assert loads_since_change(windows).tolist() == [[45.0, 55.0], [50.0, 50.0]]
    assert loads_since_change(windows[:3]).tolist() == [[40.0, 60.0], [50.0, 50.0]]


def test_horizon_rule_changes_only_what_pays() -> None:
    # A window of a single forward pass never repays a migration of at least the synchronisation; many do.
    rare, often = drifting(iterations=1), drifting(iterations=100_000)
    often = dataclasses.replace(often, counts=often.counts * 10_000)
    small = dataclasses.replace(rare, counts=rare.counts // 1000)
    assert (plans(HorizonRule, small) == plans(HorizonRule, small)[0]).all()
    found = plans(HorizonRule, often)
    assert (found != found[0]).any()


def test_flashlb_leaves_balanced_layers_alone() -> None:
    instance = drifting()
    counts = instance.counts.copy()
    counts[:, 0] = counts[0, 0]
    found = plans(FlashLB, dataclasses.replace(instance, counts=counts))
    assert (found[:, 0] == found[0, 0]).all()
    assert (found[:, 1] != found[0, 1]).any()


def test_modelled_time_is_that_of_the_definitions() -> None:
    for seed in range(20):
        instance = arbitrary(np.random.default_rng(seed))
        rng, modelled = np.random.default_rng(seed), ModelledTime(instance)
        base = np.tile(np.resize(np.arange(instance.experts), instance.total_slots), (instance.layers, 1))
        old, new = rng.permuted(base, axis=1).astype(np.int32), rng.permuted(base, axis=1).astype(np.int32)
        loads = instance.counts[0].astype(np.float64)
        assert modelled.layer_s(loads, new) == pytest.approx(layer_times(instance, loads, new)[0])
        assert modelled.move_s(old, new).sum() == pytest.approx(migration_times(instance, old, new)[0])
