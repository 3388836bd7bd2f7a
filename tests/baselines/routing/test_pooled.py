from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from schedrl.baselines.routing.pooled import pooled_instance, pooled_objectives, pooled_plan
from schedrl.envs.routing.fleets import fleet
from schedrl.envs.routing.instance import RoutingInstance
from schedrl.errors import InstanceError


def requests(**options: object) -> RoutingInstance:
    rng = np.random.default_rng(0)
    return RoutingInstance(
        name="pool-test",
        arrival_s=np.sort(rng.uniform(0, 20, 60)),
        prompt_tokens=rng.integers(500, 9000, 60).astype(np.int32),
        output_tokens=rng.integers(1, 200, 60).astype(np.int32),
        **options,  # type: ignore[arg-type]
    )


def test_equal_instances_become_one_that_is_as_many_times_faster() -> None:
    serving = fleet({"a100-sxm-80gb": 8}, cache_tokens=1_000_000)
    (pool,) = pooled_instance(requests(fleet=serving)).fleet
    assert pool.coefficients == pytest.approx(serving[0].coefficients / 8)
    assert (pool.cache_tokens, pool.token_budget, pool.max_sequences) == (8_000_000, 16384, 2048)
    assert pool.kv_tokens == 8 * serving[0].kv_tokens


def test_unlike_instances_add_their_rates() -> None:
    serving = fleet({"h100-sxm": 1, "l4": 1})
    (pool,) = pooled_instance(requests(fleet=serving)).fleet
    fast, slow = (1.0 / one.coefficients[0] for one in serving)
    assert 1.0 / pool.coefficients[0] == pytest.approx(fast + slow)
    assert pool.coefficients[9] == 0.0  # no all-reduce
    assert pool.cache_tokens == -1


def test_one_instance_is_its_own_pool() -> None:
    instance = requests(fleet=fleet({"a100-sxm-80gb": 1}))
    assert pooled_instance(instance).fleet[0].coefficients == pytest.approx(instance.fleet[0].coefficients)
    plan = pooled_plan(instance)
    assert (plan.instance == 0).all()
    # In order of arrival: nobody gets the first token before an earlier request's prompt was begun.
    assert (np.diff(plan.first_token_s) >= 0).all()


def test_objectives_weigh_latency_alone() -> None:
    instance = requests(fleet=fleet({"a100-sxm-80gb": 2}))
    weighed = replace(instance, preference=(1.0, 1.0, 1.0))
    found = pooled_objectives(weighed)
    assert found["penalty"] == pytest.approx(pooled_objectives(instance)["penalty"])
    assert 0.0 < found["ttft_mean_s"] < pooled_objectives(replace(instance, fleet=instance.fleet[:1]))["ttft_mean_s"]


def test_refuses_fleets_of_prefill_and_decode_instances() -> None:
    split = fleet({"a100-sxm-80gb": 1}, role="prefill") + fleet({"a100-sxm-80gb": 1}, role="decode")
    with pytest.raises(InstanceError, match="field fleet: expected mixed instances"):
        pooled_instance(requests(fleet=split))
