from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedrl.baselines.routing.prefix_bound import prefix_bound
from schedrl.devices.serving_time import COEFFICIENTS, CONTEXT, OVERHEAD, PAIR, TOKEN, WEIGHTS
from schedrl.envs.routing.fleet import ServingInstance
from schedrl.envs.routing.fleets import fleet
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.envs.routing.simulator import Simulator
from schedrl.errors import ConfigError, InstanceError


def serving(token_s: float, **terms: float) -> ServingInstance:
    row = np.zeros(COEFFICIENTS)
    row[TOKEN] = token_s
    for name, value in terms.items():
        row[{"weights": WEIGHTS, "overhead": OVERHEAD, "context": CONTEXT, "pair": PAIR}[name]] = value
    return ServingInstance(
        name="s", device="d", model="m", coefficients=row, kv_tokens=1 << 20, cache_tokens=1 << 20, token_budget=256
    )


def of_chains(chains: list[list[int]], tails: list[int], fleet_: tuple[ServingInstance, ...]) -> RoutingInstance:
    """Return requests that arrive at once, with whole blocks of 32 tokens, a tail, and one token of answer."""
    return RoutingInstance(
        name="chains",
        fleet=fleet_,
        arrival_s=np.zeros(len(chains)),
        prompt_tokens=np.array([32 * len(c) + t for c, t in zip(chains, tails, strict=True)], dtype=np.int32),
        output_tokens=np.ones(len(chains), dtype=np.int32),
        block_start=np.cumsum([0] + [len(c) for c in chains]).astype(np.int64),
        blocks=np.array(list(itertools.chain(*chains)), dtype=np.int64),
        block_tokens=32,
    )


def random_chains(rng: np.random.Generator, count: int) -> tuple[list[list[int]], list[int]]:
    stems = rng.integers(0, 3, count)
    chains = [
        [1000 * int(stem) + k if k < 3 else 10_000 * (r + 1) + k for k in range(int(rng.integers(0, 6)))]
        for r, stem in enumerate(stems)
    ]
    return chains, rng.integers(1, 60, count).tolist()


@pytest.mark.parametrize("seed", range(8))
def test_equals_the_best_of_all_assignments(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chains, tails = random_chains(rng, 5)
    speeds = (1e-3, 2.5e-3)
    instance = of_chains(chains, tails, tuple(serving(s) for s in speeds))
    best = np.inf
    for places in itertools.product(range(2), repeat=5):
        loads = []
        for i, token_s in enumerate(speeds):
            here = [r for r in range(5) if places[r] == i]
            blocks = {b for r in here for b in chains[r]}
            loads.append(token_s * (32 * len(blocks) + sum(tails[r] for r in here)))
        best = min(best, max(loads))
    found = prefix_bound(instance)
    assert found.integral
    assert found.busy_s == pytest.approx(best, rel=2e-4)
    relaxed = prefix_bound(instance, integral=False)
    assert not relaxed.integral
    assert 0.0 < relaxed.busy_s <= found.busy_s * (1 + 1e-6)


def test_a_shared_prefix_is_computed_once_where_its_requests_meet() -> None:
    # Two pairs of 4 common blocks and tails of 32: together on an instance each 128 + 64 tokens.
    chains = [[0, 1, 2, 3]] * 2 + [[10, 11, 12, 13]] * 2
    found = prefix_bound(of_chains(chains, [32] * 4, (serving(1e-3), serving(1e-3))))
    assert found.busy_s == pytest.approx(0.192, rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["random", "affinity", "min-ttft"]), st.booleans())
def test_no_simulated_plan_is_shorter(seed: int, rule: str, integral: bool) -> None:
    rng = np.random.default_rng(seed)
    chains, tails = random_chains(rng, int(rng.integers(1, 9)))
    servings = tuple(
        serving(
            rng.uniform(1e-4, 1e-3),
            weights=rng.uniform(0, 0.02),
            overhead=rng.uniform(0, 0.01),
            context=rng.uniform(0, 1e-6),
            pair=rng.uniform(0, 1e-6),
        )
        for _ in range(int(rng.integers(1, 4)))
    )
    instance = of_chains(chains, tails, servings)
    simulator = Simulator([instance], 1)
    simulator.play_rule(rule, rng)
    plan = simulator.solution(0)
    found = prefix_bound(instance, integral=integral, time_limit_s=5.0)
    assert found.busy_s <= plan.busy_s.max() * (1 + 1e-9)
    assert found.makespan_s <= plan.finish_s.max() * (1 + 1e-9)


def test_bad_input_is_named() -> None:
    split = fleet({"a100-sxm-80gb": 1}, role="prefill") + fleet({"a100-sxm-80gb": 1}, role="decode")
    with pytest.raises(InstanceError, match="field fleet: expected mixed instances alone"):
        prefix_bound(of_chains([[]], [3], split))
    with pytest.raises(ConfigError, match="time_limit_s"):
        prefix_bound(of_chains([[]], [3], (serving(1e-3),)), time_limit_s=0.0)
