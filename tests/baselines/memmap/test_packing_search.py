from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from packing_strategies import NEEDS_DATA, challenging, least_peak, packing_instances

from schedrl.baselines.memmap.packing_rules import GreedyPacking, best_greedy_packing
from schedrl.baselines.memmap.packing_search import SCHEDULERS, HillClimb, PackingAnnealing
from schedrl.baselines.memmap.packing_tabu import PackingTabu
from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing, check_packing, max_live
from schedrl.errors import ConfigError
from schedrl.schedulers import Result

SEARCHES = (PackingAnnealing(max_iterations=300), HillClimb(), PackingTabu(max_steps=300))


def run(search: PackingAnnealing | HillClimb | PackingTabu, instance: OffsetPackingInstance, seed: int = 0) -> Result:
    return search.schedule(instance, time_limit_s=60.0, rng=np.random.default_rng(seed))


def crowd(buffers: int = 120) -> OffsetPackingInstance:
    rng = np.random.default_rng(1)
    lower = rng.integers(0, 100, buffers)
    return OffsetPackingInstance(
        name="crowd", lower=lower, upper=lower + rng.integers(5, 60, buffers), size=rng.integers(1, 40, buffers)
    )


@settings(max_examples=20, deadline=None)
@given(instance=packing_instances(buffers=5))
def test_packings_pass_the_checker_and_none_is_below_the_least_peak(instance: OffsetPackingInstance) -> None:
    least = least_peak(instance)
    greedy = (best_greedy_packing(instance) + instance.size).max()
    for search in SEARCHES:
        result = run(search, instance)
        assert isinstance(result.solution, Packing)
        assert check_packing(instance, result.solution) == []
        assert result.objective == (result.solution.offset + instance.size).max()
        assert result.objective >= least
        if not isinstance(search, HillClimb):
            assert result.objective <= greedy


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: type(search).__name__)
def test_same_seed_same_packing_and_another_seed_another(search: PackingAnnealing | HillClimb | PackingTabu) -> None:
    instance = crowd()
    first, again, other = (run(search, instance, seed) for seed in (3, 3, 4))
    assert first.solution == again.solution
    assert first.solution != other.solution


def test_every_search_improves_on_its_start() -> None:
    instance = crowd()
    greedy = (best_greedy_packing(instance) + instance.size).max()
    sizes = GreedyPacking(passes=(("size", "first"),)).schedule(
        instance, time_limit_s=1.0, rng=np.random.default_rng(0)
    )
    hill, annealed = run(HillClimb(), instance), run(PackingAnnealing(max_iterations=5000), instance)
    ejected = run(PackingTabu(max_steps=20_000), instance)
    assert hill.objective is not None and sizes.objective is not None and hill.objective < sizes.objective
    assert annealed.objective is not None and annealed.objective < greedy
    assert ejected.objective is not None and ejected.objective < greedy


@pytest.mark.parametrize("search", [PackingAnnealing(), PackingTabu()], ids=lambda search: type(search).__name__)
def test_a_search_stops_in_time_and_above_the_capacity_reports_a_timeout(
    search: PackingAnnealing | PackingTabu,
) -> None:
    loose = crowd()
    tight = OffsetPackingInstance(
        name="tight", lower=loose.lower, upper=loose.upper, size=loose.size, capacity=max_live(loose) - 1
    )
    search.schedule(loose, time_limit_s=0.01, rng=np.random.default_rng(0))
    started = time.perf_counter()
    result = search.schedule(tight, time_limit_s=0.3, rng=np.random.default_rng(0))
    assert time.perf_counter() - started < 1.0
    assert (result.solution, result.objective) == (None, None)
    assert (result.status, result.lower_bound) == ("timeout", max_live(loose))


def test_given_offsets_stay_and_block() -> None:
    instance = OffsetPackingInstance(
        name="given",
        lower=np.zeros(4, int),
        upper=np.full(4, 2),
        size=np.array([3, 2, 2, 1]),
        fixed_offset=np.array([2, -1, -1, -1]),
    )
    for search in SEARCHES:
        result = run(search, instance)
        assert isinstance(result.solution, Packing)
        assert (result.objective, result.status) == (8.0, "optimal")
        assert result.solution.offset[0] == 2


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: PackingAnnealing(hot=0.0), "hot"),
        (lambda: PackingAnnealing(cold=float("nan")), "cold"),
        (lambda: PackingAnnealing(max_iterations=0), "max_iterations"),
        (lambda: PackingTabu(tenure=0), "tenure"),
        (lambda: PackingTabu(max_steps=0), "max_steps"),
    ],
)
def test_options_out_of_range_are_refused(build: type, field: str) -> None:
    with pytest.raises(ConfigError, match=f"field {field}"):
        build()


def test_specs_are_randomised_and_named() -> None:
    assert [spec.name for spec in SCHEDULERS] == ["memmap/packing-annealing", "memmap/tvm-hill-climb"]
    assert all(spec.randomised and spec.summary and spec.source for spec in SCHEDULERS)


@NEEDS_DATA
@pytest.mark.parametrize(("letter", "tabu", "annealing"), [("B", 1.196, 1.234), ("E", 1.207, 1.273)])
def test_searches_beat_the_tabu_search_and_annealing_of_omnimalloc(letter: str, tabu: float, annealing: float) -> None:
    # omnimalloc 1.0.0 with three seconds and its defaults (shared/reference/memmap.md, B4).
    instance = challenging(letter)
    bound = max_live(instance)
    ejected, annealed = (
        run(PackingTabu(max_steps=30_000), instance),
        run(PackingAnnealing(max_iterations=3000), instance),
    )
    assert ejected.objective is not None and ejected.objective / bound < tabu - 0.05
    assert annealed.objective is not None and annealed.objective / bound < annealing
