"""Both exact methods against brute force and each other."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.baselines.jobshop.single_machine import mddc, total_tardiness
from schedrl.baselines.jobshop.single_machine_exact import optimal_order, subset_optimal_order
from schedrl.envs.jobshop.single_machine_generators import due_date_classes, uniform_single_machine
from schedrl.errors import ConfigError, InstanceError


@given(st.integers(1, 6), st.integers(-3, 1), st.integers(2, 15), st.integers(0, 2**32))
def test_both_equal_brute_force(jobs: int, low: int, high: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.integers(low, high, size=jobs)
    d = rng.integers(-5, max(int(p.sum()), 0) + 3, size=jobs)
    orders = np.array(list(permutations(range(jobs))))
    least = np.maximum(np.cumsum(p[orders], axis=1) - d[orders], 0).sum(axis=1).min()
    assert total_tardiness(p, d, subset_optimal_order(p, d)) == least
    if p.min() >= 0:
        assert total_tardiness(p, d, optimal_order(p, d)) == least


@pytest.mark.parametrize("high", [3, 100])
def test_both_agree_on_every_class_of_due_dates(high: int) -> None:
    # Few different times: many ties among the longest jobs.
    rng = np.random.default_rng(high)
    for spread, factor in due_date_classes():
        p, d = uniform_single_machine(rng, jobs=13, relative_range=spread, tardiness_factor=factor, high=high)
        least = total_tardiness(p, d, subset_optimal_order(p, d))
        assert total_tardiness(p, d, optimal_order(p, d)) == least


def test_a_hundred_jobs() -> None:
    p, d = uniform_single_machine(np.random.default_rng(1), jobs=100, relative_range=0.2, tardiness_factor=0.6)
    order = optimal_order(p, d)
    assert sorted(order.tolist()) == list(range(100))
    assert 0 < total_tardiness(p, d, order) < total_tardiness(p, d, mddc(p, d))


def test_what_they_cannot_solve_is_refused() -> None:
    with pytest.raises(InstanceError, match="field p: 21 jobs, expected at most 20; optimal_order takes more"):
        subset_optimal_order([1] * 21, [1] * 21)
    with pytest.raises(InstanceError, match="field p: -1, expected 0 or more; subset_optimal_order takes negative"):
        optimal_order([2, -1], [1, 1])
    with pytest.raises(InstanceError, match=r"field p: 300 jobs of .* in all, expected jobs\^3 times the sum below"):
        optimal_order([2**40] * 300, [1] * 300)
    p, d = uniform_single_machine(np.random.default_rng(1), jobs=60, relative_range=0.2, tardiness_factor=0.6)
    with pytest.raises(ConfigError, match="option most_states: 32, expected more for these 60 jobs"):
        optimal_order(p, d, most_states=32)


def test_a_full_table_is_enlarged() -> None:
    p, d = uniform_single_machine(np.random.default_rng(3), jobs=100, relative_range=0.2, tardiness_factor=0.6)
    with pytest.raises(ConfigError, match="option most_states: 4096"):
        optimal_order(p, d, most_states=4096)
    assert total_tardiness(p, d, optimal_order(p, d)) < total_tardiness(p, d, mddc(p, d))
