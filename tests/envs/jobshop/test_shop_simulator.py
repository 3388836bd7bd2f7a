"""The shop game: every schedule valid, worked examples, and what it must not do."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.envs.jobshop.generators import uniform
from schedrl.envs.jobshop.shop import NO_DUE_DATE, ShopInstance
from schedrl.envs.jobshop.shop_checker import check_shop
from schedrl.envs.jobshop.shop_schedule import objectives
from schedrl.envs.jobshop.shop_simulator import Simulator
from schedrl.errors import ConfigError
from schedrl.graphs import DecisionBatch
from tests.envs.jobshop.small_shops import play_randomly, shops

EXAMPLES = int(os.environ.get("SCHEDRL_EXAMPLES", "150"))


@settings(max_examples=EXAMPLES, deadline=None)
@given(instance=shops(), seed=st.integers(0, 2**32 - 1), wait=st.booleans(), skip=st.booleans())
def test_random_play_of_any_variant_is_valid(instance: ShopInstance, seed: int, wait: bool, skip: bool) -> None:
    simulator = Simulator([instance], 1, wait=wait, skip_forced=skip)
    begin = float(simulator.state.estimate[0])
    (total,) = play_randomly(simulator, np.random.default_rng(seed))
    schedule = simulator.solution(0)
    assert check_shop(instance, schedule) == []
    value = objectives(instance, schedule)[instance.objective]
    assert simulator.objective(0) == pytest.approx(value)
    assert total * simulator.state.scale[0] == pytest.approx(begin - value, abs=1e-3 * max(1.0, value))
    assert simulator.finished(0) and simulator.invalid[0] == 0


def two_jobs(**fields: object) -> ShopInstance:
    """Return two jobs that visit two machines in opposite order: 2 then 3, and 2 then 4."""
    given_fields: dict[str, object] = {
        "name": "two", "machines": 2, "job_offset": [0, 2, 4], "mode_offset": [0, 1, 2, 3, 4],
        "machine": [0, 1, 1, 0], "duration": [2, 3, 2, 4],
    }  # fmt: skip
    return ShopInstance(**given_fields | fields)  # type: ignore[arg-type]


def play(simulator: Simulator, *jobs: int) -> None:
    """Take the candidate of each job in turn, -1 to wait."""
    reward, done = np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.bool_)
    for j in jobs:
        offered = simulator.state.candidate_job[0, : simulator.state.candidates[0]].tolist()
        simulator.step(np.array([offered.index(j)], dtype=np.int32), reward, done)


def test_jobs_that_block_each_other_swap() -> None:
    simulator = Simulator([two_jobs(blocking="swap")], 1, wait=False, skip_forced=False)
    play(simulator, 0, 1)
    # Both are done at 2 and each holds the machine that the other needs.
    assert simulator.finished(0)
    assert simulator.solution(0).start_time.tolist() == [0, 2, 0, 2] and simulator.objective(0) == 6.0


def test_without_swaps_the_start_that_would_lock_the_shop_is_not_offered() -> None:
    simulator = Simulator([two_jobs(blocking="no-swap")], 1, wait=False, skip_forced=False)
    play(simulator, 0)
    # Job 1 may enter machine 1 only once job 0 has gone through it.
    assert simulator.state.now[0] == 2 and simulator.state.candidate_job[0, :1].tolist() == [0]
    play(simulator, 0, 1, 1)
    assert simulator.solution(0).start_time.tolist() == [0, 2, 5, 7]


def test_an_outage_pauses_what_runs_and_is_not_foreseen() -> None:
    shop = two_jobs(outage_offset=[0, 1, 1], outage_start=[1], outage_end=[5])
    simulator = Simulator([shop], 1, wait=False, skip_forced=False)
    play(simulator, 0)
    assert simulator.state.ready[0, 0] == 6 and simulator.state.expected[0, 0] == 2
    play(simulator, 1, 1, 0)
    assert simulator.solution(0).start_time.tolist() == [0, 6, 0, 6]


def test_waiting_for_the_faster_machine_pays() -> None:
    # One operation each: machine 0 takes 2 and 3, machine 1 takes 9 for either.
    shop = ShopInstance(
        name="fast", machines=2, job_offset=[0, 1, 2], mode_offset=[0, 2, 4],  # type: ignore[arg-type]
        machine=[0, 1, 0, 1], duration=[2, 9, 3, 9],  # type: ignore[arg-type]
    )  # fmt: skip
    simulator = Simulator([shop], 1, skip_forced=False)
    play(simulator, 0, -1, 1)
    assert simulator.objective(0) == 5.0 and simulator.solution(0).mode.tolist() == [0, 0]
    greedy = Simulator([shop], 1, wait=False, skip_forced=False)
    play(greedy, 0, 1)
    assert greedy.objective(0) == 9.0


def test_setups_separate_families() -> None:
    shop = ShopInstance(
        name="paint", machines=1, job_offset=[0, 1, 2, 3], mode_offset=[0, 1, 2, 3],  # type: ignore[arg-type]
        machine=[0, 0, 0], duration=[1, 1, 1], setup_family=[0, 1, 0], setup=[[[0, 5], [2, 0]]],  # type: ignore[arg-type]
    )  # fmt: skip
    simulator = Simulator([shop], 1, skip_forced=False)
    play(simulator, 0, 1, 2)
    assert simulator.solution(0).start_time.tolist() == [0, 6, 9]


def test_unannounced_jobs_leave_no_trace_before_their_release() -> None:
    shop = two_jobs(release=[0, 1], announced=False)
    other = two_jobs(release=[0, 1], announced=False, duration=[2, 3, 99, 98], due=[NO_DUE_DATE, 3])
    seen = []
    for instance in (shop, other):
        simulator = Simulator([instance], 1, skip_forced=False)
        decision = DecisionBatch.allocate(1, simulator.slots, simulator.features)
        simulator.observe(decision)
        seen.append((decision.candidate_features.copy(), decision.context.copy()))
    assert (seen[0][0] == seen[1][0]).all() and (seen[0][1] == seen[1][1]).all()


@settings(max_examples=50, deadline=None)
@given(instance=shops(), seed=st.integers(0, 2**32 - 1))
def test_features_stay_within_their_ranges(instance: ShopInstance, seed: int) -> None:
    simulator = Simulator([instance], 1)
    rng = np.random.default_rng(seed)
    decision = DecisionBatch.allocate(1, simulator.slots, simulator.features)
    reward, done = np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.bool_)
    table = simulator.features
    low = np.array([feature.low for feature in table.candidate])
    while simulator.state.candidates[0]:
        simulator.observe(decision)
        rows = decision.candidate_features[0, : decision.count[0]]
        assert (rows >= low - 1e-6).all() and (rows <= 1.0 + 1e-6).all()
        assert (np.abs(decision.context) <= 1.0 + 1e-6).all()
        simulator.step(np.array([rng.integers(decision.count[0])], dtype=np.int32), reward, done)


@settings(max_examples=50, deadline=None)
@given(instance=shops(blocking="none"), seed=st.integers(0, 2**32 - 1))
def test_following_a_schedule_repeats_it(instance: ShopInstance, seed: int) -> None:
    first = Simulator([instance], 1)
    play_randomly(first, np.random.default_rng(seed))
    schedule = first.solution(0)
    second = Simulator([instance], 1, skip_forced=False)
    reward, done = np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.bool_)
    while not second.finished(0):
        second.step(np.array([second.follow(0, schedule)], dtype=np.int32), reward, done)
    assert second.objective(0) <= first.objective(0) + 1e-9


def test_snapshots_restore_and_larger_instances_fit() -> None:
    rng = np.random.default_rng(0)
    small = ShopInstance.from_job_shop(uniform(rng, jobs=4, machines=3))
    large = ShopInstance.from_job_shop(uniform(rng, jobs=6, machines=5))
    simulator = Simulator([small], 2, most_choices=6)
    simulator.load(1, large)
    kept = simulator.snapshot()
    play_randomly(simulator, np.random.default_rng(1))
    found = [simulator.objective(row) for row in range(2)]
    simulator.restore(kept)
    play_randomly(simulator, np.random.default_rng(1))
    assert [simulator.objective(row) for row in range(2)] == found
    with pytest.raises(ConfigError, match="may offer 6 choices at once, there is room for 4; give the option most_cho"):
        Simulator([small], 1).load(0, large)
