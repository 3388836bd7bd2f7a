from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.errors import ConfigError
from schedrl.evaluation.primal_integral import primal_gap, primal_integral


@pytest.mark.parametrize(
    ("objective", "reference", "gap"),
    [
        (125.0, 100.0, 0.2),
        (80.0, 100.0, 0.2),
        (100.0, 100.0, 0.0),
        (0.0, 0.0, 0.0),
        (5.0, 0.0, 1.0),
        (-5.0, 5.0, 1.0),
        (-125.0, -100.0, 0.2),
        (math.inf, 3.0, 1.0),
        (math.nan, 3.0, 1.0),
    ],
)
def test_gap_as_berthold_defines_it(objective: float, reference: float, gap: float) -> None:
    assert primal_gap(objective, reference) == pytest.approx(gap)


def test_integral_of_steps() -> None:
    # 2 s without a solution (gap 1), 3 s at 200 (1/2), 5 s at 125 (1/5): 2 + 1.5 + 1 over 10 s.
    trace = [(2.0, 200.0), (5.0, 125.0)]
    assert primal_integral(trace, reference=100.0, until=10.0) == pytest.approx(0.45)
    # Cut at 5 s, before the second incumbent counts.
    assert primal_integral(trace, reference=100.0, until=5.0) == pytest.approx(0.7)


def test_no_solution_is_one_and_the_optimum_at_once_is_zero() -> None:
    assert primal_integral([], reference=7.0, until=3.0) == 1.0
    assert primal_integral([(0.0, 7.0)], reference=7.0, until=3.0) == 0.0
    assert primal_integral([(4.0, 7.0)], reference=7.0, until=3.0) == 1.0


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(1, 1000)), max_size=8), st.floats(0.5, 15))
def test_a_trace_that_is_better_throughout_has_the_smaller_integral(
    steps: list[tuple[float, float]], until: float
) -> None:
    trace = sorted(steps)
    worse = [(second, objective + 10.0) for second, objective in trace]
    better = primal_integral(trace, reference=1.0, until=until)
    assert 0.0 <= better <= primal_integral(worse, reference=1.0, until=until) <= 1.0 + 1e-12


def test_bad_times_are_errors() -> None:
    with pytest.raises(ConfigError, match=r"option until: 0\.0, expected a positive"):
        primal_integral([], reference=1.0, until=0.0)
    with pytest.raises(ConfigError, match=r"trace: 1\.0 s follows 2\.0 s"):
        primal_integral([(2.0, 5.0), (1.0, 4.0)], reference=1.0, until=3.0)
