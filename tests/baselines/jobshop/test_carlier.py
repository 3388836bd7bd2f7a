from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from schedrl.arrays import I64
from schedrl.baselines.jobshop.carlier import NODES, PROVEN, OneMachine, new_one_machine, solve_one_machine


def problem(head: list[int], duration: list[int], tail: list[int], lag: I64 | None = None) -> OneMachine:
    machine = new_one_machine(len(head))
    machine.head[:], machine.duration[:], machine.tail[:] = head, duration, tail
    if lag is not None:
        machine.lag[:] = lag
    return machine


def value_of(machine: OneMachine, order: tuple[int, ...]) -> int:
    """Return the value of an order, -1 when it contradicts a lag."""
    start: dict[int, int] = {}
    time = value = 0
    for j in order:
        if any(machine.lag[j, i] >= 0 for i in start):
            return -1
        time = max(
            [time, int(machine.head[j])] + [start[i] + int(machine.lag[i, j]) for i in start if machine.lag[i, j] >= 0]
        )
        start[j] = time
        time += int(machine.duration[j])
        value = max(value, time + int(machine.tail[j]))
    return value


def random_problem(rng: np.random.Generator, count: int, lags: float, spread: int = 40) -> OneMachine:
    duration = rng.integers(0, 12, count)
    lag = np.full((count, count), -1, dtype=np.int64)
    rank = rng.permutation(count)
    for i in range(count):
        for j in range(count):
            if rank[i] < rank[j] and rng.random() < lags:
                lag[i, j] = duration[i] + rng.integers(0, 25)
    for k in rng.permutation(count):  # longest paths
        for i in range(count):
            for j in range(count):
                if lag[i, k] >= 0 and lag[k, j] >= 0:
                    lag[i, j] = max(lag[i, j], lag[i, k] + lag[k, j])
    return problem(
        rng.integers(0, spread, count).tolist(), duration.tolist(), rng.integers(0, spread, count).tolist(), lag
    )


@pytest.mark.parametrize("lags", [0.0, 0.15, 0.4])
def test_equals_brute_force(lags: float) -> None:
    rng = np.random.default_rng(int(100 * lags))
    branched = 0
    for case in range(60):
        machine = random_problem(rng, int(rng.integers(1, 6)), lags, spread=20 if case % 2 else 45)
        before = machine.head.copy(), machine.tail.copy(), machine.lag.copy()
        values = [value_of(machine, order) for order in permutations(range(len(machine.head)))]
        assert solve_one_machine(machine, 10**6) == min(value for value in values if value >= 0)
        assert machine.counters[PROVEN] == 1
        assert value_of(machine, tuple(machine.best_order.tolist())) == min(value for value in values if value >= 0)
        for array, old in zip((machine.head, machine.tail, machine.lag), before, strict=True):
            assert np.array_equal(array, old)
        branched += machine.counters[NODES] > 1
    assert branched > 3


def test_the_example_of_carlier() -> None:
    # Carlier 1982, table 1: Schrage's schedule ends at 53, the optimum is 50.
    machine = problem([10, 13, 11, 20, 30, 0, 30], [5, 6, 7, 4, 3, 6, 2], [7, 26, 24, 21, 8, 17, 0])
    assert solve_one_machine(machine, 10**6) == 50
    assert solve_one_machine(machine, 1) == 53
    assert machine.counters[PROVEN] == 0


def test_hundred_jobs_are_solved_in_few_nodes() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        duration = rng.integers(1, 50, 100)
        machine = problem(rng.integers(0, 1500, 100).tolist(), duration.tolist(), rng.integers(0, 1500, 100).tolist())
        solve_one_machine(machine, 5000)
        assert machine.counters[PROVEN] == 1
