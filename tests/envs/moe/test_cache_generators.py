"""The generators of request traces: their statistics, their sizes and their errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schedrl.envs.moe.cache_generators import CACHE_GENERATORS, arbitrary_cache, mixtral_decode, zipf_decode
from schedrl.errors import ConfigError


@pytest.mark.parametrize("name", CACHE_GENERATORS)
def test_equal_seeds_draw_equal_instances(name: str) -> None:
    first, second, other = (CACHE_GENERATORS[name](np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == second and first != other


def test_sizes_are_as_asked() -> None:
    instance = mixtral_decode(np.random.default_rng(0), layers=5, experts=6, top_k=3, tokens=7, share=0.4)
    assert instance.requests.shape == (35, 3)
    assert (instance.layers, instance.experts, instance.capacity, len(instance.initial)) == (5, 6, 12, 12)
    assert instance.layer.tolist() == list(range(5)) * 7
    assert instance.token.tolist() == [t for t in range(7) for _ in range(5)]
    assert zipf_decode(np.random.default_rng(0), share=0.001).capacity == 4
    assert arbitrary_cache(np.random.default_rng(0), requests=3).steps <= 3
    # Half of PCIe 4.0 x16 loads 4 bits of 3 x 4096 x 14336 weights in 5.5 ms.
    assert mixtral_decode(np.random.default_rng(0)).load_s == pytest.approx(3 * 4096 * 14336 / 2 / 16e9, rel=1e-3)


def repetitions(**size: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return by layer how often a token's first expert is the previous one's first, and either of its two."""
    rng = np.random.default_rng(0)
    first, either = [], []
    for _ in range(20):
        instance = mixtral_decode(rng, tokens=200, **size)
        chosen = instance.requests.reshape(200, instance.layers, -1)
        first.append((chosen[1:, :, 0] == chosen[:-1, :, 0]).mean(axis=0))
        either.append((chosen[1:, :, 0, None] == chosen[:-1]).any(axis=2).mean(axis=0))
    return np.mean(first, axis=0), np.mean(either, axis=0)


def test_tokens_repeat_experts_as_in_mixtral() -> None:
    # With even popularity, so that chance alone repeats one of eight: Mixtral of Experts, Table 5, layers 0, 15, 31.
    first, _ = repetitions(layers=3, sigma=0.0, kappa=0.0)
    assert first == pytest.approx([0.14, 0.265, 0.22], abs=0.02)
    # With skew it repeats more, and stays below the published second row.
    first, either = repetitions(layers=3)
    assert (either > first).all() and (either < 0.6).all()


def test_layers_have_affinity() -> None:
    instance = mixtral_decode(np.random.default_rng(0), layers=2, top_k=1, tokens=5000, sigma=0.0)
    chosen = instance.requests.reshape(-1, 2)
    table = np.zeros((8, 8))
    np.add.at(table, (chosen[:, 0], chosen[:, 1]), 1.0)
    ordered = np.sort(table / table.sum(axis=1, keepdims=True), axis=1)[:, ::-1]
    # Without coincidences of permutations: 0.55 / 8 + 0.45 x (4, 2, 1) / 7, mixed with the stickiness of 11 %.
    assert ordered[:, 0].mean() == pytest.approx(0.33, abs=0.06)
    assert ordered[:, :2].sum(axis=1).mean() == pytest.approx(0.5, abs=0.08)
    flat = mixtral_decode(np.random.default_rng(0), layers=2, top_k=1, tokens=5000, sigma=0.0, kappa=0.0)
    chosen = flat.requests.reshape(-1, 2)
    assert np.mean(chosen[:, 0] == chosen[:, 1]) == pytest.approx(1 / 8, abs=0.03)


def test_zipf_popularity_follows_its_power() -> None:
    instance = zipf_decode(np.random.default_rng(0), layers=1, experts=32, top_k=1, tokens=20_000, phase=20_000)
    counts = np.sort(np.bincount(instance.requests.ravel(), minlength=32))[::-1] / 20_000
    weight = 1.0 / np.arange(1, 33)
    assert counts == pytest.approx(weight / weight.sum(), abs=0.01)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("mixtral-decode", {"layers": 0}, "layers: 0, expected an integer of at least 1"),
        ("mixtral-decode", {"top_k": 9}, "top_k: 9, expected at most the 8 experts"),
        ("mixtral-decode", {"share": 0.0}, "share: 0.0, expected more than 0 and at most 1"),
        ("mixtral-decode", {"kappa": 1.5}, "kappa: 1.5, sigma: 0.3, expected kappa from 0 to 1"),
        ("mixtral-decode", {"compute_s": 0.0}, "compute_s: 0.0, expected more than 0"),
        ("zipf-decode", {"phase": 0}, "phase: 0, exponent: 1.0, expected at least 1"),
        ("zipf-decode", {"tokens": 1.5}, "tokens: 1.5, expected an integer of at least 1"),
        ("arbitrary-cache", {"requests": 0}, "requests: 0, experts: 4, expected at least 1"),
    ],
)
def test_bad_sizes_are_named(name: str, size: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        CACHE_GENERATORS[name](np.random.default_rng(0), **size)
    assert str(error.value).startswith(message)
