"""Generators give valid instances at the load asked for, the same for the same seed; bursts are those of Azure."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedrl.cli.settings import keyword_values, parameters_of
from schedrl.envs.routing.fleets import TRAINING_DEVICES
from schedrl.envs.routing.generators import GENERATORS, fleet_of, gamma, load_of, mixed, poisson, routed
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.trace_readers import read_workload
from schedrl.envs.routing.workload import split_halves, window
from schedrl.errors import ConfigError, InstanceError, UnknownNameError

NEEDS_DATA = pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no trace to draw from")
DATA_FREE = [name for name in GENERATORS if name != "mooncake-first-half"]
ALL = [*DATA_FREE, pytest.param("mooncake-first-half", marks=NEEDS_DATA)]


def drawn(generator: str, seed: int, **options: Any) -> RoutingInstance:
    return GENERATORS[generator](np.random.default_rng(seed), **options)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("fleet", ["random", "varied-3", "disaggregated"])
def test_instances_are_valid_and_reproducible(name: str, fleet: str) -> None:
    for seed in range(3):
        instance = drawn(name, seed, requests=60, fleet=fleet)
        assert instance.requests == 60
        assert instance == drawn(name, seed, requests=60, fleet=fleet)
        assert instance != drawn(name, seed + 100, requests=60, fleet=fleet)
        assert RoutingInstance.from_json(instance.to_json()) == instance


@pytest.mark.parametrize("name", ALL)
def test_options_reach_the_instance(name: str) -> None:
    instance = drawn(
        name,
        1,
        requests=300,
        fleet="homogeneous",
        model="llama-3-8b",
        rate=20.0,
        cache_tokens=9999,
        ttft_slo_s=2.0,
        tpot_slo_s=0.05,
        signal_refresh_s=0.1,
        preference=(1.0, 2.0, 3.0),
        name="mine",
    )
    assert instance.name == "mine"
    assert (instance.ttft_slo_s, instance.tpot_slo_s, instance.signal_refresh_s) == (2.0, 0.05, 0.1)
    assert instance.preference == (1.0, 2.0, 3.0)
    assert {(serving.model, serving.cache_tokens) for serving in instance.fleet} == {("llama-3-8b", 9999)}
    assert 299 / instance.arrival_s[-1] == pytest.approx(20.0, rel=0.35)


@pytest.mark.parametrize("name", ALL)
def test_signatures_suit_the_command_line(name: str) -> None:
    generator = GENERATORS[name]
    assert generator.__name__ == name
    assert generator.__doc__
    parameters = parameters_of(generator)
    assert parameters[0][0] == "requests"
    assert {"fleet", "load", "rate", "name"} <= {parameter[0] for parameter in parameters}
    assert "requests_per_s" not in inspect.signature(generator).parameters
    assert keyword_values(["requests=20", "load=0.7", "model=None"], parameters, name) == {
        "requests": 20,
        "load": 0.7,
        "model": None,
    }


def test_load_is_relative_to_the_fleet() -> None:
    loads = []
    for seed in range(40):
        workload, serving = routed(gamma, np.random.default_rng(seed), sizes={"requests": 400}, fleet="random")
        loads.append(load_of(workload, serving))
        assert {one.device for one in serving} <= set(TRAINING_DEVICES)
    # The estimate is from other draws of the same sizes.
    assert 0.45 < min(loads) < 0.7
    assert 1.0 < max(loads) < 1.3
    for load in (0.3, 0.9):
        workload, serving = routed(poisson, np.random.default_rng(0), sizes={"requests": 4000}, load=load)
        assert load_of(workload, serving) == pytest.approx(load, rel=0.05)


def test_bad_options_get_one_line() -> None:
    rng = np.random.default_rng(0)
    gamma_instance = GENERATORS["gamma"]
    with pytest.raises(ConfigError, match="option load: given beside rate, expected either"):
        gamma_instance(rng, load=0.5, rate=3.0)
    with pytest.raises(ConfigError, match="option rate: 0, expected a positive number"):
        gamma_instance(rng, rate=0)
    with pytest.raises(UnknownNameError, match="unknown option of gamma 'turns'"):
        gamma_instance(rng, turns=3)
    with pytest.raises(UnknownNameError, match="unknown fleet 'random-x'; closest: random"):
        gamma_instance(rng, fleet="random-x")
    with pytest.raises(UnknownNameError, match="unknown fleet 'none'"):
        fleet_of(rng, "none")
    with pytest.raises(ConfigError, match="option sigma: -1, expected 0 to 10"):
        poisson(rng, sigma=-1)


def test_poisson_has_its_rate_and_medians() -> None:
    workload = poisson(np.random.default_rng(0), requests=20_000, requests_per_s=4.0)
    gaps = np.diff(workload.arrival_s)
    assert gaps.mean() == pytest.approx(0.25, rel=0.02)
    assert gaps.std() == pytest.approx(0.25, rel=0.03)
    assert np.median(workload.prompt_tokens) == pytest.approx(1024, rel=0.03)
    assert np.median(workload.output_tokens) == pytest.approx(150, rel=0.03)
    assert workload.prompt_tokens.max() <= 16_384


def swing(arrival_s: np.ndarray[Any, Any], window_s: float) -> float:
    """Return the relative deviation of the rate over windows, without that of counting."""
    counts = np.histogram(arrival_s, np.arange(0, arrival_s[-1], window_s))[0]
    return float(np.sqrt(max(counts.var() - counts.mean(), 0)) / counts.mean())


def test_bursts_are_those_of_azures_first_half() -> None:
    workload = gamma(np.random.default_rng(0), requests=200_000, requests_per_s=5.55)
    assert workload.requests_per_s == pytest.approx(5.55)
    assert swing(workload.arrival_s, 30.0) == pytest.approx(0.19, abs=0.03)
    # Means of the trace's first half.
    assert workload.prompt_tokens.mean() == pytest.approx(1237, rel=0.1)
    assert workload.output_tokens.mean() == pytest.approx(222, rel=0.05)
    gaps = np.diff(gamma(np.random.default_rng(0), requests=20_000, shape=0.25, swing=0.0).arrival_s)
    assert gaps.std() / gaps.mean() == pytest.approx(2.0, rel=0.05)


def test_mixed_draws_every_kind() -> None:
    kinds = set()
    for seed in range(30):
        workload = mixed(np.random.default_rng(seed), requests=40)
        kinds.add((workload.block_tokens, len(workload.blocks) > 0, bool((workload.tool >= 0).any())))
    assert kinds >= {(512, False, False), (512, True, False), (64, True, False), (64, True, True)}


def test_training_on_the_trace_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SCHEDRL_DATA", raising=False)
    with pytest.raises(InstanceError, match="suite mooncake-first-half: SCHEDRL_DATA is unset"):
        drawn("mooncake-first-half", 0)
    monkeypatch.setenv("SCHEDRL_DATA", str(tmp_path))
    with pytest.raises(InstanceError, match="no file"):
        drawn("mooncake-first-half", 0)


@NEEDS_DATA
def test_the_constants_are_those_of_the_first_halves() -> None:
    root = Path(os.environ["SCHEDRL_DATA"], "routing")
    half = split_halves(read_workload(root / "azure" / "AzureLLMInferenceTrace_conv.csv"))[0]
    assert swing(half.arrival_s, 30.0) == pytest.approx(0.19, abs=0.005)
    shapes = []
    for start in np.arange(0.0, half.duration_s - 60, 60.0):
        gaps = np.diff(window(half, start, start + 60).arrival_s)
        shapes.append(gaps.mean() ** 2 / gaps.var())
    assert np.median(shapes) == pytest.approx(0.99, abs=0.01)
    blocks = set(split_halves(read_workload(root / "mooncake" / "conversation_trace.jsonl"))[0].blocks.tolist())
    for seed in range(5):
        assert set(drawn("mooncake-first-half", seed).blocks.tolist()) <= blocks
    with pytest.raises(ConfigError, match="option requests: 6016, expected 1 to 6015"):
        drawn("mooncake-first-half", 0, requests=6016)
