"""Agentic workflows: structure, hand-worked roofline times, deadlines and preferences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schedrl.devices import get_device
from schedrl.envs.socdag.workflows import LARGE, SMALL, agentic, tiers
from schedrl.errors import ConfigError

NAMES = [device.name for device in tiers().devices]


def test_tiers() -> None:
    assert dict(zip(NAMES, tiers().counts, strict=True)) == {"h100-sxm": 1, "a100-sxm-80gb": 1, "l4": 2, "cpu-32": 2}
    assert [device.price_usd_per_h for device in tiers().devices] == [7.5, 3.67, 0.7, 1.5]
    assert all(device.power_states[0].power_w > 0 for device in tiers().devices)


def test_models_fit_where_their_weights_do() -> None:
    assert [SMALL.fits(device) for device in tiers().devices] == [True, True, True, True]
    assert [LARGE.fits(device) for device in tiers().devices] == [True, True, False, True]


def test_decoding_is_bound_by_bandwidth_and_prefill_by_arithmetic() -> None:
    a100 = get_device("a100-sxm-80gb")
    # 16.06 GB of weights at 0.817 of 2.039 TB/s take 9.641 ms, 32 layers of 26.6 us overhead 0.851 ms; 100 tokens.
    assert SMALL.decode_s(a100, 0, 100) == pytest.approx(100 * (9.641e-3 + 0.851e-3), rel=3e-3)
    # 4096 tokens at 2 * 8.03e9 operations each and 0.731 of 312 Tflop/s take 288.4 ms.
    assert SMALL.prefill_s(a100, 4096) == pytest.approx(0.2884 + 0.851e-3, rel=3e-3)
    longer = SMALL.decode_s(a100, 100_000, 100) - SMALL.decode_s(a100, 0, 100)
    assert longer == pytest.approx(100 * 100_000 * 131072 / (0.817 * 2.039e12), rel=1e-2)


@pytest.mark.parametrize(("agents", "rounds"), [(1, 1), (3, 2), (4, 1)])
def test_size_and_single_entry_and_exit(agents: int, rounds: int) -> None:
    instance = agentic(np.random.default_rng(0), jobs=2, agents=agents, rounds=rounds)
    for graph in instance.graphs:
        assert graph.tasks == 2 + rounds * (6 * agents + 2)
        assert np.setdiff1d(np.arange(graph.tasks), graph.edge[:, 1]).tolist() == [0]
        assert np.setdiff1d(np.arange(graph.tasks), graph.edge[:, 0]).tolist() == [graph.tasks - 1]


def test_edges_of_one_agent_and_what_they_carry() -> None:
    graph = agentic(np.random.default_rng(0), jobs=1, agents=1, rounds=1).graphs[0]
    edges = {
        (graph.task_names[source], graph.task_names[target]): size
        for (source, target), size in zip(graph.edge.tolist(), graph.edge_bytes.tolist(), strict=True)
    }
    agent = "round0/agent0"
    assert set(edges) == {
        ("plan/prefill", "plan/decode"),
        ("plan/decode", f"{agent}/lookup"),
        (f"{agent}/lookup", f"{agent}/think/prefill"),
        (f"{agent}/think/prefill", f"{agent}/think/decode"),
        (f"{agent}/think/decode", f"{agent}/tool"),
        (f"{agent}/think/decode", f"{agent}/answer/prefill"),
        (f"{agent}/tool", f"{agent}/answer/prefill"),
        (f"{agent}/answer/prefill", f"{agent}/answer/decode"),
        (f"{agent}/answer/decode", "round0/synthesis/prefill"),
        ("round0/synthesis/prefill", "round0/synthesis/decode"),
    }
    prompt = edges[f"{agent}/lookup", f"{agent}/think/prefill"] / 4
    assert edges[f"{agent}/think/prefill", f"{agent}/think/decode"] == prompt * SMALL.kv_bytes
    thought = edges[f"{agent}/think/decode", f"{agent}/tool"] / 4
    assert edges[f"{agent}/think/decode", f"{agent}/answer/prefill"] == (prompt + thought) * SMALL.kv_bytes
    result = edges[f"{agent}/tool", f"{agent}/answer/prefill"] / 4
    assert edges[f"{agent}/answer/prefill", f"{agent}/answer/decode"] == (prompt + thought + result) * SMALL.kv_bytes


def test_tools_run_on_cpus_only_and_the_large_model_where_it_fits() -> None:
    graph = agentic(np.random.default_rng(0), jobs=1).graphs[0]
    for name, supported in zip(graph.task_names, graph.supported.tolist(), strict=True):
        if name.endswith("tool"):
            assert supported == [False, False, False, True]
        elif name.startswith("plan") or "synthesis" in name:
            assert supported == [True, True, False, True]
        else:
            assert all(supported)


def test_deadline_is_three_times_the_longest_path() -> None:
    instance = agentic(np.random.default_rng(3), jobs=3, agents=1, rounds=1)
    assert instance.deadline is not None
    for graph, deadline in zip(instance.graphs, instance.deadline.tolist(), strict=True):
        # One agent: only the tool runs beside another edge, so the longest path visits every task.
        assert deadline == pytest.approx(3 * graph.duration.min(axis=1).sum())


def test_arrivals_are_poisson() -> None:
    instance = agentic(np.random.default_rng(0), jobs=400, agents=1, rounds=1, scale=30.0)
    assert instance.release_time[0] == 0.0 and instance.admission_cap == 0
    assert np.diff(instance.release_time).mean() == pytest.approx(30.0, rel=0.15)


def test_preference() -> None:
    plain = agentic(np.random.default_rng(0), jobs=1)
    drawn = agentic(np.random.default_rng(0), jobs=1, preference="random")
    assert plain.preference is not None and plain.preference.tolist() == [1.0, 0.0, 0.0]
    assert (
        drawn.preference is not None and drawn.preference.sum() == pytest.approx(1.0) and (drawn.preference > 0).all()
    )
    assert plain.graphs == drawn.graphs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 0}, "option jobs: 0, expected at least 1"),
        ({"agents": 0}, "option agents: 0, expected at least 1"),
        ({"rounds": 0}, "option rounds: 0, expected at least 1"),
        ({"scale": -1.0}, "option scale: -1.0, expected a positive number of seconds"),
        ({"noise_sigma": -1.0}, "option noise_sigma: -1.0, expected 0 or more"),
        ({"preference": "cost"}, "option preference: 'cost', expected latency or random"),
    ],
)
def test_refuses_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        agentic(np.random.default_rng(0), **options)
