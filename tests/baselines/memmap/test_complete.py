from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from hypothesis import given, settings
from packing_strategies import NEEDS_DATA, challenging, least_peak, packing_instances, public

from schedrl.baselines.memmap.complete import SCHEDULERS, CompletePacking
from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing, check_packing, max_live
from schedrl.schedulers import Result

CAPACITY = 2**20


def run(instance: OffsetPackingInstance, limit_s: float = 60.0, *, stop: bool = False, seed: int = 0) -> Result:
    scheduler = CompletePacking(stop_at_capacity=stop)
    result = scheduler.schedule(instance, time_limit_s=limit_s, rng=np.random.default_rng(seed))
    if result.solution is not None:
        assert isinstance(result.solution, Packing)
        assert check_packing(instance, result.solution) == []
        assert result.objective == int((result.solution.offset + instance.size).max())
    return result


def within(instance: OffsetPackingInstance, capacity: int) -> OffsetPackingInstance:
    return dataclasses.replace(instance, capacity=capacity)


def least_capacity(instance: OffsetPackingInstance) -> int:
    """Return the least capacity that each buffer alone and the given offsets allow."""
    assert instance.fixed_offset is not None
    return int((np.maximum(instance.fixed_offset, 0) + instance.size).max())


@settings(max_examples=150, deadline=None)
@given(instance=packing_instances(buffers=6))
def test_proven_peaks_are_the_least_by_brute_force(instance: OffsetPackingInstance) -> None:
    least = least_peak(instance)
    result = run(instance)
    assert (result.status, result.objective, result.lower_bound) == ("optimal", least, least)


@settings(max_examples=150, deadline=None)
@given(instance=packing_instances(buffers=6))
def test_fits_exactly_where_brute_force_does(instance: OffsetPackingInstance) -> None:
    least = least_peak(instance)
    assert run(within(instance, least), stop=True).objective == least
    if least > least_capacity(instance):
        result = run(within(instance, least - 1), stop=True)
        assert (result.status, result.solution) == ("infeasible", None)


def interlocked(capacity: int | None = None) -> OffsetPackingInstance:
    """A buffer of 6 bytes of which the middle third is live while another, of 2 bytes, lives in the lowest third."""
    return OffsetPackingInstance(
        name="interlocked",
        lower=np.array([0, 1, 0]),
        upper=np.array([3, 2, 3]),
        size=np.array([6, 2, 2]),
        gap_offset=np.array([0, 1, 1, 1]),
        gaps=np.array([[1, 2, 2, 6]]),
        fixed_offset=np.array([-1, -1, 0]),
        capacity=capacity,
    )


def test_places_a_buffer_in_the_unused_bytes_of_another() -> None:
    result = run(interlocked())
    # 2 bytes given at 0, 6 above them; at instant 1 the other lies in the lowest two of the 6.
    assert (result.status, result.objective) == ("optimal", 8.0)
    assert result.solution is not None
    assert result.solution.offset.tolist() == [2, 2, 0]


def test_proves_that_alignment_makes_a_capacity_infeasible() -> None:
    instance = OffsetPackingInstance(
        name="aligned",
        lower=np.zeros(2, int),
        upper=np.ones(2, int),
        size=np.full(2, 3),
        alignment=np.full(2, 4),
        capacity=6,
    )
    assert run(instance).status == "infeasible"
    assert run(within(instance, 7)).status == "optimal"


def test_a_capacity_below_the_live_bytes_is_infeasible_at_once() -> None:
    instance = OffsetPackingInstance(
        name="full", lower=np.zeros(3, int), upper=np.ones(3, int), size=np.full(3, 4), capacity=11
    )
    result = run(instance)
    assert (result.status, result.lower_bound, result.solution) == ("infeasible", 12.0, None)


def guillotine(buffers: int, seed: int, *, height: int = 1000, width: int = 400) -> OffsetPackingInstance:
    """Cut a rectangle of bytes and time at random: the least peak is its height, and nothing is wasted."""
    rng = np.random.default_rng(seed)
    pieces = [(0, width, height)]
    while len(pieces) < buffers:
        start, end, size = pieces.pop(int(np.argmax([(e - s) * z for s, e, z in pieces])))
        if rng.random() < 0.5:
            cut = int(rng.integers(start + 1, end))
            pieces += [(start, cut, size), (cut, end, size)]
        else:
            cut = int(rng.integers(1, size))
            pieces += [(start, end, cut), (start, end, size - cut)]
    start, end, size = np.array(pieces)[rng.permutation(len(pieces))].T
    return OffsetPackingInstance(name=f"cut-{seed}", lower=start, upper=end, size=size, capacity=height)


@pytest.mark.parametrize("seed", range(6))
def test_finds_packings_without_waste(seed: int) -> None:
    result = run(guillotine(40, seed))
    assert (result.status, result.objective) == ("optimal", 1000.0)


def test_byte_counts_beyond_32_bits() -> None:
    cut = guillotine(40, 0)
    # The single byte afterwards keeps the sizes from having a large common divisor.
    instance = OffsetPackingInstance(
        name="large",
        lower=np.append(cut.lower, 400),
        upper=np.append(cut.upper, 401),
        size=np.append(cut.size * 2**30, 1),
    )
    result = run(instance)
    assert (result.status, result.objective) == ("optimal", 1000.0 * 2**30)
    assert result.decisions > 0


# The capacities in their names, which equal the bytes live at once.
@NEEDS_DATA
@pytest.mark.parametrize(
    ("name", "least"), [("a", 6), ("b", 6), ("c", 8), ("d", 9), ("e", 12), ("f", 14), ("g", 7), ("input", 12)]
)
def test_small_instances_of_minimalloc_meet_their_capacity(name: str, least: int) -> None:
    instance = public("minimalloc_small", f"{name}.")
    assert run(instance).objective == least
    assert run(within(instance, least - 1)).status == "infeasible"


@NEEDS_DATA
@pytest.mark.parametrize("letter", "ABCDEFGHIJK")
def test_all_challenging_instances_fit_their_capacity(letter: str) -> None:
    result = run(within(challenging(letter), CAPACITY), stop=True)
    assert result.status in ("optimal", "feasible")
    assert result.runtime_s < 5.0


@NEEDS_DATA
@pytest.mark.parametrize(("letter", "least"), [("C", 1039360), ("I", 1048576)])
def test_meets_the_live_bytes_without_a_capacity(letter: str, least: int) -> None:
    instance = challenging(letter)
    assert max_live(instance) == least
    result = run(instance)
    assert (result.status, result.objective) == ("optimal", float(least))


@NEEDS_DATA
def test_obeys_the_time_limit_and_never_falls_behind_the_greedy_packing() -> None:
    instance = challenging("D")
    run(instance, 0.0)
    started = time.perf_counter()
    result = run(instance, 0.5)
    assert time.perf_counter() - started < 1.0
    first = run(instance, 0.0)
    assert result.objective is not None and first.objective is not None
    assert max_live(instance) < result.objective <= first.objective


@NEEDS_DATA
def test_the_seed_alone_decides() -> None:
    results = [run(within(challenging("A"), CAPACITY), stop=True, seed=3) for _ in range(2)]
    assert results[0].solution == results[1].solution
    assert results[0].decisions == results[1].decisions


@NEEDS_DATA
def test_large_programs_get_a_greedy_packing() -> None:
    instance = public("idealloc_suite", "somas_pangu")
    result = run(instance, 1.0)
    assert result.objective is not None
    assert result.objective <= 1.0077 * max_live(instance)


def test_registers_both_variants() -> None:
    assert [spec.name for spec in SCHEDULERS] == ["memmap/complete", "memmap/complete-feasible"]
    assert isinstance(SCHEDULERS[1].make(), CompletePacking)
