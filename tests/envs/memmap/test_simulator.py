from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from schedrl.devices.memory import MemoryDevice, MemoryLayer
from schedrl.envs.memmap.choices import COPY, DROP, NO_COPY
from schedrl.envs.memmap.generators import arbitrary, layered
from schedrl.envs.memmap.instance import MemoryMapInstance
from schedrl.envs.memmap.latency import slow_latency_s
from schedrl.envs.memmap.plan import MemoryPlan
from schedrl.envs.memmap.plan_check import check_plan, plan_objectives
from schedrl.envs.memmap.simulator import Simulator
from schedrl.errors import ConfigError
from schedrl.graphs import DecisionBatch

_PROGRAMS = int(os.environ.get("SCHEDRL_EXAMPLES", "120"))
GAMES: tuple[dict[str, Any], ...] = (
    {"dead_ends": "mask"},
    {"dead_ends": "backup"},
    {"dead_ends": "mask", "fits": ("lowest", "lifetime"), "windows": ("earliest", "preferred"), "skip_forced": False},
    {"dead_ends": "backup", "fits": ("highest",), "windows": ("preferred",), "skip_forced": False},
)


def device(capacity: int, *, slow: float = 1.0, fast: float = 10.0, flops: float = 1.0) -> MemoryDevice:
    return MemoryDevice(
        name="small",
        flops_per_s=flops,
        layers=(
            MemoryLayer(name="slow", read_bytes_per_s=slow, write_bytes_per_s=slow),
            MemoryLayer(name="fast", read_bytes_per_s=fast, write_bytes_per_s=fast, capacity_bytes=capacity),
        ),
    )


def program(
    ops: list[dict[str, Any]], sizes: list[int], capacity: int, outputs: tuple[int, ...] = ()
) -> MemoryMapInstance:
    buffers = [{"size": size, "output": b in outputs} for b, size in enumerate(sizes)]
    return MemoryMapInstance.from_program({"name": "p", "ops": ops, "buffers": buffers}, memory=device(capacity))


def op(reads: list[int], writes: list[int], flops: float = 0.0) -> dict[str, Any]:
    return {"flops": flops, "reads": reads, "writes": writes}


def random_play(simulator: Simulator, rng: np.random.Generator, returns: np.ndarray[Any, Any]) -> None:
    decision = DecisionBatch.allocate(simulator.batch, simulator.slots, simulator.features)
    reward: Any = np.zeros(simulator.batch)  # double precision, so that returns are exact
    done = np.array([simulator.finished(row) for row in range(simulator.batch)])
    while not done.all():
        simulator.observe(decision)
        # Rather a fast layer than the slow one, so that memory is tight.
        action = (rng.random(simulator.batch) ** 1.5 * decision.count).astype(np.int32)
        simulator.step(np.where(decision.count > 0, action, -1).astype(np.int32), reward, done)
        returns += reward


@pytest.mark.parametrize("game", GAMES, ids=lambda game: f"{game['dead_ends']}-{game.get('fits', ('planned',))[0]}")
def test_random_play_is_valid_and_its_return_is_the_latency_saved(game: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    backups = 0
    for count in [100] * (_PROGRAMS // 4 // 100) + [_PROGRAMS // 4 % 100] * bool(_PROGRAMS // 4 % 100):
        instances = [
            arbitrary(
                rng,
                ops=int(rng.integers(2, 26)),
                fast_layers=int(rng.integers(1, 4)),
                groups=float(rng.choice([0.0, 0.2, 0.5])),
                supply=str(rng.choice(["idle", "elapsed"])),
            )
            for _ in range(count)
        ]
        simulator, returns = Simulator(instances, count, **game), np.zeros(count)
        random_play(simulator, rng, returns)
        for row, instance in enumerate(instances):
            plan, slow = simulator.solution(row), slow_latency_s(instance)
            assert check_plan(instance, plan) == []
            latency = plan_objectives(instance, plan)["latency"]
            assert simulator.objective(row) == latency
            assert abs(returns[row] - (slow - latency) / slow) < 1e-9
            assert simulator.decisions[row] <= instance.accesses * (instance.groups + instance.buffers + 1)
        backups += int(simulator.backups.sum())
    assert (backups > 0) == (game["dead_ends"] == "backup")


def offered(simulator: Simulator) -> list[tuple[int, ...]]:
    """Return kind, layer, offset, start and end of the candidates of row 0."""
    return [tuple(row) for row in simulator.state.candidate[0, : simulator.state.candidates[0]].tolist()]


def choose(simulator: Simulator, kind: int) -> float:
    slot = [candidate[0] for candidate in offered(simulator)].index(kind)
    reward: Any = np.zeros(1)
    simulator.step(np.array([slot], dtype=np.int32), reward, np.zeros(1, dtype=np.bool_))
    return float(reward[0])


def test_keeping_a_buffer_saves_its_write_and_its_read() -> None:
    # Slow: 10 s to write and 10 s to read; fast: 1 s each. Nothing else is moved.
    instance = program([op([], [0]), op([0], [])], [10], capacity=10)
    simulator = Simulator([instance], 1, skip_forced=False)
    assert [candidate[:3] for candidate in offered(simulator)] == [(NO_COPY, 1, 0), (DROP, 0, -1)]
    assert choose(simulator, NO_COPY) == pytest.approx(9 / 20)
    # The only copy is dirty, and no idle time writes it back: it can only be kept.
    assert [candidate[0] for candidate in offered(simulator)] == [NO_COPY]
    assert choose(simulator, NO_COPY) == pytest.approx(9 / 20)
    assert simulator.finished(0)
    assert simulator.objective(0) == pytest.approx(2.0)
    assert simulator.solution(0).residences.tolist() == [[0, 1, 0, 0, 1]]


def test_a_copy_begins_just_in_time() -> None:
    # Operations 0 to 3 compute for 5 s each and leave the bus idle; the parameter's copy takes 8 s: two of them.
    ops = [op([], [1 + k], flops=5.0) for k in range(4)] + [op([0], [])]
    instance = program(ops, [8, 1, 1, 1, 1], capacity=8)
    simulator = Simulator([instance], 1, windows=("just-in-time",), skip_forced=False)
    for _ in range(4):
        choose(simulator, DROP)
    # Each of them is busy for 1 s with its own result: 4 s of idle time, and two make 8 s.
    assert (COPY, 1, 0, 1, 4) in offered(simulator)
    choose(simulator, COPY)
    assert simulator.solution(0).copies.tolist() == [[0, 1, 1, 1, 4]]
    assert simulator.solution(0).residences.tolist() == [[0, 1, 0, 2, 4]]
    assert check_plan(instance, simulator.solution(0)) == []


def test_a_write_back_ends_as_soon_as_the_bus_has_been_idle_enough() -> None:
    # Counted as slow, operation 1 leaves no idle time, so the end is promised for operation 3; in fact its result is
    # fast, its 6 s of computing hide the 4 s of the write-back, and the place is free again from operation 2 on.
    ops = [op([], [0]), op([], [1], flops=6.0), op([], [2], flops=6.0), op([], [3], flops=1.0)]
    instance = program(ops, [4, 6, 1, 1], capacity=10, outputs=(0,))
    simulator = Simulator([instance], 1, skip_forced=False)
    (promised,) = [candidate for candidate in offered(simulator) if candidate[0] == COPY]
    assert promised[3:] == (0, 3)
    choose(simulator, COPY)
    choose(simulator, NO_COPY)
    choose(simulator, DROP)
    choose(simulator, DROP)
    plan = simulator.solution(0)
    assert plan.copies.tolist() == [[0, 0, 1, 0, 2]]
    assert plan.residences.tolist()[0] == [0, 1, 0, 0, 1]
    assert check_plan(instance, plan) == []


def test_drop_backup_returns_to_the_decision_that_led_to_the_dead_end() -> None:
    # Both results fit only one at a time; the first is kept without a copy, then displaced by the second.
    ops = [op([], [0]), op([], [1]), op([1], []), op([0], [])]
    instance = program(ops, [10, 10], capacity=10)
    simulator = Simulator([instance], 1, dead_ends="backup", fits=("best",), skip_forced=False)
    choose(simulator, NO_COPY)
    choose(simulator, NO_COPY)
    choose(simulator, NO_COPY)
    # Operation 3 cannot read buffer 0 anywhere: all is taken back, and its definition bound to the slow layer.
    assert simulator.backups[0] == 1
    assert simulator.state.position[0] == 0
    assert [candidate[0] for candidate in offered(simulator)] == [DROP]
    for kind in (DROP, NO_COPY, NO_COPY, DROP):
        choose(simulator, kind)
    assert simulator.finished(0)
    assert simulator.decisions[0] == 7
    assert check_plan(instance, simulator.solution(0)) == []
    assert simulator.objective(0) == pytest.approx(22.0)


def test_a_masked_game_keeps_what_it_promised() -> None:
    ops = [op([], [0]), op([], [1]), op([1], []), op([0], [])]
    simulator = Simulator([program(ops, [10, 10], capacity=10)], 1, skip_forced=False)
    choose(simulator, NO_COPY)
    assert [candidate[0] for candidate in offered(simulator)] == [DROP]


def test_a_followed_plan_is_played_again() -> None:
    instance = layered(np.random.default_rng(3), layers=16, train=True)
    first = Simulator([instance], 1)
    first.play_advised()
    plan = first.solution(0)
    again = Simulator([instance], 1)
    reward, done = np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.bool_)
    while not done[0]:
        again.step(np.array([again.follow(0, plan)], dtype=np.int32), reward, done)
    assert again.objective(0) == pytest.approx(first.objective(0), rel=1e-3)


def test_a_snapshot_continues_bit_for_bit() -> None:
    instances = [layered(np.random.default_rng(seed), layers=6, train=True) for seed in range(3)]
    simulator = Simulator(instances, 3)
    reward, done = np.zeros(3, dtype=np.float32), np.zeros(3, dtype=np.bool_)
    for _ in range(5):
        simulator.step(np.zeros(3, dtype=np.int32), reward, done)
    other = Simulator(instances, 3)
    other.restore(simulator.snapshot())
    for game in (simulator, other):
        done[:] = False
        while not done.all():
            game.step(np.zeros(3, dtype=np.int32), reward, done)
    assert [simulator.solution(row) for row in range(3)] == [other.solution(row) for row in range(3)]


def test_several_fast_layers_are_used() -> None:
    rng = np.random.default_rng(5)
    instances = [arbitrary(rng, ops=20, fast_layers=2) for _ in range(20)]
    simulator = Simulator(instances, len(instances))
    simulator.play_advised()
    plans: list[MemoryPlan] = [simulator.solution(row) for row in range(len(instances))]
    assert {int(layer) for plan in plans for layer in plan.access_layer} == {0, 1, 2}
    assert all(check_plan(instance, plan) == [] for instance, plan in zip(instances, plans, strict=True))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("dead_ends", "hope", "dead_ends: 'hope', expected one of mask, backup"),
        ("fits", ("tight",), "fits: "),
        ("windows", (), "windows: "),
        ("lookback", 0, "lookback: 0, expected an integer of at least 1"),
        ("negligible", 1.0, "negligible: 1.0, expected 0 up to below 1"),
    ],
)
def test_bad_options_are_named(option: str, value: Any, message: str) -> None:
    instance = program([op([], [0])], [1], capacity=1)
    with pytest.raises(ConfigError, match=message.split(",")[0]):
        Simulator([instance], 1, **{option: value})
