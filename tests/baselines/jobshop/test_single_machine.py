"""Rules of total tardiness: worked examples, their definitions written out plainly, and what augmentation promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.arrays import I64
from schedrl.baselines.jobshop.single_machine import (
    AUGMENTED_RULES,
    RULES,
    atc,
    augment,
    covert,
    edd,
    eddc,
    mdd,
    mddc,
    psk,
    spt,
    total_tardiness,
)
from schedrl.baselines.jobshop.single_machine_exact import subset_optimal_order
from schedrl.errors import ConfigError, InstanceError, SolutionError

P = np.array([10, 11, 10, 10, 11, 10])
D = np.array([15, 11, 13, 11, 12, 11])


@st.composite
def problems(draw: st.DrawFn, most_jobs: int = 8, least_time: int = 0) -> tuple[I64, I64]:
    jobs = draw(st.integers(1, most_jobs))
    p = draw(st.lists(st.integers(least_time, 12), min_size=jobs, max_size=jobs))
    d = draw(st.lists(st.integers(-5, max(sum(p), 0) + 3), min_size=jobs, max_size=jobs))
    return np.array(p), np.array(d)


def test_worked_example() -> None:
    # arXiv 2510.24013: the challenger is optimal where the modified due date is not.
    assert mddc(P, D).tolist() == [3, 5, 2, 0, 1, 4]
    assert mdd(P, D).tolist() == [1, 0, 2, 3, 5, 4]
    assert total_tardiness(P, D, mddc(P, D)) == 141
    assert total_tardiness(P, D, mdd(P, D)) == 144
    assert total_tardiness(P, D, subset_optimal_order(P, D)) == 141


def test_augmentation_moves_a_long_job_behind_each_that_is_appended() -> None:
    p, d = np.array([10, 1, 1]), np.array([1, 2, 3])
    assert total_tardiness(p, d, [0, 1, 2]) == 9 + 9 + 9
    assert augment(p, d, edd(p, d)).tolist() == [1, 2, 0]
    assert total_tardiness(p, d, [1, 2, 0]) == 11


def test_total_tardiness_counts_late_jobs_only() -> None:
    # Ends 3, 5, 9 against due dates 4, 4, 4.
    assert total_tardiness([2, 3, 4], [4, 4, 4], [1, 0, 2]) == 0 + 1 + 5


def test_sorted_rules_and_their_ties() -> None:
    p, d = np.array([3, 1, 2, 1]), np.array([5, 5, 2, 3])
    assert edd(p, d).tolist() == [2, 3, 0, 1]
    assert spt(p, d).tolist() == [3, 1, 2, 0]


def plain_psk(p: I64, d: I64) -> list[int]:
    """Return the order by the steps as the paper numbers them."""
    waiting = sorted(range(len(p)), key=lambda job: (p[job], d[job]))
    order, now = [], 0
    while waiting:
        active = 0
        while now + p[waiting[active]] < d[waiting[active]]:
            due = d[waiting[active]]
            later = range(active + 1, len(waiting))
            # Longer jobs in turn: stop before one that would make the active job late, switch to one due earlier.
            turn = next((i for i in later if due <= now + p[waiting[i]] or d[waiting[i]] < due), None)
            if turn is None or due <= now + p[waiting[turn]]:
                break
            active = turn
        now += p[waiting[active]]
        order.append(waiting.pop(active))
    return order


def plain_mddc(p: I64, d: I64) -> list[int]:
    waiting = np.lexsort((p, d))
    order, now = [], 0
    while len(waiting):
        work = p[waiting]
        share = np.minimum(work / (now + work.max()), 1.0)
        key = np.maximum(1.1 * work + now, d[waiting]) * (1.0 + share**2 / (1.0 + share**2))
        best = int(np.argmin(key + work / (now + work.sum() / len(work))))
        now += int(work[best])
        order.append(int(waiting[best]))
        waiting = np.delete(waiting, best)
    return order


def plain_eddc(p: I64, d: I64) -> list[int]:
    order = sorted(range(len(p)), key=lambda job: (p[job], d[job]))
    for i in range(1, len(order)):
        for j in range(i, 0, -1):
            job, before = order[j], order[j - 1]
            if d[job] >= d[before]:
                break
            if d[before] > sum(p[other] for other in order[:j]):
                order[j - 1], order[j] = job, before
    return order


def plain_augmented_mdd(p: I64, d: I64) -> list[int]:
    """Return the order with the search inside the rule, as published."""
    waiting, order, now = list(range(len(p))), list[int](), 0

    def tardiness(jobs: list[int]) -> int:
        return int(np.maximum(np.cumsum(p[jobs]) - d[jobs], 0).sum())

    while waiting:
        job = min(waiting, key=lambda job: max(now + p[job], d[job]))
        waiting.remove(job)
        order.append(job)
        now += p[job]
        moved = [order[:i] + order[i + 1 :] + [order[i]] for i in range(len(order) - 1)]
        order = min([order, *moved], key=tardiness)
    return order


@given(problems(most_jobs=12, least_time=1))
def test_rules_equal_their_definitions_written_out(problem: tuple[I64, I64]) -> None:
    p, d = problem
    assert psk(p, d).tolist() == plain_psk(p, d)
    assert mddc(p, d).tolist() == plain_mddc(p, d)
    assert eddc(p, d).tolist() == plain_eddc(p, d)
    assert AUGMENTED_RULES["augmented-mdd"](p, d).tolist() == plain_augmented_mdd(p, d)


def choose(p: I64, d: I64, index: dict[int, float]) -> int:
    return min(index, key=lambda job: (-round(index[job], 12), d[job], p[job], job))


@given(problems(least_time=1), st.sampled_from([0.5, 2.0, 3.0]))
def test_indices_of_atc_and_covert(problem: tuple[I64, I64], k: float) -> None:
    p, d = problem
    for rule in (atc, covert):
        now, waiting = 0, set(range(len(p)))
        for job in rule(p, d, look_ahead=k):
            slack = {other: max(d[other] - p[other] - now, 0) for other in waiting}
            mean = float(np.mean(p[list(waiting)]))
            index = {
                other: math.exp(-slack[other] / (k * mean)) / p[other]
                if rule is atc
                else max(0.0, 1.0 - slack[other] / (k * p[other])) / p[other]
                for other in waiting
            }
            # Equal up to rounding is a tie that either may win.
            assert index[int(job)] == pytest.approx(index[choose(p, d, index)], rel=1e-9, abs=1e-12)
            waiting.remove(int(job))
            now += p[job]


@given(problems(least_time=-4))
def test_every_rule_orders_all_jobs_and_is_no_better_than_the_optimum(problem: tuple[I64, I64]) -> None:
    p, d = problem
    least = total_tardiness(p, d, subset_optimal_order(p, d))
    for name, rule in RULES.items():
        order = rule(p, d)
        assert sorted(order.tolist()) == list(range(len(p))), name
        assert order.dtype == np.int64
        plain = total_tardiness(p, d, order)
        better = total_tardiness(p, d, AUGMENTED_RULES[f"augmented-{name}"](p, d))
        assert least <= better <= plain, name


@given(problems(), st.integers(0, 2**32))
def test_augmentation_is_never_worse_and_leaves_its_input(problem: tuple[I64, I64], seed: int) -> None:
    p, d = problem
    order = np.random.default_rng(seed).permutation(len(p))
    before = order.copy()
    assert total_tardiness(p, d, augment(p, d, order)) <= total_tardiness(p, d, order)
    assert (order == before).all()


def test_rules_at_their_best() -> None:
    # No job need be late: earliest due date and what becomes of it; all are late: shortest processing time.
    p, d = np.array([5, 3, 4]), np.array([5, 8, 12])
    for name in ("edd", "mdd", "psk"):
        assert RULES[name](p, d).tolist() == [0, 1, 2]
    for name in ("spt", "mdd", "mddc", "psk", "atc", "covert"):
        assert RULES[name](p, np.array([-1, -2, -3])).tolist() == [1, 2, 0]


def test_far_due_dates_do_not_underflow_to_ties() -> None:
    p, d = np.array([1, 10, 10]), np.array([10**7 + 500, 10**7, 10**7 + 90])
    assert atc(p, d).tolist() == [1, 2, 0]


def test_jobs_without_work_at_time_zero() -> None:
    p, d = np.array([0, 0, 0]), np.array([3, 1, 2])
    for name in ("mddc", "edd", "mdd"):
        assert RULES[name](p, d).tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("p", "d", "message"),
    [
        ([1, 2], [1], "field d: 1 values, expected 2 as in p"),
        ([], [], r"field p: shape \(0,\), expected one value per job"),
        ([[1]], [1], r"field p: shape \(1, 1\), expected one value per job"),
        ([1.5], [1], "field p: dtype float64, expected integers"),
        ([1], [2**53], "field d: absolute values sum to more than 4503599627370496"),
    ],
)
def test_bad_arrays_are_refused(p: list[int], d: list[int], message: str) -> None:
    for rule in (mdd, mddc, atc):
        with pytest.raises(InstanceError, match=message):
            rule(np.array(p), np.array(d))


@pytest.mark.parametrize("order", [[0, 0], [0], [1, 2], [0.0, 1.0]])
def test_bad_orders_are_refused(order: list[int]) -> None:
    with pytest.raises(SolutionError, match=r"field order: .*expected"):
        total_tardiness([1, 2], [3, 4], order)
    with pytest.raises(SolutionError, match=r"field order: .*expected"):
        augment(np.array([1, 2]), np.array([3, 4]), np.array(order))


@pytest.mark.parametrize("look_ahead", [0.0, -1.0, math.nan, math.inf])
def test_bad_look_ahead_is_refused(look_ahead: float) -> None:
    with pytest.raises(ConfigError, match=f"option look_ahead: {look_ahead}, expected more than 0"):
        atc(P, D, look_ahead=look_ahead)
