"""Generated buffers: what each generator promises, and errors that name the argument."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedrl.envs.memmap.packing import OffsetPackingInstance, Packing, check_packing, max_live
from schedrl.envs.memmap.packing_generators import (
    PACKING_GENERATORS,
    known_optimum,
    random_lifetimes,
    training_step,
)
from schedrl.errors import ConfigError

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.integers(1, 120), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_known_optimum_fills_the_memory_once_and_its_hint_is_a_packing(seed: int, buffers: int, spare: float) -> None:
    instance = known_optimum(
        np.random.default_rng(seed), buffers=buffers, capacity=256, instants=300, unit=512, spare=spare
    )
    assert instance.buffers == buffers
    assert instance.hint is not None
    assert max_live(instance) == int((instance.hint + instance.size).max()) == 256 * 512
    assert check_packing(instance, Packing(offset=instance.hint)) == []
    assert not (instance.size % 512).any()
    assert instance.lower.min() >= 0 and instance.upper.max() <= 300
    area = int((instance.size * (instance.upper - instance.lower)).sum())
    assert area <= 256 * 512 * 300
    if spare == 0.0:
        assert area == 256 * 512 * 300, "without spare pieces nothing is empty"


def test_known_optimum_has_sizes_and_lifetimes_of_many_orders() -> None:
    instance = known_optimum(np.random.default_rng(0), buffers=200)
    duration = instance.upper - instance.lower
    assert np.percentile(instance.size, 95) > 20 * np.percentile(instance.size, 5)
    assert np.percentile(duration, 95) > 20 * np.percentile(duration, 5)
    assert instance.capacity is None, "peaks are compared"


def test_pieces_may_be_single_instants_or_units() -> None:
    for sizes in ({"capacity": 1, "instants": 800}, {"capacity": 800, "instants": 1}):
        instance = known_optimum(np.random.default_rng(0), buffers=50, spare=0.0, **sizes)
        assert max_live(instance) == sizes["capacity"] * 1024
        assert instance.buffers == 50


def test_random_lifetimes_have_about_the_wanted_buffers_live() -> None:
    instance = random_lifetimes(np.random.default_rng(0), buffers=4000, instants=100_000, mean_live=20.0, alignment=64)
    duration = (instance.upper - instance.lower).sum()
    assert duration / 100_000 == pytest.approx(20.0, rel=0.1)
    assert (instance.lower >= 0).all() and (instance.upper <= 100_000).all()
    assert instance.alignment is not None and (instance.alignment == 64).all()
    assert instance.size.min() < 3 * 1024 and instance.size.max() > 900 * 1024


def test_training_steps_nest() -> None:
    instance = training_step(np.random.default_rng(3), layers=6, skips=0.0)
    lower, upper = instance.lower.reshape(6, 5), instance.upper.reshape(6, 5)
    for k in range(6):
        backward = 11 - k
        assert (lower[k, 0], upper[k, 0]) == (k, backward + 1), "activation"
        assert (lower[k, 1], upper[k, 1]) == (k, k + 1), "forward workspace"
        assert (lower[k, 2], upper[k, 2]) == (backward, backward + 1), "backward workspace"
        assert (lower[k, 3], upper[k, 3]) == (max(backward - 1, 6), backward + 1), "gradient of the activation"
        assert lower[k, 4] == backward and upper[k, 4] in (backward + 1, 12), "gradient of the weights"
    assert (instance.size.reshape(6, 5)[:, 0] == instance.size.reshape(6, 5)[:, 3]).all()


def test_skip_connections_lengthen_gradients() -> None:
    skipping = training_step(np.random.default_rng(0), layers=40, skips=1.0)
    duration = (skipping.upper - skipping.lower).reshape(40, 5)
    assert duration[:, 3].max() > 10
    assert (duration[:-1, 3] >= 2).all()


@pytest.mark.parametrize("name", PACKING_GENERATORS)
def test_generators_repeat_with_the_seed_and_name_their_instances(name: str) -> None:
    make = PACKING_GENERATORS[name]
    first, again, other = (make(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again and first != other
    assert first.name.startswith(f"{name}-") and first.name != other.name
    assert first.buffers == other.buffers == 100
    assert OffsetPackingInstance.from_json(first.to_json()) == first


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("known-optimum", {"buffers": 0}, "buffers: 0, expected an integer of at least 1"),
        ("known-optimum", {"buffers": 1000, "capacity": 10, "instants": 10}, "buffers: 1000, too many for 10 units"),
        ("known-optimum", {"spare": 1.5}, "spare: 1.5, expected 0 to 1"),
        ("known-optimum", {"unit": 0.5}, "unit: 0.5, expected an integer of at least 1"),
        ("random-lifetimes", {"mean_live": 0.0}, "mean_live: 0.0, expected more than 0"),
        ("random-lifetimes", {"alignment": 0}, "alignment: 0, expected an integer of at least 1"),
        ("training-step", {"layers": 1}, "layers: 1, skips: 0.3, expected an integer of at least 2, and 0 to 1"),
        ("training-step", {"skips": 2.0}, "layers: 20, skips: 2.0, expected"),
    ],
)
def test_bad_sizes_are_named(name: str, size: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PACKING_GENERATORS[name](np.random.default_rng(0), **size)
