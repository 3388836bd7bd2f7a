from __future__ import annotations

import pytest

from schedrl.plotting.axes import inline_svg, nice_ticks, number


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [
        (0, 67, 8, [0, 10, 20, 30, 40, 50, 60]),
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-3, 3, 3, [-2, 0, 2]),
        (1230, 1231, 2, [1230, 1230.5, 1231]),
        (5, 5, 8, [5]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, count: int, expected: list[float]) -> None:
    assert nice_ticks(low, high, count) == pytest.approx(expected)


def test_numbers_are_short() -> None:
    assert [number(value) for value in (3.0, -2, 0.1 + 0.2, 1234567.5)] == ["3", "-2", "0.3", "1.23457e+06"]


def test_inline_svg_drops_what_only_files_need() -> None:
    file = '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="1"></svg>'
    assert inline_svg(file) == '<svg width="1"></svg>'
