from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from packing_strategies import NEEDS_DATA, challenging, least_peak, packing_instances

from schedrl.baselines.memmap.packing_exact import SCHEDULERS, PackingCpSat
from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing, check_packing, max_live
from schedrl.errors import ConfigError
from schedrl.schedulers import Result


def run(instance: OffsetPackingInstance, time_limit_s: float = 30.0) -> Result:
    return PackingCpSat().schedule(instance, time_limit_s=time_limit_s, rng=np.random.default_rng(0))


def aligned(capacity: int | None = None) -> OffsetPackingInstance:
    """Two buffers of 3 bytes at multiples of 4: no packing ends below 7, though only 6 bytes live."""
    return OffsetPackingInstance(
        name="aligned",
        lower=np.zeros(2, int),
        upper=np.ones(2, int),
        size=np.full(2, 3),
        alignment=np.full(2, 4),
        capacity=capacity,
    )


@settings(max_examples=40, deadline=None)
@given(instance=packing_instances(buffers=5))
def test_proven_peaks_are_the_least_by_brute_force(instance: OffsetPackingInstance) -> None:
    least = least_peak(instance)
    result = run(instance)
    assert isinstance(result.solution, Packing)
    assert check_packing(instance, result.solution) == []
    assert (result.status, result.objective, result.lower_bound) == ("optimal", least, least)
    assert instance.fixed_offset is not None
    given_end = int((instance.size + np.maximum(instance.fixed_offset, 0)).max())
    for capacity in {least, least - 1} if least - 1 >= given_end else {least}:
        bounded = run(dataclasses.replace(instance, capacity=capacity))
        assert (bounded.status == "infeasible") == (capacity < least)
        assert (bounded.solution is None) == (capacity < least)


def test_the_bound_rises_above_the_most_live_bytes() -> None:
    result = run(aligned())
    assert max_live(aligned()) == 6
    assert (result.status, result.objective, result.lower_bound) == ("optimal", 7.0, 7.0)
    refuted = run(aligned(capacity=6))
    assert (refuted.status, refuted.solution, refuted.lower_bound) == ("infeasible", None, 7.0)


def test_without_time_the_greedy_packing_is_the_result() -> None:
    rng = np.random.default_rng(2)
    lower = rng.integers(0, 60, 80)
    instance = OffsetPackingInstance(
        name="crowd", lower=lower, upper=lower + rng.integers(5, 60, 80), size=rng.integers(1, 40, 80)
    )
    result = run(instance, time_limit_s=1e-6)
    assert isinstance(result.solution, Packing) and result.status == "feasible"
    assert check_packing(instance, result.solution) == []
    assert result.lower_bound == max_live(instance)


def test_no_worker_is_refused() -> None:
    with pytest.raises(ConfigError, match="field workers: 0"):
        PackingCpSat(workers=0)
    assert [spec.name for spec in SCHEDULERS] == ["memmap/packing-cp-sat"]


@NEEDS_DATA
def test_a_challenging_instance_is_solved() -> None:
    instance = challenging("H")
    result = run(instance, time_limit_s=60.0)
    assert isinstance(result.solution, Packing)
    assert check_packing(instance, result.solution) == []
    assert (result.status, result.objective) == ("optimal", 1048576.0)
