"""Highest rates by request size: against hand-worked iterations, and how they move with objectives and sizes."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.baselines.routing.fleet_profile import (
    Engine,
    Objectives,
    highest_rate,
    profile_device,
    profile_engine,
    request_mix,
    steady_state,
)
from schedrl.devices.language_model import get_language_model
from schedrl.devices.serving import kv_capacity_tokens, serving_row
from schedrl.devices.serving_time import COEFFICIENTS, CONTEXT, OVERHEAD, TOKEN
from schedrl.envs.routing.fleets import fleet
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.solution import objectives
from schedrl.envs.routing.workload import Workload, route
from schedrl.errors import ConfigError, InstanceError, UnknownNameError

NEEDS_DATA = pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no AIBrix tables")
LLAMA = get_language_model("llama-2-7b")


def engine(kv_tokens: int = 10**6, max_sequences: int = 256, **columns: float) -> Engine:
    """An engine whose iterations take ``overhead`` seconds, and more per token and token of context."""
    row = np.zeros(COEFFICIENTS)
    row[OVERHEAD] = columns.get("overhead", 0.01)
    row[TOKEN], row[CONTEXT] = columns.get("token", 0.0), columns.get("context", 0.0)
    return Engine(coefficients=row, kv_tokens=kv_tokens, max_sequences=max_sequences)


def catalogued(device: str) -> Engine:
    return Engine(coefficients=serving_row(device, LLAMA), kv_tokens=kv_capacity_tokens(device, LLAMA))


def test_iterations_of_constant_time() -> None:
    # 101 tokens are 100 iterations of 10 ms after the first: 256 at once are 256 requests/s.
    mean = Objectives(attainment=0.5)
    assert highest_rate(engine(), 10, 101, mean) == pytest.approx(256.0)
    assert highest_rate(engine(max_sequences=64), 10, 101, mean) == pytest.approx(64.0)
    assert highest_rate(engine(), 10, 101, Objectives(tpot_s=0.0099)) == 0.0
    # Prompts of 2048 tokens take an iteration's budget, which decoding shares: 1 / (1 + 0.1) per iteration less a bit.
    assert highest_rate(engine(), 2048, 2, mean) == pytest.approx(100 * (2047 / 2048), rel=1e-3)


def test_a_token_takes_the_mean_of_iterations_with_and_without_a_prompt() -> None:
    # 0.1 requests end per iteration: 10 decode, and every tenth iteration computes a prompt of 500 tokens as well.
    # Iterations take 10 ms + 20 us a token: 10.2 ms, every tenth 20.2 ms.
    state = steady_state(engine(token=2e-5), 500, 101, 0.1)
    assert state.tpot_s == pytest.approx(0.0112)
    assert state.requests_per_s == pytest.approx(0.1 / 0.0112)
    assert state.decoding == pytest.approx(10.0)
    assert state.kv_tokens == pytest.approx(10 * 550.5 + 601)
    # A prompt waits for half an iteration, then takes its own; of the budget of 2038, 50 tokens are used in the mean.
    used = 50 / 2038
    assert state.ttft_s == pytest.approx(0.0056 + 0.0202 * (1 + used / (2 * (1 - used))))


def test_a_long_prompt_takes_several_iterations() -> None:
    # Without decoding 4096 tokens are two chunks of 2048, each 10 ms + 2048 x 20 us.
    state = steady_state(engine(token=2e-5), 4096, 1, 0.0)
    assert state.ttft_s == pytest.approx(2 * (0.01 + 2048 * 2e-5) + 0.005)
    assert steady_state(engine(token=2e-5), 4096, 1, 0.51).ttft_s == math.inf


def waiting(servers: int, load: float) -> float:
    """Erlang's share of arrivals that wait for one of some servers."""
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = load * blocked / (k + load * blocked)
    return blocked / (1.0 - load / servers * (1.0 - blocked))


@pytest.mark.parametrize("attainment", [0.6, 0.9, 0.99])
def test_nine_in_ten_find_a_place_at_once(attainment: float) -> None:
    # Iterations of constant time make places for requests the servers of an M/M/64 queue, each for 100 iterations.
    rate = highest_rate(engine(max_sequences=64), 10, 101, Objectives(attainment=attainment))
    assert waiting(64, rate) == pytest.approx(1.0 - attainment, rel=1e-3)


def test_slower_iterations_hold_more_requests() -> None:
    # 10 ms and 10 us a token of context. Half of the requests may see more than the 40 that an objective of
    # 10 + 40 x 2.505 ms allows; with room for nine in ten the mean is lower.
    slow, tpot_s = engine(context=1e-5), 0.01 + 40 * 250.5e-5
    mean = highest_rate(slow, 200, 101, Objectives(tpot_s=tpot_s, attainment=0.5))
    most = highest_rate(slow, 200, 101, Objectives(tpot_s=tpot_s, attainment=0.9))
    assert mean == pytest.approx(0.4 / tpot_s, rel=0.02)
    assert 0.5 * mean < most < 0.95 * mean


@pytest.mark.parametrize(("prompt", "output", "tpot_s"), [(64, 64, 0.12), (1100, 400, 0.04), (200, 800, 0.12)])
def test_the_rate_is_met_in_simulation_and_a_third_more_is_not(prompt: int, output: int, tpot_s: float) -> None:
    servers = fleet({"a100-sxm-80gb": 1}, "llama-2-7b")
    rate = highest_rate(catalogued("a100-sxm-80gb"), prompt, output, Objectives(tpot_s=tpot_s, ttft_s=5.0))
    met = []
    for factor in (1.0, 1.33):
        count = int(rate * factor * 300)
        requests = Workload(
            arrival_s=np.cumsum(np.random.default_rng(0).exponential(1 / (rate * factor), count)),
            prompt_tokens=np.full(count, prompt, dtype=np.int32),
            output_tokens=np.full(count, output, dtype=np.int32),
        )
        instance = route(requests, servers, "one", tpot_slo_s=tpot_s)
        simulator = Simulator([instance], 1)
        simulator.play_rule("least-outstanding")
        met.append(objectives(instance, simulator.solution(0))["attainment"])
    assert met[0] >= 0.9 > met[1]


def test_memory_bounds_the_batch() -> None:
    # 20 requests of 100 + 100 / 2 tokens, and one whole one.
    assert highest_rate(engine(kv_tokens=20 * 150 + 200), 100, 100, Objectives(attainment=0.5)) == pytest.approx(
        20 / 99 / 0.01, rel=1e-6
    )
    assert highest_rate(engine(kv_tokens=199), 100, 100, Objectives()) == 0.0


@settings(max_examples=40, deadline=None)
@given(
    prompt=st.integers(1, 20000),
    output=st.integers(1, 3000),
    tpot_s=st.floats(0.005, 0.5),
    ttft_s=st.floats(0.05, 20.0),
    attainment=st.floats(0.5, 0.99),
)
def test_rates_meet_the_objectives_and_fall_with_them(
    prompt: int, output: int, tpot_s: float, ttft_s: float, attainment: float
) -> None:
    a100 = catalogued("a100-sxm-80gb")
    slo = Objectives(tpot_s=tpot_s, ttft_s=ttft_s, attainment=attainment)
    rate = highest_rate(a100, prompt, output, slo)
    assert 0.0 <= rate < 2048 / prompt / float(a100.coefficients[OVERHEAD])
    looser = Objectives(tpot_s=2 * tpot_s, ttft_s=2 * ttft_s, attainment=0.5)
    assert rate <= highest_rate(a100, prompt, output, looser) * (1 + 1e-6) + 1e-9


def test_larger_devices_serve_more_and_short_requests_favour_small_ones() -> None:
    slo = Objectives(tpot_s=0.12)
    price = {"a10g": 1.01, "a100-sxm-80gb": 3.67}
    per_usd = {
        name: [highest_rate(catalogued(name), *size, slo) / usd for size in ((25, 25), (2000, 500))]
        for name, usd in price.items()
    }
    # What Mélange observes: the A10G gives more requests per dollar where they are small, the A100 where large.
    assert per_usd["a10g"][0] / per_usd["a100-sxm-80gb"][0] > 2 * per_usd["a10g"][1] / per_usd["a100-sxm-80gb"][1]
    assert per_usd["a10g"][1] < per_usd["a100-sxm-80gb"][1]


@NEEDS_DATA
def test_rates_of_an_a40_are_near_those_that_aibrix_simulated() -> None:
    from schedrl.baselines.routing.fleet_selection import read_gpu_types

    path = Path(os.environ["SCHEDRL_DATA"]) / "routing" / "aibrix" / "simulator-llama2-7b-a40.json"
    (theirs,) = read_gpu_types([path])
    a40 = catalogued("a40")
    ours = np.array(
        [
            [highest_rate(a40, prompt, output, Objectives(attainment=0.5)) for prompt in (128, 256, 512, 1024, 2048)]
            for output in (4, 8, 16, 32, 64, 128, 256, 512)
        ]
    )
    ratio = ours / theirs.requests_per_s  # their search stops some way below the limit
    assert np.median(ratio) == pytest.approx(1.21, abs=0.1)
    assert ((ratio > 0.75) & (ratio < 1.7)).all()


def test_the_mix_of_a_workload() -> None:
    arrival = np.array([0.0, 1.0, 2.0, 4.0])
    prompt, output = np.array([10, 30, 32, 100], dtype=np.int32), np.array([5, 7, 33, 1], dtype=np.int32)
    mix = request_mix(arrival, prompt, output, edges=(32, 64))
    assert mix.rates.tolist() == [[0.375, 0.1875, 0.0], [0.0, 0.0, 0.0], [0.1875, 0.0, 0.0]]
    assert mix.rates.sum() == pytest.approx(3 / 4)  # three gaps in four seconds
    assert (mix.prompt_tokens[0, 0], mix.output_tokens[0, 0]) == (20.0, 6.0)
    table = profile_engine(engine(), mix, Objectives())
    assert (table > 0).tolist() == (mix.rates > 0).tolist()


def test_a_device_has_its_price_unless_another_is_given() -> None:
    arrival, ones = np.array([0.0, 1.0]), np.array([16, 16], dtype=np.int32)
    mix = request_mix(arrival, ones, ones)
    listed = profile_device("a10g", LLAMA, mix, Objectives(tpot_s=0.12))
    assert (listed.name, listed.price_usd_per_h) == ("a10g", 1.01)
    assert profile_device("a10g", LLAMA, mix, Objectives(), price_usd_per_h=0.5).price_usd_per_h == 0.5
    with pytest.raises(ConfigError, match=r"device h20: field price_usd_per_h: not known"):
        profile_device("h20", LLAMA, mix, Objectives())
    with pytest.raises(UnknownNameError, match="unknown device 'a1000'"):
        profile_device("a1000", LLAMA, mix, Objectives())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ttft_s": 0.0}, r"field ttft_s: 0\.0"),
        ({"tpot_s": math.nan}, r"field tpot_s: nan"),
        ({"attainment": 1.0}, r"field attainment: 1\.0, expected 0\.5 to less than 1"),
    ],
)
def test_objectives_outside_their_range_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Objectives(**fields)


def test_workloads_without_a_rate_are_refused() -> None:
    one = np.ones(1, dtype=np.int32)
    with pytest.raises(InstanceError, match="all requests arrive at once"):
        request_mix(np.zeros(1), one, one)
    with pytest.raises(InstanceError, match="no requests"):
        request_mix(np.zeros(0), one[:0], one[:0])
    with pytest.raises(ConfigError, match="expected rising integers"):
        request_mix(np.arange(2.0), np.ones(2, dtype=np.int32), np.ones(2, dtype=np.int32), edges=(4, 4))
