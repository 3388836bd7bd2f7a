"""Seeded generators of buffers to pack: cut from a full rectangle, drawn at random, nested as in a training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from schedrl.arrays import F64, I64
from schedrl.envs.memmap.packing import OffsetPackingInstance
from schedrl.errors import ConfigError
from schedrl.kernels import kernel

__all__ = ["PACKING_GENERATORS", "known_optimum", "random_lifetimes", "training_step"]


def known_optimum(
    rng: np.random.Generator,
    *,
    buffers: int = 100,
    capacity: int = 1024,
    instants: int = 1024,
    unit: int = 1024,
    spare: float = 0.1,
) -> OffsetPackingInstance:
    """Return buffers cut from a full rectangle of memory and time, so that the best peak is its height.

    Guillotine cuts, through the memory or through the time of one piece, go on until there are enough pieces. Some
    pieces are then left out, none of one instant, at which the memory so stays full: ``max_live`` is the optimum. The
    offsets of the cutting are hints, one of the best packings, in which nothing learned or exact may look.

    Args:
        rng: source of all choices.
        buffers: number of buffers.
        capacity: height of the rectangle, in units.
        instants: length of the rectangle.
        unit: bytes that all sizes are multiples of.
        spare: pieces left out, per buffer.

    Raises:
        ConfigError: a size below 1, a rectangle too small for so many pieces, or ``spare`` outside 0 to 1.
    """
    _at_least_one(buffers=buffers, capacity=capacity, instants=instants, unit=unit)
    if not 0.0 <= spare <= 1.0:
        raise ConfigError(f"spare: {spare}, expected 0 to 1")
    dropped = int(spare * buffers)
    pieces = buffers + dropped
    # Cuts leave pieces that are too thin to cut: with some room they never run out.
    if buffers > 1 and capacity * instants < 16 * pieces:
        raise ConfigError(f"buffers: {buffers}, too many for {capacity} units times {instants} instants")
    chosen = _cut(rng, (instants, capacity), pieces)
    spare_pieces = _spare(chosen)
    if len(spare_pieces) >= dropped:
        chosen = np.delete(chosen, rng.choice(spare_pieces, dropped, replace=False), axis=0)
    else:
        # Few high stacks: as many pieces as wanted, of which none can be missed.
        chosen = _cut(rng, (instants, capacity), buffers)
    left, right, low, high = chosen[rng.permutation(buffers)].T
    return OffsetPackingInstance(
        name=f"known-optimum-{buffers}-{rng.integers(10**9):09d}",
        lower=left,
        upper=right,
        size=(high - low) * unit,
        hint=low * unit,
    )


def _cut(rng: np.random.Generator, whole: tuple[int, int], pieces: int) -> I64:
    """Return (pieces, 4) rectangles: first instant, end, low and high of each."""
    found = np.zeros((pieces, 4), dtype=np.int64)
    found[0, 1::2] = whole
    draws = np.column_stack([rng.random((pieces, 2)), rng.beta(1.5, 1.5, size=pieces)])
    _cut_pieces(found, np.zeros(pieces), draws)
    return found


@kernel
def _cut_pieces(found: I64, weight: F64, draws: F64) -> None:
    """Cut the first rectangle into as many as there are rows; a row of ``draws`` says which, which way and where."""
    piece = 0
    for count in range(1, len(found)):
        # Larger pieces are likelier, less than in proportion: sizes and lifetimes spread over orders of magnitude.
        for changed in (piece, count - 1):
            long, high = found[changed, 1] - found[changed, 0], found[changed, 3] - found[changed, 2]
            weight[changed] = np.sqrt(long * high) if long * high > 1 else 0.0
        left = draws[count, 0] * weight[:count].sum()
        piece = 0
        # Rounding must not lead past the last piece that can be cut.
        for k in range(count):
            if weight[k] > 0.0:
                piece = k
                left -= weight[k]
                if left < 0.0:
                    break
        across, along = found[piece, 1] - found[piece, 0], found[piece, 3] - found[piece, 2]
        share = np.log(across) / np.log(across * along)
        axis = 0 if draws[count, 1] < share else 2
        start, end = found[piece, axis], found[piece, axis + 1]
        at = min(max(start + int(np.round((end - start) * draws[count, 2])), start + 1), end - 1)
        for side in range(4):
            found[count, side] = found[piece, side]
        found[piece, axis + 1] = at
        found[count, axis] = at


def _spare(pieces: I64) -> I64:
    """Return the pieces that are not live at the instant with the fewest."""
    begins = np.unique(pieces[:, 0])
    live = (pieces[:, 0] <= begins[:, None]) & (begins[:, None] < pieces[:, 1])
    return np.flatnonzero(~live[np.argmin(live.sum(axis=1))])


def random_lifetimes(
    rng: np.random.Generator,
    *,
    buffers: int = 100,
    instants: int = 1000,
    mean_live: float = 12.0,
    unit: int = 1024,
    alignment: int = 1,
) -> OffsetPackingInstance:
    """Return buffers with random begins, exponential lifetimes, and sizes over three orders of magnitude.

    Args:
        rng: source of all choices.
        buffers: number of buffers.
        instants: span of time.
        mean_live: buffers live at once, about, as long as lifetimes do not fill the span.
        unit: bytes that all sizes are multiples of.
        alignment: bytes that all offsets are multiples of.

    Raises:
        ConfigError: a size below 1, or ``mean_live`` not positive.
    """
    _at_least_one(buffers=buffers, instants=instants, unit=unit, alignment=alignment)
    if not mean_live > 0.0:
        raise ConfigError(f"mean_live: {mean_live}, expected more than 0")
    lower = rng.integers(0, instants, size=buffers)
    duration = np.ceil(rng.exponential(instants * mean_live / buffers, size=buffers)).astype(np.int64)
    return OffsetPackingInstance(
        name=f"random-lifetimes-{buffers}-{rng.integers(10**9):09d}",
        lower=lower,
        upper=np.minimum(lower + np.maximum(duration, 1), instants),
        size=np.ceil(np.exp(rng.uniform(0.0, np.log(1000.0), size=buffers))).astype(np.int64) * unit,
        alignment=np.full(buffers, alignment),
    )


def training_step(
    rng: np.random.Generator, *, layers: int = 20, skips: float = 0.3, unit: int = 1024
) -> OffsetPackingInstance:
    """Return the buffers of a training step: activations live from the forward to the backward pass of their layer.

    Layer k runs at instant k and again, backward, at 2 layers - 1 - k. Each of the ``layers`` has five buffers: an
    activation; a workspace of its forward and one of its backward instant; the gradient of the activation, from the
    backward instant of the last layer that reads it (the next one, or a later one over a skip connection) to that of
    its own; and the gradient of the weights, which lives until the end or, where the optimiser is fused, for its
    own instant.

    Args:
        rng: source of all choices.
        layers: layers of the network; there are five times as many buffers.
        skips: probability that a layer's activation is read by a later layer than the next.
        unit: bytes that all sizes are multiples of.

    Raises:
        ConfigError: fewer than two layers, a unit below 1, or ``skips`` outside 0 to 1.
    """
    _at_least_one(unit=unit)
    if type(layers) is not int or layers < 2 or not 0.0 <= skips <= 1.0:
        raise ConfigError(f"layers: {layers}, skips: {skips}, expected an integer of at least 2, and 0 to 1")
    last = 2 * layers - 1
    # Widths wander from layer to layer, as channels and resolutions do.
    width = np.exp(np.cumsum(rng.normal(0.0, 0.4, size=layers)))
    fused = rng.random() < 0.5
    rows: list[tuple[int, int, float]] = []
    for k in range(layers):
        backward = last - k
        reader = min(k + 1, layers - 1)
        if rng.random() < skips:
            reader = int(rng.integers(reader, layers))
        activation = width[k] * rng.uniform(0.5, 2.0)
        rows += [
            (k, backward + 1, activation),
            (k, k + 1, width[k] * rng.uniform(0.1, 3.0)),
            (backward, backward + 1, width[k] * rng.uniform(0.1, 3.0)),
            (last - reader, backward + 1, activation),
            (backward, backward + 1 if fused else last + 1, width[k] * rng.uniform(0.05, 1.0)),
        ]
    return _from_rows(f"training-step-{layers}-{rng.integers(10**9):09d}", rows, unit)


def _from_rows(name: str, rows: Sequence[tuple[int, int, float]], unit: int) -> OffsetPackingInstance:
    lower, upper, size = zip(*rows, strict=True)
    largest = max(size)
    return OffsetPackingInstance(
        name=name,
        lower=np.array(lower, dtype=np.int64),
        upper=np.array(upper, dtype=np.int64),
        size=np.ceil(np.array(size) / largest * 1000.0).astype(np.int64) * unit,
    )


def _at_least_one(**sizes: int) -> None:
    for name, value in sizes.items():
        if not isinstance(value, int | np.integer) or value < 1:
            raise ConfigError(f"{name}: {value!r}, expected an integer of at least 1")


PACKING_GENERATORS: Mapping[str, Callable[..., OffsetPackingInstance]] = MappingProxyType(
    {"known-optimum": known_optimum, "random-lifetimes": random_lifetimes, "training-step": training_step}
)
