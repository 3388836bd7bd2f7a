from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.arrays import F64
from schedrl.baselines.jobshop.dispatch import Dispatcher
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.simulator import Generation
from schedrl.envs.jobshop.solution import check

JOB = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=5)
POSITIVE_JOB = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=5)


def plain_dispatch(instance: JobShopInstance, key: F64, generation: Generation) -> list[int]:
    """Schedule generation from its textbook definition, one operation at a time."""
    step = instance.job_offset[:-1].tolist()
    job_ready, machine_free = [0] * instance.jobs, [0] * instance.machines
    start = [0] * instance.operations
    while ready := [j for j in range(instance.jobs) if step[j] < instance.job_offset[j + 1]]:
        earliest = {j: max(job_ready[j], machine_free[instance.machine[step[j]]]) for j in ready}
        if generation == "non-delay":
            first = min(earliest.values())
            conflict = [j for j in ready if earliest[j] == first]
        else:
            leader = min(ready, key=lambda j: (earliest[j] + instance.duration[step[j]], j))
            completion = earliest[leader] + instance.duration[step[leader]]
            same = [j for j in ready if instance.machine[step[j]] == instance.machine[step[leader]]]
            conflict = [j for j in same if earliest[j] < completion or j == leader]
        job = min(conflict, key=lambda j: (key[step[j]], j))
        operation = step[job]
        start[operation] = earliest[job]
        job_ready[job] = machine_free[instance.machine[operation]] = earliest[job] + int(instance.duration[operation])
        step[job] += 1
    return start


@pytest.mark.parametrize("generation", ["non-delay", "active"])
@settings(max_examples=200, deadline=None)
@given(jobs=st.lists(POSITIVE_JOB, min_size=1, max_size=5), seed=st.integers(0, 2**32 - 1))
def test_generation_equals_its_definition(generation: Generation, jobs: list[list[tuple[int, int]]], seed: int) -> None:
    instance = JobShopInstance.from_jobs(jobs, name="random", machines=4)
    key = np.random.default_rng(seed).random(instance.operations)
    dispatcher = Dispatcher(instance, generation)
    makespan = dispatcher.run(key)
    start = plain_dispatch(instance, key, generation)
    assert dispatcher.schedule().start_time.tolist() == start
    assert makespan == max(np.array(start) + instance.duration)


@pytest.mark.parametrize("generation", ["non-delay", "active"])
@settings(max_examples=100, deadline=None)
@given(jobs=st.lists(JOB, min_size=1, max_size=5), seed=st.integers(0, 2**32 - 1))
def test_zero_durations_dispatch_to_valid_schedules(
    generation: Generation, jobs: list[list[tuple[int, int]]], seed: int
) -> None:
    instance = JobShopInstance.from_jobs(jobs, name="random", machines=4)
    dispatcher = Dispatcher(instance, generation)
    dispatcher.run(np.random.default_rng(seed).random(instance.operations))
    assert check(instance, dispatcher.schedule()) == []
