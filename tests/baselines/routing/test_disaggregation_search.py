"""Divisions into prefill and decode: the queue against closed forms and a simulation, and DistServe's own example."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedrl.arrays import F64
from schedrl.baselines.routing.disaggregation_search import (
    Division,
    FittedTimes,
    RooflineTimes,
    divisions,
    goodput_scorer,
    prefill_attainment,
    read_fitted_times,
    search_divisions,
)
from schedrl.baselines.routing.fleet_profile import Objectives
from schedrl.devices.language_model import get_language_model
from schedrl.devices.serving import kv_capacity_tokens, serving_row
from schedrl.errors import ConfigError, InstanceError

NEEDS_DATA = pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no DistServe fits")
# Milliseconds on one A100, of profiler-a100-80g.distserve.json (LLMServe/DistServe at 82831f1), rounded.
OPT_13B = FittedTimes(
    prefill={1: (18.1025, 0.101912, 7.12226e-06), 2: (14.743, 0.0685772, 2.44957e-06)},
    decode_small={1: (19.9347, 0.000626936, 0.038507), 2: (13.2948, 0.000341092, 0.0629640)},
    decode_large={1: (7.16619, 0.000579800, 0.158311), 2: (10.6387, 0.000311834, 0.0856291)},
    threshold={1: 95, 2: 95},
)


def division(prefills: int, prefill_degree: int, decodes: int, decode_degree: int) -> Division:
    return Division(
        prefill_instances=prefills,
        prefill_tensor_parallel=prefill_degree,
        decode_instances=decodes,
        decode_tensor_parallel=decode_degree,
    )


def test_divisions_of_four_gpus() -> None:
    found = divisions(4, (1, 2), (1, 2))
    assert len(set(found)) == len(found)
    assert all(1 <= item.gpus <= 4 for item in found)
    # Groups of (1, 1): 6 with at most four GPUs; (1, 2): 2 + 0 + 1 - 1 = 2; (2, 1): 2; (2, 2): 1.
    sizes = [(item.prefill_tensor_parallel, item.decode_tensor_parallel) for item in found]
    assert {size: sizes.count(size) for size in sizes} == {(1, 1): 6, (1, 2): 2, (2, 1): 2, (2, 2): 1}
    with pytest.raises(ConfigError, match="tensor_parallel: 0"):
        divisions(4, (0,), (1,))


def test_times_of_fits() -> None:
    assert OPT_13B.prefill_s(1, np.array([1000.0])) == pytest.approx([0.1271368], rel=1e-4)
    assert OPT_13B.decode_s(1, 94, 9400) == pytest.approx(1e-3 * (19.9347 + 5.893 + 3.620), rel=1e-3)
    assert OPT_13B.decode_s(1, 95, 9400) == pytest.approx(1e-3 * (7.1662 + 5.450 + 15.040), rel=1e-3)


def simulated_attainment(service_s: F64, rate: float, ttft_s: float, requests: int) -> float:
    """Share of requests in time at one queue in order of arrival, by Lindley's recursion."""
    rng = np.random.default_rng(0)
    gaps, times = rng.exponential(1 / rate, requests), rng.choice(service_s, requests)
    wait, met = 0.0, 0
    for gap, time in zip(gaps, times, strict=True):
        wait = max(0.0, wait - gap)
        met += wait + time <= ttft_s
        wait += time
    return met / requests


@pytest.mark.parametrize("rate", [2.0, 5.0, 8.0])
@pytest.mark.parametrize("spread", [0.0, 0.6])
def test_the_queue_of_prompts_is_close_to_a_simulated_one(rate: float, spread: float) -> None:
    service = 0.1 * np.random.default_rng(1).lognormal(-(spread**2) / 2, spread, 5000)
    for ttft_s in (0.15, 0.3, 0.6):
        predicted = prefill_attainment(service, rate, ttft_s)
        assert predicted == pytest.approx(simulated_attainment(service, rate, ttft_s, 60_000), abs=0.07)


def test_the_queue_at_its_ends() -> None:
    service = np.array([0.1])
    assert prefill_attainment(service, 10.0, 5.0) == 0.0
    assert prefill_attainment(service, 1e-9, 0.1) == pytest.approx(1.0)
    assert prefill_attainment(service, 1e-9, 0.0999) == 0.0


def test_the_scorer_is_the_slower_phase() -> None:
    prompts, outputs = np.full(50, 500, dtype=np.int32), np.full(50, 101, dtype=np.int32)
    score = goodput_scorer(OPT_13B, prompts, outputs, Objectives(ttft_s=math.inf, tpot_s=0.1), max_sequences=32)
    # Prefill: one prompt takes 70.839 ms. Decoding: 25 in the mean are 31.4 at the quantile 0.9, below 32.
    prefill = 1e3 / (18.1025 + 500 * 0.101912 + 500**2 * 7.12226e-06)
    decode = 25 / (100 * 1e-3 * (19.9347 + 25 * 550 * 0.000626936 + 25 * 0.038507))
    assert score(division(1, 1, 2, 1)) == pytest.approx(min(prefill, 2 * decode), rel=1e-3)
    assert score(division(1, 1, 1, 1)) == pytest.approx(decode, rel=1e-3)
    assert score(division(3, 1, 1, 1)) == score(division(1, 1, 1, 1))
    single = goodput_scorer(OPT_13B, prompts, np.ones(50, dtype=np.int32), Objectives())
    assert single(division(2, 1, 1, 1)) == pytest.approx(2 * prefill, rel=1e-3)


def test_best_first_and_with_fewer_gpus_among_equals() -> None:
    goodput = {division(1, 1, 1, 1): 2.0, division(1, 1, 2, 1): 3.9, division(2, 1, 2, 1): 3.9}
    assert [item.division for item in search_divisions(list(goodput), goodput.__getitem__)] == [
        division(1, 1, 2, 1),
        division(2, 1, 2, 1),
        division(1, 1, 1, 1),
    ]
    best = search_divisions(list(goodput), goodput.__getitem__, per_gpu=True)[0]
    assert (best.division, best.goodput_per_gpu) == (division(1, 1, 2, 1), pytest.approx(1.3))
    with pytest.raises(InstanceError, match="none of 3 divisions into prefill and decode meets the objectives"):
        search_divisions(list(goodput), lambda _: 0.0)


def sharegpt_like(rng: np.random.Generator, count: int) -> tuple[Any, Any]:
    """Lengths with the means of the paper's ShareGPT, 755.5 and 200.3 tokens, in OPT's context of 2048 tokens."""
    prompts = np.clip(rng.lognormal(6.54, 0.9, count), 4, 1848)
    return prompts * (755.5 / prompts.mean()), np.clip(rng.exponential(200.3, count), 2, 2000)


@NEEDS_DATA
def test_distserves_example_of_opt_13b_on_a100s() -> None:
    path = Path(os.environ["SCHEDRL_DATA"]) / "routing" / "distserve" / "profiler-a100-80g.distserve.json"
    times = read_fitted_times(path, "facebook/opt-13b")
    assert times.prefill_s(1, np.array([1000.0])) == pytest.approx(OPT_13B.prefill_s(1, np.array([1000.0])), rel=1e-4)
    prompts, outputs = sharegpt_like(np.random.default_rng(0), 20_000)
    room = {1: 66_144, 2: 163_008, 4: 356_736}  # max_num_tokens.csv there
    score = goodput_scorer(
        times, prompts, outputs, Objectives(ttft_s=0.2, tpot_s=0.1, attainment=0.9), kv_tokens=room.__getitem__
    )
    units = [
        item for item in divisions(4, (1, 2, 4), (1, 2, 4)) if item.prefill_instances == item.decode_instances == 1
    ]
    best = search_divisions(units, score, per_gpu=True)[0]
    # simdistserve/README.md: "Best per GPU rate: 1.56", "tp_prefill=2, tp_decode=1"; their bisection of [0, 5] ends
    # between 1.56 and 1.72, the next rate that it tried.
    assert (best.division.prefill_tensor_parallel, best.division.decode_tensor_parallel) == (2, 1)
    assert 1.56 <= best.goodput_per_gpu <= 1.56 * 1.15


def test_catalogued_devices_have_times_as_well() -> None:
    model = get_language_model("llama-3-8b")
    times = RooflineTimes(rows={size: serving_row("h100-sxm", model, tensor_parallel=size) for size in (1, 2)})
    prompts, outputs = np.array([500, 4000, 500], dtype=np.int32), np.array([300, 200, 100], dtype=np.int32)
    seconds = times.prefill_s(1, prompts.astype(np.float64))
    assert seconds[0] == seconds[2] < seconds[1]
    score = goodput_scorer(
        times,
        prompts,
        outputs,
        Objectives(ttft_s=0.5, tpot_s=0.03),
        kv_tokens=lambda size: kv_capacity_tokens("h100-sxm", model, tensor_parallel=size),
    )
    ranked = search_divisions(divisions(8, (1, 2), (1, 2)), score)
    best = ranked[0]
    assert best.division.gpus <= 8
    assert best.goodput > 2 * max(item.goodput for item in ranked if item.division.gpus <= 3)
    assert [item.goodput for item in ranked] == sorted((item.goodput for item in ranked), reverse=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"fits\.json: not valid JSON"),
        ("{}", r"field m: missing, expected fits"),
        (json.dumps({"m": {"1": {"prefill": [1, 2]}}}), r"field m\.1\.prefill: \[1, 2\], expected three numbers"),
        (json.dumps({"m": {"x": {}}}), r"field m\.x: expected a size of a group"),
        (
            json.dumps({"m": {"1": {k: [1, 2, 3] for k in ("prefill", "decoding_smallbs", "decoding_largebs")}}}),
            r"decoding_large_small_bs_threshold: None, expected an integer",
        ),
    ],
)
def test_broken_fits_are_named(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "fits.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_fitted_times(path, "m")


def test_no_requests_are_refused() -> None:
    none = np.zeros(0, dtype=np.int32)
    with pytest.raises(InstanceError, match="no requests"):
        goodput_scorer(OPT_13B, none, none, Objectives())
