from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from schedrl.baselines.memmap.plan_builder import PlanBuilder
from schedrl.baselines.memmap.relaxation_rounding import SCHEDULERS, RelaxationRounding, build_plan
from schedrl.baselines.memmap.residence_runs import Run, bundles_of, runs_of, values_of
from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import program_latency_s, slow_latency_s
from schedrl.envs.memmap.plan import MemoryPlan
from schedrl.envs.memmap.plan_check import check_plan
from schedrl.envs.memmap.relaxation import solve_relaxation
from schedrl.schedulers import Result

sys.path.insert(0, str(Path(__file__).parents[2] / "envs" / "memmap"))
from small_programs import drop_broken_updates


def device(*capacities: int, alignment: int = 1, **changes: Any) -> MemoryDevice:
    layers = [MemoryLayer(name="slow", read_bytes_per_s=1.0, write_bytes_per_s=1.0)]
    for number, capacity in enumerate(capacities):
        rate = 10.0 * (number + 1)
        layers.append(
            MemoryLayer(
                name=f"fast{number}",
                read_bytes_per_s=rate,
                write_bytes_per_s=rate,
                capacity_bytes=capacity,
                alignment_bytes=alignment,
            )
        )
    return MemoryDevice(name="unit", flops_per_s=1.0, layers=tuple(layers), **changes)


def program(
    memory: MemoryDevice, sizes: list[int], *ops: dict[str, Any], outputs: tuple[int, ...] = ()
) -> MemoryMapInstance:
    buffers = [{"size": size, "output": number in outputs} for number, size in enumerate(sizes)]
    full = [{"flops": 0, "reads": [], "writes": []} | op for op in ops]
    return MemoryMapInstance.from_program({"name": "p", "ops": full, "buffers": buffers}, memory=memory)


def random_program(random: Random, ops: int) -> MemoryMapInstance:
    memory = device(
        *(random.randint(6, 30) for _ in range(random.choice([1, 1, 2]))),
        alignment=random.choice([1, 1, 4]),
        supply=random.choice(["idle", "elapsed"]),
        overhead_window_bytes=random.choice([0.0, 0.0, 3.0]),
        outstanding_copies=random.choice([40, 1, 0]),
    )
    sizes = [random.randint(1, 8) for _ in range(3)]
    steps: list[dict[str, Any]] = []
    for t in range(ops):
        reads = [random.randrange(len(sizes)) for _ in range(random.randint(1, 3))]
        step: dict[str, Any] = {"flops": random.choice([0, 1, 4, 9]), "reads": reads, "writes": [len(sizes)]}
        step["trips"] = random.choice([1, 1, 1, 4])
        if random.random() < 0.3:
            step["groups"] = [-1] * (len(reads) - 1) + [t // 2] * 2
        sizes.append(random.randint(1, 8))
        steps.append(step)
    outputs = tuple(number for number in range(3, len(sizes)) if random.random() < 0.2)
    return program(memory, sizes, *drop_broken_updates(steps, outputs), outputs=outputs)


def solve(instance: MemoryMapInstance, time_limit_s: float = 1.0) -> Result:
    result = RelaxationRounding().schedule(instance, time_limit_s=time_limit_s, rng=np.random.default_rng(0))
    assert isinstance(result.solution, MemoryPlan) and result.objective is not None
    assert check_plan(instance, result.solution) == []
    assert result.objective == program_latency_s(instance, result.solution.access_layer)
    assert result.lower_bound is not None and result.lower_bound <= result.objective <= slow_latency_s(instance)
    return result


def test_input_is_fetched_just_in_time() -> None:
    instance = program(device(8), [4], {"flops": 9}, {"flops": 6}, {"reads": [0]})
    result = solve(instance)
    assert result.status == "optimal" and result.objective == pytest.approx(15.4)
    assert isinstance(result.solution, MemoryPlan)
    # Six seconds of the second operation suffice, so the copy begins after the first.
    assert result.solution.copies.tolist() == [[0, 1, 1, 0, 2]]
    assert result.solution.residences.tolist() == [[0, 1, 0, 1, 2]]


def test_output_leaves_as_early_as_the_bus_allows() -> None:
    instance = program(device(8), [4], {"writes": [0]}, {"flops": 6}, {"flops": 9}, outputs=(0,))
    result = solve(instance)
    assert isinstance(result.solution, MemoryPlan)
    assert result.objective == pytest.approx(15.4)
    assert result.solution.copies.tolist() == [[0, 0, 1, 0, 2]]
    assert result.solution.residences.tolist() == [[0, 1, 0, 0, 1]]


def test_result_that_does_not_fit_comes_back_later() -> None:
    # Buffer 0 makes room for buffer 1, which needs all of fast memory, and returns while the last but one computes.
    ops = ({"writes": [0], "flops": 1}, {"flops": 5}, {"writes": [1]}, {"reads": [1]}, {"flops": 9}, {"reads": [0]})
    result = solve(program(device(4), [4, 4], *ops))
    assert result.status == "optimal" and result.objective == pytest.approx(1.0 + 5.0 + 0.4 + 0.4 + 9.0 + 0.4)
    assert isinstance(result.solution, MemoryPlan)
    assert result.solution.copies[:, :2].tolist() == [[0, 0], [0, 1]]


def test_alias_group_moves_in_place() -> None:
    ops = ({"writes": [0]}, {"reads": [0], "writes": [1], "groups": [0, 0]}, {"reads": [1]})
    result = solve(program(device(4), [4, 4], *ops))
    assert result.status == "optimal" and result.objective == pytest.approx(1.6)


def test_faster_layers_are_used() -> None:
    result = solve(program(device(8, 4), [4, 4], {"flops": 20}, {"reads": [0, 1]}))
    assert result.status == "optimal" and result.objective == pytest.approx(20.6)


@pytest.mark.parametrize("seed", range(20))
def test_random_programs_get_valid_plans(seed: int) -> None:
    random = Random(seed)
    solve(random_program(random, random.randint(2, 12)), 0.3)


def test_time_limit_holds_and_more_time_never_hurts() -> None:
    instance = random_program(Random(7), 60)
    started = time.perf_counter()
    short = solve(instance, 0.2)
    assert time.perf_counter() - started < 1.5
    long = solve(instance, 2.0)
    assert short.objective is not None and long.objective is not None
    assert long.objective <= short.objective * (1.0 + 1e-12)


def test_runs_follow_the_relaxation() -> None:
    instance = program(device(8), [4, 4], {"flops": 5}, {"reads": [0], "writes": [1], "flops": 5}, {"reads": [0, 1]})
    runs = runs_of(instance, solve_relaxation(instance, integer=True, time_limit_s=5.0))
    assert runs == [
        Run(buffer=0, layer=1, made=False, accesses=(0, 2)),
        Run(buffer=1, layer=1, made=True, accesses=(1, 3)),
    ]
    everything = np.ones(instance.accesses, dtype=np.int8)
    # The second operation computes for longer than slow memory takes; the last one reads eight bytes.
    assert values_of(instance, runs, everything) == pytest.approx([3.6, 3.6])
    assert bundles_of(instance, runs) == [[0], [1]]


def test_run_is_shortened_to_what_fits() -> None:
    instance = program(device(4), [4, 4], {"flops": 9}, {"reads": [0]}, {"writes": [1]}, {"reads": [1]}, {"reads": [0]})
    builder = PlanBuilder(instance=instance, supply_s=np.array([9.0, 0.4, 0.4, 0.4, 0.4]))
    assert builder.place([Run(buffer=1, layer=1, made=True, accesses=(1, 2))])
    assert not builder.place([Run(buffer=0, layer=1, made=False, accesses=(0, 3))])
    assert builder.place_shortened(Run(buffer=0, layer=1, made=False, accesses=(0, 3)))
    plan = builder.plan()
    assert check_plan(instance, plan) == []
    assert plan.access_layer.tolist() == [1, 1, 1, 0]


def test_plan_holds_although_fast_accesses_alone_make_bus_time() -> None:
    # Each copy would be hidden by the fast accesses of the other's operation, were they not dropped for lack of room.
    instance = program(device(5), [5, 5, 5], *({"reads": [k % 3], "flops": k % 2} for k in range(9)))
    runs = [Run(buffer=b, layer=1, made=False, accesses=tuple(range(b + 3, 9, 3))) for b in range(3)]
    plan = build_plan(instance, runs, np.zeros(3))
    assert check_plan(instance, plan) == []


DATA = Path(os.environ.get("SCHEDRL_DATA", "")) / "memmap" / "torch_traces"


# Seconds, the bound that no plan beats, and how far above it the plan may be; four of six are proven optimal.
@pytest.mark.skipif(not DATA.is_dir(), reason="needs the traces in SCHEDRL_DATA")
@pytest.mark.parametrize(
    ("name", "flops", "rate", "mebibytes", "bound", "gap"),
    [
        ("resnet50_infer_b32", 138e12, 614e9, 128, 2.8138e-3, 1e-4),
        ("resnet50_infer_b32", 138e12, 614e9, 16, 7.4681e-3, 0.01),
        ("resnet50_infer_b32", 197e12, 819e9, 48, 4.3410e-3, 1e-4),
        ("gpt2_infer_b4_t512", 138e12, 614e9, 128, 4.4306e-3, 1e-4),
        ("gpt2_infer_b4_t512", 138e12, 614e9, 16, 7.2060e-3, 0.02),
        ("gpt2_infer_b4_t512", 197e12, 819e9, 48, 3.1689e-3, 1e-4),
    ],
)
def test_traced_programs(name: str, flops: float, rate: float, mebibytes: int, bound: float, gap: float) -> None:
    slow = MemoryLayer(name="HBM", read_bytes_per_s=rate, write_bytes_per_s=rate)
    fast = MemoryLayer(
        name="CMEM", read_bytes_per_s=10 * rate, write_bytes_per_s=10 * rate, capacity_bytes=mebibytes * 2**20
    )
    memory = MemoryDevice(name="preset", flops_per_s=flops, layers=(slow, fast))
    data = json.loads((DATA / f"{name}.mmap.json").read_text(encoding="utf-8"))
    result = solve(MemoryMapInstance.from_program(data, memory=memory), 8.0)
    assert result.objective is not None
    assert bound * (1 - 2e-4) <= result.objective <= bound * (1 + gap)


def test_is_registered_with_what_it_knows() -> None:
    (spec,) = SCHEDULERS
    assert (spec.name, spec.information) == ("memmap/milp-repair", "clairvoyant")
    assert isinstance(spec.make(), RelaxationRounding)
