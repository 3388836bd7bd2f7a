from __future__ import annotations

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.devices.serving_time import (
    ALL_REDUCE,
    COEFFICIENTS,
    CONTEXT,
    HEAD_TOKEN,
    HEAD_WEIGHTS,
    OVERHEAD,
    PAIR,
    TOKEN,
    WEIGHTS,
)
from schedrl.envs.routing.bounds import bounds, least_ttft_s, srpt_mean_ttft_s
from schedrl.envs.routing.fleet import ServingInstance
from schedrl.envs.routing.fleets import fleet
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.simulator import Simulator
from schedrl.envs.routing.solution import RoutingPlan, objectives


def serving(name: str, token_s: float = 1e-3, **options: object) -> ServingInstance:
    """Return an instance that takes ``token_s`` per token and nothing else."""
    row = np.zeros(COEFFICIENTS)
    row[TOKEN] = token_s
    return ServingInstance(
        name=name,
        device="d",
        model="m",
        coefficients=row,
        kv_tokens=1 << 20,
        **options,  # type: ignore[arg-type]
    )


def random_serving(rng: np.random.Generator, number: int) -> ServingInstance:
    row = np.zeros(COEFFICIENTS)
    row[TOKEN], row[WEIGHTS], row[OVERHEAD] = rng.uniform(1e-4, 4e-4), rng.uniform(0, 0.02), rng.uniform(0, 0.01)
    row[CONTEXT], row[PAIR] = rng.uniform(0, 1e-6), rng.uniform(0, 1e-6)
    row[HEAD_TOKEN], row[HEAD_WEIGHTS] = rng.uniform(0, 1e-3), rng.uniform(0, 1e-3)
    if rng.random() < 0.3:
        row[ALL_REDUCE:] = np.sort(rng.uniform(1e-4, 2e-2, COEFFICIENTS - ALL_REDUCE))
    if rng.random() < 0.3:
        row[2], row[3] = rng.uniform(0, 0.05), -0.1
    return ServingInstance(
        name=f"s{number}",
        device="d",
        model="m",
        coefficients=row,
        kv_tokens=int(rng.integers(700, 4000)),
        cache_tokens=int(rng.choice([-1, 100, 5000])),
        token_budget=int(rng.choice([32, 128, 2048])),
        max_sequences=int(rng.integers(1, 6)),
        price_usd_per_h=float(rng.integers(0, 4)),
        power_w=float(rng.integers(0, 4)),
        ready_s=float(rng.choice([0.0, 0.3])),
        retire_s=float(rng.choice([np.inf, np.inf, 1.5])),
    )


def random_instance(seed: int) -> RoutingInstance:
    """Return few requests with shared prefixes, some in programs, on unlike instances with little memory."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 30))
    prompt = rng.integers(1, 400, count)
    output = rng.integers(1, 30, count)
    listed = [int(rng.integers(0, p // 32 + 1)) for p in prompt]
    # Chains that leave a common stem at a random depth.
    chains = [[b if b < stem else 100 * (r + 1) + b for b in range(n)]
              for r, (n, stem) in enumerate(zip(listed, rng.integers(0, 8, count), strict=True))]  # fmt: skip
    program = np.sort(rng.integers(0, count, count)) if rng.random() < 0.5 else np.arange(count)
    program = np.unique(program, return_inverse=True)[1]
    chained = rng.random() < 0.6
    after = [[r - 1] if chained and r and program[r] == program[r - 1] else [] for r in range(count)]
    deadline = np.where(rng.random(int(program.max()) + 1) < 0.3, 1.0, np.inf)
    return RoutingInstance(
        name="random",
        fleet=tuple(random_serving(rng, k) for k in range(int(rng.integers(1, 4)))),
        arrival_s=np.sort(rng.uniform(0, rng.choice([0.1, 3.0]), count)),
        prompt_tokens=prompt.astype(np.int32),
        output_tokens=output.astype(np.int32),
        block_start=np.concatenate([[0], np.cumsum(listed)]).astype(np.int64),
        blocks=np.array(list(itertools.chain(*chains)), dtype=np.int64),
        block_tokens=32,
        program=program.astype(np.int32),
        deadline_s=deadline,
        after_start=np.concatenate([[0], np.cumsum([len(a) for a in after])]).astype(np.int64),
        after=np.array(list(itertools.chain(*after)), dtype=np.int32),
        pause_s=rng.uniform(0, 0.1, count),
        ttft_slo_s=float(rng.choice([0.05, 0.2, 1.0])),
        tpot_slo_s=float(rng.choice([np.inf, 0.02])),
        preference=(1.0, float(rng.choice([0.0, 1.0])), float(rng.choice([0.0, 1.0]))),
    )


def played(instance: RoutingInstance, rule: str, *, exact: bool = False) -> RoutingPlan:
    simulator = Simulator([instance], 1, exact=exact)
    simulator.play_rule(rule, np.random.default_rng(0))
    return simulator.solution(0)


def same_size(arrival: list[float], tokens: int, **options: object) -> RoutingInstance:
    """Return requests of one size and one token of answer."""
    count = len(arrival)
    return RoutingInstance(
        name="same",
        arrival_s=np.array(arrival),
        prompt_tokens=np.full(count, tokens, dtype=np.int32),
        output_tokens=np.ones(count, dtype=np.int32),
        **options,  # type: ignore[arg-type]
    )


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["random", "affinity", "min-ttft"]), st.booleans())
def test_never_above_what_a_rule_reaches(seed: int, rule: str, exact: bool) -> None:
    instance = random_instance(seed)
    plan = played(instance, rule, exact=exact)
    reached = objectives(instance, plan)
    found = bounds(instance)
    assert found[0].value >= found[1].value >= 0.0
    assert found[0].value <= reached["penalty"] + 1e-9
    if len(instance.after) == 0:
        served = plan.instance >= 0
        ttft = plan.first_token_s - instance.arrival_s
        assert (least_ttft_s(instance)[served] <= ttft[served] * (1 + 1e-9) + 1e-12).all()
        if served.all():
            assert srpt_mean_ttft_s(instance) <= ttft.mean() * (1 + 1e-9) + 1e-12


def test_a_request_alone_attains_its_bound() -> None:
    # 1000 tokens at 1 ms take 1 s, which is the objective: half of the half for being late.
    instance = same_size([0.0], 1000, fleet=(serving("a"), serving("b", 2e-3)), ttft_slo_s=1.0)
    assert least_ttft_s(instance) == pytest.approx([1.0])
    assert bounds(instance)[0].value == pytest.approx(0.25)
    assert objectives(instance, played(instance, "min-ttft"))["penalty"] == pytest.approx(0.25)


def test_a_prompt_longer_than_the_budget_takes_several_iterations() -> None:
    row = np.zeros(COEFFICIENTS)
    row[OVERHEAD], row[PAIR], row[CONTEXT] = 0.1, 1e-6, 1e-5
    one = ServingInstance(name="a", device="d", model="m", coefficients=row, kv_tokens=9999, token_budget=400)
    instance = same_size([0.0], 1000, fleet=(one,))
    # Three iterations; 1000^2 / 2 pairs; keys and values of 1000, 600 and 200 tokens, read by chunks of 400 each.
    assert least_ttft_s(instance) == pytest.approx([0.3 + 0.5 + 0.018])
    plan = played(instance, "min-ttft")
    assert plan.first_token_s == pytest.approx([0.3 + 0.5 + 0.022])  # it reads 400, 800 and 1000


def test_later_requests_can_find_what_earlier_ones_computed_and_the_other_way_round_after_a_wait() -> None:
    chain = np.array([0, 1, 0, 1], dtype=np.int64)
    instance = same_size(
        [0.0, 0.2], 1100, fleet=(serving("a"),), blocks=chain, block_start=np.array([0, 2, 4]), block_tokens=512
    )
    # The second can find both blocks; the first could at best wait 0.2 s for the second, then compute 76 tokens.
    assert least_ttft_s(instance) == pytest.approx([0.2 + 0.076, 0.076])


def test_nobody_can_be_in_time_if_the_instances_cannot_compute_so_much() -> None:
    # Ten prompts of 1 s each at once on one instance, 4.5 s to go: the knapsack lets 4.5 of them be in time.
    instance = same_size([0.0] * 10, 1000, fleet=(serving("a", token_budget=1000),), ttft_slo_s=4.5)
    least = 0.5 * 1.0 / 5.5
    overload, alone = bounds(instance)
    assert (overload.name, alone.name) == ("overload", "no queue")
    assert alone.value == pytest.approx(least)
    assert overload.value == pytest.approx(least + 0.55 * (0.75 - least))
    assert objectives(instance, played(instance, "min-ttft"))["penalty"] >= overload.value


def test_shortest_remaining_first() -> None:
    # Sizes 3, 1 and 1 s at 0, 1 and 1 s: the long one stops for both, flow times 5, 1 and 2 s.
    instance = replace(
        same_size([0.0, 1.0, 1.0], 1, fleet=(serving("a", token_budget=4000),)),
        prompt_tokens=np.array([3000, 1000, 1000], dtype=np.int32),
    )
    assert srpt_mean_ttft_s(instance) == pytest.approx(8 / 3)


def test_two_instances_are_pooled_in_proportion_to_their_speeds() -> None:
    # 1 s and 2 s alone; together 2/3 s each: one after the other 2/3 and 4/3 s, but no request is faster than 1 s.
    instance = same_size([0.0, 0.0], 1000, fleet=(serving("a"), serving("b", 2e-3)))
    assert srpt_mean_ttft_s(instance) == pytest.approx(1.0)
    many = same_size([0.0] * 8, 1000, fleet=(serving("a"), serving("b", 2e-3)))
    assert srpt_mean_ttft_s(many) == pytest.approx(2 / 3 * 4.5)


def test_a_program_is_bounded_by_its_chain() -> None:
    # Two requests of 1 s with a pause of 0.5 s and an answer of one token each: 2.5 s of a deadline of 2 s.
    instance = same_size(
        [0.0, 0.0],
        1000,
        fleet=(serving("a"),),
        program=np.zeros(2, dtype=np.int32),
        deadline_s=np.array([2.0]),
        after_start=np.array([0, 0, 1]),
        after=np.array([0], dtype=np.int32),
        pause_s=np.array([0.0, 0.5]),
    )
    assert bounds(instance)[0].value == pytest.approx(0.5 + 0.5 * 2.5 / 4.5)
    assert objectives(instance, played(instance, "affinity"))["penalty"] == pytest.approx(0.5 + 0.5 * 2.5 / 4.5)


def test_waits_for_an_instance_that_starts_and_gives_up_one_that_is_gone() -> None:
    starting = same_size([0.0], 1000, fleet=(serving("a", ready_s=3.0),))
    assert least_ttft_s(starting) == pytest.approx([4.0])
    gone = same_size([2.0], 1000, fleet=(serving("a", retire_s=1.0),))
    assert np.isinf(least_ttft_s(gone)).all()
    assert bounds(gone)[0].value == pytest.approx(1.0)


def test_cost_counts_the_tokens_that_somebody_must_compute() -> None:
    fleet_ = (serving("a", price_usd_per_h=2.0), serving("b", 2e-3, price_usd_per_h=2.0))
    instance = same_size([0.0, 0.0], 1000, fleet=fleet_, preference=(0.0, 1.0, 0.0))
    # 2000 tokens at 1 ms on the cheaper one; seconds of a mean instance, per request.
    assert bounds(instance)[0].value == pytest.approx(1.0)


def test_a_thousand_requests_take_a_tenth_of_a_second() -> None:
    rng = np.random.default_rng(0)
    listed = rng.integers(1, 24, 1000)
    starts = np.concatenate([[0], np.cumsum(listed)])
    ids = np.concatenate([np.where(np.arange(n) < 2, np.arange(n), 10**6 * r + np.arange(n)) for r, n in
                          enumerate(listed)])  # fmt: skip
    instance = RoutingInstance(
        name="large",
        fleet=fleet({"h100-sxm": 2, "a100-sxm-80gb": 4, "l4": 2}),
        arrival_s=np.sort(rng.uniform(0, 100, 1000)),
        prompt_tokens=(listed * 512 + 100).astype(np.int32),
        output_tokens=np.full(1000, 100, dtype=np.int32),
        block_start=starts,
        blocks=ids,
    )
    started = time.thread_time()
    found = bounds(instance)
    assert time.thread_time() - started < 0.3  # 0.03 s measured; machines differ
    assert 0.0 < found[0].value < 1.0
