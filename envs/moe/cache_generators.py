"""Seeded generators of request traces: decoding calibrated to Mixtral, skewed popularity, and arbitrary small ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from schedrl.arrays import F64, I32
from schedrl.envs.moe.cache_instance import ExpertCacheInstance
from schedrl.errors import ConfigError

__all__ = ["CACHE_GENERATORS", "arbitrary_cache", "mixtral_decode", "zipf_decode"]

# Chance that a token's first expert is the previous token's, at the first, middle and last layer: fitted to the
# repetitions of Table 5 of Mixtral of Experts (arXiv 2401.04088) in excess of chance.
_STICKINESS = (0.02, 0.16, 0.11)
# Affinity of successive layers: fitted to the hops of ExFlow (arXiv 2401.08383) for Mixtral.
_KAPPA, _PERMUTATIONS = 0.45, 3


def mixtral_decode(
    rng: np.random.Generator,
    *,
    layers: int = 8,
    experts: int = 8,
    top_k: int = 2,
    tokens: int = 32,
    share: float = 0.5,
    kappa: float = _KAPPA,
    sigma: float = 0.3,
    expert_bytes: float = 88.1e6,
    host_bytes_per_s: float = 16e9,
    compute_s: float = 2e-3,
) -> ExpertCacheInstance:
    """Return the decoding of one text: sticky from token to token, and layer to layer by fixed affinities.

    Popularity within a layer is log-normal. An expert prefers as successors those that a few random permutations name,
    with weights 1/2, 1/4, ...; a token's experts are drawn without replacement from the mean over its experts in the
    layer before. Sizes by default are Mixtral's experts at 4 bits, half of PCIe 4.0 x16, and a request that reads two
    of them and the attention's weights at 100 GB/s.

    Args:
        rng: source of all choices.
        layers: layers L; the stickiness is interpolated between the first, middle and last.
        experts: experts of a layer.
        top_k: experts of a token and layer.
        tokens: tokens decoded, L requests each.
        share: share of all experts that fits, at least ``top_k`` experts.
        kappa: weight of the affinities, 0 to 1.
        sigma: spread of the logarithm of popularity.
        expert_bytes: bytes of one expert.
        host_bytes_per_s: bandwidth of the channel.
        compute_s: mean computation of a request, the same for all of a layer and within 20 % of it.

    Raises:
        ConfigError: an argument outside its range.
    """
    _check(layers=layers, experts=experts, top_k=top_k, tokens=tokens, share=share)
    if not 0.0 <= kappa <= 1.0 or not sigma >= 0.0:
        raise ConfigError(f"kappa: {kappa}, sigma: {sigma}, expected kappa from 0 to 1 and sigma from 0 on")
    popularity = np.exp(sigma * rng.standard_normal((layers, experts)))
    popularity /= popularity.sum(axis=1, keepdims=True)
    affinity = _affinity(rng, layers, experts)
    sticky = np.interp(np.linspace(0.0, 2.0, layers) if layers > 1 else [1.0], [0.0, 1.0, 2.0], _STICKINESS)
    requests = np.empty((tokens, layers, top_k), dtype=np.int32)
    for t in range(tokens):
        for layer in range(layers):
            chances = popularity[layer]
            if layer > 0:
                led = affinity[layer - 1, requests[t, layer - 1]].mean(axis=0)
                chances = (1.0 - kappa) * chances + kappa * led
            kept = requests[t - 1, layer, 0] if t > 0 and rng.random() < sticky[layer] else -1
            requests[t, layer] = _draw(rng, chances, top_k, int(kept))
    return _instance(rng, "mixtral-decode", requests, experts, share, (expert_bytes, host_bytes_per_s, compute_s))


def zipf_decode(
    rng: np.random.Generator,
    *,
    layers: int = 4,
    experts: int = 32,
    top_k: int = 4,
    tokens: int = 32,
    share: float = 0.4,
    exponent: float = 1.0,
    phase: int = 16,
    expert_bytes: float = 12.6e6,
    host_bytes_per_s: float = 16e9,
    compute_s: float = 2e-3,
) -> ExpertCacheInstance:
    """Return requests of Zipf popularity, whose order changes partly with every phase of the text.

    Every ``phase`` tokens a quarter of each layer's experts swap their popularity. Sizes by default are those of
    OLMoE's experts at 16 bits.

    Args:
        rng: source of all choices.
        layers: layers L.
        experts: experts of a layer.
        top_k: experts of a token and layer.
        tokens: tokens decoded, L requests each.
        share: share of all experts that fits, at least ``top_k`` experts.
        exponent: of the power law, 0 for even popularity.
        phase: tokens between changes.
        expert_bytes: bytes of one expert.
        host_bytes_per_s: bandwidth of the channel.
        compute_s: mean computation of a request, the same for all of a layer and within 20 % of it.

    Raises:
        ConfigError: an argument outside its range.
    """
    _check(layers=layers, experts=experts, top_k=top_k, tokens=tokens, share=share)
    if type(phase) is not int or phase < 1 or not exponent >= 0.0:
        raise ConfigError(f"phase: {phase!r}, exponent: {exponent}, expected at least 1 and at least 0")
    weight = np.arange(1, experts + 1) ** -float(exponent)
    weight /= weight.sum()
    rank = np.stack([rng.permutation(experts) for _ in range(layers)])
    requests = np.empty((tokens, layers, top_k), dtype=np.int32)
    for t in range(tokens):
        for layer in range(layers):
            if t > 0 and t % phase == 0:
                swapped = rng.choice(experts, max(experts // 4, 2) if experts > 1 else 1, replace=False)
                rank[layer, swapped] = np.roll(rank[layer, swapped], 1)
            requests[t, layer] = _draw(rng, weight[rank[layer]], top_k, -1)
    return _instance(rng, "zipf-decode", requests, experts, share, (expert_bytes, host_bytes_per_s, compute_s))


def arbitrary_cache(rng: np.random.Generator, *, requests: int = 12, experts: int = 4) -> ExpertCacheInstance:
    """Return a small instance without structure: any order of layers, any sizes, an arbitrary start.

    Args:
        rng: source of all choices.
        requests: most requests.
        experts: most experts of a layer.

    Raises:
        ConfigError: a size below 1.
    """
    if requests < 1 or experts < 1:
        raise ConfigError(f"requests: {requests}, experts: {experts}, expected at least 1")
    steps, own, layers = int(rng.integers(1, requests + 1)), int(rng.integers(1, experts + 1)), int(rng.integers(1, 4))
    width = int(rng.integers(1, min(own, 3) + 1))
    rows = np.full((steps, width), -1)
    for row in rows:
        count = int(rng.integers(1, width + 1))
        row[:count] = rng.choice(own, count, replace=False)
    capacity = int(rng.integers(width, layers * own + 2))
    initial = rng.permutation(layers * own)[: int(rng.integers(0, min(capacity, layers * own) + 1))]
    token, layer = np.sort(rng.integers(0, 3, size=steps)), rng.integers(0, layers, size=steps)
    if rng.random() < 0.5:
        token, layer = np.arange(steps) // layers, np.arange(steps) % layers
    return ExpertCacheInstance(
        name=f"arbitrary-{steps}-{rng.integers(10**9):09d}",
        experts=own,
        capacity=capacity,
        token=token.astype(np.int32),
        layer=layer.astype(np.int32),
        requests=rows.astype(np.int32),
        compute_s=rng.choice([0.5, 1.0, 1.7, 4.0], size=layers),
        expert_bytes=float(rng.choice([0.3, 1.0, 2.0, 3.5])),
        host_bytes_per_s=1.0,
        initial=initial.astype(np.int32),
    )


def _affinity(rng: np.random.Generator, layers: int, experts: int) -> F64:
    """Return (L - 1, E, E) the successors that random permutations give each expert."""
    weights = 0.5 ** np.arange(1, _PERMUTATIONS + 1)
    weights /= weights.sum()
    affinity = np.zeros((max(layers - 1, 0), experts, experts))
    for table in affinity:
        for weight in weights:
            table[np.arange(experts), rng.permutation(experts)] += weight
    return affinity


def _draw(rng: np.random.Generator, chances: F64, count: int, first: int) -> I32:
    """Draw different experts one after the other, the first as given unless -1 (exponential races)."""
    race = rng.standard_exponential(len(chances)) / np.maximum(chances, 1e-300)
    if first >= 0:
        race[first] = -1.0
    # Ordered by the race, which is drawing without replacement.
    return np.argsort(race, kind="stable")[:count].astype(np.int32)


def _check(*, layers: int, experts: int, top_k: int, tokens: int, share: float) -> None:
    for name, value in (("layers", layers), ("experts", experts), ("top_k", top_k), ("tokens", tokens)):
        if type(value) is not int or value < 1:
            raise ConfigError(f"{name}: {value!r}, expected an integer of at least 1")
    if top_k > experts:
        raise ConfigError(f"top_k: {top_k}, expected at most the {experts} experts")
    if not 0.0 < share <= 1.0:
        raise ConfigError(f"share: {share}, expected more than 0 and at most 1")


def _instance(
    rng: np.random.Generator, kind: str, requests: I32, experts: int, share: float, times: tuple[float, float, float]
) -> ExpertCacheInstance:
    tokens, layers, top_k = requests.shape
    expert_bytes, host_bytes_per_s, compute_s = times
    for name, value in zip(("expert_bytes", "host_bytes_per_s", "compute_s"), times, strict=True):
        if not value > 0.0:
            raise ConfigError(f"{name}: {value}, expected more than 0")
    capacity = max(round(share * layers * experts), top_k)
    # Memory is full at the start, as after an earlier text: a warm cache makes short traces comparable.
    initial = rng.permutation(layers * experts)[:capacity]
    return ExpertCacheInstance(
        name=f"{kind}-{layers}x{experts}-{rng.integers(10**9):09d}",
        experts=experts,
        capacity=capacity,
        token=np.repeat(np.arange(tokens, dtype=np.int32), layers),
        layer=np.tile(np.arange(layers, dtype=np.int32), tokens),
        requests=requests.reshape(tokens * layers, top_k),
        compute_s=np.asarray(compute_s * rng.uniform(0.8, 1.2, size=layers)),
        expert_bytes=float(expert_bytes),
        host_bytes_per_s=float(host_bytes_per_s),
        initial=np.sort(initial).astype(np.int32),
    )


# The first is the family's default.
CACHE_GENERATORS: Mapping[str, Callable[..., ExpertCacheInstance]] = MappingProxyType(
    {"mixtral-decode": mixtral_decode, "zipf-decode": zipf_decode, "arbitrary-cache": arbitrary_cache}
)
