"""What policies see: ratios in range, nothing of the future, the fleet as a graph, and features worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.observation import EDGE_TYPES, FEATURES, static_graph
from schedrl.envs.routing.simulator import Simulator
from schedrl.graphs import DecisionBatch
from tests.envs.routing.small_fleets import SEEDS, random_instance, row_of, server_of, workload_of


@given(SEEDS, st.booleans())
def test_all_features_are_ratios(seed: int, holds: bool) -> None:
    instance, rng = random_instance(seed), np.random.default_rng(seed)
    simulator = Simulator([instance], 1, hold_s=0.0213 * holds)
    now = DecisionBatch.allocate(1, simulator.slots + 1, FEATURES)
    while not simulator.finished(0):
        simulator.observe(now)
        count = int(now.count[0])
        assert 1 <= count <= simulator.slots
        for values in (now.candidate_features, now.context):
            assert np.isfinite(values).all() and values.min() >= 0.0 and values.max() <= 1.0
        assert not now.candidate_features[0, count:].any()
        nodes = now.candidates[0, :count, 0].tolist()
        assert len(set(nodes)) == count and max(nodes) <= len(instance.fleet)
        assert (nodes[-1] == len(instance.fleet)) == bool(now.candidate_features[0, count - 1, 0])
        simulator.send(int(rng.integers(count)))
    simulator.observe(now)
    assert now.count[0] == 0 and not now.context.any()


@settings(max_examples=50)
@given(SEEDS)
def test_what_is_seen_does_not_depend_on_later_requests(seed: int) -> None:
    """Neither the length of answers nor what arrives later shows, as long as no answer of another length has ended."""
    rng = np.random.default_rng(seed)
    base = random_instance(seed)
    plain = dataclasses.replace(
        base, after_start=[], after=[], pause_s=[], program=[], deadline_s=[], block_start=[], blocks=[]
    )
    known = int(rng.integers(1, plain.requests + 1))
    prompt, output = np.array(plain.prompt_tokens), np.array(plain.output_tokens)
    prompt[known:], output[known:] = 1, 1
    pair = [
        Simulator([one], 1) for one in (plain, dataclasses.replace(plain, prompt_tokens=prompt, output_tokens=output))
    ]
    views = [DecisionBatch.allocate(1, 6, FEATURES) for _ in pair]
    while not any(simulator.finished(0) or simulator.state.current[0] >= known for simulator in pair):
        for simulator, view in zip(pair, views, strict=True):
            simulator.observe(view)
        for field in ("candidates", "candidate_features", "context", "count"):
            np.testing.assert_array_equal(getattr(views[0], field), getattr(views[1], field))
        slot = int(rng.integers(views[0].count[0]))
        for simulator in pair:
            simulator.send(slot)


def observed(instance: RoutingInstance, sends: list[int]) -> tuple[list[dict[str, float]], dict[str, float]]:
    simulator = Simulator([instance], 1)
    for slot in sends:
        simulator.send(slot)
    now = DecisionBatch.allocate(1, simulator.slots, FEATURES)
    simulator.observe(now)
    names = [feature.name for feature in FEATURES.candidate]
    rows = [dict(zip(names, row.tolist(), strict=True)) for row in now.candidate_features[0, : now.count[0]]]
    return rows, dict(zip([feature.name for feature in FEATURES.context], now.context[0].tolist(), strict=True))


def test_features_of_a_worked_example() -> None:
    # Iterations of 1 s and 2 s. Instance 0 computed a prompt of 40 with the blocks at hand and decodes its answer.
    fleet = [server_of("a"), server_of("b", coefficients=row_of(overhead=2.0), kv_tokens=500)]
    instance = workload_of([(0.0, 40, 9), (1.5, 40, 4)], fleet, [[0, 1], [0, 1]], ttft_slo_s=3.0, tpot_slo_s=1.0)
    (first, second), context = observed(instance, [0])
    shared = dict.fromkeys([feature.name for feature in FEATURES.candidate], 0.0)
    assert first == pytest.approx(
        shared
        | {
            "forecast TTFT": 1 / 4,
            "keeps TTFT": 1.0,
            "prefill": 1 / 4,
            "hit": 32 / 40,
            "best hit": 1.0,
            "outstanding": 1 / 17,
            "outstanding share": 1 / 1.5,
            "running": 1 / 8,
            "memory used": 40 / 1000,
            "memory need": 40 / (40 + 960),
            "token time": 1 / 2,
            "prefill speed": 1.0,
            "decode speed": 1.0,
            "work share": 1.0,
        },
        abs=1e-6,
    )
    assert second == pytest.approx(
        shared
        | {
            "forecast TTFT": 2 / 5,
            "keeps TTFT": 1.0,
            "excess TTFT": 1 / 2,
            "excess prefill": 1 / 2,
            "TTFT rank": 1 / 2,
            "prefill": 2 / 5,
            "memory need": 40 / 540,
            "token time": 2 / 3,
            "prefill speed": 1 / 2,
            "decode speed": 1 / 2,
            "work share": 1 / 2,
        },
        abs=1e-6,
    )
    assert context == pytest.approx(
        dict.fromkeys(context, 0.0)
        | {
            "prompt": 40 / 4136,
            "short prompt": 40 / 552,
            "best hit": 32 / 40,
            "candidates": 2 / 10,
            "best TTFT": 1 / 4,
            "load": 0.5 / 16.5,
            "memory used": 0.02,
            "can keep TTFT": 1.0,
            "program slack": 1.0,
            "token objective": 1.0,
        },
        abs=1e-6,
    )


def test_programs_with_a_deadline_show_what_is_left() -> None:
    instance = workload_of([(0.0, 40, 9), (1.0, 40, 4)], program=[0, 0], deadline_s=[4.0])
    _, context = observed(instance, [0])
    assert (context["program left"], context["program slack"]) == pytest.approx((2 / 6, 3 / 4))


def test_the_fleet_is_a_star_around_the_router() -> None:
    fleet = [
        server_of("a", role="prefill", price_usd_per_h=3.0, coefficients=row_of(overhead=2.0)),
        server_of("b", role="decode", price_usd_per_h=1.0, kv_tokens=500),
    ]
    graph = static_graph(workload_of([(0.0, 5, 2)], fleet))
    names = [feature.name for feature in FEATURES.node]
    rows = [dict(zip(names, row.tolist(), strict=True)) for row in graph.node_features]
    size = 2 / 18
    expected = [
        {"instance": 1.0, "prefill speed": 0.5, "decode speed": 0.5, "memory": 1.0, "price": 0.6, "prefill only": 1.0},
        {"instance": 1.0, "prefill speed": 1.0, "decode speed": 1.0, "memory": 0.5, "price": 1 / 3, "decode only": 1.0},
        {},
    ]
    for row, values in zip(rows, expected, strict=True):
        assert row == pytest.approx(dict.fromkeys(names, 0.0) | values | {"fleet size": size}, abs=1e-6)
    assert graph.edge_index.tolist() == [[0, 1, 2, 2], [2, 2, 0, 1]]
    assert [EDGE_TYPES[k] for k in graph.edge_type] == ["serves", "serves", "served by", "served by"]


@given(SEEDS)
def test_node_features_are_ratios(seed: int) -> None:
    features = static_graph(random_instance(seed)).node_features
    assert np.isfinite(features).all() and features.min() >= 0.0 and features.max() <= 1.0
