from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.devices import Cluster, uniform_cluster
from schedrl.envs.moe.deepep import low_latency_timing
from schedrl.envs.moe.instance import MAX_COUNT, ExpertPlacementInstance
from schedrl.envs.moe.model import MoEModel
from schedrl.envs.moe.timing import LayerTiming
from schedrl.errors import InstanceError

MODEL = MoEModel(name="m", layers=2, experts=4, top_k=2, hidden=64, intermediate=32)
PATH = LayerTiming(residence="path")


def instance(**change: Any) -> ExpertPlacementInstance:
    """Return two layers of four experts in three windows, on two devices of three slots, with some fields changed."""
    fields: dict[str, Any] = {
        "name": "i",
        "model": MODEL,
        "cluster": uniform_cluster("h100-sxm", nodes=2, per_node=1),
        "slots": [3, 3],
        "counts": np.arange(24).reshape(3, 2, 4),
        "planned": 1,
    }
    return ExpertPlacementInstance(**fields | change)


def test_sizes_and_windows() -> None:
    made = instance(slots=[2, 4])
    assert (made.layers, made.experts, made.devices, made.total_slots) == (2, 4, 2, 6)
    assert made.slot_device.tolist() == [0, 0, 1, 1, 1, 1]
    assert (len(made.history), len(made.scored), made.plans) == (1, 2, 2)
    assert made.scored[0, 0, 0] == 8
    assert made.size_label == "2x4 on 2"


def test_in_sample_all_windows_are_known_and_scored() -> None:
    made = instance(planned=3)
    assert (len(made.history), len(made.scored), made.plans) == (3, 3, 1)


def test_later_windows_are_hidden_from_planners() -> None:
    made = instance()
    for plan in (0, 1):
        known = made.known(plan)
        assert (len(known.counts), known.planned) == (1 + plan, 1 + plan)
        assert np.array_equal(known.counts, made.counts[: 1 + plan])


def test_arrays_are_frozen_copies() -> None:
    counts = np.ones((1, 2, 4), dtype=np.int64)
    made = instance(counts=counts, initial=np.array([[0, 1, 2, 3, 0, 1]] * 2))
    counts[0, 0, 0] = 7
    assert made.counts[0, 0, 0] == 1
    assert made.initial is not None
    for array in (made.counts, made.slots, made.initial):
        with pytest.raises(ValueError, match="read-only"):
            array.flat[0] = 5


@given(st.integers(0, 2**32 - 1))
def test_json_reads_back_equal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    transitions = rng.dirichlet(np.ones(4), (1, 4)) if rng.random() < 0.5 else None
    made = instance(
        counts=rng.integers(0, 9, (int(rng.integers(1, 4)), 2, 4)),
        iterations=int(rng.integers(1, 5)),
        timing=low_latency_timing(),
        transitions=transitions,
        initial=np.array([[0, 1, 2, 3, 0, 1]] * 2) if rng.random() < 0.5 else None,
    )
    again = ExpertPlacementInstance.from_json(made.to_json())
    assert again == made
    assert hash(again) == hash(made)


def test_unlike_instances_differ() -> None:
    made = instance()
    for change in ({"slots": [2, 4]}, {"iterations": 2}, {"initial": [[0, 1, 2, 3, 0, 1]] * 2}, {"timing": PATH}):
        changed = change | ({"transitions": np.full((1, 4, 4), 0.25)} if "timing" in change else {})
        assert instance(**changed) != made
    assert made != "i"


SHARES = np.full((1, 4, 4), 0.25)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"counts": np.ones((2, 4), dtype=int)},
            r"field counts: shape \(2, 4\), expected \(windows, layers, experts\)",
        ),
        ({"counts": np.ones((0, 2, 4), dtype=int)}, r"field counts: shape \(0, 2, 4\), expected"),
        ({"counts": [[[1, 2, 3, 4], [1]]]}, "field counts: rows of unequal length, expected a full array"),
        ({"counts": [[[1, 2, 3, float("nan")]]]}, "field counts: a value is NaN or infinite, expected integers"),
        ({"counts": [[[1, 2, 3, float("inf")]]]}, "field counts: a value is NaN or infinite"),
        ({"counts": [[[1, 2, 3, 0.5]]]}, "field counts: a value is no integer"),
        ({"counts": [[["1", "2", "3", "4"]]]}, "field counts: expected integers, got <U1"),
        ({"counts": [[[1, 2, 3, MAX_COUNT + 1]]]}, f"field counts: a value beyond {MAX_COUNT}"),
        (
            {"counts": [[[1, 2, 3, 4], [1, 2, -3, 4]]]},
            "field counts: window 0 layer 1 expert 2 has -3, expected at least 0",
        ),
        ({"counts": np.ones((1, 2, 3), dtype=int)}, "field counts: 3 experts, model m has 4"),
        ({"planned": 0}, "field planned: 0, expected an integer from 1 to 3"),
        ({"planned": 4}, "field planned: 4, expected an integer from 1 to 3"),
        ({"planned": 1.0}, "field planned: 1.0, expected an integer"),
        ({"iterations": 0}, "field iterations: 0, expected an integer from 1 to"),
        ({"iterations": True}, "field iterations: True, expected an integer"),
        ({"slots": [6]}, r"field slots: shape \(1,\) for 2 devices"),
        ({"slots": [[3, 3]]}, r"field slots: shape \(1, 2\) for 2 devices"),
        ({"slots": [6, 0]}, "field slots: device 1 has none, expected at least 1"),
        ({"slots": [1, 2]}, "field slots: 3 slots per layer are fewer than 4 experts"),
        ({"timing": PATH}, "field transitions: missing, expected them as tokens stay on their path"),
        ({"transitions": SHARES[:, :3]}, r"field transitions: shape \(1, 3, 4\), expected \(1, 4, 4\)"),
        ({"transitions": SHARES - 0.5}, "field transitions: a share is negative or not finite"),
        ({"transitions": SHARES * np.nan}, "field transitions: a share is negative or not finite"),
        ({"transitions": SHARES * 2}, "field transitions: shares of an expert's tokens do not sum to 1"),
        ({"initial": [[0, 1, 2, 3]] * 2}, r"field initial: shape \(2, 4\), expected \(2, 6\)"),
        ({"initial": [[0, 1, 2, 4, 0, 0]] * 2}, "field initial: an expert outside 0 to 3"),
        ({"initial": [[0, 1, 2, 3, 0, 0], [0, 1, 3, 3, 0, 0]]}, "field initial: layer 1 lacks expert 2"),
        ({"initial": [[0, 1, 2, 3, 0, 0.5]] * 2}, "field initial: a value is no integer"),
    ],
)
def test_bad_fields_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InstanceError, match=f"^i: {message}"):
        instance(**change)


def test_experts_must_fit_into_memory() -> None:
    cluster = uniform_cluster("h100-sxm", nodes=2, per_node=1)
    node = replace(cluster.nodes[0], device=replace(cluster.nodes[0].device, memory_bytes=2**32))
    model = replace(MODEL, hidden=2**14, intermediate=2**14)  # 0.75 GiB an expert
    with pytest.raises(InstanceError, match=r"^i: field slots: device 1 needs 4\.5 GiB for its experts, it has"):
        instance(model=model, cluster=Cluster(nodes=(cluster.nodes[0], node)))


@pytest.mark.parametrize(
    ("bytes_per_weight", "figures", "message"),
    [
        (2.0, {"memory_bandwidth_bytes_per_s": None}, "field memory_bandwidth_bytes_per_s: missing"),
        (2.0, {"flops_per_s": {}}, "field flops_per_s: none of bf16, fp16"),
        (2.0, {"flops_per_s": {"fp8": 1e15, "fp32": 1e14}}, "field flops_per_s: none of bf16, fp16"),
        (1.0, {"flops_per_s": {"fp32": 1e14}}, "field flops_per_s: none of fp8, int8, bf16, fp16"),
    ],
)
def test_devices_must_have_the_figures_of_the_time_model(
    bytes_per_weight: float, figures: dict[str, Any], message: str
) -> None:
    cluster, model = uniform_cluster("h100-sxm", nodes=2, per_node=1), replace(MODEL, bytes_per_weight=bytes_per_weight)
    node = replace(cluster.nodes[0], device=replace(cluster.nodes[0].device, **figures))
    with pytest.raises(InstanceError, match=rf"^i: field cluster: device 1 \(.+\): {message}$"):
        instance(model=model, cluster=Cluster(nodes=(cluster.nodes[0], node)))


@pytest.mark.parametrize(
    ("bytes_per_weight", "precision"), [(2.0, "bf16"), (2.0, "fp16"), (1.0, "int8"), (0.5, "fp8"), (1.0, "fp16")]
)
def test_one_rate_at_the_precision_of_the_weights_is_enough(bytes_per_weight: float, precision: str) -> None:
    cluster, model = uniform_cluster("h100-sxm", nodes=1, per_node=2), replace(MODEL, bytes_per_weight=bytes_per_weight)
    unit = replace(cluster.nodes[0].device, flops_per_s={precision: 1e14})
    made = instance(model=model, cluster=Cluster(nodes=(replace(cluster.nodes[0], device=unit),)))
    assert made.devices == 2


def text(**change: Any) -> str:
    """Return an instance's JSON with some fields changed; None drops one."""
    data = json.loads(instance().to_json()) | change
    return json.dumps({key: value for key, value in data.items() if value is not None})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("{", "f.json: not valid JSON"),
        ("[" * 100_000, "f.json: not valid JSON"),
        ("[]", "f.json: field schema: expected schedrl/expert-placement-instance/1"),
        (text(schema="other"), "f.json: field schema: expected schedrl/expert-placement-instance/1"),
        (text(planned=None), "f.json: field planned: missing"),
        (text(counts=None), "f.json: field counts: missing"),
        (text(model=3), "f.json: model: expected a table of fields, got 3"),
        (text(model=None), "f.json: model: expected a table of fields, got None"),
        (text(cluster={"nodes": 1}), "f.json: cluster: expected a table with a list of nodes"),
        (text(timing={"speed": 1}), "f.json: timing: field speed: unknown"),
        (text(transitions=[["a"]]), "f.json: field transitions: expected a full array of numbers"),
        (text(transitions=[[1, 2], [3]]), "f.json: field transitions: expected a full array of numbers"),
        (text(slots=[1]), r"f.json: i: field slots: shape \(1,\) for 2 devices"),
    ],
)
def test_bad_json_is_refused(changed: str, message: str) -> None:
    with pytest.raises(InstanceError, match=f"^{message}"):
        ExpertPlacementInstance.from_json(changed, source="f.json")


def test_absent_optional_fields_have_their_defaults() -> None:
    assert ExpertPlacementInstance.from_json(text(timing=None, initial=None)) == instance()
