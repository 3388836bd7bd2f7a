"""Suites hold the instances they claim, always the same; those on traces use second halves and say what is missing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from schedrl.envs.routing.fleets import TRAINING_DEVICES
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.suites import AZURE, SUITES, UNSEEN_FLEETS, second_half
from schedrl.errors import InstanceError

NEEDS_DATA = pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no traces")
ON_TRACES = ("homogeneous", "heterogeneous", "unseen-fleets", "azure")
MOONCAKE = "routing/mooncake/conversation_trace.jsonl"


def instances(suite: str) -> dict[str, RoutingInstance]:
    loaded = {}
    for entry in SUITES[suite].load():
        assert isinstance(entry.instance, RoutingInstance)
        loaded[entry.instance.name] = entry.instance
    assert len(loaded) == len(SUITES[suite].load())
    return loaded


def test_names_match() -> None:
    assert {name: suite.name for name, suite in SUITES.items()} == {name: name for name in SUITES}
    assert list(SUITES) == [*ON_TRACES, "routing-demo", "workflows", "sessions"]


def test_demo_is_small_and_the_same_each_time() -> None:
    first = instances("routing-demo")
    assert list(first) == ["demo-gamma", "demo-sessions", "demo-long-context", "demo-agentic"]
    from schedrl.envs.routing import suites

    suites._demo.cache_clear()
    assert instances("routing-demo") == first
    for instance in first.values():
        assert (instance.requests, len(instance.fleet)) == (80, 4)
        assert len({serving.device for serving in instance.fleet}) == 4


@pytest.mark.parametrize(("suite", "count"), [("workflows", 8), ("sessions", 8)])
def test_generated_ones_have_requests_that_wait(suite: str, count: int) -> None:
    loaded = instances(suite)
    assert len(loaded) == count
    for instance in loaded.values():
        assert instance.requests == 1000
        assert len(instance.after) > 200
        assert bool(np.isfinite(instance.deadline_s).any()) == (suite == "workflows")


@NEEDS_DATA
@pytest.mark.parametrize(("suite", "rates"), [("homogeneous", (9, 11, 13)), ("heterogeneous", (11, 13, 15))])
def test_windows_of_the_second_half_at_three_rates(suite: str, rates: tuple[int, ...]) -> None:
    loaded = instances(suite)
    assert list(loaded) == [f"{suite}-{k}-at-{rate}" for rate in rates for k in range(6)]
    half = second_half(suite, MOONCAKE)
    assert half.requests == 6016
    for name, instance in loaded.items():
        assert instance.requests == 1000
        assert instance.prompt_tokens.max() == 20480
        assert 999 / instance.arrival_s[-1] == pytest.approx(float(name.rpartition("-")[2]))
        assert {serving.cache_tokens for serving in instance.fleet} == {1_000_000}
    # Line 6016 of the file is the first request of the second half.
    first = loaded[f"{suite}-0-at-{rates[0]}"]
    assert first.prompt_tokens[0] == half.prompt_tokens[0]
    joined = np.concatenate([loaded[f"{suite}-{k}-at-{rates[0]}"].prompt_tokens for k in range(6)])
    assert (joined == half.prompt_tokens[:6000]).all()


@NEEDS_DATA
def test_unseen_fleets_have_two_windows_at_two_loads() -> None:
    loaded = instances("unseen-fleets")
    assert len(UNSEEN_FLEETS) >= 6
    assert len(loaded) == 4 * len(UNSEEN_FLEETS)
    for instance in loaded.values():
        assert instance.requests == max(1000, 60 * len(instance.fleet))
        assert {s.device for s in instance.fleet} - set(TRAINING_DEVICES) or len(instance.fleet) > 16
    sizes = {len(instance.fleet) for instance in loaded.values()}
    assert (min(sizes), max(sizes)) == (3, 64)


@NEEDS_DATA
def test_azure_has_short_requests_and_objectives_for_both_times() -> None:
    loaded = instances("azure")
    assert len(loaded) == 12
    assert second_half("azure", AZURE).requests == 9683
    for instance in loaded.values():
        assert (instance.requests, instance.ttft_slo_s, instance.tpot_slo_s) == (2000, 1.0, 0.1)
        assert len(instance.blocks) == 0


@pytest.mark.parametrize("suite", ON_TRACES)
def test_missing_data_is_one_line(suite: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SCHEDRL_DATA", raising=False)
    with pytest.raises(InstanceError, match=f"suite {suite}: SCHEDRL_DATA is unset, expected the folder that holds"):
        SUITES[suite].load()
    monkeypatch.setenv("SCHEDRL_DATA", str(tmp_path))
    with pytest.raises(InstanceError, match=f"suite {suite}: no file {tmp_path}"):
        SUITES[suite].load()
