from __future__ import annotations

import numpy as np
import pytest

from schedrl.errors import ConfigError
from schedrl.plotting.profile import profile_chart, profile_shares


def test_shares_count_gaps_up_to_and_including_the_threshold() -> None:
    shares = profile_shares(np.array([0.1, 0.0, 0.3]), 4, np.array([-0.1, 0.0, 0.1, 0.2, 0.3, 9.0]))
    assert shares.tolist() == [0.0, 0.25, 0.5, 0.5, 0.75, 0.75]


def test_chart_runs_from_zero_to_the_largest_gap_in_percent() -> None:
    chart = profile_chart({"good": [0.0, 0.02], "bad": [0.2]}, total=2)
    good, bad = chart.lines
    assert good.x.tolist() == [0.0, 2.0, 20.0] and good.y.tolist() == [0.5, 1.0, 1.0]
    assert bad.x.tolist() == [0.0, 20.0] and bad.y.tolist() == [0.0, 0.5]
    assert chart.stepped and chart.y_range == (0.0, 1.0)


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected at least one line"):
        profile_chart({}, total=3)
