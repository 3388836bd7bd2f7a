"""Graphs of the MLSys 2026 contest: the worked examples of its problem statement, and files that break its rules."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedrl.envs.memmap.formats import parse_instance, read_instance
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import program_latency_s, slow_latency_s
from schedrl.errors import InstanceError

CHAIN: dict[str, Any] = {
    "widths": [128, 128, 128],
    "heights": [128, 128, 128],
    "inputs": [[0], [1]],
    "outputs": [[1], [2]],
    "base_costs": [1000, 100],
    "op_types": ["Pointwise", "Pointwise"],
    "fast_memory_capacity": 35000,
    "slow_memory_bandwidth": 10,
    "native_granularity": [128, 128],
}


def parse(**changes: Any) -> MemoryMapInstance:
    instance = parse_instance(json.dumps({**CHAIN, **changes}), source="c.json", name="c")
    assert isinstance(instance, MemoryMapInstance)
    return instance


def test_the_first_example_spilled_takes_twice_3276_8() -> None:
    instance = parse()
    assert (instance.ops, instance.buffers, instance.accesses) == (2, 3, 4)
    assert instance.size.tolist() == [16384] * 3
    assert instance.output.tolist() == [False, False, True]
    assert instance.definition.tolist() == [-1, 0, 1]
    assert instance.memory.layers[1].capacity_bytes == 35000
    assert slow_latency_s(instance) == pytest.approx(2 * 3276.8, rel=1e-12)


def test_a_tensor_that_stays_in_fast_memory_costs_almost_nothing() -> None:
    # The same example with tensor 1 kept: 1638.4 in, 1638.4 out.
    layers = np.array([0, 1, 1, 0], dtype=np.int8)
    assert program_latency_s(parse(), layers) == pytest.approx(2 * 1638.4, rel=2e-6)


def test_the_second_example_takes_twice_13107_2_of_which_computing_is_four_tiles() -> None:
    instance = parse(widths=[256] * 3, heights=[256] * 3)
    assert slow_latency_s(instance) == pytest.approx(26214.4, rel=1e-12)
    assert instance.compute.tolist() == [4000.0, 400.0]


def test_operations_out_of_order_are_sorted() -> None:
    instance = parse(inputs=[[1], [0]], outputs=[[2], [1]])
    assert instance.op_labels == ("Pointwise.1", "Pointwise.0")
    assert instance.compute.tolist() == [100.0, 1000.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": [[0, 2], [1]]}, "field inputs[0]: cyclic op order: Pointwise.0 -> Pointwise.1 -> Pointwise.0"),
        (
            {"outputs": [[1], [1]]},
            "field outputs[1]: buffer 1 is defined by operations Pointwise.0 and Pointwise.1, expected one definition",
        ),
        ({"inputs": [[0], [3]]}, "field inputs[1]: unknown operand 3, there are tensors 0 to 2"),
        ({"widths": [128, -1, 128]}, "field widths: expected a list of integers of at least 1, got [128, -1, 128]"),
        ({"heights": [128]}, "field heights: 1 values for 3 widths"),
        (
            {"base_costs": [1]},
            "field inputs: inputs, outputs, base_costs and op_types have 2, 2, 1 and 2 entries, expected one for each "
            "operation",
        ),
        ({"base_costs": [1, "x"]}, "field base_costs[1]: got 'x', expected a number of 0 or more"),
        ({"fast_memory_capacity": 0}, "field fast_memory_capacity: got 0, expected an integer >= 1"),
        (
            {"slow_memory_bandwidth": 0},
            "field slow_memory_bandwidth: memory layer slow: field read_bytes_per_s: 0.0, expected a positive number",
        ),
        ({"native_granularity": [128]}, "field native_granularity: 1 values, expected width and height"),
        ({"op_types": [1, 2]}, "field op_types: expected a list of str, got [1, 2]"),
        ({"inputs": 3}, "field inputs: expected a list of lists of tensors, got 3"),
    ],
)
def test_a_broken_graph_names_its_field(changes: dict[str, Any], message: str) -> None:
    # Lists that say how many operations there are are counted before they are looked into.
    if changes == {"inputs": 3}:
        changes = {**changes, "outputs": [], "base_costs": [], "op_types": []}
    with pytest.raises(InstanceError) as caught:
        parse(**changes)
    assert str(caught.value) == f"c.json:1: {message}"


@pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no contest files")
def test_released_graphs_are_read_and_the_inconsistent_one_is_named() -> None:
    folder = Path(os.environ["SCHEDRL_DATA"], "memmap", "mlsys2026")
    found = {n: read_instance(folder / f"mlsys-2026-{n}.json") for n in (1, 5, 9, 13)}
    assert {n: i.ops for n, i in found.items() if isinstance(i, MemoryMapInstance)} == {1: 5, 5: 19, 9: 32, 13: 63}
    # As released, it has four results more than operations, and reads four tensors that it does not have.
    with pytest.raises(
        InstanceError, match=r"mlsys-2026-17\.json:42: field inputs: .* have 99, 103, 103 and 103 entries"
    ):
        read_instance(folder / "mlsys-2026-17.json")
