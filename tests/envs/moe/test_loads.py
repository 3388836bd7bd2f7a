from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from schedrl.envs.moe.loads import LoadDump, as_counts, instance_of_loads, refuse_one_rank
from schedrl.envs.moe.model import MoEModel, get_model
from schedrl.errors import ConfigError, InstanceError, UnknownNameError

SMALL = MoEModel(name="small", layers=2, experts=8, top_k=2, hidden=64, intermediate=64, first_layer=1)
COUNTS = np.arange(1, 33).reshape(2, 2, 8)


def build(counts: Any = COUNTS, **changes: Any) -> Any:
    options: dict[str, Any] = {
        "model": SMALL,
        "device": "h100-sxm",
        "nodes": 2,
        "per_node": 2,
        "redundant": 4,
        "planned": 1,
        "iterations": 3,
    }
    return instance_of_loads(LoadDump(counts=counts, source="a/dump.npy"), **(options | changes))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([[1, 2], [3]], "rows of unequal length, expected a full array"),
        ([1, 2], r"shape \(2,\), expected \(windows, layers, experts\)"),
        (np.ones((1, 1, 1, 1)), r"shape \(1, 1, 1, 1\)"),
        (np.zeros((0, 2, 3)), r"shape \(0, 2, 3\)"),
        ([["1", "2"]], "expected integers, got <U1"),
        ([[True, False]], "expected integers, got bool"),
        ([[1, None]], "expected integers, got object"),
        ([[1.0, math.nan]], "window 0 layer 0 expert 1 has nan, expected a finite integer"),
        ([[[1.0, 2.0]], [[math.inf, 1.0]]], "window 1 layer 0 expert 0 has inf, expected a finite integer"),
        ([[1, 2], [3, -4]], "window 0 layer 1 expert 1 has -4, expected at least 0"),
        ([[1, 2**41]], "expert 1 has 2199023255552, expected at most"),
        ([[1, 0.5]], "expert 1 has 0.5, expected an integer"),
        ([[0, 0], [0, 0]], "all zero: nothing was recorded"),
    ],
)
def test_malformed_loads_get_one_line_that_names_file_and_field(values: Any, problem: str) -> None:
    with pytest.raises(InstanceError, match=f"^f.npy: field counts: .*{problem}") as caught:
        as_counts(values, "f.npy: field counts")
    assert "\n" not in str(caught.value)


def test_one_window_needs_no_axis_of_windows_and_whole_floats_are_counts() -> None:
    counts = as_counts([[1.0, 2.0], [3.0, 4.0]], "f")
    assert counts.shape == (1, 2, 2)
    assert counts.dtype == np.int64
    assert not counts.flags.writeable


def test_a_dump_with_the_experts_of_one_rank_alone_is_refused() -> None:
    counts = COUNTS.copy()
    counts[:, :, 4:] = 0
    with pytest.raises(InstanceError, match="4 of 8 experts have no token in any layer: the dump of one rank"):
        refuse_one_rank(counts, "f")
    refuse_one_rank(counts[:, :1], "f")  # a single layer may well be so skewed
    counts[0, 0, 7] = 1
    refuse_one_rank(counts, "f")


def test_loads_become_an_instance_with_equal_slots() -> None:
    instance = build()
    assert (instance.name, instance.devices, instance.iterations) == ("dump", 4, 3)
    assert instance.slots.tolist() == [3, 3, 3, 3]
    assert (instance.counts == COUNTS).all()


def test_deepseek_v3_on_32_devices_has_9_slots_on_each() -> None:
    counts = np.random.default_rng(0).integers(1, 99, (1, 61, 256))
    counts[:, :3] = 0
    instance = build(counts, model=get_model("deepseek-v3"), nodes=4, per_node=8, redundant=32)
    assert instance.slots.tolist() == [9] * 32
    assert instance.counts.shape == (1, 58, 256)  # SGLang's dense layers are dropped
    assert (instance.counts == counts[:, 3:]).all()


def test_a_rank_that_did_not_report_is_refused() -> None:
    counts = COUNTS.copy()
    counts[:, :, 2:4] = 0
    with pytest.raises(InstanceError, match=r"experts 2 to 3 have no token in any layer: rank 1 of 4 did not report"):
        build(counts)


@pytest.mark.parametrize(
    ("changes", "error", "problem"),
    [
        ({"redundant": -1}, InstanceError, "field redundant: -1 leaves fewer slots than experts"),
        ({"redundant": 3}, InstanceError, "8 experts and 3 redundant ones do not divide among 4 devices; 4 would"),
        ({"counts": COUNTS[:, :, :7]}, InstanceError, "field counts: 7 experts, model small has 8"),
        ({"counts": np.ones((1, 4, 8))}, InstanceError, "field counts: 4 layers, model small has 2 with experts"),
        ({"counts": np.ones((1, 3, 8))}, InstanceError, "layer 0 has tokens, the first 1 of small are dense"),
        ({"planned": 3}, InstanceError, "field planned: 3, expected an integer from 1 to 2"),
        ({"iterations": 0}, InstanceError, "field iterations: 0"),
        ({"device": "abacus"}, UnknownNameError, "unknown device 'abacus'"),
        ({"nodes": 0}, ConfigError, "field nodes: 0"),
    ],
)
def test_what_does_not_fit_together_is_named(changes: dict[str, Any], error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem) as caught:
        build(**changes)
    assert error is not InstanceError or str(caught.value).startswith("a/dump.npy: ")
