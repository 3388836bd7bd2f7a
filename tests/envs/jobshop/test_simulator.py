from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, permutations, product
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.envs.jobshop.generators import recirculating, uniform
from schedrl.envs.jobshop.instance import JobShopInstance
from schedrl.envs.jobshop.observation import FEATURES
from schedrl.envs.jobshop.simulator import Generation, Simulator
from schedrl.envs.jobshop.solution import check, objectives
from schedrl.errors import ConfigError
from schedrl.graphs import DecisionBatch
from schedrl.schedulers import get_scheduler

GENERATIONS: tuple[Generation, ...] = get_args(Generation)
SEEDS = st.integers(0, 2**32 - 1)
# Job 0 runs on machine 0 for 2, then 1 for 4; job 1 on 1 for 3, then 0 for 1; job 2 on 0 for 5.
THREE_JOBS = JobShopInstance.from_jobs([[(0, 2), (1, 4)], [(1, 3), (0, 1)], [(0, 5)]], name="three")


def jobs_of(instance: JobShopInstance) -> list[range]:
    """Return the operations of each job."""
    return [range(first, stop) for first, stop in pairwise(instance.job_offset.tolist())]


def step(simulator: Simulator, action: int) -> tuple[float, bool]:
    reward, done = np.zeros(simulator.batch, dtype=np.float32), np.zeros(simulator.batch, dtype=np.bool_)
    simulator.step(np.full(simulator.batch, action, dtype=np.int32), reward, done)
    return float(reward[0]), bool(done[0])


def candidates(simulator: Simulator, row: int = 0) -> list[tuple[int, int]]:
    """Return (operation, start) of every candidate of a row."""
    state = simulator.state
    jobs = state.candidate_job[row, : state.candidates[row]]
    starts = state.candidate_start[row, : state.candidates[row]]
    return list(zip(state.next_operation[row, jobs].tolist(), starts.tolist(), strict=True))


def play(simulator: Simulator, rng: np.random.Generator) -> Iterator[float]:
    """Take random actions in row 0 until its end and yield the rewards."""
    while not simulator.finished(0):
        yield step(simulator, int(rng.integers(simulator.state.candidates[0])))[0]


def best_makespan(simulator: Simulator) -> float:
    """Return the least makespan over all action sequences, by depth-first search."""
    if simulator.finished(0):
        return simulator.objective(0)
    here, best = simulator.snapshot(), np.inf
    for action in range(int(simulator.state.candidates[0])):
        simulator.restore(here)
        step(simulator, action)
        best = min(best, best_makespan(simulator))
    return best


def brute_force(instance: JobShopInstance) -> int:
    """Return the optimal makespan over all orders of operations on all machines."""
    members = [np.flatnonzero(instance.machine == machine).tolist() for machine in range(instance.machines)]
    lengths = [makespan(instance, orders) for orders in product(*map(permutations, members))]
    return min(length for length in lengths if length is not None)


def makespan(instance: JobShopInstance, orders: Sequence[Sequence[int]]) -> int | None:
    """Return the makespan of given machine orders, None when they wait for each other in a circle."""
    before: dict[int, list[int]] = {operation: [] for operation in range(instance.operations)}
    for operation in range(1, instance.operations):
        if instance.job[operation] == instance.job[operation - 1]:
            before[operation].append(operation - 1)
    for order in orders:
        for first, second in pairwise(order):
            before[second].append(first)
    end: dict[int, int] = {}
    while len(end) < instance.operations:
        ready = [o for o in before if o not in end and all(other in end for other in before[o])]
        if not ready:
            return None
        for operation in ready:
            end[operation] = max((end[o] for o in before[operation]), default=0) + int(instance.duration[operation])
    return max(end.values())


def reference(instance: JobShopInstance, generation: Generation, start: dict[int, int]) -> list[tuple[int, int]]:
    """Return the candidates (operation, start) of a partial schedule, written from the definitions."""
    end = {operation: begin + int(instance.duration[operation]) for operation, begin in start.items()}
    waiting = []
    for job in jobs_of(instance):
        operation = next((o for o in job if o not in start), None)
        if operation is None:
            continue
        ready = end[operation - 1] if operation > job[0] else 0
        others = sorted((start[o], end[o]) for o in start if instance.machine[o] == instance.machine[operation])
        if generation == "left-shift":
            begin = ready
            for busy_from, busy_to in others:
                if begin + instance.duration[operation] <= busy_from:
                    break
                begin = max(begin, busy_to)
        else:
            begin = max([ready, *(busy_to for _, busy_to in others)])
        waiting.append((operation, begin))
    if generation in ("semi-active", "left-shift") or not waiting:
        return waiting
    chosen = min(waiting, key=lambda item: item[1] + instance.duration[item[0]])
    earliest_completion = chosen[1] + instance.duration[chosen[0]]
    rivals = [item for item in waiting if instance.machine[item[0]] == instance.machine[chosen[0]]]
    conflict = [item for item in rivals if item[1] < earliest_completion or item == chosen]
    if generation == "non-delay":
        conflict = [item for item in conflict if item[1] == min(begin for _, begin in conflict)]
    return conflict


@given(st.from_type(JobShopInstance), st.sampled_from(GENERATIONS), SEEDS)
def test_candidates_equal_a_plain_reference_at_every_decision(
    instance: JobShopInstance, generation: Generation, seed: int
) -> None:
    simulator = Simulator([instance], 1, generation=generation, skip_forced=False)
    rng, start = np.random.default_rng(seed), dict[int, int]()
    while not simulator.finished(0):
        offered = candidates(simulator)
        assert offered == reference(instance, generation, start)
        action = int(rng.integers(len(offered)))
        start[offered[action][0]] = offered[action][1]
        step(simulator, action)
    assert simulator.solution(0).start_time.tolist() == [start[o] for o in range(instance.operations)]


@given(st.from_type(JobShopInstance), st.sampled_from(GENERATIONS), st.booleans(), SEEDS)
def test_random_episodes_are_valid_and_returns_equal_the_relative_makespan(
    instance: JobShopInstance, generation: Generation, skip_forced: bool, seed: int
) -> None:
    simulator = Simulator([instance], 1, generation=generation, skip_forced=skip_forced)
    work = np.bincount(instance.job, instance.duration).max()
    bound = max(work, np.bincount(instance.machine, instance.duration).max(), 1)
    assert simulator.state.candidates[0] >= 1, "every episode has a decision"
    total = sum(play(simulator, np.random.default_rng(seed)))
    schedule = simulator.solution(0)
    assert check(instance, schedule) == []
    assert simulator.objective(0) == objectives(instance, schedule)["makespan"]
    lowest = max(work, np.bincount(instance.machine, instance.duration).max())
    assert total == pytest.approx((lowest - simulator.objective(0)) / bound, abs=1e-5)
    assert simulator.state.candidates[0] == 0


@given(st.from_type(JobShopInstance), st.sampled_from(GENERATIONS), SEEDS)
def test_returns_order_schedules_as_makespans_do(instance: JobShopInstance, generation: Generation, seed: int) -> None:
    rng, outcomes = np.random.default_rng(seed), []
    for _ in range(4):
        simulator = Simulator([instance], 1, generation=generation)
        # Rewards are float32; rounded to units of the bound's inverse they are exact.
        units = [round(reward * int(simulator.state.initial_bound[0])) for reward in play(simulator, rng)]
        outcomes.append((-sum(units), simulator.objective(0)))
    assert [value for _, value in sorted(outcomes)] == sorted(value for _, value in outcomes)
    assert len({total - value for total, value in outcomes}) == 1, "return and makespan differ by a constant"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("skip_forced", [False, True])
def test_active_candidates_lose_no_optimum(seed: int, skip_forced: bool) -> None:
    instance = uniform(np.random.default_rng(seed), jobs=3, machines=3, low=0, high=9)
    optimum = brute_force(instance)
    reached = {
        generation: best_makespan(Simulator([instance], 1, generation=generation, skip_forced=skip_forced))
        for generation in ("active", "non-delay")
    }
    assert reached["active"] == optimum
    assert reached["non-delay"] >= optimum


@pytest.mark.parametrize("generation", ["semi-active", "left-shift"])
def test_appending_and_inserting_reach_the_optimum_of_small_shops(generation: Generation) -> None:
    instance = JobShopInstance.from_jobs([[(0, 4), (1, 1)], [(0, 2), (1, 5)], [(1, 3), (0, 2)]], name="small")
    assert best_makespan(Simulator([instance], 1, generation=generation)) == brute_force(instance) == 9


def test_some_optimum_is_out_of_reach_of_non_delay_schedules() -> None:
    # Machine 0 must wait one time unit for job 1, whose long tail would otherwise start after job 0's four.
    instance = JobShopInstance.from_jobs([[(0, 4)], [(1, 1), (0, 1), (1, 9)]], name="wait")
    assert best_makespan(Simulator([instance], 1, generation="active")) == brute_force(instance) == 11
    assert best_makespan(Simulator([instance], 1, generation="non-delay")) == 14


@given(st.from_type(JobShopInstance), st.booleans(), SEEDS)
def test_non_delay_schedules_never_idle_while_an_operation_waits(
    instance: JobShopInstance, skip_forced: bool, seed: int
) -> None:
    simulator = Simulator([instance], 1, generation="non-delay", skip_forced=skip_forced)
    list(play(simulator, np.random.default_rng(seed)))
    start = simulator.solution(0).start_time
    end = start + instance.duration
    for operation in range(instance.operations):
        follows = operation > instance.job_offset[instance.job[operation]]
        ready = end[operation - 1] if follows else 0
        same = instance.machine == instance.machine[operation]
        busy = np.clip(np.minimum(end, start[operation]) - np.maximum(start, ready), 0, None)[same].sum()
        assert busy == start[operation] - ready


@given(st.from_type(JobShopInstance), SEEDS)
def test_active_schedules_leave_no_gap_that_an_operation_fits(instance: JobShopInstance, seed: int) -> None:
    # A zero duration may complete at EC* and still be dispatched first, so take positive ones.
    durations = [[(int(instance.machine[o]), 1 + int(instance.duration[o])) for o in job] for job in jobs_of(instance)]
    instance = JobShopInstance.from_jobs(durations, name="positive", machines=instance.machines)
    simulator = Simulator([instance], 1, generation="active")
    list(play(simulator, np.random.default_rng(seed)))
    start = {operation: int(begin) for operation, begin in enumerate(simulator.solution(0).start_time)}
    for operation in start:
        rest = {other: begin for other, begin in start.items() if other != operation}
        last_of_job = {o: b for o, b in rest.items() if instance.job[o] != instance.job[operation] or o < operation}
        on_machine = {o: b for o, b in rest.items() if instance.machine[o] == instance.machine[operation]}
        offered = dict(reference(instance, "left-shift", last_of_job | on_machine))
        assert offered.get(operation, start[operation]) >= start[operation]


def test_worked_example_of_each_candidate_set() -> None:
    # Completions: job 0 at 2, job 1 at 3, job 2 at 5. EC* is 2 on machine 0, where jobs 0 and 2 start before it.
    expected = {
        "active": [(0, 0), (4, 0)],
        "non-delay": [(0, 0), (4, 0)],
        "semi-active": [(0, 0), (2, 0), (4, 0)],
        "left-shift": [(0, 0), (2, 0), (4, 0)],
    }
    for generation in GENERATIONS:
        simulator = Simulator([THREE_JOBS], 1, generation=generation, skip_forced=False)
        assert candidates(simulator) == expected[generation]
        assert simulator.state.initial_bound[0] == 8


def test_the_delay_factor_narrows_the_window_between_non_delay_and_active() -> None:
    # Machine 0: job 0 could run 0 to 10; jobs 1 to 3 arrive at 2, 5 and 9.
    jobs = [[(0, 10)], [(1, 2), (0, 20)], [(2, 5), (0, 20)], [(3, 9), (0, 20)]]
    instance = JobShopInstance.from_jobs(jobs, name="window")
    for delay_factor, count in ((0.0, 1), (0.1, 1), (0.2, 2), (0.5, 3), (0.89, 3), (0.9, 4), (1.0, 4)):
        simulator = Simulator([instance], 1, delay_factor=delay_factor, skip_forced=False)
        for _ in range(3):
            step(simulator, 0)
        assert len(candidates(simulator)) == count


def test_left_shift_starts_in_the_first_gap_that_fits() -> None:
    # Machine 0 is busy 5..8 and 12..14; gaps 0..5 and 8..12 hold a job of 4, only the second one of 4 from 3 on.
    jobs = [[(1, 5), (0, 3)], [(1, 7), (0, 2)], [(0, 4)], [(2, 3), (0, 4)]]
    simulator = Simulator([JobShopInstance.from_jobs(jobs, name="gaps")], 1, generation="left-shift", skip_forced=False)
    for operation in (0, 1, 2, 3, 5):
        step(simulator, [offered for offered, _ in candidates(simulator)].index(operation))
    assert candidates(simulator) == [(4, 0), (6, 8)]
    step(simulator, 0)
    assert candidates(simulator) == [(6, 8)]


@given(st.lists(st.from_type(JobShopInstance), min_size=1, max_size=5), st.sampled_from(GENERATIONS), SEEDS)
def test_a_batch_of_unequal_sizes_equals_singles(
    instances: list[JobShopInstance], generation: Generation, seed: int
) -> None:
    batch = Simulator(instances, len(instances), generation=generation)
    singles = [Simulator([instance], 1, generation=generation) for instance in instances]
    shared = DecisionBatch.allocate(batch.batch, batch.slots, FEATURES)
    own = [DecisionBatch.allocate(1, single.slots, FEATURES) for single in singles]
    reward, done = np.zeros(batch.batch, dtype=np.float32), np.zeros(batch.batch, dtype=np.bool_)
    rng = np.random.default_rng(seed)
    while not done.all():
        batch.observe(shared)
        for row, (single, decision) in enumerate(zip(singles, own, strict=True)):
            single.observe(decision)
            np.testing.assert_array_equal(shared.candidates[row, : single.slots], decision.candidates[0])
            np.testing.assert_array_equal(
                shared.candidate_features[row, : single.slots], decision.candidate_features[0]
            )
            np.testing.assert_array_equal(shared.context[row], decision.context[0])
            assert not shared.candidate_features[row, single.slots :].any()
        action = (rng.random(batch.batch) * shared.count).astype(np.int32) - (shared.count == 0)
        batch.step(action.astype(np.int32), reward, done)
        for row, single in enumerate(singles):
            assert step(single, int(action[row])) == (reward[row], done[row])
    for row, single in enumerate(singles):
        np.testing.assert_array_equal(batch.solution(row).start_time, single.solution(0).start_time)


@given(st.from_type(JobShopInstance), st.sampled_from(GENERATIONS), SEEDS)
def test_a_restored_snapshot_continues_bit_for_bit(
    instance: JobShopInstance, generation: Generation, seed: int
) -> None:
    simulator = Simulator([instance], 1, generation=generation)
    rng = np.random.default_rng(seed)
    for _ in range(int(rng.integers(instance.operations))):
        if not simulator.finished(0):
            step(simulator, int(rng.integers(simulator.state.candidates[0])))
    kept, other = simulator.snapshot(), Simulator([instance], 1, generation=generation)
    rewards = list(play(simulator, np.random.default_rng(1)))
    other.restore(kept)
    assert list(play(other, np.random.default_rng(1))) == rewards
    for name, array in simulator.snapshot().items():
        np.testing.assert_array_equal(other.snapshot()[name], array, err_msg=name)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_negative_and_invalid_actions_change_nothing(generation: Generation) -> None:
    simulator = Simulator([THREE_JOBS], 1, generation=generation)
    before = simulator.snapshot()
    assert step(simulator, -1) == (0.0, False)
    for name, array in simulator.snapshot().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    for action in (int(simulator.state.candidates[0]), 10**6):
        assert step(simulator, action) == (0.0, False)
    after = simulator.snapshot()
    assert after.pop("invalid")[0] == 2
    for name, array in after.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    simulator.load(0, THREE_JOBS)
    assert simulator.invalid[0] == 0
    assert simulator.invalid_limit[0] == 5


@given(st.from_type(JobShopInstance), st.sampled_from(GENERATIONS), SEEDS)
def test_skipping_forced_moves_leaves_only_real_choices(
    instance: JobShopInstance, generation: Generation, seed: int
) -> None:
    simulator, rng = Simulator([instance], 1, generation=generation, skip_forced=True), np.random.default_rng(seed)
    decisions = []
    while not simulator.finished(0):
        decisions.append(int(simulator.state.candidates[0]))
        step(simulator, int(rng.integers(decisions[-1])))
    assert all(count >= 2 for count in decisions) or decisions == [1]


def test_rows_reload_with_shorter_and_longer_instances() -> None:
    rng = np.random.default_rng(3)
    simulator = Simulator([uniform(rng, jobs=4, machines=3)], 2)
    for _ in range(12):
        for row in range(2):
            simulator.load(row, instance := recirculating(rng, jobs=int(rng.integers(1, 5)), machines=3))
        list(play(simulator, rng))
        while not simulator.finished(1):
            step(simulator, 0)
        assert check(instance, simulator.solution(1)) == []


def test_what_does_not_fit_is_refused() -> None:
    simulator = Simulator([THREE_JOBS], 1)
    with pytest.raises(ConfigError, match=r"instance wide has \(jobs, machines\) \(1, 3\), room for \(3, 2\)"):
        simulator.load(0, JobShopInstance.from_jobs([[(0, 1)]], name="wide", machines=3))
    with pytest.raises(ConfigError, match=r"instance many has \(jobs, machines\) \(4, 1\)"):
        simulator.load(0, JobShopInstance.from_jobs([[(0, 1)]] * 4, name="many"))
    with pytest.raises(ConfigError, match="generation: 'lazy', expected one of active, non-delay"):
        Simulator([THREE_JOBS], 1, generation="lazy")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"delay_factor: 1\.5, expected 0 to 1"):
        Simulator([THREE_JOBS], 1, delay_factor=1.5)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_times_near_the_largest_allowed_stay_exact(generation: Generation) -> None:
    big = 2**50
    jobs = [[(0, big), (1, big)], [(1, big - 1), (0, 1)]]
    simulator = Simulator([JobShopInstance.from_jobs(jobs, name="big")], 1, generation=generation)
    list(play(simulator, np.random.default_rng(0)))
    schedule = simulator.solution(0)
    assert check(JobShopInstance.from_jobs(jobs, name="big"), schedule) == []
    assert schedule.start_time.max() + big >= simulator.objective(0) >= 2 * big


@pytest.mark.parametrize("name", ["jobshop/cp-sat", "jobshop/spt-twkr", "jobshop/lpt"])
@pytest.mark.parametrize("generation", [generation for generation in GENERATIONS if generation != "non-delay"])
def test_a_followed_schedule_is_no_longer_than_its_teacher(generation: Generation, name: str) -> None:
    # Operations in order of their starts, each as early as it can: none comes later than in the schedule. Without
    # delays, though, an optimal schedule may be out of reach.
    rng = np.random.default_rng(4)
    for instance in (uniform(rng, jobs=5, machines=4), recirculating(rng, jobs=4, machines=3)):
        teacher = get_scheduler(name).make().schedule(instance, time_limit_s=2.0, rng=np.random.default_rng(0))
        simulator = Simulator([instance], 1, generation=generation)
        while not simulator.finished(0):
            step(simulator, simulator.follow(0, teacher.solution))  # type: ignore[arg-type]
        followed = simulator.solution(0)
        assert check(instance, followed) == []
        assert simulator.objective(0) <= teacher.objective


@given(SEEDS)
def test_following_an_active_schedule_rebuilds_it(seed: int) -> None:
    instance = uniform(np.random.default_rng(seed), jobs=4, machines=3)
    teacher, student = (Simulator([instance], 1, generation="active") for _ in range(2))
    list(play(teacher, np.random.default_rng(seed)))
    while not student.finished(0):
        step(student, student.follow(0, teacher.solution(0)))
    assert student.solution(0) == teacher.solution(0)
