"""The routing game on cases worked out on paper, and what holds of all games: they repeat, pay, are saved and grow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.envs.routing.generators import GENERATORS
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.replay import check
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.solution import RoutingPlan, objectives
from schedrl.errors import ConfigError
from tests.envs.routing.small_fleets import SEEDS, play, play_to_plan, random_instance, row_of, server_of, workload_of


def serve(instance: RoutingInstance, slots: list[int] | None = None, *, exact: bool = False) -> RoutingPlan:
    """Return what comes of sending each request to a slot, the first where there are no more."""
    simulator = Simulator([instance], 1, exact=exact)
    for slot in slots or []:
        simulator.send(slot)
    while not simulator.finished(0):
        simulator.send(0)
    plan = simulator.solution(0)
    assert check(instance, plan) == []
    return plan


@pytest.mark.parametrize("exact", [False, True])
def test_a_prompt_is_computed_in_chunks_of_the_budget(exact: bool) -> None:
    # 150 tokens at 64 a second take three iterations, two more tokens two.
    plan = serve(workload_of([(0.5, 150, 3)]), exact=exact)
    assert plan.first_token_s.tolist() == [3.5]
    assert plan.finish_s.tolist() == [5.5]
    assert plan.busy_s.tolist() == [5.0]


@pytest.mark.parametrize("exact", [False, True])
def test_requests_share_iterations(exact: bool) -> None:
    # First 64 tokens of prompt; then one decodes beside a prompt of 10; then two decode. Contexts 64, 65 + 10, 66 + 11;
    # pairs 64 * 32, 64.5 + 10 * 5, 65.5 + 10.5.
    row = row_of(overhead=1.0, token=0.01, context=1e-3, pair=1e-4)
    times = np.cumsum([1.64 + 0.064 + 0.2048, 1.11 + 0.075 + 0.01145, 1.02 + 0.077 + 0.0076])
    plan = serve(workload_of([(0.0, 64, 3), (0.2, 10, 2)], [server_of(coefficients=row)]), exact=exact)
    np.testing.assert_allclose(plan.first_token_s, times[:2], rtol=1e-12)
    np.testing.assert_allclose(plan.finish_s, [times[2], times[2]], rtol=1e-12)


@pytest.mark.parametrize("exact", [False, True])
def test_a_request_that_arrives_with_the_end_of_an_iteration_waits_for_the_next(exact: bool) -> None:
    plan = serve(workload_of([(0.0, 10, 9), (3.0, 10, 1), (4.5, 10, 1)]), exact=exact)
    # The iteration from 3 s on has begun without it.
    assert plan.first_token_s.tolist() == [1.0, 5.0, 6.0]
    assert plan.finish_s.tolist() == [9.0, 5.0, 6.0]


def test_the_last_admitted_starts_again_when_memory_is_short() -> None:
    # The second comes in at 1 s. At 6 s they have 25 and 24 of 50 tokens, one too many for both to go on: the first
    # does until 10 s, and then the other computes its 20 + 5 tokens again, which give the 6th.
    plan = serve(workload_of([(0.0, 20, 10), (0.0, 20, 10)], [server_of(kv_tokens=50)]))
    assert plan.preemptions.tolist() == [0, 1]
    assert plan.first_token_s.tolist() == [1.0, 2.0]
    assert plan.finish_s.tolist() == [10.0, 15.0]


def test_pages_of_16_tokens_admit_fewer() -> None:
    # Two prompts of 20 take 32 tokens each in pages.
    plan = serve(workload_of([(0.0, 20, 3), (0.0, 20, 3)], [server_of(kv_tokens=50)]), exact=True)
    assert plan.preemptions.tolist() == [0, 0]
    assert plan.finish_s.tolist() == [3.0, 6.0]


@pytest.mark.parametrize("exact", [False, True])
def test_places_limit_a_batch_and_ranks_order_the_queue(exact: bool) -> None:
    instance = workload_of([(0.0, 5, 4)] + [(0.5, 5, 1)] * 3, [server_of(max_sequences=2)])
    simulator = Simulator([instance], 1, exact=exact)
    for r in range(4):
        simulator.state.rank[0, r] = float(-r)
        simulator.send(0)
    plan = simulator.solution(0)
    assert check(instance, plan) == []
    assert plan.finish_s.tolist() == [4.0, 4.0, 3.0, 2.0]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("cache_tokens", [-1, 64])
def test_prompts_that_are_held_need_no_computing(exact: bool, cache_tokens: int) -> None:
    fleet = [server_of(cache_tokens=cache_tokens, coefficients=row_of(token=1.0, overhead=0.0))]
    instance = workload_of([(0.0, 40, 1), (50.0, 40, 1), (100.0, 32, 1)], fleet, [[0, 1], [0, 1], [0, 1]])
    plan = serve(instance, exact=exact)
    # The last token of a prompt is always computed, and with it its block.
    assert plan.hit_tokens.tolist() == [0, 32, 16]
    assert plan.finish_s.tolist() == [40.0, 58.0, 116.0]


def test_answers_are_kept_as_well() -> None:
    # The last token of an answer is never computed: 10 + 23 tokens give two whole blocks, 10 + 22 would give one.
    for output, hit in ((23, 32), (22, 16)):
        instance = workload_of([(0.0, 10, output), (50.0, 40, 1)], blocks=[[0, 1], [0, 1]])
        assert serve(instance).hit_tokens.tolist() == [0, hit]


def test_what_was_used_longest_ago_leaves_first() -> None:
    fleet = [server_of(cache_tokens=32)]
    blocks = [[0], [1], [0], [2], [0], [1]]
    instance = workload_of([(2.0 * k, 17, 1) for k in range(6)], fleet, blocks)
    # Block 2 takes the place of 1, as 0 was used after it.
    assert serve(instance).hit_tokens.tolist() == [0, 0, 16, 0, 16, 0]


@pytest.mark.parametrize("fleet", [[server_of(cache_tokens=48)], [server_of(kv_tokens=96)]])
def test_the_end_of_a_prefix_leaves_before_its_beginning(fleet: list[Any]) -> None:
    # In the cache of its own, another block takes the place of block 2; where memory is shared, 60 tokens need it.
    instance = workload_of([(0.0, 50, 1), (2.0, 60, 1), (4.0, 50, 1)], fleet, [[0, 1, 2], [3], [0, 1, 2]])
    assert serve(instance).hit_tokens.tolist() == [0, 0, 32]


@pytest.mark.parametrize("exact", [False, True])
def test_prompts_are_handed_over_with_delay(exact: bool) -> None:
    fleet = [server_of("p", role="prefill"), server_of("d", role="decode")]
    links: dict[str, Any] = {"link_bytes_per_s": 100.0, "link_latency_s": 0.5, "kv_bytes_per_token": 1.0}
    plan = serve(workload_of([(0.0, 50, 3)], fleet, **links), exact=exact)
    # First token at 1 s, then half a second and 50 tokens at 100 a second, then two iterations.
    assert plan.first_token_s.tolist() == [1.0]
    assert plan.finish_s.tolist() == [4.0]
    assert plan.decode_instance.tolist() == [1]
    assert plan.busy_s.tolist() == [1.0, 2.0]


def test_memory_stays_taken_until_the_hand_over() -> None:
    # 60 of 100 tokens are on their way until 3 s; the second prompt must wait for them.
    fleet = [server_of("p", role="prefill", kv_tokens=100), server_of("d", role="decode")]
    instance = workload_of([(0.0, 60, 2), (0.0, 60, 2)], fleet, link_latency_s=2.0)
    plan = serve(instance)
    assert plan.first_token_s.tolist() == [1.0, 4.0]


@pytest.mark.parametrize("exact", [False, True])
def test_a_request_moves_while_it_decodes(exact: bool) -> None:
    fleet = [server_of("a"), server_of("b")]
    links: dict[str, Any] = {"link_bytes_per_s": 100.0, "link_latency_s": 0.5, "kv_bytes_per_token": 1.0}
    instance = workload_of([(0.0, 10, 10)], fleet, downtime_s=0.25, **links)
    simulator = Simulator([instance], 1, exact=exact)
    assert not simulator.send(0, 2.5)
    # Two iterations are done: 11 tokens are copied until 3.11 s, so it leaves at 4 s with four tokens.
    assert simulator.move(0, 0, 1) and not simulator.move(0, 0, 1), "it moves once at a time"
    simulator.send(-1)
    plan = simulator.solution(0)
    assert check(instance, plan) == []
    assert (plan.instance.tolist(), plan.decode_instance.tolist()) == ([0], [1])
    assert plan.finish_s.tolist() == [10.25]
    assert plan.busy_s.tolist() == [4.0, 6.0]
    assert (plan.move_request.tolist(), plan.move_target.tolist(), plan.move_s.tolist()) == ([0], [1], [2.5])


def test_a_request_that_waits_moves_at_once() -> None:
    fleet = [server_of("a", max_sequences=1), server_of("b", ready_s=1.0, retire_s=8.0), server_of("c", kv_tokens=20)]
    instance = workload_of([(0.0, 10, 9), (0.5, 10, 2)], fleet, link_latency_s=0.5)
    simulator = Simulator([instance], 1)
    simulator.send(0, 0.75)
    simulator.send(0, 0.75)
    assert not simulator.move(0, 1, 1), "it is not there yet"
    simulator.send(-1, 2.0)
    assert not simulator.move(0, 1, 0) and not simulator.move(0, 1, 2), "where it is, and where it does not fit"
    assert simulator.move(0, 1, 1)
    simulator.send(-1)
    plan = simulator.solution(0)
    assert check(instance, plan) == []
    assert plan.first_token_s.tolist() == [1.0, 3.5]
    assert plan.decode_instance.tolist() == [-1, 1]


def test_requests_wait_for_instances_that_start_and_are_refused_when_none_will() -> None:
    instance = workload_of([(0.0, 10, 1), (7.0, 10, 1)], [server_of(ready_s=3.0, retire_s=6.0)], program=[0, 1])
    plan = serve(instance)
    assert plan.dispatch_s.tolist() == [3.0, 7.0]
    assert plan.first_token_s.tolist() == [4.0, -1.0]
    assert plan.instance.tolist() == [0, -1]
    assert objectives(instance, plan)["refused"] == 1.0


def test_requests_go_on_after_a_pause_even_when_one_is_refused() -> None:
    fleet = [server_of(retire_s=6.0, kv_tokens=30), server_of(kv_tokens=30), server_of("big", retire_s=0.5)]
    order: dict[str, Any] = {"program": [0] * 3, "after_start": [0, 0, 0, 2], "after": [0, 1], "pause_s": [0, 0, 1.5]}
    # The long one comes too late for the instance that could hold it.
    instance = workload_of([(0.0, 5, 2), (1.0, 50, 2), (1.0, 5, 1)], fleet, **order)
    plan = serve(instance)
    assert plan.dispatch_s.tolist() == [0.0, 1.0, 3.5]
    assert plan.instance.tolist() == [0, -1, 0]


def test_the_game_asks_again_after_a_hold() -> None:
    instance = workload_of([(1.0, 10, 1)])
    simulator = Simulator([instance], 1, hold_s=0.25)
    assert simulator.slots == 2
    held = 0
    while not simulator.finished(0):
        offered = simulator.state.offered[0, : simulator.state.candidates[0]].tolist()
        assert offered == ([0, -1] if held < 8 else [0]), "eight times at most"
        simulator.send(len(offered) - 1)
        held += 1
    plan = simulator.solution(0)
    assert plan.dispatch_s.tolist() == [3.0] and check(instance, plan) == []


@given(SEEDS, st.booleans(), st.booleans())
def test_games_repeat_and_sum_of_rewards_is_the_objective(seed: int, exact: bool, holds: bool) -> None:
    instance = random_instance(seed)
    simulator = Simulator([instance], 1, exact=exact, hold_s=0.0213 * holds)
    reward, done = np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.bool_)
    plans = []
    for _ in range(2):
        simulator.load(0, instance)
        # Where nobody can serve any request there is no step to say so.
        done[:] = simulator.finished(0)
        rng, earned = np.random.default_rng(seed), 0.0
        while not simulator.finished(0):
            action = int(rng.integers(simulator.state.candidates[0]))
            simulator.step(np.array([action], dtype=np.int32), reward, done)
            earned += float(reward[0])
        assert done[0]
        plans.append(simulator.solution(0))
        if (plans[-1].instance >= 0).any():
            assert earned == pytest.approx(-simulator.objective(0), rel=1e-5, abs=1e-5)
    assert plans[0] == plans[1]


@given(SEEDS, st.booleans())
def test_a_plan_can_be_followed(seed: int, holds: bool) -> None:
    instance = random_instance(seed)
    plan = play_to_plan(instance, seed, hold_s=0.0213 * holds)
    simulator = Simulator([instance], 1, hold_s=0.0213 * holds)
    simulator.state.rank[0] = plan.rank
    while not simulator.finished(0):
        simulator.send(simulator.follow(0, plan))
    assert simulator.solution(0) == plan


@settings(max_examples=30)
@given(SEEDS)
def test_saved_games_go_on_as_before(seed: int) -> None:
    instance, rng = random_instance(seed), np.random.default_rng(seed)
    simulator = Simulator([instance], 1)
    steps = int(rng.integers(instance.requests))
    for k in range(steps):
        if not simulator.finished(0):
            simulator.send(0, float(simulator.state.now[0]) + 0.05)
            simulator.move(0, k, int(rng.integers(len(instance.fleet))))
            simulator.send(-1)
    saved = simulator.snapshot()
    plans = []
    for _ in range(2):
        while not simulator.finished(0):
            simulator.send(0)
            simulator.move(0, int(simulator.state.arrivals[0]) % instance.requests, 0)
        plans.append(simulator.solution(0))
        simulator.restore(saved)
    assert plans[0] == plans[1]
    assert check(instance, plans[0]) == []


@settings(max_examples=30)
@given(SEEDS, st.integers(2, 4))
def test_rows_are_independent_and_room_grows(seed: int, batch: int) -> None:
    small = workload_of([(0.0, 5, 2)])
    instances = [random_instance(seed + k) for k in range(batch)]
    together = Simulator([small], batch, most_instances=4)
    for row, instance in enumerate(instances):
        together.load(row, instance)
    action = np.zeros(batch, dtype=np.int32)
    reward, done = np.zeros(batch, dtype=np.float32), np.zeros(batch, dtype=np.bool_)
    while not all(together.finished(row) for row in range(batch)):
        together.step(np.where(together.state.candidates > 0, action, -1).astype(np.int32), reward, done)
    for row, instance in enumerate(instances):
        alone = Simulator([instance], 1)
        while not alone.finished(0):
            alone.send(0)
        assert together.solution(row) == alone.solution(0)
        assert together.objective(row) == alone.objective(0)


def test_slots_outside_the_offer_count_and_change_nothing() -> None:
    simulator = Simulator([workload_of([(0.0, 5, 2), (1.5, 5, 2)])], 1)
    reward, done = np.zeros(1, dtype=np.float32), np.zeros(1, dtype=np.bool_)
    for slot, invalid in ((1, 1), (-1, 1), (7, 2)):
        simulator.step(np.array([slot], dtype=np.int32), reward, done)
        assert (simulator.invalid.tolist(), simulator.invalid_limit.tolist()) == ([invalid], [2])
        assert int(simulator.state.current[0]) == 0 and not done[0] and reward[0] == 0.0


@pytest.mark.parametrize("hold_s", [-1.0, np.inf, np.nan])
def test_bad_options_are_named(hold_s: float) -> None:
    with pytest.raises(ConfigError, match=r"^hold_s: .*, expected a time of at least 0$"):
        Simulator([workload_of([(0.0, 5, 2)])], 1, hold_s=hold_s)


def test_exact_and_aggregated_games_differ_little() -> None:
    """Pages of 16 tokens against single ones are all that differs where memory does not run out."""
    instance = random_instance(7, requests=24)
    roomy = [server_of(f"s{i}", coefficients=s.coefficients, kv_tokens=10_000) for i, s in enumerate(instance.fleet)]
    instance = workload_of(
        list(zip(instance.arrival_s, instance.prompt_tokens, instance.output_tokens, strict=True)), roomy
    )
    plans = [play_to_plan(instance, 0, exact=exact) for exact in (False, True)]
    np.testing.assert_allclose(plans[0].finish_s, plans[1].finish_s, rtol=1e-9)
    # Where it does, penalties of single games differ; their mean over many hardly does.
    means = []
    for exact in (False, True):
        found = []
        for seed in range(60):
            tight = random_instance(seed)
            found.append(play(tight, seed, exact=exact).objective(0))
        means.append(np.mean(found))
    assert means[1] == pytest.approx(means[0], rel=0.05)


def test_a_fleet_beyond_the_slots_is_refused() -> None:
    rng = np.random.default_rng(0)
    small = GENERATORS["gamma"](rng, requests=5, fleet="demo")
    large = GENERATORS["gamma"](rng, requests=5, fleet="heterogeneous", name="eight")
    simulator = Simulator([small], 1)
    with pytest.raises(ConfigError, match="instance eight: a fleet of 8 instances, there are slots for 4; option most"):
        simulator.load(0, large)
    roomy = Simulator([small], 1, most_instances=8)
    roomy.load(0, large)
    assert roomy.slots == 8
    with pytest.raises(ConfigError, match="most_instances: -1, expected an integer of at least 0"):
        Simulator([small], 1, most_instances=-1)
