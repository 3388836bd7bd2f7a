"""The study of fleets: windows of the half that no training has seen, and a row per router."""

from __future__ import annotations

import os

import numpy as np
import pytest

from schedrl.baselines.routing.goodput import rule_play
from schedrl.envs.routing.fleets import TRAINING_DEVICES
from schedrl.experiments.benchmarks.routing_fleets import FLEETS, ROUTERS, row_of, windows_on
from schedrl.experiments.benchmarks.routing_goodput import POOLED, players

needs_data = pytest.mark.skipif(not os.environ.get("SCHEDRL_DATA"), reason="SCHEDRL_DATA is unset: no trace")


def test_at_least_five_fleets_have_types_that_training_never_draws() -> None:
    from schedrl.envs.routing.fleets import named_fleet

    unseen = [name for name in FLEETS if {s.device for s in named_fleet(name)} - set(TRAINING_DEVICES)]
    assert len(unseen) >= 5
    assert {"homogeneous", "heterogeneous"} <= set(FLEETS)


def test_every_router_of_the_study_exists() -> None:
    pytest.importorskip("onnxruntime")
    assert set(players([name for name in ROUTERS if name != POOLED])) == set(ROUTERS) - {POOLED}


@needs_data
def test_windows_come_from_the_second_half_and_rows_have_intervals() -> None:
    instances = windows_on("unseen-3", windows=2, refresh_s=0.1)
    assert [instance.requests for instance in instances] == [2000, 2000]
    assert all(instance.signal_refresh_s == 0.1 for instance in instances)
    row = row_of("unseen-3", 0.1, "min-ttft", rule_play("min-ttft"), instances)
    assert 3.0 < float(str(row["low"])) <= float(str(row["goodput"])) <= float(str(row["high"])) < 6.5
    assert np.isfinite(float(str(row["hit_rate"])))
