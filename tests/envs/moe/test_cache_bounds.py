"""Lower bounds of the expert cache against plain search."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from schedrl.envs.moe.cache_bounds import cache_bounds, fewest_loads, next_uses
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from tests.envs.moe.small_caches import cache_of, caches, fewest_loads_by_search, least_decode_time


@settings(deadline=None)
@given(caches(requests=9))
def test_fewest_loads_are_those_of_a_search(instance: ExpertCacheInstance) -> None:
    assert fewest_loads(instance) == fewest_loads_by_search(instance)


def test_belady_on_a_classic_sequence() -> None:
    # The reference string of Belady, Nelson and Shedler (1969), with 3 and 4 pages.
    rows = [[page - 1] for page in (1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5)]
    assert fewest_loads(cache_of(rows, capacity=3, experts=5)) == 7
    assert fewest_loads(cache_of(rows, capacity=4, experts=5)) == 6
    assert fewest_loads(cache_of(rows, capacity=3, experts=5), 7) == 5
    assert fewest_loads(cache_of(rows, capacity=5, experts=5, initial=np.arange(5))) == 0


def test_bounds_of_a_worked_example() -> None:
    instance = cache_of([[0], [1], [2], [0], [1]], capacity=2)
    assert next_uses(instance).tolist() == [[3], [4], [5], [5], [5]]
    # Loads of 2 s, computations of 1 s: three experts before the third request and three computations from it on;
    # four loads before the last request.
    bounds = {bound.name: bound.value for bound in cache_bounds(instance)}
    assert {name: round(value, 9) for name, value in bounds.items()} == {
        "compute": 5.0,
        "compulsory": 9.0,
        "belady": 9.0,
    }
    values = list(bounds.values())
    assert values == sorted(values, reverse=True)


def test_loads_that_recur_count_each_time() -> None:
    instance = cache_of([[0], [1]] * 4, capacity=1, compute_s=np.array([0.5]))
    bounds = {bound.name: round(bound.value, 9) for bound in cache_bounds(instance)}
    assert bounds == {"compute": 4.0, "compulsory": 7.5, "belady": 16.5}


@settings(max_examples=40, deadline=None)
@given(caches(requests=5, experts=2))
def test_no_bound_exceeds_the_optimum(drawn: ExpertCacheInstance) -> None:
    # Integer durations, which the search needs.
    instance = cache_of(
        [[e for e in row if e >= 0] for row in drawn.requests.tolist()],
        capacity=drawn.capacity,
        layers=drawn.layers,
        experts=drawn.experts,
        layer=drawn.layer,
        token=drawn.token,
        compute_s=np.ceil(drawn.compute_s),
        expert_bytes=float(np.ceil(drawn.expert_bytes)),
        initial=drawn.initial,
    )
    optimum = least_decode_time(instance)
    for bound in cache_bounds(instance):
        assert bound.value <= optimum * (1 + 1e-9), bound.name
