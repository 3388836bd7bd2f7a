"""Each profile has the statistics that its source publishes; every option does what it says; bad ones are refused."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.arrays import F64
from schedrl.envs.moe.eplb import rebalance_experts
from schedrl.envs.moe.generators import GENERATORS, draw_counts, draw_shares, placement
from schedrl.envs.moe.instance import ExpertPlacementInstance, trivial_placement
from schedrl.envs.moe.metrics import balance_vllm, imbalance_tensorrt_llm
from schedrl.envs.moe.model import get_model
from schedrl.envs.moe.profiles import get_profile, load_profiles
from schedrl.envs.moe.solution import ExpertPlan, check_plan, plan_objectives
from schedrl.errors import ConfigError, UnknownNameError

PROFILES = list(load_profiles())
NEEDS_DATA = pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: nothing to compare")


def published(name: str) -> Any:
    path = Path(os.environ["SCHEDRL_DATA"], "moe", "calibration.json")
    return json.loads(path.read_text(encoding="utf-8"))[name]


def many_layers(profile: str, seed: int = 0, layers: int = 3000, windows: int = 1) -> F64:
    """Return shares of picks (W, L, E) of windows of one forward pass: more layers than any model, for the mean."""
    rng, constants = np.random.default_rng(seed), get_profile(profile)
    model = replace(get_model(constants.model), layers=layers)
    shares = np.repeat(draw_shares(rng, constants, model), windows, axis=0)
    counts = draw_counts(rng, constants, model, shares)
    return counts / counts.sum(axis=2, keepdims=True)


def top_share(shares: F64, experts: int) -> float:
    return float(np.sort(shares, axis=-1)[..., -experts:].sum(axis=-1).mean())


@NEEDS_DATA
def test_deepseek_r1_has_the_imbalance_that_tensorrt_llm_measured() -> None:
    table = published("trtllm_blog4_table1_deepseek_r1_ep32_mt")["none"]
    # 1024 picks per rank and 128 per expert on average, ranks of 8 consecutive experts.
    shares = many_layers("deepseek-r1-mt")[0]
    slots, ranks = shares * 256, shares.reshape(-1, 32, 8).sum(axis=2) * 32
    assert imbalance_tensorrt_llm(ranks) == pytest.approx(table["rank_imb"], rel=0.06)
    assert imbalance_tensorrt_llm(slots) == pytest.approx(table["slot_imb"], rel=0.04)
    assert ranks.std(axis=1).mean() == pytest.approx(table["rank_std"] / 1024, rel=0.03)
    assert slots.std(axis=1).mean() == pytest.approx(table["slot_std"] / 128, rel=0.08)


def eplb_loads(instance: ExpertPlacementInstance, groups: int) -> tuple[F64, F64]:
    """Plan with EPLB on the known windows; return loads of slots and devices (L, ...) in the first scored window."""
    nodes, devices = len(instance.cluster.nodes), instance.devices
    plan, _, replicas = rebalance_experts(
        instance.history.sum(axis=0), instance.total_slots, groups, nodes=nodes, devices=devices
    )
    slots = np.take_along_axis(instance.scored[0] / replicas, plan.astype(np.int64), axis=1)
    return slots, slots.reshape(len(slots), devices, -1).sum(axis=2)


@NEEDS_DATA
def test_deepseek_r1_after_eplb_is_as_unequal_as_tensorrt_llm_measured() -> None:
    table = published("trtllm_blog4_table1_deepseek_r1_ep32_mt")["eplb_288_ep32"]
    imbalances = []
    for seed in range(4):
        instance = placement(np.random.default_rng(seed), layers=58, windows=1, history=1, iterations=1)
        slots, ranks = eplb_loads(instance, groups=1)
        imbalances.append((imbalance_tensorrt_llm(ranks), imbalance_tensorrt_llm(slots)))
    ranks_mean, slots_mean = np.mean(imbalances, axis=0)
    # 0.094 and 1.94: without drift 0.08, with a drift of 0.15 0.12.
    assert ranks_mean == pytest.approx(table["rank_imb"], abs=0.02)
    assert slots_mean == pytest.approx(table["slot_imb"], rel=0.1)


@NEEDS_DATA
def test_deepseek_gpqa_has_the_published_share_of_the_32_hottest_experts() -> None:
    table = published("deepseek_gpqa_aime_layers_3_60")
    # The published shares are of all requests together: of many windows.
    shares = many_layers("deepseek-gpqa", layers=500, windows=16).mean(axis=0)
    assert 100 * top_share(shares, 32) == pytest.approx(table["gpqa_top32_share_pct_mean"], abs=0.8)


def test_adrs_plans_fall_behind_out_of_sample_as_the_task_reports() -> None:
    # The seed program of the task: 0.66 of devices, 0.25 of slots, on windows after those it planned from.
    balances = []
    for seed in range(4):
        instance = GENERATORS["adrs-vllm"](np.random.default_rng(seed), layers=58, windows=1)
        slots, devices = eplb_loads(instance, groups=8)
        balances.append((balance_vllm(devices), balance_vllm(slots)))
    of_devices, of_slots = np.mean(balances, axis=0)
    assert of_devices == pytest.approx(0.68, abs=0.03)
    assert of_slots == pytest.approx(0.235, abs=0.02)


@NEEDS_DATA
def test_qwen15_has_the_measured_skew_and_drift() -> None:
    table = published("qwen15_moe_measured")
    shares = many_layers("qwen15-moe", windows=2)
    low, high = table["top20pct_share"]
    assert top_share(shares[0], 12) == pytest.approx((low + high) / 2, abs=0.015)
    low, high = table["max_over_mean_median"]
    assert np.median(shares[0].max(axis=1) * 60) == pytest.approx(high, rel=0.06)
    moved = np.median(np.abs(shares[1] - shares[0]).sum(axis=1) / 2)
    low, high = table["tv_consecutive_iters_median"]
    assert low < moved < high
    assert moved == pytest.approx((low + high) / 2, abs=0.005)


@NEEDS_DATA
def test_qwen15_data_sets_are_as_far_apart_as_measured() -> None:
    profile = get_profile("qwen15-moe")
    model = replace(get_model(profile.model), layers=1500)
    shares = draw_shares(np.random.default_rng(0), profile, model, domains=2)
    apart = np.abs(shares[0] - shares[1]).sum(axis=1).mean() / 2
    low, high = published("qwen15_moe_measured")["tv_between_datasets"]
    assert low < apart < high
    assert apart == pytest.approx((low + high) / 2, abs=0.03)


@NEEDS_DATA
def test_qwen15_passes_are_uncorrelated_which_is_why_the_profile_has_no_persistence() -> None:
    path = Path(os.environ["SCHEDRL_DATA"], "moe", "harmoeny", "qwen1.5-moe-a2.7b_expert_counts.csv")
    with path.open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    counts = np.array([row[4:] for row in rows], dtype=float)
    cell = np.array([(int(row[2]), int(row[3])) for row in rows])
    for dataset in {row[1] for row in rows}:
        here = np.array([row[1] == dataset for row in rows])
        logs = np.empty((20, 12, 60))
        logs[cell[here, 0], cell[here, 1]] = np.log(counts[here] + 0.5)
        usual = np.exp(logs.mean(axis=0)) > 500
        deviation = (logs - logs.mean(axis=0))[:, usual]
        assert abs((deviation[1:] * deviation[:-1]).mean() / deviation.var()) < 0.15
    assert get_profile("qwen15-moe").persistence == 0


def test_qwen3_top_fifth_of_the_experts_has_65_percent() -> None:
    # aiconfigurator documentation: power law of alpha 1.2 for Qwen3-235B, the top 20 % have 65 %.
    assert top_share(many_layers("qwen3-235b")[0], 26) == pytest.approx(0.65, abs=0.01)


def test_mixtral_is_mild_except_in_one_layer_of_twenty() -> None:
    # MoETuner: 64 and 69 % on two experts in layers 14 and 23 of 32, mild elsewhere; even loads would give 25 %.
    pairs = np.sort(many_layers("mixtral")[0], axis=1)[:, -2:].sum(axis=1)
    assert np.median(pairs) < 0.4
    assert (pairs > 0.5).mean() == pytest.approx(0.05, abs=0.015)
    # Two published layers of a spread of 0.08: their mean is uncertain by 0.06.
    assert pairs[pairs > 0.5].std() == pytest.approx(0.08, abs=0.02)
    assert pairs[pairs > 0.5].mean() == pytest.approx((0.64 + 0.69) / 2, abs=0.06)


@pytest.mark.parametrize("profile", PROFILES)
def test_instances_fit_their_profile_and_the_checker(profile: str) -> None:
    instance = GENERATORS[profile](np.random.default_rng(3), layers=2, windows=3, history=2)
    constants, model = get_profile(profile), instance.model
    assert model == replace(get_model(constants.model), layers=2)
    assert instance.counts.shape == (5, 2, model.experts)
    assert instance.planned == 2
    assert (instance.slots == (model.experts + constants.redundant) // instance.devices).all()
    assert (instance.counts.sum(axis=2) == constants.tokens * model.top_k * 100).all()
    assert instance.counts.max() <= constants.tokens * 100
    assert (instance.transitions is not None) == (profile == "mixtral")
    assert instance.initial is not None
    plan = ExpertPlan(experts=instance.initial[None])
    assert check_plan(instance, plan) == []
    assert plan_objectives(instance, plan)["total_time"] > 0
    assert ExpertPlacementInstance.from_json(instance.to_json()) == instance
    assert GENERATORS[profile](np.random.default_rng(3), layers=2, windows=3, history=2) == instance
    assert GENERATORS[profile](np.random.default_rng(4), layers=2, windows=3, history=2) != instance


@pytest.mark.parametrize("layers", [None, 0])
def test_all_layers(layers: int | None) -> None:
    instance = GENERATORS["mixtral"](np.random.default_rng(0), layers=layers, affinity=0.0, residence="path")
    assert instance.layers == 32
    assert instance.transitions is not None
    assert instance.timing.residence == "path"


def test_trivial_placement_is_in_order_and_then_again_from_the_first() -> None:
    assert trivial_placement(2, 4, 6).tolist() == [[0, 1, 2, 3, 0, 1]] * 2


def domain_changes(every: int, seed: int, windows: int = 24) -> list[int]:
    """Return the scored windows that begin a domain, from the distance of successive loads."""
    instance = GENERATORS["qwen15-moe"](
        np.random.default_rng(seed), layers=4, windows=windows, history=3, switch_every=every, drift=0.01
    )
    shares = instance.counts / instance.counts.sum(axis=2, keepdims=True)
    jumps = np.abs(np.diff(shares, axis=0)).sum(axis=2).mean(axis=1) / 2
    return (np.nonzero(jumps > 0.1)[0] + 1 - 3).tolist()


@pytest.mark.parametrize("every", [1, 5, 8, 40])
def test_domains_change_at_equal_distances_from_a_random_start(every: int) -> None:
    starts = set()
    for seed in range(12):
        changes = domain_changes(every, seed)
        starts.add(changes[0] if changes else None)
        assert all(change >= 1 for change in changes)
        assert set(np.diff(changes)) <= {every}
        if changes:
            assert changes[0] <= every
            assert changes[-1] + every >= 24
    assert len(starts) > 1 or every == 1


def test_no_domain_changes_without_switches() -> None:
    assert domain_changes(0, seed=0) == []


@pytest.mark.parametrize("option", ["windows", "history", "iterations", "tokens", "layers"])
def test_options_out_of_range_are_named(option: str) -> None:
    with pytest.raises(ConfigError, match=f"option {option}: -1, expected"):
        placement(np.random.default_rng(0), **{option: -1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"redundant": 31}, "option redundant: 31, 287 slots do not divide among 32 devices"),
        ({"redundant": -32}, "option redundant: -32, expected at least 0"),
        ({"layers": 59}, "option layers: 59, expected 1 to 58 for deepseek-v3"),
        ({"switch_every": 4, "domains": 1}, "option domains: 1, expected at least 2"),
        ({"drift": float("nan")}, "option drift: nan, expected at least 0"),
        ({"affinity": 1.0}, "option affinity: 1.0, expected at least 0 and below 1"),
        ({"nodes": 0}, "cluster: field nodes: 0, expected at least 1"),
    ],
)
def test_bad_combinations_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        placement(np.random.default_rng(0), **options)


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="unknown load profile 'x'; choose from deepseek-r1-mt"):
        placement(np.random.default_rng(0), profile="x")
    with pytest.raises(UnknownNameError, match="unknown device 'x'"):
        placement(np.random.default_rng(0), device="x")


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_arbitrary_instances_are_valid_and_survive_json(seed: int) -> None:
    instance = GENERATORS["arbitrary"](np.random.default_rng(seed))
    assert 4 <= instance.experts <= 12
    assert 2 <= instance.devices <= 6
    assert instance.timing.residence == "home"
    assert ExpertPlacementInstance.from_json(instance.to_json()) == instance
    rows = trivial_placement(instance.layers, instance.experts, instance.total_slots)
    assert np.isfinite(plan_objectives(instance, ExpertPlan(experts=rows[None]))["total_time"])


def test_arbitrary_instances_cover_what_is_unusual() -> None:
    make: Callable[..., ExpertPlacementInstance] = GENERATORS["arbitrary"]
    drawn = [make(np.random.default_rng(seed)) for seed in range(200)]
    assert any(len({node.device.name for node in item.cluster.nodes}) > 1 for item in drawn)
    assert any(len(set(item.slots.tolist())) > 1 for item in drawn)
    assert any(item.total_slots == item.experts for item in drawn)
    assert any((item.counts.sum(axis=2) == 0).any() for item in drawn)
    assert any(item.counts.max() > 20 * item.counts.mean() > 0 for item in drawn)
    assert {item.timing.deduplicate for item in drawn} == {"none", "device", "node"}
    assert {item.planned == len(item.counts) for item in drawn} == {True, False}
    assert make(np.random.default_rng(0), experts=5, devices=7).counts.shape[2] == 5
    with pytest.raises(ConfigError, match="option devices: 0, expected at least 1"):
        make(np.random.default_rng(0), devices=0)
