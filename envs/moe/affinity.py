"""Affinity between layers: which expert follows which, and token paths whose choices repeat from token to token.

Paths hold each token's first choice. Popular loads alone make layers independent; measured models are not, which is
what ExFlow (arXiv 2401.08383) places by. Repetition from one token to the next is that of the Mixtral paper
(arXiv 2401.04088), table 5.
"""

from __future__ import annotations

import numpy as np

from schedrl.arrays import F64, I32, I64
from schedrl.errors import ConfigError

__all__ = [
    "MIXTRAL_REPETITION",
    "count_transitions",
    "fit_loads",
    "mixtral_stickiness",
    "repetition",
    "sample_paths",
    "stickiness_for",
    "transition_matrices",
]

MIXTRAL_REPETITION = {0: 0.1409, 15: 0.264, 31: 0.2268}
"""layer of Mixtral-8x7B: share of tokens with the first choice of the token before, mean of table 5's 8 data sets"""

_FIT_ROUNDS = 200
_FIT_TOLERANCE = 1e-10


def transition_matrices(rng: np.random.Generator, shares: F64, *, affinity: float, successors: int = 3) -> F64:
    """Draw which expert of the next layer an expert's tokens go to.

    A share ``affinity`` of them goes to ``successors`` preferred experts, the j-th of which gets a part proportional
    to 2^-j and is given by a random permutation; the others choose by load. The result is then fitted to the loads,
    so that tokens that start with the loads of layer 0 have the loads of every later layer.

    Args:
        rng: Source of randomness.
        shares: (L, E) share of the tokens of each expert, rows sum to 1.
        affinity: Kappa, 0 up to but not including 1.
        successors: Preferred successors of an expert, at least 1.

    Returns:
        (L - 1, E, E) shares; rows sum to 1.

    Raises:
        ConfigError: a value outside its range.
    """
    if not 0 <= affinity < 1:
        raise ConfigError(f"option affinity: {affinity}, expected at least 0 and below 1")
    if successors < 1:
        raise ConfigError(f"option successors: {successors}, expected at least 1")
    layers, experts = shares.shape
    weights = 0.5 ** np.arange(successors)
    weights *= affinity / weights.sum()
    matrices = np.broadcast_to((1 - affinity) * shares[1:, None, :], (layers - 1, experts, experts)).copy()
    rows = np.arange(experts)
    for matrix in matrices:
        for weight in weights:
            matrix[rows, rng.permutation(experts)] += weight
    return fit_loads(matrices, shares)


def fit_loads(matrices: F64, shares: F64) -> F64:
    """Return the transitions (L - 1, E, E) nearest to ``matrices`` that carry the loads of each layer to the next's.

    Iterative proportional fitting of the flow between two layers to both loads; an expert without load keeps its row.
    """
    flow = matrices * shares[:-1, :, None]
    for _ in range(_FIT_ROUNDS):
        flow *= _ratio(shares[1:], flow.sum(axis=1))[:, None, :]
        sums = flow.sum(axis=2)
        flow *= _ratio(shares[:-1], sums)[:, :, None]
        if np.abs(sums - shares[:-1]).max(initial=0.0) < _FIT_TOLERANCE:
            break
    rows = flow.sum(axis=2, keepdims=True)
    fitted: F64 = np.where(rows > 0, flow / np.where(rows > 0, rows, 1.0), matrices)
    return fitted


def _ratio(wanted: F64, present: F64) -> F64:
    return np.divide(wanted, present, out=np.zeros_like(wanted), where=present > 0)


def sample_paths(
    rng: np.random.Generator, *, tokens: int, first: F64, transitions: F64, stickiness: F64 | None = None
) -> I32:
    """Draw the experts of consecutive tokens.

    In each layer a token takes the expert of the token before with the layer's probability of ``stickiness``, else one
    by the transitions from its own expert of the layer before.

    Args:
        rng: Source of randomness.
        tokens: Number of tokens N, at least 1.
        first: (E,) shares in the first layer.
        transitions: (L - 1, E, E) shares, rows sum to 1.
        stickiness: (L,) probabilities; None: tokens are independent.

    Returns:
        (N, L) expert of each token and layer.

    Raises:
        ConfigError: no tokens, or one stickiness too few or too many.
    """
    layers = len(transitions) + 1
    sticky = np.zeros(layers) if stickiness is None else np.asarray(stickiness, dtype=np.float64)
    if tokens < 1:
        raise ConfigError(f"option tokens: {tokens}, expected at least 1")
    if sticky.shape != (layers,):
        raise ConfigError(f"option stickiness: shape {sticky.shape}, expected ({layers},)")
    paths = np.empty((tokens, layers), dtype=np.int32)  # (N, L)
    for layer in range(layers):
        cumulative = np.cumsum(first if layer == 0 else transitions[layer - 1], axis=-1)
        rows = cumulative if layer == 0 else cumulative[paths[:, layer - 1]]
        # Scaled by the last sum, as rounding may leave it below 1.
        drawn = rng.random(tokens)[:, None] * rows[..., -1:]
        own = (rows <= drawn).sum(axis=1)
        kept = rng.random(tokens) < sticky[layer]
        kept[0] = False
        paths[:, layer] = own[np.maximum.accumulate(np.where(kept, 0, np.arange(tokens)))]
    return paths


def count_transitions(paths: np.ndarray[tuple[int, ...], np.dtype[np.integer]], experts: int) -> I64:
    """Return how many tokens go from each expert to each expert of the next layer, (L - 1, E, E), from paths (N, L).

    Raises:
        ConfigError: paths without two dimensions, or an expert outside 0 to ``experts`` - 1.
    """
    paths = np.asarray(paths)
    if paths.ndim != 2 or paths.dtype.kind not in "iu":
        raise ConfigError(f"paths: shape {paths.shape} of {paths.dtype}, expected integers (tokens, layers)")
    if paths.size and (paths.min() < 0 or paths.max() >= experts):
        raise ConfigError(f"paths: an expert outside 0 to {experts - 1}")
    pairs = max(paths.shape[1] - 1, 0)
    codes = (np.arange(pairs) * experts + paths[:, :-1]) * experts + paths[:, 1:] if pairs else paths[:, :0]
    counts: I64 = np.bincount(codes.ravel(), minlength=pairs * experts**2).astype(np.int64)
    return counts.reshape(pairs, experts, experts)


def repetition(paths: I32) -> F64:
    """Return the share of tokens with the expert of the token before, per layer (L,), from paths (N, L)."""
    shares: F64 = (paths[1:] == paths[:-1]).mean(axis=0)
    return shares


def stickiness_for(repeated: F64, first: F64, transitions: F64) -> F64:
    """Return the stickiness (L,) with which a share ``repeated`` (L,) of tokens has the expert of the token before.

    Independent tokens repeat too: by unequal loads, and as equal experts have equal likely successors. Only what is
    missing is added, exact but for tokens whose predecessor itself repeated; never negative.
    """
    sticky = np.zeros(len(transitions) + 1)
    joint, load = np.outer(first, first), first  # (E, E) experts of two consecutive tokens in the current layer
    for layer in range(len(sticky)):
        if layer:
            load = load @ transitions[layer - 1]
            joint = transitions[layer - 1].T @ joint @ transitions[layer - 1]
        chance = float(np.trace(joint))
        sticky[layer] = min(max((repeated[layer] - chance) / max(1 - chance, 1e-12), 0.0), 1.0)
        joint = (1 - sticky[layer]) * joint + sticky[layer] * np.diag(load)
    return sticky


def mixtral_stickiness(layers: int = 32) -> F64:
    """Return s = (repetition - 1/8) / (1 - 1/8) of Mixtral, (L,); between the layers of the table by interpolation."""
    known = list(MIXTRAL_REPETITION)
    values = [(share - 1 / 8) / (1 - 1 / 8) for share in MIXTRAL_REPETITION.values()]
    return np.interp(np.arange(layers), known, values)
