"""Rings of hashes: shares, what moves when an instance leaves, and bounds on load on worked examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.baselines.routing.hashing import (
    SCHEDULERS,
    BoundedHash,
    ConsistentHash,
    GatewayBoundedHash,
    HashRing,
    PrefixHash,
)
from schedrl.errors import ConfigError
from tests.baselines.routing.small_views import HandView, routed, servings

RNG = np.random.default_rng(0)
NAMES = ["a", "b", "c", "d"]
EVEN = routed(servings(1.0, 1.0, 1.0, 1.0), [[2, 4], [2, 5], [2, 4, 8], [2]])


def test_shares_follow_weights() -> None:
    ring = HashRing(NAMES, np.array([3.0, 1.0, 1.0, 1.0]))
    counts = np.bincount([ring.walk(str(k))[0] for k in range(6000)], minlength=4)
    # A ring of about 640 points divides with deviations of about a tenth.
    assert counts / 6000 == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6], rel=0.3)


def test_only_keys_of_the_instance_that_leaves_move() -> None:
    whole, rest = HashRing(NAMES, np.ones(4)), HashRing(NAMES[:3], np.ones(3))
    for k in range(500):
        walk = whole.walk(str(k))
        assert sorted(walk) == [0, 1, 2, 3]
        assert rest.walk(str(k)) == tuple(i for i in walk if i != 3)


def clockwise(view: HandView) -> list[int]:
    return ConsistentHash(EVEN, RNG)._clockwise(view)


def test_keys_are_the_first_blocks() -> None:
    view = HandView(EVEN)
    walks = []
    for request in range(4):
        view.at_hand = request
        walks.append(clockwise(view))
    assert walks[0] == walks[2]
    one_block = ConsistentHash(EVEN, RNG, key_blocks=1)
    view.at_hand = 0
    owner = one_block.pick(view)
    view.at_hand = 3
    assert one_block.pick(view) == owner
    with pytest.raises(ConfigError, match="key_blocks: 0, expected an integer of at least 1"):
        ConsistentHash(EVEN, RNG, key_blocks=0)


def test_the_first_allowed_is_taken() -> None:
    order = clockwise(HandView(EVEN))
    assert ConsistentHash(EVEN, RNG).pick(HandView(EVEN)) == order[0]
    allowed = [i != order[0] for i in range(4)]
    assert ConsistentHash(EVEN, RNG).pick(HandView(EVEN, allowed=allowed)) == order[1]


def loads(order: list[int], *values: int) -> list[int]:
    """Return loads by instance from loads in the order of the ring."""
    return [value for _, value in sorted(zip(order, values, strict=True))]


def test_bounded_loads() -> None:
    order = clockwise(HandView(EVEN))
    # Out are 7, so that each may have ceil(1.25 * 8 / 4) = 3.
    for values, place in (((2, 2, 2, 1), 0), ((3, 2, 1, 1), 1), ((3, 3, 1, 0), 2), ((4, 3, 0, 0), 2)):
        assert BoundedHash(EVEN, RNG).pick(HandView(EVEN, outstanding=loads(order, *values))) == order[place]
    # The first request of all may go anywhere: ceil(1.25 / 4) = 1.
    assert BoundedHash(EVEN, RNG).pick(HandView(EVEN)) == order[0]
    # The gateway's bound is 1.5 * 8 / 4 = 3 for what an instance has already.
    for values, place in (((3, 2, 2, 1), 0), ((4, 3, 1, 0), 1), ((4, 4, 0, 0), 2)):
        assert GatewayBoundedHash(EVEN, RNG).pick(HandView(EVEN, outstanding=loads(order, *values))) == order[place]
    tight = GatewayBoundedHash(EVEN, RNG, skew=0.9)
    assert tight.pick(HandView(EVEN, outstanding=[2, 2, 2, 2])) == order[0]


def test_prefix_hash_goes_to_the_least_loaded() -> None:
    order = PrefixHash(EVEN, RNG)._clockwise(HandView(EVEN))
    # The bound is 1.25 * 8 / 4 = 2.5; the third of the ring is the least loaded.
    assert PrefixHash(EVEN, RNG).pick(HandView(EVEN, outstanding=loads(order, 2, 2, 2, 2))) == order[0]
    assert PrefixHash(EVEN, RNG).pick(HandView(EVEN, outstanding=loads(order, 4, 2, 0, 2))) == order[2]
    # 256 tokens are four blocks of 64, which no prompt here has: every key is a request's own.
    assert PrefixHash(EVEN, RNG)._key_blocks == 4


@given(st.lists(st.integers(0, 30), min_size=4, max_size=4), st.sampled_from([0.1, 0.25, 1.0]))
def test_no_instance_exceeds_its_bound(load: list[int], epsilon: float) -> None:
    for instance in (EVEN, routed(servings(1.0, 1.0, 2.0, 5.0), [[2, 4]])):
        for speed in (False, True):
            router = BoundedHash(instance, RNG, speed=speed, epsilon=epsilon)
            chosen = router.pick(HandView(instance, outstanding=load))
            share = router._rates[chosen] / router._rates.sum()
            assert load[chosen] + 1 <= math.ceil((1 + epsilon) * (sum(load) + 1) * share)


def test_names() -> None:
    plain = {"consistent-hash", "bounded-hash", "sglang-bounded-hash", "sglang-prefix-hash"}
    assert {spec.name for spec in SCHEDULERS} == {f"routing/{name}{end}" for name in plain for end in ("", "-speed")}
    assert not any(spec.randomised for spec in SCHEDULERS)
