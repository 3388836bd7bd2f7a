"""Fleets come from the catalogue, random ones of training types alone; what they sustain is near what was measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.devices.language_model import get_language_model
from schedrl.devices.serving import kv_capacity_tokens, serving_row
from schedrl.envs.routing.fleets import (
    TRAINING_DEVICES,
    NamedFleet,
    capacity_requests_per_s,
    fleet,
    fleet_names,
    load_fleets,
    named_fleet,
    random_fleet,
)
from schedrl.errors import ConfigError, UnknownNameError


def test_a_fleet_has_the_catalogues_figures() -> None:
    made = fleet({"h100-sxm": 2, "l4": 1}, cache_tokens=5000, token_budget=512)
    assert [serving.name for serving in made] == ["h100-sxm-0", "h100-sxm-1", "l4-0"]
    model = get_language_model("qwen2.5-7b")
    assert made[1].kv_tokens == kv_capacity_tokens("h100-sxm", model)
    assert (made[2].coefficients == serving_row("l4", model)).all()
    assert (made[0].price_usd_per_h, made[0].power_w, made[0].cache_tokens, made[0].token_budget) == (
        7.52,
        700,
        5000,
        512,
    )
    group = fleet({"a100-sxm-80gb": 1}, "llama-3-70b", tensor_parallel=4, role="prefill")[0]
    assert (group.name, group.role, group.power_w) == ("a100-sxm-80gb-prefill-0", "prefill", 1600)
    assert group.price_usd_per_h == pytest.approx(4 * 3.67)


@pytest.mark.parametrize(
    ("counts", "model", "error", "message"),
    [
        ({}, "qwen2.5-7b", ConfigError, "fleet: empty, expected at least one serving instance"),
        ({"h10": 1}, "qwen2.5-7b", UnknownNameError, "unknown device 'h10'; closest: .*h100-sxm"),
        ({"l4": 1}, "qwen", UnknownNameError, "unknown language model 'qwen'; closest: qwen2.5-7b"),
        ({"l4": 0}, "qwen2.5-7b", ConfigError, "fleet: device l4: 0, expected a count of 1 to 4096"),
        ({"l4": 1}, "llama-3-70b", ConfigError, "device l4: language model llama-3-70b does not fit"),
    ],
)
def test_bad_fleets_get_one_line(counts: dict[str, int], model: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fleet(counts, model)


def test_named_fleets_are_what_their_names_say() -> None:
    assert [serving.device for serving in named_fleet("homogeneous")] == ["a100-sxm-80gb"] * 8
    mixed = [serving.device for serving in named_fleet("heterogeneous")]
    assert mixed == ["h100-sxm"] * 2 + ["a100-sxm-80gb"] * 2 + ["l40s"] * 2 + ["a10g", "l4"]
    assert [serving.role for serving in named_fleet("disaggregated")] == ["prefill"] * 4 + ["decode"] * 4
    assert {(s.model, s.tensor_parallel) for s in named_fleet("llama-70b")} == {("llama-3-70b", 4)}
    assert {s.model for s in named_fleet("homogeneous", model="llama-3-8b")} == {"llama-3-8b"}
    with pytest.raises(UnknownNameError, match="unknown fleet 'homogen'; closest: homogeneous"):
        named_fleet("homogen")
    with pytest.raises(ConfigError, match="fleet none: empty, expected at least one serving instance"):
        NamedFleet(name="none", summary="")
    for name, entry in load_fleets().items():
        served = named_fleet(name)
        assert len({serving.name for serving in served}) == len(served)
        assert entry.summary
    assert {"random", "homogeneous"} <= set(fleet_names())


def test_unseen_fleets_have_what_training_never_draws() -> None:
    unseen = [name for name in load_fleets() if name.startswith("unseen-")]
    assert len(unseen) >= 6
    for name in unseen:
        served = named_fleet(name)
        assert {serving.device for serving in served} - set(TRAINING_DEVICES) or len(served) > 16


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), varied=st.booleans())
def test_random_fleets_are_of_training_types(seed: int, varied: bool) -> None:
    made = random_fleet(np.random.default_rng(seed), varied=varied)
    assert 2 <= len(made) <= 16
    assert {serving.device for serving in made} <= set(TRAINING_DEVICES)
    assert len({serving.cache_tokens for serving in made}) == 1
    model = get_language_model("qwen2.5-7b")
    for serving in made:
        ratio = serving.coefficients[:9] / np.maximum(serving_row(serving.device, model)[:9], 1e-300)
        ratio = ratio[ratio > 0]
        assert (np.abs(np.log2(ratio)) <= 1 + 1e-9).all()
        assert varied or (ratio == 1).all()
    # One type, one speed.
    assert len({serving.coefficients.tobytes() for serving in made}) == len({serving.device for serving in made})
    assert made == random_fleet(np.random.default_rng(seed), varied=varied)


def test_random_fleets_keep_to_their_options() -> None:
    rng = np.random.default_rng(0)
    assert len(random_fleet(rng, instances=5)) == 5
    assert {serving.cache_tokens for serving in random_fleet(rng, cache_tokens=7)} == {7}
    with pytest.raises(ConfigError, match="fleet: 0 instances, expected 1 to 4096"):
        random_fleet(rng, instances=0)
    with pytest.raises(ConfigError, match="language model llama-3-70b fits on none of h100-sxm"):
        random_fleet(rng, model="llama-3-70b")


def test_capacity_is_near_the_pooled_reference() -> None:
    # The reference run's pooled server sustains 13.7 and 17.0 requests/s of Mooncake's with prompts cut at 20480.
    sizes = {"prompt_tokens": 8990.0, "cached_tokens": 8990 * 0.388, "output_tokens": 342.6}
    assert capacity_requests_per_s(named_fleet("homogeneous"), **sizes) == pytest.approx(13.7, rel=0.15)
    assert capacity_requests_per_s(named_fleet("heterogeneous"), **sizes) == pytest.approx(17.0, rel=0.15)


def test_capacity_adds_up_and_falls_with_work() -> None:
    sizes = {"prompt_tokens": 2000.0, "cached_tokens": 500.0, "output_tokens": 200.0}
    one, two = fleet({"l40s": 1}), fleet({"l40s": 2})
    alone = capacity_requests_per_s(one, **sizes)
    assert capacity_requests_per_s(two, **sizes) == pytest.approx(2 * alone)
    assert capacity_requests_per_s(one, **{**sizes, "cached_tokens": 0.0}) < alone
    assert capacity_requests_per_s(one, **{**sizes, "output_tokens": 400.0}) < alone
    # A chain is as fast as its slower half: more of the other half changes nothing.
    prompts = fleet({"l4": 1}, role="prefill")
    few, many = fleet({"h100-sxm": 2}, role="decode"), fleet({"h100-sxm": 4}, role="decode")
    slow = capacity_requests_per_s((*prompts, *few), **sizes)
    assert capacity_requests_per_s((*prompts, *many), **sizes) == slow
    # 2048 tokens of prompts of 1500 uncached in an iteration, by hand.
    row = prompts[0].coefficients
    token, weights, overhead, context, pair, head_token, head_weights = row[[0, 1, 4, 5, 6, 7, 8]]
    count = 2048 / 1500
    seconds = np.hypot(token * 2048, weights) + np.hypot(head_token, head_weights)
    seconds += overhead + context * count * 2000 + pair * 2048 * (500 + 750)
    assert slow == pytest.approx(count / seconds)
