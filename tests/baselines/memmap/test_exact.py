from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from ortools.sat.python import cp_model

from schedrl.baselines.memmap.exact import SCHEDULERS, MemoryCpSat
from schedrl.baselines.memmap.joint_model import JointModel
from schedrl.baselines.memmap.time_steps import TimeSteps, down, up
from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import program_latency_s
from schedrl.envs.memmap.plan import MemoryPlan, slow_plan
from schedrl.envs.memmap.plan_check import check_plan
from schedrl.envs.memmap.relaxation import solve_relaxation
from schedrl.errors import ConfigError

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


def model_plan(instance: MemoryMapInstance) -> tuple[MemoryPlan, float]:
    """Return the best plan of the model alone, checked, and its latency."""
    model = cp_model.CpModel()
    joint = JointModel(instance, model)
    joint.hint(slow_plan(instance))
    assert model.validate() == ""
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.max_time_in_seconds = 20.0
    assert solver.solve(model) == cp_model.OPTIMAL
    plan = joint.plan(solver.value)
    assert check_plan(instance, plan) == []
    return plan, program_latency_s(instance, plan.access_layer)


# Programs whose optimum can be seen: what must be copied when, what must wait, what shares bytes.
WORKED: list[tuple[MemoryMapInstance, float]] = [
    (program(device(8), [4], {"flops": 6}, {"reads": [0]}), 6.4),
    (program(device(8), [4], {"flops": 3}, {"reads": [0]}, {"flops": 9}), 16.0),
    (program(device(8, supply="elapsed"), [4, 4, 4], {"reads": [0]}, {"reads": [1]}, {"reads": [2]}), 4.8),
    (program(device(8), [4], {"writes": [0]}, {"reads": [0]}, outputs=(0,)), 8.0),
    (program(device(8), [4], {"writes": [0]}, {"reads": [0], "flops": 5}, outputs=(0,)), 5.4),
    (program(device(4), [4, 4], {"flops": 10}, {"reads": [0]}, {"reads": [1]}), 14.4),
    (program(device(8, alignment=8), [3, 3], {"flops": 20}, {"reads": [0, 1]}), 23.3),
    # The second three bytes begin at byte 4 and need no more than seven bytes in all.
    (program(device(7, alignment=4), [3, 3], {"flops": 20}, {"reads": [0, 1]}), 20.6),
    (program(device(4), [4, 4], {"writes": [0]}, {"reads": [0], "writes": [1]}, {"reads": [1]}), 8.8),
    (
        program(device(4), [4, 4], {"writes": [0]}, {"reads": [0], "writes": [1], "groups": [0, 0]}, {"reads": [1]}),
        1.6,
    ),
    (program(device(8, 4), [4, 4], {"flops": 20}, {"reads": [0, 1]}), 20.6),
    (program(device(8, outstanding_copies=0), [4], {"flops": 6}, {"reads": [0]}), 10.0),
    # One copy at a time may be under way, so the second begins when the first has ended, and needs another operation.
    (program(device(8, outstanding_copies=1), [4, 4], {"flops": 20}, {"reads": [0, 1]}), 24.4),
    (
        program(
            device(4),
            [4, 4],
            {"writes": [0], "flops": 1},
            {"flops": 5},
            {"writes": [1]},
            {"reads": [1]},
            {"flops": 9},
            {"reads": [0]},
        ),
        16.2,
    ),
    (program(device(8, overhead_window_bytes=2.0), [4], {"reads": [0], "flops": 2}), 5.0),
]


@pytest.mark.parametrize(("instance", "optimum"), WORKED)
def test_model_finds_the_optimum_of_worked_examples(instance: MemoryMapInstance, optimum: float) -> None:
    assert model_plan(instance)[1] == pytest.approx(optimum)


def test_fragmentation_is_seen() -> None:
    # Three buffers of 2, 2 and 3 bytes in 6: the third needs the first's two bytes and one of the free ones beside it,
    # which depends on where the second, still alive, was put.
    ops = ({"writes": [0]}, {"writes": [1], "reads": [0]}, {"writes": [2]}, {"reads": [1, 2]})
    plan, latency = model_plan(program(device(6), [2, 2, 3], *ops))
    assert latency == pytest.approx(0.2 + 0.4 + 0.3 + 0.5)
    offset = {row[0]: row[2] for row in plan.residences.tolist()}
    assert sorted((offset[1], offset[2])) in ([0, 2], [0, 3], [0, 4], [1, 3], [1, 4])


def random_program(random: Random) -> MemoryMapInstance:
    memory = device(
        *(random.randint(4, 16) for _ in range(random.choice([1, 1, 2]))),
        alignment=random.choice([1, 1, 4]),
        supply=random.choice(["idle", "elapsed"]),
        outstanding_copies=random.choice([40, 1]),
    )
    sizes, ops = [random.randint(1, 8) for _ in range(2)], []
    for t in range(random.randint(2, 6)):
        reads = [random.randrange(len(sizes)) for _ in range(random.randint(1, 2))]
        op: dict[str, Any] = {"flops": random.choice([0, 1, 4, 9]), "reads": reads, "writes": [len(sizes)]}
        op["trips"] = random.choice([1, 1, 3])
        if random.random() < 0.4:
            op["groups"] = [-1] * (len(reads) - 1) + [t // 2] * 2
        sizes.append(random.randint(1, 8))
        ops.append(op)
    outputs = tuple(n for n in range(2, len(sizes)) if random.random() < 0.2)
    return program(memory, sizes, *drop_broken_updates(ops, outputs), outputs=outputs)


@pytest.mark.parametrize("seed", range(15))
def test_every_plan_of_the_model_passes_the_checker(seed: int) -> None:
    instance = random_program(Random(seed))
    latency = model_plan(instance)[1]
    bound = solve_relaxation(instance, integer=True, time_limit_s=20.0).bound_s
    assert bound <= latency * (1.0 + 1e-12)


def test_scheduler_proves_by_the_bound_of_the_relaxation() -> None:
    for instance, optimum in WORKED[:6]:
        result = MemoryCpSat().schedule(instance, time_limit_s=2.0, rng=np.random.default_rng(0))
        assert isinstance(result.solution, MemoryPlan)
        assert check_plan(instance, result.solution) == []
        assert result.objective == pytest.approx(optimum)
        assert result.status == "optimal" and result.lower_bound == pytest.approx(optimum, rel=1e-4)


def test_hint_is_kept_when_it_is_the_best() -> None:
    instance = WORKED[0][0]
    plan = model_plan(instance)[0]
    result = MemoryCpSat(hint=plan).schedule(instance, time_limit_s=0.01, rng=np.random.default_rng(0))
    assert result.objective == pytest.approx(6.4)


def test_times_fall_on_a_grid_where_there_is_one() -> None:
    assert TimeSteps(WORKED[0][0]).step_s == pytest.approx(0.1)
    odd = TimeSteps(program(device(8), [7], {"flops": np.pi}, {"reads": [0]}))
    assert odd.step_s == pytest.approx((np.pi + 7.0) / 2**21)
    assert (down(2.9999999999), up(3.0000000001), down(2.5), up(2.5)) == (3, 3, 2, 3)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="field workers: 0, expected at least 1"):
        MemoryCpSat(workers=0)


def test_is_registered_with_what_it_knows() -> None:
    (spec,) = SCHEDULERS
    assert (spec.name, spec.information) == ("memmap/cp-sat", "clairvoyant")
    assert isinstance(spec.make(), MemoryCpSat)
