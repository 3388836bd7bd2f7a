"""The study of total tardiness: how gaps are taken, the mixed-up optima, and the printed gaps of two whole sets."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.envs.jobshop.single_machine_generators import SingleMachineProblem, read_single_machine
from schedrl.experiments.reproduce.smtt_heuristics import (
    MISALIGNED,
    PRINTED,
    SETS,
    STUDIED,
    gaps_of,
    misaligned,
    quicksort_edd,
    rows_of,
    tardiness_of,
    verdicts_of,
)

NEEDS_DATA = pytest.mark.skipif("SCHEDRL_DATA" not in os.environ, reason="SCHEDRL_DATA is unset: no published sets")


def published(name: str) -> list[SingleMachineProblem]:
    return read_single_machine(Path(os.environ["SCHEDRL_DATA"], SETS[name]))


def test_gaps_leave_out_optima_of_zero() -> None:
    gaps = gaps_of(np.array([5, 12, 30]), np.array([0, 10, 40]))
    assert gaps.mean == pytest.approx((20.0 - 25.0) / 2)
    assert gaps.aggregate == pytest.approx(100.0 * (47 / 50 - 1))
    assert (gaps.positive, gaps.below) == (2, 1)


def test_misaligned_optima() -> None:
    # Places 1, 10, 2 .. 9 hold the optima of instances so numbered; read in numeric order they come as 1, 2 .. 9, 10.
    stored = np.array([1, 10, 2, 3, 4, 5, 6, 7, 8, 9])
    assert misaligned(np.concatenate([stored, stored + 10])).tolist() == list(range(1, 21))


@given(st.integers(1, 120), st.integers(1, 60), st.integers(0, 2**32))
def test_quicksort_only_changes_ties(jobs: int, values: int, seed: int) -> None:
    d = np.random.default_rng(seed).integers(0, values, size=jobs)
    order = quicksort_edd(d, d)
    assert sorted(order.tolist()) == list(range(jobs))
    assert (d[order] == np.sort(d)).all()
    if jobs <= 17:
        assert (order == np.argsort(d, kind="stable")).all()


def test_verdicts_tell_reproduced_from_different() -> None:
    optima = np.array([100, 100])
    assert float(str(PRINTED["100", "mdd"].mean)) == 1.81
    tardiness = {"mdd": np.array([101, 102]), "mddc": np.array([101, 101]), "psk": np.array([101, 102])}
    rows = rows_of("100", tardiness, optima)
    assert rows[0]["mean_gap_pct"] == pytest.approx(1.5)
    assert rows[0]["mean_difference"] == pytest.approx(1.5 - 1.81)
    verdicts = [verdict.verdict for verdict in verdicts_of(rows, 0, {"100": (1, 2)})]
    assert verdicts == ["differs", "not measured", "than MDD on 1, than PSK on 1 of 1 sets", "wrong"]


@NEEDS_DATA
@pytest.mark.parametrize("name", ["20-uniform", "100"])
def test_printed_gaps(name: str) -> None:
    problems = published(name)
    optima = np.array([problem.optimum for problem in problems])
    rules = [rule for label, rule in PRINTED if label == name]
    rows = rows_of(name, {rule: tardiness_of(STUDIED[rule], problems) for rule in rules}, optima)
    for row in rows:
        assert row["below_optimum"] == 0
    assert verdicts_of(rows, 0, {})[0].verdict == "reproduced"


@NEEDS_DATA
def test_printed_500_jobs_are_an_error_of_labels() -> None:
    problems = published("500")
    optima = np.array([problem.optimum for problem in problems])
    tardiness = {rule: tardiness_of(STUDIED[rule], problems) for rule in ("mdd", "mddc", "psk", "eddc")}
    assert verdicts_of(rows_of(MISALIGNED, tardiness, misaligned(optima)), 0, {})[0].verdict == "reproduced"
    assert verdicts_of(rows_of("500", tardiness, optima), 0, {})[0].verdict == "reproduced"
    assert (np.minimum(tardiness["mdd"], tardiness["mddc"]) < misaligned(optima)).sum() == 63
