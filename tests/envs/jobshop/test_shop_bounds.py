"""Lower bounds of shops: known values, agreement with those of the job shop, never above a brute-force optimum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.envs.jobshop.bounds import bounds
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.shop import NO_DUE_DATE, ShopInstance
from schedrl.envs.jobshop.shop_bounds import earliest_times, shop_bounds
from schedrl.envs.jobshop.shop_checker import check_shop
from schedrl.envs.jobshop.shop_schedule import ShopSchedule, objectives
from schedrl.envs.jobshop.suites import load_instance


def values(instance: ShopInstance) -> dict[str, float]:
    return {bound.name: bound.value for bound in shop_bounds(instance)}


def one_machine(durations: list[int], **fields: Any) -> ShopInstance:
    jobs = JobShopInstance.from_jobs([[(0, duration)] for duration in durations], name="one")
    return ShopInstance.from_job_shop(jobs, **fields)


@pytest.mark.parametrize("name", ["ft06", "ft10", "la01", "ta01", "swv01"])
def test_a_job_shop_has_the_bounds_it_had(name: str) -> None:
    instance = load_instance(name)
    assert isinstance(instance, JobShopInstance)
    job, load, preemptive = (bound.value for bound in bounds(instance))
    found = values(ShopInstance.from_job_shop(instance))
    # The load may be that of all machines together.
    assert found["longest-job"] == job and found["one-machine-preemptive"] == preemptive
    assert load <= found["machine-load"] <= preemptive
    # Measured optima with blocking and swaps are larger still.
    assert values(ShopInstance.from_job_shop(instance, blocking="swap")) == found


def test_releases_choices_and_what_durations_turn_out_to_be() -> None:
    shop = ShopInstance(
        name="x",
        machines=3,
        job_offset=np.array([0, 2, 3]),
        mode_offset=np.array([0, 1, 3, 5]),
        machine=np.array([0, 1, 2, 1, 2]),
        duration=np.array([9, 9, 9, 9, 9]),
        actual_duration=np.array([3, 6, 4, 7, 8]),
        release=np.array([5, 6]),
    )
    head, least, tail = earliest_times(shop)
    assert (head.tolist(), least.tolist(), tail.tolist()) == ([5, 8, 6], [3, 4, 7], [4, 0, 0])
    # Machines 1 and 2 share 4 + 7, from 6 on.
    assert values(shop) == {"longest-job": 13.0, "machine-load": 12.0, "one-machine-preemptive": 12.0}


def test_setups_between_all_but_the_first() -> None:
    setup = np.array([[[9, 2, 3], [4, 9, 5], [9, 6, 9]]])
    shop = one_machine([10, 10, 10], setup=setup, setup_family=np.array([0, 1, 2]))
    # Before families 0, 1, 2 pass at least 4, 2, 3; the largest is saved by coming first.
    assert values(shop)["machine-load"] == 35.0
    assert brute_force(shop) == 37.0


def test_flow_time_of_one_machine_is_that_of_shortest_first() -> None:
    shop = one_machine([5, 1, 3], objective_weights=(0.0, 0.0, 1.0))
    assert values(shop) == {"job-dates": 9.0, "one-machine-srpt": 14.0, "one-fast-machine-srpt": 14.0}
    # Schrage's rule interrupts the long job for the one that comes at 1.
    late = one_machine([5, 1], release=np.array([0, 1]), objective_weights=(0.0, 0.0, 1.0))
    assert values(late)["one-machine-srpt"] == 7.0


def test_tardiness_of_one_machine() -> None:
    dates: dict[str, Any] = {"due": np.array([4, 4, NO_DUE_DATE]), "objective_weights": (0.0, 2.0, 0.0)}
    shop = one_machine([3, 3, 3], weight=np.array([1.0, 5.0, 1.0]), **dates)
    # One of the first two ends at 6, and it costs least if it is the lighter: 2 * 1 * (6 - 4).
    assert values(shop)["one-machine-srpt"] == 4.0 == brute_force(shop)


def test_weighted_sum_adds_the_largest_of_both() -> None:
    fields: dict[str, Any] = {"due": np.array([4, 4, 4])}
    single = [
        max(values(one_machine([3, 3, 3], objective_weights=weights, **fields)).values())
        for weights in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    ]
    (bound,) = shop_bounds(one_machine([3, 3, 3], objective_weights=(10.0, 3.0, 0.0), **fields))
    assert single == [9.0, 7.0] and (bound.name, bound.value) == ("weighted-sum", 111.0)
    assert "machine-load" in bound.why or "one-machine" in bound.why


def test_many_jobs_take_sorting_instead_of_assignment() -> None:
    rng = np.random.default_rng(0)
    durations = rng.integers(1, 20, 800)
    flow = one_machine(durations.tolist(), objective_weights=(0.0, 0.0, 1.0))
    assert values(flow)["one-machine-srpt"] == np.cumsum(np.sort(durations)).sum()
    due = rng.integers(0, 8000, 800)
    tardiness = one_machine(durations.tolist(), due=due, objective_weights=(0.0, 1.0, 0.0))
    expected = np.maximum(np.cumsum(np.sort(durations)) - np.sort(due), 0).sum()
    assert values(tardiness)["one-machine-srpt"] == expected


def after(instance: ShopInstance, machine: int, start: int, duration: int) -> tuple[int, int]:
    """First moment from ``start`` at which a machine is up, and the end of a duration begun then, unit by unit."""
    rows = range(instance.outage_offset[machine], instance.outage_offset[machine + 1])
    down = {t for k in rows for t in range(instance.outage_start[k], instance.outage_end[k])}
    while start in down:
        start += 1
    end = start
    while duration:
        duration -= end not in down
        end += 1
    return start, end


def brute_force(instance: ShopInstance) -> float:
    """Smallest objective over every order of appending operations, in every mode, as early as possible."""
    best = float("inf")
    mode, start = [0] * instance.operations, [0] * instance.operations

    def extend(done: tuple[int, ...], free: tuple[int, ...], last: tuple[int, ...], ready: tuple[int, ...]) -> None:
        nonlocal best
        extended = False
        for j, i in enumerate(done):
            if i == instance.job_offset[j + 1]:
                continue
            extended = True
            for k in range(instance.mode_offset[i], instance.mode_offset[i + 1]):
                m, family = int(instance.machine[k]), int(instance.setup_family[i])
                setup = int(instance.setup[m, last[m], family]) if last[m] >= 0 else 0
                earliest = max(ready[j], free[m] + setup)
                start[i], end = after(instance, m, earliest, int(instance.actual_duration[k]))
                mode[i] = k - int(instance.mode_offset[i])
                extend(put(done, j, i + 1), put(free, m, end), put(last, m, family), put(ready, j, end))
        if not extended:
            schedule = ShopSchedule(mode=np.array(mode), start_time=np.array(start))
            assert check_shop(instance, schedule) == []
            best = min(best, objectives(instance, schedule)[instance.objective])

    none = (0,) * instance.machines
    extend(tuple(instance.job_offset[:-1]), none, (-1,) * instance.machines, tuple(instance.release.tolist()))
    return best


def put(items: tuple[int, ...], index: int, value: int) -> tuple[int, ...]:
    return (*items[:index], int(value), *items[index + 1 :])


@st.composite
def tiny_shops(draw: st.DrawFn) -> ShopInstance:
    machines = draw(st.integers(1, 3))
    lengths = draw(st.sampled_from([[1], [2], [1, 1], [2, 1], [1, 1, 1], [2, 2], [3, 1], [1, 1, 2]]))
    operations, jobs = sum(lengths), len(lengths)
    choices = [draw(st.integers(1, 2 if operations < 4 else 1)) for _ in range(operations)]

    def numbers(count: int, high: int, low: int = 0) -> np.ndarray[Any, Any]:
        return np.array(draw(st.lists(st.integers(low, high), min_size=count, max_size=count)), dtype=np.int64)

    outage = draw(st.integers(0, 6))
    return ShopInstance(
        name="tiny",
        machines=machines,
        job_offset=np.cumsum([0, *lengths]),
        mode_offset=np.cumsum([0, *choices]),
        machine=numbers(sum(choices), machines - 1),
        duration=numbers(sum(choices), 9),
        actual_duration=numbers(sum(choices), 6),
        release=numbers(jobs, 6),
        due=numbers(jobs, 12),
        weight=numbers(jobs, 3),
        setup_family=numbers(operations, 1),
        # From family 0 to 1 and back; none within a family, so that the triangle inequality holds.
        setup=np.einsum("m,fg->mfg", numbers(machines, 2), 1 - np.eye(2, dtype=np.int64)),
        outage_offset=np.array([0] + [1] * machines),
        outage_start=np.array([outage]),
        outage_end=np.array([outage + 2]),
        objective_weights=draw(
            st.sampled_from([(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 2.0, 1.0), (3.0, 1.0, 0.5)])
        ),
    )


@settings(max_examples=60, deadline=None)
@given(shop=tiny_shops())
def test_bounds_never_exceed_the_optimum(shop: ShopInstance) -> None:
    optimum = brute_force(shop)
    for bound in shop_bounds(shop):
        assert bound.value <= optimum + 1e-9, bound
        assert bound.why and bound.value >= 0.0


@settings(max_examples=40, deadline=None)
@given(
    work=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    data=st.data(),
)
def test_one_machine_released_at_once_is_solved(work: list[int], data: st.DataObject) -> None:
    flow = one_machine(work, objective_weights=(0.0, 0.0, 1.0))
    assert values(flow)["one-machine-srpt"] == np.cumsum(sorted(work)).sum()
    due = data.draw(st.lists(st.integers(0, 20), min_size=len(work), max_size=len(work)))
    equal = one_machine([3] * len(work), due=np.array(due), objective_weights=(0.0, 1.0, 0.0))
    ends = 3 * np.arange(1, len(work) + 1)
    # Equal durations: earliest due date first is optimal.
    assert values(equal)["one-machine-srpt"] == np.maximum(ends - np.sort(due), 0).sum()
