from __future__ import annotations

import numpy as np
import pytest

from schedrl.baselines.routing.goodput import at_rate, attainment_of, goodput, goodput_interval, rule_play
from schedrl.devices.serving_time import COEFFICIENTS, OVERHEAD
from schedrl.envs.routing.fleet import ServingInstance
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.errors import ConfigError


def one_by_one(count: int = 200, ttft_slo_s: float = 1.5) -> RoutingInstance:
    """Return even arrivals at one instance that computes one prompt at a time, 1 s each."""
    row = np.zeros(COEFFICIENTS)
    row[OVERHEAD] = 1.0
    serving = ServingInstance(
        name="a", device="d", model="m", coefficients=row, kv_tokens=1 << 20, token_budget=100, max_sequences=1
    )
    return RoutingInstance(
        name="even",
        fleet=(serving,),
        arrival_s=np.arange(count, dtype=np.float64),
        prompt_tokens=np.full(count, 100, dtype=np.int32),
        output_tokens=np.ones(count, dtype=np.int32),
        ttft_slo_s=ttft_slo_s,
    )


def test_scales_arrivals() -> None:
    scaled = at_rate(one_by_one(), 4.0)
    assert 200 / scaled.arrival_s[-1] == pytest.approx(4.0)
    with pytest.raises(ConfigError, match="requests_per_s"):
        at_rate(scaled, 0.0)
    with pytest.raises(ConfigError, match="arrive at once"):
        at_rate(one_by_one(1), 1.0)


def test_goodput_of_a_queue_in_closed_form() -> None:
    # Every gap g = 1 / rate * 199 / 200 short of 1 s lets the n-th wait n (1 - g): 180 of 200 may wait 0.5 s at most.
    instance = one_by_one()
    found = goodput(instance, rule_play("round-robin"), tolerance=1e-4, warm_up=0)
    gap = 1.0 - 0.5 / 179
    assert found.requests_per_s == pytest.approx(200 / 199 / gap, abs=2e-4)
    assert found.attainment >= 0.9
    assert found.runs > 5


def test_the_warm_up_does_not_count() -> None:
    instance = at_rate(one_by_one(), 2.0)
    plan = rule_play("round-robin")(instance, np.random.default_rng(0))
    # Two wait at most 0.5 s; all that come later wait longer.
    assert attainment_of(instance, plan, warm_up=0) == pytest.approx(2 / 200, abs=1 / 200)
    assert attainment_of(instance, plan, warm_up=100) == 0.0
    with pytest.raises(ConfigError, match="warm_up"):
        attainment_of(instance, plan, warm_up=200)


def test_there_is_no_goodput_if_requests_are_late_at_any_rate() -> None:
    found = goodput(one_by_one(20, ttft_slo_s=0.5), rule_play("round-robin"), warm_up=0)
    assert (found.requests_per_s, found.attainment) == (0.0, 0.0)


def test_intervals() -> None:
    low, high = goodput_interval([12.0, 13.0, 14.0, 13.0])
    assert 12.0 <= low < 13.0 < high <= 14.0
    assert goodput_interval([5.0, 5.0]) == (5.0, 5.0)
    assert np.isnan(goodput_interval([])).all()
