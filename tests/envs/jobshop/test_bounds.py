"""Lower bounds: published values, ordering, and never above a brute-force optimum."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.envs.jobshop.bounds import bounds, heads_and_tails
from schedrl.envs.jobshop.generators import uniform
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.suites import SUITES, load_instance


def values(instance: JobShopInstance) -> dict[str, int]:
    return {bound.name: int(bound.value) for bound in bounds(instance)}


def optimum(instance: JobShopInstance) -> int:
    """Smallest makespan over every order of appending operations, which contains an optimal schedule."""
    ends = instance.job_offset[1:]

    def best(position: tuple[int, ...], job_free: tuple[int, ...], machine_free: tuple[int, ...]) -> int:
        results = []
        for j, i in enumerate(position):
            if i < ends[j]:
                m = int(instance.machine[i])
                end = max(job_free[j], machine_free[m]) + int(instance.duration[i])
                results.append(best(put(position, j, i + 1), put(job_free, j, end), put(machine_free, m, end)))
        return min(results, default=max(job_free))

    return best(tuple(instance.job_offset[:-1]), (0,) * instance.jobs, (0,) * instance.machines)


def put(items: tuple[int, ...], index: int, value: int) -> tuple[int, ...]:
    return (*items[:index], value, *items[index + 1 :])


def preemptive_by_subsets(instance: JobShopInstance) -> int:
    """Carlier's formula: the largest of min head + work + min tail over all sets of a machine's operations."""
    head, tail = heads_and_tails(instance)
    best = 0
    for m in range(instance.machines):
        mine = np.flatnonzero(instance.machine == m)
        for size in range(1, len(mine) + 1):
            for chosen in itertools.combinations(mine, size):
                ids = list(chosen)
                best = max(best, int(head[ids].min() + instance.duration[ids].sum() + tail[ids].min()))
    return best


# Taillard's own lower bounds, from the headers of his files (EJOR 64, 1993): max of longest job and machine load.
@pytest.mark.parametrize(
    ("name", "published"),
    [("ta01", 1005), ("ta11", 1254), ("ta21", 1217), ("ta31", 1764), ("ta51", 2760), ("ta61", 2868), ("ta71", 5464)],
)
def test_taillards_published_bound(name: str, published: int) -> None:
    found = values(load_instance(name))
    assert max(found["longest-job"], found["machine-load"]) == published


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ft06", {"longest-job": 47, "machine-load": 52, "one-machine-preemptive": 52}),
        ("ft10", {"longest-job": 655, "machine-load": 796, "one-machine-preemptive": 808}),
        ("la01", {"longest-job": 413, "machine-load": 666, "one-machine-preemptive": 666}),
    ],
)
def test_known_instances(name: str, expected: dict[str, int]) -> None:
    assert values(load_instance(name)) == expected


# trivial_lb of the 2026 bounds table: the larger of the longest job and the largest bare machine load.
@pytest.mark.parametrize(
    ("name", "trivial"),
    [("abz5", 868), ("abz7", 556), ("abz8", 566), ("swv07", 1128), ("swv10", 1159), ("ta30", 1212), ("ta41", 1830)],
)
def test_never_below_the_trivial_bound(name: str, trivial: int) -> None:
    instance = load_instance(name)
    bare_load = np.bincount(instance.machine, weights=instance.duration).max()
    assert max(values(instance)["longest-job"], bare_load) == trivial
    assert values(instance)["machine-load"] >= bare_load


@pytest.mark.parametrize("suite", ["ft", "la", "abz", "orb", "swv", "yn", "taillard-15x15", "taillard-100x20"])
def test_bounds_stay_below_the_best_proven_ones(suite: str) -> None:
    for entry in SUITES[suite].load():
        assert isinstance(entry.instance, JobShopInstance)
        job, load, preemptive = (bound.value for bound in bounds(entry.instance))
        assert entry.lower_bound is not None
        assert max(job, load) <= preemptive <= entry.lower_bound


@pytest.mark.parametrize("seed", range(12))
def test_bounds_never_exceed_the_optimum_of_3x3(seed: int) -> None:
    instance = uniform(np.random.default_rng(seed), jobs=3, machines=3, low=0, high=9)
    assert max(values(instance).values()) <= optimum(instance)


JOBS = st.lists(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=3), min_size=1, max_size=3
)


@settings(max_examples=100, deadline=None)
@given(jobs=JOBS)
def test_reentrant_and_unequal_jobs(jobs: list[list[tuple[int, int]]]) -> None:
    instance = JobShopInstance.from_jobs(jobs, name="random", machines=4)
    found = values(instance)
    assert max(found["longest-job"], found["machine-load"]) <= found["one-machine-preemptive"] <= optimum(instance)
    assert found["one-machine-preemptive"] == preemptive_by_subsets(instance)
    assert values(instance.reversed()) == found


def test_every_bound_says_why() -> None:
    whys = [bound.why for bound in bounds(load_instance("ft06"))]
    assert whys[0] == "job 1 alone takes this long"
    assert "Taillard 1993" in whys[1]
    assert "Carlier, EJOR 11 (1982)" in whys[2]


def test_heads_and_tails() -> None:
    instance = JobShopInstance.from_jobs([[(0, 3), (1, 2), (0, 4)], [(1, 5)]], name="x")
    head, tail = heads_and_tails(instance)
    assert head.tolist() == [0, 3, 5, 0]
    assert tail.tolist() == [6, 4, 0, 0]
