"""The integer program of Mélange: its authors' example, exhaustive search, limits, and files."""

from __future__ import annotations

import itertools
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.baselines.routing.fleet_selection import (
    GpuType,
    read_gpu_types,
    read_problem,
    select_fleet,
    single_type_fleets,
)
from schedrl.errors import ConfigError, InstanceError, UnknownNameError

NEEDS_DATA = pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no AIBrix tables")
# melange/config/example.json of tyler-griggs/melange-release at ebba701.
EXAMPLE: dict[str, Any] = {
    "gpu_info": {
        "A10G": {"cost": 1.01, "tputs": [[2, 1], [5, 2]]},
        "A100-80GB": {"cost": 3.67, "tputs": [[20, 20], [40, 20]]},
    },
    "workload_distribution": [[0.2, 0.1], [0.5, 0.2]],
    "total_request_rate": 30.0,
    "slice_factor": 1,
}


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "example.json"
    path.write_text(json.dumps(EXAMPLE))
    return path


def gpu(name: str, price: float, table: Any) -> GpuType:
    return GpuType(name=name, price_usd_per_h=price, requests_per_s=table)


def test_the_authors_example_has_their_fleet_and_cost(example: Path) -> None:
    problem = read_problem(example)
    found = select_fleet(problem.types, problem.rates, slice_factor=problem.slice_factor)
    # Their README at d46ab43: {"A10G": 3, "A100-80GB": 1, "cost": 6.7}.
    assert found.counts == {"A10G": 3, "A100-80GB": 1}
    assert found.price_usd_per_h == pytest.approx(6.7)
    assert found.lower_bound == pytest.approx(6.7)
    assert found.status == "optimal"
    assert found.share.sum(axis=0) == pytest.approx(np.ones((2, 2)))


def test_finer_slices_need_one_instance_less(example: Path) -> None:
    problem = read_problem(example)
    # The A100's load of all is 0.3 + 0.15 + 0.375 + 0.3 = 1.125. Four slices per bucket let half a bucket, 1.5 A10G,
    # move away, which is enough.
    found = select_fleet(problem.types, problem.rates)
    assert found.counts == {"A10G": 2, "A100-80GB": 1}
    assert found.price_usd_per_h == pytest.approx(5.69)
    assert single_type_fleets(problem.types, problem.rates) == {"A10G": 12, "A100-80GB": 2}


def test_the_earlier_example_of_their_script() -> None:
    # melange/main.py at 1fc682c; every bucket on A10G loads 0.8 + 2 + 0.6 + 0.8 = 4.2 of them, and an A100 costs more
    # than three.
    types = (gpu("A10G", 1.01, [[5, 1], [10, 5]]), gpu("A100", 3.67, [[20, 2], [50, 20]]))
    found = select_fleet(types, 16 * np.array([[0.25, 0.125], [0.375, 0.25]]), slice_factor=1)
    assert found.counts == {"A10G": 5, "A100": 0}
    assert found.load == pytest.approx([4.2, 0.0])
    assert found.price_usd_per_h == pytest.approx(5.05)


def cheapest(prices: list[float], work: np.ndarray[Any, Any], factor: int) -> float:
    """Exhaustive search over how many slices of each bucket go to each type; infinite if nobody can serve one."""
    types, buckets = work.shape
    splits = [split for split in itertools.product(range(factor + 1), repeat=types) if sum(split) == factor]
    best = math.inf
    for chosen in itertools.product(splits, repeat=buckets):
        load = [sum(chosen[s][g] * work[g, s] / factor for s in range(buckets) if chosen[s][g]) for g in range(types)]
        if all(map(math.isfinite, load)):
            best = min(best, sum(price * math.ceil(value - 1e-6) for price, value in zip(prices, load, strict=True)))
    return best


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    types=st.integers(1, 2),
    buckets=st.integers(1, 3),
    factor=st.integers(1, 3),
)
def test_no_fleet_is_cheaper(data: st.DataObject, types: int, buckets: int, factor: int) -> None:
    rate = data.draw(st.lists(st.integers(0, 40), min_size=buckets, max_size=buckets))
    table = [data.draw(st.lists(st.integers(0, 9), min_size=buckets, max_size=buckets)) for _ in range(types)]
    prices = data.draw(st.lists(st.sampled_from([0.5, 1.0, 1.7, 3.2]), min_size=types, max_size=types))
    known = [gpu(f"g{g}", prices[g], [table[g]]) for g in range(types)]
    rates = np.array([rate], dtype=np.float64)
    busy = np.flatnonzero(rate)
    with np.errstate(divide="ignore"):
        work = rates[0, busy] / np.array(table, dtype=np.float64)[:, busy]
    best = cheapest(prices, work, factor)
    if math.isinf(best):
        with pytest.raises(InstanceError, match="no GPU type serves requests of this size"):
            select_fleet(known, rates, slice_factor=factor)
        return
    found = select_fleet(known, rates, slice_factor=factor)
    assert found.price_usd_per_h == pytest.approx(best)
    assert found.status == "optimal"
    assert (found.load <= np.array(list(found.counts.values())) + 1e-5).all()
    singles = single_type_fleets(known, rates)
    alone = [count * prices[g] for g, count in enumerate(singles.values()) if count is not None]
    assert all(found.price_usd_per_h <= price + 1e-6 for price in alone)


def test_few_available_instances_cost_more_or_do_not_do(example: Path) -> None:
    problem = read_problem(example)
    found = select_fleet(problem.types, problem.rates, available={"A10G": 1})
    assert found.counts == {"A10G": 0, "A100-80GB": 2}
    with pytest.raises(InstanceError, match="the available GPUs cannot serve these rates"):
        select_fleet(problem.types, problem.rates, available={"A10G": 1, "A100-80GB": 1})
    assert single_type_fleets(problem.types, problem.rates, available={"A10G": 11}) == {"A10G": None, "A100-80GB": 2}
    with pytest.raises(UnknownNameError, match="unknown GPU type 'A10'"):
        select_fleet(problem.types, problem.rates, available={"A10": 1})


def test_overprovision_adds_to_the_rates(example: Path) -> None:
    problem = read_problem(example)
    more = select_fleet(problem.types, problem.rates, overprovision=0.5)
    scaled = select_fleet(problem.types, problem.rates * 1.5)
    assert more.price_usd_per_h == pytest.approx(scaled.price_usd_per_h)
    assert more.price_usd_per_h > 5.69


def test_no_requests_need_no_instances(example: Path) -> None:
    problem = read_problem(example)
    found = select_fleet(problem.types, np.zeros((2, 2)))
    assert found.counts == {"A10G": 0, "A100-80GB": 0}
    assert found.price_usd_per_h == 0.0


@NEEDS_DATA
def test_aibrix_tables_of_an_a100_and_an_a40() -> None:
    folder = Path(os.environ["SCHEDRL_DATA"]) / "routing" / "aibrix"
    types = read_gpu_types([folder / f"simulator-llama2-7b-{name}.json" for name in ("a100", "a40")])
    assert [(item.name, item.price_usd_per_h) for item in types] == [
        ("simulator-llama2-7b-a100", 1.0),
        ("simulator-llama2-7b-a40", 0.3),
    ]
    assert types[0].requests_per_s.shape == (8, 5)
    assert types[1].requests_per_s[3, 1] == pytest.approx(19.1165, abs=1e-4)
    # Two buckets: 8 and 128 answer tokens to 512 prompt tokens. The A40 costs 0.3 / 12.75 and 0.3 / 5.34 per request/s
    # against the A100's 1 / 16.65 and 1 / 7.47, so that it is cheaper for both.
    rates = np.zeros((8, 5))
    rates[1, 2], rates[5, 2] = 20.0, 6.0
    found = select_fleet(types, rates)
    assert list(found.counts.values()) == [0, 3]
    assert found.load[1] == pytest.approx(20 / 12.7504 + 6 / 5.34192, rel=1e-4)
    # Prompts of 2048 tokens with 512 answer tokens are beyond the A100's objective there, not beyond the A40's.
    rates[:] = 0.0
    rates[7, 4] = 0.6
    assert single_type_fleets(types, rates) == {"simulator-llama2-7b-a100": None, "simulator-llama2-7b-a40": 2}
    # One request/s of each bucket: a single A40 more is cheaper than an A100.
    rates = np.where(types[0].requests_per_s > 0, 1.0, 0.0)
    best = select_fleet(types, rates)
    work = np.array([(rates[rates > 0] / item.requests_per_s[rates > 0]).sum() for item in types])
    assert best.price_usd_per_h <= min(math.ceil(work[0]), 0.3 * math.ceil(work[1])) + 1e-9
    assert best.lower_bound == pytest.approx(best.price_usd_per_h)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpu_info": {"A10G": {"cost": 0, "tputs": [[1, 1], [1, 1]]}}}, r"gpu_info\.A10G: field cost: 0, expected"),
        ({"gpu_info": {"A10G": {"tputs": [[1]]}}}, r"gpu_info\.A10G: field cost: missing"),
        ({"gpu_info": {"A10G": {"cost": 1, "tputs": [[1, 1], [1]]}}}, r"field tputs: expected rows of equally many"),
        ({"gpu_info": {"A10G": {"cost": 1, "tputs": [[1, -2], [1, 1]]}}}, r"field tputs\[0\]\[1\]: -2\.0, expected"),
        ({"gpu_info": {"A10G": {"cost": 1, "tputs": [[1]]}}}, r"field tputs: \(1, 1\) buckets, expected \(2, 2\)"),
        ({"gpu_info": []}, r"field gpu_info: expected a table of GPU types"),
        ({"total_request_rate": "30"}, r"field total_request_rate: '30', expected"),
        ({"slice_factor": 0}, r"field slice_factor: 0, expected an integer"),
        ({"workload_distribution": [["x"]]}, r"field workload_distribution: expected rows"),
        ({"slices": 4}, r"field slices: unknown, expected gpu_info"),
    ],
)
def test_mistakes_in_files_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(EXAMPLE | change))
    with pytest.raises(ConfigError, match=rf"broken\.json: .*{message}"):
        read_problem(path)


def test_broken_json_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text('{\n"cost": 1,\n')
    with pytest.raises(ConfigError, match=r"broken\.json:3: not valid JSON"):
        read_gpu_types([path])
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"broken\.json: not JSON text in UTF-8"):
        read_gpu_types([path])
    path.write_text("[]")
    with pytest.raises(ConfigError, match=r"broken\.json: expected a table of fields"):
        read_problem(path)


def test_options_outside_their_range_are_named() -> None:
    types, rates = [gpu("a", 1.0, [[1.0]])], np.ones((1, 1))
    with pytest.raises(ConfigError, match="slice_factor: 0"):
        select_fleet(types, rates, slice_factor=0)
    with pytest.raises(ConfigError, match="overprovision: -1"):
        select_fleet(types, rates, overprovision=-1)
    with pytest.raises(ConfigError, match="two of the same name"):
        select_fleet([*types, *types], rates)
    with pytest.raises(ConfigError, match="no GPU types"):
        select_fleet([], rates)
    with pytest.raises(ConfigError, match=r"field tputs: \(1, 1\) buckets, expected \(1, 2\)"):
        select_fleet(types, np.ones((1, 2)))
