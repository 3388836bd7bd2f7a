from __future__ import annotations

import numpy as np
import pytest

from schedrl.errors import ConfigError
from schedrl.plotting.distribution import distribution_chart


def test_curves_give_the_share_at_or_below_each_value() -> None:
    chart = distribution_chart({"a": np.array([3.0, 1.0, 3.0, 2.0]), "b": np.array([5.0])}, x_label="latency")
    first, second = chart.lines
    assert first.x.tolist() == [1, 1, 2, 3, 5] and first.y.tolist() == [0, 0.25, 0.5, 1, 1]
    assert second.x.tolist() == [1, 5, 5] and second.y.tolist() == [0, 1, 1]
    assert chart.stepped and chart.y_range == (0.0, 1.0) and chart.x_label == "latency"


def test_large_samples_are_thinned_to_quantiles() -> None:
    line = distribution_chart({"a": np.arange(10_001.0)}, x_label="x").lines[0]
    assert len(line.x) == 501 + 2
    assert line.y[1:-1] == pytest.approx(line.x[1:-1] / 10_000, abs=1e-3)


@pytest.mark.parametrize("samples", [{}, {"a": np.zeros(0)}])
def test_nothing_to_draw_is_refused(samples: dict[str, np.ndarray]) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        distribution_chart(samples, x_label="x")
