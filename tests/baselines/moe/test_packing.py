from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.baselines.moe import eplb, packing, replanning
from schedrl.baselines.moe.packing import balanced_placement, device_speed, risky_loads, swapped
from schedrl.devices.cluster import uniform_cluster
from schedrl.envs.moe.generators import arbitrary
from schedrl.envs.moe.instance import ExpertPlacementInstance
from schedrl.envs.moe.model import MoEModel
from schedrl.envs.moe.solution import ExpertPlan, check_plan, device_loads, plan_objectives
from schedrl.schedulers import SchedulerSpec

EXAMPLES = int(os.environ.get("SCHEDRL_EXAMPLES", "25"))
ALL = (*packing.SCHEDULERS, *eplb.SCHEDULERS, *replanning.SCHEDULERS)


def make(counts: list[list[list[int]]], slots: list[int], planned: int = 1) -> ExpertPlacementInstance:
    layers, experts = len(counts[0]), len(counts[0][0])
    return ExpertPlacementInstance(
        name="hand",
        model=MoEModel(name="hand", layers=layers, experts=experts, top_k=1, hidden=1000, intermediate=1000),
        cluster=uniform_cluster("h100-sxm", nodes=1, per_node=len(slots)),
        slots=np.array(slots, dtype=np.int32),
        counts=np.array(counts),
        planned=planned,
    )


def run(name: str, instance: ExpertPlacementInstance, seed: int = 0) -> list[list[list[int]]]:
    spec = next(spec for spec in ALL if spec.name == f"moe/{name}")
    result = spec.make().schedule(instance, time_limit_s=120.0, rng=np.random.default_rng(seed))
    assert isinstance(result.solution, ExpertPlan)
    placement: list[list[list[int]]] = result.solution.experts.tolist()
    return placement


def test_the_promised_names() -> None:
    once = "contiguous random snake eplb-hierarchical eplb-global lpt lpt-swap variance-aware"
    every = "eplb-every-window eplb-every-window-preserved eplb-relabelled swaps variance-aware-every-window"
    promised = {f"moe/{name}" for name in f"{once} {every} flashlb horizon-rule".split()}
    assert {spec.name for spec in ALL} == promised
    assert all(spec.information == "online" and spec.summary and spec.source for spec in ALL)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_plan_passes_the_checker(seed: int) -> None:
    instance = arbitrary(np.random.default_rng(seed))
    for spec in ALL:
        result = spec.make().schedule(instance, time_limit_s=5.0, rng=np.random.default_rng(0))
        assert isinstance(result.solution, ExpertPlan), spec.name
        assert check_plan(instance, result.solution) == [], spec.name
        assert result.objective == pytest.approx(plan_objectives(instance, result.solution)["total_time"]), spec.name


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: spec.name)
def test_same_seed_same_plan_and_the_future_does_not_matter(spec: SchedulerSpec) -> None:
    rng = np.random.default_rng(1)
    counts = rng.integers(0, 1000, (6, 2, 8))
    instance = make(counts.tolist(), [3, 3, 3, 3], planned=2)
    counts[4:] = rng.integers(0, 1000, (2, 2, 8))
    other = make(counts.tolist(), [3, 3, 3, 3], planned=2)
    name = spec.name.partition("/")[2]
    plans = run(name, instance)
    assert plans == run(name, instance)
    # Windows 2 and 3 are over before plan 2; windows from 4 on may change nothing up to then.
    assert run(name, other)[:3] == plans[:3]


def test_contiguous_starts_again_from_the_first() -> None:
    assert run("contiguous", make([[[5, 1, 1]]], [2, 2])) == [[[0, 1, 2, 0]]]


def test_random_shuffles_by_seed() -> None:
    instance = make([[[1] * 12]], [6, 6])
    drawn = [run("random", instance, seed)[0][0] for seed in (0, 0, 1)]
    assert sorted(drawn[0]) == list(range(12))
    assert drawn[0] == drawn[1] != drawn[2]


def test_snake_goes_forwards_and_backwards_past_full_devices() -> None:
    # By load 5, 4, 3, 2, 1, 0. Forwards to devices 0, 1, 2, backwards to 2, 1, 0.
    assert run("snake", make([[[0, 1, 2, 3, 4, 5]]], [2, 2, 2])) == [[[5, 0, 4, 1, 3, 2]]]
    assert run("snake", make([[[0, 1, 2, 3, 4, 5]]], [1, 1, 4])) == [[[5, 4, 3, 2, 1, 0]]]


def test_history_is_summed_over_known_windows() -> None:
    # The second window alone would put experts 0 and 1 apart, the sum 2 and 3.
    instance = make([[[0, 0, 90, 80]], [[30, 20, 0, 0]], [[7, 7, 7, 7]]], [2, 2], planned=2)
    for name in ("lpt", "lpt-swap", "eplb-global", "eplb-hierarchical"):
        devices = [set(run(name, instance)[0][0][d : d + 2]) for d in (0, 2)]
        assert {2, 3} not in devices, name


def test_variance_counts() -> None:
    history = np.array([[[10, 0]], [[10, 20]]])
    assert risky_loads(history, 0.674).tolist() == [[10.0, 10.0 + 6.74]]


def test_speed_is_relative_to_the_fastest() -> None:
    assert device_speed(make([[[1, 1]]], [1, 1])).tolist() == [1.0, 1.0]


def largest(instance: ExpertPlacementInstance, placement: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> float:
    return float(device_loads(instance, instance.history[0], placement).max())


def layer_instances() -> Iterator[ExpertPlacementInstance]:
    for seed in range(20):
        yield make(np.random.default_rng(seed).integers(0, 500, (1, 1, 16)).tolist(), [5, 5, 5, 5])


def test_swaps_follow_the_limit_and_help() -> None:
    for instance in layer_instances():
        loads = instance.history[0].astype(np.float64)
        start = np.array([run("contiguous", instance)[0]])[0].astype(np.int32)
        one, few = (swapped(instance, loads, start, swaps=k) for k in (1, 8))
        assert (one != start).sum() <= 2
        assert largest(instance, few) <= largest(instance, one) <= largest(instance, start)
        full = balanced_placement(instance, loads)
        assert largest(instance, full) <= largest(instance, balanced_placement(instance, loads, swaps=0))
        assert all(len(set(row)) == 5 for row in full[0].reshape(4, 5).tolist())
